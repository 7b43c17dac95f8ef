"""When a job that could not be launched is tried again."""

from __future__ import annotations

from typing import Final

FIRST_DELAY: Final = 10.0  # seconds; capacity that was refused a moment ago is still missing
LONGEST_DELAY: Final = 600.0  # seconds; keeps at least six tries in an hour of outage
LONGEST_WAIT: Final = 60.0
"""Seconds that a job without a slot waits at most, so that a slot that is free is soon used."""


def retry_delay(tries: int, *, jitter: float, longest: float = LONGEST_DELAY) -> float:
    """Return the seconds to wait before the next try.

    Grows twofold from ten seconds up to ten minutes; half of it is jitter, so that the jobs of one
    shortfall do not all come back in the same second.

    Args:
        tries: How often the job was tried, from 1.
        jitter: A random number in [0, 1).
        longest: Seconds beyond which it does not grow.

    Example:
        >>> retry_delay(1, jitter=0.0), retry_delay(20, jitter=0.5)
        (5.0, 450.0)
    """
    full = min(longest, FIRST_DELAY * 2.0 ** min(tries - 1, 32))
    return full / 2 + full / 2 * jitter
