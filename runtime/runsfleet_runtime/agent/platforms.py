"""Which system this agent runs on: the one place that chooses between Linux and Windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runsfleet_runtime.agent.package import TAR, PackageForm
from runsfleet_runtime.agent.windows_package import extract_zip
from runsfleet_runtime.contract.paths import AGENT_HOME, WINDOWS_AGENT_HOME, WINDOWS_PLATFORM

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runsfleet_runtime.agent.ports import Platform
    from runsfleet_runtime.contract.environment import AgentEnvironment

ZIP = PackageForm(suffix=".zip", starter="run.cmd", extract=extract_zip)


@dataclass(frozen=True, slots=True)
class System:
    """What the agent needs of its system.

    Attributes:
        platform: Its processes, users and power.
        home: Where the agent lives unless ``RUNSFLEET_HOME`` says otherwise.
        package_form: How GitHub makes the runner's package for it.
    """

    platform: Platform
    home: str
    package_form: PackageForm


def choose_system(settings: AgentEnvironment, environ: Mapping[str, str]) -> System:
    """Return the system of the platform that the launch template names.

    Args:
        settings: The agent's settings.
        environ: Its environment.
    """
    # each is imported only where it runs: Linux's needs modules that Windows lacks
    if settings.platform.startswith(WINDOWS_PLATFORM):
        from runsfleet_runtime.agent.windows import Windows

        return System(Windows(environ), WINDOWS_AGENT_HOME, ZIP)
    from runsfleet_runtime.agent.linux import Linux

    return System(Linux(environ, sudo=settings.runner_sudo), AGENT_HOME, TAR)
