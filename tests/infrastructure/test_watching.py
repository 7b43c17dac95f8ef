"""A fleet that is watched: by two lines of an app, or by an environment file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import aws_cdk as cdk
import pytest

from runsfleet_constructs import AlarmChange, FleetAlarm, GitHubApp, RegionsDashboard, RunnerFleet
from runsfleet_runtime.contract.metrics import CATALOGUE
from stacks.environment_file import EnvironmentFilesError, load_environments
from stacks.fleet_stack import FleetStage
from tests.infrastructure.templates import ROOT, Template, recommended_flags, synthesize
from tests.infrastructure.watching import of_widgets

ALARM, PAGE = "AWS::CloudWatch::Alarm", "AWS::CloudWatch::Dashboard"


def of_file(tmp_path: Path, text: str) -> Template:
    """Return the stack of an environment that adds something to the base."""
    (tmp_path / "base.yaml").write_text((ROOT / "environments" / "base.yaml").read_text())
    file = tmp_path / "watched.yaml"
    file.write_text(f"extends: base.yaml\nregions: [eu-west-1]\n{text}")
    (environment,) = load_environments(tmp_path)

    def build(app: cdk.App) -> None:
        FleetStage(app, environment)

    return synthesize(tmp_path / "out", build, recommended_flags())["runsfleet-watched-eu-west-1"]


@pytest.fixture(scope="module")
def prod(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """The stack of ``environments/prod.yaml``."""
    environments = load_environments(ROOT / "environments", ["prod"])

    def build(app: cdk.App) -> None:
        FleetStage(app, environments[0])

    folder = tmp_path_factory.mktemp("prod")
    return synthesize(folder, build, recommended_flags())["runsfleet-prod-us-east-1"]


def test_prod_is_watched(prod: Template) -> None:
    """Every alarm, the one that stands for the critical ones, a page, and where alarms go."""
    assert len(prod.of_type(ALARM)) == len(FleetAlarm) - 1  # without a cap it is never full
    assert len(prod.of_type("AWS::CloudWatch::CompositeAlarm")) == 1
    assert len(prod.of_type(PAGE)) == 1
    assert len(prod.of_type("AWS::SNS::Topic")) == 1


def test_dev_is_not(dev: Template) -> None:
    """Alarms of a fleet that somebody tries things with would wake people for nothing."""
    assert not dev.of_type(ALARM)
    assert not dev.of_type(PAGE)


def test_a_file_names_receivers_and_changes(tmp_path: Path) -> None:
    """An alarm can be changed or dropped, and each address gets a subscription."""
    template = of_file(
        tmp_path,
        "alarms:\n  emails: [ci@example.com]\n  changes:\n"
        "    JobsWait: {threshold: 120, period_minutes: 2, periods: 1}\n    Interruptions: off\n"
        "limits: {max_runners: 5}\n",
    )
    assert len(template.of_type(ALARM)) == len(FleetAlarm) - 1
    changed = template.at("Alarms/JobsWait/", ALARM)["Properties"]
    assert (changed["Threshold"], changed["Period"], changed["EvaluationPeriods"]) == (120, 120, 1)
    (subscription,) = template.of_type("AWS::SNS::Subscription").values()
    assert subscription["Properties"]["Endpoint"] == "ci@example.com"
    assert not template.of_type(PAGE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alarms:\n  changes:\n    Jobs: off\n", "must be one of JobsWait, "),
        ("alarms:\n  emails: [ci]\n", "emails"),
    ],
)
def test_what_a_file_gets_wrong_is_found(tmp_path: Path, text: str, message: str) -> None:
    """Before anything is built, with its place."""
    with pytest.raises(EnvironmentFilesError, match=message):
        of_file(tmp_path, text)


def test_an_app_adds_alarms_and_a_page(tmp_path: Path) -> None:
    """By two methods of the fleet."""

    def build(app: cdk.App) -> None:
        stack = cdk.Stack(app, "Stack")
        github = GitHubApp.from_secret_name(stack, "App", "runsfleet/github-app")
        fleet = RunnerFleet(stack, "Runners", github=github)
        changes = {FleetAlarm.JOBS_WAIT: AlarmChange(threshold=60), "DeadJobs": None}
        fleet.add_dashboard(alarms=fleet.add_alarms(changes=changes), leave_out=["Queues"])

    template = synthesize(tmp_path, build)["Stack"]
    assert template.at("Alarms/JobsWait/", ALARM)["Properties"]["Threshold"] == 60
    assert len(template.of_type(ALARM)) == len(FleetAlarm) - 2  # one dropped; it has no cap
    assert len(template.of_type(PAGE)) == 1


def test_several_regions_have_one_more_page(tmp_path: Path) -> None:
    """A line for each region, on the page of the first; no region refers to another's stack."""
    (tmp_path / "base.yaml").write_text((ROOT / "environments" / "base.yaml").read_text())
    file = tmp_path / "wide.yaml"
    file.write_text("extends: base.yaml\nregions: [eu-west-1, us-east-2]\ndashboard: true\n")
    (environment,) = load_environments(tmp_path)
    built = synthesize(tmp_path / "out", lambda app: _ignore(FleetStage(app, environment)))
    first, second = built["runsfleet-wide-eu-west-1"], built["runsfleet-wide-us-east-2"]
    assert (len(first.of_type(PAGE)), len(second.of_type(PAGE))) == (2, 1)
    lines = [r for r in of_widgets(first) if r.region]
    assert {r.region for r in lines} == {"eu-west-1", "us-east-2"}
    assert {dict(r.dimensions)["Fleet"] for r in lines} == {"wide"}
    assert {r.name for r in lines} >= {"JobsQueued", "JobsLaunched", "FleetSize", "DayCost"}
    for reference in lines:
        definition = CATALOGUE[reference.name]
        assert dict(reference.dimensions).get(definition.dimension or "Fleet") in (
            *definition.values,
            "wide",
        )


def test_a_page_of_regions_wants_regions() -> None:
    """At least two fleets, each in a stack with a region, no two of them the same."""
    app = cdk.App()
    here = cdk.Environment(region="eu-west-1")
    stacks = [
        cdk.Stack(app, "Nowhere"),
        cdk.Stack(app, "A", env=here),
        cdk.Stack(app, "B", env=here),
    ]
    nowhere, one, same = (
        RunnerFleet(
            stack,
            "Runners",
            fleet_name="ci",
            github=GitHubApp.from_secret_name(stack, "App", "runsfleet/github-app"),
        )
        for stack in stacks
    )
    with pytest.raises(ValueError, match="number of fleets must be at least 2"):
        RegionsDashboard(stacks[1], "Few", fleets=[one])
    with pytest.raises(ValueError, match="in a stack without a region") as caught:
        RegionsDashboard(stacks[1], "Regions", fleets=[nowhere, one, same])
    assert "got 'ci' in eu-west-1 twice" in str(caught.value)


def _ignore(_built: object) -> None:
    """Take what a lambda may not give back."""


def test_a_fleet_without_them_loads_none_of_it() -> None:
    """CloudWatch's constructs are among the largest of the CDK, and a synth pays for them."""
    code = (
        "import sys; import runsfleet_constructs; from stacks import fleet_stack; "
        "print([m for m in sys.modules if m.startswith('runsfleet_constructs.')"
        " and m.endswith(('alarm_rules', 'fleet_alarms', 'fleet_dashboard'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
