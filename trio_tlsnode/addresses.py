"""Address: where one end of a connection, or a listener, is."""

from __future__ import annotations

import socket
from typing import Any, Literal, NamedTuple


class Address(NamedTuple):
    """One end of a connection, or where a server listens.

    Node's ``{address, family, port}``.  A Unix socket has its path as ``host`` (empty when it has no
    name) and 0 as ``port``.
    """

    host: str
    port: int
    family: Literal["IPv4", "IPv6", "unix"]

    def __str__(self) -> str:
        if self.family == "unix":
            return self.host or "a Unix socket"
        return f"[{self.host}]:{self.port}" if self.family == "IPv6" else f"{self.host}:{self.port}"

    @classmethod
    def from_sockname(cls, family: int, sockname: Any) -> Address | None:
        """Return a socket's address, or None where its family has none like these.

        Args:
            family: The socket's family, ``socket.AF_...``.
            sockname: What ``getsockname`` or ``getpeername`` gave.
        """
        if family == socket.AF_INET:
            return cls(sockname[0], sockname[1], "IPv4")
        if family == socket.AF_INET6:
            return cls(sockname[0], sockname[1], "IPv6")
        if family == getattr(socket, "AF_UNIX", None):
            path = sockname.decode(errors="replace") if isinstance(sockname, bytes) else sockname
            return cls(path, 0, "unix")
        return None
