"""A job's ``strategy.matrix`` becomes combinations, ``include`` and ``exclude`` as on GitHub."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

MAX_JOBS = 256
"""A matrix makes at most 256 jobs a run (GitHub's limits)."""

Combination = dict[str, Any]


class MatrixError(ValueError):
    """A strategy that GitHub would refuse."""


def expand(matrix: object) -> list[Combination]:
    """Answer a matrix's combinations in GitHub's order.

    ``exclude`` removes the combinations that agree with all of an entry's keys. An ``include``
    entry joins each original combination whose original values it does not overwrite; when it
    joins none it becomes a combination of its own.

    Args:
        matrix: The evaluated ``strategy.matrix``.

    Raises:
        MatrixError: For an axis that is no list, or too many combinations.

    Example:
        >>> expand({"os": ["a", "b"], "include": [{"os": "b", "fast": True}]})
        [{'os': 'a'}, {'os': 'b', 'fast': True}]
    """
    if not isinstance(matrix, Mapping):
        raise MatrixError(f"matrix must be a mapping of axes to lists, got {matrix!r}")
    axes = {key: value for key, value in matrix.items() if key not in {"include", "exclude"}}
    for key, values in axes.items():
        if not isinstance(values, list) or not values:
            raise MatrixError(f"matrix axis {key!r} must be a list with a value, got {values!r}")
    originals = (
        [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
        if axes
        else []
    )
    originals = [
        entry
        for entry in originals
        if not any(_agrees(entry, rule) for rule in _entries(matrix, "exclude"))
    ]
    combinations = [dict(entry) for entry in originals]
    extra: list[Combination] = []
    for rule in _entries(matrix, "include"):
        joined = False
        for original, combination in zip(originals, combinations, strict=True):
            if all(original.get(key, value) == value for key, value in rule.items()):
                combination.update(rule)
                joined = True
        if not joined:
            extra.append(dict(rule))
    result = combinations + extra
    if len(result) > MAX_JOBS:
        raise MatrixError(f"a matrix makes at most {MAX_JOBS} jobs, this one makes {len(result)}")
    if not result:
        raise MatrixError("the matrix has no combination left; remove an exclude")
    return result


def _entries(matrix: Mapping[str, Any], key: str) -> list[Combination]:
    entries = matrix.get(key) or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise MatrixError(f"matrix {key} must be a list of mappings, got {entries!r}")
    return entries


def _agrees(entry: Combination, rule: Combination) -> bool:
    return all(key in entry and entry[key] == value for key, value in rule.items())
