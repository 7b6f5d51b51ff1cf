"""The shapes of what is printed as JSON: which keys there are, and what stands under each."""

from __future__ import annotations

import json
from typing import Any


def shape(value: Any) -> Any:
    """Return the types of a value in the place of its parts; of a list, those of all items together."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


def parsed(text: str) -> Any:
    """Return what a text is as JSON, which must be ASCII."""
    assert text.isascii()
    return json.loads(text)


CERTIFICATE = {
    "subject": {"O": "str", "OU": "str"},
    "issuer": {"O": "str", "OU": "str"},
    "alt_names": [["str"]],
    "valid_from": "str",
    "valid_to": "str",
    "serial_number": "str",
    "bits": "int",
    "asn1_curve": "str",
    "ca": "bool",
    "ext_key_usage": ["str"],
    "fingerprint256": "str",
    "pem": "str",
}
ADDRESS = {"host": "str", "port": "int", "family": "str"}
INFO = {
    "protocol": "str",
    "cipher": {"name": "str", "standard_name": "str", "version": "str", "secret_bits": "int"},
    "ephemeral_key": {"type": "str", "name": "str", "size": "int"},
    "shared_signature_algorithms": [],
    "alpn_protocol": "NoneType",
    "server_name": "str",
    "authorized": "bool",
    "authorization_error": "NoneType",
    "session_reused": "bool",
    "psk_identity": "NoneType",
    "certificate": "NoneType",
    "peer_certificate": CERTIFICATE,
    "peer_certificate_chain": [CERTIFICATE],
    "verified_chain": [CERTIFICATE],
    "ocsp_response": "NoneType",
    "early_data_accepted": "NoneType",
}
INSPECTION = {
    "host": "str",
    "port": "int",
    "server_name": "str",
    "starttls": "NoneType",
    "address": ADDRESS,
    "inspected_at": "str",
    "duration": "float",
    "authorized": "bool",
    "failure": "NoneType",
    "wants_client_certificate": "bool",
    "protocols": dict.fromkeys(["SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"], "bool"),
    "cipher_suites": {"TLSv1.2": ["str"], "TLSv1.3": ["str"]},
    "groups": {"TLSv1.2": ["str"], "TLSv1.3": ["str"]},
    "dh_bits": "NoneType",
    "alpn_protocols": ["str"],
    "resumption": {"TLSv1.2": "str", "TLSv1.3": "str"},
    "unfinished": [],
    "findings": [dict.fromkeys(["severity", "code", "summary", "cause", "remedy"], "str")],
    "info": INFO,
}


def envelope(command: str, report: Any) -> dict[str, Any]:
    """Return the shape of what a command prints."""
    return {"schema": "str", "command": "str", "exit_status": "int", "error": "NoneType", "report": report}
