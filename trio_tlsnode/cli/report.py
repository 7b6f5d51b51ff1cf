"""JSONOutput: what a command tells as JSON, always in the same envelope."""

from __future__ import annotations

import dataclasses
import errno
import json
from typing import Any, Final, TextIO

from .. import TLSError

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

    def report(self, report: Any, exit_status: int = 0) -> None:
        """Print what the command has found out.

        Args:
            report: What JSON has.
            exit_status: How the command ends.
        """
        self._print(report, None, exit_status)

    def failure(self, error: BaseException, exit_status: int) -> None:
        """Print what the command failed of.

        Args:
            error: Why.
            exit_status: How the command ends.
        """
        self._print(None, _facts(error), exit_status)

    def _print(self, report: Any, error: Any, exit_status: int) -> None:
        envelope = {
            "schema": SCHEMA,
            "command": self.command,
            "exit_status": int(exit_status),
            "error": error,
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
