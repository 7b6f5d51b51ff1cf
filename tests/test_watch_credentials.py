"""watch_credentials: new files that are right are used, and nothing else ever is."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

import trio_tlsnode as tls
from trio_tlsnode import (
    ConfigurationError,
    ConfigurationTypeError,
    PeerAlert,
    SecureContext,
    TLSServer,
    TLSStream,
    watch_credentials,
    wrap_client,
)
from trio_tlsnode.testing import Authority, IssuedCertificate, MemoryListener

pytestmark = pytest.mark.feature("B14")

AUTHORITY = Authority()
OLD, NEW, NEWEST = (AUTHORITY.good("localhost", name) for name in ("old", "new", "newest"))
INTERVAL = 10.0
# How soon the files are looked at again when they have changed.
SOON = 1.0


async def echo(stream: TLSStream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def connect_to(server: TLSServer, nursery: trio.Nursery, **options: Any) -> TLSStream:
    client, transport = memory_stream_pair()
    nursery.start_soon(server.handle, transport)
    return await wrap_client(client, **{"ca": AUTHORITY.ca, **options})


def presented(stream: TLSStream) -> str:
    """Return the last name in the certificate that the server has presented."""
    certificate = stream.info.peer_certificate
    assert certificate is not None
    return certificate.alt_names[-1][1]


class Watched:
    """A server whose credentials are watched, on a clock that goes on when it is told to.

    Attributes:
        folder: Where ``key.pem`` and ``cert.pem`` are.
        server: The server.
        failures: What `on_failure` was told.
    """

    def __init__(self, folder: Path, nursery: trio.Nursery, clock: MockClock) -> None:
        self.folder = folder
        self.failures: list[ConfigurationError] = []
        self._nursery = nursery
        self._clock = clock
        self.files: dict[str, Any] = dict(zip(("key", "cert"), OLD.write_to(folder), strict=True))

    async def start(self, context: SecureContext | None = None, **options: Any) -> TLSServer:
        """Start the server, and the task that watches."""
        self.server = TLSServer(echo, context or SecureContext(**self.files), **options)
        await self.watch()
        return self.server

    async def watch(self, **options: Any) -> None:
        settings = {"interval": INTERVAL, "on_failure": self.failures.append, **self.files, **options}
        await self._nursery.start(partial(watch_credentials, self.server, **settings))
        await self._asleep()

    async def look(self) -> float:
        """Let the task wake up and do what it does; return how long it means to sleep then."""
        # Connections that are about to end have time-outs of their own.
        await wait_all_tasks_blocked()
        self._clock.jump(trio.lowlevel.current_statistics().seconds_to_next_deadline)
        return await self._asleep()

    async def _asleep(self) -> float:
        pause = math.inf
        # While its thread is at work, it waits for no time.
        while pause == math.inf:
            await wait_all_tasks_blocked()
            pause = trio.lowlevel.current_statistics().seconds_to_next_deadline
        return pause

    async def replaced(self) -> None:
        """Let the task find that the files have changed, and then that they do not change any more."""
        assert await self.look() == SOON
        assert await self.look() == INTERVAL

    async def name(self, **options: Any) -> str:
        """Return the name that a new connection is shown."""
        async with await connect_to(self.server, self._nursery, **options) as stream:
            name = presented(stream)
            # In TLS 1.3, a client that is refused learns it by receiving.
            await stream.send_all(b"x")
            assert await stream.receive_some() == b"x"
        return name


@pytest.fixture
def watched(tmp_path: Path, nursery: trio.Nursery, mock_clock: MockClock) -> Watched:
    return Watched(tmp_path, nursery, mock_clock)


# How files are replaced


def rewrite(path: Path, content: bytes) -> None:
    """Write a file anew, as an editor does; its time is another one however quick that is."""
    before = os.stat(path).st_mtime_ns
    path.write_bytes(content)
    os.utime(path, ns=(before + 1_000_000, before + 1_000_000))


def rename(path: Path, content: bytes) -> None:
    """Put a new file in the place of one."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    os.replace(new, path)


def relink(path: Path, content: bytes) -> None:
    """Put a link to another file in the place of a file or link, as certbot does."""
    number = len(list(path.parent.glob(f"{path.stem}*.archived")))
    target = path.with_name(f"{path.stem}{number}.archived")
    target.write_bytes(content)
    link = path.with_suffix(".link")
    link.symlink_to(target.name)
    os.replace(link, path)


ways = pytest.mark.parametrize("replace", [rewrite, rename, relink])
orders = pytest.mark.parametrize("order", [("key", "cert"), ("cert", "key")], ids="-then-".join)


@ways
@orders
async def test_new_files_are_used_however_and_in_whatever_order_they_come(
    watched: Watched, mock_clock: MockClock, replace: Callable[[Path, bytes], None], order: tuple[str, str]
) -> None:
    await watched.start()
    assert await watched.look() == INTERVAL
    assert await watched.name() == "old"
    for option in order:
        replace(watched.folder / f"{option}.pem", getattr(NEW, option))
    await watched.replaced()
    assert await watched.name() == "new"
    assert watched.failures == []


@ways
@orders
async def test_what_is_written_slowly_is_used_when_the_last_file_is_there(
    watched: Watched, mock_clock: MockClock, replace: Callable[[Path, bytes], None], order: tuple[str, str]
) -> None:
    await watched.start()
    first, last = order
    replace(watched.folder / f"{first}.pem", getattr(NEW, first))
    await watched.replaced()
    assert await watched.name() == "old"
    assert [error.code for error in watched.failures] == ["ERR_OSSL_X509_KEY_VALUES_MISMATCH"]
    replace(watched.folder / f"{last}.pem", getattr(NEW, last))
    await watched.replaced()
    assert await watched.name() == "new"
    assert len(watched.failures) == 1


@pytest.mark.parametrize("cut", [0, 1, 30, 200, -30, -1])
@pytest.mark.parametrize("option", ["key", "cert"])
async def test_half_of_a_file_is_not_used_and_the_whole_of_it_is(
    watched: Watched, mock_clock: MockClock, cut: int, option: str
) -> None:
    """A PEM file without its last line end is whole."""
    await watched.start()
    rename(watched.folder / "key.pem", NEW.key)
    rename(watched.folder / "cert.pem", NEW.cert)
    path, whole = watched.folder / f"{option}.pem", getattr(NEW, option)
    rewrite(path, whole[:cut])
    await watched.replaced()
    assert await watched.name() == ("new" if cut == -1 else "old")
    assert len(watched.failures) == (cut != -1)
    rewrite(path, whole)
    await watched.replaced()
    assert await watched.name() == "new"


async def test_a_chain_that_is_being_written_is_waited_for(watched: Watched, mock_clock: MockClock) -> None:
    """Without its intermediate, the chain would be right by itself, and of no use to clients."""
    await watched.start()
    chained = AUTHORITY.good("localhost", "chained", intermediates=1)
    rewrite(watched.folder / "key.pem", chained.key)
    leaf = chained.cert.removesuffix(chained.intermediates)
    rewrite(watched.folder / "cert.pem", leaf)
    assert await watched.look() == SOON
    rewrite(watched.folder / "cert.pem", leaf + chained.intermediates[:100])
    assert await watched.look() == SOON
    rewrite(watched.folder / "cert.pem", chained.cert)
    assert await watched.look() == SOON
    assert await watched.name() == "old"
    assert await watched.look() == INTERVAL
    assert await watched.name() == "chained"
    assert watched.failures == []


async def test_a_folder_that_is_swapped_by_a_link_is_followed(
    tmp_path: Path, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    """Kubernetes does so: cert.pem -> ..data/cert.pem, and ..data -> a new folder."""
    OLD.write_to(tmp_path / "..1")
    (tmp_path / "..data").symlink_to("..1")
    mounted = tmp_path / "mounted"
    watched = Watched(mounted, nursery, mock_clock)
    for name in ("key.pem", "cert.pem"):
        (mounted / name).unlink()
        (mounted / name).symlink_to(Path("..", "..data", name))
    await watched.start()
    for number, issued in enumerate((NEW, NEWEST, OLD), 2):
        issued.write_to(tmp_path / f"..{number}")
        (tmp_path / "..data_tmp").symlink_to(f"..{number}")
        os.replace(tmp_path / "..data_tmp", tmp_path / "..data")
        await watched.replaced()
        names = {id(OLD): "old", id(NEW): "new", id(NEWEST): "newest"}
        assert await watched.name() == names[id(issued)]
    assert watched.failures == []


async def test_what_a_link_leads_to_may_be_written_anew(watched: Watched, mock_clock: MockClock) -> None:
    for option in ("key", "cert"):
        relink(watched.folder / f"{option}.pem", getattr(OLD, option))
    await watched.start()
    for option in ("key", "cert"):
        rewrite(watched.folder / f"{option}.pem", getattr(NEW, option))
    await watched.replaced()
    assert await watched.name() == "new"


async def test_what_changes_while_it_is_read_is_read_again(
    watched: Watched, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await watched.start()
    read = SecureContext.with_credentials
    writes = iter([NEWEST.key])

    def with_credentials(self: SecureContext, **options: Any) -> SecureContext:
        try:
            return read(self, **options)
        finally:
            for key in writes:
                rename(watched.folder / "key.pem", key)

    rename(watched.folder / "key.pem", NEW.key)
    rename(watched.folder / "cert.pem", NEW.cert)
    assert await watched.look() == SOON
    monkeypatch.setattr(SecureContext, "with_credentials", with_credentials)
    assert await watched.look() == SOON
    assert await watched.name() == "old"
    rename(watched.folder / "cert.pem", NEWEST.cert)
    assert await watched.look() == SOON
    assert await watched.look() == INTERVAL
    assert await watched.name() == "newest"
    assert watched.failures == []


async def test_what_nobody_has_changed_is_not_replaced(
    watched: Watched, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_tlsnode")
    server = await watched.start()
    context = server.secure_context
    for _ in range(3):
        assert await watched.look() == INTERVAL
    rename(watched.folder / "cert.pem", OLD.cert)
    await watched.replaced()
    assert server.secure_context is context
    assert not caplog.records


async def test_files_are_found_wherever_the_program_goes(
    watched: Watched,
    mock_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    monkeypatch.chdir(watched.folder)
    watched.files = {"key": Path("key.pem"), "cert": Path("cert.pem")}
    await watched.start()
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    NEW.write_to(watched.folder)
    await watched.replaced()
    assert await watched.name() == "new"


# What is kept


async def test_open_connections_and_sessions_go_on_and_options_stay(
    watched: Watched, mock_clock: MockClock, nursery: trio.Nursery
) -> None:
    context = SecureContext(**watched.files, max_version="TLSv1.2", session_timeout=77)
    server = await watched.start(context, alpn_protocols=["echo"])
    options: dict[str, Any] = {"alpn_protocols": ["echo"]}
    open_connection = await connect_to(server, nursery, **options)
    session = open_connection.session
    NEW.write_to(watched.folder)
    await watched.replaced()
    assert server.secure_context is not context
    assert server.secure_context.differs_in_credentials_alone(context)
    assert server.secure_context.session_timeout == 77
    assert await watched.name(**options) == "new"
    resumed = await connect_to(server, nursery, session=session, **options)
    assert resumed.info.session_reused
    for stream in (open_connection, resumed):
        async with stream:
            assert (stream.info.protocol, stream.alpn_protocol) == ("TLSv1.2", "echo")
            await stream.send_all(b"still there?")
            assert await stream.receive_some() == b"still there?"


async def test_options_are_those_of_the_default_context_at_the_time(
    watched: Watched, mock_clock: MockClock
) -> None:
    server = await watched.start()
    server.set_secure_context(SecureContext(**NEWEST.options, max_version="TLSv1.2"))
    NEW.write_to(watched.folder)
    await watched.replaced()
    assert await watched.name() == "new"
    assert not server.secure_context.allows_tls13


async def test_default_context_that_is_set_while_the_files_are_read_is_not_lost(
    watched: Watched, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await watched.start()
    older = SecureContext(**NEWEST.options, max_version="TLSv1.2")
    read = SecureContext.with_credentials
    contexts = iter([older])

    def with_credentials(self: SecureContext, **options: Any) -> SecureContext:
        for context in contexts:
            trio.from_thread.run_sync(server.set_secure_context, context)
        return read(self, **options)

    monkeypatch.setattr(SecureContext, "with_credentials", with_credentials)
    NEW.write_to(watched.folder)
    assert await watched.look() == SOON
    assert await watched.look() == SOON
    assert server.secure_context is older
    assert await watched.look() == INTERVAL
    assert await watched.name() == "new"
    assert not server.secure_context.allows_tls13


# What is wrong with files


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda folder: (folder / "key.pem").unlink(), "ENOENT"),
        (lambda folder: rename(folder / "cert.pem", OLD.key), "ERR_OSSL_PEM_NO_START_LINE"),
        (lambda folder: rename(folder / "cert.pem", os.urandom(500)), "ERR_OSSL_PEM_NO_START_LINE"),
        (lambda folder: rename(folder / "key.pem", NEW.key), "ERR_OSSL_X509_KEY_VALUES_MISMATCH"),
        (lambda folder: AUTHORITY.weak_key("localhost").write_to(folder), "ERR_SSL_EE_KEY_TOO_SMALL"),
    ],
)
async def test_bad_files_are_told_once_and_the_old_ones_stay(
    watched: Watched,
    mock_clock: MockClock,
    spoil: Callable[[Path], object],
    code: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "trio_tlsnode")
    server = await watched.start()
    context = server.secure_context
    spoil(watched.folder)
    assert await watched.look() == SOON
    for _ in range(5):
        assert await watched.look() == INTERVAL
    assert server.secure_context is context
    (error,) = watched.failures
    assert error.code == code
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage() == f"new credentials cannot be used, and the old ones stay: {error}"

    NEW.write_to(watched.folder)
    await watched.replaced()
    assert await watched.name() == "new"
    last = caplog.records[-1]
    assert last.levelname == "INFO"
    assert last.getMessage().startswith("new credentials are used: [<Certificate ")
    assert len(watched.failures) == 1


async def test_the_same_fault_is_told_again_after_it_was_mended(
    watched: Watched, mock_clock: MockClock
) -> None:
    await watched.start()
    for issued in (NEW, NEWEST):
        (watched.folder / "cert.pem").unlink()
        await watched.replaced()
        issued.write_to(watched.folder)
        await watched.replaced()
    assert [error.code for error in watched.failures] == ["ENOENT", "ENOENT"]


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: rewrite(path, NEW.key[:100])])
async def test_a_failure_does_not_keep_what_is_in_the_files(
    watched: Watched, mock_clock: MockClock, spoil: Callable[[Path], object]
) -> None:
    """Whoever keeps one, or shows it with the variables of its frames, must not have the key."""
    await watched.start()
    spoil(watched.folder / "key.pem")
    await watched.replaced()
    failure: BaseException | None
    (failure,) = watched.failures
    while failure is not None:
        assert failure.__traceback__ is None
        failure = failure.__cause__ or failure.__context__


async def test_another_fault_is_told_too(watched: Watched, mock_clock: MockClock) -> None:
    await watched.start()
    (watched.folder / "cert.pem").unlink()
    await watched.replaced()
    (watched.folder / "cert.pem").write_bytes(b"")
    await watched.replaced()
    assert [error.code for error in watched.failures] == ["ENOENT", "ERR_OSSL_PEM_NO_START_LINE"]


async def test_what_could_not_be_read_is_read_again_though_nothing_is_seen_to_change(
    watched: Watched, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await watched.start()

    def refuse(*args: object) -> None:
        raise OSError(5, "Input/output error")

    NEW.write_to(watched.folder)
    monkeypatch.setattr("trio_tlsnode.credentials.open", refuse, raising=False)
    await watched.replaced()
    assert await watched.look() == INTERVAL
    assert [error.code for error in watched.failures] == ["EIO"]
    monkeypatch.undo()
    assert await watched.look() == INTERVAL
    assert await watched.name() == "new"


async def test_what_was_refused_is_not_read_again_before_it_changes(
    watched: Watched, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To read a large key takes long."""
    await watched.start()
    rename(watched.folder / "key.pem", NEW.key)
    await watched.replaced()
    monkeypatch.delattr(SecureContext, "with_credentials")
    for _ in range(3):
        assert await watched.look() == INTERVAL


async def test_what_the_callback_raises_ends_the_task(tmp_path: Path, mock_clock: MockClock) -> None:
    def refuse(error: ConfigurationError) -> None:
        raise RuntimeError from error

    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            watched = Watched(tmp_path, nursery, mock_clock)
            await watched.start()
            await watched.watch(on_failure=refuse)
            (tmp_path / "key.pem").unlink()
            while True:
                await watched.look()
    assert caught.group_contains(RuntimeError)


WHOLE: dict[str, Any] = {**OLD.options, "crl": AUTHORITY.crl()}


@pytest.mark.parametrize("option", WHOLE)
@given(
    st.lists(
        st.tuples(st.integers(0, 2**16), st.integers(0, 3), st.binary(max_size=3)), min_size=1, max_size=3
    )
)
def test_damage_of_every_kind_is_a_configuration_error(
    option: str, damage: list[tuple[int, int, bytes]]
) -> None:
    content = bytearray(WHOLE[option])
    for position, size, instead in damage:
        start = position % (len(content) + 1)
        content[start : start + size] = instead
    options: dict[str, Any] = {**WHOLE, option: bytes(content)}
    with contextlib.suppress(ConfigurationError):
        SecureContext(**OLD.options).with_credentials(**options)


async def test_a_disk_that_does_not_answer_does_not_keep_the_task_from_ending(tmp_path: Path) -> None:
    server = TLSServer(echo, SecureContext(**OLD.options))
    pipe = tmp_path / "key.pem"
    os.mkfifo(pipe)
    (tmp_path / "cert.pem").write_bytes(OLD.cert)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(watch_credentials, server, key=pipe, cert=tmp_path / "cert.pem"))
            # The thread waits for a writer as soon as this finds a reader.
            while True:
                try:
                    writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
                except OSError:
                    await trio.lowlevel.checkpoint()
                else:
                    break
            scope.cancel()
    assert scope.cancelled_caught
    os.close(writer)


# Other files


async def test_several_certificates_are_watched_together(watched: Watched, mock_clock: MockClock) -> None:
    def write(key_type: Any, name: str, *options: str) -> None:
        issued = AUTHORITY.good("localhost", name, key_type=key_type)
        for option in options:
            rename(watched.folder / f"{key_type}-{option}.pem", getattr(issued, option))

    for key_type in ("EC", "RSA"):
        write(key_type, f"old-{key_type.lower()}", "key", "cert")
    watched.files = {
        option: [watched.folder / f"{key_type}-{option}.pem" for key_type in ("EC", "RSA")]
        for option in ("key", "cert")
    }
    await watched.start()
    write("EC", "new-ec", "key", "cert")
    await watched.replaced()
    assert await watched.name() == "new-ec"
    assert await watched.name(sigalgs="RSA-PSS+SHA256:RSA+SHA256") == "old-rsa"


async def test_pkcs12_and_its_passphrase(watched: Watched, mock_clock: MockClock) -> None:
    from test_guides import pfx_of

    pfx = watched.folder / "server.p12"
    pfx.write_bytes(pfx_of(OLD))
    watched.files = {"pfx": pfx, "passphrase": "secret"}
    await watched.start()
    rename(pfx, pfx_of(NEW))
    await watched.replaced()
    assert await watched.name() == "new"


@pytest.mark.feature("F5")
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
async def test_revocation_lists_count_for_new_connections_and_for_sessions(
    watched: Watched, mock_clock: MockClock, nursery: trio.Nursery, version: str
) -> None:
    authority = Authority()
    alice, bob = authority.client("alice"), authority.client("bob")
    crl = watched.folder / "crl.pem"
    crl.write_bytes(authority.crl())
    context = SecureContext(**OLD.options, ca=authority.ca, crl=crl, max_version=version)
    watched.files = {"crl": crl}
    server = await watched.start(context, request_cert=True)
    server.client_errors()

    async def connect(client: IssuedCertificate, **options: Any) -> tuple[bool, bytes | None]:
        async with await connect_to(server, nursery, **client.options, **options) as stream:
            await stream.send_all(b"x")
            await stream.receive_some()
            return stream.info.session_reused, stream.session

    sessions = {client: (await connect(client))[1] for client in (alice, bob)}
    assert (await connect(alice, session=sessions[alice]))[0]
    authority.revoke(bob)
    rename(crl, authority.crl())
    await watched.replaced()
    assert await watched.name(**alice.options) == "old"
    for options in ({}, {"session": sessions[bob]}):
        with pytest.raises(PeerAlert) as caught:
            await connect(bob, **options)
        assert caught.value.alert is tls.Alert.certificate_revoked
    reused, _ = await connect(alice, session=sessions[alice])
    assert not reused


async def test_trusted_certificates(watched: Watched, mock_clock: MockClock, nursery: trio.Nursery) -> None:
    authorities = Authority(), Authority()
    clients = [authority.client("client") for authority in authorities]
    ca = watched.folder / "ca.pem"
    ca.write_bytes(authorities[0].ca)
    watched.files = {"ca": ca}
    server = await watched.start(SecureContext(**OLD.options, ca=ca), request_cert=True)
    server.client_errors()
    for good, bad in (clients, clients[::-1]):
        assert await watched.name(**good.options) == "old"
        with pytest.raises(PeerAlert):
            await watched.name(**bad.options)
        rename(ca, authorities[1].ca)
        await watched.look()
        await watched.look()


# Contexts for names


async def test_context_for_names_is_replaced_wherever_it_is_and_keeps_its_place(
    watched: Watched, mock_clock: MockClock
) -> None:
    default = SecureContext(**NEWEST.options)
    server = watched.server = TLSServer(echo, default)
    added = SecureContext(**watched.files)
    special = SecureContext(**AUTHORITY.good("special.example", "special").options)
    for pattern, context in (("*.example", added), ("special.example", special), ("example", added)):
        server.add_context(pattern, context)
    for last in ("new", "newest"):
        AUTHORITY.good("a.example", "example", last).write_to(watched.folder)
        if last == "new":
            await watched.watch(context=added)
        else:
            await watched.replaced()
        expected = {"a.example": last, "example": last, "special.example": "special"}
        assert {name: await watched.name(host=name) for name in expected} == expected
    assert server.secure_context is default


async def test_context_that_the_server_does_not_use_is_refused(tmp_path: Path) -> None:
    default = SecureContext(**OLD.options)
    server = TLSServer(echo, default)
    key, cert = NEW.write_to(tmp_path)
    with pytest.raises(ConfigurationError, match="does not use") as caught:
        await watch_credentials(server, context=SecureContext(**OLD.options), key=key, cert=cert)
    assert caught.value.option == "in_place_of"
    assert server.secure_context is default


async def test_context_that_is_not_used_any_more_is_a_failure(
    watched: Watched, mock_clock: MockClock
) -> None:
    server = watched.server = TLSServer(echo, SecureContext(**NEWEST.options))
    added = SecureContext(**watched.files)
    server.add_context("old", added)
    await watched.watch(context=added)
    server.add_context("old", SecureContext(**NEWEST.options))
    NEW.write_to(watched.folder)
    await watched.replaced()
    (error,) = watched.failures
    assert error.option == "in_place_of"


# Wrong usage


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"key": OLD.key}, "key"),
        ({"cert": OLD.cert.decode()}, "cert"),
        ({"cert": [Path("cert.pem"), "cert.pem"]}, "cert"),
        ({"crl": 5}, "crl"),
        ({"interval": "10"}, "interval"),
        ({"on_failure": "print"}, "on_failure"),
    ],
)
async def test_wrong_types_are_refused_and_not_shown(
    options: dict[str, Any], option: str, tmp_path: Path
) -> None:
    server = TLSServer(echo, SecureContext(**OLD.options))
    key, cert = OLD.write_to(tmp_path)
    with pytest.raises(ConfigurationTypeError) as caught:
        await watch_credentials(server, **{"key": key, "cert": cert, **options})
    assert caught.value.option == option
    assert "BEGIN" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "option"),
    [({"key": None, "cert": None}, "cert"), ({"interval": 0}, "interval"), ({"interval": -1}, "interval")],
)
async def test_options_that_make_no_sense_are_refused(
    options: dict[str, Any], option: str, tmp_path: Path
) -> None:
    server = TLSServer(echo, SecureContext(**OLD.options))
    key, cert = OLD.write_to(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        await watch_credentials(server, **{"key": key, "cert": cert, **options})
    assert caught.value.option == option


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda folder: (folder / "key.pem").unlink(), "ENOENT"),
        (lambda folder: rename(folder / "key.pem", NEW.key), "ERR_OSSL_X509_KEY_VALUES_MISMATCH"),
    ],
)
async def test_files_that_are_wrong_from_the_beginning_are_refused(
    spoil: Callable[[Path], object], code: str, tmp_path: Path
) -> None:
    server = TLSServer(echo, SecureContext(**OLD.options))
    key, cert = OLD.write_to(tmp_path)
    spoil(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        await watch_credentials(server, key=key, cert=cert)
    assert caught.value.code == code


async def test_files_that_are_newer_than_the_server_are_used_at_once(
    watched: Watched, mock_clock: MockClock
) -> None:
    NEW.write_to(watched.folder)
    await watched.start(SecureContext(**OLD.options))
    assert await watched.name() == "new"


# with_credentials: the same context with other credentials


def test_with_credentials_changes_what_it_is_given_and_nothing_else() -> None:
    context = SecureContext(**OLD.options, ca=AUTHORITY.ca, crl=AUTHORITY.crl(), max_version="TLSv1.2")
    changed = context.with_credentials(**NEW.options)
    assert changed.certificates == SecureContext(**NEW.options).certificates
    assert changed.differs_in_credentials_alone(context)
    others: list[dict[str, Any]] = [{"ca": Authority().ca}, {"crl": None}, {"ca": []}]
    for options in others:
        changed = context.with_credentials(**options)
        assert changed.certificates == context.certificates
        assert not changed.allows_tls13
        assert not changed.differs_in_credentials_alone(context)


def test_with_credentials_returns_the_same_context_where_nothing_differs() -> None:
    context = SecureContext(**OLD.options, ca=AUTHORITY.ca)
    assert context.with_credentials(**OLD.options) is context
    assert context.with_credentials(ca=AUTHORITY.ca) is context
    assert context.with_credentials() is context
    assert context.with_credentials(passphrase="for no key") is context


def test_with_credentials_trusts_by_default_whom_a_new_context_trusts() -> None:
    context = SecureContext(ca=AUTHORITY.ca)
    assert context.with_credentials(ca=None).differs_in_credentials_alone(SecureContext())


def test_with_credentials_has_no_other_options() -> None:
    with pytest.raises(TypeError, match="with_credentials has no option chiphers"):
        SecureContext().with_credentials(chiphers="x")  # type: ignore[call-arg]  # there is no such option


# set_secure_context(in_place_of=...)


async def test_context_is_replaced_as_the_default_one_and_for_names(nursery: trio.Nursery) -> None:
    old = SecureContext(**OLD.options)
    server = TLSServer(echo, old)
    server.add_context("new", old)
    server.set_secure_context(SecureContext(**NEW.options), in_place_of=old)
    for name in ("localhost", "new"):
        async with await connect_to(server, nursery, host=name) as stream:
            assert presented(stream) == "new"


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
async def test_sessions_of_a_context_for_names_go_on(nursery: trio.Nursery, version: str) -> None:
    server = TLSServer(echo, SecureContext(**NEWEST.options))
    added = SecureContext(**OLD.options, max_version=version)
    server.add_context("*host", added)

    async def connect(**options: Any) -> tuple[bool, bytes | None]:
        async with await connect_to(server, nursery, host="localhost", **options) as stream:
            await stream.send_all(b"x")
            await stream.receive_some()
            return stream.info.session_reused, stream.session

    _, session = await connect()
    server.set_secure_context(added.with_credentials(**NEW.options), in_place_of=added)
    assert (await connect(session=session))[0]


async def test_context_that_is_not_in_use_cannot_be_replaced() -> None:
    old = SecureContext(**OLD.options)
    server = TLSServer(echo, old)
    with pytest.raises(ConfigurationError, match="does not use"):
        server.set_secure_context(old, in_place_of=SecureContext(**OLD.options))
    assert server.secure_context is old


# Under load


async def test_requests_across_reloads_are_all_answered(
    tmp_path: Path, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    clients, requests, each_connection, reloads = 10, 1000, 10, 20
    OLD.write_to(tmp_path / "old")
    NEW.write_to(tmp_path / "new")
    current = tmp_path / "current"
    current.symlink_to("old")
    key, cert = current / "key.pem", current / "cert.pem"
    # The clock is pushed on faster than any handshake.
    patience: dict[str, Any] = {"handshake_timeout": math.inf, "close_timeout": math.inf}
    server = TLSServer(echo, SecureContext(key=key, cert=cert), **patience)
    listener = MemoryListener()
    await nursery.start(server.serve_listeners, [listener])
    await nursery.start(partial(watch_credentials, server, key=key, cert=cert, interval=1))
    context = SecureContext(ca=AUTHORITY.ca)
    asked = answered = reloaded = 0

    async def connect() -> TLSStream:
        return await wrap_client(await listener.connect(), context=context, **patience)

    async def ask() -> None:
        nonlocal asked, answered
        while answered < requests or reloaded < reloads:
            async with await connect() as stream:
                for _ in range(each_connection):
                    asked += 1
                    said = b"request %d" % asked
                    await stream.send_all(said)
                    assert await stream.receive_some() == said
                    answered += 1

    async def replace() -> None:
        nonlocal reloaded
        for name in ("new", "old") * (reloads // 2):
            before = server.secure_context
            (tmp_path / "link").symlink_to(name)
            os.replace(tmp_path / "link", current)
            while server.secure_context is before:
                mock_clock.jump(1)
                for _ in range(20):
                    await trio.lowlevel.checkpoint()
            reloaded += 1
            async with await connect() as stream:
                assert presented(stream) == name

    async with trio.open_nursery() as load:
        load.start_soon(replace)
        for _ in range(clients):
            load.start_soon(ask)
    assert answered == asked >= requests
    statistics = server.statistics()
    assert statistics.accepted == statistics.secure > reloads
    assert statistics.failed == {}
