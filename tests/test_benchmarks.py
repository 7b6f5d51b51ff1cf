"""The benchmark runner: each contender does each workload, in tiny, and nothing that fails is hidden."""

from __future__ import annotations

import dataclasses
import itertools
import resource
import shutil
import ssl
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import trio_tlsnode as tls
from benchmarks import __main__, contexts, limits, plots, revisions, runner
from benchmarks.__main__ import main
from benchmarks.contenders import CONTENDERS, OURS, Contender
from benchmarks.credentials import write_credentials
from benchmarks.goals import GOALS, Goal
from benchmarks.growth import GROWTHS
from benchmarks.negotiation import Negotiated, negotiated
from benchmarks.results import Figures, Results, confidence
from benchmarks.runs import GOALS_RUN, GROWTH_RUN, SCENARIOS, SWEEP_RUN, Run, Turn, turns_of
from benchmarks.scenarios import USUAL, Exchange, FirstByte, Idle, Measurement, Workload

PYTHON_CONTENDERS = [name for name, contender in CONTENDERS.items() if contender.module is not None]
NODE_CONTENDERS = [name for name in CONTENDERS if name not in PYTHON_CONTENDERS]


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("credentials")
    write_credentials(directory, "ecdsa-p256")
    return directory


def tiny(workload: Workload) -> Workload:
    match workload:
        case Exchange():
            request_size = min(workload.request_size, 2 * workload.write_size)
            connections = min(workload.connections, 20)
            return dataclasses.replace(workload, connections=connections, request_size=request_size)
        case Idle():
            return Idle(connections=5, before=5)
        case FirstByte():
            return FirstByte(starts=1)
        case _:
            return workload


def turns(run: Run) -> list[Turn]:
    return [
        turn
        for scenarios, names in run.parts
        for turn in turns_of(scenarios, [CONTENDERS[name] for name in names])
    ]


async def does_its_workloads(contender: Contender, credentials: Path) -> None:
    agreed = Negotiated("TLSv1.3", "TLS_AES_256_GCM_SHA384", "X25519")
    async with runner.open_pair(contender, credentials, USUAL) as pair:
        assert pair.versions
        if contender.secure:
            assert await pair.negotiate() == agreed
        for workload in {
            tiny(scenario.workload) for scenario, who in turns(GOALS_RUN) if who.name == contender.name
        }:
            measurement = await pair.measure(workload, seconds=0, warm_up=0)
            assert measurement.count >= 1
            assert measurement.seconds > 0
            assert measurement.server_cpu >= 0
            assert 0 < measurement.median <= measurement.percentile_99
        assert pair.complaints() == ""


@pytest.mark.parametrize("name", PYTHON_CONTENDERS)
async def test_a_contender_does_its_workloads(name: str, credentials: Path) -> None:
    contender = CONTENDERS[name]
    if contender.missing:
        pytest.skip(f"{contender.missing} is not installed")
    await does_its_workloads(contender, credentials)


@pytest.mark.parametrize("name", NODE_CONTENDERS)
async def test_node_does_its_workloads(name: str, credentials: Path, node: str) -> None:
    await does_its_workloads(CONTENDERS[name], credentials)


async def test_a_contender_that_fails_says_why(tmp_path: Path) -> None:
    settings = runner.Settings(key_type="ecdsa-p256", rounds=1, seconds=0.01)
    turn = SCENARIOS["handshakes-1"], CONTENDERS["trio_sslstream"]
    results = await runner.run(settings, [turn], tmp_path, progress=lambda _step: None)
    assert results.figures["handshakes-1"].rounds == {"trio_sslstream": [None]}
    assert all("trio_sslstream" in failure for failure in results.failures)
    assert any("FileNotFoundError" in failure for failure in results.failures)


def test_a_run_is_printed_kept_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "results.json"
    what = ["--scenario", "ping-pong", "--contender", "trio_tcp", "--rounds", "1", "--seconds", "0.01"]
    assert main([*what, "--json", str(path)]) == 0
    output = capsys.readouterr().out
    assert "64-byte ping-pong" in output
    assert "trio_tcp" in output
    assert len(Results.read(path).figures["ping-pong"].rounds["trio_tcp"]) == 1
    assert main(["compare", str(path), str(path)]) == 0
    assert "| trio_tcp  |" in (output := capsys.readouterr().out)
    assert " 1.00 |" in output


def test_a_sweep_takes_other_ciphers(capsys: pytest.CaptureFixture[str]) -> None:
    what = ["--scenario", "ping-pong-chacha20", "--contender", OURS, "trio_sslstream"]
    assert main(["sweep", *what, "--rounds", "1", "--seconds", "0.01"]) == 0
    # That of each, and the usual one only where it was asked for.
    assert capsys.readouterr().out.count("TLS_CHACHA20_POLY1305_SHA256, X25519 |") == 2


def test_a_growth_is_printed_as_a_curve(capsys: pytest.CaptureFixture[str]) -> None:
    what = ["--scenario", "growth-exchanges-10", "growth-exchanges-1", "--contender", "trio_tcp"]
    assert main(["growth", *what, "--rounds", "1", "--seconds", "0.01"]) == 0
    output = capsys.readouterr().out
    assert "**64-byte ping-pong, exchanges/s**" in output
    assert "| connections, all at work | trio_tcp |" in output
    assert output.index("| 1 ") < output.index("| 10 ")


def test_what_needs_more_files_than_the_machine_allows_is_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(__main__, "raise_file_limit", lambda: 1024)
    assert main(["growth", "--scenario", "growth-memory-5000"]) == 0
    assert (
        "left out: growth-memory-5000, which needs 5,700 open files in a process; this machine allows 1,024"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("soft", "hard", "raised"),
    [
        (1024, 4096, 4096),
        (256, resource.RLIM_INFINITY, 8192),
        (20_000, 20_000, 20_000),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 8192),
    ],
)
def test_the_limit_of_files_is_raised_as_far_as_it_may_and_must(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: int
) -> None:
    set_to = []
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _which, limit: set_to.append(limit))
    assert limits.raise_file_limit() == raised
    assert set_to in ([], [(raised, hard)])


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of the package in two commits, which differ in the version: tagged "one", and 0.0.2."""
    path = tmp_path / "repository"
    package = path / "trio_tlsnode"
    shutil.copytree(Path(tls.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))

    def git(*command: str) -> None:
        subprocess.run(["git", "-c", "user.name=-", "-c", "user.email=-", *command], cwd=path, check=True)

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "one")
    git("tag", "one")
    (package / "_version.py").write_text('__version__ = "0.0.2"\n')
    git("commit", "--quiet", "--message", "two", "--all")
    monkeypatch.setattr(revisions, "_REPOSITORY", path)
    return path


async def test_a_commit_is_measured_with_its_own_package(
    repository: Path, credentials: Path, tmp_path: Path
) -> None:
    commit = revisions.contender("new", "HEAD", tmp_path / "new")
    assert commit.name.startswith("new: HEAD (")
    async with runner.open_pair(commit, credentials, USUAL) as pair:
        assert pair.versions["trio_tlsnode"] == "0.0.2"
        await pair.measure(FirstByte(starts=1), seconds=0, warm_up=0)


def test_two_commits_are_compared_in_one_run(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.json"
    what = ["--scenario", "ping-pong", "--rounds", "1", "--seconds", "0.01", "--json", str(path)]
    assert main(["compare", *what, "one", "HEAD"]) == 0
    results = Results.read(path)
    old, new = results.figures["ping-pong"].rounds
    assert old.startswith("old: one (")
    assert new.startswith("new: HEAD (")
    assert results.versions[old]["trio_tlsnode"] == tls.__version__
    assert results.versions[new]["trio_tlsnode"] == "0.0.2"
    assert f"how many times the contender's figure that of {new} is" in capsys.readouterr().out


def test_what_is_neither_a_file_nor_a_commit_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["compare", "no-such-commit", "HEAD"])
    assert "neither two files nor two commits" in capsys.readouterr().err


def invented(run: Run) -> Results:
    results = Results(settings={}, machine={})
    for number, (scenario, contender) in itertools.product((1, 2), turns(run)):
        parts = {"import": 0.1, "connect": 0.01}
        measurement = Measurement(
            number * 1000, 1.0, 0.001, 0.002, parts, server_cpu=0.5, server_memory=10**7
        )
        results.add(scenario, contender.name, measurement)
    return results


def test_a_run_is_drawn_in_the_plots_that_it_has_the_figures_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_goals = tmp_path / "with-goals.json"
    invented(GOALS_RUN).write(with_goals)
    folder = tmp_path / "plots"
    assert main(["plot", str(with_goals), "--folder", str(folder)]) == 0
    printed = {Path(line).name for line in capsys.readouterr().out.splitlines()}
    assert printed == {path.name for path in folder.iterdir()}
    assert printed == {
        "benchmark-cost.svg",
        "benchmark-goals.svg",
        "benchmark-handshakes.svg",
        "benchmark-messages.svg",
        "benchmark-resumptions.svg",
        "benchmark-throughput.svg",
    }
    for path in folder.iterdir():
        assert ET.parse(path).getroot().tag.endswith("svg")


def test_every_bar_that_is_drawn_is_measured_in_one_run() -> None:
    in_runs = [
        {metric.name for scenario, _contender in turns(run) for metric in scenario.metrics}
        for run in (GOALS_RUN, SWEEP_RUN)
    ]
    for metrics in plots.BARS.values():
        assert any(measured.issuperset(metrics) for measured in in_runs)


def test_a_growth_with_points_left_out_is_drawn_with_the_others(tmp_path: Path) -> None:
    results = invented(GROWTH_RUN)
    del results.figures["growth-memory-5000"]
    written = plots.write([results], tmp_path)
    assert {path.name for path in written} == {f"{growth.name}.svg" for growth in GROWTHS}


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    figures = Figures("", "", more_is_better=True)
    figures.rounds = {OURS: [20.0, 2.0, 30.0, None], "node": [10.0, 1.0, 10.0, 1.0]}
    assert figures.ratio("node") == 2
    assert figures.median("node") == 5.5
    assert figures.ratio("asyncio") is None
    assert figures.ratio(OURS, subject="node") == 0.5
    assert figures.difference("node") == 10


@pytest.mark.parametrize(
    ("rounds", "interval", "probability"),
    [
        (1, None, 0),
        (3, (1, 3), 0.75),
        (5, (1, 5), 0.9375),
        (8, (2, 7), 0.9296875),
    ],
)
def test_an_interval_leaves_out_extremes_where_there_are_rounds_enough(
    rounds: int, interval: tuple[float, float] | None, probability: float
) -> None:
    ours: list[float | None] = [float(number) for number in range(rounds, 0, -1)]
    figures = Figures("", "", True, {OURS: ours, "node": [1.0] * rounds})
    assert figures.interval("node") == interval
    assert confidence(rounds) == probability


@pytest.mark.parametrize(("more_is_better", "reached"), [(True, True), (False, False)])
def test_a_goal_is_a_least_or_a_most(more_is_better: bool, reached: bool) -> None:
    figures = Figures("", "", more_is_better, {OURS: [3.0], "node": [1.0]})
    assert Goal("", 2, "node").reached(figures) is reached
    assert Goal("", 2, OURS).reached(figures) is reached
    assert Goal("", 2, "uvloop").reached(figures) is None


def test_a_goal_may_be_for_a_difference() -> None:
    figures = Figures("", "ms", False, {OURS: [300.0, 260.0], "node": [250.0, 210.0]})
    assert Goal("", 50, "node", difference=True).reached(figures) is True
    assert Goal("", 49, "node", difference=True).reached(figures) is False
    assert Goal("", 50, "node", difference=True).text(figures) == "≤ +50 ms"


def test_every_goal_is_measured_in_the_run_for_them() -> None:
    measured = {
        (metric.name, contender.name)
        for scenario, contender in turns(GOALS_RUN)
        for metric in scenario.metrics
    }
    assert [goal for goal in GOALS if (goal.metric, goal.contender) not in measured] == []
    assert [goal for goal in GOALS if (goal.metric, OURS) not in measured] == []


def test_after_a_hello_retry_request_the_second_hello_counts(credentials: Path) -> None:
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(credentials / "cert.pem", credentials / "key.pem")
    server_context.set_ecdh_curve("prime256v1")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.load_verify_locations(credentials / "ca.pem")
    client = client_context.wrap_bio(ssl.MemoryBIO(), to_server, server_hostname="localhost")
    from_server = b""
    for _ in range(2):
        for side in (client, server):
            with pytest.raises(ssl.SSLWantReadError):
                side.do_handshake()
        from_server += to_client.read()
    assert negotiated(from_server).group == "P-256"


def test_the_cost_of_contexts_is_measured_for_each_contender() -> None:
    for setup, make in contexts.CONTENDERS.values():
        assert len(contexts.measure(setup, make)) > 1
