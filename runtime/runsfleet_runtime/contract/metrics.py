"""The metric catalogue: every metric's name, unit, dimensions, emitter and meaning, once.

Emission, alarms, dashboards and docs are all made from it. A metric that is not in here cannot be
emitted (:mod:`runsfleet_runtime.telemetry.metrics` refuses it), so no alarm can watch a name that
nobody writes. Dimensions are bounded: never an instance, a job or a repository.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from runsfleet_runtime.contract.messages import HousekeepingTask

NAMESPACE = "RunsFleet"
FLEET_DIMENSION = "Fleet"  # on every metric


_TASKS = tuple(task.value for task in HousekeepingTask)


class Unit(StrEnum):
    """CloudWatch units in use."""

    COUNT = "Count"
    SECONDS = "Seconds"
    MILLISECONDS = "Milliseconds"
    NONE = "None"  # CloudWatch knows no unit of money


class Emitter(StrEnum):
    """Functions that emit metrics; each metric has one (a single writer for a series)."""

    WEBHOOK = "webhook"
    DISPATCH = "dispatch"
    TERMINATION = "termination"
    EVENTS = "events"
    HOUSEKEEPING = "housekeeping"


@dataclass(frozen=True, slots=True)
class MetricDefinition:
    """One metric.

    Attributes:
        name: Its CloudWatch name.
        unit: Its unit.
        emitter: The one function that emits it.
        meaning: What it counts, in one sentence.
        dimension: A further dimension beside the fleet; ``None`` for none.
        values: The bounded values of that dimension.
    """

    name: str
    unit: Unit
    emitter: Emitter
    meaning: str
    dimension: str | None = None
    values: tuple[str, ...] = ()


class Metric:
    """The catalogue, one attribute for each metric."""

    DELIVERIES_REFUSED = MetricDefinition(
        "DeliveriesRefused",
        Unit.COUNT,
        Emitter.WEBHOOK,
        "Deliveries answered with 4xx: somebody else's, or a wrong webhook secret.",
        "Reason",
        ("signature", "body_too_large", "malformed"),
    )
    DELIVERIES_IGNORED = MetricDefinition(
        "DeliveriesIgnored",
        Unit.COUNT,
        Emitter.WEBHOOK,
        "Valid deliveries that ask for nothing: another event or action, or labels of others.",
        "Reason",
        ("event", "action", "not_ours"),
    )
    JOBS_QUEUED = MetricDefinition(
        "JobsQueued", Unit.COUNT, Emitter.WEBHOOK, "Jobs taken on and put on the jobs queue."
    )
    JOBS_REFUSED = MetricDefinition(
        "JobsRefused",
        Unit.COUNT,
        Emitter.WEBHOOK,
        "Jobs whose label asks for our fleet but cannot be understood or served.",
    )
    ENQUEUE_FAILURES = MetricDefinition(
        "EnqueueFailures",
        Unit.COUNT,
        Emitter.WEBHOOK,
        "Deliveries answered with 5xx because the jobs or events queue refused the message.",
    )
    JOB_ENDS_QUEUED = MetricDefinition(
        "JobEndsQueued",
        Unit.COUNT,
        Emitter.WEBHOOK,
        "Ends of jobs put on the events queue: cancelled, failed, or never given to our runners.",
    )
    JOBS_CLAIMED = MetricDefinition(
        "JobsClaimed",
        Unit.COUNT,
        Emitter.DISPATCH,
        "Jobs that dispatch claimed in order to launch.",
    )
    JOBS_LAUNCHED = MetricDefinition(
        "JobsLaunched",
        Unit.COUNT,
        Emitter.DISPATCH,
        "Jobs whose instance was launched and configured.",
        "CapacityType",
        ("spot", "on-demand"),
    )
    LAUNCH_WAIT = MetricDefinition(
        "LaunchWait",
        Unit.SECONDS,
        Emitter.DISPATCH,
        "From GitHub's queueing of a job until its instance was launched.",
    )
    LAUNCH_SHORTFALL = MetricDefinition(
        "LaunchShortfall",
        Unit.COUNT,
        Emitter.DISPATCH,
        "Jobs for which neither spot nor on-demand had capacity; they are tried again.",
    )
    LAUNCH_FAILURES = MetricDefinition(
        "LaunchFailures",
        Unit.COUNT,
        Emitter.DISPATCH,
        "Launched instances that were ended because they could not be configured.",
    )
    JOBS_EXPIRED = MetricDefinition(
        "JobsExpired",
        Unit.COUNT,
        Emitter.DISPATCH,
        "Jobs given up: past their deadline, or refused for good by EC2 or GitHub.",
    )
    API_ERRORS = MetricDefinition(
        "APIErrors",
        Unit.COUNT,
        Emitter.DISPATCH,
        "Failed calls of dispatch, by service.",
        "Service",
        ("ec2", "github", "dynamodb", "sqs", "ssm"),
    )
    BREAKER_OPEN = MetricDefinition(
        "BreakerOpen",
        Unit.COUNT,
        Emitter.DISPATCH,
        "Offerings that launches leave out now, whoever opened them; told each time they are read.",
        "CapacityType",
        ("spot", "on-demand"),
    )
    BREAKER_OPENED_BY_SHORTAGE = MetricDefinition(
        "BreakerOpenedByShortage",
        Unit.COUNT,
        Emitter.DISPATCH,
        "Offerings that the circuit breaker opened when EC2 once more had no capacity.",
        "CapacityType",
        ("spot", "on-demand"),
    )
    BREAKER_PROBES = MetricDefinition(
        "BreakerProbes",
        Unit.COUNT,
        Emitter.DISPATCH,
        "Offerings that one launch tried after their cool-down.",
        "CapacityType",
        ("spot", "on-demand"),
    )
    BREAKER_CLOSED = MetricDefinition(
        "BreakerClosed",
        Unit.COUNT,
        Emitter.DISPATCH,
        "Offerings that the circuit breaker closed: they delivered, or had no failure for long.",
        "CapacityType",
        ("spot", "on-demand"),
    )
    JOBS_WAITING = MetricDefinition(
        "JobsWaiting",
        Unit.COUNT,
        Emitter.DISPATCH,
        "Jobs that found no free slot under a cap on runners, by the scope that is full; they are "
        "tried again within a minute, and counted again.",
        "Scope",
        ("fleet", "owner", "repository"),
    )
    JOBS_STARTED = MetricDefinition(
        "JobsStarted", Unit.COUNT, Emitter.TERMINATION, "Runners that reported their start."
    )
    JOBS_COMPLETED = MetricDefinition(
        "JobsCompleted",
        Unit.COUNT,
        Emitter.TERMINATION,
        "Jobs that ended, by our own outcome (a red workflow that was served is a success).",
        "Outcome",
        ("success", "failure", "timeout", "interrupted", "unused", "bootstrap_failed"),
    )
    JOB_DURATION = MetricDefinition(
        "JobDuration", Unit.SECONDS, Emitter.TERMINATION, "From a job's start to its end."
    )
    JOBS_REQUEUED = MetricDefinition(
        "JobsRequeued",
        Unit.COUNT,
        Emitter.TERMINATION,
        "Jobs that GitHub still had queued when their runner ended; dispatched again.",
    )
    JOBS_GIVEN_UP = MetricDefinition(
        "JobsGivenUp",
        Unit.COUNT,
        Emitter.TERMINATION,
        "Jobs closed when an instance reported, as their budget or time for another was spent.",
    )
    RUNNERS_RENEWED = MetricDefinition(
        "RunnersRenewed",
        Unit.COUNT,
        Emitter.TERMINATION,
        "Runners that got a second registration because GitHub did not take the first.",
    )
    RUNNERS_OUTDATED = MetricDefinition(
        "RunnersOutdated",
        Unit.COUNT,
        Emitter.TERMINATION,
        "Instances whose runner, or image's runner, GitHub refuses (below its floor) or soon will "
        "(superseded; refused 30 days after its successor's release).",
        "Reason",
        ("superseded", "below_floor"),
    )
    REPORTS_REFUSED = MetricDefinition(
        "ReportsRefused",
        Unit.COUNT,
        Emitter.TERMINATION,
        "Reports that were malformed or came from a former owner of the job.",
    )
    SPOT_INTERRUPTIONS = MetricDefinition(
        "SpotInterruptions",
        Unit.COUNT,
        Emitter.EVENTS,
        "Spot warnings for our instances, by what became of their job: its runner had started, it "
        "had only been launched, or there was none any more.",
        "Job",
        ("running", "launched", "without_job"),
    )
    REBALANCE_RECOMMENDATIONS = MetricDefinition(
        "RebalanceRecommendations",
        Unit.COUNT,
        Emitter.EVENTS,
        "Instances of ours that EC2 says are at a raised risk of interruption; no interruptions.",
    )
    INSTANCES_LOST = MetricDefinition(
        "InstancesLost",
        Unit.COUNT,
        Emitter.EVENTS,
        "Instances that ended without a word on their job, by what was done about it: dispatched "
        "again, to be re-run, or closed.",
        "Fate",
        ("redispatched", "rerun", "closed"),
    )
    INSTANCES_RELEASED = MetricDefinition(
        "InstancesReleased",
        Unit.COUNT,
        Emitter.EVENTS,
        "Idle instances that were ended as their job had ended at GitHub before they got it.",
    )
    JOBS_CANCELLED = MetricDefinition(
        "JobsCancelled",
        Unit.COUNT,
        Emitter.EVENTS,
        "Jobs that ended at GitHub before a runner of ours had them.",
    )
    JOBS_RERUN = MetricDefinition(
        "JobsRerun",
        Unit.COUNT,
        Emitter.EVENTS,
        "Interrupted jobs whose re-run is settled: GitHub took it, there was no need (the job "
        "succeeded, was cancelled or is a re-run itself), or it was given up.",
        "Result",
        ("done", "not_needed", "given_up"),
    )
    EVENTS_REFUSED = MetricDefinition(
        "EventsRefused",
        Unit.COUNT,
        Emitter.EVENTS,
        "Malformed messages of the events queue, each time they are received; after five times "
        "they go to its dead-letter queue.",
    )
    # without the task: seventeen series that never rest would cost 5 USD a month, fleet or no fleet
    SWEEP_RUNS = MetricDefinition(
        "SweepRuns",
        Unit.COUNT,
        Emitter.HOUSEKEEPING,
        "Runs of sweeps that ended, whether or not there was anything to do.",
    )
    FLEET_SIZE = MetricDefinition(
        "FleetSize",
        Unit.COUNT,
        Emitter.HOUSEKEEPING,
        "Instances of the fleet that have not ended, counted by the sweep of orphaned instances "
        "(look at the maximum); nothing is told while there is none.",
    )
    SWEEP_RUNS_FAILED = MetricDefinition(
        "SweepRunsFailed",
        Unit.COUNT,
        Emitter.HOUSEKEEPING,
        "Those of them that could not read, or whose every action failed; the log names the sweep.",
    )
    SWEEP_ACTIONS = MetricDefinition(
        "SweepActions",
        Unit.COUNT,
        Emitter.HOUSEKEEPING,
        "What sweeps found left over and ended, marked or made good.",
        "Task",
        _TASKS,
    )
    SWEEP_FAILURES = MetricDefinition(
        "SweepFailures",
        Unit.COUNT,
        Emitter.HOUSEKEEPING,
        "What sweeps found left over and could not act on; the next run finds it again.",
        "Task",
        _TASKS,
    )
    DELIVERIES_REDELIVERED = MetricDefinition(
        "DeliveriesRedelivered",
        Unit.COUNT,
        Emitter.HOUSEKEEPING,
        "Failed deliveries that GitHub was asked to deliver again.",
    )
    DELIVERIES_GIVEN_UP = MetricDefinition(
        "DeliveriesGivenUp",
        Unit.COUNT,
        Emitter.HOUSEKEEPING,
        "Deliveries that failed for a day, whatever was tried; GitHub fails their jobs by then.",
    )
    JOBS_RECOVERED = MetricDefinition(
        "JobsRecovered",
        Unit.COUNT,
        Emitter.HOUSEKEEPING,
        "Jobs that would have waited in vain: no delivery announced them, their message was lost, "
        "or their runner served another job.",
        "Way",
        ("unannounced", "message_lost", "still_queued"),
    )
    RUNNERS_DEREGISTERED = MetricDefinition(
        "RunnersDeregistered",
        Unit.COUNT,
        Emitter.HOUSEKEEPING,
        "Runners of instances that are gone, taken off GitHub's list.",
    )
    RUNNER_VERSION_DAYS_LEFT = MetricDefinition(
        "RunnerVersionDaysLeft",
        Unit.COUNT,
        Emitter.HOUSEKEEPING,
        "Days until GitHub refuses a runner version that is in use or offered (look at the "
        "minimum); a version without a known end is left out.",
    )
    GITHUB_REQUESTS_LEFT = MetricDefinition(
        "GitHubRateLimitLeft",
        Unit.COUNT,
        Emitter.HOUSEKEEPING,
        "Requests that GitHub still allows an installation of the App within the hour.",
    )
    PERMISSIONS_MISSING = MetricDefinition(
        "PermissionsMissing",
        Unit.COUNT,
        Emitter.HOUSEKEEPING,
        "Installations of the App that lack a permission which a sweep needs; it passes them over.",
    )
    JOBS_GIVEN_UP_BY_EVENTS = MetricDefinition(
        "JobsGivenUpByEvents",
        Unit.COUNT,
        Emitter.EVENTS,
        "Jobs closed on an event of EC2 or GitHub, as their budget or time was spent.",
    )
    JOBS_GIVEN_UP_BY_SWEEPS = MetricDefinition(
        "JobsGivenUpBySweeps",
        Unit.COUNT,
        Emitter.HOUSEKEEPING,
        "Jobs closed by a sweep, as their budget or time for another instance was spent.",
    )
    BREAKER_OPENED_BY_INTERRUPTION = MetricDefinition(
        "BreakerOpenedByInterruption",
        Unit.COUNT,
        Emitter.EVENTS,
        "Offerings that the circuit breaker opened when EC2 once more took an instance back.",
        "CapacityType",
        ("spot", "on-demand"),
    )
    DAY_COST = MetricDefinition(
        "DayCost",
        Unit.NONE,
        Emitter.HOUSEKEEPING,
        "What the day before cost, in USD, as far as measured.",
    )
    MONTH_FORECAST = MetricDefinition(
        "MonthForecast", Unit.NONE, Emitter.HOUSEKEEPING, "What the month will come to, in USD."
    )
    SPOT_SAVINGS = MetricDefinition(
        "SpotSavings",
        Unit.NONE,
        Emitter.HOUSEKEEPING,
        "What spot saved the day before against on-demand prices, in USD; left out when unknown.",
    )
    COST_UNUSUAL = MetricDefinition(
        "CostUnusual",
        Unit.COUNT,
        Emitter.HOUSEKEEPING,
        "1 for a day that cost more than twice the median of the week before and 5 USD more.",
    )


CATALOGUE: dict[str, MetricDefinition] = {
    definition.name: definition
    for definition in vars(Metric).values()
    if isinstance(definition, MetricDefinition)
}
"""Every metric by its CloudWatch name."""
