"""What the handlers of queues share: the partial batch answer and the invocation's deadline."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any, TypedDict

from runsfleet_runtime.telemetry.log import get_logger

log = get_logger("batch")


class _Failure(TypedDict):
    itemIdentifier: str


class BatchAnswer(TypedDict):
    """The answer that tells the event source mapping which messages must come back."""

    batchItemFailures: list[_Failure]


def come_back(message_ids: Collection[str]) -> BatchAnswer:
    """Return the answer that lets these messages come back and deletes all others."""
    return {"batchItemFailures": [{"itemIdentifier": i} for i in sorted(message_ids)]}


def deadline_of(context: Any) -> float:
    """Return the epoch seconds at which Lambda cuts this invocation off."""
    return time.time() + float(context.get_remaining_time_in_millis()) / 1000


def refuse_record(record: Mapping[str, Any], error: Exception) -> str:
    """Log a message that nobody can read; it goes to the dead-letter queue after its receives."""
    log.error(
        "message not readable", extra={"message_id": record["messageId"], "error": str(error)}
    )
    return str(record["messageId"])
