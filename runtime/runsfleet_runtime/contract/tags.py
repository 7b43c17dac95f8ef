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
    KEEP = "runs-fleet:keep"  # set by an operator: no sweep touches what carries it
    CONDEMNED = "runs-fleet:condemned-at"  # epoch seconds; a sweep ends it in its next pass


MANAGED_VALUE = "true"

RUNNER_NAME_PREFIX = "runsfleet-"
"""Beginning of the names that runners of ours have at GitHub; the id of the instance follows."""


class InstanceParameterTag(StrEnum):
    """Tags on SSM parameters that hold a runner's configuration."""

    INSTANCE_KEY = "runs-fleet:instance-key"  # compared with ${aws:userid} by IAM
