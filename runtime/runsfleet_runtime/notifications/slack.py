"""An incoming webhook of Slack.

Gotcha: the webhook's address is the secret: whoever has it may post. It is in no log line and in no
error, also not in those of the standard library, which is why none is chained to ours.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from email.message import Message
from http.client import HTTPException
from typing import Any, Final
from urllib.parse import urlsplit

TRIES: Final = 3
REQUEST_SECONDS: Final = 5.0
LONGEST_WAIT_SECONDS: Final = 5.0
"""Between two tries. Who is told to wait longer leaves it to Lambda, which invokes again after a
minute and after two more."""

_LONGEST_ANSWER: Final = 200
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500


class NotPostedError(Exception):
    """A message was not posted; the text says why and never where to."""


class RefusedError(NotPostedError):
    """Slack will not take this message at this address, however often it is posted."""


class SlackWebhook:
    """Posts messages.

    Args:
        sleep: Waits for some seconds.

    Example:
        >>> SlackWebhook(sleep=time.sleep).post(url, {"text": "hello"})  # doctest: +SKIP
    """

    def __init__(self, *, sleep: Callable[[float], None]) -> None:
        self._sleep = sleep
        self._opener = urllib.request.build_opener(_NoRedirect)

    def post(self, url: str, body: Mapping[str, Any]) -> None:
        """Post a message; tried three times while Slack is busy or not reachable.

        Args:
            url: The webhook's address.
            body: Blocks and text.

        Raises:
            RefusedError: If the address is wrong or was revoked, or the message is malformed.
            NotPostedError: If Slack did not take it.
        """
        request = _request(url, json.dumps(body).encode())
        failure = ""
        for tries_left in reversed(range(TRIES)):
            wait = float(TRIES - tries_left)
            try:
                with self._opener.open(request, timeout=REQUEST_SECONDS):
                    return
            except urllib.error.HTTPError as error:
                with error:
                    failure = f"Slack answered {error.code}: {_text(error)}"
                    if error.code != _TOO_MANY and error.code < _SERVER_ERROR:
                        raise RefusedError(f"{failure}; check the webhook's secret") from None
                    wait = _retry_after(error.headers, wait)
            except (OSError, HTTPException) as error:
                # an OSError's text may hold the host, which is no secret; others may hold the path
                failure = f"Slack was not reached: {type(error).__name__}"
            if not tries_left or wait > LONGEST_WAIT_SECONDS:
                break
            self._sleep(wait)
        raise NotPostedError(failure)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET, and its address would be somebody else's choice."""

    def redirect_request(self, *_: Any) -> None:
        """Follow nothing: the answer is then an error like any other."""


def _request(url: str, data: bytes) -> urllib.request.Request:
    parts = urlsplit(url)
    # a stand-in on this very machine needs no certificate; everything else does
    safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    if not safe or any(c.isspace() or not c.isprintable() for c in url):
        raise NotPostedError(
            "the secret of the Slack webhook is no https address; store the address that Slack "
            "shows under Incoming Webhooks, and nothing else"
        )
    return urllib.request.Request(  # noqa: S310  # the scheme was looked at
        url, data=data, headers={"Content-Type": "application/json"}, method="POST"
    )


def _retry_after(headers: Message, default: float) -> float:
    try:
        return max(float(headers.get("Retry-After", default)), 0.0)
    except ValueError:
        return default


def _text(error: urllib.error.HTTPError) -> str:
    """Return what Slack says, a word such as ``no_service``."""
    try:
        return error.read(_LONGEST_ANSWER).decode(errors="replace").strip() or error.reason
    except (OSError, HTTPException):
        return error.reason
