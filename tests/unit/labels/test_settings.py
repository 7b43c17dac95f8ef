"""Settings and aliases: what is refused before the first job comes."""

from __future__ import annotations

import time

import pytest

from runsfleet_runtime.labels import (
    Accepted,
    LabelAlias,
    LabelImage,
    LabelLimits,
    LabelSettings,
    LabelSettingsError,
    resolve,
)
from runsfleet_runtime.labels.settings import read_aliases

SPEC = "runner=4cpu-linux-arm64"


def faults_of(*aliases: LabelAlias) -> list[str]:
    """Return the keys of what is wrong with refused aliases."""
    with pytest.raises(LabelSettingsError) as caught:
        LabelSettings(region="eu-central-1", environment="prod", aliases=aliases)
    return [finding.key for finding in caught.value.findings]


@pytest.mark.parametrize(
    "pattern",
    [
        "ci-.*",
        "^ci-.*",
        "ci-.*$",
        r"^ci-\$",
        r"\Aci-.*\Z",
        "^ci-a|ci-b$",
        "^.*$",
        "^.+$",
        "^.{1,9}$",
        "^.*-arm64$",
        "^(.*)$",
        "^(?:.+-)?arm64$",
        "^[a-z]+$",
        "^[^/]+$",
        r"^\S+$",
        r"^\w[-\w.]*$",
        "^(linux|ci)$",
        "^ci-(",
        "^ci-[a$",
        "^ci-*+*$",
        "^ci-{2}{3}$",
        "^ci-a{99999999999}$",
        "^ci-[[a]$",
        "^ci-(a+)+$",
        "^ci-(a|aa)*$",
        "^ci-(?:a?){9}$",
        "^ci-a*a*a*a*$",
        "^ci-" + "a?" * 7 + "$",
        "(?i)^ci-a$",
        "",
    ],
)
def test_patterns_that_are_refused(pattern: str) -> None:
    """Unanchored, all-embracing, malformed or slow patterns never become part of a fleet."""
    assert "label_aliases[0].match" in faults_of(LabelAlias(pattern, SPEC, pattern=True))


@pytest.mark.parametrize(
    ("pattern", "label"),
    [
        ("^ci-.*$", "ci-small"),
        ("^ci-.+-(?:arm|x64)$", "ci-a-x64"),
        ("^(?:ci|cd)-[0-9]{1,3}$", "cd-42"),
        ("^shared-[48]cpu(?:-spot)?$", "shared-4cpu"),
        (r"^ci\.large\$$", "ci.large$"),
        ("^ci-[]|(?*+]$", "ci-|"),
        (r"^ci-[\]a]+?$", "ci-a]"),
        (r"^ci-[^\]b]*$", "ci-a"),
        ("^ci-{x}$", "ci-{x}"),
        ("^ci-(?!gpu)[a-z]*$", "ci-cpu"),
    ],
)
def test_patterns_that_are_fine(pattern: str, label: str) -> None:
    """An anchored pattern with a prefix of its own takes whole labels, in any case."""
    settings = LabelSettings(aliases=(LabelAlias(pattern, SPEC, pattern=True),))
    for written in (label, label.upper()):
        outcome = resolve([written], settings)
        assert isinstance(outcome, Accepted)
        assert outcome.spec.preferred_type == "c7g.xlarge"
    assert settings.alias(f"x{label}") is None


def test_slowest_pattern_that_is_allowed() -> None:
    """The worst that an allowed pattern and a hostile label can do together is bearable."""
    pattern = "^ci-[a-z]*[a-z]*[a-z]*$"
    settings = LabelSettings(aliases=(LabelAlias(pattern, SPEC, pattern=True),))
    hostile = "ci-" + "a" * 508 + "1"
    started = time.process_time()
    settings.alias(hostile)
    assert time.process_time() - started < 5, "an order of magnitude above what it takes"


@pytest.mark.parametrize(
    "match",
    [
        "",
        " ",
        " ci",
        "ci ",
        "x" * 513,
        "^ci$",
        "ci$",
        "runs-fleet",
        "Runs-Fleet/cpu=4",
        "runs-fleet=1",
    ],
)
def test_literals_that_are_refused(match: str) -> None:
    """A literal that no label is, that is meant as a pattern, or that never matches is refused."""
    assert "label_aliases[0].match" in faults_of(LabelAlias(match, SPEC))


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        ("", "label_aliases[0].spec"),
        ("runs-fleet/cpu=4", "label_aliases[0].spec"),
        ("cpu=0", "label_aliases[0].spec: cpu"),
        ("cpu=4/", "label_aliases[0].spec: "),
        ("region=us-east-1", "label_aliases[0].spec"),
        ("env=dev", "label_aliases[0].spec"),
        ("image=none", "label_aliases[0].spec: image"),
    ],
)
def test_specs_of_aliases_that_are_refused(spec: str, key: str) -> None:
    """An alias stands for a machine that this fleet can launch, or the settings are refused."""
    assert faults_of(LabelAlias("ci", spec)) == [key]


def test_aliases_that_never_match() -> None:
    """A second alias for the same label, whatever its case, is refused."""
    assert faults_of(LabelAlias("ci", SPEC), LabelAlias("CI", SPEC)) == ["label_aliases[1].match"]
    twice = LabelAlias("^ci-.*$", SPEC, pattern=True)
    assert faults_of(twice, twice) == ["label_aliases[1].match"]


def test_every_bad_alias_at_once() -> None:
    """All rules are checked; the message has a line for each finding."""
    aliases = (
        LabelAlias("ci", "cpu=0/disk=1"),
        LabelAlias("fine", SPEC),
        LabelAlias("ci-.*|x", "colour=red", pattern=True),
    )
    with pytest.raises(LabelSettingsError) as caught:
        LabelSettings(aliases=aliases)
    assert [finding.key for finding in caught.value.findings] == [
        "label_aliases[0].spec: cpu",
        "label_aliases[0].spec: disk",
        "label_aliases[2].match",
        "label_aliases[2].match",
        "label_aliases[2].spec: colour",
    ]
    assert len(str(caught.value).splitlines()) == 5


def test_every_bad_setting_at_once() -> None:
    """Limits, platforms and images are checked together."""
    with pytest.raises(LabelSettingsError) as caught:
        LabelSettings(
            limits=LabelLimits(max_cpu=0, max_ram_gib=-1, max_disk_gib=20),
            platforms=("linux-arm64", "windows-arm64"),
            images={
                "no name": LabelImage("ami-1"),
                "big": LabelImage("ami-2", "macos-arm64", 40),
            },
        )
    assert [finding.key for finding in caught.value.findings] == [
        "max_cpu",
        "max_ram_gib",
        "max_disk_gib",
        "max_disk_gib",
        "platforms",
        "images[big]",
        "images",
    ]


def test_fleet_that_launches_nothing() -> None:
    """No platform at all is an oversight, not a setting."""
    with pytest.raises(LabelSettingsError, match="the fleet launches nothing"):
        LabelSettings(platforms=())


def test_aliases_from_their_plain_form() -> None:
    """Aliases travel to the functions as JSON objects."""
    rules: list[dict[str, object]] = [
        {"match": "ci", "spec": SPEC},
        {"match": "^ci-.$", "spec": SPEC, "pattern": True},
    ]
    assert read_aliases(rules) == (LabelAlias("ci", SPEC), LabelAlias("^ci-.$", SPEC, pattern=True))


def test_plain_forms_that_are_no_aliases() -> None:
    """Missing, unknown and wrongly typed members are all told at once."""
    rules: list[dict[str, object]] = [
        {"match": "ci"},
        {"match": "ci", "spec": SPEC, "patern": True},
        {"match": "ci", "spec": SPEC},
        {"match": "ci", "spec": SPEC, "pattern": "yes"},
        {"match": 7, "spec": SPEC},
    ]
    with pytest.raises(LabelSettingsError) as caught:
        read_aliases(rules)
    assert [finding.key for finding in caught.value.findings] == [
        f"label_aliases[{place}]" for place in (0, 1, 3, 4)
    ]
