"""TLS for Trio: everything that Node.js's ``tls`` module offers, on pyOpenSSL."""

import importlib as _importlib
import typing as _typing

from . import options
from ._openssl.cipher_list import get_ciphers
from ._openssl.groups import get_groups
from ._openssl.library import features, version_report
from ._version import __version__
from .addresses import Address
from .advice import advice
from .alerts import Alert
from .ca_store import root_certificates
from .certificates import Certificate
from .client import connect, connect_unix, wrap_client
from .client_hello import ClientHello
from .client_options import ClientStreamOptions
from .context import SecureContext
from .defaults import defaults, get_ca_certificates
from .engine import Engine
from .errors import (
    CallbackError,
    CertificateError,
    CertificateProblem,
    ConfigurationError,
    ConfigurationTypeError,
    ConnectError,
    ConnectionFailed,
    ConnectionLost,
    FeatureUnavailable,
    HandshakeTimeout,
    IdentityError,
    IdleTimeout,
    NotTLS,
    PeerAlert,
    ProtocolError,
    SendTimeout,
    TLSError,
    TruncationError,
)
from .identity import check_server_identity
from .info import Cipher, ConnectionInfo, EphemeralKey, StreamStatistics
from .psk import PreSharedKey
from .record_layer import Want
from .sessions import SessionCache, SessionCacheStatistics
from .stream import TLSStream

if _typing.TYPE_CHECKING:
    from .choice import Choice
    from .client_rule import ClientRule
    from .expiry import Expiry, expiries
    from .findings import Finding
    from .inspection import Inspection, InspectionProgress, inspect
    from .listener import TLSListener
    from .local_authority import LocalAuthority, LocalCertificate
    from .ocsp_stapler import OCSPStapler, StaplerStatistics
    from .proxy import ProxiedConnection, ProxyHandler, ProxyRoute
    from .proxy_protocol_listener import ProxyProtocolListener
    from .reloading import watch_credentials
    from .server import ServerStatistics, TLSServer
    from .server_options import ServerOptions
    from .starttls import StartTLSProtocol, request_starttls
    from .supervision import TLSClientErrors
    from .trace import HandshakeTrace

__all__ = [
    "Address",
    "Alert",
    "CallbackError",
    "Certificate",
    "CertificateError",
    "CertificateProblem",
    "Choice",
    "Cipher",
    "ClientHello",
    "ClientRule",
    "ClientStreamOptions",
    "ConfigurationError",
    "ConfigurationTypeError",
    "ConnectError",
    "ConnectionFailed",
    "ConnectionInfo",
    "ConnectionLost",
    "Engine",
    "EphemeralKey",
    "Expiry",
    "FeatureUnavailable",
    "Finding",
    "HandshakeTimeout",
    "HandshakeTrace",
    "IdentityError",
    "IdleTimeout",
    "Inspection",
    "InspectionProgress",
    "LocalAuthority",
    "LocalCertificate",
    "NotTLS",
    "OCSPStapler",
    "PeerAlert",
    "PreSharedKey",
    "ProtocolError",
    "ProxiedConnection",
    "ProxyHandler",
    "ProxyProtocolListener",
    "ProxyRoute",
    "SecureContext",
    "SendTimeout",
    "ServerOptions",
    "ServerStatistics",
    "SessionCache",
    "SessionCacheStatistics",
    "StaplerStatistics",
    "StartTLSProtocol",
    "StreamStatistics",
    "TLSClientErrors",
    "TLSError",
    "TLSListener",
    "TLSServer",
    "TLSStream",
    "TruncationError",
    "Want",
    "__version__",
    "advice",
    "check_server_identity",
    "connect",
    "connect_unix",
    "defaults",
    "expiries",
    "features",
    "get_ca_certificates",
    "get_ciphers",
    "get_groups",
    "inspect",
    "options",
    "request_starttls",
    "root_certificates",
    "version_report",
    "watch_credentials",
    "wrap_client",
]

# A program pays for what it uses: what no client needs is loaded when it is first asked for (PEP 562).
_LATER: _typing.Final = {
    "Choice": "choice",
    "ClientRule": "client_rule",
    "Expiry": "expiry",
    "Finding": "findings",
    "HandshakeTrace": "trace",
    "Inspection": "inspection",
    "InspectionProgress": "inspection",
    "LocalAuthority": "local_authority",
    "LocalCertificate": "local_authority",
    "OCSPStapler": "ocsp_stapler",
    "ProxiedConnection": "proxy",
    "ProxyHandler": "proxy",
    "ProxyProtocolListener": "proxy_protocol_listener",
    "ProxyRoute": "proxy",
    "ServerOptions": "server_options",
    "ServerStatistics": "server",
    "StaplerStatistics": "ocsp_stapler",
    "StartTLSProtocol": "starttls",
    "TLSClientErrors": "supervision",
    "TLSListener": "listener",
    "TLSServer": "server",
    "expiries": "expiry",
    "inspect": "inspection",
    "request_starttls": "starttls",
    "watch_credentials": "reloading",
}

if not _typing.TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        module = _LATER.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(_importlib.import_module(f".{module}", __name__), name)
        # The next time, it is there.
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
