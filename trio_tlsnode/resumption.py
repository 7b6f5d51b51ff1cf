"""Resumption: the session that a client offers, what it sends with it, and the sessions that it gets."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from functools import partial
from typing import Final

from ._openssl.connection import Negotiated
from .certificates import Certificate
from .errors import CertificateError, ConfigurationError, ConnectionFailed
from .handshake import Handshake
from .info import ConnectionInfo
from .option_values import check_callable
from .record_layer import Want
from .server_flight import accepts_early_data
from .sessions import PeerChains, Session, named

SessionCallback = Callable[[bytes], object]
"""``on_session``: given a session that can be resumed later.  It may not be async."""

# What OpenSSL's message callback calls a handshake message, and RFC 8446 the server's second.
_HANDSHAKE: Final = 22
_ENCRYPTED_EXTENSIONS: Final = 8


class Resumption(Handshake):
    """A handshake that may resume a session, and makes others."""

    __slots__ = (
        "_early_data",
        "_offered",
        "_offered_chains",
        "_session_listeners",
        "_watches_tickets",
    )

    def _set_up_resumption(self, *, early_data: bytes | bytearray | memoryview | None) -> None:
        self._early_data = None if early_data is None else bytes(memoryview(early_data))
        # What became of it is in a message.
        self.traced = self.traced or early_data is not None
        self._offered: Session | None = None
        self._offered_chains: PeerChains | None = None
        self._session_listeners: list[SessionCallback] = []
        self._watches_tickets = False

    def _use_session(
        self, session: bytes | bytearray | memoryview | None, on_session: SessionCallback | None
    ) -> None:
        """Offer a client's session, and tell of new ones."""
        if session is not None:
            self.offer(bytes(session) if isinstance(session, (bytearray, memoryview)) else session)
        if on_session is not None:
            check_callable("on_session", on_session)
            self.tell_sessions(partial(self._call, "on_session", on_session))

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
            self.watch()

    def current_session(self) -> bytes | None:
        """Return the DER of the session that the connection has now; a client's says for which name it is."""
        session = super().current_session()
        if session is None or self.server_side or self.server_name is None:
            return session
        return named(session, self.server_name)

    def on_ticket(self) -> None:
        """Tell of a session, as its ticket has just been read."""
        super().on_ticket()
        if self.info is None or self.info.protocol != "TLSv1.3":
            # The session is what it will be at the end of the handshake, and is told of then.
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

    def do_handshake(self) -> ConnectionInfo | Want:
        """Do what can be done of the handshake, early data first; otherwise as `Handshake.do_handshake`."""
        if self._early_data is not None:
            self._send_early_data(self._early_data)
        return super().do_handshake()

    def on_message(self, sent: bool, version: int, content_type: int, data: bytes) -> None:
        """Trace what passes, and learn what became of early data.

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
        super().on_message(sent, version, content_type, data)

    def _peer_chains(self, negotiated: Negotiated) -> PeerChains:
        """Return what the peer presented, be it when the session that is resumed was made."""
        if negotiated.session_reused and self._offered_chains is not None:
            return self._offered_chains
        return super()._peer_chains(negotiated)

    def _finish(self) -> ConnectionInfo:
        info = super()._finish()
        if self._watches_tickets:
            # Not before: OpenSSL calls back at each step.
            self.watch()
        if info.protocol != "TLSv1.3" and not self.server_side and self._session_listeners:
            self._tell_older_session()
        return info

    def release(self) -> None:
        """Let go of the session listeners, too."""
        super().release()
        self._session_listeners.clear()
