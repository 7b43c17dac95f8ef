"""EventBridge: sources that begin with `aws.` belong to AWS."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from runsfleet_cli.local.interceptor.answers import json_answer

if TYPE_CHECKING:
    from runsfleet_cli.local.interceptor.aws_request import Answer, AwsRequest
    from runsfleet_cli.local.interceptor.proxy import Forward, Interceptor

_RESERVED = "aws."
_REFUSED = {
    "ErrorCode": "NotAuthorizedForSourceException",
    "ErrorMessage": "Not authorized for the source.",
}


class ServiceEventsRefused:
    """PutEvents of a client with a source of AWS is refused, entry by entry.

    The local emulator takes them (see `emulator_boot.py`), as the hypervisor publishes EC2's.

    Args:
        interceptor: Signs anew what is left of a request.
    """

    def __init__(self, interceptor: Interceptor) -> None:
        self._interceptor = interceptor

    def wants(self, request: AwsRequest) -> bool:
        """PutEvents with such an entry."""
        return request.is_call("events", "PutEvents") and any(
            _is_reserved(entry) for entry in request.parameters.get("Entries", [])
        )

    async def answer(self, request: AwsRequest, forward: Forward) -> Answer:
        """Refuse those entries and pass the others on."""
        entries = request.parameters["Entries"]
        rest = [entry for entry in entries if not _is_reserved(entry)]
        taken: list[dict[str, Any]] = []
        if rest:
            body = json.dumps(request.parameters | {"Entries": rest}).encode()
            answer = await forward(await self._interceptor.rewritten(request, body) or request)
            if not answer.ok:
                return answer
            taken = json.loads(answer.body)["Entries"]
        results = [
            _REFUSED
            if _is_reserved(entry)
            else (taken.pop(0) if taken else {"EventId": str(uuid.uuid4())})
            for entry in entries
        ]
        failed = sum("ErrorCode" in result for result in results)
        return json_answer({"FailedEntryCount": failed, "Entries": results})


def _is_reserved(entry: dict[str, Any]) -> bool:
    return str(entry.get("Source", "")).startswith(_RESERVED)
