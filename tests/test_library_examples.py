"""The examples for libraries, run with the libraries themselves."""

from __future__ import annotations

import contextlib
import runpy
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import anyio
import anyio.abc
import h2.config
import h2.connection
import h2.errors
import h2.events
import h11
import httpcore
import httpx
import pytest
import trio
import trio.lowlevel
import trio_websocket
from anyio.streams.tls import TLSAttribute
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

import trio_tlsnode as tls
from trio_tlsnode.testing import Authority

pytestmark = pytest.mark.feature("G6")

EXAMPLES = Path(__file__).parent.parent / "examples"
AUTHORITY = Authority()
GOOD = AUTHORITY.good("localhost")
TRUSTING = tls.SecureContext(ca=AUTHORITY.ca)
Event = TypeVar("Event", bound=h2.events.Event)


def example(name: str) -> Any:
    """Return what is in an example."""
    return SimpleNamespace(**runpy.run_path(str(EXAMPLES / f"{name}.py")))


HTTPX = example("httpx_backend")
HTTP = example("http_server")
WEBSOCKET = example("websocket_echo")
ASGI = example("asgi_server")
ANYIO = example("anyio_client")


@contextlib.asynccontextmanager
async def serving(server: tls.TLSServer) -> AsyncIterator[int]:
    """Serve over TCP until the end of the block; yields the port."""
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, 0, "127.0.0.1")
            yield server.addresses[0].port
            nursery.cancel_scope.cancel()


def server_of(handler: Callable[[tls.TLSStream], Awaitable[object]], **options: Any) -> tls.TLSServer:
    context = tls.SecureContext(**GOOD.options, ca=AUTHORITY.ca)
    return tls.TLSServer(handler, context, **{"https_compatible": True, **options})


def site_of(respond: Callable[[Any], Awaitable[Any]] = HTTP.respond, **limits: Any) -> Any:
    return HTTP.Site(respond, HTTP.Limits(**limits))


def server_for(site: Any, **options: Any) -> tls.TLSServer:
    return server_of(site.serve, alpn_protocols=["h2", "http/1.1"], **options)


async def over_memory(nursery: trio.Nursery, server: tls.TLSServer, protocol: str) -> tls.TLSStream:
    """Return a client of the server."""
    client, transport = memory_stream_pair()
    nursery.start_soon(server.handle, transport)
    return await tls.wrap_client(client, host="localhost", context=TRUSTING, alpn_protocols=[protocol])


# httpx


@pytest.mark.parametrize(("http2", "protocol"), [(True, "h2"), (False, "http/1.1")])
async def test_httpx_speaks_what_was_negotiated(*, http2: bool, protocol: str) -> None:
    transport = HTTPX.TLSTransport(TRUSTING, http2=http2)
    async with serving(server_for(site_of())) as port, httpx.AsyncClient(transport=transport) as client:
        response = await client.get(f"https://localhost:{port}/")
        assert response.http_version == {"h2": "HTTP/2", "http/1.1": "HTTP/1.1"}[protocol]
        assert f"<th>Protocol<td>{protocol}<" in response.text
        info = HTTPX.connection_info(response)
        assert (info.alpn_protocol, info.authorized) == (protocol, True)
        ssl_object = response.extensions["network_stream"].get_extra_info("ssl_object")
        assert ssl_object.version() == info.protocol
        assert ssl_object.getpeercert(binary_form=True) == info.peer_certificate.raw


async def test_httpx_shares_one_connection_of_http2_between_requests() -> None:
    server = server_for(site_of())
    async with serving(server) as port:
        async with httpx.AsyncClient(transport=HTTPX.TLSTransport(TRUSTING, http2=True)) as client:
            answers = {}

            async def ask(number: int) -> None:
                body = bytes([number]) * 60_000
                response = await client.post(f"https://localhost:{port}/echo", content=body)
                answers[number] = response.content == body

            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(ask, number)
        assert answers == dict.fromkeys(range(20), True)
        assert server.statistics().accepted == 1


@pytest.mark.parametrize("http2", [True, False])
async def test_httpx_resumes_sessions(*, http2: bool) -> None:
    server = server_for(site_of())
    transport = HTTPX.TLSTransport(TRUSTING, http2=http2, pool_options={"max_keepalive_connections": 0})
    async with serving(server) as port, httpx.AsyncClient(transport=transport) as client:
        responses = [await client.get(f"https://localhost:{port}/") for _ in range(3)]
        assert server.statistics().resumed == 2
    assert [HTTPX.connection_info(response).session_reused for response in responses] == [False, True, True]


async def test_httpx_shows_a_client_certificate() -> None:
    async def respond(request: Any) -> Any:
        return HTTP.Response(200, request.info.peer_certificate.subject["CN"].encode())

    context = tls.SecureContext(ca=AUTHORITY.ca, **AUTHORITY.client("alice").options)
    server = server_for(site_of(respond), request_cert=True)
    async with serving(server) as port:
        async with httpx.AsyncClient(transport=HTTPX.TLSTransport(context)) as client:
            assert (await client.get(f"https://localhost:{port}/")).text == "alice"


async def test_httpx_writes_a_key_log(tmp_path: Path) -> None:
    transport = HTTPX.TLSTransport(TRUSTING, keylog=tmp_path / "keys.log")
    async with serving(server_for(site_of())) as port, httpx.AsyncClient(transport=transport) as client:
        await client.get(f"https://localhost:{port}/")
    assert "CLIENT_HANDSHAKE_TRAFFIC_SECRET" in (tmp_path / "keys.log").read_text()


async def test_httpx_fails_by_its_own_exceptions_whose_cause_says_more() -> None:
    async with serving(server_for(site_of())) as port:
        async with httpx.AsyncClient(transport=HTTPX.TLSTransport(tls.SecureContext(ca=[]))) as client:
            with pytest.raises(httpx.ConnectError) as caught:
                await client.get(f"https://localhost:{port}/")
    error: Any = caught.value
    assert isinstance(error.__cause__, tls.CertificateError)
    assert error.__cause__.code == "SELF_SIGNED_CERT_IN_CHAIN"


async def test_httpx_is_told_when_nobody_listens() -> None:
    async with serving(server_for(site_of())) as port:
        pass
    async with httpx.AsyncClient(transport=HTTPX.TLSTransport(TRUSTING)) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"https://localhost:{port}/")
        with pytest.raises(httpx.UnsupportedProtocol):
            await client.get("ftp://localhost/")


async def test_httpx_has_its_time_outs() -> None:
    async def respond(request: Any) -> Any:
        await trio.sleep_forever()

    async with serving(server_for(site_of(respond))) as port:
        async with httpx.AsyncClient(transport=HTTPX.TLSTransport(TRUSTING)) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.get(f"https://localhost:{port}/", timeout=httpx.Timeout(5, read=0.01))


@pytest.mark.parametrize(("seconds", "handshake_timeout"), [(5, 100), (None, 5)])
async def test_httpcore_does_not_wait_for_a_handshake_without_end(
    seconds: float | None, handshake_timeout: float, autojump_clock: MockClock
) -> None:
    backend = HTTPX.TLSBackend(TRUSTING, handshake_timeout=handshake_timeout)
    client, server = memory_stream_pair()
    with pytest.raises(httpcore.ConnectTimeout):
        await backend.start_tls(client, "localhost", seconds)
    assert trio.current_time() == 5
    await server.aclose()


async def test_httpx_tells_a_body_that_was_cut_off() -> None:
    async def cut(stream: tls.TLSStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc")
        await stream.transport_stream.aclose()

    async with serving(server_of(cut)) as port:
        async with httpx.AsyncClient(transport=HTTPX.TLSTransport(TRUSTING)) as client:
            with pytest.raises(httpx.ReadError) as caught:
                await client.get(f"https://localhost:{port}/")
    error: Any = caught.value
    assert isinstance(error.__cause__, tls.TruncationError)


async def test_httpx_leaves_a_connection_that_the_server_has_ended() -> None:
    async def answer_once(stream: tls.TLSStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    server = server_of(answer_once)
    async with serving(server) as port:
        async with httpx.AsyncClient(transport=HTTPX.TLSTransport(TRUSTING)) as client:
            for _ in range(2):
                assert (await client.get(f"https://localhost:{port}/")).status_code == 200
                while server.statistics().open:
                    await trio.lowlevel.checkpoint()
        assert server.statistics().accepted == 2


async def test_httpcore_connects_over_a_unix_socket_too(tmp_path: Path) -> None:
    server = server_for(site_of())
    path = tmp_path / "socket"
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve_unix, path)
        async with HTTPX.open_pool(TRUSTING, pool_options={"uds": str(path)}) as pool:
            response = await pool.request("GET", "https://localhost/")
            assert response.status == 200
        nursery.cancel_scope.cancel()


async def test_the_httpx_example_shows_that_sessions_resume(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(server_for(site_of())) as port:
        await HTTPX.main(f"https://localhost:{port}/", TRUSTING)
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["HTTP/2 200 TLSv1.3 new session", "HTTP/2 200 TLSv1.3 resumed"]


# A server of HTTP


class HTTP1Client:
    """A client of HTTP/1.1 over a stream."""

    def __init__(self, stream: tls.TLSStream) -> None:
        self.stream = stream
        self.http = h11.Connection(h11.CLIENT)

    async def event(self) -> Any:
        while (event := self.http.next_event()) is h11.NEED_DATA:
            self.http.receive_data(await self.stream.receive_some())
        return event

    async def response(self) -> tuple[int, dict[bytes, bytes], bytes]:
        """Return the next response: status, headers, body."""
        while isinstance(head := await self.event(), h11.InformationalResponse):
            pass
        body = b""
        while isinstance(event := await self.event(), h11.Data):
            body += event.data
        assert isinstance(event, h11.EndOfMessage)
        return head.status_code, dict(head.headers), body

    async def ask(
        self, method: str, target: str, *headers: tuple[str, str], body: bytes = b""
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        """Send a request; return the response."""
        length = [("content-length", str(len(body)))] if body else []
        request = h11.Request(
            method=method, target=target, headers=[("host", "localhost"), *length, *headers]
        )
        for event in (request, *([h11.Data(data=body)] if body else []), h11.EndOfMessage()):
            await self.stream.send_all(self.http.send(event) or b"")
        return await self.response()


async def http1_client(nursery: trio.Nursery, site: Any) -> HTTP1Client:
    return HTTP1Client(await over_memory(nursery, server_for(site), "http/1.1"))


class HTTP2Client:
    """A client of HTTP/2 over a stream."""

    def __init__(self, stream: tls.TLSStream) -> None:
        self.stream = stream
        self.http = h2.connection.H2Connection(h2.config.H2Configuration())
        self.http.initiate_connection()
        self.events: list[h2.events.Event] = []

    async def flush(self) -> None:
        await self.stream.send_all(self.http.data_to_send())

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *further: tuple[bytes, bytes],
        end: bool = True,
    ) -> int:
        """Send a request; return the number of its stream."""
        stream_id = self.http.get_next_available_stream_id()
        headers = [(":method", method), (":path", path), (":scheme", "https"), (":authority", "localhost")]
        self.http.send_headers(stream_id, [*headers, *further], end_stream=end and body is None)
        if body is not None:
            self.http.send_data(stream_id, body, end_stream=end)
        await self.flush()
        return stream_id

    async def until(self, kind: type[Event], stream_id: int | None = None) -> Event:
        """Return the next event of a kind, and keep those before it."""
        while True:
            for index, event in enumerate(self.events):
                if isinstance(event, kind) and stream_id in (None, getattr(event, "stream_id", None)):
                    del self.events[index]
                    return event
            data = await self.stream.receive_some()
            assert data, "the server has ended the connection"
            self.events += self.http.receive_data(data)
            await self.flush()

    async def status(self, stream_id: int) -> int:
        """Return the status of a response."""
        event = await self.until(h2.events.ResponseReceived, stream_id)
        return next(int(value) for name, value in event.headers if name == b":status")


async def http2_client(nursery: trio.Nursery, site: Any) -> HTTP2Client:
    client = HTTP2Client(await over_memory(nursery, server_for(site), "h2"))
    await client.flush()
    return client


async def test_http1_answers_one_request_after_the_other_on_a_connection(nursery: trio.Nursery) -> None:
    client = await http1_client(nursery, site_of())
    status, headers, body = await client.ask("GET", "/")
    assert (status, headers[b"content-type"]) == (200, b"text/html; charset=utf-8")
    assert b"<th>Protocol<td>http/1.1<" in body
    for method, target, expected in [
        *[("HEAD", "/", 200), ("GET", "/elsewhere", 404), ("PUT", "/", 405), ("GET", "/?query", 200)],
    ]:
        client.http.start_next_cycle()
        status, headers, body = await client.ask(method, target)
        assert (status, b"connection" in headers) == (expected, False)
    client.http.start_next_cycle()
    assert (await client.ask("POST", "/echo", body=b"hello"))[2] == b"hello"


async def test_http1_answers_requests_that_come_at_once(nursery: trio.Nursery) -> None:
    client = await http1_client(nursery, site_of())
    requests = [f"GET /{name} HTTP/1.1\r\nHost: localhost\r\n\r\n" for name in ("", "a", "")]
    await client.stream.send_all("".join(requests).encode())
    found = []
    for _ in requests:
        # The client has not sent them by its own account.
        client.http.send(h11.Request(method="GET", target="/", headers=[("host", "localhost")]))
        client.http.send(h11.EndOfMessage())
        found.append((await client.response())[0])
        client.http.start_next_cycle()
    assert found == [200, 404, 200]


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET / HTTP/1.1\r\nbroken\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZ\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + b"X: " + b"x" * 20_000, 431),
        (b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n", 413),
    ],
)
async def test_http1_refuses_what_it_cannot_take_and_says_goodbye(
    request_head: bytes, status: int, nursery: trio.Nursery
) -> None:
    client = await http1_client(nursery, site_of())
    await client.stream.send_all(request_head)
    # Who goes on sending reads the answer all the same.
    await client.stream.send_all(b"x" * 50_000)
    answer = b""
    async for data in client.stream:
        answer += data
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nconnection: close\r\n" in answer.lower()


async def test_http1_asks_a_client_for_a_body_that_it_waits_to_send(nursery: trio.Nursery) -> None:
    client = await http1_client(nursery, site_of())
    head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n"
    await client.stream.send_all(head % 5)
    assert await client.stream.receive_some() == b"HTTP/1.1 100 \r\n\r\n"
    await client.stream.send_all(b"hello")
    assert (await client.stream.receive_some()).endswith(b"\r\n\r\nhello")
    await client.stream.send_all(head % 100_000)
    assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("half", [b"GET / HT", b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx"])
async def test_http1_does_not_wait_for_the_rest_of_a_request(
    half: bytes, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    client = await http1_client(nursery, site_of(request_time=5))
    await client.stream.send_all(half)
    assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 408 ")
    assert trio.current_time() == 5


async def test_http1_ends_a_connection_on_which_nothing_is_asked(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    client = await http1_client(nursery, site_of(idle_time=30))
    await client.ask("GET", "/")
    assert await client.stream.receive_some() == b""
    assert trio.current_time() == 30


async def test_http1_sends_clients_away_when_the_site_ends(nursery: trio.Nursery) -> None:
    begun, go_on = trio.Event(), trio.Event()

    async def respond(request: Any) -> Any:
        begun.set()
        await go_on.wait()
        return HTTP.Response(200, b"done")

    site = site_of(respond)
    idle, busy = await http1_client(nursery, site), await http1_client(nursery, site)
    answers: list[tuple[int, dict[bytes, bytes], bytes]] = []

    async def ask() -> None:
        answers.append(await busy.ask("GET", "/"))
        assert await busy.stream.receive_some() == b""

    async with trio.open_nursery() as asking:
        asking.start_soon(ask)
        await begun.wait()
        site.end()
        assert await idle.stream.receive_some() == b""
        go_on.set()
    ((status, headers, body),) = answers
    assert (status, headers[b"connection"], body) == (200, b"close", b"done")


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
async def test_what_a_site_raises_is_answered_and_logged_and_the_connection_goes_on(
    protocol: str, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    async def respond(request: Any) -> Any:
        if request.target == "/nothing":
            return None
        if request.target == "/wrong":
            raise RuntimeError("secret")
        return HTTP.Response(200)

    stream = await over_memory(nursery, server_for(site_of(respond)), protocol)
    if protocol == "h2":
        second = HTTP2Client(stream)
        assert await second.status(await second.ask("GET", "/wrong")) == 500
        assert (await second.until(h2.events.DataReceived)).data == b"internal server error\n"
        assert await second.status(await second.ask("GET", "/nothing")) == 500
        assert await second.status(await second.ask("GET", "/")) == 200
    else:
        first = HTTP1Client(stream)
        status, _, body = await first.ask("GET", "/wrong")
        assert (status, body) == (500, b"internal server error\n")
        for target, expected in (("/nothing", 500), ("/", 200)):
            first.http.start_next_cycle()
            assert (await first.ask("GET", target))[0] == expected
    said = [(record.getMessage(), record.exc_info is not None) for record in caplog.records]
    assert said == [("GET '/wrong' failed", True), ("GET '/nothing' failed", True)]


async def test_http2_sends_no_more_than_the_client_has_room_for(nursery: trio.Nursery) -> None:
    body = bytes(range(256)) * 1000

    async def respond(request: Any) -> Any:
        return HTTP.Response(200, body)

    client = await http2_client(nursery, site_of(respond))
    stream_id = await client.ask("GET", "/")
    received = b""
    while len(received) < len(body):
        # h2 fails if there is more than the window allows, and nothing is given back before all is used.
        event = await client.until(h2.events.DataReceived, stream_id)
        received += event.data
        if client.http.remote_flow_control_window(stream_id) == 0:
            client.http.increment_flow_control_window(50_000, stream_id)
            client.http.increment_flow_control_window(50_000)
            await client.flush()
    await client.until(h2.events.StreamEnded, stream_id)
    assert received == body


async def test_http2_does_not_wait_for_a_client_that_gives_no_room(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def respond(request: Any) -> Any:
        return HTTP.Response(200, bytes(100_000 if request.target == "/long" else 0))

    client = await http2_client(nursery, site_of(respond, response_time=30, idle_time=100))
    long = await client.ask("GET", "/long")
    assert await client.status(long) == 200
    # Others are not held up.
    assert await client.status(await client.ask("GET", "/")) == 200
    assert (await client.until(h2.events.StreamReset, long)).error_code == h2.errors.ErrorCodes.CANCEL
    assert trio.current_time() == 30


async def test_http2_answers_before_it_has_read_a_body_that_is_too_long(nursery: trio.Nursery) -> None:
    client = await http2_client(nursery, site_of(body=10_000))
    stream_id = await client.ask("POST", "/echo", bytes(11_000), end=False)
    assert await client.status(stream_id) == 413
    reset = await client.until(h2.events.StreamReset, stream_id)
    assert reset.error_code == h2.errors.ErrorCodes.NO_ERROR
    complete = await client.ask("POST", "/echo", bytes(11_000))
    assert await client.status(complete) == 413
    assert await client.status(await client.ask("POST", "/echo", bytes(10_000))) == 200


async def test_http2_does_not_wait_for_the_rest_of_a_request(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    client = await http2_client(nursery, site_of(request_time=5))
    stream_id = await client.ask("POST", "/echo", b"x", end=False)
    assert await client.status(stream_id) == 408
    assert trio.current_time() == 5


async def test_http2_cancels_what_the_client_does_not_want_any_more(nursery: trio.Nursery) -> None:
    events = []

    async def respond(request: Any) -> Any:
        if request.target == "/":
            return HTTP.Response(200)
        events.append("begun")
        try:
            await trio.sleep_forever()
        finally:
            events.append("cancelled")

    client = await http2_client(nursery, site_of(respond))
    stream_id = await client.ask("GET", "/slow")
    await wait_all_tasks_blocked()
    client.http.reset_stream(stream_id)
    assert await client.status(await client.ask("GET", "/")) == 200
    assert events == ["begun", "cancelled"]


async def test_http2_asks_a_client_for_a_body_that_it_waits_to_send(nursery: trio.Nursery) -> None:
    client = await http2_client(nursery, site_of())
    expecting = (b"expect", b"100-continue")
    stream_id = await client.ask("POST", "/echo", None, expecting, (b"content-length", b"5"), end=False)
    await client.until(h2.events.InformationalResponseReceived, stream_id)
    client.http.send_data(stream_id, b"hello", end_stream=True)
    await client.flush()
    assert await client.status(stream_id) == 200
    too_long = await client.ask("POST", "/echo", None, expecting, (b"content-length", b"70000"), end=False)
    assert await client.status(too_long) == 413
    assert not any(isinstance(event, h2.events.InformationalResponseReceived) for event in client.events)


async def test_http2_gives_up_what_a_client_has_asked_for_that_says_goodbye(nursery: trio.Nursery) -> None:
    cancelled = trio.Event()

    async def respond(request: Any) -> Any:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    client = await http2_client(nursery, site_of(respond))
    await client.ask("GET", "/")
    await wait_all_tasks_blocked()
    # One more that comes together with the goodbye.
    client.http.send_headers(
        3, [(":method", "GET"), (":path", "/"), (":scheme", "https"), (":authority", "a")]
    )
    client.http.close_connection()
    await client.flush()
    await cancelled.wait()
    async for _ in client.stream:
        pass


async def test_http2_ends_a_connection_on_which_too_much_is_taken_back(nursery: trio.Nursery) -> None:
    client = await http2_client(nursery, site_of(resets=2))
    for _ in range(3):
        client.http.reset_stream(await client.ask("POST", "/echo", end=False))
        await client.flush()
    ended = await client.until(h2.events.ConnectionTerminated)
    assert ended.error_code == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM


async def test_http2_refuses_a_head_that_is_too_long(nursery: trio.Nursery) -> None:
    client = await http2_client(nursery, site_of(head=1000))
    await client.ask("GET", "/", None, (b"x", b"x" * 1000))
    ended = await client.until(h2.events.ConnectionTerminated)
    assert ended.error_code == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM


async def test_http2_ends_what_breaks_its_rules_with_a_goaway(nursery: trio.Nursery) -> None:
    client = await http2_client(nursery, site_of())
    await client.stream.send_all(bytes.fromhex("000001 06 00 00000000 00"))  # a PING that is too short
    ended = await client.until(h2.events.ConnectionTerminated)
    assert ended.error_code == h2.errors.ErrorCodes.FRAME_SIZE_ERROR
    assert await client.stream.receive_some() == b""


async def test_http2_ends_a_connection_on_which_nothing_is_asked(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def respond(request: Any) -> Any:
        await trio.sleep(100)
        return HTTP.Response(200)

    client = await http2_client(nursery, site_of(respond, idle_time=30))
    assert await client.status(await client.ask("GET", "/")) == 200
    assert trio.current_time() == 100
    assert (await client.until(h2.events.ConnectionTerminated)).last_stream_id == 1
    assert trio.current_time() == 130
    assert await client.stream.receive_some() == b""


async def test_http2_finishes_what_has_begun_when_the_site_ends(nursery: trio.Nursery) -> None:
    go_on = trio.Event()

    async def respond(request: Any) -> Any:
        await go_on.wait()
        return HTTP.Response(200, b"done")

    site = site_of(respond)
    idle, busy = await http2_client(nursery, site), await http2_client(nursery, site)
    stream_id = await busy.ask("GET", "/")
    await wait_all_tasks_blocked()
    site.end()
    assert (await idle.until(h2.events.ConnectionTerminated)).last_stream_id == 0
    assert await idle.stream.receive_some() == b""

    # h2 itself takes a GOAWAY for the end, so the frames are looked at by hand.
    late = await busy.ask("GET", "/")
    await wait_all_tasks_blocked()
    go_on.set()
    frames = b""
    async for data in busy.stream:
        frames += data
    kinds = [(kind, number) for kind, number, _ in frames_of(frames) if kind != SETTINGS]
    assert kinds == [
        (GOAWAY, 0),
        (RST_STREAM, late),
        (HEADERS, stream_id),
        (DATA, stream_id),
        (GOAWAY, 0),
    ]
    assert {payload[:4] for kind, _, payload in frames_of(frames) if kind == GOAWAY} == {b"\0\0\0\1"}


DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0, 1, 3, 4, 7


def frames_of(data: bytes) -> list[tuple[int, int, bytes]]:
    """Return the frames of HTTP/2: kind, number of the stream, payload."""
    found = []
    while data:
        length, kind = int.from_bytes(data[:3]), data[3]
        found.append((kind, int.from_bytes(data[5:9]), data[9 : 9 + length]))
        data = data[9 + length :]
    return found


# WebSockets


@contextlib.asynccontextmanager
async def websocket_to(port: int) -> AsyncIterator[trio_websocket.WebSocketConnection]:
    async with trio.open_nursery() as nursery:
        async with WEBSOCKET.open_websocket(nursery, f"wss://localhost:{port}/?a=b", TRUSTING) as websocket:
            yield websocket


async def test_websocket_messages_come_back() -> None:
    server = server_of(WEBSOCKET.echo, alpn_protocols=["http/1.1"])
    async with serving(server) as port:
        async with websocket_to(port) as websocket:
            for message in ("hello", b"\x00\xff", "x" * 60_000):
                await websocket.send_message(message)
                assert await websocket.get_message() == message
        assert not server.statistics().failed


async def test_a_websocket_message_that_is_too_long_ends_its_connection_alone() -> None:
    server = server_of(WEBSOCKET.echo, alpn_protocols=["http/1.1"])
    async with serving(server) as port, websocket_to(port) as other:
        async with websocket_to(port) as websocket:
            await websocket.send_message("x" * 70_000)
            with pytest.raises(trio_websocket.ConnectionClosed) as caught:
                await websocket.get_message()
        assert caught.value.reason is not None
        assert caught.value.reason.code == 1009
        await other.send_message("still here")
        assert await other.get_message() == "still here"


@pytest.mark.parametrize("leave", [True, False])
async def test_a_client_that_opens_no_websocket_is_not_waited_for(
    nursery: trio.Nursery, autojump_clock: MockClock, *, leave: bool
) -> None:
    server = server_of(WEBSOCKET.echo)
    stream = await over_memory(nursery, server, "http/1.1")
    if leave:
        await stream.aclose()
    else:
        assert await stream.receive_some() == b""
    await server.aclose()
    assert trio.current_time() == WEBSOCKET.PATIENCE


async def test_the_websocket_example_sends_and_serves(tmp_path: Path) -> None:
    key, cert = GOOD.write_to(tmp_path)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(AUTHORITY.ca)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            (listener, *_) = await nursery.start(partial(WEBSOCKET.serve, key, cert, 0))
            port = listener.socket.getsockname()[1]
            assert await WEBSOCKET.send(f"wss://localhost:{port}/", ca, "hello") == "hello"
            nursery.cancel_scope.cancel()


# ASGI


@pytest.mark.parametrize(("http2", "version"), [(True, "2"), (False, "1.1")])
@pytest.mark.parametrize("name", ["alice", None])
async def test_an_asgi_application_is_told_of_the_tls_of_a_request(
    name: str | None, version: str, *, http2: bool
) -> None:
    service = ASGI.Service(ASGI.app)
    server = server_of(
        service.handle, alpn_protocols=["h2", "http/1.1"], request_cert=True, reject_unauthorized=False
    )
    shown: Any = {} if name is None else AUTHORITY.client(name).options
    transport = HTTPX.TLSTransport(tls.SecureContext(ca=AUTHORITY.ca, **shown), http2=http2)
    async with service.running(), serving(server) as port:
        async with httpx.AsyncClient(transport=transport) as client:
            response = await client.get(f"https://localhost:{port}/")
            info = HTTPX.connection_info(response)
    known = response.json()
    assert known.pop("http_version") == version
    assert known.pop("server_cert") == info.peer_certificate.pem
    assert known.pop("tls_version") == 0x304
    if name is None:
        assert (known["client_cert_chain"], known["client_cert_name"]) == ([], None)
    else:
        assert known["client_cert_chain"][0] == info.certificate.pem
        assert f"CN={name}" in known["client_cert_name"]
    assert known["client_cert_error"] is None


async def test_an_asgi_application_is_told_of_the_tls_of_a_websocket() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await ASGI.app(scope, receive, send)
            return
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": str(scope["extensions"]["tls"]["tls_version"])})
        assert (await receive())["type"] == "websocket.disconnect"

    service = ASGI.Service(app)
    server = server_of(service.handle, alpn_protocols=["h2", "http/1.1"])
    async with service.running(), serving(server) as port, websocket_to(port) as websocket:
        assert await websocket.get_message() == str(0x304)


async def test_an_asgi_application_is_started_and_shut_down() -> None:
    told = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"

        async def receive_and_tell() -> Any:
            told.append(await receive())
            return told[-1]

        await ASGI.app(scope, receive_and_tell, send)

    async with ASGI.Service(app).running():
        assert told == [{"type": "lifespan.startup"}]
    assert told[1:] == [{"type": "lifespan.shutdown"}]


async def test_an_asgi_service_that_ends_sends_idle_clients_away() -> None:
    service = ASGI.Service(ASGI.app)
    server = server_of(service.handle)
    async with service.running(), serving(server) as port:
        async with await tls.connect("localhost", port, context=TRUSTING) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
            await service.end()
            async for _ in stream:
                pass


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM cannot be caught there")
async def test_the_asgi_example_serves_until_it_is_asked_to_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nursery: trio.Nursery
) -> None:
    key, cert = GOOD.write_to(tmp_path)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(AUTHORITY.ca)
    ended = trio.Event()

    async def serve() -> None:
        await ASGI.main(key, cert, ca, 0)
        ended.set()

    with trio.fail_after(10):
        nursery.start_soon(serve)
        said = ""
        while not said:
            await trio.lowlevel.checkpoint()
            said = capsys.readouterr().out
        async with httpx.AsyncClient(transport=HTTPX.TLSTransport(TRUSTING)) as client:
            response = await client.get(f"https://localhost:{said.split()[-1]}/")
            assert response.json()["client_cert_name"] is None
            signal.raise_signal(signal.SIGTERM)
            await ended.wait()


# anyio


async def anyio_pair(nursery: trio.Nursery, handler: Callable[[tls.TLSStream], Awaitable[None]]) -> Any:
    return ANYIO.AnyIOStream(await over_memory(nursery, server_of(handler, alpn_protocols=["h2"]), "h2"))


async def echo(stream: tls.TLSStream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def test_anyio_code_speaks_over_it(nursery: trio.Nursery) -> None:
    async with await anyio_pair(nursery, echo) as stream:
        assert await ANYIO.ask(stream, "hello") == "hello"
        assert stream.extra(TLSAttribute.alpn_protocol) == "h2"
        assert stream.extra(TLSAttribute.tls_version) == "TLSv1.3"
        assert stream.extra(ANYIO.TLSNodeAttribute.info).authorized
        assert stream.extra(anyio.abc.SocketAttribute.remote_address, None) is None


async def test_anyio_code_is_told_of_ends_and_failures_in_its_own_words(nursery: trio.Nursery) -> None:
    stream = await anyio_pair(nursery, echo)
    await stream.send_eof()
    with pytest.raises(anyio.EndOfStream):
        await stream.receive()
    await stream.aclose()
    for use in (stream.receive, partial(stream.send, b"x"), stream.send_eof):
        with pytest.raises(anyio.ClosedResourceError):
            await use()

    async def vanish(connection: tls.TLSStream) -> None:
        await connection.transport_stream.aclose()

    stream = await anyio_pair(nursery, vanish)
    with pytest.raises(anyio.BrokenResourceError) as caught:
        await stream.receive()
    assert isinstance(caught.value.__cause__, tls.TruncationError)
    await stream.aclose()

    stream = await anyio_pair(nursery, echo)
    nursery.start_soon(stream.receive)
    await wait_all_tasks_blocked()
    with pytest.raises(anyio.BusyResourceError):
        await stream.receive()
    nursery.cancel_scope.cancel()


async def test_the_anyio_example_asks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(AUTHORITY.ca)
    async with serving(server_of(echo)) as port:
        await ANYIO.main("localhost", port, ca, "hello")
    assert capsys.readouterr().out == "hello over TLSv1.3\n"
