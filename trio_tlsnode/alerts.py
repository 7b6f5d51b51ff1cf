"""The alerts of TLS: what one side tells the other before it gives up (RFC 8446, section 6)."""

from __future__ import annotations

import enum


class Alert(enum.IntEnum):
    """An alert description, with the name and number that RFC 8446 and IANA's registry give it."""

    close_notify = 0
    unexpected_message = 10
    bad_record_mac = 20
    decryption_failed = 21
    record_overflow = 22
    decompression_failure = 30
    handshake_failure = 40
    no_certificate = 41
    bad_certificate = 42
    unsupported_certificate = 43
    certificate_revoked = 44
    certificate_expired = 45
    certificate_unknown = 46
    illegal_parameter = 47
    unknown_ca = 48
    access_denied = 49
    decode_error = 50
    decrypt_error = 51
    export_restriction = 60
    protocol_version = 70
    insufficient_security = 71
    internal_error = 80
    inappropriate_fallback = 86
    user_canceled = 90
    no_renegotiation = 100
    missing_extension = 109
    unsupported_extension = 110
    certificate_unobtainable = 111
    unrecognized_name = 112
    bad_certificate_status_response = 113
    bad_certificate_hash_value = 114
    unknown_psk_identity = 115
    certificate_required = 116
    no_application_protocol = 120

    def plaintext_record(self) -> bytes:
        """Return the fatal alert as an unencrypted record, as it is sent before there are keys."""
        return bytes((21, 3, 3, 0, 2, 2, self))
