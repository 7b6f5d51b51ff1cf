"""First flights of real clients, and what tshark reads in a capture of them.

The flights in data/client_hello are written by record_client_hellos.py, with what tshark read in each.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import subprocess
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data" / "client_hello"

GREASE = frozenset(0x1010 * high + 0x0A0A for high in range(16))

_NUMBERS = {
    "cipher_suites": "tls.handshake.ciphersuite",
    "extension_types": "tls.handshake.extension.type",
    "supported_versions": "tls.handshake.extensions.supported_version",
    "groups": "tls.handshake.extensions_supported_group",
    "key_share_groups": "tls.handshake.extensions_key_share_group",
    "signature_algorithms": "tls.handshake.sig_hash_alg",
}
_LINKTYPE_RAW = 101
_HTTPS = 443
_JA4_VERSIONS = {0x0304: "13", 0x0303: "12", 0x0302: "11", 0x0301: "10", 0x0300: "s3"}


def recorded() -> dict[str, bytes]:
    """Return the first flights by the names of their files."""
    return {path.stem: bytes.fromhex(path.read_text()) for path in sorted(DATA.glob("*.hex"))}


def expected() -> dict[str, dict[str, Any]]:
    """Return what tshark read in the flights when they were recorded."""
    facts: dict[str, dict[str, Any]] = json.loads((DATA / "expected.json").read_text())
    return facts


def capture(flights: Iterable[bytes]) -> bytes:
    """Return a capture file in which each flight is the one segment of a connection of its own."""
    packets = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 16, _LINKTYPE_RAW)]
    for number, flight in enumerate(flights):
        tcp = struct.pack(">HHIIBBHHH", 50000 + number, _HTTPS, 1, 1, 5 << 4, 0x18, 1 << 15, 0, 0) + flight
        addresses = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0, *addresses) + tcp
        packets.append(struct.pack("<IIII", number, 0, len(ip), len(ip)) + ip)
    return b"".join(packets)


def read_by_tshark(tshark: str, flights: Iterable[bytes]) -> list[dict[str, Any]]:
    """Return what tshark reads in a capture of flights, in the words of ClientHello.

    A tshark that knows no JA4 gives none; `ja4` makes it from the other facts.

    Args:
        tshark: The path of tshark.
        flights: The flights; each has its ClientHello in one record, or in more.
    """
    command = [tshark, "-n", "-r", "-", "-T", "pdml"]
    done = subprocess.run(command, input=capture(flights), check=True, capture_output=True, timeout=60)
    return [_facts(packet) for packet in ET.fromstring(done.stdout).iter("packet")]


def _facts(packet: ET.Element) -> dict[str, Any]:
    shown: dict[str, list[str]] = defaultdict(list)
    named: dict[str, list[str]] = defaultdict(list)
    for field in packet.iter("field"):
        shown[field.get("name", "")].append(field.get("show", ""))
        name = re.fullmatch(r".*: (?!Unknown)(\w+) \(0x\w+\)", field.get("showname", ""))
        named[field.get("name", "")].append("" if name is None else name[1])
    numbers = {fact: [int(number, 0) for number in shown[field]] for fact, field in _NUMBERS.items()}
    for fact in ("supported_versions", "groups", "key_share_groups", "signature_algorithms"):
        numbers[fact] = [number for number in numbers[fact] if number not in GREASE]
    if not numbers["supported_versions"]:
        numbers["supported_versions"] = [int(shown["tls.handshake.version"][0], 0)]
    names = shown["tls.handshake.extensions_server_name"]
    facts: dict[str, Any] = {
        "server_name": names[0] if names else None,
        "alpn_protocols": shown["tls.handshake.extensions_alpn_str"],
        **numbers,
        "cipher_suites_names": named[_NUMBERS["cipher_suites"]],
        "signature_algorithms_names": named[_NUMBERS["signature_algorithms"]],
        "random": "".join(shown["tls.handshake.random"]).replace(":", ""),
        "session_id": "".join(shown["tls.handshake.session_id"]).replace(":", ""),
        "ja3_text": shown["tls.handshake.ja3_full"][0],
        "ja3": shown["tls.handshake.ja3"][0],
    }
    if "tls.handshake.ja4" in shown:
        facts["ja4"] = shown["tls.handshake.ja4"][0]
    return facts


def ja4(facts: dict[str, Any]) -> str:
    """Return the JA4 fingerprint of what tshark read, made after FoxIO's description alone."""
    suites = [number for number in facts["cipher_suites"] if number not in GREASE]
    kinds = [number for number in facts["extension_types"] if number not in GREASE]
    version = _JA4_VERSIONS.get(max(facts["supported_versions"]), "00")
    protocols = facts["alpn_protocols"]
    protocol = protocols[0][0] + protocols[0][-1] if protocols else "00"
    if not protocol.isalnum():
        digits = protocols[0].encode().hex()
        protocol = digits[0] + digits[-1]
    hashed_suites = ",".join(sorted(f"{number:04x}" for number in suites))
    hashed = ",".join(sorted(f"{number:04x}" for number in kinds if number not in (0x0000, 0x0010)))
    if facts["signature_algorithms"]:
        hashed += "_" + ",".join(f"{number:04x}" for number in facts["signature_algorithms"])
    name = "d" if 0 in kinds else "i"
    start = f"t{version}{name}{min(len(suites), 99):02}{min(len(kinds), 99):02}{protocol}"
    hashes = [
        hashlib.sha256(text.encode()).hexdigest()[:12] if text else "0" * 12
        for text in (hashed_suites, hashed)
    ]
    return "_".join((start, *hashes))
