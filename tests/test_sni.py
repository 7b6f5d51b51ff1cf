"""SNI: which context a server takes for a name, and what of a connection this decides."""

from __future__ import annotations

import dataclasses
import functools
import gc
import hashlib
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import trio
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from engine_pairs import node_table
from faults import only
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

import trio_tlsnode as tls
from trio_tlsnode import (
    Alert,
    CallbackError,
    CertificateError,
    ConfigurationError,
    ConnectionFailed,
    ConnectionInfo,
    ConnectionLost,
    Engine,
    HandshakeTimeout,
    PeerAlert,
    ProtocolError,
    SecureContext,
    TLSError,
    TLSServer,
    TLSStream,
)
from trio_tlsnode._openssl.library import lib
from trio_tlsnode.client_hello import ClientHelloReader
from trio_tlsnode.sessions import Session
from trio_tlsnode.testing import Authority, IssuedCertificate, RecordingStream, default_authority

pytestmark = pytest.mark.feature("B9")

NODE = node_table("alpn-sni")["sni"]
# RFC 8446, section 4.1.3: what a HelloRetryRequest has in place of random bytes.
RETRY_RANDOM = hashlib.sha256(b"HelloRetryRequest").digest()
VERSIONS = ("TLSv1.2", "TLSv1.3")
in_both_versions = pytest.mark.parametrize("version", VERSIONS)

# A server, and who meets it


@functools.cache
def identity(*names: str, key_type: Any = "EC") -> dict[str, Any]:
    """The options of a context that shows a certificate for these names."""
    issued = default_authority().good(*names, key_type=key_type)
    return {"key": load_pem_private_key(issued.key, None), "cert": issued.cert}


def context_for(name: str, **options: Any) -> SecureContext:
    """A context with a certificate for a name."""
    return SecureContext(**{**identity(name), **options})


DEFAULT = context_for("default.example")
CLIENT = SecureContext(ca=default_authority().ca)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a connection ended.

    Attributes:
        client: What the client knows of it, if it was secure for the client.
        server: What the server knows of it, if it was secure for the server.
        refusal: What the client failed of.
        failure: What the server reports.
    """

    client: ConnectionInfo | None
    server: ConnectionInfo | None
    refusal: TLSError | None
    failure: ConnectionFailed | None

    @property
    def shown(self) -> str | None:
        """For whom the certificate is that the server showed to the client."""
        assert (self.refusal, self.failure) == (None, None)
        assert self.client is not None
        assert self.client.peer_certificate is not None
        return (self.client.peer_certificate.subject_alt_name or "").removeprefix("DNS:")

    @property
    def alert(self) -> Alert | int:
        """What the client was told by the alert that ended the connection."""
        assert isinstance(self.refusal, PeerAlert)
        assert self.server is None
        return self.refusal.alert


class Venue:
    """A server, to whom clients come one after the other.

    Attributes:
        server: The server.
        asked: The names that its callback was asked for.
    """

    def __init__(self, context: SecureContext = DEFAULT, **options: Any) -> None:
        self.asked: list[str] = []
        self._infos: list[ConnectionInfo] = []
        self.server = TLSServer(self._welcome, context, **options)
        self._errors = self.server.client_errors()

    async def _welcome(self, stream: TLSStream) -> None:
        self._infos.append(stream.info)
        await stream.send_all(b"welcome")

    async def meet(self, name: str | None, context: SecureContext = CLIENT, **options: Any) -> Outcome:
        """Have a client come that asks for a name, and stays as long as it may."""
        left, right = memory_stream_pair()
        return await self.meet_over(
            right, TLSStream(left, context, host=name, **{"check_server_identity": accept, **options})
        )

    async def meet_over(self, transport: trio.abc.Stream, client: TLSStream) -> Outcome:
        """Have a client come; `transport` is the server's end of its transport."""
        self._infos.clear()
        refusal: TLSError | None = None
        info: ConnectionInfo | None = None
        failed = sum(self.server.statistics().failed.values())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.server.handle, transport)
            try:
                await client.do_handshake()
                info = client.info
                assert await client.receive_some() == (b"welcome" if self._infos else b"")
            except TLSError as error:
                refusal = error
            await trio.aclose_forcefully(client)
        failure: ConnectionFailed | None = None
        if sum(self.server.statistics().failed.values()) > failed:
            (reported,) = (await anext(self._errors)).exceptions
            assert isinstance(reported, ConnectionFailed)
            failure = reported
        return Outcome(info, self._infos[0] if self._infos else None, refusal, failure)


async def idle(_stream: TLSStream) -> None:
    """Do nothing with a connection."""


def accept(_name: str, _certificate: object) -> None:
    """Accept a certificate for whomever it is."""


def client_hello(name: str = "localhost") -> bytes:
    client = Engine(CLIENT, host=name)
    client.do_handshake()
    return client.drain()


# How a context is chosen for "chosen.example".
CHOICES = ("sni_callback", "async sni_callback", "exact name", "wildcard")
however_chosen = pytest.mark.parametrize("how", CHOICES)


def choosing(how: str, chosen: SecureContext, default: SecureContext = DEFAULT, **options: Any) -> Venue:
    """A server that takes a context for "chosen.example" in one of the ways, and else its default one."""

    def look_up(name: str) -> SecureContext | None:
        venue.asked.append(name)
        found = "callback" in how and name.lower().removesuffix(".") == "chosen.example"
        return chosen if found else None

    async def look_up_later(name: str) -> SecureContext | None:
        await trio.lowlevel.checkpoint()
        return look_up(name)

    venue = Venue(default, sni_callback=look_up_later if "async" in how else look_up, **options)
    if "callback" not in how:
        venue.server.add_context("*.example" if how == "wildcard" else "chosen.example", chosen)
    return venue


CHOSEN = context_for("chosen.example")


# The search


@pytest.mark.feature("B10")
async def test_the_callback_comes_first_then_the_latest_pattern_that_matches_then_the_default() -> None:
    asked: list[str] = []

    def look_up(name: str) -> SecureContext | None:
        asked.append(name)
        return context_for("from.callback") if name == "a.example" else None

    venue = Venue(sni_callback=look_up)
    venue.server.add_context("*.example", context_for("from.wildcard"))
    venue.server.add_context("b.example", context_for("from.exact.name"))
    assert (await venue.meet("a.example")).shown == "from.callback"
    assert (await venue.meet("b.example")).shown == "from.exact.name"
    assert (await venue.meet("c.example")).shown == "from.wildcard"
    assert (await venue.meet("d.elsewhere")).shown == "default.example"
    assert asked == ["a.example", "b.example", "c.example", "d.elsewhere"]
    venue.server.add_context("*.example", context_for("from.later.wildcard"))
    assert (await venue.meet("b.example")).shown == "from.later.wildcard"


@pytest.mark.feature("A4")
@pytest.mark.parametrize("options", [{"server_name": ""}, {"host": "192.0.2.1"}, {"host": "::1"}])
async def test_a_client_that_sends_no_name_gets_the_default_and_nobody_is_asked(options: Any) -> None:
    asked: list[str] = []
    venue = Venue(sni_callback=asked.append)
    venue.server.add_context("*", CHOSEN)
    left, right = memory_stream_pair()
    client = TLSStream(left, CLIENT, check_server_identity=accept, **options)
    outcome = await venue.meet_over(right, client)
    assert outcome.shown == "default.example"
    assert outcome.server is not None
    assert outcome.server.server_name is None
    assert not asked


@however_chosen
@in_both_versions
async def test_both_sides_know_the_name_and_the_certificate(how: str, version: str) -> None:
    venue = choosing(how, CHOSEN)
    outcome = await venue.meet("chosen.example", SecureContext(ca=default_authority().ca, **only(version)))
    assert outcome.shown == "chosen.example"
    assert outcome.client is not None
    assert outcome.server is not None
    assert outcome.client.authorized
    assert outcome.client.server_name == outcome.server.server_name == "chosen.example"
    assert outcome.client.peer_certificate == outcome.server.certificate
    assert (await venue.meet("other.invalid")).shown == "default.example"


async def test_every_client_gets_its_own_context_though_all_are_asked_for_at_once() -> None:
    names = [f"host{number}.example" for number in range(8)]
    contexts = {name: context_for(name) for name in names}
    asked: list[str] = []
    all_asked = trio.Event()

    async def look_up(name: str) -> SecureContext:
        asked.append(name)
        if len(asked) == len(names):
            all_asked.set()
        await all_asked.wait()
        return contexts[name]

    venue = Venue(sni_callback=look_up)
    shown: dict[str, str | None] = {}

    async def come(name: str) -> None:
        left, right = memory_stream_pair()
        nursery.start_soon(venue.server.handle, right)
        async with await tls.wrap_client(left, context=CLIENT, host=name) as client:
            assert client.info.peer_certificate is not None
            shown[name] = client.info.peer_certificate.subject_alt_name

    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(come, name)
    assert shown == {name: f"DNS:{name}" for name in names}


async def test_a_context_that_was_added_serves_later_clients_alone() -> None:
    venue = Venue()
    left, right = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(venue.server.handle, right)
        early = await tls.wrap_client(left, context=CLIENT, host="chosen.example", reject_unauthorized=False)
        venue.server.add_context("chosen.example", CHOSEN)
        assert await early.receive_some() == b"welcome"
        assert not early.authorized
        await early.aclose()
    assert (await venue.meet("chosen.example")).shown == "chosen.example"


# What the client writes as a name


class Seen(NamedTuple):
    """What became of a name: the callback's argument, `info.server_name`, and whose certificate was shown."""

    asked: list[str]
    name: str | None
    shown: str | None


async def seen_for(pattern: str, sent: str) -> Seen:
    """Have a client send a name as it stands to a server that has a context for a pattern."""
    asked: list[str] = []
    venue = Venue(sni_callback=asked.append)
    venue.server.add_context(pattern, CHOSEN)
    left, right = memory_stream_pair()
    client = TLSStream(left, CLIENT, host="placeholder.example", check_server_identity=accept)
    # Our own clients send no such names.
    lib.SSL_set_tlsext_host_name(client._engine._ssl, sent.encode())
    outcome = await venue.meet_over(right, client)
    assert outcome.server is not None
    return Seen(asked, outcome.server.server_name, outcome.shown)


@pytest.mark.feature("B10")
@pytest.mark.parametrize(
    ("pattern", "sent"),
    [
        ("chosen.example", "chosen.example"),
        ("chosen.example", "CHOSEN.Example"),
        ("Chosen.EXAMPLE", "chosen.example"),
        ("chosen.example", "chosen.example."),
        ("chosen.example.", "chosen.example"),
        ("*.Example", "cHosen.eXample."),
        ("b\u00fccher.example", "xn--bcher-kva.example"),
        ("B\u00dcCHER.example", "XN--BCHER-KVA.example"),
        ("*.b\u00fccher.example", "www.xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.*", "192.0.2.1"),
        ("2001:db8::1", "2001:DB8::1"),
        ("*", "localhost"),
        ("*", "a" * 255),
        ("chosen_host.example", "chosen_host.example"),
    ],
)
async def test_a_name_is_compared_without_its_case_and_its_last_dot_and_told_as_it_was_sent(
    pattern: str, sent: str
) -> None:
    assert await seen_for(pattern, sent) == ([sent], sent, "chosen.example")


@pytest.mark.feature("B10")
@pytest.mark.parametrize(
    ("pattern", "sent"),
    [
        ("chosen.example", "chosen.example.."),
        ("chosen.example", ".chosen.example"),
        ("chosen.example", "chosen-example"),
        ("b\u00fccher.example", "bcher.example"),
        ("127.0.0.1", "127.1"),
        ("*.0.2.1", "192.0.2.2"),
        ("*", "a.example"),
        ("chosen.example", "*"),
        ("chosen.example", "*.example"),
    ],
)
async def test_a_name_that_no_pattern_matches_gets_the_default(pattern: str, sent: str) -> None:
    assert await seen_for(pattern, sent) == ([sent], sent, "default.example")


@pytest.mark.feature("A4")
async def test_a_client_that_is_given_letters_beyond_ascii_sends_a_labels() -> None:
    asked: list[str] = []
    venue = Venue(sni_callback=asked.append)
    venue.server.add_context("*.b\u00fccher.example", context_for("www.xn--bcher-kva.example"))
    outcome = await venue.meet("www.B\u00fccher.example", check_server_identity=tls.check_server_identity)
    assert outcome.shown == "www.xn--bcher-kva.example"
    assert outcome.client is not None
    assert outcome.client.authorized
    assert asked == ["www.xn--bcher-kva.example"]


@pytest.mark.parametrize(
    "pattern", ["b\u00fcch*.example", "\u200d.example", "\u00e4" * 80 + ".example", "a_\u00fc.example"]
)
def test_a_pattern_that_no_name_could_match_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match="is no host name") as caught:
        Venue().server.add_context(pattern, CHOSEN)
    assert caught.value.option == "add_context"


def vector(width: int, content: bytes) -> bytes:
    return len(content).to_bytes(width) + content


def with_server_name(hello: bytes, name: bytes) -> bytes:
    """The same hello with another name."""
    sent = ClientHelloReader().feed(hello)
    assert sent is not None
    named = (0, vector(2, b"\0" + vector(2, name)))
    extensions = (named, *(extension for extension in sent.extensions if extension[0] != 0))
    suites = b"".join(suite.to_bytes(2) for suite in sent.cipher_suites)
    body = (
        sent.legacy_version.to_bytes(2)
        + sent.random
        + vector(1, sent.session_id)
        + vector(2, suites)
        + vector(1, bytes(sent.compression_methods))
        + vector(2, b"".join(kind.to_bytes(2) + vector(2, content) for kind, content in extensions))
    )
    return b"\x16\x03\x01" + vector(2, b"\1" + vector(3, body))


@pytest.mark.parametrize(
    ("name", "alert"),
    [
        (b"a" * 256, Alert.unrecognized_name),
        (b"a." * 5000, Alert.unrecognized_name),
        (b"\xe9.example", Alert.unrecognized_name),
        (b"chosen\0.example", Alert.unrecognized_name),
        (b"", Alert.decode_error),
    ],
    ids=["256 bytes", "10,000 bytes", "no ASCII", "a zero byte", "empty"],
)
async def test_a_name_that_can_be_none_is_refused_and_nobody_is_asked(name: bytes, alert: Alert) -> None:
    asked: list[str] = []
    venue = Venue(sni_callback=asked.append)
    client, transport = memory_stream_pair()
    await client.send_all(with_server_name(client_hello(), name))
    errors = venue.server.client_errors()
    await venue.server.handle(transport)
    assert (await client.receive_some())[-2:] == bytes((2, alert))
    (error,) = (await anext(errors)).exceptions
    assert isinstance(error, ProtocolError)
    assert error.server_name is None
    assert not asked


# What the chosen context decides, and what stays the server's

AES128 = "ECDHE-ECDSA-AES128-GCM-SHA256:TLS_AES_128_GCM_SHA256"


@pytest.mark.feature("B11")
@however_chosen
@in_both_versions
async def test_the_server_s_protocols_hold_for_every_context(how: str, version: str) -> None:
    venue = choosing(how, CHOSEN, alpn_protocols=["h2", "http/1.1"])
    context = SecureContext(ca=default_authority().ca, **only(version))
    agreed = await venue.meet("chosen.example", context, alpn_protocols=["http/1.1", "h2"])
    assert agreed.shown == "chosen.example"
    assert agreed.client is not None
    assert agreed.server is not None
    assert agreed.client.alpn_protocol == agreed.server.alpn_protocol == "h2"
    refused = await venue.meet("chosen.example", context, alpn_protocols=["h3"])
    assert refused.alert is Alert.no_application_protocol
    assert refused.failure is not None
    assert refused.failure.code == "ERR_SSL_NO_APPLICATION_PROTOCOL"


@pytest.mark.feature("B12")
@however_chosen
async def test_the_server_s_alpn_callback_is_asked_for_every_context(how: str) -> None:
    venue = choosing(how, CHOSEN, alpn_callback=lambda choice: choice.protocols[-1])
    for name in ("chosen.example", "elsewhere.invalid"):
        outcome = await venue.meet(name, alpn_protocols=["a", "b"])
        assert outcome.client is not None
        assert outcome.client.alpn_protocol == "b"


@pytest.mark.feature("B8")
@however_chosen
@in_both_versions
async def test_the_server_s_demand_for_a_certificate_holds_for_every_context(how: str, version: str) -> None:
    venue = choosing(how, CHOSEN, request_cert=True)
    outcome = await venue.meet("chosen.example", SecureContext(ca=default_authority().ca, **only(version)))
    assert (
        outcome.alert
        is {
            "TLSv1.2": Alert.handshake_failure,
            "TLSv1.3": Alert.certificate_required,
        }[version]
    )
    assert isinstance(outcome.failure, CertificateError)
    assert outcome.failure.code == "ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE"


@functools.cache
def others() -> Authority:
    return Authority()


def of(authority: Authority) -> SecureContext:
    """A client with a certificate of an authority."""
    return SecureContext(ca=default_authority().ca, **authority.client("somebody").options)


@pytest.mark.feature("B8")
@pytest.mark.feature("B10")
@however_chosen
@in_both_versions
async def test_a_context_s_own_ca_judges_the_clients_that_ask_for_it(how: str, version: str) -> None:
    venue = choosing(
        how,
        context_for("chosen.example", ca=others().ca, **only(version)),
        context_for("default.example", ca=default_authority().ca, **only(version)),
        request_cert=True,
    )
    for name, insiders, outsiders in (
        ("chosen.example", others(), default_authority()),
        ("elsewhere.invalid", default_authority(), others()),
    ):
        let_in = await venue.meet(name, of(insiders))
        assert let_in.server is not None
        assert let_in.server.authorized
        turned_away = await venue.meet(name, of(outsiders))
        assert turned_away.alert is Alert.unknown_ca
        assert isinstance(turned_away.failure, CertificateError)


@pytest.mark.feature("B8")
@pytest.mark.feature("C2")
@however_chosen
async def test_where_nobody_is_refused_the_verdict_is_of_the_context_s_own_ca(how: str) -> None:
    venue = choosing(
        how, context_for("chosen.example", ca=others().ca), request_cert=True, reject_unauthorized=False
    )
    verdicts = {}
    for who, context in {
        "insider": of(others()),
        "outsider": of(Authority()),
        "nobody": CLIENT,
    }.items():
        outcome = await venue.meet("chosen.example", context)
        assert outcome.server is not None
        error = outcome.server.authorization_error
        verdicts[who] = (outcome.server.authorized, error and error.code)
    assert verdicts == {
        "insider": (True, None),
        "outsider": (False, "UNABLE_TO_VERIFY_LEAF_SIGNATURE"),
        "nobody": (False, "UNABLE_TO_GET_ISSUER_CERT"),
    }


@pytest.mark.feature("B8")
@pytest.mark.feature("F5")
@however_chosen
async def test_a_context_s_own_revocation_list_counts(how: str) -> None:
    authority = Authority()
    revoked = authority.client("mallory")
    authority.revoke(revoked)
    context = SecureContext(ca=default_authority().ca, **revoked.options)
    trusting = context_for("default.example", ca=authority.ca)
    revoking = context_for("chosen.example", ca=authority.ca, crl=authority.crl())
    venue = choosing(how, revoking, trusting, request_cert=True)
    assert (await venue.meet("chosen.example", context)).alert is Alert.certificate_revoked
    assert (await venue.meet("elsewhere.invalid", context)).shown == "default.example"


@pytest.mark.feature("F8")
@however_chosen
@pytest.mark.parametrize(("default", "chosen"), [VERSIONS, VERSIONS[::-1]])
async def test_a_context_s_own_versions_count(how: str, default: str, chosen: str) -> None:
    venue = choosing(
        how,
        context_for("chosen.example", **only(chosen)),
        context_for("default.example", **only(default)),
    )
    for name, version in (("chosen.example", chosen), ("elsewhere.invalid", default)):
        outcome = await venue.meet(name)
        assert outcome.server is not None
        assert outcome.server.protocol == version


@pytest.mark.feature("F7")
@however_chosen
@in_both_versions
async def test_a_context_s_own_ciphers_count(how: str, version: str) -> None:
    venue = choosing(how, context_for("chosen.example", ciphers=AES128))
    context = SecureContext(ca=default_authority().ca, **only(version))
    chosen, default = await venue.meet("chosen.example", context), await venue.meet("x.invalid", context)
    assert chosen.server is not None
    assert default.server is not None
    assert (chosen.server.cipher.secret_bits, default.server.cipher.secret_bits) == (128, 256)


@pytest.mark.feature("F9")
@pytest.mark.feature("G9")
@however_chosen
async def test_a_context_s_own_groups_count(how: str) -> None:
    venue = choosing(how, context_for("chosen.example", require_groups="P-384"))
    outcome = await venue.meet("chosen.example")
    assert outcome.server is not None
    assert outcome.server.ephemeral_key == tls.EphemeralKey(type="ECDH", name="secp384r1", size=384)
    refused = await venue.meet("chosen.example", SecureContext(ca=default_authority().ca, groups="X25519"))
    assert refused.alert is Alert.handshake_failure


@however_chosen
async def test_a_client_that_is_asked_for_another_share_is_looked_up_once(how: str) -> None:
    venue = choosing(how, context_for("chosen.example", groups="P-256"))
    client = SecureContext(ca=default_authority().ca, groups="X25519:P-256")
    left, right = memory_stream_pair()
    recording = RecordingStream(right)
    outcome = await venue.meet_over(recording, TLSStream(left, client, host="chosen.example"))
    assert recording.sent[11:43] == RETRY_RANDOM
    assert outcome.shown == "chosen.example"
    assert venue.asked == ["chosen.example"]


@pytest.mark.feature("B19")
@however_chosen
@in_both_versions
async def test_the_server_s_key_log_holds_for_every_context(how: str, version: str) -> None:
    logged: list[tuple[str, str | None]] = []

    def note(line: str, stream: TLSStream | None) -> None:
        assert stream is not None
        assert stream.client_hello is not None
        logged.append((line.partition(" ")[0], stream.client_hello.server_name))

    venue = choosing(how, CHOSEN, keylog=note)
    context = SecureContext(ca=default_authority().ca, **only(version))
    for name in ("chosen.example", "elsewhere.invalid"):
        await venue.meet(name, context)
        label = {"TLSv1.2": "CLIENT_RANDOM", "TLSv1.3": "CLIENT_HANDSHAKE_TRAFFIC_SECRET"}[version]
        assert (label, name) in logged


@however_chosen
@in_both_versions
async def test_sessions_resume_with_every_context(how: str, version: str) -> None:
    venue = choosing(how, context_for("chosen.example", session_timeout=77), alpn_protocols=["h2"])
    client = SecureContext(ca=default_authority().ca, **only(version))
    sessions: list[bytes] = []
    first = await venue.meet("chosen.example", client, on_session=sessions.append)
    assert Session.parse(sessions[-1]).lifetime == 77
    again = await venue.meet("chosen.example", client, session=sessions[-1], alpn_protocols=["h2"])
    reused = []
    for outcome in (first, again):
        assert outcome.shown == "chosen.example"
        assert outcome.client is not None
        assert outcome.server is not None
        assert outcome.server.server_name == "chosen.example"
        reused.append((outcome.client.session_reused, outcome.server.session_reused))
    assert reused == [(False, False), (True, True)]
    assert again.server is not None
    assert again.server.alpn_protocol == "h2"


@however_chosen
@in_both_versions
async def test_a_session_does_not_resume_with_another_context(how: str, version: str) -> None:
    client = SecureContext(ca=default_authority().ca, **only(version))
    sessions: list[bytes] = []
    await choosing(how, CHOSEN).meet("chosen.example", client, on_session=sessions.append)
    trusting = context_for("chosen.example", ca=others().ca)
    outcome = await choosing(how, trusting).meet("chosen.example", client, session=sessions[-1])
    assert outcome.shown == "chosen.example"
    assert outcome.server is not None
    assert not outcome.server.session_reused


# RSA and ECDSA

FOR_RSA_ALONE = {
    "TLSv1.2": {"ciphers": "ECDHE-RSA-AES128-GCM-SHA256"},
    "TLSv1.3": {"sigalgs": "rsa_pss_rsae_sha256"},
}
FOR_ECDSA_ALONE = {
    "TLSv1.2": {"ciphers": "ECDHE-ECDSA-AES128-GCM-SHA256"},
    "TLSv1.3": {"sigalgs": "ecdsa_secp256r1_sha256"},
}


def verifying(demands: dict[str, dict[str, str]], version: str) -> SecureContext:
    """A client that can verify signatures of one kind alone."""
    return SecureContext(**{"ca": default_authority().ca, **only(version), **demands[version]})


@however_chosen
@in_both_versions
@pytest.mark.parametrize("default_key", ["EC", "RSA"])
async def test_contexts_with_keys_of_different_types_show_their_own_certificates(
    how: str, version: str, default_key: str
) -> None:
    chosen_key = "RSA" if default_key == "EC" else "EC"
    venue = choosing(
        how,
        SecureContext(**identity("chosen.example", key_type=chosen_key)),
        SecureContext(**identity("default.example", key_type=default_key)),
    )
    clients = {"RSA": verifying(FOR_RSA_ALONE, version), "EC": verifying(FOR_ECDSA_ALONE, version)}
    assert (await venue.meet("chosen.example", clients[chosen_key])).shown == "chosen.example"
    assert (await venue.meet("elsewhere.invalid", clients[default_key])).shown == "default.example"
    # There is no falling back to another context's key.
    refused = await venue.meet("chosen.example", clients[default_key])
    assert refused.alert is Alert.handshake_failure
    assert isinstance(refused.failure, ProtocolError)
    assert refused.failure.server_name == "chosen.example"


@however_chosen
@in_both_versions
async def test_of_a_context_with_both_kinds_of_keys_each_client_gets_what_it_can_verify(
    how: str, version: str
) -> None:
    rsa, ec = identity("rsa.chosen.example", key_type="RSA"), identity("ec.chosen.example")
    both = SecureContext(key=[rsa["key"], ec["key"]], cert=[rsa["cert"], ec["cert"]])
    venue = choosing(how, both)
    for demands, shown in ((FOR_RSA_ALONE, "rsa.chosen.example"), (FOR_ECDSA_ALONE, "ec.chosen.example")):
        assert (await venue.meet("chosen.example", verifying(demands, version))).shown == shown


# Callbacks that fail


def raises(error: BaseException) -> Callable[[str], None]:
    def callback(_name: str) -> None:
        raise error

    return callback


def raises_later(error: BaseException) -> Callable[[str], Any]:
    async def callback(_name: str) -> None:
        await trio.lowlevel.checkpoint()
        raise error

    return callback


def raises_in_a_nursery(error: BaseException) -> Callable[[str], Any]:
    async def callback(name: str) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(raises_later(error), name)

    return callback


failing_ways = pytest.mark.parametrize("failing", [raises, raises_later, raises_in_a_nursery])


@failing_ways
@in_both_versions
async def test_a_callback_that_raises_refuses_with_unrecognized_name(
    failing: Callable[[BaseException], Any], version: str
) -> None:
    cause = LookupError("no such host")
    venue = Venue(sni_callback=failing(cause))
    outcome = await venue.meet("chosen.example", SecureContext(ca=default_authority().ca, **only(version)))
    assert outcome.alert is Alert.unrecognized_name
    error = outcome.failure
    assert isinstance(error, CallbackError)
    assert (error.callback, error.code, error.side) == ("sni_callback", "ERR_TLS_CALLBACK", "local")
    assert (error.phase, error.server_name) == ("handshake", "chosen.example")
    raised = error.__cause__
    if failing is raises_in_a_nursery:
        assert isinstance(raised, ExceptionGroup)
        (raised,) = raised.exceptions
    assert raised is cause


async def test_an_exception_group_that_a_callback_raises_is_the_cause_as_it_is() -> None:
    group = ExceptionGroup("all of the stores", [LookupError("first"), OSError("second")])
    outcome = await Venue(sni_callback=raises(group)).meet("chosen.example")
    assert outcome.alert is Alert.unrecognized_name
    assert outcome.failure is not None
    assert outcome.failure.__cause__ is group


@failing_ways
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
async def test_an_interrupt_passes_through(
    failing: Callable[[BaseException], Any], interrupt: type[BaseException]
) -> None:
    server = TLSServer(idle, DEFAULT, sni_callback=failing(interrupt()))
    client, transport = memory_stream_pair()
    await client.send_all(client_hello())
    with pytest.RaisesGroup(interrupt, flatten_subgroups=True):
        await server.handle(transport)
    assert not server.statistics().failed
    assert await client.receive_some() == b""


@pytest.mark.parametrize("result", [{}, "chosen.example", b"", 0, DEFAULT.__class__], ids=repr)
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_result_that_is_no_context_refuses_with_internal_error(
    result: Any, *, is_async: bool
) -> None:
    async def answer_later(_name: str) -> Any:
        return result

    venue = Venue(sni_callback=answer_later if is_async else lambda _name: result)
    # It is no excuse that there is another one.
    venue.server.add_context("chosen.example", CHOSEN)
    outcome = await venue.meet("chosen.example")
    assert outcome.alert is Alert.internal_error
    error = outcome.failure
    assert isinstance(error, CallbackError)
    assert error.callback == "sni_callback"
    assert error.reason == f"sni_callback returned {result!r}, which is no SecureContext"
    assert error.__cause__ is None


# Without dhparam no server can use these suites; a client can.
UNUSABLE = SecureContext(ca=[], ciphers="DHE-RSA-AES128-GCM-SHA256")


@pytest.mark.parametrize(("context", "option"), [(UNUSABLE, "ciphers"), (CLIENT, "context")])
async def test_a_context_that_no_server_can_use_refuses_this_client_alone(
    context: SecureContext, option: str
) -> None:
    venue = Venue(sni_callback=lambda name: context if name == "chosen.example" else None)
    outcome = await venue.meet("chosen.example")
    assert outcome.alert is Alert.internal_error
    error = outcome.failure
    assert isinstance(error, CallbackError)
    assert error.reason == "sni_callback returned a context that no server can use"
    assert isinstance(error.__cause__, ConfigurationError)
    assert error.__cause__.option == option
    assert (await venue.meet("elsewhere.invalid")).shown == "default.example"


@pytest.mark.feature("B10")
@pytest.mark.parametrize("pattern", ["chosen.example", "*.example"])
@pytest.mark.parametrize(("context", "option"), [(UNUSABLE, "ciphers"), (CLIENT, "context")])
async def test_a_context_that_no_server_can_use_is_not_added(
    pattern: str, context: SecureContext, option: str
) -> None:
    venue = Venue()
    venue.server.add_context(pattern, CHOSEN)
    with pytest.raises(ConfigurationError) as caught:
        venue.server.add_context(pattern, context)
    assert caught.value.option == option
    assert (await venue.meet("chosen.example")).shown == "chosen.example"


@pytest.mark.feature("B1")
def test_a_default_context_that_no_server_can_use_is_refused() -> None:
    with pytest.raises(ConfigurationError) as caught:
        TLSServer(idle, UNUSABLE, psk=lambda _stream, _identity: b"key")
    assert caught.value.option == "ciphers"


# Callbacks that take their time


@pytest.mark.feature("B7")
async def test_a_callback_that_never_returns_is_bounded_by_the_handshake_timeout(
    autojump_clock: MockClock,
) -> None:
    async def never(_name: str) -> None:
        await trio.sleep_forever()

    outcome = await Venue(sni_callback=never, handshake_timeout=10).meet("chosen.example")
    assert trio.current_time() == 10
    assert isinstance(outcome.failure, HandshakeTimeout)
    assert outcome.failure.server_name == "chosen.example"
    assert outcome.server is None
    assert isinstance(outcome.refusal, ConnectionLost)


async def test_cancelling_a_server_cancels_its_callbacks_and_is_nobody_s_failure() -> None:
    cancelled: list[str] = []

    async def wait(name: str) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.append(name)
            raise

    server = TLSServer(idle, DEFAULT, sni_callback=wait)
    client, transport = memory_stream_pair()
    await client.send_all(client_hello("chosen.example"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.handle, transport)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert cancelled == ["chosen.example"]
    assert not server.statistics().failed
    assert await client.receive_some() == b""


async def test_a_handshake_that_was_cancelled_in_the_callback_asks_again_when_it_goes_on() -> None:
    asked: list[str] = []

    async def wait_once(name: str) -> SecureContext:
        asked.append(name)
        if len(asked) == 1:
            await trio.sleep_forever()
        return CHOSEN

    left, right = memory_stream_pair()
    client = TLSStream(left, CLIENT, host="chosen.example")
    server = TLSStream(right, DEFAULT, server_side=True, sni_callback=wait_once)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as cancelled:
                cancelled.start_soon(server.do_handshake)
                await wait_all_tasks_blocked()
                scope.cancel()
        assert asked == ["chosen.example"]
        await server.do_handshake()
    assert client.authorized
    assert asked == ["chosen.example"] * 2
    await client.aclose()
    await server.aclose()


@pytest.mark.feature("C1")
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_stream_made_by_hand_asks_its_callback(*, is_async: bool) -> None:
    async def look_up_later(_name: str) -> SecureContext:
        return CHOSEN

    left, right = memory_stream_pair()
    client = TLSStream(left, CLIENT, host="chosen.example")
    callback = look_up_later if is_async else lambda _name: CHOSEN
    server = TLSStream(right, DEFAULT, server_side=True, sni_callback=callback)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        nursery.start_soon(server.do_handshake)
    assert client.authorized
    assert server.server_name == "chosen.example"
    await client.aclose()
    await server.aclose()


@pytest.mark.feature("F15")
@pytest.mark.node("test-tls-snicallback-error.js")
@pytest.mark.parametrize("value", ["localhost", 1, {}, [], CHOSEN], ids=repr)
def test_a_callback_that_cannot_be_called_is_refused(value: Any) -> None:
    _, right = memory_stream_pair()
    for make in (Venue, functools.partial(TLSStream, right, DEFAULT, server_side=True)):
        with pytest.raises(tls.ConfigurationTypeError) as caught:
            make(sni_callback=value)
        assert (caught.value.code, caught.value.option) == ("ERR_INVALID_ARG_TYPE", "sni_callback")


async def test_contexts_that_are_made_for_one_connection_go_with_it() -> None:
    made: list[weakref.ref[SecureContext]] = []

    def make(name: str) -> SecureContext:
        context = context_for(name)
        made.append(weakref.ref(context))
        return context

    venue = Venue(sni_callback=make)
    for _ in range(3):
        assert (await venue.meet("chosen.example")).shown == "chosen.example"
    gc.collect()
    assert [context() for context in made] == [None] * 3


# As in Node.js


@functools.cache
def authorities() -> dict[str, Authority]:
    return {"ca1": Authority(), "ca2": Authority()}


@functools.cache
def agents() -> dict[str, IssuedCertificate]:
    first, second = authorities().values()
    return {
        "agent1": first.good("agent1"),
        "agent2": first.self_signed("agent2"),
        "agent3": second.good("agent3"),
        "agent4": second.client("agent4"),
        "agent6": first.good("agent6", intermediates=1),
    }


def agent(name: str, trusted: list[str] | None = None) -> SecureContext:
    ca = None if trusted is None else [authorities()[authority].ca for authority in trusted]
    return SecureContext(ca=ca, **agents()[name].options)


def finds_nothing_wrong_but_the_name(outcome: Outcome) -> bool:
    assert outcome.client is not None
    assert outcome.client.authorization_error is not None
    return outcome.client.authorization_error.code == "ERR_TLS_CERT_ALTNAME_INVALID"


VERIFYING = {"check_server_identity": tls.check_server_identity, "reject_unauthorized": False}


@pytest.mark.feature("B10")
@pytest.mark.node("test-tls-sni-server-client.js")
@pytest.mark.parametrize(
    NODE["addContext"]["columns"], NODE["addContext"]["rows"].values(), ids=NODE["addContext"]["rows"]
)
async def test_added_contexts_serve_whom_they_do_in_node(
    servername: str, client_ca: str, *, good: bool
) -> None:
    venue = Venue(agent(NODE["addContext"]["default"]))
    for pattern, name in NODE["addContext"]["contexts"].items():
        venue.server.add_context(pattern, agent(name))
    client = SecureContext(ca=authorities()[client_ca].ca)
    outcome = await venue.meet(servername, client, **VERIFYING)
    assert finds_nothing_wrong_but_the_name(outcome) is good
    assert outcome.server is not None
    assert outcome.server.server_name == servername
    assert outcome.server.authorized is False


@pytest.mark.feature("B8")
@pytest.mark.node("test-tls-sni-option.js")
@pytest.mark.parametrize(
    NODE["SNICallback"]["columns"], NODE["SNICallback"]["rows"].values(), ids=NODE["SNICallback"]["rows"]
)
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_callback_serves_whom_it_does_in_node(
    servername: str,
    client_cert: str,
    client_ca: str,
    *,
    good: bool | None,
    authorized: bool | None,
    is_async: bool,
) -> None:
    contexts = NODE["SNICallback"]["contexts"]

    def look_up(name: str) -> Any:
        found = contexts.get(name)
        return agent(*found) if isinstance(found, list) else found and {}

    async def look_up_later(name: str) -> Any:
        await trio.lowlevel.checkpoint()
        return look_up(name)

    venue = Venue(
        agent(NODE["SNICallback"]["default"]),
        sni_callback=look_up_later if is_async else look_up,
        request_cert=True,
        reject_unauthorized=False,
    )
    outcome = await venue.meet(servername, agent(client_cert, [client_ca]), **VERIFYING)
    if good is None:
        # Node's tlsClientError is "Invalid SNI context", and its client is told nothing.
        assert outcome.alert is Alert.internal_error
        assert isinstance(outcome.failure, CallbackError)
        assert outcome.failure.server_name == servername
        return
    assert finds_nothing_wrong_but_the_name(outcome) is good
    assert outcome.server is not None
    assert outcome.server.server_name == servername
    assert outcome.server.authorized is authorized


@pytest.mark.feature("B10")
@pytest.mark.node("test-tls-secure-context-usage-order.js")
async def test_the_context_that_was_added_last_is_taken_each_time() -> None:
    client = SecureContext(ca=authorities()["ca1"].ca, **agents()["agent1"].options)
    venue = Venue(agent("agent2"), request_cert=True, reject_unauthorized=False)
    authorized = []
    for trusted, times in ((["ca2"], 1), (["ca1"], 2)):
        venue.server.add_context("*.example.com", agent("agent1", trusted))
        for _ in range(times):
            outcome = await venue.meet("a.example.com", client)
            assert outcome.server is not None
            authorized.append(outcome.server.authorized)
    assert authorized == [False, True, True]
