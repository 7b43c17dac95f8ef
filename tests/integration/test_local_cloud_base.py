"""The base of the local cloud, with a small deployed app, without and with enforcement and TLS."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import boto3
import pytest
import urllib3
from botocore.exceptions import ClientError, ConnectionClosedError
from botocore.exceptions import ConnectionError as BotoConnectionError

from runsfleet_cli.local.aws import LocalAws, LocalAwsSettings
from runsfleet_cli.local.deploy import CdkCli, DeployError, Deployment, find_cdk
from runsfleet_cli.local.interceptor import Call, FaultRule

pytestmark = pytest.mark.integration

PROJECT = Path(__file__).resolve().parents[2]
T = TypeVar("T")


class Running:
    """A local AWS on an event loop in a thread, with the app deployed."""

    def __init__(self, directory: Path, assembly: Path, *, strict: bool) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.aws = self.run(self._make(directory, strict=strict))
        self.run(self.aws.start())
        self.deployment: Deployment = self.run(self.aws.deploy(assembly, cdk=find_cdk(PROJECT)))

    @staticmethod
    async def _make(directory: Path, *, strict: bool) -> LocalAws:
        return LocalAws(LocalAwsSettings(directory=directory, strict=strict, project=PROJECT))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(120)

    def close(self) -> None:
        """Stop everything."""
        self.run(self.aws.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def http(self, method: str, url: str, body: object = None) -> tuple[int, dict[str, Any]]:
        """A plain HTTP request with a JSON body."""
        tls = self.aws.tls
        with urllib3.PoolManager(ca_certs=str(tls.ca) if tls else None) as pool:
            answer = pool.request(method, url, json=body, retries=False)
            return answer.status, answer.json()

    def post(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Send a webhook."""
        url = self.aws.target.http_api_url(self.deployment.output("WebhookUrl"))
        return self.http("POST", url, body)

    def row(self, key: str, seconds: float = 20.0) -> dict[str, Any]:
        """A row of the table, once it is there."""
        table = self.deployment.output("TableName")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            item = self.aws.client("dynamodb").get_item(TableName=table, Key={"id": {"S": key}})
            if "Item" in item:
                found: dict[str, Any] = item["Item"]
                return found
            time.sleep(0.1)
        log = self.aws.settings.directory / "emulator" / "emulator.log"
        pytest.fail(f"no row {key}: {log.read_text()[-3000:]}")

    def calls(self, action: str, job: str) -> list[Call]:
        """The record of an action, of one job."""
        return [
            call
            for call in self.aws.interceptor.log.query(action=action)
            if job in json.dumps(call.parameters, default=str)
        ]

    def instance_client(self, service: str, instance_id: str) -> Any:
        """A client with the credentials that an instance would get."""
        credentials = self.aws.client("sts").assume_role(
            RoleArn=self.deployment.output("RunnerRoleArn"), RoleSessionName=instance_id
        )["Credentials"]
        session: Any = boto3.session.Session(
            aws_access_key_id=credentials["AccessKeyId"],
            aws_secret_access_key=credentials["SecretAccessKey"],
            aws_session_token=credentials["SessionToken"],
            region_name=self.aws.settings.region,
        )
        tls = self.aws.tls
        return session.client(
            service,
            endpoint_url=self.aws.interceptor.url,
            verify=str(tls.ca) if tls else None,
        )

    def fleet(self, count: int = 1, kind: str = "spot", **more: Any) -> dict[str, Any]:
        """A CreateFleet of the operator's."""
        answer: dict[str, Any] = self.aws.client("ec2").create_fleet(
            Type="instant",
            LaunchTemplateConfigs=[
                {
                    "LaunchTemplateSpecification": {
                        "LaunchTemplateId": self.deployment.output("TemplateId"),
                        "Version": "$Latest",
                    },
                    "Overrides": [
                        {"InstanceType": "c7g.xlarge", "SubnetId": self.deployment.output("Subnet")}
                    ],
                }
            ],
            TargetCapacitySpecification={
                "TotalTargetCapacity": count,
                "DefaultTargetCapacityType": kind,
            },
            **more,
        )
        return answer


@pytest.fixture(scope="module")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small app, synthesized."""
    directory = tmp_path_factory.mktemp("app") / "cdk.out"
    app = Path(__file__).with_name("local_cloud_app.py")
    environment = os.environ | {"JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20"}
    subprocess.run([sys.executable, app, directory], check=True, env=environment)
    return directory


@pytest.fixture(scope="module", params=["plain", "strict"])
def cloud(
    request: pytest.FixtureRequest, assembly: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """The local AWS with the app, in both modes."""
    running = Running(
        tmp_path_factory.mktemp(request.param), assembly, strict=request.param == "strict"
    )
    yield running
    running.close()


@pytest.fixture
def fault(cloud: Running) -> Iterator[Callable[..., str]]:
    """Puts a fault rule in force until the test ends."""
    added: list[str] = []

    def add(**rule: Any) -> str:
        rule_id = f"rule-{uuid.uuid4().hex[:6]}"
        cloud.aws.interceptor.faults.add(FaultRule.from_dict({"id": rule_id} | rule))
        added.append(rule_id)
        return rule_id

    yield add
    for rule_id in added:
        cloud.aws.interceptor.faults.remove(rule_id)


def _job() -> str:
    return f"job-{uuid.uuid4().hex[:10]}"


def test_a_webhook_becomes_instances_and_a_row(cloud: Running) -> None:
    """A webhook flows through both functions; every call is recorded with the function's name."""
    job = _job()
    status, answer = cloud.post({"id": job, "launch": 2})
    assert (status, answer) == (202, {"path": "/webhook", "secret": 4}), answer
    row = cloud.row(f"{job}#done")
    assert len(row["instances"]["L"]) == 2
    (sent,) = cloud.calls("SendMessage", job)
    (launched,) = cloud.calls("CreateFleet", job)
    intake = cloud.deployment.one("AWS::Lambda::Function", "Intake")
    worker = cloud.deployment.one("AWS::Lambda::Function", "Worker")
    assert sent.caller == f"function:{intake}"
    assert launched.caller == f"function:{worker}"
    assert launched.outcome == "ok"
    assert launched.result["launches"][0]["type"] == "c7g.xlarge"
    assert launched.result["launches"][0]["capacity_type"] == "spot"


def test_secrets_are_not_in_the_record(cloud: Running) -> None:
    """The record shows that a secret was read, and not what it is."""
    cloud.aws.client("secretsmanager").create_secret(Name=_job(), SecretString="tell-nobody")
    assert "tell-nobody" not in (cloud.aws.settings.directory / "calls.jsonl").read_text()


def test_described_instances_are_complete(cloud: Running) -> None:
    """DescribeInstances tells lifecycle, zone, resolved image and metadata options."""
    instance_id = cloud.fleet()["Instances"][0]["InstanceIds"][0]
    ec2 = cloud.aws.client("ec2")
    found = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
    assert found["InstanceLifecycle"] == "spot"
    assert found["ImageId"].startswith("ami-")
    assert found["MetadataOptions"]["HttpTokens"] == "required"
    assert found["InstanceType"] == "c7g.xlarge"
    with pytest.raises(ClientError, match="UnsupportedOperation"):
        ec2.stop_instances(InstanceIds=[instance_id])


def test_client_token_makes_a_fleet_idempotent(cloud: Running) -> None:
    """The same token gives the same instances; other parameters with it are refused."""
    token = _job()
    first = cloud.fleet(ClientToken=token)
    again = cloud.fleet(ClientToken=token)
    assert first["Instances"] == again["Instances"]
    with pytest.raises(ClientError, match="IdempotentParameterMismatch"):
        cloud.fleet(2, ClientToken=token)


def test_dry_run_launches_nothing(cloud: Running) -> None:
    """A DryRun of a fleet is answered with DryRunOperation and launches nothing."""
    ec2 = cloud.aws.client("ec2")
    before = len(ec2.describe_instances()["Reservations"])
    with pytest.raises(ClientError, match="DryRunOperation"):
        cloud.fleet(DryRun=True)
    assert len(ec2.describe_instances()["Reservations"]) == before


def test_lacking_spot_capacity_is_told_per_pool(cloud: Running, fault: Callable[..., str]) -> None:
    """Without spot capacity a fleet answers 200 with errors, and the record names the rule."""
    rule = fault(effect="capacity", capacity_types=["spot"])
    answer = cloud.fleet()
    assert answer["Instances"] == []
    (error,) = answer["Errors"]
    assert error["ErrorCode"] == "InsufficientInstanceCapacity"
    assert error["Lifecycle"] == "spot"
    overrides = error["LaunchTemplateAndOverrides"]["Overrides"]
    assert overrides["InstanceType"] == "c7g.xlarge"
    assert len(cloud.fleet(kind="on-demand")["Instances"]) == 1
    (last,) = cloud.aws.interceptor.log.query(action="CreateFleet", outcome="fault", limit=1)
    assert last.fault == rule


def test_capacity_in_part_is_rewritten_for_a_function(
    cloud: Running, fault: Callable[..., str]
) -> None:
    """A closed type is passed over, and the function's own permissions still count."""
    fault(effect="capacity", instance_types=["c7g.*"], deliver=1)
    job = _job()
    cloud.post({"id": job, "launch": 3})
    assert len(cloud.row(f"{job}#done")["instances"]["L"]) == 3
    (call,) = cloud.calls("CreateFleet", job)
    types = {item["type"]: item["count"] for item in call.result["launches"]}
    assert types == {"c7g.xlarge": 1, "m7g.xlarge": 2}
    assert call.result["errors"] == ["InsufficientInstanceCapacity"]


def test_errors_are_shaped_for_each_protocol(cloud: Running, fault: Callable[..., str]) -> None:
    """An injected error reaches the SDK with its code, whatever the service's protocol."""
    fault(effect="error", code="Injected", status=400, message="on purpose")
    calls: list[Callable[[], Any]] = [
        cloud.aws.client("ec2").describe_instances,
        cloud.aws.client("sts").get_caller_identity,
        cloud.aws.client("dynamodb").list_tables,
        cloud.aws.client("sqs").list_queues,
        cloud.aws.client("lambda").list_functions,
        cloud.aws.client("s3").list_buckets,
        cloud.aws.client("ssm").describe_parameters,
        cloud.aws.client("cloudwatch").list_metrics,
        cloud.aws.client("cloudformation").list_stacks,
    ]
    for call in calls:
        with pytest.raises(ClientError) as caught:
            call()
        assert caught.value.response["Error"]["Code"] == "Injected"
        assert caught.value.response["Error"]["Message"] == "on purpose"


def test_throttles_and_refusals_use_the_services_words(
    cloud: Running, fault: Callable[..., str]
) -> None:
    """Throttle and refuse answer with the service's own codes."""
    fault(effect="throttle", service="ec2", action="DescribeVpcs")
    with pytest.raises(ClientError, match="RequestLimitExceeded"):
        cloud.aws.client("ec2").describe_vpcs()
    fault(effect="refuse", service="ec2", action="DescribeSubnets")
    with pytest.raises(ClientError, match="UnauthorizedOperation"):
        cloud.aws.client("ec2").describe_subnets()
    fault(effect="throttle", service="dynamodb", count=1)
    # one throttle is what the SDK's retry is for
    assert cloud.aws.client("dynamodb").list_tables()["TableNames"]


def test_delay_holds_a_call_back(cloud: Running, fault: Callable[..., str]) -> None:
    """A delay rule makes a call take longer, and it succeeds."""
    fault(effect="delay", service="sqs", action="ListQueues", delay_seconds=0.5, count=1)
    started = time.monotonic()
    assert cloud.aws.client("sqs").list_queues()["QueueUrls"]
    assert time.monotonic() - started > 0.5


def test_dropped_after_execution_is_an_unknown_outcome(
    cloud: Running, fault: Callable[..., str]
) -> None:
    """The connection closes after a fleet launched; the SDK's retry with its token gets it."""
    fault(effect="drop", when="after", action="CreateFleet", count=1)
    answer = cloud.fleet(ClientToken=_job())
    (last,) = cloud.aws.interceptor.log.query(action="CreateFleet", limit=1)
    assert last.result["idempotent"] is True
    assert len(answer["Instances"][0]["InstanceIds"]) == 1
    fault(effect="drop", when="before", service="sqs", action="ListQueues")
    with pytest.raises((ConnectionClosedError, BotoConnectionError)):
        cloud.aws.client("sqs").list_queues()


def test_put_off_fifo_message_comes_back_when_its_visibility_says(cloud: Running) -> None:
    """ChangeMessageVisibility with batchItemFailures puts a FIFO message off for that long."""
    job = _job()
    cloud.post({"id": job, "put_off": 3})
    first = cloud.row(f"{job}#first")
    done = cloud.row(f"{job}#done")
    waited = float(done["at"]["N"]) - float(first["at"]["N"])
    assert 2.5 < waited < 6
    assert done["received"]["N"] == "2"


def test_transaction_tells_why_it_was_cancelled(cloud: Running) -> None:
    """TransactWriteItems names the failed condition item by item."""
    table = cloud.deployment.output("TableName")
    job = _job()

    def put(key: str) -> dict[str, Any]:
        return {
            "Put": {
                "TableName": table,
                "Item": {"id": {"S": key}},
                "ConditionExpression": "attribute_not_exists(id)",
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
        }

    client = cloud.aws.client("dynamodb")
    client.transact_write_items(TransactItems=[put(job)])
    with pytest.raises(ClientError) as caught:
        client.transact_write_items(TransactItems=[put(f"{job}-2"), put(job)])
    reasons = caught.value.response["CancellationReasons"]
    assert [reason["Code"] for reason in reasons] == ["None", "ConditionalCheckFailed"]
    assert reasons[1]["Item"] == {"id": {"S": job}}
    assert "Item" not in client.get_item(TableName=table, Key={"id": {"S": f"{job}-2"}})


def test_eventbridge_rule_feeds_a_queue(cloud: Running) -> None:
    """An event that a deployed rule matches arrives in its queue."""
    cloud.aws.client("events").put_events(
        Entries=[
            {
                "Source": "test.ec2",
                "DetailType": "EC2 Spot Instance Interruption Warning",
                "Detail": json.dumps({"instance-id": "i-1", "instance-action": "terminate"}),
            }
        ]
    )
    received = cloud.aws.client("sqs").receive_message(
        QueueUrl=cloud.deployment.output("EventsQueueUrl"), WaitTimeSeconds=5
    )
    event = json.loads(received["Messages"][0]["Body"])
    assert event["detail"]["instance-id"] == "i-1"


def test_an_instance_may_only_terminate_itself(cloud: Running) -> None:
    """With an instance's credentials another instance is out of reach, in both modes."""
    mine, other = (cloud.fleet()["Instances"][0]["InstanceIds"][0] for _ in range(2))
    client = cloud.instance_client("ec2", mine)
    with pytest.raises(ClientError, match="UnauthorizedOperation"):
        client.terminate_instances(InstanceIds=[other])
    ended = client.terminate_instances(InstanceIds=[mine])["TerminatingInstances"]
    assert [item["InstanceId"] for item in ended] == [mine]
    (call,) = cloud.aws.interceptor.log.query(action="TerminateInstances", outcome="ok", limit=1)
    assert call.caller == f"instance:{mine}"


def test_conditions_that_the_emulator_cannot_evaluate_are_kept(cloud: Running) -> None:
    """Under enforcement: own row only, own namespace only, tagged instances only."""
    if not cloud.aws.settings.strict:
        assert cloud.aws.gaps.conditions is None
        return
    mine = cloud.fleet()["Instances"][0]["InstanceIds"][0]
    role_id = cloud.aws.client("sts").assume_role(
        RoleArn=cloud.deployment.output("RunnerRoleArn"), RoleSessionName=mine
    )["AssumedRoleUser"]["AssumedRoleId"]
    table = cloud.deployment.output("TableName")
    rows = cloud.instance_client("dynamodb", mine)
    assert "Item" not in rows.get_item(TableName=table, Key={"id": {"S": role_id}})
    with pytest.raises(ClientError, match="AccessDenied"):
        rows.get_item(TableName=table, Key={"id": {"S": "another"}})
    metrics = cloud.instance_client("cloudwatch", mine)
    metrics.put_metric_data(Namespace="Base", MetricData=[{"MetricName": "m", "Value": 1}])
    with pytest.raises(ClientError, match="AccessDenied"):
        metrics.put_metric_data(Namespace="Other", MetricData=[{"MetricName": "m", "Value": 1}])
    ec2 = cloud.instance_client("ec2", mine)
    tag = [{"Key": "a", "Value": "b"}]
    with pytest.raises(ClientError, match="UnauthorizedOperation"):
        ec2.create_tags(Resources=[mine], Tags=tag)
    cloud.aws.client("ec2").create_tags(
        Resources=[mine], Tags=[{"Key": "runsfleet:fleet", "Value": "base"}]
    )
    ec2.create_tags(Resources=[mine], Tags=tag)
    with pytest.raises(ClientError, match="AccessDenied"):
        cloud.instance_client("sqs", mine).send_message(
            QueueUrl=cloud.deployment.output("JobsQueueUrl"), MessageBody="x", MessageGroupId="x"
        )


def test_control_api_adds_rules_and_lists_calls(cloud: Running) -> None:
    """Commands in other processes add, list and remove rules, and read the record."""

    def ask(method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
        return cloud.http(method, f"{cloud.aws.interceptor.url}/_runsfleet/{path}", body)

    rule = {"id": "from-afar", "effect": "throttle", "action": "DescribeImages", "seconds": 60}
    assert ask("POST", "faults", rule)[0] == 201
    with pytest.raises(ClientError, match="RequestLimitExceeded"):
        cloud.aws.client("ec2").describe_images()
    listed = ask("GET", "faults")[1]["faults"]
    assert [item["id"] for item in listed] == ["from-afar"]
    assert listed[0]["applied"] >= 1
    status, answer = ask("POST", "faults", {"id": "x", "effect": "explode"})
    assert status == 400
    assert "explode" in answer["message"]
    assert ask("DELETE", "faults/from-afar")[1] == {"faults": []}
    calls = ask("GET", "calls?action=DescribeImages&outcome=fault&limit=1")[1]["calls"]
    assert calls[0]["fault"] == "from-afar"


def test_stopping_leaves_no_process(assembly: Path, tmp_path: Path) -> None:
    """After stop, neither the emulator nor a Lambda worker is left in its process group."""
    running = Running(tmp_path, assembly, strict=False)
    job = _job()
    running.post({"id": job, "launch": 1})
    running.row(f"{job}#done")
    group = running.aws.backend.pid  # type: ignore[union-attr]
    assert _members(group)
    running.close()
    assert _members(group) == []


def test_the_emulator_ends_with_who_started_it(tmp_path: Path) -> None:
    """When the process that started it is killed, the emulator goes by itself."""
    script = """
import asyncio, sys
from pathlib import Path
from runsfleet_cli.local.aws import LocalAws, LocalAwsSettings

async def main():
    aws = LocalAws(LocalAwsSettings(directory=Path(sys.argv[1]), project=Path(sys.argv[2])))
    await aws.start()
    print(aws.backend.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, tmp_path, PROJECT],
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
    ) as process:
        assert process.stdout is not None
        group = int(process.stdout.readline())
        assert _members(group)
        process.kill()
    deadline = time.monotonic() + 15
    while _members(group) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _members(group) == []


def test_failed_deployment_names_resource_and_reason(tmp_path: Path) -> None:
    """A resource that the emulator refuses is named, with its reason, by the error."""
    assembly = tmp_path / "cdk.out"
    assembly.mkdir()
    alarm = {"Metrics": [{"Id": "a", "Expression": "1"}], "EvaluationPeriods": 1, "Threshold": 1}
    alarm["ComparisonOperator"] = "GreaterThanThreshold"
    template = {"Resources": {"Bad": {"Type": "AWS::CloudWatch::Alarm", "Properties": alarm}}}
    (assembly / "s.template.json").write_text(json.dumps(template))
    (assembly / "cdk.out").write_text('{"version": "36.0.0"}')
    stack = {
        "type": "aws:cloudformation:stack",
        "environment": "aws://123456789012/us-east-1",
        "properties": {"templateFile": "s.template.json", "stackName": "s"},
    }
    manifest = {"version": "36.0.0", "artifacts": {"s": stack}}
    (assembly / "manifest.json").write_text(json.dumps(manifest))

    async def scenario() -> None:
        async with LocalAws(LocalAwsSettings(directory=tmp_path / "run", project=PROJECT)) as aws:
            cli = CdkCli(find_cdk(PROJECT), aws.target, tmp_path / "home")
            await cli.deploy(assembly)

    with pytest.raises(DeployError, match=r"s: Bad \(AWS::CloudWatch::Alarm\): \w+"):
        asyncio.run(scenario())


def _members(group: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(stat[2]) == group and stat[0] != "Z":
                found.append(int(entry.name))
    return found
