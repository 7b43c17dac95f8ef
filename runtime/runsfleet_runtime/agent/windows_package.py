"""The runner's package on Windows: a zip."""

from __future__ import annotations

import stat
import zipfile
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING

from runsfleet_runtime.agent.errors import PackageError

if TYPE_CHECKING:
    from pathlib import Path

_MODE_SHIFT = 16  # where a zip made on Unix keeps a file's mode


def extract_zip(archive: Path, root: Path) -> None:
    """Unpack a zip; everything in it is looked at before anything is written.

    Args:
        archive: The zip.
        root: Where to.

    Raises:
        PackageError: It is no zip, is damaged, or holds something that has no place in one.
        OSError: It cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as package:
            for member in package.infolist():
                if not _belongs(member):
                    raise PackageError(
                        f"cannot unpack {archive.name}: {member.filename!r} has no place in it"
                    )
            package.extractall(root)
    # an encrypted member is a RuntimeError, an unknown compression a NotImplementedError
    except (zipfile.BadZipFile, EOFError, RuntimeError) as error:
        raise PackageError(f"cannot unpack {archive.name}: {error}") from error


def _belongs(member: zipfile.ZipInfo) -> bool:
    """Tell whether a member stays below the root, on Windows as well as elsewhere."""
    path = PureWindowsPath(member.filename)
    plain = stat.S_IFMT(member.external_attr >> _MODE_SHIFT) in {0, stat.S_IFREG, stat.S_IFDIR}
    # a colon is a drive or a stream of a file
    escapes = path.anchor or ".." in path.parts or ":" in member.filename
    return plain and bool(path.parts) and not escapes
