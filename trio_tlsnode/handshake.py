"""Handshake: a connection's first one, from the ClientHello to what was negotiated.

A server's stops at the ClientHello, so that its user can choose before OpenSSL has seen a byte.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ._openssl.buffers import buffers
from ._openssl.connection import Connection
from ._openssl.ssl_ctx import VERIFY_NONE, VERIFY_PEER, VERIFY_REQUIRED, SSLContext
from ._openssl.verification import certificate_error
from .alerts import Alert
from .alpn import (
    ALPNProtocols,
    alpn_wire_format,
    no_application_protocol,
    parse_alpn_protocols,
    select_alpn_protocol,
)
from .certificates import Certificate
from .client_hello import ClientHello, ClientHelloReader, MalformedClientHello, looks_like
from .context import SecureContext
from .errors import (
    CallbackError,
    ConfigurationError,
    ConnectionFailed,
    ConnectionLost,
    NotTLS,
    ProtocolError,
)
from .info import ConnectionInfo
from .ocsp import UNREADABLE_RESPONSE, OCSPMode, ocsp_problem
from .outcome import Outcome
from .psk import PreSharedKey, PSKRole, psk_session
from .record_layer import Want
from .server_flight import ephemeral_dh_bits

if TYPE_CHECKING:
    from .stream import TLSStream

OCSPResponseCallback = Callable[[bytes | None], object]
"""``on_ocsp_response``: given the stapled response in DER, or None; raises to refuse.  Not async."""

ClientPSKCallback = Callable[[str | None], PreSharedKey | None]
"""A client's ``psk``: given the server's hint, or None; returns a key, or None to do without.  It may not be
async."""

FindPSK = Callable[["TLSStream", bytes], PreSharedKey | None]
"""Finds the key of an identity that a client of TLS 1.2 names, or returns None."""

# What OpenSSL says of a stapled response in which it can read nothing.
_UNREADABLE_STAPLE: Final = "ERR_SSL_TLSV1_BAD_CERTIFICATE_STATUS_RESPONSE"
# Enough to tell what a peer speaks that does not speak TLS.
_FIRST_BYTES: Final = 64
_HANDSHAKE_RECORD: Final = b"\x16"
# Fewer bytes of something that is not TLS do not tell an HTTP request from garbage.
_ENOUGH_TO_NAME: Final = 8
# Node's words for it, on clients and on servers.
ENDED_EARLY: Final = (
    "the connection ended before it was secure",
    "the client hung up before the connection was secure",
)


class Handshake(Outcome):
    """A connection's first handshake."""

    __slots__ = (
        "_alpn_protocols",
        "_find_psk",
        "_malformed",
        "_ocsp",
        "_on_ocsp_response",
        "_psk",
        "_psk_choice",
        "_psk_without_hint",
        "_reader",
        "_resumable",
        "_staple_judges",
        "_tickets_of",
    )

    def _set_up_handshake(
        self,
        *,
        alpn_protocols: ALPNProtocols | None,
        psk: ClientPSKCallback | None,
        on_ocsp_response: OCSPResponseCallback | None,
        ocsp: OCSPMode | None,
    ) -> None:
        self._alpn_protocols = parse_alpn_protocols(alpn_protocols)
        self._psk = psk
        self._psk_without_hint: tuple[PreSharedKey | None] | None = None
        self._psk_choice: PreSharedKey | None = None
        self._find_psk: FindPSK | None = None
        self._on_ocsp_response = on_ocsp_response
        self._ocsp = ocsp
        # What a session may not cross; of a callback, another process knows only that there is one.
        self._staple_judges = f"{ocsp or ''} {'' if on_ocsp_response is None else 'on_ocsp_response'}".strip()
        self._resumable = True
        self._tickets_of: SecureContext | None = None
        self._reader = ClientHelloReader() if self.server_side else None
        self._malformed: MalformedClientHello | None = None

    def _begin_as_client(self, *, request_ocsp: bool, post_handshake_auth: bool) -> None:
        """Make a client's ``SSL``; nothing is sent yet."""
        if self._psk is not None:
            require_psk_suite(self.context)
        self.flight = bytearray()
        self.verification = self._new_verification()
        self.open(
            self.context.ssl_ctx(
                server_side=False,
                verify_mode=VERIFY_PEER,
                psk=None if self._psk is None else PSKRole(),
                ocsp=self._staple_judges,
            ),
            server_side=False,
            server_name=self.server_name,
            alpn_protocols=alpn_wire_format(self._alpn_protocols) or None,
            request_ocsp=request_ocsp or self._staple_judges != "",
        )
        if post_handshake_auth:
            self.allow_post_handshake_auth()

    def read_client_hello(self) -> ClientHello | Want:
        """Return a server's view of the client's first message.

        Raises:
            NotTLS: the peer speaks something else.
            ProtocolError: the message is malformed; the alert is pending.
        """
        if self._error is not None:
            raise self._error.again()
        if self.client_hello is not None:
            return self.client_hello
        if self._starts_trace:
            self._start_trace()
        reader = self._reader
        assert reader is not None
        early, self.early = self.early, bytearray()
        if self._malformed is not None:
            reader.received += early
        else:
            try:
                self.client_hello = reader.feed(early)
            except MalformedClientHello as malformed:
                # Its traceback would be a cycle.
                self._malformed = malformed.with_traceback(None)
        if self._malformed is not None:
            return self._refuse_malformed(self._malformed, bytes(reader.received))
        if self.client_hello is None:
            if self.eof:
                raise ConnectionLost(ENDED_EARLY[True])
            return Want.READ
        self.server_name = self.client_hello.server_name
        if self.trace is not None:
            self._tell_in_clear(bytes(reader.received), sent=False)
            if self._error is not None:
                self.refuse(self._error, Alert.internal_error)
        return self.client_hello

    @property
    def undecided(self) -> bool:
        """Whether a server has read the ClientHello and nobody has chosen yet."""
        return self._reader is not None and self.client_hello is not None

    def _refuse_malformed(self, malformed: MalformedClientHello, received: bytes) -> Want:
        if not malformed.is_tls and self._too_few_to_name(received):
            return Want.READ
        # OpenSSL has the verdict and the alert; what it would accept is refused all the same, as no choice
        # could be made for it.  So it is not traced: its answer may be one that does not leave.
        self.traced = False
        self.choose(self.context)
        self._malformed = malformed
        error: ConnectionFailed = ProtocolError(malformed.reason, code="ERR_SSL_DECODE_ERROR")
        if malformed.alert is not None:
            self._held = malformed.alert.plaintext_record()
        try:
            self.step_handshake()
        except ConnectionFailed as verdict:
            answer = bytes(buffers.outgoing_view[: self.drain_into(0)])
            # It may be the verdict on what came behind a hello that OpenSSL has accepted, and answered.
            if answer[:1] != _HANDSHAKE_RECORD:
                error, self._held = verdict.again(), answer
        else:
            self.drain_into(0)
        if not malformed.is_tls:
            error = _not_tls(received, error)
        self._tell_in_clear(received, sent=False)
        self._tell_in_clear(self._held, sent=True)
        self._error = error
        raise error.again()

    def choose(
        self,
        context: SecureContext,
        *,
        alpn_protocol: str | None = None,
        request_cert: bool | None = None,
        reject_unauthorized: bool | None = None,
        ocsp_staple: bytes | None = None,
        tickets_of: SecureContext | None = None,
        resumable: bool = True,
        max_early_data: int = 0,
        psk: PreSharedKey | None = None,
        psk_role: PSKRole | None = None,
        find_psk: FindPSK | None = None,
    ) -> None:
        """Go on with a server's handshake, as was decided from the ClientHello.

        Args:
            context: What the connection is made from.
            alpn_protocol: The application protocol, one that the client offered, or None.
            request_cert: Whether to ask the client for a certificate; None leaves it as it was.
            reject_unauthorized: Whether to refuse a client that is not verified; None leaves it as it was.
            ocsp_staple: The OCSP response to present with the certificate, DER.
            tickets_of: Whose ticket keys to use, if not `context`'s; it may differ in credentials alone.
            resumable: Whether a session may be resumed, and made for it.
            max_early_data: How much early data to accept, in bytes.
            psk: The pre-shared key for one of the identities in the hello.
            psk_role: What connections that may use pre-shared keys need; None allows none.
            find_psk: Finds the key of a client of TLS 1.2, which names its identity later.
        """
        assert self._reader is not None
        if request_cert is not None:
            self._request_cert = request_cert
        if reject_unauthorized is not None:
            self._reject_unauthorized = reject_unauthorized
        self.context = context
        self.alpn_choice = None if alpn_protocol is None else alpn_protocol.encode("latin-1")
        self.verification = self._new_verification()
        verify_mode = verify_mode_for(self._request_cert, self._reject_unauthorized)
        self.ocsp_staple = ocsp_staple
        self._resumable = resumable
        self._psk_choice = psk
        self._allows_psk = psk_role is not None
        self._find_psk = find_psk
        self._tickets_of = tickets_of
        if max_early_data and self.client_hello is not None and self.client_hello.early_data:
            self.early_data_left = b""
        self.early[:0] = self._reader.received
        self._reader = None

        def ssl_ctx(context: SecureContext) -> SSLContext:
            return context.ssl_ctx(
                server_side=True,
                verify_mode=verify_mode,
                psk=psk_role,
                resumable=resumable,
                max_early_data=max_early_data,
            )

        if tickets_of is None:
            self.open(ssl_ctx(context), server_side=True)
        else:
            self.open(ssl_ctx(tickets_of), server_side=True, presents=ssl_ctx(context))

    def certificate_for_client(self, context: SecureContext) -> bytes | None:
        """Return the certificate that a server presents to this client, DER, unless it has none.

        With one certificate it is that one.  Of several, OpenSSL is asked, with a copy of the hello.  Whether
        a session is resumed instead is left open: to find out could use up the client's ticket.

        Args:
            context: What the connection will be made from.
        """
        certificates = context.certificates
        if len(certificates) < 2:
            return certificates[0] if certificates else None
        assert self._reader is not None
        trial = Connection()
        trial.stops_at_certificate = True
        trial.early = bytearray(self._reader.received)
        ssl_ctx = context.ssl_ctx(server_side=True, verify_mode=VERIFY_NONE, resumable=False)
        trial.open(ssl_ctx, server_side=True)
        try:
            trial.step_handshake()
        except ConnectionFailed:
            return trial.own_certificate()
        finally:
            trial.release()
        # It has a cipher suite without certificates.
        return None

    def do_handshake(self) -> ConnectionInfo | Want:
        """Do what can be done of the handshake.  A server that was told nothing chooses its own context.

        Returns:
            What was negotiated, or `Want.READ`.  In both cases there may be ciphertext to drain first.

        Raises:
            ConnectionFailed: the handshake failed; the alert for the peer is to be drained.
        """
        if self.info is not None:
            return self.info
        if self._starts_trace:
            self._start_trace()
        if self._reader is not None:
            hello = self.read_client_hello()
            if isinstance(hello, Want):
                return hello
            protocol = select_alpn_protocol(self._alpn_protocols, hello.alpn_protocols)
            if protocol is None and self._alpn_protocols and hello.alpn_protocols:
                self.refuse(no_application_protocol(), Alert.no_application_protocol)
            self.choose(self.context, alpn_protocol=protocol)
        in_clear = (self.logs_keys or self.traced) and not self.finished_message(of_peer=False)
        try:
            done = self.step_handshake()
        except CallbackError as error:
            if error.callback in ("keylog", "trace"):
                self._hang_up(in_clear=in_clear)
            raise
        except ProtocolError as error:
            if self.flight is None:
                raise
            first_bytes = bytes(self.flight[:_FIRST_BYTES])
            if self._too_few_to_name(first_bytes):
                return Want.READ
            self._error = _not_tls(first_bytes, error).again()
            raise self._error.again() from None
        if self.flight and self.exchanges_keys_in_clear and self.has_output:
            # Our half of the exchange, if there is one, waits there.
            self._check_dh_size(bytes(self.flight))
        if done:
            return self._finish()
        if self.eof or self.peer_closed:
            raise ConnectionLost(ENDED_EARLY[self.server_side])
        return Want.READ

    def _too_few_to_name(self, received: bytes) -> bool:
        """Whether more bytes may tell better what it is that is no TLS."""
        return len(received) < _ENOUGH_TO_NAME and not self.eof and looks_like(received) is not None

    def _check_dh_size(self, flight: bytes) -> None:
        """Refuse a group that is too small, before our half of the exchange has left."""
        bits = ephemeral_dh_bits(flight)
        if bits is not None and bits < self._min_dh_size:
            self.drain_into(0)
            error = ProtocolError(
                f"the server's Diffie-Hellman group has {bits} bits; min_dh_size is {self._min_dh_size}",
                code="ERR_TLS_DH_PARAM_SIZE",
            )
            self.refuse(error, Alert.insufficient_security)

    def _finish(self) -> ConnectionInfo:
        negotiated = self.negotiated(server_side=self.server_side)
        if self.server_side and negotiated.protocol == "TLSv1.3":
            # Tickets: a client that only writes would never read them, and closing over unread input destroys
            # data.  They leave with the first data or the goodbye.
            self._held = bytes(buffers.outgoing_view[: self.drain_into(0)])
        if self.flight is not None and self._hides_dh_size(negotiated):
            self._give_up(
                ProtocolError(
                    "the server's Diffie-Hellman group is unknown: more came before it than is kept",
                    code="ERR_TLS_DH_PARAM_SIZE",
                )
            )
        if self.server_side and self.alpn_choice is not None and negotiated.alpn_protocol is None:
            # OpenSSL compares the two hellos around a HelloRetryRequest in little more than their lists.
            self._give_up(
                ProtocolError("the client no longer offers a protocol", code="ERR_SSL_BAD_EXTENSION")
            )
        self._check_group(negotiated)
        self.info = self._negotiated_info(negotiated)
        self.verification = self.flight = self._psk_choice = self._psk_without_hint = None
        if negotiated.protocol != "TLSv1.3":
            self.watch()
        if self.trace is not None:
            self._tell("trace", self.trace.finished, self.info, self._clock())
            if self._error is not None:
                self.info = None
                self._give_up(self._error)
        return self.info

    def _keep_error(self) -> ConnectionFailed:
        error = super()._keep_error()
        if isinstance(error, ProtocolError) and error.code == _UNREADABLE_STAPLE:
            error = self._error = certificate_error([UNREADABLE_RESPONSE], peer="server")
        return error

    # What OpenSSL's callbacks ask

    def judge_staple(self, response: bytes | None) -> None:
        """Take a server's stapled OCSP response; raise to refuse.

        Args:
            response: The response in DER, or None.

        Raises:
            CallbackError: `on_ocsp_response` raised.
            CertificateError: the response is bad, or is missing.
        """
        chain = self.verified_chain() or self.peer_chain(server_side=False)
        if not chain:
            # Up to TLS 1.2: the server has a pre-shared key, or is anonymous.
            return
        if self._on_ocsp_response is not None:
            self._call("on_ocsp_response", self._on_ocsp_response, response)
        if self._ocsp is None:
            return
        problem = ocsp_problem(
            response,
            certificate=Certificate(chain[0]),
            issuer=Certificate(chain[1]) if len(chain) > 1 else None,
            at=self.context.verification_time,
            require=self._ocsp == "require",
        )
        if problem is not None and self._reject_unauthorized:
            raise certificate_error([problem], peer="server", at=self.context.verification_time)
        self._ocsp_problem = problem

    def client_psk(self, hint: str | None) -> PreSharedKey | None:
        """Return a client's pre-shared key, or None.

        Args:
            hint: What the server says to help to choose, or None.

        Raises:
            CallbackError: `psk` raised, or returned what it may not.
        """
        if hint is None and self._psk_without_hint is not None:
            return self._psk_without_hint[0]
        psk = self._call("psk", self._psk, hint)
        if psk is not None and not isinstance(psk, PreSharedKey):
            raise CallbackError(f"psk returned {type(psk).__name__}, not a PreSharedKey", callback="psk")
        if hint is None:
            self._psk_without_hint = (psk,)
        return psk

    def client_psk_session(self, *, retried: bool) -> tuple[bytes, bytes] | None:
        """Return the identity of a client's pre-shared key of TLS 1.3, and the session for it, or None.

        Args:
            retried: Whether the server has chosen a cipher suite already, by a HelloRetryRequest.

        Raises:
            CallbackError: `psk` raised, or returned what it may not.
        """
        psk = self.client_psk(None)
        if psk is None or (retried and not self.retried_with(psk.hash)):
            return None
        return psk.identity.encode(), self._session_for(psk)

    def server_psk(self, identity: bytes) -> PreSharedKey | None:
        """Return the pre-shared key of a client of TLS 1.2, or None.

        Args:
            identity: What the client calls it.

        Raises:
            CallbackError: `psk` raised, or returned what it may not.
        """
        stream = self.stream
        return None if self._find_psk is None or stream is None else self._find_psk(stream, identity)

    def server_psk_session(self, identity: bytes) -> bytes | None:
        """Return the session that stands for the pre-shared key of a client of TLS 1.3, or None.

        Args:
            identity: One of those that the client names; others may be tickets.
        """
        psk = self._psk_choice
        return None if psk is None or psk.identity.encode() != identity else self._session_for(psk)

    def _session_for(self, psk: PreSharedKey) -> bytes:
        # A server's is tied to its trust by OpenSSL.
        trust = b"" if self.server_side else self._ssl_ctx.session_id_context
        return psk_session(psk, timeout=int(self.context.session_timeout), session_id_context=trust)

    def refuse_server_name(self, name: str | None) -> ConnectionFailed | None:
        """Refuse a second hello, after a HelloRetryRequest or later, that names another host than the first.

        Args:
            name: The host that it names, or None.
        """
        if self.client_hello is None or name == self.client_hello.server_name:
            return None
        return ProtocolError("the client changed the server name", code="ERR_SSL_BAD_EXTENSION")

    def release(self) -> None:
        """Let go of the ClientHello's bytes and of the callbacks, too."""
        super().release()
        self._find_psk = self._psk = self._psk_choice = self._psk_without_hint = self._malformed = None
        if self._reader is not None:
            self._reader.received.clear()


def verify_mode_for(request_cert: bool, reject_unauthorized: bool) -> int:
    """Return OpenSSL's bits for a server's demands on its clients' certificates.

    Args:
        request_cert: Whether clients are asked for one.
        reject_unauthorized: Whether one that is not verified is refused.
    """
    if not request_cert:
        return VERIFY_NONE
    return VERIFY_REQUIRED if reject_unauthorized else VERIFY_PEER


def require_psk_suite(context: SecureContext) -> None:
    """Raise `ConfigurationError` if no connection of a context could use a pre-shared key."""
    if not context.can_use_psk:
        raise ConfigurationError(
            "psk needs a suite for pre-shared keys in ciphers, as there is no TLS 1.3: "
            'ciphers="PSK" names those there are',
            code="ERR_SSL_NO_CIPHER_MATCH",
            option="ciphers",
        )


def _not_tls(first_bytes: bytes, error: ConnectionFailed) -> ConnectionFailed:
    """Return what a peer is that does not speak TLS; `error` is OpenSSL's verdict on it."""
    what = looks_like(first_bytes)
    if what is None:
        return error
    return NotTLS(
        f"the peer sent {what} where TLS was expected",
        code=error.code,
        looks_like=what,
        first_bytes=first_bytes[:32],
    )
