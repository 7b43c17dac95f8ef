"""Whatever order EC2, the agent and GitHub tell it in: one dispatch, or one re-run, never both.

The story: an instance is warned and goes; its agent may report, or not; GitHub, minutes later,
fails the job if it had begun and keeps it queued if it had not. Every message may come early, late,
twice, or be interrupted by a table, a queue or a GitHub that is silent for a while.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runsfleet_runtime.contract.messages import (
    JobEndedMessage,
    ReportStatus,
    RerunMessage,
    RunnerReport,
)
from runsfleet_runtime.github import JobState, Removal
from runsfleet_runtime.github.job_runs import JobDetail, RunDetail
from runsfleet_runtime.interruptions.events import ReceivedEvent
from runsfleet_runtime.interruptions.model import Event, InstanceLeft, SpotWarning
from runsfleet_runtime.jobs.model import Cause, JobStatus, Rerun
from tests.unit.interruptions.world import JOB, NOW, World, record

GONE_AT = NOW + 120.0
FAILED_AT = NOW + 600.0
FAULTS = ("table", "github", "ec2", "events queue", "jobs queue", "closing", "run")
LAST = 20_000.0  # seconds; by then every wait has ended


@dataclass
class Story:
    """Plays messages in the order of their times, as queues would deliver them."""

    has_started: bool
    has_listened: bool = False
    world: World = field(default_factory=World)
    line: list[tuple[float, int, Event | RunnerReport]] = field(default_factory=list)
    numbers: itertools.count[int] = field(default_factory=itertools.count)
    silences: list[tuple[float, float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        is_running = self.has_started or self.has_listened
        self.world.put(record(JobStatus.RUNNING if is_running else JobStatus.LAUNCHED))
        self.world.runs[7] = RunDetail(state=JobState.IN_PROGRESS, attempt=1)

    def at(self, moment: float, message: Event | RunnerReport) -> None:
        heapq.heappush(self.line, (moment, next(self.numbers), message))

    def play(self) -> None:
        while self.line:
            moment, _, message = heapq.heappop(self.line)
            self.world.now = max(self.world.now, moment)
            assert self.world.now < NOW + LAST + 90_000
            self._let_github_go_on()
            self.world.faults = {
                fault for start, end, fault in self.silences if start <= self.world.now < end
            }
            seen = len(self.world.sent)
            self.world.deferred.clear()
            is_done = (
                self._report(message)
                if isinstance(message, RunnerReport)
                else not self.world.events.take(
                    [ReceivedEvent("m", "r", message)], deadline=self.world.now + 60
                )
            )
            if not is_done:
                after = self.world.deferred[0][1] if self.world.deferred else 60.0
                self.at(self.world.now + after, message)
            for sent, delay in self.world.sent[seen:]:
                self.at(self.world.now + delay, sent)

    def _let_github_go_on(self) -> None:
        now = self.world.now
        if not self.has_started:
            self.world.jobs[1] = JobDetail(state=JobState.QUEUED)
            self.world.runners.setdefault("i-1", Removal.REMOVED)
        elif now < FAILED_AT:
            self.world.jobs[1] = JobDetail(state=JobState.IN_PROGRESS, runner_name="runsfleet-i-1")
            self.world.runners["i-1"] = Removal.BUSY
        else:
            self.world.jobs[1] = JobDetail(
                state=JobState.COMPLETED,
                conclusion="failure",
                runner_name="runsfleet-i-1",
                completed_at=FAILED_AT,
            )
            if self.world.runs[7].attempt == 1:
                self.world.runs[7] = RunDetail(state=JobState.COMPLETED, attempt=1)

    def _report(self, report: RunnerReport) -> bool:
        """Take the agent's report as the termination function does."""
        if {"table", "jobs queue", "events queue", "closing"} & self.world.faults:
            return False
        observed = self.world.records[1]
        if observed.instance_id != "i-1" or observed.job.dispatch != report.dispatch:
            return True
        if observed.status not in {JobStatus.LAUNCHED, JobStatus.RUNNING}:
            return True
        if not report.has_served:
            self.world.redispatch(
                observed, Cause.INTERRUPTED, on_demand=True, reason="its agent stopped it"
            )
            return True
        if observed.rerun is None:
            self.world.note_rerun(observed, Rerun.PENDING, reason="r", now=self.world.now)
        self.world.send(RerunMessage(job_id=1), delay=60)
        self.world.end([(report, ())], now=self.world.now)
        return True


REPORT = RunnerReport(instance_id="i-1", job_id=1, run_id=7, status=ReportStatus.INTERRUPTED)
ENDED = JobEndedMessage(
    job_id=1,
    run_id=7,
    run_attempt=1,
    repository=JOB.repository,
    labels=JOB.labels,
    conclusion="failure",
    runner_name="runsfleet-i-1",
)


@given(
    has_started=st.booleans(),
    has_listened=st.booleans(),
    warnings=st.lists(st.floats(0, 900), max_size=2),
    reports=st.lists(st.floats(0, 900), max_size=2),
    departures=st.lists(
        st.tuples(st.floats(0, 900), st.sampled_from(["shutting-down", "terminated"])),
        min_size=1,
        max_size=4,
    ),
    webhooks=st.lists(st.floats(0, 900), max_size=2),
    silences=st.lists(
        st.tuples(st.floats(0, 1500), st.floats(1, 900), st.sampled_from(FAULTS)), max_size=4
    ),
)
def test_every_order_ends_in_one_dispatch_or_one_rerun(
    *,
    has_started: bool,
    has_listened: bool,
    warnings: list[float],
    reports: list[float],
    departures: list[tuple[float, str]],
    webhooks: list[float],
    silences: list[tuple[float, float, str]],
) -> None:
    """Warning, state changes, report and webhook, each late, repeated or (but one) missing."""
    story = Story(has_started, has_listened)
    story.silences = [(NOW + at, NOW + at + length, fault) for at, length, fault in silences]
    for late in warnings:
        story.at(NOW + late, SpotWarning(instance_id="i-1", at=NOW, action="terminate"))
    report = replace(REPORT, ran_job=has_started, ran_run_id=7 if has_started else None)
    for late in reports:
        story.at(NOW + late, report)
    for late, state in departures:
        left = InstanceLeft(instance_id="i-1", at=GONE_AT, state=state)
        story.at(GONE_AT + late, left)
    if has_started:
        for late in webhooks:
            story.at(FAILED_AT + late, ENDED)
    story.play()
    world = story.world
    if has_started:
        assert world.rerun_jobs == [1]
        assert world.redispatched == []
        assert world.records[1].rerun is Rerun.DONE
        assert world.records[1].status is JobStatus.COMPLETED
        assert world.counted["JobsRerun", "done"] == 1
    else:
        assert world.rerun_jobs == []
        # the same message again is one message: the queue deduplicates it
        assert len({message.deduplication_id for message, _ in world.redispatched}) == 1
        assert world.records[1].status is JobStatus.QUEUED
        assert world.asked["rerun"] == 0
    assert len(world.failures) <= 1
    assert sum(n for (name, _), n in world.counted.items() if name == "SpotInterruptions") <= max(
        1, len(warnings)
    )


@pytest.mark.parametrize("has_started", [False, True])
def test_nobody_but_ec2_says_a_word(has_started: bool) -> None:
    """No warning, no report, no webhook: the end of the instance alone is enough."""
    story = Story(has_started)
    story.at(GONE_AT, InstanceLeft(instance_id="i-1", at=GONE_AT, state="terminated"))
    story.play()
    assert story.world.rerun_jobs == ([1] if has_started else [])
    assert len(story.world.redispatched) == (0 if has_started else 1)
