"""An operator looks at a fleet, asks for things, and sees who did: every part as deployed."""

from __future__ import annotations

import json
import ssl
import time
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from runsfleet_cli.local.state import STATE_VARIABLE
from runsfleet_cli.main import app

if TYPE_CHECKING:
    from tests.e2e.clouds import Cloud

Ask = Callable[..., str]


@pytest.fixture
def ask(strict_cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Runs a command on the local cloud; it must succeed."""
    monkeypatch.setenv(STATE_VARIABLE, str(strict_cloud.state))

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, [*arguments, "--local"])
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


def test_operator_follows_a_job(strict_cloud: Cloud, ask: Ask) -> None:
    """Its story, its instance and its log tell what GitHub and EC2 saw."""
    outcome = strict_cloud.run("hello.yml")
    assert outcome.ok, outcome.problems
    (job,) = outcome.jobs
    job_id, (instance,) = str(job["job_id"]), outcome.instances
    told = json.loads(ask("job", job_id, "--json"))
    assert told["record"]["status"] == "completed"
    assert told["record"]["instance_id"] == instance["instance_id"]
    whats = [event["what"] for event in told["story"]]
    assert whats == ["queued", "claimed", "launched", "started", "ended"]
    found = json.loads(ask("instance", instance["instance_id"], "--json"))
    assert str(found["job"]["job_id"]) == job_id
    lines = [json.loads(line) for line in ask("logs", job_id, "--json").splitlines()]
    assert any("Listening for Jobs" in line["message"] for line in lines)
    assert {line["stream"] for line in lines} == {f"{instance['instance_id']}/{job_id}"}
    done = json.loads(ask("jobs", "--status", "completed", "--json"))["jobs"]
    assert int(job_id) in [one["job_id"] for one in done]


def test_operator_asks_for_a_sweep_and_health_tells_of_it(strict_cloud: Cloud, ask: Ask) -> None:
    """The message reaches the function, its run is in the answer of the route, a row says who."""
    ask("sweep", "expired_leases", "--note", "as a test")
    (row, *_) = json.loads(ask("audit", "--subject", "sweep:expired_leases", "--json"))["audit"]
    assert row["detail"] == "as a test"
    assert row["actor"].startswith("arn:aws:")
    # an answer is kept for ten seconds, so the sweep is in one that comes later
    told = _health(strict_cloud)
    for _ in range(60):
        if "expired_leases" in told["sweeps"]:
            break
        time.sleep(1)
        told = _health(strict_cloud)
    assert told["sweeps"]["expired_leases"]["outcome"] == "succeeded"
    assert (told["status"], told["fleet"]) == ("ok", "dev")
    assert "123456789012" not in json.dumps(told)


def _health(cloud: Cloud) -> dict[str, Any]:
    """Ask the route by the path that the emulator leaves to APIs; its own health has the other."""
    endpoints = cloud.running.endpoints
    api = (urlsplit(endpoints.webhook).hostname or "").partition(".")[0]
    url = f"{endpoints.aws}/_aws/execute-api/{api}/health"
    trusted = ssl.create_default_context(cafile=endpoints.ca_bundle)
    with urllib.request.urlopen(url, timeout=30, context=trusted) as answer:  # noqa: S310  (ours)
        body: dict[str, Any] = json.loads(answer.read())
    return body
