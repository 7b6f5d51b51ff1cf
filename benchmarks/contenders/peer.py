"""Peer: what the workloads ask of a library."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import struct
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

T = TypeVar("T")

HOST = "127.0.0.1"
SERVER_NAME = "localhost"
HEADER = struct.Struct("!II")
"""The first bytes that a client sends on a connection: the sizes of a request and of a reply."""


@dataclasses.dataclass(frozen=True)
class Setup:
    """How both sides of a contender are configured.

    Attributes:
        directory: Where key.pem, cert.pem and ca.pem are.
        group: The only key exchange group to offer and take, or None for the library's own choice.
        cipher: The only TLS 1.3 cipher suite, where the library can be told.
    """

    directory: Path
    group: str | None
    cipher: str

    @property
    def key(self) -> Path:
        return self.directory / "key.pem"

    @property
    def cert(self) -> Path:
        return self.directory / "cert.pem"

    @property
    def ca(self) -> Path:
        return self.directory / "ca.pem"


class Channel(NamedTuple):
    """One connection, as the library's own bound methods, so that no layer of ours is measured.

    Attributes:
        send: Sends all of the bytes.
        receive: Returns at most so many bytes; b"" at the end where the library says it so.
        close: Closes as the library does by default.
        session: Returns the newest session that can be resumed, where the library has sessions.
    """

    send: Callable[[bytes], Awaitable[object]]
    receive: Callable[[int], Awaitable[bytes | bytearray]]
    close: Callable[[], Awaitable[object]]
    session: Callable[[], object] | None = None


class Peer(ABC):
    """A library's server and client."""

    gone: ClassVar[tuple[type[Exception], ...]]
    """What the library raises when the other side has gone away, or has ended where it has no b""."""

    packages: ClassVar[tuple[str, ...]]
    """The distributions that have a part in it."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup

    def versions(self) -> dict[str, str]:
        """Return the versions of what does the work: Python, the packages, OpenSSL as it calls itself."""
        packages = {name: importlib.metadata.version(name) for name in self.packages}
        return {platform.python_implementation(): platform.python_version()} | packages

    @abstractmethod
    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run the library's event loop until main has returned."""

    @abstractmethod
    async def gather(self, jobs: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
        """Run the jobs at the same time; return what they returned, in any order."""

    @abstractmethod
    async def serve(
        self, answer: Callable[[Channel], Awaitable[None]], listening: Callable[[int], None]
    ) -> None:
        """Accept connections for ever; `listening` is told the port."""

    @abstractmethod
    async def connect(self, port: int) -> Channel:
        """Connect and finish the handshake, a full one."""

    async def resume(self, port: int, session: object) -> Channel:
        """Connect and finish the handshake, resuming a session of an earlier channel; None is a full one."""
        raise NotImplementedError("this library is not asked to resume sessions")
