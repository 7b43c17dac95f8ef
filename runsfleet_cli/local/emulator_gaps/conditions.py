"""IAM statements that the emulator cannot evaluate, kept by the interceptor instead.

MiniStack 1.5.33 denies whatever is conditioned on a tag of an EC2 resource, on
`cloudwatch:namespace` or on a policy variable such as `${ec2:InstanceID}`; it takes most EC2 calls
to concern the resource `*`, so that a statement for `instance/*` or a launch template never allows
them; and it allows what `ForAllValues` of `dynamodb:LeadingKeys` should deny. So `move_conditions`
takes these conditions and resources out of the deployed copy of the policies, and
`ConditionsKept` checks them on each request, with the names that the deployment gave. Everything
else stays with the emulator.

What CreateFleet is checked for (EC2 user guide, "EC2 Fleet prerequisites", and the Service
Authorization Reference): `ec2:CreateFleet` and `ec2:RunInstances` on the launch template, the
subnets, and the instance, volume and network interface to be; `ec2:CreateFleet` on the fleet too;
`ec2:CreateTags` on each kind that the request tags.

Example:
    >>> grants = move_conditions(template, "dev-runsfleet", notes)
    >>> gap = ConditionsKept(interceptor.backend)
    >>> gap.keep(grants, names)
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Protocol
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
# EC2 calls for which the emulator looks at no resource, or at the first one only
_CHECKED = frozenset(
    {
        "ec2:CreateFleet",
        "ec2:RunInstances",
        "ec2:CreateTags",
        "ec2:DeleteNetworkInterface",
        "ec2:DeleteTags",
        "ec2:DeleteVolume",
        "ec2:TerminateInstances",
        "ec2:StartInstances",
        "ec2:StopInstances",
        "ec2:RebootInstances",
    }
)
_EC2_NAMES = ("InstanceId", "ResourceId", "VolumeId", "NetworkInterfaceId")
_BORN = "new"
_REQUEST_TAG = re.compile(r"^aws:requesttag/(.+)$", re.IGNORECASE)
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
            document["Statement"] = [
                part
                for statement in _listed(document.get("Statement", []))
                for part in _split(statement)
            ]
            moved_here: set[str] = set()
            for statement in document["Statement"]:
                if statement.get("Effect") == "Allow":
                    grant = _grant_of(statement, stack, roles)
                    found.append(grant)
                    moved_here |= {key for block in grant.moved.values() for key in block}
            if moved_here:
                notes.append(
                    f"moved conditions of {label(logical_id)} to the interceptor: "
                    + ", ".join(sorted(moved_here))
                )
    return found


@dataclass(frozen=True, slots=True)
class _Grant:
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    moved: Condition


@dataclass(frozen=True, slots=True)
class _Check:
    """One thing that has to be allowed: an action on a resource.

    Args:
        action: For example `ec2:RunInstances`.
        arn: Without account; its name is `new` for what the request creates.
        tags: That the request gives it.
        create_action: What tags it at birth.
    """

    action: str
    arn: str
    tags: Mapping[str, str] = field(default_factory=dict)
    create_action: str = ""


class ResolvesNames(Protocol):
    """Knows what a deployment called things. See `references.DeployedNames`."""

    def text(self, stack: str, value: Any) -> str | None:
        """The text of a template value, or None if it cannot be told."""

    def pattern(self, stack: str, value: Any) -> str:
        """The text, with `*` for what cannot be told."""


@dataclass(slots=True)
class ConditionsKept:
    """Refuses what a moved condition would have refused.

    Args:
        backend: Asked for tags of instances and keys of tables.
    """

    backend: Backend
    _grants: dict[str, list[_Grant]] = field(default_factory=dict)
    _partition_keys: dict[str, str] = field(default_factory=dict)

    def keep(self, grants: Iterable[PolicyGrant], names: ResolvesNames) -> None:
        """Enforce these from now on.

        Args:
            grants: From `move_conditions`.
            names: Turns references into deployed names and ARNs.
        """
        for grant in grants:
            resources = tuple(
                _without_account(names.pattern(grant.stack, item)) for item in grant.resources
            )
            moved = {
                operator: {
                    key: [
                        text
                        for item in _listed(values)
                        if (text := names.text(grant.stack, item)) is not None
                    ]
                    for key, values in block.items()
                }
                for operator, block in grant.moved.items()
            }
            for reference in grant.roles:
                role = names.text(grant.stack, reference)
                if role is not None:
                    known = self._grants.setdefault(role.rpartition("/")[2], [])
                    known.append(_Grant(grant.actions, resources, moved))

    def wants(self, request: AwsRequest) -> bool:
        """Requests of a deployed role that the emulator cannot judge."""
        grants = self._grants.get(request.caller.role, ())
        action = f"{request.service}:{request.action}"
        covering = [grant for grant in grants if _covers(grant, action)]
        return bool(covering) and (action in _CHECKED or any(grant.moved for grant in covering))

    async def answer(self, request: AwsRequest, forward: Forward) -> Answer:
        """Forward it if each of its resources is allowed by some statement."""
        grants = self._grants.get(request.caller.role, ())
        for check in _checks(request):
            allowed = False
            for grant in grants:
                if not _covers(grant, check.action) or not _names(grant, check.arn):
                    continue
                if await self._satisfied(grant.moved, request, check):
                    allowed = True
                    break
            if not allowed:
                return refusal_answer(
                    request,
                    f"User: {request.caller} is not authorized to perform: {check.action} on "
                    f"resource: {check.arn} because no identity-based policy allows the action",
                )
        return await forward(request)

    async def _satisfied(self, condition: Condition, request: AwsRequest, check: _Check) -> bool:
        for operator, block in condition.items():
            for key, patterns in block.items():
                actual = await self._value(key, request, check)
                wanted = [_substituted(text, request, check.arn) for text in patterns]
                if not _holds(operator, actual, wanted):
                    return False
        return True

    async def _value(self, key: str, request: AwsRequest, check: _Check) -> list[str]:
        name = check.arn.rpartition("/")[2]
        tag = _RESOURCE_TAG.match(key) or _REQUEST_TAG.match(key)
        if tag is not None:
            tags = check.tags
            if name != _BORN and not _REQUEST_TAG.match(key):
                tags = await self._tags(name, request.operation.region)
            return [tags[tag[1]]] if tag[1] in tags else []
        lowered = key.lower()
        if lowered == "aws:tagkeys":
            return list(check.tags)
        if lowered == "dynamodb:leadingkeys":
            return await self._leading_keys(request, name)
        values = {
            "cloudwatch:namespace": str(request.parameters.get("Namespace", "")),
            "ec2:instanceid": name,
            "ec2:sourceinstancearn": f"{check.arn.rpartition('/')[0]}/{request.caller.name}",
            "aws:userid": request.caller.user_id,
            "ec2:createaction": check.create_action,
        }
        return [values[lowered]] if values.get(lowered) else []

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


def _split(statement: dict[str, Any]) -> list[dict[str, Any]]:
    """A statement, its EC2 calls that the emulator cannot judge apart from the others."""
    actions = _listed(statement.get("Action", []))
    checked = [action for action in actions if action in _CHECKED]
    others = [action for action in actions if action not in _CHECKED]
    if not checked or not others or statement.get("Effect") != "Allow":
        return [statement]
    return [
        copy.deepcopy(statement) | {"Action": checked},
        copy.deepcopy(statement) | {"Action": others},
    ]


def _grant_of(statement: dict[str, Any], stack: str, roles: Sequence[Any]) -> PolicyGrant:
    """What a statement grants; takes out of it what the emulator gets wrong."""
    actions = tuple(_listed(statement.get("Action", [])))
    resources = tuple(_listed(statement.get("Resource", "*")))
    if set(actions) <= _CHECKED:
        moved: Condition = statement.pop("Condition", {})
        statement["Resource"] = "*"
    else:
        moved = _take_out(statement)
    return PolicyGrant(stack, tuple(roles), actions, resources, moved)


def _take_out(statement: dict[str, Any]) -> Condition:
    moved: dict[str, dict[str, Any]] = {}
    kept: dict[str, dict[str, Any]] = {}
    for operator, block in statement.get("Condition", {}).items():
        for key, value in block.items():
            is_variable = "${" in _without_pseudo(json.dumps(value))
            goes = bool(_MOVED_KEYS.match(key)) or is_variable
            (moved if goes else kept).setdefault(operator, {})[key] = value
    if moved:
        if kept:
            statement["Condition"] = kept
        else:
            del statement["Condition"]
    return moved


def _without_pseudo(text: str) -> str:
    return re.sub(r"\$\{AWS::\w+\}", "", text)


def _covers(grant: _Grant, action: str) -> bool:
    return any(fnmatchcase(action.lower(), pattern.lower()) for pattern in grant.actions)


def _names(grant: _Grant, arn: str) -> bool:
    return arn == "*" or any(fnmatchcase(arn, pattern) for pattern in grant.resources)


def _checks(request: AwsRequest) -> list[_Check]:
    """Everything that has to be allowed for a request."""
    parameters, region = request.parameters, request.operation.region
    action = f"{request.service}:{request.action}"
    if request.service == "dynamodb":
        return [
            _Check(action, f"arn:aws:dynamodb:{region}::table/{name}")
            for name in _tables(parameters)
        ]
    if request.is_call("ec2", "CreateFleet", "RunInstances"):
        return _launch_checks(request)
    if request.service == "ec2":
        named = _listed(next((parameters[n] for n in _EC2_NAMES if parameters.get(n)), "*"))
        tags = _tags_of(parameters.get("Tag", []))
        return [
            _Check(action, one if one == "*" else _ec2_arn(region, _ec2_kind(one), one), tags)
            for one in named
        ]
    return [_Check(action, "*")]


def _launch_checks(request: AwsRequest) -> list[_Check]:
    parameters, region = request.parameters, request.operation.region
    given = {
        item.get("ResourceType", ""): _tags_of(item.get("Tag", []))
        for item in parameters.get("TagSpecification", [])
    }
    subnets = {
        override["SubnetId"]
        for config in parameters.get("LaunchTemplateConfigs", [])
        for override in config.get("Overrides", [])
        if "SubnetId" in override
    } | set(_listed(parameters.get("SubnetId", [])))
    arns = [_ec2_arn(region, "launch-template", one) for one in _launch_templates(parameters)]
    arns += [_ec2_arn(region, "subnet", one) for one in sorted(subnets)]
    born = ("instance", "volume", "network-interface")
    found: list[_Check] = []
    for action in dict.fromkeys((f"ec2:{request.action}", "ec2:RunInstances")):
        found += [_Check(action, arn) for arn in arns]
        found += [
            _Check(action, _ec2_arn(region, kind, _BORN), given.get(kind, {})) for kind in born
        ]
    if request.action == "CreateFleet":
        fleet = _ec2_arn(region, "fleet", _BORN)
        found.append(_Check("ec2:CreateFleet", fleet, given.get("fleet", {})))
    found += [
        _Check("ec2:CreateTags", _ec2_arn(region, kind, _BORN), tags, request.action)
        for kind, tags in given.items()
    ]
    return found


def _ec2_arn(region: str, kind: str, name: str) -> str:
    return f"arn:aws:ec2:{region}::{kind}/{name}"


def _tags_of(items: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {item.get("Key", ""): item.get("Value", "") for item in items}


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
    kinds = {
        "i": "instance",
        "vol": "volume",
        "fleet": "fleet",
        "lt": "launch-template",
        "eni": "network-interface",
    }
    return kinds.get(prefix, prefix)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
