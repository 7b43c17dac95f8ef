"""The package that an instance downloads and runs: agent, contract and a small botocore.

Pure Python, so the same for every architecture and every interpreter from 3.11 on. It is a zip,
to be unpacked before use: botocore cannot read its own data from within one.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from runsfleet_constructs.bundling.cache import cached, default_cache_dir
from runsfleet_constructs.bundling.dependencies import build_dependencies, dependencies_fingerprint
from runsfleet_constructs.bundling.errors import BundlingError
from runsfleet_constructs.bundling.runtime import RUNTIME_PACKAGE, runtime_source
from runsfleet_constructs.bundling.target import Architecture, Platform
from runsfleet_constructs.bundling.tree import files_of, fingerprint, is_source, write_zip

AGENT_LOCK = Path(__file__).with_name("agent.lock")
"""What the agent carries: botocore and what that needs."""

AGENT_ZIP = "runsfleet-agent.zip"

AGENT_SERVICES = frozenset({"dynamodb", "ec2", "logs", "s3", "sqs", "ssm", "sts"})
"""The AWS services whose description stays in the agent's botocore."""

# raise it when the same sources should give another package than before
_BUILDER_VERSION = "1"
# wheels without compiled parts fit everywhere, so which platform is asked for does not matter
_ANYWHERE = Platform(Architecture.X86_64, python="3.11")
_COMPILED = frozenset({".so", ".pyd", ".dylib", ".dll"})


@dataclass(frozen=True, slots=True)
class AgentPackage:
    """A built agent package.

    Args:
        path: the zip.
        sha256: hash of its bytes, in hex, for the instance to compare with.
    """

    path: Path
    sha256: str


def agent_fingerprint() -> str:
    """Return the hash that names the agent package, known without building it."""
    return fingerprint(
        [
            ("builder", _BUILDER_VERSION.encode()),
            ("services", ",".join(sorted(AGENT_SERVICES)).encode()),
            ("dependencies", dependencies_fingerprint(AGENT_LOCK, _ANYWHERE).encode()),
            ("sources", fingerprint(_contents().items()).encode()),
        ]
    )


@lru_cache(maxsize=1)
def _contents() -> dict[str, bytes]:
    # read once: the hash that names the package and the package must be of the same moment
    return {name: path.read_bytes() for name, path in agent_sources().items()}


def build_agent_package(cache_dir: Path | None = None) -> AgentPackage:
    """Return the agent package, built once per state of the sources and then kept.

    Args:
        cache_dir: where built packages are kept; ``default_cache_dir()`` by default.

    Raises:
        BundlingError: when botocore cannot be fetched, or something in the package is compiled.

    Example:
        >>> build_agent_package().path.name  # doctest: +SKIP
        'runsfleet-agent.zip'
    """
    root = cache_dir or default_cache_dir()

    def build(folder: Path) -> None:
        vendored = build_dependencies(AGENT_LOCK, _ANYWHERE, root)
        write_zip(folder / AGENT_ZIP, [*_contents().items(), *_vendored(vendored)])

    path = cached(root, "agent", agent_fingerprint(), build) / AGENT_ZIP
    return AgentPackage(path=path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def agent_sources(source: Path | None = None) -> dict[str, Path]:
    """Return the files of ours that the agent needs, by their name in the package.

    These are the rooms of the runtime that the agent imports, directly or through one another,
    so that nothing is forgotten and nothing that only functions use comes along.

    Args:
        source: folder of the runtime package; the installed one by default.

    Raises:
        BundlingError: when there is no agent in the runtime.
    """
    root = source or runtime_source()
    if not (root / "agent").is_dir():
        raise BundlingError(f"there is no agent in {root}; install runsfleet again")
    reached = {"__init__", "version"}
    waiting = ["agent"]
    while waiting:
        room = waiting.pop()
        if room not in reached:
            reached.add(room)
            waiting.extend(_imported_rooms(root / room))
    return {
        f"{RUNTIME_PACKAGE}/{path.relative_to(root).as_posix()}": path
        for path in files_of(root)
        if is_source(path) and _belongs(path.relative_to(root), reached)
    }


def _belongs(path: Path, reached: set[str]) -> bool:
    """Tell whether a file is needed, given the rooms and modules that are imported."""
    return path.parts[0].removesuffix(".py") in reached


def _imported_rooms(room: Path) -> Iterator[str]:
    """Yield the rooms or top-level modules of the runtime that the files of one room import."""
    module = room.with_suffix(".py")
    files = [module] if module.is_file() else [p for p in files_of(room) if p.suffix == ".py"]
    for file in files:
        for node in ast.walk(ast.parse(file.read_bytes(), filename=str(file))):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = (
                    [f"{node.module}.{alias.name}" for alias in node.names]
                    if node.module == RUNTIME_PACKAGE
                    else [node.module]
                )
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            for name in names:
                if found := re.match(rf"{RUNTIME_PACKAGE}\.(\w+)", name):
                    yield found[1]


def _vendored(folder: Path) -> Iterator[tuple[str, bytes]]:
    data = folder / "botocore" / "data"
    kept = {_newest_version(data / service) for service in AGENT_SERVICES}
    for path in files_of(folder):
        name = path.relative_to(folder).as_posix()
        if path.suffix in _COMPILED:
            raise BundlingError(
                f"the agent package must not hold compiled parts, got {name}; "
                "take the package that brings it out of requirements/agent.in"
            )
        in_service = path.is_relative_to(data) and path.parent != data
        if in_service and (path.parent not in kept or path.name.startswith("examples-")):
            continue
        yield name, path.read_bytes()


def _newest_version(service: Path) -> Path:
    """Return the newest of a service's descriptions, which is the one that botocore takes."""
    return max(version for version in service.iterdir() if version.is_dir())
