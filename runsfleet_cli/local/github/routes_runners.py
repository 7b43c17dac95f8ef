"""Endpoints for self-hosted runners of an organization or a repository, and runner groups."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from runsfleet_cli.local.github.errors import ApiError, invalid, not_found
from runsfleet_cli.local.github.services import Services, json_body, listing, number_in
from runsfleet_cli.local.github.world import DEFAULT_GROUP_ID, Runner, RunnerGroup, iso

ORGANIZATION_PERMISSION: Final = "organization_self_hosted_runners"
REPOSITORY_PERMISSION: Final = "administration"
UNPROCESSABLE: Final = 422


class RunnerRoutes:
    """The handlers; each serves the organization's and the repository's address."""

    def __init__(self, services: Services) -> None:
        self._s = services

    def routes(self, prefix: str) -> list[web.RouteDef]:
        """Answer the routes under a prefix."""
        routes: list[web.RouteDef] = []
        for base in (f"{prefix}/orgs/{{org}}", f"{prefix}/repos/{{owner}}/{{repo}}"):
            runners = f"{base}/actions/runners"
            routes += [
                web.post(f"{runners}/generate-jitconfig", self.generate_jit),
                web.post(f"{runners}/registration-token", self.registration_token),
                web.post(f"{runners}/remove-token", self.remove_token),
                web.get(runners, self.runners),
                web.get(f"{runners}/downloads", self.downloads),
                web.get(f"{runners}/deprecations/{{version}}", self.deprecation),
                web.get(f"{runners}/{{runner_id}}", self.runner),
                web.delete(f"{runners}/{{runner_id}}", self.delete),
                web.get(f"{runners}/{{runner_id}}/labels", self.labels),
            ]
        groups = f"{prefix}/orgs/{{org}}/actions/runner-groups"
        return [
            *routes,
            web.get(groups, self.groups),
            web.post(groups, self.make_group),
            web.get(f"{groups}/{{group_id}}", self.group),
            web.patch(f"{groups}/{{group_id}}", self.change_group),
            web.delete(f"{groups}/{{group_id}}", self.delete_group),
            web.get(f"{groups}/{{group_id}}/runners", self.group_runners),
            web.get(f"{groups}/{{group_id}}/repositories", self.group_repositories),
            web.put(f"{groups}/{{group_id}}/repositories", self.set_group_repositories),
        ]

    def _scope(self, request: web.Request, level: str = "read") -> str:
        """Authenticate for the path's organization or repository and answer its scope."""
        if "org" in request.match_info:
            return f"orgs/{self._organization(request, level)}"
        repository = self._s.seen_repository(request, REPOSITORY_PERMISSION, level)
        return f"repos/{repository.full_name.lower()}"

    def _organization(self, request: web.Request, level: str = "read") -> str:
        login = request.match_info["org"].lower()
        self._s.as_installation(request, ORGANIZATION_PERMISSION, level, organization=login)
        account = self._s.world.accounts.get(login)
        if account is None or not account.is_organization:
            raise not_found()
        return login

    async def generate_jit(self, request: web.Request) -> web.Response:
        """Make a just-in-time runner."""
        scope = self._scope(request, "write")
        runner, encoded = self._s.registry.generate_jit(scope, await json_body(request))
        body = {"runner": self._s.renderer.runner(runner), "encoded_jit_config": encoded}
        return web.json_response(body, status=201)

    async def registration_token(self, request: web.Request) -> web.Response:
        """Make a token for ``config.sh``."""
        return self._token(self._scope(request, "write"), "registration")

    async def remove_token(self, request: web.Request) -> web.Response:
        """Make a token for ``config.sh remove``."""
        return self._token(self._scope(request, "write"), "remove")

    def _token(self, scope: str, kind: str) -> web.Response:
        token = self._s.registry.token(scope, kind)
        body = {"token": token.token, "expires_at": iso(token.expires_at)}
        return web.json_response(body, status=201)

    async def runners(self, request: web.Request) -> web.Response:
        """List runners, optionally those of one name."""
        found = self._s.world.runners_of(self._scope(request))
        name = request.query.get("name")
        if name is not None:
            found = [runner for runner in found if runner.name.lower() == name.lower()]
        return listing(request, "runners", found, self._s.renderer.runner)

    def _runner(self, request: web.Request, level: str = "read") -> Runner:
        scope = self._scope(request, level)
        runner = self._s.world.runners.get(number_in(request, "runner_id"))
        if runner is None or runner.scope != scope:
            raise not_found()
        return runner

    async def runner(self, request: web.Request) -> web.Response:
        """Answer one runner."""
        return web.json_response(self._s.renderer.runner(self._runner(request)))

    async def labels(self, request: web.Request) -> web.Response:
        """Answer one runner's labels."""
        rendered = self._s.renderer.runner(self._runner(request))["labels"]
        return web.json_response({"total_count": len(rendered), "labels": rendered})

    async def delete(self, request: web.Request) -> web.Response:
        """Deregister a runner; one that is running a job is refused."""
        runner = self._runner(request, "write")
        if runner.busy:
            raise ApiError(
                UNPROCESSABLE,
                f'Bad request - Runner "{runner.name}" is still running a job"',
            )
        self._s.broker.remove(runner, "deleted by the API")
        return web.Response(status=204)

    async def downloads(self, request: web.Request) -> web.Response:
        """List the runner packages that this organization or repository gets."""
        self._scope(request)
        return web.json_response(self._s.releases.downloads())

    async def deprecation(self, request: web.Request) -> web.Response:
        """Answer when a runner version stops registering and running; null for a current one."""
        self._scope(request)
        return web.json_response(self._s.releases.deprecation(request.match_info["version"]))

    async def groups(self, request: web.Request) -> web.Response:
        """List an organization's runner groups."""
        login = self._organization(request)
        groups = list(self._s.world.groups[login].values())
        return listing(
            request, "runner_groups", groups, lambda group: self._s.renderer.group(group, login)
        )

    def _group(self, request: web.Request, level: str = "read") -> tuple[str, RunnerGroup]:
        login = self._organization(request, level)
        group = self._s.world.groups[login].get(number_in(request, "group_id"))
        if group is None:
            raise not_found()
        return login, group

    async def group(self, request: web.Request) -> web.Response:
        """Answer one runner group."""
        login, group = self._group(request)
        return web.json_response(self._s.renderer.group(group, login))

    async def make_group(self, request: web.Request) -> web.Response:
        """Make a runner group."""
        login = self._organization(request, "write")
        body = await json_body(request)
        name = body.get("name") if isinstance(body, dict) else None
        if not isinstance(name, str) or not name:
            raise invalid('Invalid request.\n\n"name" wasn\'t supplied.')
        if any(entry.name == name for entry in self._s.world.groups[login].values()):
            raise ApiError(409, "Already exists")
        group = self._s.world.add_group(
            login,
            name,
            visibility=str(body.get("visibility", "all")),
            allows_public_repositories=bool(body.get("allows_public_repositories", False)),
            repository_ids=set(body.get("selected_repository_ids") or ()),
        )
        for runner_id in body.get("runners") or ():
            self._move(runner_id, login, group.id)
        return web.json_response(self._s.renderer.group(group, login), status=201)

    def _move(self, runner_id: Any, login: str, group_id: int) -> None:
        runner = self._s.world.runners.get(runner_id)
        if runner is not None and runner.scope == f"orgs/{login}":
            runner.group_id = group_id

    async def change_group(self, request: web.Request) -> web.Response:
        """Change a runner group."""
        login, group = self._group(request, "write")
        body = await json_body(request)
        group.name = str(body.get("name", group.name))
        group.visibility = str(body.get("visibility", group.visibility))
        group.allows_public_repositories = bool(
            body.get("allows_public_repositories", group.allows_public_repositories)
        )
        return web.json_response(self._s.renderer.group(group, login))

    async def delete_group(self, request: web.Request) -> web.Response:
        """Delete a runner group; its runners go to the default one."""
        login, group = self._group(request, "write")
        if group.default:
            raise ApiError(UNPROCESSABLE, "The default runner group cannot be deleted.")
        for runner in self._s.world.runners_of(f"orgs/{login}"):
            if runner.group_id == group.id:
                runner.group_id = DEFAULT_GROUP_ID
        del self._s.world.groups[login][group.id]
        return web.Response(status=204)

    async def group_runners(self, request: web.Request) -> web.Response:
        """List a group's runners."""
        login, group = self._group(request)
        found = [
            runner
            for runner in self._s.world.runners_of(f"orgs/{login}")
            if runner.group_id == group.id
        ]
        return listing(request, "runners", found, self._s.renderer.runner)

    async def group_repositories(self, request: web.Request) -> web.Response:
        """List the repositories that a group was opened to."""
        _, group = self._group(request)
        found = [
            entry
            for entry in self._s.world.repositories.values()
            if entry.id in group.repository_ids
        ]
        return listing(request, "repositories", found, self._s.renderer.repository)

    async def set_group_repositories(self, request: web.Request) -> web.Response:
        """Open a group to exactly these repositories."""
        _, group = self._group(request, "write")
        body = await json_body(request)
        numbers = body.get("selected_repository_ids") if isinstance(body, dict) else None
        if not isinstance(numbers, list):
            raise invalid('Invalid request.\n\n"selected_repository_ids" wasn\'t supplied.')
        group.repository_ids = set(numbers)
        return web.Response(status=204)
