"""connect_error: what the system says of an address, as a ConnectError with Node's code."""

from __future__ import annotations

import errno
import os
import socket

from .errors import ConnectError


def connect_error(error: OSError, host: str, port: int | None) -> ConnectError:
    """Return why there is no connection to an address, or no listener on it.

    Args:
        error: What the system said.
        host: The host, or the path of a Unix socket.
        port: The port; None for a Unix socket.
    """
    if isinstance(error, socket.gaierror):
        code = "EAI_AGAIN" if error.errno == socket.EAI_AGAIN else "ENOTFOUND"
        return ConnectError(
            f"the name cannot be resolved ({error.strerror})", code=code, host=host, port=port
        )
    if not error.errno:
        # Not the system's, but a resolver's of the application.
        return ConnectError(str(error), code="ENOTFOUND", host=host, port=port)
    # Trio puts the address into the text, where a ConnectError has it already.
    reason = os.strerror(error.errno)
    return ConnectError(reason, code=errno.errorcode.get(error.errno, "ECONNREFUSED"), host=host, port=port)
