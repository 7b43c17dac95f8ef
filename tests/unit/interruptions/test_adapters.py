"""Adapters of the events room against AWS in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError
from moto import mock_aws

from runsfleet_runtime.contract.messages import RerunMessage
from runsfleet_runtime.contract.tables import JobAttr
from runsfleet_runtime.contract.tags import MANAGED_VALUE, Tag
from runsfleet_runtime.interruptions.dynamodb import DynamoDBNotes
from runsfleet_runtime.interruptions.ec2 import Ec2Instances
from runsfleet_runtime.interruptions.ports import InstanceUnknownError, Noted
from runsfleet_runtime.interruptions.sqs import SqsEvents
from runsfleet_runtime.jobs.model import JobRecord, JobStatus, Rerun
from runsfleet_runtime.jobs.ports import RecordUnknownError
from tests.unit.interruptions.world import NOW, interrupted_record, record

REGION = "eu-central-1"


@pytest.fixture(autouse=True)
def aws() -> Iterator[None]:
    """An AWS in memory."""
    with mock_aws():
        yield


class Silent:
    """A client whose every call fails: at AWS, or on the way there."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        def call(**_: Any) -> None:
            raise self._error

        return call


SILENCES = [
    ClientError({"Error": {"Code": "ThrottlingException"}}, "Call"),
    ConnectTimeoutError(endpoint_url="https://aws"),
]


class Table:
    """A jobs table with one job on i-1."""

    def __init__(self, made: JobRecord) -> None:
        self.client: Any = boto3.client("dynamodb", region_name=REGION)
        key = JobAttr.ID.value
        self.client.create_table(
            TableName="jobs",
            KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        item: dict[str, Any] = {
            key: {"S": "1"},
            JobAttr.STATUS.value: {"S": made.status.value},
            JobAttr.INSTANCE_ID.value: {"S": made.instance_id},
            JobAttr.DISPATCH.value: {"N": str(made.job.dispatch)},
        }
        if made.rerun:
            item[JobAttr.RERUN.value] = {"S": made.rerun.value}
        self.client.put_item(TableName="jobs", Item=item)
        self.notes = DynamoDBNotes(self.client, "jobs")

    def item(self, job_id: str = "1") -> dict[str, Any]:
        answer = self.client.get_item(TableName="jobs", Key={JobAttr.ID.value: {"S": job_id}})
        found: dict[str, Any] = answer.get("Item", {})
        return {name: next(iter(value.values())) for name, value in found.items()}

    def interrupt(self, observed: JobRecord) -> Noted:
        return self.notes.note_interruption(observed, at=NOW - 2, reason="taken", now=NOW)


@pytest.mark.parametrize("status", [JobStatus.LAUNCHED, JobStatus.RUNNING])
def test_interruption_is_noted_once(status: JobStatus) -> None:
    """When, why, and that spot is out of the question; the first note stays."""
    table = Table(record(status))
    assert table.interrupt(record(status)) is Noted.NEW
    again = table.notes.note_interruption(record(status), at=NOW + 9, reason="other", now=NOW + 9)
    assert again is Noted.KNOWN
    item = table.item()
    assert (item[JobAttr.STATUS.value], item[JobAttr.ON_DEMAND.value]) == (status.value, "1")
    assert float(item[JobAttr.INTERRUPTED_AT.value]) == NOW - 2
    assert item[JobAttr.INTERRUPTION.value] == "taken"


def test_start_that_was_reported_meanwhile_is_no_hindrance() -> None:
    """Observed as launched, running by now: it is the same instance's job still."""
    table = Table(record(JobStatus.RUNNING))
    assert table.interrupt(record(JobStatus.LAUNCHED)) is Noted.NEW


@pytest.mark.parametrize(
    "actual",
    [
        record(JobStatus.COMPLETED),
        record(JobStatus.QUEUED),
        record(instance_id="i-2"),
        record(job=replace(record().job, dispatch=1)),
    ],
)
def test_interruption_of_a_former_owner_is_not_noted(actual: JobRecord) -> None:
    """The job was closed, handed back or given to another instance since it was read."""
    table = Table(actual)
    before = table.item()
    assert table.interrupt(record()) is Noted.SETTLED
    assert table.item() == before


def test_no_record_is_made_up() -> None:
    """A note on a record that is gone writes nothing."""
    table = Table(record())
    unknown = record(job=replace(record().job, job_id=2))
    assert table.interrupt(unknown) is Noted.SETTLED
    assert not table.notes.note_rerun(unknown, Rerun.PENDING, reason="r", now=NOW)
    assert table.item("2") == {}


def test_rerun_moves_from_what_was_observed_only() -> None:
    """Pending, requested, done: each once, and each with its reason."""
    table = Table(interrupted_record(rerun=None))
    observed = interrupted_record(rerun=None)
    for state in (Rerun.PENDING, Rerun.REQUESTED, Rerun.DONE):
        assert table.notes.note_rerun(observed, state, reason=f"to {state}", now=NOW)
        assert table.item()[JobAttr.RERUN.value] == state.value
        assert table.item()[JobAttr.RERUN_REASON.value] == f"to {state}"
        # a second worker that saw the same is refused
        assert not table.notes.note_rerun(observed, state, reason="r", now=NOW + 1)
        observed = replace(observed, rerun=state)
    reopened = interrupted_record(rerun=Rerun.DONE, status=JobStatus.QUEUED)
    assert not table.notes.note_rerun(reopened, Rerun.PENDING, reason="r", now=NOW)


def test_note_whose_answer_was_lost_counts_as_written() -> None:
    """The client repeats it by itself; the second try is refused by the first one's effect."""
    table = Table(interrupted_record())
    assert table.notes.note_rerun(interrupted_record(), Rerun.REQUESTED, reason="r", now=NOW)
    assert table.notes.note_rerun(interrupted_record(), Rerun.REQUESTED, reason="r", now=NOW)


@pytest.mark.parametrize("error", SILENCES)
def test_silent_table_is_unknown(error: Exception) -> None:
    """Neither refused nor written: the message must come back."""
    notes = DynamoDBNotes(Silent(error), "jobs")
    with pytest.raises(RecordUnknownError):
        notes.note_interruption(record(), at=NOW, reason="r", now=NOW)
    with pytest.raises(RecordUnknownError):
        notes.note_rerun(interrupted_record(), Rerun.DONE, reason="r", now=NOW)


def launch(**tags: str) -> str:
    """Launch an instance with tags and return its id."""
    client = boto3.client("ec2", region_name=REGION)
    answer = client.run_instances(
        ImageId="ami-12c6146b",
        MinCount=1,
        MaxCount=1,
        InstanceType="c7g.xlarge",
        TagSpecifications=[
            {
                "ResourceType": "instance",
                "Tags": [{"Key": Tag[name].value, "Value": value} for name, value in tags.items()],
            }
        ],
    )
    return str(answer["Instances"][0]["InstanceId"])


def test_own_instance_is_found_with_its_offering_and_ended() -> None:
    """Also after its end, as long as EC2 remembers it."""
    instances = Ec2Instances(boto3.client("ec2", region_name=REGION), fleet="dev")
    instance_id = launch(MANAGED=MANAGED_VALUE, FLEET="dev")
    found = instances.find(instance_id)
    assert found is not None
    assert (found.instance_type, found.capacity_type) == ("c7g.xlarge", "on-demand")
    assert found.availability_zone.startswith(REGION)
    assert found.state == "running"
    assert instances.terminate(instance_id)
    ended = instances.find(instance_id)
    assert ended is not None
    assert ended.state == "terminated"


def test_instances_of_others_are_not_found() -> None:
    """Another fleet's, somebody's without our tags, and one that EC2 does not know."""
    instances = Ec2Instances(boto3.client("ec2", region_name=REGION), fleet="dev")
    others = [
        launch(MANAGED=MANAGED_VALUE, FLEET="prod"),
        launch(FLEET="dev"),
        "i-0123456789abcdef0",
    ]
    assert [instances.find(instance_id) for instance_id in others] == [None, None, None]


@pytest.mark.parametrize("error", SILENCES)
def test_silent_ec2_is_unknown(error: Exception) -> None:
    """Not found and not asked are different answers."""
    instances = Ec2Instances(Silent(error), fleet="dev")
    with pytest.raises(InstanceUnknownError):
        instances.find("i-1")
    assert not instances.terminate("i-1")


def test_events_queue_takes_messages_with_a_delay() -> None:
    """A delay beyond SQS's longest is cut; a message that was not taken says so."""
    client: Any = boto3.client("sqs", region_name=REGION)
    url = client.create_queue(QueueName="events")["QueueUrl"]
    events = SqsEvents(client, url)
    assert events.send(RerunMessage(job_id=1))
    (received,) = client.receive_message(QueueUrl=url)["Messages"]
    assert RerunMessage.from_json(received["Body"]) == RerunMessage(job_id=1)
    events.defer(received["ReceiptHandle"], 0.2)
    assert events.send(RerunMessage(job_id=1), delay=5000.0)
    names = ["ApproximateNumberOfMessagesDelayed", "ApproximateNumberOfMessagesNotVisible"]
    counts = client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    assert counts == dict.fromkeys(names, "1")


@pytest.mark.parametrize("error", SILENCES)
def test_silent_queue_is_told_and_not_raised(error: Exception) -> None:
    """The caller decides; a deferral that failed only comes back at its usual time."""
    events = SqsEvents(Silent(error), "https://queue")
    assert not events.send(RerunMessage(job_id=1))
    events.defer("r-1", 60)
