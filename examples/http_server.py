"""A web server that speaks HTTP/1.1 (by h11) and HTTP/2 (by h2) on one port: ALPN says which.

    python examples/http_server.py key.pem cert.pem [port]
    curl --http2 --cacert ca.pem https://localhost:8443/

What a site says is one async function, from `Request` to `Response`; what it raises is answered with 500, and
its traceback goes to the log.  A request is read whole before it is answered, and all that a client can make
the server keep, or wait for, has a limit in `Limits`.

SIGTERM, or Ctrl-C, lets the requests that have begun be answered, for up to GRACE seconds; idle clients are
sent away at once, those of HTTP/2 by a GOAWAY.
"""

from __future__ import annotations

import contextlib
import dataclasses
import html
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import h11
import hyperframe.frame
import trio

import trio_tlsnode as tls

GRACE = 10
logger = logging.getLogger("http_server")

Headers = list[tuple[bytes, bytes]]


@dataclasses.dataclass(frozen=True)
class Request:
    """What a client asks for; `info` is what was negotiated for its connection."""

    method: str
    target: str
    headers: Headers
    body: bytes
    info: tls.ConnectionInfo


@dataclasses.dataclass(frozen=True)
class Response:
    """What it gets."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"

    def headers(self) -> Headers:
        return [
            (b"content-type", self.content_type.encode()),
            (b"content-length", str(len(self.body)).encode()),
        ]


Respond = Callable[[Request], Awaitable[Response]]


def declared_length(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """Return how long the body of a request will be, as far as it says so; h11 and h2 have checked it."""
    return next((int(value) for name, value in headers if name == b"content-length"), 0)


@dataclasses.dataclass(frozen=True)
class Limits:
    """How much a client may ask for.

    Attributes:
        body: How long the body of a request may be, in bytes.
        head: How long all else of a request may be, in bytes.
        streams: How many requests of one connection of HTTP/2 are answered at once.
        resets: How many requests a client of HTTP/2 may take back, each of which has cost something.
        request_time: For how long a request may come in, in seconds.
        response_time: For how long a client of HTTP/2 may leave no room for more of a response, in seconds.
        idle_time: For how long a connection without requests is kept, in seconds.
    """

    body: int = 64 * 1024
    head: int = 16 * 1024
    streams: int = 100
    resets: int = 1000
    request_time: float = 20
    response_time: float = 30
    idle_time: float = 60


class HTTPError(Exception):
    """A request that is not passed on; its argument is the status to answer with."""


class Site:
    """What `serve` is the handler of.

    Args:
        respond: Answers the requests.
        limits: How much clients may ask for.

    Attributes:
        ending: Whether connections are to end once nothing is left to be answered.
    """

    def __init__(self, respond: Respond, limits: Limits | None = None) -> None:
        self.limits = Limits() if limits is None else limits
        self.ending = False
        self._respond = respond
        self._idle: set[trio.CancelScope] = set()

    def server(self, context: tls.SecureContext) -> tls.TLSServer:
        return tls.TLSServer(
            self.serve,
            context,
            alpn_protocols=["h2", "http/1.1"],
            handshake_timeout=10,
            # For a client that does not read, and holds all of its requests.
            send_timeout=self.limits.response_time,
            max_connections=1000,
            # HTTP says by itself where requests end, and many clients leave without a goodbye.
            https_compatible=True,
        )

    async def serve(self, stream: tls.TLSStream) -> None:
        """Serve a connection: the handler of a `TLSServer`."""
        # Clients without ALPN speak HTTP/1.1.
        if stream.alpn_protocol == "h2":
            await HTTP2(self, stream).serve()
        else:
            await HTTP1(self, stream).serve()

    async def answer(self, request: Request) -> Response:
        """Answer a request; what the site has done wrong is nothing that the client needs to know."""
        try:
            response = await self._respond(request)
            if not isinstance(response, Response):
                raise TypeError(f"not a Response: {response!r}")
        except Exception:
            logger.exception("%s %r failed", request.method, request.target)
            return Response(500, b"internal server error\n")
        else:
            return response

    def end(self) -> None:
        """Answer what is asked already, then say goodbye."""
        self.ending = True
        for scope in self._idle:
            scope.cancel()

    @contextlib.contextmanager
    def idle(self) -> Iterator[trio.CancelScope]:
        """Wait for a client that may have nothing to ask: not for ever, and only until the site ends."""
        with trio.move_on_after(self.limits.idle_time) as scope:
            self._idle.add(scope)
            try:
                yield scope
            finally:
                self._idle.discard(scope)


# HTTP/1.1


class HTTP1:
    """A connection of HTTP/1.1: one request after the other."""

    def __init__(self, site: Site, stream: tls.TLSStream) -> None:
        self._site = site
        self._stream = stream
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=site.limits.head)

    async def serve(self) -> None:
        while await self._exchange():
            self._http.start_next_cycle()
        if self._http.their_state in (h11.SEND_BODY, h11.ERROR):
            # A client that is still sending may read our answer only then; closing now would destroy it.
            with trio.move_on_after(self._site.limits.request_time):
                await self._stream.send_eof()
                async for _ in self._stream:
                    pass

    async def _exchange(self) -> bool:
        """Answer a request; return whether another one may follow."""
        head_only = False
        try:
            if not await self._begins():
                return False
            with trio.move_on_after(self._site.limits.request_time) as scope:
                request = await self._request()
            if scope.cancelled_caught:
                raise HTTPError(408)
            head_only = request.method == "HEAD"
            response = await self._site.answer(request)
        except h11.RemoteProtocolError as error:
            response = Response(error.error_status_hint)
        except HTTPError as error:
            response = Response(error.args[0])
        await self._send(response, head_only=head_only)
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def _begins(self) -> bool:
        """Wait for a request to begin; return whether one does."""
        data, _ = self._http.trailing_data
        if not data and not self._site.ending:
            with self._site.idle():
                data = await self._stream.receive_some()
            self._http.receive_data(data)
        return bool(data)

    async def _request(self) -> Request:
        event = await self._event()
        assert isinstance(event, h11.Request)
        if declared_length(event.headers) > self._site.limits.body:
            raise HTTPError(413)
        body = bytearray()
        while isinstance(data := await self._event(), h11.Data):
            body += data.data
            if len(body) > self._site.limits.body:
                raise HTTPError(413)
        method, target = event.method.decode("ascii"), event.target.decode("latin-1")
        return Request(method, target, list(event.headers), bytes(body), self._stream.info)

    async def _event(self) -> h11.Event:
        """Return what comes next of a request."""
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    await self._say(h11.InformationalResponse(status_code=100, headers=[]))
                self._http.receive_data(await self._stream.receive_some())
            else:
                assert isinstance(event, h11.Event)
                return event

    async def _send(self, response: Response, *, head_only: bool) -> None:
        headers = response.headers()
        if self._site.ending or self._http.their_state is not h11.DONE:
            headers.append((b"connection", b"close"))
        events: list[h11.Event] = [h11.Response(status_code=response.status, headers=headers)]
        if response.body and not head_only:
            events.append(h11.Data(data=response.body))
        await self._say(*events, h11.EndOfMessage())

    async def _say(self, *events: h11.Event) -> None:
        await self._stream.send_all(b"".join(self._http.send(event) or b"" for event in events))


# HTTP/2


class Exchange:
    """A request of HTTP/2 that comes in, and its answer.

    Attributes:
        complete: Set when all of the request is there.
        refused: The status to answer with instead, if something is wrong with it.
        scope: Cancelled when the client does not want it any more.
    """

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.headers = list(headers)
        self.body = bytearray()
        self.complete = trio.Event()
        self.refused = 0
        self.scope = trio.CancelScope()

    def take(self, data: bytes, limit: int) -> None:
        """Keep data of the body, up to a limit."""
        self.body += data
        if len(self.body) > limit:
            self.refuse(413)

    def refuse(self, status: int) -> None:
        self.body.clear()
        self.refused = status
        self.complete.set()

    def request(self, info: tls.ConnectionInfo) -> Request:
        pseudo = {name: value.decode("latin-1") for name, value in self.headers if name[:1] == b":"}
        headers = [(name, value) for name, value in self.headers if name[:1] != b":"]
        # A CONNECT has no path.
        return Request(pseudo[b":method"], pseudo.get(b":path", ""), headers, bytes(self.body), info)


class HTTP2:
    """A connection of HTTP/2: a task that reads, and one for each request."""

    def __init__(self, site: Site, stream: tls.TLSStream) -> None:
        self._site = site
        self._stream = stream
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self._http.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: site.limits.streams,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: site.limits.head,
            },
        )
        self._http.decoder.max_header_list_size = site.limits.head
        self._exchanges: dict[int, Exchange] = {}
        self._resets = 0
        self._reading = trio.CancelScope()
        self._sending = trio.Lock()
        # Replaced by a new one each time that the client has made room for more.
        self._room = trio.Event()
        # The last request that is answered, once the client was told to go.
        self._last: int | None = None

    async def serve(self) -> None:
        self._http.initiate_connection()
        await self._flush()
        async with trio.open_nursery() as nursery:
            await self._read(nursery)
            # Nobody waits for what is still being answered.
            nursery.cancel_scope.cancel()

    async def _read(self, nursery: trio.Nursery) -> None:
        while self._exchanges or not self._site.ending:
            if self._site.ending and self._last is None:
                await self._tell_to_go()
                continue
            with self._site.idle() as self._reading:
                data = await self._stream.receive_some(65536)
            if self._reading.cancelled_caught:
                if self._exchanges or self._site.ending:
                    continue
                break
            if not data:
                return
            try:
                events = self._http.receive_data(data)
                if any(isinstance(event, h2.events.ConnectionTerminated) for event in events):
                    # The client has gone, and h2 sends nothing after that.
                    return
                for event in events:
                    self._take(event, nursery)
            except h2.exceptions.ProtocolError as error:
                # The GOAWAY that says so is written already.
                logger.info("a client has broken HTTP/2: %s", error)
                await self._flush()
                return
            # A client that makes us say more than it reads has to wait.
            await self._flush()
        self._http.close_connection(last_stream_id=self._last)
        await self._flush()

    def _take(self, event: h2.events.Event, nursery: trio.Nursery) -> None:
        match event:
            case h2.events.RequestReceived():
                self._begin(event, nursery)
            case h2.events.DataReceived():
                # What comes for nobody has taken room, too.
                self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if event.stream_id in self._exchanges:
                    self._exchanges[event.stream_id].take(event.data, self._site.limits.body)
            case h2.events.StreamEnded():
                if event.stream_id in self._exchanges:
                    self._exchanges[event.stream_id].complete.set()
            case h2.events.StreamReset():
                if event.stream_id in self._exchanges:
                    self._exchanges[event.stream_id].scope.cancel()
                self._more_room()
                self._resets += 1
                if self._resets > self._site.limits.resets:
                    self._http.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
                    raise h2.exceptions.DenialOfServiceError("too many requests were taken back")
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._more_room()

    def _begin(self, request: h2.events.RequestReceived, nursery: trio.Nursery) -> None:
        stream_id, exchange = request.stream_id, Exchange(request.headers)
        # What fails here has been reset already.
        with contextlib.suppress(h2.exceptions.ProtocolError):
            if self._last is not None:
                # It was sent before our GOAWAY had arrived, and may be sent again elsewhere.
                self._http.reset_stream(stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
                return
            if declared_length(exchange.headers) > self._site.limits.body:
                exchange.refuse(413)
            elif (b"expect", b"100-continue") in exchange.headers and request.stream_ended is None:
                self._http.send_headers(stream_id, [(b":status", b"100")])
        self._exchanges[stream_id] = exchange
        nursery.start_soon(self._exchange, stream_id, exchange)

    def _more_room(self) -> None:
        self._room.set()
        self._room = trio.Event()

    async def _exchange(self, stream_id: int, exchange: Exchange) -> None:
        """Answer a request: a task of its own, from its head to the end of the response."""
        response = None
        try:
            # Only this: what is cancelled while it sends would end the connection.
            with exchange.scope:
                response = await self._answer(exchange)
            if response is not None:
                # Who has gone meanwhile is found out by the stream being closed.
                with contextlib.suppress(h2.exceptions.ProtocolError):
                    await self._send(stream_id, response, head_only=(b":method", b"HEAD") in exchange.headers)
                    if not exchange.complete.is_set() or exchange.refused:
                        # What is still to come of the request is not wanted (RFC 9113, section 8.1).
                        self._http.reset_stream(stream_id, h2.errors.ErrorCodes.NO_ERROR)
                    await self._flush()
        finally:
            del self._exchanges[stream_id]
            if not self._exchanges:
                self._reading.deadline = trio.current_time() + self._site.limits.idle_time
                if self._site.ending:
                    self._reading.cancel()

    async def _answer(self, exchange: Exchange) -> Response:
        with trio.move_on_after(self._site.limits.request_time) as scope:
            await exchange.complete.wait()
        if scope.cancelled_caught:
            return Response(408)
        if exchange.refused:
            return Response(exchange.refused)
        return await self._site.answer(exchange.request(self._stream.info))

    async def _send(self, stream_id: int, response: Response, *, head_only: bool) -> None:
        """Send a response, as far and as fast as the client has room for it."""
        rest = memoryview(b"" if head_only else response.body)
        headers = [(b":status", str(response.status).encode()), *response.headers()]
        self._http.send_headers(stream_id, headers, end_stream=not rest)
        while rest:
            await self._flush()
            room = min(self._http.local_flow_control_window(stream_id), self._http.max_outbound_frame_size)
            if room > 0:
                self._http.send_data(stream_id, bytes(rest[:room]), end_stream=len(rest) <= room)
                rest = rest[room:]
                continue
            with trio.move_on_after(self._site.limits.response_time) as scope:
                await self._room.wait()
            if scope.cancelled_caught:
                self._http.reset_stream(stream_id, h2.errors.ErrorCodes.CANCEL)
                break
        await self._flush()

    async def _tell_to_go(self) -> None:
        """Say GOAWAY, and finish what is being answered."""
        self._last = self._http.highest_inbound_stream_id
        # To h2 it is always the last word; here it must not be (RFC 9113, section 6.8).
        frame = hyperframe.frame.GoAwayFrame(0, last_stream_id=self._last)
        async with self._sending:
            await self._stream.send_all(frame.serialize())

    async def _flush(self) -> None:
        """Send what h2 has written; of several tasks, one after the other."""
        async with self._sending:
            if data := self._http.data_to_send():
                await self._stream.send_all(data)


# A site


async def respond(request: Request) -> Response:
    """A page that shows how it has come, and /echo, which says what it is told."""
    match request.method, request.target.partition("?")[0]:
        case "GET" | "HEAD", "/":
            return Response(200, page(request.info).encode(), "text/html; charset=utf-8")
        case "POST", "/echo":
            return Response(200, request.body, "application/octet-stream")
        case _, "/" | "/echo":
            return Response(405, b"method not allowed\n")
        case _:
            return Response(404, b"not found\n")


def page(info: tls.ConnectionInfo) -> str:
    facts = {
        "Protocol": info.alpn_protocol or "http/1.1, without ALPN",
        "TLS": info.protocol,
        "Cipher suite": info.cipher.standard_name,
        "Name": info.server_name,
        "Resumed": info.session_reused,
    }
    rows = "".join(f"<tr><th>{name}<td>{html.escape(str(value))}" for name, value in facts.items())
    return f"<!DOCTYPE html><title>trio_tlsnode</title><h1>It works</h1><table>{rows}</table>\n"


async def main(key: Path, cert: Path, port: int) -> None:
    site = Site(respond)
    server = site.server(tls.SecureContext(key=key, cert=cert))
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, port, "localhost")
            print("listening on port", server.addresses[0].port, flush=True)
            await anext(signals)
            site.end()
            await server.aclose(GRACE)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    arguments = dict(enumerate(sys.argv))
    trio.run(main, Path(arguments[1]), Path(arguments[2]), int(arguments.get(3, 8443)))
