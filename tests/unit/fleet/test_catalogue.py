"""The catalogue against EC2's own data, and what it offers for a spec."""

from __future__ import annotations

import gzip
import json
import re
from importlib import resources
from typing import Any

import pytest

from runsfleet_runtime.fleet.catalogue import CATALOGUE, MAX_CANDIDATES, InstanceType, candidates
from runsfleet_runtime.labels import Accepted, Arch, LabelSettings, Os, RunnerSpec, resolve
from runsfleet_runtime.labels.families import FAMILIES

FAMILY_NAMES = [
    *("t4g", "c6g", "c7g", "c8g", "m6g", "m7g", "m8g", "r6g", "r7g", "r8g"),
    *("t3", "t3a", "c6i", "c6a", "c7i", "c7a", "c8i", "m6i", "m6a", "m7i", "m7a", "r6i", "r7i"),
]
# sizes below a runner's need, above the catalogue, or without a hypervisor
LEFT_OUT = re.compile(r"nano|micro|small|32xlarge|48xlarge|96xlarge|metal.*")


@pytest.fixture(scope="module")
def described() -> dict[str, dict[str, Any]]:
    """What DescribeInstanceTypes says of each type, as moto carries it."""
    folder = resources.files("moto.ec2") / "resources"
    plain, packed = folder / "instance_types.json", folder / "instance_types.json.gz"
    text = gzip.decompress(packed.read_bytes()) if packed.is_file() else plain.read_bytes()
    types: dict[str, dict[str, Any]] = json.loads(text)
    return types


def names(spec: RunnerSpec) -> list[str]:
    """Return the names of the candidates in their order."""
    return [kind.name for kind in candidates(spec)]


def spec_of(label: str) -> RunnerSpec:
    """Return the machine that an accepted label asks for."""
    outcome = resolve([f"runs-fleet/{label}"], LabelSettings())
    assert isinstance(outcome, Accepted), outcome
    return outcome.spec


def test_families() -> None:
    """The catalogue has the families that are documented, and no other."""
    assert list(FAMILIES) == FAMILY_NAMES
    assert {kind.family for kind in CATALOGUE.values()} == set(FAMILY_NAMES)


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_each_type_is_what_ec2_says(name: str, described: dict[str, dict[str, Any]]) -> None:
    """Each type exists, with the vCPUs, memory, architecture and credits that EC2 describes."""
    kind, known = CATALOGUE[name], described[name]
    assert kind.name == name == f"{kind.family}.{name.partition('.')[2]}"
    assert kind.vcpus == known["VCpuInfo"]["DefaultVCpus"]
    assert kind.memory_gib * 1024 == known["MemoryInfo"]["SizeInMiB"]
    assert kind.burstable == known["BurstablePerformanceSupported"]
    assert {"spot", "on-demand"} <= set(known["SupportedUsageClasses"])
    ec2_arch = {Arch.ARM64: "arm64", Arch.X64: "x86_64"}[kind.arch]
    assert known["ProcessorInfo"]["SupportedArchitectures"] == [ec2_arch]
    assert kind.generation == int(re.findall(r"\d+", kind.family)[0])


def test_no_size_is_missing(described: dict[str, dict[str, Any]]) -> None:
    """From medium to 24xlarge the catalogue has every size that EC2 has of its families."""
    known = {
        name
        for name in described
        if name.partition(".")[0] in FAMILIES and not LEFT_OUT.fullmatch(name.partition(".")[2])
    }
    assert known == set(CATALOGUE)


@pytest.mark.parametrize(
    ("name", "price"),
    [
        ("t4g.medium", 0.0336),
        ("c7g.large", 0.0725),
        ("c7g.xlarge", 0.1450),
        ("c7g.2xlarge", 0.2900),
        ("m7g.xlarge", 0.1632),
        ("c6i.xlarge", 0.1700),
        ("c7i.xlarge", 0.1785),
        ("c8g.xlarge", 0.15952),
        ("m7i.xlarge", 0.2016),
        ("m8g.xlarge", 0.17952),
        ("c6a.xlarge", 0.1530),
        ("c8i.xlarge", 0.18742),
        # sizes and families that the table does not list itself
        ("c7a.24xlarge", 4.926720),
        ("m7a.medium", 0.057960),
        ("r8g.12xlarge", 2.827680),
        ("t3a.2xlarge", 0.300800),
    ],
)
def test_prices_that_have_a_source(name: str, price: float) -> None:
    """Prices on demand are those of the AWS price list for us-east-1 on 2026-01-19."""
    assert CATALOGUE[name].ondemand_usd_per_hour == price


def test_every_family_has_a_price_that_goes_with_size() -> None:
    """None falls to a default price: an r8g.xlarge was once priced at a fourteenth."""
    families: dict[str, list[InstanceType]] = {}
    for kind in CATALOGUE.values():
        families.setdefault(kind.family, []).append(kind)
    assert set(families) == set(FAMILY_NAMES)
    for kinds in families.values():
        each = {round(kind.ondemand_usd_per_hour / kind.memory_gib, 5) for kind in kinds}
        assert len(each) == 1
        assert min(each) > 0


def test_the_small_named_runner_may_burst() -> None:
    """``2cpu-linux-arm64`` is t4g.medium, and for spot every like type of two vCPUs."""
    assert names(spec_of("runner=2cpu-linux-arm64")) == [
        *("t4g.medium", "c8g.large", "c7g.large", "c6g.large", "t4g.large"),
        *("m8g.large", "m7g.large", "m6g.large", "r8g.large", "r7g.large"),
    ]


def test_order_is_smallest_first() -> None:
    """Fewer vCPUs before more, then less memory, then the families' order of preference."""
    assert names(spec_of("cpu=4/arch=x64/ram=8+16")) == [
        *("c6i.xlarge", "c7i.xlarge", "c6a.xlarge"),
        *("m6i.xlarge", "m7i.xlarge", "m6a.xlarge"),
        *("c6i.2xlarge", "c7i.2xlarge", "c6a.2xlarge"),
    ]
    assert names(spec_of("cpu=4+4/family=m7g+m8g")) == ["m7g.xlarge", "m8g.xlarge"]


@pytest.mark.parametrize("arch", ["arm64", "x64"])
def test_spot_has_more_to_choose_from(arch: str) -> None:
    """On demand has the default families, spot those and some of an older generation."""
    on_demand = {k.family for k in candidates(spec_of(f"cpu=4+4/arch={arch}/spot=false"))}
    spot = {k.family for k in candidates(spec_of(f"cpu=4+4/arch={arch}"))}
    defaults = {
        "arm64": {"c8g", "m8g", "r8g", "c7g", "m7g"},
        "x64": {"c6i", "c7i", "m6i", "m7i"},
    }
    more = {"arm64": {"r7g", "c6g", "m6g"}, "x64": {"c6a", "m6a"}}
    assert on_demand == defaults[arch]
    assert spot == defaults[arch] | more[arch]


@pytest.mark.parametrize(
    ("label", "families"),
    [
        ("gen=6/cpu=4+4", {"c6g", "m6g", "r6g"}),
        ("gen=8/cpu=4+4/spot=false", {"c8g", "m8g", "r8g"}),
        ("gen=8/cpu=4+4/arch=x64", {"c8i"}),
        ("gen=6+7/cpu=4+4/arch=x64/ram=32+32", {"r6i", "r7i"}),
        ("family=t3+t3a", {"t3", "t3a"}),
    ],
)
def test_what_a_label_names_is_offered(label: str, families: set[str]) -> None:
    """A generation or family that is asked for is offered also where it is no default."""
    assert {kind.family for kind in candidates(spec_of(label))} == families


def test_cap() -> None:
    """A wide range gets the smallest types and no more of them than the cap."""
    found = candidates(spec_of("cpu=1+96"))
    assert len(found) == MAX_CANDIDATES
    assert max(kind.vcpus for kind in found) <= 4


def test_nothing_fits() -> None:
    """A spec that was not checked by the labels may have no candidate at all."""
    spec = RunnerSpec(os=Os.LINUX, arch=Arch.ARM64, cpu_min=5, cpu_max=7, disk_gib=30)
    assert candidates(spec) == ()
