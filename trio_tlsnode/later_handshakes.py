"""LaterHandshakes: renegotiation up to TLS 1.2, and in TLS 1.3 asking a client for its certificate late.

They go on inside reading.  What is decrypted meanwhile is kept for whoever reads, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from ._openssl.buffers import PLAINTEXT_SIZE, buffers
from ._openssl.connection import Negotiated
from ._openssl.ssl_ctx import VERIFY_POST_HANDSHAKE
from .errors import ConfigurationError, ConnectionFailed, NeedHandshakeError, ProtocolError, TruncationError
from .handshake import verify_mode_for
from .option_values import check_flag
from .outcome import DEFAULT_MIN_DH_SIZE
from .record_layer import Want
from .renegotiation_limit import RenegotiationLimit
from .resumption import Resumption
from .server_flight import uses_dhe

# Decrypted while a handshake that we have asked for is waited for, in bytes, apart from the last read.
_MOST_BACKLOG: Final = 1024 * 1024


class LaterHandshakes(Resumption):
    """The handshakes of a connection that is secure."""

    __slots__ = ("_asked", "_backlog", "_begun", "_last_finished", "_renegotiating", "_renegotiation_limit")

    def _set_up_later_handshakes(self, limit: RenegotiationLimit) -> None:
        self._renegotiation_limit = limit
        # Whether we have asked for one.
        self._asked = False
        # Whether a handshake is going on that is not the first.
        self._renegotiating = False
        # The peer's Finished message before the handshake that is going on, and how many were begun by us.
        self._last_finished = b""
        self._begun = 0
        # Decrypted while a handshake was waited for.
        self._backlog = bytearray()

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
            refusal = self._renegotiation_limit.count(self._clock())
            if refusal is not None:
                # Before it has cost anything.
                self._error = refusal
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
        return self.info.protocol != "TLSv1.3" and self._renegotiation_limit.allows_any

    def disable_renegotiation(self) -> None:
        """Let the next renegotiation of the peer's end the connection."""
        self._renegotiation_limit.disable()

    def release(self) -> None:
        """Let go of what was decrypted for whoever would have read, too."""
        super().release()
        self._backlog.clear()
