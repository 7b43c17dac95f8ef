"""The record of every AWS and GitHub request of a local cloud, joined in order of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from runsfleet_cli.local.usage import CallUsage, usage_of

if TYPE_CHECKING:
    from runsfleet_cli.local.client import CloudClient


@dataclass(frozen=True, slots=True)
class Records:
    """Requests, and how many a job took.

    Args:
        calls: Each with time, caller, service, action, parameters, status and outcome.
        usage: Over everything so far, whatever `calls` was narrowed to.
    """

    calls: Sequence[Mapping[str, Any]]
    usage: CallUsage

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"calls": list(self.calls), "summary": self.usage.as_dict()}


def read_records(
    client: CloudClient,
    *,
    service: str = "*",
    action: str = "*",
    caller: str = "*",
    limit: int | None = None,
) -> Records:
    """Read what was asked so far.

    Args:
        client: The cloud.
        service: Pattern (`*`, `?`); GitHub's service is `github`.
        action: Pattern.
        caller: Pattern.
        limit: Only the last so many.
    """
    aws = client.aws_calls()
    requests = client.github("GET", "requests?surface=all")["requests"]
    everything = [*aws, *(_as_call(request) for request in requests)]
    wanted = [
        call
        for call in sorted(everything, key=lambda call: float(call["time"]))
        if fnmatchcase(str(call["service"]), service)
        and fnmatchcase(str(call["action"]), action)
        and fnmatchcase(str(call["caller"]), caller)
    ]
    launched = [
        job
        for job in client.state()["jobs"]
        if "launched" in ((job.get("story") or {}).get("at") or {})
    ]
    usage = usage_of(aws, [one for one in requests if one["surface"] == "api"], jobs=len(launched))
    return Records(wanted if limit is None else wanted[-limit:], usage)


def _as_call(request: Mapping[str, Any]) -> dict[str, Any]:
    moment = float(request["time"])
    failed = int(request["status"]) >= 400  # noqa: PLR2004
    return {
        "time": moment,
        "at": datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds"),
        "duration": request["duration"],
        "caller": request["caller"],
        "service": "github",
        "action": f"{request['method']} {request['route']}",
        "region": "",
        "parameters": {"path": request["path"], "surface": request["surface"]},
        "status": request["status"],
        "outcome": "fault" if request.get("fault") else "error" if failed else "ok",
        "error": str(request["status"]) if failed else None,
        "fault": request.get("fault"),
        "result": {},
    }
