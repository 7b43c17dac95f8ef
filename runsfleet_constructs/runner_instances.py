"""The instances of a fleet: their role, network door, launch templates and first script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import aws_cdk as cdk
import jsii
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from constructs import Construct

from runsfleet_constructs._checks import check_between, check_fleet_name, check_otlp_endpoint
from runsfleet_constructs._grants import allow
from runsfleet_constructs.bundling.cdk import agent_asset
from runsfleet_constructs.job_queues import JobQueues
from runsfleet_constructs.limits import FleetLimits
from runsfleet_constructs.runner_cache_bucket import RunnerCacheBucket
from runsfleet_constructs.runner_config_store import RunnerConfigStore
from runsfleet_constructs.runner_image import RunnerImage, RunnerPlatform
from runsfleet_constructs.session_logs import SessionLogs
from runsfleet_constructs.ssh_access import SshAccess
from runsfleet_constructs.user_data import AgentDownload, render_user_data
from runsfleet_constructs.windows_user_data import render_windows_user_data
from runsfleet_runtime.contract.environment import (
    AgentEnvironment,
    LaunchTarget,
    SubnetZone,
    WatchdogEnvironment,
)
from runsfleet_runtime.contract.paths import WINDOWS_PLATFORM
from runsfleet_runtime.contract.tags import MANAGED_VALUE, Tag

DEFAULT_VOLUME_GIB = 30
"""Root volume of a launch template; dispatch asks for what the job's label says."""

RUNNER_USER_CONTEXT = "runsfleet:runner_user"
"""Context that names whom jobs run as when the agent is root; default ``runner``, which the agent
makes. An emulator that runs instances as processes names ``root``: it must make no users."""


WINDOWS_VOLUME_GIB = 50
"""Least root volume of Windows, whose image alone takes 30 GiB."""

DEFAULT_RUNNER_USER = "runner"
"""Whom jobs run as; has no rights of its own."""


@jsii.implements(iam.IGrantable, ec2.IConnectable)
class RunnerInstances(Construct):
    """What every instance of a fleet is made from; launches nothing by itself.

    An instance may read its own configuration, report to the termination queue, write to the
    instances' log group, read the agent, read and write the runner cache, terminate itself, and be
    reached by Session Manager; nothing else. AWS's managed policy for Session Manager is not used,
    as it allows reading every parameter of the account.

    Args:
        scope: Parent.
        construct_id: Id.
        fleet_name: Name of the fleet.
        vpc: Network of the instances.
        queues: The fleet's queues.
        configurations: Where configurations wait.
        cache: Cache of runner packages; none if left out.
        vpc_subnets: Subnets of ordinary instances; by default the public ones, or those with a way
            out when there are no public ones. Public subnets must give public addresses.
        private_subnets: Subnets of jobs labelled ``private=true``; by default those with a way out
            through a NAT, or none, which refuses such jobs.
        image: Image of each platform; default Ubuntu 24.04.
        limits: The fleet's limits.
        volume_gib: Size of the root volume unless the label says otherwise; default 30 GiB. On
            Windows 50 GiB at least.
        session_manager: Whether a shell can be opened by Session Manager; default yes. What is
            typed in it is logged.
        ssh: Who may log in to Linux instances by SSH; by default nobody, and no port is open.
        setup_commands: Shell commands that run as root before the agent on Linux; if one fails the
            instance ends.
        windows_setup_commands: PowerShell commands that run as administrator before the agent on
            Windows; if one fails the instance ends.
        runner_sudo: Whether jobs may become root without a password, as on GitHub's own machines;
            default yes.
        log_retention: How long the logs of agents and runners are kept; default one month.
        encryption_key: Key of those logs; by default one that AWS owns.
        otlp_endpoint: Base URL of an OpenTelemetry collector that agents send traces to; by default
            they send none.

    Raises:
        ValueError: If the network has no subnet to launch into.

    Attributes:
        role: Role of the instances.
        security_group: Lets everything out and nothing in.
        subnet_zones: The zone of each subnet that is launched into.
        launch_templates: One for each platform.
        log_group: Logs of agents and runners, a stream for each job.
        sessions: How shells are opened and logged; ``None`` without Session Manager.

    Example:
        >>> instances.connections.allow_to(database, ec2.Port.tcp(5432))  # doctest: +SKIP
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        fleet_name: str,
        vpc: ec2.IVpc,
        queues: JobQueues,
        configurations: RunnerConfigStore,
        cache: RunnerCacheBucket | None = None,
        vpc_subnets: ec2.SubnetSelection | None = None,
        private_subnets: ec2.SubnetSelection | None = None,
        image: RunnerImage | None = None,
        limits: FleetLimits | None = None,
        volume_gib: int = DEFAULT_VOLUME_GIB,
        session_manager: bool = True,
        ssh: SshAccess | None = None,
        setup_commands: Sequence[str] = (),
        windows_setup_commands: Sequence[str] = (),
        runner_sudo: bool = True,
        log_retention: logs.RetentionDays = logs.RetentionDays.ONE_MONTH,
        encryption_key: kms.IKey | None = None,
        otlp_endpoint: str | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        self._fleet_name = check_fleet_name(fleet_name)
        check_between("volume_gib", volume_gib, 8, 16384, "gp3 volumes have 8 GiB to 16 TiB here")
        self.image = image or RunnerImage.ubuntu_24_04()
        ordinary = _ordinary_subnets(vpc, vpc_subnets)
        private = _private_subnets(vpc, private_subnets)
        self.subnet_ids = tuple(ordinary)
        self.private_subnet_ids = tuple(private)
        self.subnet_zones = tuple(
            SubnetZone(subnet_id=subnet, availability_zone=zone)
            for subnet, zone in {**ordinary, **private}.items()
        )
        self.role = iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"),
            description="an instance of runsfleet: its own configuration, its own end",
        )
        profile = iam.InstanceProfile(self, "Profile", role=self.role)
        self.security_group = ec2.SecurityGroup(
            self, "SecurityGroup", vpc=vpc, description="runsfleet instances: out, never in"
        )
        if ssh is not None:
            ssh.open(self.security_group.connections)
        agent = agent_asset(self, "Agent")
        bucket, key = agent.asset.s3_bucket_name, agent.asset.s3_object_key
        self._grant_own_life(bucket, key, session_manager=session_manager)
        queues.grant_report(self.role)
        configurations.grant_own(self.role)
        if cache is not None:
            cache.grant_cache(self.role)
        self.log_group = logs.LogGroup(
            self,
            "Logs",
            retention=log_retention,
            removal_policy=cdk.RemovalPolicy.DESTROY,
            encryption_key=encryption_key,
        )
        allow(
            self.role,
            ["logs:CreateLogStream", "logs:PutLogEvents"],
            [self.log_group.log_group_arn],
        )
        self.sessions: SessionLogs | None = None
        if session_manager:
            self.sessions = SessionLogs(
                self,
                "Sessions",
                fleet_name=fleet_name,
                log_retention=log_retention,
                encryption_key=encryption_key,
            )
            self.sessions.grant_write(self.role)
        stack = cdk.Stack.of(self)
        linux_user = self.node.try_get_context(RUNNER_USER_CONTEXT) or DEFAULT_RUNNER_USER
        self.environments = {
            platform: AgentEnvironment(
                fleet=fleet_name,
                platform=platform.value,
                region=stack.region,
                termination_queue_url=queues.termination.queue_url,
                instance_role_id=self.role.role_id,
                runner_bucket=None if cache is None else cache.bucket.bucket_name,
                log_group=self.log_group.log_group_name,
                runner_sudo=runner_sudo,
                config_timeout_seconds=(limits or FleetLimits()).config_timeout_seconds,
                # on Windows jobs run as the agent's own user
                runner_user=None if _is_windows(platform) else linux_user,
                otlp_endpoint=check_otlp_endpoint(otlp_endpoint),
                **configurations.environment(),
            )
            for platform in self.image.platforms
        }
        download = AgentDownload(
            bucket=bucket,
            key=key,
            sha256=agent.sha256,
            region=stack.region,
            url_suffix=stack.url_suffix,
        )
        watchdog = WatchdogEnvironment(
            watchdog_lifetime_seconds=(limits or FleetLimits()).lifetime_seconds
        )

        def user_data(platform: RunnerPlatform) -> str:
            environment = self.environments[platform]
            if _is_windows(platform):
                return render_windows_user_data(
                    environment=environment,
                    agent=download,
                    watchdog=watchdog,
                    python=self.image.windows_python,
                    setup_commands=windows_setup_commands,
                )
            return render_user_data(
                environment=environment,
                agent=download,
                watchdog=watchdog,
                setup_commands=setup_commands,
            )

        self.launch_templates = {
            platform: ec2.LaunchTemplate(
                self,
                _TEMPLATE_IDS[platform],
                block_devices=[
                    ec2.BlockDevice(
                        device_name=self.image.root_device_of(platform),
                        volume=ec2.BlockDeviceVolume.ebs(
                            max(volume_gib, WINDOWS_VOLUME_GIB)
                            if _is_windows(platform)
                            else volume_gib,
                            delete_on_termination=True,
                            encrypted=True,
                            volume_type=ec2.EbsDeviceVolumeType.GP3,
                        ),
                    )
                ],
                http_put_response_hop_limit=1,
                instance_initiated_shutdown_behavior=(
                    ec2.InstanceInitiatedShutdownBehavior.TERMINATE
                ),
                instance_profile=profile,
                key_pair=None if ssh is None or _is_windows(platform) else ssh.key_pair,
                machine_image=_LaunchTimeImage(self.image.reference(platform)),
                require_imdsv2=True,
                security_group=self.security_group,
                user_data=ec2.UserData.custom(user_data(platform)),
            )
            for platform in self.image.platforms
        }
        for tag, value in self._tags.items():
            cdk.Tags.of(self).add(tag, value)

    @property
    def connections(self) -> ec2.Connections:
        """The instances' door: let them reach what has a security group."""
        return self.security_group.connections

    @property
    def grant_principal(self) -> iam.IPrincipal:
        """The instances' role: what is granted to it, every job of the fleet can do."""
        return self.role

    @property
    def launch_targets(self) -> tuple[LaunchTarget, ...]:
        """How instances of each platform are launched, as dispatch is told."""
        return tuple(
            LaunchTarget(
                platform=platform.value,
                launch_template_id=template.launch_template_id or "",
                launch_template_version=template.latest_version_number,
                root_device=self.image.root_device_of(platform),
            )
            for platform, template in self.launch_templates.items()
        )

    def offer(self) -> dict[str, Any]:
        """Return the fields of ``LabelEnvironment`` that tell what can be launched."""
        return {
            "platforms": tuple(platform.value for platform in self.launch_templates),
            "private": bool(self.private_subnet_ids),
        }

    def grant_launch(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to launch tagged instances from these templates into these subnets.

        Args:
            grantee: Who may launch; the dispatch function.
        """
        stack = cdk.Stack.of(self)
        partition, account = stack.partition, stack.account
        own, foreign = (f"arn:{partition}:ec2:{stack.region}:{who}" for who in (account, ""))
        launch = ["ec2:CreateFleet", "ec2:RunInstances"]
        templates = [
            f"{own}:launch-template/{template.launch_template_id}"
            for template in self.launch_templates.values()
        ]
        subnets = dict.fromkeys([*self.subnet_ids, *self.private_subnet_ids])
        used = [
            *templates,
            *(f"{own}:subnet/{subnet}" for subnet in subnets),
            f"{own}:security-group/{self.security_group.security_group_id}",
            # images and snapshots of Canonical or Amazon belong to other accounts
            f"{foreign}:image/*",
            f"{foreign}:snapshot/*",
            # cannot be tagged beforehand: a template that tags it launches no on-demand instance
            f"{own}:spot-instances-request/*",
        ]
        allow(grantee, launch, used, wildcard=_BORN)
        allow(
            grantee,
            launch,
            [f"{own}:{kind}/*" for kind in _TAGGED_AT_BIRTH],
            conditions={
                "StringEquals": {f"aws:RequestTag/{tag}": v for tag, v in self._tags.items()}
            },
            wildcard=_BORN,
        )
        allow(
            grantee,
            ["ec2:CreateTags"],
            [f"{own}:{kind}/*" for kind in _TAGGED_AT_BIRTH],
            # at birth only: who could tag later could make any instance "ours" and end it
            conditions={"StringEquals": {"ec2:CreateAction": ["CreateFleet", "RunInstances"]}},
            wildcard=_BORN,
        )
        allow(
            grantee,
            ["iam:PassRole"],
            [self.role.role_arn],
            conditions={"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}},
        )
        for service, role in _SERVICE_ROLES.items():
            allow(
                grantee,
                ["iam:CreateServiceLinkedRole"],
                [f"arn:{partition}:iam::{account}:role/aws-service-role/{service}/{role}"],
                conditions={"StringEquals": {"iam:AWSServiceName": service}},
            )
        parameters = self.image.parameter_arns(self)
        if not parameters:
            return iam.Grant.drop(grantee, "the images are given by their ids")
        return allow(grantee, ["ssm:GetParameters"], parameters)

    def grant_terminate(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to terminate instances of this fleet and no others.

        Args:
            grantee: Who may terminate.
        """
        return allow(
            grantee,
            ["ec2:TerminateInstances"],
            [self._arn("instance")],
            conditions={"StringEquals": self._ours},
            wildcard=_OURS,
        )

    def grant_describe(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to describe instances, those of others included.

        Args:
            grantee: Who may.
        """
        return allow(grantee, ["ec2:DescribeInstances"], ["*"], wildcard=_DESCRIBED)

    def grant_sweep(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to find, mark and end what this fleet left behind, and nothing else.

        Args:
            grantee: Who may; the housekeeping function.
        """
        self.grant_describe(grantee)
        allow(
            grantee,
            ["ec2:DescribeNetworkInterfaces", "ec2:DescribeVolumes"],
            ["*"],
            wildcard=_DESCRIBED,
        )
        allow(
            grantee,
            ["ec2:CreateTags", "ec2:DeleteTags"],
            [self._arn(kind) for kind in ("instance", "network-interface", "volume")],
            # what is ours already may be marked; nothing can be made ours
            conditions={
                "StringEquals": self._ours,
                "ForAllValues:StringEquals": {"aws:TagKeys": [Tag.CONDEMNED.value]},
            },
            wildcard=_OURS,
        )
        allow(
            grantee,
            ["ec2:DeleteVolume", "ec2:DeleteNetworkInterface"],
            [self._arn("volume"), self._arn("network-interface")],
            conditions={"StringEquals": self._ours},
            wildcard=_OURS,
        )
        return self.grant_terminate(grantee)

    @property
    def _tags(self) -> dict[str, str]:
        return {Tag.MANAGED.value: MANAGED_VALUE, Tag.FLEET.value: self._fleet_name}

    @property
    def _ours(self) -> dict[str, str]:
        return {f"aws:ResourceTag/{tag}": value for tag, value in self._tags.items()}

    def _arn(self, kind: str) -> str:
        return cdk.Stack.of(self).format_arn(service="ec2", resource=kind, resource_name="*")

    def _grant_own_life(self, bucket: str, key: str, *, session_manager: bool) -> None:
        stack = cdk.Stack.of(self)
        allow(
            self.role,
            ["s3:GetObject"],
            [
                stack.format_arn(
                    service="s3", account="", region="", resource=bucket, resource_name=key
                )
            ],
        )
        allow(
            self.role,
            ["ec2:TerminateInstances"],
            [self._arn("instance")],
            conditions={"StringLike": {"aws:userid": "*:${ec2:InstanceID}"}},
            wildcard="a condition admits the calling instance only",
        )
        if session_manager:
            allow(
                self.role,
                [
                    "ssm:UpdateInstanceInformation",
                    "ssmmessages:CreateControlChannel",
                    "ssmmessages:CreateDataChannel",
                    "ssmmessages:OpenControlChannel",
                    "ssmmessages:OpenDataChannel",
                ],
                ["*"],
                wildcard="the actions of Session Manager's agent know no resources",
            )


_TEMPLATE_IDS = {
    RunnerPlatform.LINUX_ARM64: "LinuxArm64",
    RunnerPlatform.LINUX_X64: "LinuxX64",
    RunnerPlatform.WINDOWS_X64: "WindowsX64",
}

_OURS = "a condition admits what has this fleet's tags only"

_DESCRIBED = "EC2 knows no narrower permission to describe"

_TAGGED_AT_BIRTH = ("fleet", "instance", "network-interface", "volume")

_BORN = "what is launched has no name yet; templates, subnets and group are named, tags demanded"

# an instant fleet needs no role of its own, only spot does
_SERVICE_ROLES = {"spot.amazonaws.com": "AWSServiceRoleForEC2Spot"}


def _is_windows(platform: RunnerPlatform) -> bool:
    return platform.value.startswith(WINDOWS_PLATFORM)


@jsii.implements(ec2.IMachineImage)
class _LaunchTimeImage:
    """An image that is named now and found when an instance is launched."""

    def __init__(self, reference: str) -> None:
        self._reference = reference

    def get_image(self, scope: Construct) -> ec2.MachineImageConfig:  # noqa: ARG002  # the port's
        return ec2.MachineImageConfig(
            image_id=self._reference,
            os_type=ec2.OperatingSystemType.LINUX,
            user_data=ec2.UserData.for_linux(),
        )


def _ordinary_subnets(vpc: ec2.IVpc, selection: ec2.SubnetSelection | None) -> dict[str, str]:
    if selection is None:
        kind = ec2.SubnetType.PUBLIC if vpc.public_subnets else ec2.SubnetType.PRIVATE_WITH_EGRESS
        if kind is ec2.SubnetType.PRIVATE_WITH_EGRESS and not vpc.private_subnets:
            raise ValueError(
                f"the network {vpc.node.path!r} has neither public subnets nor private ones with a "
                "way out, so instances could not reach GitHub; pass vpc_subnets or another vpc"
            )
        selection = ec2.SubnetSelection(subnet_type=kind)
    return _select(vpc, selection)


def _private_subnets(vpc: ec2.IVpc, selection: ec2.SubnetSelection | None) -> dict[str, str]:
    if selection is not None:
        return _select(vpc, selection)
    return {subnet.subnet_id: subnet.availability_zone for subnet in vpc.private_subnets}


def _select(vpc: ec2.IVpc, selection: ec2.SubnetSelection) -> dict[str, str]:
    """Return the subnets of a selection, each with its zone."""
    selected = vpc.select_subnets(
        availability_zones=selection.availability_zones,
        one_per_az=selection.one_per_az,
        subnet_filters=selection.subnet_filters,
        subnet_group_name=selection.subnet_group_name,
        subnets=selection.subnets,
        subnet_type=selection.subnet_type,
    )
    return dict(zip(selected.subnet_ids, selected.availability_zones, strict=True))
