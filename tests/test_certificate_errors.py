"""Certificate errors: for each fault, what both sides learn of it, and what a person can do about it."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import AuthorityInformationAccessOID
from faults import (
    AUTHORITY,
    FAULTS,
    PRESENTERS,
    Fault,
    issued_for,
    judge_and_presenter,
    meet,
    only,
    outcome,
    shown_by,
)
from OpenSSL import SSL
from OpenSSL._util import lib
from trio.testing import MockClock, memory_stream_pair

import trio_tlsnode as tls
from trio_tlsnode import (
    Alert,
    CertificateError,
    IdentityError,
    PeerAlert,
    SecureContext,
    TLSServer,
    TLSStream,
)
from trio_tlsnode._openssl.verification import name_of, text_of
from trio_tlsnode.diagnosis import DIAGNOSES, hint
from trio_tlsnode.testing import Authority, IssuedCertificate, RecordingStream

VERSIONS = ("TLSv1.2", "TLSv1.3")

in_both_versions = pytest.mark.parametrize("version", VERSIONS)

CASES = [
    pytest.param(fault, presenter, id=f"{fault}-{presenter}")
    for fault in FAULTS
    for presenter in fault.presenters
]


# What both sides learn


@pytest.mark.feature("D3")
@pytest.mark.feature("D4")
@pytest.mark.feature("G11")
@pytest.mark.feature("B8")
@pytest.mark.parametrize(("fault", "presenter"), CASES)
@in_both_versions
async def test_a_faulty_certificate_is_refused_and_both_sides_know_why(
    fault: Fault, presenter: str, version: str
) -> None:
    streams = judge_and_presenter(fault.issued, presenter, version, judging=fault.judging)
    error, told = await meet(*streams)

    assert type(error) is CertificateError
    assert (error.code, error.reason, error.depth) == (fault.code, fault.reason, fault.depth)
    assert [(problem.code, problem.depth) for problem in error.problems] == [
        (code, fault.depth) for code in (*fault.before, fault.code)
    ]
    assert error.certificate == error.problems[-1].certificate
    assert error.certificate == certificates(fault.issued)[fault.depth]
    assert fault.advice in error.hint
    assert str(error).splitlines() == [f"{fault.reason} [{fault.code}]"]
    assert (error.side, error.phase, error.retryable) == ("peer", "handshake", False)
    assert error.stream is streams[0]

    assert isinstance(told, PeerAlert)
    assert told.alert is fault.alert


def certificates(issued: IssuedCertificate) -> list[tls.Certificate]:
    return [tls.Certificate.from_x509(one) for one in x509.load_pem_x509_certificates(issued.cert)]


@pytest.mark.feature("A5")
@pytest.mark.feature("B8")
@pytest.mark.feature("C2")
@pytest.mark.parametrize(("fault", "presenter"), CASES)
@in_both_versions
async def test_where_nobody_is_refused_the_same_verdict_is_kept(
    fault: Fault, presenter: str, version: str
) -> None:
    judge, other = judge_and_presenter(
        fault.issued, presenter, version, judging=fault.judging, reject_unauthorized=False
    )
    assert await meet(judge, other) == (None, None)
    assert judge.authorized is False
    error = judge.authorization_error
    assert type(error) is CertificateError
    assert (error.code, error.reason, error.depth) == (fault.code, fault.reason, fault.depth)
    assert fault.advice in error.hint
    assert (error.phase, error.stream) == (None, None)


@pytest.mark.feature("D3")
@pytest.mark.parametrize("presenter", PRESENTERS)
@in_both_versions
async def test_a_certificate_without_fault_is_accepted(presenter: str, version: str) -> None:
    for issued in (issued_for("good", intermediates=1), issued_for("revoked")):
        judge, other = judge_and_presenter(issued, presenter, version)
        assert await meet(judge, other) == (None, None)
        assert judge.authorized
        assert judge.authorization_error is None


@pytest.mark.feature("B8")
@in_both_versions
async def test_a_server_does_not_judge_the_names_of_clients(version: str) -> None:
    judge, other = judge_and_presenter(issued_for("wrong_name"), "client", version)
    assert await meet(judge, other) == (None, None)
    assert judge.authorized


@pytest.mark.feature("D3")
@in_both_versions
async def test_the_lists_of_another_authority_are_none(version: str) -> None:
    judge, other = judge_and_presenter(
        issued_for("good"), "server", version, judging={"crl": Authority().crl()}
    )
    error, told = await meet(judge, other)
    assert isinstance(error, CertificateError)
    assert (error.code, error.reason) == ("UNABLE_TO_GET_CRL", "unable to get certificate CRL")
    assert error.hint.startswith("crl= has no revocation list of 'trustme ")
    assert isinstance(told, PeerAlert)
    assert told.alert is Alert.unknown_ca


@pytest.mark.feature("D3")
@in_both_versions
async def test_an_intermediate_alone_is_no_root(version: str) -> None:
    issued = issued_for("good", intermediates=1)
    judge, other = judge_and_presenter(issued, "server", version, judging={"ca": issued.intermediates})
    error, told = await meet(judge, other)
    assert isinstance(error, CertificateError)
    assert (error.code, error.reason, error.depth) == (
        "UNABLE_TO_GET_ISSUER_CERT",
        "unable to get issuer certificate",
        1,
    )
    assert "is trusted, but is no root" in error.hint
    assert "allow_partial_trust_chain=True" in error.hint
    assert isinstance(told, PeerAlert)
    assert told.alert is Alert.unknown_ca


@pytest.mark.feature("D3")
@pytest.mark.parametrize(
    ("field", "code", "reason"),
    [
        ("not_before", "ERROR_IN_CERT_NOT_BEFORE_FIELD", "format error in certificate's notBefore field"),
        ("not_after", "ERROR_IN_CERT_NOT_AFTER_FIELD", "format error in certificate's notAfter field"),
    ],
)
@in_both_versions
async def test_a_date_that_is_none_is_named(
    field: Any, code: str, reason: str, version: str, tmp_path: Any
) -> None:
    issued = AUTHORITY.unreadable_date("localhost", field=field)
    # We refuse to load what cryptography cannot parse, so the server is somebody else.
    server = SSL.Context(SSL.TLS_METHOD)
    key_path, cert_path = issued.write_to(tmp_path)
    server.use_certificate_chain_file(str(cert_path))
    server.use_privatekey_file(str(key_path))
    left, right = memory_stream_pair()
    client = TLSStream(left, SecureContext(ca=AUTHORITY.ca, **only(version)), host="localhost")
    told: list[SSL.Error] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_by_pyopenssl, SSL.Connection(server), right, told)
        error = await outcome(client)
    assert isinstance(error, CertificateError)
    assert (error.code, error.reason, error.depth) == (code, reason, 0)
    assert error.hint == DIAGNOSES[code].remedy
    assert error.certificate is not None
    assert error._repr_html_()
    ((_, _, text),) = told[0].args[0]
    assert text == "tls alert bad certificate"


async def serve_by_pyopenssl(
    connection: SSL.Connection, transport: trio.abc.Stream, failures: list[SSL.Error]
) -> None:
    connection.set_accept_state()
    while True:
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            try:
                await transport.send_all(connection.bio_read(65536))
            except SSL.WantReadError:
                pass
            connection.bio_write(await transport.receive_some())
        except SSL.Error as error:
            failures.append(error)
            return


@pytest.mark.feature("D3")
@pytest.mark.parametrize("field", ["last_update", "next_update"])
def test_a_revocation_list_without_dates_cannot_even_be_given(field: Any) -> None:
    with pytest.raises(tls.ConfigurationError) as caught:
        SecureContext(ca=AUTHORITY.ca, crl=AUTHORITY.unreadable_date_crl(field))
    assert caught.value.option == "crl"


# All problems


@pytest.mark.feature("G11")
async def test_all_problems_are_told_each_with_its_certificate() -> None:
    judge, other = judge_and_presenter(
        Authority().expired("somebody-else.example"), "server", "TLSv1.3", judging={"ca": AUTHORITY.ca}
    )
    error, told = await meet(judge, other)
    assert type(error) is CertificateError
    assert error.code == "CERT_HAS_EXPIRED"
    assert [problem.code for problem in error.problems] == [
        "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
        "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
        "CERT_HAS_EXPIRED",
        "ERR_TLS_CERT_ALTNAME_INVALID",
    ]
    for problem in error.problems:
        assert problem.depth == 0
        assert problem.certificate is not None
        assert problem.certificate.subject_alt_name == "DNS:somebody-else.example"
        assert problem.certificate.valid_to < dt.datetime.now(dt.UTC)
        assert problem.code in str(problem)
        assert "depth 0, <Certificate 'O=trustme" in str(problem)
    assert "trust its root by ca=[...]" in error.hint
    assert "expired on" in error.hint
    assert "The certificate is for somebody-else.example." in error.hint
    assert isinstance(told, PeerAlert)
    assert told.alert is Alert.certificate_expired


@pytest.mark.feature("G11")
@pytest.mark.feature("D2")
async def test_a_wrong_name_is_a_problem_like_any_other() -> None:
    judge, other = judge_and_presenter(issued_for("wrong_name"), "server", "TLSv1.3")
    error, told = await meet(judge, other)
    assert type(error) is IdentityError
    (problem,) = error.problems
    assert (problem.code, problem.depth) == ("ERR_TLS_CERT_ALTNAME_INVALID", 0)
    assert (problem.reason, problem.certificate) == (error.reason, error.certificate)
    assert (error.host, error.presented) == ("localhost", ("somebody-else.invalid",))
    assert isinstance(told, PeerAlert)
    assert told.alert is Alert.bad_certificate


# What can be done


PROBLEM_AT = dt.datetime(2026, 1, 3, 10, 30, tzinfo=dt.UTC)


def problem_with(code: str, pem: bytes, depth: int = 0) -> tls.CertificateProblem:
    certificate = tls.Certificate.from_x509(x509.load_pem_x509_certificate(pem))
    return tls.CertificateProblem(code, "", depth, certificate)


@pytest.mark.feature("G11")
def test_the_hint_has_the_dates_and_the_clock_by_which_they_were_judged() -> None:
    expired = Authority(now=PROBLEM_AT).expired("a.example")
    problem = problem_with("CERT_HAS_EXPIRED", expired.cert)
    assert hint([problem], peer="server", at=PROBLEM_AT).startswith(
        "The server's certificate expired on 2026-01-02 10:30 UTC (it is judged as of 2026-01-03 10:30 UTC). "
    )
    assert re.search(r"\(the clock here says \d{4}-\d\d-\d\d \d\d:\d\d UTC\)", hint([problem], peer="server"))


@pytest.mark.feature("G11")
def test_the_hint_names_where_a_missing_intermediate_is_published() -> None:
    lonely = with_issuers_url(issued_for("missing_intermediate"), "http://ca.example/x")
    advice = hint([problem_with("UNABLE_TO_VERIFY_LEAF_SIGNATURE", lonely)], peer="server")
    assert "in cert=. It is published at 'http://ca.example/x'. If it is your authority" in advice


def with_issuers_url(issued: IssuedCertificate, url: str) -> bytes:
    """Return the certificate with this URL of its issuer's certificate, signed by its own key."""
    original = issued.certificate
    key: Any = serialization.load_pem_private_key(issued.key, None)
    access = x509.AccessDescription(
        AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier(url)
    )
    builder = x509.CertificateBuilder(
        original.issuer,
        original.subject,
        original.public_key(),
        original.serial_number,
        original.not_valid_before_utc,
        original.not_valid_after_utc,
    ).add_extension(x509.AuthorityInformationAccess([access]), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.mark.feature("G11")
def test_what_a_peer_writes_forges_no_lines_and_fills_no_page() -> None:
    forged = Authority().client("a\nERROR all is well " + "x" * 40, "localhost")
    problem = problem_with("CERT_HAS_EXPIRED", forged.cert, depth=1)
    assert hint([problem], peer="client").startswith("The certificate of 'a\\nERROR all is well xxx")
    many = [
        problem_with("CERT_HAS_EXPIRED", issued.cert, depth)
        for depth, issued in enumerate([issued_for("expired"), issued_for("good"), forged] * 40)
    ]
    assert len(hint(many, peer="client")) < 1500
    error = CertificateError("two\nlines", code="X")
    assert str(error) == "two\\nlines [X]"
    assert str(IdentityError("a\u2028b", host="h")) == "a\\u2028b [ERR_TLS_CERT_ALTNAME_INVALID]"


@pytest.mark.feature("G11")
def test_what_cannot_be_read_is_advised_without_its_facts() -> None:
    damaged = tls.CertificateProblem("CERT_HAS_EXPIRED", "", 0, tls.Certificate(b"0"))
    assert hint([damaged], peer="server") == DIAGNOSES["CERT_HAS_EXPIRED"].remedy
    absent = tls.CertificateProblem("CERT_HAS_EXPIRED", "", 0, None)
    assert hint([absent], peer="server") == DIAGNOSES["CERT_HAS_EXPIRED"].remedy
    assert hint([tls.CertificateProblem("X509_V_ERR_999", "", 0, None)], peer="server") == ""


# Every verify result


RESULTS = range(1, 104)


@pytest.mark.feature("D3")
@pytest.mark.parametrize("result", RESULTS)
def test_every_verify_result_has_name_text_and_diagnosis(result: int) -> None:
    diagnosis = DIAGNOSES[name_of(result)]
    # OpenSSL forgot the text of this one.
    assert (text_of(result) == "unknown certificate verification error") == (result == 101)
    for sentences in (diagnosis.cause, diagnosis.remedy):
        assert re.fullmatch(r"[A-Z][^\n]*\.", sentences)
        assert len(re.findall(r"\.(?= |$)", sentences)) <= 2


@pytest.mark.feature("D3")
def test_the_names_are_openssl_s() -> None:
    constants = {name for name in dir(lib) if name.startswith("X509_V_ERR_")}
    assert len(constants) > 50
    assert {f"X509_V_ERR_{name_of(getattr(lib, constant))}" for constant in constants} == constants
    assert len({name_of(result) for result in RESULTS}) == len(RESULTS)


@pytest.mark.feature("D3")
def test_a_verify_result_of_a_later_openssl_has_a_name_too() -> None:
    assert text_of(104) == "unknown certificate verification error"
    assert name_of(104) == "X509_V_ERR_104"


# Servers that ask for a certificate


async def echo(stream: TLSStream) -> None:
    async for data in stream:
        await stream.send_all(data)


def server_context(**options: Any) -> SecureContext:
    return SecureContext(**{"ca": AUTHORITY.ca, **shown_by("good"), **options})


CLIENTS: dict[str, tuple[Callable[[], dict[str, Any]], str | None]] = {
    "good": (lambda: shown_by("good"), None),
    "none": (dict, "UNABLE_TO_GET_ISSUER_CERT"),
    "untrusted": (lambda: shown_by("untrusted"), "UNABLE_TO_VERIFY_LEAF_SIGNATURE"),
    "expired": (lambda: shown_by("expired"), "CERT_HAS_EXPIRED"),
    "revoked": (lambda: shown_by("revoked"), "CERT_REVOKED"),
    "for servers": (lambda: shown_by("wrong_purpose", side="client"), "INVALID_PURPOSE"),
}


@pytest.mark.feature("B8")
@pytest.mark.feature("C2")
@pytest.mark.parametrize(("options", "code"), CLIENTS.values(), ids=CLIENTS)
@in_both_versions
async def test_a_server_asks_requires_or_accepts_and_reports(
    options: Callable[[], dict[str, Any]], code: str | None, version: str
) -> None:
    issued_for("revoked")
    context = server_context(crl=AUTHORITY.crl(), **only(version))

    async def meet_client(**server_options: Any) -> tuple[TLSStream, Any, Any]:
        left, right = memory_stream_pair()
        server = TLSStream(left, context, server_side=True, **server_options)
        client_context = SecureContext(ca=AUTHORITY.ca, **options())
        return server, *await meet(server, TLSStream(right, client_context, host="localhost"))

    # It does not ask: nobody is authorized, and nothing is wrong.
    server, error, told = await meet_client()
    assert (error, told) == (None, None)
    assert (server.authorized, server.authorization_error) == (False, None)
    assert server.info.peer_certificate is None

    # It accepts and reports.
    server, error, told = await meet_client(request_cert=True, reject_unauthorized=False)
    assert (error, told) == (None, None)
    assert server.authorized is (code is None)
    verdict = server.authorization_error
    assert (verdict and verdict.code) == code
    if verdict is not None:
        assert verdict.hint
        assert [problem.code for problem in verdict.problems][-1] == code

    # It requires.
    server, error, told = await meet_client(request_cert=True)
    if code is None:
        assert (error, told) == (None, None)
        assert server.authorized
        return
    assert type(error) is CertificateError
    assert isinstance(told, PeerAlert)
    if code == "UNABLE_TO_GET_ISSUER_CERT":
        assert error.code == "ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE"
        assert error.hint.startswith("Give the client a certificate by cert= and key=")
        required = version == "TLSv1.3"
        assert told.alert is (Alert.certificate_required if required else Alert.handshake_failure)
    else:
        assert error.code == code


# Clients that wait for the verdict


REFUSED = [
    (dict, Alert.certificate_required),
    (lambda: shown_by("untrusted"), Alert.unknown_ca),
    (lambda: shown_by("expired"), Alert.certificate_expired),
    (lambda: shown_by("wrong_purpose", side="client"), Alert.unsupported_certificate),
]


@pytest.mark.feature("A17")
@pytest.mark.parametrize(("options", "alert"), REFUSED, ids=[alert.name for _, alert in REFUSED])
@pytest.mark.parametrize("confirm", [True, False], ids=["confirm", "no-confirm"])
async def test_over_a_socket_a_refused_client_that_waits_learns_it_from_connect(
    options: Callable[[], dict[str, Any]], alert: Alert, *, confirm: bool, nursery: trio.Nursery
) -> None:
    server = TLSServer(echo, server_context(), request_cert=True)
    await nursery.start(server.serve, 0, "127.0.0.1")
    port = server.addresses[0].port

    async def connect() -> TLSStream:
        return await tls.connect(
            "127.0.0.1", port, server_name="localhost", ca=AUTHORITY.ca, confirm=confirm, **options()
        )

    if confirm:
        with pytest.raises(PeerAlert) as caught:
            await connect()
        assert caught.value.phase == "handshake"
    else:
        async with await connect() as stream:
            with pytest.raises(PeerAlert) as caught:
                await stream.receive_some()
        assert caught.value.phase == "secure"
    assert caught.value.alert is alert
    (error,) = (await anext(server.client_errors())).exceptions
    assert isinstance(error, CertificateError)
    nursery.cancel_scope.cancel()


@pytest.mark.feature("A17")
@in_both_versions
async def test_over_a_socket_an_accepted_client_that_waits_gets_its_stream(
    version: str, nursery: trio.Nursery
) -> None:
    server = TLSServer(echo, server_context(), request_cert=True)
    await nursery.start(server.serve, 0, "127.0.0.1")
    options = {"ca": AUTHORITY.ca, **shown_by("good"), **only(version)}
    async with await tls.connect(
        "127.0.0.1", server.addresses[0].port, server_name="localhost", confirm=True, **options
    ) as stream:
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
    nursery.cancel_scope.cancel()


async def over_memory(
    nursery: trio.Nursery, handler: Callable[[TLSStream], Any], options: dict[str, Any], **client_options: Any
) -> TLSStream:
    server = TLSServer(handler, server_context(), request_cert=True)
    transport, client = memory_stream_pair()
    nursery.start_soon(server.handle, transport)
    context = SecureContext(ca=AUTHORITY.ca, **options)
    return await tls.wrap_client(client, host="localhost", context=context, confirm=True, **client_options)


@pytest.mark.feature("A17")
async def test_over_memory_a_client_that_waits_gets_its_stream_once_the_server_speaks(
    nursery: trio.Nursery,
) -> None:
    async def greet(stream: TLSStream) -> None:
        await stream.send_all(b"welcome")

    stream = await over_memory(nursery, greet, shown_by("good"))
    assert await stream.receive_some() == b"welcome"
    assert await stream.receive_some() == b""
    await stream.aclose()


@pytest.mark.feature("A17")
async def test_over_memory_a_refused_client_that_waits_learns_it_at_once(nursery: trio.Nursery) -> None:
    with pytest.raises(PeerAlert) as caught:
        await over_memory(nursery, echo, {})
    assert caught.value.alert is Alert.certificate_required


@pytest.mark.feature("A17")
async def test_a_client_that_waits_for_a_silent_server_gives_up_in_time(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    with pytest.raises(tls.HandshakeTimeout):
        await over_memory(nursery, echo, shown_by("good"), handshake_timeout=10)
    assert trio.current_time() == 10
    nursery.cancel_scope.cancel()


# The identity check


@pytest.mark.feature("A6")
@pytest.mark.parametrize("answer", [None, False, "", 0, True, "no", ValueError])
@in_both_versions
async def test_what_is_no_exception_accepts(answer: object, version: str) -> None:
    judge, other = judge_and_presenter(
        issued_for("wrong_name"), "server", version, check_server_identity=lambda *_: answer
    )
    assert await meet(judge, other) == (None, None)
    assert judge.authorized


@pytest.mark.feature("A6")
@in_both_versions
async def test_the_check_gets_a_certificate_once_and_may_call_the_standard_one(version: str) -> None:
    seen: list[tls.Certificate | None] = []

    def check(host: str, certificate: tls.Certificate | None) -> None:
        seen.append(certificate)
        tls.check_server_identity(host, certificate)

    judge, other = judge_and_presenter(issued_for("good"), "server", version, check_server_identity=check)
    assert await meet(judge, other) == (None, None)
    assert seen == certificates(issued_for("good"))
    judge, other = judge_and_presenter(
        issued_for("wrong_name"), "server", version, check_server_identity=check
    )
    error, _ = await meet(judge, other)
    assert type(error) is IdentityError
    # The standard refusal, not one that wraps it.
    assert error.__cause__ is None
    assert error.reason == "Host: localhost. is not in the cert's altnames: DNS:somebody-else.invalid"
    assert error.hint.startswith("The certificate is for somebody-else.invalid.")


@pytest.mark.feature("A6")
@pytest.mark.parametrize("answer", ["raises", "returns"])
@in_both_versions
async def test_a_refusal_of_the_application_s_own_is_the_cause_where_connect_was_called(
    answer: str, version: str, nursery: trio.Nursery
) -> None:
    class UnpinnedError(Exception):
        pass

    def check(_host: str, _certificate: tls.Certificate | None) -> object:
        if answer == "returns":
            return UnpinnedError("another fingerprint")
        raise UnpinnedError("another fingerprint")

    server = TLSServer(echo, server_context())
    await nursery.start(server.serve, 0, "127.0.0.1")
    options: Any = {"ca": AUTHORITY.ca, **only(version)}
    with pytest.raises(IdentityError, match="another fingerprint") as caught:
        await tls.connect(
            "127.0.0.1",
            server.addresses[0].port,
            server_name="localhost",
            check_server_identity=check,
            **options,
        )
    assert isinstance(caught.value.__cause__, UnpinnedError)
    assert "the cause of this error" in caught.value.hint
    (error,) = (await anext(server.client_errors())).exceptions
    assert isinstance(error, PeerAlert)
    assert error.alert is Alert.bad_certificate
    nursery.cancel_scope.cancel()


@pytest.mark.feature("A6")
@pytest.mark.parametrize(
    ("options", "checked"),
    [
        ({"host": "a.example", "server_name": "b.example"}, "b.example"),
        ({"host": "a.example", "server_name": ""}, "a.example"),
        ({"host": "a.example"}, "a.example"),
        ({"host": "192.0.2.7"}, "192.0.2.7"),
        ({}, "localhost"),
    ],
)
async def test_the_name_that_is_checked(options: dict[str, Any], checked: str) -> None:
    left, right = memory_stream_pair()
    client = TLSStream(left, SecureContext(ca=AUTHORITY.ca), **options)
    error, _ = await meet(
        client, TLSStream(right, server_context(**shown_by("wrong_name")), server_side=True)
    )
    assert isinstance(error, IdentityError)
    assert error.host == checked


@pytest.mark.feature("A6")
@in_both_versions
async def test_a_wrong_server_gets_an_alert_and_nothing_else(version: str) -> None:
    left, right = memory_stream_pair()
    recorded = RecordingStream(left)
    client = TLSStream(recorded, SecureContext(ca=AUTHORITY.ca, **only(version)), host="localhost")
    server = TLSStream(right, server_context(**shown_by("wrong_name")), server_side=True)
    error, told = await meet(client, server)
    assert isinstance(error, IdentityError)
    assert isinstance(told, PeerAlert)
    assert told.alert is Alert.bad_certificate
    assert record_types(recorded.sent) == [HANDSHAKE, ALERT]
    assert client.statistics().plaintext_sent == 0
    assert server.statistics().plaintext_received == 0


ALERT, HANDSHAKE = 21, 22


def record_types(sent: bytes) -> list[int]:
    """Return the type of each TLS record."""
    types = []
    while sent:
        types.append(sent[0])
        sent = sent[5 + int.from_bytes(sent[3:5]) :]
    return types


# In a notebook


def unstyled(shown: Any) -> str:
    """Return the HTML form of a value without its styles."""
    return re.sub(' style="[^"]*"', "", shown._repr_html_())


@pytest.mark.feature("G3")
async def test_a_notebook_shows_a_certificate_error_as_a_table() -> None:
    judge, other = judge_and_presenter(issued_for("expired"), "server", "TLSv1.3")
    error, _ = await meet(judge, other)
    assert isinstance(error, CertificateError)
    shown = unstyled(error)
    assert shown.startswith("<table><caption>CertificateError<span>CERT_HAS_EXPIRED</span></caption>")
    for text in ("CERT_HAS_EXPIRED", "certificate has expired", "depth 0", "expired on", "DNS:localhost"):
        assert text in shown
    assert "handshake" in shown
    assert shown.count("<table>") == shown.count("</table>") == 2
    assert "TLSStream" not in shown


@pytest.mark.feature("G3")
def test_a_notebook_shows_any_error_with_its_facts_and_without_markup_of_others() -> None:
    refusal = IdentityError("<script>alert(1)</script>", host="<b>", presented=("a&b", "<i>"))
    refusal.__cause__ = ValueError("<u>")
    shown = unstyled(refusal)
    assert "&lt;script&gt;" in shown
    assert ">&lt;b&gt;</td>" in shown
    assert "><div>a&amp;b</div><div>&lt;i&gt;</div></td>" in shown
    assert "ValueError: &lt;u&gt;" in shown
    assert not re.search("<(script|b|i|u)>", shown)
    alert = PeerAlert("the peer sent an alert", code="X", alert=Alert.unknown_ca)
    assert ">unknown_ca</td>" in alert._repr_html_()
    lost = tls.ConnectError("refused", code="ECONNREFUSED", host="h", port=1)
    assert ">port</span></th><td>1</td>" in unstyled(lost)
    assert ">retryable</span></th><td>yes</td>" in unstyled(lost)
    assert ">ERR_INVALID_ARG_VALUE</span></caption>" in tls.ConfigurationError("bad")._repr_html_()


@pytest.mark.feature("G3")
async def test_a_notebook_shows_what_was_negotiated_with_the_chain() -> None:
    issued = issued_for("good", intermediates=1)
    judge, other = judge_and_presenter(issued, "server", "TLSv1.3", reject_unauthorized=False)
    assert await meet(judge, other) == (None, None)
    shown = unstyled(judge.info)
    assert shown.startswith("<table><caption>ConnectionInfo<span>authorized</span></caption>")
    for text in ("TLSv1.3", "TLS_AES_256_GCM_SHA384<span>, 256 bits</span>", ">localhost<span>, issued by "):
        assert text in shown
    # What was sent, and with the root what was verified: a line for each certificate.
    for name, length in (("peer_certificate_chain", 2), ("verified_chain", 3)):
        (cell,) = re.findall(rf">{name}</span></th><td>(.*?)</td>", shown)
        assert cell.count("<div>") == length
    assert "alpn_protocol" not in shown
    assert ">secret_bits</span></th><td>256</td>" in unstyled(judge.info.cipher)


@pytest.mark.feature("G3")
async def test_a_notebook_shows_the_verdict_that_was_kept() -> None:
    judge, other = judge_and_presenter(
        issued_for("untrusted"), "server", "TLSv1.3", reject_unauthorized=False
    )
    await meet(judge, other)
    shown = unstyled(judge.info)
    assert "<caption>ConnectionInfo<span>not authorized</span></caption>" in shown
    assert "><span>UNABLE_TO_VERIFY_LEAF_SIGNATURE</span> unable to verify the first" in shown
