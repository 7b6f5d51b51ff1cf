"""``tlsnode watch``: until when certificates and revocation lists in files are valid."""

from __future__ import annotations

import dataclasses
import datetime as dt
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Final

import click
import trio
from rich.console import Console

from .. import ConfigurationError, Expiry, expiries
from .credential_options import FILE
from .failure import ExitStatus, run, tell
from .report import JSONOutput, json_option
from .terminal import Row, print_rows, terminal

_STYLES: Final = {"valid": "green", "due": "bold yellow"}
_BAD: Final = "bold red"
_STATUSES: Final = {"valid": ExitStatus.OK, "due": ExitStatus.ATTENTION}
# Which is told of several: what cannot be read may hide what is worse.
_SEVERITY: Final = (ExitStatus.USAGE, ExitStatus.CERTIFICATE, ExitStatus.ATTENTION, ExitStatus.OK)


@click.command(short_help="Say when certificates in files expire.")
@click.argument("files", type=FILE, nargs=-1, required=True)
@click.option(
    "--days",
    type=click.FloatRange(min=0),
    metavar="DAYS",
    help="How long before its end something is due; by default a quarter of its validity, at most 21 days.",
)
@click.option(
    "--passphrase-file",
    type=click.File("rb"),
    metavar="FILE",
    help="A file with the passphrase of PKCS#12 files as its first line.",
)
@click.option(
    "--interval",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Look again every so often, and end when something is to be done.",
)
@json_option
def watch(
    files: tuple[Path, ...],
    days: float | None,
    passphrase_file: IO[bytes] | None,
    interval: float | None,
    as_json: bool,
) -> None:
    """Say when the certificates and revocation lists in FILES expire.

    The files may be PEM, with keys beside the certificates too, DER, or PKCS#12.

    The exit status is 0 if all are valid for long enough, 6 if one is due to be renewed, 1 if one has
    expired, is not yet valid or cannot be read, 2 if a file cannot be used; of several, the first of 2, 1
    and 6.
    """
    passphrase = None if passphrase_file is None else passphrase_file.readline().rstrip(b"\r\n")
    ahead = None if days is None else dt.timedelta(days=days)
    json = JSONOutput("watch", sys.stdout) if as_json else None
    look = partial(read, files, passphrase=passphrase, ahead=ahead)
    sight = look() if interval is None else run(look_until_due, look, interval, json=json)
    if json is not None:
        report = {
            "expiries": [expiry.to_dict() for expiry in sight.expiries],
            "failures": [failure.to_dict() for failure in sight.failures],
        }
        json.print(report=report, exit_status=sight.status)
    else:
        show(terminal(), sight.expiries)
        for failure in sight.failures:
            tell(failure)
    raise click.exceptions.Exit(sight.status)


@dataclasses.dataclass(frozen=True, slots=True)
class Sight:
    """What was seen in files at one time.

    Attributes:
        expiries: Until when what they hold is valid.
        failures: Why some cannot be used.
    """

    expiries: Sequence[Expiry]
    failures: Sequence[ConfigurationError]

    @property
    def status(self) -> ExitStatus:
        """The exit status that tells the worst of it."""
        statuses = {_STATUSES.get(expiry.state, ExitStatus.CERTIFICATE) for expiry in self.expiries}
        if self.failures:
            statuses.add(ExitStatus.USAGE)
        return next((status for status in _SEVERITY if status in statuses), ExitStatus.OK)


def read(files: Iterable[Path], *, passphrase: bytes | None, ahead: dt.timedelta | None) -> Sight:
    """Return what is in files.

    Args:
        files: Where to look.
        passphrase: For PKCS#12.
        ahead: How long before its end something is due; None leaves it to `expiries`.
    """
    found: list[Expiry] = []
    failures = []
    for path in files:
        try:
            found += expiries(path, passphrase=passphrase, ahead=ahead)
        except ConfigurationError as error:
            failures.append(error)
    return Sight(found, failures)


async def look_until_due(look: Callable[[], Sight], interval: float) -> Sight:
    """Look again and again until something is to be done; return what was seen last.

    Args:
        look: Looks once.
        interval: How often, in seconds.
    """
    while (sight := look()).status is ExitStatus.OK:  # noqa: ASYNC110 - files tell nobody
        await trio.sleep(interval)
    return sight


def show(console: Console, found: Iterable[Expiry]) -> None:
    """Print until when things are valid, what ends first above the others.

    Args:
        console: Where to.
        found: The things.
    """
    forever = dt.datetime.max.replace(tzinfo=dt.UTC)
    for expiry in sorted(found, key=lambda expiry: expiry.valid_to or forever):
        print_rows(console, [_row(expiry)], _STYLES.get(expiry.state, _BAD))


def _row(expiry: Expiry) -> Row:
    what = "" if expiry.kind == "certificate" else "revocation list of "
    # The labels have eleven columns.
    state = "not yet" if expiry.state == "not yet valid" else expiry.state
    return state, f"{expiry.path}: {what}{expiry.name or 'nobody'}, {_when(expiry)}"


def _when(expiry: Expiry) -> str:
    if expiry.state == "unreadable":
        return "with dates that cannot be read"
    if expiry.state == "not yet valid":
        assert expiry.valid_from is not None
        return f"from {expiry.valid_from:%Y-%m-%d %H:%M} UTC on"
    if expiry.valid_to is None or expiry.remaining is None:
        return "for ever"
    left = "left" if expiry.remaining >= dt.timedelta() else "ago"
    return f"until {expiry.valid_to:%Y-%m-%d %H:%M} UTC ({_span(abs(expiry.remaining))} {left})"


def _span(time: dt.timedelta) -> str:
    """Return how long something is, in days, or if that is less than two, in hours."""
    if time.days >= 2:
        return f"{time.days} days"
    hours = int(time.total_seconds() // 3600)
    return "1 hour" if hours == 1 else f"{hours} hours"
