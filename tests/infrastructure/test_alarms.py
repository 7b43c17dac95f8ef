"""Alarms as synthesized, over a normal day and over each kind of trouble."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_kms as kms

from runsfleet_constructs import GitHubApp, RunnerFleet
from runsfleet_constructs.alarm_rules import FleetAlarm
from runsfleet_constructs.fleet_alarms import AlarmChange, FleetAlarms
from runsfleet_constructs.fleet_dashboard import DashboardSection, FleetDashboard
from runsfleet_runtime.contract.metrics import CATALOGUE, FLEET_DIMENSION, NAMESPACE
from tests.infrastructure.alarm_evaluation import AlarmState, Series
from tests.infrastructure.templates import ROOT, Template, flat, synthesize
from tests.infrastructure.watching import of_widgets, widgets_of

MINUTE = 60.0
HOUR = 3600.0
DAY = 24 * HOUR


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A fleet with all alarms and its page."""

    def build(app: cdk.App) -> None:
        stack = cdk.Stack(app, "Watched")
        github = GitHubApp.from_secret_name(stack, "App", "runsfleet/github-app")
        fleet = RunnerFleet(stack, "Fleet", fleet_name="dev", github=github, max_runners=9)
        alarms = FleetAlarms(stack, "Alarms", fleet=fleet, emails=["ci@example.com"])
        text = cloudwatch.TextWidget(markdown="ours")
        FleetDashboard(stack, "Page", fleet=fleet, alarms=alarms, more={"More": [text]})

    return synthesize(tmp_path_factory.mktemp("watched"), build)["Watched"]


def properties_of(template: Template, alarm: FleetAlarm) -> dict[str, Any]:
    """Return an alarm of the template."""
    found = template.at(f"Alarms/{alarm.value}/", "AWS::CloudWatch::Alarm")
    return dict(found["Properties"])


def dimensions_of(template: Template, path: str, kind: str) -> str:
    """Return how the template names a resource in a metric's dimension."""
    return template.id_at(path, kind)


class Fleet:
    """Puts the metrics of a fleet as they would be in each minute."""

    def __init__(self, template: Template) -> None:
        self.series = Series()
        self._template = template

    def put(self, name: str, at: float, value: float, kind: str | None = None) -> None:
        """Put a metric of the catalogue."""
        definition = CATALOGUE[name]
        own = {} if definition.dimension is None or kind is None else {definition.dimension: kind}
        assert (definition.dimension is None) == (kind is None)
        self.series.put(NAMESPACE, name, at, value, **{FLEET_DIMENSION: "dev"}, **own)

    def queue(self, name: str, at: float, **values: float) -> None:
        """Put metrics of a queue."""
        queue = self._template.id_at(f"Fleet/Queues/{name}/Resource", "AWS::SQS::Queue")
        for metric, value in values.items():
            self.series.put("AWS/SQS", metric, at, value, QueueName=f"<{queue}.QueueName>")

    def function(self, name: str, at: float, **values: float) -> None:
        """Put metrics of a function."""
        path = f"Fleet/{name}/Function/Resource"
        function = self._template.id_at(path, "AWS::Lambda::Function")
        for metric, value in values.items():
            self.series.put("AWS/Lambda", metric, at, value, FunctionName=f"<{function}>")

    def normal_minute(self, at: float) -> None:
        """Put what a busy fleet without trouble puts in a minute."""
        busy = 1 + math.sin(at / DAY * 2 * math.pi)
        for name in ("Jobs", "Termination", "Events", "Housekeeping"):
            self.queue(
                name,
                at,
                ApproximateAgeOfOldestMessage=2.0,
                ApproximateNumberOfMessagesVisible=0.0,
                ApproximateNumberOfMessagesNotVisible=0.0,
            )
            self.queue(f"{name}DeadLetters", at, ApproximateNumberOfMessagesVisible=0.0)
        if busy > 0.3:
            self.put("JobsQueued", at, round(10 * busy))
            self.put("JobsLaunched", at, round(9 * busy), "spot")
            self.put("JobsLaunched", at, 1, "on-demand")
            self.put("JobsCompleted", at, round(8 * busy), "success")
            self.put("JobsCompleted", at, 1, "failure")
            self.put("BreakerOpen", at, 0, "spot")
        if at % HOUR < MINUTE:  # now and then a thing fails, and is made good
            self.put("SpotInterruptions", at, 1, "running")
            self.put("APIErrors", at, 1, "ec2")
            self.put("APIErrors", at, 1, "github")
            self.put("DeliveriesRefused", at, 1, "signature")
            self.put("LaunchFailures", at, 1)
        if at % (2 * MINUTE) < MINUTE:
            self.put("SweepRuns", at, 4)
        if at % (10 * MINUTE) < MINUTE:
            self.put("GitHubRateLimitLeft", at, 11_000)
        if at % DAY < MINUTE:
            self.put("RunnerVersionDaysLeft", at, 25)
            self.put("CostUnusual", at, 0)
        for name in ("Dispatch", "Termination", "Events", "Housekeeping", "Intake"):
            self.function(name, at, Errors=0.0, Throttles=0.0)


Trouble = Callable[[Fleet, float], None]


def _nothing(_fleet: Fleet, _at: float) -> None:
    """Put nothing more."""


TROUBLES: Mapping[FleetAlarm, Trouble] = {
    FleetAlarm.JOBS_WAIT: lambda f, t: f.queue("Jobs", t, ApproximateAgeOfOldestMessage=400.0),
    FleetAlarm.REPORTS_WAIT: lambda f, t: f.queue(
        "Termination", t, ApproximateAgeOfOldestMessage=400.0
    ),
    FleetAlarm.EVENTS_WAIT: lambda f, t: f.queue(
        "Events", t, ApproximateNumberOfMessagesVisible=3.0
    ),
    FleetAlarm.DEAD_JOBS: lambda f, t: f.queue(
        "JobsDeadLetters", t, ApproximateNumberOfMessagesVisible=1.0
    ),
    FleetAlarm.DEAD_REPORTS: lambda f, t: f.queue(
        "TerminationDeadLetters", t, ApproximateNumberOfMessagesVisible=1.0
    ),
    FleetAlarm.DEAD_EVENTS: lambda f, t: f.queue(
        "EventsDeadLetters", t, ApproximateNumberOfMessagesVisible=1.0
    ),
    FleetAlarm.DEAD_SWEEPS: lambda f, t: f.queue(
        "HousekeepingDeadLetters", t, ApproximateNumberOfMessagesVisible=1.0
    ),
    FleetAlarm.NO_LAUNCHES: lambda f, t: f.queue(
        "Jobs", t, ApproximateNumberOfMessagesVisible=9.0, ApproximateNumberOfMessagesNotVisible=1.0
    ),
    FleetAlarm.FLEET_FULL: lambda f, t: f.put("JobsWaiting", t, 5, "fleet"),
    FleetAlarm.EXPIRED_JOBS: lambda f, t: f.put("JobsExpired", t, 1),
    FleetAlarm.EC2_ERRORS: lambda f, t: f.put("APIErrors", t, 3, "ec2"),
    FleetAlarm.GITHUB_ERRORS: lambda f, t: f.put("APIErrors", t, 3, "github"),
    FleetAlarm.INTERRUPTIONS: lambda f, t: f.put("SpotInterruptions", t, 4, "running"),
    FleetAlarm.CIRCUITS_OPEN: lambda f, t: f.put("BreakerOpen", t, 2, "spot"),
    FleetAlarm.WEBHOOKS_REFUSED: lambda f, t: f.put("DeliveriesRefused", t, 9, "signature"),
    FleetAlarm.WEBHOOKS_FAILING: lambda f, t: f.put("EnqueueFailures", t, 1),
    FleetAlarm.DISPATCH_FAILING: lambda f, t: f.function("Dispatch", t, Errors=2.0),
    FleetAlarm.FUNCTIONS_FAILING: lambda f, t: f.function("Events", t, Throttles=2.0),
    FleetAlarm.BOOTSTRAPS_FAILING: lambda f, t: f.put("JobsCompleted", t, 2, "bootstrap_failed"),
    FleetAlarm.SWEEPS_FAILING: lambda f, t: f.put("SweepRunsFailed", t, 1),
    FleetAlarm.SWEEPS_MISSING: _nothing,
    FleetAlarm.RATE_LIMIT_LOW: lambda f, t: f.put("GitHubRateLimitLeft", t, 100),
    FleetAlarm.RUNNER_VERSION_OLD: lambda f, t: f.put("RunnerVersionDaysLeft", t, 3),
    FleetAlarm.MISSING_PERMISSIONS: lambda f, t: f.put("PermissionsMissing", t, 1),
    FleetAlarm.UNUSUAL_COST: lambda f, t: f.put("CostUnusual", t, 1),
}

# what stops with a trouble, so that the normal minute does not hide it
STOPS: Mapping[FleetAlarm, frozenset[str]] = {
    FleetAlarm.NO_LAUNCHES: frozenset({"JobsLaunched", "ApproximateNumberOfMessagesVisible"}),
    FleetAlarm.EVENTS_WAIT: frozenset({"ApproximateNumberOfMessagesVisible"}),
    FleetAlarm.SWEEPS_MISSING: frozenset({"SweepRuns"}),
    FleetAlarm.INTERRUPTIONS: frozenset({"JobsLaunched"}),
    FleetAlarm.CIRCUITS_OPEN: frozenset({"BreakerOpen"}),
}

RECOVERY: Mapping[FleetAlarm, Trouble] = {
    FleetAlarm.RATE_LIMIT_LOW: lambda f, t: f.put("GitHubRateLimitLeft", t, 11_000),
    FleetAlarm.RUNNER_VERSION_OLD: lambda f, t: f.put("RunnerVersionDaysLeft", t, 30),
    FleetAlarm.UNUSUAL_COST: lambda f, t: f.put("CostUnusual", t, 0),
}


def test_a_normal_day_is_silent(watched: Template) -> None:
    """Errors that are made good wake nobody."""
    fleet = Fleet(watched)
    alarms = {a: AlarmState(properties_of(watched, a)) for a in FleetAlarm}
    for minute in range(int(DAY / MINUTE)):
        fleet.normal_minute(minute * MINUTE)
        if minute > 15:
            fired = [
                a for a, state in alarms.items() if state.evaluate(fleet.series, minute * MINUTE)
            ]
            assert fired == [], f"at minute {minute}"


def test_every_alarm_has_its_trouble() -> None:
    """No alarm is left untried."""
    assert set(TROUBLES) == set(FleetAlarm)


@pytest.mark.parametrize("alarm", list(FleetAlarm))
def test_trouble_fires_and_recovery_resolves(watched: Template, alarm: FleetAlarm) -> None:
    """Each alarm fires within its periods of the trouble's start and ends after its end."""
    state = AlarmState(properties_of(watched, alarm))
    fleet = Fleet(watched)
    begin, length = 6 * HOUR, max(30 * MINUTE, 1.5 * state.delay)
    fired = resolved = None
    at = begin - 90 * MINUTE
    while at < begin + length + 3 * state.delay + 30 * MINUTE:
        if begin <= at < begin + length:
            before = {k: list(v) for k, v in fleet.series.points.items()}
            fleet.normal_minute(at)
            for key in list(fleet.series.points):
                if key[1] in STOPS.get(alarm, ()):
                    fleet.series.points[key] = before.get(key, [])
            TROUBLES[alarm](fleet, at)
        else:
            fleet.normal_minute(at)
            if at >= begin + length:
                RECOVERY.get(alarm, _nothing)(fleet, at)
        at += MINUTE
        is_alarm = state.evaluate(fleet.series, at)
        if at > begin and is_alarm and fired is None:
            fired = at - begin
        if fired is not None and at > begin + length and not is_alarm and resolved is None:
            resolved = at - begin - length
    assert fired is not None
    assert fired <= state.delay
    assert resolved is not None
    assert resolved <= state.delay + state.period


PROMPT = frozenset(FleetAlarm) - {
    FleetAlarm.INTERRUPTIONS,  # a rate over 15 minutes
    FleetAlarm.CIRCUITS_OPEN,  # open for an hour
    FleetAlarm.EVENTS_WAIT,
    FleetAlarm.SWEEPS_MISSING,
    FleetAlarm.FLEET_FULL,  # a cap that is reached for a moment does what it is for
    FleetAlarm.RUNNER_VERSION_OLD,
}


def test_alarms_that_cannot_wait_fire_within_five_minutes(watched: Template) -> None:
    """Their periods together last no longer."""
    for alarm in PROMPT:
        state = AlarmState(properties_of(watched, alarm))
        assert state.periods * state.period <= 5 * MINUTE, alarm


def test_one_alarm_stands_for_all_that_are_critical(watched: Template) -> None:
    """Jobs that wait or are lost make the fleet unhealthy; the text says where to read on."""
    unhealthy = watched.only("AWS::CloudWatch::CompositeAlarm")["Properties"]
    rule = flat(unhealthy["AlarmRule"])
    for alarm in (FleetAlarm.JOBS_WAIT, FleetAlarm.DEAD_JOBS, FleetAlarm.EXPIRED_JOBS):
        logical = watched.id_at(f"Alarms/{alarm.value}/", "AWS::CloudWatch::Alarm")
        assert f"<{logical}.Arn>" in rule
    assert "#unhealthy" in unhealthy["AlarmDescription"]


def test_every_alarm_tells_its_meaning_and_a_runbook_that_there_is(watched: Template) -> None:
    """The anchors are headings of the runbooks."""
    text = (ROOT / "docs" / "runbooks.md").read_text()
    headings = {line[3:].strip().lower() for line in text.splitlines() if line.startswith("## ")}
    for alarm in FleetAlarm:
        description = properties_of(watched, alarm)["AlarmDescription"]
        assert description.endswith(f"Runbook: docs/runbooks.md#{alarm.value.lower()}")
        assert alarm.value.lower() in headings
    assert "unhealthy" in headings


def test_alarms_go_to_the_topic_and_their_end_too(watched: Template) -> None:
    """Whoever was woken learns that it is over."""
    topic = watched.id_at("Alarms/Topic/", "AWS::SNS::Topic")
    for alarm in FleetAlarm:
        properties = properties_of(watched, alarm)
        assert properties["AlarmActions"] == properties["OKActions"] == [{"Ref": topic}]
    assert watched.only("AWS::SNS::Subscription")["Properties"]["Endpoint"] == "ci@example.com"


def test_any_alarm_can_be_changed_or_dropped(tmp_path: Any) -> None:
    """A threshold, a period, or the whole alarm; the key of the topic may be one's own."""

    def build(app: cdk.App) -> None:
        stack = cdk.Stack(app, "Changed")
        github = GitHubApp.from_secret_name(stack, "App", "runsfleet/github-app")
        fleet = RunnerFleet(stack, "Fleet", github=github)
        FleetAlarms(
            stack,
            "Alarms",
            fleet=fleet,
            encryption_key=kms.Key(stack, "Key"),
            changes={
                "JobsWait": AlarmChange(threshold=60, periods=3, period=cdk.Duration.minutes(5)),
                FleetAlarm.INTERRUPTIONS: None,
            },
        )

    template = synthesize(tmp_path, build)["Changed"]
    changed = properties_of(template, FleetAlarm.JOBS_WAIT)
    assert (changed["Threshold"], changed["EvaluationPeriods"], changed["Period"]) == (60, 3, 300)
    left_out = {FleetAlarm.INTERRUPTIONS, FleetAlarm.FLEET_FULL}  # it has no cap
    assert len(template.of_type("AWS::CloudWatch::Alarm")) == len(FleetAlarm) - len(left_out)
    assert "KmsMasterKeyId" in template.only("AWS::SNS::Topic")["Properties"]


def test_what_cannot_be_is_refused_all_at_once() -> None:
    """An address without @, an alarm that there is not, no period."""
    stack = cdk.Stack()
    github = GitHubApp.from_secret_name(stack, "App", "runsfleet/github-app")
    fleet = RunnerFleet(stack, "Fleet", github=github)
    with pytest.raises(ValueError, match="got 'nobody'") as caught:
        FleetAlarms(
            stack,
            "Alarms",
            fleet=fleet,
            emails=["nobody"],
            changes={"Nope": None, FleetAlarm.JOBS_WAIT: AlarmChange(periods=0)},
        )
    assert "got 'Nope'" in str(caught.value)
    assert "periods of JobsWait must be at least 1" in str(caught.value)
    with pytest.raises(ValueError, match="a section is one of Alarms"):
        FleetDashboard(stack, "Page", fleet=fleet, leave_out=["Nope"])


# -- the page ------------------------------------------------------------------------------------


def test_the_page_has_its_sections_and_the_users_own(watched: Template) -> None:
    """A row of four for queues, fleet, cost and performance, and reliability."""
    widgets = widgets_of(watched)
    headings = [w["properties"]["markdown"] for w in widgets if w["type"] == "text"]
    assert headings == [*(f"## {section.value}" for section in DashboardSection), "## More", "ours"]
    graphs = [w for w in widgets if w["type"] == "metric"]
    assert len(graphs) == 16
    assert {w["width"] for w in graphs} == {6}
    (states,) = [w for w in widgets if w["type"] == "alarm"]
    assert len(states["properties"]["alarms"]) == len(FleetAlarm)


def test_widgets_show_what_the_catalogue_has(watched: Template) -> None:
    """Every metric of the fleet's own namespace is emitted by some function, kinds included."""
    shown = set()
    for reference in of_widgets(watched):
        if reference.namespace == NAMESPACE:
            definition = CATALOGUE[reference.name]
            pairs = dict(reference.dimensions)
            assert pairs.pop(FLEET_DIMENSION) == "dev"
            if definition.dimension is not None and definition.dimension not in reference.free:
                assert pairs.pop(definition.dimension) in definition.values
            assert pairs == {}
            shown.add(definition.name)
    assert len(shown) > 15


def test_saved_queries_name_the_logs_of_every_function(watched: Template) -> None:
    """The story of a job is told by five functions."""
    queries = watched.of_type("AWS::Logs::QueryDefinition").values()
    assert {q["Properties"]["Name"] for q in queries} == {
        f"runsfleet/dev/{name}"
        for name in ("story of a job", "story of an instance", "failed launches", "slow starts")
    }
    assert {len(q["Properties"]["LogGroupNames"]) for q in queries} == {5}
