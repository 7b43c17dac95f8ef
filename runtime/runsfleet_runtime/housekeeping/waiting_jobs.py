"""Jobs that wait although nobody is at work for them.

- Queued here, and their turn was long ago: their message was lost, and it is sent once more. A
  message that was not lost, only slow, does no harm: whoever comes second finds the job claimed.
- Running here, and queued at GitHub: GitHub gave another job to their runner, as it binds a runner
  to labels and not to a job. They are dispatched again; the instance goes on with what it has.

How long a job runs convicts it of nothing: only GitHub's word does, and unknown is no word. So
GitHub is asked for a few in each run, those first that it was never asked for, then those longest
ago. (A job whose instance never reported a start is ``unconfirmed_launches``' matter.)

What is remembered (``Run.state``): under ``tried`` when each was sent again or asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Protocol

from runsfleet_runtime.contract.messages import HousekeepingTask
from runsfleet_runtime.contract.metrics import Metric
from runsfleet_runtime.github import JobState, KnowsJobStates
from runsfleet_runtime.housekeeping.model import Run, Verdict, spare
from runsfleet_runtime.housekeeping.ports import SweepError
from runsfleet_runtime.jobs.model import Cause, JobRecord, JobStatus
from runsfleet_runtime.jobs.ports import ReadsJobs, Redispatched, RedispatchesJobs
from runsfleet_runtime.telemetry.metrics import CountsMetrics

LOST_SECONDS: Final = 600.0
"""A message is received within seconds of its time; after five failed receives, within 12 minutes
of the first, it is a dead letter."""
SENT_PAUSE_SECONDS: Final = 1800.0
"""Between two copies of a message: a queue that is only slow must not be filled with them."""
LONG_SECONDS: Final = 900.0
"""A runner that was given no job ends after ten minutes, and its report settles the matter."""
ASKED_PAUSE_SECONDS: Final = 2 * 3600.0
"""A job that has begun at GitHub is not queued there again, as far as is known."""
ASKED_AT_ONCE: Final = 30
"""Questions to GitHub in a run; 900 an hour with a run in two minutes."""
MAX_TRIED: Final = 5_000
"""About 30 bytes each, within DynamoDB's 400 KB for an item."""
_PAGE: Final = 50
_QUESTION_SECONDS: Final = 8.0


class Fate(StrEnum):
    """What may have happened to a job."""

    MESSAGE_LOST = "message_lost"
    RUNNER_TAKEN = "still_queued"


class ListsJobIds(Protocol):
    """The jobs table by its index of states, which may lag."""

    def ids(
        self, status: JobStatus, *, updated_before: float | None = None
    ) -> Iterator[Sequence[str]]:
        """Yield the ids of the jobs of a state, oldest first; raises ``SweepError``."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A job that may wait in vain.

    Attributes:
        job_id: The job.
        fate: What may have happened to it.
        tried_at: Epoch seconds at which this sweep last did something about it; 0 for never.
        record: Its record; ``None`` as long as only the index was read.
        state: What GitHub says of it; ``None`` as long as it was not asked.
    """

    job_id: int
    fate: Fate
    tried_at: float = 0.0
    record: JobRecord | None = None
    state: JobState | None = None


def decide(found: Suspect, *, now: float) -> Verdict:
    """Judge a job; pure.

    Args:
        found: The job.
        now: Epoch seconds.
    """
    if found.fate is Fate.MESSAGE_LOST:
        return _judge_queued(found, now)
    if now - found.tried_at < ASKED_PAUSE_SECONDS:
        return spare("GitHub was asked lately")
    record = found.record
    if record is None:
        return Verdict("redispatch", "it runs for long")
    if record.status is not JobStatus.RUNNING:
        return spare("it does not run any more")
    if now - max(record.started_at, record.updated_at) < LONG_SECONDS:
        return spare("it does not run for long")
    if found.state is None or found.state is JobState.QUEUED:
        return Verdict("redispatch", "GitHub has it queued" if found.state else "it runs for long")
    return spare(f"GitHub says {found.state.value}")


def _judge_queued(found: Suspect, now: float) -> Verdict:
    record = found.record
    if now - found.tried_at < SENT_PAUSE_SECONDS:
        return spare("it was sent lately")
    if record is None or record.status is not JobStatus.QUEUED:
        return spare("it is not queued any more")
    if now - max(record.not_before, record.updated_at) < LOST_SECONDS:
        return spare("its turn is to come")
    if record.deadline and now > record.deadline:
        return spare("its deadline passed")
    return Verdict("send", "its turn was long ago")


class WaitingJobs:
    """The sweep.

    Args:
        ids: The jobs table, by state.
        records: The jobs table, one job at a time.
        job_states: Asks GitHub for a job's state.
        redispatcher: Dispatches a job again, or sends its message again.
        metrics: Where metrics go.
        clock: Returns epoch seconds.
    """

    name: Final = HousekeepingTask.WAITING_JOBS
    limit: Final = 300

    def __init__(
        self,
        *,
        ids: ListsJobIds,
        records: ReadsJobs,
        job_states: KnowsJobStates,
        redispatcher: RedispatchesJobs,
        metrics: CountsMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._ids = ids
        self._records = records
        self._job_states = job_states
        self._redispatcher = redispatcher
        self._metrics = metrics
        self._clock = clock
        self._tried: dict[str, float] = {}

    def select(self, run: Run) -> Iterator[Sequence[Suspect]]:
        """Return what is queued for long, then a few of what runs for long."""
        queued = self._ids_of(JobStatus.QUEUED, run.now - LOST_SECONDS)
        running = self._ids_of(JobStatus.RUNNING, run.now - LONG_SECONDS)
        self._tried = _remembered(run, {*queued, *running})
        run.state["tried"] = self._tried
        for start in range(0, len(queued), _PAGE):
            page = queued[start : start + _PAGE]
            yield [self._queued(int(job_id)) for job_id in page if not self._was_sent(job_id, run)]
        # the sort keeps the order of the list, oldest first, among those never asked for
        running.sort(key=lambda job_id: self._tried.get(job_id, 0.0))
        yield [
            Suspect(int(job_id), Fate.RUNNER_TAKEN, self._tried.get(job_id, 0.0))
            for job_id in running[:ASKED_AT_ONCE]
        ]

    def key(self, found: Suspect) -> str:
        """Return the job's id."""
        return str(found.job_id)

    def decide(self, found: Suspect, *, now: float) -> Verdict:
        """Judge; see :func:`decide`."""
        return decide(found, now=now)

    def reread(self, found: Suspect) -> Suspect | None:
        """Ask GitHub where it matters, then read the record again."""
        state = found.state
        record = self._records.get(found.job_id)
        if record is None:
            return None
        if found.fate is Fate.RUNNER_TAKEN and record.status is JobStatus.RUNNING:
            state = self._job_states.status(
                record.job.repository,
                record.job.job_id,
                record.job.installation_id,
                deadline=self._clock() + _QUESTION_SECONDS,
            )
            if state not in {JobState.UNKNOWN, JobState.QUEUED}:
                self._tried[str(found.job_id)] = self._clock()
        return replace(found, record=record, state=state)

    def act(self, found: Suspect, verdict: Verdict) -> bool:
        """Send its message again, or dispatch it again; False if it was another by then."""
        if found.record is None:
            raise SweepError("the record was not read")
        if found.fate is Fate.MESSAGE_LOST:
            result = self._redispatcher.resend(found.record, reason=verdict.reason)
        else:
            result = self._redispatcher.redispatch(
                found.record, Cause.STILL_QUEUED, reason=verdict.reason
            )
        if result is Redispatched.UNKNOWN:
            raise SweepError("neither sent nor settled for certain")
        if result is Redispatched.SENT:
            self._tried[str(found.job_id)] = self._clock()
            self._metrics.add(Metric.JOBS_RECOVERED, kind=found.fate.value)
        return result is not Redispatched.SETTLED

    def _ids_of(self, status: JobStatus, before: float) -> list[str]:
        return [job_id for page in self._ids.ids(status, updated_before=before) for job_id in page]

    def _was_sent(self, job_id: str, run: Run) -> bool:
        return run.now - self._tried.get(job_id, 0.0) < SENT_PAUSE_SECONDS

    def _queued(self, job_id: int) -> Suspect:
        record = self._records.get(job_id)
        return Suspect(job_id, Fate.MESSAGE_LOST, self._tried.get(str(job_id), 0.0), record=record)


def _remembered(run: Run, listed: set[str]) -> dict[str, float]:
    """Return what is remembered of the jobs that are listed still; of too much, the latest."""
    before = run.state.get("tried")
    found = [
        (float(at), key)
        for key, at in (before if isinstance(before, dict) else {}).items()
        if key in listed and isinstance(at, int | float) and 0 < at <= run.now
    ]
    return {key: at for at, key in sorted(found, reverse=True)[:MAX_TRIED]}
