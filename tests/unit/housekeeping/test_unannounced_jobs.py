"""Jobs that wait at GitHub and that no delivery ever announced are announced."""

from __future__ import annotations

import json

import pytest

from runsfleet_runtime.contract.environment import RunnerLevel
from runsfleet_runtime.contract.messages import JobMessage
from runsfleet_runtime.github.errors import (
    NotFoundError,
    RateLimitedError,
    RefusedError,
    UnavailableError,
)
from runsfleet_runtime.github.model import QueuedJob
from runsfleet_runtime.github.rest import Quota
from runsfleet_runtime.housekeeping.model import SweepOutcome
from runsfleet_runtime.housekeeping.ports import SweepError
from runsfleet_runtime.housekeeping.unannounced_jobs import UnannouncedJobs
from runsfleet_runtime.jobs.model import Cause, JobRecord, JobStatus
from runsfleet_runtime.jobs.ports import Redispatched
from runsfleet_runtime.labels import LabelSettings
from tests.unit.housekeeping.frame import NOW, Frame, Redispatcher
from tests.unit.housekeeping.github_fakes import (
    INSTALLATION,
    Accounts,
    Queue,
    QueuedAtGitHub,
    Records,
    account,
)

LEASE = "sweep:unannounced_jobs"
OURS = ("runs-fleet=7/runner=2cpu-linux-arm64",)


class World:
    """Everything around the sweep."""

    def __init__(self, level: RunnerLevel = RunnerLevel.ORGANIZATION) -> None:
        self.frame = Frame()
        self.accounts = Accounts()
        self.github = QueuedAtGitHub()
        self.records = Records()
        self.queue = Queue()
        self.redispatcher = Redispatcher()
        self.task = UnannouncedJobs(
            accounts=self.accounts,
            queued=self.github,
            repositories=self.records,
            records=self.records,
            queue=self.queue,
            redispatcher=self.redispatcher,
            labels=LabelSettings(region="eu-central-1", environment="prod"),
            runner_level=level,
            metrics=self.frame,
            clock=self.frame.clock,
        )

    def job(
        self,
        job_id: int = 1,
        *,
        age: float | None = 600.0,
        labels: tuple[str, ...] = OURS,
        repository: str = "octo/spoon",
        run_id: int = 7,
    ) -> QueuedJob:
        job = QueuedJob(
            job_id=job_id,
            run_id=run_id,
            run_attempt=2,
            repository=repository,
            labels=labels,
            created_at=None if age is None else self.frame.now - age,
            workflow_name="CI",
            job_name="build",
        )
        self.github.add(job)
        return job

    def announced(self) -> list[int]:
        self.frame.run(self.task)
        return [job.job_id for job in self.queue.sent]


@pytest.fixture
def world() -> World:
    """Make a fleet whose organisation has one active repository."""
    return World()


def test_job_without_a_delivery_is_announced(world: World) -> None:
    """It becomes the very message that its delivery would have been."""
    job = world.job()
    report = world.frame.run(world.task)
    assert (report.acted, report.outcome) == (1, SweepOutcome.SUCCEEDED)
    (message,) = world.queue.sent
    assert message == JobMessage(
        job_id=job.job_id,
        run_id=7,
        run_attempt=2,
        repository="octo/spoon",
        labels=OURS,
        queued_at=NOW,
        installation_id=INSTALLATION,
        workflow_name="CI",
        job_name="build",
    )
    assert message.deduplication_id == "1:0:0"
    assert world.frame.counted["JobsRecovered:unannounced"] == 1


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (("ubuntu-latest",), "its labels are not ours"),
        ((), "its labels are not ours"),
        (("runs-fleet/env=dev",), "its labels are not ours"),
        (("runs-fleet/region=us-east-1",), "its labels are not ours"),
        (("runs-fleet/spot=False",), "its label is refused"),
    ],
)
def test_jobs_of_others_are_left_alone(world: World, labels: tuple[str, ...], reason: str) -> None:
    """Only a label that this fleet serves makes a message."""
    world.job(labels=labels)
    assert world.frame.run(world.task).verdicts == {f"spared: {reason}": 1}


@pytest.mark.parametrize("age", [0.0, 299.0, -60.0, None])
def test_young_and_ageless_jobs_are_left_alone(world: World, age: float | None) -> None:
    """A delivery may be under way still, and an age that cannot be read is not old."""
    world.job(age=age)
    assert world.announced() == []


MESSAGE = JobMessage(
    job_id=1, run_id=7, run_attempt=1, repository="octo/spoon", labels=OURS, queued_at=0
)


@pytest.mark.parametrize("status", [s for s in JobStatus if s is not JobStatus.COMPLETED])
def test_job_with_a_record_is_left_alone(world: World, status: JobStatus) -> None:
    """The job was announced; other sweeps look after it."""
    world.job()
    world.records.add(JobRecord(job=MESSAGE, status=status))
    assert world.announced() == []
    assert world.redispatcher.asked == []


def test_job_with_a_closed_record_is_dispatched_again(world: World) -> None:
    """Its instance served another job of its labels, whose own instance came to nothing."""
    world.job()
    world.records.add(JobRecord(job=MESSAGE, status=JobStatus.COMPLETED, updated_at=NOW - 300))
    assert world.announced() == []
    assert world.redispatcher.asked == [(1, Cause.STILL_QUEUED, 0)]
    assert world.frame.counted["JobsRecovered:still_queued"] == 1


def test_job_whose_record_was_just_closed_is_left_alone(world: World) -> None:
    """Whoever closed it may be looking for a runner at this moment."""
    world.job()
    world.records.add(JobRecord(job=MESSAGE, status=JobStatus.COMPLETED, updated_at=NOW - 299))
    world.announced()
    assert world.redispatcher.asked == []


def test_silent_table_fails_the_sweep_for_a_closed_record(world: World) -> None:
    """Whether it was dispatched again is unknown; the next sweep finds it once more."""
    world.job()
    world.records.add(JobRecord(job=MESSAGE, status=JobStatus.COMPLETED, updated_at=NOW - 300))
    world.redispatcher.answer = Redispatched.UNKNOWN
    assert world.frame.run(world.task).failures == 1


def test_unknown_record_is_no_absence(world: World) -> None:
    """A table that does not answer fails the sweep; the next one finds the job again."""
    world.job()
    world.records.is_down = True
    assert world.frame.run(world.task).outcome is SweepOutcome.FAILED
    assert not world.queue.sent
    world.records.is_down = False
    assert world.announced() == [1]


def test_queue_that_does_not_take_it(world: World) -> None:
    """A message that is not certain to be sent is a failure and is sent next time."""
    world.job()
    world.queue.is_down = True
    assert world.frame.run(world.task).failures == 1
    world.queue.is_down = False
    assert world.announced() == [1]


def test_github_that_cannot_be_asked_fails_the_sweep(world: World) -> None:
    """Not knowing the installations is not the same as having none."""
    world.accounts.error = UnavailableError("502")
    with pytest.raises(UnavailableError):
        world.frame.run(world.task)
    assert world.frame.outcomes[LEASE] is SweepOutcome.FAILED


def test_repositories_that_all_fail_fail_the_sweep(world: World) -> None:
    """A sweep whose every read fails does not look like one that found nothing."""
    world.github.errors["octo/spoon"] = UnavailableError("502")
    with pytest.raises(SweepError, match="no repository could be read"):
        world.frame.run(world.task)


def test_one_repository_that_fails_holds_up_no_other(world: World) -> None:
    """What can be read is swept, and the rest is counted as failures."""
    world.records.known = {"octo/fork", "octo/spoon"}
    world.github.errors["octo/fork"] = UnavailableError("502")
    world.job()
    assert world.announced() == [1]
    assert world.frame.counted["SweepFailures:unannounced_jobs"] == 1


def test_repository_that_is_gone_is_no_failure(world: World) -> None:
    """A deleted repository has no jobs."""
    world.github.errors["octo/spoon"] = NotFoundError("404")
    assert world.announced() == []
    assert not world.frame.counted["SweepFailures:unannounced_jobs"]


def test_missing_permission_is_told_and_no_failure(world: World) -> None:
    """An account that does not let the App read jobs is passed over, with a metric each time."""
    world.accounts.found = [
        account("closed", permissions={"metadata": "read"}),
        account("paused", is_suspended=True, permissions={}),
        account("octo"),
    ]
    world.records.known = {"closed/x", "paused/x", "octo/spoon"}
    for _ in range(2):
        assert world.frame.run(world.task).outcome is SweepOutcome.SUCCEEDED
    assert set(world.github.asked) == {"octo/spoon"}
    assert world.frame.counted["PermissionsMissing"] == 2
    assert world.frame.states[LEASE]["refused"] == ["closed"]


def test_users_repositories_have_no_runners_of_organisations(world: World) -> None:
    """At organisation level a user's repository is not swept; at repository level it is."""
    for level, asked in ((RunnerLevel.ORGANIZATION, []), (RunnerLevel.REPOSITORY, ["octo/spoon"])):
        world = World(level)
        world.accounts.found = [account(is_organization=False)]
        world.frame.run(world.task)
        assert world.github.repositories == asked


def test_active_repositories_come_first(world: World) -> None:
    """The others have their turn with what requests are left."""
    world.accounts.reachable = {"octo": ["octo/quiet", "octo/spoon"]}
    world.job(1, repository="octo/quiet")
    world.job(2)
    assert world.announced() == [2, 1]
    assert world.github.repositories == ["octo/spoon", "octo/quiet"]


def test_every_repository_has_its_turn(world: World) -> None:
    """A thousand repositories are all visited, within the requests of each run."""
    world.accounts.reachable = {"octo": [f"octo/r{number:04}" for number in range(1000)]}
    world.records.known = {f"octo/a{number:03}" for number in range(200)}
    for _ in range(40):
        before = len(world.github.asked)
        world.frame.run(world.task)
        asked = world.github.asked[before:]
        assert 2 * len(asked) <= 202
        world.frame.now += 300
    assert set(world.github.repositories) >= {*world.accounts.reachable["octo"]}
    assert min(map(world.github.repositories.count, world.records.known)) >= 10


def test_lists_are_kept_for_hours(world: World) -> None:
    """The table and the installation are not read through in each run."""
    for _ in range(12):
        world.frame.run(world.task)
        world.frame.now += 300
    assert (world.records.scans, world.accounts.listed) == (1, 1)
    world.frame.now += 6 * 3600
    world.frame.run(world.task)
    assert (world.records.scans, world.accounts.listed) == (2, 2)


def test_what_is_remembered_fits_into_an_item(world: World) -> None:
    """However many repositories there are, and however long their names: DynamoDB takes 400 KB."""
    long = "x" * 90
    world.accounts.reachable = {"octo": [f"octo/{long}{number}" for number in range(20_000)]}
    world.records.known = {f"octo/{long}-{number}" for number in range(20_000)}
    world.frame.run(world.task)
    state = world.frame.states[LEASE]
    assert 300_000 < len(json.dumps(state, separators=(",", ":"))) < 350_000


def test_repository_with_many_runs_is_asked_in_turn(world: World) -> None:
    """Runs that one sweep has no requests for are asked by the next ones."""
    for number in range(100):
        world.job(number + 1, run_id=1000 + number)
    for _ in range(4):
        world.frame.run(world.task)
    assert {job.job_id for job in world.queue.sent} == set(range(1, 101))


def test_what_the_limit_cut_off_is_found_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that stops early does not pass over what it had found."""
    monkeypatch.setattr(UnannouncedJobs, "limit", 3)
    world.records.known = {"octo/a", "octo/b"}
    for number in range(4):
        world.job(number + 1, repository="octo/a")
    world.job(9, repository="octo/b")
    assert world.frame.run(world.task).is_unfinished
    for job in world.queue.sent:
        world.records.add(JobRecord(job=job, status=JobStatus.CLAIMED))
    assert world.announced() == [1, 2, 3, 4, 9]


@pytest.mark.parametrize("left", [Quota(left=1999, limit=5000), Quota(left=0, limit=5000)])
def test_most_of_the_allowance_is_left_to_dispatch(world: World, left: Quota) -> None:
    """A sweep never uses up the requests that runners are registered with."""
    world.job()
    world.github.left = left
    assert world.announced() == []
    assert world.frame.counted["GitHubRateLimitLeft"] == left.left


def test_rate_limit_ends_the_run(world: World) -> None:
    """GitHub is not asked on after it has asked to wait."""
    world.records.known = {"octo/a", "octo/b", "octo/c"}
    world.github.errors["octo/b"] = RateLimitedError("wait", retry_at=NOW + 60)
    world.frame.run(world.task)
    assert world.github.repositories == ["octo/a", "octo/b"]
    world.github.errors.clear()
    world.frame.run(world.task)
    assert world.github.repositories[2:] == ["octo/b", "octo/c", "octo/a"]


def test_time_that_is_up_ends_the_run(world: World) -> None:
    """The run ends before the function is cut off, and the next one goes on."""
    world.frame.seconds = 20.0  # all of it is reserved
    world.job()
    assert world.announced() == []
    assert not world.github.asked


def test_refused_repository_is_a_failure(world: World) -> None:
    """A refusal that is not about being gone is told."""
    world.records.known = {"octo/a", "octo/b"}
    world.github.errors["octo/a"] = RefusedError("403", status=403)
    world.frame.run(world.task)
    assert world.frame.counted["SweepFailures:unannounced_jobs"] == 1


@pytest.mark.parametrize(
    "state",
    [
        {"after": 7, "cut": [], "active": {}, "active_at": "x", "others": 3, "others_at": None},
        {"cut": {"octo/spoon": "x"}, "refused": "octo"},
    ],
)
def test_memory_that_cannot_be_read_is_begun_anew(world: World, state: dict[str, object]) -> None:
    """A malformed memory does not stop the sweep."""
    world.frame.states[LEASE] = state
    world.job()
    assert world.announced() == [1]
