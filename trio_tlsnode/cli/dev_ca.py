"""``tlsnode dev-ca``: an authority for local names on this machine, and certificates of it."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import re
import shlex
import sys
from pathlib import Path
from typing import IO, Any, Final

import click
from rich.console import Console

from .. import Certificate, ConfigurationError, LocalAuthority, LocalCertificate
from .credential_options import FILE
from .failure import ExitStatus, tell
from .report import JSONOutput, json_option
from .terminal import print_line, print_rows, print_text, terminal

_DEFAULT_FOLDER: Final = Path(click.get_app_dir("tlsnode")) / "dev-ca"


@click.command("dev-ca", short_help="Issue certificates for local names.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--client", is_flag=True, help="Issue a client's certificate; the first NAME is its common name."
)
@click.option("--rsa", is_flag=True, help="Make an RSA key of 2048 bits, instead of one on P-256.")
@click.option(
    "--csr", type=FILE, metavar="FILE", help="Sign a request, in which the names are, and make no key."
)
@click.option(
    "--days",
    type=click.FloatRange(min=0, min_open=True),
    default=397,
    show_default=True,
    metavar="DAYS",
    help="For how long the certificate is valid.",
)
@click.option("--out", type=FILE, metavar="PREFIX", help="Where the files go: PREFIX.pem and PREFIX-key.pem.")
@click.option(
    "--pfx",
    "pfx_passphrase_file",
    type=click.File("rb"),
    metavar="FILE",
    help="Write PREFIX.p12 too; the first line of FILE is its passphrase.",
)
@click.option(
    "--authority",
    type=FILE,
    metavar="FOLDER",
    help=f"Where the authority is kept; by default {_DEFAULT_FOLDER}.",
)
@json_option
def dev_ca(
    names: tuple[str, ...],
    client: bool,
    rsa: bool,
    csr: Path | None,
    days: float,
    out: Path | None,
    pfx_passphrase_file: IO[bytes] | None,
    authority: Path | None,
    as_json: bool,
) -> None:
    """Issue a certificate for local names and addresses, such as localhost, app.test and 127.0.0.1.

    The first time, an authority is made, which is kept for the next time.  Its own certificate says that it
    is for local names alone, so that nobody can pass for a public server with its key; public names are
    refused.  Without a NAME, it is only made.

    The exit status is 0, or 2 for wrong usage, a name that is not local, or a file that cannot be used.
    """
    if csr is not None and (names or rsa or pfx_passphrase_file is not None):
        raise click.UsageError("with --csr, the names and the key are those of the request")
    json = JSONOutput("dev-ca", sys.stdout) if as_json else None
    try:
        local = LocalAuthority.open(authority or _DEFAULT_FOLDER)
        issued = None
        if csr is not None:
            issued = local.sign_request(_content(csr), client=client, days=days)
        elif names:
            issued = local.issue(*names, client=client, key_type="RSA" if rsa else "EC", days=days)
        files = {}
        if issued is not None:
            files = _write(issued, out or Path(_stem(names, csr, client=client)), pfx_passphrase_file)
    except ConfigurationError as error:
        if json is None:
            tell(error)
        else:
            json.print(error=error, exit_status=ExitStatus.USAGE)
        raise click.exceptions.Exit(ExitStatus.USAGE) from None
    if json is None:
        _show(terminal(), local, issued, files, client=client)
    else:
        json.print(report=_report(local, issued, files), exit_status=ExitStatus.OK)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0)
        raise ConfigurationError(f"{path}: {error.strerror}", code=code, path=str(path)) from error


def _stem(names: tuple[str, ...], csr: Path | None, *, client: bool) -> str:
    """Return how the files are called: by the first name, and how many there are besides."""
    if csr is not None:
        return csr.stem
    # A colon, as in IPv6 addresses, and what is in URIs cannot stand in a file's name everywhere.
    first = re.sub(r"[^\w.@-]+", "_", names[0].replace("*", "_wildcard"))
    more = f"+{len(names) - 1}" if len(names) > 1 else ""
    return f"{first}{more}-client" if client else f"{first}{more}"


def _write(issued: LocalCertificate, prefix: Path, pfx_passphrase_file: IO[bytes] | None) -> dict[str, Path]:
    """Write the files; return where they are."""
    files = {"cert": prefix.with_name(f"{prefix.name}.pem")}
    if issued.key is not None:
        files["key"] = prefix.with_name(f"{prefix.name}-key.pem")
    issued.write_to(files["cert"], files.get("key"))
    if pfx_passphrase_file is not None:
        files["pfx"] = prefix.with_name(f"{prefix.name}.p12")
        issued.write_pfx_to(files["pfx"], pfx_passphrase_file.readline().rstrip(b"\r\n"))
    return files


def _report(local: LocalAuthority, issued: LocalCertificate | None, files: dict[str, Path]) -> dict[str, Any]:
    return {
        "authority": {
            "folder": str(local.folder),
            "ca": str(local.ca_path),
            "made": local.made,
            "certificate": local.certificate.to_dict(),
        },
        "files": {kind: str(path) for kind, path in files.items()},
        "certificate": None if issued is None else issued.certificate.to_dict(),
    }


def _show(
    console: Console,
    local: LocalAuthority,
    issued: LocalCertificate | None,
    files: dict[str, Path],
    *,
    client: bool,
) -> None:
    if local.made or issued is None:
        what = "Made" if local.made else "Found"
        print_line(console, f"{what} an authority for local names in {local.folder}")
        print_rows(
            console,
            [
                ("to trust", f"{local.ca_path}, by --ca, NODE_EXTRA_CA_CERTS or the system's settings"),
                ("keep secret", f"{local.folder / 'ca-key.pem'}"),
            ],
        )
    if issued is None:
        return
    print_text(console, f"Issued a certificate for {_names(issued.certificate)}", "bold")
    rows = [("certificate", str(files["cert"]))]
    rows += [(label, str(files[label])) for label in ("key", "pfx") if label in files]
    rows.append(("valid", f"until {issued.certificate.valid_to:%Y-%m-%d}"))
    print_rows(console, rows)
    if "key" in files:
        options = ["--cert", files["cert"], "--key", files["key"], "--ca", local.ca_path]
        command = ["connect", "localhost:8443"] if client else ["serve"]
        print_line(console, "Try: ", (shlex.join(map(str, ["tlsnode", *command, *options])), "green"))


def _names(certificate: Certificate) -> str:
    names = dict.fromkeys(_name(value) for _, value in certificate.alt_names)
    common_name = certificate.subject.get("CN")
    return ", ".join(names if common_name is None else {str(common_name): None, **names})


def _name(value: str) -> str:
    with contextlib.suppress(ValueError):
        # As people write it.
        return str(ipaddress.ip_address(value))
    return value
