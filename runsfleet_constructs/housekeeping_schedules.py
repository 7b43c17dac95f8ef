"""When which sweep is due."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import aws_cdk as cdk
import jsii
from aws_cdk import aws_iam as iam
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from runsfleet_constructs._checks import Findings
from runsfleet_constructs.job_queues import JobQueues
from runsfleet_runtime.contract.messages import HousekeepingMessage, HousekeepingTask

DEFAULT_SCHEDULES: Mapping[HousekeepingTask, str] = {
    # what a job waits for
    HousekeepingTask.UNCONFIRMED_LAUNCHES: "rate(2 minutes)",
    HousekeepingTask.WAITING_JOBS: "rate(2 minutes)",
    HousekeepingTask.KEPT_REPORTS: "rate(2 minutes)",
    HousekeepingTask.STALE_JOBS: "rate(5 minutes)",
    HousekeepingTask.LOST_DELIVERIES: "rate(5 minutes)",
    HousekeepingTask.RERUNS: "rate(5 minutes)",
    HousekeepingTask.UNANNOUNCED_JOBS: "rate(10 minutes)",
    HousekeepingTask.DEAD_LETTERS: "rate(15 minutes)",
    # what costs money
    HousekeepingTask.ORPHANED_INSTANCES: "rate(5 minutes)",
    HousekeepingTask.LEFTOVER_VOLUMES: "rate(1 hour)",
    HousekeepingTask.LEFTOVER_INTERFACES: "rate(1 hour)",
    # what only piles up
    HousekeepingTask.STALE_CONFIGURATIONS: "rate(1 hour)",
    HousekeepingTask.OFFLINE_RUNNERS: "rate(1 hour)",
    HousekeepingTask.EXPIRED_LEASES: "rate(1 hour)",
    HousekeepingTask.SLOTS: "rate(1 hour)",
    HousekeepingTask.OLD_JOBS: "cron(0 2 * * ? *)",
    HousekeepingTask.RUNNER_VERSIONS: "cron(0 6 * * ? *)",
    # what people read
    HousekeepingTask.COST_REPORT: "cron(0 9 * * ? *)",
}
"""When each sweep is due, in UTC; the cost report in the time zone of its days."""


@dataclass(frozen=True, kw_only=True)
class HousekeepingSchedules:
    """When the sweeps are due, where that is not as ``DEFAULT_SCHEDULES`` says.

    Attributes:
        changes: For each sweep to change, its schedule; ``None`` drops the sweep. The names are
            those of ``HousekeepingTask``.
        is_paused: Whether nothing is due until further notice; default no.

    Raises:
        ValueError: Naming all sweeps that there are not.

    Example:
        >>> HousekeepingSchedules(changes={HousekeepingTask.LEFTOVER_VOLUMES: None}).is_paused
        False
    """

    changes: Mapping[HousekeepingTask | str, scheduler.ScheduleExpression | None] = field(
        default_factory=dict
    )
    is_paused: bool = False

    def __post_init__(self) -> None:
        """Check the names as soon as they are written."""
        findings = Findings()
        for name in self.changes:
            if name not in set(HousekeepingTask):
                findings.add(f"a sweep is one of {', '.join(HousekeepingTask)}, got {name!r}")
        findings.raise_all()

    def expressions(
        self, *, cost_zone: cdk.TimeZone | None = None
    ) -> dict[HousekeepingTask, scheduler.ScheduleExpression]:
        """Return the schedule of each sweep that is not dropped.

        Args:
            cost_zone: Time zone of the cost report's usual schedule; default UTC.
        """
        changes = {HousekeepingTask(name): change for name, change in self.changes.items()}
        found: dict[HousekeepingTask, scheduler.ScheduleExpression] = {}
        for task, default in DEFAULT_SCHEDULES.items():
            zone = cost_zone if task is HousekeepingTask.COST_REPORT else None
            usual = scheduler.ScheduleExpression.expression(default, zone)
            expression = changes.get(task, usual)
            if expression is not None:
                found[task] = expression
        return found


class Housekeeping(Construct):
    """Puts a message on the housekeeping queue whenever a sweep is due.

    By EventBridge Scheduler and not by rules of the default bus: an account may have 300 of those
    in a region, which other software shares.

    Args:
        scope: Parent.
        construct_id: Id.
        queues: The fleet's queues.
        schedules: When the sweeps are due; by default as ``DEFAULT_SCHEDULES`` says.
        cost_zone: Time zone of the cost report's usual schedule; default UTC.

    Attributes:
        group: Group of the schedules.
        role: What EventBridge Scheduler acts as; may send to the one queue.
        schedules: The schedule of each sweep.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        queues: JobQueues,
        schedules: HousekeepingSchedules | None = None,
        cost_zone: cdk.TimeZone | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        schedules = schedules or HousekeepingSchedules()
        # the CDK's own group names itself by text, so that nothing has schedules wait for it
        group = scheduler.CfnScheduleGroup(self, "Group")
        self.group = scheduler.ScheduleGroup.from_schedule_group_name(self, "Schedules", group.ref)
        self.role = iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal("scheduler.amazonaws.com"),
            description="runsfleet: says that a sweep is due",
        )
        queues.grant_run_sweeps(self.role)
        self.schedules = {
            task: scheduler.Schedule(
                self,
                "".join(word.capitalize() for word in task.split("_")),
                description=f"runsfleet: {task.value}",
                enabled=not schedules.is_paused,
                schedule=expression,
                schedule_group=self.group,
                target=_SweepTarget(queues.housekeeping, self.role, task),
            )
            for task, expression in schedules.expressions(cost_zone=cost_zone).items()
        }


@jsii.implements(scheduler.IScheduleTarget)
class _SweepTarget:
    """The housekeeping queue, with the message that asks for one sweep."""

    def __init__(self, queue: sqs.IQueue, role: iam.IRole, task: HousekeepingTask) -> None:
        self._queue = queue
        self._role = role
        self._message = HousekeepingMessage(task=task).to_json()

    def bind(self, _schedule: scheduler.ISchedule) -> scheduler.ScheduleTargetConfig:
        return scheduler.ScheduleTargetConfig(
            arn=self._queue.queue_arn,
            role=self._role,
            input=scheduler.ScheduleTargetInput.from_text(self._message),
        )
