"""Prices asked of AWS, and reports kept in S3."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws

from runsfleet_runtime.cost.aws_prices import AwsPrices, mean_price, pricing_region
from runsfleet_runtime.cost.model import Day, Item
from runsfleet_runtime.cost.prices import ListedPrices
from runsfleet_runtime.cost.reckon import reckon
from runsfleet_runtime.cost.report import CostReport
from runsfleet_runtime.cost.s3 import ReportsUnavailableError, S3Reports
from runsfleet_runtime.cost.trends import Summary, trends

DAY = Day.of(date(2026, 11, 20))


def product(*prices: str) -> str:
    """Return an item of the price list."""
    dimensions = {str(n): {"pricePerUnit": {"USD": usd}} for n, usd in enumerate(prices)}
    return json.dumps({"terms": {"OnDemand": {"t": {"priceDimensions": dimensions}}}})


class Aws:
    """Stubbed price list and spot history."""

    def __init__(self) -> None:
        self.pricing = boto3.client("pricing", region_name="us-east-1")
        self.ec2 = boto3.client("ec2", region_name="us-east-1")
        self.answers = Stubber(self.pricing)
        self.history = Stubber(self.ec2)
        self.answers.activate()
        self.history.activate()
        self.prices = AwsPrices(
            self.pricing,
            self.ec2,
            region="us-east-1",
            start=DAY.start,
            end=DAY.end,
            listed=ListedPrices(),
            clock=lambda: DAY.end,
        )

    def lists(self, *items: str) -> None:
        """Let the price list answer once."""
        self.answers.add_response("get_products", {"PriceList": list(items)})

    def changed(self, *changes: tuple[float, str]) -> None:
        """Let the history answer once."""
        entries = [
            {"Timestamp": datetime.fromtimestamp(at, UTC), "SpotPrice": usd} for at, usd in changes
        ]
        self.history.add_response("describe_spot_price_history", {"SpotPriceHistory": entries})


@pytest.fixture
def aws() -> Aws:
    """Return stubs without answers."""
    return Aws()


def test_a_current_price_names_its_day(aws: Aws) -> None:
    """Prices of nothing are skipped; the same question is asked once."""
    aws.lists(product("0.0000000000", "0.1600000000"))
    price = aws.prices.on_demand("c7g.xlarge", is_windows=False)
    assert price is not None
    assert (price.usd, price.source, price.is_listed) == (0.16, "AWS price list, 2026-11-21", False)
    assert aws.prices.on_demand("c7g.xlarge", is_windows=False) is price
    aws.answers.assert_no_pending_responses()


@pytest.mark.parametrize("items", [[], [product("0.1"), product("0.2")], ["no JSON"]])
def test_an_unclear_price_is_the_tables_and_says_so(aws: Aws, items: list[str]) -> None:
    """None, several or nonsense: nobody knows which is billed."""
    aws.lists(*items)
    price = aws.prices.on_demand("c7g.xlarge", is_windows=False)
    assert price is not None
    assert (price.usd, price.is_listed) == (0.145, True)


def test_a_refused_question_is_asked_again_by_the_next_report(aws: Aws) -> None:
    """Denied once, the table answers; a report made later asks anew."""
    aws.answers.add_client_error("get_products", "AccessDeniedException")
    denied = aws.prices.on_demand("m7g.xlarge", is_windows=False)
    assert denied is not None
    assert denied.is_listed
    later = Aws()
    later.lists(product("0.2"))
    price = later.prices.on_demand("m7g.xlarge", is_windows=False)
    assert price is not None
    assert not price.is_listed


def test_spot_is_the_mean_of_what_was_in_effect(aws: Aws) -> None:
    """Half an hour at 0.05 and half an hour at 0.07."""
    aws.changed((DAY.start + 1800, "0.07"), (DAY.start - 9000, "0.05"))
    price = aws.prices.spot(
        "c7g.xlarge", "us-east-1a", is_windows=False, start=DAY.start, end=DAY.start + 3600
    )
    assert price is not None
    assert price.usd == pytest.approx(0.06)


def test_an_unknown_spot_price_is_unknown(aws: Aws) -> None:
    """Neither the regular price nor a guess stands in for it."""
    aws.history.add_client_error("describe_spot_price_history", "RequestLimitExceeded")
    arguments: dict[str, Any] = {"is_windows": False, "start": DAY.start, "end": DAY.end}
    assert aws.prices.spot("c7g.xlarge", "us-east-1a", **arguments) is None
    assert mean_price([(5.0, 1.0)], start=0.0, end=10.0) is None
    assert mean_price([(0.0, 1.0), (20.0, 9.0)], start=0.0, end=10.0) == 1.0


def test_volumes_are_asked_for_and_the_rest_is_listed(aws: Aws) -> None:
    """The price of a gp3 volume differs by region."""
    aws.lists(product("0.0952"))
    price = aws.prices.of(Item.GP3_GIB_MONTH)
    assert price is not None
    assert (price.usd, price.is_listed) == (0.0952, False)
    listed = aws.prices.of(Item.SQS_REQUEST)
    assert listed is not None
    assert listed.is_listed


def test_a_table_of_another_region_says_so() -> None:
    """Prices of us-east-1 are a hint elsewhere."""
    price = ListedPrices(region="eu-west-1").of(Item.IPV4_HOUR)
    assert price is not None
    assert price.source == "table of 2026-08 (us-east-1, not eu-west-1)"
    assert [pricing_region(r) for r in ("eu-central-1", "ap-northeast-1", "sa-east-1")] == [
        "eu-central-1",
        "ap-south-1",
        "us-east-1",
    ]


@pytest.fixture
def s3() -> Iterator[Any]:
    """Return a client and make the bucket."""
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="fleet")
        yield client


def report() -> CostReport:
    """Return a report of a day without jobs."""
    cost = reckon(
        DAY,
        instances=(),
        jobs=(),
        services={Item.SQS_REQUEST: 1e6},
        prices=ListedPrices(),
        now=DAY.end,
        lifetime=3600,
    )
    together = trends(Summary.of(cost), ())
    return CostReport(fleet="dev", region="us-east-1", cost=cost, trends=together)


def test_a_report_is_kept_and_found_by_later_days(s3: Any) -> None:
    """Markdown, page and summary under the day; days without one are left out."""
    reports = S3Reports(s3, "fleet")
    assert reports.keep(report()) == "s3://fleet/cost/2026/11/20.html"
    keys = {entry["Key"] for entry in s3.list_objects_v2(Bucket="fleet")["Contents"]}
    assert keys == {f"cost/2026/11/20.{suffix}" for suffix in ("md", "html", "json")}
    assert [s.usd for s in reports.before(date(2026, 11, 22))] == [0.4]
    assert reports.before(date(2026, 11, 20)) == []


def test_a_broken_summary_is_unknown_and_a_broken_bucket_an_error(s3: Any) -> None:
    """A day that cannot be read is not one of zero; without the bucket there is no report."""
    s3.put_object(Bucket="fleet", Key="cost/2026/11/20.json", Body=b"{}")
    assert S3Reports(s3, "fleet").before(date(2026, 11, 21)) == []
    with pytest.raises(ReportsUnavailableError, match="2026-11-20"):
        S3Reports(s3, "absent").before(date(2026, 11, 21))
