"""The REST endpoints of runs and jobs, and the control API around them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runsfleet_cli.local.github import BackgroundStandIn
from runsfleet_cli.local.github.world import Conclusion, Job
from tests.unit.local.github_api import Answer, control, fetch, installation_token

EXAMPLES = Path(__file__).parents[3] / "examples" / "workflows"
ACTIONS = "/repos/octo-org/hello/actions"


@pytest.fixture
def github() -> Iterator[BackgroundStandIn]:
    """Answer a fresh stand-in."""
    with BackgroundStandIn() as stand_in:
        yield stand_in


@pytest.fixture
def token(github: BackgroundStandIn) -> str:
    """Answer an installation token of the organization."""
    return installation_token(github)


def start(github: BackgroundStandIn, file: str = "matrix.yml", **more: object) -> dict[str, Any]:
    """Start a run of an example and answer the control API's view of it."""
    body = {"file": str(EXAMPLES / file)} | more
    run: dict[str, Any] = control(github, "POST", "/runs", body)["runs"][0]
    return run


def end(github: BackgroundStandIn, conclusion: Conclusion = Conclusion.SUCCESS) -> None:
    """Conclude every job until none is left."""

    def once() -> bool:
        live: list[Job] = list(github.stand_in.world.live_jobs.values())
        for job in live:
            github.stand_in.lifecycle.complete(job, conclusion)
        return bool(live)

    while github.call(once):
        pass


def call(github: BackgroundStandIn, method: str, path: str, token: str) -> Answer:
    """Call an endpoint of the repository's actions."""
    return fetch(method, f"{github.url}{ACTIONS}{path}", token=token)


def test_runs_are_listed_by_status(github: BackgroundStandIn, token: str) -> None:
    """A run is found under its status and later under its conclusion; a wrong status is a 422."""
    run = start(github)
    assert call(github, "GET", "/runs?status=queued", token).json["total_count"] == 1
    end(github)
    found = call(github, "GET", "/runs?status=success", token).json
    assert [entry["id"] for entry in found["workflow_runs"]] == [run["id"]]
    assert found["workflow_runs"][0]["path"] == ".github/workflows/matrix.yml"
    assert call(github, "GET", "/runs?status=queued", token).json["total_count"] == 0
    assert call(github, "GET", "/runs?status=lost", token).status == 422
    assert call(github, "GET", f"/runs/{run['id']}", token).json["conclusion"] == "success"
    assert call(github, "GET", "/runs/1", token).status == 404


def test_jobs_of_a_run_and_one_job(github: BackgroundStandIn, token: str) -> None:
    """The run's jobs are listed; one of them is read by its id."""
    run = start(github)
    jobs = call(github, "GET", f"/runs/{run['id']}/jobs", token).json
    assert jobs["total_count"] == 4
    one = jobs["jobs"][0]
    assert call(github, "GET", f"/jobs/{one['id']}", token).json == one
    assert (one["status"], one["conclusion"], one["runner_id"]) == ("queued", None, None)
    assert one["labels"] == [f"runs-fleet={run['id']}/runner=4cpu-linux-arm64"]
    assert call(github, "GET", "/jobs/1", token).status == 404
    assert call(github, "GET", "/jobs/one", token).status == 404


def test_a_job_is_run_again_over_the_api(github: BackgroundStandIn, token: str) -> None:
    """A re-run is refused while the run goes on, then 201; `filter=all` shows both attempts."""
    run = start(github, "hello.yml")
    number = run["jobs"][0]["id"]
    assert call(github, "POST", f"/jobs/{number}/rerun", token).status == 403
    end(github, Conclusion.FAILURE)
    assert call(github, "POST", f"/jobs/{number}/rerun", token).status == 201
    everything = call(github, "GET", f"/runs/{run['id']}/jobs?filter=all", token).json["jobs"]
    assert [entry["run_attempt"] for entry in everything] == [1, 2]
    latest = call(github, "GET", f"/runs/{run['id']}/jobs", token).json["jobs"]
    assert [entry["status"] for entry in latest] == ["queued"]
    end(github, Conclusion.FAILURE)
    assert call(github, "POST", f"/runs/{run['id']}/rerun-failed-jobs", token).status == 201
    end(github)
    assert call(github, "POST", f"/runs/{run['id']}/rerun-failed-jobs", token).status == 403
    assert call(github, "POST", f"/runs/{run['id']}/rerun", token).status == 201


def test_reading_does_not_permit_a_rerun(github: BackgroundStandIn) -> None:
    """A token with `actions: read` reads a job and may not run it again."""
    number = start(github, "hello.yml")["jobs"][0]["id"]
    end(github)
    token = installation_token(github, permissions={"actions": "read"})
    assert call(github, "GET", f"/jobs/{number}", token).status == 200
    assert call(github, "POST", f"/jobs/{number}/rerun", token).status == 403


def test_notes_at_a_job_are_read_as_those_of_its_check_run(github: BackgroundStandIn) -> None:
    """A check run has the id of its job; reading it takes `checks: read`."""
    number = start(github, "hello.yml")["jobs"][0]["id"]
    url = f"{github.url}/repos/octo-org/hello/check-runs/{number}/annotations"
    token = installation_token(github, permissions={"checks": "read"})
    assert fetch("GET", url, token=token).json == []
    job = github.stand_in.job(number)
    github.call(
        lambda: github.stand_in.lifecycle.complete(
            job, Conclusion.CANCELLED, annotation="The runner has received a shutdown signal."
        )
    )
    (note,) = fetch("GET", url, token=token).json
    assert note["message"] == "The runner has received a shutdown signal."
    other = installation_token(github, permissions={"actions": "read"})
    assert fetch("GET", url, token=other).status == 403


def test_a_run_is_cancelled_once(github: BackgroundStandIn, token: str) -> None:
    """Cancelling is accepted with a 202, and a conflict when the run is over."""
    run = start(github)
    assert call(github, "POST", f"/runs/{run['id']}/cancel", token).status == 202
    assert call(github, "GET", f"/runs/{run['id']}", token).json["conclusion"] == "cancelled"
    assert call(github, "POST", f"/runs/{run['id']}/cancel", token).status == 409


def test_logs_are_a_redirect(github: BackgroundStandIn, token: str) -> None:
    """The log of a finished job is behind a redirect; an unfinished one has none."""
    number = start(github, "hello.yml")["jobs"][0]["id"]
    assert call(github, "GET", f"/jobs/{number}/logs", token).status == 404
    github.stand_in.job(number).log.append("a line")
    end(github)
    answer = call(github, "GET", f"/jobs/{number}/logs", token)
    assert answer.status == 302
    assert fetch("GET", answer.headers["Location"]).content == b"a line\n"


def test_an_installation_lists_its_repositories(github: BackgroundStandIn, token: str) -> None:
    """The token's repositories are listed, and each can be read."""
    found = fetch("GET", f"{github.url}/installation/repositories", token=token).json
    assert [entry["full_name"] for entry in found["repositories"]] == ["octo-org/hello"]
    one = fetch("GET", f"{github.url}/repos/Octo-Org/Hello", token=token)
    assert one.json["default_branch"] == "main"


def test_a_workflow_is_started_many_times_with_other_labels(github: BackgroundStandIn) -> None:
    """`times` starts as many runs and `labels` replaces every job's labels."""
    body = {"file": str(EXAMPLES / "hello.yml"), "times": 3, "labels": ["mine"]}
    runs = control(github, "POST", "/runs", body)["runs"]
    assert len({run["id"] for run in runs}) == 3
    assert {tuple(job["labels"]) for run in runs for job in run["jobs"]} == {("mine",)}
    assert len(control(github, "GET", "/jobs")["jobs"]) == 3


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"text": "on: push"}, 422, "has no jobs"),
        ({"file": "missing.yml"}, 422, "cannot read workflow"),
        ({"file": str(EXAMPLES / "hello.yml"), "repository": "no/where"}, 404, "octo-org/hello"),
        ([], 422, "must be a JSON object"),
    ],
)
def test_a_run_that_cannot_start_says_why(
    github: BackgroundStandIn, body: object, status: int, words: str
) -> None:
    """Each mistake is one sentence with the cure, and starts nothing."""
    answer = fetch("POST", f"{github.url}/_control/runs", body=body)
    assert answer.status == status
    assert words in answer.json["message"]
    assert not github.stand_in.world.runs


def test_waiting_ends_with_the_run_or_in_time(github: BackgroundStandIn) -> None:
    """`wait` answers false when the time is up and true once every job has concluded."""
    run = start(github, "hello.yml")
    path = f"/wait?run={run['id']}&timeout=0.05"
    assert control(github, "GET", path)["done"] is False
    end(github)
    told = control(github, "GET", path)
    assert (told["done"], told["runs"][0]["conclusion"]) == (True, "success")
    assert fetch("GET", f"{github.url}/_control/wait?run=1").status == 404


def test_the_world_is_told_and_can_grow(github: BackgroundStandIn) -> None:
    """The control API tells what exists and adds organizations, repositories and installations."""
    world = control(github, "GET", "/world")
    assert world["repositories"] == ["octo-org/hello", "octocat/hello"]
    assert world["apps"][0]["private_key"].startswith("-----BEGIN RSA PRIVATE KEY-----")
    control(github, "POST", "/organizations", {"login": "acme"})
    readme = base64.b64encode(b"hi").decode()
    body = {"full_name": "acme/site", "files": {"README.md": readme}, "private": False}
    control(github, "POST", "/repositories", body)
    control(github, "POST", "/installations", {"account": "acme"})
    assert github.stand_in.repository("acme/site").files == {"README.md": b"hi"}
    assert installation_token(github, "acme/site").startswith("ghs_")
    unknown = fetch("POST", f"{github.url}/_control/installations", body={"account": "nobody"})
    assert unknown.status == 404


def test_a_waiting_job_is_approved_by_control(github: BackgroundStandIn) -> None:
    """A job of a protected environment waits until the control API approves it."""
    body = {"full_name": "octo-org/hello", "protected_environments": ["prod"]}
    control(github, "POST", "/repositories", body)
    text = 'on: push\njobs: {a: {runs-on: x, environment: {name: prod}, steps: [{run: "true"}]}}'
    (run,) = control(github, "POST", "/runs", {"text": text})["runs"]
    (job,) = run["jobs"]
    assert job["status"] == "waiting"
    control(github, "POST", f"/jobs/{job['id']}/approve")
    assert control(github, "GET", f"/jobs/{job['id']}")["status"] == "queued"
    actions = [event.get("action") for event in control(github, "GET", "/events")["events"]]
    assert actions == ["waiting", "queued"]


def test_subscribers_are_told_of_events(github: BackgroundStandIn) -> None:
    """A subscriber gets each change as it happens."""
    told: list[dict[str, Any]] = []
    github.stand_in.subscribe(told.append)
    run = start(github, "hello.yml")
    assert told[0]["kind"] == "workflow_job"
    assert (told[0]["action"], told[0]["run_id"]) == ("queued", run["id"])
