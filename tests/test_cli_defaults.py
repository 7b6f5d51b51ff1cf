"""The options of ``tlsnode`` itself: Node.js's command-line switches for its defaults."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import trio_tlsnode as tls
from trio_tlsnode.cli import main
from trio_tlsnode.cli.default_options import default_options, setting_defaults
from trio_tlsnode.cli.failure import ExitStatus

pytestmark = [pytest.mark.feature("F13"), pytest.mark.feature("G5")]


@click.command()
@default_options
def show(tls_cipher_list: str | None, **switches: bool) -> None:
    """Print what the defaults are meanwhile."""
    with setting_defaults(tls_cipher_list, **switches):
        click.echo(f"{tls.defaults.min_version} {tls.defaults.max_version} {tls.defaults.ciphers[:22]}")


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        ([], "TLSv1.2 TLSv1.3 TLS_AES_256_GCM_SHA384"),
        (["--tls-min-v1.0"], "TLSv1 TLSv1.3 TLS_AES_256_GCM_SHA384"),
        (["--tls-min-v1.3", "--tls-min-v1.1"], "TLSv1.1 TLSv1.3 TLS_AES_256_GCM_SHA384"),
        (["--tls-max-v1.2"], "TLSv1.2 TLSv1.2 TLS_AES_256_GCM_SHA384"),
        (["--tls-max-v1.2", "--tls-max-v1.3"], "TLSv1.2 TLSv1.3 TLS_AES_256_GCM_SHA384"),
        (["--tls-cipher-list", "ECDHE+AESGCM"], "TLSv1.2 TLSv1.3 ECDHE+AESGCM"),
    ],
)
def test_of_several_minima_the_lowest_counts_and_of_several_maxima_the_highest(
    args: list[str], shown: str
) -> None:
    assert CliRunner().invoke(show, args).output == f"{shown}\n"
    assert (tls.defaults.min_version, tls.defaults.max_version) == ("TLSv1.2", "TLSv1.3")
    assert tls.defaults.ciphers == tls.defaults.core_ciphers


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--tls-cipher-list", "ä"], "Invalid value for --tls-cipher-list"),
        (["--tls-cipher-list", "nonsense"], "there is no cipher suite or keyword 'nonsense'"),
    ],
)
def test_a_list_that_is_none_is_wrong_usage(args: list[str], message: str) -> None:
    result = CliRunner().invoke(main, [*args, "connect", "localhost:1"])
    assert result.exit_code == ExitStatus.USAGE
    assert message in result.stderr


def test_the_defaults_hold_while_a_command_runs_and_no_longer(tmp_path: Path) -> None:
    args = ["--tls-min-v1.1", "--tls-max-v1.2", "dev-ca", "--authority", str(tmp_path), "--json"]
    assert CliRunner().invoke(main, args).exit_code == ExitStatus.OK
    assert (tls.defaults.min_version, tls.defaults.max_version) == ("TLSv1.2", "TLSv1.3")
