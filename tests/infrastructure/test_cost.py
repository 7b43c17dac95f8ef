"""The daily cost report has its schedule, its grants, its inventory and room for its variables."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns

from runsfleet_constructs import CostOptions, GitHubApp, RunnerFleet
from runsfleet_constructs.fleet_alarms import FleetAlarms
from runsfleet_runtime.contract.environment import HousekeepingEnvironment
from runsfleet_runtime.contract.inventory import Inventory
from stacks.environment_model import EnvironmentFile
from stacks.fleet_stack import FleetStage
from tests.infrastructure.templates import Template, as_list, flat, synthesize

LONGEST_STACK_NAME = 128
# what CloudFormation makes a name of: stack, logical id and a suffix, cut to what a service takes
NAMES = {
    "AWS::DynamoDB::GlobalTable": ("", 255),
    "AWS::IAM::Role": ("", 21),  # its id
    "AWS::Lambda::Function": ("", 64),
    "AWS::Logs::LogGroup": ("", 512),
    "AWS::S3::Bucket": ("", 63),
    "AWS::SQS::Queue": ("https://sqs.ap-southeast-2.amazonaws.com/123456789012/", 80),
    "AWS::SSM::Parameter": ("", 2048),
}
LONGEST_TOPIC = f"arn:aws:sns:ap-southeast-2:123456789012:{'t' * 100}"
ROOM = 4096
"""Bytes of all variables of a function, and characters of a standard parameter."""


@pytest.fixture(scope="module")
def berlin(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A fleet with a topic, a zone, an announced charge, and alarms."""

    def build(app: cdk.App) -> None:
        stack = cdk.Stack(app, "Variant")
        github = GitHubApp.from_secret_name(stack, "App", "runsfleet/github-app")
        cost = CostOptions(
            zone="Europe/Berlin",
            topic=sns.Topic.from_topic_arn(stack, "Costs", LONGEST_TOPIC),
            self_hosted_usd_per_minute=0.002,
        )
        fleet = RunnerFleet(stack, "Fleet", fleet_name="variant", github=github, cost=cost)
        FleetAlarms(stack, "Alarms", fleet=fleet)

    return synthesize(tmp_path_factory.mktemp("berlin"), build)["Variant"]


def physical(template: Template, value: Any) -> str:
    """Write a value as a stack of the longest name deploys it."""

    def name(reference: re.Match[str]) -> str:
        logical_id = reference[1].partition(".")[0]
        prefix, longest = NAMES[template.resources[logical_id]["Type"]]
        return prefix + f"{'s' * LONGEST_STACK_NAME}-{logical_id}-{'x' * 13}"[:longest]

    return re.sub(r"<(\w+(?:\.\w+)?)>", name, flat(value))


def inventory(template: Template) -> Any:
    """Return the value of the inventory's parameter."""
    found = template.at("HousekeepingInventory", "AWS::SSM::Parameter")
    return found["Properties"]["Value"]


def resources(template: Template, action: str) -> set[str]:
    """Return what housekeeping is allowed an action on."""
    return {
        flat(resource)
        for s in template.statements("Fleet/Housekeeping")
        if action in as_list(s["Action"])
        for resource in as_list(s["Resource"])
    }


def test_the_report_is_due_at_nine_in_the_zone_of_its_days(dev: Template, berlin: Template) -> None:
    """Every other schedule is in UTC."""
    for template, zone in ((dev, "UTC"), (berlin, "Europe/Berlin")):
        schedules = template.of_type("AWS::Scheduler::Schedule").values()
        found = {
            json.loads(s["Properties"]["Target"]["Input"])["task"]: s["Properties"]
            for s in schedules
        }
        report = found.pop("cost_report")
        assert report["ScheduleExpression"] == "cron(0 9 * * ? *)"
        assert report["ScheduleExpressionTimezone"] == zone
        assert {s.get("ScheduleExpressionTimezone") for s in found.values()} == {"Etc/UTC"}


def test_the_options_reach_the_function(berlin: Template) -> None:
    """Zone, topic and charge are read back as they were given."""
    variables = {n: flat(v) for n, v in berlin.variables("Fleet/Housekeeping").items()}
    found = HousekeepingEnvironment.from_environ(variables)
    assert (found.cost_zone, found.cost_topic_arn) == ("Europe/Berlin", LONGEST_TOPIC)
    assert found.self_hosted_usd_per_minute == 0.002


def test_all_variables_fit_even_with_the_longest_names(berlin: Template) -> None:
    """Lambda takes 4 KB of variables, and Parameter Store 4096 characters."""
    variables = berlin.variables("Fleet/Housekeeping")
    size = sum(len(name) + len(physical(berlin, value)) for name, value in variables.items())
    assert 3000 < size < ROOM
    assert 1000 < len(physical(berlin, inventory(berlin))) < ROOM


def test_the_inventory_names_all_but_its_reader(berlin: Template) -> None:
    """Functions with their memory, log groups, tables, secrets, alarms; the composite as five."""
    found = Inventory.from_json(flat(inventory(berlin)))
    reader = berlin.id_at("Housekeeping/Function/Resource", "AWS::Lambda::Function")
    functions = {
        f"<{name}>": function["Properties"]["MemorySize"]
        for name, function in berlin.of_type("AWS::Lambda::Function").items()
        if name != reader and "/Fleet/" in function["Metadata"]["aws:cdk:path"]
    }
    assert found.functions == functions
    own = berlin.id_at("Housekeeping/Logs/Resource", "AWS::Logs::LogGroup")
    groups = {f"<{name}>" for name in berlin.of_type("AWS::Logs::LogGroup") if name != own}
    assert set(found.log_groups) == groups
    named = {flat(v) for v in berlin.variables("Fleet/Housekeeping").values()}
    tables = {f"<{name}>" for name in berlin.of_type("AWS::DynamoDB::GlobalTable")}
    assert set(found.tables) == tables - named
    assert found.secrets == 2
    assert found.alarms == len(berlin.of_type("AWS::CloudWatch::Alarm")) + 5


def test_the_report_is_granted_what_it_asks(dev: Template, berlin: Template) -> None:
    """Two indexes, the files of reports, the inventory, and the topic if there is one."""
    bucket = dev.id_at("RunnerCache/Bucket/Resource", "AWS::S3::Bucket")
    reports = f"<{bucket}.Arn>/cost/*"
    assert reports in resources(dev, "s3:GetObject") & resources(dev, "s3:PutObject")
    instances = dev.id_at("Tables/Instances/Resource", "AWS::DynamoDB::GlobalTable")
    assert f"<{instances}.Arn>/index/by-day" in resources(dev, "dynamodb:Query")
    parameter = dev.id_at("HousekeepingInventory", "AWS::SSM::Parameter")
    (readable,) = resources(dev, "ssm:GetParameter")
    assert readable.endswith(f":parameter/<{parameter}>")
    assert resources(dev, "sns:Publish") == set()
    assert resources(berlin, "sns:Publish") == {LONGEST_TOPIC}


def test_reports_are_kept_for_a_year_and_a_month(dev: Template) -> None:
    """As records of jobs are."""
    rules = dev.only("AWS::S3::Bucket")["Properties"]["LifecycleConfiguration"]["Rules"]
    days = {r["Prefix"]: r["ExpirationInDays"] for r in rules if "Prefix" in r}
    assert days["cost/"] == days["jobs/"] == 400


def test_all_that_the_fleet_makes_carries_its_name(berlin: Template) -> None:
    """What AWS bills by tag can be told apart by fleet."""
    tag = {"Key": "runs-fleet:fleet", "Value": "variant"}
    for kind in (
        "AWS::DynamoDB::GlobalTable",
        "AWS::EC2::Subnet",
        "AWS::Lambda::Function",
        "AWS::Logs::LogGroup",
        "AWS::S3::Bucket",
        "AWS::SQS::Queue",
    ):
        for resource in berlin.of_type(kind).values():
            if "/Fleet/" in resource["Metadata"]["aws:cdk:path"]:
                assert tag in _tags(resource["Properties"]), resource["Metadata"]


def _tags(properties: dict[str, Any]) -> list[Any]:
    if "Replicas" in properties:  # of a table: each replica has its own
        return [tag for replica in properties["Replicas"] for tag in replica["Tags"]]
    return list(properties.get("Tags", []))


def test_wrong_options_are_told_all_at_once() -> None:
    """A zone that there is not, and a charge that is no dollars."""
    with pytest.raises(ValueError, match="like Europe/Berlin, got 'Berlin'") as caught:
        CostOptions(zone="Berlin", self_hosted_usd_per_minute=2)
    assert "self_hosted_usd_per_minute must be between 0 and 1, got 2" in str(caught.value)


def test_an_environment_file_sets_the_options(tmp_path: Path) -> None:
    """The topic is that of the stack's region; a region without one tells nobody."""
    environment = EnvironmentFile.model_validate(
        {
            "name": "dev",
            "regions": ["eu-central-1", "us-east-1"],
            "github": {"secret_name": "app"},
            "cost": {"zone": "Europe/Berlin", "topic_arns": {"eu-central-1": LONGEST_TOPIC}},
        }
    )
    templates = synthesize(tmp_path, lambda app: FleetStage(app, environment))
    topics = {
        name: template.variables("Fleet/Housekeeping").get("RUNSFLEET_COST_TOPIC_ARN")
        for name, template in templates.items()
    }
    assert topics == {
        "runsfleet-dev-eu-central-1": LONGEST_TOPIC,
        "runsfleet-dev-us-east-1": None,
    }


@pytest.mark.parametrize(
    ("cost", "reason"),
    [
        ({"zone": "Berlin"}, "must be a time zone like Europe/Berlin"),
        ({"topic_arns": {"us-east-1": LONGEST_TOPIC}}, "us-east-1, which is none of regions"),
        ({"topic_arns": {"eu-central-1": "costs"}}, "should match pattern"),
    ],
)
def test_a_wrong_environment_file_is_refused(cost: dict[str, Any], reason: str) -> None:
    """Zones, regions and topics are checked before anything is built."""
    with pytest.raises(ValueError, match=reason):
        EnvironmentFile.model_validate(
            {
                "name": "dev",
                "regions": ["eu-central-1"],
                "github": {"secret_name": "app"},
                "cost": cost,
            }
        )


def test_a_topic_with_a_key_of_its_own_can_be_told(tmp_path: Path) -> None:
    """Who publishes to an encrypted topic encrypts by its key."""

    def build(app: cdk.App) -> None:
        stack = cdk.Stack(app, "Variant")
        github = GitHubApp.from_secret_name(stack, "App", "runsfleet/github-app")
        topic = sns.Topic(stack, "Costs", master_key=kms.Key(stack, "Key"))
        RunnerFleet(stack, "Fleet", github=github, cost=CostOptions(topic=topic))

    template = synthesize(tmp_path, build)["Variant"]
    assert {"kms:Decrypt", "kms:GenerateDataKey"} <= template.actions("Fleet/Housekeeping")
