"""Dated prices of us-east-1: the fallback where a current price cannot be asked; always labelled.

Sources: instances, the AWS price list of 2026-01-19 (``fleet.catalogue``); all else, the public AWS
price list of August 2026; GitHub's rates, its billing reference from 2026-01-01 on.
"""

from __future__ import annotations

from typing import Final, Protocol

from runsfleet_runtime.cost.model import Item, Price
from runsfleet_runtime.fleet.catalogue import CATALOGUE, PRICES_AS_OF

LISTED_REGION: Final = "us-east-1"
_SERVICES_AS_OF: Final = "2026-08"

# us-east-1, USD
_LISTED: Final = {
    Item.GP3_GIB_MONTH: 0.08,
    Item.IPV4_HOUR: 0.005,
    Item.LAMBDA_REQUEST: 0.20 / 1e6,
    Item.LAMBDA_GIB_SECOND: 0.0000133334,  # arm64
    Item.SQS_FIFO_REQUEST: 0.50 / 1e6,
    Item.SQS_REQUEST: 0.40 / 1e6,
    Item.DYNAMODB_WRITE: 0.625 / 1e6,
    Item.DYNAMODB_READ: 0.125 / 1e6,
    Item.DYNAMODB_GIB_MONTH: 0.25,
    Item.S3_GIB_MONTH: 0.023,
    Item.LOGS_GIB: 0.50,
    Item.SECRET_MONTH: 0.40,
    Item.METRIC_MONTH: 0.30,
    Item.ALARM_MONTH: 0.10,
}

# USD a minute, private repositories, by vCPUs; each job is rounded up to a whole minute
_HOSTED: Final = {
    ("x64", False): {2: 0.006, 4: 0.012, 8: 0.022, 16: 0.042, 32: 0.082, 64: 0.162, 96: 0.252},
    ("arm64", False): {2: 0.005, 4: 0.008, 8: 0.014, 16: 0.026, 32: 0.050, 64: 0.098},
    ("x64", True): {2: 0.010, 4: 0.022, 8: 0.042, 16: 0.082, 32: 0.162, 64: 0.322, 96: 0.552},
    ("arm64", True): {2: 0.008, 4: 0.014, 8: 0.026, 16: 0.050, 32: 0.098, 64: 0.194},
}
HOSTED_SOURCE: Final = "GitHub's rates since 2026-01-01"


class KnowsPrices(Protocol):
    """Prices of the fleet's region; ``None`` is an answer."""

    def on_demand(self, instance_type: str, *, is_windows: bool) -> Price | None:
        """Return the price of an hour on demand."""

    def spot(
        self, instance_type: str, zone: str, *, is_windows: bool, start: float, end: float
    ) -> Price | None:
        """Return the mean price of a spot hour between two epoch seconds."""

    def of(self, item: Item) -> Price | None:
        """Return the price of a unit."""


class ListedPrices:
    """The dated table.

    Args:
        region: The fleet's region; elsewhere than in us-east-1 the label says so.
    """

    def __init__(self, *, region: str = LISTED_REGION) -> None:
        self._where = LISTED_REGION if region == LISTED_REGION else f"{LISTED_REGION}, not {region}"

    def on_demand(self, instance_type: str, *, is_windows: bool) -> Price | None:
        """Return the listed price of an hour; the table has Linux alone."""
        kind = CATALOGUE.get(instance_type)
        if kind is None or is_windows:
            return None
        return self._price(kind.ondemand_usd_per_hour, PRICES_AS_OF)

    def spot(
        self, instance_type: str, zone: str, *, is_windows: bool, start: float, end: float
    ) -> Price | None:
        """Return nothing: a spot price of another day says nothing of this one."""
        del instance_type, zone, is_windows, start, end
        return None

    def of(self, item: Item) -> Price | None:
        """Return the listed price of a unit."""
        usd = _LISTED.get(item)
        return None if usd is None else self._price(usd, _SERVICES_AS_OF)

    def _price(self, usd: float, as_of: str) -> Price:
        return Price(usd=usd, source=f"table of {as_of} ({self._where})", is_listed=True)


def hosted_usd_per_minute(*, vcpus: int, arch: str, is_windows: bool) -> float | None:
    """Return what a minute costs on GitHub's own runner of at least that size.

    Args:
        vcpus: vCPUs of the instance that ran the job.
        arch: ``arm64`` or ``x64``.
        is_windows: Whether it ran Windows.

    Returns:
        USD; ``None`` when GitHub has no runner of that size.

    Example:
        >>> hosted_usd_per_minute(vcpus=3, arch="arm64", is_windows=False)
        0.008
    """
    rates = _HOSTED.get((arch, is_windows), {})
    fitting = [size for size in rates if size >= vcpus]
    return rates[min(fitting)] if fitting else None
