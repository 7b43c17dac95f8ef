"""The cloud assembly of a local cloud: synthesized by the real CDK CLI, kept while nothing changed.

What is synthesized is this project's own app (`cdk.json`, `app.py`, `environments/`), told by
context alone that its functions run on this machine and where its GitHub is. In a folder without
such an app it is the built-in one (`fleet_app.py`), which is a `RunnerFleet` and nothing else.

The key of a kept assembly is a hash of every file that it is made of and of everything that is
passed to it, so that a second start costs no synthesis, and a changed line costs one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

# bump when an assembly of the same sources should be made anew
_VERSION = 1
_KEPT_ASSEMBLIES = 8
_SOURCES = ("app.py", "cdk.json", "pyproject.toml")
_SOURCE_FOLDERS = ("environments", "stacks", "runsfleet_constructs", "runtime")
_PACKAGES = ("aws-cdk-lib", "constructs", "jsii", "pydantic")
_SKIPPED = re.compile(r"__pycache__|\.pyc$|\.egg-info")
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "XDG_CACHE_HOME")
_KEPT_PREFIXES = ("PIP_", "UV_", "RUNSFLEET_", "SSL_", "HTTP", "http", "NO_PROXY", "no_proxy")
_NOISE = re.compile(r"^\s*$|NOTICES|end-of-life|EndOfLife|^!+|newer version|jsii|node v\d")


class SynthError(Exception):
    """The app does not synthesize; the message is what it said."""


@dataclass(frozen=True, slots=True)
class AppSource:
    """Which app to synthesize.

    Args:
        directory: Where the command runs.
        command: What runs the app.
        is_project: Whether it is the folder's own app, or the built-in one.
    """

    directory: Path
    command: str
    is_project: bool


@dataclass(frozen=True, slots=True)
class SynthRequest:
    """What to synthesize.

    Args:
        source: The app.
        cdk: The CDK CLI.
        context: Passed as `-c key=value`.
        environment: AWS variables; the CLI asks the emulator for its account.
        cache: Where assemblies are kept.
    """

    source: AppSource
    cdk: Path
    context: Mapping[str, str]
    environment: Mapping[str, str]
    cache: Path
    key_material: Mapping[str, str] = field(default_factory=dict)


def find_app(folder: Path) -> AppSource:
    """The app of a folder: its own, if it is a checkout of runsfleet's, else the built-in one."""
    python = sys.executable
    if all((folder / name).exists() for name in ("cdk.json", "app.py", "environments")):
        return AppSource(folder, f"{python} app.py", is_project=True)
    return AppSource(folder, f"{python} -P -m runsfleet_cli.local.fleet_app", is_project=False)


async def synthesize(
    request: SynthRequest, progress: Callable[[str], None] = lambda _: None
) -> Path:
    """Return the folder of the assembly, made now or kept from before.

    Raises:
        SynthError: The app failed.
    """
    key = await asyncio.to_thread(assembly_key, request)
    kept = request.cache / "assemblies" / key
    if (kept / "manifest.json").is_file():
        os.utime(kept)
        progress("nothing changed since the last synthesis")
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    workspace = Path(tempfile.mkdtemp(prefix=".synth-", dir=kept.parent))
    try:
        await _run(request, workspace / "out", progress)
        try:
            (workspace / "out").rename(kept)
        except OSError:
            # another process was faster; by the key it is the same
            if not kept.is_dir():
                raise
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
    _forget_old(kept.parent)
    return kept


def assembly_key(request: SynthRequest) -> str:
    """The hash of everything that an assembly is made of."""
    digest = hashlib.sha256()

    def add(name: str, content: bytes) -> None:
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)

    settings = {
        "version": _VERSION,
        "python": sys.version,
        "command": request.source.command,
        "context": dict(request.context),
        "more": dict(request.key_material),
        "packages": {name: _version(name) for name in _PACKAGES},
    }
    add("settings", json.dumps(settings, sort_keys=True).encode())
    for root in _roots(request.source):
        for path in _files(root):
            add(str(path.relative_to(root)), path.read_bytes())
    return digest.hexdigest()[:32]


def _roots(source: AppSource) -> list[Path]:
    import runsfleet_cli
    import runsfleet_runtime

    if source.is_project:
        return [source.directory]
    site = Path(next(iter(runsfleet_cli.__path__))).parent
    runtime = Path(next(iter(runsfleet_runtime.__path__)))
    own = Path(__file__).with_name("fleet_app.py")
    return [site / "runsfleet_constructs", runtime, own]


def _files(root: Path) -> Iterator[Path]:
    if (root / "cdk.json").is_file():
        tops = [root / name for name in (*_SOURCES, *_SOURCE_FOLDERS)]
    else:
        tops = [root]
    for top in tops:
        found = [top] if top.is_file() else sorted(top.rglob("*"))
        yield from (path for path in found if path.is_file() and not _SKIPPED.search(str(path)))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


async def _run(request: SynthRequest, out: Path, progress: Callable[[str], None]) -> None:
    arguments = ["synth", "--quiet", "--output", str(out), "--app", request.source.command]
    for name, value in request.context.items():
        arguments += ["--context", f"{name}={value}"]
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT_VARIABLES or name.startswith(_KEPT_PREFIXES)
    }
    environment |= dict(request.environment) | {
        "CDK_DISABLE_CLI_TELEMETRY": "true",
        "CDK_DISABLE_VERSION_CHECK": "true",
        "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20",
        "JSII_SILENCE_WARNING_DEPRECATED_NODE_VERSION": "20",
        "NODE_NO_WARNINGS": "1",
        # of the account that an access key belongs to, which here changes with each cloud
        "CDK_HOME": str(out.parent / "cdk-home"),
    }
    progress("synthesizing")
    started = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        request.cdk,
        *arguments,
        *("--no-notices", "--no-color", "--ci"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=request.source.directory,
        env=environment,
        start_new_session=True,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            # the CLI's group: it runs the app as a process of its own
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode != 0:
        lines = [line for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
        said = [line for line in lines if not _NOISE.search(line)]
        raise SynthError("\n".join((said or lines)[-30:]) or "the app said nothing")
    progress(f"synthesized in {time.monotonic() - started:.1f} s")


def _forget_old(folder: Path) -> None:
    kept = sorted(folder.iterdir(), key=lambda entry: entry.stat().st_mtime, reverse=True)
    for entry in kept[_KEPT_ASSEMBLIES:]:
        shutil.rmtree(entry, ignore_errors=True)
