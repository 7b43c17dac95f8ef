"""Kept reports: sent again once each, and only in the name of the instance that wrote them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from runsfleet_runtime.contract.messages import ReportStatus, RunnerReport
from runsfleet_runtime.contract.paths import kept_report_key
from runsfleet_runtime.housekeeping.kept_reports import KeptReport, KeptReports
from runsfleet_runtime.housekeeping.model import TaskReport
from runsfleet_runtime.housekeeping.ports import SweepError
from tests.unit.housekeeping.frame import NOW, Frame

ROLE = "AROAEXAMPLE"
DAY = 24 * 3600.0


def report(instance_id: str = "i-1") -> RunnerReport:
    """Return an ending."""
    return RunnerReport(instance_id=instance_id, job_id=5, status=ReportStatus.FAILURE, run_id=7)


@dataclass
class World:
    """The bucket and the termination queue."""

    objects: dict[str, str] = field(default_factory=dict)
    written_at: float = NOW - 60
    sent: list[RunnerReport] = field(default_factory=list)
    is_queue_down: bool = False
    is_bucket_down: bool = False
    frame: Frame = field(default_factory=Frame)
    reads: int = 0

    def pages(self, prefix: str) -> Iterator[Sequence[KeptReport]]:
        if self.is_bucket_down:
            raise SweepError("SlowDown")
        yield [
            KeptReport(key=k, size=len(v), written_at=self.written_at)
            for k, v in self.objects.items()
            if k.startswith(prefix)
        ]

    def read(self, key: str) -> str | None:
        self.reads += 1
        return self.objects.get(key)

    def delete(self, key: str) -> None:
        del self.objects[key]

    def send(self, report: RunnerReport) -> None:
        if self.is_queue_down:
            raise SweepError("the queue did not take it")
        self.sent.append(report)

    def sweep(self) -> TaskReport:
        return self.frame.run(KeptReports(bucket=self, queue=self, role_id=ROLE))


def test_report_is_sent_then_deleted() -> None:
    """It goes to the queue as the agent would have sent it."""
    world = World({kept_report_key(ROLE, "i-1"): report().to_json(), "runners/x": "{}"})
    world.sweep()
    assert world.sent == [report()]
    assert list(world.objects) == ["runners/x"]


def test_report_stays_until_the_queue_has_it() -> None:
    """Send, then delete: a report may arrive twice, never not at all."""
    world = World({kept_report_key(ROLE, "i-1"): report().to_json()}, is_queue_down=True)
    assert world.sweep().failures == 1
    assert len(world.objects) == 1


@pytest.mark.parametrize(
    ("key", "content", "fault"),
    [
        (kept_report_key(ROLE, "i-2"), report("i-1").to_json(), "of another instance"),
        (kept_report_key("AROAOTHER", "i-1"), report("i-1").to_json(), "of another instance"),
        (kept_report_key(ROLE, "i-1"), '{"instance_id": 1}', "not readable"),
        (kept_report_key(ROLE, "i-1"), "x" * 70_000, "too large"),
    ],
)
def test_what_is_no_report_of_its_instance_is_refused(key: str, content: str, fault: str) -> None:
    """IAM binds a key to an instance, so the key says whose word counts; a week later it goes."""
    world = World({key: content})
    (verdict,) = world.sweep().verdicts
    assert fault in verdict
    assert world.sent == []
    assert key in world.objects
    world.written_at = NOW - 8 * DAY
    world.sweep()
    assert world.sent == []
    assert world.objects == {}


def test_large_object_is_not_read() -> None:
    """Whatever an instance puts there, the sweep's memory is its own."""
    world = World({kept_report_key(ROLE, "i-1"): "x" * 70_000})
    world.sweep()
    assert world.reads == 0


def test_bucket_that_does_not_answer_fails_the_run() -> None:
    """It is not an empty folder."""
    with pytest.raises(SweepError):
        World(is_bucket_down=True).sweep()
