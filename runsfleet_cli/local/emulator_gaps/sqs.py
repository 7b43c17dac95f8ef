"""SQS: a FIFO queue takes no delay for a single message."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from runsfleet_cli.local.interceptor.answers import error_answer, json_answer

if TYPE_CHECKING:
    from runsfleet_cli.local.interceptor.aws_request import Answer, AwsRequest
    from runsfleet_cli.local.interceptor.proxy import Forward, Interceptor

_CODE = "InvalidParameterValue"


class FifoDelayRefused:
    """DelaySeconds of a message on a FIFO queue is an error; MiniStack takes it.

    Args:
        interceptor: Signs anew what is left of a batch.
    """

    def __init__(self, interceptor: Interceptor) -> None:
        self._interceptor = interceptor

    def wants(self, request: AwsRequest) -> bool:
        """Messages with a delay for a queue whose name ends with .fifo."""
        if not request.is_call("sqs", "SendMessage", "SendMessageBatch"):
            return False
        if not str(request.parameters.get("QueueUrl", "")).endswith(".fifo"):
            return False
        return any("DelaySeconds" in message for message in _messages(request.parameters))

    async def answer(self, request: AwsRequest, forward: Forward) -> Answer:
        """Refuse the message, or those of a batch, and send the others."""
        if request.action == "SendMessage":
            delay = request.parameters["DelaySeconds"]
            return error_answer(request, _CODE, 400, _reason(delay))
        entries = request.parameters["Entries"]
        failed = [
            {
                "Id": entry.get("Id", ""),
                "SenderFault": True,
                "Code": _CODE,
                "Message": _reason(entry["DelaySeconds"]),
            }
            for entry in entries
            if "DelaySeconds" in entry
        ]
        rest = [entry for entry in entries if "DelaySeconds" not in entry]
        if not rest:
            return json_answer({"Successful": [], "Failed": failed})
        body = json.dumps(request.parameters | {"Entries": rest}).encode()
        rewritten = await self._interceptor.rewritten(request, body)
        if rewritten is None:
            return await forward(request)
        answer = await forward(rewritten)
        if not answer.ok:
            return answer
        result = json.loads(answer.body)
        result["Failed"] = [*result.get("Failed", []), *failed]
        return json_answer(result)


def _messages(parameters: dict[str, Any]) -> list[dict[str, Any]]:
    entries = parameters.get("Entries")
    return entries if isinstance(entries, list) else [parameters]


def _reason(delay: object) -> str:
    return (
        f"Value {delay} for parameter DelaySeconds is invalid. Reason: The request include "
        "parameter that is not valid for this queue type."
    )
