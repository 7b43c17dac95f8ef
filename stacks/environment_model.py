"""What an environment file may say; its keys, defaults and bounds.

Values are named with their units. What the constructs check as well (labels, limits) is checked
here by the same code, so that a file is judged as a whole before anything is built.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)

from runsfleet_constructs._checks import check_otlp_endpoint
from runsfleet_constructs.cost_options import is_zone
from runsfleet_constructs.labels import MOST_CPU, LabelAlias, LabelImage, LabelOptions
from runsfleet_constructs.runner_image import WINDOWS_SERVER_2022
from runsfleet_constructs.runner_network import DEFAULT_CIDR, NARROWEST_PREFIX, WIDEST_PREFIX
from runsfleet_constructs.ssh_access import is_the_world
from runsfleet_runtime.contract.environment import ConfigStore, RunnerLevel
from runsfleet_runtime.contract.messages import HousekeepingTask

LOG_RETENTION_DAYS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827)
"""What CloudWatch Logs accepts, up to five years."""


class _Part(BaseModel):
    # strict: "yes" is no boolean and "3" no number, whatever YAML makes of them
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _account(value: object) -> object:
    if isinstance(value, int):
        # pydantic makes a finding of a ValueError only
        raise ValueError("must be text in quotes: YAML drops leading zeros")  # noqa: TRY004
    return value


def _cidr(value: str) -> str:
    try:
        network = ipaddress.IPv4Network(value)
    except ValueError as error:
        raise ValueError(f"must be an IPv4 network like {DEFAULT_CIDR} ({error})") from None
    if not WIDEST_PREFIX <= network.prefixlen <= NARROWEST_PREFIX:
        raise ValueError(
            f"must have a prefix of /{WIDEST_PREFIX} to /{NARROWEST_PREFIX}; use {DEFAULT_CIDR}"
        )
    return value


def _ssh_network(value: str) -> str:
    try:
        ipaddress.ip_network(value)
    except ValueError as error:
        raise ValueError(f"must be a network like 10.0.0.0/8 ({error})") from None
    if is_the_world(value):
        raise ValueError(
            "must not be the internet or a large part of it; name your own network, such as "
            "10.0.0.0/8, or use Session Manager, which needs no open port"
        )
    return value


def _retention(value: int) -> int:
    if value not in LOG_RETENTION_DAYS:
        raise ValueError(f"must be one of {', '.join(map(str, LOG_RETENTION_DAYS))}")
    return value


def _secret_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9/_+=.@-]{1,500}", value):
        raise ValueError("must be the name of a secret, never its value; create the secret first")
    return value


def _alarm(value: str) -> str:
    from runsfleet_constructs import FleetAlarm  # only where an alarm is named: it loads CloudWatch

    if value not in set(FleetAlarm):
        raise ValueError(f"must be one of {', '.join(FleetAlarm)}")
    return value


def _zone(value: str) -> str:
    if not is_zone(value):
        raise ValueError("must be a time zone like Europe/Berlin")
    return value


Account = Annotated[str, StringConstraints(pattern=r"^\d{12}$"), BeforeValidator(_account)]
Region = Annotated[str, StringConstraints(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")]
Cidr = Annotated[str, AfterValidator(_cidr)]
SshNetwork = Annotated[str, AfterValidator(_ssh_network)]
SecretName = Annotated[str, AfterValidator(_secret_name)]
FleetName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,30}[a-z0-9]$")]
SubnetId = Annotated[str, StringConstraints(pattern=r"^subnet-[0-9a-f]+$")]
ImageReference = Annotated[
    str, StringConstraints(pattern=r"^(ami-[0-9a-f]{8,17}|resolve:ssm:[A-Za-z0-9/_.:-]+)$")
]
Schedule = Annotated[
    str, StringConstraints(pattern=r"^(rate\([1-9]\d* (minutes?|hours?|days?)\)|cron\([^()]+\))$")
]
Email = Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")]
AlarmName = Annotated[str, AfterValidator(_alarm)]
OtlpEndpoint = Annotated[str, AfterValidator(check_otlp_endpoint)]
Zone = Annotated[str, AfterValidator(_zone)]
TopicArn = Annotated[
    str, StringConstraints(pattern=r"^arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:[A-Za-z0-9_-]{1,256}$")
]
RootDevice = Annotated[str, StringConstraints(pattern=r"^/dev/[a-z0-9]+$")]
# YAML has text only; strict mode would ask for the enum itself
Level = Annotated[RunnerLevel, Field(strict=False)]
Store = Annotated[ConfigStore, Field(strict=False)]
Sweep = Annotated[HousekeepingTask, Field(strict=False)]


class GitHubPart(_Part):
    """The GitHub App: names of its secrets, and where runners register."""

    secret_name: SecretName | None = None
    webhook_secret_name: SecretName | None = None
    parameter_name: SecretName | None = None
    webhook_parameter_name: SecretName | None = None
    url: Annotated[str, StringConstraints(pattern=r"^https://[A-Za-z0-9.-]+(:\d+)?/?$")] = (
        "https://github.com"
    )
    runner_level: Level = RunnerLevel.ORGANIZATION
    runner_group_id: Annotated[int, Field(ge=1)] = 1
    registration_token_fallback: bool = False

    @model_validator(mode="after")
    def _one_store(self) -> Self:
        if (self.secret_name is None) == (self.parameter_name is None):
            raise ValueError(
                "needs secret_name (Secrets Manager) or parameter_name (Parameter Store), "
                "and not both; name the one that holds the App's id and private key"
            )
        stray = self.webhook_parameter_name if self.secret_name else self.webhook_secret_name
        if stray is not None:
            raise ValueError(
                f"both secrets must be kept in one place, got the webhook's {stray!r} in another; "
                "use webhook_secret_name with secret_name, webhook_parameter_name with "
                "parameter_name"
            )
        return self


class ImagePart(_Part):
    """Images of one's own."""

    linux_arm64: ImageReference
    linux_x64: ImageReference
    root_device: RootDevice = "/dev/sda1"
    windows_x64: ImageReference | None = WINDOWS_SERVER_2022
    windows_root_device: RootDevice = "/dev/sda1"


class SshPart(_Part):
    """Who may log in to Linux instances."""

    key_pair: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    networks: Annotated[list[SshNetwork], Field(min_length=1)]


class RunnersPart(_Part):
    """The instances."""

    spot: bool = True
    image: Annotated[
        Annotated[Literal["ubuntu-24.04", "amazon-linux-2023"], Tag("name")]
        | Annotated[ImagePart, Tag("own")],
        Discriminator(lambda value: "own" if isinstance(value, dict | ImagePart) else "name"),
    ] = "ubuntu-24.04"
    volume_gib: Annotated[int, Field(ge=8, le=16384)] = 30
    config_store: Store = ConfigStore.DYNAMODB
    session_manager: bool = True
    ssh: SshPart | None = None
    setup_commands: list[str] = []
    windows_setup_commands: list[str] = []
    sudo: bool = True


class AliasPart(_Part):
    """A label of somebody else that the fleet takes over."""

    match: str
    spec: str
    pattern: bool = False


class LabelImagePart(_Part):
    """An image that labels may ask for by ``image=``."""

    reference: ImageReference
    platform: Literal["linux-arm64", "linux-x64", "windows-x64"] | None = None
    min_disk_gib: Annotated[int, Field(ge=0, le=1024)] = 0
    root_device: RootDevice | None = None


class LabelsPart(_Part):
    """What labels may ask for."""

    aliases: list[AliasPart] = []
    images: dict[str, LabelImagePart] = {}
    max_cpu: Annotated[int, Field(ge=1, le=MOST_CPU)] = MOST_CPU

    @model_validator(mode="after")
    def _as_the_runtime_reads_them(self) -> Self:
        self.options()
        return self

    def options(self) -> LabelOptions:
        """Return them as the fleet takes them, which checks them too."""
        return LabelOptions(
            aliases=[
                LabelAlias(match=a.match, spec=a.spec, pattern=a.pattern) for a in self.aliases
            ],
            images={
                name: LabelImage(
                    reference=image.reference,
                    platform=image.platform,
                    min_disk_gib=image.min_disk_gib,
                    root_device=image.root_device,
                )
                for name, image in self.images.items()
            },
            max_cpu=self.max_cpu,
        )


class LimitsPart(_Part):
    """How long the fleet waits for what, and how many runners there may be."""

    max_runtime_minutes: Annotated[int, Field(ge=1, le=5 * 24 * 60)] = 360
    idle_timeout_minutes: Annotated[int, Field(ge=1, le=24 * 60)] = 10
    config_timeout_minutes: Annotated[int, Field(ge=1, le=60)] = 5
    job_deadline_minutes: Annotated[int, Field(ge=5, le=24 * 60)] = 24 * 60
    job_retention_days: Annotated[int, Field(ge=1, le=3650)] = 7
    dispatch_concurrency: Annotated[int, Field(ge=2, le=1000)] = 5
    termination_concurrency: Annotated[int, Field(ge=2, le=1000)] = 5
    max_runners: Annotated[int, Field(ge=1)] | None = None
    max_runners_per_owner: Annotated[int, Field(ge=1)] | None = None
    max_runners_per_repository: Annotated[int, Field(ge=1)] | None = None


class BreakerPart(_Part):
    """When an offering of EC2 that fails is left alone, and for how long."""

    threshold: Annotated[int, Field(ge=1, le=100)] = 3
    window_minutes: Annotated[int, Field(ge=1, le=24 * 60)] = 15
    cooldown_minutes: Annotated[int, Field(ge=1, le=24 * 60)] = 30


class HousekeepingPart(_Part):
    """When the sweeps are due, where that is not as usual."""

    paused: bool = False
    # what YAML makes of `off` is a False
    schedules: dict[Sweep, Schedule | Literal[False]] = {}


class AlarmPart(_Part):
    """How an alarm differs from its rule."""

    threshold: Annotated[float, Field(ge=0)] | None = None
    period_minutes: Annotated[int, Field(ge=1, le=60)] | None = None
    periods: Annotated[int, Field(ge=1, le=24)] | None = None


class AlarmsPart(_Part):
    """The fleet's alarms."""

    emails: list[Email] = []
    # what YAML makes of `off` is a False
    changes: dict[AlarmName, AlarmPart | Literal[False]] = {}


class CostPart(_Part):
    """The daily cost report."""

    zone: Zone = "UTC"
    topic_arns: dict[Region, TopicArn] = {}
    self_hosted_usd_per_minute: Annotated[float, Field(ge=0, le=1)] = 0.0


class VpcPart(_Part):
    """A network that exists already."""

    id: Annotated[str, StringConstraints(pattern=r"^vpc-[0-9a-f]+$")]
    availability_zones: Annotated[list[str], Field(min_length=1)]
    public_subnet_ids: list[SubnetId] = []
    private_subnet_ids: list[SubnetId] = []

    @model_validator(mode="after")
    def _each_zone_has_its_subnet(self) -> Self:
        kinds = {"public": self.public_subnet_ids, "private": self.private_subnet_ids}
        if not any(kinds.values()):
            raise ValueError("needs public_subnet_ids, private_subnet_ids or both")
        zones = len(self.availability_zones)
        for kind, subnets in kinds.items():
            if subnets and len(subnets) % zones:
                raise ValueError(
                    f"{kind}_subnet_ids must be one or more for each of the {zones} zones, in "
                    f"their order, got {len(subnets)}"
                )
        return self


class NetworkPart(_Part):
    """A network of the fleet's own, or an existing one for each region."""

    cidr: Cidr = DEFAULT_CIDR
    zones: Annotated[int, Field(ge=1, le=4)] | None = None
    nat_gateways: Annotated[int, Field(ge=0, le=3)] = 0
    vpcs: dict[Region, VpcPart] = {}


class FunctionsPart(_Part):
    """The Lambda functions."""

    architecture: Literal["arm64", "x86_64"] = "arm64"
    log_retention_days: Annotated[int, AfterValidator(_retention)] = 30
    health_route: bool = True


class DataPart(_Part):
    """What becomes of data."""

    removal_policy: Literal["retain", "destroy"] = "retain"
    point_in_time_recovery: bool | None = None


class EnvironmentFile(_Part):
    """One environment: a stage with a stack for every region."""

    name: FleetName
    account: Account | None = None
    regions: list[Region] = []
    fleet_name: FleetName | None = None
    github: GitHubPart
    runners: RunnersPart = RunnersPart()
    labels: LabelsPart = LabelsPart()
    limits: LimitsPart = LimitsPart()
    breaker: BreakerPart = BreakerPart()
    housekeeping: HousekeepingPart = HousekeepingPart()
    cost: CostPart = CostPart()
    network: NetworkPart = NetworkPart()
    functions: FunctionsPart = FunctionsPart()
    data: DataPart = DataPart()
    otlp_endpoint: OtlpEndpoint | None = None
    alarms: AlarmsPart | None = None
    dashboard: bool = False
    tags: dict[
        Annotated[str, StringConstraints(min_length=1, max_length=128)],
        Annotated[str, StringConstraints(max_length=256)],
    ] = {}

    @model_validator(mode="after")
    def _regions_fit(self) -> Self:
        if len(set(self.regions)) != len(self.regions):
            raise ValueError(f"regions must differ, got {', '.join(self.regions)}; drop one")
        strange = sorted(set(self.network.vpcs) - set(self.regions))
        if strange:
            raise ValueError(
                f"network.vpcs has {', '.join(strange)}, which is none of regions; "
                "add the region or remove the network"
            )
        strange = sorted(set(self.cost.topic_arns) - set(self.regions))
        if strange:
            raise ValueError(
                f"cost.topic_arns has {', '.join(strange)}, which is none of regions; "
                "add the region or remove the topic"
            )
        return self
