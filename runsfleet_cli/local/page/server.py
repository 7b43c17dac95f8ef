"""Serves the page and its JSON on 127.0.0.1; the commands of other processes use it too.

    GET  /                                    the page
    GET  /api/state                           everything but the timeline
    GET  /api/health                          what the fleet's own /health answers, now
    GET  /api/timeline?since=&wait=           entries after a sequence; waits for the first
    GET  /api/stream                          the same as server-sent events
    POST /api/instances/<id>/interrupt        {"seconds": 120}: a spot notice
    POST /api/instances/<id>/rebalance        a rebalance recommendation
    POST /api/instances/<id>/crash-agent      the agent is killed
    POST /api/instances/<id>/stop-agent       the agent gets SIGTERM
    POST /api/instances/<id>/freeze-agent     the agent hangs
    POST /api/instances/<id>/kill-runner      GitHub's runner is killed
    POST /api/instances/<id>/fail             the host fails
    POST /api/metadata                        {"how": "refuse" | "hang", "seconds": 10}: of all
    POST /api/shutdown                        the local cloud ends

`<id>` may be `any`: the running instance that was launched last.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING, Any

from aiohttp import web

from runsfleet_cli.local.hypervisor import MachineState, UnknownInstanceError
from runsfleet_cli.local.hypervisor.hypervisor import SPOT_NOTICE_SECONDS

if TYPE_CHECKING:
    from runsfleet_cli.local.hypervisor import Hypervisor
    from runsfleet_cli.local.snapshot import Snapshots
    from runsfleet_cli.local.timeline import Timeline

_LONGEST_WAIT = 25.0
_SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
        "img-src data:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class PageServer:
    """See the module.

    Args:
        timeline: What happened.
        hypervisor: Takes faults.
        snapshots: The present state.
        ports: Tried in turn; any free one if all are taken.
    """

    def __init__(
        self, *, timeline: Timeline, hypervisor: Hypervisor, snapshots: Snapshots, ports: range
    ) -> None:
        self._timeline = timeline
        self._hypervisor = hypervisor
        self._snapshots = snapshots
        self._ports = ports
        self._runner: web.AppRunner | None = None
        self._port = 0
        self.on_shutdown: Callable[[], None] = lambda: None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Listen."""
        application = web.Application(middlewares=[_guard])
        application.add_routes(
            [
                web.get("/", self._page),
                web.get("/api/state", self._state),
                web.get("/api/health", self._health),
                web.get("/api/timeline", self._entries),
                web.get("/api/stream", self._stream),
                web.post("/api/instances/{instance}/{what}", self._act_on),
                web.post("/api/metadata", self._metadata),
                web.post("/api/shutdown", self._shutdown),
            ]
        )
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        for port in (*self._ports, 0):
            with contextlib.suppress(OSError):
                await web.TCPSite(self._runner, "127.0.0.1", port).start()
                break
        self._port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _page(self, _request: web.Request) -> web.Response:
        text = resources.files(__package__ or "").joinpath("page.html").read_text("utf-8")
        return web.Response(text=text, content_type="text/html", headers=_SECURITY_HEADERS)

    async def _state(self, _request: web.Request) -> web.Response:
        return _json(await self._snapshots.take())

    async def _health(self, _request: web.Request) -> web.Response:
        # not a part of the state: asking is an invocation, and its calls are in the record
        found = await self._snapshots.health()
        return _json(found) if found is not None else _json({"message": "no answer"}, 503)

    async def _entries(self, request: web.Request) -> web.Response:
        try:
            since = int(request.query.get("since", "0"))
            wait = min(float(request.query.get("wait", "0")), _LONGEST_WAIT)
        except ValueError:
            return _json({"message": "since must be a whole number, wait seconds"}, 400)
        found = await self._timeline.since(since, wait)
        return _json({"entries": [entry.as_dict() for entry in found]})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        await response.prepare(request)
        last = request.headers.get("Last-Event-ID") or request.query.get("since") or "0"
        sequence = int(last) if last.isdigit() else 0
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while True:
                found = await self._timeline.since(sequence, _LONGEST_WAIT)
                for entry in found:
                    sequence = entry.sequence
                    data = json.dumps(entry.as_dict(), default=str)
                    await response.write(f"id: {sequence}\ndata: {data}\n\n".encode())
                if not found:
                    await response.write(b": still here\n\n")
        return response

    async def _act_on(self, request: web.Request) -> web.Response:
        what = request.match_info["what"]
        try:
            instance_id = self._instance(request.match_info["instance"])
            if what == "interrupt":
                self._hypervisor.interrupt(instance_id, await _seconds(request))
            elif what in (plain := self._plain_faults()):
                plain[what](instance_id)
            else:
                return _json({"message": f"no {what}; see the list at the API's head"}, 404)
        except UnknownInstanceError as error:
            return _json({"message": str(error)}, 404)
        except ValueError as error:
            return _json({"message": str(error)}, 400)
        return _json({"instance_id": instance_id}, 202)

    def _plain_faults(self) -> dict[str, Callable[[str], None]]:
        return {
            "rebalance": self._hypervisor.recommend_rebalance,
            "crash-agent": self._hypervisor.crash_agent,
            "stop-agent": self._hypervisor.stop_agent,
            "freeze-agent": self._hypervisor.freeze_agent,
            "kill-runner": self._hypervisor.kill_runner,
            "fail": self._hypervisor.fail,
        }

    async def _metadata(self, request: web.Request) -> web.Response:
        try:
            how = (await request.json()).get("how")
            seconds = await _seconds(request)
        except ValueError as error:
            return _json({"message": str(error)}, 400)
        if how not in ("refuse", "hang"):
            return _json({"message": f"how must be refuse or hang, got {how!r}"}, 400)
        self._hypervisor.trouble_metadata(how, seconds)
        return _json({}, 202)

    def _instance(self, given: str) -> str:
        if given != "any":
            return given
        running = [
            machine.instance_id
            for machine in self._hypervisor.machines.values()
            if machine.state is MachineState.RUNNING
        ]
        if not running:
            msg = "no instance runs at the moment"
            raise UnknownInstanceError(msg)
        return running[-1]

    async def _shutdown(self, _request: web.Request) -> web.Response:
        asyncio.get_running_loop().call_soon(self.on_shutdown)
        return _json({}, 202)


@web.middleware
async def _guard(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
    # a page of somebody else's in the same browser must not drive this one
    origin = request.headers.get("Origin")
    host = request.headers.get("Host", "")
    if request.method == "POST" and origin is not None and origin != f"http://{host}":
        return _json({"message": "requests of other origins are not taken"}, 403)
    if host.partition(":")[0] not in {"127.0.0.1", "localhost"}:
        return _json({"message": "unknown host"}, 403)
    response: web.StreamResponse = await handler(request)
    return response


async def _seconds(request: web.Request) -> float:
    text = await request.text()
    body = json.loads(text) if text else {}
    seconds = float(body.get("seconds", SPOT_NOTICE_SECONDS))
    if not 0 <= seconds <= 3_600:  # noqa: PLR2004  an hour
        msg = f"seconds must be from 0 to 3600, got {seconds:g}"
        raise ValueError(msg)
    return seconds


def _json(value: object, status: int = 200) -> web.Response:
    return web.json_response(value, status=status, dumps=lambda data: json.dumps(data, default=str))
