"""Notices of EC2, from a metadata service that answers, fails or talks nonsense."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from runsfleet_runtime.agent.clock import SignalClock
from runsfleet_runtime.agent.imds import Imds
from runsfleet_runtime.agent.notices import NoticeWatch, SpotNotice, parse_time
from tests.unit.agent.fakes import INSTANCE_ID, FakeClock, FakeNotices
from tests.unit.agent.servers import ImdsState, imds_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def metadata() -> Iterator[ImdsState]:
    """Serve metadata."""
    with imds_server(INSTANCE_ID) as state:
        yield state


def imds(state: ImdsState) -> Imds:
    """Return a client that does not wait."""
    return Imds(state.url, pause=lambda _: None, draw=lambda: 0.0)


def test_no_notice_is_none(metadata: ImdsState) -> None:
    """404 means that nothing was announced; the token is asked for once."""
    client = imds(metadata)
    for _ in range(3):
        assert client.spot_notice() is None
        assert client.rebalance_notice() is None
    assert metadata.requests.count("PUT /latest/api/token") == 1


def test_an_announced_interruption_is_read(metadata: ImdsState) -> None:
    """The action and its time come as EC2 writes them."""
    metadata.spot = '{"action": "terminate", "time": "2026-11-20T11:02:00Z"}'
    metadata.rebalance = '{"noticeTime": "2026-11-20T10:59:00Z"}'
    client = imds(metadata)
    assert client.spot_notice() == SpotNotice("terminate", parse_time("2026-11-20T11:02:00Z"))
    assert client.rebalance_notice() == "2026-11-20T10:59:00Z"


@pytest.mark.parametrize("body", ["", "<html>proxy</html>", "[]", "{}", "null", '"terminate"'])
def test_nonsense_is_no_notice(metadata: ImdsState, body: str) -> None:
    """What is no notice is a failure to answer, and stops nothing."""
    metadata.spot = metadata.rebalance = body
    clock = FakeClock()
    client = imds(metadata)
    with pytest.raises(OSError, match="no spot notice"):
        client.spot_notice()
    assert not NoticeWatch(client, clock).look()
    assert clock.stop is None


def test_a_failing_service_is_no_notice(metadata: ImdsState) -> None:
    """Errors and refused tokens are not read as an interruption, and the next look works."""
    clock = FakeClock()
    watch = NoticeWatch(imds(metadata), clock)
    metadata.failures = 1
    assert not watch.look()
    metadata.spot = '{"action": "stop"}'
    metadata.expired_tokens = 1
    assert not watch.look()
    assert watch.look()
    assert clock.stop == "a spot interruption (stop)"
    assert clock.stop_by is None


def test_a_notice_stops_the_agent_by_its_time() -> None:
    """The clock is told by when all must be over."""
    clock, notices = FakeClock(), FakeNotices()
    watch = NoticeWatch(notices, clock)
    at = clock.now().replace(microsecond=0)
    notices.spot = SpotNotice("terminate", at)
    clock.time -= 120
    assert watch.look()
    assert clock.stop_by == pytest.approx(clock.time + 120, abs=1)
    assert clock.stop is not None
    assert "terminate at 2026-11-20T" in clock.stop


def test_a_rebalance_recommendation_stops_nothing() -> None:
    """It is kept for the report; a job is not broken off for a risk."""
    clock, notices = FakeClock(), FakeNotices()
    notices.rebalance = "2026-11-20T10:59:00Z"
    watch = NoticeWatch(notices, clock)
    assert not watch.look()
    assert watch.rebalance == "2026-11-20T10:59:00Z"
    assert clock.stop is None


def test_the_watch_looks_again_and_again() -> None:
    """It goes on through failures until there is a notice, then it rests."""
    clock, notices = SignalClock(), FakeNotices()
    notices.spot = OSError("no route")
    watch = NoticeWatch(notices, clock, interval=0.01)
    watch.start()
    end = time.monotonic() + 5
    while notices.looks < 5 and time.monotonic() < end:
        time.sleep(0.01)
    assert not stopped_by(clock)
    notices.spot = SpotNotice("terminate", None)
    while not stopped_by(clock) and time.monotonic() < end:
        time.sleep(0.01)
    assert stopped_by(clock) == "a spot interruption (terminate)"
    watch.stop()


def stopped_by(clock: SignalClock) -> str:
    """Return who stopped the agent; empty for nobody."""
    return clock.stop_requested or ""


def test_the_nearest_time_and_the_first_reason_count() -> None:
    """A second request may shorten what is left, and does not hide who asked first."""
    clock = SignalClock()
    clock.request_stop("SIGTERM")
    clock.request_stop("a spot interruption", within=100)
    clock.request_stop("another", within=1000)
    assert clock.stop_requested == "SIGTERM"
    assert clock.stop_by is not None
    assert clock.stop_by - clock.monotonic() <= 100
