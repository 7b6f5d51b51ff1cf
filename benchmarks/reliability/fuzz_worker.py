"""The process that libFuzzer runs in.

``python -m benchmarks.reliability.fuzz_worker COMMAND TARGET``, and then libFuzzer's own arguments.  The
command starts this process again, with such arguments behind it.
"""

from __future__ import annotations

import importlib
import sys


def main() -> None:
    """Fuzz one target, with the coverage of this package's code as the guide."""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["trio_tlsnode"]):
        hostile = importlib.import_module("benchmarks.reliability.hostile")
    _, command, target, *arguments = sys.argv

    def judge(data: bytes) -> None:
        hostile.judge(target, data)

    atheris.Setup([command, *arguments], judge)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
