"""From a launched instance to its stored configuration."""

from __future__ import annotations

from typing import Any

import pytest

from runsfleet_runtime.contract.messages import JobMessage, RunnerConfig
from runsfleet_runtime.github import (
    CredentialsError,
    GitHubError,
    NotFoundError,
    RateLimitedError,
    RefusedError,
    Registration,
    Removal,
    RunnerPackage,
    UnavailableError,
    runner_name,
)
from runsfleet_runtime.jobs.dispatch import RunnerNotConfiguredError
from runsfleet_runtime.labels import Arch, Os, RunnerSpec
from runsfleet_runtime.runners.configurator import RunnerConfigurator
from runsfleet_runtime.runners.dynamodb import DynamoDBRunnerStore
from runsfleet_runtime.runners.ports import RunnerStoreError, StoresRunnerConfig
from runsfleet_runtime.runners.ssm import SsmRunnerStore

NOW = 1_800_000_000.0
SPEC = RunnerSpec(os=Os.LINUX, arch=Arch.ARM64, cpu_min=4, cpu_max=4, disk_gib=50)
JOB = JobMessage(
    job_id=55_812_345_678,
    run_id=19_512_345_678,
    run_attempt=1,
    repository="octo/spoon",
    labels=("runs-fleet=1/runner=4cpu-linux-arm64", " As  Sent "),
    queued_at=NOW,
    installation_id=99,
    dispatch=2,
)


class GitHub:
    """Registers and offers packages in memory; fails when told to."""

    def __init__(self) -> None:
        self.error: GitHubError | None = None
        self.full_until = 0.0
        self.asked: list[str] = []
        self.deadlines: list[float | None] = []

    def reserve(self, job: JobMessage) -> None:
        self.asked.append(f"reserve {job.job_id}")
        if self.full_until:
            raise RateLimitedError("full", retry_at=self.full_until)

    def register(
        self, job: JobMessage, *, instance_id: str, deadline: float | None = None
    ) -> Registration:
        self.asked.append("register")
        self.deadlines.append(deadline)
        if self.error is not None:
            raise self.error
        return Registration(
            runner_name=runner_name(instance_id),
            runner_url=f"https://github.example/{job.owner}",
            runner_group_id=7,
            jit_config="topsecret",
        )

    def deregister(self, repository: str, **scope: Any) -> Removal:
        assert (scope["installation_id"], scope["deadline"]) == (99, NOW + 5)
        self.asked.append(f"deregister {repository}")
        return Removal.REMOVED

    def for_platform(
        self,
        platform: str,
        repository: str,
        *,
        installation_id: int | None = None,
        deadline: float | None = None,
    ) -> RunnerPackage:
        self.asked.append(f"{platform} {repository} {installation_id}")
        self.deadlines.append(deadline)
        return RunnerPackage("https://github.example/p.tar.gz", "p.tar.gz", "ab" * 32)


@pytest.fixture
def github() -> GitHub:
    """Make a GitHub."""
    return GitHub()


def configurator(github: GitHub, store: StoresRunnerConfig) -> RunnerConfigurator:
    """Wire the adapter under test."""
    return RunnerConfigurator(
        registrar=github,
        packages=github,
        store=store,
        server_url="https://github.example",
        max_runtime_seconds=7200,
        idle_timeout_seconds=300,
    )


def dynamodb(clients: Any) -> DynamoDBRunnerStore:
    """Make the default store."""
    return DynamoDBRunnerStore(clients, table="runners", role_id="AROAEXAMPLE")


def ssm(clients: Any) -> SsmRunnerStore:
    """Make the other store."""
    return SsmRunnerStore(clients, prefix="/runs-fleet/dev/runners", role_id="AROAEXAMPLE")


def test_configuration_says_all_that_the_agent_needs(github: GitHub, clients: Any) -> None:
    """Job, registration, package and limits are in the configuration, labels byte for byte."""
    target = configurator(github, dynamodb(clients))
    config = target.configure(JOB, "i-0abc", SPEC, deadline=NOW + 20)
    assert config == RunnerConfig(
        instance_id="i-0abc",
        job_id=JOB.job_id,
        dispatch=2,
        run_id=JOB.run_id,
        repository="octo/spoon",
        server_url="https://github.example",
        runner_url="https://github.example/octo",
        runner_name="runsfleet-i-0abc",
        runner_group_id=7,
        labels=JOB.labels,
        jit_config="topsecret",
        package_url="https://github.example/p.tar.gz",
        package_filename="p.tar.gz",
        package_sha256="ab" * 32,
        max_runtime_seconds=7200,
        idle_timeout_seconds=300,
    )


def test_registration_comes_last(github: GitHub, clients: Any) -> None:
    """Nothing is registered before the package is known, and both keep to the deadline."""
    configurator(github, dynamodb(clients)).configure(JOB, "i-0abc", SPEC, deadline=NOW + 20)
    assert github.asked == ["linux-arm64 octo/spoon 99", "register"]
    assert github.deadlines == [NOW + 20, NOW + 20]


@pytest.mark.parametrize(
    ("error", "retry_at", "is_final"),
    [
        (RateLimitedError("slow down", retry_at=NOW + 60), NOW + 60, False),
        (UnavailableError("no answer"), 0.0, False),
        (CredentialsError("wrong key"), 0.0, False),
        (NotFoundError("no such organisation"), 0.0, False),
        (RefusedError("no", status=403), 0.0, True),
    ],
)
def test_trouble_of_github_is_told_with_its_time(
    github: GitHub, clients: Any, error: GitHubError, retry_at: float, is_final: bool
) -> None:
    """Whatever GitHub fails at becomes one failure, with the time to come back, or for good."""
    github.error = error
    with pytest.raises(RunnerNotConfiguredError, match=str(error)) as caught:
        configurator(github, dynamodb(clients)).configure(JOB, "i-0abc", SPEC, deadline=NOW + 20)
    assert (caught.value.service, caught.value.retry_at) == ("github", retry_at)
    assert caught.value.is_final is is_final


def test_preparing_asks_for_the_package_and_registers_nothing(github: GitHub, clients: Any) -> None:
    """Before a launch GitHub is only asked what needs the same permission as registering."""
    configurator(github, dynamodb(clients)).prepare(JOB, SPEC, deadline=NOW + 20)
    assert github.asked == ["linux-arm64 octo/spoon 99", f"reserve {JOB.job_id}"]


def test_preparing_without_a_place_says_when_there_is_one(github: GitHub, clients: Any) -> None:
    """At GitHub's limit the job waits before its instance is launched, not after."""
    github.full_until = NOW + 40
    with pytest.raises(RunnerNotConfiguredError) as caught:
        configurator(github, dynamodb(clients)).prepare(JOB, SPEC, deadline=NOW + 20)
    assert caught.value.retry_at == NOW + 40


def test_write_in_the_jobs_transaction(github: GitHub, clients: Any, config: Any) -> None:
    """With DynamoDB nothing is written here: the write goes with the job's record."""
    writes = configurator(github, dynamodb(clients)).transact_put(config(), now=NOW)
    assert [list(entry) for entry in writes] == [["Put"]]
    assert not clients.calls


def test_write_before_the_jobs_transaction(github: GitHub, clients: Any, config: Any) -> None:
    """With Parameter Store the configuration is durable before the job's record changes."""
    assert configurator(github, ssm(clients)).transact_put(config(), now=NOW) == ()
    assert len(clients.sent("PutParameter")) == 2


class Broken:
    """A store that cannot be reached."""

    def transact_put(self, config: RunnerConfig, now: float) -> tuple[dict[str, Any], ...]:
        return ()

    def put(self, config: RunnerConfig, now: float) -> None:
        raise RunnerStoreError("writing failed")

    def transact_delete(self, instance_id: str) -> tuple[dict[str, Any], ...]:
        return ()

    def delete(self, instance_id: str) -> None:
        raise RunnerStoreError("deleting failed")


def test_store_that_fails(github: GitHub, config: Any) -> None:
    """A configuration that cannot be stored is a failure of that runner."""
    with pytest.raises(RunnerNotConfiguredError, match="writing failed"):
        configurator(github, Broken()).transact_put(config(), now=NOW)


def test_discarding_deletes_and_never_fails(github: GitHub, clients: Any, config: Any) -> None:
    """Undoing a launch removes the configuration, and goes on when that fails."""
    store = ssm(clients)
    store.put(config(), NOW)
    configurator(github, store).discard(config(), JOB, deadline=NOW + 5)
    assert clients("ssm").describe_parameters()["Parameters"] == []
    configurator(github, Broken()).discard(config(), JOB, deadline=NOW + 5)
