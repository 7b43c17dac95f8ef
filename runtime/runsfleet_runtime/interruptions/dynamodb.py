"""Notes on records of the ``jobs`` table; the moves of a job are in :mod:`..jobs.dynamodb`.

Gotcha: botocore repeats a call whose answer was lost, and the second try then fails its own
condition. So a refused note is first compared with what was to be written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.contract.tables import JobAttr
from runsfleet_runtime.interruptions.ports import Noted
from runsfleet_runtime.jobs.dynamodb import number, text, to_attribute
from runsfleet_runtime.jobs.model import JobRecord, JobStatus, Rerun
from runsfleet_runtime.jobs.ports import RecordUnknownError

Item = Mapping[str, Any]
_REFUSED: Final = "ConditionalCheckFailedException"
_OPEN: Final = frozenset({JobStatus.LAUNCHED, JobStatus.RUNNING})


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
        if observed.status not in _OPEN:
            return Noted.SETTLED
        values = {
            JobAttr.INTERRUPTED_AT: at,
            JobAttr.INTERRUPTION: reason,
            JobAttr.ON_DEMAND: 1,
            JobAttr.UPDATED_AT: now,
        }
        # the instance may report its start in between: that is no reason to refuse
        old = self._note(observed, values, sorted(_OPEN), absent=JobAttr.INTERRUPTED_AT)
        if old is None:
            return Noted.NEW
        is_noted = _is_owned(old, observed) and number(old, JobAttr.INTERRUPTED_AT) > 0
        return Noted.KNOWN if is_noted else Noted.SETTLED

    def note_rerun(self, observed: JobRecord, state: Rerun, *, reason: str, now: float) -> bool:
        """Move a re-run to another state; see ``NotesInterruptions``."""
        values = {
            JobAttr.RERUN: state.value,
            JobAttr.RERUN_REASON: reason,
            JobAttr.UPDATED_AT: now,
        }
        old = self._note(observed, values, [observed.status], rerun=observed.rerun)
        if old is None:
            return True
        # its own first try, or a repetition of the same event, was faster
        return (
            _is_owned(old, observed)
            and text(old, JobAttr.RERUN) == state
            and number(old, JobAttr.UPDATED_AT) == now
        )

    def _note(
        self,
        observed: JobRecord,
        values: Mapping[JobAttr, Any],
        statuses: list[JobStatus],
        *,
        absent: JobAttr | None = None,
        rerun: Rerun | None = None,
    ) -> Item | None:
        """Write; returns nothing when that succeeded, else the item that refused."""
        names = {f"#{a.name.lower()}": a.value for a in values}
        names |= {f"#{a.name.lower()}": a.value for a in (JobAttr.STATUS, JobAttr.INSTANCE_ID)}
        names["#dispatch"] = JobAttr.DISPATCH.value
        bound = {f":{a.name.lower()}": to_attribute(v) for a, v in values.items()}
        bound |= {f":s{i}": to_attribute(s.value) for i, s in enumerate(statuses)}
        bound[":owner"] = to_attribute(observed.instance_id)
        bound[":sent"] = to_attribute(observed.job.dispatch)
        options = ", ".join(f":s{i}" for i in range(len(statuses)))
        conditions = [
            f"#status IN ({options})",
            "#instance_id = :owner",
            "#dispatch = :sent",
        ]
        if absent is not None:
            conditions.append(f"attribute_not_exists(#{absent.name.lower()})")
        if rerun is not None:
            conditions.append("#rerun = :seen")
            bound[":seen"] = to_attribute(rerun.value)
        elif JobAttr.RERUN in values:
            conditions.append("attribute_not_exists(#rerun)")
        assignments = ", ".join(f"#{a.name.lower()} = :{a.name.lower()}" for a in values)
        try:
            self._client.update_item(
                TableName=self._table,
                Key={JobAttr.ID.value: {"S": str(observed.job.job_id)}},
                UpdateExpression=f"SET {assignments}",
                ConditionExpression=" AND ".join(conditions),
                ExpressionAttributeNames=names,
                ExpressionAttributeValues=bound,
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except ClientError as error:
            if error.response["Error"].get("Code") != _REFUSED:
                raise _unknown(observed) from error
            return cast("Item", error.response.get("Item", {}))
        except BotoCoreError as error:
            raise _unknown(observed) from error
        return None


def _is_owned(item: Item, observed: JobRecord) -> bool:
    return (
        text(item, JobAttr.INSTANCE_ID) == observed.instance_id
        and int(number(item, JobAttr.DISPATCH)) == observed.job.dispatch
    )


def _unknown(observed: JobRecord) -> RecordUnknownError:
    return RecordUnknownError(f"job {observed.job.job_id}: its record could not be written")
