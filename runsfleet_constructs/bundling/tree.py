"""Make a folder depend on nothing but its content: same bytes in, same bytes out."""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

# the earliest time that a zip can hold, 1980-01-01, as a zip and as seconds since the epoch
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
EPOCH_SECONDS = 315_532_800
_FILE_MODE = 0o644
_FOLDER_MODE = 0o755
_UNIX = 3


def files_of(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder in an order that is the same on every machine."""
    yield from sorted(
        (path for path in folder.rglob("*") if path.is_file()),
        key=lambda path: path.relative_to(folder).as_posix(),
    )


def is_source(path: Path) -> bool:
    """Tell whether a file belongs to a package, as opposed to being left by an interpreter."""
    return "__pycache__" not in path.parts and path.suffix not in {".pyc", ".pyo"}


def tidy_installation(folder: Path) -> None:
    """Reduce what an installer left to what an interpreter imports, and to licences.

    Scripts, byte code and records of the installation go: they name the machine, the time and
    the installer. ``METADATA`` stays, since packages ask for their own version, and licences
    stay because they must travel with the code.
    """
    for name in ("bin", "Scripts", "share", "include"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for cache in list(folder.rglob("__pycache__")):
        shutil.rmtree(cache)
    for path in list(folder.iterdir()):
        if path.name in {".lock", ".gitignore", "CACHEDIR.TAG"}:
            path.unlink()
    for info in folder.glob("*.dist-info"):
        for path in list(files_of(info)):
            name = path.name.upper()
            if name != "METADATA" and not name.startswith(
                ("LICEN", "COPYING", "NOTICE", "AUTHORS")
            ):
                path.unlink()
    _remove_empty_folders(folder)


def _remove_empty_folders(folder: Path) -> None:
    for parent, _, _ in os.walk(folder, topdown=False):
        path = Path(parent)
        if path != folder and not any(path.iterdir()):
            path.rmdir()


def make_reproducible(folder: Path) -> None:
    """Give every file and folder below the same time and permissions."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.chmod(_FOLDER_MODE if path.is_dir() else _FILE_MODE)
        os.utime(path, (EPOCH_SECONDS, EPOCH_SECONDS))


def write_zip(target: Path, entries: Iterable[tuple[str, bytes]]) -> None:
    """Write a zip whose bytes depend on nothing but the names and contents of its entries.

    Entries are stored, not compressed: the output of zlib differs between its versions, and a
    package that differs from machine to machine would replace the launch template on every
    deployment from another one.

    Args:
        target: the file to write.
        entries: name in the zip and content, in any order.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(entries):
            info = zipfile.ZipInfo(name, ZIP_EPOCH)
            info.create_system = _UNIX
            info.external_attr = _FILE_MODE << 16
            archive.writestr(info, content)


def fingerprint(parts: Iterable[tuple[str, bytes]]) -> str:
    """Return the hash (SHA-256, hex) of named contents; neither order nor place on disk counts."""
    digest = hashlib.sha256()
    for name, content in sorted(parts):
        digest.update(f"{len(name)}:{name}:{len(content)}:".encode())
        digest.update(content)
    return digest.hexdigest()
