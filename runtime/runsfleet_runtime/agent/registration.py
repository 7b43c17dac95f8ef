"""How a runner registers: what goes into its environment and what into its command line. Pure.

The secret (JIT configuration or registration token) goes into the environment only. The runner
takes ``ACTIONS_RUNNER_INPUT_*`` out of its own environment before it starts a job.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runsfleet_runtime.agent.errors import ConfigurationError

if TYPE_CHECKING:
    from runsfleet_runtime.contract.messages import RunnerConfig

_TELL_DEPRECATION = {"ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE": "1"}
"""Lets ``run.sh`` answer 7 when GitHub no longer takes the runner's version."""

DEFAULT_GROUP_ID = 1
"""GitHub's runner group ``Default``; also the only one of a repository."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What to start for a runner to register.

    Attributes:
        configure_arguments: Arguments of ``config.sh``; ``None`` when it must not run at all.
        configure_environment: Variables of ``config.sh``; hold a secret.
        run_environment: Variables of ``run.sh``; hold a secret.
        secrets: What must never be shown.
    """

    configure_arguments: tuple[str, ...] | None
    configure_environment: dict[str, str] = field(repr=False)
    run_environment: dict[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)


def plan_registration(config: RunnerConfig) -> Registration:
    """Decide how the runner of a configuration registers; JIT wins where both are given.

    Raises:
        ConfigurationError: A registration token cannot do what the configuration asks for.
    """
    if config.jit_config:
        return Registration(
            configure_arguments=None,
            configure_environment={},
            run_environment={
                **_TELL_DEPRECATION,
                "ACTIONS_RUNNER_INPUT_JITCONFIG": config.jit_config,
            },
            secrets=(config.jit_config,),
        )
    if config.runner_group_id != DEFAULT_GROUP_ID:
        # config.sh knows groups by name; a wrong one would serve other repositories
        raise ConfigurationError(
            f"a registration token cannot register in group {config.runner_group_id}; "
            "use JIT configurations or the default group"
        )
    if unfit := [label for label in config.labels if "," in label]:
        raise ConfigurationError(
            f"config.sh separates labels by commas, got {unfit[0]!r}; use JIT configurations"
        )
    return Registration(
        configure_arguments=(
            "--unattended",
            "--ephemeral",
            "--disableupdate",
            "--replace",
            "--no-default-labels",
            "--url",
            config.runner_url,
            "--name",
            config.runner_name,
            "--labels",
            ",".join(config.labels),
        ),
        configure_environment={"ACTIONS_RUNNER_INPUT_TOKEN": config.registration_token},
        run_environment=dict(_TELL_DEPRECATION),
        secrets=(config.registration_token,),
    )


def conceal(text: str, secrets: tuple[str, ...]) -> str:
    """Return a text with every secret in it replaced by ``***``."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
