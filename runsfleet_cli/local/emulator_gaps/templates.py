"""A copy of a cloud assembly that the emulator can deploy, and a note for each thing left out.

Left out: resource types that MiniStack 1.5.33 does not know, alarms with metric math (it rolls the
stack back), and what cannot stand without them: outputs, single list entries, whole resources.
Changed: `Ref` of a secret (MiniStack gives its name, CloudFormation its ARN). Moved: IAM conditions
that it cannot evaluate leave the policy and are kept by the interceptor (`conditions.py`).

Example:
    >>> adapted = adapt_assembly(Path("cdk.out"), Path("/tmp/run/cdk.out"))
    >>> for note in adapted.notes:
    ...     print(note)
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from runsfleet_cli.local.emulator_gaps.conditions import PolicyGrant, move_conditions

_UNKNOWN_TYPES = (
    "AWS::EC2::NatGateway",
    "AWS::EC2::EIP",
    "AWS::EC2::FlowLog",
    "AWS::EC2::SecurityGroupIngress",
    "AWS::EC2::SecurityGroupEgress",
    "AWS::CloudWatch::CompositeAlarm",
    "AWS::CloudWatch::AnomalyDetector",
    "AWS::Logs::QueryDefinition",
    "AWS::SNS::TopicInlinePolicy",
    "AWS::SQS::QueueInlinePolicy",
    "AWS::Synthetics::Canary",
    "AWS::Chatbot::SlackChannelConfiguration",
    "AWS::CE::AnomalyMonitor",
    "AWS::CE::AnomalySubscription",
    "AWS::IAM::ServiceLinkedRole",
    "AWS::Lambda::CodeSigningConfig",
    "AWS::Events::Archive",
    "AWS::XRay::Group",
    "AWS::XRay::SamplingRule",
    "AWS::SecretsManager::RotationSchedule",
    "AWS::SecretsManager::ResourcePolicy",
    "AWS::SSM::Document",
)
_UNKNOWN_PREFIXES = (
    "AWS::Budgets::",
    "AWS::CodeDeploy::",
    "AWS::ImageBuilder::",
    "AWS::ApplicationInsights::",
    "AWS::ResourceGroups::",
)
_INTRINSIC_KEYS = ("Ref", "Condition")


@dataclass(frozen=True, slots=True)
class AdaptedAssembly:
    """What `adapt_assembly` made.

    Args:
        directory: The copy, to be deployed instead of the original.
        notes: One sentence for each thing that differs, for people.
        grants: IAM statements that the interceptor has to complete.
    """

    directory: Path
    notes: tuple[str, ...]
    grants: tuple[PolicyGrant, ...]


@dataclass(slots=True)
class _Template:
    name: str
    body: dict[str, Any]
    paths: Mapping[str, str]
    notes: list[str] = field(default_factory=list)

    @property
    def resources(self) -> dict[str, Any]:
        resources: dict[str, Any] = self.body.setdefault("Resources", {})
        return resources

    def label(self, logical_id: str) -> str:
        """How people know a resource: its construct path, else its logical id."""
        return self.paths.get(logical_id, logical_id).removesuffix("/Resource")

    def drop(self, logical_id: str, reason: str) -> None:
        kind = self.resources[logical_id]["Type"]
        self.notes.append(f"left out {self.label(logical_id)} ({kind}): {reason}")
        del self.resources[logical_id]


@dataclass(frozen=True, slots=True)
class StackTemplate:
    """A stack of an assembly.

    Args:
        file: Its template.
        name: Stack name.
        path: Its construct path, e.g. `dev/eu-central-1`.
        paths: Construct path by logical id, beginning with the stack's.
    """

    file: Path
    name: str
    path: str
    paths: Mapping[str, str]


def adapt_assembly(source: Path, target: Path, stacks: Sequence[str] = ("**",)) -> AdaptedAssembly:
    """Copy a cloud assembly and make its templates deployable.

    Args:
        source: A `cdk.out` folder, stages included; not changed.
        target: Replaced if it exists.
        stacks: Adapt these only, by patterns as `cdk deploy` takes them.
    """
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target, symlinks=True)
    notes: list[str] = []
    grants: list[PolicyGrant] = []
    for stack in stack_templates(target):
        if not any(fnmatch(name, one) for name in (stack.path, stack.name) for one in stacks):
            continue
        body = json.loads(stack.file.read_text())
        adapted, template_grants, template_notes = adapt_template(body, stack.name, stack.paths)
        stack.file.write_text(json.dumps(adapted, indent=1))
        notes += template_notes
        grants += template_grants
    return AdaptedAssembly(target, tuple(notes), tuple(grants))


def stack_templates(assembly: Path) -> list[StackTemplate]:
    """All stacks of an assembly and of the stages in it.

    Args:
        assembly: A `cdk.out` folder.
    """
    manifest = json.loads((assembly / "manifest.json").read_text())
    found: list[StackTemplate] = []
    for artifact_id, artifact in manifest.get("artifacts", {}).items():
        properties = artifact.get("properties", {})
        if artifact["type"] == "cdk:cloud-assembly":
            found += stack_templates(assembly / properties["directoryName"])
        if artifact["type"] != "aws:cloudformation:stack":
            continue
        metadata = artifact.get("metadata", {})
        more = artifact.get("additionalMetadataFile")
        if more:
            metadata = metadata | json.loads((assembly / more).read_text())
        paths = {
            entry["data"]: path.lstrip("/")
            for path, entries in metadata.items()
            for entry in entries
            if entry["type"] == "aws:cdk:logicalId"
        }
        found.append(
            StackTemplate(
                file=assembly / properties["templateFile"],
                name=properties.get("stackName", artifact_id),
                # "dev/eu-central-1 (name-of-the-stack)" where path and name differ
                path=artifact.get("displayName", artifact_id).partition(" (")[0],
                paths=paths,
            )
        )
    return found


def adapt_template(
    body: dict[str, Any], name: str, paths: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], list[PolicyGrant], list[str]]:
    """Make one template deployable.

    Args:
        body: Changed in place.
        name: Of the stack, for the grants.
        paths: Construct path by logical id, for the notes.

    Returns:
        The template, the IAM statements that lost conditions, and the notes.
    """
    template = _Template(name, body, paths or {})
    for logical_id in list(template.resources):
        _drop_unknown(template, logical_id)
    _mend_dashboards(template)
    while _drop_dangling(template):
        pass
    _drop_dangling_outputs(template)
    secrets = {
        logical_id
        for logical_id, resource in template.resources.items()
        if resource["Type"] == "AWS::SecretsManager::Secret"
    }
    if secrets:
        template.body = _secret_arns(template.body, secrets)
    _name_log_groups(template)
    _tell_functions_their_log_group(template)
    grants = move_conditions(template.body, name, template.notes, template.label)
    return template.body, grants, template.notes


def _drop_unknown(template: _Template, logical_id: str) -> None:
    resource = template.resources[logical_id]
    kind = resource["Type"]
    if kind in _UNKNOWN_TYPES or kind.startswith(_UNKNOWN_PREFIXES):
        template.drop(logical_id, "the emulator does not know this type")
    elif kind == "AWS::CloudWatch::Alarm" and "Metrics" in resource.get("Properties", {}):
        template.drop(logical_id, "the emulator does no metric math")


def _mend_dashboards(template: _Template) -> None:
    """Let a page name, in words, what it refers to and what is gone: its other widgets stay."""
    alive = template.resources.keys() | template.body.get("Parameters", {}).keys()

    def named(value: Any) -> Any:
        if isinstance(value, dict):
            gone = _missing(value, alive) if _is_intrinsic(value) else set()
            if gone and "Fn::Join" not in value:
                return f"left out: {next(iter(gone))}"
            return {key: named(item) for key, item in value.items()}
        return [named(item) for item in value] if isinstance(value, list) else value

    for logical_id, resource in template.resources.items():
        properties = resource.get("Properties", {})
        if resource["Type"] != "AWS::CloudWatch::Dashboard":
            continue
        if missing := _missing(properties, alive):
            resource["Properties"] = named(properties)
            names = _names(template, missing)
            template.notes.append(f"changed {template.label(logical_id)}: no state of {names}")


def _drop_dangling(template: _Template) -> bool:
    """Remove what refers to what is gone; whether anything was removed whole."""
    alive = template.resources.keys() | template.body.get("Parameters", {}).keys()
    removed = False
    for logical_id in list(template.resources):
        resource = template.resources[logical_id]
        _prune_depends_on(resource, template.resources.keys())
        missing = _missing(resource.get("Properties", {}), alive)
        if not missing:
            continue
        pruned = _without(resource["Properties"], alive)
        if _missing(pruned, alive):
            template.drop(logical_id, f"it needs {_names(template, missing)}")
            removed = True
        else:
            resource["Properties"] = pruned
            template.notes.append(
                f"changed {template.label(logical_id)}: without {_names(template, missing)}"
            )
    return removed


def _names(template: _Template, logical_ids: set[str]) -> str:
    return ", ".join(sorted(template.label(logical_id) for logical_id in logical_ids))


def _drop_dangling_outputs(template: _Template) -> None:
    alive = template.resources.keys() | template.body.get("Parameters", {}).keys()
    outputs = template.body.get("Outputs", {})
    for name in list(outputs):
        if _missing(outputs[name].get("Value"), alive):
            del outputs[name]
            template.notes.append(f"left out output {name} of {template.name}")


def _prune_depends_on(resource: dict[str, Any], alive: Any) -> None:
    wanted = resource.get("DependsOn")
    if wanted is None:
        return
    names = [wanted] if isinstance(wanted, str) else wanted
    kept = [name for name in names if name in alive]
    if kept:
        resource["DependsOn"] = kept
    else:
        del resource["DependsOn"]


def _is_intrinsic(value: Any) -> bool:
    if not isinstance(value, dict) or len(value) != 1:
        return False
    key = next(iter(value))
    return key in _INTRINSIC_KEYS or key.startswith("Fn::")


def _missing(value: Any, alive: Any) -> set[str]:
    """Logical ids that a value refers to and that are gone."""
    found: set[str] = set()
    if isinstance(value, list):
        for item in value:
            found |= _missing(item, alive)
    elif isinstance(value, dict):
        if _is_intrinsic(value):
            found |= {name for name in _referred(value) if name not in alive}
        for item in value.values():
            found |= _missing(item, alive)
    return found


def _referred(intrinsic: dict[str, Any]) -> list[str]:
    if "Ref" in intrinsic:
        name = str(intrinsic["Ref"])
        return [] if name.startswith("AWS::") else [name]
    attribute = intrinsic.get("Fn::GetAtt")
    if isinstance(attribute, list):
        return [str(attribute[0])]
    return [str(attribute).partition(".")[0]] if attribute is not None else []


def _without(value: Any, alive: Any) -> Any:
    """The value without the list entries that refer to what is gone."""
    if isinstance(value, list):
        return [_without(item, alive) for item in value if not _is_entry_gone(item, alive)]
    if isinstance(value, dict) and not _is_intrinsic(value):
        return {key: _without(item, alive) for key, item in value.items()}
    return value


def _is_entry_gone(item: Any, alive: Any) -> bool:
    """Whether a list entry can only go as a whole: what is missing is in no list below it."""
    return bool(_missing(_without(item, alive), alive))


def _secret_arns(value: Any, secrets: set[str]) -> Any:
    if isinstance(value, list):
        return [_secret_arns(item, secrets) for item in value]
    if isinstance(value, dict):
        if set(value) == {"Ref"} and value["Ref"] in secrets:
            return {"Fn::GetAtt": [value["Ref"], "Id"]}
        return {key: _secret_arns(item, secrets) for key, item in value.items()}
    return value


def _tell_functions_their_log_group(template: _Template) -> None:
    """Set the variable that Lambda sets by itself and MiniStack leaves out."""
    for resource in template.resources.values():
        if resource["Type"] != "AWS::Lambda::Function":
            continue
        properties = resource["Properties"]
        group = properties.get("LoggingConfig", {}).get("LogGroup")
        if group is not None and "Environment" in properties:
            properties["Environment"]["Variables"]["AWS_LAMBDA_LOG_GROUP_NAME"] = group


def _name_log_groups(template: _Template) -> None:
    """Let who may write to a log group do so in the emulator's eyes.

    The ARN of a log group ends in `:*`, which stands for its streams. MiniStack judges writing to
    a stream by the ARN without it, so a statement that names the one gets the other too.
    """
    groups = {
        logical_id
        for logical_id, resource in template.resources.items()
        if resource["Type"] == "AWS::Logs::LogGroup"
    }
    for resource in template.resources.values():
        if resource["Type"] != "AWS::IAM::Policy":
            continue
        for statement in resource["Properties"].get("PolicyDocument", {}).get("Statement", []):
            resources = statement.get("Resource", [])
            listed = resources if isinstance(resources, list) else [resources]
            named = [
                _log_group_arn(item["Fn::GetAtt"][0])
                for item in listed
                if isinstance(item, dict)
                and item.get("Fn::GetAtt", ["", ""])[1] == "Arn"
                and item["Fn::GetAtt"][0] in groups
            ]
            if named:
                statement["Resource"] = [*listed, *named]


def _log_group_arn(logical_id: str) -> dict[str, Any]:
    text = "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:${" + logical_id
    return {"Fn::Sub": text + "}"}
