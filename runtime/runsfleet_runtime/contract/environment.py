"""Environment variables of every function and of the agent, one frozen dataclass each.

The constructs write them with ``to_environ`` at synthesis, the runtime reads them with
``from_environ``. At synthesis the values may be CDK tokens, so they are checked only when they are
read: a missing or malformed variable names itself and its cure before anything else happens.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from runsfleet_runtime.contract._codec import ContractError

PREFIX = "RUNSFLEET_"


class MalformedEnvironmentError(ContractError):
    """One or more environment variables are missing or malformed; the message lists all of them."""


def variable_name(field: str) -> str:
    """Return the name of the environment variable of a field.

    Example:
        >>> variable_name("jobs_table")
        'RUNSFLEET_JOBS_TABLE'
    """
    return PREFIX + field.upper()


def _encode(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Environment):
        raise TypeError("environments do not nest")
    if isinstance(value, tuple | list | dict):
        return json.dumps(value, separators=(",", ":"), default=dataclasses.asdict)
    return str(value)


def _decode(kind: Any, text: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _decode(next(o for o in typing.get_args(kind) if o is not type(None)), text)
    if kind is bool:
        if text not in ("true", "false"):
            raise ValueError(f"must be true or false, got {text!r}")
        return text == "true"
    if origin is tuple:
        item = typing.get_args(kind)[0]
        values = json.loads(text)
        is_record = dataclasses.is_dataclass(item)
        return tuple(item(**v) if is_record else item(v) for v in values)
    return kind(text)  # int, float, str and StrEnum


class Environment:
    """Base of the environments: subclasses are frozen dataclasses of plain values."""

    def to_environ(self) -> dict[str, str]:
        """Return the variables to set; a field that is ``None`` is left out."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]  # every subclass is a dataclass
        pairs = ((f.name, _encode(getattr(self, f.name))) for f in fields)
        return {variable_name(name): value for name, value in pairs if value is not None}

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read the environment.

        Args:
            environ: Usually ``os.environ``.

        Raises:
            MalformedEnvironmentError: Naming all variables that are missing or malformed.

        Example:
            >>> WebhookEnvironment.from_environ({})
            Traceback (most recent call last):
            ...
            runsfleet_runtime.contract.environment.MalformedEnvironmentError: WebhookEnvironment: \
RUNSFLEET_FLEET is not set; ...
        """
        hints = typing.get_type_hints(cls)
        values: dict[str, Any] = {}
        faults: list[str] = []
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]  # as above
            name = variable_name(field.name)
            text = environ.get(name)
            if text is None or text == "":
                if field.default is dataclasses.MISSING:
                    faults.append(f"{name} is not set")
                continue
            try:
                values[field.name] = _decode(hints[field.name], text)
            except (ValueError, TypeError, KeyError) as error:
                faults.append(f"{name} is malformed: {error}")
        if faults:
            raise MalformedEnvironmentError(
                f"{cls.__name__}: {'; '.join(faults)}; deploy the stack again so that the "
                "function's configuration matches its code"
            )
        return cls(**values)


class RunnerLevel(StrEnum):
    """Where runners are registered at GitHub."""

    ORGANIZATION = "organization"
    REPOSITORY = "repository"


class ConfigStore(StrEnum):
    """Where runner configurations are kept until their instance reads them."""

    DYNAMODB = "dynamodb"
    SSM = "ssm"


@dataclass(frozen=True, kw_only=True)
class LaunchTarget:
    """How instances of one platform are launched.

    Attributes:
        platform: ``linux-arm64``, ``linux-x64`` or ``windows-x64``.
        launch_template_id: The launch template.
        launch_template_version: Its version, as a number in text.
        root_device: Name of the root device of its image; a ``disk=`` label resizes that device.
    """

    platform: str
    launch_template_id: str
    launch_template_version: str
    root_device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedImage:
    """An image that a label may name by ``image=``.

    Attributes:
        name: Its name in labels.
        reference: AMI id, or ``resolve:ssm:`` and the name of a parameter.
        platform: What it runs on; ``None`` leaves that unchecked.
        min_disk_gib: Size of its root snapshot in GiB; 0 when it is the default image's.
        root_device: Name of its root device; ``None`` when it is the default image's.
    """

    name: str
    reference: str
    platform: str | None = None
    min_disk_gib: int = 0
    root_device: str | None = None


@dataclass(frozen=True, kw_only=True)
class TraceEnvironment(Environment):
    """Where traces go; the same for every function and for the agent.

    Attributes:
        otlp_endpoint: Base URL of an OpenTelemetry collector that takes OTLP over HTTP, such as
            ``https://otel.example.com:4318``; ``None`` traces nothing.
    """

    otlp_endpoint: str | None = None


@dataclass(frozen=True, kw_only=True)
class LabelEnvironment(Environment):
    """What the label grammar is resolved against; the same for every function that parses labels.

    Attributes:
        fleet: Name of the fleet (``env=`` in a label must equal it when given).
        runner_level: Where runners are registered; a repository of a user has no organisation.
        spot: Whether spot is used when a label does not say.
        label_aliases: Ordered rules, each ``{"match": …, "pattern": bool, "spec": …}``.
        images: Images that labels may name.
        platforms: Platforms that the fleet can launch.
        private: Whether the fleet has private subnets for ``private=true``.
        max_cpu: Most vCPUs that a label may ask for.
    """

    fleet: str
    runner_level: RunnerLevel = RunnerLevel.ORGANIZATION
    spot: bool = True
    label_aliases: tuple[dict[str, Any], ...] = ()
    images: tuple[OfferedImage, ...] = ()
    platforms: tuple[str, ...] = ("linux-arm64", "linux-x64")
    private: bool = False
    max_cpu: int = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class SubnetZone:
    """The zone of a subnet, so that an offering that failed there can be left out.

    Attributes:
        subnet_id: The subnet.
        availability_zone: Its zone, such as ``eu-central-1a``.
    """

    subnet_id: str
    availability_zone: str


@dataclass(frozen=True, kw_only=True)
class BreakerEnvironment(Environment):
    """The circuit breaker; the same for every function that feeds or asks it.

    Attributes:
        circuit_table: Table of offerings that failed.
        audit_table: Table of who changed what.
        breaker_threshold: Failures of an offering within the window that open it (origin: 3).
        breaker_window_seconds: The sliding window (origin: 15 minutes).
        breaker_cooldown_seconds: How long it stays open the first time (origin: 30 minutes).
    """

    circuit_table: str
    audit_table: str
    breaker_threshold: int = 3
    breaker_window_seconds: int = 15 * 60
    breaker_cooldown_seconds: int = 30 * 60


@dataclass(frozen=True, kw_only=True)
class SlotsEnvironment(Environment):
    """Caps on runners that exist at once; the same for every function that moves jobs.

    Attributes:
        slots_table: Table of the counters.
        max_runners: Most runners of the fleet; ``None`` for no cap.
        max_runners_per_owner: Most runners of one organisation or user; ``None`` for no cap.
        max_runners_per_repository: Most runners of one repository; ``None`` for no cap.
    """

    slots_table: str
    max_runners: int | None = None
    max_runners_per_owner: int | None = None
    max_runners_per_repository: int | None = None


@dataclass(frozen=True, kw_only=True)
class WebhookEnvironment(LabelEnvironment, TraceEnvironment):
    """Environment of the webhook function.

    Attributes:
        webhook_secret: Reference to the HMAC secret: ``secretsmanager:<name or ARN>`` or
            ``ssm:<parameter name>``.
        jobs_queue_url: The FIFO jobs queue.
        events_queue_url: The events queue, for jobs that ended.
        jobs_dead_letter_queue_url: As in :class:`HealthEnvironment`; not set without the route.
        circuit_table: As in :class:`HealthEnvironment`; not set without the route.
        leases_table: As in :class:`HealthEnvironment`; not set without the route.
    """

    webhook_secret: str
    jobs_queue_url: str
    events_queue_url: str
    jobs_dead_letter_queue_url: str | None = None
    circuit_table: str | None = None
    leases_table: str | None = None


@dataclass(frozen=True, kw_only=True)
class HealthEnvironment(Environment):
    """What the webhook function needs to answer ``GET /health``.

    Attributes:
        fleet: Name of the fleet.
        jobs_queue_url: The FIFO jobs queue.
        jobs_dead_letter_queue_url: Jobs that dispatch failed on.
        circuit_table: Table of offerings that failed.
        leases_table: Table of leases, which tells when each sweep ran last.
    """

    fleet: str
    jobs_queue_url: str
    jobs_dead_letter_queue_url: str
    circuit_table: str
    leases_table: str


@dataclass(frozen=True, kw_only=True)
class GitHubEnvironment(Environment):
    """How a function talks to GitHub.

    Attributes:
        github_app_secret: Reference to the App's JSON ``{"app_id": …, "private_key": …}``:
            ``secretsmanager:<name or ARN>`` or ``ssm:<parameter name>``.
        github_api_url: ``https://api.github.com``, or ``https://HOST/api/v3`` of an Enterprise
            Server.
        github_server_url: ``https://github.com``, or ``https://HOST``.
        runner_group_id: Runner group to register in; 1 is GitHub's default group.
    """

    github_app_secret: str
    github_api_url: str = "https://api.github.com"
    github_server_url: str = "https://github.com"
    runner_group_id: int = 1


@dataclass(frozen=True, kw_only=True)
class DispatchEnvironment(
    LabelEnvironment, GitHubEnvironment, BreakerEnvironment, SlotsEnvironment, TraceEnvironment
):
    """Environment of the dispatch function.

    Attributes:
        jobs_table: Table of jobs.
        instances_table: Table of instances.
        runners_table: Table of runner configurations; used when ``config_store`` is ``dynamodb``.
        jobs_queue_url: The FIFO jobs queue, for requeues.
        config_store: Where configurations are kept.
        config_parameter_prefix: Prefix of the parameters when ``config_store`` is ``ssm``.
        instance_role_id: Unique id of the instances' role (``AROA…``).
        launch_targets: One for each platform.
        subnet_ids: Subnets of ordinary instances, one or more for each zone.
        private_subnet_ids: Subnets of instances with ``private=true``; empty refuses them.
        subnet_zones: The zone of each of these subnets.
        claim_lease_seconds: A claim older than this may be taken over. Above the function's
            timeout and below the queue's visibility timeout.
        job_deadline_seconds: GitHub fails a job that waited this long (24 h).
        max_runtime_seconds: Longest run of a job (origin: 360 minutes).
        idle_timeout_seconds: A runner without a job ends after this.
        registration_token_fallback: Whether a runner may register by a token for the whole scope
            when GitHub's limit of JIT configurations is reached.
    """

    jobs_table: str
    instances_table: str
    jobs_queue_url: str
    instance_role_id: str
    launch_targets: tuple[LaunchTarget, ...]
    subnet_ids: tuple[str, ...]
    private_subnet_ids: tuple[str, ...] = ()
    subnet_zones: tuple[SubnetZone, ...] = ()
    config_store: ConfigStore = ConfigStore.DYNAMODB
    runners_table: str | None = None
    config_parameter_prefix: str | None = None
    claim_lease_seconds: int = 90
    job_deadline_seconds: int = 24 * 3600
    max_runtime_seconds: int = 360 * 60
    idle_timeout_seconds: int = 600
    registration_token_fallback: bool = False


@dataclass(frozen=True, kw_only=True)
class RecordsEnvironment(GitHubEnvironment, SlotsEnvironment, TraceEnvironment):
    """What every function needs that closes jobs or dispatches them again.

    Attributes:
        fleet: Name of the fleet.
        runner_level: Where runners are registered.
        jobs_table: Table of jobs.
        instances_table: Table of instances.
        jobs_queue_url: The FIFO jobs queue: a job that is dispatched again goes back to it.
        events_queue_url: The events queue: an interrupted job that may have to be re-run.
        runners_table: Table of runner configurations; used when ``config_store`` is ``dynamodb``.
        config_store: Where configurations are kept.
        config_parameter_prefix: Prefix of the parameters when ``config_store`` is ``ssm``.
        instance_role_id: Unique id of the instances' role (``AROA…``).
        job_deadline_seconds: GitHub fails a job that waited this long (24 h).
        job_retention_days: Closed jobs are kept this long (origin: 7 days).
    """

    fleet: str
    jobs_table: str
    instances_table: str
    jobs_queue_url: str
    events_queue_url: str
    instance_role_id: str
    runner_level: RunnerLevel = RunnerLevel.ORGANIZATION
    config_store: ConfigStore = ConfigStore.DYNAMODB
    runners_table: str | None = None
    config_parameter_prefix: str | None = None
    job_deadline_seconds: int = 24 * 3600
    job_retention_days: int = 7


@dataclass(frozen=True, kw_only=True)
class TerminationEnvironment(RecordsEnvironment):
    """Environment of the termination function."""


@dataclass(frozen=True, kw_only=True)
class EventsEnvironment(RecordsEnvironment, BreakerEnvironment):
    """Environment of the events function."""


@dataclass(frozen=True, kw_only=True)
class HousekeepingEnvironment(RecordsEnvironment, LabelEnvironment):
    """Environment of the housekeeping function.

    Attributes:
        leases_table: Table of leases and of what the tasks remember.
        cache_bucket: Bucket of kept reports and archived jobs.
        termination_queue_url: Reports that were kept go back to it.
        dead_letter_queue_urls: Each queue and its dead-letter queue, as ``{"queue": …,
            "dead_letters": …}``.
        max_runtime_seconds: Longest run of a job (origin: 360 minutes).
        idle_timeout_seconds: A runner without a job ends after this.
        config_timeout_seconds: An instance without a configuration ends after this.
        lifetime_seconds: Longest life of an instance, by its watchdog.
        cost_zone: Time zone whose days the cost report is about, such as ``Europe/Berlin``.
        cost_topic_arn: SNS topic that is told what a day cost; nobody is when ``None``.
        self_hosted_usd_per_minute: What GitHub charges for minutes on runners of one's own.
        cost_inventory: Name of the parameter that holds the fleet's
            :class:`~runsfleet_runtime.contract.inventory.Inventory`. It would not fit in here:
            all variables of a function may take 4 KB.
    """

    leases_table: str
    cache_bucket: str
    termination_queue_url: str
    dead_letter_queue_urls: tuple[dict[str, str], ...]
    max_runtime_seconds: int = 360 * 60
    idle_timeout_seconds: int = 600
    config_timeout_seconds: int = 300
    lifetime_seconds: int = 8 * 3600
    cost_zone: str = "UTC"
    cost_topic_arn: str | None = None
    self_hosted_usd_per_minute: float = 0.0
    cost_inventory: str | None = None


@dataclass(frozen=True, kw_only=True)
class NotifyEnvironment(Environment):
    """Environment of a function that posts to a Slack channel.

    Attributes:
        slack_webhook: Reference to the address of the incoming webhook, a secret:
            ``secretsmanager:<name or ARN>`` or ``ssm:<parameter name>``.
    """

    slack_webhook: str


@dataclass(frozen=True, kw_only=True)
class AgentEnvironment(TraceEnvironment):
    """Environment of the agent, written into the launch template's user data. Holds no secret.

    Attributes:
        fleet: Name of the fleet.
        platform: ``linux-arm64``, ``linux-x64`` or ``windows-x64``.
        region: The fleet's region.
        termination_queue_url: Where the agent reports to.
        instance_role_id: Unique id of the instance's own role (``AROA…``).
        config_store: Where its configuration is kept.
        runners_table: Table of runner configurations; used when ``config_store`` is ``dynamodb``.
        config_parameter_prefix: Prefix of the parameters when ``config_store`` is ``ssm``.
        runner_bucket: S3 bucket that caches runner packages.
        log_group: Log group that the agent writes to, one stream for each job; none if left out.
        config_timeout_seconds: An instance that got no configuration within it ends.
        runner_disk_bytes: Free disk without which no runner is fetched; 1 GB, as a package takes
            about 220 MB and four times that once unpacked.
        home: Where agent, runner and work live on the instance, say on a faster disk;
            ``/opt/runsfleet`` by default.
        runner_user: Whom the job runs as when the agent is root; ``runner`` by default, made when
            it is missing. Name the agent's own user (``root``) to run the job as that. An agent
            that is not root runs the job as itself.
        runner_sudo: Whether a user that the agent makes may become root without a password, as on
            GitHub's own machines, where many workflows install packages that way. The instance
            holds nothing but this one job. A user of the image keeps the image's rules.
        standby: Whether the instance may be stopped while it waits for a configuration, to be
            started again: then a stop is not its end.

    What is ``None`` is left to the machine: its image may set the variable.
    """

    fleet: str
    platform: str
    region: str
    termination_queue_url: str
    instance_role_id: str
    config_store: ConfigStore = ConfigStore.DYNAMODB
    runners_table: str | None = None
    config_parameter_prefix: str | None = None
    runner_bucket: str | None = None
    log_group: str | None = None
    config_timeout_seconds: int = 300
    runner_disk_bytes: int = 1_000_000_000
    home: str | None = None
    runner_user: str | None = None
    runner_sudo: bool = True
    standby: bool = False


@dataclass(frozen=True, kw_only=True)
class WatchdogEnvironment(Environment):
    """Limits of an instance's watchdog, which ends the instance whatever its agent does.

    Attributes:
        watchdog_lifetime_seconds: No instance lives longer; above all other limits together.
        watchdog_start_seconds: From the first script's start until the agent's first sign of life:
            it may install Python and run setup commands meanwhile.
        watchdog_silence_seconds: An agent without a sign of life for so long counts as dead. Well
            above what a job that takes all memory or disk can hold it up for; a wrong alarm costs
            a job, a late one minutes of an instance.
    """

    watchdog_lifetime_seconds: int
    watchdog_start_seconds: int = 1800
    watchdog_silence_seconds: int = 300
