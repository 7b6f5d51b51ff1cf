"""The tree of errors: who catches what, and facts that survive copying, raising and pickling."""

from __future__ import annotations

import copy
import errno
import pickle
from typing import Any

import pytest
import trio

import trio_tlsnode as tls
from trio_tlsnode.errors import NeedHandshakeError

FACTS: dict[type[tls.TLSError], dict[str, Any]] = {
    tls.TLSError: {},
    tls.ConfigurationError: {"option": "cert", "path": "/etc/cert.pem"},
    tls.ConfigurationTypeError: {"option": "cert"},
    tls.FeatureUnavailable: {"feature": "ticket_keys"},
    tls.ConnectError: {"code": "ECONNREFUSED", "host": "localhost", "port": 443},
    tls.ConnectionFailed: {"code": "ERR_X", "side": "peer"},
    tls.HandshakeTimeout: {"timeout": 120.0},
    tls.IdleTimeout: {"timeout": 60.0},
    tls.SendTimeout: {"timeout": 10.0},
    tls.NotTLS: {"code": "ERR_SSL_HTTP_REQUEST", "looks_like": "an HTTP request", "first_bytes": b"GET /"},
    tls.CertificateError: {
        "code": "CERT_HAS_EXPIRED",
        "depth": 1,
        "hint": "renew it",
        "problems": (tls.CertificateProblem("CERT_HAS_EXPIRED", "certificate has expired", 1, None),),
    },
    tls.IdentityError: {"host": "example.com", "presented": ("example.org",), "hint": "use the right name"},
    tls.PeerAlert: {"code": "ERR_SSL_TLSV1_ALERT_UNKNOWN_CA", "alert": tls.Alert.unknown_ca},
    tls.ProtocolError: {"code": "ERR_SSL_BAD_EXTENSION"},
    tls.CallbackError: {"callback": "sni_callback"},
    tls.ConnectionLost: {"code": "EPIPE"},
    tls.TruncationError: {},
}
each_error = pytest.mark.parametrize("cls", FACTS)


def make(cls: type[tls.TLSError]) -> Any:
    return cls("what happened", **FACTS[cls])


def test_every_error_of_the_package_is_looked_at_here() -> None:
    public = [getattr(tls, name) for name in tls.__all__]
    errors = {thing for thing in public if isinstance(thing, type) and issubclass(thing, tls.TLSError)}
    assert errors == set(FACTS)


@pytest.mark.parametrize(
    ("cls", "bases"),
    [
        (tls.TLSError, (Exception,)),
        (tls.ConfigurationError, (tls.TLSError, ValueError)),
        (tls.ConfigurationTypeError, (tls.ConfigurationError, TypeError)),
        (tls.FeatureUnavailable, (tls.TLSError, NotImplementedError)),
        (tls.ConnectError, (tls.TLSError, OSError)),
        (tls.ConnectionFailed, (tls.TLSError, trio.BrokenResourceError)),
        (tls.HandshakeTimeout, (tls.ConnectionFailed, trio.TooSlowError)),
        (tls.IdleTimeout, (tls.ConnectionFailed, trio.TooSlowError)),
        (tls.SendTimeout, (tls.ConnectionFailed, trio.TooSlowError)),
        (tls.NotTLS, (tls.ConnectionFailed,)),
        (tls.CertificateError, (tls.ConnectionFailed,)),
        (tls.IdentityError, (tls.CertificateError,)),
        (tls.PeerAlert, (tls.ConnectionFailed,)),
        (tls.ProtocolError, (tls.ConnectionFailed,)),
        (tls.CallbackError, (tls.ConnectionFailed,)),
        (tls.ConnectionLost, (tls.ConnectionFailed,)),
        (tls.TruncationError, (tls.ConnectionLost,)),
    ],
)
def test_who_catches_what(cls: type[tls.TLSError], bases: tuple[type[Exception], ...]) -> None:
    assert cls.__bases__ == bases
    with pytest.raises(bases):
        raise make(cls)


def test_use_before_the_handshake_is_trios_error() -> None:
    assert NeedHandshakeError is trio.NeedHandshakeError


@pytest.mark.parametrize(
    ("cls", "code", "side", "retryable"),
    [
        (tls.TLSError, "ERR_TLS", "local", False),
        (tls.ConfigurationError, "ERR_INVALID_ARG_VALUE", "usage", False),
        (tls.ConfigurationTypeError, "ERR_INVALID_ARG_TYPE", "usage", False),
        (tls.FeatureUnavailable, "ERR_FEATURE_UNAVAILABLE_ON_PLATFORM", "usage", False),
        (tls.ConnectError, "ECONNREFUSED", "network", True),
        (tls.HandshakeTimeout, "ERR_TLS_HANDSHAKE_TIMEOUT", "network", True),
        (tls.IdleTimeout, "ERR_TLS_IDLE_TIMEOUT", "network", True),
        (tls.SendTimeout, "ERR_TLS_SEND_TIMEOUT", "network", True),
        (tls.NotTLS, "ERR_SSL_HTTP_REQUEST", "peer", False),
        (tls.CertificateError, "CERT_HAS_EXPIRED", "peer", False),
        (tls.IdentityError, "ERR_TLS_CERT_ALTNAME_INVALID", "peer", False),
        (tls.PeerAlert, "ERR_SSL_TLSV1_ALERT_UNKNOWN_CA", "peer", False),
        (tls.ProtocolError, "ERR_SSL_BAD_EXTENSION", "peer", False),
        (tls.CallbackError, "ERR_TLS_CALLBACK", "local", False),
        (tls.ConnectionLost, "EPIPE", "network", True),
        (tls.TruncationError, "ERR_SSL_UNEXPECTED_EOF_WHILE_READING", "network", True),
    ],
)
@pytest.mark.feature("A22")
def test_code_fault_and_whether_it_helps_to_try_again(
    cls: type[tls.TLSError], code: str, side: str, retryable: bool
) -> None:
    error = make(cls)
    assert (error.code, error.side, error.retryable) == (code, side, retryable)


def test_a_lost_connection_is_a_reset_unless_it_says_otherwise() -> None:
    assert tls.ConnectionLost("gone").code == "ECONNRESET"
    assert (
        tls.IdentityError("no", host="a", code="ERR_TLS_CERT_ALTNAME_FORMAT").code
        == "ERR_TLS_CERT_ALTNAME_FORMAT"
    )


@each_error
def test_the_text_has_the_reason_and_the_code(cls: type[tls.TLSError]) -> None:
    error = make(cls)
    assert "what happened" in str(error)
    assert f"[{error.code}]" in str(error)


def test_the_text_names_the_peer() -> None:
    error = tls.ProtocolError("odd", code="ERR_X")
    error.remote_address = tls.Address("2001:db8::1", 443, "IPv6")
    assert str(error) == "odd ([2001:db8::1]:443) [ERR_X]"
    assert (
        str(tls.ConnectError("refused", code="ECONNREFUSED", host="a", port=1))
        == "refused: a:1 [ECONNREFUSED]"
    )
    assert str(tls.ConnectError("missing", code="ENOENT", host="/a", port=None)) == "missing: /a [ENOENT]"


@pytest.mark.feature("A21")
def test_a_connect_error_has_what_an_os_error_has() -> None:
    refused = tls.ConnectError("connection refused", code="ECONNREFUSED", host="a", port=1)
    assert (refused.errno, refused.strerror) == (errno.ECONNREFUSED, "connection refused")
    assert tls.ConnectError("who?", code="ENOTFOUND", host="a", port=1).errno is None


@each_error
def test_a_copy_has_the_facts_and_the_cause_and_nothing_of_the_raising(cls: type[tls.TLSError]) -> None:
    error = make(cls)
    if isinstance(error, tls.ConnectionFailed):
        error.phase = "handshake"
        error.server_name = "localhost"
    try:
        try:
            raise LookupError("the cause")
        except LookupError as cause:
            raise error from cause
    except tls.TLSError:
        again = error.again()
    assert again is not error
    assert type(again) is cls
    assert again.args == error.args
    assert vars(again) == vars(error)
    assert str(again) == str(error)
    assert again.__cause__ is error.__cause__ is not None
    assert error.__traceback__ is not None
    assert again.__traceback__ is None
    assert again.__context__ is None
    assert again.__suppress_context__


@each_error
def test_it_survives_pickling_and_copying_without_its_stream(cls: type[tls.TLSError]) -> None:
    error = make(cls)
    if isinstance(error, tls.ConnectionFailed):
        error.stream = object()  # type: ignore[assignment]  # what cannot be pickled
        error.phase = "secure"
        error.remote_address = tls.Address("192.0.2.1", 443, "IPv4")
    for made in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(made) is cls
        assert made.args == error.args
        assert str(made) == str(error)
        assert {**vars(made), "stream": None} == {**vars(error), "stream": None}
        assert getattr(made, "stream", None) is None


def test_facts_that_nobody_gave_are_none() -> None:
    error = tls.ProtocolError("odd")
    assert (error.phase, error.stream, error.remote_address) == (None, None, None)
    assert (error.server_name, error.client_hello) == (None, None)
    lost = tls.ConnectionLost("gone")
    assert (lost.progress, lost.bytes_sent, lost.bytes_received) == (None, 0, 0)
    configuration = tls.ConfigurationError("no")
    assert (configuration.option, configuration.path) == (None, None)


def test_errors_can_be_caught_in_groups() -> None:
    caught: list[BaseException] = []
    try:
        raise ExceptionGroup(
            "several", [make(tls.IdentityError), make(tls.HandshakeTimeout), make(tls.ConnectError)]
        )
    except* tls.CertificateError as group:
        caught += group.exceptions
    except* trio.TooSlowError as group:
        caught += group.exceptions
    except* OSError as group:
        caught += group.exceptions
    assert [type(error) for error in caught] == [tls.IdentityError, tls.HandshakeTimeout, tls.ConnectError]


@pytest.mark.parametrize("alert", tls.Alert)
def test_an_alert_in_the_clear_is_a_record_of_seven_bytes(alert: tls.Alert) -> None:
    assert alert.plaintext_record() == bytes.fromhex("15 03 03 00 02 02") + bytes([alert])
