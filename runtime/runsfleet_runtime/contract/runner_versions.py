"""Which versions of actions/runner GitHub still takes. Pure.

GitHub refuses to register a runner below a floor, and hands no job to one that is more than 30 days
behind its successor (docs.github.com, self-hosted runner updates). When a successor was released
is not in GitHub's list of downloads; that there is one is, so a superseded runner is told at once,
which is up to 30 days before it is refused. The very day is told by an endpoint of its own,
``GET /orgs/ORG/actions/runners/deprecations/VERSION`` or that of a repository (github.blog,
changelog of 2026-09-03), which an Enterprise Server may not have: :func:`days_left`.
"""

from __future__ import annotations

import re
from enum import StrEnum

REGISTRATION_FLOOR = "2.329.0"
"""Below it GitHub registers no runner (github.blog/changelog, 2026-06-12)."""

_DAY_SECONDS = 86_400
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")


class Outdated(StrEnum):
    """Why a runner needs to be renewed."""

    BELOW_FLOOR = "below_floor"  # GitHub refuses it
    SUPERSEDED = "superseded"  # GitHub will, 30 days after its successor's release


def parse_version(text: str) -> tuple[int, int, int] | None:
    """Return a version as numbers; ``None`` when it is none.

    Example:
        >>> parse_version("2.337.0"), parse_version("latest")
        ((2, 337, 0), None)
    """
    match = _VERSION.fullmatch(text)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def outdated(version: str, *, offered: str = "") -> Outdated | None:
    """Judge a runner's version.

    Args:
        version: The version; one that cannot be read is unknown, which is no fault.
        offered: The version that GitHub offers; empty when unknown.

    Example:
        >>> outdated("2.337.0", offered="2.338.0")
        <Outdated.SUPERSEDED: 'superseded'>
    """
    found, newest, floor = map(parse_version, (version, offered, REGISTRATION_FLOOR))
    if found is None:
        return None
    if floor is not None and found < floor:
        return Outdated.BELOW_FLOOR
    return Outdated.SUPERSEDED if newest is not None and found < newest else None


def days_left(
    *, registration_ends_at: float | None, runtime_ends_at: float | None, now: float
) -> float | None:
    """Return for how many days GitHub still takes a version whose ends it has told.

    A runner that serves one job registers for each, so the earlier of the two ends counts.

    Args:
        registration_ends_at: Epoch seconds from which it is not registered; ``None`` without end.
        runtime_ends_at: Epoch seconds from which it is given no job; ``None`` without end.
        now: Epoch seconds.

    Returns:
        Days, negative when it is over; ``None`` for a version without end, as the newest one is.
        A version of which GitHub told nothing is another matter, and the caller's.

    Example:
        >>> days_left(registration_ends_at=None, runtime_ends_at=604_800, now=0)
        7.0
    """
    ends = [end for end in (registration_ends_at, runtime_ends_at) if end is not None]
    return (min(ends) - now) / _DAY_SECONDS if ends else None
