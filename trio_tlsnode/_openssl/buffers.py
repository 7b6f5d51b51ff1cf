"""ThreadBuffers: the memory through which bytes pass on their way to and from OpenSSL.

They belong to a thread, never to a connection, so that an idle connection costs none, and never to the
process: with buffers shared between two loops in two threads, one connection's plaintext came out of
another.  Between filling one and handing its content on, nothing may be awaited.
"""

from __future__ import annotations

import threading
from typing import Any, Final

from .library import ffi

# One read of the socket.  Half as much costs twice as many turns of the event loop, and a third of the speed.
INCOMING_SIZE: Final = 256 * 1024
# What one receive_some() returns at most, unless told otherwise.
PLAINTEXT_SIZE: Final = 256 * 1024
MAX_PLAINTEXT_RECORD: Final = 16 * 1024
# RFC 8446, 5.2, and RFC 5246, 6.2.3: a record is its plaintext and at most 5 + 2048 bytes more.
MAX_CIPHERTEXT_RECORD: Final = 5 + MAX_PLAINTEXT_RECORD + 2048
# One send to the socket: sixteen whole records, and room for what was waiting before them.
OUTGOING_SIZE: Final = 256 * 1024 + 2 * MAX_CIPHERTEXT_RECORD


class ThreadBuffers(threading.local):
    """A thread's buffers, as cffi pointers and as the memoryviews of the same memory.

    Attributes:
        incoming: Ciphertext from the transport.
        outgoing: Ciphertext for the transport.
        plaintext: Decrypted data, before it becomes the result of a read.
    """

    def __init__(self) -> None:
        self.incoming: Any = ffi.new("char[]", INCOMING_SIZE)
        self.incoming_view = memoryview(ffi.buffer(self.incoming))
        self.outgoing: Any = ffi.new("char[]", OUTGOING_SIZE)
        self.outgoing_view = memoryview(ffi.buffer(self.outgoing))
        self.plaintext: Any = ffi.new("char[]", PLAINTEXT_SIZE)
        self.plaintext_view = memoryview(ffi.buffer(self.plaintext))


buffers = ThreadBuffers()
