"""Closed jobs that are past their retention: archived as JSON Lines, then deleted.

Each batch is one object in the bucket, written before anything is deleted. Each deletion names the
record's last write, so that one that lives again stays. What a crash leaves between the two is
archived once more in the next run: the archive may hold a job twice, and never lacks one.

Gotcha: DynamoDB's own expiry of these records lies a week behind their retention, so that it takes
only what this could not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from runsfleet_runtime.contract.messages import HousekeepingTask
from runsfleet_runtime.contract.paths import archived_jobs_key
from runsfleet_runtime.contract.tables import JobAttr
from runsfleet_runtime.housekeeping.model import Run, Verdict, spare
from runsfleet_runtime.jobs.model import TERMINAL, JobStatus, Rerun

_AWAITED: Final = frozenset({Rerun.PENDING.value, Rerun.REQUESTED.value})

Record = Mapping[str, Any]
"""A record's attributes by their names, as plain text, numbers and lists."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Closed jobs of one status that are archived together.

    Attributes:
        ids: Their ids, oldest first.
        records: Those that may go; ``None`` as long as they were not read.
    """

    ids: tuple[str, ...]
    records: tuple[Record, ...] | None = None


def may_go(record: Record, *, before: float) -> bool:
    """Tell whether a record is closed for good and past its retention.

    Args:
        record: The record.
        before: Epoch seconds; the last write must lie before it.
    """
    return (
        record.get(JobAttr.STATUS) in TERMINAL
        and float(record.get(JobAttr.UPDATED_AT, before)) < before
        and record.get(JobAttr.RERUN) not in _AWAITED
    )


class KeepsOldJobs(Protocol):
    """The jobs table. All methods raise ``SweepError`` when it does not answer."""

    def ids(
        self, status: JobStatus, *, updated_before: float | None = None
    ) -> Iterator[Sequence[str]]:
        """Yield ids by an index, oldest first, up to a hundred at a time."""

    def records(self, ids: Sequence[str]) -> Sequence[Record]:
        """Read up to a hundred records, consistently."""

    def delete(self, records: Sequence[Record]) -> int:
        """Delete those that are as they were read; how many were."""


class KeepsArchives(Protocol):
    """The fleet's bucket."""

    def write(self, key: str, content: str) -> None:
        """Write an object; raises ``SweepError`` unless S3 has it for certain."""


class OldJobs:
    """The task; it acts on batches, and its report counts batches.

    Args:
        jobs: The jobs table.
        bucket: The fleet's bucket.
        retention: Seconds for which a closed job is kept.
        clock: Returns epoch seconds.
        new_id: Returns a fresh unique id.
    """

    name: Final = HousekeepingTask.OLD_JOBS
    limit: Final = 5000

    def __init__(
        self,
        *,
        jobs: KeepsOldJobs,
        bucket: KeepsArchives,
        retention: float,
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._jobs = jobs
        self._bucket = bucket
        self._retention = retention
        self._clock = clock
        self._new_id = new_id

    def select(self, run: Run) -> Iterator[Sequence[Batch]]:
        """Yield what the index says is closed and old enough."""
        before = run.now - self._retention
        for status in sorted(TERMINAL):
            for ids in self._jobs.ids(status, updated_before=before):
                yield [Batch(tuple(ids))]

    def key(self, found: Batch) -> str:
        """Return the ids of the first and the last job."""
        return f"jobs {found.ids[0]} to {found.ids[-1]}" if found.ids else "no jobs"

    def decide(self, found: Batch, *, now: float) -> Verdict:
        """Archive what is closed for good; an empty batch is spared."""
        del now
        if not found.ids or found.records == ():
            return spare("none may go")
        return Verdict("archive", "past its retention")

    def reread(self, found: Batch) -> Batch | None:
        """Read the records."""
        before = self._clock() - self._retention
        records = self._jobs.records(found.ids)
        return Batch(found.ids, tuple(r for r in records if may_go(r, before=before)))

    def act(self, found: Batch, verdict: Verdict) -> bool:
        """Write the archive, then delete."""
        del verdict
        records = found.records or ()
        day = datetime.fromtimestamp(self._clock(), UTC).date().isoformat()
        lines = [json.dumps(r, separators=(",", ":"), sort_keys=True) + "\n" for r in records]
        self._bucket.write(archived_jobs_key(day, self._new_id()), "".join(lines))
        return self._jobs.delete(records) > 0
