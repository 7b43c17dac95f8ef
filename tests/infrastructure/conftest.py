"""Templates that several tests ask, synthesized once."""

from __future__ import annotations

import aws_cdk as cdk
import pytest

from runsfleet_constructs import ConfigStore, GitHubApp, RunnerFleet
from stacks.environment_file import load_environments
from stacks.fleet_stack import FleetStage
from tests.infrastructure.templates import ROOT, Template, recommended_flags, synthesize


@pytest.fixture(scope="session")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """The stack of ``environments/dev.yaml`` as the CDK CLI builds it."""
    environments = load_environments(ROOT / "environments", ["dev"])

    def build(app: cdk.App) -> None:
        FleetStage(app, environments[0])

    templates = synthesize(tmp_path_factory.mktemp("dev"), build, recommended_flags())
    return templates["runsfleet-dev-us-east-1"]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A stack of somebody else's app with the defaults of the fleet, and no feature flags."""

    def build(app: cdk.App) -> None:
        stack = cdk.Stack(app, "Library")
        github = GitHubApp.from_secret_name(stack, "App", "runsfleet/github-app")
        RunnerFleet(stack, "Runners", github=github)

    return synthesize(tmp_path_factory.mktemp("library"), build)["Library"]


@pytest.fixture(scope="session")
def parameters(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A fleet that keeps secrets and configurations in Parameter Store."""

    def build(app: cdk.App) -> None:
        stack = cdk.Stack(app, "Parameters")
        RunnerFleet(
            stack,
            "Fleet",
            fleet_name="variant",
            github=GitHubApp.from_parameter_names(stack, "/runsfleet/github-app"),
            config_store=ConfigStore.SSM,
        )

    context = recommended_flags()
    return synthesize(tmp_path_factory.mktemp("parameters"), build, context)["Parameters"]
