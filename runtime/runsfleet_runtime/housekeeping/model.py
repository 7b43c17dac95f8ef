"""What a sweep decides and what it reports.

A run whose reads fail has *failed*; it never looks like one that found nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from runsfleet_runtime.contract.messages import HousekeepingTask


class SweepOutcome(StrEnum):
    """How a run ended."""

    SUCCEEDED = "succeeded"  # also when there was nothing to do
    FAILED = "failed"  # it could not read, or each of its actions failed
    SKIPPED = "skipped"  # another run of the task is under way


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done with something that was selected.

    Attributes:
        action: What to do, in a word of the task's own; ``None`` leaves it alone.
        reason: Why, for people. It is counted, so it holds no id and no number.
    """

    action: str | None
    reason: str

    @property
    def is_spared(self) -> bool:
        """Whether it is left alone."""
        return self.action is None

    def __str__(self) -> str:
        return f"{self.action or 'spared'}: {self.reason}"


def spare(reason: str) -> Verdict:
    """Return the verdict that leaves something alone.

    Example:
        >>> str(spare("it has a job"))
        'spared: it has a job'
    """
    return Verdict(None, reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a task.

    Attributes:
        now: Epoch seconds of its beginning.
        deadline: Epoch seconds by which it has to end.
        state: What the task remembered last time, as JSON knows it. What the task leaves in here
            is remembered for the next time, also when this run stops early or fails.
    """

    now: float
    deadline: float
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReport:
    """What a run did.

    Attributes:
        task: The task.
        selected: How many were looked at.
        acted: On how many it acted.
        spared: How many it left alone.
        failures: For how many the re-reading or the action failed.
        verdicts: How often each verdict was given.
        failed: The first of those that failed, each with its error.
        is_unfinished: Whether it stopped early, for want of time or at the task's limit.
        error: Why nothing could be read; empty when that went well.
        is_skipped: Whether another run was under way.
    """

    task: HousekeepingTask
    selected: int = 0
    acted: int = 0
    spared: int = 0
    failures: int = 0
    verdicts: Mapping[str, int] = field(default_factory=dict)
    failed: tuple[str, ...] = ()
    is_unfinished: bool = False
    error: str = ""
    is_skipped: bool = False

    @property
    def outcome(self) -> SweepOutcome:
        """How the run ended."""
        if self.is_skipped:
            return SweepOutcome.SKIPPED
        has_failed = bool(self.error) or (self.failures > 0 and not self.acted)
        return SweepOutcome.FAILED if has_failed else SweepOutcome.SUCCEEDED
