"""EC2: whether an instance is this fleet's, and ending one.

Gotcha: a terminated instance is described, with its tags, for about an hour; then EC2 does not
know it any more.
"""

from __future__ import annotations

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.contract.tags import MANAGED_VALUE, Tag
from runsfleet_runtime.interruptions.ports import Instance, InstanceUnknownError
from runsfleet_runtime.telemetry.log import get_logger

log = get_logger("events.ec2")


class Ec2Instances:
    """Adapter of :class:`~runsfleet_runtime.interruptions.ports.KnowsInstances`.

    Args:
        client: An EC2 client.
        fleet: Name of the fleet; only instances with its tag are ours.
    """

    def __init__(self, client: Any, *, fleet: str) -> None:
        self._client = client
        self._fleet = fleet

    def find(self, instance_id: str) -> Instance | None:
        """Find an instance; see :class:`~runsfleet_runtime.interruptions.ports.KnowsInstances`."""
        try:
            # by a filter: an id that EC2 does not know is no error then
            answer = self._client.describe_instances(
                Filters=[
                    {"Name": "instance-id", "Values": [instance_id]},
                    {"Name": f"tag:{Tag.FLEET}", "Values": [self._fleet]},
                    {"Name": f"tag:{Tag.MANAGED}", "Values": [MANAGED_VALUE]},
                ]
            )
        except (ClientError, BotoCoreError) as error:
            raise InstanceUnknownError(f"{instance_id} could not be asked for: {error}") from error
        for reservation in answer.get("Reservations", []):
            for found in reservation.get("Instances", []):
                if found.get("InstanceId") != instance_id:
                    continue  # not every emulator knows that filter
                return Instance(
                    instance_id=instance_id,
                    instance_type=str(found.get("InstanceType", "")),
                    availability_zone=str(found.get("Placement", {}).get("AvailabilityZone", "")),
                    # absent for on-demand
                    capacity_type=str(found.get("InstanceLifecycle", "on-demand")),
                    state=str(found.get("State", {}).get("Name", "")),
                    launched_at=found["LaunchTime"].timestamp(),
                )
        return None

    def terminate(self, instance_id: str) -> bool:
        """Terminate; see :class:`~runsfleet_runtime.interruptions.ports.KnowsInstances`."""
        try:
            self._client.terminate_instances(InstanceIds=[instance_id])
        except (ClientError, BotoCoreError) as error:
            log.error("not terminated", extra={"instance_id": instance_id, "error": str(error)})
            return False
        return True
