"""Turnstile: one expensive step in each turn of the event loop.

A server's first step of a handshake takes about half a millisecond of arithmetic.  When the messages of some
hundred clients arrive together, Trio would run all these steps in one turn of its loop, while established
connections wait.  One step in each turn takes as long altogether, and lets everything else in between.
"""

from __future__ import annotations

import trio


class Turnstile:
    """Lets one task pass in each turn of the event loop, first come, first served."""

    __slots__ = ("_taken", "_waiting")

    def __init__(self) -> None:
        # Whether the next to pass is known already: it waits for the next turn of the loop.
        self._taken = False
        self._waiting = trio.lowlevel.ParkingLot()

    async def pass_through(self) -> None:
        """Wait for a turn of the event loop in which nobody else passes; a checkpoint.

        What follows before the next checkpoint is in that turn.  Cancelling lets the others pass.
        """
        if self._taken:
            # Trio runs a task in the turn after the one in which it was woken.
            await self._waiting.park()
            self._wake_next()
            return
        self._taken = True
        try:
            await trio.lowlevel.checkpoint()
        finally:
            self._wake_next()

    def _wake_next(self) -> None:
        self._taken = bool(self._waiting.unpark())


_of_this_run: trio.lowlevel.RunVar[Turnstile] = trio.lowlevel.RunVar("turnstile")


def turnstile() -> Turnstile:
    """Return the turnstile of this event loop, which all its servers share."""
    try:
        return _of_this_run.get()
    except LookupError:
        made = Turnstile()
        _of_this_run.set(made)
        return made
