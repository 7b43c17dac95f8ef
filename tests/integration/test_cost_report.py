"""The daily report, as Lambda calls it, against an independent reckoning of known days.

The independent reckoning walks each day minute by minute and adds up what runs, so it shares
neither the arithmetic nor the calendar of the code under test.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import boto3
import pytest
from moto import mock_aws

from runsfleet_runtime import composition
from runsfleet_runtime.contract.environment import HousekeepingEnvironment
from runsfleet_runtime.contract.inventory import Inventory
from runsfleet_runtime.contract.messages import HousekeepingMessage, HousekeepingTask
from runsfleet_runtime.contract.tables import LeaseAttr
from runsfleet_runtime.handlers import housekeeping
from tests.unit.cost.test_dynamodb import Tables

pytestmark = pytest.mark.integration

ZONE = ZoneInfo("Europe/Berlin")
MINUTE, HOUR = 60.0, 3600.0
ON_DEMAND = {"c7g.xlarge": 0.1450, "c7i.xlarge": 0.1785}  # USD an hour
SPOT = ((-HOUR, 0.06), (10 * HOUR, 0.09))  # seconds after the day's beginning, USD an hour
GP3 = 0.08  # USD a GiB-month
IPV4 = 0.005  # USD an hour
UNKNOWN = "x9z.large"


@dataclass(frozen=True)
class Ran:
    """An instance of a known day; times in seconds after the day's beginning."""

    kind: str
    capacity: str
    start: float
    end: float
    private: bool = False
    disk: int = 50

    def usd_per_minute(self, at: float) -> float:
        """Return what a minute of it costs at a time of the day."""
        hourly = ON_DEMAND.get(self.kind, 0.0)
        if self.capacity == "spot":
            hourly = next(usd for since, usd in reversed(SPOT) if at >= since)
        address = 0.0 if self.private else IPV4
        return (hourly + address + self.disk * GP3 / 720) / 60


MIXED = (
    Ran("c7g.xlarge", "spot", 2 * HOUR, 4 * HOUR),
    Ran("c7g.xlarge", "spot", 9 * HOUR, 12 * HOUR),
    Ran("c7i.xlarge", "on-demand", -2 * HOUR, 1.5 * HOUR, private=True),
    Ran("c7g.xlarge", "on-demand", 20 * HOUR, 20 * HOUR + 17 * MINUTE, disk=200),
    # beyond the end of a usual day, which is within one of 25 hours, and not within one of 23
    Ran("c7i.xlarge", "on-demand", 22 * HOUR, 26 * HOUR),
)
IDLE_USD = 2 * 0.40 / 30 + 23 * 0.10 / 30  # secrets and alarms of a usual day
USED_USD = 1000 * 0.20e-6 + 1000 * 0.2 * 0.5 * 0.0000133334 + 0.5 * 0.50  # of `use`


def minute_by_minute(day: str, instances: tuple[Ran, ...]) -> tuple[float, int]:
    """Return what a day of Berlin cost in instances, and how many minutes it had."""
    at = start = datetime.fromisoformat(day).replace(tzinfo=ZONE).astimezone(UTC)
    usd, minutes = 0.0, 0
    while at.astimezone(ZONE).date().isoformat() == day:
        into = (at - start).total_seconds()
        usd += sum(ran.usd_per_minute(into) for ran in instances if ran.start <= into < ran.end)
        at += timedelta(minutes=1)
        minutes += 1
    return usd, minutes


class Pages:
    """A client that answers one paginated call."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def get_paginator(self, operation: str) -> Any:
        """Return what pages through the answer."""
        return SimpleNamespace(paginate=lambda **asked: [self.answer(operation, asked)])


class Deployed:
    """A deployed fleet of which only the daily report is of interest."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.s3: Any = boto3.client("s3")
        self.sqs: Any = boto3.client("sqs")
        self.cloudwatch: Any = boto3.client("cloudwatch")
        self.ledger = Tables()
        self.start = 0.0
        self.s3.create_bucket(Bucket="cache")
        boto3.client("dynamodb").create_table(
            TableName="leases",
            KeySchema=[{"AttributeName": LeaseAttr.NAME.value, "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": LeaseAttr.NAME.value, "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        inventory = Inventory(
            functions={"dispatch": 512}, log_groups=("/dispatch",), tables=(), secrets=2, alarms=23
        )
        boto3.client("ssm").put_parameter(
            Name="inventory", Value=inventory.to_json(), Type="String"
        )
        self.people = self.sqs.create_queue(QueueName="people")["QueueUrl"]
        sns: Any = boto3.client("sns")
        topic = sns.create_topic(Name="costs")["TopicArn"]
        arn = f"arn:aws:sqs:us-east-1:123456789012:{self.people.rpartition('/')[2]}"
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        environment = HousekeepingEnvironment(
            fleet="dev",
            github_app_secret="ssm:/app",
            slots_table="slots",
            jobs_table="jobs",
            instances_table="instances",
            jobs_queue_url="https://sqs/1/jobs.fifo",
            events_queue_url="https://sqs/1/events",
            instance_role_id="AROAEXAMPLE",
            leases_table="leases",
            cache_bucket="cache",
            termination_queue_url="https://sqs/1/termination",
            dead_letter_queue_urls=(),
            runners_table="runners",
            cost_zone=ZONE.key,
            cost_topic_arn=topic,
            cost_inventory="inventory",
        )
        by_lambda = {
            "AWS_LAMBDA_FUNCTION_NAME": "housekeeping",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
            "AWS_LAMBDA_LOG_GROUP_NAME": "/housekeeping",
        }
        for name, value in {**environment.to_environ(), **by_lambda}.items():
            monkeypatch.setenv(name, value)
        # what moto has no answers for: prices
        client = composition.client
        monkeypatch.setattr(
            composition, "client", lambda name: Pages(self.spot) if name == "ec2" else client(name)
        )
        monkeypatch.setattr(composition, "_price_list", lambda: Pages(self.products))

    def products(self, operation: str, asked: Mapping[str, Any]) -> Any:
        """Answer for the price list."""
        assert operation == "get_products"
        fields = {f["Field"]: f["Value"] for f in asked["Filters"]}
        usd = GP3 if fields.get("volumeApiName") else ON_DEMAND.get(fields.get("instanceType", ""))
        if usd is None:
            return {"PriceList": []}
        price = {"pricePerUnit": {"USD": str(usd)}}
        item = {"terms": {"OnDemand": {"t": {"priceDimensions": {"d": price}}}}}
        return {"PriceList": [json.dumps(item)]}

    def spot(self, operation: str, asked: Mapping[str, Any]) -> Any:
        """Answer for the history of spot prices."""
        assert operation == "describe_spot_price_history"
        known = SPOT if asked["InstanceTypes"] == ["c7g.xlarge"] else ()
        entries = [
            {"Timestamp": datetime.fromtimestamp(self.start + at, UTC), "SpotPrice": str(usd)}
            for at, usd in known
        ]
        return {"SpotPriceHistory": entries}

    def begin(self, day: str, instances: tuple[Ran, ...]) -> None:
        """Record what ran on a day, and let it be nine in the morning after it."""
        first = datetime.fromisoformat(day).replace(tzinfo=ZONE)
        self.start = first.timestamp()
        for number, ran in enumerate(instances, 1):
            self.ledger.ran(
                number,
                self.start + ran.start,
                self.start + ran.end,
                instance_type=ran.kind,
                capacity_type=ran.capacity,
                disk_gib=ran.disk,
                private=int(ran.private),
            )
        morning = (first + timedelta(days=1)).replace(hour=9).timestamp()
        clock = SimpleNamespace(time=lambda: morning)
        self.monkeypatch.setattr(composition, "time", clock)

    def use(self) -> None:
        """Let dispatch run a thousand times for 0.2 s, and write half a GiB of log."""
        about = {"FunctionName": "dispatch"}
        self.put("AWS/Lambda", "Invocations", 1000, **about)
        self.put("AWS/Lambda", "Duration", 200_000, **about)
        self.put("AWS/Logs", "IncomingBytes", 2**29, LogGroupName="/dispatch")

    def put(self, namespace: str, name: str, value: float, **about: str) -> None:
        """Put one data point at noon."""
        point = {
            "MetricName": name,
            "Timestamp": datetime.fromtimestamp(self.start + 12 * HOUR, UTC),
            "Value": value,
            "Dimensions": [{"Name": n, "Value": v} for n, v in about.items()],
        }
        self.cloudwatch.put_metric_data(Namespace=namespace, MetricData=[point])

    def sweep(self) -> bool:
        """Run the sweep, and return whether its message is done with."""
        body = HousekeepingMessage(task=HousekeepingTask.COST_REPORT).to_json()
        record = {"messageId": "m", "receiptHandle": "r", "body": body}
        context = SimpleNamespace(get_remaining_time_in_millis=lambda: 300_000)
        return not housekeeping.handler({"Records": [record]}, context)["batchItemFailures"]

    def read(self, day: str, suffix: str) -> str:
        """Return a file of a day's report."""
        key = f"cost/{day.replace('-', '/')}.{suffix}"
        return str(self.s3.get_object(Bucket="cache", Key=key)["Body"].read().decode())

    def told(self) -> list[str]:
        """Return what people were told."""
        answer = self.sqs.receive_message(QueueUrl=self.people, MaxNumberOfMessages=10)
        return [json.loads(m["Body"])["Message"] for m in answer.get("Messages", [])]


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployed]:
    """Deploy a fleet, with a function that starts cold."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    cached = (composition.housekeeping, composition.client, composition._session)
    with mock_aws():
        for function in cached:
            function.cache_clear()
        yield Deployed(monkeypatch)
    for function in cached:
        function.cache_clear()


@pytest.mark.parametrize(
    ("day", "hours"),
    [
        pytest.param("2026-11-18", 24, id="usual"),
        pytest.param("2026-03-29", 23, id="clocks-go-forward"),
        pytest.param("2026-10-25", 25, id="clocks-go-back"),
        pytest.param("2026-08-31", 24, id="month-end"),
    ],
)
def test_a_known_day_costs_what_an_independent_reckoning_says(
    fleet: Deployed, day: str, hours: int
) -> None:
    """Within one percent, whatever the length of the day; jobs are those that ended on it."""
    fleet.begin(day, MIXED)
    fleet.use()
    fleet.ledger.job(1, fleet.start + 3 * HOUR, fleet.start + 3.5 * HOUR)
    fleet.ledger.job(3, fleet.start - HOUR, fleet.start - MINUTE)
    assert fleet.sweep()
    instances, minutes = minute_by_minute(day, MIXED)
    assert minutes == hours * 60
    expected = instances + USED_USD + IDLE_USD * hours / 24
    summary = json.loads(fleet.read(day, "json"))
    assert summary["usd"] == pytest.approx(expected, rel=0.01)
    assert (summary["day"], summary["jobs"], summary["is_partial"]) == (day, 1, False)
    assert f"dev in us-east-1: {day}" in fleet.read(day, "html")
    (told,) = fleet.told()
    assert told.endswith(f"s3://cache/cost/{day.replace('-', '/')}.html")


def test_a_day_without_jobs_costs_what_stands_still(fleet: Deployed) -> None:
    """No instance and no job: secrets and alarms."""
    fleet.begin("2026-11-18", ())
    assert fleet.sweep()
    summary = json.loads(fleet.read("2026-11-18", "json"))
    assert summary["usd"] == pytest.approx(IDLE_USD, rel=0.01)
    assert (summary["jobs"], summary["instance_seconds"]) == (0, 0)


def test_what_has_no_price_is_left_out_and_named(fleet: Deployed) -> None:
    """The sum is that of everything else, and everybody is told."""
    fleet.begin("2026-11-18", (*MIXED, Ran(UNKNOWN, "on-demand", HOUR, 5 * HOUR)))
    assert fleet.sweep()
    expected, _ = minute_by_minute("2026-11-18", (*MIXED, Ran("", "on-demand", HOUR, 5 * HOUR)))
    summary = json.loads(fleet.read("2026-11-18", "json"))
    assert summary["usd"] == pytest.approx(expected + IDLE_USD, rel=0.01)
    gap = f"Not in the sum: no price known for {UNKNOWN} on-demand us-east-1a"
    assert gap in fleet.read("2026-11-18", "md")
    (told,) = fleet.told()
    assert gap in told
    assert "not measured: S3 storage" in told


def test_a_day_is_reported_once_and_a_failed_one_again(fleet: Deployed) -> None:
    """Without the inventory the message comes back; once it is there, people are told once."""
    fleet.begin("2026-11-18", MIXED)
    ssm = boto3.client("ssm")
    inventory = ssm.get_parameter(Name="inventory")["Parameter"]["Value"]
    ssm.delete_parameter(Name="inventory")
    assert not fleet.sweep()
    assert fleet.told() == []
    ssm.put_parameter(Name="inventory", Value=inventory, Type="String")
    assert fleet.sweep()
    assert fleet.sweep()
    assert len(fleet.told()) == 1
