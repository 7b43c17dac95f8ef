"""The audit of slots: a difference is told at once, and put right only when it is certain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
from moto import mock_aws

from runsfleet_runtime.contract.tables import JobAttr, JobIndex, SlotAttr
from runsfleet_runtime.housekeeping.dynamodb import DynamoDBSlots
from runsfleet_runtime.housekeeping.model import TaskReport
from runsfleet_runtime.housekeeping.ports import SweepError
from runsfleet_runtime.housekeeping.slots import Slots
from runsfleet_runtime.jobs.model import JobStatus
from tests.unit.housekeeping.frame import NOW, Frame


@dataclass
class World:
    """The tables of jobs and of slots."""

    client: Any
    frame: Frame = field(default_factory=Frame)

    def put(self, number: int, status: JobStatus, *, slot: bool = True) -> None:
        item = {
            JobAttr.ID: {"S": str(number)},
            JobAttr.STATUS: {"S": status.value},
            JobAttr.REPOSITORY: {"S": "acme/web" if number % 2 else "acme/api"},
            JobAttr.UPDATED_AT: {"N": repr(NOW)},
        } | ({JobAttr.SLOT: {"N": "1"}} if slot else {})
        self.client.put_item(TableName="jobs", Item={k.value: v for k, v in item.items()})

    def count(self, **used: int) -> None:
        for name, number in used.items():
            scope = name.replace("__", "/").replace("_", ":", 1)
            self.client.put_item(
                TableName="slots",
                Item={SlotAttr.SCOPE.value: {"S": scope}, SlotAttr.USED.value: {"N": str(number)}},
            )

    def sweep(self, *, is_capped: bool = True) -> TaskReport:
        slots = DynamoDBSlots(self.client, jobs_table="jobs", slots_table="slots")
        return self.frame.run(Slots(slots, is_capped=is_capped))

    def used(self) -> dict[str, int]:
        items = self.client.scan(TableName="slots")["Items"]
        return {item["scope"]["S"]: int(item["used"]["N"]) for item in items}


@pytest.fixture
def world() -> Iterator[World]:
    """Three jobs with a slot, of two repositories, and counters that are right."""
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
        client.create_table(
            TableName="slots",
            KeySchema=[{"AttributeName": "scope", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "scope", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        made = World(client)
        made.put(1, JobStatus.RUNNING)
        made.put(2, JobStatus.LAUNCHED)
        made.put(3, JobStatus.CLAIMED)
        made.put(4, JobStatus.RUNNING, slot=False)  # launched before there was a cap
        made.put(5, JobStatus.COMPLETED, slot=False)
        made.count(fleet=3, owner_acme=3, repository_acme__web=2, repository_acme__api=1)
        yield made


def test_counters_that_are_right_stay(world: World) -> None:
    """Each scope is the number of records that say that they count."""
    assert world.sweep().verdicts == {"spared: right": 4}


def test_difference_is_put_right_when_it_was_seen_twice(world: World) -> None:
    """The first run only tells; the second, which sees the same two numbers, repairs."""
    world.count(fleet=7)
    first = world.sweep()
    assert first.verdicts["spared: differs, to be seen once more"] == 1
    assert world.used()["fleet"] == 7
    assert world.sweep().acted == 1
    assert world.used()["fleet"] == 3
    assert world.sweep().verdicts == {"spared: right": 4}


def test_difference_that_changes_is_no_fault(world: World) -> None:
    """While jobs come and go a count is never exact: another difference begins anew."""
    world.count(fleet=7)
    world.sweep()
    world.count(fleet=6)
    assert world.sweep().acted == 0
    assert world.sweep().acted == 1


def test_counter_that_is_missing_or_too_low_is_put_right(world: World) -> None:
    """Drift is repaired both ways, and a scope without a counter gets one."""
    world.client.delete_item(TableName="slots", Key={"scope": {"S": "owner:acme"}})
    world.count(fleet=1)
    world.sweep()
    world.sweep()
    assert world.used()["fleet"] == world.used()["owner:acme"] == 3


def test_counter_that_moved_is_not_written_over(world: World) -> None:
    """The write names the counter that was seen."""
    slots = DynamoDBSlots(world.client, jobs_table="jobs", slots_table="slots")
    assert not slots.repair("fleet", seen=2, right=9)
    assert world.used()["fleet"] == 3


def test_nothing_is_counted_without_caps(world: World) -> None:
    """No cap, no counters, no cost."""
    world.count(fleet=7)
    assert world.sweep(is_capped=False).selected == 0
    assert world.sweep(is_capped=False).selected == 0


def test_table_that_does_not_answer_repairs_nothing(world: World) -> None:
    """A count that could not be read is not nought."""
    world.client.delete_table(TableName="jobs")
    for _ in range(2):
        with pytest.raises(SweepError):
            world.sweep()
    assert world.used()["fleet"] == 3
