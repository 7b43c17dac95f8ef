"""Who gets onto instances, what is kept of it, and what Slack is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk import aws_sns as sns
from constructs import Construct

from runsfleet_constructs import GitHubApp, RunnerFleet, RunnerImage
from runsfleet_constructs.fleet_alarms import FleetAlarms
from runsfleet_constructs.slack_notifier import SlackNotifier, SlackWebhook
from runsfleet_constructs.ssh_access import SshAccess
from runsfleet_runtime.contract.environment import HealthEnvironment, NotifyEnvironment
from runsfleet_runtime.contract.paths import HEALTH_ROUTE, session_document
from tests.contract.permissions import code_of_builder
from tests.infrastructure.templates import Template, as_list, construct_path, flat, synthesize

NETWORK = "10.0.0.0/8"


@pytest.fixture
def stack() -> cdk.Stack:
    """A stack to put things into."""
    return cdk.Stack(cdk.App(context={"aws:cdk:bundling-stacks": []}), "Stack")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A fleet with a key of its own, SSH, alarms in Slack, and an operator."""

    def build(app: cdk.App) -> None:
        stack = cdk.Stack(app, "Opened", env=cdk.Environment(region="eu-central-1"))
        operator = iam.Role(
            Construct(stack, "Operator"), "Role", assumed_by=iam.AccountRootPrincipal()
        )
        fleet = RunnerFleet(
            stack,
            "Fleet",
            fleet_name="dev",
            github=GitHubApp.from_secret_name(stack, "App", "runsfleet/github-app"),
            image=RunnerImage(
                linux_arm64="ami-0123456789abcdef0",
                linux_x64="ami-0123456789abcdef1",
                windows_x64="ami-0123456789abcdef2",
                root_device="/dev/sda1",
            ),
            encryption_key=kms.Key(stack, "Key"),
            ssh=SshAccess(
                key_pair=ec2.KeyPair.from_key_pair_name(stack, "SshKey", "platform-team"),
                peers=[ec2.Peer.ipv4(NETWORK), ec2.Peer.ipv6("fd00::/16")],
            ),
        )
        fleet.grant_operate(operator)
        alarms = FleetAlarms(stack, "Alarms", fleet=fleet)
        webhook = SlackWebhook.from_secret_name(stack, "SlackWebhook", "runsfleet/slack")
        SlackNotifier(stack, "Slack", topic=alarms.topic, webhook=webhook)

    return synthesize(tmp_path_factory.mktemp("opened"), build)["Opened"]


def doors(template: Template) -> list[dict[str, Any]]:
    """Return what may come in to the instances."""
    group = template.at("Instances/SecurityGroup/Resource", "AWS::EC2::SecurityGroup")
    return list(group["Properties"].get("SecurityGroupIngress", []))


# -- sessions --------------------------------------------------------------------------------------


def test_sessions_are_logged(dev: Template) -> None:
    """The fleet's document sends what is typed to a log group of its own, line by line."""
    document = dev.only("AWS::SSM::Document")["Properties"]
    assert document["Name"] == session_document("dev")
    assert document["DocumentType"] == "Session"
    assert document["UpdateMethod"] == "NewVersion"
    inputs = document["Content"]["inputs"]
    group = dev.id_at("Instances/Sessions/Logs/Resource", "AWS::Logs::LogGroup")
    assert inputs["cloudWatchLogGroupName"] == {"Ref": group}
    assert inputs["cloudWatchStreamingEnabled"] is True
    assert inputs["cloudWatchEncryptionEnabled"] is False


def test_encryption_is_demanded_where_there_is_a_key(opened: Template) -> None:
    """A session is refused rather than logged in the clear."""
    inputs = opened.only("AWS::SSM::Document")["Properties"]["Content"]["inputs"]
    assert inputs["cloudWatchEncryptionEnabled"] is True
    group = opened.at("Instances/Sessions/Logs/Resource", "AWS::Logs::LogGroup")
    assert "KmsKeyId" in group["Properties"]


def test_instances_write_to_the_groups_of_the_fleet_only(dev: Template) -> None:
    """The role of the instances puts events into its own two groups, and only lists others."""
    found = [
        flat(arn)
        for statement in dev.statements("Fleet/Instances")
        if "logs:PutLogEvents" in as_list(statement["Action"])
        for arn in as_list(statement["Resource"])
    ]
    groups = {
        dev.id_at(f"Instances/{path}/Resource", "AWS::Logs::LogGroup")
        for path in ("Logs", "Sessions/Logs")
    }
    assert {arn.strip("<>").partition(".")[0] for arn in found} == groups


def test_without_session_manager_there_is_no_document(tmp_path: Path) -> None:
    """Who leaves Session Manager out gets no document, no group and no permission for it."""

    def build(app: cdk.App) -> None:
        stack = cdk.Stack(app, "Closed")
        github = GitHubApp.from_secret_name(stack, "App", "runsfleet/github-app")
        RunnerFleet(stack, "Fleet", fleet_name="dev", github=github, session_manager=False)

    closed = synthesize(tmp_path, build)["Closed"]
    assert closed.of_type("AWS::SSM::Document") == {}
    assert not {a for a in closed.actions("Fleet/Instances") if a.startswith("ssm")}
    assert not any("Sessions" in construct_path(r) for r in closed.resources.values())


def test_operator_opens_logged_sessions_on_this_fleet_only(opened: Template) -> None:
    """Instances are admitted by their tags, and no document but the fleet's."""
    starts = [
        s for s in opened.statements("Operator") if "ssm:StartSession" in as_list(s["Action"])
    ]
    checked = {"BoolIfExists": {"ssm:SessionDocumentAccessCheck": "true"}}
    of_document, of_instances = sorted(starts, key=lambda s: len(s["Condition"]))
    assert of_instances["Condition"] == {
        **checked,
        "StringEquals": {
            "ssm:resourceTag/runs-fleet:managed": "true",
            "ssm:resourceTag/runs-fleet:fleet": "dev",
        },
    }
    assert of_document["Condition"] == checked
    assert flat(of_document["Resource"]).endswith(f":document/{session_document('dev')}")


def test_operator_changes_nothing_but_what_the_commands_do(opened: Template) -> None:
    """Beside reading, an operator asks for sweeps, dispatches jobs again and leaves rows of it."""
    actions = opened.actions("Operator")
    writes = {a for a in actions if not a.split(":")[1].startswith(("Describe", "Get", "List"))}
    assert writes - {a for a in writes if a.startswith("kms:")} == {
        "dynamodb:BatchGetItem",
        "dynamodb:PutItem",
        "dynamodb:Query",
        "dynamodb:Scan",
        "dynamodb:UpdateItem",
        "sqs:SendMessage",
        "ssm:ResumeSession",
        "ssm:StartSession",
        "ssm:TerminateSession",
    }


# -- SSH -------------------------------------------------------------------------------------------


def test_no_port_is_open_by_default(dev: Template) -> None:
    """Nothing comes in, and no template names a key."""
    assert doors(dev) == []
    for template in dev.of_type("AWS::EC2::LaunchTemplate").values():
        assert "KeyName" not in template["Properties"]["LaunchTemplateData"]


def test_ssh_opens_one_port_to_the_peers(opened: Template) -> None:
    """Port 22 by TCP, for each peer, and nothing else."""
    found = {(d.get("CidrIp") or d["CidrIpv6"], d["FromPort"], d["ToPort"]) for d in doors(opened)}
    assert found == {(NETWORK, 22, 22), ("fd00::/16", 22, 22)}
    assert {door["IpProtocol"] for door in doors(opened)} == {"tcp"}


def test_key_is_in_the_templates_of_linux_only(opened: Template) -> None:
    """Windows has no use for it."""
    keys = {
        construct_path(t).split("/")[-2]: t["Properties"]["LaunchTemplateData"].get("KeyName")
        for t in opened.of_type("AWS::EC2::LaunchTemplate").values()
    }
    assert keys == {
        "LinuxArm64": "platform-team",
        "LinuxX64": "platform-team",
        "WindowsX64": None,
    }


@pytest.mark.parametrize(
    "peers",
    [
        [ec2.Peer.any_ipv4()],
        [ec2.Peer.any_ipv6()],
        [ec2.Peer.ipv4(NETWORK), ec2.Peer.ipv4("0.0.0.0/0")],
        [ec2.Peer.ipv4("0.0.0.0/1"), ec2.Peer.ipv4("128.0.0.0/1")],
        [ec2.Peer.ipv6("::/0")],
    ],
)
def test_world_is_refused(stack: cdk.Stack, peers: list[ec2.IPeer]) -> None:
    """The whole world, or half of it, is answered with what to do instead."""
    key = ec2.KeyPair.from_key_pair_name(stack, "Key", "team")
    with pytest.raises(ValueError, match=r"name your network, such as .*or use Session Manager"):
        SshAccess(key_pair=key, peers=peers)


def test_nobody_is_refused_too(stack: cdk.Stack) -> None:
    """A key without anybody who may use it is a mistake."""
    key = ec2.KeyPair.from_key_pair_name(stack, "Key", "team")
    with pytest.raises(ValueError, match="must name who may connect, got none"):
        SshAccess(key_pair=key, peers=[])


def test_security_groups_may_be_peers(stack: cdk.Stack) -> None:
    """A bastion's group is let in by its id."""
    group = ec2.SecurityGroup.from_security_group_id(stack, "Bastion", "sg-0123456789abcdef0")
    key = ec2.KeyPair.from_key_pair_name(stack, "Key", "team")
    assert list(SshAccess(key_pair=key, peers=[group]).peers) == [group]


# -- Slack -----------------------------------------------------------------------------------------


def test_notifier_is_subscribed_and_loses_nothing(opened: Template) -> None:
    """What SNS cannot deliver and what the function fails on end in one dead-letter queue."""
    queue = opened.id_at("Slack/DeadLetters/Resource", "AWS::SQS::Queue")
    (subscription,) = [
        s["Properties"]
        for s in opened.of_type("AWS::SNS::Subscription").values()
        if s["Properties"]["Protocol"] == "lambda"
    ]
    assert flat(subscription["TopicArn"]).strip("<>") in opened.of_type("AWS::SNS::Topic")
    assert subscription["RedrivePolicy"]["deadLetterTargetArn"] == {"Fn::GetAtt": [queue, "Arn"]}
    invoke = opened.only("AWS::Lambda::EventInvokeConfig")["Properties"]
    assert invoke["MaximumRetryAttempts"] == 2
    on_failure = invoke["DestinationConfig"]["OnFailure"]["Destination"]
    assert on_failure == {"Fn::GetAtt": [queue, "Arn"]}


def test_notifier_reads_its_secret_and_no_more(opened: Template) -> None:
    """Its role has what its code calls, what Lambda does with it, and the one secret."""
    by_lambda = {
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "sqs:GetQueueAttributes",
        "sqs:GetQueueUrl",
        "sqs:SendMessage",
    }
    unused = ("runsfleet_runtime.secrets.ssm",)
    needed = code_of_builder("runsfleet_runtime.composition", "notify", without=unused).actions
    assert needed == {"secretsmanager:GetSecretValue"}
    assert opened.actions("Slack") - by_lambda == needed
    (secret,) = [
        s for s in opened.statements("Slack") if "secretsmanager:GetSecretValue" in s["Action"]
    ]
    assert flat(secret["Resource"]).endswith(":secret:runsfleet/slack-??????")


def test_notifier_reads_what_it_is_given(opened: Template) -> None:
    """The address itself is in no variable."""
    given = {name: flat(value) for name, value in opened.variables("Slack").items()}
    environment = NotifyEnvironment.from_environ(given)
    assert environment.slack_webhook == "secretsmanager:runsfleet/slack"
    assert environment.to_environ() == given


def test_webhook_may_be_kept_in_either_store(stack: cdk.Stack) -> None:
    """Secret by construct, secret by name, parameter by name."""
    topic = sns.Topic(stack, "Topic")
    sources = {
        "Own": SlackWebhook.from_secret(secretsmanager.Secret(stack, "Secret")),
        "Parameter": SlackWebhook.from_parameter_name(stack, "/runsfleet/slack"),
    }
    made = [
        SlackNotifier(stack, name, topic=topic, webhook=source) for name, source in sources.items()
    ]
    assert made[1].environment.slack_webhook == "ssm:/runsfleet/slack"


def test_address_instead_of_a_name_is_refused_without_repeating_it(stack: cdk.Stack) -> None:
    """Who pastes the secret itself is told so, and it is not printed."""
    with pytest.raises(ValueError, match="put the address into a secret") as told:
        SlackWebhook.from_secret_name(stack, "Slack", "https://hooks.slack.com/services/T/B/x")
    assert "hooks.slack.com" not in str(told.value)


# -- health ----------------------------------------------------------------------------------------


def test_health_is_a_throttled_route_of_the_same_api(dev: Template) -> None:
    """Its settings are its own, and are made after the route."""
    routes = {
        r["Properties"]["RouteKey"]: name
        for name, r in dev.of_type("AWS::ApiGatewayV2::Route").items()
    }
    assert set(routes) == {"POST /webhook", HEALTH_ROUTE}
    stage = dev.only("AWS::ApiGatewayV2::Stage")
    assert stage["Properties"]["RouteSettings"] == {
        HEALTH_ROUTE: {"ThrottlingBurstLimit": 10, "ThrottlingRateLimit": 2}
    }
    assert routes[HEALTH_ROUTE] in as_list(stage["DependsOn"])
    sources = [
        flat(p["Properties"]["SourceArn"])
        for p in dev.of_type("AWS::Lambda::Permission").values()
        if p["Properties"]["Principal"] == "apigateway.amazonaws.com"
    ]
    assert sorted(source.partition(">/")[2] for source in sources) == [
        "*/GET/health",
        "*/POST/webhook",
    ]


def test_health_reads_what_it_is_given(dev: Template) -> None:
    """The webhook function's variables hold all that the route reads."""
    given = {name: flat(value) for name, value in dev.variables("Fleet/Intake").items()}
    environment = HealthEnvironment.from_environ(given)
    tables = [environment.circuit_table, environment.leases_table]
    assert [t.strip("<>") for t in tables] == [
        dev.id_at(f"Tables/{name}/Resource", "AWS::DynamoDB::GlobalTable")
        for name in ("CircuitState", "Leases")
    ]


def test_health_can_be_left_out(tmp_path: Path) -> None:
    """Without the route the webhook function has no permission for it."""

    def build(app: cdk.App) -> None:
        stack = cdk.Stack(app, "Quiet")
        github = GitHubApp.from_secret_name(stack, "App", "runsfleet/github-app")
        RunnerFleet(stack, "Fleet", fleet_name="dev", github=github, health_route=False)

    quiet = synthesize(tmp_path, build)["Quiet"]
    assert len(quiet.of_type("AWS::ApiGatewayV2::Route")) == 1
    assert "RouteSettings" not in quiet.only("AWS::ApiGatewayV2::Stage")["Properties"]
    assert not {"dynamodb:Scan", "sqs:GetQueueAttributes"} & quiet.actions("Fleet/Intake")
    assert "RUNSFLEET_LEASES_TABLE" not in quiet.variables("Fleet/Intake")
