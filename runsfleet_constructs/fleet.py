"""The whole fleet: one construct, made of the smaller public ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import aws_cdk as cdk
import jsii
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from runsfleet_constructs._checks import check_fleet_name
from runsfleet_constructs.dispatch_function import DispatchFunction
from runsfleet_constructs.fleet_tables import FleetTables
from runsfleet_constructs.function_options import FunctionAssets, FunctionOptions
from runsfleet_constructs.github_app import GitHubApp
from runsfleet_constructs.job_queues import JobQueues
from runsfleet_constructs.labels import LabelOptions
from runsfleet_constructs.limits import FleetLimits
from runsfleet_constructs.metrics import FleetMetrics
from runsfleet_constructs.runner_cache_bucket import RunnerCacheBucket
from runsfleet_constructs.runner_config_store import RunnerConfigStore
from runsfleet_constructs.runner_image import RunnerImage
from runsfleet_constructs.runner_instances import RunnerInstances
from runsfleet_constructs.runner_network import RunnerNetwork
from runsfleet_constructs.termination_function import TerminationFunction
from runsfleet_constructs.webhook_intake import WebhookIntake
from runsfleet_runtime.contract.environment import ConfigStore
from runsfleet_runtime.contract.metrics import Metric, MetricDefinition

if TYPE_CHECKING:
    from aws_cdk import aws_cloudwatch as cloudwatch


@jsii.implements(ec2.IConnectable)
class RunnerFleet(Construct):
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
        limits: How long the fleet waits for what.
        function_architecture: Processor of the functions; default arm64. The context
            ``runsfleet:function_architecture`` overrides it.
        log_retention: How long logs are kept; default one month.
        removal_policy: What becomes of the jobs table and the cache bucket when they are removed
            from the app; default ``RETAIN``, as a table that was deleted by mistake is gone.
        point_in_time_recovery: Whether the jobs table can be restored; by default yes unless the
            removal policy is ``DESTROY``.
        encryption_key: Key of queues, tables, logs and bucket; by default keys that AWS owns, which
            cost nothing. Instances' volumes use the account's default key for EBS.

    Raises:
        ValueError: If a value cannot work; the message holds the value and the remedy.

    Attributes:
        github: The GitHub App.
        queues: Jobs and termination queue, each with its dead-letter queue.
        tables: Jobs and, unless the store is Parameter Store, runner configurations.
        cache: Bucket that caches runner packages.
        instances: Role, security group and launch templates.
        intake: HTTPS endpoint and webhook function.
        dispatch: Function that launches.
        termination: Function that closes jobs.
        metrics: Makes any metric of the catalogue.

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
        limits: FleetLimits | None = None,
        function_architecture: lambda_.Architecture | None = None,
        log_retention: logs.RetentionDays = logs.RetentionDays.ONE_MONTH,
        removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.RETAIN,
        point_in_time_recovery: bool | None = None,
        encryption_key: kms.IKey | None = None,
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
        )
        limits = limits or FleetLimits()
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
            setup_commands=setup_commands,
            windows_setup_commands=windows_setup_commands,
            runner_sudo=runner_sudo,
            log_retention=log_retention,
            encryption_key=encryption_key,
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
        self.intake = WebhookIntake(self, "Intake", labels=labels, spot=spot, **common)
        common |= {
            "tables": self.tables,
            "configurations": configurations,
            "limits": limits,
        }
        self.dispatch = DispatchFunction(self, "Dispatch", labels=labels, spot=spot, **common)
        self.termination = TerminationFunction(self, "Termination", **common)

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

    def metric(
        self, definition: MetricDefinition, *, kind: str | None = None, **options: Any
    ) -> cloudwatch.Metric:
        """Return any metric of the catalogue for this fleet.

        Args:
            definition: One of ``runsfleet_runtime.contract.metrics.Metric``.
            kind: Value of the metric's own dimension; required when it has one.
            options: As for ``cloudwatch.Metric``.

        Raises:
            ValueError: If ``kind`` is none of the metric's values.
        """
        return self.metrics.metric(definition, kind=kind, **options)

    def metric_queue_age(self, **options: Any) -> cloudwatch.Metric:
        """Age of the oldest job that waits for dispatch, in seconds.

        Args:
            options: As for ``cloudwatch.Metric``; by default the maximum of five minutes.
        """
        return self.queues.metric_queue_age(**options)

    def metric_dead_jobs(self, **options: Any) -> cloudwatch.Metric:
        """Jobs in the dead-letter queue.

        Args:
            options: As for ``cloudwatch.Metric``; by default the maximum of five minutes.
        """
        return self.queues.metric_dead_jobs(**options)

    def metric_jobs_queued(self, **options: Any) -> cloudwatch.Metric:
        """Jobs taken on.

        Args:
            options: As for ``cloudwatch.Metric``; by default the sum of five minutes.
        """
        return self.metrics.metric(Metric.JOBS_QUEUED, **options)

    def metric_jobs_refused(self, **options: Any) -> cloudwatch.Metric:
        """Jobs whose label cannot be understood or served.

        Args:
            options: As for ``cloudwatch.Metric``; by default the sum of five minutes.
        """
        return self.metrics.metric(Metric.JOBS_REFUSED, **options)

    def metric_jobs_launched(
        self, *, capacity_type: str | None = None, **options: Any
    ) -> cloudwatch.IMetric:
        """Jobs whose instance was launched.

        Args:
            capacity_type: ``spot`` or ``on-demand``; both together if left out.
            options: As for ``cloudwatch.Metric``, or ``cloudwatch.MathExpression`` for both.
        """
        return self._of_kind(Metric.JOBS_LAUNCHED, capacity_type, options)

    def metric_jobs_started(self, **options: Any) -> cloudwatch.Metric:
        """Runners that reported their start.

        Args:
            options: As for ``cloudwatch.Metric``; by default the sum of five minutes.
        """
        return self.metrics.metric(Metric.JOBS_STARTED, **options)

    def metric_jobs_completed(
        self, *, outcome: str | None = None, **options: Any
    ) -> cloudwatch.IMetric:
        """Jobs that ended.

        Args:
            outcome: ``success``, ``failure``, ``timeout``, …; all together if left out.
            options: As for ``cloudwatch.Metric``, or ``cloudwatch.MathExpression`` for all.
        """
        return self._of_kind(Metric.JOBS_COMPLETED, outcome, options)

    def metric_jobs_expired(self, **options: Any) -> cloudwatch.Metric:
        """Jobs given up.

        Args:
            options: As for ``cloudwatch.Metric``; by default the sum of five minutes.
        """
        return self.metrics.metric(Metric.JOBS_EXPIRED, **options)

    def metric_launch_wait(self, **options: Any) -> cloudwatch.Metric:
        """From GitHub's queueing of a job until its instance was launched, in seconds.

        Args:
            options: As for ``cloudwatch.Metric``; by default the 95th percentile of five minutes.
        """
        return self.metrics.metric(Metric.LAUNCH_WAIT, **options)

    def metric_launch_shortfall(self, **options: Any) -> cloudwatch.Metric:
        """Jobs for which there was no capacity; they are tried again.

        Args:
            options: As for ``cloudwatch.Metric``; by default the sum of five minutes.
        """
        return self.metrics.metric(Metric.LAUNCH_SHORTFALL, **options)

    def metric_job_duration(self, **options: Any) -> cloudwatch.Metric:
        """From a job's start to its end, in seconds.

        Args:
            options: As for ``cloudwatch.Metric``; by default the 95th percentile of five minutes.
        """
        return self.metrics.metric(Metric.JOB_DURATION, **options)

    def _of_kind(
        self, definition: MetricDefinition, kind: str | None, options: dict[str, Any]
    ) -> cloudwatch.IMetric:
        if kind is None:
            return self.metrics.total(definition, **options)
        return self.metrics.metric(definition, kind=kind, **options)


def _default_name(scope: Construct) -> str:
    return cdk.Names.unique_resource_name(scope, max_length=32, separator="-").lower().strip("-")


def _given(vpc: ec2.IVpc | None) -> ec2.IVpc:
    if vpc is None:  # a network of its own was made in this case
        raise ValueError("vpc must be a network, got None")
    return vpc


def _let_logs_use(key: kms.IKey, stack: cdk.Stack) -> None:
    """Let CloudWatch Logs encrypt the fleet's log groups, which the key's policy has to allow."""
    key.grant_encrypt_decrypt(iam.ServicePrincipal(f"logs.{stack.region}.amazonaws.com"))
