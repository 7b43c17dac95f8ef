"""Another registration for a runner whose first one GitHub did not take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from runsfleet_runtime.contract.messages import (
    JobMessage,
    ReportStatus,
    RunnerConfig,
    RunnerReport,
)
from runsfleet_runtime.contract.metrics import MetricDefinition
from runsfleet_runtime.github import (
    GitHubError,
    JobState,
    RateLimitedError,
    Registration,
    Removal,
    UnavailableError,
    runner_name,
)
from runsfleet_runtime.jobs.ports import RecordUnknownError
from runsfleet_runtime.runners import RunnerStoreError
from runsfleet_runtime.termination.renewals import ANSWER_SECONDS, Renewals

NOW = 1_800_000_000.0
JOB = JobMessage(
    job_id=1, run_id=7, run_attempt=1, repository="octo-org/hello", labels=("l",), queued_at=NOW
)
REQUEST = RunnerReport(
    instance_id="i-1", job_id=1, run_id=7, status=ReportStatus.RENEWAL, error="it has expired"
)


@dataclass
class World:
    """One launched job, with everything that may fail."""

    job: JobMessage | None = JOB
    state: JobState = JobState.QUEUED
    noted: bool | None = True
    table_error: Exception | None = None
    github_error: GitHubError | None = None
    store_error: RunnerStoreError | None = None
    now: float = NOW
    seconds: float = 9.0
    answers_after: float = 0.0
    steps: list[str] = field(default_factory=list)
    stored: list[RunnerConfig] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)

    def read(self, job_id: int) -> JobMessage | None:
        assert job_id == 1
        if self.table_error is not None:
            raise self.table_error
        return self.job

    def status(
        self,
        repository: str,
        job_id: int,
        installation_id: int | None = None,
        *,
        deadline: float | None = None,
    ) -> JobState:
        assert (repository, job_id, installation_id) == ("octo-org/hello", 1, None)
        assert deadline == self.now + min(self.seconds, ANSWER_SECONDS)
        self.now += self.answers_after
        return self.state

    def queued_in_run(self, job: JobMessage, *, deadline: float | None = None) -> Sequence[int]:
        raise AssertionError((job, deadline))

    def renew(self, report: RunnerReport, *, now: float) -> bool | None:
        assert now == self.now
        self.steps.append(f"note {report.dispatch}")
        return self.noted

    def reserve(self, job: JobMessage) -> None:
        raise AssertionError(job)

    def register(
        self, job: JobMessage, *, instance_id: str, deadline: float | None = None
    ) -> Registration:
        assert deadline is not None
        self.steps.append("register")
        if deadline <= self.now:
            raise UnavailableError("no time was left")
        if self.github_error is not None:
            raise self.github_error
        return Registration(
            runner_name=runner_name(instance_id),
            runner_url=f"https://ghes.example/{job.owner}",
            runner_group_id=3,
            jit_config="another",
        )

    def deregister(
        self,
        repository: str,
        *,
        instance_id: str,
        installation_id: int | None = None,
        deadline: float | None = None,
    ) -> Removal:
        raise AssertionError((repository, instance_id, installation_id, deadline))

    def put(self, config: RunnerConfig, now: float) -> None:
        assert now == self.now
        self.steps.append("put")
        if self.store_error is not None:
            raise self.store_error
        self.stored.append(config)

    def add(self, metric: MetricDefinition, value: float = 1, *, kind: str | None = None) -> None:
        assert kind is None
        self.counted[metric.name] += int(value)

    def take(self) -> bool:
        return Renewals(
            records=self,
            registrar=self,
            store=self,
            job_states=self,
            server_url="https://ghes.example",
            metrics=self,
            clock=lambda: self.now,
        ).renew(REQUEST, deadline=NOW + self.seconds)


def test_a_runner_gets_another_registration() -> None:
    """It is noted first, then minted and stored for the same instance, labels byte for byte."""
    world = World()
    assert world.take()
    assert world.steps == ["note 0", "register", "put"]
    (config,) = world.stored
    assert (config.instance_id, config.job_id, config.labels) == ("i-1", 1, ("l",))
    assert (config.jit_config, config.server_url) == ("another", "https://ghes.example")
    assert world.counted == {"RunnersRenewed": 1}


def test_when_in_doubt_it_is_renewed() -> None:
    """GitHub that does not answer whether the job waits is no reason to give the runner up."""
    world = World(state=JobState.UNKNOWN)
    assert world.take()
    assert world.stored


def test_a_question_without_an_answer_leaves_time_to_register() -> None:
    """It is noted as given by then, so that nobody would ever try it again."""
    world = World(state=JobState.UNKNOWN, seconds=55, answers_after=ANSWER_SECONDS)
    assert world.take()
    assert world.steps == ["note 0", "register", "put"]
    assert world.stored


def test_a_job_that_waits_no_more_needs_no_runner() -> None:
    """Another runner took it, or it was cancelled: nothing is noted or minted."""
    for state in (JobState.IN_PROGRESS, JobState.COMPLETED):
        world = World(state=state)
        assert world.take()
        assert world.steps == []


def test_a_second_request_gets_nothing() -> None:
    """A duplicate must not take away the registration that the runner is just using."""
    world = World(noted=False)
    assert world.take()
    assert world.steps == ["note 0"]
    assert world.counted == {"ReportsRefused": 1}


def test_a_job_that_nobody_knows_is_refused() -> None:
    """Without a record there is nobody to renew."""
    world = World(job=None)
    assert world.take()
    assert world.counted == {"ReportsRefused": 1}


def test_a_table_that_does_not_answer_brings_the_request_back() -> None:
    """Nothing was minted, so the message may come again."""
    assert not World(table_error=RecordUnknownError("throttled")).take()
    world = World(noted=None)
    assert not world.take()
    assert world.steps == ["note 0"]


def test_what_fails_after_the_note_is_not_tried_again() -> None:
    """The instance ends by itself, and its job is dispatched again."""
    for world in (
        World(github_error=UnavailableError("502")),
        World(github_error=RateLimitedError("limit", retry_at=NOW + 60)),
        World(store_error=RunnerStoreError("throttled")),
    ):
        assert world.take()
        assert world.stored == []
        assert world.counted == {}
