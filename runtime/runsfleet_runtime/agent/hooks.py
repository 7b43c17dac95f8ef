"""What the runner's job hooks saw, and the user's own hooks that ours call.

The hook scripts run as the job's user and write two small files, ``started`` and ``completed``, of
``NAME=value`` lines. They are the only reliable witness of a job; the files are read with the
suspicion that whatever a job can write to deserves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runsfleet_runtime.agent.files import read_regular
from runsfleet_runtime.contract.messages import JobResult

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

STATE_DIRECTORY = "state"
"""Folder of an instance's workspace that the hooks write to."""

STARTED = "started"
COMPLETED = "completed"
STARTED_VARIABLE = "ACTIONS_RUNNER_HOOK_JOB_STARTED"
COMPLETED_VARIABLE = "ACTIONS_RUNNER_HOOK_JOB_COMPLETED"
HOOK_VARIABLES = {STARTED: STARTED_VARIABLE, COMPLETED: COMPLETED_VARIABLE}
RECORDED_VARIABLES = ("GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT", "GITHUB_REPOSITORY", "GITHUB_JOB")
TIME = "TIME"

_MOST_BYTES = 4096  # five short lines
_MOST_SKEW_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobMoment:
    """A job started or completed.

    Attributes:
        at: When, epoch seconds.
        job: Which job; ``None`` when the runner did not tell.
    """

    at: float
    job: JobResult | None


def read_moment(path: Path) -> JobMoment | None:
    """Read what a hook wrote; ``None`` while it wrote nothing."""
    text_and_time = read_regular(path, _MOST_BYTES)
    if text_and_time is None:
        return None
    text, modified = text_and_time
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return JobMoment(at=_time(values.get(TIME, ""), modified), job=_job(values))


def _time(text: str, modified: float) -> float:
    try:
        at = float(text)
    except ValueError:
        return modified  # a `date` without fractions, or a file that was cut
    # the file was written when it says, so the file system's time is close
    return at if abs(at - modified) < _MOST_SKEW_SECONDS else modified


def _job(values: Mapping[str, str]) -> JobResult | None:
    try:
        return JobResult(
            run_id=int(values["GITHUB_RUN_ID"]),
            run_attempt=int(values["GITHUB_RUN_ATTEMPT"]),
            repository=values["GITHUB_REPOSITORY"],
            job=values["GITHUB_JOB"],
        )
    except (KeyError, ValueError):
        return None


def take_user_hooks(root: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Find the hooks that the user set, and make room for ours.

    The runner loads the file ``.env`` in its root over its environment, so hooks that an image
    names there would replace ours; they are taken out and called by ours instead.

    Args:
        root: The runner's root.
        environ: The agent's environment.

    Returns:
        The runner's variable -> path of the user's script.
    """
    hooks = {name: environ[name] for name in HOOK_VARIABLES.values() if environ.get(name)}
    file = root / ".env"
    if not file.is_file():
        return hooks
    kept: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
        name, separator, value = line.strip().partition("=")
        if separator and name in HOOK_VARIABLES.values():
            hooks[name] = value
        else:
            kept.append(line)
    file.write_text("".join(kept), encoding="utf-8")
    return hooks
