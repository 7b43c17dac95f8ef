"""The runners that GitHub lists in an organisation or a repository, and taking one off the list."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runsfleet_runtime.github.errors import NotFoundError, RefusedError, UnavailableError
from runsfleet_runtime.github.installations import RUNNERS, Installations
from runsfleet_runtime.github.listings import numbered_pages, text
from runsfleet_runtime.github.model import ListedRunner, Removal, RunnerScope

_UNPROCESSABLE = 422


class RunnerDirectory:
    """Lists runners and removes them, one at a time.

    Args:
        github: The API.
    """

    def __init__(self, github: Installations) -> None:
        self._github = github

    def runners(self, scope: RunnerScope, installation_id: int) -> Iterator[ListedRunner]:
        """Yield all runners of an organisation or repository, a request for each hundred.

        Args:
            scope: Where they are registered.
            installation_id: The App's installation there.

        Raises:
            GitHubError: If a page could not be read; the list is incomplete then.
        """
        pages = numbered_pages(
            lambda path: self._call("GET", path, scope, installation_id),
            scope.runners_path,
            key="runners",
            what="runners",
        )
        for page in pages:
            yield from (_runner(entry) for entry in page)

    def read(self, scope: RunnerScope, installation_id: int, runner_id: int) -> ListedRunner | None:
        """Return a runner as it is now; ``None`` when it is gone.

        Raises:
            GitHubError: If it could not be read.
        """
        try:
            found = self._call("GET", f"{scope.runners_path}/{runner_id}", scope, installation_id)
        except NotFoundError:
            return None
        if not isinstance(found, dict):
            raise UnavailableError("github's answer holds no runner")
        return _runner(found)

    def remove(self, scope: RunnerScope, installation_id: int, runner_id: int) -> Removal:
        """Remove a runner, unless it has a job.

        Raises:
            GitHubError: If whether it is gone is unknown.
        """
        try:
            self._call("DELETE", f"{scope.runners_path}/{runner_id}", scope, installation_id)
        except NotFoundError:
            return Removal.ABSENT
        except RefusedError as error:
            if error.status != _UNPROCESSABLE:
                raise
            return Removal.BUSY  # GitHub refuses it while the runner has a job
        return Removal.REMOVED

    def _call(self, method: str, path: str, scope: RunnerScope, installation_id: int) -> Any:
        return self._github.call_as(installation_id, method, path, permissions=RUNNERS[scope.level])


def _runner(entry: dict[str, Any]) -> ListedRunner:
    if not isinstance(entry.get("id"), int):
        raise UnavailableError("github's answer holds a runner without id")
    return ListedRunner(
        id=entry["id"],
        name=text(entry, "name"),
        is_offline=entry.get("status") == "offline",
        is_busy=entry.get("busy") is not False,
        version=text(entry, "version"),
    )
