"""Scenarios: what happens between a client and a server, as data, and what happens when both are ours.

``node/differential.js`` does the same with Node's tls.  A scenario says it in Node's words, which are
translated here; what comes out is what happened to each side, in its order, in Node's words again.
"""

from __future__ import annotations

import base64
import functools
import json
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import trio
from parties import crl, party

import trio_tlsnode as tls
from trio_tlsnode import TLSStream
from trio_tlsnode.context import ContextOptions
from trio_tlsnode.dh import DHGroup
from trio_tlsnode.testing import default_authority

PATIENCE = 20.0
TABLE = json.loads((Path(__file__).parents[1] / "data" / "node" / "differential.json").read_text("utf-8"))
_SCRIPT = Path(__file__).parent / "node" / "differential.js"

Outcome = dict[str, Any]


class Scenario(NamedTuple):
    """What happens between a client and a server.

    Attributes:
        name: Its area and what it is about.
        server: The server's options, in Node's words; None where nobody listens.
        client: The client's options, in Node's words.
        talk: What each side does once it is secure.
        times: How many connections there are; each later one offers the session of the one before it.
        look: What is of interest beside what always is.
    """

    name: str
    server: dict[str, Any] | None
    client: dict[str, Any]
    talk: dict[str, Any]
    times: int
    look: list[str]


def _scenarios() -> Iterator[Scenario]:
    for area, rows in TABLE["scenarios"].items():
        for name, row in rows.items():
            yield Scenario(
                name=f"{area}: {name}",
                server=_side("server", row),
                client=_side("client", row) or {},
                talk=TABLE["talks"][row.get("talk", "greeting")],
                times=row.get("times", 1),
                look=row.get("look", []),
            )


def _side(side: str, row: dict[str, Any]) -> dict[str, Any] | None:
    """Return the options of one side: those of all scenarios, but for what this one has otherwise."""
    own = row.get(side, {})
    if own is None or "raw" in own:
        return own
    return {name: value for name, value in {**TABLE[side], **own}.items() if value != "unset"}


SCENARIOS = {scenario.name: scenario for scenario in _scenarios()}


# Keys, certificates and other contents by their names

_PARTIES = [*("ca1", "ca2", "ca3", "ca5", "agent1", "agent2", "agent3", "agent4", "agent5", "agent6")]
_PARTIES += ["agent10", "ec10", "ec", "rsa_cert"]


@functools.cache
def shown() -> dict[str, dict[str, Any]]:
    """Return what the option "show" stands for; as an object, a key of RSA takes less time."""
    issued = {"expired": default_authority().expired, "early": default_authority().not_yet_valid}
    ours = {name: {**issue("localhost").options} for name, issue in issued.items()}
    return {name: party(name).options for name in _PARTIES} | ours


@functools.cache
def contents() -> dict[str, bytes]:
    """Return all contents that scenarios name."""
    found = {"authority": default_authority().ca}
    for name, options in shown().items():
        found |= {f"{name}.key": options["key"], f"{name}.cert": options["cert"]}
    for name in _PARTIES:
        found |= {name: party(name).single, f"{name}.key": party(name).key_pem}
    return found | {
        "agent1.pfx": party("agent1").pfx(b"sample", "ca1"),
        "crl of agent3": crl("ca2", "agent3"),
        "crl of agent4": crl("ca2", "agent4"),
        "dh2048": DHGroup.ffdhe(2048).pem(),
        "junk dh": b"-----BEGIN DH PARAMETERS-----\nAAAA\n-----END DH PARAMETERS-----\n",
        "junk cert": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "junk": b"junk",
    }


def run_node(node: str) -> dict[str, Outcome]:
    """Return what comes out of each scenario when both sides are Node's."""
    told = {
        "scenarios": [scenario._asdict() for scenario in SCENARIOS.values()],
        "contents": {name: base64.b64encode(content).decode() for name, content in contents().items()},
    }
    done = subprocess.run(
        [node, _SCRIPT], input=json.dumps(told), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(SCENARIOS, json.loads(done.stdout), strict=True))


# In our words

_NAMES = {"ALPNProtocols": "alpn_protocols", "ALPNCallback": "alpn_callback", "SNICallback": "sni_callback"}
_NAMES |= {"minDHSize": "min_dh_size", "servername": "server_name", "pskCallback": "psk"}
_MILLISECONDS = {"handshakeTimeout"}


def _resolved(value: Any) -> Any:
    if isinstance(value, str):
        return contents()[value[1:]] if value.startswith("$") else value
    if isinstance(value, list):
        return [_resolved(each) for each in value]
    if isinstance(value, dict):
        return {name: _resolved(each) for name, each in value.items()}
    return value


def _options(given: dict[str, Any], *, server_side: bool = True) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in given.items():
        if name == "show":
            made |= shown()[value]
        elif name == "trust":
            made["ca"] = [contents()[each] for each in value]
        elif name in _CALLBACKS and isinstance(value, dict):
            made[_NAMES.get(name, "check_server_identity")] = _CALLBACKS[name](value, server_side)
        elif name not in ("contexts", "allowHalfOpen"):
            ours = _NAMES.get(name) or re.sub("[A-Z]+", lambda found: f"_{found[0].lower()}", name)
            made[ours] = _resolved(value)
            if name in _MILLISECONDS and isinstance(value, int):
                made[ours] = value / 1000
    return made


def _from_table(table: dict[str, Any]) -> Any:
    if "raises" in table:
        raise RuntimeError(table["raises"])
    return table.get("returns")


def _sni_callback(table: dict[str, Any], _server_side: bool) -> Callable[[str], Any]:
    def choose(name: str) -> Any:
        found = table.get(name)
        if found == "raises":
            raise LookupError("no such host")
        if found == "no context":
            return {}
        return tls.SecureContext(**_options(found)) if found else None

    return choose


def _alpn_callback(table: dict[str, Any], _server_side: bool) -> Callable[[tls.Choice], Any]:
    return lambda _choice: _from_table(table)


def _identity_check(table: dict[str, Any], _server_side: bool) -> Callable[[str, Any], Any]:
    return lambda _name, _certificate: (
        ValueError(table["refuses"]) if "refuses" in table else _from_table(table)
    )


def _psk(table: dict[str, Any], server_side: bool) -> Callable[..., Any]:
    if not server_side:
        key = tls.PreSharedKey(table["identity"], bytes.fromhex(table["key"])) if "key" in table else None
        return lambda _hint: _from_table(table) or key

    def find(_stream: TLSStream, identity: str) -> bytes | None:
        _from_table(table)
        return bytes.fromhex(table[identity]) if identity in table else None

    return find


_CALLBACKS: dict[str, Callable[[dict[str, Any], bool], Any]] = {
    "SNICallback": _sni_callback,
    "ALPNCallback": _alpn_callback,
    "checkServerIdentity": _identity_check,
    "pskCallback": _psk,
}

# What is known of a connection


def _certificates(stream: TLSStream) -> Any:
    certificate = stream.info.peer_certificate
    if certificate is None:
        return None
    chain: list[dict[str, Any]] = []
    node: dict[str, Any] | None = certificate.as_node_dict(detailed=True)
    while node is not None and all(node["raw"] != each["raw"] for each in chain):
        chain.append(node)
        node = node.get("issuerCertificate")
    return [
        {
            name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
            for name, value in each.items()
            if name != "issuerCertificate" and value is not None
        }
        for each in chain
    ]


def _fragments(stream: TLSStream) -> list[bool]:
    for size in (512, 16384):
        stream.set_max_send_fragment(size)
    return [True, True]


def _ephemeral(stream: TLSStream) -> dict[str, Any] | None:
    key = stream.info.ephemeral_key
    return None if key is None else {"type": key.type, "name": key.name, "size": key.size}


def _common_name(certificate: tls.Certificate | None) -> Any:
    return None if certificate is None else certificate.subject.get("CN")


_LOOKS: dict[str, Callable[[TLSStream], Any]] = {
    "protocol": lambda stream: stream.info.protocol,
    "cipher": lambda stream: stream.info.cipher.standard_name,
    "authorized": lambda stream: stream.authorized,
    "authorizationError": lambda stream: getattr(stream.authorization_error, "code", None),
    "alpn": lambda stream: stream.alpn_protocol,
    "servername": lambda stream: stream.server_name,
    "reused": lambda stream: stream.info.session_reused,
    "peer": lambda stream: _common_name(stream.info.peer_certificate),
    "ephemeral": _ephemeral,
    "sigalgs": lambda stream: list(stream.info.shared_signature_algorithms),
    "certificates": _certificates,
    "own": lambda stream: _common_name(stream.info.certificate),
    "suite": lambda stream: {
        "name": stream.info.cipher.name,
        "standardName": stream.info.cipher.standard_name,
        "version": stream.info.cipher.version,
    },
    "exporter": lambda stream: [
        len(stream.export_keying_material(size, "label", b"context")) for size in (10, 128)
    ],
    "encrypted": lambda stream: stream.encrypted,
    "fragment": _fragments,
}
_ALWAYS = ("protocol", "cipher", "authorized", "authorizationError", "alpn", "servername", "reused", "peer")
_SMALL = 100


def _code(error: BaseException) -> str:
    if isinstance(error, tls.CallbackError) and error.code == tls.CallbackError.code and error.__cause__:
        # In Node, what a callback raises is the error itself.
        return f"without code: {error.__cause__}"
    return error.code if isinstance(error, tls.TLSError) else f"without code: {error}"


class Side:
    """One side of a connection: what it does, and what happens to it.

    Attributes:
        result: What has happened.
        session: The latest session.
    """

    def __init__(self, look: list[str]) -> None:
        self.result: dict[str, Any] = {"events": []}
        self.session: bytes | None = None
        self._looks = [*_ALWAYS, *(name for name in look if name in _LOOKS)]
        self._received = b""

    def note(self, event: str) -> None:
        """Note that something has happened."""
        self.result["events"].append(event)

    async def act(self, stream: TLSStream, event: str, steps: list[list[Any]]) -> None:
        """Do some steps, and close."""
        self.note(event)
        self.result["facts"] = {name: _LOOKS[name](stream) for name in self._looks}
        try:
            for verb, *arguments in steps:
                await getattr(self, f"_{verb}")(stream, *arguments)
        except tls.TLSError as error:
            self.note(f"error {_code(error)}")
        except trio.ClosedResourceError:
            pass
        self.session = self.session or stream.session
        if self._received:
            length = len(self._received)
            self.result["received"] = self._received.decode() if length < _SMALL else length
        await stream.aclose()
        self.note("close")

    async def _send(self, stream: TLSStream, text: str) -> None:
        await stream.send_all(text.encode())

    async def _fill(self, stream: TLSStream, size: int) -> None:
        await stream.send_all(bytes(size))

    async def _end(self, stream: TLSStream) -> None:
        await stream.send_eof()

    async def _read(self, stream: TLSStream) -> None:
        async for data in stream:
            if not self._received:
                self.note("data")
            self._received += data
        self.note("end")

    async def _cut(self, stream: TLSStream) -> None:
        await trio.aclose_forcefully(stream.transport_stream)

    async def _disable(self, stream: TLSStream) -> None:
        stream.disable_renegotiation()

    async def _renegotiate(self, stream: TLSStream) -> None:
        try:
            await stream.renegotiate(reject_unauthorized=False)
        except tls.ConfigurationError as error:
            self.note(f"renegotiate {_code(error)}")
        else:
            self.note("renegotiated")


# Both sides are ours


async def run_ours(scenario: Scenario) -> Outcome:
    """Return what comes out of a scenario when both sides are ours."""
    with trio.fail_after(PATIENCE):
        if scenario.server is None:
            return {"server": None, "client": (await _connection(scenario, _closed_port(), None)).result}
        if "raw" in scenario.server:
            return await _run_before_raw_server(scenario)
        return await _run(scenario, scenario.server)


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _run_before_raw_server(scenario: Scenario) -> Outcome:
    assert scenario.server is not None
    text: str = scenario.server["raw"]

    async def answer(transport: trio.SocketStream) -> None:
        await transport.receive_some()
        await transport.send_all(text.encode())

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(functools.partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        side = await _connection(scenario, listener.socket.getsockname()[1], None)
        nursery.cancel_scope.cancel()
    return {"server": None, "client": side.result}


async def _run(scenario: Scenario, given: dict[str, Any]) -> Outcome:
    side = Side(scenario.look)
    keylog: list[str] = []

    async def handle(stream: TLSStream) -> None:
        await side.act(stream, "secureConnection", scenario.talk["server"])

    try:
        server = _server(handle, given, keylog if "keylog" in scenario.look else None)
    except tls.ConfigurationError as error:
        return {"server": {"events": [f"refused {_code(error)}"]}, "client": None}

    async def supervise() -> None:
        async for group in server.client_errors():
            for error in group.exceptions:
                side.note(f"tlsClientError {_code(error)}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervise)
        await nursery.start(server.serve, 0, "127.0.0.1")
        session = None
        for time in range(scenario.times):
            if time:
                side = Side(scenario.look)
            client = await _connection(scenario, server.addresses[0].port, session)
            session = client.session or session
            while server.statistics().open:  # noqa: ASYNC110 - nothing tells of the last one
                await trio.sleep(0.001)
        await server.aclose()
    # What the server of a client that was refused has seen is nothing, or one that hangs up at once.
    refused = client.result["events"][0].startswith("refused ")
    outcome: Outcome = {"server": None if refused else side.result, "client": client.result}
    if "keylog" in scenario.look:
        outcome["keylog"] = keylog
    return outcome


def _server(handle: Any, given: dict[str, Any], keylog: list[str] | None) -> tls.TLSServer:
    options = _options(given)
    if keylog is not None:
        options["keylog"] = lambda line, _stream: keylog.append(line.split()[0])
    context = _context(options)
    server = tls.TLSServer(handle, context, **options)
    for pattern, other in given.get("contexts", []):
        server.add_context(pattern, tls.SecureContext(**_options(other)))
    return server


def _context(options: dict[str, Any]) -> tls.SecureContext:
    """Return a context of those options that are a context's; they are taken out."""
    names = options.keys() & ContextOptions.__annotations__.keys()
    return tls.SecureContext(**{name: options.pop(name) for name in names})


async def _connection(scenario: Scenario, port: int, session: bytes | None) -> Side:
    side = Side(scenario.look)
    if "raw" in scenario.client:
        await _raw_client(scenario.client["raw"], port, side)
        return side
    sessions: list[bytes] = []
    try:
        options = _options(scenario.client, server_side=False)
        if session is not None:
            options["session"] = session
        stream = await tls.connect(
            options.pop("host", "127.0.0.1"), port, on_session=sessions.append, session_cache=None, **options
        )
    except tls.ConfigurationError as error:
        side.note(f"refused {_code(error)}")
    except tls.TLSError as error:
        side.note(f"error {_code(error)}")
        side.note("close")
    else:
        await side.act(stream, "secureConnect", scenario.talk["client"])
        if "sessions" in scenario.look:
            side.result["sessions"] = len(sessions)
    return side


async def _raw_client(text: str, port: int, side: Side) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", port) as transport:
        received = b""
        if text != "gone":
            await transport.send_all(text.encode("latin-1"))
            async for data in transport:
                received += data
            side.note("end")
    side.note("close")
    if received:
        side.result["received"] = received.hex()
