"""Key logs, as Node.js's own tests have them."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from faults import only
from meetings import come_to, read_to_end
from parties import party, trust

from trio_tlsnode import SecureContext, TLSServer, TLSStream, wrap_client

Lines = list[tuple[str, TLSStream | None]]


async def say_hello(stream: TLSStream) -> None:
    assert stream.encrypted
    await stream.send_all(b"hello")


@pytest.mark.feature("B19")
@pytest.mark.feature("C20")
@pytest.mark.node("test-tls-keylog-tlsv13.js", "test-https-agent-keylog.js")
async def test_each_side_of_each_connection_of_tls_1_3_has_five_lines(nursery: trio.Nursery) -> None:
    theirs: Lines = []
    server = TLSServer(
        say_hello,
        SecureContext(**party("rsa_cert").options, **only("TLSv1.3")),
        keylog=lambda line, stream: theirs.append((line, stream)),
    )
    for connections in (1, 2):
        ours: Lines = []
        client = await wrap_client(
            come_to(server, nursery),
            ca=trust("rsa_cert"),
            keylog=lambda line, stream: ours.append((line, stream)),  # noqa: B023 - called in this turn
        )
        assert await read_to_end(client) == b"hello"
        assert len(ours) == 5
        assert len(theirs) == 5 * connections
        assert {stream for _, stream in ours} == {client}
        assert {line for line, _ in ours} == {line for line, _ in theirs[-5:]}
    assert len({stream for _, stream in theirs}) == 2


@pytest.mark.feature("B19")
@pytest.mark.node("test-tls-enable-keylog-cli.js")
async def test_both_sides_may_write_to_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    path = tmp_path / "keys.txt"
    monkeypatch.setenv("SSLKEYLOGFILE", str(path))
    context = SecureContext(**party("rsa_cert").options, **only("TLSv1.2"))
    client = await wrap_client(
        come_to(TLSServer(say_hello, context, keylog=True), nursery), ca=trust("rsa_cert"), keylog=path
    )
    assert await read_to_end(client) == b"hello"
    one, other = path.read_text().splitlines()
    assert one == other
    assert one.startswith("CLIENT_RANDOM ")
