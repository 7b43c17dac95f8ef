"""The ``jobs`` table: each move of a job is one conditional write.

Gotchas:

- A whole batch is claimed (or recorded) in one transaction. When it is cancelled, the items that
  failed their condition are judged by the item that came back, and the rest are tried one by one.
- botocore repeats a call whose answer was lost. The second try then fails its own condition, so a
  refused write is first compared with what this worker meant to write.
- Conditional writes are local to a region: a job is claimed only in the region that owns it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.contract.messages import JobMessage, RunnerReport
from runsfleet_runtime.contract.tables import JobAttr
from runsfleet_runtime.jobs.model import (
    TRANSITIONS,
    Claimed,
    ClaimResult,
    ClaimUnknown,
    JobStatus,
    Launch,
    Move,
    judge_refused_claim,
)
from runsfleet_runtime.jobs.ports import RecordUnknownError
from runsfleet_runtime.telemetry.log import get_logger

log = get_logger("jobs.dynamodb")

Item = Mapping[str, Any]
T = TypeVar("T")
_REFUSED: Final = "ConditionalCheckFailed"
_INVALID: Final = frozenset({"SerializationException", "ValidationException"})
_CLIENT_ERRORS: Final = range(400, 500)
_INSTANCE_ATTRIBUTES: Final = (
    JobAttr.INSTANCE_ID,
    JobAttr.INSTANCE_TYPE,
    JobAttr.ZONE,
    JobAttr.CAPACITY_TYPE,
    JobAttr.RUNNER_NAME,
    JobAttr.NOT_BEFORE,
)
_ENDING_ATTRIBUTES: Final = (
    JobAttr.UNSERVED,
    JobAttr.OUTCOME,
    JobAttr.EXIT_CODE,
    JobAttr.ERROR,
    JobAttr.STARTED_AT,
    JobAttr.COMPLETED_AT,
    JobAttr.EXPIRES_AT,
)


@dataclass(frozen=True, slots=True)
class _Failed:
    """A write that no condition refused and that yet was not seen to succeed.

    Attributes:
        reason: Why.
        is_certain: Whether nothing was written for certain.
        is_invalid: Whether the request itself was refused; one bad write spoils all others of it.
    """

    reason: str
    is_certain: bool = False
    is_invalid: bool = False


class DynamoDBJobs:
    """Adapter of :class:`~runsfleet_runtime.jobs.ports.ClaimsJobs` and ``EndsJobs``.

    Args:
        client: A DynamoDB client.
        table: Physical name of the table.
        lease_seconds: How long a claim holds.
        deadline_seconds: How long after its queueing a job is worth launching for.
        retention_seconds: How long a closed job is kept.
    """

    def __init__(
        self,
        client: Any,
        table: str,
        *,
        lease_seconds: float = 90,
        deadline_seconds: float = 24 * 3600,
        retention_seconds: float = 7 * 24 * 3600,
    ) -> None:
        self._client = client
        self._table = table
        self._lease = lease_seconds
        self._deadline = deadline_seconds
        self._retention = retention_seconds

    # -- dispatch ------------------------------------------------------------------------------

    def claim(
        self, jobs: Sequence[JobMessage], *, claim_ids: Sequence[str], now: float
    ) -> Sequence[ClaimResult]:
        """Claim jobs; see :class:`~runsfleet_runtime.jobs.ports.ClaimsJobs`."""
        pairs = list(zip(jobs, claim_ids, strict=True))
        updates = [[{"Update": self._claim_update(j, c, now)}] for j, c in pairs]

        def verdict(
            index: int, written: bool, old: Item | None, failed: _Failed | None
        ) -> ClaimResult:
            job, claim_id = pairs[index]
            if written or (old and text(old, JobAttr.CLAIM_ID) == claim_id):
                return Claimed(job, claim_id)
            if old:
                return judge_refused_claim(
                    job,
                    status=JobStatus(text(old, JobAttr.STATUS)),
                    recorded_dispatch=int(number(old, JobAttr.DISPATCH)),
                    lease_ends=number(old, JobAttr.CLAIM_EXPIRES_AT),
                )
            return ClaimUnknown(failed.reason if failed else "the record is empty")

        return self._write_all(updates, verdict)

    def record_launches(
        self, launches: Sequence[tuple[Launch, Sequence[Mapping[str, Any]]]], *, now: float
    ) -> Sequence[bool | None]:
        """Record launches; see :class:`~runsfleet_runtime.jobs.ports.ClaimsJobs`."""
        updates = [
            [{"Update": self._launch_update(launch, now)}, *further] for launch, further in launches
        ]

        def verdict(
            index: int, written: bool, old: Item | None, failed: _Failed | None
        ) -> bool | None:
            launch = launches[index][0]
            if written or (old and text(old, JobAttr.INSTANCE_ID) == launch.instance_id):
                return True
            log.warning(
                "launch not recorded",
                extra={
                    "job_id": launch.job.job_id,
                    "instance_id": launch.instance_id,
                    "reason": failed.reason if failed else "the claim was lost",
                },
            )
            return False if failed is None or failed.is_certain else None

        return self._write_all(updates, verdict)

    def release(self, job: JobMessage, claim_id: str, *, not_before: float, now: float) -> bool:
        """Hand a claimed job back; see :class:`~runsfleet_runtime.jobs.ports.ClaimsJobs`."""
        values = {JobAttr.NOT_BEFORE: not_before, JobAttr.UPDATED_AT: now}
        return self._move_claimed(Move.RELEASE, job, claim_id, values)

    def expire(self, job: JobMessage, claim_id: str, *, error: str, now: float) -> bool:
        """Give a claimed job up; see :class:`~runsfleet_runtime.jobs.ports.ClaimsJobs`."""
        values = {
            JobAttr.ERROR: error,
            JobAttr.COMPLETED_AT: now,
            JobAttr.UPDATED_AT: now,
            JobAttr.EXPIRES_AT: now + self._retention,
        }
        return self._move_claimed(Move.EXPIRE, job, claim_id, values)

    def _move_claimed(
        self, move: Move, job: JobMessage, claim_id: str, values: Mapping[JobAttr, Any]
    ) -> bool:
        update = self._update(str(job.job_id), move, values, where={JobAttr.CLAIM_ID: claim_id})
        (done,) = self._write_all([[{"Update": update}]], lambda _i, written, _old, _e: written)
        return done

    def _claim_update(self, job: JobMessage, claim_id: str, now: float) -> dict[str, Any]:
        values: dict[JobAttr, Any] = {
            JobAttr.STATUS: JobStatus.CLAIMED.value,
            JobAttr.RUN_ID: job.run_id,
            JobAttr.RUN_ATTEMPT: job.run_attempt,
            JobAttr.REPOSITORY: job.repository,
            JobAttr.LABELS: list(job.labels),
            JobAttr.WORKFLOW: job.workflow_name,
            JobAttr.NAME: job.job_name,
            JobAttr.INSTALLATION_ID: job.installation_id,
            JobAttr.DISPATCH: job.dispatch,
            JobAttr.REQUEUES: job.requeues,
            JobAttr.QUEUED_AT: job.queued_at,
            JobAttr.DEADLINE: job.queued_at + self._deadline,
            JobAttr.CLAIM_ID: claim_id,
            JobAttr.CLAIM_EXPIRES_AT: now + self._lease,
            JobAttr.CLAIMED_AT: now,
            JobAttr.UPDATED_AT: now,
        }
        expression = _Expression()
        assignments = expression.assignments(values)
        removed = ", ".join(
            expression.name(a) for a in (*_INSTANCE_ATTRIBUTES, *_ENDING_ATTRIBUTES)
        )
        key, status = expression.name(JobAttr.ID), expression.name(JobAttr.STATUS)
        queued = expression.value(JobStatus.QUEUED.value)
        claimed = expression.value(JobStatus.CLAIMED.value)
        lease, dispatch = (
            expression.name(JobAttr.CLAIM_EXPIRES_AT),
            expression.name(JobAttr.DISPATCH),
        )
        condition = (
            f"attribute_not_exists({key}) OR ({dispatch} <= {expression.value(job.dispatch)} AND "
            f"({status} = {queued} OR "
            f"({status} = {claimed} AND {lease} < {expression.value(now)}))) OR "
            # GitHub queued it anew, say once it was approved, after its instance had ended idle
            f"attribute_exists({expression.name(JobAttr.UNSERVED)})"
        )
        return self._request(
            str(job.job_id), f"SET {assignments} REMOVE {removed}", condition, expression
        )

    def _launch_update(self, launch: Launch, now: float) -> dict[str, Any]:
        values = {
            JobAttr.INSTANCE_ID: launch.instance_id,
            JobAttr.INSTANCE_TYPE: launch.instance_type,
            JobAttr.ZONE: launch.availability_zone,
            JobAttr.CAPACITY_TYPE: launch.capacity_type,
            JobAttr.RUNNER_NAME: launch.runner_name,
            JobAttr.POOL: launch.pool,
            JobAttr.LAUNCHED_AT: now,
            JobAttr.UPDATED_AT: now,
        }
        where = {JobAttr.CLAIM_ID: launch.claim_id}
        return self._update(str(launch.job.job_id), Move.LAUNCH, values, where=where)

    # -- reports -------------------------------------------------------------------------------

    def start(self, reports: Sequence[RunnerReport], *, now: float) -> Sequence[bool | None]:
        """Move jobs to running; see :class:`~runsfleet_runtime.jobs.ports.EndsJobs`."""
        values = {JobAttr.STARTED_AT: now, JobAttr.UPDATED_AT: now}
        return self._move_owned(Move.START, [(report, values, ()) for report in reports])

    def renew(self, report: RunnerReport, *, now: float) -> bool | None:
        """Note that a launched job's instance gets another registration; see ``NotesRenewals``."""
        values = {JobAttr.RENEWED: report.dispatch, JobAttr.UPDATED_AT: now}
        (noted,) = self._move_owned(
            Move.RENEW, [(report, values, ())], unless={JobAttr.RENEWED: report.dispatch}
        )
        return noted

    def end(
        self, reports: Sequence[tuple[RunnerReport, Sequence[Mapping[str, Any]]]], *, now: float
    ) -> Sequence[bool | None]:
        """Close jobs; see :class:`~runsfleet_runtime.jobs.ports.EndsJobs`."""
        return self._move_owned(
            Move.END,
            [(report, self._ending(report, now), further) for report, further in reports],
        )

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

    def requeue(
        self,
        report: RunnerReport,
        further: Sequence[Mapping[str, Any]],
        *,
        not_before: float,
        now: float,
    ) -> JobMessage | None:
        """Hand a job back; see :class:`~runsfleet_runtime.jobs.ports.EndsJobs`."""
        values = {JobAttr.NOT_BEFORE: not_before, JobAttr.UPDATED_AT: now}
        (moved,) = self._move_owned(Move.REQUEUE, [(report, values, further)])
        if moved is None:
            raise RecordUnknownError(f"job {report.job_id}: its record could not be written")
        item = self._get(report.job_id)
        if not _is_requeued_by(item, report):
            return None
        return _requeued(item)

    def rescue(
        self, job_id: int, *, is_launched: bool, not_before: float, now: float
    ) -> JobMessage | None:
        """Hand a job back whose runner is another job's; see ``EndsJobs``."""
        item = self._get(job_id)
        status = text(item, JobAttr.STATUS)
        wanted = {JobStatus.LAUNCHED} if is_launched else {JobStatus.RUNNING, JobStatus.COMPLETED}
        dispatch = int(number(item, JobAttr.DISPATCH))
        instance_id = text(item, JobAttr.INSTANCE_ID)
        if status in wanted:
            values = {JobAttr.NOT_BEFORE: not_before, JobAttr.UPDATED_AT: now}
            where = {JobAttr.INSTANCE_ID: instance_id, JobAttr.DISPATCH: dispatch}
            update = self._update(str(job_id), Move.RESCUE, values, where=where)
            (failed,) = self._write_all([[{"Update": update}]], lambda _i, _w, _o, failed: failed)
            if failed:
                raise RecordUnknownError(f"job {job_id}: its record could not be written")
            item = self._get(job_id)
        is_handed_back = (
            text(item, JobAttr.STATUS) == JobStatus.QUEUED
            and text(item, JobAttr.INSTANCE_ID) == instance_id != ""
            and int(number(item, JobAttr.DISPATCH)) == dispatch
        )
        return _requeued(item) if is_handed_back else None

    def read(self, job_id: int) -> JobMessage | None:
        """Read the message that dispatched a job; see ``EndsJobs``."""
        item = self._get(job_id)
        return job_from_item(item) if item else None

    def _get(self, job_id: int) -> Item:
        try:
            answer = self._client.get_item(
                TableName=self._table, Key=_key(str(job_id)), ConsistentRead=True
            )
        except (ClientError, BotoCoreError) as error:
            raise RecordUnknownError(f"job {job_id}: its record could not be read") from error
        item: Item = answer.get("Item", {})
        return item

    def _move_owned(
        self,
        move: Move,
        moves: Sequence[tuple[RunnerReport, Mapping[JobAttr, Any], Sequence[Mapping[str, Any]]]],
        *,
        unless: Mapping[JobAttr, Any] = MappingProxyType({}),
    ) -> list[bool | None]:
        """Move jobs that belong to the instances that report; none of another owner's."""
        if len({report.job_id for report, _, _ in moves}) < len(moves):
            # one transaction takes no two writes of one item: two reports of a job go one by one
            return [self._move_owned(move, [single])[0] for single in moves]
        groups: list[list[Mapping[str, Any]]] = []
        for report, values, further in moves:
            where = {JobAttr.INSTANCE_ID: report.instance_id, JobAttr.DISPATCH: report.dispatch}
            update = self._update(str(report.job_id), move, values, where=where, unless=unless)
            groups.append([{"Update": update}, *further])

        def verdict(
            _index: int, written: bool, _old: Item | None, failed: _Failed | None
        ) -> bool | None:
            if written:
                return True
            return None if failed else False

        return self._write_all(groups, verdict) if groups else []

    # -- writing -------------------------------------------------------------------------------

    def _update(
        self,
        job_id: str,
        move: Move,
        values: Mapping[JobAttr, Any],
        *,
        where: Mapping[JobAttr, Any],
        unless: Mapping[JobAttr, Any] = MappingProxyType({}),
    ) -> dict[str, Any]:
        """Return the update of one move, allowed only from the states of the transition table."""
        sources, target = TRANSITIONS[move]
        expression = _Expression()
        assignments = expression.assignments({JobAttr.STATUS: target.value, **values})
        status = expression.name(JobAttr.STATUS)
        options = ", ".join(expression.value(s.value) for s in sorted(sources))
        conditions = [f"{status} IN ({options})"]
        conditions += [
            f"{expression.name(attr)} = {expression.value(value)}" for attr, value in where.items()
        ]
        for attr, value in unless.items():
            name = expression.name(attr)
            conditions.append(
                f"(attribute_not_exists({name}) OR {name} <> {expression.value(value)})"
            )
        return self._request(job_id, f"SET {assignments}", " AND ".join(conditions), expression)

    def _request(
        self, job_id: str, update: str, condition: str, expression: _Expression
    ) -> dict[str, Any]:
        return {
            "TableName": self._table,
            "Key": _key(job_id),
            "UpdateExpression": update,
            "ConditionExpression": condition,
            "ExpressionAttributeNames": expression.names,
            "ExpressionAttributeValues": expression.values,
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }

    def _write_all(
        self,
        groups: Sequence[Sequence[Mapping[str, Any]]],
        verdict: Callable[[int, bool, Item | None, _Failed | None], T],
    ) -> list[T]:
        """Write groups of actions, each group all or nothing, with as few calls as possible.

        ``verdict`` gets the index of a group, whether it was written, the item that refused its
        condition (``None`` when that is not why), and any other failure.
        """
        outcome = self._transact([action for group in groups for action in group])
        if outcome is None:
            return [verdict(i, True, None, None) for i in range(len(groups))]
        if isinstance(outcome, _Failed):
            if not outcome.is_invalid or len(groups) == 1:
                return [verdict(i, False, None, outcome) for i in range(len(groups))]
            outcome = {}  # the bad one must not spoil the others
        results: list[T] = []
        position = 0
        for index, group in enumerate(groups):
            old = outcome.get(position)
            position += len(group)
            if old is not None or len(groups) == 1:
                cancelled = _Failed("the transaction was cancelled", is_certain=True)
                results.append(verdict(index, False, old, None if old is not None else cancelled))
            else:  # cancelled because of another group
                results += self._write_all([group], lambda _i, *rest, at=index: verdict(at, *rest))
        return results

    def _transact(self, actions: Sequence[Mapping[str, Any]]) -> _Failed | dict[int, Item] | None:
        """Write actions in one transaction.

        Returns nothing when they are written; the items that refused their condition, by position,
        when the transaction was cancelled; else how it failed.
        """
        try:
            self._client.transact_write_items(TransactItems=list(actions))
        except ClientError as error:
            if "CancellationReasons" not in error.response:
                return _failed(error)
            return {
                position: reason.get("Item", {})
                for position, reason in enumerate(error.response["CancellationReasons"])
                if reason.get("Code") == _REFUSED
            }
        except BotoCoreError as error:
            return _Failed(str(error))
        return None


def _failed(error: ClientError) -> _Failed:
    code = error.response["Error"].get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return _Failed(
        str(error),
        # an earlier attempt of the same call may still be under way
        is_certain=status in _CLIENT_ERRORS and code != "TransactionInProgressException",
        is_invalid=code in _INVALID,
    )


class _Expression:
    """Names and values of one DynamoDB expression; every name is aliased (many are reserved)."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.values: dict[str, Any] = {}

    def name(self, attribute: JobAttr) -> str:
        alias = f"#{attribute.name.lower()}"
        self.names[alias] = attribute.value
        return alias

    def value(self, value: Any) -> str:
        alias = f":v{len(self.values)}"
        self.values[alias] = to_attribute(value)
        return alias

    def assignments(self, values: Mapping[JobAttr, Any]) -> str:
        """Return ``a = :a, …`` for the values that are there; ``None`` and "" are left out."""
        kept = ((a, v) for a, v in values.items() if v is not None and v != "")
        return ", ".join(f"{self.name(a)} = {self.value(v)}" for a, v in kept)


def to_attribute(value: Any) -> dict[str, Any]:
    """Return DynamoDB's form of a text, number or list.

    Example:
        >>> to_attribute([1, "a"])
        {'L': [{'N': '1'}, {'S': 'a'}]}
    """
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, int | float):
        return {"N": repr(value)}
    return {"L": [to_attribute(v) for v in value]}


def text(item: Item, attribute: JobAttr) -> str:
    """Return a text attribute, or "" when the item has none."""
    return str(item.get(attribute.value, {}).get("S", ""))


def number(item: Item, attribute: JobAttr) -> float:
    """Return a number attribute, or 0 when the item has none."""
    return float(item.get(attribute.value, {}).get("N", 0))


def job_from_item(item: Item) -> JobMessage:
    """Return the message that dispatched a job, from its record."""
    installation = int(number(item, JobAttr.INSTALLATION_ID))
    return JobMessage(
        job_id=int(text(item, JobAttr.ID)),
        run_id=int(number(item, JobAttr.RUN_ID)),
        run_attempt=int(number(item, JobAttr.RUN_ATTEMPT)),
        repository=text(item, JobAttr.REPOSITORY),
        labels=tuple(v["S"] for v in item[JobAttr.LABELS.value]["L"]),
        queued_at=number(item, JobAttr.QUEUED_AT),
        installation_id=installation or None,
        workflow_name=text(item, JobAttr.WORKFLOW),
        job_name=text(item, JobAttr.NAME),
        dispatch=int(number(item, JobAttr.DISPATCH)),
        requeues=int(number(item, JobAttr.REQUEUES)),
    )


def _requeued(item: Item) -> JobMessage:
    """Return the message that dispatches a job again, from the record that was handed back."""
    job = replace(job_from_item(item), requeues=int(number(item, JobAttr.REQUEUES)) + 1)
    return job.again(not_before=number(item, JobAttr.NOT_BEFORE))


def _is_requeued_by(item: Item, report: RunnerReport) -> bool:
    return (
        text(item, JobAttr.STATUS) == JobStatus.QUEUED
        and text(item, JobAttr.INSTANCE_ID) == report.instance_id
        and int(number(item, JobAttr.DISPATCH)) == report.dispatch
    )


def _key(job_id: str) -> dict[str, Any]:
    return {JobAttr.ID.value: {"S": job_id}}
