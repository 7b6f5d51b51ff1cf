"""Listening: sockets that take connections, over TCP with one port for all addresses, or at a path."""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import Final

import trio

from .connect_errors import connect_error
from .errors import ConfigurationError, ConfigurationTypeError
from .tcp_options import check_port

# How often the kernel may choose a port that is taken on another address.
_PORT_TRIES: Final = 10
# As many as the kernel allows, as trio.open_tcp_listeners has it.
_UNIX_BACKLOG: Final = 0xFFFF


async def open_tcp_listeners(port: int, host: str | bytes | None) -> list[trio.SocketListener]:
    """Open listeners on all addresses of a host.

    Args:
        port: The port; 0 lets the kernel choose one for all addresses.
        host: The name or address; None is all addresses of the machine.

    Raises:
        ConfigurationError: there is no such port, or this can be no host's name.
        ConnectError: the name is not known, or an address of it cannot be listened on.
    """
    check_port("port", port)
    if not isinstance(host, (str, bytes, type(None))):
        raise ConfigurationTypeError(f"host must be a str. Received {host!r}", option="host")
    try:
        return await _with_one_port(port, host)
    except UnicodeError as error:
        raise ConfigurationError(f"{host!r} is no host name: {error}", option="host") from error
    except OSError as error:
        raise connect_error(error, "*" if host is None else os.fsdecode(host), port) from error


async def _with_one_port(port: int, host: str | bytes | None) -> list[trio.SocketListener]:
    for _ in range(_PORT_TRIES):
        listeners = await trio.open_tcp_listeners(port, host=host)
        ports = [listener.socket.getsockname()[1] for listener in listeners]
        if len(set(ports)) == 1:
            return listeners
        for listener in listeners:
            listener.socket.close()
        try:
            return await trio.open_tcp_listeners(ports[0], host=host)
        except OSError as error:
            # Another family's port of this number is somebody else's: let the kernel choose again.
            if error.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, "no port is free on all addresses of this host")


async def open_unix_listener(path: str | bytes) -> trio.SocketListener:
    """Open a listener on a Unix socket; a socket file that nobody listens on is replaced.

    Args:
        path: Where to make the socket.

    Raises:
        ConnectError: the path is taken, by a live server or another file, or cannot be used.
    """
    try:
        return await _at_path(path)
    except OSError as error:
        raise connect_error(error, os.fsdecode(path), None) from error


async def _at_path(path: str | bytes) -> trio.SocketListener:
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            await sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not await _is_stale_socket(path):
                raise
            os.unlink(path)
            await sock.bind(path)
        sock.listen(_UNIX_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return trio.SocketListener(sock)


async def _is_stale_socket(path: str | bytes) -> bool:
    if not stat.S_ISSOCK(os.stat(path).st_mode):
        return False
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            await probe.connect(path)
        except ConnectionRefusedError:
            return True
    return False
