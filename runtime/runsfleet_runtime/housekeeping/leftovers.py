"""What carries this fleet's tags and seems to be of no use: marked first, ended in a later pass.

Between the two passes lies at least ``MARKED_SECONDS``, so that what looked left over for a moment
(a table that was slow, an index that lagged, a volume between two instances) is not ended for it.
Whoever set the keep tag wins over every rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from runsfleet_runtime.contract.messages import HousekeepingTask
from runsfleet_runtime.housekeeping.model import Run, Verdict, spare

MARKED_SECONDS: Final = 300.0
"""Least time between the mark and the end."""
UNUSED_SECONDS: Final = 3600.0
"""So long a volume or interface must have been seen unused; EC2 tells since when of neither."""

CONDEMN: Final = "condemn"
PARDON: Final = "pardon"
END: Final = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """An instance, volume or network interface of the fleet.

    Attributes:
        key: Its id.
        state: EC2's word for its state.
        since: Epoch seconds of its launch or creation; 0 when EC2 does not tell.
        pool: Its pool; empty when it has none.
        is_kept: Whether an operator said that no sweep may touch it.
        condemned_at: Epoch seconds of its mark; 0 when it has none.
    """

    key: str
    state: str
    since: float = 0.0
    pool: str = ""
    is_kept: bool = False
    condemned_at: float = 0.0


def condemn(
    found: Leftover,
    *,
    guilt: str = "",
    innocence: str = "",
    now: float,
    wait: float = MARKED_SECONDS,
) -> Verdict:
    """Judge what may be left over by what is known against it.

    Args:
        found: What it is.
        guilt: Why it is left over; empty when it is not.
        innocence: Why it is not.
        now: Epoch seconds.
        wait: Least seconds between the mark and the end.

    Example:
        >>> volume = Leftover(key="vol-1", state="available", condemned_at=100.0)
        >>> str(condemn(volume, guilt="unused", now=399.0))
        'spared: condemned, its time is not up'
        >>> str(condemn(volume, guilt="unused", now=400.0))
        'end: unused'
    """
    if found.is_kept:
        return spare("it has the keep tag")
    if not guilt:
        return Verdict(PARDON, innocence) if found.condemned_at else spare(innocence)
    if not found.condemned_at or found.condemned_at > now + wait:
        return Verdict(CONDEMN, guilt)
    if now - found.condemned_at < wait:
        return spare("condemned, its time is not up")
    return Verdict(END, guilt)


class EndsLeftovers(Protocol):
    """EC2, as these tasks need it. All methods raise ``SweepError`` when EC2 does not answer."""

    def pages(self) -> Iterator[Sequence[Leftover]]:
        """Yield what there is, page by page."""

    def find(self, key: str) -> Leftover | None:
        """Return one of them as it is now; ``None`` when it is none of them any more."""

    def mark(self, key: str, *, at: float) -> None:
        """Note that it is condemned."""

    def unmark(self, key: str) -> None:
        """Take that note away."""

    def end(self, key: str) -> None:
        """End it; may be repeated."""


def carry_out(resources: EndsLeftovers, key: str, verdict: Verdict, *, now: float) -> bool:
    """Do what was decided on."""
    match verdict.action:
        case "condemn":
            resources.mark(key, at=now)
        case "pardon":
            resources.unmark(key)
        case _:
            resources.end(key)
    return True


class LeftoverResources:
    """The task of volumes, and the one of network interfaces.

    An instance's own go with it. What stays was left by an instance that EC2 could not end cleanly,
    or was made by a job with our tags.

    Args:
        resources: EC2.
        name: Which of the two tasks it is.
        clock: Returns epoch seconds.
    """

    limit: Final = 200

    def __init__(
        self, resources: EndsLeftovers, *, name: HousekeepingTask, clock: Callable[[], float]
    ) -> None:
        self._resources = resources
        self._name = name
        self._clock = clock

    @property
    def name(self) -> HousekeepingTask:
        """Which of the two tasks it is."""
        return self._name

    def select(self, run: Run) -> Iterator[Sequence[Leftover]]:
        """Yield what is unused now."""
        del run
        return self._resources.pages()

    def key(self, found: Leftover) -> str:
        """Return its id."""
        return found.key

    def decide(self, found: Leftover, *, now: float) -> Verdict:
        """Condemn what is unused; end it when it was seen so for an hour."""
        return condemn(found, guilt="nothing uses it", now=now, wait=UNUSED_SECONDS)

    def reread(self, found: Leftover) -> Leftover | None:
        """Read it again; one that is in use is gone from here."""
        return self._resources.find(found.key)

    def act(self, found: Leftover, verdict: Verdict) -> bool:
        """Mark it or end it."""
        return carry_out(self._resources, found.key, verdict, now=self._clock())
