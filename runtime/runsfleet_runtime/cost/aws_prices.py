"""Current prices: the AWS price list, and the history of spot prices.

Gotchas:

- The price list answers in a few regions only, whichever region is asked about, and its items are
  JSON within JSON.
- The history begins with the price that was in effect at its start, which carries an earlier time.
- A failed question is answered from the dated table, labelled so, and asked again the next time;
  nothing of it is kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.cost.model import Item, Price
from runsfleet_runtime.cost.prices import KnowsPrices
from runsfleet_runtime.telemetry.log import get_logger

log = get_logger("cost.aws_prices")

PRICING_REGIONS: Final = ("us-east-1", "eu-central-1", "ap-south-1")
"""Where the price list answers (botocore's endpoints)."""

_Change = tuple[float, float]  # epoch seconds, USD an hour


def pricing_region(region: str) -> str:
    """Return the region to ask for the price list: the fleet's own, or the next continent's.

    Example:
        >>> pricing_region("eu-west-1"), pricing_region("us-west-2")
        ('eu-central-1', 'us-east-1')
    """
    if region in PRICING_REGIONS:
        return region
    by_continent = {"eu": "eu-central-1", "ap": "ap-south-1"}
    return by_continent.get(region.partition("-")[0], "us-east-1")


class AwsPrices:
    """Adapter of :class:`~runsfleet_runtime.cost.prices.KnowsPrices`, for one report.

    Args:
        pricing: A client of the price list, in one of ``PRICING_REGIONS``.
        ec2: An EC2 client of the fleet's region.
        region: The fleet's region.
        start: Epoch seconds from which on spot prices will be asked for.
        end: Epoch seconds until which they will be.
        listed: What answers where AWS does not.
        clock: Returns epoch seconds.
    """

    def __init__(
        self,
        pricing: Any,
        ec2: Any,
        *,
        region: str,
        start: float,
        end: float,
        listed: KnowsPrices,
        clock: Callable[[], float],
    ) -> None:
        self._pricing = pricing
        self._ec2 = ec2
        self._region = region
        self._start = start
        self._end = end
        self._listed = listed
        self._clock = clock
        self._hourly: dict[tuple[str, bool], Price | None] = {}
        self._history: dict[tuple[str, str, bool], list[_Change]] = {}

    def on_demand(self, instance_type: str, *, is_windows: bool) -> Price | None:
        """Return the price of an hour on demand."""
        key = (instance_type, is_windows)
        if key not in self._hourly:
            found = self._ask(
                instanceType=instance_type,
                operatingSystem="Windows" if is_windows else "Linux",
                preInstalledSw="NA",
                capacitystatus="Used",
                tenancy="Shared",
                marketoption="OnDemand",
                productFamily="Compute Instance",
                **({"licenseModel": "No License required"} if is_windows else {}),
            )
            listed = self._listed.on_demand(instance_type, is_windows=is_windows)
            self._hourly[key] = found or listed
        return self._hourly[key]

    def spot(
        self, instance_type: str, zone: str, *, is_windows: bool, start: float, end: float
    ) -> Price | None:
        """Return the mean price of a spot hour between two epoch seconds."""
        key = (instance_type, zone, is_windows)
        if key not in self._history:
            self._history[key] = self._changes(*key)
        usd = mean_price(self._history[key], start=start, end=end)
        if usd is None:
            return self._listed.spot(
                instance_type, zone, is_windows=is_windows, start=start, end=end
            )
        return Price(usd=usd, source="EC2's spot price history")

    def of(self, item: Item) -> Price | None:
        """Return the price of a unit: volumes by the price list, all else by the dated table."""
        if item is not Item.GP3_GIB_MONTH:
            return self._listed.of(item)
        key = (item.value, False)
        if key not in self._hourly:
            found = self._ask(productFamily="Storage", volumeApiName="gp3")
            self._hourly[key] = found or self._listed.of(item)
        return self._hourly[key]

    def _ask(self, **fields: str) -> Price | None:
        fields = {"regionCode": self._region, **fields}
        filters = [{"Type": "TERM_MATCH", "Field": k, "Value": v} for k, v in fields.items()]
        try:
            pages = self._pricing.get_paginator("get_products").paginate(
                ServiceCode="AmazonEC2", Filters=filters
            )
            prices = {usd for page in pages for text in page["PriceList"] for usd in _usd(text)}
        except (ClientError, BotoCoreError, ValueError, KeyError) as error:
            log.warning("price not asked", extra={"fields": fields, "error": str(error)})
            return None
        if len(prices) != 1:  # none, or several products fit: nobody knows which is billed
            log.warning("price not clear", extra={"fields": fields, "prices": sorted(prices)})
            return None
        day = datetime.fromtimestamp(self._clock(), UTC).date().isoformat()
        return Price(usd=prices.pop(), source=f"AWS price list, {day}")

    def _changes(self, instance_type: str, zone: str, is_windows: bool) -> list[_Change]:
        system = "Windows" if is_windows else "Linux/UNIX"
        try:
            pages = self._ec2.get_paginator("describe_spot_price_history").paginate(
                InstanceTypes=[instance_type],
                AvailabilityZone=zone,
                ProductDescriptions=[system],
                StartTime=datetime.fromtimestamp(self._start, UTC),
                EndTime=datetime.fromtimestamp(self._end, UTC),
            )
            return sorted(
                (entry["Timestamp"].timestamp(), float(entry["SpotPrice"]))
                for page in pages
                for entry in page["SpotPriceHistory"]
            )
        except (ClientError, BotoCoreError, ValueError, KeyError) as error:
            log.warning(
                "spot prices not asked",
                extra={"instance_type": instance_type, "zone": zone, "error": str(error)},
            )
            return []


def _usd(text: str) -> Iterator[float]:
    """Yield the prices of a product in US dollars, those of nothing left out."""
    for term in json.loads(text)["terms"].get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            usd = float(dimension["pricePerUnit"].get("USD", 0))
            if usd > 0:
                yield usd


def mean_price(changes: Sequence[_Change], *, start: float, end: float) -> float | None:
    """Return the mean of a price over a time, by its changes.

    Args:
        changes: When it changed and to what, in order.
        start: Epoch seconds.
        end: Epoch seconds.

    Returns:
        ``None`` when the price at the start is not known.

    Example:
        >>> mean_price([(0.0, 1.0), (50.0, 3.0)], start=0.0, end=100.0)
        2.0
    """
    if end <= start or not changes or changes[0][0] > start:
        return None
    borders = [max(start, at) for at, _ in changes] + [end]
    parts = [
        (min(borders[n + 1], end) - borders[n]) * usd
        for n, (_, usd) in enumerate(changes)
        if borders[n] < end
    ]
    return math.fsum(parts) / (end - start)
