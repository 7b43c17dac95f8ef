"""The agent's sign of life: a file that it touches, for the watchdog of the first script.

A thread of the process: it stops when the process dies, is frozen or cannot run. What hangs in
another thread alone meets the limits of that work, and last the instance's lifetime.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

INTERVAL_SECONDS = 10.0

BEATS = 6
"""Signs of life within the watchdog's patience at the least."""


def beat_interval(silence: float) -> float:
    """Return the seconds between two signs of life.

    Args:
        silence: Seconds of silence after which the watchdog ends the instance.

    Example:
        >>> beat_interval(300), beat_interval(6)
        (10.0, 1.0)
    """
    return min(INTERVAL_SECONDS, silence / BEATS)


class Heartbeat:
    """Touches a file for as long as the process runs.

    Args:
        file: The file; its folder is there.
        interval: Seconds between two touches.
    """

    def __init__(self, file: Path, interval: float = INTERVAL_SECONDS) -> None:
        self._file = file
        self._interval = interval
        self._over = threading.Event()

    def start(self) -> None:
        """Begin, by a first touch."""
        self.beat()
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()

    def stop(self) -> None:
        """End; a process need not."""
        self._over.set()

    def beat(self) -> None:
        """Touch the file. A full disk does not hinder that, once the file is there."""
        try:
            self._file.touch()
        except OSError:
            return  # without a sign of life the watchdog acts, and rightly so

    def _run(self) -> None:
        while not self._over.wait(self._interval):
            self.beat()
