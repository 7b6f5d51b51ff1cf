"""The failure of a command: what is told about it, and the exit status by which a script knows its class."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, TypeVar, TypeVarTuple, Unpack

import trio

from .. import (
    CertificateError,
    ConfigurationError,
    ConnectionFailed,
    ConnectionLost,
    FeatureUnavailable,
    TLSError,
    advice,
)
from .credential_options import in_options
from .description import error_rows
from .report import JSONOutput
from .terminal import print_rows, print_text, terminal

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


class ExitStatus(enum.IntEnum):
    """How a command ends."""

    OK = 0
    CERTIFICATE = 1
    """The peer's certificate is not to be trusted, or not for this name."""
    USAGE = 2
    """The command was called wrongly, or a file that it was given cannot be used."""
    NETWORK = 3
    """There was no connection, it broke, or it ended without goodbye."""
    PROTOCOL = 4
    """The peer speaks no TLS, broke it, refused us, or has nothing in common with us."""
    TIMEOUT = 5
    """Something took too long."""
    ATTENTION = 6
    """Nothing has failed, but something should be done: a weakness, or a certificate that is due."""
    INTERRUPTED = 130
    """Ctrl-C, by the shells' convention."""


# The first class that an error belongs to decides.
_STATUSES: Final[tuple[tuple[type[Exception], ExitStatus], ...]] = (
    (ConfigurationError, ExitStatus.USAGE),
    (FeatureUnavailable, ExitStatus.USAGE),
    (CertificateError, ExitStatus.CERTIFICATE),
    (trio.TooSlowError, ExitStatus.TIMEOUT),
    (ConnectionLost, ExitStatus.NETWORK),
    (OSError, ExitStatus.NETWORK),
    (ConnectionFailed, ExitStatus.PROTOCOL),
)


def exit_status(error: BaseException) -> ExitStatus | None:
    """Return the exit status of an error; None for one that is a defect of the program."""
    return next((status for cls, status in _STATUSES if isinstance(error, cls)), None)


def run(
    main: Callable[[Unpack[Arguments]], Awaitable[T]], *args: *Arguments, json: JSONOutput | None = None
) -> T:
    """Run a command's coroutine and return its result.

    Args:
        main: The coroutine function.
        args: Its arguments.
        json: Where to tell of a failure as JSON, if not in words.

    Raises:
        SystemExit: it was interrupted, or failed of what a command may fail of, which is told before.
    """
    try:
        return trio.run(main, *args)
    except BaseException as error:
        leaves = tuple(_leaves(error))
        if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
            raise SystemExit(ExitStatus.INTERRUPTED) from None
        statuses = [exit_status(leaf) for leaf in leaves]
        if None in statuses:
            raise
        status = statuses[0]
        assert status is not None
        if json is None:
            tell(leaves[0])
        else:
            json.print(error=leaves[0], exit_status=status)
        raise SystemExit(status) from None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def tell(error: BaseException) -> None:
    """Print an error, and what is known of it, on the standard error output.

    Args:
        error: The error.
    """
    console = terminal(stderr=True)
    text = in_options(str(error)) if isinstance(error, ConfigurationError) else str(error)
    if isinstance(error, OSError) and not isinstance(error, TLSError):
        # Without the number.
        text = error.strerror or text
    print_text(console, text, title=("Error: ", "bold red"))
    print_rows(console, error_rows(error))
    if hint := advice(error):
        print_rows(console, [("what to do", in_options(hint))])
