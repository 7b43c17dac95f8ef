"""Reading GitHub's lists: page after page, entry by entry, and the times in them.

Gotcha: a list that changes while it is read shifts. An entry may be missed or come twice, so being
absent from one listing is no proof that something is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from runsfleet_runtime.github.errors import UnavailableError

PER_PAGE: Final = 100
"""The most that GitHub answers at once."""


def numbered_pages(
    ask: Callable[[str], Any], path: str, *, key: str | None, what: str
) -> Iterator[list[dict[str, Any]]]:
    """Yield the pages of a list whose pages are numbered.

    Args:
        ask: Sends a GET request for a path and answers the JSON.
        path: The list's path, with its query if it has one.
        key: Under which name an answer holds the list; ``None`` when the answer is the list.
        what: Names the entries in an error.

    Raises:
        UnavailableError: If an answer holds no list.
        GitHubError: As ``ask``; the pages before are good.
    """
    number = 1
    while True:
        glue = "&" if "?" in path else "?"
        found = ask(f"{path}{glue}per_page={PER_PAGE}&page={number}")
        entries = found.get(key) if key is not None and isinstance(found, dict) else found
        if not isinstance(entries, list):
            raise UnavailableError(f"github's answer holds no list of {what}")
        yield [entry for entry in entries if isinstance(entry, dict)]
        if len(entries) < PER_PAGE:
            return
        number += 1


def moment(entry: Mapping[str, Any], key: str) -> float | None:
    """Return the time under a key as epoch seconds; ``None`` when it is none.

    Example:
        >>> moment({"created_at": "2026-11-20T11:01:14Z"}, "created_at")
        1795172474.0
    """
    try:
        return datetime.fromisoformat(entry[key]).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def text(entry: Mapping[str, Any], key: str) -> str:
    """Return the text under a key; empty when it is none."""
    found = entry.get(key)
    return found if isinstance(found, str) else ""
