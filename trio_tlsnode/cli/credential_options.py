"""The options by which a command is told its certificate, its key, and whom to trust."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

# The library reads these files, and tells what is wrong with them.
FILE: Final = click.Path(path_type=Path)
# How the library's errors call what these options are for: "ca=", "ca=[...]".
_ARGUMENT: Final = re.compile(r"\b(ca|cert|key|passphrase|starttls)=(?:\[\.\.\.\])?(?![\w[])")


def credential_options(command: Command) -> Command:
    """Give a command the options that `context_options` takes."""
    for option in (
        click.option(
            "--ca", type=FILE, metavar="FILE", help="The certificates to trust; by default Mozilla's."
        ),
        click.option(
            "--passphrase-file",
            type=click.File("rb"),
            metavar="FILE",
            help="A file with the key's passphrase as its first line.",
        ),
        click.option("--key", type=FILE, metavar="FILE", help="The private key of the certificate."),
        click.option("--cert", type=FILE, metavar="FILE", help="The certificate to present, with its chain."),
    ):
        command = option(command)
    return command


def context_options(
    cert: Path | None, key: Path | None, passphrase_file: IO[bytes] | None, ca: Path | None
) -> dict[str, Any]:
    """Return the options of a `SecureContext` that were given on the command line.

    Raises:
        click.UsageError: an option lacks the one that belongs to it.
    """
    if (cert is None) != (key is None):
        raise click.UsageError("--cert and --key belong together")
    if passphrase_file is not None and key is None:
        raise click.UsageError("--passphrase-file is for --key")
    passphrase = None if passphrase_file is None else passphrase_file.readline().rstrip(b"\r\n")
    return {"cert": cert, "key": key, "passphrase": passphrase, "ca": ca}


def in_options(text: str) -> str:
    """Return an error's text with the names of these options in place of the library's arguments."""
    return _ARGUMENT.sub(
        lambda match: "--passphrase-file" if match[1] == "passphrase" else f"--{match[1]}", text
    )
