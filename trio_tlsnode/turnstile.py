"""Turnstile: a few expensive steps in each turn of the event loop.

A server's first step of a handshake takes about half a millisecond of arithmetic.  When the messages of some
hundred clients arrive together, Trio would run all these steps in one turn of its loop, while established
connections wait.  A few steps in each turn take as long altogether, and let everything else in between; only
one would take longer, as each turn has its own price.
"""

from __future__ import annotations

from typing import Final

import trio

STEPS_PER_TURN: Final = 4
"""How many tasks pass in one turn of the event loop."""


class Turnstile(trio.abc.Instrument):
    """Lets a few tasks pass in each turn of the event loop, first come, first served.

    It has to be an instrument of the event loop, to see its turns.
    """

    def __init__(self) -> None:
        # How many may still pass in this turn.
        self._left = STEPS_PER_TURN
        # Whether the next to pass are known already: they wait for the next turn of the loop.
        self._taken = False
        self._waiting = trio.lowlevel.ParkingLot()

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002 - as Trio has it
        """Take note that another turn begins."""
        self._left = STEPS_PER_TURN

    async def pass_through(self) -> None:
        """Wait for a turn of the event loop in which another one may pass; no checkpoint if that is now.

        What follows before the next checkpoint is in that turn.  Cancelling lets the others pass.
        """
        if self._taken:
            # Trio runs a task in the turn after the one in which it was woken.
            await self._waiting.park()
            if self._left == STEPS_PER_TURN:
                self._wake_next()
        elif self._left <= 0:
            self._taken = True
            try:
                await trio.lowlevel.checkpoint()
            finally:
                self._wake_next()
        self._left -= 1

    def _wake_next(self) -> None:
        self._taken = bool(self._waiting.unpark(count=STEPS_PER_TURN))


_of_this_run: trio.lowlevel.RunVar[Turnstile] = trio.lowlevel.RunVar("turnstile")


def turnstile() -> Turnstile:
    """Return the turnstile of this event loop, which all its servers share."""
    try:
        return _of_this_run.get()
    except LookupError:
        made = Turnstile()
        trio.lowlevel.add_instrument(made)
        _of_this_run.set(made)
        return made
