"""States of a job and the only moves between them.

::

    (none) ──claim──> claimed ──launch──> launched ──start──> running ──end──> completed
                      │   ^                  │                   │
                      │   └────claim─────────┼───────────────────┼── (expired lease, or queued)
                      ├─release─> queued <───┴─requeue, rescue───┘
                      └─expire──> expired

Every move is one conditional write (``dynamodb.py``) that names the states it may start from, so
two workers that disagree cannot both succeed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from runsfleet_runtime.contract.messages import JobMessage


class JobStatus(StrEnum):
    """State of a job's record."""

    QUEUED = "queued"  # handed back: whoever gets its message may claim it
    CLAIMED = "claimed"  # one worker launches for it, until its lease ends
    LAUNCHED = "launched"  # an instance has its configuration
    RUNNING = "running"  # the runner reported its start
    COMPLETED = "completed"  # its instance reported an ending
    EXPIRED = "expired"  # given up, with the reason in its record


class Move(StrEnum):
    """What may happen to a job."""

    CLAIM = "claim"
    LAUNCH = "launch"
    RELEASE = "release"
    EXPIRE = "expire"
    RENEW = "renew"
    START = "start"
    END = "end"
    REQUEUE = "requeue"
    RESCUE = "rescue"


TRANSITIONS: dict[Move, tuple[frozenset[JobStatus], JobStatus]] = {
    # claim also takes a CLAIMED job whose lease ended, a COMPLETED one that no instance served and
    # that GitHub queues anew, and a job without a record
    Move.CLAIM: (frozenset({JobStatus.QUEUED}), JobStatus.CLAIMED),
    Move.LAUNCH: (frozenset({JobStatus.CLAIMED}), JobStatus.LAUNCHED),
    Move.RELEASE: (frozenset({JobStatus.CLAIMED}), JobStatus.QUEUED),
    Move.EXPIRE: (frozenset({JobStatus.CLAIMED}), JobStatus.EXPIRED),
    Move.RENEW: (frozenset({JobStatus.LAUNCHED}), JobStatus.LAUNCHED),  # once for each dispatch
    Move.START: (frozenset({JobStatus.LAUNCHED}), JobStatus.RUNNING),
    Move.END: (frozenset({JobStatus.LAUNCHED, JobStatus.RUNNING}), JobStatus.COMPLETED),
    Move.REQUEUE: (frozenset({JobStatus.LAUNCHED, JobStatus.RUNNING}), JobStatus.QUEUED),
    # its runner serves, or served, another job of the same run whose own runner was lost
    Move.RESCUE: (
        frozenset({JobStatus.LAUNCHED, JobStatus.RUNNING, JobStatus.COMPLETED}),
        JobStatus.QUEUED,
    ),
}
"""Each move: the states that it may start from, and the one that it leads to."""

TERMINAL = frozenset({JobStatus.COMPLETED, JobStatus.EXPIRED})


@dataclass(frozen=True, slots=True)
class Claimed:
    """This worker holds the job until the lease ends."""

    job: JobMessage
    claim_id: str


@dataclass(frozen=True, slots=True)
class Settled:
    """Somebody launched, finished or gave up the job already: its message is done with."""

    status: JobStatus


@dataclass(frozen=True, slots=True)
class HeldByOther:
    """Another worker holds a fresh claim; this message may be the only copy, so it must stay."""

    until: float


@dataclass(frozen=True, slots=True)
class ClaimUnknown:
    """The table did not answer: nothing may be launched and the message must come back."""

    error: str


ClaimResult = Claimed | Settled | HeldByOther | ClaimUnknown


def judge_refused_claim(
    job: JobMessage, *, status: JobStatus, recorded_dispatch: int, lease_ends: float
) -> ClaimResult:
    """Say what it means that the table refused a claim.

    Args:
        job: The message whose claim was refused.
        status: The status that the record had.
        recorded_dispatch: The dispatch number that the record had.
        lease_ends: Epoch seconds at which the recorded claim ends; 0 when there is none.

    Returns:
        ``HeldByOther`` while another worker holds this very dispatch, else ``Settled``: a record
        with a higher dispatch number means that a later message of the job is under way.

    Example:
        >>> job = JobMessage(
        ...     job_id=1, run_id=1, run_attempt=1, repository="o/r", labels=(), queued_at=0
        ... )
        >>> judge_refused_claim(job, status=JobStatus.CLAIMED, recorded_dispatch=0, lease_ends=9.0)
        HeldByOther(until=9.0)
    """
    if status is JobStatus.CLAIMED and recorded_dispatch <= job.dispatch:
        return HeldByOther(until=lease_ends)
    return Settled(status)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A claimed job and the instance that was launched and registered for it."""

    job: JobMessage
    claim_id: str
    instance_id: str
    instance_type: str
    availability_zone: str
    capacity_type: str
    runner_name: str
    pool: str | None
