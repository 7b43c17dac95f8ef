"""What yesterday cost is told once, whatever the hour and however often the sweep runs."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from runsfleet_runtime.housekeeping.cost_report import REPORTED, CostReports
from runsfleet_runtime.housekeeping.model import SweepOutcome
from runsfleet_runtime.housekeeping.ports import SweepError
from tests.unit.housekeeping.frame import Frame

LEASE = "sweep:cost_report"


class Reports:
    """The daily report; keeps which days it was asked for."""

    def __init__(self) -> None:
        self.made = 0
        self.days: list[date] = []
        self.fails = False

    def __call__(self) -> Reports:
        self.made += 1
        return self

    def run(self, day: date) -> None:
        if self.fails:
            raise RuntimeError("the table did not answer")
        self.days.append(day)


def at(*moment: int) -> Frame:
    """Return a frame whose clock stands at a moment of UTC."""
    year, month, day, hour = moment
    return Frame(now=datetime(year, month, day, hour, tzinfo=UTC).timestamp())


def test_yesterday_is_reported_once() -> None:
    """The second run of a day makes nothing; the next day's reports the next day."""
    reports, frame = Reports(), at(2026, 11, 21, 8)
    task = CostReports(reports, zone="Europe/Berlin")
    assert frame.run(task).acted == 1
    again = frame.run(task)
    assert (again.acted, again.spared) == (0, 1)
    assert (reports.days, reports.made) == ([date(2026, 11, 20)], 1)
    frame.now += 24 * 3600
    frame.run(task)
    assert reports.days == [date(2026, 11, 20), date(2026, 11, 21)]


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("UTC", date(2026, 2, 27)),
        ("Asia/Tokyo", date(2026, 2, 28)),
        ("America/Los_Angeles", date(2026, 2, 27)),
    ],
)
def test_yesterday_is_the_zones(zone: str, day: date) -> None:
    """At eight in the evening of the last day of February in London it is March in Tokyo."""
    reports = Reports()
    at(2026, 2, 28, 20).run(CostReports(reports, zone=zone))
    assert reports.days == [day]


def test_what_failed_is_not_noted() -> None:
    """The run has failed, so that its message comes back, and the day is still due then."""
    reports, frame = Reports(), at(2026, 11, 21, 8)
    task = CostReports(reports, zone="UTC")
    reports.fails = True
    with pytest.raises(SweepError, match="2026-11-20 could not be reported"):
        frame.run(task)
    assert frame.outcomes[LEASE] is SweepOutcome.FAILED
    assert REPORTED not in frame.states[LEASE]
    reports.fails = False
    assert frame.run(task).outcome is SweepOutcome.SUCCEEDED
    assert reports.days == [date(2026, 11, 20)]
