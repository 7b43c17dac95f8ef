"""What exists on the stand-in: Apps, installations, accounts, repositories, runners, runs, jobs.

Plain records and their look-ups; nothing here talks to the network. Identifiers have the sizes
of the real ones: job and run ids exceed 2^31, delivery ids exceed 2^53, so that a consumer
that stores them in a float or a 32-bit field fails here and not in production.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from runsfleet_cli.local.jobs.plan import PlannedJob, WorkflowPlan
from runsfleet_cli.local.jobs.prepare import NeededJob

Clock = Callable[[], float]
"""Seconds since the epoch."""

DEFAULT_PERMISSIONS = {
    "actions": "write",
    "administration": "write",
    "checks": "write",
    "contents": "read",
    "metadata": "read",
    "organization_self_hosted_runners": "write",
}
DEFAULT_GROUP_ID = 1


def iso(moment: float, *, milliseconds: bool = False) -> str:
    """Write epoch seconds the way GitHub does, for example ``2026-11-20T11:01:14Z``."""
    text = datetime.fromtimestamp(moment, UTC)
    if milliseconds:
        return text.strftime("%Y-%m-%dT%H:%M:%S.") + f"{text.microsecond // 1000:03d}Z"
    return text.strftime("%Y-%m-%dT%H:%M:%SZ")


def node_id(prefix: str, number: int) -> str:
    """Make an opaque GraphQL id out of a number."""
    return f"{prefix}_kwDO{base64.urlsafe_b64encode(number.to_bytes(9, 'big')).decode()}"


class JobStatus(StrEnum):
    """Where a job stands; the API's words."""

    WAITING = "waiting"
    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"


class Conclusion(StrEnum):
    """How a job or a step ended; the API's words."""

    SUCCESS = "success"
    FAILURE = "failure"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


@dataclass(slots=True)
class Account:
    """An organization or a user."""

    login: str
    id: int
    type: str = "Organization"

    @property
    def is_organization(self) -> bool:
        """Tell an organization from a user."""
        return self.type == "Organization"


@dataclass(slots=True)
class Repository:
    """A repository; ``files`` is what a checkout of it gets (path to bytes)."""

    owner: Account
    name: str
    id: int
    created_at: float
    private: bool = True
    default_branch: str = "main"
    protected_environments: set[str] = field(default_factory=set)
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def full_name(self) -> str:
        """Answer ``owner/name``."""
        return f"{self.owner.login}/{self.name}"


@dataclass(slots=True)
class App:
    """A GitHub App: who may sign for it, and where its webhooks go."""

    id: int
    slug: str
    client_id: str
    owner: Account
    public_key: RSAPublicKey
    created_at: float
    webhook_url: str | None = None
    webhook_secret: str | None = None
    events: tuple[str, ...] = ("workflow_job",)


@dataclass(slots=True)
class Installation:
    """An App on an account; ``repository_ids`` of None means every repository."""

    id: int
    app_id: int
    account: Account
    created_at: float
    permissions: dict[str, str] = field(default_factory=lambda: dict(DEFAULT_PERMISSIONS))
    repository_ids: set[int] | None = None
    suspended_at: float | None = None

    def covers(self, repository: Repository) -> bool:
        """Say whether the installation reaches this repository."""
        if repository.owner.login.lower() != self.account.login.lower():
            return False
        return self.repository_ids is None or repository.id in self.repository_ids


@dataclass(slots=True)
class RunnerGroup:
    """A group of an organization's runners and the repositories that may use it."""

    id: int
    name: str
    visibility: str = "all"
    default: bool = False
    allows_public_repositories: bool = False
    repository_ids: set[int] = field(default_factory=set)

    def visible_to(self, repository: Repository) -> bool:
        """Say whether jobs of this repository may run in the group."""
        if not repository.private and not self.allows_public_repositories:
            return False
        if self.visibility == "selected":
            return repository.id in self.repository_ids
        return self.visibility == "all" or repository.private


@dataclass(slots=True)
class Runner:
    """A registered runner; ``scope`` is ``orgs/ORG`` or ``repos/OWNER/NAME`` in lower case."""

    id: int
    name: str
    scope: str
    labels: tuple[str, ...]
    group_id: int
    created_at: float
    client_id: str
    ephemeral: bool = True
    jit: bool = True
    os: str = "unknown"
    version: str | None = None
    online: bool = False
    busy: bool = False
    used: bool = False
    offline_since: float | None = None


@dataclass(slots=True)
class Step:
    """A step of a job as the API shows it."""

    name: str
    number: int
    status: str
    conclusion: str | None
    started_at: float | None
    completed_at: float | None


@dataclass(slots=True)
class Job:
    """One job of one attempt of a run, with what a runner needs to execute it."""

    id: int
    run_id: int
    attempt: int
    repository: Repository
    planned: PlannedJob
    workflow_name: str
    head_branch: str
    head_sha: str
    created_at: float
    status: JobStatus = JobStatus.QUEUED
    conclusion: Conclusion | None = None
    queued_at: float = 0.0
    started_at: float | None = None
    completed_at: float | None = None
    runner: Runner | None = None
    assigned_to: int | None = None
    assigned_at: float | None = None
    renewed_at: float | None = None
    cancel_at: float | None = None
    steps: list[Step] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)
    assignments: int = 0
    annotation: str | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Answer the labels of ``runs-on``, byte for byte."""
        return self.planned.labels

    @property
    def done(self) -> bool:
        """Say whether the job has concluded."""
        return self.status is JobStatus.COMPLETED


@dataclass(slots=True)
class Run:
    """A run of a workflow: its plan, and the jobs of each attempt so far."""

    id: int
    number: int
    repository: Repository
    plan: WorkflowPlan
    event: str
    head_branch: str
    head_sha: str
    actor: Account
    created_at: float
    attempt: int = 1
    updated_at: float = 0.0
    cancelled: bool = False
    jobs: dict[str, list[Job]] = field(default_factory=dict)
    held: dict[str, list[PlannedJob]] = field(default_factory=dict)
    label_override: tuple[str, ...] | None = None
    past: list[Job] = field(default_factory=list)

    def latest(self) -> list[Job]:
        """Answer the jobs of the latest attempt in the order in which they were made."""
        return sorted(itertools.chain.from_iterable(self.jobs.values()), key=lambda job: (job.id,))

    def concluded(self, key: str) -> bool:
        """Say whether every job that a key of the plan makes has concluded."""
        return (
            key in self.jobs and not self.held.get(key) and all(job.done for job in self.jobs[key])
        )

    @property
    def done(self) -> bool:
        """Say whether every job of the plan has concluded."""
        return all(self.concluded(key) for key in self.plan.jobs)

    def results(self, key: str) -> NeededJob:
        """Answer how the jobs of a key ended together, and their outputs."""
        jobs = self.jobs.get(key, [])
        outputs: dict[str, str] = {}
        for job in sorted(jobs, key=lambda entry: entry.completed_at or 0.0):
            outputs |= job.outputs
        results = {
            "success"
            if job.planned.continue_on_error and job.conclusion is Conclusion.FAILURE
            else str(job.conclusion)
            for job in jobs
        }
        worst = [entry for entry in ("failure", "cancelled", "success") if entry in results]
        return NeededJob(worst[0] if worst else "skipped", outputs)


@dataclass(slots=True)
class TokenGrant:
    """What an installation access token allows."""

    token: str
    installation: Installation
    expires_at: float
    permissions: dict[str, str]
    repository_ids: set[int] | None


@dataclass(slots=True)
class RegistrationToken:
    """A one-hour token that registers or removes runners of one scope."""

    token: str
    scope: str
    kind: str
    expires_at: float


@dataclass(slots=True)
class Ids:
    """Counters that start where the real service's numbers are."""

    account: Iterator[int] = field(default_factory=lambda: itertools.count(33_435_655, 7))
    repository: Iterator[int] = field(default_factory=lambda: itertools.count(876_034_443, 11))
    installation: Iterator[int] = field(default_factory=lambda: itertools.count(53_986_380, 13))
    app: Iterator[int] = field(default_factory=lambda: itertools.count(1_234_567))
    runner: Iterator[int] = field(default_factory=lambda: itertools.count(201))
    group: Iterator[int] = field(default_factory=lambda: itertools.count(2))
    run: Iterator[int] = field(default_factory=lambda: itertools.count(19_512_345_678, 3))
    job: Iterator[int] = field(default_factory=lambda: itertools.count(55_812_345_678, 5))
    delivery: Iterator[int] = field(
        default_factory=lambda: itertools.count(9_230_218_000_000_001, 97)
    )
    asset: Iterator[int] = field(default_factory=lambda: itertools.count(291_000_001))


class World:
    """Everything that exists, and how to find it (names are case-insensitive, as on GitHub)."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.ids = Ids()
        self.accounts: dict[str, Account] = {}
        self.repositories: dict[str, Repository] = {}
        self.apps: dict[int, App] = {}
        self.installations: dict[int, Installation] = {}
        self.groups: dict[str, dict[int, RunnerGroup]] = {}
        self.runners: dict[int, Runner] = {}
        self.runners_by_scope: dict[str, dict[str, Runner]] = {}
        self.runs: dict[int, Run] = {}
        self.jobs: dict[int, Job] = {}
        self.live_jobs: dict[int, Job] = {}
        self.tokens: dict[str, TokenGrant] = {}
        self.registration_tokens: dict[str, RegistrationToken] = {}
        self.run_numbers: dict[str, int] = {}

    def add_account(self, login: str, *, kind: str = "Organization") -> Account:
        """Make an organization (or a ``User``), or answer the one that is there."""
        found = self.accounts.get(login.lower())
        if found is not None:
            return found
        account = Account(login=login, id=next(self.ids.account), type=kind)
        self.accounts[login.lower()] = account
        if account.is_organization:
            default = RunnerGroup(
                DEFAULT_GROUP_ID, "Default", default=True, allows_public_repositories=True
            )
            self.groups[login.lower()] = {DEFAULT_GROUP_ID: default}
        return account

    def add_repository(
        self, full_name: str, *, owner_type: str = "Organization", private: bool = True
    ) -> Repository:
        """Make ``owner/name`` and its owner, or answer the one that is there."""
        found = self.repositories.get(full_name.lower())
        if found is not None:
            return found
        owner, _, name = full_name.partition("/")
        repository = Repository(
            owner=self.add_account(owner, kind=owner_type),
            name=name,
            id=next(self.ids.repository),
            created_at=self.clock(),
            private=private,
            files={"README.md": f"# {name}\n".encode()},
        )
        self.repositories[full_name.lower()] = repository
        return repository

    def add_group(self, login: str, name: str, **options: Any) -> RunnerGroup:
        """Make a runner group of an organization."""
        group = RunnerGroup(next(self.ids.group), name, **options)
        self.groups[login.lower()][group.id] = group
        return group

    def repository(self, owner: str, name: str) -> Repository | None:
        """Find a repository by its names."""
        return self.repositories.get(f"{owner}/{name}".lower())

    def installations_for(self, repository: Repository) -> list[Installation]:
        """Answer the installations, of any App, that cover a repository."""
        return [entry for entry in self.installations.values() if entry.covers(repository)]

    def runners_of(self, scope: str) -> list[Runner]:
        """Answer a scope's runners, oldest first."""
        return list(self.runners_by_scope.get(scope, {}).values())

    def runner_named(self, scope: str, name: str) -> Runner | None:
        """Find a runner by its name."""
        return self.runners_by_scope.get(scope, {}).get(name.lower())

    def add_runner(self, runner: Runner) -> None:
        """Keep a runner."""
        self.runners[runner.id] = runner
        self.runners_by_scope.setdefault(runner.scope, {})[runner.name.lower()] = runner

    def remove_runner(self, runner: Runner) -> None:
        """Forget a runner."""
        self.runners.pop(runner.id, None)
        self.runners_by_scope.get(runner.scope, {}).pop(runner.name.lower(), None)

    def group_of(self, runner: Runner) -> RunnerGroup:
        """Answer a runner's group; a repository's runners are always in the default one."""
        kind, _, rest = runner.scope.partition("/")
        if kind == "orgs":
            return self.groups[rest][runner.group_id]
        return RunnerGroup(DEFAULT_GROUP_ID, "Default", default=True)
