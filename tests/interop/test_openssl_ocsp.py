"""The openssl command as an OCSP responder, for the stapler with its own HTTP client.

A certificate names its responder before there is one, so what it names is a door that stays; openssl chooses
its own port behind it.  Trio's clock is moved by hand, and what happens over sockets is waited for.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio
from cryptography import x509
from peers import echo, running, serving
from trio.testing import MockClock

import trio_tlsnode as tls
from trio_tlsnode.ocsp_stapler import OCSPStapler
from trio_tlsnode.testing import Authority, IssuedCertificate

pytestmark = [pytest.mark.interop, pytest.mark.feature("B18")]

MINUTES_VALID = 60


Behind = Callable[[trio.SocketStream, bytes], Awaitable[object]]


class Door:
    """Where a responder seems to be.

    Attributes:
        url: Its URL.
        behind: What gets each request, and answers it; by default nobody, and connections just end.
    """

    def __init__(self) -> None:
        self.url = ""
        self.behind: Behind | None = None

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        async def answer(stream: trio.SocketStream) -> None:
            request = await whole_request(stream)
            if self.behind is not None:
                with contextlib.suppress(trio.BrokenResourceError):
                    await self.behind(stream, request)

        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"
        task_status.started()
        await trio.serve_listeners(answer, [listener])


async def whole_request(stream: trio.SocketStream) -> bytes:
    received = b""
    async for data in stream:
        received += data
        head, _, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: (\d+)", head.lower())
        if length is not None and len(body) == int(length[1]):
            return received
    raise AssertionError(f"no request, but {received!r}")


@pytest.fixture
async def door(nursery: trio.Nursery) -> Door:
    door = Door()
    await nursery.start(door.serve)
    return door


class Server:
    """What a server with a stapler has.

    Attributes:
        authority: Its authority.
        issued: Its certificate.
        stapler: The stapler, which runs.
    """

    def __init__(self, door: Door) -> None:
        self.authority = Authority()
        self.issued = self.authority.good("localhost", ocsp_url=door.url)
        self.stapler = OCSPStapler(clock=self._time_of_day)
        self._epoch = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=trio.current_time())
        self._presented = (
            tls.Certificate.from_x509(self.issued.certificate),
            tls.Certificate.from_x509(x509.load_pem_x509_certificate(self.authority.ca)),
        )

    async def fetch(self) -> bytes | None:
        return await self.stapler.fetch(*self._presented)

    def staple(self) -> bytes | None:
        return self.stapler(*self._presented)

    def _time_of_day(self) -> dt.datetime:
        return self._epoch + dt.timedelta(seconds=trio.current_time())

    @property
    def error(self) -> str:
        (text,) = self.stapler.statistics().errors.values()
        return text

    async def until(self, *, fetched: int, failed: int) -> None:
        """Wait for so many responses and failures."""
        while (seen := self.stapler.statistics()).fetched < fetched or seen.failed < failed:
            await trio.lowlevel.checkpoint()
        assert (seen.fetched, seen.failed) == (fetched, failed)


@pytest.fixture
async def server(door: Door, nursery: trio.Nursery) -> Server:
    server = Server(door)
    await nursery.start(server.stapler.run)
    return server


@contextlib.asynccontextmanager
async def responder(
    openssl: str, folder: Path, server: Server, *known: IssuedCertificate
) -> AsyncIterator[int]:
    """Run a responder that knows some certificates; give its port."""
    key, cert = server.authority.ca_with_key().write_to(folder)
    index = folder / "index.txt"
    index.write_bytes(server.authority.index(*known))
    async with running(
        openssl,
        *("ocsp", "-port", "0", "-index", index, "-nmin", str(MINUTES_VALID)),
        *("-CA", cert, "-rsigner", cert, "-rkey", key),
    ) as process:
        accepting = await process.line_with("ACCEPT")
        yield int(accepting.split(" PID=")[0].rpartition(":")[2])


def forward(port: int) -> Behind:
    async def behind(stream: trio.SocketStream, request: bytes) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as server:
            await server.send_all(request)
            async for data in server:
                await stream.send_all(data)

    return behind


def redirect(url: str) -> Behind:
    async def behind(stream: trio.SocketStream, request: bytes) -> None:
        head = f"HTTP/1.1 307 Elsewhere\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n"
        await stream.send_all(head.encode())

    return behind


async def flood(stream: trio.SocketStream, request: bytes) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        await stream.send_all(bytes(50_000))


async def test_a_good_response_is_stapled(
    openssl: str, tmp_path: Path, door: Door, server: Server, mock_clock: MockClock
) -> None:
    async with responder(openssl, tmp_path, server, server.issued) as port:
        door.behind = forward(port)
        good = await server.fetch()
    assert server.staple() == good is not None
    # What openssl thinks of it.
    issuer, leaf, der = tmp_path / "issuer.pem", tmp_path / "leaf.pem", tmp_path / "response.der"
    issuer.write_bytes(server.authority.ca)
    leaf.write_bytes(server.issued.cert)
    der.write_bytes(good)
    async with running(
        openssl, "ocsp", "-respin", der, "-issuer", issuer, "-cert", leaf, "-CAfile", issuer
    ) as judge:
        said = await judge.everything()
    assert "Response verify OK" in said
    assert f"{leaf}: good" in said


async def test_s_client_is_shown_what_the_responder_says(
    openssl: str, tmp_path: Path, door: Door, server: Server
) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(server.authority.ca)
    context = tls.SecureContext(**server.issued.options, ca=server.authority.ca)
    async with responder(openssl, tmp_path, server, server.issued) as port:
        door.behind = forward(port)
        # The first handshake waits for the response.
        ours = tls.TLSServer(echo, context, ocsp_callback=server.stapler.fetch)
        async with (
            serving(ours) as address,
            running(
                openssl, "s_client", "-status", "-connect", f"127.0.0.1:{address.port}", "-CAfile", ca
            ) as client,
        ):
            await client.line_with("OCSP Response Status: successful")
            await client.line_with("Cert Status: good")
            await client.line_with("Verify return code: 0 (ok)")
            await client.say_no_more()
            await client.everything()


async def test_a_revoked_certificate_is_reported_and_nothing_stapled(
    openssl: str, tmp_path: Path, door: Door, server: Server, mock_clock: MockClock
) -> None:
    server.authority.revoke(server.issued, reason=x509.ReasonFlags.key_compromise)
    async with responder(openssl, tmp_path, server, server.issued) as port:
        door.behind = forward(port)
        assert await server.fetch() is None
    assert "[CERT_REVOKED]" in server.error


async def test_a_certificate_that_the_responder_does_not_know_is_reported(
    openssl: str, tmp_path: Path, door: Door, server: Server, mock_clock: MockClock
) -> None:
    async with responder(openssl, tmp_path, server, server.authority.good("other.example")) as port:
        door.behind = forward(port)
        assert await server.fetch() is None
    assert "[OCSP_CERT_UNKNOWN]" in server.error


async def test_a_responder_dies_and_comes_back(
    openssl: str, tmp_path: Path, door: Door, server: Server, mock_clock: MockClock
) -> None:
    async with responder(openssl, tmp_path, server, server.issued) as port:
        door.behind = forward(port)
        good = await server.fetch()
        assert good is not None

    door.behind = None
    # The times of day of the responder have no fractions of a second.
    mock_clock.jump(MINUTES_VALID / 2 * 60 + 10)
    await server.until(fetched=1, failed=1)
    assert server.staple() == good
    assert server.stapler.statistics().fresh == 1

    async with responder(openssl, tmp_path, server, server.issued) as port:
        door.behind = forward(port)
        mock_clock.jump(5)
        await server.until(fetched=2, failed=1)
    assert server.staple() not in (None, good)
    assert server.stapler.statistics().errors == {}


async def test_a_redirect_is_followed(
    openssl: str, tmp_path: Path, door: Door, server: Server, mock_clock: MockClock
) -> None:
    async with responder(openssl, tmp_path, server, server.issued) as port:
        door.behind = redirect(f"http://127.0.0.1:{port}/")
        assert await server.fetch() is not None


async def test_an_endless_redirect_is_not(door: Door, server: Server, mock_clock: MockClock) -> None:
    door.behind = redirect(door.url)
    assert await server.fetch() is None
    assert "TooManyRedirects" in server.error


async def test_an_endless_answer_is_cut_off(door: Door, server: Server, mock_clock: MockClock) -> None:
    door.behind = flood
    assert await server.fetch() is None
    assert "an answer of more than 16384 bytes" in server.error


async def test_where_nobody_answers_that_is_said(door: Door, server: Server, mock_clock: MockClock) -> None:
    assert await server.fetch() is None
    assert server.error.startswith(f"{door.url}: RemoteProtocolError(")
