"""ALPN protocol lists: the names of application protocols, in Node's forms and on the wire (RFC 7301)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from .errors import ConfigurationError, ConfigurationTypeError, ProtocolError

ALPNProtocols = Iterable[str | bytes | bytearray | memoryview] | bytes | bytearray | memoryview
"""What ``alpn_protocols`` takes: names in order of preference, or the wire format."""

# RFC 7301, section 3.1: the list's length has two bytes.
_MAX_WIRE_FORMAT: Final = 0xFFFF


def parse_alpn_protocols(value: ALPNProtocols | None) -> tuple[str, ...]:
    """Return protocol names as a tuple of str; names are bytes on the wire, and latin-1 here.

    Args:
        value: A list of names, or the wire format: each name behind a byte that says how long it is.

    Raises:
        ConfigurationError: a name has no byte or more than 255, all of them together have too many, or the
            wire format is cut.
        ConfigurationTypeError: neither a list of names nor bytes.
    """
    names = _names(value)
    size = len(alpn_wire_format(names))
    if size > _MAX_WIRE_FORMAT:
        raise ConfigurationError(
            f"alpn_protocols must not take more than {_MAX_WIRE_FORMAT} bytes on the wire. Received {size}",
            code="ERR_OUT_OF_RANGE",
            option="alpn_protocols",
        )
    return names


def _names(value: ALPNProtocols | None) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _from_wire(bytes(value))
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigurationTypeError(
            f'The "options.alpn_protocols" property must be a list of str or bytes. Received {value!r}',
            option="alpn_protocols",
        )
    return tuple(_name(index, name) for index, name in enumerate(value))


def _name(index: int, name: str | bytes | bytearray | memoryview) -> str:
    option = f"alpn_protocols[{index}]"
    if not isinstance(name, (str, bytes, bytearray, memoryview)):
        raise ConfigurationTypeError(f"{option} must be str or bytes. Received {name!r}", option=option)
    try:
        encoded = name.encode("latin-1") if isinstance(name, str) else bytes(name)
    except UnicodeEncodeError as error:
        raise ConfigurationError(
            f"{option} has characters beyond latin-1; give its bytes instead", option=option
        ) from error
    if not 1 <= len(encoded) <= 255:
        raise ConfigurationError(
            f"The byte length of the protocol at index {index} is out of range. "
            f"It must be >= 1 && <= 255. Received {len(encoded)}",
            code="ERR_OUT_OF_RANGE",
            option=option,
        )
    return encoded.decode("latin-1")


def _from_wire(wire: bytes) -> tuple[str, ...]:
    names = []
    position = 0
    while position < len(wire):
        length = wire[position]
        name = wire[position + 1 : position + 1 + length]
        if len(name) != length or not name:
            raise ConfigurationError(
                "alpn_protocols is no valid wire format: each name stands behind a byte with its length, "
                "which is at least 1",
                option="alpn_protocols",
            )
        names.append(name.decode("latin-1"))
        position += 1 + length
    return tuple(names)


def alpn_wire_format(protocols: Iterable[str]) -> bytes:
    """Return parsed protocol names as they are sent."""
    return b"".join(bytes((len(name),)) + name.encode("latin-1") for name in protocols)


def select_alpn_protocol(preferred: Sequence[str], offered: Sequence[str]) -> str | None:
    """Return the first protocol of a server's list that the client offers, or None."""
    return next((protocol for protocol in preferred if protocol in offered), None)


def no_application_protocol() -> ProtocolError:
    """Return the error of a server that shares no protocol with its client."""
    return ProtocolError("no application protocol in common", code="ERR_SSL_NO_APPLICATION_PROTOCOL")
