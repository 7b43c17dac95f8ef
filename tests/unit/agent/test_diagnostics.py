"""The runner's diagnostics: the newest, bounded, and nothing that a job smuggles in."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from runsfleet_runtime.agent.diagnostics import read_diagnostics

if TYPE_CHECKING:
    from pathlib import Path


def write(root: Path, name: str, text: str, modified: float = 1_800_000_000) -> Path:
    """Write a diagnostic file."""
    file = root / "_diag" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    os.utime(file, (modified, modified))
    return file


def test_lines_have_their_own_times(tmp_path: Path) -> None:
    """A line's time is the one that it names, or that of the line before."""
    text = "[2026-11-20 11:00:00Z INFO Runner] a\nmore\n[2026-11-20 11:00:05Z ERR  Runner] b\n"
    write(tmp_path, "Runner_1.log", text)
    at = int(datetime(2026, 11, 20, 11, tzinfo=UTC).timestamp() * 1000)
    assert read_diagnostics(tmp_path) == [
        (at, "--- Runner_1.log"),
        (at, "[2026-11-20 11:00:00Z INFO Runner] a"),
        (at, "more"),
        (at + 5000, "[2026-11-20 11:00:05Z ERR  Runner] b"),
    ]


def test_the_end_of_the_newest_is_kept(tmp_path: Path) -> None:
    """Of what is too long the last bytes of the newest files stay."""
    write(tmp_path, "Runner_1.log", "r" * 100, modified=1)
    write(tmp_path, "Worker_1.log", "a" * 100 + "b" * 30, modified=2)
    write(tmp_path, "Old.log", "o" * 100, modified=0)
    lines = [text for _, text in read_diagnostics(tmp_path, 150)]
    assert lines == ["--- Runner_1.log", "r" * 20, "--- Worker_1.log", "a" * 100 + "b" * 30]
    lines = [text for _, text in read_diagnostics(tmp_path, 40)]
    assert lines == ["--- Worker_1.log", "a" * 10 + "b" * 30]


def test_what_a_job_planted_is_not_read(tmp_path: Path) -> None:
    """Links and pipes in the runner's own directory lead nowhere."""
    secret = tmp_path / "secret"
    secret.write_text("root only")
    root = tmp_path / "runner"
    (root / "_diag").mkdir(parents=True)
    (root / "_diag" / "a.log").symlink_to(secret)
    os.mkfifo(root / "_diag" / "b.log")
    assert read_diagnostics(root) == []
    other = tmp_path / "other"
    other.mkdir()
    (other / "_diag").symlink_to(root / "_diag")
    (root / "_diag" / "c.log").write_text("x")
    assert read_diagnostics(other) == []


def test_a_runner_without_diagnostics_has_none(tmp_path: Path) -> None:
    """A runner that never ran wrote nothing."""
    assert read_diagnostics(tmp_path) == []


def test_a_wrong_date_is_no_failure(tmp_path: Path) -> None:
    """Digits that are no date cost the time of that line only."""
    write(tmp_path, "Runner_1.log", "[2026-99-99 11:00:00Z INFO] a\n")
    assert [text for _, text in read_diagnostics(tmp_path)][1] == "[2026-99-99 11:00:00Z INFO] a"
