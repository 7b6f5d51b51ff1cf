"""Session tickets, as Node.js's own tests have them; who resumes by one is in tests/test_tickets.py."""

from __future__ import annotations

from typing import Any

import pytest
from parties import party

from trio_tlsnode import ConfigurationError, FeatureUnavailable, SecureContext, TLSServer, TLSStream, features

LOCALHOST = SecureContext(**party("rsa_cert").options)


async def never(_stream: TLSStream) -> None:
    raise AssertionError("the handler was called")


@pytest.mark.feature("B15")
@pytest.mark.feature("E3")
@pytest.mark.node("test-tls-ticket-invalid-arg.js")
@pytest.mark.parametrize("how", ["option", "attribute"])
@pytest.mark.parametrize(
    ("keys", "code"),
    [
        (0, "ERR_INVALID_ARG_TYPE"),
        (1, "ERR_INVALID_ARG_TYPE"),
        (2**64, "ERR_INVALID_ARG_TYPE"),
        ({}, "ERR_INVALID_ARG_TYPE"),
        ([], "ERR_INVALID_ARG_TYPE"),
        (True, "ERR_INVALID_ARG_TYPE"),
        ("", "ERR_INVALID_ARG_TYPE"),
        (len, "ERR_INVALID_ARG_TYPE"),
        (b"", "ERR_INVALID_ARG_VALUE"),
        (b"1", "ERR_INVALID_ARG_VALUE"),
        (bytearray(2), "ERR_INVALID_ARG_VALUE"),
    ],
    ids=repr,
)
def test_ticket_keys_are_48_bytes(keys: Any, code: str, how: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        if how == "option":
            TLSServer(never, LOCALHOST, ticket_keys=keys)
        else:
            TLSServer(never, LOCALHOST).ticket_keys = keys
    assert (caught.value.code, caught.value.option) == (code, "ticket_keys")
    assert code == "ERR_INVALID_ARG_TYPE" or "48 bytes" in caught.value.reason


@pytest.mark.feature("B15")
@pytest.mark.feature("E3")
def test_keys_that_are_keys_are_refused_as_well_and_it_says_why() -> None:
    server = TLSServer(never, LOCALHOST)
    for act in (lambda: server.ticket_keys, lambda: setattr(server, "ticket_keys", bytes(48))):
        with pytest.raises(FeatureUnavailable, match="cryptography") as caught:
            act()
        assert not features[caught.value.feature]
