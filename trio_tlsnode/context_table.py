"""ContextTable: a server's contexts, by the names that they are for."""

from __future__ import annotations

import dataclasses

from .context import SecureContext
from .errors import ConfigurationError, ConfigurationTypeError


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
