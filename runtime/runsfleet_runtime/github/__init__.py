"""GitHub as the fleet needs it: runners registered, packages known, states of jobs read.

From the outside in: ``gateway`` wires everything from a function's environment; ``registration``,
``packages`` and ``job_states`` are what use cases ask (``ports`` names them, ``model`` holds their
answers, ``errors`` their failures); ``installations`` holds ids and tokens, ``app_auth`` signs for
the App; ``rest`` knows retries and ``rate_limits``; ``transport`` is HTTP by urllib3.

This package imports the light parts only; import the adapters from their modules.
"""

from runsfleet_runtime.github.errors import (
    CredentialsError,
    GitHubError,
    InstallationNotFoundError,
    NotFoundError,
    RateLimitedError,
    RefusedError,
    UnavailableError,
)
from runsfleet_runtime.github.model import (
    JobState,
    Registration,
    Removal,
    RunnerPackage,
    RunnerScope,
    runner_name,
)
from runsfleet_runtime.github.ports import (
    KnowsJobStates,
    OffersRunnerPackages,
    RegistersRunners,
)

__all__ = [
    "CredentialsError",
    "GitHubError",
    "InstallationNotFoundError",
    "JobState",
    "KnowsJobStates",
    "NotFoundError",
    "OffersRunnerPackages",
    "RateLimitedError",
    "RefusedError",
    "RegistersRunners",
    "Registration",
    "Removal",
    "RunnerPackage",
    "RunnerScope",
    "UnavailableError",
    "runner_name",
]
