"""Fresh processes, measured in turns."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONPATH = os.pathsep.join([str(ROOT), str(ROOT / "runtime")])
"""This tree comes first, wherever the environment's editable installation points to."""
BYTECODE = ROOT / "build" / "benchmarks" / "bytecode"
"""Compiled modules of every measured process: the first round, which does not count, fills it."""

_KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE", "XDG_CACHE_HOME")


class BenchmarkError(Exception):
    """Something could not be measured; says why."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one process took.

    Attributes:
        wall: Seconds by the clock.
        cpu: Seconds of processor time, system calls and children (node) included.
    """

    wall: float
    cpu: float


def environment(**further: str) -> dict[str, str]:
    """Return an environment that is the same on every machine but for where things are."""
    return {k: os.environ[k] for k in _KEPT if k in os.environ} | {
        "PYTHONPYCACHEPREFIX": str(BYTECODE),
        **further,
    }


def run_process(command: Sequence[str], *, env: Mapping[str, str], cwd: Path = ROOT) -> Sample:
    """Run a process to its end.

    Raises:
        BenchmarkError: If it fails, with its last words.
    """
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, env=dict(env), cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode != 0:
        last = said.decode(errors="replace").strip()[-1500:]
        raise BenchmarkError(f"{' '.join(command)} ended with {process.returncode}: {last}")
    return Sample(wall, usage.ru_utime + usage.ru_stime)


def in_turns(
    sides: Mapping[str, Callable[[], Sample]], rounds: int, *, title: str
) -> dict[str, list[Sample]]:
    """Measure every side once a round; a first round warms caches and is thrown away."""
    samples: dict[str, list[Sample]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, measure in sides.items():
            if sys.stderr.isatty():
                sys.stderr.write(f"\r\033[K{title}: round {number} of {rounds}, {name}")
                sys.stderr.flush()
            sample = measure()
            if number:
                samples[name].append(sample)
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    return samples


def median_and_quartiles(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Return the median and the outer quartiles of at least one value."""
    if len(values) == 1:
        return values[0], (values[0], values[0])
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return statistics.median(values), (low, high)


def machine() -> str:
    """Describe this machine as far as it matters."""
    try:
        node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
        version = f"node {node.stdout.strip().lstrip('v')}"
    except (OSError, subprocess.CalledProcessError):
        version = "no node"
    return f"{version}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
