"""Certificate failures: each bad certificate, presented by others to us and by us to others.

The peers are Node.js and the openssl command.  One table says what is found wrong with each certificate; all
who verify it are held to that table.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from faults import AUTHORITY, FAULTS, PRESENTERS, Fault, issued_for
from peers import (
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

pytestmark = pytest.mark.interop


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
    def openssls_alert(self) -> tls.Alert:
        """What the presenter is told by the openssl command, which gives up at the first problem."""
        return ALERTS_AT_ONCE.get(self.found[0], self.alert)


# Node has names for those verify results of OpenSSL alone that it knew when it began.
NAMELESS_IN_NODE = {"EE_KEY_TOO_SMALL", "UNHANDLED_CRITICAL_EXTENSION", "PERMITTED_VIOLATION"}

# After these, Node's server finds in OpenSSL's queue of errors what it then takes for the cause.
LEAVE_AN_ERROR = {"CERT_SIGNATURE_FAILURE", "CRL_SIGNATURE_FAILURE"}

# Of those after which more is found, with another alert.
ALERTS_AT_ONCE = {
    "INVALID_CA": tls.Alert.unknown_ca,
    "UNABLE_TO_GET_ISSUER_CERT_LOCALLY": tls.Alert.unknown_ca,
}

# What OpenSSL calls, where it checks the name itself, what Node has a code of its own for.
IN_OPENSSL = {"ERR_TLS_CERT_ALTNAME_INVALID": "HOSTNAME_MISMATCH"}


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
        found=("ERR_TLS_CERT_ALTNAME_INVALID",),
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


def judging(case: Case) -> dict[str, Any]:
    """Return the options of who judges a certificate, and presents a good one."""
    return {**issued_for("good").options, "ca": AUTHORITY.ca, "ciphers": STRICT, **case.judging()}


def presenting(case: Case) -> dict[str, Any]:
    """Return the options of who presents a certificate, and judges a good one."""
    return {**case.issue().options, "ca": AUTHORITY.ca, "ciphers": LENIENT}


# What both sides know afterwards


def assert_refused_by_us(error: tls.ConnectionFailed, case: Case) -> None:
    assert type(error) is (tls.IdentityError if case.what == "wrong_name" else tls.CertificateError)
    assert error.code == case.code
    assert tuple(problem.code for problem in error.problems) == case.found
    assert error.phase == "handshake"


def assert_refused_by_openssl(error: tls.ConnectionFailed, heard: str, case: Case) -> None:
    assert isinstance(error, tls.PeerAlert)
    assert error.alert is case.openssls_alert
    assert problems_in(heard) == [IN_OPENSSL.get(case.found[0], case.found[0])]


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
@pytest.mark.feature("D3")
@pytest.mark.feature("D4")
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
@pytest.mark.feature("D3")
@pytest.mark.feature("D4")
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


@pytest.mark.feature("D3")
@pytest.mark.feature("D4")
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


@pytest.mark.feature("D3")
@pytest.mark.feature("D4")
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


def judging_switches(case: Case, folder: Path) -> list[str | Path]:
    """Return the switches of who judges a certificate; files go into the folder."""
    options = judging(case)
    ca = folder / "ca.pem"
    ca.write_bytes(options["ca"])
    switches: list[str | Path] = ["-CAfile", ca, "-cipher", STRICT]
    if "crl" in options:
        crl = folder / "crl.pem"
        crl.write_bytes(options["crl"])
        switches += ["-CRL", crl, "-crl_check_all"]
    return switches


@pytest.mark.feature("A6")
@pytest.mark.feature("D3")
@pytest.mark.feature("D4")
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
@pytest.mark.feature("D3")
@pytest.mark.feature("D4")
@each_case("client")
@in_both_versions
async def test_s_client_hears_why_our_server_refuses_it(
    openssl: str, tmp_path: Path, case: Case, version: str
) -> None:
    ...
