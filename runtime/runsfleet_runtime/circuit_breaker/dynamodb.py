"""The ``circuit-state`` and ``audit`` tables.

Gotchas:

- Changes go in one transaction, so that an outage that fails sixty offerings at once costs three
  calls. When one circuit was written meanwhile the whole transaction is cancelled; the others are
  then written without it.
- A circuit and its audit row are one transaction: neither is there without the other.
- botocore gives each transaction a token, so a call whose answer was lost is not made twice by its
  own repetition. A change whose outcome stays unknown counts as not made: a failure that is told
  again is known by its id, a probe is nobody's until its time is over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.circuit_breaker.model import (
    BreakerPolicy,
    Circuit,
    CircuitState,
    MalformedOfferingError,
    Offering,
    expires_at,
)
from runsfleet_runtime.circuit_breaker.ports import Change, CircuitsUnknownError
from runsfleet_runtime.contract.tables import AuditAttr, CircuitAttr
from runsfleet_runtime.telemetry.log import get_logger

log = get_logger("circuit_breaker.dynamodb")

AUDIT_SECONDS: Final = 400 * 24 * 3600
"""How long an audit row is kept: a year and the month in which one asks for it."""

_CHANGES_A_TRANSACTION: Final = 20  # two actions each; DynamoDB takes a hundred
_REFUSED: Final = frozenset({"ConditionalCheckFailed", "TransactionConflict"})

Item = Mapping[str, Any]


class DynamoDBCircuits:
    """Adapter of :class:`~runsfleet_runtime.circuit_breaker.ports.StoresCircuits`.

    Args:
        client: A DynamoDB client.
        table: Physical name of the table of circuits.
        audit_table: Physical name of the audit table.
        policy: The numbers of the breaker; they say how long a circuit is kept.
        new_id: Returns an id that never repeats.
    """

    def __init__(
        self,
        client: Any,
        *,
        table: str,
        audit_table: str,
        policy: BreakerPolicy,
        new_id: Callable[[], str],
    ) -> None:
        self._client = client
        self._table = table
        self._audit_table = audit_table
        self._policy = policy
        self._new_id = new_id

    def read(self, *, is_consistent: bool) -> Sequence[Circuit]:
        """Read all circuits; see ``StoresCircuits``."""
        circuits: list[Circuit] = []
        start: dict[str, Any] = {}
        while True:
            try:
                page = self._client.scan(
                    TableName=self._table, ConsistentRead=is_consistent, **start
                )
            except (ClientError, BotoCoreError) as error:
                raise CircuitsUnknownError(f"{self._table} could not be read: {error}") from error
            for item in page.get("Items", []):
                try:
                    circuits.append(_circuit(item))
                except (KeyError, ValueError, MalformedOfferingError) as error:
                    log.error("not a circuit", extra={"item": str(item), "error": str(error)})
            if not page.get("LastEvaluatedKey"):
                return circuits
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def write(self, changes: Sequence[Change]) -> Sequence[Circuit | None]:
        """Write circuits; see ``StoresCircuits``."""
        written: list[Circuit | None] = []
        for first in range(0, len(changes), _CHANGES_A_TRANSACTION):
            written += self._write(changes[first : first + _CHANGES_A_TRANSACTION])
        return written

    def _write(self, changes: Sequence[Change]) -> list[Circuit | None]:
        stored = [replace(change.after, version=change.before.version + 1) for change in changes]
        groups = [
            self._actions(change, circuit) for change, circuit in zip(changes, stored, strict=True)
        ]
        try:
            self._client.transact_write_items(TransactItems=[a for group in groups for a in group])
        except ClientError as error:
            reasons = error.response.get("CancellationReasons")
            if reasons is None:
                raise CircuitsUnknownError(f"{self._table} was not written: {error}") from error
            return self._without_refused(changes, groups, reasons)
        except BotoCoreError as error:
            raise CircuitsUnknownError(f"{self._table} was not written: {error}") from error
        return list(stored)

    def _without_refused(
        self,
        changes: Sequence[Change],
        groups: Sequence[Sequence[Mapping[str, Any]]],
        reasons: Sequence[Mapping[str, Any]],
    ) -> list[Circuit | None]:
        """Write what was cancelled only because of another; each round is smaller than the last."""
        kept: list[int] = []
        position = 0
        for index, group in enumerate(groups):
            codes = {reason.get("Code") for reason in reasons[position : position + len(group)]}
            position += len(group)
            if not codes & _REFUSED:
                kept.append(index)
        written: list[Circuit | None] = [None] * len(changes)
        if len(kept) < len(changes):
            again = self._write([changes[index] for index in kept]) if kept else []
            for index, circuit in zip(kept, again, strict=True):
                written[index] = circuit
        return written

    def _actions(self, change: Change, circuit: Circuit) -> list[Mapping[str, Any]]:
        written: dict[str, Any] = {
            "TableName": self._table,
            "Item": self._item(circuit),
            "ExpressionAttributeNames": {"#version": CircuitAttr.VERSION.value},
            "ConditionExpression": "attribute_not_exists(#version)",
        }
        if change.before.version:
            written["ConditionExpression"] = "#version = :seen"
            written["ExpressionAttributeValues"] = {":seen": _number(change.before.version)}
        actions: list[Mapping[str, Any]] = [{"Put": written}]
        if change.action:
            row = {"TableName": self._audit_table, "Item": self._audit_row(change)}
            actions.append({"Put": row})
        return actions

    def _item(self, circuit: Circuit) -> dict[str, Any]:
        failures = {identity: _number(at) for at, identity in circuit.failures}
        return {
            CircuitAttr.OFFERING.value: {"S": circuit.offering.key},
            CircuitAttr.STATE.value: {"S": circuit.state.value},
            CircuitAttr.FAILURES.value: {"M": failures},
            CircuitAttr.TRIPS.value: _number(circuit.trips),
            CircuitAttr.OPENED_AT.value: _number(circuit.opened_at),
            CircuitAttr.OPEN_UNTIL.value: _number(circuit.open_until),
            CircuitAttr.PROBE_UNTIL.value: _number(circuit.probe_until),
            CircuitAttr.REASON.value: {"S": circuit.reason},
            CircuitAttr.VERSION.value: _number(circuit.version),
            CircuitAttr.UPDATED_AT.value: _number(circuit.updated_at),
            CircuitAttr.EXPIRES_AT.value: _number(int(expires_at(circuit, self._policy))),
        }

    def _audit_row(self, change: Change) -> dict[str, Any]:
        after = change.after
        moment = datetime.fromtimestamp(after.updated_at, UTC).isoformat(timespec="microseconds")
        detail = f"{change.before.state.value} -> {after.state.value}: {after.reason}"
        if after.state is CircuitState.OPEN:
            until = datetime.fromtimestamp(after.open_until, UTC).isoformat(timespec="seconds")
            detail = f"{detail}; until {until}"
        return {
            AuditAttr.SUBJECT.value: {"S": f"circuit:{after.offering.key}"},
            AuditAttr.AT.value: {"S": f"{moment}#{self._new_id()}"},
            AuditAttr.ACTOR.value: {"S": change.actor},
            AuditAttr.ACTION.value: {"S": change.action},
            AuditAttr.DETAIL.value: {"S": detail},
            AuditAttr.EXPIRES_AT.value: _number(int(after.updated_at + AUDIT_SECONDS)),
        }


def _circuit(item: Item) -> Circuit:
    failures = item.get(CircuitAttr.FAILURES.value, {}).get("M", {})
    return Circuit(
        offering=Offering.from_key(item[CircuitAttr.OFFERING.value]["S"]),
        state=CircuitState(item[CircuitAttr.STATE.value]["S"]),
        failures=tuple(sorted((float(at["N"]), identity) for identity, at in failures.items())),
        trips=int(_read(item, CircuitAttr.TRIPS)),
        opened_at=_read(item, CircuitAttr.OPENED_AT),
        open_until=_read(item, CircuitAttr.OPEN_UNTIL),
        probe_until=_read(item, CircuitAttr.PROBE_UNTIL),
        reason=str(item.get(CircuitAttr.REASON.value, {}).get("S", "")),
        version=int(item[CircuitAttr.VERSION.value]["N"]),
        updated_at=_read(item, CircuitAttr.UPDATED_AT),
    )


def _read(item: Item, attribute: CircuitAttr) -> float:
    return float(item.get(attribute.value, {}).get("N", 0))


def _number(value: float) -> dict[str, str]:
    return {"N": repr(value)}
