"""TLSStream: TLS over any Trio stream.

Every operation is the same loop: let the engine do what it can, send what it has to say, then return, raise,
or wait for the peer.  What it has to say goes out after an error too, so that the alert leaves before the
exception rises.  Nothing is awaited while the engine, or the thread's buffers, hold something half done.

Several tasks may be in that loop at once: one that receives, one that sends, some that wait for the
handshake.  They share three turns, for each of which there is one task at a time: to handshake, to wait for
input, and to send.  The others wait until the turn is over and look again, since what they wanted may be done
by then.

A connection fails once.  The first failure is kept, and every later call fails with the same facts.  Losing
the way out (a transport that takes no more, a send that was cancelled half-way) fails the sending side alone:
what the peer said before, its alert above all, can still be read.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, Unpack, overload

import trio

from ._links import link_for
from ._openssl.buffers import MAX_PLAINTEXT_RECORD, OUTGOING_SIZE, PLAINTEXT_SIZE
from .channel_binding import ChannelBinding, channel_binding
from .client_hello import looks_like
from .client_options import ClientStreamOptions, client_parts
from .context import SecureContext
from .engine import Engine
from .errors import (
    CertificateError,
    ConfigurationTypeError,
    ConnectionFailed,
    ConnectionLost,
    HandshakeTimeout,
    IdleTimeout,
    NotTLS,
    SendTimeout,
    TruncationError,
)
from .info import StreamStatistics
from .option_names import refuse_unknown
from .option_values import check_flag
from .record_layer import Want
from .session_iterator import SessionIterator
from .sessions import Session
from .timeouts import Timeouts
from .turnstile import turnstile

if TYPE_CHECKING:
    from .addresses import Address
    from .client_hello import ClientHello
    from .info import ConnectionInfo
    from .negotiation import ServerPolicy
    from .peer_sessions import PeerSessions
    from .server_options import ServerOptions
    from .trace import HandshakeTrace

T = TypeVar("T")

_WANT_READ: Final = Want.READ
_WANT_ROOM: Final = Want.ROOM
# How TLS begins that ends before it began: OpenSSL says what the alert means.
_ALERT: Final = b"\x15"
# RFC 6066 and Node allow no smaller ones.
_SMALLEST_FRAGMENT: Final = 512
# One send's ciphertext, and as much of answers to the peer: beyond it, a peer that does not read is not read
# from either.
_MOST_UNSENT: Final = 2 * OUTGOING_SIZE


class _Exclusive:
    """Something that only one task may do; a second one is a mistake of the program."""

    __slots__ = ("_what", "taken")

    def __init__(self, what: str) -> None:
        self._what = what
        self.taken = False

    def __enter__(self) -> None:
        if self.taken:
            raise trio.BusyResourceError(f"another task is {self._what} this stream")
        self.taken = True

    def __exit__(self, *_exc: object) -> None:
        self.taken = False


class _Turn:
    """Something that one task does at a time; the others wait until it is over, and look again."""

    __slots__ = ("_waiting", "taken")

    def __init__(self) -> None:
        self.taken = False
        self._waiting: trio.lowlevel.ParkingLot | None = None

    def __enter__(self) -> None:
        assert not self.taken
        self.taken = True

    def __exit__(self, *_exc: object) -> None:
        self.taken = False
        if self._waiting is not None:
            self._waiting.unpark_all()

    async def over(self) -> None:
        if self._waiting is None:
            self._waiting = trio.lowlevel.ParkingLot()
        await self._waiting.park()


class TLSStream(trio.abc.HalfCloseableStream):
    """TLS over any Trio stream (Node's ``tls.TLSSocket``).

    `connect`, `wrap_client` and a `TLSServer`'s handler give streams whose handshake is done.  One made by
    hand does its handshake in `do_handshake`, or before the first data.  The stream owns its transport: it is
    closed by `aclose`, and by whoever gave up on the handshake.

    Args:
        transport: The stream below, which becomes this one's own.
        context: What the connection is made from.
        server_side: Which role to take.
        host: Client: the name or IP address that was connected to.
        **options: Server: those of `ServerOptions`.  Client: those of `ClientStreamOptions`.

    Attributes:
        transport_stream: The stream below.
        nursery: Under a `TLSServer`: the connection's own nursery, cancelled when the handler returns.

    Raises:
        ConfigurationError: an option cannot be used.
    """

    @overload
    def __init__(
        self,
        transport: trio.abc.Stream,
        context: SecureContext,
        *,
        server_side: Literal[False] = False,
        host: str | None = None,
        **options: Unpack[ClientStreamOptions],
    ) -> None: ...

    @overload
    def __init__(
        self,
        transport: trio.abc.Stream,
        context: SecureContext,
        *,
        server_side: Literal[True],
        **options: Unpack[ServerOptions],
    ) -> None: ...

    @overload
    def __init__(
        self, transport: trio.abc.Stream, context: SecureContext, *, server_side: bool, **options: Any
    ) -> None: ...

    def __init__(
        self,
        transport: trio.abc.Stream,
        context: SecureContext,
        *,
        server_side: bool = False,
        host: str | None = None,
        **options: Any,
    ) -> None:
        if check_flag("server_side", server_side):
            # A process that has clients alone need not load what servers decide by.
            from .negotiation import policy_of_stream

            self._set_up_server(transport, policy_of_stream(context, options))
        else:
            refuse_unknown(options, ClientStreamOptions.__annotations__.keys(), of="a client's stream")
            self._set_up(transport, *client_parts(context, host, options))

    @classmethod
    def _of_client(
        cls,
        transport: trio.abc.Stream,
        engine: Engine,
        timeouts: Timeouts,
        confirm: bool,
        sessions: PeerSessions | None,
        *,
        initial: bytes,
    ) -> TLSStream:
        """Return a client's stream whose engine is made already, as `client_parts` does."""
        stream = cls.__new__(cls)
        stream._set_up(transport, engine, timeouts, confirm)  # noqa: SLF001 - its own
        stream._peer_sessions = sessions  # noqa: SLF001 - its own
        stream._begin_with(initial)  # noqa: SLF001 - its own
        return stream

    @classmethod
    def _under(cls, policy: ServerPolicy, transport: trio.abc.Stream, *, initial: bytes = b"") -> TLSStream:
        """Return a server's stream."""
        stream = cls.__new__(cls)
        stream._set_up_server(transport, policy)  # noqa: SLF001 - its own
        stream._begin_with(initial)  # noqa: SLF001 - its own
        return stream

    def _set_up_server(self, transport: trio.abc.Stream, policy: ServerPolicy) -> None:
        self._set_up(transport, policy.new_engine(), policy.timeouts, policy=policy)

    def _set_up(
        self,
        transport: trio.abc.Stream,
        engine: Engine,
        timeouts: Timeouts,
        confirm: bool = False,
        policy: ServerPolicy | None = None,
    ) -> None:
        self.transport_stream = check_transport(transport)
        self.nursery: trio.Nursery | None = None
        self._engine = engine
        engine.stream = self
        self._policy = policy
        self._confirm = confirm
        if confirm:
            engine.watch_tickets()
        self._link = link_for(transport)
        self._timeouts = timeouts
        self._handshake_deadline = math.inf
        self._handshaking = _Turn()
        self._filling = _Turn()
        self._sending_out = _Turn()
        # Who waits until what was decrypted for a receiver is received.
        self._wanting_room: trio.lowlevel.ParkingLot | None = None
        # How often input has come: who looked at the engine before the last one looks again.
        self._fills = 0
        # Whether the handshake is done, and its last message sent.
        self._secure = False
        # Ciphertext that the transport did not take at once; it goes before everything else.
        self._unsent = b""
        # How much the transport has taken so far, in bytes.
        self._taken = 0
        self._failure: ConnectionFailed | None = None
        self._send_failure: ConnectionFailed | None = None
        self._receiving = _Exclusive("receiving on")
        self._renegotiating = _Exclusive("renegotiating on")
        # When something has passed last, if there is an idle time-out.
        self._last_activity = 0.0
        self._sending = _Exclusive("sending on")
        self._session_iterators: list[SessionIterator] = []
        self._peer_sessions: PeerSessions | None = None
        # Whether a task is in the middle of some data.
        self._sending_data = False
        self._closed = False

    def _begin_with(self, initial: bytes) -> None:
        """Take what was read from the transport before it was ours; fail if it is no TLS.

        Whoever can write to the connection can put commands or answers behind the last one in plaintext, and
        they must not pass for what came over TLS (CVE-2011-0411, CVE-2021-23222).
        """
        if not initial:
            return
        self._engine.feed(initial)
        what = looks_like(initial)
        if what is not None and initial[:1] != _ALERT:
            self.fail(
                NotTLS(
                    f"the peer sent {what} where TLS was to begin",
                    code=NotTLS.code,
                    looks_like=what,
                    first_bytes=initial[:32],
                )
            )

    # What is known of the connection

    @property
    def info(self) -> ConnectionInfo:
        """What was negotiated; readable for ever once the handshake is done.

        Raises:
            trio.NeedHandshakeError: it is not done yet, or has failed.
        """
        if self._engine.info is None:
            raise trio.NeedHandshakeError("the handshake is not done")
        return self._engine.info

    @property
    def authorized(self) -> bool:
        """Whether the peer is verified; `info.authorized`."""
        return self.info.authorized

    @property
    def authorization_error(self) -> CertificateError | None:
        """Why the peer should not be trusted, if it was not refused; `info.authorization_error`."""
        return self.info.authorization_error

    @property
    def alpn_protocol(self) -> str | None:
        """The application protocol, or None; `info.alpn_protocol`."""
        return self.info.alpn_protocol

    @property
    def server_name(self) -> str | None:
        """The name that the client sent as SNI, or None; `info.server_name`."""
        return self.info.server_name

    @property
    def client_hello(self) -> ClientHello | None:
        """Server: the client's first message, as soon as it has arrived whole."""
        return self._engine.client_hello

    @property
    def encrypted(self) -> bool:
        """True: this is TLS (Node's way to tell it from a plain socket)."""
        return True

    @property
    def local_address(self) -> Address | None:
        """Where we are, if the transport can tell; before the handshake and after closing too."""
        return self._link.local_address

    @property
    def remote_address(self) -> Address | None:
        """Where the peer is, if the transport can tell; before the handshake and after closing too."""
        return self._link.remote_address

    @property
    def session(self) -> bytes | None:
        """The newest session that can be resumed, for ``connect(session=...)``, or None.

        It is secret: whoever has it can read what is resumed with it.  In TLS 1.3 a client has none before
        the server's first ticket has been read.  A server's is only good to be looked at.  None once the
        stream is closed, or has failed by a fatal alert.
        """
        return self._engine.session

    @property
    def tls_ticket(self) -> bytes | None:
        """The ticket of `session`, as it travels; None on servers, and where sessions have none."""
        session = None if self._engine.server_side else self._engine.session
        return None if session is None else Session.parse(session).ticket

    def sessions(self) -> SessionIterator:
        """Return an async iterator over the sessions that can be resumed later, for one task.

        The first is `session`, if there is one by now.  Further ones come when a ticket is read: somebody has
        to receive on this stream.  It ends when the stream is closed.  At most 16 that nobody has fetched are
        kept, the newest.

        Raises:
            ValueError: this is a server's stream.
        """
        if self._engine.server_side:
            raise ValueError("a server has no sessions to resume")
        iterator = SessionIterator(self._engine.session)
        if self._closed:
            iterator.close()
        else:
            self._engine.tell_sessions(iterator.add)
            self._session_iterators.append(iterator)
        return iterator

    @property
    def early_data(self) -> bytes:
        """Server: what the client has sent before its handshake was done; it is no part of what is received.

        A handler that sees it knows that the handshake is done, and so that this client has sent it, now.
        """
        return bytes(self._engine.early_data)

    @property
    def trace(self) -> HandshakeTrace | None:
        """What is told of the connection's messages, if ``trace=`` was given."""
        return self._engine.trace

    @property
    def finished(self) -> bytes | None:
        """Our latest Finished message (``SSL_get_finished``), or None before it is sent and after closing."""
        return self._engine.finished(of_peer=False)

    @property
    def peer_finished(self) -> bytes | None:
        """The peer's latest Finished message (``SSL_get_peer_finished``), or None likewise."""
        return self._engine.finished(of_peer=True)

    def export_keying_material(self, length: int, label: str, context: bytes | None = None) -> bytes:
        """Return keying material that both sides can derive (RFC 5705; RFC 8446, section 7.5).

        Args:
            length: How much, in bytes.
            label: What tells it from other material; RFC 5705 has a registry of them.
            context: What else it depends on; None is not the same as ``b""`` up to TLS 1.2.

        Raises:
            trio.NeedHandshakeError: the handshake is not done, or another one is changing the keys.
            trio.ClosedResourceError: this stream was closed.
            ValueError: `length` is not from 1 to 65535, `label` is empty, or OpenSSL refuses one of them.
        """
        self._check_open()
        return self._engine.export_keying_material(length, label, context)

    def channel_binding(self, kind: ChannelBinding = "tls-exporter") -> bytes:
        """Return what binds an authentication inside this connection to it.

        Args:
            kind: "tls-exporter" (RFC 9266; up to TLS 1.2 only after `disable_renegotiation`), "tls-unique"
                (RFC 5929; up to TLS 1.2 only) or "tls-server-end-point" (RFC 5929; not on a server that has
                several certificates and resumes a session).

        Raises:
            trio.NeedHandshakeError: the handshake is not done, or another one is changing the keys.
            trio.ClosedResourceError: this stream was closed.
            ValueError: there is no such kind, or this connection does not have it.
        """
        self._check_open()
        return channel_binding(self._engine, kind)

    def set_max_send_fragment(self, size: int) -> None:
        """Send records of at most this size from now on (Node's ``setMaxSendFragment``).

        Small records reach the peer's application sooner, as it needs a whole one to decrypt it; each costs
        some 22 to 29 bytes and some time, so that large data is slower.

        Args:
            size: The most plaintext in a record, in bytes, 512 to 16384.

        Raises:
            ValueError: it is something else.
        """
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(f"size must be an int. Received {size!r}")
        if not _SMALLEST_FRAGMENT <= size <= MAX_PLAINTEXT_RECORD:
            raise ValueError(
                f"size must be {_SMALLEST_FRAGMENT} to {MAX_PLAINTEXT_RECORD} bytes. Received {size}"
            )
        self._engine.max_send_fragment = size

    def statistics(self) -> StreamStatistics:
        """Return how many bytes have passed so far."""
        engine = self._engine
        return StreamStatistics(
            plaintext_sent=engine.plaintext_sent,
            plaintext_received=engine.plaintext_received,
            ciphertext_sent=engine.ciphertext_sent,
            ciphertext_received=engine.ciphertext_received,
        )

    def __repr__(self) -> str:
        role = "server" if self._engine.server_side else "client"
        state = "closed" if self._closed else "failed" if self._failure is not None else "open"
        info = self._engine.info
        what = "before the handshake" if info is None else f"{info.protocol}, {info.cipher.standard_name}"
        peer = "" if self.remote_address is None else f" with {self.remote_address}"
        return f"<TLSStream {role}{peer}, {state}, {what}>"

    # The handshake

    @trio.lowlevel.enable_ki_protection
    async def do_handshake(self) -> None:
        """Do the handshake, or wait for the task that is at it.  Once it is done, only a checkpoint.

        Raises:
            HandshakeTimeout: it was not done within `handshake_timeout` seconds of the first call.
            NotTLS: the peer speaks something else.
            CertificateError: the peer's certificate was refused.
            PeerAlert: the peer refused us.
            ProtocolError: the peer broke the protocol, or we have nothing in common.
            CallbackError: a callback of ours raised.
            ConnectionLost: the transport broke or ended.
            trio.ClosedResourceError: this stream was closed.

        Every task that waits for a handshake that fails gets the same failure.  Cancelling hands the work on
        to the next task that waits; over a transport other than a socket, a cancelled send is the end of
        the connection.
        """
        if self._handshake_deadline == math.inf:
            self.start_handshake_timer()
        waited = False
        while True:
            self._check_usable()
            if self._secure:
                break
            waited = True
            if self._handshaking.taken:
                await self._handshaking.over()
                continue
            with self._handshaking:
                try:
                    await self._handshake_in_time()
                finally:
                    if self._failure is None and self._send_failure is not None and not self._secure:
                        # Half a message sent: there is no way to go on with the handshake.
                        self._failure = self._send_failure
                        self._engine.tell_failure(self._failure)
                    if self._closed:
                        # Meanwhile, while a callback of ours chose; its choice has made a new SSL.
                        self._engine.release()
        if not waited:
            await trio.lowlevel.checkpoint()

    def start_handshake_timer(self) -> float:
        """Let the time of the handshake run from now on; return its deadline on Trio's clock.

        Without it, the time runs from the first call of `do_handshake`.
        """
        self._handshake_deadline = trio.current_time() + self._timeouts.handshake
        return self._handshake_deadline

    def handshake_timed_out(self) -> ConnectionFailed:
        """Fail the connection, as its handshake was not done in time; return the error to raise."""
        if self._failure is not None:
            # It had failed in time; what was not done is sending the alert.
            return self._locate(self._failure.again())
        seconds = self._timeouts.handshake
        reason = f"the handshake was not done within {seconds:g} seconds"
        if self._engine.backlog_is_full:
            reason += "; nobody has received the data that came before the peer's answer"
        return self.fail(HandshakeTimeout(reason, timeout=seconds))

    async def _handshake_in_time(self) -> None:
        engine, policy = self._engine, self._policy
        with trio.CancelScope(deadline=self._handshake_deadline) as scope:
            if policy is None:
                await self._negotiate()
            else:
                if engine.client_hello is None:
                    await self._drive(engine.read_client_hello)
                async with policy.handshakes:
                    await self._negotiate()
        if scope.cancelled_caught:
            raise self.handshake_timed_out()

    async def _negotiate(self) -> None:
        engine, policy = self._engine, self._policy
        if policy is not None:
            if engine.undecided:
                await self._consult(policy.decide(self, engine))
            await turnstile().pass_through()
        await self._drive(engine.do_handshake)
        await self._flush(hold=True)
        if policy is not None and policy.on_new_session is not None:
            await self._consult(policy.tell_new_session(engine))
        if policy is not None and policy.request_cert and self._link.resumable:
            # The ticket is a client's first sign that its certificate was accepted; the kernel takes it
            # without waiting.  Without such a client, it is held until it goes with something else.  A
            # client that is gone already may have sent all that it had to say.
            with contextlib.suppress(ConnectionLost):
                self._flush_nowait()
        if self._confirm and engine.info is not None and engine.info.protocol == "TLSv1.3":
            await self._drive(engine.confirm)
        self._secure = True

    async def _consult(self, answer: Awaitable[None]) -> None:
        """Wait for the application's part in a handshake; its refusal is sent to the client."""
        try:
            await answer
        except ConnectionFailed as error:
            await self._send_last_words(error)
            raise self.fail(error) from error.__cause__

    @trio.lowlevel.enable_ki_protection
    async def renegotiate(self, *, request_cert: bool = True, reject_unauthorized: bool = True) -> None:
        """Do another handshake, up to TLS 1.2; `info` is a new value then.

        Other tasks may send and receive meanwhile.  Data that comes before the peer's answer is kept for the
        next receive; after 1 MiB of it, the answer has to wait for a task that receives.

        Args:
            request_cert: Server: whether to ask the client for a certificate.
            reject_unauthorized: Whether to refuse a peer that is not verified.

        Raises:
            ConfigurationError: TLS 1.3 has none (``ERR_SSL_WRONG_SSL_VERSION``), or ``secure_options``
                switches it off (``ERR_SSL_NO_RENEGOTIATION``).
            HandshakeTimeout: it was not done within `handshake_timeout` seconds.
            CertificateError: the peer's certificate was refused.
            ConnectionFailed: it failed otherwise (``ERR_SSL_NO_RENEGOTIATION``: the peer will not), or the
                connection has failed earlier.
            trio.BusyResourceError: another task is at it.
            trio.ClosedResourceError: this stream was closed.

        Cancelling leaves the handshake to go on whenever something is received; who cancels before it is done
        does not know what was negotiated.
        """
        start = partial(
            self._engine.renegotiate, request_cert=request_cert, reject_unauthorized=reject_unauthorized
        )
        await self._shake_hands_again(start)

    @trio.lowlevel.enable_ki_protection
    async def request_client_certificate(self, *, reject_unauthorized: bool = True) -> None:
        """Server: ask a client of TLS 1.3 for a certificate after the handshake; `info` is a new value then.

        The client must have said that it may be asked (``post_handshake_auth``).  Other tasks may send and
        receive meanwhile.

        Args:
            reject_unauthorized: Whether to refuse a client that is not verified.

        Raises:
            ConfigurationError: the version is older (``ERR_SSL_WRONG_SSL_VERSION``), or this is a client.
            ConnectionFailed: the client may not be asked (``ERR_SSL_EXTENSION_NOT_RECEIVED``, and the
                connection goes on), or it was refused.
            HandshakeTimeout: it has not answered within `handshake_timeout` seconds.
            trio.BusyResourceError: another task is at it.
            trio.ClosedResourceError: this stream was closed.

        Cancelling is as for `renegotiate`.
        """
        await self._shake_hands_again(
            partial(self._engine.request_client_certificate, reject_unauthorized=reject_unauthorized)
        )

    def disable_renegotiation(self) -> None:
        """Let the next renegotiation that the peer begins end the connection."""
        self._engine.disable_renegotiation()

    async def _shake_hands_again(self, start: Callable[[], None]) -> None:
        with self._renegotiating:
            if not self._secure:
                await self.do_handshake()
            self._check_can_send()
            engine, started = self._engine, False
            refusal: ConnectionFailed | None = None

            def shake_hands() -> bool | Want:
                nonlocal started, refusal
                # One that the peer has begun, or that was cancelled, goes first.
                outcome = engine.finish_handshake()
                if started or outcome is not True:
                    return outcome
                started = True
                try:
                    start()
                except ConnectionFailed as error:
                    # The connection goes on.
                    refusal = error.again()
                return engine.finish_handshake()

            with trio.CancelScope(deadline=trio.current_time() + self._timeouts.handshake) as scope:
                await self._drive(shake_hands, flush=True)
            if scope.cancelled_caught:
                raise await self._abandon(self.handshake_timed_out())
            if refusal is not None:
                raise self._locate(refusal.again())

    # Data

    @trio.lowlevel.enable_ki_protection
    async def receive_into(self, buffer: bytearray | memoryview) -> int:
        """Decrypt data into a buffer as soon as there is any; return how much, 0 once the peer said goodbye.

        Args:
            buffer: Where to: writable, contiguous and not empty.

        Raises:
            BufferError, TypeError, ValueError: the buffer is not such a one.
            ConnectionFailed, trio.BusyResourceError, trio.ClosedResourceError: as for `receive_some`.

        Cancelling loses nothing: the next call goes on.
        """
        view = memoryview(buffer)
        if view.readonly or not view.c_contiguous:
            raise BufferError("the buffer must be writable and contiguous")
        if not view.nbytes:
            raise ValueError("the buffer is empty")
        with self._receiving:
            if not self._secure:
                await self.do_handshake()
            count = await self._drive(partial(self._engine.read_in_place, view))
        if self._wanting_room:
            self._wanting_room.unpark_all()
        return count

    @trio.lowlevel.enable_ki_protection
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return decrypted data as soon as there is any; ``b""`` once the peer has said goodbye.

        Args:
            max_bytes: The most bytes to return, at least 1.  None, and everything above, means 256 KiB.

        Raises:
            TruncationError: the transport ended without the peer's goodbye.
            ConnectionFailed: the connection failed, now or earlier.
            trio.BusyResourceError: another task is receiving on this stream.
            trio.ClosedResourceError: this stream was closed, before or meanwhile.

        Cancelling loses nothing: the next call goes on.
        """
        if max_bytes is None:
            max_bytes = PLAINTEXT_SIZE
        elif not isinstance(max_bytes, int):
            raise TypeError(f"max_bytes must be an int or None. Received {max_bytes!r}")
        elif max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1. Received {max_bytes}")
        with self._receiving:
            if not self._secure:
                await self.do_handshake()
            data = await self._drive(partial(self._engine.read, max_bytes))
        if self._wanting_room:
            self._wanting_room.unpark_all()
        return data

    @trio.lowlevel.enable_ki_protection
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send data; return when the transport has taken all of it.

        Args:
            data: The plaintext.

        Raises:
            ConnectionFailed: the connection failed, now or earlier, or an earlier send was interrupted.
            trio.BusyResourceError: another task is sending on this stream.
            trio.ClosedResourceError: this stream was closed, before or meanwhile, or `send_eof` was called.

        Cancelling before anything was encrypted costs nothing.  Afterwards nobody knows what the peer will
        get of the data, so the sending side is over; receiving goes on.
        """
        view = memoryview(data)
        length = view.nbytes
        if not view.c_contiguous:
            data = bytes(view)
        with self._sending:
            if not self._secure:
                await self.do_handshake()
            self._check_can_send()
            if not length:
                await trio.lowlevel.checkpoint()
                return
            engine = self._engine
            sent_before = engine.plaintext_sent
            done = 0
            self._sending_data = True
            try:
                while done < length:
                    done = await self._drive(partial(engine.encrypt, data, done, length), flush=True)
            except BaseException:
                if engine.plaintext_sent > sent_before:
                    self._lose_way_out(_interrupted())
                raise
            finally:
                self._sending_data = False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the transport may take more data at once.

        Raises:
            ConnectionFailed: the connection failed, now or earlier.
            trio.BusyResourceError: another task is sending on this stream.
            trio.ClosedResourceError: this stream was closed, before or meanwhile, or `send_eof` was called.
        """
        with self._sending:
            if not self._secure:
                await self.do_handshake()
            while True:
                self._check_can_send()
                if self._sending_out.taken:
                    await self._sending_out.over()
                    continue
                with self._sending_out:
                    try:
                        await self.transport_stream.wait_send_all_might_not_block()
                    except trio.BrokenResourceError as error:
                        raise self._fail_sending(ConnectionLost("the transport broke")) from error
                    except trio.ClosedResourceError:
                        self._check_usable()
                        raise
                if not self._unsent:
                    return
                # A task that receives has left an answer to the peer to us.
                await self._flush()

    @trio.lowlevel.enable_ki_protection
    async def send_eof(self) -> None:
        """Say goodbye by a close_notify and go on receiving.  Later calls are only a checkpoint.

        Raises:
            ConnectionFailed: the connection failed, now or earlier, or an earlier send was interrupted.
            trio.BusyResourceError: another task is sending on this stream.
            trio.ClosedResourceError: this stream was closed.

        Cancelling before anything was said costs nothing.  Afterwards it is open whether the peer gets the
        goodbye, and the sending side is over.
        """
        with self._sending:
            if not self._secure:
                await self.do_handshake()
            self._check_usable()
            if self._engine.close_notify_sent:
                await trio.lowlevel.checkpoint()
                return
            self._check_can_send()
            await self._drive(self._engine.shutdown, flush=True)

    @trio.lowlevel.enable_ki_protection
    async def aclose(self) -> None:
        """Say goodbye if possible, and close the transport.  Later calls are only a checkpoint.

        The goodbye is a close_notify; the peer's is not waited for.  What has arrived is discarded, as
        closing a socket over it would destroy data on its way to the peer.  Nothing is said after a failure
        or an interrupted send, nor in the middle of another handshake.  All of it takes at most
        `close_timeout` seconds.

        Tasks that wait in other calls get `trio.ClosedResourceError`.  A cancelled call closes the transport
        all the same, without grace: one that is cancelled from the start says no goodbye, so that the peer
        does not take what it has got for complete.
        """
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        polite = (
            # Who is forced to close has not come to an end, and must not say so by a goodbye.
            trio.current_effective_deadline() > -math.inf
            and self._engine.info is not None
            and self._failure is None
            and self._send_failure is None
            and not self._sending_data
        )
        self._closed = True
        if self._wanting_room:
            self._wanting_room.unpark_all()
        graceful = False
        try:
            said = not polite or self._say_goodbye_nowait()
            at_once = said and self._link.closes_at_once
            with contextlib.nullcontext() if at_once else trio.move_on_after(self._timeouts.close):
                if not said:
                    await self._say_goodbye()
                self._link.discard_nowait()
                # One that broke on the way is closed all the same, and it was the peer's fault.
                with contextlib.suppress(trio.BrokenResourceError):
                    await self.transport_stream.aclose()
                graceful = True
        finally:
            self._engine.release()
            for iterator in self._session_iterators:
                iterator.close()
            # Their causes have tracebacks, and so refer to this stream.
            self._failure = self._send_failure = None
            if not graceful:
                with contextlib.suppress(trio.BrokenResourceError):
                    await trio.aclose_forcefully(self.transport_stream)

    def _say_goodbye_nowait(self) -> bool:
        """Say goodbye, as far as the transport takes it now; return whether that is all."""
        try:
            # In the middle of a handshake there is no goodbye.
            return self._engine.shutdown() is not True or self._flush_nowait()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return True

    async def _say_goodbye(self) -> None:
        """Say the rest of the goodbye."""
        # Two sides that close at once, each without room for the other's goodbye, both get away.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._discard_input)
            await self._flush_if_possible()
            nursery.cancel_scope.cancel()

    async def _discard_input(self) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            more = True
            while more:
                if self._filling.taken:
                    await self._filling.over()
                    continue
                with self._filling:
                    more = await self._link.fill(_discard)

    # The loop

    @trio.lowlevel.enable_ki_protection
    async def _drive(self, step: Callable[[], T | Want], *, flush: bool = False) -> T:
        """Repeat a step of the engine until it has a result.

        Args:
            step: Returns a result, or `Want.READ`.
            flush: Whether the result is there only when what the engine has to say has been sent.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        waited = False
        if flush and self._unsent:
            # Behind what is still to be sent, nothing may be encrypted: that memory would have no bound.
            waited = await self._flush()
        while True:
            if self._closed or self._failure is not None:
                self._check_usable()
            fills = self._fills
            try:
                outcome = step()
            except ConnectionFailed as error:
                await self._send_last_words(error)
                raise self.fail(error)
            if outcome is _WANT_READ:
                flushed = True
                # Most receives begin in vain, and leave nothing to be sent.
                if self._engine.may_have_output or self._unsent:
                    try:
                        flushed = self._flush_nowait(hold=True)
                        much = len(self._unsent) > _MOST_UNSENT
                        # Who is sending sends this too.
                        if not flushed and (much or not (self._link.resumable or self._sending_out.taken)):
                            await self._flush(hold=True)
                            flushed = waited = True
                    except ConnectionLost:
                        if not self._secure:
                            raise
                        # What cannot be sent any more does not end the receiving.
                        continue
                if not flushed and not self._sending_out.taken:
                    await self._fill_and_flush()
                elif fills == self._fills:
                    await self._fill()
                waited = True
                continue
            if outcome is _WANT_ROOM:
                waited = True
                if not await self._flush(hold=True):
                    self._wanting_room = self._wanting_room or trio.lowlevel.ParkingLot()
                    await self._wanting_room.park()
                continue
            if flush and not (self._flush_nowait() and self._send_failure is None):
                waited = await self._flush() or waited
            if not waited:
                await trio.lowlevel.cancel_shielded_checkpoint()
            return outcome

    async def _fill(self) -> None:
        """Wait for input once, or for the task that is at it."""
        if self._filling.taken:
            await self._filling.over()
            return
        with self._filling:
            try:
                if self._timeouts.idle is None or not self._secure:
                    more = await self._link.fill(self._engine.feed_from)
                else:
                    more = await self._fill_unless_idle(self._timeouts.idle)
            except ConnectionLost as error:
                raise self.fail(error)
            except trio.ClosedResourceError:
                # Another task has abandoned the peer, perhaps.
                self._check_usable()
                raise
            if not more:
                self._engine.eof = True
            self._fills += 1

    async def _fill_unless_idle(self, timeout: float) -> bool:
        """Wait for input once, as long as something passes, be it in the other direction."""
        self._last_activity = trio.current_time()
        while True:
            with trio.CancelScope(deadline=self._last_activity + timeout) as scope:
                more = await self._link.fill(self._engine.feed_from)
            if not scope.cancelled_caught:
                return more
            if trio.current_time() >= self._last_activity + timeout:
                raise await self._abandon(
                    IdleTimeout(f"nothing has passed for {timeout:g} seconds", timeout=timeout)
                )

    async def _fill_and_flush(self) -> None:
        """Wait for input, and send meanwhile: a peer without room may wait until it is read from."""
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(self._flush_if_possible, hold=True))
            try:
                await self._fill()
            except (ConnectionFailed, trio.ClosedResourceError) as error:
                # Raised inside the nursery, it would come out as a group.
                failure = error
            # What was read is in the thread's buffer, and the nursery waits.
            self._engine.settle()
            nursery.cancel_scope.cancel()
        if failure is not None:
            try:
                raise failure
            finally:
                del failure

    async def _flush_if_possible(self, *, hold: bool = False) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._flush(hold=hold)

    def _flush_nowait(self, *, hold: bool = False) -> bool:
        """Send what the engine has to say, as far as the transport takes it; return whether all is gone.

        Args:
            hold: Leave alone what can wait for other output to go with.
        """
        output = self._engine.collect(hold=hold)
        if output and self._send_failure is None:
            sent = 0
            if not self._unsent:
                try:
                    sent = self._link.send_nowait(output)
                except ConnectionLost as error:
                    raise self._fail_sending(error)
                self._note_sent(sent)
            if sent < len(output):
                self._unsent += output[sent:]
        return not self._unsent

    async def _flush(self, *, hold: bool = False) -> bool:
        """Send all that the engine has to say by now; return whether that meant waiting."""
        waited = False
        self._flush_nowait(hold=hold)
        # What others have to say meanwhile goes behind, and may never end.
        end = self._taken + len(self._unsent)
        deadline = math.inf
        if self._unsent and self._timeouts.send is not None and self._secure:
            deadline = trio.current_time() + self._timeouts.send
        while True:
            if self._send_failure is not None:
                raise self._locate(self._send_failure.again())
            if self._taken >= end:
                return waited
            waited = True
            if self._sending_out.taken:
                await self._sending_out.over()
                continue
            with self._sending_out:
                try:
                    sent = await self._send_in_time(self._unsent, deadline)
                except ConnectionLost as error:
                    raise self._fail_sending(error)
                except trio.ClosedResourceError:
                    self._check_usable()
                    raise
                except BaseException:
                    if not self._link.resumable:
                        self._lose_way_out(_interrupted())
                    raise
                self._unsent = self._unsent[sent:]
                self._note_sent(sent)

    async def _send_in_time(self, data: bytes, deadline: float) -> int:
        """Wait until the transport has taken some of the data; return how much."""
        timeout = self._timeouts.send
        if timeout is None or deadline == math.inf:
            sent = await self._link.send(data)
        else:
            with trio.CancelScope(deadline=deadline) as scope:
                sent = await self._link.send(data)
            if scope.cancelled_caught:
                raise await self._abandon(
                    SendTimeout(
                        f"the peer has not taken what was sent for {timeout:g} seconds", timeout=timeout
                    )
                )
        return sent

    def _note_sent(self, count: int) -> None:
        self._taken += count
        if count and self._timeouts.idle is not None:
            self._last_activity = trio.current_time()

    async def _send_last_words(self, error: ConnectionFailed) -> None:
        """Fail, and send the alert if the transport takes it within `close_timeout` seconds."""
        self.fail(error)
        with trio.move_on_after(self._timeouts.close):
            await self._flush_if_possible()

    # Failing

    def _check_usable(self) -> None:
        self._check_open()
        if self._failure is not None:
            raise self._locate(self._failure.again())

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")

    def _check_can_send(self) -> None:
        self._check_usable()
        if self._engine.close_notify_sent:
            raise trio.ClosedResourceError("send_eof() was called on this stream")
        if self._send_failure is not None:
            raise self._locate(self._send_failure.again())

    def fail(self, error: ConnectionFailed) -> ConnectionFailed:
        """Give an error its place, and keep the first one for later calls; return it, to be raised.

        Args:
            error: What the connection failed of.
        """
        self._locate(error)
        if self._failure is None and not isinstance(error, TruncationError):
            self._failure = self._kept(error)
            if self._wanting_room:
                self._wanting_room.unpark_all()
            if self._peer_sessions is not None:
                self._peer_sessions.failed(error)
            self._engine.tell_failure(error)
        return error

    async def _abandon(self, error: ConnectionFailed) -> ConnectionFailed:
        """Fail, and close the transport, which others may be waiting for in vain; return the error."""
        self.fail(error)
        await trio.aclose_forcefully(self.transport_stream)
        return error

    def _fail_sending(self, lost: ConnectionLost) -> ConnectionFailed:
        """Take it that the transport takes no more; return why, if the peer has said why."""
        self._check_usable()
        self._lose_way_out(lost)
        look = self._engine.do_handshake if self._engine.info is None else self._engine.peek
        try:
            # A peer that refuses us late says so and is gone: we notice by being unable to send.  But what
            # it has said before comes first, and may be a whole answer.
            if look() is not True and self._link.fill_nowait(self._engine.feed_from):
                self._fills += 1
                look()
        except trio.ClosedResourceError:
            pass
        except ConnectionFailed as said:
            return self.fail(said)
        return lost

    def _lose_way_out(self, error: ConnectionLost) -> None:
        """Fail the sending side: what was not sent yet never will be."""
        self._unsent = b""
        self._locate(error)
        if self._send_failure is None:
            self._send_failure = self._kept(error)

    @staticmethod
    def _kept(error: ConnectionFailed) -> ConnectionFailed:
        """Return a copy to be kept: without traceback, and without the stream, which would be a cycle."""
        copy = error.again()
        copy.stream = None
        return copy

    def _locate(self, error: ConnectionFailed) -> ConnectionFailed:
        """Fill in whose error it is, and when it happened; what is known already stays."""
        engine = self._engine
        error.stream = self
        if error.phase is not None:
            return error
        if self._closed:
            error.phase = "closing"
        elif self._secure:
            error.phase = "secure"
        elif engine.server_side and engine.client_hello is None:
            error.phase = "hello"
        else:
            error.phase = "handshake"
        error.remote_address = self.remote_address
        error.server_name = engine.server_name
        error.client_hello = engine.client_hello
        if isinstance(error, ConnectionLost):
            error.progress = None if engine.info is not None else engine.openssl_state
            error.bytes_sent = engine.ciphertext_sent
            error.bytes_received = engine.ciphertext_received
        return error


def _interrupted() -> ConnectionLost:
    return ConnectionLost(
        "an earlier send was interrupted, and nobody knows how much of it the peer will get",
        code="ECANCELED",
        side="usage",
    )


def _discard(_source: Any, _length: int) -> None:
    """Take ciphertext and forget it."""


def check_transport(transport: trio.abc.Stream) -> trio.abc.Stream:
    """Return a transport.

    Raises:
        ConfigurationTypeError: it is no stream of Trio's.
    """
    if isinstance(transport, trio.abc.Stream):
        return transport
    raise ConfigurationTypeError(
        f"the transport must be a trio.abc.Stream. Received {transport!r}", option="transport"
    )


def check_initial(initial: bytes | bytearray | memoryview) -> bytes:
    """Return what was read from a transport already.

    Raises:
        ConfigurationTypeError: it is no bytes.
    """
    if isinstance(initial, (bytes, bytearray, memoryview)):
        return bytes(initial)
    raise ConfigurationTypeError(
        f"initial must be bytes. Received an instance of {type(initial).__name__}", option="initial"
    )
