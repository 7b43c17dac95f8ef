"""Time and signals: every wait of the agent ends early when it is told to stop.

A ``SimpleQueue`` carries the wake-ups because its ``put`` may be called from a signal handler at
any moment; an ``Event`` would deadlock when the signal lands inside its own ``wait``.
"""

from __future__ import annotations

import signal
import time
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from runsfleet_runtime.agent.errors import StopRequestedError

if TYPE_CHECKING:
    from types import FrameType


class SignalClock:
    """The clock of a process that signals may stop. Satisfies ``Clock``."""

    def __init__(self) -> None:
        self._wakeups: SimpleQueue[None] = SimpleQueue()
        self._stop: str | None = None
        self._stop_by: float | None = None

    @property
    def stop_requested(self) -> str | None:
        """What told the agent to stop; ``None`` while nothing did."""
        return self._stop

    @property
    def stop_by(self) -> float | None:
        """By when all must be over, on the monotonic clock; ``None`` when nobody said."""
        return self._stop_by

    def listen(self) -> None:
        """Take SIGTERM, SIGINT and, where they exist, SIGHUP and SIGBREAK as a request to stop."""
        for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK"):
            number = getattr(signal, name, None)
            if number is not None:
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.request_stop(signal.Signals(number).name)

    def request_stop(self, reason: str, *, within: float | None = None) -> None:
        """Ask the agent to stop; safe in a signal handler.

        Args:
            reason: Who or what asks; the first reason stays.
            within: Seconds by which all must be over; the nearest time counts.
        """
        if within is not None:
            by = self.monotonic() + within
            self._stop_by = by if self._stop_by is None else min(self._stop_by, by)
        self._stop = self._stop or reason
        self._wakeups.put(None)

    def wake(self) -> None:
        """End the present wait, because something happened."""
        self._wakeups.put(None)

    def monotonic(self) -> float:
        """Seconds on a clock that never jumps."""
        return time.monotonic()

    def now(self) -> datetime:
        """The time of day, UTC."""
        return datetime.now(UTC)

    def wait(self, seconds: float) -> None:
        """Wait until woken, at most ``seconds``."""
        try:
            self._wakeups.get(timeout=max(seconds, 0.0))
        except Empty:
            return

    def pause(self, seconds: float) -> None:
        """Wait ``seconds``.

        Raises:
            StopRequestedError: The agent was told to stop, before or meanwhile.
        """
        end = self.monotonic() + seconds
        while (left := end - self.monotonic()) > 0:
            self.check()
            self.wait(left)
        self.check()

    def check(self) -> None:
        """Go on, unless the agent was told to stop.

        Raises:
            StopRequestedError: It was.
        """
        if self._stop is not None:
            raise StopRequestedError(self._stop)

    def rest(self, seconds: float) -> None:
        """Wait ``seconds`` whatever happens; for the last steps, which no signal may cut short."""
        time.sleep(seconds)
