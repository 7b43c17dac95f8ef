"""Runners that GitHub lists although their instances are gone are taken off the list.

A runner that ends in order deregisters itself, and GitHub drops an ephemeral one that has been
offline for a day. Until then the others fill the list, count towards GitHub's limit for a runner
group, and hold their names.

GitHub does not tell since when a runner is offline. So the time at which this sweep first saw it
offline is remembered, and one that was seen online, or with a job, begins anew. It is removed when

- its name is one that a fleet gives to the runner of an instance,
- it has been offline for longer than an instance may live,
- no such instance exists in this account and region,

and all that still holds when it is asked for once more. Fleets of other regions use the same names;
theirs are removed only when they have been offline for as long, and then nobody misses them.

What is remembered (``Run.state``): under ``seen`` the times, by scope and by GitHub's id. One that
is no time means that it was seen first now: what cannot be read is never old.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from runsfleet_runtime.contract.environment import RunnerLevel
from runsfleet_runtime.contract.messages import HousekeepingTask
from runsfleet_runtime.contract.metrics import Metric
from runsfleet_runtime.github.errors import GitHubError, NotFoundError, RateLimitedError
from runsfleet_runtime.github.model import InstalledAccount, ListedRunner, Removal, RunnerScope
from runsfleet_runtime.housekeeping.model import Run, Verdict, spare
from runsfleet_runtime.housekeeping.ports import SweepError
from runsfleet_runtime.housekeeping.repositories import (
    ListsAccounts,
    RemembersRepositories,
    active_repositories,
    from_after,
    mapping,
    owner_of,
    usable,
)
from runsfleet_runtime.telemetry.log import get_logger
from runsfleet_runtime.telemetry.metrics import CountsMetrics

log = get_logger("housekeeping.offline_runners")

WANTED: Final = {
    RunnerLevel.ORGANIZATION: {"organization_self_hosted_runners": "write"},
    RunnerLevel.REPOSITORY: {"administration": "write"},
}
MAX_SEEN: Final = 5_000
"""About 25 bytes each, within DynamoDB's 400 KB for an item; those seen last are left out."""
REPOSITORIES_AT_ONCE: Final = 200
"""At repository level each repository has a list of its own; the rest have their turn later."""


class ListsRunners(Protocol):
    """GitHub's lists of runners; see :class:`~runsfleet_runtime.github.runners.RunnerDirectory`."""

    def runners(self, scope: RunnerScope, installation_id: int) -> Iterable[ListedRunner]:
        """Return all runners of an organisation or repository."""

    def read(self, scope: RunnerScope, installation_id: int, runner_id: int) -> ListedRunner | None:
        """Return a runner as it is now; ``None`` when it is gone."""

    def remove(self, scope: RunnerScope, installation_id: int, runner_id: int) -> Removal:
        """Remove a runner, unless it has a job."""


class KnowsPresence(Protocol):
    """EC2, as far as it tells what exists."""

    def exists(self, instance_id: str) -> bool:
        """Tell whether an instance exists that is not terminated, whoever it belongs to.

        Raises:
            SweepError: If EC2 could not be asked.
        """


@dataclass(frozen=True, slots=True)
class Offline:
    """A runner that GitHub lists as offline.

    Attributes:
        scope: Where it is registered.
        installation_id: The App's installation there.
        runner: The runner.
        seen_at: Epoch seconds at which it was first seen offline.
        has_instance: Whether its instance exists; ``None`` while EC2 was not asked.
    """

    scope: RunnerScope
    installation_id: int
    runner: ListedRunner
    seen_at: float
    has_instance: bool | None = None


class OfflineRunners:
    """The sweep.

    Args:
        accounts: Where the App is installed.
        runners: GitHub's lists of runners.
        instances: What exists in EC2.
        repositories: Where jobs came from lately; asked at repository level only.
        runner_level: Where runners are registered.
        ceiling_seconds: Longest life of an instance.
        metrics: Where metrics go.
        clock: Returns epoch seconds.
    """

    name = HousekeepingTask.OFFLINE_RUNNERS
    limit = 300

    def __init__(
        self,
        *,
        accounts: ListsAccounts,
        runners: ListsRunners,
        instances: KnowsPresence,
        repositories: RemembersRepositories,
        runner_level: RunnerLevel,
        ceiling_seconds: float,
        metrics: CountsMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._accounts = accounts
        self._runners = runners
        self._instances = instances
        self._repositories = repositories
        self._level = runner_level
        self._ceiling = ceiling_seconds
        self._metrics = metrics
        self._clock = clock
        self._seen: dict[str, dict[str, float]] = {}

    def select(self, run: Run) -> Iterator[Sequence[Offline]]:
        """List the runners of one scope after the other; those offline are a page."""
        accounts = usable(
            self._accounts.accounts(),
            WANTED[self._level],
            state=run.state,
            metrics=self._metrics,
        )
        scopes = self._scopes(run, accounts)
        before = mapping(run.state.get("seen"))
        # a scope that is gone is forgotten, one that is not listed this time is not
        self._seen = {scope.key: _times(before.get(scope.key), now=run.now) for scope, _ in scopes}
        run.state["seen"] = self._seen
        errors, read = [], 0
        for scope, account in self._turn(run, scopes):
            if self._clock() >= run.deadline:
                log.warning("the time is up before all runners are listed")
                break
            try:
                listed = list(self._runners.runners(scope, account.installation_id))
            except NotFoundError:
                listed = []  # a deleted repository has no runners
            except GitHubError as error:
                log.error("runners not listed", extra={"scope": scope.key, "error": str(error)})
                errors.append(f"{scope.key}: {error}")
                if isinstance(error, RateLimitedError):
                    break
                continue
            read += 1
            yield self._offline(scope, account, listed, now=run.now)
            run.state["after"] = scope.key
        if errors and not read:
            raise SweepError(f"no runners could be listed: {errors[0]}")
        if errors:
            self._metrics.add(Metric.SWEEP_FAILURES, len(errors), kind=self.name.value)

    def key(self, found: Offline) -> str:
        """Return the runner's name."""
        return found.runner.name

    def decide(self, found: Offline, *, now: float) -> Verdict:
        """Deregister what has been offline for longer than an instance lives."""
        if found.runner.instance_id is None:
            return spare("its name is none of a fleet's")
        if not found.runner.is_offline or found.runner.is_busy:
            return spare("it is online or has a job")
        if now - found.seen_at <= self._ceiling:
            return spare("it is not offline for long")
        if found.has_instance:
            return spare("its instance exists")
        return Verdict("deregister", "its instance is gone")

    def reread(self, found: Offline) -> Offline | None:
        """Ask GitHub for the runner, and EC2 for its instance."""
        runner = self._runners.read(found.scope, found.installation_id, found.runner.id)
        if runner is None or not runner.is_offline or runner.is_busy:
            self._forget(found)
        if runner is None:
            return None
        has_instance = runner.instance_id is not None and self._instances.exists(runner.instance_id)
        return replace(found, runner=runner, has_instance=has_instance)

    def act(self, found: Offline, verdict: Verdict) -> bool:
        """Deregister it; False when it is gone or has a job. A failure is remembered with it."""
        del verdict  # there is but one
        removal = self._runners.remove(found.scope, found.installation_id, found.runner.id)
        self._forget(found)
        if removal is not Removal.REMOVED:
            return False
        self._metrics.add(Metric.RUNNERS_DEREGISTERED)
        return True

    def _scopes(
        self, run: Run, accounts: Mapping[str, InstalledAccount]
    ) -> list[tuple[RunnerScope, InstalledAccount]]:
        if self._level is RunnerLevel.ORGANIZATION:
            return [
                (RunnerScope(self._level, account.login, ""), account)
                for account in accounts.values()
                if account.is_organization
            ]
        active = active_repositories(run.state, jobs=self._repositories, now=run.now)
        return [
            (RunnerScope.of(self._level, repository), accounts[owner_of(repository)])
            for repository in active
            if owner_of(repository) in accounts
        ]

    def _turn(
        self, run: Run, scopes: Sequence[tuple[RunnerScope, InstalledAccount]]
    ) -> list[tuple[RunnerScope, InstalledAccount]]:
        by_key = {scope.key: (scope, account) for scope, account in scopes}
        last = run.state.get("after")
        keys = from_after(sorted(by_key), last if isinstance(last, str) else "")
        return [by_key[key] for key in keys[:REPOSITORIES_AT_ONCE]]

    def _offline(
        self,
        scope: RunnerScope,
        account: InstalledAccount,
        listed: Sequence[ListedRunner],
        *,
        now: float,
    ) -> list[Offline]:
        """Note which of a scope's runners are offline, and since when."""
        before = self._seen[scope.key]
        found = [
            Offline(scope, account.installation_id, runner, before.get(str(runner.id), now))
            for runner in listed
            if runner.instance_id is not None and runner.is_offline and not runner.is_busy
        ]
        found.sort(key=lambda one: one.seen_at)
        room = MAX_SEEN - sum(len(seen) for key, seen in self._seen.items() if key != scope.key)
        self._seen[scope.key] = {str(one.runner.id): one.seen_at for one in found[: max(0, room)]}
        return found

    def _forget(self, found: Offline) -> None:
        self._seen.get(found.scope.key, {}).pop(str(found.runner.id), None)


def _times(remembered: object, *, now: float) -> dict[str, float]:
    """Return remembered times; one that is none, or still to come, is now."""
    return {key: _time(value, now=now) for key, value in mapping(remembered).items()}


def _time(value: Any, *, now: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value <= now else now
