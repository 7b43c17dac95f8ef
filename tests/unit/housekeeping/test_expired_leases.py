"""Rows of leases: those of tasks that exist stay, whatever their age."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from runsfleet_runtime.contract.tables import LeaseAttr
from runsfleet_runtime.housekeeping.expired_leases import ExpiredLeases
from runsfleet_runtime.housekeeping.leases.dynamodb import DynamoDBLeases
from runsfleet_runtime.housekeeping.model import SweepOutcome
from runsfleet_runtime.housekeeping.ports import LeaseRow, SweepError
from tests.unit.housekeeping.frame import NOW, Frame

DAY = 24 * 3600.0


@pytest.fixture
def client() -> Iterator[Any]:
    """An empty leases table."""
    with mock_aws():
        made = boto3.client("dynamodb")
        made.create_table(
            TableName="leases",
            KeySchema=[{"AttributeName": LeaseAttr.NAME.value, "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": LeaseAttr.NAME.value, "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        yield made


def use(leases: DynamoDBLeases, name: str, *, at: float) -> None:
    """Take a lease and give it back."""
    lease = leases.acquire(name, owner="a", ends_at=at + 300, now=at)
    assert lease is not None
    leases.release(lease, state={}, outcome=SweepOutcome.SUCCEEDED, now=at)


def names(leases: DynamoDBLeases) -> list[str]:
    """Return what has a row."""
    return sorted(row.name for page in leases.pages() for row in page)


def test_row_of_no_task_goes_after_a_day(client: Any) -> None:
    """A task that exists keeps what it remembers; anything used of late stays."""
    leases = DynamoDBLeases(client, "leases")
    use(leases, "sweep:old_jobs", at=NOW - 90 * DAY)
    use(leases, "sweep:forgotten", at=NOW - 2 * DAY)
    use(leases, "pool:default", at=NOW - 60)
    leases.acquire("pool:held", owner="a", ends_at=NOW + 60, now=NOW)
    Frame().run(ExpiredLeases(leases))
    assert names(leases) == ["pool:default", "pool:held", "sweep:old_jobs"]


def test_lease_that_was_taken_meanwhile_stays(client: Any) -> None:
    """Scenario 54: the deletion names the end that was read."""
    leases = DynamoDBLeases(client, "leases")
    leases.acquire("sweep:forgotten", owner="a", ends_at=NOW - 2 * DAY, now=NOW - 3 * DAY)
    (row,) = [row for page in leases.pages() for row in page]
    leases.acquire("sweep:forgotten", owner="b", ends_at=NOW + 60, now=NOW)
    assert not leases.delete(row)
    assert names(leases) == ["sweep:forgotten"]


def test_table_that_does_not_answer_fails_the_run(client: Any) -> None:
    """It is not an empty table."""
    client.delete_table(TableName="leases")
    leases = DynamoDBLeases(client, "leases")
    with pytest.raises(SweepError):
        Frame().run(ExpiredLeases(leases))
    with pytest.raises(SweepError):
        leases.delete(LeaseRow(name="sweep:forgotten", ends_at=0.0, ran_at=0.0))
