"""Records: a peer's ciphertext, opened with its own keys and sealed again.

Between a TLS engine and its victim, each record can be changed inside its encryption, left out, or joined by
others that no engine would send.  The suites are those with AES-128-GCM and SHA-256.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from collections.abc import Callable, Iterator
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

CHANGE_CIPHER_SPEC: Final = 20
ALERT: Final = 21
HANDSHAKE: Final = 22
DATA: Final = 23
KEY_UPDATE: Final = 24

# The only suites whose records are understood here; one of them for each version.
CIPHERS: Final = "TLS_AES_128_GCM_SHA256:ECDHE-ECDSA-AES128-GCM-SHA256"

_HEADER_SIZE: Final = 5
_TAG_SIZE: Final = 16
_KEY_SIZE: Final = 16
_SALT_SIZE: Final = 4
_MOST_CONTENT: Final = 1 << 14
_LONGEST_RECORD: Final = 0xFFFF

Content = tuple[int, bytes]
"""A record's type and its plaintext."""

Edit = Callable[[int, Content], list[Content | bytes]]
"""Given a record's number and content; returns what goes in its place: contents to seal, or raw bytes."""


def expand_label(secret: bytes, label: bytes, length: int) -> bytes:
    """HKDF-Expand-Label of RFC 8446, section 7.1, without a context."""
    label = b"tls13 " + label
    return HKDFExpand(SHA256(), length, length.to_bytes(2) + bytes((len(label),)) + label + b"\0").derive(
        secret
    )


def prf(secret: bytes, label: bytes, seed: bytes, length: int) -> bytes:
    """The PRF of TLS 1.2 with SHA-256 (RFC 5246, section 5)."""
    seed = label + seed
    result, a = b"", seed
    while len(result) < length:
        a = hmac.digest(secret, a, hashlib.sha256)
        result += hmac.digest(secret, a + seed, hashlib.sha256)
    return result[:length]


class Keys13:
    """One direction's keys of TLS 1.3.

    Args:
        secret: Its traffic secret.

    Attributes:
        count: How many records they have protected.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._aead = AESGCM(expand_label(secret, b"key", _KEY_SIZE))
        self._iv = int.from_bytes(expand_label(secret, b"iv", 12))
        self.count = 0

    def updated(self) -> Keys13:
        """Return the keys after a KeyUpdate."""
        return Keys13(expand_label(self._secret, b"traffic upd", 32))

    def anew(self) -> Keys13:
        """Return these keys as they are before the first record."""
        return Keys13(self._secret)

    def open(self, record: bytes) -> Content:
        """Return what is in the next record.

        Raises:
            InvalidTag: it was sealed with other keys.
        """
        inner = self._aead.decrypt(self._nonce(), record[_HEADER_SIZE:], record[:_HEADER_SIZE]).rstrip(b"\0")
        self.count += 1
        return inner[-1], inner[:-1]

    def seal(self, content: Content) -> bytes:
        """Return the next record."""
        kind, data = content
        header = b"\x17\3\3" + (len(data) + 1 + _TAG_SIZE).to_bytes(2)
        record = header + self._aead.encrypt(self._nonce(), data + bytes((kind,)), header)
        self.count += 1
        return record

    def _nonce(self) -> bytes:
        return (self._iv ^ self.count).to_bytes(12)


class Keys12:
    """One direction's keys of TLS 1.2 (RFC 5288).

    Args:
        key: The key.
        salt: The fixed part of the nonce.

    Attributes:
        count: How many records they have protected.
    """

    def __init__(self, key: bytes, salt: bytes) -> None:
        self._key = key
        self._aead = AESGCM(key)
        self._salt = salt
        self.count = 0

    def anew(self) -> Keys12:
        """Return these keys as they are before the first record."""
        return Keys12(self._key, self._salt)

    def open(self, record: bytes) -> Content:
        """Return what is in the next record.

        Raises:
            InvalidTag: it was sealed with other keys.
        """
        nonce, sealed = record[_HEADER_SIZE : _HEADER_SIZE + 8], record[_HEADER_SIZE + 8 :]
        if len(sealed) < _TAG_SIZE:
            raise InvalidTag
        data = self._aead.decrypt(
            self._salt + nonce, sealed, self._associated(record[0], len(sealed) - _TAG_SIZE)
        )
        self.count += 1
        return record[0], data

    def seal(self, content: Content) -> bytes:
        """Return the next record."""
        kind, data = content
        nonce = self.count.to_bytes(8)
        sealed = nonce + self._aead.encrypt(self._salt + nonce, data, self._associated(kind, len(data)))
        self.count += 1
        return bytes((kind, 3, 3)) + len(sealed).to_bytes(2) + sealed

    def _associated(self, kind: int, length: int) -> bytes:
        return self.count.to_bytes(8) + bytes((kind, 3, 3)) + length.to_bytes(2)


Keys = Keys12 | Keys13


def plain(content: Content) -> bytes:
    """Return a record that is not encrypted."""
    kind, data = content
    return bytes((kind, 3, 3)) + len(data).to_bytes(2) + data


def records_in(stream: bytearray) -> Iterator[bytes]:
    """Take whole records off the front of a stream."""
    while len(stream) >= _HEADER_SIZE:
        end = _HEADER_SIZE + int.from_bytes(stream[3:5])
        if len(stream) < end:
            return
        yield bytes(stream[:end])
        del stream[:end]


def followed(keys: Keys, content: Content) -> Keys:
    """Return the keys after a record: others after a KeyUpdate of TLS 1.3."""
    kind, data = content
    updates = kind == HANDSHAKE and data[:1] == bytes((KEY_UPDATE,)) and len(data) == 5
    return keys.updated() if updates and isinstance(keys, Keys13) else keys


class Resealer:
    """Edits what one side sends, record by record, inside the encryption.

    Args:
        next_keys: Returns the keys that the side may have changed to, after those that it had: asked when a
            record cannot be opened.
        edit: What becomes of each record.
    """

    def __init__(self, next_keys: Callable[[], list[Keys]], edit: Edit) -> None:
        self._next_keys = next_keys
        self._edit = edit
        self._pending = bytearray()
        self._opening: Keys | None = None
        self._sealing: Keys | None = None
        # After a ChangeCipherSpec of TLS 1.2, no record looks different, but all are encrypted.
        self._changes = False
        self._number = 0

    def __call__(self, output: bytes) -> bytes:
        """Return what is sent in place of a side's output."""
        self._pending += output
        return b"".join([self._replaced(record) for record in records_in(self._pending)])

    def seal(self, content: Content) -> bytes:
        """Return one more record, sealed if the side encrypts by now."""
        kind, data = content
        if self._sealing is None:
            return plain((kind, data[:_LONGEST_RECORD]))
        record = self._sealing.seal((kind, data[: _LONGEST_RECORD - 64]))
        self._sealing = followed(self._sealing, content)
        return record

    def _replaced(self, record: bytes) -> bytes:
        content = self._content(record)
        number, self._number = self._number, self._number + 1
        return b"".join(
            [part if isinstance(part, bytes) else self.seal(part) for part in self._edit(number, content)]
        )

    def _content(self, record: bytes) -> Content:
        content = self._opened(record) or (record[0], record[_HEADER_SIZE:])
        self._changes = content[0] == CHANGE_CIPHER_SPEC
        return content

    def _opened(self, record: bytes) -> Content | None:
        """Return what is in an encrypted record, or None if it is none."""
        if self._opening is not None:
            with contextlib.suppress(InvalidTag):
                content = self._opening.open(record)
                self._opening = followed(self._opening, content)
                return content
        if record[0] == DATA or self._changes:
            for keys in self._next_keys():
                with contextlib.suppress(InvalidTag):
                    content = keys.open(record)
                    self._opening, self._sealing = keys, keys.anew()
                    return content
        return None
