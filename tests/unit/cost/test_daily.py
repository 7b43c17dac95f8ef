"""The daily report as a whole, over fakes of what it asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import pytest

from runsfleet_runtime.contract.metrics import Emitter
from runsfleet_runtime.cost.daily import DailyReport, ReportSettings
from runsfleet_runtime.cost.model import Day, InstanceUse, Item, JobUse
from runsfleet_runtime.cost.ports import LedgerUnavailableError
from runsfleet_runtime.cost.prices import ListedPrices
from runsfleet_runtime.cost.report import CostReport
from runsfleet_runtime.cost.trends import Summary
from runsfleet_runtime.telemetry.metrics import Metrics

NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC).timestamp()  # nine in Berlin


class World:
    """All that the report asks; keeps what it writes and says."""

    def __init__(self) -> None:
        self.days: list[Day] = []
        self.kept: list[CostReport] = []
        self.told: list[tuple[str, str]] = []
        self.lines: list[str] = []
        self.earlier: list[Summary] = []
        self.is_readable = True

    def instances(self, day: Day) -> Iterable[InstanceUse]:
        """Return one instance that ran for an hour."""
        if not self.is_readable:
            raise LedgerUnavailableError("the table did not answer")
        self.days.append(day)
        yield InstanceUse(
            instance_id="i-1",
            instance_type="c7g.xlarge",
            availability_zone="us-east-1a",
            capacity_type="on-demand",
            repository="acme/web",
            launched_at=day.start,
            ended_at=day.start + 3600,
        )

    def jobs(self, day: Day, instances: Sequence[InstanceUse]) -> Iterable[JobUse]:
        """Return its job."""
        del day
        return [
            JobUse(job_id=1, repository="a/b", vcpus=4, arch="arm64", is_windows=False, seconds=60)
            for _ in instances
        ]

    def of(self, day: Day) -> Mapping[Item, float | None]:
        """Return nothing but requests."""
        del day
        return {Item.SQS_REQUEST: 1000.0}

    def keep(self, report: CostReport) -> str:
        """Keep a report."""
        self.kept.append(report)
        return "s3://bucket/cost/x.html"

    def before(self, last: date) -> Sequence[Summary]:
        """Return what was given."""
        del last
        return self.earlier

    def tell(self, subject: str, text: str) -> None:
        """Keep what is said."""
        self.told.append((subject, text))

    def report(self, **settings: Any) -> DailyReport:
        """Return what is under test."""
        metrics = Metrics(
            Emitter.HOUSEKEEPING, fleet="dev", clock=lambda: NOW, write=self.lines.append
        )
        self.metrics = metrics
        return DailyReport(
            ReportSettings(fleet="dev", region="us-east-1", zone="Europe/Berlin", **settings),
            ledger=self,
            services=self,
            prices=lambda _day: ListedPrices(),
            reports=self,
            people=self,
            metrics=metrics,
            clock=lambda: NOW,
        )


def test_yesterday_is_reported_in_its_zone() -> None:
    """At nine in Berlin the day before is Berlin's, from its midnight to the next."""
    world = World()
    report = world.report().run()
    assert report.cost.day == Day.of(date(2026, 11, 20), "Europe/Berlin")
    assert not report.cost.is_partial
    assert world.kept == [report]
    ((subject, text),) = world.told
    assert subject == "dev cost 0.15 USD on 2026-11-20"
    assert text.endswith("s3://bucket/cost/x.html")


def test_any_day_can_be_reported_again() -> None:
    """A day that is not over is told to be partial."""
    world = World()
    report = world.report().run(date(2026, 11, 21))
    assert report.cost.is_partial
    assert report.cost.day.name == "2026-11-21"


def test_figures_become_metrics() -> None:
    """What is unknown has no data point."""
    world = World()
    world.report().run()
    world.metrics.flush()
    text = "".join(world.lines)
    assert '"DayCost":0.15' in text
    assert '"CostUnusual":0' in text
    assert "MonthForecast" not in text


def test_without_the_ledger_there_is_no_report() -> None:
    """None is better than one that is too low."""
    world = World()
    world.is_readable = False
    with pytest.raises(LedgerUnavailableError):
        world.report().run()
    assert (world.kept, world.told) == ([], [])
