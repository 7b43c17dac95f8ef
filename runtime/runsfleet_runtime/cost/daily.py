"""The daily report: measure, reckon, compare, keep, tell; in this order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from runsfleet_runtime.contract.metrics import Metric
from runsfleet_runtime.cost.model import Day, time_zone
from runsfleet_runtime.cost.ports import KeepsLedger, KeepsReports, MeasuresServices, Notifies
from runsfleet_runtime.cost.prices import KnowsPrices
from runsfleet_runtime.cost.reckon import reckon
from runsfleet_runtime.cost.report import CostReport
from runsfleet_runtime.cost.trends import Summary, trends
from runsfleet_runtime.telemetry.log import get_logger
from runsfleet_runtime.telemetry.metrics import CountsMetrics

log = get_logger("cost")

_SUBJECT: Final = 100  # characters that SNS takes


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSettings:
    """What the report is configured with.

    Attributes:
        fleet: Name of the fleet.
        region: Its region.
        zone: Time zone whose days are reckoned, such as ``Europe/Berlin``.
        lifetime_seconds: Longest life of an instance, by its watchdog.
        self_hosted_usd_per_minute: What GitHub charges for minutes on runners of one's own.
    """

    fleet: str
    region: str
    zone: str = "UTC"
    lifetime_seconds: float = 8 * 3600
    self_hosted_usd_per_minute: float = 0.0


class DailyReport:
    """The use case of the daily report.

    Args:
        settings: See :class:`ReportSettings`.
        ledger: What ran.
        services: What the supporting services did.
        prices: Makes the prices of a day.
        reports: Where reports are kept.
        people: Who is told; nobody when ``None``.
        metrics: Where metrics go.
        clock: Returns epoch seconds.
    """

    def __init__(
        self,
        settings: ReportSettings,
        *,
        ledger: KeepsLedger,
        services: MeasuresServices,
        prices: Callable[[Day], KnowsPrices],
        reports: KeepsReports,
        people: Notifies | None,
        metrics: CountsMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._services = services
        self._prices = prices
        self._reports = reports
        self._people = people
        self._metrics = metrics
        self._clock = clock

    def run(self, day: date | None = None) -> CostReport:
        """Report on a day.

        May be repeated: the same day is written over, and earlier days stay as they are.

        Args:
            day: The day; by default yesterday in the configured zone.

        Raises:
            LedgerUnavailableError: If what ran could not be read; there is no report then.
            ReportsUnavailableError: If the report could not be kept.
        """
        settings, now = self._settings, self._clock()
        if day is None:
            day = datetime.fromtimestamp(now, time_zone(settings.zone)).date() - timedelta(days=1)
        span = Day.of(day, settings.zone)
        instances = list(self._ledger.instances(span))
        cost = reckon(
            span,
            instances=instances,
            jobs=self._ledger.jobs(span, instances),
            services=self._services.of(span),
            prices=self._prices(span),
            now=now,
            lifetime=settings.lifetime_seconds,
            self_hosted_usd_per_minute=settings.self_hosted_usd_per_minute,
        )
        together = trends(Summary.of(cost), self._reports.before(day))
        report = CostReport(
            fleet=settings.fleet, region=settings.region, cost=cost, trends=together
        )
        where = self._reports.keep(report)
        self._count(report)
        log.info(
            "cost reported",
            extra={"day": span.name, "usd": round(cost.usd, 4), "jobs": cost.jobs, "where": where},
        )
        if self._people is not None:
            subject = f"{settings.fleet} cost {cost.usd:.2f} USD on {span.name}"
            text = f"{report.summary()}\n{where}"
            self._people.tell(subject[:_SUBJECT], text)
        return report

    def _count(self, report: CostReport) -> None:
        cost, together = report.cost, report.trends
        self._metrics.add(Metric.DAY_COST, cost.usd)
        if together.forecast_usd is not None:
            self._metrics.add(Metric.MONTH_FORECAST, together.forecast_usd)
        if cost.spot_savings_usd is not None:
            self._metrics.add(Metric.SPOT_SAVINGS, cost.spot_savings_usd)
        self._metrics.add(Metric.COST_UNUSUAL, int(together.is_unusual))
