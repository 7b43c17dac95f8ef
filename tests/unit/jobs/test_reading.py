"""Reading records: by an index, and then consistently."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ReadTimeoutError
from moto import mock_aws

from runsfleet_runtime.contract.messages import JobMessage
from runsfleet_runtime.contract.tables import JobAttr, JobIndex
from runsfleet_runtime.jobs.items import to_attribute
from runsfleet_runtime.jobs.model import JobRecord, JobStatus, Rerun
from runsfleet_runtime.jobs.ports import RecordUnknownError
from runsfleet_runtime.jobs.reading.dynamodb import DynamoDBJobReader

NOW = 1_800_000_000.0
INDEXES = {
    JobIndex.BY_STATUS: (JobAttr.STATUS, JobAttr.UPDATED_AT),
    JobIndex.BY_INSTANCE: (JobAttr.INSTANCE_ID,),
    JobIndex.BY_RUN: (JobAttr.RUN_ID,),
}
NUMBERS = {JobAttr.UPDATED_AT, JobAttr.RUN_ID}


class Table:
    """An emulated table with its indexes; a query may lag behind or fail."""

    def __init__(self) -> None:
        self.client: Any = boto3.client("dynamodb", region_name="eu-central-1")
        keys = {JobAttr.ID} | {a for index in INDEXES.values() for a in index}
        indexes: list[Any] = [
            {
                "IndexName": name.value,
                "KeySchema": [
                    {"AttributeName": a.value, "KeyType": kind}
                    for a, kind in zip(attributes, ("HASH", "RANGE"), strict=False)
                ],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            }
            for name, attributes in INDEXES.items()
        ]
        self.client.create_table(
            TableName="jobs",
            KeySchema=[{"AttributeName": JobAttr.ID.value, "KeyType": "HASH"}],
            AttributeDefinitions=[
                {"AttributeName": k.value, "AttributeType": "N" if k in NUMBERS else "S"}
                for k in sorted(keys)
            ],
            GlobalSecondaryIndexes=indexes,
            BillingMode="PAY_PER_REQUEST",
        )
        self.is_silent = False
        self.lagging: list[int] = []  # what an index names although the record moved on
        self.page = 100
        self.reader = DynamoDBJobReader(self, "jobs")

    def get_item(self, **request: Any) -> Any:
        assert request["ConsistentRead"]
        return self.client.get_item(**request)

    def query(self, **request: Any) -> Any:
        if self.is_silent:
            raise ReadTimeoutError(endpoint_url="dynamodb")
        answer = self.client.query(**request | {"Limit": self.page})
        answer["Items"] += [{JobAttr.ID.value: {"S": str(i)}} for i in self.lagging]
        return answer

    def put(self, job_id: int, **values: Any) -> None:
        item = {
            JobAttr.ID: str(job_id),
            JobAttr.STATUS: "launched",
            JobAttr.RUN_ID: 7,
            JobAttr.RUN_ATTEMPT: 1,
            JobAttr.REPOSITORY: "octo-org/hello",
            JobAttr.LABELS: ["a", " B "],
            JobAttr.INSTANCE_ID: f"i-{job_id}",
            JobAttr.UPDATED_AT: NOW + job_id,
            **{JobAttr[name]: value for name, value in values.items()},
        }
        self.client.put_item(
            TableName="jobs", Item={a.value: to_attribute(v) for a, v in item.items()}
        )


@pytest.fixture
def table() -> Iterator[Table]:
    """An empty table of its own."""
    with mock_aws():
        yield Table()


def ids(records: Any) -> list[int]:
    """Return the ids of records."""
    return [record.job.job_id for record in records]


def test_record_holds_all_that_is_known(table: Table) -> None:
    """What is written by the moves of a job is read by name."""
    table.put(
        3,
        ON_DEMAND=1,
        DISPATCH=2,
        REQUEUES=1,
        INTERRUPTED_AT=NOW,
        RERUN="pending",
        NO_RERUN=1,
        SLOT=1,
        INSTALLATION_ID=99,
    )
    job = JobMessage(
        job_id=3,
        run_id=7,
        run_attempt=1,
        repository="octo-org/hello",
        labels=("a", " B "),
        queued_at=0.0,
        installation_id=99,
        dispatch=2,
        requeues=1,
        on_demand=True,
    )
    assert table.reader.get(3) == JobRecord(
        job=job,
        status=JobStatus.LAUNCHED,
        updated_at=NOW + 3,
        instance_id="i-3",
        interrupted_at=NOW,
        rerun=Rerun.PENDING,
        may_rerun=False,
        has_slot=True,
    )
    assert table.reader.get(4) is None


def test_jobs_of_an_instance_and_of_a_run(table: Table) -> None:
    """By the indexes, all pages."""
    for n in range(5):
        table.put(n + 1)
    table.put(9, RUN_ID=8)
    table.page = 2
    record = table.reader.of_instance("i-3")
    assert record is not None
    assert record.job.job_id == 3
    assert table.reader.of_instance("i-0") is None
    assert sorted(ids(table.reader.of_run(7))) == [1, 2, 3, 4, 5]


def test_jobs_of_a_status_come_oldest_first(table: Table) -> None:
    """Those that were written since are left out; a limit bounds the reads."""
    for n in (4, 2, 3, 1):
        table.put(n)
    table.put(5, STATUS="running")
    assert ids(table.reader.in_status(JobStatus.LAUNCHED, updated_before=NOW + 4)) == [1, 2, 3]
    few = table.reader.in_status(JobStatus.LAUNCHED, updated_before=NOW + 9, limit=2)
    assert ids(few) == [1, 2]


def test_index_that_lags_behind_names_nothing(table: Table) -> None:
    """Each hit is read again: by the record it is another state, instance, or gone."""
    table.put(1, STATUS="completed")
    table.lagging = [1, 404]
    assert ids(table.reader.in_status(JobStatus.LAUNCHED, updated_before=NOW + 9)) == []
    assert table.reader.of_instance("i-9") is None


def test_silent_table_is_unknown(table: Table) -> None:
    """Nothing found differs from nothing known."""
    table.is_silent = True
    for ask in (
        lambda: table.reader.of_instance("i-1"),
        lambda: table.reader.of_run(7),
        lambda: list(table.reader.in_status(JobStatus.QUEUED, updated_before=NOW)),
    ):
        with pytest.raises(RecordUnknownError):
            ask()
