"""Reports of instances: a job has started, a registration is to be renewed, or an instance ends.

An ending closes the job and deletes the configuration in one transaction. Only when the runner did
not serve the job that it was launched for is GitHub asked whether the job is still queued, and then
the job is dispatched again:

- GitHub binds a runner to labels and not to a job, so another job may have taken the runner, or
  this one's job may have gone to another runner.
- "Unknown" closes the job as usual when its runner listened: GitHub would have given it the job.
  A runner that never did cannot have served anything, and what kept it from registering often keeps
  GitHub from answering too: its job is dispatched again.

A runner that never listened is made up for even when its job runs: on the runner of another job of
the same run then, which GitHub still has queued.

A report is acted on only when its instance and dispatch number are those of the record, so that a
late report of a former owner changes nothing. All of it may happen twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

from runsfleet_runtime.contract.messages import JobMessage, ReportStatus, RunnerReport
from runsfleet_runtime.contract.metrics import Metric
from runsfleet_runtime.contract.runner_versions import Outdated, outdated
from runsfleet_runtime.github import JobState, KnowsJobStates
from runsfleet_runtime.jobs.backoff import retry_delay
from runsfleet_runtime.jobs.ports import EndsJobs, RecordUnknownError, SendsJobs
from runsfleet_runtime.runners import RunnerStoreError
from runsfleet_runtime.telemetry.log import bound, get_logger
from runsfleet_runtime.telemetry.metrics import CountsMetrics

log = get_logger("termination")

MAX_REQUEUES: Final = 5
"""A job whose instances keep ending without serving it is given up after so many; each try costs an
instance's boot."""
_QUESTION_SECONDS: Final = 10.0  # one job's question must not use up the time of all others
_SIBLINGS: Final = 10  # jobs of a run that are looked at; each costs a read
_TAKEN: Final = frozenset({JobState.IN_PROGRESS, JobState.COMPLETED})
_NEVER_LISTENED: Final = frozenset({ReportStatus.BOOTSTRAP_FAILED, ReportStatus.INTERRUPTED})


class ForgetsRunners(Protocol):
    """The store of runner configurations, as endings need it."""

    def transact_delete(self, instance_id: str) -> Sequence[Mapping[str, Any]]:
        """Return the writes that delete a configuration; none if the store has no transactions."""

    def delete(self, instance_id: str) -> None:
        """Delete a configuration and everything that belongs to it; may be repeated.

        Raises:
            RunnerStoreError: If that is not certain.
        """


class RenewsRunners(Protocol):
    """Gives a runner another registration; see :mod:`.renewals`."""

    def renew(self, report: RunnerReport, *, deadline: float) -> bool:
        """Do so if it may; whether the message is done with."""


class Reports:
    """The use case of the termination function.

    Args:
        records: The jobs table.
        runners: The configuration store.
        renewals: Gives runners another registration.
        queue: The jobs queue.
        job_states: Asks GitHub for a job's state.
        metrics: Where metrics go.
        clock: Returns epoch seconds.
        jitter: Returns a random number in [0, 1).
    """

    def __init__(
        self,
        *,
        records: EndsJobs,
        runners: ForgetsRunners,
        renewals: RenewsRunners,
        queue: SendsJobs,
        job_states: KnowsJobStates,
        metrics: CountsMetrics,
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._records = records
        self._runners = runners
        self._renewals = renewals
        self._queue = queue
        self._job_states = job_states
        self._metrics = metrics
        self._clock = clock
        self._jitter = jitter

    def take(self, reports: Sequence[RunnerReport], *, deadline: float) -> list[RunnerReport]:
        """Act on reports.

        Args:
            reports: What instances reported.
            deadline: Epoch seconds by which GitHub must have answered.

        Returns:
            The reports that could not be taken and must come again.
        """
        again = self._start(_once([r for r in reports if r.status is ReportStatus.STARTED]))
        for report in _once([r for r in reports if r.status is ReportStatus.RENEWAL]):
            with _bound(report):
                if not self._renewals.renew(report, deadline=deadline):
                    again.append(report)
        closing: list[RunnerReport] = []
        for report in _once([r for r in reports if r.status.is_ending]):
            with _bound(report):
                try:
                    if not self._is_requeued(report, deadline):
                        closing.append(report)
                except RecordUnknownError as error:
                    log.error("report not taken", extra={"error": str(error)})
                    again.append(report)
        return again + self._close(closing)

    def _start(self, reports: Sequence[RunnerReport]) -> list[RunnerReport]:
        again = []
        results = self._records.start(reports, now=self._clock())
        for report, started in zip(reports, results, strict=True):
            with _bound(report):
                if started is None:
                    again.append(report)
                elif started:
                    self._metrics.add(Metric.JOBS_STARTED)
                    log.info("started", extra={"timings": report.timings})
                else:
                    self._count_refused(report)
        return again

    def _is_requeued(self, report: RunnerReport, deadline: float) -> bool:
        """Hand the job back if GitHub still has it queued although its runner ended."""
        if report.has_served or not report.job_id:
            return False
        job = self._records.read(report.job_id)
        if job is None:
            return False
        if job.requeues >= MAX_REQUEUES:
            log.error("job given up", extra={"requeues": job.requeues})
            return False
        state = self._job_states.status(
            job.repository,
            job.job_id,
            job.installation_id,
            deadline=min(deadline, self._clock() + _QUESTION_SECONDS),
        )
        log.info("runner ended without its job", extra={"github": state.value})
        is_in_doubt = state is JobState.UNKNOWN and (
            report.status in _NEVER_LISTENED and not report.ran_job
        )
        if state in _TAKEN and report.status in _NEVER_LISTENED and not report.ran_job:
            self._replace_runner(job, deadline)
        return (state is JobState.QUEUED or is_in_doubt) and self._requeue(report, job)

    def _replace_runner(self, job: JobMessage, deadline: float) -> None:
        """Make up for a lost runner whose job took the runner of another job of the same run.

        That other job has no runner any more, and none of the reports to come would tell: its
        runner did serve a job of its run.
        """
        now = self._clock()
        deadline = min(deadline, now + _QUESTION_SECONDS)
        waiting = self._job_states.queued_in_run(job, deadline=deadline)[:_SIBLINGS]
        # first those whose runner is known to serve another; a mere launch may still be for them
        for is_launched, job_id in itertools.product((False, True), waiting):
            delay = retry_delay(1, jitter=self._jitter())
            message = self._records.rescue(
                job_id, is_launched=is_launched, not_before=now + delay, now=now
            )
            if message is not None:
                (sent,) = self._queue.send([message])
                if not sent:
                    raise RecordUnknownError("the jobs queue did not take the job")
                self._metrics.add(Metric.JOBS_REQUEUED)
                log.warning("runner replaced", extra={"waiting_job_id": job_id})
                return

    def _requeue(self, report: RunnerReport, job: JobMessage) -> bool:
        now = self._clock()
        deletes = self._runners.transact_delete(report.instance_id)
        message = self._records.requeue(
            report,
            deletes,
            not_before=now + retry_delay(job.requeues + 1, jitter=self._jitter()),
            now=now,
        )
        if message is None:  # the record is another's by now: the report changes nothing
            return False
        (sent,) = self._queue.send([message])
        if not sent:
            raise RecordUnknownError("the jobs queue did not take the job")
        if not deletes:
            self._is_forgotten(report)
        self._metrics.add(Metric.JOBS_REQUEUED)
        log.warning(
            "dispatched again",
            extra={"status": report.status.value, "requeues": message.requeues},
        )
        return True

    def _close(self, reports: Sequence[RunnerReport]) -> list[RunnerReport]:
        again: list[RunnerReport] = []
        endings = []
        for report in reports:
            if report.job_id:
                endings.append((report, self._runners.transact_delete(report.instance_id)))
            else:  # the instance never learned of a job
                self._count(report)
        results = self._records.end(endings, now=self._clock())
        for (report, deletes), closed in zip(endings, results, strict=True):
            with _bound(report):
                if closed is None:
                    again.append(report)
                    continue
                if closed:
                    self._count(report)
                else:  # a duplicate or a former owner: only what is the instance's own goes
                    self._count_refused(report)
                if not (closed and deletes) and not self._is_forgotten(report):
                    again.append(report)
        return again

    def _is_forgotten(self, report: RunnerReport) -> bool:
        """Delete the configuration where that was no part of a transaction."""
        try:
            self._runners.delete(report.instance_id)
        except RunnerStoreError as error:
            log.error("configuration not deleted", extra={"error": str(error)})
            return False
        return True

    def _count(self, report: RunnerReport) -> None:
        self._metrics.add(Metric.JOBS_COMPLETED, kind=report.status.value)
        if report.duration_seconds is not None:
            self._metrics.add(Metric.JOB_DURATION, report.duration_seconds)
        self._judge_runner(report)
        failed = report.status in {ReportStatus.TIMEOUT, ReportStatus.BOOTSTRAP_FAILED}
        (log.error if failed else log.info)(
            "ended",
            extra={
                "status": report.status.value,
                "exit_code": report.exit_code,
                "duration_seconds": report.duration_seconds,
                "error": report.error,
            },
        )

    def _judge_runner(self, report: RunnerReport) -> None:
        """Tell of a runner that GitHub refuses or soon will; the image's, if that is older."""
        found = [
            reason
            for version in (report.runner_version, report.baked_version)
            if (reason := outdated(version, offered=report.offered_version)) is not None
        ]
        if found:
            reason = Outdated.BELOW_FLOOR if Outdated.BELOW_FLOOR in found else found[0]
            self._metrics.add(Metric.RUNNERS_OUTDATED, kind=reason.value)
            log.warning(
                "runner outdated",
                extra={
                    "reason": reason.value,
                    "used": report.runner_version,
                    "image": report.baked_version,
                    "offered": report.offered_version,
                },
            )

    def _count_refused(self, report: RunnerReport) -> None:
        self._metrics.add(Metric.REPORTS_REFUSED)
        log.info("report changes nothing", extra={"status": report.status.value})


def _bound(report: RunnerReport) -> AbstractContextManager[None]:
    return bound(job_id=report.job_id, instance_id=report.instance_id, dispatch=report.dispatch)


def _once(reports: Sequence[RunnerReport]) -> list[RunnerReport]:
    """Keep one report of each job and instance: a batch may hold duplicates."""
    return list({(r.job_id, r.instance_id, r.dispatch): r for r in reports}.values())
