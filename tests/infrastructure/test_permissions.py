"""What each role may do, and on which condition."""

from __future__ import annotations

from typing import Any

import pytest

from tests.infrastructure.templates import Template, as_list, flat

MINE = {"aws:ResourceTag/runs-fleet:managed": "true", "aws:ResourceTag/runs-fleet:fleet": "dev"}


def statement(template: Template, role: str, action: str) -> dict[str, Any]:
    """Return the one statement of a role that allows an action."""
    (found,) = [s for s in template.statements(role) if action in as_list(s["Action"])]
    return found


def test_webhook_reads_its_secret_and_sends_and_no_more(dev: Template) -> None:
    """The function that faces the internet can also count, for ``GET /health``."""
    assert dev.actions("Fleet/Intake") == {
        "dynamodb:Scan",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "secretsmanager:GetSecretValue",
        "sqs:GetQueueAttributes",
        "sqs:SendMessage",
    }
    secret = statement(dev, "Fleet/Intake", "secretsmanager:GetSecretValue")
    assert flat(secret["Resource"]).endswith(":secret:runsfleet/github-app-webhook-??????")


@pytest.mark.parametrize("role", ["Fleet/Dispatch", "Fleet/Termination"])
def test_only_functions_behind_the_queues_read_the_app(dev: Template, role: str) -> None:
    """Dispatch and termination read the App's secret and not the webhook's."""
    secret = statement(dev, role, "secretsmanager:GetSecretValue")
    assert flat(secret["Resource"]).endswith(":secret:runsfleet/github-app-??????")


def test_termination_touches_records_and_queues_only(dev: Template) -> None:
    """Termination has no call to EC2; it writes configurations to renew a registration."""
    assert dev.actions("Fleet/Termination") == {
        "dynamodb:GetItem",
        "dynamodb:PutItem",
        "dynamodb:Query",
        "dynamodb:UpdateItem",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "secretsmanager:GetSecretValue",
        "sqs:DeleteMessage",
        "sqs:GetQueueAttributes",
        "sqs:ReceiveMessage",
        "sqs:SendMessage",
    }


def test_dispatch_ends_instances_of_this_fleet_only(dev: Template) -> None:
    """Dispatch may terminate what carries the tags of this fleet."""
    found = statement(dev, "Fleet/Dispatch", "ec2:TerminateInstances")
    assert found["Condition"] == {"StringEquals": MINE}


def test_dispatch_launches_tagged_instances_from_named_parts(dev: Template) -> None:
    """Instances are born with the fleet's tags, from its templates, into its subnets and group."""
    named, born = [
        s for s in dev.statements("Fleet/Dispatch") if "ec2:CreateFleet" in as_list(s["Action"])
    ]
    kinds = {flat(r).split(":")[-1] for r in named["Resource"]}
    exact = {k for k in kinds if not k.endswith("/*")}
    assert {k.split("/")[0] for k in exact} == {"launch-template", "subnet", "security-group"}
    assert len(exact) == 3 + 3 + 1  # templates, subnets, group
    assert {flat(r).split(":")[-1] for r in born["Resource"]} == {
        "fleet/*",
        "instance/*",
        "network-interface/*",
        "volume/*",
    }
    assert born["Condition"] == {
        "StringEquals": {
            "aws:RequestTag/runs-fleet:managed": "true",
            "aws:RequestTag/runs-fleet:fleet": "dev",
        }
    }


def test_tags_are_written_at_birth_only(dev: Template) -> None:
    """Nobody can tag a stranger's instance and then terminate it."""
    found = statement(dev, "Fleet/Dispatch", "ec2:CreateTags")
    assert found["Condition"] == {
        "StringEquals": {"ec2:CreateAction": ["CreateFleet", "RunInstances"]}
    }


def test_dispatch_passes_one_role_to_ec2(dev: Template) -> None:
    """Dispatch hands the instances' role to EC2 and to nothing else."""
    found = statement(dev, "Fleet/Dispatch", "iam:PassRole")
    assert found["Condition"] == {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}
    assert flat(found["Resource"]) == f"<{dev.id_at('Instances/Role', 'AWS::IAM::Role')}.Arn>"


def test_first_spot_launch_of_an_account_works(dev: Template) -> None:
    """Dispatch may create EC2's own role for spot, which a new account lacks."""
    made = [
        s["Condition"]["StringEquals"]["iam:AWSServiceName"]
        for s in dev.statements("Fleet/Dispatch")
        if s["Action"] == "iam:CreateServiceLinkedRole"
    ]
    assert made == ["spot.amazonaws.com"]


def test_dispatch_resolves_the_images(dev: Template) -> None:
    """Dispatch may read the parameters that the launch templates name."""
    found = statement(dev, "Fleet/Dispatch", "ssm:GetParameters")
    ubuntu = "/aws/service/canonical/ubuntu/server/24.04/stable/current"
    assert sorted(flat(r).split("parameter")[1] for r in found["Resource"]) == [
        "/aws/service/ami-windows-latest/Windows_Server-2022-English-Full-Base",
        *(f"{ubuntu}/{a}/hvm/ebs-gp3/ami-id" for a in ("amd64", "arm64")),
    ]


def test_an_instance_reads_its_own_item(dev: Template) -> None:
    """The key of the item that an instance reads must be what IAM knows the instance by."""
    found = statement(dev, "Fleet/Instances", "dynamodb:GetItem")
    assert found["Action"] == "dynamodb:GetItem"
    assert found["Condition"] == {
        "ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["${aws:userid}"]}
    }


def test_an_instance_reads_its_own_parameters(parameters: Template) -> None:
    """The tag of the parameters that an instance reads must be what IAM knows it by."""
    (found,) = [
        s for s in parameters.statements("Fleet/Instances") if s["Action"] == "ssm:GetParameter"
    ]
    assert found["Condition"] == {
        "StringEquals": {"ssm:resourceTag/runs-fleet:instance-key": "${aws:userid}"}
    }
    assert flat(found["Resource"]).endswith(":parameter/runs-fleet/variant/runners/*")


def test_an_instance_ends_itself_only(dev: Template) -> None:
    """The instance that a terminate call names must be the one that calls."""
    found = statement(dev, "Fleet/Instances", "ec2:TerminateInstances")
    assert found["Condition"] == {"StringLike": {"aws:userid": "*:${ec2:InstanceID}"}}


def test_an_instance_can_do_nothing_else(dev: Template) -> None:
    """The instances' role has no managed policy, as AWS's own would read every parameter."""
    role = dev.at("Fleet/Instances/Role/Resource", "AWS::IAM::Role")["Properties"]
    assert "ManagedPolicyArns" not in role
    assert dev.actions("Fleet/Instances") == {
        "dynamodb:GetItem",
        "ec2:TerminateInstances",
        "logs:CreateLogStream",
        "logs:DescribeLogGroups",
        "logs:DescribeLogStreams",
        "logs:PutLogEvents",
        "s3:GetObject",
        "s3:PutObject",
        "sqs:SendMessage",
        "ssm:UpdateInstanceInformation",
        "ssmmessages:CreateControlChannel",
        "ssmmessages:CreateDataChannel",
        "ssmmessages:OpenControlChannel",
        "ssmmessages:OpenDataChannel",
    }
    objects = [
        flat(s["Resource"])
        for s in dev.statements("Fleet/Instances")
        if "s3:GetObject" in as_list(s["Action"])
    ]
    agent, cache = objects
    assert agent.endswith(".zip")
    assert "*" not in agent
    assert cache.endswith(".Arn>/runners/*")


def test_an_instance_keeps_a_report_in_its_own_name_only(dev: Template) -> None:
    """What it writes beside packages is bound to its identity, and it cannot read it back."""
    puts = [
        flat(s["Resource"])
        for s in dev.statements("Fleet/Instances")
        if as_list(s["Action"]) == ["s3:PutObject"]
    ]
    assert [put.partition(">/")[2] for put in puts] == ["reports/${aws:userid}.json"]


def test_an_instance_writes_to_its_log_groups_only(dev: Template) -> None:
    """The log groups of instances and sessions are kept for a bounded time, and are no function's.

    Session Manager's agent writes the latter, in the name of the instance.
    """
    paths = ("Fleet/Instances/Logs/Resource", "Fleet/Instances/Sessions/Logs/Resource")
    kind = "AWS::Logs::LogGroup"
    for path in paths:
        assert dev.at(path, kind)["Properties"]["RetentionInDays"] > 0
    written = {
        flat(s["Resource"])
        for s in dev.statements("Fleet/Instances")
        if "logs:PutLogEvents" in as_list(s["Action"])
    }
    assert written == {f"<{dev.id_at(path, kind)}.Arn>" for path in paths}


def test_functions_have_no_managed_policy(dev: Template) -> None:
    """No role has more than what is written out for it."""
    for role in dev.of_type("AWS::IAM::Role").values():
        assert "ManagedPolicyArns" not in role["Properties"]


def test_only_the_api_invokes_the_webhook(dev: Template) -> None:
    """Two permissions: API Gateway, for each of the two routes of this API."""
    permissions = [p["Properties"] for p in dev.of_type("AWS::Lambda::Permission").values()]
    assert {p["Principal"] for p in permissions} == {"apigateway.amazonaws.com"}
    api = dev.id_at("Intake/Api/Resource", "AWS::ApiGatewayV2::Api")
    assert sorted(flat(p["SourceArn"]).partition(f":<{api}>/")[2] for p in permissions) == [
        "*/GET/health",
        "*/POST/webhook",
    ]
