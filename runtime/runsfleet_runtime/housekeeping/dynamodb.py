"""The sweeps' view of DynamoDB: leases, and what the other rooms' adapters do not read.

Each write names what was seen before it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.contract.tables import LeaseAttr
from runsfleet_runtime.housekeeping.model import SweepOutcome
from runsfleet_runtime.housekeeping.ports import Lease, SweepError

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
