"""Where the configuration of a runner waits for its instance, and who may touch it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam

from runsfleet_constructs._grants import allow, allow_key
from runsfleet_runtime.contract.environment import ConfigStore
from runsfleet_runtime.contract.paths import runner_config_prefix
from runsfleet_runtime.contract.tags import InstanceParameterTag

USER_ID = "${aws:userid}"
"""IAM's name of the caller; for a role of an instance it is ``<role id>:<instance id>``."""


_EACH = "a parameter is made for each instance, below the fleet's own prefix"


@dataclass(frozen=True, kw_only=True)
class RunnerConfigStore:
    """A table, or parameters below a prefix; in both each instance reaches its own item only.

    Args:
        kind: Which of the two.
        fleet_name: Name of the fleet; part of the parameters' prefix.
        table: The table of configurations, when it is one.

    Raises:
        ValueError: If it is to be a table and there is none.

    Example:
        >>> RunnerConfigStore(kind=ConfigStore.SSM, fleet_name="dev").prefix
        '/runs-fleet/dev/runners'
    """

    kind: ConfigStore
    fleet_name: str
    table: dynamodb.ITableV2 | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        if self.kind is ConfigStore.DYNAMODB and self.table is None:
            raise ValueError(
                "the configuration store dynamodb needs a table, got none; "
                "make FleetTables with runners=True or choose the store ssm"
            )

    @property
    def prefix(self) -> str:
        """Prefix of the parameters."""
        return runner_config_prefix(self.fleet_name)

    def environment(self) -> dict[str, Any]:
        """Return the fields that tell the runtime and the agent of this store."""
        if self.kind is ConfigStore.SSM:
            return {"config_store": self.kind, "config_parameter_prefix": self.prefix}
        return {"config_store": self.kind, "runners_table": self._table.table_name}

    def grant_write(self, role: iam.Role) -> None:
        """Allow a role to write configurations and to take them back.

        Args:
            role: Who may write; the roles of the dispatch and the termination function.
        """
        if self.kind is ConfigStore.SSM:
            allow(
                role,
                ["ssm:PutParameter", "ssm:AddTagsToResource", "ssm:DeleteParameters"],
                [self._parameters(role)],
                wildcard=_EACH,
            )
            return
        allow_key(role, self._table.encryption_key)
        allow(role, ["dynamodb:PutItem", "dynamodb:UpdateItem"], [self._table.table_arn])

    def grant_take_back(self, role: iam.Role) -> None:
        """Allow a role to take configurations back.

        Args:
            role: Who may; the roles of the events and the housekeeping function.
        """
        if self.kind is ConfigStore.SSM:
            allow(role, ["ssm:DeleteParameters"], [self._parameters(role)], wildcard=_EACH)
            return
        allow_key(role, self._table.encryption_key)
        allow(role, ["dynamodb:UpdateItem"], [self._table.table_arn])

    def grant_sweep(self, role: iam.Role) -> None:
        """Allow a role to go through the configurations and to take them back.

        Parameters are listed with their values as they are stored, which are encrypted.

        Args:
            role: Who may; the role of the housekeeping function.
        """
        self.grant_take_back(role)
        if self.kind is ConfigStore.SSM:
            below = self._parameters(role)
            allow(
                role,
                ["ssm:GetParameters", "ssm:GetParametersByPath"],
                [below, below.removesuffix("/*")],
                wildcard=_EACH,
            )
            return
        allow(role, ["dynamodb:GetItem", "dynamodb:Scan"], [self._table.table_arn])

    def grant_own(self, role: iam.Role) -> None:
        """Allow each instance of a role to read its own configuration.

        Args:
            role: The instances' role.
        """
        if self.kind is ConfigStore.SSM:
            tag = f"ssm:resourceTag/{InstanceParameterTag.INSTANCE_KEY}"
            allow(
                role,
                ["ssm:GetParameter"],
                [self._parameters(role)],
                conditions={"StringEquals": {tag: USER_ID}},
                wildcard="a condition admits the calling instance's own parameters only",
            )
            return
        allow_key(role, self._table.encryption_key, write=False)
        allow(
            role,
            ["dynamodb:GetItem"],
            [self._table.table_arn],
            # the call names exactly one key, so "for all values" cannot be true for want of one
            conditions={"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [USER_ID]}},
        )

    @property
    def _table(self) -> dynamodb.ITableV2:
        if self.table is None:
            raise ValueError(f"the configuration store {self.kind} has no table")
        return self.table

    def _parameters(self, role: iam.Role) -> str:
        return cdk.Stack.of(role).format_arn(
            service="ssm", resource="parameter", resource_name=f"{self.prefix.lstrip('/')}/*"
        )
