"""What is refused, and that the author sees all of it, with reasons and cures."""

from __future__ import annotations

import pytest

from runsfleet_runtime.labels import (
    LabelFinding,
    LabelImage,
    LabelLimits,
    LabelSettings,
    Refused,
    resolve,
)

SETTINGS = LabelSettings(
    region="eu-central-1",
    environment="prod",
    known_regions=("eu-central-1", "us-east-1"),
    known_environments=("dev", "prod"),
    images={
        "ml": LabelImage("ami-0123", "linux-x64", 120),
        "huge": LabelImage("ami-0789", None, 300),
    },
)
NUMBERS = [
    "0",
    "-1",
    "+4",
    "4.0",
    "4,",
    "04",
    "4 ",
    " 4",
    "4x",
    "0x4",
    "1e3",
    "1_0",
    "four",
    "NaN",
    "\uff14",
    "\u0664",
    "\u00b2",
    "9" * 7,
    "9" * 300,
]


def findings_of(label: str, settings: LabelSettings = SETTINGS) -> tuple[LabelFinding, ...]:
    """Return what is wrong with a refused label."""
    outcome = resolve([label], settings)
    assert isinstance(outcome, Refused), outcome
    return outcome.findings


@pytest.mark.parametrize("value", NUMBERS)
@pytest.mark.parametrize("key", ["cpu", "ram", "disk", "gen"])
def test_values_that_are_no_numbers_in_range(key: str, value: str) -> None:
    """A number is digits from 1 to the key's limit; all else is refused on that key."""
    found = findings_of(f"runs-fleet/{key}={value}")
    assert {finding.key for finding in found} == {key}


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("cpu=9999", "cpu"),
        ("cpu=97", "cpu"),
        ("cpu=4+9999", "cpu"),
        ("cpu=8+4", "cpu"),
        ("cpu=4+", "cpu"),
        ("cpu=+", "cpu"),
        ("cpu=2+4+8", "cpu"),
        ("cpu=", "cpu"),
        ("cpu=3+3", "cpu"),
        ("ram=769", "ram"),
        ("ram=16+8", "ram"),
        ("ram=3+3", "ram"),
        ("cpu=4/ram=512", "ram"),
        ("disk=1025", "disk"),
        ("disk=7", "disk"),
        ("disk=100GB", "disk"),
        ("disk=29/os=windows", "disk"),
        ("disk=119/image=ml", "disk"),
        ("runner=4cpu-linux-arm64+large-disk/disk=100", "disk"),
        ("runner=4cpu-linux-arm64+large-disk/image=huge", "runner"),
        ("gen=11", "gen"),
        ("gen=5", "gen"),
        ("gen=7+7", "gen"),
        ("gen=7+", "gen"),
        ("gen=6/family=c7i", "gen"),
        ("spot=flase", "spot"),
        ("spot=False", "spot"),
        ("spot=FALSE", "spot"),
        ("spot=0", "spot"),
        ("spot=no", "spot"),
        ("spot=", "spot"),
        ("retry=true", "retry"),
        ("retry=never", "retry"),
        ("private=yes", "private"),
        ("private=True", "private"),
        ("arch=x86", "arch"),
        ("arch=ARM64", "arch"),
        ("arch=arm64+x64", "arch"),
        ("os=macos", "os"),
        ("os=Windows", "os"),
        ("os=windows/arch=arm64", "arch"),
        ("os=windows/family=c7g", "os"),
        ("arch=x64/family=c7g", "family"),
        ("family=c7g+m7i", "family"),
        ("family=c7g+c7g", "family"),
        ("family=c5", "family"),
        ("family=C7G", "family"),
        ("family=c7g+", "family"),
        ("family=c7g.xlarge", "family"),
        ("runner=4cpu-linux-arm64/arch=x64", "arch"),
        ("runner=4cpu-linux-arm64/os=windows", "os"),
        ("runner=4cpu-linux-arm64/family=c7i", "family"),
        ("runner=4cpu-linux-arm64/image=ml", "image"),
        ("runner=4cpu-linux-arm64/ram=1+4", "ram"),
        ("image=none", "image"),
        ("image=ml/arch=arm64", "image"),
        ("image=../ml", ""),
        ("pool=", "pool"),
        ("pool=a b", "pool"),
        ("pool=a.b", "pool"),
        ("pool=\u00e4", "pool"),
        ("pool=-", "pool"),
        ("pool=" + "p" * 64, "pool"),
        ("region=eu central", "region"),
        ("region=", "region"),
        ("region=mars-1", "region"),
        ("env=", "env"),
        ("env=a=b", "env"),
        ("env=qa", "env"),
        ("foo=1", "foo"),
        ("CPU=4", "CPU"),
        (" cpu=4", " cpu"),
        ("=4", ""),
        ("large-disk", ""),
        ("4cpu-linux-arm64", ""),
        ("cpu", ""),
        ("", ""),
        ("cpu=4/", ""),
        ("/cpu=4", ""),
        ("cpu=4//arch=arm64", ""),
        ("cpu=4/cpu=4", "cpu"),
        ("cpu=4/cpu=8", "cpu"),
        ("spot=false/spot=", "spot"),
    ],
)
def test_what_is_refused(part: str, key: str) -> None:
    """Nothing is corrected in silence: the finding names the key, a reason and a cure."""
    found = findings_of(f"runs-fleet/{part}")
    assert key in {finding.key for finding in found}
    for finding in found:
        assert finding.label.startswith("runs-fleet")
        assert finding.reason
        assert finding.cure
        assert str(finding).isascii()
        assert str(finding).isprintable()


def test_every_finding_at_once() -> None:
    """A label that is wrong in many ways is told all of them, each once."""
    found = findings_of(
        "runs-fleet=1/cpu=0/ram=-1/arch=vax/os=dos/family=z9/gen=99/disk=1/pool=a b/spot=flase/"
        "retry=maybe/private=si/region=mars-1/env=qa/image=none/colour=red/cpu=4/runner=x/junk"
    )
    assert sorted(finding.key for finding in found) == sorted(
        [
            *("cpu", "cpu", "ram", "arch", "os", "family", "gen", "disk", "pool", "spot", "retry"),
            *("private", "region", "env", "image", "colour", "runner", ""),
        ]
    )
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("part", "line"),
    [
        (
            "spot=False",
            "spot=False: this is not one of the words that the key takes; write spot=false",
        ),
        ("CPU=4", "CPU=4: this key is unknown; write cpu="),
        (
            "4cpu-linux-arm64",
            "4cpu-linux-arm64: this part is not key=value; write runner=4cpu-linux-arm64",
        ),
        ("cpu=8+4", "cpu=8+4: the lower bound is above the upper; write cpu=4+8"),
        (
            "runner=4cpu-linux-arm64/arch=x64",
            (
                "arch=x64: this is x64, but runner=4cpu-linux-arm64 is arm64; "
                "drop arch= or change runner="
            ),
        ),
        (
            "family=c7i/gen=6/cpu=4+4",
            (
                "gen=6: no instance type of generation 6 with 4 vCPUs is among c7i; "
                "drop or widen gen= or family="
            ),
        ),
    ],
)
def test_how_a_finding_reads(part: str, line: str) -> None:
    """A finding is one line: what was written, what is wrong, what to write."""
    assert [str(finding) for finding in findings_of(f"runs-fleet/{part}")] == [line]


@pytest.mark.parametrize(
    "label",
    [
        "runs-fleet=/cpu=4",
        "runs-fleet=cpu=4",
        "runs-fleet=cpu=4/arch=arm64",
        "runs-fleet=${{ github.run_id }}/cpu=4",
        "runs-fleet=\u0664/cpu=4",
        "runs-fleet=" + "1" * 65,
        "runs-fleet=",
        "runs-fleet=1/",
        "runs-fleet/",
    ],
)
def test_forms_of_the_marker_that_do_not_exist(label: str) -> None:
    """A run id that is none, or a / with nothing behind it, is refused on the label as a whole."""
    assert [finding.key for finding in findings_of(label)] == [""]


@pytest.mark.parametrize("label", ["runs-fleet/" + "x" * 10_240, "runs-fleet/cpu=" + "9" * 10_240])
def test_huge_labels(label: str) -> None:
    """A label of ten thousand characters is refused for its length, and its finding stays short."""
    (finding,) = findings_of(label)
    assert "10" in finding.reason
    assert len(str(finding)) < 400


def test_findings_are_safe_to_show() -> None:
    """What an author wrote cannot forge log lines or workflow commands through a finding."""
    for finding in findings_of("runs-fleet/pool=x\n::error::gotcha\x1b[31m\u202e\ud800"):
        assert str(finding).isascii()
        assert str(finding).isprintable()


def test_limits_of_the_fleet() -> None:
    """The fleet's limits bound what a label may ask for, named runners included."""
    small = LabelSettings(limits=LabelLimits(max_cpu=8, max_ram_gib=16, max_disk_gib=100))
    for part, key in (
        ("cpu=9", "cpu"),
        ("cpu=8+16", "cpu"),
        ("ram=17", "ram"),
        ("disk=101", "disk"),
        ("runner=16cpu-linux-arm64", "runner"),
        ("runner=8cpu-windows-x64", "runner"),
        ("runner=4cpu-linux-arm64+large-disk", "runner"),
    ):
        assert [f.key for f in findings_of(f"runs-fleet/{part}", small)] == [key]


def test_platforms_of_the_fleet() -> None:
    """A platform that the fleet cannot launch is refused, with those that it can."""
    linux = LabelSettings(platforms=("linux-arm64",))
    for part, key in (
        ("os=windows", "os"),
        ("arch=x64", "arch"),
        ("runner=4cpu-linux-x64", "runner"),
    ):
        (finding,) = findings_of(f"runs-fleet/{part}", linux)
        assert finding.key == key
        assert "linux-arm64" in finding.cure


def test_fleet_without_private_subnets() -> None:
    """``private=true`` is refused by a fleet that has no private subnets."""
    (finding,) = findings_of("runs-fleet/private=true", LabelSettings(private=False))
    assert finding.key == "private"


def test_fleet_of_nothing_but_the_smallest() -> None:
    """Where not even the bare marker can be served, the finding is on the label as a whole."""
    tiny = LabelSettings(platforms=("linux-x64",), limits=LabelLimits(max_cpu=1))
    (finding,) = findings_of("runs-fleet", tiny)
    assert finding.key == ""
    assert finding.cure == "name a family="
