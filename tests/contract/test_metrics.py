"""Every metric that a fleet names is in the catalogue, and its emitter emits it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_cloudwatch as cloudwatch

from runsfleet_constructs import GitHubApp, Metric, RunnerFleet
from runsfleet_runtime.contract.metrics import CATALOGUE, FLEET_DIMENSION, NAMESPACE, Emitter
from tests.contract import metrics_page
from tests.contract.permissions import code_of_builder
from tests.infrastructure.templates import Template, synthesize


def methods() -> list[str]:
    """Return the names of the fleet's methods that make a metric."""
    return sorted(name for name in dir(RunnerFleet) if name.startswith("metric_"))


@pytest.fixture(scope="module")
def alarms(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A fleet with an alarm on each metric that it has a method for."""

    def build(app: cdk.App) -> None:
        stack = cdk.Stack(app, "Alarms")
        github = GitHubApp.from_secret_name(stack, "App", "runsfleet/github-app")
        fleet = RunnerFleet(stack, "Runners", fleet_name="dev", github=github)
        for name in methods():
            metric: cloudwatch.IMetric = getattr(fleet, name)()
            cloudwatch.Alarm(stack, name, metric=metric, threshold=1, evaluation_periods=1)

    return synthesize(tmp_path_factory.mktemp("alarms"), build)["Alarms"]


def watched(alarm: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the metrics of an alarm, those inside an expression included."""
    properties = alarm["Properties"]
    parts = [m["MetricStat"]["Metric"] for m in properties.get("Metrics", []) if "MetricStat" in m]
    return parts or [properties]


def test_alarms_watch_what_is_emitted(alarms: Template) -> None:
    """Name, namespace and dimensions of each watched metric are those of the catalogue."""
    ours = 0
    for alarm in alarms.of_type("AWS::CloudWatch::Alarm").values():
        for metric in watched(alarm):
            if metric["Namespace"] == "AWS/SQS":
                continue
            ours += 1
            definition = CATALOGUE[metric["MetricName"]]
            assert metric["Namespace"] == NAMESPACE
            dimensions = {d["Name"]: d["Value"] for d in metric["Dimensions"]}
            assert dimensions.pop(FLEET_DIMENSION) == "dev"
            if definition.dimension is None:
                assert dimensions == {}
            else:
                assert dimensions.pop(definition.dimension) in definition.values
                assert dimensions == {}
    assert ours >= len(methods()) - 5  # those of the queues


@pytest.mark.parametrize("emitter", list(Emitter))
def test_functions_emit_what_the_catalogue_says(emitter: Emitter) -> None:
    """The code that a function can run mentions each metric of the catalogue that is its own."""
    code = code_of_builder("runsfleet_runtime.composition", emitter.value)
    own = {
        name
        for name, definition in vars(Metric).items()
        if name.isupper() and definition.emitter is emitter
    }
    assert own
    assert own <= code.mentioned


def test_no_construct_spells_a_metric() -> None:
    """Names of our metrics stand in the catalogue and nowhere in the constructs."""
    folder = Path(__file__).resolve().parents[2] / "runsfleet_constructs"
    for path in folder.glob("*.py"):
        texts = {
            node.value
            for statement in ast.parse(path.read_text(encoding="utf-8")).body
            # ids of alarms, some of which are called like what they watch
            if not (isinstance(statement, ast.ClassDef) and statement.name == "FleetAlarm")
            for node in ast.walk(statement)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not texts & set(CATALOGUE), path.name


def test_wrong_kind_is_refused(tmp_path: Path) -> None:
    """A kind that the metric does not have is refused with those that it has."""

    def build(app: cdk.App) -> None:
        stack = cdk.Stack(app, "Kinds")
        github = GitHubApp.from_secret_name(stack, "App", "runsfleet/github-app")
        fleet = RunnerFleet(stack, "Runners", fleet_name="dev", github=github)
        with pytest.raises(ValueError, match="must be one of spot, on-demand, got 'cheap'"):
            fleet.metric_jobs_launched(capacity_type="cheap")
        with pytest.raises(ValueError, match="none: it has no further dimension"):
            fleet.metric(Metric.JOBS_QUEUED, kind="spot")
        with pytest.raises(ValueError, match="must be one of success"):
            fleet.metric(Metric.JOBS_COMPLETED)
        with pytest.raises(ValueError, match="use metric instead"):
            fleet.metrics.total(Metric.JOBS_QUEUED)

    synthesize(tmp_path, build)


def test_the_page_of_metrics_is_up_to_date(tmp_path: Path) -> None:
    """What operators read is what the fleet emits and watches; ``make docs`` writes it anew."""
    assert metrics_page.PAGE.read_text(encoding="utf-8") == metrics_page.render(
        metrics_page.synthesize_watched(tmp_path)
    )
