"""Unconfirmed launches: a second instance only when the first can no longer get the job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from runsfleet_runtime.github import JobState, Removal
from runsfleet_runtime.housekeeping.leftovers import Leftover
from runsfleet_runtime.housekeeping.model import SweepOutcome, TaskReport
from runsfleet_runtime.housekeeping.unconfirmed_launches import UnconfirmedLaunches
from runsfleet_runtime.jobs.model import Cause, JobStatus
from runsfleet_runtime.jobs.ports import RecordUnknownError, Redispatched
from tests.unit.housekeeping.frame import (
    NOW,
    Departures,
    Ec2,
    Frame,
    GitHub,
    Records,
    Redispatcher,
    record,
)


@dataclass
class World:
    """A job that was launched an hour ago on i-1 and of which nothing was heard."""

    ec2: Ec2 = field(
        default_factory=lambda: Ec2().add(Leftover(key="i-1", state="running", since=NOW - 3600))
    )
    records: Records = field(default_factory=lambda: Records().add(record()))
    github: GitHub = field(default_factory=GitHub)
    departures: Departures = field(default_factory=Departures)
    redispatcher: Redispatcher = field(default_factory=Redispatcher)
    frame: Frame = field(default_factory=Frame)
    deleted: list[str] = field(default_factory=list)

    def transact_delete(self, instance_id: str) -> Sequence[Mapping[str, Any]]:
        return [{"delete": instance_id}]

    def delete(self, instance_id: str) -> None:
        self.deleted.append(instance_id)

    def sweep(self) -> TaskReport:
        return self.frame.run(
            UnconfirmedLaunches(
                records=self.records,
                instances=self.ec2,
                departures=self.departures,
                job_states=self.github,
                registrar=self.github,
                redispatcher=self.redispatcher,
                runners=self,
                config_timeout=300,
                clock=self.frame.clock,
            )
        )


def test_queued_job_gets_another_instance_and_the_silent_one_ends() -> None:
    """GitHub has it queued and its runner is idle: dispatched again, then terminated."""
    world = World()
    world.sweep()
    assert world.redispatcher.asked == [(1, Cause.UNCONFIRMED, 1)]
    assert world.ec2.ended == ["i-1"]
    assert world.deleted == ["i-1"]
    assert world.github.removed == ["i-1"]


def test_slow_instance_is_given_fifteen_minutes() -> None:
    """Until then nobody is asked at all."""
    world = World(records=Records().add(record(launched_at=NOW - 890, updated_at=NOW - 890)))
    assert world.sweep().selected == 0
    world.frame.now += 20
    assert world.sweep().acted == 1


def test_confirmation_right_before_the_end_saves_the_instance() -> None:
    """Scenario 45: the record is read again, consistently, after GitHub's answer."""
    world = World()
    world.records.on_get = lambda _: world.records.add(record(status=JobStatus.RUNNING))
    report = world.sweep()
    assert report.verdicts == {"spared: it reported meanwhile": 1}
    assert world.redispatcher.asked == []
    assert world.ec2.ended == []


def test_runner_that_serves_another_job_keeps_its_instance() -> None:
    """The job gets an instance of its own, and the busy one goes on with its configuration."""
    world = World(github=GitHub(removal=Removal.BUSY))
    world.sweep()
    assert world.redispatcher.asked == [(1, Cause.STILL_QUEUED, 0)]
    assert world.ec2.ended == world.deleted == []


@pytest.mark.parametrize(
    "state",
    [JobState.IN_PROGRESS, JobState.COMPLETED, JobState.WAITING, JobState.GONE, JobState.UNKNOWN],
)
def test_nothing_is_done_unless_github_has_it_queued(state: JobState) -> None:
    """Age alone convicts nobody, and an answer that did not come does not either."""
    world = World(github=GitHub(state=state))
    assert world.sweep().verdicts == {f"spared: GitHub says {state.value}": 1}
    assert world.redispatcher.asked == []
    assert world.ec2.ended == world.github.removed == []


def test_instance_that_is_gone_is_told() -> None:
    """What becomes of its job is decided where EC2's own events are."""
    world = World(ec2=Ec2())
    world.sweep()
    assert world.departures.told == ["i-1"]
    assert world.redispatcher.asked == []


def test_runner_that_cannot_be_taken_away_leaves_all_as_it_is() -> None:
    """GitHub that does not answer the removal stops the act before anything was written."""
    world = World()

    def fail(_: int) -> None:
        world.github.is_down = True

    world.records.on_get = fail
    assert world.sweep().failures == 1
    assert world.redispatcher.asked == []
    assert world.ec2.ended == []


@pytest.mark.parametrize(
    ("answer", "ended"),
    [
        (Redispatched.SENT, ["i-1"]),
        (Redispatched.EXHAUSTED, ["i-1"]),
        (Redispatched.SETTLED, []),
        (Redispatched.UNKNOWN, []),
    ],
)
def test_instance_ends_only_after_its_job_is_settled(
    answer: Redispatched, ended: list[str]
) -> None:
    """The durable write comes first; where it is unknown the next run asks again."""
    world = World(redispatcher=Redispatcher(answer))
    report = world.sweep()
    assert world.ec2.ended == ended
    assert report.failures == (1 if answer is Redispatched.UNKNOWN else 0)


def test_ec2_that_does_not_answer_is_no_instance_gone() -> None:
    """An instance that could not be asked for is neither told nor terminated."""
    world = World()
    world.ec2.is_down = True
    assert world.sweep().outcome is SweepOutcome.FAILED
    assert world.departures.told == []
    assert world.redispatcher.asked == []


def test_unreadable_table_fails_the_run() -> None:
    """The message of the sweep comes back."""
    world = World()
    world.records.is_down = True
    with pytest.raises(RecordUnknownError):
        world.sweep()


def test_thousands_are_taken_a_part_at_a_time() -> None:
    """Each suspect costs the same few calls, and a run stops at its limit, oldest first."""
    world = World(records=Records(), ec2=Ec2())
    for number in range(1, 2001):
        world.records.add(record(number, updated_at=NOW - 10_000 + number))
        world.ec2.add(Leftover(key=f"i-{number}", state="running", since=NOW - 3600))
    report = world.sweep()
    assert (report.acted, report.is_unfinished) == (200, True)
    assert [job for job, _, _ in world.redispatcher.asked] == list(range(1, 201))
    assert world.ec2.calls == {"find": 200, "end": 200}
    assert world.records.calls == {"get": 200}
