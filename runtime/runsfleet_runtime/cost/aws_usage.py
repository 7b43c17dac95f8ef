"""How much the supporting services were used in a day, as CloudWatch has it.

Gotchas:

- A metric without data points was not used, and that is a measured zero. A metric that CloudWatch
  did not answer for is unknown, and so is the sum that it belongs to.
- SQS counts messages, not requests: a receive or delete of ten messages counts ten times. So the
  requests are an upper bound.
- The storage metrics of S3 come once a day, for the day before at the latest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.contract.metrics import FLEET_DIMENSION, NAMESPACE
from runsfleet_runtime.cost.model import Day, Item
from runsfleet_runtime.telemetry.log import get_logger

log = get_logger("cost.aws_usage")

_PERIOD: Final = 900  # seconds; a day of any time zone begins at one of these
_QUERIES: Final = 500  # of one GetMetricData
_GIB: Final = 2**30
_MIB_OF_GIB: Final = 1024
_MONTH_DAYS: Final = 30
_STORAGE_DAYS: Final = 2

_SQS: Final = (
    "NumberOfMessagesSent",
    "NumberOfMessagesReceived",
    "NumberOfMessagesDeleted",
    "NumberOfEmptyReceives",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What a fleet is made of, beside its instances.

    Attributes:
        functions: Memory in MiB by name of each function.
        queues: Whether it is a FIFO queue by name of each queue.
        tables: Names of the indexes by name of each table.
        log_groups: Names of the log groups.
        bucket: The bucket.
        secrets: How many secrets there are.
        alarms: How many alarms there are.
    """

    functions: Mapping[str, int]
    queues: Mapping[str, bool]
    tables: Mapping[str, Sequence[str]]
    log_groups: Sequence[str]
    bucket: str
    secrets: int
    alarms: int


@dataclass(frozen=True, slots=True)
class _Query:
    """One metric, and how much of what a unit of it is."""

    item: Item
    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...]
    factor: float = 1.0


class CloudWatchUsage:
    """Measures the supporting services.

    Args:
        client: A CloudWatch client.
        fleet: Name of the fleet.
        services: What it is made of.
    """

    def __init__(self, client: Any, *, fleet: str, services: Services) -> None:
        self._client = client
        self._fleet = fleet
        self._services = services

    def of(self, day: Day) -> dict[Item, float | None]:
        """Return how much of each item was used; ``None`` where that could not be measured.

        Args:
            day: The day.
        """
        queries = list(self._queries())
        found: dict[Item, float | None] = {}
        for start in range(0, len(queries), _QUERIES):
            part = queries[start : start + _QUERIES]
            for query, value in zip(part, self._sums(part, day), strict=True):
                known = found.get(query.item, 0.0)
                is_known = known is not None and value is not None
                found[query.item] = (known or 0.0) + (value or 0.0) if is_known else None
        days = day.hours / 24 / _MONTH_DAYS
        stored = self._stored(day)
        series = self._series()
        return found | {
            Item.S3_GIB_MONTH: None if stored is None else stored / _GIB * days,
            Item.METRIC_MONTH: None if series is None else series * days,
            Item.SECRET_MONTH: self._services.secrets * days,
            Item.ALARM_MONTH: self._services.alarms * days,
        }

    def _queries(self) -> Iterator[_Query]:
        for name, memory in self._services.functions.items():
            about = (("FunctionName", name),)
            yield _Query(Item.LAMBDA_REQUEST, "AWS/Lambda", "Invocations", about)
            gib_seconds = memory / _MIB_OF_GIB / 1000
            yield _Query(Item.LAMBDA_GIB_SECOND, "AWS/Lambda", "Duration", about, gib_seconds)
        for name, is_fifo in self._services.queues.items():
            item = Item.SQS_FIFO_REQUEST if is_fifo else Item.SQS_REQUEST
            for metric in _SQS:
                yield _Query(item, "AWS/SQS", metric, (("QueueName", name),))
        for table, indexes in self._services.tables.items():
            of_table = ("TableName", table)
            of_indexes = [(of_table, ("GlobalSecondaryIndexName", index)) for index in indexes]
            for dimensions in ((of_table,), *of_indexes):
                for item, metric in (
                    (Item.DYNAMODB_WRITE, "ConsumedWriteCapacityUnits"),
                    (Item.DYNAMODB_READ, "ConsumedReadCapacityUnits"),
                ):
                    yield _Query(item, "AWS/DynamoDB", metric, dimensions)
        for group in self._services.log_groups:
            about = (("LogGroupName", group),)
            yield _Query(Item.LOGS_GIB, "AWS/Logs", "IncomingBytes", about, 1 / _GIB)

    def _sums(self, queries: Sequence[_Query], day: Day) -> list[float | None]:
        asked = [
            {
                "Id": f"q{number}",
                "MetricStat": {
                    "Metric": {
                        "Namespace": query.namespace,
                        "MetricName": query.name,
                        "Dimensions": [{"Name": n, "Value": v} for n, v in query.dimensions],
                    },
                    "Period": _PERIOD,
                    "Stat": "Sum",
                },
            }
            for number, query in enumerate(queries)
        ]
        sums: dict[str, float] = {}
        unknown: set[str] = set()
        try:
            for page in self._client.get_paginator("get_metric_data").paginate(
                MetricDataQueries=asked,
                StartTime=datetime.fromtimestamp(day.start, UTC),
                EndTime=datetime.fromtimestamp(day.end, UTC),
            ):
                for result in page["MetricDataResults"]:
                    sums[result["Id"]] = sums.get(result["Id"], 0.0) + sum(result["Values"])
                    if result.get("StatusCode") not in {None, "Complete", "PartialData"}:
                        unknown.add(result["Id"])
        except (ClientError, BotoCoreError) as error:
            log.warning("use not measured", extra={"error": str(error)})
            return [None] * len(queries)
        return [
            None if f"q{number}" in unknown else sums.get(f"q{number}", 0.0) * query.factor
            for number, query in enumerate(queries)
        ]

    def _stored(self, day: Day) -> float | None:
        """Return the bytes of the bucket, by the newest of its daily figures."""
        try:
            answer = self._client.get_metric_statistics(
                Namespace="AWS/S3",
                MetricName="BucketSizeBytes",
                Dimensions=[
                    {"Name": "BucketName", "Value": self._services.bucket},
                    {"Name": "StorageType", "Value": "StandardStorage"},
                ],
                StartTime=datetime.fromtimestamp(day.end - _STORAGE_DAYS * 86400, UTC),
                EndTime=datetime.fromtimestamp(day.end, UTC),
                Period=86400,
                Statistics=["Average"],
            )
        except (ClientError, BotoCoreError) as error:
            log.warning("storage not measured", extra={"error": str(error)})
            return None
        points = sorted(answer["Datapoints"], key=lambda point: point["Timestamp"])
        return float(points[-1]["Average"]) if points else None

    def _series(self) -> int | None:
        """Return how many series of metrics the fleet has."""
        about = [{"Name": FLEET_DIMENSION, "Value": self._fleet}]
        try:
            pages = self._client.get_paginator("list_metrics").paginate(
                Namespace=NAMESPACE, Dimensions=about
            )
            return sum(len(page["Metrics"]) for page in pages)
        except (ClientError, BotoCoreError) as error:
            log.warning("series not counted", extra={"error": str(error)})
            return None
