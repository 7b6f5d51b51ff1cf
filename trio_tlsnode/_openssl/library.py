"""The linked OpenSSL library: its functions, its version, and what its build can do."""

from __future__ import annotations

import platform
from types import MappingProxyType
from typing import Any

from .._version import __version__


def _version(package: str) -> str:
    # Much to load, for what only a report says.
    import importlib.metadata

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


ffi: Any
lib: Any
try:
    from OpenSSL import SSL, crypto
    from OpenSSL._util import ffi, lib

    # Of all that older versions lack, the first that would be missed.
    SSL.Context.set_tls13_ciphersuites  # noqa: B018 - older versions lack it
except (ImportError, AttributeError) as error:
    raise ImportError(
        "trio_tlsnode needs pyOpenSSL >= 26.4 and cryptography >= 50.  Here are "
        f"pyOpenSSL {_version('pyOpenSSL')} and cryptography {_version('cryptography')}: {error}.  "
        "Try: pip install --upgrade pyOpenSSL cryptography",
        name="cryptography",
    ) from error

__all__ = [
    "NULL",
    "SSL",
    "crypto",
    "features",
    "ffi",
    "lib",
    "memory_of",
    "openssl_version",
    "pointer_to",
    "version_report",
]

NULL = ffi.NULL

pointer_to = ffi.from_buffer
"""Return a pointer to the memory of bytes, a bytearray or a memoryview; it keeps them alive."""

memory_of = ffi.buffer
"""Return the memory behind a pointer with a length, to be read and written as bytes."""

openssl_version: str = ffi.string(lib.OpenSSL_version(lib.OPENSSL_VERSION)).decode()


def _has(*functions: str) -> bool:
    return all(hasattr(lib, name) for name in functions)


features = MappingProxyType(
    {
        "early_data": _has("SSL_CTX_set_max_early_data", "SSL_read_early_data"),
        "groups": _has("SSL_CTX_set1_curves_list"),
        "keylog": _has("SSL_CTX_set_keylog_callback"),
        "post_handshake_auth": _has("SSL_verify_client_post_handshake", "SSL_set_post_handshake_auth"),
        "psk": _has("SSL_CTX_set_psk_client_callback", "SSL_CTX_set_psk_server_callback"),
        "psk_tls13": _has("SSL_CTX_set_psk_find_session_callback", "SSL_CTX_set_psk_use_session_callback"),
        "session_store": _has("SSL_CTX_sess_set_get_cb"),
        "sigalgs": _has("SSL_CTX_set1_sigalgs_list"),
        "ticket_keys": _has("SSL_CTX_set_tlsext_ticket_keys"),
        "tls13": _has("SSL_CTX_set_ciphersuites"),
    }
)
"""What the linked OpenSSL can do through this build of cryptography: name -> bool.

What is False is refused with `FeatureUnavailable`, whose `feature` is the name here.

- early_data: 0-RTT of TLS 1.3
- groups: choosing key-exchange groups
- keylog: writing down the keys, for Wireshark
- post_handshake_auth: asking a client of TLS 1.3 for its certificate after the handshake
- psk, psk_tls13: pre-shared keys, up to TLS 1.2 and in TLS 1.3
- session_store: a server's sessions in a store that several processes share
- sigalgs: choosing signature algorithms
- ticket_keys: setting and reading the keys of session tickets
- tls13: TLS 1.3
"""


def version_report() -> str:
    """Return what a bug report should tell: versions, platform and features, a line each."""
    available = [name for name, there in features.items() if there]
    missing = [name for name, there in features.items() if not there]
    return "\n".join(
        (
            f"trio_tlsnode {__version__}",
            f"{platform.python_implementation()} {platform.python_version()}",
            *(f"{package} {_version(package)}" for package in ("trio", "pyOpenSSL", "cryptography")),
            openssl_version,
            platform.platform(),
            f"features: {', '.join(available)}",
            f"missing: {', '.join(missing) or 'none'}",
        )
    )
