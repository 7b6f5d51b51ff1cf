"""The benchmark runner: each contender does each workload, in tiny, and nothing that fails is hidden."""

from __future__ import annotations

import dataclasses
import ssl
from pathlib import Path

import pytest

from benchmarks import contexts, runner
from benchmarks.__main__ import main
from benchmarks.contenders import CONTENDERS, OURS, Contender
from benchmarks.credentials import write_credentials
from benchmarks.goals import GOALS, Goal
from benchmarks.negotiation import Negotiated, negotiated
from benchmarks.results import Figures, Results
from benchmarks.scenarios import SCENARIOS, Exchange, Idle, Workload

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
            return Idle(connections=5)
        case _:
            return workload


async def does_its_workloads(contender: Contender, credentials: Path) -> None:
    agreed = Negotiated("TLSv1.3", "TLS_AES_256_GCM_SHA384", "X25519")
    async with runner.open_pair(contender, credentials, "x25519") as pair:
        assert pair.versions
        if contender.secure:
            assert await pair.negotiate() == agreed
        for scenario in SCENARIOS.values():
            workload = tiny(scenario.workload)
            if isinstance(workload, contender.workloads):
                measurement = await pair.measure(workload, seconds=0, warm_up=0)
                assert measurement.count >= 1
                assert measurement.seconds > 0
                assert measurement.server_cpu >= 0
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
    settings = runner.Settings(groups="x25519", key_type="ecdsa-p256", rounds=1, seconds=0.01)
    scenario, contender = SCENARIOS["handshakes-1"], CONTENDERS["trio_sslstream"]
    results = await runner.run(settings, [scenario], [contender], tmp_path, progress=lambda _step: None)
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


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    figures = Figures("", "", more_is_better=True)
    figures.rounds = {OURS: [20.0, 2.0, 30.0, None], "node": [10.0, 1.0, 10.0, 1.0]}
    assert figures.ratio("node") == 2
    assert figures.median("node") == 5.5
    assert figures.ratio("asyncio") is None


@pytest.mark.parametrize(("more_is_better", "reached"), [(True, True), (False, False)])
def test_a_goal_is_a_least_or_a_most(more_is_better: bool, reached: bool) -> None:
    figures = Figures("", "", more_is_better, {OURS: [3.0], "node": [1.0]})
    assert Goal("", 2, "node").reached(figures) is reached
    assert Goal("", 2, OURS).reached(figures) is reached
    assert Goal("", 2, "uvloop").reached(figures) is None


def test_every_goal_is_for_a_figure_that_its_contender_has() -> None:
    kinds = {
        metric.name: type(scenario.workload) for scenario in SCENARIOS.values() for metric in scenario.metrics
    }
    assert [goal for goal in GOALS if kinds[goal.metric] not in CONTENDERS[goal.contender].workloads] == []


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
