"""A model of EC2: instances, the volumes that belong to them, and what EventBridge says of them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from tests.simulation.errors import client_error
from tests.simulation.loop import Loop

ZONES: Final = ("eu-central-1a", "eu-central-1b", "eu-central-1c")
SUBNETS: Final = {f"subnet-{zone[-1]}": zone for zone in ZONES}
NOTICE_SECONDS: Final = 120.0
"""From a spot interruption's warning to the end (EC2 guide)."""
_GOING_SECONDS: Final = 20.0  # in shutting-down
_SHOWN_SECONDS: Final = 3600.0  # a terminated instance is still described
_PAGE: Final = 100
_STATE_CODES: Final = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48}
_CLOCK_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(slots=True, eq=False)
class Instance:
    """An instance."""

    id: str
    type: str
    zone: str
    subnet: str
    capacity: str
    launched_at: float
    tags: dict[str, str]
    state: str = "pending"
    ended_at: float = 0.0
    was_taken: bool = False  # by spot
    volume: str = ""
    on_end: list[Callable[[], None]] = field(default_factory=list)
    on_warning: list[Callable[[], None]] = field(default_factory=list)

    @property
    def is_alive(self) -> bool:
        """Whether it costs money."""
        return self.state in {"pending", "running"}


class Ec2:
    """The service.

    Args:
        loop: Simulated time.
        rng: Randomness.
        publish: Takes each event that EventBridge would get, as (detail type, detail).
        capacity: Tells whether an offering (capacity type, type, zone) has capacity now.
        partial: Returns how many of the wanted instances a CreateFleet may launch.
        on_launch: Called with each new instance.
    """

    def __init__(
        self,
        loop: Loop,
        rng: random.Random,
        *,
        publish: Callable[[str, dict[str, Any]], None],
        capacity: Callable[[str, str, str], bool] = lambda *_: True,
        partial: Callable[[int], int] = lambda wanted: wanted,
        on_launch: Callable[[Instance], None] = lambda _: None,
    ) -> None:
        self._loop = loop
        self._rng = rng
        self._publish = publish
        self._capacity = capacity
        self._partial = partial
        self._on_launch = on_launch
        self._ids = itertools.count(1)
        self._tokens: dict[str, dict[str, Any]] = {}
        self.instances: dict[str, Instance] = {}
        self.history: list[Instance] = []
        self.fleets = 0

    # -- what adapters call --------------------------------------------------------------------

    def create_fleet(self, **request: Any) -> dict[str, Any]:
        token = request["ClientToken"]
        if token in self._tokens:
            return self._tokens[token]
        self.fleets += 1
        target = request["TargetCapacitySpecification"]
        capacity, wanted = target["DefaultTargetCapacityType"], target["TotalTargetCapacity"]
        options: list[dict[str, Any]] = []
        errors: list[dict[str, Any]] = []
        for override in request["LaunchTemplateConfigs"][0]["Overrides"]:
            zone = SUBNETS[override["SubnetId"]]
            part = {"Overrides": {**override, "AvailabilityZone": zone}}
            if self._capacity(capacity, override["InstanceType"], zone):
                options.append(part)
            else:
                errors.append(
                    {
                        "ErrorCode": "InsufficientInstanceCapacity",
                        "ErrorMessage": "There is no capacity",
                        "Lifecycle": capacity,
                        "LaunchTemplateAndOverrides": part,
                    }
                )
        if capacity == "on-demand":
            options.sort(key=lambda part: part["Overrides"].get("Priority", 0.0))
        launched = []
        for _ in range(min(wanted, self._partial(wanted)) if options else 0):
            # spot spreads over the pools with most capacity, on-demand goes by priority
            near = options[:6] if capacity == "spot" else options[:1]
            part = near[self._rng.randrange(len(near))]
            launched.append((self._launch(part["Overrides"], capacity, request), part))
        if options and len(launched) < wanted and not errors:
            errors.append(
                {
                    "ErrorCode": "UnfulfillableCapacity",
                    "ErrorMessage": "There is not enough capacity",
                    "Lifecycle": capacity,
                    "LaunchTemplateAndOverrides": options[0],
                }
            )
        answer = {
            "FleetId": f"fleet-{self.fleets:05d}",
            "Instances": [
                {
                    "InstanceIds": [instance.id],
                    "InstanceType": instance.type,
                    "AvailabilityZone": instance.zone,
                    "Lifecycle": capacity,
                    "LaunchTemplateAndOverrides": part,
                }
                for instance, part in launched
            ],
            "Errors": errors,
        }
        self._tokens[token] = answer
        return answer

    def terminate_instances(self, **request: Any) -> dict[str, Any]:
        for instance_id in request["InstanceIds"]:
            if instance_id not in self.instances:
                raise client_error("terminate_instances", "InvalidInstanceID.NotFound")
        for instance_id in request["InstanceIds"]:
            self.end(self.instances[instance_id])
        return {"TerminatingInstances": []}

    def describe_instances(self, **request: Any) -> dict[str, Any]:
        found = list(self.instances.values())
        if (wanted := request.get("InstanceIds")) is not None:
            for instance_id in wanted:
                if instance_id not in self.instances:
                    raise client_error(
                        "describe_instances",
                        "InvalidInstanceID.NotFound",
                        f"The instance ID '{instance_id}' does not exist",
                    )
            found = [self.instances[instance_id] for instance_id in wanted]
        found = [i for i in found if _fits(_facts(i), request.get("Filters", ()))]
        page, token = _page(found, request)
        answer: dict[str, Any] = {"Reservations": [{"Instances": [_shown(i)]} for i in page]}
        return answer | token

    def describe_volumes(self, **request: Any) -> dict[str, Any]:
        shown = [
            {
                "VolumeId": i.volume,
                "State": "in-use",
                "CreateTime": _moment(i.launched_at),
                "Attachments": [{"InstanceId": i.id, "State": "attached"}],
                "Tags": _tags(i),
            }
            for i in self.instances.values()
            if i.is_alive
            and _fits({"status": "in-use", **_tag_facts(i)}, request.get("Filters", ()))
        ]
        page, token = _page(shown, request)
        return {"Volumes": page} | token

    def describe_network_interfaces(self, **request: Any) -> dict[str, Any]:
        shown = [
            {
                "NetworkInterfaceId": i.id.replace("i-", "eni-"),
                "Status": "in-use",
                "Attachment": {"InstanceId": i.id, "Status": "attached"},
                "TagSet": _tags(i),
            }
            for i in self.instances.values()
            if i.is_alive
            and _fits({"status": "in-use", **_tag_facts(i)}, request.get("Filters", ()))
        ]
        page, token = _page(shown, request)
        return {"NetworkInterfaces": page} | token

    def delete_volume(self, **request: Any) -> dict[str, Any]:
        raise client_error("delete_volume", "VolumeInUse", request["VolumeId"])

    def delete_network_interface(self, **request: Any) -> dict[str, Any]:
        interface = request["NetworkInterfaceId"]
        raise client_error("delete_network_interface", "InvalidParameterValue", interface)

    def create_tags(self, **request: Any) -> dict[str, Any]:
        for resource in request["Resources"]:
            if resource not in self.instances:
                raise client_error("create_tags", "InvalidInstanceID.NotFound")
            self.instances[resource].tags |= {t["Key"]: t["Value"] for t in request["Tags"]}
        return {}

    def delete_tags(self, **request: Any) -> dict[str, Any]:
        for resource in request["Resources"]:
            if (instance := self.instances.get(resource)) is not None:
                for tag in request["Tags"]:
                    instance.tags.pop(tag["Key"], None)
        return {}

    # -- what happens to instances -------------------------------------------------------------

    def end(self, instance: Instance) -> None:
        """Terminate an instance, whoever wants it."""
        if not instance.is_alive:
            return
        self._become(instance, "shutting-down")
        instance.ended_at = self._loop.now
        for call in instance.on_end:
            call()
        self._loop.after(_GOING_SECONDS, self._become, instance, "terminated")
        self._loop.after(_SHOWN_SECONDS, self.instances.pop, instance.id, None)

    def interrupt(self, instance: Instance, *, notice: float = NOTICE_SECONDS) -> None:
        """Announce that spot takes an instance, and take it; 0 takes it without a word."""
        if not instance.is_alive:
            return
        instance.was_taken = True
        if notice > 0:
            detail = {"instance-id": instance.id, "instance-action": "terminate"}
            self._publish("EC2 Spot Instance Interruption Warning", detail)
            for call in instance.on_warning:
                call()
        self._loop.after(notice, self.end, instance)

    def _launch(
        self, override: Mapping[str, Any], capacity: str, request: Mapping[str, Any]
    ) -> Instance:
        number = next(self._ids)
        tags = {
            tag["Key"]: tag["Value"]
            for part in request["TagSpecifications"]
            if part["ResourceType"] == "instance"
            for tag in part["Tags"]
        }
        instance = Instance(
            id=f"i-{number:017x}",
            type=override["InstanceType"],
            zone=override["AvailabilityZone"],
            subnet=override["SubnetId"],
            capacity=capacity,
            launched_at=self._loop.now,
            tags=tags,
            volume=f"vol-{number:017x}",
        )
        self.instances[instance.id] = instance
        self.history.append(instance)
        self._publish_state(instance)
        self._loop.after(5.0, self._become, instance, "running")
        self._on_launch(instance)
        return instance

    def _become(self, instance: Instance, state: str) -> None:
        if _STATE_CODES[state] <= _STATE_CODES[instance.state]:
            return
        instance.state = state
        self._publish_state(instance)

    def _publish_state(self, instance: Instance) -> None:
        detail = {"instance-id": instance.id, "state": instance.state}
        self._publish("EC2 Instance State-change Notification", detail)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _tags(instance: Instance) -> list[dict[str, str]]:
    return [{"Key": k, "Value": v} for k, v in instance.tags.items()]


def _tag_facts(instance: Instance) -> dict[str, str]:
    return {f"tag:{k}": v for k, v in instance.tags.items()}


def _facts(instance: Instance) -> dict[str, str]:
    return {
        "instance-state-name": instance.state,
        "instance-type": instance.type,
        "availability-zone": instance.zone,
        "instance-id": instance.id,
        "tag-key": ",".join(instance.tags),
        **_tag_facts(instance),
    }


def _fits(facts: Mapping[str, str], filters: Iterable[Mapping[str, Any]]) -> bool:
    for wanted in filters:
        name, values = wanted["Name"], wanted["Values"]
        if not (name in facts or name.startswith("tag:")):
            raise NotImplementedError(f"filter {name}")
        if name == "tag-key":
            if not set(values) & set(facts[name].split(",")):
                return False
        elif facts.get(name) not in values:
            return False
    return True


def _page(found: list[Any], request: Mapping[str, Any]) -> tuple[list[Any], dict[str, str]]:
    start = int(request.get("NextToken") or 0)
    if request.get("InstanceIds") is not None:
        return found, {}
    size = min(request.get("MaxResults") or _PAGE, _PAGE)
    end = start + size
    return found[start:end], {"NextToken": str(end)} if end < len(found) else {}


def _shown(instance: Instance) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "InstanceId": instance.id,
        "InstanceType": instance.type,
        "LaunchTime": _moment(instance.launched_at),
        "Placement": {"AvailabilityZone": instance.zone},
        "State": {"Code": _STATE_CODES[instance.state], "Name": instance.state},
        "SubnetId": instance.subnet,
        "Tags": _tags(instance),
    }
    if instance.capacity == "spot":
        shown["InstanceLifecycle"] = "spot"
    return shown
