"""The life of runs and jobs: waiting or queued, in progress, completed; each change is announced.

A job appears only when everything it needs has concluded. The rules (matrix, ``needs``, ``if``,
fail-fast, max-parallel, approval, re-run) are the service's; who runs a job is `broker`'s matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from runsfleet_cli.local.github.errors import ApiError
from runsfleet_cli.local.github.world import (
    Account,
    Conclusion,
    Job,
    JobStatus,
    Repository,
    Run,
    Runner,
    Step,
    World,
)
from runsfleet_cli.local.jobs.plan import PlannedJob, WorkflowError, WorkflowPlan, plan_job

Announce = Callable[[str, Job], None]
"""Told of each change: the webhook's action and the job."""


class Lifecycle:
    """Moves runs and jobs; the only place that changes a job's status.

    Args:
        world: Where runs and jobs are kept.
        announce: Called after each change with the ``workflow_job`` action.
        server_url: The web root, for the ``github`` context.
    """

    def __init__(self, world: World, *, announce: Announce, server_url: Callable[[], str]) -> None:
        self._world = world
        self._announce = announce
        self._server_url = server_url

    def start_run(
        self,
        repository: Repository,
        plan: WorkflowPlan,
        *,
        actor: Account,
        event: str = "push",
        label_override: Sequence[str] | None = None,
        run_id: int | None = None,
        head_sha: str | None = None,
        head_branch: str | None = None,
    ) -> Run:
        """Start a run of a workflow and queue the jobs that need nothing.

        Args:
            repository: Where it runs.
            plan: The workflow.
            actor: Who pushed.
            event: The event's name.
            label_override: Labels in place of every job's ``runs-on``.
            run_id: A given id, for a recorded payload.
            head_sha: A given commit, for a recorded payload.
            head_branch: A given branch; the default branch otherwise.

        Raises:
            WorkflowError: When the plan's first jobs cannot be expanded.
        """
        world = self._world
        number = world.run_numbers.get(repository.full_name, 0) + 1
        now = world.clock()
        run = Run(
            id=next(world.ids.run) if run_id is None else run_id,
            number=number,
            repository=repository,
            plan=plan,
            event=event,
            head_branch=head_branch or repository.default_branch,
            # S324 is about security; this only looks like a commit
            head_sha=head_sha or hashlib.sha1(f"{plan.text}{number}".encode()).hexdigest(),  # noqa: S324
            actor=actor,
            created_at=now,
            updated_at=now,
            label_override=None if label_override is None else tuple(label_override),
        )
        # expand before anything is stored: a wrong file leaves no trace
        for key in plan.jobs:
            if not plan.needs(key):
                self._expand(run, key)
        world.run_numbers[repository.full_name] = number
        world.runs[run.id] = run
        self.advance(run)
        return run

    def _expand(self, run: Run, key: str) -> list[PlannedJob]:
        ancestors = [run.results(name) for name in run.plan.ancestors(key)]
        return plan_job(
            run.plan,
            key,
            github=self.github_context(run),
            needed={name: run.results(name) for name in run.plan.needs(key)},
            needs_succeeded=all(entry.result == "success" for entry in ancestors),
            needs_failed=any(entry.result == "failure" for entry in ancestors),
            cancelled=run.cancelled,
            label_override=run.label_override,
        )

    def github_context(self, run: Run) -> dict[str, object]:
        """Answer the ``github`` context of a run."""
        return {
            "run_id": str(run.id),
            "run_number": str(run.number),
            "run_attempt": str(run.attempt),
            "repository": run.repository.full_name,
            "repository_owner": run.repository.owner.login,
            "workflow": run.plan.name,
            "event_name": run.event,
            "ref": f"refs/heads/{run.head_branch}",
            "ref_name": run.head_branch,
            "sha": run.head_sha,
            "actor": run.actor.login,
            "server_url": self._server_url(),
            "event": {},
        }

    def advance(self, run: Run) -> None:
        """Queue whatever may be queued now; skipped jobs conclude at once."""
        moved = True
        while moved:
            moved = False
            for key in run.plan.jobs:
                if key not in run.jobs and all(run.concluded(name) for name in run.plan.needs(key)):
                    run.jobs[key] = []
                    try:
                        run.held[key] = self._expand(run, key)
                    except WorkflowError as error:
                        run.held[key] = [PlannedJob(key, key, (), {}, "", error=str(error))]
                    moved = True
                moved = self._release(run, key) or moved

    def _release(self, run: Run, key: str) -> bool:
        """Make jobs of what is held, as far as ``max-parallel`` allows."""
        held = run.held.get(key, [])
        released = False
        while held:
            limit = held[0].max_parallel
            active = sum(not job.done for job in run.jobs[key])
            if limit is not None and active >= limit:
                break
            self._make(run, held.pop(0))
            released = True
        return released

    def _make(self, run: Run, planned: PlannedJob) -> Job:
        now = self._world.clock()
        job = Job(
            id=next(self._world.ids.job),
            run_id=run.id,
            attempt=run.attempt,
            repository=run.repository,
            planned=planned,
            workflow_name=run.plan.name,
            head_branch=run.head_branch,
            head_sha=run.head_sha,
            created_at=now,
            queued_at=now,
        )
        self.adopt(run, job)
        if planned.error is not None:
            job.annotation = planned.error
            self._conclude(job, Conclusion.FAILURE)
        elif planned.skipped or run.cancelled:
            self._conclude(job, Conclusion.SKIPPED if planned.skipped else Conclusion.CANCELLED)
        elif planned.environment in run.repository.protected_environments:
            job.status = JobStatus.WAITING
            self._announce("waiting", job)
        else:
            self._announce("queued", job)
        return job

    def adopt(self, run: Run, job: Job) -> None:
        """Take a job into a run without announcing it."""
        self._world.jobs[job.id] = job
        self._world.live_jobs[job.id] = job
        run.jobs.setdefault(job.planned.key, []).append(job)
        run.updated_at = job.created_at

    def approve(self, job: Job) -> None:
        """Let a waiting job be queued, as a reviewer's approval does."""
        if job.status is JobStatus.WAITING:
            job.status = JobStatus.QUEUED
            job.queued_at = self._world.clock()
            self._announce("queued", job)

    def start(self, job: Job, runner: Runner) -> None:
        """Move a job to in progress on the runner that picked it up."""
        now = self._world.clock()
        job.status = JobStatus.IN_PROGRESS
        job.runner = runner
        job.started_at = job.renewed_at = now
        job.steps = [Step("Set up job", 1, "in_progress", None, now, None)]
        runner.busy = runner.used = True
        self._announce("in_progress", job)

    def complete(
        self,
        job: Job,
        conclusion: Conclusion,
        *,
        outputs: dict[str, str] | None = None,
        annotation: str | None = None,
    ) -> None:
        """Conclude a job and let the run go on; a concluded job stays as it is.

        Args:
            job: The job.
            conclusion: How it ended.
            outputs: The job's outputs.
            annotation: A line for people, as the service shows on the run's page.
        """
        if job.done:
            return
        job.outputs = dict(outputs or {})
        job.annotation = annotation
        self._conclude(job, conclusion)
        run = self._world.runs[job.run_id]
        if conclusion is Conclusion.FAILURE and job.planned.fail_fast:
            self._fail_fast(run, job)
        self.advance(run)

    def _fail_fast(self, run: Run, job: Job) -> None:
        if job.planned.continue_on_error or not job.planned.matrix:
            return
        run.held[job.planned.key] = []
        for sibling in run.jobs[job.planned.key]:
            self.cancel_job(sibling)

    def _conclude(self, job: Job, conclusion: Conclusion) -> None:
        now = self._world.clock()
        job.status = JobStatus.COMPLETED
        job.conclusion = conclusion
        job.completed_at = now
        self._world.live_jobs.pop(job.id, None)
        if job.runner is not None:
            job.runner.busy = False
        for step in job.steps:
            if step.status != "completed":
                step.status, step.conclusion = "completed", str(conclusion)
                step.completed_at = now
        self._world.runs[job.run_id].updated_at = now
        self._announce("completed", job)

    def cancel_job(self, job: Job) -> None:
        """Cancel a job: at once while nobody runs it, else by asking its runner."""
        if job.status is JobStatus.IN_PROGRESS:
            job.cancel_at = self._world.clock() if job.cancel_at is None else job.cancel_at
        elif not job.done:
            job.assigned_to = None
            self._conclude(job, Conclusion.CANCELLED)

    def cancel_run(self, run: Run) -> None:
        """Cancel a run.

        Raises:
            ApiError: 409 when it is over.
        """
        if run.done:
            raise ApiError(409, "Cannot cancel a workflow run that is completed.")
        run.cancelled = True
        for jobs in run.held.values():
            jobs.clear()
        for job in run.latest():
            self.cancel_job(job)
        self.advance(run)

    def rerun(self, run: Run, keep: Callable[[Job], bool], keys: set[str]) -> None:
        """Start another attempt of a run.

        Args:
            run: The run, which must be over.
            keep: Which jobs keep their result.
            keys: The keys of the plan that are run again, in whole or in part.

        Raises:
            ApiError: 403 while the run is not over.
        """
        if not run.done:
            raise ApiError(403, "The workflow run containing this job is already running")
        if len(run.jobs) and all(keep(job) for job in run.latest()):
            raise ApiError(403, "This workflow run cannot be retried")
        again = [job for job in run.latest() if not keep(job)]
        run.attempt += 1
        run.cancelled = False
        run.updated_at = self._world.clock()
        run.past.extend(again)
        first = {key for key in keys if not run.plan.ancestors(key) & keys}
        for key in keys:
            kept = [job for job in run.jobs.get(key, []) if keep(job)]
            if key in first:
                run.jobs[key] = kept
                run.held[key] = [
                    planned
                    for planned in self._expand(run, key)
                    if planned.name in {job.planned.name for job in again}
                ]
            else:
                run.jobs.pop(key, None)
                run.held.pop(key, None)
        self.advance(run)

    def rerun_job(self, job: Job) -> None:
        """Run one job again, and those that depend on it.

        Raises:
            ApiError: 403 while its run is not over.
        """
        run = self._world.runs[job.run_id]
        keys = run.plan.dependents({job.planned.key})
        name = job.planned.name
        self.rerun(
            run,
            lambda entry: (
                entry.planned.key not in keys
                or (entry.planned.key == job.planned.key and entry.planned.name != name)
            ),
            keys,
        )

    def rerun_failed(self, run: Run) -> None:
        """Run every job again that failed or was cancelled, and those that depend on one.

        Raises:
            ApiError: 403 while the run is not over, or when nothing failed.
        """
        bad = {Conclusion.FAILURE, Conclusion.CANCELLED}
        roots = {job.planned.key for job in run.latest() if job.conclusion in bad}
        keys = run.plan.dependents(roots) if roots else set()
        self.rerun(
            run,
            lambda job: (
                job.planned.key not in keys
                or (job.planned.key in roots and job.conclusion not in bad)
            ),
            keys,
        )

    def rerun_all(self, run: Run) -> None:
        """Run every job again.

        Raises:
            ApiError: 403 while the run is not over.
        """
        self.rerun(run, lambda _job: False, set(run.plan.jobs))
