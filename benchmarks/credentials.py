"""Credentials: the key and the certificates that all contenders use."""

from __future__ import annotations

from pathlib import Path

import trustme

KEY_TYPES = {"ecdsa-p256": trustme.KeyType.ECDSA, "rsa-2048": trustme.KeyType.RSA}


def write_credentials(directory: Path, key_type: str) -> None:
    """Make a CA and a certificate for "localhost"; write key.pem, cert.pem and ca.pem."""
    authority = trustme.CA(key_type=KEY_TYPES[key_type])
    leaf = authority.issue_cert("localhost", key_type=KEY_TYPES[key_type])
    leaf.private_key_pem.write_to_path(directory / "key.pem")
    leaf.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    authority.cert_pem.write_to_path(directory / "ca.pem")
