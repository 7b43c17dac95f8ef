"""Findings of cdk-nag that stand, each with its reason, recorded where the resource is made.

A user's own app that runs ``cdk_nag.AwsSolutionsChecks`` then gets no finding from a fleet, and
finds the reasons in the metadata of the constructs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import aws_cdk as cdk
from constructs import Construct

_PACK = "AwsSolutions"


def acknowledge(construct: Construct, rule: str, reason: str) -> None:
    """Record why a finding stands.

    Args:
        construct: What it was found at; its children are included.
        rule: Id of the rule, such as ``AwsSolutions-S1``.
        reason: Why it is right here.
    """
    _acknowledge(construct, [rule], reason)


def acknowledge_wildcards(construct: Construct, resources: Iterable[str], reason: str) -> None:
    """Record why a policy names resources by a wildcard.

    Args:
        construct: The role.
        resources: ARNs; those without a wildcard are passed over.
        reason: Why the wildcard is right.
    """
    wild = [resource for resource in resources if "*" in resource]
    found = cdk.Stack.of(construct).resolve(wild)
    _acknowledge(construct, [f"{_PACK}-IAM5[Resource::{_flat(arn)}]" for arn in found], reason)


def _acknowledge(construct: Construct, rules: Iterable[str], reason: str) -> None:
    cdk.Validations.of(construct).acknowledge(
        *(cdk.Acknowledgment(id=f"{_PACK}::{rule}", reason=reason) for rule in rules)
    )


def _flat(value: Any) -> str:
    """Write a resolved value the way cdk-nag names it in its findings."""
    if isinstance(value, str):
        return value
    (function, argument), *_ = value.items()
    if function == "Fn::Join":
        separator, parts = argument
        return str(separator).join(_flat(part) for part in parts)
    if function == "Fn::GetAtt":
        return f"<{'.'.join(argument)}>"
    return f"<{argument}>"
