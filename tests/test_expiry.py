"""expiries: until when the certificates and revocation lists of a file are valid."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

import trio_tlsnode as tls
from trio_tlsnode.expiry import expiry_state
from trio_tlsnode.testing import Authority, IssuedCertificate

pytestmark = pytest.mark.feature("G5")

NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
AUTHORITY = Authority(now=NOW)


def day(number: float) -> dt.datetime:
    return NOW + dt.timedelta(days=number)


@pytest.mark.parametrize(
    ("first", "last", "state"),
    [
        (day(-60), day(30), "valid"),
        (day(-69.1), day(20.9), "due"),
        # A quarter of ten days.
        (day(-7), day(3), "valid"),
        (day(-8), day(2), "due"),
        (day(-365), day(22), "valid"),
        (day(-365), day(20), "due"),
        (day(-10), day(-1), "expired"),
        (day(1), day(10), "not yet valid"),
        (day(-10), None, "valid"),
        (None, None, "unreadable"),
        (day(-10), NOW, "due"),
        (NOW, day(10), "valid"),
    ],
)
def test_something_is_due_in_the_last_quarter_of_its_validity_but_no_sooner_than_21_days(
    first: dt.datetime | None, last: dt.datetime | None, state: str
) -> None:
    assert expiry_state(first, last, at=NOW) == state


def test_how_long_before_its_end_something_is_due_can_be_said() -> None:
    assert expiry_state(day(-1), day(9), at=NOW, ahead=dt.timedelta(days=10)) == "due"
    assert expiry_state(day(-365), day(1), at=NOW, ahead=dt.timedelta()) == "valid"


def test_each_certificate_of_a_file_is_told_in_order(tmp_path: Path) -> None:
    issued = AUTHORITY.good("a.example", "192.0.2.1", intermediates=1)
    path = tmp_path / "all.pem"
    # A key beside it does not matter.
    path.write_bytes(issued.key + issued.cert + AUTHORITY.expired("old.example").cert)
    leaf, intermediate, old = tls.expiries(path, at=NOW)
    assert (leaf.name, leaf.kind, leaf.state) == ("a.example, 192.0.2.1", "certificate", "valid")
    assert leaf.fingerprint256 == tls.Certificate.from_x509(issued.certificate).fingerprint256
    assert intermediate.name.startswith("trustme")
    assert (old.name, old.state, old.remaining) == ("old.example", "expired", dt.timedelta(days=-1))
    assert {expiry.path for expiry in (leaf, intermediate, old)} == {str(path)}


def test_revocation_lists_expire_too(tmp_path: Path) -> None:
    path = tmp_path / "lists.pem"
    path.write_bytes(AUTHORITY.good("a.example").cert + AUTHORITY.crl() + AUTHORITY.expired_crl())
    certificate, *lists = tls.expiries(path, at=NOW)
    assert certificate.kind == "certificate"
    assert {expiry.kind for expiry in lists} == {"revocation list"}
    assert {expiry.state for expiry in lists} == {"valid", "expired"}
    assert {expiry.fingerprint256 for expiry in lists} == {None}
    assert "O=trustme" in lists[0].name


def test_der_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cert.der"
    path.write_bytes(AUTHORITY.good("a.example").certificate.public_bytes(serialization.Encoding.DER))
    (expiry,) = tls.expiries(path, at=NOW)
    assert expiry.name == "a.example"


def pfx(issued: IssuedCertificate) -> bytes:
    key: Any = serialization.load_pem_private_key(issued.key, None)
    others = x509.load_pem_x509_certificates(issued.cert)[1:]
    encryption = serialization.BestAvailableEncryption(b"secret")
    return pkcs12.serialize_key_and_certificates(b"a", key, issued.certificate, others, encryption)


def test_pkcs12_is_read_with_its_passphrase(tmp_path: Path) -> None:
    path = tmp_path / "cert.p12"
    path.write_bytes(pfx(AUTHORITY.good("a.example", intermediates=1)))
    leaf, intermediate = tls.expiries(path, passphrase="secret", at=NOW)
    assert (leaf.name, intermediate.state) == ("a.example", "valid")
    with pytest.raises(tls.ConfigurationError) as caught:
        tls.expiries(path, passphrase="wrong")
    assert caught.value.code == "ERR_OSSL_PKCS12_MAC_VERIFY_FAILURE"
    assert str(caught.value).startswith(f"{path}: mac verify failure")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "there is no such file [ENOENT]"),
        (b"", "it holds neither certificates nor revocation lists"),
        (AUTHORITY.good("a.example").key, "it holds neither certificates nor revocation lists"),
        (AUTHORITY.good("a.example").cert[:200], "has no"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(content: bytes | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "file.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(tls.ConfigurationError) as caught:
        tls.expiries(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)
    assert caught.value.path == str(path)


def test_what_is_told_is_json(tmp_path: Path) -> None:
    path = tmp_path / "cert.pem"
    path.write_bytes(AUTHORITY.expired("a.example").cert)
    (expiry,) = tls.expiries(path, at=NOW)
    facts = expiry.to_dict()
    assert json.loads(json.dumps(facts)) == facts
    assert (
        facts
        | {
            "kind": "certificate",
            "name": "a.example",
            "state": "expired",
            "valid_to": "2026-11-20T12:00:00+00:00",
            "at": "2026-11-21T12:00:00+00:00",
            "remaining_seconds": -24 * 3600,
        }
        == facts
    )
