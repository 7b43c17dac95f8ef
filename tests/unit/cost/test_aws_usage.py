"""What the supporting services did, as CloudWatch tells."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws

from runsfleet_runtime.cost.aws_usage import CloudWatchUsage, Services
from runsfleet_runtime.cost.model import Day, Item

DAY = Day.of(date(2026, 11, 20), "Europe/Berlin")
SERVICES = Services(
    functions={"dispatch": 512, "webhook": 256},
    queues={"jobs.fifo": True, "events": False},
    tables={"jobs": ("by-run",)},
    log_groups=("/dispatch",),
    bucket="cache",
    secrets=2,
    alarms=23,
)


@pytest.fixture
def cloudwatch() -> Iterator[Any]:
    """Return a client of an account without metrics."""
    with mock_aws():
        yield boto3.client("cloudwatch", region_name="us-east-1")


def put(client: Any, namespace: str, name: str, at: float, value: float, **about: str) -> None:
    """Put one data point."""
    client.put_metric_data(
        Namespace=namespace,
        MetricData=[
            {
                "MetricName": name,
                "Timestamp": datetime.fromtimestamp(at, UTC),
                "Value": value,
                "Dimensions": [{"Name": n, "Value": v} for n, v in about.items()],
            }
        ],
    )


def usage(client: Any) -> CloudWatchUsage:
    """Return what is under test."""
    return CloudWatchUsage(client, fleet="dev", services=SERVICES)


def test_services_are_summed_over_the_day_of_their_zone(cloudwatch: Any) -> None:
    """What was a minute before midnight in Berlin is the day before's."""
    for at, value in ((DAY.start - 60, 1000.0), (DAY.start, 3.0), (DAY.end - 60, 4.0)):
        put(cloudwatch, "AWS/Lambda", "Invocations", at, value, FunctionName="dispatch")
    put(cloudwatch, "AWS/Lambda", "Duration", DAY.start, 2000.0, FunctionName="dispatch")
    put(cloudwatch, "AWS/Lambda", "Duration", DAY.start, 4000.0, FunctionName="webhook")
    put(cloudwatch, "AWS/SQS", "NumberOfEmptyReceives", DAY.start, 9.0, QueueName="jobs.fifo")
    index = {"TableName": "jobs", "GlobalSecondaryIndexName": "by-run"}
    put(cloudwatch, "AWS/DynamoDB", "ConsumedWriteCapacityUnits", DAY.start, 5.0, **index)
    put(cloudwatch, "AWS/Logs", "IncomingBytes", DAY.start, 2.0**30, LogGroupName="/dispatch")
    put(cloudwatch, "RunsFleet", "JobsQueued", DAY.start, 1.0, Fleet="dev")
    put(cloudwatch, "RunsFleet", "JobsQueued", DAY.start, 1.0, Fleet="prod")
    found = usage(cloudwatch).of(DAY)
    assert found[Item.LAMBDA_REQUEST] == 7.0
    assert found[Item.LAMBDA_GIB_SECOND] == pytest.approx(2.0 * 0.5 + 4.0 * 0.25)
    assert (found[Item.SQS_FIFO_REQUEST], found[Item.SQS_REQUEST]) == (9.0, 0.0)
    assert (found[Item.DYNAMODB_WRITE], found[Item.DYNAMODB_READ]) == (5.0, 0.0)
    assert found[Item.LOGS_GIB] == pytest.approx(1.0)
    assert found[Item.METRIC_MONTH] == pytest.approx(1 / 30)
    assert found[Item.SECRET_MONTH] == pytest.approx(2 / 30)
    assert found[Item.ALARM_MONTH] == pytest.approx(23 / 30)


def test_storage_without_a_figure_is_unknown(cloudwatch: Any) -> None:
    """S3 tells once a day; before it did, nobody knows."""
    assert usage(cloudwatch).of(DAY)[Item.S3_GIB_MONTH] is None
    bucket = {"BucketName": "cache", "StorageType": "StandardStorage"}
    put(cloudwatch, "AWS/S3", "BucketSizeBytes", DAY.start, 30 * 2.0**30, **bucket)
    assert usage(cloudwatch).of(DAY)[Item.S3_GIB_MONTH] == pytest.approx(1.0)


def test_what_cloudwatch_does_not_answer_is_unknown() -> None:
    """One function's unknown time makes the sum of all unknown, and no other item."""
    client = boto3.client("cloudwatch", region_name="us-east-1")
    results = [
        {"Id": "q0", "Label": "a", "Values": [1.0], "StatusCode": "Complete"},
        {"Id": "q1", "Label": "b", "Values": [], "StatusCode": "InternalError"},
        {"Id": "q3", "Label": "c", "Values": [1.0], "StatusCode": "Complete"},
    ]
    with Stubber(client) as stub:
        stub.add_response("get_metric_data", {"MetricDataResults": results})
        stub.add_client_error("get_metric_statistics", "AccessDenied")
        stub.add_client_error("list_metrics", "AccessDenied")
        found = usage(client).of(DAY)
    assert found[Item.LAMBDA_REQUEST] == 1.0
    assert found[Item.LAMBDA_GIB_SECOND] is None
    assert found[Item.S3_GIB_MONTH] is None
    assert found[Item.METRIC_MONTH] is None


def test_a_refused_question_leaves_all_unknown() -> None:
    """Nothing of it is taken for zero."""
    client = boto3.client("cloudwatch", region_name="us-east-1")
    with Stubber(client) as stub:
        stub.add_client_error("get_metric_data", "Throttling")
        stub.add_response("get_metric_statistics", {"Datapoints": []})
        stub.add_response("list_metrics", {"Metrics": []})
        found = usage(client).of(DAY)
    assert found[Item.LAMBDA_REQUEST] is None
    assert found[Item.SECRET_MONTH] == pytest.approx(2 / 30)
