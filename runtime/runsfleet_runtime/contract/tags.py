"""EC2 tag names: how everything that the fleet launches is recognised again."""

from __future__ import annotations

from enum import StrEnum


class Tag(StrEnum):
    """Tags on each instance, volume and launch template of a fleet."""

    MANAGED = "runs-fleet:managed"  # "true"; destructive calls are conditioned on it
    FLEET = (
        "runs-fleet:fleet"  # name of the fleet: two fleets of one account never touch each other
    )
    POOL = "runs-fleet:pool"
    NAME = "Name"


MANAGED_VALUE = "true"


class InstanceParameterTag(StrEnum):
    """Tags on SSM parameters that hold a runner's configuration."""

    INSTANCE_KEY = "runs-fleet:instance-key"  # compared with ${aws:userid} by IAM
