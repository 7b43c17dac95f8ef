"""Interrupted jobs whose re-run is awaited and whose message was lost are looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest

from runsfleet_runtime.contract.messages import JobMessage
from runsfleet_runtime.housekeeping.awaited_reruns import AwaitedReruns
from runsfleet_runtime.housekeeping.model import SweepOutcome
from runsfleet_runtime.housekeeping.ports import SweepError
from runsfleet_runtime.interruptions.reruns import Settled
from runsfleet_runtime.jobs.model import JobRecord, JobStatus, Rerun
from tests.unit.housekeeping.frame import NOW, Frame
from tests.unit.housekeeping.github_fakes import Records

LEASE = "sweep:reruns"


@dataclass
class Table(Records):
    """The jobs table with its index of re-runs, which lags behind."""

    lagging: set[int] = field(default_factory=set)
    is_index_down: bool = False

    def awaiting_reruns(self, *, updated_before: float) -> Iterator[Sequence[int]]:
        if self.is_index_down:
            raise SweepError("throttled")
        for state in (Rerun.PENDING, Rerun.REQUESTED):
            yield [
                number
                for number, record in self.records.items()
                if (record.rerun is state and record.updated_at < updated_before)
            ]
        yield sorted(self.lagging)


@dataclass
class Reruns:
    """The use case."""

    answer: Settled | Exception = Settled.WAITING
    looked_at: list[int] = field(default_factory=list)

    def settle(self, record: JobRecord, *, deadline: float) -> Settled:
        assert deadline > NOW
        self.looked_at.append(record.job.job_id)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class World:
    """Everything around the sweep."""

    def __init__(self) -> None:
        self.frame = Frame()
        self.table = Table()
        self.reruns = Reruns()
        self.task = AwaitedReruns(
            awaited=self.table,
            records=self.table,
            reruns=self.reruns,
            clock=self.frame.clock,
        )

    def job(
        self, number: int = 1, *, rerun: Rerun | None = Rerun.PENDING, age: float = 600.0
    ) -> JobRecord:
        message = JobMessage(
            job_id=number, run_id=7, run_attempt=1, repository="o/r", labels=("l",), queued_at=0
        )
        return self.table.add(
            JobRecord(
                job=message,
                status=JobStatus.COMPLETED,
                updated_at=self.frame.now - age,
                rerun=rerun,
            )
        )


@pytest.fixture
def world() -> World:
    """Make a fleet."""
    return World()


@pytest.mark.parametrize(
    ("rerun", "age", "is_looked_at"),
    [
        (Rerun.PENDING, 600.0, True),
        (Rerun.REQUESTED, 600.0, True),
        (Rerun.PENDING, 299.0, False),
        (Rerun.DONE, 600.0, False),
        (Rerun.GIVEN_UP, 600.0, False),
        (None, 600.0, False),
    ],
)
def test_awaited_and_quiet_ones_are_looked_at(
    world: World, rerun: Rerun | None, age: float, is_looked_at: bool
) -> None:
    """A re-run that is awaited and that nobody has touched for minutes is looked at."""
    world.job(rerun=rerun, age=age)
    world.frame.run(world.task)
    assert world.reruns.looked_at == ([1] if is_looked_at else [])


def test_record_and_not_the_index_decides(world: World) -> None:
    """What the index names is read again before anything is asked."""
    world.job(1, rerun=Rerun.DONE)
    world.job(2, age=10.0)
    world.table.lagging = {1, 2, 3}
    report = world.frame.run(world.task)
    assert world.reruns.looked_at == []
    assert report.verdicts == {
        "spared: no re-run is awaited any more": 1,
        "spared: it was written just now": 1,
        "spared: gone meanwhile": 1,
    }


def test_waiting_ones_are_looked_at_again_after_a_pause(world: World) -> None:
    """Each is asked for at GitHub every half hour, not in each run."""
    world.job()
    for _ in range(24):
        world.frame.run(world.task)
        world.frame.now += 300
    assert len(world.reruns.looked_at) == 4


def test_those_looked_at_longest_ago_come_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many that wait do not keep others from their turn."""
    monkeypatch.setattr(AwaitedReruns, "limit", 2)
    world.reruns.answer = Settled.SETTLED
    for number in range(1, 7):
        world.job(number)
    for _ in range(3):
        world.frame.run(world.task)
        world.frame.now += 300
    assert sorted(world.reruns.looked_at) == [1, 2, 3, 4, 5, 6]


def test_settled_ones_are_forgotten(world: World) -> None:
    """What is awaited no longer is not remembered."""
    record = world.job()
    world.reruns.answer = Settled.SETTLED
    assert world.frame.run(world.task).acted == 1
    world.table.add(replace(record, rerun=Rerun.DONE))
    world.frame.run(world.task)
    assert world.frame.states[LEASE]["looked"] == {}


def test_failure_is_a_failure_of_that_one(world: World) -> None:
    """One that cannot be settled holds up no other, and is found again."""
    world.job()
    world.reruns.answer = RuntimeError("throttled")
    assert world.frame.run(world.task).outcome is SweepOutcome.FAILED


def test_index_that_does_not_answer_fails_the_run(world: World) -> None:
    """Not knowing what is awaited is not the same as nothing being awaited."""
    world.table.is_index_down = True
    with pytest.raises(SweepError):
        world.frame.run(world.task)
    assert world.frame.outcomes[LEASE] is SweepOutcome.FAILED


@pytest.mark.parametrize("looked", [[], {"1": "x"}, {"1": NOW * 2}, None])
def test_memory_that_cannot_be_read_is_begun_anew(world: World, looked: object) -> None:
    """A malformed memory does not keep a job from being looked at."""
    world.job()
    world.frame.states[LEASE] = {"looked": looked}
    world.frame.run(world.task)
    assert world.reruns.looked_at == [1]
