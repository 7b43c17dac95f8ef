"""From a launched instance to the configuration of its runner: GitHub first, then the store.

The registration is made as late as possible, after the launch: an unused JIT configuration is good
for a few minutes only, and the runner's name needs the instance's id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runsfleet_runtime.contract.messages import JobMessage, RunnerConfig
from runsfleet_runtime.github import (
    GitHubError,
    OffersRunnerPackages,
    RateLimitedError,
    RefusedError,
    RegistersRunners,
    RunnerPackage,
)
from runsfleet_runtime.jobs.dispatch import RunnerNotConfiguredError
from runsfleet_runtime.labels import RunnerSpec
from runsfleet_runtime.runners.ports import RunnerStoreError, StoresRunnerConfig
from runsfleet_runtime.telemetry.log import get_logger

_log = get_logger("runners")


class RunnerConfigurator:
    """Adapter of :class:`~runsfleet_runtime.jobs.dispatch.ConfiguresRunners`.

    Args:
        registrar: Registers runners at GitHub.
        packages: Knows the runner package to install.
        store: Keeps configurations.
        server_url: ``https://github.com`` or an Enterprise Server.
        max_runtime_seconds: Longest run of a job.
        idle_timeout_seconds: A runner without a job ends after this.
    """

    def __init__(
        self,
        *,
        registrar: RegistersRunners,
        packages: OffersRunnerPackages,
        store: StoresRunnerConfig,
        server_url: str,
        max_runtime_seconds: int,
        idle_timeout_seconds: int,
    ) -> None:
        self._registrar = registrar
        self._packages = packages
        self._store = store
        self._server_url = server_url
        self._max_runtime_seconds = max_runtime_seconds
        self._idle_timeout_seconds = idle_timeout_seconds

    def prepare(self, job: JobMessage, spec: RunnerSpec, *, deadline: float) -> None:
        """Make sure that GitHub answers for this job's owner; see ``ConfiguresRunners``.

        Listing the packages needs the same permission as registering, and is cached for an hour.
        A place within GitHub's limits is kept for the registration.
        """
        try:
            self._package(job, spec, deadline)
            self._registrar.reserve(job)
        except GitHubError as error:
            raise _not_configured(error) from error

    def _package(self, job: JobMessage, spec: RunnerSpec, deadline: float) -> RunnerPackage:
        return self._packages.for_platform(
            spec.platform,
            job.repository,
            installation_id=job.installation_id,
            deadline=deadline,
        )

    def configure(
        self, job: JobMessage, instance_id: str, spec: RunnerSpec, *, deadline: float
    ) -> RunnerConfig:
        """Register a runner; see ``ConfiguresRunners``."""
        try:
            # the package first: it is cached, and a registration that is not used would be wasted
            package = self._package(job, spec, deadline)
            registration = self._registrar.register(job, instance_id=instance_id, deadline=deadline)
        except GitHubError as error:
            raise _not_configured(error) from error
        return RunnerConfig(
            instance_id=instance_id,
            job_id=job.job_id,
            dispatch=job.dispatch,
            run_id=job.run_id,
            repository=job.repository,
            server_url=self._server_url,
            runner_url=registration.runner_url,
            runner_name=registration.runner_name,
            runner_group_id=registration.runner_group_id,
            labels=job.labels,
            jit_config=registration.jit_config,
            registration_token=registration.registration_token,
            package_url=package.url,
            package_filename=package.filename,
            package_sha256=package.sha256,
            max_runtime_seconds=self._max_runtime_seconds,
            idle_timeout_seconds=self._idle_timeout_seconds,
            traceparent=job.traceparent,
        )

    def transact_put(self, config: RunnerConfig, *, now: float) -> Sequence[Mapping[str, Any]]:
        """Return or make the writes that store it; see ``ConfiguresRunners``."""
        writes = self._store.transact_put(config, now=now)
        if not writes:
            try:
                self._store.put(config, now=now)
            except RunnerStoreError as error:
                raise RunnerNotConfiguredError(str(error), service="ssm") from error
        return writes

    def discard(self, config: RunnerConfig, job: JobMessage, *, deadline: float) -> None:
        """Delete what was stored; see ``ConfiguresRunners``."""
        try:
            self._store.delete(config.instance_id)
        except RunnerStoreError as error:
            # the instance is ended and nobody else can read it; it expires or is swept
            _log.warning("configuration not deleted", extra={"error": str(error)})
        try:
            self._registrar.deregister(
                config.repository,
                instance_id=config.instance_id,
                installation_id=job.installation_id,
                deadline=deadline,
            )
        except GitHubError as error:
            # GitHub itself forgets an ephemeral runner that stays offline for a day
            _log.warning("runner not deregistered", extra={"error": str(error)})


def _not_configured(error: GitHubError) -> RunnerNotConfiguredError:
    return RunnerNotConfiguredError(
        str(error),
        service="github",
        retry_at=error.retry_at if isinstance(error, RateLimitedError) else 0.0,
        is_final=isinstance(error, RefusedError),
    )
