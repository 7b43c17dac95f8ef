"""The part of runsfleet that runs in the functions, taken from where it is installed."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

from runsfleet_constructs.bundling.errors import BundlingError
from runsfleet_constructs.bundling.tree import files_of, fingerprint, is_source, make_reproducible

RUNTIME_PACKAGE = "runsfleet_runtime"

# runs on instances and travels in a package of its own
_NOT_IN_FUNCTIONS = "agent"


def runtime_source() -> Path:
    """Return the folder of the installed runtime package, be it a wheel's or a checkout's.

    Raises:
        BundlingError: when the package is not installed.
    """
    # found, not imported: building must not run what is built
    spec = importlib.util.find_spec(RUNTIME_PACKAGE)
    if spec is None or spec.origin is None:
        raise BundlingError(
            f"the package {RUNTIME_PACKAGE} is not installed; install runsfleet again"
        )
    return Path(spec.origin).parent


def function_sources(source: Path | None = None) -> dict[str, Path]:
    """Return the files that every function carries, by their name in the asset.

    Args:
        source: folder of the runtime package; the installed one by default.
    """
    root = source or runtime_source()
    return {
        f"{RUNTIME_PACKAGE}/{path.relative_to(root).as_posix()}": path
        for path in files_of(root)
        if is_source(path) and path.relative_to(root).parts[0] != _NOT_IN_FUNCTIONS
    }


@lru_cache(maxsize=1)
def _contents() -> dict[str, bytes]:
    # read once: the hash that names the asset and the asset must be of the same moment
    return {name: path.read_bytes() for name, path in function_sources().items()}


def runtime_fingerprint() -> str:
    """Return the hash that names the installed runtime, as it was when first asked."""
    return fingerprint(_contents().items())


def build_runtime(dest: Path) -> None:
    """Copy the runtime into a folder, as ``runsfleet_runtime`` below it.

    Args:
        dest: an existing folder.

    Raises:
        BundlingError: when the runtime is not installed.
    """
    for name, content in _contents().items():
        target = dest / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    make_reproducible(dest)
