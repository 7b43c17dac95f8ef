"""Linux: users, process groups, shell hooks and the way to power off. Satisfies ``Platform``."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shlex
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from runsfleet_runtime.agent.errors import AgentError
from runsfleet_runtime.agent.hooks import (
    COMPLETED,
    HOOK_VARIABLES,
    RECORDED_VARIABLES,
    STARTED,
    TIME,
)
from runsfleet_runtime.agent.ports import Account
from runsfleet_runtime.contract.environment import PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMAND_TIMEOUT_SECONDS = 60
_OWN_PYTHON_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE")
# what a job may use without root, where an image has it
_SUPPLEMENTARY_GROUPS = ("docker", "kvm")

_HOOK = """\
#!/bin/sh
# Written by the runsfleet agent: tells it that a job {event}, and calls the user's own hook.
record() {{
  {{
    printf '{time}=%s\\n' "$(date +%s.%N)"
{variables}
  }} > {state}/.{event}.$$ && mv -f {state}/.{event}.$$ {state}/{event}
}}
user_hook() {{
{user_hook}
}}
{body}
"""
# the runner starts hooks by `bash -e`: an error ends them unless it is caught.
# The start is recorded before anything of the user's may fail; the end when all of it is over
_BODIES = {
    STARTED: "record || exit 1\nuser_hook",
    COMPLETED: 'status=0\nuser_hook || status=$?\nrecord\nexit "$status"',
}


class Linux:
    """The Linux side of the agent.

    Args:
        environ: The agent's environment; its ``PATH`` is where ``shutdown`` is found.
        sudo: Whether a user that the agent makes may become root without a password.
        sudoers: Directory of sudo's rules.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        sudo: bool = False,
        sudoers: Path = Path("/etc/sudoers.d"),
    ) -> None:
        self._environ = environ
        self._sudo = sudo
        self._sudoers = sudoers

    def account(self, name: str) -> Account | None:
        """Return the user to run the job as, made if it is missing.

        Args:
            name: Its name.

        Returns:
            ``None`` when the agent is not root, or is that user itself: the job runs as the agent.

        Raises:
            AgentError: It is missing and cannot be made.
        """
        if os.geteuid() != 0:
            return None
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            self._create(name)
            entry = pwd.getpwnam(name)
        if entry.pw_uid == os.geteuid():
            return None
        return Account(
            name=name,
            uid=entry.pw_uid,
            gid=entry.pw_gid,
            groups=tuple(os.getgrouplist(name, entry.pw_gid)),
            home=entry.pw_dir,
        )

    def _create(self, name: str) -> None:
        argv = ["useradd", "--create-home", "--user-group", "--shell", "/bin/bash"]
        groups = [g.gr_name for g in grp.getgrall() if g.gr_name in _SUPPLEMENTARY_GROUPS]
        if groups:
            argv += ["--groups", ",".join(groups)]
        try:
            self._run([*argv, name])
        except (OSError, subprocess.SubprocessError) as error:
            raise AgentError(
                f"cannot make the user {name!r}: {error}; make it in the image, or set "
                "RUNSFLEET_RUNNER_USER to one that exists"
            ) from error
        if self._sudo and self._sudoers.is_dir():
            rule = self._sudoers / "90-runsfleet"
            rule.write_text(f"{name} ALL=(ALL) NOPASSWD:ALL\n", encoding="utf-8")
            rule.chmod(0o440)  # sudo ignores rules that others may write

    def _run(self, argv: list[str]) -> None:
        subprocess.run(
            argv,
            env=dict(self._environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=COMMAND_TIMEOUT_SECONDS,
            check=True,
        )

    def hand_over(self, path: Path, account: Account | None) -> None:
        """Give a file, or a directory with all in it, to a user; links are not followed."""
        if account is None:
            return
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
        for directory, names, files in os.walk(path):
            for name in (*names, *files):
                target = Path(directory, name)
                os.chown(target, account.uid, account.gid, follow_symlinks=False)

    def environment(self, base: Mapping[str, str], account: Account | None) -> dict[str, str]:
        """Return the environment of the job's user.

        The agent's own settings stay out: a job has no use for them, and ``PYTHONPATH`` would put
        the agent's packages into the job's Python.
        """
        env = {
            name: value
            for name, value in base.items()
            if not name.startswith(PREFIX) and name not in _OWN_PYTHON_VARIABLES
        }
        if account is not None:
            env.update(HOME=account.home, USER=account.name, LOGNAME=account.name)
        elif os.geteuid() == 0:
            # run.sh refuses root otherwise; whoever set the runner's user to root meant it
            env["RUNNER_ALLOW_RUNASROOT"] = "1"
        env.setdefault("HOME", "/root" if os.geteuid() == 0 else tempfile.gettempdir())
        env.setdefault("LANG", "C.UTF-8")
        return env

    def write_hooks(
        self, directory: Path, state: Path, user_hooks: Mapping[str, str]
    ) -> dict[str, Path]:
        """Write both hook scripts.

        Args:
            directory: Where to.
            state: Where the scripts write what they saw.
            user_hooks: The runner's variable -> path of the user's script.

        Returns:
            The runner's variable -> script.
        """
        scripts: dict[str, Path] = {}
        for event, variable in HOOK_VARIABLES.items():
            script = directory / f"job-{event}.sh"
            script.write_text(
                _HOOK.format(
                    event=event,
                    time=TIME,
                    variables="\n".join(
                        f"    printf '{name}=%s\\n' \"${{{name}-}}\"" for name in RECORDED_VARIABLES
                    ),
                    state=shlex.quote(str(state)),
                    user_hook=_chain(user_hooks.get(variable)),
                    body=_BODIES[event],
                ),
                encoding="utf-8",
            )
            script.chmod(0o755)
            scripts[variable] = script
        return scripts

    def run_command(self, root: Path) -> list[str]:
        """Return the command of ``run.sh``."""
        return [str(root / "run.sh")]

    def configure_command(self, root: Path) -> list[str]:
        """Return the command of ``config.sh``."""
        return [str(root / "config.sh")]

    def start(
        self, argv: list[str], *, cwd: Path, env: Mapping[str, str], account: Account | None
    ) -> subprocess.Popen[bytes]:
        """Start a command in a session, and so a process group, of its own."""
        return subprocess.Popen(
            argv,
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else account.groups,
            umask=0o022,
        )

    def wait_for_exit(self, process: subprocess.Popen[bytes]) -> None:
        """Block until the head of the group has ended.

        It is left uncollected, so that the kernel gives its number, which is the group's, to nobody
        else before ``kill`` has used it.
        """
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    def interrupt(self, process: subprocess.Popen[bytes]) -> None:
        """Send SIGINT to the group: GitHub's runner cancels its job on it and says so."""
        _signal_group(process, signal.SIGINT)

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Send SIGKILL to what is left of the group, and collect its head."""
        _signal_group(process, signal.SIGKILL)
        process.wait()

    def available_memory(self) -> int | None:
        """Return ``MemAvailable``: free memory, and what caches would give back."""
        try:
            lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
            (kibibytes,) = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
            return int(kibibytes) * 1024
        except (OSError, ValueError, IndexError):
            return None

    def power_off(self) -> None:
        """Shut down; the instance terminates by it (its launch template says so)."""
        self._run(["shutdown", "-h", "now"])


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.returncode is None:  # once collected, the number may be somebody else's
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def _chain(hook: str | None) -> str:
    if not hook:
        return "  :"
    script = shlex.quote(hook)
    if hook.endswith(".ps1"):
        return f"  pwsh -NoLogo -File {script}"
    # as the runner itself would: bash where there is one, errors end the script
    return f'  "$(command -v bash || echo sh)" -e {script}'
