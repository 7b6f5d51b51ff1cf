"""ContextTable: a server's contexts, by the names that they are for.

What a client sends is printable ASCII (RFC 6066, section 3): names in other letters as their A-labels, which
is how a pattern in other letters is read too.  Case, and a dot at the end, make no difference.  An IP
address, which no client should send, is a name like any other.
"""

from __future__ import annotations

import dataclasses

from .context import SecureContext
from .errors import ConfigurationError, ConfigurationTypeError
from .identity import to_ascii


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
    """Contexts by the names that they are for.

    The time of a look-up does not grow with the number of names, nor with that of patterns, unless they have
    the same labels behind their last wildcard.
    """

    def __init__(self) -> None:
        self._added = 0
        self._exact: dict[str, tuple[int, SecureContext]] = {}
        # Keyed by the labels behind the last one with a wildcard, so that a name has few keys to look under;
        # then by all labels, the one that was added last at the end.
        self._patterns: dict[tuple[str, ...], dict[tuple[str, ...], _Pattern]] = {}

    def add(self, pattern: str, context: SecureContext) -> None:
        """Add a context for a name, in place of the one for the same pattern; ``*`` matches within one label.

        Raises:
            ConfigurationError: the pattern is empty or no host name, no server could be made of the context,
                or an argument has the wrong type.
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
        try:
            labels = _labels(".".join(map(to_ascii, pattern.split("."))))
        except ValueError as error:
            raise ConfigurationError(f"{pattern!r} is no host name: {error}", option="add_context") from error
        context.check_server_side()
        self._added += 1
        if "*" not in pattern:
            self._exact[".".join(labels)] = (self._added, context)
            return
        last = max(index for index, label in enumerate(labels) if "*" in label)
        alike = self._patterns.setdefault(labels[last + 1 :], {})
        alike.pop(labels, None)
        alike[labels] = _Pattern(self._added, labels, context)

    def replace(self, context: SecureContext, successor: SecureContext) -> bool:
        """Put another context in the places of one, where their order stays; return whether it had any.

        Args:
            context: The one that is replaced.
            successor: The other one, of which a server can be made.
        """
        found = False
        for name, (order, present) in self._exact.items():
            if present is context:
                self._exact[name] = (order, successor)
                found = True
        for alike in self._patterns.values():
            for labels, pattern in alike.items():
                if pattern.context is context:
                    alike[labels] = dataclasses.replace(pattern, context=successor)
                    found = True
        return found

    def find(self, server_name: str) -> SecureContext | None:
        """Return the context that was added last of those whose pattern matches, or None."""
        labels = _labels(server_name)
        order, found = self._exact.get(".".join(labels), (0, None))
        if self._patterns:
            for start in range(1, len(labels) + 1):
                for pattern in reversed(self._patterns.get(labels[start:], {}).values()):
                    if pattern.order < order:
                        break
                    if pattern.matches(labels):
                        order, found = pattern.order, pattern.context
                        break
        return found


def _labels(name: str) -> tuple[str, ...]:
    return tuple(name.lower().removesuffix(".").split("."))
