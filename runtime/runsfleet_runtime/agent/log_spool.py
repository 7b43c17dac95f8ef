"""Batches that wait for the log service: the first few in memory, the others on disk, bounded."""

from __future__ import annotations

import json
import shutil
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runsfleet_runtime.agent.log_batches import LogBatch, LogEvent

if TYPE_CHECKING:
    from pathlib import Path

IN_MEMORY: Final = 4  # megabytes, as a batch has at most one
MAX_DISK_BYTES: Final = 64 * 1024 * 1024
"""A job that prints more than this while the log service is away loses the oldest of it."""


@dataclass(slots=True)
class _Waiting:
    events: int
    batch: LogBatch | None
    file: Path | None = None
    size: int = 0


class Spool:
    """A queue of batches. Not for several threads at once.

    Args:
        directory: Where files go; made when the first is written.
        in_memory: How many batches are kept in memory.
        max_disk_bytes: How much may wait on disk; the oldest there makes room.

    Attributes:
        lost: How many events were dropped.
    """

    def __init__(
        self,
        directory: Path,
        *,
        in_memory: int = IN_MEMORY,
        max_disk_bytes: int = MAX_DISK_BYTES,
    ) -> None:
        self.lost = 0
        self._directory = directory
        self._in_memory = in_memory
        self._max_disk_bytes = max_disk_bytes
        self._waiting: deque[_Waiting] = deque()
        self._number = 0
        self._disk_bytes = 0

    def __len__(self) -> int:
        """How many batches wait."""
        return len(self._waiting)

    def append(self, batch: LogBatch) -> None:
        """Add a batch behind the others; what the disk does not take is lost and counted."""
        waiting = _Waiting(len(batch.events), batch)
        if len(self._waiting) >= self._in_memory:
            try:
                self._write(waiting, batch)
            except OSError:
                self.lost += waiting.events
                return
        self._waiting.append(waiting)

    def first(self) -> LogBatch | None:
        """Return the batch that waits longest; ``None`` when none does."""
        while self._waiting:
            waiting = self._waiting[0]
            if waiting.batch is None:
                try:
                    waiting.batch = self._read(waiting)
                except (OSError, ValueError):
                    self._lose(0)
                    continue
            return waiting.batch
        return None

    def drop_first(self) -> None:
        """Remove the batch that waits longest: it was sent, or never can be."""
        self._forget(self._waiting.popleft())

    def clear(self) -> None:
        """Remove everything, the files too."""
        self._waiting.clear()
        self._disk_bytes = 0
        shutil.rmtree(self._directory, ignore_errors=True)

    def _write(self, waiting: _Waiting, batch: LogBatch) -> None:
        text = json.dumps([batch.stream, [[e.at, e.text] for e in batch.events]])
        waiting.size = len(text)  # json.dumps answers in ASCII
        self._make_room(waiting.size)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._number += 1
        waiting.file = self._directory / f"{self._number:08}.json"
        try:
            waiting.file.write_text(text, encoding="ascii")
        except OSError:
            waiting.file.unlink(missing_ok=True)
            raise
        self._disk_bytes += waiting.size
        waiting.batch = None

    def _make_room(self, size: int) -> None:
        # never the first: it may be on its way
        while self._disk_bytes + size > self._max_disk_bytes:
            on_disk = [i for i, w in enumerate(self._waiting) if i and w.file is not None]
            if not on_disk:
                raise OSError(f"a batch of {size} bytes exceeds {self._max_disk_bytes}")
            self._lose(on_disk[0])

    def _lose(self, index: int) -> None:
        waiting = self._waiting[index]
        del self._waiting[index]
        self.lost += waiting.events
        self._forget(waiting)

    def _forget(self, waiting: _Waiting) -> None:
        if waiting.file is not None:
            self._disk_bytes -= waiting.size
            waiting.file.unlink(missing_ok=True)

    @staticmethod
    def _read(waiting: _Waiting) -> LogBatch | None:
        if waiting.file is None:
            return None
        stream, events = json.loads(waiting.file.read_text(encoding="ascii"))
        return LogBatch(stream, tuple(LogEvent(at, text) for at, text in events))
