"""Timeouts: how long a peer may hold a connection up, in seconds on Trio's clock."""

from __future__ import annotations

import dataclasses
from typing import Final

from .option_values import check_seconds

DEFAULT_HANDSHAKE_TIMEOUT: Final = 120.0
DEFAULT_CLOSE_TIMEOUT: Final = 5.0


@dataclasses.dataclass(frozen=True, slots=True)
class Timeouts:
    """The time-outs of a connection.

    Attributes:
        handshake: How long the handshake may take.
        close: How long saying goodbye may take.
        idle: How long nothing may pass while something is waited for; None is for ever.
        send: How long the peer may take for what is sent at once; None is for ever.
    """

    handshake: float = DEFAULT_HANDSHAKE_TIMEOUT
    close: float = DEFAULT_CLOSE_TIMEOUT
    idle: float | None = None
    send: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is no time-out.

        Raises:
            ConfigurationError: one is no number of seconds.
        """
        check_seconds("handshake_timeout", self.handshake)
        check_seconds("close_timeout", self.close)
        for option, value in (("idle_timeout", self.idle), ("send_timeout", self.send)):
            if value is not None:
                check_seconds(option, value)
