"""PreSharedKey: a secret that both sides know already, in place of certificates (RFC 4279, RFC 8446 2.2)."""

from __future__ import annotations

import dataclasses
from typing import Final, Literal, NamedTuple

from .der import OCTET_STRING, SEQUENCE, elements, encoded, encoded_integer
from .errors import ConfigurationError, ConfigurationTypeError

PSKHash = Literal["SHA256", "SHA384"]

# OpenSSL's PSK_MAX_IDENTITY_LEN and PSK_MAX_PSK_LEN.
MAX_IDENTITY: Final = 256
_MAX_KEY: Final = 512
# The hashes, and of each the suite by which OpenSSL knows it.
_SUITES: Final = {"SHA256": 0x1301, "SHA384": 0x1302}
_TLS13: Final = 0x0304
# Of OpenSSL's SSL_SESSION_ASN1: its form, and the tags of optional fields.
_FORM: Final = 1
_TIMEOUT: Final = 0xA2
_SESSION_ID_CONTEXT: Final = 0xA4
_PSK_IDENTITY: Final = 0xA8


@dataclasses.dataclass(frozen=True, slots=True)
class PreSharedKey:
    """A key that both sides know already, and the name under which they know it.

    Use certificates where that is possible.  The key needs as much entropy as any other: whoever records a
    handshake can try keys at leisure, so never make one from a password.

    Attributes:
        identity: The name: at most 256 bytes of UTF-8, sent in the clear.
        key: The secret: 1 to 512 random bytes; 32 are enough.
        hash: TLS 1.3: the hash that the key is for, "SHA256" or "SHA384" (RFC 8446, 4.2.11); only suites with
            this hash can use it.

    Raises:
        ConfigurationError: one of them cannot be used.
    """

    identity: str
    key: bytes = dataclasses.field(repr=False)
    hash: PSKHash = "SHA256"

    def __post_init__(self) -> None:
        if not isinstance(self.identity, str):
            raise ConfigurationTypeError(
                # It may be the key, in the wrong place.
                f"a pre-shared key's identity must be a str. Received an object of type "
                f"{type(self.identity).__name__}",
                option="psk",
            )
        if not isinstance(self.key, (bytes, bytearray, memoryview)):
            raise ConfigurationTypeError(
                f"a pre-shared key must be bytes. Received an object of type {type(self.key).__name__}",
                option="psk",
            )
        object.__setattr__(self, "key", bytes(self.key))
        if self.hash not in tuple(_SUITES):
            raise ConfigurationError(
                f"a pre-shared key's hash must be one of {', '.join(_SUITES)}. Received {self.hash!r}",
                option="psk",
            )
        try:
            size = len(self.identity.encode())
        except UnicodeEncodeError as error:
            raise ConfigurationError(
                f"a pre-shared key's identity is no text: {error}", option="psk"
            ) from error
        if not 1 <= size <= MAX_IDENTITY or "\0" in self.identity:
            raise ConfigurationError(
                f"a pre-shared key's identity must have 1 to {MAX_IDENTITY} bytes, none of them 0. "
                f"Received {size}",
                code="ERR_OUT_OF_RANGE",
                option="psk",
            )
        if not 1 <= len(self.key) <= _MAX_KEY:
            raise ConfigurationError(
                f"a pre-shared key must have 1 to {_MAX_KEY} bytes. Received {len(self.key)}",
                code="ERR_OUT_OF_RANGE",
                option="psk",
            )


class PSKRole(NamedTuple):
    """What an ``SSL_CTX`` must know so that its connections can use pre-shared keys.

    Attributes:
        hash: A server's: the hash of the key that was found for a client of TLS 1.3, if there is one.
        identity_hint: What a server of TLS 1.2 tells its clients, to help them to choose.
    """

    hash: PSKHash | None = None
    identity_hint: bytes | None = None


def psk_session(psk: PreSharedKey, *, timeout: int, session_id_context: bytes) -> bytes:
    """Return a session of TLS 1.3 that stands for a pre-shared key, as the DER of OpenSSL's ``SSL_SESSION``.

    Args:
        psk: The key.
        timeout: How long the sessions that come of it may be resumed, in seconds.
        session_id_context: What they are tied to.
    """
    fields = (
        encoded_integer(_FORM),
        encoded_integer(_TLS13),
        encoded(OCTET_STRING, _SUITES[psk.hash].to_bytes(2)),
        # It has no session identifier.
        encoded(OCTET_STRING, b""),
        encoded(OCTET_STRING, psk.key),
        encoded(_TIMEOUT, encoded_integer(timeout)),
        encoded(_SESSION_ID_CONTEXT, encoded(OCTET_STRING, session_id_context)),
        encoded(_PSK_IDENTITY, encoded(OCTET_STRING, psk.identity.encode())),
    )
    return encoded(SEQUENCE, b"".join(fields))


def psk_identity(session: bytes) -> str | None:
    """Return the identity of the pre-shared key that a session was made with, or None if there was none.

    Args:
        session: The DER of an ``SSL_SESSION``.
    """
    [(_, content)] = elements(session)
    field = dict(elements(content)).get(_PSK_IDENTITY)
    if field is None:
        return None
    [(_, identity)] = elements(field)
    return identity.decode("utf-8", "replace")


def check_identity_hint(hint: str | None) -> bytes | None:
    """Return a server's hint as it is sent.

    Raises:
        ConfigurationTypeError: it is no text.
        ConfigurationError: it has more than 256 bytes, or a zero byte
            (``ERR_TLS_PSK_SET_IDENTITY_HINT_FAILED``).
    """
    if hint is None:
        return None
    if not isinstance(hint, str):
        raise ConfigurationTypeError(
            f'The "options.psk_identity_hint" property must be of type string. Received {hint!r}',
            option="psk_identity_hint",
        )
    encoded = hint.encode("utf-8", "surrogatepass")
    if len(encoded) > MAX_IDENTITY or b"\0" in encoded:
        raise ConfigurationError(
            f"psk_identity_hint must have at most {MAX_IDENTITY} bytes, none of them 0. "
            f"Received {len(encoded)}",
            code="ERR_TLS_PSK_SET_IDENTITY_HINT_FAILED",
            option="psk_identity_hint",
        )
    return encoded
