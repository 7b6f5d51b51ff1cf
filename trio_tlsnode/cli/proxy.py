"""``tlsnode proxy``: TLS in front of plain services, until it is asked to end."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

import click
import trio

from .. import (
    Address,
    ClientRule,
    ConfigurationError,
    ConnectionFailed,
    ProxiedConnection,
    ProxyHandler,
    ProxyProtocolListener,
    ProxyRoute,
    SecureContext,
    TLSServer,
    watch_credentials,
)
from .credential_options import FILE, context_options, credential_options
from .destination import parse_port, split_destination
from .events import Events
from .failure import run
from .report import JSONOutput, json_option
from .terminal import terminal

logger = logging.getLogger("trio_tlsnode")

_SIGNALS: Final = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def parse_backend(text: str) -> tuple[str, int] | Path:
    """Return where a service is: of ``HOST:PORT``, ``[ADDRESS]:PORT``, ``PORT`` on this host, or a path.

    Raises:
        click.BadParameter: it is none of these.
    """
    if "/" in text:
        return Path(text)
    if text.isdigit():
        return "localhost", parse_port(text)
    host, port = split_destination(text)
    if port is None:
        raise click.BadParameter(f"{text!r} has no port")
    return host, port


def parse_rule(text: str) -> ClientRule:
    """Return a rule for client certificates.

    Raises:
        click.BadParameter: it is none.
    """
    try:
        return ClientRule.parse(text)
    except ConfigurationError as error:
        raise click.BadParameter(error.reason) from error


def parse_listen(text: str) -> tuple[str | None, int]:
    """Return where to listen: of ``PORT`` on all addresses, or ``HOST:PORT``; port 0 is a free one.

    Raises:
        click.BadParameter: it is none of these.
    """
    place, _, port = text.rpartition(":")
    number = 0 if port == "0" else parse_port(port)
    return (split_destination(place)[0] if place else None), number


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is proxied, and how.

    Attributes:
        host: Where to listen; None is all addresses.
        port: The port; 0 lets the kernel choose.
        balancers: Whose PROXY protocol headers are believed, if anybody's.
        credentials: The options of the default context: files.
        named: Those of the contexts for names.
        routes: Where connections go.
        proxy: The options of the `ProxyHandler`.
        server: Those of the `TLSServer`.
        interval: How often files are looked at, in seconds.
        grace: How long open connections may take at the end, in seconds.
    """

    host: str | None
    port: int
    balancers: Sequence[str]
    credentials: Mapping[str, Any]
    named: Mapping[str, Mapping[str, Any]]
    routes: Sequence[ProxyRoute]
    proxy: Mapping[str, Any]
    server: Mapping[str, Any]
    interval: float
    grace: float


@click.command(short_help="Put TLS in front of plain services.")
@click.option(
    "--listen",
    "place",
    type=parse_listen,
    default="127.0.0.1:8443",
    show_default=True,
    metavar="[HOST:]PORT",
    help="Where to listen; PORT alone is on all addresses.",
)
@click.option("--to", type=parse_backend, metavar="BACKEND", help="Where connections go that have no route.")
@click.option(
    "--route",
    "routes",
    type=(str, parse_backend),
    multiple=True,
    metavar="NAME BACKEND",
    help="Where those go that ask for NAME, such as '*.app.test'; may be repeated.",
)
@click.option(
    "--alpn-route",
    "alpn_routes",
    type=(str, parse_backend),
    multiple=True,
    metavar="PROTOCOL BACKEND",
    help="Where those go that speak PROTOCOL, such as h2; may be repeated.",
)
@credential_options
@click.option(
    "--sni-cert",
    "named",
    type=(str, FILE, FILE),
    multiple=True,
    metavar="NAME CERT KEY",
    help="Another certificate for those that ask for NAME; may be repeated.",
)
@click.option(
    "--alpn", multiple=True, metavar="PROTOCOL", help="Speak an application protocol; may be repeated."
)
@click.option("--request-cert", is_flag=True, help="Refuse clients without a certificate that is trusted.")
@click.option(
    "--allow",
    type=parse_rule,
    multiple=True,
    metavar="RULE",
    help="Let in only clients with such a name in their certificate, such as 'DNS:*.clients.test', "
    "URI:spiffe://app.test/web, email:a@b.test, IP:10.0.0.0/8 or CN:alice; may be repeated.",
)
@click.option(
    "--proxy-protocol",
    type=click.Choice(["1", "2"]),
    help="Tell the services who their clients are, by this version of the PROXY protocol.",
)
@click.option(
    "--behind",
    "balancers",
    multiple=True,
    metavar="NETWORK",
    help="Believe what a balancer at this address, or in this network, says of its clients by the PROXY "
    "protocol; may be repeated.",
)
@click.option(
    "--connect-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=10,
    show_default=True,
    metavar="SECONDS",
    help="How long connecting to a service may take.",
)
@click.option(
    "--max-connections", type=click.IntRange(1), metavar="NUMBER", help="How many there may be at once."
)
@click.option(
    "--interval",
    type=click.FloatRange(min=0, min_open=True),
    default=10,
    show_default=True,
    metavar="SECONDS",
    help="How often to look whether files have changed.",
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=30,
    show_default=True,
    metavar="SECONDS",
    help="How long open connections may take at the end.",
)
@json_option
def proxy(
    place: tuple[str | None, int],
    to: tuple[str, int] | Path | None,
    routes: tuple[tuple[str, tuple[str, int] | Path], ...],
    alpn_routes: tuple[tuple[str, tuple[str, int] | Path], ...],
    cert: Path | None,
    key: Path | None,
    passphrase_file: IO[bytes] | None,
    ca: Path | None,
    named: tuple[tuple[str, Path, Path], ...],
    alpn: tuple[str, ...],
    request_cert: bool,
    allow: tuple[ClientRule, ...],
    proxy_protocol: str | None,
    balancers: tuple[str, ...],
    connect_timeout: float,
    max_connections: int | None,
    interval: float,
    grace: float,
    as_json: bool,
) -> None:
    """Put TLS in front of plain services: take connections over TLS, and pass on what is in them.

    A BACKEND is HOST:PORT, PORT on this host, or the path of a Unix socket.  Routes by name come before
    those by protocol, and these before --to.

    Certificates, keys and trust are read again when their files change, and at once on SIGHUP; connections
    that are open keep theirs.  New ones that cannot be used are told, and the old ones stay.

    Each connection is one line when it has ended, and so is each failure; with --json, of JSON.  Ctrl-C and
    SIGTERM end the proxy: it accepts no more, and open connections may come to their end.  The second time
    ends it at once.
    """
    if cert is None:
        raise click.UsageError("--cert and --key are needed; tlsnode dev-ca issues them for local names")
    if to is None and not routes and not alpn_routes:
        raise click.UsageError("there is nowhere to go: give --to, --route or --alpn-route")
    credentials = context_options(cert, key, passphrase_file, ca)
    try:
        ways = [
            *(ProxyRoute(backend, names=[name], allow=allow) for name, backend in routes),
            *(
                ProxyRoute(backend, alpn_protocols=[protocol], allow=allow)
                for protocol, backend in alpn_routes
            ),
            *([] if to is None else [ProxyRoute(to, allow=allow)]),
        ]
    except ConfigurationError as error:
        raise click.UsageError(error.reason) from error
    plan = Plan(
        host=place[0],
        port=place[1],
        balancers=balancers,
        credentials=credentials,
        named={name: {"cert": other, "key": its_key, "ca": ca} for name, other, its_key in named},
        routes=ways,
        proxy={
            "proxy_protocol": None if proxy_protocol is None else int(proxy_protocol),
            "connect_timeout": connect_timeout,
        },
        server={
            "alpn_protocols": tuple(dict.fromkeys((*(protocol for protocol, _ in alpn_routes), *alpn))),
            "request_cert": request_cert or bool(allow),
            "max_connections": max_connections,
        },
        interval=interval,
        grace=grace,
    )
    json = JSONOutput("proxy", sys.stdout, indent=None) if as_json else None
    run(pass_on_until_asked, plan, Teller(terminal(), json), json=json)


class Teller(Events):
    """Tells what happens."""

    def listening(self, plan: Plan, addresses: Sequence[Address]) -> None:
        """Tell where clients can connect to."""
        places = ", ".join(map(str, addresses))
        backends = ", ".join(dict.fromkeys(route.place for route in plan.routes))
        facts = {"addresses": [address._asdict() for address in addresses]}
        self.tell("listening", facts, (f"Passing {places} on to {backends}, until Ctrl-C", "bold"))

    def ended(self, ended: ProxiedConnection) -> None:
        """Tell what became of a connection."""
        parts = [f"to {ended.backend or 'nowhere'}"]
        if ended.server_name is not None:
            parts.append(f"SNI {ended.server_name}")
        if ended.alpn_protocol is not None:
            parts.append(f"ALPN {ended.alpn_protocol}")
        if ended.client is not None:
            parts.append(ended.client)
        parts.append(f"{ended.bytes_received} bytes in, {ended.bytes_sent} out, {ended.duration:.1f} s")
        outcome = ended.outcome if not ended.reason else f"{ended.outcome}: {ended.reason}"
        style = "" if ended.outcome == "done" else "red"
        what = (f"{', '.join(parts)}, {outcome}", style)
        self.tell("connection", ended.to_dict(), (f"{ended.remote_address} ", "cyan"), what)

    def said(self, text: str, *, bad: bool) -> None:
        """Tell what the library says of credentials."""
        self.tell("credentials", {"message": text}, (text, "red" if bad else "green"))


class _LogLines(logging.Handler):
    """What the library says of credentials, told as lines."""

    def __init__(self, teller: Teller) -> None:
        super().__init__(logging.INFO)
        self._teller = teller

    def emit(self, record: logging.LogRecord) -> None:
        self._teller.said(record.getMessage(), bad=record.levelno > logging.INFO)


@contextlib.contextmanager
def _logged(teller: Teller) -> Iterator[None]:
    handler, level = _LogLines(teller), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


async def pass_on_until_asked(
    plan: Plan,
    teller: Teller,
    *,
    task_status: trio.TaskStatus[tuple[Address, ...]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Proxy until SIGINT or SIGTERM asks to end it.

    Args:
        plan: What to proxy.
        teller: Where to tell about it.
        task_status: With ``nursery.start``, gets the addresses.

    Raises:
        ConfigurationError: a certificate cannot be used.
        ConnectError: the address cannot be listened on.
    """
    handler = ProxyHandler(plan.routes, on_end=teller.ended, **plan.proxy)
    server = TLSServer(handler, SecureContext(**plan.credentials), **plan.server)
    for name, options in plan.named.items():
        server.add_context(name, SecureContext(**options))
    with _logged(teller), trio.open_signal_receiver(*_SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_obey, signals, nursery, server, plan, teller)
            async with trio.open_nursery() as serving:
                serving.start_soon(_tell_failures, server, teller)
                addresses = await _listen(serving, server, plan)
                teller.listening(plan, addresses)
                task_status.started(addresses)
            nursery.cancel_scope.cancel()


async def _listen(nursery: trio.Nursery, server: TLSServer, plan: Plan) -> tuple[Address, ...]:
    """Serve in a nursery; return where."""
    if not plan.balancers:
        await nursery.start(partial(server.serve, plan.port, plan.host))
        return server.addresses
    listeners = await ProxyProtocolListener.open(plan.port, plan.host, trusted=plan.balancers)
    await nursery.start(server.serve_listeners, listeners)
    return tuple(listener.address for listener in listeners if listener.address is not None)


async def _obey(
    signals: AsyncIterator[int], nursery: trio.Nursery, server: TLSServer, plan: Plan, teller: Teller
) -> None:
    """Look after the files; read them again, and end, when a signal asks for it."""
    hang_up = getattr(signal, "SIGHUP", None)
    number = hang_up
    while number == hang_up:
        # After SIGHUP the watchers begin again, and read all files at once.
        async with trio.open_nursery() as watching:
            watching.start_soon(_watch, server, None, plan.credentials, plan.interval)
            for name, options in plan.named.items():
                watching.start_soon(_watch, server, name, options, plan.interval)
            number = await anext(signals)
            watching.cancel_scope.cancel()
    teller.closing(server.statistics().open)
    nursery.start_soon(server.aclose, plan.grace)
    while await anext(signals) == hang_up:
        pass
    nursery.cancel_scope.cancel()


async def _watch(server: TLSServer, name: str | None, options: Mapping[str, Any], interval: float) -> None:
    """Keep the certificate for a name, or the default one, as it is in its files."""
    files = {option: value for option, value in options.items() if value is not None}
    complaint = ""
    while True:
        try:
            context = None
            if name is not None:
                context = SecureContext(**options)
                server.add_context(name, context)
            await watch_credentials(server, context=context, interval=interval, **files)
        except ConfigurationError as error:
            if str(error) != complaint:
                complaint = str(error)
                logger.error("new credentials cannot be used, and the old ones stay: %s", error)
        await trio.sleep(interval)


async def _tell_failures(server: TLSServer, teller: Teller) -> None:
    async for group in server.client_errors():
        for error in group.exceptions:
            if isinstance(error, ConnectionFailed):
                teller.failed(error)
        teller.dropped(group.dropped)
