"""Interrupted jobs whose re-run at GitHub is awaited, and whose message was lost, are looked at.

What is to be done about one is decided in one place (``interruptions.reruns``), for its message and
for this sweep alike; this only finds those that nobody has looked at for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from runsfleet_runtime.contract.messages import HousekeepingTask
from runsfleet_runtime.housekeeping.model import Run, Verdict, spare
from runsfleet_runtime.housekeeping.ports import SweepError
from runsfleet_runtime.interruptions.reruns import Settled
from runsfleet_runtime.jobs.model import JobRecord, Rerun
from runsfleet_runtime.jobs.ports import ReadsJobs

QUIET_SECONDS: Final = 300.0
"""After the last write of a record its message looks after it."""
PAUSE_SECONDS: Final = 1800.0
"""Twice the longest delay of a message: between two looks at the same job by this sweep."""
_QUESTION_SECONDS: Final = 18.0
"""For GitHub's answers about one job, within the time that the runner of sweeps reserves."""
_AWAITED: Final = frozenset({Rerun.PENDING, Rerun.REQUESTED})


class FindsAwaitedReruns(Protocol):
    """The jobs table."""

    def awaiting_reruns(self, *, updated_before: float) -> Iterator[Sequence[int]]:
        """Yield the jobs whose re-run is awaited, by an index that may lag."""


class SettlesReruns(Protocol):
    """The use case; see :class:`~runsfleet_runtime.interruptions.reruns.Reruns`."""

    def settle(self, record: JobRecord, *, deadline: float) -> Settled:
        """Do what can be done now about the re-run of a job."""


@dataclass(frozen=True, slots=True)
class Awaited:
    """A job whose re-run may be awaited.

    Attributes:
        job_id: The job.
        looked_at: Epoch seconds at which this sweep looked at it last; 0 when it never did.
        record: Its record; ``None`` as long as only the index was read.
    """

    job_id: int
    looked_at: float = 0.0
    record: JobRecord | None = None


class AwaitedReruns:
    """The sweep.

    Args:
        awaited: The jobs table, by its index of re-runs.
        records: The jobs table, one job at a time.
        reruns: The use case of re-runs.
        clock: Returns epoch seconds.
    """

    name: Final = HousekeepingTask.RERUNS
    limit: Final = 100

    def __init__(
        self,
        *,
        awaited: FindsAwaitedReruns,
        records: ReadsJobs,
        reruns: SettlesReruns,
        clock: Callable[[], float],
    ) -> None:
        self._awaited = awaited
        self._records = records
        self._reruns = reruns
        self._clock = clock
        self._looked: dict[str, float] = {}

    def select(self, run: Run) -> Iterator[Sequence[Awaited]]:
        """Return those that were not written for a while."""
        pages = self._awaited.awaiting_reruns(updated_before=run.now - QUIET_SECONDS)
        found = [job_id for page in pages for job_id in page]
        before = run.state.get("looked")
        before = before if isinstance(before, dict) else {}
        # what is awaited no longer is forgotten
        self._looked = {
            str(job_id): float(at)
            for job_id in found
            if isinstance(at := before.get(str(job_id)), int | float) and 0 < at <= run.now
        }
        run.state["looked"] = self._looked
        waiting = [Awaited(job_id, self._looked.get(str(job_id), 0.0)) for job_id in found]
        yield sorted(waiting, key=lambda one: one.looked_at)

    def key(self, found: Awaited) -> str:
        """Return the job's id."""
        return str(found.job_id)

    def decide(self, found: Awaited, *, now: float) -> Verdict:
        """Look at what nobody has looked at for a while."""
        if now - found.looked_at < PAUSE_SECONDS:
            return spare("it was looked at lately")
        if found.record is not None and found.record.rerun not in _AWAITED:
            return spare("no re-run is awaited any more")
        if found.record is not None and now - found.record.updated_at < QUIET_SECONDS:
            return spare("it was written just now")
        return Verdict("settle", "its re-run is awaited")

    def reread(self, found: Awaited) -> Awaited | None:
        """Read its record."""
        record = self._records.get(found.job_id)
        return None if record is None else Awaited(found.job_id, found.looked_at, record)

    def act(self, found: Awaited, verdict: Verdict) -> bool:
        """Do what can be done now; False when it has to wait on."""
        del verdict  # there is but one
        if found.record is None:
            raise SweepError("the record was not read")
        now = self._clock()
        self._looked[str(found.job_id)] = now
        settled = self._reruns.settle(found.record, deadline=now + _QUESTION_SECONDS)
        return settled is Settled.SETTLED
