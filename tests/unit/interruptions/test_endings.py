"""Jobs that ended at GitHub: what was made for them goes, and only that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runsfleet_runtime.contract.messages import JobEndedMessage, RerunMessage
from runsfleet_runtime.github import JobState, Removal
from runsfleet_runtime.github.job_runs import JobDetail, RunDetail
from runsfleet_runtime.interruptions.events import ReceivedEvent
from runsfleet_runtime.jobs.model import JobStatus, Rerun
from tests.unit.interruptions.world import JOB, NOW, World, interrupted_record, record


def ended(**changes: Any) -> JobEndedMessage:
    """Return the message of a job that was cancelled before it had a runner."""
    fields: dict[str, Any] = {
        "job_id": JOB.job_id,
        "run_id": JOB.run_id,
        "run_attempt": 1,
        "repository": JOB.repository,
        "labels": JOB.labels,
        "conclusion": "cancelled",
    }
    return JobEndedMessage(**(fields | changes))


def take(world: World, message: JobEndedMessage) -> bool:
    """Take one event; whether it is done with."""
    return not world.events.take([ReceivedEvent("m-1", "r-1", message)], deadline=NOW + 60)


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.CLAIMED])
def test_cancelled_job_without_an_instance_is_closed(status: JobStatus) -> None:
    """Nothing is launched for it any more."""
    world = World()
    world.put(record(status, instance_id=""))
    assert take(world, ended())
    assert world.records[1].status is JobStatus.COMPLETED
    assert world.terminated == []
    assert world.counted == {("JobsCancelled", None): 1}


def test_job_that_dispatch_has_not_seen_is_closed_beforehand() -> None:
    """The end may overtake the job's own message on the other queue."""
    world = World()
    assert take(world, ended(conclusion="skipped"))
    assert world.story == ["cancelled", "counted"]


def test_instance_that_waits_for_a_cancelled_job_is_ended_at_once() -> None:
    """Its runner was idle and is deregistered: no other job can be given to it any more."""
    world = World(runners={"i-1": Removal.REMOVED})
    world.put(record(JobStatus.LAUNCHED))
    assert take(world, ended())
    assert world.records[1].status is JobStatus.COMPLETED
    assert (world.removed, world.terminated, world.forgotten) == (["i-1"], ["i-1"], ["i-1"])
    assert world.counted == {("JobsCancelled", None): 1, ("InstancesReleased", None): 1}


@pytest.mark.parametrize("removal", [Removal.BUSY, Removal.ABSENT])
def test_instance_whose_runner_may_have_another_job_lives(removal: Removal) -> None:
    """Runners are bound to labels: this one may have been given another job, or may be soon."""
    world = World(runners={"i-1": removal})
    world.put(record(JobStatus.LAUNCHED))
    assert take(world, ended())
    assert world.terminated == []


def test_silent_github_ends_no_instance() -> None:
    """When in doubt the instance is left to its idle timeout; the record is closed all the same."""
    world = World(runners={"i-1": Removal.REMOVED}, faults={"github"})
    world.put(record(JobStatus.LAUNCHED))
    assert take(world, ended())
    assert world.records[1].status is JobStatus.COMPLETED
    assert world.terminated == []


def test_instance_that_could_not_be_ended_is_left_to_itself() -> None:
    """Its registration is gone, so its runner ends; nothing is counted that did not happen."""
    world = World(runners={"i-1": Removal.REMOVED}, faults={"ec2"})
    world.put(record(JobStatus.LAUNCHED))
    assert take(world, ended())
    assert world.counted == {("JobsCancelled", None): 1}


def test_repeated_end_counts_once_and_ends_once() -> None:
    """A redelivered webhook, or a crash after the record was closed."""
    world = World(runners={"i-1": Removal.REMOVED})
    world.put(record(JobStatus.LAUNCHED))
    assert take(world, ended())
    assert take(world, ended())
    assert world.terminated == ["i-1"]
    assert world.counted == {("JobsCancelled", None): 1, ("InstancesReleased", None): 1}

    crashed = World(runners={"i-1": Removal.REMOVED})
    crashed.put(record(JobStatus.COMPLETED, outcome="cancelled"))
    assert take(crashed, ended())
    assert crashed.terminated == ["i-1"]


def test_job_that_another_machine_ran_is_closed_too() -> None:
    """Somebody else's runner has the same labels: ours is not needed any more."""
    world = World(runners={"i-1": Removal.REMOVED})
    world.put(record(JobStatus.LAUNCHED))
    assert take(world, ended(conclusion="success", runner_name="a-mac-under-a-desk"))
    assert world.terminated == ["i-1"]


@pytest.mark.parametrize("conclusion", ["failure", "cancelled"])
@pytest.mark.parametrize("status", [JobStatus.LAUNCHED, JobStatus.RUNNING, JobStatus.COMPLETED])
def test_end_on_a_runner_of_ours_is_its_instances_to_tell(
    status: JobStatus, conclusion: str
) -> None:
    """A red job that ran on our runner is neither dispatched nor run again, nor closed here."""
    world = World(runners={"i-1": Removal.REMOVED}, jobs={1: JobDetail(state=JobState.COMPLETED)})
    world.put(before := record(status))
    assert take(world, ended(conclusion=conclusion, runner_name="runsfleet-i-1"))
    assert world.records[1] == before
    assert (world.story, world.asked) == ([], {})


def test_failure_of_an_interrupted_job_is_rerun_at_once() -> None:
    """Its record awaits just this; found by the job's own id."""
    world = World(
        jobs={1: JobDetail(state=JobState.COMPLETED, conclusion="failure", completed_at=NOW)},
        runs={7: RunDetail(state=JobState.COMPLETED, attempt=1)},
    )
    world.put(interrupted_record())
    message = ended(conclusion="failure", runner_name="runsfleet-i-1")
    take(world, ended(job_id=2, conclusion="failure", runner_name="runsfleet-i-1"))
    assert world.rerun_jobs == []
    assert take(world, message)
    assert take(world, message)
    assert world.rerun_jobs == [1]
    assert world.records[1].rerun is Rerun.DONE
    assert world.counted == {("JobsRerun", "done"): 1}


def test_failure_that_overtakes_the_report_of_an_interruption_is_looked_at_soon() -> None:
    """GitHub's word comes before the instance's, which makes the re-run pending."""
    world = World(jobs={1: JobDetail(state=JobState.COMPLETED, conclusion="failure")})
    world.put(before := record(interrupted_at=NOW - 30))
    message = ended(conclusion="failure", runner_name="runsfleet-i-1")
    assert take(world, message)
    assert world.records[1] == before
    assert world.sent == [(RerunMessage(job_id=1), 15.0)]
    world.faults = {"events queue"}
    assert not take(world, message)


SWAPPED = ended(conclusion="failure", runner_name="runsfleet-i-2")
"""The job of i-1 ran on i-2, which was launched for another job."""


def swapped(own: JobStatus, **former: Any) -> World:
    """Return a world with the job of i-1, which failed, and the record of what i-2 was for."""
    world = World(
        jobs={
            1: JobDetail(
                state=JobState.COMPLETED,
                conclusion="failure",
                runner_name="runsfleet-i-2",
                completed_at=NOW,
            )
        },
        runs={7: RunDetail(state=JobState.COMPLETED, attempt=1)},
    )
    world.put(record(own, outcome="unused" if own is JobStatus.COMPLETED else ""))
    other = replace(JOB, job_id=2)
    world.put(replace(interrupted_record(**former), job=other, instance_id="i-2", rerun=None))
    return world


@pytest.mark.parametrize("own", [JobStatus.LAUNCHED, JobStatus.RUNNING, JobStatus.COMPLETED])
def test_job_that_another_jobs_instance_broke_off_is_rerun_too(own: JobStatus) -> None:
    """A runner takes any job of its labels: the interruption is in the record of another job."""
    world = swapped(own)
    assert take(world, SWAPPED)
    assert world.records[1].rerun is (Rerun.DONE if own is JobStatus.COMPLETED else Rerun.PENDING)
    if own is not JobStatus.COMPLETED:  # its own instance has not reported yet
        world.put(replace(world.records[1], status=JobStatus.COMPLETED, outcome="unused"))
        assert take(world, SWAPPED)
    assert world.rerun_jobs == [1]


def test_failure_on_another_jobs_healthy_instance_is_the_jobs_own() -> None:
    """That instance reported an end of its own, not an interruption."""
    world = swapped(JobStatus.COMPLETED, outcome="failure", interrupted_at=0.0)
    assert take(world, SWAPPED)
    assert (world.records[1].rerun, world.rerun_jobs) == (None, [])


def test_other_instance_that_has_not_reported_is_awaited() -> None:
    """Whether it was interrupted shows in its report, or in its end."""
    world = swapped(JobStatus.COMPLETED, status=JobStatus.RUNNING, outcome="", interrupted_at=0.0)
    assert take(world, SWAPPED)
    assert world.sent == [(SWAPPED, 90.0)]


@pytest.mark.parametrize("own", [JobStatus.QUEUED, JobStatus.CLAIMED])
def test_job_that_still_waits_for_its_own_launch_is_rerun_however_long_that_takes(
    own: JobStatus,
) -> None:
    """It may wait for hours, for a slot or for capacity: no receive of a message is used up."""
    world = swapped(own)
    waiting = replace(world.records[1], instance_id="", runner_name="")
    world.put(waiting)
    for _ in range(9):
        assert take(world, SWAPPED)
    assert (world.sent, world.deferred) == ([(SWAPPED, 90.0)] * 9, [])
    assert world.records[1] == waiting
    world.put(record(JobStatus.COMPLETED, outcome="unused"))
    assert take(world, SWAPPED)
    assert world.rerun_jobs == [1]
    world.put(waiting)
    world.faults = {"events queue"}
    assert not take(world, SWAPPED)


@pytest.mark.parametrize("own", [JobStatus.QUEUED, JobStatus.CLAIMED])
def test_job_that_failed_by_itself_keeps_the_launch_that_serves_the_other(own: JobStatus) -> None:
    """Its launch serves the job whose runner it took; the event does not come back for it."""
    world = swapped(own, outcome="success", interrupted_at=0.0)
    world.records[1] = replace(world.records[1], instance_id="", runner_name="")
    before = world.records[1]
    assert take(world, SWAPPED)
    assert (world.records[1], world.sent, world.deferred) == (before, [], [])


def test_instance_whose_own_job_was_handed_back_meanwhile_is_told_by_the_note() -> None:
    """A sweep saw that it had another job, and dispatched its own again."""
    world = swapped(JobStatus.COMPLETED, status=JobStatus.QUEUED, outcome="", interrupted_at=0.0)
    world.stopped = {1}
    assert take(world, SWAPPED)
    assert world.rerun_jobs == [1]


def test_cancelled_job_that_was_queued_again_is_closed_although_a_rerun_was_awaited() -> None:
    """It had not started after all, was dispatched again, and then somebody cancelled it."""
    world = World()
    world.put(interrupted_record(status=JobStatus.QUEUED, outcome="", completed_at=0.0))
    assert take(world, ended())
    assert world.records[1].status is JobStatus.COMPLETED


@pytest.mark.parametrize(("stopped", "expected"), [({1}, [1]), (set(), [])])
def test_where_no_record_tells_of_the_instance_the_note_at_the_job_counts(
    stopped: set[int], expected: list[int]
) -> None:
    """The other job was cancelled while its instance served this one."""
    world = swapped(JobStatus.COMPLETED, outcome="cancelled", interrupted_at=0.0)
    world.stopped = stopped
    assert take(world, SWAPPED)
    assert world.rerun_jobs == expected


def test_job_that_the_fleet_has_not_heard_of_is_waited_for() -> None:
    """Its announcement was lost, and is delivered again; then it can be re-run."""
    world = swapped(JobStatus.COMPLETED)
    own = world.records.pop(1)
    assert not take(world, SWAPPED)
    assert world.deferred == [("r-1", 400.0)]
    world.put(own)
    assert take(world, SWAPPED)
    assert world.rerun_jobs == [1]


def test_unknown_job_on_a_sound_or_unknown_instance_is_not_waited_for() -> None:
    """It failed by itself, or is another fleet's."""
    world = swapped(JobStatus.COMPLETED, outcome="success", interrupted_at=0.0)
    del world.records[1]
    assert take(world, SWAPPED)
    del world.records[2]
    assert take(world, SWAPPED)
    assert world.deferred == []


def test_rerun_that_must_wait_keeps_its_own_turn() -> None:
    """Its message is on the queue since the interruption: none is added."""
    world = World(
        jobs={1: JobDetail(state=JobState.COMPLETED, conclusion="failure")},
        runs={7: RunDetail(state=JobState.IN_PROGRESS, attempt=1)},
    )
    world.put(interrupted_record())
    assert take(world, ended(conclusion="failure", runner_name="runsfleet-i-1"))
    assert (world.sent, world.rerun_jobs) == ([], [])
    assert world.records[1].rerun is Rerun.PENDING


def test_silent_table_brings_the_end_back() -> None:
    """No instance is touched before the record is closed."""
    world = World(runners={"i-1": Removal.REMOVED}, faults={"table"})
    world.put(record(JobStatus.LAUNCHED))
    assert not take(world, ended())
    assert (world.removed, world.terminated) == ([], [])
