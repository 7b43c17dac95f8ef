"""Launches and the breaker together: an outage from its first error to its end."""

from __future__ import annotations

from collections.abc import Sequence

from runsfleet_runtime.circuit_breaker.breaker import Breaker
from runsfleet_runtime.circuit_breaker.model import BreakerPolicy, Failure, Offering
from runsfleet_runtime.fleet.plan import CapacityType, LaunchedInstance, LaunchRequest, LaunchResult
from tests.unit.circuit_breaker.test_breaker import Table
from tests.unit.jobs.test_dispatch import World, job

ZONES = {"subnet-a": "eu-central-1a", "subnet-b": "eu-central-1b"}
SPOT, ON_DEMAND = CapacityType.SPOT, CapacityType.ON_DEMAND


class Fleet(World):
    """A world in which EC2 launches the first offering that it is asked for, and the real breaker.

    Where spot has no capacity left EC2 says so of the call as a whole.
    """

    def __init__(self) -> None:
        super().__init__()
        self.table = Table()
        self.breaker = Breaker(
            self.table,
            policy=BreakerPolicy(),
            actor="dispatch",
            metrics=self,
            clock=lambda: self.now,
        )

    def closed_to(self, offerings: Sequence[Offering]) -> frozenset[Offering]:
        return self.breaker.closed_to(offerings)

    def record_failures(self, failures: Sequence[Failure]) -> None:
        self.breaker.record_failures(failures)

    def record_successes(self, offerings: Sequence[Offering]) -> None:
        self.breaker.record_successes(offerings)

    def launch(self, request: LaunchRequest) -> LaunchResult:
        result = super().launch(request)
        kind, subnet = request.overrides()[0]
        there = tuple(
            LaunchedInstance(
                instance_id=instance.instance_id,
                instance_type=kind,
                availability_zone=ZONES[subnet],
                capacity=instance.capacity,
            )
            for instance in result.instances
        )
        return LaunchResult(there, result.errors)

    def serve(self, number: int) -> list[CapacityType]:
        """Dispatch a job; returns the ways of buying that EC2 was asked for."""
        before = len(self.requests)
        assert self.dispatch(job(number, queued_at=self.now), subnet_zones=ZONES) == set()
        return [request.capacity for request in self.requests[before:]]


def test_an_outage_of_spot_from_its_beginning_to_its_end() -> None:
    """Three launches ask in vain, the next ones go on-demand at once; one probes; spot is back."""
    fleet = Fleet()
    fleet.capacity = {SPOT: 0}
    assert [fleet.serve(n) for n in range(3)] == [[SPOT, ON_DEMAND]] * 3
    assert [fleet.serve(n) for n in range(3, 8)] == [[ON_DEMAND]] * 5
    fleet.now += 31 * 60
    assert fleet.serve(8) == [SPOT, ON_DEMAND]  # the probe, in vain
    fleet.now += 61 * 60
    fleet.capacity = {}
    assert fleet.serve(9) == [SPOT]
    assert len(fleet.requests[-1].overrides()) == 5  # as many probes as one launch makes
    fleet.now += 10
    assert fleet.serve(10) == [SPOT]
    assert fleet.counted["BreakerClosed:spot"] >= 1
    assert len(fleet.running) == 11
    assert fleet.queue == []


def test_an_outage_of_everything_delays_and_loses_nothing() -> None:
    """With every offering open EC2 is asked for all of them, and serves as soon as it can."""
    fleet = Fleet()
    fleet.capacity = {SPOT: 0, ON_DEMAND: 0}
    for number in range(4):
        assert fleet.serve(number) == [SPOT, ON_DEMAND]
    assert len(fleet.queue) == 4
    assert len(fleet.requests[-1].overrides()) == 2 * len(fleet.requests[-1].instance_types)
    fleet.capacity = {ON_DEMAND: 100}
    assert fleet.serve(9) == [SPOT]
    assert len(fleet.running) == 1
