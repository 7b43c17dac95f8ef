"""What dispatch needs of EC2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from runsfleet_runtime.fleet.plan import LaunchRequest, LaunchResult


class LaunchesInstances(Protocol):
    """EC2, as dispatch uses it. No method raises for a failed call."""

    def launch(self, request: LaunchRequest) -> LaunchResult:
        """Launch up to ``request.count`` instances by one CreateFleet."""

    def terminate(self, instance_ids: Sequence[str]) -> bool:
        """Terminate instances of this fleet; False when that is not certain."""
