"""inspect: what a server's TLS is like, and what is wrong with it.

One handshake is done as an ordinary client does it.  It verifies the server, but goes on if that fails, so
that everything is known in any case.  All other questions are asked at the same time, each over connections
of its own: most by a ClientHello that needs no answer but the server's first flight (`HelloProbe`), those
about ALPN and sessions by handshakes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, Unpack, cast

import trio

from .addresses import Address
from .alpn import parse_alpn_protocols
from .client import wrap_client
from .connect_errors import connect_error
from .context import ContextOptions, SecureContext
from .dialing import Dialer
from .engine import Engine
from .errors import ConnectError, ConnectionFailed, ConnectionLost, HandshakeTimeout
from .findings import Finding, findings
from .hello_probe import (
    CURVES,
    GROUPS,
    OLDER_SUITES,
    REFUSED,
    TLS12,
    TLS13,
    TLS13_SUITES,
    HelloAnswer,
    HelloProbe,
    answer_of,
    uses_curve,
)
from .html_table import html_table
from .iana import CIPHER_SUITES, SUPPORTED_GROUPS, VERSIONS, names
from .info import ConnectionInfo
from .option_values import check_count, check_seconds
from .server_flight import uses_dhe
from .sessions import Session
from .starttls import StartTLSProtocol, check_starttls, request_starttls
from .stream import TLSStream
from .tcp_options import check_port
from .trace import HandshakeTrace

Resumption = Literal["ticket", "identifier", "refused", "none"]
"""How a server resumes sessions: by a ticket that the client keeps, by an identifier of what the server
keeps; "refused" is a session that it gave and did not resume, "none" that it gave none."""

Dial = Callable[[], Awaitable[trio.abc.Stream]]
"""``dial``: makes a connection to the server, before any TLS."""

DEFAULT_TIMEOUT: Final = 30.0

# The versions whose sessions are asked for.
_RESUMABLE: Final = ("TLSv1.2", "TLSv1.3")
# How long one question waits for its answer, in seconds: some middleboxes swallow what they do not like.
_PATIENCE: Final = 5.0
# How long a handshake may take, which also needs keys.
_HANDSHAKE_PATIENCE: Final = 10.0
# How long to wait for what may never come: a ticket, or a word on our certificate.
_TICKET_PATIENCE: Final = 2.0
# An answer is a few kilobytes, most of it certificates.
_MOST_ANSWER: Final = 256 * 1024
_PIECE: Final = 16 * 1024


class InspectionProgress(NamedTuple):
    """How far an inspection has got.

    Attributes:
        step: What was begun or is done ("TLSv1.2").
        finished: Whether it is done.
        done: How many steps are done.
        total: How many there are.
    """

    step: str
    finished: bool
    done: int
    total: int


ProgressCallback = Callable[[InspectionProgress], object]
"""``on_progress``: called at the beginning and at the end of each step."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What a server's TLS is like.  Names are IANA's, versions spelt as OpenSSL does ("TLSv1.2").

    Attributes:
        host: The host that was asked for.
        port: The port.
        server_name: The name that was sent as SNI and verified, if any.
        starttls: The protocol in which the server was asked for TLS, if any.
        address: Where the server is, if the transport can tell.
        inspected_at: When, in UTC.
        duration: How long it took, in seconds.
        info: What a handshake negotiated: an ordinary client's, or if that failed, one's that takes anything.
        failure: Why an ordinary client gets no connection, or one that is not to be trusted; else None.
        wants_client_certificate: Whether the server asks for one; None if that is not known.
        protocols: Each version, and whether the server has it; None if it has not answered.
        cipher_suites: The suites of each version that it has, its favourite first; if it leaves the choice to
            clients, in no order that matters.
        groups: The key-exchange groups of TLS 1.2 and 1.3, likewise.  In TLS 1.2 a certificate for an EC key
            needs the curve of that key, and groups that the server likes less than it do not show.
        dh_bits: The size of the finite-field Diffie-Hellman group of DHE suites up to TLS 1.2, if it has any.
        alpn_protocols: Those of the application protocols that were asked for which it has, likewise.
        resumption: How it resumes sessions of TLS 1.2 and 1.3, as far as it has them.
        unfinished: The steps for which the time was not enough, or in which a question had no answer.
        findings: What is wrong, the worst first.
    """

    host: str
    port: int
    server_name: str | None
    starttls: StartTLSProtocol | None
    address: Address | None
    inspected_at: dt.datetime
    duration: float
    info: ConnectionInfo | None
    failure: ConnectionFailed | None
    wants_client_certificate: bool | None
    protocols: Mapping[str, bool | None]
    cipher_suites: Mapping[str, tuple[str, ...]]
    groups: Mapping[str, tuple[str, ...]]
    dh_bits: int | None
    alpn_protocols: tuple[str, ...]
    resumption: Mapping[str, Resumption]
    unfinished: tuple[str, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def authorized(self) -> bool:
        """Whether an ordinary client connects, and trusts the server."""
        return self.failure is None and self.info is not None and self.info.authorized

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as what JSON has.

        The keys are the names of the attributes, and ``authorized``.  The failure is as `TLSError.to_dict`
        has it, ``info`` as `ConnectionInfo.to_dict`.
        """
        return {
            "host": self.host,
            "port": self.port,
            "server_name": self.server_name,
            "starttls": self.starttls,
            "address": None if self.address is None else self.address._asdict(),
            "inspected_at": self.inspected_at.isoformat(timespec="seconds"),
            "duration": round(self.duration, 3),
            "authorized": self.authorized,
            "failure": None if self.failure is None else self.failure.to_dict(),
            "wants_client_certificate": self.wants_client_certificate,
            "protocols": dict(self.protocols),
            "cipher_suites": {version: list(names) for version, names in self.cipher_suites.items()},
            "groups": {version: list(names) for version, names in self.groups.items()},
            "dh_bits": self.dh_bits,
            "alpn_protocols": list(self.alpn_protocols),
            "resumption": dict(self.resumption),
            "unfinished": list(self.unfinished),
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
            "info": None if self.info is None else self.info.to_dict(),
        }

    def _repr_html_(self) -> str:
        shown = {
            "findings": {
                f"{finding.severity}: {finding.summary}": finding.remedy for finding in self.findings
            },
            "protocols": ", ".join(version for version, there in self.protocols.items() if there),
            "cipher_suites": {version: ", ".join(names) for version, names in self.cipher_suites.items()},
            "groups": {version: ", ".join(names) for version, names in self.groups.items()},
            "alpn_protocols": ", ".join(self.alpn_protocols),
            "resumption": self.resumption,
            "info": self.info,
            "unfinished": ", ".join(self.unfinished),
        }
        title = f"Inspection of {self.host}:{self.port}"
        return html_table(
            title,
            shown,
            badge="authorized" if self.authorized else "not authorized",
            tone="good" if self.authorized else "bad",
        )


async def inspect(
    host: str = "localhost",
    port: int = 443,
    *,
    server_name: str | None = None,
    starttls: StartTLSProtocol | None = None,
    alpn_protocols: Sequence[str] = ("h2", "http/1.1"),
    timeout: float = DEFAULT_TIMEOUT,
    max_connections: int = 8,
    on_progress: ProgressCallback | None = None,
    dial: Dial | None = None,
    **options: Unpack[ContextOptions],
) -> Inspection:
    """Find out what a server's TLS is like, and what is wrong with it.

    A server that is not to be trusted, or speaks no TLS, is no error here: `Inspection.failure` says so.  It
    takes some dozens of connections, most of which end after the server's first answer.

    Args:
        host: The host.  One of its addresses is inspected: the first that answers.
        port: The port.
        server_name: The name to send as SNI and to verify; ``""`` sends none.  Default: `host`, if it is a
            name.
        starttls: The protocol in which the server is to be asked for TLS: "smtp", "imap", "pop3", "postgres".
        alpn_protocols: The application protocols to ask for.
        timeout: How long all of it may take, in seconds; what is not known by then is not told.
        max_connections: How many connections there may be at once.
        on_progress: Called with an `InspectionProgress` at the beginning and at the end of each step.
        dial: Called for each connection, in place of connecting to `host` and `port` over TCP; async.
        **options: Those of `SecureContext`, for the ordinary client's handshake.

    Returns:
        What is known of the server.

    Raises:
        ConnectError: there is no connection to the server.
        ConfigurationError: an option cannot be used.

    Cancelling closes all connections.
    """
    check_port("port", port)
    check_seconds("timeout", timeout)
    check_starttls(starttls)
    inspector = _Inspector(
        host=host,
        port=port,
        server_name=server_name,
        starttls=starttls,
        alpn_offered=parse_alpn_protocols(alpn_protocols),
        places=trio.Semaphore(check_count("max_connections", max_connections)),
        on_progress=on_progress,
        ordinary=SecureContext(**options),
        tolerant=_tolerant(options, "TLSv1", "TLSv1.3"),
        single={version: _tolerant(options, version, version) for version in _RESUMABLE},
    )
    started_at, started = dt.datetime.now(dt.UTC), trio.current_time()
    first: trio.abc.Stream | None = None
    with trio.move_on_after(timeout):
        first = await inspector.connect_first(dial)
        await inspector.run(first)
    if first is None:
        raise ConnectError(
            f"there was no connection within {timeout:g} seconds", code="ETIMEDOUT", host=host, port=port
        )
    known = inspector.inspection(started_at, trio.current_time() - started)
    return dataclasses.replace(known, findings=findings(known))


def _tolerant(options: ContextOptions, least: str, greatest: str) -> SecureContext:
    """Return the context of a client that takes anything, as long as it is of these versions."""
    rest = {name: value for name, value in options.items() if name not in ("secure_protocol", "sigalgs")}
    changes = {"min_version": least, "max_version": greatest, "ciphers": "DEFAULT@SECLEVEL=0"}
    return SecureContext(**cast("ContextOptions", rest | changes))


class _Inspector:
    """The questions, and what is known so far.

    Args:
        host: As for `inspect`.
        port: As for `inspect`.
        server_name: As for `inspect`.
        starttls: As for `inspect`.
        alpn_offered: The application protocols to ask for.
        places: For the connections that there may be at once.
        on_progress: As for `inspect`.
        ordinary: What an ordinary client's connection is made from.
        tolerant: What that of a client is made from which takes anything.
        single: The same of one version alone.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        server_name: str | None,
        starttls: StartTLSProtocol | None,
        alpn_offered: tuple[str, ...],
        places: trio.Semaphore,
        on_progress: ProgressCallback | None,
        ordinary: SecureContext,
        tolerant: SecureContext,
        single: Mapping[str, SecureContext],
    ) -> None:
        self._host = host
        self._port = port
        self._server_name = server_name
        self._starttls = starttls
        self._alpn_offered = alpn_offered
        self._places = places
        self._on_progress = on_progress
        self._ordinary = ordinary
        self._tolerant = tolerant
        self._single = single
        # What a client makes of these names.
        self._sni = Engine(ordinary, host=host, server_name=server_name).server_name
        self._dial: Dial | None = None
        self._address: Address | None = None
        self._info: ConnectionInfo | None = None
        self._failure: ConnectionFailed | None = None
        self._wants_client_certificate: bool | None = None
        self._protocols: dict[str, bool | None] = dict.fromkeys(VERSIONS.values())
        self._suites: dict[str, list[int]] = {}
        self._groups: dict[str, list[int]] = {}
        self._dh_bits: int | None = None
        self._alpn_protocols: list[str] = []
        self._resumption: dict[str, Resumption] = {}
        self._steps: dict[str, bool] = {}
        self._unanswered: set[str] = set()

    # All of it

    async def connect_first(self, dial: Dial | None) -> trio.abc.Stream:
        """Return the first connection; all others go to the same address.

        Raises:
            ConnectError: there is none.
        """
        if dial is not None:
            self._dial = dial
            return await self._connect()
        stream = await Dialer().dial(self._host, self._port)
        family, address = stream.socket.family, stream.socket.getpeername()
        self._address = Address.from_sockname(family, address)
        self._dial = partial(_dial_address, family, address)
        return stream

    async def run(self, first: trio.abc.Stream) -> None:
        """Ask everything.

        Args:
            first: The first connection.
        """
        steps: dict[str, Callable[[], Awaitable[None]]] = {
            "handshake": partial(self._inspect_handshake, first),
            **{name: partial(self._inspect_version, number) for number, name in VERSIONS.items()},
            "ALPN": self._inspect_alpn,
            **{f"resumption in {name}": partial(self._inspect_resumption, name) for name in _RESUMABLE},
        }
        self._steps = dict.fromkeys(steps, False)
        try:
            async with trio.open_nursery() as nursery:
                for name, step in steps.items():
                    nursery.start_soon(self._take, name, step)
        finally:
            await trio.aclose_forcefully(first)

    async def _take(self, name: str, step: Callable[[], Awaitable[None]]) -> None:
        self._tell(name, finished=False)
        await step()
        self._steps[name] = True
        self._tell(name, finished=True)

    def _tell(self, name: str, *, finished: bool) -> None:
        if self._on_progress is not None:
            self._on_progress(InspectionProgress(name, finished, sum(self._steps.values()), len(self._steps)))

    def inspection(self, started_at: dt.datetime, duration: float) -> Inspection:
        """Return what is known.

        Args:
            started_at: When the inspection began.
            duration: How long it took.
        """
        return Inspection(
            host=self._host,
            port=self._port,
            server_name=self._sni,
            starttls=self._starttls,
            address=self._address,
            inspected_at=started_at,
            duration=duration,
            info=self._info,
            failure=self._failure or self._not_in_time(duration),
            wants_client_certificate=self._wants_client_certificate,
            protocols=MappingProxyType(self._protocols),
            cipher_suites=_named(self._suites, CIPHER_SUITES),
            groups=_named(self._groups, SUPPORTED_GROUPS),
            dh_bits=self._dh_bits,
            alpn_protocols=tuple(self._alpn_protocols),
            resumption=MappingProxyType(dict(sorted(self._resumption.items()))),
            unfinished=tuple(
                name for name, done in self._steps.items() if not done or name in self._unanswered
            ),
        )

    def _not_in_time(self, duration: float) -> HandshakeTimeout | None:
        """Return the failure of an ordinary client whose handshake was not done when the time was over."""
        if self._info is not None or self._steps["handshake"]:
            return None
        reason = f"the handshake was not done within {duration:.3g} seconds"
        return HandshakeTimeout(reason, timeout=duration)

    # The handshake

    async def _inspect_handshake(self, first: trio.abc.Stream) -> None:
        """Find out what an ordinary client gets, or failing that, one that takes anything."""
        trace = HandshakeTrace()
        ticket = _Ticket()
        try:
            async with await self._secured(
                first, self._ordinary, ocsp="verify", trace=trace, on_session=ticket.take
            ) as stream:
                self._info = stream.info
                self._failure = stream.authorization_error
                self._note_request(trace)
                if self._wants_client_certificate:
                    # In TLS 1.3, only now the server says what it thinks of ours, or of our having none.
                    await ticket.wait(stream)
        except ConnectionFailed as failure:
            self._failure = self._failure or failure
            self._note_request(trace)
        if self._info is None:
            with contextlib.suppress(ConnectError, ConnectionFailed):
                async with self._connected(self._tolerant, request_ocsp=True) as stream:
                    self._info = stream.info

    def _note_request(self, trace: HandshakeTrace) -> None:
        names = {message.name for message in trace.messages}
        if "ServerHello" in names:
            self._wants_client_certificate = "CertificateRequest" in names

    # What it chooses from what it is offered

    async def _inspect_version(self, version: int) -> None:
        """Find out whether the server has a version, and with which suites and groups."""
        name = VERSIONS[version]
        suites: list[int] = []

        def suite_of(answer: HelloAnswer) -> int | None:
            if self._protocols[name] is None:
                self._protocols[name] = answer.version == version
                if answer.version == version:
                    self._suites[name] = suites
            return answer.cipher_suite if answer.version == version else None

        def with_suites(left: tuple[int, ...]) -> HelloProbe:
            return HelloProbe(version=version, cipher_suites=left, server_name=self._sni)

        candidates = TLS13_SUITES if version == TLS13 else OLDER_SUITES
        if not await self._exhaust(with_suites, candidates, suite_of, suites) and suites:
            self._unanswered.add(name)
        dhe = tuple(suite for suite in suites if uses_dhe(CIPHER_SUITES[suite]))
        own_group = dataclasses.replace(with_suites(dhe), groups=CURVES)
        if dhe and (answer := await self._ask(own_group)) and answer.dh_bits:
            self._dh_bits = min(answer.dh_bits, self._dh_bits or answer.dh_bits)
        curved = tuple(suite for suite in suites if version == TLS13 or uses_curve(CIPHER_SUITES[suite]))
        if version < TLS12 or not curved:
            return

        def with_groups(left: tuple[int, ...]) -> HelloProbe:
            return HelloProbe(version=version, cipher_suites=curved, groups=left, server_name=self._sni)

        groups = self._groups.setdefault(name, [])
        if not await self._exhaust(with_groups, GROUPS, lambda answer: answer.group, groups):
            self._unanswered.add(name)

    async def _exhaust(
        self,
        offer: Callable[[tuple[int, ...]], HelloProbe],
        candidates: tuple[int, ...],
        choice_of: Callable[[HelloAnswer], int | None],
        chosen: list[int],
    ) -> bool:
        """Offer candidates, each time without those that were chosen before, until none is chosen.

        Returns False if an offer had no answer.

        Args:
            offer: Returns the probe with what is left of them.
            candidates: The numbers of all.
            choice_of: Returns the number that an answer chooses.
            chosen: Where the numbers go, in the order in which they are chosen.
        """
        left = candidates
        while left:
            answer = await self._ask(offer(left))
            if answer is None:
                return False
            choice = choice_of(answer)
            if choice not in left:
                break
            chosen.append(choice)
            left = tuple(number for number in left if number != choice)
        return True

    async def _ask(self, probe: HelloProbe) -> HelloAnswer | None:
        """Return the server's answer, or None if it has none."""
        async with self._places:
            with trio.move_on_after(_PATIENCE):
                try:
                    transport = await self._connect()
                    try:
                        await self._reach_tls(transport)
                    except BaseException:
                        await trio.aclose_forcefully(transport)
                        raise
                except (ConnectError, ConnectionFailed):
                    return None
                return await _answer(transport, probe)
        return None

    # What takes handshakes

    async def _inspect_alpn(self) -> None:
        left = self._alpn_offered
        while left:
            try:
                async with self._connected(self._tolerant, alpn_protocols=left) as stream:
                    protocol = stream.alpn_protocol
            except (ConnectError, ConnectionFailed):
                # With no_application_protocol, as the rest is not what it speaks.
                return
            if protocol is None:
                return
            self._alpn_protocols.append(protocol)
            left = tuple(other for other in left if other != protocol)

    async def _inspect_resumption(self, version: str) -> None:
        context = self._single[version]
        try:
            session = await self._session(context)
            if session is None:
                self._resumption[version] = "none"
                return
            async with self._connected(context, session=session) as stream:
                reused = stream.info.session_reused
        except (ConnectError, ConnectionFailed):
            # It does not have this version, or not for us.
            return
        how: Resumption = "ticket" if Session.parse(session).ticket else "identifier"
        self._resumption[version] = how if reused else "refused"

    async def _session(self, context: SecureContext) -> bytes | None:
        """Return a session that the server gives, if it gives any.

        Raises:
            ConnectionFailed: it gives none because it refuses us.
        """
        ticket = _Ticket()
        async with self._connected(context, on_session=ticket.take) as stream:
            await ticket.wait(stream)
        return ticket.session

    # Connections

    @contextlib.asynccontextmanager
    async def _connected(self, context: SecureContext, **options: Any) -> AsyncIterator[TLSStream]:
        """Give a connection whose handshake is done.

        Raises:
            ConnectError: there is none.
            ConnectionFailed: the handshake failed.
        """
        async with self._places:
            transport = await self._connect()
            async with await self._secured(transport, context, **options) as stream:
                yield stream

    async def _connect(self) -> trio.abc.Stream:
        assert self._dial is not None
        try:
            return await self._dial()
        except ConnectError:
            raise
        except OSError as error:
            raise connect_error(error, self._host, self._port) from error

    async def _secured(self, transport: trio.abc.Stream, context: SecureContext, **options: Any) -> TLSStream:
        """Do the handshake of a client that goes on if the server is not to be trusted."""
        try:
            with trio.fail_after(_HANDSHAKE_PATIENCE):
                initial = await self._reach_tls(transport)
        except trio.TooSlowError:
            await trio.aclose_forcefully(transport)
            reason = f"the server did not agree to TLS within {_HANDSHAKE_PATIENCE:g} seconds"
            raise HandshakeTimeout(reason, timeout=_HANDSHAKE_PATIENCE) from None
        except BaseException:
            await trio.aclose_forcefully(transport)
            raise
        return await wrap_client(
            transport,
            initial=initial,
            host=self._host,
            server_name=self._server_name,
            context=context,
            reject_unauthorized=False,
            handshake_timeout=_HANDSHAKE_PATIENCE,
            close_timeout=_TICKET_PATIENCE,
            **options,
        )

    async def _reach_tls(self, transport: trio.abc.Stream) -> bytes:
        """Do what comes before TLS; return what was read behind it."""
        return b"" if self._starttls is None else await request_starttls(transport, self._starttls)


class _Ticket:
    """The first session that a server gives.

    Attributes:
        session: The session, or None if none has come.
    """

    def __init__(self) -> None:
        self.session: bytes | None = None
        self._waiting = trio.CancelScope()

    def take(self, session: bytes) -> None:
        """Take a session (``on_session``)."""
        if self.session is None:
            self.session = session
            self._waiting.cancel()

    async def wait(self, stream: TLSStream) -> None:
        """Wait until there is one, or the server has ended the connection, or for a moment.

        Raises:
            ConnectionFailed: the server refuses us.
        """
        self._waiting.deadline = trio.current_time() + _TICKET_PATIENCE
        with self._waiting, contextlib.suppress(ConnectionLost):
            # Some give their tickets with the first data, and this is all that we have to say.
            await stream.send_eof()
            async for _ in stream:
                pass


async def _dial_address(family: int, address: Any) -> trio.SocketStream:
    connection = trio.socket.socket(family, trio.socket.SOCK_STREAM)
    try:
        await connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return trio.SocketStream(connection)


async def _answer(transport: trio.abc.Stream, probe: HelloProbe) -> HelloAnswer:
    """Return what a server answers to a probe; its connection is closed then."""
    flight = b""
    try:
        await transport.send_all(probe.record())
        while (answer := answer_of(flight)) is None:
            data = await transport.receive_some(_PIECE)
            if not data or len(flight) > _MOST_ANSWER:
                return REFUSED
            flight += data
    except trio.BrokenResourceError:
        return REFUSED
    finally:
        await trio.aclose_forcefully(transport)
    return answer


def _named(
    numbers: Mapping[str, Sequence[int]], registry: Mapping[int, str]
) -> Mapping[str, tuple[str, ...]]:
    """Return what was found for each version by IANA's names, the oldest version first."""
    return MappingProxyType(
        {version: names(numbers[version], registry) for version in VERSIONS.values() if version in numbers}
    )
