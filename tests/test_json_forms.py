"""What was negotiated, certificates and errors as what JSON has, and as ASGI's extension."""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import Any

import pytest
from json_shapes import CERTIFICATE, INFO, shape

import trio_tlsnode as tls
from trio_tlsnode.testing import Authority, default_authority, tls_pair

pytestmark = pytest.mark.feature("G10")


async def server_info(issued: Any = None, **options: Any) -> tls.ConnectionInfo:
    """Return what a server negotiated with a client that presents this certificate, if any."""
    authority = default_authority()
    shown: Any = {} if issued is None else issued.options
    client, server = await tls_pair(
        client_context=tls.SecureContext(ca=authority.ca, **shown),
        server_context=tls.SecureContext(**authority.good("localhost").options, ca=authority.ca),
        server_options={"request_cert": True, "reject_unauthorized": False, **options},
    )
    async with client, server:
        return server.info


def round_trip(value: Any) -> Any:
    return json.loads(json.dumps(value))


# to_dict


async def test_what_was_negotiated_is_json_with_the_attributes_as_keys() -> None:
    client, server = await tls_pair()
    async with client, server:
        facts = client.info.to_dict()
    assert round_trip(facts) == facts
    assert shape(facts) == INFO
    assert facts["cipher"]["standard_name"] == client.info.cipher.standard_name
    assert facts["peer_certificate"]["alt_names"] == [["DNS", "localhost"]]
    assert facts["peer_certificate"]["valid_to"] == "3000-01-01T00:00:00+00:00"


async def test_why_a_peer_is_not_authorized_is_told_as_its_error() -> None:
    info = await server_info(Authority().client("mallory"))
    facts = round_trip(info.to_dict())
    error = facts["authorization_error"]
    assert (error["class"], error["code"]) == ("CertificateError", "UNABLE_TO_VERIFY_LEAF_SIGNATURE")
    assert [problem["depth"] for problem in error["problems"]] == [0, 0]
    assert error["problems"][0]["fingerprint256"] == facts["peer_certificate"]["fingerprint256"]


async def test_an_ocsp_response_is_in_base64() -> None:
    authority = default_authority()
    issued = authority.good("localhost")
    response = authority.ocsp_response(issued)
    client, server = await tls_pair(
        server_context=tls.SecureContext(**issued.options),
        server_options={"ocsp_callback": lambda certificate, issuer: response},
        client_options={"request_ocsp": True},
    )
    async with client, server:
        assert base64.b64decode(client.info.to_dict()["ocsp_response"]) == response


def test_a_certificate_is_json_and_what_is_damaged_is_none() -> None:
    issued = default_authority().good("localhost")
    facts = tls.Certificate.from_x509(issued.certificate).to_dict()
    assert round_trip(facts) == facts
    assert shape(facts) == CERTIFICATE | {"ext_key_usage": facts["ext_key_usage"] and ["str"]}
    assert facts["pem"].encode() == issued.cert
    damaged = tls.Certificate(b"\x30\x03\x02\x01\x00").to_dict()
    assert damaged.keys() == facts.keys()
    assert (damaged["subject"], damaged["valid_to"]) == (None, None)


@pytest.mark.parametrize(
    ("error", "facts"),
    [
        (
            tls.ConfigurationError("wrong", option="cert", path="cert.pem"),
            {"class": "ConfigurationError", "side": "usage", "option": "cert", "path": "cert.pem"},
        ),
        (tls.ConnectError("refused", code="ECONNREFUSED", host="a", port=1), {"host": "a", "port": 1}),
        (tls.PeerAlert("no", code="E", alert=tls.Alert.unknown_ca), {"alert": "unknown_ca", "phase": None}),
        (tls.PeerAlert("no", code="E", alert=200), {"alert": 200}),
        (tls.HandshakeTimeout("slow", timeout=1.5), {"timeout": 1.5, "retryable": True}),
        (
            tls.IdentityError("other", host="a", presented=("b",)),
            {"host": "a", "presented": ["b"], "depth": 0},
        ),
        (tls.NotTLS("ssh", code="E", looks_like="SSH", first_bytes=b"S"), {"looks_like": "SSH"}),
        (tls.ConnectionLost("lost"), {"progress": None, "bytes_sent": 0, "bytes_received": 0}),
    ],
)
def test_an_error_is_json_with_its_class_and_its_facts(error: tls.TLSError, facts: dict[str, Any]) -> None:
    shown = error.to_dict()
    assert round_trip(shown) == shown
    assert {"class", "code", "reason", "side", "retryable"} <= shown.keys()
    assert shown | facts == shown


def test_where_a_connection_failed_is_told() -> None:
    error = tls.ProtocolError("broken")
    error.phase, error.remote_address = "handshake", tls.Address("::1", 443, "IPv6")
    shown = error.to_dict()
    assert shown["phase"] == "handshake"
    assert shown["remote_address"] == {"host": "::1", "port": 443, "family": "IPv6"}


# ASGI


async def test_the_asgi_extension_has_the_keys_and_types_of_its_specification() -> None:
    issued = default_authority().client("alice")
    extension = (await server_info(issued)).asgi_extension()
    assert round_trip(extension) == extension
    assert extension["server_cert"].startswith("-----BEGIN CERTIFICATE-----\n")
    assert extension["client_cert_chain"][0].encode() == issued.cert
    assert extension["client_cert_name"] == issued.certificate.subject.rfc4514_string()
    assert "CN=alice" in extension["client_cert_name"]
    assert extension["client_cert_error"] is None
    assert (extension["tls_version"], extension["cipher_suite"]) == (0x0304, 0x1302)
    assert len(extension) == 6


async def test_without_a_client_certificate_there_is_no_error_of_one() -> None:
    info = await server_info()
    assert info.authorization_error is not None
    extension = info.asgi_extension()
    assert extension["client_cert_chain"] == []
    assert (extension["client_cert_name"], extension["client_cert_error"]) == (None, None)


async def test_a_client_certificate_that_is_not_trusted_is_an_error() -> None:
    extension = (await server_info(Authority().client("mallory"))).asgi_extension()
    assert len(extension["client_cert_chain"]) == 1
    assert extension["client_cert_error"] == (
        "unable to verify the first certificate [UNABLE_TO_VERIFY_LEAF_SIGNATURE]"
    )


async def test_what_the_specification_lets_a_server_not_know_is_none() -> None:
    info = await server_info()
    unknown = tls.Cipher("NEW", "TLS_NEW", "TLSv1.9", 128)
    extension = dataclasses.replace(
        info, protocol="TLSv1.9", cipher=unknown, certificate=None
    ).asgi_extension()
    assert (extension["tls_version"], extension["cipher_suite"], extension["server_cert"]) == (None,) * 3


async def test_a_subject_that_cannot_be_read_has_no_name() -> None:
    info = dataclasses.replace(await server_info(), peer_certificate=tls.Certificate(b"\x30\x00"))
    assert info.asgi_extension()["client_cert_name"] is None
