"""Events function: what EC2 (by EventBridge) and the webhook tell, from the events queue.

Lifecycle: batches of up to ten; one that could not be taken, or is to be looked at later, comes
back, and goes to the dead-letter queue after five times.
Gotcha: EventBridge delivers the events of every instance of the account, in any order, late, and at
times twice. What an event says is never acted on before the record was read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runsfleet_runtime import composition
from runsfleet_runtime.contract.messages import ContractError
from runsfleet_runtime.contract.metrics import Metric
from runsfleet_runtime.handlers.batch import BatchAnswer, come_back, deadline_of, refuse_record
from runsfleet_runtime.interruptions.events import ReceivedEvent
from runsfleet_runtime.interruptions.model import read_event


def handler(event: Mapping[str, Any], context: Any) -> BatchAnswer:
    """Take one batch of events."""
    function = composition.events()
    returned: set[str] = set()
    batch: list[ReceivedEvent] = []
    for record in event["Records"]:
        try:
            read = read_event(record["body"])
        except ContractError as error:
            function.metrics.add(Metric.EVENTS_REFUSED)
            returned.add(refuse_record(record, error))
            continue
        receives = int(record.get("attributes", {}).get("ApproximateReceiveCount", 1))
        batch.append(ReceivedEvent(record["messageId"], record["receiptHandle"], read, receives))
    try:
        returned |= function.events.take(batch, deadline=deadline_of(context))
    finally:
        function.metrics.flush()
        function.tracer.flush()
    return come_back(returned)
