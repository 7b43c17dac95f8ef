"""The instance metadata service, version 2: who this instance is, and what awaits it.

Gotchas:
    * A token is wanted by a PUT first; launch templates of the fleet require it.
    * A proxy must never see these requests (link-local address, credentials), so none is used.
    * A failing service is not an answer: every request is tried again.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from runsfleet_runtime.agent.errors import AgentError
from runsfleet_runtime.agent.notices import SpotNotice, parse_time
from runsfleet_runtime.agent.retry import attempts

if TYPE_CHECKING:
    from collections.abc import Callable

ENDPOINT_VARIABLE = "AWS_EC2_METADATA_SERVICE_ENDPOINT"  # the SDKs' standard variable
DEFAULT_ENDPOINT = "http://169.254.169.254"
TOKEN_SECONDS = 21600  # the most that IMDS grants
TRIES = 8  # with pauses up to 5 s: about 20 s, for a network that comes up late
TIMEOUT_SECONDS = 2.0

_INSTANCE_ID = re.compile(r"i-[0-9a-f]{8,32}")
_UNAUTHORIZED = 401
_NOT_FOUND = 404
_MOST_BYTES = 64 * 1024


class Imds:
    """Reads instance metadata. Satisfies ``KnowsInstance`` and ``TellsNotices``.

    Args:
        endpoint: Address of the service, without a trailing path.
        pause: Waits that many seconds; may raise to give up.
        draw: Random numbers in [0, 1).
    """

    def __init__(
        self,
        endpoint: str = DEFAULT_ENDPOINT,
        *,
        pause: Callable[[float], None],
        draw: Callable[[], float],
    ) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._pause = pause
        self._draw = draw
        self._token: str | None = None
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def instance_id(self) -> str:
        """Return the id of this instance.

        Raises:
            AgentError: It cannot be learned.
        """
        path = "/latest/meta-data/instance-id"
        try:
            found = attempts(
                lambda: self._get(path),
                tries=TRIES,
                base=0.25,
                cap=5.0,
                pause=self._pause,
                draw=self._draw,
                retry_on=(OSError,),
            ).strip()
        except OSError as error:
            raise AgentError(f"cannot read {self._endpoint}{path}: {error}") from error
        if not _INSTANCE_ID.fullmatch(found):
            raise AgentError(f"{self._endpoint}{path} answered {found!r}, which is no instance id")
        return found

    def launched_at(self) -> datetime | None:
        """Return when EC2 launched this instance; ``None`` when the service does not tell."""
        try:
            document = json.loads(self._get("/latest/dynamic/instance-identity/document"))
            pending = datetime.fromisoformat(document["pendingTime"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return pending if pending.tzinfo else pending.replace(tzinfo=UTC)

    def spot_notice(self) -> SpotNotice | None:
        """Return the interruption that EC2 has announced; ``None`` for none.

        Raises:
            OSError: The service did not answer, which says neither.
        """
        text = self._find("/latest/meta-data/spot/instance-action")
        if text is None:
            return None
        try:
            found = json.loads(text)
            action = str(found["action"])
        except (ValueError, KeyError, TypeError) as error:
            raise OSError(f"no spot notice: {text[:200]!r}") from error
        return SpotNotice(action=action, at=parse_time(found.get("time")))

    def rebalance_notice(self) -> str | None:
        """Return when EC2 recommended a rebalance; ``None`` for never.

        Raises:
            OSError: The service did not answer, which says neither.
        """
        text = self._find("/latest/meta-data/events/recommendations/rebalance")
        if text is None:
            return None
        try:
            return str(json.loads(text)["noticeTime"])
        except (ValueError, KeyError, TypeError) as error:
            raise OSError(f"no rebalance notice: {text[:200]!r}") from error

    def _find(self, path: str) -> str | None:
        try:
            return self._get(path)
        except urllib.error.HTTPError as error:
            if error.code == _NOT_FOUND:
                return None
            raise

    def _get(self, path: str) -> str:
        if self._token is None:
            self._token = self._request(
                "PUT",
                "/latest/api/token",
                {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)},
            )
        try:
            return self._request("GET", path, {"X-aws-ec2-metadata-token": self._token})
        except urllib.error.HTTPError as error:
            if error.code == _UNAUTHORIZED:
                self._token = None  # expired; the next try gets another
            raise

    def _request(self, method: str, path: str, headers: dict[str, str]) -> str:
        request = urllib.request.Request(  # noqa: S310  the endpoint is the administrator's
            self._endpoint + path, method=method, headers=headers
        )
        with self._opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
            return str(answer.read(_MOST_BYTES).decode())
