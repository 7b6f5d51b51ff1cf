"""httpx over trio_tlsnode: sessions that resume, client certificates, a key log, HTTP/2 if h2 is installed.

    python examples/httpx_backend.py https://localhost:8443/ [ca.pem [key.pem cert.pem]]

`TLSTransport` is what `httpx.AsyncClient(transport=...)` takes; `TLSBackend` is what httpcore takes without
httpx.  What is said to httpx by ``verify=`` and ``cert=`` is said by a `SecureContext` here: who is trusted,
who we are, versions and ciphers.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import ssl
import sys
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Unpack

import httpcore
import httpx
import trio

import trio_tlsnode as tls

HTTP2 = importlib.util.find_spec("h2") is not None


@contextlib.contextmanager
def httpcore_errors(
    seconds: float | None, too_slow: type[Exception], broken: type[Exception]
) -> Iterator[None]:
    """Bound a block by a time-out, and give what it fails of the names of httpcore."""
    try:
        with trio.fail_after(math.inf if seconds is None else seconds):
            yield
    # httpcore lets go of causes, so the failure itself is the argument.  Time-outs of a TLS stream are both.
    except trio.TooSlowError as error:
        raise too_slow(error) from error
    except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
        raise broken(error) from error


class NegotiatedTLS:
    """What httpcore and its users ask an ``ssl.SSLObject``: HTTP/2 is spoken if it is what was negotiated."""

    def __init__(self, info: tls.ConnectionInfo) -> None:
        self._info = info

    def selected_alpn_protocol(self) -> str | None:
        return self._info.alpn_protocol

    def version(self) -> str:
        return self._info.protocol

    def getpeercert(self, binary_form: bool = False) -> bytes | None:
        if not binary_form:
            raise NotImplementedError("get_extra_info('tls_stream').info has the certificate")
        certificate = self._info.peer_certificate
        return None if certificate is None else certificate.raw


class NetworkStream(httpcore.AsyncNetworkStream):
    """A stream as httpcore has it, over any stream of Trio."""

    def __init__(self, stream: trio.abc.Stream, backend: TLSBackend) -> None:
        self._stream = stream
        self._backend = backend

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with httpcore_errors(timeout, httpcore.ReadTimeout, httpcore.ReadError):
            return bytes(await self._stream.receive_some(max_bytes))

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with httpcore_errors(timeout, httpcore.WriteTimeout, httpcore.WriteError):
            await self._stream.send_all(buffer)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,  # noqa: ARG002 - the backend has a context of its own
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> NetworkStream:
        return await self._backend.start_tls(self._stream, server_hostname, timeout)

    def get_extra_info(self, info: str) -> Any:
        """Return what httpcore asks for; and the `TLSStream`, as "tls_stream"."""
        stream = self._stream
        if info in ("tls_stream", "ssl_object"):
            if not isinstance(stream, tls.TLSStream):
                return None
            return stream if info == "tls_stream" else NegotiatedTLS(stream.info)
        while isinstance(stream, tls.TLSStream):
            stream = stream.transport_stream
        if not isinstance(stream, trio.SocketStream):
            return None
        match info:
            case "socket":
                return stream.socket
            case "client_addr":
                return stream.socket.getsockname()
            case "server_addr":
                return stream.socket.getpeername()
            case "is_readable":
                # An idle connection on which something comes has been ended by the server.
                return stream.socket.is_readable()
        return None


class TLSBackend(httpcore.AsyncNetworkBackend):
    """Connects, and does all handshakes in the same way.

    Args:
        context: Who is trusted, who we are, and the rest of TLS.
        **options: As `trio_tlsnode.ClientStreamOptions` explains them: ``keylog``, ``ocsp`` ...

    Attributes:
        sessions: What can be resumed by later connections.
    """

    def __init__(
        self, context: tls.SecureContext | None = None, **options: Unpack[tls.ClientStreamOptions]
    ) -> None:
        self.sessions = tls.SessionCache()
        self._context = tls.SecureContext() if context is None else context
        self._options = options

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> NetworkStream:
        with httpcore_errors(timeout, httpcore.ConnectTimeout, httpcore.ConnectError):
            stream = await trio.open_tcp_stream(host, port, local_address=local_address)
        for option in socket_options or ():
            stream.setsockopt(*option)
        return NetworkStream(stream, self)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> NetworkStream:
        with httpcore_errors(timeout, httpcore.ConnectTimeout, httpcore.ConnectError):
            stream = await trio.open_unix_socket(path)
        for option in socket_options or ():
            stream.setsockopt(*option)
        return NetworkStream(stream, self)

    async def start_tls(
        self, stream: trio.abc.Stream, host: str | None, timeout: float | None
    ) -> NetworkStream:
        """Do the handshake over a stream, which is closed if it fails."""
        with httpcore_errors(timeout, httpcore.ConnectTimeout, httpcore.ConnectError):
            secure = await tls.wrap_client(
                stream, host=host, context=self._context, session_cache=self.sessions, **self._options
            )
        return NetworkStream(secure, self)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


def open_pool(
    context: tls.SecureContext | None = None,
    *,
    http2: bool = HTTP2,
    pool_options: Mapping[str, Any] | None = None,
    **options: Unpack[tls.ClientStreamOptions],
) -> httpcore.AsyncConnectionPool:
    """Return a connection pool of httpcore.

    Args:
        context: As for `TLSBackend`.
        http2: Whether to offer HTTP/2 to servers, beside HTTP/1.1.
        pool_options: Further options of the pool: ``max_connections``, ``keepalive_expiry``, ``retries`` ...
        **options: As for `TLSBackend`.
    """
    # httpcore sets the protocols on a context that is not used, so they are said here once more.
    options.setdefault("alpn_protocols", ["h2", "http/1.1"] if http2 else ["http/1.1"])
    return httpcore.AsyncConnectionPool(
        network_backend=TLSBackend(context, **options),
        # One that trusts nobody, and is quicker to make than the one that httpcore would make.
        ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        http2=http2,
        **(pool_options or {}),
    )


# httpx


@contextlib.contextmanager
def httpx_errors(request: httpx.Request) -> Iterator[None]:
    """Give what httpcore raises the names of httpx, which are the same; the cause is the `TLSError`."""
    try:
        yield
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
        cause = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
        raise getattr(httpx, type(error).__name__)(str(error), request=request) from cause
    except httpcore.UnsupportedProtocol as error:
        raise httpx.UnsupportedProtocol(str(error), request=request) from error


class Body(httpx.AsyncByteStream):
    """The body of a response."""

    def __init__(self, request: httpx.Request, response: httpcore.Response) -> None:
        self._request = request
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        assert isinstance(self._response.stream, AsyncIterable)
        with httpx_errors(self._request):
            async for part in self._response.stream:
                yield part

    async def aclose(self) -> None:
        await self._response.aclose()


class TLSTransport(httpx.AsyncBaseTransport):
    """What `httpx.AsyncClient(transport=...)` takes; its arguments are those of `open_pool`."""

    def __init__(
        self,
        context: tls.SecureContext | None = None,
        *,
        http2: bool = HTTP2,
        pool_options: Mapping[str, Any] | None = None,
        **options: Unpack[tls.ClientStreamOptions],
    ) -> None:
        self._pool = open_pool(context, http2=http2, pool_options=pool_options, **options)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        with httpx_errors(request):
            response = await self._pool.handle_async_request(
                httpcore.Request(
                    request.method,
                    httpcore.URL(
                        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
                    ),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=Body(request, response),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        await self._pool.aclose()


def connection_info(response: httpx.Response) -> tls.ConnectionInfo:
    """Return what was negotiated for the connection that a response has come over."""
    stream: tls.TLSStream = response.extensions["network_stream"].get_extra_info("tls_stream")
    return stream.info


async def main(url: str, context: tls.SecureContext) -> None:
    # Connections that are not kept show best what is resumed.
    transport = TLSTransport(context, pool_options={"max_keepalive_connections": 0}, keylog=True)
    async with httpx.AsyncClient(transport=transport) as client:
        for _ in range(2):
            response = await client.get(url)
            info = connection_info(response)
            resumed = "resumed" if info.session_reused else "new session"
            print(response.http_version, response.status_code, info.protocol, resumed)
        print(response.text)


if __name__ == "__main__":
    match sys.argv[1:]:
        case [url]:
            trio.run(main, url, tls.SecureContext())
        case [url, ca]:
            trio.run(main, url, tls.SecureContext(ca=Path(ca)))
        case [url, ca, key, cert]:
            trio.run(main, url, tls.SecureContext(ca=Path(ca), key=Path(key), cert=Path(cert)))
        case _:
            sys.exit(__doc__)
