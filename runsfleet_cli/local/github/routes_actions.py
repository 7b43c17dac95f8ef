"""Endpoints for workflow runs and jobs: reading, re-running, cancelling."""

from __future__ import annotations

from aiohttp import web

from runsfleet_cli.local.github.errors import invalid, not_found
from runsfleet_cli.local.github.render import run_status
from runsfleet_cli.local.github.services import Services, json_body, listing
from runsfleet_cli.local.github.world import Job

_STATUSES = {
    "queued", "in_progress", "completed", "waiting", "requested", "pending",
    "success", "failure", "cancelled", "skipped", "timed_out", "action_required", "neutral",
    "stale",
}  # fmt: skip


class ActionRoutes:
    """The handlers; see `routes` for their addresses."""

    def __init__(self, services: Services) -> None:
        self._s = services

    def routes(self, prefix: str) -> list[web.RouteDef]:
        """Answer the routes under a prefix."""
        actions = f"{prefix}/repos/{{owner}}/{{repo}}/actions"
        run = f"{actions}/runs/{{run_id}}"
        return [
            web.get(f"{prefix}/repos/{{owner}}/{{repo}}", self.repository),
            web.get(f"{prefix}/installation/repositories", self.repositories),
            web.get(f"{actions}/jobs/{{job_id}}", self.job),
            web.get(f"{actions}/jobs/{{job_id}}/logs", self.logs),
            web.post(f"{actions}/jobs/{{job_id}}/rerun", self.rerun_job),
            web.get(
                f"{prefix}/repos/{{owner}}/{{repo}}/check-runs/{{job_id}}/annotations",
                self.annotations,
            ),
            web.get(f"{actions}/runs", self.runs),
            web.get(run, self.run),
            web.get(f"{run}/jobs", self.jobs),
            web.post(f"{run}/rerun", self.rerun),
            web.post(f"{run}/rerun-failed-jobs", self.rerun_failed),
            web.post(f"{run}/cancel", self.cancel),
            web.post(f"{run}/force-cancel", self.cancel),
        ]

    async def repository(self, request: web.Request) -> web.Response:
        """Answer a repository."""
        repository = self._s.seen_repository(request, "metadata")
        return web.json_response(self._s.renderer.repository(repository))

    async def repositories(self, request: web.Request) -> web.Response:
        """List the repositories that the token reaches."""
        grant = self._s.as_installation(request, "metadata")
        found = [
            entry
            for entry in self._s.world.repositories.values()
            if grant.installation.covers(entry)
            and (grant.repository_ids is None or entry.id in grant.repository_ids)
        ]
        return listing(request, "repositories", found, self._s.renderer.repository)

    def _job(self, request: web.Request, level: str = "read") -> Job:
        return self._s.job(request, self._s.seen_repository(request, "actions", level))

    async def job(self, request: web.Request) -> web.Response:
        """Answer a job."""
        return web.json_response(self._s.renderer.job(self._job(request)))

    async def logs(self, request: web.Request) -> web.Response:
        """Redirect to a job's log, as GitHub does."""
        job = self._job(request)
        if not job.done:
            raise not_found()
        location = f"{request.url.origin()}/_logs/{job.id}.txt"
        return web.Response(status=302, headers={"Location": location})

    async def rerun_job(self, request: web.Request) -> web.Response:
        """Run a job, and those that depend on it, again."""
        job = self._job(request, "write")
        await json_body(request, optional=True)
        self._s.lifecycle.rerun_job(job)
        return web.json_response({}, status=201)

    async def annotations(self, request: web.Request) -> web.Response:
        """List what was noted at a job, which is a check run by the same id."""
        job = self._s.job(request, self._s.seen_repository(request, "checks"))
        notes = [] if job.annotation is None else [job.annotation]
        return web.json_response(
            [{"annotation_level": "failure", "title": "", "message": note} for note in notes]
        )

    async def runs(self, request: web.Request) -> web.Response:
        """List a repository's runs, newest first, optionally of one status or conclusion."""
        repository = self._s.seen_repository(request, "actions")
        wanted = request.query.get("status")
        if wanted is not None and wanted not in _STATUSES:
            raise invalid(f"Invalid request.\n\n{wanted} is not a possible value.")
        found = [
            run
            for run in reversed(self._s.world.runs.values())
            if run.repository is repository and (wanted is None or wanted in run_status(run))
        ]
        return listing(request, "workflow_runs", found, self._s.renderer.run)

    async def run(self, request: web.Request) -> web.Response:
        """Answer a run."""
        run = self._s.run(request, self._s.seen_repository(request, "actions"))
        return web.json_response(self._s.renderer.run(run))

    async def jobs(self, request: web.Request) -> web.Response:
        """List a run's jobs: of the latest attempt, or of all with ``filter=all``."""
        run = self._s.run(request, self._s.seen_repository(request, "actions"))
        everything = request.query.get("filter") == "all"
        jobs = [*run.past, *run.latest()] if everything else run.latest()
        return listing(request, "jobs", jobs, self._s.renderer.job)

    async def rerun(self, request: web.Request) -> web.Response:
        """Run every job of a run again."""
        run = self._s.run(request, self._s.seen_repository(request, "actions", "write"))
        self._s.lifecycle.rerun_all(run)
        return web.json_response({}, status=201)

    async def rerun_failed(self, request: web.Request) -> web.Response:
        """Run the failed jobs of a run again."""
        run = self._s.run(request, self._s.seen_repository(request, "actions", "write"))
        self._s.lifecycle.rerun_failed(run)
        return web.json_response({}, status=201)

    async def cancel(self, request: web.Request) -> web.Response:
        """Cancel a run."""
        run = self._s.run(request, self._s.seen_repository(request, "actions", "write"))
        self._s.lifecycle.cancel_run(run)
        return web.json_response({}, status=202)
