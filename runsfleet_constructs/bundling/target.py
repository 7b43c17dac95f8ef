"""For which interpreter, system and processor the locked packages are chosen."""

from __future__ import annotations

import platform as running
import re
import sys
from dataclasses import dataclass
from enum import StrEnum


class Architecture(StrEnum):
    """A processor, by the name that Lambda gives it."""

    ARM64 = "arm64"
    X86_64 = "x86_64"


class System(StrEnum):
    """An operating system that functions run on: Lambda's, or that of a local cloud's host."""

    LINUX = "linux"
    MACOS = "macos"


# the processor's name in wheel tags, which differs between systems
_MACHINES = {
    (System.LINUX, Architecture.ARM64): "aarch64",
    (System.LINUX, Architecture.X86_64): "x86_64",
    (System.MACOS, Architecture.ARM64): "arm64",
    (System.MACOS, Architecture.X86_64): "x86_64",
}
_SPELLINGS = {
    "aarch64": Architecture.ARM64,
    "arm64": Architecture.ARM64,
    "amd64": Architecture.X86_64,
    "x86_64": Architecture.X86_64,
}
_OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True, slots=True)
class Platform:
    """Where packages will run, as opposed to where the asset is built.

    Args:
        architecture: the processor.
        python: version of the interpreter as ``3.<minor>``; at least 3.11.
        system: the operating system; Lambda is Linux.

    Raises:
        ValueError: when the version is not of that form or too old.

    Example:
        >>> Platform(Architecture.ARM64).wheel_tag
        'manylinux2014_aarch64'
    """

    architecture: Architecture
    python: str = "3.13"
    system: System = System.LINUX

    def __post_init__(self) -> None:
        match = re.fullmatch(r"3\.(\d{1,2})", self.python)
        if match is None or (3, int(match[1])) < _OLDEST_PYTHON:
            raise ValueError(
                f"python must be 3.11 or newer in the form 3.<minor>, got {self.python!r}; "
                'write it as a string, for example "3.13"'
            )

    @classmethod
    def host(cls) -> Platform:
        """Return this machine and this interpreter, for functions that a local cloud runs.

        Raises:
            ValueError: when no wheels are chosen for such a machine.
        """
        machine = running.machine().lower()
        if machine not in _SPELLINGS:
            raise ValueError(f"processor must be one of {', '.join(_SPELLINGS)}, got {machine!r}")
        system = System.MACOS if sys.platform == "darwin" else System.LINUX
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        return cls(architecture=_SPELLINGS[machine], python=python, system=system)

    @property
    def wheel_tag(self) -> str:
        """The platform tag that wheels must be compatible with, for pip."""
        machine = _MACHINES[self.system, self.architecture]
        # manylinux2014 asks for glibc 2.17, which every Lambda runtime has; macOS 11 is the
        # first on arm64
        return f"{'manylinux2014' if self.system is System.LINUX else 'macosx_11_0'}_{machine}"

    @property
    def uv_name(self) -> str:
        """The same platform as uv's ``--python-platform`` names it."""
        if self.system is System.LINUX:
            return f"{_MACHINES[self.system, self.architecture]}-manylinux2014"
        return f"{'aarch64' if self.architecture is Architecture.ARM64 else 'x86_64'}-apple-darwin"

    def __str__(self) -> str:
        return f"python{self.python}-{self.system}-{self.architecture}"
