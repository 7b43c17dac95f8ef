"""What an HTTP request means as an AWS call: service, action, region, parameters.

Pure: reads the signature's scope and the request's shape; verifies nothing, that is the
emulator's business. All protocols: EC2 and query (form), JSON (`X-Amz-Target`), CBOR
(`/service/.../operation/...`), REST (by botocore's models), and HTTP APIs' own traffic.
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, unquote

from multidict import CIMultiDict

from runsfleet_cli.local.interceptor.operations import match_operation

if TYPE_CHECKING:
    from runsfleet_cli.local.interceptor.callers import Caller

Protocol = Literal["ec2", "query", "json", "cbor", "rest-json", "rest-xml", "http"]

_CREDENTIAL = re.compile(r"Credential=([^/,\s]+)/\d+/([^/]*)/([^/]+)/aws4_request")
_QUERY_CREDENTIAL = re.compile(
    r"X-Amz-Credential=([^/&%]+)(?:/|%2F)\d+(?:/|%2F)([^/&%]*)(?:/|%2F)([^/&%]+)(?:/|%2F)",
    re.IGNORECASE,
)
_EXECUTE_API_HOST = re.compile(r"^([a-z0-9]+)\.execute-api\.")
_EXECUTE_API_PATH = re.compile(r"^/_aws/execute-api/([^/]+)/([^/]+)(/.*)?$")
_CBOR_PATH = re.compile(r"^/service/([^/]+)/operation/([^/]+)$")
_NAMES = {"monitoring": "cloudwatch"}
_REST_XML = frozenset({"s3", "s3control", "cloudfront", "route53"})
# target prefix -> service, for the requests that come unsigned
_TARGETS = {"AmazonSQS": "sqs", "AmazonSSM": "ssm", "DynamoDB_20120810": "dynamodb"}


@dataclass(frozen=True, slots=True)
class Operation:
    """What is asked for.

    Args:
        service: Signing name (`cloudwatch` for `monitoring`; `execute-api` for HTTP APIs).
        action: Operation name; for an HTTP API the method and its path.
        region: From the signature; empty when unsigned.
        access_key: From the signature; empty when unsigned.
        protocol: How an error has to be shaped.
        parameters: Parsed.
    """

    service: str
    action: str
    region: str
    access_key: str
    protocol: Protocol
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class AwsRequest:
    """A request on its way through the interceptor.

    Args:
        method: HTTP method.
        target: Raw path and query, byte for byte as the client sent it.
        headers: As sent.
        body: None while it is streamed (then nothing may read or change it).
        operation: What it means.
        caller: Who sent it.
        now: Unix time of arrival, seconds.
        notes: Results for the record (`Call.result`), set by whoever answers.
        context: What the fault rules tell the code that answers (see `faults.CAPACITY`).
    """

    method: str
    target: str
    headers: CIMultiDict[str]
    body: bytes | None
    operation: Operation
    caller: Caller
    now: float
    notes: dict[str, Any] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)

    @property
    def service(self) -> str:
        """Its service."""
        return self.operation.service

    @property
    def action(self) -> str:
        """Its action."""
        return self.operation.action

    @property
    def parameters(self) -> dict[str, Any]:
        """Its parameters, parsed."""
        return self.operation.parameters

    def is_call(self, service: str, *actions: str) -> bool:
        """Whether it is one of these operations."""
        return self.service == service and self.action in actions

    def with_body(self, body: bytes) -> AwsRequest:
        """The same request with another body (which has to be signed anew)."""
        headers = self.headers.copy()
        headers["Content-Length"] = str(len(body))
        return replace(self, body=body, headers=headers)


@dataclass(slots=True)
class Answer:
    """A complete response.

    Args:
        status: HTTP status.
        headers: Without hop-by-hop ones.
        body: Whole.
    """

    status: int
    headers: CIMultiDict[str]
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the status says success."""
        return self.status < 400  # noqa: PLR2004

    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")


def identify(method: str, target: str, headers: CIMultiDict[str], body: bytes | None) -> Operation:
    """Tell what a request asks for.

    Args:
        method: HTTP method.
        target: Raw path and query.
        headers: Any case.
        body: None if it is streamed; then parameters come from the path alone.
    """
    path, _, query = target.partition("?")
    access_key, region, service = _credential(headers.get("Authorization", ""), query)
    api = _http_api(method, path, headers.get("Host", ""))
    if api is not None:
        action, parameters = api
        return Operation("execute-api", action, region, access_key, "http", parameters)
    name = _NAMES.get(service, service)
    wire = headers.get("X-Amz-Target")
    if wire:
        prefix, _, action = wire.rpartition(".")
        service_name = name or _TARGETS.get(prefix, prefix.lower())
        return Operation(service_name, action, region, access_key, "json", _json(body))
    cbor = _CBOR_PATH.match(path)
    if cbor is not None:
        return Operation(name, cbor[2], region, access_key, "cbor", _cbor(body))
    form = _form(headers, body, query)
    if "Action" in form and "Version" in form:
        action = form.pop("Action")
        form.pop("Version")
        protocol: Protocol = "ec2" if service == "ec2" else "query"
        return Operation(name, action, region, access_key, protocol, unflatten(form))
    found = match_operation(service, method, path, query, headers) if service else None
    rest: Protocol = "rest-xml" if service in _REST_XML else "rest-json"
    if found is None:
        bare = {"path": path} if service else {}
        return Operation(name or "http", f"{method} {path}", region, access_key, rest, bare)
    action, parameters = found
    if rest == "rest-json":
        parameters |= _json(body)
    return Operation(name, action, region, access_key, rest, parameters)


def unflatten(form: dict[str, str]) -> dict[str, Any]:
    """Turn `A.1.B=x` into `{"A": [{"B": "x"}]}`, as EC2 and query parameters are meant.

    Example:
        >>> unflatten({"Tag.1.Key": "a", "Tag.2.Key": "b", "Type": "instant"})
        {'Tag': [{'Key': 'a'}, {'Key': 'b'}], 'Type': 'instant'}
    """
    tree: dict[str, Any] = {}
    for key, value in form.items():
        node = tree
        *parents, leaf = key.split(".")
        for parent in parents:
            child = node.setdefault(parent, {})
            if not isinstance(child, dict):
                break
            node = child
        else:
            node[leaf] = value
    return {key: _lists(value) for key, value in tree.items()}


def error_code(answer: Answer) -> str | None:
    """The AWS error code of an answer, or None where it has none."""
    if answer.ok:
        return None
    header = answer.headers.get("x-amzn-errortype") or answer.headers.get("x-amzn-query-error")
    if header:
        return re.split(r"[:;]", header)[0].rpartition("#")[2]
    text = answer.body[:4_096].decode("utf-8", "replace")
    found = re.search(r"<Code>([^<]+)</Code>", text)
    if found is not None:
        return found[1]
    found = re.search(r'"(?:__type|code)"\s*:\s*"([^"]+)"', text)
    return found[1].rpartition("#")[2] if found is not None else str(answer.status)


def _credential(authorization: str, query: str) -> tuple[str, str, str]:
    found = _CREDENTIAL.search(authorization) or (
        _QUERY_CREDENTIAL.search(query) if "X-Amz-Credential" in query else None
    )
    return (found[1], found[2], found[3]) if found is not None else ("", "", "")


def _http_api(method: str, path: str, host: str) -> tuple[str, dict[str, Any]] | None:
    by_path = _EXECUTE_API_PATH.match(path)
    if by_path is not None:
        return f"{method} {by_path[3] or '/'}", {"ApiId": by_path[1], "Stage": unquote(by_path[2])}
    by_host = _EXECUTE_API_HOST.match(host)
    return (f"{method} {path}", {"ApiId": by_host[1]}) if by_host is not None else None


def _json(body: bytes | None) -> dict[str, Any]:
    if not body:
        return {}
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _cbor(body: bytes | None) -> dict[str, Any]:
    if not body:
        return {}
    # imported late: parsing with it is rare, and it drags in the XML parsers
    from botocore.parsers import RpcV2CBORParser

    try:
        value = RpcV2CBORParser().parse_data_item(io.BytesIO(body))
    except (ValueError, KeyError, IndexError):
        return {}
    return value if isinstance(value, dict) else {}


def _form(headers: CIMultiDict[str], body: bytes | None, query: str) -> dict[str, str]:
    if headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded") and body:
        return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    if "Action=" in query:
        return dict(parse_qsl(query, keep_blank_values=True))
    return {}


def _lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value and all(key.isdigit() for key in value):
        return [_lists(value[key]) for key in sorted(value, key=int)]
    if value.keys() == {"member"}:
        return _lists(value["member"])
    return {key: _lists(item) for key, item in value.items()}
