"""The bill of a day: measured seconds times prices, and who caused them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from runsfleet_runtime.cost.model import Day, InstanceUse, Item, JobUse, Line, Price
from runsfleet_runtime.cost.prices import KnowsPrices, hosted_usd_per_minute

MONTH_HOURS: Final = 720
"""EBS bills a GB-month as 30 days of 24 hours (Amazon EBS pricing, its example)."""

LEAST_SECONDS: Final = 60.0
"""EC2 bills an instance for a minute at least (Amazon EC2 pricing)."""

_SERVICE_UNITS: Final = {
    Item.LAMBDA_REQUEST: "requests",
    Item.LAMBDA_GIB_SECOND: "GiB-seconds",
    Item.SQS_FIFO_REQUEST: "requests",
    Item.SQS_REQUEST: "requests",
    Item.DYNAMODB_WRITE: "write units",
    Item.DYNAMODB_READ: "read units",
    Item.DYNAMODB_GIB_MONTH: "GiB-months",
    Item.S3_GIB_MONTH: "GiB-months",
    Item.LOGS_GIB: "GiB",
    Item.SECRET_MONTH: "secret-months",
    Item.METRIC_MONTH: "metric-months",
    Item.ALARM_MONTH: "alarm-months",
}


@dataclass(frozen=True, slots=True)
class Span:
    """For how long of a day an instance is billed.

    Attributes:
        start: Epoch seconds.
        end: Epoch seconds.
        is_open: Whether its end was not seen: it runs still, or nobody knows.
    """

    start: float
    end: float
    is_open: bool = False

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.start


def span_within(use: InstanceUse, day: Day, *, now: float, lifetime: float) -> Span | None:
    """Return for how long of a day an instance is billed; ``None`` when for none of it.

    Args:
        use: The instance.
        day: The day.
        now: Epoch seconds; what lies after it has not happened yet.
        lifetime: Seconds that no instance outlives, by its watchdog; bounds one whose end nobody
            saw.

    Example:
        >>> from datetime import date
        >>> use = InstanceUse(
        ...     instance_id="i-1",
        ...     instance_type="c7g.large",
        ...     availability_zone="a",
        ...     capacity_type="spot",
        ...     launched_at=-60.0,
        ...     ended_at=60.0,
        ... )
        >>> span_within(use, Day.of(date(1970, 1, 1)), now=1e9, lifetime=3600).seconds
        60.0
    """
    is_open = use.ended_at is None
    end = min(now, use.launched_at + lifetime) if use.ended_at is None else use.ended_at
    end = max(end, use.launched_at + LEAST_SECONDS)
    start, end = max(use.launched_at, day.start), min(end, day.end)
    return Span(start, end, is_open) if end > start else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one repository, workflow or pool caused.

    Attributes:
        name: Its name.
        instances: Instances that ran for it.
        seconds: Their seconds.
        usd: What they cost, volumes and addresses included.
    """

    name: str
    instances: int
    seconds: float
    usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DayCost:
    """What a day cost.

    Attributes:
        day: The day.
        lines: The bill.
        repositories: Who caused it, the dearest first.
        workflows: The same by repository and workflow.
        pools: The same by pool; instances without one are ``(none)``.
        instances: Instances that ran.
        open_instances: Those whose end was not seen; their seconds are reckoned until now, or
            until their longest life.
        seconds: Instance seconds by ``spot`` and ``on-demand``.
        at_on_demand_usd: What the same seconds would have cost on demand, where both prices are
            known; ``None`` when they are for none.
        paid_usd: What those seconds cost as they were bought.
        hosted_usd: What the same jobs would have cost on GitHub's runners; ``None`` when unknown.
        hosted_jobs: How many jobs that is.
        jobs: How many jobs ran.
        unpriced: What was measured and has no price.
        unmeasured: What was not measured.
        is_partial: Whether the day was not over.
    """

    day: Day
    lines: tuple[Line, ...]
    repositories: tuple[Share, ...] = ()
    workflows: tuple[Share, ...] = ()
    pools: tuple[Share, ...] = ()
    instances: int = 0
    open_instances: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    at_on_demand_usd: float | None = None
    paid_usd: float | None = None
    hosted_usd: float | None = None
    hosted_jobs: int = 0
    jobs: int = 0
    unpriced: tuple[str, ...] = ()
    unmeasured: tuple[str, ...] = ()
    is_partial: bool = False

    @property
    def usd(self) -> float:
        """All that has a price."""
        return math.fsum(line.usd for line in self.lines if line.usd is not None)

    @property
    def spot_savings_usd(self) -> float | None:
        """What spot saved against on-demand; ``None`` when unknown."""
        if self.at_on_demand_usd is None or self.paid_usd is None:
            return None
        return self.at_on_demand_usd - self.paid_usd


def reckon(
    day: Day,
    *,
    instances: Iterable[InstanceUse],
    jobs: Iterable[JobUse],
    services: Mapping[Item, float | None],
    prices: KnowsPrices,
    now: float,
    lifetime: float,
    self_hosted_usd_per_minute: float = 0.0,
) -> DayCost:
    """Reckon a day.

    Args:
        day: The day.
        instances: All that ran at some time of it; others do no harm.
        jobs: The jobs that ended within it.
        services: How much of each item was used; ``None`` for what could not be measured.
        prices: The prices.
        now: Epoch seconds.
        lifetime: Seconds that no instance outlives.
        self_hosted_usd_per_minute: What GitHub charges for a minute on runners of one's own
            (announced at 0.002, postponed; 0 by default).

    Returns:
        The bill. Its lines sum up to its total, and so do the shares to compute, volumes and
        addresses.
    """
    bill = _Bill(prices)
    count = opened = 0
    for use in instances:
        span = span_within(use, day, now=now, lifetime=lifetime)
        if span is not None:
            count += 1
            opened += span.is_open
            bill.add(use, span)
    jobs = list(jobs)
    minutes = math.fsum(_minutes(job.seconds) for job in jobs)
    lines = bill.lines()
    if self_hosted_usd_per_minute and jobs:
        fee = Price(usd=self_hosted_usd_per_minute, source="configured")
        lines.append(
            Line(
                section="services",
                what="GitHub's charge for self-hosted runners",
                quantity=minutes,
                unit="minutes",
                price=fee,
            )
        )
    unmeasured = []
    for item, quantity in services.items():
        if quantity is None:
            unmeasured.append(item.value)
        elif quantity:
            lines.append(
                Line(
                    section="services",
                    what=item.value,
                    quantity=quantity,
                    unit=_SERVICE_UNITS[item],
                    price=prices.of(item),
                )
            )
    hosted = [(job, _hosted(job)) for job in jobs]
    known = [usd for _, usd in hosted if usd is not None]
    return DayCost(
        day=day,
        lines=tuple(lines),
        repositories=_shares(bill.by_repository),
        workflows=_shares(bill.by_workflow),
        pools=_shares(bill.by_pool),
        instances=count,
        open_instances=opened,
        seconds=dict(bill.seconds),
        at_on_demand_usd=math.fsum(bill.on_demand) if bill.on_demand else None,
        paid_usd=math.fsum(bill.paid) if bill.paid else None,
        hosted_usd=math.fsum(known) if known else None,
        hosted_jobs=len(known),
        jobs=len(jobs),
        unpriced=tuple(dict.fromkeys(line.what for line in lines if line.price is None)),
        unmeasured=tuple(unmeasured),
        is_partial=now < day.end,
    )


def _minutes(seconds: float) -> int:
    return max(1, math.ceil(seconds / 60))


def _hosted(job: JobUse) -> float | None:
    rate = hosted_usd_per_minute(vcpus=job.vcpus, arch=job.arch, is_windows=job.is_windows)
    return None if rate is None else rate * _minutes(job.seconds)


class _Bill:
    """Gathers the lines of instances and who caused them."""

    def __init__(self, prices: KnowsPrices) -> None:
        self._prices = prices
        # instance hours of spot differ in price by the hour: each instance has a price of its own
        self._compute: defaultdict[tuple[str, str, str, bool], list[tuple[float, Price | None]]]
        self._compute = defaultdict(list)
        self._disk_gib_seconds = 0.0
        self._ipv4_seconds = 0.0
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.on_demand: list[float] = []
        self.paid: list[float] = []
        self.by_repository: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        self.by_workflow: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        self.by_pool: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)

    def add(self, use: InstanceUse, span: Span) -> None:
        hours = span.seconds / 3600
        regular = self._prices.on_demand(use.instance_type, is_windows=use.is_windows)
        price = regular
        if use.capacity_type == "spot":
            price = self._prices.spot(
                use.instance_type,
                use.availability_zone,
                is_windows=use.is_windows,
                start=span.start,
                end=span.end,
            )
        key = (use.instance_type, use.capacity_type, use.availability_zone, use.is_windows)
        self._compute[key].append((hours, price))
        self._disk_gib_seconds += use.disk_gib * span.seconds
        self._ipv4_seconds += span.seconds if use.has_public_ipv4 else 0.0
        self.seconds[use.capacity_type] += span.seconds
        if price is not None and regular is not None:
            self.paid.append(hours * price.usd)
            self.on_demand.append(hours * regular.usd)
        usd = math.fsum(
            [
                hours * price.usd if price else 0.0,
                use.disk_gib * hours / MONTH_HOURS * self._usd(Item.GP3_GIB_MONTH),
                hours * self._usd(Item.IPV4_HOUR) if use.has_public_ipv4 else 0.0,
            ]
        )
        share = (span.seconds, usd)
        self.by_repository[use.repository or "(unknown)"].append(share)
        workflow = f"{use.repository or '(unknown)'} · {use.workflow or '(unnamed)'}"
        self.by_workflow[workflow].append(share)
        self.by_pool[use.pool or "(none)"].append(share)

    def _usd(self, item: Item) -> float:
        price = self._prices.of(item)
        return price.usd if price else 0.0

    def lines(self) -> list[Line]:
        lines = []
        for (kind, capacity, zone, is_windows), parts in sorted(self._compute.items()):
            system = " Windows" if is_windows else ""
            what = f"{kind} {capacity}{system} {zone}".rstrip()
            lines += [_compute_line(what, group) for group in _by_knowledge(parts)]
        if self._disk_gib_seconds:
            lines.append(
                Line(
                    section="storage",
                    what=Item.GP3_GIB_MONTH.value,
                    quantity=self._disk_gib_seconds / 3600 / MONTH_HOURS,
                    unit="GiB-months",
                    price=self._prices.of(Item.GP3_GIB_MONTH),
                )
            )
        if self._ipv4_seconds:
            lines.append(
                Line(
                    section="network",
                    what=Item.IPV4_HOUR.value,
                    quantity=self._ipv4_seconds / 3600,
                    unit="hours",
                    price=self._prices.of(Item.IPV4_HOUR),
                )
            )
        return lines


def _by_knowledge(
    parts: Sequence[tuple[float, Price | None]],
) -> list[Sequence[tuple[float, Price | None]]]:
    known = [part for part in parts if part[1] is not None]
    unknown = [part for part in parts if part[1] is None]
    return [group for group in (known, unknown) if group]


def _compute_line(what: str, parts: Sequence[tuple[float, Price | None]]) -> Line:
    """Return one line of instances that differ in price: the price is the mean by hours."""
    hours = math.fsum(h for h, _ in parts)
    prices = [(h, price) for h, price in parts if price is not None]
    mean = None
    if prices:
        mean = Price(
            usd=math.fsum(h * p.usd for h, p in prices) / hours,
            source=", ".join(sorted({p.source for _, p in prices})),
            is_listed=any(p.is_listed for _, p in prices),
        )
    return Line(section="compute", what=what, quantity=hours, unit="hours", price=mean)


def _shares(parts: Mapping[str, Sequence[tuple[float, float]]]) -> tuple[Share, ...]:
    shares = [
        Share(
            name=name,
            instances=len(each),
            seconds=math.fsum(seconds for seconds, _ in each),
            usd=math.fsum(usd for _, usd in each),
        )
        for name, each in parts.items()
    ]
    return tuple(sorted(shares, key=lambda share: (-share.usd, share.name)))
