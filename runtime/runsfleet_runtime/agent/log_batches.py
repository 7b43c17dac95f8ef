"""Log events in batches that CloudWatch Logs takes. Pure.

Limits of ``PutLogEvents`` (its API reference): 10,000 events; 1,048,576 bytes of UTF-8, each event
counted with 26 more; in chronological order; no more than 24 hours between first and last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_EVENTS: Final = 10_000
MAX_BYTES: Final = 1_048_576
EVENT_BYTES: Final = 26
MAX_SPAN_MS: Final = 24 * 3600 * 1000
MAX_TEXT_BYTES: Final = 256 * 1024 - EVENT_BYTES
"""The service cut longer events for years; a longer line becomes several events."""


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One line.

    Attributes:
        at: Epoch milliseconds.
        text: What it says; never empty.
    """

    at: int
    text: str

    @property
    def size(self) -> int:
        """Bytes that the service counts for it."""
        return len(self.text.encode()) + EVENT_BYTES


@dataclass(frozen=True, slots=True)
class LogBatch:
    """What one request sends.

    Attributes:
        stream: Name of the log stream; empty for the one that the shipper has.
        events: In chronological order.
    """

    stream: str
    events: tuple[LogEvent, ...]


class Gathering:
    """Gathers events of one stream, in order, until a batch is full.

    Times that run backwards (a clock was set) are held at the last one, so that order is kept.
    """

    def __init__(self) -> None:
        self._events: list[LogEvent] = []
        self._bytes = 0
        self._last = 0

    def __len__(self) -> int:
        """How many events wait."""
        return len(self._events)

    def add(self, at: int, text: str) -> list[tuple[LogEvent, ...]]:
        """Add a line.

        Args:
            at: Epoch milliseconds.
            text: The line; one that is empty is left out, one that is too long is divided.

        Returns:
            The batches that were full without it; usually none.
        """
        full = []
        self._last = at = max(at, self._last)
        for piece in pieces(text):
            event = LogEvent(at, piece)
            if self._events and not self._fits(event):
                full.append(self.take())
            self._events.append(event)
            self._bytes += event.size
        return full

    def take(self) -> tuple[LogEvent, ...]:
        """Return what has gathered and begin anew."""
        events, self._events, self._bytes = tuple(self._events), [], 0
        return events

    def _fits(self, event: LogEvent) -> bool:
        return (
            len(self._events) < MAX_EVENTS
            and self._bytes + event.size <= MAX_BYTES
            and event.at - self._events[0].at < MAX_SPAN_MS
        )


def batches(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[LogEvent, ...]]:
    """Divide lines into batches.

    Args:
        lines: Epoch milliseconds and text of each.

    Example:
        >>> [len(batch) for batch in batches([(0, "x")] * 10_001)]
        [10000, 1]
    """
    gathering = Gathering()
    for at, text in lines:
        yield from gathering.add(at, text)
    if len(gathering):
        yield gathering.take()


def pieces(text: str, limit: int = MAX_TEXT_BYTES) -> Iterator[str]:
    """Divide a text into pieces of at most ``limit`` bytes of UTF-8, at whole characters."""
    # half of a surrogate pair, as a damaged file name holds it, is no UTF-8
    raw = text.encode(errors="replace")
    begin = 0
    while begin < len(raw):
        end = min(begin + limit, len(raw))
        while end < len(raw) and raw[end] & 0xC0 == 0x80:  # noqa: PLR2004  inside a character
            end -= 1
        yield raw[begin:end].decode()
        begin = end
