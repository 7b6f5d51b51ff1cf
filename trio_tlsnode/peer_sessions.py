"""PeerSessions: what one connection takes from a `SessionCache`, and what it leaves there."""

from __future__ import annotations

from collections.abc import Hashable

import trio

from .engine import Engine
from .errors import ConnectionFailed
from .info import ConnectionInfo
from .sessions import PeerChains, SessionCache


class PeerSessions:
    """The sessions of one peer in a cache, for one connection.

    It does not keep the engine, which tells it of sessions: that would be a cycle.

    Args:
        cache: The cache.
        engine: The connection's engine.
        place: Where the peer is, as far as the engine does not know it.
    """

    __slots__ = ("_cache", "_chains", "_early", "_key", "_offered")

    def __init__(self, cache: SessionCache, engine: Engine, place: Hashable) -> None:
        self._cache = cache
        self._key = (place, engine.session_key)
        self._offered = False
        self._chains: PeerChains | None = None
        # Those that come before it is known whether the one that was offered is good.
        self._early: list[bytes] | None = []
        engine.tell_sessions(self._store)

    def offer(self, engine: Engine) -> None:
        """Take a session from the cache and offer it to the peer.

        Args:
            engine: The connection's engine, which is about to begin its handshake.

        Raises:
            ConfigurationError: what somebody has put into the cache is no session.
        """
        taken = self._cache.take_with_chains(self._key, trio.current_time())
        self._offered = taken is not None and engine.offer(*taken)

    def _store(self, session: bytes) -> None:
        if self._early is not None:
            self._early.append(session)
        else:
            self._cache.store(self._key, session, trio.current_time(), self._chains)

    def settle(self, info: ConnectionInfo) -> None:
        """Keep what the handshake has brought; a peer that did not resume is forgotten first.

        Args:
            info: What was negotiated.
        """
        if self._offered and not info.session_reused:
            self._forget()
        self._chains = PeerChains(info.peer_certificate_chain, info.verified_chain)
        early, self._early = self._early or (), None
        for session in early:
            self._store(session)

    def failed(self, error: ConnectionFailed) -> None:
        """Drop all sessions of the peer, if they may be to blame or a fatal alert was sent (RFC 8446, 6).

        Args:
            error: What the connection failed of.
        """
        refused = self._offered and self._early is not None
        if refused or error.side != "network":
            self._forget()

    def _forget(self) -> None:
        self._cache.forget(self._key)
