"""CA stores: the lists of Mozilla, of the system and of the environment, and what is trusted by default."""

from __future__ import annotations

import itertools
import os
import re
import ssl
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from engine_pairs import node_table, shake_hands

import trio_tlsnode as tls
from trio_tlsnode import (
    CertificateError,
    ConfigurationError,
    ConfigurationTypeError,
    SecureContext,
    ca_store,
    defaults,
)
from trio_tlsnode.testing import Authority, default_authority

NODE = node_table("options")
AUTHORITY = default_authority()
SERVER = SecureContext(**AUTHORITY.good("localhost").options)
EXTRA = ca_store.EXTRA_CA_VARIABLE


def forget() -> None:
    """Let the next context read everything anew, as in a new process."""
    defaults.reset()
    ca_store.store.cache_clear()
    ca_store.default.cache_clear()


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(EXTRA, raising=False)
    forget()
    yield
    forget()


@pytest.fixture
def extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that the environment names."""
    path = tmp_path / "extra.pem"
    path.write_bytes(AUTHORITY.ca)
    monkeypatch.setenv(EXTRA, str(path))
    return path


def verdict(context: SecureContext) -> str | None:
    """Return why a client refuses the server, or None."""
    error = shake_hands(context, SERVER).client_error
    assert error is None or isinstance(error, CertificateError)
    return None if error is None else error.code


UNKNOWN = "UNABLE_TO_VERIFY_LEAF_SIGNATURE"


# Mozilla's list


@pytest.mark.feature("D5")
@pytest.mark.node("test-tls-root-certificates.js")
def test_root_certificates_are_an_immutable_tuple_of_different_pems() -> None:
    roots = tls.root_certificates()
    assert isinstance(roots, tuple)
    assert len(roots) > 100
    assert len(set(roots)) == len(roots)
    assert all(pem.startswith("-----BEGIN CERTIFICATE-----\n") for pem in roots)
    assert all(pem.endswith("\n-----END CERTIFICATE-----") for pem in roots)
    assert all(x509.load_pem_x509_certificate(pem.encode()) for pem in roots[:5])


@pytest.mark.feature("D5")
@pytest.mark.feature("G7")
@pytest.mark.node("test-tls-root-certificates.js", "test-tls-get-ca-certificates-bundled.js")
def test_root_certificates_are_the_same_object_each_time() -> None:
    assert tls.root_certificates() is tls.root_certificates()
    assert tls.get_ca_certificates("bundled") is tls.root_certificates()


# The lists by their names


@pytest.mark.feature("G7")
@pytest.mark.node("test-tls-get-ca-certificates-default.js")
@pytest.mark.node("test-tls-get-ca-certificates-bundled-subset.js")
@pytest.mark.node("test-tls-get-ca-certificates-extra-empty.js")
def test_default_list_is_mozilla_s_and_the_same_object_each_time() -> None:
    assert tls.get_ca_certificates() == tls.get_ca_certificates("default")
    assert tls.get_ca_certificates() is tls.get_ca_certificates("default")
    assert {pem.strip() for pem in tls.get_ca_certificates()} == set(tls.root_certificates())
    assert tls.get_ca_certificates("extra") == ()


@pytest.mark.feature("G7")
@pytest.mark.node("test-tls-get-ca-certificates-extra.js", "test-tls-get-ca-certificates-extra-subset.js")
def test_extra_list_is_in_the_default_one(extra: Path) -> None:
    assert tls.get_ca_certificates("extra") == (extra.read_text(),)
    assert set(tls.get_ca_certificates()) == {
        *(f"{pem}\n" for pem in tls.root_certificates()),
        extra.read_text(),
    }


@pytest.mark.feature("G7")
@pytest.mark.feature("F15")
@pytest.mark.node("test-tls-get-ca-certificates-error.js")
@pytest.mark.parametrize("name", NODE["ca_certificates"]["wrong_type"])
def test_list_is_asked_for_by_a_str_as_in_node(name: Any) -> None:
    with pytest.raises(ConfigurationTypeError) as caught:
        tls.get_ca_certificates(name)
    assert caught.value.code == "ERR_INVALID_ARG_TYPE"


@pytest.mark.feature("G7")
@pytest.mark.node("test-tls-get-ca-certificates-error.js")
@pytest.mark.parametrize("name", [*NODE["ca_certificates"]["wrong_value"], "", "Default"])
def test_list_that_is_none_is_refused_as_in_node(name: str) -> None:
    with pytest.raises(ConfigurationError, match="default, bundled, system and extra") as caught:
        tls.get_ca_certificates(name)
    assert caught.value.code == "ERR_INVALID_ARG_VALUE"


# The system's list


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place where the operating system keeps its list."""
    folder = tmp_path / "certs"
    folder.mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "no such file"))
    monkeypatch.setenv("SSL_CERT_DIR", str(folder))
    return folder


@pytest.mark.feature("G7")
@pytest.mark.feature("F2")
@pytest.mark.node("test-tls-get-ca-certificates-system-without-flag.js")
def test_system_s_list_may_be_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tmp_path / "ca-certificates.crt"
    bundle.write_bytes(b"# a comment\n" + Authority().ca + AUTHORITY.ca + AUTHORITY.ca)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    assert len(tls.get_ca_certificates("system")) == 2
    assert verdict(SecureContext(ca="system")) is None


@pytest.mark.feature("G7")
@pytest.mark.feature("F2")
@pytest.mark.parametrize("name", ["root.pem", "root.crt", "5ed36f99.0"])
def test_system_s_list_may_be_a_folder(system: Path, name: str) -> None:
    (system / name).write_bytes(AUTHORITY.ca)
    (system / "README").write_text("no certificate")
    (system / "java").mkdir()
    assert tls.get_ca_certificates("system") == (AUTHORITY.ca.decode(),)
    assert verdict(SecureContext(ca="system")) is None


@pytest.mark.feature("G7")
def test_one_certificate_that_cannot_be_read_does_not_cost_all_others(system: Path) -> None:
    junk = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    (system / "roots.pem").write_bytes(junk + AUTHORITY.ca + b"-----BEGIN CERTIFICATE-----\nMIIB")
    assert tls.get_ca_certificates("system") == (AUTHORITY.ca.decode(),)


@pytest.mark.feature("G7")
def test_current_folder_is_never_the_system_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planted.pem").write_bytes(AUTHORITY.ca)
    monkeypatch.chdir(tmp_path)
    nowhere = ssl.DefaultVerifyPaths("", "", "", "", "", "")
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: nowhere)
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    monkeypatch.setenv("SSL_CERT_DIR", "/nowhere")
    assert tls.get_ca_certificates("system") == ()


@pytest.mark.feature("G7")
def test_where_there_is_no_file_the_standard_library_is_asked(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ssl.create_default_context(cadata=AUTHORITY.ca.decode())
    monkeypatch.setattr(ssl, "create_default_context", lambda: made)
    assert tls.get_ca_certificates("system") == (AUTHORITY.ca.decode(),)


@pytest.mark.feature("F2")
def test_system_s_list_goes_with_others(system: Path) -> None:
    (system / "stranger.pem").write_bytes(Authority().ca)
    assert verdict(SecureContext(ca="system")) == UNKNOWN
    lists: list[Any] = [["system", AUTHORITY.ca], (AUTHORITY.ca, "system", AUTHORITY.ca)]
    for ca in lists:
        context = SecureContext(ca=ca)
        assert verdict(context) is None
        assert len(context._settings.trusted) == 2


@pytest.mark.feature("G7")
@pytest.mark.node("test-tls-get-ca-certificates-system.js")
def test_system_s_list_is_no_default(system: Path) -> None:
    (system / "root.pem").write_bytes(AUTHORITY.ca)
    assert verdict(SecureContext()) == UNKNOWN
    defaults.ca = "system"
    assert verdict(SecureContext()) is None
    assert tls.get_ca_certificates() == tls.get_ca_certificates("system")
    assert tls.get_ca_certificates("system") is tls.get_ca_certificates("system")


# The extra list, as Node.js documents it


@pytest.mark.feature("F2")
@pytest.mark.node("test-tls-env-extra-ca.js")
@pytest.mark.usefixtures("extra")
def test_extra_list_is_trusted_by_default() -> None:
    assert verdict(SecureContext()) is None


@pytest.mark.feature("F2")
def test_without_the_variable_nothing_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    assert verdict(SecureContext()) == UNKNOWN
    monkeypatch.setenv(EXTRA, "")
    forget()
    assert verdict(SecureContext()) == UNKNOWN


@pytest.mark.feature("F2")
@pytest.mark.usefixtures("extra")
def test_extra_list_is_not_used_where_ca_is_given() -> None:
    assert verdict(SecureContext(ca=Authority().ca)) == UNKNOWN
    assert verdict(SecureContext(ca=[])) == UNKNOWN
    defaults.ca = []
    assert verdict(SecureContext()) == UNKNOWN


@pytest.mark.feature("F2")
@pytest.mark.feature("F5")
@pytest.mark.node("test-tls-env-extra-ca-with-options.js")
@pytest.mark.usefixtures("extra")
@pytest.mark.parametrize(
    "settings",
    [
        {"crl": AUTHORITY.crl()},
        {"allow_partial_trust_chain": True},
        dict(AUTHORITY.good("client").options),
    ],
    ids=["crl", "partial", "identity"],
)
def test_no_other_option_switches_the_default_lists_off(settings: dict[str, Any]) -> None:
    assert verdict(SecureContext(**settings)) is None


@pytest.mark.feature("F2")
def test_extra_list_is_read_once_in_a_process(extra: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verdict(SecureContext()) is None
    extra.unlink()
    monkeypatch.delenv(EXTRA)
    assert verdict(SecureContext()) is None


@pytest.mark.feature("F2")
@pytest.mark.node("test-tls-env-bad-extra-ca.js")
@pytest.mark.parametrize(
    "content", [None, b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]
)
def test_extra_list_that_cannot_be_read_is_a_warning_once_a_context_needs_it(
    extra: Path, content: bytes | None
) -> None:
    extra.unlink()
    if content is not None:
        extra.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SecureContext(ca=[])
        tls.get_ca_certificates("bundled")
    message = f"Ignoring extra certs from {str(extra)!r}, load failed: "
    with pytest.warns(RuntimeWarning, match=re.escape(message)):
        context = SecureContext()
    assert verdict(context) == UNKNOWN
    assert len(tls.get_ca_certificates()) == len(tls.root_certificates())


@pytest.mark.feature("F2")
@pytest.mark.node("test-tls-env-bad-extra-ca.js")
def test_import_warns_of_nothing_and_a_context_warns_in_a_new_process(tmp_path: Path) -> None:
    missing = str(tmp_path / "weiß nicht.pem")
    program = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import trio_tlsnode as tls
    assert not caught, caught
    tls.SecureContext()
    tls.SecureContext()
print([str(warning.message) for warning in caught])
"""
    environment = {**os.environ, EXTRA: missing, "PYTHONUTF8": "1"}
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, encoding="utf-8", check=True
    )
    assert run.stdout.count("Ignoring extra certs from") == 1
    assert "weiß nicht.pem" in run.stdout


@pytest.mark.feature("F2")
@pytest.mark.skipif(sys.platform == "win32", reason="users are another thing there")
@pytest.mark.parametrize("borrowed", ["geteuid", "getegid"])
@pytest.mark.usefixtures("extra")
def test_extra_list_is_ignored_in_a_setuid_program(borrowed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, borrowed, lambda: 12345)
    assert tls.get_ca_certificates("extra") == ()
    assert verdict(SecureContext()) == UNKNOWN


# defaults.ca


@pytest.mark.feature("G7")
@pytest.mark.feature("F13")
@pytest.mark.node("test-tls-set-default-ca-certificates-append-fetch.mjs")
@pytest.mark.node("test-tls-set-default-ca-certificates-append-https-request.js")
def test_defaults_ca_is_trusted_by_every_new_context() -> None:
    before = SecureContext()
    defaults.ca = [*tls.root_certificates(), AUTHORITY.ca]
    assert verdict(SecureContext()) is None
    assert verdict(before) == UNKNOWN
    assert len(tls.get_ca_certificates()) == len(tls.root_certificates()) + 1
    defaults.ca = None
    assert verdict(SecureContext()) == UNKNOWN


@pytest.mark.feature("G7")
@pytest.mark.node("test-tls-set-default-ca-certificates-array-buffer.js")
@pytest.mark.parametrize("form", [bytes, bytearray, memoryview, bytes.decode, x509.load_pem_x509_certificate])
def test_defaults_ca_takes_every_form(form: Any) -> None:
    for ca in (form(AUTHORITY.ca), [form(AUTHORITY.ca)], (form(AUTHORITY.ca),) * 3):
        defaults.ca = ca
        assert tls.get_ca_certificates() == (AUTHORITY.ca.decode(),)
        assert verdict(SecureContext()) is None


@pytest.mark.feature("G7")
@pytest.mark.node("test-tls-set-default-ca-certificates-basic.js")
def test_defaults_ca_leaves_the_other_lists_alone() -> None:
    others = [tls.get_ca_certificates(name) for name in ("bundled", "system", "extra")]
    defaults.ca = []
    assert tls.get_ca_certificates() == ()
    assert [tls.get_ca_certificates(name) for name in ("bundled", "system", "extra")] == others


@pytest.mark.feature("G7")
@pytest.mark.node("test-tls-set-default-ca-certificates-precedence-bundled.js")
@pytest.mark.node("test-tls-set-default-ca-certificates-precedence-empty.js")
@pytest.mark.parametrize("ca", [[], tls.root_certificates()], ids=["empty", "bundled"])
def test_context_s_own_ca_goes_before_the_default(ca: Any) -> None:
    defaults.ca = ca
    assert verdict(SecureContext(ca=AUTHORITY.ca)) is None


@pytest.mark.feature("G7")
@pytest.mark.feature("F15")
@pytest.mark.node("test-tls-set-default-ca-certificates-error.js")
@pytest.mark.parametrize(
    "value", [*NODE["default_ca"]["wrong_type"], *([item] for item in NODE["default_ca"]["wrong_item"])]
)
def test_defaults_ca_of_the_wrong_type_is_refused_as_in_node(value: Any) -> None:
    defaults.ca = AUTHORITY.ca
    with pytest.raises(ConfigurationTypeError) as caught:
        defaults.ca = value
    assert caught.value.code == "ERR_INVALID_ARG_TYPE"
    assert tls.get_ca_certificates() == (AUTHORITY.ca.decode(),)


@pytest.mark.feature("G7")
@pytest.mark.node("test-tls-set-default-ca-certificates-recovery.js")
@pytest.mark.parametrize(
    ("value", "code"),
    [
        # Node.js takes lists alone, and calls it ERR_CRYPTO_OPERATION_FAILED; here one content is one, too.
        (["not a valid certificate"], "ERR_OSSL_PEM_NO_START_LINE"),
        ("string", "ERR_OSSL_PEM_NO_START_LINE"),
        (
            [AUTHORITY.ca, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"],
            "ERR_OSSL_PEM_ASN1_LIB",
        ),
    ],
)
def test_defaults_ca_that_cannot_be_used_changes_nothing(value: Any, code: str) -> None:
    for before in (None, AUTHORITY.ca):
        defaults.ca = before
        listed = tls.get_ca_certificates()
        with pytest.raises(ConfigurationError) as caught:
            defaults.ca = value
        assert caught.value.code == code
        assert tls.get_ca_certificates() == listed


@pytest.mark.feature("G7")
def test_list_that_was_given_may_change_afterwards() -> None:
    given: list[Any] = [AUTHORITY.ca]
    defaults.ca = given
    given.clear()
    assert verdict(SecureContext()) is None


# Read once, and shared


def count_calls(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[None]:
    """Return a list that grows with each call."""
    calls: list[None] = []
    original = getattr(owner, name)

    def counted(*args: Any, **options: Any) -> Any:
        calls.append(None)
        return original(*args, **options)

    monkeypatch.setattr(owner, name, counted)
    return calls


@pytest.mark.feature("F1")
@pytest.mark.usefixtures("extra")
@pytest.mark.parametrize("chosen", [None, AUTHORITY.ca], ids=["bundled", "chosen"])
def test_default_trust_is_parsed_once_in_a_process(chosen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = count_calls(monkeypatch, x509, "load_pem_x509_certificate")
    stored = count_calls(monkeypatch, sys.modules["OpenSSL.crypto"].X509Store, "add_cert")
    opened = count_calls(monkeypatch, Path, "read_bytes")
    defaults.ca = chosen
    SecureContext()
    assert stored
    first = [len(calls) for calls in (parsed, stored, opened)]
    for settings in ({}, {"ciphers": "HIGH"}, {"min_version": "TLSv1.3"}):
        SecureContext(**settings)  # type: ignore[arg-type]
    assert [len(calls) for calls in (parsed, stored, opened)] == first


@pytest.mark.feature("F1")
@pytest.mark.parametrize("chosen", [None, AUTHORITY.ca], ids=["extra", "chosen"])
def test_no_context_changes_the_store_that_others_share(chosen: Any, extra: Path) -> None:
    """Not by a revocation list, partial chains, PKCS#12 or the chains that it presents."""
    defaults.ca = chosen
    revoked = AUTHORITY.revoked("localhost", intermediates=1)
    bad_server = SecureContext(**revoked.options)
    stranger = Authority()
    strange_server = SecureContext(**stranger.good("localhost", intermediates=1).options)
    strange_chains = [stranger.good("localhost", intermediates=1, key_type=kind) for kind in ("EC", "RSA")]
    changing: list[dict[str, Any]] = [
        {"crl": AUTHORITY.crl()},
        {"allow_partial_trust_chain": True},
        {"key": [one.key for one in strange_chains], "cert": [one.cert for one in strange_chains]},
    ]
    plain = SecureContext()
    for settings in (*changing, *changing):
        changed = SecureContext(**settings)
        for context in (plain, SecureContext()):
            assert shake_hands(context, bad_server).info.authorized
            assert shake_hands(context, strange_server).client_error is not None
        refused = shake_hands(changed, bad_server).client_error
        assert (refused is not None) == ("crl" in settings)


@pytest.mark.feature("F1")
def test_stores_that_are_shared_are_few() -> None:
    authorities = [Authority().ca for _ in range(6)]
    for ca, _ in itertools.product(authorities, range(2)):
        defaults.ca = ca
        assert verdict(SecureContext()) == UNKNOWN
    defaults.ca = AUTHORITY.ca
    assert verdict(SecureContext()) is None
