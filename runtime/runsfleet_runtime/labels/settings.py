"""What the fleet offers to labels: limits, aliases, images, platforms; checked as a whole.

Aliases are rules of the fleet's operator by which labels that exist already (of another runner
system, say) mean a machine of this fleet. A rule that could take jobs away from somebody else, that
could hang or never match is refused when the settings are made, not when a job comes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from runsfleet_runtime.labels.grammar import MIN_DISK_GIB, read_spec
from runsfleet_runtime.labels.marker import is_native
from runsfleet_runtime.labels.model import MARKER, LabelFinding, NotOurs, RunnerSpec, find
from runsfleet_runtime.labels.patterns import read_pattern
from runsfleet_runtime.labels.reader import MAX_NAME_CHARS, is_name

# all keys at their longest stay below it; it bounds what one label can cost, patterns included
MAX_LABEL_CHARS = 512
PLATFORMS = ("linux-arm64", "linux-x64", "windows-x64")


class LabelAlias(NamedTuple):
    """One rule: a label, or a pattern of labels, that stands for a machine.

    Attributes:
        match: The label, or the pattern; compared without regard to case, as GitHub does.
        spec: What it stands for, such as ``runner=4cpu-linux-arm64/pool=default``.
        pattern: Whether ``match`` is a regular expression, anchored by ``^`` and ``$``.
    """

    match: str
    spec: str
    pattern: bool = False


class LabelImage(NamedTuple):
    """An image that labels may name.

    Attributes:
        reference: AMI id, or ``resolve:ssm:`` and the name of a parameter.
        platform: What it runs on, such as ``linux-arm64``; ``None`` leaves that unchecked.
        min_disk_gib: Size of its root snapshot in GiB; 0 takes the default image's.
    """

    reference: str
    platform: str | None = None
    min_disk_gib: int = 0


class LabelLimits(NamedTuple):
    """The largest machine that a label may ask for.

    Attributes:
        max_cpu: vCPUs; 96 is the largest in the catalogue.
        max_ram_gib: Memory in GiB; 768 is the largest in the catalogue.
        max_disk_gib: Root volume in GiB; 1024 cost about 80 USD a month as gp3.
    """

    max_cpu: int = 96
    max_ram_gib: int = 768
    max_disk_gib: int = 1024


_DEFAULT_LIMITS = LabelLimits()


class LabelSettingsError(ValueError):
    """The settings are wrong; the message lists every finding.

    Attributes:
        findings: Everything that is wrong, at least one.
    """

    def __init__(self, findings: tuple[LabelFinding, ...]) -> None:
        super().__init__("\n".join(map(str, findings)))
        self.findings = findings


class _Rule(NamedTuple):
    literal: str
    pattern: re.Pattern[str] | None
    spec: RunnerSpec

    def takes(self, label: str) -> bool:
        if self.pattern is None:
            return label.lower() == self.literal
        return self.pattern.fullmatch(label) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSettings:
    """What labels of this fleet are read against.

    Attributes:
        region: This fleet's region; a label with another ``region=`` is for another fleet.
        environment: This fleet's name; a label with another ``env=`` is for another fleet.
        aliases: Ordered rules; the first that matches wins.
        limits: The largest machine.
        images: Images that ``image=`` may name.
        platforms: Platforms that the fleet can launch, by default all.
        spot: Whether spot is used when a label does not say.
        private: Whether the fleet has private subnets.
        known_regions: Regions of all fleets; empty means unknown, and any name is believed.
        known_environments: Names of all fleets; empty means unknown, and any name is believed.

    Raises:
        LabelSettingsError: With every finding at once.

    Example:
        >>> LabelSettings(aliases=(LabelAlias("big-arm", "runner=8cpu-linux-arm64"),)).region
        ''
    """

    region: str = ""
    environment: str = ""
    aliases: tuple[LabelAlias, ...] = ()
    limits: LabelLimits = _DEFAULT_LIMITS
    images: Mapping[str, LabelImage] = field(default_factory=dict)
    platforms: tuple[str, ...] = PLATFORMS
    spot: bool = True
    private: bool = True
    known_regions: tuple[str, ...] = ()
    known_environments: tuple[str, ...] = ()
    _rules: tuple[_Rule, ...] = field(default=(), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the settings and prepare the aliases."""
        findings = _check_offer(self)
        rules = [] if findings else _rules(self, findings)
        if findings:
            raise LabelSettingsError(tuple(findings))
        object.__setattr__(self, "_rules", tuple(rules))  # the one write to a frozen instance

    def alias(self, label: str) -> tuple[int, RunnerSpec] | None:
        """Return the place and the machine of the first rule that takes a label, if one does."""
        if len(label) > MAX_LABEL_CHARS:
            return None
        for place, rule in enumerate(self._rules):
            if rule.takes(label):
                return place, rule.spec
        return None


def read_aliases(rules: Iterable[Mapping[str, Any]]) -> tuple[LabelAlias, ...]:
    """Read alias rules from their plain form, as an environment variable or a file has it.

    Args:
        rules: Each ``{"match": text, "spec": text, "pattern": bool}``; ``pattern`` may be absent.

    Raises:
        LabelSettingsError: With every rule that has not this form.
    """
    aliases: list[LabelAlias] = []
    findings: list[LabelFinding] = []
    for place, rule in enumerate(rules):
        match, spec, pattern = rule.get("match"), rule.get("spec"), rule.get("pattern", False)
        strange = sorted(set(rule) - {"match", "spec", "pattern"})
        if isinstance(match, str) and isinstance(spec, str) and isinstance(pattern, bool):
            aliases.append(LabelAlias(match, spec, pattern))
            wrong = bool(strange)
        else:
            wrong = True
        if wrong:
            findings.append(
                find(
                    "label_aliases",
                    f"label_aliases[{place}]",
                    str(dict(rule)),
                    "this is not an alias",
                    "give match and spec as text, and pattern as true or false",
                )
            )
    if findings:
        raise LabelSettingsError(tuple(findings))
    return tuple(aliases)


def _check_offer(settings: LabelSettings) -> list[LabelFinding]:
    findings = [
        find("limits", name, str(value), "a limit must be 1 at least", "give a positive number")
        for name, value in zip(settings.limits._fields, settings.limits, strict=True)
        if value < 1
    ]
    least = max(MIN_DISK_GIB.values())
    roots = [(name, image.min_disk_gib) for name, image in settings.images.items()]
    for name, root in (("default", least), *roots):
        if root > settings.limits.max_disk_gib:
            reason = f"the {name} image does not fit on a disk of max_disk_gib"
            cure = f"allow {root} or more"
            value = str(settings.limits.max_disk_gib)
            findings.append(find("limits", "max_disk_gib", value, reason, cure))
    offered = f"use one or more of {', '.join(PLATFORMS)}"
    if not settings.platforms:
        findings.append(find("platforms", "platforms", "", "the fleet launches nothing", offered))
    findings += [
        find("platforms", "platforms", platform, "there is no such platform", offered)
        for platform in settings.platforms
        if platform not in PLATFORMS
    ]
    findings += [
        find("images", f"images[{name}]", image.platform, "there is no such platform", offered)
        for name, image in settings.images.items()
        if image.platform is not None and image.platform not in PLATFORMS
    ]
    findings += [
        find("images", "images", name, "no label can name this image", _NAME_CURE)
        for name in settings.images
        if not is_name(name)
    ]
    return findings


_NAME_CURE = f"use up to {MAX_NAME_CHARS} letters, digits, - and _"


def _rules(settings: LabelSettings, findings: list[LabelFinding]) -> list[_Rule]:
    """Return the rules, or add to the findings what is wrong with them."""
    rules: list[_Rule] = []
    seen: set[tuple[bool, str]] = set()
    for place, alias in enumerate(settings.aliases):
        key = f"label_aliases[{place}]"
        pattern = read_pattern(alias.match) if alias.pattern else None
        faults = pattern if isinstance(pattern, tuple) else ()
        if not alias.pattern:
            faults = _literal_faults(alias.match)
        identity = (alias.pattern, alias.match if alias.pattern else alias.match.lower())
        if identity in seen:
            reason = "an earlier alias matches the same, so that this one never would"
            faults = (*faults, (reason, "drop one of the two"))
        seen.add(identity)
        findings += [find(alias.match, f"{key}.match", alias.match, *fault) for fault in faults]
        spec = _alias_spec(alias, f"{key}.spec", settings)
        if not isinstance(spec, RunnerSpec):
            findings += spec
        elif not isinstance(pattern, tuple):
            rules.append(_Rule(alias.match.lower(), pattern, spec))
    return rules


def _alias_spec(
    alias: LabelAlias, place: str, settings: LabelSettings
) -> RunnerSpec | tuple[LabelFinding, ...]:
    if not alias.spec or is_native(alias.spec):
        reason = "this says no machine"
        cure = "write the keys alone, such as runner=4cpu-linux-arm64/pool=default"
        return (find(alias.match, place, alias.spec, reason, cure),)
    spec = read_spec(alias.spec, alias.match, settings)
    if isinstance(spec, NotOurs):
        cure = "drop region= and env= from the alias"
        return (find(alias.match, place, alias.spec, spec.reason, cure),)
    if isinstance(spec, RunnerSpec):
        return spec
    return tuple(f._replace(key=f"{place}: {f.key}") for f in spec.findings)


def _literal_faults(match: str) -> tuple[tuple[str, str], ...]:
    faults = []
    if not match.strip() or match != match.strip() or len(match) > MAX_LABEL_CHARS:
        cure = f"give 1 to {MAX_LABEL_CHARS} characters without a space at either end"
        faults.append(("this is not a label", cure))
    if match.startswith("^") or match.endswith("$"):
        faults.append(("this looks like a pattern", "set pattern, or write the label as it is"))
    if is_native(match):
        cure = f"choose another label: {MARKER} labels need no alias"
        faults.append(("no job's label gets here: the native marker wins", cure))
    return tuple(faults)
