"""What one well-formed label asks for, key by key."""

from __future__ import annotations

import pytest

from runsfleet_runtime.labels import (
    Accepted,
    Arch,
    LabelImage,
    LabelLimits,
    LabelSettings,
    Os,
    RetryPolicy,
    RunnerSpec,
    resolve,
)

SETTINGS = LabelSettings(
    region="eu-central-1",
    environment="prod",
    images={
        "ml": LabelImage("ami-0123", "linux-x64", 120),
        "any": LabelImage("resolve:ssm:/images/any"),
        "win": LabelImage("ami-0456", "windows-x64"),
    },
)


def spec_of(label: str, settings: LabelSettings = SETTINGS) -> RunnerSpec:
    """Return the machine that an accepted label asks for."""
    outcome = resolve([label], settings)
    assert isinstance(outcome, Accepted), outcome
    return outcome.spec


@pytest.mark.parametrize(
    ("label", "vcpus"),
    [
        ("runs-fleet/cpu=1", (1, 2)),
        ("runs-fleet/cpu=2", (2, 4)),
        ("runs-fleet/cpu=3", (3, 6)),
        ("runs-fleet/cpu=4", (4, 8)),
        ("runs-fleet/cpu=4+4", (4, 4)),
        ("runs-fleet/cpu=4+16", (4, 16)),
        ("runs-fleet/cpu=64", (64, 96)),
        ("runs-fleet/cpu=96", (96, 96)),
        ("runs-fleet", (2, 4)),
        ("runs-fleet/spot=false", (2, 4)),
    ],
)
def test_number_of_vcpus(label: str, vcpus: tuple[int, int]) -> None:
    """``cpu=n`` means n to 2n within the limit, ``n+m`` that range, nothing means 2 to 4."""
    spec = spec_of(label)
    assert (spec.cpu_min, spec.cpu_max) == vcpus


@pytest.mark.parametrize(
    ("value", "memory"),
    [("8", (8, None)), ("8+16", (8, 16)), ("8+8", (8, 8)), ("1", (1, None))],
)
def test_memory(value: str, memory: tuple[int, int | None]) -> None:
    """``ram=`` is a minimum unless it is a range."""
    spec = spec_of(f"runs-fleet/cpu=4/ram={value}")
    assert (spec.ram_gib_min, spec.ram_gib_max) == memory


def test_memory_alone_decides_the_vcpus_and_the_disk() -> None:
    """Without ``cpu=`` the fewest vCPUs that come with the memory are taken, and twice as many."""
    spec = spec_of("runs-fleet/ram=64")
    assert (spec.cpu_min, spec.cpu_max, spec.disk_gib) == (8, 16, 100)


@pytest.mark.parametrize(
    ("word", "arch"),
    [
        ("arm64", Arch.ARM64),
        ("aarch64", Arch.ARM64),
        ("x64", Arch.X64),
        ("x86_64", Arch.X64),
        ("amd64", Arch.X64),
    ],
)
def test_synonyms_of_architectures(word: str, arch: Arch) -> None:
    """Every usual name of an architecture is understood, in ``arch=`` and in ``runner=``."""
    assert spec_of(f"runs-fleet/arch={word}").arch is arch
    assert spec_of(f"runs-fleet/runner=4cpu-linux-{word}").arch is arch


@pytest.mark.parametrize(
    ("label", "platform"),
    [
        ("runs-fleet", "linux-arm64"),
        ("runs-fleet/os=linux", "linux-arm64"),
        ("runs-fleet/os=windows", "windows-x64"),
        ("runs-fleet/os=windows/arch=amd64", "windows-x64"),
        ("runs-fleet/family=c7i+m7i", "linux-x64"),
        ("runs-fleet/family=m7g", "linux-arm64"),
        ("runs-fleet/image=ml", "linux-x64"),
        ("runs-fleet/image=win", "windows-x64"),
        ("runs-fleet/image=any", "linux-arm64"),
    ],
)
def test_exactly_one_platform_is_chosen(label: str, platform: str) -> None:
    """What the label leaves open follows from its families or image, else it is the default."""
    assert spec_of(label).platform == platform


def test_default_architecture_is_one_that_the_fleet_has() -> None:
    """A fleet without linux-arm64 takes x64 for a label that names no architecture."""
    assert spec_of("runs-fleet", LabelSettings(platforms=("linux-x64",))).platform == "linux-x64"


@pytest.mark.parametrize(
    ("label", "disk"),
    [
        ("runs-fleet/cpu=1", 30),
        ("runs-fleet/cpu=2", 30),
        ("runs-fleet/cpu=4", 50),
        ("runs-fleet/cpu=8", 100),
        ("runs-fleet/cpu=64", 100),
        ("runs-fleet/cpu=2/os=windows", 50),
        ("runs-fleet/disk=8", 8),
        ("runs-fleet/disk=1024", 1024),
        ("runs-fleet/image=ml", 120),
        ("runs-fleet/image=ml/disk=300", 300),
        ("runs-fleet/runner=4cpu-linux-arm64+large-disk", 200),
        ("runs-fleet/runner=4cpu-linux-arm64+large-disk/disk=200", 200),
        ("runs-fleet/runner=4cpu-linux-arm64/disk=70", 70),
    ],
)
def test_disk(label: str, disk: int) -> None:
    """The disk is what the label says, else what usual for the size and enough for the image."""
    assert spec_of(label).disk_gib == disk


def test_default_disk_stays_within_the_limit() -> None:
    """A fleet with small disks gives its largest where the usual one would be above the limit."""
    small = LabelSettings(limits=LabelLimits(max_disk_gib=40))
    assert spec_of("runs-fleet/cpu=8", small).disk_gib == 40


@pytest.mark.parametrize(
    ("key", "field", "value"),
    [
        ("family=m7g+c7g", "families", ("m7g", "c7g")),
        ("gen=8", "generations", (8,)),
        ("gen=8+7", "generations", (7, 8)),
        ("pool=default", "pool", "default"),
        ("pool=Team_A-1", "pool", "Team_A-1"),
        ("spot=false", "spot", False),
        ("spot=true", "spot", True),
        ("retry=false", "retry", RetryPolicy.NEVER),
        ("retry=when-interrupted", "retry", RetryPolicy.WHEN_INTERRUPTED),
        ("private=true", "private", True),
        ("private=false", "private", False),
        ("region=eu-central-1", "region", "eu-central-1"),
        ("env=prod", "environment", "prod"),
        ("image=any", "image", "any"),
    ],
)
def test_other_keys(key: str, field: str, value: object) -> None:
    """Each of the other keys lands in its field."""
    assert getattr(spec_of(f"runs-fleet/{key}"), field) == value


def test_what_a_label_leaves_open() -> None:
    """The bare marker asks for a small Linux machine on spot and nothing else."""
    assert spec_of("runs-fleet") == RunnerSpec(
        os=Os.LINUX, arch=Arch.ARM64, cpu_min=2, cpu_max=4, disk_gib=30
    )


def test_fleet_without_spot() -> None:
    """The fleet decides on spot when the label does not, and the label may still ask for it."""
    settings = LabelSettings(spot=False)
    assert spec_of("runs-fleet", settings).spot is False
    assert spec_of("runs-fleet/spot=true", settings).spot is True


@pytest.mark.parametrize(
    "label",
    [
        "runs-fleet/cpu=4/arch=arm64",
        "Runs-Fleet/cpu=4/arch=arm64",
        "runs-fleet=17811412345/cpu=4/arch=arm64",
        "RUNS-FLEET=17811412345-3_b.2/cpu=4/arch=arm64",
        "runs-fleet/arch=arm64/cpu=4",
    ],
)
def test_forms_of_the_marker(label: str) -> None:
    """With or without a run id, in any case and with keys in any order, it is the same machine."""
    assert spec_of(label) == spec_of("runs-fleet/cpu=4+8/arch=aarch64")


def test_run_id_alone() -> None:
    """A marker with a run id and nothing more is the default machine."""
    assert spec_of("runs-fleet=17811412345") == spec_of("runs-fleet")


def test_equal_launches_have_equal_group_keys() -> None:
    """Pool, retry and spelling do not keep two jobs out of one CreateFleet; the machine does."""
    key = spec_of("runs-fleet/runner=4cpu-linux-arm64").group_key()
    same = ("pool=x", "retry=false", "env=prod", "region=eu-central-1", "disk=50", "ram=8")
    for more in same:
        assert spec_of(f"runs-fleet=9/runner=4cpu-linux-arm64/{more}").group_key() == key
    other = ("disk=51", "ram=9", "spot=false", "private=true", "image=any", "family=c7g", "gen=7")
    keys = {spec_of(f"runs-fleet/runner=4cpu-linux-arm64/{more}").group_key() for more in other}
    assert len(keys | {key}) == len(other) + 1
    assert spec_of("runs-fleet/cpu=4+4/ram=8/disk=50").group_key() != key
