"""What the health of a fleet is read from. Each method raises ``NotReadError`` when it fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from runsfleet_runtime.health.model import LastRun, QueueDepth


class NotReadError(Exception):
    """Something did not answer."""


class CountsMessages(Protocol):
    """A queue."""

    def depth(self) -> QueueDepth:
        """Return how many messages it has."""


class CountsCircuits(Protocol):
    """The circuits of the breaker."""

    def open_circuits(self, *, now: float) -> int:
        """Return how many offerings are left out."""


class ListsRuns(Protocol):
    """What the sweeps did last."""

    def last_runs(self) -> Sequence[LastRun]:
        """Return the last run of each sweep."""
