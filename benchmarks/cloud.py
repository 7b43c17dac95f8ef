"""A local cloud of a benchmark's own, beside whatever else runs on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measure import PYTHONPATH, ROOT, BenchmarkError

_START_SECONDS = 600
_RUN_SECONDS = 900


class LocalCloud:
    """A running local cloud.

    Args:
        variables: Environment of its commands.
        endpoints: What ``runsfleet local up --json`` wrote.
    """

    def __init__(self, variables: dict[str, str], endpoints: dict[str, Any]) -> None:
        self._variables = variables
        self.endpoints = endpoints

    def record(self) -> dict[str, Any]:
        """Return every request so far, and their summary."""
        found: dict[str, Any] = json.loads(_runsfleet(["calls", "--json"], self._variables, 120))
        return found

    def start_jobs(self, workflow: Path, jobs: int) -> subprocess.Popen[str]:
        """Start ``runsfleet local run``; it ends when the jobs have."""
        command = ["run", str(workflow), "--jobs", str(jobs), "--json"]
        return subprocess.Popen(
            [*_COMMAND, *command],
            env=self._variables,
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def finish_jobs(self, running: subprocess.Popen[str]) -> dict[str, Any]:
        """Wait for the jobs and return the command's outcome.

        Raises:
            BenchmarkError: If a job was lost.
        """
        try:
            said, complaint = running.communicate(timeout=_RUN_SECONDS)
        except subprocess.TimeoutExpired as error:
            running.terminate()
            raise BenchmarkError(f"the jobs did not end within {_RUN_SECONDS} s") from error
        if running.returncode != 0:
            raise BenchmarkError(f"the jobs did not all end well: {complaint.strip()[-1500:]}")
        outcome: dict[str, Any] = json.loads(said)
        return outcome

    def client(self, service: str) -> Any:
        """Return an AWS client of the operator."""
        import boto3

        return boto3.client(
            service,  # type: ignore[call-overload]  # any service
            endpoint_url=self.endpoints["aws"],
            region_name=self.endpoints["region"],
            aws_access_key_id=self.endpoints["access_key"],
            aws_secret_access_key=self.endpoints["secret_key"],
        )


@contextmanager
def local_cloud(*options: str) -> Iterator[LocalCloud]:
    """Start a local cloud and end it after the ``with`` block.

    Args:
        *options: Further options of ``runsfleet local up``.

    Raises:
        BenchmarkError: If it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="runsfleet-bench-") as folder:
        file = Path(folder) / "endpoints.json"
        variables = {**os.environ, "RUNSFLEET_LOCAL_STATE": folder, "PYTHONPATH": PYTHONPATH}
        _runsfleet(["up", "--detach", "--json", str(file), *options], variables, _START_SECONDS)
        try:
            yield LocalCloud(variables, json.loads(file.read_text()))
        finally:
            _runsfleet(["down"], variables, 120)


_COMMAND = [sys.executable, "-m", "runsfleet_cli.main", "local"]


def _runsfleet(arguments: list[str], variables: dict[str, str], seconds: float) -> str:
    done = subprocess.run(
        [*_COMMAND, *arguments],
        env=variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    if done.returncode != 0:
        command = " ".join(arguments)
        raise BenchmarkError(f"runsfleet local {command}: {done.stderr.strip()[-1500:]}")
    return done.stdout
