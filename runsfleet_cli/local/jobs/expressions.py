"""GitHub's expression language: literals, operators, contexts, and what needs no runner.

What is evaluated here is what the service evaluates before a job is queued (``runs-on``,
``strategy``, ``name``, a job's ``if``). Everything inside a step is left to act.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

_TOKEN = re.compile(
    r"\s*(?:(?P<number>-?(?:0x[0-9a-fA-F]+|\d+(?:\.\d+)?(?:[eE][-+]?\d+)?))"
    r"|'(?P<string>(?:[^']|'')*)'"
    r"|(?P<op>\|\||&&|==|!=|<=|>=|[<>!().,\[\]*])"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_-]*))"
)
_EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
_WHOLE = re.compile(r"\s*\$\{\{((?:(?!\}\}).)*)\}\}\s*", re.DOTALL)
_STATUS = re.compile(r"\b(?:success|failure|cancelled|always)\s*\(")


class ExpressionError(ValueError):
    """An expression that cannot be read or evaluated."""


class _Parser:
    """Recursive descent over the tokens; evaluates while it reads."""

    def __init__(
        self, text: str, contexts: Mapping[str, Any], functions: Mapping[str, Callable[..., object]]
    ) -> None:
        self._text = text
        self._contexts = {name.lower(): value for name, value in contexts.items()}
        self._functions = _FUNCTIONS | {name.lower(): call for name, call in functions.items()}
        self._tokens = self._split(text)
        self._at = 0

    @staticmethod
    def _split(text: str) -> list[tuple[str, str]]:
        tokens: list[tuple[str, str]] = []
        position = 0
        stripped = text.rstrip()
        while position < len(stripped):
            match = _TOKEN.match(stripped, position)
            if match is None or match.lastgroup is None:
                raise ExpressionError(
                    f"cannot read expression {text.strip()!r} at {stripped[position:][:20]!r}"
                )
            tokens.append((match.lastgroup, match.group(match.lastgroup)))
            position = match.end()
        return tokens

    def parse(self) -> object:
        value = self._or()
        if self._at != len(self._tokens):
            raise ExpressionError(f"expression {self._text.strip()!r} has something left over")
        return value

    def _peek(self, *operators: str) -> bool:
        return self._at < len(self._tokens) and self._tokens[self._at] in {
            ("op", operator) for operator in operators
        }

    def _take(self, *operators: str) -> str | None:
        if self._peek(*operators):
            self._at += 1
            return self._tokens[self._at - 1][1]
        return None

    def _need(self, operator: str) -> None:
        if self._take(operator) is None:
            raise ExpressionError(f"expression {self._text.strip()!r} lacks {operator!r}")

    def _or(self) -> object:
        value = self._and()
        while self._take("||"):
            other = self._and()
            value = value if truthy(value) else other
        return value

    def _and(self) -> object:
        value = self._equality()
        while self._take("&&"):
            other = self._equality()
            value = other if truthy(value) else value
        return value

    def _equality(self) -> object:
        value = self._comparison()
        while operator := self._take("==", "!="):
            same = loosely_equal(value, self._comparison())
            value = same if operator == "==" else not same
        return value

    def _comparison(self) -> object:
        value = self._unary()
        while operator := self._take("<=", ">=", "<", ">"):
            left, right = to_number(value), to_number(self._unary())
            value = {
                "<": left < right,
                ">": left > right,
                "<=": left <= right,
                ">=": left >= right,
            }[operator]
        return value

    def _unary(self) -> object:
        if self._take("!"):
            return not truthy(self._unary())
        return self._postfix(self._primary())

    def _primary(self) -> object:
        if self._take("("):
            value = self._or()
            self._need(")")
            return value
        if self._at >= len(self._tokens) or self._tokens[self._at][0] == "op":
            raise ExpressionError(f"expression {self._text.strip()!r} is incomplete")
        kind, text = self._tokens[self._at]
        self._at += 1
        if kind == "string":
            return text.replace("''", "'")
        if kind == "number":
            return int(text, 16) if "x" in text.lower() else _tidy(float(text))
        return self._name(text)

    def _name(self, text: str) -> object:
        lowered = text.lower()
        if self._take("("):
            arguments: list[object] = []
            while not self._peek(")"):
                arguments.append(self._or())
                if not self._take(","):
                    break
            self._need(")")
            if lowered not in self._functions:
                raise ExpressionError(f"unknown function {text!r} in {self._text.strip()!r}")
            return self._functions[lowered](*arguments)
        constants: dict[str, object] = {"true": True, "false": False, "null": None}
        if lowered in constants:
            return constants[lowered]
        return self._contexts.get(lowered)

    def _postfix(self, value: object) -> object:
        while operator := self._take(".", "["):
            if operator == ".":
                if self._take("*"):
                    value = _Filtered(_children(value))
                    continue
                kind, text = self._tokens[self._at] if self._at < len(self._tokens) else ("", "")
                if kind != "name":
                    raise ExpressionError(f"expression {self._text.strip()!r} ends in a dot")
                self._at += 1
                value = _member(value, text)
            else:
                index = self._or()
                self._need("]")
                value = _member(value, index)
        return value


class _Filtered(list[Any]):
    """The result of ``.*``: further members are taken of each element."""


def _tidy(number: float) -> int | float:
    return int(number) if number.is_integer() else number


def _children(value: object) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, list) else []


def _member(value: object, key: object) -> object:
    if isinstance(value, _Filtered):
        return _Filtered([_member(entry, key) for entry in value])
    if isinstance(value, Mapping):
        wanted = str(key).lower()
        return next((entry for name, entry in value.items() if str(name).lower() == wanted), None)
    if isinstance(value, list) and isinstance(key, int | float):
        return value[int(key)] if 0 <= key < len(value) else None
    return None


def truthy(value: object) -> bool:
    """Say what counts as true: everything but false, null, 0 and the empty string."""
    return value is not None and value is not False and value not in (0, "")


def to_number(value: object) -> float:
    """Convert as the language does; what is no number becomes NaN."""
    if value is None:
        return 0.0
    if isinstance(value, bool | int | float):
        return float(value)
    if isinstance(value, str):
        try:
            return float(value.strip() or "0")
        except ValueError:
            return float("nan")
    return float("nan")


def loosely_equal(left: object, right: object) -> bool:
    """Compare as the language does: strings ignore case, mixed types become numbers."""
    if isinstance(left, str) and isinstance(right, str):
        return left.lower() == right.lower()
    if type(left) is type(right):
        return left == right
    return to_number(left) == to_number(right)


def to_text(value: object) -> str:
    """Write a value the way it is put into a string."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(_tidy(value))
    if isinstance(value, Mapping):
        return "Object"
    if isinstance(value, list):
        return "Array"
    return str(value)


def _contains(haystack: object, needle: object) -> bool:
    if isinstance(haystack, list):
        return any(loosely_equal(entry, needle) for entry in haystack)
    return to_text(needle).lower() in to_text(haystack).lower()


def _format(template: object, *values: object) -> str:
    def put(match: re.Match[str]) -> str:
        if match.group(0) in {"{{", "}}"}:
            return match.group(0)[0]
        index = int(match.group(1))
        if index >= len(values):
            raise ExpressionError(f"format() has no argument {index}")
        return to_text(values[index])

    return re.sub(r"\{\{|\}\}|\{(\d+)\}", put, to_text(template))


def _from_json(text: object) -> object:
    try:
        parsed: object = json.loads(to_text(text))
    except ValueError as error:
        raise ExpressionError(f"fromJSON() got {to_text(text)!r}, which is not JSON") from error
    return parsed


def _join(values: object, separator: object = ",") -> str:
    entries = values if isinstance(values, list) else [values]
    return to_text(separator).join(to_text(entry) for entry in entries)


_FUNCTIONS: dict[str, Callable[..., object]] = {
    "contains": _contains,
    "startswith": lambda text, start: to_text(text).lower().startswith(to_text(start).lower()),
    "endswith": lambda text, end: to_text(text).lower().endswith(to_text(end).lower()),
    "format": _format,
    "join": _join,
    "tojson": lambda value: json.dumps(value, indent=2),
    "fromjson": _from_json,
}


def evaluate(
    text: str,
    contexts: Mapping[str, Any],
    functions: Mapping[str, Callable[..., object]] | None = None,
) -> object:
    """Evaluate one expression (without ``${{ }}``).

    Args:
        text: The expression, for example ``matrix.os == 'linux'``.
        contexts: The contexts by name, for example ``{"matrix": {"os": "linux"}}``.
        functions: Further functions by name, for example the status functions.

    Raises:
        ExpressionError: When the text is no expression.

    Example:
        >>> evaluate("matrix.n > 1 && 'many'", {"matrix": {"n": 2}})
        'many'
    """
    return _Parser(text, contexts, functions or {}).parse()


def interpolate(value: object, contexts: Mapping[str, Any]) -> Any:
    """Replace every ``${{ }}`` inside a YAML value; a value that is only one keeps its type.

    Args:
        value: A string, list or mapping as read from a workflow.
        contexts: The contexts by name.

    Raises:
        ExpressionError: When an expression cannot be read.

    Example:
        >>> interpolate("run ${{ github.run_id }}", {"github": {"run_id": 7}})
        'run 7'
    """
    if isinstance(value, str):
        whole = _WHOLE.fullmatch(value)
        if whole is not None:
            return evaluate(whole.group(1), contexts)
        if value.count("${{") > len(_EXPRESSION.findall(value)):
            raise ExpressionError(f"{value!r} has a '${{{{' without its '}}}}'")
        return _EXPRESSION.sub(lambda m: to_text(evaluate(m.group(1), contexts)), value)
    if isinstance(value, list):
        return [interpolate(entry, contexts) for entry in value]
    if isinstance(value, dict):
        return {key: interpolate(entry, contexts) for key, entry in value.items()}
    return value


def condition(
    text: object,
    contexts: Mapping[str, Any],
    *,
    needs_succeeded: bool,
    needs_failed: bool,
    cancelled: bool = False,
) -> bool:
    """Decide a job's ``if``; without a status function ``success()`` is implied.

    Args:
        text: The value of ``if`` (None when there is none).
        contexts: The contexts by name.
        needs_succeeded: Every needed job, and those it needs, succeeded.
        needs_failed: One of them failed.
        cancelled: The run was cancelled.

    Raises:
        ExpressionError: When the expression cannot be read.
    """
    source = "" if text is None else to_text(text)
    whole = _WHOLE.fullmatch(source)
    if whole is not None:
        source = whole.group(1)
    status: dict[str, Callable[..., object]] = {
        "success": lambda: needs_succeeded and not cancelled,
        "failure": lambda: needs_failed and not cancelled,
        "cancelled": lambda: cancelled,
        "always": lambda: True,
    }
    if not source.strip():
        return needs_succeeded and not cancelled
    result = truthy(evaluate(source, contexts, status))
    if _STATUS.search(source):
        return result
    return result and needs_succeeded and not cancelled
