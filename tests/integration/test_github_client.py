"""The GitHub client over real HTTP, against the stand-in for GitHub."""

from __future__ import annotations

import base64
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from runsfleet_cli.local.github.background import BackgroundStandIn
from runsfleet_cli.local.github.traffic import Fault, RateLimits
from runsfleet_cli.local.jobs.plan import read_workflow_file
from runsfleet_cli.local.tls import create_tls_files
from runsfleet_runtime.contract.environment import GitHubEnvironment, RunnerLevel
from runsfleet_runtime.contract.messages import JobMessage
from runsfleet_runtime.github import (
    CredentialsError,
    InstallationNotFoundError,
    JobState,
    NotFoundError,
    RateLimitedError,
    RefusedError,
    Removal,
    UnavailableError,
)
from runsfleet_runtime.github.gateway import GitHubGateway
from runsfleet_runtime.github.transport import Urllib3Transport

pytestmark = pytest.mark.integration

REPOSITORY = "octo-org/hello"
WORKFLOW = """
on: push
jobs:
  build:
    runs-on: "runs-fleet=1/runner=2cpu-linux-arm64"
    steps: [{run: "true"}]
"""
Connect = Callable[..., GitHubGateway]


class Secret:
    """The App's secret in memory."""

    def __init__(self, value: str) -> None:
        self.value = value

    def read(self, reference: str) -> str:
        return self.value

    def refresh(self, reference: str) -> str:
        return self.value


def connect_to(
    github: BackgroundStandIn,
    *,
    level: RunnerLevel = RunnerLevel.ORGANIZATION,
    base: str = "",
    secret: dict[str, Any] | None = None,
    **options: Any,
) -> GitHubGateway:
    """Make a gateway as a function's composition does."""
    body = {"app_id": github.stand_in.app.id, "private_key": github.stand_in.private_key}
    environment = GitHubEnvironment(
        github_app_secret="secretsmanager:app",
        github_api_url=github.url + base,
        github_server_url=github.url,
    )
    text = json.dumps(body | (secret or {}))
    return GitHubGateway.connect(environment, level=level, secrets=Secret(text), **options)


@pytest.fixture
def github() -> Iterator[BackgroundStandIn]:
    """Start a GitHub."""
    with BackgroundStandIn() as started:
        yield started


@pytest.fixture
def gateway(github: BackgroundStandIn) -> GitHubGateway:
    """Connect as dispatch does."""
    return connect_to(github)


@pytest.fixture
def queued(github: BackgroundStandIn, tmp_path: Path) -> Any:
    """Queue a job at GitHub."""
    path = tmp_path / "hello.yml"
    path.write_text(WORKFLOW)
    run = github.call(lambda: github.stand_in.queue_workflow(read_workflow_file(path)))
    (job,) = github.call(run.latest)
    return job


@pytest.fixture
def job(queued: Any) -> JobMessage:
    """Make the message of the queued job, from an event that names no installation."""
    return JobMessage(
        job_id=queued.id,
        run_id=queued.run_id,
        run_attempt=1,
        repository=REPOSITORY,
        labels=queued.labels,
        queued_at=queued.queued_at,
    )


def sent(github: BackgroundStandIn) -> list[str]:
    """Tell the API requests so far, as ``METHOD route``."""
    requests = github.call(lambda: list(github.stand_in.traffic.requests))
    return [f"{r.method} {r.route}" for r in requests if r.surface == "api"]


def spoil(github: BackgroundStandIn, route: str, **options: Any) -> None:
    """Switch a fault on."""
    github.call(lambda: github.stand_in.traffic.add_fault(Fault(route=route, **options)))


def names(github: BackgroundStandIn) -> list[str]:
    """Tell the names of the runners that GitHub knows."""
    return github.call(lambda: [r.name for r in github.stand_in.world.runners.values()])


JIT = "POST /orgs/{org}/actions/runners/generate-jitconfig"


@pytest.mark.parametrize("base", ["", "/api/v3"])
def test_first_job_and_those_after_it(
    github: BackgroundStandIn, job: JobMessage, base: str
) -> None:
    """A cold function needs id, token and packages once; from then on a job is one request."""
    gateway = connect_to(github, base=base)
    gateway.packages.for_platform("linux-arm64", REPOSITORY)
    first = gateway.registrar.register(job, instance_id="i-0")
    assert sorted(sent(github)) == sorted(
        [
            "GET /repos/{owner}/{repo}/installation",
            "POST /app/installations/{installation_id}/access_tokens",
            "GET /orgs/{org}/actions/runners/downloads",
            JIT,
        ]
    )
    before = len(sent(github))
    gateway.packages.for_platform("linux-x64", REPOSITORY)
    gateway.registrar.register(job, instance_id="i-1")
    assert sent(github)[before:] == [JIT]
    assert first.runner_url == f"{github.url}/octo-org"
    decoded = json.loads(base64.b64decode(first.jit_config))
    assert {".runner", ".credentials"} <= set(decoded)


def test_ten_at_once(github: BackgroundStandIn, gateway: GitHubGateway, job: JobMessage) -> None:
    """A batch of ten is registered at the same time with one token and ten requests."""
    with ThreadPoolExecutor(10) as pool:
        made = list(
            pool.map(lambda n: gateway.registrar.register(job, instance_id=f"i-{n}"), range(10))
        )
    assert len({registration.jit_config for registration in made}) == 10
    assert sent(github).count(JIT) == 10
    tokens = [line for line in sent(github) if line.endswith("/access_tokens")]
    assert len(tokens) == 1


def test_runner_has_the_labels_of_its_job_byte_for_byte(
    github: BackgroundStandIn, gateway: GitHubGateway, job: JobMessage
) -> None:
    """GitHub knows the runner by exactly the labels that the job asked for."""
    labels = (*job.labels, "Mixed-Case", "ünïcode")
    gateway.registrar.register(dataclasses.replace(job, labels=labels), instance_id="i-0")
    (runner,) = github.call(lambda: list(github.stand_in.world.runners.values()))
    assert runner.labels == labels
    assert runner.name == "runsfleet-i-0"


@pytest.mark.parametrize("repository", [REPOSITORY, "octocat/hello"])
def test_repository_level(github: BackgroundStandIn, job: JobMessage, repository: str) -> None:
    """At repository level runners belong to the repository, be its owner a user or not."""
    gateway = connect_to(github, level=RunnerLevel.REPOSITORY)
    registration = gateway.registrar.register(
        dataclasses.replace(job, repository=repository), instance_id="i-0"
    )
    assert registration.runner_url == f"{github.url}/{repository}"
    (runner,) = github.call(lambda: list(github.stand_in.world.runners.values()))
    assert runner.scope == f"repos/{repository}"


def test_user_owned_repository_at_organisation_level(
    gateway: GitHubGateway, job: JobMessage
) -> None:
    """A user has no organisation's runners; the error names the setting to change."""
    with pytest.raises(NotFoundError, match="runner_level to repository"):
        gateway.registrar.register(
            dataclasses.replace(job, repository="octocat/hello"), instance_id="i-0"
        )


def test_foreign_installation_is_resolved_again(
    github: BackgroundStandIn, gateway: GitHubGateway, job: JobMessage
) -> None:
    """An event with the installation id of another App is served through ours."""
    foreign = dataclasses.replace(job, installation_id=12_345)
    assert gateway.registrar.register(foreign, instance_id="i-0").jit_config
    before = len(sent(github))
    gateway.registrar.register(foreign, instance_id="i-1")
    assert sent(github)[before:] == [JIT]


def test_app_that_is_not_installed(gateway: GitHubGateway, job: JobMessage) -> None:
    """A repository that the App does not see is told by name."""
    elsewhere = dataclasses.replace(job, repository="stranger/things")
    with pytest.raises(InstallationNotFoundError, match="install the App on stranger"):
        gateway.registrar.register(elsewhere, instance_id="i-0")


def test_missing_permission(github: BackgroundStandIn, job: JobMessage) -> None:
    """An installation without the permission is refused, naming what to grant."""
    installation = github.call(github.stand_in.installation_of)
    installation.permissions.pop("organization_self_hosted_runners")
    with pytest.raises(RefusedError, match="organization_self_hosted_runners: write"):
        connect_to(github).registrar.register(job, instance_id="i-0")


@pytest.mark.parametrize("field", ["app_id", "private_key"])
def test_wrong_credentials(github: BackgroundStandIn, job: JobMessage, field: str) -> None:
    """A key of another App, or another App's id, is reported and nothing is registered."""
    with BackgroundStandIn() as other:
        wrong = {"app_id": 1, "private_key": other.stand_in.private_key}[field]
    gateway = connect_to(github, secret={field: wrong})
    with pytest.raises((CredentialsError, NotFoundError)):
        gateway.registrar.register(job, instance_id="i-0")
    assert not names(github)


def test_revoked_tokens_are_replaced(
    github: BackgroundStandIn, gateway: GitHubGateway, job: JobMessage
) -> None:
    """Tokens that GitHub has dropped are replaced without the caller noticing."""
    gateway.registrar.register(job, instance_id="i-0")
    github.call(github.stand_in.world.tokens.clear)
    assert gateway.registrar.register(job, instance_id="i-1").jit_config


def test_stale_registration_is_replaced(
    github: BackgroundStandIn, gateway: GitHubGateway, job: JobMessage
) -> None:
    """Registering an instance twice leaves one runner, with the second configuration."""
    first = gateway.registrar.register(job, instance_id="i-0")
    second = gateway.registrar.register(job, instance_id="i-0")
    assert first.jit_config != second.jit_config
    assert names(github) == ["runsfleet-i-0"]


@pytest.mark.parametrize("after", [False, True])
def test_broken_connection(
    github: BackgroundStandIn, gateway: GitHubGateway, job: JobMessage, after: bool
) -> None:
    """A connection that breaks before or after the work still ends in one registration."""
    spoil(github, "*/generate-jitconfig", drop=True, after=after, count=1)
    assert gateway.registrar.register(job, instance_id="i-0").jit_config
    assert names(github) == ["runsfleet-i-0"]


def test_server_errors_are_repeated(
    github: BackgroundStandIn, gateway: GitHubGateway, job: JobMessage
) -> None:
    """Two failures of GitHub delay a job and do not lose it."""
    spoil(github, "*/generate-jitconfig", status=502, count=2)
    assert gateway.registrar.register(job, instance_id="i-0").jit_config
    assert sent(github).count(JIT) == 3


def test_deadline_holds_against_a_slow_server(
    github: BackgroundStandIn, gateway: GitHubGateway, job: JobMessage
) -> None:
    """A GitHub that does not answer in time costs no more than the deadline."""
    gateway.registrar.register(job, instance_id="i-0")
    # within the second that the stand-in grants to open requests when it stops
    spoil(github, "*/generate-jitconfig", delay=1.4)
    began = time.monotonic()
    with pytest.raises(UnavailableError):
        gateway.registrar.register(job, instance_id="i-1", deadline=time.time() + 0.6)
    assert time.monotonic() - began < 1.4


def test_limits_of_github_stop_the_requests(job: JobMessage) -> None:
    """Beyond the points of a minute GitHub is left alone, and the caller told until when."""
    limits = RateLimits(points_per_minute=10)
    with BackgroundStandIn(limits=limits) as github:
        registrar = connect_to(github).registrar
        for number in range(2):
            registrar.register(job, instance_id=f"i-{number}")
        for number in range(2, 5):
            with pytest.raises(RateLimitedError) as caught:
                registrar.register(job, instance_id=f"i-{number}")
            assert 30 < caught.value.retry_at - time.time() <= 61
        assert sent(github).count(JIT) == 3


def test_fallback_to_a_registration_token(github: BackgroundStandIn, job: JobMessage) -> None:
    """A fleet that opted in goes on with one registration token at its share of the limit."""
    registrar = connect_to(github, token_fallback=True, jit_configs_per_minute=1).registrar
    made = [registrar.register(job, instance_id=f"i-{number}") for number in range(4)]
    assert [bool(registration.jit_config) for registration in made] == [True, False, False, False]
    (token,) = {registration.registration_token for registration in made[1:]}
    assert github.call(lambda: token in github.stand_in.world.registration_tokens)


def test_package_matches_what_is_downloaded(gateway: GitHubGateway) -> None:
    """The package of each platform is offered with an address and a digest."""
    for platform, word in (("linux-arm64", "linux-arm64"), ("linux-x64", "linux-x64")):
        package = gateway.packages.for_platform(platform, REPOSITORY)
        assert word in package.filename
        assert package.url.endswith(package.filename)
        assert len(package.sha256) == 64


def test_states_of_a_job(github: BackgroundStandIn, gateway: GitHubGateway, queued: Any) -> None:
    """A queued job is queued, a deleted one gone, and trouble of GitHub's makes it unknown."""
    states = gateway.job_states
    assert states.status(REPOSITORY, queued.id) is JobState.QUEUED
    assert states.status(REPOSITORY, 1) is JobState.GONE
    assert states.status("stranger/things", queued.id) is JobState.UNKNOWN
    spoil(github, "*/actions/jobs/*", status=500)
    deadline = time.time() + 0.5
    assert states.status(REPOSITORY, queued.id, deadline=deadline) is JobState.UNKNOWN


def test_deregistering(github: BackgroundStandIn, gateway: GitHubGateway, job: JobMessage) -> None:
    """An idle runner is removed once, a busy one is left alone."""
    registrar = gateway.registrar
    registrar.register(job, instance_id="i-0")
    assert registrar.deregister(REPOSITORY, instance_id="i-0") is Removal.REMOVED
    assert registrar.deregister(REPOSITORY, instance_id="i-0") is Removal.ABSENT
    registrar.register(job, instance_id="i-0")
    (runner,) = github.call(lambda: list(github.stand_in.world.runners.values()))
    runner.busy = True
    assert registrar.deregister(REPOSITORY, instance_id="i-0") is Removal.BUSY
    assert names(github) == ["runsfleet-i-0"]


def test_enterprise_server_with_a_certificate_authority_of_its_own(
    tmp_path: Path, job: JobMessage
) -> None:
    """A server with a private authority is trusted by its bundle, and without it not spoken to."""
    files = create_tls_files(tmp_path / "tls", now=datetime.now(UTC))
    with BackgroundStandIn(ssl_context=files.server_context()) as github:
        transport = Urllib3Transport(ca_bundle=str(files.bundle))
        trusting = connect_to(github, base="/api/v3", transport=transport)
        assert trusting.registrar.register(job, instance_id="i-0").jit_config
        transport.close()  # asyncio waits for the client's end of a TLS connection
        before = len(sent(github))
        with pytest.raises(UnavailableError, match=r"(?i)certificate"):
            connect_to(github).registrar.register(
                job, instance_id="i-1", deadline=time.time() + 0.5
            )
        assert len(sent(github)) == before
