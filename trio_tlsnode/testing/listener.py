"""MemoryListener: a listener without sockets, for servers that run in memory."""

from __future__ import annotations

import contextlib
import errno
import math
import os

import trio
import trio.testing

MemoryStream = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]


class MemoryListener(trio.abc.Listener[MemoryStream]):
    """A listener whose connections are pairs of memory streams.

    Give it to `TLSServer.serve_listeners` or `trio.serve_listeners`, and `connect` to it.  As with sockets, a
    connection waits in a queue until it is accepted.
    """

    def __init__(self) -> None:
        self._arrivals, self._queue = trio.open_memory_channel[MemoryStream | Exception](math.inf)
        self._accepting = False

    async def connect(self) -> MemoryStream:
        """Connect to the listener.

        Returns:
            The client's end of the connection.

        Raises:
            ConnectionRefusedError: the listener is closed.
        """
        await trio.lowlevel.checkpoint()
        client, server = trio.testing.memory_stream_pair()
        try:
            self._arrivals.send_nowait(server)
        except trio.BrokenResourceError:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)) from None
        return client

    def fail(self, error: Exception) -> None:
        """Make one call of `accept` fail, after those that return the connections already in the queue.

        Args:
            error: What it raises, say ``OSError(errno.EMFILE, "Too many open files")``.

        Raises:
            trio.BrokenResourceError: the listener is closed.
        """
        self._arrivals.send_nowait(error)

    async def accept(self) -> MemoryStream:
        """Accept the next connection.

        Returns:
            The server's end of the connection.

        Raises:
            trio.BusyResourceError: another task is accepting.
            trio.ClosedResourceError: the listener was closed, before or during the call.
            Exception: what `fail` was given.

        Cancelling is safe: the connection stays in the queue.
        """
        if self._accepting:
            raise trio.BusyResourceError("another task is accepting from this listener")
        self._accepting = True
        try:
            arrival = await self._queue.receive()
        finally:
            self._accepting = False
        if isinstance(arrival, Exception):
            raise arrival
        return arrival

    async def aclose(self) -> None:
        """Close the listener, and the connections that were not accepted."""
        with contextlib.suppress(trio.WouldBlock, trio.ClosedResourceError):
            while True:
                arrival = self._queue.receive_nowait()
                if not isinstance(arrival, Exception):
                    arrival.send_stream.close()
                    arrival.receive_stream.close()
        self._queue.close()
        await trio.lowlevel.checkpoint()
