"""Talks to the service: signs in with the runner's key, then JSON over HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Mapping
from typing import Any

from .settings import Settings  # noqa: TID252 - packed under another name

USER_AGENT = "GitHubActionsRunner-local/2.337.0"
# DigestInfo of SHA-256 (RFC 8017, section 9.2)
_SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


class ServiceError(Exception):
    """The service said no.

    Args:
        status: HTTP status.
        message: What it said.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status} {message}")
        self.status = status
        self.message = message


class ConnectionLostError(Exception):
    """The service cannot be reached at the moment."""


def _encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def _number(text: str) -> int:
    return int.from_bytes(base64.b64decode(text), "big")


def sign_rs256(message: bytes, rsa: Mapping[str, str]) -> bytes:
    """Sign with RSASSA-PKCS1-v1_5 and SHA-256.

    Args:
        message: What to sign.
        rsa: ``modulus`` and ``d`` as base64 of big-endian numbers.
    """
    modulus = _number(rsa["modulus"])
    size = (modulus.bit_length() + 7) // 8
    digest = _SHA256_PREFIX + hashlib.sha256(message).digest()
    padded = b"\x00\x01" + b"\xff" * (size - len(digest) - 3) + b"\x00" + digest
    return pow(int.from_bytes(padded, "big"), _number(rsa["d"]), modulus).to_bytes(size, "big")


def open_url(request: urllib.request.Request, seconds: float) -> tuple[int, bytes]:
    """Send a request; loopback addresses never go through a proxy.

    Raises:
        ServiceError: For an answer that is not a success.
        ConnectionLostError: When there is no answer.
    """
    handlers: list[urllib.request.BaseHandler] = []
    host = urllib.parse.urlsplit(request.full_url).hostname or ""
    if host in _LOOPBACK or host.endswith(".localhost"):
        handlers.append(urllib.request.ProxyHandler({}))
    if request.full_url.startswith("https:"):
        # honours SSL_CERT_FILE, as the real runner on Linux does
        handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context()))
    request.add_header("User-Agent", USER_AGENT)
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=seconds) as answer:
            return int(answer.status), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            text = error.read().decode(errors="replace")
        try:
            message = str(json.loads(text)["message"])
        except (ValueError, KeyError, TypeError):
            message = text[:200]
        raise ServiceError(error.code, message) from error
    except (OSError, ValueError) as error:
        raise ConnectionLostError(str(error)) from error


def post_json(url: str, body: Mapping[str, Any], *, seconds: float = 30.0) -> Any:
    """Post JSON without authentication and answer the JSON that comes back."""
    request = urllib.request.Request(  # noqa: S310 - the configured service
        url,
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
        method="POST",
    )
    return json.loads(open_url(request, seconds)[1] or b"null")


class Service:
    """The service as one runner sees it.

    Args:
        settings: The runner's configuration.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._token = ""

    def sign_in(self) -> None:
        """Prove the runner's identity and keep the access token."""
        now = int(time.time())
        claims = {
            "sub": self._settings.client_id,
            "iss": self._settings.client_id,
            "aud": self._settings.authorization_url,
            "jti": str(uuid.uuid4()),
            "iat": now,
            "nbf": now - 30,
            "exp": now + 300,
        }
        head = _encode(json.dumps({"alg": "RS256", "typ": "JWT"}).encode())
        signed = f"{head}.{_encode(json.dumps(claims).encode())}"
        signature = _encode(sign_rs256(signed.encode(), self._settings.rsa))
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": f"{signed}.{signature}",
        }
        request = urllib.request.Request(  # noqa: S310 - the configured service
            self._settings.authorization_url,
            data=urllib.parse.urlencode(form).encode(),
            method="POST",
        )
        self._token = str(json.loads(open_url(request, 30.0)[1])["access_token"])

    def call(
        self, method: str, path: str, body: object = None, *, seconds: float = 30.0
    ) -> tuple[int, Any]:
        """Call an endpoint; answers the status and the JSON (None without a body).

        Args:
            method: HTTP method.
            path: Path below the server's root, for example ``/sessions``.
            body: JSON to send.
            seconds: How long to wait for the answer.
        """
        request = urllib.request.Request(  # noqa: S310 - the configured service
            f"{self._settings.server_url}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self._token}",
                "Content-Type": "application/json",
            },
            method=method,
        )
        status, content = open_url(request, seconds)
        return status, json.loads(content) if content else None
