"""``tlsnode inspect``: what a server's TLS is like, what is wrong with it, and what to do about that."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Final

import click
from rich.console import Console
from rich.text import Text

from .. import (
    Certificate,
    CertificateError,
    ConnectionInfo,
    Inspection,
    InspectionProgress,
    StartTLSProtocol,
)
from .. import inspect as tls_inspect
from .credential_options import context_options, credential_options, in_options
from .description import certificate_rows
from .destination import Destination, port_of
from .failure import ExitStatus, exit_status, run
from .reach import destination_argument, starttls_option
from .report import JSONOutput, json_option
from .terminal import Row, print_line, print_rows, print_text, terminal

_STYLES: Final = {"error": "bold red", "warning": "bold yellow", "advice": "bold cyan"}
_RESUMPTION: Final = {
    "ticket": "by ticket",
    "identifier": "by identifier",
    "refused": "refused",
    "none": "no session is given",
}


@click.command(short_help="Say what a server's TLS is like, and what is wrong with it.")
@destination_argument
@credential_options
@click.option("--servername", metavar="NAME", help="The name to send and to verify; by default HOST.")
@starttls_option
@click.option(
    "--alpn",
    multiple=True,
    metavar="NAME",
    default=("h2", "http/1.1"),
    show_default=True,
    help="Ask for an application protocol; may be repeated.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30,
    show_default=True,
    metavar="SECONDS",
    help="How long all of it may take.",
)
@click.option(
    "--connections",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    metavar="NUMBER",
    help="How many connections there may be at once.",
)
@json_option
def inspect(
    destination: Destination,
    cert: Path | None,
    key: Path | None,
    passphrase_file: IO[bytes] | None,
    ca: Path | None,
    servername: str | None,
    starttls: StartTLSProtocol | None,
    alpn: tuple[str, ...],
    timeout: float,
    connections: int,
    as_json: bool,
) -> None:
    """Say what a server's TLS is like, what is wrong with it, and what to do about that.

    It is verified as by an ordinary client.  Then its versions, cipher suites, groups, application protocols
    and resumption are found out, all at once, over some dozens of short connections.  Nobody else is asked.

    The port is 443 unless another one is named; with --starttls, the protocol's own (SMTP's is 587).

    The exit status is 0 if there is nothing to complain of, or advice alone, 1 if the certificate is not to
    be trusted or is for another name, 3 if there is no connection, 4 if the server speaks no TLS or refuses
    ordinary clients, 5 if the time was not enough, 6 if it has a weakness; 2 is wrong usage.
    """
    json = JSONOutput("inspect", sys.stdout) if as_json else None
    port = port_of(destination, starttls)
    ask = partial(
        tls_inspect,
        destination[0],
        port,
        server_name=servername,
        starttls=starttls,
        timeout=timeout,
        max_connections=connections,
        alpn_protocols=alpn,
        **context_options(cert, key, passphrase_file, ca),
    )
    with _progress(f"{destination[0]}:{port}") as on_progress:
        inspection: Inspection = run(partial(ask, on_progress=on_progress), json=json)
    status = status_of(inspection)
    if json is not None:
        json.print(report=inspection.to_dict(), exit_status=status)
    else:
        show(terminal(), inspection)
    raise click.exceptions.Exit(status)


def status_of(inspection: Inspection) -> ExitStatus:
    """Return the exit status that an inspection ends with.

    Args:
        inspection: The inspection.
    """
    if inspection.failure is not None:
        status = exit_status(inspection.failure)
        assert status is not None
        return status
    if any(finding.severity != "advice" for finding in inspection.findings):
        return ExitStatus.ATTENTION
    return ExitStatus.TIMEOUT if inspection.unfinished else ExitStatus.OK


@contextlib.contextmanager
def _progress(where: str) -> Iterator[Callable[[InspectionProgress], None]]:
    """Show on the terminal how far an inspection has got, where somebody looks."""
    console = terminal(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status(Text(f"Inspecting {where}")) as status:

        def show_progress(progress: InspectionProgress) -> None:
            done = f"{progress.done} of {progress.total} steps"
            status.update(Text(f"Inspecting {where}: {done}, {progress.step}"))

        yield show_progress


def show(console: Console, inspection: Inspection) -> None:
    """Print an inspection in words.

    Args:
        console: Where to.
        inspection: The inspection.
    """
    at = "" if inspection.address is None else f" at {inspection.address}"
    print_line(console, (f"{inspection.host}:{inspection.port}{at}", "bold"))
    info = inspection.info
    if info is not None:
        _heading(console, "Certificate")
        print_rows(console, _certificate_rows(info))
    if any(there is not None for there in inspection.protocols.values()):
        _heading(console, "What it offers")
        print_rows(console, _server_rows(inspection))
    if inspection.unfinished:
        _heading(console, "Not known, or not all of it, as there was no answer in time")
        print_rows(console, [("steps", ", ".join(inspection.unfinished))])
    if inspection.findings:
        _heading(console, "What is wrong")
    for index, finding in enumerate(inspection.findings):
        if index:
            console.print()
        row = (finding.severity, f"{finding.summary} [{finding.code}]")
        print_rows(console, [row], _STYLES[finding.severity])
        reasons = [("why", finding.cause), ("what to do", in_options(finding.remedy))]
        print_rows(console, [reason for reason in reasons if reason[1]])
    console.print()
    failure = inspection.failure
    if isinstance(failure, CertificateError):
        print_text(console, f"The server is NOT verified: {failure.reason} [{failure.code}]", "bold red")
    elif failure is not None:
        what = f"An ordinary client gets no connection: {failure.reason} [{failure.code}]"
        print_text(console, what, "bold red")
    elif inspection.authorized:
        print_text(console, "The server is verified.", "green")


def _heading(console: Console, text: str) -> None:
    console.print()
    print_line(console, (text, "bold"))


def _certificate_rows(info: ConnectionInfo) -> Iterator[Row]:
    leaf = info.peer_certificate
    if leaf is None:
        yield "certificate", "none: the server has proved its identity by a pre-shared key"
        return
    yield from certificate_rows(leaf)
    yield "key", _key(leaf)
    yield "chain", _chain(info)
    yield "OCSP", "a response is stapled" if info.ocsp_response is not None else "no response is stapled"


def _key(certificate: Certificate) -> str:
    try:
        curve = certificate.nist_curve or certificate.asn1_curve
        rsa = f"RSA, {certificate.bits} bits" if certificate.modulus else "neither RSA nor EC"
    except CertificateError as damage:
        return f"unreadable: {damage.reason}"
    return f"EC, {curve}" if curve else rsa


def _chain(info: ConnectionInfo) -> str:
    sent = len(info.peer_certificate_chain)
    count = f"{sent} certificate{'s' if sent > 1 else ''} sent"
    return f"{count}, trusted by {_name(info.verified_chain[-1])}" if info.verified_chain else count


def _name(certificate: Certificate) -> str:
    return next(iter(certificate_rows(certificate)))[1]


def _server_rows(inspection: Inspection) -> Iterator[Row]:
    for version, there in reversed([*inspection.protocols.items()]):
        suites = inspection.cipher_suites.get(version, ())
        yield version, ", ".join(suites) if there else "no" if there is False else "no answer"
    if not any(inspection.protocols.values()):
        return
    for version, groups in reversed([*inspection.groups.items()]):
        none = "not known" if version in inspection.unfinished else "none"
        yield "groups", f"{version}: {', '.join(groups) or none}"
    if inspection.dh_bits is not None:
        yield "DH", f"{inspection.dh_bits} bits"
    yield "ALPN", ", ".join(inspection.alpn_protocols) or "none of those that were asked for"
    resumption = [
        f"{version} {_RESUMPTION[how]}" for version, how in reversed([*inspection.resumption.items()])
    ]
    yield "resumption", ", ".join(resumption) or "not known"
    if inspection.wants_client_certificate:
        yield "clients", "are asked for a certificate"
