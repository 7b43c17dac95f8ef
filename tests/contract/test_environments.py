"""What a template hands to a function or to the agent is what their dataclasses read."""

from __future__ import annotations

import dataclasses
import re

import pytest

from runsfleet_runtime.contract.environment import (
    AgentEnvironment,
    ConfigStore,
    DispatchEnvironment,
    Environment,
    EventsEnvironment,
    HousekeepingEnvironment,
    TerminationEnvironment,
    WatchdogEnvironment,
    WebhookEnvironment,
    variable_name,
)
from tests.infrastructure.templates import Template, construct_path, flat

# of bash, or of PowerShell
EXPORT = re.compile(r"^(?:export | +\$env:)(RUNSFLEET_\w+) ?= ?(.*)$", re.MULTILINE)
# what the first script itself reads
BOOT = ("RUNSFLEET_AGENT_", "RUNSFLEET_PYTHON_")

FUNCTIONS: list[tuple[str, type[Environment]]] = [
    ("Fleet/Intake", WebhookEnvironment),
    ("Fleet/Dispatch", DispatchEnvironment),
    ("Fleet/Termination", TerminationEnvironment),
    ("Fleet/Events", EventsEnvironment),
    ("Fleet/Housekeeping", HousekeepingEnvironment),
]


def names(kind: type[Environment]) -> set[str]:
    """Return the variables that a dataclass may read."""
    return {variable_name(f.name) for f in dataclasses.fields(kind)}  # type: ignore[arg-type]


@pytest.mark.parametrize(("function", "kind"), FUNCTIONS)
def test_functions_read_what_they_are_given(
    dev: Template, parameters: Template, function: str, kind: type[Environment]
) -> None:
    """With either store, reading a function's variables and writing them again changes nothing."""
    for template in (dev, parameters):
        given = {name: flat(value) for name, value in template.variables(function).items()}
        assert set(given) <= names(kind)
        assert kind.from_environ(given).to_environ() == given


def test_agent_reads_what_it_is_given(dev: Template, parameters: Template) -> None:
    """With either store, each script sets all that the agent and the watchdog read."""
    for template, store in ((dev, ConfigStore.DYNAMODB), (parameters, ConfigStore.SSM)):
        for launch in template.of_type("AWS::EC2::LaunchTemplate").values():
            script = flat(launch["Properties"]["LaunchTemplateData"]["UserData"])
            given = {
                name: value.strip("'")
                for name, value in EXPORT.findall(script)
                if not name.startswith(BOOT)
            }
            agent = AgentEnvironment.from_environ(given)
            watchdog = WatchdogEnvironment.from_environ(given)
            assert {**watchdog.to_environ(), **agent.to_environ()} == given
            assert agent.config_store is store
            kinds = {
                "LinuxArm64": "linux-arm64",
                "LinuxX64": "linux-x64",
                "WindowsX64": "windows-x64",
            }
            assert agent.platform == kinds[construct_path(launch).split("/")[-2]]


def test_dispatch_and_agent_agree_on_the_item(dev: Template) -> None:
    """Dispatch writes, termination deletes and the agent reads one key in one table."""
    tables, roles = set(), set()
    for function in ("Fleet/Dispatch", "Fleet/Termination"):
        variables = dev.variables(function)
        tables.add(flat(variables["RUNSFLEET_RUNNERS_TABLE"]))
        roles.add(flat(variables["RUNSFLEET_INSTANCE_ROLE_ID"]))
    for launch in dev.of_type("AWS::EC2::LaunchTemplate").values():
        script = flat(launch["Properties"]["LaunchTemplateData"]["UserData"])
        tables.add(_export(script, "RUNSFLEET_RUNNERS_TABLE"))
        roles.add(_export(script, "RUNSFLEET_INSTANCE_ROLE_ID"))
    assert len(tables) == len(roles) == 1
    (role,) = roles
    assert role == f"<{dev.id_at('Instances/Role/Resource', 'AWS::IAM::Role')}.RoleId>"


def test_dispatch_launches_what_there_is(dev: Template) -> None:
    """The launch targets are the templates at their latest version, by platform."""
    given = {name: flat(value) for name, value in dev.variables("Fleet/Dispatch").items()}
    environment = DispatchEnvironment.from_environ(given)
    templates = dev.of_type("AWS::EC2::LaunchTemplate")
    assert {t.platform for t in environment.launch_targets} == set(environment.platforms)
    for target in environment.launch_targets:
        name = target.launch_template_id.strip("<>")
        assert name in templates
        assert target.launch_template_version == f"<{name}.LatestVersionNumber>"
        data = templates[name]["Properties"]["LaunchTemplateData"]
        assert data["BlockDeviceMappings"][0]["DeviceName"] == target.root_device


def _export(script: str, name: str) -> str:
    values: dict[str, str] = dict(EXPORT.findall(script))
    return values[name].strip("'")
