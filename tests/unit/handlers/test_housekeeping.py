"""The housekeeping handler as Lambda calls it, wired from its environment, with AWS in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from runsfleet_runtime import composition
from runsfleet_runtime.contract.environment import HousekeepingEnvironment
from runsfleet_runtime.contract.messages import (
    HousekeepingMessage,
    HousekeepingTask,
    ReportStatus,
    RunnerReport,
)
from runsfleet_runtime.contract.paths import kept_report_key
from runsfleet_runtime.contract.tables import LeaseAttr
from runsfleet_runtime.handlers import housekeeping

ROLE = "AROAEXAMPLE"
REPORT = RunnerReport(instance_id="i-1", job_id=5, status=ReportStatus.SUCCESS)


class Context:
    """What Lambda tells of an invocation."""

    def get_remaining_time_in_millis(self) -> int:
        return 300_000


class Cloud:
    """What the task of kept reports needs, and the function's environment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.s3: Any = boto3.client("s3")
        self.sqs: Any = boto3.client("sqs")
        self.dynamodb: Any = boto3.client("dynamodb")
        self.s3.create_bucket(
            Bucket="cache", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )
        self.reports = self.sqs.create_queue(QueueName="termination")["QueueUrl"]
        self.dynamodb.create_table(
            TableName="leases",
            KeySchema=[{"AttributeName": LeaseAttr.NAME.value, "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": LeaseAttr.NAME.value, "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        environment = HousekeepingEnvironment(
            fleet="dev",
            github_app_secret="ssm:/app",
            slots_table="slots",
            jobs_table="jobs",
            instances_table="instances",
            jobs_queue_url="https://sqs/jobs.fifo",
            events_queue_url="https://sqs/events",
            instance_role_id=ROLE,
            leases_table="leases",
            cache_bucket="cache",
            termination_queue_url=self.reports,
            dead_letter_queue_urls=(),
            runners_table="runners",
        )
        for name, value in environment.to_environ().items():
            monkeypatch.setenv(name, value)

    def keep(self, report: RunnerReport) -> None:
        key = kept_report_key(ROLE, report.instance_id)
        self.s3.put_object(Bucket="cache", Key=key, Body=report.to_json().encode())

    def sent(self) -> list[str]:
        answer = self.sqs.receive_message(QueueUrl=self.reports)
        return [m["Body"] for m in answer.get("Messages", [])]


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """An AWS in memory, and a function that starts cold."""
    functions = (composition.housekeeping, composition.client, composition._session)
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    with mock_aws():
        for function in functions:
            function.cache_clear()
        yield Cloud(monkeypatch)
    for function in functions:
        function.cache_clear()


def event(*bodies: str) -> dict[str, Any]:
    """Return messages of the housekeeping queue."""
    return {
        "Records": [
            {"messageId": f"m{n}", "receiptHandle": f"r{n}", "body": body}
            for n, body in enumerate(bodies)
        ]
    }


def due(task: HousekeepingTask = HousekeepingTask.KEPT_REPORTS) -> str:
    """Return the message of a task that is due."""
    return HousekeepingMessage(task=task).to_json()


def test_sweep_that_is_due_runs(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    """Its message is done with, its outcome is in the lease's row, its metrics are written."""
    cloud.keep(REPORT)
    assert housekeeping.handler(event(due()), Context()) == {"batchItemFailures": []}
    assert cloud.sent() == [REPORT.to_json()]
    row = cloud.dynamodb.get_item(TableName="leases", Key={"name": {"S": "sweep:kept_reports"}})
    assert row["Item"][LeaseAttr.OUTCOME.value] == {"S": "succeeded"}
    written = capsys.readouterr().out
    assert '"SweepRuns":1' in written
    assert '"SweepActions":1' in written
    assert '"message":"sweep done"' in written


def test_sweep_that_cannot_read_comes_back(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    """SQS hands its message out again, and to the dead-letter queue in the end."""
    cloud.s3.delete_bucket(Bucket="cache")
    answer = housekeeping.handler(event(due()), Context())
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m0"}]}
    assert '"SweepRunsFailed":1' in capsys.readouterr().out


def test_unreadable_message_holds_up_no_other(cloud: Cloud) -> None:
    """A task that nobody knows comes back; the one beside it runs."""
    cloud.keep(REPORT)
    answer = housekeeping.handler(event('{"task": "world_peace"}', "?", due()), Context())
    assert [f["itemIdentifier"] for f in answer["batchItemFailures"]] == ["m0", "m1"]
    assert cloud.sent() == [REPORT.to_json()]


def test_second_message_of_a_running_sweep_is_done_with(cloud: Cloud) -> None:
    """While another run holds the lease nothing happens, and nothing comes back."""
    cloud.keep(REPORT)
    cloud.dynamodb.put_item(
        TableName="leases",
        Item={
            LeaseAttr.NAME.value: {"S": "sweep:kept_reports"},
            LeaseAttr.OWNER.value: {"S": "another"},
            LeaseAttr.ENDS_AT.value: {"N": "99999999999"},
        },
    )
    assert housekeeping.handler(event(due()), Context()) == {"batchItemFailures": []}
    assert cloud.sent() == []
