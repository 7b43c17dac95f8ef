"""HTTP by urllib3, which botocore brings along: one exchange, no retries, no redirects.

Connections are kept open between requests and between events. A connection that died while the
function was frozen shows as a ``TransportError`` of the next request, which the caller repeats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import urllib3

CONNECT_TIMEOUT_SECONDS = 3.0
CONNECTIONS = 16
"""Above the ten JIT configurations that dispatch mints at once."""


class TransportError(Exception):
    """No answer: the connection failed, broke or took too long."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer.

    Attributes:
        status: HTTP status.
        headers: With lower-case names.
        body: The raw body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class ExchangesHttp(Protocol):
    """Sends one HTTP request."""

    def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout: float,
    ) -> Answer:
        """Answer the server's answer, whatever its status.

        Raises:
            TransportError: If there was none.
        """


class Urllib3Transport:
    """Sends requests over a pool of connections; safe for threads.

    Args:
        ca_bundle: File of the certificate authorities to trust; the system's when ``None``.
        connections: Connections kept open to one host (16).
    """

    def __init__(self, *, ca_bundle: str | None = None, connections: int = CONNECTIONS) -> None:
        self._pool = urllib3.PoolManager(
            num_pools=2, maxsize=connections, cert_reqs="CERT_REQUIRED", ca_certs=ca_bundle
        )

    def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout: float,
    ) -> Answer:
        """Send one request; see :class:`ExchangesHttp`.

        Args:
            method: HTTP method.
            url: The whole URL.
            headers: Request headers.
            body: Request body.
            timeout: Seconds to wait for an answer once connected.
        """
        limits = urllib3.Timeout(connect=min(CONNECT_TIMEOUT_SECONDS, timeout), read=timeout)
        try:
            response = self._pool.request(
                method,
                url,
                body=body,
                headers=dict(headers),
                retries=False,
                redirect=False,
                timeout=limits,
            )
        except urllib3.exceptions.HTTPError as error:
            raise TransportError(f"{type(error).__name__}: {error}") from error
        found = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, found, response.data)

    def close(self) -> None:
        """Close the connections that are open."""
        self._pool.clear()
