"""JSON for the contract's dataclasses: strict about types, tolerant of unknown keys.

Unknown keys are ignored so that a newer writer can add a field while older readers still run
(a deployment replaces functions one after the other); a missing or mistyped key is an error that
names it.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from typing import Any, Self


class ContractError(ValueError):
    """A message or environment does not have the form that the contract states."""


def _check(kind: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(kind)
        if value is None and type(None) in options:
            return None
        return _check(next(o for o in options if o is not type(None)), value, where)
    if origin is tuple:
        item = typing.get_args(kind)[0]
        if not isinstance(value, list | tuple):
            raise ContractError(f"{where} must be a list, got {type(value).__name__}")
        return tuple(_check(item, v, f"{where}[{i}]") for i, v in enumerate(value))
    if isinstance(kind, type) and issubclass(kind, str) and kind is not str:  # StrEnum
        try:
            return kind(value)
        except ValueError as error:
            raise ContractError(f"{where}: {error}") from None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, bool):
        raise ContractError(f"{where} must be int, got bool")
    if isinstance(kind, type) and not isinstance(value, kind):
        raise ContractError(f"{where} must be {kind.__name__}, got {type(value).__name__}")
    return value


class Message:
    """Base of the contract's messages: a frozen dataclass with ``to_json`` and ``from_json``."""

    def to_json(self) -> str:
        """Return the message as compact JSON with sorted keys."""
        body = dataclasses.asdict(self)  # type: ignore[call-overload]  # every subclass is a dataclass
        return json.dumps(body, separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse a message.

        Args:
            text: The JSON text.

        Raises:
            ContractError: If it is not a JSON object, a required key is missing, a value has the
                wrong type, or the version is newer than this reader.
        """
        try:
            body = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ContractError(f"{cls.__name__} is not valid JSON: {error}") from None
        if not isinstance(body, dict):
            raise ContractError(f"{cls.__name__} must be a JSON object, got {type(body).__name__}")
        hints = typing.get_type_hints(cls)
        values: dict[str, Any] = {}
        missing: list[str] = []
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]  # as above
            if field.name in body:
                where = f"{cls.__name__}.{field.name}"
                values[field.name] = _check(hints[field.name], body[field.name], where)
            elif field.default is dataclasses.MISSING:
                missing.append(field.name)
        if missing:
            raise ContractError(f"{cls.__name__} lacks {', '.join(missing)}")
        known = getattr(cls, "VERSION", 1)
        if values.get("version", 1) > known:
            raise ContractError(
                f"{cls.__name__} has version {values['version']}, this reader knows up to {known}; "
                "deploy the reader first"
            )
        return cls(**values)
