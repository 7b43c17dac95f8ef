"""Who is calling: App JWTs are really verified, installation tokens really expire.

Rules are those of GitHub's "Generating a JSON Web Token (JWT) for a GitHub App": RS256, ``iss``
is the client ID or the App ID, ``exp`` at most ten minutes ahead, ``iat`` not in the future.
Tokens have the form that GitHub rolls out since 2026-04-27: ``ghs_<APP ID>_<JWT>``.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jwt
from aiohttp import web

from runsfleet_cli.local.github.errors import ApiError, forbidden, invalid, not_found
from runsfleet_cli.local.github.world import (
    App,
    Installation,
    Repository,
    TokenGrant,
    World,
)

MAX_JWT_SECONDS = 600
"""``exp`` may be at most ten minutes ahead (GitHub's documentation)."""
CLOCK_TOLERANCE_SECONDS = 5
TOKEN_SECONDS = 3600
"""Installation tokens live for one hour (GitHub's documentation)."""
MAX_TOKEN_REPOSITORIES = 500
LEVELS = {"read": 1, "write": 2, "admin": 3}
CALLER: web.RequestKey[str] = web.RequestKey("caller", str)
RATE_KEY: web.RequestKey[str] = web.RequestKey("rate_key", str)


@dataclass(frozen=True, slots=True)
class JwtClaims:
    """The claims of an accepted App JWT."""

    issuer: str
    issued_at: float
    expires_at: float


def bearer(request: web.Request) -> str:
    """Answer the token of the ``Authorization`` header, or an empty string."""
    kind, _, value = request.headers.get("Authorization", "").partition(" ")
    return value.strip() if kind.lower() in {"bearer", "token"} else ""


class Authenticator:
    """Verifies callers against the world and issues installation tokens."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._signing_key = secrets.token_bytes(32)

    def app(self, request: web.Request) -> App:
        """Answer the App that signed the request's JWT.

        Raises:
            ApiError: 401 with GitHub's message when the JWT is not acceptable.
        """
        token = bearer(request)
        try:
            unverified = jwt.decode(token, options={"verify_signature": False})
            algorithm = jwt.get_unverified_header(token).get("alg")
        except jwt.PyJWTError as error:
            raise ApiError(401, "A JSON web token could not be decoded") from error
        app = self._issuer(unverified.get("iss"))
        try:
            jwt.decode(
                token,
                app.public_key,
                algorithms=["RS256"],
                options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )
        except jwt.PyJWTError as error:
            raise ApiError(401, "A JSON web token could not be decoded") from error
        if algorithm != "RS256":
            raise ApiError(401, "A JSON web token could not be decoded")
        self._check_times(unverified)
        request[CALLER] = f"app:{app.id}"
        request[RATE_KEY] = f"app:{app.id}"
        return app

    def _issuer(self, issuer: object) -> App:
        if issuer is None or issuer == "":
            raise ApiError(401, "'Issuer' claim ('iss') must be an Integer or a client ID")
        for app in self._world.apps.values():
            if str(issuer) in {str(app.id), app.client_id}:
                return app
        raise ApiError(404, "Integration not found")

    def _check_times(self, claims: dict[str, Any]) -> None:
        now = self._world.clock()
        issued, expires = claims.get("iat"), claims.get("exp")
        if not isinstance(expires, int | float) or expires <= now:
            raise ApiError(
                401,
                "'Expiration time' claim ('exp') must be a numeric value representing the "
                "future time at which the assertion expires",
            )
        if expires > now + MAX_JWT_SECONDS + CLOCK_TOLERANCE_SECONDS:
            raise ApiError(401, "'Expiration time' claim ('exp') is too far in the future")
        if not isinstance(issued, int | float) or issued > now + CLOCK_TOLERANCE_SECONDS:
            raise ApiError(
                401,
                "'Issued at' claim ('iat') must be an Integer representing the time that the "
                "assertion was issued",
            )

    def installation(
        self,
        request: web.Request,
        *,
        permission: str,
        level: str = "read",
        repository: Repository | None = None,
        organization: str | None = None,
    ) -> TokenGrant:
        """Answer the grant behind the request's installation token.

        Args:
            request: The request.
            permission: What the endpoint needs, for example ``administration``.
            level: ``read`` or ``write``.
            repository: The repository of the path, when it has one.
            organization: The organization of the path, when it has one.

        Raises:
            ApiError: 401 for an unknown or expired token, 403 without the permission, 404 for
                what the token cannot see.
        """
        token = bearer(request)
        if not token:
            raise ApiError(401, "Requires authentication")
        grant = self._world.tokens.get(token)
        if grant is None or grant.expires_at <= self._world.clock():
            raise ApiError(401, "Bad credentials")
        installation = grant.installation
        request[CALLER] = f"installation:{installation.id}"
        request[RATE_KEY] = f"installation:{installation.id}"
        if installation.id not in self._world.installations:
            raise ApiError(401, "Bad credentials")
        if installation.suspended_at is not None:
            raise ApiError(403, "This installation has been suspended")
        if repository is not None and not self._sees(grant, repository):
            raise not_found() if repository.private else forbidden()
        if organization is not None and organization.lower() != installation.account.login.lower():
            raise not_found()
        if LEVELS.get(grant.permissions.get(permission, ""), 0) < LEVELS[level]:
            raise forbidden()
        return grant

    @staticmethod
    def _sees(grant: TokenGrant, repository: Repository) -> bool:
        return grant.installation.covers(repository) and (
            grant.repository_ids is None or repository.id in grant.repository_ids
        )

    def issue(
        self,
        installation: Installation,
        *,
        permissions: dict[str, str] | None = None,
        repositories: Iterable[str] = (),
        repository_ids: Iterable[int] = (),
    ) -> TokenGrant:
        """Make an installation access token.

        Args:
            installation: Whom the token speaks for.
            permissions: A subset of what the installation has; all of it by default.
            repositories: Repository names (without owner) to narrow to.
            repository_ids: Repository ids to narrow to.

        Raises:
            ApiError: 422 for a permission or repository that the installation lacks, 403 when it
                is suspended.
        """
        if installation.suspended_at is not None:
            raise ApiError(403, "This installation has been suspended")
        wanted = dict(permissions or installation.permissions)
        for name, level in wanted.items():
            granted = LEVELS.get(installation.permissions.get(name, ""), 0)
            if level not in LEVELS or LEVELS[level] > granted:
                raise invalid("The permissions requested are not granted to this installation.")
        now = self._world.clock()
        claims = {
            "iss": "runsfleet-local",
            "sub": str(installation.id),
            "jti": secrets.token_hex(16),
        }
        body = jwt.encode(claims | {"iat": int(now)}, self._signing_key, algorithm="HS256")
        grant = TokenGrant(
            token=f"ghs_{installation.app_id}_{body}",
            installation=installation,
            expires_at=now + TOKEN_SECONDS,
            permissions=wanted,
            repository_ids=self._narrow(installation, tuple(repositories), tuple(repository_ids)),
        )
        self._world.tokens[grant.token] = grant
        return grant

    def _narrow(
        self, installation: Installation, names: tuple[str, ...], numbers: tuple[int, ...]
    ) -> set[int] | None:
        if not names and not numbers:
            return None
        if len(names) + len(numbers) > MAX_TOKEN_REPOSITORIES:
            raise invalid(f"At most {MAX_TOKEN_REPOSITORIES} repositories can be requested.")
        known = {
            repository.id: repository
            for repository in self._world.repositories.values()
            if installation.covers(repository)
        }
        by_name = {repository.name.lower(): repository.id for repository in known.values()}
        found = {by_name.get(name.lower()) for name in names}
        found |= {number if number in known else None for number in numbers}
        if None in found:
            raise invalid(
                "There is at least one repository that does not exist or is not accessible to "
                "the parent installation."
            )
        return {number for number in found if number is not None}
