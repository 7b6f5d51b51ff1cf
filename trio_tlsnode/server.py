"""TLSServer: accepts connections, gives each a nursery and a handshake, and hands them to a handler.

Nobody outside can bring it down.  What a connection's own stream fails of, before it is secure or later
through its handler, ends that connection alone and is reported to the supervising task.  What else a handler
raises is a defect of the program, and propagates as in `trio.serve_listeners`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import inspect
import logging
import math
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Unpack

import trio

from .addresses import Address
from .context import SecureContext
from .errors import CallbackError, ConfigurationTypeError, ConnectionFailed
from .html_table import html_fields
from .limits import Limit
from .listening import open_tcp_listeners, open_unix_listener
from .negotiation import ServerPolicy
from .option_names import refuse_unknown
from .option_values import check_count, check_seconds
from .server_options import ServerOptions
from .stream import TLSStream, check_initial, check_transport
from .supervision import ClientErrors
from .tcp_options import TCPOptions
from .tickets import no_ticket_keys, refuse_ticket_keys

Handler = Callable[[TLSStream], Awaitable[object]]
ConnectionCallback = Callable[[Address | None], "Awaitable[object] | object"]

# Those that `TLSServer` names itself are never among its others, but may have been meant.
_OPTIONS: Final = ServerOptions.__annotations__.keys() | {
    *("client_error_limit", "on_connection", "max_connections", "max_handshakes", "no_delay", "keep_alive"),
    "ticket_keys",
}

logger = logging.getLogger("trio_tlsnode")

# Not the listener's fault: the process or the machine has no room for one more, for now.
_OUT_OF_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
# How long to wait for room, in seconds, as trio.serve_listeners does.
_ROOM_DELAY: Final = 0.1
# Clients alone can use all room up: it is one line in so many seconds.
_ROOM_LOG_PERIOD: Final = 10.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatistics:
    """How many connections a server has and had.

    Attributes:
        open: Connections there are now, handshaking ones included; never more than ``max_connections``.
        handshaking: How many of these are not secure yet, silent ones included.
        waiting: How many of these have sent their ClientHello and wait for one of ``max_handshakes``.
        accepted: Connections there ever were.
        secure: How many of them finished the handshake.
        resumed: How many of these resumed a session.
        failed: How many failed, by the code of the error.
        dropped: How many failures found no room, as nobody fetched them.
        no_room: How often a connection could not be accepted for want of room (``EMFILE`` and the like).
    """

    open: int
    handshaking: int
    waiting: int
    accepted: int
    secure: int
    resumed: int
    failed: Mapping[str, int]
    dropped: int
    no_room: int = 0

    def _repr_html_(self) -> str:
        return html_fields(self)


class TLSServer:
    """A TLS server (Node's ``tls.createServer``).

    Each connection has a nursery of its own, `TLSStream.nursery`, entered before the handshake and cancelled
    when the handler returns.

    Args:
        handler: Async, called with each stream once its handshake is done; the stream is closed after it.
        context: The default context; it needs a certificate and its key, unless there is ``psk``.
        client_error_limit: How many failures are kept until the supervising task fetches them.
        on_connection: Called with the remote address before any TLS; raising refuses the connection.
        max_connections: How many connections there may be at once.  Beyond it, clients wait in the kernel's
            queue until one ends; where there are several listeners, each of them may have accepted one client
            that waits as well.  None is any number.
        max_handshakes: How many connections there may be between a complete ClientHello and the end of the
            handshake.  The others wait, within `handshake_timeout`; a client that says nothing is not
            counted.  None is any number.
        no_delay: Send small pieces of data at once over accepted TCP connections, instead of waiting for more
            (``TCP_NODELAY``).
        keep_alive: Probe accepted TCP connections on which nothing happens (``SO_KEEPALIVE``); a number is
            after how many seconds, rounded up, at most 32767.
        ticket_keys: The keys of session tickets (Node's ``ticketKeys``), 48 bytes; cryptography's bindings
            cannot set them.
        **options: As `ServerOptions` explains them.

    Attributes:
        handler: As given.

    Raises:
        ConfigurationError: an option cannot be used, or the context has nothing to present.
        FeatureUnavailable: there are `ticket_keys`.
    """

    def __init__(
        self,
        handler: Handler,
        context: SecureContext,
        *,
        client_error_limit: int = 1000,
        on_connection: ConnectionCallback | None = None,
        max_connections: int | None = None,
        max_handshakes: int | None = None,
        no_delay: bool = True,
        keep_alive: bool | float = False,
        ticket_keys: bytes | None = None,
        **options: Unpack[ServerOptions],
    ) -> None:
        refuse_unknown(options, _OPTIONS, of="a server")
        for option, callback in (("handler", handler), ("on_connection", on_connection)):
            if not callable(callback) and (callback is not None or option == "handler"):
                raise ConfigurationTypeError(
                    f"{option} must be callable. Received {callback!r}", option=option
                )
        self._policy = ServerPolicy(context, max_handshakes=max_handshakes, **options)
        self._policy.require_identity(context)
        if ticket_keys is not None:
            self.ticket_keys = ticket_keys
        self._places = Limit("max_connections", max_connections)
        self._tcp_options = TCPOptions(no_delay=no_delay, keep_alive=keep_alive)
        self.handler = handler
        self._on_connection = on_connection
        self._client_errors = ClientErrors(check_count("client_error_limit", client_error_limit))
        self._addresses: list[Address] = []
        self._accepting: set[trio.CancelScope] = set()
        self._connections: set[trio.CancelScope] = set()
        self._ended = trio.lowlevel.ParkingLot()
        self._closing = False
        # How many calls of serve_listeners have listeners that are open.
        self._listening = 0
        self._handshaking = 0
        self._accepted = 0
        self._secure = 0
        self._resumed = 0
        self._no_room = 0
        self._next_room_line = 0.0

    # Listening

    async def serve(
        self,
        port: int,
        host: str | bytes | None = None,
        *,
        task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept connections over TCP until the server is closed.

        Args:
            port: The port; 0 lets the kernel choose one for all addresses, and `addresses` tells.
            host: The name or address to listen on; None is all of them, IPv4 and IPv6.
            task_status: With ``nursery.start``, gets the listeners.

        Raises:
            ConnectError: the address cannot be listened on ("EADDRINUSE", "EACCES", "ENOTFOUND" ...); its
                `host` is "*" for all addresses.
            BaseExceptionGroup: a handler raised something that is not its stream's failure.

        Cancelling ends all connections at once, without grace.
        """
        listeners = await open_tcp_listeners(port, host)
        await self.serve_listeners(listeners, task_status=task_status)

    async def serve_unix(
        self,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        *,
        task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept connections over a Unix socket until the server is closed; its file is removed at the end.

        A socket file that nobody listens on is left over from a dead server, and is replaced.

        Args:
            path: Where to make the socket.
            task_status: With ``nursery.start``, gets the listeners.

        Raises:
            ConnectError: the path is taken, by a live server ("EADDRINUSE") or another file, or cannot be
                used.
            BaseExceptionGroup: as for `serve`.

        Cancelling ends all connections at once, without grace.
        """
        name = os.fspath(path)
        listener = await open_unix_listener(name)
        made = os.stat(name)
        try:
            await self.serve_listeners([listener], task_status=task_status)
        finally:
            # Another server may have taken the place meanwhile.
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(name), made):
                    os.unlink(name)

    async def serve_listeners(
        self,
        listeners: Sequence[trio.abc.Listener[Any]],
        *,
        task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept connections from listeners until the server is closed.  The listeners are closed then.

        Where the process or the machine has no room for a connection (``EMFILE`` and the like), accepting
        pauses and goes on.

        Args:
            listeners: Listeners of any kind of stream.
            task_status: With ``nursery.start``, gets the listeners.

        Raises:
            trio.ClosedResourceError: the server was closed before.
            BaseExceptionGroup: a listener failed, or a handler raised something that is not its stream's
                failure.

        Cancelling ends all connections at once, without grace.
        """
        listeners = list(listeners)
        addresses = [
            address for listener in listeners if (address := _listening_address(listener)) is not None
        ]
        async with contextlib.AsyncExitStack() as stack:
            self._listening += 1
            stack.callback(self._stopped_listening)
            for listener in listeners:
                stack.push_async_callback(trio.aclose_forcefully, listener)
            if self._closing:
                raise trio.ClosedResourceError("this server was closed")
            async with trio.open_nursery() as connections:
                self._addresses += addresses
                try:
                    with self._until_closing():
                        async with trio.open_nursery() as nursery:
                            for listener in listeners:
                                nursery.start_soon(self._accept_from, listener, connections)
                            task_status.started(listeners)
                finally:
                    self._addresses = [address for address in self._addresses if address not in addresses]
                # What waits in the kernel's queue is refused at once, while the open connections end.
                await stack.aclose()

    def _stopped_listening(self) -> None:
        self._listening -= 1
        self._ended.unpark_all()

    async def _accept_from(self, listener: trio.abc.Listener[Any], connections: trio.Nursery) -> None:
        while True:
            # Only looked at: a listener to which nobody comes must not keep a place from the others.
            async with self._places:
                pass
            try:
                stream = await listener.accept()
            except OSError as error:
                if error.errno not in _OUT_OF_ROOM:
                    raise
                self._lacks_room(error.errno)
                await trio.sleep(_ROOM_DELAY)
            else:
                await self._take_place(stream)
                if isinstance(stream, trio.SocketStream):
                    self._tcp_options.apply(stream.socket)
                connections.start_soon(self._serve, stream)

    def _lacks_room(self, number: int) -> None:
        """Count that there was no room for a connection, and say so from time to time."""
        self._no_room += 1
        now = trio.current_time()
        if now >= self._next_room_line:
            self._next_room_line = now + _ROOM_LOG_PERIOD
            logger.error(
                "accepting a connection failed (%s), %d times so far; trying again each %s seconds",
                os.strerror(number),
                self._no_room,
                _ROOM_DELAY,
            )

    async def _take_place(self, stream: trio.abc.Stream) -> None:
        """Wait until there may be one more connection; without a limit, not even a checkpoint."""
        try:
            await self._places.acquire()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise

    @contextlib.contextmanager
    def _until_closing(self) -> Iterator[trio.CancelScope]:
        """Do something that ends when the server is closed."""
        with trio.CancelScope() as scope:
            if self._closing:
                scope.cancel()
            self._accepting.add(scope)
            try:
                yield scope
            finally:
                self._accepting.discard(scope)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where the server listens now; of several families, one each."""
        return tuple(self._addresses)

    def add_context(self, pattern: str, context: SecureContext) -> None:
        """Use a context for the names that match a pattern; of those that match, the latest is taken.

        Args:
            pattern: A name; ``*`` matches within one label (``"*.example.com"``).
            context: The context for it.

        Raises:
            ConfigurationError: the pattern is empty, the context has nothing to present, or an argument has
                the wrong type.
        """
        self._policy.contexts.add(pattern, self._policy.require_identity(context))

    @property
    def secure_context(self) -> SecureContext:
        """The default context, which new connections get now."""
        return self._policy.context

    def set_secure_context(self, context: SecureContext, *, in_place_of: SecureContext | None = None) -> None:
        """Use another context for new connections; those whose ClientHello was answered keep theirs.

        Tickets that were made under the old context are honoured, if only the certificates are different.

        Args:
            context: The new one; it needs a certificate and its key, unless there is ``psk``.
            in_place_of: The context that it replaces, wherever the server uses it: as the default one, and
                for the patterns of `add_context`, which keep their order.  None is the default context; the
                contexts added by `add_context` stay then.

        Raises:
            ConfigurationError: the context has nothing to present, or is none, or the one to be replaced is
                not in use.
        """
        self._policy.replace_context(self._policy.require_identity(context), in_place_of=in_place_of)

    @property
    def ticket_keys(self) -> bytes:
        """The keys of session tickets, 48 bytes (Node's ``getTicketKeys`` and ``setTicketKeys``).

        Raises:
            FeatureUnavailable: cryptography's bindings can neither read nor set them.
            ConfigurationError: those to be set are not 48 bytes.
        """
        raise no_ticket_keys()

    @ticket_keys.setter
    def ticket_keys(self, keys: bytes) -> None:
        refuse_ticket_keys(keys)

    # One connection

    async def handle(self, stream: trio.abc.Stream, *, initial: bytes | bytearray | memoryview = b"") -> None:
        """Serve one connection over any stream, which becomes the server's own; return when it has ended.

        Failures are reported as for every connection: to the supervising task.  Where there are
        ``max_connections``, it waits until there may be one more; the time of the handshake runs from then
        on.  Of a server that is closed, or meanwhile, it closes the stream and returns.

        Args:
            stream: The transport, connected already.  Its own options (``no_delay``) stay as they are.
            initial: What was read from it behind the client's last word in plaintext: the beginning of TLS,
                as far as there is any.  Everything else is refused, as `NotTLS`.

        Raises:
            ConfigurationTypeError: an argument has the wrong type.
            BaseExceptionGroup: the handler raised something that is not its stream's failure.

        Cancelling ends the connection at once, without grace.
        """
        check_transport(stream)
        already_read = check_initial(initial)
        with self._until_closing() as scope:
            await self._take_place(stream)
        if not scope.cancelled_caught:
            await self._serve(stream, already_read)

    async def _serve(self, stream: trio.abc.Stream, initial: bytes = b"") -> None:
        """Serve a connection that has a place, and give the place back."""
        try:
            if self._closing:
                await trio.aclose_forcefully(stream)
                return
            connection = TLSStream._under(self._policy, stream, initial=initial)  # noqa: SLF001 - a second constructor
            self._accepted += 1
            with trio.CancelScope() as scope:
                self._connections.add(scope)
                try:
                    await self._contain(connection)
                finally:
                    self._connections.discard(scope)
                    if not self._connections:
                        self._ended.unpark_all()
        finally:
            self._places.release()

    async def _contain(self, stream: TLSStream) -> None:
        """Run a connection to its end; report what its own stream failed of, raise the rest."""
        failure: ConnectionFailed | None = None
        rest: BaseException | None = None
        closed = False
        try:
            await self._run(stream)
            closed = True
        except BaseExceptionGroup as group:
            own, rest = group.split(
                lambda error: isinstance(error, ConnectionFailed) and error.stream is stream
            )
            failure = None if own is None else _first(own)
            # It knows this frame, which would know it: a cycle.
            del own
        finally:
            # Closed first: who hears of a failure finds nothing left of the connection.
            try:
                if not closed:
                    await trio.aclose_forcefully(stream)
            finally:
                if failure is not None:
                    self._client_errors.report(failure)
                # Its cause may know this frame, which would know it: a cycle.
                failure = None
        if rest is not None:
            raise rest

    async def _run(self, stream: TLSStream) -> None:
        # Groups in any case: without them, a failure of the stream would not be told from a defect.
        async with trio.open_nursery(strict_exception_groups=True) as nursery:
            stream.nursery = nursery
            self._handshaking += 1
            try:
                deadline = stream.start_handshake_timer()
                if self._on_connection is not None:
                    await self._ask(self._on_connection, stream, deadline)
                await stream.do_handshake()
            finally:
                self._handshaking -= 1
            self._secure += 1
            self._resumed += stream.info.session_reused
            await self.handler(stream)
            nursery.cancel_scope.cancel()
        await stream.aclose()

    async def _ask(self, on_connection: ConnectionCallback, stream: TLSStream, deadline: float) -> None:
        try:
            with trio.CancelScope(deadline=deadline) as scope:
                result = on_connection(stream.remote_address)
                if inspect.isawaitable(result):
                    await result
        except Exception as error:
            # Whatever it is, it refuses this connection alone.
            refusal = CallbackError("on_connection refused the connection", callback="on_connection")
            raise stream.fail(refusal) from error
        if scope.cancelled_caught:
            raise stream.handshake_timed_out()

    # The supervising task, and the end

    def client_errors(self) -> ClientErrors:
        """Return what clients did wrong, as an async iterator for one supervising task.

        Each turn yields a `TLSClientErrors` of all that failed since the last turn, oldest first: what failed
        before a connection was secure (Node's ``'tlsClientError'``), and what a secure connection's own
        stream raised through its handler.  It ends when the server is closed.  Nothing is lost when the task
        is cancelled and another one takes its place.  As long as this was never called, failures are logged.
        """
        return self._client_errors.supervise()

    def statistics(self) -> ServerStatistics:
        """Return how many connections there are and were."""
        return ServerStatistics(
            open=len(self._connections),
            handshaking=self._handshaking,
            waiting=self._policy.handshakes.waiting,
            accepted=self._accepted,
            secure=self._secure,
            resumed=self._resumed,
            failed=self._client_errors.failed,
            dropped=self._client_errors.dropped,
            no_room=self._no_room,
        )

    async def aclose(self, grace: float | None = None) -> None:
        """Accept no more, wait for the open connections, then end those that are left.

        A handler that awaits this waits for itself; start it in a nursery that is not the connection's.

        Args:
            grace: How long to wait, in seconds; None is as long as it takes.

        Cancelling stops the waiting; the connections go on until their nursery is cancelled.
        """
        seconds = math.inf if grace is None else check_seconds("grace", grace)
        self._closing = True
        for scope in self._accepting:
            scope.cancel()
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(seconds):
            await self._all_ended()
        for scope in self._connections:
            scope.cancel()
        await self._all_ended()
        self._client_errors.close()

    async def _all_ended(self) -> None:
        while self._connections or self._listening:
            await self._ended.park()

    def __repr__(self) -> str:
        where = ", ".join(map(str, self._addresses)) or "nowhere"
        return f"<TLSServer on {where}, open connections: {len(self._connections)}>"


def _first(group: BaseExceptionGroup[BaseException]) -> ConnectionFailed:
    """Return the first error of a group of one stream's failures, which all have the same facts."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, ConnectionFailed)
    return error


def _listening_address(listener: trio.abc.Listener[Any]) -> Address | None:
    if not isinstance(listener, trio.SocketListener):
        # Listeners around others may tell.
        address = getattr(listener, "address", None)
        return address if isinstance(address, Address) else None
    return Address.from_sockname(listener.socket.family, listener.socket.getsockname())
