"""keylog=: which secrets are written down, where, whose, and who else may read them."""

from __future__ import annotations

import contextlib
import errno
import gc
import itertools
import os
import re
import stat
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from entrances import (
    Entrance,
    client_context,
    server_context,
    through_every_entrance,
)
from trio.testing import MockClock, memory_stream_pair

import trio_tlsnode as tls
from trio_tlsnode import TLSServer, TLSStream
from trio_tlsnode._openssl import callbacks
from trio_tlsnode.testing import default_authority, tls_pair

pytestmark = [pytest.mark.feature("B19"), pytest.mark.feature("C20")]

VERSIONS = ["TLSv1.2", "TLSv1.3"]
in_both_versions = pytest.mark.parametrize("version", VERSIONS)
in_both_roles = pytest.mark.parametrize("role", ["client", "server"])

LABELS = {
    "TLSv1.2": ["CLIENT_RANDOM"],
    "TLSv1.3": [
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
        "CLIENT_TRAFFIC_SECRET_0",
        "EXPORTER_SECRET",
        "SERVER_HANDSHAKE_TRAFFIC_SECRET",
        "SERVER_TRAFFIC_SECRET_0",
    ],
}
# Of a master secret, and of one of TLS 1.3 with SHA-384, in bytes.
SECRET_SIZE = 48


class Log(list[str]):
    """The lines of a key log, without those whom they are of."""

    def __call__(self, line: str, _stream: TLSStream | None) -> None:
        self.append(line)

    @property
    def labels(self) -> list[str]:
        return sorted(line.partition(" ")[0] for line in self)

    @property
    def randoms(self) -> set[str]:
        return {line.split(" ")[1] for line in self}


async def logged_pair(**options: Any) -> tuple[TLSStream, TLSStream, Log, Log]:
    """Return a client and a server, and the key log of each."""
    logs = Log(), Log()
    for log, side in zip(logs, ("client_options", "server_options"), strict=True):
        options[side] = {"keylog": log, **options.get(side, {})}
    client, server = await tls_pair(**options)
    await server.send_all(b"welcome")
    await client.receive_some()
    return client, server, *logs


def random_of(server: TLSStream) -> str:
    assert server.client_hello is not None
    return server.client_hello.random.hex()


async def welcome(stream: TLSStream) -> None:
    await stream.send_all(b"welcome")


async def close(*streams: TLSStream) -> None:
    for stream in streams:
        await trio.aclose_forcefully(stream)


# What is written


@in_both_versions
async def test_both_sides_write_the_same_lines_of_the_nss_format(version: str) -> None:
    client, server, ours, theirs = await logged_pair(version=version)
    assert sorted(ours) == sorted(theirs)
    assert ours.labels == LABELS[version]
    digits = 2 * SECRET_SIZE
    for line in ours:
        assert re.fullmatch(rf"[A-Z_0-9]+ {random_of(server)} [0-9a-f]{{{digits}}}", line)
    await close(client, server)


@in_both_versions
async def test_a_resumed_handshake_is_written_too(version: str) -> None:
    client, server, *_ = await logged_pair(version=version)
    session = client.session
    await close(client, server)
    client, server, ours, theirs = await logged_pair(version=version, client_options={"session": session})
    assert client.info.session_reused
    assert sorted(ours) == sorted(theirs)
    assert ours.labels == LABELS[version]
    assert ours.randoms == {random_of(server)}
    await close(client, server)


async def test_a_retried_handshake_is_written_once() -> None:
    client, server, ours, theirs = await logged_pair(server_context=server_context(groups="P-256"))
    assert sorted(ours) == sorted(theirs)
    assert ours.labels == LABELS["TLSv1.3"]
    await close(client, server)


async def test_early_data_has_secrets_of_its_own() -> None:
    options: dict[str, Any] = {"server_options": {"max_early_data": 1000}}
    client, server, *_ = await logged_pair(**options)
    early = {"session": client.session, "early_data": b"early"}
    await close(client, server)
    client, server, ours, theirs = await logged_pair(**options, client_options=early)
    assert sorted(ours) == sorted(theirs)
    assert {*ours.labels} - {*LABELS["TLSv1.3"]} == {"CLIENT_EARLY_TRAFFIC_SECRET", "EARLY_EXPORTER_SECRET"}
    await close(client, server)


async def test_the_secrets_of_a_renegotiation_are_written() -> None:
    client, server, ours, theirs = await logged_pair(version="TLSv1.2")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.receive_some)
        await server.renegotiate(request_cert=False)
        await server.send_all(b"done")
    assert ours == theirs
    assert ours.labels == ["CLIENT_RANDOM"] * 2
    assert len(ours.randoms) == 2
    await close(client, server)


# Whose


@through_every_entrance
async def test_a_function_is_called_with_each_line_and_the_stream(
    through: Entrance, nursery: trio.Nursery
) -> None:
    told: list[tuple[str, TLSStream | None]] = []
    stream = await through(nursery, keylog=lambda line, whose: told.append((line, whose)))
    assert {whose for _, whose in told} == {stream}
    assert sorted(line.partition(" ")[0] for line, _ in told) == LABELS["TLSv1.3"]
    assert all("\n" not in line for line, _ in told)
    await close(stream)


@through_every_entrance
async def test_a_file_gets_each_line(through: Entrance, nursery: trio.Nursery, tmp_path: Path) -> None:
    path = tmp_path / "keys.log"
    for given in (path, str(path)):
        await close(await through(nursery, keylog=given))
    lines = path.read_text(encoding="ascii").splitlines(keepends=True)
    assert [line.partition(" ")[0] for line in sorted(lines)] == sorted(2 * LABELS["TLSv1.3"])
    assert all(line.endswith("\n") for line in lines)


async def test_a_server_can_log_one_client_alone(nursery: trio.Nursery) -> None:
    """Node's manual does so, by the address of the peer."""
    interesting: set[int] = set()
    log = Log()

    def keylog(line: str, stream: TLSStream) -> None:
        assert stream.remote_address is not None
        if stream.remote_address.port in interesting:
            log(line, stream)

    server = TLSServer(welcome, server_context(), keylog=keylog)
    await nursery.start(server.serve, 0, "127.0.0.1")
    ours = Log()
    for is_interesting in (False, True, False):
        transport = await trio.open_tcp_stream("127.0.0.1", server.addresses[0].port)
        if is_interesting:
            interesting.add(transport.socket.getsockname()[1])
        client = await tls.wrap_client(
            transport, host="localhost", context=client_context(), keylog=ours if is_interesting else None
        )
        await client.receive_some()
        await close(client)
    assert sorted(log) == sorted(ours) != []


@in_both_versions
async def test_others_of_the_same_context_are_not_logged(version: str) -> None:
    client, server, ours, theirs = await logged_pair(version=version)
    written = [*ours], [*theirs]
    await close(client, server)
    await close(*await tls_pair(version=version))
    other_client, other_server, others, _ = await logged_pair(
        version=version, server_options={"keylog": None}
    )
    assert ([*ours], [*theirs]) == written
    assert ours.randoms.isdisjoint(others.randoms)
    await close(other_client, other_server)


@in_both_versions
@pytest.mark.parametrize("way", ["add_context", "sni_callback", "use_credentials"])
async def test_it_holds_whatever_context_a_server_chooses(
    way: str, version: str, nursery: trio.Nursery
) -> None:
    other = tls.SecureContext(**default_authority().good("other.example").options)
    options: dict[str, Any] = {}
    if way == "sni_callback":
        options["sni_callback"] = lambda _name: other
    elif way == "use_credentials":

        def choose(choice: tls.Choice) -> str:
            choice.use_credentials(other)
            return choice.protocols[0]

        options["alpn_callback"] = choose

    theirs = Log()
    server = TLSServer(welcome, server_context(), keylog=theirs, **options)
    if way == "add_context":
        server.add_context("*.example", other)
    ours = Log()
    context = client_context(min_version=version, max_version=version)
    session = None
    for _ in range(2):
        left, right = memory_stream_pair()
        nursery.start_soon(server.handle, right)
        async with await tls.wrap_client(
            left, host="other.example", context=context, keylog=ours, session=session, alpn_protocols=["h2"]
        ) as client:
            await client.receive_some()
            session = client.session
    assert client.info.session_reused
    assert sorted(ours) == sorted(theirs)
    assert ours.labels == sorted(2 * LABELS[version])


@in_both_versions
async def test_it_holds_where_a_ticket_was_made_under_older_keys(
    version: str, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    ours, theirs = Log(), Log()
    server = TLSServer(welcome, server_context(), keylog=theirs, ticket_rotation=100)
    context = client_context(min_version=version, max_version=version)
    session = None
    for _ in range(2):
        left, right = memory_stream_pair()
        nursery.start_soon(server.handle, right)
        async with await tls.wrap_client(left, context=context, keylog=ours, session=session) as client:
            await client.receive_some()
            session = client.session
        await trio.sleep(150)
    assert client.info.session_reused
    assert sorted(ours) == sorted(theirs)
    assert ours.labels == sorted(2 * LABELS[version])


# The file


@contextlib.contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("permissive", [0o000, 0o022, 0o077])
def test_nobody_else_can_read_a_file_that_is_made(permissive: int, tmp_path: Path) -> None:
    path = tmp_path / "keys.log"
    with umask(permissive):
        tls.Engine(client_context(), keylog=path)
    assert mode(path) == 0o600
    assert path.read_bytes() == b""


async def test_a_file_that_is_there_keeps_its_content_and_its_permissions(tmp_path: Path) -> None:
    """They are its owner's choice: a group, say, whose capture is read."""
    path = tmp_path / "keys.log"
    path.write_text("# keys\n")
    path.chmod(0o640)
    await close(*await tls_pair(client_options={"keylog": path}))
    assert mode(path) == 0o640
    assert path.read_text().startswith("# keys\n")
    assert len(path.read_text().splitlines()) == 1 + len(LABELS["TLSv1.3"])


async def test_many_connections_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.log"
    log = Log()
    for _ in range(4):
        client, server = await tls_pair(client_options={"keylog": path}, server_options={"keylog": log})
        await close(client, server)
    assert sorted(path.read_text().splitlines()) == sorted(log)
    assert len(log.randoms) == 4


async def test_a_file_may_be_moved_away_between_connections(tmp_path: Path) -> None:
    path = tmp_path / "keys.log"
    left, right = memory_stream_pair()
    client = TLSStream(left, client_context(), keylog=path)
    server = TLSStream(right, server_context(), server_side=True)
    path.rename(tmp_path / "old.log")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        nursery.start_soon(server.do_handshake)
    assert (tmp_path / "old.log").read_bytes() == b""
    assert len(path.read_text().splitlines()) == len(LABELS["TLSv1.3"])
    assert mode(path) == 0o600
    await close(client, server)


@through_every_entrance
@pytest.mark.parametrize(
    ("place", "code"), [("missing/keys.log", "ENOENT"), (".", "EISDIR"), ("file/keys.log", "ENOTDIR")]
)
async def test_a_file_that_cannot_be_written_is_refused_at_once(
    through: Entrance, place: str, code: str, nursery: trio.Nursery, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / place
    with pytest.raises(tls.ConfigurationError, match="the key log cannot be written") as caught:
        await through(nursery, keylog=path)
    assert (caught.value.code, caught.value.path, caught.value.option) == (code, str(path), "keylog")
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_without_permission_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "keys.log"
    path.touch(0o400)
    with pytest.raises(tls.ConfigurationError) as caught:
        tls.Engine(client_context(), keylog=path)
    assert caught.value.code == "EACCES"


@through_every_entrance
@pytest.mark.parametrize("value", [1, 0, b"keys.log", object(), ["keys.log"]])
async def test_what_takes_no_lines_is_refused(
    through: Entrance, value: object, nursery: trio.Nursery
) -> None:
    with pytest.raises(tls.ConfigurationTypeError, match="keylog must be") as caught:
        await through(nursery, keylog=value)
    assert caught.value.option == "keylog"


# The environment


@pytest.fixture
def named_by_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trio.Path:
    path = tmp_path / "environment.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(path))
    return trio.Path(path)


@through_every_entrance
async def test_true_takes_the_file_that_the_environment_names(
    through: Entrance, nursery: trio.Nursery, named_by_environment: trio.Path
) -> None:
    await close(await through(nursery, keylog=True))
    assert len((await named_by_environment.read_text()).splitlines()) == len(LABELS["TLSv1.3"])


@through_every_entrance
@pytest.mark.parametrize("value", [None, False])
async def test_nothing_is_logged_unless_asked_for(
    through: Entrance, value: object, nursery: trio.Nursery, named_by_environment: trio.Path
) -> None:
    await close(await through(nursery, keylog=value))
    await close(*await tls_pair())
    assert not await named_by_environment.exists()


@through_every_entrance
@pytest.mark.parametrize("value", [None, ""])
async def test_true_logs_nothing_where_the_environment_names_no_file(
    through: Entrance, value: str | None, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSLKEYLOGFILE", raising=False)
    if value is not None:
        monkeypatch.setenv("SSLKEYLOGFILE", value)
    stream = await through(nursery, keylog=True)
    assert not stream._engine.logs_keys
    await close(stream)


async def test_a_file_of_the_environments_that_cannot_be_written_is_refused(
    named_by_environment: trio.Path,
) -> None:
    await named_by_environment.mkdir()
    with pytest.raises(tls.ConfigurationError) as caught:
        tls.Engine(client_context(), keylog=True)
    assert (caught.value.code, caught.value.path) == ("EISDIR", str(named_by_environment))


# Failing


class FailingLog(Log):
    """Raises over the line of this number."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def __call__(self, line: str, stream: TLSStream | None) -> None:
        super().__call__(line, stream)
        if len(self) > self._number:
            raise OSError(errno.ENOSPC, "No space left on device")


@in_both_versions
@in_both_roles
async def test_a_log_that_fails_ends_the_handshake_at_whichever_line_it_is(version: str, role: str) -> None:
    told_peer: Counter[object] = Counter()
    for number in itertools.count():
        log = FailingLog(number)
        options: Any = {f"{role}_options": {"keylog": log}}
        pair = await tls_pair(version=version, handshake=False, **options)
        ours, theirs = pair if role == "client" else pair[::-1]
        errors: dict[TLSStream, tls.ConnectionFailed] = {}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(greet, ours, errors)
            nursery.start_soon(greet, theirs, errors)
        error = errors.get(ours)
        if error is None:
            break
        assert isinstance(error, tls.CallbackError)
        assert (error.callback, error.reason, error.phase) == ("keylog", "keylog raised", "handshake")
        assert isinstance(error.__cause__, OSError)
        assert len(log) == number + 1
        told_peer[getattr(errors.get(theirs), "alert", None)] += 1
    assert number == len(LABELS[version])
    # A server of TLS 1.3 learns the last secret when its own part is done: it says goodbye.
    goodbyes = 1 if (version, role) == ("TLSv1.3", "server") else 0
    assert told_peer == Counter({tls.Alert.internal_error: number - goodbyes, None: goodbyes})


async def greet(stream: TLSStream, errors: dict[TLSStream, tls.ConnectionFailed]) -> None:
    try:
        await stream.do_handshake()
        await stream.send_all(b"welcome")
        await stream.receive_some()
    except tls.ConnectionFailed as error:
        errors[stream] = error
    await stream.aclose()


async def test_a_file_that_can_no_longer_be_written_fails_the_connection(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    client, server = await tls_pair(handshake=False, server_options={"keylog": folder / "keys.log"})
    (folder / "keys.log").unlink()
    folder.rmdir()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail, client, tls.PeerAlert)
        nursery.start_soon(fail, server, tls.CallbackError)
    await close(client, server)


async def fail(stream: TLSStream, kind: type[tls.ConnectionFailed]) -> None:
    with pytest.raises(kind) as caught:
        await stream.do_handshake()
    if isinstance(caught.value, tls.CallbackError):
        assert isinstance(caught.value.__cause__, FileNotFoundError)


async def test_a_log_may_not_be_async() -> None:
    async def keylog(_line: str, _stream: TLSStream | None) -> None:
        raise AssertionError

    client, server = await tls_pair(handshake=False, client_options={"keylog": keylog})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail, server, tls.PeerAlert)
        with pytest.raises(tls.CallbackError, match="may not be async"):
            await client.do_handshake()
    await close(client, server)


# Letting go


@pytest.mark.parametrize("number", [2, 100], ids=["failing", "good"])
async def test_a_logged_stream_is_freed_with_its_last_reference(number: int) -> None:
    async def live_and_die() -> list[weakref.ref[Any]]:
        options = {"keylog": FailingLog(number)}
        pair = await tls_pair(handshake=False, client_options=options)
        async with trio.open_nursery() as nursery:
            for stream in pair:
                nursery.start_soon(try_handshake, stream)
        for stream in pair:
            await stream.aclose()
        return [weakref.ref(thing) for stream in pair for thing in (stream, stream._engine)]

    gc.collect()
    gc.disable()
    try:
        connections = len(callbacks.connections)
        left = await live_and_die()
        # Trio itself holds the last exception of a task until its next turn.
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        assert [ref() for ref in left] == [None] * len(left)
        assert len(callbacks.connections) == connections
    finally:
        gc.enable()


async def try_handshake(stream: TLSStream) -> None:
    with contextlib.suppress(tls.ConnectionFailed):
        await stream.do_handshake()
