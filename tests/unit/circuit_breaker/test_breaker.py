"""The breaker as launches and operators use it, over a table in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from runsfleet_runtime.circuit_breaker.breaker import CACHE_SECONDS, Breaker, BreakerControl
from runsfleet_runtime.circuit_breaker.model import (
    BreakerPolicy,
    Circuit,
    CircuitState,
    Failure,
    FailureKind,
    Offering,
)
from runsfleet_runtime.circuit_breaker.ports import Change, CircuitsUnknownError
from runsfleet_runtime.contract.metrics import MetricDefinition

NOW = 1_800_000_000.0
HALF_HOUR = 1800.0


def offering(zone: str = "a", kind: str = "c7g.xlarge", capacity: str = "spot") -> Offering:
    """Return an offering."""
    return Offering(capacity_type=capacity, instance_type=kind, availability_zone=zone)


def failures(*offerings: Offering, launch: str, at: float) -> list[Failure]:
    """Return a failure of each offering in one launch."""
    return [Failure(offering=o, kind=FailureKind.CAPACITY, at=at, id=launch) for o in offerings]


@dataclass
class Table:
    """Circuits under compare-and-set, with their audit rows; ``faults`` says what fails."""

    circuits: dict[Offering, Circuit] = field(default_factory=dict)
    audit: list[tuple[str, str, str]] = field(default_factory=list)
    faults: set[str] = field(default_factory=set)
    reads: list[bool] = field(default_factory=list)
    writes: int = 0
    rival: list[Circuit] = field(default_factory=list)  # written by another just before us

    def read(self, *, is_consistent: bool) -> list[Circuit]:
        self.reads.append(is_consistent)
        if "read" in self.faults:
            raise CircuitsUnknownError("no answer")
        return list(self.circuits.values())

    def write(self, changes: Sequence[Change]) -> list[Circuit | None]:
        self.writes += 1
        if "write" in self.faults:
            raise CircuitsUnknownError("not written: no answer")
        while self.rival:
            circuit = self.rival.pop()
            self.circuits[circuit.offering] = circuit
        stored: list[Circuit | None] = []
        for change in changes:
            there = self.circuits.get(change.after.offering)
            if (there.version if there else 0) != change.before.version or "race" in self.faults:
                stored.append(None)
                continue
            circuit = replace(change.after, version=change.before.version + 1)
            self.circuits[circuit.offering] = circuit
            stored.append(circuit)
            if change.action:
                self.audit.append((circuit.offering.key, change.action, change.actor))
        return stored


@dataclass
class Process:
    """A process with its own copy of the table, and its metrics."""

    table: Table
    now: float = NOW
    counted: Counter[str] = field(default_factory=Counter)
    gauges: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.breaker = Breaker(
            self.table,
            policy=BreakerPolicy(),
            actor="dispatch",
            metrics=self,
            clock=lambda: self.now,
        )

    def add(self, metric: MetricDefinition, value: float = 1, *, kind: str | None = None) -> None:
        name = f"{metric.name}:{kind}"
        self.counted[name] += int(value)
        self.gauges.setdefault(name, []).append(value)

    def fail(self, *offerings: Offering, launch: str) -> None:
        self.breaker.record_failures(failures(*offerings, launch=launch, at=self.now))

    def trip(self, *offerings: Offering) -> None:
        for number in range(3):
            self.fail(*offerings, launch=f"launch-{self.now}-{number}")


def test_open_offerings_are_left_out_by_every_process() -> None:
    """What one process saw fail three times, all leave out, until the cool-down is over."""
    table = Table()
    Process(table).trip(offering("a"))
    other = Process(table)
    asked = [offering("a"), offering("b")]
    assert other.breaker.closed_to(asked) == {offering("a")}
    assert table.audit == [("spot:c7g.xlarge:a", "opened", "dispatch")]


def test_opening_is_counted_once() -> None:
    """Each transition is one metric, by the way of buying."""
    process = Process(Table())
    process.trip(offering("a"), offering("a", capacity="on-demand"))
    process.fail(offering("a"), launch="one more")
    assert process.counted["BreakerOpenedByShortage:spot"] == 1
    assert process.counted["BreakerOpenedByShortage:on-demand"] == 1


def test_interruptions_have_a_metric_of_their_own() -> None:
    """The events function feeds the same circuits and another series."""
    process = Process(Table())
    for number in range(3):
        told = Failure(offering=offering(), kind=FailureKind.INTERRUPTION, at=NOW, id=f"i-{number}")
        process.breaker.record_failures([told])
    assert process.counted == {"BreakerOpenedByInterruption:spot": 1}


def test_a_launch_reads_at_most_once_in_ten_seconds() -> None:
    """However many launches ask; nothing is written while nothing fails."""
    table = Table()
    process = Process(table)
    for _ in range(50):
        assert process.breaker.closed_to([offering()]) == frozenset()
        process.breaker.record_successes([offering()])
        process.now += CACHE_SECONDS / 50
    assert (table.reads, table.writes) == ([False], 0)
    process.breaker.closed_to([offering()])
    assert len(table.reads) == 2


def test_one_of_two_processes_probes() -> None:
    """Both find the cool-down over; the one whose write is refused leaves the offering out."""
    table = Table()
    first, second = Process(table), Process(table)
    first.trip(offering())
    first.now = second.now = NOW + HALF_HOUR
    second.breaker.closed_to([offering("b")])  # has its own copy now
    assert first.breaker.closed_to([offering()]) == frozenset()
    assert second.breaker.closed_to([offering()]) == {offering()}
    assert first.counted["BreakerProbes:spot"] == 1
    assert second.counted["BreakerProbes:spot"] == 0


def test_the_probe_that_delivers_closes_it() -> None:
    """Its process tells of the instance; the circuit is closed and all may use it."""
    table = Table()
    process = Process(table)
    process.trip(offering())
    process.now += HALF_HOUR
    process.breaker.closed_to([offering()])
    process.breaker.record_successes([offering(), offering("b")])
    assert table.circuits[offering()].state is CircuitState.CLOSED
    assert [action for _, action, _ in table.audit] == ["opened", "probe", "closed"]
    assert process.counted["BreakerClosed:spot"] == 1
    assert offering("b") not in table.circuits


def test_the_probe_that_fails_opens_it_for_longer() -> None:
    """One failure after the cool-down is enough."""
    table = Table()
    process = Process(table)
    process.trip(offering())
    process.now += HALF_HOUR
    process.breaker.closed_to([offering()])
    process.fail(offering(), launch="probe")
    circuit = table.circuits[offering()]
    assert (circuit.state, circuit.open_until) == (CircuitState.OPEN, process.now + 2 * HALF_HOUR)


def test_after_an_outage_few_offerings_are_probed_at_a_time() -> None:
    """Sixty offerings that are due at once cost a launch five probes, the best ones first."""
    table = Table()
    process = Process(table)
    many = [offering("a", kind=f"c{n}.xlarge") for n in range(60)]
    process.trip(*many)
    process.now += HALF_HOUR
    assert process.breaker.closed_to(many) == set(many[5:])
    assert process.breaker.closed_to(many) == set(many) - set(many[5:10])


def test_a_lost_race_is_decided_anew() -> None:
    """A failure that is counted on an old copy is counted once more on what is there."""
    table = Table()
    process = Process(table)
    process.fail(offering(), launch="one")
    table.rival = [
        replace(
            table.circuits[offering()],
            failures=((NOW, "one"), (NOW, "two")),
            version=2,
        )
    ]
    process.fail(offering(), launch="three")
    assert table.circuits[offering()].state is CircuitState.OPEN
    assert table.reads == [False, True]


def test_a_failure_that_a_lost_answer_had_written_is_counted_once() -> None:
    """The write is made, its answer lost: the repetition finds its id."""
    table = Table()
    process = Process(table)
    process.fail(offering(), launch="one")
    table.rival = [
        replace(table.circuits[offering()], failures=((NOW, "one"), (NOW, "two")), version=2)
    ]
    process.fail(offering(), launch="two")
    assert len(table.circuits[offering()].failures) == 2


def test_table_that_does_not_answer_leaves_nothing_out() -> None:
    """No error reaches the launch, and the table is not asked again for every launch."""
    table = Table()
    process = Process(table)
    process.trip(offering())
    table.faults = {"read", "write"}
    process.now += CACHE_SECONDS
    for _ in range(3):
        assert process.breaker.closed_to([offering()]) == frozenset()
    assert table.reads == [False, False]
    process.fail(offering("b"), launch="lost")
    process.breaker.record_successes([offering()])
    assert offering("b") not in table.circuits


def test_probe_that_could_not_be_written_is_not_made() -> None:
    """Whether it was written is unknown, so it may be somebody's: the offering stays out."""
    table = Table()
    process = Process(table)
    process.trip(offering())
    process.now += HALF_HOUR
    table.faults = {"write"}
    assert process.breaker.closed_to([offering()]) == {offering()}


def test_open_offerings_are_measured_when_they_are_read() -> None:
    """The gauge tells of both ways of buying, and goes back to nought."""
    table = Table()
    process = Process(table)
    process.trip(offering("a"), offering("b"))
    process.now += CACHE_SECONDS
    process.breaker.closed_to([])
    process.now += 10 * HALF_HOUR
    process.breaker.closed_to([])
    assert process.gauges["BreakerOpen:spot"] == [2, 0]
    assert process.gauges["BreakerOpen:on-demand"] == [0, 0]


def test_quiet_circuit_heals_when_it_is_asked() -> None:
    """Hours after its cool-down without any failure it is closed, not probed."""
    table = Table()
    process = Process(table)
    process.trip(offering())
    process.now += 10 * HALF_HOUR
    assert process.breaker.closed_to([offering()]) == frozenset()
    assert table.circuits[offering()].state is CircuitState.CLOSED
    assert process.counted["BreakerClosed:spot"] == 1


def control(table: Table, now: float = NOW) -> BreakerControl:
    """Return what an operator has."""
    return BreakerControl(table, actor="arn:ops", clock=lambda: now)


def test_operator_opens_and_closes() -> None:
    """By hand, for a time, with the operator's name; launches obey."""
    table = Table()
    process = Process(table)
    (circuit,) = control(table).open([offering()], seconds=600, note="zone event")
    assert (circuit.open_until, circuit.reason) == (NOW + 600, "by hand: zone event")
    assert process.breaker.closed_to([offering()]) == {offering()}
    control(table).close([offering()], note="")
    process.now += CACHE_SECONDS
    assert process.breaker.closed_to([offering()]) == frozenset()
    key = offering().key
    assert table.audit == [(key, "opened", "arn:ops"), (key, "closed", "arn:ops")]


def test_operator_resets_all() -> None:
    """Everything that was counted is forgotten, the relapses too."""
    table = Table()
    Process(table).trip(offering("a"), offering("b"))
    assert len(control(table, NOW + 1).reset(note="after the outage")) == 2
    assert all(c.state is CircuitState.CLOSED for c in table.circuits.values())
    assert all(c.trips == 0 for c in table.circuits.values())
    assert control(table).circuits()[0].offering == offering("a")


def test_operator_wins_against_a_racing_function() -> None:
    """A write that was overtaken is made again on what is there; one that cannot be is told."""
    table = Table()
    Process(table).fail(offering(), launch="one")
    table.rival = [replace(table.circuits[offering()], version=7)]
    (circuit,) = control(table).open([offering()], seconds=60, note="")
    assert (circuit.state, circuit.version) == (CircuitState.OPEN, 8)
    table.faults = {"race"}
    with pytest.raises(CircuitsUnknownError, match=r"try again: spot:c7g\.xlarge:a"):
        control(table).close([offering()], note="")
    table.faults = {"write"}
    with pytest.raises(CircuitsUnknownError, match="no answer"):
        control(table).close([offering()], note="")
