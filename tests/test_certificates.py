"""Certificates: every field of Node's certificate object, also of certificates that are odd or damaged."""

from __future__ import annotations

import contextlib
import copy
import datetime as dt
import hashlib
import pickle
from collections.abc import Sequence

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_tlsnode.certificates import Certificate
from trio_tlsnode.errors import CertificateError, ConfigurationError, ConfigurationTypeError

# A writer of DER, for what no builder makes.  A view asks for no valid signature.


def der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    if len(content) < 0x80:
        return bytes((tag, len(content))) + content
    length = len(content).to_bytes(1 if len(content) < 0x100 else 2)
    return bytes((tag, 0x80 | len(length))) + length + content


def oid(dotted: str, tag: int = 0x06) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    content = b""
    for number in (40 * first + second, *rest):
        octets = bytes((number & 0x7F,))
        while number := number >> 7:
            octets = bytes((0x80 | number & 0x7F,)) + octets
        content += octets
    return der(tag, content)


def utf8(text: str) -> bytes:
    return der(0x0C, text.encode())


def sequence(*parts: bytes) -> bytes:
    return der(0x30, *parts)


def extension(number: str, value: bytes) -> bytes:
    return sequence(oid(number), der(0x04, value))


CN, C, L = "2.5.4.3", "2.5.4.6", "2.5.4.7"
XMPP, SRV = "1.3.6.1.5.5.7.8.5", "1.3.6.1.5.5.7.8.7"
OCSP, CA_ISSUERS = "1.3.6.1.5.5.7.48.1", "1.3.6.1.5.5.7.48.2"
ALGORITHM = sequence(oid("1.2.840.10045.4.3.2"))
KEY = ec.derive_private_key(2**200 + 1, ec.SECP256R1())
SKI, KEY_USAGE, SAN, BASIC_CONSTRAINTS, AKI, EKU = (f"2.5.29.{n}" for n in (14, 15, 17, 19, 35, 37))
AIA = "1.3.6.1.5.5.7.1.1"
IS_CA = extension(BASIC_CONSTRAINTS, sequence(b"\x01\x01\xff"))


def name(*relative_names: Sequence[tuple[str, bytes]]) -> bytes:
    return sequence(
        *(der(0x31, *(sequence(oid(key), value) for key, value in rdn)) for rdn in relative_names)
    )


def common_name(text: str) -> bytes:
    return name([(CN, utf8(text))])


def spki(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def certificate(
    *extensions: bytes,
    subject: bytes = common_name("leaf"),
    issuer: bytes = common_name("issuer"),
    serial_number: bytes = b"\x01",
    not_before: bytes = der(0x17, b"250101000000Z"),
    not_after: bytes = der(0x17, b"350601120000Z"),
    public_key: bytes = spki(KEY.public_key()),
    version: bytes = b"\x02",
) -> bytes:
    to_be_signed = sequence(
        der(0xA0, der(0x02, version)),
        der(0x02, serial_number),
        ALGORITHM,
        issuer,
        sequence(not_before, not_after),
        subject,
        public_key,
        der(0xA3, sequence(*extensions)) if extensions else b"",
    )
    return sequence(to_be_signed, ALGORITHM, der(0x03, b"\0"))


def alt_names(*names: bytes) -> bytes:
    return extension(SAN, sequence(*names))


def dns(text: str) -> bytes:
    return der(0x82, text.encode("latin-1"))


def uri(text: str) -> bytes:
    return der(0x86, text.encode())


def email(text: str) -> bytes:
    return der(0x81, text.encode())


def directory(city: str) -> bytes:
    return der(0xA4, name([(C, der(0x13, b"DE"))], [(L, utf8(city))]))


def other(number: str, value: bytes) -> bytes:
    return der(0xA0, oid(number), der(0xA0, value))


def ia5(text: str) -> bytes:
    return der(0x16, text.encode())


# The certificate as a whole


@pytest.mark.feature("D1")
def test_nothing_is_read_before_a_field_is_asked_for() -> None:
    view = Certificate(b"junk")
    assert view.raw == b"junk"
    assert view.fingerprint256 == hashlib.sha256(b"junk").digest().hex(":").upper()
    with pytest.raises(CertificateError) as caught:
        _ = view.subject
    assert caught.value.code == "ERR_OSSL_ASN1_DECODE_ERROR"
    assert caught.value.certificate is view


def test_any_bytes_are_taken_and_nothing_else() -> None:
    raw = certificate()
    assert Certificate(bytearray(raw)) == Certificate(memoryview(raw)) == Certificate(raw)
    with pytest.raises(ConfigurationTypeError, match="DER bytes, not str"):
        Certificate("-----BEGIN CERTIFICATE-----")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationTypeError, match="DER bytes, not int"):
        Certificate(5)  # type: ignore[arg-type]


def test_certificates_are_equal_if_their_der_is() -> None:
    one, same, other_one = Certificate(certificate()), Certificate(certificate()), Certificate(b"junk")
    assert one == same
    assert len({one, same, other_one}) == 2
    assert one != certificate()


def test_a_certificate_cannot_be_changed() -> None:
    view = Certificate(certificate())
    with pytest.raises(AttributeError):
        view.subject = {}  # type: ignore[misc]
    with pytest.raises(AttributeError):
        view.note = ""  # type: ignore[attr-defined]
    view.subject["CN"] = "someone else"
    assert view.subject == {"CN": "leaf"}


def test_a_chain_survives_pickle_and_copy() -> None:
    view = Certificate.chain([certificate(), certificate(IS_CA, subject=common_name("issuer"))])
    assert view.x509.serial_number == 1
    for twin in (pickle.loads(pickle.dumps(view)), copy.copy(view), copy.deepcopy(view)):
        assert twin == view
        assert twin.subject == {"CN": "leaf"}
        assert twin.issuer_certificate == view.issuer_certificate is not None


@pytest.mark.feature("C10")
def test_the_object_of_cryptography_is_at_hand() -> None:
    view = Certificate(certificate())
    assert view.x509.serial_number == 1
    assert view.x509 is view.x509
    again = Certificate.from_x509(view.x509)
    assert again == view
    assert again.x509 is view.x509


@pytest.mark.feature("C10")
@pytest.mark.parametrize("raw", [b"junk", certificate(version=b"\x07")])
def test_what_cryptography_refuses_is_one_typed_error(raw: bytes) -> None:
    with pytest.raises(CertificateError, match="cannot be read"):
        _ = Certificate(raw).x509


@pytest.mark.feature("D1")
def test_fingerprints_are_upper_case_hex_with_colons() -> None:
    view = Certificate(certificate())
    digests = (hashes.SHA1(), hashes.SHA256(), hashes.SHA512())
    expected = [view.x509.fingerprint(digest).hex(":").upper() for digest in digests]
    assert [view.fingerprint, view.fingerprint256, view.fingerprint512] == expected


# Names


@pytest.mark.feature("D1")
@pytest.mark.node("test-x509-escaping.js")
@pytest.mark.parametrize(
    ("general_name", "text"),
    [
        (dns("good.example.com, DNS:evil.example.com"), r'DNS:"good.example.com\u002c DNS:evil.example.com"'),
        (uri("http://example.com/"), "URI:http://example.com/"),
        (uri("http://example.com/?a=b&c=d"), "URI:http://example.com/?a=b&c=d"),
        (uri("http://example.com/a,b"), r'URI:"http://example.com/a\u002cb"'),
        (uri("http://example.com/a%2Cb"), "URI:http://example.com/a%2Cb"),
        (
            uri("http://example.com/a, DNS:good.example.com"),
            r'URI:"http://example.com/a\u002c DNS:good.example.com"',
        ),
        (dns("exämple.com"), r'DNS:"ex\u00e4mple.com"'),
        (dns('"evil.example.com"'), r'DNS:"\"evil.example.com\""'),
        (dns("it's"), """DNS:"it's\""""),
        (dns("a\x7f\\"), r'DNS:"a\u007f\\"'),
        (der(0x87, bytes((8, 8, 8, 8))), "IP Address:8.8.8.8"),
        (der(0x87, bytes((8, 8, 4, 4))), "IP Address:8.8.4.4"),
        (der(0x87, bytes.fromhex("0008080404")), "IP Address:<invalid length=5>"),
        (der(0x87, bytes.fromhex("000102030405")), "IP Address:<invalid length=6>"),
        (
            der(0x87, bytes.fromhex("0a0b0c0d0e0f0000000000007a7b7c7d")),
            "IP Address:A0B:C0D:E0F:0:0:0:7A7B:7C7D",
        ),
        (email("foo@example.com"), "email:foo@example.com"),
        (
            email("foo@example.com, DNS:good.example.com"),
            r'email:"foo@example.com\u002c DNS:good.example.com"',
        ),
        (directory("Hannover"), r'DirName:"L=Hannover\u002cC=DE"'),
        (directory("München"), r'DirName:"L=München\u002cC=DE"'),
        (
            directory("Berlin, DNS:good.example.com"),
            r'DirName:"L=Berlin\\\u002c DNS:good.example.com\u002cC=DE"',
        ),
        (
            directory("Berlin, DNS:good.example.com\0evil.example.com"),
            r'DirName:"L=Berlin\\\u002c DNS:good.example.com\u0000evil.example.com\u002cC=DE"',
        ),
        (
            directory("Berlin, DNS:good.example.com\\\0evil.example.com"),
            r'DirName:"L=Berlin\\\u002c DNS:good.example.com\\\\\u0000evil.example.com\u002cC=DE"',
        ),
        (directory("Berlin\r\n"), r'DirName:"L=Berlin\u000d\u000a\u002cC=DE"'),
        (directory("Berlin/CN=good.example.com"), r'DirName:"L=Berlin/CN=good.example.com\u002cC=DE"'),
        (directory(" #1 "), r'DirName:"L=\\ #1\\ \u002cC=DE"'),
        (der(0xA4, name([(C, utf8("DE")), (L, utf8("a+b"))])), r'DirName:"L=a\\+b+C=DE"'),
        (der(0xA4, name([("1.2.3", utf8("x"))])), "DirName:1.2.3=#0C0178"),
        (oid("1.2.840.113549.1.1.11", 0x88), "Registered ID:1.2.840.113549.1.1.11"),
        (oid("1.3.9999.12.34", 0x88), "Registered ID:1.3.9999.12.34"),
        (oid("2.999.3", 0x88), "Registered ID:2.999.3"),
        (other(XMPP, utf8("abc123")), "othername:XmppAddr:abc123"),
        (other(XMPP, utf8("Ünï")), "othername:XmppAddr:Ünï"),
        (
            other(XMPP, utf8("abc123, DNS:good.example.com")),
            r'othername:"XmppAddr:abc123\u002c DNS:good.example.com"',
        ),
        (other(XMPP, utf8("good.example.com\0abc123")), r'othername:"XmppAddr:good.example.com\u0000abc123"'),
        (other("1.3.9999.12.34", utf8("abc123")), "othername:<unsupported>"),
        (other(SRV, ia5("abc123")), "othername:SRVName:abc123"),
        (other(SRV, utf8("abc123")), "othername:<unsupported>"),
        (other(SRV, ia5("abc\0def")), r'othername:"SRVName:abc\u0000def"'),
        (der(0xA3, sequence()), "X400Name:<unsupported>"),
        (der(0xA5, der(0xA1, utf8("x"))), "EdiPartyName:<unsupported>"),
    ],
)
def test_an_alternative_name_is_escaped_as_node_does(general_name: bytes, text: str) -> None:
    assert Certificate(certificate(alt_names(general_name))).subject_alt_name == text


@pytest.mark.feature("D1")
@pytest.mark.node("test-tls-0-dns-altname.js")
def test_a_nul_in_a_name_neither_ends_nor_joins_names() -> None:
    view = Certificate(
        certificate(
            alt_names(
                dns("good.example.org\0.evil.example.com"),
                dns("just-another.example.com"),
                der(0x87, bytes((8, 8, 8, 8))),
                der(0x87, bytes((8, 8, 4, 4))),
                dns("last.example.com"),
            )
        )
    )
    assert view.subject_alt_name == (
        r'DNS:"good.example.org\u0000.evil.example.com", DNS:just-another.example.com, '
        "IP Address:8.8.8.8, IP Address:8.8.4.4, DNS:last.example.com"
    )
    assert view.alt_names == (
        ("DNS", "good.example.org\0.evil.example.com"),
        ("DNS", "just-another.example.com"),
        ("IP Address", "8.8.8.8"),
        ("IP Address", "8.8.4.4"),
        ("DNS", "last.example.com"),
    )


@pytest.mark.feature("D1")
def test_no_subject_alt_name_is_none() -> None:
    view = Certificate(certificate())
    assert view.subject_alt_name is None
    assert view.alt_names == ()
    assert view.info_access == {}
    assert view.ext_key_usage == ()


@pytest.mark.feature("D1")
@pytest.mark.node("test-x509-escaping.js")
@pytest.mark.parametrize(
    ("descriptions", "expected"),
    [
        (
            [(OCSP, uri("http://ocsp.example/")), (CA_ISSUERS, uri("http://ca.example/ca.cert"))],
            {"OCSP - URI": ("http://ocsp.example/",), "CA Issuers - URI": ("http://ca.example/ca.cert",)},
        ),
        (
            [(OCSP, uri("http://good.example.com/\nOCSP - URI:http://evil.example.com/"))],
            {"OCSP - URI": ("http://good.example.com/\nOCSP - URI:http://evil.example.com/",)},
        ),
        (
            [
                (CA_ISSUERS, uri("http://ca.example.com/\nOCSP - URI:http://evil.example.com")),
                (OCSP, dns("good.example.com\nOCSP - URI:http://ca.nodejs.org/ca.cert")),
            ],
            {
                "CA Issuers - URI": ("http://ca.example.com/\nOCSP - URI:http://evil.example.com",),
                "OCSP - DNS": ("good.example.com\nOCSP - URI:http://ca.nodejs.org/ca.cert",),
            },
        ),
        (
            [("1.3.9999.12.34", uri("http://ca.example.com/"))],
            {"1.3.9999.12.34 - URI": ("http://ca.example.com/",)},
        ),
        (
            [
                (OCSP, other(XMPP, utf8("good.example.com"))),
                (OCSP, other("1.3.9999.12.34", utf8("abc123"))),
                (OCSP, other(SRV, ia5("abc123"))),
            ],
            {"OCSP - othername": ("XmppAddr:good.example.com", "<unsupported>", "SRVName:abc123")},
        ),
        (
            [(OCSP, other(XMPP, utf8("good.example.com\0abc123")))],
            {"OCSP - othername": ("XmppAddr:good.example.com\0abc123",)},
        ),
    ],
)
def test_information_access_is_grouped_by_method_and_kind(
    descriptions: list[tuple[str, bytes]], expected: object
) -> None:
    value = sequence(*(sequence(oid(method), location) for method, location in descriptions))
    assert Certificate(certificate(extension(AIA, value))).info_access == expected


@pytest.mark.feature("D1")
@pytest.mark.node("test-x509-escaping.js")
@pytest.mark.parametrize(
    ("relative_names", "expected"),
    [
        (
            [[(L, utf8("Somewhere"))], [(CN, utf8("evil.example.com"))]],
            {"L": "Somewhere", "CN": "evil.example.com"},
        ),
        ([[(L, utf8("Somewhere\0evil.example.com"))]], {"L": "Somewhere\0evil.example.com"}),
        ([[(L, utf8("Somewhere\nCN=evil.example.com"))]], {"L": "Somewhere\nCN=evil.example.com"}),
        ([[(L, utf8("Somewhere, CN = evil.example.com"))]], {"L": "Somewhere, CN = evil.example.com"}),
        ([[(L, utf8("Somewhere/CN=evil.example.com"))]], {"L": "Somewhere/CN=evil.example.com"}),
        ([[(L, utf8("München\\\nCN=evil.example.com"))]], {"L": "München\\\nCN=evil.example.com"}),
        (
            [[(L, utf8("Somewhere")), (CN, utf8("evil.example.com"))]],
            {"L": "Somewhere", "CN": "evil.example.com"},
        ),
        ([[(L, utf8("Somewhere + CN=evil.example.com"))]], {"L": "Somewhere + CN=evil.example.com"}),
        ([[(L, utf8("L1")), (L, utf8("L2"))], [(L, utf8("L3"))]], {"L": ("L1", "L2", "L3")}),
        ([[(L, utf8("L1"))], [(L, utf8("L2"))], [(L, utf8("L3"))]], {"L": ("L1", "L2", "L3")}),
        ([[(CN, utf8("Ádám Lippai"))]], {"CN": "Ádám Lippai"}),
        ([[(CN, der(0x1E, "é漢".encode("utf-16-be")))]], {"CN": "é漢"}),
        ([[(CN, der(0x1C, "😀".encode("utf-32-be")))]], {"CN": "😀"}),
        ([[(CN, der(0x14, b"\xe9"))]], {"CN": "é"}),
        ([[("1.2.840.113549.1.9.1", ia5("a@b"))]], {"emailAddress": "a@b"}),
        ([[("0.9.2342.19200300.100.1.25", ia5("org"))]], {"DC": "org"}),
        ([[("2.999.1", utf8("x"))]], {"2.999.1": "x"}),
        ([[("2.5.4.45", der(0x03, b"\0\1"))]], {"x500UniqueIdentifier": "#03020001"}),
        ([], {}),
    ],
)
def test_a_name_is_a_dict_of_short_names_and_text(
    relative_names: list[list[tuple[str, bytes]]], expected: object
) -> None:
    view = Certificate(certificate(subject=name(*relative_names), issuer=name(*relative_names)))
    assert view.subject == view.issuer == expected


# Numbers, times, keys, purposes


@pytest.mark.feature("D1")
@pytest.mark.parametrize(
    ("octets", "text"),
    [
        ("147d36c1c2f74206de9fab5f2226d78adb00a426", "147D36C1C2F74206DE9FAB5F2226D78ADB00A426"),
        ("0fff", "0FFF"),
        ("00ff", "FF"),
        ("01", "01"),
        ("00", "0"),
        ("ff", "-01"),
        ("80", "-80"),
    ],
)
def test_a_serial_number_is_upper_case_hex(octets: str, text: str) -> None:
    assert Certificate(certificate(serial_number=bytes.fromhex(octets))).serial_number == text


@pytest.mark.feature("D1")
def test_validity_is_in_utc_from_both_encodings_of_time() -> None:
    view = Certificate(
        certificate(not_before=der(0x18, b"19491225235958Z"), not_after=der(0x17, b"500101235958Z"))
    )
    assert view.valid_from == dt.datetime(1949, 12, 25, 23, 59, 58, tzinfo=dt.UTC)
    assert view.valid_to == dt.datetime(1950, 1, 1, 23, 59, 58, tzinfo=dt.UTC)
    view = Certificate(
        certificate(not_before=der(0x17, b"491226000001Z"), not_after=der(0x18, b"20500102000001Z"))
    )
    assert view.valid_from == dt.datetime(2049, 12, 26, 0, 0, 1, tzinfo=dt.UTC)
    assert view.valid_to == dt.datetime(2050, 1, 2, 0, 0, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize("time", [b"2501010000Z", b"250101000000+0100", b"251301000000Z", b"\xff"])
def test_a_time_that_rfc_5280_forbids_is_an_error(time: bytes) -> None:
    view = Certificate(certificate(not_before=der(0x17, time)))
    with pytest.raises(CertificateError, match="the notBefore cannot be read"):
        _ = view.valid_from
    assert view.as_node_dict()["valid_from"] == "Bad time value"


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPublicKey:
    return rsa.generate_private_key(65537, 2048).public_key()


@pytest.mark.feature("D1")
def test_an_rsa_key_has_modulus_exponent_and_bits(rsa_key: rsa.RSAPublicKey) -> None:
    view = Certificate(certificate(public_key=spki(rsa_key)))
    assert view.modulus == f"{rsa_key.public_numbers().n:X}"
    assert (view.exponent, view.bits) == ("0x10001", 2048)
    assert view.public_key == view.as_node_dict()["pubkey"] == spki(rsa_key)
    assert view.asn1_curve is view.nist_curve is None


@pytest.mark.feature("D1")
@pytest.mark.parametrize(
    ("curve", "facts"),
    [
        (ec.SECP256R1(), ("prime256v1", "P-256", 256)),
        (ec.SECP384R1(), ("secp384r1", "P-384", 384)),
        (ec.SECP521R1(), ("secp521r1", "P-521", 521)),
        (ec.SECP256K1(), ("secp256k1", None, 256)),
    ],
)
def test_an_ec_key_has_two_names_of_its_curve(
    curve: ec.EllipticCurve, facts: tuple[str, str | None, int]
) -> None:
    key = ec.derive_private_key(2, curve).public_key()
    view = Certificate(certificate(public_key=spki(key)))
    assert (view.asn1_curve, view.nist_curve, view.bits) == facts
    assert view.modulus is view.exponent is None
    assert view.public_key == spki(key)
    point = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    assert view.as_node_dict()["pubkey"] == point


@pytest.mark.feature("D1")
def test_other_kinds_of_key_have_only_their_der(rsa_key: rsa.RSAPublicKey) -> None:
    as_pss = spki(rsa_key).replace(oid("1.2.840.113549.1.1.1"), oid("1.2.840.113549.1.1.10"))
    for key in (
        spki(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()),
        as_pss,
        sequence(sequence(oid("1.2.3.4")), der(0x03, b"\0key")),
    ):
        view = Certificate(certificate(public_key=key))
        assert view.public_key == key
        facts = (view.bits, view.modulus, view.exponent, view.asn1_curve, view.nist_curve)
        assert facts == (None, None, None, None, None)
        assert not {"bits", "pubkey", "modulus", "exponent"} & view.as_node_dict().keys()


def key_usage(bits: int) -> bytes:
    return extension(KEY_USAGE, der(0x03, bytes((0, bits))))


@pytest.mark.feature("D1")
@pytest.mark.parametrize(
    ("extensions", "expected"),
    [
        ([IS_CA], True),
        ([IS_CA, key_usage(0x04)], True),
        ([IS_CA, key_usage(0x80)], False),
        ([extension(BASIC_CONSTRAINTS, sequence(b"\x01\x01\xff", der(0x02, b"\0")))], True),
        ([extension(BASIC_CONSTRAINTS, sequence(b"\x01\x01\xff", der(0x02, b"\xff")))], False),
        ([extension(BASIC_CONSTRAINTS, sequence())], False),
        ([extension(BASIC_CONSTRAINTS, b"junk")], False),
        ([key_usage(0x04)], False),
        ([], False),
    ],
)
def test_only_basic_constraints_and_key_usage_make_a_ca(extensions: list[bytes], expected: object) -> None:
    assert Certificate(certificate(*extensions)).ca is expected


@pytest.mark.feature("D1")
def test_extended_key_usage_is_numbers() -> None:
    view = Certificate(certificate(extension(EKU, sequence(oid("1.3.6.1.5.5.7.3.1"), oid("2.999.1")))))
    assert view.ext_key_usage == ("1.3.6.1.5.5.7.3.1", "2.999.1")


# Chains

ROOT = certificate(IS_CA, subject=common_name("root"), issuer=common_name("root"))
MIDDLE = certificate(IS_CA, subject=common_name("middle"), issuer=common_name("root"))
LEAF = certificate(alt_names(dns("leaf.example")), issuer=common_name("middle"))
STRANGER = certificate(IS_CA, subject=common_name("stranger"), issuer=common_name("root"))


def chain_of(view: Certificate) -> list[bytes]:
    ders = [view.raw]
    while (issuer := view.issuer_certificate) is not None and issuer is not view:
        ders.append(issuer.raw)
        view = issuer
    return ders


@pytest.mark.feature("C9")
def test_a_chain_links_each_certificate_to_the_next() -> None:
    leaf = Certificate.chain([LEAF, MIDDLE, ROOT])
    assert chain_of(leaf) == [LEAF, MIDDLE, ROOT]
    assert leaf.issuer_certificate is leaf.issuer_certificate


@pytest.mark.feature("C9")
def test_links_follow_the_names_and_not_the_order() -> None:
    assert chain_of(Certificate.chain([LEAF, STRANGER, ROOT, MIDDLE])) == [LEAF, MIDDLE, ROOT]


@pytest.mark.feature("C9")
def test_a_chain_ends_where_the_issuer_is_missing() -> None:
    leaf = Certificate.chain([LEAF, ROOT])
    assert leaf.issuer_certificate is None
    with pytest.raises(ConfigurationError, match="at least one"):
        Certificate.chain([])


@pytest.mark.feature("D1")
def test_a_self_signed_root_is_its_own_issuer() -> None:
    root = Certificate(ROOT)
    assert root.issuer_certificate is root


@pytest.mark.feature("D1")
def test_key_identifiers_tell_certificates_of_one_name_apart() -> None:
    ours = der(0x80, b"the key")
    child = certificate(extension(AKI, sequence(ours)), issuer=common_name("root"))
    wrong = certificate(
        extension(SKI, der(0x04, b"another")), IS_CA, subject=common_name("root"), issuer=common_name("root")
    )
    right = certificate(
        extension(SKI, der(0x04, b"the key")), IS_CA, subject=common_name("root"), issuer=common_name("root")
    )
    assert chain_of(Certificate.chain([child, wrong, right])) == [child, right]
    rolled_over = certificate(
        extension(AKI, sequence(ours)), extension(SKI, der(0x04, b"another")), subject=common_name("issuer")
    )
    assert Certificate(rolled_over).issuer_certificate is None
    by_number = certificate(extension(AKI, sequence(der(0x82, b"\x05"))), issuer=common_name("root"))
    assert chain_of(Certificate.chain([by_number, ROOT])) == [by_number]


def test_who_may_not_sign_certificates_issued_none() -> None:
    root = certificate(key_usage(0x80), subject=common_name("root"), issuer=common_name("root"))
    assert Certificate(root).issuer_certificate is None
    empty = certificate(extension(KEY_USAGE, der(0x03, b"\0")), subject=common_name("issuer"))
    assert Certificate.chain([certificate(), empty]).issuer_certificate is None


def test_one_name_in_two_encodings_is_one_name() -> None:
    printable = certificate(IS_CA, subject=name([(CN, der(0x13, b"issuer"))]))
    assert Certificate.chain([certificate(), printable]).issuer_certificate == Certificate(printable)


@pytest.mark.feature("C9")
def test_an_issuer_can_be_given() -> None:
    issuer = Certificate(STRANGER)
    assert Certificate(LEAF, issuer=issuer).issuer_certificate is issuer
    assert Certificate.from_x509(Certificate(LEAF).x509, issuer=issuer).issuer_certificate is issuer


# For others to read


@pytest.mark.feature("D1", "C9")
def test_the_dict_has_the_keys_and_values_of_nodes_object(rsa_key: rsa.RSAPublicKey) -> None:
    raw = certificate(
        alt_names(dns("a.example")),
        extension(AIA, sequence(sequence(oid(OCSP), uri("http://ocsp.example/")))),
        extension(EKU, sequence(oid("1.3.6.1.5.5.7.3.1"))),
        subject=name([("2.5.4.11", utf8("Test"))], [("2.5.4.11", utf8("Engineering"))], [(CN, utf8("a"))]),
        public_key=spki(rsa_key),
    )
    view = Certificate(raw)
    node = view.as_node_dict()
    assert node == {
        "subject": {"OU": ["Test", "Engineering"], "CN": "a"},
        "issuer": {"CN": "issuer"},
        "subjectaltname": "DNS:a.example",
        "infoAccess": {"OCSP - URI": ["http://ocsp.example/"]},
        "ca": False,
        "modulus": view.modulus,
        "bits": 2048,
        "exponent": "0x10001",
        "pubkey": spki(rsa_key),
        "valid_from": "Jan  1 00:00:00 2025 GMT",
        "valid_to": "Jun  1 12:00:00 2035 GMT",
        "fingerprint": view.fingerprint,
        "fingerprint256": view.fingerprint256,
        "fingerprint512": view.fingerprint512,
        "ext_key_usage": ["1.3.6.1.5.5.7.3.1"],
        "serialNumber": "01",
        "raw": raw,
    }


@pytest.mark.feature("D1", "C9")
def test_the_detailed_dict_holds_the_chain_and_ends_in_itself() -> None:
    node = Certificate.chain([LEAF, MIDDLE, ROOT]).as_node_dict(detailed=True)
    middle = node["issuerCertificate"]
    root = middle["issuerCertificate"]
    assert [part["subject"]["CN"] for part in (node, middle, root)] == ["leaf", "middle", "root"]
    assert root["issuerCertificate"] is root
    assert "issuerCertificate" not in Certificate.chain([LEAF, MIDDLE]).as_node_dict(detailed=False)
    assert "issuerCertificate" not in Certificate(LEAF).as_node_dict()


def test_the_repr_says_for_whom_by_whom_and_how_long() -> None:
    assert repr(Certificate(LEAF)) == "<Certificate 'leaf', issued by 'middle', until 2035-06-01>"
    several = name([(CN, utf8("first"))], [(CN, utf8("second\n"))])
    nobody = name([(C, utf8("DE"))], [(L, utf8("Ulm"))])
    view = Certificate(certificate(subject=several, issuer=nobody))
    assert repr(view) == "<Certificate 'first', issued by 'C=DE, L=Ulm', until 2035-06-01>"


def test_a_notebook_shows_a_table_without_markup_from_the_certificate() -> None:
    html = Certificate.chain(
        [
            certificate(alt_names(dns("<script>")), subject=common_name("<b>leaf</b>")),
            certificate(IS_CA, subject=common_name("issuer"), issuer=common_name("root & co")),
        ]
    )._repr_html_()
    assert html.startswith("<table ")
    assert "CN=&lt;b&gt;leaf&lt;/b&gt;" in html
    assert "DNS:&lt;script&gt;" in html
    assert "P-256, 256 bits" in html
    # Its issuer's line.
    assert ", issued by root &amp; co, until 2035-06-01" in html
    assert "<script" not in html
    assert "<b>" not in html


# Damage


@pytest.mark.feature("D1")
@pytest.mark.node("test-tls-cert-ext-encoding.js")
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"junk", id="no DER"),
        pytest.param(b"", id="nothing"),
        pytest.param(der(0x31, dns("a")), id="no SEQUENCE"),
        pytest.param(sequence(der(0x97, b"x")), id="a name of an unknown kind"),
        pytest.param(sequence(dns("a")) + dns("b"), id="something after the end"),
        pytest.param(b"\x30\x80" + dns("a") + b"\0\0", id="no stated end"),
        pytest.param(sequence(b"\x82\x05a"), id="cut short"),
        pytest.param(sequence(b"\x9f\x22\x01a"), id="a long tag"),
        pytest.param(sequence(der(0x88, b"\x80")), id="half a number"),
        pytest.param(sequence(der(0x88, b"\x2a" + 40 * b"\xff" + b"\x01")), id="a number without measure"),
    ],
)
def test_a_damaged_extension_leaves_the_other_fields_readable(value: bytes) -> None:
    view = Certificate(certificate(extension(SAN, value), extension(AIA, value), extension(EKU, b"junk")))
    for field in ("subject_alt_name", "alt_names", "info_access", "ext_key_usage"):
        with pytest.raises(CertificateError, match="cannot be read") as caught:
            getattr(view, field)
        assert caught.value.code == "ERR_OSSL_ASN1_DECODE_ERROR"
    assert view.subject == {"CN": "leaf"}
    assert repr(view).startswith("<Certificate 'leaf'")
    assert view._repr_html_().startswith("<p>&lt;Certificate")
    node = view.as_node_dict()
    assert node["subjectaltname"] is node["infoAccess"] is None
    assert "ext_key_usage" not in node


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x30",
        sequence(),
        sequence(sequence()),
        certificate() + b"\0",
        certificate()[:-1],
        sequence(ALGORITHM),
    ],
)
def test_what_is_no_certificate_has_no_fields(raw: bytes) -> None:
    view = Certificate(raw)
    for field in ("subject", "serial_number", "public_key", "ca", "issuer_certificate"):
        with pytest.raises(CertificateError, match="the certificate cannot be read"):
            getattr(view, field)
    assert repr(view).startswith(f"<Certificate of {len(raw)} bytes: ")


FIELDS = [field for field, value in vars(Certificate).items() if isinstance(value, property)]


@settings(max_examples=50)
@given(st.data())
def test_reading_raises_nothing_but_certificate_errors(data: st.DataObject) -> None:
    """Whatever octets a certificate has."""
    raw = bytearray(FUZZED)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    view = Certificate.chain([raw, ROOT])
    for field in FIELDS:
        with contextlib.suppress(CertificateError):
            getattr(view, field)
    assert repr(view)
    assert view._repr_html_()


FUZZED = certificate(
    alt_names(dns("a.example"), directory("Ulm"), other(XMPP, utf8("x")), oid("2.999.3", 0x88)),
    extension(AIA, sequence(sequence(oid(OCSP), uri("http://ocsp.example/")))),
    extension(EKU, sequence(oid("1.3.6.1.5.5.7.3.1"))),
    extension(AKI, sequence(der(0x80, b"key"), der(0x82, b"\1"))),
    extension(SKI, der(0x04, b"key")),
    IS_CA,
    key_usage(0x04),
    issuer=common_name("root"),
)
