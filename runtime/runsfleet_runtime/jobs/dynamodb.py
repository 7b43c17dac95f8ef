"""The ``jobs`` table: each move of a job is one conditional write.

What is read is in :mod:`.reading.dynamodb`, how a batch is written in :mod:`.writing.dynamodb`.

Gotchas:

- A refused write is compared with what this worker meant to write: its first try may have been
  carried out although its answer was lost.
- Where runners are capped, a move that takes or gives back a slot names whether the record holds
  one. A move that was built for the other case is refused and built anew.
- Conditional writes are local to a region: a job is claimed only in the region that owns it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from runsfleet_runtime.contract.messages import JobEndedMessage, JobMessage, RunnerReport
from runsfleet_runtime.contract.tables import JobAttr
from runsfleet_runtime.jobs.items import Expression, Item, number, record_from_item, text
from runsfleet_runtime.jobs.ledger import InstanceLedger
from runsfleet_runtime.jobs.model import (
    HOLDS_SLOT,
    TRANSITIONS,
    Claimed,
    ClaimResult,
    ClaimUnknown,
    JobRecord,
    JobStatus,
    Launch,
    Move,
    NoSlot,
    Rerun,
    judge_refused_claim,
)
from runsfleet_runtime.jobs.ports import Moved, RecordUnknownError
from runsfleet_runtime.jobs.reading.dynamodb import DynamoDBJobReader
from runsfleet_runtime.jobs.slots import Caps
from runsfleet_runtime.jobs.writing.dynamodb import (
    Failed,
    Full,
    Group,
    Outcome,
    Refused,
    TransactionWriter,
    Written,
)
from runsfleet_runtime.telemetry.log import get_logger

log = get_logger("jobs.dynamodb")

_ENDING_ATTRIBUTES: Final = (
    JobAttr.UNSERVED,
    JobAttr.OUTCOME,
    JobAttr.EXIT_CODE,
    JobAttr.ERROR,
    JobAttr.STARTED_AT,
    JobAttr.COMPLETED_AT,
    JobAttr.EXPIRES_AT,
)
_FORMER_ATTRIBUTES: Final = (
    JobAttr.INSTANCE_ID,
    JobAttr.INSTANCE_TYPE,
    JobAttr.ZONE,
    JobAttr.CAPACITY_TYPE,
    JobAttr.RUNNER_NAME,
    JobAttr.INTERRUPTED_AT,
    JobAttr.INTERRUPTION,
    JobAttr.RERUN,
    JobAttr.RERUN_REASON,
    *_ENDING_ATTRIBUTES,
)
"""What a former dispatch left in a record; a new one begins without it."""
_LOOKS: Final = 5  # at a record that others move at the same moment
_CLAIM_ATTRIBUTES: Final = (JobAttr.CLAIM_ID, JobAttr.CLAIM_EXPIRES_AT)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Move:
    """A move of one job, to be built for a record with or without a slot.

    Attributes:
        job_id: The job.
        make: Makes its expression.
        further: Writes that belong to it.
        takes_slot: Whether the job needs a slot afterwards.
        gives_slot: Whether it needs none afterwards.
        has_slot: Whether its record is thought to hold one.
        repository: Its repository; empty when that is not known before the record was met.
    """

    job_id: int
    make: Callable[[], Expression]
    further: Sequence[Mapping[str, Any]] = ()
    takes_slot: bool = False
    gives_slot: bool = False
    has_slot: bool = False
    repository: str = ""


class DynamoDBJobs:
    """Adapter of ``ClaimsJobs``, ``EndsJobs``, ``HandsJobsBack`` and ``ClosesJobs``.

    Args:
        client: A DynamoDB client.
        table: Physical name of the table.
        lease_seconds: How long a claim holds.
        deadline_seconds: How long after its queueing a job is worth launching for.
        retention_seconds: How long a closed job is kept.
        caps: The caps on runners; ``None`` for none, then nothing of them is written.
        ledger: Makes the writes that record instances; ``None`` records none.
        writer: Writes transactions; by default one of this client and these caps.
    """

    def __init__(
        self,
        client: Any,
        table: str,
        *,
        lease_seconds: float = 90,
        deadline_seconds: float = 24 * 3600,
        retention_seconds: float = 7 * 24 * 3600,
        caps: Caps | None = None,
        ledger: InstanceLedger | None = None,
        writer: TransactionWriter | None = None,
    ) -> None:
        self._table = table
        self._ledger = ledger
        self._lease = lease_seconds
        self._deadline = deadline_seconds
        self._retention = retention_seconds
        self._caps = caps
        self._writer = writer or TransactionWriter(client, caps)
        self._reader = DynamoDBJobReader(client, table)

    # -- dispatch ------------------------------------------------------------------------------

    def claim(
        self, jobs: Sequence[JobMessage], *, claim_ids: Sequence[str], now: float
    ) -> Sequence[ClaimResult]:
        """Claim jobs; see :class:`~runsfleet_runtime.jobs.ports.ClaimsJobs`."""
        pairs = list(zip(jobs, claim_ids, strict=True))

        def move(job: JobMessage, claim_id: str) -> _Move:
            return _Move(
                job_id=job.job_id,
                make=lambda: self._claim(job, claim_id, now),
                # who claims a job that is too old only closes it
                takes_slot=now - job.queued_at <= self._deadline,
                repository=job.repository,
            )

        outcomes = self._write([move(job, claim_id) for job, claim_id in pairs])
        return [
            _claim_result(job, claim_id, outcome)
            for (job, claim_id), outcome in zip(pairs, outcomes, strict=True)
        ]

    def wait(self, jobs: Sequence[JobMessage], *, now: float) -> Sequence[bool]:
        """Record jobs that found no slot; see ``ClaimsJobs``."""

        def make(job: JobMessage) -> Expression:
            sources, target = TRANSITIONS[Move.WAIT]
            expression = Expression()
            expression.set(
                {
                    JobAttr.STATUS: target.value,
                    **self._facts(job, now),
                    JobAttr.NOT_BEFORE: job.not_before,
                    # as if it had been claimed and released
                    JobAttr.CLAIM_EXPIRES_AT: now,
                }
            )
            expression.remove((JobAttr.CLAIM_ID, *_FORMER_ATTRIBUTES))
            expression.require(_is_claimable(expression, sources, job, now))
            return expression

        moves = [
            _Move(
                job_id=job.job_id,
                make=lambda job=job: make(job),  # type: ignore[misc]  # bound in the loop
                gives_slot=True,
                repository=job.repository,
            )
            for job in jobs
        ]
        return [isinstance(outcome, Written) for outcome in self._write(moves)]

    def record_launches(
        self, launches: Sequence[tuple[Launch, Sequence[Mapping[str, Any]]]], *, now: float
    ) -> Sequence[bool | None]:
        """Record launches; see :class:`~runsfleet_runtime.jobs.ports.ClaimsJobs`."""
        moves = [
            _Move(
                job_id=launch.job.job_id,
                make=self._launch(launch, now),
                further=(*further, *self._launched(launch, now)),
            )
            for launch, further in launches
        ]
        outcomes = self._write(moves)
        return [
            _is_recorded(launch, outcome)
            for (launch, _), outcome in zip(launches, outcomes, strict=True)
        ]

    def _launched(self, launch: Launch, now: float) -> tuple[Mapping[str, Any], ...]:
        return () if self._ledger is None else (self._ledger.launched(launch, now=now),)

    def _left(self, instance_id: str, now: float) -> tuple[Mapping[str, Any], ...]:
        if self._ledger is None or not instance_id:
            return ()
        return (self._ledger.left(instance_id, now=now),)

    def _departed(self, observed: JobRecord, now: float) -> tuple[Mapping[str, Any], ...]:
        return self._left(observed.instance_id, now) if observed.status in HOLDS_SLOT else ()

    def release(self, job: JobMessage, claim_id: str, *, not_before: float, now: float) -> bool:
        """Hand a claimed job back; see :class:`~runsfleet_runtime.jobs.ports.ClaimsJobs`."""
        values = {JobAttr.NOT_BEFORE: not_before, JobAttr.UPDATED_AT: now}
        return self._move_claimed(Move.RELEASE, job, claim_id, values)

    def expire(self, job: JobMessage, claim_id: str, *, error: str, now: float) -> bool:
        """Give a claimed job up; see :class:`~runsfleet_runtime.jobs.ports.ClaimsJobs`."""
        return self._move_claimed(Move.EXPIRE, job, claim_id, self._closing(error, now))

    def _move_claimed(
        self, move: Move, job: JobMessage, claim_id: str, values: Mapping[JobAttr, Any]
    ) -> bool:
        where = {JobAttr.CLAIM_ID: claim_id}
        (outcome,) = self._write(
            [
                _Move(
                    job_id=job.job_id,
                    make=lambda: _moved(move, values, where),
                    gives_slot=True,
                    has_slot=True,
                    repository=job.repository,
                )
            ]
        )
        return isinstance(outcome, Written)

    def _facts(self, job: JobMessage, now: float) -> dict[JobAttr, Any]:
        """Return what a message tells of its job."""
        return {
            JobAttr.RUN_ID: job.run_id,
            JobAttr.RUN_ATTEMPT: job.run_attempt,
            JobAttr.REPOSITORY: job.repository,
            JobAttr.LABELS: list(job.labels),
            JobAttr.WORKFLOW: job.workflow_name,
            JobAttr.NAME: job.job_name,
            JobAttr.INSTALLATION_ID: job.installation_id,
            JobAttr.DISPATCH: job.dispatch,
            JobAttr.REQUEUES: job.requeues,
            # never taken back: spot was interrupted once
            JobAttr.ON_DEMAND: 1 if job.on_demand else None,
            JobAttr.QUEUED_AT: job.queued_at,
            JobAttr.DEADLINE: job.queued_at + self._deadline,
            JobAttr.UPDATED_AT: now,
            JobAttr.TRACEPARENT: job.traceparent,
        }

    def _claim(self, job: JobMessage, claim_id: str, now: float) -> Expression:
        sources, target = TRANSITIONS[Move.CLAIM]
        expression = Expression()
        expression.set(
            {
                JobAttr.STATUS: target.value,
                **self._facts(job, now),
                JobAttr.CLAIM_ID: claim_id,
                JobAttr.CLAIM_EXPIRES_AT: now + self._lease,
                JobAttr.CLAIMED_AT: now,
            }
        )
        expression.remove((JobAttr.NOT_BEFORE, *_FORMER_ATTRIBUTES))
        expression.require(_is_claimable(expression, sources, job, now))
        return expression

    def _launch(self, launch: Launch, now: float) -> Callable[[], Expression]:
        values = {
            JobAttr.INSTANCE_ID: launch.instance_id,
            JobAttr.INSTANCE_TYPE: launch.instance_type,
            JobAttr.ZONE: launch.availability_zone,
            JobAttr.CAPACITY_TYPE: launch.capacity_type,
            JobAttr.RUNNER_NAME: launch.runner_name,
            JobAttr.POOL: launch.pool,
            JobAttr.NO_RERUN: None if launch.may_rerun else 1,
            JobAttr.LAUNCHED_AT: now,
            JobAttr.UPDATED_AT: now,
        }
        return lambda: _moved(Move.LAUNCH, values, {JobAttr.CLAIM_ID: launch.claim_id})

    # -- reports -------------------------------------------------------------------------------

    def start(self, reports: Sequence[RunnerReport], *, now: float) -> Sequence[Moved]:
        """Move jobs to running; see :class:`~runsfleet_runtime.jobs.ports.EndsJobs`."""
        values = {JobAttr.STARTED_AT: now, JobAttr.UPDATED_AT: now}
        return self._move_owned(Move.START, [(report, values, ()) for report in reports])

    def renew(self, report: RunnerReport, *, now: float) -> bool | None:
        """Note that a launched job's instance gets another registration; see ``NotesRenewals``."""
        values = {JobAttr.RENEWED: report.dispatch, JobAttr.UPDATED_AT: now}
        (noted,) = self._move_owned(
            Move.RENEW, [(report, values, ())], unless={JobAttr.RENEWED: report.dispatch}
        )
        return None if noted is Moved.UNKNOWN else noted is Moved.DONE

    def end(
        self, reports: Sequence[tuple[RunnerReport, Sequence[Mapping[str, Any]]]], *, now: float
    ) -> Sequence[bool | None]:
        """Close jobs; see :class:`~runsfleet_runtime.jobs.ports.EndsJobs`."""
        moved = self._move_owned(
            Move.END,
            [
                (r, self._ending(r, now), (*further, *self._left(r.instance_id, now)))
                for r, further in reports
            ],
            if_absent=lambda report: _overtaken_start(report, now),
        )
        return [None if m is Moved.UNKNOWN else m is Moved.DONE for m in moved]

    def end_interrupted(
        self, report: RunnerReport, further: Sequence[Mapping[str, Any]], *, now: float
    ) -> bool | None:
        """Close a job that is to be re-run; see ``EndsJobs``."""
        (moved,) = self._move_owned(
            Move.END,
            [(report, self._ending(report, now), (*further, *self._left(report.instance_id, now)))],
            if_absent=lambda report: {
                JobAttr.INTERRUPTED_AT: now,
                JobAttr.INTERRUPTION: "reported by its instance",
                JobAttr.RERUN: Rerun.PENDING.value,
                **_overtaken_start(report, now),
            },
        )
        return None if moved is Moved.UNKNOWN else moved is Moved.DONE

    def _ending(self, report: RunnerReport, now: float) -> dict[JobAttr, Any]:
        return {
            JobAttr.OUTCOME: report.status.value,
            JobAttr.EXIT_CODE: report.exit_code,
            JobAttr.ERROR: report.error or None,
            JobAttr.UNSERVED: None if report.has_served else 1,
            JobAttr.COMPLETED_AT: now,
            JobAttr.UPDATED_AT: now,
            JobAttr.EXPIRES_AT: now + self._retention,
        }

    def read(self, job_id: int) -> JobMessage | None:
        """Read the message that dispatched a job; see ``NotesRenewals``."""
        record = self._reader.get(job_id)
        return record.job if record else None

    def _move_owned(
        self,
        move: Move,
        moves: Sequence[tuple[RunnerReport, Mapping[JobAttr, Any], Sequence[Mapping[str, Any]]]],
        *,
        unless: Mapping[JobAttr, Any] | None = None,
        if_absent: Callable[[RunnerReport], Mapping[JobAttr, Any]] | None = None,
    ) -> list[Moved]:
        """Move jobs that belong to the instances that report; none of another owner's."""
        if len({report.job_id for report, _, _ in moves}) < len(moves):
            # one transaction takes no two writes of one item: two reports of a job go one by one
            return [self._move_owned(move, [single])[0] for single in moves]

        def build(report: RunnerReport, values: Mapping[JobAttr, Any]) -> Expression:
            where = {JobAttr.INSTANCE_ID: report.instance_id, JobAttr.DISPATCH: report.dispatch}
            expression = _moved(move, values, where)
            expression.set_if_absent(if_absent(report) if if_absent else {})
            for attribute, value in (unless or {}).items():
                name = expression.name(attribute)
                other = f"{name} <> {expression.value(value)}"
                expression.require(f"attribute_not_exists({name}) OR {other}")
            return expression

        outcomes = self._write(
            [
                _Move(
                    job_id=report.job_id,
                    make=lambda report=report, values=values: build(report, values),  # type: ignore[misc]  # bound in the loop
                    further=further,
                    gives_slot=move is Move.END,
                )
                for report, values, further in moves
            ]
        )
        return [_of_owner(r, o) for (r, _, _), o in zip(moves, outcomes, strict=True)]

    # -- dispatching again and closing ---------------------------------------------------------

    def hand_back(
        self,
        observed: JobRecord,
        message: JobMessage,
        further: Sequence[Mapping[str, Any]],
        *,
        now: float,
    ) -> JobMessage | None:
        """Make a record claimable by a message; see ``HandsJobsBack``."""
        move = Move.RESEND if observed.status is JobStatus.QUEUED else Move.REDISPATCH
        _, target = TRANSITIONS[move]

        def make() -> Expression:
            expression = Expression()
            expression.set(
                {
                    JobAttr.STATUS: target.value,
                    JobAttr.DISPATCH: message.dispatch,
                    JobAttr.REQUEUES: message.requeues,
                    JobAttr.NOT_BEFORE: message.not_before,
                    JobAttr.ON_DEMAND: 1 if message.on_demand else None,
                    JobAttr.UPDATED_AT: now,
                }
            )
            # its instance stays: by that a repetition is known, and late events find their job
            expression.remove((*_CLAIM_ATTRIBUTES, *_ENDING_ATTRIBUTES))
            expression.require_equal(_seen(observed))
            return expression

        old = self._move_observed(observed, make, (*further, *self._departed(observed, now)))
        if old is None:
            return message
        record = record_from_item(old) if old else None
        if record and _is_handed_back(record, observed, message):
            return record.pending
        return None

    def give_up(
        self,
        observed: JobRecord,
        further: Sequence[Mapping[str, Any]],
        *,
        error: str,
        now: float,
    ) -> bool:
        """Close a record for good; see ``HandsJobsBack``."""
        _, target = TRANSITIONS[Move.GIVE_UP]

        def make() -> Expression:
            expression = Expression()
            expression.set({JobAttr.STATUS: target.value, **self._closing(error, now)})
            # GitHub may announce it anew, but each try of it has cost an instance
            expression.remove((JobAttr.UNSERVED,))
            expression.require_equal(_seen(observed))
            return expression

        old = self._move_observed(observed, make, (*further, *self._departed(observed, now)))
        if old is None:
            return True
        return (
            text(old, JobAttr.STATUS) == target
            and text(old, JobAttr.ERROR) == error
            and int(number(old, JobAttr.DISPATCH)) == observed.job.dispatch
        )

    def cancel(self, ended: JobEndedMessage, *, now: float) -> JobRecord | None:
        """Close a job that ended at GitHub; see ``ClosesJobs``."""
        for _ in range(_LOOKS):
            before = self._reader.get(ended.job_id)
            if before is not None and before.status not in TRANSITIONS[Move.CANCEL][0]:
                return before
            if self._is_cancelled(ended, before, now):
                return before
        raise RecordUnknownError(f"job {ended.job_id}: its record moves on all the time")

    def _is_cancelled(self, ended: JobEndedMessage, before: JobRecord | None, now: float) -> bool:
        """Close the record as it was read; False when it is another by now."""
        seen = before or JobRecord(job=_unseen(ended), status=JobStatus.QUEUED)

        def make() -> Expression:
            expression = Expression()
            expression.set(
                {
                    JobAttr.STATUS: TRANSITIONS[Move.CANCEL][1].value,
                    JobAttr.OUTCOME: "cancelled",
                    **self._closing(f"GitHub says {ended.conclusion} before a runner had it", now),
                }
            )
            if before is not None:
                expression.require_equal(_seen(before))
                return expression
            expression.set(
                {
                    JobAttr.RUN_ID: ended.run_id,
                    JobAttr.RUN_ATTEMPT: ended.run_attempt,
                    JobAttr.REPOSITORY: ended.repository,
                    JobAttr.LABELS: list(ended.labels),
                    JobAttr.INSTALLATION_ID: ended.installation_id,
                    JobAttr.DISPATCH: 0,
                }
            )
            expression.require(f"attribute_not_exists({expression.name(JobAttr.ID)})")
            return expression

        return self._move_observed(seen, make, self._departed(seen, now)) is None

    def _closing(self, error: str, now: float) -> dict[JobAttr, Any]:
        return {
            JobAttr.ERROR: error,
            JobAttr.COMPLETED_AT: now,
            JobAttr.UPDATED_AT: now,
            JobAttr.EXPIRES_AT: now + self._retention,
        }

    def _move_observed(
        self,
        observed: JobRecord,
        make: Callable[[], Expression],
        further: Sequence[Mapping[str, Any]],
    ) -> Item | None:
        """Let a record leave the states that hold a slot.

        Returns nothing when that succeeded, else the item that refused.

        Raises:
            RecordUnknownError: If it is unknown whether it was written.
        """
        (outcome,) = self._write(
            [
                _Move(
                    job_id=observed.job.job_id,
                    make=make,
                    further=further,
                    gives_slot=True,
                    has_slot=observed.has_slot,
                    repository=observed.job.repository,
                )
            ]
        )
        if isinstance(outcome, Written):
            return None
        if isinstance(outcome, Refused):
            return outcome.item
        raise RecordUnknownError(f"job {observed.job.job_id}: its record could not be written")

    # -- writing -------------------------------------------------------------------------------

    def _write(self, moves: Sequence[_Move]) -> list[Outcome]:
        """Write moves; one that met a record with, or without, a slot by surprise is built anew."""
        if not moves:
            return []
        outcomes = self._writer.write([self._group(move) for move in moves])
        if self._caps is None:
            return outcomes
        surprised: dict[int, _Move] = {}
        for index, (move, outcome) in enumerate(zip(moves, outcomes, strict=True)):
            if isinstance(outcome, Refused) and (move.takes_slot or move.gives_slot):
                has_slot = number(outcome.item, JobAttr.SLOT) > 0
                if has_slot is not move.has_slot:
                    repository = text(outcome.item, JobAttr.REPOSITORY) or move.repository
                    surprised[index] = replace(move, has_slot=has_slot, repository=repository)
        if surprised:
            again = self._writer.write([self._group(move) for move in surprised.values()])
            for index, outcome in zip(surprised, again, strict=True):
                outcomes[index] = outcome
        return outcomes

    def _group(self, move: _Move) -> Group:
        """Return the writes of a move, with what it changes of slots."""
        expression = move.make()
        slots = 0
        if self._caps is not None and (move.takes_slot or move.gives_slot):
            slot = expression.name(JobAttr.SLOT)
            expression.require(
                f"attribute_exists({slot})" if move.has_slot else f"attribute_not_exists({slot})"
            )
            if move.takes_slot and not move.has_slot:
                expression.set({JobAttr.SLOT: 1})
                slots = 1
            if move.gives_slot and move.has_slot:
                expression.remove((JobAttr.SLOT,))
                slots = -1
        update = {"Update": expression.request(self._table, move.job_id)}
        return Group([update, *move.further], slots, move.repository)


def _moved(move: Move, values: Mapping[JobAttr, Any], where: Mapping[JobAttr, Any]) -> Expression:
    """Return the update of a move, allowed only from the states of the transition table."""
    sources, target = TRANSITIONS[move]
    expression = Expression()
    expression.set({JobAttr.STATUS: target.value, **values})
    options = ", ".join(expression.value(s.value) for s in sorted(sources))
    expression.require(f"{expression.name(JobAttr.STATUS)} IN ({options})")
    expression.require_equal(where)
    return expression


def _overtaken_start(report: RunnerReport, now: float) -> dict[JobAttr, float]:
    """Return the start that an ending tells of: its own report may come later, and is late then."""
    started = _started_at(report)
    if not report.ran_job or started is None:
        return {}
    return {JobAttr.STARTED_AT: min(started, now)}  # the instance's clock is its own


def _started_at(report: RunnerReport) -> float | None:
    try:
        return datetime.fromisoformat(report.started_at or "").timestamp()
    except ValueError:
        return None


def _is_claimable(
    expression: Expression, sources: frozenset[JobStatus], job: JobMessage, now: float
) -> str:
    """Return the condition under which a job may be claimed by a message."""
    key, status = expression.name(JobAttr.ID), expression.name(JobAttr.STATUS)
    lease, dispatch = expression.name(JobAttr.CLAIM_EXPIRES_AT), expression.name(JobAttr.DISPATCH)
    options = ", ".join(expression.value(s.value) for s in sorted(sources))
    claimed = expression.value(JobStatus.CLAIMED.value)
    return (
        f"attribute_not_exists({key}) OR ({dispatch} <= {expression.value(job.dispatch)} AND "
        f"({status} IN ({options}) OR "
        f"({status} = {claimed} AND {lease} < {expression.value(now)}))) OR "
        # GitHub queued it anew, say once it was approved, after its instance had ended idle
        f"attribute_exists({expression.name(JobAttr.UNSERVED)})"
    )


def _claim_result(job: JobMessage, claim_id: str, outcome: Outcome) -> ClaimResult:
    match outcome:
        case Written():
            return Claimed(job, claim_id)
        case Full(scope):
            return NoSlot(scope)
        case Failed(reason):
            return ClaimUnknown(reason)
        case Refused(item) if text(item, JobAttr.CLAIM_ID) == claim_id:
            return Claimed(job, claim_id)
        case Refused(item) if item:
            return judge_refused_claim(
                job,
                status=JobStatus(text(item, JobAttr.STATUS)),
                recorded_dispatch=int(number(item, JobAttr.DISPATCH)),
                lease_ends=number(item, JobAttr.CLAIM_EXPIRES_AT),
            )
    return ClaimUnknown("the record is empty")


def _is_recorded(launch: Launch, outcome: Outcome) -> bool | None:
    if isinstance(outcome, Written):
        return True
    item: Item = outcome.item if isinstance(outcome, Refused) else {}
    if text(item, JobAttr.INSTANCE_ID) == launch.instance_id:
        return True
    failed = outcome if isinstance(outcome, Failed) else None
    log.warning(
        "launch not recorded",
        extra={
            "job_id": launch.job.job_id,
            "instance_id": launch.instance_id,
            "reason": failed.reason if failed else "the claim was lost",
        },
    )
    return False if failed is None or failed.is_certain else None


def _of_owner(report: RunnerReport, outcome: Outcome) -> Moved:
    """Say what became of a report's move."""
    match outcome:
        case Written():
            return Moved.DONE
        case Refused(item):
            is_owner = (
                text(item, JobAttr.INSTANCE_ID) == report.instance_id
                # its job may have been dispatched again since
                and number(item, JobAttr.DISPATCH) >= report.dispatch
            )
            if not is_owner:
                return Moved.REFUSED
            # only an end that came without a start writes the time that the report itself tells
            told = _started_at(report)
            is_overtaken = told is not None and number(item, JobAttr.STARTED_AT) == told
            return Moved.OVERTAKEN if is_overtaken else Moved.KNOWN
    return Moved.UNKNOWN


def _seen(observed: JobRecord) -> dict[JobAttr, Any]:
    """Return what a record must still be for what was decided about it."""
    seen: dict[JobAttr, Any] = {
        JobAttr.STATUS: observed.status.value,
        JobAttr.DISPATCH: observed.job.dispatch,
        JobAttr.INSTANCE_ID: observed.instance_id,
    }
    if observed.status is JobStatus.CLAIMED:  # another worker may have claimed the same message
        seen[JobAttr.CLAIM_EXPIRES_AT] = observed.claim_expires_at
    return seen


def _is_handed_back(record: JobRecord, observed: JobRecord, message: JobMessage) -> bool:
    """Tell whether an earlier try with the same observed record wrote what is there."""
    return (
        record.status is JobStatus.QUEUED
        and record.instance_id == observed.instance_id
        and (record.job.dispatch, record.job.requeues) == (message.dispatch, message.requeues)
        and not record.claim_expires_at
    )


def _unseen(ended: JobEndedMessage) -> JobMessage:
    """Return what is known of a job that has no record."""
    return JobMessage(
        job_id=ended.job_id,
        run_id=ended.run_id,
        run_attempt=ended.run_attempt,
        repository=ended.repository,
        labels=ended.labels,
        installation_id=ended.installation_id,
        queued_at=0.0,
    )
