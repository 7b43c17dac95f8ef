"""``python -m benchmarks [NAME ...] [--rounds N] [--json FILE]``: measure, and print the ratios."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import agent_start, calls, cold_start, idle_cost, latency, synth
from benchmarks.measure import BenchmarkError, machine
from benchmarks.report import Row, print_table

BENCHMARKS: dict[str, Callable[[int | None], list[Row]]] = {
    "synth": synth.run,
    "cold_start": cold_start.run,
    "agent_start": agent_start.run,
    "calls": calls.run,
    "latency": latency.run,
    "idle_cost": idle_cost.run,
}


def main() -> int:
    """Run what is asked for; the exit code says whether it could be measured, not how it went."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--rounds", type=int, help="turns of each side; each benchmark has its own")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in BENCHMARKS]:
        parser.error(f"no benchmark {', '.join(unknown)}; use {', '.join(BENCHMARKS)}")
    os.environ.setdefault("JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION", "20")
    print(f"python {platform.python_version()}, {machine()}")
    rows: dict[str, list[Row]] = {}
    failed = 0
    for name in options.names or BENCHMARKS:
        try:
            rows[name] = BENCHMARKS[name](options.rounds)
        except BenchmarkError as error:
            print(f"\n{name}: {error}", file=sys.stderr)
            failed = 1
            continue
        print_table(name, rows[name])
    if options.json:
        found = {name: [row.as_dict() for row in part] for name, part in rows.items()}
        options.json.write_text(json.dumps({"machine": machine(), "benchmarks": found}, indent=2))
    return failed


if __name__ == "__main__":
    sys.exit(main())
