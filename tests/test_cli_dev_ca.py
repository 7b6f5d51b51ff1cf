"""``tlsnode dev-ca``: the files that it makes, what it tells, and what it refuses."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from json_shapes import parsed

import trio_tlsnode as tls
from trio_tlsnode.cli import main
from trio_tlsnode.cli.failure import ExitStatus
from trio_tlsnode.testing import tls_pair

pytestmark = [pytest.mark.feature("F16"), pytest.mark.feature("G5")]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the commands run."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def invoked(*args: str) -> Result:
    return CliRunner().invoke(main, ["dev-ca", "--authority", "../ca", *args], env={"COLUMNS": "80"})


def files() -> set[str]:
    return {path.name for path in Path().iterdir()}


async def connected(cert: str, key: str, host: str) -> tls.ConnectionInfo:
    client, server = await tls_pair(
        client_context=tls.SecureContext(ca=Path("../ca/ca.pem")),
        server_context=tls.SecureContext(cert=Path(cert), key=Path(key)),
        client_options={"host": host},
    )
    async with client, server:
        return client.info


async def test_a_certificate_is_two_files_that_serve_at_once() -> None:
    result = invoked("localhost", "127.0.0.1", "::1")
    assert result.exit_code == ExitStatus.OK
    assert files() == {"localhost+2.pem", "localhost+2-key.pem"}
    lines = result.stdout.splitlines()
    assert lines[0] == "Made an authority for local names in ../ca"
    assert "Issued a certificate for localhost, 127.0.0.1, ::1" in lines
    assert "  key          localhost+2-key.pem" in lines
    assert lines[-1].startswith("Try: tlsnode serve --cert localhost+2.pem ")
    assert (await connected("localhost+2.pem", "localhost+2-key.pem", "::1")).authorized


def test_the_authority_is_made_once() -> None:
    first = invoked()
    assert first.stdout.startswith("Made an authority")
    again = invoked()
    assert again.stdout.startswith("Found an authority")
    assert "../ca/ca.pem" in again.stdout
    assert files() == set()


@pytest.mark.parametrize(
    ("args", "made"),
    [
        (["*.app.test"], {"_wildcard.app.test.pem", "_wildcard.app.test-key.pem"}),
        (["::1"], {"_1.pem", "_1-key.pem"}),
        (["--client", "alice"], {"alice-client.pem", "alice-client-key.pem"}),
        (["--client", "a/../b"], {"a_.._b-client.pem", "a_.._b-client-key.pem"}),
        (["localhost", "--out", "server"], {"server.pem", "server-key.pem"}),
    ],
)
def test_files_are_called_by_the_first_name(args: list[str], made: set[str]) -> None:
    assert invoked(*args).exit_code == ExitStatus.OK
    assert files() == made


def test_options_are_taken() -> None:
    Path("passphrase").write_bytes(b"secret\n")
    result = invoked("localhost", "--rsa", "--days", "3", "--pfx", "passphrase", "--out", "x", "--json")
    report = parsed(result.stdout)["report"]
    assert report["files"] == {"cert": "x.pem", "key": "x-key.pem", "pfx": "x.p12"}
    assert (report["certificate"]["bits"], report["certificate"]["asn1_curve"]) == (2048, None)
    (expiry, _) = tls.expiries(Path("x.p12"), passphrase="secret")
    assert expiry.remaining is not None
    assert expiry.remaining.days == 2


def test_a_client_is_told_how_to_connect() -> None:
    result = invoked("--client", "alice")
    assert "Issued a certificate for alice" in result.stdout
    assert result.stdout.splitlines()[-1].startswith(
        "Try: tlsnode connect localhost:8443 --cert alice-client.pem "
    )


def test_a_request_is_signed(openssl: str) -> None:
    command = [openssl, "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    names = ["-subj", "/CN=app.test", "-addext", "subjectAltName=DNS:app.test,DNS:api.test"]
    subprocess.run(
        [*command, "-keyout", "app-key.pem", "-out", "app.csr", *names], check=True, capture_output=True
    )
    result = invoked("--csr", "app.csr")
    assert result.exit_code == ExitStatus.OK
    assert "Issued a certificate for app.test, api.test" in result.stdout
    assert "Try" not in result.stdout
    tls.SecureContext(cert=Path("app.pem"), key=Path("app-key.pem"))


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["example.com"], "example.com may be somebody's in public"),
        (["8.8.8.8"], "8.8.8.8 is a public address"),
        (["--csr", "missing.csr"], "missing.csr: No such file or directory"),
        (["--csr", "missing.csr", "localhost"], "with --csr, the names and the key are those of the request"),
        (
            ["localhost", "--out", "missing/x"],
            "missing/x-key.pem cannot be written: No such file or directory",
        ),
        (["localhost", "--days", "0"], "Invalid value for '--days'"),
    ],
)
def test_what_is_refused_is_status_2_and_leaves_no_file(args: list[str], reason: str) -> None:
    result = invoked(*args)
    assert result.exit_code == ExitStatus.USAGE
    assert reason in " ".join(result.stderr.split())
    assert files() == set()


def test_a_refusal_is_json_too() -> None:
    result = invoked("example.com", "--json")
    facts = parsed(result.stdout)
    assert (facts["exit_status"], facts["report"], result.stderr) == (2, None, "")
    assert (facts["error"]["class"], facts["error"]["option"]) == ("ConfigurationError", "names")


def test_the_report_is_json_with_keys_that_stay() -> None:
    report: dict[str, Any] = parsed(invoked("localhost", "--json").stdout)["report"]
    assert report.keys() == {"authority", "files", "certificate"}
    assert report["authority"].keys() == {"folder", "ca", "made", "certificate"}
    assert report["authority"]["ca"] == "../ca/ca.pem"
    assert report["certificate"]["alt_names"] == [["DNS", "localhost"]]
    again = parsed(invoked("--json").stdout)["report"]
    assert (again["certificate"], again["files"], again["authority"]["made"]) == (None, {}, False)


def test_output_fits_80_columns_but_for_what_is_there_to_be_copied() -> None:
    lines = invoked(
        "localhost", "127.0.0.1", "::1", "app.test", "api.app.test", "*.app.test"
    ).stdout.splitlines()
    assert max(len(line) for line in lines if not line.startswith("Try: ")) <= 80
