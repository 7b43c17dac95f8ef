"""Speaking as an installation of the App: its id and its tokens, cached while the function is warm.

An event brings the id along. It is looked up by repository when it is unknown, and once more when
GitHub does not know the given one (an event of another App, an App installed anew).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from runsfleet_runtime.contract.environment import RunnerLevel
from runsfleet_runtime.github.app_auth import AppCredentials
from runsfleet_runtime.github.errors import (
    CredentialsError,
    InstallationNotFoundError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from runsfleet_runtime.github.model import RunnerScope
from runsfleet_runtime.github.rest import DEFAULT_DEADLINE_SECONDS, Quota, Reply, RestApi

SWEEP_DEADLINE_SECONDS = 9.0
"""Of a request that a sweep makes: it has time for two at the end of its own (``RESERVED_SECONDS``
of housekeeping's runner)."""
RENEWED_BEFORE_SECONDS = 300.0
"""A token (it lives an hour) is replaced this long before it expires."""
_UNAUTHORIZED = 401
_PERMISSION_CURE = "grant the App this permission and have the owner of the installation accept it"

Permissions = Mapping[str, str]
RUNNERS: Mapping[RunnerLevel, Permissions] = {
    RunnerLevel.ORGANIZATION: {"organization_self_hosted_runners": "write"},
    RunnerLevel.REPOSITORY: {"administration": "write"},
}
"""What registering, removing and downloading runners needs, by level."""
JOBS: Permissions = {"actions": "read"}
"""What reading jobs needs."""


@dataclass(slots=True)
class _Slot:
    lock: threading.Lock = field(default_factory=threading.Lock)
    token: str | None = field(default=None, repr=False)
    expires_at: float = 0.0


class Installations:
    """Calls the API on behalf of the App's installations; safe for threads.

    Args:
        rest: The API.
        credentials: Signs for the App.
        clock: Epoch seconds.
    """

    def __init__(
        self,
        rest: RestApi,
        credentials: AppCredentials,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rest = rest
        self._credentials = credentials
        self._clock = clock
        self._slots: dict[tuple[int, tuple[tuple[str, str], ...]], _Slot] = {}
        self._found: dict[str, int] = {}  # owner -> installation
        self._wrong: set[int] = set()  # ids that GitHub does not know
        self._lock = threading.Lock()
        self._looking_up = threading.Lock()

    def call(
        self,
        method: str,
        path: str,
        *,
        scope: RunnerScope,
        installation_id: int | None,
        permissions: Permissions,
        body: Mapping[str, object] | None = None,
        deadline: float | None = None,
        cures: Mapping[int, str] | None = None,
    ) -> Any:
        """Send a request with a token of the installation that covers a repository.

        Args:
            method: HTTP method.
            path: Path below the API's URL.
            scope: Names the repository.
            installation_id: The event's; ``None`` when unknown.
            permissions: All that the token may do.
            body: JSON to send.
            deadline: Epoch seconds after which to give up; 20 s from now by default.
            cures: By status, what the reader of a refusal should do.

        Returns:
            The answer's JSON.

        Raises:
            CredentialsError: If GitHub does not accept the App, or its secret is unusable.
            InstallationNotFoundError: If the App is not installed there.
            GitHubError: As ``RestApi.call``.
        """
        if deadline is None:
            deadline = self._clock() + DEFAULT_DEADLINE_SECONDS
        reply = self._send(
            method,
            path,
            lambda: self._token(scope, installation_id, permissions, deadline),
            permissions=permissions,
            body=body,
            deadline=deadline,
            cures=cures,
        )
        return reply.body

    def call_as(
        self,
        installation_id: int,
        method: str,
        path: str,
        *,
        permissions: Permissions,
        deadline: float | None = None,
        cures: Mapping[int, str] | None = None,
    ) -> Any:
        """Send a request with a token of an installation that GitHub has just named.

        Args:
            installation_id: The installation; no other is looked up in its place.
            method: HTTP method.
            path: Path below the API's URL.
            permissions: All that the token may do.
            deadline: Epoch seconds after which to give up; 9 s from now by default.
            cures: By status, what the reader of a refusal should do.

        Returns:
            The answer's JSON.

        Raises:
            CredentialsError: If GitHub does not accept the App, or its secret is unusable.
            GitHubError: As ``RestApi.call``.
        """
        if deadline is None:
            deadline = self._clock() + SWEEP_DEADLINE_SECONDS
        reply = self._send(
            method,
            path,
            lambda: (installation_id, self._mint(installation_id, permissions, deadline)),
            permissions=permissions,
            body=None,
            deadline=deadline,
            cures=cures,
        )
        return reply.body

    def call_as_app(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, object] | None = None,
        deadline: float | None = None,
        cures: Mapping[int, str] | None = None,
    ) -> Reply:
        """Send a request as the App itself.

        Args:
            method: HTTP method.
            path: Path below the API's URL.
            body: JSON to send.
            deadline: Epoch seconds after which to give up; 9 s from now by default.
            cures: By status, what the reader of a refusal should do.

        Raises:
            CredentialsError: If GitHub does not accept the App, or its secret is unusable.
            GitHubError: As ``RestApi.call``.
        """
        if deadline is None:
            deadline = self._clock() + SWEEP_DEADLINE_SECONDS
        renewed = False
        while True:
            try:
                return self._rest.call(
                    method,
                    path,
                    token=self._credentials.token(),
                    caller="the app",
                    body=body,
                    deadline=deadline,
                    cures=cures,
                )
            except RefusedError as error:
                if error.status != _UNAUTHORIZED:
                    raise
                # the key may have been rotated since it was read
                if renewed or not self._credentials.renew():
                    raise CredentialsError(str(error)) from error
                renewed = True

    def quota(self, installation_id: int) -> Quota | None:
        """Return what is left of an installation's requests; ``None`` when it is not known."""
        return self._rest.quota(_caller(installation_id))

    def _send(
        self,
        method: str,
        path: str,
        choose: Callable[[], tuple[int, str]],
        *,
        permissions: Permissions,
        body: Mapping[str, object] | None,
        deadline: float | None,
        cures: Mapping[int, str] | None,
    ) -> Reply:
        renewed = False
        while True:
            installation, token = choose()
            try:
                return self._rest.call(
                    method,
                    path,
                    token=token,
                    caller=_caller(installation),
                    body=body,
                    deadline=deadline,
                    cures=cures,
                )
            except RefusedError as error:
                if error.status != _UNAUTHORIZED:
                    raise
                # revoked before its time
                self._forget(installation, permissions, token)
                if renewed:
                    raise CredentialsError(str(error)) from error
                renewed = True

    def _token(
        self,
        scope: RunnerScope,
        given: int | None,
        permissions: Permissions,
        deadline: float | None,
    ) -> tuple[int, str]:
        installation = self._known(scope, given)
        if installation is not None:
            try:
                return installation, self._mint(installation, permissions, deadline)
            except NotFoundError:
                with self._lock:
                    self._wrong.add(installation)
                    if self._found.get(scope.owner.lower()) == installation:
                        del self._found[scope.owner.lower()]
        # jobs of one batch that need the same answer ask for it once
        with self._looking_up:
            installation = self._known(scope, given) or self._look_up(scope, deadline)
        try:
            return installation, self._mint(installation, permissions, deadline)
        except NotFoundError as error:
            raise InstallationNotFoundError(str(error)) from error

    def _known(self, scope: RunnerScope, given: int | None) -> int | None:
        with self._lock:
            if given is not None and given not in self._wrong:
                return given
            return self._found.get(scope.owner.lower())

    def _look_up(self, scope: RunnerScope, deadline: float | None) -> int:
        cure = f"install the App on {scope.owner} and let it see {scope.owner}/{scope.name}"
        try:
            body = self.call_as_app(
                "GET", f"{scope.repository_path}/installation", deadline=deadline, cures={404: cure}
            ).body
        except NotFoundError as error:
            raise InstallationNotFoundError(str(error)) from error
        if not isinstance(body, dict) or not isinstance(body.get("id"), int):
            raise UnavailableError("github's answer names no installation")
        installation: int = body["id"]
        with self._lock:
            self._found[scope.owner.lower()] = installation
            self._wrong.discard(installation)
        return installation

    def _mint(self, installation: int, permissions: Permissions, deadline: float | None) -> str:
        slot = self._slot(installation, permissions)
        # whoever comes second waits for the first one's token instead of asking for another
        with slot.lock:
            if slot.token is None or self._clock() >= slot.expires_at - RENEWED_BEFORE_SECONDS:
                wanted = ", ".join(f"{name}: {level}" for name, level in permissions.items())
                body = self.call_as_app(
                    "POST",
                    f"/app/installations/{installation}/access_tokens",
                    body={"permissions": dict(permissions)},
                    deadline=deadline,
                    cures={422: f"the fleet needs {wanted}; {_PERMISSION_CURE}"},
                ).body
                try:
                    slot.token = str(body["token"])
                    slot.expires_at = datetime.fromisoformat(body["expires_at"]).timestamp()
                except (KeyError, TypeError, ValueError):
                    slot.token = None
                    raise UnavailableError("github's answer holds no installation token") from None
            return slot.token

    def _slot(self, installation: int, permissions: Permissions) -> _Slot:
        with self._lock:
            key = (installation, tuple(sorted(permissions.items())))
            return self._slots.setdefault(key, _Slot())

    def _forget(self, installation: int, permissions: Permissions, token: str) -> None:
        slot = self._slot(installation, permissions)
        with slot.lock:
            if slot.token == token:  # another thread may have replaced it already
                slot.token = None


def _caller(installation: int) -> str:
    return f"installation {installation}"
