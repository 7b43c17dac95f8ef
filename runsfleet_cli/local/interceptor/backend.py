"""The emulator as the interceptor's client side sees it: pooled connections, own requests.

Example:
    >>> backend = Backend(region="eu-central-1")
    >>> backend.open()
    >>> backend.connect("http://127.0.0.1:4566")
    >>> answer = await backend.ask("ec2", "DescribeSubnets", {}, version="2016-11-15")
    >>> await backend.close()
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from runsfleet_cli.local.interceptor.aws_request import Answer
from runsfleet_cli.local.interceptor.callers import DeployedFunction, functions_of

if TYPE_CHECKING:
    import ssl
    from contextlib import AbstractAsyncContextManager

# tokens of assumed roles in a query string exceed aiohttp's default of 8,190
MAX_LINE = 65_536
# the emulator closes idle connections after 75 s
_KEEP_ALIVE_SECONDS = 30.0
_SKIPPED_DEFAULTS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "expect",
        "content-length",
    }
)
_ROOT_KEY = "test"
_PAGE = 50


class InterceptorError(Exception):
    """The interceptor cannot do what was asked of it."""


class Backend:
    """Sends requests to the emulator.

    Args:
        region: Of own requests that name none.
    """

    def __init__(self, region: str) -> None:
        self.url = ""
        self._region = region
        self._tls: ssl.SSLContext | bool = True
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        """Be ready to send. Needs a running event loop."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_SKIPPED_DEFAULTS,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
        )

    def connect(self, url: str, tls: ssl.SSLContext | None = None) -> None:
        """Say where the emulator is, and how to trust it if it serves https."""
        self.url = url.rstrip("/")
        self._tls = tls if tls is not None else True

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def request(
        self, method: str, target: str, headers: Mapping[str, str], data: object
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """An open exchange.

        Args:
            method: HTTP method.
            target: Raw path and query, sent as they are.
            headers: All but hop-by-hop ones are sent.
            data: Bytes, a stream, or None.

        Raises:
            InterceptorError: There is no backend yet.
        """
        if self._session is None or not self.url:
            msg = "the interceptor has no backend yet; call start and connect first"
            raise InterceptorError(msg)
        sent = end_to_end(headers)
        if data is not None and not isinstance(data, bytes) and "Content-Length" in headers:
            sent["Content-Length"] = headers["Content-Length"]
        return self._session.request(
            method,
            URL(self.url + target, encoded=True),
            headers=sent,
            data=data,
            allow_redirects=False,
            ssl=self._tls,
        )

    async def send(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        """A whole exchange."""
        async with self.request(method, target, headers, body or None) as received:
            return await whole(method, received)

    async def ask(
        self,
        service: str,
        action: str,
        parameters: Mapping[str, Any],
        *,
        region: str = "",
        target: str = "",
        version: str = "",
    ) -> Answer:
        """A request of our own, as the account's owner, past gaps and record.

        Args:
            service: Signing name.
            action: Operation.
            parameters: For JSON (`target` given) the body, else the flat form.
            region: Default: the interceptor's.
            target: Prefix of `X-Amz-Target`.
            version: API version of a form protocol.
        """
        headers = self._own_headers(service, region)
        if target:
            headers["X-Amz-Target"] = f"{target}.{action}"
            headers["Content-Type"] = "application/x-amz-json-1.0"
            body = json.dumps(parameters).encode()
        else:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = urlencode({"Action": action, "Version": version, **parameters}).encode()
        return await self.send("POST", "/", headers, body)

    async def list_functions(self, region: str) -> list[DeployedFunction]:
        """All functions of a region."""
        headers = self._own_headers("lambda", region)
        found: list[DeployedFunction] = []
        query: dict[str, str | int] = {"MaxItems": _PAGE}
        while True:
            answer = await self.send(
                "GET", f"/2015-03-31/functions/?{urlencode(query)}", headers, None
            )
            if not answer.ok:
                return found
            listing = json.loads(answer.body)
            found += functions_of(listing)
            if not listing.get("NextMarker"):
                return found
            query["Marker"] = listing["NextMarker"]

    def _own_headers(self, service: str, region: str) -> CIMultiDict[str]:
        stamp = time.strftime("%Y%m%d", time.gmtime())
        scope = f"{_ROOT_KEY}/{stamp}/{region or self._region}/{service}/aws4_request"
        return CIMultiDict(
            {
                "Host": URL(self.url).authority,
                # the emulator does not verify signatures of its root key
                "Authorization": (
                    f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"
                ),
            }
        )


def end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """The headers that a proxy passes on."""
    return CIMultiDict(
        (name, value) for name, value in headers.items() if name.lower() not in _HOP_BY_HOP
    )


async def whole(method: str, received: aiohttp.ClientResponse) -> Answer:
    """Read a response to its end."""
    content = await received.read()
    headers = end_to_end(received.headers)
    if method == "HEAD" and "Content-Length" in received.headers:
        # says how long the body would be
        headers["Content-Length"] = received.headers["Content-Length"]
    return Answer(received.status, headers, content)
