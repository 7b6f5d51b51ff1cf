"""Cipher suites: which names are taken, and what is negotiated with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from engine_pairs import Kind, client, identity, node_table, server, shake_hands
from hypothesis import given
from hypothesis import strategies as st

import trio_tlsnode as tls
from trio_tlsnode import ConfigurationError, ConfigurationTypeError, SecureContext, defaults

NODE = node_table("ciphers")
OPENSSL_4_ALERT = {"ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE": "ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE"}


@pytest.fixture
def reset_defaults() -> Iterator[None]:
    yield
    defaults.reset()


def refusal(ciphers: Any, **options: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        SecureContext(ciphers=ciphers, **options)
    assert caught.value.option == "ciphers"
    return caught.value


# As Node.js has it


@pytest.mark.feature("F7")
@pytest.mark.node("test-tls-set-ciphers.js")
@pytest.mark.parametrize(NODE["set_ciphers"]["columns"], NODE["set_ciphers"]["rows"])
def test_list_negotiates_what_it_does_in_node(
    client_ciphers: Any,
    client_max_version: str,
    server_ciphers: Any,
    server_max_version: str,
    negotiated: str | None,
    client_error: str | None,
    server_error: str | None,
) -> None:
    # A list that is none is refused before there is a handshake.
    if client_error and server_error is None:
        assert refusal(client_ciphers, max_version=client_max_version).code == client_error
        return
    if server_error and client_error is None:
        assert refusal(server_ciphers, max_version=server_max_version, **identity("RSA")).code == server_error
        return
    outcome = shake_hands(
        client(ciphers=client_ciphers, max_version=client_max_version),
        server("RSA", ciphers=server_ciphers, max_version=server_max_version),
    )
    # OpenSSL 4 names the alert differently; the familiar spelling is kept.
    assert outcome.codes == (OPENSSL_4_ALERT.get(client_error or ""), server_error)
    if negotiated:
        assert outcome.info.cipher.name == negotiated


@pytest.mark.feature("F7")
@pytest.mark.parametrize("ciphers", NODE["no_cipher_match"])
def test_unknown_name_is_refused_as_in_node(ciphers: str) -> None:
    if ciphers in tls.get_ciphers():
        # Here names are taken in any case, and Node.js with OpenSSL 3 takes "aes256-sha" for another one.
        SecureContext(ciphers=ciphers)
        return
    error = refusal(ciphers)
    assert error.code == "ERR_SSL_NO_CIPHER_MATCH"
    assert "no cipher match" in str(error)


@pytest.mark.feature("F7")
@pytest.mark.node("test-tls-honorcipherorder.js")
@pytest.mark.usefixtures("reset_defaults")
@pytest.mark.parametrize(NODE["honor_cipher_order"]["columns"], NODE["honor_cipher_order"]["rows"])
def test_order_that_counts_is_the_server_s_as_in_node(
    honor_cipher_order: bool | None, client_ciphers: str | None, default_ciphers: str | None, negotiated: str
) -> None:
    defaults.ciphers = default_ciphers or defaults.core_ciphers
    asking = client(ciphers=client_ciphers, max_version="TLSv1.2")
    order = {} if honor_cipher_order is None else {"honor_cipher_order": honor_cipher_order}
    answering = server(
        "RSA", ciphers=NODE["honor_cipher_order"]["server_ciphers"], max_version="TLSv1.2", **order
    )
    assert shake_hands(asking, answering).info.cipher.name == negotiated


@pytest.mark.feature("C5")
@pytest.mark.node("test-tls-getcipher.js")
@pytest.mark.parametrize(NODE["get_cipher"]["columns"], NODE["get_cipher"]["rows"])
def test_negotiated_suite_is_described_as_in_node(
    server_options: dict[str, str],
    client_options: dict[str, str],
    name: str,
    standard_name: str,
    version: str,
) -> None:
    cipher = shake_hands(client(**client_options), server("RSA", **server_options)).info.cipher
    assert (cipher.name, cipher.standard_name, cipher.version) == (name, standard_name, version)


# Names


@pytest.mark.feature("F12")
@pytest.mark.node("test-crypto.js")
def test_get_ciphers_is_as_node_s() -> None:
    names = tls.get_ciphers()
    assert set(NODE["get_ciphers"]["includes"]) <= set(names)
    assert names == sorted(set(names))
    assert all(name == name.lower() for name in names)
    names.clear()
    assert tls.get_ciphers()


@pytest.mark.feature("F12")
def test_every_name_of_get_ciphers_is_taken() -> None:
    for name in tls.get_ciphers():
        # Not alone, as some need a key or a password that no context has.
        SecureContext(ciphers=f"{name}:HIGH:@SECLEVEL=0")


@pytest.mark.feature("F12")
@pytest.mark.feature("F7")
@pytest.mark.parametrize(
    ("ciphers", "name"),
    [
        ("ecdhe-ecdsa-aes128-gcm-sha256", "ECDHE-ECDSA-AES128-GCM-SHA256"),
        ("eCDHE+aesgcm:-AES256", "ECDHE-ECDSA-AES128-GCM-SHA256"),
        ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"),
        ("tls_ecdhe_ecdsa_with_aes_128_ccm", "ECDHE-ECDSA-AES128-CCM"),
        ("default!aes256!chacha20", "ECDHE-ECDSA-AES128-GCM-SHA256"),
        ("-ALL:ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES128-SHA256"),
        ("ECDHE-ECDSA-AES256-SHA:+AES:ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA"),
    ],
)
def test_names_of_both_registries_are_taken_in_any_case(ciphers: str, name: str) -> None:
    outcome = shake_hands(client(max_version="TLSv1.2"), server(ciphers=ciphers))
    assert outcome.info.cipher.name == name


@pytest.mark.feature("F7")
@pytest.mark.parametrize(
    ("ciphers", "meant"),
    [
        ("AES128-SHA265", "AES128-SHA256"),
        ("HIGH:!aNUL", "aNULL"),
        ("HIGH:-MD55", "MD5"),
        ("ECDHE+AESGMC", "AESGCM"),
        ("tls_aes_128_gcm_sha265", "TLS_AES_128_GCM_SHA256"),
        ("HIGH:!TLS_AES_128_GCM_SHA265", "TLS_AES_128_GCM_SHA256"),
        ("TLS_RSA_WITH_AES_128_CBC_SHAH", "TLS_RSA_WITH_AES_128_CBC_SHA"),
    ],
)
def test_name_that_nobody_knows_is_refused_with_what_may_be_meant(ciphers: str, meant: str) -> None:
    # Node.js passes over it where anything else matches: a misspelt exclusion excludes nothing.
    error = refusal(ciphers)
    assert error.code == "ERR_SSL_NO_CIPHER_MATCH"
    assert f"did you mean {meant}" in str(error)


@pytest.mark.feature("F7")
@pytest.mark.parametrize(
    "removed",
    [
        "!EXPORT",
        "!RC4",
        "!DES",
        "!3DES",
        "DES-CBC3-SHA",
        "ECDHE-RSA-RC4-SHA",
        "!KRB5-DES-CBC3-SHA",
        "!aECDH",
        "EXP-RC4-MD5",
    ],
)
def test_name_of_what_openssl_once_had_is_passed_over(removed: str) -> None:
    assert shake_hands(client(ciphers=f"HIGH:{removed}"), server()).info.authorized


@pytest.mark.feature("F7")
@pytest.mark.parametrize("ciphers", ["RC4-SHA", "DES-CBC3-SHA:!EXPORT", "GOST2001-GOST89-GOST89"])
def test_list_of_nothing_but_what_openssl_once_had_matches_nothing(ciphers: str) -> None:
    assert refusal(ciphers).code == "ERR_SSL_NO_CIPHER_MATCH"


@pytest.mark.feature("F7")
@pytest.mark.parametrize(
    "ciphers",
    ["!aNULL", "!TLS_AES_128_GCM_SHA256", "@SECLEVEL=0", "AES128-SHA:!AES128-SHA", "TLS_AEGIS_256_SHA512"],
)
def test_list_that_leaves_nothing_matches_nothing(ciphers: str) -> None:
    assert refusal(ciphers).code == "ERR_SSL_NO_CIPHER_MATCH"


@pytest.mark.feature("F7")
@pytest.mark.parametrize(
    "ciphers",
    [
        ":",
        "HIGH:DEFAULT",  # OpenSSL would pass over the second one
        "HIGH:SUITEB128",
        "HIGH:@SECLEVEL=6",
        "HIGH:@SECLEVEL=10",
        "HIGH:@SECLEVEL=",
        "HIGH@STRENGHT",
    ],
)
def test_list_that_openssl_would_misread_is_refused(ciphers: str) -> None:
    assert refusal(ciphers).code == "ERR_INVALID_ARG_VALUE"


@pytest.mark.feature("F7")
@pytest.mark.parametrize("ciphers", ["HIGH:!", "+", "ECDHE+", "+ECDHE++AES", "(HIGH)", "HIGH:ÄES"])
def test_list_that_is_no_list_is_refused(ciphers: str) -> None:
    assert refusal(ciphers).code in {"ERR_SSL_NO_CIPHER_MATCH", "ERR_INVALID_ARG_VALUE"}


@pytest.mark.feature("F15")
@pytest.mark.parametrize("ciphers", ["AES\0", "AES128-SHA\0:NO-SUCH", "HIGH\n", "HIGH:\udc80", "Ⓗigh"])
def test_characters_that_no_name_has_do_not_reach_openssl(ciphers: str) -> None:
    assert refusal(ciphers).code == "ERR_INVALID_ARG_VALUE"
    assert "visible ASCII" in str(refusal(ciphers))


@pytest.mark.feature("F15")
@pytest.mark.parametrize("ciphers", [1, b"HIGH", ["HIGH"], True, {}])
def test_list_of_the_wrong_type_is_refused(ciphers: object) -> None:
    error = refusal(ciphers)
    assert type(error) is ConfigurationTypeError
    assert error.code == "ERR_INVALID_ARG_TYPE"


# A list like those that people write: names, known or not, with operators and separators.
elements = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "", "!", "-", "+", "@"]),
    st.one_of(
        st.sampled_from(
            [*tls.get_ciphers(), "HIGH", "ALL", "DEFAULT", "ECDHE+AESGCM", "SECLEVEL=0", "STRENGTH"]
        ),
        st.text("ABCDEHIGKMS+-_=@!. 0123456789", max_size=8),
    ),
    st.sampled_from(["", "", "@SECLEVEL=1", "!aNULL"]),
)


@pytest.mark.feature("F15")
@given(st.lists(elements, max_size=6), st.sampled_from([":", ",", " ", ";", "::"]))
def test_any_list_is_taken_or_refused_for_a_reason(names: list[str], separator: str) -> None:
    ciphers = separator.join(names)
    refused: ConfigurationError | None = None
    try:
        SecureContext(ca=[], ciphers=ciphers)
    except ConfigurationError as error:
        refused = error
    # At level 5 no default group is left.
    assert refused is None or refused.option == "ciphers" or refused.code == "ERR_SSL_NO_SUITABLE_KEY_SHARE"


# TLS 1.3's suites beside the others


@pytest.mark.feature("F7")
def test_without_a_suite_of_tls_1_3_there_is_no_tls_1_3() -> None:
    none = "HIGH:!TLS_AES_256_GCM_SHA384:!TLS_CHACHA20_POLY1305_SHA256:-tls_aes_128_gcm_sha256"
    assert shake_hands(client(ciphers=none), server()).info.protocol == "TLSv1.2"
    assert shake_hands(client(), server(ciphers=none)).info.protocol == "TLSv1.2"
    assert refusal(none, min_version="TLSv1.3").code == "ERR_SSL_NO_CIPHER_MATCH"


@pytest.mark.feature("F7")
@pytest.mark.parametrize(
    "ciphers", ["TLS_AES_128_GCM_SHA256:@SECLEVEL=0", "TLS_AES_128_GCM_SHA256@SECLEVEL=0"]
)
def test_security_level_stands_beside_suites_of_tls_1_3_alone(ciphers: str) -> None:
    outcome = shake_hands(client(ciphers="DEFAULT@SECLEVEL=0"), server("RSA-1024", ciphers=ciphers))
    assert (outcome.info.protocol, outcome.info.cipher.name) == ("TLSv1.3", "TLS_AES_128_GCM_SHA256")


@pytest.mark.feature("F7")
def test_order_of_tls_1_3_suites_is_that_of_the_list() -> None:
    first = "TLS_CHACHA20_POLY1305_SHA256"
    answering = server(ciphers=f"HIGH:{first}:TLS_AES_256_GCM_SHA384:{first}")
    assert shake_hands(client(), answering).info.cipher.name == first


# The security level


@pytest.mark.feature("F7")
@pytest.mark.feature("F3")
@pytest.mark.node("test-tls-reduced-SECLEVEL-in-cipher.js")
@pytest.mark.parametrize("kind", ["RSA-512", "RSA-1024"])
def test_key_too_small_for_the_security_level_is_refused_at_construction(kind: Kind) -> None:
    for ciphers in (None, "DEFAULT", "TLS_AES_128_GCM_SHA256"):
        with pytest.raises(ConfigurationError, match="key too small") as caught:
            server(kind, ciphers=ciphers)
        assert caught.value.code == "ERR_SSL_EE_KEY_TOO_SMALL"
    level_0 = {"ciphers": "DEFAULT:@SECLEVEL=0", "max_version": "TLSv1.2"}
    assert shake_hands(client(**level_0), server(kind, **level_0)).info.authorized


@pytest.mark.feature("F7")
def test_default_security_level_is_two() -> None:
    for level, allowed in ((1, True), (2, False)):
        for ciphers, taken in ((f"DEFAULT@SECLEVEL={level}", allowed), (None, False)):
            try:
                server("RSA-1024", ciphers=ciphers)
            except ConfigurationError:
                assert not taken
            else:
                assert taken
    server("RSA")
    with pytest.raises(ConfigurationError, match="key too small"):
        server("RSA", ciphers="DEFAULT@SECLEVEL=3")


@pytest.mark.feature("F7")
@pytest.mark.parametrize("options", [{}, identity()], ids=["client", "server"])
def test_list_of_which_the_security_level_leaves_nothing_is_refused(options: dict[str, Any]) -> None:
    # These suites have tags of 64 bits.  In Node.js each handshake fails.
    for ciphers, version in (("ECDHE-ECDSA-AES128-CCM8", "TLSv1.2"), ("TLS_AES_128_CCM_8_SHA256", "TLSv1.3")):
        error = refusal(ciphers, max_version=version, **options)
        assert error.code == "ERR_SSL_NO_CIPHERS_AVAILABLE"
        assert "security level" in str(error)


@pytest.mark.feature("F7")
@pytest.mark.feature("A11")
def test_list_for_pre_shared_keys_waits_for_a_connection_s_key() -> None:
    client(ciphers="PSK", max_version="TLSv1.2")
    client(ciphers="ECDHE-PSK-AES128-CBC-SHA256", max_version="TLSv1.2")


@pytest.mark.feature("F7")
def test_default_list_is_forward_secret_and_authenticated_first() -> None:
    aead = ("GCM", "POLY1305", "CCM")
    names = [name for name in defaults.core_ciphers.split(":") if name[0] != "!"]
    first, rest = names[:-1], names[-1]
    assert rest == "HIGH"
    assert all(
        name.startswith(("TLS_", "ECDHE-", "DHE-")) and any(mode in name for mode in aead) for name in first
    )
    for kind in ("EC", "RSA"):
        cipher = shake_hands(client(max_version="TLSv1.2"), server(kind)).info.cipher.name
        assert cipher.startswith("ECDHE-")
        assert "GCM" in cipher
