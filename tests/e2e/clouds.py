"""Starts local clouds for tests, and proves that nothing of them is left."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runsfleet_cli.local.client import CloudClient
from runsfleet_cli.local.drive import Drive, Outcome, drive
from runsfleet_cli.local.launcher import RunningCloud, launch
from runsfleet_cli.local.state import STATE_VARIABLE

PROJECT = Path(__file__).resolve().parents[2]
WORKFLOWS = PROJECT / "examples" / "workflows"


@dataclass(frozen=True)
class Cloud:
    """A running local cloud."""

    running: RunningCloud
    client: CloudClient
    state: Path

    def run(self, workflow: str, *, jobs: int = 1, timeout: float = 120.0) -> Outcome:
        """Run a workflow of the examples."""
        return drive(self.client, Drive(workflow=WORKFLOWS / workflow, jobs=jobs, timeout=timeout))

    def calls(self, **query: Any) -> list[dict[str, Any]]:
        """The record of AWS calls so far."""
        return self.client.aws_calls(**query)

    def last_call(self) -> int:
        """The number of the last recorded call."""
        calls = self.client.aws_calls(limit=1)
        return int(calls[-1]["sequence"]) if calls else 0

    @contextlib.contextmanager
    def fault(self, **rule: Any) -> Iterator[Callable[[], Mapping[str, Any]]]:
        """Have a fault rule in force; gives the rule's present counters."""
        self.client.aws_faults("POST", {"id": "test", **rule})

        def counters() -> Mapping[str, Any]:
            return next(one for one in self.client.aws_faults("GET") if one["id"] == "test")

        try:
            yield counters
        finally:
            self.client.aws_faults("DELETE", rule_id="test")


def processes_of(directory: str) -> list[str]:
    """Every live process that knows of a cloud's files."""
    mark = directory.encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
            about = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
            if state != "Z" and mark in about and int(entry.name) != os.getpid():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def gone(directory: str, seconds: float = 10.0) -> bool:
    """Whether every process of a cloud has ended, within some seconds."""
    deadline = time.monotonic() + seconds
    while processes_of(directory):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@contextlib.contextmanager
def started(state: Path, *, strict: bool, environment: str = "dev") -> Iterator[Cloud]:
    """A cloud, found by its own state folder, and nothing of it afterwards."""
    before = os.environ.get(STATE_VARIABLE)
    os.environ[STATE_VARIABLE] = str(state)
    try:
        running = launch(PROJECT, strict=strict, boot_seconds=0.0, environment=environment)
    finally:
        if before is None:
            del os.environ[STATE_VARIABLE]
        else:
            os.environ[STATE_VARIABLE] = before
    directory = running.endpoints.directory
    try:
        yield Cloud(running, CloudClient(running.endpoints), state)
    finally:
        running.end()
    assert gone(directory), processes_of(directory)
    assert not Path(directory).exists()
    assert not (state / "local.json").exists()
