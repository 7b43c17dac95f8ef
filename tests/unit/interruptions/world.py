"""A fleet in memory as the events function sees it: records, GitHub, EC2, queues, a clock.

It keeps the promises of the ports: a write is refused unless the record is as it was observed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from runsfleet_runtime.circuit_breaker.model import Failure, Offering
from runsfleet_runtime.contract.messages import (
    JobEndedMessage,
    JobMessage,
    ReportStatus,
    RerunMessage,
    RunnerReport,
)
from runsfleet_runtime.contract.metrics import Emitter, MetricDefinition
from runsfleet_runtime.github import JobState, Removal, UnavailableError
from runsfleet_runtime.github.job_runs import JobDetail, RerunAnswer, RunDetail
from runsfleet_runtime.interruptions.departures import Departures
from runsfleet_runtime.interruptions.endings import Endings
from runsfleet_runtime.interruptions.events import Events
from runsfleet_runtime.interruptions.notices import Notices
from runsfleet_runtime.interruptions.ports import Instance, InstanceUnknownError, Noted
from runsfleet_runtime.interruptions.reruns import Reruns
from runsfleet_runtime.jobs.model import Cause, JobRecord, JobStatus, Rerun
from runsfleet_runtime.jobs.ports import RecordUnknownError, Redispatched
from runsfleet_runtime.runners import RunnerStoreError

NOW = 1_800_000_000.0
JOB = JobMessage(
    job_id=1, run_id=7, run_attempt=1, repository="octo-org/hello", labels=("l",), queued_at=NOW
)
OFFERING = Offering(
    capacity_type="spot", instance_type="c7g.xlarge", availability_zone="eu-central-1a"
)


def record(status: JobStatus = JobStatus.RUNNING, **changes: Any) -> JobRecord:
    """Return the record of a job on instance i-1."""
    made = JobRecord(
        job=JOB,
        status=status,
        updated_at=NOW - 60,
        instance_id="i-1",
        instance_type=OFFERING.instance_type,
        availability_zone=OFFERING.availability_zone,
        capacity_type=OFFERING.capacity_type,
        runner_name="runsfleet-i-1",
        launched_at=NOW - 90,
        started_at=NOW - 60 if status is JobStatus.RUNNING else 0.0,
    )
    return replace(made, **changes)


@dataclass
class World:
    """Everything around the events function; ``faults`` names what does not answer."""

    now: float = NOW
    faults: set[str] = field(default_factory=set)
    records: dict[int, JobRecord] = field(default_factory=dict)
    jobs: dict[int, JobDetail] = field(default_factory=dict)  # at GitHub
    runs: dict[int, RunDetail] = field(default_factory=dict)
    stopped: set[int] = field(default_factory=set)  # jobs that their runner broke off
    rerun_answers: list[RerunAnswer] = field(default_factory=list)
    rerun_jobs: list[int] = field(default_factory=list)  # what GitHub really started anew
    asked: Counter[str] = field(default_factory=Counter)
    runners: dict[str, Removal] = field(default_factory=dict)  # what a removal is answered with
    removed: list[str] = field(default_factory=list)
    instances: dict[str, Instance] = field(default_factory=dict)
    terminated: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    redispatched: list[tuple[JobMessage, Cause]] = field(default_factory=list)
    closed: list[RunnerReport] = field(default_factory=list)
    sent: list[tuple[RerunMessage | JobEndedMessage, float]] = field(default_factory=list)
    deferred: list[tuple[str, float]] = field(default_factory=list)
    failures: dict[str, Failure] = field(default_factory=dict)
    counted: Counter[tuple[str, str | None]] = field(default_factory=Counter)
    story: list[str] = field(default_factory=list)  # what was done, in order
    looks: int = 0  # at the table of instances
    lookups: int = 0  # of a record by its instance

    def __post_init__(self) -> None:
        self.reruns = Reruns(
            records=self,
            notes=self,
            github=self,
            redispatcher=self,
            queue=self,
            metrics=self,
            clock=lambda: self.now,
        )
        self.events = Events(
            notices=Notices(
                records=self,
                notes=self,
                instances=self,
                runners=self,
                registrar=self,
                job_states=self,
                redispatcher=self,
                breaker=self,
                metrics=self,
                clock=lambda: self.now,
            ),
            departures=Departures(
                records=self,
                endings=self,
                notes=self,
                instances=self,
                runners=self,
                registrar=self,
                github=self,
                redispatcher=self,
                queue=self,
                metrics=self,
                clock=lambda: self.now,
            ),
            endings=Endings(
                records=self,
                closer=self,
                reruns=self.reruns,
                instances=self,
                runners=self,
                registrar=self,
                metrics=self,
                clock=lambda: self.now,
            ),
            reruns=self.reruns,
            launches=self,
            queue=self,
            clock=lambda: self.now,
        )

    def have_left(self, instance_ids: Sequence[str]) -> dict[str, bool]:
        self._table()
        self.looks += 1
        launched = {r.instance_id: r for r in self.records.values() if r.instance_id}
        open_ones = {JobStatus.LAUNCHED, JobStatus.RUNNING}
        return {i: launched[i].status not in open_ones for i in instance_ids if i in launched}

    def put(self, made: JobRecord) -> None:
        self.records[made.job.job_id] = made

    # -- the table ----------------------------------------------------------------------------

    def _table(self) -> None:
        if "table" in self.faults:
            raise RecordUnknownError("the table is silent")

    def get(self, job_id: int) -> JobRecord | None:
        self._table()
        return self.records.get(job_id)

    def of_instance(self, instance_id: str) -> JobRecord | None:
        self._table()
        self.lookups += 1
        found = [r for r in self.records.values() if r.instance_id == instance_id]
        return found[0] if found else None

    def of_run(self, run_id: int) -> list[JobRecord]:
        self._table()
        return [r for r in self.records.values() if r.job.run_id == run_id]

    def in_status(
        self, status: JobStatus, *, updated_before: float, limit: int | None = None
    ) -> Iterator[JobRecord]:
        raise AssertionError((status, updated_before, limit))

    def _is_as(self, observed: JobRecord, statuses: set[JobStatus]) -> bool:
        actual = self.records[observed.job.job_id]
        return (
            actual.status in statuses
            and actual.instance_id == observed.instance_id
            and actual.job.dispatch == observed.job.dispatch
        )

    def _change(self, observed: JobRecord, **changes: Any) -> None:
        job_id = observed.job.job_id
        self.records[job_id] = replace(self.records[job_id], updated_at=self.now, **changes)

    def note_interruption(
        self, observed: JobRecord, *, at: float, reason: str, now: float
    ) -> Noted:
        self._table()
        assert (now, reason) == (self.now, "spot warning: terminate")
        if not self._is_as(observed, {JobStatus.LAUNCHED, JobStatus.RUNNING}):
            return Noted.SETTLED
        if self.records[observed.job.job_id].interrupted_at:
            return Noted.KNOWN
        self._change(observed, interrupted_at=at)
        self.story.append("noted")
        return Noted.NEW

    def note_rerun(self, observed: JobRecord, state: Rerun, *, reason: str, now: float) -> bool:
        self._table()
        assert now == self.now
        assert reason
        actual = self.records[observed.job.job_id]
        if not self._is_as(observed, {observed.status}) or actual.rerun is not observed.rerun:
            return False
        self._change(observed, rerun=state)
        self.story.append(f"rerun {state.value}")
        return True

    def end(
        self, reports: Sequence[tuple[RunnerReport, Sequence[Mapping[str, Any]]]], *, now: float
    ) -> list[bool | None]:
        ((report, further),) = reports
        if "closing" in self.faults:
            return [None]
        observed = self.records[report.job_id]
        is_owned = (report.instance_id, report.dispatch) == (
            observed.instance_id,
            observed.job.dispatch,
        )
        if observed.status not in {JobStatus.LAUNCHED, JobStatus.RUNNING} or not is_owned:
            return [False]
        self._change(
            observed, status=JobStatus.COMPLETED, outcome=report.status.value, completed_at=now
        )
        self.closed.append(report)
        self.forgotten += [entry["instance_id"] for entry in further]
        self.story.append("closed")
        return [True]

    def cancel(self, ended: JobEndedMessage, *, now: float) -> JobRecord | None:
        self._table()
        before = self.records.get(ended.job_id)
        if before is not None and before.status not in {
            JobStatus.RUNNING,
            JobStatus.COMPLETED,
            JobStatus.EXPIRED,
        }:
            self._change(before, status=JobStatus.COMPLETED, outcome="cancelled", completed_at=now)
        self.story.append("cancelled")
        return before

    def redispatch(
        self,
        observed: JobRecord,
        cause: Cause,
        *,
        on_demand: bool = False,
        reason: str = "",
        further: Sequence[Mapping[str, Any]] = (),
    ) -> Redispatched:
        assert reason
        if "table" in self.faults:
            return Redispatched.UNKNOWN
        if not self._is_as(observed, {observed.status}):
            return Redispatched.SETTLED
        if observed.status is not JobStatus.QUEUED:
            self._change(observed, status=JobStatus.QUEUED)
            self.forgotten += [entry["instance_id"] for entry in further]
        if "jobs queue" in self.faults:
            return Redispatched.UNKNOWN
        message = observed.job.again(not_before=self.now, on_demand=on_demand)
        self.redispatched.append((message, cause))
        self.story.append("redispatched")
        return Redispatched.SENT

    def resend(self, observed: JobRecord, *, reason: str = "") -> Redispatched:
        raise AssertionError((observed, reason))

    # -- GitHub -------------------------------------------------------------------------------

    def job(self, job: JobMessage, *, deadline: float | None = None) -> JobDetail:
        assert deadline is not None
        self.asked["job"] += 1
        if "github" in self.faults:
            return JobDetail(state=JobState.UNKNOWN)
        return self.jobs.get(job.job_id, JobDetail(state=JobState.GONE))

    def run(self, job: JobMessage, *, deadline: float | None = None) -> RunDetail:
        assert deadline is not None
        self.asked["run"] += 1
        if {"github", "run"} & self.faults:
            return RunDetail(state=JobState.UNKNOWN)
        return self.runs.get(job.run_id, RunDetail(state=JobState.GONE))

    def was_rerun(
        self, job: JobMessage, *, ended_at: float, deadline: float | None = None
    ) -> bool | None:
        assert deadline is not None
        assert ended_at == self.jobs[job.job_id].completed_at
        return None if {"github", "jobs of run"} & self.faults else job.job_id in self.rerun_jobs

    def was_stopped(self, job: JobMessage, *, deadline: float | None = None) -> bool | None:
        assert deadline is not None
        assert self.jobs[job.job_id].conclusion in {"cancelled", "failure"}
        return None if {"github", "annotations"} & self.faults else job.job_id in self.stopped

    def rerun(self, job: JobMessage, *, deadline: float | None = None) -> RerunAnswer:
        assert deadline is not None
        self.asked["rerun"] += 1
        self.story.append("asked for re-run")
        answer = self.rerun_answers.pop(0) if self.rerun_answers else RerunAnswer.ACCEPTED
        if answer is RerunAnswer.ACCEPTED:
            self.start_again(job.job_id)
        return answer

    def start_again(self, job_id: int) -> None:
        """Let GitHub begin the next attempt of the run with a job."""
        self.rerun_jobs.append(job_id)
        run = self.runs[JOB.run_id]
        self.runs[JOB.run_id] = RunDetail(state=JobState.IN_PROGRESS, attempt=run.attempt + 1)

    def status(
        self,
        repository: str,
        job_id: int,
        installation_id: int | None = None,
        *,
        deadline: float | None = None,
    ) -> JobState:
        assert (repository, installation_id) == (JOB.repository, None)
        assert deadline is not None
        if "github" in self.faults:
            return JobState.UNKNOWN
        return self.jobs[job_id].state

    def queued_in_run(self, job: JobMessage, *, deadline: float | None = None) -> list[int]:
        raise AssertionError((job, deadline))

    def deregister(
        self,
        repository: str,
        *,
        instance_id: str,
        installation_id: int | None = None,
        deadline: float | None = None,
    ) -> Removal:
        assert (repository, installation_id) == (JOB.repository, None)
        assert deadline is not None
        if "github" in self.faults:
            raise UnavailableError("github is silent")
        removal = self.runners.get(instance_id, Removal.ABSENT)
        if removal is Removal.REMOVED:
            self.removed.append(instance_id)
            self.runners[instance_id] = Removal.ABSENT
        return removal

    # -- EC2, the store, the queue, the breaker, metrics ----------------------------------------

    def find(self, instance_id: str) -> Instance | None:
        if "ec2" in self.faults:
            raise InstanceUnknownError("ec2 is silent")
        return self.instances.get(instance_id)

    def terminate(self, instance_id: str) -> bool:
        if "ec2" in self.faults:
            return False
        self.terminated.append(instance_id)
        return True

    def transact_delete(self, instance_id: str) -> tuple[dict[str, Any], ...]:
        return ({"instance_id": instance_id},)

    def delete(self, instance_id: str) -> None:
        if "store" in self.faults:
            raise RunnerStoreError("the store is silent")
        self.forgotten.append(instance_id)

    def send(self, message: RerunMessage | JobEndedMessage, *, delay: float = 0) -> bool:
        if "events queue" in self.faults:
            return False
        self.sent.append((message, delay))
        self.story.append("sent")
        return True

    def defer(self, receipt_handle: str, seconds: float) -> None:
        self.deferred.append((receipt_handle, seconds))

    def closed_to(self, offerings: Sequence[Offering]) -> frozenset[Offering]:
        raise AssertionError(offerings)

    def record_failures(self, failures: Sequence[Failure]) -> None:
        self.failures |= {failure.id: failure for failure in failures}
        self.story.append("breaker")

    def record_successes(self, offerings: Sequence[Offering]) -> None:
        raise AssertionError(offerings)

    def add(self, metric: MetricDefinition, value: float = 1, *, kind: str | None = None) -> None:
        assert metric.emitter is Emitter.EVENTS
        assert value == 1
        assert (kind is None) == (metric.dimension is None)
        assert kind is None or kind in metric.values
        self.counted[metric.name, kind] += 1
        self.story.append("counted")


def interrupted_record(**changes: Any) -> JobRecord:
    """Return the closed record of a job that was interrupted in mid-run; its re-run is pending."""
    made = record(
        JobStatus.COMPLETED,
        outcome=ReportStatus.INTERRUPTED.value,
        interrupted_at=NOW - 60,
        completed_at=NOW - 30,
        rerun=Rerun.PENDING,
    )
    return replace(made, **changes)
