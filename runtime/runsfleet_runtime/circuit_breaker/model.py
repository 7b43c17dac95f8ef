"""States of an offering's circuit and the pure decisions on it.

::

    closed ──threshold of failures within the window──> open <─────────────┐
      ^                                                  │                 │ any failure
      │                                     cool-down is over, one asks    │ (longer cool-down)
      │                                                  v                 │
      └──────────────── it delivers ──────────────── half-open ────────────┘

What must hold, whoever decides at the same time and whatever the clocks say:

- A closed circuit lets everybody through.
- Of those who ask after the cool-down one probes. Each state that is returned is written only if
  nobody wrote meanwhile, so two who decide alike cannot both succeed. A probe that is not answered
  in time (its worker died, or EC2 chose other offerings) makes room for another.
- A failure that happened before the circuit was last closed, or while it is open, is no news:
  events that come twice or late change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Self

CAPACITY_TYPES: Final = ("spot", "on-demand")
"""EC2's names of the ways to buy an instance."""

_MOST_DOUBLINGS: Final = 32  # far above every cap; keeps the power a small number
_KEPT_SECONDS: Final = 24 * 3600.0  # a circuit that says nothing any more is deleted after this


class FailureKind(StrEnum):
    """What counts against an offering."""

    INTERRUPTION = "interruption"
    CAPACITY = "capacity"


class CircuitState(StrEnum):
    """State of an offering's circuit."""

    CLOSED = "closed"  # it is used
    OPEN = "open"  # it is left out until its cool-down is over
    HALF_OPEN = "half-open"  # one launch tries it


class MalformedOfferingError(ValueError):
    """A text names no offering; the message says how one is written."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Offering:
    """What EC2 sells: a type of instance, in a zone, bought in one way.

    Example:
        >>> Offering.from_key("spot:c7g.xlarge:eu-central-1a").instance_type
        'c7g.xlarge'
    """

    capacity_type: str
    instance_type: str
    availability_zone: str

    @property
    def key(self) -> str:
        """Its key in the table, such as ``spot:c7g.xlarge:eu-central-1a``."""
        return f"{self.capacity_type}:{self.instance_type}:{self.availability_zone}"

    @classmethod
    def from_key(cls, key: str) -> Self:
        """Return the offering of a key.

        Raises:
            MalformedOfferingError: If it has not three parts, or no known capacity type.
        """
        parts = key.split(":")
        if len(parts) != 3 or not all(parts) or parts[0] not in CAPACITY_TYPES:  # noqa: PLR2004
            raise MalformedOfferingError(
                f"an offering is written as {{{'|'.join(CAPACITY_TYPES)}}}:TYPE:ZONE, such as "
                f"spot:c7g.xlarge:eu-central-1a, got {key!r}"
            )
        return cls(capacity_type=parts[0], instance_type=parts[1], availability_zone=parts[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Something that counts against an offering.

    Attributes:
        offering: The offering.
        kind: What it was.
        at: Epoch seconds.
        id: The same for a repetition of the same event: the instance or the launch.
    """

    offering: Offering
    kind: FailureKind
    at: float
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """The numbers of the breaker.

    Attributes:
        threshold: Failures within the window that open a circuit (origin: 3).
        window_seconds: The sliding window (origin: 15 minutes).
        cooldown_seconds: How long it stays open the first time (origin: 30 minutes).
        growth: Factor of the cool-down with each relapse.
        max_cooldown_seconds: No cool-down by failures is longer, unless the first one is.
        probe_seconds: How long the one who probes may take to answer. Above the dispatch
            function's timeout of 60 s: who has not answered by then never will.
        healthy_seconds: A circuit that did not open for so long after the last time counts as new.
    """

    threshold: int = 3
    window_seconds: float = 15 * 60
    cooldown_seconds: float = 30 * 60
    growth: float = 2.0
    max_cooldown_seconds: float = 4 * 3600
    probe_seconds: float = 120
    healthy_seconds: float = 4 * 3600

    def cooldown(self, trips: int) -> float:
        """Return the cool-down in seconds after so many openings in a row, from 1.

        Example:
            >>> [BreakerPolicy().cooldown(trips) / 60 for trips in (1, 2, 3, 4, 5)]
            [30.0, 60.0, 120.0, 240.0, 240.0]
        """
        grown = self.cooldown_seconds * self.growth ** min(trips - 1, _MOST_DOUBLINGS)
        return float(min(grown, max(self.max_cooldown_seconds, self.cooldown_seconds)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """What is known of an offering; a new one is closed.

    Attributes:
        offering: The offering.
        state: Its state.
        failures: Epoch seconds and id of each failure that still counts; empty unless closed.
        trips: How often in a row it opened.
        opened_at: Epoch seconds; 0 when it never was.
        open_until: Epoch seconds at which its cool-down ends, or at which it was closed.
        probe_until: Epoch seconds until which the present probe may answer; 0 when there is none.
        reason: Of the last transition, for people.
        version: How often it was written.
        updated_at: Epoch seconds of the last write.
    """

    offering: Offering
    state: CircuitState = CircuitState.CLOSED
    failures: tuple[tuple[float, str], ...] = ()
    trips: int = 0
    opened_at: float = 0.0
    open_until: float = 0.0
    probe_until: float = 0.0
    reason: str = ""
    version: int = 0
    updated_at: float = 0.0

    def is_refusing(self, now: float) -> bool:
        """Whether it must not be asked now, not even to probe."""
        if self.state is CircuitState.OPEN:
            return now < self.open_until
        return self.state is CircuitState.HALF_OPEN and now < self.probe_until


def admit(circuit: Circuit, policy: BreakerPolicy, *, now: float) -> Circuit | None:
    """Say what a circuit becomes when a launch asks for its offering.

    Returns:
        None when the launch must leave it out. The circuit itself when it may be used. Otherwise
        another state, to be written before it is used: half-open for the one that probes, or
        closed when it had no failure for the healthy period after its cool-down.
    """
    if circuit.is_refusing(now):
        return None
    if circuit.state is CircuitState.CLOSED:
        return circuit
    if now >= circuit.open_until + policy.healthy_seconds:
        return _closed(circuit, now, "no failure since its cool-down", trips=0)
    later = max(now, circuit.updated_at)
    return replace(
        circuit,
        state=CircuitState.HALF_OPEN,
        probe_until=later + policy.probe_seconds,
        reason="its cool-down is over: one launch tries it",
        updated_at=later,
    )


def count(
    circuit: Circuit, failures: Iterable[Failure], policy: BreakerPolicy, *, now: float
) -> Circuit:
    """Count failures; returns the circuit itself when none of them is news."""
    now = max(now, circuit.updated_at)
    oldest = now - policy.window_seconds
    known = {identity: at for at, identity in circuit.failures}
    fresh: dict[str, float] = {}
    kind = ""
    for failure in failures:
        at = min(failure.at, now)  # the clock of the events may be ahead
        is_news = failure.id not in known and at > oldest and at >= circuit.open_until
        if is_news and failure.id not in fresh:
            fresh[failure.id] = at
            kind = failure.kind.value
    if not fresh:
        return circuit
    if circuit.state is not CircuitState.CLOSED:
        return _open(circuit, policy, now, f"it failed again after its cool-down ({kind})")
    kept = {identity: at for identity, at in (known | fresh).items() if at > oldest}
    if len(kept) >= policy.threshold:
        minutes = policy.window_seconds / 60
        reason = f"{len(kept)} failures within {minutes:g} minutes (the last: {kind})"
        return _open(circuit, policy, now, reason)
    counted = tuple(sorted((at, identity) for identity, at in kept.items()))
    return replace(circuit, failures=counted, updated_at=now)


def deliver(circuit: Circuit, *, now: float) -> Circuit:
    """Take note that EC2 launched from the offering; returns the circuit itself when no news.

    Only what was probed is closed: a launch that was under way when the circuit opened says nothing
    of the time since.
    """
    if circuit.state is not CircuitState.HALF_OPEN:
        return circuit
    return _closed(circuit, now, "it delivered", trips=circuit.trips)


def open_by_hand(circuit: Circuit, *, seconds: float, reason: str, now: float) -> Circuit:
    """Open a circuit for so many seconds; it is probed afterwards, as any other."""
    now = max(now, circuit.updated_at)
    return replace(
        circuit,
        state=CircuitState.OPEN,
        failures=(),
        opened_at=now,
        open_until=now + seconds,
        probe_until=0.0,
        reason=reason,
        updated_at=now,
    )


def close_by_hand(circuit: Circuit, *, reason: str, now: float) -> Circuit:
    """Close a circuit; its relapses are remembered, so that the next cool-down is as long."""
    return _closed(circuit, now, reason, trips=circuit.trips)


def reset(circuit: Circuit, *, reason: str, now: float) -> Circuit:
    """Close a circuit and forget its relapses."""
    return _closed(circuit, now, reason, trips=0)


def expires_at(circuit: Circuit, policy: BreakerPolicy) -> float:
    """Return when a circuit says nothing any more and may be deleted, in epoch seconds."""
    last = max(circuit.updated_at, circuit.open_until, circuit.probe_until)
    return last + policy.window_seconds + policy.healthy_seconds + _KEPT_SECONDS


def _open(circuit: Circuit, policy: BreakerPolicy, now: float, reason: str) -> Circuit:
    is_healthy = now >= circuit.open_until + policy.healthy_seconds
    trips = 1 if is_healthy else circuit.trips + 1
    return replace(
        circuit,
        state=CircuitState.OPEN,
        failures=(),
        trips=trips,
        opened_at=now,
        open_until=now + policy.cooldown(trips),
        probe_until=0.0,
        reason=reason,
        updated_at=now,
    )


def _closed(circuit: Circuit, now: float, reason: str, *, trips: int) -> Circuit:
    now = max(now, circuit.updated_at)
    return replace(
        circuit,
        state=CircuitState.CLOSED,
        failures=(),
        trips=trips,
        open_until=now,  # older failures are no news
        probe_until=0.0,
        reason=reason,
        updated_at=now,
    )
