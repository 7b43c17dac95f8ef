"""How the machine is: free disk and memory, looked at every 30 s while a runner runs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runsfleet_runtime.agent.ports import Platform

INTERVAL_SECONDS = 30.0

LOW_DISK_BYTES = 500_000_000
"""With less, a job is ended: what a full disk breaks next is nobody's guess (origin: 500 MB)."""

LOW_MEMORY_BYTES = 200_000_000
"""With less, a warning is logged: the kernel may soon kill something (origin: 200 MB)."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """The machine at one moment; what is unknown is ``None`` and gives no alarm.

    Attributes:
        free_disk: Bytes free on the fuller of the disks that a job writes to.
        available_memory: Bytes of memory that programs may still get.
    """

    free_disk: int | None = None
    available_memory: int | None = None


class Machine:
    """Takes the vitals.

    Args:
        platform: Knows the memory.
        directory: Where the job's files are; the root of its file system is watched with it.
    """

    def __init__(self, platform: Platform, directory: Path) -> None:
        self._platform = platform
        self._places = {directory, Path(directory.anchor)}

    def vitals(self) -> Vitals:
        """Look once."""
        free = [found for place in self._places if (found := _free(place)) is not None]
        return Vitals(
            free_disk=min(free, default=None), available_memory=self._platform.available_memory()
        )


def _free(place: Path) -> int | None:
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return None
