"""The local AWS as one thing: emulator, interceptor and gaps, started in the right order.

Lifecycle: certificates (strict) -> interceptor listens -> emulator starts with the interceptor as
its functions' endpoint -> interceptor is connected to it -> `deploy` adapts, bootstraps, deploys
and reads back -> `stop` leaves no process.

Example:
    >>> async with LocalAws(LocalAwsSettings(directory=Path("/tmp/run"), strict=True)) as aws:
    ...     deployment = await aws.deploy(Path("cdk.out"), cdk=find_cdk(Path(".")), progress=print)
    ...     aws.interceptor.log.query(service="ec2")
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from runsfleet_cli.local.deploy import AwsTarget, CdkCli, Deployment, Progress, read_back
from runsfleet_cli.local.emulator import (
    ENDPOINT_VARIABLE,
    AwsBackend,
    Emulator,
    EmulatorSettings,
    ExternalBackend,
    ensure_emulator_environment,
)
from runsfleet_cli.local.emulator_gaps import EmulatorGaps, close_gaps
from runsfleet_cli.local.emulator_gaps.references import DeployedNames
from runsfleet_cli.local.emulator_gaps.templates import AdaptedAssembly, adapt_assembly
from runsfleet_cli.local.interceptor import CallLog, Interceptor
from runsfleet_cli.local.tls import TlsFiles, create_tls_files


@dataclass(frozen=True, slots=True)
class LocalAwsSettings:
    """What kind of local AWS.

    Args:
        directory: Of the run: state, logs, certificates, the record of calls.
        account: Twelve digits.
        region: Default region.
        strict: IAM enforcement and TLS.
        port: Of the interceptor; 0 means any free one.
        endpoint: Use the emulator that runs there instead of starting one; default:
            `$RUNSFLEET_AWS_ENDPOINT`, if set.
        python: Interpreter of the emulator's environment; default: found, or made.
        project: Where `.venv-emulator` may be; default: the working directory.
    """

    directory: Path
    account: str = "123456789012"
    region: str = "us-east-1"
    strict: bool = False
    port: int = 0
    endpoint: str | None = None
    python: Path | None = None
    project: Path | None = None


class LocalAws:
    """See the module. An async context manager."""

    def __init__(self, settings: LocalAwsSettings) -> None:
        self.settings = settings
        self.tls: TlsFiles | None = None
        if settings.strict:
            self.tls = create_tls_files(settings.directory / "tls", now=datetime.now(UTC))
        self.interceptor = Interceptor(
            region=settings.region,
            log=CallLog(settings.directory / "calls.jsonl"),
            tls=self.tls.server_context() if self.tls else None,
            port=settings.port,
        )
        self.gaps: EmulatorGaps = close_gaps(self.interceptor, strict=settings.strict)
        self.backend: AwsBackend | None = None
        self.adapted: AdaptedAssembly | None = None
        self.deploy_seconds: dict[str, float] = {}

    @property
    def target(self) -> AwsTarget:
        """Address and credentials for clients."""
        return AwsTarget(
            self.interceptor.url, self.settings.account, self.settings.region, self.tls
        )

    async def start(self, progress: Callable[[str], None] = lambda _: None) -> None:
        """Start everything.

        Raises:
            EmulatorError: The emulator is not to be had.
            InterceptorError: The port is taken.
        """
        await self.interceptor.start()
        try:
            self.backend = backend = await self._make_backend(progress)
            await backend.start(self.interceptor.url)
        except BaseException:
            await self.stop()
            raise
        # one of somebody else's has its own certificates, if any
        ours = isinstance(backend, Emulator)
        self.interceptor.connect(
            backend.url,
            tls=self.tls.client_context() if self.tls and ours else None,
            group=backend.pid if isinstance(backend, Emulator) else None,
        )

    async def stop(self) -> None:
        """Stop everything; leaves no process."""
        backend, self.backend = self.backend, None
        if backend is not None:
            await backend.stop()
        await self.interceptor.stop()

    async def deploy(
        self,
        assembly: Path,
        *,
        cdk: Path,
        stacks: Sequence[str] = ("**",),
        progress: Progress = lambda _: None,
    ) -> Deployment:
        """Deploy a cloud assembly as far as the emulator can take it.

        Args:
            assembly: A `cdk.out` folder; not changed.
            cdk: The CDK CLI.
            stacks: Patterns as `cdk deploy` takes them, e.g. `dev/*`; default: all.
            progress: Told each line of the CLI.

        Returns:
            What came of it; what was left out is in `self.adapted.notes`.

        Raises:
            DeployError: With the failing resource and its reason.
        """
        target = self.target
        copy = self.settings.directory / "cdk.out"
        self.adapted = adapted = await asyncio.to_thread(adapt_assembly, assembly, copy, stacks)
        cli = CdkCli(cdk, target, self.settings.directory / "cdk-home")
        await cli.bootstrap(progress)
        await cli.deploy(adapted.directory, stacks, progress)
        self.deploy_seconds = dict(cli.seconds)
        deployment = await read_back(target, adapted.directory)
        if self.gaps.conditions is not None:
            names = DeployedNames(deployment, self.settings.account, self.settings.region)
            self.gaps.conditions.keep(adapted.grants, names)
        return deployment

    def client(self, service: str) -> Any:
        """A boto3 client of the operator's."""
        return self.target.client(service)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _make_backend(self, progress: Callable[[str], None]) -> AwsBackend:
        settings = self.settings
        endpoint = settings.endpoint or os.environ.get(ENDPOINT_VARIABLE)
        if endpoint:
            return ExternalBackend(endpoint)
        python = settings.python or await ensure_emulator_environment(
            settings.project, progress=progress
        )
        return Emulator(
            EmulatorSettings(
                python=python,
                account=settings.account,
                region=settings.region,
                directory=settings.directory / "emulator",
                tls=self.tls,
                enforce_iam=settings.strict,
            )
        )
