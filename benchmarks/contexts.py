"""What a client context with the default trust costs, the first and the next: python -m benchmarks.contexts

Each contender runs in a process of its own, as the first context pays for what the process then has.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

from rich.console import Console
from rich.table import Table

_REPEATS = 50

_PROGRAM = f"""
import json, time
{{setup}}
times = []
for _ in range({_REPEATS}):
    start = time.perf_counter()
    context = {{make}}
    times.append(time.perf_counter() - start)
print(json.dumps(times))
"""

CONTENDERS = {
    "trio_tlsnode": ("import trio_tlsnode as tls", "tls.SecureContext()"),
    "ssl": ("import ssl, certifi", "ssl.create_default_context(cafile=certifi.where())"),
}


def measure(setup: str, make: str) -> list[float]:
    """Return how long each of the contexts of one process took, in seconds."""
    program = _PROGRAM.format(setup=setup, make=make)
    finished = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    times: list[float] = json.loads(finished.stdout)
    return times


def main() -> None:
    table = Table(
        "contender", "first context, ms", "the next, ms", title="client contexts with Mozilla's roots"
    )
    for name, (setup, make) in CONTENDERS.items():
        first, *others = measure(setup, make)
        table.add_row(name, f"{first * 1e3:.2f}", f"{statistics.median(others) * 1e3:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
