"""For how long GitHub still takes the versions of actions/runner that this fleet uses.

GitHub gives no job to a runner whose version ended, and then the whole fleet stands still. Asked
for are the version that GitHub offers, which new instances get, and those of the runners that are
online now, which tell of an image that was not renewed. What GitHub does not say is left out of the
metric: unknown is neither 0 days nor many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from runsfleet_runtime.contract.environment import RunnerLevel
from runsfleet_runtime.contract.messages import HousekeepingTask
from runsfleet_runtime.contract.metrics import Metric
from runsfleet_runtime.contract.runner_versions import days_left
from runsfleet_runtime.github.errors import GitHubError
from runsfleet_runtime.github.model import Deprecation, InstalledAccount, ListedRunner, RunnerScope
from runsfleet_runtime.housekeeping.model import Run, Verdict, spare
from runsfleet_runtime.housekeeping.offline_runners import WANTED
from runsfleet_runtime.housekeeping.ports import SweepError
from runsfleet_runtime.housekeeping.repositories import (
    ListsAccounts,
    RemembersRepositories,
    active_repositories,
    owner_of,
    usable,
)
from runsfleet_runtime.telemetry.log import get_logger
from runsfleet_runtime.telemetry.metrics import CountsMetrics

log = get_logger("housekeeping.runner_versions")

OFFERED: Final = "offered"
IN_USE: Final = "in use"


class ListsVersions(Protocol):
    """GitHub's lists of runners, as far as they tell versions."""

    def runners(self, scope: RunnerScope, installation_id: int) -> Iterable[ListedRunner]:
        """Return all runners of an organisation or repository."""


class KnowsEnds(Protocol):
    """What GitHub says of versions; see :mod:`runsfleet_runtime.github.deprecations`."""

    def offered(self, scope: RunnerScope, installation_id: int) -> set[str]:
        """Return the versions that are offered."""

    def of(self, version: str, scope: RunnerScope, installation_id: int) -> Deprecation | None:
        """Return when a version ends; ``None`` when GitHub does not know."""


@dataclass(frozen=True, slots=True)
class Version:
    """A version, where it was found.

    Attributes:
        version: The version.
        use: Whether it is offered or in use, for people.
        scope: Where.
        installation_id: The App's installation there.
        end: What GitHub says of its end; ``None`` while it was not asked, or does not know.
        is_asked: Whether GitHub was asked.
    """

    version: str
    use: str
    scope: RunnerScope
    installation_id: int
    end: Deprecation | None = None
    is_asked: bool = False


class RunnerVersions:
    """The sweep.

    Args:
        accounts: Where the App is installed.
        runners: GitHub's lists of runners.
        ends: What GitHub says of versions.
        repositories: Where jobs came from lately; asked at repository level only.
        runner_level: Where runners are registered.
        metrics: Where metrics go.
        clock: Returns epoch seconds.
    """

    name: Final = HousekeepingTask.RUNNER_VERSIONS
    limit: Final = 200

    def __init__(
        self,
        *,
        accounts: ListsAccounts,
        runners: ListsVersions,
        ends: KnowsEnds,
        repositories: RemembersRepositories,
        runner_level: RunnerLevel,
        metrics: CountsMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._accounts = accounts
        self._runners = runners
        self._ends = ends
        self._repositories = repositories
        self._level = runner_level
        self._metrics = metrics
        self._clock = clock

    def select(self, run: Run) -> Iterator[Sequence[Version]]:
        """Return the versions of each account, each version once."""
        accounts = usable(
            self._accounts.accounts(),
            WANTED[self._level],
            state=run.state,
            metrics=self._metrics,
        )
        errors: list[str] = []
        told: set[str] = set()
        scopes = self._scopes(run, list(accounts.values()))
        for scope, account in scopes:
            try:
                found = self._versions(scope, account)
            except GitHubError as error:
                log.error("versions not listed", extra={"scope": scope.key, "error": str(error)})
                errors.append(f"{scope.key}: {error}")
                continue
            # a version ends on the same day for everybody
            yield [one for one in found if one.version not in told]
            told |= {one.version for one in found}
        if errors and len(errors) == len(scopes):
            raise SweepError(f"no versions could be listed: {errors[0]}")
        if errors:
            self._metrics.add(Metric.SWEEP_FAILURES, len(errors), kind=self.name.value)

    def key(self, found: Version) -> str:
        """Return the version."""
        return found.version

    def decide(self, found: Version, *, now: float) -> Verdict:
        """Measure what has an end."""
        if not found.is_asked:
            return Verdict("measure", f"it is {found.use}")
        if found.end is None:
            return spare("GitHub does not say when it ends")
        if _days_left(found.end, now=now) is None:
            return spare("no end of it is set")
        return Verdict("measure", f"it is {found.use}")

    def reread(self, found: Version) -> Version:
        """Ask GitHub when it ends."""
        end = self._ends.of(found.version, found.scope, found.installation_id)
        return replace(found, end=end, is_asked=True)

    def act(self, found: Version, verdict: Verdict) -> bool:
        """Tell how many days are left."""
        days = None if found.end is None else _days_left(found.end, now=self._clock())
        if days is None:
            return False
        self._metrics.add(Metric.RUNNER_VERSION_DAYS_LEFT, max(0.0, days))
        log.warning(
            "a runner version ends",
            extra={"version": found.version, "days": round(days, 1), "reason": verdict.reason},
        )
        return True

    def _versions(self, scope: RunnerScope, account: InstalledAccount) -> list[Version]:
        installation = account.installation_id
        offered = self._ends.offered(scope, installation)
        in_use = {
            runner.version
            for runner in self._runners.runners(scope, installation)
            if runner.instance_id is not None and not runner.is_offline and runner.version
        }
        return [
            Version(version, IN_USE if version in in_use else OFFERED, scope, installation)
            for version in sorted(offered | in_use)
        ]

    def _scopes(
        self, run: Run, accounts: Sequence[InstalledAccount]
    ) -> list[tuple[RunnerScope, InstalledAccount]]:
        if self._level is RunnerLevel.ORGANIZATION:
            return [
                (RunnerScope(self._level, account.login, ""), account)
                for account in accounts
                if account.is_organization
            ]
        # one repository stands for all of its account: they get the same version
        active = active_repositories(run.state, jobs=self._repositories, now=run.now)
        first = {owner_of(repository): repository for repository in reversed(active)}
        return [
            (RunnerScope.of(self._level, first[account.login.lower()]), account)
            for account in accounts
            if account.login.lower() in first
        ]


def _days_left(end: Deprecation, *, now: float) -> float | None:
    return days_left(
        registration_ends_at=end.registration_ends_at, runtime_ends_at=end.runtime_ends_at, now=now
    )
