from __future__ import annotations

import pytest

from runsfleet_runtime.agent.lifecycle import (
    Ended,
    Limits,
    Seen,
    StopReason,
    ending,
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
    ],
)
def test_an_ending_has_one_name(ended: Ended, expected: ReportStatus) -> None:
    """What the hooks saw, and why the runner was stopped, name the ending."""
    assert ending(ended) is expected


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (StopReason.TIMEOUT, ReportStatus.TIMEOUT),
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
