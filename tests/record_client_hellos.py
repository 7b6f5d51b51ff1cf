"""Records anew what real clients send first, and what tshark reads in it.

``python tests/record_client_hellos.py`` needs Node.js, curl, openssl, Chromium and tshark, writes the files
of data/client_hello, and says whose JA4 is another one than before.  Nothing leaves this machine, and nothing
in a flight is secret.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

from client_hellos import DATA, expected, ja4, read_by_tshark
from OpenSSL import SSL

from trio_tlsnode.testing import default_authority

NAME = "server.example"
PATIENCE = 20.0
# A first flight may go on behind the ClientHello: it ends when the client says no more for so long.
SILENCE = 0.5

CHROMIUM = (
    *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--no-proxy-server"),
    *("--disable-background-networking", "--disable-component-update", "--user-data-dir={folder}/profile"),
    *("--host-resolver-rules=MAP * 127.0.0.1", "--dump-dom"),
)
CURL = (
    *("curl", "-s", "--noproxy", "*", "--resolve", f"{NAME}:{{port}}:127.0.0.1"),
    f"https://{NAME}:{{port}}/",
)
NODE = "require('%s').%s({{host: '127.0.0.1', port: {port}, servername: '%s', %s}}).on('error', () => {{}})"
S_CLIENT = ("openssl", "s_client", "-connect", "127.0.0.1:{port}", "-servername", NAME)
PYTHON = """
import socket, ssl
context = ssl.create_default_context()
context.set_alpn_protocols(["http/1.1"])
context.wrap_socket(socket.create_connection(("127.0.0.1", {port})), server_hostname="%s")
"""
PYOPENSSL = """
import socket
from OpenSSL import SSL
client = SSL.Connection(SSL.Context(SSL.TLS_METHOD), socket.create_connection(("127.0.0.1", {port})))
client.set_connect_state()
client.set_tlsext_host_name(b"%s")
client.do_handshake()
"""


def _node(module: str, function: str, options: str = "") -> tuple[str, ...]:
    return ("node", "-e", NODE % (module, function, NAME, options))


COMMANDS: dict[str, tuple[str, ...]] = {
    "chromium": (*CHROMIUM, f"https://{NAME}:{{port}}/"),
    "chromium_no_name": (*CHROMIUM, "https://127.0.0.1:{port}/"),
    "chromium_tls1_2": (*CHROMIUM, "--ssl-version-max=tls1.2", f"https://{NAME}:{{port}}/"),
    "curl": CURL,
    "curl_http1_1": (*CURL, "--http1.1"),
    "curl_tls1_2": (*CURL, "--tls-max", "1.2", "--no-alpn"),
    "node": _node("tls", "connect", "ALPNProtocols: ['h2', 'http/1.1']"),
    "node_https": _node("https", "get"),
    "node_tls1_2": _node("tls", "connect", "maxVersion: 'TLSv1.2'"),
    "openssl_s_client_early_data": (
        *(*S_CLIENT, "-tls1_3", "-sess_in", "{folder}/session-tls1_3.pem"),
        *("-early_data", "{folder}/early-data.txt"),
    ),
    "openssl_s_client_groups": (*S_CLIENT, "-groups", "P-521:X448:ffdhe2048:brainpoolP256r1"),
    "openssl_s_client_no_name": ("openssl", "s_client", "-connect", "127.0.0.1:{port}", "-noservername"),
    "openssl_s_client_old": (*S_CLIENT, "-no_tls1_3", "-no_tls1_2", "-cipher", "ALL:@SECLEVEL=0"),
    "openssl_s_client_psk": (*S_CLIENT, "-psk_identity", "client", "-psk", "00112233445566778899"),
    "openssl_s_client_ticket": (*S_CLIENT, "-tls1_2", "-sess_in", "{folder}/session-tls1_2.pem"),
    "openssl_s_client_tls1_2": (*S_CLIENT, "-tls1_2", "-status", "-alpn", "h2,http/1.1"),
    "openssl_s_client_tls1_3": (*S_CLIENT, "-tls1_3", "-enable_pha"),
    "pyopenssl": (sys.executable, "-c", PYOPENSSL % NAME),
    "python_ssl": (sys.executable, "-c", PYTHON % NAME),
}


@contextlib.contextmanager
def running(command: tuple[str, ...], folder: Path, port: int = 0) -> Iterator[subprocess.Popen[str]]:
    """Run a command with the folder for its files and the port filled in; it is killed at the end."""
    with subprocess.Popen(
        [word.format(folder=folder, port=port) for word in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        # What is killed leaves its temporary files.
        env={**os.environ, "TMPDIR": str(folder)},
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def first_flight(command: tuple[str, ...], folder: Path) -> bytes:
    """Return what a client sends before it hears anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        with running(command, folder, listener.getsockname()[1]):
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(PATIENCE)
                flight = connection.recv(65536)
                connection.settimeout(SILENCE)
                with contextlib.suppress(TimeoutError):
                    while data := connection.recv(65536):
                        flight += data
    return flight


def make_session(version: str, folder: Path) -> None:
    """Have s_client save a session of s_server's, to resume it with."""
    key, cert = default_authority().good(NAME).write_to(folder)
    saved = folder / f"session-{version}.pem"
    serve = ("openssl", "s_server", "-accept", "127.0.0.1:0", "-early_data")
    with running((*serve, "-key", str(key), "-cert", str(cert)), folder) as server:
        assert server.stdout is not None
        accepting = next(line for line in server.stdout if line.startswith("ACCEPT "))
        port = int(accepting.rpartition(":")[2])
        with running((*S_CLIENT, f"-{version}", "-sess_out", str(saved)), folder, port):
            until = time.monotonic() + PATIENCE
            while not (saved.exists() and "-----END SSL SESSION" in saved.read_text()):
                assert time.monotonic() < until, "no session was saved"
                time.sleep(0.05)


def versions() -> dict[str, str]:
    """Return what each program is, by the start of the names of its flights."""

    def said(*command: str) -> str:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    linked = SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode()
    curl = said("curl", "--version").split()
    return {
        "chromium": "Chromium " + said("chromium", "--version").split()[1],
        "curl": f"curl {curl[1]}, "
        + next(word for word in curl if word.startswith("OpenSSL/")).replace("/", " "),
        "node": "Node.js " + said("node", "--version").strip().removeprefix("v"),
        "openssl": "openssl s_client " + said("openssl", "version").split()[1],
        "pyopenssl": " ".join(linked.split()[:2]),
        "python": f"Python {platform.python_version()}, " + " ".join(ssl.OPENSSL_VERSION.split()[:2]),
    }


def record() -> None:
    """Write the files anew."""
    tshark = shutil.which("tshark")
    assert tshark is not None, "tshark is not on the PATH"
    clients = versions()
    before = expected()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "early-data.txt").write_text("GET / HTTP/1.1\r\n\r\n")
        for version in ("tls1_2", "tls1_3"):
            make_session(version, folder)
        flights = {name: first_flight(command, folder) for name, command in COMMANDS.items()}
    facts = {}
    for name, read in zip(flights, read_by_tshark(tshark, flights.values()), strict=True):
        facts[name] = {
            "client": clients[name.partition("_")[0]],
            **{fact: value for fact, value in read.items() if not fact.endswith("_names")},
            "ja4": ja4(read),
        }
        if name not in before or facts[name]["ja4"] != before[name]["ja4"]:
            sys.stdout.write(f"{name}: {before.get(name, {}).get('ja4', 'new')} -> {facts[name]['ja4']}\n")
    for path in DATA.glob("*.hex"):
        path.unlink()
    for name, flight in flights.items():
        (DATA / f"{name}.hex").write_text("\n".join(textwrap.wrap(flight.hex(), 96)) + "\n")
    # A list is one line.
    text = re.sub(r"\[[^]]*\]", _on_one_line, json.dumps(facts, indent=2))
    (DATA / "expected.json").write_text(text + "\n")


def _on_one_line(found: re.Match[str]) -> str:
    return json.dumps(json.loads(found[0]))


if __name__ == "__main__":
    record()
