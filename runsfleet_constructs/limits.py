"""How long a fleet waits for what, and how much it does at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from aws_cdk import Duration

from runsfleet_constructs._checks import check_between, check_duration
from runsfleet_runtime.contract.environment import WatchdogEnvironment

_DAY = 24 * 3600

# default, least and most, in seconds
_BOUNDS = {
    "max_runtime": (6 * 3600, 60, 5 * _DAY),
    # GitHub hands out an assigned job again after 60 s: a shorter wait would miss it
    "idle_timeout": (600, 60, _DAY),
    "config_timeout": (300, 60, 3600),
    "job_deadline": (_DAY, 300, _DAY),
    "job_retention": (7 * _DAY, _DAY, 3650 * _DAY),
}

_BOOT_SECONDS = WatchdogEnvironment.watchdog_start_seconds + 600
"""Until the agent lives, and then for all tries to have a runner (``agent.package``)."""

_LEAVE_SECONDS = 1800
"""A runner lingers for 300 s at most, is stopped for 90 s, the agent leaves within 100 s; and as
much again and more, for what is slow without being wrong."""


@dataclass(frozen=True, kw_only=True)
class FleetLimits:
    """Limits of a fleet; every one has a default.

    Attributes:
        max_runtime: A job is ended after it; default 6 hours, as on GitHub's own runners. At most
            5 days, GitHub's limit for a job on a self-hosted runner.
        idle_timeout: A runner that got no job ends after it; default 10 minutes.
        config_timeout: An instance that found no configuration ends after it; default 5 minutes.
        job_deadline: A job that waited this long is given up; default 24 hours, when GitHub fails
            it too.
        job_retention: Records of closed jobs are kept this long; default 7 days.
        dispatch_concurrency: Most batches of 10 jobs that are launched at the same time; default 5.
            EC2 refills 5 CreateFleet calls a second, GitHub takes 180 runners a minute, and a
            batch takes about 3 seconds.
        termination_concurrency: Most batches of reports that are handled at the same time;
            default 5.
    """

    max_runtime: Duration | None = None
    idle_timeout: Duration | None = None
    config_timeout: Duration | None = None
    job_deadline: Duration | None = None
    job_retention: Duration | None = None
    dispatch_concurrency: int = 5
    termination_concurrency: int = 5

    def __post_init__(self) -> None:
        """Check the limits as soon as they are written."""
        for name in ("dispatch_concurrency", "termination_concurrency"):
            # Lambda's own bounds for MaximumConcurrency of a queue
            check_between(name, getattr(self, name), 2, 1000, "AWS Lambda allows no other value")
        _ = self._all_seconds

    @property
    def max_runtime_seconds(self) -> int:
        """Longest run of a job, in seconds."""
        return self._all_seconds["max_runtime"]

    @property
    def idle_timeout_seconds(self) -> int:
        """Longest life of a runner without a job, in seconds."""
        return self._all_seconds["idle_timeout"]

    @property
    def config_timeout_seconds(self) -> int:
        """Longest wait of an instance for its configuration, in seconds."""
        return self._all_seconds["config_timeout"]

    @property
    def job_deadline_seconds(self) -> int:
        """Longest wait of a job for its instance, in seconds."""
        return self._all_seconds["job_deadline"]

    @property
    def job_retention_days(self) -> int:
        """Days that closed jobs are kept."""
        return self._all_seconds["job_retention"] // _DAY

    @property
    def lifetime_seconds(self) -> int:
        """Longest life of an instance, in seconds: all that may take its time, one by one."""
        waits = self.config_timeout_seconds + self.idle_timeout_seconds
        return _BOOT_SECONDS + waits + self.max_runtime_seconds + _LEAVE_SECONDS

    @cached_property
    def _all_seconds(self) -> dict[str, int]:
        # read once: each look into a Duration goes to the CDK's process and back
        return {name: self._seconds(name, *bounds) for name, bounds in _BOUNDS.items()}

    def _seconds(self, name: str, default: int, least: int, most: int) -> int:
        value: Duration | None = getattr(self, name)
        if value is None:
            return default
        return check_duration(name, value, least, most, f"leave {name} out for {default} s")
