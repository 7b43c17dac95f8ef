"""Locked packages for another machine than this one, without Docker.

pip (or uv, where there is no pip) picks ready-made wheels for the target, checks their hashes
against the lock and unpacks them; nothing is compiled and no code of theirs runs.

Gotcha: an installer evaluates environment markers for the interpreter that runs it, not for the
target. The locks here are therefore compiled for one target and hold no markers.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

from runsfleet_constructs.bundling.cache import cached, default_cache_dir
from runsfleet_constructs.bundling.errors import BundlingError
from runsfleet_constructs.bundling.target import Platform
from runsfleet_constructs.bundling.tree import fingerprint, make_reproducible, tidy_installation

FUNCTIONS_LOCK = Path(__file__).with_name("functions.lock")
"""What the functions carry, for any Lambda runtime from Python 3.11 on."""

# raise it when the same lock should give another tree than before
_BUILDER_VERSION = "1"
# generous for a slow line: the largest set is below 20 MB
_TIMEOUT_SECONDS = 900
_SHOWN_LINES = 8


def dependencies_fingerprint(lock: Path, target: Platform) -> str:
    """Return the hash that names a set of packages, known without building it.

    Args:
        lock: requirements with hashes.
        target: where the packages will run.
    """
    return fingerprint(
        [
            ("builder", _BUILDER_VERSION.encode()),
            ("lock", lock.read_bytes()),
            ("target", str(target).encode()),
        ]
    )


def build_dependencies(lock: Path, target: Platform, cache_dir: Path | None = None) -> Path:
    """Return a folder with the locked packages, built once and then kept.

    The folder is shared and must not be changed; it is the same to the byte wherever it is built.

    Args:
        lock: requirements with hashes, complete and without markers.
        target: where the packages will run.
        cache_dir: where built folders are kept; ``default_cache_dir()`` by default.

    Raises:
        BundlingError: when a package cannot be had, with the installer's last words.

    Example:
        >>> build_dependencies(FUNCTIONS_LOCK, Platform(Architecture.ARM64))  # doctest: +SKIP
        PosixPath('/home/me/.cache/runsfleet/dependencies/5f0c.../')
    """

    def build(folder: Path) -> None:
        _install(lock, target, folder)
        tidy_installation(folder)
        make_reproducible(folder)

    return cached(
        cache_dir or default_cache_dir(),
        "dependencies",
        dependencies_fingerprint(lock, target),
        build,
    )


def _install(lock: Path, target: Platform, folder: Path) -> None:
    command = _command(lock, target, folder)
    # settings that would send the packages elsewhere, or contradict --target
    overrides = {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_NO_INPUT": "1"}
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=_TIMEOUT_SECONDS,
            env={**os.environ, **overrides},
        )
    except subprocess.TimeoutExpired as error:
        raise BundlingError(
            f"the packages of {lock.name} were not downloaded within {_TIMEOUT_SECONDS} seconds; "
            "check the network and try again"
        ) from error
    if done.returncode != 0:
        raise BundlingError(_explain(lock, target, done.stderr))


def _command(lock: Path, target: Platform, folder: Path) -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--require-hashes", "--only-binary=:all:", "--no-compile"),
            # five tries with growing pauses make an hour-glass of a missing network
            *("--retries", "2"),
            *("--platform", target.wheel_tag, "--implementation", "cp"),
            *("--python-version", target.python),
            *("--target", str(folder), "--requirement", str(lock)),
        ]
    if importlib.util.find_spec("uv") is not None:
        return [
            *(sys.executable, "-m", "uv", "pip", "install", "--quiet", "--link-mode=copy"),
            *("--no-deps", "--require-hashes", "--only-binary=:all:"),
            *("--python-platform", target.uv_name, "--python-version", target.python),
            *("--target", str(folder), "--requirement", str(lock)),
        ]
    raise BundlingError(
        f"neither pip nor uv is installed for {sys.executable}, and one of them is needed to "
        "fetch what the functions carry; run: python -m ensurepip"
    )


def _explain(lock: Path, target: Platform, output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip() and "WARNING" not in line]
    said = "\n  ".join(lines[-_SHOWN_LINES:])
    # the two installers' words for it
    if re.search("do not match the hashes|hash mismatch", output, re.IGNORECASE):
        cure = (
            "a package differs from the one that was locked: do not use that index, or find out "
            "who changed it"
        )
    else:
        cure = (
            "check the network, or name a mirror that holds them with PIP_INDEX_URL; once they "
            "are fetched, no network is needed any more"
        )
    return f"the packages of {lock.name} for {target} could not be fetched; {cure}:\n  {said}"
