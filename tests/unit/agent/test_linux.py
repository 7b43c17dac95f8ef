from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from pathlib import Path

import pytest

from runsfleet_runtime.agent.errors import AgentError
from runsfleet_runtime.agent.linux import Linux
from runsfleet_runtime.agent.ports import Account


def command(directory: Path, name: str, script: str) -> None:
    """Write an executable script."""
    (directory / name).write_text(f"#!/bin/sh\n{script}\n")
    (directory / name).chmod(0o755)


def test_shutdown_is_the_one_on_the_path(tmp_path: Path) -> None:
    """Powering off runs the first `shutdown` on PATH with `-h now`."""
    command(tmp_path, "shutdown", f'echo "$@" > {tmp_path}/said')
    Linux({"PATH": f"{tmp_path}:{os.environ['PATH']}"}).power_off()
    assert (tmp_path / "said").read_text() == "-h now\n"


def test_a_shutdown_that_fails_is_told(tmp_path: Path) -> None:
    """A refused shutdown raises, so that it is tried again."""
    command(tmp_path, "shutdown", "exit 1")
    with pytest.raises(Exception, match="returned non-zero exit status 1"):
        Linux({"PATH": f"{tmp_path}:{os.environ['PATH']}"}).power_off()


def test_the_agents_own_user_needs_no_change() -> None:
    """A job that is to run as the agent's own user runs as it, whoever that is."""
    assert Linux(os.environ).account(pwd.getpwuid(os.geteuid()).pw_name) is None


def test_an_agent_that_is_not_root_runs_the_job_as_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root nobody else can be become, so nothing is looked up or made."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert Linux({"PATH": "/nowhere"}).account("no-such-user") is None


def test_a_missing_user_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Root makes the runner's user with a home; a failure names the cure."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    command(tmp_path, "useradd", f'echo "$@" > {tmp_path}/said; exit 4')
    with pytest.raises(AgentError, match="RUNSFLEET_RUNNER_USER"):
        Linux({"PATH": f"{tmp_path}:{os.environ['PATH']}"}).account("no-such-user")
    said = (tmp_path / "said").read_text().split()
    assert said[-1] == "no-such-user"
    assert "--create-home" in said


@pytest.mark.parametrize("sudo", [True, False])
def test_a_made_user_gets_sudo_where_the_fleet_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sudo: bool
) -> None:
    """The rule is for that user alone, and nobody but root may change it."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    command(tmp_path, "useradd", "exit 0")
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with pytest.raises(KeyError):  # the stand-in for useradd made no user
        Linux(environ, sudo=sudo, sudoers=tmp_path).account("no-such-user")
    rule = tmp_path / "90-runsfleet"
    assert rule.exists() is sudo
    if sudo:
        assert rule.read_text() == "no-such-user ALL=(ALL) NOPASSWD:ALL\n"
        assert rule.stat().st_mode & 0o777 == 0o440


def test_the_job_does_not_inherit_what_is_the_agents() -> None:
    """The agent's settings and Python path stay out; home and name are the user's."""
    base = {"PATH": "/bin", "RUNSFLEET_FLEET": "dev", "PYTHONPATH": "/agent", "HOME": "/root"}
    account = Account(name="runner", uid=1, gid=1, groups=(1,), home="/home/runner")
    assert Linux(base).environment(base, account) == {
        "PATH": "/bin",
        "HOME": "/home/runner",
        "USER": "runner",
        "LOGNAME": "runner",
        "LANG": "C.UTF-8",
    }


@pytest.mark.parametrize(("uid", "allowed"), [(0, "1"), (1000, None)])
def test_a_job_of_root_is_allowed_only_where_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, uid: int, allowed: str | None
) -> None:
    """run.sh is told to accept root just when the job runs as root."""
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    environment = Linux({}).environment({"PATH": "/bin"}, None)
    assert environment.get("RUNNER_ALLOW_RUNASROOT") == allowed
    assert environment["HOME"]


def test_a_tree_is_handed_over_without_following_links() -> None:
    """All of the tree becomes the user's, and nothing that a link in it points to."""
    directory = Path(tempfile.mkdtemp())
    try:
        outside = directory / "outside"
        outside.write_text("x")
        tree = directory / "tree"
        (tree / "deep").mkdir(parents=True)
        (tree / "deep" / "file").write_text("x")
        (tree / "link").symlink_to(outside)
        # as another user where that is allowed, else as ourselves
        uid = 12345 if os.geteuid() == 0 else os.geteuid()
        gid = 12345 if os.geteuid() == 0 else os.getegid()
        account = Account(name="x", uid=uid, gid=gid, groups=(gid,), home="/")
        Linux({}).hand_over(tree, account)
        owners = {p.lstat().st_uid for p in (tree, *tree.rglob("*"))}
        assert owners == {uid}
        assert outside.stat().st_uid == os.geteuid()
    finally:
        shutil.rmtree(directory)
