"""The seam to OpenSSL: its error queue, its callbacks, its memory, and what it is found to be able to do."""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import importlib.util
import sys
import threading
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import pytest

import trio_tlsnode as tls
from trio_tlsnode import Engine, Want
from trio_tlsnode._openssl import callbacks, error_queue, library
from trio_tlsnode._openssl import connection as connection_module
from trio_tlsnode._openssl.buffers import INCOMING_SIZE, OUTGOING_SIZE, PLAINTEXT_SIZE, buffers
from trio_tlsnode._openssl.library import lib
from trio_tlsnode._openssl.ssl_ctx import VERIFY_NONE, SSLContext
from trio_tlsnode._openssl.verification import name_of, text_of
from trio_tlsnode.testing import default_authority

SSL_LIBRARY, X509_LIBRARY = 20, 11
ALERT_OFFSET = 1000
RECORD_LAYER_FAILURE = 313


@functools.cache
def contexts(version: str | None = None) -> tuple[tls.SecureContext, tls.SecureContext]:
    authority = default_authority()
    return (
        tls.SecureContext(ca=authority.ca, min_version=version, max_version=version),
        tls.SecureContext(**authority.good("localhost").options, min_version=version, max_version=version),
    )


def engines(version: str | None = None, **options: Any) -> tuple[Engine, Engine]:
    client_context, server_context = contexts(version)
    return Engine(client_context, host="localhost", **options), Engine(
        server_context, server_side=True, **options
    )


def shake_hands(client: Engine, server: Engine) -> None:
    while client.info is None or server.info is None:
        for engine, peer in ((client, server), (server, client)):
            if engine.info is None:
                engine.do_handshake()
            if data := engine.drain():
                peer.feed(data)


def connected(version: str | None = None) -> tuple[Engine, Engine]:
    client, server = engines(version)
    shake_hands(client, server)
    assert client.read() is server.read() is Want.READ
    return client, server


# The error queue


@pytest.fixture(autouse=True)
def empty_queue() -> None:
    # The first SSL_CTX of a process loads the texts of the errors.
    contexts()
    error_queue.drain()


def put(library_number: int, reason: int) -> None:
    lib.ERR_put_error(library_number, 0, reason, b"", 0)


@pytest.mark.parametrize(
    ("library_name", "reason", "code"),
    [
        ("SSL routines", "wrong version number", "ERR_SSL_WRONG_VERSION_NUMBER"),
        ("SSL routines", "http request", "ERR_SSL_HTTP_REQUEST"),
        ("SSL routines", "tlsv1 alert unknown ca", "ERR_SSL_TLSV1_ALERT_UNKNOWN_CA"),
        ("SSL routines", "tlsv13 alert certificate required", "ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED"),
        ("SSL routines", "ssl/tls alert handshake failure", "ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE"),
        ("SSL routines", "tls alert certificate expired", "ERR_SSL_SSLV3_ALERT_CERTIFICATE_EXPIRED"),
        ("SSL routines", "sslv3 alert bad record mac", "ERR_SSL_SSLV3_ALERT_BAD_RECORD_MAC"),
        ("PEM routines", "no start line", "ERR_OSSL_PEM_NO_START_LINE"),
        ("rsa routines", "data too large", "ERR_OSSL_RSA_DATA_TOO_LARGE"),
    ],
)
def test_codes_are_spelt_as_node_spells_them(library_name: str, reason: str, code: str) -> None:
    assert error_queue.node_code(library_name, reason) == code


def test_draining_empties_the_queue_oldest_first() -> None:
    put(SSL_LIBRARY, 267)
    put(X509_LIBRARY, 116)
    assert error_queue.drain() == [
        ("SSL routines", "wrong version number", 267),
        ("x509 certificate routines", "key values mismatch", 116),
    ]
    assert error_queue.drain() == []


def test_the_first_entry_that_says_something_about_the_connection_counts() -> None:
    put(X509_LIBRARY, 116)
    put(SSL_LIBRARY, RECORD_LAYER_FAILURE)
    put(SSL_LIBRARY, 267)
    put(SSL_LIBRARY, 110)
    error = error_queue.connection_error()
    assert isinstance(error, tls.ProtocolError)
    assert (error.code, error.reason) == ("ERR_SSL_WRONG_VERSION_NUMBER", "wrong version number")
    assert error_queue.drain() == []


def test_where_nothing_is_said_about_the_connection_the_first_entry_counts() -> None:
    put(X509_LIBRARY, 116)
    assert error_queue.connection_error().reason == "key values mismatch"
    assert error_queue.connection_error().code == "ERR_SSL_INTERNAL_ERROR"


def test_an_alert_without_a_name_keeps_its_number() -> None:
    put(SSL_LIBRARY, ALERT_OFFSET + 200)
    error = error_queue.connection_error()
    assert isinstance(error, tls.PeerAlert)
    assert error.alert == 200
    assert not isinstance(error.alert, tls.Alert)
    assert "number 200" in str(error)


@pytest.mark.parametrize(
    "alert", [alert for alert in tls.Alert if alert not in (tls.Alert.close_notify, tls.Alert.user_canceled)]
)
def test_each_alert_of_a_peer_is_told_by_its_name(alert: tls.Alert) -> None:
    client, _ = engines()
    client.do_handshake()
    client.drain()
    client.feed(alert.plaintext_record())
    with pytest.raises(tls.PeerAlert) as caught:
        client.do_handshake()
    assert caught.value.alert is alert
    assert caught.value.code.startswith("ERR_SSL_")
    assert alert.name in str(caught.value)
    assert client.drain() == b""


# Each verb of the data phase, at a moment when it has nothing to complain about.
VERBS: dict[str, Callable[[Engine, Engine], object]] = {
    "read": lambda client, server: server.read(),
    "peek": lambda client, server: server.peek(),
    "write": lambda client, server: server.write(b"answer"),
    "goodbye": lambda client, server: server.shutdown(),
}


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS.keys())
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_what_others_left_in_the_queue_harms_no_connection(
    version: str, verb: Callable[[Engine, Engine], object]
) -> None:
    client, server = connected(version)
    client.write(b"question")
    ciphertext = client.drain()
    server.feed(ciphertext[:10])
    put(SSL_LIBRARY, 267)
    verb(client, server)
    server.feed(ciphertext[10:])
    put(X509_LIBRARY, 116)
    assert server.read() == b"question"
    assert server.read() is Want.READ


def test_what_others_left_in_the_queue_harms_no_handshake() -> None:
    client, server = engines()
    while client.info is None or server.info is None:
        for engine, peer in ((client, server), (server, client)):
            put(SSL_LIBRARY, 267)
            if engine.info is None:
                engine.do_handshake()
            if data := engine.drain():
                peer.feed(data)


@pytest.mark.parametrize("verb", [Engine.read, Engine.peek])
def test_what_others_left_in_the_queue_is_not_taken_for_the_reason_of_a_failure(
    verb: Callable[[Engine], object],
) -> None:
    _, server = connected()
    server.feed(b"\x17\x03\x03\x00\x20" + bytes(32))
    put(SSL_LIBRARY, 267)
    with pytest.raises(tls.ProtocolError) as caught:
        verb(server)
    assert caught.value.code == "ERR_SSL_DECRYPTION_FAILED_OR_BAD_RECORD_MAC"


# Callbacks


@pytest.mark.parametrize(
    ("options", "alert"),
    [
        ({"alpn_protocols": ["h2"]}, tls.Alert.no_application_protocol),
        ({}, tls.Alert.unrecognized_name),
    ],
)
def test_a_callback_that_does_not_know_its_connection_refuses(
    options: dict[str, Any], alert: tls.Alert, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    client, server = engines(**options)
    client.do_handshake()
    server.feed(client.drain())
    hello = server.read_client_hello()
    assert not isinstance(hello, Want)
    server.choose(server.context, alpn_protocol=hello.alpn_protocols[0] if options else None)
    del callbacks.connections[server._ssl]
    with pytest.raises(tls.ProtocolError):
        server.do_handshake()
    assert server.drain()[:2] == alert.plaintext_record()[:2]


def test_a_certificate_that_nobody_can_judge_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    client, server = engines()
    client.verification = None
    with pytest.raises(tls.ProtocolError) as caught:
        shake_hands(client, server)
    assert caught.value.code == "ERR_SSL_CERTIFICATE_VERIFY_FAILED"


def test_a_connection_is_forgotten_when_it_is_released_or_freed() -> None:
    gc.collect()
    known = callbacks.connections
    before = len(known)
    client, server = connected()
    assert len(known) == before + 2
    client.release()
    client.release()
    assert client._ssl is None
    assert client.openssl_state is None
    assert client.info is not None
    assert len(known) == before + 1
    gc.disable()
    try:
        del server
        assert len(known) == before
    finally:
        gc.enable()


def test_the_state_of_a_handshake_is_told_in_openssls_words() -> None:
    client, server = engines()
    assert server.openssl_state is None
    assert client.openssl_state == "before SSL initialization"
    client.do_handshake()
    assert client.openssl_state == "SSLv3/TLS write client hello"
    shake_hands(client, server)
    assert client.openssl_state == "SSL negotiation finished successfully"


# Memory


def test_buffers_belong_to_a_thread() -> None:
    assert len(buffers.incoming_view) == INCOMING_SIZE
    assert len(buffers.outgoing_view) == OUTGOING_SIZE
    assert len(buffers.plaintext_view) == PLAINTEXT_SIZE
    mine = buffers.incoming, buffers.outgoing, buffers.plaintext
    others: list[Any] = []

    def look() -> None:
        others.extend((buffers.incoming, buffers.outgoing, buffers.plaintext))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert not set(map(id, mine)) & set(map(id, others))
    assert (buffers.incoming, buffers.outgoing, buffers.plaintext) == mine


@pytest.mark.parametrize("piece", [700, 20_000, 1 << 20])
def test_a_connection_that_waits_holds_on_to_nothing(piece: int) -> None:
    client, server = connected()
    for size in (300_000, 10):
        client.write(bytes(size))
        ciphertext = client.drain()
        received = 0
        for at in range(0, len(ciphertext), piece):
            server.feed(ciphertext[at : at + piece])
            while isinstance(data := server.read(), bytes):
                received += len(data)
        assert received == size
    for engine in (client, server):
        assert engine.read() is Want.READ
        assert engine._borrowed is None
        assert not engine._rbio_grown
    assert lib.BIO_get_mem_data(server._rbio, connection_module._no_data) == 0


def test_large_pieces_are_read_in_place() -> None:
    client, server = connected()
    client.write(bytes(100_000))
    ciphertext = client.drain()
    server.feed(ciphertext)
    assert server._borrowed is not None
    assert server.read(10) == bytes(10)
    # What is left was copied: the piece belongs to somebody else from now on.
    assert server._borrowed is None
    assert server.read() == bytes(99_990)


# Verdicts


@pytest.mark.feature("D3")
@pytest.mark.parametrize(
    ("result", "name", "text"),
    [
        (0, "X509_V_ERR_0", "ok"),
        (1, "UNSPECIFIED", "unspecified certificate verification error"),
        (10, "CERT_HAS_EXPIRED", "certificate has expired"),
        (21, "UNABLE_TO_VERIFY_LEAF_SIGNATURE", "unable to verify the first certificate"),
        (62, "HOSTNAME_MISMATCH", "hostname mismatch"),
        (66, "EE_KEY_TOO_SMALL", "EE certificate key too weak"),
        (9999, "X509_V_ERR_9999", "unknown certificate verification error"),
    ],
)
def test_a_verify_result_has_its_constants_name_and_the_familiar_text(
    result: int, name: str, text: str
) -> None:
    if result:
        assert name_of(result) == name
    assert text_of(result) == text


# Contexts


def test_what_a_context_refuses_leaves_nothing_in_the_queue() -> None:
    with pytest.raises(tls.ConfigurationError):
        tls.SecureContext(groups="no-such-group")
    with pytest.raises(tls.ConfigurationError):
        tls.SecureContext(ciphers="NO-SUCH-CIPHER")
    authority = default_authority()
    with pytest.raises(tls.ConfigurationError):
        tls.SecureContext(key=authority.good("a").key, cert=authority.good("a").cert)
    assert lib.ERR_peek_error() == 0


def test_an_ssl_keeps_its_context_alive() -> None:
    ssl_ctx = SSLContext(server_side=False, verify_mode=VERIFY_NONE)
    connection = connection_module.Connection()
    connection.open(ssl_ctx, server_side=False, server_name="localhost")
    del ssl_ctx
    gc.collect()
    assert not connection.step_handshake()


# The library


@pytest.mark.feature("F14")
def test_features_are_facts_that_nobody_can_change() -> None:
    assert isinstance(tls.features, MappingProxyType)
    assert {type(value) for value in tls.features.values()} == {bool}
    assert tls.features["tls13"]
    assert tls.features["groups"] == hasattr(lib, "SSL_CTX_set1_curves_list")
    assert library.openssl_version.startswith("OpenSSL ")


def import_library_again() -> None:
    spec = importlib.util.spec_from_file_location(f"{library.__package__}.again", library.__file__)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


@pytest.mark.feature("F14")
def test_an_unusable_cryptography_is_told_by_name_and_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "OpenSSL", None)
    with pytest.raises(ImportError, match=r"cryptography >= 50.* cryptography \d+\.") as caught:
        import_library_again()
    assert caught.value.name == "cryptography"


@pytest.mark.feature("F14")
def test_a_missing_cryptography_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_found(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setitem(sys.modules, "OpenSSL", None)
    monkeypatch.setattr(importlib.metadata, "version", not_found)
    with pytest.raises(ImportError, match="cryptography none"):
        import_library_again()
