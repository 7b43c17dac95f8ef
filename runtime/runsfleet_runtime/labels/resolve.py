"""Whose job it is, and which machine it asks for: the one question that callers have."""

from __future__ import annotations

from collections.abc import Sequence

from runsfleet_runtime.labels.grammar import read_spec
from runsfleet_runtime.labels.marker import is_native, spec_text
from runsfleet_runtime.labels.model import (
    MARKER,
    Accepted,
    NotOurs,
    Outcome,
    Refused,
    RunnerSpec,
    find,
    shown,
)
from runsfleet_runtime.labels.patterns import GENERIC_LABELS
from runsfleet_runtime.labels.settings import MAX_LABEL_CHARS, LabelSettings

_GENERIC_SYSTEMS = ("linux", "windows")
_GENERIC_ARCHITECTURES = ("x64", "arm64")


def resolve(labels: Sequence[str], settings: LabelSettings) -> Outcome:
    """Say whose job this is and which machine it asks for.

    The order of the labels and repeats among them mean nothing. A job is another's, and nothing is
    launched, unless every one of its labels is a native one, an alias, or one that GitHub gives to
    every self-hosted runner: a runner without the remaining labels would never get the job.

    Args:
        labels: The labels of the job (``runs-on``), as GitHub sent them.
        settings: What the fleet offers.

    Returns:
        ``Accepted`` with the machine, ``Refused`` with everything that is wrong, or ``NotOurs``.

    Example:
        >>> outcome = resolve(["runs-fleet/runner=4cpu-linux-arm64"], LabelSettings())
        >>> outcome.spec.preferred_type
        'c7g.xlarge'
    """
    present = sorted(set(labels))
    if not present:
        return NotOurs("the job has no labels")
    native = [label for label in present if is_native(label)]
    aliased = [
        (*found, label)
        for label in present
        if not is_native(label) and (found := settings.alias(label)) is not None
    ]
    if not native and not aliased:
        return NotOurs("none of the job's labels is this fleet's")
    ours = {*native, *(label for _, _, label in aliased)}
    foreign = [
        label for label in present if label not in ours and label.lower() not in GENERIC_LABELS
    ]
    if foreign:
        return NotOurs(f"the job also wants {shown(foreign[0])}, which this fleet does not offer")
    if native:
        return _native_outcome(native, present, settings)
    _, spec, label = min(aliased, key=lambda found: found[0])
    return _checked(spec, label, present)


def _native_outcome(native: list[str], present: list[str], settings: LabelSettings) -> Outcome:
    answers = [_read_native(label, settings) for label in native]
    first = answers[0]
    if len(answers) == 1 and isinstance(first, RunnerSpec):
        return _checked(first, native[0], present)
    if isinstance(first, NotOurs) and all(isinstance(answer, NotOurs) for answer in answers):
        return first
    findings = [f for answer in answers if isinstance(answer, Refused) for f in answer.findings]
    if len(native) > 1:
        reason = f"the job has {len(native)} {MARKER} labels"
        findings += [find(label, "", "", reason, "keep one of them") for label in native]
    return Refused(tuple(findings))


def _read_native(label: str, settings: LabelSettings) -> RunnerSpec | NotOurs | Refused:
    if len(label) > MAX_LABEL_CHARS:
        reason = f"the label has {len(label)} characters"
        return Refused((find(label, "", "", reason, f"use {MAX_LABEL_CHARS} at most"),))
    text = spec_text(label)
    if isinstance(text, tuple):
        return Refused((find(label, "", "", *text),))
    return read_spec(text, label, settings)


def _checked(spec: RunnerSpec, label: str, present: list[str]) -> Accepted | Refused:
    """Refuse a spec that GitHub's generic labels beside it contradict."""
    findings = []
    for other in present:
        generic = other.lower()
        for key, actual, known in (
            ("os", spec.os.value, _GENERIC_SYSTEMS),
            ("arch", spec.arch.value, _GENERIC_ARCHITECTURES),
        ):
            if generic in known and generic != actual:
                reason = f"the job also has the label {generic}, but {shown(label)} means {actual}"
                cure = f"drop the label {generic}, or ask for {key}={generic}"
                findings.append(find(label, key, actual, reason, cure))
    return Refused(tuple(findings)) if findings else Accepted(spec, label)
