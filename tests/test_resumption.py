"""Resumption: which sessions resume, whom they are for, and what each side is told of them."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import functools
import gc
import re
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate
from engine_pairs import MOST_FLIGHTS, client, server
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

import trio_tlsnode as tls
from trio_tlsnode import (
    CallbackError,
    Certificate,
    CertificateError,
    ConfigurationError,
    ConnectionFailed,
    Engine,
    IdentityError,
    SecureContext,
    TLSServer,
    TLSStream,
)
from trio_tlsnode._openssl import callbacks
from trio_tlsnode.der import OCTET_STRING, SEQUENCE, elements, encoded
from trio_tlsnode.options import (
    SSL_OP_NO_EXTENDED_MASTER_SECRET,
    SSL_OP_NO_TICKET,
    SSL_OP_NO_TLSv1_3,
)
from trio_tlsnode.session_iterator import SessionIterator
from trio_tlsnode.sessions import PeerChains, Session, named
from trio_tlsnode.testing import Authority, default_authority, tls_pair

PAGE = Path(__file__).parent.parent / "docs" / "how-to-sessions.md"

VERSIONS = ["TLSv1.2", "TLSv1.3"]
in_both_versions = pytest.mark.parametrize("version", VERSIONS)
by_both_names = pytest.mark.parametrize("secure_options", [0, SSL_OP_NO_TICKET], ids=["ticket", "identifier"])


def only(version: str) -> dict[str, Any]:
    return {"min_version": version, "max_version": version}


# Two engines


@dataclasses.dataclass(frozen=True)
class Met:
    """Two engines that have shaken hands, as far as they did.

    Attributes:
        client: The client's.
        server: The server's.
        errors: What each of them failed of.
        sessions: The sessions that the client was told of.
        servers_sessions: What the server shows as its session.
    """

    client: Engine
    server: Engine
    errors: list[ConnectionFailed | None]
    sessions: list[bytes]
    servers_sessions: list[bytes | None]

    @property
    def reused(self) -> bool:
        """Whether a session was resumed, as both sides know."""
        assert self.errors == [None, None]
        assert self.client.info is not None
        assert self.server.info is not None
        assert self.client.info.session_reused == self.server.info.session_reused
        return self.client.info.session_reused

    @property
    def info(self) -> tls.ConnectionInfo:
        """What the client knows."""
        assert self.errors == [None, None]
        assert self.client.info is not None
        return self.client.info

    def say(self, data: bytes = b"hello") -> None:
        """Let the server say something, and its tickets with it."""
        self.server.write(data)
        self.client.feed(self.server.drain())
        assert self.client.read() == data


def meet(
    of_client: SecureContext,
    of_server: SecureContext,
    *,
    session: Any = None,
    chains: PeerChains | None = None,
    forced: bytes | None = None,
    server_options: dict[str, Any] | None = None,
    choice: dict[str, Any] | None = None,
    **client_options: Any,
) -> Met:
    """Shake hands, and let the server say something.

    Args:
        of_client: The client's context.
        of_server: The server's context.
        session: The client's option.
        chains: What the server presented when the session was made.
        forced: A session that the client offers without looking at it.
        server_options: The options of the server's engine.
        choice: What the server chooses, beside its context.
        client_options: The other options of the client's engine.
    """
    sessions: list[bytes] = []
    ours = Engine(
        of_client, **{"host": "localhost", **client_options}, session=session, on_session=sessions.append
    )
    if chains is not None:
        assert ours.offer(session, chains)
    if forced is not None:
        assert ours.offer_session(forced)
    theirs = Engine(of_server, server_side=True, **(server_options or {}))
    engines = (ours, theirs)
    met = Met(ours, theirs, [None, None], sessions, [])
    for _ in range(MOST_FLIGHTS):
        for side in (0, 1):
            try:
                if side == 1 and theirs.client_hello is None:
                    theirs.read_client_hello()
                    theirs.choose(**{"context": of_server, **(choice or {})})
                engines[side].do_handshake()
            except ConnectionFailed as error:
                met.errors[side] = met.errors[side] or error
            if output := engines[side].drain():
                engines[1 - side].feed(output)
    if met.errors == [None, None]:
        met.say()
        met.servers_sessions.append(theirs.session)
    # A server keeps the sessions of its own cache only if it has said goodbye, or was told to let go.
    theirs.release()
    return met


def session_of(of_client: SecureContext, of_server: SecureContext, **options: Any) -> bytes:
    """Return the newest session of a full handshake."""
    met = meet(of_client, of_server, **options)
    assert not met.reused
    return met.sessions[-1]


# A session resumes


@pytest.mark.feature("A7")
@pytest.mark.feature("C12")
@pytest.mark.feature("E1")
@in_both_versions
@by_both_names
def test_a_session_resumes_and_both_sides_know_it(version: str, secure_options: int) -> None:
    of_client, of_server = client(), server(**only(version), secure_options=secure_options)
    first = meet(of_client, of_server)
    assert not first.reused
    for session in first.sessions:
        again = meet(of_client, of_server, session=session)
        assert again.reused
        assert again.info.authorized
        assert again.info.protocol == version
        assert again.info.peer_certificate == first.info.peer_certificate


@pytest.mark.feature("A7")
@in_both_versions
def test_a_session_outlives_its_context(version: str) -> None:
    of_server = server(**only(version))
    session = session_of(client(), of_server)
    gc.collect()
    assert meet(client(), of_server, session=session).reused


@pytest.mark.feature("A7")
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_session_may_be_any_bytes(kind: Callable[[bytes], Any]) -> None:
    of_client, of_server = client(), server()
    assert meet(of_client, of_server, session=kind(session_of(of_client, of_server))).reused


@pytest.mark.feature("A7")
@pytest.mark.parametrize(("of_session", "now"), [VERSIONS, VERSIONS[::-1]])
def test_a_session_of_another_version_leads_to_a_full_handshake(of_session: str, now: str) -> None:
    of_server = server()
    session = session_of(client(max_version=of_session), of_server)
    met = meet(client(max_version=now), of_server, session=session)
    assert not met.reused
    assert met.info.protocol == now


@pytest.mark.feature("A7")
@pytest.mark.feature("E1")
@in_both_versions
@by_both_names
def test_a_server_that_does_not_know_the_session_does_a_full_handshake(
    version: str, secure_options: int
) -> None:
    of_client, options = client(), {**only(version), "secure_options": secure_options}
    session = session_of(of_client, server(**options))
    met = meet(of_client, server(**options), session=session)
    assert not met.reused
    assert met.sessions


# It never crosses trust: the client's side

AUTHORITY = default_authority()
ALICE: dict[str, Any] = {**AUTHORITY.client("alice").options}
BOB: dict[str, Any] = {**AUTHORITY.client("bob").options}
ECDSA_128, ECDSA_256 = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"


@pytest.mark.feature("A7")
@in_both_versions
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"ca": [AUTHORITY.ca, Authority().ca]}),
        ({}, {"crl": AUTHORITY.crl()}),
        ({}, {"allow_partial_trust_chain": True}),
        ({}, ALICE),
        (ALICE, {}),
        (ALICE, BOB),
        ({}, {"require_groups": "P-256"}),
        # A server would break the handshake off.
        ({"ciphers": ECDSA_128}, {"ciphers": ECDSA_256}),
        ({}, {"secure_options": SSL_OP_NO_EXTENDED_MASTER_SECRET}),
    ],
    ids=[
        *("ca", "crl", "partial chain", "certificate", "no certificate", "another certificate"),
        *("groups", "ciphers", "form of the keys"),
    ],
)
def test_a_client_does_not_resume_under_other_options(
    version: str, one: dict[str, Any], other: dict[str, Any]
) -> None:
    of_server = server(**only(version), groups="X25519:P-256")
    session = session_of(client(ca=AUTHORITY.ca, **one), of_server)
    assert meet(client(ca=AUTHORITY.ca, **one), of_server, session=session).reused
    other_client = client(**{"ca": AUTHORITY.ca, **other})
    met = meet(other_client, of_server, session=session)
    assert not met.reused
    # And back.
    assert not meet(client(ca=AUTHORITY.ca, **one), of_server, session=met.sessions[-1]).reused


@pytest.mark.feature("A7")
@in_both_versions
@pytest.mark.parametrize(
    "options",
    [
        {"verification_time": dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)},
        {"session_timeout": 1},
        {"session_id_context": "ignored on clients"},
        {"groups": "X25519"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_a_client_resumes_under_options_that_trust_nobody_else(version: str, options: dict[str, Any]) -> None:
    of_server = server(**only(version))
    session = session_of(client(), of_server)
    assert meet(client(**options), of_server, session=session).reused


@pytest.mark.feature("A7")
@in_both_versions
@pytest.mark.parametrize("how", ["server_name", "host"])
def test_a_session_is_for_one_name(version: str, how: str) -> None:
    names = ("localhost", "www.localhost")
    of_server = SecureContext(**AUTHORITY.good(*names).options, **only(version))
    of_client = client()
    one: dict[str, Any] = {how: names[0]}
    other: dict[str, Any] = {how: names[1]}
    session = session_of(of_client, of_server, **one)
    assert meet(of_client, of_server, **one, session=session).reused
    assert not meet(of_client, of_server, **other, session=session).reused


@pytest.mark.feature("A7")
@in_both_versions
def test_a_session_says_its_name_though_the_server_has_not_acknowledged_it(version: str) -> None:
    of_server = SecureContext(**AUTHORITY.good("localhost", "127.0.0.1").options, **only(version))
    nameless = session_of(client(), of_server, host="127.0.0.1")
    # As it is where the server says nothing of the name.
    session = named(nameless, "localhost")
    expected = dataclasses.replace(Session.parse(nameless), server_name="localhost")
    assert Session.parse(session) == expected
    assert named(session, "other.example") == session
    assert meet(client(), of_server, session=session).reused
    assert not meet(client(), of_server, session=session, host="127.0.0.1").reused
    assert not meet(client(), of_server, session=nameless).reused


@pytest.mark.feature("A7")
@in_both_versions
def test_a_session_without_a_name_is_for_whom_the_certificate_is(version: str) -> None:
    of_server = SecureContext(**AUTHORITY.good("127.0.0.1", "127.0.0.2").options, **only(version))
    of_client = client()
    session = session_of(of_client, of_server, host="127.0.0.1")
    assert meet(of_client, of_server, session=session, host="127.0.0.2").reused
    elsewhere = SecureContext(**AUTHORITY.good("127.0.0.3").options, **only(version))
    assert not meet(of_client, elsewhere, session=session, host="127.0.0.3").reused


@pytest.mark.feature("A7")
@pytest.mark.feature("C2")
@in_both_versions
def test_a_session_of_a_server_that_was_not_verified_does_not_resume_where_it_must_be(version: str) -> None:
    of_client, of_server = client(ca=[]), server(**only(version))
    session = session_of(of_client, of_server, reject_unauthorized=False)
    again = meet(of_client, of_server, session=session, reject_unauthorized=False)
    assert again.reused
    assert not again.info.authorized
    assert again.info.authorization_error is not None
    assert again.info.authorization_error.code == "UNABLE_TO_VERIFY_LEAF_SIGNATURE"
    met = meet(of_client, of_server, session=session)
    assert isinstance(met.errors[0], CertificateError)
    assert met.errors[0].code == "UNABLE_TO_VERIFY_LEAF_SIGNATURE"


@pytest.mark.feature("A7")
@pytest.mark.feature("C2")
@in_both_versions
def test_a_wrong_name_that_was_let_pass_is_refused_where_it_must_not_be(version: str) -> None:
    of_client, of_server = client(), server(**only(version))
    session = session_of(of_client, of_server, host="wrong.example", reject_unauthorized=False)
    again = meet(of_client, of_server, host="wrong.example", session=session, reject_unauthorized=False)
    assert again.reused
    assert isinstance(again.info.authorization_error, IdentityError)
    refused = meet(of_client, of_server, host="wrong.example", session=session)
    assert isinstance(refused.errors[0], IdentityError)
    assert refused.client.info is None


@pytest.mark.feature("A5")
@pytest.mark.feature("A7")
@in_both_versions
@pytest.mark.parametrize("raises", [True, False], ids=["raised", "returned"])
def test_a_check_of_ones_own_is_asked_on_a_resumed_connection_too(version: str, raises: bool) -> None:
    of_client, of_server = client(), server(**only(version))
    session = session_of(of_client, of_server)
    asked: list[tuple[str, Certificate | None]] = []

    def refuse(host: str, certificate: Certificate | None) -> Exception:
        asked.append((host, certificate))
        if raises:
            raise LookupError("not today")
        return LookupError("not today")

    met = meet(of_client, of_server, session=session, check_server_identity=refuse)
    assert isinstance(met.errors[0], IdentityError)
    assert isinstance(met.errors[0].__cause__, LookupError)
    assert met.client.info is None
    (own,) = of_server.certificates
    assert asked == [("localhost", Certificate(own))]


def in_days(days: int) -> dt.datetime:
    return dt.datetime.now(dt.UTC) + dt.timedelta(days=days)


@pytest.mark.feature("A7")
@pytest.mark.feature("C2")
@in_both_versions
@pytest.mark.parametrize(
    ("moment", "code"), [(-(1 << 16), "CERT_NOT_YET_VALID"), (1 << 20, "CERT_HAS_EXPIRED")]
)
def test_a_certificate_that_is_not_valid_any_more_is_none_on_a_resumed_connection(
    version: str, moment: int, code: str
) -> None:
    of_server = server(**only(version))
    session = session_of(client(), of_server)
    other_time = client(verification_time=in_days(moment))
    met = meet(other_time, of_server, session=session, reject_unauthorized=False)
    assert met.reused
    assert not met.info.authorized
    assert met.info.authorization_error is not None
    assert met.info.authorization_error.code == code
    # Where it is to be refused, the server gets the chance to show a new one.
    refused = meet(other_time, of_server, session=session)
    assert isinstance(refused.errors[0], CertificateError)
    assert refused.errors[0].code == code
    hello = refused.server.client_hello
    assert hello is not None
    assert hello.psk_identities == ()
    assert not hello.session_ticket


@pytest.mark.feature("A7")
@pytest.mark.feature("C3")
@in_both_versions
def test_an_issuer_that_has_expired_meanwhile_counts_where_it_is_known(version: str) -> None:
    of_client, of_server = client(), server(**only(version))
    session = session_of(of_client, of_server)
    (own,) = map(Certificate, of_server.certificates)
    issuer, expired = (
        Certificate(load_pem_x509_certificate(pem).public_bytes(Encoding.DER))
        for pem in (AUTHORITY.ca, AUTHORITY.expired("issuer").cert)
    )
    for chain, is_offered in (((own, issuer), True), ((own, expired), False)):
        engine = Engine(of_client, host="localhost")
        assert engine.offer(session, PeerChains((own,), chain)) == is_offered
    met = meet(
        of_client,
        of_server,
        chains=PeerChains((own,), (own, expired)),
        session=session,
        reject_unauthorized=False,
    )
    assert met.reused
    assert met.info.verified_chain == ()
    assert met.info.authorization_error is not None
    assert (met.info.authorization_error.code, met.info.authorization_error.depth) == ("CERT_HAS_EXPIRED", 1)


# It never crosses trust: the server's side


def asking(*, reject_unauthorized: bool = True) -> dict[str, Any]:
    return {"request_cert": True, "reject_unauthorized": reject_unauthorized}


@pytest.mark.feature("A7")
@pytest.mark.feature("B8")
@in_both_versions
@by_both_names
def test_a_server_does_not_resume_under_other_demands_on_its_clients(
    version: str, secure_options: int
) -> None:
    of_client = client(**ALICE)
    of_server = server(ca=AUTHORITY.ca, **only(version), secure_options=secure_options)
    demands: list[dict[str, Any]] = [{}, asking(reject_unauthorized=False), asking()]
    for made in demands:
        session = session_of(of_client, of_server, server_options=made)
        for now in demands:
            met = meet(of_client, of_server, forced=session, server_options=now)
            assert met.reused == (now is made)
            assert met.server.info is not None
            assert met.server.info.authorized == bool(now)


@pytest.mark.feature("B8")
@pytest.mark.feature("C2")
@in_both_versions
def test_who_came_without_a_certificate_does_not_get_in_by_resuming(version: str) -> None:
    of_client, of_server = client(), server(ca=AUTHORITY.ca, **only(version))
    session = session_of(of_client, of_server)
    met = meet(of_client, of_server, forced=session, server_options=asking())
    assert isinstance(met.errors[1], CertificateError)
    assert met.errors[1].code == "ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE"


@pytest.mark.feature("B8")
@pytest.mark.feature("C2")
@in_both_versions
@pytest.mark.parametrize("presented", ["nothing", "untrusted"])
def test_a_server_judges_a_client_it_did_not_refuse_anew(version: str, presented: str) -> None:
    options = {} if presented == "nothing" else {**AUTHORITY.self_signed("mallory").options}
    of_client, of_server = client(**options), server(ca=AUTHORITY.ca, **only(version))
    lenient = asking(reject_unauthorized=False)
    session = session_of(of_client, of_server, server_options=lenient)
    met = meet(of_client, of_server, session=session, server_options=lenient)
    assert met.reused
    assert met.server.info is not None
    assert not met.server.info.authorized
    assert met.server.info.authorization_error is not None
    assert met.server.info.authorization_error.code == (
        "UNABLE_TO_GET_ISSUER_CERT" if presented == "nothing" else "DEPTH_ZERO_SELF_SIGNED_CERT"
    )


@pytest.mark.feature("B8")
@pytest.mark.feature("C2")
@in_both_versions
@pytest.mark.parametrize("reject", [True, False])
def test_a_server_does_not_trust_a_certificate_that_has_expired_meanwhile(version: str, reject: bool) -> None:
    of_client, of_server = client(**ALICE), server(ca=AUTHORITY.ca, **only(version))
    demands = asking(reject_unauthorized=reject)
    session = session_of(of_client, of_server, server_options=demands)
    # The time is the only thing that is different, and with it go other ticket keys.
    later = server(ca=AUTHORITY.ca, **only(version), verification_time=in_days(1 << 20))
    met = meet(
        of_client,
        later,
        session=session,
        server_options=demands,
        choice={"tickets_of": of_server},
    )
    if reject:
        assert isinstance(met.errors[1], CertificateError)
        assert met.errors[1].code == "CERT_HAS_EXPIRED"
        assert met.server.info is None
    else:
        assert met.reused
        assert met.server.info is not None
        assert not met.server.info.authorized
        assert met.server.info.authorization_error is not None
        assert met.server.info.authorization_error.code == "CERT_HAS_EXPIRED"
        assert met.server.info.peer_certificate == Certificate(
            load_pem_x509_certificate(ALICE["cert"]).public_bytes(Encoding.DER)
        )


@pytest.mark.feature("B8")
@in_both_versions
def test_a_server_that_trusts_others_does_a_full_handshake_even_with_the_same_ticket_keys(
    version: str,
) -> None:
    of_client, of_server = client(**ALICE), server(ca=AUTHORITY.ca, **only(version))
    session = session_of(of_client, of_server, server_options=asking())
    others = server(ca=[AUTHORITY.ca, Authority().ca], **only(version))
    met = meet(of_client, others, session=session, server_options=asking(), choice={"tickets_of": of_server})
    assert not met.reused


@pytest.mark.feature("B16")
@pytest.mark.feature("F10")
@in_both_versions
def test_another_session_id_context_leads_to_a_full_handshake_even_with_the_same_ticket_keys(
    version: str,
) -> None:
    of_client = client()
    one, other = (server(**only(version), session_id_context=name) for name in ("one", "other"))
    session = session_of(of_client, one)
    assert meet(of_client, one, session=session).reused
    assert not meet(of_client, other, session=session, choice={"tickets_of": one}).reused
    assert not meet(of_client, other, session=session).reused


@pytest.mark.feature("B16")
@pytest.mark.feature("F10")
@in_both_versions
@by_both_names
def test_no_session_may_be_resumed_for_no_time(version: str, secure_options: int) -> None:
    of_client, of_server = client(), server(session_timeout=0, secure_options=secure_options, **only(version))
    for session in meet(of_client, of_server).sessions:
        assert not meet(of_client, of_server, session=session).reused


@pytest.mark.feature("B16")
@pytest.mark.feature("F10")
@in_both_versions
@pytest.mark.parametrize(("option", "seconds"), [({}, 300), ({"session_timeout": 7.1}, 8)])
def test_how_long_a_session_may_be_resumed_is_the_servers_to_say(
    version: str, option: dict[str, Any], seconds: int
) -> None:
    met = meet(client(session_timeout=1), server(**only(version), **option))
    session = Session.parse(met.sessions[-1])
    assert session.ticket_lifetime_hint == session.lifetime == seconds
    # What a ticket holds, by which OpenSSL judges it.
    (of_server,) = met.servers_sessions
    assert of_server is not None
    assert Session.parse(of_server).timeout == seconds


@pytest.mark.feature("A7")
@pytest.mark.node("test-tls-session-timeout.js")
@in_both_versions
def test_a_session_whose_time_is_over_leads_to_a_full_handshake(version: str) -> None:
    of_client, of_server = client(), server(**only(version))
    session = with_field(session_of(of_client, of_server), "time", b"\2\1\1")
    assert Session.parse(session).time == 1
    # In TLS 1.2 only the server looks at its own time, which is in the ticket.
    assert meet(of_client, of_server, session=session).reused == (version == "TLSv1.2")


@pytest.mark.feature("B2")
@pytest.mark.feature("E1")
@in_both_versions
async def test_a_context_chosen_by_name_resumes_under_its_own_rules(version: str) -> None:
    names = ["one.example", "two.example", "brief.example"]
    contexts = {name: SecureContext(**AUTHORITY.good(name).options, **only(version)) for name in names[:2]}
    contexts["brief.example"] = SecureContext(
        **AUTHORITY.good("brief.example").options, **only(version), session_timeout=0
    )
    of_server, of_client = TLSServer(greet, server(**only(version))), client()
    for name, context in contexts.items():
        of_server.add_context(name, context)
    async with trio.open_nursery() as nursery:
        made = {name: await visit(nursery, of_server, of_client, host=name) for name in names}
        for made_for, sessions in [(name, visited.sessions) for name, visited in made.items()]:
            for name in names if sessions else ():
                visited = await visit(nursery, of_server, of_client, host=name, forced=sessions[-1])
                assert visited.info.session_reused == (made_for == name != "brief.example")
                assert visited.info.peer_certificate is not None
                assert visited.info.peer_certificate.subject_alt_name == f"DNS:{name}"


# Garbage

_FIELDS = {"time": 0xA1, "verify_result": 0xA5, "ticket": 0xAA}


def with_field(session: bytes, name: str, content: bytes) -> bytes:
    """Return a session with one of its fields replaced."""
    [(_, body)] = elements(session)
    fields = [(tag, content if tag == _FIELDS[name] else value) for tag, value in elements(body)]
    return encoded(SEQUENCE, b"".join(encoded(*field) for field in fields))


@functools.cache
def endpoints(version: str) -> tuple[SecureContext, SecureContext, bytes]:
    of_client, of_server = client(), server(max_version=version)
    return of_client, of_server, session_of(of_client, of_server)


@st.composite
def garbled(draw: st.DrawFn) -> tuple[str, bytes]:
    """Draw a version, and a session of it that is still DER, but one field of which is garbled or missing."""
    version = draw(st.sampled_from(VERSIONS))
    [(_, content)] = elements(endpoints(version)[2])
    fields = elements(content)
    at = draw(st.integers(0, len(fields) - 1))
    tag, value = fields[at]
    match draw(st.sampled_from(["change", "cut", "drop", "retag"])):
        case "change" if value:
            where = draw(st.integers(0, len(value) - 1))
            flipped = value[where] ^ draw(st.integers(1, 255))
            fields[at] = tag, value[:where] + bytes((flipped,)) + value[where + 1 :]
        case "retag":
            fields[at] = draw(st.integers(0xA1, 0xB4)), value
        case "cut":
            fields[at] = tag, value[: draw(st.integers(0, len(value)))]
        case _:
            del fields[at]
    return version, encoded(SEQUENCE, b"".join(encoded(*field) for field in fields))


@pytest.mark.feature("A7")
@given(garbled())
def test_a_garbled_session_is_refused_or_not_resumed_or_fails_the_handshake(
    drawn: tuple[str, bytes],
) -> None:
    version, session = drawn
    of_client, of_server, _ = endpoints(version)
    try:
        met = meet(of_client, of_server, session=session)
    except ConfigurationError as error:
        assert error.option == "session"
        return
    if met.errors == [None, None]:
        assert met.info.authorized
    else:
        assert all(error is None or isinstance(error, ConnectionFailed) for error in met.errors)


@pytest.mark.feature("A7")
@in_both_versions
def test_a_garbled_ticket_leads_to_a_full_handshake(version: str) -> None:
    of_client, of_server, session = endpoints(version)
    ticket = Session.parse(session).ticket
    assert ticket is not None
    for garbage in (b"foreign", ticket[:-1], ticket[:-1] + bytes((ticket[-1] ^ 1,)), ticket * 3):
        changed = with_field(session, "ticket", encoded(OCTET_STRING, garbage))
        assert not meet(of_client, of_server, session=changed).reused


@pytest.mark.feature("A7")
@pytest.mark.parametrize(
    "session", [b"", b"garbage", endpoints("TLSv1.3")[2][:-1]], ids=["empty", "no DER", "cut"]
)
async def test_what_is_no_session_is_refused_before_there_is_a_connection(session: bytes) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await tls.connect("localhost", 1, context=client(), session=session)
    assert caught.value.option == "session"
    with pytest.raises(ConfigurationError, match="must be bytes"):
        await tls.connect("localhost", 1, context=client(), session="garbage")  # type: ignore[arg-type]


# Streams


async def greet(stream: TLSStream) -> None:
    await stream.send_all(b"hello")
    async for _ in stream:
        pass


@dataclasses.dataclass(frozen=True)
class Visit:
    """What a client has seen of a server that greets.

    Attributes:
        info: What was negotiated.
        sessions: The sessions that it was told of.
        told_early: How many of them it was told of by the end of the handshake.
        session: `TLSStream.session` at the end of the handshake, and after the greeting.
        ticket: `TLSStream.tls_ticket` then.
    """

    info: tls.ConnectionInfo
    sessions: list[bytes]
    told_early: int
    session: tuple[bytes | None, bytes | None]
    ticket: tuple[bytes | None, bytes | None]


async def visit(
    nursery: trio.Nursery,
    of_server: TLSServer,
    of_client: SecureContext,
    *,
    host: str = "localhost",
    forced: bytes | None = None,
    **options: Any,
) -> Visit:
    """Connect to a server over memory, and hear its greeting.

    Args:
        nursery: Where the server's connection lives.
        of_server: The server.
        of_client: The client's context.
        host: Whom to ask for.
        forced: A session that the client offers without looking at it.
        options: Those of the stream.
    """
    ours, theirs = memory_stream_pair()
    nursery.start_soon(of_server.handle, theirs)
    sessions: list[bytes] = []
    stream = TLSStream(ours, of_client, host=host, on_session=sessions.append, **options)
    if forced is not None:
        assert stream._engine.offer_session(forced)
    async with stream:
        await stream.do_handshake()
        told_early, session, ticket = len(sessions), stream.session, stream.tls_ticket
        assert await stream.receive_some() == b"hello"
        return Visit(
            stream.info, sessions, told_early, (session, stream.session), (ticket, stream.tls_ticket)
        )


@pytest.mark.feature("A18")
@pytest.mark.feature("C12")
@in_both_versions
@by_both_names
async def test_every_session_that_is_told_resumes(
    version: str, secure_options: int, nursery: trio.Nursery
) -> None:
    of_client = client()
    of_server = TLSServer(greet, server(**only(version), secure_options=secure_options))
    visited = await visit(nursery, of_server, of_client)
    assert len(set(visited.sessions)) == len(visited.sessions) == (2 if version == "TLSv1.3" else 1)
    for session in visited.sessions:
        assert Session.parse(session).resumable
        assert (await visit(nursery, of_server, of_client, session=session)).info.session_reused
    assert of_server.statistics().resumed == len(visited.sessions)


@pytest.mark.feature("A18")
@pytest.mark.feature("C12")
async def test_tls_1_3_has_no_session_before_a_ticket_was_read(nursery: trio.Nursery) -> None:
    of_server, of_client = TLSServer(greet, server(**only("TLSv1.3"))), client()
    first = await visit(nursery, of_server, of_client)
    assert (first.session[0], first.ticket[0], first.told_early) == (None, None, 0)
    assert first.session[1] == first.sessions[-1]
    # Nor is a ticket that was used offered to be used again.
    again = await visit(nursery, of_server, of_client, session=first.sessions[-1])
    assert again.info.session_reused
    assert (again.session[0], again.ticket[0], again.told_early) == (None, None, 0)
    assert again.session[1] == again.sessions[-1] != first.sessions[-1]


@pytest.mark.feature("A18")
@pytest.mark.feature("C12")
async def test_tls_1_2_has_its_session_at_the_end_of_the_handshake(nursery: trio.Nursery) -> None:
    of_server, of_client = TLSServer(greet, server(**only("TLSv1.2"))), client()
    first = await visit(nursery, of_server, of_client)
    assert first.told_early == len(first.sessions) == 1
    assert first.session == (first.sessions[0], first.sessions[0])
    again = await visit(nursery, of_server, of_client, session=first.sessions[0])
    # It is the same one, which there is no need to tell of again.
    assert again.sessions == []
    assert again.ticket == first.ticket


@pytest.mark.feature("C12")
@in_both_versions
async def test_the_ticket_is_what_the_next_client_hello_has(version: str, nursery: trio.Nursery) -> None:
    hellos: list[tls.ClientHello] = []

    async def note_and_greet(stream: TLSStream) -> None:
        assert stream.client_hello is not None
        assert stream.tls_ticket is None
        hellos.append(stream.client_hello)
        await greet(stream)

    of_server, of_client = TLSServer(note_and_greet, server(**only(version))), client()
    first = await visit(nursery, of_server, of_client)
    await visit(nursery, of_server, of_client, session=first.session[1])
    hello = hellos[-1]
    offered = hello.session_ticket if version == "TLSv1.2" else hello.psk_identities[0]
    assert offered == first.ticket[1]
    assert first.ticket[1] is not None


@pytest.mark.feature("C12")
@in_both_versions
async def test_there_is_no_session_after_closing_but_the_info_stays(version: str) -> None:
    ours, theirs = await tls_pair(version=version)
    await theirs.send_all(b"hello")
    await ours.receive_some()
    assert ours.session is not None
    assert theirs.session is not None
    for stream in (ours, theirs):
        await stream.aclose()
        assert (stream.session, stream.tls_ticket) == (None, None)
        assert stream.info.session_reused is False
    assert [session async for session in ours.sessions()] == []


FORGED = b"\x17\3\3\0\x20" + bytes(32)


@pytest.mark.feature("A18")
@pytest.mark.feature("C12")
@in_both_versions
async def test_there_is_no_session_after_a_fatal_alert(version: str) -> None:
    ours, theirs = await tls_pair(version=version)
    await theirs.send_all(b"hello")
    await ours.receive_some()
    await ours.transport_stream.send_all(FORGED)
    for stream in (theirs, ours):
        with pytest.raises(ConnectionFailed, match=r"BAD_RECORD_MAC"):
            await stream.receive_some()
        assert (stream.session, stream.tls_ticket) == (None, None)
        await stream.aclose()


@pytest.mark.feature("E1")
async def test_a_server_forgets_a_session_that_it_keeps_after_a_fatal_alert(nursery: trio.Nursery) -> None:
    context = server(**only("TLSv1.2"), secure_options=SSL_OP_NO_TICKET)
    of_server, of_client = TLSServer(greet, context), client()
    ours, theirs = memory_stream_pair()
    nursery.start_soon(of_server.handle, theirs)
    stream = await tls.wrap_client(ours, context=of_client, host="localhost")
    session = stream.session
    assert (await visit(nursery, of_server, of_client, session=session)).info.session_reused
    await ours.send_all(FORGED)
    await wait_all_tasks_blocked()
    assert not (await visit(nursery, of_server, of_client, session=session)).info.session_reused
    await trio.aclose_forcefully(stream)


@pytest.mark.feature("A7")
@pytest.mark.feature("E1")
@in_both_versions
@by_both_names
async def test_a_session_resumes_after_an_unclean_end(version: str, secure_options: int) -> None:
    of_client = client()
    of_server = server(**only(version), secure_options=secure_options)
    session = None
    for reused in (False, True, True):
        sessions: list[bytes] = []
        ours, theirs = await tls_pair(
            client_context=of_client,
            server_context=of_server,
            client_options={"host": "localhost", "session": session, "on_session": sessions.append},
        )
        await theirs.send_all(b"hello")
        await ours.receive_some()
        assert ours.info.session_reused == theirs.info.session_reused == reused
        # No goodbye of either.
        await trio.aclose_forcefully(theirs)
        with pytest.raises(tls.TruncationError):
            await ours.receive_some()
        await trio.aclose_forcefully(ours)
        session = sessions[-1] if sessions else session


# on_session, and sessions()


@pytest.mark.feature("A18")
@in_both_versions
async def test_what_on_session_raises_fails_the_connection(version: str) -> None:
    def fail(session: bytes) -> NoReturn:
        raise LookupError("no room for sessions")

    async def speak() -> None:
        with contextlib.suppress(ConnectionFailed):
            await theirs.send_all(b"hello")

    ours, theirs = await tls_pair(version=version, client_options={"on_session": fail}, handshake=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(speak)
        for _ in range(2):
            with pytest.raises(CallbackError, match="on_session raised") as caught:
                await ours.receive_some()
                await ours.receive_some()
            assert isinstance(caught.value.__cause__, LookupError)
            assert caught.value.callback == "on_session"
            assert caught.value.phase == ("handshake" if version == "TLSv1.2" else "secure")
        await ours.aclose()
    await theirs.aclose()


@pytest.mark.feature("A18")
async def test_on_session_may_not_be_async() -> None:
    async def later(session: bytes) -> None: ...

    with pytest.raises(ExceptionGroup) as caught:
        await tls_pair(version="TLSv1.2", client_options={"on_session": later})
    assert caught.group_contains(CallbackError, match="on_session is called within OpenSSL")
    with pytest.raises(tls.ConfigurationTypeError, match="on_session"):
        await tls_pair(client_options={"on_session": "no function"})


@pytest.mark.feature("A18")
@in_both_versions
async def test_the_iterator_has_every_session_and_ends_with_the_stream(version: str) -> None:
    told: list[bytes] = []
    ours, theirs = await tls_pair(version=version, client_options={"on_session": told.append})
    early, found = ours.sessions(), []

    async def collect() -> None:
        async for session in early:
            found.append(session)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect)
        await wait_all_tasks_blocked()
        assert found == told == ([ours.session] if version == "TLSv1.2" else [])
        await theirs.send_all(b"hello")
        await ours.receive_some()
        await wait_all_tasks_blocked()
        assert found == told
        assert found[-1] == ours.session
        # Who asks late has the newest.
        late = ours.sessions()
        await ours.aclose()
    assert [session async for session in late] == told[-1:]
    with pytest.raises(ValueError, match="a server has no sessions"):
        theirs.sessions()
    await theirs.aclose()


@pytest.mark.feature("A18")
async def test_the_iterator_may_be_made_before_the_handshake() -> None:
    ours, theirs = await tls_pair(version="TLSv1.2", handshake=False)
    sessions = ours.sessions()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.do_handshake)
        nursery.start_soon(theirs.do_handshake)
    assert await anext(sessions) == ours.session
    await ours.aclose()
    await theirs.aclose()


@pytest.mark.feature("A18")
async def test_a_cancelled_wait_for_a_session_loses_none(autojump_clock: MockClock) -> None:
    iterator = SessionIterator(None)
    with trio.move_on_after(1) as scope:
        await anext(iterator)
    assert scope.cancelled_caught
    iterator.add(b"one")
    with trio.CancelScope() as scope:
        scope.cancel()
        await anext(iterator)
    assert scope.cancelled_caught
    assert await anext(iterator) == b"one"


@pytest.mark.feature("A18")
async def test_of_sessions_that_nobody_fetches_the_newest_are_kept() -> None:
    iterator = SessionIterator(b"first")
    for number in range(20):
        iterator.add(b"%d" % number)
    iterator.close()
    assert [int(session) async for session in iterator] == [*range(4, 20)]


async def test_fetching_a_session_is_a_checkpoint() -> None:
    iterator = SessionIterator(b"first")
    with trio.testing.assert_checkpoints():
        await anext(iterator)
    iterator.close()
    with trio.testing.assert_checkpoints(), pytest.raises(StopAsyncIteration):
        await anext(iterator)


# A server is told of new sessions


@pytest.mark.feature("B17")
@in_both_versions
@by_both_names
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_a_server_is_told_of_each_session_that_has_an_identifier(
    version: str, secure_options: int, is_async: bool, nursery: trio.Nursery
) -> None:
    told: list[tuple[bytes, bytes]] = []

    def note(identifier: bytes, session: bytes) -> None:
        told.append((identifier, session))

    async def note_later(identifier: bytes, session: bytes) -> None:
        await trio.lowlevel.checkpoint()
        note(identifier, session)

    context = server(**only(version), secure_options=secure_options)
    of_server = TLSServer(greet, context, on_new_session=note_later if is_async else note)
    of_client = client()
    visited = await visit(nursery, of_server, of_client)
    named = version == "TLSv1.3" or secure_options == SSL_OP_NO_TICKET
    assert len(told) == named
    for identifier, session in told:
        parsed = Session.parse(session)
        assert identifier == parsed.session_id
        assert len(identifier) == 32
        assert parsed.protocol == version
    if version == "TLSv1.2" and named:
        assert Session.parse(visited.sessions[0]).session_id == told[0][0]
    again = await visit(nursery, of_server, of_client, session=visited.sessions[-1])
    assert again.info.session_reused
    # A session of TLS 1.2 that is resumed is no new one.
    assert len(told) == (2 if version == "TLSv1.3" else named)


@pytest.mark.feature("B17")
@in_both_versions
async def test_application_data_waits_for_on_new_session(version: str, nursery: trio.Nursery) -> None:
    may_go_on, received = trio.Event(), []

    async def hold(identifier: bytes, session: bytes) -> None:
        await may_go_on.wait()

    async def note(stream: TLSStream) -> None:
        received.append(await stream.receive_some())

    context = server(**only(version), secure_options=SSL_OP_NO_TICKET)
    of_server = TLSServer(note, context, on_new_session=hold)
    ours, theirs = memory_stream_pair()
    nursery.start_soon(of_server.handle, theirs)
    async with await tls.wrap_client(ours, context=client(), host="localhost") as stream:
        await stream.send_all(b"hello")
        await wait_all_tasks_blocked()
        assert received == []
        assert of_server.statistics().secure == 0
        may_go_on.set()
        await wait_all_tasks_blocked()
        assert received == [b"hello"]


@pytest.mark.feature("B7")
@pytest.mark.feature("B17")
async def test_on_new_session_is_bounded_by_the_time_of_the_handshake(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def hang(identifier: bytes, session: bytes) -> None:
        await trio.sleep_forever()

    of_server = TLSServer(greet, server(), on_new_session=hang, handshake_timeout=7)
    ours, theirs = memory_stream_pair()
    nursery.start_soon(of_server.handle, theirs)
    await tls.wrap_client(ours, context=client(), host="localhost")
    (error,) = (await anext(of_server.client_errors())).exceptions
    assert isinstance(error, tls.HandshakeTimeout)
    assert trio.current_time() == 7


@pytest.mark.feature("B17")
@in_both_versions
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_what_on_new_session_raises_refuses_the_client(
    version: str, is_async: bool, nursery: trio.Nursery
) -> None:
    def fail(identifier: bytes, session: bytes) -> NoReturn:
        raise LookupError("no room")

    async def fail_later(identifier: bytes, session: bytes) -> NoReturn:
        await trio.lowlevel.checkpoint()
        fail(identifier, session)

    context = server(**only(version), secure_options=SSL_OP_NO_TICKET)
    of_server = TLSServer(greet, context, on_new_session=fail_later if is_async else fail)
    ours, theirs = memory_stream_pair()
    nursery.start_soon(of_server.handle, theirs)
    async with await tls.wrap_client(ours, context=client(), host="localhost") as stream:
        assert await stream.receive_some() == b""
    (error,) = (await anext(of_server.client_errors())).exceptions
    assert isinstance(error, CallbackError)
    assert (error.callback, error.phase) == ("on_new_session", "handshake")
    assert isinstance(error.__cause__, LookupError)


# A server's veto


@pytest.mark.feature("B17")
@in_both_versions
@by_both_names
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_a_server_may_veto_a_resumption(
    version: str, secure_options: int, is_async: bool, nursery: trio.Nursery
) -> None:
    answers, asked = iter([True, False, True]), []

    def answer(choice: tls.Choice) -> bool:
        asked.append((choice.server_name, choice.hello.session_id))
        return next(answers)

    async def answer_later(choice: tls.Choice) -> bool:
        await trio.lowlevel.checkpoint()
        return answer(choice)

    of_client = client(**only(version))
    context = server(**only(version), secure_options=secure_options)
    of_server = TLSServer(greet, context, resume=answer_later if is_async else answer)
    session = (await visit(nursery, of_server, of_client)).sessions[-1]
    # Who has nothing to resume is not asked about.
    assert asked == []
    for reused in (True, False, True):
        visited = await visit(nursery, of_server, of_client, session=session)
        assert visited.info.session_reused == reused
    assert [name for name, _ in asked] == ["localhost"] * 3


@pytest.mark.feature("B17")
@in_both_versions
@by_both_names
async def test_a_connection_without_leave_to_resume_makes_no_session(
    version: str, secure_options: int, nursery: trio.Nursery
) -> None:
    told: list[bytes] = []
    allowed = True
    of_client = client(**only(version))
    of_server = TLSServer(
        greet,
        server(**only(version), secure_options=secure_options),
        resume=lambda choice: allowed,
        on_new_session=lambda identifier, session: told.append(session),
    )
    first = await visit(nursery, of_server, of_client)
    allowed = False
    told.clear()
    vetoed = await visit(nursery, of_server, of_client, session=first.sessions[-1])
    assert told == []
    allowed = True
    # In TLS 1.3, OpenSSL sends tickets all the same, which open nothing.
    assert bool(vetoed.sessions) == (version == "TLSv1.3")
    for session in vetoed.sessions:
        assert not (await visit(nursery, of_server, of_client, session=session)).info.session_reused


@pytest.mark.feature("B17")
async def test_a_veto_holds_where_tls_1_3_is_switched_off_by_an_option(nursery: trio.Nursery) -> None:
    # The client's hello is one of TLS 1.3, with a session of TLS 1.2.
    of_client, bits = client(), SSL_OP_NO_TLSv1_3 | SSL_OP_NO_TICKET
    of_server = TLSServer(greet, context := server(secure_options=bits))
    session = (await visit(nursery, of_server, of_client)).sessions[-1]
    assert (await visit(nursery, of_server, of_client, session=session)).info.session_reused
    vetoing = TLSServer(greet, context, resume=lambda choice: False)
    assert not (await visit(nursery, vetoing, of_client, session=session)).info.session_reused


def raising(choice: tls.Choice) -> NoReturn:
    raise LookupError("the list of sessions is away")


async def raising_later(choice: tls.Choice) -> NoReturn:
    await trio.lowlevel.checkpoint()
    raising(choice)


@pytest.mark.feature("B17")
@in_both_versions
@pytest.mark.parametrize(
    ("resume", "reason"),
    [
        (raising, "resume raised"),
        (raising_later, "resume raised"),
        (lambda choice: None, "resume returned None, which is no bool"),
    ],
    ids=["raises", "raises later", "no bool"],
)
async def test_a_veto_that_fails_refuses_the_client(
    version: str, resume: Any, reason: str, nursery: trio.Nursery
) -> None:
    of_client, context = client(**only(version)), server(**only(version))
    of_server = TLSServer(greet, context)
    session = (await visit(nursery, of_server, of_client)).sessions[-1]
    failing = TLSServer(greet, context, resume=resume)
    with pytest.raises(tls.PeerAlert) as caught:
        await visit(nursery, failing, of_client, session=session)
    assert caught.value.alert is tls.Alert.internal_error
    (error,) = (await anext(failing.client_errors())).exceptions
    assert isinstance(error, CallbackError)
    assert error.reason.startswith(reason)
    assert error.callback == "resume"


# The table of the documentation


async def observed(nursery: trio.Nursery, version: str, secure_options: int) -> dict[str, str]:
    """Return what stands in the table of the documentation, by row."""
    new: list[bytes] = []
    asked: list[tls.Choice] = []

    def ask(choice: tls.Choice) -> bool:
        asked.append(choice)
        return True

    of_client = client(**only(version))
    of_server = TLSServer(
        greet,
        server(**only(version), secure_options=secure_options),
        resume=ask,
        on_new_session=lambda identifier, session: new.append(session),
    )
    rows: dict[str, str] = {}
    session = None
    for kind in ("full", "resumed"):
        new.clear()
        asked.clear()
        visited = await visit(nursery, of_server, of_client, session=session)
        assert visited.info.session_reused == (kind == "resumed")
        rows |= {
            f"{kind}: `resume` is asked": "yes" if asked else "no",
            f"{kind}: `on_new_session` is told": "yes" if new else "no",
            f"{kind}: sessions by the end of the handshake": str(visited.told_early),
            f"{kind}: further ones with the server's first data": str(
                len(visited.sessions) - visited.told_early
            ),
            f"{kind}: `stream.session` before the server's first data": _what(visited.session[0], session),
            f"{kind}: `stream.session` after it": _what(visited.session[1], session),
        }
        session = visited.session[1]
    return rows


def _what(session: bytes | None, offered: bytes | None) -> str:
    if session is None:
        return "`None`"
    same = offered is not None and Session.parse(session).session_id == Session.parse(offered).session_id
    same = same and Session.parse(session).ticket == Session.parse(offered or b"").ticket
    return "the same" if same else "a new one"


@pytest.mark.feature("A18")
@pytest.mark.feature("B17")
@pytest.mark.parametrize(
    ("column", "version", "secure_options"),
    [
        (1, "TLSv1.2", 0),
        (2, "TLSv1.2", SSL_OP_NO_TICKET),
        (3, "TLSv1.3", 0),
        (3, "TLSv1.3", SSL_OP_NO_TICKET),
    ],
)
async def test_the_table_of_the_documentation_is_what_happens(
    column: int, version: str, secure_options: int, nursery: trio.Nursery
) -> None:
    table = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if re.match(r"\| (full|resumed): ", line)
    ]
    assert {row[0]: row[column] for row in table} == await observed(nursery, version, secure_options)


# Nothing is kept


@in_both_versions
async def test_streams_that_tell_of_sessions_go_without_the_garbage_collector(version: str) -> None:
    cache = tls.SessionCache()
    server_context = server(**only(version))
    of_client = client()
    gc.collect()
    gc.disable()
    before = len(callbacks.connections)
    try:
        for _ in range(2):
            sessions: list[bytes] = []
            ours, theirs = memory_stream_pair()
            async with trio.open_nursery() as nursery:
                of_server = TLSStream(theirs, server_context, server_side=True)
                nursery.start_soon(of_server.send_all, b"hello")
                of_client_stream = await tls.wrap_client(
                    ours,
                    context=of_client,
                    host="localhost",
                    session_cache=cache,
                    on_session=sessions.append,
                )
                iterator = of_client_stream.sessions()
                await of_client_stream.receive_some()
            kept = [weakref.ref(stream._engine) for stream in (of_server, of_client_stream)]
            # Not closed, and nobody holds on to them but for their sessions.
            del of_server, of_client_stream, nursery
            assert [engine() for engine in kept] == [None, None]
            if sessions:
                assert await anext(iterator) == sessions[0]
        assert len(callbacks.connections) == before
        assert len(cache) >= 1
    finally:
        gc.enable()
