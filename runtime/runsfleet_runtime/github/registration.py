"""Registering runners: a JIT configuration for each, minted late.

A JIT configuration creates the runner at GitHub at once, so a registration whose answer got lost
shows as 409 at the next attempt: the name is ours alone (it holds the instance id), so what is
registered under it is stale, is removed, and the runner is registered again.

Gotcha: the labels are exactly those of the job, byte for byte. GitHub adds none to a JIT runner and
matches by nothing else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote

from runsfleet_runtime.contract.environment import RunnerLevel
from runsfleet_runtime.contract.messages import JobMessage
from runsfleet_runtime.github.errors import (
    CredentialsError,
    NotFoundError,
    RateLimitedError,
    RefusedError,
    UnavailableError,
)
from runsfleet_runtime.github.installations import (
    RENEWED_BEFORE_SECONDS,
    RUNNERS,
    Installations,
)
from runsfleet_runtime.github.model import (
    DEFAULT_GROUP_ID,
    WORK_FOLDER,
    Registration,
    Removal,
    RunnerScope,
    runner_name,
)
from runsfleet_runtime.github.rate_limits import (
    JIT_CONFIGS_PER_MINUTE,
    REGISTRATIONS_PER_MINUTE,
    WINDOW_SECONDS,
    SlidingWindow,
)
from runsfleet_runtime.telemetry.log import get_logger

_log = get_logger("github.registration")
_CONFLICT, _UNPROCESSABLE = 409, 422
AWAY_SECONDS = 30.0
"""After a registration that GitHub did not take, one other is tried at a time, so long apart."""


@dataclass(slots=True)
class _Token:
    lock: threading.Lock = field(default_factory=threading.Lock)
    value: str | None = field(default=None, repr=False)
    expires_at: float = 0.0


@dataclass(frozen=True, slots=True)
class _Place:
    has_jit: bool  # else the place is for a registration by token
    until: float


class RunnerRegistrar:
    """Registers and removes the runners of a fleet; safe for threads.

    Args:
        github: The API.
        level: Where runners are registered.
        server_url: ``https://github.com``, or the URL of an Enterprise Server.
        runner_group_id: The runner group; a repository's runners are always in group 1.
        clock: Epoch seconds.
        token_fallback: Whether a registration token, which is not bound to one runner, may be
            used where GitHub allows no further JIT configurations. Off by default.
        jit_configs_per_minute: Most JIT configurations that this process asks for, for each
            organisation or repository (180: GitHub's limit for an endpoint).
        registrations_per_minute: Most registrations of both kinds (300: GitHub's limit for an
            organisation or repository).

    Example:
        >>> registration = registrar.register(job, instance_id="i-0abc")  # doctest: +SKIP
        >>> registration.runner_name  # doctest: +SKIP
        'runsfleet-i-0abc'
    """

    def __init__(
        self,
        github: Installations,
        *,
        level: RunnerLevel,
        server_url: str,
        runner_group_id: int = DEFAULT_GROUP_ID,
        clock: Callable[[], float] = time.time,
        token_fallback: bool = False,
        jit_configs_per_minute: int = JIT_CONFIGS_PER_MINUTE,
        registrations_per_minute: int = REGISTRATIONS_PER_MINUTE,
    ) -> None:
        self._github = github
        self._level = level
        self._server_url = server_url
        self._group = runner_group_id if level is RunnerLevel.ORGANIZATION else DEFAULT_GROUP_ID
        self._clock = clock
        self._token_fallback = token_fallback
        self._jit_configs = SlidingWindow(jit_configs_per_minute, clock=clock)
        self._registrations = SlidingWindow(registrations_per_minute, clock=clock)
        self._tokens: dict[str, _Token] = {}
        self._reserved: dict[tuple[int, int], _Place] = {}  # by job and dispatch number
        self._limited: dict[str, float] = {}  # scope -> until when GitHub itself limits it
        self._away: dict[str, float] = {}  # scope -> when the next registration may be tried
        self._lock = threading.Lock()

    def reserve(self, job: JobMessage) -> None:
        """Keep a place within GitHub's limits for the registration of a job's runner.

        To be called before the instance is launched: a registration that has to wait afterwards
        costs the instance. A place that is not used is lost for a minute.

        Args:
            job: The job.

        Raises:
            RateLimitedError: If there is no place; try again at its ``retry_at``.
            UnavailableError: If GitHub did not take the last registration, and whether it takes
                another is being tried by somebody else.
            RefusedError: If the repository has no usable name.
        """
        scope = RunnerScope.of(self._level, job.repository)
        now = self._clock()
        with self._lock:
            self._reserved = {
                key: place for key, place in self._reserved.items() if place.until > now
            }
            limited_until = self._limited.get(scope.key, 0.0)
        if limited_until > now and not self._token_fallback:
            raise RateLimitedError(f"github limits {scope.key}", retry_at=limited_until)
        self._try_again(scope, now)  # before a place is taken that would be lost for a minute
        has_jit = True
        try:
            _count(self._jit_configs, scope, "JIT configurations")
        except RateLimitedError:
            if not self._token_fallback:
                raise
            has_jit = False
        _count(self._registrations, scope, "registrations")
        with self._lock:
            self._reserved[job.job_id, job.dispatch] = _Place(has_jit, now + WINDOW_SECONDS)

    def _try_again(self, scope: RunnerScope, now: float) -> None:
        """Let one registration through where GitHub did not take the last one.

        Raises:
            UnavailableError: If it is not time yet, or another is on its way.
        """
        with self._lock:
            if self._away.get(scope.key, now) > now:
                raise UnavailableError(f"github did not take the last registration at {scope.key}")
            if scope.key in self._away:
                self._away[scope.key] = now + AWAY_SECONDS

    def register(
        self, job: JobMessage, *, instance_id: str, deadline: float | None = None
    ) -> Registration:
        """Register the runner of an instance with the labels of a job.

        Args:
            job: The job that the instance was launched for.
            instance_id: The EC2 instance; the runner is named after it.
            deadline: Epoch seconds after which to give up; 20 s from now by default.

        Returns:
            The JIT configuration, or a registration token where that was allowed and necessary.

        Raises:
            RateLimitedError: Try again at its ``retry_at``.
            UnavailableError: Try again later; the runner may exist by then, which does no harm.
            CredentialsError: Try again later; the operator has to repair the App's secret.
            NotFoundError: The organisation or repository does not exist, the App is not installed
                there, or the owner is a user and the fleet registers at organisations.
            RefusedError: GitHub refused for good.
        """
        scope = RunnerScope.of(self._level, job.repository)
        with self._lock:
            place = self._reserved.pop((job.job_id, job.dispatch), None)
        if place is None:
            _count(self._registrations, scope, "registrations")
        try:
            if place is None or not place.has_jit:
                _count(self._jit_configs, scope, "JIT configurations")
            body = self._mint(job, scope, instance_id, deadline)
        except (CredentialsError, NotFoundError, UnavailableError):
            with self._lock:
                self._away[scope.key] = self._clock() + AWAY_SECONDS
            raise
        except RateLimitedError as error:
            with self._lock:
                self._limited[scope.key] = error.retry_at
            if not self._token_fallback:
                raise
            _log.warning(
                "registration token used instead of a JIT configuration",
                extra={"error": str(error)},
            )
            token = self._registration_token(scope, job.installation_id, deadline)
            return Registration(
                runner_name=runner_name(instance_id),
                runner_url=scope.url(self._server_url),
                runner_group_id=self._group,
                registration_token=token,
            )
        with self._lock:
            self._away.pop(scope.key, None)
        try:
            return Registration(
                runner_name=str(body["runner"]["name"]),
                runner_url=scope.url(self._server_url),
                runner_group_id=self._group,
                runner_id=int(body["runner"]["id"]),
                jit_config=str(body["encoded_jit_config"]),
            )
        except (KeyError, TypeError, ValueError):
            raise UnavailableError("github's answer holds no JIT configuration") from None

    def deregister(
        self,
        repository: str,
        *,
        instance_id: str,
        installation_id: int | None = None,
        deadline: float | None = None,
    ) -> Removal:
        """Remove the runner of an instance at GitHub, unless it has a job.

        Args:
            repository: ``owner/name``.
            instance_id: The EC2 instance.
            installation_id: Of the App; looked up when ``None``.
            deadline: Epoch seconds after which to give up; 20 s from now by default.

        Raises:
            GitHubError: As :meth:`register`; whether the runner is gone is unknown then.
        """
        scope = RunnerScope.of(self._level, repository)
        return self._remove(scope, runner_name(instance_id), installation_id, deadline)

    def _mint(
        self, job: JobMessage, scope: RunnerScope, instance_id: str, deadline: float | None
    ) -> Any:
        body = {
            "name": runner_name(instance_id),
            "runner_group_id": self._group,
            "labels": list(job.labels),
            "work_folder": WORK_FOLDER,
        }

        def post() -> Any:
            return self._github.call(
                "POST",
                f"{scope.runners_path}/generate-jitconfig",
                scope=scope,
                installation_id=job.installation_id,
                permissions=RUNNERS[self._level],
                body=body,
                deadline=deadline,
                cures=self._cures(scope),
            )

        try:
            return post()
        except RefusedError as error:
            if error.status != _CONFLICT:
                raise
            removal = self._remove(scope, runner_name(instance_id), job.installation_id, deadline)
            if removal is Removal.BUSY:
                raise
            _log.info("stale registration removed", extra={"runner": runner_name(instance_id)})
            return post()

    def _remove(
        self, scope: RunnerScope, name: str, installation_id: int | None, deadline: float | None
    ) -> Removal:
        found = self._github.call(
            "GET",
            f"{scope.runners_path}?name={quote(name, safe='')}&per_page=100",
            scope=scope,
            installation_id=installation_id,
            permissions=RUNNERS[self._level],
            deadline=deadline,
            cures=self._cures(scope),
        )
        runners = found.get("runners") if isinstance(found, dict) else None
        if not isinstance(runners, list):
            raise UnavailableError("github's answer holds no list of runners")
        removal = Removal.ABSENT
        # the filter of the request is no promise of an exact match
        for runner in (entry for entry in runners if entry.get("name") == name):
            if runner.get("busy"):
                return Removal.BUSY
            try:
                self._github.call(
                    "DELETE",
                    f"{scope.runners_path}/{int(runner['id'])}",
                    scope=scope,
                    installation_id=installation_id,
                    permissions=RUNNERS[self._level],
                    deadline=deadline,
                )
            except NotFoundError:
                continue  # somebody else was faster
            except RefusedError as error:
                if error.status != _UNPROCESSABLE:
                    raise
                return Removal.BUSY  # it was given a job since it was listed
            removal = Removal.REMOVED
        return removal

    def _registration_token(
        self, scope: RunnerScope, installation_id: int | None, deadline: float | None
    ) -> str:
        with self._lock:
            token = self._tokens.setdefault(scope.key, _Token())
        with token.lock:
            if token.value is None or self._clock() >= token.expires_at - RENEWED_BEFORE_SECONDS:
                body = self._github.call(
                    "POST",
                    f"{scope.runners_path}/registration-token",
                    scope=scope,
                    installation_id=installation_id,
                    permissions=RUNNERS[self._level],
                    deadline=deadline,
                    cures=self._cures(scope),
                )
                try:
                    token.value = str(body["token"])
                    token.expires_at = datetime.fromisoformat(body["expires_at"]).timestamp()
                except (KeyError, TypeError, ValueError):
                    token.value = None
                    raise UnavailableError("github's answer holds no registration token") from None
            return token.value

    def _cures(self, scope: RunnerScope) -> dict[int, str]:
        needed = ", ".join(f"{name}: {level}" for name, level in RUNNERS[self._level].items())
        cures = {403: f"grant the App {needed} and have the installation's owner accept it"}
        if self._level is RunnerLevel.ORGANIZATION:
            cures[404] = (
                f"check that {scope.owner} is an organisation; for a user's repositories set "
                "github.runner_level to repository"
            )
        return cures


def _count(window: SlidingWindow, scope: RunnerScope, what: str) -> None:
    free_at = window.take(scope.key)
    if free_at is not None:
        raise RateLimitedError(
            f"{scope.key} has had all {what} that github allows in a minute", retry_at=free_at
        )
