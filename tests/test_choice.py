"""Choice: what an `alpn_callback` is told, and what comes of its answer."""

from __future__ import annotations

import dataclasses
import functools
import gc
import weakref
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import trio
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509 import load_pem_x509_certificate
from faults import meet, only
from test_sni import (
    CHOSEN,
    CLIENT,
    DEFAULT,
    RETRY_RANDOM,
    Outcome,
    Venue,
    context_for,
    failing_ways,
    identity,
    idle,
    in_both_versions,
    others,
)
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

import trio_tlsnode as tls
from trio_tlsnode import (
    Alert,
    CallbackError,
    CertificateError,
    Choice,
    ConfigurationError,
    ConfigurationTypeError,
    Engine,
    HandshakeTimeout,
    ProtocolError,
    SecureContext,
    TLSServer,
    TLSStream,
)
from trio_tlsnode._openssl.library import NULL, lib
from trio_tlsnode.testing import RecordingStream, TransportWrapper, default_authority

pytestmark = pytest.mark.feature("B12")


def client(version: str | None = None, **options: Any) -> SecureContext:
    return SecureContext(ca=default_authority().ca, **({} if version is None else only(version)), **options)


def assert_refused(outcome: Outcome, alert: Alert = Alert.no_application_protocol) -> CallbackError:
    """Return the callback's error, of which both sides have heard."""
    assert outcome.alert is alert
    assert isinstance(outcome.failure, CallbackError)
    assert outcome.failure.callback == "alpn_callback"
    return outcome.failure


# What it is told


@in_both_versions
async def test_a_callback_is_told_the_name_and_the_protocols_and_what_it_returns_is_negotiated(
    version: str,
) -> None:
    told: list[tuple[str | None, tuple[str, ...]]] = []

    def choose(choice: Choice) -> str:
        told.append((choice.server_name, choice.protocols))
        return "b"

    outcome = await Venue(alpn_callback=choose).meet("a.example", client(version), alpn_protocols=["a", "b"])
    assert told == [("a.example", ("a", "b"))]
    for info in (outcome.client, outcome.server):
        assert info is not None
        assert info.alpn_protocol == "b"


@pytest.mark.parametrize("offered", [None, []])
@in_both_versions
async def test_a_client_without_protocols_is_served_and_nobody_is_asked(offered: Any, version: str) -> None:
    asked: list[Choice] = []
    venue = Venue(alpn_callback=asked.append)
    outcome = await venue.meet("a.example", client(version), alpn_protocols=offered)
    assert outcome.shown == "default.example"
    assert outcome.server is not None
    assert outcome.server.alpn_protocol is None
    assert not asked


async def test_a_choice_has_the_whole_hello_and_no_name_where_none_was_sent() -> None:
    choices: list[Choice] = []

    def choose(choice: Choice) -> str:
        choices.append(choice)
        return choice.protocols[0]

    venue = Venue(alpn_callback=choose)
    for name in ("a.example", "192.0.2.1"):
        assert (await venue.meet(name, client("TLSv1.3"), alpn_protocols=["h2", "x"])).shown
    named, nameless = choices
    assert named.hello.version_names == ("TLSv1.3",)
    assert named.hello.server_name == "a.example"
    assert named.remote_address is None
    assert repr(named) == "<Choice for 'a.example' of h2, x>"
    assert nameless.server_name is None
    assert repr(nameless) == "<Choice for None of h2, x>"


async def test_a_choice_tells_where_the_client_is(nursery: trio.Nursery) -> None:
    addresses: list[tls.Address | None] = []

    def choose(choice: Choice) -> str:
        addresses.append(choice.remote_address)
        return "h2"

    venue = Venue(alpn_callback=choose)
    (listener,) = await nursery.start(venue.server.serve, 0, "127.0.0.1")
    transport = await trio.testing.open_stream_to_socket_listener(listener)
    port = transport.socket.getsockname()[1]
    async with await tls.wrap_client(
        transport, context=CLIENT, host="default.example", alpn_protocols=["h2"]
    ) as stream:
        assert stream.alpn_protocol == "h2"
    assert addresses == [tls.Address("127.0.0.1", port, "IPv4")]


@pytest.mark.feature("B9")
async def test_the_context_is_looked_up_first_then_the_protocol_is_chosen() -> None:
    asked: list[tuple[str, str | None]] = []

    async def look_up(name: str) -> SecureContext | None:
        asked.append(("sni", name))
        return CHOSEN if name == "chosen.example" else None

    async def choose(choice: Choice) -> str:
        asked.append(("alpn", choice.server_name))
        return "internal" if choice.server_name == "chosen.example" else "h2"

    venue = Venue(sni_callback=look_up, alpn_callback=choose)
    protocols = {}
    for name in ("chosen.example", "elsewhere.invalid"):
        outcome = await venue.meet(name, alpn_protocols=["h2", "internal"])
        assert outcome.server is not None
        protocols[outcome.shown] = outcome.server.alpn_protocol
    assert protocols == {"chosen.example": "internal", "default.example": "h2"}
    assert asked == [
        ("sni", "chosen.example"),
        ("alpn", "chosen.example"),
        ("sni", "elsewhere.invalid"),
        ("alpn", "elsewhere.invalid"),
    ]


@pytest.mark.feature("B9")
async def test_where_the_context_is_refused_nobody_is_asked_for_a_protocol() -> None:
    asked: list[Choice] = []

    def refuse(_name: str) -> None:
        raise LookupError

    outcome = await Venue(sni_callback=refuse, alpn_callback=asked.append).meet(
        "a.example", alpn_protocols=["h2"]
    )
    assert outcome.alert is Alert.unrecognized_name
    assert not asked


# What it answers


@pytest.mark.parametrize(
    ("offered", "answer", "negotiated"),
    [
        (["a", "b"], "a", "a"),
        (["a", "b"], "b", "b"),
        (["a", "b"], b"b", "b"),
        (["a", "b"], bytearray(b"b"), "b"),
        (["a", "b"], memoryview(b"b"), "b"),
        ([b"\xff\0"], b"\xff\0", "\xff\0"),
        ([b"\xff\0"], "\xff\0", "\xff\0"),
        (["x" * 255], "x" * 255, "x" * 255),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
async def test_an_answer_may_be_text_or_bytes_now_or_later(
    offered: Any, answer: Any, negotiated: str, *, is_async: bool
) -> None:
    async def answer_later(_choice: Choice) -> Any:
        await trio.lowlevel.checkpoint()
        return answer

    venue = Venue(alpn_callback=answer_later if is_async else lambda _choice: answer)
    outcome = await venue.meet("a.example", alpn_protocols=offered)
    assert outcome.client is not None
    assert outcome.server is not None
    assert outcome.client.alpn_protocol == outcome.server.alpn_protocol == negotiated


@in_both_versions
@pytest.mark.parametrize("is_async", [False, True])
async def test_none_refuses_the_client(version: str, *, is_async: bool) -> None:
    async def decline(_choice: Choice) -> None:
        await trio.lowlevel.checkpoint()

    venue = Venue(alpn_callback=decline if is_async else lambda _choice: None)
    outcome = await venue.meet("a.example", client(version), alpn_protocols=["a"])
    assert outcome.alert is Alert.no_application_protocol
    assert type(outcome.failure) is ProtocolError
    assert outcome.failure.code == "ERR_SSL_NO_APPLICATION_PROTOCOL"
    assert outcome.failure.phase == "handshake"


@in_both_versions
@pytest.mark.parametrize(
    "answer",
    ["http/5", "A", "a ", "", b"", "\u20ac", b"\xff", 0, True, ["a"], ("a",), {}, mock.ANY],
    ids=repr,
)
async def test_an_answer_that_is_not_offered_refuses_the_client(answer: Any, version: str) -> None:
    venue = Venue(alpn_callback=lambda _choice: answer)
    error = assert_refused(await venue.meet("a.example", client(version), alpn_protocols=["a", "b"]))
    assert error.code == "ERR_TLS_ALPN_CALLBACK_INVALID_RESULT"
    assert error.reason == f"alpn_callback returned {answer!r}, which the client does not offer"
    assert error.side == "local"
    assert error.__cause__ is None


@failing_ways
@in_both_versions
async def test_a_callback_that_raises_refuses_the_client(
    failing: Callable[[BaseException], Any], version: str
) -> None:
    cause = LookupError("no such protocol")
    venue = Venue(alpn_callback=failing(cause))
    error = assert_refused(await venue.meet("a.example", client(version), alpn_protocols=["a"]))
    assert (error.code, error.phase, error.server_name) == ("ERR_TLS_CALLBACK", "handshake", "a.example")
    raised = error.__cause__
    while isinstance(raised, ExceptionGroup):
        (raised,) = raised.exceptions
    assert raised is cause


@failing_ways
async def test_an_interrupt_passes_through(failing: Callable[[BaseException], Any]) -> None:
    server = TLSServer(idle, DEFAULT, alpn_callback=failing(KeyboardInterrupt()))
    asking = Engine(CLIENT, host="a.example", alpn_protocols=["h2"])
    asking.do_handshake()
    left, right = memory_stream_pair()
    await left.send_all(asking.drain())
    with pytest.RaisesGroup(KeyboardInterrupt, flatten_subgroups=True):
        await server.handle(right)
    assert not server.statistics().failed


@pytest.mark.feature("B7")
async def test_a_callback_that_never_returns_is_bounded_by_the_handshake_timeout(
    autojump_clock: MockClock,
) -> None:
    async def never(_choice: Choice) -> str:
        await trio.sleep_forever()
        raise AssertionError

    venue = Venue(alpn_callback=never, handshake_timeout=10)
    outcome = await venue.meet("a.example", alpn_protocols=["h2"])
    assert trio.current_time() == 10
    assert isinstance(outcome.failure, HandshakeTimeout)
    assert outcome.failure.client_hello is not None
    assert outcome.failure.client_hello.alpn_protocols == ("h2",)


async def test_cancelling_a_server_cancels_its_callbacks_and_is_nobody_s_failure() -> None:
    cancelled: list[Choice] = []

    async def wait(choice: Choice) -> str:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(choice)
        raise AssertionError

    server = TLSServer(idle, DEFAULT, alpn_callback=wait)
    asking = Engine(CLIENT, host="a.example", alpn_protocols=["h2"])
    asking.do_handshake()
    left, right = memory_stream_pair()
    await left.send_all(asking.drain())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.handle, right)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert len(cancelled) == 1
    assert not server.statistics().failed
    assert await left.receive_some() == b""


@pytest.mark.feature("C1")
async def test_a_stream_made_by_hand_asks_its_callback() -> None:
    left, right = memory_stream_pair()
    ours = TLSStream(left, CLIENT, host="default.example", alpn_protocols=["a", "b"])
    theirs = TLSStream(right, DEFAULT, server_side=True, alpn_callback=lambda choice: choice.protocols[1])
    assert await meet(theirs, ours) == (None, None)
    assert ours.alpn_protocol == theirs.alpn_protocol == "b"


# How it is given


@pytest.mark.feature("B11")
@pytest.mark.node("test-tls-alpn-server-client.js", "test-http2-alpn.js")
@pytest.mark.parametrize("protocols", [["b", "c"], [], b"\x02h2"])
def test_a_callback_beside_a_list_is_refused(protocols: Any) -> None:
    _, right = memory_stream_pair()
    for make in (Venue, functools.partial(TLSStream, right, DEFAULT, server_side=True)):
        with pytest.raises(ConfigurationError) as caught:
            make(alpn_callback=lambda _choice: "b", alpn_protocols=protocols)
        assert caught.value.code == "ERR_TLS_ALPN_CALLBACK_WITH_PROTOCOLS"
        assert caught.value.option == "alpn_callback"


@pytest.mark.feature("F15")
@pytest.mark.parametrize("value", ["h2", 1, ["h2"], {}], ids=repr)
def test_a_callback_that_cannot_be_called_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationTypeError) as caught:
        Venue(alpn_callback=value)
    assert (caught.value.code, caught.value.option) == ("ERR_INVALID_ARG_TYPE", "alpn_callback")


def test_a_client_has_no_such_callback() -> None:
    left, _ = memory_stream_pair()
    with pytest.raises(TypeError, match="alpn_callback"):
        TLSStream(left, CLIENT, alpn_callback=lambda _choice: "b")  # type: ignore[call-overload]


# The second hello, after a HelloRetryRequest


class ChangesItsMind(TransportWrapper):
    """A client's transport that lets it offer other protocols when it is asked for another share.

    Attributes:
        ssl: The client's ``SSL *``.
    """

    ssl: Any

    def __init__(self, transport: trio.abc.Stream, protocols: bytes) -> None:
        super().__init__(transport)
        self._protocols = protocols

    async def _receive(self, max_bytes: int) -> bytes:
        data = await super()._receive(max_bytes)
        if data[11:43] == RETRY_RANDOM:
            # Our own clients do not.
            lib.SSL_set_alpn_protos(self.ssl, self._protocols or NULL, len(self._protocols))
        return data


async def meet_again(venue: Venue, first: list[str] | None, second: bytes) -> Outcome:
    """Have a client come that lacks a share, and offers other protocols when it is asked for one."""
    left, right = memory_stream_pair()
    recording = RecordingStream(right)
    transport = ChangesItsMind(left, second)
    stream = TLSStream(transport, client(groups="X25519:P-256"), host="default.example", alpn_protocols=first)
    transport.ssl = stream._engine._ssl
    outcome = await venue.meet_over(recording, stream)
    assert recording.sent[11:43] == RETRY_RANDOM
    return outcome


P256_ALONE = context_for("default.example", groups="P-256")


@pytest.mark.parametrize(
    ("first", "second", "negotiated"),
    [
        (["a", "b"], b"\1a\1b", "b"),
        (["a", "b"], b"\1b\1x", "b"),
        (None, b"\1a\1b", None),
    ],
    ids=["the same", "others too", "none before"],
)
async def test_a_client_that_is_asked_for_another_share_has_one_choice(
    first: list[str] | None, second: bytes, negotiated: str | None
) -> None:
    choices: list[Choice] = []

    def choose(choice: Choice) -> str:
        choices.append(choice)
        return "b"

    outcome = await meet_again(Venue(P256_ALONE, alpn_callback=choose), first, second)
    for info in (outcome.client, outcome.server):
        assert info is not None
        assert info.alpn_protocol == negotiated
    assert [choice.protocols for choice in choices] == ([] if first is None else [("a", "b")])


@pytest.mark.feature("B11")
@pytest.mark.parametrize("options", [{"alpn_callback": lambda _choice: "b"}, {"alpn_protocols": ["b"]}])
async def test_a_second_hello_without_the_protocol_that_was_chosen_is_refused(options: Any) -> None:
    outcome = await meet_again(Venue(P256_ALONE, **options), ["a", "b"], b"\1a\1x")
    assert outcome.alert is Alert.no_application_protocol
    assert isinstance(outcome.failure, ProtocolError)
    assert outcome.failure.code == "ERR_SSL_NO_APPLICATION_PROTOCOL"


@pytest.mark.feature("B11")
@pytest.mark.parametrize("options", [{"alpn_callback": lambda _choice: "b"}, {"alpn_protocols": ["b"]}])
async def test_a_second_hello_without_any_protocol_is_refused(options: Any) -> None:
    outcome = await meet_again(Venue(P256_ALONE, **options), ["a", "b"], b"")
    assert outcome.server is None
    assert isinstance(outcome.failure, ProtocolError)
    assert outcome.failure.code == "ERR_SSL_BAD_EXTENSION"
    # OpenSSL is content with it, so that all which the client hears is a goodbye.
    assert outcome.refusal is None


# The certificate that goes with a protocol

OWN = identity("default.example")
OTHER_EC = identity("other.example")


@functools.cache
def other_with_chain(key_type: Any) -> dict[str, Any]:
    """Another certificate, behind which stands an intermediate."""
    issued = default_authority().good("other.example", intermediates=1, key_type=key_type)
    return {"key": load_pem_private_key(issued.key, None), "cert": issued.cert}


def showing(context: SecureContext, result: str = "h2") -> Callable[[Choice], str]:
    """A callback that presents the certificate of a context."""

    def choose(choice: Choice) -> str:
        choice.use_credentials(context)
        return result

    return choose


@pytest.mark.feature("B13")
@in_both_versions
@pytest.mark.parametrize("other", ["EC", "RSA"])
@pytest.mark.parametrize("own", ["EC", "RSA"])
async def test_a_certificate_is_shown_by_protocol_with_its_own_key_and_chain(
    own: str, other: str, version: str
) -> None:
    chosen = SecureContext(**other_with_chain(other))

    def choose(choice: Choice) -> str:
        if "special" in choice.protocols:
            choice.use_credentials(chosen)
            return "special"
        return "h2"

    venue = Venue(SecureContext(**identity("default.example", key_type=own)), alpn_callback=choose)
    shown = {}
    for protocols in (["h2"], ["h2", "special"], ["h2"], None):
        outcome = await venue.meet("a.example", client(version), alpn_protocols=protocols)
        assert outcome.client is not None
        assert outcome.server is not None
        assert outcome.client.peer_certificate == outcome.server.certificate
        assert outcome.client.authorized
        shown[outcome.client.alpn_protocol] = (outcome.shown, len(outcome.client.peer_certificate_chain))
        if outcome.client.alpn_protocol == "special":
            sent = b"".join(
                certificate.x509.public_bytes(Encoding.PEM)
                for certificate in outcome.client.peer_certificate_chain
            )
            assert sent == other_with_chain(other)["cert"]
    assert shown == {
        "h2": ("default.example", 1),
        "special": ("other.example", 2),
        None: ("default.example", 1),
    }


@pytest.mark.feature("B9")
@pytest.mark.feature("B13")
async def test_the_certificate_is_exchanged_in_the_context_that_was_looked_up() -> None:
    looked_up = context_for("chosen.example", ciphers="TLS_AES_128_GCM_SHA256", min_version="TLSv1.3")
    venue = Venue(sni_callback=lambda _name: looked_up, alpn_callback=showing(SecureContext(**OTHER_EC)))
    outcome = await venue.meet("chosen.example", alpn_protocols=["h2"])
    assert outcome.shown == "other.example"
    assert outcome.server is not None
    assert outcome.server.cipher.name == "TLS_AES_128_GCM_SHA256"


@pytest.mark.feature("B13")
async def test_a_pkcs12_file_s_chain_is_sent_with_its_certificate() -> None:
    issued = default_authority().good("other.example", intermediates=1)
    key: Any = load_pem_private_key(issued.key, None)
    intermediate = load_pem_x509_certificate(issued.intermediates)
    pfx = pkcs12.serialize_key_and_certificates(b"", key, issued.certificate, [intermediate], NoEncryption())
    outcome = await Venue(alpn_callback=showing(SecureContext(pfx=pfx))).meet("a", alpn_protocols=["h2"])
    assert outcome.shown == "other.example"
    assert outcome.client is not None
    assert [certificate.x509 for certificate in outcome.client.peer_certificate_chain] == [
        issued.certificate,
        intermediate,
    ]


@pytest.mark.feature("B13")
@in_both_versions
async def test_of_several_certificates_each_client_gets_what_it_can_verify(version: str) -> None:
    rsa, ec = other_with_chain("RSA"), OTHER_EC
    both = SecureContext(key=[rsa["key"], ec["key"]], cert=[rsa["cert"], ec["cert"]])
    venue = Venue(alpn_callback=showing(both))
    for sigalgs, length in (("rsa_pss_rsae_sha256", 2), ("ecdsa_secp256r1_sha256", 1)):
        verifying = client(version, sigalgs=f"{sigalgs}:ed25519")
        outcome = await venue.meet("other.example", verifying, alpn_protocols=["h2"])
        assert outcome.client is not None
        assert outcome.client.authorized
        assert len(outcome.client.peer_certificate_chain) == length


@pytest.mark.feature("B8")
@pytest.mark.feature("B13")
@in_both_versions
async def test_whom_the_server_trusts_stays_as_it_was(version: str) -> None:
    venue = Venue(
        context_for("default.example", ca=default_authority().ca),
        alpn_callback=showing(context_for("other.example", ca=others().ca, **only(version))),
        request_cert=True,
    )
    verdicts = []
    for authority in (default_authority(), others()):
        who = client(version, **authority.client("somebody").options)
        outcome = await venue.meet("a.example", who, alpn_protocols=["h2"])
        verdicts.append(outcome.failure and type(outcome.failure))
        if outcome.failure is None:
            assert outcome.shown == "other.example"
    assert verdicts == [None, CertificateError]


@pytest.mark.feature("B13")
def test_nothing_else_of_the_context_changes() -> None:
    own = SecureContext(
        **OWN,
        ca=default_authority().ca,
        ciphers="ECDHE+AESGCM",
        honor_cipher_order=False,
        max_version="TLSv1.2",
        require_groups="P-256",
        sigalgs="ECDSA+SHA256:RSA-PSS+SHA256",
        session_timeout=7,
        session_id_context="mine",
    )
    other = SecureContext(**other_with_chain("RSA"), ca=others().ca, min_version="TLSv1.3", groups="X25519")
    merged = own.with_credentials_of(other)
    credentials = own._settings.credentials
    assert dataclasses.replace(merged._settings, credentials=credentials) == own._settings
    assert merged._settings.credentials == other._settings.credentials


@pytest.mark.feature("B13")
@in_both_versions
async def test_sessions_resume_as_before_and_the_callback_is_asked_each_time(version: str) -> None:
    choices: list[Choice] = []
    other = SecureContext(**OTHER_EC)

    def choose(choice: Choice) -> str:
        choices.append(choice)
        choice.use_credentials(other)
        return "h2"

    venue = Venue(alpn_callback=choose)
    sessions: list[bytes] = []
    options: Any = {"on_session": sessions.append, "alpn_protocols": ["h2"]}
    first = await venue.meet("other.example", client(version), **options)
    again = await venue.meet("other.example", client(version), session=sessions[-1], **options)
    for outcome, reused in ((first, False), (again, True)):
        assert outcome.server is not None
        assert outcome.server.session_reused is reused
        assert outcome.server.alpn_protocol == "h2"
        assert outcome.shown == "other.example"
    assert len(choices) == 2


@pytest.mark.feature("B13")
@pytest.mark.feature("B18")
async def test_the_response_that_is_stapled_is_for_the_certificate_that_is_shown() -> None:
    issued = default_authority().good("other.example", intermediates=1)
    asked: list[tls.Certificate] = []

    def staple(certificate: tls.Certificate, issuer: tls.Certificate | None) -> bytes:
        assert issuer is not None
        asked.append(certificate)
        return default_authority().ocsp_response(issued)

    venue = Venue(alpn_callback=showing(SecureContext(**issued.options)), ocsp_callback=staple)
    outcome = await venue.meet("a.example", alpn_protocols=["h2"], ocsp="require")
    assert outcome.shown == "other.example"
    assert outcome.client is not None
    assert outcome.client.authorized
    assert [certificate.x509 for certificate in asked] == [issued.certificate]


@pytest.mark.feature("B13")
@pytest.mark.feature("B19")
async def test_the_server_s_key_log_holds_for_other_credentials_too() -> None:
    logged: list[str] = []
    venue = Venue(
        alpn_callback=showing(context_for("other.example")), keylog=lambda line, _stream: logged.append(line)
    )
    outcome = await venue.meet("a.example", alpn_protocols=["h2"])
    assert outcome.shown == "other.example"
    assert any(line.startswith("CLIENT_TRAFFIC_SECRET_0 ") for line in logged)


@pytest.mark.feature("B13")
@pytest.mark.parametrize(
    ("contexts", "shown"),
    [
        ([], "default.example"),
        (["other.example", "third.example"], "third.example"),
        (["other.example", "default.example"], "default.example"),
    ],
)
async def test_what_was_said_last_counts(contexts: list[str], shown: str) -> None:
    async def choose(choice: Choice) -> str:
        for name in contexts:
            choice.use_credentials(context_for(name))
            await trio.lowlevel.checkpoint()
        return "h2"

    outcome = await Venue(alpn_callback=choose).meet("a.example", alpn_protocols=["h2"])
    assert outcome.shown == shown


@pytest.mark.feature("B13")
async def test_a_callback_may_exchange_the_certificate_and_refuse_all_the_same() -> None:
    def choose(choice: Choice) -> None:
        choice.use_credentials(context_for("other.example"))

    outcome = await Venue(alpn_callback=choose).meet("a.example", alpn_protocols=["h2"])
    assert outcome.alert is Alert.no_application_protocol


# Credentials that cannot be used


@pytest.mark.feature("B13")
@pytest.mark.parametrize(
    ("context", "error"),
    [
        (CLIENT, ConfigurationError),
        (None, ConfigurationTypeError),
        ({}, ConfigurationTypeError),
        (SecureContext, ConfigurationTypeError),
        (default_authority().good("other.example"), ConfigurationTypeError),
    ],
    ids=["no certificate", "None", "a dict", "a class", "no context"],
)
async def test_what_has_no_credentials_is_the_callback_s_own_error(
    context: Any, error: type[ConfigurationError]
) -> None:
    caught = assert_refused(
        await Venue(alpn_callback=showing(context)).meet("a.example", alpn_protocols=["h2"])
    ).__cause__
    assert type(caught) is error
    assert caught.option == "context"


@pytest.mark.feature("B13")
async def test_a_callback_may_handle_its_own_error() -> None:
    def choose(choice: Choice) -> str:
        with pytest.raises(ConfigurationError):
            choice.use_credentials(CLIENT)
        return "h2"

    outcome = await Venue(alpn_callback=choose).meet("a.example", alpn_protocols=["h2"])
    assert outcome.shown == "default.example"


@pytest.mark.feature("B13")
async def test_credentials_that_do_not_go_with_the_context_refuse_this_client_alone() -> None:
    weak = default_authority().weak_key("other.example")
    other = SecureContext(**weak.options, ciphers="DEFAULT@SECLEVEL=0")

    def choose(choice: Choice) -> str:
        if "weak" in choice.protocols:
            choice.use_credentials(other)
        return "h2"

    venue = Venue(alpn_callback=choose)
    error = assert_refused(await venue.meet("a.example", alpn_protocols=["weak", "h2"]), Alert.internal_error)
    assert error.reason == "alpn_callback chose credentials that this context cannot use"
    assert isinstance(error.__cause__, ConfigurationError)
    assert error.__cause__.option == "cert"
    assert (await venue.meet("a.example", alpn_protocols=["h2"])).shown == "default.example"


# What is kept


@pytest.mark.feature("B13")
async def test_two_connections_share_the_context_that_was_made_for_them() -> None:
    contexts = []
    own, other = context_for("default.example"), context_for("other.example")

    async def note(stream: TLSStream) -> None:
        contexts.append(stream._engine.context)

    server = TLSServer(note, own, alpn_callback=showing(other))
    for _ in range(2):
        left, right = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.handle, right)
            async with await tls.wrap_client(
                left, context=CLIENT, host="other.example", alpn_protocols=["h2"]
            ):
                pass
    first, second = contexts
    assert first is second
    assert first is not own
    assert first is not other


@pytest.mark.feature("B13")
async def test_credentials_that_are_made_for_one_connection_go_with_it() -> None:
    made: list[weakref.ref[SecureContext]] = []
    own = context_for("default.example")

    def choose(choice: Choice) -> str:
        other = context_for("other.example")
        choice.use_credentials(other)
        made.append(weakref.ref(other))
        made.append(weakref.ref(own.with_credentials_of(other)))
        return "h2"

    venue = Venue(own, alpn_callback=choose)
    for _ in range(3):
        assert (await venue.meet("a.example", alpn_protocols=["h2"])).shown == "other.example"
    gc.collect()
    assert [context() for context in made] == [None] * 6


@pytest.mark.feature("B13")
def test_a_context_that_is_replaced_goes_though_its_credentials_stay() -> None:
    other = context_for("other.example")
    own = context_for("default.example")
    merged = weakref.ref(own.with_credentials_of(other))
    gone = weakref.ref(own)
    del own
    gc.collect()
    assert (gone(), merged()) == (None, None)
