"""The launch plan: one request for each group of equal specs, spot first, then on-demand once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from runsfleet_runtime.contract.environment import LaunchTarget, OfferedImage
from runsfleet_runtime.labels import RunnerSpec

MAX_OVERRIDES: Final = 300  # launch template overrides in one instant fleet (EC2 quota)


class CapacityType(StrEnum):
    """How an instance is bought; the values are EC2's ``DefaultTargetCapacityType``."""

    SPOT = "spot"
    ON_DEMAND = "on-demand"


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRequest:
    """One CreateFleet call.

    Attributes:
        spec: What each instance must be.
        count: How many instances.
        capacity: How they are bought.
        instance_types: Types that serve the spec, best first.
        subnet_ids: Subnets to choose from; together they span every zone of the fleet.
        target: Launch template of the spec's platform.
        image: Image that replaces the template's; ``None`` keeps it.
        client_token: Makes a repeated call answer with the same instances.
    """

    spec: RunnerSpec
    count: int
    capacity: CapacityType
    instance_types: tuple[str, ...]
    subnet_ids: tuple[str, ...]
    target: LaunchTarget
    image: OfferedImage | None
    client_token: str

    @property
    def root_device(self) -> str:
        """Name of the root device of the image that is launched."""
        own = self.image.root_device if self.image else None
        return own or self.target.root_device

    def overrides(self) -> list[tuple[str, str]]:
        """Return the pairs of type and subnet, best type first, as many as EC2 accepts."""
        pairs = [(t, subnet) for t in self.instance_types for subnet in self.subnet_ids]
        return pairs[:MAX_OVERRIDES]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchedInstance:
    """An instance that EC2 launched."""

    instance_id: str
    instance_type: str
    availability_zone: str
    capacity: CapacityType


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityError:
    """One offering that CreateFleet could not deliver from."""

    code: str
    message: str
    instance_type: str = ""
    availability_zone: str = ""
    capacity: CapacityType


@dataclass(frozen=True, slots=True)
class LaunchResult:
    """What one CreateFleet delivered.

    Attributes:
        instances: What was launched; may be fewer than asked for.
        errors: Offerings that had nothing; may stand beside instances.
        failed: Why the call as a whole failed; then nothing is known of what was launched, and
            an instance that was launched all the same ends itself for want of a configuration.
    """

    instances: tuple[LaunchedInstance, ...] = ()
    errors: tuple[CapacityError, ...] = ()
    failed: str = ""


def client_token(claim_ids: Sequence[str], capacity: CapacityType) -> str:
    """Return CreateFleet's idempotency token for a group of claims.

    The same claims give the same token, so that a call that is repeated because its answer was lost
    launches nothing twice; a job that is claimed anew gets another.

    Args:
        claim_ids: The claims that the instances are for.
        capacity: How they are bought: the on-demand call after a spot call is another call.

    Returns:
        64 hexadecimal digits, the most that EC2 takes.
    """
    text = "\n".join([capacity.value, *sorted(claim_ids)])
    return hashlib.sha256(text.encode()).hexdigest()


def capacity_for(spec: RunnerSpec, *, on_demand: bool) -> CapacityType:
    """Return how a job's instance is bought first.

    Args:
        spec: The job's spec.
        on_demand: Whether spot is out of the question for this job (after an interruption).
    """
    return CapacityType.SPOT if spec.spot and not on_demand else CapacityType.ON_DEMAND
