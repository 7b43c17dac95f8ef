"""Templates made deployable, conditions kept, small services' limits, certificates."""

from __future__ import annotations

import asyncio
import json
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest
from multidict import CIMultiDict

from runsfleet_cli.local.deploy import (
    AwsTarget,
    DeployedResource,
    DeployError,
    Deployment,
    find_cdk,
)
from runsfleet_cli.local.emulator import (
    EmulatorError,
    emulator_environment_directory,
    find_emulator_python,
)
from runsfleet_cli.local.emulator_gaps.conditions import ConditionsKept, move_conditions
from runsfleet_cli.local.emulator_gaps.parameters import (
    PublicParameters,
    StandardParametersAreSmall,
)
from runsfleet_cli.local.emulator_gaps.references import DeployedNames
from runsfleet_cli.local.emulator_gaps.sqs import FifoDelayRefused
from runsfleet_cli.local.emulator_gaps.templates import adapt_assembly, adapt_template
from runsfleet_cli.local.interceptor import Interceptor
from runsfleet_cli.local.interceptor.aws_request import (
    Answer,
    AwsRequest,
    Operation,
    error_code,
)
from runsfleet_cli.local.interceptor.backend import Backend
from runsfleet_cli.local.interceptor.callers import ROOT, Caller
from runsfleet_cli.local.tls import create_tls_files

MINE, OTHER = "i-0123456789abcdef0", "i-0123456789abcdef1"


class FakeBackend(Backend):
    """An emulator that knows one table and the tags of instances."""

    def __init__(self, tags: dict[str, dict[str, str]]) -> None:
        super().__init__("eu-1")
        self._tags = tags

    async def ask(
        self,
        service: str,
        action: str,
        parameters: Any,
        **more: str,
    ) -> Answer:
        """Answer DescribeTags, DescribeTable and GetParameter."""
        assert service or more
        if action == "DescribeTable":
            body = json.dumps(
                {"Table": {"KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}]}}
            )
            return Answer(200, CIMultiDict(), body.encode())
        if action == "GetParameter":
            return Answer(400, CIMultiDict(), b'{"__type": "ParameterNotFound"}')
        resource = parameters["Filter.1.Value.1"]
        items = "".join(
            f"<item><resourceId>{resource}</resourceId><key>{k}</key><value>{v}</value></item>"
            for k, v in self._tags.get(resource, {}).items()
        )
        return Answer(200, CIMultiDict(), f"<r><tagSet>{items}</tagSet></r>".encode())


async def _accepted(request: AwsRequest) -> Answer:
    return Answer(200, CIMultiDict(), json.dumps({"got": request.parameters}).encode())


def _call(service: str, action: str, caller: Caller = ROOT, **parameters: Any) -> AwsRequest:
    protocol: Literal["ec2", "json"] = "ec2" if service == "ec2" else "json"
    operation = Operation(service, action, "eu-1", "test", protocol, parameters)
    body = json.dumps(parameters).encode()
    return AwsRequest("POST", "/", CIMultiDict(), body, operation, caller, 0.0)


def _policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {
        "Resources": {
            "Policy": {
                "Type": "AWS::IAM::Policy",
                "Properties": {
                    "PolicyDocument": {"Statement": list(statements)},
                    "Roles": [{"Ref": "Role"}],
                },
            }
        }
    }


def _allow(actions: list[str], resource: Any, condition: dict[str, Any]) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Action": actions, "Resource": resource}
    return statement | ({"Condition": condition} if condition else {})


def _kept(tags: dict[str, dict[str, str]], *statements: dict[str, Any]) -> ConditionsKept:
    gap = ConditionsKept(FakeBackend(tags))
    grants = move_conditions(_policy(*statements), "s", [])
    names = DeployedNames(
        Deployment(
            {},
            (
                DeployedResource("s", "Role", "role-1", "AWS::IAM::Role", ""),
                DeployedResource("s", "Table", "rows", "AWS::DynamoDB::Table", ""),
            ),
        ),
        "123456789012",
        "eu-1",
    )
    gap.keep(grants, names)
    return gap


def _verdict(gap: ConditionsKept, request: AwsRequest) -> bool | None:
    """True: allowed, False: refused, None: left to the emulator."""
    if not gap.wants(request):
        return None
    return asyncio.run(gap.answer(request, _accepted)).ok


FUNCTION = Caller("function", "f", "role-1", "role-1:f")
INSTANCE = Caller("instance", MINE, "role-1", f"AROA:{MINE}")


def test_termination_needs_the_tag() -> None:
    """A statement conditioned on a tag allows tagged instances, all of those named, only."""
    gap = _kept(
        {MINE: {"fleet": "a"}},
        _allow(
            ["ec2:TerminateInstances"],
            "arn:aws:ec2:eu-1:123456789012:instance/*",
            {"StringEquals": {"aws:ResourceTag/fleet": "a"}},
        ),
    )
    end = "TerminateInstances"
    assert _verdict(gap, _call("ec2", end, FUNCTION, InstanceId=[MINE])) is True
    assert _verdict(gap, _call("ec2", end, FUNCTION, InstanceId=[MINE, OTHER])) is False
    assert _verdict(gap, _call("ec2", end, ROOT, InstanceId=[OTHER])) is None


def test_policy_variables_name_the_instance_itself() -> None:
    """`*:${ec2:InstanceID}` against `aws:userid` allows the calling instance only."""
    gap = _kept(
        {},
        _allow(
            ["ec2:TerminateInstances"], "*", {"StringLike": {"aws:userid": "*:${ec2:InstanceID}"}}
        ),
    )
    end = "TerminateInstances"
    assert _verdict(gap, _call("ec2", end, INSTANCE, InstanceId=[MINE])) is True
    assert _verdict(gap, _call("ec2", end, INSTANCE, InstanceId=[OTHER])) is False


@pytest.mark.parametrize(
    ("action", "parameters", "expected"),
    [
        ("GetItem", {"TableName": "rows", "Key": {"id": {"S": f"AROA:{MINE}"}}}, True),
        ("GetItem", {"TableName": "rows", "Key": {"id": {"S": "x"}}}, False),
        (
            "Query",
            {
                "TableName": "rows",
                "KeyConditionExpression": "id = :v",
                "ExpressionAttributeValues": {":v": {"S": "x"}},
            },
            False,
        ),
        ("BatchGetItem", {"RequestItems": {"rows": {"Keys": [{"id": {"S": "x"}}]}}}, False),
        (
            "TransactWriteItems",
            {"TransactItems": [{"Put": {"TableName": "rows", "Item": {"id": {"S": "x"}}}}]},
            False,
        ),
        ("GetItem", {"TableName": "others", "Key": {"id": {"S": f"AROA:{MINE}"}}}, False),
    ],
)
def test_leading_keys_are_the_callers_own(
    action: str,
    parameters: dict[str, Any],
    expected: bool,
) -> None:
    """An instance reads the row whose key is its own identity, in that table, and no other."""
    gap = _kept(
        {},
        _allow(
            ["dynamodb:*"],
            {"Fn::GetAtt": ["Table", "Arn"]},
            {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["${aws:userid}"]}},
        ),
    )
    assert _verdict(gap, _call("dynamodb", action, INSTANCE, **parameters)) is expected


def test_namespace_is_kept() -> None:
    """Metrics go to the namespace of the condition only."""
    gap = _kept(
        {},
        _allow(
            ["cloudwatch:PutMetricData"], "*", {"StringEquals": {"cloudwatch:namespace": "Mine"}}
        ),
    )
    assert _verdict(gap, _call("cloudwatch", "PutMetricData", FUNCTION, Namespace="Mine")) is True
    assert _verdict(gap, _call("cloudwatch", "PutMetricData", FUNCTION, Namespace="X")) is False


def _fleet_statements() -> list[dict[str, Any]]:
    def arn(kind: str) -> str:
        return f"arn:aws:ec2:eu-1:123456789012:{kind}/*"

    launch = ["ec2:CreateFleet", "ec2:RunInstances"]
    return [
        _allow(
            launch,
            [arn(one) for one in ("launch-template", "subnet", "fleet", "network-interface")],
            {},
        ),
        _allow(
            launch,
            [arn("instance"), arn("volume")],
            {"StringEquals": {"aws:RequestTag/fleet": "a"}},
        ),
        _allow(
            ["ec2:CreateTags"],
            [arn("instance"), arn("volume")],
            {"StringEquals": {"ec2:CreateAction": ["CreateFleet"]}},
        ),
    ]


def _fleet_call(tags: dict[str, str], kinds: tuple[str, ...]) -> AwsRequest:
    return _call(
        "ec2",
        "CreateFleet",
        FUNCTION,
        LaunchTemplateConfigs=[
            {
                "LaunchTemplateSpecification": {"LaunchTemplateId": "lt-1"},
                "Overrides": [{"SubnetId": "subnet-1"}],
            }
        ],
        TagSpecification=[
            {"ResourceType": kind, "Tag": [{"Key": k, "Value": v} for k, v in tags.items()]}
            for kind in kinds
        ],
    )


def test_a_fleet_needs_every_resource_and_its_tags() -> None:
    """A launch is allowed with the tags that the policy wants, and refused without."""
    gap = _kept({}, *_fleet_statements())
    assert _verdict(gap, _fleet_call({"fleet": "a"}, ("instance", "volume"))) is True
    assert _verdict(gap, _fleet_call({"fleet": "b"}, ("instance", "volume"))) is False
    assert _verdict(gap, _fleet_call({"fleet": "a"}, ("instance",))) is False
    missing = _fleet_statements()
    missing[0]["Resource"].pop(1)
    assert (
        _verdict(_kept({}, *missing), _fleet_call({"fleet": "a"}, ("instance", "volume"))) is False
    )


def test_references_resolve_as_far_as_they_can() -> None:
    """What cannot be told is a `*` in a resource, in its place only, and unknown elsewhere."""
    role = DeployedResource("s", "Role", "role-1", "AWS::IAM::Role", "")
    names = DeployedNames(Deployment({}, (role,)), "123456789012", "eu-1")
    parts = ["arn:aws:ec2:", {"Ref": "AWS::Region"}, ":", {"Fn::GetAtt": ["Other", "GroupId"]}]
    joined = {"Fn::Join": ["", parts]}
    assert names.text("s", joined) is None
    assert names.pattern("s", joined) == "arn:aws:ec2:eu-1:*"
    assert names.text("s", {"Fn::GetAtt": ["Role", "Arn"]}) == (
        "arn:aws:iam::123456789012:role/role-1"
    )
    assert names.text("s", {"Fn::Sub": "${AWS::AccountId}/x"}) == "123456789012/x"
    assert names.text("other", {"Ref": "Role"}) is None


def test_tagging_later_is_refused_where_only_birth_is_allowed() -> None:
    """`ec2:CreateAction` does not hold for a CreateTags of its own."""
    gap = _kept({}, *_fleet_statements())
    tag = [{"Key": "fleet", "Value": "a"}]
    assert _verdict(gap, _call("ec2", "CreateTags", FUNCTION, ResourceId=[MINE], Tag=tag)) is False


def test_only_what_the_emulator_gets_wrong_leaves_the_policy() -> None:
    """EC2 calls are split off and freed; other statements and conditions stay as they are."""
    template = _policy(
        _allow(["ec2:CreateFleet", "ec2:DescribeInstances"], "arn:x", {}),
        _allow(["sqs:SendMessage"], "arn:q", {"StringEquals": {"aws:SourceAccount": "1"}}),
        {"Effect": "Deny", "Action": "*", "Resource": "*"},
    )
    notes: list[str] = []
    move_conditions(template, "s", notes)
    statements = template["Resources"]["Policy"]["Properties"]["PolicyDocument"]["Statement"]
    assert statements[0] == {"Effect": "Allow", "Action": ["ec2:CreateFleet"], "Resource": "*"}
    assert statements[1]["Action"] == ["ec2:DescribeInstances"]
    assert statements[1]["Resource"] == "arn:x"
    assert statements[2]["Condition"] == {"StringEquals": {"aws:SourceAccount": "1"}}
    assert statements[3]["Effect"] == "Deny"
    assert notes == []


def test_unknown_types_go_with_what_needs_them() -> None:
    """A rejected resource goes, with routes and outputs; lists only lose the entry."""
    body = {
        "Resources": {
            "Nat": {"Type": "AWS::EC2::NatGateway", "Properties": {}},
            "Route": {
                "Type": "AWS::EC2::Route",
                "Properties": {"NatGatewayId": {"Ref": "Nat"}, "RouteTableId": {"Ref": "Table"}},
            },
            "Table": {"Type": "AWS::EC2::RouteTable", "DependsOn": ["Nat", "Vpc"]},
            "Vpc": {"Type": "AWS::EC2::VPC", "DependsOn": "Nat"},
            "Alarm": {
                "Type": "AWS::CloudWatch::Alarm",
                "Properties": {"Metrics": [{"Expression": "a"}]},
            },
            "Dash": {
                "Type": "AWS::X::Y",
                "Properties": {
                    "Alarms": [{"Ref": "Alarm"}, {"Ref": "Vpc"}, {"Ref": "AWS::Region"}]
                },
            },
        },
        "Outputs": {"N": {"Value": {"Ref": "Nat"}}, "V": {"Value": {"Ref": "Vpc"}}},
    }
    adapted, _, notes = adapt_template(body, "s", {"Nat": "s/Vpc/Nat/Resource"})
    assert set(adapted["Resources"]) == {"Table", "Vpc", "Dash"}
    assert adapted["Resources"]["Table"]["DependsOn"] == ["Vpc"]
    assert "DependsOn" not in adapted["Resources"]["Vpc"]
    assert adapted["Resources"]["Dash"]["Properties"]["Alarms"] == [
        {"Ref": "Vpc"},
        {"Ref": "AWS::Region"},
    ]
    assert set(adapted["Outputs"]) == {"V"}
    assert any(note.startswith("left out s/Vpc/Nat (AWS::EC2::NatGateway)") for note in notes)
    assert any("left out output N" in note for note in notes)


def test_a_page_is_kept_when_an_alarm_on_it_is_not() -> None:
    """What is gone is named in words; what is there is referred to as before."""
    parts = ['{"widgets":["', {"Fn::GetAtt": ["Sum", "Arn"]}, '","', {"Ref": "Queue"}, '"]}']
    body: dict[str, Any] = {
        "Resources": {
            "Queue": {"Type": "AWS::SQS::Queue"},
            "Sum": {
                "Type": "AWS::CloudWatch::Alarm",
                "Properties": {"Metrics": [{"Expression": "a + b"}]},
            },
            "Page": {
                "Type": "AWS::CloudWatch::Dashboard",
                "Properties": {"DashboardBody": {"Fn::Join": ["", parts]}},
            },
        }
    }
    adapted, _, notes = adapt_template(body, "s", {"Page": "s/Page"})
    joined = adapted["Resources"]["Page"]["Properties"]["DashboardBody"]["Fn::Join"][1]
    assert joined == ['{"widgets":["', "left out: Sum", '","', {"Ref": "Queue"}, '"]}']
    assert any(note.startswith("changed s/Page: no state of") for note in notes)


def test_ref_of_a_secret_is_its_arn() -> None:
    """Where CloudFormation's `Ref` means the ARN, the emulator is asked for the ARN."""
    body = {
        "Resources": {
            "Secret": {"Type": "AWS::SecretsManager::Secret", "Properties": {}},
            "Other": {
                "Type": "AWS::X::Y",
                "Properties": {"A": {"Fn::Join": ["", [{"Ref": "Secret"}]]}},
            },
        }
    }
    adapted, _, _ = adapt_template(body, "s")
    joined = adapted["Resources"]["Other"]["Properties"]["A"]["Fn::Join"][1]
    assert joined == [{"Fn::GetAtt": ["Secret", "Id"]}]


def test_assembly_is_copied_with_nested_stages(tmp_path: Path) -> None:
    """The original stays as it is; templates of nested stages are adapted too."""
    source = tmp_path / "cdk.out"
    stage = source / "assembly-dev"
    stage.mkdir(parents=True)
    template = {"Resources": {"Nat": {"Type": "AWS::EC2::NatGateway"}}}
    (stage / "dev.template.json").write_text(json.dumps(template))
    (stage / "manifest.json").write_text(
        json.dumps(
            {
                "artifacts": {
                    "dev": {
                        "type": "aws:cloudformation:stack",
                        "properties": {"templateFile": "dev.template.json"},
                        "metadata": {
                            "/dev/Nat/Resource": [{"type": "aws:cdk:logicalId", "data": "Nat"}]
                        },
                    }
                }
            }
        )
    )
    nested = {"type": "cdk:cloud-assembly", "properties": {"directoryName": "assembly-dev"}}
    (source / "manifest.json").write_text(json.dumps({"artifacts": {"assembly-dev": nested}}))
    adapted = adapt_assembly(source, tmp_path / "copy")
    assert adapted.notes == (
        "left out dev/Nat (AWS::EC2::NatGateway): the emulator does not know this type",
    )
    copied = adapted.directory / "assembly-dev" / "dev.template.json"
    assert json.loads(copied.read_text()) == {"Resources": {}}
    assert json.loads((stage / "dev.template.json").read_text()) == template


def test_large_parameters_need_a_tier() -> None:
    """4,096 bytes fit a standard parameter, 8,192 an advanced one; more fits none."""
    gap = StandardParametersAreSmall()

    def verdict(**parameters: Any) -> bool:
        request = _call("ssm", "PutParameter", **parameters)
        assert gap.wants(request)
        return asyncio.run(gap.answer(request, _accepted)).ok

    assert verdict(Value="x" * 4_096)
    assert not verdict(Value="x" * 4_097)
    assert verdict(Value="x" * 8_192, Tier="Advanced")
    assert not verdict(Value="x" * 8_193, Tier="Advanced")


def test_public_images_have_a_stand_in() -> None:
    """An image parameter that the emulator lacks resolves to a stable, well-formed id."""
    gap = PublicParameters(FakeBackend({}))
    name = "/aws/service/canonical/ubuntu/server/24.04/stable/current/arm64/hvm/ebs-gp3/ami-id"

    async def missing(request: AwsRequest) -> Answer:
        return Answer(
            400, CIMultiDict(), f'{{"__type":"ParameterNotFound {request.action}"}}'.encode()
        )

    request = _call("ssm", "GetParameter", Name=name)
    assert gap.wants(request)
    value = json.loads(asyncio.run(gap.answer(request, missing)).body)["Parameter"]["Value"]
    assert value == asyncio.run(gap.resolve(name, "eu-1"))
    assert value.startswith("ami-")
    assert asyncio.run(gap.resolve("/mine", "eu-1")) == ""
    assert not gap.wants(_call("ssm", "GetParameter", Name="/mine"))


def test_fifo_messages_are_not_delayed_one_by_one() -> None:
    """DelaySeconds on a FIFO queue fails the message; the others of a batch are sent."""
    gap = FifoDelayRefused(Interceptor(region="eu-1"))
    url = "http://localhost/1/jobs.fifo"
    single = _call("sqs", "SendMessage", QueueUrl=url, DelaySeconds=5)
    assert gap.wants(single)
    assert error_code(asyncio.run(gap.answer(single, _accepted))) == "InvalidParameterValue"
    assert not gap.wants(_call("sqs", "SendMessage", QueueUrl="http://x/q", DelaySeconds=5))
    entries = [{"Id": "a", "DelaySeconds": 1}, {"Id": "b"}]
    batch = _call("sqs", "SendMessageBatch", QueueUrl=url, Entries=entries)
    sent: list[AwsRequest] = []

    async def forward(request: AwsRequest) -> Answer:
        sent.append(request)
        return Answer(200, CIMultiDict(), b'{"Successful": [{"Id": "b"}]}')

    answer = json.loads(asyncio.run(gap.answer(batch, forward)).body)
    assert json.loads(sent[0].body or b"")["Entries"] == [{"Id": "b"}]
    assert [item["Id"] for item in answer["Failed"]] == ["a"]
    assert [item["Id"] for item in answer["Successful"]] == ["b"]


def test_certificates_hold_for_the_local_names(tmp_path: Path) -> None:
    """A client that trusts the run's authority completes a handshake for each local name."""
    files = create_tls_files(tmp_path, now=datetime.now(UTC))
    assert files.key.stat().st_mode & 0o077 == 0
    assert files.ca.read_bytes() in files.bundle.read_bytes()
    assert set(files.client_environment()) >= {"AWS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"}
    for name in ("localhost", "127.0.0.1", "abc.execute-api.localhost"):
        to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = files.server_context().wrap_bio(to_server, to_client, server_side=True)
        client = files.client_context().wrap_bio(to_client, to_server, server_hostname=name)
        for _ in range(4):
            for side in (client, server):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        assert client.version() is not None


def test_deployment_is_searched_by_type_and_path() -> None:
    """Outputs and physical names are found by prefix and path; ambiguity names the candidates."""
    deployment = Deployment(
        {"s": {"WebhookUrl1A2B": "u"}},
        tuple(
            DeployedResource("s", f"L{one}", f"p{one}", "AWS::SQS::Queue", f"s/{one}/Resource")
            for one in ("Jobs", "Events")
        ),
    )
    assert deployment.output("WebhookUrl") == "u"
    assert deployment.one("AWS::SQS::Queue", "Jobs") == "pJobs"
    with pytest.raises(KeyError, match="s/Jobs/Resource"):
        deployment.one("AWS::SQS::Queue")
    with pytest.raises(KeyError, match="WebhookUrl1A2B"):
        deployment.output("Nothing")


def test_api_urls_become_local() -> None:
    """An HTTP API's URL is reached by path, as `*.localhost` does not resolve everywhere."""
    target = AwsTarget("http://127.0.0.1:1", "123456789012", "eu-1")
    expected = "http://127.0.0.1:1/_aws/execute-api/ab12/$default"
    assert target.http_api_url("https://ab12.execute-api.eu-1.amazonaws.com/hook") == (
        f"{expected}/hook"
    )
    assert target.http_api_url("http://ab12.execute-api.localhost:1") == f"{expected}/"
    assert target.http_api_url("https://example.com/x") == "https://example.com/x"


def test_tools_are_found_or_said_to_be_missing(tmp_path: Path) -> None:
    """The emulator's python and the CDK are looked up in order; what is missing says its cure."""
    assert find_emulator_python(tmp_path, {}) is None
    with pytest.raises(EmulatorError, match="is not a file"):
        find_emulator_python(tmp_path, {"RUNSFLEET_EMULATOR_PYTHON": str(tmp_path / "none")})
    python = tmp_path / ".venv-emulator" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert find_emulator_python(tmp_path, {}) == python
    with pytest.raises(DeployError, match="npm ci"):
        find_cdk(tmp_path, {"PATH": str(tmp_path)})
    lock = tmp_path / "a.lock"
    lock.write_text("x")
    first = emulator_environment_directory(tmp_path, lock)
    lock.write_text("y")
    assert first != emulator_environment_directory(tmp_path, lock)


def test_who_may_write_to_a_log_group_may_write_to_it_in_the_emulator() -> None:
    """MiniStack compares with the group's ARN without the `:*` that AWS's has."""
    statement = {
        "Effect": "Allow",
        "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
        "Resource": {"Fn::GetAtt": ["Logs", "Arn"]},
    }
    template, _, _ = adapt_template(
        {
            "Resources": {
                "Logs": {"Type": "AWS::Logs::LogGroup", "Properties": {}},
                "Policy": {
                    "Type": "AWS::IAM::Policy",
                    "Properties": {"PolicyDocument": {"Statement": [statement]}},
                },
            }
        },
        "stack",
    )
    (adapted,) = template["Resources"]["Policy"]["Properties"]["PolicyDocument"]["Statement"]
    group = "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:${Logs}"
    assert adapted["Resource"] == [{"Fn::GetAtt": ["Logs", "Arn"]}, {"Fn::Sub": group}]
