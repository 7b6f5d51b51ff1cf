"""What `benchmarks.reliability` measures, in small: nothing is left of many connections; and its commands."""

from __future__ import annotations

import gc
import math
import re
import sys
import tracemalloc
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import trio_tlsnode as tls
from benchmarks.reliability import fuzz, soak
from benchmarks.reliability.__main__ import main
from benchmarks.reliability.clients import Pinger, trust_in
from benchmarks.reliability.hostile import TARGETS
from benchmarks.reliability.misdeeds import AFTER, BEFORE, commit
from trio_tlsnode._openssl.callbacks import connections
from trio_tlsnode.testing import MemoryListener, default_authority

pytestmark = pytest.mark.feature("B6")

trust = trust_in(default_authority().ca)
SERVER = tls.SecureContext(**default_authority().good("localhost").options, session_timeout=1)
MISDEEDS = [misdeed for misdeed in (*BEFORE, *AFTER) if not misdeed.needs_socket]


async def echo(stream: tls.TLSStream) -> None:
    async for data in stream:
        await stream.send_all(data)


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def memory() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def open_and_end(listener: MemoryListener, number: int, *, fails: bool) -> None:
    transport = await listener.connect()
    if fails:
        await commit(MISDEEDS[number % len(MISDEEDS)], transport, trust)
        return
    async with await tls.wrap_client(transport, host="localhost", context=trust()) as client:
        await client.send_all(b"x")
        await client.receive_some()


async def test_memory_does_not_grow_with_the_connections(traced: None, nursery: trio.Nursery) -> None:
    gc.collect()
    server = tls.TLSServer(echo, SERVER, client_error_limit=1)
    listener = MemoryListener()
    await nursery.start(server.serve_listeners, [listener])

    async def some(count: int) -> int:
        for number in range(count):
            await open_and_end(listener, number // 3, fails=number % 3 == 0)
        await wait_all_tasks_blocked()
        assert server.statistics().open == 0
        return memory()

    ssl = len(connections)
    once = 3 * len(MISDEEDS)
    before = await some(2 * once)
    after = await some(2 * once)
    # The least part of a connection has more; what was there before it was traced is replaced by and by.
    assert (after - before) / (2 * once) < 128
    assert len(connections) == ssl
    assert sum(server.statistics().failed.values()) == 4 * once // 3


async def test_a_thousand_kept_errors_take_less_than_ten_megabytes(
    traced: None, nursery: trio.Nursery
) -> None:
    number = 8 * len(MISDEEDS)
    server = tls.TLSServer(echo, SERVER)
    listener = MemoryListener()
    await nursery.start(server.serve_listeners, [listener])
    for turn in range(len(MISDEEDS)):
        await open_and_end(listener, turn, fails=True)
    await anext(server.client_errors())
    before = memory()
    for turn in range(number):
        await open_and_end(listener, turn, fails=True)
    await wait_all_tasks_blocked()
    assert sum(server.statistics().failed.values()) == number + len(MISDEEDS)
    assert 1000 * (memory() - before) / number < 10_000_000


def test_slope_is_what_each_connection_adds() -> None:
    samples = [soak.Sample(count, 5_000_000 + 7 * count, 10) for count in range(0, 1000, 50)]
    assert soak.slope(samples) == pytest.approx(7)
    assert soak.slope(samples[:1]) == 0


def test_quantiles_are_those_of_the_round_trips() -> None:
    pinger = Pinger()
    assert math.isnan(pinger.quantile(0.99))
    assert math.isnan(pinger.median)
    pinger.seconds = [float(number) for number in range(100, 0, -1)]
    assert (pinger.quantile(0.99), pinger.quantile(0.5), pinger.median) == (100, 51, 50.5)
    pinger.begin()
    assert pinger.seconds == []


COMMANDS = {
    "storm": (["--clients", "20", "--pingers", "2", "--within", "0.1", "--quiet", "0.1"], "| 20 | 0 |"),
    "slow": (["--connections", "10", "--timeout", "0.5", "--kind", "read nothing"], "| read nothing | 10 |"),
    "late": (["--peers", "16"], "| ERR_TLS_SESSION_ATTACK | 2 |"),
    "reload": (["--requests", "200", "--reloads", "4"], "| certificates seen | 5 |"),
}


@pytest.mark.skipif(sys.platform != "linux", reason="they run on Linux")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_prints_a_table_and_no_promise_is_broken(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, row = COMMANDS[command]
    status = main([command, *arguments])
    output = capsys.readouterr().out
    assert "BROKEN" not in output
    assert status == 0
    assert row in output
    assert re.search(r"^\|---\|(--:\|)+$", output, re.MULTILINE)
    assert "OpenSSL" in output.splitlines()[0]


@pytest.mark.skipif(sys.platform != "linux", reason="they run on Linux")
def test_the_soak_counts_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    """So few connections say nothing of the slope, which may be called broken here."""
    main(["soak", "--connections", "150", "--kept-errors", "30"])
    output = capsys.readouterr().out
    assert "| failures told of | 50 |" in output
    assert "| open files, more than before | 0 |" in output
    assert "| `SSL` objects left | 0 |" in output


def test_the_fuzzer_says_what_it_lacks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "atheris", None)
    assert main(["fuzz", "--seconds", "1"]) == 2
    output = capsys.readouterr()
    assert "atheris" in output.err
    assert "install --editable '.[fuzz]'" in output.err
    assert not output.out


@pytest.mark.parametrize("failure", [None, "the fuzzer ended with the status 1"])
def test_the_fuzzers_budget_is_for_all_targets_together(
    failure: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, float, bool]] = []

    def fuzz_one(target: str, seconds: float, *, keep: bool) -> fuzz.Result:
        if failure is not None:
            raise fuzz.FuzzerFailedError(failure)
        done.append((target, seconds, keep))
        found = Path("hello-1.hex") if target == "hello" else None
        return fuzz.Result(target, 1000, 500, 50, found, "the traceback" if found else "")

    monkeypatch.setitem(sys.modules, "atheris", ModuleType("atheris", "there"))
    monkeypatch.setattr(sys.modules["atheris"], "__spec__", ModuleSpec("atheris", None))
    monkeypatch.setattr(fuzz, "fuzz", fuzz_one)
    status = main(["fuzz", "--seconds", "60", "--keep"])
    output = capsys.readouterr()
    if failure is not None:
        assert (status, output.out) == (2, "")
        assert failure in output.err
        return
    assert status == 1
    assert done == [(target, 10, True) for target in TARGETS]
    assert "| staple | 1,000 | 500 | 50 | no |" in output.out
    assert "BROKEN: hello: hello-1.hex\nthe traceback" in output.out
