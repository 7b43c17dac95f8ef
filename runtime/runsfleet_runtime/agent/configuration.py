"""Wait for the configuration that dispatch writes for this instance, and refuse any other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runsfleet_runtime.agent.errors import ConfigurationError
from runsfleet_runtime.agent.retry import jittered
from runsfleet_runtime.contract.messages import ContractError, RunnerConfig
from runsfleet_runtime.telemetry.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from runsfleet_runtime.agent.ports import Clock, ReadsConfiguration

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 5.0

_log = get_logger("agent.configuration")


def await_configuration(
    store: ReadsConfiguration,
    instance_id: str,
    *,
    timeout: float,
    clock: Clock,
    draw: Callable[[], float],
) -> RunnerConfig:
    """Read this instance's configuration, as soon as it is there.

    Dispatch writes it after CreateFleet answered, so a fast boot may be earlier. A store that
    fails is asked again too: an unreachable answer is not "there is none".

    Args:
        store: Where it is kept.
        instance_id: This instance.
        timeout: Seconds after which there is no hope left.
        clock: Time, and the request to stop.
        draw: Random numbers in [0, 1).

    Raises:
        ConfigurationError: Nothing came in time, or what came is not for this instance.
        StopRequestedError: The agent was told to stop.
    """
    end = clock.monotonic() + timeout
    failure = ""
    attempt = 0
    while True:
        attempt += 1
        clock.check()
        try:
            text = store.read(instance_id, now=clock.now().timestamp())
        except Exception as error:  # noqa: BLE001  whatever the store says, time decides
            failure = f"; the last attempt failed: {error}"
            _log.warning("configuration store failed", extra={"error": str(error)})
            text = None
        if text is not None:
            return accept(text, instance_id)
        pause = jittered(attempt, base=FIRST_PAUSE_SECONDS, cap=LONGEST_PAUSE_SECONDS, draw=draw())
        if clock.monotonic() + pause >= end:
            raise ConfigurationError(
                f"no configuration for {instance_id} within {timeout:g} s{failure}; "
                "see the dispatch function's log for this instance"
            )
        clock.pause(pause)


def accept(text: str, instance_id: str) -> RunnerConfig:
    """Parse a configuration and make sure that this instance may use it.

    Raises:
        ConfigurationError: It is malformed, another instance's, or holds no way to register.
    """
    try:
        config = RunnerConfig.from_json(text)
    except ContractError as error:
        raise ConfigurationError(f"the configuration cannot be read: {error}") from None
    if config.instance_id != instance_id:
        raise ConfigurationError(
            f"the configuration is for {config.instance_id}, this is {instance_id}; it is refused"
        )
    if not config.jit_config and not config.registration_token:
        raise ConfigurationError(
            "the configuration holds neither a JIT configuration nor a registration token"
        )
    return config
