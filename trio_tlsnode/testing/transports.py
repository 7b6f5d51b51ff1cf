"""Transports with a fault: wrappers around any stream, each named for what it does.

A wrapper stands where the real transport would, under a `TLSStream` or in `TLSServer.handle`.  It keeps the
rules of `trio.abc.HalfCloseableStream` and passes everything on until its fault is due, so wrappers can be
nested.  What it does to received bytes is seen by the side that holds it; for what that side sends, wrap the
other one.  A number that makes no sense is a ValueError.
"""

from __future__ import annotations

import contextlib
import errno
import operator
import os
import sys
from collections.abc import Iterator
from typing import Literal, NoReturn, TypeVar

import trio

Number = TypeVar("Number", int, float)

_CHUNK = 65536  # what trio's socket streams receive at most where no limit is given


class TransportWrapper(trio.abc.HalfCloseableStream):
    """A stream that passes everything on to another: the base of those with a fault.

    A subclass overrides `_send` or `_receive`; at any time one task at most is in each of them.

    Args:
        transport: The stream to wrap.  It is closed together with the wrapper.

    Attributes:
        transport: The wrapped stream.
    """

    def __init__(self, transport: trio.abc.Stream) -> None:
        self.transport = transport
        self._closed = trio.Event()
        self._busy: set[str] = set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send through the wrapped stream.

        Args:
            data: What to send.
        """
        with self._only_task("send"):
            await self._send(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the wrapped stream might take data at once."""
        with self._only_task("send"):
            await self._wait_for_room()

    async def send_eof(self) -> None:
        """Close the sending side of the wrapped stream.

        Raises:
            TypeError: the wrapped stream has no such method.
        """
        if not isinstance(self.transport, trio.abc.HalfCloseableStream):
            raise TypeError(f"{type(self.transport).__name__} cannot be closed one way")
        with self._only_task("send"):
            await self.transport.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive from the wrapped stream.

        Args:
            max_bytes: Upper limit, at least 1; None for 64 KiB.

        Returns:
            What has arrived, or ``b""`` at the end.
        """
        limit = _CHUNK if max_bytes is None else operator.index(max_bytes)
        if limit < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._only_task("receive"):
            return await self._receive(limit)

    async def aclose(self) -> None:
        """Close the wrapped stream.  A call that a fault holds back ends with trio.ClosedResourceError."""
        self._closed.set()
        await self.transport.aclose()

    async def _send(self, data: bytes) -> None:
        await self.transport.send_all(data)

    async def _wait_for_room(self) -> None:
        await self.transport.wait_send_all_might_not_block()

    async def _receive(self, max_bytes: int) -> bytes:
        return bytes(await self.transport.receive_some(max_bytes))

    @contextlib.contextmanager
    def _only_task(self, direction: Literal["send", "receive"]) -> Iterator[None]:
        # The wrapped stream sees to this as well, but not where a fault keeps the call from it.
        if self._closed.is_set():
            raise trio.ClosedResourceError("this stream was closed")
        if direction in self._busy:
            raise trio.BusyResourceError(f"another task is using this stream to {direction}")
        self._busy.add(direction)
        try:
            yield
        finally:
            self._busy.remove(direction)


class StallingStream(TransportWrapper):
    """A transport on which, after some bytes, sending or receiving takes for ever.

    A peer that stops reading looks so to a sender whose kernel buffers are full, a silent peer to a receiver.

    Args:
        transport: The stream to wrap.
        send_after: How many bytes still go out; by default all.  The send that exceeds them passes on what
            fits, and waits.
        receive_after: How many bytes still come in; by default all.
    """

    def __init__(
        self, transport: trio.abc.Stream, *, send_after: int = sys.maxsize, receive_after: int = sys.maxsize
    ) -> None:
        super().__init__(transport)
        self._send_room = _at_least(0, send_after, "send_after")
        self._receive_room = _at_least(0, receive_after, "receive_after")
        self._released = trio.Event()

    def release(self) -> None:
        """Let everything pass from now on, what waits first."""
        self._send_room = self._receive_room = sys.maxsize
        self._released.set()

    async def aclose(self) -> None:
        """Close the wrapped stream; what waits ends with trio.ClosedResourceError."""
        self.release()
        await super().aclose()

    async def _send(self, data: bytes) -> None:
        at_once, later = data[: self._send_room], data[self._send_room :]
        self._send_room -= len(at_once)
        await self.transport.send_all(at_once)
        if later:
            await self._released.wait()
            await self.transport.send_all(later)

    async def _wait_for_room(self) -> None:
        if not self._send_room:
            await self._released.wait()
        await super()._wait_for_room()

    async def _receive(self, max_bytes: int) -> bytes:
        if not self._receive_room:
            await self._released.wait()
        data = await super()._receive(min(max_bytes, self._receive_room))
        self._receive_room -= len(data)
        return data


class TruncatingStream(TransportWrapper):
    """A transport that ends after some received bytes, as if the peer had closed it there.

    Args:
        transport: The stream to wrap.
        after: How many bytes come in before the end.
    """

    def __init__(self, transport: trio.abc.Stream, *, after: int) -> None:
        super().__init__(transport)
        self._left = _at_least(0, after, "after")

    async def _receive(self, max_bytes: int) -> bytes:
        if not self._left:
            await trio.lowlevel.checkpoint()
            return b""
        data = await super()._receive(min(max_bytes, self._left))
        self._left -= len(data)
        return data


class GarblingStream(TransportWrapper):
    """A transport that changes one received byte.

    Args:
        transport: The stream to wrap.
        position: Which byte, counted from 0, the first one received.
        mask: The bits of it to flip, 1 to 255.
    """

    def __init__(self, transport: trio.abc.Stream, *, position: int, mask: int = 1) -> None:
        if not 1 <= mask <= 255:
            raise ValueError(f"mask must be from 1 to 255, not {mask}")
        super().__init__(transport)
        self._distance = _at_least(0, position, "position")
        self._mask = mask

    async def _receive(self, max_bytes: int) -> bytes:
        data = bytearray(await super()._receive(max_bytes))
        if 0 <= self._distance < len(data):
            data[self._distance] ^= self._mask
        self._distance -= len(data)
        return bytes(data)


class OneByteStream(TransportWrapper):
    """A transport that delivers one byte at a time."""

    async def _receive(self, max_bytes: int) -> bytes:
        return await super()._receive(min(max_bytes, 1))


class DelayingStream(TransportWrapper):
    """A transport on which each send and each receive takes some time longer, on trio's clock.

    Args:
        transport: The stream to wrap.
        delay: How long, in seconds.
    """

    def __init__(self, transport: trio.abc.Stream, *, delay: float) -> None:
        super().__init__(transport)
        self._delay = _at_least(0, delay, "delay")

    async def _send(self, data: bytes) -> None:
        await self._pause()
        await super()._send(data)

    async def _receive(self, max_bytes: int) -> bytes:
        await self._pause()
        return await super()._receive(max_bytes)

    async def _pause(self) -> None:
        with trio.move_on_after(self._delay):
            await self._closed.wait()


class FailingStream(TransportWrapper):
    """A transport that breaks: from some call on, sending or receiving raises.

    Args:
        transport: The stream to wrap.
        send: Which `send_all` is the first to fail, counted from 1; by default none is.
        receive: Which `receive_some` is the first to fail, counted from 1; by default none is.
        error: What to raise; by default what trio's socket streams raise after a reset by the peer, a
            trio.BrokenResourceError caused by a ConnectionResetError.
    """

    def __init__(
        self,
        transport: trio.abc.Stream,
        *,
        send: int = sys.maxsize,
        receive: int = sys.maxsize,
        error: Exception | None = None,
    ) -> None:
        super().__init__(transport)
        self._sends_left = _at_least(1, send, "send") - 1
        self._receives_left = _at_least(1, receive, "receive") - 1
        self._error = _connection_reset() if error is None else error

    async def _send(self, data: bytes) -> None:
        if not self._sends_left:
            await self._fail()
        self._sends_left -= 1
        await super()._send(data)

    async def _receive(self, max_bytes: int) -> bytes:
        if not self._receives_left:
            await self._fail()
        self._receives_left -= 1
        return await super()._receive(max_bytes)

    async def _fail(self) -> NoReturn:
        await trio.lowlevel.checkpoint()
        raise self._error


class RecordingStream(TransportWrapper):
    """A transport that writes down what passes, both ways.

    Attributes:
        record: What passed, in order: "sent" and the data of each `send_all`, noted when it is called, and
            "received" and the data of each `receive_some`, ``b""`` at the end.
    """

    def __init__(self, transport: trio.abc.Stream) -> None:
        super().__init__(transport)
        self.record: list[tuple[Literal["sent", "received"], bytes]] = []

    @property
    def sent(self) -> bytes:
        """Everything that was sent."""
        return b"".join(data for direction, data in self.record if direction == "sent")

    @property
    def received(self) -> bytes:
        """Everything that was received."""
        return b"".join(data for direction, data in self.record if direction == "received")

    async def _send(self, data: bytes) -> None:
        self.record.append(("sent", data))
        await super()._send(data)

    async def _receive(self, max_bytes: int) -> bytes:
        data = await super()._receive(max_bytes)
        self.record.append(("received", data))
        return data


def _at_least(minimum: int, number: Number, name: str) -> Number:
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, not {number}")
    return number


def _connection_reset() -> trio.BrokenResourceError:
    reset = ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
    error = trio.BrokenResourceError(f"socket connection broken: {reset}")
    error.__cause__ = reset
    return error
