"""The names of options: an unknown one is refused, and the one that was meant is suggested."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet


def refuse_unknown(options: Iterable[str], known: AbstractSet[str], *, of: str) -> None:
    """Refuse options that are not known; often one is in Node's spelling, ``rejectUnauthorized``.

    Args:
        options: The names that were given.
        known: The names that there are.
        of: What has these options ("a client").

    Raises:
        TypeError: some are unknown, as for any keyword argument.
    """
    unknown = sorted(set(options) - known)
    if unknown:
        by_letters = {option.replace("_", ""): option for option in known}
        said = ", ".join(_with_suggestion(name, by_letters) for name in unknown)
        raise TypeError(f"{of} has no option {said}")


def _with_suggestion(unknown: str, known: dict[str, str]) -> str:
    import difflib

    similar = difflib.get_close_matches(unknown.lower().replace("_", ""), known, n=1)
    return f"{unknown} (did you mean {known[similar[0]]}?)" if similar else unknown
