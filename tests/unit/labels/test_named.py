"""Named runners: the design's table, and the sizes beyond it."""

from __future__ import annotations

import pytest

from runsfleet_runtime.fleet.catalogue import CATALOGUE, candidates
from runsfleet_runtime.labels import Accepted, LabelSettings, Refused, RunnerSpec, resolve
from runsfleet_runtime.labels.named import CPU_COUNTS

SETTINGS = LabelSettings()
PLATFORMS = ("linux-arm64", "linux-x64", "windows-x64")


def spec_of(label: str) -> RunnerSpec:
    """Return the machine that an accepted label asks for."""
    outcome = resolve([label], SETTINGS)
    assert isinstance(outcome, Accepted), outcome
    return outcome.spec


@pytest.mark.parametrize(
    ("runner", "first", "memory", "disk"),
    [
        ("1cpu-linux-arm64", "c7g.medium", 2, 30),
        ("2cpu-linux-arm64", "t4g.medium", 4, 30),
        ("4cpu-linux-arm64", "c7g.xlarge", 8, 50),
        ("8cpu-linux-arm64", "c7g.2xlarge", 16, 100),
        ("16cpu-linux-arm64", "c7g.4xlarge", 32, 100),
        ("96cpu-linux-arm64", "c8g.24xlarge", 192, 100),
        ("1cpu-linux-x64", "c7a.medium", 2, 30),
        ("2cpu-linux-x64", "c6i.large", 4, 30),
        ("4cpu-linux-x64", "c6i.xlarge", 8, 50),
        ("8cpu-linux-x64", "c6i.2xlarge", 16, 100),
        ("96cpu-linux-x64", "c6i.24xlarge", 192, 100),
        ("1cpu-windows-x64", "m7a.medium", 4, 50),
        ("2cpu-windows-x64", "m6i.large", 8, 50),
        ("4cpu-windows-x64", "m6i.xlarge", 16, 50),
        ("8cpu-windows-x64", "m6i.2xlarge", 32, 100),
    ],
)
def test_first_choice_of_a_named_runner(runner: str, first: str, memory: int, disk: int) -> None:
    """A named runner has its first choice of type, that type's memory at least, and its disk."""
    spec = spec_of(f"runs-fleet/runner={runner}")
    assert (spec.preferred_type, spec.ram_gib_min, spec.disk_gib) == (first, memory, disk)
    assert candidates(spec)[0].name == first


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("count", CPU_COUNTS)
def test_every_size_on_every_platform(count: int, platform: str) -> None:
    """Each documented size exists, has exactly its vCPUs, and its first choice comes first."""
    spec = spec_of(f"runs-fleet/runner={count}cpu-{platform}")
    assert (spec.cpu_min, spec.cpu_max, spec.platform) == (count, count, platform)
    found = candidates(spec)
    assert {kind.vcpus for kind in found} == {count}
    assert found[0] is CATALOGUE[spec.preferred_type or ""]


@pytest.mark.parametrize(
    "more",
    ["cpu=4", "cpu=4+4", "arch=arm64", "arch=aarch64", "os=linux", "family=c7g+c8g", "ram=8"],
)
def test_keys_that_agree_with_a_named_runner(more: str) -> None:
    """What repeats the runner's own values changes nothing about it."""
    spec = spec_of(f"runs-fleet/runner=4cpu-linux-arm64/{more}")
    assert (spec.cpu_min, spec.cpu_max, spec.preferred_type) == (4, 4, "c7g.xlarge")


@pytest.mark.parametrize(
    ("more", "key"), [("cpu=8", "cpu"), ("cpu=4+8", "cpu"), ("cpu=2+4", "cpu")]
)
def test_vcpus_that_contradict_a_named_runner(more: str, key: str) -> None:
    """A named runner has exactly its vCPUs; another number beside it is refused."""
    outcome = resolve([f"runs-fleet/runner=4cpu-linux-arm64/{more}"], SETTINGS)
    assert isinstance(outcome, Refused)
    assert [finding.key for finding in outcome.findings] == [key]


@pytest.mark.parametrize("more", ["gen=8", "family=m7g", "ram=16", "ram=9+32"])
def test_first_choice_gives_way_to_the_rest_of_the_label(more: str) -> None:
    """A first choice that the label's other keys exclude is no choice, and never launched."""
    spec = spec_of(f"runs-fleet/runner=4cpu-linux-arm64/{more}")
    assert spec.preferred_type is None
    assert "c7g.xlarge" not in {kind.name for kind in candidates(spec)}


@pytest.mark.parametrize(
    "value",
    [
        "4cpu",
        "4cpu-linux",
        "cpu-linux-arm64",
        "3cpu-linux-arm64",
        "04cpu-linux-arm64",
        "4CPU-linux-arm64",
        "4cpu-Linux-arm64",
        "4cpu-linux-ARM64",
        "4cpu-macos-arm64",
        "4cpu-linux-riscv",
        "4cpu-linux-arm64-large",
        "4cpu-linux-arm64+",
        "4cpu-linux-arm64+huge-disk",
        "4cpu-linux-arm64+large-disk+large-disk",
        "-4cpu-linux-arm64",
        "\u0664cpu-linux-arm64",
        "9999999999999999999999cpu-linux-arm64",
        "4cpu-windows-arm64",
        "8cpu-windows-aarch64",
    ],
)
def test_names_that_no_runner_has(value: str) -> None:
    """What is not exactly the name of a runner is refused with one finding about it."""
    outcome = resolve([f"runs-fleet/runner={value}"], SETTINGS)
    assert isinstance(outcome, Refused)
    assert [finding.key for finding in outcome.findings] == ["runner"]
    assert outcome.findings[0].cure
