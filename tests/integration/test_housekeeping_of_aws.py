"""The sweeps on AWS's side, as Lambda calls them: AWS in memory, GitHub over real HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends

from runsfleet_cli.local.github.background import BackgroundStandIn
from runsfleet_cli.local.jobs.plan import read_workflow_file
from runsfleet_runtime import composition
from runsfleet_runtime.contract.messages import HousekeepingTask, RunnerConfig
from runsfleet_runtime.contract.tables import JobAttr, RunnerAttr, instance_key
from runsfleet_runtime.contract.tags import MANAGED_VALUE, Tag
from runsfleet_runtime.interruptions.model import InstanceLeft, read_event
from tests.integration.test_housekeeping_of_github import REPOSITORY, WORKFLOW, Fleet

pytestmark = pytest.mark.integration

HOUR = 3600.0


class LiveFleet(Fleet):
    """A deployed fleet with instances and their configurations."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, github: BackgroundStandIn) -> None:
        super().__init__(monkeypatch, github)
        self.ec2: Any = boto3.client("ec2")
        self.dynamodb.create_table(
            TableName="runners",
            KeySchema=[{"AttributeName": RunnerAttr.KEY.value, "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": RunnerAttr.KEY.value, "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )

    def launch(self, *, age: float = HOUR) -> str:
        """Launch an instance some time ago."""
        tags = {Tag.MANAGED.value: MANAGED_VALUE, Tag.FLEET.value: "dev"}
        answer = self.ec2.run_instances(
            ImageId=self.ec2.describe_images()["Images"][0]["ImageId"],
            InstanceType="t4g.medium",
            MinCount=1,
            MaxCount=1,
            TagSpecifications=[
                {
                    "ResourceType": "instance",
                    "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
                }
            ],
        )
        instance_id = str(answer["Instances"][0]["InstanceId"])
        backend = ec2_backends[DEFAULT_ACCOUNT_ID]["eu-central-1"]
        launched = datetime.fromtimestamp(time.time() - age, UTC)
        backend.get_instance(instance_id).launch_time = launched
        return instance_id

    def configure(self, instance_id: str, *, age: float = HOUR) -> None:
        """Write the configuration of an instance some time ago."""
        config = RunnerConfig(
            instance_id=instance_id,
            job_id=1,
            run_id=1,
            repository=REPOSITORY,
            server_url=self.github.url,
            runner_url=f"{self.github.url}/octo-org",
            runner_name=f"runsfleet-{instance_id}",
            labels=("l",),
        )
        item = {
            RunnerAttr.KEY: {"S": instance_key("AROAEXAMPLE", instance_id)},
            RunnerAttr.INSTANCE_ID: {"S": instance_id},
            RunnerAttr.CONFIG: {"S": config.to_json()},
            RunnerAttr.CREATED_AT: {"N": str(int(time.time() - age))},
        }
        self.dynamodb.put_item(TableName="runners", Item={k.value: v for k, v in item.items()})

    def is_configured(self, instance_id: str) -> bool:
        """Tell whether an instance still has a configuration."""
        key = {RunnerAttr.KEY.value: {"S": instance_key("AROAEXAMPLE", instance_id)}}
        return (
            RunnerAttr.CONFIG.value in self.dynamodb.get_item(TableName="runners", Key=key)["Item"]
        )

    def state(self, instance_id: str) -> str:
        """Return EC2's word for the state of an instance."""
        found = self.ec2.describe_instances(InstanceIds=[instance_id])
        return str(found["Reservations"][0]["Instances"][0]["State"]["Name"])

    def tags(self, instance_id: str) -> dict[str, str]:
        """Return the tags of an instance."""
        found = self.ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [instance_id]}])
        return {tag["Key"]: tag["Value"] for tag in found["Tags"]}

    def events(self) -> list[Any]:
        """Return what is on the events queue."""
        url = self.sqs.get_queue_url(QueueName="events")["QueueUrl"]
        answer = self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
        return [read_event(m["Body"]) for m in answer.get("Messages", [])]


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveFleet]:
    """Deploy a fleet, with a function that starts cold."""
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    cached = (
        composition.housekeeping,
        composition.client,
        composition._session,
        composition._secrets,
    )
    with mock_aws(), BackgroundStandIn() as github:
        for function in cached:
            function.cache_clear()
        yield LiveFleet(monkeypatch, github)
    for function in cached:
        function.cache_clear()


@pytest.fixture
def queued(live: LiveFleet, tmp_path: Path) -> Any:
    """Queue a job at GitHub, an hour ago."""
    path = tmp_path / "ci.yml"
    path.write_text(WORKFLOW)
    run = live.github.call(lambda: live.github.stand_in.queue_workflow(read_workflow_file(path)))
    (made,) = live.github.call(run.latest)
    made.created_at -= HOUR
    return made


def test_launch_of_which_nothing_was_heard(live: LiveFleet, queued: Any) -> None:
    """GitHub has the job queued and no such runner: another instance, and the silent one ends."""
    instance_id = live.launch()
    live.configure(instance_id)
    launched = {"status": "launched", "instance_id": instance_id}
    live.put(queued, launched_at=time.time() - HOUR, **launched)
    assert live.sweep(HousekeepingTask.UNCONFIRMED_LAUNCHES) == "succeeded"
    (message,) = live.sent()
    assert (message.job_id, message.labels) == (queued.id, queued.labels)
    assert (message.dispatch, message.requeues) == (4, 2)
    assert live.record(queued)[JobAttr.STATUS.value]["S"] == "queued"
    assert live.state(instance_id) in {"shutting-down", "terminated"}
    assert not live.is_configured(instance_id)


def test_records_that_nothing_moves(
    live: LiveFleet, queued: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lost with its instance, with its claim, or beyond its deadline: each has its way out."""
    now = time.time()
    live.put(queued, status="running", instance_id="i-0123456789abcdef0")
    assert live.sweep(HousekeepingTask.STALE_JOBS) == "succeeded"
    (left,) = live.events()
    assert isinstance(left, InstanceLeft)
    assert left.instance_id == "i-0123456789abcdef0"

    live.put(queued, status="claimed", claim_id="c", claim_expires_at=now - HOUR)
    assert live.sweep(HousekeepingTask.STALE_JOBS) == "succeeded"
    (message,) = live.sent()
    assert message.job_id == queued.id

    live.put(queued, status="queued", deadline=now - HOUR)
    assert live.sweep(HousekeepingTask.STALE_JOBS) == "succeeded"
    assert live.record(queued)[JobAttr.STATUS.value]["S"] == "expired"
    composition.housekeeping().metrics.flush()
    assert '"JobsGivenUpBySweeps":1' in capsys.readouterr().out


def test_instance_that_nobody_needs(live: LiveFleet, queued: Any) -> None:
    """Marked in one run, terminated in a later one; the instance of an open job is not."""
    orphan, busy, young = live.launch(), live.launch(), live.launch(age=60)
    live.configure(orphan)
    live.put(queued, status="running", instance_id=busy)
    assert live.sweep(HousekeepingTask.ORPHANED_INSTANCES) == "succeeded"
    assert Tag.CONDEMNED.value in live.tags(orphan)
    assert live.sweep(HousekeepingTask.ORPHANED_INSTANCES) == "succeeded"
    assert live.state(orphan) == "running"
    marked = {"Key": Tag.CONDEMNED.value, "Value": str(int(time.time() - 400))}
    live.ec2.create_tags(Resources=[orphan], Tags=[marked])
    assert live.sweep(HousekeepingTask.ORPHANED_INSTANCES) == "succeeded"
    assert live.state(orphan) in {"shutting-down", "terminated"}
    assert live.state(busy) == live.state(young) == "running"
    assert Tag.CONDEMNED.value not in live.tags(busy)


def test_configuration_of_an_instance_that_is_gone(live: LiveFleet) -> None:
    """It goes, and that of a living instance stays."""
    there = live.launch(age=3 * HOUR)
    live.configure(there, age=3 * HOUR)
    live.configure("i-0123456789abcdef0", age=3 * HOUR)
    assert live.sweep(HousekeepingTask.STALE_CONFIGURATIONS) == "succeeded"
    assert live.is_configured(there)
    assert not live.is_configured("i-0123456789abcdef0")
