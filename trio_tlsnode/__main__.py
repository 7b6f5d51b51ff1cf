"""``python -m trio_tlsnode``: the command ``tlsnode``, or what to install for it."""

from __future__ import annotations

import sys

# By the shells' convention, as for a command that was called wrongly.
_NOT_INSTALLED = 2


def main() -> None:
    """Run the command; without the extra that it needs, say how to get it."""
    try:
        from .cli import main as tlsnode
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] in ("trio_tlsnode", "OpenSSL", "cryptography"):
            raise
        sys.stderr.write(f"Error: {error}\n")
        raise SystemExit(_NOT_INSTALLED) from None
    tlsnode(prog_name="tlsnode")


if __name__ == "__main__":
    main()
