"""Posts what SNS brings to a Slack channel.

What was not posted is raised: Lambda invokes the function twice more, after a minute and after two,
and then leaves the event to its dead-letter queue. A message may so come twice, and never be lost
unseen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from runsfleet_runtime.notifications.model import Notice, to_slack
from runsfleet_runtime.notifications.slack import RefusedError
from runsfleet_runtime.secrets import ReadsSecrets
from runsfleet_runtime.telemetry.log import get_logger

log = get_logger("notifications")


class PostsMessages(Protocol):
    """A chat that takes messages."""

    def post(self, url: str, body: Mapping[str, Any]) -> None:
        """Post a message.

        Raises:
            NotPostedError: If it was not taken.
        """


class Notifier:
    """The use case.

    Args:
        chat: Where messages go.
        secrets: Where the webhook's address is read.
        webhook: Reference to it.
    """

    def __init__(self, *, chat: PostsMessages, secrets: ReadsSecrets, webhook: str) -> None:
        self._chat = chat
        self._secrets = secrets
        self._webhook = webhook

    def tell(self, notice: Notice) -> None:
        """Post one notice.

        Raises:
            NotPostedError: If it was not taken.
            SecretError: If the webhook's address could not be read.
        """
        body = to_slack(notice)
        address = self._secrets.read(self._webhook)
        try:
            self._chat.post(address, body)
        except RefusedError:
            # the address may have been replaced since it was read
            renewed = self._secrets.refresh(self._webhook)
            if renewed == address:
                raise
            self._chat.post(renewed, body)
        log.info("posted", extra={"text": body["text"]})
