"""Code that is written for anyio, over trio_tlsnode: here, a client that speaks in lines.

    python examples/anyio_client.py localhost 8443 ca.pem hello

Code for anyio expects a `anyio.abc.ByteStream`, whose end and failures are anyio's own exceptions.
`AnyIOStream` is one over a `TLSStream`.  It works where anyio runs on Trio.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import trio
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.tls import TLSAttribute

import trio_tlsnode as tls


class TLSNodeAttribute(anyio.TypedAttributeSet):
    """What `AnyIOStream.extra` tells beside anyio's own attributes."""

    info: tls.ConnectionInfo = anyio.typed_attribute()


@contextlib.contextmanager
def anyio_errors() -> Iterator[None]:
    """Give failures of a stream the names of anyio; the cause is the `TLSError`."""
    try:
        yield
    except trio.BrokenResourceError as error:
        raise anyio.BrokenResourceError from error
    except trio.ClosedResourceError as error:
        raise anyio.ClosedResourceError from error
    except trio.BusyResourceError as error:
        raise anyio.BusyResourceError("using") from error


class AnyIOStream(anyio.abc.ByteStream):
    """A `TLSStream` as anyio has streams.

    Args:
        stream: The stream, which becomes this one's own.
    """

    def __init__(self, stream: tls.TLSStream) -> None:
        self._stream = stream

    async def receive(self, max_bytes: int = 65536) -> bytes:
        with anyio_errors():
            data = await self._stream.receive_some(max_bytes)
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        with anyio_errors():
            await self._stream.send_all(item)

    async def send_eof(self) -> None:
        with anyio_errors():
            await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        stream = self._stream
        known: dict[Any, Callable[[], Any]] = {
            TLSNodeAttribute.info: lambda: stream.info,
            TLSAttribute.alpn_protocol: lambda: stream.info.alpn_protocol,
            TLSAttribute.tls_version: lambda: stream.info.protocol,
            TLSAttribute.standard_compatible: lambda: True,
        }
        if (address := stream.remote_address) is not None:
            known[anyio.abc.SocketAttribute.remote_address] = lambda: (address.host, address.port)
        return known


# Code for anyio, which knows nothing of this


async def ask(stream: anyio.abc.ByteStream, question: str, longest: int = 1000) -> str:
    """Say a line, and return the one that is answered."""
    await stream.send(f"{question}\n".encode())
    lines = BufferedByteReceiveStream(stream)
    return (await lines.receive_until(b"\n", longest)).decode()


async def main(host: str, port: int, ca: Path, question: str) -> None:
    async with AnyIOStream(await tls.connect(host, port, ca=ca)) as stream:
        print(await ask(stream, question), "over", stream.extra(TLSAttribute.tls_version))


if __name__ == "__main__":
    match sys.argv[1:]:
        case [host, port, ca, question]:
            anyio.run(main, host, int(port), Path(ca), question, backend="trio")
        case _:
            sys.exit(__doc__)
