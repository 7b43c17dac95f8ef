"""Depth of a queue. SQS tells the age of a message to CloudWatch only, minutes late."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.health.model import QueueDepth
from runsfleet_runtime.health.ports import NotReadError

_WAITING = "ApproximateNumberOfMessages"
_DELAYED = "ApproximateNumberOfMessagesDelayed"
_IN_FLIGHT = "ApproximateNumberOfMessagesNotVisible"


class SqsDepth:
    """Adapter of :class:`~runsfleet_runtime.health.ports.CountsMessages`.

    Args:
        client: An SQS client.
        queue_url: The queue.
    """

    def __init__(self, client: Any, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def depth(self) -> QueueDepth:
        """Return how many messages it has; see ``CountsMessages``."""
        try:
            answer = self._client.get_queue_attributes(
                QueueUrl=self._queue_url, AttributeNames=[_WAITING, _DELAYED, _IN_FLIGHT]
            )
        except (ClientError, BotoCoreError) as error:
            raise NotReadError("queue") from error
        counts = {name: int(value) for name, value in answer["Attributes"].items()}
        return QueueDepth(
            waiting=counts.get(_WAITING, 0) + counts.get(_DELAYED, 0),
            in_flight=counts.get(_IN_FLIGHT, 0),
        )
