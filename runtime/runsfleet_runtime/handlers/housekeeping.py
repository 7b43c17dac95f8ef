"""Housekeeping function: one sweep a message, from the housekeeping queue.

Lifecycle: EventBridge sends each task's message by its schedule, an operator sends one by hand; a
message whose sweep could not read comes back, and goes to the dead-letter queue after its receives.
Gotcha: two messages of one task may arrive at once. The second finds the task's lease taken and is
done with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runsfleet_runtime import composition
from runsfleet_runtime.contract.messages import ContractError, HousekeepingMessage
from runsfleet_runtime.handlers.batch import BatchAnswer, come_back, deadline_of, refuse_record
from runsfleet_runtime.telemetry.log import get_logger
from runsfleet_runtime.telemetry.traces import SpanKind

log = get_logger("housekeeping")


def handler(event: Mapping[str, Any], context: Any) -> BatchAnswer:
    """Run the sweeps of one batch."""
    function = composition.housekeeping()
    returned: set[str] = set()
    deadline = deadline_of(context)
    try:
        for record in event["Records"]:
            try:
                name = HousekeepingMessage.from_json(record["body"]).task
                with function.tracer.span("sweep", kind=SpanKind.CONSUMER, task=name.value):
                    function.runner.run(function.make(name), deadline=deadline)
            except ContractError as error:
                returned.add(refuse_record(record, error))
            except Exception as error:
                # whatever it was: the message is the sweep's only trace until its next schedule
                log.exception("sweep not run", extra={"error": str(error)})
                returned.add(record["messageId"])
    finally:
        function.metrics.flush()
        function.tracer.flush()
    return come_back(returned)
