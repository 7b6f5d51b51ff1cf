"""The process that libFuzzer runs in.

``python -m benchmarks.reliability.fuzz_worker COMMAND TARGET``, and then libFuzzer's own arguments.  The
command starts this process again, with such arguments behind it.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import traceback

# They need more than the package does.
_PROGRAMS = ("trio_tlsnode.cli", "trio_tlsnode.__main__")


def main() -> None:
    """Fuzz one target, with the coverage of this package's code as the guide."""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["trio_tlsnode"]):
        package = importlib.import_module("trio_tlsnode")
        # What is imported only when it is needed would have no coverage then.
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            if module.name not in _PROGRAMS:
                importlib.import_module(module.name)
        hostile = importlib.import_module("benchmarks.reliability.hostile")
    _, command, target, *arguments = sys.argv

    def judge(data: bytes) -> None:
        try:
            hostile.judge(target, data)
        except Exception:
            # Of a group, atheris prints the outermost exception alone.
            traceback.print_exc()
            raise

    atheris.Setup([command, *arguments], judge)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
