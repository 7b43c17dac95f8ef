"""Notes on records of the ``jobs`` table, and the table of instances as far as events ask it.

The moves of a job are in :mod:`..jobs.dynamodb`.

Gotcha: botocore repeats a call whose answer was lost, and the second try then fails its own
condition. So a refused note is first compared with what was to be written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, cast

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.contract.tables import InstanceAttr, JobAttr
from runsfleet_runtime.interruptions.ports import Noted
from runsfleet_runtime.jobs.items import Expression, Item, number, text
from runsfleet_runtime.jobs.model import JobRecord, JobStatus, Rerun
from runsfleet_runtime.jobs.ports import RecordUnknownError

_TRIES: Final = 3  # for the keys that DynamoDB left out of an answer
_REFUSED: Final = "ConditionalCheckFailedException"
_OPEN: Final = frozenset({JobStatus.LAUNCHED, JobStatus.RUNNING})


class DynamoDBLaunches:
    """Adapter of :class:`~runsfleet_runtime.interruptions.ports.KnowsLaunches`.

    Args:
        client: A DynamoDB client.
        table: Physical name of the ``instances`` table.
    """

    def __init__(self, client: Any, table: str) -> None:
        self._client = client
        self._table = table

    def have_left(self, instance_ids: Sequence[str]) -> Mapping[str, bool]:
        """Tell which instances have left their jobs; see ``KnowsLaunches``."""
        known, ended = InstanceAttr.ID, InstanceAttr.ENDED_AT
        asked: dict[str, Any] = {
            self._table: {
                "Keys": [{known.value: {"S": each}} for each in instance_ids],
                "ConsistentRead": True,
                "ProjectionExpression": "#id, #ended",
                "ExpressionAttributeNames": {"#id": known.value, "#ended": ended.value},
            }
        }
        found: dict[str, bool] = {}
        for _ in range(_TRIES):
            try:
                answer = self._client.batch_get_item(RequestItems=asked)
            except (ClientError, BotoCoreError) as error:
                raise RecordUnknownError("the table of instances did not answer") from error
            for item in answer["Responses"].get(self._table, ()):
                found[item[known.value]["S"]] = ended.value in item
            asked = answer.get("UnprocessedKeys", {})
            if not asked:
                return found
        raise RecordUnknownError("the table of instances left some out again and again")


class DynamoDBNotes:
    """Adapter of :class:`~runsfleet_runtime.interruptions.ports.NotesInterruptions`.

    Args:
        client: A DynamoDB client.
        table: Physical name of the ``jobs`` table.
    """

    def __init__(self, client: Any, table: str) -> None:
        self._client = client
        self._table = table

    def note_interruption(
        self, observed: JobRecord, *, at: float, reason: str, now: float
    ) -> Noted:
        """Note an interruption; see ``NotesInterruptions``."""
        # the instance may report its start in between: that is no reason to refuse
        note = _note_on(observed, _OPEN)
        note.require_equal({JobAttr.INTERRUPTED_AT: None})
        note.set(
            {
                JobAttr.INTERRUPTED_AT: at,
                JobAttr.INTERRUPTION: reason,
                JobAttr.ON_DEMAND: 1,
                JobAttr.UPDATED_AT: now,
            }
        )
        refused = self._write(observed, note)
        if refused is None:
            return Noted.NEW
        is_noted = (
            _is_owned(refused, observed)
            and text(refused, JobAttr.STATUS) in _OPEN
            and number(refused, JobAttr.INTERRUPTED_AT) > 0
        )
        return Noted.KNOWN if is_noted else Noted.SETTLED

    def note_rerun(self, observed: JobRecord, state: Rerun, *, reason: str, now: float) -> bool:
        """Move a re-run to another state; see ``NotesInterruptions``."""
        note = _note_on(observed, {observed.status})
        note.require_equal({JobAttr.RERUN: observed.rerun and observed.rerun.value})
        note.set(
            {
                JobAttr.RERUN: state.value,
                JobAttr.RERUN_REASON: reason,
                JobAttr.UPDATED_AT: now,
            }
        )
        refused = self._write(observed, note)
        # its own first try may have been faster
        return refused is None or (
            _is_owned(refused, observed)
            and text(refused, JobAttr.RERUN) == state
            and number(refused, JobAttr.UPDATED_AT) == now
        )

    def _write(self, observed: JobRecord, note: Expression) -> Item | None:
        """Write; returns nothing when that succeeded, else the item that refused."""
        job_id = observed.job.job_id
        try:
            self._client.update_item(**note.request(self._table, job_id))
        except ClientError as error:
            if error.response["Error"].get("Code") == _REFUSED:
                return cast("Item", error.response.get("Item", {}))
            raise RecordUnknownError(f"job {job_id}: its record was not written") from error
        except BotoCoreError as error:
            raise RecordUnknownError(f"job {job_id}: its record was not written") from error
        return None


def _note_on(observed: JobRecord, statuses: Collection[JobStatus]) -> Expression:
    """Return a write that needs the observed owner of the job and one of these states."""
    note = Expression()
    options = ", ".join(note.value(status.value) for status in sorted(statuses))
    note.require(f"{note.name(JobAttr.STATUS)} IN ({options})")
    note.require_equal(
        {JobAttr.INSTANCE_ID: observed.instance_id, JobAttr.DISPATCH: observed.job.dispatch}
    )
    return note


def _is_owned(item: Item, observed: JobRecord) -> bool:
    return (
        text(item, JobAttr.INSTANCE_ID) == observed.instance_id
        and int(number(item, JobAttr.DISPATCH)) == observed.job.dispatch
    )
