"""``tlsnode serve``: a server that echoes, or answers with a page, and tells what comes and what fails."""

from __future__ import annotations

import dataclasses
import shlex
import signal
import sys
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

import click
import trio

from .. import Address, ConnectionFailed, SecureContext, TLSServer, TLSStream
from .authority_folder import NAMES, AuthorityFolder
from .credential_options import FILE, context_options, credential_options
from .description import connection_report, summary
from .events import Events
from .failure import run
from .http_page import serve_page
from .report import JSONOutput, json_option
from .terminal import terminal

_DEFAULT_FOLDER: Final = Path(click.get_app_dir("tlsnode")) / "authority"
_HTTP: Final = "http/1.1"
# Addresses of all interfaces, which nobody can connect to.
_ANY: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - recognised, not bound


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What is served, and how.

    Attributes:
        host: The name or address to listen on.
        port: The port; 0 lets the kernel choose.
        http: Whether to answer HTTP requests rather than to echo.
        files: The folder whose files are the answers; None is a page about the connection.
        credentials: The options of the context; without a certificate, the folder's is presented.
        folder: Where the throw-away authority is.
        request_cert: Whether to refuse clients without a certificate that is trusted.
        alpn_protocols: The application protocols, most preferred first.
        grace: How long open connections may take at the end, in seconds.
    """

    host: str
    port: int
    http: bool
    files: Path | None
    credentials: dict[str, Any]
    folder: AuthorityFolder
    request_cert: bool
    alpn_protocols: tuple[str, ...]
    grace: float


@click.command(short_help="Serve TLS: an echo, or a page for HTTP clients.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The name or address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8443,
    show_default=True,
    help="The port to listen on; 0 takes a free one.",
)
@click.option(
    "--http",
    is_flag=False,
    flag_value="",
    metavar="[FOLDER]",
    help="Answer HTTP requests with the files of FOLDER, or without one with a page about the connection.",
)
@credential_options
@click.option("--request-cert", is_flag=True, help="Refuse clients without a certificate that is trusted.")
@click.option("--alpn", multiple=True, metavar="NAME", help="Speak an application protocol; may be repeated.")
@click.option(
    "--authority",
    type=FILE,
    metavar="FOLDER",
    help=f"Where the throw-away authority is kept; by default {_DEFAULT_FOLDER}.",
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=5,
    show_default=True,
    metavar="SECONDS",
    help="How long open connections may take at the end.",
)
@json_option
def serve(
    host: str,
    port: int,
    http: str | None,
    cert: Path | None,
    key: Path | None,
    passphrase_file: IO[bytes] | None,
    ca: Path | None,
    request_cert: bool,
    alpn: tuple[str, ...],
    authority: Path | None,
    grace: float,
    as_json: bool,
) -> None:
    """Serve TLS: echo what clients send, or answer HTTP requests with files or a page.

    Without --cert, a throw-away authority issues a certificate for localhost, 127.0.0.1 and ::1.  Both are
    kept in a folder for the next time.  Unless --ca says otherwise, clients of that authority are trusted.

    Each connection is one line, and so is each failure; with --json, of JSON.  Ctrl-C and SIGTERM end the
    server: it accepts no more, and open connections may come to their end.  The second time ends it at once.
    """
    if cert is not None and authority is not None:
        raise click.UsageError("--authority is for a server without --cert")
    if http and not Path(http).is_dir():
        raise click.UsageError(f"--http {http}: there is no such folder")
    if http is not None and not {*alpn} <= {_HTTP}:
        raise click.UsageError(f"with --http, the only application protocol is {_HTTP}")
    service = Service(
        host=host,
        port=port,
        http=http is not None,
        files=Path(http) if http else None,
        credentials=context_options(cert, key, passphrase_file, ca),
        folder=AuthorityFolder(authority or _DEFAULT_FOLDER),
        request_cert=request_cert,
        alpn_protocols=alpn if http is None else (_HTTP,),
        grace=grace,
    )
    json = JSONOutput("serve", sys.stdout, indent=None) if as_json else None
    run(serve_until_asked, service, Events(terminal(), json), json=json)


async def serve_until_asked(
    service: Service,
    events: Events,
    *,
    task_status: trio.TaskStatus[tuple[Address, ...]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until SIGINT or SIGTERM asks to end it.

    Args:
        service: What to serve.
        events: Where to tell about it.
        task_status: With ``nursery.start``, gets the addresses.

    Raises:
        ConfigurationError: the certificate cannot be used.
        ConnectError: the address cannot be listened on.
    """
    context = await _context(service, events)

    async def handle(stream: TLSStream) -> None:
        events.tell(
            "connection",
            connection_report(stream),
            (f"{stream.remote_address} ", "cyan"),
            summary(stream.info),
        )
        await (serve_page(stream, service.files) if service.http else echo(stream))

    server = TLSServer(
        handle,
        context,
        alpn_protocols=service.alpn_protocols,
        request_cert=service.request_cert,
        https_compatible=service.http,
    )
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def close_when_asked() -> None:
                await anext(signals)
                events.closing(server.statistics().open)
                nursery.start_soon(server.aclose, service.grace)
                await anext(signals)
                nursery.cancel_scope.cancel()

            nursery.start_soon(close_when_asked)
            async with trio.open_nursery() as serving:
                serving.start_soon(_tell_failures, server, events)
                await serving.start(partial(server.serve, service.port, service.host))
                _tell_address(service, server.addresses, events)
                task_status.started(server.addresses)
            nursery.cancel_scope.cancel()


async def echo(stream: TLSStream) -> None:
    """Send back what is received, until the client's end."""
    async for data in stream:
        await stream.send_all(data)


async def _context(service: Service, events: Events) -> SecureContext:
    options = dict(service.credentials)
    if options["cert"] is None:
        made = await service.folder.make()
        what = "Made" if made else "Found"
        facts = {"folder": str(service.folder.path), "made": made, "names": list(NAMES)}
        events.tell("authority", facts, f"{what} a throw-away authority in {service.folder.path}")
        events.add(f"It vouches for {', '.join(NAMES)}")
        options |= {"cert": service.folder.cert, "key": service.folder.key}
        options["ca"] = options["ca"] or service.folder.ca
    return SecureContext(**options)


def _tell_address(service: Service, addresses: tuple[Address, ...], events: Events) -> None:
    host = "localhost" if service.host in _ANY else service.host
    place = f"[{host}]:{addresses[0].port}" if ":" in host else f"{host}:{addresses[0].port}"
    page = "a page" if service.files is None else service.files
    what = f"{page} on https://{place}/" if service.http else f"an echo on {place}"
    facts = {"addresses": [address._asdict() for address in addresses]}
    events.tell("listening", facts, (f"Serving {what}, until Ctrl-C", "bold"))
    options: list[str | Path] = []
    if service.credentials["cert"] is None:
        folder = service.folder
        options = ["--cacert" if service.http else "--ca", folder.ca]
        if service.request_cert and service.credentials["ca"] is None:
            options += ["--cert", folder.cert, "--key", folder.key]
    command = ["curl", f"https://{place}/"] if service.http else ["tlsnode", "connect", place]
    events.add("Try: ", (shlex.join(map(str, [*command, *options])), "green"))


async def _tell_failures(server: TLSServer, events: Events) -> None:
    async for group in server.client_errors():
        for error in group.exceptions:
            if isinstance(error, ConnectionFailed):
                events.failed(error)
        events.dropped(group.dropped)
