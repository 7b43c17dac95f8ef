"""The agent's sign of life."""

from __future__ import annotations

import time
from pathlib import Path

from runsfleet_runtime.agent.heartbeat import BEATS, Heartbeat, beat_interval
from runsfleet_runtime.contract.environment import WatchdogEnvironment


def test_file_is_touched_again_and_again(tmp_path: Path) -> None:
    """The watchdog sees a new time of the file until the agent is gone."""
    file = tmp_path / "heartbeat"
    heart = Heartbeat(file, 0.01)
    heart.start()
    first = file.stat().st_mtime_ns
    deadline = time.monotonic() + 10
    while file.stat().st_mtime_ns == first and time.monotonic() < deadline:
        time.sleep(0.01)
    heart.stop()
    assert file.stat().st_mtime_ns > first


def test_missing_folder_does_not_hinder_the_agent(tmp_path: Path) -> None:
    """Without a place for the sign the agent works; the watchdog decides."""
    Heartbeat(tmp_path / "none" / "heartbeat").beat()
    assert not list(tmp_path.iterdir())


def test_watchdog_hears_several_beats_before_it_loses_patience() -> None:
    """By the default limits some beats may be late or lost."""
    silence = WatchdogEnvironment.watchdog_silence_seconds
    assert beat_interval(silence) * BEATS <= silence
    assert beat_interval(6) == 1
