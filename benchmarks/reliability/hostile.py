"""Hostile peers, made from bytes: each input is the whole life of one connection, and is judged.

A target takes any bytes.  It raises if what they describe breaks a promise: the victim fails of typed errors
only, ends in time, keeps little in memory whatever it is sent, tells of one failure at most, and leaves
nothing behind.
"""

from __future__ import annotations

import contextlib
import functools
import json
import pickle
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import trio
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto
from trio.testing import MockClock, memory_stream_pair

import trio_tlsnode as tls
from trio_tlsnode._openssl import error_queue
from trio_tlsnode._openssl.callbacks import connections
from trio_tlsnode._openssl.library import ffi, lib
from trio_tlsnode.der import OCTET_STRING, elements, encoded
from trio_tlsnode.testing import TransportWrapper, default_authority

from .records import CIPHERS, Content, Keys, Keys12, Keys13, Resealer, prf

# What a victim may hold of what it was sent and has to send.
MOST_HELD: Final = 1 << 20
# Longer than all time-outs of a victim together; on a clock that takes no time.
_PATIENCE: Final = 1000.0
_TIMEOUTS: Final[Any] = {
    "handshake_timeout": 10,
    "idle_timeout": 10,
    "send_timeout": 10,
    "close_timeout": 5,
}
_QUESTION: Final = bytes(range(256))
_LARGE: Final = bytes(40_000)
_PSK: Final = tls.PreSharedKey("Client_identity", bytes(range(32)))
_MOST_EDITS: Final = 12
_FLOOD: Final = 300
# A certificate or an OCSP response has fewer.
_MOST_ELEMENTS: Final = 128
_CONSTRUCTED: Final = 0x20


class BrokenPromiseError(AssertionError):
    """A promise was broken."""


# The victims


async def echo(stream: tls.TLSStream) -> None:
    """The handler of README.md, which catches nothing."""
    async for data in stream:
        await stream.send_all(data)


class WatchedServer(tls.TLSServer):
    """A server that shows its streams to the test of them."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.streams: list[weakref.ref[tls.TLSStream]] = []

    async def _contain(self, stream: tls.TLSStream) -> None:
        self.streams.append(weakref.ref(stream))
        await super()._contain(stream)


class Bounded(TransportWrapper):
    """A victim's transport, which looks at how much the victim holds whenever it is used."""

    def __init__(self, transport: trio.abc.Stream, whose: Callable[[], tls.TLSStream | None]) -> None:
        super().__init__(transport)
        self._whose = whose

    async def _receive(self, max_bytes: int) -> bytes:
        self._look()
        return await super()._receive(max_bytes)

    async def _send(self, data: bytes) -> None:
        self._look()
        await super()._send(data)

    def _look(self) -> None:
        stream = self._whose()
        if stream is not None and (size := held_by(stream)) > MOST_HELD:
            raise BrokenPromiseError(f"a victim holds {size} bytes")


def held_by(stream: tls.TLSStream) -> int:
    """Return how many bytes a stream keeps of what its peer has sent or is to get."""
    engine = stream._engine
    sizes = [len(stream._unsent), len(engine.early), len(engine._held), len(engine._backlog)]
    sizes += [len(engine.flight or b""), len(engine.early_data)]
    if engine._reader is not None:
        sizes.append(len(engine._reader.received))
    if engine._ssl is not None:
        sizes += [lib.BIO_get_mem_data(bio, ffi.new("char **")) for bio in (engine._rbio, engine._wbio)]
    return sum(sizes)


def examine(error: BaseException) -> None:
    """See that an error is of the tree, and that everything that a supervisor may do with it works."""
    if not isinstance(error, tls.ConnectionFailed):
        raise BrokenPromiseError(f"{type(error).__name__} where there are typed errors only") from error
    text = str(error)
    if not text.isprintable() or error.code not in text:
        raise BrokenPromiseError(f"not one line of a log: {text!r}")
    repr(error)
    error._repr_html_()
    json.dumps(error.to_dict())
    if error.phase is None or error.side not in {"peer", "local", "network"}:
        raise BrokenPromiseError(f"{error!r} has no place: {error.phase}, {error.side}")
    if str(pickle.loads(pickle.dumps(error))) != text:
        raise BrokenPromiseError(f"{error!r} is another one elsewhere")
    if isinstance(error, tls.CallbackError):
        raise BrokenPromiseError(f"{error.callback} has raised over what a peer has sent") from error
    if error.stream is not None:
        _read_trace(error.stream)
    if error.client_hello is not None:
        error.client_hello._repr_html_()
        _read_all(error.client_hello)
    if isinstance(error, tls.CertificateError):
        for problem in error.problems:
            str(problem)
            if problem.certificate is not None:
                _read_certificate(problem.certificate)


def _read_all(value: object) -> None:
    """Read every property that a value has."""
    for name in dir(type(value)):
        if not name.startswith("_") and isinstance(getattr(type(value), name), property):
            getattr(value, name)


def _read_certificate(certificate: tls.Certificate) -> None:
    """Read all there is of a certificate, which may be damaged: then a typed error says so."""
    repr(certificate)
    certificate._repr_html_()
    for name in dir(tls.Certificate):
        if isinstance(getattr(tls.Certificate, name), property):
            with contextlib.suppress(tls.CertificateError):
                getattr(certificate, name)
    with contextlib.suppress(tls.CertificateError):
        certificate.as_node_dict()


def _read_trace(stream: tls.TLSStream) -> None:
    """Show what was told of a connection, if it was traced."""
    trace = stream.trace
    if trace is not None:
        if not str(trace).replace("\n", "").isprintable():
            raise BrokenPromiseError("a trace is no text")
        trace._repr_html_()
        json.dumps(trace.to_dict())


def read_info(stream: tls.TLSStream) -> None:
    """Read what was negotiated."""
    info = stream.info
    info._repr_html_()
    json.dumps(info.to_dict())
    for certificate in info.peer_certificate_chain:
        _read_certificate(certificate)
    if info.authorization_error is not None:
        str(info.authorization_error)
        info.authorization_error._repr_html_()


Attack = Callable[[trio.abc.Stream], Awaitable[None]]


async def attack_server(server: WatchedServer, attack: Attack) -> None:
    """Let a hostile client loose on a server; judge."""

    def newest() -> tls.TLSStream | None:
        return server.streams[-1]() if server.streams else None

    client_end, server_end = memory_stream_pair()
    with trio.fail_after(_PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.handle, Bounded(server_end, newest))
            nursery.start_soon(attack, client_end)
    statistics = server.statistics()
    if statistics.open or statistics.handshaking or statistics.waiting:
        raise BrokenPromiseError(f"a connection is still there: {statistics}")
    failures = sum(statistics.failed.values())
    if failures > 1:
        raise BrokenPromiseError(f"one connection has failed {failures} times")
    if failures:
        for error in (await anext(server.client_errors())).exceptions:
            examine(error)


async def attack_client(attack: Attack, context: tls.SecureContext, **options: Any) -> None:
    """Let a hostile server loose on a client; judge."""
    streams: list[weakref.ref[tls.TLSStream]] = []

    def newest() -> tls.TLSStream | None:
        return streams[-1]() if streams else None

    client_end, server_end = memory_stream_pair()
    with trio.fail_after(_PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attack, server_end)
            stream = tls.TLSStream(Bounded(client_end, newest), context, **_TIMEOUTS, **options)
            streams.append(weakref.ref(stream))
            try:
                await stream.do_handshake()
                read_info(stream)
                await stream.send_all(_QUESTION)
                received = 0
                while received < MOST_HELD and (data := await stream.receive_some()):
                    received += len(data)
            except Exception as error:  # noqa: BLE001 - which ones there may be is judged
                examine(error)
            finally:
                await stream.aclose()


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run a target on a clock that takes no time."""
    trio.run(main, clock=MockClock(autojump_threshold=0))


# Contexts, made once


@functools.cache
def _ca() -> bytes:
    return default_authority().ca


@functools.cache
def _client_context(version: str) -> tls.SecureContext:
    return tls.SecureContext(
        ca=_ca(),
        **default_authority().client("mallory").options,
        ciphers=CIPHERS,
        min_version=version,
        max_version=version,
    )


@functools.cache
def _server_context(version: str | None = None) -> tls.SecureContext:
    versions: Any = {} if version is None else {"min_version": version, "max_version": version}
    versions |= {} if version is None else {"ciphers": CIPHERS}
    return tls.SecureContext(ca=_ca(), **default_authority().good("localhost").options, **versions)


@functools.cache
def _other_contexts() -> tuple[tls.SecureContext, tls.SecureContext]:
    authority = default_authority()
    return (
        tls.SecureContext(**authority.good("a.example").options),
        tls.SecureContext(**authority.good("b.example", key_type="RSA").options),
    )


def _find_key(_stream: tls.TLSStream, identity: str) -> tls.PreSharedKey | None:
    return _PSK if identity == _PSK.identity else None


def _many_sided_server() -> WatchedServer:
    """Return a server that looks at everything that a ClientHello may say."""
    server = WatchedServer(
        echo,
        _server_context(),
        alpn_protocols=["h2", "http/1.1"],
        request_cert=True,
        reject_unauthorized=False,
        resume=lambda choice: bool(choice.hello.ja4),
        ocsp_callback=lambda _certificate, _issuer: None,
        psk=_find_key,
        psk_identity_hint="hint",
        ticket_rotation=100,
        max_early_data=1000,
        trace=tls.HandshakeTrace,
        **_TIMEOUTS,
    )
    first, second = _other_contexts()
    server.add_context("*.example", first)
    server.add_context("b.example", second)
    return server


# Target: a first flight


def hello(data: bytes) -> None:
    """A client's first flight: how it is cut, whether it ends, and the bytes."""
    how, flight = data[:1] or b"\0", data[1:]
    server = _many_sided_server()
    run(functools.partial(attack_server, server, functools.partial(_say, flight, how[0])))
    if server.statistics().secure:
        raise BrokenPromiseError("a connection is secure without a second flight")


def flight(data: bytes) -> None:
    """A server's first flight: how it is cut, whether it ends, and the bytes."""
    how, said = data[:1] or b"\0", data[1:]
    context = tls.SecureContext(ca=_ca()) if how[0] & 0x20 else _client_context("TLSv1.2")
    run(
        functools.partial(
            attack_client,
            functools.partial(_say, said, how[0]),
            context,
            host="localhost",
            request_ocsp=True,
            trace=tls.HandshakeTrace,
        )
    )


async def _say(data: bytes, how: int, transport: trio.abc.Stream) -> None:
    """Send some bytes whole or in pieces; then read to the end, or say that this is all."""
    size = (len(data) or 1, 1, 7, 300)[how & 3]
    # Each piece is a turn of the loop; a large number of them tells nothing new.
    size = max(size, len(data) // 500)
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        for start in range(0, len(data), size):
            await transport.send_all(data[start : start + size])
            await trio.lowlevel.checkpoint()
        if how & 4:
            await _send_eof(transport)
        while await transport.receive_some():
            pass
    await transport.aclose()


async def _send_eof(transport: trio.abc.Stream) -> None:
    if isinstance(transport, trio.StapledStream):
        await transport.send_stream.aclose()


# Target: a conversation, edited inside its encryption


class _Bytes:
    """Takes numbers and pieces off the front of bytes; zeros when they are at an end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        piece = self._data[self._at : self._at + size]
        self._at += size
        return piece.ljust(size, b"\0")

    def number(self, size: int = 1) -> int:
        return int.from_bytes(self.take(size))


def _fixed(data: bytes) -> bytes:
    """Return a handshake message whose length is right again."""
    return data[:1] + max(len(data) - 4, 0).to_bytes(3) + data[4:] if len(data) >= 4 else data


class Edits:
    """What becomes of each record, as bytes say.

    Args:
        source: An edit takes five bytes and its payload: record number, what to do, where (two bytes), and
            how long the payload is.
    """

    def __init__(self, source: _Bytes) -> None:
        self._edits: dict[int, list[tuple[int, int, bytes]]] = {}
        for _ in range(_MOST_EDITS):
            if not source.left:
                break
            number, verb, at, size = source.number(), source.number(), source.number(2), source.number()
            self._edits.setdefault(number, []).append((verb, at, source.take(size)))

    def __call__(self, number: int, content: Content) -> list[Content | bytes]:
        """Return what is sent in a record's place."""
        parts: list[Content | bytes] = [content]
        for verb, at, payload in self._edits.get(number, ()):
            parts = _edited(parts, verb % len(_VERBS), at, payload)
        return parts


def _flip(kind: int, data: bytes, at: int, payload: bytes) -> list[Content | bytes]:
    if not data:
        return [(kind, data)]
    at %= len(data)
    return [(kind, data[:at] + bytes((data[at] ^ (payload[:1] or b"\1")[0],)) + data[at + 1 :])]


def _cut(kind: int, data: bytes, at: int, _payload: bytes) -> list[Content | bytes]:
    return [(kind, data[: at % (len(data) + 1)])]


def _insert(kind: int, data: bytes, at: int, payload: bytes) -> list[Content | bytes]:
    at %= len(data) + 1
    return [(kind, data[:at] + payload + data[at:])]


def _insert_and_fix(kind: int, data: bytes, at: int, payload: bytes) -> list[Content | bytes]:
    at %= len(data) + 1
    return [(kind, _fixed(data[:at] + payload + data[at:]))]


def _remove_and_fix(kind: int, data: bytes, at: int, payload: bytes) -> list[Content | bytes]:
    at %= len(data) + 1
    return [(kind, _fixed(data[:at] + data[at + max(len(payload), 1) :]))]


def _overwrite(kind: int, data: bytes, at: int, payload: bytes) -> list[Content | bytes]:
    at %= len(data) + 1
    return [(kind, (data[:at] + payload + data[at + len(payload) :])[: max(len(data), 1)])]


def _drop(_kind: int, _data: bytes, _at: int, _payload: bytes) -> list[Content | bytes]:
    return []


def _repeat(kind: int, data: bytes, _at: int, _payload: bytes) -> list[Content | bytes]:
    return [(kind, data), (kind, data)]


def _retype(_kind: int, data: bytes, _at: int, payload: bytes) -> list[Content | bytes]:
    return [((payload[:1] or b"\x17")[0], data)]


def _split(kind: int, data: bytes, at: int, _payload: bytes) -> list[Content | bytes]:
    at %= len(data) + 1
    return [(kind, data[:at]), (kind, data[at:])]


def _forge_before(kind: int, data: bytes, _at: int, payload: bytes) -> list[Content | bytes]:
    return [((payload[:1] or b"\x15")[0], payload[1:]), (kind, data)]


def _forge_behind(kind: int, data: bytes, _at: int, payload: bytes) -> list[Content | bytes]:
    return [(kind, data), ((payload[:1] or b"\x15")[0], payload[1:])]


def _flood(kind: int, data: bytes, at: int, payload: bytes) -> list[Content | bytes]:
    forged = ((payload[:1] or b"\x17")[0], payload[1:])
    return [(kind, data), *([forged] * (at % _FLOOD))]


def _raw(kind: int, data: bytes, _at: int, payload: bytes) -> list[Content | bytes]:
    return [payload, (kind, data)]


def _element(kind: int, data: bytes, at: int, payload: bytes) -> list[Content | bytes]:
    """Exchange one element of something in DER: its content, or its tag where there is one byte alone."""
    with contextlib.suppress(ValueError, IndexError):
        data, _ = _with_element(data, at % _MOST_ELEMENTS, payload)
    return [(kind, data)]


def _with_element(data: bytes, left: int, payload: bytes) -> tuple[bytes, int]:
    """Return DER in which an element is another one, and how many more there would have to be."""
    result = b""
    for tag, content in elements(data):
        if left == 0:
            tag, content = (payload[0], content) if len(payload) == 1 else (tag, payload)
        left -= 1
        if left >= 0 and (tag & _CONSTRUCTED or tag == OCTET_STRING):
            with contextlib.suppress(ValueError, IndexError):
                content, left = _with_element(content, left, payload)
        result += encoded(tag, content)
    return result, left


_VERBS: Final = (
    *(_flip, _cut, _insert, _insert_and_fix, _remove_and_fix, _overwrite, _drop, _repeat, _retype, _split),
    *(_forge_before, _forge_behind, _flood, _raw, _element),
)


def _edited(parts: Sequence[Content | bytes], verb: int, at: int, payload: bytes) -> list[Content | bytes]:
    """Apply an edit to the first of some records."""
    if not parts or isinstance(parts[0], bytes):
        return list(parts)
    kind, data = parts[0]
    return [*_VERBS[verb](kind, data, at, payload), *parts[1:]]


class Secrets:
    """A key log that is read at once, to follow one side's keys."""

    def __init__(self) -> None:
        self._secrets: dict[str, bytes] = {}
        self.engine: tls.Engine | None = None

    def __call__(self, line: str, _stream: object) -> None:
        label, _random, secret = line.split()
        self._secrets[label] = bytes.fromhex(secret)

    def keys(self) -> list[Keys]:
        """Return the keys that the engine sends with, or may have changed to."""
        assert self.engine is not None
        side = "SERVER" if self.engine.server_side else "CLIENT"
        labels = (f"{side}_HANDSHAKE_TRAFFIC_SECRET", f"{side}_TRAFFIC_SECRET_0")
        keys: list[Keys] = [Keys13(self._secrets[label]) for label in labels if label in self._secrets]
        master = self._secrets.get("CLIENT_RANDOM")
        if master is not None and self.engine.ssl is not None:
            keys.append(self._keys_of(master, self.engine))
        return keys

    @staticmethod
    def _keys_of(master: bytes, engine: tls.Engine) -> Keys12:
        randoms = b""
        for read in (lib.SSL_get_server_random, lib.SSL_get_client_random):
            out = ffi.new("unsigned char[]", 32)
            read(engine.ssl, out, 32)
            randoms += bytes(ffi.buffer(out, 32))
        block = prf(master, b"key expansion", randoms, 2 * 16 + 2 * 4)
        if engine.server_side:
            return Keys12(block[16:32], block[36:40])
        return Keys12(block[:16], block[32:36])


class Hostile:
    """A peer that speaks TLS by an engine, and whose records are edited.

    Args:
        engine: The engine.
        secrets: Its key log.
        script: What it does once its handshake is done.
        how: How its output is cut, and how it ends.
        edits: What becomes of its records.
    """

    def __init__(self, engine: tls.Engine, secrets: Secrets, script: bytes, how: int, edits: Edits) -> None:
        self._engine = engine
        secrets.engine = engine
        self._reseal = Resealer(secrets.keys, edits)
        self._script = script
        self._how = how

    async def __call__(self, transport: trio.abc.Stream) -> None:
        """Have a conversation."""
        try:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                try:
                    await self._converse(transport)
                except tls.TLSError:
                    await self._flush(transport)
                if self._how & 4:
                    await _send_eof(transport)
                while await transport.receive_some():
                    pass
        finally:
            self._engine.release()
            await transport.aclose()

    async def _converse(self, transport: trio.abc.Stream) -> None:
        engine = self._engine
        while engine.info is None:
            done = engine.do_handshake()
            await self._flush(transport)
            if done is tls.Want.READ:
                engine.feed(await transport.receive_some())
        for action in self._script:
            match action % 8:
                case 0 | 1:
                    engine.write(_QUESTION)
                case 2:
                    engine.write(_LARGE)
                case 3:
                    with contextlib.suppress(tls.ConfigurationError):
                        engine.renegotiate()
                case 4:
                    engine.shutdown()
                case 5:
                    with contextlib.suppress(tls.ConfigurationError):
                        engine.request_client_certificate(reject_unauthorized=False)
                case _:
                    engine.feed(await transport.receive_some())
                    while engine.read() not in (tls.Want.READ, b""):
                        pass
            await self._flush(transport)

    async def _flush(self, transport: trio.abc.Stream) -> None:
        output = b""
        while piece := self._engine.drain():
            output += self._reseal(piece)
        size = (len(output) or 1, 5, 64, 1000)[self._how & 3]
        size = max(size, len(output) // 200)
        for start in range(0, len(output), size):
            await transport.send_all(output[start : start + size])
            await trio.lowlevel.checkpoint()


def _conversation(data: bytes, *, server_side: bool) -> tuple[int, Hostile]:
    source = _Bytes(data)
    flags, how, script = source.number(), source.number(), source.take(3)
    version = "TLSv1.2" if flags & 1 else "TLSv1.3"
    secrets = Secrets()
    options: Any = {}
    if server_side:
        context = _server_context(version)
        options = {"request_cert": bool(flags & 2), "reject_unauthorized": False}
    else:
        context = _client_context(version)
        options = {"host": "localhost", "alpn_protocols": ["h2"], "post_handshake_auth": True}
    engine = tls.Engine(context, server_side=server_side, keylog=secrets, **options)
    return flags, Hostile(engine, secrets, script, how, Edits(source))


def talk_to_server(data: bytes) -> None:
    """A client's whole conversation with a server, edited inside its encryption."""
    flags, hostile = _conversation(data, server_side=False)
    server = WatchedServer(
        echo,
        _server_context(),
        alpn_protocols=["h2"],
        request_cert=bool(flags & 2),
        reject_unauthorized=bool(flags & 4),
        trace=tls.HandshakeTrace if flags & 8 else None,
        **_TIMEOUTS,
    )
    run(functools.partial(attack_server, server, hostile))


def talk_to_client(data: bytes) -> None:
    """A server's whole conversation with a client, edited inside its encryption."""
    flags, hostile = _conversation(data, server_side=True)
    context = _client_context("TLSv1.2" if flags & 1 else "TLSv1.3")
    run(
        functools.partial(
            attack_client,
            hostile,
            context,
            host="localhost",
            reject_unauthorized=bool(flags & 4),
            ocsp="verify" if flags & 8 else None,
            on_session=len if flags & 16 else None,
            confirm=bool(flags & 32),
            trace=tls.HandshakeTrace if flags & 64 else None,
            post_handshake_auth=True,
        )
    )


# Target: a certificate


@functools.cache
def certificates() -> tuple[tuple[str, bytes, bytes], ...]:
    """Return certificates to begin with: a name, the DER, and the key in PEM."""
    authority = default_authority()
    issued = {
        "good": authority.good("localhost", "127.0.0.1", "*.example.com"),
        "good_by_intermediate": authority.good("localhost", intermediates=1, ocsp_url="http://localhost/"),
        "client": authority.client("mallory", "mallory@example.com"),
        "wrong_purpose": authority.wrong_purpose("localhost"),
        "must_staple": authority.must_staple("localhost"),
        "self_signed": authority.self_signed("localhost"),
        "unknown_critical_extension": authority.unknown_critical_extension("localhost"),
    }
    return tuple(
        (name, crypto.dump_certificate(crypto.FILETYPE_ASN1, _x509(leaf.cert)), leaf.key)
        for name, leaf in issued.items()
    )


def _x509(pem: bytes) -> crypto.X509:
    return crypto.load_certificate(crypto.FILETYPE_PEM, pem)


def certificate(data: bytes) -> None:
    """A certificate that is damaged, but not so much that OpenSSL would not present it: its own key is in it.

    The bytes: who presents it, which certificate it was, and edits as those of records.
    """
    source = _Bytes(data)
    flags, which = source.number(), source.number()
    _, der, key = certificates()[which % len(certificates())]
    edits = Edits(source)
    parts = edits(0, (0, der))
    damaged = b"".join([part[1] for part in parts if not isinstance(part, bytes)])
    try:
        x509 = crypto.load_certificate(crypto.FILETYPE_ASN1, damaged)
        context = SSL.Context(SSL.TLS_METHOD)
        # pyOpenSSL itself takes only what cryptography can read.
        if lib.SSL_CTX_use_certificate(context._context, x509._x509) != 1:
            error_queue.drain()
            return
        private_key = load_pem_private_key(key, None)
        assert isinstance(private_key, EllipticCurvePrivateKey)
        context.use_privatekey(private_key)
    except (crypto.Error, SSL.Error, ValueError):
        return
    if flags & 1:
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
    peer = SSL.Connection(context, None)
    reject = bool(flags & 2)
    attack = functools.partial(_present, peer)
    if flags & 4:
        peer.set_accept_state()
        run(
            functools.partial(
                attack_client,
                attack,
                tls.SecureContext(ca=[_ca(), damaged])
                if flags & 8 and _is_readable(damaged)
                else _trusting(),
                host="localhost",
                reject_unauthorized=reject,
            )
        )
    else:
        peer.set_connect_state()
        server = WatchedServer(
            _inform, _server_context(), request_cert=True, reject_unauthorized=reject, **_TIMEOUTS
        )
        run(functools.partial(attack_server, server, attack))


@functools.cache
def _trusting() -> tls.SecureContext:
    return tls.SecureContext(ca=_ca())


def _is_readable(der: bytes) -> bool:
    try:
        tls.SecureContext(ca=[der])
    except tls.ConfigurationError:
        return False
    return True


async def _inform(stream: tls.TLSStream) -> None:
    read_info(stream)
    await echo(stream)


async def _present(peer: SSL.Connection, transport: trio.abc.Stream) -> None:
    """Do a handshake by pyOpenSSL, which asks nobody."""
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError, SSL.ZeroReturnError):
        step: Callable[[], object] = peer.do_handshake
        while True:
            try:
                step()
                step = functools.partial(peer.recv, 1000)
            except SSL.WantReadError:
                pass
            except SSL.Error:
                break
            with contextlib.suppress(SSL.WantReadError):
                await transport.send_all(peer.bio_read(1 << 17))
            if step != peer.do_handshake:
                break
            data = await transport.receive_some()
            if not data:
                break
            peer.bio_write(data)
        with contextlib.suppress(SSL.WantReadError):
            await transport.send_all(peer.bio_read(1 << 17))
        await _send_eof(transport)
        while await transport.receive_some():
            pass
    await transport.aclose()


# Target: a stapled OCSP response


@functools.cache
def _staples() -> tuple[bytes, ...]:
    authority = default_authority()
    leaf = _stapling()
    return (authority.ocsp_response(leaf), authority.ocsp_response(leaf, status="revoked"))


@functools.cache
def _stapling() -> Any:
    return default_authority().good("localhost")


def staple(data: bytes) -> None:
    """A stapled OCSP response, edited."""
    source = _Bytes(data)
    flags = source.number()
    parts = Edits(source)(0, (0, _staples()[flags & 1]))
    response = b"".join([part[1] for part in parts if not isinstance(part, bytes)])
    engine = tls.Engine(_stapling_context(), server_side=True)
    run(
        functools.partial(
            attack_client,
            functools.partial(_staple, engine, response),
            _trusting(),
            host="localhost",
            ocsp="require" if flags & 2 else "verify",
            reject_unauthorized=bool(flags & 4),
        )
    )


@functools.cache
def _stapling_context() -> tls.SecureContext:
    return tls.SecureContext(**_stapling().options)


async def _staple(engine: tls.Engine, response: bytes, transport: trio.abc.Stream) -> None:
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError, tls.TLSError):
        while isinstance(engine.read_client_hello(), tls.Want):
            engine.feed(await transport.receive_some())
        engine.choose(engine.context, ocsp_staple=response)
        while engine.do_handshake() is tls.Want.READ:
            await transport.send_all(engine.drain())
            engine.feed(await transport.receive_some())
        await transport.send_all(engine.drain())
        await _send_eof(transport)
        while await transport.receive_some():
            pass
    engine.release()
    await transport.aclose()


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    target.__name__: target for target in (hello, flight, talk_to_server, talk_to_client, certificate, staple)
}
"""What is fuzzed, by name."""


def judge(target: str, data: bytes) -> None:
    """Do what bytes say, and see that nothing is left of it.

    Raises:
        BrokenPromiseError: a promise was broken; any other exception is a defect too.
    """
    before = len(connections)
    TARGETS[target](data)
    if len(connections) != before:
        raise BrokenPromiseError(f"{len(connections) - before} connections are left")
