"""Speaking as the GitHub App: its secret and the JSON Web Tokens signed with it.

Source of the rules: GitHub's documentation, "Generating a JSON Web Token (JWT) for a GitHub App".
PyJWT and cryptography are imported only when a token is signed, which a warm function does about
once an hour.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runsfleet_runtime.github.errors import CredentialsError
from runsfleet_runtime.secrets.reader import ReadsSecrets, SecretError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

BACKDATED_SECONDS = 60
"""GitHub advises it, for clocks that differ."""
LIFE_SECONDS = 540
"""GitHub refuses more than ten minutes; one is left for clocks that differ."""


@dataclass(frozen=True, slots=True)
class _App:
    secret: str = field(repr=False)
    issuer: str
    key: RSAPrivateKey = field(repr=False)


class AppCredentials:
    """Signs JSON Web Tokens for the App; safe for threads.

    Args:
        secrets: Reads the App's secret.
        reference: Reference to it: JSON ``{"app_id": …, "private_key": …}``; ``client_id`` may
            stand in place of ``app_id``.
        clock: Epoch seconds.
        new_id: Makes unique ids. Two tokens of the same second differ by theirs: GitHub refuses
            a token that was used before.
    """

    def __init__(
        self,
        secrets: ReadsSecrets,
        reference: str,
        *,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._secrets = secrets
        self._reference = reference
        self._clock = clock
        self._new_id = new_id
        self._app: _App | None = None
        self._lock = threading.Lock()

    def token(self) -> str:
        """Return a new App token.

        Raises:
            CredentialsError: If the secret cannot be read or is malformed.
        """
        import jwt

        app = self._load(self._read(self._secrets.read))
        now = int(self._clock())
        claims = {
            "iat": now - BACKDATED_SECONDS,
            "exp": now + LIFE_SECONDS,
            "iss": app.issuer,
            "jti": self._new_id(),
        }
        return jwt.encode(claims, app.key, algorithm="RS256")

    def renew(self) -> bool:
        """Read the secret anew, because GitHub refused a token.

        Returns:
            Whether it has changed, so that another attempt makes sense.

        Raises:
            CredentialsError: As :meth:`token`.
        """
        with self._lock:
            before = self._app.secret if self._app else None
        return self._load(self._read(self._secrets.refresh)).secret != before

    def _read(self, read: Callable[[str], str]) -> str:
        try:
            return read(self._reference)
        except SecretError as error:
            raise CredentialsError(f"the GitHub App's secret cannot be read: {error}") from error

    def _load(self, secret: str) -> _App:
        with self._lock:
            # reading a key takes longer than signing with it
            if self._app is None or self._app.secret != secret:
                self._app = self._parse(secret)
            return self._app

    def _parse(self, secret: str) -> _App:
        from cryptography.hazmat.primitives.asymmetric.rsa import (
            RSAPrivateKey,
        )
        from cryptography.hazmat.primitives.serialization import (
            load_pem_private_key,
        )

        form = 'store JSON {"app_id": "…", "private_key": "-----BEGIN …"} there'
        where = f"the GitHub App's secret {self._reference!r}"
        try:
            body = json.loads(secret)
        except ValueError:
            raise CredentialsError(f"{where} is not JSON; {form}") from None
        if not isinstance(body, dict):
            raise CredentialsError(f"{where} is not a JSON object; {form}")
        issuer = body.get("client_id") or body.get("app_id")
        pem = body.get("private_key")
        if not isinstance(issuer, str | int) or isinstance(issuer, bool) or not str(issuer).strip():
            raise CredentialsError(f"{where} lacks app_id; {form}")
        if not isinstance(pem, str) or not pem.strip():
            raise CredentialsError(f"{where} lacks private_key; {form}")
        try:
            # pasted into a console, a key's line breaks often arrive as the two characters \n
            # unsafe with keys of strangers: proving this one, which is the operator's own, takes a
            # tenth of a cold start, and what a broken one signs is refused by GitHub
            key = load_pem_private_key(
                pem.replace("\\n", "\n").strip().encode(),
                password=None,
                unsafe_skip_rsa_key_validation=True,
            )
        except (ValueError, TypeError):
            key = None
        if not isinstance(key, RSAPrivateKey):
            raise CredentialsError(
                f"the private_key in {where} is not an unencrypted RSA key in PEM form; store the "
                "file that GitHub offered for download when the key was generated"
            )
        return _App(secret, str(issuer).strip(), key)
