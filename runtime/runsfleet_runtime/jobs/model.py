"""States of a job and the only moves between them.

::

    (none) ──claim──> claimed ──launch──> launched ──start──> running ──end──> completed
      │               │ ^ │ ^                │                   │                │
      │               │ │ │ └─claim──────────┼───────────────────┼────────────────┼─ (expired lease)
      │               │ │ └─expire─> expired <──── give up ──────┴────────────────┤
      │               │ │                    │                   │                │
      │            release                   │                   │                │
      │               v claim                │                   │                │
      └──wait──────> queued <────────────────┴──── redispatch ───┴────────────────┘

- *redispatch* is one path for all causes (``redispatch.py``), also from a claim that ended long
  ago; *give up* is its end, once budget or time is spent, and may start from any state but expired.
- *wait*: there is no free slot under a cap. A waiting job has the state of one that was released.
- *cancel* closes (as completed) a job that is queued, claimed or launched, as it ended at GitHub.
- A completed job that no instance served is claimed once more when GitHub queues it anew.

Every move is one conditional write (``dynamodb.py``) that names the states it may start from, so
two workers that disagree cannot both succeed. A job holds a slot (where runners are capped) from
its claim until it leaves claimed, launched or running; each move changes both in one transaction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    WAIT = "wait"
    LAUNCH = "launch"
    RELEASE = "release"
    EXPIRE = "expire"
    RENEW = "renew"
    START = "start"
    END = "end"
    REDISPATCH = "redispatch"
    RESEND = "resend"
    GIVE_UP = "give_up"
    CANCEL = "cancel"


TRANSITIONS: dict[Move, tuple[frozenset[JobStatus], JobStatus]] = {
    # claim also takes a CLAIMED job whose lease ended, a COMPLETED one that no instance served and
    # that GitHub queues anew, and a job without a record
    Move.CLAIM: (frozenset({JobStatus.QUEUED}), JobStatus.CLAIMED),
    # what may be claimed may wait
    Move.WAIT: (frozenset({JobStatus.QUEUED}), JobStatus.QUEUED),
    Move.LAUNCH: (frozenset({JobStatus.CLAIMED}), JobStatus.LAUNCHED),
    Move.RELEASE: (frozenset({JobStatus.CLAIMED}), JobStatus.QUEUED),
    Move.EXPIRE: (frozenset({JobStatus.CLAIMED}), JobStatus.EXPIRED),
    Move.RENEW: (frozenset({JobStatus.LAUNCHED}), JobStatus.LAUNCHED),  # once for each dispatch
    Move.START: (frozenset({JobStatus.LAUNCHED}), JobStatus.RUNNING),
    Move.END: (frozenset({JobStatus.LAUNCHED, JobStatus.RUNNING}), JobStatus.COMPLETED),
    # a claimed job only once its claim ended; an expired one only by an operator
    Move.REDISPATCH: (frozenset(JobStatus) - {JobStatus.QUEUED}, JobStatus.QUEUED),
    Move.RESEND: (frozenset({JobStatus.QUEUED}), JobStatus.QUEUED),
    Move.GIVE_UP: (frozenset(JobStatus) - {JobStatus.EXPIRED}, JobStatus.EXPIRED),
    Move.CANCEL: (
        frozenset({JobStatus.QUEUED, JobStatus.CLAIMED, JobStatus.LAUNCHED}),
        JobStatus.COMPLETED,
    ),
}
"""Each move: the states that it may start from, and the one that it leads to."""

HOLDS_SLOT = frozenset({JobStatus.CLAIMED, JobStatus.LAUNCHED, JobStatus.RUNNING})
"""States in which a job counts towards the caps on runners."""

TERMINAL = frozenset({JobStatus.COMPLETED, JobStatus.EXPIRED})


class Cause(StrEnum):
    """Why a job is dispatched again; all share one budget, since each costs an instance."""

    INTERRUPTED = "interrupted"  # EC2 took, or announced to take, its instance
    BOOTSTRAP_FAILED = "bootstrap_failed"  # its instance never listened for jobs
    UNCONFIRMED = "unconfirmed"  # its instance never reported a start
    STILL_QUEUED = "still_queued"  # GitHub has it queued although its instance ended or is busy
    INSTANCE_GONE = "instance_gone"  # its instance ended without a word
    OPERATOR = "operator"


class Rerun(StrEnum):
    """State of the re-run of an interrupted job at GitHub."""

    PENDING = "pending"  # the job had started; its end at GitHub is awaited
    REQUESTED = "requested"  # GitHub was asked, or is just being asked
    DONE = "done"  # GitHub took it, or somebody had re-run it
    GIVEN_UP = "given_up"  # it ended otherwise, or too late


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """A job's record as it was read; what is done to it names what was seen here.

    Attributes:
        job: The message that dispatched it.
        status: Its state.
        updated_at: Epoch seconds of the last write.
        claim_expires_at: Epoch seconds; 0 when it was never claimed.
        not_before: Epoch seconds before which it must not be launched; 0 means at once.
        deadline: Epoch seconds after which it is not worth launching for; 0 when unknown.
        instance_id: Its instance; empty when it has none.
        instance_type: Type of the instance.
        availability_zone: Zone of the instance.
        capacity_type: ``spot`` or ``on-demand``; empty when it has no instance.
        runner_name: Its runner's name at GitHub; empty when it has none.
        launched_at: Epoch seconds; 0 when it was not.
        started_at: Epoch seconds of the instance's report; 0 when there was none.
        completed_at: Epoch seconds; 0 when it is not closed.
        outcome: How its instance ended; empty when it did not.
        interrupted_at: Epoch seconds at which EC2 announced, or made, an end; 0 when it did not.
        rerun: State of its re-run; ``None`` when none is needed.
        may_rerun: Whether it may be re-run at all; its label may forbid that by ``retry=false``.
        has_slot: Whether it counts towards the caps on runners.
    """

    job: JobMessage
    status: JobStatus
    updated_at: float = 0.0
    claim_expires_at: float = 0.0
    not_before: float = 0.0
    deadline: float = 0.0
    instance_id: str = ""
    instance_type: str = ""
    availability_zone: str = ""
    capacity_type: str = ""
    runner_name: str = ""
    launched_at: float = 0.0
    started_at: float = 0.0
    completed_at: float = 0.0
    outcome: str = ""
    interrupted_at: float = 0.0
    rerun: Rerun | None = None
    may_rerun: bool = True
    has_slot: bool = False

    @property
    def pending(self) -> JobMessage:
        """The message that a queued job waits for.

        Dispatch hands a job back with the record as its own message knew it, so that this message
        can still claim it should the next one not be sent. Who dispatches a job again has no such
        message: the record then is the new message's already, and names no claim.
        """
        if self.claim_expires_at:
            return self.job.again(not_before=self.not_before)
        return replace(self.job, not_before=self.not_before)


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


@dataclass(frozen=True, slots=True)
class NoSlot:
    """The job may be launched, but not before another runner of this capped scope ends."""

    scope: str


ClaimResult = Claimed | Settled | HeldByOther | ClaimUnknown | NoSlot


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
    platform: str
    disk_gib: int
    is_private: bool = False
    may_rerun: bool = True
