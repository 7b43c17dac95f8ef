"""Built trees and files, kept between runs and shared by processes.

An entry is a folder whose name holds the hash of everything that went into it, so it is never
changed once it is there. It is built in a folder beside it and renamed into place: a reader sees
it whole or not at all, and of two processes that build the same one, the second gives way.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from runsfleet_constructs.bundling.errors import BundlingError

CACHE_DIR_VARIABLE = "RUNSFLEET_CACHE_DIR"

# an entry that no build has used for this long belongs to a state of the sources that is gone
_KEEP_UNUSED_SECONDS = 90 * 24 * 3600


def default_cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where built assets are kept unless told otherwise.

    ``RUNSFLEET_CACHE_DIR``, or else ``runsfleet`` in the user's cache folder
    (``XDG_CACHE_HOME``, by default ``~/.cache``).

    Args:
        environ: the environment to read; that of this process by default.

    Raises:
        BundlingError: when no variable is set and the user has no home folder.
    """
    if chosen := environ.get(CACHE_DIR_VARIABLE):
        return Path(chosen).expanduser().absolute()
    if base := environ.get("XDG_CACHE_HOME"):
        return Path(base).absolute() / "runsfleet"
    if home := environ.get("HOME"):
        return Path(home).absolute() / ".cache" / "runsfleet"
    raise BundlingError(
        f"there is no folder to keep built assets in; set {CACHE_DIR_VARIABLE} to one"
    )


def cached(cache_dir: Path, kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """Return the entry of that key, building it first if it is not there.

    Args:
        cache_dir: root of the cache; made when missing.
        kind: what sort of entry, the folder that it stands in.
        key: hash of everything that the content depends on.
        build: fills the empty folder that it is given.

    Raises:
        BundlingError: when the cache cannot be written; whatever ``build`` raises passes through.
    """
    entry = cache_dir / kind / key
    if entry.is_dir():
        _mark_used(entry)
        return entry
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        workspace = Path(tempfile.mkdtemp(prefix=".building-", dir=entry.parent))
    except OSError as error:
        raise BundlingError(
            f"cannot write to the cache {cache_dir} ({error.strerror}); "
            f"set {CACHE_DIR_VARIABLE} to a folder that is writable"
        ) from error
    try:
        content = workspace / "content"
        content.mkdir()
        build(content)
        try:
            content.rename(entry)
        except OSError:
            # another process was faster, and its content is the same by the key
            if not entry.is_dir():
                raise
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
    _mark_used(entry)
    _forget_unused(entry.parent, now=time.time())
    return entry


def _mark_used(entry: Path) -> None:
    # a cache that somebody else filled may be read-only, which is fine
    try:
        os.utime(entry)
    except OSError:
        return


def _forget_unused(folder: Path, *, now: float) -> None:
    for entry in folder.iterdir():
        try:
            unused = now - entry.stat().st_mtime > _KEEP_UNUSED_SECONDS
        except FileNotFoundError:
            continue
        if unused:
            shutil.rmtree(entry, ignore_errors=True)
