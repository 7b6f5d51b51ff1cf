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
# How the library calls what these options are for: "ca=", "ca=[...]", 'starttls="smtp"', and "cert (FILE):".
_OPTIONS: Final = {
    "alpn_protocols": "--alpn",
    "ca": "--ca",
    "cert": "--cert",
    "key": "--key",
    "max_version": "--max-version",
    "min_version": "--min-version",
    "passphrase": "--passphrase-file",
    "server_name": "--servername",
    "starttls": "--starttls",
}
_ARGUMENT: Final = re.compile(rf"""\b({"|".join(_OPTIONS)})=(?:\[\.\.\.\]|"(\w+)")?(?![\w[])""")
_FILE_OF: Final = re.compile(rf"^({'|'.join(_OPTIONS)}) \((.+?)\): ")


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
    text = _FILE_OF.sub(lambda match: f"{_OPTIONS[match[1]]} {match[2]}: ", text)
    return _ARGUMENT.sub(
        lambda match: _OPTIONS[match[1]] if match[2] is None else f"{_OPTIONS[match[1]]} {match[2]}", text
    )
