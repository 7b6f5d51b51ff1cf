"""Hostile bytes: whatever a peer sends, its victim fails of typed errors only, in time, and nothing is left.

What is tried are first flights of real clients and servers, whole conversations that are edited inside their
encryption, certificates, and OCSP responses; where ``CI=true``, for about a minute.  ``python -m
benchmarks.reliability fuzz`` looks for more, guided by coverage; what it has kept is replayed here.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

import trio_tlsnode as tls
from benchmarks.reliability import corpus, fuzz, hostile
from benchmarks.reliability.hostile import TARGETS, echo, judge
from benchmarks.reliability.records import (
    ALERT,
    CHANGE_CIPHER_SPEC,
    CIPHERS,
    DATA,
    HANDSHAKE,
    Content,
    Keys,
    followed,
)
from trio_tlsnode.client_hello import ClientHello
from trio_tlsnode.testing import default_authority, tls_pair

pytestmark = pytest.mark.feature("B6")

SERVER = tls.SecureContext(**default_authority().good("localhost").options)

tries = settings(max_examples=500 if os.environ.get("CI") == "true" else 80)
VERSIONS = ("TLSv1.2", "TLSv1.3")
VICTIMS = ("talk_to_server", "talk_to_client")
UPDATE, UPDATE_REQUESTED = (bytes((24, 0, 0, 1, asked)) for asked in (0, 1))


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """See that no stream is left, and no engine, when the garbage was collected."""

    def left() -> int:
        gc.collect()
        return sum(isinstance(thing, (tls.TLSStream, tls.Engine)) for thing in gc.get_objects())

    before = left()
    yield
    assert left() == before


# What is known already


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_kept_of_the_fuzzer_breaks_no_promise(target: str) -> None:
    for data in [*corpus.seeds(target), *corpus.kept(target)]:
        judge(target, data)


# First flights

FIRST_FLIGHTS = {target: sorted(corpus.seeds(target)) for target in ("hello", "flight")}


@st.composite
def changed(draw: st.DrawFn, flights: list[bytes]) -> bytes:
    """A first flight with some changes, and how it is said."""
    flight = bytearray(draw(st.sampled_from(flights)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(1, len(flight) - 1))
        removed = draw(st.sampled_from([0, 1, 1, 2, 50]))
        flight[at : at + removed] = draw(st.binary(max_size=4))
        if len(flight) < 2:
            break
    return bytes((draw(st.integers(0, 255)),)) + bytes(flight[1:])


@tries
@given(changed(FIRST_FLIGHTS["hello"]))
def test_a_server_takes_any_first_flight(data: bytes) -> None:
    judge("hello", data)


@tries
@given(changed(FIRST_FLIGHTS["flight"]))
def test_a_client_takes_any_first_flight(data: bytes) -> None:
    judge("flight", data)


# Conversations

INTERESTING = st.sampled_from(
    [
        bytes((HANDSHAKE,)) + UPDATE,
        bytes((HANDSHAKE,)) + UPDATE_REQUESTED,
        bytes((HANDSHAKE, 0, 0, 0, 0)),  # HelloRequest
        bytes((HANDSHAKE, 1, 0, 0, 0)),
        bytes((HANDSHAKE, 4, 0, 0, 0)),  # NewSessionTicket
        bytes((HANDSHAKE, 13, 0, 0, 3, 0, 0, 0)),  # CertificateRequest
        bytes((ALERT, 1, 0)),
        bytes((ALERT, 1, 90)),
        bytes((ALERT, 1, 100)),
        bytes((ALERT, 2, 40)),
        bytes((ALERT, 3, 255)),
        bytes((CHANGE_CIPHER_SPEC, 1)),
        bytes((DATA,)),
        b"\x17\x03\x03\x00\x00",
        b"GET / HTTP/1.1\r\n\r\n",
    ]
)
EDIT = st.builds(
    lambda number, verb, at, payload: (
        bytes((number, verb)) + at.to_bytes(2) + bytes((len(payload),)) + payload
    ),
    st.integers(0, 12),
    st.integers(0, 14),
    st.integers(0, 2000),
    INTERESTING | st.binary(max_size=40),
)
CONVERSATION = st.builds(
    lambda start, edits: start + b"".join(edits),
    st.binary(min_size=5, max_size=5),
    st.lists(EDIT, max_size=4),
)


@pytest.mark.parametrize("victim", VICTIMS)
@tries
@given(data=CONVERSATION)
def test_any_conversation_ends_in_order(victim: str, data: bytes) -> None:
    judge(victim, data)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("victim", VICTIMS)
@tries
@given(record=st.integers(0, 9), at=st.integers(0, 2000), mask=st.integers(1, 255), flags=st.integers(0, 127))
def test_any_byte_of_any_message_may_be_changed_inside_its_encryption(
    victim: str, version: str, record: int, at: int, mask: int, flags: int
) -> None:
    flags = flags << 1 | (version == "TLSv1.2")
    judge(victim, bytes((flags, 4, 0, 6, 4, record, 0)) + at.to_bytes(2) + bytes((1, mask)))


def outcome(victim: str, data: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str | None] | None:
    """Return class and code of what a victim fails of, if it does."""
    seen: list[Any] = []
    monkeypatch.setattr(hostile, "examine", seen.append)
    judge(victim, data)
    return (type(seen[0]).__name__, seen[0].code) if seen else None


PLAIN = bytes((0, 6, 4))
# From so many records on, the engine's own are those of data.
DATA_AT = {
    ("talk_to_server", 0): 3,
    ("talk_to_server", 1): 4,
    ("talk_to_client", 0): 8,
    ("talk_to_client", 1): 7,
}


@pytest.mark.parametrize("flags", [0, 1], ids=["TLSv1.3", "TLSv1.2"])
@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize(
    ("forged", "expected"),
    [
        (bytes((ALERT, 2, 80)), ("PeerAlert", "ERR_SSL_TLSV1_ALERT_INTERNAL_ERROR")),
        (bytes((ALERT, 2)), ("ProtocolError", "ERR_SSL_INVALID_ALERT")),
    ],
)
def test_a_forged_record_is_understood_by_its_victim(
    victim: str, flags: int, forged: bytes, expected: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the edits are made inside the encryption, and not merely noticed by it."""
    start = bytes((flags, 4)) + PLAIN
    assert outcome(victim, start, monkeypatch) is None
    edit = bytes((DATA_AT[victim, flags], 10, 0, 0, len(forged))) + forged
    assert outcome(victim, start + edit, monkeypatch) == expected


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_forged_key_update_is_followed(victim: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for update in (UPDATE, UPDATE_REQUESTED):
        edit = bytes((DATA_AT[victim, 0], 10, 0, 0, 6, HANDSHAKE)) + update
        assert outcome(victim, bytes((0, 4)) + PLAIN + edit, monkeypatch) is None


# Certificates and staples

EDITS = st.lists(
    st.builds(
        lambda verb, at, payload: bytes((0, verb)) + at.to_bytes(2) + bytes((len(payload),)) + payload,
        st.sampled_from([0, 1, 2, 3, 4, 5, 14, 14, 14, 14]),
        st.integers(0, 1200),
        st.binary(max_size=8) | st.sampled_from([b"\x0c", b"\x1e", b"\x82", b"991301000000Z", b"-1"]),
    ),
    max_size=3,
).map(b"".join)


@tries
@given(flags=st.integers(0, 15), which=st.integers(0, 6), edits=EDITS)
@example(flags=0, which=0, edits=b"")
def test_any_certificate_that_openssl_presents_is_judged(flags: int, which: int, edits: bytes) -> None:
    judge("certificate", bytes((flags, which)) + edits)


@tries
@given(flags=st.integers(0, 7), edits=EDITS)
def test_any_staple_is_judged(flags: int, edits: bytes) -> None:
    judge("staple", bytes((flags,)) + edits)


# Floods

MANY = 4000
# Of so many, the answers would take more than a megabyte.
FLOOD = 60_000
SESSION_TICKET = (
    bytes((4, 0, 0, 0x1B)) + bytes((0, 0, 1, 0)) + bytes(4) + b"\4abcd" + b"\0\x0a" + bytes(10) + b"\0\0"
)
SMALL, WARNINGS = "ERR_SSL_RECORD_TOO_SMALL", "ERR_SSL_TOO_MANY_WARN_ALERTS"
# To whom, the version, the record, and what it fails of, if at all.
FLOODS: dict[str, tuple[str, str, Content, str | None]] = {
    "empty data to a server": ("server", "TLSv1.3", (DATA, b""), SMALL),
    "empty data to a client": ("client", "TLSv1.2", (DATA, b""), SMALL),
    "data to a server": ("server", "TLSv1.3", (DATA, b"x"), None),
    "data to a client": ("client", "TLSv1.3", (DATA, b"x"), None),
    "key updates to a server": ("server", "TLSv1.3", (HANDSHAKE, UPDATE_REQUESTED), None),
    "key updates to a client": ("client", "TLSv1.3", (HANDSHAKE, UPDATE_REQUESTED), None),
    "tickets to a client": ("client", "TLSv1.3", (HANDSHAKE, SESSION_TICKET), None),
    "requests for a handshake to a client": ("client", "TLSv1.2", (HANDSHAKE, bytes(4)), None),
    "warnings to a server": ("server", "TLSv1.2", (ALERT, b"\1\x5a"), WARNINGS),
    "warnings to a client": ("client", "TLSv1.3", (ALERT, b"\1\x5a"), WARNINGS),
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_of_records_takes_no_memory(flood: str, autojump_clock: MockClock) -> None:
    role, version, content, expected = FLOODS[flood]
    versions: Any = {"min_version": version, "max_version": version, "ciphers": CIPHERS}
    authority, secrets = default_authority(), hostile.Secrets()
    client, server = await tls_pair(
        client_context=tls.SecureContext(ca=authority.ca, **versions),
        server_context=tls.SecureContext(**authority.good("localhost").options, **versions),
        client_options={"keylog": secrets, "on_session": len},
        server_options={"keylog": secrets},
    )
    victim, peer = (client, server) if role == "client" else (server, client)
    secrets.engine = peer._engine
    *_, keys = secrets.keys()
    # Up to TLS 1.2, the Finished was the first record under these keys.
    keys.count = int(version == "TLSv1.2")
    sizes = [0]
    code = None

    async def pour(keys: Keys) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            for _ in range(MANY // 100):
                records = b""
                for _ in range(100):
                    records += keys.seal(content)
                    keys = followed(keys, content)
                await peer.transport_stream.send_all(records)
                await wait_all_tasks_blocked()
                sizes.append(hostile.held_by(victim))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pour, keys)
        with trio.move_on_after(1):
            try:
                async for _ in victim:
                    pass
            except tls.TLSError as error:
                code = error.code
        nursery.cancel_scope.cancel()
    for stream in (client, server):
        await trio.aclose_forcefully(stream)
    assert code == expected
    assert max(sizes) < 1 << 16


async def test_answers_to_a_peer_that_does_not_read_take_little_memory(autojump_clock: MockClock) -> None:
    """Over a socket, they are kept until it takes them; then the peer is not read from either."""
    # The kernel may take a moment to deliver what was sent.
    autojump_clock.autojump_threshold = 0.02
    secrets = hostile.Secrets()
    context = tls.SecureContext(ca=default_authority().ca, min_version="TLSv1.3", ciphers=CIPHERS)
    transport = trio.socket.socket()
    transport.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4096)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        await transport.connect(listener.socket.getsockname())
        server_end = await listener.accept()
    server_end.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, 4096)
    client = tls.TLSStream(trio.SocketStream(transport), context, host="localhost", keylog=secrets)
    server = tls.TLSStream(server_end, SERVER, server_side=True)
    secrets.engine = client._engine
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.do_handshake)
        await client.do_handshake()
    (*_, keys), sent = secrets.keys(), 0

    async def pour(keys: Keys) -> None:
        nonlocal sent
        for _ in range(FLOOD // 1000):
            records = b""
            for _ in range(1000):
                records += keys.seal((HANDSHAKE, UPDATE_REQUESTED))
                keys = followed(keys, (HANDSHAKE, UPDATE_REQUESTED))
            await client.transport_stream.send_all(records)
            sent += 1000
            assert hostile.held_by(server) < hostile.MOST_HELD

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pour, keys)
        nursery.start_soon(server.receive_some)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert sent < FLOOD
    assert hostile.held_by(server) < hostile.MOST_HELD
    for stream in (client, server):
        await trio.aclose_forcefully(stream)


# Hellos as large as they may be


def vector(size: int, content: bytes) -> bytes:
    return len(content).to_bytes(size) + content


def large_hello(suites: int, extensions: int, protocols: int) -> bytes:
    """Return a ClientHello with so many of these."""
    alpn = b"\0\x10" + vector(2, vector(2, b"\2h2" * protocols)) if protocols else b""
    others = b"".join((0x4000 + number).to_bytes(2) + b"\0\0" for number in range(extensions))
    body = b"\3\3" + bytes(32) + b"\0" + vector(2, b"\xc0\x2b" * suites) + b"\1\0" + vector(2, alpn + others)
    return b"\1" + vector(3, body)


LARGEST = large_hello(15000, 0, 0)


@pytest.mark.parametrize("many", [(15000, 0, 0), (1, 7500, 0), (1, 0, 10000)])
def test_a_large_hello_takes_hardly_more_memory_than_bytes(many: tuple[int, int, int]) -> None:
    message = large_hello(*many)
    assert 29_000 < len(message) < 32_000
    tracemalloc.start()
    try:
        parsed = ClientHello.parse(message)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 1.1 * len(message) + 2000
    counts = len(parsed.cipher_suites), len(parsed.extensions) - bool(many[2]), len(parsed.alpn_protocols)
    assert counts == many


async def test_failures_are_kept_up_to_a_size_too() -> None:
    server = tls.TLSServer(echo, SERVER, client_error_limit=50)
    records = b"".join(
        b"\x16\3\1" + vector(2, LARGEST[at : at + 16384]) for at in range(0, len(LARGEST), 16384)
    )
    for _ in range(50):
        client, transport = memory_stream_pair()
        await client.send_all(records)
        await client.send_eof()
        await server.handle(transport)
    group = await anext(server.client_errors())
    assert len(group.exceptions) + group.dropped == 50
    sizes = [
        error.client_hello.size
        for error in group.exceptions
        if isinstance(error, tls.ConnectionFailed) and error.client_hello
    ]
    assert len(sizes) == len(group.exceptions)
    assert sum(sizes) <= 50 * 8192 < sum(sizes) + sizes[0]
    # Once they were fetched, there is room again.
    client, transport = memory_stream_pair()
    await client.send_all(records)
    await client.send_eof()
    await server.handle(transport)
    assert len((await anext(server.client_errors())).exceptions) == 1


async def test_a_single_failure_is_always_kept() -> None:
    server = tls.TLSServer(echo, SERVER, client_error_limit=1)
    records = b"".join(
        b"\x16\3\1" + vector(2, LARGEST[at : at + 16384]) for at in range(0, len(LARGEST), 16384)
    )
    client, transport = memory_stream_pair()
    await client.send_all(records)
    await client.send_eof()
    await server.handle(transport)
    assert len((await anext(server.client_errors())).exceptions) == 1


# The fuzzer


def test_what_the_fuzzer_finds_is_kept_and_found_again(tmp_path: Path) -> None:
    corpus.keep("hello", [b"longer", b"\0", b"", b"\0"], tmp_path)
    path = corpus.keep_found("hello", b"bad", tmp_path)
    assert path.parent == tmp_path / "found"
    assert corpus.kept("hello", tmp_path) == [b"bad", b"\0", b"longer"]
    assert corpus.kept("flight", tmp_path) == []


@pytest.fixture
def fuzzer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Return what puts a shell script in the place of Python, which would run the fuzzer."""

    def replace(script: str) -> Path:
        path = tmp_path / "fuzzer"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(path))
        return tmp_path / "corpus"

    return replace


CRASH = """
for word; do
    case $word in
        -artifact_prefix=*) printf bad > "${word#*=}crash-1"; printf slow > "${word#*=}slow-unit-1";;
    esac
done
cat >&2 <<END
INFO: Running with entropic power schedule
#2	INITED cov: 41 ft: 41
#37	NEW    cov: 42 ft: 44

 === Uncaught Python exception: ===
BrokenPromiseError: a victim holds 2000000 bytes
END
exit 77
"""


def test_an_input_that_breaks_a_promise_is_kept_and_reported(fuzzer: Callable[[str], Path]) -> None:
    folder = fuzzer(CRASH)
    result = fuzz.fuzz("hello", 60, keep=True, folder=folder)
    assert result.found is not None
    assert (result.inputs, result.coverage) == (37, 42)
    assert result.report.splitlines() == [
        "",
        " === Uncaught Python exception: ===",
        "BrokenPromiseError: a victim holds 2000000 bytes",
    ]
    assert corpus.kept("hello", folder) == [b"bad"]
    assert f"| hello | 37 | 42 | {result.corpus} | `{result.found.name}` |" in fuzz.report([result], 60)


def test_a_fuzzer_that_cannot_run_is_an_error(fuzzer: Callable[[str], Path]) -> None:
    folder = fuzzer("echo no such module >&2; exit 1")
    with pytest.raises(fuzz.FuzzerFailedError, match="status 1:\nno such module"):
        fuzz.fuzz("hello", 60, keep=True, folder=folder)
    assert corpus.kept("hello", folder) == []


def test_the_smallest_corpus_is_kept_if_it_is_asked_for(fuzzer: Callable[[str], Path]) -> None:
    """The fuzzer is given no time, which would be for ever, as the least there is."""
    folder = fuzzer(
        r"""
case "$*" in
    *-merge=1*) printf new > "$5/1";;
    *-max_total_time=1\ *) ;;
    *) exit 1;;
esac
"""
    )
    for keep, kept in ((False, []), (True, [b"new"])):
        result = fuzz.fuzz("hello", 0, keep=keep, folder=folder)
        assert (result.found, result.corpus) == (None, 1)
        assert corpus.kept("hello", folder) == kept


@pytest.mark.skipif(fuzz.missing() is not None, reason="atheris is not installed")
def test_the_fuzzer_runs(tmp_path: Path) -> None:
    result = fuzz.fuzz("hello", 1, keep=True, folder=tmp_path)
    assert result.found is None
    assert result.coverage > 500
    assert corpus.kept("hello", tmp_path)
    assert "| hello |" in fuzz.report([result], 1)
