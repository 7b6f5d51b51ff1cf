"""What a notebook shows: what is worth looking at has a form in HTML, in which peers have no say."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair

import trio_tlsnode as tls
from trio_tlsnode.html_table import html_line, html_table
from trio_tlsnode.sessions import Session
from trio_tlsnode.testing import Authority, tls_pair

pytestmark = pytest.mark.feature("G3")

AUTHORITY = Authority()


def rows(shown: Any) -> dict[str, str]:
    """Return what the HTML form of a value says, by name; it has to be well-formed."""
    table = ET.fromstring(shown._repr_html_())
    assert {element.tag for element in table.iter()} <= {
        *("table", "caption", "tbody", "tr", "th", "td", "span", "div")
    }
    assert not [element for element in table.iter() if element.attrib.keys() - {"style", "scope"}]
    return {
        "".join(row[0].itertext()): "".join(row[1].itertext()) for row in table.iter("tr") if len(row) == 2
    }


def caption(shown: Any) -> str:
    return "".join(ET.fromstring(shown._repr_html_())[0].itertext())


# What is shown


async def test_what_was_negotiated_has_a_line_for_each_fact() -> None:
    client, server = await tls_pair(client_options={"host": "localhost", "trace": tls.HandshakeTrace})
    shown = rows(client.info)
    assert caption(client.info) == "ConnectionInfoauthorized"
    assert shown["cipher"] == "TLS_AES_256_GCM_SHA384, 256 bits"
    assert shown["ephemeral_key"] == "X25519MLKEM768, KEM, 768"
    assert shown["session_reused"] == "no"
    assert re.fullmatch("localhost, issued by .*, until 3000-01-01", shown["peer_certificate"])
    # What there was none of is left out.
    assert client.info.early_data_accepted is None
    assert not {"alpn_protocol", "early_data_accepted", "authorization_error"} & shown.keys()
    assert rows(server.info)["shared_signature_algorithms"].startswith("ECDSA+SHA256, ECDSA+SHA384")
    assert rows(client.info.cipher)["secret_bits"] == "256"
    assert client.info.ephemeral_key is not None
    assert rows(client.info.ephemeral_key)["type"] == "KEM"


async def test_a_staple_is_shown_by_its_size() -> None:
    issued = AUTHORITY.good("localhost")
    response = AUTHORITY.ocsp_response(issued)
    client, _ = await tls_pair(
        client_context=tls.SecureContext(ca=AUTHORITY.ca),
        server_context=tls.SecureContext(ca=AUTHORITY.ca, **issued.options),
        client_options={"host": "localhost", "ocsp": "verify"},
        server_options={"ocsp_callback": lambda *_: response},
    )
    assert rows(client.info)["ocsp_response"] == f"{len(response)} bytes"


async def test_statistics_are_tables() -> None:
    client, _ = await tls_pair()
    assert rows(client.statistics())["plaintext_sent"] == "0"
    assert rows(tls.SessionCache().statistics) == {"hits": "0", "misses": "0", "stored": "0"}
    assert rows(tls.OCSPStapler().statistics())["fresh"] == "0"


async def test_a_client_hello_is_shown_by_names_with_its_ja4() -> None:
    _, server = await tls_pair(client_options={"host": "localhost", "alpn_protocols": ["h2"]})
    hello = server.client_hello
    assert hello is not None
    shown = rows(hello)
    assert caption(hello) == f"ClientHello{hello.ja4}"
    assert shown["server_name"] == "localhost"
    assert shown["alpn_protocols"] == "h2"
    assert shown["version_names"] == "TLSv1.3, TLSv1.2"
    assert shown["cipher_names"].startswith("TLS_AES_256_GCM_SHA384, ")
    assert shown["session_ticket"] == "asked for"
    assert "psk_identities" not in shown


async def test_a_session_is_shown_without_its_secrets() -> None:
    client, _ = await tls_pair(version="TLSv1.2", client_options={"host": "localhost"})
    assert client.session is not None
    assert client.tls_ticket is not None
    session = Session.parse(client.session)
    assert caption(session) == "Sessionresumable"
    assert rows(session)["server_name"] == "localhost"
    assert rows(session)["ticket"] == f"{len(client.tls_ticket)} bytes"


def test_an_issued_certificate_is_shown_as_a_certificate() -> None:
    shown = rows(AUTHORITY.good("localhost", intermediates=1))
    assert shown["subject_alt_name"] == "DNS:localhost"
    assert shown["public key"] == "P-256, 256 bits"
    assert "Testing CA" in shown["issuer_certificate"]
    assert AUTHORITY.unreadable_date("localhost")._repr_html_().startswith("<p>&lt;Certificate of ")


async def test_failures_of_clients_are_shown_as_one_table_with_a_line_for_each() -> None:
    server = tls.TLSServer(trio.aclose_forcefully, tls.SecureContext(**AUTHORITY.good("localhost").options))
    for first_words in (b"GET / HTTP/1.1\r\n\r\n", b"EHLO <script>\r\n"):
        client, transport = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.handle, transport)
            await client.send_all(first_words)
    group = await anext(server.client_errors())
    table = group._repr_html_()
    assert caption(group) == "TLSClientErrors2 failed"
    assert [text for text in ("ERR_SSL_HTTP_REQUEST", "ERR_SSL_WRONG_VERSION_NUMBER") if text in table]
    assert table.count(">NotTLS<") == 2
    assert rows(server.statistics())["failed"] == "ERR_SSL_HTTP_REQUEST: 1ERR_SSL_WRONG_VERSION_NUMBER: 1"
    assert rows(group.exceptions[1])["first_bytes"] == repr(b"EHLO <script>\r\n")


def test_very_many_failures_are_counted() -> None:
    errors = [tls.ProtocolError(f"number {number}") for number in range(60)]
    group = tls.TLSClientErrors("clients failed", errors)
    group.dropped = 7
    shown = rows(group)
    assert shown["left out here"] == "10"
    assert shown["dropped"] == "7"
    assert "number 49" in group._repr_html_()
    assert "number 50" not in group._repr_html_()


# What peers send


HOSTILE = "</td><script>alert(1)</script>\x1b[31m\u202egnp.exe\n"
HARMLESS = r"</td><script>alert(1)</script>\x1b[31m\u202egnp.exe\n"


@pytest.mark.parametrize(
    "fact",
    [HOSTILE, (HOSTILE,), {HOSTILE: 1}, {1: HOSTILE}, tls.ProtocolError(HOSTILE), (tls.Alert(0), HOSTILE)],
)
def test_text_of_others_stays_text(fact: object) -> None:
    table = html_table("facts", {"fact": fact})
    assert HARMLESS in "".join(ET.fromstring(table).itertext())
    assert "<script" not in table
    assert table.isprintable()


def test_titles_badges_names_and_lines_are_text_too() -> None:
    table = html_table(HOSTILE, [(HOSTILE, True)], badge=HOSTILE)
    line = html_line(HOSTILE, HOSTILE, code=HOSTILE)
    assert "".join(ET.fromstring(table).itertext()) == 3 * HARMLESS + "yes"
    assert "".join(ET.fromstring(f"<p>{line}</p>").itertext()) == f"{HARMLESS} {HARMLESS}, {HARMLESS}"


async def test_a_list_that_a_client_made_long_is_cut() -> None:
    protocols = [f"<b>{number}" for number in range(120)]
    _, server = await tls_pair(client_options={"host": "localhost", "alpn_protocols": protocols})
    assert server.client_hello is not None
    shown = rows(server.client_hello)["alpn_protocols"]
    assert shown.startswith("<b>0, <b>1, ")
    assert shown.endswith("<b>99 and 20 more")
