"""Misdeeds: what peers do to a server, before their connection is secure and after.

Each is done by one client on a connection of its own, ends it, and fails on the server with one of the codes
that stand beside it.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import trio

import trio_tlsnode as tls

from .hostile import Secrets
from .records import CIPHERS, HANDSHAKE, KEY_UPDATE

HTTP_REQUEST: Final = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
# A record of application data that nobody can decrypt.
BROKEN_RECORD: Final = b"\x17\3\3\0\x40" + bytes(64)
_UPDATE_REQUESTED: Final = bytes((KEY_UPDATE, 0, 0, 1, 1))
_MUCH: Final = bytes(1 << 18)
# More than the default limits.
_OFTEN: Final = 20

_LOST: Final = frozenset({"ECONNRESET", "EPIPE"})
_TRUNCATED: Final = frozenset({"ERR_SSL_UNEXPECTED_EOF_WHILE_READING"})

Trust = Callable[..., tls.SecureContext]
"""Makes a client's context with these options; by default it trusts the server."""

Do = Callable[[trio.abc.Stream, Trust], Awaitable[None]]


class Misdeed(NamedTuple):
    """What a peer does.

    Attributes:
        do: Does it over a transport, which is closed afterwards.
        codes: With what the server's side of the connection may fail.
        needs_socket: Whether it cannot be done over streams in memory.
    """

    do: Do
    codes: frozenset[str]
    needs_socket: bool = False

    def __str__(self) -> str:
        return self.do.__name__.replace("_", " ")


def reset(transport: trio.abc.Stream) -> None:
    """Reset a connection."""
    if isinstance(transport, trio.SocketStream):
        transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.socket.close()


async def until_the_end(transport: trio.abc.Stream) -> None:
    """Receive until the server has closed the connection."""
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while await transport.receive_some():
            pass


async def _secure(transport: trio.abc.Stream, trust: tls.SecureContext) -> tls.TLSStream:
    stream = await tls.wrap_client(transport, host="localhost", context=trust)
    # Not before the server has seen the end of the handshake, too.
    await stream.send_all(b"x")
    await stream.receive_some()
    return stream


# Before the connection is secure


async def speak_http(transport: trio.abc.Stream, _trust: Trust) -> None:
    """Send a plain request."""
    await transport.send_all(HTTP_REQUEST)
    await until_the_end(transport)


async def send_junk(transport: trio.abc.Stream, _trust: Trust) -> None:
    """Send what is nothing."""
    await transport.send_all(bytes(range(256)))
    await until_the_end(transport)


async def say_nothing_and_leave(_transport: trio.abc.Stream, _trust: Trust) -> None:
    """Connect only."""


async def leave_in_the_hello(transport: trio.abc.Stream, trust: Trust) -> None:
    """Send half a ClientHello."""
    engine = tls.Engine(trust(), host="localhost")
    engine.do_handshake()
    hello = engine.drain()
    engine.release()
    await transport.send_all(hello[: len(hello) // 2])


async def leave_after_the_hello(transport: trio.abc.Stream, trust: Trust) -> None:
    """Send a ClientHello, and wait for the answer."""
    engine = tls.Engine(trust(), host="localhost")
    engine.do_handshake()
    await transport.send_all(engine.drain())
    engine.release()
    await transport.receive_some()


async def distrust(transport: trio.abc.Stream, trust: Trust) -> None:
    """Refuse the server's certificate."""
    with contextlib.suppress(tls.TLSError):
        await tls.wrap_client(transport, host="localhost", context=trust(ca=()))


async def have_nothing_in_common(transport: trio.abc.Stream, trust: Trust) -> None:
    """Offer versions that the server does not have."""
    old = trust(ciphers="DEFAULT@SECLEVEL=0", min_version="TLSv1", max_version="TLSv1.1")
    with contextlib.suppress(tls.TLSError):
        await tls.wrap_client(transport, host="localhost", context=old)


BEFORE: Final = (
    Misdeed(speak_http, frozenset({"ERR_SSL_HTTP_REQUEST"})),
    Misdeed(send_junk, frozenset({"ERR_SSL_WRONG_VERSION_NUMBER"})),
    Misdeed(say_nothing_and_leave, _LOST),
    Misdeed(leave_in_the_hello, _LOST),
    Misdeed(leave_after_the_hello, _LOST),
    Misdeed(distrust, frozenset({"ERR_SSL_TLSV1_ALERT_UNKNOWN_CA"}) | _LOST),
    Misdeed(have_nothing_in_common, frozenset({"ERR_SSL_UNSUPPORTED_PROTOCOL"})),
)
"""Before the connection is secure: Node's ``'tlsClientError'``."""


# After the handshake


async def reset_the_connection(transport: trio.abc.Stream, trust: Trust) -> None:
    """Vanish by a reset."""
    await _secure(transport, trust())
    reset(transport)


async def leave_without_goodbye(transport: trio.abc.Stream, trust: Trust) -> None:
    """Close the transport, and say no close_notify."""
    await _secure(transport, trust())


async def break_a_record(transport: trio.abc.Stream, trust: Trust) -> None:
    """Send a record that cannot be decrypted."""
    await _secure(transport, trust())
    await transport.send_all(BROKEN_RECORD)
    await until_the_end(transport)


async def fall_back_to_http(transport: trio.abc.Stream, trust: Trust) -> None:
    """Send something that is no record."""
    await _secure(transport, trust())
    await transport.send_all(HTTP_REQUEST)
    await until_the_end(transport)


async def give_up_by_an_alert(transport: trio.abc.Stream, trust: Trust) -> None:
    """Find fault with what the server has sent."""
    stream = await _secure(transport, trust())
    stream._engine.feed(BROKEN_RECORD)
    with contextlib.suppress(tls.TLSError):
        await stream.receive_some()
    await until_the_end(transport)


async def reset_with_much_unread(transport: trio.abc.Stream, trust: Trust) -> None:
    """Send much, read nothing, and vanish by a reset."""
    stream = await _secure(transport, trust())
    with trio.move_on_after(0.01):
        while True:
            await stream.send_all(_MUCH)
    reset(transport)


async def renegotiate_without_end(transport: trio.abc.Stream, trust: Trust) -> None:
    """Renegotiate again and again."""
    stream = await _secure(transport, trust(max_version="TLSv1.2"))
    with contextlib.suppress(tls.TLSError):
        for _ in range(_OFTEN):
            await stream.renegotiate()
    await until_the_end(transport)


async def update_keys_and_break(transport: trio.abc.Stream, trust: Trust) -> None:
    """Ask for new keys, and send a record under the old ones."""
    secrets = Secrets()
    context = trust(min_version="TLSv1.3", ciphers=CIPHERS)
    stream = tls.TLSStream(transport, context, host="localhost", keylog=secrets)
    secrets.engine = stream._engine
    await stream.do_handshake()
    *_, keys = secrets.keys()
    await transport.send_all(keys.seal((HANDSHAKE, _UPDATE_REQUESTED)) * 2)
    await until_the_end(transport)


_BAD_RECORD: Final = frozenset({"ERR_SSL_DECRYPTION_FAILED_OR_BAD_RECORD_MAC"})

AFTER: Final = (
    Misdeed(reset_the_connection, _LOST, needs_socket=True),
    Misdeed(leave_without_goodbye, _TRUNCATED),
    Misdeed(break_a_record, _BAD_RECORD),
    Misdeed(fall_back_to_http, frozenset({"ERR_SSL_BAD_RECORD_TYPE"})),
    Misdeed(give_up_by_an_alert, frozenset({"ERR_SSL_SSLV3_ALERT_BAD_RECORD_MAC"})),
    Misdeed(reset_with_much_unread, _LOST, needs_socket=True),
    Misdeed(renegotiate_without_end, frozenset({"ERR_TLS_SESSION_ATTACK"})),
    Misdeed(update_keys_and_break, _BAD_RECORD),
)
"""After the handshake, when the handler is at work."""


async def commit(misdeed: Misdeed, transport: trio.abc.Stream, trust: Trust) -> None:
    """Do a misdeed; the server's answer may break it off."""
    try:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await misdeed.do(transport, trust)
    finally:
        await trio.aclose_forcefully(transport)
