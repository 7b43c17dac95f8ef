"""Policy statements with exactly the actions that a role needs.

The ``grant_*`` methods of the CDK's own constructs give more than is called (a
``grant_send_messages`` adds two reads, a ``grant_read_write_data`` adds scans), so the roles of a
fleet are written out; ``tests/contract`` compares them with the calls in the runtime's code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from runsfleet_constructs._acknowledge import acknowledge_wildcards

_KEY_READS = ("kms:Decrypt", "kms:DescribeKey")
_KEY_WRITES = (
    "kms:Encrypt",
    "kms:GenerateDataKey",
    "kms:GenerateDataKeyWithoutPlaintext",
    "kms:ReEncryptFrom",
    "kms:ReEncryptTo",
)


def allow(
    grantee: iam.IGrantable,
    actions: Sequence[str],
    resources: Sequence[str],
    *,
    conditions: Mapping[str, Mapping[str, Any]] | None = None,
    wildcard: str = "",
) -> iam.Grant:
    """Allow a principal to call actions on resources.

    Args:
        grantee: Who may call.
        actions: IAM actions such as ``sqs:SendMessage``.
        resources: ARNs.
        conditions: IAM conditions; none if left out.
        wildcard: Why resources are named by a wildcard, if some are.
    """
    if wildcard:
        principal = grantee.grant_principal
        if isinstance(principal, Construct):
            acknowledge_wildcards(principal, resources, wildcard)
    if conditions is None:
        return iam.Grant.add_to_principal(
            grantee=grantee, actions=list(actions), resource_arns=list(resources)
        )
    return iam.Grant.add_to_principal(
        grantee=grantee,
        actions=list(actions),
        resource_arns=list(resources),
        conditions={operator: dict(values) for operator, values in conditions.items()},
    )


def allow_key(
    grantee: iam.IGrantable, key: kms.IKey | None, *, read: bool = True, write: bool = True
) -> None:
    """Allow a principal what a service does with the fleet's own key in its name.

    Args:
        grantee: Who calls the service.
        key: The fleet's key; nothing happens without one, as keys of AWS need no grant.
        read: Whether it reads what the key encrypts.
        write: Whether it writes what the key encrypts.
    """
    if key is None:
        return
    actions = [*(_KEY_READS if read else ()), *(_KEY_WRITES if write else ())]
    key.grant(grantee, *actions)
