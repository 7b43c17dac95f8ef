"""Jobs that wait at GitHub and that no delivery ever announced are announced.

A delivery may never have been made, or have failed for longer than it is repeated. So GitHub is
asked, repository by repository, which jobs are queued; one that carries a label of this fleet, has
waited for minutes and has no record here becomes a message on the jobs queue, the very one that its
delivery would have been. One whose record is closed is dispatched again: its runner had served
another job of its labels, and the runner that it was left to is gone.

Requests are bounded: the repositories that had jobs lately come round first, the others that the
App reaches with what is left over, and most of GitHub's hourly allowance stays with dispatch. Where
the App may not read jobs the account is passed over and told (``repositories.usable``).

A message of a job that is on the queue already does no harm: whoever comes second finds its record.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from runsfleet_runtime.contract.environment import RunnerLevel
from runsfleet_runtime.contract.messages import HousekeepingTask, JobMessage
from runsfleet_runtime.contract.metrics import Metric
from runsfleet_runtime.github.errors import GitHubError, NotFoundError, RateLimitedError
from runsfleet_runtime.github.model import InstalledAccount, QueuedJob
from runsfleet_runtime.github.rest import Quota
from runsfleet_runtime.housekeeping.model import Run, Verdict, spare
from runsfleet_runtime.housekeeping.ports import SweepError
from runsfleet_runtime.housekeeping.repositories import (
    REFRESHED_SECONDS,
    ListsAccounts,
    RemembersRepositories,
    active_repositories,
    fitting,
    from_after,
    mapping,
    owner_of,
    texts,
    usable,
)
from runsfleet_runtime.jobs.model import Cause, JobRecord, JobStatus
from runsfleet_runtime.jobs.ports import ReadsJobs, Redispatched, RedispatchesJobs, SendsJobs
from runsfleet_runtime.labels import Accepted, LabelSettings, NotOurs, resolve
from runsfleet_runtime.telemetry.log import get_logger
from runsfleet_runtime.telemetry.metrics import CountsMetrics

log = get_logger("housekeeping.unannounced_jobs")

WANTED: Final = {"actions": "read"}
MIN_AGE_SECONDS: Final = 300.0
"""A delivery comes within seconds, and one that failed is repeated within these five minutes."""
ACTIVE_REQUESTS: Final = 150
OTHER_REQUESTS: Final = 50
"""Requests in a run, for either kind of repository; 1,200 an hour with a run in ten minutes."""
RUNS_AT_ONCE: Final = 30
"""Most runs of a repository whose jobs are asked for in a run; the rest have their turn later."""
RESERVED_SHARE: Final = 0.4
"""Below this share of GitHub's hourly allowance the rest is left to dispatch."""
_PER_REQUEST: Final = 100


class ListsQueuedJobs(Protocol):
    """The jobs that GitHub has queued; see :mod:`runsfleet_runtime.github.queued_jobs`."""

    def runs(self, repository: str, installation_id: int) -> Iterator[int]:
        """Yield the ids of the runs that may have queued jobs."""

    def jobs(self, repository: str, run_id: int, installation_id: int) -> Sequence[QueuedJob]:
        """Return the jobs of a run that wait for a runner."""

    def quota(self, installation_id: int) -> Quota | None:
        """Return what is left of GitHub's hourly allowance; ``None`` when it is not known."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job that waits at GitHub.

    Attributes:
        job: The job.
        installation_id: The App's installation in its account.
        record: Its record here; ``None`` when there is none, or while that was not read.
    """

    job: QueuedJob
    installation_id: int
    record: JobRecord | None = None


class _StopError(Exception):
    """No more requests in this run."""


class UnannouncedJobs:
    """The sweep.

    Args:
        accounts: Where the App is installed.
        queued: The jobs that GitHub has queued.
        repositories: Where jobs came from lately.
        records: The jobs table.
        queue: The jobs queue.
        redispatcher: Dispatches a job again.
        labels: What labels are resolved against.
        runner_level: Where runners are registered.
        metrics: Where metrics go.
        clock: Returns epoch seconds.
    """

    name = HousekeepingTask.UNANNOUNCED_JOBS
    limit = 500

    def __init__(
        self,
        *,
        accounts: ListsAccounts,
        queued: ListsQueuedJobs,
        repositories: RemembersRepositories,
        records: ReadsJobs,
        queue: SendsJobs,
        redispatcher: RedispatchesJobs,
        labels: LabelSettings,
        runner_level: RunnerLevel,
        metrics: CountsMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._accounts = accounts
        self._queued = queued
        self._repositories = repositories
        self._records = records
        self._queue = queue
        self._redispatcher = redispatcher
        self._labels = labels
        self._level = runner_level
        self._metrics = metrics
        self._clock = clock

    def select(self, run: Run) -> Iterator[Sequence[Waiting]]:
        """Ask one repository after the other; each is a page."""
        accounts = usable(self._accounts.accounts(), WANTED, state=run.state, metrics=self._metrics)
        if self._level is RunnerLevel.ORGANIZATION:
            # a user's repositories get no runner of an organisation's; the webhook refuses them too
            accounts = {name: one for name, one in accounts.items() if one.is_organization}
        visit = _Visit(self._queued, accounts, run, self._metrics, self._clock)
        active = active_repositories(run.state, jobs=self._repositories, now=run.now)
        try:
            left = yield from visit.all_of(active, "after", ACTIVE_REQUESTS)
            others = sorted(set(self._others(run, accounts)).difference(active))
            yield from visit.all_of(others, "after_other", OTHER_REQUESTS + max(0, left))
        except _StopError as stop:
            log.warning("stopped asking github", extra={"reason": str(stop)})
        visit.tell(self.name)

    def key(self, found: Waiting) -> str:
        """Return the job's id."""
        return str(found.job.job_id)

    def decide(self, found: Waiting, *, now: float) -> Verdict:
        """Announce what is ours, has waited and has no record."""
        if found.job.created_at is None:
            return spare("its age is unknown")
        if now - found.job.created_at < MIN_AGE_SECONDS:
            return spare("it is young")
        outcome = resolve(found.job.labels, self._labels)
        if isinstance(outcome, NotOurs):
            return spare("its labels are not ours")
        if not isinstance(outcome, Accepted):
            return spare("its label is refused")
        if (record := found.record) is not None:
            # closed a moment ago it may be looked after by whoever closed it
            is_closed = record.status is JobStatus.COMPLETED
            if is_closed and now - record.updated_at >= MIN_AGE_SECONDS:
                return Verdict("redispatch", "its record is closed")
            return spare("it has a record")
        return Verdict("announce", "no delivery announced it")

    def reread(self, found: Waiting) -> Waiting:
        """Look for its record."""
        return replace(found, record=self._records.get(found.job.job_id))

    def act(self, found: Waiting, verdict: Verdict) -> bool:
        """Put its message on the jobs queue, or have that done."""
        del verdict  # its record tells
        if found.record is not None:
            result = self._redispatcher.redispatch(
                found.record,
                Cause.STILL_QUEUED,
                reason="GitHub has it queued, its record is closed",
            )
            if result is Redispatched.UNKNOWN:
                raise SweepError("it could not be dispatched again")
            if result is Redispatched.SENT:
                self._metrics.add(Metric.JOBS_RECOVERED, kind=Cause.STILL_QUEUED.value)
            return result is not Redispatched.SETTLED
        (is_sent,) = self._queue.send([message_of(found, now=self._clock())])
        if not is_sent:
            raise SweepError("the jobs queue did not take the job")
        self._metrics.add(Metric.JOBS_RECOVERED, kind="unannounced")
        return True

    def _others(self, run: Run, accounts: dict[str, InstalledAccount]) -> list[str]:
        at = run.state.get("others_at")
        if isinstance(at, int | float) and 0 <= run.now - at < REFRESHED_SECONDS:
            return texts(run.state.get("others"))
        found = fitting(
            sorted(
                repository
                for account in accounts.values()
                for repository in self._accounts.repositories(account)
            )
        )
        run.state["others"], run.state["others_at"] = found, run.now
        return found


class _Visit:
    """One run's way through the repositories."""

    def __init__(
        self,
        queued: ListsQueuedJobs,
        accounts: dict[str, InstalledAccount],
        run: Run,
        metrics: CountsMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._queued = queued
        self._accounts = accounts
        self._run = run
        self._metrics = metrics
        self._clock = clock
        self._told: set[int] = set()
        self._read = 0
        self._errors: list[str] = []

    def all_of(
        self, repositories: Sequence[str], cursor: str, requests: int
    ) -> Generator[Sequence[Waiting], None, int]:
        """Yield what waits in each repository; return how many requests are left.

        Args:
            repositories: Sorted.
            cursor: Under which name the last one visited is remembered.
            requests: Most requests that may be spent.

        Raises:
            _StopError: If no request should be made any more.
        """
        last = self._run.state.get(cursor)
        for repository in from_after(repositories, last if isinstance(last, str) else ""):
            account = self._accounts.get(owner_of(repository))
            if account is None:
                continue
            if requests <= 0:
                break
            self._check(account)
            waiting, spent = self._ask(repository, account.installation_id)
            requests -= spent
            yield waiting
            # only now: what was found and not acted on has to be found again
            self._run.state[cursor] = repository
        return requests

    def tell(self, task: HousekeepingTask) -> None:
        """Report the repositories that could not be read.

        Raises:
            SweepError: If that were all of them.
        """
        if not self._errors:
            return
        if not self._read:
            raise SweepError(f"no repository could be read: {self._errors[0]}")
        self._metrics.add(Metric.SWEEP_FAILURES, len(self._errors), kind=task.value)

    def _check(self, account: InstalledAccount) -> None:
        if self._clock() >= self._run.deadline:
            raise _StopError("the time is up")
        quota = self._queued.quota(account.installation_id)
        if quota is None:
            return
        if account.installation_id not in self._told:
            self._told.add(account.installation_id)
            self._metrics.add(Metric.GITHUB_REQUESTS_LEFT, quota.left)
        if quota.left < RESERVED_SHARE * quota.limit:
            raise _StopError(f"{quota.left} of {quota.limit} requests are left for this hour")

    def _ask(self, repository: str, installation_id: int) -> tuple[list[Waiting], int]:
        """Return what waits in a repository, and how many requests it took at least."""
        spent, found = 2, []
        try:
            runs = sorted(self._queued.runs(repository, installation_id))
            spent += len(runs) // _PER_REQUEST
            for run_id in self._turn(repository, runs):
                jobs = self._jobs(repository, run_id, installation_id)
                spent += 1 + len(jobs) // _PER_REQUEST
                found += [Waiting(job, installation_id) for job in jobs]
        except RateLimitedError as error:
            self._errors.append(f"{repository}: {error}")
            raise _StopError(str(error)) from error
        except NotFoundError:
            log.info("a repository is gone", extra={"repository": repository})
        except GitHubError as error:
            log.error("not asked", extra={"repository": repository, "error": str(error)})
            self._errors.append(f"{repository}: {error}")
            return found, spent
        self._read += 1
        return found, spent

    def _jobs(self, repository: str, run_id: int, installation_id: int) -> Sequence[QueuedJob]:
        try:
            return self._queued.jobs(repository, run_id, installation_id)
        except NotFoundError:
            return ()  # deleted since it was listed

    def _turn(self, repository: str, runs: Sequence[int]) -> Sequence[int]:
        """Return the runs whose turn it is; a repository may have more than one run can ask."""
        cut = mapping(self._run.state.get("cut"))
        last = cut.pop(repository, 0)
        turn = from_after(runs, last if isinstance(last, int) else 0)[:RUNS_AT_ONCE]
        if len(turn) < len(runs):
            cut[repository] = turn[-1]
        self._run.state["cut"] = cut
        return turn


def message_of(found: Waiting, *, now: float) -> JobMessage:
    """Return the message that a job's delivery would have been.

    Args:
        found: The job.
        now: Epoch seconds. They stand for when it was queued: one that waited for an approval was
            created up to 30 days before, and would be given up at once. A deadline that is too
            late costs an instance at most.
    """
    return JobMessage(
        job_id=found.job.job_id,
        run_id=found.job.run_id,
        run_attempt=found.job.run_attempt,
        repository=found.job.repository,
        labels=found.job.labels,
        queued_at=now,
        installation_id=found.installation_id,
        workflow_name=found.job.workflow_name,
        job_name=found.job.job_name,
    )
