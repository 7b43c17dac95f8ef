"""What the functions have in common that close jobs or dispatch them again."""

from __future__ import annotations

from typing import Any

from aws_cdk import aws_iam as iam

from runsfleet_constructs._checks import check_fleet_name
from runsfleet_constructs.caps import RunnerCaps
from runsfleet_constructs.fleet_tables import FleetTables
from runsfleet_constructs.github_app import GitHubApp
from runsfleet_constructs.job_queues import JobQueues
from runsfleet_constructs.limits import FleetLimits
from runsfleet_constructs.runner_config_store import RunnerConfigStore
from runsfleet_constructs.runner_instances import RunnerInstances


def records_environment(
    *,
    fleet_name: str,
    github: GitHubApp,
    queues: JobQueues,
    tables: FleetTables,
    configurations: RunnerConfigStore,
    instances: RunnerInstances,
    limits: FleetLimits,
    caps: RunnerCaps | None,
) -> dict[str, Any]:
    """Return the fields of ``RecordsEnvironment``."""
    return {
        "fleet": check_fleet_name(fleet_name),
        "jobs_table": tables.jobs.table_name,
        "instances_table": tables.instances.table_name,
        "jobs_queue_url": queues.jobs.queue_url,
        "events_queue_url": queues.events.queue_url,
        "slots_table": tables.slots.table_name,
        "instance_role_id": instances.role.role_id,
        "job_deadline_seconds": limits.job_deadline_seconds,
        "job_retention_days": limits.job_retention_days,
        **github.environment(),
        **configurations.environment(),
        **(caps or RunnerCaps()).environment(),
    }


def grant_records(
    role: iam.Role, *, github: GitHubApp, queues: JobQueues, tables: FleetTables
) -> None:
    """Allow a role to find and move the records of jobs, to queue jobs again, and to ask GitHub."""
    tables.grant_move_jobs(role)
    queues.grant_submit_jobs(role)
    queues.grant_send_events(role)
    github.app.grant_read(role)
