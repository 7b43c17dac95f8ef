"""Queues, tables, functions, network and launch templates have the properties that matter."""

from __future__ import annotations

import json
import re

import pytest

from runsfleet_runtime.contract.tables import TTL_ATTRIBUTE
from runsfleet_runtime.contract.tags import Tag
from tests.infrastructure.templates import Template, construct_path, flat

# logical ids of what holds data or is known to others: a change replaces a user's table or URL
PINNED = {
    "FleetTablesJobs2EA60B4F": "AWS::DynamoDB::GlobalTable",
    "FleetTablesRunners8B094DFA": "AWS::DynamoDB::GlobalTable",
    "FleetTablesAudit73DE663B": "AWS::DynamoDB::GlobalTable",
    "FleetQueuesJobsBB12788A": "AWS::SQS::Queue",
    "FleetQueuesJobsDeadLetters6B9551D1": "AWS::SQS::Queue",
    "FleetQueuesTermination8A9E56EB": "AWS::SQS::Queue",
    "FleetQueuesTerminationDeadLetters4A0757E9": "AWS::SQS::Queue",
    "FleetRunnerCacheBucketD793F396": "AWS::S3::Bucket",
    "FleetIntakeApi6D16328A": "AWS::ApiGatewayV2::Api",
    "FleetInstancesRoleBBAC4BF6": "AWS::IAM::Role",
    "NetworkVpcFAC8F4A5": "AWS::EC2::VPC",
}


def test_logical_ids_of_what_holds_data(dev: Template) -> None:
    """What would lose data or its address by being replaced keeps its logical id."""
    assert {name: r["Type"] for name, r in dev.resources.items() if name in PINNED} == PINNED


@pytest.mark.parametrize(
    ("queue", "is_fifo"),
    [
        ("Queues/Jobs", True),
        ("Queues/Termination", False),
        ("Queues/Events", False),
        ("Queues/Housekeeping", False),
    ],
)
def test_dead_letter_queue_is_of_its_queues_type(dev: Template, queue: str, is_fifo: bool) -> None:
    """Each queue has a dead-letter queue of its own type after five deliveries."""
    source = dev.at(f"{queue}/Resource", "AWS::SQS::Queue")["Properties"]
    policy = source["RedrivePolicy"]
    dead = dev.resources[policy["deadLetterTargetArn"]["Fn::GetAtt"][0]]
    assert policy["maxReceiveCount"] == 5
    assert construct_path(dead).endswith("DeadLetters/Resource")
    assert source.get("FifoQueue", False) is is_fifo
    assert dead["Properties"].get("FifoQueue", False) is is_fifo


def test_queues_are_encrypted_and_kept_long(dev: Template) -> None:
    """Every queue is encrypted and refuses plain HTTP; all keep messages for 14 days but sweeps."""
    queues = dev.of_type("AWS::SQS::Queue")
    assert len(queues) == 8
    for queue in queues.values():
        assert queue["Properties"]["SqsManagedSseEnabled"] is True
        days = 1 if construct_path(queue).endswith("Queues/Housekeeping/Resource") else 14
        assert queue["Properties"]["MessageRetentionPeriod"] == days * 24 * 3600
    guarded = {
        policy["Properties"]["Queues"][0]["Ref"]
        for policy in dev.of_type("AWS::SQS::QueuePolicy").values()
        if any(
            s["Effect"] == "Deny" and s["Condition"]["Bool"] == {"aws:SecureTransport": "false"}
            for s in policy["Properties"]["PolicyDocument"]["Statement"]
        )
    }
    assert guarded == set(queues)


@pytest.mark.parametrize(
    ("function", "queue"),
    [
        ("Fleet/Dispatch", "Queues/Jobs"),
        ("Fleet/Termination", "Queues/Termination"),
        ("Fleet/Events", "Queues/Events"),
    ],
)
def test_messages_stay_hidden_longer_than_the_function_runs(
    dev: Template, function: str, queue: str
) -> None:
    """Timeout < lease of a claim < visibility, and batches answer for each message."""
    properties = dev.at(f"{function}/Function/Resource", "AWS::Lambda::Function")["Properties"]
    source = dev.at(f"{queue}/Resource", "AWS::SQS::Queue")["Properties"]
    lease = int(dev.variables("Fleet/Dispatch")["RUNSFLEET_CLAIM_LEASE_SECONDS"])
    assert properties["Timeout"] < lease < source["VisibilityTimeout"]
    mapping = dev.at(function, "AWS::Lambda::EventSourceMapping")["Properties"]
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["BatchSize"] == 10
    assert mapping["ScalingConfig"] == {"MaximumConcurrency": 5}


def test_tables_bill_on_demand_and_expire(dev: Template) -> None:
    """All tables are on demand; all but the counters name the contract's one TTL attribute."""
    tables = dev.of_type("AWS::DynamoDB::GlobalTable")
    assert len(tables) == 7
    for table in tables.values():
        properties = table["Properties"]
        assert properties["BillingMode"] == "PAY_PER_REQUEST"
        ttl = {"AttributeName": TTL_ATTRIBUTE, "Enabled": True}
        counts = construct_path(table).endswith("Tables/Slots/Resource")
        assert properties.get("TimeToLiveSpecification") == (None if counts else ttl)


def test_data_is_kept_unless_told_otherwise(dev: Template, library: Template) -> None:
    """The default keeps jobs, audit rows and the cache, and restores the tables; dev does not."""
    for template, policy, recovery in ((library, "Retain", True), (dev, "Delete", False)):
        for name in ("Jobs", "Audit"):
            table = template.at(f"Tables/{name}/Resource", "AWS::DynamoDB::GlobalTable")
            assert table["DeletionPolicy"] == table["UpdateReplacePolicy"] == policy
            (replica,) = table["Properties"]["Replicas"]
            found = replica["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"]
            assert found is recovery
        bucket = template.only("AWS::S3::Bucket")
        assert bucket["DeletionPolicy"] == policy


def test_cache_bucket_is_private_and_forgets(dev: Template) -> None:
    """The cache bucket is private, encrypted, TLS only, and drops what is of no use any more."""
    properties = dev.only("AWS::S3::Bucket")["Properties"]
    assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}
    assert "BucketEncryption" in properties
    rules = properties["LifecycleConfiguration"]["Rules"]
    days = {rule["Prefix"]: rule["ExpirationInDays"] for rule in rules if "Prefix" in rule}
    assert days == {"runners/": 30, "reports/": 30, "jobs/": 400, "cost/": 400}
    statements = dev.only("AWS::S3::BucketPolicy")["Properties"]["PolicyDocument"]["Statement"]
    assert any(s["Effect"] == "Deny" for s in statements)


def test_instances_are_hardened(dev: Template) -> None:
    """Each launch template asks for IMDSv2, encrypts its volume and ends what shuts down."""
    templates = dev.of_type("AWS::EC2::LaunchTemplate")
    assert len(templates) == 3
    for template in templates.values():
        data = template["Properties"]["LaunchTemplateData"]
        assert data["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
        (device,) = data["BlockDeviceMappings"]
        assert device["Ebs"]["Encrypted"] is True
        assert device["Ebs"]["VolumeType"] == "gp3"
        assert device["Ebs"]["DeleteOnTermination"] is True
        assert data["InstanceInitiatedShutdownBehavior"] == "terminate"
        for specification in data["TagSpecifications"]:
            tags = {tag["Key"]: tag["Value"] for tag in specification["Tags"]}
            assert tags[Tag.MANAGED] == "true"
            assert tags[Tag.FLEET] == "dev"


@pytest.mark.parametrize(
    ("platform", "image", "size"),
    [
        ("LinuxArm64", "canonical/ubuntu/server/24.04/stable/current/arm64/hvm/ebs-gp3/ami-id", 30),
        ("LinuxX64", "canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id", 30),
        ("WindowsX64", "ami-windows-latest/Windows_Server-2022-English-Full-Base", 50),
    ],
)
def test_each_platform_has_its_image_and_room_for_it(
    dev: Template, platform: str, image: str, size: int
) -> None:
    """The newest image is found at launch, and the root volume is large enough for it."""
    template = dev.at(f"Instances/{platform}/Resource", "AWS::EC2::LaunchTemplate")
    data = template["Properties"]["LaunchTemplateData"]
    assert data["ImageId"] == f"resolve:ssm:/aws/service/{image}"
    (device,) = data["BlockDeviceMappings"]
    assert (device["DeviceName"], device["Ebs"]["VolumeSize"]) == ("/dev/sda1", size)
    script = flat(data["UserData"])
    assert script.startswith("<powershell>" if platform == "WindowsX64" else "#!/bin/bash")


def test_labels_may_ask_for_what_has_a_template(dev: Template) -> None:
    """The webhook accepts the platforms that dispatch has a launch template for, and no others."""
    for function in ("Fleet/Intake", "Fleet/Dispatch"):
        platforms = json.loads(dev.variables(function)["RUNSFLEET_PLATFORMS"])
        assert platforms == ["linux-arm64", "linux-x64", "windows-x64"]


def test_nothing_comes_in(dev: Template) -> None:
    """The instances' security group lets everything out and has no way in."""
    properties = dev.only("AWS::EC2::SecurityGroup")["Properties"]
    assert "SecurityGroupIngress" not in properties
    assert not dev.of_type("AWS::EC2::SecurityGroupIngress")
    (egress,) = properties["SecurityGroupEgress"]
    assert egress["CidrIp"] == "0.0.0.0/0"


def test_network_is_public_and_without_nat(dev: Template, library: Template) -> None:
    """Three zones where the region is known, else two; gateway endpoints and no NAT."""
    for template, zones in ((dev, 3), (library, 2)):
        subnets = template.of_type("AWS::EC2::Subnet").values()
        assert len(subnets) == zones
        assert all(s["Properties"]["MapPublicIpOnLaunch"] for s in subnets)
        assert not template.of_type("AWS::EC2::NatGateway")
        endpoints = template.of_type("AWS::EC2::VPCEndpoint").values()
        assert {e["Properties"]["VpcEndpointType"] for e in endpoints} == {"Gateway"}
        services = {flat(e["Properties"]["ServiceName"]).split(".")[-1] for e in endpoints}
        assert services == {"s3", "dynamodb"}


def test_endpoint_takes_posts_to_one_path(dev: Template) -> None:
    """Posts go to one path and health is asked at another; throttled, with an access log."""
    routes = dev.of_type("AWS::ApiGatewayV2::Route").values()
    keys = {route["Properties"]["RouteKey"] for route in routes}
    assert keys == {"POST /webhook", "GET /health"}
    stage = dev.only("AWS::ApiGatewayV2::Stage")["Properties"]
    assert stage["DefaultRouteSettings"]["ThrottlingBurstLimit"] >= 1000
    assert "AccessLogSettings" in stage
    assert flat(dev.body["Outputs"]["WebhookUrl"]["Value"]).endswith("/webhook")


def test_outputs_name_what_a_stranger_has_to_create(dev: Template) -> None:
    """The outputs tell the webhook's URL and the names of the two secrets."""
    outputs = {name: flat(output["Value"]) for name, output in dev.body["Outputs"].items()}
    assert outputs["GitHubAppSecret"] == "runsfleet/github-app"
    assert outputs["WebhookSecret"] == "runsfleet/github-app-webhook"
    assert outputs["FleetName"] == "dev"
    queues = {f"{name}QueueUrl" for name in ("Jobs", "Termination", "Events", "Housekeeping")}
    assert {*queues, "JobsTableName", "RunnersTableName"} <= set(outputs)


def test_logs_do_not_pile_up(dev: Template) -> None:
    """Every function writes to a group of its own that has a retention."""
    groups = dev.of_type("AWS::Logs::LogGroup")
    assert {group["Properties"]["RetentionInDays"] for group in groups.values()} == {7}
    used = {
        f["Properties"]["LoggingConfig"]["LogGroup"]["Ref"]
        for f in dev.of_type("AWS::Lambda::Function").values()
    }
    assert used < set(groups)
    assert len(used) == 5


def test_no_custom_resource_and_no_secret(dev: Template, parameters: Template) -> None:
    """Nothing runs at deployment, and no template makes a secret or holds one."""
    for template in (dev, parameters):
        types = {r["Type"] for r in template.resources.values()}
        assert not [t for t in types if t.startswith(("Custom::", "AWS::CloudFormation::Custom"))]
        assert "AWS::SecretsManager::Secret" not in types
        # the one parameter tells what the fleet is made of
        (parameter,) = template.of_type("AWS::SSM::Parameter").values()
        assert "HousekeepingInventory" in construct_path(parameter)
        assert not re.search(r"BEGIN [A-Z ]*PRIVATE KEY|ghs_|ghp_", str(template.body))


def test_parameter_store_needs_no_table(parameters: Template) -> None:
    """With the store in Parameter Store there is no table of configurations."""
    tables = parameters.of_type("AWS::DynamoDB::GlobalTable").values()
    assert not [t for t in tables if "Tables/Runners" in construct_path(t)]
    variables = parameters.variables("Fleet/Dispatch")
    assert variables["RUNSFLEET_CONFIG_STORE"] == "ssm"
    assert variables["RUNSFLEET_CONFIG_PARAMETER_PREFIX"] == "/runs-fleet/variant/runners"
    assert "RUNSFLEET_RUNNERS_TABLE" not in variables
