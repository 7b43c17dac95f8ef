"""GitHub's rate limits: what its answers ask for, and our own count of what we sent.

Sources: GitHub's REST documentation, "Rate limits" and "Best practices" (wait for ``retry-after``;
else, with nothing remaining, until ``x-ratelimit-reset``; else at least a minute), and the limits
of self-hosted runners in "Actions limits".
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

JIT_CONFIGS_PER_MINUTE = 180
"""900 points a minute and endpoint, five for each write."""
REGISTRATIONS_PER_MINUTE = 300
"""1,500 registrations in five minutes for each organisation or repository."""
WINDOW_SECONDS = 60.0
DEFAULT_WAIT_SECONDS = 60.0
"""When an answer is a rate limit and names no time."""
_FORBIDDEN = 403
_TOO_MANY_REQUESTS = 429


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return the epoch second that ``retry-after`` names, as seconds or as a date.

    Args:
        headers: Headers with lower-case names.
        now: Epoch seconds.

    Example:
        >>> retry_after({"retry-after": "30"}, now=1000.0)
        1030.0
    """
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    if text.isdecimal():
        return now + int(text)
    try:
        return parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None


def rate_limited_until(
    status: int, headers: Mapping[str, str], message: str, *, now: float
) -> float | None:
    """Return until when an answer asks to wait; ``None`` when it is no rate limit.

    A 403 is a refusal for good unless it carries one of the signs of a rate limit.

    Args:
        status: HTTP status.
        headers: Headers with lower-case names.
        message: The answer's ``message``.
        now: Epoch seconds.

    Returns:
        Epoch seconds, at least one second ahead.
    """
    if status not in {_FORBIDDEN, _TOO_MANY_REQUESTS}:
        return None
    at = retry_after(headers, now=now)
    if at is None and headers.get("x-ratelimit-remaining") == "0":
        reset = headers.get("x-ratelimit-reset", "")
        at = float(reset) if reset.isdecimal() else now + DEFAULT_WAIT_SECONDS
    if at is None and (status == _TOO_MANY_REQUESTS or "rate limit" in message.lower()):
        at = now + DEFAULT_WAIT_SECONDS
    return None if at is None else max(at, now + 1.0)


class SlidingWindow:
    """Counts what was done for each key within the last minute; safe for threads.

    It counts what this process did. Where several function instances share a limit, give each its
    part of it.

    Args:
        limit: How many are allowed in the window.
        clock: Epoch seconds.
        seconds: Length of the window (60).
    """

    def __init__(
        self, limit: int, *, clock: Callable[[], float], seconds: float = WINDOW_SECONDS
    ) -> None:
        if limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit}")
        self._limit = limit
        self._clock = clock
        self._seconds = seconds
        self._times: dict[str, deque[float]] = {}
        self._lock = threading.Lock()

    def take(self, key: str) -> float | None:
        """Count one more, if there is room.

        Returns:
            ``None`` when it was counted, else the epoch second at which there is room again.
        """
        with self._lock:
            now = self._clock()
            times = self._times.setdefault(key, deque())
            while times and times[0] <= now - self._seconds:
                times.popleft()
            if len(times) >= self._limit:
                return times[0] + self._seconds
            times.append(now)
            return None
