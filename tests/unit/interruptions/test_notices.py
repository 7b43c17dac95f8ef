"""Spot warnings and recommendations: who is told what, in which order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runsfleet_runtime.circuit_breaker.model import Failure, FailureKind
from runsfleet_runtime.github import JobState, Removal
from runsfleet_runtime.github.job_runs import JobDetail
from runsfleet_runtime.interruptions.events import ReceivedEvent
from runsfleet_runtime.interruptions.model import RebalanceRecommendation, SpotWarning
from runsfleet_runtime.interruptions.ports import Instance
from runsfleet_runtime.jobs.model import Cause, JobStatus
from tests.unit.interruptions.world import JOB, NOW, OFFERING, World, record

WARNING = SpotWarning(instance_id="i-1", at=NOW - 2, action="terminate")
INSTANCE = Instance(
    instance_id="i-1",
    instance_type=OFFERING.instance_type,
    availability_zone=OFFERING.availability_zone,
    capacity_type=OFFERING.capacity_type,
    state="running",
    launched_at=NOW - 3600,
)
FAILURE = Failure(offering=OFFERING, kind=FailureKind.INTERRUPTION, at=NOW - 2, id="i-1")


def take(world: World, event: SpotWarning | RebalanceRecommendation = WARNING) -> bool:
    """Take one event; whether it is done with."""
    return not world.events.take([ReceivedEvent("m-1", "r-1", event)], deadline=NOW + 60)


def test_running_job_is_marked_then_counted() -> None:
    """Record first, then breaker, then metrics; the job itself is its agent's to stop."""
    world = World()
    world.put(record())
    assert take(world)
    assert world.records[1].interrupted_at == NOW - 2
    assert world.failures == {"i-1": FAILURE}
    assert world.counted == {("SpotInterruptions", "running"): 1}
    assert world.story == ["noted", "breaker", "counted"]
    assert world.redispatched == []


def test_job_that_waits_for_its_runner_is_dispatched_again_on_demand() -> None:
    """A warning before the job began: it is on the jobs queue again, one dispatch further.

    Its record can be claimed again before its message is visible, and spot is out of the question.
    """
    world = World(runners={"i-1": Removal.REMOVED}, jobs={1: JobDetail(state=JobState.QUEUED)})
    world.put(record(JobStatus.LAUNCHED))
    assert take(world)
    ((message, cause),) = world.redispatched
    assert (message.dispatch, message.on_demand, message.labels) == (1, True, JOB.labels)
    assert cause is Cause.INTERRUPTED
    assert world.records[1].status is JobStatus.QUEUED
    assert world.story == ["noted", "redispatched", "breaker", "counted"]
    assert world.counted == {("SpotInterruptions", "launched"): 1}
    assert world.forgotten == ["i-1"]


@pytest.mark.parametrize("removal", [Removal.BUSY, Removal.ABSENT])
def test_runner_that_may_have_the_job_keeps_it(removal: Removal) -> None:
    """Unless its runner was taken away at GitHub for certain, the job is left to its instance."""
    world = World(runners={"i-1": removal}, jobs={1: JobDetail(state=JobState.QUEUED)})
    world.put(record(JobStatus.LAUNCHED))
    assert take(world)
    assert world.redispatched == []
    assert world.records[1].interrupted_at == NOW - 2


@pytest.mark.parametrize("state", [JobState.IN_PROGRESS, JobState.UNKNOWN, JobState.COMPLETED])
def test_job_that_is_not_queued_for_certain_is_left_to_its_instance(state: JobState) -> None:
    """Without its runner the instance reports soon, or is gone soon: then GitHub is asked again."""
    world = World(runners={"i-1": Removal.REMOVED}, jobs={1: JobDetail(state=state)})
    world.put(record(JobStatus.LAUNCHED))
    assert take(world)
    assert world.redispatched == []


def test_silent_github_does_not_keep_the_warning() -> None:
    """Record and breaker know; the job waits for the report, or the end, of its instance."""
    world = World(faults={"github"})
    world.put(record(JobStatus.LAUNCHED))
    assert take(world)
    assert world.records[1].interrupted_at == NOW - 2
    assert world.failures == {"i-1": FAILURE}


def test_second_warning_counts_once() -> None:
    """EventBridge may deliver twice: one interruption, one failure of the offering."""
    world = World()
    world.put(record())
    assert take(world)
    assert take(world)
    assert world.counted == {("SpotInterruptions", "running"): 1}
    assert list(world.failures) == ["i-1"]


@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.EXPIRED])
def test_finished_job_is_not_touched(status: JobStatus) -> None:
    """A warning after the job's end changes no record and dispatches nothing."""
    world = World(runners={"i-1": Removal.REMOVED}, jobs={1: JobDetail(state=JobState.QUEUED)})
    world.put(before := record(status))
    assert take(world)
    assert world.records[1] == before
    assert (world.redispatched, world.removed) == ([], [])
    assert world.counted == {("SpotInterruptions", "without_job"): 1}


def test_warning_after_its_instance_handed_the_job_back_changes_no_record() -> None:
    """The agent saw the notice first; the interruption still counts, as one of a waiting job.

    Its message is sent once more, as nobody can tell whether it is out: it is the same message.
    """
    world = World()
    world.put(before := record(JobStatus.QUEUED))
    assert take(world)
    assert world.records[1] == before
    assert [message.dispatch for message, _ in world.redispatched] == [1]
    assert world.counted == {("SpotInterruptions", "launched"): 1}


def test_instance_of_others_is_acked_without_effect() -> None:
    """The account's other spot instances are none of our business."""
    world = World()
    assert take(world)
    assert (world.story, world.deferred, world.counted) == ([], [], {})


def test_own_instance_without_a_job_counts_for_its_offering() -> None:
    """No job, no dispatch; but the offering was interrupted."""
    world = World(instances={"i-1": INSTANCE})
    assert take(world)
    assert world.failures == {"i-1": FAILURE}
    assert world.counted == {("SpotInterruptions", "without_job"): 1}
    assert world.redispatched == []


def test_instance_that_is_just_being_configured_is_looked_at_again() -> None:
    """Its record is about to be written; the wait is bounded by the age of the instance."""
    young = {"i-1": replace(INSTANCE, launched_at=NOW - 5)}
    world = World(instances=young)
    assert not take(world)
    assert world.deferred == [("r-1", 30.0)]
    world.put(record(JobStatus.LAUNCHED))
    assert take(world)
    assert world.records[1].interrupted_at == NOW - 2

    forgotten = World(instances=young, now=NOW + 120)
    forgotten.events.take([ReceivedEvent("m-1", "r-1", WARNING)], deadline=NOW + 180)
    assert forgotten.deferred == []


@pytest.mark.parametrize("fault", ["table", "ec2"])
def test_unknown_is_no_answer(fault: str) -> None:
    """When table or EC2 are silent the event comes back, and nothing was done."""
    world = World(faults={fault})
    assert not take(world)
    assert world.story == []


def test_message_that_could_not_be_sent_brings_the_warning_back() -> None:
    """The record is claimable, its message is not out: the event must not be acked, nor counted."""
    world = World(
        runners={"i-1": Removal.REMOVED},
        jobs={1: JobDetail(state=JobState.QUEUED)},
        faults={"jobs queue"},
    )
    world.put(record(JobStatus.LAUNCHED))
    assert not take(world)
    assert world.counted == {}
    world.faults.clear()
    assert take(world)
    assert len(world.redispatched) == 1
    assert world.counted == {("SpotInterruptions", "launched"): 1}


def test_recommendations_are_counted_for_our_instances_only() -> None:
    """A recommendation is no interruption: nothing but a metric, and only if it is ours."""
    advice = RebalanceRecommendation(instance_id="i-1", at=NOW)
    world = World()
    assert take(world, advice)
    assert world.counted == {}
    world.instances["i-1"] = INSTANCE
    assert take(world, advice)
    world.put(before := record())
    assert take(world, advice)
    assert world.counted == {("RebalanceRecommendations", None): 2}
    assert world.records[1] == before
    assert world.failures == {}
    world.records.clear()
    world.faults = {"ec2"}
    assert not take(world, advice)
