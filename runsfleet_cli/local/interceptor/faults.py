"""Fault rules: which requests go wrong, and how. Pure; time is passed in, chance is seeded.

Lifecycle: a rule is added (by a test, or as JSON through the control API), counts the requests
that match it, applies to those that its `nth`, `probability`, `count` and `until` choose, and
stays listed with its counters until it is removed.

Effects:
    * `error`: answered with `code`, `status` and `message`, shaped for the protocol.
    * `throttle`, `refuse`: the service's own way of saying "slow down" or "not authorized".
    * `delay`: waits `delay_seconds`, then goes on.
    * `drop`: the connection closes without an answer; `when` is `before` the request reached the
      backend or `after` it was executed (the caller cannot know which).
    * `capacity`: CreateFleet finds no capacity in the pools of the given instance types, zones and
      capacity types; `deliver` instances are still to be had from them. RunInstances and
      StartInstances are refused with `code`.

Example:
    >>> book = FaultBook()
    >>> book.add(
    ...     FaultRule.from_dict(
    ...         {"id": "no-spot", "effect": "capacity", "capacity_types": ["spot"], "count": 3}
    ...     )
    ... )
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from fnmatch import fnmatch
from typing import Any, Literal, cast, get_args

from runsfleet_cli.local.interceptor.aws_request import AwsRequest

EffectName = Literal["error", "throttle", "refuse", "delay", "drop", "capacity"]
_EFFECTS: tuple[str, ...] = get_args(EffectName)
CAPACITY_CODE = "InsufficientInstanceCapacity"
_LAUNCHES = ("CreateFleet", "RunInstances", "StartInstances")


class FaultRuleError(ValueError):
    """A fault rule that cannot be meant; the message names the value and the cure."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Where an instance may come from.

    Args:
        instance_type: For example `c7g.xlarge`.
        zone: For example `eu-central-1a`; empty when the request does not say.
        capacity_type: `spot` or `on-demand`.
    """

    instance_type: str
    zone: str
    capacity_type: str


@dataclass(frozen=True, slots=True)
class Closure:
    """Pools that a capacity rule closed for one request.

    Args:
        rule: Id of the rule.
        pools: The closed ones, of those that the request names.
        deliver: How many instances they still give, together.
        code: For `Errors[].ErrorCode`.
        message: For `Errors[].ErrorMessage`.
    """

    rule: str
    pools: frozenset[Pool]
    deliver: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class FaultRule:
    """One rule.

    Args:
        id: Unique; names it in the record.
        effect: See the module.
        service: Pattern of the service, as are `action`, `caller` and `region` of theirs.
        action: Pattern.
        caller: Pattern, e.g. `function:*dispatch*`; case does not matter.
        region: Pattern.
        instance_types: Patterns; for `capacity`.
        zones: Patterns; for `capacity`.
        capacity_types: `spot`, `on-demand`; for `capacity`.
        nth: Apply only to the matching request of this number, from 1.
        probability: Chance that a matching request is chosen, 0 to 1.
        seed: Of that chance.
        count: Apply at most so many times.
        until: Unix time, seconds, after which it no longer applies.
        code: Error code of `error` and `capacity`.
        status: HTTP status of `error`.
        message: Of `error`, `refuse` and `capacity`.
        delay_seconds: Of `delay`.
        when: Of `drop`.
        deliver: Of `capacity`.
    """

    id: str
    effect: EffectName
    service: str = "*"
    action: str = "*"
    caller: str = "*"
    region: str = "*"
    instance_types: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    capacity_types: tuple[str, ...] = ()
    nth: int | None = None
    probability: float = 1.0
    seed: int = 0
    count: int | None = None
    until: float | None = None
    code: str = ""
    status: int = 500
    message: str = ""
    delay_seconds: float = 0.0
    when: Literal["before", "after"] = "before"
    deliver: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            FaultRuleError: Names the value and the cure.
        """
        problems = []
        if not self.id:
            problems.append("id must not be empty; give the rule a name")
        if self.effect not in _EFFECTS:
            problems.append(f"effect {self.effect!r} is unknown; use one of {', '.join(_EFFECTS)}")
        if not 0 <= self.probability <= 1:
            problems.append(f"probability must be from 0 to 1, got {self.probability}")
        if self.nth is not None and self.nth < 1:
            problems.append(f"nth counts from 1, got {self.nth}")
        if self.count is not None and self.count < 1:
            problems.append(f"count must be at least 1, got {self.count}; leave it out for always")
        if self.when not in {"before", "after"}:
            problems.append(f"when must be before or after, got {self.when!r}")
        if self.effect == "delay" and self.delay_seconds <= 0:
            problems.append(f"delay_seconds must be above 0, got {self.delay_seconds}")
        if self.effect == "error" and not self.code:
            problems.append("effect error needs a code, e.g. InternalError")
        if self.deliver < 0:
            problems.append(f"deliver must be at least 0, got {self.deliver}")
        if problems:
            raise FaultRuleError("; ".join(problems))

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> FaultRule:
        """A rule from JSON.

        Raises:
            FaultRuleError: A key is unknown or a value cannot be meant.
        """
        known = {item.name for item in fields(cls)}
        unknown = sorted(set(given) - known)
        if unknown:
            msg = f"unknown keys {', '.join(unknown)}; known are {', '.join(sorted(known))}"
            raise FaultRuleError(msg)
        missing = {"id", "effect"} - given.keys()
        if missing:
            msg = f"missing {', '.join(sorted(missing))}"
            raise FaultRuleError(msg)
        values = dict(given)
        for name in ("instance_types", "zones", "capacity_types"):
            value = values.get(name, ())
            values[name] = (value,) if isinstance(value, str) else tuple(value)
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: only what differs from the defaults."""
        out: dict[str, Any] = {"id": self.id, "effect": self.effect}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name not in out and value != item.default:
                out[item.name] = list(value) if isinstance(value, tuple) else value
        return out


@dataclass(slots=True)
class _State:
    rule: FaultRule
    chance: random.Random
    matched: int = 0
    applied: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """What the rules say about one request.

    Args:
        delay: Seconds to wait first.
        rule: The rule that decides the answer (`error`, `throttle`, `refuse`, `drop`), if any.
        applied: Ids of all rules that took part.
    """

    delay: float = 0.0
    rule: FaultRule | None = None
    applied: tuple[str, ...] = ()


@dataclass(slots=True)
class FaultBook:
    """The rules in force, in the order in which they were added."""

    _states: dict[str, _State] = field(default_factory=dict)

    def add(self, rule: FaultRule) -> None:
        """Put a rule in force.

        Raises:
            FaultRuleError: A rule of that id is in force already.
        """
        if rule.id in self._states:
            msg = f"rule {rule.id} is in force already; remove it first or use another id"
            raise FaultRuleError(msg)
        # seeded on purpose: the same run gives the same faults
        self._states[rule.id] = _State(rule, random.Random(rule.seed))  # noqa: S311

    def remove(self, rule_id: str) -> bool:
        """Take a rule out of force; False if there was none."""
        return self._states.pop(rule_id, None) is not None

    def clear(self) -> None:
        """Take all rules out of force."""
        self._states.clear()

    def describe(self) -> list[dict[str, Any]]:
        """All rules with how often they matched and applied."""
        return [
            state.rule.as_dict() | {"matched": state.matched, "applied": state.applied}
            for state in self._states.values()
        ]

    def __bool__(self) -> bool:
        return bool(self._states)

    def decide(self, request: AwsRequest, now: float) -> Decision:
        """Which rules apply to a request; the first that answers wins, delays add up."""
        delay = 0.0
        applied: list[str] = []
        for state in self._states.values():
            rule = state.rule
            if rule.effect == "capacity" and not _refuses_launch(rule, request):
                continue
            if not _matches(rule, request) or not _chosen(state, now):
                continue
            applied.append(rule.id)
            if rule.effect == "delay":
                delay += rule.delay_seconds
            else:
                return Decision(delay, rule, tuple(applied))
        return Decision(delay, None, tuple(applied))

    def closures(self, request: AwsRequest, pools: Sequence[Pool], now: float) -> list[Closure]:
        """Which pools of a CreateFleet request the capacity rules close."""
        found = []
        for state in self._states.values():
            rule = state.rule
            if rule.effect != "capacity" or not _matches(rule, request):
                continue
            closed = frozenset(pool for pool in pools if _closes(rule, pool))
            if closed and _chosen(state, now):
                code = rule.code or CAPACITY_CODE
                message = rule.message or _capacity_message(code)
                found.append(Closure(rule.id, closed, rule.deliver, code, message))
        return found


def _matches(rule: FaultRule, request: AwsRequest) -> bool:
    return (
        fnmatch(request.service.lower(), rule.service.lower())
        and fnmatch(request.action.lower(), rule.action.lower())
        and fnmatch(str(request.caller).lower(), rule.caller.lower())
        and fnmatch(request.operation.region, rule.region)
    )


def _refuses_launch(rule: FaultRule, request: AwsRequest) -> bool:
    """Whether a capacity rule concerns a launch that is not a fleet's."""
    if not request.is_call("ec2", *_LAUNCHES) or request.action == "CreateFleet":
        return False
    pool = Pool(
        str(request.parameters.get("InstanceType", "")),
        "",
        "spot" if "InstanceMarketOptions" in request.parameters else "on-demand",
    )
    return _closes(rule, pool)


def _closes(rule: FaultRule, pool: Pool) -> bool:
    return (
        (not rule.capacity_types or pool.capacity_type in rule.capacity_types)
        and _any_pattern(rule.instance_types, pool.instance_type)
        and _any_pattern(rule.zones, pool.zone)
    )


def _any_pattern(patterns: tuple[str, ...], value: str) -> bool:
    # an unknown type or zone cannot be told apart from the closed ones
    return not patterns or not value or any(fnmatch(value, pattern) for pattern in patterns)


def _chosen(state: _State, now: float) -> bool:
    rule = state.rule
    if rule.until is not None and now > rule.until:
        return False
    state.matched += 1
    if rule.nth is not None and state.matched != rule.nth:
        return False
    if rule.count is not None and state.applied >= rule.count:
        return False
    if rule.probability < 1 and state.chance.random() >= rule.probability:
        return False
    state.applied += 1
    return True


def _capacity_message(code: str) -> str:
    return cast(
        "dict[str, str]",
        {
            "InsufficientInstanceCapacity": (
                "There is no Spot capacity available that matches your request."
            ),
            "UnfulfillableCapacity": (
                "Unable to fulfill capacity due to your request configuration. Please adjust your "
                "request and try again."
            ),
            "MaxSpotInstanceCountExceeded": "Max spot instance count exceeded",
            "VcpuLimitExceeded": (
                "You have requested more vCPU capacity than your current vCPU limit allows."
            ),
        },
    ).get(code, "We currently do not have sufficient capacity for the instance type you requested.")
