"""The breaker's use cases: what launches ask and tell, and what operators do by hand.

Lifecycle: the whole table is read at most every ten seconds of a process, since it is small and a
launch may ask for sixty offerings at once -> decided on that copy -> written under the version
that was seen. A copy that is out of date loses the write and nothing else: a probe is then
somebody else's, a failure is counted once more on what is read anew.

The breaker only ever saves calls and money. So no error of it reaches a launch: a table that does
not answer leaves nothing out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from runsfleet_runtime.circuit_breaker.model import (
    BreakerPolicy,
    Circuit,
    CircuitState,
    Failure,
    FailureKind,
    Offering,
    admit,
    close_by_hand,
    count,
    deliver,
    open_by_hand,
    reset,
)
from runsfleet_runtime.circuit_breaker.ports import Change, CircuitsUnknownError, StoresCircuits
from runsfleet_runtime.contract.metrics import Metric
from runsfleet_runtime.telemetry.log import get_logger
from runsfleet_runtime.telemetry.metrics import CountsMetrics

log = get_logger("circuit_breaker")

CACHE_SECONDS: Final = 10.0
"""How long a process believes what it read."""

_MAX_PROBES: Final = 5  # of one launch: after an outage all offerings are due at once
_TRIES: Final = 4

_CLOSED, _OPENED, _PROBE = "closed", "opened", "probe"
_OPENED_BY: Final = {
    FailureKind.CAPACITY.value: Metric.BREAKER_OPENED_BY_SHORTAGE,
    FailureKind.INTERRUPTION.value: Metric.BREAKER_OPENED_BY_INTERRUPTION,
}


class Breaker:
    """Adapter-free use case of :class:`~runsfleet_runtime.circuit_breaker.ports.GuardsOfferings`.

    A process records failures of one kind only, because each metric has one emitter: dispatch
    capacity errors, the events function interruptions.

    Args:
        store: The table.
        policy: The numbers.
        actor: Who acts, for the audit table: the function's name.
        metrics: Where metrics go.
        clock: Returns epoch seconds.
    """

    def __init__(
        self,
        store: StoresCircuits,
        *,
        policy: BreakerPolicy,
        actor: str,
        metrics: CountsMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._policy = policy
        self._actor = actor
        self._metrics = metrics
        self._clock = clock
        self._known: dict[Offering, Circuit] = {}
        self._read_at: float | None = None

    def closed_to(self, offerings: Sequence[Offering]) -> frozenset[Offering]:
        """Return what to leave out; see ``GuardsOfferings``."""
        now = self._clock()
        if self._refresh(now):
            self._measure(now)
        refused: set[Offering] = set()
        probes: list[Change] = []
        healed: list[Change] = []
        for offering in dict.fromkeys(offerings):
            circuit = self._known.get(offering)
            if circuit is None:
                continue
            after = admit(circuit, self._policy, now=now)
            if after is None:
                refused.add(offering)
            elif after.state is CircuitState.HALF_OPEN:
                is_transition = circuit.state is not CircuitState.HALF_OPEN
                action = _PROBE if is_transition else ""
                probes.append(self._as_change(circuit, after, action))
            elif after is not circuit:
                healed.append(self._as_change(circuit, after, _CLOSED))
        refused |= {change.before.offering for change in probes[_MAX_PROBES:]}
        refused |= self._probe(probes[:_MAX_PROBES])
        self._write(healed)
        return frozenset(refused)

    def record_failures(self, failures: Sequence[Failure]) -> None:
        """Count failures; see ``GuardsOfferings``."""
        by_offering: dict[Offering, list[Failure]] = {}
        for failure in failures:
            by_offering.setdefault(failure.offering, []).append(failure)

        def decide(circuit: Circuit, now: float) -> tuple[Circuit, str]:
            after = count(circuit, by_offering[circuit.offering], self._policy, now=now)
            return after, _OPENED if after.state is CircuitState.OPEN else ""

        for change in self._change(by_offering, decide):
            if change.action:
                offering = change.after.offering
                kind = by_offering[offering][-1].kind.value
                self._metrics.add(_OPENED_BY[kind], kind=offering.capacity_type)

    def record_successes(self, offerings: Sequence[Offering]) -> None:
        """Close what was probed; see ``GuardsOfferings``."""
        # who probes has written so, and therefore knows; nobody else need read anything
        probed = {
            offering
            for offering in offerings
            if offering in self._known and self._known[offering].state is CircuitState.HALF_OPEN
        }

        def decide(circuit: Circuit, now: float) -> tuple[Circuit, str]:
            return deliver(circuit, now=now), _CLOSED

        self._change(probed, decide)

    # -- writing -------------------------------------------------------------------------------

    def _probe(self, changes: Sequence[Change]) -> set[Offering]:
        """Claim probes; returns the offerings whose probe is, or may be, somebody else's."""
        made = {change.after.offering for change in self._write(changes) or ()}
        for offering in made:
            self._metrics.add(Metric.BREAKER_PROBES, kind=offering.capacity_type)
        return {change.after.offering for change in changes} - made

    def _change(
        self,
        offerings: Iterable[Offering],
        decide: Callable[[Circuit, float], tuple[Circuit, str]],
    ) -> list[Change]:
        """Decide on the newest state until it is written or is no news; returns what was."""
        waiting = list(offerings)
        done: list[Change] = []
        for attempt in range(_TRIES):
            if not waiting:
                break
            now = self._clock()
            self._refresh(now, is_lost=attempt > 0)
            changes = []
            for offering in waiting:
                circuit = self._known.get(offering) or Circuit(offering=offering)
                after, action = decide(circuit, now)
                if after is not circuit:
                    changes.append(self._as_change(circuit, after, action))
            written = self._write(changes)
            if written is None:
                break  # the client has tried often enough
            done += written
            there = {change.after.offering for change in written}
            waiting = [c.after.offering for c in changes if c.after.offering not in there]
        if waiting:
            log.warning("circuits not changed", extra={"offerings": [o.key for o in waiting]})
        return done

    def _as_change(self, before: Circuit, after: Circuit, action: str) -> Change:
        return Change(before=before, after=after, action=action, actor=self._actor)

    def _write(self, changes: Sequence[Change]) -> list[Change] | None:
        """Write, take note of what is stored now, and return the changes that were made.

        None when the table did not answer: what was made is unknown.
        """
        if not changes:
            return []
        made = []
        try:
            results = self._store.write(changes)
        except CircuitsUnknownError as error:
            log.warning("circuits not written", extra={"error": str(error)})
            return None
        for change, stored in zip(changes, results, strict=True):
            if stored is None:
                continue
            self._known[stored.offering] = stored
            made.append(change)
            if change.action:
                log.warning(
                    "circuit changed",
                    extra={
                        "offering": stored.offering.key,
                        "state": stored.state.value,
                        "reason": stored.reason,
                        "open_until": stored.open_until,
                        "trips": stored.trips,
                    },
                )
            if change.action == _CLOSED:
                self._metrics.add(Metric.BREAKER_CLOSED, kind=stored.offering.capacity_type)
        return made

    # -- reading -------------------------------------------------------------------------------

    def _refresh(self, now: float, *, is_lost: bool = False) -> bool:
        """Read the table when the copy is old or a write was lost; whether it was read."""
        age = None if self._read_at is None else now - self._read_at
        # a clock that was set back makes no copy young
        if not is_lost and age is not None and 0 <= age < CACHE_SECONDS:
            return False
        self._read_at = now
        try:
            circuits = self._store.read(is_consistent=is_lost)
        except CircuitsUnknownError as error:
            log.warning("circuits not read", extra={"error": str(error)})
            self._known = {}
            return False
        self._known = {circuit.offering: circuit for circuit in circuits}
        return True

    def _measure(self, now: float) -> None:
        left_out = [c.offering.capacity_type for c in self._known.values() if c.is_refusing(now)]
        for capacity_type in Metric.BREAKER_OPEN.values:
            total = left_out.count(capacity_type)
            self._metrics.add(Metric.BREAKER_OPEN, total, kind=capacity_type)


class BreakerControl:
    """What an operator does by hand. Everything is in the audit table.

    Args:
        store: The table.
        actor: Who acts, such as the ARN of a role session.
        clock: Returns epoch seconds.
    """

    def __init__(self, store: StoresCircuits, *, actor: str, clock: Callable[[], float]) -> None:
        self._store = store
        self._actor = actor
        self._clock = clock

    def circuits(self) -> list[Circuit]:
        """Return all circuits that are known, in order of their offerings.

        Raises:
            CircuitsUnknownError: If the table did not answer.
        """
        return sorted(self._store.read(is_consistent=True), key=lambda c: c.offering)

    def open(self, offerings: Sequence[Offering], *, seconds: float, note: str) -> list[Circuit]:
        """Leave offerings out for so many seconds, whatever they deliver.

        Args:
            offerings: The offerings.
            seconds: From now; one launch probes each afterwards.
            note: Why, for the audit table.

        Returns:
            The circuits as they are stored now.

        Raises:
            CircuitsUnknownError: If a circuit could not be written.
        """
        reason = f"by hand: {note}" if note else "by hand"

        def decide(circuit: Circuit, now: float) -> Circuit:
            return open_by_hand(circuit, seconds=seconds, reason=reason, now=now)

        return self._change(offerings, decide, _OPENED)

    def close(self, offerings: Sequence[Offering], *, note: str) -> list[Circuit]:
        """Use offerings again at once; otherwise as :meth:`open`."""
        reason = f"by hand: {note}" if note else "by hand"

        def decide(circuit: Circuit, now: float) -> Circuit:
            return close_by_hand(circuit, reason=reason, now=now)

        return self._change(offerings, decide, _CLOSED)

    def reset(self, offerings: Sequence[Offering] = (), *, note: str) -> list[Circuit]:
        """Close offerings and forget all that was counted; all of them when none is named."""
        reason = f"reset by hand: {note}" if note else "reset by hand"

        def decide(circuit: Circuit, now: float) -> Circuit:
            return reset(circuit, reason=reason, now=now)

        named = offerings or [circuit.offering for circuit in self.circuits()]
        return self._change(named, decide, "reset")

    def _change(
        self,
        offerings: Sequence[Offering],
        decide: Callable[[Circuit, float], Circuit],
        action: str,
    ) -> list[Circuit]:
        waiting = list(dict.fromkeys(offerings))
        done: dict[Offering, Circuit] = {}
        for _ in range(_TRIES):
            if not waiting:
                break
            known: Mapping[Offering, Circuit] = {
                circuit.offering: circuit for circuit in self._store.read(is_consistent=True)
            }
            now = self._clock()
            changes = []
            for offering in waiting:
                before = known.get(offering) or Circuit(offering=offering)
                after = decide(before, now)
                changes.append(Change(before=before, after=after, action=action, actor=self._actor))
            for stored in self._store.write(changes):
                if stored is not None:
                    done[stored.offering] = stored
            waiting = [offering for offering in waiting if offering not in done]
        if waiting:
            names = ", ".join(offering.key for offering in waiting)
            raise CircuitsUnknownError(f"not written, try again: {names}")
        return [done[offering] for offering in dict.fromkeys(offerings or done)]
