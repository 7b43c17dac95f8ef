"""Instances that are gone: whose job was left behind, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runsfleet_runtime.contract.messages import ReportStatus, RerunMessage
from runsfleet_runtime.github import JobState, Removal
from runsfleet_runtime.github.job_runs import JobDetail
from runsfleet_runtime.interruptions.departures import GRACE_SECONDS
from runsfleet_runtime.interruptions.events import ReceivedEvent
from runsfleet_runtime.interruptions.model import InstanceLeft, Irrelevant
from runsfleet_runtime.interruptions.ports import Instance
from runsfleet_runtime.jobs.model import Cause, JobStatus, Rerun
from tests.unit.interruptions.world import NOW, World, record

AT = NOW - GRACE_SECONDS
LEFT = InstanceLeft(instance_id="i-1", at=AT, state="terminated")
ON_OURS = JobDetail(state=JobState.IN_PROGRESS, runner_name="runsfleet-i-1")


def take(world: World, left: InstanceLeft = LEFT) -> bool:
    """Take one event; whether it is done with."""
    return not world.events.take([ReceivedEvent("m-1", "r-1", left)], deadline=NOW + 60)


def ended(conclusion: str, *, at: float) -> JobDetail:
    """Return a job that ended on the runner of i-1."""
    return JobDetail(
        state=JobState.COMPLETED,
        conclusion=conclusion,
        runner_name="runsfleet-i-1",
        completed_at=at,
    )


@pytest.mark.parametrize("state", ["shutting-down", "terminated"])
def test_end_of_an_instance_whose_job_is_closed_is_nothing(state: str) -> None:
    """Nearly all ends are of this kind: no interruption, no question, no metric."""
    world = World()
    world.put(before := record(JobStatus.COMPLETED, outcome="success"))
    assert take(world, replace(LEFT, state=state))
    assert world.records[1] == before
    assert (world.asked, world.counted, world.failures) == ({}, {}, {})


def test_report_that_is_on_its_way_is_awaited_once() -> None:
    """An event that overtook the agent's report comes back after the grace, and is acked then."""
    world = World()
    world.put(record())
    assert not take(world, replace(LEFT, at=NOW - 10))
    assert world.deferred == [("r-1", GRACE_SECONDS - 10)]
    assert world.asked == {}
    world.put(record(JobStatus.COMPLETED, outcome="success"))
    assert take(world, replace(LEFT, at=NOW - 10))


def test_ends_of_a_batch_cost_one_question() -> None:
    """Of ten instances that have left their jobs, and one of others, no job is looked up."""
    world = World()
    for number in range(10):
        done = record(JobStatus.COMPLETED, instance_id=f"i-{number}")
        world.put(replace(done, job=replace(done.job, job_id=number + 1)))
    batch = [
        ReceivedEvent(f"m-{n}", f"r-{n}", replace(LEFT, instance_id=f"i-{n}", at=AT - 1))
        for n in range(11)
    ]
    assert world.events.take(batch, deadline=NOW + 60) == set()
    assert (world.looks, world.lookups) == (1, 0)


def test_event_that_comes_back_is_looked_into() -> None:
    """What it asked for may have been begun: a record that was flipped, and no message sent."""
    world = World()
    world.put(record(JobStatus.QUEUED))
    world.events.take([ReceivedEvent("m-1", "r-1", LEFT, receives=2)], deadline=NOW + 60)
    assert world.lookups == 1
    assert [cause for _, cause in world.redispatched] == [Cause.INSTANCE_GONE]


def test_without_the_table_of_instances_ends_come_back() -> None:
    """Other events of the batch are taken."""
    world = World(faults={"table"})
    batch = [
        ReceivedEvent("m-1", "r-1", LEFT),
        ReceivedEvent("m-2", "r-2", Irrelevant("another kind")),
    ]
    assert world.events.take(batch, deadline=NOW + 60) == {"m-1"}


def test_instance_without_a_record_is_looked_at_twice() -> None:
    """Dispatch may just be recording the launch; an instance of others is acked afterwards."""
    world = World()
    assert not take(world, replace(LEFT, at=NOW))
    assert world.deferred == [("r-1", GRACE_SECONDS)]
    assert take(world)
    assert world.story == []


@pytest.mark.parametrize("status", [JobStatus.LAUNCHED, JobStatus.RUNNING])
@pytest.mark.parametrize(
    ("interrupted_at", "cause"),
    [(0.0, Cause.INSTANCE_GONE), (NOW - 200, Cause.INTERRUPTED)],
)
def test_job_that_github_still_has_queued_is_dispatched_again(
    status: JobStatus, interrupted_at: float, cause: Cause
) -> None:
    """Its instance never served it; spot is out of the question only after an interruption."""
    world = World(jobs={1: JobDetail(state=JobState.QUEUED)}, runners={"i-1": Removal.REMOVED})
    world.put(record(status, interrupted_at=interrupted_at))
    assert take(world)
    ((message, found),) = world.redispatched
    assert found is cause
    assert message.on_demand is (cause is Cause.INTERRUPTED)
    assert set(world.forgotten) == {"i-1"}
    assert world.removed == ["i-1"]
    assert world.counted == {("InstancesLost", "redispatched"): 1}
    assert world.failures == {}


def test_unknown_launches_what_never_started_and_waits_for_what_had() -> None:
    """When GitHub is silent: a runner that never started cannot have served anything."""
    launched = World(faults={"github"})
    launched.put(record(JobStatus.LAUNCHED))
    assert take(launched)
    assert len(launched.redispatched) == 1

    running = World(faults={"github"})
    running.put(record())
    assert take(running)
    assert running.redispatched == []
    assert running.records[1].rerun is Rerun.PENDING


def test_job_that_was_running_is_closed_and_awaits_its_rerun() -> None:
    """The note of the re-run and its message are durable before the record is closed."""
    world = World(jobs={1: ON_OURS})
    world.put(record())
    assert take(world)
    closed = world.records[1]
    assert (closed.status, closed.outcome) == (JobStatus.COMPLETED, "interrupted")
    assert closed.rerun is Rerun.PENDING
    assert world.sent == [(RerunMessage(job_id=1), 60.0)]
    assert world.story == ["rerun pending", "sent", "closed", "counted"]
    (report,) = world.closed
    assert report.has_served
    assert "without a report" in report.error
    assert world.counted == {("InstancesLost", "rerun"): 1}


def test_job_whose_label_forbids_it_awaits_no_rerun() -> None:
    """retry=false: its record is closed as interrupted, and the job stays as GitHub ends it."""
    world = World(jobs={1: ON_OURS})
    world.put(record(may_rerun=False))
    assert take(world)
    assert world.records[1].outcome == "interrupted"
    assert world.records[1].rerun is None
    assert world.sent == []


@pytest.mark.parametrize("fault", ["events queue", "closing"])
def test_crash_in_between_is_made_up_for(fault: str) -> None:
    """Whatever failed after the note, the event comes back and the record is closed once."""
    world = World(jobs={1: ON_OURS}, faults={fault})
    world.put(record())
    assert not take(world)
    world.faults.clear()
    assert take(world)
    assert len(world.closed) == 1
    assert world.story.count("rerun pending") == 1
    assert world.sent


@pytest.mark.parametrize("seen", [JobDetail(state=JobState.QUEUED), JobDetail(state=JobState.GONE)])
def test_report_that_comes_while_github_is_asked_wins(
    seen: JobDetail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was observed does not hold any more: nothing is done, and nothing is counted."""
    world = World()
    world.put(record())

    def job(*_: object, **__: object) -> JobDetail:
        world.put(record(JobStatus.COMPLETED, outcome="success"))
        return seen

    monkeypatch.setattr(world, "job", job)
    assert take(world)
    assert world.records[1].outcome == "success"
    assert (world.redispatched, world.closed, world.counted) == ([], [], {})


@pytest.mark.parametrize(
    "seen",
    [
        JobDetail(state=JobState.IN_PROGRESS, runner_name="runsfleet-i-2"),
        JobDetail(state=JobState.COMPLETED, conclusion="success", runner_name="runsfleet-i-2"),
        JobDetail(state=JobState.WAITING),
        JobDetail(state=JobState.GONE),
    ],
)
def test_job_that_needs_nothing_of_us_is_closed_as_unserved(seen: JobDetail) -> None:
    """It runs on another runner, waits at GitHub or is deleted: a claim may be made anew later."""
    world = World(jobs={1: seen})
    world.put(record())
    assert take(world)
    (report,) = world.closed
    assert not report.has_served
    assert world.records[1].rerun is None
    assert (world.redispatched, world.sent) == ([], [])
    assert world.counted == {("InstancesLost", "closed"): 1}


@pytest.mark.parametrize(
    ("seen", "interrupted_at", "outcome", "rerun"),
    [
        (ended("success", at=AT + 5), NOW - 200, ReportStatus.SUCCESS, None),
        (ended("timed_out", at=AT + 5), NOW - 200, ReportStatus.FAILURE, None),
        (ended("cancelled", at=NOW - 300), NOW - 200, ReportStatus.FAILURE, None),
        # it had failed before EC2 came
        (ended("failure", at=NOW - 300), NOW - 200, ReportStatus.FAILURE, None),
        (ended("failure", at=AT - 20), 0.0, ReportStatus.FAILURE, None),
        # the agent stopped it at the warning, or it went with its instance
        (ended("failure", at=NOW - 150), NOW - 200, ReportStatus.INTERRUPTED, Rerun.PENDING),
        (ended("failure", at=AT + 20), 0.0, ReportStatus.INTERRUPTED, Rerun.PENDING),
        (ended("cancelled", at=NOW - 150), NOW - 200, ReportStatus.INTERRUPTED, Rerun.PENDING),
    ],
)
def test_job_that_ended_on_it_is_recorded_as_github_says(
    seen: JobDetail, interrupted_at: float, outcome: ReportStatus, rerun: Rerun | None
) -> None:
    """Only the report was lost; a failure counts as ours if it came with the interruption."""
    world = World(jobs={1: seen})
    world.put(record(interrupted_at=interrupted_at))
    assert take(world)
    assert world.records[1].outcome == outcome
    assert world.records[1].rerun is rerun


def test_late_event_asks_what_broke_a_job_off() -> None:
    """Its time says nothing of which came first; the runner's note at the job does."""
    world = World(jobs={1: ended("failure", at=AT - 20)}, stopped={1}, faults={"annotations"})
    world.put(record())
    assert not take(world)
    assert world.closed == []
    world.faults.clear()
    assert take(world)
    assert world.records[1].rerun is Rerun.PENDING


def test_repeated_events_change_nothing_more() -> None:
    """shutting-down, terminated and their repetitions: one re-run is awaited, one record closed."""
    world = World(jobs={1: ON_OURS})
    world.put(record())
    for state in ("shutting-down", "terminated", "terminated"):
        assert take(world, replace(LEFT, state=state))
    assert len(world.closed) == 1
    assert len(world.sent) == 1
    assert sum(world.counted.values()) == 1


def test_stopped_instance_that_runs_again_is_left_alone() -> None:
    """A spare's own stop may be told after it was started for a job."""
    instance = Instance(
        instance_id="i-1",
        instance_type="t",
        availability_zone="z",
        capacity_type="on-demand",
        state="running",
        launched_at=NOW - 3600,
    )
    world = World(instances={"i-1": instance}, jobs={1: JobDetail(state=JobState.QUEUED)})
    world.put(record(JobStatus.LAUNCHED))
    stopped = replace(LEFT, state="stopped")
    assert take(world, stopped)
    assert world.redispatched == []
    world.faults = {"ec2"}
    assert not take(world, stopped)
    assert world.redispatched == []
    world.faults.clear()
    world.instances["i-1"] = replace(instance, state="stopped")
    assert take(world, stopped)
    assert len(world.redispatched) == 1


def test_what_could_not_be_cleared_is_left_to_the_sweeps() -> None:
    """Store and GitHub being silent must not undo or repeat what was decided."""
    world = World(jobs={1: JobDetail(state=JobState.GONE)}, faults={"store", "github"})
    world.put(record(JobStatus.LAUNCHED))
    assert take(world)
    assert len(world.redispatched) == 1
    assert world.counted == {("InstancesLost", "redispatched"): 1}


def test_table_that_is_silent_brings_the_event_back() -> None:
    """Nothing is asked, closed or dispatched meanwhile."""
    world = World(faults={"table"})
    world.put(record())
    assert not take(world)
    assert world.story == []
