"""Runner packages and states of jobs."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from runsfleet_runtime.contract.messages import JobMessage
from runsfleet_runtime.github.errors import RefusedError, UnavailableError
from runsfleet_runtime.github.model import JobState

DOWNLOADS = "GET /orgs/octo/actions/runners/downloads"
JOB = "GET /repos/octo/spoon/actions/jobs/1"


@pytest.mark.parametrize(
    ("platform", "filename"),
    [
        ("linux-arm64", "actions-runner-linux-arm64-2.337.0.tar.gz"),
        ("linux-x64", "actions-runner-linux-x64-2.337.0.tar.gz"),
        ("windows-x64", "actions-runner-win-x64-2.337.0.tar.gz"),
    ],
)
def test_package_of_each_platform(connect: Any, platform: str, filename: str) -> None:
    """Each platform gets its own package with its digest in lower case."""
    package = connect().packages.for_platform(platform, "octo/spoon")
    assert package.filename == filename
    assert package.sha256 == "ab" * 32


def test_list_is_asked_once_an_hour(connect: Any, github: Any, clock: Any) -> None:
    """All platforms and repositories of an organisation share one list for an hour."""
    packages = connect().packages
    packages.for_platform("linux-arm64", "octo/spoon")
    clock.now += 3599
    packages.for_platform("linux-x64", "octo/knife")
    assert github.lines().count(DOWNLOADS) == 1
    clock.now += 1
    packages.for_platform("linux-x64", "octo/knife")
    assert github.lines().count(DOWNLOADS) == 2


def test_former_list_serves_while_github_fails(
    connect: Any, github: Any, clock: Any, say: Any
) -> None:
    """An outage of the list does not stop launches within a day, and is not asked at each job."""
    packages = connect().packages
    packages.for_platform("linux-arm64", "octo/spoon")
    github.script[DOWNLOADS] = [say(500)] * 1000
    clock.now += 4000
    packages.for_platform("linux-arm64", "octo/spoon")
    asked = github.lines().count(DOWNLOADS)
    packages.for_platform("linux-arm64", "octo/spoon")
    assert github.lines().count(DOWNLOADS) == asked
    clock.now += 24 * 3600
    with pytest.raises(UnavailableError):
        packages.for_platform("linux-arm64", "octo/spoon")


def test_package_without_digest_is_refused(connect: Any, github: Any, say: Any) -> None:
    """A package that cannot be verified is not offered."""
    entry = {"os": "linux", "architecture": "x64", "download_url": "u", "filename": "f"}
    github.script[DOWNLOADS] = [say(200, [entry])]
    with pytest.raises(RefusedError, match="no sha-256"):
        connect().packages.for_platform("linux-x64", "octo/spoon")


@pytest.mark.parametrize("platform", ["linux", "beos-x64", "linux-riscv", ""])
def test_platform_without_a_package_is_refused(connect: Any, platform: str) -> None:
    """A platform that GitHub has no runner for is refused by name."""
    with pytest.raises(RefusedError, match=r"platform|no runner for"):
        connect().packages.for_platform(platform, "octo/spoon")


def test_malformed_list_is_no_answer(connect: Any, github: Any, say: Any) -> None:
    """Something else than a list is treated as an outage."""
    github.script[DOWNLOADS] = [say(200, {"message": "hello"})]
    with pytest.raises(UnavailableError, match="no list"):
        connect().packages.for_platform("linux-x64", "octo/spoon")


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("queued", JobState.QUEUED),
        ("in_progress", JobState.IN_PROGRESS),
        ("completed", JobState.COMPLETED),
        ("waiting", JobState.WAITING),
        ("pending", JobState.WAITING),
        ("requested", JobState.WAITING),
        ("hibernating", JobState.UNKNOWN),
    ],
)
def test_state_of_a_job(connect: Any, github: Any, word: str, state: JobState) -> None:
    """GitHub's words are understood, and a new one is unknown."""
    github.jobs[1] = word
    assert connect().job_states.status("octo/spoon", 1, 99) is state


def test_deleted_job_is_gone(connect: Any) -> None:
    """A job that GitHub does not have any more is gone."""
    assert connect().job_states.status("octo/spoon", 1, 99) is JobState.GONE


def test_missing_installation_is_not_a_gone_job(connect: Any, github: Any) -> None:
    """Where the App may not look, nothing is known of the job."""
    github.installations.clear()
    assert connect().job_states.status("octo/spoon", 1, 99) is JobState.UNKNOWN


@pytest.mark.parametrize("status", [403, 422, 429, 500, 502])
def test_failures_are_unknown(
    connect: Any, github: Any, say: Any, caplog: Any, status: int
) -> None:
    """Whatever GitHub refuses or fails at is unknown, with the reason in the log."""
    github.script[JOB] = [say(status, {"message": "because of the weather"})] * 100
    logger = logging.getLogger("runsfleet")
    logger.addHandler(caplog.handler)
    try:
        assert connect().job_states.status("octo/spoon", 1, 99) is JobState.UNKNOWN
    finally:
        logger.removeHandler(caplog.handler)
    (record, *_) = caplog.records
    assert record.job_id == 1
    assert ("limits" if status == 429 else "because of the weather") in record.error


def test_silence_is_unknown(connect: Any, github: Any, silence: Any) -> None:
    """A GitHub that does not answer says nothing about the job."""
    github.script[JOB] = [silence() for _ in range(100)]
    assert connect().job_states.status("octo/spoon", 1, 99) is JobState.UNKNOWN


def test_malformed_repository_is_unknown(connect: Any) -> None:
    """A record with a broken repository name does not break the caller."""
    assert connect().job_states.status("nonsense", 1, 99) is JobState.UNKNOWN


@pytest.mark.parametrize("body", [None, [], {"status": 7}])
def test_malformed_answer_is_unknown(connect: Any, github: Any, say: Any, body: Any) -> None:
    """An answer without a status says nothing."""
    github.script[JOB] = [say(200, body)]
    assert connect().job_states.status("octo/spoon", 1, 99) is JobState.UNKNOWN


def test_waiting_jobs_of_a_run_are_those_with_the_same_labels(
    connect: Any, github: Any, say: Any, job: JobMessage
) -> None:
    """Jobs that a runner with these very labels could serve, the asking one excepted."""
    same = list(job.labels)
    entries = [
        {"id": 11, "status": "queued", "labels": same},
        {"id": job.job_id, "status": "queued", "labels": same},
        {"id": 12, "status": "in_progress", "labels": same},
        {"id": 13, "status": "queued", "labels": ["other"]},
        {"status": "queued", "labels": same},
        None,
    ]
    route = f"GET /repos/{job.repository}/actions/runs/{job.run_id}/jobs"
    github.script[route] = [say(200, {"jobs": entries}), say(404), say(200, [])]
    states = connect().job_states
    assert states.queued_in_run(job) == [11]
    assert states.queued_in_run(job) == []
    assert states.queued_in_run(job) == []
