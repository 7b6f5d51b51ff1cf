"""DHGroup: a group for finite-field Diffie-Hellman, and those of RFC 7919."""

from __future__ import annotations

import base64
import dataclasses
import functools
import textwrap
from typing import Final, Self

from .der import INTEGER, SEQUENCE, elements, encoded, encoded_integer

# RFC 7919, appendix A: p = 2^b - 2^(b-64) + (floor(2^(b-130) * e) + X) * 2^64 - 1, with this X for each b.
_X: Final = {2048: 560316, 3072: 2625351, 4096: 5736041, 6144: 15705020, 8192: 10965728}

FFDHE_BITS: Final = tuple(_X)
"""The sizes of the groups of RFC 7919, smallest first."""


@dataclasses.dataclass(frozen=True, slots=True)
class DHGroup:
    """A prime and a generator: ``DHParameter`` of PKCS#3.

    Attributes:
        prime: The prime.
        generator: The generator.
    """

    prime: int
    generator: int

    @classmethod
    def from_der(cls, der: bytes) -> Self:
        """Return the group that a ``DHParameter`` describes.

        Raises:
            ValueError: it is none.
        """
        try:
            [(tag, content)] = elements(der)
            (prime_tag, prime), (generator_tag, generator), *_ = elements(content)
        except IndexError as error:
            raise ValueError("an element that is not whole") from error
        if (tag, prime_tag, generator_tag) != (SEQUENCE, INTEGER, INTEGER):
            raise ValueError("not a DHParameter")
        group = cls(int.from_bytes(prime, signed=True), int.from_bytes(generator, signed=True))
        if not 1 < group.generator < group.prime or group.prime % 2 == 0:
            raise ValueError("not a prime and a generator")
        return group

    @classmethod
    def ffdhe(cls, bits: int) -> Self:
        """Return the smallest group of RFC 7919 that has so many bits, or its largest one."""
        return cls(_ffdhe_prime(next((size for size in FFDHE_BITS if size >= bits), FFDHE_BITS[-1])), 2)

    @property
    def bits(self) -> int:
        """The size of the prime."""
        return self.prime.bit_length()

    def pem(self) -> bytes:
        """Return the group as PEM, as ``openssl dhparam`` prints it."""
        der = encoded(SEQUENCE, encoded_integer(self.prime) + encoded_integer(self.generator))
        body = "\n".join(textwrap.wrap(base64.b64encode(der).decode(), 64))
        return f"-----BEGIN DH PARAMETERS-----\n{body}\n-----END DH PARAMETERS-----\n".encode()


@functools.cache
def _ffdhe_prime(bits: int) -> int:
    # e is 1/0! + 1/1! + 1/2! ..., summed with 64 bits more than are kept, until nothing is added any more.
    euler, term, divisor = 0, 1 << (bits - 130 + 64), 0
    while term:
        euler += term
        divisor += 1
        term //= divisor
    return (1 << bits) - (1 << (bits - 64)) + (((euler >> 64) + _X[bits]) << 64) - 1
