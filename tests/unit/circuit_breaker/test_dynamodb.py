"""The tables of circuits and of audit rows, on moto."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from moto import mock_aws

from runsfleet_runtime.circuit_breaker.dynamodb import AUDIT_SECONDS, DynamoDBCircuits
from runsfleet_runtime.circuit_breaker.model import (
    BreakerPolicy,
    Circuit,
    CircuitState,
    Offering,
    expires_at,
    open_by_hand,
)
from runsfleet_runtime.circuit_breaker.ports import Change, CircuitsUnknownError
from runsfleet_runtime.contract.tables import AuditAttr, CircuitAttr

NOW = 1_800_000_000.25
POLICY = BreakerPolicy()


class Tables:
    """Both tables, the calls made to them, and faults of calls."""

    def __init__(self) -> None:
        self.client = boto3.client(
            "dynamodb",
            region_name="eu-central-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        for name, keys in (
            ("circuits", [CircuitAttr.OFFERING]),
            ("audit", [AuditAttr.SUBJECT, AuditAttr.AT]),
        ):
            self.client.create_table(
                TableName=name,
                KeySchema=[
                    {"AttributeName": key.value, "KeyType": kind}  # type: ignore[typeddict-item]
                    for key, kind in zip(keys, ("HASH", "RANGE"), strict=False)
                ],
                AttributeDefinitions=[
                    {"AttributeName": key.value, "AttributeType": "S"} for key in keys
                ],
                BillingMode="PAY_PER_REQUEST",
            )
        self.calls: list[str] = []
        self.fault: Exception | None = None
        self.page: int | None = None
        self.circuits = DynamoDBCircuits(
            self,
            table="circuits",
            audit_table="audit",
            policy=POLICY,
            new_id=lambda: f"id-{len(self.calls)}",
        )

    def transact_write_items(self, **parameters: Any) -> Any:
        self.calls.append("transact_write_items")
        if self.fault:
            raise self.fault
        return self.client.transact_write_items(**parameters)

    def scan(self, **parameters: Any) -> Any:
        self.calls.append("scan")
        if self.fault:
            raise self.fault
        if self.page:
            parameters["Limit"] = self.page
        return self.client.scan(**parameters)

    def stored(self) -> dict[str, Circuit]:
        return {c.offering.availability_zone: c for c in self.circuits.read(is_consistent=True)}

    def audit(self) -> list[dict[str, Any]]:
        return list(self.client.scan(TableName="audit")["Items"])


@pytest.fixture
def tables() -> Iterator[Tables]:
    """Empty tables."""
    with mock_aws():
        yield Tables()


def circuit(zone: str = "a") -> Circuit:
    """Return a new circuit."""
    offering = Offering(capacity_type="spot", instance_type="c7g.xlarge", availability_zone=zone)
    return Circuit(offering=offering)


def opening(before: Circuit) -> Change:
    """Return the opening of a circuit."""
    after = open_by_hand(before, seconds=600, reason="test", now=NOW)
    return Change(before=before, after=after, action="opened", actor="ops")


def counting(before: Circuit, identity: str = "launch-1") -> Change:
    """Return the count of a failure."""
    after = replace(before, failures=((NOW, identity),), updated_at=NOW)
    return Change(before=before, after=after)


def test_what_is_written_is_read(tables: Tables) -> None:
    """Every attribute of a circuit comes back, and its expiry is written."""
    full = replace(
        circuit(),
        state=CircuitState.HALF_OPEN,
        failures=((NOW - 1, "i-1"), (NOW, "launch:2")),
        trips=3,
        opened_at=NOW,
        open_until=NOW + 1.5,
        probe_until=NOW + 2,
        reason="because",
        updated_at=NOW,
    )
    (stored,) = tables.circuits.write([Change(before=circuit(), after=full)])
    assert stored == replace(full, version=1)
    assert tables.stored()["a"] == stored
    item = tables.client.scan(TableName="circuits")["Items"][0]
    assert item[CircuitAttr.EXPIRES_AT.value]["N"] == str(int(expires_at(full, POLICY)))


def test_a_write_needs_the_version_that_was_seen(tables: Tables) -> None:
    """Of two that saw the same, the second is refused, for a new circuit and a known one."""
    assert tables.circuits.write([counting(circuit(), "one")]) != [None]
    assert tables.circuits.write([counting(circuit(), "two")]) == [None]
    seen = tables.stored()["a"]
    assert tables.circuits.write([opening(seen)]) != [None]
    assert tables.circuits.write([opening(seen)]) == [None]
    assert tables.stored()["a"].version == 2


def test_a_transition_has_its_audit_row_or_is_not_made(tables: Tables) -> None:
    """The row says who, what and until when; a refused write leaves none."""
    tables.circuits.write([opening(circuit())])
    tables.circuits.write([opening(circuit())])
    tables.circuits.write([counting(circuit("b"))])
    (row,) = tables.audit()
    assert {name: next(iter(value.values())) for name, value in row.items()} == {
        AuditAttr.SUBJECT: "circuit:spot:c7g.xlarge:a",
        AuditAttr.AT: "2027-01-15T08:00:00.250000+00:00#id-0",
        AuditAttr.ACTOR: "ops",
        AuditAttr.ACTION: "opened",
        AuditAttr.DETAIL: "closed -> open: test; until 2027-01-15T08:10:00+00:00",
        AuditAttr.EXPIRES_AT: str(int(NOW + AUDIT_SECONDS)),
    }


def test_many_changes_are_few_calls(tables: Tables) -> None:
    """An outage of sixty offerings costs three transactions, rows included."""
    written = tables.circuits.write([opening(circuit(f"z{n}")) for n in range(60)])
    assert None not in written
    assert tables.calls == ["transact_write_items"] * 3
    assert len(tables.audit()) == 60


def test_one_lost_race_does_not_stop_the_others(tables: Tables) -> None:
    """The transaction is cancelled by one; the rest is one transaction more."""
    tables.circuits.write([counting(circuit("b"))])
    tables.calls = []
    written = tables.circuits.write([opening(circuit(zone)) for zone in "abc"])
    assert [done is not None for done in written] == [True, False, True]
    assert tables.calls == ["transact_write_items"] * 2
    assert {zone: c.state.value for zone, c in tables.stored().items()} == {
        "a": "open",
        "b": "closed",
        "c": "open",
    }
    assert len(tables.audit()) == 2


def test_reading_pages(tables: Tables) -> None:
    """More than one page is read to its end."""
    tables.circuits.write([counting(circuit(f"z{n}")) for n in range(5)])
    tables.page, tables.calls = 2, []
    assert len(tables.stored()) == 5
    assert len(tables.calls) == 3


def test_foreign_item_is_passed_over(tables: Tables) -> None:
    """An item that is no circuit hides none of the others."""
    tables.circuits.write([counting(circuit())])
    tables.client.put_item(TableName="circuits", Item={CircuitAttr.OFFERING.value: {"S": "?"}})
    assert list(tables.stored()) == ["a"]


def test_no_answer_is_told(tables: Tables) -> None:
    """Reads and writes raise the room's own error, whatever the client's."""
    tables.fault = ReadTimeoutError(endpoint_url="dynamodb")
    with pytest.raises(CircuitsUnknownError, match="circuits could not be read"):
        tables.circuits.read(is_consistent=False)
    with pytest.raises(CircuitsUnknownError, match="circuits was not written"):
        tables.circuits.write([counting(circuit())])
    tables.fault = ClientError(
        {"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "TransactWriteItems"
    )
    with pytest.raises(CircuitsUnknownError, match="AccessDenied"):
        tables.circuits.write([counting(circuit())])
