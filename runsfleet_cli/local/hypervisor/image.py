"""The disk of a local instance: its folders, and the commands that its image brings.

Commands that would act on the developer's own machine (power, packages, services) are played;
`act` and a Python are links to those of the local cloud; everything else is the system's.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_EXECUTABLE = 0o755
_POWER = ("shutdown", "poweroff", "halt", "reboot")
_PACKAGES = ("apt", "apt-get", "dnf", "yum", "snap")
_SERVICES = ("systemctl", "service", "cloud-init")
_INIT = ("systemd-run",)

_POWER_SCRIPT = """\
#!/bin/sh
# plays the system's command: it ends this local instance, not the machine that it runs on
printf '%s\\n' "{name} $*" > {doorbell}
"""
_SKIPPED_SCRIPT = """\
#!/bin/sh
# plays the system's command: the local cloud installs and starts nothing on the machine it runs on
echo "{name} $*: skipped on the local cloud" >&2
exit 0
"""
_ABSENT_SCRIPT = """\
#!/bin/sh
# a local instance has no init of its own; the machine's would outlive it, and act on the machine
echo "{name}: there is no systemd on the local cloud" >&2
exit 1
"""


@dataclass(frozen=True, slots=True)
class Tools:
    """What an image brings beside the system.

    Args:
        act: Runs workflow files; None leaves it out.
        python: An interpreter of at least Python 3.11.
    """

    act: Path | None
    python: Path

    @classmethod
    def found(cls) -> Tools:
        """Those of this process's environment, else of PATH."""
        beside = Path(sysconfig.get_path("scripts")) / "act"
        on_path = shutil.which("act")
        act = beside if beside.is_file() else Path(on_path) if on_path else None
        # not the environment's own: its packages must not reach an instance
        return cls(act=act, python=Path(getattr(sys, "_base_executable", "") or sys.executable))


@dataclass(frozen=True, slots=True)
class Disk:
    """Where things are on an instance's disk.

    Args:
        root: The disk; goes with the instance.
    """

    root: Path

    @property
    def commands(self) -> Path:
        """First on PATH."""
        return self.root / "bin"

    @property
    def home(self) -> Path:
        """HOME."""
        return self.root / "root"

    @property
    def temporary(self) -> Path:
        """TMPDIR."""
        return self.root / "tmp"

    @property
    def fleet_home(self) -> Path:
        """RUNSFLEET_HOME."""
        return self.root / "opt" / "runsfleet"

    @property
    def user_data(self) -> Path:
        """The script."""
        return self.root / "user-data"

    @property
    def doorbell(self) -> Path:
        """A pipe that the played power commands write to."""
        return self.root / "power"

    def environment(self) -> dict[str, str]:
        """What the first script sees of this disk."""
        return {
            "PATH": f"{self.commands}:{SYSTEM_PATH}",
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "RUNSFLEET_HOME": str(self.fleet_home),
            "LANG": "C.UTF-8",
        }


def make_disk(root: Path, user_data: str, tools: Tools) -> Disk:
    """Make a new disk.

    Args:
        root: Replaced if it is there.
        user_data: The instance's first script.
        tools: What the image brings.
    """
    shutil.rmtree(root, ignore_errors=True)
    disk = Disk(root)
    for folder in (disk.commands, disk.home, disk.temporary, disk.fleet_home):
        folder.mkdir(parents=True)
    disk.user_data.write_text(user_data, encoding="utf-8")
    disk.user_data.chmod(_EXECUTABLE)
    os.mkfifo(disk.doorbell, 0o600)
    doorbell = shlex.quote(str(disk.doorbell))
    for name in _POWER:
        _command(disk, name, _POWER_SCRIPT.format(name=name, doorbell=doorbell))
    for name in (*_PACKAGES, *_SERVICES):
        _command(disk, name, _SKIPPED_SCRIPT.format(name=name))
    for name in _INIT:
        _command(disk, name, _ABSENT_SCRIPT.format(name=name))
    (disk.commands / "python3").symlink_to(tools.python)
    if tools.act is not None:
        (disk.commands / "act").symlink_to(tools.act)
    return disk


def _command(disk: Disk, name: str, text: str) -> None:
    path = disk.commands / name
    path.write_text(text, encoding="utf-8")
    path.chmod(_EXECUTABLE)
