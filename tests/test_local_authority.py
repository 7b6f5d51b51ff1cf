"""LocalAuthority: what it issues, what it refuses, and that clients hold it to local names."""

from __future__ import annotations

import datetime as dt
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key, pkcs12
from cryptography.x509.oid import NameOID

import trio_tlsnode as tls
from trio_tlsnode.testing import tls_pair

pytestmark = [pytest.mark.feature("F16"), pytest.mark.feature("G5")]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tls.LocalAuthority:
    return tls.LocalAuthority.open(tmp_path_factory.mktemp("authority") / "new" / "folder")


def presented(issued: tls.LocalCertificate) -> dict[str, Any]:
    return {"cert": issued.cert, "key": issued.key}


async def verdict(
    authority: tls.LocalAuthority, host: str, certificate: dict[str, Any]
) -> tls.CertificateError | None:
    """Return what is wrong with a server for a client that trusts the authority alone."""
    client, server = await tls_pair(
        client_context=tls.SecureContext(ca=authority.ca_path),
        server_context=tls.SecureContext(**certificate),
        client_options={"host": host, "reject_unauthorized": False},
    )
    async with client, server:
        return client.authorization_error


# Local names


NAMES = [
    "localhost", "app.localhost", "app.test", "a.b.example", "printer.local", "db.internal", "nas.home.arpa",
    "127.0.0.1", "::1", "192.168.1.10", "10.0.0.1", "172.31.0.1", "fd00::1", "fe80::1", "BÜCHER.test",
]  # fmt: skip


@pytest.mark.parametrize("key_type", ["EC", "RSA"])
async def test_a_server_with_local_names_is_trusted_by_each(
    authority: tls.LocalAuthority, key_type: Any
) -> None:
    issued = presented(authority.issue(*NAMES, "*.app.test", key_type=key_type))
    for name in (*NAMES, "x.app.test"):
        assert await verdict(authority, name, issued) is None, name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("example.com", "may be somebody's in public"),
        ("localhost.example.org", "may be somebody's in public"),
        ("notest", "may be somebody's in public"),
        ("mybox", "may be somebody's in public"),
        ("*", "is no host name"),
        ("8.8.8.8", "is a public address"),
        ("172.32.0.1", "is a public address"),
        ("2001:db8::1", "is a public address"),
        ("0.0.0.0", "is a public address"),
        ("*.test", "no client takes"),
        ("*.home.arpa", "no client takes"),
        ("a.*.test", "is no host name"),
        ("a b.test", "is no host name"),
        ("", "is no host name"),
        ("a..test", "is no host name"),
        (f"{'a' * 64}.test", "is no host name"),
        ("https://app.test/", "is no host name"),
    ],
)
def test_any_other_name_is_refused(authority: tls.LocalAuthority, name: str, reason: str) -> None:
    with pytest.raises(tls.ConfigurationError, match=reason) as caught:
        authority.issue("localhost", name)
    assert caught.value.option == "names"


async def test_who_steals_its_key_cannot_pass_for_a_public_server(authority: tls.LocalAuthority) -> None:
    stolen: Any = load_pem_private_key((authority.folder / "ca-key.pem").read_bytes(), None)
    good = authority.issue("localhost")
    leaf = x509.load_pem_x509_certificate(good.cert)
    builder = x509.CertificateBuilder(
        issuer_name=leaf.issuer,
        subject_name=leaf.subject,
        public_key=leaf.public_key(),
        serial_number=leaf.serial_number,
        not_valid_before=leaf.not_valid_before_utc,
        not_valid_after=leaf.not_valid_after_utc,
    ).add_extension(x509.SubjectAlternativeName([x509.DNSName("example.com")]), critical=False)
    forged = builder.sign(stolen, SHA256()).public_bytes(Encoding.PEM)
    error = await verdict(authority, "example.com", {"cert": forged, "key": good.key})
    assert error is not None
    assert error.code == "PERMITTED_VIOLATION"


def test_it_can_have_no_authority_below_it_and_is_for_tls_alone(authority: tls.LocalAuthority) -> None:
    extensions = authority.certificate.x509.extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.value.path_length, constraints.critical) == (0, True)
    assert extensions.get_extension_for_class(x509.NameConstraints).critical
    assert authority.certificate.ext_key_usage == ("1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2")
    assert authority.certificate.ca


def test_a_certificate_is_valid_for_as_long_as_said_and_never_longer_than_its_authority(
    authority: tls.LocalAuthority,
) -> None:
    now = dt.datetime.now(dt.UTC)
    year = authority.issue("localhost").certificate
    assert abs(year.valid_to - now - dt.timedelta(days=397)) < dt.timedelta(minutes=1)
    assert authority.issue("localhost", days=1e4).certificate.valid_to == authority.certificate.valid_to
    with pytest.raises(tls.ConfigurationError, match="days must be more than 0"):
        authority.issue("localhost", days=0)


# Clients


async def test_a_client_is_known_by_its_common_name_and_its_other_names(
    authority: tls.LocalAuthority,
) -> None:
    issued = authority.issue("alice", "alice@example.com", "spiffe://app.test/web", client=True)
    client, server = await tls_pair(
        client_context=tls.SecureContext(ca=authority.ca_path, **presented(issued)),
        server_context=tls.SecureContext(**presented(authority.issue("localhost")), ca=authority.ca_path),
        server_options={"request_cert": True},
    )
    async with client, server:
        assert server.authorized
        certificate = server.info.peer_certificate
    assert certificate is not None
    assert certificate.subject["CN"] == "alice"
    assert certificate.alt_names == (("email", "alice@example.com"), ("URI", "spiffe://app.test/web"))


async def test_a_clients_certificate_is_no_servers(authority: tls.LocalAuthority) -> None:
    issued = presented(authority.issue("localhost", client=True))
    error = await verdict(authority, "localhost", issued)
    assert error is not None
    assert "INVALID_PURPOSE" in {problem.code for problem in error.problems}


@pytest.mark.parametrize("name", ["", "a" * 65, "a\nb", "ä@b"])
def test_a_client_needs_a_name_that_can_stand_in_a_certificate(
    authority: tls.LocalAuthority, name: str
) -> None:
    with pytest.raises(tls.ConfigurationError):
        authority.issue(name, client=True)


def test_a_certificate_for_nobody_is_refused(authority: tls.LocalAuthority) -> None:
    with pytest.raises(tls.ConfigurationError, match="for at least one name"):
        authority.issue()


def test_another_type_of_key_is_refused(authority: tls.LocalAuthority) -> None:
    with pytest.raises(tls.ConfigurationError, match='key_type is "EC" or "RSA"'):
        authority.issue("localhost", key_type="DSA")  # type: ignore[arg-type]


# Requests


def request(*names: str, key: Any = None, common_name: str = "app.test") -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
        )
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else SHA256()
    return builder.sign(key or ec.generate_private_key(ec.SECP256R1()), algorithm).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    ("names", "expected"),
    [((), ["app.test"]), (("a.test", "b.test"), ["a.test", "b.test"])],
)
def test_a_request_is_signed_for_its_names(
    authority: tls.LocalAuthority, names: tuple[str, ...], expected: list[str], tmp_path: Path
) -> None:
    issued = authority.sign_request(request(*names))
    assert [name for _, name in issued.certificate.alt_names] == expected
    assert issued.key is None
    with pytest.raises(tls.ConfigurationError, match="somebody else has it"):
        issued.write_to(tmp_path / "cert.pem", tmp_path / "key.pem")
    with pytest.raises(tls.ConfigurationError, match="needs the private key"):
        issued.pfx("secret")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: b"nonsense", "cannot be read"),
        (lambda: request("example.com"), "may be somebody's in public"),
        (lambda: request(common_name="example.com"), "may be somebody's in public"),
        (lambda: request(key=ed25519.Ed25519PrivateKey.generate()), "neither RSA nor EC"),
        (lambda: request(key=rsa.generate_private_key(65537, 1024)), "has only 1024 bits"),
        (lambda: forged_request(), "not signed by its own key"),
    ],
)
def test_a_request_that_is_not_in_order_is_refused(
    authority: tls.LocalAuthority, content: Callable[[], bytes], reason: str
) -> None:
    with pytest.raises(tls.ConfigurationError, match=reason):
        authority.sign_request(content())


def forged_request() -> bytes:
    der = bytearray(x509.load_pem_x509_csr(request()).public_bytes(Encoding.DER))
    der[-1] ^= 1
    return x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM)


# Files


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_its_folder_and_key_are_its_owners_alone_and_it_is_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "authority"
    first = tls.LocalAuthority.open(folder)
    assert first.made
    assert (mode(folder), mode(folder / "ca-key.pem"), mode(first.ca_path)) == (0o700, 0o600, 0o644)
    again = tls.LocalAuthority.open(folder)
    assert (again.made, again.certificate) == (False, first.certificate)
    assert repr(again) == f"<LocalAuthority in {folder}>"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: (folder / "ca.pem").unlink(), "has ca-key.pem, but not the other file"),
        (lambda folder: (folder / "ca.pem").write_text("x"), "has files that cannot be read"),
        (lambda folder: (folder / "ca-key.pem").write_text("x"), "has files that cannot be read"),
        (
            lambda folder: (folder / "ca-key.pem").write_bytes(
                tls.LocalAuthority.open(folder.parent / "other").issue("localhost").key or b""
            ),
            "has a key that is not its certificate's",
        ),
    ],
)
def test_what_cannot_be_used_is_told_and_never_replaced(
    spoil: Callable[[Path], object], reason: str, tmp_path: Path
) -> None:
    folder = tmp_path / "authority"
    tls.LocalAuthority.open(folder)
    spoil(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(tls.ConfigurationError, match=reason) as caught:
        tls.LocalAuthority.open(folder)
    assert caught.value.path == str(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_authority_that_has_expired_is_told(tmp_path: Path, authority: tls.LocalAuthority) -> None:
    old = authority.certificate.x509
    key: Any = load_pem_private_key((authority.folder / "ca-key.pem").read_bytes(), None)
    now = dt.datetime.now(dt.UTC)
    expired = x509.CertificateBuilder(
        old.issuer,
        old.subject,
        old.public_key(),
        old.serial_number,
        now - dt.timedelta(2),
        now - dt.timedelta(1),
    ).sign(key, SHA256())
    (tmp_path / "ca.pem").write_bytes(expired.public_bytes(Encoding.PEM))
    (tmp_path / "ca-key.pem").write_bytes((authority.folder / "ca-key.pem").read_bytes())
    with pytest.raises(tls.ConfigurationError, match="has expired"):
        tls.LocalAuthority.open(tmp_path)


def test_a_file_in_the_place_of_its_folder_is_told(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(tls.ConfigurationError, match="cannot be used"):
        tls.LocalAuthority.open(path)


def test_a_key_is_its_owners_alone_also_in_the_place_of_an_open_file(
    authority: tls.LocalAuthority, tmp_path: Path
) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    key.write_text("old")
    key.chmod(0o644)
    issued = authority.issue("localhost")
    issued.write_to(cert, key)
    issued.write_pfx_to(tmp_path / "both.p12", "secret")
    assert (mode(cert), mode(key), mode(tmp_path / "both.p12")) == (0o644, 0o600, 0o600)
    assert (cert.read_bytes(), key.read_bytes()) == (issued.cert, issued.key)
    assert len([*tmp_path.iterdir()]) == 3
    tls.SecureContext(cert=cert, key=key)


def test_a_folder_that_is_not_there_is_told(authority: tls.LocalAuthority, tmp_path: Path) -> None:
    with pytest.raises(tls.ConfigurationError) as caught:
        authority.issue("localhost").write_to(tmp_path / "missing" / "cert.pem")
    assert (caught.value.code, caught.value.path) == ("ENOENT", str(tmp_path / "missing" / "cert.pem"))


def test_pkcs12_has_the_certificate_its_key_and_the_authority(authority: tls.LocalAuthority) -> None:
    issued = authority.issue("localhost")
    bundle = pkcs12.load_pkcs12(issued.pfx("secret"), b"secret")
    assert bundle.cert is not None
    assert bundle.cert.certificate.public_bytes(Encoding.PEM) == issued.cert
    assert [other.certificate for other in bundle.additional_certs] == [authority.certificate.x509]
    tls.SecureContext(pfx=issued.pfx("secret"), passphrase="secret")
    with pytest.raises(tls.ConfigurationError, match="a passphrase"):
        issued.pfx("")


def test_the_key_is_in_no_text_of_the_certificate(authority: tls.LocalAuthority) -> None:
    issued = authority.issue("localhost")
    assert b"PRIVATE" in (issued.key or b"")
    assert "PRIVATE" not in repr(issued)
