"""The tables of a fleet: jobs, configurations that wait, and what the functions agree upon."""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from runsfleet_constructs._grants import allow, allow_key
from runsfleet_runtime.contract.tables import (
    TTL_ATTRIBUTE,
    AuditAttr,
    CircuitAttr,
    InstanceAttr,
    InstanceIndex,
    JobAttr,
    JobIndex,
    LeaseAttr,
    RunnerAttr,
    SlotAttr,
)


class FleetTables(Construct):
    """Tables with on-demand billing, and a time to live where items grow old.

    ``jobs`` and ``audit`` are the tables to keep. What stands in the others is made anew by itself:
    configurations expire within minutes, the state of offerings within hours, leases within
    minutes, and a sweep counts the slots again.

    Args:
        scope: Parent.
        construct_id: Id.
        runners: Whether to make the table of runner configurations; without it they are kept in
            Parameter Store.
        point_in_time_recovery: Whether ``jobs`` and ``audit`` can be restored to any second of the
            last 35 days; by default yes unless the removal policy is ``DESTROY``. The other tables
            never have it.
        encryption_key: Key of the tables; by default one that DynamoDB owns.
        removal_policy: What becomes of ``jobs`` and ``audit`` when they are removed from the app;
            default ``RETAIN``. The other tables are always removed.

    Raises:
        ValueError: If there is a key and the stack's region is not known.

    Attributes:
        jobs: One item for each job; found by status, instance or run through ``JobIndex``.
        runners: The configuration of each instance, until it ended; ``None`` without the table.
        circuit_state: One item for each offering of EC2 that failed lately.
        instances: One item for each instance: what ran, for whom, and for how long.
        leases: Who runs which sweep, and what it remembers.
        slots: How many runners each capped scope has.
        audit: Who changed what by hand.

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
        common: dict[str, Any] = {}
        if encryption_key is not None:
            if cdk.Token.is_unresolved(cdk.Stack.of(self).region):
                raise ValueError(
                    "encryption_key needs a stack whose region is known, as a table names its keys "
                    "by region, got none; give the stack env=Environment(region=...)"
                )
            common["encryption"] = dynamodb.TableEncryptionV2.customer_managed_key(encryption_key)
        expiring: dict[str, Any] = {"time_to_live_attribute": TTL_ATTRIBUTE, **common}
        kept: dict[str, Any] = {
            "point_in_time_recovery_specification": dynamodb.PointInTimeRecoverySpecification(
                point_in_time_recovery_enabled=recovery
            ),
            "removal_policy": removal_policy,
        }
        passing: dict[str, Any] = {"removal_policy": cdk.RemovalPolicy.DESTROY}
        # TableV2 even in one region: turning a Table into a global one would replace it
        self.jobs = dynamodb.TableV2(
            self,
            "Jobs",
            partition_key=_text(JobAttr.ID),
            global_secondary_indexes=[
                _keys_only(JobIndex.BY_STATUS, _text(JobAttr.STATUS), _number(JobAttr.UPDATED_AT)),
                _keys_only(JobIndex.BY_INSTANCE, _text(JobAttr.INSTANCE_ID)),
                _keys_only(JobIndex.BY_RUN, _number(JobAttr.RUN_ID)),
                _keys_only(JobIndex.BY_RERUN, _text(JobAttr.RERUN), _number(JobAttr.UPDATED_AT)),
            ],
            **kept,
            **expiring,
        )
        self.runners: dynamodb.TableV2 | None = None
        if runners:
            self.runners = dynamodb.TableV2(
                self, "Runners", partition_key=_text(RunnerAttr.KEY), **passing, **expiring
            )
        self.instances = dynamodb.TableV2(
            self,
            "Instances",
            partition_key=_text(InstanceAttr.ID),
            global_secondary_indexes=[
                dynamodb.GlobalSecondaryIndexPropsV2(
                    index_name=InstanceIndex.BY_DAY.value,
                    partition_key=_text(InstanceAttr.LAUNCHED_ON),
                    sort_key=_number(InstanceAttr.LAUNCHED_AT),
                )
            ],
            **passing,
            **expiring,
        )
        self.circuit_state = dynamodb.TableV2(
            self, "CircuitState", partition_key=_text(CircuitAttr.OFFERING), **passing, **expiring
        )
        self.leases = dynamodb.TableV2(
            self, "Leases", partition_key=_text(LeaseAttr.NAME), **passing, **expiring
        )
        self.slots = dynamodb.TableV2(
            self, "Slots", partition_key=_text(SlotAttr.SCOPE), **passing, **common
        )
        self.audit = dynamodb.TableV2(
            self,
            "Audit",
            partition_key=_text(AuditAttr.SUBJECT),
            sort_key=_text(AuditAttr.AT),
            **kept,
            **expiring,
        )

    @property
    def job_index_arns(self) -> list[str]:
        """The indexes of ``jobs``, each by its name."""
        return [f"{self.jobs.table_arn}/index/{index.value}" for index in JobIndex]

    def grant_read_jobs(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to read the records of jobs.

        Args:
            grantee: Who may read.
        """
        allow_key(grantee, self.jobs.encryption_key, write=False)
        return allow(
            grantee,
            ["dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:Query", "dynamodb:Scan"],
            [self.jobs.table_arn, *self.job_index_arns],
        )

    def grant_move_jobs(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to find and move the records of jobs, and to count their slots.

        Args:
            grantee: Who may; functions of the fleet.
        """
        allow_key(grantee, self.jobs.encryption_key)
        allow(grantee, ["dynamodb:Query"], self.job_index_arns)
        return allow(
            grantee,
            ["dynamodb:GetItem", "dynamodb:UpdateItem"],
            [self.jobs.table_arn, self.slots.table_arn, self.instances.table_arn],
        )

    def grant_see_instances(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to see which instances have left their jobs.

        Args:
            grantee: Who may; the events function.
        """
        return allow(grantee, ["dynamodb:BatchGetItem"], [self.instances.table_arn])

    def grant_report_cost(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to find what ran on a day, and the jobs that ended.

        Args:
            grantee: Who may; the housekeeping function.
        """
        by_status = f"{self.jobs.table_arn}/index/{JobIndex.BY_STATUS.value}"
        by_day = f"{self.instances.table_arn}/index/{InstanceIndex.BY_DAY.value}"
        allow(grantee, ["dynamodb:BatchGetItem"], [self.jobs.table_arn])
        return allow(grantee, ["dynamodb:Query"], [by_status, by_day])

    def grant_record_instances(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to record what it launched.

        Args:
            grantee: Who may; the dispatch function.
        """
        return allow(grantee, ["dynamodb:PutItem"], [self.instances.table_arn])

    def grant_operate_breaker(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to see and change circuits, and to leave audit rows of it.

        Args:
            grantee: Who may.
        """
        allow_key(grantee, self.circuit_state.encryption_key)
        allow(grantee, ["dynamodb:PutItem"], [self.audit.table_arn])
        return allow(grantee, ["dynamodb:PutItem", "dynamodb:Scan"], [self.circuit_state.table_arn])

    def grant_watch(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to see which offerings are left out, and when each sweep ran last.

        Args:
            grantee: Who may.
        """
        allow_key(grantee, self.leases.encryption_key, write=False)
        return allow(
            grantee,
            ["dynamodb:Scan"],
            [self.circuit_state.table_arn, self.leases.table_arn],
        )

    def grant_operate(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to dispatch jobs again and operate circuits, and to see who did what.

        Args:
            grantee: Who may; the operators.
        """
        self.grant_operate_breaker(grantee)
        allow(
            grantee,
            ["dynamodb:UpdateItem"],
            [self.jobs.table_arn, self.slots.table_arn, self.instances.table_arn],
        )
        return allow(grantee, ["dynamodb:Query", "dynamodb:Scan"], [self.audit.table_arn])

    def grant_sweep(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow a principal to go through the records of jobs, and to hold leases.

        Args:
            grantee: Who may; the housekeeping function.
        """
        allow_key(grantee, self.jobs.encryption_key)
        allow(
            grantee,
            ["dynamodb:BatchGetItem", "dynamodb:DeleteItem", "dynamodb:Scan"],
            [self.jobs.table_arn],
        )
        return allow(
            grantee,
            ["dynamodb:DeleteItem", "dynamodb:Scan", "dynamodb:UpdateItem"],
            [self.leases.table_arn],
        )


def _text(name: str) -> dynamodb.Attribute:
    return dynamodb.Attribute(name=str(name), type=dynamodb.AttributeType.STRING)


def _number(name: str) -> dynamodb.Attribute:
    return dynamodb.Attribute(name=str(name), type=dynamodb.AttributeType.NUMBER)


def _keys_only(
    name: JobIndex, partition: dynamodb.Attribute, sort: dynamodb.Attribute | None = None
) -> dynamodb.GlobalSecondaryIndexPropsV2:
    return dynamodb.GlobalSecondaryIndexPropsV2(
        index_name=name.value,
        partition_key=partition,
        sort_key=sort,
        projection_type=dynamodb.ProjectionType.KEYS_ONLY,
    )
