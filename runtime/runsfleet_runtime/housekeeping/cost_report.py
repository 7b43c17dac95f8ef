"""What yesterday cost, told once: the daily report as a sweep.

A day is the configured zone's. A report that fails fails the run, so that the message comes back:
the next schedule is about another day. A day that was reported is left alone, however often the
sweep is asked for. A crash between the report and the note of it reports the day once more: the
files are written over, and people are told twice rather than not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final, Protocol

from runsfleet_runtime.contract.messages import HousekeepingTask
from runsfleet_runtime.cost.model import time_zone
from runsfleet_runtime.housekeeping.model import Run, Verdict, spare
from runsfleet_runtime.housekeeping.ports import SweepError

REPORTED: Final = "reported"
"""What is remembered: the last day that was reported, as ISO 8601 has it."""


class ReportsDays(Protocol):
    """The daily report; see :class:`runsfleet_runtime.cost.daily.DailyReport`."""

    def run(self, day: date) -> object:
        """Report on a day."""


@dataclass(frozen=True, slots=True)
class Due:
    """A day that is over.

    Attributes:
        day: The day.
        is_reported: Whether it was reported already.
    """

    day: date
    is_reported: bool


class CostReports:
    """The sweep.

    Args:
        reports: Makes the daily report; only called when a day is due.
        zone: Time zone whose days they are.
    """

    name: Final = HousekeepingTask.COST_REPORT
    limit: Final = 1

    def __init__(self, reports: Callable[[], ReportsDays], *, zone: str) -> None:
        self._reports = reports
        self._zone = time_zone(zone)
        self._done: list[date] = []

    def select(self, run: Run) -> Iterator[Sequence[Due]]:
        """Return yesterday; remember it once it was reported.

        Raises:
            SweepError: If it was due and could not be reported; the log tells why.
        """
        self._done.clear()
        yesterday = datetime.fromtimestamp(run.now, self._zone).date() - timedelta(days=1)
        due = Due(yesterday, str(run.state.get(REPORTED, "")) >= yesterday.isoformat())
        yield [due]
        if due.is_reported:
            return
        if not self._done:
            raise SweepError(f"{yesterday} could not be reported")
        run.state[REPORTED] = yesterday.isoformat()

    def key(self, found: Due) -> str:
        """Return the day."""
        return found.day.isoformat()

    def decide(self, found: Due, *, now: float) -> Verdict:
        """Report what was not reported."""
        del now
        if found.is_reported:
            return spare("it was reported already")
        return Verdict("report", "the day is over")

    def reread(self, found: Due) -> Due:
        """Return the day: nothing about it can change while the lease is held."""
        return found

    def act(self, found: Due, verdict: Verdict) -> bool:
        """Report."""
        del verdict
        self._reports().run(found.day)
        self._done.append(found.day)
        return True
