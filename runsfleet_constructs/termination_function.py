"""The function that closes jobs when their instances report."""

from __future__ import annotations

import aws_cdk as cdk
from constructs import Construct

from runsfleet_constructs._function import FleetFunction
from runsfleet_constructs._records import grant_records, records_environment
from runsfleet_constructs.caps import RunnerCaps
from runsfleet_constructs.fleet_tables import FleetTables
from runsfleet_constructs.function_options import FunctionAssets, FunctionOptions
from runsfleet_constructs.github_app import GitHubApp
from runsfleet_constructs.job_queues import JobQueues
from runsfleet_constructs.limits import FleetLimits
from runsfleet_constructs.runner_config_store import RunnerConfigStore
from runsfleet_constructs.runner_instances import RunnerInstances
from runsfleet_runtime.contract.environment import TerminationEnvironment

TIMEOUT = 60
"""Seconds; half of the queue's visibility timeout."""

BATCH = 10
"""Reports at once; more would wait for one another's calls to GitHub."""

BATCHING_WINDOW = 5
"""Seconds to wait for more reports: a batch costs one write, and nobody waits for a report."""


class TerminationFunction(FleetFunction):
    """Closes job records, deletes configurations, and queues again what GitHub still has queued.

    Args:
        scope: Parent.
        construct_id: Id.
        fleet_name: Name of the fleet.
        github: The GitHub App.
        queues: The fleet's queues.
        tables: The fleet's tables.
        configurations: Where configurations wait.
        instances: What reports.
        assets: Code of the functions.
        limits: The fleet's limits.
        caps: How many runners may exist at once.
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
        options: FunctionOptions | None = None,
    ) -> None:
        limits = limits or FleetLimits()
        self.environment = TerminationEnvironment(
            **records_environment(
                fleet_name=fleet_name,
                github=github,
                queues=queues,
                tables=tables,
                configurations=configurations,
                instances=instances,
                limits=limits,
                caps=caps,
            )
        )
        super().__init__(
            scope,
            construct_id,
            handler="termination",
            description="runsfleet: closes jobs when their instances report",
            environment=self.environment.to_environ(),
            timeout=cdk.Duration.seconds(TIMEOUT),
            memory_mib=512,
            assets=assets,
            options=options or FunctionOptions(),
        )
        self._consume(
            queues.termination,
            batch_size=BATCH,
            max_concurrency=limits.termination_concurrency,
            batching_window=cdk.Duration.seconds(BATCHING_WINDOW),
        )
        grant_records(self.role, github=github, queues=queues, tables=tables)
        configurations.grant_write(self.role)  # another registration for the same instance
