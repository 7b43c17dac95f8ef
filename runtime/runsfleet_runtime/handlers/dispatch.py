"""Dispatch function: batches of up to ten messages of the jobs queue (FIFO, grouped by job).

Lifecycle: one batch an invocation; messages whose ids are answered come back after their visibility
timeout, the others are deleted. Each job is a message group of its own, so a returned message holds
up no other job.
Gotcha: the function's timeout < a claim's lease < the queue's visibility timeout. A message that
comes back must find its claim expired.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from runsfleet_runtime import composition
from runsfleet_runtime.contract.messages import ContractError, JobMessage
from runsfleet_runtime.handlers.batch import BatchAnswer, come_back, deadline_of, refuse_record
from runsfleet_runtime.jobs.dispatch import ReceivedJob
from runsfleet_runtime.telemetry.traces import SpanKind


def handler(event: Mapping[str, Any], context: Any) -> BatchAnswer:
    """Dispatch one batch."""
    function = composition.dispatch()
    returned: set[str] = set()
    batch: list[ReceivedJob] = []
    for record in event["Records"]:
        try:
            job = JobMessage.from_json(record["body"])
        except ContractError as error:
            returned.add(refuse_record(record, error))
            continue
        span = function.tracer.begin(
            "dispatch",
            job.traceparent,
            kind=SpanKind.CONSUMER,
            job_id=job.job_id,
            run_id=job.run_id,
            repository=job.repository,
            dispatch=job.dispatch,
            requeues=job.requeues,
        )
        batch.append(
            ReceivedJob(
                message_id=record["messageId"],
                receipt_handle=record["receiptHandle"],
                job=replace(job, traceparent=span),
                receives=int(record.get("attributes", {}).get("ApproximateReceiveCount", 1)),
            )
        )
    try:
        returned |= function.dispatcher.dispatch(batch, deadline=deadline_of(context))
    finally:
        function.metrics.flush()
        function.tracer.flush()
    return come_back(returned)
