"""Keys, indexes and the TTL that runtime code names exist in the tables."""

from __future__ import annotations

import ast
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from runsfleet_runtime.contract.tables import (
    TTL_ATTRIBUTE,
    AuditAttr,
    CircuitAttr,
    InstanceAttr,
    InstanceIndex,
    JobAttr,
    JobIndex,
    LeaseAttr,
    RunnerAttr,
    SlotAttr,
)
from tests.infrastructure.templates import Template

RUNTIME = Path(__file__).resolve().parents[2] / "runtime" / "runsfleet_runtime"


TABLES: list[tuple[str, type[StrEnum], list[str]]] = [
    ("Jobs", JobAttr, [JobAttr.ID]),
    ("Runners", RunnerAttr, [RunnerAttr.KEY]),
    ("CircuitState", CircuitAttr, [CircuitAttr.OFFERING]),
    ("Leases", LeaseAttr, [LeaseAttr.NAME]),
    ("Instances", InstanceAttr, [InstanceAttr.ID]),
    ("Slots", SlotAttr, [SlotAttr.SCOPE]),
    ("Audit", AuditAttr, [AuditAttr.SUBJECT, AuditAttr.AT]),
]


def table_of(template: Template, name: str) -> dict[str, Any]:
    """Return the properties of a table."""
    found = template.at(f"Tables/{name}/Resource", "AWS::DynamoDB::GlobalTable")
    return dict(found["Properties"])


@pytest.mark.parametrize(("name", "_attributes", "keys"), TABLES)
def test_keys_are_the_contracts(
    dev: Template, name: str, _attributes: type[StrEnum], keys: list[str]
) -> None:
    """Each table has the text keys that the contract names."""
    table = table_of(dev, name)
    kinds = ("HASH", "RANGE")
    assert table["KeySchema"] == [
        {"AttributeName": key, "KeyType": kind} for key, kind in zip(keys, kinds, strict=False)
    ]
    for key in keys:
        assert {"AttributeName": key, "AttributeType": "S"} in table["AttributeDefinitions"]


def test_every_table_is_known_here(dev: Template) -> None:
    """No table is made whose keys and expiry are not the contract's."""
    assert len(dev.of_type("AWS::DynamoDB::GlobalTable")) == len(TABLES)


@pytest.mark.parametrize(("name", "attributes", "_keys"), TABLES)
def test_items_expire_by_the_one_attribute(
    dev: Template, name: str, attributes: type[StrEnum], _keys: list[str]
) -> None:
    """A table expires its items by the contract's attribute if code writes one into them."""
    written = {"AttributeName": TTL_ATTRIBUTE, "Enabled": True}
    expires = TTL_ATTRIBUTE in set(attributes)
    assert table_of(dev, name).get("TimeToLiveSpecification") == (written if expires else None)


def test_indexes_of_jobs_are_the_contracts(dev: Template) -> None:
    """Each index has the keys that the contract says, of the types that code writes, no more."""
    table = table_of(dev, "Jobs")
    types = {a["AttributeName"]: a["AttributeType"] for a in table["AttributeDefinitions"]}
    found = {
        index["IndexName"]: [key["AttributeName"] for key in index["KeySchema"]]
        for index in table["GlobalSecondaryIndexes"]
    }
    assert found == {
        JobIndex.BY_STATUS: [JobAttr.STATUS, JobAttr.UPDATED_AT],
        JobIndex.BY_INSTANCE: [JobAttr.INSTANCE_ID],
        JobIndex.BY_RUN: [JobAttr.RUN_ID],
        JobIndex.BY_RERUN: [JobAttr.RERUN, JobAttr.UPDATED_AT],
    }
    assert {name: types[name] for keys in found.values() for name in keys} == {
        JobAttr.STATUS: "S",
        JobAttr.UPDATED_AT: "N",
        JobAttr.INSTANCE_ID: "S",
        JobAttr.RUN_ID: "N",
        JobAttr.RERUN: "S",
    }
    projections = [i["Projection"]["ProjectionType"] for i in table["GlobalSecondaryIndexes"]]
    assert set(projections) == {"KEYS_ONLY"}


def test_index_of_instances_is_the_contracts(dev: Template) -> None:
    """The index holds the days, in the order of the launches."""
    table = table_of(dev, "Instances")
    (index,) = table["GlobalSecondaryIndexes"]
    keys = [key["AttributeName"] for key in index["KeySchema"]]
    assert index["IndexName"] == InstanceIndex.BY_DAY
    assert keys == [InstanceAttr.LAUNCHED_ON, InstanceAttr.LAUNCHED_AT]


def test_every_index_that_code_queries_exists(dev: Template) -> None:
    """Each ``IndexName`` in the runtime is an index of one of the tables, by text or by name."""
    indexes = {
        index["IndexName"]
        for table in dev.of_type("AWS::DynamoDB::GlobalTable").values()
        for index in table["Properties"].get("GlobalSecondaryIndexes", [])
    }
    assert _queried() <= indexes


def _queried() -> set[str]:
    """Return the indexes that calls and request dictionaries of the runtime name."""
    found: set[str] = set()
    for path in RUNTIME.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "IndexName":
                found.add(ast.unparse(node.value))
            elif isinstance(node, ast.Dict):
                pairs = zip(node.keys, node.values, strict=True)
                found |= {
                    ast.unparse(value)
                    for key, value in pairs
                    if isinstance(key, ast.Constant) and key.value == "IndexName"
                }
    return {name for expression in found for name in _texts(expression)}


def _texts(expression: str) -> set[str]:
    """Return what an expression may be: a literal, a name of the contract, or any of an enum's.

    ``JobIndex.BY_RUN.value`` is one name; ``index.value`` of an argument may be each.
    """
    if expression[0] in "'\"":
        return {str(ast.literal_eval(expression))}
    kind, member, *_ = expression.split(".")
    for enum in (InstanceIndex, JobIndex):
        if kind == enum.__name__:
            return {str(enum[member].value)}
    return {index.value for index in JobIndex}
