"""JSONOutput: what a command tells as JSON, always in the same envelope."""

from __future__ import annotations

import dataclasses
import errno
import json
from typing import Any, Final, TextIO

import click

from .. import TLSError

json_option = click.option("--json", "as_json", is_flag=True, help="Tell it as JSON.")

SCHEMA: Final = "tlsnode/1"
"""The version of what commands print as JSON.  Keys may be added; whoever changes one changes the version."""


@dataclasses.dataclass(frozen=True, slots=True)
class JSONOutput:
    """Where a command prints JSON, in ASCII, which no terminal and no locale can garble.

    Attributes:
        command: The name of the command.
        file: Where it prints.
        indent: How far to indent; None prints on one line.
    """

    command: str
    file: TextIO
    indent: int | None = 2

    def print(
        self, *, report: Any = None, error: BaseException | None = None, exit_status: int | None = None
    ) -> None:
        """Print what the command has to tell.

        Args:
            report: What it has found out, as JSON has it.
            error: What it failed of.
            exit_status: How it ends; None while it goes on.
        """
        envelope = {
            "schema": SCHEMA,
            "command": self.command,
            "exit_status": None if exit_status is None else int(exit_status),
            "error": None if error is None else _facts(error),
            "report": report,
        }
        self.file.write(json.dumps(envelope, indent=self.indent) + "\n")
        self.file.flush()


def _facts(error: BaseException) -> dict[str, Any]:
    if isinstance(error, TLSError):
        return error.to_dict()
    # The system's errors, and Trio's time-outs.
    return {
        "class": type(error).__name__,
        "code": errno.errorcode.get(getattr(error, "errno", None) or 0),
        "reason": getattr(error, "strerror", None) or str(error),
        "side": "network",
        "retryable": isinstance(error, TimeoutError) or not isinstance(error, OSError),
    }
