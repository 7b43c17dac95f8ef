"""The jobs queue (FIFO): sending, and letting a message come back later.

Gotcha: a FIFO queue knows no delay for a single message. A job that must wait is sent at once with
its ``not_before``; dispatch defers it on receipt by its visibility timeout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.contract.messages import JobMessage
from runsfleet_runtime.telemetry.log import get_logger

log = get_logger("jobs.sqs")

_BATCH: Final = 10  # entries of one SendMessageBatch (SQS quota)
_LONGEST_VISIBILITY: Final = 12 * 3600  # seconds (SQS quota)


class SqsJobs:
    """Adapter of :class:`~runsfleet_runtime.jobs.ports.SendsJobs`.

    Args:
        client: An SQS client.
        queue_url: The jobs queue.
    """

    def __init__(self, client: Any, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def send(self, jobs: Sequence[JobMessage]) -> Sequence[bool]:
        """Send messages; see :class:`~runsfleet_runtime.jobs.ports.SendsJobs`."""
        sent: list[bool] = []
        for start in range(0, len(jobs), _BATCH):
            sent += self._send_batch(jobs[start : start + _BATCH])
        return sent

    def _send_batch(self, jobs: Sequence[JobMessage]) -> list[bool]:
        if len(jobs) == 1:
            return [self._send_one(jobs[0])]
        entries = [
            {
                "Id": str(index),
                "MessageBody": job.to_json(),
                "MessageGroupId": job.group_id,
                "MessageDeduplicationId": job.deduplication_id,
            }
            for index, job in enumerate(jobs)
        ]
        try:
            answer = self._client.send_message_batch(QueueUrl=self._queue_url, Entries=entries)
        except (ClientError, BotoCoreError) as error:
            log.error("messages not sent", extra={"error": str(error), "jobs": len(jobs)})
            return [False] * len(jobs)
        for failure in answer.get("Failed", []):
            log.error("message not sent", extra={"error": failure.get("Message", failure["Code"])})
        sent = {entry["Id"] for entry in answer.get("Successful", [])}
        return [str(index) in sent for index in range(len(jobs))]

    def _send_one(self, job: JobMessage) -> bool:
        try:
            self._client.send_message(
                QueueUrl=self._queue_url,
                MessageBody=job.to_json(),
                MessageGroupId=job.group_id,
                MessageDeduplicationId=job.deduplication_id,
            )
        except (ClientError, BotoCoreError) as error:
            log.error("message not sent", extra={"error": str(error), "job_id": job.job_id})
            return False
        return True

    def defer(self, receipt_handle: str, seconds: float) -> None:
        """Defer a message; see :class:`~runsfleet_runtime.jobs.ports.SendsJobs`."""
        # up, not to the nearest: a message that comes back too early is received again at once, and
        # each receive brings it nearer to the dead-letter queue
        timeout = max(1, min(_LONGEST_VISIBILITY, math.ceil(seconds)))
        try:
            self._client.change_message_visibility(
                QueueUrl=self._queue_url, ReceiptHandle=receipt_handle, VisibilityTimeout=timeout
            )
        except (ClientError, BotoCoreError) as error:
            # it then comes back when its present visibility timeout ends
            log.warning("message not deferred", extra={"error": str(error)})
