from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from runsfleet_runtime.agent.hooks import (
    COMPLETED_VARIABLE,
    STARTED_VARIABLE,
    read_moment,
    take_user_hooks,
)
from runsfleet_runtime.agent.linux import Linux
from runsfleet_runtime.contract.messages import JobResult

if TYPE_CHECKING:
    from pathlib import Path

JOB = {
    "PATH": os.environ["PATH"],
    "GITHUB_RUN_ID": "9007199254740993",
    "GITHUB_RUN_ATTEMPT": "2",
    "GITHUB_REPOSITORY": "octo/it's a repo",
    "GITHUB_JOB": "build",
}


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """Give a directory whose name needs quoting."""
    directory = tmp_path / "a room's name"
    (directory / "state").mkdir(parents=True)
    (directory / "hooks").mkdir()
    return directory


def hooks(room: Path, user: dict[str, str] | None = None) -> dict[str, Path]:
    """Write the hooks."""
    return Linux({}).write_hooks(room / "hooks", room / "state", user or {})


def run(script: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a hook as the runner does."""
    return subprocess.run(
        ["bash", "-e", script], env=env or JOB, capture_output=True, text=True, check=False
    )


def user_hook(room: Path, text: str) -> str:
    """Write a hook of the user's."""
    script = room / "user's hook.sh"
    script.write_text(text)
    return str(script)


@pytest.mark.parametrize(
    ("variable", "name"), [(STARTED_VARIABLE, "started"), (COMPLETED_VARIABLE, "completed")]
)
def test_a_hook_records_the_job_that_really_ran(room: Path, variable: str, name: str) -> None:
    """The state file tells the run, attempt, repository, job and time, and nothing is left over."""
    assert run(hooks(room)[variable]).returncode == 0
    moment = read_moment(room / "state" / name)
    assert moment is not None
    assert moment.job == JobResult(
        run_id=9007199254740993, run_attempt=2, repository="octo/it's a repo", job="build"
    )
    assert abs(moment.at - (room / "state" / name).stat().st_mtime) < 2
    assert [p.name for p in (room / "state").iterdir()] == [name]


def test_a_job_without_details_is_still_a_job(room: Path) -> None:
    """Where the runner tells nothing of the job, its start is known all the same."""
    run(hooks(room)[STARTED_VARIABLE], {"PATH": JOB["PATH"]})
    moment = read_moment(room / "state" / "started")
    assert moment is not None
    assert moment.job is None


def test_the_users_hook_is_called_with_the_jobs_environment(room: Path) -> None:
    """The user's own hook runs after our record, in the same environment."""
    user = user_hook(room, f'ls "{room}/state" && echo "$GITHUB_JOB"')
    done = run(hooks(room, {STARTED_VARIABLE: user})[STARTED_VARIABLE])
    assert done.stdout.split() == ["started", "build"]


@pytest.mark.parametrize(
    ("variable", "name"), [(STARTED_VARIABLE, "started"), (COMPLETED_VARIABLE, "completed")]
)
def test_a_failing_user_hook_fails_the_job_yet_is_recorded(
    room: Path, variable: str, name: str
) -> None:
    """The user's hook keeps its say over the job, and the agent still learns of the job."""
    script = hooks(room, {variable: user_hook(room, "false\necho not reached")})[variable]
    done = run(script)
    assert done.returncode == 1
    assert done.stdout == ""
    assert read_moment(room / "state" / name) is not None


def test_a_job_is_recorded_as_completed_after_the_users_hook(room: Path) -> None:
    """The user's last hook belongs to the job: the job is over when that is."""
    user = user_hook(room, f'ls "{room}/state"')
    done = run(hooks(room, {COMPLETED_VARIABLE: user})[COMPLETED_VARIABLE])
    assert done.stdout == ""
    assert (room / "state" / "completed").exists()


def test_hooks_of_the_image_are_taken_out_of_the_runners_env_file(tmp_path: Path) -> None:
    """`.env` would win over our hooks, so they are moved; its other lines stay as they are."""
    (tmp_path / ".env").write_text(f"LANG=C.UTF-8\n{STARTED_VARIABLE}=/opt/hook.sh\nX=1=2\n")
    found = take_user_hooks(tmp_path, {STARTED_VARIABLE: "/etc/a.sh", COMPLETED_VARIABLE: "/b.sh"})
    assert found == {STARTED_VARIABLE: "/opt/hook.sh", COMPLETED_VARIABLE: "/b.sh"}
    assert (tmp_path / ".env").read_text() == "LANG=C.UTF-8\nX=1=2\n"


def test_a_state_file_that_a_job_tampered_with_is_not_followed(tmp_path: Path) -> None:
    """Links, pipes, directories and rubbish neither block the agent nor show it other files."""
    secret = tmp_path / "secret"
    secret.write_text("TIME=1\n")
    (tmp_path / "link").symlink_to(secret)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    (tmp_path / "rubbish").write_bytes(b"\xff\xfe=\nTIME=never\n" + b"x" * 100_000)
    assert read_moment(tmp_path / "link") is None
    assert read_moment(tmp_path / "pipe") is None
    assert read_moment(tmp_path / "directory") is None
    assert read_moment(tmp_path / "absent") is None
    (tmp_path / "absurd").write_text("TIME=inf\nGITHUB_RUN_ID=1\n")
    for name in ("rubbish", "absurd"):
        moment = read_moment(tmp_path / name)
        assert moment is not None
        assert moment.job is None
        assert moment.at == (tmp_path / name).stat().st_mtime
