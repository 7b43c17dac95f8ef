"""Interrupted jobs that had started run again at GitHub: that job alone, and once.

GitHub does not queue a job again whose runner went away: it fails it, after minutes, and re-runs it
only when its whole run has completed. So the end of the run is awaited, by a message that is sent
again with a growing delay, and by GitHub's own word that the job ended (``endings``).

Exactly one re-run, whatever crashes::

    pending ──write──> requested ──POST──> done
                           │ └─ refused ─> given_up
                           └─ found again: GitHub is asked whether the job runs anew already

GitHub itself refuses a second request while the run goes on, so the only gap is a request whose
effect does not show yet; ``SETTLING_SECONDS`` bridges it.

A runner takes any job of its labels, so the instance that went may have been launched for another
job than the one that it broke off. GitHub names the runner when the job ends (``adopt``).

Never re-run: a job that succeeded or that somebody cancelled, one that is a re-run itself, and one
whose instance reported an end of its own. A job that its runner broke off when it was told to stop
is at times "cancelled" at GitHub, too; what the runner noted at the job tells it apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Protocol

from runsfleet_runtime.contract.messages import (
    JobEndedMessage,
    JobMessage,
    ReportStatus,
    RerunMessage,
)
from runsfleet_runtime.contract.metrics import Metric
from runsfleet_runtime.contract.tags import RUNNER_NAME_PREFIX
from runsfleet_runtime.github.job_runs import JobDetail, RerunAnswer, RunDetail
from runsfleet_runtime.github.model import JobState
from runsfleet_runtime.interruptions.model import ComeBack, Done, Taken
from runsfleet_runtime.interruptions.ports import NotesInterruptions, SendsEvents
from runsfleet_runtime.jobs.model import Cause, JobRecord, JobStatus, Rerun
from runsfleet_runtime.jobs.ports import ReadsJobs, Redispatched, RedispatchesJobs
from runsfleet_runtime.telemetry.log import bound, get_logger
from runsfleet_runtime.telemetry.metrics import CountsMetrics
from runsfleet_runtime.telemetry.traces import OFF, SpanKind, TracesWork

log = get_logger("events.reruns")

DEADLINE_SECONDS: Final = 24 * 3600.0
"""A re-run that could not be asked for within a day of the interruption is given up: whoever waits
for the job has long been looking at a red run."""
SETTLING_SECONDS: Final = 60.0
"""A request that GitHub took shows in what it says of the run after so long at the latest."""
SOON_SECONDS: Final = 15.0  # an instance that stops its runner at a warning reports by then
FIRST_DELAY: Final = 60.0
LONGEST_DELAY: Final = 900.0  # SQS quota; keeps a day of waiting below a hundred questions
BROKEN_OFF: Final = frozenset({"failure", "cancelled"})
"""What GitHub calls the end of a job whose runner went."""
_ANNOUNCED_SECONDS: Final = 400.0  # above the five minutes between two looks at GitHub's log
_LOOK_AGAIN_SECONDS: Final = 90.0  # until then an instance's report, or its end, was taken
_AWAITED: Final = frozenset({Rerun.PENDING, Rerun.REQUESTED})
_OPEN: Final = frozenset({JobStatus.LAUNCHED, JobStatus.RUNNING})
_QUESTION_SECONDS: Final = 10.0


class RerunsJobs(Protocol):
    """GitHub, as re-runs need it; see :class:`~runsfleet_runtime.github.job_runs.JobRuns`."""

    def job(self, job: JobMessage, *, deadline: float | None = None) -> JobDetail:
        """Return what GitHub knows of a job."""

    def run(self, job: JobMessage, *, deadline: float | None = None) -> RunDetail:
        """Return what GitHub knows of a job's run."""

    def was_rerun(
        self, job: JobMessage, *, ended_at: float, deadline: float | None = None
    ) -> bool | None:
        """Tell whether a job was run again in a later attempt of its run."""

    def was_stopped(self, job: JobMessage, *, deadline: float | None = None) -> bool | None:
        """Tell whether a job was broken off by its runner, which was told to stop."""

    def rerun(self, job: JobMessage, *, deadline: float | None = None) -> RerunAnswer:
        """Run a job again."""


class Step(StrEnum):
    """What is to be done about the re-run of a job."""

    WAIT = "wait"
    ASK = "ask"  # GitHub for the re-run
    REDISPATCH = "redispatch"  # it never started: GitHub has it queued
    DONE = "done"  # it runs again already
    NOT_NEEDED = "not_needed"
    GIVE_UP = "give_up"
    DROP = "drop"  # nothing of it is left to decide


@dataclass(frozen=True, slots=True)
class Verdict:
    """A step and its reason, for people."""

    step: Step
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What GitHub said; ``None`` for what was not asked, or has no answer.

    Attributes:
        job: The job.
        run: Its run.
        was_rerun: Whether a later attempt of the run ran it again.
        was_stopped: Whether its runner broke it off; asked of a cancelled job only.
    """

    job: JobDetail
    run: RunDetail | None = None
    was_rerun: bool | None = None
    was_stopped: bool | None = None


def judge(record: JobRecord, seen: Seen, *, now: float) -> Verdict:
    """Say what is to be done about the re-run of an interrupted job.

    Args:
        record: Its record.
        seen: What GitHub said.
        now: Epoch seconds.

    Example:
        >>> job = JobMessage(
        ...     job_id=1, run_id=7, run_attempt=1, repository="o/r", labels=("l",), queued_at=0
        ... )
        >>> record = JobRecord(
        ...     job=job, status=JobStatus.COMPLETED, outcome="interrupted", rerun=Rerun.PENDING
        ... )
        >>> judge(
        ...     record, Seen(job=JobDetail(state=JobState.COMPLETED, conclusion="success")), now=9
        ... )
        Verdict(step=<Step.NOT_NEEDED: 'not_needed'>, reason='it ended as success')
    """
    if record.rerun not in _AWAITED:
        return Verdict(Step.DROP, "no re-run is awaited")
    if record.status not in {*_OPEN, JobStatus.COMPLETED}:
        return Verdict(Step.DROP, f"it is {record.status.value} again")
    # while GitHub is silent, whose instance had the job is unknown
    is_own = seen.job.state is not JobState.UNKNOWN and seen.job.runner_name in {
        "",
        record.runner_name,
    }
    is_closed = record.status is JobStatus.COMPLETED
    if is_closed and is_own and record.outcome != ReportStatus.INTERRUPTED:
        return Verdict(Step.NOT_NEEDED, f"its instance reported {record.outcome}")
    if not record.may_rerun:
        return Verdict(Step.NOT_NEEDED, "its label says retry=false")
    if record.job.run_attempt > 1:
        return Verdict(Step.NOT_NEEDED, "it was a re-run itself")
    verdict = _of_github(record, seen, now)
    since = max(record.interrupted_at, record.completed_at) or record.updated_at
    if verdict.step in {Step.WAIT, Step.ASK} and now > since + DEADLINE_SECONDS:
        return Verdict(Step.GIVE_UP, f"it is too late: {verdict.reason or 'a day has passed'}")
    if record.status in _OPEN and verdict.step in {Step.ASK, Step.REDISPATCH}:
        return Verdict(Step.WAIT, "its record is not closed yet")
    return verdict


def _of_github(record: JobRecord, seen: Seen, now: float) -> Verdict:
    match seen.job.state:
        case JobState.GONE:
            return Verdict(Step.NOT_NEEDED, "GitHub does not have it any more")
        case JobState.QUEUED:
            return Verdict(Step.REDISPATCH, "it had not started")
        case JobState.COMPLETED if seen.job.conclusion == "cancelled" and seen.was_stopped is None:
            return Verdict(Step.WAIT, "GitHub does not say who cancelled it")
        case JobState.COMPLETED if seen.job.conclusion != "failure" and not seen.was_stopped:
            return Verdict(Step.NOT_NEEDED, f"it ended as {seen.job.conclusion or 'nothing'}")
        case JobState.COMPLETED if seen.was_rerun:
            return Verdict(Step.DONE, "it runs again")
        case JobState.COMPLETED:
            return _of_failed(record, seen, now)
    return Verdict(Step.WAIT, f"GitHub says {seen.job.state.value} of it")


def _of_failed(record: JobRecord, seen: Seen, now: float) -> Verdict:
    run = seen.run
    if run is None or run.state is JobState.UNKNOWN:
        return Verdict(Step.WAIT, "GitHub says unknown of its run")
    if run.state is JobState.GONE:
        return Verdict(Step.NOT_NEEDED, "GitHub does not have its run any more")
    if run.attempt > record.job.run_attempt and seen.was_rerun is None:
        return Verdict(Step.WAIT, "GitHub does not say which jobs run again")
    if run.state is not JobState.COMPLETED:
        return Verdict(Step.WAIT, "its run goes on")
    if record.rerun is Rerun.REQUESTED and now < record.updated_at + SETTLING_SECONDS:
        return Verdict(Step.WAIT, "it was just asked for")
    return Verdict(Step.ASK)


class Settled(StrEnum):
    """What became of the re-run of a job."""

    SETTLED = "settled"  # nothing more is to be done
    WAITING = "waiting"  # it must be looked at again


class Reruns:
    """The use case of re-runs, for the events function and the sweep alike.

    Args:
        records: The jobs table.
        notes: Notes on its records.
        github: GitHub.
        redispatcher: Dispatches a job again that turns out not to have started.
        queue: The events queue.
        metrics: Where metrics go; ``None`` for a caller that counts by itself.
        clock: Returns epoch seconds.
        traces: Where spans go; by default nowhere.

    Example:
        >>> for record in candidates:  # doctest: +SKIP
        ...     reruns.settle(record, deadline=deadline)
    """

    def __init__(
        self,
        *,
        records: ReadsJobs,
        notes: NotesInterruptions,
        github: RerunsJobs,
        redispatcher: RedispatchesJobs,
        queue: SendsEvents,
        metrics: CountsMetrics | None,
        clock: Callable[[], float],
        traces: TracesWork = OFF,
    ) -> None:
        self._records = records
        self._notes = notes
        self._github = github
        self._redispatcher = redispatcher
        self._queue = queue
        self._metrics = metrics
        self._clock = clock
        self._traces = traces

    def take(self, message: RerunMessage, *, deadline: float) -> Taken:
        """Look at a job once more; while it has to wait, the message is sent again, later.

        Args:
            message: Names the job.
            deadline: Epoch seconds by which GitHub must have answered.

        Raises:
            RecordUnknownError: If the table did not answer; the message must come back.
        """
        record = self._records.get(message.job_id)
        if record is None:
            return Done()
        with (
            bound(job_id=message.job_id),
            self._traces.span(
                "rerun",
                message.traceparent or record.job.traceparent,
                kind=SpanKind.CONSUMER,
                job_id=message.job_id,
                tries=message.tries,
            ),
        ):
            if self.settle(record, deadline=deadline) is Settled.SETTLED:
                return Done()
            again = replace(message, tries=message.tries + 1)
            is_sent = self._queue.send(again, delay=delay_before(again))
            return Done() if is_sent else ComeBack()

    def look_soon(self, job_id: int) -> Taken:
        """Have a job looked at whose instance is about to report that it was interrupted.

        Its own message has a longer way: GitHub needs minutes for a job whose runner only vanished.
        """
        is_sent = self._queue.send(RerunMessage(job_id=job_id), delay=SOON_SECONDS)
        return Done() if is_sent else ComeBack()

    def adopt(self, record: JobRecord | None, ended: JobEndedMessage, *, deadline: float) -> Taken:
        """Look at a job that ended on an instance that was launched for another job.

        Args:
            record: The record of the job that ended; ``None`` when the fleet has not heard of the
                job, as its announcement was lost.
            ended: What GitHub said of its end.
            deadline: Epoch seconds by which GitHub must have answered.

        Raises:
            RecordUnknownError: If the table did not answer; the message must come back.
        """
        is_ours = ended.runner_name.startswith(RUNNER_NAME_PREFIX)
        if not is_ours or ended.conclusion not in BROKEN_OFF or ended.run_attempt > 1:
            return Done()
        instance_id = ended.runner_name.removeprefix(RUNNER_NAME_PREFIX)
        former = self._records.of_instance(instance_id)
        was_hit = former is not None and _was_interrupted(former)
        # dispatched again since, or closed by GitHub's word: no record tells of that instance
        is_untold = former is None or former.outcome not in set(ReportStatus)
        if former is not None and not was_hit and former.status in _OPEN:
            return self._look_again(ended)
        # a job and an instance that are both unknown are another fleet's
        if not (was_hit or is_untold) or (former is None and record is None):
            return Done()
        if record is None:  # its announcement is delivered again within minutes
            return ComeBack(_ANNOUNCED_SECONDS)
        if record.status in {JobStatus.QUEUED, JobStatus.CLAIMED}:
            # its launch comes first, which may serve the job whose runner it took
            return self._look_again(ended)
        was_stopped = self._github.was_stopped(
            record.job, deadline=min(deadline, self._clock() + _QUESTION_SECONDS)
        )
        # without a record's word, or of a cancelled job, only GitHub's counts
        if not was_stopped and (not was_hit or ended.conclusion != "failure"):
            return ComeBack() if was_stopped is None else Done()
        reason = f"{instance_id}, which was launched for another job, was interrupted"
        if not self._notes.note_rerun(record, Rerun.PENDING, reason=reason, now=self._clock()):
            return ComeBack()  # it changed meanwhile: look again
        log.warning("broken off by another job's instance", extra={"instance_id": instance_id})
        return self.take(RerunMessage(job_id=ended.job_id), deadline=deadline)

    def _look_again(self, ended: JobEndedMessage) -> Taken:
        """Have an end looked at later, by another message: the receives of one are few.

        A record is not open, queued or claimed for longer than a day, so this has an end.
        """
        is_sent = self._queue.send(ended, delay=_LOOK_AGAIN_SECONDS)
        return Done() if is_sent else ComeBack()

    def settle(self, record: JobRecord, *, deadline: float) -> Settled:
        """Do what can be done now about the re-run of a job.

        May be repeated, and by several at a time: what is written names what was observed.

        Args:
            record: The record as it was read.
            deadline: Epoch seconds by which GitHub must have answered.

        Raises:
            RecordUnknownError: If the table did not answer.
        """
        if record.rerun not in _AWAITED:
            return Settled.SETTLED
        until = min(deadline, self._clock() + _QUESTION_SECONDS)
        verdict = judge(record, self._look(record, until), now=self._clock())
        match verdict.step:
            case Step.WAIT:
                log.info("re-run waits", extra={"reason": verdict.reason})
                return Settled.WAITING
            case Step.DROP:
                return Settled.SETTLED
            case Step.REDISPATCH:
                return self._redispatch(record)
            case Step.ASK:
                return self._ask(record, deadline)
            case Step.DONE:
                # by our own request, whose answer was lost, or by somebody who was faster
                is_ours = record.rerun is Rerun.REQUESTED
                kind = "done" if is_ours else "not_needed"
                return self._close(record, Rerun.DONE, verdict.reason, kind)
            case Step.NOT_NEEDED:
                return self._close(record, Rerun.GIVEN_UP, verdict.reason, "not_needed")
            case Step.GIVE_UP:
                return self._close(record, Rerun.GIVEN_UP, verdict.reason, "given_up")

    def _look(self, record: JobRecord, deadline: float) -> Seen:
        """Ask GitHub no more than the verdict needs."""
        job = self._github.job(record.job, deadline=deadline)
        was_stopped: bool | None = None
        if job.conclusion == "cancelled":
            was_stopped = self._github.was_stopped(record.job, deadline=deadline)
        if job.conclusion != "failure" and not was_stopped:
            return Seen(job=job, was_stopped=was_stopped)
        run = self._github.run(record.job, deadline=deadline)
        if run.attempt <= record.job.run_attempt:
            return Seen(job=job, run=run, was_stopped=was_stopped)
        was_rerun = self._github.was_rerun(record.job, ended_at=job.completed_at, deadline=deadline)
        return Seen(job=job, run=run, was_rerun=was_rerun, was_stopped=was_stopped)

    def _ask(self, record: JobRecord, deadline: float) -> Settled:
        now = self._clock()
        reason = "its instance was interrupted"
        if not self._notes.note_rerun(record, Rerun.REQUESTED, reason=reason, now=now):
            return Settled.WAITING  # somebody else is at it, and may not come through
        requested = _with(record, Rerun.REQUESTED)
        answer = self._github.rerun(record.job, deadline=min(deadline, now + _QUESTION_SECONDS))
        match answer:
            case RerunAnswer.ACCEPTED:
                return self._close(requested, Rerun.DONE, reason, "done")
            case RerunAnswer.UNKNOWN | RerunAnswer.RUNNING:
                log.info("re-run waits", extra={"reason": f"GitHub answered {answer.value}"})
                return Settled.WAITING
            case RerunAnswer.NOT_PERMITTED:
                reason = "the App lacks the permission actions: write; grant it to re-run jobs"
            case RerunAnswer.GONE:
                reason = "GitHub does not have it any more"
            case RerunAnswer.REFUSED:
                reason = "GitHub refused; its answer is in the log"
        return self._close(requested, Rerun.GIVEN_UP, reason, "given_up")

    def _redispatch(self, record: JobRecord) -> Settled:
        result = self._redispatcher.redispatch(
            record, Cause.INTERRUPTED, on_demand=True, reason="interrupted before it had started"
        )
        log.info("re-run not needed", extra={"reason": "queued again", "result": result.value})
        return Settled.WAITING if result is Redispatched.UNKNOWN else Settled.SETTLED

    def _close(self, record: JobRecord, state: Rerun, reason: str, kind: str) -> Settled:
        if not self._notes.note_rerun(record, state, reason=reason, now=self._clock()):
            return Settled.WAITING  # it changed meanwhile: look again
        if self._metrics is not None:
            self._metrics.add(Metric.JOBS_RERUN, kind=kind)
        write = log.error if kind == "given_up" else log.info
        write("re-run settled", extra={"result": kind, "reason": reason})
        return Settled.SETTLED


def _was_interrupted(record: JobRecord) -> bool:
    return record.interrupted_at > 0 or record.outcome == ReportStatus.INTERRUPTED


def delay_before(message: RerunMessage) -> float:
    """Return the seconds before a job is looked at: twofold longer each time, up to 15 minutes.

    Example:
        >>> [delay_before(RerunMessage(job_id=1, tries=n)) for n in (0, 1, 99)]
        [60.0, 120.0, 900.0]
    """
    return float(min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(message.tries, 10)))


def _with(record: JobRecord, state: Rerun) -> JobRecord:
    return dataclasses.replace(record, rerun=state)
