"""The metric catalogue: every metric's name, unit, dimensions, emitter and meaning, once.

Emission, alarms, dashboards and docs are all made from it. A metric that is not in here cannot be
emitted (:mod:`runsfleet_runtime.telemetry.metrics` refuses it), so no alarm can watch a name that
nobody writes. Dimensions are bounded: never an instance, a job or a repository.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

NAMESPACE = "RunsFleet"
FLEET_DIMENSION = "Fleet"  # on every metric


class Unit(StrEnum):
    """CloudWatch units in use."""

    COUNT = "Count"
    SECONDS = "Seconds"
    MILLISECONDS = "Milliseconds"


class Emitter(StrEnum):
    """Functions that emit metrics; each metric has one (a single writer for a series)."""

    WEBHOOK = "webhook"
    DISPATCH = "dispatch"
    TERMINATION = "termination"


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
        "Deliveries answered with 5xx because the jobs queue refused the message.",
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


CATALOGUE: dict[str, MetricDefinition] = {
    definition.name: definition
    for definition in vars(Metric).values()
    if isinstance(definition, MetricDefinition)
}
"""Every metric by its CloudWatch name."""
