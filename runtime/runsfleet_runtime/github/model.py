"""What this room answers with: registrations, packages, job states."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self
from urllib.parse import quote

from runsfleet_runtime.contract.environment import RunnerLevel
from runsfleet_runtime.github.errors import RefusedError

RUNNER_NAME_PREFIX = "runsfleet-"
WORK_FOLDER = "_work"
"""The runner's own default."""
DEFAULT_GROUP_ID = 1
"""GitHub's default runner group; the only one that a repository's runners can be in."""

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
