"""Runners that GitHub lists although their instances are gone are taken off the list."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from runsfleet_runtime.contract.environment import RunnerLevel
from runsfleet_runtime.github.errors import (
    GitHubError,
    NotFoundError,
    RateLimitedError,
    UnavailableError,
)
from runsfleet_runtime.github.model import ListedRunner, Removal, RunnerScope
from runsfleet_runtime.housekeeping import offline_runners
from runsfleet_runtime.housekeeping.model import SweepOutcome
from runsfleet_runtime.housekeeping.offline_runners import OfflineRunners
from runsfleet_runtime.housekeeping.ports import SweepError
from tests.unit.housekeeping.frame import NOW, Frame
from tests.unit.housekeeping.github_fakes import Accounts, Records, account

LEASE = "sweep:offline_runners"
CEILING = 8 * 3600.0


def name_of(number: int) -> str:
    """Return the name of an instance's runner."""
    return f"runsfleet-i-{number:017x}"


@dataclass
class Directory:
    """GitHub's lists of runners, by scope."""

    scopes: dict[str, dict[int, ListedRunner]] = field(default_factory=dict)
    errors: dict[str, GitHubError] = field(default_factory=dict)
    removal: Removal | GitHubError = Removal.REMOVED
    removed: list[int] = field(default_factory=list)
    listed: list[str] = field(default_factory=list)
    changes: dict[str, Any] = field(default_factory=dict)  # made between listing and reading

    def add(self, number: int, *, scope: str = "octo", **changes: Any) -> None:
        runner = ListedRunner(id=number, name=name_of(number), is_offline=True, is_busy=False)
        self.scopes.setdefault(scope, {})[number] = replace(runner, **changes)

    def change(self, number: int, *, scope: str = "octo", **changes: Any) -> None:
        self.scopes[scope][number] = replace(self.scopes[scope][number], **changes)

    def runners(self, scope: RunnerScope, installation_id: int) -> Iterator[ListedRunner]:
        self.listed.append(scope.key)
        if scope.key in self.errors:
            raise self.errors[scope.key]
        yield from self.scopes.get(scope.key, {}).values()

    def read(self, scope: RunnerScope, installation_id: int, runner_id: int) -> ListedRunner | None:
        found = self.scopes[scope.key].get(runner_id)
        return None if found is None or "gone" in self.changes else replace(found, **self.changes)

    def remove(self, scope: RunnerScope, installation_id: int, runner_id: int) -> Removal:
        if isinstance(self.removal, GitHubError):
            raise self.removal
        if self.removal is Removal.REMOVED:
            self.removed.append(runner_id)
            del self.scopes[scope.key][runner_id]
        return self.removal


@dataclass
class Ec2:
    """The instances that exist."""

    present: set[str] = field(default_factory=set)
    is_down: bool = False

    def exists(self, instance_id: str) -> bool:
        if self.is_down:
            raise SweepError("throttled")
        return instance_id in self.present


class World:
    """Everything around the sweep."""

    def __init__(self, level: RunnerLevel = RunnerLevel.ORGANIZATION) -> None:
        self.frame = Frame()
        self.accounts = Accounts()
        self.github = Directory()
        self.ec2 = Ec2()
        self.records = Records()
        self.task = OfflineRunners(
            accounts=self.accounts,
            runners=self.github,
            instances=self.ec2,
            repositories=self.records,
            runner_level=level,
            ceiling_seconds=CEILING,
            metrics=self.frame,
            clock=self.frame.clock,
        )

    def pass_time(self, seconds: float, *, step: float = 1800.0) -> None:
        """Let time pass, with a run every half hour."""
        for _ in range(int(seconds // step)):
            self.frame.now += step
            self.frame.run(self.task)

    def grow_old(self) -> None:
        """Look for the first time, and let the ceiling be reached but not passed."""
        self.frame.run(self.task)
        self.pass_time(CEILING)

    def seen(self, scope: str = "octo") -> dict[str, float]:
        return dict(self.frame.states[LEASE]["seen"][scope])


@pytest.fixture
def world() -> World:
    """Make a fleet at organisation level."""
    return World()


def test_runner_offline_for_longer_than_an_instance_lives(world: World) -> None:
    """It is removed once, not before its time, and only then."""
    world.github.add(1)
    world.grow_old()
    assert world.github.removed == []
    world.pass_time(1800)
    assert world.github.removed == [1]
    world.pass_time(CEILING)
    assert world.frame.counted["RunnersDeregistered"] == 1
    assert world.seen() == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"is_offline": False},
        {"is_busy": True},
        {"name": "my-own-runner"},
        {"name": "runsfleet-i-xyz"},
    ],
)
def test_others_are_never_removed(world: World, changes: dict[str, Any]) -> None:
    """One that is online, has a job or is named otherwise stays, however long."""
    world.github.add(1, **changes)
    world.pass_time(3 * CEILING)
    assert world.github.removed == []
    assert world.seen() == {}


def test_runner_that_came_online_meanwhile_begins_anew(world: World) -> None:
    """Being offline twice for a short time is not being offline for long."""
    world.github.add(1)
    world.grow_old()
    world.github.change(1, is_offline=False)
    world.pass_time(1800)
    world.github.change(1, is_offline=True)
    world.pass_time(CEILING)
    assert world.github.removed == []


@pytest.mark.parametrize("changes", [{"is_offline": False}, {"is_busy": True}, {"gone": True}])
def test_last_look_decides(world: World, changes: dict[str, Any]) -> None:
    """What changed since the list was read is seen before anything is removed."""
    world.github.add(1)
    world.grow_old()
    world.github.changes = changes
    world.pass_time(1800)
    assert world.github.removed == []
    assert world.seen() == {}


def test_runner_with_an_instance_stays(world: World) -> None:
    """An instance that lost the network keeps its runner as long as it exists."""
    world.github.add(1)
    world.ec2.present = {f"i-{1:017x}"}
    world.pass_time(2 * CEILING)
    assert world.github.removed == []
    world.ec2.present = set()
    world.pass_time(1800)
    assert world.github.removed == [1]


def test_unknown_instance_is_no_absence(world: World) -> None:
    """While EC2 does not answer nothing is removed, and the sweep fails."""
    world.github.add(1)
    world.grow_old()
    world.ec2.is_down = True
    world.pass_time(1800)
    assert world.github.removed == []
    assert world.frame.outcomes[LEASE] is SweepOutcome.FAILED
    world.ec2.is_down = False
    world.pass_time(1800)
    assert world.github.removed == [1]


def test_failed_removal_is_repeated_and_not_forgotten(world: World) -> None:
    """The next run tries again at once, not after another ceiling."""
    world.github.add(1)
    world.grow_old()
    world.github.removal = UnavailableError("502")
    world.pass_time(1800)
    assert world.frame.outcomes[LEASE] is SweepOutcome.FAILED
    assert list(world.seen()) == ["1"]
    world.github.removal = Removal.REMOVED
    world.pass_time(1800)
    assert world.github.removed == [1]


def test_runner_that_github_says_is_busy_begins_anew(world: World) -> None:
    """A refused removal is evidence that the runner lives."""
    world.github.add(1)
    world.grow_old()
    world.github.removal = Removal.BUSY
    world.pass_time(1800)
    assert not world.frame.counted["RunnersDeregistered"]
    assert world.seen() == {}


@pytest.mark.parametrize("stamp", ["yesterday", None, True, -1, NOW * 2, [1]])
def test_unreadable_age_is_never_old(world: World, stamp: object) -> None:
    """A time that cannot be one counts as now, and the runner gets its whole time."""
    world.github.add(1)
    world.frame.states[LEASE] = {"seen": {"octo": {"1": stamp}}}
    world.frame.run(world.task)
    assert world.github.removed == []
    assert world.seen() == {"1": NOW}


@pytest.mark.parametrize("seen", [[], None, {"octo": 7}, {"octo": []}])
def test_memory_that_cannot_be_read_is_begun_anew(world: World, seen: object) -> None:
    """A malformed memory makes nothing old and does not stop the sweep."""
    world.github.add(1)
    world.frame.states[LEASE] = {"seen": seen}
    world.frame.run(world.task)
    assert world.seen() == {"1": NOW}


def test_list_that_fails_keeps_the_times(world: World) -> None:
    """An outage of GitHub is no proof that a runner was online or gone."""
    world.github.add(1)
    world.grow_old()
    world.github.errors["octo"] = UnavailableError("502")
    world.frame.now += 1800
    with pytest.raises(SweepError, match="no runners could be listed"):
        world.frame.run(world.task)
    assert list(world.seen()) == ["1"]
    world.github.errors.clear()
    world.frame.run(world.task)
    assert world.github.removed == [1]


def test_one_list_that_fails_holds_up_no_other(world: World) -> None:
    """What can be listed is swept, and the rest is counted."""
    world.accounts.found = [account("acme"), account("octo")]
    world.github.add(1)
    world.github.add(2, scope="acme")
    world.grow_old()
    world.github.errors["acme"] = UnavailableError("502")
    world.pass_time(1800)
    assert world.github.removed == [1]
    assert world.frame.counted["SweepFailures:offline_runners"] == 1
    assert list(world.seen("acme")) == ["2"]


def test_rate_limit_ends_the_listing(world: World) -> None:
    """GitHub is not asked on after it has asked to wait."""
    world.accounts.found = [account("acme"), account("octo")]
    world.github.errors["acme"] = RateLimitedError("wait", retry_at=NOW + 60)
    with pytest.raises(SweepError):
        world.frame.run(world.task)
    assert world.github.listed == ["acme"]


def test_account_that_is_gone_is_forgotten(world: World) -> None:
    """Times of an organisation that uninstalled the App are not kept for ever."""
    world.github.add(1)
    world.frame.run(world.task)
    world.accounts.found = []
    world.frame.run(world.task)
    assert world.frame.states[LEASE]["seen"] == {}


def test_fifteen_thousand_runners(world: World) -> None:
    """A large list is swept, a bounded number of removals in each run."""
    for number in range(15_000):
        world.github.add(number, is_offline=number % 50 == 0)
    world.github.add(15_000)
    world.grow_old()
    world.pass_time(1800)
    assert len(world.github.removed) == 300
    world.pass_time(1800)
    assert len(world.github.removed) == 301


def test_more_than_can_be_remembered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were seen first are remembered, and the others get their time later."""
    monkeypatch.setattr(offline_runners, "MAX_SEEN", 10)
    for number in range(10):
        world.github.add(number)
    world.frame.run(world.task)
    for number in range(10, 25):
        world.github.add(number)
    world.pass_time(CEILING)
    assert set(map(int, world.seen())) == set(range(10))
    world.pass_time(4 * CEILING)
    assert sorted(world.github.removed) == list(range(25))


def test_repositories_are_listed_in_turn() -> None:
    """At repository level each active repository has its own list, some in each run."""
    world = World(RunnerLevel.REPOSITORY)
    world.records.known = {f"octo/r{number:03}" for number in range(450)} | {"gone/x"}
    world.github.add(1, scope="octo/r449")
    world.github.errors["octo/r000"] = NotFoundError("404")
    for _ in range(3):
        world.frame.run(world.task)
    assert len(world.github.listed) == 600
    assert len(set(world.github.listed)) == 450
    assert not world.frame.counted["SweepFailures:offline_runners"]
    for _ in range(int(3 * CEILING // 1800)):
        world.pass_time(1800)
    assert world.github.removed == [1]


def test_missing_permission_is_told_and_no_failure(world: World) -> None:
    """An organisation that does not let the App see its runners is passed over."""
    world.accounts.found = [account("closed", permissions={"actions": "read"}), account("octo")]
    world.frame.run(world.task)
    assert world.github.listed == ["octo"]
    assert world.frame.counted["PermissionsMissing"] == 1
