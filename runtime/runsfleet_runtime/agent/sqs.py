"""Reports to the termination queue. Satisfies ``SendsReports``."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

    from runsfleet_runtime.agent.aws import AwsClients
    from runsfleet_runtime.contract.messages import RunnerReport


class SqsReports:
    """Sends reports.

    Args:
        clients: AWS.
        queue_url: The termination queue.
    """

    def __init__(self, clients: AwsClients, *, queue_url: str) -> None:
        self._clients = clients
        self._queue_url = queue_url

    def send(self, report: RunnerReport) -> None:
        """Send one report."""
        client = cast("SQSClient", self._clients.client("sqs"))
        client.send_message(QueueUrl=self._queue_url, MessageBody=report.to_json())
