"""Records that no message, report or event moves any more.

- Claimed, and the claim ended long ago: the worker died and its message is lost as well.
- Launched or running on an instance that does not exist: nobody told of its end. The events
  function is told now, as EC2 would have done, and decides on the job in its one place.
- Queued beyond the time for which GitHub keeps a job: it is closed, and that is counted.

A record of a living instance is left alone, however old: the instance has its own limits, and
``orphaned_instances`` ends it when those failed. Age alone convicts no job.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from runsfleet_runtime.contract.messages import HousekeepingTask
from runsfleet_runtime.housekeeping.leftovers import EndsLeftovers
from runsfleet_runtime.housekeeping.model import Run, Verdict, spare
from runsfleet_runtime.housekeeping.ports import SweepError
from runsfleet_runtime.housekeeping.unconfirmed_launches import TellsDepartures
from runsfleet_runtime.jobs.model import Cause, JobRecord, JobStatus
from runsfleet_runtime.jobs.ports import ReadsJobs, Redispatched, RedispatchesJobs

LOST_SECONDS: Final = 900.0
"""After the end of a claim: its message comes back five times within 12 minutes, or is lost."""
GONE_SECONDS: Final = 600.0
"""After the last write of a record: the report of an instance's end, or EC2's event, may be late.
EC2 also shows a new instance late."""
OVERDUE_SECONDS: Final = 600.0
"""After a job's deadline: whoever gets its message closes it by itself."""
_PAGE: Final = 50

REDISPATCH: Final = "redispatch"
TELL: Final = "tell"
EXPIRE: Final = "expire"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenJob:
    """A launched or running job, as an index tells of it.

    Attributes:
        job_id: The job.
        instance_id: Its instance.
        updated_at: Epoch seconds of the record's last write.
    """

    job_id: int
    instance_id: str
    updated_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleJob:
    """A record that may be stale.

    Attributes:
        record: The record; ``None`` as long as only the index was read.
        open_job: What the index says of it; ``None`` when the record was read at once.
        is_instance_gone: Whether EC2 does not show its instance.
    """

    record: JobRecord | None = None
    open_job: OpenJob | None = None
    is_instance_gone: bool = False


def decide(found: StaleJob, *, now: float) -> Verdict:
    """Judge a record; pure.

    Args:
        found: The record.
        now: Epoch seconds.
    """
    record = found.record
    if record is None:
        updated_at = found.open_job.updated_at if found.open_job else now
        return _judge_open(updated_at, found.is_instance_gone, now)
    match record.status:
        case JobStatus.QUEUED | JobStatus.CLAIMED if (
            record.deadline
            and now > record.deadline + OVERDUE_SECONDS
            and now > record.claim_expires_at
        ):
            return Verdict(EXPIRE, "its deadline passed")
        case JobStatus.CLAIMED if now > record.claim_expires_at + LOST_SECONDS:
            return Verdict(REDISPATCH, "its claim ended long ago")
        case JobStatus.CLAIMED:
            return spare("claimed")
        case JobStatus.QUEUED:
            return spare("its turn may come")
        case JobStatus.LAUNCHED | JobStatus.RUNNING if not record.instance_id:
            return Verdict(REDISPATCH, "it names no instance")
        case JobStatus.LAUNCHED | JobStatus.RUNNING:
            return _judge_open(record.updated_at, found.is_instance_gone, now)
        case _:
            return spare("closed")


def _judge_open(updated_at: float, is_instance_gone: bool, now: float) -> Verdict:
    if not is_instance_gone:
        return spare("its instance lives")
    if now - updated_at <= GONE_SECONDS:
        return spare("its report may be on its way")
    return Verdict(TELL, "its instance is gone")


class ListsOpenJobs(Protocol):
    """The jobs table, as sweeps over all open jobs need it."""

    def open_jobs(self) -> Iterator[Sequence[OpenJob]]:
        """Yield launched and running jobs by an index that may lag; raises ``SweepError``."""


class StaleJobs:
    """The task.

    Args:
        open_jobs: The jobs table, all open jobs at once.
        records: The jobs table, one job at a time.
        instances: EC2.
        departures: The events queue.
        redispatcher: Dispatches a job again, or closes it when its time is spent.
        clock: Returns epoch seconds.
    """

    name: Final = HousekeepingTask.STALE_JOBS
    limit: Final = 500

    def __init__(
        self,
        *,
        open_jobs: ListsOpenJobs,
        records: ReadsJobs,
        instances: EndsLeftovers,
        departures: TellsDepartures,
        redispatcher: RedispatchesJobs,
        clock: Callable[[], float],
    ) -> None:
        self._open_jobs = open_jobs
        self._records = records
        self._instances = instances
        self._departures = departures
        self._redispatcher = redispatcher
        self._clock = clock

    def select(self, run: Run) -> Iterator[Sequence[StaleJob]]:
        """Yield what was claimed or queued long ago, then all that is launched or running."""
        yield from self._pages(JobStatus.CLAIMED, run.now - LOST_SECONDS)
        yield from self._pages(JobStatus.QUEUED, run.now - OVERDUE_SECONDS)
        # jobs first: an instance that ends meanwhile is none that was gone long ago
        open_jobs = list(itertools.chain.from_iterable(self._open_jobs.open_jobs()))
        there: Collection[str] = {i.key for page in self._instances.pages() for i in page}
        yield [
            StaleJob(open_job=job, is_instance_gone=job.instance_id not in there)
            for job in open_jobs
        ]

    def _pages(self, status: JobStatus, before: float) -> Iterator[Sequence[StaleJob]]:
        records = self._records.in_status(status, updated_before=before)
        while page := [StaleJob(record=r) for r in itertools.islice(records, _PAGE)]:
            yield page

    def key(self, found: StaleJob) -> str:
        """Return the job's id."""
        return str(_job_id(found))

    def decide(self, found: StaleJob, *, now: float) -> Verdict:
        """Judge; see :func:`decide`."""
        return decide(found, now=now)

    def reread(self, found: StaleJob) -> StaleJob | None:
        """Ask EC2 for the instance, then read the record again."""
        is_gone = (
            found.is_instance_gone
            and found.open_job is not None
            and found.open_job.instance_id != ""
            and self._instances.find(found.open_job.instance_id) is None
        )
        record = self._records.get(_job_id(found))
        if record is None:
            return None
        if found.open_job is not None and record.instance_id != found.open_job.instance_id:
            return None
        return dataclasses.replace(found, record=record, is_instance_gone=is_gone)

    def act(self, found: StaleJob, verdict: Verdict) -> bool:
        """Tell of the instance's end, dispatch the job again, or close it."""
        if found.record is None:
            raise SweepError("the record was not read")
        if verdict.action == TELL:
            self._departures.tell(found.record.instance_id, at=self._clock())
            return True
        result = self._redispatcher.redispatch(
            found.record, Cause.STILL_QUEUED, reason=verdict.reason
        )
        if result is Redispatched.UNKNOWN:
            raise SweepError("neither dispatched again nor settled for certain")
        return result is not Redispatched.SETTLED


def _job_id(found: StaleJob) -> int:
    if found.record is not None:
        return found.record.job.job_id
    return found.open_job.job_id if found.open_job else 0
