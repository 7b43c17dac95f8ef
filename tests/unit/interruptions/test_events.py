"""A batch of events: each to its use case, none at another's cost."""

from __future__ import annotations

import pytest

from runsfleet_runtime.interruptions.events import RESERVED_SECONDS, ReceivedEvent
from runsfleet_runtime.interruptions.model import Event, InstanceLeft, Irrelevant, SpotWarning
from runsfleet_runtime.jobs.model import JobRecord
from tests.unit.interruptions.world import NOW, World, record


def received(*events: Event) -> list[ReceivedEvent]:
    """Return messages m-0, m-1, … that hold events."""
    return [ReceivedEvent(f"m-{n}", f"r-{n}", event) for n, event in enumerate(events)]


WARNING = SpotWarning(instance_id="i-1", at=NOW, action="terminate")
LEFT = InstanceLeft(instance_id="i-9", at=NOW, state="terminated")


def test_only_what_must_wait_comes_back() -> None:
    """One event is deferred, one is ignored, one is done."""
    world = World()
    world.put(record())
    again = world.events.take(received(LEFT, Irrelevant("new"), WARNING), deadline=NOW + 60)
    assert again == {"m-0"}
    assert [handle for handle, _ in world.deferred] == ["r-0"]


def test_fault_of_one_event_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong with one message, the others are taken and it comes back."""
    world = World()
    world.put(record())
    of_instance = world.of_instance

    def faulty(instance_id: str) -> JobRecord | None:
        if instance_id == "i-9":
            raise LookupError("a fault of ours")
        return of_instance(instance_id)

    monkeypatch.setattr(world, "of_instance", faulty)
    assert world.events.take(received(LEFT, WARNING), deadline=NOW + 60) == {"m-0"}
    assert world.records[1].interrupted_at == NOW


def test_what_there_is_no_time_for_comes_back_untouched() -> None:
    """Time is kept for the writes that follow GitHub's answer."""
    world = World()
    world.put(record())
    again = world.events.take(received(WARNING, LEFT), deadline=NOW + RESERVED_SECONDS)
    assert again == {"m-0", "m-1"}
    assert (world.story, world.deferred) == ([], [])


def test_warnings_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """They leave two minutes; what comes before them in the batch may ask GitHub for long."""
    world = World()
    asked: list[str] = []

    def of_instance(instance_id: str) -> None:
        asked.append(instance_id)

    monkeypatch.setattr(world, "of_instance", of_instance)
    world.events.take(received(LEFT, WARNING), deadline=NOW + 60)
    assert asked == ["i-1", "i-9"]
