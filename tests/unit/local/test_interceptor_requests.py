"""Reading requests, shaping answers, keeping secrets out, finding calls again."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from multidict import CIMultiDict

from runsfleet_cli.local.interceptor.answers import error_answer, refusal_answer, throttle_answer
from runsfleet_cli.local.interceptor.aws_request import (
    Answer,
    AwsRequest,
    error_code,
    identify,
    unflatten,
)
from runsfleet_cli.local.interceptor.callers import (
    ANONYMOUS,
    ROOT,
    Caller,
    CallerBook,
    DeployedFunction,
    PeerProcesses,
    function_key,
)
from runsfleet_cli.local.interceptor.calls import Call, CallLog
from runsfleet_cli.local.interceptor.redact import MAX_STRING, REDACTED, redact


def _headers(service: str, key: str = "test", **more: str) -> CIMultiDict[str]:
    scope = f"{key}/20261120/eu-central-1/{service}/aws4_request"
    return CIMultiDict(
        {"Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, Signature=0"} | more
    )


def _request(service: str, action: str, protocol: str = "") -> AwsRequest:
    if protocol == "json":
        headers = _headers(service, **{"X-Amz-Target": f"X.{action}"})
        operation = identify("POST", "/", headers, b"{}")
    elif protocol == "cbor":
        headers = _headers(service)
        operation = identify("POST", f"/service/X/operation/{action}", headers, b"")
    else:
        headers = _headers(service, **{"Content-Type": "application/x-www-form-urlencoded"})
        body = urlencode({"Action": action, "Version": "1"}).encode()
        operation = identify("POST", "/", headers, body)
    return AwsRequest("POST", "/", headers, b"", operation, ROOT, 0.0)


def test_json_target_names_the_action() -> None:
    """A JSON request is known by its target; service, region and key by its signature."""
    headers = _headers("dynamodb", "AKIA1", **{"X-Amz-Target": "DynamoDB_20120810.GetItem"})
    operation = identify("POST", "/", headers, b'{"TableName": "t"}')
    assert (operation.service, operation.action) == ("dynamodb", "GetItem")
    assert (operation.region, operation.access_key) == ("eu-central-1", "AKIA1")
    assert operation.parameters == {"TableName": "t"}


def test_ec2_form_becomes_a_tree() -> None:
    """EC2's flat parameters become lists and objects."""
    form = {"Action": "CreateFleet", "Version": "2016-11-15", "Type": "instant"}
    form |= {f"LaunchTemplateConfigs.1.Overrides.{n}.InstanceType": f"t{n}" for n in range(1, 12)}
    headers = _headers("ec2", **{"Content-Type": "application/x-www-form-urlencoded"})
    operation = identify("POST", "/", headers, urlencode(form).encode())
    assert operation.protocol == "ec2"
    overrides = operation.parameters["LaunchTemplateConfigs"][0]["Overrides"]
    assert [item["InstanceType"] for item in overrides] == [f"t{n}" for n in range(1, 12)]


def test_query_members_become_lists() -> None:
    """The `member` level of query protocols disappears."""
    assert unflatten({"StackNames.member.1": "a", "StackNames.member.2": "b"}) == {
        "StackNames": ["a", "b"]
    }


@pytest.mark.parametrize(
    ("line", "more", "action", "parameters"),
    [
        ("s3 PUT /bucket/a/b%20c", {}, "PutObject", {"Bucket": "bucket", "Key": "a/b c"}),
        ("s3 PUT /b/k", {"x-amz-copy-source": "/b/x"}, "CopyObject", {"Key": "k"}),
        ("s3 GET /bucket?versioning", {}, "GetBucketVersioning", {"Bucket": "bucket"}),
        ("s3 GET /", {}, "ListBuckets", {}),
        (
            "lambda POST /2015-03-31/functions/f/invocations",
            {},
            "Invoke",
            {"FunctionName": "f"},
        ),
        ("apigateway GET /v2/apis/a1", {}, "GetApi", {"ApiId": "a1"}),
        ("scheduler GET /schedules/s", {}, "GetSchedule", {"Name": "s"}),
    ],
)
def test_rest_requests_are_known_by_method_and_path(
    line: str, more: dict[str, str], action: str, parameters: dict[str, str]
) -> None:
    """REST operations are found in botocore's own models, path parameters with them."""
    service, method, target = line.split(" ", 2)
    operation = identify(method, target, _headers(service, **more), b"")
    assert operation.action == action
    assert parameters.items() <= operation.parameters.items()


def test_cloudwatch_in_cbor() -> None:
    """A CBOR request is named by its path, and its parameters are read."""
    body = b"\xa1\x69Namespace\x61n"
    path = "/service/GraniteServiceVersion20100801/operation/PutMetricData"
    operation = identify("POST", path, _headers("monitoring"), body)
    assert (operation.service, operation.action) == ("cloudwatch", "PutMetricData")
    assert operation.parameters == {"Namespace": "n"}


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("/_aws/execute-api/a1b2/%24default/webhook", "x"),
        ("/webhook", "a1b2.execute-api.localhost"),
    ],
)
def test_http_api_traffic_is_named_by_its_route(target: str, host: str) -> None:
    """An HTTP API's own traffic is recorded as `POST /webhook` of execute-api."""
    operation = identify("POST", target, CIMultiDict({"Host": host}), b"{}")
    assert (operation.service, operation.action) == ("execute-api", "POST /webhook")
    assert operation.parameters["ApiId"] == "a1b2"


def test_presigned_requests_are_known_by_their_query() -> None:
    """The credential of a presigned URL counts as one."""
    scope = "AKIA9%2F20261120%2Feu-west-1%2Fs3%2Faws4_request"
    operation = identify("GET", f"/b/k?X-Amz-Credential={scope}&X-Amz-Date=1", CIMultiDict(), b"")
    assert (operation.access_key, operation.region) == ("AKIA9", "eu-west-1")
    assert operation.action == "GetObject"


@pytest.mark.parametrize(
    ("request_", "needle"),
    [
        (_request("ec2", "RunInstances"), b"<Response><Errors><Error><Code>Boom</Code>"),
        (_request("sts", "GetCallerIdentity"), b"<ErrorResponse><Error><Type>Sender</Type>"),
        (_request("dynamodb", "GetItem", "json"), b'"__type": "Boom"'),
        (_request("cloudwatch", "PutMetricData", "cbor"), b"\xa2\x66__type\x64Boom"),
    ],
)
def test_errors_have_the_protocols_shape(request_: AwsRequest, needle: bytes) -> None:
    """An error looks as the client's protocol wants it, and its code is found again."""
    answer = error_answer(request_, "Boom", 400, "it <broke>")
    assert needle in answer.body
    assert error_code(answer) == "Boom"


def test_throttle_and_refusal_differ_by_service() -> None:
    """EC2 says RequestLimitExceeded with 503 where others say ThrottlingException with 400."""
    ec2, dynamodb = _request("ec2", "RunInstances"), _request("dynamodb", "GetItem", "json")
    assert (throttle_answer(ec2).status, error_code(throttle_answer(ec2))) == (
        503,
        "RequestLimitExceeded",
    )
    assert error_code(throttle_answer(dynamodb)) == "ThrottlingException"
    assert error_code(refusal_answer(ec2)) == "UnauthorizedOperation"
    assert error_code(refusal_answer(dynamodb)) == "AccessDeniedException"


def test_redaction_reaches_into_items_and_message_bodies() -> None:
    """Secrets are replaced by name at any depth, in JSON text too; ids and ARNs stay."""
    item = {"Item": {"jit_config": {"S": "abc"}, "job_id": {"S": "1"}}, "SecretId": "arn:x"}
    cleaned = redact("dynamodb", "PutItem", item)
    assert cleaned["Item"] == {"jit_config": REDACTED, "job_id": {"S": "1"}}
    assert cleaned["SecretId"] == "arn:x"
    body = json.dumps({"token": "t", "job": 1})
    sent = redact("sqs", "SendMessage", {"MessageBody": body})
    assert json.loads(sent["MessageBody"]) == {"token": REDACTED, "job": 1}
    assert redact("ssm", "PutParameter", {"Name": "n", "Value": "v"})["Value"] == REDACTED


def test_tokens_and_keys_are_known_by_their_look() -> None:
    """GitHub tokens and private keys are cut out of any text; long text is cut short."""
    key = "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----"
    cleaned = redact("x", "Y", {"a": f"see ghs_{'a' * 40} and {key}.", "b": "x" * 9_000})
    assert cleaned["a"] == f"see {REDACTED} and {REDACTED}."
    assert cleaned["b"].startswith("x" * MAX_STRING)
    assert cleaned["b"].endswith("(9000 characters)")


def _book(functions: list[DeployedFunction]) -> CallerBook:
    async def list_functions(region: str) -> list[DeployedFunction]:
        assert region == "eu-central-1"
        return functions

    return CallerBook(list_functions)


def test_a_functions_key_tells_its_name() -> None:
    """Under enforcement a function is known by the key that the emulator derives for it."""
    function = DeployedFunction("dispatch", "arn:aws:lambda:r:1:function:dispatch", "arn:r/role")
    access_key, key = function_key(function)
    book = _book([function])
    caller = asyncio.run(book.resolve(access_key, "eu-central-1", lambda: None, 10.0))
    assert str(caller) == "function:dispatch"
    assert caller.role == "role"
    assert book.key(access_key) == key


def test_callers_without_a_key_of_their_own() -> None:
    """The account's key is the operator's, or that of the process at the other end."""
    book = _book([])
    peer = Caller("function", "webhook")

    def resolve(key: str, who: Caller | None = None) -> Caller:
        return asyncio.run(book.resolve(key, "eu-central-1", lambda: who, 10.0))

    assert resolve("") == ANONYMOUS
    assert resolve("test", peer) == ROOT
    assert resolve("123456789012") == ROOT
    assert resolve("123456789012", peer) == peer
    assert resolve("ASIAUNKNOWN").kind == "unknown"


def test_keys_of_assumed_roles_are_learned() -> None:
    """Who assumes a role as `i-...` is an instance; as anything else, a role's session."""
    book = _book([])
    request = _request("sts", "AssumeRole")
    for session, expected in (
        ("i-0123456789abcdef0", "instance:i-0123456789abcdef0"),
        ("cdk", "role:runner/cdk"),
    ):
        answer = Answer(
            200,
            CIMultiDict(),
            f"<R><Credentials><AccessKeyId>ASIA{session}</AccessKeyId>"
            "<SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken></Credentials>"
            f"<AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/runner/{session}</Arn>"
            f"<AssumedRoleId>AROA1:{session}</AssumedRoleId></AssumedRoleUser></R>".encode(),
        )
        book.learn(request, answer)
        caller = asyncio.run(book.resolve(f"ASIA{session}", "eu-central-1", lambda: None, 1.0))
        assert str(caller) == expected
        assert caller.user_id == f"AROA1:{session}"


def test_a_connections_process_tells_the_function(tmp_path: Path) -> None:
    """The function is found by connection, process group and environment, as Linux shows them."""
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text(
        "head\n 0: 0100007F:1F90 0100007F:1194 01 0:0 0:0 0 0 0 4242 1\n"
    )
    process = tmp_path / "77"
    (process / "fd").mkdir(parents=True)
    (process / "fd" / "5").symlink_to("socket:[4242]")
    (process / "stat").write_text("77 (a b) S) S 1 70 70 0")
    (process / "environ").write_bytes(b"A=1\0AWS_LAMBDA_FUNCTION_NAME=webhook\0")
    peers = PeerProcesses(tmp_path)
    assert peers.caller(70, 0x1F90, 0x1194) == Caller("function", "webhook")
    assert peers.caller(71, 0x1F90, 0x1194) is None
    assert peers.caller(70, 1, 0x1194) is None
    assert PeerProcesses(tmp_path / "none").caller(70, 1, 2) is None


def _call(log: CallLog, service: str, action: str, **more: Any) -> Call:
    call = Call(
        sequence=log.next_sequence(),
        time=1_795_000_000.5,
        duration=0.1,
        caller=more.pop("caller", "root"),
        service=service,
        action=action,
        region="r",
        parameters={},
        status=200,
        outcome=more.pop("outcome", "ok"),
        **more,
    )
    log.add(call)
    return call


def test_record_is_queried_by_pattern_and_kept_as_lines(tmp_path: Path) -> None:
    """Calls are found by patterns and by what came since; the file has one line for each."""
    file = tmp_path / "sub" / "calls.jsonl"
    log = CallLog(file)
    first = _call(log, "sqs", "SendMessage", caller="function:webhook")
    second = _call(log, "ec2", "CreateFleet", outcome="fault", fault="f")
    _call(log, "sqs", "ReceiveMessage")
    assert log.query(service="sqs", action="Send*", caller="function:*") == [first]
    assert log.query(outcome="fault") == [second]
    assert [call.action for call in log.query(since=1, service="s*")] == ["ReceiveMessage"]
    assert log.query(limit=1)[0].action == "ReceiveMessage"
    assert log.query(limit=0) == []
    log.close()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["action"] for line in lines] == ["SendMessage", "CreateFleet", "ReceiveMessage"]
    assert lines[1]["fault"] == "f"
    assert lines[0]["at"].endswith("+00:00")


def test_record_can_be_waited_for_and_followed() -> None:
    """A listener hears of each call until it leaves; a waiter gets the first that fits."""

    async def scenario() -> None:
        log = CallLog(size=2)
        heard: list[str] = []
        leave = log.subscribe(lambda call: heard.append(call.action))
        waiter = asyncio.create_task(log.wait_for(lambda call: call.action == "b", 5))
        await asyncio.sleep(0)
        _call(log, "x", "a")
        _call(log, "x", "b")
        assert (await waiter).action == "b"
        leave()
        _call(log, "x", "c")
        assert heard == ["a", "b"]
        assert [call.action for call in log.query()] == ["b", "c"]
        with pytest.raises(TimeoutError):
            await log.wait_for(lambda call: call.action == "never", 0.01)

    asyncio.run(scenario())
