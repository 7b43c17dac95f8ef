"""The events function as Lambda calls it, wired from its environment, with AWS in memory."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from moto import mock_aws

from runsfleet_runtime import composition
from runsfleet_runtime.contract.environment import EventsEnvironment
from runsfleet_runtime.contract.messages import JobEndedMessage, RerunMessage
from runsfleet_runtime.contract.tables import (
    AuditAttr,
    CircuitAttr,
    InstanceAttr,
    JobAttr,
    JobIndex,
    RunnerAttr,
    SlotAttr,
)
from runsfleet_runtime.handlers import events

CACHED = ("events", "client", "_session", "_secrets")


class Context:
    """What Lambda tells of an invocation."""

    def get_remaining_time_in_millis(self) -> int:
        return 60_000


class Cloud:
    """The parts that the function needs."""

    def __init__(self) -> None:
        self.dynamodb: Any = boto3.client("dynamodb")
        self.sqs: Any = boto3.client("sqs")
        self.jobs_queue = self.sqs.create_queue(
            QueueName="jobs.fifo", Attributes={"FifoQueue": "true"}
        )["QueueUrl"]
        self.events_queue = self.sqs.create_queue(QueueName="events")["QueueUrl"]
        index = {
            "IndexName": JobIndex.BY_INSTANCE.value,
            "KeySchema": [{"AttributeName": JobAttr.INSTANCE_ID.value, "KeyType": "HASH"}],
            "Projection": {"ProjectionType": "KEYS_ONLY"},
        }
        self._table("jobs", JobAttr.ID, JobAttr.INSTANCE_ID, GlobalSecondaryIndexes=[index])
        self._table("runners", RunnerAttr.KEY)
        self._table("instances", InstanceAttr.ID)
        self._table("circuits", CircuitAttr.OFFERING)
        self._table("slots", SlotAttr.SCOPE)
        self._table("audit", AuditAttr.SUBJECT)

    def _table(self, name: str, key: str, *others: str, **options: Any) -> None:
        self.dynamodb.create_table(
            TableName=name,
            KeySchema=[{"AttributeName": str(key), "KeyType": "HASH"}],
            AttributeDefinitions=[
                {"AttributeName": str(attribute), "AttributeType": "S"}
                for attribute in (key, *others)
            ],
            BillingMode="PAY_PER_REQUEST",
            **options,
        )

    def put(self, status: str, instance_id: str = "i-1") -> None:
        item: dict[JobAttr, Any] = {
            JobAttr.ID: "11",
            JobAttr.STATUS: status,
            JobAttr.RUN_ID: 7,
            JobAttr.RUN_ATTEMPT: 1,
            JobAttr.REPOSITORY: "octo-org/hello",
            JobAttr.DISPATCH: 0,
            JobAttr.INSTANCE_ID: instance_id,
            JobAttr.INSTANCE_TYPE: "c7g.xlarge",
            JobAttr.ZONE: "eu-central-1a",
            JobAttr.CAPACITY_TYPE: "spot",
        }
        attributes: dict[str, Any] = {
            name.value: {"S": value} if isinstance(value, str) else {"N": str(value)}
            for name, value in item.items()
            if value != ""
        }
        attributes[JobAttr.LABELS.value] = {"L": [{"S": "runs-fleet=7/runner=4cpu-linux-arm64"}]}
        self.dynamodb.put_item(TableName="jobs", Item=attributes)
        if instance_id:
            instance = {InstanceAttr.ID.value: {"S": instance_id}}
            if status == "completed":
                instance[InstanceAttr.ENDED_AT.value] = {"N": "1"}
            self.dynamodb.put_item(TableName="instances", Item=instance)

    def item(self) -> dict[str, Any]:
        answer = self.dynamodb.get_item(TableName="jobs", Key={JobAttr.ID.value: {"S": "11"}})
        found: dict[str, Any] = answer["Item"]
        return {name: next(iter(value.values())) for name, value in found.items()}


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """An AWS in memory, and a function that starts cold."""
    with mock_aws():
        for name in CACHED:
            getattr(composition, name).cache_clear()
        made = Cloud()
        environment = EventsEnvironment(
            fleet="dev",
            github_app_secret="secretsmanager:app",
            jobs_table="jobs",
            instances_table="instances",
            jobs_queue_url=made.jobs_queue,
            events_queue_url=made.events_queue,
            instance_role_id="AROA",
            runners_table="runners",
            slots_table="slots",
            circuit_table="circuits",
            audit_table="audit",
        )
        for name, value in environment.to_environ().items():
            monkeypatch.setenv(name, value)
        yield made
    for name in CACHED:
        getattr(composition, name).cache_clear()


def of_ec2(name: str, **detail: str) -> str:
    """Return an event of now as EventBridge puts it on the queue."""
    return json.dumps(
        {
            "detail-type": name,
            "time": datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "detail": {"instance-id": "i-1"} | {k.replace("_", "-"): v for k, v in detail.items()},
        }
    )


WARNING = "EC2 Spot Instance Interruption Warning"
STATE_CHANGE = "EC2 Instance State-change Notification"


def invoke(*bodies: str) -> list[str]:
    """Call the function with a batch; the ids of the messages that come back."""
    records = [
        {"messageId": f"m-{n}", "receiptHandle": f"r-{n}", "body": body}
        for n, body in enumerate(bodies)
    ]
    answer = events.handler({"Records": records}, Context())
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


def test_bad_message_holds_up_no_other(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    """Poison goes back, what is new is acked, and the warning beside them is acted on."""
    cloud.put("running")
    warning = of_ec2(WARNING, instance_action="terminate")
    bodies = ["not json", of_ec2("EC2 Something New"), warning, '{"kind":"rerun"}']
    assert invoke(*bodies) == ["m-0", "m-3"]
    assert float(cloud.item()[JobAttr.INTERRUPTED_AT.value]) > 0
    (circuit,) = cloud.dynamodb.scan(TableName="circuits")["Items"]
    assert circuit[CircuitAttr.OFFERING.value]["S"] == "spot:c7g.xlarge:eu-central-1a"
    written = capsys.readouterr().out
    assert '"SpotInterruptions":1' in written
    assert '"EventsRefused":[1,1]' in written


def test_end_of_an_instance_waits_for_its_report(cloud: Cloud) -> None:
    """While the record is open the event comes back; once it is closed the event is acked."""
    cloud.put("running")
    left = of_ec2(STATE_CHANGE, state="terminated")
    assert invoke(left) == ["m-0"]
    cloud.put("completed")
    assert invoke(left) == []


def test_cancelled_job_is_closed(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody launches for it any more, also when its own message is still on the queue."""
    cloud.put("queued", instance_id="")
    ended = JobEndedMessage(
        job_id=11,
        run_id=7,
        run_attempt=1,
        repository="octo-org/hello",
        labels=("runs-fleet=7/runner=4cpu-linux-arm64",),
        conclusion="cancelled",
    )
    assert invoke(ended.to_json()) == []
    assert cloud.item()[JobAttr.STATUS.value] == "completed"
    assert '"JobsCancelled":1' in capsys.readouterr().out


def test_settled_rerun_asks_nobody(cloud: Cloud) -> None:
    """A repeated message of a job that awaits nothing is acked without a call to GitHub."""
    cloud.put("completed")
    assert invoke(RerunMessage(job_id=11).to_json()) == []
    answer = cloud.sqs.receive_message(QueueUrl=cloud.events_queue)
    assert "Messages" not in answer
