"""Keys, indexes and the TTL that runtime code names exist in the tables."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from runsfleet_runtime.contract.tables import TTL_ATTRIBUTE, JobAttr, RunnerAttr
from tests.infrastructure.templates import Template

RUNTIME = Path(__file__).resolve().parents[2] / "runtime" / "runsfleet_runtime"


@pytest.mark.parametrize(
    ("path", "key"),
    [("Tables/Jobs/Resource", JobAttr.ID), ("Tables/Runners/Resource", RunnerAttr.KEY)],
)
def test_keys_are_the_contracts(dev: Template, path: str, key: str) -> None:
    """Each table has the one string key that the contract names."""
    table = dev.at(path, "AWS::DynamoDB::GlobalTable")["Properties"]
    assert table["KeySchema"] == [{"AttributeName": key, "KeyType": "HASH"}]
    assert {"AttributeName": key, "AttributeType": "S"} in table["AttributeDefinitions"]


def test_items_expire_by_the_one_attribute(dev: Template) -> None:
    """What code writes as the expiry is what the tables expire by."""
    assert {JobAttr.EXPIRES_AT.value, RunnerAttr.EXPIRES_AT.value} == {TTL_ATTRIBUTE}
    for table in dev.of_type("AWS::DynamoDB::GlobalTable").values():
        assert table["Properties"]["TimeToLiveSpecification"]["AttributeName"] == TTL_ATTRIBUTE


def test_every_index_that_code_queries_exists(dev: Template) -> None:
    """Each ``IndexName`` in the runtime is an index of one of the tables."""
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
    return {name.strip("'\"") for name in found}
