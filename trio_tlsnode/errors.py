"""The errors of this package: one tree under TLSError, each with its facts as fields.

The class says what happened and `phase` when; `code` is spelt as Node.js spells it.  The text is made from
the fields, so nothing needs to parse it.  An alert to the peer has left before any of these is raised.
"""

from __future__ import annotations

import dataclasses
import errno
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import trio

from .alerts import Alert
from .html_table import html_line, html_table

if TYPE_CHECKING:
    from .addresses import Address
    from .certificates import Certificate
    from .client_hello import ClientHello
    from .stream import TLSStream

NeedHandshakeError = trio.NeedHandshakeError

Side = Literal["peer", "local", "network", "usage"]
Phase = Literal["hello", "handshake", "secure", "closing"]


class TLSError(Exception):
    """Something about TLS went wrong: the base of every error that this package raises.

    Attributes:
        code: The machine-readable code, as Node.js spells it ("CERT_HAS_EXPIRED", "ECONNRESET").
        reason: What happened, in words; OpenSSL's familiar text where it has one.
        side: Who is at fault: "peer" (broke the protocol or refused us), "local" (we refused the peer, or a
            callback of the application failed), "network", or "usage" (we were called wrongly).
        retryable: Whether the same call may succeed later: true for the network and for time-outs, false
            for certificates and configuration.
    """

    _IN_JSON: ClassVar[tuple[str, ...]] = ("code", "reason", "side", "retryable")

    code: str = "ERR_TLS"
    reason: str
    side: Side = "local"
    retryable: bool = False

    def __init__(self, reason: str, *, code: str | None = None, side: Side | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        if code is not None:
            self.code = code
        if side is not None:
            self.side = side

    def __str__(self) -> str:
        return f"{_one_line(self.reason)} [{self.code}]"

    def _facts(self) -> dict[str, object]:
        facts: dict[str, object] = {"reason": self.reason, "side": self.side, "retryable": self.retryable}
        facts |= {name: fact for name, fact in vars(self).items() if name not in _NOT_SHOWN}
        if self.__cause__ is not None:
            facts["cause"] = f"{type(self.__cause__).__name__}: {self.__cause__}"
        return facts

    def _html_line_(self) -> str:
        return html_line(self.reason, code=self.code)

    def _repr_html_(self) -> str:
        return html_table(type(self).__name__, self._facts(), badge=self.code, tone="bad")

    def to_dict(self) -> dict[str, Any]:
        """Return the error as what JSON has: its class, and its attributes.

        An alert is its name, or a number; an address has host, port and family; a certificate is as
        `Certificate.to_dict` has it.  What is no text for people is left out: the stream, the ClientHello,
        the first bytes.
        """
        names = dict.fromkeys(
            name for cls in reversed(type(self).__mro__) for name in vars(cls).get("_IN_JSON", ())
        )
        return {"class": type(self).__name__, **{name: _plain(getattr(self, name)) for name in names}}

    def again(self) -> Self:
        """Return a new error with the same facts and cause, without traceback and context.

        A failed stream keeps its first error and raises such a copy at every later call.
        """
        copy = type(self).__new__(type(self), *self.args)
        copy.__dict__.update(self.__dict__)
        copy.args = self.args
        copy.__cause__ = self.__cause__
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        facts = {name: value for name, value in self.__dict__.items() if name != "stream"}
        return _restore, (type(self), self.args, facts)


# Facts that would fill a page, and what Python keeps of `add_note`.
_NOT_SHOWN = {"code", "stream", "client_hello", "__notes__"}


def _one_line(text: str) -> str:
    """Return a text without what a peer could forge further lines with."""
    return "".join([character if character.isprintable() else ascii(character)[1:-1] for character in text])


def _plain(fact: Any) -> Any:
    """Return a fact as what JSON has."""
    if isinstance(fact, Alert):
        return fact.name
    if hasattr(fact, "_asdict"):
        return fact._asdict()
    if isinstance(fact, tuple):
        return [_plain(part) for part in fact]
    return fact.to_dict() if hasattr(fact, "to_dict") else fact


def _restore(cls: type[TLSError], args: tuple[Any, ...], facts: dict[str, Any]) -> TLSError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(facts)
    return error


class ConfigurationError(TLSError, ValueError):
    """Options, keys, certificates or ciphers that cannot be used; nothing was sent.

    Attributes:
        option: The option at fault ("cert"), or None where it is no single one.
        path: The file at fault, as a string, or None.
    """

    _IN_JSON: ClassVar[tuple[str, ...]] = ("option", "path")

    code = "ERR_INVALID_ARG_VALUE"
    side: Side = "usage"

    def __init__(
        self, reason: str, *, code: str | None = None, option: str | None = None, path: str | None = None
    ) -> None:
        super().__init__(reason, code=code)
        self.option = option
        self.path = path


class ConfigurationTypeError(ConfigurationError, TypeError):
    """An option was given a value of the wrong type."""

    code = "ERR_INVALID_ARG_TYPE"


class FeatureUnavailable(TLSError, NotImplementedError):  # noqa: N818 - FEATURES' public name
    """The linked OpenSSL, or the way it was built, cannot do this.

    Attributes:
        feature: The name under which `trio_tlsnode.features` lists it.
    """

    _IN_JSON: ClassVar[tuple[str, ...]] = ("feature",)

    code = "ERR_FEATURE_UNAVAILABLE_ON_PLATFORM"
    side: Side = "usage"

    def __init__(self, reason: str, *, feature: str) -> None:
        super().__init__(reason)
        self.feature = feature


class ConnectError(TLSError, OSError):
    """A connection could not be made: the name is unknown, the port is closed, the host is away.

    Attributes:
        host: The host, or the path of a Unix socket, that was asked for.
        port: The port that was asked for; None for a Unix socket.
    """

    _IN_JSON: ClassVar[tuple[str, ...]] = ("host", "port")

    code = "ECONNREFUSED"
    side: Side = "network"
    retryable = True

    def __init__(self, reason: str, *, code: str, host: str, port: int | None) -> None:
        super().__init__(reason, code=code)
        self.host = host
        self.port = port

    @property
    def errno(self) -> int | None:  # type: ignore[override]  # OSError declares a plain attribute
        """The error number of the code, or None for those of name resolution."""
        return getattr(errno, self.code, None)

    @property
    def strerror(self) -> str:  # type: ignore[override]  # OSError declares a plain attribute
        """The reason, under the name that OSError gives it."""
        return self.reason

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host and self.port is not None else self.host
        where = host if self.port is None else f"{host}:{self.port}"
        return f"{_one_line(self.reason)}: {where} [{self.code}]"


class ConnectionFailed(TLSError, trio.BrokenResourceError):  # noqa: N818 - FEATURES' public name
    """A connection failed, before or after it was secure.

    Attributes:
        phase: When: "hello" (before the client's first message was whole), "handshake", "secure" or
            "closing"; None for a verdict that belongs to no connection.
        stream: The stream that failed.  It has let go of its OpenSSL objects.
        remote_address: Who the peer was, if the transport can tell.
        server_name: The name that the client asked for, as far as it is known.
        client_hello: A server's view of the client's first message, if it arrived whole.
    """

    _IN_JSON: ClassVar[tuple[str, ...]] = ("phase", "remote_address", "server_name")

    phase: Phase | None = None
    stream: TLSStream | None = None
    remote_address: Address | None = None
    server_name: str | None = None
    client_hello: ClientHello | None = None

    def __str__(self) -> str:
        peer = "" if self.remote_address is None else f" ({self.remote_address})"
        return f"{_one_line(self.reason)}{peer} [{self.code}]"


class HandshakeTimeout(ConnectionFailed, trio.TooSlowError):
    """The handshake was not done in time.

    Attributes:
        timeout: How long it was given, in seconds.
    """

    _IN_JSON: ClassVar[tuple[str, ...]] = ("timeout",)

    code = "ERR_TLS_HANDSHAKE_TIMEOUT"
    side: Side = "network"
    retryable = True

    def __init__(self, reason: str, *, timeout: float) -> None:
        super().__init__(reason)
        self.timeout = timeout


class IdleTimeout(ConnectionFailed, trio.TooSlowError):
    """For too long, nothing has passed on a connection while something was waited for.

    Attributes:
        timeout: How long it was allowed to be idle, in seconds.
    """

    _IN_JSON: ClassVar[tuple[str, ...]] = ("timeout",)

    code = "ERR_TLS_IDLE_TIMEOUT"
    side: Side = "network"
    retryable = True

    def __init__(self, reason: str, *, timeout: float) -> None:
        super().__init__(reason)
        self.timeout = timeout


class SendTimeout(ConnectionFailed, trio.TooSlowError):
    """The peer did not take what was sent in time.

    Attributes:
        timeout: How long it was given, in seconds.
    """

    _IN_JSON: ClassVar[tuple[str, ...]] = ("timeout",)

    code = "ERR_TLS_SEND_TIMEOUT"
    side: Side = "network"
    retryable = True

    def __init__(self, reason: str, *, timeout: float) -> None:
        super().__init__(reason)
        self.timeout = timeout


class NotTLS(ConnectionFailed):
    """The peer does not speak TLS on this port.

    Attributes:
        looks_like: What its first bytes look like: "an HTTP request", "an SSH banner", "no TLS record".
        first_bytes: Those bytes, at most 32 of them.
    """

    _IN_JSON: ClassVar[tuple[str, ...]] = ("looks_like",)

    code = "ERR_SSL_WRONG_VERSION_NUMBER"
    side: Side = "peer"

    def __init__(self, reason: str, *, code: str, looks_like: str, first_bytes: bytes) -> None:
        super().__init__(reason, code=code)
        self.looks_like = looks_like
        self.first_bytes = first_bytes


class PeerAlert(ConnectionFailed):
    """The peer gave up and said why.

    In TLS 1.3 a client may learn only when it first reads that the server refused its certificate.

    Attributes:
        alert: What the peer sent; a plain int where it is none of RFC 8446's.
    """

    _IN_JSON: ClassVar[tuple[str, ...]] = ("alert",)

    side: Side = "peer"

    def __init__(self, reason: str, *, code: str, alert: Alert | int) -> None:
        super().__init__(reason, code=code)
        self.alert = alert


class ProtocolError(ConnectionFailed):
    """The peer broke the protocol, or it and we have nothing in common."""

    code = "ERR_SSL_PROTOCOL_ERROR"
    side: Side = "peer"


class CallbackError(ConnectionFailed):
    """A callback of the application raised, or returned what it may not; its exception is the cause.

    Attributes:
        callback: The option under which the callback was given ("sni_callback").
    """

    _IN_JSON: ClassVar[tuple[str, ...]] = ("callback",)

    code = "ERR_TLS_CALLBACK"

    def __init__(self, reason: str, *, callback: str, code: str | None = None) -> None:
        super().__init__(reason, code=code)
        self.callback = callback


class ConnectionLost(ConnectionFailed):
    """The transport broke, or ended before the connection was secure.

    Attributes:
        progress: How far the handshake had got, in OpenSSL's words, or None once it was done.
        bytes_received: Ciphertext received until then, in bytes.
        bytes_sent: Ciphertext sent until then, in bytes.
    """

    _IN_JSON: ClassVar[tuple[str, ...]] = ("progress", "bytes_received", "bytes_sent")

    code = "ECONNRESET"
    side: Side = "network"
    retryable = True

    progress: str | None = None
    bytes_received: int = 0
    bytes_sent: int = 0


class TruncationError(ConnectionLost):
    """The transport ended without the peer's close_notify, so what was received may be incomplete."""

    code = "ERR_SSL_UNEXPECTED_EOF_WHILE_READING"
    retryable = True


@dataclasses.dataclass(frozen=True, slots=True)
class CertificateProblem:
    """One thing that is wrong with a certificate chain.

    Attributes:
        code: Node's name of the verify result ("CERT_HAS_EXPIRED").
        reason: OpenSSL's text for it.
        depth: Where in the chain: 0 is the peer's own certificate.
        certificate: The certificate at fault, if there is one.
    """

    code: str
    reason: str
    depth: int
    certificate: Certificate | None

    def __str__(self) -> str:
        whose = "" if self.certificate is None else f", {self.certificate!r}"
        return f"{_one_line(self.reason)} [{self.code}], depth {self.depth}{whose}"

    def to_dict(self) -> dict[str, Any]:
        """Return the problem as what JSON has; in place of the certificate its ``fingerprint256``."""
        whose = self.certificate
        return {
            "code": self.code,
            "reason": self.reason,
            "depth": self.depth,
            "fingerprint256": None if whose is None else whose.fingerprint256,
        }

    def _html_line_(self) -> str:
        return html_line(self.reason, f"at depth {self.depth}", code=self.code)


class CertificateError(ConnectionFailed):
    """A certificate was refused, or would have been had we been asked to refuse.

    Attributes:
        certificate: The certificate at fault, if the peer presented one.
        depth: Where in the chain: 0 is the peer's own certificate.
        problems: Everything that was found wrong, in the order in which it was found; never empty.
        hint: What a person can do about it, or "".
    """

    _IN_JSON: ClassVar[tuple[str, ...]] = ("certificate", "depth", "problems", "hint")

    code = "UNSPECIFIED"
    side: Side = "peer"

    def __init__(
        self,
        reason: str,
        *,
        code: str,
        certificate: Certificate | None = None,
        depth: int = 0,
        problems: tuple[CertificateProblem, ...] = (),
        hint: str = "",
    ) -> None:
        super().__init__(reason, code=code)
        self.certificate = certificate
        self.depth = depth
        self.problems = problems or (CertificateProblem(code, reason, depth, certificate),)
        self.hint = hint

    def _facts(self) -> dict[str, object]:
        facts = super()._facts()
        del facts["certificate"]
        return facts

    def _repr_html_(self) -> str:
        certificate = "" if self.certificate is None else self.certificate._repr_html_()
        return f"{super()._repr_html_()}{certificate}"


class IdentityError(CertificateError):
    """The certificate is trusted, but is not for the name that was asked for.

    Attributes:
        host: The name or IP address that was checked.
        presented: The names that the certificate is for.
    """

    _IN_JSON: ClassVar[tuple[str, ...]] = ("host", "presented")

    code = "ERR_TLS_CERT_ALTNAME_INVALID"

    def __init__(
        self,
        reason: str,
        *,
        host: str,
        code: str = "ERR_TLS_CERT_ALTNAME_INVALID",
        certificate: Certificate | None = None,
        presented: tuple[str, ...] = (),
        hint: str = "",
    ) -> None:
        super().__init__(reason, code=code, certificate=certificate, hint=hint)
        self.host = host
        self.presented = presented
