"""The whole fleet: one construct, made of the smaller public ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
import jsii
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from runsfleet_constructs._checks import check_fleet_name, check_otlp_endpoint
from runsfleet_constructs._grants import allow
from runsfleet_constructs.breaker import BreakerOptions
from runsfleet_constructs.caps import RunnerCaps
from runsfleet_constructs.cost_options import CostOptions
from runsfleet_constructs.dispatch_function import DispatchFunction
from runsfleet_constructs.ec2_events import Ec2Events
from runsfleet_constructs.events_function import EventsFunction
from runsfleet_constructs.fleet_metrics import FleetMetricMethods
from runsfleet_constructs.fleet_tables import FleetTables
from runsfleet_constructs.function_options import FunctionAssets, FunctionOptions
from runsfleet_constructs.github_app import GitHubApp
from runsfleet_constructs.housekeeping_function import HousekeepingFunction
from runsfleet_constructs.housekeeping_schedules import Housekeeping, HousekeepingSchedules
from runsfleet_constructs.job_queues import JobQueues
from runsfleet_constructs.labels import LabelOptions
from runsfleet_constructs.limits import FleetLimits
from runsfleet_constructs.metrics import FleetMetrics
from runsfleet_constructs.runner_cache_bucket import RunnerCacheBucket
from runsfleet_constructs.runner_config_store import RunnerConfigStore
from runsfleet_constructs.runner_image import RunnerImage
from runsfleet_constructs.runner_instances import RunnerInstances
from runsfleet_constructs.runner_network import RunnerNetwork
from runsfleet_constructs.ssh_access import SshAccess
from runsfleet_constructs.termination_function import TerminationFunction
from runsfleet_constructs.webhook_intake import WebhookIntake
from runsfleet_runtime.contract.environment import ConfigStore
from runsfleet_runtime.contract.tags import Tag

if TYPE_CHECKING:
    from aws_cdk import aws_cloudwatch as cloudwatch
    from aws_cdk import aws_sns as sns

    from runsfleet_constructs.alarm_rules import FleetAlarm
    from runsfleet_constructs.fleet_alarms import AlarmChange, FleetAlarms
    from runsfleet_constructs.fleet_dashboard import DashboardSection, FleetDashboard


@jsii.implements(ec2.IConnectable)
class RunnerFleet(FleetMetricMethods, Construct):
    """Ephemeral, self-hosted GitHub Actions runners: each job gets an instance of its own.

    Args:
        scope: Parent.
        construct_id: Id.
        github: The GitHub App whose webhooks arrive and as which runners register.
        vpc: Network of the instances; by default one of its own with public subnets and no NAT.
        vpc_subnets: Subnets of ordinary instances; by default the public ones of ``vpc``.
        private_subnets: Subnets of jobs labelled ``private=true``; by default those of ``vpc`` that
            have a way out through a NAT.
        fleet_name: Name of the fleet in tags, paths, metrics and the ``env=`` key of labels; by
            default made from the construct's path. Unique in an account and region.
        labels: What labels may ask for.
        spot: Whether spot is used when a label does not say; default yes.
        config_store: Where runner configurations wait for their instance; default DynamoDB.
        image: Image of each platform; default Ubuntu 24.04.
        volume_gib: Root volume unless a label says otherwise; default 30 GiB, on Windows 50 at
            least.
        setup_commands: Shell commands that run as root before the agent on each Linux instance.
        windows_setup_commands: PowerShell commands that run as administrator before the agent on
            each Windows instance.
        runner_sudo: Whether jobs may become root without a password, as on GitHub's own machines;
            default yes.
        session_manager: Whether a shell can be opened on instances by Session Manager; default yes.
            What is typed in it is logged.
        ssh: Who may log in to Linux instances by SSH; by default nobody, and no port is open.
        limits: How long the fleet waits for what.
        max_runners: Most runners that exist at once; by default as many as there are jobs. Jobs
            beyond wait their turn.
        max_runners_per_owner: Most runners of one organisation or user at once.
        max_runners_per_repository: Most runners of one repository at once.
        breaker: When an offering of EC2 that fails (a capacity type, instance type and zone) is
            left alone, and for how long.
        health_route: Whether anybody may ask ``GET /health`` for counts and times, throttled;
            default yes.
        housekeeping: When the sweeps are due, where not as ``DEFAULT_SCHEDULES`` says.
        cost: Time zone and topic of the daily cost report; by default UTC, and nobody is told.
        function_architecture: Processor of the functions; default arm64. The context
            ``runsfleet:function_architecture`` overrides it.
        log_retention: How long logs are kept; default one month.
        removal_policy: What becomes of the tables of jobs and audit rows and of the cache bucket
            when they are removed from the app; default ``RETAIN``, as a table that was deleted by
            mistake is gone.
        point_in_time_recovery: Whether those tables can be restored; by default yes unless the
            removal policy is ``DESTROY``.
        encryption_key: Key of queues, tables, logs and bucket; by default keys that AWS owns, which
            cost nothing. Instances' volumes use the account's default key for EBS.
        otlp_endpoint: Base URL of an OpenTelemetry collector that takes OTLP over HTTP, such as
            ``https://otel.example.com:4318``: functions and agents send it a trace of each job. By
            default nothing is traced.

    Raises:
        ValueError: If a value cannot work; the message holds the value and the remedy.

    Attributes:
        github: The GitHub App.
        queues: Queues of jobs, reports, events and sweeps, each with its dead-letter queue.
        tables: Jobs, offerings, leases, slots, audit rows and, unless the store is Parameter Store,
            runner configurations.
        cache: Bucket that caches runner packages.
        instances: Role, security group and launch templates.
        intake: HTTPS endpoint and webhook function.
        dispatch: Function that launches.
        termination: Function that closes jobs.
        events: Function that acts on interruptions, ended instances and ended jobs.
        ec2_events: Rules that bring EC2's events.
        housekeeping: Function that carries out the sweeps.
        sweeps: Schedules of the sweeps.
        metrics: Makes any metric of the catalogue.
        caps: The caps on runners.

    Example:
        >>> fleet = RunnerFleet(  # doctest: +SKIP
        ...     self,
        ...     "Runners",
        ...     github=GitHubApp.from_secret_name(self, "App", "runsfleet/github-app"),
        ... )
        >>> fleet.metric_queue_age().create_alarm(  # doctest: +SKIP
        ...     self, "Slow", threshold=300, evaluation_periods=2
        ... )
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        github: GitHubApp,
        vpc: ec2.IVpc | None = None,
        vpc_subnets: ec2.SubnetSelection | None = None,
        private_subnets: ec2.SubnetSelection | None = None,
        fleet_name: str | None = None,
        labels: LabelOptions | None = None,
        spot: bool = True,
        config_store: ConfigStore = ConfigStore.DYNAMODB,
        image: RunnerImage | None = None,
        volume_gib: int = 30,
        setup_commands: Sequence[str] = (),
        windows_setup_commands: Sequence[str] = (),
        runner_sudo: bool = True,
        session_manager: bool = True,
        ssh: SshAccess | None = None,
        limits: FleetLimits | None = None,
        max_runners: int | None = None,
        max_runners_per_owner: int | None = None,
        max_runners_per_repository: int | None = None,
        breaker: BreakerOptions | None = None,
        health_route: bool = True,
        housekeeping: HousekeepingSchedules | None = None,
        cost: CostOptions | None = None,
        function_architecture: lambda_.Architecture | None = None,
        log_retention: logs.RetentionDays = logs.RetentionDays.ONE_MONTH,
        removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.RETAIN,
        point_in_time_recovery: bool | None = None,
        encryption_key: kms.IKey | None = None,
        otlp_endpoint: str | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        self.github = github
        self.fleet_name = check_fleet_name(fleet_name or _default_name(self))
        self.metrics = FleetMetrics(self.fleet_name)
        if encryption_key is not None:
            _let_logs_use(encryption_key, cdk.Stack.of(self))
        options = FunctionOptions(
            architecture=function_architecture,
            log_retention=log_retention,
            encryption_key=encryption_key,
            otlp_endpoint=check_otlp_endpoint(otlp_endpoint),
        )
        limits = limits or FleetLimits()
        self.caps = RunnerCaps(
            max_runners=max_runners,
            max_runners_per_owner=max_runners_per_owner,
            max_runners_per_repository=max_runners_per_repository,
        )
        self.network = RunnerNetwork(self, "Network") if vpc is None else None
        self.vpc: ec2.IVpc = self.network.vpc if self.network is not None else _given(vpc)
        self.queues = JobQueues(self, "Queues", encryption_key=encryption_key)
        self.tables = FleetTables(
            self,
            "Tables",
            runners=config_store is ConfigStore.DYNAMODB,
            point_in_time_recovery=point_in_time_recovery,
            encryption_key=encryption_key,
            removal_policy=removal_policy,
        )
        self.cache = RunnerCacheBucket(
            self, "RunnerCache", encryption_key=encryption_key, removal_policy=removal_policy
        )
        configurations = RunnerConfigStore(
            kind=config_store, fleet_name=self.fleet_name, table=self.tables.runners
        )
        self.instances = RunnerInstances(
            self,
            "Instances",
            fleet_name=self.fleet_name,
            vpc=self.vpc,
            vpc_subnets=vpc_subnets,
            private_subnets=private_subnets,
            queues=self.queues,
            configurations=configurations,
            cache=self.cache,
            image=image,
            limits=limits,
            volume_gib=volume_gib,
            session_manager=session_manager,
            ssh=ssh,
            setup_commands=setup_commands,
            windows_setup_commands=windows_setup_commands,
            runner_sudo=runner_sudo,
            log_retention=log_retention,
            encryption_key=encryption_key,
            otlp_endpoint=otlp_endpoint,
        )
        assets = FunctionAssets.build(self, "Dependencies", options)
        common: dict[str, Any] = {
            "fleet_name": self.fleet_name,
            "github": github,
            "queues": self.queues,
            "instances": self.instances,
            "assets": assets,
            "options": options,
        }
        self.intake = WebhookIntake(
            self,
            "Intake",
            labels=labels,
            spot=spot,
            health=self.tables if health_route else None,
            **common,
        )
        common |= {
            "tables": self.tables,
            "configurations": configurations,
            "limits": limits,
            "caps": self.caps,
        }
        self.dispatch = DispatchFunction(
            self, "Dispatch", labels=labels, spot=spot, breaker=breaker, **common
        )
        self.termination = TerminationFunction(self, "Termination", **common)
        self.events = EventsFunction(self, "Events", breaker=breaker, **common)
        cost = cost or CostOptions()
        sessions = self.instances.sessions
        self.housekeeping = HousekeepingFunction(
            self,
            "Housekeeping",
            cache=self.cache,
            labels=labels,
            spot=spot,
            cost=cost,
            others=(self.intake, self.dispatch, self.termination, self.events),
            log_groups=(
                self.instances.log_group,
                self.intake.access_log,
                *(() if sessions is None else (sessions.log_group,)),
            ),
            **common,
        )
        self.ec2_events = Ec2Events(self, "Ec2Events", queues=self.queues)
        self.sweeps = Housekeeping(
            self,
            "Sweeps",
            queues=self.queues,
            schedules=housekeeping,
            cost_zone=cost.time_zone,
        )
        cdk.Tags.of(self).add(Tag.FLEET.value, self.fleet_name)

    @property
    def webhook_url(self) -> str:
        """What to enter as the webhook's URL at GitHub."""
        return self.intake.url

    @property
    def connections(self) -> ec2.Connections:
        """The instances' door: let them reach what has a security group."""
        return self.instances.connections

    def grant_submit_jobs(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to put jobs on the jobs queue, in the form of ``JobMessage``.

        Args:
            grantee: Who may submit.
        """
        return self.queues.grant_submit_jobs(grantee)

    def grant_read_jobs(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to read the records of jobs.

        Args:
            grantee: Who may read.
        """
        return self.tables.grant_read_jobs(grantee)

    def grant_terminate(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to terminate instances of this fleet and no others.

        Args:
            grantee: Who may terminate.
        """
        return self.instances.grant_terminate(grantee)

    def grant_operate_breaker(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to see, open, close and reset circuits, and to leave audit rows of it.

        Args:
            grantee: Who may, such as the role of the operators.
        """
        return self.tables.grant_operate_breaker(grantee)

    def grant_operate(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal all that the ``runsfleet`` command does to a deployed fleet.

        To see jobs, instances, logs and audit rows, to ask for sweeps, to dispatch jobs again, to
        open and close circuits, and to open logged shells on instances of this fleet. Beside that
        it may list the account's functions, instances and launch templates, which have no narrower
        permission.

        Args:
            grantee: Who may, such as the role of the platform team.
        """
        self.grant_read_jobs(grantee)
        self.tables.grant_operate(grantee)
        self.queues.grant_submit_jobs(grantee)
        self.queues.grant_run_sweeps(grantee)
        if self.instances.sessions is not None:
            self.instances.sessions.grant_open(grantee)
        allow(
            grantee,
            ["logs:DescribeLogStreams", "logs:GetLogEvents"],
            # streams are named by the group's ARN and an ending
            [self.instances.log_group.log_group_arn],
        )
        return allow(
            grantee,
            [
                "ec2:DescribeInstances",
                "ec2:DescribeLaunchTemplateVersions",
                "lambda:ListEventSourceMappings",
                "lambda:ListFunctions",
            ],
            ["*"],
            wildcard="AWS knows no narrower permission to list",
        )

    def grant_run_sweeps(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to ask for sweeps, in the form of ``HousekeepingMessage``.

        Args:
            grantee: Who may ask.
        """
        return self.queues.grant_run_sweeps(grantee)

    def add_alarms(
        self,
        construct_id: str = "Alarms",
        *,
        topic: sns.ITopic | None = None,
        encryption_key: kms.IKey | None = None,
        emails: Sequence[str] = (),
        changes: Mapping[FleetAlarm | str, AlarmChange | None] | None = None,
    ) -> FleetAlarms:
        """Add alarms for all that keeps jobs waiting, loses them, or costs money unseen.

        Args:
            construct_id: Id below the fleet.
            topic: Where alarms go; by default a topic of its own.
            encryption_key: Key of that topic; by default none.
            emails: Addresses that the topic sends to; each must be confirmed by its owner.
            changes: For each alarm to change, how; ``None`` leaves it out.

        Raises:
            ValueError: Naming everything that cannot work.

        Example:
            >>> fleet.add_alarms(emails=["ci@example.com"])  # doctest: +SKIP
        """
        # CloudWatch's constructs take a while to load, which only those wait for who use them
        from runsfleet_constructs.fleet_alarms import FleetAlarms

        return FleetAlarms(
            self,
            construct_id,
            fleet=self,
            topic=topic,
            encryption_key=encryption_key,
            emails=emails,
            changes=changes or {},
        )

    def add_dashboard(
        self,
        construct_id: str = "Dashboard",
        *,
        alarms: FleetAlarms | None = None,
        leave_out: Sequence[DashboardSection | str] = (),
        more: Mapping[str, Sequence[cloudwatch.IWidget]] | None = None,
        dashboard_name: str | None = None,
    ) -> FleetDashboard:
        """Add a page that shows whether jobs wait, why, and what it costs; and saved queries.

        Args:
            construct_id: Id below the fleet.
            alarms: The fleet's alarms, whose states are shown at the top.
            leave_out: Sections to leave out.
            more: Further widgets by the title of their section.
            dashboard_name: Name of the page; by default CloudFormation's.

        Raises:
            ValueError: If a section to leave out is none.

        Example:
            >>> fleet.add_dashboard(alarms=fleet.add_alarms())  # doctest: +SKIP
        """
        from runsfleet_constructs.fleet_dashboard import FleetDashboard

        return FleetDashboard(
            self,
            construct_id,
            fleet=self,
            alarms=alarms,
            leave_out=leave_out,
            more=more or {},
            dashboard_name=dashboard_name,
        )


def _default_name(scope: Construct) -> str:
    return cdk.Names.unique_resource_name(scope, max_length=32, separator="-").lower().strip("-")


def _given(vpc: ec2.IVpc | None) -> ec2.IVpc:
    if vpc is None:  # a network of its own was made in this case
        raise ValueError("vpc must be a network, got None")
    return vpc


def _let_logs_use(key: kms.IKey, stack: cdk.Stack) -> None:
    """Let CloudWatch Logs encrypt the fleet's log groups, which the key's policy has to allow."""
    key.grant_encrypt_decrypt(iam.ServicePrincipal(f"logs.{stack.region}.amazonaws.com"))
