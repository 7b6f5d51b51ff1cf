"""KeyLog: where the secrets of a connection are written, so that Wireshark can read a capture of it.

The lines are those of the NSS key log format ("CLIENT_HANDSHAKE_TRAFFIC_SECRET ...").  Whoever has them can
read everything that was sent.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .errors import ConfigurationError, ConfigurationTypeError

if TYPE_CHECKING:
    from .stream import TLSStream

KeyLogSink = Callable[[str, "TLSStream"], object]
"""Called with a line, without its end, and the stream whose secret it is; an `Engine` alone has None."""

KeyLog = KeyLogSink | str | os.PathLike[str] | bool | None
"""``keylog``: a function, the path of a file, or True for the file that ``SSLKEYLOGFILE`` names."""

ENVIRONMENT_VARIABLE: Final = "SSLKEYLOGFILE"


class KeyLogFile:
    """A file to which lines are appended.

    It is made with the mode 0600.  One that is there already keeps its mode, as it may be meant for others:
    for those in a group, who analyse captures.

    Args:
        path: Where it is.

    Raises:
        ConfigurationError: it cannot be written.
    """

    __slots__ = ("_path",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        try:
            self._append(b"")
        except OSError as error:
            raise ConfigurationError(
                f"the key log cannot be written: {error.strerror}",
                code=errno.errorcode.get(error.errno or 0, "EIO"),
                option="keylog",
                path=str(self._path),
            ) from error

    def __call__(self, line: str, _stream: TLSStream | None) -> None:
        """Append a line.

        Args:
            line: The line, without its end.

        Raises:
            OSError: it cannot be written.
        """
        self._append(line.encode() + b"\n")

    def _append(self, data: bytes) -> None:
        # Opened each time, so that it can be moved away meanwhile; one write keeps lines whole.
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)


def key_log_sink(keylog: KeyLog) -> KeyLogSink | None:
    """Return what takes the lines, or None if nothing does.

    Args:
        keylog: The option.

    Raises:
        ConfigurationError: a file cannot be written.
        ConfigurationTypeError: it is neither function nor path nor bool.
    """
    if keylog is True:
        # As everywhere: without the variable, nothing is written.
        keylog = os.environ.get(ENVIRONMENT_VARIABLE) or None
    if keylog is None or keylog is False:
        return None
    if isinstance(keylog, (str, os.PathLike)):
        return KeyLogFile(keylog)
    if callable(keylog):
        return keylog
    raise ConfigurationTypeError(
        f"keylog must be a function, a path, or True for the file that {ENVIRONMENT_VARIABLE} names. "
        f"Received {keylog!r}",
        option="keylog",
    )
