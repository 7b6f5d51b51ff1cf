"""DER: elements of the Distinguished Encoding Rules (X.690), taken apart and put together."""

from __future__ import annotations

Element = tuple[int, bytes]
"""A tag of one octet, and the content."""

INTEGER = 0x02
OCTET_STRING = 0x04
SEQUENCE = 0x30


def elements(der: bytes) -> list[Element]:
    """Split DER into the elements that stand next to one another in it.

    Raises:
        ValueError: an element does not end where it says, has no stated end, or has a tag of several octets.
        IndexError: the last element has no length.
    """
    found = []
    start, size = 0, len(der)
    while start < size:
        tag, length, at = der[start], der[start + 1], start + 2
        if length > 0x80:
            at += length & 0x7F
            length = int.from_bytes(der[start + 2 : at])
        elif length == 0x80:
            raise ValueError("an element without a stated end")
        end = at + length
        if end > size or tag & 0x1F == 0x1F:
            raise ValueError("an element that is not whole")
        found.append((tag, der[at:end]))
        start = end
    return found


def only_element(der: bytes) -> Element:
    """Return the one element that DER consists of.

    Raises:
        ValueError, IndexError: as for `elements`, or it is not one.
    """
    length = der[1]
    if length < 0x80 and len(der) == length + 2 and der[0] & 0x1F != 0x1F:
        # Nearly always; a session has some thirty.
        return der[0], der[2:]
    [element] = elements(der)
    return element


def encoded(tag: int, content: bytes) -> bytes:
    """Return an element."""
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(octets))) + octets + content


def encoded_integer(value: int) -> bytes:
    """Return a number that is not negative as an INTEGER."""
    return encoded(INTEGER, value.to_bytes(value.bit_length() // 8 + 1))
