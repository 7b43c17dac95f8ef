"""Starts the process of a local cloud, waits until it is ready, and ends it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from runsfleet_cli.local.state import Endpoints, is_alive, read_state, state_file

END_SECONDS = 20.0
"""A cloud that was told to end gets so long before it is killed."""

OLDEST_NODE = 20
"""The oldest that jsii 1.130 still runs on."""

_GET_NODE = "install Node 22 or 24 from nodejs.org"
_NEEDED = {"aiohttp": "aiohttp", "cryptography": "cryptography"}

Progress = Callable[[str, str], None]


class LaunchError(Exception):
    """The local cloud did not start; the message says why and what to do."""


@dataclass(slots=True)
class RunningCloud:
    """A local cloud that this process started.

    Args:
        endpoints: How to reach it.
        process: Its process.
    """

    endpoints: Endpoints
    process: subprocess.Popen[str]

    def end(self) -> None:
        """End it; returns when its processes are gone."""
        end_process(self.process)


def end_process(process: subprocess.Popen[str]) -> None:
    """Let go of an attached cloud, which ends by it; kill it if it does not."""
    _close(process.stdin)
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _close(process.stdout)


def cache_directory() -> Path:
    """Where assemblies are kept: as the bundled assets are."""
    named = os.environ.get("RUNSFLEET_CACHE_DIR")
    if named:
        return Path(named).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "runsfleet"


def launch(
    project: Path,
    *,
    environment: str = "dev",
    strict: bool = False,
    boot_seconds: float = 0.3,
    json_file: Path | None = None,
    attached: bool = True,
    shared: bool = True,
    progress: Progress = lambda _part, _line: None,
) -> RunningCloud:
    """Start a local cloud and wait until it is ready.

    Args:
        project: The folder whose app is deployed.
        environment: Which environment.
        strict: IAM enforcement and TLS.
        boot_seconds: Between an instance's launch and its first script.
        json_file: Gets the endpoints too.
        attached: Whether it ends with this process.
        shared: Whether other commands may run jobs on it; there is at most one such.
        progress: Told each part as it begins, and lines about it.

    Raises:
        LaunchError: It did not start, or one runs already.
    """
    check_requirements()
    file = state_file(project)
    running = read_state(file)
    if running is not None and running.shared and shared:
        msg = (
            f"a local cloud is up already (process {running.pid}, page {running.page}); "
            "use it, or end it by `runsfleet local down`"
        )
        raise LaunchError(msg)
    options = {
        "project": str(project),
        "cache": str(cache_directory()),
        "state_file": str(file),
        "json_file": str(json_file.absolute()) if json_file else None,
        "environment": environment,
        "strict": strict,
        "boot_seconds": boot_seconds,
        "attached": attached,
        "shared": shared,
    }
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "runsfleet_cli.local.daemon", json.dumps(options)],
        stdin=subprocess.PIPE if attached else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Ctrl-C is for the command, which then ends the cloud in order
        start_new_session=True,
    )
    try:
        endpoints = _await_ready(process, progress)
    except BaseException:
        if not attached:
            process.terminate()
        end_process(process)
        raise
    return RunningCloud(endpoints, process)


def bring_down(project: Path) -> Endpoints | None:
    """End the local cloud of a project; None if none runs.

    Raises:
        LaunchError: Its process does not end, even when killed.
    """
    file = state_file(project)
    endpoints = read_state(file)
    if endpoints is None:
        file.unlink(missing_ok=True)
        return None
    _stop(endpoints.pid)
    file.unlink(missing_ok=True)
    # a killed process could not remove these itself
    shutil.rmtree(endpoints.directory, ignore_errors=True)
    return endpoints


def check_requirements() -> None:
    """See that everything is there that a local cloud needs.

    Raises:
        LaunchError: Something is missing; the message names the cure.
    """
    missing = [name for name, module in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        msg = (
            f"{', '.join(missing)} is not installed, which the local cloud needs; "
            "run pip install 'runsfleet[local]'"
        )
        raise LaunchError(msg)
    if os.name != "posix":
        msg = "the local cloud needs Linux or macOS; on Windows run it in WSL"
        raise LaunchError(msg)
    node = shutil.which("node")
    if node is None:
        msg = f"Node.js was not found, which the CDK CLI needs; {_GET_NODE}"
        raise LaunchError(msg)
    told = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    major = told.strip().lstrip("v").partition(".")[0]
    if major.isdigit() and int(major) < OLDEST_NODE:
        msg = f"Node.js {told.strip()} is too old for the CDK CLI and its library; {_GET_NODE}"
        raise LaunchError(msg)


def _await_ready(process: subprocess.Popen[str], progress: Progress) -> Endpoints:
    lines: list[str] = []
    for line in process.stdout or ():
        try:
            message: dict[str, Any] = json.loads(line)
        except ValueError:
            lines.append(line.rstrip())
            continue
        if "ready" in message:
            return Endpoints.from_json(json.dumps(message["ready"]))
        if "error" in message:
            raise LaunchError(str(message["error"]))
        progress(str(message.get("part", "")), str(message.get("line", "")))
    status = process.wait()
    raise LaunchError(_ending(status, lines))


def _ending(status: int, said: list[str]) -> str:
    reason = " ".join(said[-5:]).strip()
    return f"the local cloud ended with status {status} before it was ready: {reason or 'silently'}"


def _stop(pid: int) -> None:
    for number, seconds in ((signal.SIGTERM, END_SECONDS), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not is_alive(pid):
                return
            time.sleep(0.05)
    msg = f"process {pid} of the local cloud does not end; end it by hand"
    raise LaunchError(msg)


def _close(pipe: IO[str] | None) -> None:
    if pipe is not None:
        with contextlib.suppress(OSError):
            pipe.close()
