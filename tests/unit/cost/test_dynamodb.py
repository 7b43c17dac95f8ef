"""What ran, read from tables as the constructs make them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import boto3
import pytest
from moto import mock_aws

from runsfleet_runtime.contract.tables import InstanceAttr, InstanceIndex, JobAttr, JobIndex
from runsfleet_runtime.cost.dynamodb import DynamoDBLedger
from runsfleet_runtime.cost.model import Day, JobUse
from runsfleet_runtime.cost.ports import LedgerUnavailableError
from runsfleet_runtime.jobs.items import to_attribute

DAY = Day.of(date(2026, 11, 20), "Europe/Berlin")
HOUR = 3600.0


class Tables:
    """Both tables with their indexes."""

    def __init__(self) -> None:
        self.client = boto3.client("dynamodb", region_name="us-east-1")
        self._table(
            "instances",
            InstanceAttr.ID,
            InstanceIndex.BY_DAY,
            {InstanceAttr.LAUNCHED_ON: "S", InstanceAttr.LAUNCHED_AT: "N"},
            "ALL",
        )
        self._table(
            "jobs",
            JobAttr.ID,
            JobIndex.BY_STATUS,
            {JobAttr.STATUS: "S", JobAttr.UPDATED_AT: "N"},
            "KEYS_ONLY",
        )
        self.ledger = DynamoDBLedger(
            self.client,
            instances_table="instances",
            jobs_table="jobs",
            lifetime_seconds=8 * HOUR,
        )

    def _table(
        self, name: str, key: str, index: str, index_keys: dict[Any, str], projection: Any
    ) -> None:
        kinds: Any = {key: "S", **index_keys}
        parts: Any = zip(index_keys, ("HASH", "RANGE"), strict=True)
        self.client.create_table(
            TableName=name,
            KeySchema=[{"AttributeName": str(key), "KeyType": "HASH"}],
            AttributeDefinitions=[
                {"AttributeName": str(n), "AttributeType": k} for n, k in kinds.items()
            ],
            GlobalSecondaryIndexes=[
                {
                    "IndexName": str(index),
                    "KeySchema": [{"AttributeName": str(n), "KeyType": k} for n, k in parts],
                    "Projection": {"ProjectionType": projection},
                }
            ],
            BillingMode="PAY_PER_REQUEST",
        )

    def ran(self, number: int, launched: float, ended: float | None, **more: Any) -> None:
        """Record an instance."""
        values: dict[str, Any] = {
            InstanceAttr.ID: f"i-{number}",
            InstanceAttr.TYPE: "c7g.xlarge",
            InstanceAttr.ZONE: "us-east-1a",
            InstanceAttr.CAPACITY_TYPE: "spot",
            InstanceAttr.PLATFORM: "linux-arm64",
            InstanceAttr.REPOSITORY: "acme/web",
            InstanceAttr.DISK_GIB: 50,
            InstanceAttr.LAUNCHED_AT: launched,
            InstanceAttr.LAUNCHED_ON: datetime.fromtimestamp(launched, UTC).date().isoformat(),
            InstanceAttr.ENDED_AT: ended,
            **more,
        }
        item = {str(k): to_attribute(v) for k, v in values.items() if v is not None}
        self.client.put_item(TableName="instances", Item=item)

    def job(self, number: int, started: float, completed: float, **more: Any) -> None:
        """Record a closed job."""
        values: dict[str, Any] = {
            JobAttr.ID: str(number),
            JobAttr.STATUS: "completed",
            JobAttr.UPDATED_AT: completed,
            JobAttr.STARTED_AT: started,
            JobAttr.COMPLETED_AT: completed,
            JobAttr.INSTANCE_ID: f"i-{number}",
            JobAttr.REPOSITORY: "acme/web",
            **more,
        }
        item = {str(k): to_attribute(v) for k, v in values.items() if v is not None}
        self.client.put_item(TableName="jobs", Item=item)


@pytest.fixture
def tables() -> Iterator[Tables]:
    """Return empty tables."""
    with mock_aws():
        yield Tables()


def test_a_day_of_berlin_spans_two_of_utc_and_what_ran_into_it(tables: Tables) -> None:
    """Launched the evening before, in the day, and still running."""
    tables.ran(1, DAY.start - 7 * HOUR, DAY.start + HOUR)
    tables.ran(2, DAY.start + HOUR, DAY.start + 2 * HOUR, private=1, platform="windows-x64")
    tables.ran(3, DAY.end - HOUR, None)
    tables.ran(4, DAY.start - 60 * HOUR, DAY.start - 59 * HOUR)
    found = {use.instance_id: use for use in tables.ledger.instances(DAY)}
    assert set(found) == {"i-1", "i-2", "i-3"}
    assert (found["i-2"].is_windows, found["i-2"].has_public_ipv4) == (True, False)
    assert (found["i-3"].ended_at, found["i-3"].disk_gib) == (None, 50)


def test_more_than_a_page_of_instances_is_found(tables: Tables) -> None:
    """Every page is read, and every batch of records."""
    for number in range(250):
        tables.ran(number, DAY.start + number, DAY.start + number + 60, workflow_name="x" * 5000)
        tables.job(number, DAY.start + number, DAY.start + number + 30)
    instances = list(tables.ledger.instances(DAY))
    assert len(instances) == 250
    assert len(list(tables.ledger.jobs(DAY, instances))) == 250


def test_jobs_that_ended_within_the_day_with_their_machine(tables: Tables) -> None:
    """Others' days, jobs that never started, and instances that are not known are left out."""
    for number in (1, 2, 3):
        tables.ran(number, DAY.start, DAY.start + HOUR)
    tables.job(1, DAY.start + 60, DAY.start + 160)
    tables.job(2, DAY.end, DAY.end + 10)
    tables.job(3, 0, DAY.start + 60)
    tables.job(9, DAY.start, DAY.start + 60)
    instances = list(tables.ledger.instances(DAY))
    assert list(tables.ledger.jobs(DAY, instances)) == [
        JobUse(
            job_id=1, repository="acme/web", vcpus=4, arch="arm64", is_windows=False, seconds=100
        )
    ]


def test_a_table_that_does_not_answer_ends_the_report(tables: Tables) -> None:
    """Half of what ran is no report."""
    broken = DynamoDBLedger(
        tables.client, instances_table="absent", jobs_table="absent", lifetime_seconds=1
    )
    with pytest.raises(LedgerUnavailableError, match="by-day"):
        list(broken.instances(DAY))
    with pytest.raises(LedgerUnavailableError, match="by-status"):
        list(broken.jobs(DAY, []))
