"""OpenSSL's option bits for ``SecureContext(secure_options=...)``, as Node has them in
``crypto.constants``.
"""

from __future__ import annotations

from typing import Final

# The numbers are part of OpenSSL's interface (openssl/ssl.h) since 3.0.
SSL_OP_NO_EXTENDED_MASTER_SECRET: Final = 1 << 0
SSL_OP_LEGACY_SERVER_CONNECT: Final = 1 << 2
SSL_OP_ENABLE_KTLS: Final = 1 << 3
SSL_OP_TLSEXT_PADDING: Final = 1 << 4
SSL_OP_SAFARI_ECDHE_ECDSA_BUG: Final = 1 << 6
SSL_OP_IGNORE_UNEXPECTED_EOF: Final = 1 << 7
SSL_OP_ALLOW_CLIENT_RENEGOTIATION: Final = 1 << 8
SSL_OP_ALLOW_NO_DHE_KEX: Final = 1 << 10
SSL_OP_DONT_INSERT_EMPTY_FRAGMENTS: Final = 1 << 11
SSL_OP_NO_QUERY_MTU: Final = 1 << 12
SSL_OP_COOKIE_EXCHANGE: Final = 1 << 13
SSL_OP_NO_TICKET: Final = 1 << 14
SSL_OP_CISCO_ANYCONNECT: Final = 1 << 15
SSL_OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION: Final = 1 << 16
SSL_OP_NO_COMPRESSION: Final = 1 << 17
SSL_OP_ALLOW_UNSAFE_LEGACY_RENEGOTIATION: Final = 1 << 18
SSL_OP_NO_ENCRYPT_THEN_MAC: Final = 1 << 19
SSL_OP_PRIORITIZE_CHACHA: Final = 1 << 21
SSL_OP_CIPHER_SERVER_PREFERENCE: Final = 1 << 22
SSL_OP_TLS_ROLLBACK_BUG: Final = 1 << 23
SSL_OP_NO_ANTI_REPLAY: Final = 1 << 24
SSL_OP_NO_SSLv2: Final = 0
SSL_OP_NO_SSLv3: Final = 1 << 25
SSL_OP_NO_TLSv1: Final = 1 << 26
SSL_OP_NO_TLSv1_2: Final = 1 << 27
SSL_OP_NO_TLSv1_1: Final = 1 << 28
SSL_OP_NO_TLSv1_3: Final = 1 << 29
SSL_OP_NO_RENEGOTIATION: Final = 1 << 30
SSL_OP_CRYPTOPRO_TLSEXT_BUG: Final = 1 << 31
SSL_OP_ALL: Final = (
    SSL_OP_CRYPTOPRO_TLSEXT_BUG
    | SSL_OP_DONT_INSERT_EMPTY_FRAGMENTS
    | SSL_OP_SAFARI_ECDHE_ECDSA_BUG
    | SSL_OP_TLSEXT_PADDING
)
