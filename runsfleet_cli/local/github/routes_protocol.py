"""The runner's own endpoints, which stand in for GitHub's broker, run service and token service.

The real protocol is not public. What matters to a fleet is kept: a runner proves with its RSA key
who it is, opens one session, waits for a job, picks it up, renews it, reports steps, log lines and
the result, and is told when the job is cancelled or when the runner itself no longer exists.
"""

from __future__ import annotations

import base64
from typing import Any, Final
from urllib.parse import urlsplit

import jwt
from aiohttp import web

from runsfleet_cli.local.github.auth import CALLER, bearer
from runsfleet_cli.local.github.errors import ApiError, invalid, not_found
from runsfleet_cli.local.github.registry import MAX_LABELS
from runsfleet_cli.local.github.services import Services, json_body, number_in
from runsfleet_cli.local.github.traffic import API_PREFIX
from runsfleet_cli.local.github.world import (
    DEFAULT_GROUP_ID,
    Conclusion,
    Job,
    Runner,
    Step,
)

PREFIX: Final = "/_runner"
MAX_LOG_LINES: Final = 200_000
ASSERTION_SECONDS: Final = 600


class ProtocolRoutes:
    """The handlers; see `routes` for their addresses."""

    def __init__(self, services: Services) -> None:
        self._s = services

    def routes(self) -> list[web.RouteDef]:
        """Answer the routes."""
        job = f"{PREFIX}/jobs/{{job_id}}"
        return [
            web.post(f"{PREFIX}/oauth2/token", self.token),
            web.post(f"{PREFIX}/register", self.register),
            web.post(f"{PREFIX}/unregister", self.unregister),
            web.post(f"{PREFIX}/sessions", self.connect),
            web.delete(f"{PREFIX}/sessions/{{session_id}}", self.disconnect),
            web.get(f"{PREFIX}/sessions/{{session_id}}/message", self.message),
            web.post(f"{job}/acquire", self.acquire),
            web.post(f"{job}/renew", self.renew),
            web.post(f"{job}/steps", self.steps),
            web.post(f"{job}/log", self.log),
            web.post(f"{job}/complete", self.complete),
            web.get("/_logs/{job_id}.txt", self.log_text),
        ]

    async def token(self, request: web.Request) -> web.Response:
        """Exchange a signed assertion (RFC 7523) for an access token."""
        form = await request.post()
        assertion = str(form.get("client_assertion", ""))
        try:
            claims = jwt.decode(
                assertion,
                self._s.registry.public_key,
                algorithms=["RS256"],
                options={"verify_aud": False, "verify_exp": False, "verify_iat": False},
            )
        except jwt.PyJWTError as error:
            raise ApiError(401, f"The runner's assertion is not valid: {error}") from error
        now = self._s.world.clock()
        if not now - ASSERTION_SECONDS < float(claims.get("iat", 0)) < now + ASSERTION_SECONDS:
            raise ApiError(401, "The runner's clock is too far off")
        access = self._s.broker.sign_in(str(claims.get("sub", "")))
        return web.json_response(
            {"access_token": access, "token_type": "bearer", "expires_in": 3600}
        )

    def _runner(self, request: web.Request) -> Runner:
        runner = self._s.broker.runner_of(bearer(request))
        request[CALLER] = f"runner:{runner.name}"
        return runner

    def _scope_of(self, url: str) -> str:
        """Answer the scope that a ``--url`` means: an organization's or a repository's page."""
        names = [part for part in urlsplit(url).path.lower().split("/") if part]
        if len(names) == 1 and names[0] in self._s.world.groups:
            return f"orgs/{names[0]}"
        if len(names) == 2 and "/".join(names) in self._s.world.repositories:  # noqa: PLR2004
            return f"repos/{names[0]}/{names[1]}"
        raise not_found()

    async def register(self, request: web.Request) -> web.Response:
        """Register a runner with a registration token; what ``config.sh`` calls."""
        body = await json_body(request)
        scope = self._scope_of(str(body.get("url", "")))
        self._s.registry.redeem(str(body.get("token", "")), scope, "registration")
        name, labels = body.get("name"), body.get("labels")
        if not isinstance(name, str) or not name or not isinstance(labels, list):
            raise invalid("name and labels are required")
        if len(labels) > MAX_LABELS:
            raise invalid(f"at most {MAX_LABELS} labels, got {len(labels)}")
        group_id = self._group_of(scope, body.get("runnergroup"))
        existing = self._s.world.runner_named(scope, name)
        if existing is not None and body.get("replace"):
            self._s.broker.remove(existing, "replaced")
        runner = self._s.registry.add(
            scope,
            name,
            [str(label) for label in labels],
            group_id,
            ephemeral=bool(body.get("ephemeral")),
            jit=False,
        )
        files = self._s.registry.files(runner, str(body.get("work") or "_work"))
        return web.json_response({"files": files}, status=201)

    def _group_of(self, scope: str, name: object) -> int:
        kind, _, rest = scope.partition("/")
        if not name or kind != "orgs":
            return DEFAULT_GROUP_ID
        for group in self._s.world.groups[rest].values():
            if group.name.lower() == str(name).lower():
                return group.id
        raise invalid(f"Could not find any self-hosted runner group named {name!r}.")

    async def unregister(self, request: web.Request) -> web.Response:
        """Remove a runner with a remove token; what ``config.sh remove`` calls."""
        body = await json_body(request)
        scope = self._scope_of(str(body.get("url", "")))
        self._s.registry.redeem(str(body.get("token", "")), scope, "remove")
        runner = self._s.world.runner_named(scope, str(body.get("name", "")))
        if runner is None:
            raise not_found()
        self._s.broker.remove(runner, "removed by config.sh")
        return web.json_response({})

    async def connect(self, request: web.Request) -> web.Response:
        """Open a session; a version past its deprecation is turned away."""
        runner = self._runner(request)
        body = await json_body(request)
        version = str(body.get("version", ""))
        if self._s.releases.is_deprecated(version):
            raise ApiError(
                403, f"Runner version v{version} is deprecated and cannot receive messages."
            )
        session = self._s.broker.connect(runner, os=str(body.get("os", "")), version=version)
        return web.json_response({"sessionId": session.id}, status=201)

    async def disconnect(self, request: web.Request) -> web.Response:
        """Close a session."""
        runner = self._runner(request)
        self._s.broker.session(request.match_info["session_id"], runner)
        self._s.broker.disconnect(runner)
        return web.Response(status=204)

    async def message(self, request: web.Request) -> web.Response:
        """Wait for a job: 200 with its id, or 202 when none came in time."""
        runner = self._runner(request)
        session = self._s.broker.session(request.match_info["session_id"], runner)
        seconds = float(request.query.get("wait", self._s.broker.timing.poll))
        job = await self._s.broker.poll(session, seconds)
        if job is None:
            return web.Response(status=202)
        return web.json_response({"messageType": "RunnerJobRequest", "jobId": job.id})

    def _job(self, request: web.Request) -> Job:
        job = self._s.world.jobs.get(number_in(request, "job_id"))
        if job is None:
            raise not_found()
        return job

    async def acquire(self, request: web.Request) -> web.Response:
        """Pick the job up and answer all that is needed to run it."""
        runner = self._runner(request)
        job = self._job(request)
        self._s.broker.acquire(job, runner)
        run = self._s.world.runs[job.run_id]
        context = {
            key: value
            for key, value in self._s.lifecycle.github_context(run).items()
            if isinstance(value, str)
        }
        origin = str(request.url.origin())
        files = job.repository.files | {run.plan.path: run.plan.text.encode()}
        return web.json_response(
            {
                "jobId": job.id,
                "runId": run.id,
                "key": job.planned.key,
                "name": job.planned.name,
                "timeoutMinutes": job.planned.timeout_minutes,
                "renewSeconds": min(15.0, self._s.broker.timing.lost / 4),
                "workflow": job.planned.document,
                "github": context | {"job": job.planned.key, "api_url": f"{origin}{API_PREFIX}"},
                "files": {
                    name: base64.b64encode(content).decode() for name, content in files.items()
                },
            }
        )

    async def renew(self, request: web.Request) -> web.Response:
        """Keep the job; says whether it was cancelled."""
        runner = self._runner(request)
        cancelled = self._s.broker.renew(self._job(request), runner)
        return web.json_response({"cancelled": cancelled})

    async def steps(self, request: web.Request) -> web.Response:
        """Take the state of the job's steps."""
        job = self._own(request)
        job.steps = [_step(entry) for entry in await json_body(request)]
        return web.json_response({"cancelled": job.cancel_at is not None})

    async def log(self, request: web.Request) -> web.Response:
        """Take log lines."""
        job = self._own(request)
        lines = (await json_body(request)).get("lines", [])
        job.log.extend(str(line) for line in lines)
        del job.log[MAX_LOG_LINES:]
        return web.json_response({"cancelled": job.cancel_at is not None})

    def _own(self, request: web.Request) -> Job:
        runner = self._runner(request)
        job = self._job(request)
        self._s.broker.own(job, runner)
        return job

    async def complete(self, request: web.Request) -> web.Response:
        """Take the job's result."""
        runner = self._runner(request)
        job = self._own(request)
        body = await json_body(request)
        try:
            conclusion = Conclusion(body["conclusion"])
        except (KeyError, ValueError) as error:
            raise invalid(f"unknown conclusion {body.get('conclusion')!r}") from error
        outputs = {str(key): str(value) for key, value in (body.get("outputs") or {}).items()}
        note = body.get("annotation")
        self._s.broker.finish(
            job,
            runner,
            conclusion,
            outputs,
            annotation=note if isinstance(note, str) else None,
        )
        return web.json_response({})

    async def log_text(self, request: web.Request) -> web.Response:
        """Answer a job's log as text."""
        return web.Response(text="\n".join(self._job(request).log) + "\n")


def _step(entry: dict[str, Any]) -> Step:
    return Step(
        name=str(entry["name"]),
        number=int(entry["number"]),
        status=str(entry["status"]),
        conclusion=entry.get("conclusion"),
        started_at=entry.get("startedAt"),
        completed_at=entry.get("completedAt"),
    )
