"""The launch plan: one request for each group of equal specs, spot first, then on-demand once.

A request asks for every offering (type and zone) that may serve, but for those that the circuit
breaker holds open. What EC2 then delivered and lacked is told back to the breaker.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from runsfleet_runtime.circuit_breaker.model import Offering
from runsfleet_runtime.contract.environment import LaunchTarget, OfferedImage
from runsfleet_runtime.labels import RunnerSpec

MAX_OVERRIDES: Final = 300  # launch template overrides in one instant fleet (EC2 quota)

# What speaks of one offering. Limits of the account (MaxSpotInstanceCountExceeded,
# VcpuLimitExceeded) and of a subnet (InsufficientFreeAddressesInSubnet) do not: they hold for all
# types alike, and leaving one out would not help. No price is set here, so SpotMaxPriceTooLow says
# that the pool costs as much as on-demand.
_NO_CAPACITY: Final = frozenset(
    {
        "InsufficientInstanceCapacity",
        "InsufficientCapacity",
        "UnfulfillableCapacity",
        "SpotMaxPriceTooLow",
    }
)
# EC2's answers for a type that a zone does not have, but also for a request that is wrong in itself
_NOT_OFFERED: Final = frozenset({"Unsupported", "InvalidFleetConfiguration"})


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
        zones: Zone by subnet; a subnet that is not in it counts as a zone of its own that the
            breaker knows nothing of.
        left_out: Offerings that are not asked for.
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
    zones: Mapping[str, str] = field(default_factory=dict)
    left_out: frozenset[Offering] = frozenset()

    @property
    def root_device(self) -> str:
        """Name of the root device of the image that is launched."""
        own = self.image.root_device if self.image else None
        return own or self.target.root_device

    def offerings(self) -> list[Offering]:
        """Return what the request may ask for, best type first, what is left out included."""
        subnets = self._spread()
        found = (self._offering(t, subnet) for t in self.instance_types for subnet in subnets)
        return [offering for offering in found if offering is not None]

    def overrides(self) -> list[tuple[str, str]]:
        """Return the pairs of type and subnet, best type first, as many as EC2 accepts.

        Each zone has one subnet, since EC2 refuses two pairs of the same type and zone. Where there
        are too many pairs the last types go; no zone that has a pair loses all of them.
        """
        subnets = self._spread()
        pairs = [
            (t, subnet)
            for t in self.instance_types
            for subnet in subnets
            if self._offering(t, subnet) not in self.left_out
        ]
        if len(pairs) <= MAX_OVERRIDES:
            return pairs
        ranks: Counter[str] = Counter()
        ranked: list[tuple[int, int]] = []
        for index, (_, subnet) in enumerate(pairs):
            ranked.append((ranks[subnet], index))
            ranks[subnet] += 1
        return [pairs[index] for index in sorted(i for _, i in sorted(ranked)[:MAX_OVERRIDES])]

    def without(self, left_out: frozenset[Offering]) -> LaunchRequest:
        """Return the request that does not ask for these."""
        return replace(self, left_out=left_out)

    def _spread(self) -> list[str]:
        """Return one subnet of each zone; of several, each request takes another, by its token."""
        groups: dict[str, list[str]] = {}
        for subnet in self.subnet_ids:
            groups.setdefault(self.zones.get(subnet, subnet), []).append(subnet)
        turn = zlib.crc32(self.client_token.encode())
        return [subnets[turn % len(subnets)] for subnets in groups.values()]

    def _offering(self, instance_type: str, subnet_id: str) -> Offering | None:
        zone = self.zones.get(subnet_id)
        if zone is None:
            return None
        return Offering(
            capacity_type=self.capacity.value, instance_type=instance_type, availability_zone=zone
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchedInstance:
    """An instance that EC2 launched."""

    instance_id: str
    instance_type: str
    availability_zone: str
    capacity: CapacityType

    @property
    def offering(self) -> Offering:
        """Where it comes from."""
        return Offering(
            capacity_type=self.capacity.value,
            instance_type=self.instance_type,
            availability_zone=self.availability_zone,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityError:
    """One offering that CreateFleet could not deliver from; without a type it spoke of none."""

    code: str
    message: str
    instance_type: str = ""
    availability_zone: str = ""
    capacity: CapacityType

    @property
    def offering(self) -> Offering:
        """What lacked."""
        return Offering(
            capacity_type=self.capacity.value,
            instance_type=self.instance_type,
            availability_zone=self.availability_zone,
        )


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


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one CreateFleet says of offerings.

    Attributes:
        delivered: Offerings that instances came from.
        lacking: Offerings that were asked for and had nothing.
    """

    delivered: tuple[Offering, ...] = ()
    lacking: tuple[Offering, ...] = ()


def judge(request: LaunchRequest, result: LaunchResult) -> Verdict:
    """Say which offerings delivered and which failed.

    - One that delivered did not fail, though it may have had fewer than were asked for.
    - An error that names no offering speaks of all that were asked for, if nothing was launched.
    - An error that may be the request's own fault counts only beside instances, which prove that
      the request is right.
    - A call that failed as a whole says nothing.

    Args:
        request: What was asked.
        result: What EC2 answered.
    """
    asked = dict.fromkeys(o for o in request.offerings() if o not in request.left_out)
    delivered = dict.fromkeys(instance.offering for instance in result.instances)
    counted = _NO_CAPACITY | _NOT_OFFERED if delivered else _NO_CAPACITY
    lacking: dict[Offering, None] = {}
    for error in result.errors:
        if error.code not in counted:
            continue
        if error.instance_type:
            lacking[error.offering] = None
        elif not delivered:
            lacking |= asked
    return Verdict(
        tuple(delivered),
        tuple(offering for offering in lacking if offering in asked and offering not in delivered),
    )


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
