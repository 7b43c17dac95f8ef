"""The stand-in for GitHub: one asyncio server that answers a runner fleet as GitHub does.

It serves the REST API at ``/`` (as api.github.com) and at ``/api/v3`` (as a GitHub Enterprise
Server), release downloads, the runner's own endpoints at ``/_runner`` and a control API at
``/_control``. It listens on the loopback interface and keeps everything in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from runsfleet_cli.local.github.auth import Authenticator
from runsfleet_cli.local.github.broker import Broker, Timing
from runsfleet_cli.local.github.lifecycle import Lifecycle
from runsfleet_cli.local.github.playback import play
from runsfleet_cli.local.github.registry import Registry
from runsfleet_cli.local.github.releases import Releases
from runsfleet_cli.local.github.render import Renderer
from runsfleet_cli.local.github.routes_actions import ActionRoutes
from runsfleet_cli.local.github.routes_apps import AppRoutes
from runsfleet_cli.local.github.routes_control import ControlRoutes
from runsfleet_cli.local.github.routes_protocol import PREFIX as RUNNER_PREFIX
from runsfleet_cli.local.github.routes_protocol import ProtocolRoutes
from runsfleet_cli.local.github.routes_runners import RunnerRoutes
from runsfleet_cli.local.github.runner_package import build_packages
from runsfleet_cli.local.github.services import Services
from runsfleet_cli.local.github.traffic import (
    API_PREFIX,
    Fault,
    RateLimits,
    RecordedRequest,
    Traffic,
)
from runsfleet_cli.local.github.webhooks import (
    CONCURRENCY,
    TIMEOUT_SECONDS,
    Delivery,
    Webhooks,
)
from runsfleet_cli.local.github.world import (
    App,
    Clock,
    Installation,
    Job,
    Repository,
    Run,
    World,
)
from runsfleet_cli.local.jobs.payload import RecordedPayload
from runsfleet_cli.local.jobs.plan import WorkflowPlan

DEFAULT_ORGANIZATION: Final = "octo-org"
DEFAULT_REPOSITORY: Final = "octo-org/hello"
DEFAULT_USER_REPOSITORY: Final = "octocat/hello"
SWEEP_SECONDS: Final = 0.2
MAX_BODY_BYTES: Final = 32 * 1024 * 1024
Event = dict[str, Any]


def generate_key() -> tuple[str, str]:
    """Make an App's key pair: private (PKCS#1 PEM, as GitHub hands it out) and public."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private.decode(), public.decode()


class GitHubStandIn:
    """A GitHub of one's own; use it as an async context manager, or `start` and `stop` it.

    The world begins with the organization ``octo-org`` and its repository ``octo-org/hello``, the
    user-owned ``octocat/hello``, and one App that is installed on both (`app`, `private_key`).

    Args:
        host: The address to bind; loopback.
        port: The port; 0 takes a free one.
        public_host: The host that addresses in answers name; ``host`` by default.
        ssl_context: Serves TLS when given.
        webhook_ssl: Verifies the webhook receiver's certificate; the system's trust by default.
        webhook_timeout: Seconds that the receiver has; GitHub's 10 by default.
        webhook_concurrency: Deliveries at the same time; a receiver whose processes share this
            machine's few cores cannot start dozens of them at once, as the real one can.
        timing: The service's time limits.
        limits: Rate limits; none by default, ``RateLimits.real()`` for GitHub's.
        clock: Seconds since the epoch.
        chance: Random numbers between 0 and 1, for faults with a probability.

    Example:
        async with GitHubStandIn() as github:
            github.set_webhook("http://127.0.0.1:9000/webhook", "secret")
            run = github.queue_workflow(read_workflow_file(Path("hello.yml")))
            await github.wait_for(run.id, timeout=60)
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        public_host: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        webhook_ssl: ssl.SSLContext | None = None,
        webhook_timeout: float = TIMEOUT_SECONDS,
        webhook_concurrency: int = CONCURRENCY,
        timing: Timing | None = None,
        limits: RateLimits | None = None,
        clock: Clock = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._host = host
        self._port = port
        self._public_host = public_host or host
        self._ssl = ssl_context
        self._webhook_ssl = webhook_ssl
        self._webhook_timeout = webhook_timeout
        self._webhook_concurrency = webhook_concurrency
        self._timing = timing or Timing()
        self._limits = limits or RateLimits()
        self._chance = chance
        self._clock = clock
        self._runner: web.AppRunner | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._subscribers: list[Callable[[Event], None]] = []
        self.events: list[Event] = []
        self.world = World(clock)
        self.private_key, public_key = generate_key()
        self.app = self.create_app("runsfleet-local", public_key)
        for full_name, kind in (
            (DEFAULT_REPOSITORY, "Organization"),
            (DEFAULT_USER_REPOSITORY, "User"),
        ):
            repository = self.world.add_repository(full_name, owner_type=kind)
            self.install(self.app, repository.owner.login)

    @property
    def url(self) -> str:
        """Answer the root address, which is also the REST root as of api.github.com."""
        scheme = "http" if self._ssl is None else "https"
        return f"{scheme}://{self._public_host}:{self._port}"

    @property
    def api_url(self) -> str:
        """Answer the REST root as of a GitHub Enterprise Server."""
        return f"{self.url}{API_PREFIX}"

    @property
    def control_url(self) -> str:
        """Answer the root of the control API."""
        return f"{self.url}/_control"

    async def start(self) -> None:
        """Build the runner packages and begin to listen."""
        self.traffic = Traffic(self.world, self._limits, surface_of, self._chance)
        self.webhooks = Webhooks(
            self.world,
            note=self._note,
            ssl_context=self._webhook_ssl,
            timeout=self._webhook_timeout,
            concurrency=self._webhook_concurrency,
            strike=self.traffic.strike,
        )
        self.lifecycle = Lifecycle(self.world, announce=self._announce, server_url=lambda: self.url)
        self.broker = Broker(self.world, self.lifecycle, self._timing, self._note)
        self.releases = Releases(build_packages(), clock=self._clock, origin=lambda: self.url)
        registry = Registry(
            self.world,
            runner_url=lambda: f"{self.url}{RUNNER_PREFIX}",
            web_url=lambda: self.url,
        )
        application = web.Application(
            middlewares=[self.traffic.middleware], client_max_size=MAX_BODY_BYTES
        )
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        # the port must be known before the renderer can write addresses
        application.add_routes([web.get("/_control/health", _health)])
        services = Services(
            world=self.world,
            auth=Authenticator(self.world),
            renderer=Renderer(self.world, api_url="", web_url=""),
            lifecycle=self.lifecycle,
            broker=self.broker,
            registry=registry,
            webhooks=self.webhooks,
            releases=self.releases,
        )
        self.services = services
        self._add_routes(application, services)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port, ssl_context=self._ssl)
        await site.start()
        self._port = int(self._runner.addresses[0][1])
        services.renderer = Renderer(self.world, api_url=self.url, web_url=self.url)
        await self.webhooks.start()
        self._sweeper = asyncio.ensure_future(self._sweep())

    def _add_routes(self, application: web.Application, services: Services) -> None:
        apps, runners = AppRoutes(services), RunnerRoutes(services)
        actions = ActionRoutes(services)
        for prefix in ("", API_PREFIX):
            # before the repositories' own routes, which would match actions/runner too
            application.add_routes(self.releases.api_routes(prefix))
            application.add_routes(apps.routes(prefix))
            application.add_routes(runners.routes(prefix))
            application.add_routes(actions.routes(prefix))
        application.add_routes(ProtocolRoutes(services).routes())
        application.add_routes(self.releases.download_routes())
        application.add_routes(ControlRoutes(self).routes())

    async def stop(self) -> None:
        """Stop listening; what is under way is given up."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
        if self._runner is not None:
            for runner in list(self.world.runners.values()):
                self.broker.disconnect(runner)
            await self.webhooks.stop()
            await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        await self.stop()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self.broker.sweep()

    def subscribe(self, callback: Callable[[Event], None]) -> None:
        """Have a callback told of every event: jobs, runners and deliveries, as they happen."""
        self._subscribers.append(callback)

    def _note(self, kind: str, detail: dict[str, object]) -> None:
        event: Event = {"time": self._clock(), "kind": kind, **detail}
        self.events.append(event)
        for callback in self._subscribers:
            callback(event)
        self._changed.set()

    def _announce(self, action: str, job: Job) -> None:
        runner = job.runner
        self._note(
            "workflow_job",
            {
                "action": action,
                "job_id": job.id,
                "run_id": job.run_id,
                "name": job.planned.name,
                "repository": job.repository.full_name,
                "conclusion": job.conclusion,
                "runner": None if runner is None else runner.name,
            },
        )
        actor = self.world.runs[job.run_id].actor
        for installation in self.world.installations_for(job.repository):
            app = self.world.apps[installation.app_id]
            if "workflow_job" in app.events and installation.suspended_at is None:
                body = self.services.renderer.workflow_job_event(action, job, installation, actor)
                self.webhooks.send(app, "workflow_job", body)
        if action == "queued":
            self.broker.assign()

    def create_app(
        self, slug: str, public_key: str, *, app_id: int | None = None, owner: str = "octocat"
    ) -> App:
        """Make a GitHub App.

        Args:
            slug: Its name in addresses.
            public_key: PEM of the key that verifies its JWTs.
            app_id: A given id.
            owner: The user that owns it.

        Raises:
            ValueError: When the text is no public key.
            TypeError: When it is not RSA.
        """
        key = serialization.load_pem_public_key(public_key.encode())
        if not isinstance(key, rsa.RSAPublicKey):
            raise TypeError("public_key must be an RSA key in PEM form")
        number = next(self.world.ids.app) if app_id is None else app_id
        app = App(
            id=number,
            slug=slug,
            client_id=f"Iv23li{number:014d}",
            owner=self.world.add_account(owner, kind="User"),
            public_key=key,
            created_at=self._clock(),
        )
        self.world.apps[app.id] = app
        return app

    def install(self, app: App, login: str, **options: Any) -> Installation:
        """Install an App on an organization or user."""
        installation = Installation(
            id=next(self.world.ids.installation),
            app_id=app.id,
            account=self.world.accounts[login.lower()],
            created_at=self._clock(),
            **options,
        )
        self.world.installations[installation.id] = installation
        return installation

    def installation_of(self, full_name: str = DEFAULT_REPOSITORY) -> Installation:
        """Answer the default App's installation that covers a repository."""
        repository = self.repository(full_name)
        return next(
            entry
            for entry in self.world.installations_for(repository)
            if entry.app_id == self.app.id
        )

    def set_webhook(self, url: str | None, secret: str | None, *, app: App | None = None) -> None:
        """Set where an App's webhooks go and what signs them."""
        chosen = app or self.app
        chosen.webhook_url, chosen.webhook_secret = url, secret

    def repository(self, full_name: str = DEFAULT_REPOSITORY) -> Repository:
        """Answer a repository.

        Raises:
            ValueError: When there is none of this name.
        """
        found = self.world.repositories.get(full_name.lower())
        if found is None:
            known = ", ".join(sorted(entry.full_name for entry in self.world.repositories.values()))
            raise ValueError(f"unknown repository {full_name!r}; there are: {known}")
        return found

    def queue_workflow(
        self,
        plan: WorkflowPlan,
        *,
        repository: str = DEFAULT_REPOSITORY,
        labels: Sequence[str] | None = None,
        event: str = "push",
        actor: str = "octocat",
    ) -> Run:
        """Start a run of a workflow.

        Args:
            plan: The workflow, as `read_workflow_file` answers it.
            repository: Where it runs.
            labels: Labels in place of every job's ``runs-on``.
            event: The event's name.
            actor: Who pushed.

        Raises:
            ValueError: For an unknown repository or a workflow that cannot be expanded.
        """
        return self.lifecycle.start_run(
            self.repository(repository),
            plan,
            actor=self.world.add_account(actor, kind="User"),
            event=event,
            label_override=labels,
        )

    def play_payload(
        self,
        recorded: RecordedPayload,
        *,
        labels: Sequence[str] | None = None,
        repository: str | None = None,
        signature: str | None = "valid",
        verbatim: bool = False,
        fresh_ids: bool = False,
    ) -> tuple[Delivery | None, Job | None]:
        """Deliver a recorded ``workflow_job`` payload; a queued one becomes a job that can be run.

        Args:
            recorded: The payload.
            labels: Labels in its place.
            repository: Move it into this repository; the payload's own is made otherwise.
            signature: As for `Webhooks.send`.
            verbatim: Deliver it as it was recorded, installation and labels too.
            fresh_ids: Give job and run new ids, so that one payload can be played many times.

        Returns:
            The delivery, and the job when the payload was a queued one.
        """
        return play(
            self,
            recorded,
            labels=labels,
            repository=repository,
            signature=signature,
            verbatim=verbatim,
            fresh_ids=fresh_ids,
        )

    def job(self, job_id: int) -> Job:
        """Answer a job.

        Raises:
            KeyError: When there is none.
        """
        return self.world.jobs[job_id]

    def requests(self, *, surface: str | None = "api") -> list[RecordedRequest]:
        """Answer the requests so far: of the surface api, download or runner, or of all."""
        return [
            entry for entry in self.traffic.requests if surface is None or entry.surface == surface
        ]

    def add_fault(self, fault: Fault) -> Fault:
        """Switch a fault on; it gets an id."""
        return self.traffic.add_fault(fault)

    def clear_faults(self) -> None:
        """Switch every fault off."""
        self.traffic.faults.clear()

    def set_limits(self, limits: RateLimits) -> None:
        """Replace the rate limits."""
        self.traffic.limiter.limits = limits

    async def wait_for(self, *run_ids: int, timeout: float) -> bool:  # noqa: ASYNC109 - a wait's limit is its argument
        """Wait until runs are over (all of them when none is named); False after ``timeout`` s."""
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            self._changed.clear()
            runs = [self.world.runs[number] for number in run_ids] or list(self.world.runs.values())
            if all(run.done for run in runs):
                return True
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._changed.wait()


def surface_of(path: str) -> str:
    """Answer which part of the stand-in a path belongs to."""
    if path.startswith("/_control"):
        return "control"
    if path.startswith((RUNNER_PREFIX, "/_logs")):
        return "runner"
    if "/releases/download/" in path:
        return "download"
    return "api"


async def _health(_request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})
