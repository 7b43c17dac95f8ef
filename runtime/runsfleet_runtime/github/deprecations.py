"""Which version of actions/runner GitHub offers, and until when it takes one.

GitHub has the endpoint since 2026-09 (github.blog/changelog/2026-09-03); an Enterprise Server may
lack it, and then nothing is known, which is neither good nor bad news.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from runsfleet_runtime.github.errors import NotFoundError, UnavailableError
from runsfleet_runtime.github.installations import RUNNERS, Installations
from runsfleet_runtime.github.listings import moment, text
from runsfleet_runtime.github.model import Deprecation, RunnerScope

_SYSTEMS = frozenset({"linux", "win"})
_VERSION = re.compile(r"-(\d+\.\d+\.\d+)\.(?:tar\.gz|zip)$")
_KEYS = ("registration_deprecates_at", "runtime_deprecates_at")


class Deprecations:
    """Asks which version is offered and when a version ends.

    Args:
        github: The API.
    """

    def __init__(self, github: Installations) -> None:
        self._github = github

    def offered(self, scope: RunnerScope, installation_id: int) -> set[str]:
        """Return the versions that GitHub offers for Linux and Windows; usually one.

        Args:
            scope: Where runners of them are registered.
            installation_id: The App's installation there.

        Raises:
            GitHubError: If GitHub gave no useful answer.
        """
        found = self._github.call_as(
            installation_id,
            "GET",
            f"{scope.runners_path}/downloads",
            permissions=RUNNERS[scope.level],
        )
        if not isinstance(found, list):
            raise UnavailableError("github's answer holds no list of runner packages")
        matches = [
            _VERSION.search(text(entry, "filename"))
            for entry in found
            if isinstance(entry, dict) and entry.get("os") in _SYSTEMS
        ]
        return {match[1] for match in matches if match}

    def of(self, version: str, scope: RunnerScope, installation_id: int) -> Deprecation | None:
        """Return when a version ends; ``None`` when GitHub does not know the version or question.

        Args:
            version: Such as ``2.337.0``.
            scope: Where runners of it are registered.
            installation_id: The App's installation there.

        Raises:
            GitHubError: If GitHub gave no useful answer.
        """
        try:
            found = self._github.call_as(
                installation_id,
                "GET",
                f"{scope.runners_path}/deprecations/{quote(version, safe='')}",
                permissions=RUNNERS[scope.level],
            )
        except NotFoundError:
            return None
        if not isinstance(found, dict):
            raise UnavailableError("github's answer holds no deprecation")
        ends = [moment(found, key) for key in _KEYS]
        for key, end in zip(_KEYS, ends, strict=True):
            # a time that cannot be read is not the absence of one
            if end is None and found.get(key) is not None:
                raise UnavailableError(f"github's answer holds no time in {key}")
        return Deprecation(version=version, registration_ends_at=ends[0], runtime_ends_at=ends[1])
