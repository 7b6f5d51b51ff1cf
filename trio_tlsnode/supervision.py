"""ClientErrors: what clients did wrong, for one supervising task, as exception groups.

The tasks of the connections never wait for the supervisor: what it does not fetch is kept up to a limit, and
counted beyond it.  Where nobody has ever asked, each failure is one line of the log, at a limited rate.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Final, Self

import trio

from .errors import CertificateError, ConnectionFailed, ConnectionLost, TLSError
from .html_table import html_table

logger = logging.getLogger("trio_tlsnode")

# So many lines in so many seconds: enough to see what happens, too few to fill a disk.
_LOG_BURST: Final = 20
_LOG_PERIOD: Final = 10.0
# For each of so many errors as are kept, on average, there may be so much of what peers choose the size of:
# hellos and certificates, in bytes.
_ROOM_FOR_EACH: Final = 8192
# So many of a group's errors a notebook shows.
_MOST_SHOWN: Final = 50


class TLSClientErrors(ExceptionGroup[TLSError]):
    """What has failed since the supervising task last looked, oldest first (Node's ``'tlsClientError'``).

    Attributes:
        dropped: How many more failed for which there was no room.
    """

    dropped: int = 0

    def derive(self, excs: Sequence[TLSError], /) -> TLSClientErrors:  # type: ignore[override]  # as narrow as the class
        """Return a group of other errors with the same `dropped`, as ``except*`` and ``split`` need it.

        Args:
            excs: The errors.
        """
        group = TLSClientErrors(self.message, excs)
        group.dropped = self.dropped
        return group

    def _repr_html_(self) -> str:
        rows: list[tuple[str, object]] = [
            (type(error).__name__, error) for error in self.exceptions[:_MOST_SHOWN]
        ]
        left_out = len(self.exceptions) - len(rows)
        rows += [("left out here", left_out or None), ("dropped", self.dropped or None)]
        return html_table(type(self).__name__, rows, badge=f"{len(self.exceptions)} failed", tone="bad")


class ClientErrors:
    """The failures that a server reports: an async iterator, for one task at a time.

    Nothing is lost when the supervising task is cancelled and another one takes its place.

    Args:
        limit: How many failures are kept until they are fetched, and 8 KiB for each of what their clients
            have sent: hellos and certificates.

    Attributes:
        dropped: For how many there was no room so far.
    """

    def __init__(self, limit: int) -> None:
        self._errors: deque[ConnectionFailed] = deque()
        self._limit = limit
        self._room = limit * _ROOM_FOR_EACH
        self._dropped = 0
        self.dropped = 0
        self._failed: Counter[str] = Counter()
        self._supervised = False
        self._closed = False
        self._arrival = trio.lowlevel.ParkingLot()
        self._log_period_ends = 0.0
        self._log_lines = 0

    @property
    def failed(self) -> Mapping[str, int]:
        """How often each code was reported so far."""
        return dict(self._failed)

    def report(self, error: ConnectionFailed) -> None:
        """Take the failure of one connection, without its traceback."""
        error.__traceback__ = None
        error.__context__ = None
        if isinstance(error, ConnectionLost) and error.__cause__ is not None:
            # That the network broke was noticed in this package, and nowhere else.
            error.__cause__.__traceback__ = None
        self._failed[error.code] += 1
        if not self._supervised:
            self._log(error)
        size = _size(error)
        if len(self._errors) >= self._limit or (self._errors and size > self._room):
            self._dropped += 1
            self.dropped += 1
            return
        self._room -= size
        self._errors.append(error)
        self._arrival.unpark()

    def supervise(self) -> Self:
        """Note that somebody looks after the failures, so that they need not be logged."""
        self._supervised = True
        return self

    def close(self) -> None:
        """End the iteration, once everything was fetched."""
        self._closed = True
        self._arrival.unpark_all()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TLSClientErrors:
        await trio.lowlevel.checkpoint_if_cancelled()
        waited = False
        while not self._errors:
            if self._closed:
                if not waited:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                raise StopAsyncIteration
            await self._arrival.park()
            waited = True
        if not waited:
            await trio.lowlevel.cancel_shielded_checkpoint()
        group = TLSClientErrors("clients failed", tuple(self._errors))
        group.dropped = self._dropped
        self._errors.clear()
        self._room = self._limit * _ROOM_FOR_EACH
        self._dropped = 0
        return group

    def _log(self, error: ConnectionFailed) -> None:
        now = trio.current_time()
        if now >= self._log_period_ends:
            skipped = self._log_lines - _LOG_BURST
            if skipped > 0:
                logger.info("%d more connections failed that were not logged", skipped)
            self._log_period_ends = now + _LOG_PERIOD
            self._log_lines = 0
        self._log_lines += 1
        if self._log_lines <= _LOG_BURST:
            logger.info("TLS connection failed: %s", error)
        elif self._log_lines == _LOG_BURST + 1:
            logger.info(
                "more connections fail; for %.0f seconds they are counted (TLSServer.statistics), not logged",
                self._log_period_ends - now,
            )


def _size(error: ConnectionFailed) -> int:
    """Return how much an error keeps of what its peer has sent, in bytes."""
    certificates = []
    if isinstance(error, CertificateError):
        certificates += [problem.certificate for problem in error.problems]
    if error.stream is not None and error.phase in ("secure", "closing"):
        certificates += error.stream.info.peer_certificate_chain
    hello = 0 if error.client_hello is None else error.client_hello.size
    return hello + sum(len(certificate.raw) for certificate in certificates if certificate is not None)
