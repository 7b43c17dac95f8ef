"""The queues as the sweeps see them: reports and departures to send, dead letters to give back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.contract.messages import RunnerReport
from runsfleet_runtime.housekeeping.dead_letters import DeadLetter
from runsfleet_runtime.housekeeping.ports import SweepError
from runsfleet_runtime.interruptions.model import STATE_CHANGE
from runsfleet_runtime.telemetry.log import get_logger

log = get_logger("housekeeping.sqs")

_HIDDEN_SECONDS: Final = 900  # longer than the function may run: none is seen twice in a run
_REDRIVES: Final = "runs-fleet-redrives"
_REDRIVEN_AT: Final = "runs-fleet-redriven-at"


class SqsReports:
    """The termination queue; adapter of ``kept_reports.SendsReports``.

    Args:
        client: An SQS client.
        queue_url: The queue.
    """

    def __init__(self, client: Any, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def send(self, report: RunnerReport) -> None:
        """Send a report; raises ``SweepError``."""
        _asked(
            lambda: self._client.send_message(
                QueueUrl=self._queue_url, MessageBody=report.to_json()
            )
        )


class SqsDepartures:
    """The events queue; adapter of ``TellsDepartures``.

    Args:
        client: An SQS client.
        queue_url: The queue.
    """

    def __init__(self, client: Any, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def tell(self, instance_id: str, *, at: float) -> None:
        """Send what EC2 sends, by EventBridge, of an instance that has ended."""
        event = {
            "source": "runs-fleet.housekeeping",
            "detail-type": STATE_CHANGE,
            "time": datetime.fromtimestamp(at, UTC).isoformat(),
            "detail": {"instance-id": instance_id, "state": "terminated"},
        }
        _asked(
            lambda: self._client.send_message(
                QueueUrl=self._queue_url, MessageBody=json.dumps(event)
            )
        )


class SqsDeadLetters:
    """Pairs of queues; adapter of ``MovesDeadLetters``.

    Args:
        client: An SQS client.
        wait_seconds: How long an empty queue is waited for. With a second SQS asks all of its
            hosts; with none it asks some, and a queue may look empty that is not.
    """

    def __init__(self, client: Any, *, wait_seconds: int = 1) -> None:
        self._client = client
        self._wait_seconds = wait_seconds

    def receive(self, source: str, dead_letters: str) -> Sequence[DeadLetter]:
        """Receive messages and hide them for longer than a run; raises ``SweepError``."""
        answer = _asked(
            lambda: self._client.receive_message(
                QueueUrl=dead_letters,
                MaxNumberOfMessages=10,
                VisibilityTimeout=_HIDDEN_SECONDS,
                WaitTimeSeconds=self._wait_seconds,
                MessageSystemAttributeNames=["MessageGroupId", "SenderId"],
                MessageAttributeNames=["All"],
            )
        )
        return [_letter(m, source, dead_letters) for m in answer.get("Messages", [])]

    def redrive(self, letter: DeadLetter, *, now: float) -> None:
        """Send a message to its queue, then delete it here; raises ``SweepError``.

        A FIFO queue takes it for new, as its deduplication id holds the count; the same giving
        back, repeated, is one.
        """
        redrives = letter.redrives + 1
        fifo = (
            {
                "MessageGroupId": letter.group_id,
                "MessageDeduplicationId": f"{letter.message_id}:redrive-{redrives}",
            }
            if letter.group_id
            else {}
        )
        _asked(
            lambda: self._client.send_message(
                QueueUrl=letter.source,
                MessageBody=letter.body,
                MessageAttributes={
                    _REDRIVES: {"DataType": "Number", "StringValue": str(redrives)},
                    _REDRIVEN_AT: {"DataType": "Number", "StringValue": str(int(now))},
                },
                **fifo,
            )
        )
        _asked(
            lambda: self._client.delete_message(
                QueueUrl=letter.dead_letters, ReceiptHandle=letter.receipt_handle
            )
        )

    def show(self, letter: DeadLetter) -> None:
        """Make a message visible again."""
        try:
            self._client.change_message_visibility(
                QueueUrl=letter.dead_letters,
                ReceiptHandle=letter.receipt_handle,
                VisibilityTimeout=0,
            )
        except (ClientError, BotoCoreError) as error:
            log.warning("dead letter stays hidden for a while", extra={"error": str(error)})


def _letter(message: Mapping[str, Any], source: str, dead_letters: str) -> DeadLetter:
    return DeadLetter(
        source=source,
        dead_letters=dead_letters,
        message_id=message["MessageId"],
        receipt_handle=message["ReceiptHandle"],
        body=message["Body"],
        group_id=message.get("Attributes", {}).get("MessageGroupId", ""),
        sender=message.get("Attributes", {}).get("SenderId", ""),
        redrives=_count(message, _REDRIVES),
        redriven_at=float(_count(message, _REDRIVEN_AT)),
    )


def _count(message: Mapping[str, Any], name: str) -> int:
    value = message.get("MessageAttributes", {}).get(name, {}).get("StringValue", "")
    return int(value) if value.isascii() and value.isdigit() else 0


def _asked(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (ClientError, BotoCoreError) as error:
        raise SweepError(str(error)) from error
