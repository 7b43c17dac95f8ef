"""The handlers as Lambda calls them, wired from their environment, with AWS in memory."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from runsfleet_runtime import composition
from runsfleet_runtime.contract.environment import (
    MalformedEnvironmentError,
    TerminationEnvironment,
    WebhookEnvironment,
)
from runsfleet_runtime.contract.messages import JobMessage, ReportStatus, RunnerReport
from runsfleet_runtime.contract.tables import InstanceAttr, JobAttr, RunnerAttr, instance_key
from runsfleet_runtime.handlers import dispatch, termination, webhook

SECRET = "it's a secret"
BODY = {
    "action": "queued",
    "workflow_job": {"id": 11, "run_id": 7, "labels": ["runs-fleet=7/runner=2cpu-linux-arm64"]},
    "repository": {"full_name": "octo-org/hello", "owner": {"type": "Organization"}},
}


class Context:
    """What Lambda tells of an invocation."""

    def get_remaining_time_in_millis(self) -> int:
        return 60_000


class Cloud:
    """The parts that the two functions need."""

    def __init__(self) -> None:
        self.sqs: Any = boto3.client("sqs")
        self.dynamodb = boto3.client("dynamodb")
        secrets = boto3.client("secretsmanager")
        secrets.create_secret(Name="app-webhook", SecretString=SECRET + "\n")
        self.jobs_queue = self.sqs.create_queue(
            QueueName="jobs.fifo", Attributes={"FifoQueue": "true"}
        )["QueueUrl"]
        for table, key in (
            ("jobs", JobAttr.ID.value),
            ("runners", RunnerAttr.KEY.value),
            ("instances", InstanceAttr.ID.value),
        ):
            self.dynamodb.create_table(
                TableName=table,
                KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )

    def messages(self) -> list[dict[str, Any]]:
        answer = self.sqs.receive_message(
            QueueUrl=self.jobs_queue, MaxNumberOfMessages=10, MessageSystemAttributeNames=["All"]
        )
        found: list[dict[str, Any]] = answer.get("Messages", [])
        return found


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """An AWS in memory, and functions that start cold."""
    functions = (
        composition.webhook,
        composition.termination,
        composition.dispatch,
        composition.client,
        composition._session,
        composition._secrets,
    )
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    with mock_aws():
        for function in functions:
            function.cache_clear()
        yield Cloud()
    for function in functions:
        function.cache_clear()


def set_environment(
    monkeypatch: pytest.MonkeyPatch, environment: WebhookEnvironment | TerminationEnvironment
) -> None:
    """Put a function's variables into this process's environment."""
    for name, value in environment.to_environ().items():
        monkeypatch.setenv(name, value)


def event(body: bytes, *, as_base64: bool = False, secret: str = SECRET) -> dict[str, Any]:
    """Return a delivery as the HTTP API hands it on."""
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {
        "version": "2.0",
        "headers": {
            "X-GitHub-Event": "workflow_job",
            "x-github-delivery": "d-1",
            "x-hub-signature-256": f"sha256={digest}",
        },
        "body": base64.b64encode(body).decode() if as_base64 else body.decode(),
        "isBase64Encoded": as_base64,
    }


@pytest.mark.parametrize("as_base64", [False, True])
def test_delivery_becomes_a_message(
    cloud: Cloud,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    as_base64: bool,
) -> None:
    """A signed delivery, encoded or not, is on the queue when it is answered, and is counted."""
    set_environment(
        monkeypatch,
        WebhookEnvironment(
            fleet="dev",
            webhook_secret="secretsmanager:app-webhook",
            jobs_queue_url=cloud.jobs_queue,
            events_queue_url="https://events",
        ),
    )
    answer = webhook.handler(event(json.dumps(BODY).encode(), as_base64=as_base64), Context())
    assert answer["statusCode"] == 202
    assert json.loads(answer["body"])["outcome"] == "queued"
    (message,) = cloud.messages()
    assert JobMessage.from_json(message["Body"]).job_id == 11
    assert message["Attributes"]["MessageGroupId"] == "11"
    written = capsys.readouterr().out
    assert '"JobsQueued":1' in written
    assert SECRET not in written


def test_wrong_signature_and_broken_base64_are_4xx(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be believed or read leaves no trace on the queue."""
    set_environment(
        monkeypatch,
        WebhookEnvironment(
            fleet="dev",
            webhook_secret="secretsmanager:app-webhook",
            jobs_queue_url=cloud.jobs_queue,
            events_queue_url="https://events",
        ),
    )
    body = json.dumps(BODY).encode()
    assert webhook.handler(event(body, secret="other"), Context())["statusCode"] == 401
    broken = event(body) | {"body": "***", "isBase64Encoded": True}
    assert webhook.handler(broken, Context())["statusCode"] == 400
    assert cloud.messages() == []


def test_function_without_its_variables_says_which(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function that was deployed without its environment fails by name, on every event."""
    del cloud
    monkeypatch.delenv("RUNSFLEET_FLEET", raising=False)
    with pytest.raises(MalformedEnvironmentError, match="RUNSFLEET_JOBS_QUEUE_URL is not set"):
        webhook.handler(event(b"{}"), Context())
    with pytest.raises(MalformedEnvironmentError, match="RUNSFLEET_LAUNCH_TARGETS is not set"):
        dispatch.handler({"Records": []}, Context())


def test_report_closes_the_record_and_a_poisoned_one_comes_back(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One unreadable message of a batch is returned by its id; the good one is carried out."""
    set_environment(
        monkeypatch,
        TerminationEnvironment(
            fleet="dev",
            github_app_secret="secretsmanager:app",
            jobs_table="jobs",
            instances_table="instances",
            jobs_queue_url=cloud.jobs_queue,
            instance_role_id="AROA",
            runners_table="runners",
            events_queue_url="https://events",
            slots_table="slots",
        ),
    )
    cloud.dynamodb.put_item(
        TableName="jobs",
        Item={
            JobAttr.ID.value: {"S": "11"},
            JobAttr.STATUS.value: {"S": "running"},
            JobAttr.INSTANCE_ID.value: {"S": "i-1"},
            JobAttr.DISPATCH.value: {"N": "0"},
        },
    )
    key = {RunnerAttr.KEY.value: {"S": instance_key("AROA", "i-1")}}
    config = {RunnerAttr.CONFIG.value: {"S": "{}"}}
    cloud.dynamodb.put_item(TableName="runners", Item=key | config)
    report = RunnerReport(
        instance_id="i-1", job_id=11, run_id=7, status=ReportStatus.SUCCESS, ran_job=True
    )
    answer = termination.handler(
        {
            "Records": [
                {"messageId": "m-1", "body": "not json"},
                {"messageId": "m-2", "body": report.to_json()},
            ]
        },
        Context(),
    )
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m-1"}]}
    item = cloud.dynamodb.get_item(TableName="jobs", Key={JobAttr.ID.value: {"S": "11"}})["Item"]
    assert item[JobAttr.STATUS.value] == {"S": "completed"}
    ended = cloud.dynamodb.get_item(TableName="runners", Key=key)["Item"]
    assert RunnerAttr.CONFIG.value not in ended
    assert float(ended[RunnerAttr.ENDED_AT.value]["N"]) > 0


def test_instance_cannot_report_for_another(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code of a job may use its instance's role; it closes and deletes nothing of the others."""
    set_environment(
        monkeypatch,
        TerminationEnvironment(
            fleet="dev",
            github_app_secret="secretsmanager:app",
            jobs_table="jobs",
            instances_table="instances",
            jobs_queue_url=cloud.jobs_queue,
            instance_role_id="AROA",
            runners_table="runners",
            events_queue_url="https://events",
            slots_table="slots",
        ),
    )
    key = {RunnerAttr.KEY.value: {"S": instance_key("AROA", "i-1")}}
    cloud.dynamodb.put_item(TableName="runners", Item=key)
    report = RunnerReport(
        instance_id="i-1", job_id=11, run_id=7, status=ReportStatus.FAILURE, ran_job=True
    )
    left = []
    for sender in ("AROA:i-2", "AROA:i-1"):
        record = {
            "messageId": "m-1",
            "body": report.to_json(),
            "attributes": {"SenderId": sender},
        }
        job = {JobAttr.ID.value: {"S": "11"}, JobAttr.STATUS.value: {"S": "running"}}
        job |= {JobAttr.INSTANCE_ID.value: {"S": "i-1"}, JobAttr.DISPATCH.value: {"N": "0"}}
        cloud.dynamodb.put_item(TableName="jobs", Item=job)
        assert termination.handler({"Records": [record]}, Context()) == {"batchItemFailures": []}
        item = cloud.dynamodb.get_item(TableName="runners", Key=key)["Item"]
        left.append(RunnerAttr.ENDED_AT.value not in item)
    assert left == [True, False]
