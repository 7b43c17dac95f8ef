"""For how long GitHub still takes the versions of actions/runner that this fleet uses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from runsfleet_runtime.contract.environment import RunnerLevel
from runsfleet_runtime.contract.metrics import MetricDefinition
from runsfleet_runtime.github.errors import GitHubError, UnavailableError
from runsfleet_runtime.github.model import Deprecation, ListedRunner, RunnerScope
from runsfleet_runtime.housekeeping.model import SweepOutcome
from runsfleet_runtime.housekeeping.ports import SweepError
from runsfleet_runtime.housekeeping.runner_versions import RunnerVersions
from tests.unit.housekeeping.frame import NOW, Frame
from tests.unit.housekeeping.github_fakes import Accounts, Records, account

DAY = 24 * 3600.0


@dataclass
class GitHub:
    """Versions that are offered and in use, and their ends."""

    offers: set[str] = field(default_factory=lambda: {"2.337.0"})
    in_use: list[ListedRunner] = field(default_factory=list)
    ends: dict[str, Deprecation | None] = field(default_factory=dict)
    errors: dict[str, GitHubError] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def offered(self, scope: RunnerScope, installation_id: int) -> set[str]:
        if scope.key in self.errors:
            raise self.errors[scope.key]
        return self.offers

    def runners(self, scope: RunnerScope, installation_id: int) -> Iterable[ListedRunner]:
        return self.in_use

    def of(self, version: str, scope: RunnerScope, installation_id: int) -> Deprecation | None:
        self.asked.append(f"{scope.key} {version}")
        return self.ends.get(version)

    def end(
        self, version: str, *, registration: float | None = None, runtime: float | None = None
    ) -> None:
        self.ends[version] = Deprecation(
            version=version,
            registration_ends_at=None if registration is None else NOW + registration * DAY,
            runtime_ends_at=None if runtime is None else NOW + runtime * DAY,
        )

    def run_on(self, version: str, *, name: str = "runsfleet-i-00000001", **changes: bool) -> None:
        states = {"is_offline": False, "is_busy": False} | changes
        self.in_use.append(ListedRunner(id=len(self.in_use), name=name, version=version, **states))


class Gauges(Frame):
    """Keeps the values, not their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, list[float]] = defaultdict(list)

    def add(self, metric: MetricDefinition, value: float = 1, *, kind: str | None = None) -> None:
        super().add(metric, value, kind=kind)
        self.values[metric.name].append(value)


class World:
    """Everything around the sweep."""

    def __init__(self, level: RunnerLevel = RunnerLevel.ORGANIZATION) -> None:
        self.frame = Gauges()
        self.accounts = Accounts()
        self.github = GitHub()
        self.records = Records()
        self.task = RunnerVersions(
            accounts=self.accounts,
            runners=self.github,
            ends=self.github,
            repositories=self.records,
            runner_level=level,
            metrics=self.frame,
            clock=self.frame.clock,
        )

    def days(self) -> list[float]:
        self.frame.run(self.task)
        return self.frame.values["RunnerVersionDaysLeft"]


@pytest.fixture
def world() -> World:
    """Make a fleet at organisation level."""
    return World()


def test_versions_in_use_and_offered_are_measured(world: World) -> None:
    """Each version counts once; the earlier of its two ends is what matters."""
    world.github.run_on("2.335.0")
    world.github.run_on("2.336.0", is_busy=True)
    world.github.run_on("2.336.0")
    world.github.end("2.335.0", registration=3, runtime=5)
    world.github.end("2.336.0", runtime=20)
    world.github.end("2.337.0", runtime=50)
    assert world.days() == [3, 20, 50]
    assert len(world.github.asked) == 3


@pytest.mark.parametrize(
    ("name", "version", "is_offline"),
    [
        ("somebody-elses", "2.335.0", False),
        ("runsfleet-i-00000001", "2.335.0", True),
        ("runsfleet-i-00000001", "", False),
    ],
)
def test_runners_that_tell_nothing_of_the_fleet(
    world: World, name: str, version: str, is_offline: bool
) -> None:
    """Runners of others, gone ones and those without a version are not asked for."""
    world.github.run_on(version, name=name, is_offline=is_offline)
    world.frame.run(world.task)
    assert world.github.asked == ["octo 2.337.0"]


def test_what_github_does_not_know_is_left_out(world: World) -> None:
    """An older server, or a version without end, makes no number."""
    world.github.run_on("2.336.0")
    world.github.end("2.337.0")
    report = world.frame.run(world.task)
    assert world.frame.values["RunnerVersionDaysLeft"] == []
    assert report.outcome is SweepOutcome.SUCCEEDED
    assert report.verdicts == {
        "spared: GitHub does not say when it ends": 1,
        "spared: no end of it is set": 1,
    }


def test_version_that_has_ended_has_no_days_left(world: World) -> None:
    """Being over is nought, not a negative number that an average could hide."""
    world.github.end("2.337.0", runtime=-4)
    assert world.days() == [0]


def test_github_that_cannot_be_asked_fails_the_sweep(world: World) -> None:
    """No list of versions is not the same as no version that ends."""
    world.github.errors["octo"] = UnavailableError("502")
    with pytest.raises(SweepError, match="no versions could be listed"):
        world.frame.run(world.task)


def test_one_account_that_fails_holds_up_no_other(world: World) -> None:
    """What can be asked is measured, and the rest is counted."""
    world.accounts.found = [account("acme"), account("octo")]
    world.github.errors["acme"] = UnavailableError("502")
    world.github.end("2.337.0", runtime=9)
    assert world.days() == [9]
    assert world.frame.counted["SweepFailures:runner_versions"] == 1


def test_several_accounts_ask_once(world: World) -> None:
    """A version ends for all accounts on the same day."""
    world.accounts.found = [account("acme"), account("octo")]
    world.frame.run(world.task)
    assert world.github.asked == ["acme 2.337.0"]


def test_repository_level_asks_one_repository_of_each_account() -> None:
    """The first active repository stands for its account; one without any is passed over."""
    world = World(RunnerLevel.REPOSITORY)
    world.accounts.found = [account("acme"), account("octo"), account("idle")]
    world.records.known = {"octo/b", "octo/a", "acme/z", "gone/x"}
    world.github.offers = set()
    world.github.run_on("2.336.0")
    world.frame.run(world.task)
    assert world.github.asked == ["acme/z 2.336.0"]
