"""Pre-shared keys: what both sides' callbacks are asked, what comes of their answers, and who may know."""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import hmac
import html
import logging
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, open_stream_to_socket_listener

import trio_tlsnode as tls
from trio_tlsnode.client_hello import ClientHello
from trio_tlsnode.psk import psk_identity
from trio_tlsnode.sessions import Session
from trio_tlsnode.stream import TLSStream
from trio_tlsnode.testing import MemoryListener, RecordingStream, default_authority, tls_pair

pytestmark = [pytest.mark.feature("A11"), pytest.mark.feature("B20")]

SECRET = bytes.fromhex("d731ef57be09e5204f0b205b60627028a1b2c3d4e5f60718293a4b5c6d7e8f90")
KEY = tls.PreSharedKey("thermostat 7", SECRET)
KEY384 = tls.PreSharedKey("thermostat 7", SECRET, hash="SHA384")
OTHER_SECRET = bytes(range(32))

# Suites of TLS 1.2 with pre-shared keys and, after them, one with certificates; those of TLS 1.3.
SUITES = "PSK:ECDHE-ECDSA-AES128-GCM-SHA256"
SHA256_SUITES = {"TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"}

in_both_versions = pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
with_and_without_certificate = pytest.mark.parametrize(
    "certificate", [False, True], ids=["no certificate", "with certificate"]
)


def offer(_hint: str | None) -> tls.PreSharedKey:
    return KEY


def look_up(_stream: TLSStream, identity: str) -> bytes | None:
    return SECRET if identity == KEY.identity else None


async def look_up_slowly(stream: TLSStream, identity: str) -> bytes | None:
    await trio.lowlevel.checkpoint()
    return look_up(stream, identity)


def raise_lookup_error(*_: object) -> Any:
    raise LookupError("the key store is away")


async def raise_lookup_error_slowly(*_: object) -> Any:
    await trio.lowlevel.checkpoint()
    raise LookupError("the key store is away")


def only(version: str) -> dict[str, Any]:
    return {"min_version": version, "max_version": version}


@functools.cache
def client_context(version: str | None = None, ciphers: str = SUITES, **options: Any) -> tls.SecureContext:
    """Return a context without a certificate; it trusts the default authority."""
    versions = {} if version is None else only(version)
    return tls.SecureContext(ca=default_authority().ca, ciphers=ciphers, **versions, **options)


@functools.cache
def certified_context(version: str | None = None, ciphers: str = SUITES, **options: Any) -> tls.SecureContext:
    """Return a context with a certificate for "localhost"."""
    versions = {} if version is None else only(version)
    return tls.SecureContext(
        ca=default_authority().ca,
        **default_authority().good("localhost").options,
        ciphers=ciphers,
        **versions,
        **options,
    )


def server_context(version: str | None, *, certificate: bool) -> tls.SecureContext:
    return certified_context(version) if certificate else client_context(version)


class Meeting(NamedTuple):
    """A client and a server that have met, and what each failed of."""

    client: TLSStream
    server: TLSStream
    client_error: tls.TLSError | None
    server_error: tls.TLSError | None

    @property
    def infos(self) -> tuple[tls.ConnectionInfo, tls.ConnectionInfo]:
        assert (self.client_error, self.server_error) == (None, None)
        return self.client.info, self.server.info

    @property
    def codes(self) -> tuple[str, str]:
        assert self.client_error is not None
        assert self.server_error is not None
        return self.client_error.code, self.server_error.code

    @property
    def client_alert(self) -> tls.Alert | int:
        """What the server told the client."""
        assert isinstance(self.client_error, tls.PeerAlert)
        return self.client_error.alert

    @property
    def server_alert(self) -> tls.Alert | int:
        """What the client told the server."""
        assert isinstance(self.server_error, tls.PeerAlert)
        return self.server_error.alert


async def meet(
    version: str | None = None,
    *,
    client: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
    certificate: bool = False,
    of_client: tls.SecureContext | None = None,
    of_server: tls.SecureContext | None = None,
    transports: tuple[trio.abc.Stream, trio.abc.Stream] | None = None,
) -> Meeting:
    """Have a handshake, and a word of the server's, without which a client of TLS 1.3 knows nothing.

    Args:
        version: The only version of the contexts.
        client: The client's options; by default it has `KEY`.
        server: The server's options; by default it knows `KEY`.
        certificate: Whether the server has a certificate.
        of_client: Another context of the client.
        of_server: Another context of the server.
        transports: Those of the client and of the server.
    """
    ours, theirs = await tls_pair(
        transports,
        handshake=False,
        client_context=of_client or client_context(version),
        server_context=of_server or server_context(version, certificate=certificate),
        client_options={"psk": offer, "server_name": "localhost", **(client or {})},
        server_options={"psk": look_up, **(server or {})},
    )
    errors: dict[TLSStream, tls.TLSError] = {}

    async def secure(stream: TLSStream) -> None:
        try:
            await stream.do_handshake()
            if stream is theirs:
                await stream.send_all(b"welcome")
            else:
                assert await stream.receive_some() == b"welcome"
        except tls.TLSError as error:
            errors[stream] = error
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(secure, ours)
        nursery.start_soon(secure, theirs)
    return Meeting(ours, theirs, errors.get(ours), errors.get(theirs))


# The key


def test_a_key_shows_everything_but_its_secret() -> None:
    text = repr(KEY384)
    assert text == "PreSharedKey(identity='thermostat 7', hash='SHA384')"
    assert text == str(KEY384) == f"{KEY384}"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_key_is_copied_from_any_kind_of_bytes(kind: Callable[[bytearray], Any]) -> None:
    secret = bytearray(SECRET)
    psk = tls.PreSharedKey("me", kind(secret))
    secret[0] ^= 1
    assert psk.key == SECRET
    assert psk == tls.PreSharedKey("me", SECRET)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("", SECRET), "ERR_OUT_OF_RANGE"),
        (("\u00e9" * 128 + "x", SECRET), "ERR_OUT_OF_RANGE"),
        (("a\0b", SECRET), "ERR_OUT_OF_RANGE"),
        (("\ud800", SECRET), "ERR_INVALID_ARG_VALUE"),
        ((None, SECRET), "ERR_INVALID_ARG_TYPE"),
        ((SECRET, "me"), "ERR_INVALID_ARG_TYPE"),
        (("me", b""), "ERR_OUT_OF_RANGE"),
        (("me", SECRET * 16 + b"x"), "ERR_OUT_OF_RANGE"),
        (("me", SECRET.hex()), "ERR_INVALID_ARG_TYPE"),
        (("me", list(SECRET)), "ERR_INVALID_ARG_TYPE"),
        (("me", 32), "ERR_INVALID_ARG_TYPE"),
        (("me", SECRET, "SHA512"), "ERR_INVALID_ARG_VALUE"),
        (("me", SECRET, None), "ERR_INVALID_ARG_VALUE"),
        (("me", SECRET, []), "ERR_INVALID_ARG_VALUE"),
    ],
)
def test_a_key_that_cannot_be_used_is_refused_at_once_and_not_shown(arguments: Any, code: str) -> None:
    with pytest.raises(tls.ConfigurationError) as caught:
        tls.PreSharedKey(*arguments)
    assert (caught.value.code, caught.value.option) == (code, "psk")
    assert isinstance(caught.value, TypeError) == (code == "ERR_INVALID_ARG_TYPE")
    assert not shows_the_secret(caught.value)


@in_both_versions
async def test_the_longest_identity_and_the_longest_key_are_used(version: str) -> None:
    longest = tls.PreSharedKey("\u20ac" * 85 + "x", SECRET * 16)
    assert len(longest.identity.encode()) == 256
    asked = []

    def answer(_stream: TLSStream, identity: str) -> bytes:
        asked.append(identity)
        return longest.key

    meeting = await meet(version, client={"psk": lambda _hint: longest}, server={"psk": answer})
    assert [info.psk_identity for info in meeting.infos] == [longest.identity] * 2
    assert asked == [longest.identity]


@in_both_versions
async def test_the_shortest_key_is_used(version: str) -> None:
    meeting = await meet(
        version,
        client={"psk": lambda _hint: tls.PreSharedKey("x", b"k")},
        server={"psk": lambda _stream, _identity: b"k"},
    )
    assert [info.psk_identity for info in meeting.infos] == ["x", "x"]


# The hint


@in_both_versions
@pytest.mark.parametrize("hint", ["gate 3, north", "\u20ac" * 85 + "x", "", None])
async def test_only_in_tls_1_2_a_client_hears_the_hint(version: str, hint: str | None) -> None:
    hints = []

    def answer(heard: str | None) -> tls.PreSharedKey:
        hints.append(heard)
        return KEY

    meeting = await meet(version, client={"psk": answer}, server={"psk_identity_hint": hint})
    assert hints == [hint or None if version == "TLSv1.2" else None]
    assert [info.psk_identity for info in meeting.infos] == [KEY.identity] * 2


@pytest.mark.parametrize(
    ("hint", "code"),
    [
        ("\u20ac" * 86, "ERR_TLS_PSK_SET_IDENTITY_HINT_FAILED"),
        ("gate\0", "ERR_TLS_PSK_SET_IDENTITY_HINT_FAILED"),
        (b"gate", "ERR_INVALID_ARG_TYPE"),
        (5, "ERR_INVALID_ARG_TYPE"),
    ],
)
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_a_hint_that_cannot_be_sent_is_refused_at_construction(version: str, hint: Any, code: str) -> None:
    context = client_context(version)
    options: Any = {"psk": look_up, "psk_identity_hint": hint}
    makers: list[Callable[[], object]] = [
        lambda: tls.TLSServer(trio.sleep_forever, context, **options),  # type: ignore[arg-type]
        lambda: tls.TLSListener(MemoryListener(), context, **options),
        lambda: TLSStream(memory_stream_pair()[0], context, server_side=True, **options),
    ]
    for make in makers:
        with pytest.raises(tls.ConfigurationError) as caught:
            make()
        assert (caught.value.code, caught.value.option) == (code, "psk_identity_hint")


# What a client's callback is asked, and what its answers mean


def asked(hints: list[str | None], answer: tls.PreSharedKey | None = KEY) -> dict[str, Any]:
    """Return the options of a client that notes what it is asked."""

    def psk(hint: str | None) -> tls.PreSharedKey | None:
        hints.append(hint)
        return answer

    return {"psk": psk}


@pytest.mark.parametrize(
    ("hint", "expected"), [("gate", [None, "gate"]), (None, [None])], ids=["hint", "no hint"]
)
async def test_a_client_of_both_versions_is_asked_again_only_for_a_hint(
    hint: str | None, expected: list[str | None]
) -> None:
    hints: list[str | None] = []
    meeting = await meet(
        client=asked(hints),
        server={"psk_identity_hint": hint},
        of_server=client_context("TLSv1.2"),
    )
    client, server = meeting.infos
    assert hints == expected
    assert client.protocol == "TLSv1.2"
    assert (client.psk_identity, server.psk_identity) == (KEY.identity, KEY.identity)


async def test_a_client_is_asked_once_for_both_hellos_around_a_hello_retry_request() -> None:
    hints: list[str | None] = []
    client, transport = memory_stream_pair()
    recorded = RecordingStream(client)
    meeting = await meet(
        client=asked(hints),
        of_client=client_context("TLSv1.3", groups="X25519:P-256"),
        of_server=client_context("TLSv1.3", groups="P-256"),
        transports=(recorded, transport),
    )
    assert hints == [None]
    assert [info.psk_identity for info in meeting.infos] == [KEY.identity] * 2
    assert [hello.psk_identities for hello in hellos(recorded.sent)] == [(KEY.identity.encode(),)] * 2


@pytest.mark.parametrize("server_version", ["TLSv1.2", "TLSv1.3"])
async def test_a_client_without_a_key_goes_on_with_certificates_where_it_can(server_version: str) -> None:
    hints: list[str | None] = []
    meeting = await meet(
        client=asked(hints, None),
        of_server=certified_context(server_version, "ECDHE-ECDSA-AES128-GCM-SHA256:PSK"),
    )
    client, server = meeting.infos
    assert hints == [None]
    assert (client.protocol, client.psk_identity, server.psk_identity) == (server_version, None, None)
    assert client.authorized
    assert client.peer_certificate == server.certificate is not None


@with_and_without_certificate
async def test_a_client_without_a_key_aborts_where_tls_1_2_has_chosen_one(certificate: bool) -> None:
    meeting = await meet("TLSv1.2", client=asked([], None), certificate=certificate)
    assert meeting.codes == ("ERR_SSL_PSK_IDENTITY_NOT_FOUND", "ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE")
    assert isinstance(meeting.client_error, tls.ProtocolError)
    assert meeting.server_alert is tls.Alert.handshake_failure


async def test_a_client_without_a_key_fails_where_tls_1_3_has_nothing_else() -> None:
    meeting = await meet("TLSv1.3", client=asked([], None))
    assert meeting.codes == (
        "ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE",
        "ERR_SSL_NO_SUITABLE_SIGNATURE_ALGORITHM",
    )


async def answer_slowly(_hint: str | None) -> tls.PreSharedKey:
    return KEY


@in_both_versions
@with_and_without_certificate
@pytest.mark.parametrize(
    ("psk", "reason", "cause"),
    [
        (raise_lookup_error, "psk raised", LookupError),
        (answer_slowly, "psk is called within OpenSSL and may not be async", None),
        (lambda _hint: SECRET, "psk returned bytes, not a PreSharedKey", None),
        (lambda _hint: (KEY.identity, SECRET), "psk returned tuple, not a PreSharedKey", None),
        (lambda _hint: tls.PreSharedKey("", SECRET), "psk raised", tls.ConfigurationError),
    ],
)
async def test_what_goes_wrong_in_a_clients_callback_is_said_and_the_server_is_told(
    version: str, certificate: bool, psk: Any, reason: str, cause: type[Exception] | None
) -> None:
    client, transport = memory_stream_pair()
    recorded = RecordingStream(client)
    meeting = await meet(
        version, client={"psk": psk}, certificate=certificate, transports=(recorded, transport)
    )
    error = meeting.client_error
    assert isinstance(error, tls.CallbackError)
    assert (error.callback, error.reason, error.phase) == ("psk", reason, "handshake")
    assert type(error.__cause__) is (type(None) if cause is None else cause)
    assert not shows_the_secret(error)
    if version == "TLSv1.2":
        assert meeting.server_alert is tls.Alert.handshake_failure
    else:
        # It is all that the client has sent.
        assert recorded.sent[5:] == bytes((2, tls.Alert.internal_error))
        assert isinstance(meeting.server_error, tls.ProtocolError)


class StopError(BaseException):
    """What no connection may swallow."""


def raise_interrupt(*_: object) -> Any:
    raise KeyboardInterrupt


def raise_stop(*_: object) -> Any:
    raise StopError


async def raise_interrupt_slowly(*_: object) -> Any:
    await trio.lowlevel.checkpoint()
    raise KeyboardInterrupt


@in_both_versions
@pytest.mark.parametrize(("role", "psk"), [("client", raise_interrupt), ("server", raise_interrupt)])
async def test_a_keyboard_interrupt_in_a_callback_is_the_programs(version: str, role: str, psk: Any) -> None:
    await check_that_it_passes(version, role, psk, KeyboardInterrupt)


@in_both_versions
@pytest.mark.parametrize("role", ["client", "server"])
async def test_what_is_no_exception_is_the_programs(version: str, role: str) -> None:
    await check_that_it_passes(version, role, raise_stop, StopError)


async def test_a_keyboard_interrupt_in_an_async_callback_is_the_programs() -> None:
    await check_that_it_passes("TLSv1.3", "server", raise_interrupt_slowly, KeyboardInterrupt)


async def check_that_it_passes(version: str, role: str, psk: Any, kind: type[BaseException]) -> None:
    options: Any = {role: {"psk": psk}}
    with pytest.raises(BaseExceptionGroup) as caught:
        await meet(version, **options)
    assert caught.group_contains(kind)
    assert not caught.group_contains(Exception)


@pytest.mark.parametrize("value", [KEY, SECRET, "key", 1])
def test_what_cannot_be_called_is_refused(value: Any) -> None:
    left, right = memory_stream_pair()
    makers: list[Callable[[], object]] = [
        lambda: TLSStream(left, client_context(), psk=value),
        lambda: TLSStream(right, client_context(), server_side=True, psk=value),
    ]
    for make in makers:
        with pytest.raises(tls.ConfigurationTypeError) as caught:
            make()
        assert caught.value.option == "psk"
        assert not shows_the_secret(caught.value)


# What a server's callback is asked, and what its answers mean


@in_both_versions
async def test_a_servers_callback_knows_the_stream_and_so_where_the_client_is(version: str) -> None:
    asked = []

    def psk(stream: TLSStream, identity: str) -> bytes:
        assert stream.client_hello is not None
        asked.append((stream, stream.remote_address, stream.client_hello.server_name, identity))
        return SECRET

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await open_stream_to_socket_listener(listener)
        transports = client, await listener.accept()
    meeting = await meet(version, server={"psk": psk}, transports=transports)
    ((stream, remote_address, server_name, identity),) = asked
    assert (stream, server_name, identity) == (meeting.server, "localhost", KEY.identity)
    assert remote_address is not None
    assert remote_address.port == client.socket.getsockname()[1]
    async with meeting.client, meeting.server:
        pass


@in_both_versions
@pytest.mark.parametrize(
    "answer",
    [SECRET, bytearray(SECRET), memoryview(SECRET), KEY, tls.PreSharedKey("its name here", SECRET)],
    ids=["bytes", "bytearray", "memoryview", "key", "key of another name"],
)
async def test_a_server_may_answer_with_any_form_of_the_key_under_the_clients_name(
    version: str, answer: Any
) -> None:
    meeting = await meet(version, server={"psk": lambda _stream, _identity: answer})
    assert [info.psk_identity for info in meeting.infos] == [KEY.identity] * 2


async def test_in_tls_1_3_a_look_up_may_wait(autojump_clock: MockClock) -> None:
    async def psk(stream: TLSStream, identity: str) -> bytes | None:
        await trio.sleep(30)
        return look_up(stream, identity)

    meeting = await meet("TLSv1.3", server={"psk": psk})
    assert [info.psk_identity for info in meeting.infos] == [KEY.identity] * 2
    assert trio.current_time() == 30


@with_and_without_certificate
async def test_in_tls_1_2_a_look_up_may_not_wait_and_the_error_says_why(certificate: bool) -> None:
    meeting = await meet("TLSv1.2", server={"psk": look_up_slowly}, certificate=certificate)
    error = meeting.server_error
    assert isinstance(error, tls.CallbackError)
    assert error.callback == "psk"
    assert error.reason == (
        "psk is async, but in TLS 1.2 OpenSSL cannot wait for it: "
        'use min_version="TLSv1.3", or a callback that returns the key'
    )
    assert meeting.client_alert is tls.Alert.internal_error


async def test_an_async_look_up_does_not_stand_in_the_way_of_clients_of_tls_1_2_with_certificates() -> None:
    context = certified_context(None, "ECDHE-ECDSA-AES128-GCM-SHA256:PSK")
    meeting = await meet(
        client={"psk": None},
        server={"psk": look_up_slowly},
        of_client=client_context("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256"),
        of_server=context,
    )
    assert meeting.infos[0].protocol == "TLSv1.2"


async def raise_group(*_: object) -> Any:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raise_lookup_error_slowly)


BAD_ANSWERS = [
    (raise_lookup_error, "psk raised", LookupError),
    (lambda *_: SECRET.hex(), "psk returned what is no key: a pre-shared key must be bytes", None),
    (lambda *_: list(SECRET), "psk returned what is no key: a pre-shared key must be bytes", None),
    (lambda *_: b"", "psk returned what is no key: a pre-shared key must have 1 to 512 bytes", None),
    (lambda *_: SECRET * 17, "psk returned what is no key: a pre-shared key must have 1 to 512", None),
]
SLOW_BAD_ANSWERS = [
    (raise_lookup_error_slowly, "psk raised", LookupError),
    (raise_group, "psk raised", ExceptionGroup),
]


@pytest.mark.parametrize(
    ("version", "psk", "reason", "cause"),
    [
        *(("TLSv1.2", *bad) for bad in BAD_ANSWERS),
        *(("TLSv1.3", *bad) for bad in BAD_ANSWERS),
        *(("TLSv1.3", *bad) for bad in SLOW_BAD_ANSWERS),
    ],
)
@with_and_without_certificate
async def test_what_goes_wrong_in_a_servers_callback_refuses_the_client_and_is_the_supervisors_business(
    version: str, psk: Any, reason: str, cause: type[Exception] | None, certificate: bool
) -> None:
    served = []

    async def handler(stream: TLSStream) -> None:
        served.append(stream)

    server = tls.TLSServer(handler, server_context(version, certificate=certificate), psk=psk)
    errors = server.client_errors()
    client, transport = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.handle, transport)
        with pytest.raises(tls.PeerAlert) as caught:
            await tls.wrap_client(client, host="localhost", context=client_context(version), psk=offer)
    assert caught.value.alert is tls.Alert.internal_error
    assert served == []
    (error,) = (await anext(errors)).exceptions
    assert isinstance(error, tls.CallbackError)
    assert (error.callback, error.phase) == ("psk", "handshake")
    assert error.reason.startswith(reason)
    assert type(error.__cause__) is (type(None) if cause is None else cause)
    assert not shows_the_secret(error)


async def test_the_time_of_the_handshake_runs_while_a_key_is_looked_up(autojump_clock: MockClock) -> None:
    cancelled = []

    async def psk(_stream: TLSStream, identity: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(identity)

    meeting = await meet("TLSv1.3", server={"psk": psk, "handshake_timeout": 7})
    assert isinstance(meeting.server_error, tls.HandshakeTimeout)
    assert (cancelled, trio.current_time()) == ([KEY.identity], 7)


async def test_cancelling_the_handshake_reaches_the_look_up_and_the_next_one_asks_again(
    autojump_clock: MockClock,
) -> None:
    asked = []

    async def psk(stream: TLSStream, identity: str) -> bytes | None:
        asked.append(trio.current_time())
        if len(asked) == 1:
            await trio.sleep_forever()
        return look_up(stream, identity)

    client, server = await tls_pair(
        handshake=False,
        client_context=client_context("TLSv1.3"),
        server_context=client_context("TLSv1.3"),
        client_options={"psk": offer},
        server_options={"psk": psk},
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        with trio.move_on_after(3) as scope:
            await server.do_handshake()
        assert scope.cancelled_caught
        await server.do_handshake()
    assert asked == [0, 3]
    assert client.info.psk_identity == server.info.psk_identity == KEY.identity


# Identities that nobody knows, and keys that are wrong


def know_nobody(_stream: TLSStream, _identity: str) -> None:
    return None


@with_and_without_certificate
async def test_in_tls_1_2_an_unknown_identity_is_refused_as_such(certificate: bool) -> None:
    meeting = await meet("TLSv1.2", server={"psk": know_nobody}, certificate=certificate)
    assert meeting.codes == (
        "ERR_SSL_TLSV1_ALERT_UNKNOWN_PSK_IDENTITY",
        "ERR_SSL_PSK_IDENTITY_NOT_FOUND",
    )
    assert meeting.client_alert is tls.Alert.unknown_psk_identity
    assert isinstance(meeting.server_error, tls.ProtocolError)


@in_both_versions
async def test_a_random_key_hides_whether_an_identity_is_known(version: str) -> None:
    def wrong_key(_stream: TLSStream, _identity: str) -> bytes:
        return OTHER_SECRET

    hidden = await meet(version, server={"psk": wrong_key})
    unlike = {"psk": lambda _hint: tls.PreSharedKey(KEY.identity, OTHER_SECRET)}
    mistaken = await meet(version, client=unlike)
    assert hidden.codes == mistaken.codes
    assert hidden.client_alert is mistaken.client_alert
    assert hidden.client_alert is (
        tls.Alert.bad_record_mac if version == "TLSv1.2" else tls.Alert.decrypt_error
    )


@in_both_versions
@with_and_without_certificate
async def test_a_wrong_key_is_refused_though_there_are_certificates(version: str, certificate: bool) -> None:
    meeting = await meet(
        version, server={"psk": lambda _stream, _identity: OTHER_SECRET}, certificate=certificate
    )
    assert meeting.codes == (
        ("ERR_SSL_SSLV3_ALERT_BAD_RECORD_MAC", "ERR_SSL_DECRYPTION_FAILED_OR_BAD_RECORD_MAC")
        if version == "TLSv1.2"
        else ("ERR_SSL_TLSV1_ALERT_DECRYPT_ERROR", "ERR_SSL_BINDER_DOES_NOT_VERIFY")
    )


async def test_in_tls_1_3_an_unknown_identity_fails_where_there_is_no_certificate() -> None:
    meeting = await meet("TLSv1.3", server={"psk": know_nobody})
    assert meeting.codes == (
        "ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE",
        "ERR_SSL_NO_SUITABLE_SIGNATURE_ALGORITHM",
    )


@pytest.mark.parametrize("psk", [know_nobody, None], ids=["unknown", "no psk at all"])
async def test_in_tls_1_3_an_unknown_identity_makes_a_full_handshake_where_there_is_a_certificate(
    psk: Any,
) -> None:
    client, server = (await meet("TLSv1.3", server={"psk": psk}, certificate=True)).infos
    assert (client.psk_identity, server.psk_identity) == (None, None)
    assert (client.session_reused, server.session_reused) == (False, False)
    assert client.peer_certificate == server.certificate is not None


async def test_who_falls_back_to_certificates_is_verified_by_them() -> None:
    stranger = tls.SecureContext(ca=[], min_version="TLSv1.3")
    meeting = await meet("TLSv1.3", server={"psk": know_nobody}, certificate=True, of_client=stranger)
    assert isinstance(meeting.client_error, tls.CertificateError)
    assert meeting.server_alert is tls.Alert.unknown_ca


# The hash that a key of TLS 1.3 is for

CLIENT_ORDERS = {
    "default order": SUITES,
    "SHA-256 first": "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384",
    "SHA-384 first": "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256",
}


@pytest.mark.parametrize("psk", [KEY, KEY384], ids=["SHA256", "SHA384"])
@with_and_without_certificate
@pytest.mark.parametrize("honor_cipher_order", [True, False], ids=["server's order", "client's order"])
@pytest.mark.parametrize("order", CLIENT_ORDERS)
async def test_a_key_is_used_with_a_suite_of_its_hash_whatever_is_preferred(
    psk: tls.PreSharedKey, certificate: bool, honor_cipher_order: bool, order: str
) -> None:
    make = certified_context if certificate else client_context
    meeting = await meet(
        client={"psk": lambda _hint: psk},
        server={"psk": lambda _stream, _identity: psk},
        of_client=client_context("TLSv1.3", CLIENT_ORDERS[order]),
        of_server=make("TLSv1.3", honor_cipher_order=honor_cipher_order),
    )
    client, server = meeting.infos
    assert client.psk_identity == server.psk_identity == KEY.identity
    assert client.cipher.standard_name.endswith(psk.hash)


@pytest.mark.parametrize(
    ("psk", "suite"),
    [(KEY, "TLS_AES_256_GCM_SHA384"), (KEY384, "TLS_AES_128_GCM_SHA256")],
    ids=["SHA256", "SHA384"],
)
@pytest.mark.parametrize("role", ["client", "server"])
async def test_a_key_for_which_a_side_has_no_suite_is_not_used(
    psk: tls.PreSharedKey, suite: str, role: str
) -> None:
    narrow, wide = (suite, SUITES) if role == "client" else (SUITES, suite)
    options: Any = {
        "client": {"psk": lambda _hint: psk},
        "server": {"psk": lambda _stream, _identity: psk},
        "of_client": client_context("TLSv1.3", narrow),
    }
    client, server = (await meet(of_server=certified_context("TLSv1.3", wide), **options)).infos
    assert (client.psk_identity, server.psk_identity) == (None, None)
    assert client.cipher.standard_name == suite
    assert client.peer_certificate is not None
    refused = await meet(of_server=client_context("TLSv1.3", wide), **options)
    assert refused.client_alert is tls.Alert.handshake_failure


@with_and_without_certificate
async def test_sides_that_differ_in_the_hash_do_not_connect(certificate: bool) -> None:
    meeting = await meet("TLSv1.3", client={"psk": lambda _hint: KEY384}, certificate=certificate)
    assert meeting.codes == ("ERR_SSL_TLSV1_ALERT_DECODE_ERROR", "ERR_SSL_BAD_EXTENSION")


async def test_in_tls_1_2_the_hash_does_not_matter() -> None:
    meeting = await meet("TLSv1.2", client={"psk": lambda _hint: KEY384})
    assert [info.psk_identity for info in meeting.infos] == [KEY.identity] * 2


@pytest.mark.parametrize(
    ("psk", "suites"),
    [
        (KEY, "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256"),
        (KEY384, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384"),
    ],
    ids=["SHA256", "SHA384"],
)
async def test_a_key_is_not_offered_again_once_a_suite_of_another_hash_is_chosen(
    psk: tls.PreSharedKey, suites: str
) -> None:
    client, transport = memory_stream_pair()
    recorded = RecordingStream(client)
    meeting = await meet(
        client={"psk": lambda _hint: psk},
        server={"psk": know_nobody},
        of_client=client_context("TLSv1.3", groups="X25519:P-256"),
        of_server=certified_context("TLSv1.3", suites, groups="P-256"),
        transports=(recorded, transport),
    )
    assert meeting.infos[0].psk_identity is None
    first, second = hellos(recorded.sent)
    assert first.psk_identities == (psk.identity.encode(),)
    assert second.psk_identities == ()


# Clients that name several identities

_PRE_SHARED_KEY = 41


def vector(width: int, content: bytes) -> bytes:
    """What TLS writes for variable-length data: its length in so many bytes, then the data."""
    return len(content).to_bytes(width) + content


def expanded(secret: bytes, label: bytes, context: bytes = b"") -> bytes:
    """HKDF-Expand-Label of RFC 8446, section 7.1, for 32 bytes."""
    info = (32).to_bytes(2) + vector(1, b"tls13 " + label) + vector(1, context)
    return hmac.digest(secret, info + b"\1", "sha256")


def binder(secret: bytes, truncated_hello: bytes) -> bytes:
    """What shows that a client has a key (RFC 8446, section 4.2.11.2)."""
    early = hmac.digest(bytes(32), secret, "sha256")
    key = expanded(early, b"ext binder", hashlib.sha256().digest())
    return hmac.digest(expanded(key, b"finished"), hashlib.sha256(truncated_hello).digest(), "sha256")


def hello_with(*identities: bytes, secret: bytes = SECRET) -> bytes:
    """Return a ClientHello, in a record, that names these identities, of which all have the same key."""
    engine = tls.Engine(client_context("TLSv1.3", groups="P-256"), host="localhost", psk=offer)
    engine.do_handshake()
    original = engine.drain()[5:]
    (kept,) = [body for kind, body in ClientHello.parse(original).extensions if kind == _PRE_SHARED_KEY]
    # The extension is the last one.
    rest = original[4 : -len(kept) - 4]
    extensions_at = len(rest) - sum(
        4 + len(body) for kind, body in ClientHello.parse(original).extensions if kind != _PRE_SHARED_KEY
    )
    named = vector(2, b"".join(vector(2, identity) + bytes(4) for identity in identities))
    binders_size = 2 + 33 * len(identities)
    extension = _PRE_SHARED_KEY.to_bytes(2) + (len(named) + binders_size).to_bytes(2) + named
    extensions = rest[extensions_at:] + extension
    body = rest[: extensions_at - 2] + (len(extensions) + binders_size).to_bytes(2) + extensions
    truncated = b"\1" + (len(body) + binders_size).to_bytes(3) + body
    message = truncated + vector(2, vector(1, binder(secret, truncated)) * len(identities))
    return b"\x16\x03\x01" + vector(2, message)


def hellos(sent: bytes) -> list[ClientHello]:
    """Return the ClientHellos among the records that a client has sent."""
    found = []
    while sent:
        end = 5 + int.from_bytes(sent[3:5])
        if sent[0] == 22 and sent[5] == 1:
            found.append(ClientHello.parse(sent[5:end]))
        sent = sent[end:]
    return found


def selected_identity(received: bytes) -> int | None:
    """Return which identity a ServerHello has chosen, or None (RFC 8446, section 4.2.11)."""
    hello = received[5 : 5 + int.from_bytes(received[3:5])]
    at = 4 + 2 + 32
    at += 1 + hello[at] + 2 + 1 + 2
    while at < len(hello):
        kind, size = int.from_bytes(hello[at : at + 2]), int.from_bytes(hello[at + 2 : at + 4])
        if kind == _PRE_SHARED_KEY:
            return int.from_bytes(hello[at + 4 : at + 4 + size])
        at += 4 + size
    return None


async def answer_to(
    hello: bytes, psk: Any = look_up, context: tls.SecureContext | None = None
) -> tuple[int | None, list[str]]:
    """Send a ClientHello to a server with a certificate.

    Args:
        hello: The record.
        psk: The server's callback.
        context: Another context of the server.

    Returns:
        Which identity it chose, and which it looked up.
    """
    asked = []

    async def note(stream: TLSStream, identity: str) -> Any:
        asked.append(identity)
        return psk(stream, identity)

    client, transport = memory_stream_pair()
    server = TLSStream(transport, context or certified_context("TLSv1.3"), server_side=True, psk=note)

    async def serve() -> None:
        with pytest.raises(tls.ConnectionFailed):
            await server.do_handshake()
        await trio.aclose_forcefully(server)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await client.send_all(hello)
        received = await client.receive_some()
        await client.aclose()
    assert received[0] == 22, "the server has refused it"
    return selected_identity(bytes(received)), asked


ME = KEY.identity.encode()


async def test_identities_are_tried_in_the_clients_order_until_one_is_known() -> None:
    chosen, asked = await answer_to(hello_with(b"stranger", ME, b"not any more"))
    assert (chosen, asked) == (1, ["stranger", KEY.identity])


async def test_an_identity_that_is_named_twice_is_taken_once() -> None:
    chosen, asked = await answer_to(hello_with(ME, ME))
    assert (chosen, asked) == (0, [KEY.identity])


@pytest.mark.parametrize(
    "identity",
    [b"\xff\xfe\x80", b"a" * 257, b"thermostat\0007", b"\0", bytes(range(256)) * 2],
    ids=["no UTF-8", "too long", "zero byte", "zero", "like a ticket"],
)
async def test_what_can_be_no_identity_of_ours_is_left_out(identity: bytes) -> None:
    assert await answer_to(hello_with(identity, ME)) == (1, [KEY.identity])
    assert await answer_to(hello_with(identity)) == (None, [])


async def test_an_identity_of_256_bytes_is_looked_up() -> None:
    longest = b"a" * 256
    assert await answer_to(hello_with(longest), lambda *_: SECRET) == (0, [longest.decode()])


async def test_of_a_hundred_identities_only_the_first_few_are_looked_up() -> None:
    names = [f"guess {number}" for number in range(100)]
    encoded = [name.encode() for name in names]
    assert await answer_to(hello_with(*encoded)) == (None, names[:8])
    assert await answer_to(hello_with(*encoded, ME)) == (None, names[:8])
    assert await answer_to(hello_with(*encoded[:7], ME)) == (7, [*names[:7], KEY.identity])


async def test_identities_are_not_looked_up_where_tls_1_3_is_not_negotiated() -> None:
    both = certified_context(None, "DEFAULT")
    hello = hello_with(ME)
    # Supported versions: TLS 1.3 alone, or TLS 1.2 alone, with suites of that.
    assert await answer_to(hello, context=both) == (0, [KEY.identity])
    older = hello.replace(b"\x00\x2b\x00\x03\x02\x03\x04", b"\x00\x2b\x00\x03\x02\x03\x03")
    older = older.replace(b"\x13\x02\x13\x03", b"\xc0\x2b\xc0\x2f")
    assert await answer_to(older, context=both) == (None, [])


async def test_identities_that_cannot_be_ours_do_not_count() -> None:
    garbage = [bytes((0xFF, number)) for number in range(100)]
    assert await answer_to(hello_with(*garbage, ME)) == (100, [KEY.identity])


@pytest.mark.feature("A9")
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("ticket_of", ["this server", "another one"])
async def test_a_ticket_and_a_key_may_be_offered_together(known: bool, ticket_of: str) -> None:
    sessions: list[bytes] = []
    servers = [certified_context("TLSv1.3"), certified_context("TLSv1.3", session_timeout=60)]
    first = await meet("TLSv1.3", client={"psk": None, "on_session": sessions.append}, of_server=servers[0])
    assert first.infos[0].psk_identity is None
    asked = []

    def psk(_stream: TLSStream, identity: str) -> bytes | None:
        asked.append(identity)
        return SECRET if known else None

    client, server = (
        await meet(
            "TLSv1.3",
            client={"session": sessions[-1]},
            server={"psk": psk},
            of_server=servers[ticket_of != "this server"],
        )
    ).infos
    assert asked == [KEY.identity]
    assert client.psk_identity == server.psk_identity == (KEY.identity if known else None)
    assert client.session_reused is server.session_reused is (known or ticket_of == "this server")


# Keys and certificates on one server


@in_both_versions
async def test_one_server_serves_clients_with_keys_and_clients_with_certificates(version: str) -> None:
    seen = []

    async def handler(stream: TLSStream) -> None:
        certificate = stream.info.peer_certificate
        name = None if certificate is None else certificate.subject["CN"]
        seen.append((stream.info.psk_identity, name, stream.authorized))
        await stream.send_all(b"welcome")

    server = tls.TLSServer(handler, certified_context(version), psk=look_up, request_cert=True)
    alice = tls.SecureContext(ca=default_authority().ca, **default_authority().client("alice").options)
    async with trio.open_nursery() as nursery:
        for context, psk in ((client_context(version), offer), (alice, None)):
            client, transport = memory_stream_pair()
            nursery.start_soon(server.handle, transport)
            async with await tls.wrap_client(client, host="localhost", context=context, psk=psk) as stream:
                assert await stream.receive_some() == b"welcome"
                assert stream.info.psk_identity == (None if psk is None else KEY.identity)
    assert seen == [(KEY.identity, None, True), (None, "alice", True)]


@in_both_versions
@with_and_without_certificate
@pytest.mark.parametrize("request_cert", [False, True])
async def test_a_key_stands_in_for_the_certificates_on_both_sides(
    version: str, certificate: bool, request_cert: bool
) -> None:
    client, server = (
        await meet(version, server={"request_cert": request_cert}, certificate=certificate)
    ).infos
    assert client.authorized
    assert server.authorized is request_cert
    for info in (client, server):
        assert info.psk_identity == KEY.identity
        assert info.authorization_error is None
        assert (info.certificate, info.peer_certificate) == (None, None)
        assert (info.peer_certificate_chain, info.verified_chain) == ((), ())
        # As in Node.js.
        assert info.session_reused is (version == "TLSv1.3")


@in_both_versions
async def test_a_client_without_a_key_is_not_authorized_by_the_servers_having_keys(version: str) -> None:
    suites = "ECDHE-ECDSA-AES128-GCM-SHA256:PSK"
    meeting = await meet(
        client={"psk": None},
        server={"request_cert": True},
        of_client=client_context(version, "ECDHE-ECDSA-AES128-GCM-SHA256"),
        of_server=certified_context(version, suites),
    )
    assert meeting.server_error is not None
    assert meeting.server_error.code == "ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE"


@pytest.mark.feature("A6")
@in_both_versions
async def test_the_identity_check_is_asked_with_no_certificate(version: str) -> None:
    checked = []

    def check(host: str, certificate: tls.Certificate | None) -> None:
        checked.append((host, certificate))

    client, _ = (await meet(version, client={"check_server_identity": check})).infos
    assert client.authorized
    assert checked == [("localhost", None)]


@pytest.mark.feature("A6")
@in_both_versions
async def test_the_identity_check_may_refuse_a_key(version: str) -> None:
    options = {"check_server_identity": raise_lookup_error}
    meeting = await meet(version, client=options)
    assert isinstance(meeting.client_error, tls.IdentityError)
    assert meeting.client_error.certificate is None
    assert isinstance(meeting.client_error.__cause__, LookupError)

    client, _ = (await meet(version, client={**options, "reject_unauthorized": False})).infos
    assert not client.authorized
    assert isinstance(client.authorization_error, tls.IdentityError)
    assert client.psk_identity == KEY.identity


@in_both_versions
async def test_a_client_needs_nobody_to_trust(version: str) -> None:
    context = tls.SecureContext(ca=[], ciphers=SUITES, **only(version))
    client, _ = (await meet(version, of_client=context)).infos
    assert client.authorized


@pytest.mark.feature("B18")
async def test_no_ocsp_response_is_fetched_where_no_certificate_is_presented() -> None:
    fetched = []

    def fetch(*certificates: tls.Certificate | None) -> None:
        fetched.append(certificates)

    for psk in (offer, None):
        await meet(
            "TLSv1.3",
            client={"psk": psk, "request_ocsp": True},
            server={"ocsp_callback": fetch},
            certificate=True,
        )
    assert len(fetched) == 1


# Suites of TLS 1.2


@pytest.mark.parametrize(
    ("suite", "exchange"),
    [
        ("PSK-AES128-GCM-SHA256", None),
        ("DHE-PSK-AES128-GCM-SHA256", "DH"),
        ("DHE-PSK-AES128-CCM8", "DH"),
        ("ECDHE-PSK-CHACHA20-POLY1305", "ECDH"),
        ("RSA-PSK-AES128-GCM-SHA256", None),
    ],
)
async def test_all_kinds_of_suites_say_whose_key_it_is(suite: str, exchange: str | None) -> None:
    ciphers = f"{suite}@SECLEVEL=0"
    options: Any = {"dhparam": "auto", **only("TLSv1.2"), "ciphers": ciphers}
    if suite.startswith("RSA"):
        options |= default_authority().good("localhost", key_type="RSA").options
    client, server = (
        await meet(of_client=client_context("TLSv1.2", ciphers), of_server=tls.SecureContext(**options))
    ).infos
    assert client.cipher.name == suite
    assert client.psk_identity == server.psk_identity == KEY.identity
    assert client.authorized
    assert (client.peer_certificate is not None) is suite.startswith("RSA")
    assert server.certificate == client.peer_certificate
    assert (client.ephemeral_key and client.ephemeral_key.type) == exchange


@pytest.mark.parametrize(
    ("name", "ca", "code"),
    [
        ("other.example", True, "ERR_TLS_CERT_ALTNAME_INVALID"),
        ("localhost", False, "UNABLE_TO_VERIFY_LEAF_SIGNATURE"),
    ],
    ids=["name", "trust"],
)
async def test_a_key_does_not_excuse_a_certificate_that_is_presented(name: str, ca: bool, code: str) -> None:
    ciphers = "RSA-PSK-AES128-GCM-SHA256"
    presented = default_authority().good("localhost", key_type="RSA")
    meeting = await meet(
        client={"server_name": name},
        of_client=tls.SecureContext(
            ca=default_authority().ca if ca else [], ciphers=ciphers, **only("TLSv1.2")
        ),
        of_server=tls.SecureContext(**presented.options, ciphers=ciphers, **only("TLSv1.2")),
    )
    assert isinstance(meeting.client_error, tls.CertificateError)
    assert meeting.client_error.code == code


@pytest.mark.feature("A7")
@pytest.mark.parametrize("suite", ["DHE-PSK-AES128-GCM-SHA256", "DHE-PSK-AES128-CCM8"])
@pytest.mark.parametrize("hint", ["a hint stands before the group", None])
async def test_a_small_diffie_hellman_group_is_refused_beside_a_key_too(suite: str, hint: str | None) -> None:
    contexts: Any = {
        "of_client": client_context("TLSv1.2", f"{suite}@SECLEVEL=0"),
        "of_server": client_context("TLSv1.2", f"{suite}@SECLEVEL=0", dhparam="auto"),
        "server": {"psk_identity_hint": hint},
    }
    accepted = await meet(client={"min_dh_size": 3072}, **contexts)
    assert accepted.infos[0].ephemeral_key == tls.EphemeralKey(type="DH", name=None, size=3072)
    refused = await meet(client={"min_dh_size": 3073}, **contexts)
    assert refused.codes[0] == "ERR_TLS_DH_PARAM_SIZE"
    assert refused.server_alert is tls.Alert.insufficient_security


# What is refused at construction


@pytest.mark.parametrize("ciphers", [None, "ECDHE+AESGCM", "DEFAULT:!PSK"])
def test_a_client_of_tls_1_2_without_a_suite_for_keys_is_refused(ciphers: str | None) -> None:
    context = tls.SecureContext(ciphers=ciphers, max_version="TLSv1.2")
    with pytest.raises(tls.ConfigurationError) as caught:
        TLSStream(memory_stream_pair()[0], context, psk=offer)
    assert (caught.value.code, caught.value.option) == ("ERR_SSL_NO_CIPHER_MATCH", "ciphers")


@pytest.mark.parametrize(
    "ciphers", ["PSK", "DEFAULT", "ALL", "AES128", "psk-aes128-gcm-sha256", "HIGH:!aNULL"]
)
async def test_every_list_with_a_suite_for_keys_will_do(ciphers: str) -> None:
    context = tls.SecureContext(ciphers=ciphers, **only("TLSv1.2"))
    meeting = await meet(of_client=context, of_server=client_context("TLSv1.2"))
    assert meeting.infos[0].psk_identity == KEY.identity


async def test_with_default_ciphers_keys_are_for_tls_1_3_alone() -> None:
    default = tls.SecureContext()
    client, _ = (await meet(of_client=default, of_server=default)).infos
    assert (client.protocol, client.psk_identity) == ("TLSv1.3", KEY.identity)


def test_a_server_needs_a_certificate_or_keys() -> None:
    async def handler(_stream: TLSStream) -> None: ...

    makers: list[Callable[..., object]] = [
        functools.partial(tls.TLSServer, handler),
        functools.partial(tls.TLSListener, MemoryListener()),
    ]
    for make in makers:
        with pytest.raises(tls.ConfigurationError, match="psk=") as caught:
            make(client_context())
        assert caught.value.option == "context"
        make(client_context(), psk=look_up)
        with pytest.raises(tls.ConfigurationError) as caught:
            make(tls.SecureContext(max_version="TLSv1.2"), psk=look_up)
        assert (caught.value.code, caught.value.option) == ("ERR_SSL_NO_CIPHER_MATCH", "ciphers")


@in_both_versions
async def test_a_server_needs_only_keys(version: str) -> None:
    async def greet(stream: TLSStream) -> None:
        await stream.send_all(str(stream.info.psk_identity).encode())

    listener = MemoryListener()
    server = tls.TLSServer(greet, client_context(version), psk=look_up)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_listeners, [listener])
        async with await tls.wrap_client(
            await listener.connect(), host="localhost", context=client_context(version), psk=offer
        ) as stream:
            assert await stream.receive_some() == KEY.identity.encode()
        nursery.cancel_scope.cancel()


@pytest.mark.feature("B26")
@in_both_versions
async def test_a_listener_needs_only_keys_and_passes_over_who_has_none(version: str) -> None:
    below = MemoryListener()
    stranger = {"psk": lambda _hint: tls.PreSharedKey("stranger", SECRET)}

    async def visit(**options: Any) -> None:
        with contextlib.suppress(tls.PeerAlert):
            await tls.wrap_client(
                await below.connect(), host="localhost", context=client_context(version), **options
            )

    async with tls.TLSListener(below, client_context(version), psk=look_up) as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(functools.partial(visit, **stranger))
            nursery.start_soon(functools.partial(visit, psk=offer))
            stream = await listener.accept()
            assert stream.info.psk_identity == KEY.identity
        assert sum(listener.failed.values()) == 1


# Contexts by name


@pytest.mark.feature("B10")
@pytest.mark.parametrize("found", ["sni_callback", "add_context"])
async def test_the_versions_of_the_context_that_is_chosen_by_name_hold(found: str) -> None:
    chosen = client_context("TLSv1.2")
    hints: list[str | None] = []
    asked_for = []

    def psk(stream: TLSStream, identity: str) -> bytes | None:
        asked_for.append(identity)
        return look_up(stream, identity)

    async def handler(stream: TLSStream) -> None:
        await stream.send_all(f"{stream.info.protocol} {stream.info.psk_identity}".encode())

    options: Any = {"sni_callback": lambda _name: chosen} if found == "sni_callback" else {}
    server = tls.TLSServer(handler, client_context(), psk=psk, psk_identity_hint="gate", **options)
    if found == "add_context":
        server.add_context("old.example", chosen)
    client, transport = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.handle, transport)
        async with await tls.wrap_client(
            client, host="old.example", context=client_context(), **asked(hints)
        ) as stream:
            assert await stream.receive_some() == f"TLSv1.2 {KEY.identity}".encode()
    assert asked_for == [KEY.identity]
    assert hints == [None, "gate"]


@pytest.mark.feature("B10")
@pytest.mark.parametrize(
    ("version", "suite"),
    [("TLSv1.2", "PSK-AES128-GCM-SHA256"), ("TLSv1.3", "TLS_AES_128_GCM_SHA256")],
)
async def test_the_ciphers_of_the_context_that_is_chosen_by_name_hold(version: str, suite: str) -> None:
    chosen = client_context(version, suite)
    client, server = (await meet(version, server={"sni_callback": lambda _name: chosen})).infos
    assert client.cipher.name == suite
    assert client.psk_identity == server.psk_identity == KEY.identity


# Sessions


@pytest.mark.feature("A9")
@pytest.mark.parametrize("request_cert", [False, True])
async def test_a_resumed_session_still_says_whose_key_it_was_made_with(request_cert: bool) -> None:
    sessions: list[bytes] = []
    contexts: Any = {"of_client": client_context("TLSv1.2"), "of_server": certified_context("TLSv1.2")}
    server = {"request_cert": request_cert}
    await meet(client={"on_session": sessions.append}, server=server, **contexts)
    asked_again: list[str | None] = []
    meeting = await meet(
        client={"session": sessions[-1], **asked(asked_again)},
        server={"psk": raise_lookup_error, **server},
        **contexts,
    )
    for info in meeting.infos:
        assert info.session_reused
        assert info.psk_identity == KEY.identity
    assert meeting.client.authorized
    assert meeting.server.authorized is request_cert
    assert asked_again == []


@pytest.mark.feature("C15")
async def test_a_renegotiation_takes_a_key_too() -> None:
    hints: list[str | None] = []
    meeting = await meet("TLSv1.2", client=asked(hints), server={"psk_identity_hint": "gate"})
    first = meeting.infos

    async def read(stream: TLSStream) -> None:
        async for _ in stream:
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, meeting.server)
        nursery.start_soon(read, meeting.client)
        await meeting.server.renegotiate(request_cert=False)
        nursery.cancel_scope.cancel()
    assert hints == ["gate", "gate"]
    assert meeting.server.info is not first[1]
    assert meeting.server.info.psk_identity == KEY.identity
    assert meeting.server.info.authorization_error is None


@pytest.mark.feature("E1")
@pytest.mark.parametrize("seconds", [5, 7200])
async def test_tickets_for_a_client_with_a_key_live_as_long_as_others(seconds: int) -> None:
    sessions: list[bytes] = []
    for psk in (offer, None):
        await meet(
            client={"psk": psk, "on_session": sessions.append},
            of_client=client_context("TLSv1.3"),
            of_server=certified_context("TLSv1.3", session_timeout=seconds),
        )
    assert {Session.parse(session).ticket_lifetime_hint for session in sessions} == {seconds}


@pytest.mark.feature("E1")
async def test_a_context_without_a_session_timeout_takes_keys_all_the_same() -> None:
    meeting = await meet(
        of_client=client_context("TLSv1.3"), of_server=client_context("TLSv1.3", session_timeout=0)
    )
    assert meeting.infos[1].psk_identity == KEY.identity


@in_both_versions
async def test_a_session_names_the_key_that_it_was_made_with(version: str) -> None:
    sessions: list[bytes] = []
    await meet(version, client={"on_session": sessions.append})
    await meet(
        client={"psk": None, "on_session": sessions.append},
        of_client=client_context(version, "ECDHE-ECDSA-AES128-GCM-SHA256"),
        of_server=certified_context(version),
    )
    assert psk_identity(sessions[0]) == KEY.identity
    assert psk_identity(sessions[-1]) is None


# Keeping the secret


def shows_the_secret(error: BaseException) -> bool:
    """Whether any part of it is in what an error, or its cause, says of itself."""
    texts = [str(error), repr(error), repr(vars(error))]
    if isinstance(error, tls.TLSError):
        texts.append(html.unescape(error._repr_html_()))
    for cause in (error.__cause__, error.__context__):
        texts += [str(cause), repr(cause)]
    forms = (SECRET.hex(), repr(SECRET)[2:-1], repr(list(SECRET))[1:-1], SECRET.decode("latin-1"))
    return any(form in text for form in forms for text in texts)


def test_the_secret_would_be_found() -> None:
    assert shows_the_secret(ValueError(SECRET))
    assert shows_the_secret(tls.ProtocolError(SECRET.hex()))
    assert not shows_the_secret(ValueError(KEY))


@in_both_versions
@pytest.mark.parametrize("answer", [SECRET.hex(), SECRET * 17, [SECRET], OTHER_SECRET, None])
async def test_neither_errors_nor_the_log_show_a_key(
    version: str, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def handler(_stream: TLSStream) -> None: ...

    server = tls.TLSServer(handler, client_context(version), psk=lambda *_: answer)
    client, transport = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.handle, transport)
        with pytest.raises(tls.PeerAlert) as caught:
            await tls.wrap_client(client, host="localhost", context=client_context(version), psk=offer)
    (group,) = [group async for group in take_one(server.client_errors())]
    for error in (caught.value, *group.exceptions):
        assert not shows_the_secret(error)
    (line,) = caplog.messages
    assert not shows_the_secret(ValueError(line))


async def take_one(errors: Any) -> Any:
    yield await anext(errors)


def holders(thing: object) -> list[object]:
    """Return what of ours refers to a thing."""
    return [
        holder
        for holder in gc.get_referrers(thing)
        if isinstance(holder, (tls.Engine, TLSStream, tls.PreSharedKey, tuple, list))
    ]


@in_both_versions
@pytest.mark.parametrize("outcome", ["success", "unknown", "wrong key", "client aborts"])
async def test_nothing_keeps_a_key_after_the_handshake(version: str, outcome: str) -> None:
    handed_out: list[tls.PreSharedKey] = []

    def hand_out(secret: bytes) -> tls.PreSharedKey:
        handed_out.append(tls.PreSharedKey(KEY.identity, secret))
        return handed_out[-1]

    of_client: dict[str, Any] = {"psk": lambda _hint: hand_out(SECRET)}
    of_server: dict[str, Any] = {"psk": lambda *_: hand_out(SECRET)}
    if outcome == "unknown":
        of_server = {"psk": know_nobody}
    elif outcome == "wrong key":
        of_server = {"psk": lambda *_: hand_out(OTHER_SECRET)}
    elif outcome == "client aborts":
        of_client["check_server_identity"] = raise_lookup_error
    meeting = await meet(version, client=of_client, server=of_server)
    assert (meeting.client_error is None) is (outcome == "success")
    assert handed_out
    for psk in handed_out:
        assert [holder for holder in holders(psk) if holder is not handed_out] == []


@in_both_versions
async def test_a_closed_stream_does_not_refer_to_its_callbacks_nor_to_what_they_know(version: str) -> None:
    class Store:
        def offer(self, _hint: str | None) -> tls.PreSharedKey:
            return KEY

    store = Store()
    meeting = await meet(version, client={"psk": store.offer})
    for stream in (meeting.client, meeting.server):
        await trio.aclose_forcefully(stream)
    gone = weakref.ref(store)
    del store
    assert gone() is None


@in_both_versions
@pytest.mark.parametrize("outcome", ["success", "refused", "unknown"])
async def test_a_stream_with_a_key_is_freed_with_its_last_reference(version: str, outcome: str) -> None:
    psk = {"success": look_up, "refused": raise_lookup_error, "unknown": know_nobody}[outcome]

    async def try_handshake(stream: TLSStream) -> None:
        with contextlib.suppress(tls.ConnectionFailed):
            await stream.do_handshake()
            await stream.send_all(b"welcome")
            await stream.receive_some()
        await trio.aclose_forcefully(stream)

    async def live_and_die() -> list[weakref.ref[Any]]:
        streams = await tls_pair(
            handshake=False,
            client_context=client_context(version),
            server_context=client_context(version),
            client_options={"psk": offer},
            server_options={"psk": psk},
        )
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(try_handshake, stream)
        return [weakref.ref(thing) for stream in streams for thing in (stream, stream._engine)]

    gc.collect()
    gc.disable()
    try:
        left = await live_and_die()
        # Trio itself holds the last exception of a task until its next turn.
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        assert [ref() for ref in left] == [None] * len(left)
    finally:
        gc.enable()
