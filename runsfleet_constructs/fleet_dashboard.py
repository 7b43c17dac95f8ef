"""One page that answers: do jobs wait, why, and what does it cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_logs as logs
from constructs import Construct

from runsfleet_constructs._checks import Findings
from runsfleet_constructs.fleet import RunnerFleet
from runsfleet_constructs.fleet_alarms import FleetAlarms
from runsfleet_runtime.contract.metrics import Metric

_WIDTH: Final = 6  # a quarter of the 24 columns
_HEIGHT: Final = 6
_FIVE: Final = 300  # seconds of a period


class DashboardSection(StrEnum):
    """Sections of the page, from the top."""

    ALARMS = "Alarms"
    QUEUES = "Queues"
    FLEET = "Fleet"
    COST_AND_PERFORMANCE = "Cost and performance"
    RELIABILITY = "Reliability"


class FleetDashboard(Construct):
    """A dashboard of a fleet, and the saved queries that its questions lead to.

    Every widget names a metric that the fleet emits; tests compare them with a run. A dashboard
    costs 3 USD a month, the first three of an account nothing.

    Args:
        scope: Parent.
        construct_id: Id.
        fleet: What is shown.
        alarms: Its alarms; their states are shown at the top.
        leave_out: Sections to leave out.
        more: Further widgets by the title of their section, below the fleet's own.
        dashboard_name: Name of the page; by default CloudFormation's.

    Raises:
        ValueError: If a section to leave out is none.

    Attributes:
        dashboard: The page.
        queries: The saved queries by name.

    Example:
        >>> FleetDashboard(self, "Dashboard", fleet=fleet)  # doctest: +SKIP
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        fleet: RunnerFleet,
        alarms: FleetAlarms | None = None,
        leave_out: Sequence[DashboardSection | str] = (),
        more: Mapping[str, Sequence[cloudwatch.IWidget]] = MappingProxyType({}),
        dashboard_name: str | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        findings = Findings()
        for name in leave_out:
            if name not in set(DashboardSection):
                findings.add(f"a section is one of {', '.join(DashboardSection)}, got {name!r}")
        findings.raise_all()
        self._fleet = fleet
        self._alarms = alarms
        self.dashboard = cloudwatch.Dashboard(
            self,
            "Dashboard",
            dashboard_name=dashboard_name,
            default_interval=cdk.Duration.hours(6),
        )
        sections: dict[DashboardSection, Callable[[], Sequence[cloudwatch.IWidget]]] = {
            DashboardSection.ALARMS: self._alarm_states,
            DashboardSection.QUEUES: self._queues,
            DashboardSection.FLEET: self._running,
            DashboardSection.COST_AND_PERFORMANCE: self._performance,
            DashboardSection.RELIABILITY: self._reliability,
        }
        for section, widgets in sections.items():
            if section not in leave_out and (found := widgets()):
                self._add(section.value, found)
        for title, widgets_of_user in more.items():
            self._add(title, widgets_of_user)
        self.queries: Mapping[str, logs.QueryDefinition] = MappingProxyType(
            {name: self._query(name, text) for name, text in _QUERIES.items()}
        )

    def _add(self, title: str, widgets: Sequence[cloudwatch.IWidget]) -> None:
        heading = cloudwatch.TextWidget(
            markdown=f"## {title}",
            width=24,
            height=1,
            background=cloudwatch.TextWidgetBackground.TRANSPARENT,
        )
        self.dashboard.add_widgets(heading)
        self.dashboard.add_widgets(*widgets)

    # -- sections ------------------------------------------------------------------------------

    def _alarm_states(self) -> list[cloudwatch.IWidget]:
        if self._alarms is None:
            return []
        return [
            cloudwatch.AlarmStatusWidget(
                alarms=list(self._alarms.alarms.values()),
                title="Alarms",
                width=24,
                height=3,
            )
        ]

    def _queues(self) -> list[cloudwatch.IWidget]:
        queues = self._fleet.queues
        names = ("Jobs", "Reports of instances", "Events of EC2", "Sweeps")
        return [
            self._graph(
                name,
                left=[
                    queue.metric_approximate_number_of_messages_visible(label="waiting"),
                    queue.metric_approximate_number_of_messages_not_visible(label="in work"),
                    dead.metric_approximate_number_of_messages_visible(label="dead letters"),
                ],
                right=[queue.metric_approximate_age_of_oldest_message(label="oldest, seconds")],
            )
            for name, (queue, dead) in zip(names, queues.with_dead_letters, strict=True)
        ]

    def _running(self) -> list[cloudwatch.IWidget]:
        count, each = self._count, self._each
        return [
            self._graph(
                "Jobs in five minutes",
                left=[
                    count(Metric.JOBS_QUEUED, "queued"),
                    *each(Metric.JOBS_LAUNCHED, "launched, "),
                    count(Metric.JOBS_STARTED, "started"),
                ],
                right=[count(Metric.FLEET_SIZE, "instances", statistic="Maximum")],
            ),
            self._graph(
                "Interruptions in an hour",
                left=each(Metric.SPOT_INTERRUPTIONS, "spot, ", period=cdk.Duration.hours(1))
                + each(Metric.INSTANCES_LOST, "lost, ", period=cdk.Duration.hours(1)),
            ),
            self._graph("Duration of jobs, seconds", left=self._percentiles(Metric.JOB_DURATION)),
            self._graph("Success rate, percent", left=[self._success_rate()], maximum=100),
        ]

    def _performance(self) -> list[cloudwatch.IWidget]:
        return [
            self._graph(
                "From queued to launched, seconds", left=self._percentiles(Metric.LAUNCH_WAIT)
            ),
            self._graph("Share of spot, percent", left=[self._spot_share()], maximum=100),
            self._graph(
                "Open circuits",
                left=self._each(Metric.BREAKER_OPEN, "", statistic="Maximum"),
                right=[
                    *self._each(Metric.BREAKER_OPENED_BY_SHORTAGE, "shortage, "),
                    # EC2 takes no other instance back
                    self._fleet.metrics.metric(
                        Metric.BREAKER_OPENED_BY_INTERRUPTION,
                        kind="spot",
                        label="interruption, spot",
                    ),
                ],
            ),
            self._graph(
                "Errors of services",
                left=[self._fleet.metrics.each(Metric.API_ERRORS)],
                right=[self._count(Metric.LAUNCH_SHORTFALL, "launches short of")],
            ),
        ]

    def _reliability(self) -> list[cloudwatch.IWidget]:
        return [
            self._graph(
                "Jobs tried again or given up",
                left=[
                    self._count(Metric.JOBS_REQUEUED, "after their instance ended"),
                    *self._each(Metric.JOBS_RECOVERED, "found by a sweep, "),
                    *self._each(Metric.JOBS_RERUN, "re-run, "),
                    self._count(Metric.JOBS_EXPIRED, "given up"),
                ],
            ),
            self._graph("How instances ended", left=self._each(Metric.JOBS_COMPLETED, "")),
            self._graph(
                "Sweeps",
                left=[self._count(Metric.SWEEP_RUNS, "runs")],
                right=[
                    self._fleet.metrics.each(Metric.SWEEP_ACTIONS),
                    self._count(Metric.SWEEP_RUNS_FAILED, "failed runs"),
                ],
            ),
            self._graph(
                "GitHub",
                left=[
                    self._count(Metric.GITHUB_REQUESTS_LEFT, "requests left", statistic="Minimum")
                ],
                right=[
                    self._count(
                        Metric.RUNNER_VERSION_DAYS_LEFT,
                        "days left of the runner version",
                        statistic="Minimum",
                        period=cdk.Duration.days(1),
                    )
                ],
            ),
        ]

    # -- metrics -------------------------------------------------------------------------------

    def _count(self, definition: Any, label: str, **options: Any) -> cloudwatch.IMetric:
        return self._fleet.metrics.metric(definition, label=label, **options)

    def _each(self, definition: Any, prefix: str, **options: Any) -> list[cloudwatch.IMetric]:
        return [
            self._fleet.metrics.metric(
                definition, kind=kind, label=f"{prefix}{kind.replace('_', ' ')}", **options
            )
            for kind in definition.values
        ]

    def _percentiles(self, definition: Any) -> list[cloudwatch.IMetric]:
        return [self._count(definition, p, statistic=p) for p in ("p50", "p95", "p99")]

    def _success_rate(self) -> cloudwatch.IMetric:
        """Return how many instances served their job: a red workflow that ran is a success."""
        metrics = {
            kind.replace("_", ""): self._fleet.metrics.metric(Metric.JOBS_COMPLETED, kind=kind)
            for kind in Metric.JOBS_COMPLETED.values
        }
        every = " + ".join(f"FILL({name}, 0)" for name in metrics)
        return cloudwatch.MathExpression(
            expression=f"100 * (FILL(success, 0) + FILL(failure, 0)) / ({every})",
            using_metrics=dict(metrics),
            label="jobs served",
            period=cdk.Duration.seconds(_FIVE),
        )

    def _spot_share(self) -> cloudwatch.IMetric:
        launched = Metric.JOBS_LAUNCHED
        return cloudwatch.MathExpression(
            expression="100 * FILL(spot, 0) / (FILL(spot, 0) + FILL(regular, 0))",
            using_metrics={
                "spot": self._fleet.metrics.metric(launched, kind="spot"),
                "regular": self._fleet.metrics.metric(launched, kind="on-demand"),
            },
            label="spot",
            period=cdk.Duration.seconds(_FIVE),
        )

    def _graph(
        self,
        title: str,
        *,
        left: Sequence[cloudwatch.IMetric],
        right: Sequence[cloudwatch.IMetric] = (),
        maximum: float | None = None,
    ) -> cloudwatch.GraphWidget:
        return cloudwatch.GraphWidget(
            title=title,
            left=list(left),
            right=list(right),
            left_y_axis=cloudwatch.YAxisProps(min=0, max=maximum),
            width=_WIDTH,
            height=_HEIGHT,
        )

    def _query(self, name: str, text: tuple[str, ...]) -> logs.QueryDefinition:
        fleet = self._fleet
        functions = (
            fleet.intake,
            fleet.dispatch,
            fleet.termination,
            fleet.events,
            fleet.housekeeping,
        )
        return logs.QueryDefinition(
            self,
            f"Query{name.title().replace(' ', '')}",
            query_definition_name=f"runsfleet/{fleet.fleet_name}/{name}",
            query_string=logs.QueryString(
                fields=["@timestamp", "service", "message", *_FIELDS],
                filter_statements=[*text],
                sort="@timestamp asc",
                limit=1000,
            ),
            log_groups=[function.log_group for function in functions],
        )


_FIELDS: Final = ("job_id", "instance_id", "repository", "reason", "error")
# a query of CloudWatch Logs Insights takes no argument: the number is edited where it is asked
_QUERIES: Final = {
    "story of a job": ("job_id = 1234567890",),
    "story of an instance": ('instance_id = "i-0123456789abcdef0"',),
    "failed launches": (
        'service = "dispatch"',
        'level in ["ERROR", "WARNING"]',
    ),
    "slow starts": ('message = "launched"', "waited_seconds > 60"),
}
