"""What the agent decides: when to stop a runner, and what its end is called. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from runsfleet_runtime.contract.messages import ReportStatus

LINGER_SECONDS = 300.0
"""A runner whose job is over may take this long to leave: it uploads the job's logs meanwhile."""


class StopReason(StrEnum):
    """Why the agent stopped a runner that had not ended by itself."""

    INTERRUPTED = "interrupted"  # somebody stops the instance or the agent
    TIMEOUT = "timeout"  # the job ran longer than it may
    IDLE = "idle"  # no job came
    LINGERING = "lingering"  # the job is over but the runner does not leave


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a runner may take.

    Attributes:
        max_runtime: Seconds that a job may run.
        idle_timeout: Seconds that a runner may wait for its job, counted from its start.
        linger: Seconds that a runner may go on after its job.
    """

    max_runtime: float
    idle_timeout: float
    linger: float = LINGER_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is known of a runner at one moment.

    Attributes:
        running_for: Seconds since the runner was started.
        listening: Whether it said that it listens for jobs.
        job_for: Seconds since its job started; ``None`` when none did.
        completed_for: Seconds since its job was over; ``None`` when it is not.
        interrupted: Whether the agent was told to stop.
    """

    running_for: float
    listening: bool = False
    job_for: float | None = None
    completed_for: float | None = None
    interrupted: bool = False


def stop_reason(seen: Seen, limits: Limits) -> StopReason | None:
    """Decide whether a runner that still runs has to be stopped.

    Args:
        seen: The runner now.
        limits: What it may take.

    Returns:
        The reason, or ``None`` to let it go on.

    Example:
        >>> stop_reason(Seen(running_for=601), Limits(max_runtime=60, idle_timeout=600))
        <StopReason.IDLE: 'idle'>
    """
    if seen.interrupted:
        return StopReason.INTERRUPTED
    if seen.completed_for is not None:
        return StopReason.LINGERING if seen.completed_for >= limits.linger else None
    if seen.job_for is not None:
        return StopReason.TIMEOUT if seen.job_for >= limits.max_runtime else None
    return StopReason.IDLE if seen.running_for >= limits.idle_timeout else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What is known of a runner that has ended.

    Attributes:
        listened: Whether it ever listened for jobs.
        job_started: Whether the hook saw a job start.
        job_completed: Whether the hook saw that job end.
        stopped: Why the agent stopped it; ``None`` when it ended by itself.
        completed_before_stop: Whether the job was over when the agent stopped the runner. A runner
            that is stopped cancels its job and calls the hook for that too, which is no success.
    """

    listened: bool = False
    job_started: bool = False
    job_completed: bool = False
    stopped: StopReason | None = None
    completed_before_stop: bool = False


def ending(ended: Ended) -> ReportStatus:
    """Name the end of a runner; the table is in ``docs/agent.md``.

    A job that was run to its end is a success of ours, whatever the workflow made of it.

    Example:
        >>> ending(Ended(listened=True, job_started=True, job_completed=True))
        <ReportStatus.SUCCESS: 'success'>
    """
    if ended.job_completed and (ended.stopped is None or ended.completed_before_stop):
        return ReportStatus.SUCCESS
    if ended.stopped is StopReason.INTERRUPTED:
        return ReportStatus.INTERRUPTED
    if ended.stopped is StopReason.TIMEOUT:
        return ReportStatus.TIMEOUT
    if ended.job_started:
        # a job that came in the moment of an idle runner's stop was cut off, it did not fail
        idle = ended.stopped is StopReason.IDLE
        return ReportStatus.INTERRUPTED if idle else ReportStatus.FAILURE
    return ReportStatus.UNUSED if ended.listened else ReportStatus.BOOTSTRAP_FAILED
