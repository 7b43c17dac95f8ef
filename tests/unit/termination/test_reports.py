"""Reports: an ending closes its job once, or hands it back when GitHub still has it queued."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from runsfleet_runtime.contract.messages import (
    JobMessage,
    ReportStatus,
    RerunMessage,
    RunnerReport,
)
from runsfleet_runtime.contract.metrics import Metric, MetricDefinition
from runsfleet_runtime.github import JobState
from runsfleet_runtime.jobs.model import JobRecord, JobStatus, Rerun
from runsfleet_runtime.jobs.ports import Moved, RecordUnknownError
from runsfleet_runtime.jobs.redispatch import MAX_REQUEUES, Redispatcher
from runsfleet_runtime.runners import RunnerStoreError
from runsfleet_runtime.termination.reports import Reports

NOW = 1_800_000_000.0
JOB = JobMessage(
    job_id=1, run_id=7, run_attempt=1, repository="octo-org/hello", labels=("l",), queued_at=NOW
)
OPEN = {JobStatus.LAUNCHED, JobStatus.RUNNING}


@dataclass
class World:
    """Launched jobs, job 1 on instance i-1, with everything that may fail.

    The records follow the transition rules of the table; the way by which jobs are dispatched
    again is the real one.
    """

    job: JobMessage = JOB
    state: JobState = JobState.COMPLETED
    faults: set[str] = field(default_factory=set)
    asked: int = 0
    deadlines: list[float] = field(default_factory=list)
    sent: list[JobMessage] = field(default_factory=list)
    reruns: list[tuple[int, float]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    renewed: list[RunnerReport] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)
    has_transactions: bool = True
    siblings: dict[int, JobStatus] = field(default_factory=dict)  # queued at GitHub
    records: dict[int, JobRecord] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.put(JobRecord(job=self.job, status=JobStatus.LAUNCHED, instance_id="i-1"))
        for job_id, status in self.siblings.items():
            job = replace(JOB, job_id=job_id)
            self.put(JobRecord(job=job, status=status, instance_id=f"i-of-{job_id}"))

    def put(self, record: JobRecord) -> None:
        self.records[record.job.job_id] = record

    @property
    def record(self) -> JobRecord:
        return self.records[1]

    @property
    def status(self) -> str:
        """The ending that closed job 1, or its state while it is open."""
        return self.record.outcome or self.record.status

    def _is_owned(self, report: RunnerReport) -> bool:
        record = self.record
        return (report.instance_id, report.dispatch) == (record.instance_id, record.job.dispatch)

    def start(self, reports: Sequence[RunnerReport], *, now: float) -> list[Moved]:
        assert now == NOW
        return [self._start(report) for report in reports]

    def _start(self, report: RunnerReport) -> Moved:
        if "table" in self.faults:
            return Moved.UNKNOWN
        if not self._is_owned(report):
            return Moved.REFUSED
        if self.record.status is not JobStatus.LAUNCHED:
            return Moved.OVERTAKEN if "overtaken" in self.faults else Moved.KNOWN
        self.put(replace(self.record, status=JobStatus.RUNNING))
        return Moved.DONE

    def end(
        self, reports: Sequence[tuple[RunnerReport, Sequence[Mapping[str, Any]]]], *, now: float
    ) -> list[bool | None]:
        assert now == NOW
        return [self._end(report, further) for report, further in reports]

    def end_interrupted(
        self, report: RunnerReport, further: Sequence[Mapping[str, Any]], *, now: float
    ) -> bool | None:
        (closed,) = self.end([(report, further)], now=now)
        if closed:
            self.put(replace(self.record, rerun=self.record.rerun or Rerun.PENDING))
        return closed

    def _end(self, report: RunnerReport, further: Sequence[Mapping[str, Any]]) -> bool | None:
        if "table" in self.faults:
            return None
        if not self._is_owned(report) or self.record.status not in OPEN:
            return False
        self.put(replace(self.record, status=JobStatus.COMPLETED, outcome=report.status.value))
        self.deleted += [w["delete"] for w in further]
        return True

    def get(self, job_id: int) -> JobRecord | None:
        if "table" in self.faults:
            raise RecordUnknownError("throttled")
        return self.records.get(job_id)

    def of_instance(self, instance_id: str) -> JobRecord | None:
        raise AssertionError(instance_id)

    def of_run(self, run_id: int) -> list[JobRecord]:
        raise AssertionError(run_id)

    def in_status(
        self, status: JobStatus, *, updated_before: float, limit: int | None = None
    ) -> Iterator[JobRecord]:
        raise AssertionError((status, updated_before, limit))

    def hand_back(
        self,
        observed: JobRecord,
        message: JobMessage,
        further: Sequence[Mapping[str, Any]],
        *,
        now: float,
    ) -> JobMessage | None:
        assert message.not_before > now
        if self.records[observed.job.job_id] != observed:
            return None
        self.put(
            replace(observed, status=JobStatus.QUEUED, job=message, not_before=message.not_before)
        )
        self.deleted += [w["delete"] for w in further]
        return message

    def give_up(
        self,
        observed: JobRecord,
        further: Sequence[Mapping[str, Any]],
        *,
        error: str,
        now: float,
    ) -> bool:
        assert (bool(error), now) == (True, NOW)
        self.put(replace(observed, status=JobStatus.EXPIRED))
        self.deleted += [w["delete"] for w in further]
        return True

    def send(self, jobs: Sequence[JobMessage]) -> list[bool]:
        assert all(self.records[m.job_id].status is JobStatus.QUEUED for m in jobs)
        if "queue" in self.faults:
            return [False] * len(jobs)
        self.sent += jobs
        return [True] * len(jobs)

    def defer(self, receipt_handle: str, seconds: float) -> None:
        raise AssertionError((receipt_handle, seconds))

    def renew(self, report: RunnerReport, *, deadline: float) -> bool:
        assert deadline == NOW + 20
        self.renewed.append(report)
        return "renewal" not in self.faults

    def transact_delete(self, instance_id: str) -> list[Mapping[str, Any]]:
        return [{"delete": instance_id}] if self.has_transactions else []

    def delete(self, instance_id: str) -> None:
        if "store" in self.faults:
            raise RunnerStoreError("throttled")
        self.deleted.append(instance_id)

    def add(self, metric: MetricDefinition, value: float = 1, *, kind: str | None = None) -> None:
        del value
        self.counted[metric.name if kind is None else f"{metric.name}:{kind}"] += 1

    def take(self, *reports: RunnerReport) -> list[RunnerReport]:
        return Reports(
            records=self,
            reader=self,
            runners=self,
            renewals=self,
            redispatcher=Redispatcher(
                records=self,
                queue=self,
                metrics=self,
                given_up=Metric.JOBS_GIVEN_UP,
                requeued=Metric.JOBS_REQUEUED,
                clock=lambda: NOW,
                jitter=lambda: 0.5,
            ),
            events=_Events(self),
            job_states=_States(self),
            metrics=self,
            clock=lambda: NOW,
        ).take(reports, deadline=NOW + 20)


@dataclass
class _Events:
    world: World

    def send(self, message: RerunMessage, *, delay: float = 0) -> bool:
        assert self.world.records[message.job_id].rerun is Rerun.PENDING  # written before
        if "events" in self.world.faults:
            return False
        self.world.reruns.append((message.job_id, delay))
        return True


@dataclass
class _States:
    world: World

    def status(
        self,
        repository: str,
        job_id: int,
        installation_id: int | None = None,
        *,
        deadline: float | None = None,
    ) -> JobState:
        assert (repository, job_id, installation_id) == ("octo-org/hello", 1, None)
        assert deadline is not None
        self.world.deadlines.append(deadline)
        self.world.asked += 1
        return self.world.state

    def queued_in_run(self, job: JobMessage, *, deadline: float | None = None) -> list[int]:
        assert (job.run_id, deadline) == (JOB.run_id, NOW + 10)
        return list(self.world.siblings)


def report(status: ReportStatus, **changes: Any) -> RunnerReport:
    """Return a report of the job's instance; it served the job unless told otherwise."""
    base = RunnerReport(
        instance_id="i-1", job_id=1, status=status, run_id=7, ran_job=True, ran_run_id=7
    )
    return replace(base, **changes)


def test_start_and_end_close_the_job() -> None:
    """The usual life costs no question to GitHub and deletes the configuration with the record."""
    world = World()
    assert world.take(report(ReportStatus.STARTED)) == []
    assert world.take(report(ReportStatus.SUCCESS, duration_seconds=4.0)) == []
    assert (world.status, world.deleted, world.asked) == ("success", ["i-1"], 0)
    assert world.counted == {"JobsStarted": 1, "JobsCompleted:success": 1, "JobDuration": 1}


def test_start_and_end_of_one_batch_are_taken_in_that_order() -> None:
    """A short job reports both within one batch, in whatever order the queue gives them."""
    world = World()
    assert world.take(report(ReportStatus.SUCCESS), report(ReportStatus.STARTED)) == []
    assert world.status == "success"
    assert world.counted["JobsStarted"] == 1


def test_start_that_its_end_overtook_counts_as_one() -> None:
    """Two workers took the two reports; how many runners started does not depend on which won."""
    world = World(faults={"overtaken"})
    assert world.take(report(ReportStatus.SUCCESS)) == []
    assert world.take(report(ReportStatus.STARTED)) == []
    assert world.counted["JobsStarted"] == 1


def test_store_without_transactions_is_cleaned_after_the_record() -> None:
    """Parameter Store cannot take part in the transaction: it is cleaned once the job is closed."""
    world = World(has_transactions=False)
    world.take(report(ReportStatus.SUCCESS))
    assert world.deleted == ["i-1"]


@pytest.mark.parametrize("status", [s for s in ReportStatus if s.is_ending])
def test_each_ending_is_one_outcome(status: ReportStatus) -> None:
    """Every ending of the contract closes the record and counts under its own name."""
    world = World()
    assert world.take(report(status)) == []
    assert world.counted[f"JobsCompleted:{status.value}"] == 1


def test_duplicate_changes_nothing() -> None:
    """The same ending twice is one ending."""
    world = World()
    world.take(report(ReportStatus.SUCCESS))
    assert world.take(report(ReportStatus.FAILURE)) == []
    assert world.status == "success"
    assert world.counted["ReportsRefused"] == 1


@pytest.mark.parametrize("change", [{"instance_id": "i-2"}, {"dispatch": 4}])
def test_former_owner_changes_nothing_but_its_own(change: dict[str, Any]) -> None:
    """A late report cleans up its instance's configuration and leaves the job alone."""
    world = World()
    late = report(ReportStatus.SUCCESS, **change)
    assert world.take(late) == []
    assert world.status == "launched"
    assert world.deleted == [late.instance_id]


@pytest.mark.parametrize("unserved", [{"ran_job": False, "ran_run_id": None}, {"ran_run_id": 8}])
@pytest.mark.parametrize("status", [ReportStatus.UNUSED, ReportStatus.SUCCESS])
def test_job_still_queued_at_github_is_dispatched_again(
    status: ReportStatus, unserved: dict[str, Any]
) -> None:
    """The runner ended without its job, or took another run's: GitHub is asked and believed."""
    world = World(state=JobState.QUEUED)
    assert world.take(report(status, **unserved)) == []
    (message,) = world.sent
    assert (message.dispatch, message.requeues) == (1, 1)
    assert message.labels == JOB.labels
    assert world.deleted == ["i-1"]
    assert world.counted == {"JobsRequeued": 1}


@pytest.mark.parametrize("state", [s for s in JobState if s is not JobState.QUEUED])
def test_any_other_answer_closes_as_usual(state: JobState) -> None:
    """Unknown is no reason to launch again after an ending; nor is a job that runs elsewhere."""
    world = World(state=state)
    assert world.take(report(ReportStatus.UNUSED, ran_job=False)) == []
    assert world.sent == []
    assert world.status == "unused"


@pytest.mark.parametrize("status", [ReportStatus.BOOTSTRAP_FAILED, ReportStatus.INTERRUPTED])
def test_job_of_a_runner_that_never_listened_is_dispatched_again_when_in_doubt(
    status: ReportStatus,
) -> None:
    """While GitHub is away runners cannot register, and nobody can ask it for their jobs."""
    world = World(state=JobState.UNKNOWN)
    assert world.take(report(status, ran_job=False, ran_run_id=None)) == []
    assert [message.dispatch for message in world.sent] == [1]


@pytest.mark.parametrize("given", [JobStatus.RUNNING, JobStatus.COMPLETED])
def test_lost_runner_is_replaced_when_its_job_took_a_siblings(given: JobStatus) -> None:
    """Job 1 ran on the runner of job 3; nothing else would ever launch for job 3 again."""
    world = World(state=JobState.IN_PROGRESS, siblings={2: JobStatus.LAUNCHED, 3: given})
    lost = report(ReportStatus.BOOTSTRAP_FAILED, ran_job=False, ran_run_id=None)
    world.faults = {"queue"}
    assert world.take(lost) == [lost]
    world.faults.clear()
    assert world.take(lost) == []
    assert [(m.job_id, m.dispatch) for m in world.sent] == [(3, 1)]
    assert world.status == "bootstrap_failed"
    assert world.records[2].status is JobStatus.LAUNCHED


def test_lost_runner_is_replaced_before_the_siblings_runner_reports() -> None:
    """One runner less is one launch more, whichever of the waiting jobs it is launched for."""
    world = World(state=JobState.IN_PROGRESS, siblings={2: JobStatus.LAUNCHED})
    world.take(report(ReportStatus.INTERRUPTED, ran_job=False, ran_run_id=None))
    assert [m.job_id for m in world.sent] == [2]


def test_runner_that_listened_is_not_replaced() -> None:
    """GitHub would have given an idle runner any job that waits for its labels."""
    world = World(state=JobState.COMPLETED, siblings={2: JobStatus.RUNNING})
    world.take(report(ReportStatus.UNUSED, ran_job=False, ran_run_id=None))
    assert world.sent == []


def test_one_question_does_not_take_the_time_of_all() -> None:
    """GitHub gets ten seconds for a job, however long the invocation may last."""
    world = World(state=JobState.QUEUED)
    world.take(report(ReportStatus.UNUSED, ran_job=False))
    assert world.deadlines == [NOW + 10]


def test_requeues_are_bounded() -> None:
    """A job whose instances keep dying is closed in the end with the reason, and counted."""
    world = World(job=replace(JOB, requeues=MAX_REQUEUES), state=JobState.QUEUED)
    assert world.take(report(ReportStatus.BOOTSTRAP_FAILED, ran_job=False)) == []
    assert (world.sent, world.status, world.deleted) == ([], "expired", ["i-1"])
    assert world.counted == {"JobsGivenUp": 1, "JobsCompleted:bootstrap_failed": 1}


def test_interrupted_job_that_had_not_started_goes_on_demand() -> None:
    """GitHub has it queued still: it is dispatched again, and not on spot."""
    world = World(state=JobState.QUEUED)
    assert world.take(report(ReportStatus.INTERRUPTED, ran_job=False, ran_run_id=None)) == []
    (message,) = world.sent
    assert (message.on_demand, world.reruns) == (True, [])


def test_job_that_ec2_announced_to_interrupt_goes_on_demand_whatever_is_reported() -> None:
    """The record knows of the spot warning although the instance ended for another reason."""
    world = World(state=JobState.QUEUED)
    world.put(replace(world.record, interrupted_at=NOW - 60))
    world.take(report(ReportStatus.UNUSED, ran_job=False, ran_run_id=None))
    assert [message.on_demand for message in world.sent] == [True]


def test_interrupted_job_that_had_started_is_closed_and_to_be_rerun() -> None:
    """First its record says so, then the events function is told; it is not dispatched again."""
    world = World(state=JobState.QUEUED, faults={"events"})
    interrupted = report(ReportStatus.INTERRUPTED)
    assert world.take(interrupted) == [interrupted]
    assert (world.status, world.record.rerun) == ("interrupted", Rerun.PENDING)
    world.faults.clear()
    assert world.take(interrupted) == []
    assert world.reruns == [(1, 60.0)]
    assert (world.sent, world.asked, world.deleted) == ([], 0, ["i-1"])
    assert world.counted == {"JobsCompleted:interrupted": 1}
    world.put(replace(world.record, rerun=Rerun.DONE))
    assert world.take(interrupted) == []
    assert len(world.reruns) == 1
    assert world.counted["ReportsRefused"] == 1


def test_interrupted_job_is_not_rerun_against_its_label() -> None:
    """With retry=false a job that had started stays failed."""
    world = World()
    world.put(replace(world.record, may_rerun=False))
    assert world.take(report(ReportStatus.INTERRUPTED)) == []
    assert (world.status, world.record.rerun, world.reruns) == ("interrupted", None, [])


def test_interruption_of_a_former_owner_changes_nothing() -> None:
    """Another instance has the job by now: neither a re-run nor another dispatch."""
    for change in ({"instance_id": "i-0"}, {"instance_id": "i-0", "ran_job": False}):
        world = World(state=JobState.QUEUED)
        assert world.take(report(ReportStatus.INTERRUPTED, **change)) == []
        assert (world.status, world.sent, world.reruns) == ("launched", [], [])


def test_job_that_an_event_handed_back_gets_its_message_by_the_report() -> None:
    """The events function wrote the record and died; the report sends the same message."""
    world = World(state=JobState.QUEUED)
    message = replace(JOB, requeues=1, on_demand=True).again(not_before=NOW + 5)
    world.put(replace(world.record, status=JobStatus.QUEUED, job=message, not_before=NOW + 5))
    assert world.take(report(ReportStatus.INTERRUPTED, ran_job=False, ran_run_id=None)) == []
    assert world.sent == [message]


def test_start_that_comes_after_the_end_is_no_refusal() -> None:
    """The queue knows no order; nothing is wrong with either report."""
    world = World()
    world.take(report(ReportStatus.SUCCESS))
    assert world.take(report(ReportStatus.STARTED)) == []
    assert world.status == "success"
    assert "ReportsRefused" not in world.counted
    world.take(report(ReportStatus.STARTED, instance_id="i-2"))
    assert world.counted["ReportsRefused"] == 1


def test_queue_that_does_not_take_the_job_brings_the_report_back() -> None:
    """The record is claimable before the message; if that fails the report comes again."""
    world = World(state=JobState.QUEUED, faults={"queue"})
    unused = report(ReportStatus.UNUSED, ran_job=False)
    assert world.take(unused) == [unused]
    world.faults.clear()
    assert world.take(unused) == []
    assert len(world.sent) == 1


@pytest.mark.parametrize(
    "message",
    [
        report(ReportStatus.STARTED),
        report(ReportStatus.SUCCESS),
        report(ReportStatus.UNUSED, ran_job=False),
    ],
)
def test_table_that_does_not_answer_brings_the_report_back(message: RunnerReport) -> None:
    """Nothing is concluded from silence."""
    world = World(faults={"table"})
    assert world.take(message) == [message]
    assert world.counted == {}


def test_instance_that_never_learned_of_a_job_is_counted() -> None:
    """An instance without a configuration has nothing to close; its end is still seen."""
    world = World()
    assert world.take(RunnerReport(instance_id="i-9", job_id=0, status=ReportStatus.UNUSED)) == []
    assert world.counted == {"JobsCompleted:unused": 1}
    assert world.status == "launched"


def test_one_bad_report_of_a_batch_leaves_the_others() -> None:
    """Only the reports that could not be taken come back."""
    world = World(state=JobState.QUEUED, faults={"queue"})
    stranger = report(ReportStatus.SUCCESS, job_id=1, instance_id="i-2")
    unused = report(ReportStatus.UNUSED, ran_job=False)
    assert world.take(stranger, unused) == [unused]


def test_configuration_that_is_not_deleted_brings_the_report_back() -> None:
    """The job is closed once; the repeated report only cleans up."""
    world = World(has_transactions=False, faults={"store"})
    ending = report(ReportStatus.SUCCESS)
    assert world.take(ending) == [ending]
    assert world.status == "success"
    world.faults.clear()
    assert world.take(ending) == []
    assert world.deleted == ["i-1"]
    assert world.counted["JobsCompleted:success"] == 1


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ({}, {}),
        ({"runner_version": "2.337.0", "offered_version": "2.337.0"}, {}),
        (
            {"runner_version": "2.337.0", "baked_version": "2.336.0", "offered_version": "2.337.0"},
            {"RunnersOutdated:superseded": 1},
        ),
        (
            {"runner_version": "2.337.0", "baked_version": "2.328.0", "offered_version": "2.337.0"},
            {"RunnersOutdated:below_floor": 1},
        ),
    ],
)
def test_an_outdated_runner_is_counted_once(
    versions: dict[str, str], expected: dict[str, int]
) -> None:
    """What GitHub refuses or soon will is told with the ending, by its worst reason."""
    world = World()
    world.take(report(ReportStatus.STARTED, **versions))
    world.take(report(ReportStatus.SUCCESS, **versions))
    found = {name: n for name, n in world.counted.items() if name.startswith("RunnersOutdated")}
    assert found == expected


def test_a_renewal_is_neither_a_start_nor_an_end() -> None:
    """It is handed on, once for a batch, and moves nothing; one that fails comes back."""
    world = World()
    request = report(ReportStatus.RENEWAL, ran_job=False)
    assert world.take(request, request) == []
    assert world.renewed == [request]
    assert (world.status, world.asked, world.counted) == ("launched", 0, {})
    world.faults = {"renewal"}
    assert world.take(request) == [request]
