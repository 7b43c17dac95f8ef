"""A model of an instance and its agent, as ``docs/agent.md`` tells their life.

It reads its configuration by the agent's own adapter, listens at GitHub, runs whatever job it is
given there, reports as the agent does, and ends. What may go wrong with it is its :class:`Fate`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from runsfleet_runtime.agent.configuration import accept
from runsfleet_runtime.agent.dynamodb import DynamoDbConfigurations
from runsfleet_runtime.agent.errors import ConfigurationError
from runsfleet_runtime.contract.messages import ReportStatus, RunnerConfig, RunnerReport
from tests.simulation.actions import Actions, Job, Runner
from tests.simulation.ec2 import Ec2, Instance
from tests.simulation.loop import Loop

CONFIG_SECONDS: Final = 300.0
RENEWAL_SECONDS: Final = 60.0
SILENCE_SECONDS: Final = 300.0
"""After so long the watchdog ends an instance whose agent is dead."""
LIFETIME_SECONDS: Final = 8 * 3600.0
_POLL_SECONDS: Final = 4.0
_LEAVING_SECONDS: Final = 8.0  # from the report to the end


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What becomes of one instance.

    Attributes:
        boot: Seconds from the launch to the agent's start.
        package: Seconds to have the runner.
        fails_bootstrap: Whether the runner never listens.
        interrupted_after: Seconds from the launch until EC2 takes it; ``None`` for never.
        interrupted_in_job: Seconds from its job's start until EC2 takes it.
        notice: Seconds between the warning and the end; 0 for none.
        dies_after: Seconds from the launch until the agent dies without a word.
        dies_in_job: Seconds from its job's start until then.
        report_delay: Seconds that each report takes to the queue.
        report_copies: How often each report is sent.
        loses_ending: Whether the queue takes no last report, which is kept in the bucket then.
    """

    boot: float = 30.0
    package: float = 4.0
    fails_bootstrap: bool = False
    interrupted_after: float | None = None
    interrupted_in_job: float | None = None
    notice: float = 120.0
    dies_after: float | None = None
    dies_in_job: float | None = None
    report_delay: float = 0.1
    report_copies: int = 1
    loses_ending: bool = False


class Agent:
    """One instance's life.

    Args:
        instance: The instance.
        fate: What goes wrong.
        loop: Simulated time.
        ec2: For its end.
        actions: GitHub.
        configurations: Where its configuration is.
        report: Sends a report to the termination queue.
        keep: Keeps a report in the bucket.
        rng: Randomness.
    """

    def __init__(
        self,
        instance: Instance,
        fate: Fate,
        *,
        loop: Loop,
        ec2: Ec2,
        actions: Actions,
        configurations: DynamoDbConfigurations,
        report: Callable[[Instance, RunnerReport], None],
        keep: Callable[[Instance, RunnerReport], None],
        rng: random.Random,
    ) -> None:
        self._instance = instance
        self._fate = fate
        self._loop = loop
        self._ec2 = ec2
        self._actions = actions
        self._configurations = configurations
        self._report = report
        self._keep = keep
        self._rng = rng
        self._config: RunnerConfig | None = None
        self._runner: Runner | None = None
        self._job: Job | None = None
        self._job_started = 0.0
        self._has_listened = False
        self._has_renewed = False
        self._is_leaving = False
        self._is_gone = False  # nothing of it acts any more
        instance.on_end.append(self._end)
        instance.on_warning.append(self._warned)
        loop.after(fate.boot, self._act, self._begin)
        loop.after(LIFETIME_SECONDS, ec2.end, instance)
        if fate.interrupted_after is not None:
            loop.after(fate.interrupted_after, self._take_away)
        if fate.dies_after is not None:
            loop.after(fate.dies_after, self._die)

    def _act(self, step: Callable[..., None], *arguments: Any) -> None:
        if not self._is_gone and not self._is_leaving:
            step(*arguments)

    # -- what happens to it --------------------------------------------------------------------

    def _take_away(self) -> None:
        if self._instance.capacity == "spot":
            self._ec2.interrupt(self._instance, notice=self._fate.notice)

    def _warned(self) -> None:
        # the metadata service is asked every five seconds
        self._loop.after(self._rng.uniform(0, 5), self._act, self._interrupted)

    def _interrupted(self) -> None:
        if self._job is not None:
            runner = self._runner
            assert runner is not None
            self._actions.break_off(runner)
        elif self._runner is not None:
            self._actions.fall_silent(self._runner)
        self._leave(ReportStatus.INTERRUPTED, error="spot interruption")

    def _end(self) -> None:
        self._is_gone = True
        if self._runner is not None:
            self._actions.fall_silent(self._runner)

    def _die(self) -> None:
        """Die without a word; the watchdog ends the instance some minutes later."""
        if self._is_gone or self._is_leaving:
            return
        self._end()
        self._loop.after(SILENCE_SECONDS, self._ec2.end, self._instance)

    # -- its own life --------------------------------------------------------------------------

    def _begin(self) -> None:
        self._await_configuration(self._loop.now + CONFIG_SECONDS)

    def _read(self) -> RunnerConfig | None:
        text = self._configurations.read(self._instance.id, now=self._loop.now)
        return None if text is None else accept(text, self._instance.id)

    def _await_configuration(self, until: float) -> None:
        try:
            found = self._read()
        except ConfigurationError as error:
            self._leave(ReportStatus.BOOTSTRAP_FAILED, error=str(error))
            return
        if found is not None:
            self._config = found
            self._loop.after(self._fate.package, self._act, self._listen)
        elif self._loop.now + _POLL_SECONDS >= until:
            self._leave(ReportStatus.BOOTSTRAP_FAILED, error="no configuration")
        else:
            pause = self._rng.uniform(_POLL_SECONDS / 2, _POLL_SECONDS)
            self._loop.after(pause, self._act, self._await_configuration, until)

    def _listen(self) -> None:
        assert self._config is not None
        if self._fate.fails_bootstrap:
            self._leave(ReportStatus.BOOTSTRAP_FAILED, error="the runner never listened")
            return
        runner = self._actions.listen(self._config.jit_config, self._given, self._removed)
        if runner is None:
            self._renew()
            return
        self._has_listened = True
        self._runner = runner
        self._loop.after(self._config.idle_timeout_seconds, self._act, self._idle, runner)

    def _renew(self) -> None:
        if self._has_renewed:
            self._leave_unserved()
            return
        self._has_renewed = True
        self._send(self._story(ReportStatus.RENEWAL, error="refused"))
        self._await_renewal(self._loop.now + RENEWAL_SECONDS)

    def _await_renewal(self, until: float) -> None:
        assert self._config is not None
        found = self._read()
        if found is not None and found.jit_config != self._config.jit_config:
            self._config = replace(self._config, jit_config=found.jit_config)
            self._listen()
        elif self._loop.now + _POLL_SECONDS >= until:
            self._leave_unserved()
        else:
            self._loop.after(_POLL_SECONDS, self._act, self._await_renewal, until)

    def _idle(self, runner: Runner) -> None:
        if self._job is None and self._runner is runner:
            # it closes its session; its registration stays at GitHub
            self._actions.fall_silent(runner)
            self._leave(ReportStatus.UNUSED, error="no job came")

    def _removed(self) -> None:
        """GitHub took the runner off, or cancelled its job."""
        self._loop.after(0.1, self._act, self._left_by_itself)

    def _left_by_itself(self) -> None:
        self._runner = None
        if self._job is not None:
            self._leave(ReportStatus.SUCCESS)
        else:
            self._renew()

    def _leave_unserved(self) -> None:
        listened = self._has_listened
        status = ReportStatus.UNUSED if listened else ReportStatus.BOOTSTRAP_FAILED
        self._leave(status, error="the runner left without a job")

    def _given(self, job: Job) -> None:
        self._job, self._job_started = job, self._loop.now
        self._send(self._story(ReportStatus.STARTED))
        self._loop.after(job.duration, self._act, self._done)
        if self._fate.interrupted_in_job is not None:
            self._loop.after(self._fate.interrupted_in_job, self._take_away)
        if self._fate.dies_in_job is not None:
            self._loop.after(self._fate.dies_in_job, self._die)

    def _done(self) -> None:
        assert self._runner is not None
        runner, self._runner = self._runner, None
        self._actions.finish(runner, "success")
        self._leave(ReportStatus.SUCCESS)

    # -- its end -------------------------------------------------------------------------------

    def _leave(self, status: ReportStatus, *, error: str = "") -> None:
        self._is_leaving = True
        report = self._story(status, error=error)
        if self._fate.loses_ending:
            self._keep(self._instance, report)
        else:
            self._send(report)
        self._loop.after(_LEAVING_SECONDS, self._ec2.end, self._instance)

    def _send(self, report: RunnerReport) -> None:
        for copy in range(self._fate.report_copies):
            delay = self._fate.report_delay * (1 + 3 * copy)
            self._loop.after(delay, self._report, self._instance, report)

    def _story(self, status: ReportStatus, *, error: str = "") -> RunnerReport:
        config, job = self._config, self._job
        is_over = status.is_ending and job is not None
        return RunnerReport(
            instance_id=self._instance.id,
            job_id=config.job_id if config else 0,
            run_id=config.run_id if config else 0,
            dispatch=config.dispatch if config else 0,
            status=status,
            exit_code=0 if self._has_listened else None,
            duration_seconds=self._loop.now - self._job_started if is_over else None,
            started_at=_text(self._job_started) if job else None,
            completed_at=_text(self._loop.now) if is_over else None,
            ran_job=job is not None,
            ran_run_id=job.run.id if job else None,
            error=error,
        )


def _text(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()
