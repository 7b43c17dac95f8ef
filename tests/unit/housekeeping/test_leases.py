"""The leases table: one holder at a time, and a row that remembers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from runsfleet_runtime.contract.tables import LeaseAttr
from runsfleet_runtime.housekeeping.leases.dynamodb import DynamoDBLeases
from runsfleet_runtime.housekeeping.model import SweepOutcome
from runsfleet_runtime.housekeeping.ports import SweepError

NOW = 1_800_000_000.0
NAME = "sweep:old_jobs"


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


def test_one_holder_at_a_time(client: Any) -> None:
    """A held lease is refused; one that was given back or has ended is taken over."""
    leases = DynamoDBLeases(client, "leases")
    first = leases.acquire(NAME, owner="a", ends_at=NOW + 300, now=NOW)
    assert first is not None
    assert leases.acquire(NAME, owner="b", ends_at=NOW + 301, now=NOW + 1) is None
    assert leases.acquire("sweep:slots", owner="b", ends_at=NOW + 301, now=NOW + 1) is not None
    assert leases.acquire(NAME, owner="b", ends_at=NOW + 999, now=NOW + 301) is not None
    assert not leases.release(first, state={}, outcome=SweepOutcome.SUCCEEDED, now=NOW + 302)


def test_lost_answer_of_the_holder_is_no_other_holder(client: Any) -> None:
    """The same run that asks again, as botocore does by itself, still has its lease."""
    leases = DynamoDBLeases(client, "leases")
    leases.acquire(NAME, owner="a", ends_at=NOW + 300, now=NOW)
    assert leases.acquire(NAME, owner="a", ends_at=NOW + 300, now=NOW) is not None


def test_row_remembers(client: Any) -> None:
    """State, time and outcome of a run are in the row, and the next holder gets the state."""
    leases = DynamoDBLeases(client, "leases")
    lease = leases.acquire(NAME, owner="a", ends_at=NOW + 300, now=NOW)
    assert lease is not None
    assert lease.state == {}
    state = {"cursor": ["x", 1]}
    assert leases.release(lease, state=state, outcome=SweepOutcome.FAILED, now=NOW + 9)
    row = client.get_item(TableName="leases", Key={"name": {"S": NAME}})["Item"]
    assert row[LeaseAttr.OUTCOME.value] == {"S": "failed"}
    assert float(row[LeaseAttr.RAN_AT.value]["N"]) == NOW + 9
    again = leases.acquire(NAME, owner="b", ends_at=NOW + 400, now=NOW + 10)
    assert again is not None
    assert again.state == state


def test_no_answer_is_no_lease() -> None:
    """A table that does not answer raises: whether the lease is held is not known."""

    class Down:
        def update_item(self, **_: Any) -> None:
            raise ClientError({"Error": {"Code": "ThrottlingException"}}, "UpdateItem")

    with pytest.raises(SweepError, match="sweep:old_jobs"):
        DynamoDBLeases(Down(), "leases").acquire(NAME, owner="a", ends_at=NOW + 1, now=NOW)
