"""The certificate object, as Node.js's own tests have it: what is known of the certificates of a handshake.

Odd certificates are in tests/test_certificates.py; tests/interop/test_certificates_node.py asks Node.js.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from engine_pairs import shake_hands
from parties import Party, party, trust

from trio_tlsnode import Certificate, ConnectionInfo, SecureContext

FINGERPRINTS = {"fingerprint": 20, "fingerprint256": 32, "fingerprint512": 64}


def seen(name: str, *trusted: str) -> ConnectionInfo:
    """Return what a client, which trusts these, knows of a connection to an agent."""
    client, server = SecureContext(ca=trust(*trusted)), SecureContext(**party(name).options)
    return shake_hands(client, server, reject_unauthorized=False).info


def subject_of(name: str) -> dict[str, Any]:
    certificate = seen(name).peer_certificate
    assert certificate is not None
    return dict(certificate.subject)


@pytest.mark.feature("D1")
@pytest.mark.node("test-tls-peer-certificate-encoding.js")
def test_a_name_beyond_ascii_is_text() -> None:
    assert subject_of("agent5")["CN"] == "Ádám Lippai"


@pytest.mark.feature("D1")
@pytest.mark.feature("C9")
@pytest.mark.node("test-tls-peer-certificate-multi-keys.js")
def test_an_attribute_that_stands_twice_has_both_values_on_both_sides() -> None:
    outcome = shake_hands(SecureContext(ca=trust("rsa_cert")), SecureContext(**party("rsa_cert").options))
    assert outcome.client is not None
    assert outcome.server is not None
    for certificate in (outcome.client.peer_certificate, outcome.server.certificate):
        assert certificate is not None
        assert certificate.subject["OU"] == ("Test TLS Certificate", "Engineering")
        assert certificate.as_node_dict()["subject"]["OU"] == ["Test TLS Certificate", "Engineering"]


@pytest.mark.feature("C9")
@pytest.mark.node("test-tls-peer-certificate.js")
def test_who_has_no_certificate_has_none() -> None:
    # In Node.js, getCertificate() is {}.
    outcome = shake_hands(SecureContext(ca=trust("rsa_cert")), SecureContext(**party("rsa_cert").options))
    assert outcome.client is not None
    assert outcome.server is not None
    assert outcome.client.certificate is outcome.server.peer_certificate is None


def assert_digests(node: dict[str, Any]) -> None:
    for name, size in FINGERPRINTS.items():
        assert re.fullmatch(f"([0-9A-F]{{2}}:){{{size - 1}}}[0-9A-F]{{2}}", node[name])
        digest = hashlib.new({20: "sha1", 32: "sha256", 64: "sha512"}[size], node["raw"])
        assert node[name].replace(":", "") == digest.hexdigest().upper()


def node_dict(name: str, *trusted: str, detailed: bool = True) -> dict[str, Any]:
    certificate = seen(name, *trusted).peer_certificate
    assert certificate is not None
    return certificate.as_node_dict(detailed=detailed)


def serial_of(one: Party) -> str:
    digits = f"{one.certificate.serial_number:X}"
    return digits.zfill(len(digits) + len(digits) % 2)


@pytest.mark.feature("D1")
@pytest.mark.feature("C9")
@pytest.mark.node("test-tls-peer-certificate.js")
def test_an_rsa_certificate_and_its_issuer_are_as_node_tells_them() -> None:
    assert "issuerCertificate" not in node_dict("agent1", "ca1", detailed=False)
    node = node_dict("agent1", "ca1")
    key = party("agent1").certificate.public_key()
    issuer = node["issuerCertificate"]
    assert (node["ca"], issuer["ca"]) == (False, True)
    assert node["subject"] == {
        "C": "US",
        "ST": "CA",
        "L": "SF",
        "O": "Joyent",
        "OU": "Node.js",
        "CN": "agent1",
        "emailAddress": "ry@tinyclouds.org",
    }
    assert node["issuer"] == {**node["subject"], "CN": "ca1"}
    assert (node["exponent"], node["bits"]) == ("0x10001", 2048)
    assert re.fullmatch("[0-9A-F]{512}", node["modulus"])
    assert node["pubkey"] == key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert not {"asn1Curve", "nistCurve"} & node.keys()
    assert node["infoAccess"] == {
        "OCSP - URI": ["http://ocsp.nodejs.org/"],
        "CA Issuers - URI": ["http://ca.nodejs.org/ca.cert"],
    }
    assert (node["valid_from"], node["valid_to"]) == ("Jan  1 00:00:00 2020 GMT", "Jan  1 00:00:00 2200 GMT")
    assert (node["serialNumber"], issuer["serialNumber"]) == (
        serial_of(party("agent1")),
        serial_of(party("ca1")),
    )
    assert_digests(node)
    # A root has issued itself.
    assert issuer["issuerCertificate"] is issuer


@pytest.mark.feature("D1")
@pytest.mark.node("test-tls-peer-certificate.js")
def test_a_self_signed_certificate_of_a_curve_is_as_node_tells_it() -> None:
    node = node_dict("ec", "ec")
    assert node["issuerCertificate"] is node
    assert (node["asn1Curve"], node["nistCurve"], node["bits"]) == ("prime256v1", "P-256", 256)
    assert not {"exponent", "modulus", "infoAccess"} & node.keys()
    assert node["serialNumber"] == serial_of(party("ec"))
    assert_digests(node)


def chain(certificate: Certificate | None) -> list[Any]:
    """Return a certificate and its issuers, as cryptography's objects."""
    found: list[Any] = []
    while certificate is not None and certificate.x509 not in found:
        found.append(certificate.x509)
        certificate = certificate.issuer_certificate
    return found


@pytest.mark.feature("C10")
@pytest.mark.node("test-tls-getcertificate-x509.js")
def test_both_sides_have_the_objects_of_what_was_shown() -> None:
    agent6, ca3, ca1 = (party(name).certificate for name in ("agent6", "ca3", "ca1"))
    client, server = SecureContext(ca=[]), SecureContext(**party("agent6").options)
    outcome = shake_hands(client, server, reject_unauthorized=False)
    assert outcome.client is not None
    assert outcome.server is not None
    assert outcome.server.certificate is not None
    assert outcome.server.certificate.x509 == agent6
    # Of what nobody trusts, what was sent is known, and no root beyond it.
    assert chain(outcome.client.peer_certificate) == [agent6, ca3]
    assert outcome.client.verified_chain == ()
    assert outcome.client.peer_certificate is not None
    intermediate = outcome.client.peer_certificate.issuer_certificate
    assert intermediate is not None
    assert intermediate.issuer_certificate is None
    verified = seen("agent6", "ca1")
    assert [each.x509 for each in verified.peer_certificate_chain] == [agent6, ca3]
    assert (
        [each.x509 for each in verified.verified_chain]
        == chain(verified.peer_certificate)
        == [agent6, ca3, ca1]
    )
