"""TCPOptions: what is set on the TCP sockets of connections."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import socket
from typing import TYPE_CHECKING, Any, Final

from .errors import ConfigurationError, ConfigurationTypeError

if TYPE_CHECKING:
    import trio

_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
# macOS has its own name for it.
_KEEP_IDLE: Final[int] = next(
    getattr(socket, name) for name in ("TCP_KEEPIDLE", "TCP_KEEPALIVE") if hasattr(socket, name)
)
# The most that Linux takes (MAX_TCP_KEEPIDLE of its net/tcp.h).
_LONGEST_IDLE: Final = 32767


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TCPOptions:
    """The options of TCP connections.

    Attributes:
        no_delay: Whether small pieces of data are sent at once (``TCP_NODELAY``).
        keep_alive: Whether a connection on which nothing happens is probed (``SO_KEEPALIVE``); a number is
            after how many seconds, rounded up.

    Raises:
        ConfigurationError: one cannot be used.
    """

    no_delay: bool = True
    keep_alive: bool | float = False

    def __post_init__(self) -> None:
        """Refuse what cannot be used."""
        if not isinstance(self.no_delay, bool):
            raise ConfigurationTypeError(
                f"no_delay must be a bool. Received {self.no_delay!r}", option="no_delay"
            )
        if not isinstance(self.keep_alive, (bool, int, float)):
            raise ConfigurationTypeError(
                f"keep_alive must be a bool, or seconds. Received {self.keep_alive!r}", option="keep_alive"
            )
        if not isinstance(self.keep_alive, bool) and not 0 < self.keep_alive <= _LONGEST_IDLE:
            raise ConfigurationError(
                f"keep_alive must be more than 0 and at most {_LONGEST_IDLE} seconds. "
                f"Received {self.keep_alive!r}",
                code="ERR_OUT_OF_RANGE",
                option="keep_alive",
            )

    def apply(self, sock: trio.socket.SocketType) -> None:
        """Set the options on a socket that a `trio.SocketStream` has; one that is not TCP is left alone.

        Args:
            sock: The socket.
        """
        # A SocketStream has no_delay set.
        if (self.no_delay and self.keep_alive is False) or sock.family not in _FAMILIES:
            return
        # Where the peer has reset the connection already, some systems refuse.
        with contextlib.suppress(OSError):
            if not self.no_delay:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
            if self.keep_alive is not False:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                if self.keep_alive is not True:
                    sock.setsockopt(socket.IPPROTO_TCP, _KEEP_IDLE, math.ceil(self.keep_alive))


def check_port(option: str, value: Any) -> int:
    """Return a port, 0 to 65535.

    Raises:
        ConfigurationTypeError: it is no int.
        ConfigurationError: there is no such port.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationTypeError(f"{option} must be an int. Received {value!r}", option=option)
    if not 0 <= value <= 65535:
        raise ConfigurationError(
            f"{option} must be >= 0 and < 65536. Received {value}",
            code="ERR_SOCKET_BAD_PORT",
            option=option,
        )
    return value
