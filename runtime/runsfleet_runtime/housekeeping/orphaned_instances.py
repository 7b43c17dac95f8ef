"""Instances that nobody needs any more and that did not end by themselves.

An instance ends itself in many ways (its agent, its watchdog, the idle timeout). This is for those
where all of them failed. A runner takes any job with its labels, so an instance may serve another
job than its own: without its own word that it has ended, GitHub is asked before it is terminated,
and "it has a job" or no answer spares it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from runsfleet_runtime.contract.messages import HousekeepingTask
from runsfleet_runtime.contract.metrics import Metric
from runsfleet_runtime.github import Removal
from runsfleet_runtime.housekeeping.leftovers import (
    END,
    EndsLeftovers,
    Leftover,
    carry_out,
    condemn,
)
from runsfleet_runtime.housekeeping.model import Run, Verdict
from runsfleet_runtime.jobs.model import JobRecord, JobStatus
from runsfleet_runtime.jobs.ports import ReadsJobs
from runsfleet_runtime.telemetry.log import get_logger
from runsfleet_runtime.telemetry.metrics import CountsMetrics

log = get_logger("housekeeping")

GRACE_SECONDS: Final = 600.0
"""An instance may outlive its job's end, or its limit without a configuration, by this much: its
agent takes up to four minutes for its last steps (docs/agent.md)."""
STOPPED_SECONDS: Final = 3600.0
"""So long an instance without a pool may be stopped: somebody may be looking at its disk."""
_QUESTION_SECONDS: Final = 10.0
_OPEN: Final = frozenset({JobStatus.LAUNCHED, JobStatus.RUNNING})


@dataclass(frozen=True, slots=True)
class Configured:
    """What is kept of an instance's configuration.

    Attributes:
        repository: ``owner/name`` of the job that it was launched for; empty when unknown.
        has_ended: Whether its end was taken note of.
    """

    repository: str
    has_ended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """An instance, and what is known of its job.

    Attributes:
        instance: The instance.
        has_open_job: Whether an open record names it, by an index that may lag behind.
        is_looked_up: Whether the following were read, consistently.
        record: The record that names it; ``None`` when none does.
        configured: Its configuration; ``None`` when there is none.
    """

    instance: Leftover
    has_open_job: bool = False
    is_looked_up: bool = False
    record: JobRecord | None = None
    configured: Configured | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How old instances may become.

    Attributes:
        config_timeout: Seconds within which one gets a configuration, or ends.
        lifetime: Seconds that none may exceed.
    """

    config_timeout: float
    lifetime: float


def decide(suspect: Suspect, limits: Limits, *, now: float) -> Verdict:
    """Judge an instance.

    Args:
        suspect: The instance, and what is known of its job.
        limits: How old instances may become.
        now: Epoch seconds.
    """
    instance = suspect.instance
    if instance.state in {"stopping", "stopped"}:
        if instance.pool:
            return condemn(instance, innocence="it waits in a pool", now=now)
        return condemn(instance, guilt="stopped without a pool", now=now, wait=STOPPED_SECONDS)
    age = now - instance.since
    if age > limits.lifetime + GRACE_SECONDS:
        return condemn(instance, guilt="older than any instance may become", now=now)
    if suspect.is_looked_up:
        guilt, innocence = _judge_job(suspect, now)
    else:
        guilt = "" if suspect.has_open_job else "no open job names it"
        innocence = "its job is open"
    if guilt and age <= limits.config_timeout + GRACE_SECONDS and suspect.record is None:
        guilt, innocence = "", "young"
    return condemn(instance, guilt=guilt, innocence=innocence, now=now)


def _judge_job(suspect: Suspect, now: float) -> tuple[str, str]:
    """Return what speaks against an instance, or else for it."""
    record = suspect.record
    if record is None:
        if suspect.instance.pool and suspect.configured is None:
            return "", "it waits in a pool"
        return "no job names it", ""
    if record.status in _OPEN:
        return "", "its job is open"
    if now - (record.completed_at or record.updated_at) <= GRACE_SECONDS:
        return "", "its job has just ended"
    return "its job has ended", ""


class KnowsOpenJobs(Protocol):
    """The jobs table, as sweeps over all instances need it."""

    def instances_of_open_jobs(self) -> Collection[str]:
        """Return the instances that open records name; the index that tells may lag behind.

        Raises:
            SweepError: If the table did not answer.
        """


class KnowsConfigurations(Protocol):
    """The store of runner configurations."""

    def find(self, instance_id: str) -> Configured | None:
        """Return what is kept of an instance's configuration; ``None`` when there is none.

        Raises:
            SweepError: If the store did not answer.
        """


class RemovesRunners(Protocol):
    """GitHub's list of runners; see :class:`~runsfleet_runtime.github.registration`."""

    def deregister(
        self, repository: str, *, instance_id: str, deadline: float | None = None
    ) -> Removal:
        """Remove the runner of an instance, unless it has a job; raises ``GitHubError``."""


class OrphanedInstances:
    """The task.

    Args:
        instances: EC2.
        open_jobs: The jobs table, all instances at once.
        records: The jobs table, one instance at a time.
        configurations: The store of configurations.
        registrar: Takes runners away from GitHub.
        limits: How old instances may become.
        metrics: Where the size of the fleet goes.
        clock: Returns epoch seconds.
    """

    name: Final = HousekeepingTask.ORPHANED_INSTANCES
    limit: Final = 500

    def __init__(
        self,
        *,
        instances: EndsLeftovers,
        open_jobs: KnowsOpenJobs,
        records: ReadsJobs,
        configurations: KnowsConfigurations,
        registrar: RemovesRunners,
        limits: Limits,
        metrics: CountsMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._instances = instances
        self._open_jobs = open_jobs
        self._records = records
        self._configurations = configurations
        self._registrar = registrar
        self._limits = limits
        self._metrics = metrics
        self._clock = clock

    def select(self, run: Run) -> Iterator[Sequence[Suspect]]:
        """Yield all instances of the fleet that are not ended; their number is told at the end."""
        del run
        # jobs first: an instance whose job appears meanwhile is young
        busy = self._open_jobs.instances_of_open_jobs()
        size = 0
        for page in self._instances.pages():
            size += len(page)
            yield [Suspect(instance=i, has_open_job=i.key in busy) for i in page]
        if size:  # a sweep that was cut off before has seen a part, which is no size
            self._metrics.add(Metric.FLEET_SIZE, size)

    def key(self, found: Suspect) -> str:
        """Return the instance's id."""
        return found.instance.key

    def decide(self, found: Suspect, *, now: float) -> Verdict:
        """Judge; see :func:`decide`."""
        return decide(found, self._limits, now=now)

    def reread(self, found: Suspect) -> Suspect | None:
        """Read the instance, the record that names it and its configuration again."""
        instance = self._instances.find(found.instance.key)
        if instance is None:
            return None
        return dataclasses.replace(
            found,
            instance=instance,
            is_looked_up=True,
            record=self._records.of_instance(instance.key),
            configured=self._configurations.find(instance.key),
        )

    def act(self, found: Suspect, verdict: Verdict) -> bool:
        """Mark, unmark or terminate; the latter not while its runner may have a job."""
        if verdict.action == END and self._may_have_a_job(found):
            return False
        return carry_out(self._instances, found.instance.key, verdict, now=self._clock())

    def _may_have_a_job(self, found: Suspect) -> bool:
        configured, instance = found.configured, found.instance
        if configured is None or configured.has_ended or instance.state != "running":
            return False
        if self._clock() - instance.since > self._limits.lifetime + GRACE_SECONDS:
            return False  # no job may take so long
        # Parameter Store tells of no repository, its values are encrypted
        repository = configured.repository or (found.record.job.repository if found.record else "")
        if not repository:
            return True
        removal = self._registrar.deregister(
            repository,
            instance_id=instance.key,
            deadline=self._clock() + _QUESTION_SECONDS,
        )
        log.info("orphan's runner", extra={"item": instance.key, "runner": removal.value})
        return removal is Removal.BUSY
