"""What would be cheaper, each with its arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from runsfleet_runtime.cost.reckon import DayCost

_LEAST_USD: Final = 0.10  # a day; below it nobody should spend an hour on it
_ON_DEMAND_SHARE: Final = 0.25
_USUAL_DISCOUNT: Final = 0.4  # a planning value where no spot price was measured: 40 to 60 %
_STORAGE_SHARE: Final = 0.25
_SHORT_SECONDS: Final = 120.0
_BOOT_SECONDS: Final = 40.0  # a cold boot (depot.dev, faster EC2 boot time)


@dataclass(frozen=True, slots=True)
class Advice:
    """A change that would save money.

    Attributes:
        saving_usd: How much a day, about.
        text: What to change and the arithmetic.
    """

    saving_usd: float
    text: str


def advise(cost: DayCost) -> tuple[Advice, ...]:
    """Return what an operator could change, the largest saving first.

    Args:
        cost: The bill of a day.

    Returns:
        Nothing that would save less than 10 cents a day.
    """
    found = [*_more_spot(cost), *_smaller_disks(cost), *_fewer_boots(cost)]
    worth = [advice for advice in found if advice.saving_usd >= _LEAST_USD]
    return tuple(sorted(worth, key=lambda advice: -advice.saving_usd))


def _more_spot(cost: DayCost) -> Iterator[Advice]:
    seconds = math.fsum(cost.seconds.values())
    on_demand = cost.seconds.get("on-demand", 0.0)
    if not seconds or on_demand / seconds <= _ON_DEMAND_SHARE:
        return
    usd = _usd(cost, "compute", " on-demand")
    discount, source = _spot_discount(cost, usd)
    yield Advice(
        usd * discount,
        f"{on_demand / seconds:.0%} of the instance hours were bought on demand for {usd:.2f} USD. "
        f"Spot is {discount:.0%} cheaper ({source}): {usd:.2f} x {discount:.2f} = "
        f"{usd * discount:.2f} USD a day. Look for labels with spot=false, open circuits, and jobs "
        "that were tried again after an interruption.",
    )


def _smaller_disks(cost: DayCost) -> Iterator[Advice]:
    usd = _usd(cost, "storage")
    if not cost.usd or usd / cost.usd <= _STORAGE_SHARE:
        return
    yield Advice(
        usd / 2,
        f"Volumes are {usd / cost.usd:.0%} of the bill. Disks of half the size would save "
        f"{usd:.2f} / 2 = {usd / 2:.2f} USD a day. Look at disk= in labels.",
    )


def _fewer_boots(cost: DayCost) -> Iterator[Advice]:
    seconds = math.fsum(cost.seconds.values())
    if not cost.instances or cost.paid_usd is None:
        return
    mean = seconds / cost.instances
    if mean >= _SHORT_SECONDS:
        return
    share = min(1.0, _BOOT_SECONDS / mean)
    yield Advice(
        cost.paid_usd * share / 2,
        f"An instance lived for {mean:.0f} s on average, and a cold boot takes about "
        f"{_BOOT_SECONDS:.0f} s of that ({share:.0%}). Half as many, longer jobs would save "
        f"{cost.paid_usd:.2f} x {share:.2f} / 2 = {cost.paid_usd * share / 2:.2f} USD a day.",
    )


def _spot_discount(cost: DayCost, on_demand_usd: float) -> tuple[float, str]:
    """Return the discount of the day's own spot instances, or what is usual."""
    saved = cost.spot_savings_usd
    if saved is not None and cost.at_on_demand_usd is not None:
        regular = cost.at_on_demand_usd - on_demand_usd
        if saved > 0 and regular > 0:
            return saved / regular, "this day's own spot prices"
    return _USUAL_DISCOUNT, "a planning value, not measured"


def _usd(cost: DayCost, section: str, what: str = "") -> float:
    return math.fsum(
        line.usd or 0.0 for line in cost.lines if line.section == section and what in line.what
    )
