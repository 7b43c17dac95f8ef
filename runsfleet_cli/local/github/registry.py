"""Registers runners: JIT configurations, registration tokens, removal.

A JIT configuration is base64 of JSON that maps file names to base64 contents: ``.runner``,
``.credentials`` and ``.credentials_rsaparams``, which the runner writes into its root. The runner
then signs in with the RSA key of the third file. About 4,100 characters long, as the real one is.
"""

from __future__ import annotations

import base64
import json
import secrets
import uuid
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import rsa

from runsfleet_cli.local.github.errors import ApiError, invalid, not_found
from runsfleet_cli.local.github.world import (
    DEFAULT_GROUP_ID,
    RegistrationToken,
    Runner,
    World,
)

MAX_LABELS: Final = 100
MAX_NAME: Final = 64
MAX_GROUP_RUNNERS: Final = 10_000
"""Runners of one group (GitHub's limits); the next one is refused with 422."""
REGISTRATION_SECONDS: Final = 3600
RSA_BITS: Final = 2048


def _b64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _number(value: int) -> str:
    return _b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


@cache
def _shared_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)


class Registry:
    """Makes and removes runners.

    All JIT configurations of a process share an RSA key, because making one costs a tenth of a
    second; each has its own client id, which is what the service checks the signature for.

    Args:
        world: Where runners are kept.
        runner_url: Answers the root of the runner's own endpoints.
        web_url: Answers the web root.
    """

    def __init__(
        self, world: World, *, runner_url: Callable[[], str], web_url: Callable[[], str]
    ) -> None:
        self._world = world
        self._runner_url = runner_url
        self._web_url = web_url
        self._key = _shared_key()
        self.public_key = self._key.public_key()

    def generate_jit(self, scope: str, body: Any) -> tuple[Runner, str]:
        """Make an ephemeral runner and its configuration.

        Args:
            scope: ``orgs/ORG`` or ``repos/OWNER/NAME`` in lower case.
            body: The request's JSON.

        Raises:
            ApiError: 422 for a bad body, 404 for an unknown group, 409 for a taken name.
        """
        name, group_id, labels, work_folder = self._checked(scope, body)
        runner = self.add(scope, name, labels, group_id, ephemeral=True, jit=True)
        return runner, self.encode(runner, work_folder)

    def _checked(self, scope: str, body: Any) -> tuple[str, int, list[str], str]:
        if not isinstance(body, dict):
            raise invalid("Invalid request.\n\nFor 'links/2/schema', nil is not an object.")
        missing = [key for key in ("name", "runner_group_id", "labels") if body.get(key) is None]
        if missing:
            listed = ", ".join(f'"{key}"' for key in missing)
            verb = "wasn't" if len(missing) == 1 else "weren't"
            raise invalid(f"Invalid request.\n\n{listed} {verb} supplied.")
        name, group_id, labels = body["name"], body["runner_group_id"], body["labels"]
        work_folder = body.get("work_folder", "_work")
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
            raise invalid(
                f"Invalid request.\n\nname must be 1 to {MAX_NAME} characters long, got {name!r}."
            )
        if not isinstance(group_id, int) or isinstance(group_id, bool):
            raise invalid(f"Invalid request.\n\n{json.dumps(group_id)} is not an integer.")
        if (
            not isinstance(labels, list)
            or not 1 <= len(labels) <= MAX_LABELS
            or not all(isinstance(label, str) and label for label in labels)
        ):
            raise invalid(
                f"Invalid request.\n\nlabels must be 1 to {MAX_LABELS} strings, "
                f"got {json.dumps(labels)[:200]}."
            )
        if not isinstance(work_folder, str) or not work_folder:
            raise invalid(f"Invalid request.\n\n{json.dumps(work_folder)} is not a string.")
        self._check_group(scope, group_id)
        return name, group_id, labels, work_folder

    def _check_group(self, scope: str, group_id: int) -> None:
        kind, _, rest = scope.partition("/")
        known = self._world.groups.get(rest, {}) if kind == "orgs" else {DEFAULT_GROUP_ID}
        if group_id not in known:
            raise not_found()
        if len(self._world.runners_by_scope.get(scope, {})) < MAX_GROUP_RUNNERS:
            return
        members = [entry for entry in self._world.runners_of(scope) if entry.group_id == group_id]
        if len(members) >= MAX_GROUP_RUNNERS:
            raise invalid(f"The runner group has reached its limit of {MAX_GROUP_RUNNERS} runners.")

    def add(
        self,
        scope: str,
        name: str,
        labels: Sequence[str],
        group_id: int,
        *,
        ephemeral: bool,
        jit: bool,
    ) -> Runner:
        """Register a runner.

        Raises:
            ApiError: 409 when the scope has a runner of this name.
        """
        if self._world.runner_named(scope, name) is not None:
            raise ApiError(409, f"Already exists - A runner with the name {name} already exists.")
        now = self._world.clock()
        runner = Runner(
            id=next(self._world.ids.runner),
            name=name,
            scope=scope,
            labels=tuple(dict.fromkeys(labels)),
            group_id=group_id,
            created_at=now,
            client_id=str(uuid.uuid4()),
            ephemeral=ephemeral,
            jit=jit,
            offline_since=now,
        )
        self._world.add_runner(runner)
        return runner

    def encode(self, runner: Runner, work_folder: str = "_work") -> str:
        """Answer a runner's configuration in its encoded form."""
        files = {
            name: _b64(text.encode()) for name, text in self.files(runner, work_folder).items()
        }
        return _b64(json.dumps(files).encode())

    def files(self, runner: Runner, work_folder: str = "_work") -> dict[str, str]:
        """Answer the three files that a configured runner has in its root."""
        url = self._runner_url()
        kind, _, rest = runner.scope.partition("/")
        settings = {
            "AgentId": str(runner.id),
            "AgentName": runner.name,
            "DisableUpdate": "true",
            "Ephemeral": str(runner.ephemeral).lower(),
            "PoolId": str(runner.group_id),
            "PoolName": self._world.group_of(runner).name,
            "ServerUrl": f"{url}/tenant/{uuid.uuid4()}/",
            "ServerUrlV2": f"{url}/",
            "UseV2Flow": "true",
            "GitHubUrl": f"{self._web_url()}/{rest}",
            "WorkFolder": work_folder,
            "RunnerScope": kind,
        }
        credentials = {
            "Scheme": "OAuth",
            "Data": {
                "AuthorizationUrl": f"{url}/oauth2/token",
                "AuthorizationUrlV2": f"{url}/oauth2/token",
                "ClientId": runner.client_id,
                "EnableAuthMigrationByDefault": "true",
                "RequireFipsCryptography": "true",
            },
        }
        return {
            ".runner": json.dumps(settings, indent=2),
            ".credentials": json.dumps(credentials, indent=2),
            ".credentials_rsaparams": json.dumps(self._rsa_parameters(), indent=2),
        }

    def _rsa_parameters(self) -> dict[str, str]:
        private = self._key.private_numbers()
        return {
            "d": _number(private.d),
            "dp": _number(private.dmp1),
            "dq": _number(private.dmq1),
            "exponent": _number(private.public_numbers.e),
            "inverseQ": _number(private.iqmp),
            "modulus": _number(private.public_numbers.n),
            "p": _number(private.p),
            "q": _number(private.q),
        }

    def token(self, scope: str, kind: str) -> RegistrationToken:
        """Make a one-hour token; ``kind`` is ``registration`` or ``remove``."""
        token = RegistrationToken(
            token="A" + secrets.token_hex(14).upper(),
            scope=scope,
            kind=kind,
            expires_at=self._world.clock() + REGISTRATION_SECONDS,
        )
        self._world.registration_tokens[token.token] = token
        return token

    def redeem(self, text: str, scope: str, kind: str) -> None:
        """Check a token that a runner presents.

        Raises:
            ApiError: 404, as the service answers, when it is unknown, expired or of another scope.
        """
        token = self._world.registration_tokens.get(text)
        if (
            token is None
            or token.kind != kind
            or token.scope != scope
            or token.expires_at <= self._world.clock()
        ):
            raise not_found()
