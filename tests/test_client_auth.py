"""Who is trusted on either side, in the combinations for which Node.js's verdicts are known.

The identities have Node's names and stand in the same relations: ``agent1`` is of ``ca1``, ``agent2`` vouches
for itself, ``agent3`` is of ``ca2``, and so is ``agent4``, which is for clients alone, and revoked.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal

import pytest
from faults import meet, only
from trio.testing import memory_stream_pair

import trio_tlsnode as tls
from trio_tlsnode import CertificateError, PeerAlert, SecureContext, TLSStream
from trio_tlsnode.testing import Authority, IssuedCertificate

pytestmark = pytest.mark.feature("B8")


# Chains and certificates alone, from the peer and from the own trust


@dataclasses.dataclass(frozen=True)
class Identity:
    """A key with its certificates, of which any may be given or left out.

    Attributes:
        key: The key.
        single: The certificate alone.
        subca: Its intermediate.
        ca: Its root.
    """

    key: bytes
    single: bytes
    subca: bytes
    ca: bytes

    @classmethod
    def of(cls, authority: Authority, issued: IssuedCertificate) -> Identity:
        intermediates = issued.intermediates
        return cls(issued.key, issued.cert.removesuffix(intermediates), intermediates, authority.ca)

    @property
    def cert(self) -> bytes:
        return self.single + self.subca

    def shows(self, cert: bytes) -> dict[str, Any]:
        return {"key": self.key, "cert": cert}


def identity(key_type: Literal["EC", "RSA"]) -> Identity:
    authority = Authority()
    return Identity.of(authority, authority.good("agent10.example.com", intermediates=1, key_type=key_type))


C, S = identity("EC"), identity("RSA")
NOT_SHOWN = "ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE"
LEAF_ALONE = "UNABLE_TO_VERIFY_LEAF_SIGNATURE"
NO_ROOT = "UNABLE_TO_GET_ISSUER_CERT_LOCALLY"

Row = tuple[dict[str, Any], dict[str, Any], str | None, str | None]
# What the client is given, and the server; who refuses the other, and the code.  A server that is given any
# trust asks for a certificate.
ROWS: dict[str, Row] = {
    "both trust the other": (C.shows(C.cert) | {"ca": S.ca}, S.shows(S.cert) | {"ca": C.ca}, None, None),
    "nobody asks the client": ({"ca": S.ca}, S.shows(S.cert), None, None),
    "client shows nothing": ({"ca": S.ca}, S.shows(S.cert) | {"ca": C.ca}, "server", NOT_SHOWN),
    "intermediates are in the trust": (
        C.shows(C.single) | {"ca": [S.ca, S.subca]},
        S.shows(S.single) | {"ca": [C.ca, C.subca]},
        None,
        None,
    ),
    "intermediates are in the trust, in one text": (
        C.shows(C.single) | {"ca": S.ca + b"\n" + S.subca},
        S.shows(S.single) | {"ca": C.ca + b"\n" + C.subca},
        None,
        None,
    ),
    "intermediates are in the trust, in a list of one text": (
        C.shows(C.single) | {"ca": [S.ca + b"\n" + S.subca]},
        S.shows(S.single) | {"ca": [C.ca + b"\n" + C.subca]},
        None,
        None,
    ),
    "server lacks its intermediate": ({"ca": S.ca}, S.shows(S.single), "client", LEAF_ALONE),
    "client lacks its intermediate": (
        C.shows(C.single) | {"ca": S.ca},
        S.shows(S.cert) | {"ca": C.ca},
        "server",
        LEAF_ALONE,
    ),
    "client has the default roots": ({}, S.shows(S.cert), "client", NO_ROOT),
    "client has the default roots, server shows its own": (
        {},
        S.shows(S.cert + S.ca),
        "client",
        "SELF_SIGNED_CERT_IN_CHAIN",
    ),
    "server shows its root, which is trusted": ({"ca": S.ca}, S.shows(S.cert + S.ca), None, None),
    "server trusts somebody else": (
        C.shows(C.cert) | {"ca": S.ca},
        S.shows(S.cert) | {"ca": S.ca},
        "server",
        NO_ROOT,
    ),
}
for label in (b"TRUSTED CERTIFICATE", b"X509 CERTIFICATE"):
    relabelled_server, relabelled_client = (ca.replace(b"CERTIFICATE", label) for ca in (S.ca, C.ca))
    ROWS[f"client trusts a {label.decode()}"] = (
        C.shows(C.cert) | {"ca": relabelled_server},
        S.shows(S.cert) | {"ca": C.ca},
        None,
        None,
    )
    ROWS[f"server trusts a {label.decode()}"] = (
        C.shows(C.cert) | {"ca": S.ca},
        S.shows(S.cert) | {"ca": relabelled_client},
        None,
        None,
    )


@pytest.mark.feature("F2")
@pytest.mark.feature("D3")
@pytest.mark.parametrize(("client_options", "server_options", "refuses", "code"), ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
async def test_chains_and_trust_decide_as_in_node(
    client_options: dict[str, Any],
    server_options: dict[str, Any],
    refuses: str | None,
    code: str | None,
    version: str,
) -> None:
    checked: list[tuple[str, str | None]] = []

    def check(host: str, certificate: tls.Certificate | None) -> None:
        assert certificate is not None
        checked.append((host, certificate.subject_alt_name))

    left, right = memory_stream_pair()
    context = SecureContext(**client_options, **only(version))
    client = TLSStream(left, context, check_server_identity=check)
    asks = "ca" in server_options
    server = TLSStream(right, SecureContext(**server_options), server_side=True, request_cert=asks)
    judge, other = (server, client) if refuses == "server" else (client, server)
    error, told = await meet(judge, other)
    assert (error and error.code) == code
    if refuses != "client":
        assert checked == [("localhost", "DNS:agent10.example.com")]
    if refuses is None:
        assert told is None
        assert server.authorized is asks
    else:
        # Node closes the connection and says nothing: its other side knows no more than ECONNRESET.
        assert type(error) is CertificateError
        assert isinstance(told, PeerAlert)


@pytest.mark.feature("F2")
async def test_a_server_without_trust_of_its_own_has_the_default_roots_for_its_clients() -> None:
    left, right = memory_stream_pair()
    server = TLSStream(right, SecureContext(**S.shows(S.cert)), server_side=True, request_cert=True)
    client = TLSStream(left, SecureContext(**C.shows(C.cert), ca=S.ca), host="agent10.example.com")
    error, told = await meet(server, client)
    assert error is not None
    assert error.code == NO_ROOT
    assert isinstance(told, PeerAlert)
    assert told.alert is tls.Alert.unknown_ca


# Who is authorized


@functools.cache
def authorities() -> dict[str, Authority]:
    return {"ca1": Authority(), "ca2": Authority()}


@functools.cache
def agents() -> dict[str, IssuedCertificate]:
    first, second = authorities().values()
    agent4 = second.client("agent4")
    second.revoke(agent4)
    return {
        "agent1": first.good("agent1"),
        "agent2": first.self_signed("agent2"),
        "agent3": second.good("agent3"),
        "agent4": agent4,
    }


def trusting(*names: str) -> list[bytes]:
    return [authorities()[name].ca for name in names]


async def connected(
    client_context: SecureContext,
    server_context: SecureContext,
    *,
    client: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
) -> tuple[TLSStream, TLSStream, tls.TLSError | None]:
    """Return a client and a server after their handshake, and what the server refused the client for."""
    left, right = memory_stream_pair()
    ours = TLSStream(left, client_context, **(client or {}))
    theirs = TLSStream(right, server_context, server_side=True, **(server or {}))
    refusal, _ = await meet(theirs, ours)
    return ours, theirs, refusal


@pytest.mark.feature("A5")
@pytest.mark.node("test-tls-client-verify.js")
@pytest.mark.parametrize(
    ("trusted", "good"),
    [(("ca1",), {"agent1"}), ((), set()), (("ca1", "ca2"), {"agent1", "agent3"})],
)
@pytest.mark.parametrize("server", ["agent1", "agent2", "agent3"])
async def test_a_client_knows_which_servers_are_of_its_authorities(
    server: str, trusted: tuple[str, ...], good: set[str]
) -> None:
    context = SecureContext(ca=trusting(*trusted), **agents()["agent2"].options)
    client, _, _ = await connected(
        context, SecureContext(**agents()[server].options), client={"reject_unauthorized": False}
    )
    # They are all for another name than localhost.
    error = client.authorization_error
    assert error is not None
    assert (error.code == "ERR_TLS_CERT_ALTNAME_INVALID") is (server in good)


NOBODY = "nocert"
ALL = ("agent1", "agent2", "agent3", "agent4", NOBODY)


@pytest.mark.feature("C2")
@pytest.mark.feature("F5")
@pytest.mark.parametrize(
    ("options", "trusted", "revoking", "authorized"),
    [
        ({"request_cert": False, "reject_unauthorized": False}, ("ca1",), False, ()),
        ({"request_cert": True, "reject_unauthorized": False}, ("ca1",), False, ("agent1",)),
        ({"request_cert": True}, ("ca1",), False, ("agent1",)),
        ({"request_cert": True}, ("ca1", "ca2"), False, ("agent1", "agent3", "agent4")),
        ({"request_cert": True}, ("ca2",), True, ("agent3",)),
    ],
    ids=["do not ask", "allow all", "only of ca1", "only of ca1 and ca2", "of ca2 and not revoked"],
)
@pytest.mark.parametrize("name", ALL)
async def test_a_server_authorizes_the_clients_of_its_authorities(
    name: str,
    options: dict[str, Any],
    trusted: tuple[str, ...],
    *,
    revoking: bool,
    authorized: tuple[str, ...],
) -> None:
    shown: Any = {} if name == NOBODY else agents()[name].options
    revoked: Any = {"crl": authorities()["ca2"].crl()} if revoking else {}
    _, server, refusal = await connected(
        SecureContext(**shown),
        SecureContext(ca=trusting(*trusted), **agents()["agent2"].options, **revoked),
        client={"reject_unauthorized": False},
        server=options,
    )
    must_be_authorized = options["request_cert"] and options.get("reject_unauthorized", True)
    assert (refusal is not None) is (must_be_authorized and name not in authorized)
    if refusal is None:
        assert server.authorized is (name in authorized)


@pytest.mark.feature("F6")
@pytest.mark.parametrize(("allowed", "code"), [(True, None), (False, "UNABLE_TO_GET_ISSUER_CERT")])
async def test_a_trusted_intermediate_is_enough_only_where_that_is_allowed(
    *, allowed: bool, code: str | None
) -> None:
    context = SecureContext(ca=S.subca, allow_partial_trust_chain=allowed)
    left, right = memory_stream_pair()
    client = TLSStream(left, context, host="agent10.example.com")
    server = TLSStream(right, SecureContext(**S.shows(S.cert)), server_side=True)
    error, _ = await meet(client, server)
    assert (error and error.code) == code


NAME = "ERR_TLS_CERT_ALTNAME_INVALID"
SELF = "DEPTH_ZERO_SELF_SIGNED_CERT"
VERDICTS: list[tuple[str, str | None, tuple[str, ...] | None, str | None]] = [
    ("agent1", None, None, LEAF_ALONE),
    ("agent1", None, ("ca1",), NAME),
    ("agent1", None, ("ca1", "ca2"), NAME),
    ("agent1", "agent1", ("ca1",), None),
    ("agent1", "agent1", ("ca1", "ca2"), None),
    ("agent1", "agent1", ("ca2",), LEAF_ALONE),
    ("agent2", None, None, SELF),
    ("agent2", "agent2", ("ca1",), SELF),
    ("agent2", "agent2", ("ca1", "ca2"), SELF),
    ("agent3", None, None, LEAF_ALONE),
    ("agent3", None, ("ca2",), NAME),
    ("agent3", None, ("ca1", "ca2"), NAME),
    ("agent3", "agent3", ("ca2",), None),
    ("agent3", "agent3", ("ca1", "ca2"), None),
    ("agent3", "agent1", ("ca1",), LEAF_ALONE),
]


@pytest.mark.feature("A5")
@pytest.mark.feature("C2")
@pytest.mark.node("test-https-strict.js")
@pytest.mark.parametrize(("server", "host", "trusted", "code"), VERDICTS)
async def test_the_chain_is_judged_before_the_name(
    server: str, host: str | None, trusted: tuple[str, ...] | None, code: str | None
) -> None:
    ca = None if trusted is None else trusting(*trusted)
    client, _, _ = await connected(
        SecureContext(ca=ca),
        SecureContext(**agents()[server].options),
        client={"host": host, "reject_unauthorized": False},
    )
    verdict = client.authorization_error
    assert (verdict and verdict.code) == code
    assert client.authorized is (code is None)


@pytest.mark.feature("C2")
async def test_one_self_signed_pair_on_both_sides_is_nobody_s_authority() -> None:
    context = SecureContext(ca=[], **agents()["agent2"].options)
    client, server, _ = await connected(
        context,
        context,
        client={"host": "agent2", "reject_unauthorized": False},
        server={"request_cert": True, "reject_unauthorized": False},
    )
    for stream in (client, server):
        assert stream.authorized is False
        assert stream.authorization_error is not None
        assert stream.authorization_error.code == SELF
