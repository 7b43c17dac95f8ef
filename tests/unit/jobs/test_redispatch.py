"""One way to dispatch a job again: bounded, never silent, the same however often it is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from runsfleet_runtime.contract.messages import JobMessage
from runsfleet_runtime.contract.metrics import Metric, MetricDefinition
from runsfleet_runtime.jobs.model import Cause, JobRecord, JobStatus
from runsfleet_runtime.jobs.ports import RecordUnknownError, Redispatched
from runsfleet_runtime.jobs.redispatch import MAX_REQUEUES, Redispatcher

NOW = 1_800_000_000.0
JOB = JobMessage(
    job_id=1,
    run_id=7,
    run_attempt=1,
    repository="octo-org/hello",
    labels=("runs-fleet=7/runner=2cpu-linux-arm64", "Extra "),
    queued_at=NOW - 60,
    dispatch=2,
    requeues=1,
)


def record(status: JobStatus = JobStatus.LAUNCHED, **changes: Any) -> JobRecord:
    """Return the record of a launched job."""
    base = JobRecord(job=JOB, status=status, instance_id="i-1", deadline=NOW + 3600)
    return replace(base, **changes)


@dataclass
class World:
    """The table and the queue in memory; ``faults`` says what fails."""

    record: JobRecord
    faults: set[str] = field(default_factory=set)
    sent: list[JobMessage] = field(default_factory=list)
    written: list[Mapping[str, Any]] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)
    story: list[str] = field(default_factory=list)
    made: dict[int, JobMessage] = field(default_factory=dict)
    now: float = NOW

    def hand_back(
        self,
        observed: JobRecord,
        message: JobMessage,
        further: Sequence[Mapping[str, Any]],
        *,
        now: float,
    ) -> JobMessage | None:
        if "table" in self.faults:
            raise RecordUnknownError("throttled")
        if self.record != observed:
            return self.made.get(id(observed))
        self.record = replace(
            observed,
            status=JobStatus.QUEUED,
            job=message,
            not_before=message.not_before,
            claim_expires_at=0.0,
            updated_at=now,
        )
        self.made[id(observed)] = message
        self.written += further
        self.story.append("record")
        return message

    def give_up(
        self,
        observed: JobRecord,
        further: Sequence[Mapping[str, Any]],
        *,
        error: str,
        now: float,
    ) -> bool:
        if "table" in self.faults:
            raise RecordUnknownError("throttled")
        if self.record != observed:
            return False
        self.record = replace(observed, status=JobStatus.EXPIRED, completed_at=now)
        self.closed.append(error)
        self.written += further
        return True

    def send(self, jobs: Sequence[JobMessage]) -> list[bool]:
        self.story.append("message")
        if "queue" in self.faults:
            return [False] * len(jobs)
        self.sent += jobs
        return [True] * len(jobs)

    def defer(self, receipt_handle: str, seconds: float) -> None:
        raise AssertionError((receipt_handle, seconds))

    def add(self, metric: MetricDefinition, value: float = 1, *, kind: str | None = None) -> None:
        del kind
        self.counted[metric.name] += int(value)

    @property
    def redispatcher(self) -> Redispatcher:
        return Redispatcher(
            records=self,
            queue=self,
            metrics=self,
            given_up=Metric.JOBS_GIVEN_UP,
            requeued=Metric.JOBS_REQUEUED,
            clock=lambda: self.now,
            jitter=lambda: 0.5,
        )

    def redispatch(self, cause: Cause = Cause.STILL_QUEUED, **options: Any) -> Redispatched:
        return self.redispatcher.redispatch(self.record, cause, **options)


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_goes_the_same_way(cause: Cause) -> None:
    """Record first, then the message: labels byte for byte, one try and one dispatch further."""
    world = World(record())
    further = [{"delete": "i-1"}]
    assert world.redispatch(cause, reason="why", further=further) is Redispatched.SENT
    (message,) = world.sent
    assert message == replace(JOB, dispatch=3, requeues=2, not_before=message.not_before)
    assert world.story == ["record", "message"]
    assert world.written == further
    assert world.counted == {"JobsRequeued": 1}


def test_each_try_waits_longer() -> None:
    """What fails for all of a fleet is not tried by all in the same second."""
    waits = []
    for requeues in range(MAX_REQUEUES):
        world = World(record(job=replace(JOB, requeues=requeues)))
        world.redispatch()
        waits.append(world.sent[0].not_before - NOW)
    assert waits == sorted(waits)
    assert waits[0] >= 5
    assert waits[-1] > 4 * waits[0]


@pytest.mark.parametrize(
    ("changes", "is_asked"),
    [
        ({}, True),
        ({"job": replace(JOB, on_demand=True)}, False),
        ({"interrupted_at": NOW - 5}, False),
    ],
)
def test_spot_is_out_of_the_question_for_good(changes: dict[str, Any], is_asked: bool) -> None:
    """Once interrupted, whoever asks for whatever reason: on-demand."""
    world = World(record(**changes))
    world.redispatch(on_demand=is_asked)
    assert world.sent[0].on_demand


@pytest.mark.parametrize(
    "changes", [{"job": replace(JOB, requeues=MAX_REQUEUES)}, {"deadline": NOW - 1}]
)
@pytest.mark.parametrize("cause", [Cause.INTERRUPTED, Cause.BOOTSTRAP_FAILED, Cause.STILL_QUEUED])
def test_spent_budget_or_time_is_never_silent(cause: Cause, changes: dict[str, Any]) -> None:
    """All causes share one budget; beyond it the job is closed with the reason, and counted."""
    world = World(record(**changes))
    assert world.redispatch(cause, further=[{"delete": "i-1"}]) is Redispatched.EXHAUSTED
    assert world.record.status is JobStatus.EXPIRED
    assert (world.sent, world.written) == ([], [{"delete": "i-1"}])
    assert cause.value in world.closed[0]
    assert world.counted == {"JobsGivenUp": 1}
    assert world.redispatch(cause) is Redispatched.SETTLED
    assert world.counted == {"JobsGivenUp": 1}


def test_an_operator_may_exceed_the_budget() -> None:
    """Somebody looked at it; also a job that was given up can be brought back."""
    spent = replace(JOB, requeues=MAX_REQUEUES)
    for status in (JobStatus.LAUNCHED, JobStatus.EXPIRED):
        world = World(record(status, job=spent))
        assert world.redispatch(Cause.OPERATOR) is Redispatched.SENT


def test_message_that_was_not_sent_comes_by_the_next_try() -> None:
    """Asked again with what was observed, or with the queued record: the same message."""
    world = World(record(), faults={"queue"})
    observed = world.record
    assert world.redispatch() is Redispatched.UNKNOWN
    assert world.counted == {}
    world.faults.clear()
    for again in (observed, world.record):
        result = world.redispatcher.redispatch(again, Cause.STILL_QUEUED)
        assert result is Redispatched.SENT
    first, second = world.sent
    assert first == second
    assert first.deduplication_id == second.deduplication_id


def test_table_that_does_not_answer_is_unknown() -> None:
    """Nothing is sent for a record that may not be claimable."""
    for deadline in (NOW + 1, NOW - 1):
        world = World(record(deadline=deadline), faults={"table"})
        assert world.redispatch() is Redispatched.UNKNOWN
        assert (world.sent, world.counted) == ([], {})


def test_record_that_moved_on_is_left_alone() -> None:
    """Whoever was faster decides."""
    world = World(record())
    observed = record(updated_at=NOW - 9)
    result = world.redispatcher.redispatch(observed, Cause.STILL_QUEUED)
    assert (result, world.sent) == (Redispatched.SETTLED, [])


def test_live_claim_is_left_to_its_worker() -> None:
    """A claimed job is dispatched again only once its claim has ended."""
    world = World(record(JobStatus.CLAIMED, claim_expires_at=NOW + 1))
    assert world.redispatch() is Redispatched.SETTLED
    world.now = NOW + 2
    assert world.redispatch() is Redispatched.SENT


def test_released_job_gets_the_message_that_dispatch_would_have_sent() -> None:
    """Its record is of the message before, so that this one can claim it as well."""
    world = World(record(JobStatus.QUEUED, claim_expires_at=NOW + 1, not_before=NOW + 9))
    assert world.redispatch() is Redispatched.SENT
    assert world.sent == [JOB.again(not_before=NOW + 9)]
    assert world.story == ["message"]


def test_lost_message_is_replaced_by_one_that_no_queue_takes_for_a_repetition() -> None:
    """It has a number of its own and costs no budget; asked twice, it is the same one."""
    world = World(record(JobStatus.QUEUED, not_before=NOW - 900))
    observed = world.record
    assert world.redispatcher.resend(observed) is Redispatched.SENT
    assert world.redispatcher.resend(observed) is Redispatched.SENT
    first, second = world.sent
    assert first == second == replace(JOB, dispatch=3, not_before=NOW)
    assert first.deduplication_id != observed.pending.deduplication_id


@pytest.mark.parametrize("status", sorted(set(JobStatus) - {JobStatus.QUEUED}))
def test_only_a_queued_job_has_a_message_to_lose(status: JobStatus) -> None:
    """Somebody claimed it meanwhile."""
    world = World(record(status))
    assert world.redispatcher.resend(world.record) is Redispatched.SETTLED
    assert world.sent == []


def test_lost_message_of_a_job_that_is_too_old_closes_it() -> None:
    """GitHub failed it long ago."""
    world = World(record(JobStatus.QUEUED, deadline=NOW - 1))
    assert world.redispatcher.resend(world.record) is Redispatched.EXHAUSTED
    assert world.counted == {"JobsGivenUp": 1}
