"""What the daily report needs of the outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Protocol

from runsfleet_runtime.cost.model import Day, InstanceUse, Item, JobUse
from runsfleet_runtime.cost.report import CostReport
from runsfleet_runtime.cost.trends import Summary


class LedgerUnavailableError(Exception):
    """What ran could not be read: there is no report rather than one that is too low."""


class KeepsLedger(Protocol):
    """What ran."""

    def instances(self, day: Day) -> Iterable[InstanceUse]:
        """Return all instances that ran at some time of a day; others may be among them.

        Raises:
            LedgerUnavailableError: If not all could be read.
        """

    def jobs(self, day: Day, instances: Sequence[InstanceUse]) -> Iterable[JobUse]:
        """Return the jobs that ended within a day on these instances.

        Raises:
            LedgerUnavailableError: If not all could be read.
        """


class MeasuresServices(Protocol):
    """How much the supporting services were used."""

    def of(self, day: Day) -> Mapping[Item, float | None]:
        """Return how much of each item; ``None`` where that could not be measured."""


class KeepsReports(Protocol):
    """Where reports are kept."""

    def keep(self, report: CostReport) -> str:
        """Write a report and return its address."""

    def before(self, last: date) -> Sequence[Summary]:
        """Return what is known of the thirty days before a day."""


class Notifies(Protocol):
    """Tells people."""

    def tell(self, subject: str, text: str) -> None:
        """Tell; best effort."""
