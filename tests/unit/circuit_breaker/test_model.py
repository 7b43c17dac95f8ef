"""The pure decisions on a circuit."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runsfleet_runtime.circuit_breaker.model import (
    CAPACITY_TYPES,
    BreakerPolicy,
    Circuit,
    CircuitState,
    Failure,
    FailureKind,
    MalformedOfferingError,
    Offering,
    admit,
    close_by_hand,
    count,
    deliver,
    expires_at,
    open_by_hand,
    reset,
)
from runsfleet_runtime.fleet.plan import CapacityType

NOW = 1_800_000_000.0
MINUTE = 60.0
POLICY = BreakerPolicy()
SPOT = Offering(capacity_type="spot", instance_type="c7g.xlarge", availability_zone="eu-central-1a")
NEW = Circuit(offering=SPOT)


def failure(at: float, identity: str = "", kind: FailureKind = FailureKind.CAPACITY) -> Failure:
    """Return a failure; its id is its time unless given."""
    return Failure(offering=SPOT, kind=kind, at=at, id=identity or f"f-{at}")


def fail(circuit: Circuit, *at: float) -> Circuit:
    """Return the circuit after failures, each counted when it happened."""
    for moment in at:
        circuit = count(circuit, [failure(moment)], POLICY, now=moment)
    return circuit


def opened(at: float = NOW) -> Circuit:
    """Return a circuit that opened for the first time at a moment."""
    circuit = fail(NEW, at - 2, at - 1, at)
    assert circuit.state is CircuitState.OPEN
    return circuit


def probing(circuit: Circuit, now: float) -> Circuit:
    """Return the circuit with a probe on its way."""
    probed = admit(circuit, POLICY, now=now)
    assert probed is not None
    assert probed.state is CircuitState.HALF_OPEN
    return probed


def test_three_failures_within_the_window_open_it() -> None:
    """Two leave it closed, the third opens it for thirty minutes."""
    two = fail(NEW, NOW - 10 * MINUTE, NOW - 5 * MINUTE)
    assert two.state is CircuitState.CLOSED
    assert admit(two, POLICY, now=NOW) is two
    three = fail(two, NOW)
    assert (three.state, three.trips, three.open_until) == (
        CircuitState.OPEN,
        1,
        NOW + 30 * MINUTE,
    )
    assert three.reason == "3 failures within 15 minutes (the last: capacity)"
    assert admit(three, POLICY, now=NOW + 29 * MINUTE) is None


def test_failures_leave_the_window() -> None:
    """Three failures that are spread over more than the window do not open it."""
    circuit = fail(NEW, NOW, NOW + 8 * MINUTE, NOW + 16 * MINUTE)
    assert circuit.state is CircuitState.CLOSED
    assert [at for at, _ in circuit.failures] == [NOW + 8 * MINUTE, NOW + 16 * MINUTE]
    assert fail(circuit, NOW + 17 * MINUTE).state is CircuitState.OPEN


def test_the_same_event_counts_once() -> None:
    """An event that comes again, at once or later, is no second failure."""
    twice = [failure(NOW, "i-1"), failure(NOW, "i-1")]
    once = count(NEW, twice, POLICY, now=NOW)
    assert len(once.failures) == 1
    assert count(once, twice, POLICY, now=NOW + 1) is once


def test_late_events_are_no_news() -> None:
    """What happened before the window, or before the circuit closed, changes nothing."""
    assert count(NEW, [failure(NOW - 16 * MINUTE)], POLICY, now=NOW) is NEW
    circuit = opened()
    assert count(circuit, [failure(NOW + MINUTE)], POLICY, now=NOW + 2 * MINUTE) is circuit
    later = circuit.open_until + 5
    half_open = probing(circuit, later)
    assert count(half_open, [failure(NOW, "late")], POLICY, now=later) is half_open
    closed = deliver(half_open, now=later + 3)
    late = [failure(later + second, f"late-{second}") for second in range(3)]
    assert count(closed, late, POLICY, now=later + 4) is closed


def test_a_probe_that_delivers_closes_it() -> None:
    """After the cool-down one launch tries; others stay out until it has answered."""
    circuit = opened()
    due = circuit.open_until
    half_open = probing(circuit, due)
    assert admit(half_open, POLICY, now=due + 1) is None
    closed = deliver(half_open, now=due + 2)
    assert (closed.state, closed.trips) == (CircuitState.CLOSED, 1)
    assert admit(closed, POLICY, now=due + 3) is closed


def test_a_probe_without_answer_makes_room() -> None:
    """A worker that died with the probe, or a fleet that chose otherwise, blocks nobody."""
    half_open = probing(opened(), NOW + 30 * MINUTE)
    assert admit(half_open, POLICY, now=half_open.probe_until - 0.1) is None
    again = probing(half_open, half_open.probe_until)
    assert again.probe_until == half_open.probe_until + POLICY.probe_seconds


def test_relapses_last_longer_up_to_the_cap() -> None:
    """One failure after the cool-down opens it again: 1 h, 2 h, 4 h, and never longer."""
    circuit, lasted = opened(), []
    for _ in range(5):
        due = circuit.open_until
        circuit = count(probing(circuit, due), [failure(due + 1)], POLICY, now=due + 1)
        assert circuit.state is CircuitState.OPEN
        lasted.append((circuit.open_until - circuit.opened_at) / 3600)
    assert lasted == [1, 2, 4, 4, 4]


def test_relapse_after_a_success_is_remembered_for_the_healthy_period() -> None:
    """Closed for three hours and failing again: longer. Closed for five: as the first time."""
    circuit = opened()
    closed = deliver(probing(circuit, circuit.open_until), now=circuit.open_until)
    soon = closed.open_until + 3 * 3600
    assert fail(closed, soon, soon + 1, soon + 2).trips == 2
    late = closed.open_until + 5 * 3600
    assert fail(closed, late, late + 1, late + 2).trips == 1


def test_no_failure_for_long_heals_an_unanswered_circuit() -> None:
    """An offering that EC2 never chooses does not stay half-open for ever."""
    half_open = probing(opened(), NOW + 30 * MINUTE)
    healed = admit(half_open, POLICY, now=half_open.open_until + POLICY.healthy_seconds)
    assert healed is not None
    assert (healed.state, healed.trips) == (CircuitState.CLOSED, 0)


def test_delivery_closes_only_what_was_probed() -> None:
    """A launch that was under way when the circuit opened does not close it."""
    circuit = opened()
    assert deliver(circuit, now=NOW + 1) is circuit
    assert deliver(NEW, now=NOW) is NEW


def test_by_hand() -> None:
    """Opened for a day, closed at once with the relapses kept, reset without them."""
    circuit = open_by_hand(opened(), seconds=86400, reason="zone event", now=NOW)
    assert (circuit.open_until, circuit.trips) == (NOW + 86400, 1)
    assert admit(circuit, POLICY, now=NOW + 80000) is None
    closed = close_by_hand(circuit, reason="over", now=NOW + 10)
    assert (closed.state, closed.trips) == (CircuitState.CLOSED, 1)
    assert reset(circuit, reason="", now=NOW + 10).trips == 0


def test_first_cooldown_may_be_longer_than_the_cap() -> None:
    """Who asks for six hours gets six hours, not the cap of four."""
    assert BreakerPolicy(cooldown_seconds=6 * 3600).cooldown(3) == 6 * 3600
    assert POLICY.cooldown(10_000) == 4 * 3600


def test_keys() -> None:
    """An offering is written as its key, and read from it; the capacity types are EC2's."""
    assert Offering.from_key(SPOT.key) == SPOT
    assert tuple(kind.value for kind in CapacityType) == CAPACITY_TYPES
    for text in ("spot:c7g.xlarge", "cheap:c7g.xlarge:a", "spot::a", "a:b:c:d", ""):
        with pytest.raises(MalformedOfferingError, match="an offering is written as"):
            Offering.from_key(text)


Step = Callable[[Circuit, float, int], Circuit]
STEPS: dict[str, Step] = {
    "fail": lambda c, now, n: count(c, [failure(now, f"f-{n}")], POLICY, now=now),
    "late": lambda c, now, n: count(c, [failure(now - 3600, f"l-{n}")], POLICY, now=now),
    "early": lambda c, now, n: count(c, [failure(now + 3600, f"e-{n}")], POLICY, now=now),
    "deliver": lambda c, now, _: deliver(c, now=now),
    "ask": lambda c, now, _: admit(c, POLICY, now=now) or c,
    "close": lambda c, now, _: close_by_hand(c, reason="", now=now),
    "reset": lambda c, now, _: reset(c, reason="", now=now),
    "open": lambda c, now, _: open_by_hand(c, seconds=600, reason="", now=now),
}
HISTORIES = st.lists(
    st.tuples(st.sampled_from(sorted(STEPS)), st.floats(-600, 6000, allow_nan=False)), max_size=40
)


@given(HISTORIES)
def test_whatever_happens_a_closed_circuit_refuses_nobody(history: list[tuple[str, float]]) -> None:
    """Also with a clock that goes back: closed lets through, open ends within its bounds."""
    circuit, now = NEW, NOW
    for number, (step, passed) in enumerate(history):
        now += passed
        before = circuit
        circuit = STEPS[step](circuit, now, number)
        assert circuit.updated_at >= before.updated_at
        assert len(circuit.failures) < POLICY.threshold
        if circuit.state is CircuitState.CLOSED:
            assert admit(circuit, POLICY, now=now) is circuit
        else:
            end = max(circuit.open_until, circuit.probe_until)
            assert end - circuit.updated_at <= POLICY.max_cooldown_seconds
            assert admit(circuit, POLICY, now=end) is not None
        assert expires_at(circuit, POLICY) > circuit.updated_at + POLICY.window_seconds


@given(HISTORIES)
def test_repeating_every_event_changes_nothing(history: list[tuple[str, float]]) -> None:
    """A failure or a delivery that is told twice leaves the circuit as once."""
    circuit, now = NEW, NOW
    for number, (step, passed) in enumerate(history):
        now += passed
        circuit = STEPS[step](circuit, now, number)
        if step in {"fail", "late", "early", "deliver"}:
            assert STEPS[step](circuit, now, number) is circuit


WORKERS = st.lists(
    st.tuples(
        st.integers(0, 3),  # who
        st.sampled_from(["read", "write"]),
        st.floats(-100, 200, allow_nan=False),  # how the clock moves
    ),
    max_size=60,
)


@given(WORKERS)
def test_never_more_than_one_probe_in_a_probe_window(
    steps: list[tuple[int, str, float]],
) -> None:
    """However four workers interleave what they read and write, the windows of probes are apart."""
    stored = opened()
    now = stored.open_until
    seen: dict[int, Circuit] = {}
    probes: list[tuple[float, float]] = []
    for worker, step, passed in steps:
        now += passed
        if step == "read":
            seen[worker] = stored
            continue
        circuit = seen.pop(worker, None)
        after = circuit and admit(circuit, POLICY, now=now)
        if circuit is None or after is None or after.state is not CircuitState.HALF_OPEN:
            continue
        if circuit.version == stored.version:  # the condition of the write
            stored = replace(after, version=circuit.version + 1)
            probes.append((after.updated_at, after.probe_until))
    for (_, end), (start, _) in itertools.pairwise(probes):
        assert start >= end
