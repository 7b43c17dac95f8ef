"""Jobs that wait although nobody is at work for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from runsfleet_runtime.contract.messages import JobMessage
from runsfleet_runtime.github import JobState
from runsfleet_runtime.housekeeping import waiting_jobs
from runsfleet_runtime.housekeeping.model import SweepOutcome
from runsfleet_runtime.housekeeping.ports import SweepError
from runsfleet_runtime.housekeeping.waiting_jobs import WaitingJobs
from runsfleet_runtime.jobs.model import Cause, JobRecord, JobStatus
from runsfleet_runtime.jobs.ports import Redispatched
from tests.unit.housekeeping.frame import NOW, Frame
from tests.unit.housekeeping.github_fakes import Records

LEASE = "sweep:waiting_jobs"
MINUTE, HOUR = 60.0, 3600.0


@dataclass
class Table(Records):
    """The jobs table with its index of states, which may lag."""

    lagging: dict[JobStatus, list[str]] = field(default_factory=dict)
    is_index_down: bool = False

    def ids(
        self, status: JobStatus, *, updated_before: float | None = None
    ) -> Iterator[Sequence[str]]:
        if self.is_index_down:
            raise SweepError("throttled")
        assert updated_before is not None
        for record in self.in_status(status, updated_before=updated_before):
            yield [str(record.job.job_id)]
        yield self.lagging.get(status, [])


@dataclass
class GitHub:
    """What GitHub says of jobs; in progress by default."""

    states: dict[int, JobState] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)

    def status(
        self,
        repository: str,
        job_id: int,
        installation_id: int | None = None,
        *,
        deadline: float | None = None,
    ) -> JobState:
        assert deadline is not None
        self.asked.append(job_id)
        return self.states.get(job_id, JobState.IN_PROGRESS)

    def queued_in_run(self, job: JobMessage, *, deadline: float | None = None) -> Sequence[int]:
        raise AssertionError("of no use here")


@dataclass
class Redispatcher:
    """Dispatches again."""

    answer: Redispatched = Redispatched.SENT
    redispatched: list[tuple[int, Cause]] = field(default_factory=list)
    resent: list[int] = field(default_factory=list)

    def redispatch(
        self,
        observed: JobRecord,
        cause: Cause,
        *,
        on_demand: bool = False,
        reason: str = "",
        further: Sequence[Mapping[str, Any]] = (),
    ) -> Redispatched:
        assert observed.status is JobStatus.RUNNING
        assert reason
        self.redispatched.append((observed.job.job_id, cause))
        return self.answer

    def resend(self, observed: JobRecord, *, reason: str = "") -> Redispatched:
        assert reason
        assert observed.status is JobStatus.QUEUED
        self.resent.append(observed.job.job_id)
        return self.answer


class World:
    """Everything around the sweep."""

    def __init__(self) -> None:
        self.frame = Frame()
        self.table = Table()
        self.github = GitHub()
        self.redispatcher = Redispatcher()
        self.task = WaitingJobs(
            ids=self.table,
            records=self.table,
            job_states=self.github,
            redispatcher=self.redispatcher,
            metrics=self.frame,
            clock=self.frame.clock,
        )

    def job(self, number: int = 1, *, status: JobStatus, age: float, **changes: Any) -> JobRecord:
        message = JobMessage(
            job_id=number, run_id=7, run_attempt=1, repository="o/r", labels=("l",), queued_at=0
        )
        record = JobRecord(job=message, status=status, updated_at=self.frame.now - age)
        return self.table.add(replace(record, **changes))

    def queued(self, number: int = 1, *, age: float = HOUR, **changes: Any) -> JobRecord:
        return self.job(number, status=JobStatus.QUEUED, age=age, **changes)

    def running(self, number: int = 1, *, age: float = HOUR, **changes: Any) -> JobRecord:
        return self.job(number, status=JobStatus.RUNNING, age=age, **changes)


@pytest.fixture
def world() -> World:
    """Make a fleet."""
    return World()


def test_lost_message_is_sent_again(world: World) -> None:
    """A job whose turn was long ago gets a new copy of its message."""
    world.queued(not_before=NOW - 30 * MINUTE)
    assert world.frame.run(world.task).acted == 1
    assert world.redispatcher.resent == [1]
    assert world.frame.counted["JobsRecovered:message_lost"] == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"age": 9 * MINUTE},
        {"not_before": NOW + HOUR},
        {"not_before": NOW - 9 * MINUTE},
        {"deadline": NOW - 1},
    ],
)
def test_jobs_whose_turn_is_to_come_are_left_alone(world: World, changes: Any) -> None:
    """A backoff is no loss, nor is what another sweep closes."""
    world.queued(**changes)
    world.frame.run(world.task)
    assert world.redispatcher.resent == []


def test_slow_queue_is_not_filled_with_copies(world: World) -> None:
    """While a job stays queued it is sent again every half hour at most."""
    world.queued()
    for _ in range(60):
        world.frame.run(world.task)
        world.frame.now += 2 * MINUTE
    assert len(world.redispatcher.resent) == 4


@pytest.mark.parametrize("status", [JobStatus.CLAIMED, JobStatus.LAUNCHED, JobStatus.COMPLETED])
def test_job_that_moved_on_is_left_alone(world: World, status: JobStatus) -> None:
    """An index that lags names jobs that somebody has claimed since."""
    world.job(status=status, age=HOUR)
    world.table.lagging = {JobStatus.QUEUED: ["1", "2"], JobStatus.RUNNING: ["1", "2"]}
    world.frame.run(world.task)
    assert world.redispatcher.resent == []
    assert world.redispatcher.redispatched == []
    assert world.github.asked == []


def test_job_whose_runner_took_another_one(world: World) -> None:
    """Running here and queued at GitHub for long: it is dispatched again."""
    world.running()
    world.github.states[1] = JobState.QUEUED
    world.frame.run(world.task)
    assert world.redispatcher.redispatched == [(1, Cause.STILL_QUEUED)]
    assert world.frame.counted["JobsRecovered:still_queued"] == 1


@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.QUEUED])
def test_age_alone_convicts_nobody(world: World, state: JobState) -> None:
    """However long it runs, only GitHub's word that it is queued counts; unknown is no word."""
    world.running(age=6 * HOUR)
    world.github.states[1] = state
    world.frame.run(world.task)
    assert world.github.asked == [1]
    assert world.redispatcher.redispatched == []


def test_job_that_began_lately_is_not_asked_for(world: World) -> None:
    """GitHub tells of a begun job with a delay."""
    world.running(age=14 * MINUTE)
    world.github.states[1] = JobState.QUEUED
    world.frame.run(world.task)
    assert world.github.asked == []


def test_a_few_are_asked_for_in_each_run(world: World) -> None:
    """The oldest come first, and everybody has a turn before anybody has a second one."""
    for number in range(100):
        world.running(number, age=HOUR + 1000 - number)
    world.frame.run(world.task)
    assert world.github.asked == list(range(30))
    for _ in range(3):
        world.frame.now += 2 * MINUTE
        world.frame.run(world.task)
    assert sorted(world.github.asked) == list(range(100))
    for _ in range(56):  # until two hours have passed
        world.frame.now += 2 * MINUTE
        world.frame.run(world.task)
    assert len(world.github.asked) == 100
    world.frame.now += 2 * MINUTE
    world.frame.run(world.task)
    assert world.github.asked[100:] == list(range(30))


def test_unknown_answer_is_asked_again(world: World) -> None:
    """An outage of GitHub does not count as an answer."""
    world.running()
    world.github.states[1] = JobState.UNKNOWN
    world.frame.run(world.task)
    world.github.states[1] = JobState.QUEUED
    world.frame.run(world.task)
    assert world.redispatcher.redispatched == [(1, Cause.STILL_QUEUED)]


def test_job_that_ends_while_github_is_asked(world: World) -> None:
    """What was observed is named; a record that is another by then is left alone."""
    world.running()
    world.github.states[1] = JobState.QUEUED
    world.redispatcher.answer = Redispatched.SETTLED
    report = world.frame.run(world.task)
    assert (report.acted, report.spared) == (0, 1)
    assert not world.frame.counted["JobsRecovered:still_queued"]


def test_spent_budget_is_an_end_and_no_recovery(world: World) -> None:
    """A job that was closed because it was tried too often is not counted as recovered."""
    world.running()
    world.github.states[1] = JobState.QUEUED
    world.redispatcher.answer = Redispatched.EXHAUSTED
    assert world.frame.run(world.task).acted == 1
    assert not world.frame.counted["JobsRecovered:still_queued"]


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.RUNNING])
def test_uncertain_dispatch_is_repeated(world: World, status: JobStatus) -> None:
    """A table or queue that does not answer is a failure, and the next run tries again."""
    world.job(status=status, age=HOUR)
    world.github.states[1] = JobState.QUEUED
    world.redispatcher.answer = Redispatched.UNKNOWN
    assert world.frame.run(world.task).outcome is SweepOutcome.FAILED
    world.redispatcher.answer = Redispatched.SENT
    assert world.frame.run(world.task).acted == 1


def test_index_that_does_not_answer_fails_the_run(world: World) -> None:
    """Not knowing which jobs wait is not the same as none waiting."""
    world.table.is_index_down = True
    with pytest.raises(SweepError):
        world.frame.run(world.task)
    assert world.frame.outcomes[LEASE] is SweepOutcome.FAILED


def test_what_is_remembered_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that are gone are forgotten, and of too many the latest are kept."""
    monkeypatch.setattr(waiting_jobs, "MAX_TRIED", 10)
    for number in range(30):
        world.running(number)
    for _ in range(3):
        world.frame.run(world.task)
    assert len(world.frame.states[LEASE]["tried"]) <= 40
    world.table.records.clear()
    world.frame.run(world.task)
    assert world.frame.states[LEASE]["tried"] == {}


@pytest.mark.parametrize("tried", [[], {"1": "x"}, {"1": NOW * 2}, {"1": -5}, None])
def test_memory_that_cannot_be_read_is_begun_anew(world: World, tried: object) -> None:
    """A malformed memory does not keep a job from its turn."""
    world.queued()
    world.frame.states[LEASE] = {"tried": tried}
    world.frame.run(world.task)
    assert world.redispatcher.resent == [1]
