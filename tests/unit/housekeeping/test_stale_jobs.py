"""Stale records: what nothing moves any more is moved, and age alone convicts nobody."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from runsfleet_runtime.housekeeping.leftovers import Leftover
from runsfleet_runtime.housekeeping.model import TaskReport
from runsfleet_runtime.housekeeping.ports import SweepError
from runsfleet_runtime.housekeeping.stale_jobs import StaleJobs
from runsfleet_runtime.jobs.model import Cause, JobStatus
from runsfleet_runtime.jobs.ports import RecordUnknownError, Redispatched
from tests.unit.housekeeping.frame import (
    NOW,
    Departures,
    Ec2,
    Frame,
    Records,
    Redispatcher,
    record,
)

CLAIMED: dict[str, Any] = {"instance_id": "", "runner_name": "", "launched_at": 0.0}


@dataclass
class World:
    """The jobs table, EC2 and the queues."""

    records: Records = field(default_factory=Records)
    ec2: Ec2 = field(default_factory=Ec2)
    departures: Departures = field(default_factory=Departures)
    redispatcher: Redispatcher = field(default_factory=Redispatcher)
    frame: Frame = field(default_factory=Frame)

    def sweep(self) -> TaskReport:
        return self.frame.run(
            StaleJobs(
                open_jobs=self.records,
                records=self.records,
                instances=self.ec2,
                departures=self.departures,
                redispatcher=self.redispatcher,
                clock=self.frame.clock,
            )
        )


@pytest.mark.parametrize("status", [JobStatus.LAUNCHED, JobStatus.RUNNING])
def test_job_whose_instance_is_gone_is_told(status: JobStatus) -> None:
    """An instance that died without a word is reported as EC2 would have done."""
    world = World(Records().add(record(status=status)))
    assert world.sweep().verdicts == {"tell: its instance is gone": 1}
    assert world.departures.told == ["i-1"]


def test_job_of_a_living_instance_is_left_alone() -> None:
    """However old it is: its instance has limits of its own."""
    world = World(Records().add(record(status=JobStatus.RUNNING, updated_at=NOW - 90 * 3600)))
    world.ec2.add(Leftover(key="i-1", state="running"))
    assert world.sweep().verdicts == {"spared: its instance lives": 1}


def test_report_that_is_on_its_way_is_awaited() -> None:
    """An instance that has just gone may have reported: ten minutes are for that."""
    world = World(Records().add(record(status=JobStatus.RUNNING, updated_at=NOW - 500)))
    assert world.sweep().acted == 0
    world.frame.now += 200
    assert world.sweep().acted == 1


def test_instance_that_shows_up_right_before_saves_its_job() -> None:
    """The listing may lack an instance; it is asked for once more by itself."""
    world = World(Records().add(record(status=JobStatus.RUNNING)))
    world.ec2.on_find = lambda key: world.ec2.add(Leftover(key=key, state="running"))
    assert world.sweep().verdicts == {"spared: its instance lives": 1}
    assert world.departures.told == []


@pytest.mark.parametrize(
    "now_is",
    [
        record(status=JobStatus.COMPLETED),
        record(status=JobStatus.LAUNCHED, instance_id="i-2"),
    ],
)
def test_record_that_moved_meanwhile_is_left(now_is: object) -> None:
    """Closed, or on another instance by the second look: nothing is told."""
    world = World(Records().add(record(status=JobStatus.RUNNING)))
    world.records.on_get = lambda job_id: world.records.jobs.update({job_id: now_is})  # type: ignore[dict-item]
    world.sweep()
    assert world.departures.told == []


def test_claim_whose_message_is_lost_is_dispatched_again() -> None:
    """A worker died between claim and launch, and its message did not come back."""
    lost = record(status=JobStatus.CLAIMED, claim_expires_at=NOW - 1000, **CLAIMED)
    held = record(2, JobStatus.CLAIMED, claim_expires_at=NOW - 800, **CLAIMED)
    world = World(Records().add(lost, held))
    world.sweep()
    assert world.redispatcher.asked == [(1, Cause.STILL_QUEUED, 0)]


def test_record_that_names_no_instance_is_not_stuck() -> None:
    """Scenario 47: a row that lacks attributes is moved on as well, and nobody is told of it."""
    world = World(Records().add(record(status=JobStatus.RUNNING, instance_id="")))
    world.sweep()
    assert world.redispatcher.asked == [(1, Cause.STILL_QUEUED, 0)]
    assert world.departures.told == []
    assert world.ec2.calls["find"] == 0


def test_job_past_its_deadline_is_closed() -> None:
    """Queued beyond the time for which GitHub keeps it: closed by the one way, with a reason."""
    overdue = record(status=JobStatus.QUEUED, deadline=NOW - 700)
    waiting = record(2, JobStatus.QUEUED, deadline=NOW - 500)
    unknown = record(3, JobStatus.QUEUED, deadline=0.0)
    world = World(Records().add(overdue, waiting, unknown))
    world.redispatcher.answer = Redispatched.EXHAUSTED
    report = world.sweep()
    assert [job for job, _, _ in world.redispatcher.asked] == [1]
    assert report.verdicts == {
        "expire: its deadline passed": 1,
        "spared: its turn may come": 2,
    }


def test_unknown_outcome_is_a_failure_and_a_settled_one_is_not() -> None:
    """What the table or queue did not answer is tried again in the next run."""
    world = World(Records().add(record(status=JobStatus.QUEUED, deadline=NOW - 700)))
    world.redispatcher.answer = Redispatched.UNKNOWN
    assert world.sweep().failures == 1
    world.redispatcher.answer = Redispatched.SETTLED
    assert world.sweep().verdicts == {"spared: changed meanwhile": 1}


def test_ec2_that_does_not_answer_convicts_nobody() -> None:
    """Without the list of instances the run fails; no instance counts as gone."""
    world = World(Records().add(record(status=JobStatus.RUNNING)), Ec2(is_down=True))
    with pytest.raises(SweepError):
        world.sweep()
    assert world.departures.told == []


def test_unreadable_table_fails_the_run() -> None:
    """Scenario 48: a read that fails is no empty table."""
    world = World(Records().add(record(status=JobStatus.RUNNING)))
    world.records.is_down = True
    with pytest.raises(RecordUnknownError):
        world.sweep()


def test_fifteen_thousand_running_jobs_cost_a_call_a_page() -> None:
    """Only suspects are asked for by themselves."""
    world = World()
    for number in range(15_000):
        world.records.add(record(number, JobStatus.RUNNING))
        if number % 5000:
            world.ec2.add(Leftover(key=f"i-{number}", state="running"))
    report = world.sweep()
    assert (report.selected, report.acted) == (15_000, 3)
    assert world.ec2.calls == {"pages": 15, "find": 3}
    assert world.records.calls == {"open_jobs": 150, "get": 3}
