"""OCSPStapler: keeps fresh OCSP responses for the certificates of a server, for it to staple.

No handshake waits for a responder: it gets what is there and fresh, and a task fetches the rest.  Each
certificate has a task of its own.  It asks again when half of the time is over for which its response is
good; where no responder gives one, it asks again less and less often.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import functools
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final

import trio

from .certificates import Certificate
from .errors import CertificateError, ConfigurationTypeError, TLSError
from .html_table import html_fields
from .ocsp import fresh_until, ocsp_problem, ocsp_request, responder_urls
from .option_values import check_callable, check_count

if TYPE_CHECKING:
    import httpx

Fetch = Callable[[str, bytes], Awaitable[bytes]]
"""How a responder is reached: given its URL and a request in DER; returns its answer."""

logger = logging.getLogger("trio_tlsnode")

# What one answer may take, in seconds and in bytes; most have less than a tenth of either.
_TIMEOUT: Final = 10.0
_LARGEST_RESPONSE: Final = 16 * 1024
# A server with many names is no burden for its responder.
_REQUESTS_AT_ONCE: Final = 8
_REDIRECTS: Final = 3
# After a failure, in seconds: twice as long after each further one, up to the limit.
_FIRST_RETRY: Final = 5.0
_LONGEST_RETRY: Final = 600.0
_SHORTEST_REST: Final = dt.timedelta(seconds=30)
# In seconds; the time of day may be set while Trio's clock goes on, so it is looked at in between.
_LONGEST_SLEEP: Final = 3600.0
# How long a response serves that does not say when the next is due: a newer one is there at any time.
_DEFAULT_VALIDITY: Final = dt.timedelta(hours=1)
_LONG_AGO: Final = dt.datetime.min.replace(tzinfo=dt.UTC)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StaplerStatistics:
    """How an `OCSPStapler` stands.

    Attributes:
        certificates: For how many certificates it looks after a response.
        fresh: How many of them have one that is stapled now.
        fetched: How many good responses it has fetched so far.
        failed: How often it could fetch none.
        errors: Why not, for the certificates whose last attempt failed.
    """

    certificates: int
    fresh: int
    fetched: int
    failed: int
    errors: Mapping[Certificate, str]

    def _repr_html_(self) -> str:
        return html_fields(self)


@dataclasses.dataclass(slots=True, eq=False)
class _Staple:
    """What there is to staple to one certificate.

    Attributes:
        tried: Set once the first attempt has ended, or there will be none.
    """

    certificate: Certificate
    issuer: Certificate | None
    response: bytes = b""
    fresh_until: dt.datetime = _LONG_AGO
    error: str | None = None
    tried: trio.Event = dataclasses.field(default_factory=trio.Event)
    scope: trio.CancelScope = dataclasses.field(default_factory=trio.CancelScope)


class _RevokedError(CertificateError):
    """The issuer has revoked the certificate."""


class OCSPStapler:
    """Fetches, keeps and renews OCSP responses for a server to staple: its ``ocsp_callback``.

    The responders are those that a certificate names, asked in turn.  A response is kept if it is valid for
    the certificate and says "good", and stapled until the next one is due; where it does not say when, for an
    hour.  A responder that is away is asked again, at most ten minutes later, and the response of before
    serves as long as it is fresh.  Where one says "revoked", that is over: then nothing is stapled.  Each
    failure is one warning on the logger ``trio_tlsnode``.

    One stapler serves any number of servers and certificates within one `trio.run`.

    Args:
        client: How responders are reached: an ``httpx.AsyncClient``, for example with a proxy, which is not
            closed here; or an async callable that is given a URL and a request in DER and returns the answer.
            By default it has a client of its own, from the extra ``trio-tlsnode[ocsp]``.
        certificate_limit: For how many certificates it keeps responses; beyond that it forgets the one that
            was asked for longest ago.
        clock: Returns the time of day, with a time zone.

    Raises:
        ConfigurationError: an option cannot be used.
        ImportError: httpx is needed, and not installed.
    """

    def __init__(
        self,
        *,
        client: httpx.AsyncClient | Fetch | None = None,
        certificate_limit: int = 1000,
        clock: Callable[[], dt.datetime] = _now,
    ) -> None:
        check_callable("clock", clock)
        self._own_client: httpx.AsyncClient | None = None
        if callable(client):
            self._fetch: Fetch = client
        else:
            http_client = _http_client(client)
            if client is None:
                self._own_client = http_client
            self._fetch = functools.partial(_post, http_client)
        self._limit = check_count("certificate_limit", certificate_limit)
        self._clock = clock
        self._requests = trio.Semaphore(_REQUESTS_AT_ONCE)
        # Those that were asked for longest ago come first.
        self._staples: OrderedDict[tuple[Certificate, Certificate | None], _Staple] = OrderedDict()
        self._nursery: trio.Nursery | None = None
        self._ended = False
        self._fetched = 0
        self._failed = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Fetch and renew responses until cancelled.  What is there then is stapled while it is fresh.

        Args:
            task_status: With ``nursery.start``, told at once.

        Raises:
            RuntimeError: it was run before.
        """
        if self._nursery is not None or self._ended:
            raise RuntimeError("an OCSPStapler runs once")
        try:
            async with self._own_client or contextlib.nullcontext(), trio.open_nursery() as nursery:
                self._nursery = nursery
                try:
                    for staple in self._staples.values():
                        nursery.start_soon(self._keep_fresh, staple)
                    task_status.started()
                    await trio.sleep_forever()
                finally:
                    # Before it closes: a handshake cannot start a task in a closed nursery.
                    self._nursery = None
        finally:
            self._ended = True
            for staple in self._staples.values():
                staple.tried.set()

    def __call__(self, certificate: Certificate, issuer: Certificate | None) -> bytes | None:
        """Return what can be stapled now, at once; have the rest fetched for the next handshakes.

        Args:
            certificate: The certificate that a server presents.
            issuer: The certificate of its issuer; without it, a responder cannot be asked.

        Returns:
            A response in DER, good and fresh, or None.
        """
        return self._fresh_response(self._staple(certificate, issuer))

    async def fetch(self, certificate: Certificate, issuer: Certificate | None) -> bytes | None:
        """Return what can be stapled, and wait for the first answer about a certificate.

        So a server has a response before it listens, or, with ``ocsp_callback=stapler.fetch``, for its first
        handshakes, which then wait.  A certificate is waited for once: later it is as if called directly.
        `run` must be running, or be about to.

        Args:
            certificate: The certificate that a server presents.
            issuer: The certificate of its issuer; without it, a responder cannot be asked.

        Returns:
            A response in DER, good and fresh, or None.
        """
        staple = self._staple(certificate, issuer)
        await staple.tried.wait()
        return self._fresh_response(staple)

    def statistics(self) -> StaplerStatistics:
        """Return how many responses there are, and what has failed."""
        staples = self._staples.values()
        return StaplerStatistics(
            certificates=len(staples),
            fresh=sum(self._fresh_response(staple) is not None for staple in staples),
            fetched=self._fetched,
            failed=self._failed,
            errors={staple.certificate: staple.error for staple in staples if staple.error is not None},
        )

    def _fresh_response(self, staple: _Staple) -> bytes | None:
        return staple.response if self._clock() < staple.fresh_until else None

    def _staple(self, certificate: Certificate, issuer: Certificate | None) -> _Staple:
        """Return the one for a certificate, looked after from now on."""
        key = certificate, issuer
        staple = self._staples.get(key)
        if staple is not None:
            self._staples.move_to_end(key)
            return staple
        staple = self._staples[key] = _Staple(certificate, issuer)
        if self._nursery is not None:
            self._nursery.start_soon(self._keep_fresh, staple)
        elif self._ended:
            staple.tried.set()
        if len(self._staples) > self._limit:
            _, forgotten = self._staples.popitem(last=False)
            forgotten.scope.cancel()
            forgotten.tried.set()
        return staple

    # The task of one certificate

    async def _keep_fresh(self, staple: _Staple) -> None:
        with staple.scope:
            try:
                urls, request = _question(staple.certificate, staple.issuer)
                expiry = staple.certificate.valid_to
            except Exception as error:  # noqa: BLE001 - one bad certificate must not end the others' tasks
                self._note_failure(staple, _text(error))
                return
            retry = _FIRST_RETRY
            while self._clock() < expiry:
                if await self._renew(staple, urls, request):
                    retry = _FIRST_RETRY
                    await self._rest(staple)
                else:
                    await trio.sleep(retry)
                    retry = min(2 * retry, _LONGEST_RETRY)
            self._note_failure(staple, "the certificate has expired")

    async def _renew(self, staple: _Staple, urls: tuple[str, ...], request: bytes) -> bool:
        """Ask the responders in turn; return whether one gave a response that can be stapled."""
        failures = []
        for url in urls:
            try:
                self._keep(staple, await self._ask(url, request))
            except Exception as error:  # noqa: BLE001 - whatever a client raises
                failures.append(f"{url}: {_text(error)}")
                if isinstance(error, _RevokedError):
                    # However good the response of before looks, or that of the next responder.
                    staple.fresh_until = _LONG_AGO
                    break
            else:
                self._fetched += 1
                staple.error = None
                staple.tried.set()
                return True
        self._note_failure(staple, "; ".join(failures))
        return False

    async def _ask(self, url: str, request: bytes) -> bytes:
        async with self._requests:
            with trio.move_on_after(_TIMEOUT):
                response = await self._fetch(url, request)
                if len(response) > _LARGEST_RESPONSE:
                    raise ValueError(f"an answer of more than {_LARGEST_RESPONSE} bytes")
                return response
        raise TimeoutError(f"no answer within {_TIMEOUT:g} seconds")

    def _keep(self, staple: _Staple, response: bytes) -> None:
        """Take a response for the one to staple, if it can be.

        Raises:
            CertificateError: it is not good.
            ValueError: it is not fresh.
        """
        now = self._clock()
        problem = ocsp_problem(response, certificate=staple.certificate, issuer=staple.issuer, at=now)
        if problem is not None:
            refusal = _RevokedError if problem.code == "CERT_REVOKED" else CertificateError
            raise refusal(problem.reason, code=problem.code, problems=(problem,))
        due = fresh_until(response, staple.certificate) or now + _DEFAULT_VALIDITY
        # Who judges one allows for clocks that differ.
        if due <= now:
            raise ValueError(f"the next response was due at {due}")
        staple.response, staple.fresh_until = response, due

    async def _rest(self, staple: _Staple) -> None:
        """Wait until half of the time is over for which a response is good."""
        now = self._clock()
        end = now + max((staple.fresh_until - now) / 2, _SHORTEST_REST)
        while (left := (end - self._clock()).total_seconds()) > 0:  # noqa: ASYNC110 - time is no event
            await trio.sleep(min(left, _LONGEST_SLEEP))

    def _note_failure(self, staple: _Staple, why: str) -> None:
        self._failed += 1
        staple.error = why
        staple.tried.set()
        logger.warning("fetching an OCSP response for %r failed: %s", staple.certificate, why)


def _question(certificate: Certificate, issuer: Certificate | None) -> tuple[tuple[str, ...], bytes]:
    """Return whom to ask about a certificate, and what.

    Raises:
        ValueError: nobody can be asked.
        CertificateError: a certificate cannot be read.
    """
    urls = responder_urls(certificate)
    if not urls:
        raise ValueError("it names no OCSP responder")
    if issuer is None:
        raise ValueError("the certificate of its issuer is not known")
    return urls, ocsp_request(certificate, issuer)


def _text(error: Exception) -> str:
    """Return the text of an error as one line."""
    return str(error) if isinstance(error, TLSError) else repr(error)


# HTTP


def _http_client(client: httpx.AsyncClient | None) -> httpx.AsyncClient:
    """Return a client that was given, or a new one."""
    try:
        import httpx
    except ImportError as missing:
        raise ImportError("OCSPStapler needs httpx: pip install 'trio-tlsnode[ocsp]'") from missing
    if client is None:
        # Days pass between two requests, so no connection is kept.
        limits = httpx.Limits(max_keepalive_connections=0)
        return httpx.AsyncClient(
            timeout=_TIMEOUT, follow_redirects=True, max_redirects=_REDIRECTS, limits=limits
        )
    if not isinstance(client, httpx.AsyncClient):
        raise ConfigurationTypeError(
            f"client must be an httpx.AsyncClient or an async callable. Received {client!r}", option="client"
        )
    return client


async def _post(client: httpx.AsyncClient, url: str, request: bytes) -> bytes:
    """Send a request (RFC 6960, appendix A.1); return the answer, or its beginning if it is too large."""
    headers = {
        "Content-Type": "application/ocsp-request",
        "Accept": "application/ocsp-response",
        "Accept-Encoding": "identity",
    }
    answer = b""
    # Cancelled, not left: httpx has nested generators that only end by themselves.
    with trio.CancelScope() as reading:
        async with client.stream("POST", url, content=request, headers=headers) as response:
            if response.status_code != 200:
                raise ValueError(f"HTTP status {response.status_code}")
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise ValueError("a compressed answer")
            async for piece in response.aiter_bytes():
                answer += piece
                if len(answer) > _LARGEST_RESPONSE:
                    reading.cancel()
    return answer
