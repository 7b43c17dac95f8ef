"""An environment as CDK sees it: a stage, and in it a stack for each region."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_sns as sns
from constructs import Construct

from runsfleet_constructs import (
    BreakerOptions,
    CostOptions,
    FleetLimits,
    GitHubApp,
    GitHubAppOptions,
    HousekeepingSchedules,
    RunnerFleet,
    RunnerImage,
    RunnerNetwork,
    SshAccess,
)
from stacks.environment_model import AlarmsPart, EnvironmentFile, ImagePart, SshPart

if TYPE_CHECKING:
    from runsfleet_constructs import FleetAlarms

GITHUB_URL_CONTEXT = "runsfleet:github_url"
"""Context that overrides ``github.url`` of every environment: the local cloud's stand-in."""

_ARCHITECTURES = {"arm64": lambda_.Architecture.ARM_64, "x86_64": lambda_.Architecture.X86_64}
_REMOVAL = {"retain": cdk.RemovalPolicy.RETAIN, "destroy": cdk.RemovalPolicy.DESTROY}
_RETENTION = {
    1: logs.RetentionDays.ONE_DAY,
    3: logs.RetentionDays.THREE_DAYS,
    5: logs.RetentionDays.FIVE_DAYS,
    7: logs.RetentionDays.ONE_WEEK,
    14: logs.RetentionDays.TWO_WEEKS,
    30: logs.RetentionDays.ONE_MONTH,
    60: logs.RetentionDays.TWO_MONTHS,
    90: logs.RetentionDays.THREE_MONTHS,
    120: logs.RetentionDays.FOUR_MONTHS,
    150: logs.RetentionDays.FIVE_MONTHS,
    180: logs.RetentionDays.SIX_MONTHS,
    365: logs.RetentionDays.ONE_YEAR,
    400: logs.RetentionDays.THIRTEEN_MONTHS,
    545: logs.RetentionDays.EIGHTEEN_MONTHS,
    731: logs.RetentionDays.TWO_YEARS,
    1096: logs.RetentionDays.THREE_YEARS,
    1827: logs.RetentionDays.FIVE_YEARS,
}


class FleetStage(cdk.Stage):
    """One environment.

    Args:
        scope: The app.
        environment: What its file says.

    Example:
        >>> FleetStage(app, load_environments(Path("environments"))[0])  # doctest: +SKIP
    """

    def __init__(self, scope: Construct, environment: EnvironmentFile) -> None:
        super().__init__(scope, environment.name)
        account = environment.account or os.environ.get("CDK_DEFAULT_ACCOUNT")
        default = os.environ.get("CDK_DEFAULT_REGION")
        regions: list[str | None] = list(environment.regions) or [default]
        self.stacks = [
            FleetStack(
                self,
                region or "default",
                environment=environment,
                env=cdk.Environment(account=account, region=region),
            )
            for region in regions
        ]
        if environment.dashboard and len(self.stacks) > 1:
            from runsfleet_constructs import RegionsDashboard  # as in the fleet: only who uses it

            # its first region holds it; it refers to none of the others' resources
            RegionsDashboard(self.stacks[0], "Regions", fleets=[s.fleet for s in self.stacks])
        for tag, value in environment.tags.items():
            cdk.Tags.of(self).add(tag, value)


class FleetStack(cdk.Stack):
    """One environment in one region.

    Attributes:
        fleet: The fleet.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        environment: EnvironmentFile,
        env: cdk.Environment,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            env=env,
            stack_name="-".join(filter(None, ["runsfleet", environment.name, env.region])),
            description=f"GitHub Actions runners, environment {environment.name}",
        )
        runners, limits, data = environment.runners, environment.limits, environment.data
        self.fleet = RunnerFleet(
            self,
            "Fleet",
            github=_github(self, environment),
            vpc=_vpc(self, environment, env.region),
            fleet_name=environment.fleet_name or environment.name,
            labels=environment.labels.options(),
            spot=runners.spot,
            config_store=runners.config_store,
            image=_image(runners.image),
            volume_gib=runners.volume_gib,
            setup_commands=runners.setup_commands,
            windows_setup_commands=runners.windows_setup_commands,
            runner_sudo=runners.sudo,
            session_manager=runners.session_manager,
            ssh=None if runners.ssh is None else _ssh(self, runners.ssh),
            health_route=environment.functions.health_route,
            limits=FleetLimits(
                max_runtime=cdk.Duration.minutes(limits.max_runtime_minutes),
                idle_timeout=cdk.Duration.minutes(limits.idle_timeout_minutes),
                config_timeout=cdk.Duration.minutes(limits.config_timeout_minutes),
                job_deadline=cdk.Duration.minutes(limits.job_deadline_minutes),
                job_retention=cdk.Duration.days(limits.job_retention_days),
                dispatch_concurrency=limits.dispatch_concurrency,
                termination_concurrency=limits.termination_concurrency,
            ),
            max_runners=limits.max_runners,
            max_runners_per_owner=limits.max_runners_per_owner,
            max_runners_per_repository=limits.max_runners_per_repository,
            breaker=BreakerOptions(
                threshold=environment.breaker.threshold,
                window=cdk.Duration.minutes(environment.breaker.window_minutes),
                cooldown=cdk.Duration.minutes(environment.breaker.cooldown_minutes),
            ),
            housekeeping=HousekeepingSchedules(
                is_paused=environment.housekeeping.paused,
                changes={
                    task: scheduler.ScheduleExpression.expression(schedule) if schedule else None
                    for task, schedule in environment.housekeeping.schedules.items()
                },
            ),
            cost=_cost(self, environment, env.region),
            function_architecture=_ARCHITECTURES[environment.functions.architecture],
            log_retention=_RETENTION[environment.functions.log_retention_days],
            removal_policy=_REMOVAL[data.removal_policy],
            point_in_time_recovery=data.point_in_time_recovery,
            otlp_endpoint=environment.otlp_endpoint,
        )
        part = environment.alarms
        alarms = None if part is None else _alarms(self.fleet, part)
        if environment.dashboard:
            self.fleet.add_dashboard(alarms=alarms)
        self._outputs()

    def _outputs(self) -> None:
        fleet, github = self.fleet, self.fleet.github
        queues, tables = fleet.queues, fleet.tables
        outputs = {
            "WebhookUrl": (fleet.webhook_url, "enter it as the webhook's URL of the GitHub App"),
            "GitHubAppSecret": (github.app.name, "create it: the App's id and private key as JSON"),
            "WebhookSecret": (github.webhook.name, "create it: the webhook's secret"),
            "FleetName": (fleet.fleet_name, "name of the fleet in tags and metrics"),
            "JobsQueueUrl": (queues.jobs.queue_url, "jobs that want a runner"),
            "JobsDeadLetterQueueUrl": (queues.jobs_dead_letters.queue_url, "jobs that failed"),
            "TerminationQueueUrl": (queues.termination.queue_url, "reports of instances"),
            "TerminationDeadLetterQueueUrl": (
                queues.termination_dead_letters.queue_url,
                "reports that failed",
            ),
            "EventsQueueUrl": (queues.events.queue_url, "what EC2 and GitHub say of jobs"),
            "EventsDeadLetterQueueUrl": (
                queues.events_dead_letters.queue_url,
                "events that failed",
            ),
            "HousekeepingQueueUrl": (queues.housekeeping.queue_url, "sweeps that are due"),
            "HousekeepingDeadLetterQueueUrl": (
                queues.housekeeping_dead_letters.queue_url,
                "sweeps that failed",
            ),
            "JobsTableName": (tables.jobs.table_name, "one item for each job"),
            "RunnerCacheBucketName": (fleet.cache.bucket.bucket_name, "runner packages"),
        }
        if tables.runners is not None:
            outputs["RunnersTableName"] = (
                tables.runners.table_name,
                "configurations that wait for their instance",
            )
        for name, (value, description) in outputs.items():
            cdk.CfnOutput(self, name, value=value, description=description)


def _github(scope: Construct, environment: EnvironmentFile) -> GitHubApp:
    part = environment.github
    options: GitHubAppOptions = {
        "url": scope.node.try_get_context(GITHUB_URL_CONTEXT) or part.url,
        "runner_level": part.runner_level,
        "runner_group_id": part.runner_group_id,
        "registration_token_fallback": part.registration_token_fallback,
    }
    if part.secret_name is not None:
        return GitHubApp.from_secret_name(
            scope,
            "GitHubApp",
            part.secret_name,
            webhook_secret_name=part.webhook_secret_name,
            **options,
        )
    return GitHubApp.from_parameter_names(
        scope,
        part.parameter_name or "",
        webhook_parameter_name=part.webhook_parameter_name,
        **options,
    )


def _ssh(scope: Construct, part: SshPart) -> SshAccess:
    peers = [
        ec2.Peer.ipv6(network) if ":" in network else ec2.Peer.ipv4(network)
        for network in part.networks
    ]
    key_pair = ec2.KeyPair.from_key_pair_name(scope, "SshKey", part.key_pair)
    return SshAccess(key_pair=key_pair, peers=peers)


def _alarms(fleet: RunnerFleet, part: AlarmsPart) -> FleetAlarms:
    from runsfleet_constructs import AlarmChange  # as in the fleet: only for those who use it

    return fleet.add_alarms(
        emails=part.emails,
        changes={
            name: AlarmChange(
                threshold=change.threshold,
                period=_minutes(change.period_minutes),
                periods=change.periods,
            )
            if change
            else None
            for name, change in part.changes.items()
        },
    )


def _minutes(number: int | None) -> cdk.Duration | None:
    return None if number is None else cdk.Duration.minutes(number)


def _cost(scope: Construct, environment: EnvironmentFile, region: str | None) -> CostOptions:
    part = environment.cost
    arn = part.topic_arns.get(region or "")
    return CostOptions(
        zone=part.zone,
        topic=None if arn is None else sns.Topic.from_topic_arn(scope, "CostTopic", arn),
        self_hosted_usd_per_minute=part.self_hosted_usd_per_minute,
    )


def _vpc(scope: Construct, environment: EnvironmentFile, region: str | None) -> ec2.IVpc:
    network = environment.network
    existing = network.vpcs.get(region or "")
    if existing is None:
        return RunnerNetwork(
            scope,
            "Network",
            cidr=network.cidr,
            zones=network.zones,
            nat_gateways=network.nat_gateways,
        ).vpc
    vpc = ec2.Vpc.from_vpc_attributes(
        scope,
        "Network",
        vpc_id=existing.id,
        availability_zones=existing.availability_zones,
        public_subnet_ids=existing.public_subnet_ids or None,
        private_subnet_ids=existing.private_subnet_ids or None,
    )
    # nothing here adds routes or endpoints to a network that exists already
    cdk.Annotations.of(vpc).acknowledge_warning("@aws-cdk/aws-ec2:noSubnetRouteTableId")
    return vpc


def _image(image: str | ImagePart) -> RunnerImage:
    if isinstance(image, ImagePart):
        return RunnerImage(
            linux_arm64=image.linux_arm64,
            linux_x64=image.linux_x64,
            root_device=image.root_device,
            windows_x64=image.windows_x64,
            windows_root_device=image.windows_root_device,
        )
    if image == "amazon-linux-2023":
        return RunnerImage.amazon_linux_2023()
    return RunnerImage.ubuntu_24_04()
