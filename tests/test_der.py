"""DER: elements, taken apart and put together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_tlsnode.der import INTEGER, OCTET_STRING, SEQUENCE, elements, encoded, encoded_integer

# Of one octet: the low bits all set would announce more of them.
tags = st.integers(0, 255).filter(lambda tag: tag & 0x1F != 0x1F)


@given(st.lists(st.tuples(tags, st.binary(max_size=300)), max_size=5))
def test_elements_are_taken_apart_as_they_were_put_together(content: list[tuple[int, bytes]]) -> None:
    assert elements(b"".join(encoded(tag, octets) for tag, octets in content)) == content


@pytest.mark.parametrize(
    ("length", "header"),
    [
        (0, "0400"),
        (1, "0401"),
        (127, "047f"),
        (128, "048180"),
        (255, "0481ff"),
        (256, "04820100"),
        (65535, "0482ffff"),
        (65536, "0483010000"),
    ],
)
def test_length_is_as_short_as_it_can_be(length: int, header: str) -> None:
    element = encoded(OCTET_STRING, bytes(length))
    assert element == bytes.fromhex(header) + bytes(length)
    assert elements(element) == [(OCTET_STRING, bytes(length))]


@pytest.mark.parametrize(
    ("value", "content"),
    [
        (0, "00"),
        (1, "01"),
        (127, "7f"),
        (128, "0080"),
        (255, "00ff"),
        (256, "0100"),
        (32767, "7fff"),
        (32768, "008000"),
    ],
)
def test_number_is_not_taken_for_a_negative_one(value: int, content: str) -> None:
    assert encoded_integer(value) == encoded(INTEGER, bytes.fromhex(content))


@given(st.integers(0, 1 << 520))
def test_number_is_the_one_that_was_put_in(value: int) -> None:
    [(tag, content)] = elements(encoded_integer(value))
    assert tag == INTEGER
    assert int.from_bytes(content, signed=True) == value
    # X.690, section 8.3.2: no octet too many.
    assert len(content) == 1 or content[0] or content[1] & 0x80


def test_elements_inside_an_element_are_its_content() -> None:
    inner = encoded_integer(1) + encoded(OCTET_STRING, b"abc")
    [(tag, content)] = elements(encoded(SEQUENCE, inner))
    assert tag == SEQUENCE
    assert elements(content) == [(INTEGER, b"\x01"), (OCTET_STRING, b"abc")]


def test_nothing_has_no_elements() -> None:
    assert elements(b"") == []


@pytest.mark.parametrize(
    "der",
    [
        "30",  # no length
        "0400 30",
        "3001",  # no content
        "3082",  # no length of a length
        "308200",
        "30820100",
        "3080 0000",  # no stated end
        "1f0100",  # a tag of several octets
        "30ff" + "ff" * 127,  # longer than anything
    ],
)
def test_what_is_not_whole_is_refused(der: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        elements(bytes.fromhex(der))


@given(st.binary(max_size=40))
def test_garbage_is_taken_apart_or_refused(der: bytes) -> None:
    try:
        found = elements(der)
    except (ValueError, IndexError):
        return
    # Nothing is lost; lengths may be spelt longer than they need be.
    assert sum(2 + len(content) for _, content in found) <= len(der)
