"""Events: what a command that goes on tells while it does, as lines for people or as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from .. import ConnectionFailed, TLSError
from .report import JSONOutput
from .terminal import print_line


class Events:
    """Tells what happens, in words or as JSON.

    Args:
        console: Where to tell it in words.
        json: Where to tell it as JSON, if not in words.
    """

    def __init__(self, console: Console, json: JSONOutput | None) -> None:
        self._console = console
        self._json = json

    def tell(self, event: str, facts: Mapping[str, Any], *parts: str | tuple[str, str]) -> None:
        """Tell one event.

        Args:
            event: What it is, in JSON.
            facts: What belongs to it, in JSON.
            parts: The line in words, with or without styles.
        """
        if self._json is None:
            print_line(self._console, *parts)
        else:
            self._json.print(report={"event": event, **facts})

    def add(self, *parts: str | tuple[str, str]) -> None:
        """Add a line that is for people alone."""
        if self._json is None:
            print_line(self._console, *parts)

    def failed(self, error: ConnectionFailed) -> None:
        """Tell what a connection failed of."""
        cause = error.__cause__
        # Such as what is wrong with a header of the PROXY protocol.
        reason = cause.reason if isinstance(cause, TLSError) else error.reason
        what = f"failed, {error.phase}: {reason} [{error.code}]"
        self.tell(
            "failure", {"failure": error.to_dict()}, (f"{error.remote_address} ", "cyan"), (what, "red")
        )

    def dropped(self, number: int) -> None:
        """Tell how many failures found no room, if any did."""
        if number:
            self.tell("dropped", {"failures": number}, (f"{number} more failed", "red"))

    def closing(self, number: int) -> None:
        """Tell that no more are accepted, and how many connections are open."""
        self.tell("closing", {"open": number}, (f"Closing; open connections: {number}", "bold"))
