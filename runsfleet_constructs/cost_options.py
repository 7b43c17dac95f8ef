"""The daily cost report: whose days, who is told, and what GitHub charges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import aws_cdk as cdk
from aws_cdk import aws_sns as sns

from runsfleet_constructs._checks import Findings
from runsfleet_runtime.contract.environment import HousekeepingEnvironment


@dataclass(frozen=True, kw_only=True)
class CostOptions:
    """What the daily cost report is configured with.

    Attributes:
        zone: Time zone of its days, and of nine o'clock, when it is written; default ``UTC``.
        topic: SNS topic that is told the sum; by default nobody is.
        self_hosted_usd_per_minute: What GitHub charges for minutes on runners of one's own;
            default 0.

    Raises:
        ValueError: With all that is wrong.

    Example:
        >>> CostOptions(zone="Europe/Berlin").time_zone.timezone_name
        'Europe/Berlin'
    """

    zone: str = HousekeepingEnvironment.cost_zone
    topic: sns.ITopic | None = None
    self_hosted_usd_per_minute: float = 0.0

    def __post_init__(self) -> None:
        """Check the options as soon as they are written."""
        findings = Findings()
        if not is_zone(self.zone):
            findings.add(
                f"zone must be a time zone like Europe/Berlin, got {self.zone!r}; "
                "see the IANA time zone database"
            )
        findings.between(
            "self_hosted_usd_per_minute", self.self_hosted_usd_per_minute, 0, 1, "it is in USD"
        )
        findings.raise_all()

    @property
    def time_zone(self) -> cdk.TimeZone:
        """The zone, as EventBridge Scheduler takes it."""
        return cdk.TimeZone.of(self.zone)

    def environment(self) -> dict[str, Any]:
        """Return the fields that tell the runtime of the options."""
        return {
            "cost_zone": self.zone,
            "cost_topic_arn": None if self.topic is None else self.topic.topic_arn,
            "self_hosted_usd_per_minute": self.self_hosted_usd_per_minute,
        }


def is_zone(name: str) -> bool:
    """Tell whether there is a time zone of this name.

    Example:
        >>> is_zone("Europe/Berlin"), is_zone("Berlin")
        (True, False)
    """
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a folder of zones is an OSError
        return False
    return True
