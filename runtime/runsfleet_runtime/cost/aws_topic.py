"""An SNS topic that is told what a day cost."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.telemetry.log import get_logger

log = get_logger("cost.aws_topic")


class SnsTopic:
    """Adapter of :class:`~runsfleet_runtime.cost.ports.Notifies`.

    The report is in the bucket before anybody is told, so a topic that does not take the message
    is a line in the log and fails nothing.

    Args:
        client: An SNS client.
        topic_arn: The topic.
    """

    def __init__(self, client: Any, topic_arn: str) -> None:
        self._client = client
        self._topic = topic_arn

    def tell(self, subject: str, text: str) -> None:
        """Publish a message.

        Args:
            subject: At most 100 characters.
            text: The message.
        """
        try:
            self._client.publish(TopicArn=self._topic, Subject=subject, Message=text)
        except (ClientError, BotoCoreError) as error:
            log.error("nobody was told", extra={"topic": self._topic, "error": str(error)})
