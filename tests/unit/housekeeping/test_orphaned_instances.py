"""Orphaned instances: marked first, ended in a later pass, and only when nobody can need them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from runsfleet_runtime.github import Removal
from runsfleet_runtime.housekeeping.leftovers import Leftover
from runsfleet_runtime.housekeeping.model import SweepOutcome, TaskReport
from runsfleet_runtime.housekeeping.orphaned_instances import (
    Configured,
    Limits,
    OrphanedInstances,
)
from runsfleet_runtime.housekeeping.ports import SweepError
from runsfleet_runtime.jobs.model import JobStatus
from tests.unit.housekeeping.frame import NOW, Ec2, Frame, GitHub, Records, record

HOUR = 3600.0


def instance(number: int = 1, *, age: float = HOUR, **changes: Any) -> Leftover:
    """Return a running instance."""
    return replace(Leftover(key=f"i-{number}", state="running", since=NOW - age), **changes)


@dataclass
class World:
    """EC2, the jobs table, the configurations and GitHub."""

    ec2: Ec2 = field(default_factory=Ec2)
    records: Records = field(default_factory=Records)
    github: GitHub = field(default_factory=GitHub)
    frame: Frame = field(default_factory=Frame)
    configurations: dict[str, Configured] = field(default_factory=dict)

    def find(self, instance_id: str) -> Configured | None:
        return self.configurations.get(instance_id)

    def sweep(self) -> TaskReport:
        return self.frame.run(
            OrphanedInstances(
                instances=self.ec2,
                open_jobs=self.records,
                records=self.records,
                configurations=self,
                registrar=self.github,
                limits=Limits(config_timeout=300, lifetime=8 * HOUR),
                metrics=self.frame,
                clock=self.frame.clock,
            )
        )

    def later(self, seconds: float = 600) -> TaskReport:
        self.frame.now += seconds
        return self.sweep()


def test_the_size_of_the_fleet_is_told_by_who_reads_all_of_it() -> None:
    """Three instances are three, none is not told, and a part of them is no size."""
    world = World(ec2=Ec2().add(instance(1)).add(instance(2)).add(instance(3)))
    world.sweep()
    assert world.frame.counted["FleetSize"] == 3
    world = World()
    world.sweep()
    assert "FleetSize" not in world.frame.counted


def test_instance_whose_job_has_ended_is_marked_then_terminated() -> None:
    """The first pass marks, the next one within five minutes waits, the one after ends it."""
    world = World(ec2=Ec2().add(instance()))
    world.records.add(record(status=JobStatus.COMPLETED, completed_at=NOW - HOUR))
    world.sweep()
    assert world.ec2.there["i-1"].condemned_at == NOW
    assert world.later(200).acted == 0
    assert world.ec2.ended == []
    world.later(200)
    assert world.ec2.ended == ["i-1"]


def test_instance_without_a_record_is_an_orphan_once_it_is_old_enough() -> None:
    """Scenario 49: no record names it; a young one is still being recorded and is spared."""
    world = World(ec2=Ec2().add(instance(1, age=901), instance(2, age=800)))
    world.sweep()
    assert world.ec2.there["i-1"].condemned_at
    assert not world.ec2.there["i-2"].condemned_at
    world.later(300)
    assert world.ec2.ended == ["i-1"]
    assert world.ec2.there["i-2"].condemned_at


@pytest.mark.parametrize("status", [JobStatus.LAUNCHED, JobStatus.RUNNING])
def test_instance_with_an_open_job_is_spared_without_a_look(status: JobStatus) -> None:
    """What an open record names costs no call of its own."""
    world = World(ec2=Ec2().add(instance()))
    world.records.add(record(status=status))
    report = world.sweep()
    assert report.verdicts == {"spared: its job is open": 1}
    assert world.ec2.calls["find"] == world.records.calls["of_instance"] == 0


def test_former_owner_of_a_job_is_an_orphan() -> None:
    """The record names another instance by now: the first one serves nobody."""
    world = World(ec2=Ec2().add(instance(1), instance(2)))
    world.records.add(record(2, JobStatus.RUNNING))
    world.sweep()
    world.later()
    assert world.ec2.ended == ["i-1"]


def test_job_that_has_just_ended_gives_its_instance_time() -> None:
    """The agent uploads logs and ends its instance by itself; ten minutes are its own."""
    world = World(ec2=Ec2().add(instance()))
    world.records.add(record(status=JobStatus.COMPLETED, completed_at=NOW - 500))
    assert world.sweep().acted == 0
    assert world.later(200).acted == 1


def test_no_instance_outlives_its_lifetime() -> None:
    """An agent-less instance (scenario 51) is ended even though its record is open."""
    world = World(ec2=Ec2().add(instance(age=8 * HOUR + 601)))
    world.records.add(record(status=JobStatus.RUNNING))
    world.configurations["i-1"] = Configured("octo-org/hello", has_ended=False)
    world.github.removal = Removal.BUSY
    world.sweep()
    world.later()
    assert world.ec2.ended == ["i-1"]


def test_runner_with_a_job_of_another_keeps_its_instance() -> None:
    """A runner takes any job of its labels: GitHub says that it has one, so it lives."""
    world = World(ec2=Ec2().add(instance()))
    world.configurations["i-1"] = Configured("octo-org/hello", has_ended=False)
    world.github.removal = Removal.BUSY
    world.sweep()
    world.later()
    assert world.ec2.ended == []
    world.github.removal = Removal.REMOVED
    world.later()
    assert world.ec2.ended == ["i-1"]


def test_unknown_answers_destroy_nothing() -> None:
    """GitHub or the table that does not answer spares the instance, and counts as a failure."""
    world = World(ec2=Ec2().add(instance(condemned_at=NOW - HOUR)))
    world.configurations["i-1"] = Configured("octo-org/hello", has_ended=False)
    world.github.is_down = True
    assert world.sweep().failures == 1
    world.github.is_down = False
    world.configurations["i-1"] = Configured("", has_ended=False)  # whose runner is unknown
    assert world.sweep().spared == 1
    assert world.ec2.ended == []


def test_record_tells_where_the_runner_is_when_the_store_does_not() -> None:
    """Parameter Store holds the repository encrypted; the record of the job names it."""
    world = World(ec2=Ec2().add(instance(condemned_at=NOW - HOUR)))
    world.records.add(record(status=JobStatus.COMPLETED, completed_at=NOW - HOUR))
    world.configurations["i-1"] = Configured("", has_ended=False)
    world.github.removal = Removal.BUSY
    world.sweep()
    assert world.ec2.ended == []
    world.github.removal = Removal.ABSENT
    world.sweep()
    assert world.ec2.ended == ["i-1"]


def test_runner_whose_end_was_noted_needs_no_question() -> None:
    """An instance that reported its end is ended even while GitHub does not answer."""
    world = World(ec2=Ec2().add(instance(condemned_at=NOW - HOUR)))
    world.configurations["i-1"] = Configured("octo-org/hello", has_ended=True)
    world.github.is_down = True
    world.sweep()
    assert world.ec2.ended == ["i-1"]


def test_condemned_one_that_became_legitimate_is_pardoned() -> None:
    """A record that appeared after the mark takes it away."""
    world = World(ec2=Ec2().add(instance(condemned_at=NOW - HOUR)))
    world.records.add(record(status=JobStatus.RUNNING))
    report = world.sweep()
    assert report.verdicts == {"pardon: its job is open": 1}
    assert not world.ec2.there["i-1"].condemned_at


def test_job_that_appears_right_before_the_end_saves_its_instance() -> None:
    """Scenario 45: instance and record are read again immediately before the termination."""
    world = World(ec2=Ec2().add(instance(condemned_at=NOW - HOUR)))
    world.ec2.on_find = lambda _: world.records.add(record(status=JobStatus.RUNNING))
    world.sweep()
    assert world.ec2.ended == []


def test_keep_tag_set_meanwhile_wins() -> None:
    """An operator's keep tag is seen in the second look, and over every rule."""
    world = World(ec2=Ec2().add(instance(age=90 * HOUR, condemned_at=NOW - HOUR)))
    world.ec2.on_find = lambda key: world.ec2.add(replace(world.ec2.there[key], is_kept=True))
    report = world.sweep()
    assert report.verdicts == {"spared: it has the keep tag": 1}
    assert world.ec2.ended == []


def test_stopped_instance_without_a_pool_is_reaped() -> None:
    """Scenario 50: its disk is billed for ever; a pool's spare is none of it."""
    world = World(
        ec2=Ec2().add(
            instance(1, state="stopped", age=90 * HOUR),
            instance(2, state="stopped", age=90 * HOUR, pool="default"),
        )
    )
    world.sweep()
    world.later(HOUR - 60)
    assert world.ec2.ended == []
    world.later(120)
    assert world.ec2.ended == ["i-1"]
    assert not world.ec2.there["i-2"].condemned_at


def test_idle_member_of_a_pool_is_spared() -> None:
    """A pool's instance that waits without a configuration is not an orphan."""
    world = World(ec2=Ec2().add(instance(pool="default")))
    assert world.sweep().verdicts == {"spared: it waits in a pool": 1}


def test_unreadable_table_ends_nothing() -> None:
    """When the jobs table does not answer the run fails before any instance is looked at."""
    world = World(ec2=Ec2().add(instance(condemned_at=NOW - HOUR)))
    world.records.is_down = True
    with pytest.raises(Exception, match="throttled"):
        world.sweep()
    assert world.ec2.ended == []
    assert world.frame.counted["SweepRunsFailed"] == 1


def test_record_that_cannot_be_read_spares_its_instance() -> None:
    """Scenario 49: an error of the look-up is no proof that there is no record."""
    world = World(ec2=Ec2().add(instance(condemned_at=NOW - HOUR)))

    def fail(_: str) -> None:
        world.records.is_down = True

    world.ec2.on_find = fail
    report = world.sweep()
    assert (report.failures, report.outcome) == (1, SweepOutcome.FAILED)
    assert world.ec2.ended == []


def test_one_termination_that_fails_does_not_stop_the_others() -> None:
    """Instances are terminated one at a time; what failed is marked still and comes again."""
    world = World(ec2=Ec2(refused={"i-1"}))
    world.ec2.add(*(instance(n, condemned_at=NOW - HOUR) for n in (1, 2)))
    report = world.sweep()
    assert (report.acted, report.failures) == (1, 1)
    assert world.ec2.ended == ["i-2"]
    world.ec2.refused.clear()
    world.sweep()
    assert world.ec2.ended == ["i-2", "i-1"]


def test_ec2_that_does_not_answer_is_a_failure() -> None:
    """A sweep that cannot list instances does not look like one that found none."""
    world = World(ec2=Ec2(is_down=True))
    with pytest.raises(SweepError):
        world.sweep()


def test_fifteen_thousand_instances_cost_a_call_a_page() -> None:
    """With 15,000 busy runners the cost is that of the pages: none is asked for by itself."""
    world = World()
    world.ec2.add(*(instance(n) for n in range(15_000)))
    world.records.add(*(record(n, JobStatus.RUNNING) for n in range(15_000)))
    report = world.sweep()
    assert (report.selected, report.spared) == (15_000, 15_000)
    assert world.ec2.calls == {"pages": 15}
    assert world.records.calls == {"open_jobs": 150}
