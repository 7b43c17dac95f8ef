"""Reads a fleet's health, at most every ten seconds, and within a bound.

Whoever asks is not known, so an answer is kept for ten seconds: no rate of questions makes more
than a few reads. What does not answer is told as not known, never as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from runsfleet_runtime.health.model import Findings, to_document
from runsfleet_runtime.health.ports import (
    CountsCircuits,
    CountsMessages,
    ListsRuns,
    NotReadError,
)
from runsfleet_runtime.telemetry.log import get_logger

log = get_logger("health")

CACHE_SECONDS: Final = 10.0
BUDGET_SECONDS: Final = 4.0
"""Nothing more is read after it; the function ends after 10 s."""

_T = TypeVar("_T")


class HealthCheck:
    """The use case.

    Args:
        jobs: The jobs queue.
        dead_jobs: Its dead-letter queue.
        circuits: The circuits of the breaker.
        sweeps: What the sweeps did last.
        fleet: Name of the fleet.
        region: Its region.
        version: Version of this code.
        clock: Returns epoch seconds.
    """

    def __init__(
        self,
        *,
        jobs: CountsMessages,
        dead_jobs: CountsMessages,
        circuits: CountsCircuits,
        sweeps: ListsRuns,
        fleet: str,
        region: str,
        version: str,
        clock: Callable[[], float],
    ) -> None:
        self._jobs = jobs
        self._dead_jobs = dead_jobs
        self._circuits = circuits
        self._sweeps = sweeps
        self._about = {"fleet": fleet, "region": region, "version": version}
        self._clock = clock
        self._known: dict[str, Any] | None = None
        self._read_at = 0.0

    def tell(self) -> dict[str, Any]:
        """Return the fleet's health, read within the last ten seconds."""
        now = self._clock()
        if self._known is None or not 0 <= now - self._read_at < CACHE_SECONDS:
            self._known, self._read_at = to_document(self._read(now), **self._about, now=now), now
        return self._known

    def _read(self, now: float) -> Findings:
        dead = self._try(self._dead_jobs.depth, now)
        return Findings(
            jobs=self._try(self._jobs.depth, now),
            dead_jobs=None if dead is None else dead.waiting + dead.in_flight,
            open_circuits=self._try(lambda: self._circuits.open_circuits(now=now), now),
            sweeps=self._try(self._sweeps.last_runs, now),
        )

    def _try(self, read: Callable[[], _T], began: float) -> _T | None:
        if self._clock() - began > BUDGET_SECONDS:
            return None
        try:
            return read()
        except NotReadError as error:
            log.warning("not read", extra={"what": str(error), "error": str(error.__cause__)})
            return None
