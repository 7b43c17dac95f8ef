"""The counters of the caps on runners, compared with the records that they count.

A counter moves in one transaction with its record, so a difference is a fault of ours or of
somebody who wrote to a table by hand. A count of thousands of records is not taken in one moment
either: while jobs come and go it differs without any fault. So a counter is put right only when two
runs in a row saw the same counter and the same count, and the write names the counter that was
seen. Until then the difference is told in the report.

What is remembered (``Run.state``): under ``seen`` the differences of the last run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from runsfleet_runtime.contract.messages import HousekeepingTask
from runsfleet_runtime.housekeeping.model import Run, Verdict, spare
from runsfleet_runtime.telemetry.log import get_logger

log = get_logger("housekeeping")


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """A counter and what it should be.

    Attributes:
        scope: Of the cap, such as ``owner:acme``.
        used: What the counter says.
        held: How many records hold a slot of this scope.
        is_confirmed: Whether the last run saw the same two numbers.
    """

    scope: str
    used: int
    held: int
    is_confirmed: bool = False


def decide(found: Count) -> Verdict:
    """Judge a counter.

    Example:
        >>> str(decide(Count(scope="fleet", used=3, held=2)))
        'spared: differs, to be seen once more'
    """
    if found.used == found.held:
        return spare("right")
    if not found.is_confirmed:
        return spare("differs, to be seen once more")
    return Verdict("repair", "differs")


class CountsSlots(Protocol):
    """The tables of slots and of jobs. All methods raise ``SweepError`` on no answer."""

    def used(self) -> Mapping[str, int]:
        """Return all counters by their scope."""

    def held(self) -> Mapping[str, int]:
        """Count the records that hold a slot, by scope."""

    def repair(self, scope: str, *, seen: int, right: int) -> bool:
        """Set a counter that is as it was seen; whether it was."""


class Slots:
    """The task.

    Args:
        slots: The tables.
        is_capped: Whether there is any cap: without one nothing is counted.
    """

    name: Final = HousekeepingTask.SLOTS
    limit: Final = 20

    def __init__(self, slots: CountsSlots, *, is_capped: bool) -> None:
        self._slots = slots
        self._is_capped = is_capped

    def select(self, run: Run) -> Iterator[Sequence[Count]]:
        """Yield all counters."""
        before = run.state.pop("seen", {})
        if not self._is_capped:
            return
        counts = self._count()
        differing = [c for c in counts if c.used != c.held]
        run.state["seen"] = {c.scope: [c.used, c.held] for c in differing}
        for count in differing:
            log.warning(
                "slots differ",
                extra={"scope": count.scope, "used": count.used, "held": count.held},
            )
        yield [
            Count(
                scope=c.scope,
                used=c.used,
                held=c.held,
                is_confirmed=before.get(c.scope) == [c.used, c.held],
            )
            for c in counts
        ]

    def _count(self) -> list[Count]:
        held, used = self._slots.held(), self._slots.used()
        return [
            Count(scope=scope, used=used.get(scope, 0), held=held.get(scope, 0))
            for scope in sorted({*used, *held})
        ]

    def key(self, found: Count) -> str:
        """Return the scope."""
        return found.scope

    def decide(self, found: Count, *, now: float) -> Verdict:
        """Judge; see :func:`decide`."""
        del now
        return decide(found)

    def reread(self, found: Count) -> Count | None:
        """Count once more; only the same two numbers convict."""
        again = next((c for c in self._count() if c.scope == found.scope), None)
        if again is None or (again.used, again.held) != (found.used, found.held):
            return None
        return found

    def act(self, found: Count, verdict: Verdict) -> bool:
        """Put the counter right."""
        del verdict
        return self._slots.repair(found.scope, seen=found.used, right=found.held)
