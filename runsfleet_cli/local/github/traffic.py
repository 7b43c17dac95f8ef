"""What happens around each request: the record, injected faults, rate limits, GitHub's headers."""

from __future__ import annotations

import asyncio
import fnmatch
import logging
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Middleware

from runsfleet_cli.local.github.auth import CALLER, RATE_KEY
from runsfleet_cli.local.github.errors import ApiError
from runsfleet_cli.local.github.world import World

LOG = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
API_VERSIONS: Final = ("2022-11-28", "2026-03-10")
API_PREFIX: Final = "/api/v3"
WEBHOOK_ROUTES: Final = "webhook/"
SERVER_ERROR: Final = 500
SECONDARY_MESSAGE: Final = (
    "You have exceeded a secondary rate limit. Please wait a few minutes before you try again. "
    "If you reach out to GitHub Support for help, please include the request ID"
)


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Limits a caller meets; None switches one off. The numbers are GitHub's documented ones.

    Attributes:
        primary_per_hour: Requests of an installation (or App) an hour: 5,000.
        points_per_minute: Points per route and caller a minute: 900, a read costs 1, a write 5
            (so 180 JIT configurations).
        content_per_minute: Requests that create content: 80 a minute.
        registrations: Runner registrations per scope in five minutes: 1,500.
        concurrent: Requests at the same time: 100.
        minute: Seconds that count as a minute; smaller values scale every window down.
        secondary_status: 403 or 429, both of which GitHub uses.
    """

    primary_per_hour: int | None = None
    points_per_minute: int | None = None
    content_per_minute: int | None = None
    registrations: int | None = None
    concurrent: int | None = None
    minute: float = 60.0
    secondary_status: int = 403

    @classmethod
    def real(cls, *, minute: float = 60.0) -> RateLimits:
        """Answer GitHub's limits, with a minute of the given length in seconds."""
        return cls(5000, 900, 80, 1500, 100, minute)


@dataclass(slots=True)
class Fault:
    """A rule that spoils some answers.

    Webhooks have routes of their own, which only a pattern that begins with ``webhook/`` matches:
    ``webhook/event`` (with any rule that strikes, the event is never delivered nor listed) and
    ``webhook/delivery`` (with a status or a drop, the attempt is listed as failed or timed out).

    Attributes:
        route: Pattern of the route template, for example ``*/generate-jitconfig``.
        method: HTTP method, or ``*``.
        status: Answer with this status instead; None leaves the answer.
        message: The ``message`` of that answer.
        headers: Its headers, for example ``retry-after``.
        delay: Seconds to wait first.
        drop: Close the connection without an answer.
        after: With a status or a drop: do the work first, then spoil the answer.
        count: How many requests it meets; None for all.
        probability: Which share of the requests it meets, 0 to 1.
        skip: How many matching requests pass first.
        download: For downloads: ``slow``, ``truncated`` or ``wrong-digest``.
        id: Set when it is added.
        hits: How often it struck.
    """

    route: str = "*"
    method: str = "*"
    status: int | None = None
    message: str = "Server Error"
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drop: bool = False
    after: bool = False
    count: int | None = None
    probability: float = 1.0
    skip: int = 0
    download: str | None = None
    id: int = 0
    hits: int = 0


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One request that reached the stand-in."""

    time: float
    duration: float
    method: str
    route: str
    path: str
    caller: str
    status: int
    surface: str
    user_agent: str
    fault: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Answer it as JSON."""
        return asdict(self)


class Limiter:
    """Counts requests in sliding windows and says no when one is full."""

    def __init__(self, world: World, limits: RateLimits) -> None:
        self._world = world
        self.limits = limits
        self._windows: dict[str, deque[tuple[float, int]]] = {}
        self._primary: dict[str, tuple[float, int]] = {}
        self.running: dict[str, int] = {}

    def _spend(self, key: str, cost: int, limit: int | None, seconds: float) -> float | None:
        """Spend points; answer the seconds to wait when there are not enough."""
        if limit is None:
            return None
        now = self._world.clock()
        window = self._windows.setdefault(key, deque())
        while window and window[0][0] <= now - seconds:
            window.popleft()
        if sum(points for _, points in window) + cost > limit:
            return window[0][0] + seconds - now if window else seconds
        window.append((now, cost))
        return None

    def check(self, caller: str, method: str, route: str, scope: str) -> None:
        """Count a request.

        Raises:
            ApiError: 403 or 429 when a limit is reached, with ``retry-after``.
        """
        limits = self.limits
        reset, used = self._hour(caller)
        if limits.primary_per_hour is not None and used >= limits.primary_per_hour:
            raise ApiError(
                403,
                f"API rate limit exceeded for {caller.replace(':', ' ID ')}. If you reach out to "
                "GitHub Support for help, please include the request ID",
            )
        self._primary[caller] = (reset, used + 1)
        reads = method in {"GET", "HEAD", "OPTIONS"}
        waits = [
            self._spend(
                f"points|{caller}|{route}",
                1 if reads else 5,
                limits.points_per_minute,
                limits.minute,
            )
        ]
        if route.endswith("generate-jitconfig"):
            waits.append(self.registered(scope))
        if not reads and route.endswith(("/rerun", "/rerun-failed-jobs")):
            waits.append(
                self._spend(f"content|{caller}", 1, limits.content_per_minute, limits.minute)
            )
        if limits.concurrent is not None and self.running.get(caller, 0) > limits.concurrent:
            waits.append(limits.minute)
        wait = max((entry for entry in waits if entry is not None), default=None)
        if wait is not None:
            seconds = max(1, round(wait)) if limits.minute >= 1 else max(0.01, wait)
            raise ApiError(
                limits.secondary_status, SECONDARY_MESSAGE, headers={"retry-after": str(seconds)}
            )

    def registered(self, scope: str) -> float | None:
        """Count a registration; answer the seconds to wait when the scope has had too many."""
        limits = self.limits
        return self._spend(f"register|{scope}", 1, limits.registrations, 5 * limits.minute)

    def _hour(self, caller: str) -> tuple[float, int]:
        now = self._world.clock()
        reset, used = self._primary.get(caller, (0.0, 0))
        if reset <= now:
            return now + 60 * self.limits.minute, 0
        return reset, used

    def headers(self, caller: str) -> dict[str, str]:
        """Answer the ``x-ratelimit-*`` headers of a caller."""
        limit = self.limits.primary_per_hour or 5000
        reset, used = self._hour(caller)
        return {
            "x-ratelimit-limit": str(limit),
            "x-ratelimit-remaining": str(max(0, limit - used)),
            "x-ratelimit-reset": str(int(reset)),
            "x-ratelimit-used": str(used),
            "x-ratelimit-resource": "core",
        }


class RateCheck:
    """Counts one request once its caller is known; a request without one is not counted.

    Args:
        limiter: Counts.
        method: The request's method.
        route: Its route template.
        scope: The organization or repository that it names.
    """

    def __init__(self, limiter: Limiter, method: str, route: str, scope: str) -> None:
        self._limiter = limiter
        self._method = method
        self._route = route
        self._scope = scope
        self._caller: str | None = None

    def count(self, caller: str) -> None:
        """Count the request for a caller.

        Raises:
            ApiError: 403 or 429 when a limit is reached.
        """
        self._caller = caller
        self._limiter.running[caller] = self._limiter.running.get(caller, 0) + 1
        self._limiter.check(caller, self._method, self._route, self._scope)

    def done(self) -> None:
        """Note that the request was answered."""
        if self._caller is not None:
            self._limiter.running[self._caller] -= 1


RATE_CHECK: Final[web.RequestKey[RateCheck]] = web.RequestKey("rate_check", RateCheck)
"""Set by the middleware; who authenticates the caller counts the request."""


FAULT: Final[web.RequestKey[Fault]] = web.RequestKey("fault", Fault)
"""The fault that strikes a request, for handlers that spoil their own answer."""


class Traffic:
    """The middleware, and what it remembers.

    Args:
        world: For the clock.
        limits: The rate limits to apply.
        surface_of: Says which surface a path belongs to: api, download, runner or control.
        chance: Random numbers between 0 and 1, for the faults' probability.
    """

    def __init__(
        self,
        world: World,
        limits: RateLimits,
        surface_of: Callable[[str], str],
        chance: Callable[[], float],
    ) -> None:
        self._world = world
        self._surface_of = surface_of
        self._chance = chance
        self.limiter = Limiter(world, limits)
        self.requests: list[RecordedRequest] = []
        self.faults: dict[int, Fault] = {}
        self._next_fault = 1

    def add_fault(self, fault: Fault) -> Fault:
        """Switch a fault on."""
        fault.id = self._next_fault
        self._next_fault += 1
        self.faults[fault.id] = fault
        return fault

    def strike(self, method: str, route: str) -> Fault | None:
        """Answer the fault that strikes a request now, if one does."""
        for fault in self.faults.values():
            if route.startswith(WEBHOOK_ROUTES) and not fault.route.startswith(WEBHOOK_ROUTES):
                continue
            if fault.method not in {"*", method} or not fnmatch.fnmatchcase(route, fault.route):
                continue
            if fault.count is not None and fault.hits >= fault.count:
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            # the generator is only asked where chance plays a part
            if fault.probability < 1.0 and self._chance() >= fault.probability:
                continue
            fault.hits += 1
            return fault
        return None

    @property
    def middleware(self) -> Middleware:
        """Answer the middleware of the application."""

        @web.middleware
        async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._around(request, handler)

        return around

    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        surface = self._surface_of(request.path)
        if surface == "control":
            return await _answered(request, handler)
        resource = request.match_info.route.resource
        route = request.path if resource is None else resource.canonical
        route = route.removeprefix(API_PREFIX) or "/"
        began = self._world.clock()
        fault = self.strike(request.method, route)
        status = 0
        try:
            response = await self._spoilt(request, handler, fault, route, surface)
            status = response.status
            return response
        finally:
            self.requests.append(
                RecordedRequest(
                    time=began,
                    duration=round(self._world.clock() - began, 4),
                    method=request.method,
                    route=route,
                    path=request.path_qs,
                    caller=request.get(CALLER, "anonymous"),
                    status=status,
                    surface=surface,
                    user_agent=request.headers.get("User-Agent", ""),
                    fault=None if fault is None else fault.id,
                )
            )

    async def _spoilt(
        self,
        request: web.Request,
        handler: Handler,
        fault: Fault | None,
        route: str,
        surface: str,
    ) -> web.StreamResponse:
        if fault is not None and fault.delay:
            await asyncio.sleep(fault.delay)
        spoils = fault is not None and (fault.drop or fault.status is not None)
        response: web.StreamResponse | None = None
        if not spoils or (fault is not None and fault.after):
            if fault is not None:
                request[FAULT] = fault
            response = await self._served(request, handler, route, surface)
        if fault is not None and spoils:
            if fault.drop:
                if request.transport is not None:
                    request.transport.abort()
                raise ConnectionResetError("dropped by a fault rule")
            error = ApiError(fault.status or SERVER_ERROR, fault.message, headers=fault.headers)
            return self._finished(request, _error_response(error), surface)
        if response is None:
            raise RuntimeError("a request was neither served nor spoilt")
        return response

    async def _served(
        self, request: web.Request, handler: Handler, route: str, surface: str
    ) -> web.StreamResponse:
        if surface != "api":
            return await _answered(request, handler)
        scope = "/".join(request.path.removeprefix(API_PREFIX).strip("/").lower().split("/")[:3])
        check = RateCheck(self.limiter, request.method, route, scope)
        request[RATE_CHECK] = check
        try:
            refusal = _refuse_early(request)
            if refusal is not None:
                return self._finished(request, _error_response(refusal), surface)
            return self._finished(request, await _answered(request, handler), surface)
        finally:
            check.done()

    def _finished(
        self, request: web.Request, response: web.StreamResponse, surface: str
    ) -> web.StreamResponse:
        if surface != "api" or response.prepared:
            return response
        response.headers["X-GitHub-Request-Id"] = secrets.token_hex(10).upper()
        response.headers["Server"] = "github.com"
        response.headers["X-GitHub-Media-Type"] = "github.v3; format=json"
        response.headers["X-GitHub-Api-Version-Selected"] = request.headers.get(
            "X-GitHub-Api-Version", API_VERSIONS[0]
        )
        for name, value in self.limiter.headers(request.get(RATE_KEY, "anonymous")).items():
            response.headers.setdefault(name, value)
        return response


def _refuse_early(request: web.Request) -> ApiError | None:
    if not request.headers.get("User-Agent"):
        return ApiError(
            403,
            "Request forbidden by administrative rules. Please make sure your request has a "
            "User-Agent header (https://docs.github.com/en/rest/overview/resources-in-the-rest-api"
            "#user-agent-required).",
        )
    version = request.headers.get("X-GitHub-Api-Version")
    if version is not None and version not in API_VERSIONS:
        return ApiError(400, f"The API version {version!r} is not supported.")
    return None


def _error_response(error: ApiError) -> web.Response:
    return web.json_response(error.body(), status=error.status, headers=error.headers)


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ApiError as error:
        return _error_response(error)
    except web.HTTPException as error:
        if error.status < 400:  # noqa: PLR2004 - a redirect is no error
            raise
        text = "Not Found" if error.status == 404 else error.reason  # noqa: PLR2004
        return _error_response(ApiError(error.status, text))
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception:
        # a bug of the stand-in must look like the 500 it is, and be told
        LOG.exception("the GitHub stand-in failed at %s %s", request.method, request.path)
        return _error_response(ApiError(SERVER_ERROR, "Server Error"))
