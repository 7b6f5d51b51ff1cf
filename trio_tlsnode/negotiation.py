"""ServerPolicy: what a server answers to a ClientHello, decided before OpenSSL has seen it.

The context is looked for in this order:

1. `sni_callback`, called only if the client sent a name; a context that it returns is taken;
2. the contexts added by `add_context`: of those whose pattern matches the name, the one added last;
3. the default context.

Names are compared without regard to case and to a dot at their end.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Awaitable, Callable
from typing import NoReturn

import trio

from .alerts import Alert
from .alpn import ALPNProtocols, no_application_protocol, parse_alpn_protocols, select_alpn_protocol
from .context import SecureContext, check_flag
from .engine import Engine
from .errors import CallbackError, ConfigurationError, ConfigurationTypeError

SNICallback = Callable[[str], "SecureContext | Awaitable[SecureContext | None] | None"]
"""``sni_callback``: given the name that the client sent; returns a context, or None for the table's."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Pattern:
    """A name with wildcards, each of which matches within one label."""

    order: int
    labels: tuple[str, ...]
    context: SecureContext

    def matches(self, labels: tuple[str, ...]) -> bool:
        return len(labels) == len(self.labels) and all(map(_label_matches, self.labels, labels))


def _label_matches(pattern: str, label: str) -> bool:
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == label
    *middle, last = rest
    if len(label) < len(first) + len(last) or not label.startswith(first) or not label.endswith(last):
        return False
    position, end = len(first), len(label) - len(last)
    for piece in middle:
        position = label.find(piece, position, end)
        if position < 0:
            return False
        position += len(piece)
    return True


class ContextTable:
    """Contexts by the names that they are for; the time of a look-up does not grow with their number."""

    def __init__(self) -> None:
        self._added = 0
        self._exact: dict[str, tuple[int, SecureContext]] = {}
        # Keyed by the labels behind the last one with a wildcard, so that a name has few keys to look under.
        self._patterns: dict[tuple[str, ...], list[_Pattern]] = {}

    def add(self, pattern: str, context: SecureContext) -> None:
        """Add a context for a name; ``*`` matches within one label.

        Raises:
            ConfigurationError: the pattern is empty, or `context` is no SecureContext.
        """
        if not isinstance(pattern, str) or not isinstance(context, SecureContext):
            raise ConfigurationTypeError(
                f"add_context takes a name and a SecureContext. Received {pattern!r} and {context!r}",
                option="add_context",
            )
        if not pattern:
            raise ConfigurationError(
                "a context needs the name that it is for",
                code="ERR_TLS_REQUIRED_SERVER_NAME",
                option="add_context",
            )
        self._added += 1
        labels = _labels(pattern)
        if "*" not in pattern:
            self._exact[".".join(labels)] = (self._added, context)
            return
        last = max(index for index, label in enumerate(labels) if "*" in label)
        self._patterns.setdefault(labels[last + 1 :], []).append(_Pattern(self._added, labels, context))

    def find(self, server_name: str) -> SecureContext | None:
        """Return the context that was added last of those whose pattern matches, or None."""
        labels = _labels(server_name)
        order, found = self._exact.get(".".join(labels), (0, None))
        if self._patterns:
            for start in range(1, len(labels) + 1):
                for pattern in reversed(self._patterns.get(labels[start:], ())):
                    if pattern.order < order:
                        break
                    if pattern.matches(labels):
                        order, found = pattern.order, pattern.context
                        break
        return found


def _labels(name: str) -> tuple[str, ...]:
    return tuple(name.lower().removesuffix(".").split("."))


class ServerPolicy:
    """What a server answers to a ClientHello; one for all its connections.

    Attributes:
        context: The default context.
        contexts: The contexts for other names.
        alpn_protocols: The server's application protocols, most preferred first.
        request_cert: Whether clients are asked for a certificate.
        reject_unauthorized: Whether a client that is not verified is refused.
    """

    def __init__(
        self,
        context: SecureContext,
        *,
        sni_callback: SNICallback | None = None,
        alpn_protocols: ALPNProtocols | None = None,
        request_cert: bool = False,
        reject_unauthorized: bool = True,
    ) -> None:
        if not isinstance(context, SecureContext):
            raise ConfigurationTypeError(
                f"context must be a SecureContext. Received {context!r}", option="context"
            )
        if sni_callback is not None and not callable(sni_callback):
            raise ConfigurationTypeError(
                f'The "options.sni_callback" property must be of type function. Received {sni_callback!r}',
                option="sni_callback",
            )
        self.context = context
        self.contexts = ContextTable()
        self.alpn_protocols = parse_alpn_protocols(alpn_protocols)
        self.request_cert = check_flag("request_cert", request_cert)
        self.reject_unauthorized = check_flag("reject_unauthorized", reject_unauthorized)
        self._sni_callback = sni_callback

    def require_certificate(self) -> None:
        """Raise `ConfigurationError` if the default context has nothing to present."""
        if not self.context.has_identity:
            raise ConfigurationError(
                "a server's context needs a certificate and its key: SecureContext(key=..., cert=...)",
                option="context",
            )

    def new_engine(self, *, https_compatible: bool) -> Engine:
        """Return the engine of a new connection."""
        return Engine(self.context, server_side=True, https_compatible=https_compatible)

    async def decide(self, engine: Engine) -> None:
        """Choose for a connection whose ClientHello has been read.  Waits only for a callback that does.

        Raises:
            CallbackError: a callback raised, or returned what it may not; the alert is pending.
            ProtocolError: no application protocol in common; the alert is pending.
        """
        hello = engine.client_hello
        assert hello is not None
        context = self.context
        if hello.server_name is not None:
            context = await self._context_for(hello.server_name, engine)
        protocol = select_alpn_protocol(self.alpn_protocols, hello.alpn_protocols)
        if protocol is None and self.alpn_protocols and hello.alpn_protocols:
            engine.refuse(no_application_protocol(), Alert.no_application_protocol)
        engine.choose(
            context,
            alpn_protocol=protocol,
            request_cert=self.request_cert,
            reject_unauthorized=self.reject_unauthorized,
        )

    async def _context_for(self, server_name: str, engine: Engine) -> SecureContext:
        if self._sni_callback is not None:
            try:
                found = self._sni_callback(server_name)
                if inspect.isawaitable(found):
                    found = await found
            except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - this connection's alone
                # A nursery of the callback's may raise both its being cancelled and what failed over that.
                raised = error if isinstance(error, Exception) else error.split(trio.Cancelled)[1]
                try:
                    if not isinstance(raised, Exception):
                        raise
                    _refuse_callback(engine, "raised", raised)
                finally:
                    # Kept, it would be a cycle: its traceback holds this frame.
                    del raised
            if isinstance(found, SecureContext):
                return found
            if found is not None:
                _refuse_callback(engine, f"returned {found!r}, which is no SecureContext", None)
        return self.contexts.find(server_name) or self.context


def _refuse_callback(engine: Engine, what: str, cause: Exception | None) -> NoReturn:
    error = CallbackError(f"sni_callback {what}", callback="sni_callback")
    error.__cause__ = cause
    engine.refuse(error, Alert.internal_error)
