"""Templates synthesized in this process, and questions to ask of them.

Templates are read as the files that the CDK wrote: its own assertions load seconds of JavaScript
first and answer no more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aws_cdk as cdk

ROOT = Path(__file__).resolve().parents[2]

Resource = dict[str, Any]


def recommended_flags() -> dict[str, Any]:
    """Return the feature flags of this repo's ``cdk.json``, which are all that CDK recommends."""
    return dict(json.loads((ROOT / "cdk.json").read_text())["context"])


@dataclass(frozen=True)
class Template:
    """A synthesized template.

    Attributes:
        body: The template.
    """

    body: dict[str, Any]

    @property
    def resources(self) -> dict[str, Resource]:
        """All resources by logical id."""
        return dict(self.body["Resources"])

    def of_type(self, kind: str) -> dict[str, Resource]:
        """Return the resources of a type by logical id."""
        return {name: r for name, r in self.resources.items() if r["Type"] == kind}

    def only(self, kind: str) -> Resource:
        """Return the one resource of a type."""
        (resource,) = self.of_type(kind).values()
        return resource

    def at(self, path: str, kind: str) -> Resource:
        """Return the one resource of a type whose construct path holds a text."""
        (found,) = [r for r in self.of_type(kind).values() if path in construct_path(r)]
        return found

    def id_at(self, path: str, kind: str) -> str:
        """Return the logical id of the one resource of a type whose path holds a text."""
        (found,) = [n for n, r in self.of_type(kind).items() if path in construct_path(r)]
        return found

    def statements(self, role_path: str) -> list[dict[str, Any]]:
        """Return what the role at a construct path is allowed, managed policies not included."""
        role = self.id_at(f"{role_path}/Role/Resource", "AWS::IAM::Role")
        return [
            statement
            for policy in self.of_type("AWS::IAM::Policy").values()
            if {"Ref": role} in policy["Properties"]["Roles"]
            for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        ]

    def actions(self, role_path: str) -> set[str]:
        """Return the actions that the role at a construct path is allowed on anything."""
        return {a for s in self.statements(role_path) for a in as_list(s["Action"])}

    def variables(self, function_path: str) -> dict[str, Any]:
        """Return the environment variables of the function at a construct path."""
        function = self.at(f"{function_path}/Function/Resource", "AWS::Lambda::Function")
        return dict(function["Properties"]["Environment"]["Variables"])


def construct_path(resource: Resource) -> str:
    """Return the path of the construct that made a resource."""
    return str(resource.get("Metadata", {}).get("aws:cdk:path", ""))


def as_list(value: Any) -> list[Any]:
    """Return a list whether IAM's JSON has one or a single value."""
    return value if isinstance(value, list) else [value]


def flat(value: Any) -> str:
    """Write a value with intrinsic functions as text, references as ``<Name>``."""
    if not isinstance(value, dict):
        return str(value)
    ((function, argument),) = value.items()
    if function == "Fn::Join":
        return str(argument[0]).join(flat(part) for part in argument[1])
    if function == "Fn::GetAtt":
        return f"<{'.'.join(argument)}>"
    if function == "Fn::Sub":
        return str(argument)
    if function == "Fn::Base64":
        return flat(argument)
    return f"<{argument}>"


def synthesize(
    folder: Path,
    build: Callable[[cdk.App], object],
    context: Mapping[str, Any] | None = None,
) -> dict[str, Template]:
    """Synthesize an app without building its assets.

    Args:
        folder: Where to put the assembly.
        build: Adds stacks to the app.
        context: Context of the app beside that.

    Returns:
        The templates by stack name.
    """
    settings = {
        "aws:cdk:bundling-stacks": [],
        # as the CDK CLI sets it: tests find resources by their construct path
        "aws:cdk:enable-path-metadata": True,
        **(context or {}),
    }
    app = cdk.App(outdir=str(folder), context=settings)
    build(app)
    assembly = app.synth()
    return {
        stack.stack_name: Template(json.loads(Path(stack.template_full_path).read_text()))
        for stack in assembly.stacks_recursively
    }


def normalised(value: Any) -> Any:
    """Return a template's part with what follows from the sources' bytes made equal.

    Hashes of assets, and the script of the user data, which has tests of its own.
    """
    if isinstance(value, dict):
        return {key: normalised(item) for key, item in value.items()}
    if isinstance(value, list):
        return [normalised(item) for item in _without_script(value)]
    if isinstance(value, str):
        return re.sub(r"[0-9a-f]{64}", "<sha-256>", value)
    return value


def _without_script(parts: list[Any]) -> Iterator[Any]:
    for part in parts:
        if isinstance(part, str) and (part.startswith("#!/bin/bash") or "FETCH_AGENT" in part):
            exports = [line for line in part.splitlines() if line.startswith("export RUNSFLEET")]
            yield "\n".join(["<script>", *exports])
        elif isinstance(part, str) and "powershell>" in part:
            settings = [line for line in part.splitlines() if "$env:RUNSFLEET_" in line[:18]]
            yield "\n".join(["<script>", *settings])
        else:
            yield part
