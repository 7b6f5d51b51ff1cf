"""tls.defaults: what a context takes where it is told nothing, for the whole process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import trio_tlsnode as tls
from trio_tlsnode import ConfigurationError, ConfigurationTypeError, SecureContext, defaults

pytestmark = pytest.mark.feature("F13")

NAMES = ("ciphers", "groups", "min_version", "max_version")


@pytest.fixture(autouse=True)
def reset_afterwards() -> Iterator[None]:
    yield
    defaults.reset()


def versions(**options: Any) -> tuple[str, str]:
    """Return what a new context has."""
    settings = SecureContext(ca=[], **options)._settings
    return settings.min_version, settings.max_version


def test_defaults_are_node_s() -> None:
    assert (defaults.min_version, defaults.max_version) == ("TLSv1.2", "TLSv1.3")
    assert defaults.groups == "auto"
    assert defaults.ciphers == defaults.core_ciphers
    assert tls.defaults is defaults


def test_core_ciphers_prefer_forward_secrecy_and_aead() -> None:
    names = [name for name in defaults.core_ciphers.split(":") if name[0] != "!"]
    assert names[:3] == ["TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"]
    assert all(name.startswith(("TLS_", "ECDHE-", "DHE-")) for name in names[:-1])
    assert {"!aNULL", "!eNULL", "!RC4", "!MD5", "!3DES"} <= set(defaults.core_ciphers.split(":"))


def test_new_context_takes_what_was_set() -> None:
    defaults.max_version = "TLSv1.2"
    assert versions() == ("TLSv1.2", "TLSv1.2")
    defaults.min_version, defaults.max_version = "TLSv1.3", "TLSv1.3"
    assert versions() == ("TLSv1.3", "TLSv1.3")
    defaults.ciphers = "TLS_AES_128_GCM_SHA256"
    assert SecureContext()._settings.ciphers == "TLS_AES_128_GCM_SHA256"
    defaults.groups = "X25519"
    assert SecureContext()._settings.groups == "X25519"


def test_context_that_is_told_is_not_touched_by_defaults() -> None:
    defaults.min_version, defaults.max_version = "TLSv1.3", "TLSv1.3"
    assert versions(min_version="TLSv1.2", max_version="TLSv1.2") == ("TLSv1.2", "TLSv1.2")
    defaults.ciphers = "NO-SUCH-CIPHER"
    assert SecureContext(ciphers="HIGH")._settings.ciphers == "HIGH"


@pytest.mark.parametrize("value", ["", None])
def test_empty_option_means_the_default_of_now(value: str | None) -> None:
    defaults.ciphers = "ECDHE+AESGCM"
    defaults.max_version = "TLSv1.2"
    context = SecureContext(ciphers=value, max_version=value, min_version=value, groups=value)
    assert context._settings.ciphers == "ECDHE+AESGCM"
    assert context._settings.max_version == "TLSv1.2"


def test_context_that_is_there_already_keeps_what_it_was_made_with() -> None:
    context = SecureContext(ca=[])
    defaults.max_version = "TLSv1.2"
    assert context._settings.max_version == "TLSv1.3"


def test_default_and_option_that_contradict_each_other_are_refused() -> None:
    defaults.min_version = "TLSv1.3"
    with pytest.raises(ConfigurationError, match="no version is left"):
        SecureContext(max_version="TLSv1.2")


def test_what_openssl_refuses_is_refused_when_a_context_is_made() -> None:
    defaults.ciphers = "NO-SUCH-CIPHER"
    with pytest.raises(ConfigurationError) as caught:
        SecureContext()
    assert caught.value.code == "ERR_SSL_NO_CIPHER_MATCH"
    assert caught.value.option == "ciphers"


@pytest.mark.parametrize("name", NAMES)
def test_reset_returns_to_the_beginning(name: str) -> None:
    before = {each: getattr(defaults, each) for each in NAMES}
    setattr(defaults, name, "TLSv1.2" if name == "max_version" else "TLSv1.3")
    assert {each: getattr(defaults, each) for each in NAMES} != before
    defaults.reset()
    assert {each: getattr(defaults, each) for each in NAMES} == before


@pytest.mark.parametrize("name", ["min_version", "max_version"])
@pytest.mark.parametrize("value", ["TLSv1.4", "tlsv1.2", "SSLv3", ""])
def test_unknown_version_is_refused_and_changes_nothing(name: str, value: str) -> None:
    before = getattr(defaults, name)
    with pytest.raises(ConfigurationError) as caught:
        setattr(defaults, name, value)
    assert caught.value.code == "ERR_TLS_INVALID_PROTOCOL_VERSION"
    assert caught.value.option == name
    assert getattr(defaults, name) == before


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [None, 1.2, b"HIGH", ["HIGH"]])
def test_wrong_type_is_refused_and_changes_nothing(name: str, value: object) -> None:
    before = getattr(defaults, name)
    with pytest.raises(ConfigurationTypeError) as caught:
        setattr(defaults, name, value)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ValueError)
    assert caught.value.option == name
    assert getattr(defaults, name) == before


@pytest.mark.parametrize("name", ["core_ciphers", "cipher", "new_default"])
def test_nothing_else_can_be_set(name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        setattr(defaults, name, "HIGH")


def test_repr_shows_the_values() -> None:
    defaults.groups = "X25519"
    assert "groups='X25519'" in repr(defaults)
    assert "min_version='TLSv1.2'" in repr(defaults)
