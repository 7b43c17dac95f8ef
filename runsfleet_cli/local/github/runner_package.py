"""Packs the stand-in's runner: a tar.gz with actions/runner's layout, the same bytes every time."""

from __future__ import annotations

import gzip
import io
import tarfile
from functools import cache
from pathlib import Path
from typing import Final

from runsfleet_cli.local.github.releases import Package

VERSION: Final = "2.337.0"
PLATFORMS: Final = (("linux", "arm64"), ("linux", "x64"))
SOURCE: Final = Path(__file__).with_name("runner")
LIBRARY: Final = "bin/actions_runner"
EXECUTABLE: Final = 0o755
PLAIN: Final = 0o644


def _members(architecture: str) -> dict[str, tuple[bytes, int]]:
    """Answer each path of the package with its content and mode."""
    members = {
        str(file.relative_to(SOURCE / "shell")): (file.read_bytes(), EXECUTABLE)
        for file in (SOURCE / "shell").rglob("*")
        if file.is_file()
    }
    for file in SOURCE.glob("*.py"):
        members[f"{LIBRARY}/{file.name}"] = (file.read_bytes(), PLAIN)
    members["bin/version"] = (f"{VERSION}\n".encode(), PLAIN)
    members["bin/architecture"] = (f"{architecture}\n".encode(), PLAIN)
    return members


def pack(architecture: str) -> bytes:
    """Answer the package for an architecture."""
    buffer = io.BytesIO()
    # no times and no names of this machine: the digest depends on the content alone
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path, (content, mode) in sorted(_members(architecture).items()):
            entry = tarfile.TarInfo(f"./{path}")
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@cache
def build_packages() -> tuple[Package, ...]:
    """Answer the packages of the current version, one a platform."""
    return tuple(
        Package(os=system, architecture=architecture, version=VERSION, content=pack(architecture))
        for system, architecture in PLATFORMS
    )
