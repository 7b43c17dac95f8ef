"""The audit table: who changed what by hand, and when."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from runsfleet_runtime.circuit_breaker.dynamodb import AUDIT_SECONDS
from runsfleet_runtime.contract.tables import AuditAttr


@dataclass(frozen=True, slots=True)
class AuditRow:
    """A row.

    Attributes:
        at: ISO 8601 UTC.
        actor: ARN of a person or role, or the name of a function.
        action: What was done, in a word.
        subject: To what, such as ``job:42``.
        detail: More of it, for people.
    """

    at: str
    actor: str
    action: str
    subject: str
    detail: str

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


class AuditTrail:
    """The audit table of a fleet.

    Args:
        client: A DynamoDB client.
        table: Physical name of the table.
        new_id: Returns an id that never repeats.
    """

    def __init__(
        self, client: Any, table: str, *, new_id: Callable[[], str] = lambda: uuid.uuid4().hex
    ) -> None:
        self._client = client
        self._table = table
        self._new_id = new_id

    def put(self, *, subject: str, actor: str, action: str, detail: str, now: float) -> None:
        """Write a row; to be done before what it tells of, as nobody may act unseen."""
        self._client.put_item(
            **self.write(subject=subject, actor=actor, action=action, detail=detail, now=now)
        )

    def write(
        self, *, subject: str, actor: str, action: str, detail: str, now: float
    ) -> dict[str, Any]:
        """Return the write of a row, to be made here or as part of a transaction.

        Args:
            subject: Kind and id, such as ``job:42`` or ``instance:i-0abc``.
            actor: ARN of whoever acts.
            action: What is done, in a word.
            detail: More of it, for people.
            now: Epoch seconds.
        """
        at = datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds")
        return {
            "TableName": self._table,
            "Item": {
                AuditAttr.SUBJECT.value: {"S": subject},
                AuditAttr.AT.value: {"S": f"{at}#{self._new_id()}"},
                AuditAttr.ACTOR.value: {"S": actor},
                AuditAttr.ACTION.value: {"S": action},
                AuditAttr.DETAIL.value: {"S": detail},
                AuditAttr.EXPIRES_AT.value: {"N": str(int(now + AUDIT_SECONDS))},
            },
        }

    def of(self, subject: str, *, limit: int) -> list[AuditRow]:
        """Return the latest rows of a subject, the latest first."""
        answer = self._client.query(
            TableName=self._table,
            KeyConditionExpression="#subject = :subject",
            ExpressionAttributeNames={"#subject": AuditAttr.SUBJECT.value},
            ExpressionAttributeValues={":subject": {"S": subject}},
            ScanIndexForward=False,
            Limit=limit,
        )
        return [_row(item) for item in answer["Items"]]

    def latest(self, *, limit: int) -> list[AuditRow]:
        """Return the latest rows of all subjects, the latest first; reads the whole table."""
        rows: list[AuditRow] = []
        start: dict[str, Any] = {}
        while True:
            answer = self._client.scan(TableName=self._table, **start)
            rows += [_row(item) for item in answer["Items"]]
            rows = sorted(rows, key=lambda row: row.at, reverse=True)[:limit]
            if not answer.get("LastEvaluatedKey"):
                return rows
            start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}


def _row(item: Mapping[str, Any]) -> AuditRow:
    def value(attribute: AuditAttr) -> str:
        return str(item.get(attribute.value, {}).get("S", ""))

    return AuditRow(
        at=value(AuditAttr.AT).partition("#")[0],
        actor=value(AuditAttr.ACTOR),
        action=value(AuditAttr.ACTION),
        subject=value(AuditAttr.SUBJECT),
        detail=value(AuditAttr.DETAIL),
    )
