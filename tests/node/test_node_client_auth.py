"""Client certificates, as Node.js's own tests have them; the tables are in tests/test_client_auth.py."""

from __future__ import annotations

import pytest
from meetings import in_both_versions, secure_pair
from parties import party


@pytest.mark.feature("F4")
@pytest.mark.feature("C2")
@pytest.mark.node("test-https-pfx.js")
@in_both_versions
async def test_one_self_signed_pfx_on_both_sides_is_nobody_s_authority(version: str) -> None:
    options = {"pfx": party("agent2").pfx(b"sample"), "passphrase": "sample", "ca": []}
    client, server = await secure_pair(
        options,
        options,
        version=version,
        client_options={"host": "agent2", "reject_unauthorized": False},
        server_options={"request_cert": True, "reject_unauthorized": False},
    )
    for stream in (client, server):
        assert stream.authorized is False
        error = stream.authorization_error
        # In Node it is the code alone, a string.
        assert isinstance(error, Exception)
        assert error.code == "DEPTH_ZERO_SELF_SIGNED_CERT"
