"""The linked OpenSSL library: its functions, its version, and what its build can do."""

from __future__ import annotations

import importlib.metadata
from types import MappingProxyType
from typing import Any

ffi: Any
lib: Any
try:
    from OpenSSL import SSL, crypto
    from OpenSSL._util import ffi, lib
except ImportError as error:
    try:
        found = importlib.metadata.version("cryptography")
    except importlib.metadata.PackageNotFoundError:
        found = "none"
    raise ImportError(
        "trio_tlsnode needs pyOpenSSL >= 26.4 and cryptography >= 50 with its OpenSSL bindings; "
        f"importing them failed ({error}); the cryptography found here is {found}. "
        "Try: pip install --upgrade pyOpenSSL cryptography",
        name="cryptography",
    ) from error

__all__ = ["NULL", "SSL", "crypto", "features", "ffi", "lib", "openssl_version", "pointer_to"]

NULL = ffi.NULL

pointer_to = ffi.from_buffer
"""Return a pointer to the memory of bytes, a bytearray or a memoryview; it keeps them alive."""

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
        "tls13": lib.Cryptography_HAS_TLSv1_3_FUNCTIONS == 1,
    }
)
"""What the linked OpenSSL can do through this build of cryptography: name -> bool."""
