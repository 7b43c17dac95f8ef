"""The adapters against AWS in memory; what it accepts and AWS refuses is asserted as a request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from botocore.session import get_session
from moto import mock_aws

from runsfleet_runtime.contract.messages import ReportStatus, RunnerReport
from runsfleet_runtime.contract.tables import JobAttr, JobIndex
from runsfleet_runtime.contract.tags import MANAGED_VALUE, Tag
from runsfleet_runtime.housekeeping.dynamodb import DynamoDBOpenJobs
from runsfleet_runtime.housekeeping.ec2 import Ec2FleetInstances, Ec2Interfaces, Ec2Volumes
from runsfleet_runtime.housekeeping.ports import SweepError
from runsfleet_runtime.housekeeping.s3 import S3Bucket
from runsfleet_runtime.housekeeping.sqs import SqsDepartures, SqsReports
from runsfleet_runtime.interruptions.model import InstanceLeft, read_event
from runsfleet_runtime.jobs.model import JobStatus
from tests.unit.housekeeping.frame import NOW

REGION = "eu-central-1"


class Ec2Client:
    """An EC2 in memory whose requests are recorded."""

    def __init__(self) -> None:
        client: Any = get_session().create_client("ec2", region_name=REGION)
        self.client = client
        self.client.meta.events.register("provide-client-params.ec2.*", self._record)
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.image = self.client.describe_images()["Images"][0]["ImageId"]
        self.subnet = self.client.describe_subnets()["Subnets"][0]["SubnetId"]

    def _record(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        self.calls.append((model.name, params))

    def tags(self, fleet: str, more: Any = MappingProxyType({})) -> list[dict[str, str]]:
        named = {Tag.MANAGED.value: MANAGED_VALUE, Tag.FLEET.value: fleet, **more}
        return [{"Key": key, "Value": value} for key, value in named.items()]

    def launch(
        self, fleet: str = "dev", *, count: int = 1, more: Any = MappingProxyType({})
    ) -> list[str]:
        answer = self.client.run_instances(
            ImageId=self.image,
            InstanceType="t4g.medium",
            MinCount=count,
            MaxCount=count,
            TagSpecifications=[{"ResourceType": "instance", "Tags": self.tags(fleet, more)}],
        )
        return [i["InstanceId"] for i in answer["Instances"]]


@pytest.fixture
def ec2() -> Iterator[Ec2Client]:
    """An EC2 without instances."""
    with mock_aws():
        yield Ec2Client()


def test_instances_of_this_fleet_that_are_not_ended(ec2: Ec2Client) -> None:
    """Running and stopped ones with their pool and marks; another fleet's and ended ones not."""
    running, stopped, ended = ec2.launch(count=3, more={Tag.POOL.value: "default"})
    ec2.launch("prod")
    ec2.client.stop_instances(InstanceIds=[stopped])
    ec2.client.terminate_instances(InstanceIds=[ended])
    found = {i.key: i for page in Ec2FleetInstances(ec2.client, fleet="dev").pages() for i in page}
    assert {key: i.state for key, i in found.items()} == {running: "running", stopped: "stopped"}
    assert found[running].pool == "default"
    assert found[running].since > 0
    assert not found[running].is_kept
    assert not found[running].condemned_at


@pytest.mark.parametrize("adapter", [Ec2FleetInstances, Ec2Volumes, Ec2Interfaces])
def test_every_page_is_read_when_it_is_its_turn(adapter: type[Ec2FleetInstances]) -> None:
    """The token of each answer leads to the next; each request has a filter and a size."""
    requests: list[dict[str, Any]] = []

    class Paged:
        def __getattr__(self, name: str) -> Any:
            def call(**parameters: Any) -> dict[str, Any]:
                requests.append(parameters)
                return {"NextToken": f"t{len(requests)}"} if len(requests) < 3 else {}

            return call

    pages = adapter(Paged(), fleet="dev").pages()
    next(iter(pages))
    assert len(requests) == 1
    assert list(pages) == [[], []]
    assert [r.get("NextToken") for r in requests] == [None, "t1", "t2"]
    assert all(r["Filters"] and r["MaxResults"] >= 500 for r in requests)


def test_mark_and_keep_tag_are_seen(ec2: Ec2Client) -> None:
    """A mark is written, read and taken away; one that cannot be read is none."""
    (key,) = ec2.launch(more={Tag.KEEP.value: ""})
    adapter = Ec2FleetInstances(ec2.client, fleet="dev")
    adapter.mark(key, at=NOW + 0.7)
    found = adapter.find(key)
    assert found is not None
    assert (found.condemned_at, found.is_kept) == (NOW, True)
    adapter.unmark(key)
    ec2.client.create_tags(
        Resources=[key], Tags=[{"Key": Tag.CONDEMNED.value, "Value": "yesterday"}]
    )
    found = adapter.find(key)
    assert found is not None
    assert found.condemned_at == 0


def test_one_instance_is_never_taken_for_another(ec2: Ec2Client) -> None:
    """What comes back under another id, as from an emulator that knows no such filter, is none."""
    ec2.launch()
    (ended,) = ec2.launch()
    ec2.client.terminate_instances(InstanceIds=[ended])

    class Careless:
        def describe_instances(self, *, Filters: list[Any]) -> Any:  # noqa: N803  botocore's name
            known = [f for f in Filters if f["Name"] != "instance-id"]
            return ec2.client.describe_instances(Filters=known)

    assert Ec2FleetInstances(Careless(), fleet="dev").find(ended) is None


def test_instance_is_terminated_and_then_not_found(ec2: Ec2Client) -> None:
    """One that has ended, that EC2 forgot, or that is another fleet's is none."""
    (key,) = ec2.launch()
    (other,) = ec2.launch("prod")
    adapter = Ec2FleetInstances(ec2.client, fleet="dev")
    adapter.end(key)
    assert adapter.find(key) is None
    assert adapter.find(other) is None
    adapter.end("i-0123456789abcdef0")  # EC2 forgot it
    (call,) = [p for n, p in ec2.calls if n == "TerminateInstances" and key in p["InstanceIds"]]
    assert call == {"InstanceIds": [key]}


def test_unused_volumes_of_this_fleet(ec2: Ec2Client) -> None:
    """Only available ones with our tags; a deleted one is gone."""

    def create(fleet: str) -> str:
        answer = ec2.client.create_volume(
            AvailabilityZone=f"{REGION}a",
            Size=1,
            TagSpecifications=[{"ResourceType": "volume", "Tags": ec2.tags(fleet)}],
        )
        return str(answer["VolumeId"])

    ours, attached, _ = create("dev"), create("dev"), create("prod")
    (instance,) = ec2.launch()
    ec2.client.attach_volume(VolumeId=attached, InstanceId=instance, Device="/dev/sdf")
    adapter = Ec2Volumes(ec2.client, fleet="dev")
    (found,) = [v for page in adapter.pages() for v in page]
    assert found.key == ours
    assert adapter.find(attached) is None
    adapter.mark(ours, at=NOW)
    marked = adapter.find(ours)
    assert marked is not None
    assert marked.condemned_at == NOW
    adapter.end(ours)
    assert adapter.find(ours) is None
    adapter.end(ours)
    with pytest.raises(SweepError, match="VolumeInUse"):
        adapter.end(attached)


def test_unused_interfaces_of_this_fleet(ec2: Ec2Client) -> None:
    """Only available ones with our tags; a deleted one is gone."""
    ids = {
        fleet: ec2.client.create_network_interface(
            SubnetId=ec2.subnet,
            TagSpecifications=[{"ResourceType": "network-interface", "Tags": ec2.tags(fleet)}],
        )["NetworkInterface"]["NetworkInterfaceId"]
        for fleet in ("dev", "prod")
    }
    adapter = Ec2Interfaces(ec2.client, fleet="dev")
    (found,) = [i for page in adapter.pages() for i in page]
    assert (found.key, found.since) == (ids["dev"], 0)
    adapter.end(ids["dev"])
    assert adapter.find(ids["dev"]) is None
    adapter.end(ids["dev"])


@pytest.mark.parametrize(
    "fault",
    [
        ClientError({"Error": {"Code": "RequestLimitExceeded"}}, "DescribeInstances"),
        ReadTimeoutError(endpoint_url="https://ec2"),
    ],
)
def test_ec2_that_does_not_answer_raises(fault: Exception) -> None:
    """No answer is no empty list and no missing instance."""

    class Down:
        def __getattr__(self, name: str) -> Any:
            def call(**_: Any) -> None:
                raise fault

            return call

    for adapter in (Ec2FleetInstances, Ec2Volumes, Ec2Interfaces):
        made = adapter(Down(), fleet="dev")
        with pytest.raises(SweepError):
            list(made.pages())
        with pytest.raises(SweepError):
            made.find("i-1")
        with pytest.raises(SweepError):
            made.end("i-1")
        with pytest.raises(SweepError):
            made.mark("i-1", at=NOW)


@pytest.fixture
def dynamodb() -> Iterator[Any]:
    """A jobs table with its index."""
    with mock_aws():
        client: Any = boto3.client("dynamodb")
        client.create_table(
            TableName="jobs",
            KeySchema=[{"AttributeName": "job_id", "KeyType": "HASH"}],
            AttributeDefinitions=[
                {"AttributeName": "job_id", "AttributeType": "S"},
                {"AttributeName": "status", "AttributeType": "S"},
                {"AttributeName": "updated_at", "AttributeType": "N"},
            ],
            GlobalSecondaryIndexes=[
                {
                    "IndexName": JobIndex.BY_STATUS.value,
                    "KeySchema": [
                        {"AttributeName": "status", "KeyType": "HASH"},
                        {"AttributeName": "updated_at", "KeyType": "RANGE"},
                    ],
                    "Projection": {"ProjectionType": "KEYS_ONLY"},
                }
            ],
            BillingMode="PAY_PER_REQUEST",
        )
        yield client


def put_job(client: Any, number: int, status: str) -> None:
    """Write a record."""
    item = {
        JobAttr.ID: {"S": str(number)},
        JobAttr.STATUS: {"S": status},
        JobAttr.INSTANCE_ID: {"S": f"i-{number}"},
        JobAttr.UPDATED_AT: {"N": repr(NOW + number)},
    }
    client.put_item(TableName="jobs", Item={k.value: v for k, v in item.items()})


class Lossy:
    """A DynamoDB client that leaves a part of each batch unread, as often as it is told."""

    def __init__(self, client: Any, times: int) -> None:
        self._client = client
        self.times = times
        self.batches: list[int] = []

    def query(self, **parameters: Any) -> Any:
        return self._client.query(**parameters)

    def batch_get_item(self, *, RequestItems: dict[str, Any]) -> Any:  # noqa: N803  botocore's name
        keys = RequestItems["jobs"]["Keys"]
        assert RequestItems["jobs"]["ConsistentRead"]
        self.batches.append(len(keys))
        if self.times <= 0:
            return self._client.batch_get_item(RequestItems=RequestItems)
        self.times -= 1
        part = {"jobs": {**RequestItems["jobs"], "Keys": keys[:-1]}}
        answer = self._client.batch_get_item(RequestItems=part) if keys[:-1] else {}
        return answer | {"UnprocessedKeys": {"jobs": {**RequestItems["jobs"], "Keys": keys[-1:]}}}


def test_open_jobs_are_read_in_batches(dynamodb: Any) -> None:
    """Launched and running ones, a hundred a call; what a batch left unread is asked for again."""
    for number in range(150):
        put_job(dynamodb, number, JobStatus.RUNNING)
    put_job(dynamodb, 200, JobStatus.LAUNCHED)
    put_job(dynamodb, 201, JobStatus.COMPLETED)
    client = Lossy(dynamodb, times=1)
    pauses: list[float] = []
    table = DynamoDBOpenJobs(client, "jobs", pause=pauses.append)
    jobs = [job for page in table.open_jobs() for job in page]
    assert len(pauses) == 1
    assert {job.job_id for job in jobs} == {*range(150), 200}
    assert {job.instance_id for job in jobs if job.job_id == 7} == {"i-7"}
    assert client.batches == [1, 1, 100, 50]
    assert "i-200" in DynamoDBOpenJobs(dynamodb, "jobs").instances_of_open_jobs()


def test_job_that_left_its_status_is_left_out(dynamodb: Any) -> None:
    """The index lags behind: what the table itself says counts."""

    class Lagging(Lossy):
        def query(self, **parameters: Any) -> Any:
            answer = super().query(**parameters)
            for item in answer["Items"]:
                put_job(dynamodb, int(item["job_id"]["S"]), JobStatus.COMPLETED)
            return answer

    put_job(dynamodb, 1, JobStatus.RUNNING)
    assert list(DynamoDBOpenJobs(Lagging(dynamodb, 0), "jobs").open_jobs()) == [[]]


def test_records_that_stay_unread_fail(dynamodb: Any) -> None:
    """A throttled table is not one without these jobs."""
    put_job(dynamodb, 1, JobStatus.RUNNING)
    pauses: list[float] = []
    table = DynamoDBOpenJobs(Lossy(dynamodb, times=99), "jobs", pause=pauses.append)
    with pytest.raises(SweepError, match="1 records were not read"):
        list(table.open_jobs())
    assert pauses == [0.1, 0.2, 0.4, 0.8]


def test_bucket_lists_reads_writes_and_deletes() -> None:
    """More than a page of keys; what is gone is None; what does not answer raises."""
    with mock_aws():
        client: Any = boto3.client("s3")
        client.create_bucket(
            Bucket="cache", CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        bucket = S3Bucket(client, "cache")
        for number in range(1001):
            bucket.write(f"reports/{number}", "ä")
        bucket.write("jobs/x", "{}\n")
        pages = [[o.key for o in page] for page in bucket.pages("reports/")]
        assert [len(page) for page in pages] == [1000, 1]
        assert bucket.read("reports/1") == "ä"
        bucket.delete("reports/1")
        assert bucket.read("reports/1") is None
        with pytest.raises(SweepError):
            list(S3Bucket(client, "missing").pages("reports/"))
        with pytest.raises(SweepError):
            S3Bucket(client, "missing").write("k", "c")


def test_departure_reads_as_the_event_of_ec2() -> None:
    """The events function takes it for what EC2 itself would have told."""
    with mock_aws():
        client: Any = boto3.client("sqs")
        url = client.create_queue(QueueName="events")["QueueUrl"]
        SqsDepartures(client, url).tell("i-1", at=NOW)
        (message,) = client.receive_message(QueueUrl=url)["Messages"]
        assert read_event(message["Body"]) == InstanceLeft(
            instance_id="i-1", at=NOW, state="terminated"
        )
        assert json.loads(message["Body"])["source"] == "runs-fleet.housekeeping"
        with pytest.raises(SweepError):
            SqsDepartures(client, url + "-missing").tell("i-1", at=NOW)


def test_report_is_sent_as_the_agent_sends_it() -> None:
    """Its text is the report's, or the error is raised."""
    report = RunnerReport(instance_id="i-1", job_id=5, status=ReportStatus.SUCCESS)
    with mock_aws():
        client: Any = boto3.client("sqs")
        url = client.create_queue(QueueName="termination")["QueueUrl"]
        SqsReports(client, url).send(report)
        (message,) = client.receive_message(QueueUrl=url)["Messages"]
        assert RunnerReport.from_json(message["Body"]) == report
        with pytest.raises(SweepError):
            SqsReports(client, url + "-missing").send(report)
