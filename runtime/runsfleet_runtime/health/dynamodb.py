"""Circuits and last runs, read as they are known: a moment late is good enough here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.contract.tables import SWEEP_LEASE_PREFIX, CircuitAttr, LeaseAttr
from runsfleet_runtime.health.model import LastRun
from runsfleet_runtime.health.ports import NotReadError

# one that is being probed is left out by all others
_LEFT_OUT_UNTIL = {"open": CircuitAttr.OPEN_UNTIL, "half-open": CircuitAttr.PROBE_UNTIL}


class DynamoDBHealth:
    """Adapter of ``CountsCircuits`` and ``ListsRuns`` of :mod:`runsfleet_runtime.health.ports`.

    Args:
        client: A DynamoDB client.
        circuit_table: Physical name of the table of circuits.
        leases_table: Physical name of the table of leases.
    """

    def __init__(self, client: Any, *, circuit_table: str, leases_table: str) -> None:
        self._client = client
        self._circuit_table = circuit_table
        self._leases_table = leases_table

    def open_circuits(self, *, now: float) -> int:
        """Return how many offerings are left out; see ``CountsCircuits``."""
        rows = self._rows(self._circuit_table, CircuitAttr.STATE, *_LEFT_OUT_UNTIL.values())
        return sum(_left_out_until(row) > now for row in rows)

    def last_runs(self) -> Sequence[LastRun]:
        """Return the last run of each sweep; see ``ListsRuns``."""
        rows = self._rows(self._leases_table, LeaseAttr.NAME, LeaseAttr.RAN_AT, LeaseAttr.OUTCOME)
        return [
            LastRun(
                task=row[LeaseAttr.NAME.value]["S"].removeprefix(SWEEP_LEASE_PREFIX),
                ran_at=float(row[LeaseAttr.RAN_AT.value]["N"]),
                outcome=row.get(LeaseAttr.OUTCOME.value, {}).get("S", ""),
            )
            for row in rows
            if row[LeaseAttr.NAME.value]["S"].startswith(SWEEP_LEASE_PREFIX)
            and LeaseAttr.RAN_AT.value in row
        ]

    def _rows(
        self, table: str, *attributes: CircuitAttr | LeaseAttr
    ) -> Iterator[Mapping[str, Any]]:
        names = {f"#a{number}": name.value for number, name in enumerate(attributes)}
        request: dict[str, Any] = {
            "TableName": table,
            "ProjectionExpression": ", ".join(names),
            "ExpressionAttributeNames": names,
        }
        while True:
            try:
                page = self._client.scan(**request)
            except (ClientError, BotoCoreError) as error:
                raise NotReadError("table") from error
            yield from page.get("Items", [])
            if not page.get("LastEvaluatedKey"):
                return
            request["ExclusiveStartKey"] = page["LastEvaluatedKey"]


def _left_out_until(row: Mapping[str, Any]) -> float:
    """Return the epoch seconds until which an offering is left out; 0 when it is not."""
    until = _LEFT_OUT_UNTIL.get(row.get(CircuitAttr.STATE.value, {}).get("S", ""))
    return 0.0 if until is None else float(row.get(until.value, {}).get("N", 0))
