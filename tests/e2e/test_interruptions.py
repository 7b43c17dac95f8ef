"""What EC2 and GitHub tell of instances and jobs, through the deployed rules, queues and functions.

On a local cloud with IAM enforcement and TLS. EC2's events come from the hypervisor by EventBridge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.endings import Trial

if TYPE_CHECKING:
    from tests.e2e.clouds import Cloud

Try = Callable[..., Trial]

ONCE = "test ${{ github.run_attempt }} -gt 1 || sleep 300"
"""Hangs in the first attempt of its run only."""


@pytest.fixture
def trial(strict_cloud: Cloud, tmp_path: Path) -> Try:
    """Queues a job that runs a command."""
    return lambda command="true": Trial(strict_cloud, tmp_path, command)


def run_of(one: Trial) -> Mapping[str, Any]:
    """The run of a trial's job at GitHub."""
    found: Mapping[str, Any] = one.cloud.client.github("GET", f"runs/{one.job['run_id']}")
    return found


def test_job_that_was_interrupted_runs_again_on_demand(trial: Try) -> None:
    """A spot notice in mid-job: the record says so, GitHub re-runs that job, and it succeeds."""
    one = trial(ONCE)
    instance = one.until_job_runs()
    one.until(lambda: one.job["status"] == "in_progress")
    one.act("interrupt", instance, seconds=60)
    assert one.closed()["outcome"] == "interrupted"
    one.until(lambda: one.record.get("rerun") == "done", 90)
    assert float(one.record["interrupted_at"]) > one.begun
    one.until(lambda: run_of(one)["conclusion"] == "success", 60)
    again = one.until_instance(2)
    (second,) = [found for found in one.instances if found["instance_id"] == again]
    assert second["capacity_type"] == "on-demand"
    assert run_of(one)["attempt"] == 2


def test_job_that_is_cancelled_before_its_instance_is_up_costs_no_idle_time(trial: Try) -> None:
    """Its record is closed and its idle instance ended, long before the idle timeout."""
    one = trial()
    run = one.job["run_id"]
    instance = one.until_instance()
    one.until(lambda: one.record.get("status") == "launched")
    one.cloud.client.github("POST", f"runs/{run}/cancel")
    one.closed()
    one.until(
        lambda: (
            {i["state"] for i in one.instances if i["instance_id"] == instance} == {"terminated"}
        ),
        60,
    )
