"""The function that turns queued jobs into instances."""

from __future__ import annotations

import aws_cdk as cdk
from constructs import Construct

from runsfleet_constructs._checks import check_fleet_name
from runsfleet_constructs._function import FleetFunction
from runsfleet_constructs._grants import allow
from runsfleet_constructs.breaker import BreakerOptions
from runsfleet_constructs.caps import RunnerCaps
from runsfleet_constructs.fleet_tables import FleetTables
from runsfleet_constructs.function_options import FunctionAssets, FunctionOptions
from runsfleet_constructs.github_app import GitHubApp
from runsfleet_constructs.job_queues import JobQueues
from runsfleet_constructs.labels import LabelOptions
from runsfleet_constructs.limits import FleetLimits
from runsfleet_constructs.runner_config_store import RunnerConfigStore
from runsfleet_constructs.runner_image import image_parameter_arns
from runsfleet_constructs.runner_instances import RunnerInstances
from runsfleet_runtime.contract.environment import DispatchEnvironment

TIMEOUT = 60
"""Seconds; below the lease of a claim, so that a job is taken over only when its owner is gone."""

CLAIM_LEASE = 90
"""Seconds; above the timeout and below the queue's visibility timeout (120 s)."""

BATCH = 10
"""The largest batch of a FIFO queue: one claim, one CreateFleet and one write for ten jobs."""


class DispatchFunction(FleetFunction):
    """Claims queued jobs, launches an instance for each, and writes its configuration.

    Args:
        scope: Parent.
        construct_id: Id.
        fleet_name: Name of the fleet.
        github: The GitHub App.
        queues: The fleet's queues.
        tables: The fleet's tables.
        configurations: Where configurations are written.
        instances: What is launched.
        assets: Code of the functions.
        labels: What labels are resolved against.
        limits: The fleet's limits.
        caps: How many runners may exist at once; by default as many as there are jobs.
        breaker: When offerings of EC2 that fail are left alone.
        spot: Whether spot is used when a label does not say; default yes.
        options: The functions' options.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        fleet_name: str,
        github: GitHubApp,
        queues: JobQueues,
        tables: FleetTables,
        configurations: RunnerConfigStore,
        instances: RunnerInstances,
        assets: FunctionAssets,
        labels: LabelOptions | None = None,
        limits: FleetLimits | None = None,
        caps: RunnerCaps | None = None,
        breaker: BreakerOptions | None = None,
        spot: bool = True,
        options: FunctionOptions | None = None,
    ) -> None:
        labels, limits = labels or LabelOptions(), limits or FleetLimits()
        self.environment = DispatchEnvironment(
            fleet=check_fleet_name(fleet_name),
            spot=spot,
            registration_token_fallback=github.registration_token_fallback,
            jobs_table=tables.jobs.table_name,
            instances_table=tables.instances.table_name,
            jobs_queue_url=queues.jobs.queue_url,
            instance_role_id=instances.role.role_id,
            launch_targets=instances.launch_targets,
            subnet_ids=instances.subnet_ids,
            private_subnet_ids=instances.private_subnet_ids,
            subnet_zones=instances.subnet_zones,
            circuit_table=tables.circuit_state.table_name,
            audit_table=tables.audit.table_name,
            slots_table=tables.slots.table_name,
            claim_lease_seconds=CLAIM_LEASE,
            job_deadline_seconds=limits.job_deadline_seconds,
            max_runtime_seconds=limits.max_runtime_seconds,
            idle_timeout_seconds=limits.idle_timeout_seconds,
            **github.environment(),
            **(caps or RunnerCaps()).environment(),
            **(breaker or BreakerOptions()).environment(),
            **instances.offer(),
            **labels.to_environment(),
            **configurations.environment(),
        )
        super().__init__(
            scope,
            construct_id,
            handler="dispatch",
            description="runsfleet: launches instances for queued jobs",
            environment=self.environment.to_environ(),
            timeout=cdk.Duration.seconds(TIMEOUT),
            memory_mib=512,
            assets=assets,
            options=options or FunctionOptions(),
        )
        self._consume(queues.jobs, batch_size=BATCH, max_concurrency=limits.dispatch_concurrency)
        # a message before its time is hidden again until then
        allow(self.role, ["sqs:ChangeMessageVisibility"], [queues.jobs.queue_arn])
        queues.grant_submit_jobs(self.role)
        tables.grant_move_jobs(self.role)
        tables.grant_record_instances(self.role)
        tables.grant_operate_breaker(self.role)
        configurations.grant_write(self.role)
        github.app.grant_read(self.role)
        instances.grant_launch(self.role)
        instances.grant_terminate(self.role)
        own_images = image_parameter_arns(self, [i.reference for i in labels.images.values()])
        if own_images:
            allow(self.role, ["ssm:GetParameters"], own_images)
