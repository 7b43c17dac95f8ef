"""Runs a task as the function does, with what surrounds it in memory and a clock that stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from runsfleet_runtime.contract.messages import JobMessage
from runsfleet_runtime.contract.metrics import MetricDefinition
from runsfleet_runtime.github import JobState, Removal, UnavailableError
from runsfleet_runtime.housekeeping.leftovers import Leftover
from runsfleet_runtime.housekeeping.model import SweepOutcome, TaskReport
from runsfleet_runtime.housekeeping.ports import Lease, SweepError, Task
from runsfleet_runtime.housekeeping.runner import TaskRunner
from runsfleet_runtime.housekeeping.stale_jobs import OpenJob
from runsfleet_runtime.jobs.model import Cause, JobRecord, JobStatus
from runsfleet_runtime.jobs.ports import RecordUnknownError, Redispatched

NOW = 1_800_000_000.0


@dataclass
class Frame:
    """What surrounds a task: leases, metrics and time."""

    now: float = NOW
    seconds: float = 300.0
    held: set[str] = field(default_factory=set)
    states: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    outcomes: dict[str, SweepOutcome] = field(default_factory=dict)
    counted: Counter[str] = field(default_factory=Counter)
    is_leases_table_down: bool = False

    def acquire(self, name: str, *, owner: str, ends_at: float, now: float) -> Lease | None:
        if self.is_leases_table_down:
            raise SweepError("throttled")
        assert ends_at > now + self.seconds
        if name in self.held:
            return None
        self.held.add(name)
        return Lease(name=name, owner=owner, state=self.states.get(name, {}))

    def release(
        self, lease: Lease, *, state: Mapping[str, Any], outcome: SweepOutcome, now: float
    ) -> bool:
        self.held.remove(lease.name)
        self.states[lease.name] = dict(state)
        self.outcomes[lease.name] = outcome
        return True

    def add(self, metric: MetricDefinition, value: float = 1, *, kind: str | None = None) -> None:
        assert kind is None or kind in metric.values
        self.counted[metric.name if kind is None else f"{metric.name}:{kind}"] += int(value)

    def clock(self) -> float:
        return self.now

    def run(self, task: Task[Any]) -> TaskReport:
        runner = TaskRunner(leases=self, metrics=self, clock=self.clock, new_id=lambda: "run")
        return runner.run(task, deadline=self.now + self.seconds)


def record(number: int = 1, status: JobStatus = JobStatus.LAUNCHED, **changes: Any) -> JobRecord:
    """Return the record of a job on an instance of its own."""
    job = JobMessage(
        job_id=number,
        run_id=7,
        run_attempt=1,
        repository="octo-org/hello",
        labels=("runs-fleet=7/runner=2cpu-linux-arm64",),
        queued_at=NOW - 7200,
        installation_id=99,
    )
    return replace(
        JobRecord(
            job=job,
            status=status,
            updated_at=NOW - 3600,
            launched_at=NOW - 3600,
            deadline=NOW + 20 * 3600,
            instance_id=f"i-{number}",
            runner_name=f"runsfleet-i-{number}",
        ),
        **changes,
    )


@dataclass
class Ec2:
    """EC2 by ids; asking, marking and ending can be made to fail."""

    there: dict[str, Leftover] = field(default_factory=dict)
    page_size: int = 1000
    is_down: bool = False
    refused: set[str] = field(default_factory=set)
    ended: list[str] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    on_find: Callable[[str], object] = lambda key: None

    def add(self, *found: Leftover) -> Ec2:
        self.there |= {f.key: f for f in found}
        return self

    def pages(self) -> Iterator[Sequence[Leftover]]:
        known = list(self.there.values())
        for start in range(0, max(1, len(known)), self.page_size):
            self.calls["pages"] += 1
            if self.is_down:
                raise SweepError("RequestLimitExceeded")
            yield known[start : start + self.page_size]

    def find(self, key: str) -> Leftover | None:
        self.calls["find"] += 1
        self.on_find(key)
        if self.is_down:
            raise SweepError("RequestLimitExceeded")
        return self.there.get(key)

    def mark(self, key: str, *, at: float) -> None:
        self.calls["mark"] += 1
        self.there[key] = replace(self.there[key], condemned_at=at)

    def unmark(self, key: str) -> None:
        self.calls["unmark"] += 1
        self.there[key] = replace(self.there[key], condemned_at=0.0)

    def end(self, key: str) -> None:
        self.calls["end"] += 1
        if key in self.refused:
            raise SweepError("UnauthorizedOperation")
        self.ended.append(key)
        self.there.pop(key)


@dataclass
class Records:
    """The jobs table, by job."""

    jobs: dict[int, JobRecord] = field(default_factory=dict)
    is_down: bool = False
    calls: Counter[str] = field(default_factory=Counter)
    on_get: Callable[[int], object] = lambda job_id: None

    def add(self, *records: JobRecord) -> Records:
        self.jobs |= {r.job.job_id: r for r in records}
        return self

    def get(self, job_id: int) -> JobRecord | None:
        self.calls["get"] += 1
        self.on_get(job_id)
        self._asked()
        return self.jobs.get(job_id)

    def of_instance(self, instance_id: str) -> JobRecord | None:
        self.calls["of_instance"] += 1
        self._asked()
        return next((r for r in self.jobs.values() if r.instance_id == instance_id), None)

    def of_run(self, run_id: int) -> Sequence[JobRecord]:
        self._asked()
        return [r for r in self.jobs.values() if r.job.run_id == run_id]

    def in_status(
        self, status: JobStatus, *, updated_before: float, limit: int | None = None
    ) -> Iterator[JobRecord]:
        self._asked()
        found = [
            r for r in self.jobs.values() if r.status is status and r.updated_at < updated_before
        ]
        yield from sorted(found, key=lambda r: r.updated_at)[:limit]

    def open_jobs(self) -> Iterator[Sequence[OpenJob]]:
        self._asked()
        found = [
            OpenJob(job_id=r.job.job_id, instance_id=r.instance_id, updated_at=r.updated_at)
            for r in self.jobs.values()
            if r.status in {JobStatus.LAUNCHED, JobStatus.RUNNING}
        ]
        for start in range(0, len(found), 100):
            self.calls["open_jobs"] += 1
            yield found[start : start + 100]

    def instances_of_open_jobs(self) -> Collection[str]:
        return {job.instance_id for page in self.open_jobs() for job in page}

    def _asked(self) -> None:
        if self.is_down:
            raise RecordUnknownError("throttled")


@dataclass
class Redispatcher:
    """The one way of dispatching again; what it answers can be set."""

    answer: Redispatched = Redispatched.SENT
    asked: list[tuple[int, Cause, int]] = field(default_factory=list)

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
        self.asked.append((observed.job.job_id, cause, len(further)))
        return self.answer

    def resend(self, observed: JobRecord, *, reason: str = "") -> Redispatched:
        raise AssertionError(observed, reason)


@dataclass
class GitHub:
    """What GitHub says of jobs, and the runners that it takes away."""

    state: JobState = JobState.QUEUED
    removal: Removal = Removal.REMOVED
    is_down: bool = False
    removed: list[str] = field(default_factory=list)

    def status(
        self,
        repository: str,
        job_id: int,
        installation_id: int | None = None,
        *,
        deadline: float | None = None,
    ) -> JobState:
        return JobState.UNKNOWN if self.is_down else self.state

    def queued_in_run(self, job: JobMessage, *, deadline: float | None = None) -> Sequence[int]:
        raise AssertionError(job)

    def deregister(
        self,
        repository: str,
        *,
        instance_id: str,
        installation_id: int | None = None,
        deadline: float | None = None,
    ) -> Removal:
        assert repository == "octo-org/hello"
        if self.is_down:
            raise UnavailableError("503")
        self.removed.append(instance_id)
        return self.removal


@dataclass
class Departures:
    """The events queue."""

    told: list[str] = field(default_factory=list)
    is_down: bool = False

    def tell(self, instance_id: str, *, at: float) -> None:
        if self.is_down:
            raise SweepError("the queue did not take it")
        self.told.append(instance_id)
