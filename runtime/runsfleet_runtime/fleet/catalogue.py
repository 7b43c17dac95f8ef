"""The instance types that the fleet may launch, and which of them may serve a spec.

Pure and without AWS: types, vCPUs and memory follow from the families that labels can name. What a
region really offers, and what is short just now, is not decided here.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from runsfleet_runtime.labels.families import FAMILIES, Shape, fitting_shapes, shapes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runsfleet_runtime.labels import Arch, RunnerSpec

# with three zones 60 of the 300 overrides that one CreateFleet takes; more kinds than that only add
# ever larger machines
MAX_CANDIDATES = 20

# USD per hour on demand, us-east-1, Linux, on 2026-01-19 (the AWS price list, as karpenter's
# generated pricing file has it); within a family the price goes with memory, and so with vCPUs
PRICES_AS_OF = "2026-01-19"
_LISTED_PRICES = {
    "t4g.medium": 0.0336,
    "c6g.xlarge": 0.1360,
    "c7g.xlarge": 0.1450,
    "c8g.xlarge": 0.15952,
    "m6g.xlarge": 0.1540,
    "m7g.xlarge": 0.1632,
    "m8g.xlarge": 0.17952,
    "r6g.xlarge": 0.2016,
    "r7g.xlarge": 0.2142,
    "r8g.xlarge": 0.23564,
    "t3.medium": 0.0416,
    "t3a.medium": 0.0376,
    "c6i.xlarge": 0.1700,
    "c6a.xlarge": 0.1530,
    "c7i.xlarge": 0.1785,
    "c7a.xlarge": 0.20528,
    "c8i.xlarge": 0.18742,
    "m6i.xlarge": 0.1920,
    "m6a.xlarge": 0.1728,
    "m7i.xlarge": 0.2016,
    "m7a.xlarge": 0.23184,
    "r6i.xlarge": 0.2520,
    "r7i.xlarge": 0.2646,
}


class InstanceType(NamedTuple):
    """One instance type.

    Attributes:
        name: Its name, such as ``c7g.xlarge``.
        family: Its family, such as ``c7g``.
        generation: The number in its family's name.
        arch: Its architecture.
        vcpus: vCPUs.
        memory_gib: Memory in GiB.
        burstable: Whether its vCPUs run on CPU credits.
        ondemand_usd_per_hour: Linux on demand in us-east-1 on ``PRICES_AS_OF``.
    """

    name: str
    family: str
    generation: int
    arch: Arch
    vcpus: int
    memory_gib: int
    burstable: bool
    ondemand_usd_per_hour: float


def candidates(spec: RunnerSpec) -> tuple[InstanceType, ...]:
    """Return the instance types that may serve a spec, the preferred ones first.

    The first choice of a named runner leads; then fewer vCPUs come before more, less memory before
    more, and the families in their order of preference. All are of the spec's architecture;
    burstable ones are among them only when the label asks for them. For spot there are a few
    families more (the generation before), because capacity is the likelier the more kinds will do.

    Args:
        spec: What a label asks for.

    Returns:
        At most ``MAX_CANDIDATES`` types, none twice; at least one for a spec that labels accepted.

    Example:
        >>> from runsfleet_runtime.labels import Arch, Os, RunnerSpec
        >>> spec = RunnerSpec(os=Os.LINUX, arch=Arch.ARM64, cpu_min=4, cpu_max=4, disk_gib=50)
        >>> [kind.name for kind in candidates(spec)][:3]
        ['c8g.xlarge', 'c7g.xlarge', 'c6g.xlarge']
    """
    # a stable sort: equals stay in the families' order of preference
    found = sorted(
        fitting_shapes(spec),
        key=lambda shape: (shape.name != spec.preferred_type, shape.vcpus, shape.memory_gib),
    )
    return tuple(CATALOGUE[shape.name] for shape in found[:MAX_CANDIDATES])


def _price_per_gib() -> dict[str, float]:
    """Return the price of one GiB of each family, in USD per hour."""
    listed = {shape.name: shape for family in FAMILIES.values() for shape in shapes(family)}
    return {
        listed[name].family.name: price / listed[name].memory_gib
        for name, price in _LISTED_PRICES.items()
    }


def _instance_type(shape: Shape, per_gib: float) -> InstanceType:
    family = shape.family
    return InstanceType(
        name=shape.name,
        family=family.name,
        generation=family.generation,
        arch=family.arch,
        vcpus=shape.vcpus,
        memory_gib=shape.memory_gib,
        burstable=family.burstable,
        ondemand_usd_per_hour=round(per_gib * shape.memory_gib, 6),
    )


def _catalogue() -> dict[str, InstanceType]:
    per_gib = _price_per_gib()
    return {
        shape.name: _instance_type(shape, per_gib[family.name])
        for family in FAMILIES.values()
        for shape in shapes(family)
    }


CATALOGUE: Mapping[str, InstanceType] = MappingProxyType(_catalogue())
