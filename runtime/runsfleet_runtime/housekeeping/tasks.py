"""How each task is made; only the one that is due is imported and made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runsfleet_runtime.contract.environment import ConfigStore
from runsfleet_runtime.contract.messages import HousekeepingTask
from runsfleet_runtime.housekeeping import github_tasks

if TYPE_CHECKING:
    from runsfleet_runtime.contract.environment import HousekeepingEnvironment
    from runsfleet_runtime.cost.daily import DailyReport
    from runsfleet_runtime.github.gateway import GitHubGateway
    from runsfleet_runtime.housekeeping.dynamodb import DynamoDBConfigurations
    from runsfleet_runtime.housekeeping.ec2 import Ec2FleetInstances
    from runsfleet_runtime.housekeeping.ports import Task
    from runsfleet_runtime.housekeeping.ssm import SsmConfigurations
    from runsfleet_runtime.jobs.ports import ReadsJobs, RedispatchesJobs
    from runsfleet_runtime.labels import LabelSettings
    from runsfleet_runtime.runners.ports import StoresRunnerConfig
    from runsfleet_runtime.telemetry.metrics import CountsMetrics

_DAY: Final = 24 * 3600.0


class UnknownTaskError(Exception):
    """This version of the function has no such task; deploy the newer one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What tasks are made of. What is a callable is made when it is first called.

    Attributes:
        environment: The function's environment.
        client: Makes the client of an AWS service.
        price_list: Makes the client of AWS's price list, which answers in a few regions only.
        github: Connects to GitHub.
        runners: The store of runner configurations.
        records: The jobs table.
        redispatcher: Dispatches jobs again.
        labels: What labels are resolved against.
        metrics: Where metrics go.
        clock: Returns epoch seconds.
        jitter: Returns a random number in [0, 1).
        new_id: Returns a fresh unique id.
        environ: Variables that Lambda sets.
    """

    environment: HousekeepingEnvironment
    client: Callable[[str], Any]
    price_list: Callable[[], Any]
    github: Callable[[], GitHubGateway]
    runners: Callable[[], StoresRunnerConfig]
    records: Callable[[], ReadsJobs]
    redispatcher: Callable[[], RedispatchesJobs]
    labels: Callable[[], LabelSettings]
    metrics: CountsMetrics
    clock: Callable[[], float]
    jitter: Callable[[], float]
    new_id: Callable[[], str]
    environ: Mapping[str, str]


def make(name: HousekeepingTask, parts: Parts) -> Task[Any]:
    """Make a task.

    Args:
        name: Which one.
        parts: What it is made of.

    Raises:
        UnknownTaskError: If there is no such task.
    """
    try:
        maker = _MAKERS[name]
    except KeyError:
        raise UnknownTaskError(f"no task {name.value!r} in this version") from None
    return maker(parts)


def _instances(parts: Parts) -> Ec2FleetInstances:
    from runsfleet_runtime.housekeeping.ec2 import Ec2FleetInstances

    return Ec2FleetInstances(parts.client("ec2"), fleet=parts.environment.fleet)


def _configurations(parts: Parts) -> DynamoDBConfigurations | SsmConfigurations:
    environment = parts.environment
    if environment.config_store is ConfigStore.SSM:
        from runsfleet_runtime.housekeeping.ssm import SsmConfigurations

        prefix = environment.config_parameter_prefix or ""
        return SsmConfigurations(parts.client("ssm"), prefix=prefix)
    from runsfleet_runtime.housekeeping.dynamodb import DynamoDBConfigurations

    return DynamoDBConfigurations(
        parts.client("dynamodb"),
        environment.runners_table or "",
        role_id=environment.instance_role_id,
    )


def _orphaned_instances(parts: Parts) -> Task[Any]:
    from runsfleet_runtime.housekeeping.dynamodb import DynamoDBOpenJobs
    from runsfleet_runtime.housekeeping.orphaned_instances import Limits, OrphanedInstances

    environment = parts.environment
    return OrphanedInstances(
        instances=_instances(parts),
        open_jobs=DynamoDBOpenJobs(parts.client("dynamodb"), environment.jobs_table),
        records=parts.records(),
        configurations=_configurations(parts),
        registrar=parts.github().registrar,
        limits=Limits(
            config_timeout=environment.config_timeout_seconds,
            lifetime=environment.lifetime_seconds,
        ),
        metrics=parts.metrics,
        clock=parts.clock,
    )


def _unconfirmed_launches(parts: Parts) -> Task[Any]:
    from runsfleet_runtime.housekeeping.sqs import SqsDepartures
    from runsfleet_runtime.housekeeping.unconfirmed_launches import UnconfirmedLaunches

    environment, github = parts.environment, parts.github()
    return UnconfirmedLaunches(
        records=parts.records(),
        instances=_instances(parts),
        departures=SqsDepartures(parts.client("sqs"), environment.events_queue_url),
        job_states=github.job_states,
        registrar=github.registrar,
        redispatcher=parts.redispatcher(),
        runners=parts.runners(),
        config_timeout=environment.config_timeout_seconds,
        clock=parts.clock,
    )


def _stale_jobs(parts: Parts) -> Task[Any]:
    from runsfleet_runtime.housekeeping.dynamodb import DynamoDBOpenJobs
    from runsfleet_runtime.housekeeping.sqs import SqsDepartures
    from runsfleet_runtime.housekeeping.stale_jobs import StaleJobs

    environment = parts.environment
    return StaleJobs(
        open_jobs=DynamoDBOpenJobs(parts.client("dynamodb"), environment.jobs_table),
        records=parts.records(),
        instances=_instances(parts),
        departures=SqsDepartures(parts.client("sqs"), environment.events_queue_url),
        redispatcher=parts.redispatcher(),
        clock=parts.clock,
    )


def _stale_configurations(parts: Parts) -> Task[Any]:
    from runsfleet_runtime.housekeeping.stale_configurations import StaleConfigurations

    return StaleConfigurations(
        configurations=_configurations(parts),
        runners=parts.runners(),
        instances=_instances(parts),
    )


def _kept_reports(parts: Parts) -> Task[Any]:
    from runsfleet_runtime.housekeeping.kept_reports import KeptReports
    from runsfleet_runtime.housekeeping.s3 import S3Bucket
    from runsfleet_runtime.housekeeping.sqs import SqsReports

    environment = parts.environment
    return KeptReports(
        bucket=S3Bucket(parts.client("s3"), environment.cache_bucket),
        queue=SqsReports(parts.client("sqs"), environment.termination_queue_url),
        role_id=environment.instance_role_id,
    )


def _old_jobs(parts: Parts) -> Task[Any]:
    from runsfleet_runtime.housekeeping.dynamodb import DynamoDBOldJobs
    from runsfleet_runtime.housekeeping.old_jobs import OldJobs
    from runsfleet_runtime.housekeeping.s3 import S3Bucket

    environment = parts.environment
    return OldJobs(
        jobs=DynamoDBOldJobs(parts.client("dynamodb"), environment.jobs_table),
        bucket=S3Bucket(parts.client("s3"), environment.cache_bucket),
        retention=environment.job_retention_days * _DAY,
        clock=parts.clock,
        new_id=parts.new_id,
    )


def _expired_leases(parts: Parts) -> Task[Any]:
    from runsfleet_runtime.housekeeping.expired_leases import ExpiredLeases
    from runsfleet_runtime.housekeeping.leases.dynamodb import DynamoDBLeases

    return ExpiredLeases(DynamoDBLeases(parts.client("dynamodb"), parts.environment.leases_table))


def _dead_letters(parts: Parts) -> Task[Any]:
    from runsfleet_runtime.housekeeping.dead_letters import DeadLetters
    from runsfleet_runtime.housekeeping.sqs import SqsDeadLetters

    return DeadLetters(
        queues=SqsDeadLetters(parts.client("sqs")),
        pairs=[
            (pair["queue"], pair["dead_letters"])
            for pair in parts.environment.dead_letter_queue_urls
        ],
        role_id=parts.environment.instance_role_id,
        clock=parts.clock,
    )


def _leftover_volumes(parts: Parts) -> Task[Any]:
    from runsfleet_runtime.housekeeping.ec2 import Ec2Volumes
    from runsfleet_runtime.housekeeping.leftovers import LeftoverResources

    return LeftoverResources(
        Ec2Volumes(parts.client("ec2"), fleet=parts.environment.fleet),
        name=HousekeepingTask.LEFTOVER_VOLUMES,
        clock=parts.clock,
    )


def _leftover_interfaces(parts: Parts) -> Task[Any]:
    from runsfleet_runtime.housekeeping.ec2 import Ec2Interfaces
    from runsfleet_runtime.housekeeping.leftovers import LeftoverResources

    return LeftoverResources(
        Ec2Interfaces(parts.client("ec2"), fleet=parts.environment.fleet),
        name=HousekeepingTask.LEFTOVER_INTERFACES,
        clock=parts.clock,
    )


def _slots(parts: Parts) -> Task[Any]:
    from runsfleet_runtime.housekeeping.dynamodb import DynamoDBSlots
    from runsfleet_runtime.housekeeping.slots import Slots

    environment = parts.environment
    caps = (
        environment.max_runners,
        environment.max_runners_per_owner,
        environment.max_runners_per_repository,
    )
    return Slots(
        DynamoDBSlots(
            parts.client("dynamodb"),
            jobs_table=environment.jobs_table,
            slots_table=environment.slots_table,
        ),
        is_capped=any(cap is not None for cap in caps),
    )


def _cost_report(parts: Parts) -> Task[Any]:
    from runsfleet_runtime.housekeeping.cost_report import CostReports

    return CostReports(lambda: _daily_report(parts), zone=parts.environment.cost_zone)


def _daily_report(parts: Parts) -> DailyReport:
    from runsfleet_runtime.cost.aws_prices import AwsPrices
    from runsfleet_runtime.cost.aws_topic import SnsTopic
    from runsfleet_runtime.cost.aws_usage import CloudWatchUsage
    from runsfleet_runtime.cost.daily import DailyReport, ReportSettings
    from runsfleet_runtime.cost.dynamodb import DynamoDBLedger
    from runsfleet_runtime.cost.inventory import services
    from runsfleet_runtime.cost.prices import ListedPrices
    from runsfleet_runtime.cost.s3 import S3Reports
    from runsfleet_runtime.cost.ssm import read_inventory

    environment = parts.environment
    inventory = read_inventory(parts.client("ssm"), environment.cost_inventory or "")
    region = parts.environ.get("AWS_REGION", "")
    topic = environment.cost_topic_arn
    return DailyReport(
        ReportSettings(
            fleet=environment.fleet,
            region=region,
            zone=environment.cost_zone,
            lifetime_seconds=environment.lifetime_seconds,
            self_hosted_usd_per_minute=environment.self_hosted_usd_per_minute,
        ),
        ledger=DynamoDBLedger(
            parts.client("dynamodb"),
            instances_table=environment.instances_table,
            jobs_table=environment.jobs_table,
            lifetime_seconds=environment.lifetime_seconds,
        ),
        services=CloudWatchUsage(
            parts.client("cloudwatch"),
            fleet=environment.fleet,
            services=services(inventory, environment, parts.environ),
        ),
        prices=lambda span: AwsPrices(
            parts.price_list(),
            parts.client("ec2"),
            region=region,
            start=span.start,
            end=span.end,
            listed=ListedPrices(region=region),
            clock=parts.clock,
        ),
        reports=S3Reports(parts.client("s3"), environment.cache_bucket),
        people=None if topic is None else SnsTopic(parts.client("sns"), topic),
        metrics=parts.metrics,
        clock=parts.clock,
    )


_MAKERS: Final[Mapping[HousekeepingTask, Callable[[Parts], Task[Any]]]] = {
    HousekeepingTask.ORPHANED_INSTANCES: _orphaned_instances,
    HousekeepingTask.UNCONFIRMED_LAUNCHES: _unconfirmed_launches,
    HousekeepingTask.STALE_JOBS: _stale_jobs,
    HousekeepingTask.STALE_CONFIGURATIONS: _stale_configurations,
    HousekeepingTask.KEPT_REPORTS: _kept_reports,
    HousekeepingTask.OLD_JOBS: _old_jobs,
    HousekeepingTask.EXPIRED_LEASES: _expired_leases,
    HousekeepingTask.DEAD_LETTERS: _dead_letters,
    HousekeepingTask.LEFTOVER_VOLUMES: _leftover_volumes,
    HousekeepingTask.LEFTOVER_INTERFACES: _leftover_interfaces,
    HousekeepingTask.SLOTS: _slots,
    HousekeepingTask.COST_REPORT: _cost_report,
    **github_tasks.MAKERS,
}
