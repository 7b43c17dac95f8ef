from __future__ import annotations

import dataclasses
from pathlib import Path

from runsfleet_runtime.contract.environment import AgentEnvironment, variable_name
from runsfleet_runtime.contract.messages import ReportStatus
from runsfleet_runtime.contract.paths import (
    AGENT_HOME,
    BAKED_RUNNER_DIRECTORY,
    BAKED_RUNNER_MARKER,
    WORK_DIRECTORY,
)

TEXT = (Path(__file__).parents[3] / "docs" / "agent.md").read_text(encoding="utf-8")


def test_every_variable_of_the_agent_is_documented() -> None:
    """The table of variables has a row for each of the contract."""
    names = {variable_name(field.name) for field in dataclasses.fields(AgentEnvironment)}
    assert not {name for name in names if f"| `{name}` |" not in TEXT}


def test_every_ending_is_documented() -> None:
    """The table of endings has a row for each of the contract."""
    endings = [status for status in ReportStatus if status.is_ending]
    assert not [status for status in endings if f"| `{status}` |" not in TEXT]


def test_the_places_on_an_image_are_documented() -> None:
    """Whoever bakes an image finds where things go."""
    for place in (
        AGENT_HOME,
        f"`{BAKED_RUNNER_DIRECTORY}/`",
        BAKED_RUNNER_MARKER,
        f"`{WORK_DIRECTORY}/`",
    ):
        assert place in TEXT
