"""Runs a task as the function does, with leases in memory and a clock that stands still."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runsfleet_runtime.contract.metrics import MetricDefinition
from runsfleet_runtime.housekeeping.model import SweepOutcome, TaskReport
from runsfleet_runtime.housekeeping.ports import Lease, SweepError, Task
from runsfleet_runtime.housekeeping.runner import TaskRunner

NOW = 1_800_000_000.0


@dataclass
class Frame:
    """What surrounds a task: leases, metrics and time."""

    now: float = NOW
    seconds: float = 300.0
    held: set[str] = field(default_factory=set)
    states: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    outcomes: dict[str, SweepOutcome] = field(default_factory=dict)
    counted: Counter[str] = field(default_factory=Counter)
    is_leases_table_down: bool = False

    def acquire(self, name: str, *, owner: str, ends_at: float, now: float) -> Lease | None:
        if self.is_leases_table_down:
            raise SweepError("throttled")
        assert ends_at > now + self.seconds
        if name in self.held:
            return None
        self.held.add(name)
        return Lease(name=name, owner=owner, state=self.states.get(name, {}))

    def release(
        self, lease: Lease, *, state: Mapping[str, Any], outcome: SweepOutcome, now: float
    ) -> bool:
        assert now >= NOW
        self.held.remove(lease.name)
        self.states[lease.name] = dict(state)
        self.outcomes[lease.name] = outcome
        return True

    def add(self, metric: MetricDefinition, value: float = 1, *, kind: str | None = None) -> None:
        assert kind is None or kind in metric.values
        self.counted[metric.name if kind is None else f"{metric.name}:{kind}"] += int(value)

    def clock(self) -> float:
        return self.now

    def run(self, task: Task[Any]) -> TaskReport:
        runner = TaskRunner(leases=self, metrics=self, clock=self.clock, new_id=lambda: "run")
        return runner.run(task, deadline=self.now + self.seconds)
