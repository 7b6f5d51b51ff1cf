"""Corpus: the inputs that are kept of the fuzzer's, which the test suite replays.

``tests/data/hostile/TARGET.hex`` has an input in each line: those that reach something of their own.
``tests/data/hostile/found/`` has a file for each input that has broken a promise once.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import trio_tlsnode as tls
from trio_tlsnode.testing import default_authority

from .records import CIPHERS

_DATA: Final = Path(__file__).parents[2] / "tests" / "data"
HOSTILE: Final = _DATA / "hostile"
FOUND: Final = HOSTILE / "found"
_CLIENT_HELLOS: Final = _DATA / "client_hello"


def kept(target: str, folder: Path = HOSTILE) -> list[bytes]:
    """Return the inputs that are kept for a target, those that have broken a promise first."""
    inputs = [bytes.fromhex(path.read_text()) for path in sorted((folder / "found").glob(f"{target}-*.hex"))]
    path = folder / f"{target}.hex"
    return inputs + (list(map(bytes.fromhex, path.read_text().splitlines())) if path.exists() else [])


def keep(target: str, inputs: Iterable[bytes], folder: Path = HOSTILE) -> None:
    """Keep these inputs for a target, in place of the former ones."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = sorted({data.hex() for data in inputs if data}, key=lambda line: (len(line), line))
    (folder / f"{target}.hex").write_text("".join(f"{line}\n" for line in lines))


def keep_found(target: str, data: bytes, folder: Path = HOSTILE) -> Path:
    """Keep an input that breaks a promise; return where."""
    name = hashlib.sha256(data).hexdigest()[:12]
    path = folder / "found" / f"{target}-{name}.hex"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data.hex() + "\n")
    return path


def seeds(target: str) -> list[bytes]:
    """Return inputs to begin with: what real peers say, and one conversation of each kind."""
    match target:
        case "hello":
            return [b"\0" + bytes.fromhex(path.read_text()) for path in _CLIENT_HELLOS.glob("*.hex")]
        case "flight":
            return [bytes((how,)) + flight for how, flight in _server_flights().items()]
        case "talk_to_server" | "talk_to_client":
            starts = [bytes((flags, how)) + _SCRIPT for flags in range(4) for how in (0, 4)]
            scripts = [bytes((flags, 4)) + script for flags in range(4) for script in _OTHER_SCRIPTS]
            forged = [_edit(number, _FORGE, 0, payload) for number in range(2, 9, 2) for payload in _FORGED]
            changed = [_edit(number, verb, 9, b"\1\2") for number in range(9) for verb in range(_FORGE)]
            edited = [starts[index % len(starts)] + edit for index, edit in enumerate(forged + changed)]
            return starts + scripts + edited
        case "certificate":
            whole = [bytes((flags, which)) for flags in range(16) for which in range(7)]
            return whole + [whole[index % len(whole)] + edit for index, edit in enumerate(_DER_EDITS)]
        case _:
            whole = [bytes((flags,)) for flags in range(8)]
            return whole + [whole[index % len(whole)] + edit for index, edit in enumerate(_DER_EDITS)]


def _edit(number: int, verb: int, at: int, payload: bytes) -> bytes:
    """Return an edit as `hostile.Edits` reads it."""
    return bytes((number, verb)) + at.to_bytes(2) + bytes((len(payload),)) + payload


# Asks, reads the answer, and says goodbye.
_SCRIPT: Final = bytes((0, 6, 4))
# Much data; a renegotiation; a late certificate.
_OTHER_SCRIPTS: Final = (b"\2\6\6", b"\3\6\6", b"\5\6\6")
_FORGE: Final = 10
_FORGED: Final = (
    *(b"\x16\x18\0\0\1\1", b"\x16\0\0\0\0", b"\x16\1\0\0\0", b"\x16\4\0\0\0", b"\x16\x0d\0\0\3\0\0\0"),
    *(b"\x15\1\0", b"\x15\1\x5a", b"\x15\2\x28", b"\x14\1", b"\x17", b"\x18\1\0\1"),
)
_ELEMENT: Final = 14
_DER_EDITS: Final = (
    *(_edit(0, verb, at, b"\x82") for verb in range(6) for at in range(2, 600, 61)),
    *(_edit(0, _ELEMENT, number, payload) for number in range(70) for payload in (b"", b"\x1e", b"\n\0\xff")),
)


@functools.cache
def _server_flights() -> dict[int, bytes]:
    """Return a server's first flights, by how they are said: to a client of TLS 1.2 alone, or of 1.3 too."""
    flights = {}
    for how, version in ((0, "TLSv1.2"), (0x20, None)):
        leaf = default_authority().good("localhost")
        client = tls.Engine(
            tls.SecureContext(
                ca=default_authority().ca,
                ciphers=CIPHERS if version else None,
                min_version=version,
                max_version=version,
            ),
            host="localhost",
        )
        server = tls.Engine(tls.SecureContext(**leaf.options), server_side=True)
        client.do_handshake()
        server.feed(client.drain())
        server.do_handshake()
        flights[how] = server.drain()
        client.release()
        server.release()
    return flights
