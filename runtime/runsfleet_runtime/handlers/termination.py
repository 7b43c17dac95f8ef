"""Termination function: reports of instances, from the termination queue.

Lifecycle: batches of up to ten reports; one that could not be taken comes back, and goes to the
dead-letter queue after five times.
Gotcha: whatever runs on an instance may send to that queue. SQS names the sender, and what the
instances' role sends counts only for the very instance that it is from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from runsfleet_runtime import composition
from runsfleet_runtime.contract.messages import ContractError, RunnerReport
from runsfleet_runtime.contract.metrics import Metric
from runsfleet_runtime.contract.tables import instance_key
from runsfleet_runtime.handlers.batch import BatchAnswer, come_back, deadline_of, refuse_record
from runsfleet_runtime.telemetry.log import get_logger
from runsfleet_runtime.telemetry.traces import SpanKind

log = get_logger("termination")

_RESERVED_SECONDS: Final = 5.0  # for the writes after GitHub's answer


def handler(event: Mapping[str, Any], context: Any) -> BatchAnswer:
    """Take one batch of reports."""
    function = composition.termination()
    returned: set[str] = set()
    reports: dict[str, RunnerReport] = {}
    for record in event["Records"]:
        try:
            report = RunnerReport.from_json(record["body"])
        except ContractError as error:
            returned.add(refuse_record(record, error))
            continue
        if _is_of_another(record, report, function.instance_role_id):
            function.metrics.add(Metric.REPORTS_REFUSED)
            log.error("report of another instance", extra={"instance_id": report.instance_id})
        else:
            span = function.tracer.begin(
                "termination",
                report.traceparent,
                kind=SpanKind.CONSUMER,
                job_id=report.job_id,
                run_id=report.run_id,
                instance_id=report.instance_id,
                status=report.status.value,
            )
            reports[record["messageId"]] = replace(report, traceparent=span)
    try:
        again = function.reports.take(
            list(reports.values()), deadline=deadline_of(context) - _RESERVED_SECONDS
        )
    finally:
        function.metrics.flush()
        function.tracer.flush()
    returned.update(message_id for message_id, report in reports.items() if report in again)
    return come_back(returned)


def _is_of_another(record: Mapping[str, Any], report: RunnerReport, role_id: str) -> bool:
    """Tell whether an instance reports in the name of another one."""
    sender = str(record.get("attributes", {}).get("SenderId", ""))
    own = instance_key(role_id, report.instance_id)
    return sender.startswith(instance_key(role_id, "")) and sender != own
