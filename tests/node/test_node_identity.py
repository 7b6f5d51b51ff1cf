"""Who a certificate is for, as Node.js's own tests have it."""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from engine_pairs import node_table
from meetings import come_to, in_both_versions
from parties import agent, party, trust

import trio_tlsnode as tls
from trio_tlsnode import Certificate, SecureContext, SessionCache, TLSServer, TLSStream, wrap_client

CANONICAL = node_table("identity")["canonical_ip"]
KEY = ec.generate_private_key(ec.SECP256R1())


async def say_hello(stream: TLSStream) -> None:
    await stream.send_all(b"hello")


async def never(_stream: TLSStream) -> None:
    raise AssertionError("the handler was called")


def issued(
    subject: list[x509.NameAttribute[str]],
    *extensions: tuple[x509.ExtensionType, bool],
    issuer: x509.Certificate | None = None,
) -> x509.Certificate:
    """Return a certificate that is signed by `KEY`, whoever its issuer is; by default itself."""
    name = x509.Name(subject)
    agent1 = party("agent1").certificate
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name if issuer is None else issuer.subject)
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(agent1.not_valid_before_utc)
        .not_valid_after(agent1.not_valid_after_utc)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(KEY, SHA256())


def common_name(name: str) -> list[x509.NameAttribute[str]]:
    return [x509.NameAttribute(NameOID.COMMON_NAME, name)]


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


@pytest.mark.feature("D2")
@pytest.mark.node("test-tls-canonical-ip.js")
@pytest.mark.parametrize(("given", "canonical"), CANONICAL)
def test_addresses_are_compared_in_their_canonical_form(given: str, canonical: str) -> None:
    address = ipaddress.ip_address(given)
    names = x509.SubjectAlternativeName([x509.IPAddress(address)])
    certificate = Certificate.from_x509(issued(common_name("agent1"), (names, False)))
    tls.check_server_identity(given, certificate)
    tls.check_server_identity(canonical, certificate)
    with pytest.raises(tls.IdentityError) as caught:
        tls.check_server_identity("::2", certificate)
    assert caught.value.reason.endswith(f"IP: ::2 is not in the cert's list: {canonical}")


@pytest.mark.feature("A6")
@pytest.mark.node("test-tls-connect-no-host.js")
async def test_without_a_host_localhost_is_verified(nursery: trio.Nursery) -> None:
    server = TLSServer(say_hello, SecureContext(**party("rsa_cert").options))
    client = await wrap_client(come_to(server, nursery), ca=trust("rsa_cert"))
    assert client.authorized


@pytest.mark.feature("A4")
@pytest.mark.node("test-https-agent-servername.js")
async def test_the_name_that_is_asked_for_is_verified_and_not_the_host(nursery: trio.Nursery) -> None:
    server = TLSServer(say_hello, SecureContext(**agent("agent1")))
    client = await wrap_client(
        come_to(server, nursery), host="localhost", server_name="agent1", ca=trust("ca1")
    )
    assert client.authorized


@pytest.mark.feature("A6")
@pytest.mark.node("test-https-client-checkServerIdentity.js")
@in_both_versions
async def test_a_check_of_one_s_own_may_accept_another_name(version: str, nursery: trio.Nursery) -> None:
    server = TLSServer(say_hello, SecureContext(**agent("agent3")))
    server.client_errors()
    context = SecureContext(ca=trust("ca2"), min_version=version, max_version=version)
    with pytest.raises(tls.IdentityError):
        await wrap_client(come_to(server, nursery), host="localhost", context=context)
    client = await wrap_client(
        come_to(server, nursery),
        host="localhost",
        context=context,
        check_server_identity=lambda _name, _certificate: False,
    )
    assert client.authorized


@pytest.mark.feature("A7")
@pytest.mark.feature("A19")
@pytest.mark.node("test-https-agent-session-injection.js")
@in_both_versions
async def test_a_name_that_was_refused_leaves_no_session_that_passes(
    version: str, nursery: trio.Nursery
) -> None:
    server = TLSServer(never, SecureContext(**agent("agent1")))
    server.client_errors()
    options: dict[str, Any] = {
        "context": SecureContext(ca=trust("ca1"), min_version=version, max_version=version),
        "session_cache": SessionCache(),
        "host": "nodejs.org",
    }
    for _ in range(2):
        with pytest.raises(tls.IdentityError) as caught:
            await wrap_client(come_to(server, nursery), **options)
        assert caught.value.code == "ERR_TLS_CERT_ALTNAME_INVALID"
        assert caught.value.reason == "Host: nodejs.org. is not cert's CN: agent1"
    assert server.statistics().resumed == 0


# Names that look like others


CONSTRAINTS = x509.NameConstraints(
    permitted_subtrees=[x509.DNSName("attacker.example")], excluded_subtrees=None
)
ANY_CA = x509.BasicConstraints(ca=True, path_length=None)
ROOT = issued(common_name("Root"), (ANY_CA, True))
CONSTRAINED = issued(common_name("Intermediate"), (ANY_CA, True), (CONSTRAINTS, True), issuer=ROOT)


def alternative(*names: x509.GeneralName) -> list[tuple[x509.ExtensionType, bool]]:
    return [(x509.SubjectAlternativeName(names), False)]


@dataclasses.dataclass
class Leaf:
    """A certificate by somebody who may only vouch for ``attacker.example``."""

    subject: list[x509.NameAttribute[str]]
    extensions: list[tuple[x509.ExtensionType, bool]]


LEAVES = {
    "another name": Leaf(common_name("Leaf"), alternative(x509.DNSName("blah.attacker.example"))),
    "both names": Leaf(
        common_name("Leaf"), alternative(x509.DNSName("nodejs.org"), x509.DNSName("blah.attacker.example"))
    ),
    "one name that reads as two": Leaf(
        common_name("Leaf"), alternative(x509.DNSName("nodejs.org, DNS:blah.attacker.example"))
    ),
    "an address in the web": Leaf(
        common_name("Leaf"), alternative(x509.UniformResourceIdentifier("https://nodejs.org"))
    ),
    "a subject of several lines": Leaf(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "org unit\nCN=nodejs.org"),
            *common_name("attacker.example"),
        ],
        [],
    ),
}


@pytest.mark.feature("D2")
@pytest.mark.node("test-x509-escaping.js")
@pytest.mark.parametrize("leaf", LEAVES.values(), ids=LEAVES)
async def test_who_may_not_vouch_for_a_name_cannot_smuggle_it_in(leaf: Leaf, nursery: trio.Nursery) -> None:
    certificate = issued(leaf.subject, *leaf.extensions, issuer=CONSTRAINED)
    server = TLSServer(never, SecureContext(key=KEY, cert=pem(certificate, CONSTRAINED)))
    server.client_errors()
    with pytest.raises(tls.CertificateError):
        await wrap_client(come_to(server, nursery), host="nodejs.org", ca=pem(ROOT))


@pytest.mark.feature("D2")
@pytest.mark.node("test-x509-escaping.js")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            x509.DNSName("evil.example.com"),
            "Host: good.example.com. is not in the cert's altnames: DNS:evil.example.com",
        ),
        (x509.IPAddress(ipaddress.ip_address("1.2.3.4")), None),
    ],
    ids=["a name", "an address"],
)
async def test_the_common_name_counts_beside_addresses_and_not_beside_names(
    name: x509.GeneralName, reason: str | None, nursery: trio.Nursery
) -> None:
    certificate = issued(common_name("good.example.com"), *alternative(name), (ANY_CA, True))
    server = TLSServer(say_hello, SecureContext(key=KEY, cert=pem(certificate)))
    server.client_errors()
    client = await wrap_client(
        come_to(server, nursery), host="good.example.com", ca=pem(certificate), reject_unauthorized=False
    )
    error = client.authorization_error
    assert (error and error.reason) == reason
