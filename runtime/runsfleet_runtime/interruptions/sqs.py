"""The events queue (standard): sending, with a delay, and letting a message come back later."""

from __future__ import annotations

import math
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.contract.messages import JobEndedMessage, RerunMessage
from runsfleet_runtime.telemetry.log import get_logger

log = get_logger("events.sqs")

LONGEST_DELAY: Final = 900  # seconds (SQS quota)
_LONGEST_VISIBILITY: Final = 12 * 3600  # seconds (SQS quota)


class SqsEvents:
    """Adapter of :class:`~runsfleet_runtime.interruptions.ports.SendsEvents`.

    Args:
        client: An SQS client.
        queue_url: The events queue.
    """

    def __init__(self, client: Any, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def send(self, message: JobEndedMessage | RerunMessage, *, delay: float = 0) -> bool:
        """Send a message; see :class:`~runsfleet_runtime.interruptions.ports.SendsEvents`."""
        try:
            self._client.send_message(
                QueueUrl=self._queue_url,
                MessageBody=message.to_json(),
                DelaySeconds=max(0, min(LONGEST_DELAY, math.ceil(delay))),
            )
        except (ClientError, BotoCoreError) as error:
            log.error("event not sent", extra={"error": str(error), "job_id": message.job_id})
            return False
        return True

    def defer(self, receipt_handle: str, seconds: float) -> None:
        """Defer a message; see :class:`~runsfleet_runtime.interruptions.ports.SendsEvents`."""
        timeout = max(1, min(_LONGEST_VISIBILITY, math.ceil(seconds)))
        try:
            self._client.change_message_visibility(
                QueueUrl=self._queue_url, ReceiptHandle=receipt_handle, VisibilityTimeout=timeout
            )
        except (ClientError, BotoCoreError) as error:
            # it then comes back when its present visibility timeout ends
            log.warning("event not deferred", extra={"error": str(error)})
