"""``docs/metrics.md``, made from the metric catalogue and from what alarms and dashboard watch.

``python -m tests.contract.metrics_page`` (``make docs``) writes it anew.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import aws_cdk as cdk

from runsfleet_constructs import GitHubApp, RunnerFleet
from runsfleet_constructs.alarm_rules import FleetAlarm
from runsfleet_constructs.fleet_alarms import FleetAlarms
from runsfleet_constructs.fleet_dashboard import FleetDashboard
from runsfleet_runtime.contract.metrics import (
    CATALOGUE,
    FLEET_DIMENSION,
    NAMESPACE,
    Emitter,
    MetricDefinition,
    Unit,
)
from tests.infrastructure.templates import ROOT, Template, synthesize
from tests.infrastructure.watching import of_alarms, of_widgets

PAGE: Final = ROOT / "docs" / "metrics.md"
_SERIES_USD: Final = 0.30  # a month, each of an account's first 10,000 (Amazon CloudWatch pricing)
_UNITS: Final = {Unit.NONE: "USD"}
_TASK: Final = "Task"

_HEAD: Final = f"""\
# Metrics

Made from the catalogue in `runsfleet_runtime.contract.metrics` by `make docs`; a test compares
them.

Namespace `{NAMESPACE}`. Each metric has the dimension `{FLEET_DIMENSION}`, the fleet's name, and at
most one more, whose values are bounded: never a repository, job or instance. Each is written by one
function, as a log line in CloudWatch's embedded metric format, once for each invocation that has
something to tell: a period without data is one without such work. What watches and shows a metric
stands beside it; [runbooks.md](runbooks.md) tells what to do about an alarm.
"""

_COST: Final = """\
## What they cost

No repository and no job makes a further series, so 100 repositories with 100,000 jobs a month have
no more of them than one: fewer than {series}, at {usd:.2f} USD a month each for the hours in which
it was written. That is at most {most:.0f} USD a month, were each written in every hour. The lines
that carry them, about 2 KB for each job, are 0.2 GB of logs for 100,000 jobs, at 0.50 USD for each
GB. (Prices of us-east-1, 2026, from Amazon CloudWatch's price list, without its free tier.)
"""


def synthesize_watched(folder: Path) -> Template:
    """Return the template of a fleet with all alarms and its dashboard."""

    def build(app: cdk.App) -> None:
        stack = cdk.Stack(app, "Watched")
        github = GitHubApp.from_secret_name(stack, "App", "runsfleet/github-app")
        fleet = RunnerFleet(stack, "Fleet", fleet_name="dev", github=github, max_runners=9)
        alarms = FleetAlarms(stack, "Alarms", fleet=fleet)
        FleetDashboard(stack, "Page", fleet=fleet, alarms=alarms)

    return synthesize(folder, build)["Watched"]


def render(template: Template) -> str:
    """Return the page.

    Args:
        template: A fleet with all alarms and its dashboard.
    """
    alarms, widgets = _alarms(template), _widgets(template)
    parts = [_HEAD]
    for emitter in Emitter:
        rows = [
            _row(definition, alarms.get(name, ()), widgets.get(name, ()))
            for name, definition in CATALOGUE.items()
            if definition.emitter is emitter
        ]
        parts.append(
            f"## Written by {emitter.value}\n\n"
            "| Metric | Unit | By | Meaning | Alarms | Widgets |\n|---|---|---|---|---|---|\n"
            + "\n".join(rows)
            + "\n"
        )
    series = sum(len(definition.values) or 1 for definition in CATALOGUE.values())
    above = math.ceil((series + 1) / 10) * 10  # a sweep more or less is no news
    parts.append(_COST.format(series=above, usd=_SERIES_USD, most=above * _SERIES_USD))
    return "\n".join(parts)


def _row(definition: MetricDefinition, alarms: tuple[str, ...], widgets: tuple[str, ...]) -> str:
    by = "-"
    if definition.dimension == _TASK:
        by = f"`{_TASK}`: each of the [sweeps](housekeeping.md)"
    elif definition.dimension is not None:
        by = f"`{definition.dimension}`: " + ", ".join(f"`{v}`" for v in definition.values)
    cells = (
        f"`{definition.name}`",
        _UNITS.get(definition.unit, definition.unit.value.lower()),
        by,
        definition.meaning,
        ", ".join(f"[{alarm}](runbooks.md#{alarm.lower()})" for alarm in alarms) or "-",
        "; ".join(widgets) or "-",
    )
    return f"| {' | '.join(cells)} |"


def _alarms(template: Template) -> Mapping[str, tuple[str, ...]]:
    """Return the alarms that watch each metric of ours, in the order of the rules."""
    order = list(FleetAlarm)
    found: dict[str, set[FleetAlarm]] = {}
    for reference in of_alarms(template):
        if reference.namespace == NAMESPACE:
            found.setdefault(reference.name, set()).add(FleetAlarm(reference.by))
    return {
        name: tuple(alarm.value for alarm in sorted(alarms, key=order.index))
        for name, alarms in found.items()
    }


def _widgets(template: Template) -> Mapping[str, tuple[str, ...]]:
    """Return the titles of the widgets that show each metric of ours, in the page's order."""
    found: dict[str, dict[str, None]] = {}
    for reference in of_widgets(template):
        if reference.namespace == NAMESPACE:
            found.setdefault(reference.name, {})[reference.by] = None
    return {name: tuple(titles) for name, titles in found.items()}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        PAGE.write_text(render(synthesize_watched(Path(directory))), encoding="utf-8")
