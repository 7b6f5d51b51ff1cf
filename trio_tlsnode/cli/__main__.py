"""``python -m trio_tlsnode.cli``: the command ``tlsnode`` without its script."""

from __future__ import annotations

from . import main

main(prog_name="tlsnode")
