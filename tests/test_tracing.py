"""trace=: whom it traces, what is told of real connections, and that it costs nothing where it is off."""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple

import pytest
import trio
from engine_pairs import MOST_FLIGHTS, identity
from entrances import (
    Entrance,
    client_context,
    server_context,
    through_every_client,
    through_every_entrance,
    through_every_server,
)
from trio.testing import MockClock, memory_stream_pair

import trio_tlsnode as tls
from trio_tlsnode import Alert, Engine, HandshakeTrace, SecureContext, TLSServer, TLSStream
from trio_tlsnode._openssl import callbacks
from trio_tlsnode.testing import FailingStream, StallingStream, default_authority, tls_pair
from trio_tlsnode.trace_events import TimeSpent, Wait

pytestmark = [pytest.mark.feature("B21"), pytest.mark.feature("C18")]

VERSIONS = ["TLSv1.2", "TLSv1.3"]
in_both_versions = pytest.mark.parametrize("version", VERSIONS)
in_both_roles = pytest.mark.parametrize("role", ["client", "server"])

HELLO = "> ClientHello"
ASKING_FLIGHT = "{EncryptedExtensions} {CertificateRequest} {Certificate} {CertificateVerify} {Finished}"
ENCRYPTED_FLIGHT = "{EncryptedExtensions} {Certificate} {CertificateVerify} {Finished}"


def figure(trace: HandshakeTrace | None) -> list[str]:
    """Return the flights of a connection as in the figures of RFC 8446."""
    assert trace is not None
    return [
        f"{'>' if flight.sent == (trace.role == 'client') else '<'} "
        + " ".join(message.marked_name for message in flight.messages)
        for flight in trace.flights
    ]


def trace_of(stream: TLSStream) -> HandshakeTrace:
    assert stream.trace is not None
    return stream.trace


class Meeting(NamedTuple):
    """A client and a server that have met, and what each failed of."""

    client: TLSStream
    server: TLSStream
    client_error: tls.ConnectionFailed | None
    server_error: tls.ConnectionFailed | None

    @property
    def sides(self) -> list[tuple[TLSStream, tls.ConnectionFailed | None]]:
        """The client, and the server, with what each failed of."""
        return [(self.client, self.client_error), (self.server, self.server_error)]

    @property
    def figure(self) -> list[str]:
        """What both tell; of a failure, one may not have seen the end."""
        ours, theirs = figure(self.client.trace), figure(self.server.trace)
        assert ours[: len(theirs)] == theirs[: len(ours)]
        return max(ours, theirs, key=len)


async def meet(
    version: str | None = None,
    *,
    transports: tuple[trio.abc.Stream, trio.abc.Stream] | None = None,
    client: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
    **options: Any,
) -> Meeting:
    """Return a client and a server, both traced, that have tried to greet each other."""
    pair = await tls_pair(
        transports,
        version=version,
        handshake=False,
        client_options={"trace": HandshakeTrace, **(client or {})},
        server_options={"trace": HandshakeTrace, **(server or {})},
        **options,
    )
    errors: list[tls.ConnectionFailed | None] = [None, None]

    async def greet(side: int) -> None:
        try:
            await pair[side].do_handshake()
            if side:
                await pair[side].send_all(b"welcome")
            else:
                await pair[side].receive_some()
        except tls.ConnectionFailed as error:
            errors[side] = error
            await trio.aclose_forcefully(pair[side].transport_stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(greet, 0)
        nursery.start_soon(greet, 1)
    return Meeting(*pair, *errors)


async def hang_up(meeting: Meeting) -> None:
    for stream in (meeting.client, meeting.server):
        await trio.aclose_forcefully(stream)


# The ways to ask for it


async def try_handshake(stream: TLSStream) -> None:
    with contextlib.suppress(tls.ConnectionFailed):
        await stream.do_handshake()


async def leave(_stream: TLSStream) -> None:
    pass


@through_every_entrance
async def test_a_function_is_called_with_each_line_and_the_stream(
    through: Entrance, nursery: trio.Nursery
) -> None:
    told: list[tuple[str, TLSStream | None]] = []
    stream = await through(nursery, trace=lambda line, whose: told.append((line, whose)))
    assert {whose for _, whose in told} == {stream}
    lines = [line for line, _ in told]
    trace = trace_of(stream)
    assert [line for line in lines if "  secure: " not in line] == [*map(trace.line, trace.messages)]
    assert sum("secure: TLSv1.3" in line for line in lines) == 1
    await trio.aclose_forcefully(stream)


@through_every_entrance
async def test_true_writes_a_line_for_each_message_on_the_standard_error(
    through: Entrance, nursery: trio.Nursery, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = await through(nursery, trace=True)
    output, lines = capsys.readouterr()
    assert output == ""
    assert "client --> server  ClientHello, " in lines.splitlines()[0]
    assert "  secure: TLSv1.3, " in lines
    await trio.aclose_forcefully(stream)


@through_every_entrance
async def test_the_class_is_one_trace_for_each_connection(through: Entrance, nursery: trio.Nursery) -> None:
    first, second = [await through(nursery, trace=HandshakeTrace) for _ in range(2)]
    assert first.trace is not second.trace
    for stream in (first, second):
        assert trace_of(stream).info is stream.info
        await trio.aclose_forcefully(stream)


class TalkativeTrace(HandshakeTrace):
    """A trace of somebody's own."""


@through_every_entrance
async def test_a_class_may_be_derived_from_it(through: Entrance, nursery: trio.Nursery) -> None:
    stream = await through(nursery, trace=TalkativeTrace)
    assert type(stream.trace) is TalkativeTrace
    await trio.aclose_forcefully(stream)


@through_every_client
async def test_an_instance_is_for_one_connection(through: Entrance, nursery: trio.Nursery) -> None:
    trace = HandshakeTrace()
    stream = await through(nursery, trace=trace)
    assert stream.trace is trace
    assert figure(trace)[0] == HELLO
    await trio.aclose_forcefully(stream)
    seen = trace.to_dict()
    with pytest.raises(tls.ConfigurationError, match="for one connection") as caught:
        await through(nursery, trace=trace)
    assert caught.value.option == "trace"
    assert trace.to_dict() == seen


async def test_two_that_were_given_the_same_instance_do_not_mix() -> None:
    trace = HandshakeTrace()
    first, _ = await tls_pair(handshake=False, client_options={"trace": trace})
    second, _ = await tls_pair(handshake=False, client_options={"trace": trace})
    first._engine.do_handshake()
    for _ in range(2):
        with pytest.raises(tls.ConfigurationError, match="for one connection"):
            await second.do_handshake()
    assert figure(trace) == [HELLO]


@through_every_server
async def test_a_server_takes_no_instance(through: Entrance, nursery: trio.Nursery) -> None:
    with pytest.raises(tls.ConfigurationError, match="give the class") as caught:
        await through(nursery, trace=HandshakeTrace())
    assert caught.value.option == "trace"


@through_every_entrance
@pytest.mark.parametrize("value", ["trace.txt", 1, b"", object()])
async def test_what_cannot_be_told_is_refused(
    through: Entrance, value: object, nursery: trio.Nursery
) -> None:
    with pytest.raises(tls.ConfigurationTypeError, match="trace must be") as caught:
        await through(nursery, trace=value)
    assert caught.value.option == "trace"


@through_every_entrance
@pytest.mark.parametrize("value", [None, False])
async def test_nothing_is_traced_unless_asked_for(
    through: Entrance, value: Any, nursery: trio.Nursery
) -> None:
    stream = await through(nursery, trace=value)
    assert stream.trace is None
    await trio.aclose_forcefully(stream)


async def test_a_trace_begins_with_the_handshake(autojump_clock: MockClock) -> None:
    client, server = await tls_pair(
        handshake=False, client_options={"trace": HandshakeTrace}, server_options={"trace": HandshakeTrace}
    )
    assert (trace_of(client).started_at, trace_of(server).started_at) == (None, None)
    await trio.sleep(5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        nursery.start_soon(server.do_handshake)
    for stream in (client, server):
        assert trace_of(stream).started_at == 5
        assert trace_of(stream).duration == 0


# What is told


async def resumed(version: str) -> Meeting:
    first = await meet(version)
    session = first.client.session
    assert session is not None
    await hang_up(first)
    return await meet(version, client={"session": session})


async def with_client_certificate(version: str) -> Meeting:
    alice = default_authority().client("alice")
    return await meet(
        client_context=client_context(**alice.options, min_version=version, max_version=version),
        server_context=server_context(ca=default_authority().ca),
        server={"request_cert": True},
    )


@pytest.mark.parametrize(
    ("version", "make", "flights"),
    [
        (
            "TLSv1.3",
            meet,
            [
                HELLO,
                f"< ServerHello ChangeCipherSpec {ENCRYPTED_FLIGHT}",
                "> ChangeCipherSpec {Finished}",
                "< {NewSessionTicket} {NewSessionTicket}",
            ],
        ),
        (
            "TLSv1.2",
            meet,
            [
                HELLO,
                "< ServerHello Certificate ServerKeyExchange ServerHelloDone",
                "> ClientKeyExchange ChangeCipherSpec {Finished}",
                "< NewSessionTicket ChangeCipherSpec {Finished}",
            ],
        ),
        (
            "TLSv1.3",
            resumed,
            [
                HELLO,
                "< ServerHello ChangeCipherSpec {EncryptedExtensions} {Finished}",
                "> ChangeCipherSpec {Finished}",
                "< {NewSessionTicket}",
            ],
        ),
        (
            "TLSv1.2",
            resumed,
            [HELLO, "< ServerHello ChangeCipherSpec {Finished}", "> ChangeCipherSpec {Finished}"],
        ),
        (
            "TLSv1.3",
            with_client_certificate,
            [
                HELLO,
                f"< ServerHello ChangeCipherSpec {ASKING_FLIGHT}",
                "> ChangeCipherSpec {Certificate} {CertificateVerify} {Finished}",
                "< {NewSessionTicket} {NewSessionTicket}",
            ],
        ),
        (
            "TLSv1.2",
            with_client_certificate,
            [
                HELLO,
                "< ServerHello Certificate ServerKeyExchange CertificateRequest ServerHelloDone",
                "> Certificate ClientKeyExchange CertificateVerify ChangeCipherSpec {Finished}",
                "< NewSessionTicket ChangeCipherSpec {Finished}",
            ],
        ),
    ],
)
async def test_both_sides_tell_a_handshake_as_it_is_on_the_wire(
    version: str, make: Callable[[str], Any], flights: list[str]
) -> None:
    meeting = await make(version)
    for stream in (meeting.client, meeting.server):
        trace = trace_of(stream)
        assert figure(trace) == flights
        assert trace.info is stream.info
        assert (trace.protocol, trace.resumed) == (version, make is resumed)
        assert (trace.failure, trace.left_out) == (None, 0)
        # Nothing has passed of which it has not told.
        statistics = stream.statistics()
        for sent, size, data in (
            (True, statistics.ciphertext_sent, trace.application_data.bytes_sent),
            (False, statistics.ciphertext_received, trace.application_data.bytes_received),
        ):
            assert sum(flight.bytes for flight in trace.flights if flight.sent == sent) + data == size
    await hang_up(meeting)


async def test_a_retry_is_told_as_each_side_takes_it() -> None:
    """A client's OpenSSL answers before it has looked at what came with the request."""
    meeting = await meet(server_context=server_context(groups="P-256"))
    assert figure(meeting.server.trace)[:4] == [
        HELLO,
        "< HelloRetryRequest ChangeCipherSpec",
        "> ChangeCipherSpec ClientHello",
        f"< ServerHello {ENCRYPTED_FLIGHT}",
    ]
    assert figure(meeting.client.trace)[:4] == [
        HELLO,
        "< HelloRetryRequest",
        "> ChangeCipherSpec ClientHello",
        f"< ChangeCipherSpec ServerHello {ENCRYPTED_FLIGHT}",
    ]
    assert [trace_of(stream).round_trips for stream in (meeting.client, meeting.server)] == [2, 2]
    await hang_up(meeting)


async def test_early_data_is_counted_before_the_handshake_is_done() -> None:
    limited = {"max_early_data": 1000}
    earlier = await meet(server=limited)
    early = {"session": earlier.client.session, "early_data": b"early"}
    await hang_up(earlier)
    meeting = await meet(server=limited, client=early)
    assert figure(meeting.client.trace) == [
        f"{HELLO} ChangeCipherSpec",
        "< ServerHello ChangeCipherSpec {EncryptedExtensions} {Finished}",
        "> {EndOfEarlyData} {Finished}",
        "< {NewSessionTicket}",
    ]
    client, server = trace_of(meeting.client), trace_of(meeting.server)
    assert client.messages[0].description.endswith("; early data")
    assert [client.application_data.records_sent, server.application_data.records_received] == [1, 1]
    await hang_up(meeting)


async def test_a_renegotiation_is_traced() -> None:
    meeting = await meet("TLSv1.2")
    before = len(figure(meeting.client.trace))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(meeting.client.receive_some)
        await meeting.server.renegotiate(request_cert=False)
        await meeting.server.send_all(b"done")
    assert meeting.figure[before:] == [
        "< {HelloRequest}",
        "> {ClientHello}",
        "< {ServerHello} {Certificate} {ServerKeyExchange} {ServerHelloDone}",
        "> {ClientKeyExchange} {ChangeCipherSpec} {Finished}",
        "< {ChangeCipherSpec} {Finished}",
    ]
    assert all(flight.after_handshake for flight in trace_of(meeting.server).flights[before:])
    await hang_up(meeting)


async def test_a_request_for_a_certificate_after_the_handshake_is_traced() -> None:
    meeting = await meet(
        client_context=client_context(**default_authority().client("alice").options),
        server_context=server_context(ca=default_authority().ca),
        client={"post_handshake_auth": True},
    )
    before = len(figure(meeting.client.trace))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(meeting.client.receive_some)
        await meeting.server.request_client_certificate()
        await meeting.server.send_all(b"done")
    assert meeting.figure[before:] == [
        "< {CertificateRequest}",
        "> {Certificate} {CertificateVerify} {Finished}",
        "< {NewSessionTicket} {NewSessionTicket}",
    ]
    await hang_up(meeting)


@in_both_versions
async def test_the_goodbye_is_traced_and_a_trace_outlives_its_stream(version: str) -> None:
    meeting = await meet(version)
    await meeting.server.aclose()
    assert await meeting.client.receive_some() == b""
    await meeting.client.aclose()
    for stream in (meeting.client, meeting.server):
        assert [alert.description for alert in trace_of(stream).alerts][:1] == ["warning close_notify"]
        assert "{Alert}                        2  warning close_notify" in str(stream.trace)


# Refusals


def raise_lookup_error(*_: object) -> Any:
    raise LookupError("nobody here")


@pytest.mark.parametrize(
    ("options", "alert", "error"),
    [
        (
            {"server": {"sni_callback": raise_lookup_error}, "client": {"host": "localhost"}},
            Alert.unrecognized_name,
            "CallbackError",
        ),
        (
            {"server": {"alpn_protocols": ["h2"]}, "client": {"alpn_protocols": ["h3"]}},
            Alert.no_application_protocol,
            "ProtocolError",
        ),
    ],
    ids=["sni_callback", "alpn"],
)
async def test_a_refusal_before_openssl_has_seen_the_hello_is_told_by_both(
    options: dict[str, Any], alert: Alert, error: str
) -> None:
    meeting = await meet(**options)
    assert meeting.figure == [HELLO, "< Alert"]
    server, client = trace_of(meeting.server), trace_of(meeting.client)
    assert [message.alert for message in server.alerts] == [alert] == [found.alert for found in client.alerts]
    assert server.failure is not None
    assert client.failure is not None
    assert (server.failure.error, client.failure.error) == (error, "PeerAlert")
    await hang_up(meeting)


async def test_a_hello_that_is_refused_is_told_with_the_answer_that_has_left() -> None:
    """OpenSSL would take an IP address for a name, and answer."""
    hello = Engine(client_context(), host="localhost")
    hello.do_handshake()
    flight = hello.drain().replace(b"localhost", b"local\xffost")
    left, right = memory_stream_pair()
    stream = TLSStream(right, server_context(), server_side=True, trace=HandshakeTrace)
    await left.send_all(flight)
    with pytest.raises(tls.ProtocolError):
        await stream.do_handshake()
    assert figure(stream.trace) == [HELLO, "< Alert"]
    answer = await left.receive_some()
    assert answer[:5] == bytes.fromhex("1503030002")
    assert trace_of(stream).alerts[0].alert == answer[-1]
    await trio.aclose_forcefully(stream)


async def test_an_answer_that_is_withdrawn_is_not_told() -> None:
    """OpenSSL has made the client's half of an exchange that is refused, and all that follows it."""
    older: Any = {"max_version": "TLSv1.2", "ciphers": "DHE-RSA-AES128-GCM-SHA256"}
    meeting = await meet(
        client_context=client_context(**older),
        server_context=SecureContext(**identity("RSA"), dhparam="auto", **older),
        client={"min_dh_size": 8192},
    )
    flights = [HELLO, "< ServerHello Certificate ServerKeyExchange ServerHelloDone", "> Alert"]
    assert figure(meeting.client.trace) == figure(meeting.server.trace) == flights
    sizes = [[flight.bytes for flight in trace_of(stream).flights] for stream, _ in meeting.sides]
    assert sizes[0] == sizes[1]
    await hang_up(meeting)


async def test_what_is_no_tls_leaves_a_failure_alone() -> None:
    left, right = memory_stream_pair()
    stream = TLSStream(right, server_context(), server_side=True, trace=HandshakeTrace)
    await left.send_all(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(tls.NotTLS):
        await stream.do_handshake()
    trace = trace_of(stream)
    assert trace.flights == ()
    assert trace.failure is not None
    assert trace.failure.code == "ERR_SSL_HTTP_REQUEST"
    await trio.aclose_forcefully(stream)


@in_both_versions
async def test_a_refusal_by_the_client_is_told_by_both(version: str) -> None:
    meeting = await meet(version, client={"host": "wrong.example"})
    client, server = trace_of(meeting.client), trace_of(meeting.server)
    assert [[found.alert for found in trace.alerts] for trace in (client, server)] == [
        [Alert.bad_certificate]
    ] * 2
    assert client.failure is not None
    assert client.failure.code == "ERR_TLS_CERT_ALTNAME_INVALID"
    assert client.duration == client.failure.time
    assert "FAILED" in client._repr_html_()
    await hang_up(meeting)


async def test_the_trace_of_a_client_that_a_server_could_not_serve_is_in_the_error() -> None:
    left, right = memory_stream_pair()
    server = TLSServer(leave, server_context(), trace=HandshakeTrace)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.handle, right)
        with pytest.raises(tls.CertificateError):
            await tls.wrap_client(left, ca=[])
    (error,) = (await anext(server.client_errors())).exceptions
    assert isinstance(error, tls.PeerAlert)
    assert error.stream is not None
    assert figure(error.stream.trace)[-1] == "> Alert"


async def test_a_time_out_is_told(autojump_clock: MockClock) -> None:
    left, right = memory_stream_pair()
    silent = StallingStream(right, receive_after=0)
    client = TLSStream(left, client_context(), trace=HandshakeTrace, handshake_timeout=3)
    server = TLSStream(silent, server_context(), server_side=True, trace=HandshakeTrace, handshake_timeout=4)
    async with trio.open_nursery() as nursery:
        for stream in (client, server):
            nursery.start_soon(fail_of_time_out, stream)
    assert trace_of(client).time_spent == TimeSpent(peer=3, callbacks=0, here=0)
    assert trace_of(server).time_spent == TimeSpent(peer=4, callbacks=0, here=0)


async def fail_of_time_out(stream: TLSStream) -> None:
    with pytest.raises(tls.HandshakeTimeout):
        await stream.do_handshake()
    failure = trace_of(stream).failure
    assert failure is not None
    assert (failure.error, failure.time) == ("HandshakeTimeout", trio.current_time())
    await trio.aclose_forcefully(stream)


async def test_a_transport_that_breaks_is_told() -> None:
    left, _ = memory_stream_pair()
    client = TLSStream(FailingStream(left, send=1), client_context(), trace=HandshakeTrace)
    with pytest.raises(tls.ConnectionLost):
        await client.do_handshake()
    failure = trace_of(client).failure
    assert failure is not None
    assert failure.error == "ConnectionLost"
    await trio.aclose_forcefully(client)


# Callbacks that are waited for


def after(seconds: float, answer: Any = None) -> Callable[..., Any]:
    async def callback(*_: object) -> Any:
        await trio.sleep(seconds)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return callback


@pytest.mark.parametrize(
    ("callback", "answer"),
    [
        ("sni_callback", None),
        ("alpn_callback", "h2"),
        ("ocsp_callback", None),
        ("psk", None),
        ("resume", False),
        ("on_new_session", None),
    ],
)
async def test_a_callback_is_waited_for(autojump_clock: MockClock, callback: str, answer: Any) -> None:
    client: dict[str, Any] = {"host": "localhost", "alpn_protocols": ["h2"], "request_ocsp": True}
    if callback == "resume":
        earlier = await meet("TLSv1.3", client=client)
        client["session"] = earlier.client.session
        await hang_up(earlier)
    if callback == "psk":
        client["psk"] = lambda _hint: tls.PreSharedKey("me", bytes(32))
    meeting = await meet("TLSv1.3", client=client, server={callback: after(7, answer)})
    assert (meeting.client_error, meeting.server_error) == (None, None)
    trace = trace_of(meeting.server)
    assert trace.waits == (Wait(callback, 0, 7),)
    if callback != "on_new_session":
        # The last one is called when the handshake is done.
        assert trace.time_spent == TimeSpent(peer=0, callbacks=7, here=0)
        assert trace_of(meeting.client).time_spent == TimeSpent(peer=7, callbacks=0, here=0)
    assert f"{callback} took 7,000.000 ms" in trace.text()
    await hang_up(meeting)


async def test_callbacks_are_told_one_after_the_other(autojump_clock: MockClock) -> None:
    meeting = await meet(
        client={"host": "localhost", "alpn_protocols": ["h2"], "request_ocsp": True},
        server={
            "sni_callback": after(1),
            "alpn_callback": after(2, "h2"),
            "ocsp_callback": after(3),
        },
    )
    assert trace_of(meeting.server).waits == (
        Wait("sni_callback", 0, 1),
        Wait("alpn_callback", 1, 3),
        Wait("ocsp_callback", 3, 6),
    )
    assert trace_of(meeting.server).duration == 6
    await hang_up(meeting)


async def test_a_callback_that_raises_has_been_waited_for(autojump_clock: MockClock) -> None:
    meeting = await meet(
        client={"host": "localhost"}, server={"sni_callback": after(2, LookupError("nobody"))}
    )
    trace = trace_of(meeting.server)
    assert trace.waits == (Wait("sni_callback", 0, 2),)
    assert trace.failure is not None
    assert (trace.failure.error, trace.failure.time) == ("CallbackError", 2)
    await hang_up(meeting)


async def test_a_time_out_tells_which_callback_took_too_long(autojump_clock: MockClock) -> None:
    meeting = await meet(
        client={"host": "localhost"},
        server={"sni_callback": after(60), "handshake_timeout": 5},
    )
    assert isinstance(meeting.server_error, tls.HandshakeTimeout)
    trace = trace_of(meeting.server)
    assert trace.waits == (Wait("sni_callback", 0, 5),)
    assert trace.time_spent == TimeSpent(peer=0, callbacks=5, here=0)
    await hang_up(meeting)


# Listeners that fail


def options_of(role: str, option: str, value: object) -> dict[str, Any]:
    return {role: {option: value}}


class FailingListener:
    """Raises when it is told the line of this number."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.told: list[str] = []

    def __call__(self, line: str, _stream: object) -> None:
        self.told.append(line)
        if len(self.told) > self._number:
            raise LookupError("the listener is away")


@in_both_versions
@in_both_roles
async def test_a_listener_that_fails_ends_the_handshake_at_whichever_line_it_is(
    version: str, role: str
) -> None:
    told_peer: Counter[object] = Counter()
    for number in itertools.count():
        listener = FailingListener(number)
        meeting = await meet(version, **options_of(role, "trace", listener))
        (stream, error), (_, peers_error) = meeting.sides[:: 1 if role == "client" else -1]
        if error is None:
            # What comes after the handshake fails the next call instead.
            break
        assert isinstance(error, tls.CallbackError)
        assert (error.callback, error.reason) == ("trace", "trace raised")
        assert isinstance(error.__cause__, LookupError)
        # It has failed for good.
        with pytest.raises(tls.CallbackError):
            await stream.receive_some()
        with pytest.raises(trio.NeedHandshakeError):
            _ = stream.info
        # It is not called again, but what is kept goes on.
        assert len(listener.told) == number + 1
        failure = trace_of(stream).failure
        assert failure is not None
        assert failure.error == "CallbackError"
        told_peer[getattr(peers_error, "alert", type(peers_error))] += 1
        await hang_up(meeting)
    assert "  secure: " in listener.told[number - 1]
    # The others were told after the last flight, when there is no alert but a goodbye.
    assert told_peer[Alert.internal_error] >= 7


@in_both_roles
def test_nothing_leaves_but_the_alert(role: str) -> None:
    """OpenSSL has finished its part of the handshake, and would have it sent."""

    def tell(line: str, _stream: object) -> None:
        if "ServerHello" in line:
            raise LookupError("the listener is away")

    client_context, server_context = shared_contexts("TLSv1.3")
    client = Engine(client_context, host="localhost", trace=tell if role == "client" else None)
    server = Engine(server_context, server_side=True, trace=tell if role == "server" else None)
    client.do_handshake()
    server.feed(client.drain())
    failing = server
    if role == "client":
        server.do_handshake()
        client.feed(server.drain())
        failing = client
    with pytest.raises(tls.CallbackError):
        failing.do_handshake()
    assert failing.drain() == Alert.internal_error.plaintext_record()


async def test_a_server_goes_on_after_a_listener_that_fails(nursery: trio.Nursery) -> None:
    def tell(_line: str, stream: TLSStream) -> None:
        if stream.client_hello is not None and stream.client_hello.server_name == "trouble.example":
            raise LookupError("nowhere to write")

    server = TLSServer(leave, server_context(), trace=tell)
    for host, problem in (("trouble.example", True), ("localhost", False)):
        left, right = memory_stream_pair()
        nursery.start_soon(server.handle, right)
        client = TLSStream(left, client_context(), host=host, check_server_identity=lambda *_: None)
        with pytest.raises(tls.PeerAlert) if problem else contextlib.nullcontext():
            await client.do_handshake()
        await trio.aclose_forcefully(client)
    (error,) = (await anext(server.client_errors())).exceptions
    assert isinstance(error, tls.CallbackError)
    assert isinstance(error.__cause__, LookupError)
    assert server.statistics().secure == 1


async def test_what_failed_first_stays_the_failure_though_nobody_can_be_told() -> None:
    def tell(line: str, _stream: TLSStream) -> None:
        if "  failed: " in line:
            raise LookupError("nowhere to write")

    meeting = await meet(client={"trace": tell, "host": "wrong.example"})
    assert isinstance(meeting.client_error, tls.IdentityError)
    assert isinstance(meeting.server_error, tls.PeerAlert)
    await hang_up(meeting)


@in_both_roles
async def test_a_listener_may_not_be_async(role: str) -> None:
    async def tell(_line: str, _stream: TLSStream) -> None:
        raise AssertionError

    meeting = await meet(**options_of(role, "trace", tell))
    _, error = meeting.sides[role == "server"]
    assert isinstance(error, tls.CallbackError)
    assert "may not be async" in str(error.__cause__)
    await hang_up(meeting)


@in_both_versions
@in_both_roles
def test_an_interruption_in_a_listener_is_the_programs(version: str, role: str) -> None:
    """An engine, unlike a stream, does nothing to keep them for later."""
    for number in range(10):
        told = 0

        def tell(_line: str, _stream: object, number: int = number) -> None:
            nonlocal told
            told += 1
            if told == number + 1:
                raise KeyboardInterrupt

        options: Any = {f"{role}_options": {"trace": tell}}
        with pytest.raises(KeyboardInterrupt):
            converse(version, **options)


def test_an_interruption_over_a_ticket_comes_behind_the_data() -> None:
    def tell(line: str, _stream: object) -> None:
        if "NewSessionTicket" in line:
            raise KeyboardInterrupt

    client, _ = converse(client_options={"trace": tell})
    with pytest.raises(KeyboardInterrupt):
        client.read()
    assert client.read() is tls.Want.READ


# Whom it traces


def converse(
    version: str = "TLSv1.3",
    *,
    contexts: tuple[SecureContext, SecureContext] | None = None,
    client_options: dict[str, Any] | None = None,
    server_options: dict[str, Any] | None = None,
) -> tuple[Engine, Engine]:
    """Return a client and a server that have greeted each other, without an event loop."""
    client_context, server_context = contexts or shared_contexts(version)
    client = Engine(client_context, host="localhost", **(client_options or {}))
    server = Engine(server_context, server_side=True, **(server_options or {}))
    for _ in range(MOST_FLIGHTS):
        for engine, peer in ((client, server), (server, client)):
            engine.do_handshake()
            if data := engine.drain():
                peer.feed(data)
    for engine, peer in ((client, server), (server, client)):
        engine.write(bytes(40_000))
        peer.feed(engine.drain())
        read = 0
        while read < 40_000:
            plaintext = peer.read()
            assert isinstance(plaintext, bytes)
            read += len(plaintext)
    return client, server


@functools.cache
def shared_contexts(version: str) -> tuple[SecureContext, SecureContext]:
    versions: Any = {"min_version": version, "max_version": version}
    return client_context(**versions), server_context(**versions)


TRACED: dict[str, Any] = {
    "client_options": {"trace": HandshakeTrace},
    "server_options": {"trace": HandshakeTrace},
}


@in_both_versions
def test_a_traced_connection_is_the_only_one_of_its_context(version: str) -> None:
    before, _ = converse(version)
    traced, _ = converse(version, **TRACED)
    after, _ = converse(version)
    assert (before.trace, after.trace) == (None, None)
    assert traced.trace is not None
    assert [message.name for message in traced.trace.messages].count("Finished") == 2
    seen = traced.trace.to_dict()
    converse(version)
    assert traced.trace.to_dict() == seen


@in_both_versions
def test_connections_in_two_threads_are_traced_apart(version: str) -> None:
    conversations = 12
    contexts = shared_contexts(version)
    done: list[tuple[Engine, Engine]] = []

    def work(options: dict[str, Any]) -> None:
        done.extend([converse(contexts=contexts, **options) for _ in range(conversations)])

    threads = [threading.Thread(target=work, args=(options,)) for options in (TRACED, TRACED, {})]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    traces = [engine.trace for pair in done for engine in pair if engine.trace is not None]
    assert len(done) == 3 * conversations
    assert len(traces) == 4 * conversations
    assert len({tuple(figure(trace)) for trace in traces}) == 1


def python_calls(run: Callable[[], object]) -> Counter[str]:
    """Count the calls of Python functions, by their names."""
    calls: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            calls[f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}"] += 1

    gc.collect()
    gc.disable()
    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(None)
        gc.enable()
    return calls


@in_both_versions
def test_a_connection_that_is_not_traced_costs_no_call(version: str) -> None:
    contexts = shared_contexts(version)
    untraced = functools.partial(converse, contexts=contexts)
    untraced()
    before = python_calls(untraced)
    traced = python_calls(functools.partial(untraced, **TRACED))
    assert python_calls(untraced) == before
    for name, calls in before.items():
        assert "trace" not in name, (name, calls)
        assert "on_message" not in name, (name, calls)
    assert traced["trio_tlsnode._openssl.callbacks.on_message"] > 50


async def test_a_server_that_does_not_trace_costs_no_call() -> None:
    calls: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _argument: object) -> None:
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.startswith("trio_tlsnode"):
            calls[f"{module}.{frame.f_code.co_qualname}"] += 1

    options = {"sni_callback": after(0), "handshake_timeout": 10}
    client, server = await tls_pair(
        handshake=False, client_options={"host": "localhost"}, server_options=options
    )
    sys.setprofile(count)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.do_handshake)
            nursery.start_soon(server.do_handshake)
    finally:
        sys.setprofile(None)
    assert "trio_tlsnode.negotiation.ServerPolicy._ask" in calls
    assert [name for name in calls if "trace" in name or "tell" in name or "on_message" in name] == []
    for stream in (client, server):
        await trio.aclose_forcefully(stream)


# Letting go


@pytest.mark.parametrize(
    "trace",
    [HandshakeTrace, lambda _line, _stream: None, raise_lookup_error],
    ids=["class", "function", "failing"],
)
@in_both_versions
async def test_a_traced_stream_is_freed_with_its_last_reference(version: str, trace: Any) -> None:
    async def live_and_die() -> list[weakref.ref[Any]]:
        options = {"trace": trace}
        streams = await tls_pair(
            version=version, handshake=False, client_options=options, server_options=options
        )
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(try_handshake, stream)
        for stream in streams:
            await stream.aclose()
            assert stream._engine._ssl is None
        return [weakref.ref(thing) for stream in streams for thing in (stream, stream._engine, stream.trace)]

    gc.collect()
    gc.disable()
    try:
        connections = len(callbacks.connections)
        left = await live_and_die()
        # Trio itself holds the last exception of a task until its next turn.
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        assert [ref() for ref in left] == [None] * len(left)
        assert len(callbacks.connections) == connections
    finally:
        gc.enable()


async def test_a_trace_that_is_kept_keeps_nothing_else_alive() -> None:
    gc.collect()
    gc.disable()
    try:
        traces = []
        connections = len(callbacks.connections)
        for _ in range(3):
            meeting = await meet()
            traces += [meeting.client.trace, meeting.server.trace]
            await hang_up(meeting)
        left: list[weakref.ref[Any]] = [weakref.ref(meeting.client), weakref.ref(meeting.server._engine)]
        del meeting
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        assert [ref() for ref in left] == [None, None]
        assert len(callbacks.connections) == connections
    finally:
        gc.enable()
