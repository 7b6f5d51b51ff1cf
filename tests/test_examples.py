"""The programs in examples/ do what they say."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import trio_tlsnode as tls
from trio_tlsnode.testing import Authority

EXAMPLES = Path(__file__).parent.parent / "examples"


async def test_the_echo_server_answers_and_tells_what_clients_do_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = Authority()
    key, cert = authority.good("localhost").write_to(tmp_path)
    example: dict[str, Any] = runpy.run_path(str(EXAMPLES / "echo_server.py"))
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(example["main"], key, cert, 0)
            output = ""
            while "listening on" not in output:
                await trio.testing.wait_all_tasks_blocked()
                output += capsys.readouterr().out
            port = int(output.split(":")[-1])
            async with await trio.open_tcp_stream("localhost", port) as plain:
                await plain.send_all(b"GET / HTTP/1.1\r\n\r\n")
                assert await plain.receive_some() == b""
            async with await tls.connect("localhost", port, ca=authority.ca) as stream:
                await stream.send_all(b"hello")
                assert await stream.receive_some() == b"hello"
            nursery.cancel_scope.cancel()
    assert "NotTLS: the peer sent an HTTP request" in capsys.readouterr().err
