"""The JSON that GitHub answers and sends: one function a kind of thing, no decisions."""

from __future__ import annotations

from typing import Any

from runsfleet_cli.local.github.world import (
    Account,
    App,
    Installation,
    Job,
    JobStatus,
    Repository,
    Run,
    Runner,
    RunnerGroup,
    Step,
    World,
    iso,
    node_id,
)

Json = dict[str, Any]

_REPOSITORY_LINKS = {
    "forks_url": "/forks",
    "keys_url": "/keys{/key_id}",
    "collaborators_url": "/collaborators{/collaborator}",
    "teams_url": "/teams",
    "hooks_url": "/hooks",
    "issue_events_url": "/issues/events{/number}",
    "events_url": "/events",
    "assignees_url": "/assignees{/user}",
    "branches_url": "/branches{/branch}",
    "tags_url": "/tags",
    "blobs_url": "/git/blobs{/sha}",
    "git_tags_url": "/git/tags{/sha}",
    "git_refs_url": "/git/refs{/sha}",
    "trees_url": "/git/trees{/sha}",
    "statuses_url": "/statuses/{sha}",
    "languages_url": "/languages",
    "stargazers_url": "/stargazers",
    "contributors_url": "/contributors",
    "subscribers_url": "/subscribers",
    "subscription_url": "/subscription",
    "commits_url": "/commits{/sha}",
    "git_commits_url": "/git/commits{/sha}",
    "comments_url": "/comments{/number}",
    "issue_comment_url": "/issues/comments{/number}",
    "contents_url": "/contents/{+path}",
    "compare_url": "/compare/{base}...{head}",
    "merges_url": "/merges",
    "archive_url": "/{archive_format}{/ref}",
    "downloads_url": "/downloads",
    "issues_url": "/issues{/number}",
    "pulls_url": "/pulls{/number}",
    "milestones_url": "/milestones{/number}",
    "notifications_url": "/notifications{?since,all,participating}",
    "labels_url": "/labels{/name}",
    "releases_url": "/releases{/id}",
    "deployments_url": "/deployments",
}
_USER_LINKS = {
    "followers_url": "/followers",
    "following_url": "/following{/other_user}",
    "gists_url": "/gists{/gist_id}",
    "starred_url": "/starred{/owner}{/repo}",
    "subscriptions_url": "/subscriptions",
    "organizations_url": "/orgs",
    "repos_url": "/repos",
    "events_url": "/events{/privacy}",
    "received_events_url": "/received_events",
}
_READ_ONLY_LABELS = {"self-hosted", "linux", "windows", "macos", "x64", "arm64", "arm"}


class Renderer:
    """Renders with the addresses of one server.

    Args:
        world: For groups and ids.
        api_url: The REST root, for example ``http://127.0.0.1:9000``.
        web_url: The root of web addresses.
    """

    def __init__(self, world: World, *, api_url: str, web_url: str) -> None:
        self._world = world
        self._api = api_url
        self._web = web_url

    def account(self, account: Account) -> Json:
        """Render a user, or an organization in its role as an owner."""
        url = f"{self._api}/users/{account.login}"
        links = {name: f"{url}{path}" for name, path in _USER_LINKS.items()}
        return {
            "login": account.login,
            "id": account.id,
            "node_id": node_id("O" if account.is_organization else "U", account.id),
            "avatar_url": f"{self._web}/avatars/{account.id}?v=4",
            "gravatar_id": "",
            "url": url,
            "html_url": f"{self._web}/{account.login}",
            **links,
            "type": account.type,
            "site_admin": False,
        }

    def organization(self, account: Account) -> Json:
        """Render the ``organization`` of a webhook."""
        url = f"{self._api}/orgs/{account.login}"
        return {
            "login": account.login,
            "id": account.id,
            "node_id": node_id("O", account.id),
            "url": url,
            "repos_url": f"{url}/repos",
            "events_url": f"{url}/events",
            "hooks_url": f"{url}/hooks",
            "issues_url": f"{url}/issues",
            "members_url": f"{url}/members{{/member}}",
            "public_members_url": f"{url}/public_members{{/member}}",
            "avatar_url": f"{self._web}/avatars/{account.id}?v=4",
            "description": None,
        }

    def repository(self, repository: Repository) -> Json:
        """Render a repository in full, as webhooks have it."""
        url = f"{self._api}/repos/{repository.full_name}"
        html = f"{self._web}/{repository.full_name}"
        made = iso(repository.created_at)
        links = {name: f"{url}{path}" for name, path in _REPOSITORY_LINKS.items()}
        counts = ("size", "stargazers_count", "watchers_count", "forks_count", "open_issues_count")
        return {
            "id": repository.id,
            "node_id": node_id("R", repository.id),
            "name": repository.name,
            "full_name": repository.full_name,
            "private": repository.private,
            "owner": self.account(repository.owner),
            "html_url": html,
            "description": None,
            "fork": False,
            "url": url,
            **links,
            "created_at": made,
            "updated_at": made,
            "pushed_at": made,
            "git_url": f"git://{self._web.split('://')[-1]}/{repository.full_name}.git",
            "ssh_url": f"git@github.com:{repository.full_name}.git",
            "clone_url": f"{html}.git",
            "svn_url": html,
            "homepage": None,
            **dict.fromkeys(counts, 0),
            "language": None,
            "has_issues": True,
            "has_projects": True,
            "has_downloads": True,
            "has_wiki": True,
            "has_pages": False,
            "has_discussions": False,
            "mirror_url": None,
            "archived": False,
            "disabled": False,
            "license": None,
            "allow_forking": True,
            "is_template": False,
            "web_commit_signoff_required": False,
            "topics": [],
            "visibility": "private" if repository.private else "public",
            "forks": 0,
            "open_issues": 0,
            "watchers": 0,
            "default_branch": repository.default_branch,
            "custom_properties": {},
        }

    def app(self, app: App) -> Json:
        """Render an App as ``GET /app`` does."""
        installations = [
            entry for entry in self._world.installations.values() if entry.app_id == app.id
        ]
        permissions: dict[str, str] = {}
        for entry in installations:
            permissions |= entry.permissions
        return {
            "id": app.id,
            "slug": app.slug,
            "client_id": app.client_id,
            "node_id": node_id("A", app.id),
            "owner": self.account(app.owner),
            "name": app.slug,
            "description": "",
            "external_url": self._web,
            "html_url": f"{self._web}/apps/{app.slug}",
            "created_at": iso(app.created_at),
            "updated_at": iso(app.created_at),
            "permissions": permissions,
            "events": list(app.events),
            "installations_count": len(installations),
        }

    def installation(self, installation: Installation) -> Json:
        """Render an installation."""
        app = self._world.apps[installation.app_id]
        suspended = installation.suspended_at
        return {
            "id": installation.id,
            "client_id": app.client_id,
            "account": self.account(installation.account),
            "repository_selection": "all" if installation.repository_ids is None else "selected",
            "access_tokens_url": f"{self._api}/app/installations/{installation.id}/access_tokens",
            "repositories_url": f"{self._api}/installation/repositories",
            "html_url": f"{self._web}/settings/installations/{installation.id}",
            "app_id": app.id,
            "app_slug": app.slug,
            "target_id": installation.account.id,
            "target_type": installation.account.type,
            "permissions": dict(installation.permissions),
            "events": list(app.events),
            "created_at": iso(installation.created_at),
            "updated_at": iso(installation.created_at),
            "single_file_name": None,
            "has_multiple_single_files": False,
            "single_file_paths": [],
            "suspended_by": None,
            "suspended_at": None if suspended is None else iso(suspended),
        }

    def runner(self, runner: Runner) -> Json:
        """Render a self-hosted runner."""
        return {
            "id": runner.id,
            "name": runner.name,
            "os": runner.os,
            "status": "online" if runner.online else "offline",
            "busy": runner.busy,
            "ephemeral": runner.ephemeral,
            "version": runner.version,
            "runner_group_id": runner.group_id,
            "labels": [self.label(number, name) for number, name in enumerate(runner.labels, 1)],
        }

    @staticmethod
    def label(number: int, name: str) -> Json:
        """Render a runner's label."""
        kind = "read-only" if name.lower() in _READ_ONLY_LABELS else "custom"
        return {"id": number, "name": name, "type": kind}

    def group(self, group: RunnerGroup, organization: str) -> Json:
        """Render a runner group."""
        url = f"{self._api}/orgs/{organization}/actions/runner-groups/{group.id}"
        return {
            "id": group.id,
            "name": group.name,
            "visibility": group.visibility,
            "default": group.default,
            "selected_repositories_url": f"{url}/repositories",
            "runners_url": f"{url}/runners",
            "inherited": False,
            "allows_public_repositories": group.allows_public_repositories,
            "restricted_to_workflows": False,
            "selected_workflows": [],
            "workflow_restrictions_read_only": False,
        }

    @staticmethod
    def step(step: Step) -> Json:
        """Render a step."""
        return {
            "name": step.name,
            "status": step.status,
            "conclusion": step.conclusion,
            "number": step.number,
            "started_at": None if step.started_at is None else iso(step.started_at),
            "completed_at": None if step.completed_at is None else iso(step.completed_at),
        }

    def job(self, job: Job) -> Json:
        """Render a job as the REST API does and as webhooks do."""
        repository = f"{self._api}/repos/{job.repository.full_name}"
        html = f"{self._web}/{job.repository.full_name}/actions/runs/{job.run_id}/job/{job.id}"
        runner = job.runner
        group = None if runner is None else self._world.group_of(runner)
        started = job.started_at if job.started_at is not None else job.created_at
        return {
            "id": job.id,
            "run_id": job.run_id,
            "workflow_name": job.workflow_name,
            "head_branch": job.head_branch,
            "run_url": f"{repository}/actions/runs/{job.run_id}",
            "run_attempt": job.attempt,
            "node_id": node_id("CR", job.id),
            "head_sha": job.head_sha,
            "url": f"{repository}/actions/jobs/{job.id}",
            "html_url": html,
            "status": str(job.status),
            "conclusion": None if job.conclusion is None else str(job.conclusion),
            "created_at": iso(job.created_at),
            "started_at": iso(started),
            "completed_at": None if job.completed_at is None else iso(job.completed_at),
            "name": job.planned.name,
            "steps": [self.step(step) for step in job.steps],
            "check_run_url": f"{repository}/check-runs/{job.id}",
            "labels": list(job.labels),
            "runner_id": None if runner is None else runner.id,
            "runner_name": None if runner is None else runner.name,
            "runner_group_id": None if group is None else group.id,
            "runner_group_name": None if group is None else group.name,
        }

    def run(self, run: Run) -> Json:
        """Render a workflow run."""
        repository = f"{self._api}/repos/{run.repository.full_name}"
        url = f"{repository}/actions/runs/{run.id}"
        html = f"{self._web}/{run.repository.full_name}/actions/runs/{run.id}"
        status, conclusion = run_status(run)
        return {
            "id": run.id,
            "name": run.plan.name,
            "node_id": node_id("WFR", run.id),
            "head_branch": run.head_branch,
            "head_sha": run.head_sha,
            "path": run.plan.path,
            "display_title": run.plan.name,
            "run_number": run.number,
            "event": run.event,
            "status": status,
            "conclusion": conclusion,
            "workflow_id": run.repository.id,
            "check_suite_id": run.id,
            "url": url,
            "html_url": html,
            "pull_requests": [],
            "created_at": iso(run.created_at),
            "updated_at": iso(run.updated_at),
            "actor": self.account(run.actor),
            "run_attempt": run.attempt,
            "run_started_at": iso(run.created_at),
            "triggering_actor": self.account(run.actor),
            "jobs_url": f"{url}/jobs",
            "logs_url": f"{url}/logs",
            "cancel_url": f"{url}/cancel",
            "rerun_url": f"{url}/rerun",
            "previous_attempt_url": f"{url}/attempts/{run.attempt - 1}"
            if run.attempt > 1
            else None,
            "repository": self.repository(run.repository),
        }

    def workflow_job_event(
        self, action: str, job: Job, installation: Installation, sender: Account
    ) -> Json:
        """Render the body of a ``workflow_job`` webhook."""
        body: Json = {
            "action": action,
            "workflow_job": self.job(job),
            "repository": self.repository(job.repository),
        }
        if job.repository.owner.is_organization:
            body["organization"] = self.organization(job.repository.owner)
        return body | {
            "sender": self.account(sender),
            "installation": {
                "id": installation.id,
                "node_id": node_id("MDIzOkludGVncmF0aW9uSW5zdGFsbGF0aW9u", installation.id),
            },
        }


def run_status(run: Run) -> tuple[str, str | None]:
    """Derive a run's status and conclusion from its jobs."""
    jobs = run.latest()
    if not run.done:
        if any(job.status in {JobStatus.IN_PROGRESS, JobStatus.COMPLETED} for job in jobs):
            return "in_progress", None
        waiting = jobs and all(job.status is JobStatus.WAITING for job in jobs)
        return ("waiting" if waiting else "queued"), None
    results = {"success" if job.planned.continue_on_error else str(job.conclusion) for job in jobs}
    for worst in ("failure", "cancelled", "success"):
        if worst in results:
            return "completed", worst
    return "completed", "skipped"
