"""The options of the command as a whole that set `trio_tlsnode.defaults`, spelt as Node.js spells its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import click

from .. import ConfigurationError, defaults

Command = TypeVar("Command", bound=Callable[..., Any])

_VERSIONS: Final = {"1.0": "TLSv1", "1.1": "TLSv1.1", "1.2": "TLSv1.2", "1.3": "TLSv1.3"}
# Of several switches, the first counts: the oldest of the least, the newest of the greatest.
_LEAST: Final = ("1.0", "1.1", "1.2", "1.3")
_GREATEST: Final = ("1.3", "1.2")


def default_options(command: Command) -> Command:
    """Give a command the options that `setting_defaults` takes."""
    options = [click.option("--tls-cipher-list", metavar="LIST", help="The default cipher suites.")]
    for kind, numbers in (("min", _LEAST), ("max", _GREATEST)):
        for number in sorted(numbers):
            least = "oldest" if kind == "min" else "newest"
            text = f"By default, TLS {number} is the {least} version."
            options.append(
                click.option(f"--tls-{kind}-v{number}", _switch(kind, number), is_flag=True, help=text)
            )
    for option in reversed(options):
        command = option(command)
    return command


def _switch(kind: str, number: str) -> str:
    return f"tls_{kind}_v{number.replace('.', '_')}"


@contextlib.contextmanager
def setting_defaults(tls_cipher_list: str | None, **switches: bool) -> Iterator[None]:
    """Set the defaults of the process, until this is left.

    Args:
        tls_cipher_list: The cipher suites, or None.
        switches: Which versions are the oldest and the newest; of several, the oldest and the newest count.

    Raises:
        click.BadParameter: the list cannot be one.
    """
    before = defaults.ciphers, defaults.min_version, defaults.max_version
    try:
        least = next((number for number in _LEAST if switches[_switch("min", number)]), None)
        greatest = next((number for number in _GREATEST if switches[_switch("max", number)]), None)
        if least is not None:
            defaults.min_version = _VERSIONS[least]
        if greatest is not None:
            defaults.max_version = _VERSIONS[greatest]
        if tls_cipher_list is not None:
            try:
                defaults.ciphers = tls_cipher_list
            except ConfigurationError as error:
                raise click.BadParameter(error.reason, param_hint="--tls-cipher-list") from error
        yield
    finally:
        defaults.ciphers, defaults.min_version, defaults.max_version = before
