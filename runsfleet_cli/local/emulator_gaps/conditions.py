"""IAM conditions that the emulator cannot evaluate, kept by the interceptor instead.

MiniStack 1.5.33 denies whatever is conditioned on a tag of an EC2 resource, on
`cloudwatch:namespace` or on a policy variable such as `${ec2:InstanceID}`, and it allows what
`ForAllValues` of `dynamodb:LeadingKeys` should deny. So `move_conditions` takes these conditions
out of the deployed copy of the policies and `ConditionsKept` checks them on each request, with the
physical names that the deployment gave. What a role may do without a moved condition stays with
the emulator alone.

Example:
    >>> grants = move_conditions(template, "dev-runsfleet", notes)
    >>> gap = ConditionsKept(interceptor.backend)
    >>> gap.keep(grants, resolver)
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from runsfleet_cli.local.interceptor.answers import refusal_answer

if TYPE_CHECKING:
    from runsfleet_cli.local.interceptor.aws_request import Answer, AwsRequest
    from runsfleet_cli.local.interceptor.backend import Backend
    from runsfleet_cli.local.interceptor.proxy import Forward

_EC2_VERSION = "2016-11-15"
_MOVED_KEYS = re.compile(
    r"^(ec2:resourcetag/|ec2:instanceid$|ec2:sourceinstancearn$|cloudwatch:namespace$"
    r"|dynamodb:leadingkeys$)",
    re.IGNORECASE,
)
_RESOURCE_TAG = re.compile(r"^(?:aws|ec2):resourcetag/(.+)$", re.IGNORECASE)
_VARIABLE = re.compile(r"\$\{([a-z0-9]+:[^}]+)\}", re.IGNORECASE)
# `${AWS::Region}` in an Fn::Sub is CloudFormation's, not a policy variable
_KEY_CONDITION = re.compile(r"^\s*\(?\s*([#\w.-]+)\s*=\s*(:\w+)")

Condition = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class PolicyGrant:
    """An `Allow` statement of a template, as far as the interceptor must know it.

    Args:
        stack: Name of the template.
        roles: References to roles, unresolved (`{"Ref": ...}` or names).
        actions: Patterns.
        resources: Unresolved.
        moved: The conditions taken out; empty if the statement had none of these.
    """

    stack: str
    roles: tuple[Any, ...]
    actions: tuple[str, ...]
    resources: tuple[Any, ...]
    moved: Condition


def move_conditions(
    template: dict[str, Any],
    stack: str,
    notes: list[str],
    label: Callable[[str], str] = str,
) -> list[PolicyGrant]:
    """Take the conditions that the emulator gets wrong out of a template's policies.

    Args:
        template: Changed in place.
        stack: Its name, for the grants.
        notes: One is added for each statement changed.
        label: How people know a logical id.

    Returns:
        All `Allow` statements of the roles concerned, with what was moved.
    """
    found: list[PolicyGrant] = []
    for logical_id, resource in template.get("Resources", {}).items():
        for document, roles in _documents(logical_id, resource):
            for statement in _listed(document.get("Statement", [])):
                if statement.get("Effect") != "Allow":
                    continue
                moved = _take_out(statement)
                if moved:
                    keys = sorted({key for block in moved.values() for key in block})
                    notes.append(
                        f"moved condition {', '.join(keys)} of {label(logical_id)} from the emulator to "
                        "the interceptor"
                    )
                found.append(
                    PolicyGrant(
                        stack,
                        tuple(roles),
                        tuple(_listed(statement.get("Action", []))),
                        tuple(_listed(statement.get("Resource", "*"))),
                        moved,
                    )
                )
    return found


@dataclass(frozen=True, slots=True)
class _Grant:
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    moved: Condition


Resolver = Callable[[str, Any], str | None]
"""(stack, template value) -> its deployed text, or None if that cannot be told."""


@dataclass(slots=True)
class ConditionsKept:
    """Refuses what a moved condition would have refused.

    Args:
        backend: Asked for tags of instances and keys of tables.
    """

    backend: Backend
    _grants: dict[str, list[_Grant]] = field(default_factory=dict)
    _partition_keys: dict[str, str] = field(default_factory=dict)

    def keep(self, grants: Iterable[PolicyGrant], resolve: Resolver) -> None:
        """Enforce these from now on.

        Args:
            grants: From `move_conditions`.
            resolve: Turns references into deployed names and ARNs.
        """
        for grant in grants:
            resources = tuple(
                _without_account(resolve(grant.stack, item) or "*") for item in grant.resources
            )
            moved = {
                operator: {
                    key: [
                        text
                        for item in _listed(values)
                        if (text := resolve(grant.stack, item)) is not None
                    ]
                    for key, values in block.items()
                }
                for operator, block in grant.moved.items()
            }
            for reference in grant.roles:
                role = resolve(grant.stack, reference)
                if role is not None:
                    name = role.rpartition("/")[2]
                    known = self._grants.setdefault(name, [])
                    known.append(_Grant(grant.actions, resources, moved))

    def wants(self, request: AwsRequest) -> bool:
        """Requests of a role of which a statement for this action lost a condition."""
        return any(
            grant.moved and _covers(grant, request)
            for grant in self._grants.get(request.caller.role, ())
        )

    async def answer(self, request: AwsRequest, forward: Forward) -> Answer:
        """Forward it if every resource is allowed by some statement."""
        grants = [
            grant for grant in self._grants.get(request.caller.role, ()) if _covers(grant, request)
        ]
        for arn in await self._resources(request):
            allowed = False
            for grant in grants:
                if arn != "*" and not any(fnmatchcase(arn, one) for one in grant.resources):
                    continue
                if await self._satisfied(grant.moved, request, arn):
                    allowed = True
                    break
            if not allowed:
                return refusal_answer(
                    request,
                    f"User: {request.caller} is not authorized to perform: "
                    f"{request.service}:{request.action} on resource: {arn} because no "
                    "identity-based policy allows the action under its conditions",
                )
        return await forward(request)

    async def _satisfied(self, condition: Condition, request: AwsRequest, arn: str) -> bool:
        for operator, block in condition.items():
            for key, patterns in block.items():
                actual = await self._value(key, request, arn)
                wanted = [_substituted(text, request, arn) for text in patterns]
                if not _holds(operator, actual, wanted):
                    return False
        return True

    async def _value(self, key: str, request: AwsRequest, arn: str) -> list[str]:
        lowered = key.lower()
        tag = _RESOURCE_TAG.match(key)
        if tag is not None:
            tags = await self._tags(arn.rpartition("/")[2], request.operation.region)
            return [tags[tag[1]]] if tag[1] in tags else []
        if lowered == "cloudwatch:namespace":
            return [str(request.parameters.get("Namespace", ""))]
        if lowered == "dynamodb:leadingkeys":
            return await self._leading_keys(request, arn.rpartition("/")[2])
        if lowered == "ec2:instanceid":
            return [arn.rpartition("/")[2]]
        if lowered == "ec2:sourceinstancearn":
            return [arn.rpartition("/")[0] + "/" + request.caller.name]
        if lowered == "aws:userid":
            return [request.caller.user_id]
        return []

    async def _tags(self, resource_id: str, region: str) -> dict[str, str]:
        answer = await self.backend.ask(
            "ec2",
            "DescribeTags",
            {"Filter.1.Name": "resource-id", "Filter.1.Value.1": resource_id},
            version=_EC2_VERSION,
            region=region,
        )
        if not answer.ok:
            return {}
        root = ET.fromstring(answer.body)  # noqa: S314  (the emulator's own)
        texts = [
            {leaf.tag.rpartition("}")[2]: leaf.text or "" for leaf in node}
            for node in root.iter()
            if node.tag.rpartition("}")[2] == "item"
        ]
        return {
            item["key"]: item.get("value", "")
            for item in texts
            if item.get("resourceId") == resource_id
        }

    async def _resources(self, request: AwsRequest) -> list[str]:
        parameters = request.parameters
        region = request.operation.region
        if request.service == "dynamodb":
            return [f"arn:aws:dynamodb:{region}::table/{name}" for name in _tables(parameters)]
        if request.service == "ec2" and "InstanceId" in parameters:
            ids = _listed(parameters["InstanceId"])
            return [f"arn:aws:ec2:{region}::instance/{one}" for one in ids]
        if request.service == "ec2" and "ResourceId" in parameters:
            return [
                f"arn:aws:ec2:{region}::{_ec2_kind(one)}/{one}"
                for one in _listed(parameters["ResourceId"])
            ]
        if request.is_call("ec2", "CreateFleet", "RunInstances"):
            templates = _launch_templates(parameters)
            return [f"arn:aws:ec2:{region}::launch-template/{one}" for one in templates] or ["*"]
        return ["*"]

    async def _leading_keys(self, request: AwsRequest, table: str) -> list[str]:
        name = await self._partition_key(table, request.operation.region)
        return [_scalar(value) for value in _key_values(request.parameters, table, name)]

    async def _partition_key(self, table: str, region: str) -> str:
        if table not in self._partition_keys:
            answer = await self.backend.ask(
                "dynamodb",
                "DescribeTable",
                {"TableName": table},
                target="DynamoDB_20120810",
                region=region,
            )
            schema = json.loads(answer.body).get("Table", {}).get("KeySchema", [])
            self._partition_keys[table] = next(
                (item["AttributeName"] for item in schema if item["KeyType"] == "HASH"), ""
            )
        return self._partition_keys[table]


def _documents(
    logical_id: str, resource: Mapping[str, Any]
) -> list[tuple[dict[str, Any], list[Any]]]:
    """The policy documents of a resource, with the roles that they are for."""
    kind, properties = resource.get("Type"), resource.get("Properties", {})
    if kind in {"AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"}:
        return [(properties.get("PolicyDocument", {}), properties.get("Roles", []))]
    if kind == "AWS::IAM::Role":
        return [
            (policy.get("PolicyDocument", {}), [{"Ref": logical_id}])
            for policy in properties.get("Policies", [])
        ]
    return []


def _take_out(statement: dict[str, Any]) -> Condition:
    ec2_only = all(
        str(action).startswith("ec2:") for action in _listed(statement.get("Action", []))
    )
    moved: dict[str, dict[str, Any]] = {}
    kept: dict[str, dict[str, Any]] = {}
    for operator, block in statement.get("Condition", {}).items():
        for key, value in block.items():
            is_tag = ec2_only and key.lower().startswith("aws:resourcetag/")
            is_variable = "${" in _without_pseudo(json.dumps(value))
            goes = bool(_MOVED_KEYS.match(key)) or is_tag or is_variable
            (moved if goes else kept).setdefault(operator, {})[key] = value
    if moved:
        if kept:
            statement["Condition"] = kept
        else:
            del statement["Condition"]
    return moved


def _without_pseudo(text: str) -> str:
    return re.sub(r"\$\{AWS::\w+\}", "", text)


def _covers(grant: _Grant, request: AwsRequest) -> bool:
    action = f"{request.service}:{request.action}".lower()
    return any(fnmatchcase(action, pattern.lower()) for pattern in grant.actions)


def _substituted(pattern: str, request: AwsRequest, arn: str) -> str:
    values = {
        "aws:userid": request.caller.user_id,
        "ec2:instanceid": arn.rpartition("/")[2],
        "aws:username": request.caller.name,
    }
    # an unknown variable matches nothing, as in IAM
    return _VARIABLE.sub(lambda found: values.get(found[1].lower(), "\0"), pattern)


def _holds(operator: str, actual: Sequence[str], wanted: Sequence[str]) -> bool:
    name = operator.lower()
    optional = name.endswith("ifexists")
    name = name.removesuffix("ifexists")
    every = name.startswith("forallvalues:")
    name = name.removeprefix("forallvalues:").removeprefix("foranyvalue:")
    if not actual:
        return optional or every
    compare: Callable[[str, str], bool] = (
        fnmatchcase if name in {"stringlike", "arnlike", "arnequals"} else str.__eq__
    )
    if name in {"stringnotequals", "stringnotlike"}:
        return not any(compare(value, pattern) for value in actual for pattern in wanted)
    matched = [any(compare(value, pattern) for pattern in wanted) for value in actual]
    return all(matched) if every else any(matched)


def _without_account(arn: str) -> str:
    """One account is all there is here; requests do not name it."""
    parts = arn.split(":", 5)
    if len(parts) == 6 and parts[0] == "arn":  # noqa: PLR2004
        parts[4] = ""
    return ":".join(parts)


def _launch_templates(parameters: Mapping[str, Any]) -> list[str]:
    specifications = [
        config.get("LaunchTemplateSpecification", {})
        for config in parameters.get("LaunchTemplateConfigs", [])
    ]
    if "LaunchTemplate" in parameters:
        specifications.append(parameters["LaunchTemplate"])
    return [one["LaunchTemplateId"] for one in specifications if "LaunchTemplateId" in one]


def _tables(parameters: Mapping[str, Any]) -> list[str]:
    if "TableName" in parameters:
        return [_table_name(parameters["TableName"])]
    if "RequestItems" in parameters:
        return [_table_name(name) for name in parameters["RequestItems"]]
    names = [
        _table_name(body["TableName"])
        for item in parameters.get("TransactItems", [])
        for body in item.values()
    ]
    return list(dict.fromkeys(names)) or ["*"]


def _table_name(given: str) -> str:
    return given.rpartition("/")[2]


def _key_values(parameters: Mapping[str, Any], table: str, name: str) -> list[Any]:
    """The partition key values of one table that a request touches."""
    values: list[Any] = []
    for holder in _holders(parameters, table):
        values += [
            holder[place][name] for place in ("Key", "Item") if name in holder.get(place, {})
        ]
        found = _KEY_CONDITION.match(holder.get("KeyConditionExpression", ""))
        if found is not None:
            values.append(holder.get("ExpressionAttributeValues", {}).get(found[2], {}))
    return values


def _holders(parameters: Mapping[str, Any], table: str) -> list[Mapping[str, Any]]:
    if "TableName" in parameters:
        return [parameters]
    holders: list[Mapping[str, Any]] = []
    for name, content in parameters.get("RequestItems", {}).items():
        if _table_name(name) != table:
            continue
        if isinstance(content, dict):
            holders += [{"Key": key} for key in content.get("Keys", [])]
        else:
            holders += [body for item in content for body in item.values()]
    holders += [
        body
        for item in parameters.get("TransactItems", [])
        for body in item.values()
        if _table_name(body.get("TableName", "")) == table
    ]
    return holders


def _scalar(value: Any) -> str:
    return str(next(iter(value.values()), "")) if isinstance(value, dict) else str(value)


def _ec2_kind(resource_id: str) -> str:
    prefix = resource_id.partition("-")[0]
    return {"i": "instance", "vol": "volume", "fleet": "fleet"}.get(prefix, "*")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
