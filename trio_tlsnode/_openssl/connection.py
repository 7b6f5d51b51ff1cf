"""Connection: one ``SSL`` between two memory BIOs, and the verbs that move its bytes.

Each verb returns a value, or None for "feed me ciphertext first", and raises one TLSError.  The verbs of the
data phase call the library directly and hold no Python objects of their own: they are what every byte passes
through.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from ..diagnosis import DIAGNOSES
from ..errors import CertificateError, ConfigurationError, ConnectionFailed
from ..iana import CIPHER_SUITES
from ..info import Cipher
from ..server_flight import selected_cipher_suite
from . import callbacks, error_queue
from .buffers import MAX_CIPHERTEXT_RECORD, MAX_PLAINTEXT_RECORD, OUTGOING_SIZE, PLAINTEXT_SIZE, buffers
from .library import NULL, ffi, lib
from .verification import PeerVerification, der_of, ders_of

if TYPE_CHECKING:
    from ..psk import PreSharedKey

_SSL_read = lib.SSL_read
_SSL_write = lib.SSL_write
_SSL_get_error = lib.SSL_get_error
_SSL_pending = lib.SSL_pending
_SSL_renegotiate_pending = lib.SSL_renegotiate_pending
# What others have left in the thread's queue would be taken for the connection's own failure.
_ERR_clear_error = lib.ERR_clear_error
_BIO_read = lib.BIO_read
_BIO_write = lib.BIO_write
_BIO_get_mem_data = lib.BIO_get_mem_data
_WANT_READ = lib.SSL_ERROR_WANT_READ
_ZERO_RETURN = lib.SSL_ERROR_ZERO_RETURN
# A memory BIO never shrinks: one that has held more than this is replaced once it is empty.
_SMALL = 512
_MEMORY = lib.BIO_s_mem()
# What two records have at least beside their plaintext: their headers, and in TLS 1.3 a type and a tag.
_TWO_RECORDS = 2 * (5 + 1 + 16)
# How much of a server's handshake is kept: its messages up to the end of a large certificate chain.
_LONGEST_FLIGHT = 64 * 1024
_BOTH_SHUT_DOWN = lib.SSL_SENT_SHUTDOWN | lib.SSL_RECEIVED_SHUTDOWN
# The state of an ``SSL`` of which no handshake message is awaited.
_NO_HANDSHAKE: Final = b"SSL negotiation finished successfully"
# A hash of SHA-384; older versions have 12 bytes.
_LONGEST_FINISHED: Final = 64
# SSL_READ_EARLY_DATA_FINISH.
_EARLY_DATA_FINISHED: Final = 2
_TLS13: Final = 0x0304
# Receives a pointer that nobody looks at.
_no_data = ffi.new("char **")

_ciphers: dict[Any, Cipher] = {}


def _cipher(pointer: Any, ssl: Any) -> Cipher:
    """Return an ``SSL_CIPHER *`` as a value; they are OpenSSL's constants, so each is made once."""
    # Not "if there are none": another thread may be at it.
    if pointer not in _ciphers:
        for first in (0x00, 0x13, 0xC0, 0xCC):
            for second in range(256):
                found = lib.SSL_CIPHER_find(ssl, bytes((first, second)))
                if found != NULL:
                    name = ffi.string(lib.SSL_CIPHER_get_name(found)).decode()
                    _ciphers[found] = Cipher(
                        name=name,
                        standard_name=CIPHER_SUITES.get(first << 8 | second, name),
                        version=ffi.string(lib.SSL_CIPHER_get_version(found)).decode(),
                        secret_bits=lib.SSL_CIPHER_get_bits(found, NULL),
                    )
    return _ciphers[pointer]


class Negotiated(NamedTuple):
    """What OpenSSL tells of a finished handshake, apart from the verdict on the peer."""

    protocol: str
    cipher: Cipher
    alpn_protocol: str | None
    session_reused: bool
    verify_result: int
    certificate: bytes | None
    group: str | None
    peer_chain: tuple[bytes, ...]
    verified_chain: tuple[bytes, ...]


# A context may be another thread's too.
_tracing = threading.Lock()


def _new_traced_ssl(ssl_ctx: Any) -> Any:
    """Return an ``SSL`` that is traced: it takes the context's callback over, and keeps it for good.

    One that another thread makes meanwhile is called back too, and has nothing to tell.
    """
    with _tracing:
        lib.SSL_CTX_set_msg_callback(ssl_ctx, callbacks.on_message)
        try:
            return lib.SSL_new(ssl_ctx)
        finally:
            lib.SSL_CTX_set_msg_callback(ssl_ctx, NULL)


class Connection:
    """One connection's ``SSL`` and its two memory BIOs.

    Attributes:
        verification: The verdict on the peer's chain, if one is to be made.
        alpn_choice: A server's choice of protocol, made from the ClientHello.
        ocsp_staple: The OCSP response that a server presents with its certificate.
        stops_at_certificate: Whether a server ends the handshake as soon as its certificate is chosen.
        refusal: What a callback of OpenSSL's has refused the peer for.
        peer_closed: Whether the peer's close_notify has been read.
        early: What was fed before there is an ``SSL``, or after it was released.
        flight: What the peer has sent since the first byte, as long as somebody wants to know; else None.
        early_data: What a server has read of early data.
        early_data_left: What a client is to send of early data; empty on a server that is to read it; else
            None.
        traced: Whether `on_message` is called with all that passes; to be set before `open`.
        logs_keys: Whether `on_key` is called with the secrets; to be set before `open`.
        may_have_output: Whether OpenSSL may have had something to say since all of it was drained.
        max_send_fragment: The most plaintext in a record, in bytes.
        ticket_arrived: Whether a session ticket has been read, since `watch` was called.
        ciphertext_received: What was fed so far, in bytes.
        ciphertext_sent: What was drained so far, in bytes.
        plaintext_received: What was decrypted so far, in bytes.
        plaintext_sent: What was encrypted so far, in bytes.
    """

    __slots__ = (
        "__weakref__",
        "_borrowed",
        "_digested",
        "_error",
        "_interruption",
        "_kept",
        "_presents",
        "_rbio",
        "_rbio_grown",
        "_ssl",
        "_ssl_ctx",
        "_undigested",
        "_wbio",
        "_wbio_grown",
        "alpn_choice",
        "ciphertext_received",
        "ciphertext_sent",
        "early",
        "early_data",
        "early_data_left",
        "flight",
        "logs_keys",
        "max_send_fragment",
        "may_have_output",
        "ocsp_staple",
        "peer_closed",
        "plaintext_received",
        "plaintext_sent",
        "refusal",
        "stops_at_certificate",
        "ticket_arrived",
        "traced",
        "verification",
    )

    def __init__(self) -> None:
        self._ssl: Any = None
        self._ssl_ctx: Any = None
        # The context with our certificates, which may be another one.
        self._presents: Any = None
        self._rbio: Any = None
        self._wbio: Any = None
        self._rbio_grown = False
        self._wbio_grown = False
        # The memory that the input BIO reads from in place, as long as it is not digested.
        self._borrowed: Any = None
        # Whether OpenSSL has seen all that was fed, so that asking it again is of no use.
        self._digested = True
        # Ciphertext that was fed since everything was digested.
        self._undigested = 0
        self._error: ConnectionFailed | None = None
        # What a callback of OpenSSL's raised that is no refusal: a KeyboardInterrupt, or a defect.
        self._interruption: BaseException | None = None
        # Memory that OpenSSL refers to.
        self._kept: Any = None
        self.verification: PeerVerification | None = None
        self.alpn_choice: bytes | None = None
        self.ocsp_staple: bytes | None = None
        self.stops_at_certificate = False
        self.refusal: ConnectionFailed | None = None
        self.peer_closed = False
        self.early = bytearray()
        self.flight: bytearray | None = None
        self.ticket_arrived = False
        self.early_data = bytearray()
        self.early_data_left: bytes | None = None
        self.traced = False
        self.logs_keys = False
        self.max_send_fragment = MAX_PLAINTEXT_RECORD
        self.may_have_output = False
        self.ciphertext_received = 0
        self.ciphertext_sent = 0
        self.plaintext_received = 0
        self.plaintext_sent = 0

    # Setting up and letting go

    def open(
        self,
        ssl_ctx: Any,
        *,
        server_side: bool,
        server_name: str | None = None,
        alpn_protocols: bytes | None = None,
        request_ocsp: bool = False,
        presents: Any = None,
    ) -> None:
        """Make the ``SSL`` from an ``SSL_CTX``; nothing is sent yet.

        Args:
            ssl_ctx: The context, kept alive as long as the connection.
            server_side: Which role to take.
            server_name: What a client sends as SNI.
            alpn_protocols: What a client offers, in wire format.
            request_ocsp: Whether a client asks for a stapled OCSP response.
            presents: The context with the certificates that a server presents, if it is another one: the
                tickets are those of `ssl_ctx`, and so are all options.
        """
        new = _new_traced_ssl if self.traced else lib.SSL_new
        ssl = ffi.gc(new(ssl_ctx.pointer), lib.SSL_free)
        if self.logs_keys:
            for context in (ssl_ctx, presents):
                if context is not None:
                    lib.SSL_CTX_set_keylog_callback(context.pointer, callbacks.on_keylog)
        self._ssl = ssl
        self._ssl_ctx = ssl_ctx
        self._presents = presents or ssl_ctx
        self._rbio = lib.BIO_new(_MEMORY)
        self._wbio = lib.BIO_new(_MEMORY)
        lib.SSL_set_bio(ssl, self._rbio, self._wbio)
        callbacks.connections[ssl] = self
        if server_side:
            if presents is not None:
                lib.SSL_set_SSL_CTX(ssl, presents.pointer)
            lib.SSL_set_accept_state(ssl)
            if self.early:
                early, self.early = bytes(self.early), bytearray()
                _BIO_write(self._rbio, early, len(early))
                self._rbio_grown = True
                self._digested = False
                self._undigested = len(early)
            return
        lib.SSL_set_connect_state(ssl)
        if server_name is not None:
            lib.SSL_set_tlsext_host_name(ssl, server_name.encode("ascii"))
        if alpn_protocols is not None:
            lib.SSL_set_alpn_protos(ssl, alpn_protocols, len(alpn_protocols))
        if request_ocsp:
            lib.SSL_set_tlsext_status_type(ssl, lib.TLSEXT_STATUSTYPE_ocsp)

    @property
    def ssl(self) -> Any:
        """The ``SSL *``, or None."""
        return self._ssl

    def watch(self) -> None:
        """Let `on_ticket`, `on_handshake_start`, `on_handshake_done` and `on_finished` be called."""
        lib.SSL_set_info_callback(self._ssl, callbacks.on_info)

    def offer_session(self, session: bytes) -> bool:
        """Offer a session to the server; return whether OpenSSL can read it.

        Args:
            session: The DER of an ``SSL_SESSION``.
        """
        source = ffi.new("unsigned char[]", session)
        pointer = lib.d2i_SSL_SESSION(NULL, ffi.new("unsigned char **", source), len(session))
        if pointer == NULL:
            error_queue.drain()
            return False
        taken: bool = lib.SSL_set_session(self._ssl, pointer) == 1
        lib.SSL_SESSION_free(pointer)
        return taken

    def current_session(self) -> bytes | None:
        """Return the DER of the ``SSL_SESSION`` that the connection has now; with TLS 1.3, the newest."""
        pointer = NULL if self._ssl is None else lib.SSL_get_session(self._ssl)
        if pointer == NULL:
            return None
        length = lib.i2d_SSL_SESSION(pointer, NULL)
        destination = ffi.new("unsigned char[]", length)
        lib.i2d_SSL_SESSION(pointer, ffi.new("unsigned char **", destination))
        return bytes(ffi.buffer(destination, length))

    def on_ticket(self) -> None:
        """Take note of a session ticket that has just been read."""
        self.ticket_arrived = True

    def on_handshake_start(self) -> None:
        """Take note that a handshake begins."""

    def on_handshake_done(self) -> None:
        """Take note that a handshake is done."""

    def on_finished(self) -> None:
        """Take note that a server has read a client's Finished."""

    def on_key(self, line: str) -> None:
        """Take a line of the key log.

        Args:
            line: The line, without its end.
        """

    def on_message(self, sent: bool, version: int, content_type: int, data: bytes) -> None:
        """Take what OpenSSL's message callback is given.

        Args:
            sent: Whether it leaves.
            version: The protocol version, as a number.
            content_type: Of what kind it is; 256 is a record's header.
            data: The bytes.
        """

    # After the handshake

    @property
    def prefers_own_order(self) -> bool:
        """Whether a server goes by its own preferences, not by the client's."""
        return bool(lib.SSL_get_options(self._ssl) & lib.SSL_OP_CIPHER_SERVER_PREFERENCE)

    @property
    def exchanges_keys_in_clear(self) -> bool:
        """Whether the version has a ServerKeyExchange, as all before TLS 1.3 have."""
        return bool(lib.SSL_version(self._ssl) < _TLS13)

    def export(self, length: int, label: bytes, context: bytes | None) -> bytes:
        """Return keying material (``SSL_export_keying_material``).

        Args:
            length: How much, in bytes.
            label: What tells it from other material.
            context: What else it depends on; None is not the same as nothing up to TLS 1.2.

        Raises:
            ConfigurationError: the label is reserved, or something is too long.
        """
        out = ffi.new("unsigned char[]", length)
        data = NULL if context is None else context
        size = 0 if context is None else len(context)
        done = lib.SSL_export_keying_material(
            self._ssl, out, length, label, len(label), data, size, context is not None
        )
        if done != 1:
            error = error_queue.connection_error()
            raise ConfigurationError(f"OpenSSL refuses label or length: {error.reason}", code=error.code)
        return bytes(ffi.buffer(out, length))

    def finished_message(self, *, of_peer: bool) -> bytes:
        """Return the latest Finished message, without its header.

        Args:
            of_peer: The peer's, or our own.
        """
        if self._ssl is None:
            return b""
        get = lib.SSL_get_peer_finished if of_peer else lib.SSL_get_finished
        out = ffi.new("unsigned char[]", _LONGEST_FINISHED)
        return bytes(ffi.buffer(out, get(self._ssl, out, _LONGEST_FINISHED)))

    @property
    def has_extended_master_secret(self) -> bool:
        """Whether the keys of TLS 1.2 depend on the whole handshake (RFC 7627)."""
        return bool(lib.SSL_get_extms_support(self._ssl) == 1)

    def demand(self, verify_mode: int) -> None:
        """Set what the next handshake demands of the peer.

        Args:
            verify_mode: OpenSSL's bits for whether the peer must be verified.
        """
        lib.SSL_set_verify(self._ssl, verify_mode, callbacks.on_verify)

    def start_renegotiation(self) -> None:
        """Let the next `read_into` begin another handshake, as soon as no record is there in part only.

        ``SSL_do_handshake`` would fail over data that has arrived.

        Raises:
            ConfigurationError: it is switched off.
        """
        if lib.SSL_renegotiate(self._ssl) != 1:
            error = error_queue.connection_error()
            raise ConfigurationError(f"{error.reason}: secure_options forbids it", code=error.code)
        self._digested = False

    @property
    def renegotiations_begun(self) -> int:
        """How often this side has begun a renegotiation, or a client has answered a HelloRequest."""
        return int(lib.SSL_total_renegotiations(self._ssl))

    def refuse_renegotiation(self) -> None:
        """Answer the peer's hello, also one that is just being read, with the alert no_renegotiation."""
        lib.SSL_set_options(self._ssl, lib.SSL_OP_NO_RENEGOTIATION)

    @property
    def in_handshake(self) -> bool:
        """Whether a handshake message has arrived in part, or another one must follow it."""
        return bool(ffi.string(lib.SSL_state_string_long(self._ssl)) != _NO_HANDSHAKE)

    def start_post_handshake_auth(self) -> None:
        """Let the next `read_into` ask a client of TLS 1.3 for a certificate.

        Raises:
            ConnectionFailed: the client has not said that it may be asked.
        """
        self.watch()
        if lib.SSL_verify_client_post_handshake(self._ssl) != 1:
            raise error_queue.connection_error()
        self._digested = False

    def allow_post_handshake_auth(self) -> None:
        """Tell the server of TLS 1.3 that it may ask for our certificate later; before the handshake."""
        lib.SSL_set_post_handshake_auth(self._ssl, 1)

    def release(self) -> None:
        """Free the ``SSL`` now, whoever still holds this object.  May be called again."""
        ssl, self._ssl = self._ssl, None
        self._ssl_ctx = self._presents = self._rbio = self._wbio = self._borrowed = self.verification = None
        # Their causes have tracebacks, and so may refer to those who hold this object.
        self._error = self.refusal = None
        self._kept = None
        if ssl is not None:
            callbacks.connections.pop(ssl, None)
            # Otherwise OpenSSL would forget the session, unless both sides have said goodbye.
            lib.SSL_set_shutdown(ssl, _BOTH_SHUT_DOWN)
            ffi.release(ssl)

    # Ciphertext

    def feed_from(self, source: Any, length: int) -> None:
        """Take ciphertext from memory; a large piece is not copied.

        The memory must keep its content until the next verb has returned.  What comes before there is an
        ``SSL`` is held in `early`.

        Args:
            source: A cffi pointer that keeps its memory alive.
            length: How many bytes.
        """
        self.ciphertext_received += length
        if self.flight is not None and len(self.flight) < _LONGEST_FLIGHT:
            self.flight += ffi.buffer(source, length)
        if self._ssl is None:
            self.early += ffi.buffer(source, length)
            return
        if length > MAX_PLAINTEXT_RECORD and self._digested:
            bio = lib.BIO_new_mem_buf(source, length)
            lib.BIO_set_mem_eof_return(bio, -1)
            self._replace_rbio(bio)
            self._borrowed = source
        else:
            if self._borrowed is not None:
                self.settle()
            _BIO_write(self._rbio, source, length)
            if length > _SMALL:
                self._rbio_grown = True
        self._digested = False
        self._undigested += length

    def _replace_rbio(self, bio: Any) -> None:
        lib.SSL_set_bio(self._ssl, bio, self._wbio)
        self._rbio = bio
        self._rbio_grown = False

    def _replace_wbio(self) -> None:
        self._wbio = lib.BIO_new(_MEMORY)
        lib.SSL_set_bio(self._ssl, self._rbio, self._wbio)
        self._wbio_grown = False

    def settle(self) -> None:
        """Copy what is left of borrowed memory, which is somebody else's once a verb has returned."""
        if self._borrowed is None:
            return
        bio = lib.BIO_new(_MEMORY)
        copied = False
        while (count := _BIO_read(self._rbio, buffers.outgoing, OUTGOING_SIZE)) > 0:
            _BIO_write(bio, buffers.outgoing, count)
            copied = True
        self._replace_rbio(bio)
        self._borrowed = None
        self._rbio_grown = copied

    def _all_digested(self) -> None:
        """Note that OpenSSL waits for more, and give back what the BIOs hold in vain."""
        self._digested = True
        self._undigested = 0
        if self._borrowed is not None or self._rbio_grown:
            self._replace_rbio(lib.BIO_new(_MEMORY))
            self._borrowed = None
        if self._wbio_grown and not self.has_output:
            self._replace_wbio()

    @property
    def has_output(self) -> bool:
        """Whether there is ciphertext to be drained."""
        return bool(_BIO_get_mem_data(self._wbio, _no_data) > 0)

    def drain_into(self, used: int) -> int:
        """Move pending ciphertext into the thread's outgoing buffer.

        Args:
            used: How many bytes of the buffer are used already; the ciphertext goes behind them.

        Returns:
            How many bytes of the buffer are used now.
        """
        moved: int = _BIO_read(self._wbio, buffers.outgoing + used, OUTGOING_SIZE - used)
        self.may_have_output = used + max(moved, 0) == OUTGOING_SIZE
        if moved <= 0:
            return used
        self.ciphertext_sent += moved
        if moved > _SMALL:
            self._wbio_grown = True
        return used + moved

    # The data phase

    def read_into(self, destination: Any, size: int) -> int | None:
        """Decrypt what was fed.

        Args:
            destination: A cffi pointer.
            size: The most bytes to write there.

        Returns:
            How many; 0 after the peer's close_notify; None if ciphertext is needed first.

        Raises:
            ConnectionFailed: the peer sent an alert, or something that is no TLS.
        """
        if self._error is not None:
            raise self._error.again()
        if self._digested:
            if self._interruption is not None:
                self._interrupt()
            return 0 if self.peer_closed else None
        ssl = self._ssl
        total = 0
        self.may_have_output = True
        _ERR_clear_error()
        while total < size:
            count = _SSL_read(ssl, destination + total, size - total)
            if count > 0:
                total += count
                if self._undigested - total < _TWO_RECORDS:
                    # Nothing whole is left.  To ask costs less than to be told so by another SSL_read.
                    if (
                        not _SSL_pending(ssl)
                        and _BIO_get_mem_data(self._rbio, _no_data) <= 0
                        # It begins only now, as no record is there in part any more.
                        and not _SSL_renegotiate_pending(ssl)
                    ):
                        self._all_digested()
                    break
                continue
            status = _SSL_get_error(ssl, count)
            if status == _WANT_READ:
                self._all_digested()
            elif status == _ZERO_RETURN:
                self._all_digested()
                self.peer_closed = True
            else:
                self._keep_error()
            break
        self.plaintext_received += total
        if self._borrowed is not None:
            self.settle()
        if total or self.peer_closed:
            return total
        if self._interruption is not None:
            self._interrupt()
        if self._error is not None:
            raise self._error.again()
        return None

    def peek(self) -> bool:
        """Look whether the next thing that the peer said ends the connection.

        Returns:
            Whether it is data, which has to be read first.

        Raises:
            ConnectionFailed: it did: an alert, or something that is no TLS.
        """
        if self._error is not None:
            raise self._error.again()
        if self._digested:
            return False
        self.may_have_output = True
        _ERR_clear_error()
        count = lib.SSL_peek(self._ssl, buffers.plaintext, 1)
        status = _SSL_get_error(self._ssl, count)
        self.settle()
        if status == lib.SSL_ERROR_SSL:
            raise self._keep_error().again()
        self.peer_closed = self.peer_closed or status == _ZERO_RETURN
        return bool(count > 0)

    def write_from(self, source: Any, offset: int, length: int, used: int) -> tuple[int, int]:
        """Encrypt from a cffi pointer into the thread's outgoing buffer, until either is at its end.

        Each record is taken out of the BIO at once: a BIO that holds more than one grows and is cleared,
        which costs more than the encryption.

        Args:
            source: The plaintext.
            offset: How many bytes of it are done.
            length: How many bytes it has.
            used: How many bytes of the outgoing buffer are used.

        Returns:
            `offset` and `used` as they are now; `offset` is what it was if ciphertext is needed first, to end
            a handshake.

        Raises:
            ConnectionFailed: OpenSSL cannot encrypt any more.
        """
        if self._error is not None:
            raise self._error.again()
        ssl = self._ssl
        wbio = self._wbio
        outgoing = buffers.outgoing
        fragment = self.max_send_fragment
        offset_before, used_before = offset, used
        self.may_have_output = True
        _ERR_clear_error()
        while offset < length and used <= OUTGOING_SIZE - MAX_CIPHERTEXT_RECORD:
            count = _SSL_write(ssl, source + offset, min(length - offset, fragment))
            if count <= 0:
                if _SSL_get_error(ssl, count) == _WANT_READ:
                    break
                raise self._keep_error().again()
            offset += count
            used += _BIO_read(wbio, outgoing + used, OUTGOING_SIZE - used)
        else:
            self.may_have_output = used == OUTGOING_SIZE
        self.plaintext_sent += offset - offset_before
        self.ciphertext_sent += used - used_before
        if used - used_before > _SMALL:
            self._wbio_grown = True
        return offset, used

    def send_close_notify(self) -> None:
        """Put a close_notify into the outgoing BIO; only once, and only after the handshake.

        A second ``SSL_shutdown`` would look for the peer's, and end the connection over data before it.
        """
        self.may_have_output = True
        lib.SSL_shutdown(self._ssl)
        error_queue.drain()

    # The handshake

    def step_handshake(self) -> bool:
        """Do what can be done of the handshake with the ciphertext that was fed.

        Returns:
            Whether it is done; if not, ciphertext is needed first, or the peer has said goodbye.

        Raises:
            ConnectionFailed: it failed; the alert for the peer is pending.
        """
        if self._error is not None:
            raise self._error.again()
        result = 0
        self.may_have_output = True
        if self.early_data_left is None or self._pass_early_data():
            result = lib.SSL_do_handshake(self._ssl)
        status = _SSL_get_error(self._ssl, result)
        if self._error is not None:
            # A callback that cannot refuse has raised.
            raise self._error.again()
        if status in (_WANT_READ, _ZERO_RETURN):
            self._all_digested()
            self.peer_closed = self.peer_closed or status == _ZERO_RETURN
        else:
            self.settle()
            if result != 1:
                self._keep_error()
        if self._interruption is not None:
            self._interrupt()
        if self._error is not None:
            # Not by way of a variable: its cause has a traceback, which refers to this frame.
            raise self._error.again()
        return bool(result == 1)

    def _interrupt(self) -> NoReturn:
        assert self._interruption is not None
        try:
            raise self._interruption
        finally:
            self._interruption = None

    def _pass_early_data(self) -> bool:
        """Take a client's early data, or send ours; return whether the rest of the handshake is next."""
        count = ffi.new("size_t *")
        if self.early_data_left:
            # It goes with the ClientHello; a memory BIO takes all of it.
            sent = lib.SSL_write_early_data(
                self._ssl, bytes(self.early_data_left), len(self.early_data_left), count
            )
            self.early_data_left = None
            return bool(sent == 1)
        while (status := lib.SSL_read_early_data(self._ssl, buffers.plaintext, PLAINTEXT_SIZE, count)) == 1:
            self.early_data += buffers.plaintext_view[: count[0]]
        if status != _EARLY_DATA_FINISHED:
            return False
        self.early_data_left = None
        return True

    # What OpenSSL's callbacks ask; a subclass knows

    def refuse_server_name(self, name: str | None) -> ConnectionFailed | None:  # noqa: ARG002
        """Return why a server does not go on with the name in a ClientHello of TLS 1.3, or None."""
        return None

    def judge_staple(self, response: bytes | None) -> None:
        """Take a server's stapled OCSP response, or hear that there is none; raise to refuse."""

    def client_psk(self, hint: str | None) -> PreSharedKey | None:  # noqa: ARG002
        """Return a client's pre-shared key, or None."""
        return None

    def client_psk_session(self, *, retried: bool) -> tuple[bytes, bytes] | None:  # noqa: ARG002
        """Return the identity of a client's pre-shared key of TLS 1.3, and the session for it, or None."""
        return None

    def server_psk(self, identity: bytes) -> PreSharedKey | None:  # noqa: ARG002
        """Return the pre-shared key of a client of TLS 1.2, or None."""
        return None

    def server_psk_session(self, identity: bytes) -> bytes | None:  # noqa: ARG002
        """Return the session that stands for the pre-shared key of a client of TLS 1.3, or None."""
        return None

    def keep(self, error: BaseException) -> None:
        """Keep what a callback of OpenSSL's raised; the verb during which it was called raises it.

        Args:
            error: What it raised.
        """
        if isinstance(error, ConnectionFailed):
            self.refusal = error
        else:
            self._interruption = error

    def keep_alive(self, data: bytes) -> Any:
        """Return a pointer to a copy of bytes that lives as long as the ``SSL``.

        Args:
            data: The bytes.
        """
        self._kept = ffi.new("unsigned char[]", data)
        return ffi.cast("unsigned char *", self._kept)

    def retried_with(self, digest: str) -> bool:
        """Whether the suite of the server's HelloRetryRequest has this hash.

        Args:
            digest: Its name ("SHA256").
        """
        suite = selected_cipher_suite(bytes(self.flight or b""))
        return CIPHER_SUITES.get(suite or 0, "").endswith(digest)

    def stapled_response(self) -> bytes | None:
        """Return the OCSP response that the server has stapled, or None."""
        pointer = ffi.new("unsigned char **")
        length = lib.SSL_get_tlsext_status_ocsp_resp(self._ssl, pointer)
        if length <= 0 or pointer[0] == NULL:
            return None
        return bytes(ffi.buffer(pointer[0], length))

    def peer_chain(self, *, server_side: bool) -> tuple[bytes, ...]:
        """Return the certificates that the peer presented, its own first.

        Args:
            server_side: Which role this is.
        """
        ders = self._known_ders
        chain = ders_of(lib.SSL_get_peer_cert_chain(self._ssl), ders)
        if server_side or not chain:
            # A server's view of the chain leaves out the client's own certificate.
            peer = lib.SSL_get_peer_certificate(self._ssl)
            if peer != NULL:
                chain = (der_of(peer, ders), *chain)
                lib.X509_free(peer)
        return chain

    def verified_chain(self) -> tuple[bytes, ...]:
        """Return the chain from the peer's certificate to a trusted one, as far as it is verified by now."""
        return ders_of(lib.SSL_get0_verified_chain(self._ssl), self._known_ders)

    @property
    def _known_ders(self) -> dict[Any, bytes]:
        return {} if self.verification is None else self.verification.ders

    def own_certificate(self) -> bytes | None:
        """Return the certificate that was chosen to be presented, or None."""
        own = lib.SSL_get_certificate(self._ssl)
        return None if own == NULL else der_of(own, self._presents.own_ders)

    def _keep_error(self) -> ConnectionFailed:
        """Take the error that OpenSSL reports, once only, and keep it; what is raised are copies of it.

        The one that is kept has no traceback, and so no reference to those who hold this object.
        """
        error = error_queue.connection_error()
        if self.refusal is not None:
            error = self.refusal
        elif error.code == "ERR_SSL_CERTIFICATE_VERIFY_FAILED" and self.verification is not None:
            error = self.verification.error() or error
        elif error.code == "ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE":
            error = CertificateError(error.reason, code=error.code, hint=DIAGNOSES[error.code].remedy)
        self._error = error
        return error

    @property
    def openssl_state(self) -> str | None:
        """How far the handshake got, in OpenSSL's words; None while there is no ``SSL``."""
        if self._ssl is None:
            return None
        return ffi.string(lib.SSL_state_string_long(self._ssl)).decode()  # type: ignore[no-any-return]

    def negotiated(self, *, server_side: bool) -> Negotiated:
        """Read off what the handshake has negotiated.

        Args:
            server_side: Which role this is.
        """
        ssl = self._ssl
        alpn, alpn_length = ffi.new("unsigned char **"), ffi.new("unsigned int *")
        lib.SSL_get0_alpn_selected(ssl, alpn, alpn_length)
        group = lib.SSL_get0_group_name(ssl)
        return Negotiated(
            protocol=ffi.string(lib.SSL_get_version(ssl)).decode(),
            cipher=_cipher(lib.SSL_get_current_cipher(ssl), ssl),
            alpn_protocol=ffi.unpack(ffi.cast("char *", alpn[0]), alpn_length[0]).decode("latin-1")
            if alpn_length[0]
            else None,
            session_reused=lib.SSL_session_reused(ssl) == 1,
            verify_result=lib.SSL_get_verify_result(ssl),
            certificate=self.own_certificate(),
            group=None if group == NULL else ffi.string(group).decode(),
            peer_chain=self.peer_chain(server_side=server_side),
            verified_chain=self.verified_chain(),
        )
