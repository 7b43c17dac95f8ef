"""The AWS adapters against moto."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from runsfleet_runtime.agent.aws import AwsClients
from runsfleet_runtime.agent.dynamodb import DynamoDbConfigurations
from runsfleet_runtime.agent.ec2 import Ec2Instances
from runsfleet_runtime.agent.errors import StopRequestedError
from runsfleet_runtime.agent.s3 import S3Packages
from runsfleet_runtime.agent.sqs import SqsReports
from runsfleet_runtime.agent.ssm import SsmConfigurations
from runsfleet_runtime.contract.messages import ReportStatus, RunnerReport
from runsfleet_runtime.contract.paths import runner_config_parameter
from runsfleet_runtime.contract.tables import RunnerAttr, instance_key
from tests.unit.agent.fakes import INSTANCE_ID, runner_config

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REGION = "eu-central-1"
ROLE = "AROAEXAMPLE"
PREFIX = "/runs-fleet/dev/runners"


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsClients]:
    """Give clients of an AWS in memory."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield AwsClients(REGION)


def test_clients_are_made_once_with_bounded_time(clients: AwsClients) -> None:
    """A service has one client, whose every attempt ends within seconds."""
    client = clients.client("sqs")
    assert clients.client("sqs") is client
    assert client.meta.region_name == REGION
    assert client.meta.config.connect_timeout + client.meta.config.read_timeout <= 15
    assert client.meta.config.retries["mode"] == "standard"


class TestDynamoDb:
    """Configurations in the runners table."""

    @pytest.fixture
    def store(self, clients: AwsClients) -> DynamoDbConfigurations:
        clients.client("dynamodb").create_table(
            TableName="runners",
            KeySchema=[{"AttributeName": RunnerAttr.KEY, "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": RunnerAttr.KEY, "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        return DynamoDbConfigurations(clients, table="runners", role_id=ROLE)

    def put(self, clients: AwsClients, instance_id: str, **more: Any) -> str:
        text = runner_config(instance_id=instance_id).to_json()
        clients.client("dynamodb").put_item(
            TableName="runners",
            Item={
                RunnerAttr.KEY: {"S": instance_key(ROLE, instance_id)},
                RunnerAttr.CONFIG: {"S": text},
                **more,
            },
        )
        return text

    def test_an_instance_reads_its_own_item(
        self, clients: AwsClients, store: DynamoDbConfigurations
    ) -> None:
        """The item is found by role and instance, and comes back byte for byte."""
        self.put(clients, "i-0fffffffffffffff0")
        assert store.read(INSTANCE_ID, now=0) is None
        text = self.put(clients, INSTANCE_ID)
        assert store.read(INSTANCE_ID, now=0) == text

    def test_an_expired_item_counts_as_none(
        self, clients: AwsClients, store: DynamoDbConfigurations
    ) -> None:
        """TTL deletes late, so the agent looks at the time itself."""
        text = self.put(clients, INSTANCE_ID, **{RunnerAttr.EXPIRES_AT: {"N": "100"}})
        assert store.read(INSTANCE_ID, now=99) == text
        assert store.read(INSTANCE_ID, now=100) is None

    def test_a_missing_table_is_an_error(self, clients: AwsClients) -> None:
        """A store that cannot be read does not look like an empty one."""
        store = DynamoDbConfigurations(clients, table="absent", role_id=ROLE)
        with pytest.raises(ClientError):
            store.read(INSTANCE_ID, now=0)


class TestSsm:
    """Configurations in Parameter Store."""

    def put(self, clients: AwsClients, part: int, text: str) -> None:
        clients.client("ssm").put_parameter(
            Name=runner_config_parameter(PREFIX, INSTANCE_ID, part), Value=text, Type="SecureString"
        )

    def test_parts_are_joined_in_their_order(self, clients: AwsClients) -> None:
        """A configuration beyond 4,096 characters comes back byte for byte."""
        text = runner_config(labels=("ü=" + "x" * 9000,)).to_json()
        for part in range(0, len(text), 4000):
            self.put(clients, part // 4000, text[part : part + 4000])
        assert SsmConfigurations(clients, prefix=PREFIX).read(INSTANCE_ID, now=0) == text

    def test_a_configuration_in_the_making_is_none_yet(self, clients: AwsClients) -> None:
        """Until its last part is written there is no configuration."""
        store = SsmConfigurations(clients, prefix=PREFIX)
        text = runner_config().to_json()
        assert store.read(INSTANCE_ID, now=0) is None
        self.put(clients, 0, text[:4000])
        assert store.read(INSTANCE_ID, now=0) is None
        self.put(clients, 1, text[4000:])
        assert store.read(INSTANCE_ID, now=0) == text


def test_a_report_arrives_as_the_contract_says(clients: AwsClients) -> None:
    """The message body is the report's JSON."""
    sqs = clients.client("sqs")
    url = sqs.create_queue(QueueName="termination")["QueueUrl"]
    report = RunnerReport(instance_id=INSTANCE_ID, job_id=1, status=ReportStatus.UNUSED)
    SqsReports(clients, queue_url=url).send(report)
    (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
    assert RunnerReport.from_json(message["Body"]) == report
    assert json.loads(message["Body"])["version"] == 1


def test_an_instance_is_terminated_by_its_id(clients: AwsClients) -> None:
    """EC2 is asked to terminate this instance and no other."""
    ec2 = clients.client("ec2")
    made = ec2.run_instances(ImageId="ami-12c6146b", MinCount=2, MaxCount=2)["Instances"]
    first, second = (i["InstanceId"] for i in made)
    Ec2Instances(clients).terminate(first)
    states = {
        i["InstanceId"]: i["State"]["Name"]
        for r in ec2.describe_instances()["Reservations"]
        for i in r["Instances"]
    }
    assert states == {first: "terminated", second: "running"}


class TestS3:
    """Packages in the bucket."""

    @pytest.fixture
    def cache(self, clients: AwsClients) -> S3Packages:
        clients.client("s3").create_bucket(
            Bucket="packages", CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        return S3Packages(clients, bucket="packages")

    def test_a_package_is_kept_and_fetched(self, cache: S3Packages, tmp_path: Path) -> None:
        """What was stored comes back byte for byte."""
        content = bytes(range(256)) * 9000
        (tmp_path / "a").write_bytes(content)
        assert cache.fetch("runners/a", tmp_path / "b", check=lambda: None) is False
        cache.store("runners/a", tmp_path / "a")
        assert cache.fetch("runners/a", tmp_path / "b", check=lambda: None) is True
        assert (tmp_path / "b").read_bytes() == content

    def test_another_failure_is_no_miss(self, clients: AwsClients, tmp_path: Path) -> None:
        """A bucket that does not exist is an error that names it."""
        cache = S3Packages(clients, bucket="absent")
        with pytest.raises(OSError, match="s3://absent/runners/a"):
            cache.fetch("runners/a", tmp_path / "b", check=lambda: None)

    def test_a_stop_ends_a_fetch(self, cache: S3Packages, tmp_path: Path) -> None:
        """The check is asked while the object is read."""
        (tmp_path / "a").write_bytes(b"x")
        cache.store("runners/a", tmp_path / "a")

        def stop() -> None:
            raise StopRequestedError("SIGTERM")

        with pytest.raises(StopRequestedError):
            cache.fetch("runners/a", tmp_path / "b", check=stop)
