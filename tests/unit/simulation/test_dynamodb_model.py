"""The simulation's DynamoDB answers as moto's does, for expressions of the forms in use."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto import mock_aws

from tests.simulation.clients import Client, Gate
from tests.simulation.dynamodb import PAGE, DynamoDB, Index, Table
from tests.simulation.loop import Loop

_KEYS = ("1", "2", "3")
_ATTRIBUTES = ("status", "used", "note", "labels", "at")
_names = itertools.count()


@pytest.fixture(scope="module")
def real() -> Iterator[Any]:
    """A client of moto."""
    with mock_aws():
        yield boto3.client("dynamodb", region_name="eu-central-1")


def _models(real: Any) -> tuple[Client, str]:
    """Make the same empty table on both sides; return the model's client and the table's name."""
    name = f"t{next(_names)}"
    real.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[
            {"AttributeName": "id", "AttributeType": "S"},
            {"AttributeName": "status", "AttributeType": "S"},
            {"AttributeName": "at", "AttributeType": "N"},
        ],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "by-status",
                "KeySchema": [
                    {"AttributeName": "status", "KeyType": "HASH"},
                    {"AttributeName": "at", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            }
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    table = Table("id", indexes={"by-status": Index("status", "at")}, types={"at": "N"})
    loop = Loop(0.0)
    model = DynamoDB({name: table}, clock=lambda: loop.now)
    return Client("dynamodb", model, Gate(loop)), name


_texts = st.sampled_from(["queued", "claimed", "x"])
_numbers = st.sampled_from(["0", "1", "2", "2.5", "-3", "1700000000.25"])


def _value(attribute: str) -> st.SearchStrategy[dict[str, Any]]:
    if attribute in {"used", "at"}:
        return _numbers.map(lambda n: {"N": n})
    if attribute == "labels":
        return st.lists(_texts, max_size=2).map(lambda texts: {"L": [{"S": t} for t in texts]})
    return _texts.map(lambda t: {"S": t})


@st.composite
def _condition(draw: st.DrawFn, names: dict[str, str], values: dict[str, Any]) -> str:
    """Draw a condition of the forms that adapters write; notes its names and values."""

    def name(attribute: str) -> str:
        names[f"#{attribute}"] = attribute
        return f"#{attribute}"

    def value(found: dict[str, Any]) -> str:
        alias = f":c{len(values)}"
        values[alias] = found
        return alias

    def one() -> str:
        attribute = draw(st.sampled_from(_ATTRIBUTES[:3]))
        match draw(st.integers(0, 5)):
            case 0:
                return f"attribute_exists({name(attribute)})"
            case 1:
                return f"attribute_not_exists({name(attribute)})"
            case 2:
                options = ", ".join(value(draw(_value(attribute))) for _ in range(2))
                return f"{name(attribute)} IN ({options})"
            case 3 if attribute != "used":
                return f"begins_with({name(attribute)}, {value({'S': 'cl'})})"
            case 4:
                return f"NOT {name(attribute)} = {value(draw(_value(attribute)))}"
            case _:
                operator = draw(st.sampled_from(["=", "<>", "<", "<=", ">", ">="]))
                return f"{name(attribute)} {operator} {value(draw(_value(attribute)))}"

    parts = [one() for _ in range(draw(st.integers(1, 3)))]
    glue = draw(st.sampled_from([" AND ", " OR "]))
    text = glue.join(parts)
    if draw(st.booleans()):
        text = f"({text}) {draw(st.sampled_from(['AND', 'OR']))} ({one()} AND {one()})"
    return text


@st.composite
def _write(draw: st.DrawFn, table: str) -> tuple[str, dict[str, Any]]:
    """Draw a put, an update or a deletion, with a condition or none."""
    kind = draw(st.sampled_from(["Put", "Update", "Update", "Update", "Delete"]))
    names: dict[str, str] = {}
    values: dict[str, Any] = {}
    key = {"id": {"S": draw(st.sampled_from(_KEYS))}}
    action: dict[str, Any] = {"TableName": table}
    if kind == "Put":
        chosen = draw(st.sets(st.sampled_from(_ATTRIBUTES)))
        action["Item"] = key | {a: draw(_value(a)) for a in sorted(chosen)}
    else:
        action["Key"] = key
    if kind == "Update":
        action["UpdateExpression"] = _update(draw, names, values)
    if draw(st.integers(0, 3)):
        action["ConditionExpression"] = draw(_condition(names, values))
        action["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
    if names:
        action["ExpressionAttributeNames"] = names
    if values:
        action["ExpressionAttributeValues"] = values
    return kind, action


def _update(draw: st.DrawFn, names: dict[str, str], values: dict[str, Any]) -> str:
    sets, removes, adds = [], [], []
    for attribute in sorted(draw(st.sets(st.sampled_from(_ATTRIBUTES), min_size=1))):
        alias = f"#{attribute}"
        names[alias] = attribute
        form = draw(st.integers(0, 3))
        if form == 0:
            removes.append(alias)
            continue
        values[f":{attribute}"] = draw(_value(attribute))
        if form == 1 and attribute == "used":
            adds.append(f"{alias} :{attribute}")
        elif form == 1 and attribute == "labels":
            values[":none"] = {"L": []}
            sets.append(f"{alias} = list_append(if_not_exists({alias}, :none), :{attribute})")
        elif form == 2 and attribute == "used":
            sign = draw(st.sampled_from("+-"))
            values[":zero"] = {"N": "0"}
            sets.append(f"{alias} = if_not_exists({alias}, :zero) {sign} :{attribute}")
        elif form == 2:
            sets.append(f"{alias} = if_not_exists({alias}, :{attribute})")
        else:
            sets.append(f"{alias} = :{attribute}")
    clauses = {"SET": sets, "REMOVE": removes, "ADD": adds}
    return " ".join(f"{word} {', '.join(parts)}" for word, parts in clauses.items() if parts)


def _outcome(client: Any, operation: str, **request: Any) -> Any:
    """Return an answer, or what an error says that callers look at."""
    try:
        answer = getattr(client, operation)(**request)
    except ClientError as error:
        reasons = error.response.get("CancellationReasons", [])
        return {
            "code": error.response["Error"]["Code"],
            "item": _numeric(error.response.get("Item")),
            "reasons": [(r["Code"], _numeric(r.get("Item"))) for r in reasons],
        }
    return {"attributes": _numeric(answer.get("Attributes"))}


def _numeric(item: Any) -> Any:
    """Return an item with its numbers as numbers: 2.0 and 2 are the same to DynamoDB."""
    if isinstance(item, dict):
        if set(item) == {"N"}:
            return float(item["N"])
        return {k: _numeric(v) for k, v in item.items()} or None
    return [_numeric(entry) for entry in item] if isinstance(item, list) else item


def _contents(client: Any, table: str) -> Any:
    found = client.scan(TableName=table)["Items"]
    return {item["id"]["S"]: _numeric(item) for item in found}


@settings(max_examples=75, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_writes_do_what_they_do_at_moto(real: Any, data: st.DataObject) -> None:
    """Any sequence of conditional writes gives the same answers and leaves the same items."""
    model, table = _models(real)
    for kind, action in data.draw(st.lists(_write(table), min_size=1, max_size=8)):
        operation = {"Put": "put_item", "Update": "update_item", "Delete": "delete_item"}[kind]
        expected = _outcome(real, operation, **action)
        assert _outcome(model, operation, **action) == expected
    assert _contents(model, table) == _contents(real, table)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_transactions_do_what_they_do_at_moto(real: Any, data: st.DataObject) -> None:
    """All actions of a transaction are done or none, and the reasons name the refused ones."""
    model, table = _models(real)
    for _ in range(data.draw(st.integers(1, 3))):
        drawn = data.draw(st.lists(_write(table), min_size=1, max_size=3))
        by_key = {str((a.get("Key") or a["Item"])["id"]): (k, a) for k, a in drawn}
        actions = [{kind: action} for kind, action in by_key.values()]
        expected = _outcome(real, "transact_write_items", TransactItems=actions)
        assert _outcome(model, "transact_write_items", TransactItems=actions) == expected
    assert _contents(model, table) == _contents(real, table)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_index_finds_what_it_finds_at_moto(real: Any, data: st.DataObject) -> None:
    """A query of an index gives the keys of those items that have its keys, in their order."""
    model, table = _models(real)
    keys = data.draw(st.lists(st.integers(1, 20).map(str), max_size=6, unique=True))
    for key in keys:
        item = {"id": {"S": key}, "note": {"S": "x"}}
        if data.draw(st.booleans()):
            item["status"] = data.draw(_value("status"))
        if data.draw(st.booleans()):
            # the order of equals is nobody's promise
            item["at"] = {"N": key}
        real.put_item(TableName=table, Item=item)
        model.put_item(TableName=table, Item=item)
    request = {
        "TableName": table,
        "IndexName": "by-status",
        "KeyConditionExpression": "#status = :status AND #at < :at",
        "ExpressionAttributeNames": {"#status": "status", "#at": "at"},
        "ExpressionAttributeValues": {":status": {"S": "queued"}, ":at": {"N": "10"}},
        "ScanIndexForward": data.draw(st.booleans()),
    }
    expected = [_numeric(item) for item in real.query(**request)["Items"]]
    assert [_numeric(item) for item in model.query(**request)["Items"]] == expected


def test_unused_names_are_refused() -> None:
    """A name or value that no expression uses is an error, as it is at AWS."""
    model = DynamoDB({"t": Table("id")}, clock=lambda: 0.0)
    with pytest.raises(ClientError, match="unused"):
        model.update_item(
            TableName="t",
            Key={"id": {"S": "1"}},
            UpdateExpression="SET #a = :a",
            ExpressionAttributeNames={"#a": "a", "#b": "b"},
            ExpressionAttributeValues={":a": {"S": "1"}},
        )


def test_a_repeated_transaction_is_done_once() -> None:
    """A transaction with a token that was used within ten minutes succeeds and changes nothing."""
    now = 0.0
    model = DynamoDB({"t": Table("id")}, clock=lambda: now)
    request: dict[str, Any] = {
        "ClientRequestToken": "x",
        "TransactItems": [
            {
                "Update": {
                    "TableName": "t",
                    "Key": {"id": {"S": "1"}},
                    "UpdateExpression": "ADD #a :one",
                    "ExpressionAttributeNames": {"#a": "a"},
                    "ExpressionAttributeValues": {":one": {"N": "1"}},
                }
            }
        ],
    }
    model.transact_write_items(**request)
    model.transact_write_items(**request)
    assert model.tables["t"].items["1",]["a"] == {"N": "1"}
    now = 601.0
    model.transact_write_items(**request)
    assert model.tables["t"].items["1",]["a"] == {"N": "2"}


def test_pages_go_on_where_the_last_one_ended() -> None:
    """A scan of more than a page gives each item once, also while items are deleted meanwhile."""
    table = Table("id")
    model = DynamoDB({"t": table}, clock=lambda: 0.0)
    for number in range(2 * PAGE + 5):
        model.put_item(TableName="t", Item={"id": {"S": f"{number:04}"}})
    seen: list[str] = []
    start: dict[str, Any] = {}
    while True:
        answer = model.scan(TableName="t", **start)
        seen += [item["id"]["S"] for item in answer["Items"]]
        if "LastEvaluatedKey" not in answer:
            break
        start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}
        model.delete_item(TableName="t", Key=answer["LastEvaluatedKey"])
    assert seen == sorted(set(seen))
    assert len(seen) == 2 * PAGE + 5


def test_an_index_lags_behind() -> None:
    """What was written is found by an index only some time later, whatever came in between."""
    now, lags = 0.0, iter([10.0, 1.0])
    table = Table("id", indexes={"by-status": Index("status")})
    model = DynamoDB({"t": table}, clock=lambda: now, lag=lambda: next(lags))
    request = {
        "TableName": "t",
        "IndexName": "by-status",
        "KeyConditionExpression": "#s = :s",
        "ExpressionAttributeNames": {"#s": "status"},
    }

    def found(status: str) -> int:
        values = {":s": {"S": status}}
        answer = model.query(**request, ExpressionAttributeValues=values)
        return int(answer["Count"])

    model.put_item(TableName="t", Item={"id": {"S": "1"}, "status": {"S": "old"}})
    model.put_item(TableName="t", Item={"id": {"S": "1"}, "status": {"S": "new"}})
    assert (found("old"), found("new")) == (0, 0)
    now = 2.0
    assert (found("old"), found("new")) == (0, 1)
    now = 20.0  # the first write arrives last and must not come back
    assert (found("old"), found("new")) == (0, 1)
