"""request_starttls: the plaintext part of SMTP, IMAP, POP3, PostgreSQL, and servers that go astray in it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from trio_tlsnode import (
    ConfigurationError,
    ConnectionFailed,
    ConnectionLost,
    NotTLS,
    ProtocolError,
    SecureContext,
    StartTLSProtocol,
    TLSServer,
    TLSStream,
    request_starttls,
    wrap_client,
)
from trio_tlsnode.testing import default_authority

pytestmark = pytest.mark.feature("G8")

SSL_REQUEST = bytes.fromhex("0000000804d2162f")

# What each side says, the server's part in even places.
GOOD: dict[StartTLSProtocol, list[bytes]] = {
    "smtp": [
        b"220-mx.example.org ESMTP\r\n220 ready\r\n",
        b"EHLO localhost\r\n",
        b"250-mx.example.org\r\n250-PIPELINING\r\n250 starttls\r\n",
        b"STARTTLS\r\n",
        b"220 go ahead\r\n",
    ],
    "imap": [
        b"* OK [CAPABILITY IMAP4rev1 STARTTLS] ready\r\n",
        b"a STARTTLS\r\n",
        b"* CAPABILITY IMAP4rev1\r\na OK begin TLS\r\n",
    ],
    "pop3": [b"+OK ready <1@example.org>\r\n", b"STLS\r\n", b"+OK begin TLS\r\n"],
    "postgres": [b"", SSL_REQUEST, b"S"],
}


async def say(stream: trio.abc.Stream, script: list[bytes], piece: int = 1 << 16) -> None:
    """Speak the server's part of a script, and check the client's."""
    for index, line in enumerate(script):
        if index % 2:
            heard = b""
            while len(heard) < len(line):
                heard += await stream.receive_some()
            assert heard == line
        else:
            for at in range(0, len(line), piece):
                await stream.send_all(line[at : at + piece])


async def failure(
    protocol: StartTLSProtocol, script: list[bytes], then: Callable[..., Awaitable[object]] | None = None
) -> ConnectionFailed:
    client, server = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(say, server, script)
        with pytest.raises(ConnectionFailed) as caught:
            await request_starttls(client, protocol)
        nursery.cancel_scope.cancel()
    assert caught.value.phase == "hello"
    return caught.value


@pytest.mark.parametrize("piece", [1, 1 << 16])
@pytest.mark.parametrize("protocol", GOOD)
async def test_a_server_that_agrees_goes_on_with_tls(protocol: StartTLSProtocol, piece: int) -> None:
    async def greet(stream: TLSStream) -> None:
        await stream.send_all(b"secret")

    async def serve(stream: trio.abc.Stream) -> None:
        await say(stream, GOOD[protocol], piece)
        await server.handle(stream)

    server = TLSServer(greet, SecureContext(**default_authority().good("localhost").options))
    client, transport = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, transport)
        initial = await request_starttls(client, protocol)
        assert initial == b""
        stream = await wrap_client(client, initial=initial, host="localhost", ca=default_authority().ca)
        async with stream:
            assert await stream.receive_some() == b"secret"


@pytest.mark.parametrize("protocol", ["smtp", "imap", "pop3"])
async def test_what_comes_behind_the_last_line_is_handed_on_to_be_refused(protocol: StartTLSProtocol) -> None:
    client, server = memory_stream_pair()
    script = [*GOOD[protocol][:-1], GOOD[protocol][-1] + b"250 injected\r\n"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(say, server, script)
        initial = await request_starttls(client, protocol)
    assert initial == b"250 injected\r\n"
    with pytest.raises(NotTLS):
        await wrap_client(client, initial=initial)


async def test_of_postgresql_one_byte_is_read_and_no_more() -> None:
    client, server = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(say, server, [b"", SSL_REQUEST, b"Sinjected"])
        assert await request_starttls(client, "postgres") == b""
    assert await client.receive_some() == b"injected"


@pytest.mark.parametrize(
    ("protocol", "script", "reason"),
    [
        ("smtp", [b"220 hi\r\n", b"EHLO localhost\r\n", b"250 mx\r\n"], "the server does not offer STARTTLS"),
        ("smtp", [b"554 no service\r\n"], "the server refuses: 554 no service"),
        ("smtp", [*GOOD["smtp"][:-1], b"454 not now\r\n"], "the server refuses: 454 not now"),
        ("imap", [b"* BYE overloaded\r\n"], "the server refuses: * BYE overloaded"),
        ("imap", [b"* PREAUTH hello\r\n"], "the server refuses: * PREAUTH hello"),
        ("imap", [*GOOD["imap"][:-1], b"a BAD unknown\r\n"], "the server refuses: a BAD unknown"),
        ("pop3", [*GOOD["pop3"][:-1], b"-ERR no\x1b[2J\r\n"], "the server refuses: -ERR no\\x1b[2J"),
        ("postgres", [b"", SSL_REQUEST, b"N"], "the server does not offer TLS"),
    ],
)
async def test_a_server_that_refuses_is_not_tls(
    protocol: StartTLSProtocol, script: list[bytes], reason: str
) -> None:
    error = await failure(protocol, script)
    assert isinstance(error, NotTLS)
    assert (error.reason, error.code) == (reason, "ERR_TLS_STARTTLS_REFUSED")


@pytest.mark.parametrize(
    ("protocol", "script", "reason"),
    [
        ("smtp", [b"SSH-2.0-x\r\n"], "the server does not speak SMTP (an SSH banner): it said 'SSH-2.0-x'"),
        (
            "imap",
            [b"220 hi\r\n"],
            "the server does not speak IMAP (an SMTP or FTP greeting): it said '220 hi'",
        ),
        ("pop3", [b"hello\r\n"], "the server does not speak POP3: it said 'hello'"),
        ("postgres", [b"", SSL_REQUEST, b"E"], "the server does not speak PostgreSQL: it said 'E'"),
    ],
)
async def test_a_server_that_speaks_something_else_is_told_so(
    protocol: StartTLSProtocol, script: list[bytes], reason: str
) -> None:
    error = await failure(protocol, script)
    assert isinstance(error, ProtocolError)
    assert error.reason == reason


@pytest.mark.parametrize("script", [[b"2" * 100_000], [b"220-x\r\n" * 1000]])
async def test_a_greeting_without_an_end_is_not_kept_for_ever(script: list[bytes]) -> None:
    assert isinstance(await failure("smtp", script), ProtocolError)


@pytest.mark.parametrize("protocol", GOOD)
async def test_a_connection_that_ends_is_lost(protocol: StartTLSProtocol) -> None:
    client, server = memory_stream_pair()
    await server.aclose()
    with pytest.raises(ConnectionLost) as caught:
        await request_starttls(client, protocol)
    assert caught.value.phase == "hello"


async def test_another_protocol_is_refused_before_anything_is_sent() -> None:
    client, _ = memory_stream_pair()
    with pytest.raises(
        ConfigurationError, match="'ftp' cannot change to TLS here; there are smtp, imap"
    ) as caught:
        await request_starttls(client, "ftp")  # type: ignore[arg-type]
    assert caught.value.option == "starttls"


async def test_waiting_for_a_silent_server_can_be_cancelled(autojump_clock: MockClock) -> None:
    client, _server = memory_stream_pair()
    with trio.move_on_after(3) as scope:
        await request_starttls(client, "imap")
    assert scope.cancelled_caught
