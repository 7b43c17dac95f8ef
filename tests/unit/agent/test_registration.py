from __future__ import annotations

import pytest

from runsfleet_runtime.agent.errors import ConfigurationError
from runsfleet_runtime.agent.registration import conceal, plan_registration
from tests.unit.agent.fakes import JIT, runner_config

TELLS = {"ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE": "1"}


def test_a_jit_configuration_goes_by_the_environment_alone() -> None:
    """With a JIT configuration config.sh does not run, and the secret is in the environment."""
    plan = plan_registration(runner_config())
    assert plan.configure_arguments is None
    assert plan.run_environment == {**TELLS, "ACTIONS_RUNNER_INPUT_JITCONFIG": JIT}
    assert plan.secrets == (JIT,)
    assert JIT not in repr(plan)


def test_a_registration_token_is_no_argument() -> None:
    """config.sh gets the token by its environment; run.sh does not get it at all."""
    plan = plan_registration(runner_config(jit_config="", registration_token="ABCTOKEN"))
    assert plan.configure_arguments is not None
    assert "ABCTOKEN" not in " ".join(plan.configure_arguments)
    assert {"--unattended", "--ephemeral", "--no-default-labels"} <= set(plan.configure_arguments)
    assert "runs-fleet=1/runner=4cpu-linux-x64" in plan.configure_arguments
    assert plan.configure_environment == {"ACTIONS_RUNNER_INPUT_TOKEN": "ABCTOKEN"}
    assert plan.run_environment == TELLS


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"runner_group_id": 7}, "group 7"),
        ({"labels": ("a", "b,c")}, "b,c"),
    ],
)
def test_a_token_is_refused_where_it_would_register_something_else(
    changes: dict[str, object], complaint: str
) -> None:
    """A group or label that config.sh cannot express is refused, not approximated."""
    config = runner_config(jit_config="", registration_token="T", **changes)
    with pytest.raises(ConfigurationError, match=complaint):
        plan_registration(config)


def test_secrets_are_concealed_in_text() -> None:
    """Every occurrence of a secret is replaced."""
    assert conceal("a secret, a secret", ("secret",)) == "a ***, a ***"
