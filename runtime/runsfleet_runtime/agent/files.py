"""Read files that a job could have put there: with suspicion."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def read_regular(path: Path, most: int, *, tail: bool = False) -> tuple[str, float] | None:
    """Read a regular file.

    A link could point at a file of root's, a pipe would block for ever; neither is read.

    Args:
        path: The file.
        most: How many bytes at most.
        tail: Whether the last bytes are wanted rather than the first.

    Returns:
        Its text and when it was modified (epoch seconds); ``None`` when there is no such file.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    flags |= getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        if tail and status.st_size > most:
            os.lseek(descriptor, -most, os.SEEK_END)
        return os.read(descriptor, most).decode(errors="replace"), status.st_mtime
    except OSError:
        return None
    finally:
        os.close(descriptor)
