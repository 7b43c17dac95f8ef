"""What is known of a fleet's health, and the words for it.

Pure. It is shown to the whole internet: it holds counts, times and names of ours, and never an
account's id, an ARN, a repository, an offering or what a failed call said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

SWEEPS_STAND_STILL_SECONDS: Final = 3600.0
"""Some sweep is due every few minutes; when none ran for so long, none is carried out at all."""

_FAILED: Final = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDepth:
    """Messages of a queue; SQS counts approximately.

    Attributes:
        waiting: To be taken, those that wait for their time included.
        in_flight: Taken and not done with.
    """

    waiting: int
    in_flight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRun:
    """The last run of a sweep.

    Attributes:
        task: Name of the sweep.
        ran_at: Epoch seconds.
        outcome: ``succeeded`` or ``failed``.
    """

    task: str
    ran_at: float
    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What was read; ``None`` is what could not be.

    Attributes:
        jobs: The jobs queue.
        dead_jobs: Messages in its dead-letter queue.
        open_circuits: Offerings that are left out now.
        sweeps: The last run of each sweep that ever ran.
    """

    jobs: QueueDepth | None
    dead_jobs: int | None
    open_circuits: int | None
    sweeps: Sequence[LastRun] | None


def reasons(findings: Findings, *, now: float) -> list[str]:
    """Say why a fleet is not well; empty when it is.

    Args:
        findings: What was read.
        now: Epoch seconds.

    Example:
        >>> known = Findings(
        ...     jobs=QueueDepth(waiting=0, in_flight=0), dead_jobs=2, open_circuits=0, sweeps=[]
        ... )
        >>> reasons(known, now=0.0)
        ['jobs were given up by dispatch: see the dead-letter queue']
    """
    found = []
    unknown = {
        "queue": findings.jobs,
        "dead letters": findings.dead_jobs,
        "circuits": findings.open_circuits,
        "sweeps": findings.sweeps,
    }
    found += [f"not known: {name}" for name, value in unknown.items() if value is None]
    if findings.dead_jobs:
        found.append("jobs were given up by dispatch: see the dead-letter queue")
    sweeps = findings.sweeps or ()
    failed = sorted(run.task for run in sweeps if run.outcome == _FAILED)
    if failed:
        found.append(f"sweeps failed: {', '.join(failed)}")
    if sweeps and now - max(run.ran_at for run in sweeps) > SWEEPS_STAND_STILL_SECONDS:
        found.append("no sweep ran for an hour")
    return found


def to_document(
    findings: Findings, *, fleet: str, region: str, version: str, now: float
) -> dict[str, Any]:
    """Return what is answered.

    Args:
        findings: What was read.
        fleet: Name of the fleet.
        region: Its region.
        version: Version of the deployed code.
        now: Epoch seconds.
    """
    why = reasons(findings, now=now)
    return {
        "status": "degraded" if why else "ok",
        "reasons": why,
        "fleet": fleet,
        "region": region,
        "version": version,
        "at": _moment(now),
        "jobs": _of_jobs(findings),
        "open_circuits": findings.open_circuits,
        "sweeps": None
        if findings.sweeps is None
        else {
            run.task: {"ran_at": _moment(run.ran_at), "outcome": run.outcome}
            for run in sorted(findings.sweeps, key=lambda run: run.task)
        },
    }


def _of_jobs(findings: Findings) -> Mapping[str, int | None]:
    depth = findings.jobs
    return {
        "waiting": None if depth is None else depth.waiting,
        "in_flight": None if depth is None else depth.in_flight,
        "dead_letters": findings.dead_jobs,
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
