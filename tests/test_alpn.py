"""ALPN: the forms of a list of application protocols, and what two sides make of their lists.

`tests/test_choice.py` has what a server's callback makes of them.
"""

from __future__ import annotations

from typing import Any

import pytest
from engine_pairs import node_table
from faults import meet, only
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import memory_stream_pair

import trio_tlsnode as tls
from trio_tlsnode.alpn import alpn_wire_format, parse_alpn_protocols, select_alpn_protocol
from trio_tlsnode.stream import TLSStream
from trio_tlsnode.testing import default_authority, tls_pair

pytestmark = pytest.mark.feature("A8")

NODE = node_table("alpn-sni")["alpn"]

# The forms


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        (None, ()),
        ([], ()),
        (b"", ()),
        (["h2", "http/1.1"], ("h2", "http/1.1")),
        (("h2", b"http/1.1"), ("h2", "http/1.1")),
        ([bytearray(b"h2"), memoryview(b"http/1.1")], ("h2", "http/1.1")),
        ((name for name in ("h2", "h3")), ("h2", "h3")),
        ([b"\x00\xff"], ("\x00\xff",)),
        (["\x00\xff"], ("\x00\xff",)),
        (["a" * 255], ("a" * 255,)),
        (b"\x02h2\x08http/1.1", ("h2", "http/1.1")),
        (bytearray(b"\x02h2"), ("h2",)),
        (memoryview(b"\x02h2"), ("h2",)),
    ],
)
def test_a_list_has_several_forms(given_value: Any, expected: tuple[str, ...]) -> None:
    assert parse_alpn_protocols(given_value) == expected


@given(st.lists(st.binary(min_size=1, max_size=255), max_size=20))
def test_every_form_means_the_same(names: list[bytes]) -> None:
    protocols = parse_alpn_protocols(names)
    wire = alpn_wire_format(protocols)
    assert parse_alpn_protocols(wire) == parse_alpn_protocols(protocols) == protocols
    assert [name.encode("latin-1") for name in protocols] == names
    assert len(wire) == sum(len(name) + 1 for name in names)


@pytest.mark.node("test-tls-basic-validations.js")
@pytest.mark.parametrize(
    ("value", "code", "option"),
    [
        ([""], "ERR_OUT_OF_RANGE", "alpn_protocols[0]"),
        (["h2", b""], "ERR_OUT_OF_RANGE", "alpn_protocols[1]"),
        (["h2", "a" * 256], "ERR_OUT_OF_RANGE", "alpn_protocols[1]"),
        (["h2", "\u20ac"], "ERR_INVALID_ARG_VALUE", "alpn_protocols[1]"),
        ([f"{number:0255}" for number in range(256)], "ERR_OUT_OF_RANGE", "alpn_protocols"),
        (b"\x03h2", "ERR_INVALID_ARG_VALUE", "alpn_protocols"),
        (b"\x02h2\x00", "ERR_INVALID_ARG_VALUE", "alpn_protocols"),
        (b"h2", "ERR_INVALID_ARG_VALUE", "alpn_protocols"),
        ("h2", "ERR_INVALID_ARG_TYPE", "alpn_protocols"),
        (5, "ERR_INVALID_ARG_TYPE", "alpn_protocols"),
        (["h2", 5], "ERR_INVALID_ARG_TYPE", "alpn_protocols[1]"),
        ([None], "ERR_INVALID_ARG_TYPE", "alpn_protocols[0]"),
    ],
)
def test_a_list_that_cannot_be_sent_is_refused(value: Any, code: str, option: str) -> None:
    with pytest.raises(tls.ConfigurationError) as caught:
        parse_alpn_protocols(value)
    assert (caught.value.code, caught.value.option) == (code, option)
    assert isinstance(caught.value, TypeError) == (code == "ERR_INVALID_ARG_TYPE")


def test_a_list_of_the_largest_size_is_sent() -> None:
    names = [f"{number:0255}" for number in range(255)] + ["a" * 254]
    assert len(alpn_wire_format(parse_alpn_protocols(names))) == 0xFFFF


# What two sides make of them


@pytest.mark.parametrize(
    ("server", "client", "expected"),
    [
        (["a", "b", "c"], ["a", "b", "c"], "a"),
        (["a", "b", "c"], ["c", "b"], "b"),
        (["a", "b", "c"], ["x", "c"], "c"),
        (["a"], ["b"], None),
        (["a"], [], None),
        ([], ["a"], None),
        ([], [], None),
    ],
)
def test_the_servers_preference_decides(server: list[str], client: list[str], expected: str | None) -> None:
    assert select_alpn_protocol(server, client) == expected


@pytest.mark.feature("C3")
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize(
    ("server_protocols", "client_protocols", "expected"),
    [
        (["a", "b", "c"], ["c", "b"], "b"),
        (b"\x01a\x01b", ["b"], "b"),
        (["a", "b"], None, None),
        (None, ["a"], None),
        ([], ["a"], None),
        ([b"\xff\x00"], [b"\xff\x00"], "\xff\x00"),
    ],
)
async def test_both_sides_know_what_was_negotiated(
    version: str, server_protocols: Any, client_protocols: Any, expected: str | None
) -> None:
    client, server = await tls_pair(
        version=version,
        client_options={"alpn_protocols": client_protocols},
        server_options={"alpn_protocols": server_protocols},
    )
    for stream in (client, server):
        assert stream.alpn_protocol == stream.info.alpn_protocol == expected


@pytest.mark.feature("B11")
@pytest.mark.node("test-tls-alpn-server-client.js")
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
async def test_without_a_protocol_in_common_both_sides_are_told(version: str) -> None:
    client, server = await tls_pair(
        version=version,
        handshake=False,
        client_options={"alpn_protocols": ["a"]},
        server_options={"alpn_protocols": ["b"]},
    )
    refused, alerted = await meet(server, client)
    assert isinstance(refused, tls.ProtocolError)
    assert refused.code == "ERR_SSL_NO_APPLICATION_PROTOCOL"
    assert isinstance(alerted, tls.PeerAlert)
    assert alerted.alert is tls.Alert.no_application_protocol


@pytest.mark.feature("B9")
async def test_a_context_chosen_by_name_keeps_the_servers_protocols() -> None:
    chosen = tls.SecureContext(**default_authority().good("other.example").options)
    client, server = await tls_pair(
        client_options={"server_name": "other.example", "alpn_protocols": ["a", "b"]},
        server_options={"sni_callback": lambda _name: chosen, "alpn_protocols": ["b", "a"]},
    )
    assert client.alpn_protocol == server.alpn_protocol == "b"
    assert client.authorized


# As in Node.js


class ThrownError(Exception):
    """What a callback raises."""


def answering(answer: str) -> Any:
    """A callback that does what the one of this description does in Node."""

    def choose(choice: tls.Choice) -> str | None:
        if answer == "throw":
            raise ThrownError
        if answer == "second":
            return next(iter(choice.protocols[1:]), None)
        return answer

    return choose


@pytest.mark.feature("B11")
@pytest.mark.feature("B12")
@pytest.mark.node(
    "test-tls-alpn-server-client.js",
    "test-http2-alpn.js",
    "test-tls-socket-constructor-alpn-options-parsing.js",
)
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize(NODE["columns"], NODE["rows"].values(), ids=NODE["rows"])
async def test_protocols_are_negotiated_as_in_node(
    server: Any,
    callback: str | None,
    client: Any,
    selected: str | None,
    client_error: str | None,
    server_error: str | None,
    version: str,
) -> None:
    left, right = memory_stream_pair()
    context = tls.SecureContext(**default_authority().good("localhost").options, **only(version))
    theirs = TLSStream(
        right,
        context,
        server_side=True,
        alpn_protocols=server,
        alpn_callback=None if callback is None else answering(callback),
    )
    trusting = tls.SecureContext(ca=default_authority().ca)
    ours = TLSStream(left, trusting, host="localhost", alpn_protocols=client)
    refused, told = await meet(theirs, ours)
    assert (told and told.code) == client_error
    if server_error is None:
        assert refused is None
        assert ours.alpn_protocol == theirs.alpn_protocol == selected
    elif server_error == "what was thrown":
        assert isinstance(refused, tls.CallbackError)
        assert isinstance(refused.__cause__, ThrownError)
    else:
        assert refused is not None
        assert refused.code == server_error
