"""The ``leases`` table: who may run a task now, and what the task remembers.

A lease is one row that stays. Each write names its holder, so that a run that was taken for dead
cannot overwrite what its successor remembers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.contract.tables import LeaseAttr
from runsfleet_runtime.housekeeping.model import SweepOutcome
from runsfleet_runtime.housekeeping.ports import Lease, LeaseRow, SweepError

_REFUSED: Final = "ConditionalCheckFailedException"


class DynamoDBLeases:
    """The ``leases`` table; adapter of :class:`~runsfleet_runtime.housekeeping.ports.KeepsLeases`.

    A lease stays as a row after its end: it holds what its task remembers.

    Args:
        client: A DynamoDB client.
        table: Physical name of the table.
    """

    def __init__(self, client: Any, table: str) -> None:
        self._client = client
        self._table = table

    def acquire(self, name: str, *, owner: str, ends_at: float, now: float) -> Lease | None:
        """Take a lease; see ``KeepsLeases``."""
        written, row = self._update(
            name,
            "SET #owner = :owner, #ends_at = :ends_at",
            # its own owner: botocore repeats a call whose answer was lost
            "attribute_not_exists(#ends_at) OR #ends_at < :now OR #owner = :owner",
            {":owner": owner, ":ends_at": ends_at, ":now": now},
        )
        if not written:
            return None
        state = row.get(LeaseAttr.STATE.value, {}).get("S", "{}")
        return Lease(name=name, owner=owner, state=json.loads(state))

    def release(
        self, lease: Lease, *, state: Mapping[str, Any], outcome: SweepOutcome, now: float
    ) -> bool:
        """Give a lease back; see ``KeepsLeases``."""
        written, _ = self._update(
            lease.name,
            "SET #ends_at = :ended, #state = :state, #ran_at = :now, #outcome = :outcome",
            "#owner = :owner",
            {
                ":owner": lease.owner,
                ":ended": 0,
                ":state": json.dumps(state, separators=(",", ":"), sort_keys=True),
                ":now": now,
                ":outcome": outcome.value,
            },
        )
        return written

    def pages(self) -> Iterator[Sequence[LeaseRow]]:
        """Yield all rows, page by page; see ``ListsLeases``."""
        start: dict[str, Any] = {}
        while True:
            answer = self._scan(start)
            yield [
                LeaseRow(
                    name=row[LeaseAttr.NAME.value]["S"],
                    ends_at=_number(row, LeaseAttr.ENDS_AT),
                    ran_at=_number(row, LeaseAttr.RAN_AT),
                )
                for row in answer.get("Items", [])
            ]
            if not answer.get("LastEvaluatedKey"):
                return
            start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def _scan(self, start: Mapping[str, Any]) -> Any:
        try:
            return self._client.scan(TableName=self._table, ConsistentRead=True, **start)
        except (ClientError, BotoCoreError) as error:
            raise SweepError(f"leases: {error}") from error

    def delete(self, row: LeaseRow) -> bool:
        """Delete a row that is as it was read; see ``ListsLeases``."""
        try:
            self._client.delete_item(
                TableName=self._table,
                Key={LeaseAttr.NAME.value: {"S": row.name}},
                ConditionExpression="#ends_at = :ends_at",
                ExpressionAttributeNames={"#ends_at": LeaseAttr.ENDS_AT.value},
                ExpressionAttributeValues={":ends_at": _attribute(row.ends_at)},
            )
        except ClientError as error:
            if error.response["Error"]["Code"] == _REFUSED:
                return False
            raise SweepError(f"lease {row.name}: {error}") from error
        except BotoCoreError as error:
            raise SweepError(f"lease {row.name}: {error}") from error
        return True

    def _update(
        self, name: str, update: str, condition: str, values: Mapping[str, Any]
    ) -> tuple[bool, Mapping[str, Any]]:
        text = f"{update} {condition}"
        names = {f"#{a.name.lower()}": a.value for a in LeaseAttr if f"#{a.name.lower()}" in text}
        try:
            answer = self._client.update_item(
                TableName=self._table,
                Key={LeaseAttr.NAME.value: {"S": name}},
                UpdateExpression=update,
                ConditionExpression=condition,
                ExpressionAttributeNames=names,
                ExpressionAttributeValues={k: _attribute(v) for k, v in values.items()},
                ReturnValues="ALL_NEW",
            )
        except ClientError as error:
            if error.response["Error"]["Code"] == _REFUSED:
                return False, {}
            raise SweepError(f"lease {name}: {error}") from error
        except BotoCoreError as error:
            raise SweepError(f"lease {name}: {error}") from error
        return True, answer.get("Attributes", {})


def _attribute(value: str | float) -> dict[str, str]:
    return {"S": value} if isinstance(value, str) else {"N": repr(value)}


def _number(row: Mapping[str, Any], attribute: LeaseAttr) -> float:
    return float(row.get(attribute.value, {}).get("N", 0))
