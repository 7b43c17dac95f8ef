"""Where the App is installed, what it may do there, and which repositories it reaches."""

from __future__ import annotations

from collections.abc import Iterator

from runsfleet_runtime.github.installations import Installations, Permissions
from runsfleet_runtime.github.listings import numbered_pages, text
from runsfleet_runtime.github.model import InstalledAccount

REPOSITORIES: Permissions = {"metadata": "read"}
"""What listing repositories needs; every App has it."""


class InstalledAccounts:
    """Lists the App's installations.

    Args:
        github: The API.
    """

    def __init__(self, github: Installations) -> None:
        self._github = github

    def accounts(self) -> list[InstalledAccount]:
        """Return the accounts on which the App is installed.

        Raises:
            GitHubError: If they could not be listed.
        """
        pages = numbered_pages(
            lambda path: self._github.call_as_app("GET", path).body,
            "/app/installations",
            key=None,
            what="installations",
        )
        found = []
        for entry in (entry for page in pages for entry in page):
            account, permissions = entry.get("account"), entry.get("permissions")
            if isinstance(account, dict) and isinstance(entry.get("id"), int):
                found.append(
                    InstalledAccount(
                        installation_id=entry["id"],
                        login=text(account, "login"),
                        is_organization=account.get("type") == "Organization",
                        is_suspended=entry.get("suspended_at") is not None,
                        permissions=permissions if isinstance(permissions, dict) else {},
                    )
                )
        return found

    def repositories(self, account: InstalledAccount) -> Iterator[str]:
        """Yield the repositories that the App reaches in an account, as ``owner/name``.

        Archived ones are left out: nothing runs in them. A request for each hundred is sent when
        the first of them is asked for.

        Raises:
            GitHubError: If they could not be listed.
        """
        pages = numbered_pages(
            lambda path: self._github.call_as(
                account.installation_id, "GET", path, permissions=REPOSITORIES
            ),
            "/installation/repositories",
            key="repositories",
            what="repositories",
        )
        for entry in (entry for page in pages for entry in page):
            name = text(entry, "full_name")
            if name and entry.get("archived") is not True:
                yield name
