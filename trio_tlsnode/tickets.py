"""TicketGenerations: whose keys open the session tickets of a server's clients.

The keys belong to OpenSSL's ``SSL_CTX``, so that another context has other keys.  Each ticket begins with
the name of its keys (RFC 5077, section 4), and a connection is made from the context that has them.  With the
keys of an earlier context go all its options, so that only one which has the same ones, certificates left
aside, is honoured.
"""

from __future__ import annotations

from typing import NamedTuple

from .client_hello import ClientHello
from .context import SecureContext
from .psk import PSKRole
from .sessions import KEY_NAME_SIZE


class _Generation(NamedTuple):
    """A context whose tickets are honoured until a moment."""

    context: SecureContext
    until: float


class TicketGenerations:
    """The contexts whose tickets are honoured in place of one context.

    Args:
        context: The context.
        rotation: After how many seconds its ticket keys are replaced; the old ones are honoured for as long
            again.  None keeps them.
        now: The time, in seconds.

    Attributes:
        current: The context whose keys new tickets get.
    """

    __slots__ = ("_earlier", "_renewal", "_rotation", "current")

    def __init__(self, context: SecureContext, *, rotation: float | None, now: float) -> None:
        self.current = context
        self._rotation = rotation
        self._renewal = now + (rotation or 0.0)
        self._earlier: list[_Generation] = []

    def succeed(self, predecessor: TicketGenerations, now: float) -> None:
        """Honour the tickets of a context that this one replaces, as long as they can be valid.

        Args:
            predecessor: The generations of the context that was replaced.
            now: The time, in seconds.
        """
        replaced = _Generation(predecessor.current, now + predecessor.current.session_timeout)
        self._earlier = [
            generation
            for generation in (*predecessor._earlier, replaced)
            if self.current.differs_in_credentials_alone(generation.context)
        ]

    def advance(self, now: float) -> None:
        """Replace the keys if it is time, and forget those that are out of date.

        Args:
            now: The time, in seconds.
        """
        if self._rotation is not None and now >= self._renewal:
            # Who has slept for longer than a period has no keys left that are young enough.
            until = self._renewal + self._rotation
            self._earlier.append(_Generation(self.current, until))
            self.current = self.current.renewed()
            self._renewal = now + self._rotation
        if self._earlier:
            self._earlier = [generation for generation in self._earlier if now < generation.until]

    def opener(self, hello: ClientHello, *, verify_mode: int, psk: PSKRole | None) -> SecureContext | None:
        """Return the earlier context that can open a ticket in a ClientHello, or None.

        Args:
            hello: What the client sends.
            verify_mode: As for `SecureContext.ssl_ctx`.
            psk: As for `SecureContext.ssl_ctx`.
        """
        if not self._earlier:
            return None
        names = {ticket[:KEY_NAME_SIZE] for ticket in (hello.session_ticket or b"", *hello.psk_identities)}
        for generation in reversed(self._earlier):
            if generation.context.ticket_key_name(verify_mode=verify_mode, psk=psk) in names:
                return generation.context
        return None
