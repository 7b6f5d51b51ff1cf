"""PeerSessions: what one connection takes from a `SessionCache`, and what it leaves there."""

from __future__ import annotations

from collections.abc import Hashable

import trio

from .engine import Engine
from .sessions import SessionCache


class PeerSessions:
    """The sessions of one peer in a cache, for one connection.

    Args:
        cache: The cache.
        engine: The connection's engine, which has not begun its handshake.
        place: Where the peer is, as far as the engine does not know it.
    """

    __slots__ = ("_cache", "_early", "_engine", "_key", "_offered")

    def __init__(self, cache: SessionCache, engine: Engine, place: Hashable) -> None:
        self._cache = cache
        self._engine = engine
        self._key = (place, engine.session_key)
        # Those that come before it is known whether the one that was offered is good.
        self._early: list[bytes] | None = []
        session = cache.take(self._key, trio.current_time())
        self._offered = session is not None and engine.offer(session)
        engine.tell_sessions(self._store)

    def _store(self, session: bytes) -> None:
        if self._early is not None:
            self._early.append(session)
        else:
            self._cache.store(self._key, session, trio.current_time())

    def settle(self) -> None:
        """Keep what the handshake has brought; a peer that did not resume is forgotten first."""
        info = self._engine.info
        if self._offered and info is not None and not info.session_reused:
            self.forget()
        early, self._early = self._early or (), None
        for session in early:
            self._store(session)

    def forget(self) -> None:
        """Drop all sessions of the peer, as one of the two has given up with a fatal alert (RFC 8446, 6)."""
        self._cache.forget(self._key)
