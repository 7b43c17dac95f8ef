"""Disk and memory, as they are and as they are judged."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from runsfleet_runtime.agent.linux import Linux
from runsfleet_runtime.agent.vitals import Machine

if TYPE_CHECKING:
    from pathlib import Path


def test_this_machine_has_disk_and_memory(tmp_path: Path) -> None:
    """On Linux both are known."""
    vitals = Machine(Linux(os.environ), tmp_path).vitals()
    assert vitals.free_disk is not None
    assert vitals.free_disk > 0
    assert vitals.available_memory is not None
    assert 1_000_000 < vitals.available_memory < 10**14


def test_the_fuller_disk_counts(tmp_path: Path) -> None:
    """Besides the work directory the root is watched: containers and packages fill that."""
    machine = Machine(Linux(os.environ), tmp_path / "absent")
    root = os.statvfs("/")
    free = machine.vitals().free_disk
    assert free is not None
    assert abs(free - root.f_bavail * root.f_frsize) < 5_000_000_000
