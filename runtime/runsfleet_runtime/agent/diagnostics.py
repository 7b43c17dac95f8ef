"""The runner's own diagnostics, ``_diag/*.log``: what tells why a runner or its job went wrong."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from runsfleet_runtime.agent.files import read_regular

if TYPE_CHECKING:
    from pathlib import Path

DIRECTORY: Final = "_diag"
MAX_BYTES: Final = 1_000_000
"""Of all files together; of what is too long the end is kept."""

_STAMP: Final = re.compile(r"\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)Z ")


def read_diagnostics(root: Path, most: int = MAX_BYTES) -> list[tuple[int, str]]:
    """Read the end of the newest diagnostics.

    Args:
        root: The runner's root.
        most: How many bytes at most.

    Returns:
        Epoch milliseconds and text of each line, the newest file last.
    """
    directory = root / DIRECTORY
    if directory.is_symlink():  # the job owns the runner's root
        return []
    try:
        files = [(path.lstat().st_mtime, path) for path in directory.glob("*.log")]
    except OSError:
        return []
    parts: list[list[tuple[int, str]]] = []
    for _, path in sorted(files, reverse=True):
        if most <= 0:
            break
        found = read_regular(path, most, tail=True)
        if found is not None:
            text, modified = found
            most -= len(text)
            parts.append(_lines(path.name, text, modified))
    return [line for part in reversed(parts) for line in part]


def _lines(name: str, text: str, modified: float) -> list[tuple[int, str]]:
    """Return the lines with their own times, or that of the one before."""
    first = _STAMP.search(text)
    at = _time(first) if first else int(modified * 1000)
    lines = [(at, f"--- {name}")]
    for line in text.splitlines():
        if (match := _STAMP.match(line)) is not None:
            at = _time(match)
        lines.append((at, line))
    return lines


def _time(match: re.Match[str]) -> int:
    try:
        stamp = datetime.fromisoformat(match[1]).replace(tzinfo=UTC)
    except ValueError:  # digits, but no date
        return 0
    return int(stamp.timestamp() * 1000)
