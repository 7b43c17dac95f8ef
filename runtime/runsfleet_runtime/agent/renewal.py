"""Another registration for a runner whose first one GitHub did not take; asked for once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from runsfleet_runtime.agent.configuration import await_configuration
from runsfleet_runtime.agent.errors import ConfigurationError
from runsfleet_runtime.contract.messages import ContractError, RunnerConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runsfleet_runtime.agent.ports import Clock, ReadsConfiguration

RENEWAL_SECONDS = 60.0
"""How long to wait for it; an instance of its own would take about as long to boot."""

# what a registration leaves in the runner's root; config.sh refuses a root that has them
_LEFT_BEHIND = (".runner", ".runner_migrated", ".credentials", ".credentials_rsaparams")


@dataclass(frozen=True, slots=True)
class RenewedConfigurations:
    """Reads configurations, yet not the one that was refused. Satisfies ``ReadsConfiguration``.

    Attributes:
        store: Where they are.
        refused: The one that was refused.
    """

    store: ReadsConfiguration
    refused: RunnerConfig

    def read(self, instance_id: str, *, now: float) -> str | None:
        """Return the configuration; ``None`` while it is the one that was refused."""
        text = self.store.read(instance_id, now=now)
        if text is None:
            return None
        try:
            found = RunnerConfig.from_json(text)
        except ContractError:
            return text  # told by whoever accepts it
        return None if _registration(found) == _registration(self.refused) else text


def await_renewal(
    store: ReadsConfiguration,
    refused: RunnerConfig,
    *,
    clock: Clock,
    draw: Callable[[], float],
    timeout: float = RENEWAL_SECONDS,
) -> RunnerConfig | None:
    """Wait for another registration.

    Args:
        store: Where configurations are.
        refused: The one whose registration was refused.
        clock: Time, and the request to stop.
        draw: Random numbers in [0, 1).
        timeout: Seconds to wait.

    Returns:
        The same configuration with the other registration; ``None`` when none came.

    Raises:
        StopRequestedError: The agent was told to stop.
    """
    try:
        found = await_configuration(
            RenewedConfigurations(store, refused),
            refused.instance_id,
            timeout=timeout,
            clock=clock,
            draw=draw,
        )
    except ConfigurationError:
        return None
    return replace(
        refused, jit_config=found.jit_config, registration_token=found.registration_token
    )


def forget_registration(root: Path) -> None:
    """Remove what a registration left in the runner's root."""
    for name in _LEFT_BEHIND:
        (root / name).unlink(missing_ok=True)


def _registration(config: RunnerConfig) -> tuple[str, str]:
    return config.jit_config, config.registration_token
