"""RecordLayer: what passes between two peers, and what is told of it.

Ciphertext on its way in and out, alerts in the clear, and the application's key log and trace.
"""

from __future__ import annotations

import enum
import inspect
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from ._openssl.buffers import buffers
from ._openssl.connection import Connection
from ._openssl.library import pointer_to
from .alerts import Alert
from .errors import CallbackError, ConnectionFailed
from .info import ConnectionInfo
from .keylog import KeyLog, key_log_sink

if TYPE_CHECKING:
    from .stream import TLSStream
    from .trace import HandshakeTrace, Trace


class Want(enum.Enum):
    """What an engine needs before a step can go on."""

    READ = "read"
    """Ciphertext from the peer."""

    ROOM = "room"
    """That what was decrypted meanwhile is read: no more than 1 MiB of it is kept."""


class RecordLayer(Connection):
    """What passes between two peers, and what is told of it.

    Attributes:
        server_side: Which role this is.
        info: What was negotiated, or None before the handshake is done.
        eof: Whether the transport has ended.
        trace: What is told of each message, or None.
    """

    __slots__ = (
        "_clock",
        "_held",
        "_keylog",
        "_starts_trace",
        "_stream",
        "_used",
        "eof",
        "info",
        "server_side",
        "trace",
    )

    def _set_up_record_layer(
        self, *, server_side: bool, keylog: KeyLog, trace: Trace, clock: Callable[[], float]
    ) -> None:
        self.server_side = server_side
        self.info: ConnectionInfo | None = None
        self.eof = False
        # Ciphertext that goes out before what OpenSSL has pending.
        self._held = b""
        # How much of the thread's outgoing buffer is ours, between a step and `collect`.
        self._used = 0
        self._clock = clock
        self._keylog = None if keylog is None else key_log_sink(keylog)
        self.logs_keys = self._keylog is not None
        self.trace: HandshakeTrace | None = None
        if trace is not None and trace is not False:
            # Most programs trace nothing, and need not load what it takes.
            from .trace import handshake_trace

            self.trace = handshake_trace(trace, weakref.ref(self))
        self._starts_trace = self.traced = self.trace is not None
        self._stream: weakref.ref[TLSStream] | None = None

    @property
    def stream(self) -> TLSStream | None:
        """Whose engine this is; callbacks are told.  Setting it makes no cycle."""
        return None if self._stream is None else self._stream()

    @stream.setter
    def stream(self, stream: TLSStream) -> None:
        self._stream = weakref.ref(stream)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take ciphertext from the peer.

        Args:
            data: A piece of any size; an empty one says that the transport has ended.
        """
        if not isinstance(data, bytes):
            # It is read in place, at a later step: by then its owner may have changed it.
            data = bytes(memoryview(data))
        if data:
            self.feed_from(pointer_to(data), len(data))
        else:
            self.eof = True

    def drain(self) -> bytes:
        """Return the ciphertext that is to be sent to the peer now."""
        held, self._held = self._held, b""
        return held + self.collect()

    def collect(self, *, hold: bool = False) -> memoryview:
        """Return pending ciphertext in the thread's outgoing buffer, valid until this thread's next step.

        Args:
            hold: Leave alone what can wait for other output to go with.
        """
        if self._used:
            # Encrypting has put everything there, what was held first.
            used, self._used = self._used, 0
            return buffers.outgoing_view[:used]
        used = len(self._held) if hold else self._begin_output()
        if self._ssl is not None:
            used = self.drain_into(used)
        if hold and self._held:
            if used == len(self._held):
                return buffers.outgoing_view[:0]
            buffers.outgoing_view[: len(self._held)] = self._held
            self._held = b""
        return buffers.outgoing_view[:used]

    def _begin_output(self) -> int:
        """Put what was held into the outgoing buffer; return how much of it is used."""
        used = self._used
        if self._held:
            end = used + len(self._held)
            buffers.outgoing_view[used:end] = self._held
            self._held = b""
            return end
        return used

    def refuse(self, error: ConnectionFailed, alert: Alert) -> NoReturn:
        """Refuse the peer; the alert is pending.

        Args:
            error: Why.
            alert: What the peer is told, in the clear.  Once the handshake is done, OpenSSL can only say
                goodbye.

        Raises:
            ConnectionFailed: a copy of `error`, which is from now on what this connection failed of.
        """
        if self.info is None:
            self._alert_in_clear(alert)
        else:
            self.send_close_notify()
        # A frame whose own exception is among its variables is a cycle: raised is a copy.
        self._error = error
        raise error.again()

    def _give_up(self, error: ConnectionFailed) -> NoReturn:
        """Refuse a peer when OpenSSL has accepted it: the only alert that there is then is a goodbye."""
        self.send_close_notify()
        self._error = error
        raise error.again()

    def _hang_up(self, *, in_clear: bool) -> None:
        """Let the peer know of a failure of which OpenSSL knows nothing.

        Args:
            in_clear: Whether nothing that is encrypted has left.
        """
        if in_clear:
            # What OpenSSL has to say would let the peer go on.
            self.drain_into(0)
            self._alert_in_clear(Alert.internal_error)
        else:
            # Before the handshake is done, there is no way to say goodbye.
            self.send_close_notify()

    def _alert_in_clear(self, alert: Alert) -> None:
        self._held = alert.plaintext_record()
        self._tell_in_clear(self._held, sent=True)

    @staticmethod
    def _call(option: str, callback: Any, *args: object) -> Any:
        """Call one of the application's callbacks that OpenSSL waits for."""
        try:
            result = callback(*args)
        except Exception as error:
            raise CallbackError(f"{option} raised", callback=option) from error
        if inspect.iscoroutine(result):
            result.close()
            raise CallbackError(f"{option} is called within OpenSSL and may not be async", callback=option)
        return result

    def on_key(self, line: str) -> None:
        """Write down a secret.

        Args:
            line: As it stands in a key log.
        """
        if self._keylog is not None and self._error is None:
            self._tell("keylog", self._keylog, line, self.stream)

    def on_message(self, sent: bool, version: int, content_type: int, data: bytes) -> None:
        """Trace what passes.

        Args:
            sent: Whether it leaves.
            version: The protocol version, as a number.
            content_type: Of what kind it is; 256 is a record's header.
            data: The bytes.
        """
        if self.trace is not None:
            self._tell("trace", self.trace.record, sent, version, content_type, data, self._clock())

    def _tell(self, option: str, listener: Any, *args: object) -> None:
        """Call a listener of the application's from where OpenSSL cannot be stopped."""
        try:
            self._call(option, listener, *args)
        except CallbackError as error:
            self._error = self._error or error.again()

    def _start_trace(self) -> None:
        assert self.trace is not None
        self.trace.start("server" if self.server_side else "client", self._clock())
        self._starts_trace = False

    def _tell_in_clear(self, records: bytes, *, sent: bool) -> None:
        if self.trace is not None:
            self._tell("trace", self.trace.plaintext, sent, records, self._clock())

    def tell_wait(self, callback: str, start: float) -> None:
        """Trace that the handshake has waited for a callback of the application until now.

        Args:
            callback: The option under which it was given.
            start: When it was called.
        """
        if self.trace is not None:
            self._tell("trace", self.trace.waited, callback, start, self._clock())

    def tell_failure(self, error: ConnectionFailed) -> None:
        """Trace that the connection has failed.

        Args:
            error: Why.
        """
        if self._starts_trace:
            self._start_trace()
        if self.trace is not None:
            self._tell("trace", self.trace.failed, error, self._clock())

    def release(self) -> None:
        """Free the ``SSL`` now, and what was read for it.  May be called again."""
        super().release()
        # Who keeps an error keeps this object, and the peer chose how much this is.
        self.early, self.flight = bytearray(), None
        self.ocsp_staple = self._keylog = None
