"""A model of SQS: standard and FIFO queues with visibility, redelivery and dead letters.

A FIFO queue hands out one message of a group at a time and swallows repetitions for five minutes. A
standard queue may hand a message out twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.simulation.errors import client_error

DEDUPLICATION_SECONDS: Final = 300.0
_LONGEST_DELAY: Final = 900
_LONGEST_VISIBILITY: Final = 12 * 3600


@dataclass(slots=True)
class Message:
    """A message on a queue."""

    id: str
    body: str
    sent_at: float
    visible_at: float
    sender: str
    group: str = ""
    deduplication: str = ""
    receives: int = 0
    receipt: str = ""
    is_in_flight: bool = False
    source: str = ""  # the queue whose dead letter it is
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Queue:
    """A queue.

    Attributes:
        name: Its name; FIFO if it ends with ``.fifo``.
        visibility: Seconds for which a received message is hidden.
        max_receives: After so many a message goes to ``dead_letters``; 0 for never.
        dead_letters: Name of that queue.
        messages: What it holds, oldest first.
        on_change: Called when something may be there to receive at that time.
    """

    name: str
    visibility: float
    max_receives: int = 0
    dead_letters: str = ""
    messages: dict[str, Message] = field(default_factory=dict)
    seen: dict[tuple[str, str], float] = field(default_factory=dict)
    on_change: Callable[[float], None] | None = None

    @property
    def is_fifo(self) -> bool:
        """Whether it keeps the order within a group."""
        return self.name.endswith(".fifo")

    @property
    def url(self) -> str:
        """Its URL."""
        return f"https://sqs.test/123456789012/{self.name}"

    @property
    def arn(self) -> str:
        """Its ARN."""
        return f"arn:aws:sqs:eu-central-1:123456789012:{self.name}"


class Sqs:
    """The service.

    Args:
        queues: The queues.
        clock: Simulated time.
        is_repeated: Tells for each message of a standard queue whether it comes twice.
        sender: Returns who calls now, as SQS names it.
    """

    def __init__(
        self,
        queues: list[Queue],
        *,
        clock: Callable[[], float],
        is_repeated: Callable[[], bool] = lambda: False,
        sender: Callable[[], str] = lambda: "function",
    ) -> None:
        self.queues = {queue.name: queue for queue in queues}
        self._by_url = {queue.url: queue for queue in queues}
        self._by_arn = {queue.arn: queue for queue in queues}
        self._clock = clock
        self._is_repeated = is_repeated
        self._sender = sender
        self._ids = itertools.count(1)
        self._receipts: dict[str, tuple[Queue, Message]] = {}
        self._moves: list[dict[str, Any]] = []

    # -- what adapters call --------------------------------------------------------------------

    def send_message(self, **request: Any) -> dict[str, Any]:
        queue = self._queue("send_message", request)
        return {"MessageId": self._send(queue, request)}

    def send_message_batch(self, **request: Any) -> dict[str, Any]:
        queue = self._queue("send_message_batch", request)
        sent = [
            {"Id": entry["Id"], "MessageId": self._send(queue, entry)}
            for entry in request["Entries"]
        ]
        return {"Successful": sent, "Failed": []}

    def change_message_visibility(self, **request: Any) -> dict[str, Any]:
        self._queue("change_message_visibility", request)
        found = self._receipts.get(request["ReceiptHandle"])
        if found is None or found[1].receipt != request["ReceiptHandle"]:
            raise client_error("change_message_visibility", "MessageNotInflight")
        queue, message = found
        seconds = request["VisibilityTimeout"]
        if not 0 <= seconds <= _LONGEST_VISIBILITY:
            raise client_error("change_message_visibility", "InvalidParameterValue")
        message.visible_at = self._clock() + seconds
        self._tell(queue, message.visible_at)
        return {}

    def receive_message(self, **request: Any) -> dict[str, Any]:
        queue = self._queue("receive_message", request)
        found = self.receive(queue, request.get("MaxNumberOfMessages", 1))
        if (hidden := request.get("VisibilityTimeout")) is not None:
            for message in found:
                message.visible_at = self._clock() + hidden
        entries = [
            {
                "MessageId": m.id,
                "ReceiptHandle": m.receipt,
                "Body": m.body,
                "Attributes": self.attributes(m),
            }
            for m in found
        ]
        return {"Messages": entries} if entries else {}

    def delete_message(self, **request: Any) -> dict[str, Any]:
        self._queue("delete_message", request)
        self.delete(request["ReceiptHandle"])
        return {}

    def delete_message_batch(self, **request: Any) -> dict[str, Any]:
        for entry in request["Entries"]:
            self.delete_message(QueueUrl=request["QueueUrl"], ReceiptHandle=entry["ReceiptHandle"])
        return {"Successful": [{"Id": e["Id"]} for e in request["Entries"]], "Failed": []}

    def get_queue_attributes(self, **request: Any) -> dict[str, Any]:
        queue = self._queue("get_queue_attributes", request)
        now = self._clock()
        hidden = sum(m.visible_at > now and m.is_in_flight for m in queue.messages.values())
        delayed = sum(m.visible_at > now and not m.is_in_flight for m in queue.messages.values())
        return {
            "Attributes": {
                "QueueArn": queue.arn,
                "ApproximateNumberOfMessages": str(len(queue.messages) - hidden - delayed),
                "ApproximateNumberOfMessagesNotVisible": str(hidden),
                "ApproximateNumberOfMessagesDelayed": str(delayed),
            }
        }

    def start_message_move_task(self, **request: Any) -> dict[str, Any]:
        source = self._by_arn[request["SourceArn"]]
        target = request.get("DestinationArn")
        moved = 0
        for message in list(source.messages.values()):
            queue = self._by_arn[target] if target else self.queues[message.source]
            del source.messages[message.id]
            message.receives, message.is_in_flight, message.visible_at = 0, False, self._clock()
            queue.messages[message.id] = message
            self._tell(queue, message.visible_at)
            moved += 1
        handle = f"move-{next(self._ids)}"
        self._moves.append(
            {
                "TaskHandle": handle,
                "Status": "COMPLETED",
                "SourceArn": source.arn,
                "ApproximateNumberOfMessagesMoved": moved,
                "StartedTimestamp": int(self._clock() * 1000),
            }
        )
        return {"TaskHandle": handle}

    def list_message_move_tasks(self, **request: Any) -> dict[str, Any]:
        found = [m for m in reversed(self._moves) if m["SourceArn"] == request["SourceArn"]]
        return {"Results": found[: request.get("MaxResults", 1)]}

    # -- what event source mappings and the cloud itself do ------------------------------------

    def put(self, queue: Queue, body: str, *, sender: str = "events", delay: float = 0.0) -> None:
        """Put a message on a standard queue, as EventBridge does."""
        self._add(queue, body, sender, delay)

    def receive(self, queue: Queue, most: int) -> list[Message]:
        """Receive up to so many messages; the worn ones go to the dead-letter queue."""
        now = self._clock()
        busy = {m.group for m in queue.messages.values() if m.is_in_flight and m.visible_at > now}
        found: list[Message] = []
        blocked: set[str] = set(busy)
        for message in list(queue.messages.values()):
            if len(found) >= most:
                break
            if message.visible_at > now:
                if queue.is_fifo:
                    blocked.add(message.group)
                continue
            if queue.is_fifo and message.group in blocked:
                continue
            if queue.max_receives and message.receives >= queue.max_receives:
                self._bury(queue, message)
                continue
            message.receives += 1
            message.is_in_flight = True
            message.visible_at = now + queue.visibility
            message.receipt = f"{message.id}:{message.receives}"
            self._receipts[message.receipt] = (queue, message)
            self._tell(queue, message.visible_at)
            found.append(message)
        return found

    def next_visible(self, queue: Queue) -> float | None:
        """Return when the next message can be received; ``None`` when there is none."""
        if not queue.is_fifo:
            return min((m.visible_at for m in queue.messages.values()), default=None)
        groups: dict[str, float] = {}
        for message in queue.messages.values():
            groups[message.group] = max(groups.get(message.group, 0.0), message.visible_at)
        return min(groups.values(), default=None)

    def delete(self, receipt: str) -> None:
        """Delete a received message; a FIFO queue takes its latest receipt only."""
        found = self._receipts.pop(receipt, None)
        if found is None:
            return
        queue, message = found
        if queue.is_fifo and message.receipt != receipt:
            return
        queue.messages.pop(message.id, None)
        if queue.is_fifo:
            self._tell(queue, self._clock())

    def attributes(self, message: Message) -> dict[str, str]:
        """Return the attributes that a receiver sees."""
        found = {
            "ApproximateReceiveCount": str(message.receives),
            "SentTimestamp": str(int(message.sent_at * 1000)),
            "SenderId": message.sender,
        }
        if message.group:
            found["MessageGroupId"] = message.group
            found["MessageDeduplicationId"] = message.deduplication
        if message.source:
            found["DeadLetterQueueSourceArn"] = self.queues[message.source].arn
        return found

    # -- in common -----------------------------------------------------------------------------

    def _queue(self, operation: str, request: Mapping[str, Any]) -> Queue:
        try:
            return self._by_url[request["QueueUrl"]]
        except KeyError:
            raise client_error(operation, "AWS.SimpleQueueService.NonExistentQueue") from None

    def _send(self, queue: Queue, entry: Mapping[str, Any]) -> str:
        delay = entry.get("DelaySeconds", 0)
        if not 0 <= delay <= _LONGEST_DELAY or (delay and queue.is_fifo):
            raise client_error("send_message", "InvalidParameterValue", f"DelaySeconds={delay}")
        if queue.is_fifo != ("MessageGroupId" in entry):
            raise client_error("send_message", "InvalidParameterValue", "MessageGroupId")
        if not queue.is_fifo:
            return self._add(queue, entry["MessageBody"], self._sender(), delay)
        now = self._clock()
        group, token = entry["MessageGroupId"], entry["MessageDeduplicationId"]
        if now - queue.seen.get((group, token), -DEDUPLICATION_SECONDS) < DEDUPLICATION_SECONDS:
            return "repeated"
        queue.seen[group, token] = now
        message = Message(
            id=f"m{next(self._ids)}",
            body=entry["MessageBody"],
            sent_at=now,
            visible_at=now,
            sender=self._sender(),
            group=group,
            deduplication=token,
        )
        queue.messages[message.id] = message
        self._tell(queue, now)
        return message.id

    def _add(self, queue: Queue, body: str, sender: str, delay: float) -> str:
        now = self._clock()
        number = 0
        for _ in range(2 if self._is_repeated() else 1):
            number = next(self._ids)
            message = Message(
                id=f"m{number}", body=body, sent_at=now, visible_at=now + delay, sender=sender
            )
            queue.messages[message.id] = message
            self._tell(queue, message.visible_at)
        return f"m{number}"

    def _bury(self, queue: Queue, message: Message) -> None:
        del queue.messages[message.id]
        message.is_in_flight, message.source = False, queue.name
        target = self.queues[queue.dead_letters]
        message.receives = 0
        message.visible_at = self._clock()
        target.messages[message.id] = message

    @staticmethod
    def _tell(queue: Queue, when: float) -> None:
        if queue.on_change is not None:
            queue.on_change(when)
