"""One job is one trace: the real handlers, AWS in memory, and a collector that takes HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from moto import mock_aws

from runsfleet_runtime import composition
from runsfleet_runtime.agent.spans import gather_spans
from runsfleet_runtime.agent.story import Story
from runsfleet_runtime.contract.environment import (
    DispatchEnvironment,
    Environment,
    EventsEnvironment,
    LaunchTarget,
    TerminationEnvironment,
    WebhookEnvironment,
)
from runsfleet_runtime.contract.messages import (
    JobMessage,
    ReportStatus,
    RunnerConfig,
    RunnerReport,
)
from runsfleet_runtime.contract.tables import (
    AuditAttr,
    CircuitAttr,
    InstanceAttr,
    JobAttr,
    JobIndex,
    RunnerAttr,
    SlotAttr,
    instance_key,
)
from runsfleet_runtime.github import JobState, Registration, Removal, RunnerPackage
from runsfleet_runtime.handlers import dispatch, events, termination, webhook
from runsfleet_runtime.telemetry import traces
from runsfleet_runtime.telemetry.traces import Tracer
from tests.unit.handlers.test_handlers import BODY, SECRET, Context, event
from tests.unit.telemetry.collector import OtlpEndpoint, serve

CACHED = ("webhook", "dispatch", "termination", "events", "client", "_session", "_secrets")
ROLE = "AROA"


class GitHub:
    """Registers whoever asks; jobs are queued until somebody says otherwise."""

    def __init__(self) -> None:
        self.state = JobState.QUEUED

    def reserve(self, job: JobMessage) -> None:
        """There is always a place."""

    def for_platform(self, platform: str, repository: str, **_: Any) -> RunnerPackage:
        return RunnerPackage(url="https://example/r.tgz", filename="r.tgz", sha256="0" * 64)

    def register(self, job: JobMessage, *, instance_id: str, deadline: float) -> Registration:
        return Registration(
            runner_name=f"runsfleet-{instance_id}",
            runner_url="https://github.com/octo-org",
            runner_group_id=1,
            jit_config="jit",
        )

    def deregister(self, repository: str, **_: Any) -> Removal:
        return Removal.REMOVED

    def status(self, repository: str, job_id: int, *_: Any, **__: Any) -> JobState:
        return self.state


class Fleet:
    """Everything that a job meets on its way, with an instance in place of EC2's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, endpoint: str | None) -> None:
        self.monkeypatch = monkeypatch
        self.endpoint = endpoint
        self.github = GitHub()
        self.sqs: Any = boto3.client("sqs")
        self.dynamodb: Any = boto3.client("dynamodb")
        self.ec2: Any = boto3.client("ec2")
        boto3.client("secretsmanager").create_secret(Name="app-webhook", SecretString=SECRET)
        self.jobs_queue = self.sqs.create_queue(
            QueueName="jobs.fifo", Attributes={"FifoQueue": "true"}
        )["QueueUrl"]
        self.events_queue = self.sqs.create_queue(QueueName="events")["QueueUrl"]
        self._table("runners", RunnerAttr.KEY)
        self._table("instances", InstanceAttr.ID)
        self._table("circuits", CircuitAttr.OFFERING)
        self._table("slots", SlotAttr.SCOPE)
        self._table("audit", AuditAttr.SUBJECT)
        index = {
            "IndexName": JobIndex.BY_INSTANCE.value,
            "KeySchema": [{"AttributeName": JobAttr.INSTANCE_ID.value, "KeyType": "HASH"}],
            "Projection": {"ProjectionType": "KEYS_ONLY"},
        }
        self._table("jobs", JobAttr.ID, JobAttr.INSTANCE_ID, GlobalSecondaryIndexes=[index])
        self._environment()
        gateway = SimpleNamespace(
            registrar=self.github,
            packages=self.github,
            job_states=self.github,
            api=SimpleNamespace(),
        )
        monkeypatch.setattr(composition, "_github", lambda *_, **__: gateway)

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

    def _environment(self) -> None:
        vpc = self.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnet = self.ec2.create_subnet(
            VpcId=vpc, CidrBlock="10.0.0.0/24", AvailabilityZone="eu-central-1a"
        )["Subnet"]["SubnetId"]
        image = self.ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        template = self.ec2.create_launch_template(
            LaunchTemplateName="t", LaunchTemplateData={"ImageId": image}
        )["LaunchTemplate"]["LaunchTemplateId"]
        target = LaunchTarget(
            platform="linux-arm64",
            launch_template_id=template,
            launch_template_version="1",
            root_device="/dev/sda1",
        )
        common: dict[str, Any] = {
            "fleet": "dev",
            "otlp_endpoint": self.endpoint,
            "jobs_queue_url": self.jobs_queue,
        }
        records: dict[str, Any] = {
            **common,
            "github_app_secret": "secretsmanager:app",
            "jobs_table": "jobs",
            "instances_table": "instances",
            "runners_table": "runners",
            "slots_table": "slots",
            "instance_role_id": ROLE,
        }
        circuits: dict[str, Any] = {"circuit_table": "circuits", "audit_table": "audit"}
        self._set(
            WebhookEnvironment(
                **common,
                webhook_secret="secretsmanager:app-webhook",
                events_queue_url=self.events_queue,
            ),
            DispatchEnvironment(
                **records,
                **circuits,
                spot=False,
                launch_targets=(target,),
                subnet_ids=(subnet,),
            ),
            TerminationEnvironment(**records, events_queue_url=self.events_queue),
            EventsEnvironment(**records, **circuits, events_queue_url=self.events_queue),
        )

    def _set(self, *environments: Environment) -> None:
        for environment in environments:
            for name, value in environment.to_environ().items():
                self.monkeypatch.setenv(name, value)

    def deliver(self) -> int:
        """Let GitHub announce the job; the answer's status."""
        status: int = webhook.handler(event(json.dumps(BODY).encode()), Context())["statusCode"]
        return status

    def dispatch(self) -> RunnerConfig:
        """Let dispatch take what is on the queue, and be the instance that it launched."""
        received = self.sqs.receive_message(
            QueueUrl=self.jobs_queue, MaxNumberOfMessages=10, VisibilityTimeout=0
        )
        records = [
            {
                "messageId": m["MessageId"],
                "receiptHandle": m["ReceiptHandle"],
                # the pause before another try is over
                "body": replace(JobMessage.from_json(m["Body"]), not_before=0.0).to_json(),
            }
            for m in received["Messages"]
        ]
        assert dispatch.handler({"Records": records}, Context()) == {"batchItemFailures": []}
        for m in received["Messages"]:
            self.sqs.delete_message(QueueUrl=self.jobs_queue, ReceiptHandle=m["ReceiptHandle"])
        instance_id = self.record()[JobAttr.INSTANCE_ID.value]["S"]
        item = self.dynamodb.get_item(
            TableName="runners",
            Key={RunnerAttr.KEY.value: {"S": instance_key(ROLE, instance_id)}},
        )["Item"]
        return RunnerConfig.from_json(item[RunnerAttr.CONFIG.value]["S"])

    def live(self, config: RunnerConfig, status: ReportStatus = ReportStatus.SUCCESS) -> None:
        """Be an instance's agent to its end, and let its report be taken."""
        tracer = Tracer("agent", endpoint=self.endpoint)
        begun = datetime.now(UTC)
        story = Story(instance_id=config.instance_id, config=config, begun=begun.timestamp())
        story.traceparent = tracer.begin("agent", config.traceparent, start=story.begun)
        story.timings["configuration"] = 0.5
        report = RunnerReport(
            instance_id=config.instance_id,
            job_id=config.job_id,
            run_id=config.run_id,
            dispatch=config.dispatch,
            status=status,
            ran_job=status is ReportStatus.SUCCESS,
            traceparent=story.traceparent,
        )
        record = {"messageId": "m", "body": report.to_json()}
        assert termination.handler({"Records": [record]}, Context()) == {"batchItemFailures": []}
        gather_spans(tracer, story, report, now=begun.timestamp() + 60)
        tracer.flush()

    def warn(self, instance_id: str) -> None:
        """Let EC2 announce the instance's interruption."""
        body = {
            "id": "e-1",
            "source": "aws.ec2",
            "detail-type": "EC2 Spot Instance Interruption Warning",
            "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "detail": {"instance-id": instance_id, "instance-action": "terminate"},
        }
        record = {"messageId": "e", "receiptHandle": "r", "body": json.dumps(body)}
        assert events.handler({"Records": [record]}, Context()) == {"batchItemFailures": []}

    def record(self) -> dict[str, Any]:
        """Return the job's record."""
        item: dict[str, Any] = self.dynamodb.get_item(
            TableName="jobs", Key={JobAttr.ID.value: {"S": "11"}}
        )["Item"]
        return item


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An AWS in memory, and functions that start cold."""
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    with mock_aws():
        for name in CACHED:
            getattr(composition, name).cache_clear()
        yield
    for name in CACHED:
        getattr(composition, name).cache_clear()


def tree(endpoint: OtlpEndpoint) -> list[tuple[str, str, str]]:
    """Return service, name and parent's name of each span, in the order of their beginning."""
    spans = endpoint.spans()
    assert len({span.trace_id for span in spans}) == 1
    names = {span.span_id: span.name for span in spans}
    return [
        (service.removeprefix("runsfleet-"), span.name, names.get(span.parent_span_id, ""))
        for service, span in endpoint.told()
    ]


def test_a_job_is_one_trace_from_its_webhook_to_its_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each function's span is the child of what it goes on from; the log tells the same trace."""
    with serve() as endpoint:
        fleet = Fleet(monkeypatch, endpoint.url)
        assert fleet.deliver() == 202
        fleet.live(fleet.dispatch())
        assert tree(endpoint) == [
            ("webhook", "webhook", ""),
            ("dispatch", "dispatch", "webhook"),
            ("termination", "termination", "agent"),
            ("agent", "configuration", "agent"),
            ("agent", "agent", "dispatch"),
        ]
        by_name = {span.name: span for span in endpoint.spans()}
    assert fleet.record()[JobAttr.STATUS.value] == {"S": "completed"}
    assert (by_name["webhook"].kind, by_name["dispatch"].kind) == (2, 5)
    (launched,) = by_name["dispatch"].events
    assert launched.name == "launched"
    assert {a.key: a.value.string_value for a in launched.attributes}[
        "runsfleet.instance_id"
    ] == fleet.record()[JobAttr.INSTANCE_ID.value]["S"]
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    told = {line.get("message"): line.get("trace_id") for line in lines}
    trace_id = by_name["webhook"].trace_id.hex()
    assert {told["queued"], told["launched"], told["ended"]} == {trace_id}


def test_a_job_that_is_interrupted_stays_in_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second dispatch is found from the record alone, and belongs to the first."""
    with serve() as endpoint:
        fleet = Fleet(monkeypatch, endpoint.url)
        fleet.deliver()
        first = fleet.dispatch()
        fleet.warn(first.instance_id)
        second = fleet.dispatch()
        fleet.live(second)
        assert tree(endpoint)[:4] == [
            ("webhook", "webhook", ""),
            ("dispatch", "dispatch", "webhook"),
            ("events", "interruption", "dispatch"),
            ("dispatch", "dispatch", "dispatch"),
        ]
    assert second.dispatch > first.dispatch


@pytest.mark.parametrize("trouble", ["refuses", "away", "hangs"])
def test_a_collector_in_trouble_changes_no_answer(
    monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """The job is queued, launched for and closed as it would be without traces."""
    monkeypatch.setattr(traces, "SEND_SECONDS", 0.2)
    with serve() as endpoint:
        endpoint.status = 503
        if trouble == "hangs":
            endpoint.hold.clear()
        # nothing listens on the discard port
        url = "http://127.0.0.1:9" if trouble == "away" else endpoint.url
        fleet = Fleet(monkeypatch, url)
        assert fleet.deliver() == 202
        fleet.live(fleet.dispatch())
        assert endpoint.spans() == []
    assert fleet.record()[JobAttr.STATUS.value] == {"S": "completed"}


def test_without_an_endpoint_messages_name_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written or sent that a fleet without traces has no use for."""
    fleet = Fleet(monkeypatch, None)
    fleet.deliver()
    config = fleet.dispatch()
    assert config.traceparent == ""
    assert JobAttr.TRACEPARENT.value not in fleet.record()
