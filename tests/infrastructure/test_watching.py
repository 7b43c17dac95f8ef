"""A fleet that is watched: by two lines of an app, or by an environment file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import aws_cdk as cdk
import pytest

from runsfleet_constructs import AlarmChange, FleetAlarm, GitHubApp, RunnerFleet
from stacks.environment_file import EnvironmentFilesError, load_environments
from stacks.fleet_stack import FleetStage
from tests.infrastructure.templates import ROOT, Template, recommended_flags, synthesize

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
    assert len(prod.of_type(ALARM)) == len(FleetAlarm)
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
        "    JobsWait: {threshold: 120, period_minutes: 2, periods: 1}\n    Interruptions: off\n",
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
    assert len(template.of_type(ALARM)) == len(FleetAlarm) - 1
    assert len(template.of_type(PAGE)) == 1


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
