"""Limit: at most so many at a time; the others wait, first come, first served."""

from __future__ import annotations

import trio

from .option_values import check_count


class Limit:
    """So many places, each of which is taken, and given back by whoever has it.

    Args:
        option: The option that the number comes from.
        most: How many places there are; None is as many as are asked for.

    Raises:
        ConfigurationTypeError: `most` is no int.
        ConfigurationError: it is less than 1.
    """

    __slots__ = ("_places",)

    def __init__(self, option: str, most: int | None) -> None:
        # Not a CapacityLimiter, whose places belong to tasks: the task that accepts takes one for another.
        self._places = None if most is None else trio.Semaphore(check_count(option, most))

    @property
    def waiting(self) -> int:
        """How many tasks wait for a place."""
        return 0 if self._places is None else self._places.statistics().tasks_waiting

    async def acquire(self) -> None:
        """Take a place, or wait for one.  A checkpoint only where there is a limit.

        Cancelling takes none.
        """
        if self._places is not None:
            await self._places.acquire()

    def release(self) -> None:
        """Give a place back."""
        if self._places is not None:
            self._places.release()

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_exc: object) -> None:
        self.release()
