"""The control API: what a person or a test does that on GitHub happens elsewhere.

It has no authentication, listens where the stand-in listens (loopback), and is neither recorded
nor subject to faults.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from runsfleet_cli.local.github.errors import ApiError, invalid, not_found
from runsfleet_cli.local.github.render import run_status
from runsfleet_cli.local.github.services import json_body, number_in
from runsfleet_cli.local.github.traffic import Fault, RateLimits
from runsfleet_cli.local.github.world import App, Job, Run
from runsfleet_cli.local.jobs.payload import PayloadError, RecordedPayload, read_payloads
from runsfleet_cli.local.jobs.plan import WorkflowError, read_workflow, read_workflow_file

if TYPE_CHECKING:
    from runsfleet_cli.local.github.server import GitHubStandIn


def job_view(job: Job) -> dict[str, Any]:
    """Answer what a person wants to know of a job."""
    return {
        "id": job.id,
        "run_id": job.run_id,
        "attempt": job.attempt,
        "key": job.planned.key,
        "name": job.planned.name,
        "repository": job.repository.full_name,
        "labels": list(job.labels),
        "status": str(job.status),
        "conclusion": None if job.conclusion is None else str(job.conclusion),
        "runner": None if job.runner is None else job.runner.name,
        "queued_at": job.queued_at,
        "started_at": job.started_at,
        "completed_at": job.completed_at,
        "assignments": job.assignments,
        "annotation": job.annotation,
        "steps": [
            {"name": step.name, "status": step.status, "conclusion": step.conclusion}
            for step in job.steps
        ],
    }


def run_view(run: Run) -> dict[str, Any]:
    """Answer what a person wants to know of a run, with its jobs."""
    status, conclusion = run_status(run)
    return {
        "id": run.id,
        "workflow": run.plan.name,
        "repository": run.repository.full_name,
        "attempt": run.attempt,
        "status": status,
        "conclusion": conclusion,
        "done": run.done,
        "jobs": [job_view(job) for job in run.latest()],
    }


class ControlRoutes:
    """The handlers; see `routes` for their addresses."""

    def __init__(self, stand_in: GitHubStandIn) -> None:
        self._github = stand_in

    def routes(self) -> list[web.RouteDef]:
        """Answer the routes."""
        base = "/_control"
        return [
            web.get(f"{base}/world", self.world),
            web.post(f"{base}/apps", self.make_app),
            web.post(f"{base}/installations", self.make_installation),
            web.delete(f"{base}/installations/{{installation_id}}", self.uninstall),
            web.post(f"{base}/organizations", self.make_organization),
            web.post(f"{base}/repositories", self.make_repository),
            web.put(f"{base}/webhook", self.set_webhook),
            web.post(f"{base}/runs", self.start_run),
            web.get(f"{base}/runs", self.runs),
            web.get(f"{base}/runs/{{run_id}}", self.run),
            web.post(f"{base}/runs/{{run_id}}/cancel", self.cancel_run),
            web.post(f"{base}/payloads", self.play_payload),
            web.post(f"{base}/deliveries", self.deliver),
            web.get(f"{base}/deliveries", self.deliveries),
            web.post(f"{base}/deliveries/{{delivery_id}}/redeliver", self.redeliver),
            web.get(f"{base}/jobs", self.jobs),
            web.get(f"{base}/jobs/{{job_id}}", self.job),
            web.get(f"{base}/jobs/{{job_id}}/log", self.log),
            web.post(f"{base}/jobs/{{job_id}}/approve", self.approve),
            web.get(f"{base}/runners", self.runners),
            web.get(f"{base}/requests", self.requests),
            web.get(f"{base}/events", self.events),
            web.get(f"{base}/faults", self.faults),
            web.post(f"{base}/faults", self.add_fault),
            web.delete(f"{base}/faults", self.clear_faults),
            web.delete(f"{base}/faults/{{fault_id}}", self.remove_fault),
            web.put(f"{base}/limits", self.set_limits),
            web.put(f"{base}/deprecations/{{version}}", self.deprecate),
            web.get(f"{base}/wait", self.wait),
        ]

    async def world(self, _request: web.Request) -> web.Response:
        """Answer who and what exists; the default App's private key is told here."""
        github = self._github
        world = github.world
        return web.json_response(
            {
                "url": github.url,
                "api_url": github.api_url,
                "apps": [
                    {
                        "id": app.id,
                        "slug": app.slug,
                        "client_id": app.client_id,
                        "webhook_url": app.webhook_url,
                        "private_key": github.private_key if app is github.app else None,
                    }
                    for app in world.apps.values()
                ],
                "installations": [
                    {"id": entry.id, "app_id": entry.app_id, "account": entry.account.login}
                    for entry in world.installations.values()
                ],
                "repositories": [entry.full_name for entry in world.repositories.values()],
            }
        )

    async def make_app(self, request: web.Request) -> web.Response:
        """Make an App: ``slug``, ``public_key`` (PEM), optionally ``id`` and ``install_on``."""
        body = await _object(request)
        try:
            app = self._github.create_app(
                str(body["slug"]), str(body["public_key"]), app_id=body.get("id")
            )
        except (KeyError, TypeError, ValueError) as error:
            raise invalid(f"cannot make the app: {error}") from error
        for login in body.get("install_on") or ():
            self._github.install(app, str(login))
        return web.json_response({"id": app.id, "client_id": app.client_id}, status=201)

    def _app(self, body: Mapping[str, Any]) -> App:
        number = body.get("app_id")
        if number is None:
            return self._github.app
        found = self._github.world.apps.get(int(number))
        if found is None:
            raise not_found()
        return found

    async def make_installation(self, request: web.Request) -> web.Response:
        """Install an App: ``account``, optionally ``app_id`` and ``permissions``."""
        body = await _object(request)
        options = {"permissions": body["permissions"]} if "permissions" in body else {}
        try:
            made = self._github.install(self._app(body), str(body.get("account")), **options)
        except KeyError:
            raise not_found() from None
        return web.json_response({"id": made.id}, status=201)

    async def uninstall(self, request: web.Request) -> web.Response:
        """Uninstall an App: its id is unknown from now on and its tokens are void."""
        number = number_in(request, "installation_id")
        if self._github.world.installations.pop(number, None) is None:
            raise not_found()
        return web.Response(status=204)

    async def make_organization(self, request: web.Request) -> web.Response:
        """Make an organization: ``login``."""
        body = await _object(request)
        account = self._github.world.add_account(str(body["login"]))
        return web.json_response({"id": account.id}, status=201)

    async def make_repository(self, request: web.Request) -> web.Response:
        """Make a repository: ``full_name``, optionally more.

        Further keys: ``owner_type`` (Organization or User), ``private``, ``files`` (path to
        base64) and ``protected_environments``.
        """
        body = await _object(request)
        repository = self._github.world.add_repository(
            str(body["full_name"]),
            owner_type=str(body.get("owner_type", "Organization")),
            private=bool(body.get("private", True)),
        )
        for path, content in (body.get("files") or {}).items():
            repository.files[path] = base64.b64decode(content)
        repository.protected_environments |= set(body.get("protected_environments") or ())
        return web.json_response({"id": repository.id}, status=201)

    async def set_webhook(self, request: web.Request) -> web.Response:
        """Set an App's webhook: ``url``, ``secret``, optionally ``app_id``."""
        body = await _object(request)
        self._github.set_webhook(body.get("url"), body.get("secret"), app=self._app(body))
        return web.json_response({})

    async def start_run(self, request: web.Request) -> web.Response:
        """Start runs of a workflow: ``file`` (a path) or ``text``, optionally more.

        Further keys: ``repository``, ``labels`` (in place of ``runs-on``), ``times``, ``event``,
        ``age`` (seconds that its jobs wait already).
        """
        body = await _object(request)
        try:
            if "file" in body:
                plan = read_workflow_file(Path(str(body["file"])))
            else:
                plan = read_workflow(str(body.get("text", "")))
            runs = [
                self._github.queue_workflow(
                    plan,
                    repository=str(body.get("repository", "octo-org/hello")),
                    labels=body.get("labels"),
                    event=str(body.get("event", "push")),
                )
                for _ in range(int(body.get("times", 1)))
            ]
            for job in (job for run in runs for job in run.latest()):
                job.created_at -= float(body.get("age", 0))
        except WorkflowError as error:
            raise invalid(str(error)) from error
        except ValueError as error:
            raise ApiError(404, str(error)) from error
        return web.json_response({"runs": [run_view(run) for run in runs]}, status=201)

    def _run(self, request: web.Request) -> Run:
        found = self._github.world.runs.get(number_in(request, "run_id"))
        if found is None:
            raise not_found()
        return found

    async def runs(self, _request: web.Request) -> web.Response:
        """Answer every run with its jobs."""
        runs = [run_view(run) for run in self._github.world.runs.values()]
        return web.json_response({"runs": runs})

    async def run(self, request: web.Request) -> web.Response:
        """Answer one run with its jobs."""
        return web.json_response(run_view(self._run(request)))

    async def cancel_run(self, request: web.Request) -> web.Response:
        """Cancel a run."""
        self._github.lifecycle.cancel_run(self._run(request))
        return web.json_response({}, status=202)

    async def play_payload(self, request: web.Request) -> web.Response:
        """Play recorded payloads: ``file`` or ``payload``, optionally more.

        Further keys: ``actions`` (only these), ``labels``, ``repository``, ``signature``,
        ``verbatim`` and ``fresh_ids``.
        """
        body = await _object(request)
        played = []
        for recorded in _recorded(body):
            if recorded.action not in (body.get("actions") or [recorded.action]):
                continue
            delivery, job = self._github.play_payload(
                recorded,
                labels=body.get("labels"),
                repository=body.get("repository"),
                signature=body.get("signature", "valid"),
                verbatim=bool(body.get("verbatim", False)),
                fresh_ids=bool(body.get("fresh_ids", False)),
            )
            played.append(
                {
                    "action": recorded.action,
                    "delivery_id": None if delivery is None else delivery.id,
                    "job_id": None if job is None else job.id,
                    "run_id": None if job is None else job.run_id,
                }
            )
        await self._github.webhooks.settled()
        for entry in played:
            if entry["delivery_id"] is not None:
                number = int(str(entry["delivery_id"]))
                entry.update(self._github.webhooks.log[number].summary())
        return web.json_response({"played": played}, status=201)

    async def deliver(self, request: web.Request) -> web.Response:
        """Deliver anything: ``event``, and ``payload`` (JSON) or ``body`` (text), optionally more.

        Further keys: ``signature`` (``valid``, ``wrong``, null for none, or a literal value),
        ``guid``, ``headers``, ``app_id``. Answers once the receiver has.
        """
        body = await _object(request)
        content = str(body["body"]).encode() if "body" in body else body.get("payload", {})
        delivery = self._github.webhooks.send(
            self._app(body),
            str(body.get("event", "workflow_job")),
            content,
            signature=body.get("signature", "valid"),
            guid=body.get("guid"),
            headers=body.get("headers"),
        )
        if delivery is None:
            raise invalid("nothing was sent: set the webhook's url, and stay below 25 MB")
        await self._github.webhooks.settled()
        return web.json_response(delivery.detail(), status=201)

    async def deliveries(self, request: web.Request) -> web.Response:
        """Answer every delivery, oldest first; ``detail=1`` adds request and response."""
        detail = request.query.get("detail") == "1"
        log = self._github.webhooks.log.values()
        found = [entry.detail() if detail else entry.summary() for entry in log]
        return web.json_response({"deliveries": found})

    async def redeliver(self, request: web.Request) -> web.Response:
        """Deliver the same bytes again and answer once the receiver has."""
        found = self._github.webhooks.log.get(number_in(request, "delivery_id"))
        if found is None:
            raise not_found()
        again = self._github.webhooks.redeliver(found)
        await self._github.webhooks.settled()
        return web.json_response({} if again is None else again.detail(), status=201)

    def _job(self, request: web.Request) -> Job:
        found = self._github.world.jobs.get(number_in(request, "job_id"))
        if found is None:
            raise not_found()
        return found

    async def jobs(self, _request: web.Request) -> web.Response:
        """Answer every job."""
        jobs = [job_view(job) for job in self._github.world.jobs.values()]
        return web.json_response({"jobs": jobs})

    async def job(self, request: web.Request) -> web.Response:
        """Answer one job."""
        return web.json_response(job_view(self._job(request)))

    async def log(self, request: web.Request) -> web.Response:
        """Answer a job's log so far."""
        return web.json_response({"lines": self._job(request).log})

    async def approve(self, request: web.Request) -> web.Response:
        """Approve a job that waits for its environment."""
        self._github.lifecycle.approve(self._job(request))
        return web.json_response({})

    async def runners(self, _request: web.Request) -> web.Response:
        """Answer every runner."""
        render = self._github.services.renderer.runner
        found = [
            render(runner) | {"scope": runner.scope}
            for runner in self._github.world.runners.values()
        ]
        return web.json_response({"runners": found})

    async def requests(self, request: web.Request) -> web.Response:
        """Answer the recorded requests; ``surface=`` api (default), download, runner or all."""
        surface = request.query.get("surface", "api")
        found = self._github.requests(surface=None if surface == "all" else surface)
        return web.json_response({"requests": [entry.as_dict() for entry in found]})

    async def events(self, request: web.Request) -> web.Response:
        """Answer what happened so far, from number ``since`` on."""
        since = int(request.query.get("since", "0"))
        return web.json_response({"events": self._github.events[since:]})

    async def faults(self, _request: web.Request) -> web.Response:
        """Answer the faults that are on."""
        found = [asdict(fault) for fault in self._github.traffic.faults.values()]
        return web.json_response({"faults": found})

    async def add_fault(self, request: web.Request) -> web.Response:
        """Switch a fault on; the keys are `Fault`'s."""
        body = await _object(request)
        known = {entry.name for entry in fields(Fault)} - {"id", "hits"}
        unknown = sorted(set(body) - known)
        if unknown:
            raise invalid(f"unknown keys {unknown}; a fault has {sorted(known)}")
        fault = self._github.add_fault(Fault(**body))
        return web.json_response(asdict(fault), status=201)

    async def clear_faults(self, _request: web.Request) -> web.Response:
        """Switch every fault off."""
        self._github.clear_faults()
        return web.Response(status=204)

    async def remove_fault(self, request: web.Request) -> web.Response:
        """Switch one fault off."""
        if self._github.traffic.faults.pop(number_in(request, "fault_id"), None) is None:
            raise not_found()
        return web.Response(status=204)

    async def deprecate(self, request: web.Request) -> web.Response:
        """Let a runner version, or the ``current`` one, end: ``seconds`` from now."""
        body, releases = await _object(request), self._github.releases
        version = request.match_info["version"]
        version = releases.version if version == "current" else version
        releases.deprecate(version, runtime_ends=time.time() + float(body.get("seconds", 0)))
        return web.json_response(releases.deprecation(version))

    async def set_limits(self, request: web.Request) -> web.Response:
        """Set rate limits: ``real`` with an optional ``minute``, or the keys of `RateLimits`."""
        body = await _object(request)
        if body.pop("real", False):
            limits = RateLimits.real(minute=float(body.get("minute", 60.0)))
        else:
            known = {entry.name for entry in fields(RateLimits)}
            if set(body) - known:
                raise invalid(
                    f"unknown keys {sorted(set(body) - known)}; there are {sorted(known)}"
                )
            limits = RateLimits(**body)
        self._github.set_limits(limits)
        return web.json_response(asdict(limits))

    async def wait(self, request: web.Request) -> web.Response:
        """Wait for runs: ``run`` (repeatable; all by default), ``timeout`` in seconds (30)."""
        numbers = [int(text) for text in request.query.getall("run", [])]
        if any(number not in self._github.world.runs for number in numbers):
            raise not_found()
        timeout = float(request.query.get("timeout", "30"))
        done = await self._github.wait_for(*numbers, timeout=timeout)
        chosen = [self._github.world.runs[number] for number in numbers]
        runs = chosen or list(self._github.world.runs.values())
        return web.json_response({"done": done, "runs": [run_view(run) for run in runs]})


async def _object(request: web.Request) -> dict[str, Any]:
    body = await json_body(request)
    if not isinstance(body, dict):
        raise invalid("the body must be a JSON object")
    return body


def _recorded(body: Mapping[str, Any]) -> list[RecordedPayload]:
    try:
        if "file" in body:
            return read_payloads(Path(str(body["file"])))
        content = json.dumps(body["payload"], separators=(",", ":"), ensure_ascii=False).encode()
        return [RecordedPayload(content, body["payload"])]
    except PayloadError as error:
        raise invalid(str(error)) from error
    except KeyError as error:
        raise invalid("give 'file' or 'payload'") from error
