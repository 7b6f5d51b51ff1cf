"""ContextTable: which context serves which name."""

from __future__ import annotations

import gc
import re
import sys
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trio_tlsnode as tls
from trio_tlsnode.context_table import ContextTable

pytestmark = pytest.mark.feature("B10")

CONTEXTS = [tls.SecureContext(ca=[]) for _ in range(8)]
FIRST, SECOND, *_ = CONTEXTS


def table_of(*patterns: str) -> ContextTable:
    """A table that has a context of its own for each pattern."""
    table = ContextTable()
    for pattern, context in zip(patterns, CONTEXTS, strict=False):
        table.add(pattern, context)
    return table


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("example.com", "example.com", True),
        ("example.com", "EXAMPLE.com", True),
        ("Example.Com", "example.com", True),
        ("example.com", "example.com.", True),
        ("example.com.", "example.com", True),
        ("example.com", "www.example.com", False),
        ("example.com", "example.org", False),
        ("example.com", "com", False),
        ("*.example.com", "www.example.com", True),
        ("*.example.com", "WWW.Example.COM.", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "a.b.example.com", False),
        ("*.example.com", ".example.com", True),
        ("*.*.example.com", "a.b.example.com", True),
        ("*.*.example.com", "b.example.com", False),
        ("www.*.com", "www.example.com", True),
        ("www.*.com", "www.a.b.com", False),
        ("*", "localhost", True),
        ("*", "example.com", False),
        ("a*.example.com", "a.example.com", True),
        ("a*.example.com", "abc.example.com", True),
        ("a*.example.com", "ba.example.com", False),
        ("*a.example.com", "cba.example.com", True),
        ("a*a.example.com", "a.example.com", False),
        ("a*a.example.com", "aa.example.com", True),
        ("a*b*c.example.com", "a1b2c.example.com", True),
        ("a*b*c.example.com", "acb.example.com", False),
        ("a*b*b.example.com", "ab.example.com", False),
        ("**.example.com", "a.b.example.com", False),
        ("[a].example.com", "a.example.com", False),
        ("?.example.com", "a.example.com", False),
        ("a.example.com", "aXexample.com", False),
        ("b\u00fccher.example", "xn--bcher-kva.example", True),
        ("B\u00dcCHER.example", "XN--BCHER-KVA.EXAMPLE.", True),
        ("b\u00fccher\u3002example", "xn--bcher-kva.example", True),
        ("*.b\u00fccher.example", "www.xn--bcher-kva.example", True),
        ("*.b\u00fccher.example", "xn--bcher-kva.example", False),
        ("xn--*.example", "xn--bcher-kva.example", True),
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.10", False),
        ("2001:db8::1", "2001:DB8::1", True),
    ],
)
def test_a_wildcard_matches_within_one_label(pattern: str, name: str, matches: bool) -> None:
    assert table_of(pattern).find(name) is (FIRST if matches else None)


def test_nothing_is_found_in_an_empty_table() -> None:
    assert ContextTable().find("example.com") is None
    assert ContextTable().find("") is None


@pytest.mark.parametrize(
    "patterns",
    [
        ("*.example.com", "www.example.com"),
        ("www.example.com", "*.example.com"),
        ("*.example.com", "w*.example.com"),
        ("w*.example.com", "*.*.com"),
        ("*.*.*", "www.*.com"),
        ("www.example.com", "WWW.example.com."),
        ("www.example.com", "*.other.com", "*.example.com"),
    ],
)
def test_of_those_that_match_the_latest_is_taken(patterns: tuple[str, ...]) -> None:
    assert table_of(*patterns).find("www.example.com") is CONTEXTS[len(patterns) - 1]


def test_an_earlier_one_is_taken_where_a_later_one_does_not_match() -> None:
    table = table_of("*.example.com", "www.example.com")
    assert table.find("www.example.com") is SECOND
    assert table.find("mail.example.com") is FIRST


LABELS = st.text("aB*", min_size=1, max_size=3)
NAMES = st.tuples(st.lists(LABELS, min_size=1, max_size=3).map(".".join), st.sampled_from(["", "."])).map(
    "".join
)


@given(patterns=st.lists(NAMES, max_size=8), name=NAMES.map(lambda name: name.replace("*", "b")))
def test_it_finds_what_looking_at_all_of_them_would_find(patterns: list[str], name: str) -> None:
    expected = None
    for pattern, context in zip(patterns, CONTEXTS, strict=False):
        anything_in_a_label = re.escape(pattern.removesuffix(".")).replace(r"\*", "[^.]*")
        if re.fullmatch(anything_in_a_label, name.removesuffix("."), re.IGNORECASE):
            expected = context
    assert table_of(*patterns).find(name) is expected


@pytest.mark.parametrize("pattern", ["www.example.com", "*.example.com", "w*.example.com", "*.*.com"])
def test_the_same_pattern_again_takes_the_place_of_the_first(pattern: str) -> None:
    table = ContextTable()
    replaced = tls.SecureContext(ca=[])
    gone = weakref.ref(replaced)
    table.add(pattern, replaced)
    table.add("*.*.*", FIRST)
    del replaced
    table.add(pattern.upper() + ".", SECOND)
    gc.collect()
    assert gone() is None
    assert table.find("www.example.com") is SECOND


def test_the_work_does_not_grow_with_the_number_of_names() -> None:
    def work(size: int) -> int:
        table = ContextTable()
        for number in range(size):
            table.add(f"www.host{number}.example", FIRST)
            table.add(f"*.host{number}.example", SECOND)
        calls = 0

        def count(_frame: object, _event: str, _arg: object) -> None:
            nonlocal calls
            calls += 1

        sys.setprofile(count)
        try:
            found = [
                table.find(name) for name in ("www.host1.example", "a.host2.example", "elsewhere.example")
            ]
        finally:
            sys.setprofile(None)
        assert found == [SECOND, SECOND, None]
        return calls

    assert work(10) == work(5000)


@pytest.mark.parametrize(
    ("pattern", "context", "code"),
    [
        ("", FIRST, "ERR_TLS_REQUIRED_SERVER_NAME"),
        (None, FIRST, "ERR_INVALID_ARG_TYPE"),
        (b"example.com", FIRST, "ERR_INVALID_ARG_TYPE"),
        ("example.com", None, "ERR_INVALID_ARG_TYPE"),
        ("example.com", {}, "ERR_INVALID_ARG_TYPE"),
        ("b\u00fc*.com", FIRST, "ERR_INVALID_ARG_VALUE"),
        ("a_\u00fc.com", FIRST, "ERR_INVALID_ARG_VALUE"),
    ],
)
def test_what_cannot_be_added_is_refused_and_changes_nothing(pattern: Any, context: Any, code: str) -> None:
    table = table_of("example.com")
    with pytest.raises(tls.ConfigurationError) as caught:
        table.add(pattern, context)
    assert (caught.value.code, caught.value.option) == (code, "add_context")
    assert table.find("example.com") is FIRST
