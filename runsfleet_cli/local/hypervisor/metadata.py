"""The instance metadata service, version 2, of one local instance.

As on EC2: a token is got by PUT with a lifetime of 1 to 21,600 seconds, every GET without a valid
one is 401, a forwarded PUT is 403, what does not exist is 404.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from aiohttp import web

MAX_TOKEN_SECONDS = 21_600
_TTL_HEADER = "X-aws-ec2-metadata-token-ttl-seconds"
_TOKEN_HEADER = "X-aws-ec2-metadata-token"  # noqa: S105  (a header's name)


@dataclass(slots=True)
class InstanceFace:
    """What an instance may know of itself.

    Args:
        instance_id: `i-...`.
        instance_type: For example `c7g.xlarge`.
        zone: Availability zone.
        region: Region.
        account: Twelve digits.
        image_id: `ami-...`.
        architecture: `arm64` or `x86_64`.
        lifecycle: `spot` or `on-demand`.
        private_ip: Its address.
        launched_at: Unix time, seconds.
        user_data: The script; empty if there is none.
        role: Name of its role; empty if it has none.
        tags: Shown only with `tags_shown`.
        tags_shown: Whether the launch template lets tags be read here.
        interruption: The spot notice, once there is one.
        rebalance: Time of the rebalance recommendation, once there is one.
    """

    instance_id: str
    instance_type: str
    zone: str
    region: str
    account: str
    image_id: str
    architecture: str
    lifecycle: str
    private_ip: str
    launched_at: float
    user_data: str
    role: str
    tags: dict[str, str] = field(default_factory=dict)
    tags_shown: bool = False
    interruption: dict[str, str] | None = None
    rebalance: str | None = None

    def identity(self) -> dict[str, Any]:
        """The instance identity document."""
        return {
            "accountId": self.account,
            "architecture": self.architecture,
            "availabilityZone": self.zone,
            "imageId": self.image_id,
            "instanceId": self.instance_id,
            "instanceType": self.instance_type,
            "pendingTime": iso(self.launched_at),
            "privateIp": self.private_ip,
            "region": self.region,
            "version": "2017-09-30",
        }

    def values(self) -> dict[str, str]:
        """Every leaf below `/latest/` but credentials, by its path."""
        base = "meta-data"
        host = f"ip-{self.private_ip.replace('.', '-')}.ec2.internal"
        leaves = {
            f"{base}/ami-id": self.image_id,
            f"{base}/ami-launch-index": "0",
            f"{base}/hostname": host,
            f"{base}/local-hostname": host,
            f"{base}/instance-action": "none",
            f"{base}/instance-id": self.instance_id,
            f"{base}/instance-life-cycle": self.lifecycle,
            f"{base}/instance-type": self.instance_type,
            f"{base}/local-ipv4": self.private_ip,
            f"{base}/placement/availability-zone": self.zone,
            f"{base}/placement/region": self.region,
            f"{base}/services/domain": "amazonaws.com",
            f"{base}/services/partition": "aws",
            "dynamic/instance-identity/document": json.dumps(self.identity(), indent=2),
        }
        if self.user_data:
            leaves["user-data"] = self.user_data
        if self.interruption is not None:
            leaves[f"{base}/spot/instance-action"] = json.dumps(self.interruption)
            leaves[f"{base}/spot/termination-time"] = self.interruption["time"]
        if self.rebalance is not None:
            notice = json.dumps({"noticeTime": self.rebalance})
            leaves[f"{base}/events/recommendations/rebalance"] = notice
        if self.tags_shown:
            leaves |= {f"{base}/tags/instance/{key}": value for key, value in self.tags.items()}
        return leaves


@dataclass(frozen=True, slots=True)
class RoleCredentials:
    """Temporary keys of an instance's role."""

    access_key: str
    secret_key: str
    token: str
    expires_at: datetime


@dataclass(slots=True)
class MetadataTrouble:
    """A time in which metadata services do not answer as they should.

    Args:
        how: `refuse` answers 503, `hang` not at all.
        until: Unix time, seconds.
    """

    how: Literal["refuse", "hang"] = "refuse"
    until: float = 0.0


Credentials = Callable[[], Awaitable[RoleCredentials | None]]


class MetadataService:
    """Serves one instance at a port of its own on 127.0.0.1.

    Args:
        face: What it tells; read anew with each request.
        credentials: Gives the role's keys, None if they are not to be had.
        trouble: When it does not answer as it should; shared by all services, and none by default.
        clock: Unix time, seconds.

    Example:
        >>> service = MetadataService(face, credentials)
        >>> await service.start()
        >>> service.url
        'http://127.0.0.1:40113'
    """

    def __init__(
        self,
        face: InstanceFace,
        credentials: Credentials,
        *,
        trouble: MetadataTrouble | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._trouble = trouble or MetadataTrouble()
        self._face = face
        self._credentials = credentials
        self._clock = clock
        self._tokens: dict[str, float] = {}
        self._runner: web.ServerRunner | None = None
        self.url = ""

    async def start(self) -> None:
        """Listen."""
        self._runner = web.ServerRunner(
            web.Server(self._serve, access_log=None), shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _serve(self, request: web.BaseRequest) -> web.Response:
        if (left := self._trouble.until - self._clock()) > 0:
            if self._trouble.how == "hang":
                await asyncio.sleep(left)
            return web.Response(status=503, text="503 - Service Unavailable")
        # some clients write a second slash
        path = "/" + request.path.strip("/").replace("//", "/")
        if path == "/latest/api/token":
            return self._token(request)
        expires = self._tokens.get(request.headers.get(_TOKEN_HEADER, ""))
        if expires is None or expires < self._clock():
            return web.Response(status=401, text="401 - Unauthorized")
        if request.method not in {"GET", "HEAD"}:
            return web.Response(status=405)
        return await self._read(path.removeprefix("/latest").strip("/"))

    def _token(self, request: web.BaseRequest) -> web.Response:
        if request.method != "PUT":
            return web.Response(status=405)
        if "X-Forwarded-For" in request.headers:
            return web.Response(status=403)
        text = request.headers.get(_TTL_HEADER, "")
        if not text.isdigit() or not 1 <= int(text) <= MAX_TOKEN_SECONDS:
            return web.Response(status=400)
        token = secrets.token_urlsafe(40)
        self._tokens[token] = self._clock() + int(text)
        return web.Response(text=token, headers={_TTL_HEADER: text})

    async def _read(self, path: str) -> web.Response:
        leaves = self._face.values()
        base = "meta-data/iam/security-credentials"
        if self._face.role:
            if path == f"{base}/{self._face.role}":
                return await self._keys()
            leaves[f"{base}/{self._face.role}"] = ""
        if path in leaves:
            kind = "application/json" if path.startswith("dynamic/") else "text/plain"
            return web.Response(text=leaves[path], content_type=kind)
        prefix = f"{path}/" if path else ""
        names = sorted(
            {
                leaf.removeprefix(prefix).partition("/")[0]
                + ("/" if "/" in leaf.removeprefix(prefix) else "")
                for leaf in leaves
                if leaf.startswith(prefix)
            }
        )
        if not names:
            return web.Response(status=404, text="404 - Not Found")
        return web.Response(text="\n".join(names))

    async def _keys(self) -> web.Response:
        keys = await self._credentials()
        if keys is None:
            return web.Response(status=404, text="404 - Not Found")
        return web.json_response(
            {
                "Code": "Success",
                "LastUpdated": iso(self._clock()),
                "Type": "AWS-HMAC",
                "AccessKeyId": keys.access_key,
                "SecretAccessKey": keys.secret_key,
                "Token": keys.token,
                "Expiration": keys.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
        )


def spot_notice(now: float, seconds: float, action: str) -> dict[str, str]:
    """The document of a spot interruption, `seconds` before it happens."""
    moment = datetime.fromtimestamp(now, UTC) + timedelta(seconds=seconds)
    return {"action": action, "time": moment.strftime("%Y-%m-%dT%H:%M:%SZ")}


def iso(moment: float) -> str:
    """Unix seconds as EC2 writes times."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
