"""check_server_identity: the verdicts and reasons of Node, and what an error tells besides."""

from __future__ import annotations

import datetime as dt
import ipaddress
import pickle
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_tlsnode.certificates import Certificate, Name
from trio_tlsnode.errors import CertificateError, ConfigurationTypeError, IdentityError
from trio_tlsnode.identity import _judge, _split, check_server_identity, to_ascii

KEY = ec.derive_private_key(2**200 + 1, ec.SECP256R1())


def der(tag: int, content: bytes) -> bytes:
    return bytes((tag, 0x82)) + len(content).to_bytes(2) + content


class Names(NamedTuple):
    """The part of Node's certificate object that the verdict depends on."""

    subject: Name
    subject_alt_name: str | None


def names(*, cn: str | tuple[str, ...] | None = None, san: str | None = None) -> Names:
    return Names({} if cn is None else {"CN": cn}, san)


def reason(host: str, certificate: Names) -> str | None:
    refusal = _judge(host, certificate)
    return None if refusal is None else refusal.reason


def certificate(
    *general_names: x509.GeneralName, cn: str = "cn.example", san: bytes | None = None
) -> Certificate:
    """Return a certificate for these names, or with these octets as its subjectAltName."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, cn)])
    builder = (
        x509.CertificateBuilder(subject_name=name, issuer_name=name)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(dt.datetime(2025, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(2035, 1, 1, tzinfo=dt.UTC))
    )
    if san is not None:
        extension = x509.UnrecognizedExtension(x509.OID_SUBJECT_ALTERNATIVE_NAME, san)
        builder = builder.add_extension(extension, critical=False)
    elif general_names:
        builder = builder.add_extension(x509.SubjectAlternativeName(general_names), critical=False)
    return Certificate.from_x509(builder.sign(KEY, hashes.SHA256()))


# The verdicts of Node

NOT_IN_LIST = "IP: {} is not in the cert's list: {}"
NOT_CN = "Host: {}. is not cert's CN: {}"
NOT_ALT = "Host: {}. is not in the cert's altnames: {}"
NO_NAME = "Cert does not contain a DNS name"


@pytest.mark.feature("D2")
@pytest.mark.parametrize(
    ("host", "common_name", "expected"),
    [
        ("false", "a.com", NOT_CN),
        ("null", "a.com", NOT_CN),
        ("a.com", "a.com", None),
        ("a.com", "A.COM", None),
        ("a.com", "b.com", NOT_CN),
        ("a.com", ".a.com", NOT_CN),
        (".a.com", ".a.com", NOT_CN),
        ("bad.x.example.com", "bad..example.com", NOT_CN),
        ("b.a.com", "*.a.com", None),
        ("ba.com", "*.a.com", NOT_CN),
        ("\n.b.com", "*n.b.com", NOT_CN),
        ("b.a.com", "b*b.a.com", NOT_CN),
        ("xbcd.a.com", "ab*cd.a.com", NOT_CN),
        ("abxcd.a.com", "ab*cd.a.com", None),
        ("abcd.a.com", "ab*bcd.a.com", NOT_CN),
        ("a.com", ("",), NOT_CN.format("a.com", "")),
        ("a.com", "", NO_NAME),
        ("a.com", ("b.com", "a.com"), None),
        ("a.com", ("b.com", "c.com"), NOT_CN.format("a.com", "b.com,c.com")),
        ("a.com", None, NO_NAME),
        ("xn--bcher-kva.example.com", "*.example.com", None),
        ("xn--bcher-kva.example.com", "xn--*.example.com", NOT_CN),
        ("xn--bcher-kva.example.com", "XN--BCHER-KVA.example.com", None),
        ("nodejs.org", "agent1", NOT_CN),
    ],
)
def test_the_common_name_is_judged_without_alternative_names(
    host: str, common_name: str | tuple[str, ...] | None, expected: str | None
) -> None:
    assert reason(host, names(cn=common_name)) == (expected and expected.format(host, common_name))


@pytest.mark.feature("D2")
@pytest.mark.parametrize(
    ("host", "alt_names", "expected"),
    [
        ("b.a.com", "DNS:omg.com", NOT_ALT),
        ("a.com", "DNS:a.com", None),
        ("a.com", "DNS:A.COM", None),
        ("A.com", "DNS:a.COM", None),
        ("a.b.a.com", "URI:http://a.b.a.com/", NO_NAME),
        ("a.b.a.com", "URI:http://*.b.a.com/", NO_NAME),
        ("a.b.a.com", "IP Address:127.0.0.1", NO_NAME),
        ("a.com", "DNS:*", NOT_ALT),
        ("a.com", "DNS:*.com", NOT_ALT),
        ("a.co.uk", "DNS:*.co.uk", None),
        ("a.com", "DNS:*.a.com", NOT_ALT),
        ("bad.x.example.com", "DNS:bad..example.com", NOT_ALT),
        ("bad..example.com", "DNS:bad..example.com", NOT_ALT),
        ("x.example.com", "DNS:café.example.com", NOT_ALT),
        ("x.example.com", "DNS:bad label.com", NOT_ALT),
        ("bad label.com", "DNS:bad label.com", NOT_ALT),
        ("b.a.com", "DNS:*.a.com", None),
        ("c.b.a.com", "DNS:*.a.com", NOT_ALT),
        ("b.a.com", "DNS:*b.a.com", None),
        ("a.b.a.com", "DNS:*b.a.com", NOT_ALT),
        ("b.a.com", "DNS:**.a.com", NOT_ALT),
        ("c.b.com", "DNS:*.*.com", NOT_ALT),
        ("a.b.com", "DNS:x.com, DNS:*.b.com", None),
        ("", "DNS:", NOT_ALT),
        ("b.example.com", 'DNS:"a.example.com, DNS:b.example.com, DNS:c.example.com"', NOT_ALT),
        ("c.example.com", r'DNS:"a\u002c DNS:b", DNS:c.example.com', None),
        ("nodejs.org", r'DNS:"nodejs.org\u002c DNS:blah.attacker.example"', NOT_ALT),
        ("good.example.org", r'DNS:"good.example.org\u0000.evil.example.com"', NOT_ALT),
    ],
)
def test_alternative_names_are_judged_like_node(host: str, alt_names: str, expected: str | None) -> None:
    assert reason(host, names(san=alt_names)) == (expected and expected.format(host, alt_names))


@pytest.mark.feature("D2")
@pytest.mark.parametrize(
    ("host", "alt_names", "listed"),
    [
        ("8.8.8.8", "", ""),
        ("8.8.8.8", "DNS:8.8.8.8", ""),
        ("8.8.8.8", "URI:http://8.8.8.8/", ""),
        ("8.8.8.8", "IP Address:8.8.8.8", None),
        ("8.8.8.8", "IP Address:8.8.8.0/24", ""),
        ("127.0.0.1", "IP Address:127.0.0.1", None),
        ("127.0.0.2", "IP Address:127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "DNS:a.com", ""),
        ("::1", "IP Address:0:0:0:0:0:0:0:1", None),
        ("fe80::1%eth0", "IP Address:FE80:0:0:0:0:0:0:1", None),
        (
            "::2",
            "IP Address:0:0:0:0:0:0:0:1, IP Address:<invalid length=5>, IP Address:1.2.3.4",
            "::1, , 1.2.3.4",
        ),
    ],
)
def test_an_address_is_looked_for_among_addresses_only(host: str, alt_names: str, listed: str | None) -> None:
    """A common name and DNS names never count for an address."""
    expected = None if listed is None else NOT_IN_LIST.format(host, listed)
    assert reason(host, names(cn=host, san=alt_names)) == expected


@pytest.mark.feature("D2")
@pytest.mark.parametrize(
    ("address", "canonical"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("10.1.0.1", "10.1.0.1"),
        ("::1", "::1"),
        ("fe80:0:0:0:0:0:0:1", "fe80::1"),
        ("fe80:0:0:0:0:0:0:0", "fe80::"),
        ("fe80::0000:0010:0001", "fe80::10:1"),
        ("0001:2222:3333:4444:5555:6666:7777:0088", "1:2222:3333:4444:5555:6666:7777:88"),
        ("0001:2222:3333:4444:5555:6666::", "1:2222:3333:4444:5555:6666::"),
        ("a002:B12:00Ba:4444:5555:6666:0:0", "a002:b12:ba:4444:5555:6666::"),
        ("0:0:0:0:0:ffff:c0a8:101", "::ffff:192.168.1.1"),
        ("::ffff:192.168.1.1", "::ffff:192.168.1.1"),
    ],
)
def test_addresses_are_compared_and_listed_in_their_canonical_form(address: str, canonical: str) -> None:
    assert reason(address, names(san=f"IP Address:{canonical}")) is None
    assert reason("192.0.2.9", names(san=f"IP Address:{address}")) == NOT_IN_LIST.format(
        "192.0.2.9", canonical
    )


@pytest.mark.feature("D2")
@pytest.mark.parametrize("host", ["01.2.3.4", "1.2.3", "[::1]", "::1%", "1.2.3.4%eth0", "1.2.3.4\0"])
def test_what_only_resembles_an_address_is_judged_as_a_name(host: str) -> None:
    assert reason(host, names(san="IP Address:1.2.3.4, IP Address:::1")) == NO_NAME


@pytest.mark.feature("D2")
def test_one_dot_at_the_end_does_not_count() -> None:
    assert reason("a.com.", names(san="DNS:a.com")) is None
    assert reason("a.com", names(san="DNS:a.com.")) is None
    assert reason("8.8.8.8.", names(san="IP Address:8.8.8.8")) is None
    assert reason("b.com.", names(san="DNS:a.com")) == NOT_ALT.format("b.com", "DNS:a.com")


@pytest.mark.feature("D2")
def test_the_common_name_counts_only_without_a_dns_name() -> None:
    host = "good.example.com"
    assert reason(host, names(cn=host, san="DNS:evil.example.com")) == NOT_ALT.format(
        host, "DNS:evil.example.com"
    )
    assert reason(host, names(cn=host, san="DNS:")) == NOT_ALT.format(host, "DNS:")
    assert reason(host, names(cn=host, san="IP Address:1.2.3.4")) is None
    assert reason(host, names(cn=host, san="URI:http://evil.example.com/")) is None


@pytest.mark.feature("D2")
@pytest.mark.node("test-x509-escaping.js")
@pytest.mark.parametrize(
    "literal",
    [
        r'"\a invalid escape"',
        r'"\v invalid escape"',
        r'"\' invalid escape"',
        r'"\x42 invalid escape"',
        r'"\u202 invalid escape"',
        r'"\012 invalid escape"',
        '"Unterminated string',
        r'"Unterminated string\"',
        r'"Unterminated string\\\"',
        '"\0 control character"',
        '"\x1e control character"',
        '"\x1f control character"',
    ],
)
def test_a_malformed_quoted_name_refuses_the_certificate(literal: str) -> None:
    refusal = _judge("example.com", names(cn="example.com", san=f"DNS:example.com, DNS:{literal}"))
    assert refusal is not None
    assert refusal.code == "ERR_TLS_CERT_ALTNAME_FORMAT"
    assert refusal.reason == "Invalid subject alternative name string"


@settings(max_examples=20)
@given(st.lists(st.text(st.characters(max_codepoint=0xFF)), min_size=1, max_size=4))
def test_every_name_of_a_certificate_is_split_off_whole(texts: list[str]) -> None:
    """The text of a subjectAltName gives back the names it was made of, whatever they contain."""
    san = der(0x30, b"".join(der(0x82, text.encode("latin-1")) for text in texts))
    alt_names = certificate(san=san).subject_alt_name
    assert alt_names is not None
    assert _split(alt_names) == [f"DNS:{text}" for text in texts]


# Names that are not ASCII


@pytest.mark.feature("D2")
@pytest.mark.parametrize(
    ("host", "a_label"),
    [
        ("bücher.example.com", "xn--bcher-kva.example.com"),
        ("BÜCHER.Example.com", "xn--bcher-kva.example.com"),
        ("faß.de", "xn--fa-hia.de"),
        ("bücher。example。com", "xn--bcher-kva.example.com"),
        ("\N{KELVIN SIGN}.example.com", "k.example.com"),
    ],
)
def test_a_name_is_compared_as_it_was_looked_up(host: str, a_label: str) -> None:
    assert to_ascii(host) == a_label
    assert reason(host, names(san=f"DNS:{a_label}")) is None
    assert reason(f"{host}.", names(cn=a_label)) is None
    assert reason(host, names(san="DNS:other.example")) == NOT_ALT.format(host, "DNS:other.example")


@pytest.mark.feature("D2")
def test_idna_2003_does_not_turn_one_name_into_another() -> None:
    assert reason("faß.de", names(san="DNS:fass.de")) == NOT_ALT.format("faß.de", "DNS:fass.de")


@pytest.mark.feature("D2")
def test_full_width_digits_are_an_address() -> None:
    host = "\N{FULLWIDTH DIGIT ONE}27.0.0.1"
    assert reason(host, names(san="IP Address:127.0.0.1")) is None
    assert reason(host, names(san="DNS:127.0.0.1")) == NOT_IN_LIST.format(host, "")


@pytest.mark.feature("D2")
def test_a_name_that_idna_forbids_is_judged_as_it_stands() -> None:
    with pytest.raises(ValueError, match="not allowed"):
        to_ascii("☃.example.com")
    assert reason("☃.example.com", names(san="DNS:xn--n3h.example.com")) is not None
    assert reason("☃.example.com", names(san="DNS:*.example.com")) is None
    assert reason("☃.\N{KELVIN SIGN}.com", names(san="DNS:*.k.com")) is not None
    assert to_ascii("under_score.example") == "under_score.example"


# The public function


@pytest.mark.feature("D2")
def test_the_right_certificate_is_accepted() -> None:
    address = ipaddress.ip_address("2001:db8::1")
    view = certificate(x509.DNSName("a.example"), x509.DNSName("*.b.example"), x509.IPAddress(address))
    check_server_identity("a.example", view)
    check_server_identity("x.b.example.", view)
    check_server_identity("2001:DB8:0::1", view)
    check_server_identity("cn.example", certificate())


@pytest.mark.feature("D2")
def test_an_error_carries_host_names_certificate_and_a_hint() -> None:
    view = certificate(x509.DNSName("a.example"), x509.IPAddress(ipaddress.ip_address("192.0.2.1")))
    with pytest.raises(IdentityError) as caught:
        check_server_identity("b.example", view)
    error = caught.value
    assert error.code == "ERR_TLS_CERT_ALTNAME_INVALID"
    assert (
        error.reason == "Host: b.example. is not in the cert's altnames: DNS:a.example, IP Address:192.0.2.1"
    )
    assert error.host == "b.example"
    assert error.presented == ("a.example", "192.0.2.1")
    assert error.certificate is view
    assert (error.phase, error.stream, error.depth) == (None, None, 0)
    assert error.hint == (
        "The certificate is for a.example, 192.0.2.1. Connect by a name that it is for, "
        "or have it issued with DNS:b.example in its subjectAltName."
    )
    assert pickle.loads(pickle.dumps(error)).certificate == view


@pytest.mark.feature("D2")
def test_a_hint_fits_what_is_missing() -> None:
    def hint(host: str, view: Certificate) -> str:
        with pytest.raises(IdentityError) as caught:
            check_server_identity(host, view)
        return caught.value.hint

    assert hint("192.0.2.1", certificate(cn="192.0.2.1")) == (
        "Have the certificate issued with IP Address:192.0.2.1 in its subjectAltName."
    )
    many = [x509.DNSName(f"{letter}.example") for letter in "abcdefg"]
    assert "a.example, b.example, c.example, d.example, e.example and 2 more." in hint(
        "x.example", certificate(*many)
    )
    assert "is for 'a\\nb'. Connect" in hint("x.example", certificate(cn="a\nb"))


@pytest.mark.feature("D2")
def test_a_certificate_whose_names_are_damaged_is_refused() -> None:
    """Its common name is not asked instead."""
    view = certificate(cn="a.example", san=b"junk")
    with pytest.raises(IdentityError) as caught:
        check_server_identity("a.example", view)
    assert caught.value.code == "ERR_TLS_CERT_ALTNAME_FORMAT"
    assert caught.value.reason == "Invalid subject alternative name string"
    assert caught.value.certificate is view
    with pytest.raises(CertificateError):
        check_server_identity("a.example", Certificate(b"junk"))


@pytest.mark.feature("A11", "D2")
def test_no_certificate_is_accepted() -> None:
    """A connection with a pre-shared key has none."""
    check_server_identity("a.example", None)


def test_a_host_that_is_no_string_is_a_mistake_of_the_caller() -> None:
    for host in (None, b"a.example", 1):
        with pytest.raises(ConfigurationTypeError, match="a host is"):
            check_server_identity(host, certificate())  # type: ignore[arg-type]
