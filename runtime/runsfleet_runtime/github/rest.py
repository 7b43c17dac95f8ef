"""GitHub's REST API: retries, redirects, rate limits and the meaning of each answer.

A request is repeated with growing, jittered pauses while GitHub fails (5xx, no answer), until the
caller's deadline. A rate limit is remembered for everybody who speaks for the same installation:
GitHub bans integrations that go on sending. A pause of a few seconds is waited out here, as an
instance may already be up for the job; a longer one is the caller's business.
"""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

from runsfleet_runtime.github.errors import (
    GitHubError,
    NotFoundError,
    RateLimitedError,
    RefusedError,
    UnavailableError,
)
from runsfleet_runtime.github.rate_limits import rate_limited_until, retry_after
from runsfleet_runtime.github.transport import Answer, ExchangesHttp, TransportError
from runsfleet_runtime.version import __version__

API_VERSION = "2022-11-28"
DEFAULT_DEADLINE_SECONDS = 20.0
"""A third of the dispatch function's timeout: time is left to undo what cannot be finished."""
READ_TIMEOUT_SECONDS = 10.0
"""GitHub itself ends a request after ten seconds."""
PATIENCE_SECONDS = 5.0
"""A rate limit that ends within it is waited out."""
BACKOFF_SECONDS = 0.25
BACKOFF_CAP_SECONDS = 4.0
_MAX_REDIRECTS = 3
_MAX_MESSAGE = 300
_OK, _MULTIPLE_CHOICES, _SERVER_ERROR = 200, 300, 500
_REDIRECTS = frozenset({301, 302, 307, 308})
_REQUEST_TIMEOUT, _NOT_FOUND = 408, 404
_CURES = {
    401: "check the App's id and private key",
    403: "grant the App the permission and have the installation's owner accept it",
    404: "check that the App is installed there and may see it",
    409: "remove what stands in the way",
    422: "correct the request",
}


_NEXT_LINK = re.compile(r'<([^>]*)>;\s*rel="next"')


@dataclass(frozen=True, slots=True)
class Reply:
    """A useful answer.

    Attributes:
        body: Its parsed JSON; ``None`` when it was empty.
        headers: With lower-case names.
    """

    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)

    def of_next_page(self, parameter: str) -> str | None:
        """Return what a parameter of the next page's address is; ``None`` on the last page.

        The address itself is not followed: it need not be one that may see the token.

        Example:
            >>> link = '<https://api.github.com/a?cursor=v1_x&per_page=9>; rel="next"'
            >>> Reply([], {"link": link}).of_next_page("cursor")
            'v1_x'
        """
        match = _NEXT_LINK.search(self.headers.get("link", ""))
        values = parse_qs(urlsplit(match[1]).query).get(parameter) if match else None
        return values[0] if values else None


@dataclass(frozen=True, slots=True)
class Quota:
    """What GitHub said is left of an hour's requests.

    Attributes:
        left: Requests that may still be sent.
        limit: Requests of an hour.
    """

    left: int
    limit: int


class RestApi:
    """Calls the REST API of github.com or of an Enterprise Server; safe for threads.

    Args:
        base_url: ``https://api.github.com``, or ``https://HOST/api/v3``.
        transport: Sends one request.
        clock: Epoch seconds.
        sleep: Waits for seconds.
        uniform: A random number from 0 to below 1.
    """

    def __init__(
        self,
        base_url: str,
        transport: ExchangesHttp,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._base = base_url.rstrip("/")
        parts = urlsplit(self._base)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise ValueError(
                f"the API's URL must start with https://, got {base_url!r}; use "
                "https://api.github.com or https://HOST/api/v3"
            )
        self._origin = (parts.scheme, parts.netloc)
        self._transport = transport
        self._clock = clock
        self._sleep = sleep
        self._uniform = uniform
        self._limits: dict[str, float] = {}
        self._quotas: dict[str, Quota] = {}
        self._lock = threading.Lock()

    def call(
        self,
        method: str,
        path: str,
        *,
        token: str,
        caller: str,
        body: Mapping[str, object] | None = None,
        deadline: float | None = None,
        cures: Mapping[int, str] | None = None,
    ) -> Reply:
        """Send a request and return its answer.

        Args:
            method: HTTP method.
            path: Path below the API's URL, with its query.
            token: App JWT or installation token.
            caller: Who the token speaks for; rate limits are remembered by it.
            body: JSON to send.
            deadline: Epoch seconds after which to give up; 20 s from now by default.
            cures: By status, what the reader of a refusal should do.

        Raises:
            RateLimitedError: If a rate limit lasts longer than a few seconds or the deadline.
            NotFoundError: On 404.
            RefusedError: On any other 4xx.
            UnavailableError: If there was no useful answer until the deadline.
        """
        if deadline is None:
            deadline = self._clock() + DEFAULT_DEADLINE_SECONDS
        request = f"{method} {path.partition('?')[0]}"
        attempt = 0
        while True:
            self._wait_for_limit(caller, request, deadline)
            pause = 0.0
            try:
                answer = self._exchange(method, path, token=token, body=body, deadline=deadline)
                self._note_quota(caller, answer.headers)
                if _OK <= answer.status < _MULTIPLE_CHOICES:
                    found = json.loads(answer.body) if answer.body.strip() else None
                    return Reply(found, answer.headers)
                fault = f"{answer.status} {_message(answer)}"
                if answer.status < _SERVER_ERROR and answer.status != _REQUEST_TIMEOUT:
                    self._raise_unless_limited(answer, caller, request, cures or {})
                    continue
                now = self._clock()
                pause = (retry_after(answer.headers, now=now) or now) - now
            except TransportError as error:
                fault = str(error)
            except ValueError:
                fault = "the answer is not JSON"
            attempt += 1
            pause = max(pause, self._backoff(attempt))
            if self._clock() + pause >= deadline:
                raise UnavailableError(
                    f"{request} had no useful answer after {attempt} attempts, at last: {fault}"
                )
            self._sleep(pause)

    def quota(self, caller: str) -> Quota | None:
        """Return what the last answer to a caller said is left; ``None`` when none said it."""
        with self._lock:
            return self._quotas.get(caller)

    def _note_quota(self, caller: str, headers: Mapping[str, str]) -> None:
        left, limit = (headers.get(f"x-ratelimit-{name}", "") for name in ("remaining", "limit"))
        if left.isdecimal() and limit.isdecimal():
            with self._lock:
                self._quotas[caller] = Quota(int(left), int(limit))

    def _exchange(
        self,
        method: str,
        path: str,
        *,
        token: str,
        body: Mapping[str, object] | None,
        deadline: float,
    ) -> Answer:
        url = self._base + path
        headers = {
            "accept": "application/vnd.github+json",
            "authorization": f"Bearer {token}",
            "user-agent": f"runsfleet/{__version__}",
            "x-github-api-version": API_VERSION,
        }
        content = None
        if body is not None:
            content = json.dumps(body).encode()
            headers["content-type"] = "application/json"
        for _ in range(_MAX_REDIRECTS):
            left = deadline - self._clock()
            if left <= 0:
                raise TransportError("the deadline has passed")
            answer = self._transport.exchange(
                method,
                url,
                headers=headers,
                body=content,
                timeout=min(READ_TIMEOUT_SECONDS, left),
            )
            # a renamed repository answers so; the method and the body stay
            location = answer.headers.get("location")
            if answer.status not in _REDIRECTS or not location:
                return answer
            url = urljoin(url, location)
            target = urlsplit(url)
            if (target.scheme, target.netloc) != self._origin:
                raise RefusedError(
                    f"{method} {path} was redirected to {target.netloc}, which must not see the "
                    "token; correct the API's URL",
                    status=answer.status,
                )
        raise TransportError("too many redirects")

    def _wait_for_limit(self, caller: str, request: str, deadline: float) -> None:
        with self._lock:
            until = self._limits.get(caller, 0.0)
        now = self._clock()
        if until <= now:
            return
        # those who wait do not all come back in the same instant
        pause = until - now + self._uniform()
        if pause > PATIENCE_SECONDS or now + pause >= deadline:
            raise RateLimitedError(
                f"{request} was not sent: github limits {caller} for {until - now:.0f} s",
                retry_at=until,
            )
        self._sleep(pause)

    def _raise_unless_limited(
        self, answer: Answer, caller: str, request: str, cures: Mapping[int, str]
    ) -> None:
        message = _message(answer)
        until = rate_limited_until(answer.status, answer.headers, message, now=self._clock())
        if until is None:
            raise _refusal(answer.status, message, request, cures)
        with self._lock:
            self._limits[caller] = max(until, self._limits.get(caller, 0.0))

    def _backoff(self, attempt: int) -> float:
        ceiling = min(BACKOFF_CAP_SECONDS, BACKOFF_SECONDS * 2.0 ** min(attempt, 10))
        return float(ceiling * (0.5 + 0.5 * self._uniform()))


def _message(answer: Answer) -> str:
    try:
        body = json.loads(answer.body)
        text = str(body["message"])
        if body.get("errors"):
            text += f" {json.dumps(body['errors'])}"
    except (ValueError, KeyError, TypeError, AttributeError):
        text = answer.body.decode("utf-8", "replace")
    return " ".join(text.split())[:_MAX_MESSAGE]


def _refusal(status: int, message: str, request: str, cures: Mapping[int, str]) -> GitHubError:
    cure = cures.get(status) or _CURES.get(status, "see github's documentation of this request")
    text = f"{request} was refused with {status} ({message}); {cure}"
    return NotFoundError(text) if status == _NOT_FOUND else RefusedError(text, status=status)
