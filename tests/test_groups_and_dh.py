"""Key exchange: the groups that are named, finite-field groups in TLS 1.2, and signature algorithms."""

from __future__ import annotations

from typing import Any

import pytest
from engine_pairs import Outcome, client, identity, node_table, server, shake_hands
from faults import meet
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import memory_stream_pair

import trio_tlsnode as tls
from trio_tlsnode import (
    Alert,
    ConfigurationError,
    ConfigurationTypeError,
    Engine,
    EphemeralKey,
    PeerAlert,
    PreSharedKey,
    ProtocolError,
    SecureContext,
    TLSStream,
)
from trio_tlsnode._openssl.ssl_ctx import VERIFY_NONE
from trio_tlsnode.dh import FFDHE_BITS, DHGroup
from trio_tlsnode.options import SSL_OP_ALLOW_NO_DHE_KEX
from trio_tlsnode.server_flight import ephemeral_dh_bits
from trio_tlsnode.testing import tls_pair

NODE = node_table("ciphers")
OPENSSL_4_ALERT = {"ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE": "ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE"}
# Curves of these names are for TLS 1.2 alone (RFC 8734).
TLS12_ALONE = {"brainpoolP256r1", "brainpoolP384r1", "brainpoolP512r1"}
# As a client without groups of RFC 7919 has it, OpenSSL 3 among them: then the server's own group counts.
WITHOUT_FFDHE = {"groups": "X25519:P-256", "max_version": "TLSv1.2"}
# The second Oakley group (RFC 2409, section 6.2), 1024 bits.
OAKLEY_2 = int(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD"
    "EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED"
    "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE65381FFFFFFFFFFFFFFFF",
    16,
)


def dhparam(bits: int) -> bytes:
    """Return a group of so many bits as ``openssl dhparam`` prints it."""
    if bits in FFDHE_BITS:
        return DHGroup.ffdhe(bits).pem()
    return DHGroup({512: (1 << 512) - 569, 1024: OAKLEY_2}[bits], 2).pem()


def refusal(**settings: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        SecureContext(**settings)
    return caught.value


# Groups


@pytest.mark.feature("F12")
def test_get_groups_is_sorted_and_a_fresh_list() -> None:
    names = tls.get_groups()
    assert {"x25519", "secp256r1", "secp384r1", "ffdhe2048"} <= set(names)
    assert names == sorted(set(names), key=str.lower)
    names.clear()
    assert tls.get_groups()


@pytest.mark.feature("F12")
@pytest.mark.feature("F9")
@pytest.mark.parametrize("group", tls.get_groups())
@pytest.mark.parametrize("spelt", [str.lower, str.upper])
def test_every_group_of_get_groups_can_be_negotiated(group: str, spelt: Any) -> None:
    version = "TLSv1.2" if group in TLS12_ALONE else "TLSv1.3"
    settings: Any = {"groups": spelt(group), "max_version": version, "min_version": version}
    assert shake_hands(client(**settings), server("RSA", **settings)).info.protocol == version


@pytest.mark.feature("F9")
@pytest.mark.node("test-tls-ecdh-multiple.js")
@pytest.mark.parametrize(
    "curves", [*NODE["ecdh_curve"]["accepted"], "P-384:P-256", "?no-such-curve:X25519", "DEFAULT"]
)
def test_ecdh_curve_takes_what_it_does_in_node(curves: str) -> None:
    if "secp256k1" in curves and "secp256k1" not in tls.get_groups():
        # OpenSSL 4 has given up the curves that RFC 8422 deprecates; Node.js has OpenSSL 3.
        error = refusal(ecdh_curve=curves)
        assert "secp256k1" in str(error)
        curves = curves.replace("secp256k1:", "")
    for settings in ({"ecdh_curve": curves}, {"groups": curves}):
        assert shake_hands(client(**settings), server("EC", **settings)).info.authorized


@pytest.mark.feature("F9")
@pytest.mark.node("test-tls-ecdh-multiple.js")
@pytest.mark.parametrize("curves", NODE["ecdh_curve"]["refused"])
@pytest.mark.parametrize("option", ["ecdh_curve", "groups"])
def test_curve_that_openssl_lacks_is_refused_as_in_node(curves: str, option: str) -> None:
    error = refusal(**{option: curves})
    assert (error.code, error.option) == ("ERR_CRYPTO_OPERATION_FAILED", option)
    assert NODE["ecdh_curve"]["error"] in str(error)
    assert repr(curves) in str(error)


@pytest.mark.feature("F9")
@pytest.mark.parametrize(
    ("groups", "meant"),
    [
        ("x25591", "x25519"),
        ("X25519:P-265", "P-256"),
        ("X25519MLKEM769:X25519", "X25519MLKEM768"),
        ("DEFAULT:prime256v2", "prime256v1"),
        ("*X25519/P-257", "P-256"),
    ],
)
def test_unknown_group_is_refused_with_what_may_be_meant(groups: str, meant: str) -> None:
    assert f"did you mean {meant}" in str(refusal(groups=groups))


@pytest.mark.feature("F9")
@pytest.mark.parametrize(
    "groups", ["X25519:", ":", "X25519::P-256", " ", "X25519 P-256", "*", "X25519:DEFAULTS"]
)
def test_list_that_is_no_list_is_refused(groups: str) -> None:
    assert refusal(groups=groups).option == "groups"


@pytest.mark.feature("F9")
@pytest.mark.parametrize("groups", [None, "", "auto", "AUTO"])
def test_auto_is_openssl_s_own_choice(groups: str | None) -> None:
    assert client(groups=groups)._settings == client()._settings


@pytest.mark.feature("F9")
@pytest.mark.parametrize("other", ["X25519", "auto", ""])
def test_both_names_of_the_option_are_refused(other: str) -> None:
    assert refusal(groups="X25519", ecdh_curve=other).option == "ecdh_curve"


@pytest.mark.feature("F9")
@pytest.mark.feature("F15")
@pytest.mark.parametrize("option", ["groups", "ecdh_curve", "require_groups", "sigalgs"])
@pytest.mark.parametrize("value", [1, b"X25519", ["X25519"], False])
def test_list_of_the_wrong_type_is_refused(option: str, value: object) -> None:
    error = refusal(**{option: value})
    assert type(error) is ConfigurationTypeError
    assert error.option == option


@pytest.mark.feature("F15")
@pytest.mark.parametrize("option", ["groups", "ecdh_curve", "require_groups", "sigalgs"])
@pytest.mark.parametrize("value", ["X25519\0", "RSA+SHA256\0:x", "X2551\N{SUPERSCRIPT NINE}", "P-256\n"])
def test_characters_that_no_name_has_do_not_reach_openssl(option: str, value: str) -> None:
    error = refusal(**{option: value})
    assert error.option == option
    assert "visible ASCII" in str(error)


@pytest.mark.feature("F15")
@given(
    st.text("xX25519P-:/?*+.= ABCdefghMLKSR_", max_size=20),
    st.sampled_from(["groups", "require_groups", "sigalgs"]),
)
def test_any_list_is_taken_or_refused_for_a_reason(value: str, option: str) -> None:
    refused = None
    try:
        SecureContext(ca=[], **{option: value})  # type: ignore[arg-type]
    except ConfigurationError as error:
        refused = error
    assert refused is None or refused.option == option


@pytest.mark.feature("F9")
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_no_group_in_common_is_told_on_both_sides(version: str) -> None:
    settings = {"min_version": version, "max_version": version}
    outcome = shake_hands(
        client(groups="P-384", **settings), server("RSA", groups="X25519", ciphers="ECDHE+AESGCM", **settings)
    )
    assert type(outcome.server_error) is ProtocolError
    assert isinstance(outcome.client_error, PeerAlert)
    assert outcome.client_error.alert == Alert.handshake_failure


@pytest.mark.feature("F9")
def test_group_of_tls_1_2_alone_is_refused_for_a_client_of_tls_1_3() -> None:
    error = refusal(groups="brainpoolP256r1")
    assert (error.code, error.option) == ("ERR_SSL_NO_SUITABLE_GROUPS", "groups")
    # A server may be for those clients alone that it suits.
    older = {"groups": "brainpoolP256r1", "max_version": "TLSv1.2"}
    assert shake_hands(client(**older), server("RSA", groups="brainpoolP256r1")).info.protocol == "TLSv1.2"


# Groups that are required

POST_QUANTUM = "X25519MLKEM768"
# OpenSSL's, since 3.3.
SSL_OP_PREFER_NO_DHE_KEX = 1 << 35
ONLY_TLS12: dict[str, Any] = {"min_version": "TLSv1.2", "max_version": "TLSv1.2"}


@pytest.mark.feature("G9")
@pytest.mark.parametrize(
    ("on_client", "on_server"),
    [
        ({"require_groups": POST_QUANTUM}, {}),
        ({}, {"require_groups": POST_QUANTUM}),
        ({"require_groups": POST_QUANTUM}, {"require_groups": POST_QUANTUM}),
        ({"require_groups": f"P-384:{POST_QUANTUM}"}, {"require_groups": f"{POST_QUANTUM}:X25519"}),
        ({"require_groups": POST_QUANTUM}, {"groups": f"X25519:{POST_QUANTUM}"}),
        # A share for X25519 alone comes first: the client is asked for another.
        ({"groups": f"X25519:{POST_QUANTUM}"}, {"require_groups": POST_QUANTUM}),
    ],
)
def test_a_group_that_is_required_is_negotiated(on_client: Any, on_server: Any) -> None:
    outcome = shake_hands(client(**on_client), server("RSA", **on_server))
    for info in (outcome.client, outcome.server):
        assert info is not None
        assert info.ephemeral_key == EphemeralKey(type="KEM", name=POST_QUANTUM, size=768)


def assert_refused_by_server(outcome: Outcome, code: str, alert: Alert) -> None:
    """Both sides have heard of it, neither is done, and the client by an alert."""
    assert (outcome.client, outcome.server) == (None, None)
    assert type(outcome.server_error) is ProtocolError
    assert outcome.server_error.code == code
    assert isinstance(outcome.client_error, PeerAlert)
    assert outcome.client_error.alert is alert


@pytest.mark.feature("G9")
@pytest.mark.parametrize(
    ("on_client", "on_server"),
    [
        ({"require_groups": POST_QUANTUM}, {"groups": "X25519:P-256"}),
        ({"groups": "X25519:P-256"}, {"require_groups": POST_QUANTUM}),
        ({"require_groups": "X448"}, {"require_groups": POST_QUANTUM}),
    ],
    ids=["on the client", "on the server", "on both"],
)
def test_a_peer_without_any_group_that_is_required_is_refused(on_client: Any, on_server: Any) -> None:
    outcome = shake_hands(client(**on_client), server("RSA", **on_server))
    assert_refused_by_server(outcome, "ERR_SSL_NO_SUITABLE_KEY_SHARE", Alert.handshake_failure)


@pytest.mark.feature("G9")
@pytest.mark.parametrize("dhparam", [None, "auto"])
@pytest.mark.parametrize("older", ["client", "server"])
def test_a_peer_of_tls_1_2_is_refused_where_only_tls_1_3_has_the_group(
    older: str, dhparam: str | None
) -> None:
    demand = {"require_groups": POST_QUANTUM}
    outcome = shake_hands(
        client(**(ONLY_TLS12 if older == "client" else demand)),
        server("RSA", dhparam=dhparam, **(demand if older == "client" else ONLY_TLS12)),
    )
    assert_refused_by_server(outcome, "ERR_SSL_UNSUPPORTED_PROTOCOL", Alert.protocol_version)


@pytest.mark.feature("G9")
@pytest.mark.parametrize("by", ["client", "server"])
def test_in_tls_1_2_a_curve_that_is_required_is_negotiated(by: str) -> None:
    demand = {"require_groups": "P-384:P-256"}
    outcome = shake_hands(
        client(**ONLY_TLS12, **(demand if by == "client" else {"groups": "X25519:P-256"})),
        server("RSA", **(demand if by == "server" else {"groups": "X25519:P-256"})),
    )
    assert outcome.info.protocol == "TLSv1.2"
    assert outcome.info.ephemeral_key == EphemeralKey(type="ECDH", name="prime256v1", size=256)


# What the other side can do, in TLS 1.2.
WITHOUT_CURVES = {
    "ECDHE by another curve": {"ciphers": "ECDHE+AESGCM", "groups": "P-256"},
    "DHE": {"ciphers": "DHE+AESGCM"},
    "RSA": {"ciphers": "AES128-GCM-SHA256"},
    "all three": {"ciphers": "ECDHE+AESGCM:DHE+AESGCM:AES128-GCM-SHA256", "groups": "P-256"},
}


@pytest.mark.feature("G9")
@pytest.mark.parametrize("groups", ["X25519", "X25519:ffdhe2048"])
@pytest.mark.parametrize("other", WITHOUT_CURVES.values(), ids=WITHOUT_CURVES)
@pytest.mark.parametrize("by", ["client", "server"])
def test_in_tls_1_2_no_other_key_exchange_will_do(by: str, other: Any, groups: str) -> None:
    # Left to themselves, both sides would exchange keys by RSA.
    demand = {"require_groups": groups, "ciphers": "DEFAULT:AES128-GCM-SHA256"}
    outcome = shake_hands(
        client(**ONLY_TLS12, **(demand if by == "client" else other)),
        server("RSA", dhparam="auto", **(demand if by == "server" else other)),
    )
    assert_refused_by_server(outcome, "ERR_SSL_NO_SHARED_CIPHER", Alert.handshake_failure)


@pytest.mark.feature("G9")
@pytest.mark.feature("E1")
def test_a_session_made_by_another_group_is_not_enough() -> None:
    answering = server("RSA", groups="X25519:P-256", **ONLY_TLS12)
    sessions: list[bytes] = []
    options: dict[str, Any] = {"server_name": "localhost"}
    made = shake_hands(client(groups="X25519"), answering, on_session=sessions.append, **options)
    assert made.info.ephemeral_key == EphemeralKey(type="ECDH", name="X25519", size=253)
    again = shake_hands(client(groups="X25519"), answering, session=sessions[-1], **options)
    assert again.info.session_reused
    outcome = shake_hands(client(require_groups="P-256"), answering, session=sessions[-1], **options)
    assert not outcome.info.session_reused
    assert outcome.info.ephemeral_key == EphemeralKey(type="ECDH", name="prime256v1", size=256)


@pytest.mark.feature("A11")
@pytest.mark.feature("G9")
@pytest.mark.parametrize("by", ["client", "server"])
async def test_a_pre_shared_key_alone_is_not_enough(by: str) -> None:
    alone: dict[str, Any] = {"secure_options": SSL_OP_ALLOW_NO_DHE_KEX | SSL_OP_PREFER_NO_DHE_KEX}
    key = PreSharedKey("somebody", bytes(32))

    def streams(**demand: Any) -> tuple[TLSStream, TLSStream]:
        left, right = memory_stream_pair()
        ours = client(**alone, **(demand if by == "client" else {}))
        theirs = server(**alone, **(demand if by == "server" else {}))
        return (
            TLSStream(left, ours, host="localhost", psk=lambda _hint: key),
            TLSStream(right, theirs, server_side=True, psk=lambda _stream, _identity: key),
        )

    asking, answering = streams()
    assert await meet(answering, asking) == (None, None)
    for stream in (asking, answering):
        assert stream.info.psk_identity == "somebody"
        assert stream.info.ephemeral_key is None
    asking, answering = streams(require_groups="X25519")
    judge, other = (asking, answering) if by == "client" else (answering, asking)
    refused, _ = await meet(judge, other)
    assert type(refused) is ProtocolError
    assert refused.code == "ERR_SSL_NO_SUITABLE_GROUPS"
    assert "require_groups is x25519" in str(refused)


@pytest.mark.feature("G9")
@pytest.mark.feature("F12")
@pytest.mark.parametrize("group", tls.get_groups())
@pytest.mark.parametrize("spelt", [str.lower, str.upper])
def test_every_group_can_be_required_in_any_case(group: str, spelt: Any) -> None:
    version = {"max_version": "TLSv1.2"} if group in TLS12_ALONE else {"min_version": "TLSv1.3"}
    demand: Any = {"require_groups": spelt(group), **version}
    outcome = shake_hands(client(**demand), server("RSA", **demand))
    assert outcome.info.ephemeral_key is not None
    assert client(**demand).required_groups == (group,)


@pytest.mark.feature("G9")
@pytest.mark.parametrize("alias", ["P-256", "p-256", "secp256r1", "SECP256R1", "prime256v1", "Prime256V1"])
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_a_group_can_be_required_by_each_of_its_names(alias: str, version: str) -> None:
    demand = client(require_groups=alias, max_version=version)
    outcome = shake_hands(demand, server("RSA"))
    assert outcome.info.ephemeral_key == EphemeralKey(type="ECDH", name="prime256v1", size=256)
    assert demand.required_groups == ("secp256r1",)


@pytest.mark.feature("G9")
@pytest.mark.parametrize(
    "groups",
    [
        *("auto", "AUTO", "DEFAULT", "default", "X25519:DEFAULT", "auto:X25519"),
        *("?X25519", "*X25519", "-X25519", "X25519:?P-256", "X25519/P-256"),
        *("", ":", " ", "X25519:", "X25519::P-256"),
        *("no-such-group", "X25519:X25591"),
    ],
)
def test_what_names_no_groups_cannot_be_required(groups: str) -> None:
    assert refusal(require_groups=groups).option == "require_groups"


@pytest.mark.feature("G9")
def test_unknown_group_that_is_required_is_refused_with_what_may_be_meant() -> None:
    assert "did you mean X25519MLKEM768" in str(refusal(require_groups="X25519MLKEM786"))


@pytest.mark.feature("G9")
@pytest.mark.parametrize("option", ["groups", "ecdh_curve"])
@pytest.mark.parametrize("value", ["X25519", "auto", "", "P-256"])
def test_groups_beside_those_that_are_required_are_refused(option: str, value: str) -> None:
    assert refusal(require_groups="X25519", **{option: value}).option == "require_groups"


@pytest.mark.feature("G9")
@pytest.mark.parametrize("groups", [POST_QUANTUM, "ffdhe2048", f"{POST_QUANTUM}:ffdhe3072"])
@pytest.mark.parametrize("settings", [{}, identity("RSA")], ids=["client", "server"])
def test_groups_that_no_allowed_version_has_cannot_be_required(groups: str, settings: Any) -> None:
    error = refusal(require_groups=groups, max_version="TLSv1.2", **settings)
    assert (error.code, error.option) == ("ERR_SSL_NO_SUITABLE_GROUPS", "require_groups")


@pytest.mark.feature("G9")
def test_ciphers_that_exchange_keys_otherwise_are_refused_beside_it() -> None:
    error = refusal(require_groups="X25519", ciphers="DHE+AESGCM:AES128-GCM-SHA256")
    assert (error.code, error.option) == ("ERR_SSL_NO_CIPHER_MATCH", "ciphers")


@pytest.mark.feature("G9")
def test_without_a_requirement_keys_may_be_exchanged_by_rsa() -> None:
    ciphers = {"ciphers": "AES128-GCM-SHA256", **ONLY_TLS12}
    outcome = shake_hands(client(**ciphers), server("RSA", **ciphers))
    assert outcome.info.cipher.standard_name == "TLS_RSA_WITH_AES_128_GCM_SHA256"
    assert client(require_groups=None).required_groups == ()


# The key of an exchange, on both sides

SIZES: dict[str, dict[str, int]] = {
    "ECDH": {
        "x25519": 253,
        "x448": 448,
        "secp256r1": 256,
        "secp384r1": 384,
        "secp521r1": 521,
        **{f"brainpoolP{bits}r1tls13": bits for bits in (256, 384, 512)},
        "curveSM2": 256,
    },
    "DH": {f"ffdhe{bits}": bits for bits in (2048, 3072, 4096, 6144, 8192)},
    "KEM": {
        **{f"MLKEM{size}": size for size in (512, 768, 1024)},
        "X25519MLKEM768": 768,
        "SecP256r1MLKEM768": 768,
        "SecP384r1MLKEM1024": 1024,
        "curveSM2MLKEM768": 768,
    },
}
# Where OpenSSL has another one than IANA.
NAMES = {"x25519": "X25519", "x448": "X448", "secp256r1": "prime256v1"}


@pytest.mark.feature("C7")
@pytest.mark.parametrize("group", [group for group in tls.get_groups() if group not in TLS12_ALONE])
def test_ephemeral_key_tells_of_each_group_of_tls_1_3(group: str) -> None:
    (kind,) = (kind for kind, sizes in SIZES.items() if group in sizes)
    outcome = shake_hands(client(groups=group, min_version="TLSv1.3"), server("EC", groups=group))
    for info in (outcome.client, outcome.server):
        assert info is not None
        assert info.ephemeral_key is not None
        key = info.ephemeral_key
        assert (key.type, key.size) == (kind, SIZES[kind][group])
        assert key.name == (None if kind == "DH" else NAMES.get(group, group))


@pytest.mark.feature("C7")
@pytest.mark.node("test-tls-client-getephemeralkeyinfo.js")
@pytest.mark.parametrize(
    ("group", "name", "size"),
    [
        ("X25519", "X25519", 253),
        ("P-256", "prime256v1", 256),
        ("P-384", "secp384r1", 384),
        ("P-521", "secp521r1", 521),
        ("X448", "X448", 448),
        ("brainpoolP256r1", "brainpoolP256r1", 256),
    ],
)
def test_ephemeral_key_tells_of_curves_in_tls_1_2(group: str, name: str, size: int) -> None:
    # A certificate for a key on a curve would need that curve, too.
    outcome = shake_hands(client(groups=group, max_version="TLSv1.2"), server("RSA", groups=group))
    for info in (outcome.client, outcome.server):
        assert info is not None
        assert info.ephemeral_key == EphemeralKey(type="ECDH", name=name, size=size)


@pytest.mark.feature("C7")
@pytest.mark.node("test-tls-client-getephemeralkeyinfo.js")
@pytest.mark.parametrize(
    ("param", "on_client", "bits"),
    [
        ("auto", WITHOUT_FFDHE, 2048),
        (3072, WITHOUT_FFDHE, 3072),
        (1024, {**WITHOUT_FFDHE, "ciphers": "DHE+AESGCM@SECLEVEL=0"}, 1024),
        # Of those that both sides know by name.
        ("auto", {"max_version": "TLSv1.2"}, 2048),
        (2048, {"max_version": "TLSv1.2", "groups": "ffdhe3072:X25519"}, 3072),
    ],
    ids=["auto", "own", "own, small", "named", "named, larger"],
)
@pytest.mark.filterwarnings("ignore:DH parameter is less than 2048 bits:RuntimeWarning")
def test_ephemeral_key_tells_of_finite_fields_in_tls_1_2(param: Any, on_client: Any, bits: int) -> None:
    level = "@SECLEVEL=0" if bits < 2048 else ""
    answering = server(
        "RSA",
        ciphers=f"DHE+AESGCM{level}",
        dhparam=param if param == "auto" else dhparam(param),
    )
    outcome = shake_hands(client(**on_client), answering)
    for info in (outcome.client, outcome.server):
        assert info is not None
        assert info.cipher.standard_name.startswith("TLS_DHE_RSA_")
        assert info.ephemeral_key == EphemeralKey(type="DH", name=None, size=bits)


@pytest.mark.feature("C7")
@pytest.mark.node("test-tls-client-getephemeralkeyinfo.js")
def test_there_is_no_ephemeral_key_where_rsa_exchanges_the_keys() -> None:
    ciphers = {"ciphers": "AES128-GCM-SHA256", **ONLY_TLS12}
    outcome = shake_hands(client(**ciphers), server("RSA", dhparam="auto", **ciphers))
    for info in (outcome.client, outcome.server):
        assert info is not None
        assert info.ephemeral_key is None


@pytest.mark.feature("C7")
@pytest.mark.feature("E1")
@pytest.mark.parametrize(
    ("ciphers", "version", "exchanged_again"),
    [
        ("ECDHE+AESGCM", "TLSv1.2", False),
        ("DHE+AESGCM", "TLSv1.2", False),
        ("DEFAULT", "TLSv1.3", True),
    ],
)
def test_a_session_that_resumes_has_an_ephemeral_key_where_keys_are_exchanged_again(
    ciphers: str, version: str, *, exchanged_again: bool
) -> None:
    asking = client(ciphers=ciphers, min_version=version, max_version=version)
    answering = server("RSA", dhparam="auto", ciphers=ciphers)
    options: dict[str, Any] = {"server_name": "localhost"}
    sessions: list[bytes] = []
    first = shake_hands(asking, answering, on_session=sessions.append, **options)
    assert first.info.ephemeral_key is not None
    if not sessions:
        # In TLS 1.3, tickets come with the server's first data.
        sessions.append(session_after_data(asking, answering, **options))
    again = shake_hands(asking, answering, session=sessions[-1], **options)
    for info in (again.client, again.server):
        assert info is not None
        assert info.session_reused
        assert (info.ephemeral_key is not None) is exchanged_again


def session_after_data(asking: SecureContext, answering: SecureContext, **options: Any) -> bytes:
    """Return a session that came with data."""
    ours, theirs = Engine(asking, **options), Engine(answering, server_side=True)
    for _ in range(3):
        for step, end, other in ((ours.do_handshake, ours, theirs), (theirs.do_handshake, theirs, ours)):
            step()
            if output := end.drain():
                other.feed(output)
    theirs.write(b"data")
    ours.feed(theirs.drain())
    assert ours.read() == b"data"
    assert ours.session is not None
    return ours.session


# Signature algorithms


@pytest.mark.feature("C8")
@pytest.mark.feature("F9")
@pytest.mark.node("test-tls-set-sigalgs.js")
@pytest.mark.parametrize(NODE["sigalgs"]["columns"], NODE["sigalgs"]["rows"])
def test_signature_algorithms_negotiate_as_in_node(
    client_sigalgs: str,
    server_sigalgs: str,
    shared: list[str] | None,
    client_error: str | None,
    server_error: str | None,
) -> None:
    outcome = shake_hands(client(sigalgs=client_sigalgs), server("RSA", sigalgs=server_sigalgs))
    assert outcome.codes == (OPENSSL_4_ALERT.get(client_error or ""), server_error)
    assert (outcome.client is None) == (outcome.server is None) == (shared is None)
    if outcome.server is not None:
        assert list(outcome.server.shared_signature_algorithms) == shared


@pytest.mark.feature("F9")
@pytest.mark.parametrize(
    "sigalgs", ["ECDSA+SHA256", "ecdsa+sha256", "ecdsa_secp256r1_sha256", "ECDSA+SHA384:ECDSA+SHA256"]
)
def test_signature_algorithms_have_names_of_openssl_s_and_of_iana_s(sigalgs: str) -> None:
    assert shake_hands(client(sigalgs=sigalgs), server("EC")).info.authorized


@pytest.mark.feature("F9")
@pytest.mark.parametrize("sigalgs", [None, ""])
def test_no_signature_algorithms_mean_openssl_s_own(sigalgs: str | None) -> None:
    assert client(sigalgs=sigalgs)._settings == client()._settings


@pytest.mark.feature("F9")
@pytest.mark.parametrize(
    ("sigalgs", "meant"),
    [
        ("RSA-PSS+SHA265", "RSA-PSS+SHA256"),
        ("RSA+SHA256:ECDSA+SHA257", "ECDSA+SHA256"),
        ("ed25591", "ed25519"),
    ],
)
def test_unknown_signature_algorithm_is_refused_with_what_may_be_meant(sigalgs: str, meant: str) -> None:
    error = refusal(sigalgs=sigalgs)
    assert (error.code, error.option) == ("ERR_CRYPTO_OPERATION_FAILED", "sigalgs")
    assert f"did you mean {meant}" in str(error)


@pytest.mark.feature("F9")
@pytest.mark.parametrize("sigalgs", ["RSA+SHA256:", ":", "RSA", "RSA+MD5"])
def test_signature_algorithms_that_are_none_are_refused(sigalgs: str) -> None:
    assert refusal(sigalgs=sigalgs).option == "sigalgs"


@pytest.mark.feature("F9")
@pytest.mark.parametrize("settings", [{}, identity("RSA")], ids=["client", "server"])
def test_signature_algorithm_that_the_security_level_forbids_is_refused(settings: dict[str, Any]) -> None:
    error = refusal(sigalgs="RSA+SHA1", **settings)
    assert (error.code, error.option) == ("ERR_SSL_NO_SUITABLE_SIGNATURE_ALGORITHM", "sigalgs")
    older = {"sigalgs": "RSA+SHA1", "ciphers": "DEFAULT@SECLEVEL=0", "max_version": "TLSv1.2"}
    # The certificates themselves are signed otherwise, so they are not verified.
    outcome = shake_hands(client(**older), server("RSA", **older), reject_unauthorized=False)
    assert outcome.info.protocol == "TLSv1.2"


# Finite-field groups


@pytest.mark.feature("F9")
@pytest.mark.node("test-tls-dhe.js")
@pytest.mark.parametrize(NODE["dhparam"]["columns"], NODE["dhparam"]["rows"])
@pytest.mark.filterwarnings("ignore:DH parameter is less than 2048 bits:RuntimeWarning")
def test_dhparam_negotiates_what_it_does_in_node(
    dhparam: Any, security_level: int, cipher: str | None, bits: int | None, error: str | None
) -> None:
    if dhparam == "unreadable":
        # Node.js drops it without a word, and DHE with it.
        pem = b"-----BEGIN DH PARAMETERS-----\nAAAA\n-----END DH PARAMETERS-----\n"
        assert refusal(**identity("RSA"), dhparam=pem).option == "dhparam"
        return
    if isinstance(dhparam, int):
        dhparam = globals()["dhparam"](dhparam)
    settings = {
        "ciphers": f"{NODE['dhparam']['server_ciphers']}@SECLEVEL={security_level}",
        "max_version": "TLSv1.2",
    }
    if error:
        assert error in str(refusal(**identity("RSA"), **settings, dhparam=dhparam))
        return
    asking = client(**WITHOUT_FFDHE, ciphers=f"ALL@SECLEVEL={security_level}")
    outcome = shake_hands(asking, server("RSA", **settings, dhparam=dhparam))
    assert outcome.info.cipher.name == cipher
    assert ephemeral_dh_bits(outcome.server_flight) == bits


DHE: dict[str, Any] = {
    "ciphers": "DHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256",
    "max_version": "TLSv1.2",
}


def dh_bits(asking: SecureContext, dhparam: Any, **settings: Any) -> int | None:
    """Return the size of the group that a server with this option negotiates, or None where it is no DHE."""
    outcome = shake_hands(asking, server("RSA", **{**DHE, **settings}, dhparam=dhparam))
    assert outcome.info.authorized
    assert outcome.info.cipher.name.startswith("DHE") == (
        ephemeral_dh_bits(outcome.server_flight) is not None
    )
    return ephemeral_dh_bits(outcome.server_flight)


@pytest.mark.feature("F9")
@pytest.mark.parametrize("bits", [2048, 3072])
def test_client_that_names_groups_of_rfc_7919_gets_one_as_large_as_ours(bits: int) -> None:
    # OpenSSL 4 would take the client's first group, whatever dhparam is.
    assert dh_bits(client(max_version="TLSv1.2"), dhparam(bits)) == bits
    assert dh_bits(client(groups="ffdhe2048:ffdhe3072:X25519", max_version="TLSv1.2"), dhparam(bits)) == bits


@pytest.mark.feature("F9")
def test_group_beyond_the_default_ones_is_named_too() -> None:
    larger = client(groups="ffdhe2048:ffdhe3072:ffdhe4096:X25519", max_version="TLSv1.2")
    assert dh_bits(larger, dhparam(4096)) == 4096
    # RFC 7919, section 4: such a client gets no other group.
    assert dh_bits(client(max_version="TLSv1.2"), dhparam(4096)) is None
    assert dh_bits(client(**WITHOUT_FFDHE), dhparam(4096)) == 4096


@pytest.mark.feature("F9")
def test_groups_that_are_named_stay_as_they_are() -> None:
    asking = client(max_version="TLSv1.2")
    assert dh_bits(asking, dhparam(3072), groups="ffdhe2048:X25519") == 2048
    assert dh_bits(asking, dhparam(3072), groups="X25519") is None


@pytest.mark.feature("F9")
@pytest.mark.parametrize("settings", [{}, WITHOUT_FFDHE])
def test_auto_is_of_rfc_7919_and_as_strong_as_the_key(settings: dict[str, str]) -> None:
    asking = client(**{"max_version": "TLSv1.2", **settings})
    outcome = shake_hands(asking, server("RSA", **DHE, dhparam="auto"))
    assert outcome.info.cipher.name == "DHE-RSA-AES128-GCM-SHA256"
    assert DHGroup.ffdhe(2048).prime.to_bytes(256) in outcome.server_flight


@pytest.mark.feature("F9")
def test_auto_is_beside_an_elliptic_key_as_strong_as_that() -> None:
    both = [identity("EC"), identity("RSA")]
    answering = SecureContext(
        key=[one["key"] for one in both], cert=[one["cert"] for one in both], dhparam="auto", **DHE
    )
    outcome = shake_hands(client(max_version="TLSv1.2"), answering)
    assert ephemeral_dh_bits(outcome.server_flight) == 3072


@pytest.mark.feature("F9")
def test_auto_without_a_key_is_no_error() -> None:
    # Such a server can only be one for pre-shared keys.
    SecureContext(dhparam="auto").ssl_ctx(server_side=True, verify_mode=VERIFY_NONE)


@pytest.mark.feature("F9")
def test_without_dhparam_there_is_no_dhe() -> None:
    # OpenSSL 4 would negotiate it with groups of RFC 7919.
    assert dh_bits(client(max_version="TLSv1.2"), None) is None
    error = refusal(**identity("RSA"), ciphers="DHE-RSA-AES128-GCM-SHA256")
    assert (error.code, error.option) == ("ERR_SSL_NO_CIPHER_MATCH", "ciphers")
    # A client needs none.
    assert dh_bits(client(ciphers="DHE-RSA-AES128-GCM-SHA256", max_version="TLSv1.2"), "auto") == 2048


@pytest.mark.feature("F9")
def test_group_too_small_for_the_security_level_is_refused() -> None:
    with pytest.warns(RuntimeWarning, match="less than 2048 bits"):
        error = refusal(**identity("RSA"), dhparam=dhparam(1024))
    assert (error.code, error.option) == ("ERR_SSL_DH_KEY_TOO_SMALL", "dhparam")
    assert "1024 bits" in str(error)


@pytest.mark.feature("F9")
@pytest.mark.feature("F15")
@pytest.mark.parametrize("value", [1, True, ["auto"], {"auto"}])
def test_dhparam_of_the_wrong_type_is_refused(value: object) -> None:
    error = refusal(dhparam=value)
    assert type(error) is ConfigurationTypeError
    assert error.option == "dhparam"


# min_dh_size


def dhe_outcome(security_level: int, min_dh_size: int, server_bits: int) -> Outcome:
    ciphers = f"{NODE['min_dh_size']['server_ciphers']}@SECLEVEL={security_level}"
    asking = client(**WITHOUT_FFDHE, ciphers=ciphers)
    answering = server("RSA", ciphers=ciphers, dhparam=dhparam(server_bits))
    return shake_hands(asking, answering, min_dh_size=min_dh_size)


@pytest.mark.feature("A9")
@pytest.mark.parametrize(NODE["min_dh_size"]["columns"], NODE["min_dh_size"]["rows"])
@pytest.mark.filterwarnings("ignore:DH parameter is less than 2048 bits:RuntimeWarning")
def test_group_smaller_than_min_dh_size_is_refused_as_in_node(
    security_level: int, min_dh_size: int, server_bits: int, client_error: str | None
) -> None:
    outcome = dhe_outcome(security_level, min_dh_size, server_bits)
    assert outcome.codes[0] == client_error
    assert (outcome.client is None) == (client_error is not None)


@pytest.mark.feature("A9")
async def test_refusal_of_a_small_group_closes_the_connection_and_tells_the_server() -> None:
    with pytest.RaisesGroup(ProtocolError, PeerAlert, flatten_subgroups=True) as caught:
        await tls_pair(
            client_context=client(max_version="TLSv1.2", ciphers="DHE-RSA-AES128-GCM-SHA256"),
            server_context=server("RSA", dhparam="auto"),
            client_options={"host": "localhost", "min_dh_size": 2049},
        )
    refused, told = sorted(caught.value.exceptions, key=lambda error: isinstance(error, PeerAlert))
    assert isinstance(refused, ProtocolError)
    assert refused.code == "ERR_TLS_DH_PARAM_SIZE"
    assert "2048 bits" in str(refused)
    assert "2049" in str(refused)
    assert isinstance(told, PeerAlert)
    assert told.alert == Alert.insufficient_security


@pytest.mark.feature("A9")
@pytest.mark.filterwarnings("ignore:DH parameter is less than 2048 bits:RuntimeWarning")
def test_what_the_security_level_refuses_earlier_is_said_so() -> None:
    ciphers = NODE["min_dh_size"]["server_ciphers"]
    answering = server("RSA", ciphers=f"{ciphers}@SECLEVEL=0", dhparam=dhparam(1024))
    outcome = shake_hands(client(**WITHOUT_FFDHE, ciphers=ciphers), answering, min_dh_size=1024)
    assert isinstance(outcome.client_error, ProtocolError)
    assert outcome.client_error.code == "ERR_SSL_DH_KEY_TOO_SMALL"


@pytest.mark.feature("A9")
def test_min_dh_size_says_nothing_of_elliptic_curves_and_tls_1_3() -> None:
    for version in ("TLSv1.2", "TLSv1.3"):
        outcome = shake_hands(client(max_version=version), server("RSA"), min_dh_size=10_000)
        assert outcome.info.protocol == version
    named = {"groups": "ffdhe2048", "min_version": "TLSv1.3"}
    assert shake_hands(client(**named), server("RSA", **named), min_dh_size=10_000).info.authorized


@pytest.mark.feature("A9")
@pytest.mark.feature("F15")
@pytest.mark.parametrize("value", node_table("options")["wrong_type"]["min_dh_size"])
def test_min_dh_size_of_the_wrong_type_is_refused_as_in_node(value: object) -> None:
    with pytest.raises(ConfigurationTypeError) as caught:
        Engine(client(), min_dh_size=value)  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.option) == ("ERR_INVALID_ARG_TYPE", "min_dh_size")


@pytest.mark.feature("A9")
@pytest.mark.feature("F15")
@pytest.mark.parametrize("value", node_table("options")["out_of_range"]["min_dh_size"])
def test_min_dh_size_out_of_range_is_refused_as_in_node(value: int) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Engine(client(), min_dh_size=value)
    assert (caught.value.code, caught.value.option) == ("ERR_OUT_OF_RANGE", "min_dh_size")


def test_a_group_that_is_too_small_is_refused_before_a_client_asks_for_it() -> None:
    numbers = DHGroup.ffdhe(2048)
    with pytest.raises(ConfigurationError, match="too small") as caught:
        SecureContext(dhparam=numbers.pem(), ciphers="DEFAULT@SECLEVEL=3")
    assert caught.value.option == "dhparam"
