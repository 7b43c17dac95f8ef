"""Run the runner: start it, watch it and its hooks, stop it when its time is over.

One loop decides, in :mod:`.lifecycle`; two threads only wait, for the end of the process and for
its output, and wake the loop.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runsfleet_runtime.agent.errors import RegistrationError
from runsfleet_runtime.agent.hooks import COMPLETED, STARTED, JobMoment, read_moment
from runsfleet_runtime.agent.lifecycle import (
    STOP_GRACE_SECONDS,
    Ended,
    Limits,
    Seen,
    StopReason,
    explain,
    stop_grace,
    stop_reason,
)
from runsfleet_runtime.agent.registration import conceal
from runsfleet_runtime.agent.vitals import INTERVAL_SECONDS, LOW_MEMORY_BYTES, Vitals
from runsfleet_runtime.telemetry.log import get_logger

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from runsfleet_runtime.agent.ports import Account, Clock, Platform, TakesVitals

LISTENING = "Listening for Jobs"
"""What GitHub's runner prints once it is registered and waits for its job."""

POLL_SECONDS = 0.5
CONFIGURE_SECONDS = 120.0
_DRAIN_SECONDS = 2.0  # for output that is still in the pipe
_LONGEST_LINE = 64 * 1024
_LONGEST_LOGGED = 2000
_KEPT_LINES = 5

_log = get_logger("agent.process")
_runner_log = get_logger("agent.runner")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What to run.

    Attributes:
        root: The runner's root.
        state: Where the hooks write.
        environment: The runner's environment; may hold a secret.
        account: Whom it runs as; ``None`` for the agent's own user.
        secrets: What must not be shown of its output.
    """

    root: Path
    state: Path
    environment: Mapping[str, str] = field(repr=False)
    account: Account | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerEnd:
    """How a runner ended.

    Attributes:
        ended: What the ending is named by.
        exit_code: Of ``run.sh``; negative for a signal.
        started: The job's start; ``None`` when there was none.
        completed: The job's end; ``None`` when there was none.
        listening_after: Seconds from its start until it listened; ``None`` when it never did.
        last_lines: The end of its output, without secrets.
        error: What went wrong in watching it; empty when nothing did.
        why: Why the agent stopped it; empty when it ended by itself.
    """

    ended: Ended
    exit_code: int | None
    started: JobMoment | None
    completed: JobMoment | None
    listening_after: float | None
    last_lines: tuple[str, ...]
    error: str = ""
    why: str = ""


class _Watch:
    """What the threads and the loop see of one process."""

    def __init__(
        self, process: subprocess.Popen[bytes], platform: Platform, clock: Clock, launch: Launch
    ) -> None:
        self.vitals = Vitals()
        self._looked_at: float | None = None
        self._told_listening = False
        self._told_started = False
        self.process = process
        self.begun = clock.monotonic()
        self.exited = threading.Event()
        self.listening_at: float | None = None
        self.lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self.started: JobMoment | None = None
        self.completed: JobMoment | None = None
        self.started_at: float | None = None
        self.completed_at: float | None = None
        self._platform = platform
        self._clock = clock
        self._launch = launch
        self._reader = threading.Thread(target=self._read, daemon=True, name="runner-output")
        self._waiter = threading.Thread(target=self._wait, daemon=True, name="runner-exit")
        self._reader.start()
        self._waiter.start()

    def _wait(self) -> None:
        self._platform.wait_for_exit(self.process)
        self.exited.set()
        self._clock.wake()

    def _read(self) -> None:
        pipe = self.process.stdout
        if pipe is None:
            return
        with pipe:
            while raw := pipe.readline(_LONGEST_LINE):
                self._take(raw)

    def _take(self, raw: bytes) -> None:
        line = conceal(raw.decode(errors="replace").rstrip(), self._launch.secrets)
        if not line:
            return
        line = line[:_LONGEST_LOGGED]
        self.lines.append(line)
        _runner_log.info(line)
        if LISTENING in line and self.listening_at is None:
            self.listening_at = self._clock.monotonic()
            self._clock.wake()

    def look(self) -> None:
        """Take in what the hooks wrote since."""
        if self.started is None:
            self.started = read_moment(self._launch.state / STARTED)
            self.started_at = self._clock.monotonic() if self.started else None
        if self.started is not None and self.completed is None:
            self.completed = read_moment(self._launch.state / COMPLETED)
            self.completed_at = self._clock.monotonic() if self.completed else None

    def tell(
        self, on_started: Callable[[JobMoment], None], on_listening: Callable[[float], None]
    ) -> None:
        """Tell what is new, each thing once."""
        if self.listening_at is not None and not self._told_listening:
            self._told_listening = True
            on_listening(self.listening_at - self.begun)
        if self.started is not None and not self._told_started:
            self._told_started = True
            on_started(self.started)

    def seen(self) -> Seen:
        now = self._clock.monotonic()
        return Seen(
            running_for=now - self.begun,
            listening=self.listening_at is not None,
            job_for=None if self.started_at is None else now - self.started_at,
            completed_for=None if self.completed_at is None else now - self.completed_at,
            interrupted=self._clock.stop_requested is not None,
            free_disk=self.vitals.free_disk,
        )

    def examine(self, machine: TakesVitals) -> None:
        """Look at the machine, if it is time to."""
        now = self._clock.monotonic()
        if self._looked_at is not None and now < self._looked_at + INTERVAL_SECONDS:
            return
        self._looked_at = now
        was_low = _is_low(self.vitals.available_memory)
        self.vitals = machine.vitals()
        if _is_low(self.vitals.available_memory) and not was_low:
            _log.warning("memory is low", extra={"bytes": self.vitals.available_memory})

    def drain(self) -> None:
        # a process that left the group may hold the pipe for ever
        self._reader.join(_DRAIN_SECONDS)
        self._waiter.join(_DRAIN_SECONDS)


def _is_low(memory: int | None) -> bool:
    return memory is not None and memory < LOW_MEMORY_BYTES


class RunnerRoom:
    """Where a runner runs.

    Args:
        platform: The operating system.
        clock: Time, and the request to stop.
        machine: Knows how much disk and memory is left.
        grace: Seconds that a runner gets to cancel its job before it is killed.
    """

    def __init__(
        self,
        platform: Platform,
        clock: Clock,
        *,
        machine: TakesVitals,
        grace: float = STOP_GRACE_SECONDS,
    ) -> None:
        self._platform = platform
        self._clock = clock
        self._machine = machine
        self._grace = grace

    def configure(
        self, launch: Launch, arguments: tuple[str, ...], environment: Mapping[str, str]
    ) -> None:
        """Run ``config.sh``.

        Raises:
            RegistrationError: It failed or took longer than 120 s.
            StopRequestedError: The agent was told to stop.
        """
        argv = [*self._platform.configure_command(launch.root), *arguments]
        env = {**launch.environment, **environment}
        process = self._platform.start(argv, cwd=launch.root, env=env, account=launch.account)
        watch = _Watch(process, self._platform, self._clock, launch)
        try:
            end = watch.begun + CONFIGURE_SECONDS
            while not watch.exited.is_set() and self._clock.monotonic() < end:
                self._clock.check()
                self._clock.wait(POLL_SECONDS)
            in_time = watch.exited.is_set()
        finally:
            self._platform.kill(process)
            watch.drain()
        if not in_time or process.returncode != 0:
            how = f"ended with {process.returncode}" if in_time else "did not end in time"
            raise RegistrationError(f"config.sh {how}: {' | '.join(watch.lines)}")

    def run(
        self,
        launch: Launch,
        limits: Limits,
        *,
        on_started: Callable[[JobMoment], None],
        on_listening: Callable[[float], None] = lambda _: None,
    ) -> RunnerEnd:
        """Run ``run.sh`` until it ends or has to be stopped; leaves no process of its group.

        Args:
            launch: What to run.
            limits: What it may take.
            on_started: Called once, when the hook saw a job start. Must not block.
            on_listening: Called once, before that, with the seconds that it took to listen.
        """
        process = self._platform.start(
            self._platform.run_command(launch.root),
            cwd=launch.root,
            env=launch.environment,
            account=launch.account,
        )
        watch = _Watch(process, self._platform, self._clock, launch)
        stopped: StopReason | None = None
        completed_before_stop = False
        error = why = ""
        try:
            stopped = self._follow(watch, limits, on_started, on_listening)
            if stopped is not None:
                completed_before_stop = watch.completed is not None
                why = self._explain(stopped, watch, limits)
                _log.info("stopping the runner", extra={"reason": stopped, "why": why})
                self._stop(watch)
        except Exception as failure:  # noqa: BLE001  the end of the instance must follow
            _log.exception("watching the runner failed")
            error = f"watching the runner failed: {failure}"
        finally:
            self._platform.kill(process)
            watch.drain()
        watch.look()
        watch.tell(on_started, on_listening)
        return RunnerEnd(
            ended=Ended(
                listened=watch.listening_at is not None,
                job_started=watch.started is not None,
                job_completed=watch.completed is not None,
                stopped=stopped,
                completed_before_stop=completed_before_stop,
            ),
            exit_code=process.returncode,
            started=watch.started,
            completed=watch.completed,
            listening_after=None
            if watch.listening_at is None
            else watch.listening_at - watch.begun,
            last_lines=tuple(watch.lines),
            error=error,
            why=why,
        )

    def _explain(self, stopped: StopReason, watch: _Watch, limits: Limits) -> str:
        if stopped is StopReason.INTERRUPTED:
            return f"stopped by {self._clock.stop_requested}"
        return explain(stopped, watch.seen(), limits)

    def _follow(
        self,
        watch: _Watch,
        limits: Limits,
        on_started: Callable[[JobMoment], None],
        on_listening: Callable[[float], None],
    ) -> StopReason | None:
        while True:
            watch.look()
            watch.tell(on_started, on_listening)
            # the end of the process first: what has ended needs no stop. Yet a system that goes
            # down signals every process at once, and then the runner may be the first to go
            if watch.exited.is_set():
                cut_off = self._clock.stop_requested is not None and watch.completed is None
                return StopReason.INTERRUPTED if cut_off else None
            watch.examine(self._machine)
            if (reason := stop_reason(watch.seen(), limits)) is not None:
                return reason
            self._clock.wait(POLL_SECONDS)

    def _stop(self, watch: _Watch) -> None:
        self._platform.interrupt(watch.process)
        asked_at = self._clock.monotonic()
        while not watch.exited.is_set():
            # anew each time: a spot notice may come while a runner is being stopped
            end = stop_grace(asked_at=asked_at, stop_by=self._clock.stop_by, longest=self._grace)
            if (left := end - self._clock.monotonic()) <= 0:
                break
            self._clock.wait(left)
        if not watch.exited.is_set():
            _log.warning("the runner did not stop in time; it is killed")
