"""Log lines to CloudWatch Logs. Satisfies ``TakesLogs``."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from runsfleet_runtime.agent.errors import LogsRefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mypy_boto3_logs import CloudWatchLogsClient

    from runsfleet_runtime.agent.aws import AwsClients
    from runsfleet_runtime.agent.log_batches import LogEvent

_REFUSED = frozenset({"InvalidParameterException"})


class CloudWatchLogs:
    """Writes to the streams of one log group.

    Args:
        clients: AWS.
        group: Name of the log group.
    """

    def __init__(self, clients: AwsClients, *, group: str) -> None:
        self._clients = clients
        self._group = group
        self._streams: set[str] = set()

    def put(self, stream: str, events: Sequence[LogEvent]) -> None:
        """Write events, in chronological order, to a stream, which is made when it is new.

        Raises:
            LogsRefusedError: They will never be taken.
            ClientError: They were not taken this time.
        """
        from botocore.exceptions import ClientError

        client = cast("CloudWatchLogsClient", self._clients.client("logs"))
        if stream not in self._streams:
            try:
                client.create_log_stream(logGroupName=self._group, logStreamName=stream)
            except ClientError as error:
                if error.response["Error"]["Code"] != "ResourceAlreadyExistsException":
                    raise
            self._streams.add(stream)
        try:
            client.put_log_events(
                logGroupName=self._group,
                logStreamName=stream,
                logEvents=[{"timestamp": e.at, "message": e.text} for e in events],
            )
        except ClientError as error:
            if error.response["Error"]["Code"] in _REFUSED:
                raise LogsRefusedError(str(error)) from error
            raise
