"""Where traces go is told to every function and every instance, and to nobody by default."""

from __future__ import annotations

from pathlib import Path

import aws_cdk as cdk
import pytest

from runsfleet_constructs import GitHubApp, RunnerFleet
from tests.contract.test_environments import EXPORT, FUNCTIONS
from tests.infrastructure.templates import Template, flat, synthesize

ENDPOINT = "https://otel.example.com:4318"
VARIABLE = "RUNSFLEET_OTLP_ENDPOINT"


def scripts(template: Template) -> list[dict[str, str]]:
    """Return the variables that each launch template's script sets."""
    return [
        dict(EXPORT.findall(flat(launch["Properties"]["LaunchTemplateData"]["UserData"])))
        for launch in template.of_type("AWS::EC2::LaunchTemplate").values()
    ]


def test_an_endpoint_reaches_functions_and_instances(tmp_path: Path) -> None:
    """A trace that a part of the fleet knows nothing of would end there."""

    def build(app: cdk.App) -> None:
        stack = cdk.Stack(app, "Stack")
        github = GitHubApp.from_secret_name(stack, "App", "runsfleet/github-app")
        RunnerFleet(stack, "Fleet", github=github, otlp_endpoint=ENDPOINT)

    template = synthesize(tmp_path, build)["Stack"]
    for function, kind in FUNCTIONS:
        given = {name: flat(value) for name, value in template.variables(function).items()}
        assert given[VARIABLE] == ENDPOINT
        assert kind.from_environ(given).to_environ() == given
    assert [script[VARIABLE].strip("'") for script in scripts(template)] == [ENDPOINT] * 3


def test_nothing_is_traced_by_default(dev: Template) -> None:
    """Neither functions nor instances know of an endpoint."""
    assert not [name for name, _ in FUNCTIONS if VARIABLE in dev.variables(name)]
    assert not [script for script in scripts(dev) if VARIABLE in script]


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("otel.example.com:4318", "must be an http or https URL without query, got 'otel"),
        ("file:///etc/passwd", "give the collector's base URL"),
        ("https://otel.example.com/v1/traces", "leave /v1/traces out"),
    ],
)
def test_an_endpoint_that_is_none_is_refused(endpoint: str, message: str) -> None:
    """Where it is written, with the cure."""
    stack = cdk.Stack(cdk.App(context={"aws:cdk:bundling-stacks": []}), "Stack")
    github = GitHubApp.from_secret_name(stack, "App", "runsfleet/github-app")
    with pytest.raises(ValueError, match=message):
        RunnerFleet(stack, "Fleet", github=github, otlp_endpoint=endpoint)
