"""With IAM enforcement and TLS everywhere the same jobs run, each part as itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.e2e.clouds import Cloud


def test_many_jobs_run_under_enforcement(strict_cloud: Cloud) -> None:
    """Twelve jobs and those that need them: none is lost, no permission is missing."""
    outcome = strict_cloud.run("matrix.yml", jobs=12, timeout=240)
    assert outcome.ok, outcome.problems
    assert len(outcome.jobs) == 15
    assert {job["conclusion"] for job in outcome.jobs} == {"success"}
    refused = [
        call
        for call in strict_cloud.calls(outcome="error")
        if "Denied" in str(call["error"]) or "Unauthorized" in str(call["error"])
    ]
    assert not refused


def test_everything_speaks_tls(strict_cloud: Cloud) -> None:
    """AWS, GitHub and the webhook are https."""
    endpoints = strict_cloud.running.endpoints
    for address in (endpoints.aws, endpoints.github, endpoints.webhook):
        assert address.startswith("https://"), address
    assert endpoints.ca_bundle is not None


def test_instances_act_under_their_own_identity(strict_cloud: Cloud) -> None:
    """Each instance terminated itself and read its own configuration, as the record shows."""
    before = strict_cloud.last_call()
    outcome = strict_cloud.run("hello.yml")
    assert outcome.ok, outcome.problems
    (instance,) = [one["instance_id"] for one in outcome.instances]
    mine = strict_cloud.calls(since=before, caller=f"instance:{instance}")
    assert {call["action"] for call in mine} >= {"GetItem", "TerminateInstances", "SendMessage"}
    (read,) = [call for call in mine if call["action"] == "GetItem"]
    assert read["parameters"]["Key"]["instance_key"]["S"].endswith(f":{instance}")
