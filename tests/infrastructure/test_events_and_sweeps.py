"""EC2's events reach the events queue, and each sweep falls due."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_scheduler as scheduler

from runsfleet_constructs import (
    DEFAULT_SCHEDULES,
    BreakerOptions,
    GitHubApp,
    HousekeepingSchedules,
    HousekeepingTask,
    RunnerCaps,
    RunnerFleet,
)
from runsfleet_runtime.contract.environment import DispatchEnvironment, HousekeepingEnvironment
from runsfleet_runtime.contract.messages import HousekeepingMessage
from tests.infrastructure.templates import Template, as_list, flat, synthesize


def policy_of(template: Template, queue: str) -> list[dict[str, Any]]:
    """Return the statements of a queue's policy."""
    name = template.id_at(f"{queue}/Resource", "AWS::SQS::Queue")
    (policy,) = [
        p["Properties"]["PolicyDocument"]["Statement"]
        for p in template.of_type("AWS::SQS::QueuePolicy").values()
        if p["Properties"]["Queues"] == [{"Ref": name}]
    ]
    return list(policy)


def statement(template: Template, role: str, action: str) -> dict[str, Any]:
    """Return the one statement that allows a role an action."""
    (found,) = [s for s in template.statements(role) if action in as_list(s["Action"])]
    return found


def variant(tmp_path: Path, **options: Any) -> Template:
    """Return the template of a fleet with options."""

    def build(app: cdk.App) -> None:
        stack = cdk.Stack(app, "Variant")
        github = GitHubApp.from_secret_name(stack, "App", "runsfleet/github-app")
        RunnerFleet(stack, "Fleet", fleet_name="variant", github=github, **options)

    return synthesize(tmp_path, build)["Variant"]


def test_three_kinds_of_events_are_asked_for(dev: Template) -> None:
    """Spot warnings, rebalance advice and ends of instances go to one queue, and from EC2 only."""
    rules = [r["Properties"] for r in dev.of_type("AWS::Events::Rule").values()]
    patterns = {rule["EventPattern"]["detail-type"][0]: rule["EventPattern"] for rule in rules}
    assert set(patterns) == {
        "EC2 Spot Instance Interruption Warning",
        "EC2 Instance Rebalance Recommendation",
        "EC2 Instance State-change Notification",
    }
    assert all(pattern["source"] == ["aws.ec2"] for pattern in patterns.values())
    assert patterns["EC2 Instance State-change Notification"]["detail"] == {
        "state": ["terminated", "stopped"]
    }
    queue = dev.id_at("Queues/Events/Resource", "AWS::SQS::Queue")
    dead = dev.id_at("Queues/EventsDeadLetters/Resource", "AWS::SQS::Queue")
    for rule in rules:
        (target,) = rule["Targets"]
        assert target["Arn"] == {"Fn::GetAtt": [queue, "Arn"]}
        assert target["DeadLetterConfig"] == {"Arn": {"Fn::GetAtt": [dead, "Arn"]}}
        assert "InputTransformer" not in target


@pytest.mark.parametrize("queue", ["Queues/Events", "Queues/EventsDeadLetters"])
def test_only_the_fleets_rules_may_send_by_eventbridge(dev: Template, queue: str) -> None:
    """EventBridge may send in the name of the three rules; others' rules may not."""
    (allowed,) = [s for s in policy_of(dev, queue) if s["Effect"] == "Allow"]
    assert allowed["Principal"] == {"Service": "events.amazonaws.com"}
    assert allowed["Action"] == "sqs:SendMessage"
    rules = {f"<{name}.Arn>" for name in dev.of_type("AWS::Events::Rule")}
    assert {flat(arn) for arn in allowed["Condition"]["ArnEquals"]["aws:SourceArn"]} == rules


def test_each_sweep_falls_due_by_a_message_that_the_function_reads(dev: Template) -> None:
    """There is one schedule for each task; its input is the message of that task."""
    schedules = [s["Properties"] for s in dev.of_type("AWS::Scheduler::Schedule").values()]
    queue = dev.id_at("Queues/Housekeeping/Resource", "AWS::SQS::Queue")
    found = {}
    for schedule in schedules:
        assert schedule["State"] == "ENABLED"
        assert schedule["Target"]["Arn"] == {"Fn::GetAtt": [queue, "Arn"]}
        message = HousekeepingMessage.from_json(schedule["Target"]["Input"])
        found[message.task] = schedule["ScheduleExpression"]
    assert found == DEFAULT_SCHEDULES
    assert set(found) == set(HousekeepingTask)


def test_the_schedules_wait_for_their_group(dev: Template) -> None:
    """A schedule refers to the group, so that CloudFormation makes the group first."""
    (group,) = dev.of_type("AWS::Scheduler::ScheduleGroup")
    for schedule in dev.of_type("AWS::Scheduler::Schedule").values():
        assert schedule["Properties"]["GroupName"] == {"Ref": group}


def test_the_scheduler_sends_to_one_queue(dev: Template) -> None:
    """What the schedules act as may send sweeps, and nothing else."""
    (found,) = dev.statements("Fleet/Sweeps")
    assert found["Action"] == "sqs:SendMessage"
    queue = dev.id_at("Queues/Housekeeping/Resource", "AWS::SQS::Queue")
    assert flat(found["Resource"]) == f"<{queue}.Arn>"


def test_a_sweep_is_changed_or_dropped(tmp_path: Path) -> None:
    """A change replaces the schedule of its sweep, ``None`` drops it, a pause disables all."""
    template = variant(
        tmp_path,
        housekeeping=HousekeepingSchedules(
            is_paused=True,
            changes={
                HousekeepingTask.OLD_JOBS: scheduler.ScheduleExpression.expression("rate(7 days)"),
                "leftover_volumes": None,
            },
        ),
    )
    schedules = template.of_type("AWS::Scheduler::Schedule").values()
    assert len(schedules) == len(HousekeepingTask) - 1
    assert {s["Properties"]["State"] for s in schedules} == {"DISABLED"}
    old_jobs = template.at("Sweeps/OldJobs/Resource", "AWS::Scheduler::Schedule")["Properties"]
    assert old_jobs["ScheduleExpression"] == "rate(7 days)"


def test_an_unknown_sweep_is_refused() -> None:
    """The message names those that there are."""
    with pytest.raises(ValueError, match=r"orphaned_instances, .* got 'old_job'"):
        HousekeepingSchedules(changes={"old_job": None})


def test_caps_and_breaker_reach_the_functions(tmp_path: Path) -> None:
    """Dispatch knows caps and breaker; housekeeping, which audits the slots, knows the caps."""
    template = variant(
        tmp_path,
        max_runners=20,
        max_runners_per_owner=10,
        max_runners_per_repository=5,
        breaker=BreakerOptions(threshold=4, window=cdk.Duration.minutes(5)),
    )
    variables = {n: flat(v) for n, v in template.variables("Fleet/Dispatch").items()}
    dispatch = DispatchEnvironment.from_environ(variables)
    variables = {n: flat(v) for n, v in template.variables("Fleet/Housekeeping").items()}
    for environment in (dispatch, HousekeepingEnvironment.from_environ(variables)):
        assert environment.max_runners == 20
        assert environment.max_runners_per_owner == 10
        assert environment.max_runners_per_repository == 5
    assert dispatch.breaker_threshold == 4
    assert dispatch.breaker_window_seconds == 300
    assert dispatch.breaker_cooldown_seconds == 1800


def test_without_caps_there_are_none(dev: Template) -> None:
    """No cap is a missing variable."""
    assert not [n for n in dev.variables("Fleet/Dispatch") if "MAX_RUNNERS" in n]


def test_wrong_caps_are_told_all_at_once() -> None:
    """Each cap that is too small has its own line with the value and the cure."""
    with pytest.raises(ValueError, match="max_runners must be at least 1, got 0") as caught:
        RunnerCaps(max_runners=0, max_runners_per_owner=5, max_runners_per_repository=-1)
    assert "max_runners_per_repository must be at least 1, got -1; leave" in str(caught.value)


def test_a_wrong_breaker_is_told_all_at_once() -> None:
    """Each value that is out of range has its own line."""
    with pytest.raises(ValueError, match="threshold must be between 1 and 100, got 0") as caught:
        BreakerOptions(threshold=0, cooldown=cdk.Duration.seconds(5))
    assert "cooldown must be between 60 and 86400, got 5" in str(caught.value)


def test_dispatch_knows_the_zone_of_each_subnet(dev: Template) -> None:
    """Every subnet that is launched into has a zone by which the breaker leaves it out."""
    variables = {n: flat(v) for n, v in dev.variables("Fleet/Dispatch").items()}
    dispatch = DispatchEnvironment.from_environ(variables)
    assert {z.subnet_id for z in dispatch.subnet_zones} == set(dispatch.subnet_ids)
    assert all(zone.availability_zone for zone in dispatch.subnet_zones)


@pytest.mark.parametrize("action", ["ec2:TerminateInstances", "ec2:DeleteVolume", "ec2:DeleteTags"])
def test_sweeps_end_and_mark_what_is_ours_only(dev: Template, action: str) -> None:
    """What housekeeping changes in EC2 must carry the fleet's tags already."""
    found = statement(dev, "Fleet/Housekeeping", action)
    tags = {"runs-fleet:managed": "true", "runs-fleet:fleet": "dev"}
    mine = {f"aws:ResourceTag/{tag}": value for tag, value in tags.items()}
    assert found["Condition"]["StringEquals"] == mine


def test_sweeps_write_one_tag(dev: Template) -> None:
    """Housekeeping marks what it condemns, and can make nothing the fleet's."""
    found = statement(dev, "Fleet/Housekeeping", "ec2:CreateTags")
    assert found["Condition"]["ForAllValues:StringEquals"] == {
        "aws:TagKeys": ["runs-fleet:condemned-at"]
    }


def test_events_end_instances_of_this_fleet_only(dev: Template) -> None:
    """The events function may terminate what carries the tags of this fleet."""
    found = statement(dev, "Fleet/Events", "ec2:TerminateInstances")
    assert found["Condition"]["StringEquals"]["aws:ResourceTag/runs-fleet:fleet"] == "dev"


def test_key_of_ones_own_is_opened_to_eventbridge_and_the_scheduler(tmp_path: Path) -> None:
    """With a key of one's own, what is encrypted by it can still be sent to."""

    def build(app: cdk.App) -> None:
        stack = cdk.Stack(app, "Variant", env=cdk.Environment(region="eu-west-1"))
        github = GitHubApp.from_secret_name(stack, "App", "runsfleet/github-app")
        key = kms.Key(stack, "Key")
        RunnerFleet(stack, "Fleet", github=github, encryption_key=key)

    template = synthesize(tmp_path, build)["Variant"]
    key = template.only("AWS::KMS::Key")["Properties"]["KeyPolicy"]["Statement"]
    (opened,) = [s for s in key if s["Principal"] == {"Service": "events.amazonaws.com"}]
    assert {"kms:Decrypt", "kms:GenerateDataKey"} <= set(opened["Action"])
    assert {"kms:Decrypt", "kms:GenerateDataKey"} <= template.actions("Fleet/Sweeps")


def test_operators_are_granted_what_they_do(tmp_path: Path) -> None:
    """An operator's role may change circuits with their audit rows, and ask for sweeps."""

    def build(app: cdk.App) -> None:
        stack = cdk.Stack(app, "Variant")
        github = GitHubApp.from_secret_name(stack, "App", "runsfleet/github-app")
        operator = iam.Role(stack, "Operator", assumed_by=iam.AccountRootPrincipal())
        fleet = RunnerFleet(stack, "Fleet", github=github)
        fleet.grant_operate_breaker(operator)
        fleet.grant_run_sweeps(operator)

    template = synthesize(tmp_path, build)["Variant"]
    (policy,) = [
        p
        for name, p in template.of_type("AWS::IAM::Policy").items()
        if name.startswith("OperatorDefaultPolicy")
    ]
    granted = {
        (action, flat(resource))
        for s in policy["Properties"]["PolicyDocument"]["Statement"]
        for action in as_list(s["Action"])
        for resource in as_list(s["Resource"])
    }
    circuits, audit = (
        f"<{template.id_at(f'Tables/{name}/Resource', 'AWS::DynamoDB::GlobalTable')}.Arn>"
        for name in ("CircuitState", "Audit")
    )
    sweeps = f"<{template.id_at('Queues/Housekeeping/Resource', 'AWS::SQS::Queue')}.Arn>"
    assert granted == {
        ("dynamodb:PutItem", audit),
        ("dynamodb:PutItem", circuits),
        ("dynamodb:Scan", circuits),
        ("sqs:SendMessage", sweeps),
    }
