"""What other rooms ask of the circuit breaker, and what it asks of the outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from runsfleet_runtime.circuit_breaker.model import Circuit, Failure, Offering


class GuardsOfferings(Protocol):
    """The breaker as the launch plan uses it. No method raises for a failed call."""

    def closed_to(self, offerings: Sequence[Offering]) -> frozenset[Offering]:
        """Return those that must not be asked for now.

        An offering whose cool-down is over lets one caller through, who thereby probes it. When
        the table does not answer, none is left out.
        """

    def record_failures(self, failures: Sequence[Failure]) -> None:
        """Count capacity errors and interruptions; best effort."""

    def record_successes(self, offerings: Sequence[Offering]) -> None:
        """Tell of offerings that delivered; closes those that were probed; best effort."""


class CircuitsUnknownError(Exception):
    """The table of circuits did not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A write of one circuit.

    Attributes:
        before: What was seen; the write is refused when it is something else by now.
        after: What it becomes.
        action: What that is called in the audit table; empty when it is no transition.
        actor: Who does it.
    """

    before: Circuit
    after: Circuit
    action: str = ""
    actor: str = ""


class StoresCircuits(Protocol):
    """The table of circuits, shared by all functions of a fleet."""

    def read(self, *, is_consistent: bool) -> Sequence[Circuit]:
        """Return every circuit that was ever written and did not expire.

        Args:
            is_consistent: Whether all writes so far must be seen; costs twice as much.

        Raises:
            CircuitsUnknownError: If the table did not answer.
        """

    def write(self, changes: Sequence[Change]) -> Sequence[Circuit | None]:
        """Write circuits, each with its audit row or not at all.

        Returns for each the circuit as it is now stored, or None when somebody else wrote it
        meanwhile.

        Raises:
            CircuitsUnknownError: If the table did not answer; some may be written.
        """
