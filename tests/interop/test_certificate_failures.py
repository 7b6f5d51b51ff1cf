"""Certificate failures: each bad certificate, presented by others to us and by us to others.

The peers are Node.js and the openssl command.  One table says what is found wrong with each certificate; all
who verify it are held to that table.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import re
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from faults import AUTHORITY, FAULTS, PRESENTERS, Fault, issued_for
from peers import (
    ForeignProcess,
    OurServer,
    echo,
    in_both_versions,
    only,
    our_client,
    our_context,
    running,
    serving,
)
from test_openssl import s_client, s_server

import trio_tlsnode as tls
from trio_tlsnode._openssl.verification import name_of
from trio_tlsnode.testing import Authority, IssuedCertificate

pytestmark = [pytest.mark.interop, pytest.mark.feature("D3"), pytest.mark.feature("D4")]


# The certificates, and what is wrong with them


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A bad certificate, and what is to be learnt of it.

    Attributes:
        what: What is wrong with it.
        issue: Returns the certificate; the same one each time.
        found: The codes of all that is wrong, in the order in which OpenSSL finds it.
        alert: What the presenter is told.
        presenters: Who can present it.
        presentable: Whether we can load it, and so present it ourselves.
        judging: Returns the options of who judges it, which have the same names here and in Node.
    """

    what: str
    issue: Callable[[], IssuedCertificate]
    found: tuple[str, ...]
    alert: tls.Alert
    presenters: tuple[str, ...] = PRESENTERS
    presentable: bool = True
    judging: Callable[[], dict[str, Any]] = dict

    @property
    def code(self) -> str:
        """The code of our error: that of the last problem, as in Node."""
        return self.found[-1]

    @property
    def nodes_code(self) -> str:
        """Node's code for the same verdict."""
        return "UNSPECIFIED" if self.code in NAMELESS_IN_NODE else self.code

    @property
    def nodes_servers_code(self) -> str:
        """The code of the error by which Node's server tells that it has refused the certificate."""
        return "ERR_SSL_EVP_LIB" if self.code in LEAVE_AN_ERROR else "ECONNRESET"

    @property
    def openssls_names(self) -> list[str]:
        """OpenSSL's names for all that is wrong, where it is left to check the name."""
        return ["HOSTNAME_MISMATCH" if code == IDENTITY else code for code in self.found]

    @property
    def openssls_alert(self) -> tls.Alert:
        """What the presenter is told by the openssl command, which gives up at the first problem."""
        return ALERTS_AT_ONCE.get(self.found[0], self.alert)


# Node checks the name itself, as we do.
IDENTITY = "ERR_TLS_CERT_ALTNAME_INVALID"

# Node has no names for these results of OpenSSL's verification; we call them what OpenSSL does.
NAMELESS_IN_NODE = {"EE_KEY_TOO_SMALL", "UNHANDLED_CRITICAL_EXTENSION", "PERMITTED_VIOLATION"}

# These leave an error in OpenSSL's queue, which Node's server takes for the reason of its own hanging up.
LEAVE_AN_ERROR = {"CERT_SIGNATURE_FAILURE", "CRL_SIGNATURE_FAILURE"}

# The alerts for a first problem, where those that follow have another.
ALERTS_AT_ONCE = {
    "INVALID_CA": tls.Alert.unknown_ca,
    "UNABLE_TO_GET_ISSUER_CERT_LOCALLY": tls.Alert.unknown_ca,
}


def case_of(fault: Fault) -> Case:
    return Case(
        what=str(fault),
        issue=lambda: fault.issued,
        found=(*fault.before, fault.code),
        alert=fault.alert,
        presenters=fault.presenters,
        judging=lambda: fault.judging,
    )


STRANGER = Authority()

CASES = [
    *map(case_of, FAULTS),
    Case(
        what="wrong_name",
        issue=lambda: issued_for("wrong_name"),
        found=(IDENTITY,),
        alert=tls.Alert.bad_certificate,
        presenters=("server",),
    ),
    Case(
        what="unreadable_date-not_before",
        issue=lambda: issued_for("unreadable_date", field="not_before"),
        found=("ERROR_IN_CERT_NOT_BEFORE_FIELD",),
        alert=tls.Alert.bad_certificate,
        presentable=False,
    ),
    Case(
        what="unreadable_date-not_after",
        issue=lambda: issued_for("unreadable_date", field="not_after"),
        found=("ERROR_IN_CERT_NOT_AFTER_FIELD",),
        alert=tls.Alert.bad_certificate,
        presentable=False,
    ),
    Case(
        what="crl-of-a-stranger",
        issue=lambda: issued_for("good"),
        found=("UNABLE_TO_GET_CRL",),
        alert=tls.Alert.unknown_ca,
        judging=lambda: {"crl": STRANGER.crl()},
    ),
    Case(
        what="intermediate-without-root",
        issue=lambda: issued_for("good", intermediates=1),
        found=("UNABLE_TO_GET_ISSUER_CERT",),
        alert=tls.Alert.unknown_ca,
        judging=lambda: {"ca": issued_for("good", intermediates=1).intermediates},
    ),
    Case(
        what="untrusted-and-expired",
        issue=functools.cache(lambda: STRANGER.expired("localhost")),
        found=(
            "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
            "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
            "CERT_HAS_EXPIRED",
        ),
        alert=tls.Alert.certificate_expired,
    ),
]


def each_case(presenter: str, *, ours: bool = False) -> pytest.MarkDecorator:
    """Return the mark for each case that a presenter can have: a client or a server, of others or ours."""
    cases = [case for case in CASES if presenter in case.presenters and (case.presentable or not ours)]
    return pytest.mark.parametrize("case", cases, ids=[case.what for case in cases])


# Those who present a weak key must be allowed to, and those who judge it must mind it.
LENIENT = "DEFAULT@SECLEVEL=0"
STRICT = "DEFAULT@SECLEVEL=2"


def judging(case: Case | None = None) -> dict[str, Any]:
    """Return the options of who judges a certificate, by default a good one, and presents a good one."""
    if case is None:
        given: dict[str, Any] = {"crl": AUTHORITY.crl()}
    else:
        case.issue()  # what is revoked must be issued before the lists are made
        given = case.judging()
    return {**issued_for("good").options, "ca": AUTHORITY.ca, "ciphers": STRICT, **given}


def presenting(case: Case) -> dict[str, Any]:
    """Return the options of who presents a certificate, and judges a good one."""
    return {**case.issue().options, "ca": AUTHORITY.ca, "ciphers": LENIENT}


# What both sides know afterwards


def assert_refused_by_us(error: tls.ConnectionFailed, case: Case) -> None:
    assert type(error) is (tls.IdentityError if case.code == IDENTITY else tls.CertificateError)
    assert error.code == case.code
    assert tuple(problem.code for problem in error.problems) == case.found
    assert error.phase == "handshake"


def assert_refused_by_openssl(error: tls.ConnectionFailed, heard: str, case: Case) -> None:
    assert isinstance(error, tls.PeerAlert)
    assert error.alert is case.openssls_alert
    assert problems_in(heard) == case.openssls_names[:1]


def problems_in(heard: str) -> list[str]:
    """Return the names of the problems of which the openssl command has told."""
    return [name_of(int(number)) for number in re.findall(r"^verify error:num=(\d+):", heard, re.MULTILINE)]


async def failure_of_our_client(port: int, context: tls.SecureContext) -> tls.ConnectionFailed:
    """Connect, and wait: in TLS 1.3 a client is done before the server has judged its certificate."""
    with pytest.raises(tls.ConnectionFailed) as raised:
        async with await our_client(port, context) as stream:
            await stream.receive_some()
    return raised.value


# Node.js


class OrderedNode:
    """Node.js with one client or server after the other, as they are ordered."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    async def connect(self, port: int, options: dict[str, Any]) -> dict[str, Any]:
        """Have a client connect to "localhost"; return what becomes of it."""
        outcome: dict[str, Any] = await self._answer(
            "connect", {"port": port, "servername": "localhost", **options}
        )
        return outcome

    async def listen(self, options: dict[str, Any]) -> int:
        """Have a server listen for one client; return its port."""
        port: int = await self._answer("listen", options)
        return port

    async def outcome(self) -> dict[str, Any]:
        """Return what became of the client of the last server."""
        outcome: dict[str, Any] = await self._answer("outcome", {})
        return outcome

    async def _answer(self, order: str, options: dict[str, Any]) -> Any:
        line = json.dumps({"order": order, "options": options}, default=bytes.decode)
        return json.loads(await trio.to_thread.run_sync(self._reply, line.encode() + b"\n"))

    def _reply(self, line: bytes) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()
        return self._process.stdout.readline()


@pytest.fixture(scope="module")
def ordered(node: str) -> Iterator[OrderedNode]:
    """One process for all tests."""
    script = Path(__file__).parent / "node" / "orders.js"
    with subprocess.Popen([node, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield OrderedNode(process)
        process.kill()


def heard_by_node(outcome: dict[str, Any]) -> str:
    """Return the name of the alert that Node tells of; its spelling depends on its OpenSSL."""
    code: str = outcome["code"]
    assert code.startswith("ERR_SSL_")
    return code.rpartition("_ALERT_")[2].lower()


@pytest.mark.feature("A6")
@each_case("server")
@in_both_versions
async def test_a_node_server_hears_why_our_client_refuses_it(
    ordered: OrderedNode, case: Case, version: str
) -> None:
    port = await ordered.listen(presenting(case))
    with pytest.raises(tls.CertificateError) as refused:
        await our_client(port, our_context(**judging(case), **only(version)))
    assert_refused_by_us(refused.value, case)
    outcome = await ordered.outcome()
    assert heard_by_node(outcome) == case.alert.name
    assert not outcome["secure"]


@pytest.mark.feature("B6")
@pytest.mark.feature("B8")
@each_case("client")
@in_both_versions
async def test_a_node_client_hears_why_our_server_refuses_it(
    ordered: OrderedNode, case: Case, version: str
) -> None:
    context = our_context(**judging(case), **only(version))
    async with serving(tls.TLSServer(echo, context, request_cert=True)) as ours:
        outcome = await ordered.connect(ours.port, presenting(case))
        assert_refused_by_us(await ours.failure(), case)
    assert heard_by_node(outcome) == case.alert.name
    # In TLS 1.3, a client is done before the server has judged its certificate.
    assert outcome["secure"] is (version == "TLSv1.3")


@each_case("server", ours=True)
@in_both_versions
async def test_a_node_client_refuses_our_server_with_the_same_code(
    ordered: OrderedNode, case: Case, version: str
) -> None:
    async with serving(tls.TLSServer(echo, our_context(**presenting(case), **only(version)))) as ours:
        outcome = await ordered.connect(ours.port, judging(case))
        error = await ours.failure()
    assert outcome["code"] == outcome["authorizationError"] == case.nodes_code
    # Node judges after its handshake, and hangs up without a word.  Before TLS 1.3, ours is done by then too.
    assert_hung_up(error, "secure" if version == "TLSv1.2" else "handshake")


@each_case("client", ours=True)
@in_both_versions
async def test_a_node_server_refuses_our_client_with_the_same_code(
    ordered: OrderedNode, case: Case, version: str
) -> None:
    port = await ordered.listen({**judging(case), "requestCert": True})
    error = await failure_of_our_client(port, our_context(**presenting(case), **only(version)))
    outcome = await ordered.outcome()
    assert outcome["authorizationError"] == case.nodes_code
    assert outcome["code"] == case.nodes_servers_code
    assert not outcome["secure"]
    assert_hung_up(error, "handshake" if version == "TLSv1.2" else "secure")


def assert_hung_up(error: tls.ConnectionFailed, phase: str) -> None:
    assert type(error) is (tls.TruncationError if phase == "secure" else tls.ConnectionLost)
    assert error.phase == phase


# The openssl command


def files_of(options: dict[str, Any], folder: Path) -> tuple[Path, list[str | Path]]:
    """Write what is needed to judge a certificate; return the file of what is trusted, and other switches."""
    trusted = folder / "ca.pem"
    trusted.write_bytes(options["ca"])
    switches: list[str | Path] = ["-cipher", STRICT]
    if "crl" in options:
        crl = folder / "crl.pem"
        crl.write_bytes(options["crl"])
        switches += ["-CRL", crl, "-crl_check_all"]
    return trusted, switches


@contextlib.asynccontextmanager
async def judging_s_server(
    openssl: str, folder: Path, options: dict[str, Any]
) -> AsyncIterator[tuple[ForeignProcess, int]]:
    """Run s_server for one client, whose certificate it judges."""
    trusted, switches = files_of(options, folder)
    # It has a limit of its own to how deep a chain may be.
    verify = ("-CAfile", trusted, "-Verify", "1000", "-verify_return_error")
    async with s_server(openssl, folder, *verify, *switches, presented=issued_for("good")) as (server, port):
        yield server, port


@pytest.mark.feature("A6")
@each_case("server")
@in_both_versions
async def test_s_server_hears_why_our_client_refuses_it(
    openssl: str, tmp_path: Path, case: Case, version: str
) -> None:
    context = our_context(**judging(case), **only(version))
    async with s_server(openssl, tmp_path, "-cipher", LENIENT, presented=case.issue()) as (server, port):
        with pytest.raises(tls.CertificateError) as refused:
            await our_client(port, context)
        heard = await server.everything()
    assert_refused_by_us(refused.value, case)
    assert f"SSL alert number {case.alert}" in heard


@pytest.mark.feature("B6")
@pytest.mark.feature("B8")
@each_case("client")
@in_both_versions
async def test_s_client_hears_why_our_server_refuses_it(
    openssl: str, tmp_path: Path, case: Case, version: str
) -> None:
    key, cert = case.issue().write_to(tmp_path)
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(AUTHORITY.ca)
    presented = ("-key", key, "-cert", cert, "-cert_chain", cert, "-cipher", LENIENT)
    context = our_context(**judging(case), **only(version))
    async with (
        serving(tls.TLSServer(echo, context, request_cert=True)) as ours,
        s_client(openssl, ours.port, trusted, *presented) as client,
    ):
        assert_refused_by_us(await ours.failure(), case)
        assert f"SSL alert number {case.alert}" in await client.everything()


@each_case("server", ours=True)
@in_both_versions
async def test_our_server_hears_why_s_client_refuses_it(
    openssl: str, tmp_path: Path, case: Case, version: str
) -> None:
    trusted, switches = files_of(judging(case), tmp_path)
    async with (
        serving(tls.TLSServer(echo, our_context(**presenting(case), **only(version)))) as ours,
        s_client(openssl, ours.port, trusted, "-verify_hostname", "localhost", *switches) as client,
    ):
        error = await ours.failure()
        assert_refused_by_openssl(error, await client.everything(), case)
    assert error.phase == "handshake"


@each_case("client", ours=True)
@in_both_versions
async def test_our_client_hears_why_s_server_refuses_it(
    openssl: str, tmp_path: Path, case: Case, version: str
) -> None:
    async with judging_s_server(openssl, tmp_path, judging(case)) as (server, port):
        error = await failure_of_our_client(port, our_context(**presenting(case), **only(version)))
        assert_refused_by_openssl(error, await server.everything(), case)
    assert error.phase == ("handshake" if version == "TLSv1.2" else "secure")


@pytest.mark.feature("G11")
@each_case("server", ours=True)
async def test_s_client_that_goes_on_finds_the_same_problems(
    openssl: str, tmp_path: Path, case: Case
) -> None:
    trusted, switches = files_of(judging(case), tmp_path)
    async with (
        serving(tls.TLSServer(echo, our_context(**presenting(case), **only("TLSv1.3")))) as ours,
        running(
            openssl,
            "s_client",
            *("-connect", f"127.0.0.1:{ours.port}"),
            *("-CAfile", trusted, "-verify_hostname", "localhost"),
            *switches,
        ) as client,
    ):
        await client.say_no_more()
        heard = await client.everything()
    # Older releases of OpenSSL judge a root by its lists, too, and so find twice what is wrong with them.
    assert list(dict.fromkeys(problems_in(heard))) == case.openssls_names
    (result,) = re.findall(r"^Verify return code: (\d+) ", heard, re.MULTILINE)
    assert name_of(int(result)) == case.openssls_names[-1]


# Without a certificate

REQUIRED = "ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE"
REQUIREMENTS = {"TLSv1.2": tls.Alert.handshake_failure, "TLSv1.3": tls.Alert.certificate_required}


def without_certificate(version: str) -> tls.SecureContext:
    return tls.SecureContext(ca=AUTHORITY.ca, **only(version))


def assert_required_of_us(error: tls.ConnectionFailed, version: str) -> None:
    assert isinstance(error, tls.PeerAlert)
    assert error.alert is REQUIREMENTS[version]
    assert error.phase == ("handshake" if version == "TLSv1.2" else "secure")


@pytest.mark.feature("B8")
@in_both_versions
async def test_a_node_client_hears_that_our_server_requires_a_certificate(
    ordered: OrderedNode, version: str
) -> None:
    context = our_context(**judging(), **only(version))
    async with serving(tls.TLSServer(echo, context, request_cert=True)) as ours:
        outcome = await ordered.connect(ours.port, {"ca": AUTHORITY.ca})
        error = await ours.failure()
    assert type(error) is tls.CertificateError
    assert error.code == REQUIRED
    assert heard_by_node(outcome) == REQUIREMENTS[version].name


@pytest.mark.feature("B8")
@in_both_versions
async def test_s_client_hears_that_our_server_requires_a_certificate(
    openssl: str, tmp_path: Path, version: str
) -> None:
    trusted, switches = files_of(judging(), tmp_path)
    context = our_context(**judging(), **only(version))
    async with (
        serving(tls.TLSServer(echo, context, request_cert=True)) as ours,
        s_client(openssl, ours.port, trusted, *switches) as client,
    ):
        error = await ours.failure()
        assert f"SSL alert number {REQUIREMENTS[version]}" in await client.everything()
    assert type(error) is tls.CertificateError
    assert error.code == REQUIRED


@in_both_versions
async def test_our_client_hears_that_a_node_server_requires_a_certificate(
    ordered: OrderedNode, version: str
) -> None:
    port = await ordered.listen({**judging(), "requestCert": True})
    assert_required_of_us(await failure_of_our_client(port, without_certificate(version)), version)
    assert (await ordered.outcome())["code"] == REQUIRED


@in_both_versions
async def test_our_client_hears_that_s_server_requires_a_certificate(
    openssl: str, tmp_path: Path, version: str
) -> None:
    async with judging_s_server(openssl, tmp_path, judging()) as (server, port):
        assert_required_of_us(await failure_of_our_client(port, without_certificate(version)), version)
        assert "peer did not return a certificate" in await server.everything()


# Without fault

ACCEPTED = {"secure": True, "code": None, "authorizationError": None}


@contextlib.asynccontextmanager
async def accepting(version: str) -> AsyncIterator[tuple[OurServer, list[bool]]]:
    """Serve, and hang up at once; note whether each client was authorized."""
    authorized = []

    async def note(stream: tls.TLSStream) -> None:
        authorized.append(stream.authorized)

    server = tls.TLSServer(note, our_context(**judging(), **only(version)), request_cert=True)
    async with serving(server) as ours:
        yield ours, authorized


@pytest.mark.feature("A1")
@in_both_versions
async def test_our_client_and_a_node_server_accept_good_certificates(
    ordered: OrderedNode, version: str
) -> None:
    port = await ordered.listen({**judging(), "requestCert": True})
    async with await our_client(port, our_context(**judging(), **only(version))) as stream:
        assert stream.authorized
    assert await ordered.outcome() == ACCEPTED


@pytest.mark.feature("B8")
@in_both_versions
async def test_our_server_and_a_node_client_accept_good_certificates(
    ordered: OrderedNode, version: str
) -> None:
    async with accepting(version) as (ours, authorized):
        assert await ordered.connect(ours.port, judging()) == ACCEPTED
    assert authorized == [True]


@pytest.mark.feature("A1")
@in_both_versions
async def test_our_client_and_s_server_accept_good_certificates(
    openssl: str, tmp_path: Path, version: str
) -> None:
    async with judging_s_server(openssl, tmp_path, judging()) as (server, port):
        async with await our_client(port, our_context(**judging(), **only(version))) as stream:
            assert stream.authorized
        heard = await server.everything()
    assert "CONNECTION CLOSED" in heard
    assert problems_in(heard) == []


@pytest.mark.feature("B8")
@in_both_versions
async def test_our_server_and_s_client_accept_good_certificates(
    openssl: str, tmp_path: Path, version: str
) -> None:
    trusted, switches = files_of(judging(), tmp_path)
    key, cert = issued_for("good").write_to(tmp_path)
    async with (
        accepting(version) as (ours, authorized),
        s_client(openssl, ours.port, trusted, "-key", key, "-cert", cert, "-brief", *switches) as client,
    ):
        await client.line_with("Verification: OK")
        await client.everything()
    assert authorized == [True]
