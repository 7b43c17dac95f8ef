"""GitHub's REST API over the model of Actions: what the fleet's real client asks of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from runsfleet_runtime.github.transport import Answer
from tests.simulation.actions import Actions, Delivery, Job, Runner, iso
from tests.simulation.loop import Loop

ORGANIZATION: Final = "acme"
VERSION: Final = "2.337.0"
_ROUTES: list[tuple[str, re.Pattern[str], str]] = []
_PERMISSIONS: Final = {
    "actions": "write",
    "administration": "write",
    "metadata": "read",
    "organization_self_hosted_runners": "write",
}


def _route(method: str, path: str) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
    def note(handler: Callable[..., Answer]) -> Callable[..., Answer]:
        _ROUTES.append((method, re.compile(path), handler.__name__))
        return handler

    return note


class GitHubApi:
    """Answers requests.

    Args:
        actions: The model.
        loop: Simulated time.
        repositories: What the App reaches.
    """

    def __init__(self, actions: Actions, loop: Loop, repositories: Sequence[str]) -> None:
        self._actions = actions
        self._loop = loop
        self._repositories = repositories
        self._tokens = 0

    def answer(self, method: str, url: str, body: bytes | None) -> Answer:
        """Answer one request."""
        parts = urlsplit(url)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        for known, pattern, name in _ROUTES:
            if known == method and (match := pattern.fullmatch(parts.path)):
                content = json.loads(body) if body else {}
                found: Answer = getattr(self, name)(query=query, body=content, **match.groupdict())
                return found
        raise NotImplementedError(f"{method} {parts.path}")

    # -- the App -------------------------------------------------------------------------------

    @_route("POST", r"/app/installations/\d+/access_tokens")
    def _access_token(self, body: Mapping[str, Any], **_: Any) -> Answer:
        self._tokens += 1
        return _json(
            201,
            {
                "token": f"ghs_{self._tokens}",
                "expires_at": iso(self._loop.now + 3600),
                "permissions": body.get("permissions", {}),
            },
        )

    @_route("GET", r"/app/installations")
    def _installations(self, query: Mapping[str, str], **_: Any) -> Answer:
        account = {"login": ORGANIZATION, "type": "Organization"}
        entry = {
            "id": 7,
            "account": account,
            "permissions": _PERMISSIONS,
            "suspended_at": None,
        }
        return _json(200, _numbered([entry], query))

    @_route("GET", r"/installation/repositories")
    def _installation_repositories(self, query: Mapping[str, str], **_: Any) -> Answer:
        entries = [{"full_name": name, "archived": False} for name in self._repositories]
        return _json(200, {"repositories": _numbered(entries, query)})

    @_route("GET", r"/repos/[^/]+/[^/]+/installation")
    def _installation(self, **_: Any) -> Answer:
        return _json(200, {"id": 7})

    @_route("GET", r"/app/hook/deliveries")
    def _deliveries(self, query: Mapping[str, str], **_: Any) -> Answer:
        before = int(query.get("cursor", "0"))
        oldest = self._loop.now - 3 * 24 * 3600
        size = int(query.get("per_page", "30"))
        found: list[Delivery] = []
        rest = False
        for delivery in reversed(self._actions.deliveries):
            if delivery.delivered_at < oldest:
                break
            if before and delivery.id >= before:
                continue
            if len(found) == size:
                rest = True
                break
            found.append(delivery)
        link = {}
        if rest:
            where = f"https://api.github.com/app/hook/deliveries?cursor={found[-1].id}"
            link = {"link": f'<{where}>; rel="next"'}
        shown = [
            {
                "id": d.id,
                "guid": d.guid,
                "delivered_at": iso(d.delivered_at),
                "redelivery": d.is_redelivery,
                "status": "OK" if d.status_code < 300 else "failed",
                "status_code": d.status_code,
                "event": "workflow_job",
                "action": d.action,
                "installation_id": 7,
                "repository_id": 1,
            }
            for d in found
        ]
        return _json(200, shown, **link)

    @_route("POST", r"/app/hook/deliveries/(?P<number>\d+)/attempts")
    def _attempt(self, number: str, **_: Any) -> Answer:
        for delivery in reversed(self._actions.deliveries):
            if delivery.id == int(number):
                self._actions.redeliver(delivery)
                return _json(202, {})
        return _json(404, {"message": "Not Found"})

    # -- runners -------------------------------------------------------------------------------

    @_route("GET", r"/orgs/[^/]+/actions/runners/downloads")
    def _downloads(self, **_: Any) -> Answer:
        entries = [
            {
                "os": "linux",
                "architecture": arch,
                "filename": f"actions-runner-linux-{arch}-{VERSION}.tar.gz",
                "download_url": f"https://github.test/actions-runner-linux-{arch}-{VERSION}.tar.gz",
                "sha256_checksum": "0" * 64,
            }
            for arch in ("x64", "arm64")
        ]
        return _json(200, entries)

    @_route("GET", r"/orgs/[^/]+/actions/runners/deprecations/.+")
    def _deprecation(self, **_: Any) -> Answer:
        return _json(
            200,
            {
                "runner_version": VERSION,
                "registration_deprecates_at": None,
                "runtime_deprecates_at": None,
            },
        )

    @_route("POST", r"/orgs/[^/]+/actions/runners/generate-jitconfig")
    def _jit(self, body: Mapping[str, Any], **_: Any) -> Answer:
        runner = self._actions.register(body["name"], tuple(body["labels"]))
        if runner is None:
            return _json(409, {"message": "Already exists - A runner with the name exists."})
        return _json(201, {"runner": _runner(runner), "encoded_jit_config": runner.token})

    @_route("GET", r"/orgs/[^/]+/actions/runners")
    def _runners(self, query: Mapping[str, str], **_: Any) -> Answer:
        found = [
            _runner(runner)
            for runner in self._actions.runners.values()
            if query.get("name") in {None, runner.name}
        ]
        return _json(200, {"total_count": len(found), "runners": _numbered(found, query)})

    @_route("GET", r"/orgs/[^/]+/actions/runners/(?P<number>\d+)")
    def _one_runner(self, number: str, **_: Any) -> Answer:
        runner = self._actions.runners.get(int(number))
        return _json(200, _runner(runner)) if runner else _json(404, {"message": "Not Found"})

    @_route("DELETE", r"/orgs/[^/]+/actions/runners/(?P<number>\d+)")
    def _remove_runner(self, number: str, **_: Any) -> Answer:
        runner = self._actions.runners.get(int(number))
        if runner is None:
            return _json(404, {"message": "Not Found"})
        if runner.job is not None:
            return _json(422, {"message": "Runner is currently running a job"})
        gone = runner.on_removed
        self._actions.remove(runner)
        if gone is not None:
            gone()
        return Answer(204, {}, b"")

    # -- jobs and runs -------------------------------------------------------------------------

    @_route("GET", r"/repos/[^/]+/[^/]+/actions/jobs/(?P<number>\d+)")
    def _job(self, number: str, **_: Any) -> Answer:
        job = self._actions.jobs.get(int(number))
        return _json(200, Actions.shown(job)) if job else _json(404, {"message": "Not Found"})

    @_route("POST", r"/repos/[^/]+/[^/]+/actions/jobs/(?P<number>\d+)/rerun")
    def _rerun(self, number: str, **_: Any) -> Answer:
        status = self._actions.rerun(self._actions.jobs[int(number)])
        if status == 403:
            text = "The workflow run containing this job is already running"
            return _json(status, {"message": text})
        return _json(status, {})

    @_route("GET", r"/repos/[^/]+/[^/]+/check-runs/(?P<number>\d+)/annotations")
    def _annotations(self, number: str, query: Mapping[str, str], **_: Any) -> Answer:
        job = self._actions.jobs[int(number)]
        notes = [{"annotation_level": "failure", "message": note} for note in job.notes]
        return _json(200, _numbered(notes, query))

    @_route("GET", r"/repos/(?P<repository>[^/]+/[^/]+)/actions/runs")
    def _runs(self, repository: str, query: Mapping[str, str], **_: Any) -> Answer:
        found = [
            {"id": run.id, "status": run.status, "run_attempt": run.attempt}
            for run in reversed(self._actions.runs.values())
            if run.repository == repository and run.status == query.get("status", run.status)
        ]
        return _json(200, {"total_count": len(found), "workflow_runs": _numbered(found, query)})

    @_route("GET", r"/repos/[^/]+/[^/]+/actions/runs/(?P<number>\d+)")
    def _run(self, number: str, **_: Any) -> Answer:
        run = self._actions.runs[int(number)]
        return _json(200, {"id": run.id, "status": run.status, "run_attempt": run.attempt})

    @_route("GET", r"/repos/[^/]+/[^/]+/actions/runs/(?P<number>\d+)/jobs")
    def _run_jobs(self, number: str, query: Mapping[str, str], **_: Any) -> Answer:
        run = self._actions.runs[int(number)]
        jobs: list[Job] = run.jobs if query.get("filter") == "all" else run.latest
        shown = [Actions.shown(job) for job in jobs]
        return _json(200, {"total_count": len(shown), "jobs": _numbered(shown, query)})


def _runner(runner: Runner) -> dict[str, Any]:
    return {
        "id": runner.id,
        "name": runner.name,
        "os": "linux",
        "status": "online" if runner.is_online or runner.job is not None else "offline",
        "busy": runner.job is not None,
        "ephemeral": True,
        "version": VERSION,
        "labels": [{"name": label} for label in runner.labels],
    }


def _numbered(entries: list[Any], query: Mapping[str, str]) -> list[Any]:
    size, page = int(query.get("per_page", "30")), int(query.get("page", "1"))
    return entries[(page - 1) * size : page * size]


def _json(status: int, body: Any, **headers: str) -> Answer:
    return Answer(status, headers, json.dumps(body).encode())
