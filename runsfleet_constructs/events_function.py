"""The function that acts on what EC2 and GitHub say of instances and jobs."""

from __future__ import annotations

import aws_cdk as cdk
from constructs import Construct

from runsfleet_constructs._function import FleetFunction
from runsfleet_constructs._grants import allow
from runsfleet_constructs._records import grant_records, records_environment
from runsfleet_constructs.breaker import BreakerOptions
from runsfleet_constructs.caps import RunnerCaps
from runsfleet_constructs.fleet_tables import FleetTables
from runsfleet_constructs.function_options import FunctionAssets, FunctionOptions
from runsfleet_constructs.github_app import GitHubApp
from runsfleet_constructs.job_queues import JobQueues
from runsfleet_constructs.limits import FleetLimits
from runsfleet_constructs.runner_config_store import RunnerConfigStore
from runsfleet_constructs.runner_instances import RunnerInstances
from runsfleet_runtime.contract.environment import EventsEnvironment

TIMEOUT = 60
"""Seconds; half of the queue's visibility timeout."""

BATCH = 10
"""Events at once."""

BATCHING_WINDOW = 5
"""Seconds to wait for more: instances that were launched together end together, and a spot warning
leaves two minutes."""

CONCURRENCY = 5
"""Most batches at the same time: when EC2 takes a zone's spot capacity back, warnings come by the
hundred, and each may ask GitHub."""


class EventsFunction(FleetFunction):
    """Marks what EC2 takes, dispatches again what lost its instance, re-runs what had started.

    Args:
        scope: Parent.
        construct_id: Id.
        fleet_name: Name of the fleet.
        github: The GitHub App.
        queues: The fleet's queues.
        tables: The fleet's tables.
        configurations: Where configurations wait.
        instances: What the events are about.
        assets: Code of the functions.
        limits: The fleet's limits.
        caps: How many runners may exist at once.
        breaker: When offerings of EC2 that fail are left alone.
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
        limits: FleetLimits | None = None,
        caps: RunnerCaps | None = None,
        breaker: BreakerOptions | None = None,
        options: FunctionOptions | None = None,
    ) -> None:
        self.environment = EventsEnvironment(
            circuit_table=tables.circuit_state.table_name,
            audit_table=tables.audit.table_name,
            **(breaker or BreakerOptions()).environment(),
            **records_environment(
                fleet_name=fleet_name,
                github=github,
                queues=queues,
                tables=tables,
                configurations=configurations,
                instances=instances,
                limits=limits or FleetLimits(),
                caps=caps,
            ),
        )
        super().__init__(
            scope,
            construct_id,
            handler="events",
            description="runsfleet: acts on interruptions, ended instances and ended jobs",
            environment=self.environment.to_environ(),
            timeout=cdk.Duration.seconds(TIMEOUT),
            memory_mib=512,
            assets=assets,
            options=options or FunctionOptions(),
        )
        self._consume(
            queues.events,
            batch_size=BATCH,
            max_concurrency=CONCURRENCY,
            batching_window=cdk.Duration.seconds(BATCHING_WINDOW),
        )
        # an event before its time is hidden again until then
        allow(self.role, ["sqs:ChangeMessageVisibility"], [queues.events.queue_arn])
        grant_records(self.role, github=github, queues=queues, tables=tables)
        tables.grant_see_instances(self.role)
        tables.grant_operate_breaker(self.role)
        configurations.grant_take_back(self.role)
        instances.grant_describe(self.role)
        instances.grant_terminate(self.role)
