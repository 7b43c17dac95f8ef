"""What holds for every label, whoever wrote it."""

from __future__ import annotations

import dataclasses

from hypothesis import example, given, settings
from hypothesis import strategies as st

from runsfleet_runtime.fleet.catalogue import MAX_CANDIDATES, candidates
from runsfleet_runtime.labels import (
    Accepted,
    LabelAlias,
    LabelImage,
    LabelSettings,
    NotOurs,
    Refused,
    RunnerSpec,
    resolve,
)
from runsfleet_runtime.labels.families import FAMILIES
from runsfleet_runtime.labels.grammar import MIN_DISK_GIB
from runsfleet_runtime.labels.named import ARCH_SYNONYMS, CPU_COUNTS

SETTINGS = LabelSettings(
    region="eu-central-1",
    environment="prod",
    aliases=(
        LabelAlias("big", "runner=8cpu-linux-arm64"),
        LabelAlias("^ci-.*$", "cpu=2/arch=x64", pattern=True),
    ),
    images={"ml": LabelImage("ami-1", "linux-x64", 120), "any": LabelImage("ami-2")},
)
# the machine may be busy with other tests; how fast the grammar is, benchmarks tell
unhurried = settings(deadline=None)

KEY_VALUES: dict[str, st.SearchStrategy[str]] = {
    "runner": st.builds(
        "{}cpu-{}-{}{}".format,
        st.sampled_from(CPU_COUNTS),
        st.sampled_from(["linux", "windows"]),
        st.sampled_from(list(ARCH_SYNONYMS)),
        st.sampled_from(["", "", "+large-disk"]),
    ),
    "cpu": st.one_of(
        st.integers(1, 96).map(str),
        st.builds("{}+{}".format, st.integers(1, 96), st.integers(1, 96)),
    ),
    "ram": st.one_of(
        st.integers(1, 800).map(str),
        st.builds("{}+{}".format, st.integers(1, 64), st.integers(1, 800)),
    ),
    "arch": st.sampled_from(list(ARCH_SYNONYMS)),
    "os": st.sampled_from(["linux", "windows"]),
    "family": st.lists(st.sampled_from(list(FAMILIES)), min_size=1, max_size=3).map("+".join),
    "gen": st.lists(st.integers(1, 9).map(str), min_size=1, max_size=2).map("+".join),
    "disk": st.integers(1, 1100).map(str),
    "pool": st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}", fullmatch=True),
    "spot": st.sampled_from(["true", "false"]),
    "retry": st.sampled_from(["false", "when-interrupted"]),
    "private": st.sampled_from(["true", "false"]),
    "region": st.just("eu-central-1"),
    "env": st.just("prod"),
    "image": st.sampled_from(["ml", "any"]),
}


@st.composite
def near_labels(draw: st.DrawFn, most: int = 6) -> str:
    """Labels whose keys and values are each well-formed, whether or not they go together."""
    keys = draw(st.lists(st.sampled_from(list(KEY_VALUES)), unique=True, max_size=most))
    marker = draw(
        st.sampled_from(["runs-fleet", "Runs-Fleet", "runs-fleet=123", "runs-fleet=a-1_b.2"])
    )
    return "/".join([marker, *(f"{key}={draw(KEY_VALUES[key])}" for key in keys)])


@st.composite
def broken_labels(draw: st.DrawFn) -> str:
    """Labels with a few characters changed, put in or taken out."""
    label = draw(near_labels())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(label)))
        label = label[:at] + draw(st.text(max_size=2)) + label[at + draw(st.integers(0, 2)) :]
    return label


def answer(labels: list[str]) -> Accepted | Refused | NotOurs:
    """Return what the fleet of these tests says."""
    outcome = resolve(labels, SETTINGS)
    assert isinstance(outcome, Accepted | Refused | NotOurs)
    return outcome


def assert_sound(spec: RunnerSpec) -> None:
    """Check that a spec is within the limits and that its candidates meet its every wish."""
    assert 1 <= spec.cpu_min <= spec.cpu_max <= SETTINGS.limits.max_cpu
    assert MIN_DISK_GIB[spec.os] <= spec.disk_gib <= SETTINGS.limits.max_disk_gib
    assert spec.platform in SETTINGS.platforms
    found = candidates(spec)
    assert 1 <= len(found) <= MAX_CANDIDATES
    assert len(set(found)) == len(found)
    for kind in found:
        assert kind.arch is spec.arch
        assert spec.cpu_min <= kind.vcpus <= spec.cpu_max
        assert kind.memory_gib >= spec.ram_gib_min
        assert spec.ram_gib_max is None or kind.memory_gib <= spec.ram_gib_max
        assert not spec.families or kind.family in spec.families
        assert not spec.generations or kind.generation in spec.generations
        asked = (
            kind.family in spec.families or kind.family == (spec.preferred_type or "").split(".")[0]
        )
        assert asked or not kind.burstable
    if spec.preferred_type is not None:
        assert found[0].name == spec.preferred_type


@unhurried
@given(near_labels())
def test_well_formed_labels_are_served_or_refused_with_reasons(label: str) -> None:
    """An accepted label has candidates that meet every wish of it; a refused one has reasons."""
    outcome = answer([label])
    assert not isinstance(outcome, NotOurs)
    if isinstance(outcome, Refused):
        assert outcome.findings
        assert all(finding.reason and finding.cure for finding in outcome.findings)
    else:
        assert_sound(outcome.spec)


@unhurried
@given(near_labels())
def test_what_spot_cannot_deliver_can_be_had_on_demand(label: str) -> None:
    """Every accepted spec has candidates on demand too, so that the one fallback always exists."""
    outcome = answer([label])
    if isinstance(outcome, Accepted):
        on_demand = dataclasses.replace(outcome.spec, spot=False)
        assert candidates(on_demand)
        assert (
            set(candidates(on_demand)) <= set(candidates(outcome.spec))
            or len(candidates(outcome.spec)) == MAX_CANDIDATES
        )


@unhurried
@given(near_labels())
def test_a_spec_written_as_a_label_reads_back_the_same(label: str) -> None:
    """To write a spec out in full and to read it again changes nothing."""
    outcome = answer([label])
    if isinstance(outcome, Accepted):
        written = outcome.spec.to_label()
        assert answer([written]) == Accepted(outcome.spec, written)
        assert len(written) < 512


@unhurried
@given(near_labels(), st.randoms(use_true_random=False))
def test_order_of_keys_means_nothing(label: str, random: object) -> None:
    """The keys of a label may stand in any order."""
    marker, *parts = label.split("/")
    first, second = answer([label]), answer(["/".join([marker, *reversed(parts)])])
    assert type(first) is type(second)
    if isinstance(first, Accepted) and isinstance(second, Accepted):
        assert first.spec == second.spec
    if isinstance(first, Refused) and isinstance(second, Refused):
        said = [{(f.key, f.reason) for f in outcome.findings} for outcome in (first, second)]
        assert said[0] == said[1]


@unhurried
@given(
    st.lists(
        st.one_of(
            near_labels(most=3),
            broken_labels(),
            st.sampled_from(
                ["self-hosted", "Linux", "x64", "ARM64", "windows", "big", "ci-1", "gpu"]
            ),
            st.text(max_size=20),
        ),
        max_size=5,
    ),
    st.data(),
)
def test_order_of_labels_means_nothing(labels: list[str], data: st.DataObject) -> None:
    """Whatever the order of the labels and however often each is repeated, the answer is one."""
    shuffled = data.draw(st.permutations([*labels, *labels]))
    assert answer(shuffled) == answer(labels)


@unhurried
@given(st.lists(st.text(), max_size=4))
@example(["runs-fleet/cpu=" + "9" * 5000])
@example(["runs-fleet/\x00", "\ud800"])
def test_nothing_that_can_be_sent_raises(labels: list[str]) -> None:
    """Any list of texts gets one of the three answers."""
    answer(labels)


@unhurried
@given(broken_labels())
def test_no_damage_to_a_label_raises_or_slips_through(label: str) -> None:
    """A damaged label is refused in printable ASCII, or what is left of it is sound."""
    outcome = answer([label])
    if isinstance(outcome, Refused):
        assert outcome.findings
        for finding in outcome.findings:
            assert str(finding).isascii()
            assert str(finding).isprintable()
    elif isinstance(outcome, Accepted):
        assert_sound(outcome.spec)


@unhurried
@given(
    st.dictionaries(st.sampled_from([*KEY_VALUES, "colour", "x"]), st.text(max_size=5), min_size=1)
)
def test_every_bad_key_is_found(parts: dict[str, str]) -> None:
    """A finding for one key never hides that of another."""
    bad = {
        key: value
        for key, value in parts.items()
        # with a character that no key takes, or none at all; what / makes of it is told elsewhere
        if "/" not in value and (not value or not value.replace("+", "").isalnum())
    }
    bad = {key: value if key in {"region", "env"} else f"{value}!" for key, value in bad.items()}
    if not bad:
        return
    outcome = answer(["runs-fleet/" + "/".join(f"{key}={value}" for key, value in bad.items())])
    named = {key: value for key, value in bad.items() if key in {"region", "env"}}
    if isinstance(outcome, NotOurs):
        assert named
        return
    assert isinstance(outcome, Refused)
    assert set(bad) - set(named) <= {finding.key for finding in outcome.findings}
