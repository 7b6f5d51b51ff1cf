"""advice: what a person can do about an error, in the words of the library or of the command."""

from __future__ import annotations

from typing import Any

import pytest

import trio_tlsnode as tls
from trio_tlsnode.cli.credential_options import in_options

pytestmark = pytest.mark.feature("G11")


def no_connection(code: str, port: int | None = 8443) -> tls.ConnectError:
    return tls.ConnectError("why", code=code, host="localhost", port=port)


def not_tls(looks_like: str, code: str = tls.NotTLS.code) -> tls.NotTLS:
    return tls.NotTLS("why", code=code, looks_like=looks_like, first_bytes=b"")


def alert(kind: Any) -> tls.PeerAlert:
    return tls.PeerAlert("why", code="CODE", alert=kind)


def lost(progress: str | None) -> tls.ConnectionLost:
    error = tls.ConnectionLost("why")
    error.progress = progress
    return error


@pytest.mark.parametrize(
    ("error", "start"),
    [
        (no_connection("ECONNREFUSED"), "Nothing listens there"),
        (no_connection("ENOTFOUND"), "Look whether the name is spelt right"),
        (no_connection("EADDRINUSE"), "Another program listens there"),
        (no_connection("EACCES", 443), "Ports below 1024 need a privilege"),
        (no_connection("EACCES"), ""),
        (no_connection("EACCES", None), ""),
        (not_tls("an IMAP greeting"), 'The server begins in plaintext: ask for TLS by starttls="imap".'),
        (not_tls("an HTTP request"), "The client should ask by https://"),
        (not_tls("an HTTP response"), "Name the port on which the server speaks TLS"),
        (not_tls("an SMTP server without TLS", "ERR_TLS_STARTTLS_REFUSED"), "Switch TLS on in the server"),
        (alert(tls.Alert.certificate_required), "The server wants a client certificate"),
        (alert(tls.Alert.protocol_version), "The two have no version in common"),
        (alert(tls.Alert.internal_error), ""),
        (alert(250), ""),
        (tls.HandshakeTimeout("why", timeout=1), "Name the port on which the server speaks TLS"),
        (lost("SSLv3/TLS write client hello"), "Look whether the server speaks TLS on this port"),
        (lost(None), ""),
        (tls.CertificateError("why", code="CODE", hint="Do that."), "Do that."),
        (KeyError("x"), ""),
    ],
)
def test_an_error_of_which_something_is_known_has_advice(error: BaseException, start: str) -> None:
    told = tls.advice(error)
    assert told.startswith(start)
    assert bool(told) is bool(start)


def test_an_ipv6_address_is_told_apart_from_its_port() -> None:
    error = tls.ConnectError("Connection refused", code="ECONNREFUSED", host="::1", port=443)
    assert str(error) == "Connection refused: [::1]:443 [ECONNREFUSED]"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("trust it by ca=", "trust it by --ca"),
        ("by ca=[...] or cert= and key=", "by --ca or --cert and --key"),
        ('ask for TLS by starttls="imap".', "ask for TLS by --starttls imap."),
        ("min_version= and alpn_protocols=", "--min-version and --alpn"),
        ("cert (my file.pem): there is none", "--cert my file.pem: there is none"),
        ("ca=[x] stays", "ca=[x] stays"),
    ],
)
def test_the_command_names_its_own_options(text: str, told: str) -> None:
    assert in_options(text) == told
