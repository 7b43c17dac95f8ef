"""Reports of instances: a job has started, a registration is to be renewed, or an instance ends.

An ending closes the job and deletes the configuration in one transaction. Only when the runner did
not serve the job that it was launched for is GitHub asked whether the job is still queued, and then
the job is dispatched again (:mod:`runsfleet_runtime.jobs.redispatch`):

- GitHub binds a runner to labels and not to a job, so another job may have taken the runner, or
  this one's job may have gone to another runner.
- "Unknown" closes the job as usual when its runner listened: GitHub would have given it the job.
  A runner that never did cannot have served anything, and what kept it from registering often keeps
  GitHub from answering too: its job is dispatched again.

A runner that never listened is made up for even when its job runs: on the runner of another job of
the same run then, which GitHub still has queued.

A job that had started when its instance was interrupted cannot be dispatched again: it fails at
GitHub. Its record is closed with its re-run pending, and the events function sees to that.

A report is acted on only when its instance and dispatch number are those of the record, so that a
late report of a former owner changes nothing. All of it may happen twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

from runsfleet_runtime.contract.messages import JobMessage, ReportStatus, RerunMessage, RunnerReport
from runsfleet_runtime.contract.metrics import Metric
from runsfleet_runtime.contract.runner_versions import Outdated, outdated
from runsfleet_runtime.github import JobState, KnowsJobStates
from runsfleet_runtime.jobs.model import Cause, JobRecord, JobStatus, Rerun
from runsfleet_runtime.jobs.ports import (
    EndsJobs,
    Moved,
    ReadsJobs,
    RecordUnknownError,
    Redispatched,
    RedispatchesJobs,
)
from runsfleet_runtime.runners import ForgetsRunners, RunnerStoreError
from runsfleet_runtime.telemetry.log import bound, get_logger
from runsfleet_runtime.telemetry.metrics import CountsMetrics
from runsfleet_runtime.telemetry.traces import trace_id_of

log = get_logger("termination")

_QUESTION_SECONDS: Final = 10.0  # one job's question must not use up the time of all others
_SIBLINGS: Final = 10  # jobs of a run that are looked at; each costs a read
_RERUN_SECONDS: Final = 60.0  # GitHub notices the loss of a runner and fails its job
_OPEN: Final = frozenset({JobStatus.LAUNCHED, JobStatus.RUNNING})
_SERVED: Final = frozenset({JobStatus.RUNNING, JobStatus.COMPLETED})
_TAKEN: Final = frozenset({JobState.IN_PROGRESS, JobState.COMPLETED})
_NEVER_LISTENED: Final = frozenset({ReportStatus.BOOTSTRAP_FAILED, ReportStatus.INTERRUPTED})


class RenewsRunners(Protocol):
    """Gives a runner another registration; see :mod:`.renewals`."""

    def renew(self, report: RunnerReport, *, deadline: float) -> bool:
        """Do so if it may; whether the message is done with."""


class SendsReruns(Protocol):
    """The events queue."""

    def send(self, message: RerunMessage, *, delay: float = 0) -> bool:
        """Send a message that appears after ``delay`` seconds; whether it is certain to be sent."""


class Reports:
    """The use case of the termination function.

    Args:
        records: The jobs table, as endings move its records.
        reader: The jobs table, as it is read.
        runners: The configuration store.
        renewals: Gives runners another registration.
        redispatcher: Dispatches a job again.
        events: The events queue.
        job_states: Asks GitHub for a job's state.
        metrics: Where metrics go.
        clock: Returns epoch seconds.
    """

    def __init__(
        self,
        *,
        records: EndsJobs,
        reader: ReadsJobs,
        runners: ForgetsRunners,
        renewals: RenewsRunners,
        redispatcher: RedispatchesJobs,
        events: SendsReruns,
        job_states: KnowsJobStates,
        metrics: CountsMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._records = records
        self._reader = reader
        self._runners = runners
        self._renewals = renewals
        self._redispatcher = redispatcher
        self._events = events
        self._job_states = job_states
        self._metrics = metrics
        self._clock = clock

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
                    if not self._is_taken(report, deadline):
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
                if started is Moved.UNKNOWN:
                    again.append(report)
                elif started in {Moved.DONE, Moved.OVERTAKEN}:
                    self._metrics.add(Metric.JOBS_STARTED)
                    log.info("started", extra={"timings": report.timings})
                elif started is Moved.KNOWN:
                    log.info("started; known already")
                else:
                    self._count_refused(report)
        return again

    def _is_taken(self, report: RunnerReport, deadline: float) -> bool:
        """Act on an ending that asks for more than closing the record; False when it does not.

        Raises:
            RecordUnknownError: If the report must come again.
        """
        is_interrupted = report.status is ReportStatus.INTERRUPTED
        if not report.job_id or (report.has_served and not is_interrupted):
            return False
        record = self._reader.get(report.job_id)
        if record is None or not _is_owned(record, report):
            return False
        if report.has_served:
            return self._is_to_be_rerun(record, report)
        if record.status is JobStatus.QUEUED:
            # handed back, by an earlier try or by an event; whether its message is out is not
            # known, and sent twice it is one
            return self._is_dispatched_again(record, report)
        if record.status not in _OPEN:
            return False
        state = self._job_states.status(
            record.job.repository,
            record.job.job_id,
            record.job.installation_id,
            deadline=min(deadline, self._clock() + _QUESTION_SECONDS),
        )
        log.info("runner ended without its job", extra={"github": state.value})
        has_never_listened = report.status in _NEVER_LISTENED and not report.ran_job
        if state in _TAKEN and has_never_listened:
            self._replace_runner(record.job, deadline)
        is_in_doubt = state is JobState.UNKNOWN and has_never_listened
        return (state is JobState.QUEUED or is_in_doubt) and self._is_dispatched_again(
            record, report
        )

    def _is_to_be_rerun(self, record: JobRecord, report: RunnerReport) -> bool:
        """Close an interrupted job that had started, and let the events function see to it."""
        if not record.may_rerun:
            log.info("not run again: its label says retry=false")
            return False
        deletes = self._runners.transact_delete(report.instance_id)
        if record.status in _OPEN:
            closed = self._records.end_interrupted(report, deletes, now=self._clock())
            if closed is None:
                raise RecordUnknownError(f"job {report.job_id}: its record could not be closed")
            if not closed:
                return False
            self._count(report)
        elif record.rerun is not Rerun.PENDING:
            return False
        if not deletes and not self._is_forgotten(report):
            raise RecordUnknownError(f"{report.instance_id}: its configuration is there still")
        rerun = RerunMessage(job_id=report.job_id, traceparent=report.traceparent)
        if not self._events.send(rerun, delay=_RERUN_SECONDS):
            raise RecordUnknownError("the events queue did not take the re-run")
        return True

    def _is_dispatched_again(self, record: JobRecord, report: RunnerReport) -> bool:
        """Dispatch the job again; False when it is another's by now: the report changes nothing."""
        is_interrupted = report.status is ReportStatus.INTERRUPTED or record.interrupted_at > 0
        cause = Cause.STILL_QUEUED
        if is_interrupted:
            cause = Cause.INTERRUPTED
        elif report.status is ReportStatus.BOOTSTRAP_FAILED:
            cause = Cause.BOOTSTRAP_FAILED
        deletes = self._runners.transact_delete(report.instance_id)
        result = self._redispatcher.redispatch(
            record,
            cause,
            on_demand=is_interrupted,
            reason=f"{report.status.value}: {report.error}" if report.error else report.status,
            further=deletes,
        )
        if result is Redispatched.UNKNOWN:
            raise RecordUnknownError(f"job {report.job_id}: not dispatched again for certain")
        if result is Redispatched.SETTLED:
            return False
        if result is Redispatched.EXHAUSTED:
            self._count(report)
        if not deletes:
            self._is_forgotten(report)
        return True

    def _replace_runner(self, job: JobMessage, deadline: float) -> None:
        """Make up for a lost runner whose job took the runner of another job of the same run.

        That other job has no runner any more, and none of the reports to come would tell: its
        runner did serve a job of its run.
        """
        deadline = min(deadline, self._clock() + _QUESTION_SECONDS)
        waiting = self._job_states.queued_in_run(job, deadline=deadline)[:_SIBLINGS]
        records = [r for r in map(self._reader.get, waiting) if r is not None]
        # first those whose runner is known to serve another; a mere launch may still be for them
        served = [r for r in records if r.status in _SERVED or _is_handed_back(r)]
        for record in served + [r for r in records if r.status is JobStatus.LAUNCHED]:
            result = self._redispatcher.redispatch(
                record, Cause.STILL_QUEUED, reason=f"its runner has job {job.job_id}"
            )
            if result is Redispatched.UNKNOWN:
                raise RecordUnknownError("the lost runner is not replaced for certain")
            if result is Redispatched.SENT:
                log.warning("runner replaced", extra={"waiting_job_id": record.job.job_id})
                return

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
    return bound(
        job_id=report.job_id,
        instance_id=report.instance_id,
        dispatch=report.dispatch,
        **trace_id_of(report.traceparent),
    )


def _is_owned(record: JobRecord, report: RunnerReport) -> bool:
    """Tell whether a record is the reporting instance's, or was until it was handed back."""
    is_instance = record.instance_id == report.instance_id
    if record.status is JobStatus.QUEUED:
        return is_instance and record.job.dispatch > report.dispatch
    return is_instance and record.job.dispatch == report.dispatch


def _is_handed_back(record: JobRecord) -> bool:
    """Tell whether a job was dispatched again and nobody claimed it yet."""
    return record.status is JobStatus.QUEUED and record.instance_id != ""


def _once(reports: Sequence[RunnerReport]) -> list[RunnerReport]:
    """Keep one report of each job and instance: a batch may hold duplicates."""
    return list({(r.job_id, r.instance_id, r.dispatch): r for r in reports}.values())
