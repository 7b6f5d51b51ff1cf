"""OCSPStapler: what is stapled and what is not, when responders are asked, and what becomes of failures.

Trio's mock clock tells the time of day too; responders are callables, or httpx over memory.
"""

from __future__ import annotations

import datetime as dt
import logging
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Literal

import httpx
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

import trio_tlsnode as tls
from trio_tlsnode.ocsp_stapler import Fetch, OCSPStapler
from trio_tlsnode.testing import Authority, IssuedCertificate

pytestmark = pytest.mark.feature("B18")

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
URL = "http://ocsp.example/"

AUTHORITY = Authority(now=START)
ISSUED = AUTHORITY.good("localhost", ocsp_url=URL)
ISSUER = tls.Certificate.from_x509(x509.load_pem_x509_certificate(AUTHORITY.ca))


def certificate(issued: IssuedCertificate) -> tls.Certificate:
    return tls.Certificate.from_x509(issued.certificate)


CERTIFICATE = certificate(ISSUED)


def naming(*urls: str) -> IssuedCertificate:
    """Return a certificate that names these responders."""
    root = AUTHORITY.ca_with_key()
    key = load_pem_private_key(root.key, password=None)
    leaf = AUTHORITY.good("localhost").certificate
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    places = [
        x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(url))
        for url in urls
    ]
    named = (
        x509.CertificateBuilder()
        .subject_name(leaf.subject)
        .issuer_name(leaf.issuer)
        .public_key(leaf.public_key())
        .serial_number(leaf.serial_number)
        .not_valid_before(leaf.not_valid_before_utc)
        .not_valid_after(leaf.not_valid_after_utc)
        .add_extension(x509.AuthorityInformationAccess(places), critical=False)
        .sign(key, SHA256())
    )
    return IssuedCertificate(b"", named.public_bytes(Encoding.PEM))


def now() -> dt.datetime:
    return START + dt.timedelta(seconds=trio.current_time())


def response(
    issued: IssuedCertificate = ISSUED,
    status: Literal["good", "revoked", "unknown"] = "good",
    valid: dt.timedelta = HOUR,
) -> bytes:
    """Return a response that is valid from now on."""
    return AUTHORITY.ocsp_response(issued, status=status, this_update=now(), next_update=now() + valid)


class Responder:
    """What a stapler has for a client.

    Attributes:
        answer: Makes the answer, or raises.
        asked: When it was asked, in seconds.
    """

    def __init__(self, answer: Callable[[], bytes] = response) -> None:
        self.answer = answer
        self.asked: list[float] = []

    async def __call__(self, url: str, request: bytes) -> bytes:
        self.asked.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        return self.answer()


def away() -> bytes:
    raise ConnectionRefusedError("nobody there")


async def started(nursery: trio.Nursery, client: Fetch | httpx.AsyncClient, **options: Any) -> OCSPStapler:
    stapler = OCSPStapler(client=client, **{"clock": now, **options})
    await nursery.start(stapler.run)
    return stapler


def staple(stapler: OCSPStapler) -> bytes | None:
    return stapler(CERTIFICATE, ISSUER)


def error(stapler: OCSPStapler) -> str:
    (text,) = stapler.statistics().errors.values()
    return text


# What is stapled


async def test_the_first_handshake_gets_nothing_and_the_next_one_what_was_fetched_meanwhile(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    good = response()
    stapler = await started(nursery, Responder(lambda: good))
    assert staple(stapler) is None
    await wait_all_tasks_blocked()
    assert staple(stapler) == good


async def test_however_many_handshakes_ask_there_is_one_request(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    responder = Responder()
    stapler = await started(nursery, responder)
    for _ in range(5):
        # The server makes a new object for each handshake.
        assert stapler(tls.Certificate(CERTIFICATE.raw), tls.Certificate(ISSUER.raw)) is None
    await wait_all_tasks_blocked()
    assert responder.asked == [0]


async def test_the_request_names_the_certificate_and_goes_where_it_says(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    asked = []

    async def client(url: str, request: bytes) -> bytes:
        asked.append((url, ocsp.load_der_ocsp_request(request).serial_number))
        return response()

    stapler = await started(nursery, client)
    await stapler.fetch(CERTIFICATE, ISSUER)
    assert asked == [(URL, ISSUED.certificate.serial_number)]


async def test_fetch_waits_for_the_first_answer(nursery: trio.Nursery, mock_clock: MockClock) -> None:
    good = response()
    stapler = await started(nursery, Responder(lambda: good))
    assert await stapler.fetch(CERTIFICATE, ISSUER) == good


async def test_fetch_does_not_wait_while_a_responder_is_away(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    responder = Responder(away)
    stapler = await started(nursery, responder)
    for _ in range(3):
        assert await stapler.fetch(CERTIFICATE, ISSUER) is None
    assert responder.asked == [0]


async def test_what_is_asked_for_before_it_runs_is_fetched_then(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    good = response()
    stapler = OCSPStapler(client=Responder(lambda: good), clock=now)
    assert staple(stapler) is None
    nursery.start_soon(stapler.run)
    assert await stapler.fetch(CERTIFICATE, ISSUER) == good


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (lambda: response(status="revoked"), "CERT_REVOKED"),
        (lambda: response(status="unknown"), "OCSP_CERT_UNKNOWN"),
        (lambda: AUTHORITY.expired_ocsp_response(ISSUED), "OCSP_HAS_EXPIRED"),
        (lambda: AUTHORITY.not_yet_valid_ocsp_response(ISSUED), "OCSP_NOT_YET_VALID"),
        (lambda: AUTHORITY.wrong_ocsp_response(ISSUED), "OCSP_WRONG_CERTIFICATE"),
        (lambda: AUTHORITY.bad_signature_ocsp_response(ISSUED), "OCSP_SIGNATURE_FAILURE"),
        (lambda: AUTHORITY.unauthorized_ocsp_response(ISSUED), "OCSP_RESPONDER_UNAUTHORIZED"),
        (lambda: AUTHORITY.unsuccessful_ocsp_response(), "OCSP_RESP_INVALID"),
        (lambda: b"<html>", "OCSP_RESP_INVALID"),
        # The clocks of others may be behind, ours says that it is over.
        (lambda: response(valid=dt.timedelta(0)), "the next response was due at"),
        (lambda: bytes(16 * 1024 + 1), "an answer of more than 16384 bytes"),
        (lambda: None, "TypeError"),
        (away, "nobody there"),
    ],
)
async def test_what_is_no_good_and_fresh_response_is_not_stapled(
    bad: Callable[[], bytes], code: str, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    stapler = await started(nursery, Responder(bad))
    assert await stapler.fetch(CERTIFICATE, ISSUER) is None
    assert error(stapler).startswith(f"{URL}: ")
    assert code in error(stapler)


async def test_what_is_no_good_does_not_displace_what_is(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    responder = Responder()
    stapler = await started(nursery, responder)
    good = await stapler.fetch(CERTIFICATE, ISSUER)
    responder.answer = lambda: AUTHORITY.bad_signature_ocsp_response(ISSUED)
    await trio.sleep_until(HOUR.total_seconds() - 1)
    assert staple(stapler) == good is not None
    assert stapler.statistics().fresh == 1
    assert "OCSP_SIGNATURE_FAILURE" in error(stapler)


async def test_a_response_is_stapled_until_the_next_one_is_due(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    responder = Responder()
    stapler = await started(nursery, responder)
    await stapler.fetch(CERTIFICATE, ISSUER)
    responder.answer = away
    await trio.sleep_until(HOUR.total_seconds())
    assert staple(stapler) is None
    assert stapler.statistics().fresh == 0


async def test_a_response_that_does_not_say_when_the_next_is_due_is_stapled_for_an_hour(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    unlimited = AUTHORITY.ocsp_response(ISSUED, this_update=START, next_update=None)
    responder = Responder(lambda: unlimited)
    stapler = await started(nursery, responder)
    await stapler.fetch(CERTIFICATE, ISSUER)
    responder.answer = away
    await trio.sleep_until(3599)
    assert staple(stapler) == unlimited
    await trio.sleep_until(3600)
    assert staple(stapler) is None
    assert responder.asked[:2] == [0, 1800]


async def test_a_certificate_that_is_revoked_loses_its_good_response_at_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    responder = Responder()
    stapler = await started(nursery, responder)
    assert await stapler.fetch(CERTIFICATE, ISSUER) is not None
    responder.answer = lambda: response(status="revoked")
    await trio.sleep_until(1801)
    assert staple(stapler) is None


@pytest.mark.feature("A10")
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
async def test_a_server_staples_for_its_clients(
    version: str, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    async def handler(stream: tls.TLSStream) -> None:
        pass

    async def stapled(**asking: bool) -> bytes | None:
        client, transport = memory_stream_pair()
        nursery.start_soon(server.handle, transport)
        options: Any = {"ca": AUTHORITY.ca, "min_version": version, "max_version": version, **asking}
        async with await tls.wrap_client(client, host="localhost", **options) as stream:
            return stream.info.ocsp_response

    good = response()
    stapler = await started(nursery, Responder(lambda: good))
    context = tls.SecureContext(**ISSUED.options, ca=AUTHORITY.ca)
    server = tls.TLSServer(handler, context, ocsp_callback=stapler)
    assert await stapled() is None
    assert stapler.statistics().certificates == 0
    assert await stapled(request_ocsp=True) is None
    await wait_all_tasks_blocked()
    assert await stapled(request_ocsp=True) == good


# When responders are asked


async def test_a_response_is_renewed_when_half_of_its_time_is_over(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    responder = Responder()
    stapler = await started(nursery, responder)
    first = await stapler.fetch(CERTIFICATE, ISSUER)
    await trio.sleep_until(2 * 3600 + 1)
    assert responder.asked == [0, 1800, 3600, 5400, 7200]
    assert staple(stapler) not in (None, first)
    assert stapler.statistics().fetched == 5


async def test_a_response_that_is_soon_over_is_no_reason_to_ask_all_the_time(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    responder = Responder(lambda: response(valid=dt.timedelta(seconds=2)))
    stapler = await started(nursery, responder)
    staple(stapler)
    await trio.sleep_until(100)
    assert responder.asked == [0, 30, 60, 90]


async def test_the_time_of_day_may_be_set(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    ahead = dt.timedelta(0)
    responder = Responder(lambda: response(valid=dt.timedelta(days=10)))
    stapler = await started(nursery, responder, clock=lambda: now() + ahead)
    await stapler.fetch(CERTIFICATE, ISSUER)
    ahead = dt.timedelta(days=6)
    await trio.sleep_until(3601)
    assert responder.asked == [0, 3600]


async def test_a_responder_that_is_away_is_asked_less_and_less_often(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    responder = Responder(away)
    stapler = await started(nursery, responder)
    staple(stapler)
    await trio.sleep_until(2000)
    assert responder.asked == [0, 5, 15, 35, 75, 155, 315, 635, 1235, 1835]
    assert stapler.statistics().failed == len(responder.asked)


async def test_a_responder_that_is_back_is_trusted_as_before(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    responder = Responder(away)
    stapler = await started(nursery, responder)
    staple(stapler)
    await trio.sleep_until(20)
    responder.answer = response
    await trio.sleep_until(40)
    assert staple(stapler) is not None
    assert stapler.statistics().errors == {}
    responder.answer = away
    await trio.sleep_until(1850)
    assert responder.asked == [0, 5, 15, 35, 1835, 1840]


async def test_responders_are_asked_in_turn_until_one_answers(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    issued = naming(
        "http://silent.example", "ldap://x.example", "https://away.example", "http://good.example"
    )
    asked = []

    async def client(url: str, request: bytes) -> bytes:
        asked.append((trio.current_time(), url))
        if "silent" in url:
            await trio.sleep_forever()
        return away() if "away" in url else response(issued)

    stapler = await started(nursery, client)
    assert await stapler.fetch(certificate(issued), ISSUER) is not None
    assert asked == [
        (0, "http://silent.example"),
        (10, "https://away.example"),
        (10, "http://good.example"),
    ]


async def test_if_all_responders_fail_the_error_names_each(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def client(url: str, request: bytes) -> bytes:
        return away() if "away" in url else await trio.sleep_forever()

    stapler = await started(nursery, client)
    issued = naming("http://away.example", "http://silent.example")
    assert await stapler.fetch(certificate(issued), ISSUER) is None
    assert error(stapler) == (
        "http://away.example: ConnectionRefusedError('nobody there'); "
        "http://silent.example: TimeoutError('no answer within 10 seconds')"
    )


async def test_where_one_responder_says_revoked_no_other_is_asked(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    issued = naming("http://one.example", "http://other.example")
    responder = Responder(lambda: response(issued, status="revoked"))
    stapler = await started(nursery, responder)
    assert await stapler.fetch(certificate(issued), ISSUER) is None
    assert len(responder.asked) == 1


async def test_eight_requests_are_under_way_at_once(nursery: trio.Nursery, mock_clock: MockClock) -> None:
    asked = []
    go_on = trio.Event()

    async def client(url: str, request: bytes) -> bytes:
        asked.append(url)
        await go_on.wait()
        return away()

    stapler = await started(nursery, client)
    for number in range(10):
        stapler(certificate(naming(f"http://{number}.example")), ISSUER)
    await wait_all_tasks_blocked()
    assert len(asked) == 8
    go_on.set()
    await wait_all_tasks_blocked()
    assert len(asked) == 10


# Where nobody can be asked


@pytest.mark.parametrize(
    ("presented", "issuer", "why"),
    [
        (certificate(AUTHORITY.good("localhost")), ISSUER, "ValueError('it names no OCSP responder')"),
        (certificate(naming("ldap://x.example")), ISSUER, "ValueError('it names no OCSP responder')"),
        (CERTIFICATE, None, "ValueError('the certificate of its issuer is not known')"),
        (tls.Certificate(b"no certificate"), ISSUER, "[ERR_OSSL_ASN1_DECODE_ERROR]"),
        (CERTIFICATE, tls.Certificate(b"no certificate"), "[ERR_OSSL_ASN1_DECODE_ERROR]"),
    ],
)
async def test_where_nobody_can_be_asked_that_is_said_once(
    presented: tls.Certificate,
    issuer: tls.Certificate | None,
    why: str,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    responder = Responder()
    stapler = await started(nursery, responder)
    assert await stapler.fetch(presented, issuer) is None
    await trio.sleep(80_000)
    assert await stapler.fetch(presented, issuer) is None
    assert why in error(stapler)
    assert len(caplog.records) == 1
    assert responder.asked == []


async def test_an_issuer_that_is_known_later_is_asked(nursery: trio.Nursery, mock_clock: MockClock) -> None:
    stapler = await started(nursery, Responder())
    assert await stapler.fetch(CERTIFICATE, None) is None
    assert await stapler.fetch(CERTIFICATE, ISSUER) is not None


async def test_nobody_is_asked_about_a_certificate_that_has_expired(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    responder = Responder()
    end = CERTIFICATE.valid_to
    stapler = await started(nursery, responder, clock=lambda: end - HOUR + (now() - START))
    assert responder.asked == []
    responder.answer = lambda: AUTHORITY.ocsp_response(ISSUED, next_update=end)
    assert await stapler.fetch(CERTIFICATE, ISSUER) is not None
    await trio.sleep_until(10_000)
    asked = len(responder.asked)
    assert max(responder.asked) < 3600
    await trio.sleep_until(80_000)
    assert len(responder.asked) == asked
    assert error(stapler) == "the certificate has expired"


# What becomes of failures


@pytest.mark.parametrize(
    "failure", [ValueError("two\nlines\x1b[31m"), ExceptionGroup("several", [OSError("one"), OSError("two")])]
)
async def test_a_failure_is_one_line_of_the_log(
    failure: Exception,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> bytes:
        raise failure

    stapler = await started(nursery, Responder(fail))
    await stapler.fetch(CERTIFICATE, ISSUER)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("trio_tlsnode", logging.WARNING)
    assert record.getMessage() == f"fetching an OCSP response for {CERTIFICATE!r} failed: {URL}: {failure!r}"
    assert record.getMessage().isprintable()


async def test_statistics_tell_how_it_stands(nursery: trio.Nursery, mock_clock: MockClock) -> None:
    stapler = await started(nursery, Responder())
    other = certificate(AUTHORITY.good("localhost"))
    await stapler.fetch(CERTIFICATE, ISSUER)
    await stapler.fetch(other, ISSUER)
    statistics = stapler.statistics()
    assert (statistics.certificates, statistics.fresh, statistics.fetched, statistics.failed) == (2, 1, 1, 1)
    assert statistics.errors.keys() == {other}


# Its tasks


async def test_beyond_the_limit_the_certificate_that_was_asked_for_longest_ago_is_forgotten(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    asked = []

    async def client(url: str, request: bytes) -> bytes:
        asked.append(url)
        return away()

    stapler = await started(nursery, client, certificate_limit=2)
    one, two, three = [certificate(naming(f"http://{number}.example")) for number in (1, 2, 3)]
    for presented in (one, two, one, three):
        await stapler.fetch(presented, ISSUER)
    assert stapler.statistics().certificates == 2
    asked.clear()
    await trio.sleep(6)
    assert sorted(asked) == ["http://1.example", "http://3.example"]


async def test_who_waits_for_a_certificate_that_is_forgotten_gets_nothing(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    async def client(url: str, request: bytes) -> bytes:
        return await trio.sleep_forever()

    async def wait() -> None:
        assert await stapler.fetch(CERTIFICATE, ISSUER) is None
        returned.set()

    stapler = await started(nursery, client, certificate_limit=1)
    returned = trio.Event()
    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    stapler(CERTIFICATE, None)
    await returned.wait()


async def test_cancelling_it_ends_its_requests_and_releases_who_waits(mock_clock: MockClock) -> None:
    ended: list[str] = []

    async def client(url: str, request: bytes) -> bytes:
        try:
            return await trio.sleep_forever()
        finally:
            # A handshake that comes while it ends.
            assert stapler(certificate(naming(URL)), ISSUER) is None
            ended.append(url)

    async def wait() -> None:
        assert await stapler.fetch(CERTIFICATE, ISSUER) is None
        returned.set()

    returned = trio.Event()
    async with trio.open_nursery() as waiting:
        async with trio.open_nursery() as nursery:
            stapler = await started(nursery, client)
            waiting.start_soon(wait)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert ended == [URL]
        await returned.wait()


async def test_when_it_has_ended_what_is_fresh_is_stapled_and_nothing_is_waited_for(
    autojump_clock: MockClock,
) -> None:
    responder = Responder()
    async with trio.open_nursery() as nursery:
        stapler = await started(nursery, responder)
        good = await stapler.fetch(CERTIFICATE, ISSUER)
        nursery.cancel_scope.cancel()
    assert staple(stapler) == good is not None
    assert await stapler.fetch(certificate(naming(URL)), ISSUER) is None
    await trio.sleep(3600)
    assert staple(stapler) is None
    assert responder.asked == [0]


async def test_a_stapler_that_was_cancelled_before_it_began_holds_nobody_up(mock_clock: MockClock) -> None:
    stapler = OCSPStapler()
    with trio.CancelScope() as scope:
        scope.cancel()
        await stapler.run()
    assert await stapler.fetch(CERTIFICATE, ISSUER) is None


async def test_it_runs_once(nursery: trio.Nursery, mock_clock: MockClock) -> None:
    stapler = await started(nursery, Responder())
    with pytest.raises(RuntimeError, match="runs once"):
        await stapler.run()


# Options


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"client": "http://proxy.example"}, TypeError),
        ({"certificate_limit": True}, TypeError),
        ({"certificate_limit": 1.5}, TypeError),
        ({"certificate_limit": 0}, ValueError),
        ({"clock": START}, TypeError),
    ],
)
def test_an_option_that_cannot_be_used_is_refused(options: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(tls.ConfigurationError) as caught:
        OCSPStapler(**options)
    assert isinstance(caught.value, kind)
    assert [caught.value.option] == list(options)


def test_without_httpx_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(ImportError, match=r"pip install 'trio-tlsnode\[ocsp\]'"):
        OCSPStapler()
    OCSPStapler(client=Responder())


# httpx


Answer = Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]


def over_memory(answer: Answer) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


async def test_a_request_is_posted_as_rfc_6960_has_it(nursery: trio.Nursery, mock_clock: MockClock) -> None:
    requests = []

    async def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, content=response())

    stapler = await started(nursery, over_memory(answer))
    assert await stapler.fetch(CERTIFICATE, ISSUER) is not None
    (request,) = requests
    assert (request.method, str(request.url)) == ("POST", URL)
    assert request.headers["content-type"] == "application/ocsp-request"
    asked = ocsp.load_der_ocsp_request(await request.aread())
    assert asked.serial_number == ISSUED.certificate.serial_number


@pytest.mark.parametrize(
    ("status", "headers", "why"),
    [
        (503, {}, "HTTP status 503"),
        # It may hold a thousand times of what it weighs.
        (200, {"Content-Encoding": "gzip"}, "a compressed answer"),
    ],
)
async def test_an_http_response_that_is_not_plain_and_ok_is_a_failure(
    status: int, headers: dict[str, str], why: str, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, headers=headers, stream=httpx.ByteStream(response()))

    stapler = await started(nursery, over_memory(answer))
    assert await stapler.fetch(CERTIFICATE, ISSUER) is None
    assert error(stapler) == f"{URL}: ValueError('{why}')"


async def test_an_answer_is_read_up_to_its_limit(nursery: trio.Nursery, mock_clock: MockClock) -> None:
    pieces = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            await trio.lowlevel.checkpoint()
            pieces.append(bytes(10_000))
            yield pieces[-1]

    async def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=endless())

    stapler = await started(nursery, over_memory(answer))
    assert await stapler.fetch(CERTIFICATE, ISSUER) is None
    assert error(stapler) == f"{URL}: ValueError('an answer of more than 16384 bytes')"
    assert len(pieces) == 2


async def test_a_client_that_was_given_stays_open(mock_clock: MockClock) -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=response())

    client = over_memory(answer)
    async with trio.open_nursery() as nursery:
        stapler = await started(nursery, client)
        await stapler.fetch(CERTIFICATE, ISSUER)
        nursery.cancel_scope.cancel()
    assert not client.is_closed
