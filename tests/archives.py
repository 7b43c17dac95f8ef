"""Archives, unpacked alike by every Python that is supported."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

# Debian 12 has 3.11.2, which knows no filters yet (3.11.4)
_SAFELY: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


def unpack(archive: tarfile.TarFile, folder: Path) -> None:
    """Unpack an archive of our own making.

    Args:
        archive: The archive.
        folder: Where to.
    """
    archive.extractall(folder, **_SAFELY)  # noqa: S202  of our own making
