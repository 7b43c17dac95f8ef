"""Windows: process trees, PowerShell hooks and the way to power off. Satisfies ``Platform``.

Whom a job runs as: the agent's own user, always. User data runs as an administrator, and so do
jobs on GitHub's own Windows machines. To start a process as somebody else Windows wants that
user's password and a logon with rights of its own, for a guard that the instance, which holds but
this one job, does not need.

Gotchas:
    * Windows knows no signals. A runner is asked to stop by CTRL_BREAK, which only a process group
      of its own can get without the agent getting it too.
    * It knows no process groups either that could be killed: a job object holds the tree.
    * Names of environment variables have no case.

Everything of the system is passed in, so that all of this runs in tests on any system; what has
not been run on Windows is told in ``docs/agent.md``.
"""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import PurePath, PureWindowsPath
from typing import TYPE_CHECKING, Protocol

from runsfleet_runtime.agent.windows_hooks import write_hooks
from runsfleet_runtime.agent.windows_kernel import JobObjects, available_memory
from runsfleet_runtime.contract.environment import PREFIX
from runsfleet_runtime.telemetry.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from runsfleet_runtime.agent.ports import Account

CREATE_NEW_PROCESS_GROUP = 0x0000_0200  # winbase.h; subprocess has it on Windows only
CTRL_BREAK_EVENT = 1  # wincon.h; as above

COMMAND_TIMEOUT_SECONDS = 60
KILL_SECONDS = 10.0
"""How long a killed process may take to be gone."""

POWER_OFF = ("shutdown", "/s", "/f", "/t", "0")

_OWN_PYTHON_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONUTF8")
_CERTIFICATES = "SSL_CERT_FILE"

_log = get_logger("agent.windows")


class HoldsTrees(Protocol):
    """Holds a process with all that it starts."""

    def hold(self, pid: int) -> bool:
        """Hold a process that was just started; False when that is not possible."""

    def end(self, pid: int) -> bool:
        """End what is held of it at once; False when nothing was held."""


def _run(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    subprocess.run(
        list(argv),
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=COMMAND_TIMEOUT_SECONDS,
        check=True,
    )


class Windows:
    """The Windows side of the agent.

    Args:
        environ: The agent's environment; its ``PATH`` is where system commands are found.
        trees: Holds process trees; job objects by default.
        popen: Starts a process.
        run: Runs a command to its end, with an environment; raises when it failed.
        memory: Bytes of memory that programs may still get.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        trees: HoldsTrees | None = None,
        popen: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen,
        run: Callable[[Sequence[str], Mapping[str, str]], None] = _run,
        memory: Callable[[], int | None] = available_memory,
    ) -> None:
        self._environ = environ
        self._trees = trees if trees is not None else JobObjects()
        self._popen = popen
        self._run = run
        self._memory = memory

    def account(self, name: str) -> Account | None:
        """Return ``None``: the job runs as the agent's own user, whatever the name."""
        _log.debug("jobs run as the agent's user on windows", extra={"runner_user": name})
        return None

    def hand_over(self, path: Path, account: Account | None) -> None:
        """Do nothing: the job's user is the agent's, who owns the files already."""

    def environment(self, base: Mapping[str, str], account: Account | None) -> dict[str, str]:
        """Return the environment of the job.

        The agent's own settings stay out, as on Linux. So does the list of certificates that the
        first script took from the agent's package: it is for the agent's downloads, and a job's
        tools ask Windows.
        """
        del account
        package = next((v for n, v in base.items() if n.upper() == "PYTHONPATH"), "")
        return {
            name: value
            for name, value in base.items()
            if not name.upper().startswith(PREFIX)
            and name.upper() not in _OWN_PYTHON_VARIABLES
            and not (name.upper() == _CERTIFICATES and _lies_in(value, package))
        }

    def write_hooks(
        self, directory: Path, state: Path, user_hooks: Mapping[str, str]
    ) -> dict[str, Path]:
        """Write both hook scripts, in PowerShell; see :mod:`.windows_hooks`."""
        return write_hooks(directory, state, user_hooks)

    def run_command(self, root: Path) -> list[str]:
        """Return the command of ``run.cmd``; ``/d`` keeps out what the registry would run first."""
        return ["cmd.exe", "/d", "/c", _native(root, "run.cmd")]

    def configure_command(self, root: Path) -> list[str]:
        """Return what ``config.cmd`` runs in the end.

        Not ``config.cmd`` itself: ``cmd.exe`` would read the labels among its arguments as its own
        language.
        """
        return [_native(root, "bin", "Runner.Listener.exe"), "configure"]

    def start(
        self, argv: list[str], *, cwd: Path, env: Mapping[str, str], account: Account | None
    ) -> subprocess.Popen[bytes]:
        """Start a command as a process group of its own, with all that it starts held together."""
        del account
        process = self._popen(
            argv,
            cwd=cwd,
            env=dict(env),
            # a batch file that is interrupted asks whether to go on; from nothing it gets no yes
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            creationflags=CREATE_NEW_PROCESS_GROUP,
        )
        # what it starts from now on is held too; it has had no time yet to start anything
        if not self._trees.hold(process.pid):
            _log.warning("the process tree is not held", extra={"pid": process.pid})
        return process

    def wait_for_exit(self, process: subprocess.Popen[bytes]) -> None:
        """Block until the head of the tree has ended; its handle keeps the number reserved."""
        process.wait()

    def interrupt(self, process: subprocess.Popen[bytes]) -> None:
        """Send CTRL_BREAK to the group: GitHub's runner cancels its job on it, as on CTRL_C."""
        try:
            process.send_signal(CTRL_BREAK_EVENT)
        except (OSError, ValueError) as error:  # no console to send it by; the kill will follow
            _log.warning("the runner could not be asked to stop", extra={"error": str(error)})

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """End what is left of the tree, and collect its head."""
        if not self._trees.end(process.pid) and process.returncode is None:
            # the next best: finds children by their parents, so only while those live
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                self._run(("taskkill", "/f", "/t", "/pid", str(process.pid)), self._environ)
            with contextlib.suppress(OSError):
                process.kill()
        try:
            process.wait(timeout=KILL_SECONDS)
        except subprocess.TimeoutExpired:
            _log.error("a killed process is still there", extra={"pid": process.pid})

    def available_memory(self) -> int | None:
        """Return the physical memory that is available."""
        return self._memory()

    def power_off(self) -> None:
        """Shut down; the instance terminates by it (its launch template says so)."""
        self._run(POWER_OFF, self._environ)


def _native(root: PurePath, *parts: str) -> str:
    # a path of another system appears in tests only
    return str(PureWindowsPath(root).joinpath(*parts))


def _lies_in(path: str, folder: str) -> bool:
    return bool(folder) and PureWindowsPath(path).is_relative_to(PureWindowsPath(folder))
