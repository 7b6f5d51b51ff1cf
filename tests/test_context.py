"""SecureContext: frozen, validated at once; its suites and versions are shown in handshakes."""

from __future__ import annotations

import weakref
from typing import Any

import pytest

from trio_tlsnode import (
    Alert,
    ConfigurationError,
    ConfigurationTypeError,
    ConnectionFailed,
    ConnectionInfo,
    Engine,
    PeerAlert,
    ProtocolError,
    SecureContext,
    Want,
    options,
)
from trio_tlsnode.testing import default_authority

CA = default_authority().ca
IDENTITY: dict[str, Any] = dict(default_authority().good("localhost").options)


def shake_hands(
    client: SecureContext, server: SecureContext
) -> list[ConnectionInfo | ConnectionFailed | Want]:
    """Do a handshake; return how it ended on the client and on the server."""
    engines = [Engine(client), Engine(server, server_side=True)]
    ends: list[ConnectionInfo | ConnectionFailed | Want] = [Want.READ, Want.READ]
    for _ in range(3):
        for side in (0, 1):
            try:
                ends[side] = engines[side].do_handshake()
            except ConnectionFailed as error:
                ends[side] = error
            if output := engines[side].drain():
                engines[1 - side].feed(output)
    return ends


def negotiate(client: SecureContext, server: SecureContext) -> ConnectionInfo:
    """Do a handshake; return what the client knows of it."""
    info, servers_info = shake_hands(client, server)
    assert isinstance(info, ConnectionInfo)
    assert isinstance(servers_info, ConnectionInfo)
    assert info.cipher == servers_info.cipher
    return info


def assert_refused(client: SecureContext, server: SecureContext, code: str, alert: Alert) -> None:
    """Do a handshake in which the server finds that there is nothing in common, and says so."""
    told, found = shake_hands(client, server)
    assert type(found) is ProtocolError
    assert found.code == code
    assert isinstance(told, PeerAlert)
    assert told.alert == alert


def client(**settings: Any) -> SecureContext:
    return SecureContext(ca=CA, **settings)


def server(**settings: Any) -> SecureContext:
    return SecureContext(**IDENTITY, **settings)


def cipher_of(client: SecureContext, server: SecureContext) -> str:
    return negotiate(client, server).cipher.name


def only(version: str) -> dict[str, str]:
    return {"min_version": version, "max_version": version}


# A value


@pytest.mark.feature("F1")
@pytest.mark.parametrize("name", ["ciphers", "min_version", "_settings", "has_identity", "new"])
def test_context_is_frozen(name: str) -> None:
    context = client()
    with pytest.raises(AttributeError, match="frozen"):
        setattr(context, name, "TLSv1.2")


@pytest.mark.feature("F1")
def test_options_are_given_by_name() -> None:
    with pytest.raises(TypeError):
        SecureContext(IDENTITY["key"], IDENTITY["cert"])  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no_such_option"):
        SecureContext(no_such_option=1)  # type: ignore[call-arg]


@pytest.mark.feature("F1")
@pytest.mark.feature("F15")
@pytest.mark.parametrize(
    "option",
    ["ciphers", "min_version", "max_version", "groups", "allow_partial_trust_chain", "secure_protocol"],
)
@pytest.mark.parametrize("value", [1.2, b"TLSv1.2", ["TLSv1.2"]])
def test_option_of_the_wrong_type_is_refused_at_once(option: str, value: object) -> None:
    with pytest.raises(ConfigurationTypeError) as caught:
        SecureContext(**{option: value})  # type: ignore[arg-type]
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ValueError)
    assert caught.value.code == "ERR_INVALID_ARG_TYPE"
    assert caught.value.option == option


@pytest.mark.feature("F1")
def test_one_context_serves_any_number_of_clients_and_servers() -> None:
    both = SecureContext(ca=CA, **IDENTITY)
    infos = {negotiate(both, both) for _ in range(3)}
    assert {info.protocol for info in infos} == {"TLSv1.3"}
    assert all(info.authorized for info in infos)


@pytest.mark.feature("F1")
def test_list_that_was_given_may_change_afterwards() -> None:
    trusted = [CA]
    context = SecureContext(ca=trusted)
    trusted.clear()
    assert negotiate(context, server()).authorized


@pytest.mark.feature("F1")
def test_context_is_freed_without_the_garbage_collector() -> None:
    context = server()
    reference = weakref.ref(context)
    del context
    assert reference() is None


@pytest.mark.feature("F1")
def test_repr_tells_versions_and_no_secrets() -> None:
    text = repr(SecureContext(ca=CA, **IDENTITY))
    assert "TLSv1.2 to TLSv1.3" in text
    assert "KEY" not in text
    assert "\n" not in text


# Cipher suites


@pytest.mark.feature("F7")
@pytest.mark.parametrize("separator", [":", ",", " ", " : "])
def test_names_of_both_kinds_are_mixed(separator: str) -> None:
    ciphers = separator.join(
        ("ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305")
    )
    mixed = server(ciphers=ciphers)
    assert cipher_of(client(), mixed) == "TLS_CHACHA20_POLY1305_SHA256"
    assert cipher_of(client(max_version="TLSv1.2"), mixed) == "ECDHE-ECDSA-AES128-GCM-SHA256"


@pytest.mark.feature("F7")
def test_without_a_name_of_tls_1_3_its_default_suites_stay() -> None:
    older = server(ciphers="ECDHE-ECDSA-AES128-GCM-SHA256")
    assert cipher_of(client(), older) == "TLS_AES_256_GCM_SHA384"
    assert cipher_of(client(max_version="TLSv1.2"), older) == "ECDHE-ECDSA-AES128-GCM-SHA256"


@pytest.mark.feature("F7")
def test_with_names_of_tls_1_3_alone_there_are_no_older_versions() -> None:
    newest = server(ciphers="TLS_AES_128_GCM_SHA256")
    assert cipher_of(client(), newest) == "TLS_AES_128_GCM_SHA256"
    older = client(max_version="TLSv1.2")
    assert_refused(older, newest, "ERR_SSL_UNSUPPORTED_PROTOCOL", Alert.protocol_version)


@pytest.mark.feature("F7")
def test_suites_of_tls_1_3_alone_do_not_go_with_an_older_max_version() -> None:
    with pytest.raises(ConfigurationError) as caught:
        client(ciphers="TLS_AES_128_GCM_SHA256", max_version="TLSv1.2")
    assert caught.value.code == "ERR_SSL_NO_CIPHER_MATCH"
    assert caught.value.option == "ciphers"


@pytest.mark.feature("F7")
@pytest.mark.parametrize("ciphers", ["", None])
def test_empty_list_means_the_default(ciphers: str | None) -> None:
    assert cipher_of(client(ciphers=ciphers), server()) == "TLS_AES_256_GCM_SHA384"
    assert client(ciphers=ciphers)._settings == client()._settings


@pytest.mark.feature("F7")
@pytest.mark.parametrize("ciphers", ["NO-SUCH", "TLS_NO_SUCH", "TLS_NO_SUCH:HIGH", "AES128-SHA:!AES128-SHA"])
@pytest.mark.parametrize("settings", [{}, IDENTITY])
def test_list_that_matches_nothing_is_refused_at_once(ciphers: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SecureContext(ciphers=ciphers, **settings)
    assert caught.value.code == "ERR_SSL_NO_CIPHER_MATCH"
    assert caught.value.option == "ciphers"
    assert ciphers in str(caught.value)


@pytest.mark.feature("F7")
@pytest.mark.parametrize("ciphers", [" ", ":", ", ,"])
def test_list_without_a_name_is_refused(ciphers: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        client(ciphers=ciphers)
    assert caught.value.option == "ciphers"


@pytest.mark.feature("F7")
@pytest.mark.feature("F12")
def test_names_are_taken_in_any_case() -> None:
    lower = server(ciphers="tls_aes_128_gcm_sha256:ecdhe-ecdsa-aes128-gcm-sha256")
    assert cipher_of(client(), lower) == "TLS_AES_128_GCM_SHA256"
    assert cipher_of(client(max_version="TLSv1.2"), lower) == "ECDHE-ECDSA-AES128-GCM-SHA256"


@pytest.mark.feature("F7")
def test_suite_of_tls_1_3_can_be_taken_out() -> None:
    without = server(ciphers="HIGH:!TLS_AES_256_GCM_SHA384")
    assert cipher_of(client(), without) == "TLS_CHACHA20_POLY1305_SHA256"


@pytest.mark.feature("F7")
@pytest.mark.parametrize(
    ("version", "first", "second"),
    [
        ("TLSv1.3", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"),
        ("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"),
    ],
)
def test_server_s_order_counts_unless_it_does_not_want_that(version: str, first: str, second: str) -> None:
    one_way, other_way = f"{first}:{second}", f"{second}:{first}"
    offering = client(ciphers=other_way, **only(version))
    assert cipher_of(offering, server(ciphers=one_way, **only(version))) == first
    assert cipher_of(offering, server(ciphers=one_way, **only(version), honor_cipher_order=False)) == second


@pytest.mark.feature("F7")
@pytest.mark.parametrize("name", ["TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"])
def test_ccm_suites_are_off_unless_they_are_named(name: str) -> None:
    # One of them has a tag so short that the default security level does not allow it.
    only_ccm = {"ciphers": f"{name}:DEFAULT@SECLEVEL=0", "min_version": "TLSv1.3"}
    assert_refused(client(**only_ccm), server(), "ERR_SSL_NO_SHARED_CIPHER", Alert.handshake_failure)
    assert cipher_of(client(**only_ccm), server(**only_ccm)) == name


@pytest.mark.feature("F7")
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_no_suite_in_common_is_told_on_both_sides(version: str) -> None:
    ours, theirs = {
        "TLSv1.2": ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"),
        "TLSv1.3": ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"),
    }[version]
    assert_refused(
        client(ciphers=ours, **only(version)),
        server(ciphers=theirs, **only(version)),
        "ERR_SSL_NO_SHARED_CIPHER",
        Alert.handshake_failure,
    )


@pytest.mark.feature("F7")
@pytest.mark.parametrize("weak", ["RC4-SHA", "DES-CBC3-SHA", "AECDH-AES128-SHA", "NULL-SHA256"])
def test_weak_suites_are_not_in_the_default_list(weak: str) -> None:
    try:
        offering = client(ciphers=f"{weak}@SECLEVEL=0", **only("TLSv1.2"))
    except ConfigurationError:
        return  # this OpenSSL does not even have it
    assert_refused(offering, server(**only("TLSv1.2")), "ERR_SSL_NO_SHARED_CIPHER", Alert.handshake_failure)


@pytest.mark.feature("F7")
@pytest.mark.parametrize(
    "ciphers", ["DEFAULT@SECLEVEL=0", "DEFAULT:@SECLEVEL=1", "TLS_AES_128_GCM_SHA256:DEFAULT:@SECLEVEL=0"]
)
def test_security_level_is_set_in_the_list(ciphers: str) -> None:
    weak = default_authority().weak_key("localhost").options
    with pytest.raises(ConfigurationError) as caught:
        SecureContext(**weak)
    assert caught.value.code == "ERR_SSL_EE_KEY_TOO_SMALL"
    assert caught.value.option == "cert"
    context = SecureContext(**weak, ciphers=ciphers)
    assert negotiate(client(ciphers=ciphers), context).authorized
    # One context's level is not another's.
    with pytest.raises(ConfigurationError):
        SecureContext(**weak)


# Protocol versions


@pytest.mark.feature("F8")
@pytest.mark.parametrize(
    ("ours", "theirs", "version"),
    [
        ({}, {}, "TLSv1.3"),
        ({"max_version": "TLSv1.2"}, {}, "TLSv1.2"),
        ({}, {"max_version": "TLSv1.2"}, "TLSv1.2"),
        ({"min_version": "TLSv1.3"}, {}, "TLSv1.3"),
        ({"min_version": None, "max_version": None}, {"min_version": "", "max_version": ""}, "TLSv1.3"),
        ({"min_version": "TLSv1", "max_version": "TLSv1.2"}, {}, "TLSv1.2"),
    ],
)
def test_newest_version_in_common_is_used(ours: dict[str, Any], theirs: dict[str, Any], version: str) -> None:
    assert negotiate(client(**ours), server(**theirs)).protocol == version
    assert negotiate(client(**theirs), server(**ours)).protocol == version


@pytest.mark.feature("F8")
@pytest.mark.parametrize("newer", ["client", "server"])
def test_no_version_in_common_is_told_on_both_sides(newer: str) -> None:
    versions = {"min_version": "TLSv1.3"}, {"max_version": "TLSv1.2"}
    ours, theirs = versions if newer == "client" else versions[::-1]
    assert_refused(client(**ours), server(**theirs), "ERR_SSL_UNSUPPORTED_PROTOCOL", Alert.protocol_version)


@pytest.mark.feature("F8")
@pytest.mark.node("test-tls-basic-validations.js")
@pytest.mark.parametrize("option", ["min_version", "max_version"])
@pytest.mark.parametrize("value", ["TLSv1.4", "tlsv1.2", "1.2", "TLSv1.2 ", "SSLv3", "DTLSv1.2"])
def test_unknown_version_is_refused(option: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        client(**{option: value})
    assert caught.value.code == "ERR_TLS_INVALID_PROTOCOL_VERSION"
    assert caught.value.option == option
    assert repr(value) in str(caught.value)


@pytest.mark.feature("F8")
@pytest.mark.parametrize(
    "settings", [{"min_version": "TLSv1.3", "max_version": "TLSv1.2"}, {"max_version": "TLSv1.1"}]
)
def test_versions_that_leave_none_are_refused(settings: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="no version is left"):
        client(**settings)


@pytest.mark.feature("F8")
@pytest.mark.parametrize("version", ["TLSv1", "TLSv1.1"])
@pytest.mark.parametrize("settings", [{}, IDENTITY])
def test_version_that_the_security_level_forbids_is_refused_with_the_remedy(
    version: str, settings: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError, match="SECLEVEL=0") as caught:
        SecureContext(**settings, min_version="TLSv1", max_version=version)
    assert caught.value.code == "ERR_SSL_NO_PROTOCOLS_AVAILABLE"
    assert caught.value.option == "max_version"


@pytest.mark.feature("F8")
@pytest.mark.parametrize("version", ["TLSv1", "TLSv1.1"])
def test_old_versions_are_to_be_had_at_level_zero(version: str) -> None:
    settings = {"ciphers": "DEFAULT@SECLEVEL=0", **only(version)}
    info = negotiate(client(**settings), server(**settings))
    assert info.protocol == version
    assert_refused(client(**settings), server(), "ERR_SSL_UNSUPPORTED_PROTOCOL", Alert.protocol_version)


@pytest.mark.feature("F8")
@pytest.mark.parametrize(
    ("method", "version"),
    [
        ("TLS_method", "TLSv1.3"),
        ("TLSv1_2_method", "TLSv1.2"),
        ("TLSv1_2_client_method", "TLSv1.2"),
        ("SSLv23_method", "TLSv1.2"),
    ],
)
def test_secure_protocol_chooses_versions_as_in_node(method: str, version: str) -> None:
    assert negotiate(client(secure_protocol=method), server()).protocol == version
    assert negotiate(client(), server(secure_protocol=method)).protocol == version


@pytest.mark.feature("F8")
@pytest.mark.parametrize("method", ["SSLv2_method", "SSLv3_method", "TLSv1_4_method", "TLSv1_2", "blargh"])
def test_unknown_secure_protocol_is_refused(method: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        client(secure_protocol=method)
    assert caught.value.code == "ERR_TLS_INVALID_PROTOCOL_METHOD"
    assert caught.value.option == "secure_protocol"


@pytest.mark.feature("F8")
@pytest.mark.parametrize("option", ["min_version", "max_version"])
def test_secure_protocol_does_not_go_with_versions(option: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        client(secure_protocol="TLSv1_2_method", **{option: "TLSv1.2"})
    assert caught.value.code == "ERR_TLS_PROTOCOL_VERSION_CONFLICT"


@pytest.mark.feature("F8")
def test_secure_options_are_added_to_those_always_set() -> None:
    without = client(secure_options=options.SSL_OP_NO_TLSv1_3)
    assert negotiate(without, server()).protocol == "TLSv1.2"
    assert negotiate(client(), server(secure_options=options.SSL_OP_NO_TLSv1_3)).protocol == "TLSv1.2"
