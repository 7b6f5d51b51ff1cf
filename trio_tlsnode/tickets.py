"""TicketGenerations: whose keys open the session tickets of a server's clients.

The keys belong to OpenSSL's ``SSL_CTX``, so that another context has other keys.  Each ticket begins with
the name of its keys (RFC 5077, section 4), and a connection is made from the context that has them.  With the
keys of an earlier context go all its options, so that only one which has the same ones, certificates left
aside, is honoured.

Whoever learns such keys can read what was recorded of every connection up to TLS 1.2 whose ticket they open.
So they can be renewed, and are gone when nobody needs them any more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from .client_hello import ClientHello
from .context import SecureContext
from .errors import ConfigurationError, ConfigurationTypeError, FeatureUnavailable
from .sessions import KEY_NAME_SIZE

if TYPE_CHECKING:
    from ._openssl.ssl_ctx import SSLContext

_TICKET_KEYS_SIZE: Final = 48
# Of those that were replaced within the lifetime of their tickets; each costs a lookup in every handshake.
_MOST_EARLIER: Final = 8


class Generation(NamedTuple):
    """A context whose tickets are honoured.

    Attributes:
        context: The context.
        until: The end of that, in seconds; infinite if it was replaced since somebody looked at the clock.
    """

    context: SecureContext
    until: float


class TicketGenerations:
    """The contexts whose tickets are honoured in place of one context.

    It does not keep the context itself, whose keys go when nobody else has it.

    Args:
        context: The context.
        rotation: After how many seconds its ticket keys are replaced; the old ones are honoured for as long
            again.  None keeps them, and so does a context without tickets.
    """

    __slots__ = ("_earlier", "_renewal", "_renewed", "_rotation")

    def __init__(self, context: SecureContext, *, rotation: float | None) -> None:
        self._rotation = rotation if context.issues_tickets else None
        # What new tickets get their keys from, if not from the context itself.
        self._renewed: SecureContext | None = None
        self._renewal = -math.inf
        self._earlier: list[Generation] = []

    def honoured(self, context: SecureContext) -> list[Generation]:
        """Return the contexts whose tickets are honoured, the newest last.

        Args:
            context: The context that this is for.
        """
        return [*self._earlier, Generation(self._renewed or context, math.inf)]

    def succeed(self, context: SecureContext, honoured: Iterable[Generation]) -> None:
        """Honour the tickets of contexts that are replaced, as long as they can be valid.

        Args:
            context: The context that this is for, and that replaces them.
            honoured: What was honoured in its place.
        """
        self._earlier = [
            generation
            for generation in (*self._earlier, *honoured)
            if generation.context is not context and context.differs_in_credentials_alone(generation.context)
        ][-_MOST_EARLIER:]

    def advance(self, context: SecureContext, now: float) -> SecureContext:
        """Return the context that new tickets get their keys from.

        The keys are replaced if it is time, and those that are out of date are forgotten.

        Args:
            context: The context that this is for.
            now: The time, in seconds.
        """
        if self._rotation is not None and now >= self._renewal:
            if self._renewed is not None:
                # Who has slept for longer than a period has no keys left that are young enough.
                self._earlier.append(Generation(self._renewed, self._renewal + self._rotation))
            self._renewed = context.renewed()
            self._renewal = now + self._rotation
        if self._earlier:
            dated = [
                Generation(earlier, now + earlier.session_timeout if until == math.inf else until)
                for earlier, until in self._earlier
            ]
            self._earlier = [generation for generation in dated if now < generation.until]
        return self._renewed or context

    def opener(
        self, hello: ClientHello, ssl_ctx: Callable[[SecureContext], SSLContext]
    ) -> SecureContext | None:
        """Return the earlier context that can open a ticket in a ClientHello, or None.

        Args:
            hello: What the client sends.
            ssl_ctx: Returns what the connection would be made from with a context.
        """
        if not self._earlier:
            return None
        names = {ticket[:KEY_NAME_SIZE] for ticket in (hello.session_ticket or b"", *hello.psk_identities)}
        for generation in reversed(self._earlier):
            context = generation.context
            if context.ticket_key_name(ssl_ctx(context)) in names:
                return context
        return None


def refuse_ticket_keys(keys: object) -> NoReturn:
    """Refuse to use keys for session tickets.

    Args:
        keys: The keys.

    Raises:
        ConfigurationTypeError: they are not bytes.
        ConfigurationError: they are not 48 bytes.
        FeatureUnavailable: they could be used, by another build.
    """
    option = "ticket_keys"
    if not isinstance(keys, (bytes, bytearray, memoryview)):
        # What was given instead may be as secret.
        raise ConfigurationTypeError(
            f"{option} must be bytes. Received an instance of {type(keys).__name__}", option=option
        )
    size = memoryview(keys).nbytes
    if size != _TICKET_KEYS_SIZE:
        raise ConfigurationError(
            f"{option} must be exactly {_TICKET_KEYS_SIZE} bytes. Received {size}", option=option
        )
    raise no_ticket_keys()


def no_ticket_keys() -> FeatureUnavailable:
    """Return why the keys of session tickets can be neither set nor read."""
    return FeatureUnavailable(
        "the keys of session tickets stay within OpenSSL: cryptography's bindings have no "
        "SSL_CTX_set_tlsext_ticket_keys. Workers that are forked after the server is made share its keys, "
        "and ticket_rotation= renews them in one process; several machines do full handshakes",
        feature="ticket_keys",
    )
