"""GitHub and the jobs table in memory, as the sweeps that ask GitHub see them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from runsfleet_runtime.contract.messages import JobMessage
from runsfleet_runtime.github.errors import GitHubError
from runsfleet_runtime.github.model import InstalledAccount, QueuedJob
from runsfleet_runtime.github.rest import Quota
from runsfleet_runtime.jobs.model import JobRecord, JobStatus
from runsfleet_runtime.jobs.ports import RecordUnknownError

INSTALLATION = 99


def account(login: str = "octo", **changes: object) -> InstalledAccount:
    """Make an installation with every permission that a fleet needs."""
    return InstalledAccount(
        **{
            "installation_id": INSTALLATION,
            "login": login,
            "is_organization": True,
            "is_suspended": False,
            "permissions": {
                "actions": "read",
                "metadata": "read",
                "organization_self_hosted_runners": "write",
                "administration": "write",
            },
        }
        | changes  # type: ignore[arg-type]
    )


@dataclass
class Accounts:
    """Where the App is installed."""

    found: list[InstalledAccount] = field(default_factory=lambda: [account()])
    reachable: dict[str, list[str]] = field(default_factory=dict)
    error: GitHubError | None = None
    listed: int = 0

    def accounts(self) -> Sequence[InstalledAccount]:
        if self.error is not None:
            raise self.error
        return self.found

    def repositories(self, account: InstalledAccount) -> Iterator[str]:
        self.listed += 1
        yield from self.reachable.get(account.login, [])


@dataclass
class QueuedAtGitHub:
    """Runs and queued jobs by repository; ``errors`` by repository come first."""

    runs_of: dict[str, dict[int, list[QueuedJob]]] = field(default_factory=dict)
    errors: dict[str, GitHubError] = field(default_factory=dict)
    left: Quota | None = None
    asked: list[str] = field(default_factory=list)

    def add(self, job: QueuedJob) -> None:
        self.runs_of.setdefault(job.repository, {}).setdefault(job.run_id, []).append(job)

    def runs(self, repository: str, installation_id: int) -> Iterator[int]:
        assert installation_id == INSTALLATION
        self.asked.append(repository)
        if repository in self.errors:
            raise self.errors[repository]
        yield from self.runs_of.get(repository, {})

    def jobs(self, repository: str, run_id: int, installation_id: int) -> Sequence[QueuedJob]:
        assert installation_id == INSTALLATION
        self.asked.append(f"{repository}#{run_id}")
        return self.runs_of[repository][run_id]

    def quota(self, installation_id: int) -> Quota | None:
        return self.left

    @property
    def repositories(self) -> list[str]:
        """The repositories that were asked, in order."""
        return [asked for asked in self.asked if "#" not in asked]


@dataclass
class Records:
    """The jobs table."""

    records: dict[int, JobRecord] = field(default_factory=dict)
    known: set[str] = field(default_factory=lambda: {"octo/spoon"})
    is_down: bool = False
    scans: int = 0

    def add(self, record: JobRecord) -> JobRecord:
        self.records[record.job.job_id] = record
        return record

    def get(self, job_id: int) -> JobRecord | None:
        if self.is_down:
            raise RecordUnknownError("throttled")
        return self.records.get(job_id)

    def of_instance(self, instance_id: str) -> JobRecord | None:
        found = (one for one in self.records.values() if one.instance_id == instance_id)
        return next(found, None)

    def of_run(self, run_id: int) -> Sequence[JobRecord]:
        return [one for one in self.records.values() if one.job.run_id == run_id]

    def in_status(
        self, status: JobStatus, *, updated_before: float, limit: int | None = None
    ) -> Iterator[JobRecord]:
        if self.is_down:
            raise RecordUnknownError("throttled")
        found = sorted(
            (
                one
                for one in self.records.values()
                if one.status is status and one.updated_at < updated_before
            ),
            key=lambda one: one.updated_at,
        )
        yield from found[:limit]

    def repositories(self, *, since: float) -> set[str]:
        self.scans += 1
        return self.known


@dataclass
class Queue:
    """The jobs queue."""

    sent: list[JobMessage] = field(default_factory=list)
    is_down: bool = False

    def send(self, jobs: Sequence[JobMessage]) -> Sequence[bool]:
        if self.is_down:
            return [False] * len(jobs)
        self.sent += jobs
        return [True] * len(jobs)

    def defer(self, receipt_handle: str, seconds: float) -> None:
        raise AssertionError("a sweep holds no received message")
