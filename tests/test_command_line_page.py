"""docs/command-line.md: it has every command and every exit status, and its OpenSSL commands work."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

import trio_tlsnode as tls
from trio_tlsnode.cli import main
from trio_tlsnode.cli.failure import ExitStatus
from trio_tlsnode.cli.report import SCHEMA
from trio_tlsnode.testing import tls_pair

PAGE = (Path(__file__).parent.parent / "docs" / "command-line.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (.*)$", PAGE.replace("\\\n", ""), re.MULTILINE)


@pytest.mark.feature("G5")
def test_every_command_is_in_the_table_and_no_other() -> None:
    assert set(re.findall(r"^\| `tlsnode ([\w-]+)", PAGE, re.MULTILINE)) == set(main.commands)


@pytest.mark.feature("G5")
def test_every_exit_status_is_in_the_table_and_no_other() -> None:
    assert set(re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)) == {str(int(status)) for status in ExitStatus}


@pytest.mark.feature("G5")
def test_every_example_names_a_command_and_options_that_exist() -> None:
    examples = [shlex.split(command) for command in COMMANDS if "tlsnode " in command]
    assert len(examples) > 12
    for words in examples:
        name, *rest = words[words.index("tlsnode") + 1 :]
        options = {option for parameter in main.commands[name].params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= options, name


@pytest.mark.feature("G5")
def test_the_schema_is_the_one_that_is_printed() -> None:
    assert f'"schema": "{SCHEMA}"' in PAGE


@pytest.mark.feature("F13")
def test_every_option_of_the_command_itself_is_in_the_table() -> None:
    shown = {option for parameter in main.params for option in parameter.opts if option.startswith("--tls")}
    written = set(re.findall(r"`(--tls-[\w.-]+)", PAGE))
    for first in ("--tls-min-v1.0", "--tls-max-v1.2"):
        (row,) = re.findall(rf"`{re.escape(first)}`(.*?)\|", PAGE)
        written |= {first[:9] + rest for rest in re.findall(r"`(-v[\d.]+)`", row)}
    assert written == shown


@pytest.fixture
def folder(openssl: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the page's commands of OpenSSL were run."""
    commands = [command for command in COMMANDS if command.startswith("openssl ")]
    assert len(commands) == 12
    for command in commands:
        words = [openssl, *shlex.split(command)[1:]]
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    return tmp_path


@pytest.mark.feature("F16")
async def test_the_commands_of_openssl_make_what_can_be_used(folder: Path) -> None:
    key = folder / "app-key.pem"
    for options, ca in (
        ({"cert": folder / "app.pem", "key": key}, "ca.pem"),
        ({"cert": folder / "signed.pem", "key": key}, "signed.pem"),
        ({"cert": folder / "self.pem", "key": folder / "self-key.pem"}, "self.pem"),
        ({"pfx": folder / "app.p12", "passphrase": "secret"}, "ca.pem"),
    ):
        client, server = await tls_pair(
            client_context=tls.SecureContext(ca=folder / ca),
            server_context=tls.SecureContext(**options),
            client_options={"host": "app.test"},
        )
        async with client, server:
            assert client.authorized


@pytest.mark.feature("F16")
def test_every_command_of_nodes_documentation_is_there() -> None:
    for start in (
        *("openssl genrsa -out", "openssl req -new -sha256 -key", "openssl x509 -req -in app.csr -signkey"),
        *("openssl pkcs12 -export -in", "openssl req -x509 -newkey rsa:2048 -nodes -sha256 -subj"),
        *("openssl ciphers -v PSK", "openssl ciphers -v -s -tls1_3 -psk"),
    ):
        assert any(command.startswith(start) for command in COMMANDS), start
    prose = " ".join(PAGE.split())
    assert "`openssl dhparam 2048`" in prose
    assert "`openssl s_client -connect localhost:443 -reconnect`" in prose


@pytest.mark.feature("F16")
def test_the_keys_and_the_parameters_of_openssl_can_be_used(folder: Path) -> None:
    authority = tls.LocalAuthority.open(folder / "authority").issue("app.test")
    assert authority.key is not None
    with pytest.raises(tls.ConfigurationError, match="mismatch"):
        tls.SecureContext(cert=authority.cert, key=folder / "rsa-key.pem")
    context = tls.SecureContext(cert=authority.cert, key=authority.key, dhparam=folder / "dhparam.pem")
    assert context.dh_bits == 2048


@pytest.mark.feature("F16")
def test_the_request_of_openssl_is_signed(folder: Path) -> None:
    authority = tls.LocalAuthority.open(folder / "authority")
    issued = authority.sign_request((folder / "app.csr").read_bytes())
    assert issued.certificate.alt_names == (("DNS", "app.test"),)
