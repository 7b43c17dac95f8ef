"""Rows of leases that nobody takes any more, say of a task that a newer version dropped.

A lease that has ended needs no sweep: whoever wants it takes it over. The row of a task that exists
stays however long it did not run, since it holds what the task remembers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from runsfleet_runtime.contract.messages import HousekeepingTask
from runsfleet_runtime.housekeeping.model import Run, Verdict, spare
from runsfleet_runtime.housekeeping.ports import LeaseRow
from runsfleet_runtime.housekeeping.runner import lease_name

UNUSED_SECONDS: Final = 24 * 3600.0
"""Since its end and its last use."""
_TASKS: Final = frozenset(lease_name(task) for task in HousekeepingTask)


def decide(row: LeaseRow, *, now: float) -> Verdict:
    """Judge a row.

    Example:
        >>> str(decide(LeaseRow(name="sweep:old_jobs", ends_at=0.0, ran_at=0.0), now=1e9))
        'spared: of a task that exists'
        >>> str(decide(LeaseRow(name="sweep:gone", ends_at=0.0, ran_at=0.0), now=1e9))
        'delete: of no task, and unused for long'
    """
    if row.name in _TASKS:
        return spare("of a task that exists")
    if now - max(row.ends_at, row.ran_at) <= UNUSED_SECONDS:
        return spare("used of late")
    return Verdict("delete", "of no task, and unused for long")


class ListsLeases(Protocol):
    """The leases table. Both methods raise ``SweepError`` when it does not answer."""

    def pages(self) -> Iterator[Sequence[LeaseRow]]:
        """Yield all rows, page by page."""

    def delete(self, row: LeaseRow) -> bool:
        """Delete a row if its lease is as it was read; whether it was."""


class ExpiredLeases:
    """The task.

    Args:
        leases: The leases table.
    """

    name: Final = HousekeepingTask.EXPIRED_LEASES
    limit: Final = 500

    def __init__(self, leases: ListsLeases) -> None:
        self._leases = leases

    def select(self, run: Run) -> Iterator[Sequence[LeaseRow]]:
        """Yield all rows."""
        del run
        return self._leases.pages()

    def key(self, found: LeaseRow) -> str:
        """Return the lease's name."""
        return found.name

    def decide(self, found: LeaseRow, *, now: float) -> Verdict:
        """Judge; see :func:`decide`."""
        return decide(found, now=now)

    def reread(self, found: LeaseRow) -> LeaseRow | None:
        """Return it as it was read: the deletion names what was seen."""
        return found

    def act(self, found: LeaseRow, verdict: Verdict) -> bool:
        """Delete it."""
        del verdict
        return self._leases.delete(found)
