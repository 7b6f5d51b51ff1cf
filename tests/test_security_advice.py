"""Advice is kept where it is needed: with the option that it is about, and all of it on one page."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import trio_tlsnode as tls

pytestmark = pytest.mark.feature("G13")

PAGE = (Path(__file__).parents[1] / "docs" / "security.md").read_text(encoding="utf-8")

# What it is about, where it stands, the words there, and those on the page.
ADVICE = {
    "pre-shared keys come last": (tls.PreSharedKey, "Use certificates where that is possible", "last resort"),
    "a key needs entropy": (tls.PreSharedKey, "as much entropy as any other", "needs entropy"),
    "no key is made from a password": (
        tls.PreSharedKey,
        "never make one from a password",
        "never a password",
    ),
    "renegotiation limits": (tls.ServerOptions, "Leave it alone, or lower it", "[Rr]enegotiation"),
    "ticket keys": (tls.ServerOptions, "belong on no disk", "[Tt]icket keys"),
    "Diffie-Hellman on servers": (tls.SecureContext, r"2048 is wise\), \"auto\"", "2048 bits"),
    "Diffie-Hellman on clients": (tls.ClientStreamOptions, "2048 is wise", "min_dh_size"),
    "security level": (tls.SecureContext, "sets the security level, of this context alone", "one context"),
    "old versions": (tls.SecureContext, "older ones are broken", "Versions before TLS 1.2.. are broken"),
    "the root": (tls.SecureContext, "its intermediates behind it but not the root", "root does not belong"),
    "a resumption that fails": (
        tls.ClientStreamOptions,
        r"only `ConnectionInfo\.session_reused` tells",
        "session_reused",
    ),
    "URIs": (tls.ClientStreamOptions, "takes no URI for a name", "URI"),
}


@pytest.mark.parametrize(("owner", "words", "on_the_page"), ADVICE.values(), ids=ADVICE)
def test_advice_stands_with_its_option_and_on_the_page(owner: type, words: str, on_the_page: str) -> None:
    docstring = " ".join((inspect.getdoc(owner) or "").split())
    assert re.search(words, docstring)
    assert re.search(on_the_page, PAGE)
