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
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runsfleet_cli.local.aws import LocalAws, LocalAwsSettings
from runsfleet_cli.local.deploy import AwsTarget, Deployment, find_cdk
from runsfleet_cli.local.emulator import ENDPOINT_VARIABLE
from runsfleet_cli.local.github import GitHubStandIn
from runsfleet_cli.local.hypervisor import Ec2, Hypervisor, HypervisorSettings
from runsfleet_cli.local.hypervisor.hypervisor import BOOT_SECONDS
from runsfleet_cli.local.page.server import PageServer
from runsfleet_cli.local.snapshot import Snapshots
from runsfleet_cli.local.state import Endpoints
from runsfleet_cli.local.synth import SynthRequest, find_app, synthesize
from runsfleet_cli.local.timeline import Timeline
from runsfleet_runtime.contract.environment import variable_name

if TYPE_CHECKING:
    from runsfleet_cli.local.github.world import Job

ACCOUNT = "123456789012"
"""The account of documentation; nothing real can be meant by it."""

GITHUB_PORTS = range(47_110, 47_118)
PAGE_PORTS = range(47_120, 47_128)
"""Tried in turn, so that an address, and with it the kept synthesis, is mostly the same."""

DEFAULT_REGION = "us-east-1"
_STEP_SECONDS = 0.1

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
        self.region = DEFAULT_REGION
        self.timeline = Timeline()
        self.aws = LocalAws(
            LocalAwsSettings(
                directory=settings.directory / "aws",
                account=ACCOUNT,
                region=self.region,
                strict=settings.strict,
                endpoint=os.environ.get(ENDPOINT_VARIABLE) or None,
                project=settings.project,
            )
        )
        tls = self.aws.tls
        self.github = GitHubStandIn(
            port=free_port_of(GITHUB_PORTS),
            ssl_context=tls.server_context() if tls else None,
            webhook_ssl=tls.client_context() if tls else None,
            webhook_concurrency=2 * (os.cpu_count() or 1),
        )
        self.hypervisor: Hypervisor | None = None
        self.page: PageServer | None = None
        self.endpoints: Endpoints | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def start(self, progress: Progress = lambda _part, _line: None) -> Endpoints:
        """Start everything.

        Returns:
            How to reach it.

        Raises:
            CloudError: A deployed function names no secret, or the stack has no webhook.
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
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        if self.page is not None:
            await self.page.stop()
        if self.hypervisor is not None:
            await self.hypervisor.stop()
        await self.github.stop()
        await self.aws.stop()

    async def _start(self, progress: Progress) -> Endpoints:
        clock = _Clock()
        cdk = find_cdk(self.settings.project)
        _check_node()
        source = find_app(self.settings.project)

        clock.begin("emulator")
        progress("emulator", "starting AWS and GitHub on this machine")
        await self.github.start()
        await self.aws.start(lambda line: progress("emulator", line))

        clock.begin("synth")
        progress("synth", f"environment {self.settings.environment}")
        assembly = await synthesize(
            SynthRequest(
                source=source,
                cdk=cdk,
                context=self._context(),
                environment=self.aws.target.environment(),
                cache=self.settings.cache,
                key_material={"account": ACCOUNT, "region": self.region},
            ),
            lambda line: progress("synth", line),
        )
        clock.begin("deploy")
        progress("deploy", "bootstrapping and deploying with the CDK CLI")
        deployment = await self.aws.deploy(
            assembly, cdk=cdk, progress=lambda line: progress("cdk", line)
        )
        clock.begin("connect")
        progress("connect", "writing secrets, connecting GitHub")
        webhook_secret = await asyncio.to_thread(self._write_secrets)
        webhook = deployment.output("WebhookUrl")
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
        self._connect_timeline()
        clock.begin("")
        self.endpoints = self._describe(deployment, webhook, webhook_secret, clock.seconds)
        snapshots.endpoints = self.endpoints
        return self.endpoints

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
                account=ACCOUNT,
                environment=environment,
                boot_seconds=self.settings.boot_seconds,
            ),
            Ec2(self.aws.interceptor),
            self.aws.gaps.instances,
        )
        self.aws.gaps.instances.subscribe(self.hypervisor.on_change)

    def _connect_timeline(self) -> None:
        self.github.subscribe(self._on_github)
        self.aws.interceptor.log.subscribe(self.timeline.on_call)
        self._hypervisor.subscribe(self.timeline.on_instance)
        self._watcher = asyncio.ensure_future(self._watch_steps())

    def _on_github(self, event: Mapping[str, Any]) -> None:
        if event["kind"] == "workflow_job":
            job = self.github.world.jobs.get(int(event["job_id"]))
            if job is not None:
                self.timeline.on_job_known(
                    job.id,
                    run_id=job.run_id,
                    name=job.planned.name,
                    repository=job.repository.full_name,
                    labels=tuple(job.labels),
                )
                # its last steps come with its end, and belong before it
                self._tell_steps(job)
        if event["kind"] == "delivery":
            self._on_delivery(event)
        self.timeline.on_github(event)

    def _on_delivery(self, event: Mapping[str, Any]) -> None:
        if event["event"] != "workflow_job":
            return
        delivery = self.github.webhooks.log[int(event["id"])]
        try:
            job = json.loads(delivery.body).get("workflow_job") or {}
        except ValueError:
            job = {}
        job_id = job.get("id") if isinstance(job, dict) else None
        if isinstance(job_id, int) and job_id in self.github.world.jobs:
            known = self.github.world.jobs[job_id]
            self.timeline.on_job_known(
                job_id,
                run_id=known.run_id,
                name=known.planned.name,
                repository=known.repository.full_name,
                labels=tuple(known.labels),
            )
        self.timeline.on_delivery(
            time=event["time"],
            job_id=job_id if isinstance(job_id, int) else None,
            action=str(event["action"]),
            status=int(event["status_code"]),
            seconds=float(event["duration"]),
            answer=_answer_text(delivery.response_body),
        )

    async def _watch_steps(self) -> None:
        """Steps come with the runner's log, which announces nothing."""
        finished: set[int] = set()
        while True:
            await asyncio.sleep(_STEP_SECONDS)
            for job in list(self.github.world.jobs.values()):
                if job.id in finished:
                    continue
                self._tell_steps(job)
                if job.done:
                    finished.add(job.id)

    def _tell_steps(self, job: Job) -> None:
        for step in job.steps:
            moment = step.completed_at or time.time()
            self.timeline.on_step(moment, job.id, step.name, step.status, step.conclusion)

    def _write_secrets(self) -> str:
        """Write what the deployed functions name; returns the webhook's secret."""
        variables = self._function_variables()
        webhook_secret = secrets.token_hex(20)
        app = json.dumps(
            {"app_id": str(self.github.app.id), "private_key": self.github.private_key}
        )
        for field_name, value in (("webhook_secret", webhook_secret), ("github_app_secret", app)):
            name = variable_name(field_name)
            references = {entry[name] for entry in variables if name in entry}
            if not references:
                msg = (
                    f"no deployed function has {name}; deploy an app that uses RunnerFleet, or "
                    "start the local cloud in another folder"
                )
                raise CloudError(msg)
            for reference in references:
                self._write_secret(reference, value)
        return webhook_secret

    def _function_variables(self) -> list[Mapping[str, str]]:
        client = self.aws.client("lambda")
        found: list[Mapping[str, str]] = []
        for page in client.get_paginator("list_functions").paginate():
            found += [
                function.get("Environment", {}).get("Variables", {})
                for function in page["Functions"]
            ]
        return found

    def _write_secret(self, reference: str, value: str) -> None:
        store, _, name = reference.partition(":")
        if store == "ssm":
            self.aws.client("ssm").put_parameter(
                Name=name, Value=value, Type="SecureString", Overwrite=True
            )
            return
        client = self.aws.client("secretsmanager")
        try:
            client.create_secret(Name=name, SecretString=value)
        except client.exceptions.ResourceExistsException:
            # the app makes the secret itself and leaves its value to people
            client.put_secret_value(SecretId=name, SecretString=value)

    def _make_snapshots(self, deployment: Deployment) -> Snapshots:
        # past the interceptor: what the page asks is nobody's call
        backend = self.aws.backend
        target = self.aws.target
        if backend is not None:
            target = AwsTarget(backend.url, ACCOUNT, self.region, self.aws.tls)
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
            account=ACCOUNT,
            region=self.region,
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


def _answer_text(body: str) -> str:
    """What the webhook's answer says, for people."""
    try:
        found = json.loads(body)
    except ValueError:
        return ""
    if not isinstance(found, dict):
        return ""
    parts = [found.get(name) for name in ("outcome", "reason")]
    return ", ".join(part for part in parts if isinstance(part, str) and part)[:500]


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


def _check_node() -> None:
    if shutil.which("node") is None:
        msg = (
            "Node.js was not found, which the CDK CLI needs; install Node 22 or 24 from nodejs.org"
        )
        raise CloudError(msg)


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
