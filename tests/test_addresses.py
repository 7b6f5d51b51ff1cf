"""Address: where one end of a connection is."""

from __future__ import annotations

import socket
from typing import Any

import pytest

import trio_tlsnode as tls

pytestmark = [pytest.mark.feature("C19"), pytest.mark.feature("B4")]


@pytest.mark.parametrize(
    ("family", "sockname", "address", "text"),
    [
        (socket.AF_INET, ("192.0.2.1", 443), ("192.0.2.1", 443, "IPv4"), "192.0.2.1:443"),
        (socket.AF_INET6, ("2001:db8::1", 443, 0, 0), ("2001:db8::1", 443, "IPv6"), "[2001:db8::1]:443"),
        (socket.AF_INET6, ("fe80::1%eth0", 1, 0, 2), ("fe80::1%eth0", 1, "IPv6"), "[fe80::1%eth0]:1"),
        (socket.AF_UNIX, "/run/tls.sock", ("/run/tls.sock", 0, "unix"), "/run/tls.sock"),
        (socket.AF_UNIX, "", ("", 0, "unix"), "a Unix socket"),
        (socket.AF_UNIX, b"\0abstract", ("\0abstract", 0, "unix"), "\0abstract"),
        (socket.AF_UNIX, b"\0\xff", ("\0\ufffd", 0, "unix"), "\0\ufffd"),
    ],
)
def test_it_is_made_from_what_the_socket_says(
    family: int, sockname: Any, address: tuple[str, int, str], text: str
) -> None:
    made = tls.Address.from_sockname(family, sockname)
    assert made == address
    assert made is not None
    assert (made.host, made.port, made.family) == address
    assert str(made) == text


def test_other_families_have_none() -> None:
    assert tls.Address.from_sockname(-1, ("anything",)) is None


def test_it_is_a_value() -> None:
    address = tls.Address("192.0.2.1", 443, "IPv4")
    assert {address: 1}[tls.Address("192.0.2.1", 443, "IPv4")] == 1
    with pytest.raises(AttributeError):
        address.port = 1  # type: ignore[misc]


def test_it_is_what_real_sockets_say() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address = tls.Address.from_sockname(sock.family, sock.getsockname())
        assert address == ("127.0.0.1", sock.getsockname()[1], "IPv4")
    one, other = socket.socketpair()
    with one, other:
        assert tls.Address.from_sockname(one.family, one.getpeername()) == ("", 0, "unix")
