"""In-memory stand-ins for the agent's ports, and runners that behave in every way."""

from __future__ import annotations

import io
import tarfile
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from runsfleet_runtime.agent.errors import StopRequestedError
from runsfleet_runtime.agent.vitals import Vitals
from runsfleet_runtime.contract.messages import RunnerConfig, RunnerReport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from runsfleet_runtime.agent.log_batches import LogEvent
    from runsfleet_runtime.agent.notices import SpotNotice

INSTANCE_ID = "i-0123456789abcdef0"
JIT = "eyJzZWNyZXQiOiAi" + "Zm9vYmFy" * 512 + "In0="
VERSION = "2.337.0"
FILENAME = f"actions-runner-linux-x64-{VERSION}.tar.gz"


def runner_config(**changes: object) -> RunnerConfig:
    """Return a valid configuration with some fields changed."""
    fields: dict[str, object] = {
        "instance_id": INSTANCE_ID,
        "job_id": 5_000_000_001,
        "run_id": 4_000_000_001,
        "repository": "octo/repo",
        "server_url": "https://github.com",
        "runner_url": "https://github.com/octo",
        "runner_name": f"runsfleet-{INSTANCE_ID}",
        "labels": ("runs-fleet=1/runner=4cpu-linux-x64",),
        "dispatch": 2,
        "jit_config": JIT,
    }
    return RunnerConfig(**{**fields, **changes})  # type: ignore[arg-type]


def unheld() -> threading.Event:
    """Return what a fake waits for; ``clear`` makes it hang."""
    event = threading.Event()
    event.set()
    return event


class FakeClock:
    """A clock that jumps instead of waiting."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.stop: str | None = None
        self.stop_by: float | None = None
        self.stop_at: float | None = None
        self.rests: list[float] = []

    @property
    def stop_requested(self) -> str | None:
        return self.stop

    def request_stop(self, reason: str, *, within: float | None = None) -> None:
        self.stop = self.stop or reason
        if within is not None:
            self.stop_by = self.time + within

    def monotonic(self) -> float:
        return self.time

    def now(self) -> datetime:
        return datetime(2026, 11, 20, tzinfo=UTC) + timedelta(seconds=self.time)

    def wait(self, seconds: float) -> None:
        self.time += seconds

    def wake(self) -> None:
        return

    def pause(self, seconds: float) -> None:
        self.check()
        self.time += seconds
        if self.stop_at is not None and self.time >= self.stop_at:
            self.stop = "SIGTERM"
        self.check()

    def check(self) -> None:
        if self.stop is not None:
            raise StopRequestedError(self.stop)

    def rest(self, seconds: float) -> None:
        self.rests.append(seconds)
        self.time += seconds


class FakeInstance:
    """Knows an id, or fails."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure

    def instance_id(self) -> str:
        if self.failure is not None:
            raise self.failure
        return INSTANCE_ID

    def launched_at(self) -> datetime | None:
        return None


class FakeConfigurations:
    """Answers one after the other; the last one for ever."""

    def __init__(self, *answers: str | Exception | None) -> None:
        self.answers = list(answers)
        self.reads = 0

    def read(self, instance_id: str, *, now: float) -> str | None:
        self.reads += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class FakeReports:
    """Takes reports, after some failures."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.hold = unheld()
        self.sent: list[RunnerReport] = []

    def send(self, report: RunnerReport) -> None:
        self.hold.wait(20)
        if self.failures:
            self.failures -= 1
            raise OSError("the queue does not answer")
        self.sent.append(report)


class FakeKept:
    """Keeps reports in memory."""

    def __init__(self) -> None:
        self.kept: list[RunnerReport] = []

    def keep(self, report: RunnerReport) -> None:
        self.kept.append(report)


class FakeNotices:
    """Announces what it is told to."""

    def __init__(self) -> None:
        self.spot: SpotNotice | OSError | None = None
        self.rebalance: str | OSError | None = None
        self.looks = 0

    def spot_notice(self) -> SpotNotice | None:
        self.looks += 1
        if isinstance(self.spot, OSError):
            raise self.spot
        return self.spot

    def rebalance_notice(self) -> str | None:
        if isinstance(self.rebalance, OSError):
            raise self.rebalance
        return self.rebalance


class FakeMachine:
    """A machine with as much disk and memory as it is told."""

    def __init__(self, *vitals: Vitals) -> None:
        self.answers = list(vitals) or [Vitals()]
        self.looks = 0

    def vitals(self) -> Vitals:
        self.looks += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class FakeLogService:
    """A log service that takes, fails, refuses or hangs."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.failures = 0
        self.hold = unheld()
        self.attempts = 0
        self.batches: list[tuple[str, tuple[LogEvent, ...]]] = []

    def put(self, stream: str, events: Sequence[LogEvent]) -> None:
        self.attempts += 1
        self.hold.wait(20)
        if self.failure is not None:
            raise self.failure
        if self.failures:
            self.failures -= 1
            raise OSError("Rate exceeded")
        self.batches.append((stream, tuple(events)))

    def lines(self, stream: str | None = None) -> list[str]:
        """Return every line of a stream, or of all."""
        return [e.text for name, events in self.batches if stream in {None, name} for e in events]


class FakeInstances:
    """Terminates, after some failures."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.attempts = 0
        self.hold = unheld()
        self.terminated: list[str] = []

    def terminate(self, instance_id: str) -> None:
        self.hold.wait(20)
        self.attempts += 1
        if self.failures:
            self.failures -= 1
            raise OSError("EC2 does not answer")
        self.terminated.append(instance_id)


class FakeCache:
    """A cache in memory."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.objects: dict[str, bytes] = {}
        self.failure = failure

    def fetch(self, key: str, target: Path, *, check: Callable[[], None]) -> bool:
        if self.failure is not None:
            raise self.failure
        if key not in self.objects:
            return False
        check()
        target.write_bytes(self.objects[key])
        return True

    def store(self, key: str, source: Path) -> None:
        if self.failure is not None:
            raise self.failure
        self.objects[key] = source.read_bytes()


class FakeDownloads:
    """Answers one after the other; the last one for ever."""

    def __init__(self, *answers: bytes | Exception) -> None:
        self.answers = list(answers)
        self.urls: list[str] = []

    def download(self, url: str, target: Path, *, check: Callable[[], None]) -> None:
        self.urls.append(url)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        check()
        if isinstance(answer, Exception):
            raise answer
        target.write_bytes(answer)


def archive(files: dict[str, str], *, links: dict[str, str] | None = None) -> bytes:
    """Return a ``.tar.gz`` of executable text files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text.encode()), 0o755
            tar.addfile(member, io.BytesIO(text.encode()))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return buffer.getvalue()


LISTEN = 'echo "√ Connected to GitHub"; echo "2026-11-20 11:00:00Z: Listening for Jobs"'
JOB_VARIABLES = (
    "export GITHUB_RUN_ID=77 GITHUB_RUN_ATTEMPT=3 GITHUB_REPOSITORY=octo/other GITHUB_JOB=build"
)
START = f'{JOB_VARIABLES}; "$ACTIONS_RUNNER_HOOK_JOB_STARTED"'
COMPLETE = '"$ACTIONS_RUNNER_HOOK_JOB_COMPLETED"'


def runner_script(*lines: str) -> str:
    """Return a ``run.sh`` of these shell lines."""
    return "\n".join(("#!/bin/bash", *lines, ""))


RUNNERS = {
    "job ok": runner_script(LISTEN, START, COMPLETE),
    "job red": runner_script(LISTEN, START, COMPLETE, "exit 0"),
    "no job": runner_script(LISTEN),
    "never listens": runner_script('echo "An error occurred: bad credentials"'),
    "crashes in its job": runner_script(LISTEN, START, "kill -KILL $$"),
    "waits for ever": runner_script(LISTEN, "sleep 600"),
    "hangs in its job": runner_script(LISTEN, START, "sleep 600"),
    "cancels its job when asked": runner_script(
        f"trap '{COMPLETE}; exit 0' INT", LISTEN, START, "sleep 600 & wait"
    ),
    "ignores requests": runner_script("trap '' INT TERM", LISTEN, START, "sleep 600"),
    "does not leave": runner_script(LISTEN, START, COMPLETE, "sleep 600"),
}
"""``run.sh`` of every behaviour, by its name."""
