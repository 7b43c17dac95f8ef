"""When an offering of EC2 that fails is left alone, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from aws_cdk import Duration

from runsfleet_constructs._checks import Findings
from runsfleet_runtime.contract.environment import BreakerEnvironment

_DAY = 24 * 3600


@dataclass(frozen=True, kw_only=True)
class BreakerOptions:
    """The circuit breaker of each offering: a capacity type, instance type and zone.

    Attributes:
        threshold: Failures of an offering within the window that open its circuit; default 3.
        window: The window; default 15 minutes.
        cooldown: How long a circuit stays open the first time, until one launch may probe the
            offering; default 30 minutes. It grows when the probe fails.

    Raises:
        ValueError: With all that is wrong, if a value is out of range.

    Example:
        >>> BreakerOptions(threshold=5).window_seconds
        900
    """

    threshold: int = BreakerEnvironment.breaker_threshold
    window: Duration | None = None
    cooldown: Duration | None = None

    def __post_init__(self) -> None:
        """Check the options as soon as they are written."""
        findings = Findings()
        findings.between("threshold", self.threshold, 1, 100, "3 is the default")
        window, cooldown = self._seconds
        # what opened a circuit must still be known while its failures are counted
        findings.between("window", window, 60, _DAY, "give it in seconds; 900 is the default")
        findings.between("cooldown", cooldown, 60, _DAY, "give it in seconds; 1800 is the default")
        findings.raise_all()

    @property
    def window_seconds(self) -> int:
        """The window, in seconds."""
        return self._seconds[0]

    @property
    def cooldown_seconds(self) -> int:
        """The first cool-down, in seconds."""
        return self._seconds[1]

    def environment(self) -> dict[str, Any]:
        """Return the fields that tell the runtime of the options."""
        return {
            "breaker_threshold": self.threshold,
            "breaker_window_seconds": self.window_seconds,
            "breaker_cooldown_seconds": self.cooldown_seconds,
        }

    @cached_property
    def _seconds(self) -> tuple[int, int]:
        # read once: each look into a Duration goes to the CDK's process and back
        default = BreakerEnvironment
        return (
            _in_seconds(self.window, default.breaker_window_seconds),
            _in_seconds(self.cooldown, default.breaker_cooldown_seconds),
        )


def _in_seconds(value: Duration | None, default: int) -> int:
    return default if value is None else int(value.to_seconds())
