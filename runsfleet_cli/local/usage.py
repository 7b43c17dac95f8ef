"""How many AWS and GitHub requests a job takes, counted from the record. Pure.

Counted is what functions and instances ask for. What the operator, the CDK CLI and the hypervisor
do is nobody's job, nor is what a function asks once in its life (secrets, a token for GitHub), nor
what sweeps ask by the clock: that is told apart as `once`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# kept by a warm function, or for an hour; a hundred jobs do not ask more often than one
_ONCE = {
    ("secretsmanager", "GetSecretValue"),
    ("ssm", "GetParameter"),
    ("github", "POST /app/installations/{installation_id}/access_tokens"),
    ("github", "GET /orgs/{org}/actions/runners/downloads"),
    ("github", "GET /repos/{owner}/{repo}/actions/runners/downloads"),
    ("github", "GET /orgs/{org}/installation"),
    ("github", "GET /repos/{owner}/{repo}/installation"),
}

_BY_THE_CLOCK = "housekeeping"


@dataclass(frozen=True, slots=True)
class UsageLine:
    """Equal requests of one kind of caller.

    Args:
        caller: `webhook`, `dispatch`, `termination`, `events`, `housekeeping`, another function's
            name, or `instance`.
        service: Signing name, or `github`.
        action: For example `SendMessage`.
        count: How many.
        failed: How many of them were answered with an error.
        once: Whether this is not a matter of how many jobs there are.
    """

    caller: str
    service: str
    action: str
    count: int
    failed: int
    once: bool


@dataclass(frozen=True, slots=True)
class CallUsage:
    """What some jobs took together.

    Args:
        jobs: How many jobs were launched.
        lines: By caller, service and action.
    """

    jobs: int
    lines: tuple[UsageLine, ...]

    @property
    def aws_per_job(self) -> float | None:
        """AWS calls for each job; None without a job."""
        return self._per_job(lambda line: line.service != "github")

    @property
    def github_per_job(self) -> float | None:
        """GitHub requests for each job; None without a job."""
        return self._per_job(lambda line: line.service == "github")

    def _per_job(self, wanted: Any) -> float | None:
        if not self.jobs:
            return None
        total = sum(line.count for line in self.lines if wanted(line) and not line.once)
        return round(total / self.jobs, 2)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "jobs": self.jobs,
            "aws_per_job": self.aws_per_job,
            "github_per_job": self.github_per_job,
            "lines": [
                {
                    "caller": line.caller,
                    "service": line.service,
                    "action": line.action,
                    "count": line.count,
                    "failed": line.failed,
                    "once": line.once,
                }
                for line in self.lines
            ],
        }


def usage_of(
    calls: Iterable[Mapping[str, Any]], github: Iterable[Mapping[str, Any]], *, jobs: int
) -> CallUsage:
    """Count requests.

    Args:
        calls: Of the interceptor's record.
        github: Of the stand-in's record, API surface only.
        jobs: How many jobs were launched meanwhile.
    """
    counts: Counter[tuple[str, str, str]] = Counter()
    failures: Counter[tuple[str, str, str]] = Counter()
    for call in calls:
        caller = caller_of(str(call["caller"]))
        if caller is None:
            continue
        key = (caller, str(call["service"]), str(call["action"]))
        counts[key] += 1
        failures[key] += call["outcome"] != "ok"
    for request in github:
        key = ("functions", "github", f"{request['method']} {request['route']}")
        counts[key] += 1
        failures[key] += int(request["status"]) >= 400  # noqa: PLR2004
    lines = [
        UsageLine(
            *key,
            count=count,
            failed=failures[key],
            once=key[1:] in _ONCE or key[0] == _BY_THE_CLOCK,
        )
        for key, count in sorted(counts.items(), key=lambda item: (item[0][1] == "github", item[0]))
    ]
    return CallUsage(jobs, tuple(lines))


def caller_of(caller: str) -> str | None:
    """Which part of the fleet a caller is; None for whoever is none."""
    kind, _, name = caller.partition(":")
    if kind == "instance":
        return "instance"
    if kind != "function":
        return None
    lowered = name.lower()
    for part, marks in {
        "webhook": ("intake", "webhook"),
        "dispatch": ("dispatch",),
        "termination": ("termination",),
        "events": ("events",),
        _BY_THE_CLOCK: ("housekeeping",),
    }.items():
        if any(mark in lowered for mark in marks):
            return part
    return name
