from __future__ import annotations

import dataclasses
from pathlib import Path

from runsfleet_runtime.agent import departure
from runsfleet_runtime.agent.lifecycle import STOP_GRACE_SECONDS
from runsfleet_runtime.contract.environment import AgentEnvironment, variable_name
from runsfleet_runtime.contract.messages import ReportStatus
from runsfleet_runtime.contract.paths import (
    AGENT_HOME,
    BAKED_RUNNER_DIRECTORY,
    BAKED_RUNNER_MARKER,
    LOG_DIRECTORY,
    REPORTS_DIRECTORY,
    WORK_DIRECTORY,
    diagnostics_stream,
    kept_report_key,
    log_stream,
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


def test_the_bounds_of_the_end_are_documented() -> None:
    """Whoever waits for an instance to go finds how long each last step may take."""
    logs = departure.DIAGNOSTICS_SECONDS + departure.FLUSH_SECONDS
    assert (
        f"report {departure.REPORT_SECONDS:g} s ── logs {logs:g} s ── "
        f"clean up {departure.CLEANING_SECONDS:g} s ── "
        f"terminate {departure.TERMINATE_SECONDS:g} s"
    ) in TEXT
    assert f"{STOP_GRACE_SECONDS:g} s until it is killed" in TEXT


def test_where_logs_and_lost_reports_are_is_documented() -> None:
    """Streams, folders and keys are written as the contract spells them."""
    instance, role = "{instance id}", "{role id}"
    for place in (
        log_stream(instance, 0),
        log_stream(instance, 7).replace("7", "{job id}"),
        diagnostics_stream(instance, 7).replace("7", "{job id}"),
        kept_report_key(role, instance),
        f"{REPORTS_DIRECTORY}/{instance}.json",
        f"{LOG_DIRECTORY}/",
    ):
        assert f"`{place}`" in TEXT
