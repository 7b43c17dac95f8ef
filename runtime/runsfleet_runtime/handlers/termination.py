"""Termination function: reports of instances, from the termination queue.

Lifecycle: batches of up to ten reports; one that could not be taken comes back, and goes to the
dead-letter queue after three times.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from runsfleet_runtime import composition
from runsfleet_runtime.contract.messages import ContractError, RunnerReport
from runsfleet_runtime.handlers.batch import BatchAnswer, come_back, deadline_of, refuse_record

_RESERVED_SECONDS: Final = 5.0  # for the writes after GitHub's answer


def handler(event: Mapping[str, Any], context: Any) -> BatchAnswer:
    """Take one batch of reports."""
    function = composition.termination()
    returned: set[str] = set()
    reports: dict[str, RunnerReport] = {}
    for record in event["Records"]:
        try:
            reports[record["messageId"]] = RunnerReport.from_json(record["body"])
        except ContractError as error:
            returned.add(refuse_record(record, error))
    try:
        again = function.reports.take(
            list(reports.values()), deadline=deadline_of(context) - _RESERVED_SECONDS
        )
    finally:
        function.metrics.flush()
    returned.update(message_id for message_id, report in reports.items() if report in again)
    return come_back(returned)
