"""The local cloud as one thing: AWS, GitHub, instances, the deployed fleet, and what happens in it.

Lifecycle: GitHub stand-in listens -> AWS starts -> the app is synthesized (or taken as kept) and
deployed by the CDK CLI -> the two secrets that the deployed functions name are written -> the
GitHub App gets the deployed webhook's address -> hypervisor and page -> ready. `stop` undoes it.

The fleet learns of none of this but by what it would learn of a real AWS and GitHub: the stack's
properties, its own environment and the addresses in it.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runsfleet_cli.local.aws import LocalAws, LocalAwsSettings
from runsfleet_cli.local.deploy import AwsTarget, Deployment, find_cdk
from runsfleet_cli.local.emulator import ENDPOINT_VARIABLE
from runsfleet_cli.local.fleet_secrets import write_secrets
from runsfleet_cli.local.github import GitHubStandIn
from runsfleet_cli.local.hypervisor import Ec2, Hypervisor, HypervisorSettings
from runsfleet_cli.local.hypervisor.hypervisor import BOOT_SECONDS
from runsfleet_cli.local.observe import Observer
from runsfleet_cli.local.page.server import PageServer
from runsfleet_cli.local.snapshot import Snapshots
from runsfleet_cli.local.state import Endpoints
from runsfleet_cli.local.synth import SynthRequest, find_app, synthesize
from runsfleet_cli.local.timeline import Timeline

ACCOUNT = "123456789012"
"""The account of documentation, unless the environment names its own."""

GITHUB_PORTS = range(47_110, 47_118)
PAGE_PORTS = range(47_120, 47_128)
"""Tried in turn, so that an address, and with it the kept synthesis, is mostly the same."""

DEFAULT_REGION = "us-east-1"

Progress = Callable[[str, str], None]
"""Told what begins: a short name of the part, and a line about it."""


class CloudError(Exception):
    """The local cloud cannot start; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class CloudSettings:
    """What kind of local cloud.

    Args:
        directory: Files of the run; removed at the end.
        project: The folder whose app is deployed.
        cache: Where assemblies are kept.
        environment: Which environment of the app.
        strict: IAM enforcement and TLS.
        boot_seconds: Between an instance's launch and its first script.
    """

    directory: Path
    project: Path
    cache: Path
    environment: str = "dev"
    strict: bool = False
    boot_seconds: float = BOOT_SECONDS


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stack goes.

    Args:
        account: Twelve digits.
        region: For example `us-east-1`.
    """

    account: str
    region: str


@dataclass(slots=True)
class _Clock:
    """How long each part of the start took."""

    seconds: dict[str, float] = field(default_factory=dict)
    _part: str = ""
    _since: float = 0.0

    def begin(self, part: str) -> None:
        now = time.monotonic()
        if self._part:
            self.seconds[self._part] = round(now - self._since, 3)
        self._part, self._since = part, now


class LocalCloud:
    """See the module.

    Example:
        >>> cloud = LocalCloud(settings)
        >>> endpoints = await cloud.start(progress=print)
        >>> await cloud.stop()
    """

    def __init__(self, settings: CloudSettings) -> None:
        self.settings = settings
        self.timeline = Timeline()
        self.target = Place(ACCOUNT, DEFAULT_REGION)
        self.aws = self._make_aws()
        self.github = self._make_github(free_port_of(GITHUB_PORTS))
        self.hypervisor: Hypervisor | None = None
        self.page: PageServer | None = None
        self.endpoints: Endpoints | None = None
        self._observer: Observer | None = None

    async def start(self, progress: Progress = lambda _part, _line: None) -> Endpoints:
        """Start everything.

        Returns:
            How to reach it.

        Raises:
            FleetSecretsError: A deployed function names no secret.
            CloudError: The stack has no webhook.
            DeployError: The CDK CLI is missing or failed.
            EmulatorError: The emulator is not to be had.
            SynthError: The app does not synthesize.
        """
        try:
            return await self._start(progress)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End everything; leaves no process."""
        if self._observer is not None:
            await self._observer.stop()
        if self.page is not None:
            await self.page.stop()
        if self.hypervisor is not None:
            await self.hypervisor.stop()
        await self.github.stop()
        await self.aws.stop()

    async def _start(self, progress: Progress) -> Endpoints:
        clock = _Clock()
        cdk = find_cdk(self.settings.project)

        clock.begin("emulator")
        progress("emulator", "starting AWS and GitHub on this machine")
        await self.start_github()
        await self.aws.start(lambda line: progress("emulator", line))

        clock.begin("synth")
        progress("synth", f"environment {self.settings.environment}")
        assembly = await self._synthesize(cdk, progress)
        place = place_of(assembly)
        if place is not None and place != self.target:
            progress("emulator", f"the app is for {place.account} in {place.region}")
            await self._move(place, progress)
        clock.begin("deploy")
        progress("deploy", "bootstrapping and deploying with the CDK CLI")
        deployment = await self.aws.deploy(
            assembly, cdk=cdk, progress=lambda line: progress("cdk", line)
        )
        clock.begin("connect")
        progress("connect", "writing secrets, connecting GitHub")
        webhook_secret = await asyncio.to_thread(write_secrets, self.aws, self.github)
        try:
            webhook = deployment.output("WebhookUrl")
        except KeyError as error:
            msg = f"the app has no output WebhookUrl: {error}; give it RunnerFleet.webhook_url"
            raise CloudError(msg) from error
        self.github.set_webhook(webhook, webhook_secret)
        self._start_hypervisor()
        snapshots = self._make_snapshots(deployment)
        self.page = PageServer(
            timeline=self.timeline,
            hypervisor=self._hypervisor,
            snapshots=snapshots,
            ports=PAGE_PORTS,
        )
        await self.page.start()
        self._observer = Observer(self.timeline, self.github)
        self._observer.start()
        self.aws.interceptor.log.subscribe(self.timeline.on_call)
        self._hypervisor.subscribe(self.timeline.on_instance)
        clock.begin("")
        self.endpoints = self._describe(deployment, webhook, webhook_secret, clock.seconds)
        snapshots.endpoints = self.endpoints
        return self.endpoints

    def _make_aws(self) -> LocalAws:
        settings = self.settings
        return LocalAws(
            LocalAwsSettings(
                directory=settings.directory / "aws",
                account=self.target.account,
                region=self.target.region,
                strict=settings.strict,
                endpoint=os.environ.get(ENDPOINT_VARIABLE) or None,
                project=settings.project,
            )
        )

    def _make_github(self, port: int) -> GitHubStandIn:
        tls = self.aws.tls
        return GitHubStandIn(
            port=port,
            ssl_context=tls.server_context() if tls else None,
            webhook_ssl=tls.client_context() if tls else None,
            webhook_concurrency=2 * (os.cpu_count() or 1),
        )

    async def start_github(self) -> None:
        """Have GitHub's stand-in listen, on another port if this one was taken since it was chosen.

        Two local clouds that start at the same moment choose the same one.
        """
        for _ in GITHUB_PORTS:
            try:
                return await self.github.start()
            except OSError:
                await self.github.stop()
                self.github = self._make_github(free_port_of(GITHUB_PORTS))
        return await self.github.start()

    async def _move(self, place: Place, progress: Progress) -> None:
        """Be the account and region that the app names; known only once it was synthesized."""
        port = int(self.github.url.rpartition(":")[2])
        await self.github.stop()
        await self.aws.stop()
        self.target = place
        self.aws = self._make_aws()
        self.github = self._make_github(port)
        await self.github.start()
        await self.aws.start(lambda line: progress("emulator", line))

    async def _synthesize(self, cdk: Path, progress: Progress) -> Path:
        return await synthesize(
            SynthRequest(
                source=find_app(self.settings.project),
                cdk=cdk,
                context=self._context(),
                environment=self.aws.target.environment(),
                cache=self.settings.cache,
                key_material={"account": ACCOUNT, "region": DEFAULT_REGION},
            ),
            lambda line: progress("synth", line),
        )

    @property
    def _hypervisor(self) -> Hypervisor:
        if self.hypervisor is None:
            msg = "the hypervisor starts after the deployment"
            raise CloudError(msg)
        return self.hypervisor

    def _context(self) -> dict[str, str]:
        context = {
            "environments": self.settings.environment,
            "runsfleet:function_architecture": "host",
            "runsfleet:github_url": self.github.url,
        }
        if os.geteuid() == 0:
            # an instance here shares this machine's users, of which it must make none
            context["runsfleet:runner_user"] = "root"
        return context

    def _start_hypervisor(self) -> None:
        environment = {"AWS_ENDPOINT_URL": self.aws.interceptor.url}
        if self.aws.tls:
            environment |= self.aws.tls.client_environment()
        self.hypervisor = Hypervisor(
            HypervisorSettings(
                directory=self.settings.directory / "instances",
                account=self.target.account,
                environment=environment,
                boot_seconds=self.settings.boot_seconds,
            ),
            Ec2(self.aws.interceptor),
            self.aws.gaps.instances,
        )
        self.aws.gaps.instances.subscribe(self.hypervisor.on_change)

    def _make_snapshots(self, deployment: Deployment) -> Snapshots:
        # past the interceptor: what the page asks is nobody's call
        backend = self.aws.backend
        target = self.aws.target
        if backend is not None:
            target = AwsTarget(backend.url, self.target.account, self.target.region, self.aws.tls)
        return Snapshots(
            timeline=self.timeline,
            github=self.github,
            hypervisor=self._hypervisor,
            target=target,
            queues=_queues(deployment),
            log_groups=_log_groups(deployment),
            dashboards=[
                resource.physical_id for resource in deployment.find("AWS::CloudWatch::Dashboard")
            ],
        )

    def _describe(
        self,
        deployment: Deployment,
        webhook: str,
        webhook_secret: str,
        seconds: Mapping[str, float],
    ) -> Endpoints:
        target = self.aws.target
        outputs = {
            name: value for values in deployment.outputs.values() for name, value in values.items()
        }
        return Endpoints(
            pid=os.getpid(),
            aws=target.endpoint,
            access_key=target.access_key,
            secret_key=target.secret_key,
            account=self.target.account,
            region=self.target.region,
            webhook=webhook,
            webhook_secret=webhook_secret,
            github=self.github.url,
            github_control=self.github.control_url,
            page=self.page.url if self.page is not None else "",
            environment=self.settings.environment,
            fleet=outputs.get("FleetName", self.settings.environment),
            strict=self.settings.strict,
            ca_bundle=str(self.aws.tls.bundle) if self.aws.tls else None,
            tables=_tables(deployment),
            queues=_queues(deployment),
            outputs=outputs,
            directory=str(self.settings.directory),
            started_at=time.time(),
            notes=self.aws.adapted.notes if self.aws.adapted else (),
            seconds=dict(seconds),
        )


def free_port_of(ports: range) -> int:
    """The first port of a range that nothing listens on; 0 (any) if all are taken."""
    for port in ports:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    return 0


def place_of(assembly: Path) -> Place | None:
    """The account and region of an assembly's first stack; None where it leaves them open."""
    manifest = json.loads((assembly / "manifest.json").read_text(encoding="utf-8"))
    for artifact in manifest.get("artifacts", {}).values():
        if artifact["type"] == "cdk:cloud-assembly":
            found = place_of(assembly / artifact["properties"]["directoryName"])
            if found is not None:
                return found
        elif artifact["type"] == "aws:cloudformation:stack":
            account, _, region = artifact["environment"].removeprefix("aws://").partition("/")
            if account.isdigit() and not region.startswith("unknown"):
                return Place(account, region)
    return None


def _queues(deployment: Deployment) -> dict[str, str]:
    """URL of each queue by its role: the last name of its construct path, in snake case."""
    return {
        _role(resource.path): resource.physical_id
        for resource in deployment.find("AWS::SQS::Queue")
    }


def _tables(deployment: Deployment) -> dict[str, str]:
    found = deployment.find("AWS::DynamoDB::GlobalTable") + deployment.find("AWS::DynamoDB::Table")
    return {_role(resource.path): resource.physical_id for resource in found}


def _log_groups(deployment: Deployment) -> list[str]:
    return [resource.physical_id for resource in deployment.find("AWS::Logs::LogGroup")]


def _role(path: str) -> str:
    name = path.removesuffix("/Resource").rpartition("/")[2]
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
