"""inspect: what is found out about servers of several kinds, and what is found wrong with them."""

from __future__ import annotations

import datetime as dt
import errno
import functools
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
from json_shapes import INSPECTION, shape
from trio.testing import MockClock, memory_stream_pair

import trio_tlsnode as tls
from trio_tlsnode.testing import Authority, IssuedCertificate, MemoryListener

pytestmark = pytest.mark.feature("G5")

AUTHORITY = Authority()
GOOD_CIPHERS = "TLS_AES_128_GCM_SHA256:ECDHE+AESGCM"
# More than enough for those that have to wait for something that does not come.
OLD: dict[str, Any] = {"min_version": "TLSv1", "max_version": "TLSv1.1", "ciphers": "DEFAULT@SECLEVEL=0"}


@functools.cache
def rsa() -> IssuedCertificate:
    return AUTHORITY.good("localhost", key_type="RSA")


async def ignore(stream: tls.TLSStream) -> None:
    async for _ in stream:
        pass


async def inspected(
    issued: IssuedCertificate | None = None,
    *,
    server_options: dict[str, Any] | None = None,
    host: str = "localhost",
    ca: Any = AUTHORITY.ca,
    ca_of_server: Any = None,
    client: dict[str, Any] | None = None,
    **options: Any,
) -> tls.Inspection:
    """Inspect a server in memory, whose context has these options."""
    listener = MemoryListener()
    context = tls.SecureContext(
        **(issued or AUTHORITY.good("localhost")).options,
        **{"ciphers": GOOD_CIPHERS, "ca": ca_of_server, **options},
    )
    server = tls.TLSServer(ignore, context, **(server_options or {}))
    server.client_errors()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve_listeners, [listener])
        found = await tls.inspect(host, dial=listener.connect, ca=ca, **(client or {}))
        await server.aclose(0)
    return found


async def inspected_plain(
    handler: Callable[[trio.abc.Stream], Awaitable[object]], **options: Any
) -> tls.Inspection:
    """Inspect something in memory that need not be TLS."""
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, handler, [listener]))
        found = await tls.inspect(dial=listener.connect, **options)
        nursery.cancel_scope.cancel()
    return found


def codes(inspection: tls.Inspection) -> dict[str, str]:
    return {finding.code: finding.severity for finding in inspection.findings}


def finding(inspection: tls.Inspection, code: str) -> tls.Finding:
    (found,) = (finding for finding in inspection.findings if finding.code == code)
    return found


# What a server is like


async def test_a_server_is_known_by_its_versions_suites_groups_protocols_and_sessions() -> None:
    found = await inspected(
        server_options={"alpn_protocols": ["http/1.1", "h2"]},
        ciphers="TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:ECDHE+AES128+AESGCM",
        groups="x25519:secp256r1:secp384r1",
    )
    assert found.authorized
    assert found.failure is None
    assert found.protocols == {
        "SSLv3": False, "TLSv1": False, "TLSv1.1": False, "TLSv1.2": True, "TLSv1.3": True,
    }  # fmt: skip
    assert found.cipher_suites == {
        "TLSv1.2": ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",),
        "TLSv1.3": ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"),
    }
    assert found.groups["TLSv1.3"] == ("x25519", "secp256r1", "secp384r1")
    assert found.groups["TLSv1.2"][0] == "x25519"
    assert found.dh_bits is None
    assert found.alpn_protocols == ("http/1.1", "h2")
    assert found.resumption == {"TLSv1.2": "ticket", "TLSv1.3": "ticket"}
    assert found.wants_client_certificate is False
    assert found.info is not None
    assert found.info.protocol == "TLSv1.3"
    assert (found.host, found.port, found.server_name, found.unfinished) == (
        "localhost",
        443,
        "localhost",
        (),
    )
    assert codes(found) == {"NO_POST_QUANTUM_GROUP": "advice"}


async def test_a_server_over_tcp_is_known_with_its_address() -> None:
    server = tls.TLSServer(ignore, tls.SecureContext(**AUTHORITY.good("localhost").options))
    server.client_errors()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(server.serve, 0, "127.0.0.1"))
        (address,) = server.addresses
        found = await tls.inspect("localhost", address.port, ca=AUTHORITY.ca)
        await server.aclose(0)
    assert (found.authorized, found.address) == (True, address)
    assert codes(found) == {"CBC": "advice"}


async def test_all_of_it_is_json_with_keys_that_stay() -> None:
    found = await inspected(server_options={"alpn_protocols": ["h2"]}, groups="x25519")
    facts = found.to_dict() | {"address": tls.Address("::1", 443, "IPv6")._asdict()}
    assert json.loads(json.dumps(facts)) == facts
    assert shape(facts) == INSPECTION
    assert dt.datetime.fromisoformat(facts["inspected_at"]).tzinfo is not None


async def test_sessions_that_the_server_keeps_are_told_from_tickets() -> None:
    found = await inspected(secure_options=tls.options.SSL_OP_NO_TICKET)
    assert found.resumption["TLSv1.2"] == "identifier"


async def test_sessions_that_are_not_resumed_are_advised_against() -> None:
    found = await inspected(server_options={"resume": lambda choice: False})
    assert {*found.resumption.values()} <= {"refused", "none"}
    assert codes(found)["NO_RESUMPTION"] == "advice"


async def test_progress_is_told_step_by_step() -> None:
    told: list[tls.InspectionProgress] = []
    await inspected(client={"on_progress": told.append})
    assert [step.done for step in told] == [0] * 9 + list(range(1, 10))
    assert {step.total for step in told} == {9}
    assert {step.step for step in told if step.finished} == {
        *("handshake", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3", "ALPN"),
        *("resumption in TLSv1.2", "resumption in TLSv1.3"),
    }


async def test_there_are_never_more_connections_than_allowed() -> None:
    listener = MemoryListener()
    context = tls.SecureContext(**AUTHORITY.good("localhost").options)
    most = 0

    def count(address: tls.Address | None) -> None:
        nonlocal most
        most = max(most, server.statistics().open)

    server = tls.TLSServer(ignore, context, on_connection=count)
    server.client_errors()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve_listeners, [listener])
        await tls.inspect(dial=listener.connect, ca=AUTHORITY.ca, max_connections=1)
        await server.aclose(0)
    # One of a question, one of the handshake, and those that the server has not yet seen end.
    assert most <= 4


@pytest.mark.parametrize(("repr_has", "options"), [("authorized", {}), ("not authorized", {"ca": []})])
async def test_a_notebook_shows_it_as_a_table(repr_has: str, options: dict[str, Any]) -> None:
    html = (await inspected(**options))._repr_html_()
    assert f">{repr_has}<" in html
    assert "Inspection of localhost:443" in html


# A certificate that is not to be trusted


@pytest.mark.parametrize(
    ("issue", "code"),
    [
        (Authority.expired, "CERT_HAS_EXPIRED"),
        (Authority.wrong_name, "ERR_TLS_CERT_ALTNAME_INVALID"),
        (Authority.self_signed, "DEPTH_ZERO_SELF_SIGNED_CERT"),
        (Authority.missing_intermediate, "UNABLE_TO_VERIFY_LEAF_SIGNATURE"),
        (Authority.untrusted_root, "SELF_SIGNED_CERT_IN_CHAIN"),
    ],
)
async def test_a_certificate_is_refused_and_all_else_is_still_known(
    issue: Callable[..., IssuedCertificate], code: str
) -> None:
    found = await inspected(issue(AUTHORITY, "localhost"))
    assert isinstance(found.failure, tls.CertificateError)
    assert (found.authorized, found.failure.code) == (False, code)
    assert found.info is not None
    assert found.protocols["TLSv1.3"]
    wrong = [finding for finding in found.findings if finding.severity == "error"]
    assert [finding.code for finding in wrong] == [code]
    assert wrong[0].cause
    assert wrong[0].remedy


async def test_each_problem_of_a_certificate_is_a_finding_of_its_own() -> None:
    found = await inspected(AUTHORITY.expired("example.org"), ca=[])
    wrong = {finding.code: finding.remedy for finding in found.findings if finding.severity == "error"}
    assert wrong.keys() == {
        "CERT_HAS_EXPIRED", "ERR_TLS_CERT_ALTNAME_INVALID", "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
    }  # fmt: skip
    assert "DNS:localhost" in wrong["ERR_TLS_CERT_ALTNAME_INVALID"]
    assert "expired on" in wrong["CERT_HAS_EXPIRED"]
    assert "expired on" not in wrong["UNABLE_TO_VERIFY_LEAF_SIGNATURE"]


async def test_a_certificate_that_is_due_is_a_warning() -> None:
    now = dt.datetime.now(dt.UTC)
    # "Expired a day ago" of somebody who lives three days later.
    later = Authority(now=now + dt.timedelta(days=3))
    found = await inspected(later.expired("localhost"), ca=later.ca)
    assert found.authorized
    soon = finding(found, "CERTIFICATE_EXPIRES_SOON")
    assert (soon.severity, soon.summary) == ("warning", "the certificate expires in 1 day")


async def test_a_chain_with_more_than_is_needed_is_advised_against() -> None:
    issued = AUTHORITY.good("localhost", intermediates=1)
    longer = IssuedCertificate(issued.key, issued.cert + AUTHORITY.ca + Authority().ca)
    assert codes(await inspected(longer)).keys() >= {"CHAIN_HAS_ROOT", "CHAIN_HAS_OTHERS"}


async def test_a_chain_out_of_order_is_advised_against() -> None:
    issued = AUTHORITY.good("localhost", intermediates=2)
    end = b"-----END CERTIFICATE-----\n"
    leaf, first, second, _ = issued.cert.split(end)
    shuffled = IssuedCertificate(issued.key, end.join((leaf, second, first, b"")))
    assert codes(await inspected(shuffled)) == {"CHAIN_OUT_OF_ORDER": "advice"}


# OCSP


async def test_a_stapled_response_that_says_revoked_is_a_failure() -> None:
    issued = AUTHORITY.good("localhost")
    response = AUTHORITY.ocsp_response(issued, status="revoked")
    found = await inspected(issued, server_options={"ocsp_callback": lambda *_: response})
    assert found.failure is not None
    assert found.failure.code == "CERT_REVOKED"
    assert codes(found)["CERT_REVOKED"] == "error"


async def test_a_certificate_that_must_be_stapled_and_is_not_is_a_failure() -> None:
    found = await inspected(AUTHORITY.must_staple("localhost"))
    assert codes(found)["OCSP_NO_RESPONSE"] == "error"
    assert not found.authorized


async def test_a_good_response_is_no_finding() -> None:
    issued = AUTHORITY.must_staple("localhost")
    response = AUTHORITY.ocsp_response(issued)
    found = await inspected(issued, server_options={"ocsp_callback": lambda *_: response})
    assert found.authorized
    assert "error" not in codes(found).values()


# Weaknesses


async def test_old_versions_alone_are_no_connection_for_ordinary_clients() -> None:
    found = await inspected(**OLD)
    assert isinstance(found.failure, tls.PeerAlert)
    assert found.info is not None
    assert found.info.protocol == "TLSv1.1"
    assert found.protocols["TLSv1"] is found.protocols["TLSv1.1"] is True
    assert found.protocols["TLSv1.2"] is False
    refused = finding(found, found.failure.code)
    assert refused.cause == "It wants TLS 1.2 or newer, and the server has TLS 1.0, TLS 1.1."
    assert codes(found)["OLD_PROTOCOL"] == "warning"


@pytest.mark.parametrize(
    ("options", "code", "severity"),
    [
        ({"max_version": "TLSv1.2"}, "NO_TLS13", "advice"),
        ({"min_version": "TLSv1.1", "ciphers": "DEFAULT@SECLEVEL=0"}, "OLD_PROTOCOL", "warning"),
        ({"ciphers": "ECDHE+AESGCM:aNULL@SECLEVEL=0"}, "NO_AUTHENTICATION", "error"),
        ({"ciphers": "ECDHE+AESGCM:eNULL@SECLEVEL=0"}, "NO_ENCRYPTION", "error"),
        ({"ciphers": "ECDHE+AESGCM:kRSA+AESGCM"}, "NO_FORWARD_SECRECY", "warning"),
        ({"ciphers": "ECDHE+AES128"}, "CBC", "advice"),
        ({"groups": "x25519"}, "NO_POST_QUANTUM_GROUP", "advice"),
    ],
)
async def test_each_weakness_is_a_finding(options: dict[str, Any], code: str, severity: str) -> None:
    found = await inspected(rsa(), **options)
    assert found.authorized
    assert codes(found)[code] == severity
    assert finding(found, code).remedy


@pytest.mark.filterwarnings("ignore:DH parameter is less than 2048 bits")
async def test_a_diffie_hellman_group_that_is_too_small_is_a_finding() -> None:
    from test_hello_probe import OAKLEY_2

    from trio_tlsnode.dh import DHGroup

    found = await inspected(
        rsa(),
        ciphers="DHE+AESGCM@SECLEVEL=0",
        dhparam=DHGroup(OAKLEY_2, 2).pem(),
    )
    assert found.dh_bits == 1024
    assert codes(found)["SMALL_DH_GROUP"] == "error"


async def test_a_server_with_nothing_to_complain_of_has_no_finding() -> None:
    assert (await inspected()).findings == ()


# Client certificates


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
async def test_a_server_that_wants_a_client_certificate_says_so(
    version: str, autojump_clock: MockClock
) -> None:
    found = await inspected(server_options={"request_cert": True}, min_version=version, max_version=version)
    assert isinstance(found.failure, tls.PeerAlert)
    assert found.wants_client_certificate
    assert finding(found, found.failure.code).remedy == (
        "Give a certificate by cert= and key= that the server trusts."
    )
    assert "NO_RESUMPTION" not in codes(found)
    assert trio.current_time() == 0


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
async def test_a_server_that_gets_a_client_certificate_is_authorized(
    version: str, autojump_clock: MockClock
) -> None:
    found = await inspected(
        ca_of_server=AUTHORITY.ca,
        client=dict(AUTHORITY.client("alice").options),
        server_options={"request_cert": True},
        min_version=version,
        max_version=version,
    )
    assert found.authorized
    assert found.wants_client_certificate
    assert found.resumption == {version: "ticket"}
    assert trio.current_time() == 0


# Servers that are none


async def test_a_server_that_speaks_http_is_told_so() -> None:
    async def speak_http(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    found = await inspected_plain(speak_http)
    assert isinstance(found.failure, tls.NotTLS)
    assert (found.info, any(found.protocols.values())) == (None, False)
    assert "starttls=" in found.findings[0].remedy
    assert [finding.severity for finding in found.findings] == ["error"]


async def test_a_server_that_says_nothing_costs_the_time_and_no_more(autojump_clock: MockClock) -> None:
    async def say_nothing(stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    found = await inspected_plain(say_nothing, timeout=7)
    assert trio.current_time() == 7
    assert isinstance(found.failure, tls.HandshakeTimeout)
    # Each question waits for five seconds.
    assert {*found.unfinished} == {"handshake", "ALPN", "resumption in TLSv1.2", "resumption in TLSv1.3"}
    assert {*found.protocols.values()} == {None}


async def test_a_server_that_swallows_one_version_is_known_by_the_others(autojump_clock: MockClock) -> None:
    listener = MemoryListener()
    server = tls.TLSServer(ignore, tls.SecureContext(**AUTHORITY.good("localhost").options))
    server.client_errors()

    async def swallow_old_versions(stream: trio.abc.Stream) -> None:
        hello = await stream.receive_some()
        if hello[9:11] == b"\x03\x02":
            await trio.sleep_forever()
        await server.handle(stream, initial=hello)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, swallow_old_versions, [listener]))
        found = await tls.inspect(dial=listener.connect, ca=AUTHORITY.ca)
        nursery.cancel_scope.cancel()
    assert found.authorized
    assert (found.protocols["TLSv1.1"], found.protocols["TLSv1"]) == (None, False)
    assert found.unfinished == ()


async def test_a_server_that_is_gone_after_the_first_connection_is_known_by_that() -> None:
    listener = MemoryListener()
    server = tls.TLSServer(ignore, tls.SecureContext(**AUTHORITY.good("localhost").options))
    connections = 0

    async def dial_once() -> trio.abc.Stream:
        nonlocal connections
        connections += 1
        if connections > 1:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        return await listener.connect()

    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve_listeners, [listener])
        found = await tls.inspect(dial=dial_once, ca=AUTHORITY.ca)
        await server.aclose(0)
    assert found.authorized
    assert {*found.protocols.values()} == {None}


async def test_no_connection_at_all_is_an_error() -> None:
    async def refuse() -> trio.abc.Stream:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    with pytest.raises(tls.ConnectError) as caught:
        await tls.inspect("example.org", 8443, dial=refuse)
    assert (caught.value.code, caught.value.host, caught.value.port) == ("ECONNREFUSED", "example.org", 8443)


async def test_no_connection_in_time_is_an_error(autojump_clock: MockClock) -> None:
    with pytest.raises(tls.ConnectError) as caught:
        await tls.inspect(dial=trio.sleep_forever, timeout=3)
    assert caught.value.code == "ETIMEDOUT"


# StartTLS


async def test_each_connection_begins_in_plaintext_where_that_is_so() -> None:
    server = tls.TLSServer(ignore, tls.SecureContext(**AUTHORITY.good("localhost").options))
    server.client_errors()
    asked = 0

    async def speak_pop3(stream: trio.abc.Stream) -> None:
        nonlocal asked
        await stream.send_all(b"+OK hello\r\n")
        if await stream.receive_some() == b"STLS\r\n":
            asked += 1
            await stream.send_all(b"+OK go ahead\r\n")
            await server.handle(stream)

    found = await inspected_plain(speak_pop3, starttls="pop3", ca=AUTHORITY.ca)
    assert found.authorized
    assert found.starttls == "pop3"
    assert found.resumption == {"TLSv1.2": "ticket", "TLSv1.3": "ticket"}
    assert asked > 20


async def test_a_server_that_goes_away_meanwhile_is_not_taken_for_one_that_has_nothing() -> None:
    server = tls.TLSServer(ignore, tls.SecureContext(**AUTHORITY.good("localhost").options))
    server.client_errors()
    connections = 0

    async def serve_twice(stream: trio.abc.Stream) -> None:
        nonlocal connections
        connections += 1
        await server.handle(stream)

    async with trio.open_nursery() as nursery:

        async def dial() -> trio.abc.Stream:
            if connections >= 8:
                raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
            client, transport = memory_stream_pair()
            nursery.start_soon(serve_twice, transport)
            return client

        found = await tls.inspect("localhost", dial=dial, ca=AUTHORITY.ca, max_connections=1)
        nursery.cancel_scope.cancel()
    having = {version for version, there in found.protocols.items() if there}
    assert having
    assert having <= {*found.unfinished}


async def test_a_server_without_starttls_is_a_failure() -> None:
    async def refuse(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"+OK hello\r\n")
        await stream.receive_some()
        await stream.send_all(b"-ERR no\r\n")

    found = await inspected_plain(refuse, starttls="pop3")
    assert found.failure is not None
    assert found.failure.code == "ERR_TLS_STARTTLS_REFUSED"


# Options


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"starttls": "ftp"}, "starttls"),
        ({"timeout": -1}, "timeout"),
        ({"max_connections": 0}, "max_connections"),
        ({"port": -1}, "port"),
        ({"ca": b"nonsense"}, "ca"),
        ({"alpn_protocols": [""]}, "alpn_protocols[0]"),
        ({"server_name": "127.0.0.1"}, "server_name"),
    ],
)
async def test_what_cannot_be_used_is_refused_before_anything_is_sent(options: Any, option: str) -> None:
    with pytest.raises(tls.ConfigurationError) as caught:
        await tls.inspect(dial=trio.sleep_forever, **options)
    assert caught.value.option == option
