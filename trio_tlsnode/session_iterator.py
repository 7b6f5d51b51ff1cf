"""SessionIterator: a client's sessions, one after the other, for the task that keeps them."""

from __future__ import annotations

from collections import deque
from typing import Final

import trio

# More than servers send at once; who does not fetch them keeps the newest.
_MOST_WAITING: Final = 16


class SessionIterator:
    """An async iterator over sessions; `TLSStream.sessions` makes it."""

    __slots__ = ("_closed", "_parked", "_waiting")

    def __init__(self, first: bytes | None) -> None:
        self._waiting: deque[bytes] = deque(() if first is None else (first,), maxlen=_MOST_WAITING)
        self._parked = trio.lowlevel.ParkingLot()
        self._closed = False

    def add(self, session: bytes) -> None:
        """Hand a session to the task that iterates.

        Args:
            session: The session.
        """
        self._waiting.append(session)
        self._parked.unpark_all()

    def close(self) -> None:
        """Let the iteration end, once what is there has been fetched."""
        self._closed = True
        self._parked.unpark_all()

    def __aiter__(self) -> SessionIterator:
        return self

    async def __anext__(self) -> bytes:
        """Return the next session; cancelling loses none."""
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            await self._parked.park()
        return self._waiting.popleft()
