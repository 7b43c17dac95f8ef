"""EC2: one CreateFleet of type ``instant`` for a launch request.

Gotchas:

- CreateFleet answers 200 with ``Errors`` when it launched nothing, or only a part; instances and
  errors may stand side by side. What counts are the ids.
- Its default type is ``maintain``, which would replace every instance that ends for ever.
- The tags are given here and not left to the launch template, since they must be on the volumes as
  well: what carries no tag can be neither swept nor terminated by policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.contract.tags import MANAGED_VALUE, Tag
from runsfleet_runtime.fleet.plan import (
    CapacityError,
    CapacityType,
    LaunchedInstance,
    LaunchRequest,
    LaunchResult,
)
from runsfleet_runtime.telemetry.log import get_logger

log = get_logger("fleet.ec2")

# EC2 mostly reports these inside a 200 answer, at times as the error of the whole call. Either way
# it launched nothing and another way of buying may succeed.
_CAPACITY_CODES: Final = frozenset(
    {
        "InsufficientInstanceCapacity",
        "InsufficientCapacity",
        "UnfulfillableCapacity",
        "MaxSpotInstanceCountExceeded",
        "SpotMaxPriceTooLow",
        "VcpuLimitExceeded",
        "InsufficientFreeAddressesInSubnet",
        "TargetCapacityLimitExceededException",
    }
)


class Ec2Fleet:
    """Adapter of :class:`~runsfleet_runtime.fleet.ports.LaunchesInstances`.

    Args:
        client: An EC2 client.
        fleet: Name of the fleet; on every instance and volume as a tag.
    """

    def __init__(self, client: Any, *, fleet: str) -> None:
        self._client = client
        self._fleet = fleet

    def launch(self, request: LaunchRequest) -> LaunchResult:
        """Launch instances; see :class:`~runsfleet_runtime.fleet.ports.LaunchesInstances`."""
        try:
            answer = self._client.create_fleet(**self._parameters(request))
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code not in _CAPACITY_CODES:
                return LaunchResult(failed=str(error))
            nothing = CapacityError(code=code, message=str(error), capacity=request.capacity)
            return LaunchResult(errors=(nothing,))
        except BotoCoreError as error:
            return LaunchResult(failed=str(error))
        instances = tuple(
            LaunchedInstance(
                instance_id=instance_id,
                instance_type=group.get("InstanceType", ""),
                availability_zone=_zone(group, request),
                capacity=request.capacity,
            )
            for group in answer.get("Instances", [])
            for instance_id in group.get("InstanceIds", [])
        )
        errors = tuple(_capacity_error(e, request) for e in answer.get("Errors", []))
        if errors:
            log.warning(
                "offerings without capacity",
                extra={
                    "asked": request.count,
                    "launched": len(instances),
                    "capacity_type": request.capacity.value,
                    "codes": sorted({e.code for e in errors}),
                    "offerings": [f"{e.instance_type}:{e.availability_zone}" for e in errors[:20]],
                },
            )
        return LaunchResult(instances, errors)

    def _parameters(self, request: LaunchRequest) -> dict[str, Any]:
        common: dict[str, Any] = {}
        if request.image:
            common["ImageId"] = request.image.reference
        common["BlockDeviceMappings"] = _devices(request)
        overrides = [
            {"InstanceType": instance_type, "SubnetId": subnet_id, **common}
            for instance_type, subnet_id in request.overrides()
        ]
        parameters: dict[str, Any] = {
            "Type": "instant",
            "ClientToken": request.client_token,
            "LaunchTemplateConfigs": [
                {
                    "LaunchTemplateSpecification": {
                        "LaunchTemplateId": request.target.launch_template_id,
                        "Version": request.target.launch_template_version,
                    },
                    "Overrides": overrides,
                }
            ],
            "TargetCapacitySpecification": {
                "TotalTargetCapacity": request.count,
                "DefaultTargetCapacityType": request.capacity.value,
            },
            "TagSpecifications": [
                {"ResourceType": kind, "Tags": self._tags(request)}
                for kind in ("fleet", "instance", "volume", "network-interface")
            ],
        }
        if request.capacity is CapacityType.SPOT:
            parameters["SpotOptions"] = {"AllocationStrategy": "price-capacity-optimized"}
        else:
            parameters["OnDemandOptions"] = {"AllocationStrategy": "prioritized"}
            for override in overrides:  # on-demand follows the order of preference: lowest first
                kind = override["InstanceType"]
                override["Priority"] = float(request.instance_types.index(kind))
        return parameters

    def _tags(self, request: LaunchRequest) -> list[dict[str, str]]:
        tags = {
            Tag.MANAGED: MANAGED_VALUE,
            Tag.FLEET: self._fleet,
            Tag.NAME: f"runs-fleet-{self._fleet}",
        }
        if request.spec.pool:
            tags[Tag.POOL] = request.spec.pool
        return [{"Key": key.value, "Value": value} for key, value in tags.items()]

    def terminate(self, instance_ids: Sequence[str]) -> bool:
        """Terminate; see :class:`~runsfleet_runtime.fleet.ports.LaunchesInstances`."""
        # one at a time: an id that is gone already fails the whole call for all the others
        results = [self._terminate_one(instance_id) for instance_id in instance_ids]
        return all(results)

    def _terminate_one(self, instance_id: str) -> bool:
        try:
            self._client.terminate_instances(InstanceIds=[instance_id])
        except ClientError as error:
            if error.response["Error"]["Code"] == "InvalidInstanceID.NotFound":
                return True
            log.error("not terminated", extra={"instance_id": instance_id, "error": str(error)})
            return False
        except BotoCoreError as error:
            log.error("not terminated", extra={"instance_id": instance_id, "error": str(error)})
            return False
        return True


def _devices(request: LaunchRequest) -> list[dict[str, Any]]:
    # the template's root volume has the platform's usual size; the label may want another
    root = {
        "DeviceName": request.root_device,
        "Ebs": {
            "VolumeSize": request.spec.disk_gib,
            "VolumeType": "gp3",
            "Encrypted": True,
            "DeleteOnTermination": True,
        },
    }
    if request.root_device == request.target.root_device:
        return [root]
    # EC2 joins the template's devices and these by their names: what the template calls its root
    # would be a second, empty disk of an image that calls it otherwise
    return [root, {"DeviceName": request.target.root_device, "NoDevice": ""}]


def _override(part: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = part.get("LaunchTemplateAndOverrides", {}).get("Overrides", {})
    return answer


def _zone(part: dict[str, Any], request: LaunchRequest) -> str:
    """Return the zone; where EC2 names the subnet alone, its zone, or else the subnet."""
    override = _override(part)
    zone = part.get("AvailabilityZone") or override.get("AvailabilityZone")
    subnet = part.get("SubnetId") or override.get("SubnetId", "")
    return str(zone or request.zones.get(subnet, subnet))


def _capacity_error(error: dict[str, Any], request: LaunchRequest) -> CapacityError:
    return CapacityError(
        code=error.get("ErrorCode", ""),
        message=error.get("ErrorMessage", ""),
        instance_type=_override(error).get("InstanceType", ""),
        availability_zone=_zone(error, request),
        capacity=request.capacity,
    )
