"""``tlsnode watch``: what it tells, and its exit statuses."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner, Result
from json_shapes import envelope, parsed, shape
from rich.console import Console
from trio.testing import MockClock

import trio_tlsnode as tls
from trio_tlsnode.cli import main
from trio_tlsnode.cli.failure import ExitStatus
from trio_tlsnode.cli.watch import Sight, look_until_due, show
from trio_tlsnode.testing import Authority

pytestmark = pytest.mark.feature("G5")

NOW = dt.datetime.now(dt.UTC)
AUTHORITY = Authority()
FILES = {
    "good.pem": AUTHORITY.good("good.example").cert,
    # "Expired a day ago" of somebody who lives four days later.
    "due.pem": Authority(now=NOW + dt.timedelta(days=4)).expired("due.example").cert,
    "expired.pem": AUTHORITY.expired("expired.example").cert,
    "early.pem": AUTHORITY.not_yet_valid("early.example").cert,
    "key.pem": AUTHORITY.good("key.example").key,
    "list.pem": AUTHORITY.crl(),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoked(*args: str) -> Result:
    return CliRunner().invoke(main, ["watch", *args], env={"COLUMNS": "80"})


@pytest.mark.parametrize(
    ("args", "status"),
    [
        (["good.pem"], ExitStatus.OK),
        (["good.pem", "list.pem"], ExitStatus.OK),
        (["good.pem", "due.pem"], ExitStatus.ATTENTION),
        (["due.pem", "--days", "1"], ExitStatus.OK),
        (["good.pem", "--days", "1000000"], ExitStatus.ATTENTION),
        (["due.pem", "expired.pem"], ExitStatus.CERTIFICATE),
        (["early.pem"], ExitStatus.CERTIFICATE),
        (["expired.pem", "missing.pem"], ExitStatus.USAGE),
        (["key.pem"], ExitStatus.USAGE),
        ([], ExitStatus.USAGE),
    ],
)
def test_the_exit_status_tells_the_worst_of_it(args: list[str], status: int, folder: Path) -> None:
    assert invoked(*args).exit_code == status


def test_each_is_a_row_of_80_columns_what_ends_first_on_top(folder: Path) -> None:
    result = invoked(*FILES, "missing.pem")
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    labels = [line[2:13].strip() for line in lines if line[2] != " "]
    assert labels[:2] == ["expired", "due"]
    assert sorted(labels) == ["due", "expired", "not yet", "valid", "valid"]
    told = " ".join(result.stdout.split())
    assert "expired expired.pem: expired.example, until " in told
    assert "(24 hours ago)" in told
    assert "due due.pem: due.example, until " in told
    assert "(2 days left)" in told
    assert "list.pem: revocation list of " in told
    assert "not yet early.pem: early.example, from " in told
    assert "Error: missing.pem: there is no such file [ENOENT]" in result.stderr
    assert "Error: key.pem: it holds neither certificates nor revocation lists" in result.stderr


def test_the_report_is_json_with_keys_that_stay(folder: Path) -> None:
    result = invoked("good.pem", "missing.pem", "--json")
    facts = parsed(result.stdout)
    assert (facts["command"], facts["exit_status"], result.exit_code) == ("watch", 2, 2)
    expiry = {
        **dict.fromkeys(["path", "kind", "name", "valid_from", "valid_to", "at", "state"], "str"),
        "fingerprint256": "str",
        "remaining_seconds": "int",
    }
    failure = {
        **dict.fromkeys(["class", "code", "reason", "side"], "str"),
        "retryable": "bool",
        "option": "NoneType",
        "path": "str",
    }
    assert shape(facts) == envelope("watch", {"expiries": [expiry], "failures": [failure]})


def test_a_passphrase_opens_pkcs12(folder: Path) -> None:
    from test_expiry import pfx

    Path("cert.p12").write_bytes(pfx(AUTHORITY.good("a.example")))
    Path("passphrase").write_bytes(b"secret\n")
    assert invoked("cert.p12").exit_code == ExitStatus.USAGE
    assert invoked("cert.p12", "--passphrase-file", "passphrase").exit_code == ExitStatus.OK


def sight(**facts: Any) -> Sight:
    expiry: dict[str, Any] = {
        "path": "a.pem", "kind": "certificate", "name": "a", "valid_from": NOW, "valid_to": NOW, "at": NOW,
        "state": "valid", "fingerprint256": "AA",
    }  # fmt: skip
    return Sight([tls.Expiry(**{**expiry, **facts})], [])


async def test_it_looks_until_something_is_to_be_done(autojump_clock: MockClock) -> None:
    sights = iter([sight(), sight(), sight(state="due"), sight()])
    seen = await look_until_due(lambda: next(sights), 60)
    assert seen.status is ExitStatus.ATTENTION
    assert trio.current_time() == 120


def test_with_an_interval_it_ends_at_once_if_something_is_to_be_done(folder: Path) -> None:
    assert invoked("expired.pem", "--interval", "3600").exit_code == ExitStatus.CERTIFICATE


@pytest.mark.parametrize(
    ("facts", "row"),
    [
        ({"state": "unreadable", "valid_from": None, "valid_to": None}, "a, with dates that cannot be read"),
        ({"valid_to": None, "kind": "revocation list"}, "revocation list of a, for ever"),
        ({"valid_to": NOW + dt.timedelta(hours=1)}, "(1 hour left)"),
        ({"name": ""}, "a.pem: nobody, until"),
    ],
)
def test_what_is_out_of_the_ordinary_is_told_in_words(
    facts: dict[str, Any], row: str, capsys: pytest.CaptureFixture[str]
) -> None:
    show(Console(width=100), sight(**facts).expiries)
    assert row in capsys.readouterr().out
