"""Notify function: posts what arrives at an SNS topic to a Slack channel.

Lifecycle: one notification an invocation, as SNS does it; the use case is built on the first and
kept while warm.
Gotcha: SNS invokes without waiting for the answer. What fails here is invoked again by Lambda, and
goes to the dead-letter queue after three times.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runsfleet_runtime import composition
from runsfleet_runtime.notifications.model import Notice


def handler(event: Mapping[str, Any], context: object) -> None:
    """Post the notifications of one event."""
    del context
    function = composition.notify()
    for record in event["Records"]:
        sns = record["Sns"]
        function.notifier.tell(Notice(sns.get("Subject") or "", sns["Message"]))
