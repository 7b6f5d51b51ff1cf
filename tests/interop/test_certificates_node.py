"""Node.js and we see the same in a certificate, and judge names alike."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import random
import subprocess
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from trio_tlsnode.certificates import _ACCESS_METHODS, _ATTRIBUTES, Certificate, Name
from trio_tlsnode.identity import _judge

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

# Prints a JSON list: the certificate object of each certificate of a JSON list of PEM texts.
READ_CERTIFICATES = """
const { X509Certificate } = require('crypto');
const pems = JSON.parse(require('fs').readFileSync(0));
console.log(JSON.stringify(pems.map((pem) => new X509Certificate(pem).toLegacyObject())));
"""

# A server and a client in one process.  Prints what the client's getPeerCertificate(true) holds, from the
# leaf on; "itself" stands for an issuerCertificate that is the object which has it.
PEER_CERTIFICATE = """
const tls = require('tls');
const { key, cert, ca } = JSON.parse(require('fs').readFileSync(0));
const server = tls.createServer({ key, cert }, (socket) => socket.end());
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address();
  const socket = tls.connect({ host: '127.0.0.1', port, ca, servername: 'leaf.example' });
  socket.on('error', (error) => { console.error(error); process.exit(1); });
  socket.on('secureConnect', () => {
    const chain = [];
    for (let seen = socket.getPeerCertificate(true); seen; ) {
      const { issuerCertificate, ...fields } = seen;
      chain.push(fields);
      fields.issuerIsItself = issuerCertificate === seen;
      seen = fields.issuerIsItself ? undefined : issuerCertificate;
    }
    console.log(JSON.stringify(chain));
    socket.end();
    server.close();
  });
});
"""

# Prints for each [host, subject, subjectaltname] what tls.checkServerIdentity says: null, or code and reason.
CHECK_IDENTITIES = """
const tls = require('tls');
const rows = JSON.parse(require('fs').readFileSync(0));
const judge = (host, subject, subjectaltname) => {
  try {
    const error = tls.checkServerIdentity(host, { subject, subjectaltname });
    return error ? [error.code, error.reason] : null;
  } catch (error) {
    return [error.code, error.message];
  }
};
console.log(JSON.stringify(rows.map((row) => judge(...row))));
"""


def run(node: str, script: str, value: object) -> Any:
    result = subprocess.run(
        [node, "-e", script], input=json.dumps(value), capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def from_json(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a certificate object that went through JSON with its buffers as bytes."""
    return {
        name: bytes(value["data"]) if isinstance(value, dict) and value.get("type") == "Buffer" else value
        for name, value in fields.items()
    }


# The certificates


def ec_key(number: int, curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(number, curve or ec.SECP256R1())


KEY = ec_key(2**200 + 1)


def named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


LEAF = named("leaf.example")


def issue(
    *extensions: x509.ExtensionType,
    subject: x509.Name = LEAF,
    key: PrivateKey = KEY,
    issuer: x509.Name | None = None,
    issuer_key: PrivateKey | None = None,
    until: dt.datetime = dt.datetime(2035, 6, 1, 12, tzinfo=dt.UTC),
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder(issuer or subject, subject, key.public_key(), 0x0FFF)
        .not_valid_before(dt.datetime(2025, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(until)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    signer = issuer_key or key
    return builder.sign(signer, None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256())


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def raw_alt_names(octets: str) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(x509.OID_SUBJECT_ALTERNATIVE_NAME, bytes.fromhex(octets))


def other_name(number: str, octets: str) -> x509.OtherName:
    return x509.OtherName(x509.ObjectIdentifier(number), bytes.fromhex(octets))


CA = x509.BasicConstraints(ca=True, path_length=None)
ODD_NAME = x509.Name(
    [
        x509.RelativeDistinguishedName(
            [
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "one"),
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "two + three"),
            ]
        ),
        x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "four")]),
        x509.RelativeDistinguishedName(
            [x509.NameAttribute(NameOID.LOCALITY_NAME, 'München\\\nCN=a\0b, "c"')]
        ),
        x509.RelativeDistinguishedName(
            [x509.NameAttribute(NameOID.COMMON_NAME, "é漢", _type=_ASN1Type.BMPString)]
        ),
        x509.RelativeDistinguishedName([x509.NameAttribute(x509.ObjectIdentifier("2.999.1"), " #<x>; ")]),
    ]
)
ALT_NAMES = x509.SubjectAlternativeName(
    [
        x509.DNSName("a.example"),
        x509.DNSName("good.example, DNS:evil.example"),
        x509.DNSName("good.example\0.evil.example"),
        x509.DNSName('"quoted" it\'s \\'),
        x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
        x509.IPAddress(ipaddress.ip_address("2001:db8::a0b:1")),
        x509.UniformResourceIdentifier("http://example/a,b?c=d"),
        x509.RFC822Name("someone@example"),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.840.113549.1.1.11")),
        x509.RegisteredID(x509.ObjectIdentifier("2.999.3")),
        x509.DirectoryName(ODD_NAME),
        other_name("1.3.6.1.5.5.7.8.5", "0c05c39c2c0078"),
        other_name("1.3.6.1.5.5.7.8.7", "16027879"),
        other_name("1.3.6.1.5.5.7.8.7", "0c027879"),
        other_name("1.3.6.1.4.1.311.20.2.3", "0c03754070"),
        other_name("1.3.6.1.5.5.7.8.8", "0c03754070"),
        other_name("1.3.6.1.5.5.7.8.9", "0c03754070"),
        other_name("2.999.4", "0c027879"),
    ]
)
INFORMATION_ACCESS = x509.AuthorityInformationAccess(
    [
        *(
            x509.AccessDescription(
                x509.ObjectIdentifier(method), x509.UniformResourceIdentifier("http://example/a,b")
            )
            for method in (*_ACCESS_METHODS, "2.999.5")
        ),
        x509.AccessDescription(
            AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier("http://b/\nx:y")
        ),
        x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.DNSName("ocsp.example")),
        x509.AccessDescription(
            AuthorityInformationAccessOID.CA_ISSUERS, other_name("1.3.6.1.5.5.7.8.5", "0c0161")
        ),
    ]
)
SIGNING = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
ATTRIBUTES = x509.Name(
    [
        x509.NameAttribute(x509.ObjectIdentifier(number), "DE")
        for number in _ATTRIBUTES
        if number != "2.5.4.45"  # holds a BIT STRING
    ]
)


@pytest.mark.feature("D1")
def test_node_reads_the_same_fields(node: str) -> None:
    certificates = {
        "RSA": issue(key=rsa.generate_private_key(65537, 2048)),
        "P-256": issue(key=ec_key(5)),
        "P-384": issue(key=ec_key(5, ec.SECP384R1())),
        "P-521": issue(key=ec_key(5, ec.SECP521R1())),
        "secp256k1": issue(key=ec_key(5, ec.SECP256K1())),
        "Ed25519": issue(key=ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))),
        "odd name": issue(subject=ODD_NAME),
        "every attribute": issue(subject=ATTRIBUTES),
        "no name": issue(subject=x509.Name([])),
        "every kind of alternative name": issue(ALT_NAMES),
        "Latin-1 alternative name": issue(raw_alt_names("30068204652ee461")),
        "address of 5 octets": issue(raw_alt_names("300787050102030405")),
        "address of no octets": issue(raw_alt_names("30028700")),
        "no alternative names": issue(raw_alt_names("3000")),
        "damaged alternative names": issue(raw_alt_names("6a756e6b")),
        "unknown kind of alternative name": issue(raw_alt_names("3003970178")),
        "information access": issue(INFORMATION_ACCESS),
        "extended key usage": issue(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, x509.ObjectIdentifier("2.999.6")])
        ),
        "CA": issue(CA),
        "CA that may not sign certificates": issue(CA, SIGNING),
        "valid beyond 2050": issue(until=dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)),
    }
    seen = run(node, READ_CERTIFICATES, [pem(certificate) for certificate in certificates.values()])
    theirs = dict(zip(certificates, map(from_json, seen), strict=True))
    ours = {
        case: Certificate.from_x509(certificate).as_node_dict(detailed=False)
        for case, certificate in certificates.items()
    }
    assert ours == theirs


@pytest.mark.feature("D1", "C9")
def test_a_chain_is_nodes_peer_certificate(node: str) -> None:
    root_key, middle_key, leaf_key = (
        rsa.generate_private_key(65537, 2048),
        ec_key(7, ec.SECP384R1()),
        ec_key(9),
    )
    root = issue(CA, subject=named("root"), key=root_key)
    middle = issue(CA, subject=named("middle"), key=middle_key, issuer=named("root"), issuer_key=root_key)
    leaf = issue(
        x509.SubjectAlternativeName([x509.DNSName("leaf.example")]),
        key=leaf_key,
        issuer=named("middle"),
        issuer_key=middle_key,
    )
    key = leaf_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    seen = run(
        node, PEER_CERTIFICATE, {"key": key.decode(), "cert": pem(leaf) + pem(middle), "ca": pem(root)}
    )
    view = Certificate.chain(
        [certificate.public_bytes(serialization.Encoding.DER) for certificate in (leaf, middle, root)]
    )
    ours = view.as_node_dict(detailed=True)
    for fields in map(from_json, seen):
        is_itself = fields.pop("issuerIsItself")
        issuer = ours.pop("issuerCertificate")
        assert ours == fields
        assert (issuer is ours) == is_itself
        ours = issuer
    assert len(seen) == 3


class Names(NamedTuple):
    """What a certificate is for, as Node's certificate object says it."""

    subject: Name
    subject_alt_name: str | None


def random_name(source: random.Random) -> str:
    if source.random() < 0.25:
        return source.choice(ADDRESSES)
    labels = [source.choice(LABELS) for _ in range(source.randint(1, 4))]
    return ".".join(labels) + source.choice(["", "", "", ".", ".."])


def random_entry(source: random.Random) -> str:
    kind = source.choice(["DNS", "DNS", "DNS", "IP Address", "URI", "email", "DirName"])
    value = random_name(source)
    form = source.random()
    if form < 0.2:
        value = json.dumps(value)
    elif form < 0.25:
        value = json.dumps(f"{value}, DNS:{random_name(source)}")
    elif form < 0.3:
        value = source.choice(ODD_LITERALS)
    return f"{kind}:{value}"


LABELS = (
    "a",
    "b",
    "A",
    "ab",
    "*",
    "a*",
    "*b",
    "a*b",
    "**",
    "xn--a",
    "XN--*",
    "",
    "com",
    "\x7f",
    " a",
    "_a",
    "1",
)
ADDRESSES = (
    "1.2.3.4",
    "1.2.3.4.",
    "01.2.3.4",
    "256.1.1.1",
    "::1",
    "0:0:0:0:0:0:0:1",
    "FE80::1",
    "fe80::1%eth0",
    "[::1]",
    "::ffff:1.2.3.4",
    "::FFFF:102:304",
    "::1.2.3.4",
    "1:0:0:2:0:0:0:3",
    "2001:db8:0:1:1:1:1:1",
    "<invalid length=5>",
)
ODD_LITERALS = ('"a', 'a"b"', '"a\\', r'"\x41"', r'"\u00"', '"a"c', '"\n"', r'"\/"', r'"\u0041.com"')


@pytest.mark.feature("D2")
def test_node_judges_names_alike(node: str) -> None:
    """Thousands of names, made of the parts that rules are about."""
    source = random.Random(1)
    rows: list[tuple[str, dict[str, str | list[str]], str | None]] = []
    for _ in range(5000):
        subject: dict[str, str | list[str]] = {}
        if source.random() < 0.7:
            names = [random_name(source), random_name(source)]
            subject["CN"] = names if source.random() < 0.5 else names[0]
        entries = [random_entry(source) for _ in range(source.randint(0, 3))]
        host = random_name(source)
        if entries and source.random() < 0.5:
            host = entries[0].partition(":")[2].replace("*", source.choice(["a", "x", "xn--q"]))
        rows.append((host, subject, ", ".join(entries) or None))
    ours = []
    for host, subject, alt_names in rows:
        common_name = {
            key: value if isinstance(value, str) else tuple(value) for key, value in subject.items()
        }
        refusal = _judge(host, Names(common_name, alt_names))
        ours.append(None if refusal is None else [refusal.code, refusal.reason])
    theirs = run(node, CHECK_IDENTITIES, rows)
    assert [row for row in zip(rows, ours, theirs, strict=True) if row[1] != row[2]] == []
    assert 100 < theirs.count(None) < 4900
