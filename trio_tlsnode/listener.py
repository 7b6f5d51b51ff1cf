"""TLSListener: gives `trio.serve_listeners` streams whose handshake is done.

A handshake that fails is no failure of the listener: it goes to the log and the counters, and accepting goes
on. A `TLSServer` does more: a supervising task, a nursery for each connection, and containment of what fails
later.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, Unpack

import trio

from .context import SecureContext
from .errors import ConnectionFailed
from .negotiation import ServerPolicy
from .option_names import refuse_unknown
from .server_options import ServerOptions
from .stream import TLSStream
from .supervision import ClientErrors


class TLSListener(trio.abc.Listener[TLSStream]):
    """A listener of TLS streams over another listener.

    In ``async with``, as `trio.serve_listeners` uses it, handshakes go on side by side in a nursery of the
    listener's own, so that a slow client does not hold up the others.  Without it, `accept` does one after
    the other.

    Args:
        listener: The listener below, which becomes this one's own.
        context: The default context; it needs a certificate and its key.
        **options: As `ServerOptions` explains them.

    Attributes:
        transport_listener: The listener below.

    Raises:
        ConfigurationError: an option cannot be used.
    """

    def __init__(
        self,
        listener: trio.abc.Listener[Any],
        context: SecureContext,
        **options: Unpack[ServerOptions],
    ) -> None:
        refuse_unknown(options, ServerOptions.__annotations__.keys(), of="a server")
        self.transport_listener = listener
        self._policy = ServerPolicy(context, **options)
        self._policy.require_identity(context)
        self._failures = ClientErrors(limit=0)
        self._handshakes: Any = None
        self._secured: trio.MemoryReceiveChannel[TLSStream | Exception] | None = None

    @property
    def failed(self) -> Mapping[str, int]:
        """How many handshakes failed so far, by the code of the error."""
        return self._failures.failed

    async def accept(self) -> TLSStream:
        """Wait for the next connection whose handshake succeeds.

        Raises:
            trio.ClosedResourceError: this listener was closed, before or meanwhile.
            OSError: the listener below failed, as for `trio.SocketListener`.

        Cancelling loses no connection in ``async with``; outside, it closes the one that is handshaking.
        """
        if self._secured is not None:
            result = await self._secured.receive()
            if isinstance(result, Exception):
                raise result
            return result
        while True:
            stream = await self._secure(await self.transport_listener.accept())
            if stream is not None:
                return stream

    async def aclose(self) -> None:
        """Accept no more; the streams that were accepted live on."""
        if self._secured is not None:
            self._secured.close()
        await self.transport_listener.aclose()

    async def __aenter__(self) -> Self:
        self._handshakes = trio.open_nursery()
        nursery: trio.Nursery = await self._handshakes.__aenter__()
        secured, self._secured = trio.open_memory_channel[TLSStream | Exception](0)
        nursery.start_soon(self._accept_all, nursery, secured)
        self._cancel = nursery.cancel_scope.cancel
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._cancel()
        try:
            # No task of this nursery fails; told of the body's exception, it would come out as a group.
            await self._handshakes.__aexit__(None, None, None)
        finally:
            await self.aclose()

    async def _accept_all(
        self, nursery: trio.Nursery, secured: trio.MemorySendChannel[TLSStream | Exception]
    ) -> None:
        while True:
            try:
                transport = await self.transport_listener.accept()
            except (OSError, trio.ClosedResourceError, trio.BrokenResourceError) as error:
                try:
                    await secured.send(error)
                except trio.BrokenResourceError:
                    return
            else:
                nursery.start_soon(self._secure_and_send, transport, secured)

    async def _secure_and_send(
        self, transport: trio.abc.Stream, secured: trio.MemorySendChannel[TLSStream | Exception]
    ) -> None:
        stream = await self._secure(transport)
        if stream is None:
            return
        try:
            await secured.send(stream)
        except trio.BrokenResourceError:
            await trio.aclose_forcefully(stream)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise

    async def _secure(self, transport: trio.abc.Stream) -> TLSStream | None:
        stream = TLSStream._under(self._policy, transport)  # noqa: SLF001 - a second constructor
        try:
            await stream.do_handshake()
        except ConnectionFailed as error:
            self._failures.report(error)
            await trio.aclose_forcefully(stream)
            return None
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream
