"""The function that carries out the sweeps."""

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
from runsfleet_constructs.labels import LabelOptions
from runsfleet_constructs.limits import FleetLimits
from runsfleet_constructs.runner_cache_bucket import RunnerCacheBucket
from runsfleet_constructs.runner_config_store import RunnerConfigStore
from runsfleet_constructs.runner_instances import RunnerInstances
from runsfleet_runtime.contract.environment import HousekeepingEnvironment

TIMEOUT = 300
"""Seconds; below the queue's visibility timeout (360 s). A sweep pages through 15,000 instances."""

BATCH = 1
"""A sweep has the function for itself, so that none is late because of another."""

CONCURRENCY = 5
"""Most sweeps at the same time; each holds a lease, so that none overlaps with itself."""


class HousekeepingFunction(FleetFunction):
    """Finds what should not be there, or is not where it should be, and puts it right.

    Args:
        scope: Parent.
        construct_id: Id.
        fleet_name: Name of the fleet.
        github: The GitHub App.
        queues: The fleet's queues.
        tables: The fleet's tables.
        configurations: Where configurations wait.
        instances: What is watched over.
        cache: Where reports are kept that the termination queue did not take, and old records.
        assets: Code of the functions.
        labels: What labels are resolved against.
        limits: The fleet's limits.
        caps: How many runners may exist at once.
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
        cache: RunnerCacheBucket,
        assets: FunctionAssets,
        labels: LabelOptions | None = None,
        limits: FleetLimits | None = None,
        caps: RunnerCaps | None = None,
        spot: bool = True,
        options: FunctionOptions | None = None,
    ) -> None:
        limits = limits or FleetLimits()
        self.environment = HousekeepingEnvironment(
            spot=spot,
            leases_table=tables.leases.table_name,
            cache_bucket=cache.bucket.bucket_name,
            termination_queue_url=queues.termination.queue_url,
            dead_letter_queue_urls=tuple(
                {"queue": queue.queue_url, "dead_letters": dead_letters.queue_url}
                for queue, dead_letters in queues.with_dead_letters
            ),
            max_runtime_seconds=limits.max_runtime_seconds,
            idle_timeout_seconds=limits.idle_timeout_seconds,
            config_timeout_seconds=limits.config_timeout_seconds,
            lifetime_seconds=limits.lifetime_seconds,
            **instances.offer(),
            **(labels or LabelOptions()).to_environment(),
            **records_environment(
                fleet_name=fleet_name,
                github=github,
                queues=queues,
                tables=tables,
                configurations=configurations,
                instances=instances,
                limits=limits,
                caps=caps,
            ),
        )
        super().__init__(
            scope,
            construct_id,
            handler="housekeeping",
            description="runsfleet: sweeps",
            environment=self.environment.to_environ(),
            timeout=cdk.Duration.seconds(TIMEOUT),
            memory_mib=512,
            assets=assets,
            options=options or FunctionOptions(),
        )
        self._consume(queues.housekeeping, batch_size=BATCH, max_concurrency=CONCURRENCY)
        grant_records(self.role, github=github, queues=queues, tables=tables)
        tables.grant_sweep(self.role)
        configurations.grant_sweep(self.role)
        queues.grant_redrive(self.role)
        cache.grant_sweep(self.role)
        instances.grant_sweep(self.role)
