"""What ran is recorded in the very transactions that move the job."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest
from moto import mock_aws

from runsfleet_runtime.contract.messages import (
    JobEndedMessage,
    JobMessage,
    ReportStatus,
    RunnerReport,
)
from runsfleet_runtime.contract.tables import InstanceAttr, JobAttr
from runsfleet_runtime.jobs.dynamodb import DynamoDBJobs
from runsfleet_runtime.jobs.ledger import KEPT_SECONDS, InstanceLedger
from runsfleet_runtime.jobs.model import JobRecord, Launch
from runsfleet_runtime.jobs.reading.dynamodb import DynamoDBJobReader

NOW = 1_800_000_000.0
JOB = JobMessage(
    job_id=11, run_id=7, run_attempt=1, repository="acme/web", labels=("x",), queued_at=NOW - 5
)


class Tables:
    """Both tables, and a job whose instance was launched."""

    def __init__(self) -> None:
        self.client = boto3.client("dynamodb", region_name="us-east-1")
        for table, key in (("jobs", JobAttr.ID.value), ("instances", InstanceAttr.ID.value)):
            self.client.create_table(
                TableName=table,
                KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )
        self.jobs = DynamoDBJobs(self.client, "jobs", ledger=InstanceLedger("instances"))
        self.jobs.claim([JOB], claim_ids=["c"], now=NOW)

    def launch(self, claim_id: str = "c") -> bool | None:
        """Record the launch."""
        launch = Launch(
            job=JOB,
            claim_id=claim_id,
            instance_id="i-1",
            instance_type="c7g.xlarge",
            availability_zone="us-east-1a",
            capacity_type="spot",
            runner_name="r",
            pool=None,
            platform="linux-arm64",
            disk_gib=50,
        )
        (done,) = self.jobs.record_launches([(launch, ())], now=NOW)
        return done

    def record(self) -> JobRecord:
        """Return the job's record."""
        record = DynamoDBJobReader(self.client, "jobs").get(JOB.job_id)
        assert record is not None
        return record

    def instance(self) -> dict[str, Any] | None:
        """Return the instance's item."""
        key = {InstanceAttr.ID.value: {"S": "i-1"}}
        item: dict[str, Any] | None = self.client.get_item(TableName="instances", Key=key).get(
            "Item"
        )
        return item

    def ended_at(self) -> float:
        """Return when the instance left its job; 0 while it has not."""
        item = self.instance() or {}
        return float(item.get(InstanceAttr.ENDED_AT.value, {}).get("N", 0))


@pytest.fixture
def tables() -> Iterator[Tables]:
    """Return tables with a claimed job."""
    with mock_aws():
        yield Tables()


REPORT = RunnerReport(instance_id="i-1", job_id=11, run_id=7, status=ReportStatus.SUCCESS)


def test_a_launch_tells_what_was_bought_and_for_whom(tables: Tables) -> None:
    """Type, zone, way of buying, disk, repository and day; empty values are left out."""
    assert tables.launch()
    item = tables.instance() or {}
    assert {name: next(iter(value.values())) for name, value in item.items()} == {
        "instance_id": "i-1",
        "job_id": "11",
        "repository": "acme/web",
        "instance_type": "c7g.xlarge",
        "availability_zone": "us-east-1a",
        "capacity_type": "spot",
        "platform": "linux-arm64",
        "disk_gib": "50",
        "launched_at": "1800000000.0",
        "launched_on": "2027-01-15",
        "expires_at": str(int(NOW) + KEPT_SECONDS),
    }


def test_a_launch_that_is_not_recorded_leaves_no_instance(tables: Tables) -> None:
    """Both or neither."""
    assert tables.launch("another") is False
    assert tables.instance() is None


def test_every_way_out_of_a_job_ends_its_instance(tables: Tables) -> None:
    """A report, another dispatch, the end of tries, a cancellation."""
    tables.launch()
    assert tables.ended_at() == 0
    before = tables.record()
    again = replace(JOB, requeues=1).again(not_before=NOW)
    ended = JobEndedMessage(
        job_id=11, run_id=7, run_attempt=1, repository="a/b", labels=(), conclusion="cancelled"
    )
    ways = (
        lambda: tables.jobs.end([(REPORT, ())], now=NOW + 60),
        lambda: tables.jobs.end_interrupted(REPORT, (), now=NOW + 60),
        lambda: tables.jobs.hand_back(before, again, (), now=NOW + 60),
        lambda: tables.jobs.give_up(before, (), error="x", now=NOW + 60),
        lambda: tables.jobs.cancel(ended, now=NOW + 60),
    )
    record = tables.client.get_item(TableName="jobs", Key={"job_id": {"S": "11"}})["Item"]
    instance = tables.instance() or {}
    for way in ways:
        tables.client.put_item(TableName="jobs", Item=record)
        tables.client.put_item(TableName="instances", Item=instance)
        way()
        assert tables.ended_at() == NOW + 60


def test_the_first_end_counts_and_a_start_is_none(tables: Tables) -> None:
    """A duplicate does not make an instance live longer."""
    tables.launch()
    tables.jobs.start([REPORT], now=NOW + 5)
    assert tables.ended_at() == 0
    tables.jobs.end([(REPORT, ())], now=NOW + 60)
    tables.jobs.end([(REPORT, ())], now=NOW + 90)
    assert tables.ended_at() == NOW + 60


def test_a_job_that_waits_again_has_no_instance_to_end(tables: Tables) -> None:
    """What is handed back from its claim never had one."""
    tables.jobs.release(JOB, "c", not_before=NOW, now=NOW)
    tables.jobs.hand_back(tables.record(), JOB.again(not_before=NOW), (), now=NOW + 1)
    assert tables.instance() is None
