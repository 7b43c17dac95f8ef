"""The circuit breaker on a whole cloud: spot is away, left alone, watched and reset by hand."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from typer.testing import CliRunner

from runsfleet_cli.local.state import STATE_VARIABLE
from runsfleet_cli.main import app
from runsfleet_runtime.circuit_breaker.breaker import CACHE_SECONDS
from tests.e2e.clouds import Cloud

LAUNCHES = {"service": "ec2", "action": "CreateFleet"}


@pytest.fixture
def breaker(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `runsfleet breaker` on the cloud; what the tests before it failed is forgotten."""
    monkeypatch.setenv(STATE_VARIABLE, str(cloud.state))

    def run(*arguments: str) -> dict[str, dict[str, Any]]:
        done = CliRunner().invoke(app, ["breaker", *arguments, "--local", "--json"])
        assert done.exit_code == 0, done.output
        return {circuit["offering"]: circuit for circuit in json.loads(done.stdout)["circuits"]}

    if run("list"):
        run("reset")
        time.sleep(CACHE_SECONDS)  # until every function has seen it
    yield run
    run("reset")


def bought(cloud: Cloud) -> list[str]:
    """Run a job; returns how its launches asked for instances, in order."""
    since = cloud.last_call()
    outcome = cloud.run("hello.yml")
    assert outcome.ok, outcome.problems
    calls = [call for call in cloud.calls(**LAUNCHES) if int(call["sequence"]) > since]
    return [
        str(call["parameters"]["TargetCapacitySpecification"]["DefaultTargetCapacityType"])
        for call in calls
    ]


def test_spot_that_is_away_is_left_alone_until_it_is_reset(cloud: Cloud, breaker: Any) -> None:
    """Three jobs find no spot; the fourth is not kept waiting by it; an operator resets."""
    with cloud.fault(effect="capacity", capacity_types=["spot"]):
        assert [bought(cloud) for _ in range(3)] == [["spot", "on-demand"]] * 3
        circuits = breaker("list")
        assert {circuit["state"] for circuit in circuits.values()} == {"open"}
        assert {circuit["capacity_type"] for circuit in circuits.values()} == {"spot"}
        time.sleep(CACHE_SECONDS)
        assert bought(cloud) == ["on-demand"]
    assert set(breaker("reset")) >= set(circuits)
    assert breaker("list") == {}
    time.sleep(CACHE_SECONDS)
    assert bought(cloud) == ["spot"]
