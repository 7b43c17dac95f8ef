"""Old jobs: archived, then deleted; never the other way round, and never one that lives again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import boto3
import pytest
from moto import mock_aws

from runsfleet_runtime.contract.tables import JobAttr, JobIndex
from runsfleet_runtime.housekeeping.dynamodb import DynamoDBOldJobs
from runsfleet_runtime.housekeeping.model import TaskReport
from runsfleet_runtime.housekeeping.old_jobs import OldJobs, Record
from runsfleet_runtime.housekeeping.ports import SweepError
from runsfleet_runtime.housekeeping.s3 import S3Bucket
from tests.unit.housekeeping.frame import NOW, Frame

WEEK = 7 * 24 * 3600.0


@dataclass
class World:
    """The jobs table and the bucket in memory, behind the real adapters."""

    dynamodb: Any
    s3: Any
    frame: Frame = field(default_factory=Frame)
    batches: int = 0
    is_bucket_down: bool = False
    on_write: Callable[[], object] = lambda: None

    def write(self, key: str, content: str) -> None:
        self.on_write()
        if self.is_bucket_down:
            raise SweepError("SlowDown")
        S3Bucket(self.s3, "cache").write(key, content)

    def new_id(self) -> str:
        self.batches += 1
        return f"b{self.batches}"

    def put(self, job_id: int, status: str = "completed", more: Any = MappingProxyType({})) -> None:
        item = {
            JobAttr.ID: {"S": str(job_id)},
            JobAttr.STATUS: {"S": status},
            JobAttr.UPDATED_AT: {"N": repr(NOW - WEEK - 10 + job_id / 1000)},
            JobAttr.LABELS: {"L": [{"S": "l"}]},
            JobAttr.RUN_ID: {"N": "7"},
            **more,
        }
        self.dynamodb.put_item(TableName="jobs", Item={str(k): v for k, v in item.items()})

    def left(self) -> set[int]:
        items = self.dynamodb.scan(TableName="jobs")["Items"]
        return {int(item[JobAttr.ID]["S"]) for item in items}

    def archived(self) -> list[dict[str, Any]]:
        found = self.s3.list_objects_v2(Bucket="cache", Prefix="jobs/").get("Contents", [])
        return [
            json.loads(line)
            for entry in found
            for line in self.s3.get_object(Bucket="cache", Key=entry["Key"])["Body"]
            .read()
            .splitlines()
        ]

    def sweep(self, table: DynamoDBOldJobs | None = None) -> TaskReport:
        return self.frame.run(
            OldJobs(
                jobs=table or DynamoDBOldJobs(self.dynamodb, "jobs"),
                bucket=self,
                retention=WEEK,
                clock=self.frame.clock,
                new_id=self.new_id,
            )
        )


@pytest.fixture
def world() -> Iterator[World]:
    """An empty table with its index, and an empty bucket."""
    with mock_aws():
        dynamodb: Any = boto3.client("dynamodb")
        dynamodb.create_table(
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
        s3: Any = boto3.client("s3")
        s3.create_bucket(
            Bucket="cache", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )
        yield World(dynamodb, s3)


def test_closed_jobs_past_their_retention_are_archived_and_deleted(world: World) -> None:
    """Each line of the archive is a whole record; what is young or open stays."""
    world.put(1)
    world.put(2, "expired")
    world.put(3, more={JobAttr.UPDATED_AT: {"N": repr(NOW - WEEK + 60)}})
    world.put(4, "running")
    world.sweep()
    assert world.left() == {3, 4}
    assert {line["job_id"] for line in world.archived()} == {"1", "2"}
    assert world.archived()[0] == {
        "job_id": "1",
        "status": "completed",
        "updated_at": NOW - WEEK - 10 + 0.001,
        "labels": ["l"],
        "run_id": 7,
    }
    (first, _) = world.s3.list_objects_v2(Bucket="cache", Prefix="jobs/")["Contents"]
    assert first["Key"] == "jobs/2027/01/15/b1.jsonl"


def test_nothing_is_deleted_before_it_is_archived(world: World) -> None:
    """A bucket that does not take the archive keeps the records where they are."""
    world.put(1)
    world.is_bucket_down = True
    assert world.sweep().failures == 1
    assert world.left() == {1}


def test_crash_between_archive_and_deletion_loses_nothing(world: World) -> None:
    """The next run archives once more: twice in the archive at worst."""

    class Crashing(DynamoDBOldJobs):
        def delete(self, records: Sequence[Record]) -> int:
            raise SweepError("the process died")

    world.put(1)
    world.sweep(Crashing(world.dynamodb, "jobs"))
    assert world.left() == {1}
    world.sweep()
    assert world.left() == set()
    assert [line["job_id"] for line in world.archived()] == ["1", "1"]


def test_job_that_lives_again_stays(world: World) -> None:
    """A write between the archive and the deletion keeps that record, and no other."""
    world.put(1)
    world.put(2)
    world.on_write = lambda: world.put(1, "claimed", {JobAttr.UPDATED_AT: {"N": repr(NOW)}})
    world.sweep()
    assert world.left() == {1}


def test_awaited_rerun_keeps_its_record(world: World) -> None:
    """The record of an interrupted job is needed until its re-run is settled."""
    world.put(1, more={JobAttr.RERUN: {"S": "pending"}})
    world.put(2, more={JobAttr.RERUN: {"S": "done"}})
    world.sweep()
    assert world.left() == {1}


def test_records_of_old_forms_go_too(world: World) -> None:
    """Scenario 47: what lacks attributes, or has some that nobody knows, is retired as well."""
    world.put(1, more={"old": {"M": {"a": {"BOOL": True}, "b": {"N": "1.5"}}}})
    world.dynamodb.update_item(
        TableName="jobs",
        Key={"job_id": {"S": "1"}},
        UpdateExpression="REMOVE #labels",
        ExpressionAttributeNames={"#labels": "labels"},
    )
    world.sweep()
    assert world.left() == set()
    assert world.archived()[0]["old"] == {"a": True, "b": 1.5}


def test_more_than_a_page_is_taken_in_batches(world: World) -> None:
    """Scenario 54: every page of the index is read, and each batch is one object."""
    for number in range(1, 251):
        world.put(number)
    report = world.sweep()
    assert report.acted == 3
    assert world.left() == set()
    assert len(world.archived()) == 250


def test_table_that_does_not_answer_fails_the_run(world: World) -> None:
    """An index that is missing is no empty index (scenario 48)."""
    world.dynamodb.delete_table(TableName="jobs")
    with pytest.raises(SweepError):
        world.sweep()
