"""Instances that were launched for a job and never said that its runner started.

Most often the job simply went to another runner, or the instance is slow. Only when GitHub still
has the job queued, and the runner could be taken away so that it cannot begin any more, is the job
dispatched again and its instance ended. A runner that has a job keeps its instance: it serves
another job of the same labels, and this one gets a runner of its own.

An instance that is gone is told to the events function, as EC2 would have done: what becomes of
its job is decided there, in one place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from runsfleet_runtime.contract.messages import HousekeepingTask
from runsfleet_runtime.github import JobState, KnowsJobStates, Removal
from runsfleet_runtime.housekeeping.leftovers import EndsLeftovers
from runsfleet_runtime.housekeeping.model import Run, Verdict, spare
from runsfleet_runtime.housekeeping.ports import SweepError
from runsfleet_runtime.jobs.model import Cause, JobRecord, JobStatus
from runsfleet_runtime.jobs.ports import ReadsJobs, Redispatched, RedispatchesJobs
from runsfleet_runtime.runners import ForgetsRunners

SLACK_SECONDS: Final = 600.0
"""Beyond the time within which an instance gets its configuration. The five minutes of the origin
are too short: Windows alone takes as long to boot, and a wrong verdict costs a second instance."""
_PAGE: Final = 50
_QUESTION_SECONDS: Final = 10.0

REDISPATCH: Final = "redispatch"
TELL: Final = "tell"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unconfirmed:
    """A launch without a word, and what is known of it.

    Attributes:
        record: The job's record.
        is_looked_up: Whether the following was asked for.
        is_instance_there: Whether its instance exists still.
        state: What GitHub says of the job.
    """

    record: JobRecord
    is_looked_up: bool = False
    is_instance_there: bool = True
    state: JobState = JobState.UNKNOWN


def decide(found: Unconfirmed, *, bound: float, now: float) -> Verdict:
    """Judge a launch.

    Args:
        found: The launch.
        bound: Seconds after which a start is missed.
        now: Epoch seconds.
    """
    record = found.record
    if record.status is not JobStatus.LAUNCHED:
        return spare("it reported meanwhile")
    if not record.instance_id:
        return spare("it names no instance")  # stale_jobs' matter
    if now - record.launched_at <= bound:
        return spare("young")
    if not found.is_looked_up:
        return Verdict(REDISPATCH, "launched for too long")
    if not found.is_instance_there:
        return Verdict(TELL, "its instance is gone")
    if found.state is JobState.QUEUED:
        return Verdict(REDISPATCH, "GitHub has it queued")
    return spare(f"GitHub says {found.state.value}")


class TellsDepartures(Protocol):
    """The events queue."""

    def tell(self, instance_id: str, *, at: float) -> None:
        """Say, as EC2 would, that an instance is gone; raises ``SweepError``."""


class RemovesRunners(Protocol):
    """GitHub's list of runners; see :class:`~runsfleet_runtime.github.registration`."""

    def deregister(
        self,
        repository: str,
        *,
        instance_id: str,
        installation_id: int | None = None,
        deadline: float | None = None,
    ) -> Removal:
        """Remove the runner of an instance, unless it has a job; raises ``GitHubError``."""


class UnconfirmedLaunches:
    """The task.

    Args:
        records: The jobs table.
        instances: EC2.
        departures: The events queue.
        job_states: Asks GitHub for a job's state.
        registrar: Takes runners away from GitHub.
        redispatcher: Dispatches a job again.
        runners: The store of configurations.
        config_timeout: Seconds within which an instance gets its configuration.
        clock: Returns epoch seconds.
    """

    name: Final = HousekeepingTask.UNCONFIRMED_LAUNCHES
    limit: Final = 200

    def __init__(
        self,
        *,
        records: ReadsJobs,
        instances: EndsLeftovers,
        departures: TellsDepartures,
        job_states: KnowsJobStates,
        registrar: RemovesRunners,
        redispatcher: RedispatchesJobs,
        runners: ForgetsRunners,
        config_timeout: float,
        clock: Callable[[], float],
    ) -> None:
        self._records = records
        self._instances = instances
        self._departures = departures
        self._job_states = job_states
        self._registrar = registrar
        self._redispatcher = redispatcher
        self._runners = runners
        self._bound = config_timeout + SLACK_SECONDS
        self._clock = clock

    def select(self, run: Run) -> Iterator[Sequence[Unconfirmed]]:
        """Yield the jobs that were launched for longer than the bound, oldest first."""
        page: list[Unconfirmed] = []
        launched = self._records.in_status(JobStatus.LAUNCHED, updated_before=run.now - self._bound)
        for record in launched:
            page.append(Unconfirmed(record=record))
            if len(page) == _PAGE:
                yield page
                page = []
        yield page

    def key(self, found: Unconfirmed) -> str:
        """Return the job's id."""
        return str(found.record.job.job_id)

    def decide(self, found: Unconfirmed, *, now: float) -> Verdict:
        """Judge; see :func:`decide`."""
        return decide(found, bound=self._bound, now=now)

    def reread(self, found: Unconfirmed) -> Unconfirmed | None:
        """Ask GitHub and EC2, then read the record again."""
        job = found.record.job
        is_there = self._instances.find(found.record.instance_id) is not None
        state = JobState.UNKNOWN
        if is_there:
            state = self._job_states.status(
                job.repository,
                job.job_id,
                job.installation_id,
                deadline=self._clock() + _QUESTION_SECONDS,
            )
        record = self._records.get(job.job_id)
        if record is None or record.instance_id != found.record.instance_id:
            return None
        return dataclasses.replace(
            found, record=record, is_looked_up=True, is_instance_there=is_there, state=state
        )

    def act(self, found: Unconfirmed, verdict: Verdict) -> bool:
        """Tell of an instance that is gone, or dispatch the job again."""
        record = found.record
        if verdict.action == TELL:
            self._departures.tell(record.instance_id, at=self._clock())
            return True
        removal = self._registrar.deregister(
            record.job.repository,
            instance_id=record.instance_id,
            installation_id=record.job.installation_id,
            deadline=self._clock() + _QUESTION_SECONDS,
        )
        is_idle = removal is not Removal.BUSY
        result = self._redispatcher.redispatch(
            record,
            Cause.UNCONFIRMED if is_idle else Cause.STILL_QUEUED,
            reason="no start was reported" if is_idle else "its runner has another job",
            # a runner that has a job keeps what tells that it has one
            further=self._runners.transact_delete(record.instance_id) if is_idle else (),
        )
        if result is Redispatched.UNKNOWN:
            raise SweepError("neither dispatched again nor settled for certain")
        if result is Redispatched.SETTLED:
            return False
        if is_idle:
            self._instances.end(record.instance_id)
            self._runners.delete(record.instance_id)
        return True
