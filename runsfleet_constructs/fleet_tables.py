"""The tables of a fleet: jobs, and the configurations that wait for their instances."""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from runsfleet_constructs._grants import allow, allow_key
from runsfleet_runtime.contract.tables import TTL_ATTRIBUTE, JobAttr, RunnerAttr


class FleetTables(Construct):
    """Tables with on-demand billing and a time to live.

    Args:
        scope: Parent.
        construct_id: Id.
        runners: Whether to make the table of runner configurations; without it they are kept in
            Parameter Store.
        point_in_time_recovery: Whether ``jobs`` can be restored to any second of the last 35 days;
            by default yes unless the removal policy is ``DESTROY``. The table of configurations
            never has it: they are secrets that expire within minutes.
        encryption_key: Key of the tables; by default one that DynamoDB owns.
        removal_policy: What becomes of ``jobs`` when it is removed from the app; default
            ``RETAIN``. The table of configurations is always removed.

    Raises:
        ValueError: If there is a key and the stack's region is not known.

    Attributes:
        jobs: One item for each job.
        runners: One item for each instance that has not read its configuration yet, or ``None``.

    Example:
        >>> tables = FleetTables(self, "Tables")  # doctest: +SKIP
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        runners: bool = True,
        point_in_time_recovery: bool | None = None,
        encryption_key: kms.IKey | None = None,
        removal_policy: cdk.RemovalPolicy = cdk.RemovalPolicy.RETAIN,
    ) -> None:
        super().__init__(scope, construct_id)
        recovery = point_in_time_recovery
        if recovery is None:
            recovery = removal_policy is not cdk.RemovalPolicy.DESTROY
        common: dict[str, Any] = {"time_to_live_attribute": TTL_ATTRIBUTE}
        if encryption_key is not None:
            if cdk.Token.is_unresolved(cdk.Stack.of(self).region):
                raise ValueError(
                    "encryption_key needs a stack whose region is known, as a table names its keys "
                    "by region, got none; give the stack env=Environment(region=...)"
                )
            common["encryption"] = dynamodb.TableEncryptionV2.customer_managed_key(encryption_key)
        # TableV2 even in one region: turning a Table into a global one would replace it
        self.jobs = dynamodb.TableV2(
            self,
            "Jobs",
            partition_key=_key(JobAttr.ID),
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
                point_in_time_recovery_enabled=recovery
            ),
            removal_policy=removal_policy,
            **common,
        )
        self.runners: dynamodb.TableV2 | None = None
        if runners:
            self.runners = dynamodb.TableV2(
                self,
                "Runners",
                partition_key=_key(RunnerAttr.KEY),
                removal_policy=cdk.RemovalPolicy.DESTROY,
                **common,
            )

    def grant_read_jobs(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to read the records of jobs.

        Args:
            grantee: Who may read.
        """
        allow_key(grantee, self.jobs.encryption_key, write=False)
        return allow(
            grantee,
            ["dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:Query", "dynamodb:Scan"],
            [self.jobs.table_arn],
        )


def _key(name: str) -> dynamodb.Attribute:
    return dynamodb.Attribute(name=str(name), type=dynamodb.AttributeType.STRING)
