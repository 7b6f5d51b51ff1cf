"""Engine: one connection's TLS without any I/O.

Ciphertext goes in by `feed` and comes out by `drain`; plaintext goes in by `write` and comes out by `read`.
Nothing here waits, and nothing knows a socket, a clock or an event loop.  A server's engine stops at the
ClientHello, so that its user can choose before OpenSSL has seen a byte.
"""

from __future__ import annotations

import enum
import inspect
import time
import weakref
from collections import deque
from collections.abc import Callable, Hashable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, TypeVar

from ._openssl.buffers import PLAINTEXT_SIZE, buffers
from ._openssl.connection import Connection, Negotiated
from ._openssl.groups import ephemeral_key, iana_name
from ._openssl.library import memory_of, pointer_to
from ._openssl.ssl_ctx import (
    VERIFY_NONE,
    VERIFY_PEER,
    VERIFY_POST_HANDSHAKE,
    VERIFY_REQUIRED,
    SSLContext,
)
from ._openssl.verification import PeerVerification, certificate_error
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
from .defaults import defaults
from .diagnosis import DIAGNOSES
from .errors import (
    CallbackError,
    CertificateError,
    CertificateProblem,
    ConfigurationError,
    ConfigurationTypeError,
    ConnectionFailed,
    ConnectionLost,
    IdentityError,
    NeedHandshakeError,
    NotTLS,
    ProtocolError,
    TruncationError,
)
from .identity import check_server_identity
from .info import ConnectionInfo, EphemeralKey
from .keylog import KeyLog, key_log_sink
from .ocsp import UNREADABLE_RESPONSE, OCSPMode, ocsp_problem
from .option_values import check_callable, check_flag, check_limit, check_seconds, optional_callable
from .psk import PreSharedKey, PSKRole, psk_identity, psk_session
from .server_flight import accepts_early_data, ephemeral_dh_bits, uses_dhe
from .server_names import client_names
from .sessions import PeerChains, Session, named
from .signature_algorithms import shared_signature_algorithms
from .trace import Trace, handshake_trace

if TYPE_CHECKING:
    from .stream import TLSStream

T = TypeVar("T")

IdentityCheck = Callable[[str, Certificate | None], object]
"""``check_server_identity``: given the name and the certificate; raises, or returns an exception, to
refuse.  It may not be async."""

OCSPResponseCallback = Callable[[bytes | None], object]
"""``on_ocsp_response``: given the stapled response in DER, or None; raises to refuse.  Not async."""

ClientPSKCallback = Callable[[str | None], PreSharedKey | None]
"""A client's ``psk``: given the server's hint, or None; returns a key, or None to do without.  It may not be
async."""

SessionCallback = Callable[[bytes], object]
"""``on_session``: given a session that can be resumed later.  It may not be async."""

FindPSK = Callable[["TLSStream", bytes], PreSharedKey | None]
"""Finds the key of an identity that a client of TLS 1.2 names, or returns None."""

# Node's: what it refuses is within reach of an attacker (Logjam).
DEFAULT_MIN_DH_SIZE: Final = 1024
# What OpenSSL says of a stapled response in which it can read nothing.
_UNREADABLE_STAPLE: Final = "ERR_SSL_TLSV1_BAD_CERTIFICATE_STATUS_RESPONSE"
# Decrypted while a handshake that we have asked for is waited for, in bytes, apart from the last read.
_MOST_BACKLOG: Final = 1024 * 1024
# What TLS 1.3 can derive at once is less.
_MOST_EXPORTED: Final = 65535
# What OpenSSL's message callback calls a handshake message, and RFC 8446 the server's second.
_HANDSHAKE: Final = 22
_ENCRYPTED_EXTENSIONS: Final = 8
# Enough to tell what a peer speaks that does not speak TLS.
_FIRST_BYTES: Final = 64
_HANDSHAKE_RECORD: Final = b"\x16"
# Fewer bytes of something that is not TLS do not tell an HTTP request from garbage.
_ENOUGH_TO_NAME: Final = 8
# Node's words for it, on clients and on servers.
_ENDED_EARLY: Final = (
    "the connection ended before it was secure",
    "the client hung up before the connection was secure",
)


class Want(enum.Enum):
    """What an engine needs before a step can go on."""

    READ = "read"
    """Ciphertext from the peer."""

    ROOM = "room"
    """That what was decrypted meanwhile is read: no more than 1 MiB of it is kept."""


class Engine(Connection):
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

    __slots__ = (
        "_allows_psk",
        "_alpn_protocols",
        "_asked",
        "_backlog",
        "_begun",
        "_check_identity",
        "_clock",
        "_early_data",
        "_early_data_accepted",
        "_find_psk",
        "_held",
        "_identity",
        "_keylog",
        "_last_finished",
        "_malformed",
        "_min_dh_size",
        "_ocsp",
        "_ocsp_problem",
        "_offered",
        "_offered_chains",
        "_on_ocsp_response",
        "_psk",
        "_psk_choice",
        "_psk_without_hint",
        "_reader",
        "_reject_unauthorized",
        "_renegotiating",
        "_renegotiation_limit",
        "_renegotiation_window",
        "_renegotiations",
        "_request_cert",
        "_resumable",
        "_session_listeners",
        "_staple_judges",
        "_starts_trace",
        "_stream",
        "_tickets_of",
        "_used",
        "_watches_tickets",
        "client_hello",
        "close_notify_sent",
        "context",
        "eof",
        "https_compatible",
        "info",
        "server_name",
        "server_side",
        "trace",
    )

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
        self.context = context
        self.server_side = server_side
        self.https_compatible = check_flag("https_compatible", https_compatible)
        self.client_hello: ClientHello | None = None
        self.info: ConnectionInfo | None = None
        self.eof = False
        self._alpn_protocols = parse_alpn_protocols(alpn_protocols)
        self._request_cert = check_flag("request_cert", request_cert)
        self._reject_unauthorized = check_flag("reject_unauthorized", reject_unauthorized)
        self.close_notify_sent = False
        # Ciphertext that goes out before what OpenSSL has pending.
        self._held = b""
        # How much of the thread's outgoing buffer is ours, between a step and `collect`.
        self._used = 0
        self._check_identity = check_server_identity
        self._clock = clock
        self._keylog = None if keylog is None else key_log_sink(keylog)
        self.logs_keys = self._keylog is not None
        self.trace = None if trace is None or trace is False else handshake_trace(trace, weakref.ref(self))
        self._starts_trace = self.trace is not None
        self.traced = self.trace is not None or early_data is not None
        self._early_data_accepted: bool | None = None
        # None: not at all.
        self._renegotiation_limit: int | None = check_limit(
            "renegotiation_limit",
            defaults.renegotiation_limit if renegotiation_limit is None else renegotiation_limit,
        )
        self._renegotiation_window = check_seconds(
            "renegotiation_window",
            defaults.renegotiation_window if renegotiation_window is None else renegotiation_window,
        )
        # When the peer has renegotiated, as far as that counts.
        self._renegotiations: deque[float] | None = None
        self._early_data: bytes | None = None
        # A handshake that is not the first: asked for by us, and going on.
        self._asked = False
        self._renegotiating = False
        # The peer's Finished message before it, and how many were begun by us.
        self._last_finished = b""
        self._begun = 0
        # Decrypted while a handshake was waited for.
        self._backlog = bytearray()
        self._stream: weakref.ref[TLSStream] | None = None
        self._session_listeners: list[SessionCallback] = []
        self._watches_tickets = False
        self._offered_chains: PeerChains | None = None
        self._resumable = True
        self._allows_psk = psk is not None
        self._find_psk: FindPSK | None = None
        self._tickets_of: SecureContext | None = None
        self._psk_choice: PreSharedKey | None = None
        self._ocsp_problem: CertificateProblem | None = None
        self._reader: ClientHelloReader | None = None
        self._malformed: MalformedClientHello | None = None
        if server_side:
            self.server_name: str | None = None
            self._reader = ClientHelloReader()
            return
        self.server_name, self._identity = client_names(host, server_name)
        self._min_dh_size = _dh_size(min_dh_size)
        self._on_ocsp_response = optional_callable("on_ocsp_response", on_ocsp_response)
        self._ocsp = _ocsp_mode(ocsp)
        # What a session may not cross; of a callback, another process knows only that there is one.
        self._staple_judges = f"{ocsp or ''} {'' if on_ocsp_response is None else 'on_ocsp_response'}".strip()
        self._psk = optional_callable("psk", psk)
        self._psk_without_hint: tuple[PreSharedKey | None] | None = None
        if psk is not None:
            require_psk_suite(context)
        self.flight = bytearray()
        self.verification = self._new_verification()
        self.open(
            context.ssl_ctx(
                server_side=False,
                verify_mode=VERIFY_PEER,
                psk=None if psk is None else PSKRole(),
                ocsp=self._staple_judges,
            ),
            server_side=False,
            server_name=self.server_name,
            alpn_protocols=alpn_wire_format(self._alpn_protocols) or None,
            request_ocsp=check_flag("request_ocsp", request_ocsp)
            or on_ocsp_response is not None
            or ocsp is not None,
        )
        if check_flag("post_handshake_auth", post_handshake_auth):
            self.allow_post_handshake_auth()
        self._offered: Session | None = None
        if session is not None:
            self.offer(bytes(session) if isinstance(session, (bytearray, memoryview)) else session)
        self._early_data = None if early_data is None else bytes(memoryview(early_data))
        if on_session is not None:
            check_callable("on_session", on_session)
            self.tell_sessions(partial(self._call, "on_session", on_session))

    def _new_verification(self) -> PeerVerification | None:
        """Return the verdict that is to be made on the peer, or None if it is not asked for a certificate."""
        at = self.context.verification_time
        if not self.server_side:
            return PeerVerification(
                peer="server",
                reject=self._reject_unauthorized,
                at=at,
                host=self._identity,
                check_identity=self._check_identity,
            )
        if not self._request_cert:
            return None
        return PeerVerification(peer="client", reject=self._reject_unauthorized, at=at)

    @property
    def stream(self) -> TLSStream | None:
        """Whose engine this is; callbacks are told.  Setting it makes no cycle."""
        return None if self._stream is None else self._stream()

    @stream.setter
    def stream(self, stream: TLSStream) -> None:
        self._stream = weakref.ref(stream)

    # Sessions

    def offer(self, session: bytes, chains: PeerChains | None = None) -> bool:
        """Offer a session, if this connection could have made it; return whether it does.

        Args:
            session: The session.
            chains: What the peer presented when it was made, if that is known.

        Raises:
            ConfigurationError: it is none.
            ConfigurationTypeError: it is not bytes.
        """
        parsed = Session.parse(session)
        if not self._may_resume(parsed, chains):
            return False
        if not self.offer_session(session):
            raise ConfigurationError("session: OpenSSL cannot read it", option="session")
        self._offered, self._offered_chains = parsed, chains
        return True

    @property
    def session_key(self) -> Hashable:
        """What a session of this connection may not cross, beside the place where the peer is."""
        return (
            # Who has no context any more has no use for its sessions, but they must not keep it.
            weakref.ref(self.context),
            self.server_name,
            self._identity,
            self._min_dh_size,
            self._alpn_protocols,
            self._staple_judges,
            self._reject_unauthorized,
        )

    def _may_resume(self, session: Session, chains: PeerChains | None) -> bool:
        if not session.resumable or session.session_id_context != self._ssl_ctx.session_id_context:
            return False
        if session.server_name != self.server_name or (session.verify_result and self._reject_unauthorized):
            return False
        if session.peer_certificate is None:
            # It was made with a pre-shared key, which in TLS 1.3 would be offered beside it.
            return self._psk is not None and session.protocol != "TLSv1.3"
        verification = self.verification
        assert verification is not None
        certificate = Certificate(session.peer_certificate)
        chain = (certificate,) if chains is None else chains.verified
        try:
            # Resumed, it would be refused, where a full handshake may show a new one.
            if self._reject_unauthorized and not verification.is_current(chain):
                return False
        except CertificateError:
            return False
        # Without SNI, nothing in the session tells for whom it is.
        return self.server_name is not None or verification.is_for_peer(certificate)

    def tell_sessions(self, listener: SessionCallback) -> None:
        """Call a listener with each session that can be resumed later, from now on.

        Args:
            listener: Called with the session.  What it raises fails the connection.
        """
        if not self._session_listeners:
            self.watch_tickets()
        self._session_listeners.append(listener)

    def watch_tickets(self) -> None:
        """Let `ticket_arrived` tell when a session ticket has been read after the handshake."""
        self._watches_tickets = True
        if self.info is not None:
            super().watch_tickets()

    def current_session(self) -> bytes | None:
        """Return the DER of the session that the connection has now; a client's says for which name it is."""
        session = super().current_session()
        if session is None or self.server_side or self.server_name is None:
            return session
        return named(session, self.server_name)

    def on_ticket(self) -> None:
        """Tell of a session, as its ticket has just been read."""
        super().on_ticket()
        if self.info is None or self._renegotiating:
            # Up to TLS 1.2: the session is what it will be at the end of the handshake.
            return
        try:
            self._tell_session()
        except ConnectionFailed as error:
            # Whatever OpenSSL is doing at the moment goes on; the next call raises this.
            self._error = error.again()

    def _tell_session(self) -> None:
        if not self._session_listeners or self._ocsp_problem is not None:
            return
        session = self.current_session()
        if session is not None:
            for listener in self._session_listeners:
                listener(session)

    @property
    def session(self) -> bytes | None:
        """The newest session that can be resumed, or None.

        In TLS 1.3 a client has none before the server's first ticket has been read.  A server's is only good
        to be looked at.  None once the connection is closed, or has failed by a fatal alert.
        """
        if self.info is None or self._error is not None or not self._resumable:
            return None
        if self._ocsp_problem is not None:
            # A session does not hold the verdict on a staple: resumed, it would pass for verified.
            return None
        session = self.current_session()
        if session is None or self.server_side:
            return session
        made, offered = Session.parse(session), self._offered
        # A ticket of TLS 1.3 that was offered has been used (RFC 8446, appendix C.4).
        used = offered is not None and made.protocol == "TLSv1.3" and made.ticket == offered.ticket
        return session if made.resumable and not used else None

    # Ciphertext

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

    # A server's choice

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
                raise ConnectionLost(_ENDED_EARLY[True])
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

    def release(self) -> None:
        """Free the ``SSL`` now, and what was read for it.  May be called again."""
        super().release()
        # Who keeps an error keeps this object, and the peer chose how much this is.
        self.early, self.flight, self._malformed = bytearray(), None, None
        self._find_psk = self._psk = self._psk_choice = self._psk_without_hint = self._keylog = None
        self.ocsp_staple = None
        self._session_listeners.clear()
        self._backlog.clear()
        if self._reader is not None:
            self._reader.received.clear()

    # The handshake

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
        if self._early_data is not None:
            self._send_early_data(self._early_data)
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
            raise ConnectionLost(_ENDED_EARLY[self.server_side])
        return Want.READ

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
        is_answer = content_type == _HANDSHAKE and not sent and data[0] == _ENCRYPTED_EXTENSIONS
        if is_answer and self._early_data_accepted is not None:
            # Nothing else tells.
            self._early_data_accepted = accepts_early_data(data)
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

    def refuse_server_name(self, name: str | None) -> ConnectionFailed | None:
        """Refuse a second hello, after a HelloRetryRequest or later, that names another host than the first.

        Args:
            name: The host that it names, or None.
        """
        if self.client_hello is None or name == self.client_hello.server_name:
            return None
        return ProtocolError("the client changed the server name", code="ERR_SSL_BAD_EXTENSION")

    def _send_early_data(self, data: bytes) -> None:
        """Let early data be sent with the ClientHello, if the session that is offered is for it."""
        self._early_data = None
        session = self._offered
        if session is None or not 0 < len(data) <= session.max_early_data:
            return
        # OpenSSL would fail where the session was for a protocol that is not offered.
        if session.alpn_protocol is None or session.alpn_protocol in self._alpn_protocols:
            self.early_data_left = data
            self._early_data_accepted = False

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
        if self._watches_tickets:
            # Not before: OpenSSL calls back at each step.
            super().watch_tickets()
        if negotiated.protocol != "TLSv1.3":
            self.watch_handshakes()
            if not self.server_side and self._session_listeners:
                self._tell_older_session()
        if self.trace is not None:
            self._tell("trace", self.trace.finished, self.info, self._clock())
            if self._error is not None:
                self.info = None
                self._give_up(self._error)
        return self.info

    def _negotiated_info(self, negotiated: Negotiated) -> ConnectionInfo:
        chains = self._peer_chains(negotiated)
        # Behind what was presented stands what OpenSSL has found in our own store.
        linked = dict.fromkeys(certificate.raw for certificate in (*chains.presented, *chains.verified))
        peer = Certificate.chain(tuple(linked)) if chains.presented else None
        asked = not self.server_side or self._request_cert
        psk = self._used_psk(negotiated)
        error = self._verdict(chains, negotiated, by_psk=psk is not None) if asked else None
        # OpenSSL keeps what it had built of a chain that it did not trust in the end.
        trusted = error is None or isinstance(error, IdentityError)
        if error is not None and self._reject_unauthorized:
            # OpenSSL has no objection where the cipher suite is anonymous.
            self._give_up(error)
        return ConnectionInfo(
            protocol=negotiated.protocol,
            cipher=negotiated.cipher,
            ephemeral_key=self._ephemeral_key(negotiated),
            shared_signature_algorithms=self._shared_signature_algorithms(negotiated.protocol),
            alpn_protocol=negotiated.alpn_protocol,
            server_name=self.server_name,
            authorized=asked and error is None,
            authorization_error=error,
            session_reused=negotiated.session_reused,
            psk_identity=psk,
            certificate=self._own_certificate(negotiated, by_psk=psk is not None),
            peer_certificate=peer,
            peer_certificate_chain=chains.presented,
            verified_chain=chains.verified if trusted else (),
            ocsp_response=None if self.server_side else self.stapled_response(),
            early_data_accepted=self._accepted_early_data(),
        )

    def _peer_chains(self, negotiated: Negotiated) -> PeerChains:
        """Return what the peer presented, be it when the session that is resumed was made."""
        if negotiated.session_reused and self._offered_chains is not None:
            return self._offered_chains
        return PeerChains(
            tuple(map(Certificate, negotiated.peer_chain)), tuple(map(Certificate, negotiated.verified_chain))
        )

    def _accepted_early_data(self) -> bool | None:
        if not self.server_side:
            return self._early_data_accepted
        if self.client_hello is None or not self.client_hello.early_data:
            return None
        return bool(self.early_data)

    def _shared_signature_algorithms(self, protocol: str) -> tuple[str, ...]:
        if self.client_hello is None:
            return ()
        own = self.context.signature_algorithms
        offered = self.client_hello.signature_algorithms
        return shared_signature_algorithms(own, offered, protocol, own_order=self.prefers_own_order)

    def _tell_older_session(self) -> None:
        """Tell of the session of a handshake up to TLS 1.2, unless it is the one that was offered."""
        session = self.current_session()
        assert session is not None
        made, offered = Session.parse(session), self._offered
        if offered is not None and (made.ticket, made.session_id) == (offered.ticket, offered.session_id):
            return
        if made.resumable:
            try:
                self._tell_session()
            except ConnectionFailed as error:
                # Its traceback would be a cycle.
                self._give_up(error.with_traceback(None))

    def _hides_dh_size(self, negotiated: Negotiated) -> bool:
        """Whether a server has chosen a group, and said so behind so much that it was not seen."""
        return (
            uses_dhe(negotiated.cipher.standard_name)
            and not negotiated.session_reused
            and ephemeral_dh_bits(bytes(self.flight or b"")) is None
        )

    def _give_up(self, error: ConnectionFailed) -> NoReturn:
        """Refuse a peer when OpenSSL has accepted it: the only alert that there is then is a goodbye."""
        self.send_close_notify()
        self._error = error
        raise error.again()

    def _verdict(
        self, chains: PeerChains, negotiated: Negotiated, *, by_psk: bool
    ) -> CertificateError | None:
        """Return why the peer is not to be trusted, or None."""
        verification = self.verification
        assert verification is not None
        if not chains.presented and not by_psk:
            return CertificateError(
                "the peer presented no certificate",
                code="UNABLE_TO_GET_ISSUER_CERT",
                hint=DIAGNOSES["ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE"].remedy,
            )
        if not verification.judged:
            # No certificate was presented, so OpenSSL has not asked for a verdict.
            chain = chains.verified or chains.presented[:1]
            return verification.without_handshake(chain, negotiated.verify_result)
        error = verification.error()
        if self._ocsp_problem is None:
            return error
        refusal = certificate_error([self._ocsp_problem], peer="server", at=self.context.verification_time)
        if error is None:
            return refusal
        # It is named after what it would have been refused for first.
        error.problems += refusal.problems
        error.hint += f" {refusal.hint}"
        return error

    @staticmethod
    def _own_certificate(negotiated: Negotiated, *, by_psk: bool) -> Certificate | None:
        if by_psk and not negotiated.cipher.standard_name.startswith("TLS_RSA_PSK_"):
            # OpenSSL names the one that it would have presented.
            return None
        return None if negotiated.certificate is None else Certificate(negotiated.certificate)

    def _used_psk(self, negotiated: Negotiated) -> str | None:
        """Return the identity of the pre-shared key of this handshake, or of the one that it resumes."""
        if not self._allows_psk:
            return None
        if not negotiated.session_reused and "_PSK_" not in negotiated.cipher.standard_name:
            return None
        session = self.current_session()
        return None if session is None else psk_identity(session)

    def _ephemeral_key(self, negotiated: Negotiated) -> EphemeralKey | None:
        if negotiated.session_reused and negotiated.protocol != "TLSv1.3":
            # The group that OpenSSL names is the one that the session was made with.
            return None
        if negotiated.group is not None:
            return ephemeral_key(negotiated.group)
        if not uses_dhe(negotiated.cipher.standard_name):
            return None
        bits = self.context.dh_bits if self.server_side else ephemeral_dh_bits(bytes(self.flight or b""))
        return None if bits is None else EphemeralKey(type="DH", name=None, size=bits)

    def _check_group(self, negotiated: Negotiated) -> None:
        """Refuse a key exchange that is none of those that the context requires."""
        required = self.context.required_groups
        group = None if negotiated.group is None else iana_name(negotiated.group)
        if required and group not in required:
            self._give_up(
                ProtocolError(
                    f"the keys were exchanged by {group or negotiated.cipher.standard_name}; "
                    f"require_groups is {':'.join(required)}",
                    code="ERR_SSL_NO_SUITABLE_GROUPS",
                )
            )

    # Later handshakes

    def on_handshake_start(self) -> None:
        """Take note that a handshake begins: up to TLS 1.2, there may be another one."""
        if self.info is None:
            return
        self._renegotiating = True
        self._last_finished = self.finished_message(of_peer=True)
        self.verification = self._new_verification()
        # OpenSSL may ask when the peer's own handshake, which came in between, was taken for the answer.
        self._asked = self._asked or self.renegotiations_begun > self._begun
        if not self._asked:
            self._count_renegotiation()

    def _count_renegotiation(self) -> None:
        """Take note that the peer renegotiates; refuse it where that is too often."""
        if self._renegotiations is None:
            self._renegotiations = deque()
        times, limit, now = self._renegotiations, self._renegotiation_limit, self._clock()
        while times and now - times[0] >= self._renegotiation_window:
            times.popleft()
        times.append(now)
        if limit is None:
            self._error = ProtocolError(
                "the peer renegotiates, which is disabled on this stream",
                code="ERR_TLS_RENEGOTIATION_DISABLED",
            )
        elif len(times) > limit:
            self._error = ProtocolError(
                f"the peer renegotiates too often: more than {limit} times in "
                f"{self._renegotiation_window:g} seconds",
                code="ERR_TLS_SESSION_ATTACK",
            )
        else:
            return
        # Before it has cost anything.
        self.refuse_renegotiation()

    def on_handshake_done(self) -> None:
        """Take note that OpenSSL is done with a handshake."""
        if not self._renegotiating:
            return
        self._renegotiating = False
        self._begun = self.renegotiations_begun
        # To OpenSSL it is a handshake, too, to send a HelloRequest, or to refuse a hello: it verifies nobody.
        if self.finished_message(of_peer=True) == self._last_finished:
            self.verification = None
            return
        self._asked = False
        self._renew_info()

    def on_finished(self) -> None:
        """Take note that a client of TLS 1.3 has answered to being asked for a certificate."""
        if self._asked and self.info is not None and self.info.protocol == "TLSv1.3":
            self._asked = False
            self._renew_info()

    def _renew_info(self) -> None:
        """Note what another handshake has negotiated; names and application protocol are the first one's."""
        assert self.info is not None
        negotiated = self.negotiated(server_side=self.server_side)
        # OpenSSL forgets it, as later hellos say nothing of it.
        negotiated = negotiated._replace(alpn_protocol=self.info.alpn_protocol)
        try:
            if not self.server_side and not negotiated.session_reused:
                self._offered_chains = None
                self._check_renegotiated_keys(negotiated)
            self.info = self._negotiated_info(negotiated)
            if not self.server_side and self._session_listeners:
                self._tell_older_session()
        except ConnectionFailed as error:
            self._error = error.again()
        self.verification = None

    def _check_renegotiated_keys(self, negotiated: Negotiated) -> None:
        """Refuse a group that may be too small; to the default size OpenSSL sees itself."""
        if uses_dhe(negotiated.cipher.standard_name) and self._min_dh_size > DEFAULT_MIN_DH_SIZE:
            self._give_up(
                ProtocolError(
                    "the server's Diffie-Hellman group is unknown: it came encrypted",
                    code="ERR_TLS_DH_PARAM_SIZE",
                )
            )

    def renegotiate(self, *, request_cert: bool = True, reject_unauthorized: bool = True) -> None:
        """Let `finish_handshake` do another handshake, up to TLS 1.2.

        Args:
            request_cert: Server: whether to ask the client for a certificate.
            reject_unauthorized: Whether to refuse a peer that is not verified.

        Raises:
            ConfigurationError: TLS 1.3 has no renegotiation (``ERR_SSL_WRONG_SSL_VERSION``), or
                ``secure_options`` switches it off (``ERR_SSL_NO_RENEGOTIATION``).
        """
        self._check_version(
            tls13=False, remedy="a server can ask for a certificate by request_client_certificate()"
        )
        self._demand(request_cert=request_cert, reject_unauthorized=reject_unauthorized)
        self.start_renegotiation()
        self._asked = True
        # What a client writes now could meet the server's answer half-way.
        self._renegotiating = not self.server_side

    def request_client_certificate(self, *, reject_unauthorized: bool = True) -> None:
        """Let `finish_handshake` ask a client of TLS 1.3 for a certificate.

        Args:
            reject_unauthorized: Whether to refuse a client that is not verified.

        Raises:
            ConfigurationError: the version is older (``ERR_SSL_WRONG_SSL_VERSION``), or this is a client.
            ConnectionFailed: the client may not be asked (``ERR_SSL_EXTENSION_NOT_RECEIVED``); the
                connection goes on.
        """
        if not self.server_side:
            raise ConfigurationError("only a server can ask for a client's certificate")
        self._check_version(tls13=True, remedy="a server can ask for a certificate by renegotiate()")
        self._demand(reject_unauthorized=reject_unauthorized, further=VERIFY_POST_HANDSHAKE)
        self.start_post_handshake_auth()
        self.verification = self._new_verification()
        self._asked = True

    def _check_version(self, *, tls13: bool, remedy: str) -> None:
        if self.info is None:
            raise NeedHandshakeError
        if (self.info.protocol == "TLSv1.3") != tls13:
            raise ConfigurationError(
                f"wrong SSL version: {self.info.protocol}; {remedy}", code="ERR_SSL_WRONG_SSL_VERSION"
            )

    def _demand(self, *, request_cert: bool = True, reject_unauthorized: bool, further: int = 0) -> None:
        check_flag("request_cert", request_cert)
        self._reject_unauthorized = check_flag("reject_unauthorized", reject_unauthorized)
        if self.server_side:
            self._request_cert = request_cert
            self.demand(verify_mode_for(request_cert, reject_unauthorized) | further)

    def finish_handshake(self) -> bool | Want:
        """Return True once no handshake is asked for or going on; data that comes before is kept for `read`.

        Raises:
            ConnectionFailed: it failed.
            TruncationError: the peer has said goodbye instead, or the transport has ended.
        """
        return self._read_ahead(lambda: not self._asked and self._may_write())

    def _may_write(self) -> bool:
        """Whether OpenSSL can write data or a goodbye before it has read on."""
        return not self._renegotiating and not self.in_handshake

    def _read_ahead(self, done: Callable[[], bool]) -> Literal[True] | Want:
        """Return True once something is so; decrypt data until then, for whoever reads later."""
        while not done():
            if self.backlog_is_full:
                return Want.ROOM
            count = self.read_into(buffers.plaintext, PLAINTEXT_SIZE)
            if count:
                self._backlog += buffers.plaintext_view[:count]
            elif not done():
                if self.eof or self.peer_closed:
                    raise TruncationError("the connection ended in the middle of a handshake")
                return Want.READ
        return True

    @property
    def backlog_is_full(self) -> bool:
        """Whether no more data can be kept for whoever reads later."""
        return len(self._backlog) >= _MOST_BACKLOG

    @property
    def may_renegotiate(self) -> bool:
        """Whether the peer may do another handshake."""
        assert self.info is not None
        return self.info.protocol != "TLSv1.3" and bool(self._renegotiation_limit)

    def disable_renegotiation(self) -> None:
        """Let the next renegotiation of the peer's end the connection."""
        self._renegotiation_limit = None

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
            raise ConnectionLost(_ENDED_EARLY[False])
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


def _ocsp_mode(value: OCSPMode | None) -> OCSPMode | None:
    if value in (None, "verify", "require"):
        return value
    raise ConfigurationError(f'ocsp must be "verify", "require" or None. Received {value!r}', option="ocsp")


def _dh_size(value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationTypeError(
            f'The "options.min_dh_size" property must be of type number. Received {value!r}',
            option="min_dh_size",
        )
    if value < 1:
        raise ConfigurationError(
            f'The value of "options.min_dh_size" is out of range. It must be > 0. Received {value}',
            code="ERR_OUT_OF_RANGE",
            option="min_dh_size",
        )
    return value


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
