"""How each task is made; only the one that is due is imported and made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runsfleet_runtime.contract.messages import HousekeepingTask

if TYPE_CHECKING:
    from runsfleet_runtime.contract.environment import HousekeepingEnvironment
    from runsfleet_runtime.github.gateway import GitHubGateway
    from runsfleet_runtime.housekeeping.ports import Task
    from runsfleet_runtime.runners.ports import StoresRunnerConfig
    from runsfleet_runtime.telemetry.metrics import CountsMetrics


class UnknownTaskError(Exception):
    """This version of the function has no such task; deploy the newer one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What tasks are made of. What is a callable is made when it is first called.

    Attributes:
        environment: The function's environment.
        client: Makes the client of an AWS service.
        github: Connects to GitHub.
        runners: The store of runner configurations.
        metrics: Where metrics go.
        clock: Returns epoch seconds.
        jitter: Returns a random number in [0, 1).
        new_id: Returns a fresh unique id.
    """

    environment: HousekeepingEnvironment
    client: Callable[[str], Any]
    github: Callable[[], GitHubGateway]
    runners: Callable[[], StoresRunnerConfig]
    metrics: CountsMetrics
    clock: Callable[[], float]
    jitter: Callable[[], float]
    new_id: Callable[[], str]


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


_MAKERS: Final[Mapping[HousekeepingTask, Callable[[Parts], Task[Any]]]] = {}
