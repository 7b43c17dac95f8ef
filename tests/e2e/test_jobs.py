"""Jobs go from a webhook to a terminated instance, in a plain cloud, whatever gets in their way."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.e2e.clouds import Cloud


def test_every_job_of_a_matrix_gets_an_instance_of_its_own(cloud: Cloud) -> None:
    """Jobs succeed, each instance is terminated, all queues are empty, records are closed."""
    outcome = cloud.run("matrix.yml")
    assert outcome.ok, outcome.problems
    assert len(outcome.jobs) == 5
    assert {job["conclusion"] for job in outcome.jobs} == {"success"}
    assert {job["story"]["outcome"] for job in outcome.jobs} == {"success"}
    instances = [job["story"]["instances"] for job in outcome.jobs]
    assert [len(launched) for launched in instances] == [1] * 5
    assert len({launched[0] for launched in instances}) == 5
    assert {one["state"] for one in outcome.instances} == {"terminated"}
    assert outcome.usage.github_per_job == 1.0


def test_the_label_decides_what_is_launched(cloud: Cloud) -> None:
    """Architecture and size of each instance are those of its job's label."""
    outcome = cloud.run("matrix.yml")
    assert outcome.ok, outcome.problems
    for job in outcome.jobs:
        instance_type = job["story"]["instance_type"]
        assert instance_type, job["name"]
        generation = instance_type.partition(".")[0].lstrip("abcdefghijklmnopqrstuvwxyz")
        assert ("g" in generation) == ("arm64" in job["labels"][0]), (job["labels"], instance_type)


def test_steps_run_in_the_order_of_the_file(cloud: Cloud) -> None:
    """The workflow file was really executed: its own steps are in the job's record."""
    outcome = cloud.run("hello.yml")
    assert outcome.ok, outcome.problems
    (job,) = outcome.jobs
    names = [step["name"] for step in job["steps"]]
    assert names.index("Say hello") < names.index("Look around")
    assert {step["conclusion"] for step in job["steps"]} == {"success"}


def test_a_red_job_ends_its_instance_like_any_other(cloud: Cloud) -> None:
    """A failing step is the author's business: nothing is lost and nothing is left over."""
    outcome = cloud.run("failing.yml")
    assert outcome.ok, outcome.problems
    results = {job["name"]: job["conclusion"] for job in outcome.jobs}
    assert results == {"broken": "failure", "after": "skipped", "report": "success"}
    assert len(outcome.instances) == 2


def test_what_spot_does_not_deliver_is_bought_on_demand(cloud: Cloud) -> None:
    """Without spot capacity each job still runs, and the record says how it was bought."""
    with cloud.fault(effect="capacity", capacity_types=["spot"]) as counters:
        outcome = cloud.run("hello.yml")
        assert counters()["applied"] >= 1
    assert outcome.ok, outcome.problems
    assert [job["story"]["capacity_type"] for job in outcome.jobs] == ["on-demand"]
    assert {one["capacity_type"] for one in outcome.instances} == {"on-demand"}


def test_a_job_without_any_capacity_comes_back_and_runs(cloud: Cloud) -> None:
    """Neither spot nor on-demand at first: the job is retried, launched once, never lost."""
    with cloud.fault(effect="capacity", count=2):
        outcome = cloud.run("hello.yml")
    assert outcome.ok, outcome.problems
    (job,) = outcome.jobs
    assert job["conclusion"] == "success"
    assert len(job["story"]["instances"]) == 1
    assert "retried" in job["story"]["at"]


def test_a_throttled_claim_launches_nothing_unclaimed(cloud: Cloud) -> None:
    """DynamoDB says no at first; in the end there is one instance for the one job."""
    with cloud.fault(
        effect="throttle",
        service="dynamodb",
        action="TransactWriteItems",
        caller="function:*Dispatch*",
        count=2,
    ):
        outcome = cloud.run("hello.yml")
    assert outcome.ok, outcome.problems
    assert len(outcome.instances) == 1


def test_events_of_ec2_reach_eventbridge_by_the_hypervisor_alone(cloud: Cloud) -> None:
    """A client cannot publish `aws.ec2` events; the hypervisor's were taken."""
    import boto3

    endpoints = cloud.running.endpoints
    events = boto3.client(
        "events",
        endpoint_url=endpoints.aws,
        region_name=endpoints.region,
        aws_access_key_id=endpoints.access_key,
        aws_secret_access_key=endpoints.secret_key,
    )
    answer = events.put_events(
        Entries=[
            {"Source": source, "DetailType": "x", "Detail": "{}"} for source in ("aws.ec2", "mine")
        ]
    )
    assert answer["FailedEntryCount"] == 1
    assert answer["Entries"][0]["ErrorCode"] == "NotAuthorizedForSourceException"
    assert "EventId" in answer["Entries"][1]
