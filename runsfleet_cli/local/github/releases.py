"""Releases of the runner: what may be downloaded, its digest, and when a version is too old.

The packages are really served, from GitHub's addresses: the releases API, the organization's
``runners/downloads`` and the download itself. Faults make it slow, cut it short or change a byte.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from runsfleet_cli.local.github.errors import not_found
from runsfleet_cli.local.github.traffic import FAULT
from runsfleet_cli.local.github.world import Clock, iso

REPOSITORY: Final = "actions/runner"
SUPPORT_SECONDS: Final = 30 * 86_400
"""A version must be replaced within 30 days of the next release (GitHub's documentation)."""
FLOOR: Final = (2, 329, 0)
"""Older versions can no longer register (GitHub's changelog, 2026-06-12)."""
CHUNK: Final = 16_384
SLOW_CHUNKS: Final = 20
SLOW_SECONDS: Final = 5.0
"""How long a download takes that a fault makes slow, whatever its size."""


@dataclass(frozen=True, slots=True)
class Package:
    """One file of a release."""

    os: str
    architecture: str
    version: str
    content: bytes

    @property
    def filename(self) -> str:
        """Answer the file's name, for example ``actions-runner-linux-arm64-2.337.0.tar.gz``."""
        suffix = "zip" if self.os == "win" else "tar.gz"
        return f"actions-runner-{self.os}-{self.architecture}-{self.version}.{suffix}"

    @property
    def sha256(self) -> str:
        """Answer the digest in hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()


class Releases:
    """Serves the packages of the current version and knows when older ones end.

    Args:
        packages: The current version's packages.
        clock: Seconds since the epoch.
        origin: Answers the server's root address.
    """

    def __init__(
        self, packages: Sequence[Package], *, clock: Clock, origin: Callable[[], str]
    ) -> None:
        self._packages = packages
        self._origin = origin
        self._clock = clock
        self.published_at = clock()
        self.version = packages[0].version
        self._runtime_ends: dict[str, float] = {}

    def package(self, architecture: str) -> Package:
        """Answer the current package for Linux on an architecture: ``arm64`` or ``x64``."""
        return next(
            entry
            for entry in self._packages
            if (entry.os, entry.architecture) == ("linux", architecture)
        )

    def deprecate(self, version: str, *, runtime_ends: float) -> None:
        """Let a version end at a moment (epoch seconds)."""
        self._runtime_ends[version] = runtime_ends

    def is_deprecated(self, version: str) -> bool:
        """Say whether runners of a version get no more jobs."""
        ends = self._runtime_ends.get(version)
        return ends is not None and ends <= self._clock()

    def deprecation(self, version: str) -> dict[str, Any]:
        """Answer the API's view of a version.

        Raises:
            ApiError: 404 for what is no version.
        """
        numbers = version.split(".")
        if len(numbers) != len(FLOOR) or not all(part.isdigit() for part in numbers):
            raise not_found()
        ends = self._runtime_ends.get(version)
        registration = ends
        if tuple(int(part) for part in numbers) < FLOOR:
            registration = ends = self.published_at
        elif ends is None and version != self.version:
            registration = ends = self.published_at + SUPPORT_SECONDS
        return {
            "runner_version": version,
            "registration_deprecates_at": None if registration is None else iso(registration),
            "runtime_deprecates_at": None if ends is None else iso(ends),
        }

    def _url(self, package: Package) -> str:
        return (
            f"{self._origin()}/{REPOSITORY}/releases/download/v{package.version}/{package.filename}"
        )

    def downloads(self) -> list[dict[str, str]]:
        """Answer ``runners/downloads``."""
        return [
            {
                "os": package.os,
                "architecture": package.architecture,
                "download_url": self._url(package),
                "filename": package.filename,
                "sha256_checksum": package.sha256,
            }
            for package in self._packages
        ]

    def release(self) -> dict[str, Any]:
        """Answer the release as the releases API does."""
        sums = "\n".join(
            f"- {package.filename} <!-- BEGIN SHA {package.os}-{package.architecture} -->"
            f"{package.sha256}<!-- END SHA {package.os}-{package.architecture} -->"
            for package in self._packages
        )
        moment = iso(self.published_at)
        return {
            "id": 180_000_001,
            "tag_name": f"v{self.version}",
            "name": f"v{self.version}",
            "draft": False,
            "prerelease": False,
            "html_url": f"{self._origin()}/{REPOSITORY}/releases/tag/v{self.version}",
            "created_at": moment,
            "published_at": moment,
            "body": f"## SHA-256 Checksums\n{sums}\n",
            "assets": [
                {
                    "id": 291_000_001 + index,
                    "name": package.filename,
                    "content_type": "application/octet-stream",
                    "state": "uploaded",
                    "size": len(package.content),
                    "digest": f"sha256:{package.sha256}",
                    "browser_download_url": self._url(package),
                    "created_at": moment,
                    "updated_at": moment,
                }
                for index, package in enumerate(self._packages)
            ],
        }

    def api_routes(self, prefix: str) -> list[web.RouteDef]:
        """Answer the routes of the releases API under a prefix; it needs no token."""
        base = f"{prefix}/repos/{REPOSITORY}/releases"
        return [
            web.get(f"{base}/latest", self._latest),
            web.get(f"{base}/tags/{{tag}}", self._tagged),
        ]

    def download_routes(self) -> list[web.RouteDef]:
        """Answer the route of the downloads."""
        return [
            web.get(f"/{REPOSITORY}/releases/download/{{tag}}/{{filename}}", self._download),
        ]

    async def _latest(self, _request: web.Request) -> web.Response:
        return web.json_response(self.release())

    async def _tagged(self, request: web.Request) -> web.Response:
        if request.match_info["tag"] != f"v{self.version}":
            raise not_found()
        return web.json_response(self.release())

    async def _download(self, request: web.Request) -> web.StreamResponse:
        found = [
            package
            for package in self._packages
            if package.filename == request.match_info["filename"]
            and request.match_info["tag"] == f"v{package.version}"
        ]
        if not found:
            raise not_found()
        fault = request.get(FAULT)
        kind = None if fault is None else fault.download
        content = found[0].content
        if kind == "wrong-digest":
            content = content[:-1] + bytes([content[-1] ^ 1])
        response = web.StreamResponse(
            headers={
                "Content-Type": "application/octet-stream",
                "Content-Length": str(len(content)),
                "Content-Disposition": f"attachment; filename={found[0].filename}",
            }
        )
        await response.prepare(request)
        if kind == "truncated":
            await response.write(content[: len(content) // 2])
            if request.transport is not None:
                request.transport.close()
            return response
        size = CHUNK if kind != "slow" else -(-len(content) // SLOW_CHUNKS)
        for start in range(0, len(content), size):
            if kind == "slow":
                await asyncio.sleep(SLOW_SECONDS / SLOW_CHUNKS)
            await response.write(content[start : start + size])
        await response.write_eof()
        return response
