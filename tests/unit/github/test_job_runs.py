"""How jobs ended at GitHub, and running them again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from runsfleet_runtime.contract.messages import JobMessage
from runsfleet_runtime.github.job_runs import JobDetail, JobRuns, RerunAnswer, RunDetail
from runsfleet_runtime.github.model import JobState

REPOSITORY = "/repos/octo/spoon/actions"
TOKENS = "POST /app/installations/99/access_tokens"


@pytest.fixture
def runs(connect: Callable[..., Any], clock: Any) -> JobRuns:
    """What reads and re-runs jobs."""
    return JobRuns(connect().api, clock=clock)


def of_job(job: JobMessage) -> str:
    """Return the request that reads a job."""
    return f"GET {REPOSITORY}/jobs/{job.job_id}"


def test_job_is_read_with_its_end(runs: JobRuns, job: JobMessage, github: Any, say: Any) -> None:
    """State, conclusion, runner and time."""
    github.script[of_job(job)] = [
        say(
            200,
            {
                "status": "completed",
                "conclusion": "failure",
                "runner_name": "runsfleet-i-1",
                "completed_at": "2027-01-15T08:00:00Z",
            },
        ),
        say(200, {"status": "queued", "conclusion": None, "runner_name": None}),
    ]
    assert runs.job(job) == JobDetail(
        state=JobState.COMPLETED,
        conclusion="failure",
        runner_name="runsfleet-i-1",
        completed_at=1_800_000_000.0,
    )
    assert runs.job(job) == JobDetail(state=JobState.QUEUED)


def test_gone_and_unknown_are_different(
    runs: JobRuns, job: JobMessage, github: Any, say: Any
) -> None:
    """404 says that it is deleted; a word that is new, a refusal or no answer says nothing."""
    run = f"GET {REPOSITORY}/runs/{job.run_id}"
    for line, ask in ((of_job(job), runs.job), (run, runs.run)):
        github.script[line] = [
            say(404, {"message": "Not Found"}),
            say(200, {"status": "pondering"}),
            say(200, ["what"]),
            say(403, {"message": "no"}),
        ]
        states = [ask(job).state for _ in range(4)]
        assert states == [JobState.GONE, *[JobState.UNKNOWN] * 3]


def test_missing_installation_says_nothing_of_the_job(
    runs: JobRuns, job: JobMessage, github: Any
) -> None:
    """The App was removed from the account: neither gone nor refused."""
    github.installations.clear()
    assert runs.job(job).state is JobState.UNKNOWN
    assert runs.run(job).state is JobState.UNKNOWN
    assert runs.was_rerun(job, ended_at=0.0) is None
    assert runs.rerun(job) is RerunAnswer.UNKNOWN


def test_run_is_read_with_its_attempt(
    runs: JobRuns, job: JobMessage, github: Any, say: Any
) -> None:
    """An answer without an attempt is none."""
    github.script[f"GET {REPOSITORY}/runs/{job.run_id}"] = [
        say(200, {"status": "completed", "run_attempt": 2}),
        say(200, {"status": "completed"}),
    ]
    assert runs.run(job) == RunDetail(state=JobState.COMPLETED, attempt=2)
    assert runs.run(job).state is JobState.UNKNOWN


def entry(job_id: int, attempt: int, ended: str | None, name: str = "build (a)") -> dict[str, Any]:
    """Return a job as a run lists it."""
    return {"id": job_id, "name": name, "run_attempt": attempt, "completed_at": ended}


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        ([], False),
        ([entry(2, 2, None)], True),
        ([entry(2, 2, "2027-01-15T09:00:00Z")], True),
        # another job of the matrix ran again; this one was only carried over
        ([entry(3, 2, None, "build (b)")], False),
        ([entry(3, 2, None, "build (b)"), entry(2, 2, "2027-01-15T08:00:00Z")], False),
    ],
)
def test_later_attempt_is_looked_through_for_the_job(
    *,
    runs: JobRuns,
    job: JobMessage,
    github: Any,
    say: Any,
    later: list[dict[str, Any]],
    expected: bool,
) -> None:
    """By its name, as it has another id there; all pages are read."""
    own = entry(job.job_id, 1, "2027-01-15T08:00:00Z")
    others = [entry(1000 + n, 1, None, f"other {n}") for n in range(99)]
    github.script[f"GET {REPOSITORY}/runs/{job.run_id}/jobs"] = [
        say(200, {"total_count": 100 + len(later), "jobs": [own, *others]}),
        say(200, {"total_count": 100 + len(later), "jobs": later}),
    ]
    assert runs.was_rerun(job, ended_at=1_800_000_000.0) is expected
    asked = [request for request in github.requests if request.path.endswith("/jobs")]
    assert [(r.query["filter"], r.query["page"]) for r in asked] == [
        (["all"], ["1"]),
        (["all"], ["2"]),
    ]


SHUTDOWN = (
    "The runner has received a shutdown signal. This can happen when the runner service is "
    "stopped, or a manually started runner is canceled."
)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, [{"message": "Node 16 is old"}, {"message": SHUTDOWN}], True),
        (200, [{"message": "The self-hosted runner lost communication with the server."}], True),
        (200, [{"message": "The operation was canceled."}, {"message": None}, "what"], False),
        (200, {}, False),
        (403, {"message": "Resource not accessible by integration"}, False),
        (404, {"message": "Not Found"}, False),
    ],
)
def test_stopped_job_is_told_by_its_runners_note(
    *, runs: JobRuns, job: JobMessage, github: Any, say: Any, status: int, body: Any, expected: bool
) -> None:
    """Without the note, or without the permission to read it, somebody cancelled the job."""
    line = f"GET /repos/octo/spoon/check-runs/{job.job_id}/annotations"
    github.script[line] = [say(status, body)]
    assert runs.was_stopped(job) is expected
    assert github.requests[0].body == {"permissions": {"checks": "read"}}


def test_note_that_could_not_be_asked_for_is_unknown(
    runs: JobRuns, job: JobMessage, github: Any, silence: Any
) -> None:
    """No answer is not the answer that there is no note."""
    line = f"GET /repos/octo/spoon/check-runs/{job.job_id}/annotations"
    github.script[line] = [silence() for _ in range(99)]
    assert runs.was_stopped(job) is None


def test_rerun_asks_for_that_job_alone_with_the_permission_for_it(
    runs: JobRuns, job: JobMessage, github: Any, say: Any
) -> None:
    """One POST, with a token that may write actions."""
    line = f"POST {REPOSITORY}/jobs/{job.job_id}/rerun"
    github.script[line] = [say(201, {})]
    assert runs.rerun(job) is RerunAnswer.ACCEPTED
    assert github.lines() == [TOKENS, line]
    assert github.requests[0].body == {"permissions": {"actions": "write"}}


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (
            403,
            "The workflow run containing this job is already running",
            RerunAnswer.RUNNING,
        ),
        (403, "Resource not accessible by integration", RerunAnswer.NOT_PERMITTED),
        (
            403,
            "Unable to retry this workflow run because it was created over a month ago",
            RerunAnswer.REFUSED,
        ),
        (422, "Validation Failed", RerunAnswer.REFUSED),
        (404, "Not Found", RerunAnswer.GONE),
    ],
)
def test_refusals_are_told_apart(
    *,
    runs: JobRuns,
    job: JobMessage,
    github: Any,
    say: Any,
    status: int,
    message: str,
    expected: RerunAnswer,
) -> None:
    """What may succeed later, what lacks a permission, and what never will."""
    github.script[f"POST {REPOSITORY}/jobs/{job.job_id}/rerun"] = [
        say(status, {"message": message})
    ]
    assert runs.rerun(job) is expected


def test_app_without_the_permission_is_told_at_the_token(
    runs: JobRuns, job: JobMessage, github: Any, say: Any
) -> None:
    """GitHub mints no token with what the installation does not grant; nothing else is sent."""
    refusal = "The permissions requested are not granted to this installation."
    github.script[TOKENS] = [say(422, {"message": refusal})]
    assert runs.rerun(job) is RerunAnswer.NOT_PERMITTED
    assert github.lines() == [TOKENS]


def test_request_whose_answer_was_lost_is_unknown_or_running(
    runs: JobRuns, job: JobMessage, github: Any, say: Any, silence: Any
) -> None:
    """The client asks again by itself, and GitHub says that the run goes on: by us or another."""
    line = f"POST {REPOSITORY}/jobs/{job.job_id}/rerun"
    running = say(403, {"message": "The workflow run containing this job is already running"})
    github.script[line] = [silence(), running]
    assert runs.rerun(job) is RerunAnswer.RUNNING
    github.script[line] = [silence() for _ in range(99)]
    assert runs.rerun(job) is RerunAnswer.UNKNOWN
