"""Stapling: a server presents an OCSP response with its certificate, and a client judges it."""

from __future__ import annotations

import functools
import gc
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from faults import AUTHORITY, issued_for, meet, only, outcome
from staples import (
    BAD_STAPLES,
    BadStaple,
    judge_and_stapler,
    leaf,
    must_staple,
    presenting,
    trusting,
    view,
)
from trio.testing import MockClock, memory_stream_pair

import trio_tlsnode as tls
from trio_tlsnode import (
    Alert,
    CallbackError,
    Certificate,
    CertificateError,
    ConfigurationError,
    ConfigurationTypeError,
    IdentityError,
    PeerAlert,
    PreSharedKey,
    SecureContext,
    TLSServer,
    TLSStream,
    wrap_client,
)
from trio_tlsnode._openssl import callbacks
from trio_tlsnode.options import SSL_OP_NO_TICKET
from trio_tlsnode.testing import Authority, IssuedCertificate

VERSIONS = ("TLSv1.2", "TLSv1.3")

in_both_versions = pytest.mark.parametrize("version", VERSIONS)
serves = pytest.mark.feature("B18")
judges = pytest.mark.feature("A10")

GOOD = AUTHORITY.ocsp_response(leaf())
REVOKED = AUTHORITY.ocsp_response(leaf(), status="revoked")
ISSUER = view(AUTHORITY.ca_with_key())


class Asked:
    """An ``ocsp_callback`` that notes what it is asked for.

    Args:
        answer: What it returns.

    Attributes:
        calls: The certificates and issuers that it was given.
    """

    def __init__(self, answer: Any = GOOD) -> None:
        self._answer = answer
        self.calls: list[tuple[Certificate, Certificate | None]] = []

    def __call__(self, certificate: Certificate, issuer: Certificate | None) -> Any:
        self.calls.append((certificate, issuer))
        return self._answer

    async def later(self, certificate: Certificate, issuer: Certificate | None) -> Any:
        await trio.lowlevel.checkpoint()
        return self(certificate, issuer)


async def both(
    client_context: SecureContext,
    server_context: SecureContext,
    client: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
) -> tuple[TLSStream, TLSStream]:
    """Return a client's and a server's stream after their handshake and a message, by which tickets come."""
    left, right = memory_stream_pair()
    client_stream = TLSStream(left, client_context, **{"host": "localhost", **(client or {})})
    server_stream = TLSStream(right, server_context, server_side=True, **(server or {}))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server_stream.send_all, b"x")
        assert await client_stream.receive_some() == b"x"
    return client_stream, server_stream


@functools.cache
def pairs() -> dict[str, IssuedCertificate]:
    """Return certificates with keys of each type, each below an intermediate."""
    return {
        key_type: AUTHORITY.good("localhost", key_type=key_type, intermediates=1)
        for key_type in ("RSA", "EC")
    }


def with_pairs(**options: Any) -> SecureContext:
    """Return a server's context with all of them."""
    issued = pairs().values()
    return SecureContext(
        ca=AUTHORITY.ca, key=[one.key for one in issued], cert=[one.cert for one in issued], **options
    )


# A server: when it is asked, and for what


@serves
@pytest.mark.parametrize("kind", ["sync", "async"])
@in_both_versions
async def test_the_response_for_the_certificate_is_stapled(kind: str, version: str) -> None:
    asked = Asked()
    callback = asked if kind == "sync" else asked.later
    client, server = await both(
        trusting(version), presenting(leaf(), version), {"request_ocsp": True}, {"ocsp_callback": callback}
    )
    assert asked.calls == [(view(leaf()), ISSUER)]
    assert server.info.certificate == client.info.peer_certificate == view(leaf())
    assert client.info.ocsp_response == GOOD
    assert server.info.ocsp_response is None


@serves
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_all_bytes_like_forms_are_stapled(kind: Callable[[bytes], Any]) -> None:
    options = {"ocsp_callback": Asked(kind(GOOD))}
    client, _ = await both(
        trusting("TLSv1.3"), presenting(leaf(), "TLSv1.3"), {"request_ocsp": True}, options
    )
    assert client.info.ocsp_response == GOOD


@serves
@in_both_versions
async def test_nobody_is_asked_for_a_client_that_does_not_ask(version: str) -> None:
    asked = Asked()
    client, _ = await both(
        trusting(version), presenting(leaf(), version), server={"ocsp_callback": asked.later}
    )
    assert asked.calls == []
    assert client.info.ocsp_response is None


@serves
@in_both_versions
async def test_without_a_response_none_is_stapled(version: str) -> None:
    asked = Asked(None)
    client, _ = await both(
        trusting(version), presenting(leaf(), version), {"ocsp": "verify"}, {"ocsp_callback": asked}
    )
    assert len(asked.calls) == 1
    assert client.authorized
    assert client.info.ocsp_response is None


CHOICES: dict[str, tuple[dict[str, Any], str]] = {
    "1.3 RSA by sigalgs": ({"min_version": "TLSv1.3", "sigalgs": "RSA-PSS+SHA256:RSA+SHA256"}, "RSA"),
    "1.3 EC by sigalgs": ({"min_version": "TLSv1.3", "sigalgs": "ECDSA+SHA256"}, "EC"),
    "1.2 RSA by sigalgs": ({"max_version": "TLSv1.2", "sigalgs": "RSA-PSS+SHA256:RSA+SHA256"}, "RSA"),
    "1.2 EC by sigalgs": ({"max_version": "TLSv1.2", "sigalgs": "ECDSA+SHA256"}, "EC"),
    "1.2 RSA by ciphers": ({"max_version": "TLSv1.2", "ciphers": "ECDHE-RSA-AES128-GCM-SHA256"}, "RSA"),
    "1.2 EC by ciphers": ({"max_version": "TLSv1.2", "ciphers": "ECDHE-ECDSA-AES128-GCM-SHA256"}, "EC"),
}


@serves
@pytest.mark.parametrize(("options", "key_type"), CHOICES.values(), ids=CHOICES)
async def test_of_several_certificates_it_is_the_one_for_this_client(
    options: dict[str, Any], key_type: str
) -> None:
    issued = pairs()[key_type]
    good = AUTHORITY.ocsp_response(issued)
    asked = Asked(good)
    client, server = await both(
        SecureContext(ca=AUTHORITY.ca, **options),
        with_pairs(),
        {"ocsp": "require"},
        {"ocsp_callback": asked.later},
    )
    intermediate = view(AUTHORITY.ca_with_key(intermediates=1))
    assert asked.calls == [(view(issued), intermediate)]
    assert server.info.certificate == client.info.peer_certificate == view(issued)
    assert client.info.ocsp_response == good


def of_unknown_kind(pem: bytes) -> bytes:
    """Return a certificate with a key that no library knows, in DER."""
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    return der.replace(bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a8648ce3d027f"))


@serves
@pytest.mark.parametrize(
    ("issued", "trusted", "issuer"),
    [
        (lambda: AUTHORITY.good("localhost", intermediates=1), [], 1),
        (leaf, AUTHORITY.ca, 0),
        (leaf, [], None),
        (leaf, Authority().ca, None),
        (lambda: issued_for("self_signed"), [], None),
        (leaf, [x509.load_der_x509_certificate(of_unknown_kind(AUTHORITY.ca)), AUTHORITY.ca], 0),
    ],
    ids=["from its chain", "from ca", "unknown", "of another", "itself, untrusted", "one of the same name"],
)
async def test_the_issuer_is_from_the_chain_or_trusted_else_unknown(
    issued: Callable[[], IssuedCertificate], trusted: Any, issuer: int | None
) -> None:
    asked = Asked(None)
    server = SecureContext(ca=trusted, **issued().options)
    options = {"request_ocsp": True, "reject_unauthorized": False}
    await both(SecureContext(ca=AUTHORITY.ca), server, options, {"ocsp_callback": asked})
    ((_, given),) = asked.calls
    assert given == (None if issuer is None else view(AUTHORITY.ca_with_key(intermediates=issuer)))


@serves
@pytest.mark.parametrize("several", [False, True], ids=["one certificate", "several"])
async def test_after_a_hello_retry_request_too_it_is_asked_once(several: bool) -> None:
    asked = Asked(None)
    server_context = (
        with_pairs(groups="P-256") if several else SecureContext(groups="P-256", **leaf().options)
    )
    client, server = await both(
        SecureContext(ca=AUTHORITY.ca, groups="X25519:P-256", sigalgs="ECDSA+SHA256", min_version="TLSv1.3"),
        server_context,
        {"request_ocsp": True},
        {"ocsp_callback": asked},
    )
    assert server.client_hello is not None
    # What it has a share for is not what was used.
    assert server.client_hello.key_share_groups == (0x001D,)
    assert client.info.ephemeral_key is not None
    assert client.info.ephemeral_key.name == "prime256v1"
    ((certificate, _),) = asked.calls
    assert certificate == client.info.peer_certificate == view(pairs()["EC"] if several else leaf())


@serves
@pytest.mark.feature("B10")
@in_both_versions
async def test_exchanged_credentials_are_asked_for_with_their_own_issuer(version: str) -> None:
    other_authority = Authority()
    other = other_authority.good("localhost")
    asked = Asked(other_authority.ocsp_response(other))
    exchanged = SecureContext(ca=other_authority.ca, **other.options)

    def choose(choice: tls.Choice) -> str:
        choice.use_credentials(exchanged)
        return "h2"

    client, _ = await both(
        SecureContext(ca=other_authority.ca, **only(version)),
        presenting(leaf(), version),
        {"ocsp": "require", "alpn_protocols": ["h2"]},
        {"ocsp_callback": asked, "alpn_callback": choose},
    )
    assert client.info.peer_certificate == view(other)
    assert asked.calls == [(view(other), view(other_authority.ca_with_key()))]


@serves
@pytest.mark.feature("B10")
@pytest.mark.parametrize("by", ["add_context", "sni_callback"])
@in_both_versions
async def test_the_certificate_of_the_name_s_own_context_is_asked_for(
    by: str, version: str, nursery: trio.Nursery
) -> None:
    named = AUTHORITY.good("other.example")
    asked = Asked(AUTHORITY.ocsp_response(named))
    context = presenting(named, version)
    options: dict[str, Any] = {} if by == "add_context" else {"sni_callback": lambda _: context}
    server = TLSServer(silence, presenting(leaf(), version), ocsp_callback=asked, **options)
    if by == "add_context":
        server.add_context("other.example", context)
    client = await reach(nursery, server, version, host="other.example", ocsp="require")
    assert asked.calls == [(view(named), ISSUER)]
    assert client.authorized
    await client.aclose()


async def silence(stream: TLSStream) -> None:
    async for _ in stream:
        pass


async def reach(nursery: trio.Nursery, server: TLSServer, version: str, **options: Any) -> TLSStream:
    """Return a client of a server, over memory."""
    transport, end = memory_stream_pair()
    nursery.start_soon(server.handle, end)
    return await wrap_client(transport, context=trusting(version), **{"host": "localhost", **options})


# A server: what goes wrong


@serves
@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("text", "'text', which is no DER"),
        (5, "5, which is no DER"),
        ([GOOD], "which is no DER"),
        (b"", "0 bytes, which are no OCSP response"),
        (b"garbage", "7 bytes, which are no OCSP response"),
        (GOOD + b"x", "bytes, which are no OCSP response"),
        (GOOD[:-1], "bytes, which are no OCSP response"),
    ],
)
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_what_cannot_be_stapled_refuses_the_client(answer: Any, text: str, kind: str) -> None:
    asked = Asked(answer)
    left, right = memory_stream_pair()
    client = TLSStream(left, trusting("TLSv1.3"), host="localhost", request_ocsp=True)
    server = TLSStream(
        right,
        presenting(leaf(), "TLSv1.3"),
        server_side=True,
        ocsp_callback=asked if kind == "sync" else asked.later,
    )
    told, error = await meet(client, server)
    assert isinstance(error, CallbackError)
    assert (error.callback, error.code) == ("ocsp_callback", "ERR_TLS_CALLBACK")
    assert error.reason.startswith("ocsp_callback returned ")
    assert text in error.reason
    assert isinstance(told, PeerAlert)
    assert told.alert is Alert.internal_error


@serves
@in_both_versions
async def test_an_exception_refuses_this_connection_only_and_is_reported(
    version: str, nursery: trio.Nursery
) -> None:
    failures = [ZeroDivisionError("the responder")]

    def callback(*_: object) -> bytes:
        if failures:
            raise failures.pop()
        return GOOD

    server = TLSServer(silence, presenting(leaf(), version), ocsp_callback=callback)
    with pytest.raises(PeerAlert) as refused:
        await reach(nursery, server, version, ocsp="require")
    assert refused.value.alert is Alert.internal_error
    ((error),) = (await anext(server.client_errors())).exceptions
    assert isinstance(error, CallbackError)
    assert (error.callback, error.phase) == ("ocsp_callback", "handshake")
    assert isinstance(error.__cause__, ZeroDivisionError)

    client = await reach(nursery, server, version, ocsp="require")
    assert client.info.ocsp_response == GOOD
    await client.aclose()


@serves
@pytest.mark.feature("B20")
async def test_the_handshake_s_time_out_reaches_into_it(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    ended: list[float] = []

    async def callback(*_: object) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    server = TLSServer(silence, presenting(leaf(), "TLSv1.3"), ocsp_callback=callback, handshake_timeout=10)
    with pytest.raises(tls.ConnectionFailed):
        await reach(nursery, server, "TLSv1.3", request_ocsp=True)
    assert ended == [10]
    (error,) = (await anext(server.client_errors())).exceptions
    assert isinstance(error, tls.HandshakeTimeout)


@serves
async def test_cancelling_the_handshake_cancels_it() -> None:
    ended: list[str] = []

    async def callback(*_: object) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            ended.append("cancelled")
            raise

    left, right = memory_stream_pair()
    client = TLSStream(left, trusting("TLSv1.3"), host="localhost", request_ocsp=True)
    server = TLSStream(right, presenting(leaf(), "TLSv1.3"), server_side=True, ocsp_callback=callback)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outcome, client)
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel_when_blocked, scope)
            await server.do_handshake()
        assert scope.cancelled_caught
        await trio.aclose_forcefully(server)
    assert ended == ["cancelled"]


async def cancel_when_blocked(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()


@serves
def test_it_must_be_callable() -> None:
    with pytest.raises(ConfigurationTypeError) as caught:
        TLSServer(silence, presenting(leaf(), "TLSv1.3"), ocsp_callback=GOOD)  # type: ignore[arg-type]
    assert caught.value.option == "ocsp_callback"


# A server: connections without a certificate


@serves
@judges
@pytest.mark.feature("A9")
@pytest.mark.parametrize("several", [False, True], ids=["one certificate", "several"])
@in_both_versions
async def test_where_a_session_is_resumed_it_is_asked_in_vain(version: str, several: bool) -> None:
    issued = pairs()["EC"] if several else leaf()
    asked = Asked(AUTHORITY.ocsp_response(issued))
    server_context = with_pairs(**only(version)) if several else presenting(issued, version)
    client_context = SecureContext(ca=AUTHORITY.ca, sigalgs="ECDSA+SHA256", **only(version))
    options: dict[str, Any] = {"ocsp": "require"}
    for number in (1, 2):
        client, _ = await both(client_context, server_context, options, {"ocsp_callback": asked})
        assert client.info.session_reused is (number == 2)
        assert client.authorized
        assert (client.info.ocsp_response is None) is (number == 2)
        assert len(asked.calls) == number
        options["session"] = client.session


@serves
@pytest.mark.feature("B15")
@pytest.mark.parametrize("secure_options", [0, SSL_OP_NO_TICKET], ids=["tickets", "identifiers"])
@in_both_versions
async def test_a_client_that_may_not_resume_gets_its_response_for_one_of_several_certificates(
    version: str, secure_options: int
) -> None:
    asked = Asked(AUTHORITY.ocsp_response(pairs()["EC"]))
    server_context = with_pairs(secure_options=secure_options, **only(version))
    client_context = SecureContext(ca=AUTHORITY.ca, sigalgs="ECDSA+SHA256", **only(version))
    options: dict[str, Any] = {"ocsp": "require"}
    for resume in (True, False):
        client, _ = await both(
            client_context,
            server_context,
            options,
            {"ocsp_callback": asked, "resume": lambda _, may=resume: may},
        )
        assert not client.info.session_reused
        assert client.info.ocsp_response is not None
        options["session"] = client.session
    assert len(asked.calls) == 2


KEY = PreSharedKey("thermostat", bytes(32))


@serves
@judges
@pytest.mark.feature("A11")
@pytest.mark.parametrize(("version", "calls"), [("TLSv1.2", 1), ("TLSv1.3", 0)])
@pytest.mark.parametrize("mode", ["verify", "require"])
async def test_a_pre_shared_key_needs_no_response(version: str, calls: int, mode: str) -> None:
    asked, judged = Asked(), Judge()
    suites: dict[str, Any] = {"ciphers": "ECDHE-PSK-CHACHA20-POLY1305:TLS_AES_128_GCM_SHA256"}
    client, _ = await both(
        SecureContext(ca=AUTHORITY.ca, **suites, **only(version)),
        SecureContext(ca=AUTHORITY.ca, **suites, **leaf().options),
        {"psk": lambda _: KEY, "ocsp": mode, "on_ocsp_response": judged},
        {"psk": lambda *_: KEY, "ocsp_callback": asked},
    )
    # TLS 1.2 names the identity when the certificate would have been presented already.
    assert len(asked.calls) == calls
    assert judged.responses == []
    assert client.authorized
    assert client.info.psk_identity == KEY.identity
    assert client.info.ocsp_response is None


@serves
@pytest.mark.feature("A11")
@in_both_versions
async def test_a_key_that_nobody_knows_leaves_the_certificate_and_its_response(version: str) -> None:
    suites: dict[str, Any] = {"ciphers": "ECDHE-ECDSA-AES128-GCM-SHA256:TLS_AES_128_GCM_SHA256"}
    client, _ = await both(
        SecureContext(ca=AUTHORITY.ca, ciphers="ALL", **only(version)),
        SecureContext(ca=AUTHORITY.ca, **suites, **leaf().options),
        {"psk": lambda _: KEY, "ocsp": "require"},
        {"psk": lambda *_: None, "ocsp_callback": Asked()},
    )
    assert client.info.psk_identity is None
    assert client.info.ocsp_response == GOOD


@judges
@pytest.mark.parametrize("mode", ["verify", "require"])
async def test_an_anonymous_server_is_no_defect_but_refused(mode: Any) -> None:
    context = SecureContext(ciphers="aNULL@SECLEVEL=0", max_version="TLSv1.2", **leaf().options)
    judged = Judge()
    left, right = memory_stream_pair()
    client = TLSStream(left, context, host="localhost", ocsp=mode, on_ocsp_response=judged)
    error, _ = await meet(client, TLSStream(right, context, server_side=True, ocsp_callback=Asked()))
    assert isinstance(error, CertificateError)
    assert error.code == "UNABLE_TO_GET_ISSUER_CERT"
    assert judged.responses == []


# A client: its own callback


class Judge:
    """An ``on_ocsp_response`` that notes what it is given.

    Args:
        refusal: What it raises.

    Attributes:
        responses: What it was given.
    """

    def __init__(self, refusal: BaseException | None = None) -> None:
        self._refusal = refusal
        self.responses: list[bytes | None] = []

    def __call__(self, response: bytes | None) -> None:
        self.responses.append(response)
        if self._refusal is not None:
            raise self._refusal


@judges
@pytest.mark.parametrize("response", [GOOD, REVOKED, None], ids=["good", "revoked", "none"])
@in_both_versions
async def test_the_application_gets_the_response_before_the_handshake_ends(
    response: bytes | None, version: str
) -> None:
    responses: list[bytes | None] = []

    def judge(response: bytes | None) -> None:
        with pytest.raises(trio.NeedHandshakeError):
            _ = client.info
        responses.append(response)

    client, server = judge_and_stapler(response, version, on_ocsp_response=judge)
    assert await meet(client, server) == (None, None)
    assert responses == [response]
    assert client.info.ocsp_response == response
    assert client.authorized


@judges
@pytest.mark.parametrize("reject_unauthorized", [True, False])
@in_both_versions
async def test_what_it_raises_refuses_the_server(version: str, *, reject_unauthorized: bool) -> None:
    cause = ValueError("not that responder")
    client, server = judge_and_stapler(
        GOOD, version, on_ocsp_response=Judge(cause), reject_unauthorized=reject_unauthorized
    )
    error, told = await meet(client, server)
    assert isinstance(error, CallbackError)
    assert (error.callback, error.phase, error.side) == ("on_ocsp_response", "handshake", "local")
    assert error.__cause__ is cause
    assert isinstance(told, PeerAlert)
    assert told.alert is Alert.bad_certificate_status_response


@judges
@in_both_versions
async def test_it_may_not_be_async(version: str) -> None:
    async def judge(_: bytes | None) -> None:
        raise AssertionError("never awaited")

    client, server = judge_and_stapler(GOOD, version, on_ocsp_response=judge)
    error, told = await meet(client, server)
    assert isinstance(error, CallbackError)
    assert error.reason == "on_ocsp_response is called within OpenSSL and may not be async"
    assert isinstance(told, PeerAlert)
    assert told.alert is Alert.bad_certificate_status_response


@judges
@in_both_versions
async def test_a_keyboard_interrupt_in_it_is_none_of_ours(version: str) -> None:
    client, server = judge_and_stapler(GOOD, version, on_ocsp_response=Judge(KeyboardInterrupt()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outcome, server)
        with pytest.raises(KeyboardInterrupt):
            await client.do_handshake()
        await trio.aclose_forcefully(client)


@judges
@in_both_versions
async def test_it_is_not_asked_about_a_chain_that_is_not_trusted(version: str) -> None:
    judged = Judge()
    left, right = memory_stream_pair()
    stranger = SecureContext(ca=Authority().ca, **only(version))
    client = TLSStream(left, stranger, host="localhost", on_ocsp_response=judged, ocsp="require")
    server = TLSStream(right, presenting(leaf(), version), server_side=True, ocsp_callback=Asked(REVOKED))
    error, told = await meet(client, server)
    assert isinstance(error, CertificateError)
    assert error.code == "SELF_SIGNED_CERT_IN_CHAIN"
    assert judged.responses == []
    assert isinstance(told, PeerAlert)
    assert told.alert is Alert.unknown_ca


# A client: what it judges


@judges
@pytest.mark.parametrize("mode", ["verify", "require"])
@pytest.mark.parametrize("responder", ["issuer", "delegate"])
@pytest.mark.parametrize("intermediates", [0, 1])
@in_both_versions
async def test_a_good_response_is_accepted(
    mode: str, responder: Any, intermediates: int, version: str
) -> None:
    for issued in (
        AUTHORITY.good("localhost", intermediates=intermediates),
        AUTHORITY.must_staple("localhost", intermediates=intermediates),
    ):
        good = AUTHORITY.ocsp_response(issued, responder=responder)
        client, server = judge_and_stapler(good, version, issued=issued, ocsp=mode)
        assert await meet(client, server) == (None, None)
        assert client.authorized
        assert client.info.ocsp_response == good


@judges
@in_both_versions
async def test_no_response_is_missed_only_where_one_is_required(version: str) -> None:
    client, server = judge_and_stapler(None, version, ocsp="verify")
    assert await meet(client, server) == (None, None)
    assert client.authorized
    # Nobody judges who is not told to.
    client, server = judge_and_stapler(None, version, issued=must_staple(), request_ocsp=True)
    assert await meet(client, server) == (None, None)
    assert client.authorized


EACH_BAD_STAPLE = [
    pytest.param(staple, version, id=f"{staple}-{version}")
    for staple in BAD_STAPLES
    for version in VERSIONS[: 1 if staple.swapped else 2]
]


@judges
@pytest.mark.feature("D4")
@pytest.mark.feature("G11")
@pytest.mark.parametrize(("staple", "version"), EACH_BAD_STAPLE)
async def test_a_bad_response_is_refused_and_both_sides_know_why(staple: BadStaple, version: str) -> None:
    client, server = judge_and_stapler(
        staple.response, version, issued=staple.issued(), swapped=staple.swapped, ocsp=staple.ocsp
    )
    error, told = await meet(client, server)
    assert type(error) is CertificateError
    assert error.code == staple.code
    assert error.reason.startswith(staple.reason)
    assert (error.depth, error.certificate) == (0, view(staple.issued()))
    assert [problem.code for problem in error.problems] == [staple.code]
    assert staple.advice in error.hint
    assert (error.side, error.phase, error.retryable) == ("peer", "handshake", False)
    assert error.stream is client

    assert isinstance(told, PeerAlert)
    assert told.alert is Alert.bad_certificate_status_response


@judges
@pytest.mark.parametrize("staple", [staple for staple in BAD_STAPLES if staple.ocsp == "verify"], ids=str)
async def test_who_requires_a_response_does_not_take_a_bad_one_either(staple: BadStaple) -> None:
    client, server = judge_and_stapler(
        staple.response, "TLSv1.2", issued=staple.issued(), swapped=staple.swapped, ocsp="require"
    )
    error, _ = await meet(client, server)
    assert isinstance(error, CertificateError)
    assert error.code == staple.code


@judges
@pytest.mark.parametrize("staple", [staple for staple in BAD_STAPLES if not staple.swapped], ids=str)
@in_both_versions
async def test_where_nobody_is_refused_the_same_verdict_is_kept(staple: BadStaple, version: str) -> None:
    response = staple.response
    client, server = judge_and_stapler(
        response, version, issued=staple.issued(), ocsp=staple.ocsp, reject_unauthorized=False
    )
    assert await meet(client, server) == (None, None)
    assert client.authorized is False
    error = client.authorization_error
    assert type(error) is CertificateError
    assert error.code == staple.code
    assert [problem.code for problem in error.problems] == [staple.code]
    assert staple.advice in error.hint
    assert (error.phase, error.stream) == (None, None)
    assert client.info.ocsp_response == response


@judges
@pytest.mark.parametrize(
    "options", [{"request_ocsp": True}, {"ocsp": "verify"}, {"reject_unauthorized": False}]
)
async def test_what_is_no_response_at_all_is_refused_whoever_judges(options: dict[str, Any]) -> None:
    judged = Judge()
    client, server = judge_and_stapler(
        b"garbage", "TLSv1.2", swapped=True, on_ocsp_response=judged, **options
    )
    error, told = await meet(client, server)
    assert isinstance(error, CertificateError)
    assert error.code == "OCSP_RESP_INVALID"
    assert error.reason == "OCSP response(s) invalid: it cannot be read"
    assert error.hint
    assert judged.responses == []
    assert isinstance(told, PeerAlert)
    assert told.alert is Alert.bad_certificate_status_response


@judges
async def test_without_the_issuer_s_certificate_a_response_cannot_be_judged() -> None:
    alone = SecureContext(ca=leaf().cert, allow_partial_trust_chain=True)
    left, right = memory_stream_pair()
    client = TLSStream(left, alone, host="localhost", ocsp="verify")
    server = TLSStream(right, SecureContext(ca=[], **leaf().options), server_side=True, ocsp_callback=Asked())
    error, _ = await meet(client, server)
    assert isinstance(error, CertificateError)
    assert error.code == "OCSP_VERIFY_FAILED"


@judges
@pytest.mark.feature("G11")
@in_both_versions
async def test_an_expired_and_revoked_certificate_is_both(version: str) -> None:
    expired = issued_for("expired")
    response = AUTHORITY.ocsp_response(expired, status="revoked")
    client, server = judge_and_stapler(
        response, version, issued=expired, ocsp="require", reject_unauthorized=False
    )
    assert await meet(client, server) == (None, None)
    error = client.authorization_error
    assert error is not None
    assert [problem.code for problem in error.problems] == ["CERT_HAS_EXPIRED", "CERT_REVOKED"]
    assert "expired on" in error.hint
    assert "was revoked by" in error.hint
    # As it is where such a server is refused.
    assert error.code == "CERT_HAS_EXPIRED"
    refusal, _ = await meet(*judge_and_stapler(response, version, issued=expired, ocsp="require"))
    assert isinstance(refusal, CertificateError)
    assert refusal.code == error.code


@judges
@pytest.mark.feature("G11")
@in_both_versions
async def test_a_revoked_certificate_for_another_name_is_both(version: str) -> None:
    other = issued_for("wrong_name")
    response = AUTHORITY.ocsp_response(other, status="revoked")
    client, server = judge_and_stapler(
        response, version, issued=other, ocsp="verify", reject_unauthorized=False
    )
    assert await meet(client, server) == (None, None)
    error = client.authorization_error
    assert isinstance(error, IdentityError)
    assert error.presented == ("somebody-else.invalid",)
    assert [problem.code for problem in error.problems] == ["ERR_TLS_CERT_ALTNAME_INVALID", "CERT_REVOKED"]
    assert "The certificate is for somebody-else.invalid." in error.hint
    assert "was revoked by" in error.hint


@judges
@in_both_versions
async def test_it_is_judged_as_of_the_verification_time(version: str) -> None:
    due = issued_for("expired").certificate.not_valid_after_utc
    expired = AUTHORITY.expired_ocsp_response(leaf())
    for context, code in (
        (SecureContext(ca=AUTHORITY.ca, verification_time=due, **only(version)), None),
        (trusting(version), "OCSP_HAS_EXPIRED"),
    ):
        left, right = memory_stream_pair()
        client = TLSStream(left, context, host="localhost", ocsp="require")
        server = TLSStream(right, presenting(leaf(), version), server_side=True, ocsp_callback=Asked(expired))
        error, _ = await meet(client, server)
        assert (error and error.code) == code


@judges
@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"ocsp": "demand"}, "ocsp"),
        ({"ocsp": True}, "ocsp"),
        ({"ocsp": ["verify"]}, "ocsp"),
        ({"request_ocsp": None}, "request_ocsp"),
        ({"request_ocsp": "yes"}, "request_ocsp"),
        ({"on_ocsp_response": True}, "on_ocsp_response"),
    ],
)
async def test_a_wrong_option_is_told_at_once(options: dict[str, Any], option: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        judge_and_stapler(GOOD, "TLSv1.3", **options)
    assert caught.value.option == option
    with pytest.raises(ConfigurationError) as caught:
        await tls.connect("localhost", 1, **options)
    assert caught.value.option == option


# A client: sessions


def ignore(_: bytes | None) -> None:
    pass


# Each session is made under the first, and offered under the second.
RESUMED = [
    ({"ocsp": "verify"}, {"ocsp": "verify"}, True),
    ({"ocsp": "require"}, {"ocsp": "require"}, True),
    ({"on_ocsp_response": ignore}, {"on_ocsp_response": lambda _: None}, True),
    ({"request_ocsp": True}, {}, True),
    ({}, {"request_ocsp": True}, True),
    ({}, {"ocsp": "verify"}, False),
    ({}, {"ocsp": "require"}, False),
    ({"request_ocsp": True}, {"ocsp": "require"}, False),
    ({"ocsp": "verify"}, {"ocsp": "require"}, False),
    ({"ocsp": "require"}, {"ocsp": "verify"}, False),
    ({"ocsp": "require"}, {"ocsp": "require", "on_ocsp_response": ignore}, False),
    ({}, {"on_ocsp_response": ignore}, False),
]


@judges
@pytest.mark.feature("A9")
@pytest.mark.parametrize(("first", "second", "resumed"), RESUMED)
@in_both_versions
async def test_a_session_is_resumed_only_under_the_same_demands(
    first: dict[str, Any], second: dict[str, Any], version: str, *, resumed: bool
) -> None:
    server = presenting(leaf(), version)
    client, _ = await both(trusting(version), server, first, {"ocsp_callback": Asked()})
    session = client.session
    assert session is not None
    judged = Judge()
    options = {**second, "on_ocsp_response": judged} if "on_ocsp_response" in second else second
    client, _ = await both(
        trusting(version), server, {**options, "session": session}, {"ocsp_callback": Asked()}
    )
    assert client.info.session_reused is resumed
    assert client.authorized
    if "on_ocsp_response" in second:
        assert judged.responses == ([] if resumed else [GOOD])


@judges
@pytest.mark.feature("A9")
@in_both_versions
async def test_a_bad_response_that_is_only_reported_leaves_no_session(version: str) -> None:
    told: list[bytes] = []
    options = {"ocsp": "verify", "reject_unauthorized": False, "on_session": told.append}
    for staple, sessions in ((REVOKED, 0), (GOOD, 1)):
        client, _ = await both(
            trusting(version), presenting(leaf(), version), options, {"ocsp_callback": Asked(staple)}
        )
        assert client.authorized is bool(sessions)
        assert (client.session is not None) is bool(sessions)
        assert bool(told) is bool(sessions)


@judges
@pytest.mark.feature("A9")
@in_both_versions
async def test_a_cached_session_does_not_cross_demands(version: str, nursery: trio.Nursery) -> None:
    cache = tls.SessionCache()
    response = [GOOD]
    server = TLSServer(greet, presenting(leaf(), version), ocsp_callback=lambda *_: response[0])

    async def visit(**options: Any) -> bool:
        async with await reach(nursery, server, version, session_cache=cache, **options) as stream:
            assert await stream.receive_some() == b"welcome"
            return stream.info.session_reused

    assert await visit() is False
    assert await visit() is True
    assert await visit(ocsp="require") is False
    assert await visit(ocsp="require") is True
    response[0] = REVOKED
    assert await visit(ocsp="require", reject_unauthorized=False) is False
    assert await visit(ocsp="require", reject_unauthorized=False) is False
    assert await visit() is True


async def greet(stream: TLSStream) -> None:
    await stream.send_all(b"welcome")
    await silence(stream)


# What is left


def refuse(_: bytes | None) -> None:
    raise ValueError("no")


ENDINGS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "good": (GOOD, {"ocsp": "require"}),
    "refused": (REVOKED, {"ocsp": "require"}),
    "refused by the application": (GOOD, {"on_ocsp_response": refuse}),
}


@serves
@judges
@pytest.mark.parametrize("ending", ENDINGS)
@in_both_versions
async def test_nothing_of_a_connection_is_left_without_the_garbage_collector(
    version: str, ending: str
) -> None:
    response, options = ENDINGS[ending]

    async def live_and_die() -> list[weakref.ref[Any]]:
        client, server = judge_and_stapler(response, version, **options)
        assert (await meet(client, server) == (None, None)) is (ending == "good")
        return [weakref.ref(thing) for end in (client, server) for thing in (end, end._engine)]

    gc.collect()
    gc.disable()
    try:
        references = sys.getrefcount(response)
        connections = len(callbacks.connections)
        left = await live_and_die()
        # Trio itself holds the last exception of a task until its next turn.
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        if sys.version_info >= (3, 12):
            # A traceback keeps the frames of those who called: of Trio's tasks too.
            gc.collect()
        assert [ref() for ref in left] == [None] * len(left)
        assert len(callbacks.connections) == connections
        assert sys.getrefcount(response) == references
    finally:
        gc.enable()


@serves
@in_both_versions
async def test_who_keeps_a_closed_server_s_stream_keeps_no_staple(version: str) -> None:
    asked = Asked()
    references = sys.getrefcount(GOOD)
    client, server = await both(
        trusting(version), presenting(leaf(), version), {"request_ocsp": True}, {"ocsp_callback": asked}
    )
    await client.aclose()
    await server.aclose()
    assert sys.getrefcount(GOOD) == references
    assert client.info.ocsp_response == GOOD
