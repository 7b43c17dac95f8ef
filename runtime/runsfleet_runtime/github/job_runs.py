"""How a job ended at GitHub, and running it again.

GitHub re-runs a job only once its whole run has completed (403 before), together with the jobs that
need it, as a further attempt of the run: the job then exists anew, with another id and the same
name. Unknown is an answer of its own here too; nothing of this raises a ``GitHubError``.

Gotcha: a client repeats a request whose answer got lost. A second request to re-run is refused with
403 as the run is going on already, so that answer says "running", whoever started it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from runsfleet_runtime.contract.environment import RunnerLevel
from runsfleet_runtime.contract.messages import JobMessage
from runsfleet_runtime.github.errors import (
    GitHubError,
    InstallationNotFoundError,
    NotFoundError,
    RefusedError,
)
from runsfleet_runtime.github.installations import JOBS, Installations, Permissions
from runsfleet_runtime.github.job_states import DEADLINE_SECONDS, state_of
from runsfleet_runtime.github.listings import moment, numbered_pages, text
from runsfleet_runtime.github.model import JobState, RunnerScope
from runsfleet_runtime.telemetry.log import get_logger

_log = get_logger("github.job_runs")

RERUNS: Final[Permissions] = {"actions": "write"}
"""What re-running a job needs."""
ANNOTATIONS: Final[Permissions] = {"checks": "read"}
"""What telling a stopped job from a cancelled one needs; a fleet works without it."""
_BROKEN_OFF: Final = (
    "runner has received a shutdown signal",
    "lost communication with the server",  # it went without a word; GitHub says so 10 min later
)
_FORBIDDEN, _UNPROCESSABLE = 403, 422


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDetail:
    """A job as GitHub knows it.

    Attributes:
        state: Its state; ``UNKNOWN`` when GitHub could not be asked, ``GONE`` when it is deleted.
        conclusion: How it ended; empty until it did.
        runner_name: The runner that has, or had, it; empty when it got none.
        completed_at: Epoch seconds; 0 until it ended.
    """

    state: JobState
    conclusion: str = ""
    runner_name: str = ""
    completed_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDetail:
    """A workflow run as GitHub knows it.

    Attributes:
        state: Its state, as that of a job.
        attempt: The latest attempt, from 1; 0 when that is unknown.
    """

    state: JobState
    attempt: int = 0


class RerunAnswer(StrEnum):
    """What GitHub answered to a request to re-run a job."""

    ACCEPTED = "accepted"
    RUNNING = "running"  # its run is going on, or somebody was faster
    NOT_PERMITTED = "not_permitted"  # the App lacks the permission
    REFUSED = "refused"  # for good, say because the run is too old
    GONE = "gone"
    UNKNOWN = "unknown"  # it may have been taken or not


class JobRuns:
    """Reads how jobs ended and re-runs them.

    Args:
        github: The API.
        clock: Epoch seconds.
    """

    def __init__(self, github: Installations, *, clock: Callable[[], float] = time.time) -> None:
        self._github = github
        self._clock = clock

    def job(self, job: JobMessage, *, deadline: float | None = None) -> JobDetail:
        """Return what GitHub knows of a job.

        Args:
            job: The job.
            deadline: Epoch seconds after which to give up; 10 s from now by default.
        """
        try:
            found = self._call("GET", job, f"/actions/jobs/{job.job_id}", JOBS, deadline)
        except InstallationNotFoundError as error:
            return JobDetail(state=_unknown(job, error))
        except NotFoundError:
            return JobDetail(state=JobState.GONE)
        except GitHubError as error:
            return JobDetail(state=_unknown(job, error))
        return _detail(found, job)

    def run(self, job: JobMessage, *, deadline: float | None = None) -> RunDetail:
        """Return what GitHub knows of a job's run; arguments as :meth:`job`."""
        try:
            found = self._call("GET", job, f"/actions/runs/{job.run_id}", JOBS, deadline)
        except InstallationNotFoundError as error:
            return RunDetail(state=_unknown(job, error))
        except NotFoundError:
            return RunDetail(state=JobState.GONE)
        except GitHubError as error:
            return RunDetail(state=_unknown(job, error))
        body = found if isinstance(found, dict) else {}
        attempt = body.get("run_attempt")
        state = state_of(body.get("status"))
        if state is None or type(attempt) is not int:
            return RunDetail(state=_unknown(job, "the answer names no status or attempt"))
        return RunDetail(state=state, attempt=attempt)

    def was_rerun(
        self, job: JobMessage, *, ended_at: float, deadline: float | None = None
    ) -> bool | None:
        """Tell whether a job was run again in a later attempt of its run.

        An attempt runs some of a run's jobs; what it left out is listed as it was, or not at all.

        Args:
            job: The job, as it was in its own attempt.
            ended_at: When it ended there, epoch seconds; what a later attempt only carried over
                ended then too.
            deadline: Epoch seconds after which to give up; 10 s from now by default.

        Returns:
            ``None`` when GitHub could not be asked.
        """
        pages = numbered_pages(
            lambda path: self._call("GET", job, path, JOBS, deadline),
            f"/actions/runs/{job.run_id}/jobs?filter=all",
            key="jobs",
            what="jobs",
        )
        try:
            entries = [entry for page in pages for entry in page]
        except GitHubError as error:
            _unknown(job, error)
            return None
        own = next((entry for entry in entries if entry.get("id") == job.job_id), {})
        name = own.get("name") or job.job_name
        return any(
            entry.get("name") == name
            and entry.get("id") != job.job_id
            and _attempt(entry) > job.run_attempt
            and moment(entry, "completed_at") != ended_at
            for entry in entries
        )

    def was_stopped(self, job: JobMessage, *, deadline: float | None = None) -> bool | None:
        """Tell whether a job was broken off as its runner was told to stop, or fell silent.

        GitHub calls some of these jobs failed and some cancelled. Only an annotation tells them
        from those that failed by themselves or that somebody cancelled.

        Args:
            job: The job.
            deadline: Epoch seconds after which to give up; 10 s from now by default.

        Returns:
            ``None`` when GitHub could not be asked, ``False`` when it does not say so or the App
            lacks the permission ``checks: read``.
        """
        # a job is a check run, by the same id
        path = f"/check-runs/{job.job_id}/annotations?per_page=100"
        try:
            found = self._call("GET", job, path, ANNOTATIONS, deadline)
        except InstallationNotFoundError as error:
            _unknown(job, error)
            return None
        except (NotFoundError, RefusedError) as error:
            _log.warning(
                "annotations of a job not readable",
                extra={"job_id": job.job_id, "error": str(error)},
            )
            return False
        except GitHubError as error:
            _unknown(job, error)
            return None
        entries = found if isinstance(found, list) else []
        return any(
            any(words in text(entry, "message") for words in _BROKEN_OFF)
            for entry in entries
            if isinstance(entry, dict)
        )

    def rerun(self, job: JobMessage, *, deadline: float | None = None) -> RerunAnswer:
        """Run a job again, and those that need it; arguments as :meth:`job`."""
        try:
            self._call("POST", job, f"/actions/jobs/{job.job_id}/rerun", RERUNS, deadline)
        except InstallationNotFoundError as error:
            answer, fault = RerunAnswer.UNKNOWN, str(error)
        except NotFoundError as error:
            answer, fault = RerunAnswer.GONE, str(error)
        except RefusedError as error:
            answer, fault = _refusal(error), str(error)
        except GitHubError as error:
            answer, fault = RerunAnswer.UNKNOWN, str(error)
        else:
            return RerunAnswer.ACCEPTED
        _log.warning(
            "job not re-run", extra={"job_id": job.job_id, "answer": answer.value, "error": fault}
        )
        return answer

    def _call(
        self,
        method: str,
        job: JobMessage,
        path: str,
        permissions: Permissions,
        deadline: float | None,
    ) -> Any:
        # the level decides on the path of runners only
        scope = RunnerScope.of(RunnerLevel.REPOSITORY, job.repository)
        return self._github.call(
            method,
            f"{scope.repository_path}{path}",
            scope=scope,
            installation_id=job.installation_id,
            permissions=permissions,
            deadline=self._clock() + DEADLINE_SECONDS if deadline is None else deadline,
        )


def _detail(found: object, job: JobMessage) -> JobDetail:
    body = found if isinstance(found, dict) else {}
    state = state_of(body.get("status"))
    if state is None:
        return JobDetail(state=_unknown(job, f"status {body.get('status')!r}"))
    return JobDetail(
        state=state,
        conclusion=text(body, "conclusion"),
        runner_name=text(body, "runner_name"),
        completed_at=moment(body, "completed_at") or 0.0,
    )


def _attempt(entry: Mapping[str, Any]) -> int:
    attempt = entry.get("run_attempt")
    return attempt if type(attempt) is int else 0


def _refusal(error: RefusedError) -> RerunAnswer:
    message = str(error).lower()
    # a token with a permission that the installation does not grant is refused with 422, and the
    # request itself with 403 if that was withdrawn while the token lived
    if error.status == _UNPROCESSABLE and "access_tokens" in message:
        return RerunAnswer.NOT_PERMITTED
    if error.status == _FORBIDDEN:
        if "not accessible" in message:
            return RerunAnswer.NOT_PERMITTED
        if "already running" in message:
            return RerunAnswer.RUNNING
    return RerunAnswer.REFUSED


def _unknown(job: JobMessage, reason: object) -> JobState:
    _log.warning("end of a job unknown", extra={"job_id": job.job_id, "error": str(reason)})
    return JobState.UNKNOWN
