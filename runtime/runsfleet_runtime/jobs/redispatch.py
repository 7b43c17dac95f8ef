"""The one way by which a job is dispatched again, whatever the cause.

The record becomes claimable first, then the message is sent: a message that came before its record
could be claimed would be dropped. When the message cannot be sent the caller asks again, and when
nobody does, a sweep finds the queued record that nobody claims and has another message sent.

What bounds it:

- One budget for all causes, as each try costs an instance, and the deadline at which GitHub fails
  the job. A job that exceeds either is closed with the reason, and counted: never silence.
- A delay with jitter that grows with each try, so that what fails for all does not fail at once.

It never makes a job run twice: GitHub gives a job to one runner only, so what is launched in vain
ends idle. That is why ``retry=false`` is no bound here. That label forbids the re-run of a job that
had started; one that GitHub still has queued has not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from runsfleet_runtime.contract.messages import JobMessage
from runsfleet_runtime.contract.metrics import MetricDefinition
from runsfleet_runtime.jobs.backoff import retry_delay
from runsfleet_runtime.jobs.model import Cause, JobRecord, JobStatus
from runsfleet_runtime.jobs.ports import (
    HandsJobsBack,
    RecordUnknownError,
    Redispatched,
    SendsJobs,
)
from runsfleet_runtime.telemetry.log import bound, get_logger
from runsfleet_runtime.telemetry.metrics import CountsMetrics

log = get_logger("jobs.redispatch")

MAX_REQUEUES: Final = 5
"""A job whose instances keep ending without serving it is given up after so many; each try costs an
instance's boot."""


@dataclass(frozen=True, slots=True)
class Again:
    """The record must be made claimable by this message, which is sent then."""

    message: JobMessage


@dataclass(frozen=True, slots=True)
class Resend:
    """The record is claimable: this message of it is sent, once more perhaps."""

    message: JobMessage


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The job is closed."""

    reason: str


@dataclass(frozen=True, slots=True)
class Leave:
    """Nothing is done: others have the job, or nobody needs it any more."""


Decision = Again | Resend | GiveUp | Leave


def decide(
    observed: JobRecord, cause: Cause, *, on_demand: bool, now: float, jitter: float
) -> Decision:
    """Say how a job is dispatched again.

    Args:
        observed: Its record.
        cause: Why.
        on_demand: Whether spot is out of the question from now on.
        now: Epoch seconds.
        jitter: A random number in [0, 1).

    Example:
        >>> job = JobMessage(
        ...     job_id=1, run_id=7, run_attempt=1, repository="o/r", labels=(), queued_at=0
        ... )
        >>> record = JobRecord(
        ...     job=dataclasses.replace(job, requeues=MAX_REQUEUES), status=JobStatus.LAUNCHED
        ... )
        >>> decide(record, Cause.INTERRUPTED, on_demand=True, now=9.0, jitter=0.0)
        GiveUp(reason='dispatched again 5 times already; last cause: interrupted')
    """
    job = observed.job
    match observed.status:
        case JobStatus.EXPIRED if cause is not Cause.OPERATOR:
            return Leave()
        case JobStatus.CLAIMED if now <= observed.claim_expires_at:
            return Leave()
    if observed.deadline and now > observed.deadline:
        return GiveUp(f"past its deadline; last cause: {cause.value}")
    if observed.status is JobStatus.QUEUED:
        return Resend(observed.pending)
    if job.requeues >= MAX_REQUEUES and cause is not Cause.OPERATOR:
        return GiveUp(f"dispatched again {job.requeues} times already; last cause: {cause.value}")
    requeues = job.requeues + 1
    delay = retry_delay(requeues, jitter=jitter)
    return Again(
        dataclasses.replace(job, requeues=requeues).again(
            not_before=now + delay,
            on_demand=job.on_demand or on_demand or observed.interrupted_at > 0,
        )
    )


class Redispatcher:
    """The use case; see :class:`~runsfleet_runtime.jobs.ports.RedispatchesJobs`.

    Args:
        records: The jobs table.
        queue: The jobs queue.
        metrics: Where metrics go.
        given_up: What counts a job that is closed as its budget or time is spent; each function
            has its own.
        requeued: What counts a job that is dispatched again; ``None`` for a caller that counts by
            itself.
        clock: Returns epoch seconds.
        jitter: Returns a random number in [0, 1).
    """

    def __init__(
        self,
        *,
        records: HandsJobsBack,
        queue: SendsJobs,
        metrics: CountsMetrics,
        given_up: MetricDefinition,
        requeued: MetricDefinition | None = None,
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._records = records
        self._queue = queue
        self._metrics = metrics
        self._given_up = given_up
        self._requeued = requeued
        self._clock = clock
        self._jitter = jitter

    def redispatch(
        self,
        observed: JobRecord,
        cause: Cause,
        *,
        on_demand: bool = False,
        reason: str = "",
        further: Sequence[Mapping[str, Any]] = (),
    ) -> Redispatched:
        """Dispatch a job again; see :class:`~runsfleet_runtime.jobs.ports.RedispatchesJobs`."""
        now = self._clock()
        decision = decide(observed, cause, on_demand=on_demand, now=now, jitter=self._jitter())
        about = {"cause": cause.value, "reason": reason}
        with _bound(observed):
            try:
                match decision:
                    case Leave():
                        return Redispatched.SETTLED
                    case GiveUp(error):
                        return self._give_up(observed, error, further, about)
                    case Resend(message):
                        return self._send(message, about)
                    case Again(message):
                        made = self._records.hand_back(observed, message, further, now=now)
                        return Redispatched.SETTLED if made is None else self._send(made, about)
            except RecordUnknownError as error:
                log.error("not dispatched again", extra={"error": str(error), **about})
                return Redispatched.UNKNOWN

    def resend(self, observed: JobRecord, *, reason: str = "") -> Redispatched:
        """Send another message; see :class:`~runsfleet_runtime.jobs.ports.RedispatchesJobs`."""
        now = self._clock()
        about = {"cause": "message_lost", "reason": reason}
        with _bound(observed):
            if observed.status is not JobStatus.QUEUED:
                return Redispatched.SETTLED
            try:
                if observed.deadline and now > observed.deadline:
                    return self._give_up(observed, "past its deadline in the queue", (), about)
                message = observed.pending.again(not_before=now)
                made = self._records.hand_back(observed, message, (), now=now)
            except RecordUnknownError as error:
                log.error("not sent again", extra={"error": str(error), **about})
                return Redispatched.UNKNOWN
            return Redispatched.SETTLED if made is None else self._send(made, about)

    def _send(self, message: JobMessage, about: Mapping[str, str]) -> Redispatched:
        (sent,) = self._queue.send([message])
        if not sent:
            return Redispatched.UNKNOWN
        if self._requeued is not None:
            self._metrics.add(self._requeued)
        log.warning(
            "dispatched again",
            extra={
                "next_dispatch": message.dispatch,
                "requeues": message.requeues,
                "on_demand": message.on_demand,
                **about,
            },
        )
        return Redispatched.SENT

    def _give_up(
        self,
        observed: JobRecord,
        error: str,
        further: Sequence[Mapping[str, Any]],
        about: Mapping[str, str],
    ) -> Redispatched:
        if not self._records.give_up(observed, further, error=error, now=self._clock()):
            return Redispatched.SETTLED
        self._metrics.add(self._given_up)
        log.error("job given up", extra={"error": error, **about})
        return Redispatched.EXHAUSTED


def _bound(observed: JobRecord) -> Any:
    job = observed.job
    return bound(
        job_id=job.job_id, run_id=job.run_id, repository=job.repository, dispatch=job.dispatch
    )
