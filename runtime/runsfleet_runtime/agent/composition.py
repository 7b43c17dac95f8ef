"""Join the agent's parts by its environment."""

from __future__ import annotations

import logging
import random
from pathlib import Path
from typing import TYPE_CHECKING

from runsfleet_runtime.agent.agent import Agent
from runsfleet_runtime.agent.aws import AwsClients
from runsfleet_runtime.agent.departure import Departure
from runsfleet_runtime.agent.download import UrlDownloads
from runsfleet_runtime.agent.dynamodb import DynamoDbConfigurations
from runsfleet_runtime.agent.ec2 import Ec2Instances
from runsfleet_runtime.agent.imds import DEFAULT_ENDPOINT, ENDPOINT_VARIABLE, Imds
from runsfleet_runtime.agent.kept_reports import KeptReports
from runsfleet_runtime.agent.log_shipper import LogShipper, NoLogs, ShippingHandler
from runsfleet_runtime.agent.log_spool import Spool
from runsfleet_runtime.agent.logs import CloudWatchLogs
from runsfleet_runtime.agent.masking import Masker, MaskingFormatter
from runsfleet_runtime.agent.notices import NoticeWatch
from runsfleet_runtime.agent.package import BakedRunner, RunnerPackages
from runsfleet_runtime.agent.platforms import choose_system
from runsfleet_runtime.agent.s3 import S3Packages
from runsfleet_runtime.agent.sqs import SqsReports
from runsfleet_runtime.agent.ssm import SsmConfigurations
from runsfleet_runtime.contract.environment import (
    AgentEnvironment,
    ConfigStore,
    MalformedEnvironmentError,
    variable_name,
)
from runsfleet_runtime.contract.paths import (
    BAKED_RUNNER_DIRECTORY,
    BAKED_RUNNER_MARKER,
    LOG_DIRECTORY,
    REPORTS_DIRECTORY,
    WORK_DIRECTORY,
)
from runsfleet_runtime.telemetry.traces import Tracer

DEFAULT_RUNNER_USER = "runner"

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runsfleet_runtime.agent.clock import SignalClock
    from runsfleet_runtime.agent.ports import ReadsConfiguration, ShipsLogs


def compose(environ: Mapping[str, str], clock: SignalClock) -> Agent:
    """Make the agent of this instance.

    Args:
        environ: Usually ``os.environ``.
        clock: Time and signals.

    Raises:
        MalformedEnvironmentError: Naming every variable that is missing or malformed.
    """
    settings = AgentEnvironment.from_environ(environ)
    system = choose_system(settings, environ)
    home = Path(settings.home or system.home)
    clients = AwsClients(settings.region)
    draw = random.SystemRandom().random
    endpoint = environ.get(ENDPOINT_VARIABLE) or DEFAULT_ENDPOINT
    mask = Masker()
    tracer = Tracer(
        "agent",
        endpoint=settings.otlp_endpoint,
        resource={"runsfleet.fleet": settings.fleet, "cloud.region": settings.region},
    )
    logs = _ship_logs(settings, clients, home, mask=mask, draw=draw)
    platform = system.platform
    cache = S3Packages(clients, bucket=settings.runner_bucket) if settings.runner_bucket else None
    return Agent(
        instance=Imds(endpoint, pause=clock.pause, draw=draw),
        # a service of its own: its token is not shared between threads
        notices=NoticeWatch(Imds(endpoint, pause=clock.pause, draw=draw), clock),
        configurations=_configurations(settings, clients),
        packages=RunnerPackages(
            platform=settings.platform,
            baked=BakedRunner(
                directory=home / BAKED_RUNNER_DIRECTORY, marker=home / BAKED_RUNNER_MARKER
            ),
            cache=cache,
            downloads=UrlDownloads(),
            needed_bytes=settings.runner_disk_bytes,
            clock=clock,
            draw=draw,
            form=system.package_form,
        ),
        departure=Departure(
            reports=SqsReports(clients, queue_url=settings.termination_queue_url),
            kept=KeptReports(
                home / REPORTS_DIRECTORY, role_id=settings.instance_role_id, bucket=cache
            ),
            logs=logs,
            instances=Ec2Instances(clients),
            platform=platform,
            clock=clock,
            draw=draw,
            mask=mask,
            tracer=tracer,
        ),
        logs=logs,
        mask=mask,
        platform=platform,
        clock=clock,
        draw=draw,
        environ=environ,
        work_directory=home / WORK_DIRECTORY,
        config_timeout=settings.config_timeout_seconds,
        runner_user=settings.runner_user or DEFAULT_RUNNER_USER,
        standby=settings.standby,
        tracer=tracer,
    )


def _ship_logs(
    settings: AgentEnvironment,
    clients: AwsClients,
    home: Path,
    *,
    mask: Masker,
    draw: Callable[[], float],
) -> ShipsLogs:
    """Send the agent's log to the log group too, and keep secrets out of it everywhere."""
    root = logging.getLogger("runsfleet")
    for handler in root.handlers:
        handler.setFormatter(MaskingFormatter(handler.formatter, mask))
    if not settings.log_group:
        return NoLogs()
    shipper = LogShipper(
        CloudWatchLogs(clients, group=settings.log_group),
        spool=Spool(home / LOG_DIRECTORY),
        mask=mask,
        draw=draw,
    )
    shipping = ShippingHandler(shipper)
    shipping.setFormatter(root.handlers[0].formatter if root.handlers else None)
    root.addHandler(shipping)
    return shipper


def _configurations(settings: AgentEnvironment, clients: AwsClients) -> ReadsConfiguration:
    if settings.config_store is ConfigStore.SSM:
        return SsmConfigurations(
            clients, prefix=_needed(settings.config_parameter_prefix, "config_parameter_prefix")
        )
    return DynamoDbConfigurations(
        clients,
        table=_needed(settings.runners_table, "runners_table"),
        role_id=settings.instance_role_id,
    )


def _needed(value: str | None, field: str) -> str:
    if not value:
        raise MalformedEnvironmentError(
            f"AgentEnvironment: {variable_name(field)} is not set, which the configuration store "
            "needs; deploy the stack again"
        )
    return value
