"""No secret is in a log, a repr, an error, a trace, JSON or HTML: all are searched for those that we know."""

from __future__ import annotations

import base64
import json
import logging
import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import pkcs12
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

import trio_tlsnode as tls
from benchmarks.reliability.misdeeds import BROKEN_RECORD
from trio_tlsnode.der import elements
from trio_tlsnode.sessions import Session
from trio_tlsnode.testing import default_authority, tls_pair

pytestmark = pytest.mark.feature("G3")

PASSPHRASE = "Zq7-vX2_pL9.wR4"
PSK = b"kT8=mB3~nJ6!cF1;hG5,xD0:yS2?uV4/"
MESSAGE = b"eW6%oP1*iA8^lM3@rN7"
NUMBER = 918273645546372819
AUTHORITY = default_authority()
LEAF = AUTHORITY.good("localhost")
OTHER = AUTHORITY.good("localhost")
PRIVATE_KEY = serialization.load_pem_private_key(LEAF.key, None)
assert isinstance(PRIVATE_KEY, EllipticCurvePrivateKey)
SCALAR = PRIVATE_KEY.private_numbers().private_value
ENCRYPTED = PRIVATE_KEY.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.BestAvailableEncryption(PASSPHRASE.encode()),
)
PFX = pkcs12.serialize_key_and_certificates(
    b"name",
    PRIVATE_KEY,
    LEAF.certificate,
    None,
    serialization.BestAvailableEncryption(PASSPHRASE.encode()),
)
# Of the private key its one number; in PEM and DER it stands as bytes, and behind it the public key.
SECRETS = [
    *(PASSPHRASE.encode(), PSK, MESSAGE, str(NUMBER).encode()),
    *(SCALAR.to_bytes(32), str(SCALAR).encode()),
]

# So much of a secret is too much.
WINDOW = 10


def forms(secret: bytes) -> Iterator[str]:
    """Yield the ways in which parts of a secret may be written."""
    for start in range(0, max(len(secret) - WINDOW, 0) + 1, 5):
        part = secret[start : start + WINDOW]
        yield part.decode("latin-1")
        yield repr(part)[2:-1]
        yield part.hex()
        yield part.hex(":")
        yield ", ".join(map(str, part))
        for shift in range(3):
            # What stands at the edges depends on what stands beside it.
            yield base64.b64encode(bytes(shift) + part).decode()[4:-4]


def assert_hidden(texts: Iterable[str], secrets: Iterable[bytes] = ()) -> None:
    text = "\n".join(texts)
    # Known to be in it: the text was gathered at all.
    assert text
    plain = re.sub(r"\s|\\n", "", text)
    for secret in [*SECRETS, *secrets]:
        for form in forms(secret):
            for place in (text, text.lower()):
                assert form not in place
            assert re.sub(r"\s", "", form) not in plain


def shown(*things: object) -> Iterator[str]:
    """Yield all the ways in which things show themselves."""
    for thing in things:
        yield from (repr(thing), str(thing), f"{thing}")
        for method in ("_repr_html_", "to_dict", "as_node_dict"):
            show = getattr(thing, method, None)
            if show is not None:
                result = show()
                yield result if isinstance(result, str) else json.dumps(result, default=repr)
        if isinstance(thing, BaseException):
            yield "".join(traceback.format_exception(thing))
            yield repr({name: value for name, value in vars(thing).items() if name != "client_hello"})


def test_a_secret_that_is_shown_is_found() -> None:
    for text in (
        repr(PSK),
        PSK.hex().upper(),
        PSK.hex(":"),
        base64.b64encode(b"x" + PSK).decode(),
        LEAF.key.decode(),
        f"{SCALAR}",
        repr([*PSK]),
        PASSPHRASE,
    ):
        with pytest.raises(AssertionError):
            assert_hidden([text])


# What is given in a wrong way


def context(**options: Any) -> Callable[[], object]:
    return lambda: tls.SecureContext(**options)


def stream(**options: Any) -> Callable[[], object]:
    transport, _ = memory_stream_pair()
    return lambda: tls.TLSStream(transport, tls.SecureContext(ca=AUTHORITY.ca), host="localhost", **options)


def server(**options: Any) -> Callable[[], object]:
    own = tls.SecureContext(**LEAF.options)
    return lambda: tls.TLSServer(trio.sleep_forever, own, **options)  # type: ignore[arg-type]


KEY_TEXT, KEY_BODY = LEAF.key.decode(), b"".join(LEAF.key.splitlines()[1:-1])
MISTAKES: dict[str, Callable[[], object]] = {
    "the passphrase of the key is missing": context(key=ENCRYPTED, cert=LEAF.cert),
    "the passphrase is a number": context(key=ENCRYPTED, cert=LEAF.cert, passphrase=NUMBER),
    "the passphrase of another key": context(key=ENCRYPTED, cert=LEAF.cert, passphrase=PASSPHRASE + "!"),
    "a passphrase beside the key that is none": context(key=[(ENCRYPTED, NUMBER)], cert=LEAF.cert),
    "a passphrase that is a list": context(key=ENCRYPTED, cert=LEAF.cert, passphrase=[PASSPHRASE]),
    "the key of another certificate": context(key=LEAF.key, cert=OTHER.cert),
    "the key in place of the certificate": context(key=LEAF.key, cert=LEAF.key),
    "the key in place of the roots": context(ca=KEY_TEXT),
    "the key in place of a revocation list": context(ca=AUTHORITY.ca, crl=LEAF.key),
    "the key in place of the parameters": context(dhparam=KEY_TEXT),
    "the key in place of PKCS#12": context(pfx=LEAF.key),
    "the key without its first line": context(key=KEY_BODY, cert=LEAF.cert),
    "the key as text without its first line": context(key=KEY_BODY.decode(), cert=LEAF.cert),
    "the key without its last line": context(key=LEAF.key[:-40], cert=LEAF.cert),
    "the key with a damaged line": context(key=LEAF.key.replace(b"\n", b"\n!", 1), cert=LEAF.cert),
    "the key as a list of numbers": context(key=[*LEAF.key], cert=LEAF.cert),
    "the key as a number": context(key=SCALAR, cert=LEAF.cert),
    "the key in a mapping that is none": context(key={"pem": LEAF.key, "phrase": PASSPHRASE}, cert=LEAF.cert),
    "PKCS#12 without its passphrase": context(pfx=PFX),
    "PKCS#12 with another passphrase": context(pfx=PFX, passphrase=PASSPHRASE.upper()),
    "a pre-shared key in place of the callback": stream(psk=PSK),
    "a pre-shared key that is text": lambda: tls.PreSharedKey("me", PSK.decode()),  # type: ignore[arg-type]
    "a pre-shared key in place of its name": lambda: tls.PreSharedKey(PSK, PSK),  # type: ignore[arg-type]
    "a pre-shared key that is too long": lambda: tls.PreSharedKey("me", PSK * 20),
    "a pre-shared key in place of the server's callback": server(psk=PSK),
    "a session that is none": stream(session=PSK),
    "a session that is text": stream(session=PSK.decode()),
    "ticket keys that are too short": server(ticket_keys=PSK),
    "ticket keys that are text": server(ticket_keys=PSK.decode()),
    "early data that is text": stream(early_data=MESSAGE.decode()),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_no_error_shows_a_secret_that_was_given_in_a_wrong_way(mistake: str) -> None:
    with pytest.raises((tls.TLSError, TypeError, ValueError)) as caught:
        MISTAKES[mistake]()
    assert_hidden(shown(caught.value))


SPOILT = {
    "half of the key": LEAF.key[: len(LEAF.key) // 2],
    "a damaged line": LEAF.key.replace(b"\n", b"\n!", 1),
    "without its passphrase": ENCRYPTED,
    "with a number": LEAF.key + str(NUMBER).encode(),
}


@pytest.mark.parametrize("spoilt", SPOILT)
async def test_files_that_are_watched_and_wrong_are_not_shown(
    spoilt: str, tmp_path: Path, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key, cert = OTHER.write_to(tmp_path)
    server = tls.TLSServer(echo, tls.SecureContext(**OTHER.options))
    failures: list[tls.ConfigurationError] = []
    told = trio.Event()

    def note(error: tls.ConfigurationError) -> None:
        failures.append(error)
        told.set()

    watch = partial(tls.watch_credentials, server, key=key, cert=cert, interval=0.001, on_failure=note)
    await nursery.start(watch)
    # As a key or, in place of the certificate, as what it is not.
    key.write_bytes(SPOILT[spoilt])
    cert.write_bytes(SPOILT[spoilt])
    await told.wait()
    assert caplog.messages
    assert_hidden([*shown(*failures), *caplog.messages])


# A life with secrets of every kind


async def echo(stream: tls.TLSStream) -> None:
    await stream.send_all(await stream.receive_some())


class Witness:
    """The secrets of a connection, from the only ones who may have them: the key log, and the sessions."""

    def __init__(self) -> None:
        self.secrets: list[bytes] = []

    def key(self, line: str, _stream: object) -> None:
        _label, _random, secret = line.split()
        self.secrets.append(bytes.fromhex(secret))

    def session(self, session: bytes) -> None:
        [(_, content)] = elements(session)
        # OpenSSL's SSL_SESSION_ASN1: form, version, suite, identifier, and the key.
        _, key = elements(content)[4]
        assert len(key) in (32, 48)
        ticket = Session.parse(session).ticket
        self.secrets += [key, *([ticket] if ticket else [])]


@pytest.mark.parametrize("psk", [False, True], ids=["certificate", "PSK"])
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
async def test_a_connection_shows_none_of_its_secrets(
    version: str, psk: bool, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    witness = Witness()
    lines: list[str] = []
    versions: Any = {"min_version": version, "max_version": version, "ciphers": "DEFAULT:PSK"}
    own = tls.SecureContext(key=ENCRYPTED, cert=LEAF.cert, passphrase=PASSPHRASE, **versions)
    trusting = tls.SecureContext(ca=AUTHORITY.ca, **versions)
    shared = tls.PreSharedKey("me", PSK)
    client, server = await tls_pair(
        client_context=trusting,
        server_context=own,
        client_options={
            "keylog": witness.key,
            "on_session": witness.session,
            "trace": tls.HandshakeTrace(on_line=lines.append),
            **({"psk": lambda _hint: shared} if psk else {}),
        },
        server_options={
            "trace": tls.HandshakeTrace,
            **({"psk": lambda _stream, _identity: shared} if psk else {}),
        },
    )
    async with client, server:
        await client.send_all(MESSAGE)
        assert await server.receive_some() == MESSAGE
        await server.send_all(MESSAGE)
        assert await client.receive_some() == MESSAGE
        assert client.session is not None
        sessions = tls.SessionCache()
        witness.session(client.session)
        witness.secrets.append(client.export_keying_material(32, "a label"))
        things = [
            *(client, server, client.info, server.info, client.trace, server.trace, own, trusting, shared),
            *(client.statistics(), client.sessions(), sessions, Session.parse(client.session), tls.defaults),
            *(server.client_hello, LEAF, tls.version_report(), client._engine, server._engine),
        ]
        texts = list(shown(*things))
        # A failure has all of this within reach.
        await client.transport_stream.send_all(BROKEN_RECORD)
        with pytest.raises(tls.ProtocolError) as caught:
            await server.receive_some()
        texts += shown(caught.value, server, server.trace)
    assert len(witness.secrets) >= 3
    assert lines
    captured = capfd.readouterr()
    assert_hidden([*texts, *lines, *caplog.messages, captured.out, captured.err], witness.secrets)


WRONG = tls.PreSharedKey("me", PSK[::-1])
CALLBACKS: dict[str, Callable[..., Any]] = {
    "another key": lambda _stream, _identity: WRONG.key,
    "text": lambda _stream, _identity: PSK.decode(),
    "too much": lambda _stream, _identity: PSK * 20,
    "a number": lambda _stream, _identity: NUMBER,
}


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("callback", CALLBACKS)
async def test_the_log_of_a_server_shows_no_key_that_did_not_fit(
    version: str, callback: str, caplog: pytest.LogCaptureFixture, nursery: trio.Nursery
) -> None:
    caplog.set_level(logging.DEBUG)
    suites = "PSK:TLS_AES_128_GCM_SHA256"
    versions: Any = {"min_version": version, "max_version": version, "ciphers": suites}
    server = tls.TLSServer(echo, tls.SecureContext(**versions), psk=CALLBACKS[callback])
    client, transport = memory_stream_pair()
    nursery.start_soon(server.handle, transport)
    with pytest.raises(tls.TLSError) as caught:
        await tls.wrap_client(
            client, context=tls.SecureContext(**versions), psk=lambda _hint: tls.PreSharedKey("me", PSK)
        )
    await wait_all_tasks_blocked()
    group = await anext(server.client_errors())
    texts = [*shown(caught.value, group, *group.exceptions, server, server.statistics()), *caplog.messages]
    assert_hidden(texts, [WRONG.key])
    # The supervisor of this server came late: each failure is one line.
    assert len([record for record in caplog.records if record.name == "trio_tlsnode"]) == 1


@pytest.mark.parametrize("given", [PSK, PSK.decode(), NUMBER, [PSK]])
async def test_no_error_of_a_client_shows_what_its_psk_callback_returned(given: object) -> None:
    client, _server = await tls_pair(
        handshake=False,
        client_context=tls.SecureContext(ciphers="PSK:TLS_AES_128_GCM_SHA256"),
        client_options={"psk": lambda _hint: given},
    )
    with pytest.raises(tls.CallbackError) as caught:
        await client.do_handshake()
    assert_hidden(shown(caught.value))
    await client.aclose()
