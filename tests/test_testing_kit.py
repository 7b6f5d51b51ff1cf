"""The test kit does what it promises: certificates, transports with a fault, a listener in memory."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import re
import ssl
import stat
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto
from OpenSSL._util import lib
from trio.testing import (
    MockClock,
    assert_checkpoints,
    check_half_closeable_stream,
    lockstep_stream_pair,
    memory_stream_pair,
    wait_all_tasks_blocked,
)

from trio_tlsnode.testing.authority import Authority, IssuedCertificate
from trio_tlsnode.testing.listener import MemoryListener
from trio_tlsnode.testing.transports import (
    DelayingStream,
    FailingStream,
    GarblingStream,
    OneByteStream,
    RecordingStream,
    StallingStream,
    TransportWrapper,
    TruncatingStream,
)

pytestmark = pytest.mark.feature("G2")

# Certificates

NAMES = {
    getattr(lib, name): name.removeprefix("X509_V_ERR_")
    for name in dir(lib)
    if name.startswith("X509_V_ERR_")
} | {66: "EE_KEY_TOO_SMALL"}

Problem = tuple[str, int]  # the verify result, and the depth in the chain


def pem_blocks(pem: bytes) -> list[bytes]:
    return re.findall(rb"-----BEGIN .+?-----END [A-Z0-9 ]+-----\n", pem, re.DOTALL)


def presenting(issued: IssuedCertificate, folder: Path) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_cipher_list(b"DEFAULT@SECLEVEL=0")
    key_path, cert_path = issued.write_to(folder)
    context.use_certificate_chain_file(str(cert_path))
    context.use_privatekey_file(str(key_path))
    return context


def problems(
    issued: IssuedCertificate, trusted: bytes, *, side: str = "server", crls: bytes = b""
) -> list[Problem]:
    """Return what a peer finds wrong in a handshake, in order."""
    verdicts: list[tuple[int, int]] = []

    def note(_connection: object, _certificate: object, error: int, depth: int, _ok: int) -> bool:
        verdicts.append((error, depth))
        return True

    # Through files, as cryptography, to which pyOpenSSL entrusts all else, cannot parse every fault.
    with tempfile.TemporaryDirectory() as folder:
        presenter = presenting(issued, Path(folder, "presenter"))
        verifier = presenting(Authority().good("verifier"), Path(folder, "verifier"))
        trusted_path = Path(folder, "trusted.pem")
        trusted_path.write_bytes(trusted + crls)
        verifier.load_verify_locations(str(trusted_path))
    verifier.set_cipher_list(b"DEFAULT@SECLEVEL=2")
    verifier.set_verify(SSL.VERIFY_PEER, note)
    store = verifier.get_cert_store()
    assert store is not None
    if crls:
        store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)
    if side == "server":
        client, server = SSL.Connection(verifier), SSL.Connection(presenter)
        lib.X509_VERIFY_PARAM_set1_host(lib.SSL_get0_param(client._ssl), b"localhost", len(b"localhost"))
    else:
        client, server = SSL.Connection(presenter), SSL.Connection(verifier)
    client.set_connect_state()
    server.set_accept_state()
    shake_hands(client, server)
    assert verdicts
    return [(NAMES[error], depth) for error, depth in verdicts if error]


def shake_hands(client: SSL.Connection, server: SSL.Connection) -> None:
    for connection, peer in ((client, server), (server, client)) * 2:
        with contextlib.suppress(SSL.WantReadError):
            connection.do_handshake()
        with contextlib.suppress(SSL.WantReadError):
            while True:
                peer.bio_write(connection.bio_read(65536))


NO_ISSUER: list[Problem] = [
    ("UNABLE_TO_GET_ISSUER_CERT_LOCALLY", 0),
    ("UNABLE_TO_VERIFY_LEAF_SIGNATURE", 0),
]
CERTIFICATES: list[tuple[str, dict[str, Any], list[Problem]]] = [
    ("good", {}, []),
    ("good", {"intermediates": 2}, []),
    ("good", {"key_type": "RSA"}, []),
    ("client", {}, [("INVALID_PURPOSE", 0)]),
    ("expired", {}, [("CERT_HAS_EXPIRED", 0)]),
    ("not_yet_valid", {}, [("CERT_NOT_YET_VALID", 0)]),
    ("wrong_name", {}, [("HOSTNAME_MISMATCH", 0)]),
    ("wrong_purpose", {}, [("INVALID_PURPOSE", 0)]),
    ("wrong_purpose", {"side": "client"}, []),
    ("weak_key", {}, [("EE_KEY_TOO_SMALL", 0)]),
    ("unknown_critical_extension", {}, [("UNHANDLED_CRITICAL_EXTENSION", 0)]),
    ("bad_signature", {}, [("CERT_SIGNATURE_FAILURE", 0)]),
    ("unreadable_date", {"field": "not_before"}, [("ERROR_IN_CERT_NOT_BEFORE_FIELD", 0)]),
    ("unreadable_date", {"field": "not_after"}, [("ERROR_IN_CERT_NOT_AFTER_FIELD", 0)]),
    ("self_signed", {}, [("DEPTH_ZERO_SELF_SIGNED_CERT", 0)]),
    ("untrusted", {}, NO_ISSUER),
    ("untrusted", {"intermediates": 1}, [("UNABLE_TO_GET_ISSUER_CERT_LOCALLY", 1)]),
    ("untrusted_root", {}, [("SELF_SIGNED_CERT_IN_CHAIN", 1)]),
    ("missing_intermediate", {}, NO_ISSUER),
    ("expired_intermediate", {}, [("CERT_HAS_EXPIRED", 1)]),
    ("invalid_ca", {}, [("INVALID_CA", 1), ("INVALID_PURPOSE", 1)]),
    ("path_length_exceeded", {}, [("PATH_LENGTH_EXCEEDED", 2)]),
    (
        "chain_too_long",
        {},
        [("CERT_CHAIN_TOO_LONG", 101), ("UNABLE_TO_GET_ISSUER_CERT_LOCALLY", 101)],
    ),
    ("name_not_permitted", {}, [("PERMITTED_VIOLATION", 0)]),
]
LISTS: list[tuple[str, dict[str, Any], list[Problem]]] = [
    ("crl", {}, []),
    ("expired_crl", {}, [("CRL_HAS_EXPIRED", 0)]),
    ("not_yet_valid_crl", {}, [("CRL_NOT_YET_VALID", 0)]),
    ("bad_signature_crl", {}, [("CRL_SIGNATURE_FAILURE", 0)]),
    ("unreadable_date_crl", {"field": "last_update"}, [("ERROR_IN_CRL_LAST_UPDATE_FIELD", 0)]),
    ("unreadable_date_crl", {"field": "next_update"}, [("ERROR_IN_CRL_NEXT_UPDATE_FIELD", 0)]),
]


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.mark.parametrize(("method", "options", "expected"), CERTIFICATES)
def test_a_certificate_has_the_fault_that_its_method_names(
    authority: Authority, method: str, options: dict[str, Any], expected: list[Problem]
) -> None:
    issued = getattr(authority, method)("localhost", **options)
    assert problems(issued, authority.ca) == expected


@pytest.mark.parametrize(("method", "options", "expected"), LISTS)
def test_a_revocation_list_has_the_fault_that_its_method_names(
    authority: Authority, method: str, options: dict[str, Any], expected: list[Problem]
) -> None:
    issued = authority.good("localhost")
    assert problems(issued, authority.ca, crls=getattr(authority, method)(**options)) == expected


def test_the_lists_of_another_authority_do_not_help(authority: Authority) -> None:
    issued = authority.good("localhost")
    assert problems(issued, authority.ca, crls=Authority().crl()) == [("UNABLE_TO_GET_CRL", 0)]


@pytest.mark.parametrize("intermediates", [0, 2])
def test_a_revoked_certificate_is_on_the_list_of_its_issuer(authority: Authority, intermediates: int) -> None:
    good = authority.good("localhost", intermediates=intermediates)
    revoked = authority.revoked("localhost", intermediates=intermediates)
    assert problems(revoked, authority.ca, crls=authority.crl()) == [("CERT_REVOKED", 0)]
    assert problems(good, authority.ca, crls=authority.crl()) == []


def test_a_list_made_before_the_revocation_does_not_have_it(authority: Authority) -> None:
    issued = authority.good("localhost")
    before = authority.crl()
    authority.revoke(issued)
    assert problems(issued, authority.ca, crls=before) == []


def test_a_certificate_of_another_authority_cannot_be_revoked(authority: Authority) -> None:
    with pytest.raises(ValueError, match="own authority"):
        authority.revoke(authority.untrusted("localhost"))


def test_trusting_the_intermediates_alone_lacks_their_issuer(authority: Authority) -> None:
    issued = authority.good("localhost", intermediates=1)
    assert problems(issued, issued.intermediates) == [("UNABLE_TO_GET_ISSUER_CERT", 1)]


# Node.js's codes without those that nothing presented can cause.  OpenSSL never reports that it cannot
# decrypt a signature (UNABLE_TO_DECRYPT_...), and passes over issuers with an unreadable key.  OUT_OF_MEM,
# CERT_UNTRUSTED and CERT_REJECTED are the verifier's alone.
NODE_CODES = {
    "UNABLE_TO_GET_ISSUER_CERT",
    "UNABLE_TO_GET_CRL",
    "CERT_SIGNATURE_FAILURE",
    "CRL_SIGNATURE_FAILURE",
    "CERT_NOT_YET_VALID",
    "CERT_HAS_EXPIRED",
    "CRL_NOT_YET_VALID",
    "CRL_HAS_EXPIRED",
    "ERROR_IN_CERT_NOT_BEFORE_FIELD",
    "ERROR_IN_CERT_NOT_AFTER_FIELD",
    "ERROR_IN_CRL_LAST_UPDATE_FIELD",
    "ERROR_IN_CRL_NEXT_UPDATE_FIELD",
    "DEPTH_ZERO_SELF_SIGNED_CERT",
    "SELF_SIGNED_CERT_IN_CHAIN",
    "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
    "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
    "CERT_CHAIN_TOO_LONG",
    "CERT_REVOKED",
    "INVALID_CA",
    "PATH_LENGTH_EXCEEDED",
    "INVALID_PURPOSE",
    "HOSTNAME_MISMATCH",
}


def test_each_code_of_node_that_can_be_caused_is_caused_by_a_method() -> None:
    caused = {code for *_, expected in CERTIFICATES + LISTS for code, _ in expected}
    by_the_tests_above = {"CERT_REVOKED", "UNABLE_TO_GET_CRL", "UNABLE_TO_GET_ISSUER_CERT"}
    assert caused | by_the_tests_above >= NODE_CODES


@pytest.mark.parametrize("names", [(), ("alice@example.com",)])
def test_a_client_certificate_is_accepted_by_servers(authority: Authority, names: tuple[str, ...]) -> None:
    issued = authority.client("alice", *names, intermediates=1)
    assert problems(issued, authority.ca, side="client") == []
    assert "CN=alice" in issued.certificate.subject.rfc4514_string()


def test_a_certificate_for_servers_alone_has_the_wrong_purpose_for_a_client(authority: Authority) -> None:
    issued = authority.wrong_purpose("alice", side="client")
    assert problems(issued, authority.ca, side="client") == [("INVALID_PURPOSE", 0)]


def test_an_rsa_authority_issues_rsa_certificates_with_the_same_faults() -> None:
    authority = Authority(key_type="RSA")
    issued = authority.unreadable_date("localhost")
    assert isinstance(load_pem_private_key(issued.key, None), rsa.RSAPrivateKey)
    assert problems(issued, authority.ca) == [("ERROR_IN_CERT_NOT_AFTER_FIELD", 0)]


def test_keys_are_p256_unless_told_otherwise(authority: Authority) -> None:
    public_key = authority.good("localhost").certificate.public_key()
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    assert public_key.curve.name == "secp256r1"


def test_names_become_subject_alternative_names_of_their_kind(authority: Authority) -> None:
    issued = authority.good("*.example.com", "127.0.0.1", "::1", "alice@example.com")
    names = issued.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [type(name).__name__ for name in names] == ["DNSName", "IPAddress", "IPAddress", "RFC822Name"]


def test_the_authoritys_time_decides_what_has_expired_and_what_is_not_yet_valid() -> None:
    now = dt.datetime(2035, 6, 1, tzinfo=dt.UTC)
    authority = Authority(now=now)
    day = dt.timedelta(days=1)
    assert authority.expired("x").certificate.not_valid_after_utc == now - day
    assert authority.not_yet_valid("x").certificate.not_valid_before_utc == now + day
    (crl,) = map(x509.load_pem_x509_crl, pem_blocks(authority.expired_crl()))
    assert crl.next_update_utc == now - day


@pytest.mark.parametrize(
    "now",
    [
        dt.datetime(2026, 1, 1),  # noqa: DTZ001 - the fault
        dt.datetime(1999, 1, 1, tzinfo=dt.UTC),
    ],
)
def test_a_time_without_zone_or_out_of_range_is_refused(now: dt.datetime) -> None:
    with pytest.raises(ValueError, match="now must"):
        Authority(now=now)


def test_a_certificate_for_a_right_name_is_no_wrong_name(authority: Authority) -> None:
    with pytest.raises(ValueError, match="right name"):
        authority.wrong_name("localhost", instead="localhost")


def test_fewer_than_no_intermediates_are_refused(authority: Authority) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        authority.good("localhost", intermediates=-1)


def test_key_and_chain_are_options_of_a_context_and_the_key_is_not_shown(authority: Authority) -> None:
    issued = authority.good("localhost", intermediates=1)
    assert issued.options == {"key": issued.key, "cert": issued.cert}
    assert issued.key.startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert "PRIVATE KEY" not in repr(issued)
    leaf, intermediate = pem_blocks(issued.cert)
    assert x509.load_pem_x509_certificate(leaf) == issued.certificate
    assert intermediate == issued.intermediates
    assert authority.good("localhost").intermediates == b""


def test_written_to_a_folder_the_key_is_for_its_owner_alone(authority: Authority, tmp_path: Path) -> None:
    issued = authority.good("localhost")
    folder = tmp_path / "new" / "folder"
    issued.write_to(folder)
    (folder / "key.pem").chmod(0o644)
    key_path, cert_path = issued.write_to(folder)
    assert (key_path.read_bytes(), cert_path.read_bytes()) == (issued.key, issued.cert)
    assert stat.S_IMODE(key_path.stat().st_mode) == 0o600


# Transports


Wrap = Callable[[trio.abc.Stream], TransportWrapper]

HARMLESS: dict[str, Wrap] = {
    "wrapper": TransportWrapper,
    "stalling": StallingStream,
    "truncating": lambda stream: TruncatingStream(stream, after=2**30),
    "garbling": lambda stream: GarblingStream(stream, position=2**30),
    "delaying": lambda stream: DelayingStream(stream, delay=0.001),
    "failing": FailingStream,
    "recording": RecordingStream,
    "nested": lambda stream: RecordingStream(StallingStream(stream)),
}


@pytest.mark.parametrize("wrap", HARMLESS.values(), ids=HARMLESS.keys())
async def test_a_wrapper_keeps_the_rules_of_streams(wrap: Wrap, autojump_clock: MockClock) -> None:
    async def make() -> tuple[TransportWrapper, TransportWrapper]:
        left, right = memory_stream_pair()
        return wrap(left), wrap(right)

    async def make_clogged() -> tuple[TransportWrapper, TransportWrapper]:
        left, right = lockstep_stream_pair()
        return wrap(left), wrap(right)

    await check_half_closeable_stream(make, make_clogged)


async def test_what_cannot_be_closed_one_way_cannot_be_so_in_a_wrapper() -> None:
    left, _ = memory_stream_pair()
    tls = trio.SSLStream(left, ssl.create_default_context())
    with pytest.raises(TypeError, match="SSLStream cannot be closed one way"):
        await TransportWrapper(tls).send_eof()


async def test_a_cancelled_close_closes_the_wrapped_stream() -> None:
    left, right = memory_stream_pair()
    with trio.CancelScope() as scope:
        scope.cancel()
        await RecordingStream(left).aclose()
    assert await right.receive_some() == b""
    with pytest.raises(trio.ClosedResourceError):
        await left.send_all(b"x")


async def test_a_stalled_send_passes_on_what_fits_and_the_rest_when_released() -> None:
    left, right = memory_stream_pair()
    stalling = StallingStream(left, send_after=3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stalling.send_all, b"12345")
        await wait_all_tasks_blocked()
        assert await right.receive_some() == b"123"
        with pytest.raises(trio.BusyResourceError):
            await stalling.send_all(b"6")
        stalling.release()
        assert await right.receive_some() == b"45"
    await stalling.send_all(b"6")
    assert await right.receive_some() == b"6"


async def test_a_stalled_receive_loses_nothing_and_goes_on_when_released(autojump_clock: MockClock) -> None:
    left, right = memory_stream_pair()
    stalling = StallingStream(left, receive_after=3)
    await right.send_all(b"12345")
    assert await stalling.receive_some() == b"123"
    with trio.move_on_after(60) as scope:
        await stalling.receive_some()
    assert scope.cancelled_caught
    stalling.release()
    assert await stalling.receive_some() == b"45"


async def test_a_stalled_transport_has_no_room_until_released(autojump_clock: MockClock) -> None:
    left, _ = memory_stream_pair()
    stalling = StallingStream(left, send_after=0)
    with trio.move_on_after(60) as scope:
        await stalling.wait_send_all_might_not_block()
    assert scope.cancelled_caught
    stalling.release()
    await stalling.wait_send_all_might_not_block()


HOLDING: dict[str, Wrap] = {
    "stalling": lambda stream: StallingStream(stream, send_after=0, receive_after=0),
    "delaying": lambda stream: DelayingStream(stream, delay=60),
}


@pytest.mark.parametrize("wrap", HOLDING.values(), ids=HOLDING.keys())
async def test_closing_wakes_whom_a_fault_holds_back(wrap: Wrap) -> None:
    async def call(method: Callable[..., Awaitable[object]], *args: object) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await method(*args)

    stream = wrap(memory_stream_pair()[0])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, stream.send_all, b"x")
        nursery.start_soon(call, stream.receive_some)
        await wait_all_tasks_blocked()
        await stream.aclose()


async def test_a_truncating_stream_ends_after_its_bytes() -> None:
    left, right = memory_stream_pair()
    truncating = TruncatingStream(left, after=3)
    await right.send_all(b"12345")
    assert await truncating.receive_some() == b"123"
    with assert_checkpoints():
        assert await truncating.receive_some() == b""
    await truncating.send_all(b"still open")
    assert await right.receive_some() == b"still open"
    await truncating.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await truncating.receive_some()


@pytest.mark.parametrize(
    ("position", "mask", "received"), [(0, 1, b"0234"), (2, 0x40, b"12s4"), (9, 1, b"1234")]
)
async def test_a_garbling_stream_changes_the_byte_at_its_position(
    position: int, mask: int, received: bytes
) -> None:
    left, right = memory_stream_pair()
    garbling = GarblingStream(left, position=position, mask=mask)
    await right.send_all(b"1234")
    assert await garbling.receive_some(1) + await garbling.receive_some() == received


@pytest.mark.parametrize(
    "make",
    [
        lambda stream: GarblingStream(stream, position=0, mask=0),
        lambda stream: GarblingStream(stream, position=0, mask=256),
        lambda stream: GarblingStream(stream, position=-1),
        lambda stream: StallingStream(stream, send_after=-1),
        lambda stream: StallingStream(stream, receive_after=-1),
        lambda stream: TruncatingStream(stream, after=-1),
        lambda stream: DelayingStream(stream, delay=-1),
        lambda stream: FailingStream(stream, send=0),
        lambda stream: FailingStream(stream, receive=0),
    ],
)
def test_a_fault_that_could_never_be_is_refused(make: Wrap) -> None:
    with pytest.raises(ValueError, match="must be"):
        make(memory_stream_pair()[0])


async def test_a_one_byte_stream_delivers_one_byte_at_a_time() -> None:
    left, right = memory_stream_pair()
    await right.send_all(b"123")
    await right.send_eof()
    assert [data async for data in OneByteStream(left)] == [b"1", b"2", b"3"]


async def test_a_delaying_stream_takes_its_time_for_each_call(autojump_clock: MockClock) -> None:
    left, right = memory_stream_pair()
    delaying = DelayingStream(left, delay=2)
    await right.send_all(b"12")
    start = trio.current_time()
    assert await delaying.receive_some(1) == b"1"
    assert trio.current_time() - start == pytest.approx(2)
    await delaying.send_all(b"x")
    assert trio.current_time() - start == pytest.approx(4)
    with trio.move_on_after(1):
        await delaying.receive_some()
    assert await delaying.receive_some() == b"2"


async def test_a_failing_stream_raises_from_the_chosen_call_on() -> None:
    left, right = memory_stream_pair()
    failing = FailingStream(left, send=2, receive=1)
    await failing.send_all(b"1")
    for call in (failing.receive_some, lambda: failing.send_all(b"2"), lambda: failing.send_all(b"3")):
        with assert_checkpoints(), pytest.raises(trio.BrokenResourceError) as caught:
            await call()
        assert isinstance(caught.value.__cause__, ConnectionResetError)
        assert caught.value.__cause__.errno == errno.ECONNRESET
    assert await right.receive_some() == b"1"


async def test_a_failing_stream_raises_what_it_is_given() -> None:
    error = OSError(errno.EPIPE, "Broken pipe")
    with pytest.raises(BrokenPipeError) as caught:
        await FailingStream(memory_stream_pair()[0], send=1, error=error).send_all(b"x")
    assert caught.value is error


async def test_a_recording_stream_notes_each_call_in_order() -> None:
    left, right = memory_stream_pair()
    recording = RecordingStream(left)
    await recording.send_all(b"12")
    await right.send_all(b"ab")
    await recording.receive_some(1)
    await recording.send_all(b"3")
    await recording.receive_some()
    await right.send_eof()
    await recording.receive_some()
    assert recording.record == [
        ("sent", b"12"),
        ("received", b"a"),
        ("sent", b"3"),
        ("received", b"b"),
        ("received", b""),
    ]
    assert (recording.sent, recording.received) == (b"123", b"ab")


# Listener


async def test_a_connection_waits_until_it_is_accepted() -> None:
    listener = MemoryListener()
    with assert_checkpoints():
        client = await listener.connect()
    with assert_checkpoints():
        server = await listener.accept()
    await client.send_all(b"ping")
    assert await server.receive_some() == b"ping"
    await server.send_all(b"pong")
    assert await client.receive_some() == b"pong"


@pytest.mark.parametrize("first", ["connect", "cancel"])
async def test_a_cancelled_accept_loses_no_connection(first: str) -> None:
    listener = MemoryListener()
    accepted: list[trio.abc.Stream] = []

    async def accept() -> None:
        accepted.append(await listener.accept())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        await wait_all_tasks_blocked()
        if first == "cancel":
            nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            client = await listener.connect()
        nursery.cancel_scope.cancel()
    server = accepted[0] if accepted else await listener.accept()
    await client.send_all(b"x")
    assert await server.receive_some() == b"x"


async def test_two_tasks_cannot_accept_at_once() -> None:
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.accept)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await listener.accept()
        await listener.connect()


async def test_closing_wakes_a_waiting_accept() -> None:
    listener = MemoryListener()

    async def accept() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        await wait_all_tasks_blocked()
        with assert_checkpoints():
            await listener.aclose()
    await listener.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


async def test_closing_ends_the_connections_that_were_not_accepted() -> None:
    listener = MemoryListener()
    client = await listener.connect()
    listener.fail(OSError(errno.EMFILE, "Too many open files"))
    with trio.CancelScope() as scope:
        scope.cancel()
        await listener.aclose()
    assert await client.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await client.send_all(b"x")


async def test_connecting_to_a_closed_listener_is_refused() -> None:
    listener = MemoryListener()
    await listener.aclose()
    with assert_checkpoints(), pytest.raises(ConnectionRefusedError) as caught:
        await listener.connect()
    assert caught.value.errno == errno.ECONNREFUSED
    with pytest.raises(trio.BrokenResourceError):
        listener.fail(OSError())


async def test_accept_fails_in_its_turn_and_then_goes_on() -> None:
    listener = MemoryListener()
    error = OSError(errno.EMFILE, "Too many open files")
    await listener.connect()
    listener.fail(error)
    await listener.connect()
    await listener.accept()
    with assert_checkpoints(), pytest.raises(OSError, match="Too many") as caught:
        await listener.accept()
    assert caught.value is error
    await listener.accept()


async def test_it_serves_under_trio(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    listener = MemoryListener()
    listener.fail(OSError(errno.EMFILE, "Too many open files"))
    nursery.start_soon(trio.serve_listeners, echo, [listener])
    client = await listener.connect()
    await client.send_all(b"x")
    assert await client.receive_some() == b"x"


async def echo(stream: trio.abc.Stream) -> None:
    async for data in stream:
        await stream.send_all(data)
