"""The destination of a command: a host and a port, and how to reach TLS there."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from typing import Final

import click

from .. import StartTLSProtocol

HTTPS_PORT: Final = 443
# Where servers that begin in plaintext listen: mail is submitted to 587 (RFC 6409).
_PORTS: Final[dict[StartTLSProtocol, int]] = {"smtp": 587, "imap": 143, "pop3": 110, "postgres": 5432}

Destination = tuple[str, int | None]
"""A host, and the port if one was named."""


def split_destination(text: str) -> Destination:
    """Return host and port of ``HOST``, ``HOST:PORT``, ``[ADDRESS]:PORT``, ``[ADDRESS]`` or an IPv6 address.

    Raises:
        click.BadParameter: it is none of these.
    """
    with contextlib.suppress(ValueError):
        ipaddress.IPv6Address(text)
        return text, None
    if (url := re.match(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]+)", text)) is not None:
        raise click.BadParameter(f"{text!r} is a URL: write {url[1]}")
    match = re.fullmatch(r"(?:\[([^][/]+)\]|([^][/:]+))(?::(.*))?", text)
    if match is None:
        raise click.BadParameter(f"{text!r} is no HOST[:PORT]")
    return match[1] or match[2], None if match[3] is None else parse_port(match[3])


def parse_port(text: str) -> int:
    """Return a port.

    Raises:
        click.BadParameter: it is none.
    """
    if not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise click.BadParameter(f"{text!r} is no port: a number from 1 to 65535 is expected")
    return int(text)


def port_of(destination: Destination, starttls: StartTLSProtocol | None = None) -> int:
    """Return the port of a destination; if none was named, that of the protocol.

    Args:
        destination: Host and port.
        starttls: The protocol in which TLS is asked for; None is HTTPS.
    """
    return destination[1] or (HTTPS_PORT if starttls is None else _PORTS[starttls])
