"""Which release of actions/runner to install: the one that GitHub offers to the scope.

A release reaches organisations gradually, so the list of the organisation (or repository) is asked,
not the release page. It is the same for all platforms and changes about monthly: one request an
hour. When GitHub cannot be asked, a list of the last day still serves: a runner stays usable for
30 days after its successor.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from runsfleet_runtime.contract.environment import RunnerLevel
from runsfleet_runtime.github.errors import (
    CredentialsError,
    RateLimitedError,
    RefusedError,
    UnavailableError,
)
from runsfleet_runtime.github.installations import RUNNERS, Installations
from runsfleet_runtime.github.model import RunnerPackage, RunnerScope
from runsfleet_runtime.telemetry.log import get_logger

TTL_SECONDS = 3600.0
STALE_SECONDS = 24 * 3600.0
RETRY_SECONDS = 60.0
"""After a failure with a list still at hand, GitHub is asked again this much later."""
_SYSTEMS = {"linux": "linux", "windows": "win"}
_SHA256 = re.compile(r"[0-9a-f]{64}", re.IGNORECASE)
_log = get_logger("github.packages")


@dataclass(slots=True)
class _Offers:
    lock: threading.Lock = field(default_factory=threading.Lock)
    entries: list[Any] | None = None
    fetched_at: float = 0.0
    due_at: float = 0.0


class RunnerPackages:
    """Knows the runner package of each platform; safe for threads.

    Args:
        github: The API.
        level: Where runners are registered.
        clock: Epoch seconds.
    """

    def __init__(
        self, github: Installations, *, level: RunnerLevel, clock: Callable[[], float] = time.time
    ) -> None:
        self._github = github
        self._level = level
        self._clock = clock
        self._offers: dict[str, _Offers] = {}
        self._lock = threading.Lock()

    def for_platform(
        self,
        platform: str,
        repository: str,
        *,
        installation_id: int | None = None,
        deadline: float | None = None,
    ) -> RunnerPackage:
        """Return the package that GitHub offers for a platform.

        Args:
            platform: ``linux-arm64``, ``linux-x64`` or ``windows-x64``.
            repository: ``owner/name``.
            installation_id: Of the App; looked up when ``None``.
            deadline: Epoch seconds after which to give up; 20 s from now by default.

        Raises:
            RefusedError: If GitHub offers none for the platform, or names no SHA-256 for it: a
                package that cannot be verified is not installed.
            GitHubError: As ``RunnerRegistrar.register``.
        """
        system, _, architecture = platform.partition("-")
        if system not in _SYSTEMS or not architecture:
            raise RefusedError(f"platform must be like linux-arm64, got {platform!r}", status=400)
        scope = RunnerScope.of(self._level, repository)
        for entry in self._list(scope, installation_id, deadline):
            if entry.get("os") == _SYSTEMS[system] and entry.get("architecture") == architecture:
                return _package(platform, entry)
        raise RefusedError(f"github offers {scope.key} no runner for {platform}", status=404)

    def _list(
        self, scope: RunnerScope, installation_id: int | None, deadline: float | None
    ) -> list[Any]:
        with self._lock:
            offers = self._offers.setdefault(scope.key, _Offers())
        with offers.lock:
            now = self._clock()
            if offers.entries is not None and now < offers.due_at:
                return offers.entries
            try:
                entries = self._fetch(scope, installation_id, deadline)
            except (CredentialsError, RateLimitedError, UnavailableError) as error:
                if offers.entries is None or now >= offers.fetched_at + STALE_SECONDS:
                    raise
                _log.warning("former list of runner packages used", extra={"error": str(error)})
                offers.due_at = now + RETRY_SECONDS
                return offers.entries
            offers.entries = entries
            offers.fetched_at, offers.due_at = now, now + TTL_SECONDS
            return offers.entries

    def _fetch(
        self, scope: RunnerScope, installation_id: int | None, deadline: float | None
    ) -> list[Any]:
        found = self._github.call(
            "GET",
            f"{scope.runners_path}/downloads",
            scope=scope,
            installation_id=installation_id,
            permissions=RUNNERS[self._level],
            deadline=deadline,
        )
        if not isinstance(found, list):
            raise UnavailableError("github's answer holds no list of runner packages")
        return [entry for entry in found if isinstance(entry, dict)]


def _package(platform: str, entry: dict[str, Any]) -> RunnerPackage:
    url, filename = entry.get("download_url"), entry.get("filename")
    digest = entry.get("sha256_checksum")
    if not isinstance(url, str) or not isinstance(filename, str):
        raise UnavailableError(f"github's answer names no download for {platform}")
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise RefusedError(
            f"github names no sha-256 for {filename}, so it cannot be verified; update the "
            "enterprise server",
            status=404,
        )
    return RunnerPackage(url, filename, digest.lower())
