"""DynamoDB's expressions: conditions and updates, as far as any code of the fleet writes them.

An expression is compiled once into functions over an item in DynamoDB's low-level form. Held to
moto by ``tests/unit/simulation/test_dynamodb_model.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any

Value = dict[str, Any]
Item = dict[str, Value]
_TOKEN = re.compile(r"\s*(<=|>=|<>|[=<>(),.+-]|\[\d+\]|[#:]?[A-Za-z_][\w-]*|\d+)")
_ORDERED = frozenset({"S", "N", "B"})


class ExpressionError(Exception):
    """DynamoDB would answer with a ValidationException."""


class Scope:
    """Names and values of one request; tells in the end which were not used."""

    def __init__(self, names: Mapping[str, str], values: Mapping[str, Value]) -> None:
        self.names = names
        self.values = values

    def value(self, alias: str) -> Value:
        try:
            return self.values[alias]
        except KeyError:
            raise ExpressionError(f"value {alias} is not defined") from None

    def name(self, alias: str) -> str:
        if not alias.startswith("#"):
            return alias
        try:
            return self.names[alias]
        except KeyError:
            raise ExpressionError(f"name {alias} is not defined") from None


Operand = Callable[[Item, Scope], Value | None]
Condition = Callable[[Item, Scope], bool]
Update = Callable[[Item, Scope], Item]


def check_usage(names: Mapping[str, str], values: Mapping[str, Value], *expressions: str) -> None:
    """Refuse names and values that no expression uses, as DynamoDB does.

    Raises:
        ExpressionError: If there are any.
    """
    used = frozenset().union(*(_aliases(text) for text in expressions))
    if unused := sorted({*names, *values} - used):
        raise ExpressionError(f"unused in expressions: {', '.join(unused)}")


@lru_cache(maxsize=4096)
def _aliases(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[#:][A-Za-z_][\w-]*", text))


@lru_cache(maxsize=4096)
def condition(text: str) -> Condition:
    """Compile a condition, filter or key condition."""
    parser = _Parser(text)
    compiled = parser.either()
    parser.end()
    return compiled


@lru_cache(maxsize=4096)
def update(text: str) -> Update:
    """Compile an update expression; the result returns a new item."""
    parser = _Parser(text)
    steps: list[Callable[[Item, Item, Scope], None]] = []
    while not parser.at_end():
        clause = parser.take().upper()
        steps.append(parser.step(clause))
        while parser.skip(","):
            steps.append(parser.step(clause))

    def apply(old: Item, scope: Scope) -> Item:
        new = dict(old)
        for step in steps:
            step(old, new, scope)
        return new

    return apply


@lru_cache(maxsize=4096)
def projection(text: str) -> tuple[str, ...]:
    """Return the names of a projection, aliases included."""
    return tuple(part.strip() for part in text.split(","))


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokens(text)
        self._at = 0

    def at_end(self) -> bool:
        return self._at >= len(self._tokens)

    def end(self) -> None:
        if not self.at_end():
            raise ExpressionError(f"syntax error at {self.peek()!r} in {self._text!r}")

    def peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self._at += 1
        return token

    def skip(self, token: str) -> bool:
        if self.peek().upper() == token:
            self._at += 1
            return True
        return False

    def want(self, token: str) -> None:
        if not self.skip(token):
            raise ExpressionError(f"expected {token} at {self.peek()!r} in {self._text!r}")

    # -- conditions ----------------------------------------------------------------------------

    def either(self) -> Condition:
        parts = [self._both()]
        while self.skip("OR"):
            parts.append(self._both())
        if len(parts) == 1:
            return parts[0]
        return lambda item, scope: any(part(item, scope) for part in parts)

    def _both(self) -> Condition:
        parts = [self._not()]
        while self.skip("AND"):
            parts.append(self._not())
        if len(parts) == 1:
            return parts[0]
        return lambda item, scope: all(part(item, scope) for part in parts)

    def _not(self) -> Condition:
        if self.skip("NOT"):
            inner = self._not()
            return lambda item, scope: not inner(item, scope)
        if self.skip("("):
            inside = self.either()
            self.want(")")
            return inside
        return self._test()

    def _test(self) -> Condition:
        word = self.peek().lower()
        if word in {"attribute_exists", "attribute_not_exists"}:
            self.take()
            self.want("(")
            path = self.operand()
            self.want(")")
            if word == "attribute_exists":
                return lambda item, scope: path(item, scope) is not None
            return lambda item, scope: path(item, scope) is None
        if word in {"begins_with", "contains"}:
            self.take()
            self.want("(")
            whole = self.operand()
            self.want(",")
            part = self.operand()
            self.want(")")
            judge = _begins_with if word == "begins_with" else _contains
            return lambda item, scope: judge(whole(item, scope), part(item, scope))
        left = self.operand()
        if self.skip("IN"):
            self.want("(")
            options = [self.operand()]
            while self.skip(","):
                options.append(self.operand())
            self.want(")")
            return lambda item, scope: any(
                _equal(left(item, scope), option(item, scope)) for option in options
            )
        if self.skip("BETWEEN"):
            low = self.operand()
            self.want("AND")
            high = self.operand()
            return lambda item, scope: (
                _ordered(low(item, scope), left(item, scope), lambda a, b: bool(a <= b))
                and _ordered(left(item, scope), high(item, scope), lambda a, b: bool(a <= b))
            )
        return self._comparison(left)

    def _comparison(self, left: Operand) -> Condition:
        operator = self.take()
        right = self.operand()
        if operator == "=":
            return lambda item, scope: _equal(left(item, scope), right(item, scope))
        if operator == "<>":
            return lambda item, scope: not _equal(left(item, scope), right(item, scope))
        orders: dict[str, Callable[[Any, Any], bool]] = {
            "<": lambda a, b: bool(a < b),
            "<=": lambda a, b: bool(a <= b),
            ">": lambda a, b: bool(a > b),
            ">=": lambda a, b: bool(a >= b),
        }
        if operator not in orders:
            raise ExpressionError(f"syntax error at {operator!r} in {self._text!r}")
        order = orders[operator]
        return lambda item, scope: _ordered(left(item, scope), right(item, scope), order)

    # -- operands ------------------------------------------------------------------------------

    def operand(self) -> Operand:
        token = self.take()
        if token.startswith(":"):
            return lambda _item, scope: scope.value(token)
        if token.lower() == "size":
            self.want("(")
            inner = self.operand()
            self.want(")")
            return lambda item, scope: _size(inner(item, scope))
        if not token or not (token[0] == "#" or token[0].isalpha() or token[0] == "_"):
            raise ExpressionError(f"syntax error at {token!r} in {self._text!r}")
        rest: list[str] = []
        while self.peek() == "." or self.peek().startswith("["):
            step = self.take()
            rest.append(self.take() if step == "." else step)
        if not rest:
            return lambda item, scope: item.get(scope.name(token))

        def nested(item: Item, scope: Scope) -> Value | None:
            found = item.get(scope.name(token))
            for step in rest:
                if found is None:
                    return None
                if step.startswith("["):
                    entries = found.get("L", [])
                    index = int(step[1:-1])
                    found = entries[index] if index < len(entries) else None
                else:
                    found = found.get("M", {}).get(scope.name(step))
            return found

        return nested

    # -- updates -------------------------------------------------------------------------------

    def step(self, clause: str) -> Callable[[Item, Item, Scope], None]:
        target = self.take()
        if self.peek() == "." or self.peek().startswith("["):
            raise ExpressionError(f"the model writes no nested path, got one in {self._text!r}")
        if clause == "SET":
            self.want("=")
            value = self._sum()

            def assign(old: Item, new: Item, scope: Scope) -> None:
                found = value(old, scope)
                if found is None:
                    raise ExpressionError("the expression refers to a missing attribute")
                new[scope.name(target)] = found

            return assign
        if clause == "REMOVE":
            return lambda _old, new, scope: _forget(new, scope.name(target))
        if clause in {"ADD", "DELETE"}:
            amount = self.operand()
            change = _add if clause == "ADD" else _delete
            return lambda old, new, scope: change(old, new, scope.name(target), amount(old, scope))
        raise ExpressionError(f"unknown clause {clause!r} in {self._text!r}")

    def _sum(self) -> Operand:
        left = self._term()
        if self.peek() not in {"+", "-"}:
            return left
        sign = 1 if self.take() == "+" else -1
        right = self._term()

        def total(item: Item, scope: Scope) -> Value:
            a, b = left(item, scope), right(item, scope)
            if a is None or b is None:
                raise ExpressionError("the expression refers to a missing attribute")
            if "N" not in a or "N" not in b:
                raise ExpressionError("an operand of + or - must be a number")
            return _number(Decimal(a["N"]) + sign * Decimal(b["N"]))

        return total

    def _term(self) -> Operand:
        word = self.peek().lower()
        if word not in {"if_not_exists", "list_append"}:
            return self.operand()
        self.take()
        self.want("(")
        first = self._term()
        self.want(",")
        second = self._sum()
        self.want(")")
        if word == "if_not_exists":
            return lambda item, scope: (
                found if (found := first(item, scope)) is not None else second(item, scope)
            )

        def joined(item: Item, scope: Scope) -> Value:
            a, b = first(item, scope), second(item, scope)
            if a is None or b is None or "L" not in a or "L" not in b:
                raise ExpressionError("list_append wants two lists")
            return {"L": [*a["L"], *b["L"]]}

        return joined


@lru_cache(maxsize=4096)
def tokens(text: str) -> tuple[str, ...]:
    """Return the words and signs of an expression."""
    found: list[str] = []
    at = 0
    stripped = text.rstrip()
    while at < len(stripped):
        match = _TOKEN.match(stripped, at)
        if match is None:
            raise ExpressionError(f"syntax error at {stripped[at:]!r} in {text!r}")
        found.append(match[1])
        at = match.end()
    return tuple(found)


def _kind(value: Value) -> str:
    return next(iter(value))


def plain(value: Value) -> Any:
    """Return what a scalar is compared by."""
    kind = _kind(value)
    return Decimal(value["N"]) if kind == "N" else value[kind]


def _equal(a: Value | None, b: Value | None) -> bool:
    if a is None or b is None or _kind(a) != _kind(b):
        return False
    if _kind(a) in {"SS", "NS"}:
        return {plain({_kind(a)[0]: x}) for x in a[_kind(a)]} == {
            plain({_kind(b)[0]: x}) for x in b[_kind(b)]
        }
    if _kind(a) == "L":
        return len(a["L"]) == len(b["L"]) and all(map(_equal, a["L"], b["L"]))
    return bool(plain(a) == plain(b))


def _ordered(a: Value | None, b: Value | None, order: Callable[[Any, Any], bool]) -> bool:
    if a is None or b is None or _kind(a) != _kind(b) or _kind(a) not in _ORDERED:
        return False
    return order(plain(a), plain(b))


def _begins_with(whole: Value | None, part: Value | None) -> bool:
    if whole is None or part is None or "S" not in whole or "S" not in part:
        return False
    return str(whole["S"]).startswith(part["S"])


def _contains(whole: Value | None, part: Value | None) -> bool:
    if whole is None or part is None:
        return False
    if "S" in whole:
        return "S" in part and part["S"] in whole["S"]
    if "L" in whole:
        return any(_equal(entry, part) for entry in whole["L"])
    kind = _kind(whole)
    if kind in {"SS", "NS"} and kind[0] in part:
        return plain(part) in {plain({kind[0]: entry}) for entry in whole[kind]}
    return False


def _size(value: Value | None) -> Value | None:
    if value is None or _kind(value) in {"N", "BOOL", "NULL"}:
        return None
    return {"N": str(len(value[_kind(value)]))}


def _number(value: Decimal) -> Value:
    if value == 0:
        return {"N": "0"}
    text = format(value.normalize(), "f")
    return {"N": text}


def _forget(item: Item, name: str) -> None:
    item.pop(name, None)


def _add(old: Item, new: Item, name: str, amount: Value | None) -> None:
    if amount is None:
        raise ExpressionError("ADD refers to a missing value")
    present = old.get(name)
    kind = _kind(amount)
    if kind == "N":
        if present is not None and "N" not in present:
            raise ExpressionError("ADD of a number to something else")
        before = Decimal(present["N"]) if present else Decimal(0)
        new[name] = _number(before + Decimal(amount["N"]))
    elif kind in {"SS", "NS"}:
        if present is not None and kind not in present:
            raise ExpressionError("ADD of a set to something else")
        entries = present[kind] if present else []
        new[name] = {kind: [*entries, *(v for v in amount[kind] if v not in entries)]}
    else:
        raise ExpressionError("ADD wants a number or a set")


def _delete(old: Item, new: Item, name: str, amount: Value | None) -> None:
    if amount is None or _kind(amount) not in {"SS", "NS"}:
        raise ExpressionError("DELETE wants a set")
    kind = _kind(amount)
    present = old.get(name)
    if present is None:
        return
    if kind not in present:
        raise ExpressionError("DELETE of a set from something else")
    left = [entry for entry in present[kind] if entry not in amount[kind]]
    if left:
        new[name] = {kind: left}
    else:
        new.pop(name, None)
