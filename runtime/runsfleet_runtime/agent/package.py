"""Have GitHub's runner on the instance: baked into the image, else cached in S3, else downloaded.

What is fetched is compared with the SHA-256 of the configuration before anything is unpacked, so
that neither the cache nor the way to it has to be trusted.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tarfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from runsfleet_runtime.agent.errors import PackageError, WrongDigestError
from runsfleet_runtime.agent.retry import attempts
from runsfleet_runtime.contract.paths import runner_package_key
from runsfleet_runtime.contract.runner_versions import Outdated, outdated
from runsfleet_runtime.telemetry.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runsfleet_runtime.agent.ports import CachesPackages, Clock, DownloadsFiles
    from runsfleet_runtime.contract.messages import RunnerConfig

DOWNLOAD_TRIES = 3
DOWNLOAD_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 10.0
PACKAGE_SECONDS = 600.0
"""For all tries together; a package is about 220 MB, so this is 3 Mbit/s."""

FREE_BYTES = 1_000_000_000
"""Free disk space without which nothing is fetched (origin: 1 GB)."""

_VERSION = re.compile(r"-(\d+\.\d+\.\d+)(?:\.tar\.gz|\.zip)$")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BLOCK = 1 << 20

_log = get_logger("agent.package")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvidedRunner:
    """An unpacked runner.

    Attributes:
        root: Where ``run.sh`` is.
        source: ``baked``, ``cache`` or ``download``.
        version: Its version.
        baked_version: Version of the image's runner, whether it was used or not; empty for none.
        archive: What it was unpacked from, if that should be put into the cache.
        key: Key of the archive in the cache.
    """

    root: Path
    source: str
    version: str = ""
    baked_version: str = ""
    archive: Path | None = None
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BakedRunner:
    """Where an image may hold a runner; see ``contract.paths``.

    Attributes:
        directory: The unpacked runner.
        marker: A JSON file that tells its version and platform.
    """

    directory: Path
    marker: Path

    def version(self, platform: str) -> str | None:
        """Return its version; ``None`` when there is none for this platform."""
        try:
            found = json.loads(self.marker.read_text(encoding="utf-8"))
            if found["platform"] != platform or not self.directory.is_dir():
                return None
            return str(found["version"])
        except (OSError, ValueError, KeyError, TypeError):
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageForm:
    """How a system's packages are made.

    Attributes:
        suffix: End of their names.
        starter: The file in them that starts the runner.
        extract: Unpacks one into a directory; nothing may lead out of it. Raises ``PackageError``
            or ``OSError``.
    """

    suffix: str
    starter: str
    extract: Callable[[Path, Path], None]


def package_version(filename: str) -> str | None:
    """Return the version in the name of a release asset.

    Example:
        >>> package_version("actions-runner-linux-arm64-2.337.0.tar.gz")
        '2.337.0'
    """
    match = _VERSION.search(filename)
    return match[1] if match else None


class RunnerPackages:
    """Provides runners.

    Args:
        platform: ``linux-arm64``, ``linux-x64`` or ``windows-x64``.
        baked: Where the image may hold one.
        cache: The fleet's cache; ``None`` when it has none.
        downloads: Fetches from GitHub.
        clock: Time, and the request to stop.
        draw: Random numbers in [0, 1).
        form: How the platform's packages are made; default as for Linux.
        free_bytes: Free disk space in bytes at a path.
        needed_bytes: Free disk space without which nothing is fetched.
    """

    def __init__(
        self,
        *,
        platform: str,
        baked: BakedRunner,
        cache: CachesPackages | None,
        downloads: DownloadsFiles,
        clock: Clock,
        draw: Callable[[], float],
        form: PackageForm | None = None,
        free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free,
        needed_bytes: int = FREE_BYTES,
    ) -> None:
        self._platform = platform
        self._baked = baked
        self._cache = cache
        self._downloads = downloads
        self._clock = clock
        self._draw = draw
        self._form = form or TAR
        self._free_bytes = free_bytes
        self._needed_bytes = needed_bytes

    def provide(self, config: RunnerConfig, workspace: Path) -> ProvidedRunner:
        """Have the configuration's runner.

        A baked runner is used when it has the configured version, when none is configured, or,
        rather than failing the job, when the configured one cannot be fetched and GitHub still
        takes the baked one. What has another digest than configured is replaced by nothing.

        Args:
            config: Names the package.
            workspace: A directory of the agent's own.

        Raises:
            PackageError: No verified package could be had.
            WrongDigestError: GitHub's download is not what the configuration names.
            StopRequestedError: The agent was told to stop.
        """
        baked = self._baked.version(self._platform)
        wanted = package_version(config.package_filename)
        if baked is not None and (not config.package_filename or baked == wanted):
            return self._use_baked(baked)
        try:
            return replace(self._fetch(config, wanted, workspace), baked_version=baked or "")
        except PackageError as error:
            if baked is None:
                raise
            if outdated(baked) is Outdated.BELOW_FLOOR:
                raise PackageError(
                    f"{error}; and GitHub registers no runner as old as the image's, {baked}; "
                    "make a new image"
                ) from error
            _log.warning(
                "using the image's runner instead", extra={"error": str(error), "version": baked}
            )
            return self._use_baked(baked)

    def _use_baked(self, version: str) -> ProvidedRunner:
        root = self._baked.directory
        return ProvidedRunner(root=root, source="baked", version=version, baked_version=version)

    def keep(self, provided: ProvidedRunner) -> None:
        """Put a downloaded package into the cache and drop the archive; fails quietly."""
        if provided.archive is None:
            return
        try:
            if self._cache is not None and provided.source == "download":
                self._cache.store(provided.key, provided.archive)
                _log.info("runner package cached", extra={"key": provided.key})
        except Exception as error:  # noqa: BLE001  a cache is a convenience, the job is not
            _log.warning("runner package not cached", extra={"error": str(error)})
        finally:
            provided.archive.unlink(missing_ok=True)

    def _fetch(self, config: RunnerConfig, version: str | None, workspace: Path) -> ProvidedRunner:
        name, sha256 = config.package_filename, config.package_sha256.lower()
        suffix = self._form.suffix
        # a name, not a path of any system
        if version is None or set("/\\:") & set(name) or not name.endswith(suffix):
            raise PackageError(
                f"package_filename must be a {suffix} file that names its version, got {name!r}"
            )
        if not _SHA256.fullmatch(sha256):
            raise PackageError(
                f"package_sha256 must be 64 hexadecimal digits, got {sha256!r}; "
                "a package that cannot be verified is not used"
            )
        if (free := self._free_bytes(workspace)) < self._needed_bytes:
            raise PackageError(
                f"{free} bytes are free in {workspace}, a runner needs {self._needed_bytes}; "
                "ask for more by disk= or use a smaller image"
            )
        archive = workspace / name
        key = runner_package_key(version, self._platform, name)
        end = self._clock.monotonic() + PACKAGE_SECONDS

        def check() -> None:
            self._clock.check()
            if self._clock.monotonic() > end:
                raise PackageError(f"{name} did not arrive within {PACKAGE_SECONDS:g} s")

        if self._from_cache(key, archive, sha256, check):
            source = "cache"
        else:
            self._from_github(config.package_url, archive, sha256, check)
            source = "download"
        root = workspace / "runner"
        unpack(archive, root, self._form)
        return ProvidedRunner(root=root, source=source, version=version, archive=archive, key=key)

    def _from_cache(self, key: str, archive: Path, sha256: str, check: Callable[[], None]) -> bool:
        if self._cache is None:
            return False
        try:
            if not self._cache.fetch(key, archive, check=check):
                return False
            verify(archive, sha256)
        except WrongDigestError as error:
            # whoever can write to the cache can do this; the download is verified as well
            _log.error("cached runner package is not genuine", extra={"error": str(error)})
            return False
        except (PackageError, OSError) as error:
            _log.warning("cached runner package not used", extra={"error": str(error), "key": key})
            return False
        return True

    def _from_github(self, url: str, archive: Path, sha256: str, check: Callable[[], None]) -> None:
        if not url:
            raise PackageError(
                "the configuration names no package_url and the cache has no package"
            )

        def once() -> None:
            self._downloads.download(url, archive, check=check)
            verify(archive, sha256)

        try:
            attempts(
                once,
                tries=DOWNLOAD_TRIES,
                base=DOWNLOAD_PAUSE_SECONDS,
                cap=LONGEST_PAUSE_SECONDS,
                pause=self._clock.pause,
                draw=self._draw,
                retry_on=(PackageError, OSError),
                on_failure=lambda attempt, error: _log.warning(
                    "runner package not downloaded",
                    extra={"attempt": attempt, "error": str(error), "url": url},
                ),
            )
        except WrongDigestError as error:
            archive.unlink(missing_ok=True)
            _log.error("runner package is not genuine", extra={"error": str(error), "url": url})
            raise
        except OSError as error:
            raise PackageError(f"cannot download {url}: {error}") from error


def verify(archive: Path, sha256: str) -> None:
    """Make sure that a file is the expected one.

    Raises:
        WrongDigestError: It is another.
    """
    digest = hashlib.sha256()
    with archive.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise WrongDigestError(
            f"{archive.name} has SHA-256 {digest.hexdigest()}, expected {sha256}; it is not used"
        )


def unpack(archive: Path, root: Path, form: PackageForm | None = None) -> None:
    """Unpack a verified package; nothing in it may lead out of ``root``.

    Args:
        archive: The package.
        root: Where to; replaced if it is there.
        form: How it is made; default as for Linux.

    Raises:
        PackageError: It is no archive, is damaged, or holds something that has no place in one.
    """
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(mode=0o755)
    form = form or TAR
    try:
        form.extract(archive, root)
    except OSError as error:
        raise PackageError(f"cannot unpack {archive.name}: {error}") from error
    if not (root / form.starter).is_file():
        raise PackageError(f"{archive.name} holds no {form.starter}")


def extract_tar(archive: Path, root: Path) -> None:
    """Unpack a gzipped tar; nothing in it may lead out of ``root``.

    Raises:
        PackageError: It is no archive, is damaged, or holds something that has no place in one.
        OSError: It cannot be written.
    """
    try:
        with tarfile.open(archive, mode="r:gz") as tar:
            _extract(tar, root)
    except (tarfile.TarError, EOFError) as error:
        raise PackageError(f"cannot unpack {archive.name}: {error}") from error


TAR = PackageForm(suffix=".tar.gz", starter="run.sh", extract=extract_tar)


def _extract(tar: tarfile.TarFile, root: Path) -> None:
    if hasattr(tarfile, "data_filter"):
        tar.extractall(root, filter="data")
        return
    # Debian 12 has 3.11.2, which knows no filters yet (3.11.4): only what a runner consists of
    top = root.resolve()
    for member in tar.getmembers():
        lands = (top / member.name).resolve()
        points = lands.parent / member.linkname if member.issym() else top / member.linkname
        inside = lands.is_relative_to(top) and points.resolve().is_relative_to(top)
        plain = member.isfile() or member.isdir() or member.islnk() or member.issym()
        if not (inside and plain):
            raise PackageError(f"cannot unpack {tar.name!r}: {member.name!r} has no place in it")
        member.mode &= 0o755
        member.uid = member.gid = -1
        tar.extract(member, root, numeric_owner=True)
