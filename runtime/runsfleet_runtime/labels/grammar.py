"""From the text of one label to the machine it asks for.

A label is read to its end whatever is wrong with it, so that its author sees all findings at once.
Nothing is corrected in silence: what is not exactly as documented is refused, with a cure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from runsfleet_runtime.labels.families import (
    FAMILIES,
    fitting_shapes,
    preferred_families,
)
from runsfleet_runtime.labels.model import Arch, NotOurs, Os, Refused, RetryPolicy, RunnerSpec
from runsfleet_runtime.labels.named import (
    ARCH_SYNONYMS,
    LARGE_DISK,
    LARGE_DISK_GIB,
    NO_WINDOWS_ON_ARM,
    NamedRunner,
    default_disk_gib,
)
from runsfleet_runtime.labels.reader import Reader

if TYPE_CHECKING:
    from runsfleet_runtime.labels.settings import LabelSettings

Choice = TypeVar("Choice")

# vCPUs of a label that names neither a runner nor a number: 2 to 4, as in runs-fleet
DEFAULT_CPU = 2
# cpu=4 means 4 to 8: more kinds of machine for spot to choose from, none absurdly large
_CPU_SPREAD = 2
# sizes of the root snapshots of the default images: Ubuntu 24.04 and Windows Server
MIN_DISK_GIB = {Os.LINUX: 8, Os.WINDOWS: 30}

_WORDS = {"true": True, "false": False}
_SYSTEMS = {member.value: member for member in Os}
_RETRIES = {member.value: member for member in RetryPolicy}


def read_spec(text: str, label: str, settings: LabelSettings) -> RunnerSpec | NotOurs | Refused:
    """Read the part of a label that says which machine is wanted.

    Args:
        text: ``key=value`` pairs joined by ``/``; empty asks for the default machine.
        label: The label as its author wrote it, for the findings.
        settings: What the fleet offers.

    Returns:
        The machine, or that the label names another fleet, or everything that is wrong.
    """
    reader = Reader(text, label, settings)
    # first of all: what is wrong with a label for another fleet is for that fleet to say
    region, environment = reader.name("region"), reader.name("env")
    for key, value, own, known in (
        ("region", region, settings.region, settings.known_regions),
        ("env", environment, settings.environment, settings.known_environments),
    ):
        if value is None or value == own:
            continue
        if not known or value in known:
            return NotOurs(f"the label asks for {key}={value}, this fleet is {own or 'unnamed'}")
        reader.fault(key, "there is no such fleet", f"use one of {', '.join(known)}")
    spec = _build(reader, region, environment)
    return Refused(tuple(reader.findings)) if reader.findings else spec


def _build(reader: Reader, region: str | None, environment: str | None) -> RunnerSpec:
    """Put the values together; the result counts only when the reader has no findings."""
    settings = reader.settings
    runner = reader.runner()
    families, generations = reader.families(), reader.generations()
    image = reader.image()
    os, arch = _platform(reader, runner, families, image)
    ram = reader.span("ram", settings.limits.max_ram_gib)
    cpu_min, cpu_max = _cpu(reader, runner)
    spot = reader.choice("spot", _WORDS)
    private = reader.choice("private", _WORDS)
    if private and not settings.private:
        reader.fault("private", "this fleet has no private subnets", "drop private=true")
    spec = RunnerSpec(
        os=os,
        arch=arch,
        cpu_min=cpu_min,
        cpu_max=cpu_max,
        ram_gib_min=ram[0] if ram else runner.memory_gib if runner else 0,
        ram_gib_max=ram[1] if ram else None,
        families=families or (runner.families if runner else ()),
        generations=generations,
        disk_gib=_disk(reader, runner, os, image) or 0,
        pool=reader.name("pool"),
        spot=settings.spot if spot is None else spot,
        retry=reader.choice("retry", _RETRIES) or RetryPolicy.WHEN_INTERRUPTED,
        private=bool(private),
        region=region,
        environment=environment,
        image=image,
    )
    if runner and reader.sound("ram", "family", "gen"):
        preferred = replace(spec, preferred_type=runner.instance_type)
        if _can_prefer(preferred):
            spec = preferred
    spec = _fitted(reader, spec)
    # only now, as the vCPUs of a spec given by memory were open until here
    return spec if spec.disk_gib else replace(spec, disk_gib=_default_disk(settings, spec))


def _platform(
    reader: Reader, runner: NamedRunner | None, families: tuple[str, ...], image: str | None
) -> tuple[Os, Arch]:
    """Choose exactly one operating system and one architecture; whatever disagrees is a finding."""
    image_platform = reader.settings.images[image].platform if image else None
    image_os, _, image_arch = (image_platform or "").partition("-")
    os = _agreed(
        reader,
        ("runner", runner.os if runner else None),
        ("os", reader.choice("os", _SYSTEMS)),
        ("image", _SYSTEMS.get(image_os)),
    )
    arch = _agreed(
        reader,
        ("runner", runner.arch if runner else None),
        ("arch", reader.choice("arch", ARCH_SYNONYMS)),
        ("image", ARCH_SYNONYMS.get(image_arch)),
    )
    if arch is None and families:
        arch = FAMILIES[families[0]].arch
    strangers = [name for name in families if FAMILIES[name].arch is not arch]
    if strangers:
        reader.fault(
            "family",
            f"this is not {arch}, which the rest of the label asks for",
            "name families of one architecture",
            value="+".join(strangers),
        )
    os = os or Os.LINUX
    if arch is None:
        on_arm = os is Os.LINUX and f"{os}-{Arch.ARM64}" in reader.settings.platforms
        arch = Arch.ARM64 if on_arm else Arch.X64
    if reader.sound("runner", "os", "arch", "image", "family"):
        _check_platform(reader, os, arch)
    return os, arch


def _check_platform(reader: Reader, os: Os, arch: Arch) -> None:
    offered = reader.settings.platforms
    if os is Os.WINDOWS and arch is Arch.ARM64:
        key = "arch" if reader.given("arch") else "os"
        reader.fault(key, *NO_WINDOWS_ON_ARM)
    elif f"{os}-{arch}" not in offered:
        key = next((k for k in ("runner", "arch", "os", "family") if reader.given(k)), "")
        cure = f"use one of {', '.join(offered)}"
        reader.fault(key, f"this fleet has no {os}-{arch} runners", cure)


def _agreed(reader: Reader, *sources: tuple[str, Choice | None]) -> Choice | None:
    """Return what the first source says; each later one that says otherwise is a finding."""
    said = [(key, value) for key, value in sources if value is not None]
    if not said:
        return None
    first, agreed = said[0]
    for key, value in said[1:]:
        if value != agreed:
            reader.fault(
                key,
                f"this is {value}, but {first}={reader.given(first)} is {agreed}",
                f"drop {key}= or change {first}=",
            )
    return agreed


def _cpu(reader: Reader, runner: NamedRunner | None) -> tuple[int, int]:
    limit = reader.settings.limits.max_cpu
    span = reader.span("cpu", limit)
    if runner:
        if reader.given("cpu") not in {None, f"{runner.cpu}", f"{runner.cpu}+{runner.cpu}"}:
            cure = f"drop cpu=, or drop runner={reader.given('runner')}"
            reader.fault("cpu", f"the runner has {runner.cpu} vCPUs exactly", cure)
        return runner.cpu, runner.cpu
    if span is None:
        # with ram= alone the number of vCPUs follows from the memory; see _fitted
        least = min(DEFAULT_CPU, limit)
        return least, limit if reader.given("ram") else min(least * _CPU_SPREAD, limit)
    low, high = span
    return low, min(low * _CPU_SPREAD, limit) if high is None else high


def _disk(reader: Reader, runner: NamedRunner | None, os: Os, image: str | None) -> int | None:
    """Return the disk that the label asks for, if it does."""
    limit = reader.settings.limits.max_disk_gib
    disk = reader.number("disk", limit)
    least = _least_disk(reader.settings, os, image)
    if disk is not None and disk < least:
        reader.fault("disk", f"the image alone takes {least} GiB", f"give {least} or more")
    if runner is None or not runner.large_disk:
        return disk
    if disk not in {None, LARGE_DISK_GIB}:
        cure = f"drop disk= or +{LARGE_DISK}"
        reader.fault("disk", f"+{LARGE_DISK} is {LARGE_DISK_GIB} GiB", cure)
    if not least <= LARGE_DISK_GIB <= limit:
        reason = f"+{LARGE_DISK} is {LARGE_DISK_GIB} GiB"
        cure = f"drop it and give disk= from {least} to {limit}"
        reader.fault("runner", reason, cure)
    return LARGE_DISK_GIB


def _least_disk(settings: LabelSettings, os: Os, image: str | None) -> int:
    own = settings.images[image].min_disk_gib if image else 0
    return own or MIN_DISK_GIB[os]


def _default_disk(settings: LabelSettings, spec: RunnerSpec) -> int:
    usual = min(default_disk_gib(spec.cpu_min, spec.os), settings.limits.max_disk_gib)
    return max(usual, _least_disk(settings, spec.os, spec.image))


def _can_prefer(spec: RunnerSpec) -> bool:
    return any(shape.name == spec.preferred_type for shape in fitting_shapes(spec))


def _fitted(reader: Reader, spec: RunnerSpec) -> RunnerSpec:
    """Make sure that some instance type fits, and bound the vCPUs of a spec given by memory."""
    if reader.findings:
        return spec
    if reader.given("ram") and not reader.given("cpu") and not reader.given("runner"):
        least = min((shape.vcpus for shape in fitting_shapes(spec)), default=None)
        if least is not None:
            return replace(spec, cpu_min=least, cpu_max=min(least * _CPU_SPREAD, spec.cpu_max))
    if next(fitting_shapes(spec), None) is None:
        _explain_misfit(reader, spec)
    return spec


def _explain_misfit(reader: Reader, spec: RunnerSpec) -> None:
    """Note that nothing fits, on the key whose absence would help."""
    looser = {
        "gen": replace(spec, generations=()),
        "family": replace(spec, families=()),
        "ram": replace(spec, ram_gib_min=0, ram_gib_max=None),
        "cpu": replace(spec, cpu_min=1, cpu_max=reader.settings.limits.max_cpu),
    }
    given = [key for key in looser if reader.given(key)]
    helping = [key for key in given if next(fitting_shapes(looser[key]), None) is not None]
    memory = f"{spec.ram_gib_min}"
    memory += "" if spec.ram_gib_max is None else f" to {spec.ram_gib_max}"
    wanted = f"{spec.cpu_min} to {spec.cpu_max} vCPUs"
    if spec.cpu_min == spec.cpu_max:
        wanted = f"{spec.cpu_min} vCPUs"
    wanted += f" and {memory} GiB" if reader.given("ram") else ""
    of = f"of generation {'+'.join(map(str, spec.generations))} " if spec.generations else ""
    keys = helping or given
    reader.fault(
        keys[0] if keys else "",
        f"no instance type {of}with {wanted} is among {', '.join(preferred_families(spec))}",
        f"drop or widen {' or '.join(f'{key}=' for key in keys)}" if keys else "name a family=",
    )
