"""The cases of the guides to TLS in Node.js, made for real: what goes wrong, and the remedy."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12
from faults import meet
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
from trio_tlsnode.testing import Authority, IssuedCertificate, RecordingStream, StallingStream

pytestmark = pytest.mark.feature("D4")

AUTHORITY = Authority()


async def greet(stream: TLSStream) -> None:
    await stream.send_all(b"welcome")
    async for _ in stream:
        pass


async def reach(nursery: trio.Nursery, server: TLSServer, **options: Any) -> TLSStream:
    """Return a client of the server, over memory; it asks for "localhost" unless told otherwise."""
    client, transport = memory_stream_pair()
    nursery.start_soon(server.handle, transport)
    return await tls.wrap_client(client, **{"host": "localhost", **options})


def serving(issued: IssuedCertificate, **options: Any) -> TLSServer:
    return TLSServer(greet, SecureContext(**issued.options, **options))


# A server that vouches for itself


async def test_a_self_signed_server_is_refused_and_then_trusted_by_its_own_certificate(
    nursery: trio.Nursery,
) -> None:
    issued = AUTHORITY.self_signed("localhost")
    server = serving(issued)
    with pytest.raises(CertificateError) as caught:
        await reach(nursery, server)
    assert caught.value.code == "DEPTH_ZERO_SELF_SIGNED_CERT"
    # The hint says what is to be compared, by another way than this connection.
    assert tls.Certificate.from_x509(issued.certificate).fingerprint256 in caught.value.hint

    async with await reach(nursery, server, ca=[issued.cert]) as stream:
        assert stream.authorized
        assert await stream.receive_some() == b"welcome"


# An intermediate that is missing


def chain() -> tuple[IssuedCertificate, bytes]:
    """Return a certificate without its intermediate, and that."""
    complete = AUTHORITY.good("localhost", intermediates=1)
    alone = IssuedCertificate(complete.key, complete.cert.removesuffix(complete.intermediates))
    return alone, complete.intermediates


async def test_a_missing_intermediate_is_refused(nursery: trio.Nursery) -> None:
    alone, _ = chain()
    with pytest.raises(CertificateError) as caught:
        await reach(nursery, serving(alone), ca=AUTHORITY.ca)
    assert caught.value.code == "UNABLE_TO_VERIFY_LEAF_SIGNATURE"
    assert "it belongs behind the server's own certificate in cert=" in caught.value.hint


@pytest.mark.feature("F2")
@pytest.mark.parametrize("remedy", ["in cert", "in the server's ca", "in the client's ca"])
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
async def test_a_missing_intermediate_is_mended(remedy: str, version: str, nursery: trio.Nursery) -> None:
    alone, intermediate = chain()
    server_options: dict[str, Any] = {"key": alone.key, "cert": alone.cert}
    trusted = [AUTHORITY.ca]
    if remedy == "in cert":
        server_options["cert"] += intermediate
    elif remedy == "in the server's ca":
        server_options["ca"] = intermediate
    else:
        trusted.append(intermediate)
    server = TLSServer(greet, SecureContext(**server_options))
    async with await reach(nursery, server, ca=trusted, min_version=version, max_version=version) as stream:
        assert stream.authorized
        sent = 1 if remedy == "in the client's ca" else 2
        assert len(stream.info.peer_certificate_chain) == sent
        assert len(stream.info.verified_chain) == 3


# A server that tells those without a certificate so, in words


@pytest.mark.feature("B8")
async def test_a_server_that_accepts_and_reports_tells_each_client_how_it_stands(
    nursery: trio.Nursery,
) -> None:
    async def handler(stream: TLSStream) -> None:
        if stream.authorized:
            certificate = stream.info.peer_certificate
            assert certificate is not None
            await stream.send_all(f"Hello, {certificate.subject['CN']}".encode())
        else:
            error = stream.authorization_error
            assert error is not None
            await stream.send_all(f"Sorry: {error.code}".encode())

    context = SecureContext(**AUTHORITY.good("localhost").options, ca=AUTHORITY.ca)
    server = TLSServer(handler, context, request_cert=True, reject_unauthorized=False)
    answers = []
    for issued in (AUTHORITY.client("alice"), None, AUTHORITY.self_signed("mallory")):
        shown: Any = {} if issued is None else issued.options
        async with await reach(nursery, server, ca=AUTHORITY.ca, **shown) as stream:
            answers.append(await stream.receive_some())
    assert answers == [
        b"Hello, alice",
        b"Sorry: UNABLE_TO_GET_ISSUER_CERT",
        b"Sorry: DEPTH_ZERO_SELF_SIGNED_CERT",
    ]


# A man in the middle


class MiddleMan:
    """Passes for a server, by a certificate of his own authority, and passes on what he hears.

    Attributes:
        authority: His authority.
        server: The server that clients meet.
        heard: What they have sent.
    """

    def __init__(self, nursery: trio.Nursery, victim: TLSServer) -> None:
        self.authority = Authority()
        self.server = TLSServer(self._relay, SecureContext(**self.authority.good("localhost").options))
        self.heard = b""
        self._nursery = nursery
        self._victim = victim

    async def _relay(self, stream: TLSStream) -> None:
        async with await reach(self._nursery, self._victim, ca=AUTHORITY.ca) as onward:
            async for data in stream:
                self.heard += data
                await onward.send_all(data)
                await stream.send_all(await onward.receive_some())


async def echo(stream: TLSStream) -> None:
    async for data in stream:
        await stream.send_all(data)


@pytest.fixture
def middle_man(nursery: trio.Nursery) -> MiddleMan:
    return MiddleMan(nursery, TLSServer(echo, SecureContext(**AUTHORITY.good("localhost").options)))


async def test_a_man_in_the_middle_is_refused_and_hears_nothing(
    middle_man: MiddleMan, nursery: trio.Nursery
) -> None:
    client, transport = memory_stream_pair()
    recorded = RecordingStream(client)
    nursery.start_soon(middle_man.server.handle, transport)
    with pytest.raises(CertificateError) as caught:
        await tls.wrap_client(recorded, host="localhost", ca=AUTHORITY.ca)
    assert caught.value.code == "UNABLE_TO_VERIFY_LEAF_SIGNATURE"
    assert caught.value.stream is not None
    assert caught.value.stream.statistics().plaintext_sent == 0
    (error,) = (await anext(middle_man.server.client_errors())).exceptions
    assert isinstance(error, PeerAlert)
    assert error.alert is Alert.unknown_ca
    assert middle_man.heard == b""


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
async def test_an_impostor_that_asks_for_a_client_certificate_gets_none(
    version: str, nursery: trio.Nursery
) -> None:
    issued = AUTHORITY.untrusted("localhost")
    context = SecureContext(**issued.options, ca=AUTHORITY.ca, max_version=version)
    client, transport = memory_stream_pair()
    nursery.start_soon(TLSServer(greet, context, request_cert=True).handle, transport)
    trace = tls.HandshakeTrace()
    with pytest.raises(CertificateError):
        await tls.wrap_client(
            client, host="localhost", ca=AUTHORITY.ca, trace=trace, **AUTHORITY.client("alice").options
        )
    assert [message.name for message in trace.messages if message.sent] == ["ClientHello", "Alert"]


async def test_without_verification_a_man_in_the_middle_hears_everything_and_nobody_notices(
    middle_man: MiddleMan, nursery: trio.Nursery
) -> None:
    async with await reach(nursery, middle_man.server, ca=AUTHORITY.ca, reject_unauthorized=False) as stream:
        await stream.send_all(b"PIN 1234")
        assert await stream.receive_some() == b"PIN 1234"
        # All that tells.
        assert not stream.authorized
        assert stream.authorization_error is not None
    assert middle_man.heard == b"PIN 1234"


async def test_a_pinned_fingerprint_refuses_a_man_in_the_middle_whose_authority_is_trusted(
    middle_man: MiddleMan, nursery: trio.Nursery
) -> None:
    issued = AUTHORITY.good("localhost")
    pinned = tls.Certificate.from_x509(issued.certificate).fingerprint256

    def check(host: str, certificate: tls.Certificate | None) -> None:
        tls.check_server_identity(host, certificate)
        if certificate is None or certificate.fingerprint256 != pinned:
            raise ValueError("this is not the certificate that is pinned")

    # A proxy that inspects has put its authority among those that are trusted.
    trusted = [AUTHORITY.ca, middle_man.authority.ca]
    with pytest.raises(IdentityError, match="pinned") as caught:
        await reach(nursery, middle_man.server, ca=trusted, check_server_identity=check)
    assert isinstance(caught.value.__cause__, ValueError)
    assert middle_man.heard == b""
    async with await reach(nursery, serving(issued), ca=trusted, check_server_identity=check) as stream:
        assert await stream.receive_some() == b"welcome"


# What to do depends on the code


@pytest.mark.parametrize(
    ("issue", "advice"),
    [
        (Authority.expired, "ask for a renewal"),
        (Authority.wrong_name, "check the address"),
        (Authority.self_signed, "compare the fingerprint"),
        (Authority.untrusted, "look for the authority"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
async def test_a_program_can_branch_on_the_code(
    issue: Callable[..., IssuedCertificate], advice: str, nursery: trio.Nursery
) -> None:
    try:
        await reach(nursery, serving(issue(AUTHORITY, "localhost")), ca=AUTHORITY.ca)
    except CertificateError as error:
        match error.code:
            case "CERT_HAS_EXPIRED":
                found = "ask for a renewal"
            case "ERR_TLS_CERT_ALTNAME_INVALID":
                found = "check the address"
            case "DEPTH_ZERO_SELF_SIGNED_CERT":
                found = "compare the fingerprint"
            case _:
                found = "look for the authority"
    assert found == advice


# Trying again


async def with_retries(connect: Callable[[], Awaitable[TLSStream]], attempts: int = 4) -> TLSStream:
    delay = 0.5
    for attempt in range(1, attempts + 1):
        try:
            return await connect()
        except tls.TLSError as error:
            if not error.retryable or attempt == attempts:
                raise
        await trio.sleep(delay)
        delay *= 2
    raise AssertionError


@pytest.mark.feature("A22")
async def test_what_the_network_did_is_tried_again_later_and_later(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = serving(AUTHORITY.good("localhost"))
    attempts: list[float] = []

    async def connect() -> TLSStream:
        attempts.append(trio.current_time())
        if len(attempts) == 1:
            raise tls.ConnectError("refused", code="ECONNREFUSED", host="localhost", port=443)
        client, transport = memory_stream_pair()
        if len(attempts) == 2:
            await transport.aclose()
        elif len(attempts) == 3:
            nursery.start_soon(server.handle, StallingStream(transport, receive_after=0))
        else:
            nursery.start_soon(server.handle, transport)
        return await tls.wrap_client(client, host="localhost", ca=AUTHORITY.ca, handshake_timeout=10)

    async with await with_retries(connect) as stream:
        assert await stream.receive_some() == b"welcome"
    assert attempts == [0, 0.5, 1.5, 13.5]
    nursery.cancel_scope.cancel()


@pytest.mark.feature("A22")
async def test_what_will_not_change_by_itself_is_not_tried_again(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = serving(AUTHORITY.expired("localhost"))
    attempts = 0

    async def connect() -> TLSStream:
        nonlocal attempts
        attempts += 1
        return await reach(nursery, server, ca=AUTHORITY.ca)

    with pytest.raises(CertificateError):
        await with_retries(connect)
    assert (attempts, trio.current_time()) == (1, 0)


# A PKCS#12 file in the wrong place


def pfx_of(issued: IssuedCertificate) -> bytes:
    key: Any = serialization.load_pem_private_key(issued.key, None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    return pkcs12.serialize_key_and_certificates(b"server", key, issued.certificate, None, encryption)


@pytest.mark.feature("F2")
@pytest.mark.feature("F4")
@pytest.mark.parametrize("option", ["cert", "ca", "key"])
async def test_a_pkcs12_file_given_elsewhere_is_named_and_works_as_pfx(
    option: str, nursery: trio.Nursery
) -> None:
    issued = AUTHORITY.good("localhost")
    pfx = pfx_of(issued)
    options: dict[str, Any] = {"key": issued.key, "cert": issued.cert, option: pfx}
    with pytest.raises(tls.ConfigurationError, match="PKCS#12 data, which belongs into pfx=") as caught:
        SecureContext(**options)
    assert caught.value.option == option

    server = TLSServer(greet, SecureContext(pfx=pfx, passphrase="secret"))
    async with await reach(nursery, server, ca=AUTHORITY.ca) as stream:
        assert stream.authorized


# A peer that knows old versions only


OLD_SERVER: dict[str, Any] = {"min_version": "TLSv1", "max_version": "TLSv1", "ciphers": "DEFAULT@SECLEVEL=0"}


@pytest.mark.feature("F7")
@pytest.mark.feature("F8")
@pytest.mark.parametrize(
    ("options", "connects"),
    [
        ({}, False),
        ({"min_version": "TLSv1"}, False),
        ({"ciphers": "DEFAULT@SECLEVEL=0"}, False),
        ({"min_version": "TLSv1", "ciphers": "DEFAULT@SECLEVEL=0"}, True),
    ],
    ids=["neither", "version", "level", "both"],
)
async def test_an_old_peer_needs_the_version_and_the_security_level(
    options: dict[str, Any], *, connects: bool
) -> None:
    old = SecureContext(**AUTHORITY.good("localhost").options, **OLD_SERVER)
    left, right = memory_stream_pair()
    client = TLSStream(left, SecureContext(ca=AUTHORITY.ca, **options), host="localhost")
    error, _ = await meet(client, TLSStream(right, old, server_side=True))
    if connects:
        assert error is None
        assert client.info.protocol == "TLSv1"
    else:
        assert isinstance(error, PeerAlert)
        assert error.alert is Alert.protocol_version


# Another time than now


@pytest.mark.parametrize(
    ("issue", "days", "code"),
    [
        (Authority.expired, 0, "CERT_HAS_EXPIRED"),
        (Authority.expired, -2, None),
        (Authority.not_yet_valid, 0, "CERT_NOT_YET_VALID"),
        (Authority.not_yet_valid, 2, None),
        (Authority.good, 365 * 2000, "CERT_HAS_EXPIRED"),
    ],
)
@pytest.mark.parametrize("judge", ["client", "server"])
async def test_the_clock_of_the_verification_can_be_pinned(
    issue: Callable[..., IssuedCertificate], days: int, code: str | None, judge: str
) -> None:
    now = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    authority = Authority(now=now)
    judging: dict[str, Any] = {"ca": authority.ca, "verification_time": now + dt.timedelta(days=days)}
    issued = issue(authority, "localhost")
    good = authority.good("localhost")
    left, right = memory_stream_pair()
    if judge == "client":
        first = TLSStream(left, SecureContext(**judging), host="localhost")
        second = TLSStream(right, SecureContext(**issued.options), server_side=True)
    else:
        context = SecureContext(**judging, **good.options)
        first = TLSStream(left, context, server_side=True, request_cert=True)
        second = TLSStream(right, SecureContext(ca=authority.ca, **issued.options), host="localhost")
    error, _ = await meet(first, second)
    assert (error and error.code) == code
    if isinstance(error, CertificateError):
        as_of = f"{judging['verification_time']:%Y-%m-%d %H:%M} UTC"
        assert f"(it is judged as of {as_of})" in error.hint
