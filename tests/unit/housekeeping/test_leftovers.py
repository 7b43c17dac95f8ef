"""Volumes and network interfaces: seen unused for an hour, then deleted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runsfleet_runtime.contract.messages import HousekeepingTask
from runsfleet_runtime.housekeeping.leftovers import Leftover, LeftoverResources
from runsfleet_runtime.housekeeping.model import TaskReport
from tests.unit.housekeeping.frame import NOW, Ec2, Frame

HOUR = 3600.0


def sweep(ec2: Ec2, frame: Frame, *, later: float = 0.0) -> TaskReport:
    """Run the task of volumes after some seconds."""
    frame.now += later
    name = HousekeepingTask.LEFTOVER_VOLUMES
    return frame.run(LeftoverResources(ec2, name=name, clock=frame.clock))


def unused(number: int = 1, **changes: Any) -> Leftover:
    """Return a volume that nothing uses."""
    found = Leftover(key=f"vol-{number}", state="available", since=NOW - 90 * HOUR)
    return replace(found, **changes)


def test_unused_for_an_hour_then_deleted() -> None:
    """However old it is, its hour begins when it is first seen unused."""
    ec2, frame = Ec2().add(unused()), Frame()
    sweep(ec2, frame)
    sweep(ec2, frame, later=HOUR - 1)
    assert ec2.ended == []
    sweep(ec2, frame, later=2)
    assert ec2.ended == ["vol-1"]


def test_used_again_right_before_the_end() -> None:
    """One that an instance took between the listing and the deletion stays."""
    ec2 = Ec2().add(unused(condemned_at=NOW - HOUR))
    ec2.on_find = ec2.there.pop
    report = sweep(ec2, Frame())
    assert report.verdicts == {"spared: gone meanwhile": 1}
    assert ec2.ended == []


def test_keep_tag_wins() -> None:
    """What an operator wants to keep is neither marked nor deleted."""
    ec2 = Ec2().add(replace(unused(condemned_at=NOW - 9 * HOUR), is_kept=True))
    assert sweep(ec2, Frame()).spared == 1
    assert ec2.ended == []


def test_mark_of_the_future_is_written_anew() -> None:
    """A mark from a clock that ran ahead neither ends a volume early nor keeps it for ever."""
    ec2, frame = Ec2().add(unused(condemned_at=NOW + 90 * HOUR)), Frame()
    sweep(ec2, frame)
    assert ec2.there["vol-1"].condemned_at == NOW


@pytest.mark.parametrize("count", [200, 400])
def test_cost_grows_with_the_number(count: int) -> None:
    """A re-read and a mark for each suspect, up to the limit of a run."""
    ec2 = Ec2().add(*(unused(n) for n in range(count)))
    report = sweep(ec2, Frame())
    assert report.acted == 200
    assert report.is_unfinished is (count > 200)
    assert (ec2.calls["find"], ec2.calls["mark"]) == (200, 200)
