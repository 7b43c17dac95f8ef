"""One function of a fleet with a role, a log group and nothing that it does not need."""

from __future__ import annotations

from collections.abc import Mapping

import aws_cdk as cdk
import jsii
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from runsfleet_constructs._grants import allow, allow_key
from runsfleet_constructs.function_options import FunctionAssets, FunctionOptions
from runsfleet_runtime.contract.environment import TraceEnvironment

_HANDLERS = "runsfleet_runtime.handlers"


@jsii.implements(iam.IGrantable)
class FleetFunction(Construct):
    """Base of the fleet's functions.

    Attributes:
        function: The function.
        role: Its role; holds only what the subclass grants, and writing to ``log_group``.
        log_group: Its logs.
        memory_mib: Its memory.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        handler: str,
        description: str,
        environment: Mapping[str, str],
        timeout: cdk.Duration,
        memory_mib: int,
        assets: FunctionAssets,
        options: FunctionOptions,
    ) -> None:
        super().__init__(scope, construct_id)
        self.memory_mib = memory_mib
        self.log_group = logs.LogGroup(
            self,
            "Logs",
            retention=options.log_retention,
            removal_policy=options.removal_policy,
            encryption_key=options.encryption_key,
        )
        self.role = iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
            description=description,
        )
        allow(
            self.role,
            ["logs:CreateLogStream", "logs:PutLogEvents"],
            [self.log_group.log_group_arn],
        )
        self.function = lambda_.Function(
            self,
            "Function",
            code=assets.code,
            layers=[] if assets.layer is None else [assets.layer],
            handler=f"{_HANDLERS}.{handler}.handler",
            runtime=lambda_.Runtime.PYTHON_3_14,
            architecture=assets.architecture,
            description=description,
            environment={
                **environment,
                **TraceEnvironment(otlp_endpoint=options.otlp_endpoint).to_environ(),
            },
            timeout=timeout,
            memory_size=memory_mib,
            role=self.role,
            log_group=self.log_group,
        )

    @property
    def grant_principal(self) -> iam.IPrincipal:
        """The function's role, so that grants can be given to the construct itself."""
        return self.role

    def _consume(
        self,
        queue: sqs.IQueue,
        *,
        batch_size: int,
        max_concurrency: int,
        batching_window: cdk.Duration | None = None,
    ) -> None:
        """Let a queue's messages invoke the function, each message answered for on its own."""
        allow(
            self.role,
            ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"],
            [queue.queue_arn],
        )
        allow_key(self.role, queue.encryption_master_key, write=False)
        self.function.add_event_source_mapping(
            "Messages",
            event_source_arn=queue.queue_arn,
            batch_size=batch_size,
            max_batching_window=batching_window,
            max_concurrency=max_concurrency,
            report_batch_item_failures=True,
        )
