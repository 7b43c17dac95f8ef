"""What use cases ask of GitHub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from runsfleet_runtime.contract.messages import JobMessage
from runsfleet_runtime.github.model import JobState, Registration, Removal, RunnerPackage


class RegistersRunners(Protocol):
    """Registers the runner of an instance; see ``RunnerRegistrar`` for what the errors mean."""

    def reserve(self, job: JobMessage) -> None:
        """Keep a place within GitHub's limits for the registration that follows."""

    def register(
        self, job: JobMessage, *, instance_id: str, deadline: float | None = None
    ) -> Registration:
        """Register a runner with the job's labels."""

    def deregister(
        self,
        repository: str,
        *,
        instance_id: str,
        installation_id: int | None = None,
        deadline: float | None = None,
    ) -> Removal:
        """Remove the runner of an instance, unless it has a job."""


class OffersRunnerPackages(Protocol):
    """Knows which runner package to install."""

    def for_platform(
        self,
        platform: str,
        repository: str,
        *,
        installation_id: int | None = None,
        deadline: float | None = None,
    ) -> RunnerPackage:
        """Answer the package for a platform such as ``linux-arm64``."""


class KnowsJobStates(Protocol):
    """Knows what GitHub says of a job; never raises."""

    def status(
        self,
        repository: str,
        job_id: int,
        installation_id: int | None = None,
        *,
        deadline: float | None = None,
    ) -> JobState:
        """Answer the job's state; whatever goes wrong is ``UNKNOWN``."""

    def queued_in_run(self, job: JobMessage, *, deadline: float | None = None) -> Sequence[int]:
        """Answer the ids of the jobs of a job's run that wait for a runner with its labels."""
