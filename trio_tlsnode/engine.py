"""Engine: one connection's TLS without any I/O.

Ciphertext goes in by `feed` and comes out by `drain`; plaintext goes in by `write` and comes out by `read`.
Nothing here waits, and nothing knows a socket, a clock or an event loop.  A server's engine stops at the
ClientHello, so that its user can choose before OpenSSL has seen a byte.

It stands on a ladder of classes, each of which knows only those below it: `Connection` has OpenSSL's verbs,
`RecordLayer` what passes, `Outcome` what was negotiated, `Handshake` the first handshake, `Resumption` its
sessions, and `LaterHandshakes` what comes when the connection is secure.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from ._openssl.buffers import PLAINTEXT_SIZE, buffers
from ._openssl.library import memory_of, pointer_to
from .alpn import ALPNProtocols
from .certificates import Certificate
from .context import SecureContext
from .errors import (
    ConfigurationError,
    ConfigurationTypeError,
    ConnectionLost,
    NeedHandshakeError,
    ProtocolError,
    TruncationError,
)
from .handshake import ENDED_EARLY, ClientPSKCallback, OCSPResponseCallback
from .identity import check_server_identity
from .keylog import KeyLog
from .later_handshakes import LaterHandshakes
from .ocsp import OCSPMode
from .option_values import check_callable, check_flag, optional_callable
from .outcome import DEFAULT_MIN_DH_SIZE, IdentityCheck
from .record_layer import Want
from .renegotiation_limit import RenegotiationLimit
from .resumption import SessionCallback
from .server_names import client_names

if TYPE_CHECKING:
    from .trace import Trace

T = TypeVar("T")

# What TLS 1.3 can derive at once is less.
_MOST_EXPORTED: Final = 65535


class Engine(LaterHandshakes):
    """The TLS of one connection, sans I/O (what Node's ``tls.createSecurePair`` was).

    Args:
        context: What the connection is made from; a server may choose another in `choose`.
        server_side: Whether to take the server's role.
        host: Client: the name or IP address that was connected to.
        server_name: Client: the name to send as SNI and to verify; ``""`` sends none.  Default: `host`, if it
            is a name.
        check_server_identity: Client: called with the name and the server's certificate once its chain is
            trusted; raises, or returns an exception, to refuse.  Default: `check_server_identity`.
        min_dh_size: Client: the smallest finite-field Diffie-Hellman group of TLS 1.2 to accept, in bits.
        request_ocsp: Client: ask for a stapled OCSP response, which `ConnectionInfo.ocsp_response` has then.
        on_ocsp_response: Client: called with the response, or None, before the handshake is done, if the
            server presents a certificate; raises to refuse.
        ocsp: Client: ask for a response and judge it: "verify" accepts that there is none, unless the
            certificate says that there must be ("must staple"), "require" does not.
        session: Client: a session to resume, from `session` or `on_session` of an earlier connection.  Where
            it cannot be used, or was made under another trust, the handshake is a full one.
        on_session: Client: called with each session that can be resumed later.  It may not be async.
        early_data: Client: what is sent together with the ClientHello, if the session that is offered allows
            it; `ConnectionInfo.early_data_accepted` tells what became of it.  Whoever records it can send it
            again, and a server may not notice.
        post_handshake_auth: Client: let a server of TLS 1.3 ask for our certificate after the handshake.
        keylog: Where the secrets go: a function that is called with each line and the stream, the path of a
            file, or True for the file that ``SSLKEYLOGFILE`` names.
        trace: What is told of each message: a `HandshakeTrace`, the class for a new one, a function that is
            called with each line and the stream, or True for lines on the standard error.
        renegotiation_limit: How often the peer may renegotiate, up to TLS 1.2, within `renegotiation_window`.
        renegotiation_window: A time in seconds.
        clock: The time in seconds.
        psk: Client: called with the server's hint, or None as always in TLS 1.3; returns a `PreSharedKey`, or
            None to do without, which in TLS 1.2 ends a handshake whose suite needs one.
        request_cert: Server: ask the client for a certificate.
        reject_unauthorized: End the handshake if the peer is not verified.  When off, the connection is made
            and `ConnectionInfo.authorization_error` tells why it should not be trusted.
        alpn_protocols: The application protocols, most preferred first, or the wire format.
        https_compatible: Take the end of the transport for the peer's goodbye (RFC 2818); data may have been
            cut off.

    Attributes:
        context: The context of the connection; a server's may change in `choose`.
        server_side: Which role this is.
        server_name: Client: what is sent as SNI, or None.  Server: what the client sent, once it is known.
        client_hello: Server: the client's first message, once it is known.
        info: What was negotiated, or None before the handshake is done.
        eof: Whether the transport has ended.
        close_notify_sent: Whether our goodbye is said.

    Raises:
        ConfigurationError: an option cannot be used.
    """

    __slots__ = ("close_notify_sent", "https_compatible")

    def __init__(
        self,
        context: SecureContext,
        *,
        server_side: bool = False,
        host: str | None = None,
        server_name: str | None = None,
        check_server_identity: IdentityCheck = check_server_identity,
        min_dh_size: int = DEFAULT_MIN_DH_SIZE,
        request_ocsp: bool = False,
        on_ocsp_response: OCSPResponseCallback | None = None,
        ocsp: OCSPMode | None = None,
        psk: ClientPSKCallback | None = None,
        session: bytes | bytearray | memoryview | None = None,
        on_session: SessionCallback | None = None,
        early_data: bytes | bytearray | memoryview | None = None,
        post_handshake_auth: bool = False,
        keylog: KeyLog = None,
        trace: Trace = None,
        renegotiation_limit: int | None = None,
        renegotiation_window: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        request_cert: bool = False,
        reject_unauthorized: bool = True,
        alpn_protocols: ALPNProtocols | None = None,
        https_compatible: bool = False,
    ) -> None:
        if not isinstance(context, SecureContext):
            raise ConfigurationTypeError(
                f"context must be a SecureContext. Received {context!r}", option="context"
            )
        check_callable("check_server_identity", check_server_identity)
        super().__init__()
        self.https_compatible = check_flag("https_compatible", https_compatible)
        self.close_notify_sent = False
        self._set_up_record_layer(server_side=server_side, keylog=keylog, trace=trace, clock=clock)
        self._set_up_outcome(
            context,
            names=(None, "") if server_side else client_names(host, server_name),
            check_identity=check_server_identity,
            min_dh_size=min_dh_size,
            request_cert=check_flag("request_cert", request_cert),
            reject_unauthorized=check_flag("reject_unauthorized", reject_unauthorized),
            allows_psk=psk is not None,
        )
        self._set_up_handshake(
            alpn_protocols=alpn_protocols,
            psk=optional_callable("psk", psk),
            on_ocsp_response=optional_callable("on_ocsp_response", on_ocsp_response),
            ocsp=_ocsp_mode(ocsp),
        )
        self._set_up_resumption(early_data=early_data)
        self._set_up_later_handshakes(RenegotiationLimit(renegotiation_limit, renegotiation_window))
        if not server_side:
            self._begin_as_client(
                request_ocsp=check_flag("request_ocsp", request_ocsp),
                post_handshake_auth=check_flag("post_handshake_auth", post_handshake_auth),
            )
            self._use_session(session, on_session)

    # Key material

    def export_keying_material(self, length: int, label: str, context: bytes | None = None) -> bytes:
        """Return keying material that both sides can derive (RFC 5705; RFC 8446, section 7.5).

        Args:
            length: How much, in bytes.
            label: What tells it from other material.
            context: What else it depends on; None is not the same as ``b""`` up to TLS 1.2.

        Raises:
            NeedHandshakeError: the handshake is not done, or another one is going on.
            ValueError: `length` is not from 1 to 65535, or the label is empty.
            ConfigurationError: OpenSSL refuses the label, or the length.
        """
        self.require_keys()
        if isinstance(length, bool) or not isinstance(length, int) or not isinstance(label, str):
            raise TypeError(f"length must be an int and label a str. Received {length!r} and {label!r}")
        if not 1 <= length <= _MOST_EXPORTED or not label:
            raise ValueError(
                f"length must be 1 to {_MOST_EXPORTED}, and label not empty. Received {length}, {label!r}"
            )
        # Of an int, bytes() would make as many zeros.
        return self.export(length, label.encode(), None if context is None else bytes(memoryview(context)))

    def require_keys(self) -> None:
        """Raise `NeedHandshakeError` unless a handshake is done, and none is changing the keys."""
        if self.info is None or self._ssl is None or self._renegotiating:
            raise NeedHandshakeError("the handshake is not done")

    @property
    def server_certificate(self) -> Certificate | None:
        """The certificate by which the client knows the server, be it from the session that is resumed.

        None where there is none, and where a server cannot tell which one it was.
        """
        if self.info is None:
            return None
        if not self.server_side:
            return self.info.peer_certificate
        if self.info.session_reused:
            contexts = (self.context, self._tickets_of or self.context)
            if len({certificate for context in contexts for certificate in context.certificates}) != 1:
                return None
        return self.info.certificate

    def finished(self, *, of_peer: bool) -> bytes | None:
        """Return the latest Finished message of ours or of the peer's, or None before there is one.

        Args:
            of_peer: Whether it is the peer's.
        """
        return self.finished_message(of_peer=of_peer) or None

    # The data phase

    def read(self, max_bytes: int = PLAINTEXT_SIZE) -> bytes | Want:
        """Return decrypted data, `Want.READ`, or ``b""`` after the peer's goodbye.

        Args:
            max_bytes: The most bytes to return; never more than 256 KiB.

        Raises:
            NeedHandshakeError: the handshake is not done.
            ValueError: `max_bytes` is less than 1.
            TruncationError: the transport ended without the peer's goodbye.
            ConnectionFailed: the peer sent an alert, or broke the protocol.
        """
        if self.info is None:
            raise NeedHandshakeError
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1. Received {max_bytes}")
        if self._backlog:
            data = bytes(self._backlog[:max_bytes])
            del self._backlog[:max_bytes]
            return data
        count = self.read_into(buffers.plaintext, min(max_bytes, PLAINTEXT_SIZE))
        if count is not None:
            return bytes(buffers.plaintext_view[:count])
        return self._no_data(b"")

    def read_in_place(self, buffer: bytearray | memoryview) -> int | Want:
        """Decrypt data into a buffer; return how much, `Want.READ`, or 0 after the peer's goodbye.

        Args:
            buffer: Where to; writable, contiguous, and not empty.

        Raises:
            As for `read`.
        """
        if self.info is None:
            raise NeedHandshakeError
        pointer = pointer_to(buffer)
        if self._backlog:
            count = min(len(self._backlog), len(pointer))
            memory_of(pointer)[:count] = self._backlog[:count]
            del self._backlog[:count]
            return count
        got = self.read_into(pointer, len(pointer))
        return self._no_data(0) if got is None else got

    def _no_data(self, end: T) -> T | Want:
        """Return what reading gives when nothing has been decrypted."""
        if not self.eof:
            return Want.READ
        if self.https_compatible:
            return end
        raise TruncationError("the connection ended without the peer's close_notify; data may be missing")

    def confirm(self) -> bool | Want:
        """Client: return True once the server has shown that it accepts us, and our certificate.

        In TLS 1.3 a server judges the client's certificate when the client's handshake is done already.  Its
        first data, or its first session ticket after `watch_tickets`, says that it went well.

        Raises:
            PeerAlert: the server refuses us.
            ConnectionLost: the transport ended first.
        """
        if self.peek() or self.ticket_arrived or self.peer_closed:
            return True
        if self.eof:
            raise ConnectionLost(ENDED_EARLY[False])
        return Want.READ

    def encrypt(self, data: bytes | bytearray | memoryview, offset: int, length: int) -> int | Want:
        """Encrypt as much as the thread's outgoing buffer takes; `collect` has the result.

        Args:
            data: The plaintext, contiguous.
            offset: Where in it to begin, in bytes.
            length: How many bytes it has.

        Returns:
            Up to where the data is done, or what is needed first in the middle of a handshake.
        """
        # Asked to write over input, OpenSSL would take data for a broken handshake.
        if self._renegotiating or (not self._digested and self.in_handshake):
            ready = self._read_ahead(self._may_write)
            if ready is not True:
                return ready
        done, self._used = self.write_from(pointer_to(data), offset, length, self._begin_output())
        if done == offset:
            self._used = self.drain_into(self._used)
            # It waits to be collected.
            self.may_have_output = True
            return Want.READ
        return done

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt data; `drain` has the ciphertext.

        Args:
            data: The plaintext.

        Raises:
            NeedHandshakeError: the handshake is not done.
            ConnectionFailed: the connection has failed.
        """
        if self.info is None:
            raise NeedHandshakeError
        view = memoryview(data)
        if not view.c_contiguous:
            data = bytes(view)
        ciphertext = [self.drain()]
        offset = 0
        try:
            while offset < view.nbytes:
                done = self.encrypt(data, offset, view.nbytes)
                if isinstance(done, Want):
                    raise ProtocolError("a renegotiation is going on", code="ERR_SSL_UNEXPECTED_RECORD")
                offset = done
                ciphertext.append(bytes(self.collect()))
        finally:
            self._held = b"".join(ciphertext)

    def shutdown(self) -> bool | Want:
        """Say goodbye: a close_notify is to be drained.  Reading goes on.  Later calls do nothing.

        Returns:
            True, or what is needed first in the middle of a handshake.

        Raises:
            NeedHandshakeError: the handshake is not done.
        """
        if self.info is None:
            raise NeedHandshakeError
        if not self.close_notify_sent:
            ready = self._read_ahead(self._may_write)
            if ready is not True:
                return ready
            self.close_notify_sent = True
            self.send_close_notify()
        return True


def _ocsp_mode(value: OCSPMode | None) -> OCSPMode | None:
    if value in (None, "verify", "require"):
        return value
    raise ConfigurationError(f'ocsp must be "verify", "require" or None. Received {value!r}', option="ocsp")
