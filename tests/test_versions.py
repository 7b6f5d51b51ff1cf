"""Protocol versions: which are allowed, by their names, by OpenSSL's methods and by option bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from engine_pairs import client, identity, node_table, server, shake_hands

from trio_tlsnode import ConfigurationError, ConfigurationTypeError, SecureContext, defaults, options
from trio_tlsnode._openssl.library import lib

NODE = node_table("versions")
ROWS = [
    ((each["min_version"], each["max_version"]), *row) for each in NODE["by_defaults"] for row in each["rows"]
]
# Not of a handshake: Node.js lets a context be made of which no handshake can begin.
NONE_LEFT = "ERR_SSL_NO_PROTOCOLS_AVAILABLE"


@pytest.fixture(autouse=True)
def reset_defaults() -> Iterator[None]:
    yield
    defaults.reset()


def refusal(**settings: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        SecureContext(**settings)
    return caught.value


def made(make: Any, **settings: Any) -> tuple[SecureContext | None, str | None]:
    """Return a context, or the code for which it was refused."""
    try:
        return make(**settings), None
    except ConfigurationError as error:
        return None, error.code


@pytest.mark.feature("F8")
@pytest.mark.feature("F13")
@pytest.mark.node("test-tls-min-max-version.js")
@pytest.mark.parametrize(("default_versions", *NODE["columns"]), ROWS)
def test_versions_negotiate_what_they_do_in_node(
    default_versions: tuple[str, str],
    client_min_version: str | None,
    client_max_version: str | None,
    client_secure_protocol: str | None,
    server_min_version: str | None,
    server_max_version: str | None,
    server_secure_protocol: str | None,
    ciphers: str | None,
    negotiated: str | None,
    client_error: str | None,
    server_error: str | None,
) -> None:
    defaults.min_version, defaults.max_version = default_versions
    asking, asking_refused = made(
        client,
        min_version=client_min_version,
        max_version=client_max_version,
        secure_protocol=client_secure_protocol,
        ciphers=ciphers,
    )
    answering, answering_refused = made(
        server,
        min_version=server_min_version,
        max_version=server_max_version,
        secure_protocol=server_secure_protocol,
        ciphers=ciphers,
    )
    if asking is not None and answering is not None:
        outcome = shake_hands(asking, answering)
        assert outcome.codes == (client_error, server_error)
        assert (outcome.client.protocol if outcome.client else None) == negotiated
    elif NONE_LEFT in (client_error, server_error):
        # Ours is refused at once, so the other side never hears of it.
        assert (asking_refused == NONE_LEFT) == (client_error == NONE_LEFT)
        assert (answering_refused == NONE_LEFT) == (server_error == NONE_LEFT)
    else:
        assert (asking_refused, answering_refused) == (client_error, server_error)


# secure_protocol


@pytest.mark.feature("F8")
@pytest.mark.node("test-tls-no-sslv23.js")
@pytest.mark.parametrize("method", NODE["secure_protocol"]["accepted"])
def test_method_of_openssl_s_is_taken(method: str) -> None:
    SecureContext(ca=[], secure_protocol=method, ciphers="DEFAULT@SECLEVEL=0")


@pytest.mark.feature("F8")
@pytest.mark.node("test-tls-no-sslv23.js")
@pytest.mark.parametrize(("method", "message"), NODE["secure_protocol"]["refused"])
def test_method_that_is_none_is_refused_as_in_node(method: str, message: str) -> None:
    error = refusal(secure_protocol=method)
    assert error.code == "ERR_TLS_INVALID_PROTOCOL_METHOD"
    assert error.option == "secure_protocol"
    assert message in str(error)


@pytest.mark.feature("F8")
@pytest.mark.feature("C6")
@pytest.mark.node("test-tls-getprotocol.js")
@pytest.mark.parametrize(NODE["get_protocol"]["columns"], NODE["get_protocol"]["rows"])
def test_method_of_one_version_negotiates_it(
    secure_protocol: str, ciphers: str | None, protocol: str
) -> None:
    asking = client(secure_protocol=secure_protocol, ciphers=ciphers)
    answering = server("RSA", secure_protocol="TLS_method", ciphers="RSA@SECLEVEL=0")
    assert shake_hands(asking, answering).info.protocol == protocol


@pytest.mark.feature("F8")
def test_method_for_older_versions_than_the_default_minimum_is_refused_with_the_reason() -> None:
    defaults.min_version = "TLSv1.3"
    error = refusal(secure_protocol="SSLv23_method")
    assert (error.code, error.option) == (NONE_LEFT, "secure_protocol")
    assert "no version is left" in str(error)


@pytest.mark.feature("F15")
@pytest.mark.parametrize("option", ["min_version", "max_version", "secure_protocol"])
def test_text_that_would_be_cut_off_at_a_nul_is_refused(option: str) -> None:
    for value in ("TLSv1.2\0", "TLSv1_2_method\0x", "TLSv1.\N{SUPERSCRIPT TWO}"):
        assert refusal(**{option: value}).option == option


# secure_options


@pytest.mark.feature("F8")
@pytest.mark.parametrize(
    ("bits", "protocol"),
    [
        (0, "TLSv1.3"),
        (options.SSL_OP_NO_TLSv1_3, "TLSv1.2"),
        (options.SSL_OP_NO_TLSv1_2, "TLSv1.3"),
        (options.SSL_OP_NO_TLSv1 | options.SSL_OP_NO_TLSv1_1 | options.SSL_OP_NO_TICKET, "TLSv1.3"),
        (options.SSL_OP_ALL | options.SSL_OP_NO_TLSv1_3, "TLSv1.2"),
    ],
)
def test_option_bits_switch_versions_off(bits: int, protocol: str) -> None:
    assert shake_hands(client(secure_options=bits), server()).info.protocol == protocol
    assert shake_hands(client(), server(secure_options=bits)).info.protocol == protocol


@pytest.mark.feature("F8")
def test_option_bit_changes_whose_order_of_suites_counts() -> None:
    asking = client(ciphers="TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384")
    for bits, name in (
        (0, "TLS_AES_256_GCM_SHA384"),
        (options.SSL_OP_PRIORITIZE_CHACHA, "TLS_CHACHA20_POLY1305_SHA256"),
    ):
        assert shake_hands(asking, server(secure_options=bits)).info.cipher.name == name


@pytest.mark.feature("F8")
@pytest.mark.parametrize("settings", [{}, identity()], ids=["client", "server"])
def test_option_bits_that_leave_no_version_are_refused(settings: dict[str, Any]) -> None:
    both = options.SSL_OP_NO_TLSv1_2 | options.SSL_OP_NO_TLSv1_3
    error = refusal(secure_options=both, **settings)
    assert (error.code, error.option) == (NONE_LEFT, "secure_options")
    assert (
        refusal(secure_options=options.SSL_OP_NO_TLSv1_3, min_version="TLSv1.3", **settings).code == NONE_LEFT
    )


@pytest.mark.feature("F8")
@pytest.mark.feature("F15")
@pytest.mark.parametrize("value", ["1", 1.5, True, [1]])
def test_option_bits_of_the_wrong_type_are_refused(value: object) -> None:
    error = refusal(secure_options=value)
    assert type(error) is ConfigurationTypeError
    assert error.option == "secure_options"


@pytest.mark.feature("F8")
@pytest.mark.feature("F15")
@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_option_bits_out_of_range_are_refused(value: int) -> None:
    error = refusal(secure_options=value)
    assert (error.code, error.option) == ("ERR_OUT_OF_RANGE", "secure_options")


@pytest.mark.feature("F8")
def test_option_bits_beyond_all_names_are_openssl_s_business() -> None:
    SecureContext(secure_options=1 << 63)


@pytest.mark.feature("F8")
def test_option_constants_are_openssl_s() -> None:
    ours = {name: value for name, value in vars(options).items() if name.startswith("SSL_OP_")}
    theirs = {name: getattr(lib, name) for name in dir(lib) if name.startswith("SSL_OP_")}
    common = ours.keys() & theirs.keys()
    assert len(common) > 10
    assert {name: ours[name] for name in common} == {name: theirs[name] for name in common}
    # What OpenSSL has given up is zero there, and missing here.
    assert {name for name in theirs.keys() - ours.keys() if theirs[name]} == set()


@pytest.mark.feature("F8")
def test_option_constants_are_single_bits_but_for_the_sums() -> None:
    ours = {name: value for name, value in vars(options).items() if name.startswith("SSL_OP_")}
    sums = {"SSL_OP_ALL", "SSL_OP_NO_SSLv2"}
    assert all(value.bit_count() == 1 for name, value in ours.items() if name not in sums)
    assert len(set(ours.values())) == len(ours)
