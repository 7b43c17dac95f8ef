"""One page for fleets of several regions: which of them is in trouble, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from runsfleet_constructs._checks import Findings
from runsfleet_constructs.fleet import RunnerFleet
from runsfleet_runtime.contract.metrics import Metric, MetricDefinition

_WIDTH: Final = 8  # a third of the 24 columns
_HEIGHT: Final = 6


class RegionsDashboard(Construct):
    """A dashboard with a line for each region, in whichever region it is deployed.

    CloudWatch draws metrics of other regions of the account by itself. It names fleets by what they
    are called and refers to nothing of theirs, so the stacks stay independent of each other. Queues
    are on the page of each region (:class:`FleetDashboard`). It costs 3 USD a month, once.

    Args:
        scope: Parent.
        construct_id: Id.
        fleets: The fleets, each in a stack with a region of its own.
        dashboard_name: Name of the page; by default CloudFormation's.

    Raises:
        ValueError: If there are fewer than two fleets, one whose region is not known when the
            template is made, or two of one name in one region.

    Attributes:
        dashboard: The page.

    Example:
        >>> RegionsDashboard(self, "Regions", fleets=[frankfurt, ohio])  # doctest: +SKIP
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        fleets: Sequence[RunnerFleet],
        dashboard_name: str | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        self._fleets = _places(fleets)
        self.dashboard = cloudwatch.Dashboard(
            self,
            "Dashboard",
            dashboard_name=dashboard_name,
            default_interval=cdk.Duration.hours(6),
        )
        total, day = self._total, cdk.Duration.days(1)
        self.dashboard.add_widgets(
            self._graph("Jobs queued", self._plain(Metric.JOBS_QUEUED)),
            self._graph("Jobs launched", total(Metric.JOBS_LAUNCHED)),
            self._graph("Instances", self._plain(Metric.FLEET_SIZE, statistic="Maximum")),
            self._graph("From queued to launched, p95, seconds", self._plain(Metric.LAUNCH_WAIT)),
            self._graph("Duration of jobs, p95, seconds", self._plain(Metric.JOB_DURATION)),
            self._graph("Spot interruptions", total(Metric.SPOT_INTERRUPTIONS)),
            self._graph("Open circuits, spot", self._plain(Metric.BREAKER_OPEN, "spot", "Maximum")),
            self._graph("Sweeps that failed", self._plain(Metric.SWEEP_RUNS_FAILED)),
            self._graph(
                "Cost of a day, USD", self._plain(Metric.DAY_COST, statistic="Maximum", period=day)
            ),
        )

    def _plain(
        self,
        definition: MetricDefinition,
        kind: str | None = None,
        statistic: str | None = None,
        **options: Any,
    ) -> list[cloudwatch.IMetric]:
        given = options if statistic is None else {**options, "statistic": statistic}
        return self._each(
            lambda fleet, region, label: fleet.metrics.metric(
                definition, kind=kind, region=region, label=label, **given
            )
        )

    def _total(self, definition: MetricDefinition) -> list[cloudwatch.IMetric]:
        return self._each(
            lambda fleet, region, label: fleet.metrics.total(
                definition, region=region, label=label, prefix=f"m{region.replace('-', '')}x"
            )
        )

    def _each(
        self, make: Callable[[RunnerFleet, str, str], cloudwatch.IMetric]
    ) -> list[cloudwatch.IMetric]:
        return [make(fleet, region, label) for label, region, fleet in self._fleets]

    def _graph(self, title: str, lines: Sequence[cloudwatch.IMetric]) -> cloudwatch.GraphWidget:
        return cloudwatch.GraphWidget(
            title=title,
            left=list(lines),
            left_y_axis=cloudwatch.YAxisProps(min=0),
            width=_WIDTH,
            height=_HEIGHT,
        )


def _places(fleets: Sequence[RunnerFleet]) -> list[tuple[str, str, RunnerFleet]]:
    """Return label, region and fleet of each; a label is the region where that says enough."""
    findings = Findings()
    findings.at_least("number of fleets", len(fleets), 2, "use FleetDashboard for one")
    regions = [cdk.Stack.of(fleet).region for fleet in fleets]
    for fleet, region in zip(fleets, regions, strict=True):
        if cdk.Token.is_unresolved(region):
            findings.add(
                f"fleet {fleet.fleet_name!r} is in a stack without a region; "
                "give the stack env=Environment(region=...)"
            )
    places = [
        (fleet.fleet_name, region)
        for fleet, region in zip(fleets, regions, strict=True)
        if not cdk.Token.is_unresolved(region)
    ]
    for name, region in sorted(p for p in set(places) if places.count(p) > 1):
        findings.add(f"fleets must differ in name or region, got {name!r} in {region} twice")
    findings.raise_all()
    are_alone = len(set(regions)) == len(regions)
    return [
        (region if are_alone else f"{fleet.fleet_name} {region}", region, fleet)
        for fleet, region in zip(fleets, regions, strict=True)
    ]
