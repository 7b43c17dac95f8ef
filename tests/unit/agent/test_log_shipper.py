"""The log's way to the service, with a service that takes, fails, refuses or hangs."""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING

import pytest

from runsfleet_runtime.agent.errors import LogsRefusedError
from runsfleet_runtime.agent.log_batches import LogBatch, LogEvent
from runsfleet_runtime.agent.log_shipper import LogShipper, NoLogs, ShippingHandler
from runsfleet_runtime.agent.log_spool import Spool
from runsfleet_runtime.agent.masking import Masker
from tests.unit.agent.fakes import FakeLogService

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BIG = "x" * 200_000  # five make a batch


def eventually(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def service() -> FakeLogService:
    """Give a service."""
    return FakeLogService()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """Give a spool."""
    return Spool(tmp_path / "log")


@pytest.fixture
def shipper(service: FakeLogService, spool: Spool) -> LogShipper:
    """Give a shipper whose lines wait for hardly anything."""
    return LogShipper(service, spool=spool, mask=Masker(), draw=lambda: 0.0, interval=0.05)


def test_lines_before_the_stream_is_known_are_shipped(
    service: FakeLogService, shipper: LogShipper
) -> None:
    """What was logged before the job was known is in its stream too, first."""
    shipper.write(1, "early")
    shipper.begin("i-1/5")
    shipper.write(2, "late")
    assert shipper.close(5)
    assert service.lines("i-1/5") == ["early", "late"]


def test_lines_wait_for_others_but_not_long(service: FakeLogService, shipper: LogShipper) -> None:
    """Lines of one interval are one batch, which is sent without more lines to come."""
    shipper.begin("s")
    for number in range(100):
        shipper.write(number, str(number))
    eventually(lambda: bool(service.batches))
    assert service.lines() == [str(n) for n in range(100)]
    assert len(service.batches) == 1
    assert shipper.close(5)


def test_a_full_batch_does_not_wait(service: FakeLogService, spool: Spool) -> None:
    """A megabyte is sent at once."""
    shipper = LogShipper(service, spool=spool, mask=Masker(), draw=lambda: 0.0, interval=600)
    shipper.begin("s")
    for _ in range(6):
        shipper.write(1, BIG)
    eventually(lambda: len(service.lines()) == 5)
    assert shipper.close(5)
    assert len(service.lines()) == 6


def test_order_is_kept_through_failures(service: FakeLogService, shipper: LogShipper) -> None:
    """A throttled service gets the same batch again, and then what came after."""
    service.failures = 2
    shipper.begin("s")
    for number in range(12):
        shipper.write(number, f"{number} {BIG}")
    assert shipper.close(10)
    assert [int(line.split()[0]) for line in service.lines() if line[0].isdigit()] == [*range(12)]


def test_a_hanging_service_holds_up_nobody(service: FakeLogService, shipper: LogShipper) -> None:
    """Lines are taken at once while a request hangs, and the end waits as long as it was told."""
    service.hold.clear()
    shipper.begin("s")
    shipper.write(1, "first")
    eventually(lambda: service.attempts == 1)
    since = time.monotonic()
    for _ in range(1000):
        shipper.write(2, "more")
    assert time.monotonic() - since < 1
    since = time.monotonic()
    assert not shipper.close(0.3)
    assert 0.2 < time.monotonic() - since < 3
    service.hold.set()


def test_a_network_that_comes_back_gets_everything(
    service: FakeLogService, spool: Spool, tmp_path: Path
) -> None:
    """What waits beyond a few megabytes waits on disk, and arrives in order and whole."""
    shipper = LogShipper(service, spool=spool, mask=Masker(), draw=lambda: 0.0, interval=0.05)
    service.hold.clear()
    shipper.begin("s")
    for number in range(40):
        shipper.write(number, f"{number} {BIG}")
    assert list((tmp_path / "log").glob("*.json"))
    service.hold.set()
    assert shipper.close(20)
    assert [int(line.split()[0]) for line in service.lines()] == [*range(40)]
    assert not (tmp_path / "log").exists()


def test_what_is_lost_is_told(service: FakeLogService, tmp_path: Path) -> None:
    """Beyond its bound the spool drops the oldest lines on disk, and a line says how many."""
    spool = Spool(tmp_path / "log", in_memory=1, max_disk_bytes=2_500_000)
    shipper = LogShipper(service, spool=spool, mask=Masker(), draw=lambda: 0.0, interval=0.05)
    logger = logging.getLogger("runsfleet.agent.shipper")
    handler = ShippingHandler(shipper)
    logger.addHandler(handler)
    try:
        service.hold.clear()
        shipper.begin("s")
        for number in range(40):
            shipper.write(number, f"{number} {BIG}")
        disk = sum(f.stat().st_size for f in (tmp_path / "log").iterdir())
        assert disk <= 2_500_000
        service.hold.set()
        eventually(lambda: "log lines lost" in service.lines())
    finally:
        logger.removeHandler(handler)
        shipper.close(5)
    numbers = [int(line.split()[0]) for line in service.lines() if line[0].isdigit()]
    assert numbers[0] == 0
    assert numbers == sorted(numbers)
    assert numbers[-1] == 39


def test_a_full_disk_loses_lines_only(service: FakeLogService, tmp_path: Path) -> None:
    """A spool that cannot write counts what it lost; writing a line never fails."""
    (tmp_path / "file").touch()
    spool = Spool(tmp_path / "file" / "log", in_memory=1)
    shipper = LogShipper(service, spool=spool, mask=Masker(), draw=lambda: 0.0)
    for number in range(20):
        shipper.write(number, BIG)
    assert spool.lost > 0
    shipper.begin("s")
    shipper.close(5)
    assert service.lines()


def test_what_is_refused_for_ever_is_left_out(service: FakeLogService, shipper: LogShipper) -> None:
    """A batch that the service calls invalid does not hold up what is behind it."""
    service.failure = LogsRefusedError("InvalidParameterException")
    shipper.begin("s")
    shipper.write(1, "bad")
    eventually(lambda: service.attempts == 1)
    service.failure = None
    shipper.write(2, "good")
    assert shipper.close(5)
    assert service.lines() == ["good"]


def test_other_lines_have_a_stream_of_their_own(
    service: FakeLogService, shipper: LogShipper
) -> None:
    """Diagnostics go to their stream, after what was logged before."""
    shipper.begin("s")
    shipper.write(1, "a")
    shipper.attach("s/diag", [(5, "d1"), (6, "d2 ghp_0123456789abcdefghijABCDEFGHIJ012345")])
    assert shipper.close(5)
    assert [(s, [e.text for e in events]) for s, events in service.batches] == [
        ("s", ["a"]),
        ("s/diag", ["d1", "d2 ***"]),
    ]


def test_lines_are_masked_before_they_are_kept(service: FakeLogService, tmp_path: Path) -> None:
    """No secret reaches the disk, where lines wait for the network."""
    mask = Masker()
    mask.learn("hunter2hunter2")
    spool = Spool(tmp_path / "log", in_memory=0)
    shipper = LogShipper(service, spool=spool, mask=mask, draw=lambda: 0.0)
    for _ in range(6):
        shipper.write(1, f"hunter2hunter2 {BIG}")
    (file,) = (tmp_path / "log").iterdir()
    assert "hunter2" not in file.read_text()
    shipper.close(0)


def test_a_shipper_that_never_began_closes(shipper: LogShipper) -> None:
    """An instance that does not even know itself has nowhere to send to."""
    shipper.write(1, "x")
    assert not shipper.close(5)


def test_lines_after_the_end_are_not_taken(service: FakeLogService, shipper: LogShipper) -> None:
    """What is logged after the last flush goes to standard output alone."""
    shipper.begin("s")
    assert shipper.close(5)
    shipper.write(1, "late")
    assert service.lines() == []


def test_no_logs_ship_nothing() -> None:
    """A fleet without a log group has a shipper that does nothing."""
    logs = NoLogs()
    logs.begin("s")
    logs.attach("s", [(1, "x")])
    assert logs.close(1)


class TestSpool:
    """Batches in their order."""

    def test_first_in_first_out(self, tmp_path: Path) -> None:
        """Whether in memory or on disk, batches come back as they went in."""
        spool = Spool(tmp_path / "log", in_memory=2)
        made = [LogBatch(f"s{n}", (LogEvent(n, f"ü{n}\udcff"),)) for n in range(6)]
        for batch in made:
            spool.append(batch)
        found = []
        while (batch := spool.first()) is not None:  # type: ignore[assignment]
            assert spool.first() == batch
            found.append(batch)
            spool.drop_first()
        assert found == made
        assert list((tmp_path / "log").iterdir()) == []

    def test_a_damaged_file_is_lost_and_counted(self, tmp_path: Path) -> None:
        """A file that cannot be read back does not stop what is behind it."""
        spool = Spool(tmp_path / "log", in_memory=0)
        for n in range(3):
            spool.append(LogBatch("s", (LogEvent(n, str(n)),)))
        first, *_ = sorted((tmp_path / "log").iterdir())
        first.write_text(json.dumps("nonsense"))
        batch = spool.first()
        assert batch is not None
        assert batch.events[0].text == "1"
        assert spool.lost == 1
