"""watch_credentials: a task that gives a server new certificates, keys and revocation lists from their files.

Files are looked at, not listened to: that works on every file system, through every symbolic link, and
however they are replaced.  What has changed is read when nothing has changed any more for a moment, and used
only if all of it can be, together, and did not change while it was read.  So it does not matter whether the
key is written before its certificate or after it, nor how long that takes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import trio

from .certificates import Certificate
from .context import SecureContext
from .credentials import Passphrase
from .errors import ConfigurationError, ConfigurationTypeError
from .option_values import check_seconds
from .server import TLSServer

T = TypeVar("T")

Files: TypeAlias = os.PathLike[str] | Sequence[os.PathLike[str]]

FailureCallback = Callable[[ConfigurationError], object]
"""``on_failure``: given why the files cannot be used; called once for each reason."""

_State: TypeAlias = tuple[object, ...]

logger = logging.getLogger("trio_tlsnode")

# For how long nothing must have changed, in seconds: much longer than it takes to write some files, and than
# the steps in which file systems tell the time.
_QUIET: Final = 1.0


async def watch_credentials(
    server: TLSServer,
    *,
    key: Files | None = None,
    cert: Files | None = None,
    pfx: Files | None = None,
    passphrase: Passphrase | None = None,
    ca: Files | None = None,
    crl: Files | None = None,
    context: SecureContext | None = None,
    interval: float = 10.0,
    on_failure: FailureCallback | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Watch files, and have a server use what is in them for new connections, until cancelled.

    The files are read at once, and again when they have changed.  All other options stay as they are in the
    context that is replaced, and its sessions go on, unless `ca` or `crl` have changed: then whom they would
    keep out must not come in by a session.  Connections that are open keep what they have.

    New files that cannot be used, one that is missing, damaged or half written, a key that is not the
    certificate's, leave the server as it is.  This is one line on the logger ``trio_tlsnode``, and when they
    are right, that is another one.

    Args:
        server: The server.
        key: The file of the private key, or a list of such files.
        cert: The file of the certificate with its chain, or a list.
        pfx: The PKCS#12 file, or a list.
        passphrase: For files that are encrypted.
        ca: The file of the certificates to trust, or a list.
        crl: The file of the revocation lists, or a list.
        context: The context to replace, wherever the server uses it: one that `TLSServer.add_context` was
            given, say.  None is the default context, whichever that is at the time.
        interval: How often the files are looked at, in seconds.
        on_failure: Called with the error, which has no traceback, when new files cannot be used; not again
            for the same reason.  What it raises ends the task.
        task_status: With ``nursery.start``, told when the files were read for the first time.

    Raises:
        ConfigurationError: an option cannot be used, the server does not use `context`, or the files cannot
            be used when they are read for the first time.
    """
    files = {
        option: _paths(option, value)
        for option, value in (("key", key), ("cert", cert), ("pfx", pfx), ("ca", ca), ("crl", crl))
        if value is not None
    }
    if not files:
        raise ConfigurationError("there is nothing to watch: give key= and cert=, or others", option="cert")
    if check_seconds("interval", interval) == 0:
        raise ConfigurationError("interval must be more than 0 seconds", option="interval")
    if on_failure is not None and not callable(on_failure):
        raise ConfigurationTypeError(
            f"on_failure must be callable. Received {on_failure!r}", option="on_failure"
        )
    watch = _Watch(server, context, files, passphrase, on_failure)
    await watch.begin()
    task_status.started()
    await watch.go_on(interval)


class _Watch:
    """What is watched, and for whom."""

    def __init__(
        self,
        server: TLSServer,
        context: SecureContext | None,
        files: Mapping[str, Sequence[Path]],
        passphrase: Passphrase | None,
        on_failure: FailureCallback | None,
    ) -> None:
        self._server = server
        self._context = context
        self._options: dict[str, Any] = {**files, "passphrase": passphrase}
        self._paths = [path for paths in files.values() for path in paths]
        self._on_failure = on_failure
        # How the files were when they were looked at last, and when they were used or refused.
        self._seen: _State = ()
        self._judged: _State = ()
        # Why they were refused, if they were.
        self._complaint = ""

    async def begin(self) -> None:
        """Use what is in the files.

        Raises:
            ConfigurationError: it cannot be used.
        """
        self._seen = self._judged = await _in_thread(self._look)
        present = self._present
        outcome, _ = await _in_thread(partial(self._load, present))
        self._use(outcome, present)

    async def go_on(self, interval: float) -> None:
        """Look at the files from time to time, and use what is in them when they have changed."""
        soon = min(interval, _QUIET)
        pause = interval
        while True:
            await trio.sleep(pause)
            state = await _in_thread(self._look)
            if state != self._seen:
                # Perhaps somebody is at it just now.
                self._seen = state
                pause = soon
            elif state != self._judged:
                pause = interval if await self._renew() else soon
            else:
                pause = interval

    async def _renew(self) -> bool:
        """Use what is in the files, if it can be; return False if something has changed meanwhile."""
        present = self._present
        outcome, state = await _in_thread(partial(self._load, present))
        if state != self._seen or self._present is not present:
            self._seen = state
            return False
        try:
            self._use(outcome, present)
        except ConfigurationError as error:
            # What could not even be read ("EACCES") may be readable later though no file has changed.
            if error.code.startswith("ERR_"):
                self._judged = state
            self._complain(error)
        else:
            self._judged = state
            self._complaint = ""
        return True

    @property
    def _present(self) -> SecureContext:
        """The context to replace."""
        return self._server.secure_context if self._context is None else self._context

    def _look(self) -> _State:
        return tuple(map(_state_of, self._paths))

    def _load(self, present: SecureContext) -> tuple[SecureContext | ConfigurationError, _State]:
        """Return what is to replace a context, or why nothing is, and the state of the files afterwards."""
        outcome: SecureContext | ConfigurationError
        try:
            outcome = present.with_credentials(**self._options)
        except ConfigurationError as error:
            outcome = error
        return outcome, self._look()

    def _use(self, outcome: SecureContext | ConfigurationError, present: SecureContext) -> None:
        if isinstance(outcome, ConfigurationError):
            raise outcome
        self._server.set_secure_context(outcome, in_place_of=present)
        if self._context is not None:
            self._context = outcome
        if outcome is not present:
            logger.info("new credentials are used: %s", list(map(Certificate, outcome.certificates)))

    def _complain(self, error: ConfigurationError) -> None:
        if str(error) == self._complaint:
            return
        self._complaint = str(error)
        logger.error("new credentials cannot be used, and the old ones stay: %s", error)
        if self._on_failure is not None:
            _forget_frames(error)
            self._on_failure(error)


async def _in_thread(function: Callable[[], T]) -> T:
    """Do something that a disk may keep waiting, and a network's disk for ever."""
    return await trio.to_thread.run_sync(function, abandon_on_cancel=True)


def _forget_frames(error: BaseException) -> None:
    """Let an error, and what it came of, not keep what is in the files: private keys, for one."""
    cause: BaseException | None = error
    while cause is not None:
        cause.__traceback__ = None
        cause = cause.__cause__ or cause.__context__


def _state_of(path: Path) -> object:
    """Return what changes when a file, or a link on the way to it, is replaced or written to."""
    try:
        status = os.stat(path)
        return (
            os.path.realpath(path),
            *(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns),
        )
    except (OSError, ValueError) as error:
        return repr(error)


def _paths(option: str, value: Files) -> list[Path]:
    """Return the paths of files, which the program's changing to another folder does not change."""
    return [_path(option, item) for item in (value if isinstance(value, (list, tuple)) else (value,))]


def _path(option: str, value: object) -> Path:
    if isinstance(value, os.PathLike):
        return Path(value).absolute()
    # It is not shown: it may be a key.
    raise ConfigurationTypeError(
        f"{option} must be the path of a file, pathlib.Path(...), or a list of them. "
        f"Received an instance of {type(value).__name__}",
        option=option,
    )
