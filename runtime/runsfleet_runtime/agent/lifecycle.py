"""What the agent decides: when to stop a runner, and what its end is called. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from runsfleet_runtime.agent.vitals import LOW_DISK_BYTES
from runsfleet_runtime.contract.messages import ReportStatus

LINGER_SECONDS = 300.0
"""A runner whose job is over may take this long to leave: it uploads the job's logs meanwhile."""


STOP_GRACE_SECONDS = 90.0
"""From the request to stop until the kill. A spot instance has 120 s from its notice."""

DEPARTURE_SECONDS = 25.0
"""What is kept of a spot notice's time for the report, the logs and the termination."""

SHORTEST_GRACE_SECONDS = 2.0


def stop_grace(
    *, asked_at: float, stop_by: float | None, longest: float = STOP_GRACE_SECONDS
) -> float:
    """Decide when a runner that was asked to stop is killed.

    Args:
        asked_at: When it was asked, on the same clock as ``stop_by``.
        stop_by: When the instance is taken away; ``None`` when nobody said.
        longest: Seconds that it gets at most.

    Returns:
        The time of the kill.

    Example:
        >>> stop_grace(asked_at=0, stop_by=None), stop_grace(asked_at=0, stop_by=100)
        (90.0, 75.0)
    """
    end = asked_at + longest
    if stop_by is None:
        return end
    shortest = asked_at + min(SHORTEST_GRACE_SECONDS, longest)
    return max(min(end, stop_by - DEPARTURE_SECONDS), shortest)


class StopReason(StrEnum):
    """Why the agent stopped a runner that had not ended by itself."""

    INTERRUPTED = "interrupted"  # somebody stops the instance or the agent
    TIMEOUT = "timeout"  # the job ran longer than it may
    DISK = "disk"  # the disk is nearly full
    IDLE = "idle"  # no job came
    LINGERING = "lingering"  # the job is over but the runner does not leave


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a runner may take.

    Attributes:
        max_runtime: Seconds that a job may run.
        idle_timeout: Seconds that a runner may wait for its job, counted from its start.
        linger: Seconds that a runner may go on after its job.
        low_disk: Bytes; with less free disk a runner is stopped.
    """

    max_runtime: float
    idle_timeout: float
    linger: float = LINGER_SECONDS
    low_disk: int = LOW_DISK_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is known of a runner at one moment.

    Attributes:
        running_for: Seconds since the runner was started.
        listening: Whether it said that it listens for jobs.
        job_for: Seconds since its job started; ``None`` when none did.
        completed_for: Seconds since its job was over; ``None`` when it is not.
        interrupted: Whether the agent was told to stop.
        free_disk: Bytes of disk that are free; ``None`` when unknown.
    """

    running_for: float
    listening: bool = False
    job_for: float | None = None
    completed_for: float | None = None
    interrupted: bool = False
    free_disk: int | None = None


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
    if seen.free_disk is not None and seen.free_disk < limits.low_disk:
        return StopReason.DISK
    if seen.job_for is not None:
        return StopReason.TIMEOUT if seen.job_for >= limits.max_runtime else None
    return StopReason.IDLE if seen.running_for >= limits.idle_timeout else None


def explain(reason: StopReason, seen: Seen, limits: Limits) -> str:
    """Say for people why a runner was stopped.

    Example:
        >>> explain(StopReason.IDLE, Seen(running_for=601), Limits(max_runtime=9, idle_timeout=600))
        'no job came within 600 s'
    """
    match reason:
        case StopReason.TIMEOUT:
            return f"the job ran longer than {limits.max_runtime:g} s, its maximum runtime"
        case StopReason.DISK:
            return (
                f"{seen.free_disk} bytes of disk were free, less than {limits.low_disk}; ask for "
                "more by disk= in the label"
            )
        case StopReason.IDLE:
            return f"no job came within {limits.idle_timeout:g} s"
        case StopReason.LINGERING:
            return f"the runner did not leave within {limits.linger:g} s of its job's end"
        case StopReason.INTERRUPTED:
            return "the agent was told to stop"  # the clock knows by whom


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


VERSION_DEPRECATED_EXIT = 7
"""What ``run.sh`` answers when GitHub no longer takes the runner's version (``Constants.cs``)."""


def may_renew(ended: Ended, exit_code: int | None) -> bool:
    """Decide whether another registration could help a runner that has ended.

    It could when the runner left by itself without a job: its registration had expired, was used
    already, or GitHub removed it again. It could not when the runner itself is refused.

    Example:
        >>> may_renew(Ended(), 1), may_renew(Ended(), 7), may_renew(Ended(job_started=True), 0)
        (True, False, False)
    """
    if ended.job_started or ended.stopped is not None:
        return False
    return exit_code != VERSION_DEPRECATED_EXIT


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
