"""Sends webhooks and remembers each delivery with its answer, for ``/app/hook/deliveries``.

GitHub's behaviour: the body is signed with HMAC-SHA256 over its bytes, the receiver has ten
seconds, nothing is ever redelivered by itself, and a redelivery is a new item with the same guid.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import ssl
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from typing_extensions import override

from runsfleet_cli.local.github.traffic import Fault
from runsfleet_cli.local.github.world import App, World, iso

TIMEOUT_SECONDS: Final = 10.0
"""A receiver must answer within ten seconds (GitHub's documentation)."""
MAX_PAYLOAD_BYTES: Final = 25 * 1024 * 1024
RETENTION_SECONDS: Final = 3 * 86_400
"""Deliveries can be listed for three days."""
CONCURRENCY: Final = 64
RESPONSE_LIMIT: Final = 65_536


@dataclass(slots=True)
class Delivery:
    """One attempt to deliver one event."""

    id: int
    guid: str
    app_id: int
    event: str
    action: str | None
    installation_id: int | None
    repository_id: int | None
    url: str
    delivered_at: float
    redelivery: bool
    body: bytes
    request_headers: dict[str, str]
    duration: float = 0.0
    status: str = "PENDING"
    status_code: int = 0
    response_headers: dict[str, str] = field(default_factory=dict)
    response_body: str = ""

    def summary(self) -> dict[str, Any]:
        """Answer an item of the list of deliveries."""
        return {
            "id": self.id,
            "guid": self.guid,
            "delivered_at": iso(self.delivered_at, milliseconds=True),
            "redelivery": self.redelivery,
            "duration": round(self.duration, 2),
            "status": self.status,
            "status_code": self.status_code,
            "event": self.event,
            "action": self.action,
            "installation_id": self.installation_id,
            "repository_id": self.repository_id,
            "throttled_at": None,
        }

    def detail(self) -> dict[str, Any]:
        """Answer a delivery with its request and response."""
        try:
            payload: Any = json.loads(self.body)
        except ValueError:
            payload = self.body.decode(errors="replace")
        return self.summary() | {
            "url": self.url,
            "request": {"headers": self.request_headers, "payload": payload},
            "response": {"headers": self.response_headers, "payload": self.response_body},
        }


class _LoopbackResolver(AbstractResolver):
    """Names under ``.localhost`` are this machine (RFC 6761), whatever the system says."""

    def __init__(self) -> None:
        self._system = ThreadedResolver()

    @override
    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        name = "127.0.0.1" if host.rstrip(".").endswith("localhost") else host
        return await self._system.resolve(name, port, family)

    @override
    async def close(self) -> None:
        await self._system.close()


def sign(secret: str, body: bytes) -> str:
    """Answer the value of ``X-Hub-Signature-256``."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


class Webhooks:
    """Delivers events to the Apps' webhook addresses.

    Args:
        world: For ids and the clock.
        note: Told of each finished delivery.
        ssl_context: Verifies the receiver's certificate; the system's trust by default.
        timeout: Seconds that a receiver has to answer.
        concurrency: Deliveries at the same time; the others wait for their turn.
        strike: Answers the fault that strikes an event or a delivery; none by default.
    """

    def __init__(
        self,
        world: World,
        *,
        note: Callable[[str, dict[str, object]], None],
        ssl_context: ssl.SSLContext | None = None,
        timeout: float = TIMEOUT_SECONDS,
        concurrency: int = CONCURRENCY,
        strike: Callable[[str, str], Fault | None] = lambda _method, _route: None,
    ) -> None:
        self._world = world
        self._note = note
        self._strike = strike
        self._ssl: ssl.SSLContext | bool = True if ssl_context is None else ssl_context
        self._timeout = timeout
        self._slots = asyncio.Semaphore(concurrency)
        self._tasks: set[asyncio.Task[None]] = set()
        self._client: aiohttp.ClientSession | None = None
        self.log: dict[int, Delivery] = {}

    async def start(self) -> None:
        """Open the client."""
        connector = aiohttp.TCPConnector(
            limit=CONCURRENCY, ssl=self._ssl, resolver=_LoopbackResolver()
        )
        self._client = aiohttp.ClientSession(connector=connector)

    async def stop(self) -> None:
        """Give up what is under way and close the client."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.close()

    async def settled(self) -> None:
        """Wait until no delivery is under way."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def send(
        self,
        app: App,
        event: str,
        payload: Mapping[str, Any] | bytes,
        *,
        signature: str | None = "valid",
        guid: str | None = None,
        redelivery: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Delivery | None:
        """Start a delivery.

        None when the App has no webhook address, the payload is too large, or a fault swallows it.

        Args:
            app: Whose webhook it is.
            event: The value of ``X-GitHub-Event``.
            payload: The body; a mapping is written as JSON, bytes go as they are.
            signature: ``valid``, ``wrong`` (another secret), None (no header), or a literal value.
            guid: The value of ``X-GitHub-Delivery``; a new one by default.
            redelivery: Mark the delivery as one.
            headers: Further or replaced headers.
        """
        body = payload if isinstance(payload, bytes) else _compact(payload)
        if app.webhook_url is None or len(body) > MAX_PAYLOAD_BYTES:
            return None
        if not redelivery and self._strike("POST", "webhook/event") is not None:
            return None
        about = _about(body)
        sent = _headers(app, event, guid or str(uuid.uuid1()), body, signature)
        sent |= dict(headers or {})
        delivery = Delivery(
            id=next(self._world.ids.delivery),
            guid=sent["X-GitHub-Delivery"],
            app_id=app.id,
            event=event,
            action=about.get("action"),
            installation_id=(about.get("installation") or {}).get("id"),
            repository_id=(about.get("repository") or {}).get("id"),
            url=app.webhook_url,
            delivered_at=self._world.clock(),
            redelivery=redelivery,
            body=body,
            request_headers=sent,
        )
        self.log[delivery.id] = delivery
        task = asyncio.ensure_future(self._deliver(delivery))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return delivery

    def redeliver(self, delivery: Delivery) -> Delivery | None:
        """Deliver the same bytes again under the same guid, as a new item."""
        app = self._world.apps[delivery.app_id]
        signed = {
            name: value
            for name, value in delivery.request_headers.items()
            if not name.startswith("X-Hub-Signature")
        }
        return self.send(
            app,
            delivery.event,
            delivery.body,
            guid=delivery.guid,
            redelivery=True,
            headers=signed,
        )

    async def _deliver(self, delivery: Delivery) -> None:
        async with self._slots:
            # GitHub's ten seconds begin with the request, not while it waits for its turn
            began = time.monotonic()
            fault = self._strike("POST", "webhook/delivery")
            try:
                if fault is not None:
                    await asyncio.sleep(fault.delay)
                if fault is None or fault.after or not (fault.drop or fault.status):
                    await self._post(delivery)
            finally:
                delivery.duration = time.monotonic() - began
            if fault is not None and fault.drop:
                delivery.status, delivery.status_code = "timed out", 0
            elif fault is not None and fault.status:
                delivery.status = f"Invalid HTTP Response: {fault.status}"
                delivery.status_code = fault.status
        self._note("delivery", delivery.summary())

    async def _post(self, delivery: Delivery) -> None:
        assert self._client is not None, "start() comes before the first delivery"  # noqa: S101
        try:
            async with self._client.post(
                delivery.url,
                data=delivery.body,
                headers=delivery.request_headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=self._timeout),
            ) as response:
                text = await response.content.read(RESPONSE_LIMIT)
                delivery.response_body = text.decode(errors="replace")
                delivery.response_headers = dict(response.headers)
                delivery.status_code = response.status
                good = 200 <= response.status < 300  # noqa: PLR2004 - the 2xx
                delivery.status = "OK" if good else f"Invalid HTTP Response: {response.status}"
        except TimeoutError:
            # the real API reports a timeout as 504; only codes 400 to 599 match status=failure
            delivery.status, delivery.status_code = "timed out", 504
        except aiohttp.ClientSSLError as error:
            delivery.status = f"SSL error: {error}"
        except (aiohttp.ClientError, OSError) as error:
            delivery.status, delivery.status_code = "failed to connect to host", 502
            delivery.response_body = str(error)

    def listing(self, app_id: int) -> list[Delivery]:
        """Answer an App's finished deliveries of the last three days, newest first."""
        oldest = self._world.clock() - RETENTION_SECONDS
        return [
            delivery
            for delivery in reversed(self.log.values())
            if delivery.app_id == app_id
            and delivery.status != "PENDING"
            and delivery.delivered_at >= oldest
        ]


def _compact(payload: Mapping[str, Any]) -> bytes:
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode()


def _about(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _headers(app: App, event: str, guid: str, body: bytes, signature: str | None) -> dict[str, str]:
    headers = {
        "Accept": "*/*",
        "Content-Type": "application/json",
        "User-Agent": f"GitHub-Hookshot/{hashlib.sha256(str(app.id).encode()).hexdigest()[:7]}",
        "X-GitHub-Delivery": guid,
        "X-GitHub-Event": event,
        "X-GitHub-Hook-ID": str(400_000_000 + app.id),
        "X-GitHub-Hook-Installation-Target-ID": str(app.id),
        "X-GitHub-Hook-Installation-Target-Type": "integration",
    }
    if signature is None or app.webhook_secret is None:
        return headers
    if signature == "valid":
        headers["X-Hub-Signature-256"] = sign(app.webhook_secret, body)
        # GitHub still sends the old header beside the new one
        old = hmac.new(app.webhook_secret.encode(), body, hashlib.sha1)
        headers["X-Hub-Signature"] = "sha1=" + old.hexdigest()
    elif signature == "wrong":
        headers["X-Hub-Signature-256"] = sign(app.webhook_secret + "-not", body)
    else:
        headers["X-Hub-Signature-256"] = signature
    return headers
