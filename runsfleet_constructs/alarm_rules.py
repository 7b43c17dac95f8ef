"""What is watched, from when on it is alarming, and what it means; one rule for each alarm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch

from runsfleet_runtime.contract.metrics import Metric

if TYPE_CHECKING:
    from runsfleet_constructs.fleet import RunnerFleet

_ABOVE = cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD
_AT_LEAST = cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD
_BELOW = cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD
_FINE = cloudwatch.TreatMissingData.NOT_BREACHING
_ALARMING = cloudwatch.TreatMissingData.BREACHING
_AS_BEFORE = cloudwatch.TreatMissingData.IGNORE


class FleetAlarm(StrEnum):
    """The alarms; each value is the construct's id and the heading of its runbook."""

    JOBS_WAIT = "JobsWait"
    REPORTS_WAIT = "ReportsWait"
    EVENTS_WAIT = "EventsWait"
    DEAD_JOBS = "DeadJobs"
    DEAD_REPORTS = "DeadReports"
    DEAD_EVENTS = "DeadEvents"
    DEAD_SWEEPS = "DeadSweeps"
    NO_LAUNCHES = "NoLaunches"
    FLEET_FULL = "FleetFull"
    EXPIRED_JOBS = "ExpiredJobs"
    EC2_ERRORS = "Ec2Errors"
    GITHUB_ERRORS = "GitHubErrors"
    INTERRUPTIONS = "Interruptions"
    CIRCUITS_OPEN = "CircuitsOpen"
    WEBHOOKS_REFUSED = "WebhooksRefused"
    WEBHOOKS_FAILING = "WebhooksFailing"
    DISPATCH_FAILING = "DispatchFailing"
    FUNCTIONS_FAILING = "FunctionsFailing"
    BOOTSTRAPS_FAILING = "BootstrapsFailing"
    SWEEPS_FAILING = "SweepsFailing"
    SWEEPS_MISSING = "SweepsMissing"
    RATE_LIMIT_LOW = "RateLimitLow"
    RUNNER_VERSION_OLD = "RunnerVersionOld"
    MISSING_PERMISSIONS = "MissingPermissions"
    UNUSUAL_COST = "UnusualCost"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmRule:
    """One alarm as it is unless somebody changes it.

    Attributes:
        alarm: Which.
        meaning: What it means, for the text of the alarm.
        metric: Makes what is watched, for a period.
        threshold: The border.
        period: Length of one period.
        periods: How many of them in a row must be beyond the border.
        comparison: On which side of the border it alarms.
        missing: What a period without data means.
        is_critical: Whether jobs wait or are lost while it lasts; then the fleet is unhealthy.
    """

    alarm: FleetAlarm
    meaning: str
    metric: Callable[[RunnerFleet, Duration], cloudwatch.IMetric]
    threshold: float
    period: Duration
    periods: int = 1
    comparison: cloudwatch.ComparisonOperator = _AT_LEAST
    missing: cloudwatch.TreatMissingData = _FINE
    is_critical: bool = False


def fleet_rules(fleet: RunnerFleet) -> tuple[AlarmRule, ...]:
    """Return the rules of a fleet.

    Args:
        fleet: The fleet; one without ``max_runners`` cannot be full and has no alarm for it.
    """
    minute, five = Duration.minutes(1), Duration.minutes(5)
    full = AlarmRule(
        alarm=FleetAlarm.FLEET_FULL,
        meaning="For ten minutes jobs wait because the fleet has all the runners that it may have.",
        metric=lambda f, p: f.metrics.metric(Metric.JOBS_WAITING, kind="fleet", period=p),
        threshold=1,
        period=five,
        periods=2,
    )
    return (
        AlarmRule(
            alarm=FleetAlarm.JOBS_WAIT,
            meaning="The oldest job waits for dispatch for more than five minutes.",
            metric=lambda f, p: f.queues.metric_queue_age(period=p),
            threshold=300,
            period=minute,
            periods=2,
            comparison=_ABOVE,
            is_critical=True,
        ),
        AlarmRule(
            alarm=FleetAlarm.REPORTS_WAIT,
            meaning="Reports of instances wait for more than five minutes; jobs look unfinished.",
            metric=lambda f, p: _age(f.queues.termination, p),
            threshold=300,
            period=minute,
            periods=2,
            comparison=_ABOVE,
        ),
        AlarmRule(
            alarm=FleetAlarm.EVENTS_WAIT,
            meaning="Events of EC2 wait for ten minutes: interrupted jobs are not tried again.",
            # re-runs wait there on purpose, hidden for up to 15 minutes
            metric=lambda f, p: f.queues.events.metric_approximate_number_of_messages_visible(
                period=p, statistic="Minimum"
            ),
            threshold=1,
            period=five,
            periods=2,
        ),
        AlarmRule(
            alarm=FleetAlarm.DEAD_JOBS,
            meaning="Jobs were given up by their queue; each waits at GitHub in vain.",
            metric=lambda f, p: f.queues.metric_dead_jobs(period=p),
            threshold=1,
            period=minute,
            is_critical=True,
        ),
        AlarmRule(
            alarm=FleetAlarm.DEAD_REPORTS,
            meaning="Reports of instances could not be taken.",
            metric=lambda f, p: f.queues.metric_dead_reports(period=p),
            threshold=1,
            period=minute,
        ),
        AlarmRule(
            alarm=FleetAlarm.DEAD_EVENTS,
            meaning="Events of EC2 or ends of jobs could not be taken.",
            metric=lambda f, p: f.queues.metric_dead_events(period=p),
            threshold=1,
            period=minute,
        ),
        AlarmRule(
            alarm=FleetAlarm.DEAD_SWEEPS,
            meaning="A sweep failed five times in a row.",
            metric=lambda f, p: f.queues.metric_dead_sweeps(period=p),
            threshold=1,
            period=minute,
        ),
        AlarmRule(
            alarm=FleetAlarm.NO_LAUNCHES,
            meaning="Jobs wait, and for five minutes nothing was launched.",
            metric=_waiting_without_launch,
            threshold=1,
            period=minute,
            periods=5,
            is_critical=True,
        ),
        *((full,) if fleet.caps.max_runners is not None else ()),
        AlarmRule(
            alarm=FleetAlarm.EXPIRED_JOBS,
            meaning="A job was given up: past its deadline, out of tries, or refused for good.",
            metric=lambda f, p: _sum_of(
                p,
                dispatch=f.metrics.metric(Metric.JOBS_EXPIRED, period=p),
                reports=f.metrics.metric(Metric.JOBS_GIVEN_UP, period=p),
                events=f.metrics.metric(Metric.JOBS_GIVEN_UP_BY_EVENTS, period=p),
                sweeps=f.metrics.metric(Metric.JOBS_GIVEN_UP_BY_SWEEPS, period=p),
            ),
            threshold=1,
            period=minute,
            is_critical=True,
        ),
        AlarmRule(
            alarm=FleetAlarm.EC2_ERRORS,
            meaning="More than five calls of EC2 failed within five minutes.",
            metric=lambda f, p: f.metrics.metric(Metric.API_ERRORS, kind="ec2", period=p),
            threshold=5,
            period=five,
            comparison=_ABOVE,
        ),
        AlarmRule(
            alarm=FleetAlarm.GITHUB_ERRORS,
            meaning="Runners could not be registered: more than five calls of GitHub failed.",
            metric=lambda f, p: f.metrics.metric(Metric.API_ERRORS, kind="github", period=p),
            threshold=5,
            period=five,
            comparison=_ABOVE,
        ),
        AlarmRule(
            alarm=FleetAlarm.INTERRUPTIONS,
            meaning="More than 20 % of the spot instances are interrupted.",
            metric=_interruption_rate,
            threshold=20,
            period=five,
            periods=3,
            comparison=_ABOVE,
        ),
        AlarmRule(
            alarm=FleetAlarm.CIRCUITS_OPEN,
            meaning="Spot offerings are left out of launches for an hour already.",
            metric=lambda f, p: f.metrics.metric(
                Metric.BREAKER_OPEN, kind="spot", period=p, statistic="Minimum"
            ),
            threshold=1,
            period=five,
            periods=12,
            missing=_AS_BEFORE,
        ),
        AlarmRule(
            alarm=FleetAlarm.WEBHOOKS_REFUSED,
            meaning="Deliveries carry a wrong signature: the webhook secret differs, or they are "
            "somebody else's.",
            metric=lambda f, p: f.metrics.metric(
                Metric.DELIVERIES_REFUSED, kind="signature", period=p
            ),
            threshold=5,
            period=five,
        ),
        AlarmRule(
            alarm=FleetAlarm.WEBHOOKS_FAILING,
            meaning="Deliveries were answered with 5xx; a sweep has them delivered again.",
            metric=lambda f, p: _sum_of(
                p,
                failures=f.metrics.metric(Metric.ENQUEUE_FAILURES, period=p),
                errors=f.intake.function.metric_errors(period=p),
            ),
            threshold=1,
            period=minute,
            periods=2,
            is_critical=True,
        ),
        AlarmRule(
            alarm=FleetAlarm.DISPATCH_FAILING,
            meaning="Dispatch breaks off, or ends instances that it cannot configure.",
            metric=lambda f, p: _sum_of(
                p,
                failures=f.metrics.metric(Metric.LAUNCH_FAILURES, period=p),
                errors=f.dispatch.function.metric_errors(period=p),
            ),
            threshold=3,
            period=five,
            is_critical=True,
        ),
        AlarmRule(
            alarm=FleetAlarm.FUNCTIONS_FAILING,
            meaning="Functions that close jobs, follow events or sweep break off or are throttled.",
            metric=lambda f, p: _sum_of(
                p,
                **{
                    f"{name}{kind}": getattr(function, f"metric_{kind}")(period=p)
                    for name, function in (
                        ("termination", f.termination.function),
                        ("events", f.events.function),
                        ("housekeeping", f.housekeeping.function),
                    )
                    for kind in ("errors", "throttles")
                },
            ),
            threshold=3,
            period=five,
        ),
        AlarmRule(
            alarm=FleetAlarm.BOOTSTRAPS_FAILING,
            meaning="Instances end before they listen for a job: image, network or registration.",
            metric=lambda f, p: f.metrics.metric(
                Metric.JOBS_COMPLETED, kind="bootstrap_failed", period=p
            ),
            threshold=3,
            period=five,
            is_critical=True,
        ),
        AlarmRule(
            alarm=FleetAlarm.SWEEPS_FAILING,
            meaning="A sweep failed again and again: what it looks after is not looked after.",
            metric=lambda f, p: f.metrics.metric(Metric.SWEEP_RUNS_FAILED, period=p),
            threshold=1,
            period=five,
        ),
        AlarmRule(
            alarm=FleetAlarm.SWEEPS_MISSING,
            meaning="No sweep ran for ten minutes; they are due every two.",
            metric=lambda f, p: f.metrics.metric(Metric.SWEEP_RUNS, period=p),
            threshold=1,
            period=five,
            periods=2,
            comparison=_BELOW,
            missing=_ALARMING,
        ),
        AlarmRule(
            alarm=FleetAlarm.RATE_LIMIT_LOW,
            meaning="GitHub allows fewer than 500 more requests within the hour.",
            metric=lambda f, p: f.metrics.metric(
                Metric.GITHUB_REQUESTS_LEFT, period=p, statistic="Minimum"
            ),
            threshold=500,
            period=five,
            comparison=_BELOW,
            missing=_AS_BEFORE,
        ),
        AlarmRule(
            alarm=FleetAlarm.RUNNER_VERSION_OLD,
            meaning="Within a week GitHub refuses a runner version that is in use.",
            metric=lambda f, p: f.metrics.metric(
                Metric.RUNNER_VERSION_DAYS_LEFT, period=p, statistic="Minimum"
            ),
            threshold=7,
            period=five,
            comparison=_BELOW,
            missing=_AS_BEFORE,
        ),
        AlarmRule(
            alarm=FleetAlarm.MISSING_PERMISSIONS,
            meaning="An installation of the App lacks a permission that a sweep needs.",
            metric=lambda f, p: f.metrics.metric(Metric.PERMISSIONS_MISSING, period=p),
            threshold=1,
            period=five,
        ),
        AlarmRule(
            alarm=FleetAlarm.UNUSUAL_COST,
            meaning="Yesterday cost more than twice what is usual, and five dollars more.",
            metric=lambda f, p: f.metrics.metric(
                Metric.COST_UNUSUAL, period=p, statistic="Maximum"
            ),
            threshold=1,
            period=five,
            missing=_AS_BEFORE,
        ),
    )


def _age(queue: Any, period: Duration) -> cloudwatch.IMetric:
    metric: cloudwatch.IMetric = queue.metric_approximate_age_of_oldest_message(period=period)
    return metric


def _sum_of(period: Duration, **metrics: cloudwatch.IMetric) -> cloudwatch.IMetric:
    """Return the sum of counts, of which any may have no data."""
    return cloudwatch.MathExpression(
        expression=" + ".join(f"FILL({name}, 0)" for name in metrics),
        using_metrics=metrics,
        period=period,
    )


def _waiting_without_launch(fleet: RunnerFleet, period: Duration) -> cloudwatch.IMetric:
    queue = fleet.queues.jobs
    return cloudwatch.MathExpression(
        # hidden ones wait as well: for their time, or for the function that is failing on them
        expression=(
            "IF(FILL(visible, 0) + FILL(hidden, 0) > 0 AND FILL(spot, 0) + FILL(regular, 0) == 0,"
            " 1, 0)"
        ),
        using_metrics={
            "visible": queue.metric_approximate_number_of_messages_visible(
                period=period, statistic="Minimum"
            ),
            "hidden": queue.metric_approximate_number_of_messages_not_visible(
                period=period, statistic="Minimum"
            ),
            "spot": fleet.metrics.metric(Metric.JOBS_LAUNCHED, kind="spot", period=period),
            "regular": fleet.metrics.metric(Metric.JOBS_LAUNCHED, kind="on-demand", period=period),
        },
        period=period,
    )


def _interruption_rate(fleet: RunnerFleet, period: Duration) -> cloudwatch.IMetric:
    """Return interruptions of instances with a job, as a share of spot launches, in percent.

    One interruption alone is no rate: fewer than three in a period count as none.
    """
    return cloudwatch.MathExpression(
        expression=(
            "IF(FILL(running, 0) + FILL(launched, 0) >= 3,"
            " 100 * (FILL(running, 0) + FILL(launched, 0)) / (FILL(spot, 0) + 1), 0)"
        ),
        using_metrics={
            "running": fleet.metrics.metric(
                Metric.SPOT_INTERRUPTIONS, kind="running", period=period
            ),
            "launched": fleet.metrics.metric(
                Metric.SPOT_INTERRUPTIONS, kind="launched", period=period
            ),
            "spot": fleet.metrics.metric(Metric.JOBS_LAUNCHED, kind="spot", period=period),
        },
        period=period,
    )
