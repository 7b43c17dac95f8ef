"""Plays recorded webhooks: delivers them, and makes a job of a queued one so that it can be run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from runsfleet_cli.local.github.webhooks import Delivery
from runsfleet_cli.local.github.world import Job, Repository, Run, iso
from runsfleet_cli.local.jobs.payload import RecordedPayload, as_planned

if TYPE_CHECKING:
    from runsfleet_cli.local.github.server import GitHubStandIn


def play(
    github: GitHubStandIn,
    recorded: RecordedPayload,
    *,
    labels: Sequence[str] | None,
    repository: str | None,
    signature: str | None,
    verbatim: bool,
    fresh_ids: bool,
) -> tuple[Delivery | None, Job | None]:
    """Deliver a recorded payload; see `GitHubStandIn.play_payload` for the arguments."""
    home = repository or recorded.full_name
    place = github.world.repositories.get(home.lower())
    if place is None:
        place = github.world.add_repository(home, owner_type=recorded.owner_type)
    installed = {entry.app_id for entry in github.world.installations_for(place)}
    if github.app.id not in installed:
        github.install(github.app, place.owner.login)
    body = recorded.body
    job_id, run_id = recorded.job_id, recorded.run_id
    if fresh_ids:
        job_id, run_id = next(github.world.ids.job), next(github.world.ids.run)
    if not verbatim:
        renderer, owner = github.services.renderer, place.owner
        body = recorded.adapted(
            installation_id=github.installation_of(place.full_name).id,
            repository=None if repository is None else renderer.repository(place),
            organization=renderer.organization(owner) if owner.is_organization else None,
            labels=labels,
            job_id=job_id,
            run_id=run_id,
            moment=iso(github.world.clock()) if fresh_ids else None,
        )
    job = github.world.jobs.get(job_id)
    if job is None and recorded.makes_job:
        job = _adopt(github, recorded, place, labels, job_id=job_id, run_id=run_id)
    delivery = github.webhooks.send(github.app, "workflow_job", body, signature=signature)
    github.broker.assign()
    return delivery, job


def _adopt(
    github: GitHubStandIn,
    recorded: RecordedPayload,
    repository: Repository,
    labels: Sequence[str] | None,
    *,
    job_id: int,
    run_id: int,
) -> Job:
    """Make the run and the job of a recorded queued payload, without announcing them again."""
    plan, planned = as_planned(recorded, labels, job_id=job_id, run_id=run_id)
    now = github.world.clock()
    run = github.world.runs.get(run_id)
    if run is None:
        run = Run(
            id=run_id,
            number=1,
            repository=repository,
            plan=plan,
            event="push",
            head_branch=recorded.head_branch or repository.default_branch,
            head_sha=recorded.head_sha,
            actor=github.world.add_account("octocat", kind="User"),
            created_at=now,
            updated_at=now,
        )
        github.world.runs[run.id] = run
    else:
        run.plan = replace(run.plan, jobs={**run.plan.jobs, **plan.jobs})
    job = Job(
        id=job_id,
        run_id=run.id,
        attempt=1,
        repository=repository,
        planned=planned,
        workflow_name=plan.name,
        head_branch=run.head_branch,
        head_sha=run.head_sha,
        created_at=now,
        queued_at=now,
    )
    github.lifecycle.adopt(run, job)
    return job
