"""The function that carries out the sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import aws_cdk as cdk
from aws_cdk import aws_logs as logs
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from runsfleet_constructs._function import FleetFunction
from runsfleet_constructs._grants import allow, allow_key
from runsfleet_constructs._records import grant_records, records_environment
from runsfleet_constructs.caps import RunnerCaps
from runsfleet_constructs.cost_options import CostOptions
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
from runsfleet_runtime.contract.inventory import Inventory

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
        cost: What the daily cost report is configured with.
        others: The fleet's other functions, whose cost is reported too.
        log_groups: The fleet's other log groups, likewise.
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
        cost: CostOptions | None = None,
        others: Sequence[FleetFunction] = (),
        log_groups: Sequence[logs.ILogGroup] = (),
        options: FunctionOptions | None = None,
    ) -> None:
        limits, cost = limits or FleetLimits(), cost or CostOptions()
        self._inventory = Inventory(
            functions={other.function.function_name: other.memory_mib for other in others},
            log_groups=tuple(
                group.log_group_name for group in (*(o.log_group for o in others), *log_groups)
            ),
            tables=(tables.circuit_state.table_name, tables.audit.table_name),
            secrets=github.managed_secrets,
            alarms=0,
        )
        # beside the function, whose construct does not exist yet
        self._parameter = ssm.CfnParameter(
            scope,
            f"{construct_id}Inventory",
            type="String",
            value=self._inventory.to_json(),
            description="runsfleet: what the cost report measures",
        )
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
            cost_inventory=self._parameter.ref,
            **cost.environment(),
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
        self._grant_cost_report(cost, tables=tables, cache=cache)

    def add_alarms(self, count: int) -> None:
        """Let the cost report count alarms.

        Args:
            count: How many more; a composite alarm is billed as five.
        """
        self._inventory = replace(self._inventory, alarms=self._inventory.alarms + count)
        self._parameter.value = self._inventory.to_json()

    def _grant_cost_report(
        self, cost: CostOptions, *, tables: FleetTables, cache: RunnerCacheBucket
    ) -> None:
        parameter = cdk.Stack.of(self).format_arn(
            service="ssm", resource="parameter", resource_name=self._parameter.ref
        )
        allow(self.role, ["ssm:GetParameter"], [parameter])
        tables.grant_report_cost(self.role)
        cache.grant_report_cost(self.role)
        allow(
            self.role,
            [
                "cloudwatch:GetMetricData",
                "cloudwatch:GetMetricStatistics",
                "cloudwatch:ListMetrics",
                "ec2:DescribeSpotPriceHistory",
                "pricing:GetProducts",
            ],
            ["*"],
            wildcard="AWS knows no narrower permission to read prices and metrics",
        )
        if cost.topic is not None:
            allow(self.role, ["sns:Publish"], [cost.topic.topic_arn])
            allow_key(self.role, cost.topic.master_key)
