"""Carries a task out: under its lease, within its time, one thing after the other.

- Two runs of a task never overlap: a second message finds the lease taken and is done with.
- A suspect is read again and judged again right before it is acted on.
- The run stops before the function's time is up and says so; the next one goes on.
- What is told at the end: a log line with the whole report, and metrics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from runsfleet_runtime.contract.messages import HousekeepingTask
from runsfleet_runtime.contract.metrics import Metric
from runsfleet_runtime.contract.tables import SWEEP_LEASE_PREFIX
from runsfleet_runtime.housekeeping.model import Run, SweepOutcome, TaskReport, spare
from runsfleet_runtime.housekeeping.ports import KeepsLeases, Lease, SweepError, Task
from runsfleet_runtime.telemetry.log import bound, get_logger
from runsfleet_runtime.telemetry.metrics import CountsMetrics

log = get_logger("housekeeping")

RESERVED_SECONDS: Final = 30.0
"""Of the function's time: for the action under way (two calls of at most 10 s) and the report."""
LEASE_SLACK_SECONDS: Final = 30.0
"""The lease outlives the function, whatever the clocks say."""
_TOLD_FAILURES: Final = 20  # of those that failed, named in the report; all are counted


def lease_name(task: HousekeepingTask) -> str:
    """Return the name of a task's lease.

    Example:
        >>> lease_name(HousekeepingTask.OLD_JOBS)
        'sweep:old_jobs'
    """
    return f"{SWEEP_LEASE_PREFIX}{task.value}"


class _Tally:
    """Counts during a run; also told when the run breaks off."""

    def __init__(self) -> None:
        self.acted = self.failures = 0
        self.failed: list[str] = []
        self.verdicts: Counter[str] = Counter()
        self.selected = self.spared = 0
        self.is_unfinished = False

    def report(self, task: HousekeepingTask, *, error: str = "") -> TaskReport:
        return TaskReport(
            task=task,
            selected=self.selected,
            acted=self.acted,
            spared=self.spared,
            failures=self.failures,
            verdicts=dict(self.verdicts),
            failed=tuple(self.failed),
            is_unfinished=self.is_unfinished,
            error=error,
        )


class TaskRunner:
    """Runs tasks.

    Args:
        leases: The leases table.
        metrics: Where metrics go.
        clock: Returns epoch seconds.
        new_id: Returns a fresh unique id.
    """

    def __init__(
        self,
        *,
        leases: KeepsLeases,
        metrics: CountsMetrics,
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._leases = leases
        self._metrics = metrics
        self._clock = clock
        self._new_id = new_id

    def run(self, task: Task[Any], *, deadline: float) -> TaskReport:
        """Run a task once.

        Args:
            task: The task.
            deadline: Epoch seconds at which the function is cut off.

        Returns:
            What it did. A run is skipped while another one of the same task is under way.

        Raises:
            Exception: What the task's ``select`` raised, or the leases table; the message must come
                back then.
        """
        with bound(task=task.name.value):
            now = self._clock()
            lease = self._leases.acquire(
                lease_name(task.name),
                owner=self._new_id(),
                ends_at=deadline + LEASE_SLACK_SECONDS,
                now=now,
            )
            if lease is None:
                log.info("another run is under way")
                return TaskReport(task=task.name, is_skipped=True)
            run = Run(now=now, deadline=deadline - RESERVED_SECONDS, state=dict(lease.state))
            tally = _Tally()
            try:
                self._sweep(task, run, tally)
            except Exception as error:
                self._end(lease, run, tally.report(task.name, error=str(error) or repr(error)))
                raise
            report = tally.report(task.name)
            self._end(lease, run, report)
            return report

    def _sweep(self, task: Task[Any], run: Run, tally: _Tally) -> None:
        for page in task.select(run):
            for found in page:
                if self._clock() >= run.deadline or tally.acted + tally.failures >= task.limit:
                    tally.is_unfinished = True
                    return
                tally.selected += 1
                self._take(task, found, tally)

    def _take(self, task: Task[Any], found: Any, tally: _Tally) -> None:
        """Judge one thing and act on it; its failure is its own."""
        verdict = spare("not judged")
        try:
            verdict = task.decide(found, now=self._clock())
            if not verdict.is_spared:
                fresh = task.reread(found)
                if fresh is None:
                    verdict = spare("gone meanwhile")
                else:
                    verdict = task.decide(fresh, now=self._clock())
                    if not verdict.is_spared and not task.act(fresh, verdict):
                        verdict = spare("changed meanwhile")
        except Exception as error:  # noqa: BLE001  one that fails must not save all others
            tally.failures += 1
            log.error(
                "not swept",
                extra={"item": task.key(found), "verdict": str(verdict), "error": str(error)},
            )
            if len(tally.failed) < _TOLD_FAILURES:
                tally.failed.append(f"{task.key(found)}: {error}")
            return
        tally.verdicts[str(verdict)] += 1
        if verdict.is_spared:
            tally.spared += 1
        else:
            tally.acted += 1
            log.warning(
                "swept",
                extra={
                    "item": task.key(found),
                    "action": verdict.action,
                    "reason": verdict.reason,
                },
            )

    def _end(self, lease: Lease, run: Run, report: TaskReport) -> None:
        """Give the lease back, then tell."""
        try:
            kept = self._leases.release(
                lease, state=run.state, outcome=report.outcome, now=self._clock()
            )
            if not kept:
                log.error("the lease was lost; what the task remembered is not kept")
        except SweepError as error:
            log.error("lease not released; it ends by itself", extra={"error": str(error)})
        kind = report.task.value
        self._metrics.add(Metric.SWEEP_RUNS)
        has_failed = report.outcome is SweepOutcome.FAILED
        if has_failed:
            self._metrics.add(Metric.SWEEP_RUNS_FAILED)
        if report.acted:
            self._metrics.add(Metric.SWEEP_ACTIONS, report.acted, kind=kind)
        if report.failures:
            self._metrics.add(Metric.SWEEP_FAILURES, report.failures, kind=kind)
        (log.error if has_failed else log.info)(
            "sweep failed" if has_failed else "sweep done",
            extra={
                "outcome": report.outcome.value,
                "selected": report.selected,
                "acted": report.acted,
                "spared": report.spared,
                "failures": report.failures,
                "verdicts": report.verdicts,
                "failed": report.failed,
                "unfinished": report.is_unfinished,
                "error": report.error,
            },
        )
