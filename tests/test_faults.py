"""A fault at every step of a connection's life: it ends that connection alone, and nothing of it is left.

A life is a handshake, a question, an answer and a goodbye; a long one has much data, another handshake and,
where there is such a thing, half a goodbye in between.  It is lived again and again, and each time its first,
second, third ... operation of the transport fails, until none is left.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import itertools
import logging
import os
import resource
import socket
import struct
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

import trio_tlsnode as tls
from trio_tlsnode._openssl.callbacks import connections
from trio_tlsnode.testing import TransportWrapper, default_authority

pytestmark = pytest.mark.feature("B6")

AUTHORITY = default_authority()
CLIENT = tls.SecureContext(ca=AUTHORITY.ca, **AUTHORITY.client("alice").options)
CLIENT_12 = tls.SecureContext(ca=AUTHORITY.ca, **AUTHORITY.client("alice").options, max_version="TLSv1.2")
SERVER = tls.SecureContext(ca=AUTHORITY.ca, **AUTHORITY.good("localhost").options)
CONTEXTS = {"TLSv1.2": CLIENT_12, "TLSv1.3": CLIENT}
TIMEOUTS: Final[Any] = {"handshake_timeout": 10, "idle_timeout": 10, "send_timeout": 10, "close_timeout": 5}
PAIRS: dict[str, Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]]] = {
    "memory": memory_stream_pair,
    "lockstep": lockstep_stream_pair,
}
# More than some lives take.
LONG = 1000.0
# More than one record, and one receive.
MUCH = bytes(40_000)
AGAIN = b"another handshake, please"
FAREWELL = b"farewell"


@pytest.fixture(params=CONTEXTS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[False, True], ids=["short", "long"])
def is_long(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


class FaultAt(TransportWrapper):
    """A transport of which one operation fails, and with it what comes after.

    Args:
        transport: The stream to wrap.
        number: Which operation it is, counted from 1.
        fault: What happens.
        scope: Whom to cancel, where that is the fault.
        when_due: Called when the fault comes.

    Attributes:
        due: Whether the fault has come.
    """

    def __init__(
        self,
        transport: trio.abc.Stream,
        number: int,
        fault: str,
        scope: trio.CancelScope,
        when_due: Callable[[], object] = bool,
    ) -> None:
        super().__init__(transport)
        self._left = number
        self._fault = fault
        self._scope = scope
        self._when_due = when_due
        self.due = False

    async def _count(self) -> None:
        self._left -= 1
        if not self._left:
            self.due = True
            self._when_due()
        if not self.due:
            return
        match self._fault:
            case "cancel":
                self._scope.cancel()
            case "stall":
                await self._closed.wait()
                raise trio.ClosedResourceError
            case "error":
                await trio.lowlevel.checkpoint()
                raise trio.BrokenResourceError from ConnectionResetError(errno.ECONNRESET, "reset")

    async def _send(self, data: bytes) -> None:
        await self._count()
        if self.due and self._fault == "end":
            raise trio.BrokenResourceError from BrokenPipeError(errno.EPIPE, "broken pipe")
        await super()._send(data)

    async def _receive(self, max_bytes: int) -> bytes:
        await self._count()
        if self.due and self._fault == "end":
            return b""
        return await super()._receive(max_bytes)

    async def aclose(self) -> None:
        try:
            if not self._closed.is_set():
                await self._count()
        finally:
            self._closed.set()
            await trio.aclose_forcefully(self.transport)


FAULTS = ("error", "end", "stall", "cancel")


async def ask(stream: tls.TLSStream, message: bytes) -> None:
    await stream.send_all(message)
    received = b""
    while len(received) < len(message):
        data = await stream.receive_some()
        if not data:
            raise tls.ConnectionLost("the server has said goodbye")
        received += data
    assert received == message


async def stay(stream: tls.TLSStream) -> None:
    """Let no time-out come."""
    while True:
        await trio.sleep(TIMEOUTS["idle_timeout"] / 2)
        await ask(stream, b"still here")


@asynccontextmanager
async def beside_a_good_connection(server: tls.TLSServer) -> AsyncIterator[None]:
    """Have a good connection before and after, and see that nothing else is left."""
    async with trio.open_nursery() as nursery:
        client_end, server_end = memory_stream_pair()
        nursery.start_soon(server.handle, server_end)
        async with await tls.wrap_client(client_end, host="localhost", context=CLIENT) as good:
            await ask(good, b"before")
            nursery.start_soon(stay, good)
            await wait_all_tasks_blocked()
            tasks = trio.lowlevel.current_statistics().tasks_living
            # Held, so that nothing of other tests goes meanwhile.
            there = list(connections.values())
            yield
            await wait_all_tasks_blocked()
            await ask(good, b"after")
            await wait_all_tasks_blocked()
            assert trio.lowlevel.current_statistics().tasks_living == tasks
            assert {*map(id, connections.values())} == {*map(id, there)}
            statistics = server.statistics()
            assert (statistics.open, statistics.handshaking, statistics.waiting) == (1, 0, 0)
            nursery.cancel_scope.cancel()


async def live(transport: trio.abc.Stream, version: str, *, is_long: bool = False) -> bool:
    """Live the life of a client; return whether all of it was lived."""
    stream = tls.TLSStream(
        transport, CONTEXTS[version], host="localhost", post_handshake_auth=is_long, **TIMEOUTS
    )
    async with stream:
        await ask(stream, b"question")
        if is_long:
            await ask(stream, MUCH)
            await ask(stream, AGAIN)
            if version == "TLSv1.3":
                await stream.send_eof()
                received = b"".join([data async for data in stream])
                if received != FAREWELL:
                    raise tls.ConnectionLost("the server has gone without a word")
    return True


class Life:
    """One connection, in which something goes wrong.

    Attributes:
        served: How often the handler was done.
        handshakes: How many handshakes there were behind the first.
        server: The server.
    """

    def __init__(self, **options: Any) -> None:
        self.served = self.handshakes = 0
        self.server = tls.TLSServer(
            self._serve,
            SERVER,
            request_cert=True,
            on_connection=self._look,
            sni_callback=self._look,
            max_handshakes=2,
            max_connections=2,
            **{**TIMEOUTS, **options},
        )

    async def _look(self, _what: object) -> None:
        await trio.lowlevel.checkpoint()

    async def _serve(self, stream: tls.TLSStream) -> None:
        tls13 = stream.info.protocol == "TLSv1.3"
        async for data in stream:
            if data == AGAIN:
                await (stream.request_client_certificate if tls13 else stream.renegotiate)()
                self.handshakes += 1
            await stream.send_all(data)
        if self.handshakes and tls13:
            await stream.send_all(FAREWELL)
        self.served += 1

    @property
    def told(self) -> list[str]:
        """The codes of the failures that were told of."""
        return [code for code, number in self.server.statistics().failed.items() for _ in range(number)]


async def each_operation(attempt: Callable[[int], Awaitable[bool]]) -> None:
    """Try with 1, 2, 3 ... until there is no such operation any more."""
    for number in itertools.count(1):
        with trio.fail_after(LONG):
            if not await attempt(number):
                break
    # At the least, a hello, an answer, some data, and closing.
    assert number > 5


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_of_a_servers_transport_ends_its_connection_alone(
    autojump_clock: MockClock, version: str, is_long: bool, kind: str, fault: str
) -> None:
    async def attempt(number: int) -> bool:
        life = Life()
        async with beside_a_good_connection(life.server):
            client_end, server_end = PAIRS[kind]()
            scope = trio.CancelScope()
            was_served = False

            def note() -> None:
                nonlocal was_served
                was_served = bool(life.served)

            faulty = FaultAt(server_end, number, fault, scope, note)

            async def serve() -> None:
                with scope:
                    await life.server.handle(faulty)

            was_lived = False

            async def be_a_client() -> None:
                nonlocal was_lived
                with contextlib.suppress(tls.TLSError):
                    was_lived = await live(client_end, version, is_long=is_long)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve)
                nursery.start_soon(be_a_client)
            if not faulty.due or fault == "cancel" or was_served:
                assert life.told == []
            else:
                assert len(life.told) == 1
            if not faulty.due:
                assert was_lived
                assert life.handshakes == is_long
        return faulty.due

    await each_operation(attempt)


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_of_a_clients_transport_is_its_own_and_ends_the_servers_connection_alone(
    autojump_clock: MockClock, version: str, is_long: bool, kind: str, fault: str
) -> None:
    async def attempt(number: int) -> bool:
        life = Life()
        async with beside_a_good_connection(life.server):
            client_end, server_end = PAIRS[kind]()
            failure: list[tls.TLSError] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(life.server.handle, server_end)
                with trio.CancelScope() as scope:
                    faulty = FaultAt(client_end, number, fault, scope)
                    try:
                        await live(faulty, version, is_long=is_long)
                    except tls.TLSError as error:
                        failure.append(error)
                await trio.aclose_forcefully(faulty)
            assert len(life.told) <= 1
            assert not (failure and fault == "cancel")
            assert all(isinstance(error, tls.ConnectionFailed) and error.retryable for error in failure)
        return faulty.due

    await each_operation(attempt)


async def test_a_transport_that_fails_to_close_is_closed_all_the_same(autojump_clock: MockClock) -> None:
    class Graceless(TransportWrapper):
        async def aclose(self) -> None:
            await trio.aclose_forcefully(self.transport)
            raise trio.BrokenResourceError("closed without grace")

    life = Life()
    async with beside_a_good_connection(life.server):
        client_end, server_end = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(life.server.handle, Graceless(server_end))
            await live(Graceless(client_end), "TLSv1.3")
        assert life.told == []
        # Before the connection is secure, too.
        client_end, server_end = memory_stream_pair()
        await client_end.send_all(b"GET / HTTP/1.1\r\n\r\n")
        await life.server.handle(Graceless(server_end))
        assert life.told == ["ERR_SSL_HTTP_REQUEST"]


# Over sockets, what goes wrong is the peer


class ActAtStep(trio.abc.Instrument):
    """Does something just before the n-th step of a task.

    Attributes:
        steps_left: How many steps until then.
    """

    def __init__(self, task: trio.lowlevel.Task, number: int, act: Callable[[], object]) -> None:
        self._task = task
        self._act = act
        self.steps_left = number

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self.steps_left -= 1
            if self.steps_left == 0:
                self._act()


def reset(sock: trio.socket.SocketType) -> None:
    if sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()


def open_files() -> int:
    """How many file descriptors are open, where that can be told."""
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def end(sock: trio.socket.SocketType) -> None:
    if sock.fileno() >= 0:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(sock._sock, socket.SHUT_WR)  # type: ignore[attr-defined]


@pytest.mark.parametrize("act", [reset, end], ids=["reset", "end"])
async def test_a_peer_that_is_gone_at_any_step_ends_its_connection_alone(
    autojump_clock: MockClock, version: str, is_long: bool, act: Callable[[Any], None]
) -> None:
    # The kernel may take a moment to deliver what was sent.
    autojump_clock.autojump_threshold = 0.02
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def attempt(number: int) -> bool:
        life = Life()
        async with beside_a_good_connection(life.server):
            client_end = await trio.testing.open_stream_to_socket_listener(listener)
            server_end = await listener.accept()
            steps: list[ActAtStep] = []

            async def serve() -> None:
                instrument = ActAtStep(trio.lowlevel.current_task(), number, partial(act, client_end.socket))
                steps.append(instrument)
                trio.lowlevel.add_instrument(instrument)
                try:
                    await life.server.handle(server_end)
                finally:
                    trio.lowlevel.remove_instrument(instrument)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve)
                with contextlib.suppress(tls.TLSError, trio.ClosedResourceError, OSError):
                    await live(client_end, version, is_long=is_long)
            assert len(life.told) <= 1
            assert life.served + len(life.told) == 1
        return steps[0].steps_left <= 0

    async with listener:
        await attempt(1)
        files = open_files()
        await each_operation(attempt)
        assert open_files() == files


# Nothing is left, without the garbage collector


# What was cancelled, be it by a time-out, may leave a cycle of Trio's own frames.
@pytest.mark.parametrize("fault", ["error", "end"])
async def test_what_a_fault_leaves_behind_needs_no_garbage_collector(
    autojump_clock: MockClock, version: str, fault: str
) -> None:
    seen: list[weakref.ref[object]] = []

    class Seen(FaultAt):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            seen.append(weakref.ref(self))

    async def attempt(number: int) -> bool:
        life = Life()
        # What is kept of a failure has the stream, and that has its transport.
        life.server._client_errors._limit = 0
        client_end, server_end = memory_stream_pair()
        scope = trio.CancelScope()
        due = False

        async def serve() -> None:
            nonlocal due
            with scope:
                faulty = Seen(server_end, number, fault, scope)
                await life.server.handle(faulty)
            due = faulty.due

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            with contextlib.suppress(tls.TLSError):
                await live(client_end, version)
        return due

    gc.collect()
    gc.disable()
    try:
        await each_operation(attempt)
        if sys.version_info >= (3, 12):
            # A traceback keeps the frames of those who called: of Trio's tasks too.
            gc.collect()
        assert [reference() for reference in seen] == [None] * len(seen)
    finally:
        gc.enable()


# No room


@pytest.mark.feature("B2")
async def test_a_process_without_file_descriptors_serves_those_it_has_and_goes_on_later(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    life = Life(idle_timeout=None)
    _, hard = limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(life.server.serve, 0, "127.0.0.1")
        good = await tls.wrap_client(
            await trio.testing.open_stream_to_socket_listener(listener), host="localhost", context=CLIENT
        )
        late = socket.socket()
        holes = [os.dup(0)]
        while holes[-1] < late.fileno():
            holes.append(os.dup(0))
        # Where the last one is, there is no hole below it.
        resource.setrlimit(resource.RLIMIT_NOFILE, (holes[-1] + 1, hard))
        try:
            late.connect(listener.socket.getsockname())
            for _ in range(250):
                await wait_all_tasks_blocked()
                mock_clock.jump(0.1)
            await ask(good, b"still there?")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for hole in holes:
                os.close(hole)
        assert life.server.statistics().no_room >= 250
        late.setblocking(False)
        nursery.start_soon(good.aclose)
        with trio.fail_after(5):
            mock_clock.rate = 1
            stream = await tls.wrap_client(
                trio.SocketStream(trio.socket.from_stdlib_socket(late)), host="localhost", context=CLIENT
            )
            await ask(stream, b"at last")
        await stream.aclose()
        await life.server.aclose()
    # In 25 seconds: one line at once, and one for each ten seconds.
    lines = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(lines) == 3
    assert all(os.strerror(errno.EMFILE) in record.getMessage() and not record.exc_info for record in lines)
