from __future__ import annotations

import pytest

from runsfleet_runtime.agent.lifecycle import (
    Ended,
    Limits,
    Seen,
    StopReason,
    ending,
    explain,
    stop_grace,
    stop_reason,
)
from runsfleet_runtime.contract.messages import ReportStatus

LIMITS = Limits(max_runtime=3600, idle_timeout=600, linger=300)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (Seen(running_for=599), None),
        (Seen(running_for=600), StopReason.IDLE),
        (Seen(running_for=600, listening=True), StopReason.IDLE),
        (Seen(running_for=5000, job_for=10), None),
        (Seen(running_for=5000, job_for=3599.9), None),
        (Seen(running_for=5000, job_for=3600), StopReason.TIMEOUT),
        (Seen(running_for=5000, job_for=4000, completed_for=299), None),
        (Seen(running_for=5000, job_for=4000, completed_for=300), StopReason.LINGERING),
        (Seen(running_for=1, free_disk=500_000_000), None),
        (Seen(running_for=1, free_disk=499_999_999), StopReason.DISK),
        (Seen(running_for=5000, job_for=10, free_disk=0), StopReason.DISK),
        (Seen(running_for=5000, job_for=10, completed_for=1, free_disk=0), None),
        (Seen(running_for=5000, job_for=10, free_disk=0, interrupted=True), StopReason.INTERRUPTED),
        (Seen(running_for=1, interrupted=True), StopReason.INTERRUPTED),
        (Seen(running_for=1, job_for=0, interrupted=True), StopReason.INTERRUPTED),
    ],
)
def test_a_runner_is_stopped_at_its_limits(seen: Seen, expected: StopReason | None) -> None:
    """Each limit stops a runner when it is reached, and not before; a request always does."""
    assert stop_reason(seen, LIMITS) is expected


@pytest.mark.parametrize(
    ("ended", "expected"),
    [
        (Ended(), ReportStatus.BOOTSTRAP_FAILED),
        (Ended(listened=True), ReportStatus.UNUSED),
        (Ended(listened=True, stopped=StopReason.IDLE), ReportStatus.UNUSED),
        (Ended(stopped=StopReason.IDLE), ReportStatus.BOOTSTRAP_FAILED),
        (Ended(listened=True, job_started=True), ReportStatus.FAILURE),
        (Ended(listened=True, job_started=True, job_completed=True), ReportStatus.SUCCESS),
        (Ended(job_started=True, job_completed=True), ReportStatus.SUCCESS),
        (Ended(stopped=StopReason.INTERRUPTED), ReportStatus.INTERRUPTED),
        (Ended(listened=True, stopped=StopReason.INTERRUPTED), ReportStatus.INTERRUPTED),
        (Ended(job_started=True, stopped=StopReason.INTERRUPTED), ReportStatus.INTERRUPTED),
        (Ended(job_started=True, stopped=StopReason.TIMEOUT), ReportStatus.TIMEOUT),
        (Ended(job_started=True, stopped=StopReason.DISK), ReportStatus.FAILURE),
        (Ended(listened=True, stopped=StopReason.DISK), ReportStatus.UNUSED),
        (Ended(stopped=StopReason.DISK), ReportStatus.BOOTSTRAP_FAILED),
    ],
)
def test_an_ending_has_one_name(ended: Ended, expected: ReportStatus) -> None:
    """What the hooks saw, and why the runner was stopped, name the ending."""
    assert ending(ended) is expected


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (StopReason.TIMEOUT, ReportStatus.TIMEOUT),
        (StopReason.DISK, ReportStatus.FAILURE),
        (StopReason.INTERRUPTED, ReportStatus.INTERRUPTED),
        (StopReason.IDLE, ReportStatus.INTERRUPTED),
    ],
)
def test_a_job_that_our_stop_cancelled_is_no_success(
    reason: StopReason, expected: ReportStatus
) -> None:
    """The completed-hook of a job that the stop itself cancelled does not make it a success."""
    cancelled = Ended(listened=True, job_started=True, job_completed=True, stopped=reason)
    assert ending(cancelled) is expected


@pytest.mark.parametrize("reason", list(StopReason))
def test_a_job_that_was_over_before_the_stop_is_a_success(reason: StopReason) -> None:
    """A stop that comes after the job's end takes nothing away from it."""
    over = Ended(
        listened=True,
        job_started=True,
        job_completed=True,
        stopped=reason,
        completed_before_stop=True,
    )
    assert ending(over) is ReportStatus.SUCCESS


@pytest.mark.parametrize(
    ("stop_by", "longest", "expected"),
    [
        (None, 90, 1090),
        (1120, 90, 1090),
        (1100, 90, 1075),
        (1030, 90, 1005),
        (1010, 90, 1002),
        (900, 90, 1002),
        (900, 0.5, 1000.5),
    ],
)
def test_a_runner_has_until_the_notice_leaves_time_for_the_rest(
    stop_by: float | None, longest: float, expected: float
) -> None:
    """90 s, or what a notice leaves when 25 s are kept for the report and the end."""
    assert stop_grace(asked_at=1000, stop_by=stop_by, longest=longest) == expected


@pytest.mark.parametrize("reason", list(StopReason))
def test_every_stop_is_explained(reason: StopReason) -> None:
    """Each reason has words for people, with the value that decided."""
    text = explain(reason, Seen(running_for=1, free_disk=7), LIMITS)
    values = {
        StopReason.TIMEOUT: "3600",
        StopReason.DISK: "7 bytes",
        StopReason.IDLE: "600",
        StopReason.LINGERING: "300",
        StopReason.INTERRUPTED: "told to stop",
    }
    assert values[reason] in text
