"""Join the agent's parts by its environment."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

from runsfleet_runtime.agent.agent import Agent
from runsfleet_runtime.agent.aws import AwsClients
from runsfleet_runtime.agent.download import UrlDownloads
from runsfleet_runtime.agent.dynamodb import DynamoDbConfigurations
from runsfleet_runtime.agent.ec2 import Ec2Instances
from runsfleet_runtime.agent.imds import DEFAULT_ENDPOINT, ENDPOINT_VARIABLE, Imds
from runsfleet_runtime.agent.linux import Linux
from runsfleet_runtime.agent.package import BakedRunner, RunnerPackages
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
    AGENT_HOME,
    BAKED_RUNNER_DIRECTORY,
    BAKED_RUNNER_MARKER,
    WORK_DIRECTORY,
)

DEFAULT_RUNNER_USER = "runner"

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runsfleet_runtime.agent.clock import SignalClock
    from runsfleet_runtime.agent.ports import ReadsConfiguration


def compose(environ: Mapping[str, str], clock: SignalClock) -> Agent:
    """Make the agent of this instance.

    Args:
        environ: Usually ``os.environ``.
        clock: Time and signals.

    Raises:
        MalformedEnvironmentError: Naming every variable that is missing or malformed.
    """
    settings = AgentEnvironment.from_environ(environ)
    home = Path(settings.home or AGENT_HOME)
    clients = AwsClients(settings.region)
    draw = random.SystemRandom().random
    return Agent(
        instance=Imds(
            environ.get(ENDPOINT_VARIABLE) or DEFAULT_ENDPOINT, pause=clock.pause, draw=draw
        ),
        configurations=_configurations(settings, clients),
        packages=RunnerPackages(
            platform=settings.platform,
            baked=BakedRunner(
                directory=home / BAKED_RUNNER_DIRECTORY, marker=home / BAKED_RUNNER_MARKER
            ),
            cache=S3Packages(clients, bucket=settings.runner_bucket)
            if settings.runner_bucket
            else None,
            downloads=UrlDownloads(),
            clock=clock,
            draw=draw,
        ),
        reports=SqsReports(clients, queue_url=settings.termination_queue_url),
        instances=Ec2Instances(clients),
        platform=Linux(environ, sudo=settings.runner_sudo),
        clock=clock,
        draw=draw,
        environ=environ,
        work_directory=home / WORK_DIRECTORY,
        config_timeout=settings.config_timeout_seconds,
        runner_user=settings.runner_user or DEFAULT_RUNNER_USER,
    )


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
