"""The jobs that GitHub has queued in a repository, run by run.

GitHub lists runs of a status, not jobs: a run that waits is ``queued``, and one of which a job has
begun is ``in_progress`` although others of its jobs may wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runsfleet_runtime.contract.environment import RunnerLevel
from runsfleet_runtime.github.installations import JOBS, Installations
from runsfleet_runtime.github.listings import moment, numbered_pages, text
from runsfleet_runtime.github.model import QueuedJob, RunnerScope
from runsfleet_runtime.github.rest import Quota

_STATUSES = ("queued", "in_progress")


class QueuedJobs:
    """Lists runs that are under way and their queued jobs.

    Args:
        github: The API.
    """

    def __init__(self, github: Installations) -> None:
        self._github = github

    def runs(self, repository: str, installation_id: int) -> Iterator[int]:
        """Yield the ids of the runs that may have queued jobs, newest first for each status.

        Args:
            repository: ``owner/name``.
            installation_id: The App's installation there.

        Raises:
            GitHubError: If a page could not be read.
        """
        # the level decides on the path of runners only
        scope = RunnerScope.of(RunnerLevel.REPOSITORY, repository)
        for status in _STATUSES:
            pages = numbered_pages(
                lambda path: self._get(path, installation_id),
                f"{scope.repository_path}/actions/runs?status={status}",
                key="workflow_runs",
                what="workflow runs",
            )
            for entry in (entry for page in pages for entry in page):
                if isinstance(entry.get("id"), int):
                    yield entry["id"]

    def jobs(self, repository: str, run_id: int, installation_id: int) -> list[QueuedJob]:
        """Return the jobs of a run's latest attempt that wait for a runner.

        Args:
            repository: ``owner/name``.
            run_id: The run.
            installation_id: The App's installation there.

        Raises:
            NotFoundError: If the run is gone.
            GitHubError: If a page could not be read.
        """
        scope = RunnerScope.of(RunnerLevel.REPOSITORY, repository)
        pages = numbered_pages(
            lambda path: self._get(path, installation_id),
            f"{scope.repository_path}/actions/runs/{run_id}/jobs",
            key="jobs",
            what="jobs",
        )
        found = (_job(entry, repository, run_id) for page in pages for entry in page)
        return [job for job in found if job is not None]

    def quota(self, installation_id: int) -> Quota | None:
        """Return what is left of an installation's requests; ``None`` when it is not known."""
        return self._github.quota(installation_id)

    def _get(self, path: str, installation_id: int) -> Any:
        return self._github.call_as(installation_id, "GET", path, permissions=JOBS)


def _job(entry: dict[str, Any], repository: str, run_id: int) -> QueuedJob | None:
    job_id, labels, attempt = entry.get("id"), entry.get("labels"), entry.get("run_attempt")
    if entry.get("status") != "queued" or not isinstance(job_id, int):
        return None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        return None
    return QueuedJob(
        job_id=job_id,
        run_id=run_id,
        run_attempt=attempt if isinstance(attempt, int) else 1,
        repository=repository,
        labels=tuple(labels),
        created_at=moment(entry, "created_at"),
        workflow_name=text(entry, "workflow_name")[:200],
        job_name=text(entry, "name")[:200],
    )
