"""Deliveries that did not arrive are delivered again."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runsfleet_runtime.github.errors import (
    NotFoundError,
    RateLimitedError,
    RefusedError,
    UnavailableError,
)
from runsfleet_runtime.github.model import Delivery, DeliveryPage
from runsfleet_runtime.housekeeping import lost_deliveries
from runsfleet_runtime.housekeeping.lost_deliveries import LostDeliveries
from runsfleet_runtime.housekeeping.model import SweepOutcome
from tests.unit.housekeeping.frame import NOW, Frame

LEASE = "sweep:lost_deliveries"
MINUTE, HOUR = 60.0, 3600.0


@dataclass
class Log:
    """GitHub's delivery log; redeliveries reach a webhook that is up or down."""

    frame: Frame
    page_size: int = 100
    entries: list[Delivery] = field(default_factory=list)
    is_webhook_up: bool = True
    requests: list[str] = field(default_factory=list)
    fault: Callable[[str], None] = lambda request: None

    def add(self, guid: str, *, age: float = MINUTE, ok: bool = False, **changes: object) -> int:
        entry = Delivery(
            **{
                "id": 2**53 + len(self.entries),
                "guid": guid,
                "delivered_at": self.frame.now - age,
                "is_redelivery": False,
                "is_ok": ok,
                "event": "workflow_job",
                "action": "queued",
            }
            | changes  # type: ignore[arg-type]
        )
        self.entries.append(entry)
        return entry.id

    def page(self, cursor: str | None = None) -> DeliveryPage:
        self._note(f"page {cursor or 'newest'}")
        newest_first = sorted(self.entries, key=lambda entry: (-entry.delivered_at, -entry.id))
        if cursor is not None:
            ids = [str(entry.id) for entry in newest_first]
            if cursor not in ids:
                raise RefusedError("invalid cursor", status=422)
            newest_first = newest_first[ids.index(cursor) + 1 :]
        page, rest = newest_first[: self.page_size], newest_first[self.page_size :]
        return DeliveryPage(tuple(page), str(page[-1].id) if rest else None)

    def redeliver(self, delivery_id: int) -> None:
        self._note(f"redeliver {delivery_id}")
        (old,) = (entry for entry in self.entries if entry.id == delivery_id)
        self.add(old.guid, age=0.0, ok=self.is_webhook_up, is_redelivery=True, action=old.action)

    def _note(self, request: str) -> None:
        self.fault(request)
        self.requests.append(request)

    @property
    def redelivered(self) -> list[str]:
        """The guids that were redelivered, in order."""
        by_id = {str(entry.id): entry.guid for entry in self.entries}
        return [
            by_id[request.split()[1]]
            for request in self.requests
            if request.startswith("redeliver")
        ]


@pytest.fixture
def frame() -> Frame:
    """Surround the task."""
    return Frame()


@pytest.fixture
def github(frame: Frame) -> Log:
    """Make a delivery log."""
    return Log(frame)


@pytest.fixture
def task(frame: Frame, github: Log) -> LostDeliveries:
    """Make the task."""
    return LostDeliveries(deliveries=github, metrics=frame, clock=frame.clock)


def later(frame: Frame, task: LostDeliveries, seconds: float = 5 * MINUTE) -> None:
    """Let time pass and run the task again."""
    frame.now += seconds
    frame.run(task)


def test_failed_delivery_is_redelivered_once(
    frame: Frame, github: Log, task: LostDeliveries
) -> None:
    """What failed is delivered again, and once that succeeded never more."""
    github.add("good", age=10 * MINUTE, ok=True)
    github.add("lost", age=6 * MINUTE)
    report = frame.run(task)
    assert (report.selected, report.acted, report.outcome) == (1, 1, SweepOutcome.SUCCEEDED)
    assert github.redelivered == ["lost"]
    for _ in range(5):
        later(frame, task)
    assert github.redelivered == ["lost"]
    assert frame.counted["DeliveriesRedelivered"] == 1
    assert not frame.states[LEASE]["open"]


@pytest.mark.parametrize("action", ["queued", "completed"])
def test_events_that_the_webhook_acts_on(
    frame: Frame, github: Log, task: LostDeliveries, action: str
) -> None:
    """Lost announcements and lost ends are both made good, and nothing else is."""
    github.add("ours", age=6 * MINUTE, action=action)
    github.add("progress", age=6 * MINUTE, action="in_progress")
    github.add("ping", age=6 * MINUTE, event="ping", action="")
    frame.run(task)
    assert github.redelivered == ["ours"]


def test_jobs_that_wait_come_before_those_that_ended(
    frame: Frame, github: Log, task: LostDeliveries
) -> None:
    """A job without a runner is more urgent than one without a closed record."""
    github.add("ended", age=30 * MINUTE, action="completed")
    github.add("second", age=10 * MINUTE)
    github.add("first", age=20 * MINUTE)
    frame.run(task)
    assert github.redelivered == ["first", "second", "ended"]


def test_later_success_is_found_in_any_page(
    frame: Frame, github: Log, task: LostDeliveries
) -> None:
    """A failure that somebody has redelivered already is left alone."""
    github.page_size = 2
    github.add("lost", age=30 * MINUTE)
    for number in range(5):
        github.add(f"good-{number}", age=20 * MINUTE, ok=True)
    github.add("lost", age=10 * MINUTE, ok=True, is_redelivery=True)
    assert frame.run(task).selected == 0


def test_redelivery_that_fails_is_repeated_with_growing_pauses(
    frame: Frame, github: Log, task: LostDeliveries
) -> None:
    """While the webhook is down an event is tried a bounded number of times, then given up."""
    github.is_webhook_up = False
    github.add("lost", age=6 * MINUTE)
    times = []
    for _ in range(3 * 24 * 12):  # GitHub keeps the log for three days
        before = len(github.redelivered)
        later(frame, task)
        times += [frame.now] * (len(github.redelivered) - before)
    pauses = [b - a for a, b in pairwise(times)]
    assert pauses == sorted(pauses)
    assert max(pauses) == HOUR
    assert 20 < len(times) <= 27
    assert times[-1] <= NOW + 24 * HOUR
    assert frame.counted["DeliveriesGivenUp"] == 1
    assert not frame.states[LEASE]["open"]


def test_webhook_that_recovers_gets_everything(
    frame: Frame, github: Log, task: LostDeliveries
) -> None:
    """After an outage of hours each event has arrived, once."""
    github.is_webhook_up = False
    for _ in range(48):
        github.add(f"lost-{frame.now}", age=MINUTE)
        later(frame, task)
    github.is_webhook_up = True
    for _ in range(15):
        later(frame, task)
    arrived = [entry.guid for entry in github.entries if entry.is_ok]
    assert sorted(arrived) == sorted(
        {entry.guid for entry in github.entries if not entry.is_redelivery}
    )


def test_first_run_looks_back_an_hour(frame: Frame, github: Log, task: LostDeliveries) -> None:
    """A new fleet does not take up what was lost before it existed."""
    github.page_size = 2
    for number in range(20):
        github.add(f"old-{number}", age=2 * HOUR + number)
    github.add("lost", age=50 * MINUTE)
    frame.run(task)
    assert github.redelivered == ["lost"]
    assert len(github.requests) == 2


def test_log_is_read_down_to_the_cursor(frame: Frame, github: Log, task: LostDeliveries) -> None:
    """A run reads what is new, and not the whole log."""
    github.page_size = 10
    for number in range(200):
        github.add(f"good-{number}", age=number * MINUTE / 4, ok=True)
    frame.run(task)
    github.requests.clear()
    later(frame, task)
    # a quarter of an hour once more, at four deliveries a minute
    assert len(github.requests) <= 7


def test_attempt_that_shows_late_is_found(frame: Frame, github: Log, task: LostDeliveries) -> None:
    """GitHub lists an attempt when it has ended, behind others that it listed before."""
    github.add("good", age=0.0, ok=True)
    frame.run(task)
    github.add("late", age=2 * MINUTE)
    later(frame, task)
    assert github.redelivered == ["late"]


def test_page_that_fails_fails_the_run_and_is_read_again(
    frame: Frame, github: Log, task: LostDeliveries
) -> None:
    """Failing is not finding nothing: the next run goes on at that very page."""
    github.page_size = 1
    for number in range(4):
        github.add(f"lost-{number}", age=(6 + number) * MINUTE)

    def fail_on_third(request: str) -> None:
        if request.startswith("page") and len(github.requests) == 2:
            raise UnavailableError("502")

    github.fault = fail_on_third
    with pytest.raises(UnavailableError):
        frame.run(task)
    assert frame.outcomes[LEASE] is SweepOutcome.FAILED
    assert not github.redelivered
    github.fault = lambda request: None
    github.requests.clear()
    github.add("new", age=5 * MINUTE)
    frame.run(task)
    assert sorted(github.redelivered) == ["lost-0", "lost-1", "lost-2", "lost-3", "new"]


def test_first_page_that_fails_moves_nothing(
    frame: Frame, github: Log, task: LostDeliveries
) -> None:
    """A GitHub that is down leaves the cursor where it was, however long."""
    frame.run(task)
    remembered = dict(frame.states[LEASE])

    def fail(request: str) -> None:
        raise UnavailableError("502")

    github.fault = fail
    for _ in range(24):
        frame.now += 5 * MINUTE
        github.add(f"lost-{frame.now}", age=0.0)
        with pytest.raises(UnavailableError):
            frame.run(task)
    assert frame.states[LEASE] == remembered
    github.fault = lambda request: None
    later(frame, task)
    assert len(github.redelivered) == 24


def test_long_log_is_read_in_several_runs(
    frame: Frame, github: Log, task: LostDeliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one run may not finish the next one goes on with, and then reads what came since."""
    monkeypatch.setattr(lost_deliveries, "MAX_PAGES", 5)
    github.page_size = 10
    github.add("healed", age=58 * MINUTE)
    github.add("lost", age=57 * MINUTE)
    for number in range(120):
        github.add(f"good-{number}", age=30 * MINUTE + number, ok=True)
    github.add("healed", age=MINUTE, ok=True, is_redelivery=True)
    frame.run(task)
    assert frame.states[LEASE]["pass"]["healed"] == ["healed"]
    github.add("new", age=0.0)
    for _ in range(4):
        later(frame, task)
    assert github.redelivered == ["lost", "new"]
    assert "pass" not in frame.states[LEASE]


def test_cursor_that_github_forgot_begins_the_reading_anew(
    frame: Frame, github: Log, task: LostDeliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kept cursor that is refused costs one failed run."""
    monkeypatch.setattr(lost_deliveries, "MAX_PAGES", 1)
    github.page_size = 1
    github.add("lost", age=20 * MINUTE)
    newest = github.add("good", age=10 * MINUTE, ok=True)
    frame.run(task)
    github.entries = [entry for entry in github.entries if entry.id != newest]
    with pytest.raises(RefusedError):
        frame.run(task)
    frame.run(task)
    assert github.redelivered == ["lost"]


def test_more_failures_than_can_be_remembered(
    frame: Frame, github: Log, task: LostDeliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What there is no room for stays unread, until successes have made room."""
    monkeypatch.setattr(lost_deliveries, "MAX_OPEN", 10)
    github.page_size = 10
    for number in range(55):
        github.add(f"lost-{number}", age=(6 * MINUTE + number))
    frame.run(task)
    assert len(frame.states[LEASE]["open"]) == 10
    assert "pass" not in frame.states[LEASE]
    for _ in range(8):
        later(frame, task)
    # each once: successes are learned of while there is no room, too
    assert sorted(github.redelivered) == sorted(f"lost-{number}" for number in range(55))


def test_page_that_fails_behind_what_could_not_be_remembered(
    frame: Frame, github: Log, task: LostDeliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run does not go on at that page: it would pass over what there was no room for."""
    monkeypatch.setattr(lost_deliveries, "MAX_OPEN", 1)
    github.page_size = 1
    github.add("first", age=6 * MINUTE)
    github.add("second", age=26 * MINUTE)
    github.add("good", age=46 * MINUTE, ok=True)

    def fail_on_third(request: str) -> None:
        if len(github.requests) == 2:
            raise UnavailableError("502")

    github.fault = fail_on_third
    with pytest.raises(UnavailableError):
        frame.run(task)
    github.fault = lambda request: None
    for _ in range(3):
        later(frame, task)
    assert sorted(set(github.redelivered)) == ["first", "second"]


def test_what_is_remembered_fits_into_an_item(
    frame: Frame, github: Log, task: LostDeliveries
) -> None:
    """However much fails at once: DynamoDB takes 400 KB."""
    github.is_webhook_up = False
    for _ in range(3000):
        github.add(str(uuid.UUID(int=len(github.entries))), age=6 * MINUTE, action="completed")
    frame.run(task)
    state = frame.states[LEASE]
    assert len(state["open"]) == 2000
    assert len(json.dumps(state, separators=(",", ":"))) < 250_000


def test_rate_limit_ends_the_run(frame: Frame, github: Log, task: LostDeliveries) -> None:
    """GitHub is not asked on for a redelivery after it has asked to wait."""
    for number in range(100):
        github.add(f"lost-{number}", age=6 * MINUTE)
    asked = []

    def limit(request: str) -> None:
        if request.startswith("redeliver"):
            asked.append(request)
            raise RateLimitedError("wait", retry_at=frame.now + 60)

    github.fault = limit
    report = frame.run(task)
    assert report.outcome is SweepOutcome.FAILED
    assert len(asked) == 25
    github.fault = lambda request: None
    later(frame, task)
    assert len(set(github.redelivered)) == 100


def test_delivery_that_the_log_lost_is_forgotten(
    frame: Frame, github: Log, task: LostDeliveries
) -> None:
    """What GitHub no longer has cannot be redelivered, and is not tried again."""

    def lose(request: str) -> None:
        if request.startswith("redeliver"):
            raise NotFoundError("404")

    github.add("lost", age=6 * MINUTE)
    github.fault = lose
    report = frame.run(task)
    assert (report.acted, report.failures, report.spared) == (0, 0, 1)
    assert not frame.states[LEASE]["open"]


def test_crash_between_redelivery_and_memory_repeats_it(
    frame: Frame, github: Log, task: LostDeliveries
) -> None:
    """A run whose memory is lost finds the same again; an event that comes twice does no harm."""
    github.is_webhook_up = False
    github.add("lost", age=6 * MINUTE)
    frame.run(task)
    frame.states.clear()
    later(frame, task)
    assert github.redelivered == ["lost", "lost"]


@pytest.mark.parametrize(
    "state",
    [
        {"until": "soon"},
        {"until": 1.0, "open": {"g": [1]}},
        {"until": 1.0, "open": {"g": [1, "danced", 1.0, 0, 1.0]}},
        {"until": 1.0, "open": None},
    ],
)
def test_memory_that_cannot_be_read_is_begun_anew(
    frame: Frame, github: Log, task: LostDeliveries, state: dict[str, object]
) -> None:
    """A malformed memory does not stop the sweep for good."""
    frame.states[LEASE] = state
    github.add("lost", age=6 * MINUTE)
    frame.run(task)
    assert github.redelivered == ["lost"]


STEPS = st.lists(
    st.sampled_from(["lost", "arrives", "webhook", "github", "crash", "run", "run"]), max_size=40
)


@given(steps=STEPS, page_size=st.integers(1, 7), room=st.integers(1, 5), pages=st.integers(2, 9))
def test_every_event_arrives_whatever_fails(
    steps: list[str], page_size: int, room: int, pages: int
) -> None:
    """Outages of the webhook and of GitHub, crashes, and a memory and runs that are too small."""
    frame = Frame()
    github = Log(frame, page_size=page_size)
    task = LostDeliveries(deliveries=github, metrics=frame, clock=frame.clock)
    is_github_up = True

    def fail(request: str) -> None:
        if not is_github_up and len(github.requests) % 2:
            github.requests.append("failed")
            raise UnavailableError("502")

    github.fault = fail
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lost_deliveries, "MAX_OPEN", room)
        patch.setattr(lost_deliveries, "MAX_PAGES", pages)
        frame.run(task)  # a new fleet looks back from here
        for number, step in enumerate(steps):
            frame.now += 2 * MINUTE
            match step:
                case "lost" | "arrives":
                    github.add(f"event-{number}", age=0.0, ok=step == "arrives")
                case "webhook":
                    github.is_webhook_up = not github.is_webhook_up
                case "github":
                    is_github_up = not is_github_up
                case _:
                    before = dict(frame.states)
                    with contextlib.suppress(UnavailableError):
                        frame.run(task)
                    if step == "crash":
                        frame.states = before
        github.is_webhook_up = is_github_up = True
        # not bounded in pages: a run reads at least a hundred times what these have
        patch.setattr(lost_deliveries, "MAX_PAGES", 100)
        for _ in range(100):
            later(frame, task)
        events = {entry.guid for entry in github.entries}
        assert {entry.guid for entry in github.entries if entry.is_ok} == events
        github.requests.clear()
        later(frame, task)
        assert github.redelivered == []
        assert not frame.counted["DeliveriesGivenUp"]
