"""The bill of a day, against a reckoning by other means."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runsfleet_runtime.cost.model import Day, InstanceUse, Item, JobUse, Price
from runsfleet_runtime.cost.prices import ListedPrices, hosted_usd_per_minute
from runsfleet_runtime.cost.reckon import DayCost, reckon, span_within

DAY = Day.of(date(2026, 11, 20))
LIFETIME = 8 * 3600.0
LATER = DAY.end + 9 * 3600


class Prices:
    """Prices of a test; spot costs 40 % of on-demand wherever it is known."""

    def __init__(self, hourly: Mapping[str, float], *, spot: bool = True) -> None:
        self._hourly = hourly
        self._spot = spot

    def on_demand(self, instance_type: str, *, is_windows: bool) -> Price | None:
        """Return the price of an hour."""
        usd = self._hourly.get(instance_type)
        return None if usd is None or is_windows else Price(usd=usd, source="test")

    def spot(self, instance_type: str, zone: str, **_: Any) -> Price | None:
        """Return the price of a spot hour."""
        usd = self._hourly.get(instance_type)
        return Price(usd=usd * 0.4, source=f"spot {zone}") if self._spot and usd else None

    def of(self, item: Item) -> Price | None:
        """Return the listed price."""
        return ListedPrices().of(item)


PRICES = Prices({"c7g.xlarge": 0.145, "c6i.xlarge": 0.17})


def use(number: int = 1, **changes: Any) -> InstanceUse:
    """Return an instance that ran for one hour of the day."""
    values: dict[str, Any] = {
        "instance_id": f"i-{number}",
        "instance_type": "c7g.xlarge",
        "availability_zone": "us-east-1a",
        "capacity_type": "on-demand",
        "repository": "acme/web",
        "workflow": "ci",
        "disk_gib": 50,
        "launched_at": DAY.start + 3600,
        "ended_at": DAY.start + 7200,
    }
    return InstanceUse(**(values | changes))


def bill(*instances: InstanceUse, **changes: Any) -> DayCost:
    """Reckon the day."""
    values: dict[str, Any] = {
        "instances": instances,
        "jobs": (),
        "services": {},
        "prices": PRICES,
        "now": LATER,
        "lifetime": LIFETIME,
    }
    return reckon(DAY, **(values | changes))


def test_an_hour_on_demand_costs_its_price_its_disk_and_its_address() -> None:
    """0.145 for the hour, 50 GiB of 0.08 a month of 720 hours, 0.005 for the address."""
    cost = bill(use())
    assert cost.usd == pytest.approx(0.145 + 50 * 0.08 / 720 + 0.005)
    assert [line.section for line in cost.lines] == ["compute", "storage", "network"]
    assert (cost.instances, cost.open_instances, cost.is_partial) == (1, 0, False)


def test_only_the_seconds_of_the_day_count() -> None:
    """An instance of two days is billed on each for what it ran there."""
    over_night = use(launched_at=DAY.start - 1800, ended_at=DAY.start + 900)
    assert bill(over_night).lines[0].quantity == pytest.approx(0.25)
    assert bill(use(launched_at=DAY.end, ended_at=DAY.end + 60)).lines == ()
    assert bill(use(launched_at=DAY.start - 60, ended_at=DAY.start)).lines == ()


def test_ec2_bills_a_minute_at_least() -> None:
    """Ten seconds cost a minute."""
    short = use(launched_at=DAY.start, ended_at=DAY.start + 10)
    assert bill(short).lines[0].quantity == pytest.approx(1 / 60)


def test_an_instance_whose_end_nobody_saw_is_told_of() -> None:
    """It counts until now, but no longer than its watchdog lets it live."""
    still = use(ended_at=None)
    assert span_within(still, DAY, now=DAY.start + 4000, lifetime=LIFETIME) is not None
    running = bill(still, now=DAY.start + 4000)
    assert running.lines[0].quantity == pytest.approx(400 / 3600)
    assert (running.open_instances, running.is_partial) == (1, True)
    lost = bill(still, now=LATER)
    assert lost.lines[0].quantity == pytest.approx(LIFETIME / 3600)


def test_what_spot_saved_is_reckoned_where_both_prices_are_known() -> None:
    """Spot at 40 % saves 60 % of the regular price; what has no price is left out and named."""
    unknown = use(2, instance_type="x9z.huge", capacity_type="spot")
    cost = bill(use(capacity_type="spot"), unknown)
    assert cost.spot_savings_usd == pytest.approx(0.145 * 0.6)
    assert cost.unpriced == ("x9z.huge spot us-east-1a",)
    assert cost.usd == pytest.approx(0.145 * 0.4 + 2 * (50 * 0.08 / 720 + 0.005))
    assert bill(use(capacity_type="spot"), prices=Prices({}, spot=False)).spot_savings_usd is None


def test_windows_is_never_billed_as_linux() -> None:
    """A price of Linux says nothing of Windows."""
    cost = bill(use(is_windows=True))
    assert cost.unpriced == ("c7g.xlarge on-demand Windows us-east-1a",)


def test_what_was_not_measured_is_named_and_not_zero() -> None:
    """A service whose use is unknown has no line; one that was not used has none either."""
    services = {Item.LAMBDA_REQUEST: 1e6, Item.SQS_REQUEST: None, Item.S3_GIB_MONTH: 0.0}
    cost = bill(services=services)
    assert [line.what for line in cost.lines] == ["Lambda requests"]
    assert cost.usd == pytest.approx(0.20)
    assert cost.unmeasured == ("SQS requests",)


def test_shares_name_who_caused_it() -> None:
    """By repository, workflow and pool; the dearest first."""
    cost = bill(
        use(1),
        use(2, repository="acme/api", workflow="", pool="warm"),
        use(3, repository="acme/api", ended_at=DAY.start + 3600 * 4),
    )
    assert [(s.name, s.instances) for s in cost.repositories] == [("acme/api", 2), ("acme/web", 1)]
    assert {s.name for s in cost.workflows} == {
        "acme/api · (unnamed)",
        "acme/api · ci",
        "acme/web · ci",
    }
    assert {s.name for s in cost.pools} == {"(none)", "warm"}
    for shares in (cost.repositories, cost.workflows, cost.pools):
        assert sum(s.usd for s in shares) == pytest.approx(cost.usd)


def test_the_same_jobs_on_githubs_runners_are_rounded_up_to_minutes() -> None:
    """Each job by itself: 61 s are two minutes."""
    job = JobUse(
        job_id=1, repository="acme/web", vcpus=4, arch="arm64", is_windows=False, seconds=61
    )
    huge = JobUse(
        job_id=2, repository="acme/web", vcpus=128, arch="arm64", is_windows=False, seconds=1
    )
    cost = bill(jobs=[job, huge])
    assert cost.hosted_usd == pytest.approx(2 * 0.008)
    assert (cost.hosted_jobs, cost.jobs) == (1, 2)
    assert hosted_usd_per_minute(vcpus=2, arch="x64", is_windows=True) == 0.010


def test_a_charge_for_self_hosted_minutes_is_a_line_of_its_own() -> None:
    """GitHub postponed it; whoever wants to see it sets it."""
    job = JobUse(job_id=1, repository="a/b", vcpus=2, arch="x64", is_windows=False, seconds=90)
    cost = bill(jobs=[job], self_hosted_usd_per_minute=0.002)
    assert cost.usd == pytest.approx(0.004)


def test_a_day_without_anything_costs_nothing() -> None:
    """No line, no share, no savings."""
    cost = bill()
    assert (cost.usd, cost.lines, cost.repositories) == (0.0, (), ())
    assert (cost.spot_savings_usd, cost.hosted_usd) == (None, None)


@pytest.mark.parametrize(
    ("day", "hours"),
    [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25), (date(2026, 12, 31), 24)],
)
def test_days_on_which_the_clocks_change(day: date, hours: float) -> None:
    """An instance that ran all day is billed for the hours that the day had."""
    berlin = Day.of(day, "Europe/Berlin")
    always = use(launched_at=berlin.start - 60, ended_at=berlin.end + 60)
    cost = reckon(
        berlin,
        instances=[always],
        jobs=(),
        services={},
        prices=PRICES,
        now=berlin.end + 1,
        lifetime=1e9,
    )
    assert cost.lines[0].quantity == hours


@given(
    st.lists(
        st.tuples(
            st.floats(-7200, 86400),  # launched, seconds after the day's start
            st.floats(1, 20000),  # how long it ran
            st.sampled_from(["c7g.xlarge", "c6i.xlarge"]),
            st.sampled_from(["spot", "on-demand"]),
            st.integers(8, 500),
            st.sampled_from(["a/a", "a/b", "c/c"]),
        ),
        max_size=40,
    )
)
def test_bill_equals_a_second_by_second_reckoning(
    runs: list[tuple[float, float, str, str, int, str]],
) -> None:
    """Lines and shares agree with the plain sum over all instances within a thousandth."""
    instances = [
        use(
            n,
            launched_at=DAY.start + at,
            ended_at=DAY.start + at + seconds,
            instance_type=kind,
            capacity_type=capacity,
            disk_gib=disk,
            repository=repository,
        )
        for n, (at, seconds, kind, capacity, disk, repository) in enumerate(runs)
    ]
    expected = 0.0
    for at, seconds, kind, capacity, disk, _ in runs:
        within = max(0.0, min(at + max(seconds, 60), 86400) - max(at, 0.0))
        hourly = {"c7g.xlarge": 0.145, "c6i.xlarge": 0.17}[kind]
        hourly *= 0.4 if capacity == "spot" else 1
        expected += within / 3600 * (hourly + disk * 0.08 / 720 + 0.005)
    cost = bill(*instances)
    assert cost.usd == pytest.approx(expected, rel=1e-3, abs=1e-9)
    assert sum(s.usd for s in cost.repositories) == pytest.approx(cost.usd, rel=1e-9, abs=1e-9)
    assert bill(*reversed(instances)).usd == pytest.approx(cost.usd, rel=1e-12, abs=1e-12)
