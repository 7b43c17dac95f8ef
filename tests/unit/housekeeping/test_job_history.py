"""What the jobs table tells of where jobs came from and which await a re-run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from runsfleet_runtime.contract.tables import JobAttr, JobIndex
from runsfleet_runtime.housekeeping.job_history.dynamodb import DynamoDBJobHistory
from runsfleet_runtime.housekeeping.ports import SweepError

NOW = 1_800_000_000.0


@pytest.fixture
def client() -> Iterator[Any]:
    """An empty jobs table with its index of re-runs."""
    with mock_aws():
        made = boto3.client("dynamodb")
        made.create_table(
            TableName="jobs",
            KeySchema=[{"AttributeName": JobAttr.ID.value, "KeyType": "HASH"}],
            AttributeDefinitions=[
                {"AttributeName": JobAttr.ID.value, "AttributeType": "S"},
                {"AttributeName": JobAttr.RERUN.value, "AttributeType": "S"},
                {"AttributeName": JobAttr.UPDATED_AT.value, "AttributeType": "N"},
            ],
            GlobalSecondaryIndexes=[
                {
                    "IndexName": JobIndex.BY_RERUN.value,
                    "KeySchema": [
                        {"AttributeName": JobAttr.RERUN.value, "KeyType": "HASH"},
                        {"AttributeName": JobAttr.UPDATED_AT.value, "KeyType": "RANGE"},
                    ],
                    "Projection": {"ProjectionType": "KEYS_ONLY"},
                }
            ],
            BillingMode="PAY_PER_REQUEST",
        )
        yield made


def put(client: Any, number: int, *, age: float = 600.0, **attributes: str) -> None:
    """Write a record."""
    item = {
        JobAttr.ID.value: {"S": str(number)},
        JobAttr.UPDATED_AT.value: {"N": repr(NOW - age)},
        **{name: {"S": value} for name, value in attributes.items()},
    }
    client.put_item(TableName="jobs", Item=item)


class Paged:
    """A client whose every page holds one item, as large tables are paged."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def scan(self, **parameters: Any) -> Any:
        return self._client.scan(Limit=1, **parameters)

    def query(self, **parameters: Any) -> Any:
        return self._client.query(Limit=1, **parameters)


@pytest.mark.parametrize("is_paged", [False, True])
def test_repositories_of_the_last_days(client: Any, is_paged: bool) -> None:
    """All pages are read; older jobs and records without a repository tell nothing."""
    for number, repository in enumerate(["o/a", "o/b", "o/a", "nonsense"]):
        put(client, number, repository=repository)
    put(client, 8, age=9000.0, repository="o/old")
    put(client, 9)
    history = DynamoDBJobHistory(Paged(client) if is_paged else client, "jobs")
    assert history.repositories(since=NOW - 3600) == {"o/a", "o/b"}


@pytest.mark.parametrize("is_paged", [False, True])
def test_jobs_that_await_a_rerun(client: Any, is_paged: bool) -> None:
    """Pending and requested ones are found by the index, the oldest first."""
    put(client, 1, rerun="pending", age=500)
    put(client, 2, rerun="pending", age=700)
    put(client, 3, rerun="requested")
    put(client, 4, rerun="done")
    put(client, 5, rerun="given_up")
    put(client, 6, rerun="pending", age=10)
    put(client, 7)
    history = DynamoDBJobHistory(Paged(client) if is_paged else client, "jobs")
    pages = history.awaiting_reruns(updated_before=NOW - 300)
    assert [job_id for page in pages for job_id in page] == [2, 1, 3]


def test_table_that_does_not_answer() -> None:
    """A failed read is told, not taken for an empty table."""

    class Down:
        def scan(self, **parameters: Any) -> Any:
            raise ClientError({"Error": {"Code": "ThrottlingException"}}, "Scan")

        def query(self, **parameters: Any) -> Any:
            raise ClientError({"Error": {"Code": "ThrottlingException"}}, "Query")

    history = DynamoDBJobHistory(Down(), "jobs")
    with pytest.raises(SweepError):
        history.repositories(since=0)
    with pytest.raises(SweepError):
        list(history.awaiting_reruns(updated_before=0))
