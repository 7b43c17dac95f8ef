"""How the tasks that ask GitHub are made; only the one that is due is imported and made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from runsfleet_runtime.contract.messages import HousekeepingTask

if TYPE_CHECKING:
    from runsfleet_runtime.housekeeping.job_history.dynamodb import DynamoDBJobHistory
    from runsfleet_runtime.housekeeping.ports import Task
    from runsfleet_runtime.housekeeping.tasks import Parts


def _history(parts: Parts) -> DynamoDBJobHistory:
    from runsfleet_runtime.housekeeping.job_history.dynamodb import DynamoDBJobHistory

    return DynamoDBJobHistory(parts.client("dynamodb"), parts.environment.jobs_table)


def _lost_deliveries(parts: Parts) -> Task[Any]:
    from runsfleet_runtime.github.deliveries import DeliveryLog
    from runsfleet_runtime.housekeeping.lost_deliveries import LostDeliveries

    return LostDeliveries(
        deliveries=DeliveryLog(parts.github().api), metrics=parts.metrics, clock=parts.clock
    )


def _unannounced_jobs(parts: Parts) -> Task[Any]:
    from runsfleet_runtime.github.accounts import InstalledAccounts
    from runsfleet_runtime.github.queued_jobs import QueuedJobs
    from runsfleet_runtime.housekeeping.unannounced_jobs import UnannouncedJobs
    from runsfleet_runtime.jobs.sqs import SqsJobs

    environment, github = parts.environment, parts.github().api
    return UnannouncedJobs(
        accounts=InstalledAccounts(github),
        queued=QueuedJobs(github),
        repositories=_history(parts),
        records=parts.records(),
        queue=SqsJobs(parts.client("sqs"), environment.jobs_queue_url),
        redispatcher=parts.redispatcher(),
        labels=parts.labels(),
        runner_level=environment.runner_level,
        metrics=parts.metrics,
        clock=parts.clock,
    )


def _waiting_jobs(parts: Parts) -> Task[Any]:
    from runsfleet_runtime.housekeeping.dynamodb import DynamoDBOpenJobs
    from runsfleet_runtime.housekeeping.waiting_jobs import WaitingJobs

    return WaitingJobs(
        ids=DynamoDBOpenJobs(parts.client("dynamodb"), parts.environment.jobs_table),
        records=parts.records(),
        job_states=parts.github().job_states,
        redispatcher=parts.redispatcher(),
        metrics=parts.metrics,
        clock=parts.clock,
    )


def _offline_runners(parts: Parts) -> Task[Any]:
    from runsfleet_runtime.github.accounts import InstalledAccounts
    from runsfleet_runtime.github.runners import RunnerDirectory
    from runsfleet_runtime.housekeeping.ec2 import Ec2Presence
    from runsfleet_runtime.housekeeping.offline_runners import OfflineRunners

    environment, github = parts.environment, parts.github().api
    return OfflineRunners(
        accounts=InstalledAccounts(github),
        runners=RunnerDirectory(github),
        instances=Ec2Presence(parts.client("ec2")),
        repositories=_history(parts),
        runner_level=environment.runner_level,
        ceiling_seconds=max(environment.lifetime_seconds, environment.max_runtime_seconds),
        metrics=parts.metrics,
        clock=parts.clock,
    )


def _reruns(parts: Parts) -> Task[Any]:
    from runsfleet_runtime.github.job_runs import JobRuns
    from runsfleet_runtime.housekeeping.awaited_reruns import AwaitedReruns
    from runsfleet_runtime.interruptions.dynamodb import DynamoDBNotes
    from runsfleet_runtime.interruptions.reruns import Reruns
    from runsfleet_runtime.interruptions.sqs import SqsEvents

    environment, records = parts.environment, parts.records()
    return AwaitedReruns(
        awaited=_history(parts),
        records=records,
        reruns=Reruns(
            records=records,
            notes=DynamoDBNotes(parts.client("dynamodb"), environment.jobs_table),
            github=JobRuns(parts.github().api, clock=parts.clock),
            redispatcher=parts.redispatcher(),
            queue=SqsEvents(parts.client("sqs"), environment.events_queue_url),
            metrics=None,  # they are the events function's
            clock=parts.clock,
        ),
        clock=parts.clock,
    )


def _runner_versions(parts: Parts) -> Task[Any]:
    from runsfleet_runtime.github.accounts import InstalledAccounts
    from runsfleet_runtime.github.deprecations import Deprecations
    from runsfleet_runtime.github.runners import RunnerDirectory
    from runsfleet_runtime.housekeeping.runner_versions import RunnerVersions

    github = parts.github().api
    return RunnerVersions(
        accounts=InstalledAccounts(github),
        runners=RunnerDirectory(github),
        ends=Deprecations(github),
        repositories=_history(parts),
        runner_level=parts.environment.runner_level,
        metrics=parts.metrics,
        clock=parts.clock,
    )


MAKERS: Final[Mapping[HousekeepingTask, Callable[[Parts], Task[Any]]]] = {
    HousekeepingTask.LOST_DELIVERIES: _lost_deliveries,
    HousekeepingTask.UNANNOUNCED_JOBS: _unannounced_jobs,
    HousekeepingTask.WAITING_JOBS: _waiting_jobs,
    HousekeepingTask.OFFLINE_RUNNERS: _offline_runners,
    HousekeepingTask.RERUNS: _reruns,
    HousekeepingTask.RUNNER_VERSIONS: _runner_versions,
}
