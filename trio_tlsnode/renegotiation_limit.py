"""RenegotiationLimit: how often a peer may renegotiate."""

from __future__ import annotations

from collections import deque

from .defaults import defaults
from .errors import ProtocolError
from .option_values import check_limit, check_seconds


class RenegotiationLimit:
    """How often a peer may renegotiate within a time, and when it has.

    Args:
        limit: How often; by default what `trio_tlsnode.defaults` says.  0 is never.
        window: Within which time, in seconds.

    Raises:
        ConfigurationError: one cannot be used.
    """

    __slots__ = ("_limit", "_times", "_window")

    def __init__(self, limit: int | None, window: float | None) -> None:
        # None: `disable` was called.
        self._limit: int | None = check_limit(
            "renegotiation_limit", defaults.renegotiation_limit if limit is None else limit
        )
        self._window = check_seconds(
            "renegotiation_window", defaults.renegotiation_window if window is None else window
        )
        # When the peer has renegotiated within the window; made when it first does.
        self._times: deque[float] | None = None

    @property
    def allows_any(self) -> bool:
        """Whether the peer may renegotiate at all."""
        return bool(self._limit)

    def disable(self) -> None:
        """Let the next renegotiation be one too many."""
        self._limit = None

    def count(self, now: float) -> ProtocolError | None:
        """Count that the peer renegotiates; return why it may not, or None.

        Args:
            now: The time, in seconds.
        """
        if self._times is None:
            self._times = deque()
        times = self._times
        while times and now - times[0] >= self._window:
            times.popleft()
        times.append(now)
        if self._limit is None:
            return ProtocolError(
                "the peer renegotiates, which is disabled on this stream",
                code="ERR_TLS_RENEGOTIATION_DISABLED",
            )
        if len(times) > self._limit:
            return ProtocolError(
                f"the peer renegotiates too often: more than {self._limit} times in {self._window:g} seconds",
                code="ERR_TLS_SESSION_ATTACK",
            )
        return None
