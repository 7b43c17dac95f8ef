"""Runs and jobs of the GitHub stand-in: their life, re-runs, and which runner gets which job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from runsfleet_cli.local.github.broker import LOST_RUNNER, Broker, Timing
from runsfleet_cli.local.github.errors import ApiError
from runsfleet_cli.local.github.lifecycle import Lifecycle
from runsfleet_cli.local.github.render import run_status
from runsfleet_cli.local.github.world import (
    Conclusion,
    Job,
    JobStatus,
    Repository,
    Run,
    Runner,
    World,
)
from runsfleet_cli.local.jobs.plan import WorkflowError, read_workflow

MATRIX = """
on: push
jobs:
  build:
    runs-on: [self-hosted, "size-${{ matrix.n }}"]
    strategy: {matrix: {n: [1, 2, 3]}}
    steps: [{run: "true"}]
  ship:
    needs: build
    runs-on: small
    steps: [{run: "true"}]
  tidy:
    needs: [build, ship]
    if: always()
    runs-on: small
    steps: [{run: "true"}]
"""
SINGLE = 'on: push\njobs: {a: {runs-on: [Linux, X], steps: [{run: "true"}]}}'


class Service:
    """A world with its lifecycle and broker, whose clock stands until it is moved."""

    def __init__(self, timing: Timing | None = None) -> None:
        self.now = 1_800_000_000.0
        self.announced: list[tuple[str, str]] = []
        self.world = World(lambda: self.now)
        self.repository = self.world.add_repository("octo-org/hello")
        self.lifecycle = Lifecycle(
            self.world, announce=self._announce, server_url=lambda: "http://github.test"
        )
        self.broker = Broker(self.world, self.lifecycle, timing or Timing(), lambda *_: None)

    def _announce(self, action: str, job: Job) -> None:
        self.announced.append((action, job.planned.name))

    def start(self, text: str, repository: Repository | None = None) -> Run:
        """Start a run of a workflow."""
        actor = self.world.add_account("octocat", kind="User")
        plan = read_workflow(text)
        return self.lifecycle.start_run(repository or self.repository, plan, actor=actor)

    def runner(
        self,
        *labels: str,
        name: str = "one",
        scope: str = "orgs/octo-org",
        group: int = 1,
        ephemeral: bool = True,
    ) -> Runner:
        """Register a runner."""
        runner = Runner(
            id=next(self.world.ids.runner),
            name=name,
            scope=scope,
            labels=labels,
            group_id=group,
            created_at=self.now,
            client_id=name,
            ephemeral=ephemeral,
            offline_since=self.now,
        )
        self.world.add_runner(runner)
        return runner

    async def poll(self, runner: Runner, seconds: float = 0.0) -> Job | None:
        """Connect a runner, if need be, and poll once."""
        session = next(
            (entry for entry in self.broker.sessions() if entry.runner is runner), None
        ) or self.broker.connect(runner, os="linux", version="2.337.0")
        return await self.broker.poll(session, seconds)

    def run_all(self, run: Run, outcome: Callable[[Job], Conclusion]) -> None:
        """Let every queued job run at once until the run is over."""
        while not run.done:
            for job in [entry for entry in run.latest() if entry.status is JobStatus.QUEUED]:
                self.lifecycle.start(job, self.runner(*job.labels, name=f"r{job.id}"))
                self.lifecycle.complete(job, outcome(job))
            for job in [e for e in run.latest() if e.status is JobStatus.IN_PROGRESS]:
                self.lifecycle.complete(job, Conclusion.CANCELLED)


def success(_job: Job) -> Conclusion:
    """Let every job succeed."""
    return Conclusion.SUCCESS


def test_jobs_appear_when_what_they_need_is_over() -> None:
    """A matrix is queued at once, what needs it only when all of it has concluded."""
    service = Service()
    run = service.start(MATRIX)
    assert [job.planned.name for job in run.latest()] == ["build (1)", "build (2)", "build (3)"]
    assert run.latest()[1].labels == ("self-hosted", "size-2")
    service.run_all(run, success)
    assert [job.planned.name for job in run.latest()][3:] == ["ship", "tidy"]
    assert run_status(run) == ("completed", "success")
    assert service.announced.count(("queued", "ship")) == 1
    numbers = [job.id for job in run.latest()]
    assert len(set(numbers)) == 5
    assert min(numbers) > 2**31


def test_a_failure_skips_what_needs_it_and_cancels_its_siblings() -> None:
    """Fail-fast cancels the matrix's other jobs, `needs` is skipped, `always()` runs."""
    service = Service()
    run = service.start(MATRIX)
    first = run.latest()[0]
    service.lifecycle.start(first, service.runner(name="r"))
    service.lifecycle.complete(first, Conclusion.FAILURE)
    conclusions = {job.planned.name: job.conclusion for job in run.latest()}
    assert conclusions["build (2)"] is Conclusion.CANCELLED
    assert conclusions["ship"] is Conclusion.SKIPPED
    assert conclusions["tidy"] is None
    skipped = next(job for job in run.latest() if job.planned.name == "ship")
    assert (skipped.runner, ("queued", "ship") in service.announced) == (None, False)
    service.run_all(run, success)
    assert run_status(run) == ("completed", "failure")


def test_a_run_is_cancelled_at_once_where_nobody_runs_it() -> None:
    """Queued jobs conclude as cancelled, running ones are asked; a finished run is a conflict."""
    service = Service()
    run = service.start(MATRIX)
    running, *queued = run.latest()
    service.lifecycle.start(running, service.runner(name="r"))
    service.lifecycle.cancel_run(run)
    assert {job.conclusion for job in queued} == {Conclusion.CANCELLED}
    assert service.broker.renew(running, service.world.runners_of("orgs/octo-org")[0])
    service.lifecycle.complete(running, Conclusion.CANCELLED)
    service.run_all(run, success)
    with pytest.raises(ApiError, match="409"):
        service.lifecycle.cancel_run(run)


def test_one_job_is_run_again_with_what_depends_on_it() -> None:
    """A re-run makes a new job of the next attempt; the others keep id and result."""
    service = Service()
    run = service.start(MATRIX)
    service.run_all(run, success)
    before = {job.planned.name: job.id for job in run.latest()}
    again = next(job for job in run.latest() if job.planned.name == "build (2)")
    service.lifecycle.rerun_job(again)
    service.run_all(run, success)
    after = {job.planned.name: job.id for job in run.latest()}
    assert {name for name in before if before[name] != after[name]} == {"build (2)", "ship", "tidy"}
    assert run.attempt == 2
    assert {job.attempt for job in run.latest()} == {1, 2}
    assert again in run.past


def test_only_failed_jobs_are_run_again() -> None:
    """`rerun-failed-jobs` repeats what failed or was cancelled, and what depends on it."""
    service = Service()
    run = service.start(MATRIX.replace("matrix: {n", "fail-fast: false, matrix: {n"))
    service.run_all(
        run,
        lambda job: Conclusion.FAILURE if job.planned.name == "build (3)" else Conclusion.SUCCESS,
    )
    kept = {job.planned.name: job.id for job in run.latest()}
    service.lifecycle.rerun_failed(run)
    service.run_all(run, success)
    assert run_status(run) == ("completed", "success")
    assert [job.id for job in run.latest() if job.planned.name == "build (1)"] == [
        kept["build (1)"]
    ]
    assert kept["build (3)"] not in {job.id for job in run.latest()}


def test_a_rerun_needs_a_finished_run_and_something_to_repeat() -> None:
    """A run that goes on, or in which nothing failed, is refused with a 403."""
    service = Service()
    run = service.start(MATRIX)
    with pytest.raises(ApiError, match="already running"):
        service.lifecycle.rerun_job(run.latest()[0])
    service.run_all(run, success)
    with pytest.raises(ApiError, match="cannot be retried"):
        service.lifecycle.rerun_failed(run)
    service.lifecycle.rerun_all(run)
    assert len(service.world.live_jobs) == 3


def test_max_parallel_holds_jobs_back() -> None:
    """No more of a matrix is queued than `max-parallel` says; each end releases the next."""
    service = Service()
    run = service.start(MATRIX.replace("matrix: {n", "max-parallel: 1, matrix: {n"))
    for expected in ("build (1)", "build (2)", "build (3)"):
        (job,) = service.world.live_jobs.values()
        assert job.planned.name == expected
        service.lifecycle.start(job, service.runner(name=expected))
        service.lifecycle.complete(job, Conclusion.SUCCESS)
    assert not run.done


def test_a_protected_environment_waits_for_approval() -> None:
    """Such a job is announced as waiting first and queued on approval."""
    service = Service()
    service.repository.protected_environments.add("prod")
    run = service.start(
        'on: push\njobs: {a: {runs-on: x, environment: prod, steps: [{run: "true"}]}}'
    )
    assert run_status(run) == ("waiting", None)
    service.lifecycle.approve(run.latest()[0])
    assert [action for action, _ in service.announced] == ["waiting", "queued"]


def test_what_can_never_run_fails_with_the_reason() -> None:
    """An expression that is wrong at the start leaves no trace; one wrong later fails its job."""
    service = Service()
    bad = "on: push\njobs: {a: {runs-on: '${{ fromJSON(1 }}', steps: [{run: x}]}}"
    with pytest.raises(WorkflowError, match="job 'a'"):
        service.start(bad)
    assert not service.world.runs
    late = MATRIX.replace("runs-on: small\n    steps", "runs-on: ${{ nope() }}\n    steps", 1)
    run = service.start(late)
    service.run_all(run, success)
    ship = next(job for job in run.latest() if job.planned.name == "ship")
    assert (ship.conclusion, "nope" in (ship.annotation or "")) == (Conclusion.FAILURE, True)


async def _matching(labels: tuple[str, ...], scope: str, gets: bool) -> None:
    service = Service()
    service.world.add_repository("others/one")
    service.start(SINGLE)
    assert (await service.poll(service.runner(*labels, scope=scope)) is not None) is gets


@pytest.mark.parametrize(
    ("labels", "scope", "gets"),
    [
        (("linux", "x"), "orgs/octo-org", True),
        (("linux", "x", "more"), "orgs/octo-org", True),
        (("linux",), "orgs/octo-org", False),
        (("linux", "x"), "orgs/others", False),
        (("linux", "x"), "repos/octo-org/hello", True),
        (("linux", "x"), "repos/octo-org/other", False),
    ],
)
def test_a_runner_gets_a_job_whose_labels_it_has(
    labels: tuple[str, ...], scope: str, gets: bool
) -> None:
    """All of a job's labels, ignoring case, have to be the runner's, and the scope has to fit."""
    asyncio.run(_matching(labels, scope, gets))


def test_a_group_is_only_for_its_repositories() -> None:
    """A runner in a group that was not opened to the repository gets nothing."""

    async def scenario() -> None:
        service = Service()
        group = service.world.add_group("octo-org", "closed", visibility="selected")
        service.start(SINGLE)
        runner = service.runner("linux", "x", group=group.id)
        assert await service.poll(runner) is None
        group.repository_ids.add(service.repository.id)
        assert await service.poll(runner) is not None

    asyncio.run(scenario())


def test_a_job_goes_to_one_runner_only() -> None:
    """Two waiting runners and one job: one gets it, the other goes on waiting."""

    async def scenario() -> None:
        service = Service()
        polls = [
            asyncio.ensure_future(service.poll(service.runner("linux", "x", name=name), 0.2))
            for name in ("one", "two")
        ]
        await asyncio.sleep(0.01)
        service.start(SINGLE)
        service.broker.assign()
        given = await asyncio.gather(*polls)
        assert sorted(job is None for job in given) == [False, True]

    asyncio.run(scenario())


def test_a_job_that_is_not_picked_up_goes_back() -> None:
    """After the pick-up time the job is another runner's, and it is too late for the first."""

    async def scenario() -> None:
        service = Service()
        service.start(SINGLE)
        slow = service.runner("linux", "x", name="slow")
        job = await service.poll(slow)
        assert job is not None
        service.now += 61
        service.broker.sweep()
        other = await service.poll(service.runner("linux", "x", name="other"))
        assert other is job
        with pytest.raises(ApiError, match="409"):
            service.broker.acquire(job, slow)
        assert job.assignments == 2

    asyncio.run(scenario())


def test_a_disconnect_gives_back_what_was_not_picked_up() -> None:
    """A runner that leaves with a job it has not started makes it available at once."""

    async def scenario() -> None:
        service = Service()
        service.start(SINGLE)
        runner = service.runner("linux", "x")
        job = await service.poll(runner)
        assert job is not None
        service.broker.disconnect(runner)
        assert (job.assigned_to, runner.online) == (None, False)

    asyncio.run(scenario())


def test_a_silent_runner_loses_its_job() -> None:
    """Without renewal the job fails with GitHub's words and the ephemeral runner is gone."""

    async def scenario() -> None:
        service = Service()
        service.start(SINGLE)
        runner = service.runner("linux", "x")
        job = await service.poll(runner)
        assert job is not None
        service.broker.acquire(job, runner)
        service.now += 50
        service.broker.renew(job, runner)
        service.now += 50
        service.broker.sweep()
        assert not job.done
        service.now += 61
        service.broker.sweep()
        assert (job.conclusion, job.annotation) == (Conclusion.FAILURE, LOST_RUNNER)
        assert not service.world.runners

    asyncio.run(scenario())


def test_an_ephemeral_runner_leaves_with_its_one_job() -> None:
    """Finishing deregisters an ephemeral runner; another one stays and is idle."""

    async def scenario() -> None:
        service = Service()
        kept = service.runner("linux", "x", name="kept", ephemeral=False)
        for runner in (service.runner("linux", "x", name="ephemeral"), kept):
            service.start(SINGLE)
            job = await service.poll(runner)
            assert job is not None
            service.broker.acquire(job, runner)
            assert runner.busy
            service.broker.finish(job, runner, Conclusion.SUCCESS, {})
        assert list(service.world.runners.values()) == [kept]
        assert not kept.busy

    asyncio.run(scenario())


def test_an_unused_jit_runner_is_dropped() -> None:
    """After its idle time an unused JIT runner is removed, which ends its poll with a 404."""

    async def scenario() -> None:
        service = Service(Timing(unused_jit=120))
        runner = service.runner("linux", "x")
        poll = asyncio.ensure_future(service.poll(runner, 5.0))
        await asyncio.sleep(0.01)
        service.now += 121
        service.broker.sweep()
        with pytest.raises(ApiError, match="404"):
            await poll
        assert not service.world.runners

    asyncio.run(scenario())


def test_a_second_session_is_a_conflict() -> None:
    """A runner has one session at a time."""

    async def scenario() -> None:
        service = Service()
        runner = service.runner("linux", "x")
        await service.poll(runner)
        with pytest.raises(ApiError, match="409"):
            service.broker.connect(runner, os="linux", version="2.337.0")

    asyncio.run(scenario())


def test_a_job_waits_a_day_at_most() -> None:
    """A job that nobody took for 24 hours fails."""
    service = Service()
    run = service.start(SINGLE)
    service.now += 86_401
    service.broker.sweep()
    assert run_status(run) == ("completed", "failure")
