"""TLS for Trio: everything that Node.js's ``tls`` module offers, on pyOpenSSL."""

from . import options
from ._openssl.cipher_list import get_ciphers
from ._openssl.groups import get_groups
from ._openssl.library import features, version_report
from ._version import __version__
from .addresses import Address
from .alerts import Alert
from .ca_store import root_certificates
from .certificates import Certificate
from .choice import Choice
from .client import connect, connect_unix, wrap_client
from .client_hello import ClientHello
from .client_options import ClientStreamOptions
from .client_rule import ClientRule
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
from .expiry import Expiry, expiries
from .findings import Finding
from .identity import check_server_identity
from .info import Cipher, ConnectionInfo, EphemeralKey, StreamStatistics
from .inspection import Inspection, InspectionProgress, inspect
from .listener import TLSListener
from .local_authority import LocalAuthority, LocalCertificate
from .ocsp_stapler import OCSPStapler, StaplerStatistics
from .proxy import ProxiedConnection, ProxyHandler, ProxyRoute
from .proxy_protocol_listener import ProxyProtocolListener
from .psk import PreSharedKey
from .record_layer import Want
from .server import ServerStatistics, TLSServer
from .server_options import ServerOptions
from .sessions import SessionCache, SessionCacheStatistics
from .starttls import StartTLSProtocol, request_starttls
from .stream import TLSStream
from .supervision import TLSClientErrors
from .trace import HandshakeTrace
from .watch_credentials import watch_credentials

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
