"""What CreateFleet (instant) does with capacity: parsed, checked and planned. Pure.

MiniStack launches the whole target over all overrides in turn, ignores the client token, DryRun,
priorities, the spot and on-demand split and unknown types, and never lacks capacity.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from runsfleet_cli.local.interceptor.faults import Closure, Pool

# spot capacity pools (instance type x subnet) an EC2 Fleet may name: EC2 user guide, fleet quotas
MAX_OVERRIDES = 300
# CreateFleetRequest.LaunchTemplateConfigs, max 50: botocore's EC2 model
MAX_CONFIGS = 50
_LAST_PRIORITY = float("inf")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that EC2 would not accept.

    Args:
        code: Error code.
        message: What EC2 says.
        status: HTTP status.
    """

    code: str
    message: str
    status: int = 400


@dataclass(frozen=True, slots=True)
class Override:
    """One line of a fleet request: where an instance may come from.

    Args:
        template: Launch template id or name.
        version: Its version, default `$Default`.
        by_name: Whether `template` is a name.
        instance_type: Empty: the launch template's.
        subnet_id: Empty: the launch template's.
        zone: As given; empty when only the subnet says.
        image_id: Empty: the launch template's.
        priority: Lowest first; missing is last.
    """

    template: str
    version: str
    by_name: bool
    instance_type: str = ""
    subnet_id: str = ""
    zone: str = ""
    image_id: str = ""
    priority: float = _LAST_PRIORITY


@dataclass(frozen=True, slots=True)
class FleetRequest:
    """A CreateFleet request.

    Args:
        kind: `instant`, `maintain` or `request`.
        token: Client token, or empty.
        dry_run: Whether it only asks for permission.
        spot: Instances wanted as spot.
        on_demand: Instances wanted as on-demand.
        minimum: Of spot and of on-demand capacity, below which nothing is launched.
        overrides: In the order given.
    """

    kind: str
    token: str
    dry_run: bool
    spot: int
    on_demand: int
    minimum: Mapping[str, int]
    overrides: tuple[Override, ...]


@dataclass(frozen=True, slots=True)
class Launch:
    """So many instances from one override."""

    override: Override
    capacity_type: str
    count: int


@dataclass(frozen=True, slots=True)
class Shortage:
    """An entry of `Errors[]`."""

    override: Override
    capacity_type: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a fleet request gets.

    Args:
        launches: In order.
        shortages: One for each override that was tried and could not give all that was wanted.
        rules: Ids of the fault rules that had a part in it.
    """

    launches: tuple[Launch, ...]
    shortages: tuple[Shortage, ...]
    rules: tuple[str, ...]


def parse_fleet(parameters: Mapping[str, Any]) -> FleetRequest | Refusal:
    """Read the parameters of CreateFleet as `unflatten` gives them."""
    configs = parameters.get("LaunchTemplateConfigs") or []
    if not configs:
        return Refusal("MissingParameter", "The request must contain LaunchTemplateConfigs")
    if len(configs) > MAX_CONFIGS:
        message = f"LaunchTemplateConfigs has {len(configs)} members; the maximum is {MAX_CONFIGS}"
        return Refusal("InvalidFleetConfiguration", message)
    overrides: list[Override] = []
    for config in configs:
        specification = config.get("LaunchTemplateSpecification", {})
        name = specification.get("LaunchTemplateName", "")
        base = Override(
            template=specification.get("LaunchTemplateId") or name,
            version=specification.get("Version") or "$Default",
            by_name=bool(name) and not specification.get("LaunchTemplateId"),
        )
        lines = config.get("Overrides") or [{}]
        overrides += [_override(base, line) for line in lines]
    if len(overrides) > MAX_OVERRIDES:
        message = f"{len(overrides)} launch template overrides; the maximum is {MAX_OVERRIDES}"
        return Refusal("InvalidFleetConfiguration", message)
    capacity = parameters.get("TargetCapacitySpecification", {})
    try:
        total = int(capacity.get("TotalTargetCapacity", "-1"))
        spot = int(capacity.get("SpotTargetCapacity", "0"))
        on_demand = int(capacity.get("OnDemandTargetCapacity", "0"))
        minimum = {
            "spot": int(parameters.get("SpotOptions", {}).get("MinTargetCapacity", "0")),
            "on-demand": int(parameters.get("OnDemandOptions", {}).get("MinTargetCapacity", "0")),
        }
    except ValueError as error:
        return Refusal("InvalidParameterValue", f"Target capacities must be whole numbers: {error}")
    if total < 0:
        return Refusal("MissingParameter", "The request must contain TotalTargetCapacity")
    if spot + on_demand > total:
        return Refusal(
            "InvalidTargetCapacitySpecification",
            "OnDemandTargetCapacity and SpotTargetCapacity together exceed TotalTargetCapacity",
        )
    rest = total - spot - on_demand
    default_spot = capacity.get("DefaultTargetCapacityType", "on-demand") == "spot"
    return FleetRequest(
        kind=parameters.get("Type") or "maintain",
        token=parameters.get("ClientToken", ""),
        dry_run=parameters.get("DryRun", "false").lower() == "true",
        spot=spot + (rest if default_spot else 0),
        on_demand=on_demand + (0 if default_spot else rest),
        minimum=minimum,
        overrides=tuple(overrides),
    )


def unknown_type(request: FleetRequest, known: frozenset[str]) -> Refusal | None:
    """The refusal of a request that names an instance type which does not exist."""
    for override in request.overrides:
        if override.instance_type and override.instance_type not in known:
            message = f"Invalid value '{override.instance_type}' for InstanceType."
            return Refusal("InvalidParameterValue", message)
    return None


def fingerprint(parameters: Mapping[str, Any]) -> str:
    """What must be equal for two requests with one client token to be the same request."""
    return json.dumps(
        {name: value for name, value in parameters.items() if name != "ClientToken"}, sort_keys=True
    )


def pool_of(override: Override, zones: Mapping[str, str], capacity_type: str) -> Pool:
    """The pool that an override names; its zone may come from its subnet."""
    zone = override.zone or zones.get(override.subnet_id, "")
    return Pool(override.instance_type, zone, capacity_type)


def plan_fleet(
    request: FleetRequest, zones: Mapping[str, str], closures: Sequence[Closure]
) -> Plan:
    """Spread the wanted capacity over the overrides, best first, around closed pools.

    Like EC2 with few pools tried: the first override gives all it has, then the next. An override
    is an error only if it was tried and fell short.

    Args:
        request: What is wanted.
        zones: Zone of each subnet.
        closures: What the fault rules close.
    """
    left = {closure.rule: closure.deliver for closure in closures}
    launches: list[Launch] = []
    shortages: list[Shortage] = []
    rules: list[str] = []
    ordered = sorted(request.overrides, key=lambda override: override.priority)
    for capacity_type, wanted in (("on-demand", request.on_demand), ("spot", request.spot)):
        found: list[Launch] = []
        missing = wanted
        for override in ordered:
            if missing == 0:
                break
            pool = pool_of(override, zones, capacity_type)
            closed = [closure for closure in closures if pool in closure.pools]
            count = min([missing, *(left[closure.rule] for closure in closed)])
            if count < missing:
                shortages.append(
                    Shortage(override, capacity_type, closed[0].code, closed[0].message)
                )
                rules += [closure.rule for closure in closed if closure.rule not in rules]
            for closure in closed:
                left[closure.rule] -= count
            if count:
                found.append(Launch(override, capacity_type, count))
            missing -= count
        if wanted - missing >= request.minimum[capacity_type]:
            launches += found
    return Plan(tuple(launches), tuple(shortages), tuple(rules))


def rewritten_form(form: Mapping[str, str], launch: Launch) -> dict[str, str]:
    """The form of a request for exactly one launch; `count` may be 0, to ask for permission."""
    kept = {
        key: value
        for key, value in form.items()
        if not key.startswith(("LaunchTemplateConfigs.", "TargetCapacitySpecification."))
        and key not in {"ClientToken", "DryRun"}
    }
    config = "LaunchTemplateConfigs.1"
    override = launch.override
    reference = "LaunchTemplateName" if override.by_name else "LaunchTemplateId"
    kept |= {
        f"{config}.LaunchTemplateSpecification.{reference}": override.template,
        f"{config}.LaunchTemplateSpecification.Version": override.version,
        "TargetCapacitySpecification.TotalTargetCapacity": str(launch.count),
        "TargetCapacitySpecification.DefaultTargetCapacityType": launch.capacity_type,
    }
    if override.instance_type:
        kept[f"{config}.Overrides.1.InstanceType"] = override.instance_type
    if override.subnet_id:
        kept[f"{config}.Overrides.1.SubnetId"] = override.subnet_id
    return kept


def fleet_xml(
    fleet_id: str,
    launched: Sequence[tuple[Launch, Sequence[str]]],
    shortages: Sequence[Shortage],
    zones: Mapping[str, str],
) -> str:
    """The inside of a CreateFleetResponse."""
    errors = "".join(
        f"<item>{_origin_xml(item.override, zones)}<lifecycle>{item.capacity_type}</lifecycle>"
        f"<errorCode>{escape(item.code)}</errorCode>"
        f"<errorMessage>{escape(item.message)}</errorMessage></item>"
        for item in shortages
    )
    instances = "".join(
        f"<item>{_origin_xml(launch.override, zones)}<lifecycle>{launch.capacity_type}</lifecycle>"
        f"<instanceIds>{''.join(f'<item>{one}</item>' for one in ids)}</instanceIds>"
        f"<instanceType>{escape(launch.override.instance_type)}</instanceType></item>"
        for launch, ids in launched
        if ids
    )
    return (
        f"<fleetId>{fleet_id}</fleetId><errorSet>{errors}</errorSet>"
        f"<fleetInstanceSet>{instances}</fleetInstanceSet>"
    )


def _override(base: Override, line: Mapping[str, Any]) -> Override:
    priority = line.get("Priority")
    return Override(
        template=base.template,
        version=base.version,
        by_name=base.by_name,
        instance_type=line.get("InstanceType", ""),
        subnet_id=line.get("SubnetId", ""),
        zone=line.get("AvailabilityZone", ""),
        image_id=line.get("ImageId", ""),
        priority=float(priority) if priority is not None else _LAST_PRIORITY,
    )


def _origin_xml(override: Override, zones: Mapping[str, str]) -> str:
    tag = "launchTemplateName" if override.by_name else "launchTemplateId"
    fields = {
        "instanceType": override.instance_type,
        "subnetId": override.subnet_id,
        "availabilityZone": override.zone or zones.get(override.subnet_id, ""),
    }
    inner = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in fields.items() if value)
    return (
        "<launchTemplateAndOverrides><launchTemplateSpecification>"
        f"<{tag}>{escape(override.template)}</{tag}><version>{escape(override.version)}</version>"
        f"</launchTemplateSpecification><overrides>{inner}</overrides></launchTemplateAndOverrides>"
    )
