"""What GitHub says of a job; "unknown" is an answer of its own.

Unknown means: launch when in doubt, never destroy when in doubt. So every failure becomes
``UNKNOWN`` here and is logged with its reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from runsfleet_runtime.contract.environment import RunnerLevel
from runsfleet_runtime.contract.messages import JobMessage
from runsfleet_runtime.github.errors import (
    GitHubError,
    InstallationNotFoundError,
    NotFoundError,
)
from runsfleet_runtime.github.installations import JOBS, Installations
from runsfleet_runtime.github.model import JobState, RunnerScope
from runsfleet_runtime.telemetry.log import get_logger

DEADLINE_SECONDS = 10.0
_log = get_logger("github.job_states")
_STATES = {
    "queued": JobState.QUEUED,
    "in_progress": JobState.IN_PROGRESS,
    "completed": JobState.COMPLETED,
    # held back by a protection rule or a concurrency group; GitHub sends `queued` afterwards
    "waiting": JobState.WAITING,
    "requested": JobState.WAITING,
    "pending": JobState.WAITING,
}


def state_of(word: object) -> JobState | None:
    """Return the state that GitHub's word for it means; ``None`` for one that is new.

    Example:
        >>> state_of("pending")
        <JobState.WAITING: 'waiting'>
    """
    return _STATES.get(word) if isinstance(word, str) else None


class JobStates:
    """Reads the state of jobs.

    Args:
        github: The API.
        clock: Epoch seconds.
    """

    def __init__(self, github: Installations, *, clock: Callable[[], float] = time.time) -> None:
        self._github = github
        self._clock = clock

    def status(
        self,
        repository: str,
        job_id: int,
        installation_id: int | None = None,
        *,
        deadline: float | None = None,
    ) -> JobState:
        """Return what GitHub says of a job; never raises a ``GitHubError``.

        Args:
            repository: ``owner/name``.
            job_id: GitHub's id of the job.
            installation_id: Of the App; looked up when ``None``.
            deadline: Epoch seconds after which to give up; 10 s from now by default.

        Returns:
            ``GONE`` when GitHub does not have the job any more, ``UNKNOWN`` when it could not be
            asked or said something new.
        """
        if deadline is None:
            deadline = self._clock() + DEADLINE_SECONDS
        try:
            # the level decides on the path of runners only
            scope = RunnerScope.of(RunnerLevel.REPOSITORY, repository)
            job = self._github.call(
                "GET",
                f"{scope.repository_path}/actions/jobs/{job_id}",
                scope=scope,
                installation_id=installation_id,
                permissions=JOBS,
                deadline=deadline,
            )
        except InstallationNotFoundError as error:
            return self._unknown(job_id, str(error))
        except NotFoundError:
            return JobState.GONE
        except GitHubError as error:
            return self._unknown(job_id, str(error))
        word = job.get("status") if isinstance(job, dict) else None
        return state_of(word) or self._unknown(job_id, f"status {word!r}")

    def queued_in_run(self, job: JobMessage, *, deadline: float | None = None) -> list[int]:
        """Return the jobs of a job's run that wait for a runner with the very same labels.

        Args:
            job: The job; it is not among them itself.
            deadline: Epoch seconds after which to give up; 10 s from now by default.

        Returns:
            Ids, at most those of the run's first hundred jobs; none when GitHub could not be asked.
        """
        if deadline is None:
            deadline = self._clock() + DEADLINE_SECONDS
        try:
            scope = RunnerScope.of(RunnerLevel.REPOSITORY, job.repository)
            found = self._github.call(
                "GET",
                f"{scope.repository_path}/actions/runs/{job.run_id}/jobs?per_page=100",
                scope=scope,
                installation_id=job.installation_id,
                permissions=JOBS,
                deadline=deadline,
            )
        except GitHubError as error:
            _log.warning("jobs of a run unknown", extra={"run_id": job.run_id, "error": str(error)})
            return []
        entries = found.get("jobs") if isinstance(found, dict) else None
        return [
            entry["id"]
            for entry in (entries if isinstance(entries, list) else [])
            if isinstance(entry, dict)
            and entry.get("status") == "queued"
            and entry.get("labels") == list(job.labels)
            and isinstance(entry.get("id"), int)
            and entry["id"] != job.job_id
        ]

    @staticmethod
    def _unknown(job_id: int, reason: str) -> JobState:
        _log.warning("state of a job unknown", extra={"job_id": job_id, "error": reason})
        return JobState.UNKNOWN
