"""The timeline is put together from observations alone."""

from __future__ import annotations

import asyncio
from typing import Any

from runsfleet_cli.local.interceptor.calls import Call
from runsfleet_cli.local.observe import answer_text
from runsfleet_cli.local.timeline import Stage, Timeline, instance_of
from runsfleet_runtime.contract.tables import JobAttr

JOB = 55_812_345_678
ONE, OTHER = "i-0123456789abcdef0", "i-0fedcba9876543210"


def call(service: str, action: str, caller: str = "function:dispatch", **changed: Any) -> Call:
    """A recorded call."""
    values: dict[str, Any] = {
        "sequence": 1,
        "time": 10.0,
        "duration": 0.5,
        "caller": caller,
        "service": service,
        "action": action,
        "region": "us-east-1",
        "parameters": {},
        "status": 200,
        "outcome": "ok",
    }
    return Call(**(values | changed))


def update(job_id: int, **values: str) -> dict[str, Any]:
    """An UpdateItem that sets attributes, as the adapters write it."""
    names = {f"#{name}": name for name in values}
    assigned = ", ".join(f"#{name} = :{name}" for name in values)
    return {
        "TableName": "jobs",
        "Key": {JobAttr.ID: {"S": str(job_id)}},
        "UpdateExpression": f"SET {assigned} REMOVE #gone",
        "ConditionExpression": "#status IN (:old)",
        "ExpressionAttributeNames": names | {"#gone": "pool"},
        "ExpressionAttributeValues": {f":{name}": {"S": value} for name, value in values.items()},
    }


def written(*updates: dict[str, Any]) -> Call:
    """A transaction of updates."""
    items = [{"Update": one} for one in updates]
    return call("dynamodb", "TransactWriteItems", parameters={"TransactItems": items})


def github(action: str, runner: str | None = None, **more: Any) -> dict[str, Any]:
    """An event of the stand-in."""
    return {
        "time": 5.0,
        "kind": "workflow_job",
        "action": action,
        "job_id": JOB,
        "run_id": 7,
        "name": "build",
        "repository": "octo-org/hello",
        "conclusion": "success" if action == "completed" else None,
        "runner": runner,
        **more,
    }


def launched(timeline: Timeline, instance_id: str = ONE, job_id: int = JOB) -> None:
    """Record a launch."""
    values = {
        JobAttr.STATUS.value: "launched",
        JobAttr.INSTANCE_ID.value: instance_id,
        JobAttr.INSTANCE_TYPE.value: "c7g.xlarge",
        JobAttr.ZONE.value: "us-east-1a",
        JobAttr.CAPACITY_TYPE.value: "spot",
    }
    timeline.on_call(written(update(job_id, **values)))


def instance(state: str, text: str = "", instance_id: str = ONE) -> dict[str, Any]:
    """An event of the hypervisor."""
    return {"time": 12.0, "state": state, "instance_id": instance_id, "text": text}


def test_a_job_that_goes_well_reaches_every_stage() -> None:
    """From queued to terminated, each seen by who really saw it."""
    timeline = Timeline()
    timeline.on_github(github("queued"))
    message = {"MessageGroupId": str(JOB), "MessageDeduplicationId": f"{JOB}:0"}
    timeline.on_call(call("sqs", "SendMessage", "function:webhook", parameters=message))
    timeline.on_delivery(time=6, job_id=JOB, action="queued", status=202, seconds=0.02)
    claim = {JobAttr.STATUS.value: "claimed", JobAttr.CLAIM_ID.value: "c1"}
    timeline.on_call(written(update(JOB, **claim)))
    launched(timeline)
    timeline.on_instance(instance("running"))
    timeline.on_github({"time": 13.0, "kind": "runner_online", "runner": f"runsfleet-{ONE}"})
    timeline.on_github(github("in_progress", f"runsfleet-{ONE}"))
    timeline.on_github(github("completed", f"runsfleet-{ONE}"))
    timeline.on_call(written(update(JOB, **{JobAttr.OUTCOME.value: "success"})))
    timeline.on_instance(instance("shutting-down", "TerminateInstances by itself"))
    timeline.on_instance(instance("terminated"))
    stages = [entry.stage for entry in timeline.entries]
    assert stages == [
        *("queued", "enqueued", "webhook", "claimed", "launched", "booting", "registered"),
        *("running", "completed", "closed", "ending", "terminated"),
    ]
    assert {entry.job_id for entry in timeline.entries} == {JOB}
    story = timeline.jobs[JOB]
    assert (story.instance_type, story.zone, story.capacity_type) == (
        "c7g.xlarge",
        "us-east-1a",
        "spot",
    )
    assert (story.conclusion, story.outcome, story.instances) == ("success", "success", [ONE])
    assert story.between(Stage.QUEUED, Stage.LAUNCHED) == 5.5
    assert story.between(Stage.QUEUED, Stage.RETRIED) is None


def test_a_runner_that_takes_another_job_is_told_apart() -> None:
    """GitHub binds runners to labels: the job's instance is the one that really runs it."""
    timeline = Timeline()
    launched(timeline, ONE)
    launched(timeline, OTHER, job_id=JOB + 5)
    timeline.on_github(github("in_progress", f"runsfleet-{OTHER}"))
    assert timeline.jobs[JOB].instance_id == OTHER
    assert timeline.jobs[JOB].instances == [ONE]
    timeline.on_instance(instance("terminated", instance_id=OTHER))
    assert "terminated" in timeline.jobs[JOB].at


def test_a_job_that_is_given_up_says_why() -> None:
    """An expiry closes the record without an outcome."""
    timeline = Timeline()
    values = {JobAttr.ERROR.value: "waited too long", JobAttr.COMPLETED_AT.value: "1"}
    timeline.on_call(written(update(JOB, **values)))
    assert timeline.jobs[JOB].given_up == "waited too long"
    assert timeline.entries[-1].text == "given up: waited too long"


def test_retries_are_told_from_first_messages() -> None:
    """By the dispatch number in the deduplication id."""
    timeline = Timeline()
    again = {"MessageGroupId": str(JOB), "MessageDeduplicationId": f"{JOB}:2"}
    timeline.on_call(call("sqs", "SendMessageBatch", parameters={"Entries": [again]}))
    assert [entry.stage for entry in timeline.entries] == ["retried"]
    assert "dispatch 2" in timeline.entries[0].text


def test_capacity_faults_and_refusals_are_shown() -> None:
    """What went wrong at AWS stands beside the jobs it concerns."""
    timeline = Timeline()
    result = {
        "errors": ["InsufficientInstanceCapacity"],
        "launches": [{"count": 2, "capacity_type": "on-demand"}],
    }
    timeline.on_call(call("ec2", "CreateFleet", outcome="fault", result=result, fault="no-spot"))
    refused = {"outcome": "error", "error": "AccessDenied", "status": 403}
    timeline.on_call(call("s3", "GetObject", f"instance:{ONE}", **refused))
    timeline.on_call(call("sqs", "SendMessage", outcome="fault", fault="slow"))
    # an operator's own mistakes, and a cache that is empty, are no one's trouble
    timeline.on_call(call("s3", "GetObject", "root", **refused))
    missing = {"outcome": "error", "error": "NoSuchKey", "status": 404}
    timeline.on_call(call("s3", "GetObject", f"instance:{ONE}", **missing))
    assert [entry.stage for entry in timeline.entries] == ["capacity", "error", "fault"]
    assert "got 2 on-demand" in timeline.entries[0].text


def test_only_refused_or_queued_webhooks_are_told() -> None:
    """Three of four deliveries ask for nothing."""
    timeline = Timeline()
    for action in ("in_progress", "completed", "waiting"):
        timeline.on_delivery(time=1, job_id=JOB, action=action, status=200, seconds=0.1)
    assert not timeline.entries
    timeline.on_delivery(time=1, job_id=JOB, action="completed", status=503, seconds=0.1)
    answer = "ignored, not ours"
    timeline.on_delivery(
        time=1, job_id=JOB, action="queued", status=200, seconds=0.1, answer=answer
    )
    assert [entry.stage for entry in timeline.entries] == ["webhook", "webhook"]
    assert timeline.entries[-1].text.endswith(answer)
    assert timeline.jobs[JOB].webhook_answer == answer


def test_a_step_is_told_once() -> None:
    """Steps are polled; each end of one is one entry."""
    timeline = Timeline()
    for _ in range(3):
        timeline.on_step(1.0, JOB, "Build", "in_progress", None)
        timeline.on_step(2.0, JOB, "Build", "completed", "success")
    assert [entry.text for entry in timeline.entries] == ["Build: success"]


def test_readers_wait_for_what_is_new() -> None:
    """`since` gives what is there at once, or waits for the first entry."""

    async def scenario() -> None:
        timeline = Timeline()
        assert await timeline.since(0, wait=0.01) == []
        reading = asyncio.ensure_future(timeline.since(0, wait=5))
        await asyncio.sleep(0)
        timeline.on_github(github("queued"))
        (entry,) = await reading
        assert entry.sequence == 1
        assert await timeline.since(1) == []

    asyncio.run(scenario())


def test_names_of_runners_hold_their_instance() -> None:
    """Others' runners have none."""
    assert instance_of(f"runsfleet-{ONE}") == ONE
    assert instance_of("my runner") == ""


def test_answers_of_anything_are_read_carefully() -> None:
    """A webhook's answer may be no JSON at all."""
    assert answer_text('{"outcome": "refused", "reason": "signature"}') == "refused, signature"
    assert answer_text("<html>") == ""
    assert answer_text('["a"]') == ""
    assert answer_text('{"outcome": 3}') == ""
