"""Channel bindings: what ties an authentication inside a connection to that connection (RFC 5056)."""

from __future__ import annotations

from typing import Final, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from .engine import Engine

ChannelBinding = Literal["tls-exporter", "tls-unique", "tls-server-end-point"]
"""The kinds of IANA's registry that are for TLS."""

# RFC 9266, section 2.
_EXPORTER_LABEL: Final = "EXPORTER-Channel-Binding"
_EXPORTER_LENGTH: Final = 32
# In their place RFC 5929, section 4.1, takes SHA-256.
_BROKEN_HASHES: Final = ("md5", "sha1")


def channel_binding(engine: Engine, kind: ChannelBinding) -> bytes:
    """Return a channel binding of a connection.

    Args:
        engine: The connection's engine.
        kind: Which one.

    Raises:
        NeedHandshakeError: the handshake is not done, or another one is going on.
        ValueError: there is no such kind, or this connection does not have it.
    """
    engine.require_keys()
    info = engine.info
    assert info is not None
    is_bound = info.protocol == "TLSv1.3" or engine.has_extended_master_secret
    if kind == "tls-exporter":
        if not is_bound:
            raise ValueError("tls-exporter needs TLS 1.3, or an extended master secret (RFC 9266, section 3)")
        if engine.may_renegotiate:
            raise ValueError(
                "tls-exporter is undefined where the peer may renegotiate (RFC 9266, section 3); "
                "call disable_renegotiation() first"
            )
        return engine.export_keying_material(_EXPORTER_LENGTH, _EXPORTER_LABEL, b"")
    if kind == "tls-unique":
        if info.protocol == "TLSv1.3":
            raise ValueError("TLS 1.3 has no tls-unique; take tls-exporter (RFC 9266)")
        if not is_bound:
            raise ValueError("tls-unique is not unique without an extended master secret (RFC 7627)")
        # The first Finished is the client's, or the server's if a session was resumed.
        client_is_first = not info.session_reused
        return engine.finished(of_peer=client_is_first == engine.server_side) or b""
    if kind == "tls-server-end-point":
        certificate = engine.server_certificate
        if certificate is None:
            raise ValueError(
                "the server has presented no certificate, or when the session was made that is resumed, one "
                "of several"
            )
        try:
            algorithm = certificate.x509.signature_hash_algorithm
        except UnsupportedAlgorithm:
            algorithm = None
        if algorithm is None:
            raise ValueError("tls-server-end-point is undefined for this signature (RFC 5929, section 4.1)")
        digest = hashes.Hash(hashes.SHA256() if algorithm.name in _BROKEN_HASHES else algorithm)
        digest.update(certificate.raw)
        return digest.finalize()
    raise ValueError(f"there is no channel binding {kind!r}")
