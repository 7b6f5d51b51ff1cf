"""SNI, as Node.js's own tests have it; the tables of who gets which context are in tests/test_sni.py."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from client_hellos import recorded
from meetings import in_both_versions
from parties import party, trust
from trio.testing import memory_stream_pair

import trio_tlsnode as tls
from trio_tlsnode import ConfigurationTypeError, SecureContext, TLSStream, wrap_client
from trio_tlsnode.testing import tls_pair

LOCALHOST = SecureContext(**party("rsa_cert").options)
TRUSTING = SecureContext(ca=trust("rsa_cert"))


@pytest.mark.feature("A4")
@pytest.mark.node("test-tls-error-servername.js")
@pytest.mark.parametrize("name", [1, True, {}, b"localhost"], ids=repr)
def test_a_name_that_is_no_text_is_refused(name: Any) -> None:
    with pytest.raises(ConfigurationTypeError) as caught:
        TLSStream(memory_stream_pair()[0], TRUSTING, server_name=name)
    assert (caught.value.code, caught.value.option) == ("ERR_INVALID_ARG_TYPE", "server_name")


@pytest.mark.feature("A4")
@pytest.mark.node("test-tls-error-servername.js")
def test_a_server_sends_no_name() -> None:
    with pytest.raises(TypeError, match="server_name"):
        TLSStream(memory_stream_pair()[0], LOCALHOST, server_side=True, server_name="localhost")


@pytest.mark.feature("A4")
@pytest.mark.feature("C3")
@pytest.mark.node("test-https-agent-sni.js")
@in_both_versions
@pytest.mark.parametrize(
    ("server_name", "seen"), [("sni.0", "sni.0"), ("sni.1", "sni.1"), ("", None), (None, "localhost")]
)
async def test_the_server_sees_the_name_that_was_asked_for(
    server_name: str | None, seen: str | None, version: str
) -> None:
    options: dict[str, Any] = {"host": "localhost", "server_name": server_name, "reject_unauthorized": False}
    client, server = await tls_pair(version=version, client_options=options)
    assert client.server_name == server.server_name == server.info.server_name == seen


@pytest.mark.feature("B9")
@pytest.mark.node("test-tls-socket-snicallback-without-server.js")
async def test_a_stream_by_hand_asks_once_what_a_browser_wants() -> None:
    asked: list[str] = []
    left, right = memory_stream_pair()
    await left.send_all(recorded()["chromium"])
    await left.aclose()
    stream = TLSStream(right, SecureContext(), server_side=True, sni_callback=asked.append)
    with pytest.raises(tls.ConnectionFailed):
        await stream.do_handshake()
    assert stream.client_hello is not None
    assert asked == [stream.client_hello.server_name]


@pytest.mark.feature("B9")
@pytest.mark.feature("A10")
@pytest.mark.node("test-tls-starttls-server.js")
@in_both_versions
async def test_who_gets_neither_a_context_nor_a_response_of_its_own_is_served(
    version: str, nursery: trio.Nursery
) -> None:
    asked: list[str] = []

    async def look_up(name: str) -> None:
        await trio.lowlevel.checkpoint()
        asked.append(name)

    left, right = memory_stream_pair()
    server = TLSStream(right, LOCALHOST, server_side=True, sni_callback=look_up)
    nursery.start_soon(server.do_handshake)
    client = await wrap_client(
        left,
        server_name="test.test",
        request_ocsp=True,
        ca=trust("rsa_cert"),
        reject_unauthorized=False,
        min_version=version,
        max_version=version,
    )
    assert asked == ["test.test"]
    assert client.info.ocsp_response is None
