"""Whose job it is: native labels, aliases, other people's labels, other fleets."""

from __future__ import annotations

import itertools

import pytest

from runsfleet_runtime.labels import (
    Accepted,
    LabelAlias,
    LabelSettings,
    NotOurs,
    Refused,
    resolve,
)

SETTINGS = LabelSettings(
    region="eu-central-1",
    environment="prod",
    aliases=(
        LabelAlias("shared-8cpu-arm64", "runner=8cpu-linux-arm64"),
        LabelAlias("^ci-[a-z]+$", "cpu=2/arch=x64", pattern=True),
        LabelAlias("^ci-large$", "cpu=16/arch=x64", pattern=True),
        LabelAlias("arm64", "runner=4cpu-linux-arm64"),
    ),
)


@pytest.mark.parametrize(
    "labels",
    [
        [],
        ["ubuntu-latest"],
        ["self-hosted"],
        ["self-hosted", "linux", "x64"],
        ["self-hosted", "gpu"],
        ["runs-fleet/cpu=4", "gpu"],
        ["runs-fleet/cpu=0", "gpu"],
        ["runs-fleet", "runner=4cpu-linux-arm64"],
        ["runs-fleet", "macos"],
        ["shared-8cpu-arm64", "gpu"],
        ["runs-fleets"],
        ["runs-fleet-2/cpu=4"],
        ["runs-fleet:cpu=4"],
        ["my-runs-fleet/cpu=4"],
        [" runs-fleet"],
        ["runs-fleet "],
        ["runs\u2010fleet"],
        ["xci-small"],
        ["ci-small\n"],
        ["ci-small-2"],
        ["shared-8cpu-arm64-2"],
        [""],
        ["\ud800"],
        ["x" * 1_000_000],
        ["c" * 600],
    ],
)
def test_jobs_of_others(labels: list[str]) -> None:
    """A job with no label of ours, or with one that we do not offer beside ours, is let alone."""
    outcome = resolve(labels, SETTINGS)
    assert isinstance(outcome, NotOurs)
    assert outcome.reason
    assert len(outcome.reason) < 300


@pytest.mark.parametrize(
    "labels",
    [
        ["self-hosted", "runs-fleet/cpu=4"],
        ["self-hosted", "Linux", "ARM64", "runs-fleet/cpu=4"],
        ["Self-Hosted", "LINUX", "runs-fleet/cpu=4/arch=arm64"],
        ["runs-fleet/cpu=4", "runs-fleet/cpu=4"],
        ["runs-fleet/cpu=4", "shared-8cpu-arm64"],
        ["arm64", "runs-fleet/cpu=4"],
    ],
)
def test_labels_tolerated_beside_ours(labels: list[str]) -> None:
    """Generic labels that agree, repeats and aliases do not stand in the way of a native label."""
    outcome = resolve(labels, SETTINGS)
    assert isinstance(outcome, Accepted)
    assert outcome.label.startswith("runs-fleet/")
    assert (outcome.spec.cpu_min, outcome.spec.cpu_max) == (4, 8)


@pytest.mark.parametrize(
    ("labels", "key"),
    [
        (["self-hosted", "X64", "runs-fleet/cpu=4/arch=arm64"], "arch"),
        (["self-hosted", "linux", "x64", "runs-fleet/cpu=4"], "arch"),
        (["windows", "runs-fleet/cpu=4"], "os"),
        (["linux", "runs-fleet/os=windows"], "os"),
        (["x64", "shared-8cpu-arm64"], "arch"),
        (["linux", "windows", "runs-fleet/cpu=4"], "os"),
    ],
)
def test_generic_labels_that_contradict(labels: list[str], key: str) -> None:
    """No runner could have both labels truthfully, so the contradiction is refused."""
    outcome = resolve(labels, SETTINGS)
    assert isinstance(outcome, Refused)
    assert [finding.key for finding in outcome.findings] == [key]
    assert "the job also has the label" in outcome.findings[0].reason


@pytest.mark.parametrize(
    ("labels", "cpu_min", "label"),
    [
        (["shared-8cpu-arm64"], 8, "shared-8cpu-arm64"),
        (["SHARED-8cpu-ARM64"], 8, "SHARED-8cpu-ARM64"),
        (["self-hosted", "shared-8cpu-arm64"], 8, "shared-8cpu-arm64"),
        (["ci-small"], 2, "ci-small"),
        (["CI-Small"], 2, "CI-Small"),
        (["ci-large"], 2, "ci-large"),
        (["self-hosted", "linux", "arm64"], 4, "arm64"),
        (["arm64", "shared-8cpu-arm64"], 8, "shared-8cpu-arm64"),
    ],
)
def test_aliases(labels: list[str], cpu_min: int, label: str) -> None:
    """A whole label, in any case, stands for its alias's machine; the first rule wins."""
    outcome = resolve(labels, SETTINGS)
    assert isinstance(outcome, Accepted)
    assert (outcome.spec.cpu_min, outcome.label) == (cpu_min, label)


@pytest.mark.parametrize(
    "label",
    [
        "runs-fleet/region=us-east-1",
        "runs-fleet/env=dev",
        "runs-fleet/region=us-east-1/env=prod",
        "runs-fleet/region=us-east-1/cpu=0/nonsense",
    ],
)
def test_jobs_of_other_fleets(label: str) -> None:
    """Another region's or environment's job is that fleet's to serve, and to refuse."""
    assert isinstance(resolve([label], SETTINGS), NotOurs)
    assert isinstance(resolve(["self-hosted", label], SETTINGS), NotOurs)


def test_fleet_without_a_name() -> None:
    """A fleet that was given no name takes no job that insists on one."""
    outcome = resolve(["runs-fleet/env=prod"], LabelSettings())
    assert outcome == NotOurs("the label asks for env=prod, this fleet is unnamed")


def test_known_fleets_tell_a_typing_error_from_another_fleet() -> None:
    """With the names of all fleets known, a region or fleet that none has is refused."""
    known = LabelSettings(
        region="eu-central-1",
        environment="prod",
        known_regions=("eu-central-1", "us-east-1"),
        known_environments=("dev", "prod"),
    )
    assert isinstance(resolve(["runs-fleet/region=us-east-1"], known), NotOurs)
    refused = resolve(["runs-fleet/region=us-eest-1/env=prd"], known)
    assert isinstance(refused, Refused)
    assert [finding.key for finding in refused.findings] == ["region", "env"]
    assert refused.findings[0].cure == "use one of eu-central-1, us-east-1"


def test_several_native_labels() -> None:
    """Two native labels ask for two machines; the job is refused, with what else is wrong."""
    outcome = resolve(["runs-fleet/cpu=4", "runs-fleet/cpu=0"], SETTINGS)
    assert isinstance(outcome, Refused)
    assert [finding.key for finding in outcome.findings] == ["cpu", "", ""]


def test_several_native_labels_for_other_fleets() -> None:
    """Labels which all name other fleets are not ours to refuse."""
    labels = ["runs-fleet/env=dev", "runs-fleet/env=qa"]
    assert isinstance(resolve(labels, SETTINGS), NotOurs)


@pytest.mark.parametrize(
    "labels",
    [
        ["self-hosted", "linux", "runs-fleet/cpu=4"],
        ["runs-fleet/cpu=4", "runs-fleet/cpu=0", "RUNS-FLEET/CPU=4"],
        ["x64", "windows", "runs-fleet/cpu=4"],
        ["arm64", "shared-8cpu-arm64", "ci-large"],
        ["a", "b", "runs-fleet"],
    ],
)
def test_order_of_labels_means_nothing(labels: list[str]) -> None:
    """Whatever the order of the labels, the answer is the same, findings included."""
    outcomes = [resolve(order, SETTINGS) for order in itertools.permutations(labels)]
    assert all(outcome == outcomes[0] for outcome in outcomes)


def test_labels_are_not_changed() -> None:
    """The caller's list stays as it is: the runner must register exactly what GitHub sent."""
    labels = ["runs-fleet/cpu=4", "self-hosted"]
    resolve(labels, SETTINGS)
    assert labels == ["runs-fleet/cpu=4", "self-hosted"]
