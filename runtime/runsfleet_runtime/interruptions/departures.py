"""An instance is gone. Almost always its job is done; now and then nobody told what became of it.

The agent reports its end before it terminates its instance, so an event that finds the job's record
open usually overtook the report: it comes back once, after ``GRACE_SECONDS``. A record that is open
still has lost its instance, and GitHub is asked what became of the job:

- queued: it is dispatched again. So is one that never started when GitHub does not answer.
- in progress, on our runner: the instance went in mid-job. The record is closed as interrupted, and
  the job runs again once GitHub has failed it (``reruns``). So is one of which GitHub does not
  answer although its runner had started.
- anything else: the record is closed with what GitHub says.

A plain end of an instance never counts as an interruption: ended instances are a hundred times as
many as interrupted ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

from runsfleet_runtime.contract.messages import ReportStatus, RerunMessage, RunnerReport
from runsfleet_runtime.contract.metrics import Metric
from runsfleet_runtime.github import GitHubError, JobState
from runsfleet_runtime.github.job_runs import JobDetail
from runsfleet_runtime.interruptions.model import STOPPED, ComeBack, Done, InstanceLeft, Taken
from runsfleet_runtime.interruptions.ports import (
    InstanceUnknownError,
    KnowsInstances,
    NotesInterruptions,
    RemovesRunners,
    SendsEvents,
)
from runsfleet_runtime.interruptions.reruns import BROKEN_OFF, RerunsJobs, delay_before
from runsfleet_runtime.jobs.model import Cause, JobRecord, JobStatus, Rerun
from runsfleet_runtime.jobs.ports import ReadsJobs, Redispatched, RedispatchesJobs
from runsfleet_runtime.runners import ForgetsRunners, RunnerStoreError
from runsfleet_runtime.telemetry.log import bound, get_logger
from runsfleet_runtime.telemetry.metrics import CountsMetrics

log = get_logger("events.departures")

GRACE_SECONDS: Final = 90.0
"""Until then the agent's report counts as being on its way: it is sent before the instance ends,
and taken within seconds unless its message had to come back once (60 s)."""
_OPEN: Final = frozenset({JobStatus.LAUNCHED, JobStatus.RUNNING})
_QUESTION_SECONDS: Final = 10.0


class EndsRecords(Protocol):
    """The records of jobs, as the ends of instances close them."""

    def end(
        self,
        reports: Sequence[tuple[RunnerReport, Sequence[Mapping[str, Any]]]],
        *,
        now: float,
    ) -> Sequence[bool | None]:
        """Close jobs; see :class:`~runsfleet_runtime.jobs.ports.EndsJobs`."""


class Fate(StrEnum):
    """What is done with a job whose instance is gone without a word."""

    REDISPATCH = "redispatched"
    RERUN = "rerun"  # closed as interrupted; it runs again once it concluded as failed
    CLOSE = "closed"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A fate, and what is recorded of it.

    Attributes:
        fate: What is done.
        status: How the instance ended; not used when the job is dispatched again.
        ran_job: Whether its runner had been given this job.
        reason: For people.
    """

    fate: Fate
    status: ReportStatus = ReportStatus.INTERRUPTED
    ran_job: bool = False
    reason: str = ""


def judge(record: JobRecord, seen: JobDetail, *, left_at: float) -> Judgement:
    """Say what is to be done about the job of an instance that is gone.

    Args:
        record: Its record, which is open still.
        seen: What GitHub says of the job.
        left_at: Epoch seconds at which the instance was gone.
    """
    is_own = seen.runner_name == record.runner_name != ""
    match seen.state:
        case JobState.QUEUED:
            return Judgement(Fate.REDISPATCH, reason="GitHub has it queued")
        case JobState.UNKNOWN if record.status is JobStatus.LAUNCHED:
            return Judgement(Fate.REDISPATCH, reason="its runner had not started")
        case JobState.UNKNOWN:
            return Judgement(Fate.RERUN, ran_job=True, reason="its runner had started")
        case JobState.IN_PROGRESS if is_own:
            return Judgement(Fate.RERUN, ran_job=True, reason="it was running")
        case JobState.COMPLETED if is_own:
            return _of_ended(seen, came_at=record.interrupted_at or left_at)
    where = f" on {seen.runner_name}" if seen.runner_name else ""
    return Judgement(Fate.CLOSE, reason=f"GitHub says {seen.state.value}{where}")


def _of_ended(seen: JobDetail, *, came_at: float) -> Judgement:
    """Judge a job that ended on the instance that is gone."""
    if seen.conclusion == "success":
        return Judgement(Fate.CLOSE, ReportStatus.SUCCESS, ran_job=True, reason="it succeeded")
    # what had broken off before EC2 came, with or without a warning, had done so by itself; who
    # cancelled a job is asked when its re-run is due
    if seen.conclusion in BROKEN_OFF and seen.completed_at > came_at:
        return Judgement(Fate.RERUN, ran_job=True, reason="it broke off as its instance went")
    reason = f"it ended as {seen.conclusion}"
    return Judgement(Fate.CLOSE, ReportStatus.FAILURE, ran_job=True, reason=reason)


class Departures:
    """The use case of instances that are gone.

    Args:
        records: The jobs table.
        endings: Closes its records.
        notes: Notes on its records.
        instances: EC2.
        runners: The store of configurations.
        registrar: Takes runners away from GitHub.
        github: Asks GitHub for a job's end.
        redispatcher: Dispatches a job again.
        queue: The events queue.
        metrics: Where metrics go.
        clock: Returns epoch seconds.
    """

    def __init__(
        self,
        *,
        records: ReadsJobs,
        endings: EndsRecords,
        notes: NotesInterruptions,
        instances: KnowsInstances,
        runners: ForgetsRunners,
        registrar: RemovesRunners,
        github: RerunsJobs,
        redispatcher: RedispatchesJobs,
        queue: SendsEvents,
        metrics: CountsMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._records = records
        self._endings = endings
        self._notes = notes
        self._instances = instances
        self._runners = runners
        self._registrar = registrar
        self._github = github
        self._redispatcher = redispatcher
        self._queue = queue
        self._metrics = metrics
        self._clock = clock

    def take(self, left: InstanceLeft, *, deadline: float) -> Taken:
        """Act on the end of an instance.

        Args:
            left: The event.
            deadline: Epoch seconds by which GitHub must have answered.

        Raises:
            RecordUnknownError: If the table did not answer; the message must come back.
        """
        record = self._records.of_instance(left.instance_id)
        if record is not None and record.status not in _OPEN:
            return self._after(record)
        wait = left.at + GRACE_SECONDS - self._clock()
        if wait > 0:
            # without a record it is an instance of others, or dispatch is just recording it
            return ComeBack(wait)
        if record is None:
            return Done()
        with bound(job_id=record.job.job_id):
            if left.state == STOPPED and (taken := self._unless_gone(left)) is not None:
                return taken
            return self._settle(record, left, deadline)

    def _after(self, record: JobRecord) -> Taken:
        """End an event of an instance whose report, or an earlier event, was faster."""
        if record.status is JobStatus.QUEUED:
            # handed back; whether its message is out is not known, and sent twice it is one
            result = self._redispatch(record, "its instance handed it back")
            return ComeBack() if result is Redispatched.UNKNOWN else Done()
        return Done()

    def _unless_gone(self, left: InstanceLeft) -> Taken | None:
        """Look again at an instance that was stopped: it may have been started for a job since."""
        try:
            instance = self._instances.find(left.instance_id)
        except InstanceUnknownError as error:
            log.warning("instance unknown", extra={"error": str(error)})
            return ComeBack()
        if instance is not None and instance.state in {"pending", "running"}:
            return Done()
        return None

    def _settle(self, record: JobRecord, left: InstanceLeft, deadline: float) -> Taken:
        until = min(deadline, self._clock() + _QUESTION_SECONDS)
        seen = self._github.job(record.job, deadline=until)
        judgement = judge(record, seen, left_at=left.at)
        if judgement.status is ReportStatus.FAILURE and seen.conclusion in BROKEN_OFF:
            # an event that comes late, as a sweep's does, says nothing of which came first
            was_stopped = self._github.was_stopped(record.job, deadline=until)
            if was_stopped is None:
                return ComeBack()
            if was_stopped:
                judgement = Judgement(Fate.RERUN, ran_job=True, reason="its runner broke it off")
        log.warning(
            "instance gone without a word",
            extra={
                "github": seen.state.value,
                "fate": judgement.fate.value,
                "reason": judgement.reason,
                "interrupted": record.interrupted_at > 0,
            },
        )
        if judgement.fate is Fate.REDISPATCH:
            result = self._redispatch(record, judgement.reason)
            if result is Redispatched.UNKNOWN:
                return ComeBack()
            is_acted = result is not Redispatched.SETTLED
            fate = Fate.REDISPATCH if result is Redispatched.SENT else Fate.CLOSE
        else:
            closed = self._close(record, judgement)
            if closed is None:
                return ComeBack()
            is_acted, fate = closed, judgement.fate
        self._clear(record, until)
        if is_acted:
            self._metrics.add(Metric.INSTANCES_LOST, kind=fate.value)
        return Done()

    def _redispatch(self, record: JobRecord, reason: str) -> Redispatched:
        is_interrupted = record.interrupted_at > 0
        return self._redispatcher.redispatch(
            record,
            Cause.INTERRUPTED if is_interrupted else Cause.INSTANCE_GONE,
            on_demand=is_interrupted,
            reason=reason,
            further=self._runners.transact_delete(record.instance_id),
        )

    def _close(self, record: JobRecord, judgement: Judgement) -> bool | None:
        """Close a record; the message of its re-run, if any, is on its way before.

        Returns whether it was closed by this; None when the event must be looked at again.
        """
        if judgement.fate is Fate.RERUN and record.may_rerun:
            if record.rerun is None and not self._notes.note_rerun(
                record, Rerun.PENDING, reason=judgement.reason, now=self._clock()
            ):
                return None  # it changed meanwhile: look again
            message = RerunMessage(job_id=record.job.job_id)
            if not self._queue.send(message, delay=delay_before(message)):
                return None
        (closed,) = self._endings.end(
            [(_spoken_for(record, judgement), self._runners.transact_delete(record.instance_id))],
            now=self._clock(),
        )
        return closed

    def _clear(self, record: JobRecord, deadline: float) -> None:
        """Remove what the instance has left; sweeps find what remains."""
        try:
            self._runners.delete(record.instance_id)
        except RunnerStoreError as error:
            log.warning("configuration not deleted", extra={"error": str(error)})
        try:
            self._registrar.deregister(
                record.job.repository,
                instance_id=record.instance_id,
                installation_id=record.job.installation_id,
                deadline=deadline,
            )
        except GitHubError as error:
            log.warning("runner not removed", extra={"error": str(error)})


def _spoken_for(record: JobRecord, judgement: Judgement) -> RunnerReport:
    """Return the report that the instance could not send any more."""
    report = RunnerReport(
        instance_id=record.instance_id,
        job_id=record.job.job_id,
        run_id=record.job.run_id,
        dispatch=record.job.dispatch,
        status=judgement.status,
        ran_job=judgement.ran_job,
        error=f"the instance ended without a report; {judgement.reason}",
    )
    return dataclasses.replace(report, ran_run_id=record.job.run_id) if report.ran_job else report
