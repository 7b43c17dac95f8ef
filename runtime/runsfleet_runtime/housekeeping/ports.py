"""The one shape of all tasks, and what a run needs of the outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from runsfleet_runtime.contract.messages import HousekeepingTask
from runsfleet_runtime.housekeeping.model import Run, SweepOutcome, Verdict

Found = TypeVar("Found")


class SweepError(Exception):
    """AWS or GitHub did not answer: nothing is known, and nothing may be concluded from it."""


class Task(Protocol[Found]):
    """A sweep.

    The runner calls its steps in this order, for each thing that was selected::

        select -> decide -> (only a suspect:) reread -> decide -> act

    Every step but ``decide`` may raise any exception. In ``select`` it fails the whole run; in the
    others it counts as a failure of that one thing, which the next run finds again.
    """

    @property
    def name(self) -> HousekeepingTask:
        """Which task it is."""

    @property
    def limit(self) -> int:
        """Most actions in a run; what is left waits for the next one.

        It bounds what a mistake can do before somebody sees it.
        """

    def select(self, run: Run) -> Iterable[Sequence[Found]]:
        """Return what may be left over, page by page; each page is read when it is its turn."""

    def key(self, found: Found) -> str:
        """Return what people call it, such as an instance's id."""

    def decide(self, found: Found, *, now: float) -> Verdict:
        """Judge; a pure function. It is called twice for a suspect, the second time for good."""

    def reread(self, found: Found) -> Found | None:
        """Read a suspect again, consistently, and all that is costly to ask; ``None`` if gone."""

    def act(self, found: Found, verdict: Verdict) -> bool:
        """Act on what was just read; False if it was another by then and nothing was done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to run a task.

    Attributes:
        name: What it is for, such as ``sweep:orphaned_instances``.
        owner: Who holds it; unique to a run.
        state: What the last holder left.
    """

    name: str
    owner: str
    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRow:
    """A row of the leases table.

    Attributes:
        name: What it is for.
        ends_at: Epoch seconds at which the lease ends; 0 when it was given back.
        ran_at: Epoch seconds of its last use's end; 0 when it was never given back.
    """

    name: str
    ends_at: float
    ran_at: float


class KeepsLeases(Protocol):
    """The leases table."""

    def acquire(self, name: str, *, owner: str, ends_at: float, now: float) -> Lease | None:
        """Take a lease that is free or has ended; ``None`` while somebody else holds it.

        Raises:
            SweepError: If the table did not answer.
        """

    def release(
        self, lease: Lease, *, state: Mapping[str, Any], outcome: SweepOutcome, now: float
    ) -> bool:
        """Give a lease back together with what is to be remembered; False if it was lost.

        Raises:
            SweepError: If the table did not answer; the lease ends by itself then.
        """
