"""ALPN, as Node.js's own tests have it; the table of who gets which protocol is in tests/test_alpn.py."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import trio
from meetings import come_to
from parties import party, trust
from trio.testing import memory_stream_pair

from trio_tlsnode import Choice, SecureContext, TLSServer, TLSStream, wrap_client
from trio_tlsnode.alpn import alpn_wire_format, parse_alpn_protocols


def second(choice: Choice) -> str | None:
    return next(iter(choice.protocols[1:]), None)


@pytest.mark.feature("B11")
@pytest.mark.node("test-https-argument-of-creating.js")
@pytest.mark.parametrize(
    "options", [{"alpn_protocols": ["http/1.1"]}, {"alpn_callback": second}], ids=["list", "callback"]
)
async def test_options_are_never_changed(options: dict[str, Any], nursery: trio.Nursery) -> None:
    client_options: dict[str, Any] = {"alpn_protocols": ["h2", "http/1.1"], "ca": trust("rsa_cert")}
    before = copy.deepcopy((options, client_options))

    async def handler(stream: TLSStream) -> None:
        assert stream.alpn_protocol == "http/1.1"

    server = TLSServer(handler, SecureContext(**party("rsa_cert").options), **options)
    async with await wrap_client(come_to(server, nursery), **client_options) as client:
        assert client.alpn_protocol == "http/1.1"
    TLSStream(
        memory_stream_pair()[0], SecureContext(**party("rsa_cert").options), server_side=True, **options
    )
    assert (options, client_options) == before


@pytest.mark.feature("A8")
@pytest.mark.node("test-https-argument-of-creating.js")
def test_a_list_has_one_form_on_the_wire() -> None:
    assert alpn_wire_format(parse_alpn_protocols(["http/1.1"])) == b"\x08http/1.1"
