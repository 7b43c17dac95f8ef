"""Everything that a function needs of GitHub, wired from its environment."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from runsfleet_runtime.contract.environment import GitHubEnvironment, RunnerLevel
from runsfleet_runtime.github.app_auth import AppCredentials
from runsfleet_runtime.github.installations import Installations
from runsfleet_runtime.github.job_states import JobStates
from runsfleet_runtime.github.packages import RunnerPackages
from runsfleet_runtime.github.rate_limits import JIT_CONFIGS_PER_MINUTE, REGISTRATIONS_PER_MINUTE
from runsfleet_runtime.github.registration import RunnerRegistrar
from runsfleet_runtime.github.rest import RestApi
from runsfleet_runtime.github.transport import ExchangesHttp, Urllib3Transport
from runsfleet_runtime.secrets.reader import ReadsSecrets


@dataclass(frozen=True, slots=True)
class GitHubGateway:
    """What functions ask of GitHub, over one set of tokens and connections.

    Make one for each process and keep it: it holds the caches.

    Attributes:
        registrar: Registers and removes runners.
        packages: Knows the runner packages.
        job_states: Knows the states of jobs.
        api: What they ask, for the adapters that only one function needs.
    """

    registrar: RunnerRegistrar
    packages: RunnerPackages
    job_states: JobStates
    api: Installations

    @classmethod
    def connect(
        cls,
        environment: GitHubEnvironment,
        *,
        level: RunnerLevel,
        secrets: ReadsSecrets,
        ca_bundle: str | None = None,
        token_fallback: bool = False,
        jit_configs_per_minute: int = JIT_CONFIGS_PER_MINUTE,
        registrations_per_minute: int = REGISTRATIONS_PER_MINUTE,
        transport: ExchangesHttp | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        uniform: Callable[[], float] = random.random,
    ) -> Self:
        """Wire the gateway; nothing is sent or read yet.

        Args:
            environment: Where GitHub is and which App speaks to it.
            level: Where runners are registered.
            secrets: Reads the App's secret.
            ca_bundle: File of the certificate authorities to trust (``AWS_CA_BUNDLE``); the
                system's when ``None``.
            token_fallback: See ``RunnerRegistrar``.
            jit_configs_per_minute: See ``RunnerRegistrar``.
            registrations_per_minute: See ``RunnerRegistrar``.
            transport: Sends requests; urllib3 by default.
            clock: Epoch seconds.
            sleep: Waits for seconds.
            uniform: A random number from 0 to below 1.
        """
        rest = RestApi(
            environment.github_api_url,
            transport or Urllib3Transport(ca_bundle=ca_bundle),
            clock=clock,
            sleep=sleep,
            uniform=uniform,
        )
        credentials = AppCredentials(secrets, environment.github_app_secret, clock=clock)
        github = Installations(rest, credentials, clock=clock)
        return cls(
            RunnerRegistrar(
                github,
                level=level,
                server_url=environment.github_server_url,
                runner_group_id=environment.runner_group_id,
                clock=clock,
                token_fallback=token_fallback,
                jit_configs_per_minute=jit_configs_per_minute,
                registrations_per_minute=registrations_per_minute,
            ),
            RunnerPackages(github, level=level, clock=clock),
            JobStates(github, clock=clock),
            github,
        )
