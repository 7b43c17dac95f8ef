"""What cannot work is refused where it is written, with the value and the cure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_secretsmanager as secretsmanager

from runsfleet_constructs import (
    FleetLimits,
    GitHubApp,
    LabelAlias,
    LabelImage,
    LabelOptions,
    RunnerFleet,
    RunnerImage,
    RunnerNetwork,
)
from tests.infrastructure.templates import Template, as_list, flat, synthesize


@pytest.fixture
def stack() -> cdk.Stack:
    """A stack to put things into."""
    return cdk.Stack(cdk.App(context={"aws:cdk:bundling-stacks": []}), "Stack")


def github(scope: cdk.Stack, **options: Any) -> GitHubApp:
    """Return a GitHub App by the names of its secrets."""
    return GitHubApp.from_secret_name(scope, "App", "runsfleet/github-app", **options)


def fleet(tmp_path: Path, make: Callable[[cdk.Stack], object], **env: str) -> Template:
    """Return the template of what a function makes."""

    def build(app: cdk.App) -> None:
        make(cdk.Stack(app, "Stack", env=cdk.Environment(**env) if env else None))

    return synthesize(tmp_path, build)["Stack"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fleet_name": "Dev"}, "begin with a letter and not end with -, got 'Dev'; choose"),
        ({"fleet_name": "x"}, "2 to 32 characters"),
        ({"volume_gib": 4}, "volume_gib must be between 8 and 16384, got 4"),
        ({"setup_commands": ["x" * 17_000]}, "user data must be at most 16384 bytes"),
    ],
)
def test_fleet(stack: cdk.Stack, options: dict[str, Any], message: str) -> None:
    """The fleet's own values."""
    with pytest.raises(ValueError, match=message):
        RunnerFleet(stack, "Runners", github=github(stack), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_runtime": cdk.Duration.seconds(10)}, "max_runtime must be between 60 s and 432000"),
        ({"idle_timeout": cdk.Duration.days(2)}, "got 172800 s; leave idle_timeout out for 600 s"),
        ({"dispatch_concurrency": 1}, "dispatch_concurrency must be between 2 and 1000, got 1"),
    ],
)
def test_limits(options: dict[str, Any], message: str) -> None:
    """Limits outside what GitHub, EC2 or Lambda allow."""
    with pytest.raises(ValueError, match=message):
        FleetLimits(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "http://github.example.com"}, "https address of a GitHub without a path"),
        ({"url": "https://github.example.com/api/v3"}, "got 'https://github.example.com/api/v3'"),
        ({"runner_level": "enterprise"}, "must be organization or repository, got 'enterprise'"),
        ({"runner_group_id": 0}, "runner_group_id must be at least 1, got 0"),
        ({"webhook_secret_name": "-----BEGIN RSA"}, "a secret is given by its name"),
    ],
)
def test_github_app(stack: cdk.Stack, options: dict[str, Any], message: str) -> None:
    """Addresses, levels and names of the GitHub App."""
    with pytest.raises(ValueError, match=message):
        github(stack, **options)


def test_the_key_itself_is_refused_and_not_repeated(stack: cdk.Stack) -> None:
    """A private key in the place of a name is refused without being shown."""
    with pytest.raises(ValueError, match="create the secret first") as caught:
        GitHubApp.from_secret_name(stack, "App", "-----BEGIN RSA PRIVATE KEY-----MIIEow")
    assert "MIIE" not in str(caught.value)


def test_one_secret_for_both_is_refused(stack: cdk.Stack) -> None:
    """The function that faces the internet must not be able to read the private key."""
    secret = secretsmanager.Secret(stack, "Secret")
    with pytest.raises(ValueError, match="app and webhook must be two secrets"):
        GitHubApp.from_secrets(app=secret, webhook=secret)


@pytest.mark.parametrize(
    ("url", "server", "api"),
    [
        ("https://github.com", "https://github.com", "https://api.github.com"),
        ("https://acme.ghe.com/", "https://acme.ghe.com", "https://api.acme.ghe.com"),
        ("https://git.acme.io", "https://git.acme.io", "https://git.acme.io/api/v3"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080", "http://127.0.0.1:8080/api/v3"),
    ],
)
def test_addresses(stack: cdk.Stack, url: str, server: str, api: str) -> None:
    """GitHub, a tenant with data residency, an Enterprise Server, a stand-in on this machine."""
    app = github(stack, url=url)
    assert (app.server_url, app.api_url) == (server, api)


def test_labels_are_judged_by_the_runtime() -> None:
    """An alias that the runtime would refuse is refused at synthesis, all findings at once."""
    with pytest.raises(ValueError, match="label_aliases") as caught:
        LabelOptions(
            aliases=[
                LabelAlias(match="gpu", spec="runner=4cpu-plan9-arm64"),
                LabelAlias(match="(", spec="cpu=4", pattern=True),
            ]
        )
    assert len(str(caught.value).splitlines()) == 2
    with pytest.raises(ValueError, match="reference must be an AMI id"):
        LabelImage(reference="ubuntu")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: RunnerImage(linux_arm64="x", linux_x64="ami-1", root_device="/dev/sda1"),
            "AMI id",
        ),
        (
            lambda: RunnerImage(linux_arm64="ami-1", linux_x64="ami-1", root_device="sda1"),
            "root_device must be a device name like /dev/sda1, got 'sda1'",
        ),
    ],
)
def test_images(make: Callable[[], RunnerImage], message: str) -> None:
    """Images by anything but an id or a parameter."""
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cidr": "10.0.0.0/8"}, "prefix length of cidr must be between 16 and 24, got 8"),
        ({"cidr": "10.0.0.1/16"}, "has host bits set"),
        ({"zones": 5}, "zones must be between 1 and 4, got 5"),
    ],
)
def test_network(stack: cdk.Stack, options: dict[str, Any], message: str) -> None:
    """Networks that do not fit a VPC."""
    with pytest.raises(ValueError, match=message):
        RunnerNetwork(stack, "Network", **options)


def test_network_without_a_way_out(stack: cdk.Stack) -> None:
    """Instances that could not reach GitHub are refused."""
    vpc = ec2.Vpc.from_vpc_attributes(
        stack,
        "Vpc",
        vpc_id="vpc-1",
        availability_zones=["a"],
        isolated_subnet_ids=["subnet-1"],
        isolated_subnet_route_table_ids=["rtb-1"],
    )
    with pytest.raises(ValueError, match="could not reach GitHub; pass vpc_subnets or another"):
        RunnerFleet(stack, "Runners", github=github(stack), vpc=vpc)


def test_key_of_ones_own_needs_a_region(stack: cdk.Stack) -> None:
    """Instead of the CDK's error at synthesis there is one that tells what to write."""
    key = kms.Key(stack, "Key")
    with pytest.raises(ValueError, match=r"give the stack env=Environment\(region="):
        RunnerFleet(stack, "Runners", github=github(stack), encryption_key=key)


def test_context_chooses_the_processor(tmp_path: Path) -> None:
    """The context overrides the prop, for an emulator on another processor; rubbish is refused."""
    app = cdk.App(context={"runsfleet:function_architecture": "arm"})
    wrong = cdk.Stack(app, "Wrong")
    with pytest.raises(ValueError, match="must be arm64, x86_64 or host, got 'arm'"):
        RunnerFleet(wrong, "Runners", github=github(wrong))

    def build(app: cdk.App) -> None:
        stack = cdk.Stack(app, "Stack")
        RunnerFleet(
            stack,
            "Runners",
            github=github(stack),
            function_architecture=lambda_.Architecture.ARM_64,
        )

    context = {"runsfleet:function_architecture": "x86_64"}
    template = synthesize(tmp_path, build, context)["Stack"]
    for function in template.of_type("AWS::Lambda::Function").values():
        assert function["Properties"]["Architectures"] == ["x86_64"]


def test_grants_give_what_they_say(tmp_path: Path) -> None:
    """A user's own role may submit, read records and terminate, each with its own statement."""

    def make(stack: cdk.Stack) -> None:
        role = iam.Role(stack, "Mine", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        runners = RunnerFleet(stack, "Runners", fleet_name="dev", github=github(stack))
        runners.grant_submit_jobs(role)
        runners.grant_read_jobs(role)
        runners.grant_terminate(role)

    template = fleet(tmp_path, make)
    (policy,) = [
        p
        for name, p in template.of_type("AWS::IAM::Policy").items()
        if name.startswith("MineDefaultPolicy")
    ]
    statements = policy["Properties"]["PolicyDocument"]["Statement"]
    granted = {action: s for s in statements for action in as_list(s["Action"])}
    assert set(granted) == {
        "dynamodb:BatchGetItem",
        "dynamodb:GetItem",
        "dynamodb:Query",
        "dynamodb:Scan",
        "ec2:TerminateInstances",
        "sqs:SendMessage",
    }
    assert "RunnersQueuesJobs" in flat(granted["sqs:SendMessage"]["Resource"])
    assert "Condition" in granted["ec2:TerminateInstances"]


def test_instances_reach_what_they_are_connected_to(tmp_path: Path) -> None:
    """The fleet is connectable: a database can let its instances in."""

    def make(stack: cdk.Stack) -> None:
        runners = RunnerFleet(stack, "Runners", github=github(stack))
        database = ec2.SecurityGroup(stack, "Database", vpc=runners.vpc)
        runners.connections.allow_to(database, ec2.Port.tcp(5432))

    template = fleet(tmp_path, make)
    ingress = template.only("AWS::EC2::SecurityGroupIngress")["Properties"]
    assert ingress["FromPort"] == 5432
    assert "RunnersInstancesSecurityGroup" in flat(ingress["SourceSecurityGroupId"])


def test_key_of_ones_own_encrypts_everything_at_rest(tmp_path: Path) -> None:
    """Queues, tables, logs and bucket take the key, and the roles may use it."""

    def make(stack: cdk.Stack) -> None:
        key = kms.Key(stack, "Key")
        RunnerFleet(stack, "Runners", github=github(stack), encryption_key=key)

    template = fleet(tmp_path, make, region="eu-west-1")
    for kind, name in (
        ("AWS::SQS::Queue", "KmsMasterKeyId"),
        ("AWS::Logs::LogGroup", "KmsKeyId"),
    ):
        for resource in template.of_type(kind).values():
            assert "Key" in flat(resource["Properties"][name])
    for table in template.of_type("AWS::DynamoDB::GlobalTable").values():
        assert table["Properties"]["SSESpecification"]["SSEType"] == "KMS"
    assert "kms:GenerateDataKey" in template.actions("Runners/Intake")
    assert "kms:Decrypt" in template.actions("Runners/Dispatch")
    # an instance reads its configuration and writes reports and packages
    assert {"kms:Decrypt", "kms:GenerateDataKey"} <= template.actions("Runners/Instances")


def test_existing_network_gives_its_private_subnets_to_private_jobs(tmp_path: Path) -> None:
    """With a network of one's own, ordinary jobs are public and ``private=true`` is offered."""

    def make(stack: cdk.Stack) -> None:
        vpc = ec2.Vpc.from_vpc_attributes(
            stack,
            "Vpc",
            vpc_id="vpc-1",
            availability_zones=["a", "b"],
            public_subnet_ids=["subnet-1", "subnet-2"],
            private_subnet_ids=["subnet-3", "subnet-4"],
        )
        RunnerFleet(stack, "Runners", github=github(stack), vpc=vpc)

    template = fleet(tmp_path, make)
    variables = template.variables("Runners/Dispatch")
    assert variables["RUNSFLEET_SUBNET_IDS"] == '["subnet-1","subnet-2"]'
    assert variables["RUNSFLEET_PRIVATE_SUBNET_IDS"] == '["subnet-3","subnet-4"]'
    assert template.variables("Runners/Intake")["RUNSFLEET_PRIVATE"] == "true"
    assert not template.of_type("AWS::EC2::VPC")


def test_two_fleets_of_a_stack_do_not_meet(tmp_path: Path) -> None:
    """Without names two fleets have different ones, and neither may end the other's instances."""

    def make(stack: cdk.Stack) -> None:
        app = github(stack)
        RunnerFleet(stack, "Blue", github=app)
        RunnerFleet(stack, "Green", github=app)

    template = fleet(tmp_path, make)
    names = {template.variables(f"{name}/Intake")["RUNSFLEET_FLEET"] for name in ("Blue", "Green")}
    assert len(names) == 2
    for name in ("Blue", "Green"):
        own = template.variables(f"{name}/Intake")["RUNSFLEET_FLEET"]
        (found,) = [
            s
            for s in template.statements(f"{name}/Dispatch")
            if s["Action"] == "ec2:TerminateInstances"
        ]
        assert found["Condition"]["StringEquals"]["aws:ResourceTag/runs-fleet:fleet"] == own
