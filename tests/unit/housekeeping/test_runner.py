"""The frame of all sweeps: lease, time, the second look, and a failure that is not "nothing"."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest

from runsfleet_runtime.contract.messages import HousekeepingTask
from runsfleet_runtime.housekeeping.model import Run, SweepOutcome, Verdict, spare
from runsfleet_runtime.housekeeping.ports import SweepError
from tests.unit.housekeeping.frame import Frame

LEASE = "sweep:old_jobs"


@dataclass(frozen=True)
class Thing:
    """What the task below looks for."""

    number: int
    is_left_over: bool = True


@dataclass
class Things:
    """A task that removes numbers; what becomes of them can be changed at every step."""

    pages: list[list[Thing]]
    frame: Frame = field(default_factory=Frame)
    name: HousekeepingTask = HousekeepingTask.OLD_JOBS
    limit: int = 100
    broken_page: int | None = None
    unreadable: set[int] = field(default_factory=set)
    stuck: set[int] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)
    used_again: set[int] = field(default_factory=set)
    changed: set[int] = field(default_factory=set)
    seconds_an_act: float = 0.0
    reread_: list[int] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)
    read: int = 0

    def select(self, run: Run) -> Iterator[Sequence[Thing]]:
        run.state["runs"] = run.state.get("runs", 0) + 1
        for number, page in enumerate(self.pages):
            if number == self.broken_page:
                raise SweepError("a reserved word")
            self.read += 1
            yield page

    def key(self, found: Thing) -> str:
        return f"thing-{found.number}"

    def decide(self, found: Thing, *, now: float) -> Verdict:
        assert now >= self.frame.now - 1
        return Verdict("remove", "left over") if found.is_left_over else spare("in use")

    def reread(self, found: Thing) -> Thing | None:
        self.reread_.append(found.number)
        if found.number in self.unreadable:
            raise SweepError("throttled")
        if found.number in self.gone:
            return None
        return replace(found, is_left_over=found.number not in self.used_again)

    def act(self, found: Thing, verdict: Verdict) -> bool:
        assert verdict.action == "remove"
        self.frame.now += self.seconds_an_act
        if found.number in self.stuck:
            raise SweepError("refused")
        if found.number in self.changed:
            return False
        self.removed.append(found.number)
        return True


def things(*numbers: int) -> list[Thing]:
    """Return left-over things."""
    return [Thing(n) for n in numbers]


def test_leftovers_are_ended_and_counted() -> None:
    """Only what is judged left over is read again and acted on; the report counts all."""
    task = Things([[Thing(1), Thing(2, is_left_over=False)], [Thing(3)]])
    report = task.frame.run(task)
    assert task.removed == [1, 3]
    assert task.reread_ == [1, 3]
    assert (report.selected, report.acted, report.spared, report.failures) == (3, 2, 1, 0)
    assert report.verdicts == {"remove: left over": 2, "spared: in use": 1}
    assert task.frame.outcomes == {LEASE: SweepOutcome.SUCCEEDED}
    assert task.frame.counted == {"SweepRuns": 1, "SweepActions:old_jobs": 2}


def test_the_second_look_decides() -> None:
    """What is gone, in use again or changed in the moment of the act survives."""
    task = Things([things(1, 2, 3, 4)], gone={1}, used_again={2}, changed={3})
    report = task.frame.run(task)
    assert task.removed == [4]
    assert (report.acted, report.spared) == (1, 3)
    assert set(report.verdicts) == {
        "spared: gone meanwhile",
        "spared: in use",
        "spared: changed meanwhile",
        "remove: left over",
    }


def test_one_failure_does_not_hide_the_others() -> None:
    """What cannot be read again or acted on is counted by itself; the rest is done."""
    task = Things([things(1, 2, 3)], unreadable={1}, stuck={2})
    report = task.frame.run(task)
    assert task.removed == [3]
    assert (report.failures, report.outcome) == (2, SweepOutcome.SUCCEEDED)
    assert report.failed == ("thing-1: throttled", "thing-2: refused")
    assert task.frame.counted["SweepFailures:old_jobs"] == 2


def test_failed_reads_are_not_nothing_found() -> None:
    """A run that cannot read acts on nothing more, fails, and lets its message come back."""
    task = Things([things(1), things(2)], broken_page=1)
    with pytest.raises(SweepError, match="reserved"):
        task.frame.run(task)
    assert task.removed == [1]
    assert task.frame.outcomes == {LEASE: SweepOutcome.FAILED}
    assert task.frame.counted["SweepRunsFailed"] == 1
    nothing = Things([])
    assert nothing.frame.run(nothing).outcome is SweepOutcome.SUCCEEDED
    assert nothing.frame.counted == {"SweepRuns": 1}


def test_run_whose_every_action_fails_has_failed() -> None:
    """A sweep that never succeeds at anything does not look like one that works."""
    task = Things([things(1, 2)], stuck={1, 2})
    assert task.frame.run(task).outcome is SweepOutcome.FAILED
    assert task.frame.counted["SweepRunsFailed"] == 1


def test_two_runs_never_overlap() -> None:
    """While one run holds the lease another does nothing, and its message is done with."""
    task = Things([things(1)])
    task.frame.held.add(LEASE)
    assert task.frame.run(task).outcome is SweepOutcome.SKIPPED
    assert task.removed == []
    assert task.frame.counted == {}


def test_nothing_runs_without_a_lease() -> None:
    """When the table of leases does not answer the message comes back."""
    task = Things([things(1)])
    task.frame.is_leases_table_down = True
    with pytest.raises(SweepError):
        task.frame.run(task)
    assert task.removed == []


def test_run_stops_before_the_function_is_cut_off() -> None:
    """Short of time the run ends cleanly, reads no further page, and the next one goes on."""
    task = Things([things(1, 2, 3), things(4)], seconds_an_act=150.0)
    report = task.frame.run(task)
    assert task.removed == [1, 2]
    assert report.is_unfinished
    assert report.outcome is SweepOutcome.SUCCEEDED
    assert task.read == 1
    assert task.frame.held == set()


def test_limit_bounds_a_mistake() -> None:
    """No run acts more often than its task allows, failed tries included."""
    task = Things([things(1, 2, 3, 4)], limit=3, stuck={1})
    report = task.frame.run(task)
    assert task.removed == [2, 3]
    assert report.is_unfinished


def test_task_remembers_from_run_to_run() -> None:
    """What a task leaves in its state is there the next time, also after a failed run."""
    task = Things([things(1)], broken_page=0)
    with pytest.raises(SweepError):
        task.frame.run(task)
    task.broken_page = None
    task.frame.run(task)
    assert task.frame.states[LEASE] == {"runs": 2}


def test_report_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Each act and the whole report stand in the log, with the reason."""
    task = Things([things(7)])
    with caplog.at_level("INFO", logger="runsfleet"):
        task.frame.run(task)
    lines = [r for r in caplog.records if r.name == "runsfleet.housekeeping"]
    assert [r.getMessage() for r in lines] == ["swept", "sweep done"]
    assert re.search(r"thing-7.*left over", str(vars(lines[0])))
    assert vars(lines[1])["acted"] == 1
