"""Named runners: ``runner=4cpu-linux-arm64`` and its kin."""

from __future__ import annotations

from typing import NamedTuple

from runsfleet_runtime.labels.families import FAMILIES, shapes
from runsfleet_runtime.labels.model import Arch, Os

# also what the origin and other fleets call them
ARCH_SYNONYMS = {
    "arm64": Arch.ARM64,
    "aarch64": Arch.ARM64,
    "x64": Arch.X64,
    "x86_64": Arch.X64,
    "amd64": Arch.X64,
}
CPU_COUNTS = (1, 2, 4, 8, 16, 32, 48, 64, 96)
LARGE_DISK = "large-disk"
LARGE_DISK_GIB = 200

_FIRST_FAMILY = {
    (Os.LINUX, Arch.ARM64): "c7g",
    (Os.LINUX, Arch.X64): "c6i",
    (Os.WINDOWS, Arch.X64): "m6i",
}
_FIRST_TYPE = {
    # burstable: for the small jobs that mostly wait
    (2, Os.LINUX, Arch.ARM64): "t4g.medium",
    # c7g ends at 64 vCPUs
    (96, Os.LINUX, Arch.ARM64): "c8g.24xlarge",
    # with one vCPU there are only these among x64 families
    (1, Os.LINUX, Arch.X64): "c7a.medium",
    (1, Os.WINDOWS, Arch.X64): "m7a.medium",
}
_FAMILIES = {
    (1, Os.LINUX, Arch.X64): ("c7a", "m7a"),
    (1, Os.WINDOWS, Arch.X64): ("m7a",),
}


class NamedRunner(NamedTuple):
    """What the name of a runner stands for.

    Attributes:
        cpu: vCPUs, exactly.
        os: Operating system.
        arch: Architecture.
        instance_type: First choice.
        memory_gib: Memory of the first choice, the least that an equivalent must have.
        families: Families of the equivalents; empty means the architecture's default.
        large_disk: Whether ``+large-disk`` was given.
    """

    cpu: int
    os: Os
    arch: Arch
    instance_type: str
    memory_gib: int
    families: tuple[str, ...]
    large_disk: bool


def default_disk_gib(cpu: int, os: Os) -> int:
    """Return the disk of a runner whose label names none, in GiB.

    30, 50 and 100 GiB from 1, 4 and 8 vCPUs up (the sizes of runs-fleet); Windows has 50 at least,
    as its image alone takes 30.
    """
    disk = 30 if cpu < 4 else 50 if cpu < 8 else 100  # noqa: PLR2004  # the sizes of the docstring
    return max(disk, 50) if os is Os.WINDOWS else disk


def read_runner(text: str) -> NamedRunner | tuple[str, str]:
    """Read the value of ``runner=``.

    Args:
        text: ``<n>cpu-<os>-<arch>``, optionally followed by ``+large-disk``.

    Returns:
        The runner, or a reason why there is none such and a cure.

    Example:
        >>> read_runner("4cpu-linux-arm64").instance_type
        'c7g.xlarge'
    """
    form = "write runner=<n>cpu-<linux or windows>-<arm64 or x64>, such as runner=4cpu-linux-arm64"
    name, plus, extra = text.partition("+")
    pieces = name.split("-")
    if len(pieces) != 3:  # noqa: PLR2004  # count, os, arch
        return "this is not the name of a runner", form
    if plus and extra != LARGE_DISK:
        return (f"the only addition to a runner's name is +{LARGE_DISK}", f"write +{LARGE_DISK}")
    count = next((n for n in CPU_COUNTS if pieces[0] == f"{n}cpu"), None)
    os = next((member for member in Os if member.value == pieces[1]), None)
    arch = ARCH_SYNONYMS.get(pieces[2])
    if count is None:
        return (
            "there is no runner of that size",
            "write " + ", ".join(f"{n}cpu" for n in CPU_COUNTS[:-1]) + f" or {CPU_COUNTS[-1]}cpu",
        )
    if os is None or arch is None:
        return "this is not the name of a runner", form
    if os is Os.WINDOWS and arch is Arch.ARM64:
        return NO_WINDOWS_ON_ARM
    key = (count, os, arch)
    first = _FIRST_TYPE.get(key) or _type_with(_FIRST_FAMILY[os, arch], count)
    return NamedRunner(
        cpu=count,
        os=os,
        arch=arch,
        instance_type=first,
        memory_gib=_memory_of(first),
        families=_FAMILIES.get(key, ()),
        large_disk=bool(plus),
    )


NO_WINDOWS_ON_ARM = ("ec2 has no windows on arm64", "write x64 for windows, or linux for arm64")


def _type_with(family: str, cpu: int) -> str:
    return next(shape.name for shape in shapes(FAMILIES[family]) if shape.vcpus == cpu)


def _memory_of(instance_type: str) -> int:
    family = FAMILIES[instance_type.partition(".")[0]]
    return next(s.memory_gib for s in shapes(family) if s.name == instance_type)
