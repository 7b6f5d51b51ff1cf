"""The test kit: connected pairs, certificates of every kind, faulty transports, a listener without sockets.

It needs trustme, which the extra ``trio-tlsnode[testing]`` installs.
"""

from __future__ import annotations

from .authority import Authority, IssuedCertificate
from .listener import MemoryListener
from .pairs import default_authority, tls_pair
from .transports import (
    DelayingStream,
    FailingStream,
    GarblingStream,
    OneByteStream,
    RecordingStream,
    StallingStream,
    TransportWrapper,
    TruncatingStream,
)

__all__ = [
    "Authority",
    "DelayingStream",
    "FailingStream",
    "GarblingStream",
    "IssuedCertificate",
    "MemoryListener",
    "OneByteStream",
    "RecordingStream",
    "StallingStream",
    "TransportWrapper",
    "TruncatingStream",
    "default_authority",
    "tls_pair",
]
