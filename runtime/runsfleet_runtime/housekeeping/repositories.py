"""Which accounts and repositories the sweeps that ask GitHub go through, and in what order.

GitHub cannot be asked for "all queued jobs" or "all runners of the App": each repository (or
organisation) is asked for its own. A large organisation has thousands, so they are visited in turn,
some in each run; those that had jobs lately come round the soonest.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final, Protocol, TypeVar

from runsfleet_runtime.contract.metrics import Metric
from runsfleet_runtime.github.model import InstalledAccount
from runsfleet_runtime.telemetry.log import get_logger
from runsfleet_runtime.telemetry.metrics import CountsMetrics

log = get_logger("housekeeping.repositories")

ACTIVE_SECONDS: Final = 7 * 24 * 3600.0
"""A repository that had a job within it is active; records are kept as long."""
REFRESHED_SECONDS: Final = 6 * 3600.0
"""Finding the active repositories reads the whole table of jobs."""
MAX_CHARACTERS: Final = 150_000
"""Of one remembered list of names; two of them fit into DynamoDB's 400 KB for an item. Some 5,000
names, as they usually are."""

_T = TypeVar("_T", int, str)


class ListsAccounts(Protocol):
    """Where the App is installed; see :class:`~runsfleet_runtime.github.accounts`."""

    def accounts(self) -> Sequence[InstalledAccount]:
        """Return the accounts on which the App is installed."""

    def repositories(self, account: InstalledAccount) -> Iterator[str]:
        """Yield the repositories that the App reaches in an account, as ``owner/name``."""


class RemembersRepositories(Protocol):
    """The records of jobs, as far as they tell where jobs come from."""

    def repositories(self, *, since: float) -> set[str]:
        """Return the repositories that had a job since then, as ``owner/name``.

        Raises:
            SweepError: If the table did not answer.
        """


def usable(
    accounts: Iterable[InstalledAccount],
    wanted: Mapping[str, str],
    *,
    state: dict[str, Any],
    metrics: CountsMetrics,
) -> dict[str, InstalledAccount]:
    """Return the accounts in which the App may do what a sweep needs, by name in lower case.

    The others are told: with a metric in each run, and in the log once.

    Args:
        accounts: All of them.
        wanted: The permissions that are needed.
        state: What the sweep remembers; ``refused`` holds those that were told.
        metrics: Where metrics go.
    """
    found, refused = {}, []
    for account in accounts:
        if account.is_suspended:
            continue
        if account.permits(wanted):
            found[account.login.lower()] = account
            continue
        refused.append(account.login)
        metrics.add(Metric.PERMISSIONS_MISSING)
        if account.login not in texts(state.get("refused")):
            log.warning(
                "the app lacks a permission; grant it and have the installation's owner accept it",
                extra={"account": account.login, "permissions": dict(wanted)},
            )
    state["refused"] = refused
    return found


def active_repositories(
    state: dict[str, Any], *, jobs: RemembersRepositories, now: float
) -> list[str]:
    """Return the repositories that had jobs lately, sorted.

    Args:
        state: What the sweep remembers; ``active`` and ``active_at`` hold them.
        jobs: The records of jobs.
        now: Epoch seconds.

    Raises:
        SweepError: If they have to be read anew and the table did not answer.
    """
    at = state.get("active_at")
    if isinstance(at, int | float) and 0 <= now - at < REFRESHED_SECONDS:
        return texts(state.get("active"))
    found = fitting(sorted(jobs.repositories(since=now - ACTIVE_SECONDS)))
    state["active"], state["active_at"] = found, now
    return found


def fitting(names: Sequence[str]) -> list[str]:
    """Return as many names as can be remembered, from the first; says so if those are not all."""
    lengths = accumulate(len(name) + 3 for name in names)  # two quotes and a comma
    found = [name for name, length in zip(names, lengths, strict=True) if length <= MAX_CHARACTERS]
    if len(found) < len(names):
        log.warning(
            "some repositories are left out", extra={"known": len(names), "kept": len(found)}
        )
    return found


def owner_of(repository: str) -> str:
    """Return the account of a repository, in lower case.

    Example:
        >>> owner_of("Octo/spoon")
        'octo'
    """
    return repository.partition("/")[0].lower()


def from_after(items: Sequence[_T], last: _T) -> list[_T]:
    """Return sorted items in turn: those after the last one visited, then from the beginning.

    Example:
        >>> from_after(["a", "b", "c"], "b")
        ['c', 'a', 'b']
    """
    start = bisect_right(items, last)
    return list(items[start:]) + list(items[:start])


def texts(value: object) -> list[str]:
    """Return the texts of a remembered list; none when it is not one.

    Example:
        >>> texts(["a", 1]), texts(None)
        (['a'], [])
    """
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def mapping(value: object) -> dict[str, Any]:
    """Return a remembered object; an empty one when it is none.

    Example:
        >>> mapping({"a": 1}), mapping([])
        ({'a': 1}, {})
    """
    return value if isinstance(value, dict) else {}
