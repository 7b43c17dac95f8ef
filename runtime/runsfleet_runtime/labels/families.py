"""The instance families that a label can name, and which of their sizes fit a spec.

This is the vocabulary of ``family=`` and ``gen=``; ``fleet.catalogue`` adds order and price to it.
It stands here, below ``fleet``, so that the webhook can refuse what nothing could ever serve
without loading any of the code that launches.

Architecture, vCPUs and memory are those of EC2's DescribeInstanceTypes; a test compares all of them
with the copy of that data which moto carries.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from runsfleet_runtime.labels.model import Arch, RunnerSpec


class Family(NamedTuple):
    """One instance family.

    Attributes:
        name: Its name, such as ``c7g``.
        arch: Its architecture.
        generation: The number in its name.
        gib_per_vcpu: Memory per vCPU; of a burstable family per vCPU of its ``xlarge``.
        smallest: vCPUs of its smallest size that is offered.
        largest: vCPUs of its largest size that is offered.
        burstable: Whether its vCPUs run on CPU credits.
    """

    name: str
    arch: Arch
    generation: int
    gib_per_vcpu: int
    smallest: int
    largest: int
    burstable: bool = False


class Shape(NamedTuple):
    """One size of one family.

    Attributes:
        family: The family.
        size: Its size, such as ``xlarge``.
        vcpus: vCPUs.
        memory_gib: Memory in GiB.
    """

    family: Family
    size: str
    vcpus: int
    memory_gib: int

    @property
    def name(self) -> str:
        """Instance type, such as ``c7g.xlarge``."""
        return f"{self.family.name}.{self.size}"


_ROWS = (
    Family("t4g", Arch.ARM64, 4, 4, 2, 8, burstable=True),
    Family("c6g", Arch.ARM64, 6, 2, 1, 64),
    Family("c7g", Arch.ARM64, 7, 2, 1, 64),
    Family("c8g", Arch.ARM64, 8, 2, 1, 96),
    Family("m6g", Arch.ARM64, 6, 4, 1, 64),
    Family("m7g", Arch.ARM64, 7, 4, 1, 64),
    Family("m8g", Arch.ARM64, 8, 4, 1, 96),
    Family("r6g", Arch.ARM64, 6, 8, 1, 64),
    Family("r7g", Arch.ARM64, 7, 8, 1, 64),
    Family("r8g", Arch.ARM64, 8, 8, 1, 96),
    Family("t3", Arch.X64, 3, 4, 2, 8, burstable=True),
    Family("t3a", Arch.X64, 3, 4, 2, 8, burstable=True),
    Family("c6i", Arch.X64, 6, 2, 2, 96),
    Family("c6a", Arch.X64, 6, 2, 2, 96),
    Family("c7i", Arch.X64, 7, 2, 2, 96),
    Family("c7a", Arch.X64, 7, 2, 1, 96),
    Family("c8i", Arch.X64, 8, 2, 2, 96),
    Family("m6i", Arch.X64, 6, 4, 2, 96),
    Family("m6a", Arch.X64, 6, 4, 2, 96),
    Family("m7i", Arch.X64, 7, 4, 2, 96),
    Family("m7a", Arch.X64, 7, 4, 1, 96),
    Family("r6i", Arch.X64, 6, 8, 2, 96),
    Family("r7i", Arch.X64, 7, 8, 2, 96),
)
FAMILIES = {family.name: family for family in _ROWS}

# vCPUs of each size, the same in every family that is not burstable
_SIZES = {
    "medium": 1,
    "large": 2,
    "xlarge": 4,
    "2xlarge": 8,
    "4xlarge": 16,
    "8xlarge": 32,
    "12xlarge": 48,
    "16xlarge": 64,
    "24xlarge": 96,
}

# those of runs-fleet and in its order
DEFAULT_FAMILIES = {
    Arch.ARM64: ("c8g", "m8g", "r8g", "c7g", "m7g"),
    Arch.X64: ("c6i", "c7i", "m6i", "m7i"),
}
# for spot alone, which is the likelier to find capacity the more kinds it may take: the generation
# before (arm64), or the older generation by the other maker (x64)
SPOT_FAMILIES = {
    Arch.ARM64: ("r7g", "c6g", "m6g"),
    Arch.X64: ("c6a", "m6a"),
}


def shapes(family: Family) -> Iterator[Shape]:
    """Yield the sizes of a family, smallest first."""
    if family.burstable:
        # medium and large have both 2 vCPUs; only memory tells them apart
        yield Shape(family, "medium", 2, 4)
    for size, vcpus in _SIZES.items():
        if family.smallest <= vcpus <= family.largest:
            yield Shape(family, size, vcpus, vcpus * family.gib_per_vcpu)


def family_of(instance_type: str) -> Family | None:
    """Return the family of an instance type; ``None`` when it is not one of ours."""
    return FAMILIES.get(instance_type.partition(".")[0])


def preferred_families(spec: RunnerSpec) -> tuple[str, ...]:
    """Return the families that may serve a spec, in order of preference.

    A burstable family is among them only when the label asks for it: by ``family=``, or by a named
    runner whose first choice is burstable.
    """
    if spec.families:
        return spec.families
    names = DEFAULT_FAMILIES[spec.arch]
    if spec.spot or spec.generations:
        names += SPOT_FAMILIES[spec.arch]
    if spec.generations:
        # the defaults know but some generations; whoever asks for one may have any of its families
        others = (f.name for f in _ROWS if f.arch == spec.arch and not f.burstable)
        names += tuple(name for name in others if name not in names)
    first = None if spec.preferred_type is None else family_of(spec.preferred_type)
    if first is not None and first.name not in names:
        names = (first.name, *names)
    return names


def fits(shape: Shape, spec: RunnerSpec) -> bool:
    """Tell whether a size has what a spec asks for, whatever its family's place in the order."""
    return (
        shape.family.arch == spec.arch
        and spec.cpu_min <= shape.vcpus <= spec.cpu_max
        and spec.ram_gib_min <= shape.memory_gib
        and (spec.ram_gib_max is None or shape.memory_gib <= spec.ram_gib_max)
        and (not spec.generations or shape.family.generation in spec.generations)
    )


def fitting_shapes(spec: RunnerSpec) -> Iterator[Shape]:
    """Yield every size that can serve a spec, family by family in order of preference."""
    for name in preferred_families(spec):
        for shape in shapes(FAMILIES[name]):
            if fits(shape, spec):
                yield shape
