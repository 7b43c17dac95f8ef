"""Re-runs: an interrupted job runs again at GitHub, alone and once, or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runsfleet_runtime.contract.messages import RerunMessage
from runsfleet_runtime.github import JobState
from runsfleet_runtime.github.job_runs import JobDetail, RerunAnswer, RunDetail
from runsfleet_runtime.interruptions.events import ReceivedEvent
from runsfleet_runtime.interruptions.reruns import (
    DEADLINE_SECONDS,
    LONGEST_DELAY,
    SETTLING_SECONDS,
    Reruns,
    Settled,
)
from runsfleet_runtime.jobs.model import Cause, JobRecord, JobStatus, Rerun
from tests.unit.interruptions.world import JOB, NOW, World, interrupted_record

FAILED = JobDetail(state=JobState.COMPLETED, conclusion="failure", completed_at=NOW - 5)
OVER = RunDetail(state=JobState.COMPLETED, attempt=1)
GOING_ON = RunDetail(state=JobState.IN_PROGRESS, attempt=1)


def world_of(
    job: JobDetail = FAILED,
    run: RunDetail = OVER,
    *,
    made: JobRecord | None = None,
    **parts: Any,
) -> World:
    """Return a world with an interrupted job whose re-run is pending."""
    world = World(jobs={1: job}, runs={7: run}, **parts)
    world.put(made or interrupted_record())
    return world


def take(world: World, tries: int = 0) -> bool:
    """Take the job's message; whether it is done with."""
    event = ReceivedEvent("m-1", "r-1", RerunMessage(job_id=1, tries=tries))
    return not world.events.take([event], deadline=world.now + 60)


def test_failed_job_of_a_completed_run_is_rerun() -> None:
    """Written first, then asked, then written and counted."""
    world = world_of()
    assert take(world)
    assert world.rerun_jobs == [1]
    assert world.story == ["rerun requested", "asked for re-run", "rerun done", "counted"]
    assert world.counted == {("JobsRerun", "done"): 1}
    assert world.sent == []


@pytest.mark.parametrize(
    ("job", "run"),
    [
        (FAILED, GOING_ON),
        (FAILED, RunDetail(state=JobState.UNKNOWN)),
        (JobDetail(state=JobState.IN_PROGRESS), GOING_ON),
        (JobDetail(state=JobState.WAITING), GOING_ON),
        (JobDetail(state=JobState.UNKNOWN), OVER),
    ],
)
def test_what_cannot_be_rerun_yet_waits(job: JobDetail, run: RunDetail) -> None:
    """Its message is sent again, later each time, and never beyond SQS's longest delay."""
    world = world_of(job, run)
    assert take(world, tries=0)
    assert take(world, tries=40)
    assert world.sent == [
        (RerunMessage(job_id=1, tries=1), 120.0),
        (RerunMessage(job_id=1, tries=41), LONGEST_DELAY),
    ]
    assert world.records[1].rerun is Rerun.PENDING
    assert world.counted == {}


@pytest.mark.parametrize(
    ("job", "changes"),
    [
        (replace(FAILED, conclusion="success"), {}),
        (replace(FAILED, conclusion="cancelled"), {}),
        (replace(FAILED, conclusion="timed_out"), {}),
        (JobDetail(state=JobState.GONE), {}),
        (FAILED, {"job": replace(JOB, run_attempt=2)}),
        (FAILED, {"may_rerun": False}),
        (FAILED, {"outcome": "failure"}),
        (FAILED, {"outcome": "success"}),
    ],
)
def test_what_must_not_be_rerun_never_is(job: JobDetail, changes: dict[str, Any]) -> None:
    """Success, cancelled, a second attempt, or an end that was the job's own: settled for good."""
    world = world_of(job, made=interrupted_record(**changes))
    assert take(world)
    assert take(world)
    assert world.asked["rerun"] == 0
    assert world.records[1].rerun is Rerun.GIVEN_UP
    assert world.counted == {("JobsRerun", "not_needed"): 1}


def test_job_that_its_runner_broke_off_is_rerun_whatever_github_calls_it() -> None:
    """The agent stops its runner at a warning, and GitHub may call the job cancelled.

    While it cannot be told from one that somebody cancelled, it waits.
    """
    world = world_of(replace(FAILED, conclusion="cancelled"), stopped={1}, faults={"annotations"})
    assert take(world)
    assert world.asked["rerun"] == 0
    assert len(world.sent) == 1
    world.faults.clear()
    assert take(world)
    assert world.rerun_jobs == [1]


def test_somebody_who_was_faster_leaves_nothing_to_do() -> None:
    """A person re-ran it, alone or with all failed jobs."""
    world = world_of(run=RunDetail(state=JobState.IN_PROGRESS, attempt=2))
    world.rerun_jobs.append(1)
    assert take(world)
    assert world.asked["rerun"] == 0
    assert world.records[1].rerun is Rerun.DONE
    assert world.counted == {("JobsRerun", "not_needed"): 1}


def test_two_interrupted_jobs_of_one_run_both_run_again() -> None:
    """The second waits for the attempt that the first began, which did not run it again."""
    world = world_of(run=RunDetail(state=JobState.IN_PROGRESS, attempt=2))
    world.rerun_jobs.append(2)
    assert take(world)
    assert world.asked["rerun"] == 0
    assert world.sent
    world.runs[7] = RunDetail(state=JobState.COMPLETED, attempt=2)
    world.faults = {"jobs of run"}
    assert take(world)
    assert world.asked["rerun"] == 0
    world.faults.clear()
    assert take(world)
    assert world.rerun_jobs == [2, 1]
    assert world.records[1].rerun is Rerun.DONE


def test_lost_answer_is_followed_by_a_question_and_not_by_a_second_request() -> None:
    """GitHub took the request, its answer was lost: the run's next attempt tells."""
    world = world_of(rerun_answers=[RerunAnswer.UNKNOWN])
    assert take(world)
    world.start_again(1)
    assert world.story == ["rerun requested", "asked for re-run", "sent"]
    assert len(world.sent) == 1
    world.now += 120
    assert take(world)
    assert world.rerun_jobs == [1]
    assert world.asked["rerun"] == 1
    assert world.records[1].rerun is Rerun.DONE
    assert world.counted == {("JobsRerun", "done"): 1}


def test_crash_before_the_request_is_made_up_for_once_github_has_settled() -> None:
    """Written but never asked: the effect would show by now, so it is asked for again."""
    made = interrupted_record(rerun=Rerun.REQUESTED, updated_at=NOW)
    world = world_of(made=made)
    assert take(world)
    assert world.asked["rerun"] == 0
    world.now += SETTLING_SECONDS
    assert take(world)
    assert world.rerun_jobs == [1]
    assert world.records[1].rerun is Rerun.DONE


def test_run_that_goes_on_again_is_awaited() -> None:
    """GitHub refuses with 403 as another attempt began in between."""
    world = world_of(rerun_answers=[RerunAnswer.RUNNING])
    assert take(world)
    assert world.records[1].rerun is Rerun.REQUESTED
    assert len(world.sent) == 1
    assert world.counted == {}


@pytest.mark.parametrize(
    "answer", [RerunAnswer.NOT_PERMITTED, RerunAnswer.REFUSED, RerunAnswer.GONE]
)
def test_refusal_is_final_and_told(answer: RerunAnswer, caplog: pytest.LogCaptureFixture) -> None:
    """A missing permission, above all, is an error in the log and a metric, and no loop."""
    world = world_of(rerun_answers=[answer])
    assert take(world)
    assert take(world)
    assert world.asked["rerun"] == 1
    assert world.records[1].rerun is Rerun.GIVEN_UP
    assert world.counted == {("JobsRerun", "given_up"): 1}
    (error,) = [entry for entry in caplog.records if entry.levelname == "ERROR"]
    if answer is RerunAnswer.NOT_PERMITTED:
        assert "actions: write" in vars(error)["reason"]


@pytest.mark.parametrize("run", [OVER, GOING_ON, RunDetail(state=JobState.UNKNOWN)])
def test_waiting_ends_after_a_day(run: RunDetail) -> None:
    """Whoever waits for the job looks at a red run by then; the end is told."""
    world = world_of(run=run, now=NOW + DEADLINE_SECONDS)
    assert take(world)
    assert world.asked["rerun"] == 0
    assert world.records[1].rerun is Rerun.GIVEN_UP
    assert world.counted == {("JobsRerun", "given_up"): 1}
    assert world.sent == []


def test_job_that_had_not_started_after_all_is_dispatched_again() -> None:
    """Its runner had started and GitHub was silent when it went; now it says queued."""
    world = world_of(JobDetail(state=JobState.QUEUED))
    assert take(world)
    ((message, cause),) = world.redispatched
    assert (message.on_demand, cause) == (True, Cause.INTERRUPTED)
    assert world.asked["rerun"] == 0
    assert take(world)
    assert len(world.redispatched) == 1


def test_open_record_waits_for_its_end() -> None:
    """The message overtook the write that closes the record."""
    world = world_of(made=interrupted_record(status=JobStatus.RUNNING, outcome=""))
    assert take(world)
    assert world.asked["rerun"] == 0
    assert len(world.sent) == 1


def test_two_workers_ask_once() -> None:
    """The one whose write is refused waits instead: the other may not come through."""
    world = world_of()
    stale = world.records[1]
    assert take(world)
    assert world.reruns.settle(stale, deadline=NOW + 60) is Settled.WAITING
    assert world.rerun_jobs == [1]


def test_message_that_cannot_be_sent_again_comes_back() -> None:
    """Otherwise nobody would look at the job again."""
    world = world_of(run=GOING_ON, faults={"events queue"})
    assert not take(world)


@pytest.mark.parametrize("made", [None, interrupted_record(rerun=None)])
def test_job_without_a_pending_rerun_is_done_with(made: JobRecord | None) -> None:
    """No record, or nothing awaited: GitHub is not even asked."""
    world = World()
    if made:
        world.put(made)
    assert take(world)
    assert (world.asked, world.story) == ({}, [])


def test_sweep_settles_the_same_way_without_our_metrics() -> None:
    """Another function may settle a record; each metric has one emitter."""
    world = world_of()
    reruns = Reruns(
        records=world,
        notes=world,
        github=world,
        redispatcher=world,
        queue=world,
        metrics=None,
        clock=lambda: world.now,
    )
    assert reruns.settle(world.records[1], deadline=NOW + 60) is Settled.SETTLED
    assert world.rerun_jobs == [1]
    assert world.counted == {}


def test_silent_github_gives_no_rerun_up() -> None:
    """The report of its own instance says nothing of a job that another one may have had."""
    world = World(faults={"github"})
    world.put(interrupted_record(outcome="success", interrupted_at=0.0))
    assert take(world)
    assert world.records[1].rerun is Rerun.PENDING
    assert [delay for _, delay in world.sent] == [120.0]
