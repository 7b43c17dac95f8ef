"""A model of DynamoDB: what the fleet's adapters call, with indexes that lag behind.

Items are kept in the low-level form and never changed in place. Held to moto by
``tests/unit/simulation/test_dynamodb_model.py``; what moto gets wrong (idempotency tokens, lag,
pages) is after AWS's documentation.
"""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.simulation import expressions
from tests.simulation.errors import client_error
from tests.simulation.expressions import ExpressionError, Item, Scope, Value

PAGE: Final = 100
"""Items of a page. DynamoDB ends a page at 1 MB and may at any item, so callers must go on."""
_TOKEN_SECONDS: Final = 600.0  # for so long a transaction's token is remembered
_MOST_ACTIONS: Final = 100  # of one transaction


@dataclass(frozen=True, slots=True)
class Index:
    """A global secondary index; of keys alone, unless it has everything."""

    hash_key: str
    range_key: str | None = None
    has_all: bool = False


@dataclass(slots=True)
class Table:
    """A table.

    Attributes:
        hash_key: Its partition key.
        range_key: Its sort key, if it has one.
        indexes: Its indexes by name.
        items: What it holds, by key.
    """

    hash_key: str
    range_key: str | None = None
    indexes: Mapping[str, Index] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    items: dict[tuple[str, ...], Item] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of its key's attributes."""
        return (self.hash_key,) if self.range_key is None else (self.hash_key, self.range_key)

    def key_type(self, name: str) -> str:
        """Return the type of a key's attribute; text unless said."""
        return self.types.get(name, "S")


class _View:
    """What the indexes of a table show: the table as it was a moment ago."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._coming: list[tuple[float, int, tuple[str, ...], Item | None]] = []
        self._order = itertools.count()
        self._shown: dict[tuple[str, ...], int] = {}  # the newest version that was applied
        self._items: dict[tuple[str, ...], Item] = {}
        self._by_hash: dict[str, defaultdict[str, set[tuple[str, ...]]]] = {
            name: defaultdict(set) for name in table.indexes
        }

    def write(self, visible_at: float, key: tuple[str, ...], item: Item | None) -> None:
        heapq.heappush(self._coming, (visible_at, next(self._order), key, item))

    def _catch_up(self, now: float) -> None:
        while self._coming and self._coming[0][0] <= now:
            _, version, key, item = heapq.heappop(self._coming)
            if version < self._shown.get(key, -1):
                continue
            self._shown[key] = version
            old = self._items.get(key)
            for name, index in self._table.indexes.items():
                if old is not None and index.hash_key in old:
                    self._by_hash[name][_scalar(old[index.hash_key])].discard(key)
                if item is not None and all(k in item for k in _names(index)):
                    self._by_hash[name][_scalar(item[index.hash_key])].add(key)
            if item is None:
                self._items.pop(key, None)
            else:
                self._items[key] = item

    def find(self, index: str, value: Value, now: float) -> list[Item]:
        self._catch_up(now)
        definition = self._table.indexes[index]
        kept = {*self._table.keys, *_names(definition)}
        found = sorted(self._by_hash[index].get(_scalar(value), ()))
        if definition.has_all:
            return [dict(self._items[key]) for key in found]
        return [{k: v for k, v in self._items[key].items() if k in kept} for key in found]


class DynamoDB:
    """The service.

    Args:
        tables: Tables by their physical names.
        clock: Simulated time.
        lag: Returns the seconds by which a write reaches the indexes.
    """

    def __init__(
        self,
        tables: Mapping[str, Table],
        *,
        clock: Callable[[], float],
        lag: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.tables = tables
        self._clock = clock
        self._lag = lag
        self._views = {name: _View(table) for name, table in tables.items()}
        self._tokens: dict[str, float] = {}

    # -- single items --------------------------------------------------------------------------

    def get_item(self, **request: Any) -> dict[str, Any]:
        table = self._table("get_item", request)
        item = table.items.get(self._key("get_item", table, request["Key"]))
        if item is None:
            return {}
        names = request.get("ExpressionAttributeNames", {})
        return {"Item": _projected(item, request.get("ProjectionExpression"), names)}

    def put_item(self, **request: Any) -> dict[str, Any]:
        old = self._single("put_item", "Put", request)
        return _returned(request, old, request["Item"])

    def delete_item(self, **request: Any) -> dict[str, Any]:
        old = self._single("delete_item", "Delete", request)
        return _returned(request, old, None)

    def update_item(self, **request: Any) -> dict[str, Any]:
        table = self._table("update_item", request)
        old = self._single("update_item", "Update", request)
        new = table.items[self._key("update_item", table, request["Key"])]
        return _returned(request, old, new)

    def _single(self, operation: str, kind: str, request: Mapping[str, Any]) -> Item | None:
        table = self._table(operation, request)
        try:
            key, new, is_met = self._prepared(kind, table, request)
        except ExpressionError as error:
            raise client_error(operation, "ValidationException", str(error)) from None
        old = table.items.get(key)
        if not is_met:
            more: dict[str, Any] = {}
            if old is not None and request.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD":
                more["Item"] = dict(old)
            raise client_error(
                operation,
                "ConditionalCheckFailedException",
                "The conditional request failed",
                **more,
            )
        self._store(request["TableName"], key, new)
        return old

    # -- several items -------------------------------------------------------------------------

    def transact_write_items(self, **request: Any) -> dict[str, Any]:
        operation = "transact_write_items"
        actions = [next(iter(entry.items())) for entry in request["TransactItems"]]
        if not actions or len(actions) > _MOST_ACTIONS:
            raise client_error(operation, "ValidationException", f"{len(actions)} actions")
        now = self._clock()
        token = request.get("ClientRequestToken")
        if token is not None and now - self._tokens.get(token, -_TOKEN_SECONDS) < _TOKEN_SECONDS:
            return {}
        writes: list[tuple[str, tuple[str, ...], Item | None]] = []
        reasons: list[dict[str, Any]] = []
        for kind, action in actions:
            table = self._table(operation, action)
            try:
                key, new, is_met = self._prepared(kind, table, action)
            except ExpressionError as error:
                raise client_error(operation, "ValidationException", str(error)) from None
            if is_met:
                reasons.append({"Code": "None"})
                if kind != "ConditionCheck":
                    writes.append((action["TableName"], key, new))
            else:
                reason = {"Code": "ConditionalCheckFailed", "Message": "The condition failed"}
                old = table.items.get(key)
                if old and action.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD":
                    reason["Item"] = dict(old)  # type: ignore[assignment]  # one of its kinds
                reasons.append(reason)
        targets = [
            (action["TableName"], self._action_key(kind, action)) for kind, action in actions
        ]
        if len(set(targets)) < len(targets):
            raise client_error(
                operation,
                "ValidationException",
                "Transaction request cannot include multiple operations on one item",
            )
        if any(reason["Code"] != "None" for reason in reasons):
            raise client_error(
                operation, "TransactionCanceledException", CancellationReasons=reasons
            )
        for name, key, new in writes:
            self._store(name, key, new)
        if token is not None:
            self._tokens[token] = now
        return {}

    def batch_get_item(self, **request: Any) -> dict[str, Any]:
        answer: dict[str, list[Item]] = {}
        for name, wanted in request["RequestItems"].items():
            table = self._table("batch_get_item", {"TableName": name})
            keys = [self._key("batch_get_item", table, key) for key in wanted["Keys"]]
            names = wanted.get("ExpressionAttributeNames", {})
            answer[name] = [
                _projected(table.items[key], wanted.get("ProjectionExpression"), names)
                for key in keys
                if key in table.items
            ]
        return {"Responses": answer, "UnprocessedKeys": {}}

    def batch_write_item(self, **request: Any) -> dict[str, Any]:
        for name, entries in request["RequestItems"].items():
            table = self._table("batch_write_item", {"TableName": name})
            for entry in entries:
                if "PutRequest" in entry:
                    item = entry["PutRequest"]["Item"]
                    self._store(name, self._key_of(table, item), item)
                else:
                    key = self._key("batch_write_item", table, entry["DeleteRequest"]["Key"])
                    self._store(name, key, None)
        return {"UnprocessedItems": {}}

    # -- many items ----------------------------------------------------------------------------

    def query(self, **request: Any) -> dict[str, Any]:
        operation = "query"
        table = self._table(operation, request)
        index = request.get("IndexName")
        scope = Scope(
            request.get("ExpressionAttributeNames", {}),
            request.get("ExpressionAttributeValues", {}),
        )
        try:
            matches = expressions.condition(request["KeyConditionExpression"])
            if index is None:
                found = [i for i in table.items.values() if matches(i, scope)]
                order = table.range_key
            else:
                if request.get("ConsistentRead"):
                    raise client_error(
                        operation, "ValidationException", "no consistent read of an index"
                    )
                definition = table.indexes[index]
                value = _hash_value(request["KeyConditionExpression"], definition.hash_key, scope)
                seen = self._views[request["TableName"]].find(index, value, self._clock())
                found = [i for i in seen if matches(i, scope)]
                order = definition.range_key
        except ExpressionError as error:
            raise client_error(operation, "ValidationException", str(error)) from None
        return self._page(operation, table, found, request, scope, order=order)

    def scan(self, **request: Any) -> dict[str, Any]:
        table = self._table("scan", request)
        scope = Scope(
            request.get("ExpressionAttributeNames", {}),
            request.get("ExpressionAttributeValues", {}),
        )
        return self._page("scan", table, list(table.items.values()), request, scope, order=None)

    def _page(
        self,
        operation: str,
        table: Table,
        found: Sequence[Item],
        request: Mapping[str, Any],
        scope: Scope,
        *,
        order: str | None,
    ) -> dict[str, Any]:
        def place(item: Mapping[str, Value]) -> tuple[Any, ...]:
            key = self._key_of(table, item)
            return key if order is None else (expressions.plain(item[order]), *key)

        backwards = request.get("ScanIndexForward") is False
        found = sorted(found, key=place, reverse=backwards)
        try:
            expressions.check_usage(
                scope.names,
                scope.values,
                *(
                    request.get(name, "")
                    for name in (
                        "KeyConditionExpression",
                        "FilterExpression",
                        "ProjectionExpression",
                    )
                ),
            )
            if (start := request.get("ExclusiveStartKey")) is not None:
                at = place(start)
                found = [i for i in found if (place(i) < at if backwards else place(i) > at)]
            rest = iter(found)
            page = list(itertools.islice(rest, min(request.get("Limit") or PAGE, PAGE)))
            is_last = next(rest, None) is None
            kept: Iterable[Item] = page
            if text := request.get("FilterExpression"):
                keep = expressions.condition(text)
                kept = [item for item in page if keep(item, scope)]
        except ExpressionError as error:
            raise client_error(operation, "ValidationException", str(error)) from None
        items = [_projected(i, request.get("ProjectionExpression"), scope.names) for i in kept]
        answer: dict[str, Any] = {"Count": len(items), "ScannedCount": len(page)}
        if request.get("Select") != "COUNT":
            answer["Items"] = items
        if not is_last:
            names = set(table.keys)
            if (index := request.get("IndexName")) is not None:
                names |= set(_names(table.indexes[index]))
            answer["LastEvaluatedKey"] = {k: v for k, v in page[-1].items() if k in names}
        return answer

    # -- in common -----------------------------------------------------------------------------

    def _table(self, operation: str, request: Mapping[str, Any]) -> Table:
        try:
            return self.tables[request["TableName"]]
        except KeyError:
            raise client_error(
                operation, "ResourceNotFoundException", f"no table {request.get('TableName')!r}"
            ) from None

    def _key(self, operation: str, table: Table, key: Mapping[str, Value]) -> tuple[str, ...]:
        if set(key) != set(table.keys) or not all(
            table.key_type(name) in value for name, value in key.items()
        ):
            raise client_error(operation, "ValidationException", "the key does not fit the schema")
        return self._key_of(table, key)

    @staticmethod
    def _key_of(table: Table, item: Mapping[str, Value]) -> tuple[str, ...]:
        return tuple(_scalar(item[name]) for name in table.keys)

    def _action_key(self, kind: str, action: Mapping[str, Any]) -> tuple[str, ...]:
        table = self.tables[action["TableName"]]
        return self._key_of(table, action["Item"] if kind == "Put" else action["Key"])

    def _prepared(
        self, kind: str, table: Table, action: Mapping[str, Any]
    ) -> tuple[tuple[str, ...], Item | None, bool]:
        """Return the key, the new item and whether the condition is met."""
        scope = Scope(
            action.get("ExpressionAttributeNames", {}), action.get("ExpressionAttributeValues", {})
        )
        texts = [action.get(n, "") for n in ("UpdateExpression", "ConditionExpression")]
        expressions.check_usage(scope.names, scope.values, *texts)
        source = action["Item"] if kind == "Put" else action["Key"]
        if not all(name in source and table.key_type(name) in source[name] for name in table.keys):
            raise ExpressionError("the key does not fit the schema")
        if kind != "Put" and set(source) != set(table.keys):
            raise ExpressionError("the key does not fit the schema")
        key = self._key_of(table, source)
        if not all(key):
            raise ExpressionError("a key must not be empty")
        old = table.items.get(key)
        text = action.get("ConditionExpression")
        if text and not expressions.condition(text)(old or {}, scope):
            return key, None, False
        new: Item | None = None
        if kind == "Put":
            new = dict(source)
        elif kind == "Update":
            new = dict(old or source)
            if update := action.get("UpdateExpression"):
                new = expressions.update(update)(new, scope)
            if any(new.get(name) != source[name] for name in table.keys):
                raise ExpressionError("an update must not change the key")
        elif kind == "ConditionCheck":
            new = old
        self._check_index_keys(table, new or {})
        return key, new, True

    @staticmethod
    def _check_index_keys(table: Table, item: Item) -> None:
        for name in {name for index in table.indexes.values() for name in _names(index)}:
            value = item.get(name)
            if value is not None and not _scalar_or_none(value, table.key_type(name)):
                raise ExpressionError(f"{name} is a key of an index and must not be {value}")

    def _store(self, name: str, key: tuple[str, ...], item: Item | None) -> None:
        table = self.tables[name]
        if item is None:
            table.items.pop(key, None)
        else:
            table.items[key] = item
        if table.indexes:
            self._views[name].write(self._clock() + self._lag(), key, item)


def _names(index: Index) -> tuple[str, ...]:
    return (index.hash_key,) if index.range_key is None else (index.hash_key, index.range_key)


def _scalar(value: Value) -> str:
    return str(next(iter(value.values())))


def _scalar_or_none(value: Value, kind: str) -> str | None:
    return str(value[kind]) if value.get(kind) not in {None, ""} else None


def _hash_value(text: str, name: str, scope: Scope) -> Value:
    tokens = expressions.tokens(text)
    for at, token in enumerate(tokens[:-2]):
        if scope.name(token) == name and tokens[at + 1] == "=":
            return scope.value(tokens[at + 2])
    raise ExpressionError(f"the key condition names no value of {name}")


def _projected(item: Item, text: str | None, names: Mapping[str, str]) -> Item:
    if not text:
        return dict(item)
    wanted = [names.get(part, part) for part in expressions.projection(text)]
    return {name: item[name] for name in wanted if name in item}


def _returned(request: Mapping[str, Any], old: Item | None, new: Item | None) -> dict[str, Any]:
    kind = request.get("ReturnValues", "NONE")
    found = {"ALL_OLD": old, "ALL_NEW": new}.get(kind)
    if kind not in {"NONE", "ALL_OLD", "ALL_NEW"}:
        raise NotImplementedError(f"ReturnValues={kind}")
    return {"Attributes": dict(found)} if found else {}
