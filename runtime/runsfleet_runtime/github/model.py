"""What this room answers with: registrations, packages, states of jobs, and what sweeps list."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self
from urllib.parse import quote

from runsfleet_runtime.contract.environment import RunnerLevel
from runsfleet_runtime.contract.tags import RUNNER_NAME_PREFIX
from runsfleet_runtime.github.errors import RefusedError

WORK_FOLDER = "_work"
"""The runner's own default."""
DEFAULT_GROUP_ID = 1
"""GitHub's default runner group; the only one that a repository's runners can be in."""

_INSTANCE_RUNNER = re.compile(f"{RUNNER_NAME_PREFIX}(i-[0-9a-f]{{8,17}})")
_LEVELS = {"read": 1, "write": 2, "admin": 3}
_REPOSITORY = re.compile(r"(?P<owner>[A-Za-z0-9][\w-]*)/(?P<name>[\w.-]+)", re.ASCII)


def runner_name(instance_id: str) -> str:
    """Return the name that the runner of an instance has at GitHub.

    Example:
        >>> runner_name("i-0abc")
        'runsfleet-i-0abc'
    """
    return RUNNER_NAME_PREFIX + instance_id


@dataclass(frozen=True, slots=True)
class RunnerScope:
    """Where runners are registered: an organisation or a repository.

    Attributes:
        level: Which of the two.
        owner: Account that owns the repository.
        name: The repository's name.
    """

    level: RunnerLevel
    owner: str
    name: str

    @classmethod
    def of(cls, level: RunnerLevel, repository: str) -> Self:
        """Return the scope of a repository's runners.

        Args:
            level: The fleet's runner level.
            repository: ``owner/name``.

        Raises:
            RefusedError: If the repository has another form; it becomes part of a path.
        """
        match = _REPOSITORY.fullmatch(repository)
        if match is None or match["name"] in {".", ".."}:
            raise RefusedError(
                f"repository must have the form owner/name, got {repository!r}", status=400
            )
        return cls(level, match["owner"], match["name"])

    @property
    def repository_path(self) -> str:
        """The repository's path in the API."""
        return f"/repos/{quote(self.owner, safe='')}/{quote(self.name, safe='')}"

    @property
    def runners_path(self) -> str:
        """Path under which the scope's runners are."""
        if self.level is RunnerLevel.ORGANIZATION:
            return f"/orgs/{quote(self.owner, safe='')}/actions/runners"
        return f"{self.repository_path}/actions/runners"

    @property
    def key(self) -> str:
        """The same for all repositories whose runners are registered in one place."""
        if self.level is RunnerLevel.ORGANIZATION:
            return self.owner.lower()
        return f"{self.owner}/{self.name}".lower()

    def url(self, server_url: str) -> str:
        """Return what a runner registers with.

        Args:
            server_url: ``https://github.com``, or the URL of an Enterprise Server.
        """
        base = f"{server_url.rstrip('/')}/{self.owner}"
        return base if self.level is RunnerLevel.ORGANIZATION else f"{base}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What a runner needs to register; exactly one of the two secrets is set.

    Attributes:
        runner_name: Name at GitHub.
        runner_url: URL of the organisation or repository.
        runner_group_id: The runner group.
        runner_id: GitHub's id; ``None`` when the runner registers by itself, by token.
        jit_config: ``encoded_jit_config``; expires within minutes when unused. Empty when
            ``registration_token`` is set.
        registration_token: Lets any runner register in the scope for up to an hour. Empty when
            ``jit_config`` is set.
    """

    runner_name: str
    runner_url: str
    runner_group_id: int
    runner_id: int | None = None
    jit_config: str = field(default="", repr=False)
    registration_token: str = field(default="", repr=False)


class Removal(StrEnum):
    """What became of a runner that was to be deregistered."""

    REMOVED = "removed"
    ABSENT = "absent"
    BUSY = "busy"  # it has a job and was left alone


@dataclass(frozen=True, slots=True)
class RunnerPackage:
    """The release of actions/runner that GitHub offers to a scope.

    Attributes:
        url: Where it is downloaded from.
        filename: Its file name, which holds the version.
        sha256: Its SHA-256, as 64 hexadecimal digits in lower case.
    """

    url: str
    filename: str
    sha256: str


class JobState(StrEnum):
    """What GitHub says of a job."""

    QUEUED = "queued"  # wants a runner
    WAITING = "waiting"  # held back at GitHub; an event will tell when it is queued
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    GONE = "gone"  # deleted with its run or repository
    UNKNOWN = "unknown"  # GitHub could not be asked: nothing may be concluded from it


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledAccount:
    """An organisation or user on which the App is installed.

    Attributes:
        installation_id: GitHub's id of the installation.
        login: The account's name.
        is_organization: Whether it is an organisation.
        is_suspended: Whether its owner has suspended the App there; nothing can be asked then.
        permissions: What its owner has granted.
    """

    installation_id: int
    login: str
    is_organization: bool
    is_suspended: bool
    permissions: Mapping[str, str]

    def permits(self, wanted: Mapping[str, str]) -> bool:
        """Tell whether all of some permissions are granted.

        Example:
            >>> account = InstalledAccount(
            ...     installation_id=1,
            ...     login="octo",
            ...     is_organization=True,
            ...     is_suspended=False,
            ...     permissions={"actions": "write"},
            ... )
            >>> account.permits({"actions": "read"}), account.permits({"administration": "read"})
            (True, False)
        """
        return all(
            _LEVELS.get(self.permissions.get(name, ""), 0) >= _LEVELS[level]
            for name, level in wanted.items()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One attempt of GitHub's to deliver an event.

    Attributes:
        id: Of the attempt; exceeds 2^53.
        guid: Of the event, the same for each attempt.
        delivered_at: Epoch seconds.
        is_redelivery: Whether somebody asked for this attempt.
        is_ok: Whether it was answered with 2xx. Anything else is a failure, a timeout too, which
            has no status code that GitHub's own filter for failures covers.
        event: Such as ``workflow_job``.
        action: Such as ``queued``; empty when the event has none.
    """

    id: int
    guid: str
    delivered_at: float
    is_redelivery: bool
    is_ok: bool
    event: str
    action: str


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """A page of the delivery log, newest first.

    Attributes:
        deliveries: The attempts.
        following: Where the page with older ones begins; ``None`` on the last page.
    """

    deliveries: tuple[Delivery, ...]
    following: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRunner:
    """A runner as GitHub lists it.

    Attributes:
        id: GitHub's id.
        name: Its name.
        is_offline: Whether GitHub says that it is offline; what is not understood is not offline.
        is_busy: Whether it may have a job; what is not understood is busy.
        version: Version of actions/runner; empty when GitHub does not say.
    """

    id: int
    name: str
    is_offline: bool
    is_busy: bool
    version: str = ""

    @property
    def instance_id(self) -> str | None:
        """The instance that it is named after; ``None`` when it is no runner of a fleet's."""
        match = _INSTANCE_RUNNER.fullmatch(self.name)
        return match[1] if match else None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedJob:
    """A job that waits for a runner, as GitHub lists it.

    Attributes:
        job_id: GitHub's id of the job.
        run_id: GitHub's id of the workflow run.
        run_attempt: 1 for the first attempt of the run.
        repository: ``owner/name``.
        labels: The job's ``runs-on`` labels, byte for byte and in order.
        created_at: Epoch seconds; ``None`` when it cannot be read, which is no age.
        workflow_name: For people.
        job_name: For people.
    """

    job_id: int
    run_id: int
    run_attempt: int
    repository: str
    labels: tuple[str, ...]
    created_at: float | None
    workflow_name: str = ""
    job_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deprecation:
    """Until when GitHub takes a version of actions/runner.

    Attributes:
        version: The version.
        registration_ends_at: Epoch seconds from which it is not registered; ``None`` while no end
            is set.
        runtime_ends_at: Epoch seconds from which it is given no job; ``None`` while no end is set.
    """

    version: str
    registration_ends_at: float | None
    runtime_ends_at: float | None
