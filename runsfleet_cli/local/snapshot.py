"""The present state of a local cloud, for the page and for `--json`: asked of what really runs.

Jobs and instances come from the timeline, the GitHub stand-in and the hypervisor; queues, logs and
dashboards from the emulator, past the interceptor, so that looking is in nobody's record.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
import urllib.request
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.contract.metrics import CATALOGUE

if TYPE_CHECKING:
    from runsfleet_cli.local.deploy import AwsTarget
    from runsfleet_cli.local.github import GitHubStandIn
    from runsfleet_cli.local.hypervisor import Hypervisor
    from runsfleet_cli.local.state import Endpoints
    from runsfleet_cli.local.timeline import Timeline

_QUEUE_ATTRIBUTES = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)
_LOG_PAGES = 50
_KEPT_POINTS = 2_000
_HEALTH_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Point:
    """One published value of a metric."""

    time: float
    value: float


@dataclass(slots=True)
class Series:
    """Values of a metric with one set of dimensions."""

    name: str
    unit: str
    dimensions: Mapping[str, str]
    points: deque[Point] = field(default_factory=lambda: deque(maxlen=_KEPT_POINTS))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        known = CATALOGUE.get(self.name)
        return {
            "name": self.name,
            "unit": self.unit,
            "dimensions": dict(self.dimensions),
            "meaning": known.meaning if known is not None else "",
            "points": [[point.time, point.value] for point in self.points],
        }


class PublishedMetrics:
    """Reads embedded metrics (EMF) out of log lines, as CloudWatch does."""

    def __init__(self) -> None:
        self.series: dict[tuple[str, tuple[tuple[str, str], ...]], Series] = {}

    def read(self, line: str) -> None:
        """Take a log line; lines that are no metrics are ignored."""
        start = line.find("{")
        if start < 0 or '"_aws"' not in line:
            return
        try:
            body = json.loads(line[start:])
        except ValueError:
            return
        about = body.get("_aws") if isinstance(body, dict) else None
        if not isinstance(about, dict):
            return
        moment = float(about.get("Timestamp", 0)) / 1000
        for directive in about.get("CloudWatchMetrics", []):
            for names in directive.get("Dimensions") or [[]]:
                dimensions = {name: str(body.get(name, "")) for name in names}
                self._take(directive.get("Metrics", []), dimensions, body, moment)

    def _take(
        self,
        definitions: Sequence[Mapping[str, Any]],
        dimensions: dict[str, str],
        body: Mapping[str, Any],
        moment: float,
    ) -> None:
        for definition in definitions:
            name = str(definition.get("Name", ""))
            given = body.get(name)
            values = given if isinstance(given, list) else [given]
            key = (name, tuple(sorted(dimensions.items())))
            for value in values:
                if isinstance(value, int | float):
                    series = self.series.setdefault(
                        key, Series(name, str(definition.get("Unit", "None")), dimensions)
                    )
                    series.points.append(Point(moment, float(value)))


@dataclass(slots=True)
class Snapshots:
    """Takes snapshots.

    Args:
        timeline: What happened.
        github: The stand-in.
        hypervisor: The instances.
        target: The emulator.
        queues: URL by role.
        log_groups: Whose lines may hold metrics.
        dashboards: Names of deployed CloudWatch dashboards.
        endpoints: Set once the cloud is ready.
    """

    timeline: Timeline
    github: GitHubStandIn
    hypervisor: Hypervisor
    target: AwsTarget
    queues: Mapping[str, str]
    log_groups: Sequence[str]
    dashboards: Sequence[str] = ()
    endpoints: Endpoints | None = None
    metrics: PublishedMetrics = field(default_factory=PublishedMetrics)
    _clients: dict[str, Any] = field(default_factory=dict)
    _read_until: dict[str, int] = field(default_factory=dict)
    _read_ids: dict[str, set[str]] = field(default_factory=dict)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _dashboards: list[dict[str, Any]] | None = None

    async def take(self) -> dict[str, Any]:
        """Everything that the page shows, but for the timeline."""
        depths = await self.depths()
        await self.read_metrics()
        return {
            "time": time.time(),
            "ready": self.endpoints is not None,
            "cloud": self._about(),
            "jobs": self.jobs(),
            "instances": self.instances(),
            "queues": depths,
            "pools": [],
            "metrics": [series.as_dict() for series in self.metrics.series.values()],
            "catalogue": [
                {"name": one.name, "unit": str(one.unit), "meaning": one.meaning}
                for one in CATALOGUE.values()
            ],
            "dashboards": await self._read_dashboards(),
            "sequence": len(self.timeline.entries),
        }

    async def health(self) -> dict[str, Any] | None:
        """What the deployed `/health` answers; `None` when it does not, or has no such route."""
        if self.endpoints is None:
            return None
        return await asyncio.to_thread(_ask_health, self.endpoints)

    def jobs(self) -> list[dict[str, Any]]:
        """Every job: what GitHub knows and what the timeline saw."""
        found = []
        for job in self.github.world.jobs.values():
            story = self.timeline.jobs.get(job.id)
            instance = self.hypervisor.machines.get(story.instance_id) if story else None
            found.append(
                {
                    "job_id": job.id,
                    "run_id": job.run_id,
                    "attempt": job.attempt,
                    "name": job.planned.name,
                    "repository": job.repository.full_name,
                    "labels": list(job.labels),
                    "status": str(job.status),
                    "conclusion": None if job.conclusion is None else str(job.conclusion),
                    "queued_at": job.queued_at,
                    "started_at": job.started_at,
                    "completed_at": job.completed_at,
                    "instance_state": str(instance.state) if instance is not None else None,
                    "annotation": job.annotation,
                    "steps": [
                        {"name": s.name, "status": s.status, "conclusion": s.conclusion}
                        for s in job.steps
                    ],
                    "story": story.as_dict() if story is not None else None,
                }
            )
        return found

    def instances(self) -> list[dict[str, Any]]:
        """Every instance, the newest last."""
        jobs = {story.instance_id: story for story in self.timeline.jobs.values()}
        found = []
        for machine in self.hypervisor.machines.values():
            story = jobs.get(machine.instance_id)
            found.append(
                machine.describe()
                | {
                    "job_id": story.job_id if story is not None else None,
                    "job": story.name if story is not None else None,
                }
            )
        return found

    async def depths(self) -> dict[str, dict[str, int]]:
        """How many messages each queue holds: waiting, in flight, delayed."""
        return await asyncio.to_thread(self._depths)

    async def read_metrics(self) -> None:
        """Read what the functions have logged since the last time."""
        async with self._lock:
            await asyncio.to_thread(self._read_logs)

    def _about(self) -> dict[str, Any]:
        if self.endpoints is None:
            return {}
        return {
            "environment": self.endpoints.environment,
            "fleet": self.endpoints.fleet,
            "account": self.endpoints.account,
            "region": self.endpoints.region,
            "strict": self.endpoints.strict,
            "aws": self.endpoints.aws,
            "github": self.endpoints.github,
            "webhook": self.endpoints.webhook,
            "started_at": self.endpoints.started_at,
            "notes": list(self.endpoints.notes),
            "seconds": dict(self.endpoints.seconds),
        }

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self.target.client(service)
        return self._clients[service]

    def _depths(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for role, url in self.queues.items():
            try:
                answer = self._client("sqs").get_queue_attributes(
                    QueueUrl=url, AttributeNames=list(_QUEUE_ATTRIBUTES)
                )
            except (ClientError, BotoCoreError):
                # unknown is left out and not shown as empty
                continue
            waiting, flying, delayed = (
                int(answer["Attributes"].get(name, 0)) for name in _QUEUE_ATTRIBUTES
            )
            found[role] = {"waiting": waiting, "in_flight": flying, "delayed": delayed}
        return found

    def _read_logs(self) -> None:
        for group in self.log_groups:
            try:
                for event in self._new_events(group):
                    self.metrics.read(event["message"])
            except (ClientError, BotoCoreError):
                continue

    def _new_events(self, group: str) -> Iterator[Mapping[str, Any]]:
        since = self._read_until.get(group, 0)
        seen = self._read_ids.setdefault(group, set())
        token: dict[str, str] = {}
        for _ in range(_LOG_PAGES):
            answer = self._client("logs").filter_log_events(
                logGroupName=group, startTime=since, **token
            )
            for event in answer.get("events", []):
                mark = event.get("eventId") or f"{event['timestamp']}{event['message']}"
                if mark not in seen:
                    seen.add(mark)
                    # late lines of another worker may be a little older than the newest
                    self._read_until[group] = max(since, event["timestamp"] - 5_000)
                    yield event
            if not answer.get("nextToken"):
                return
            token = {"nextToken": answer["nextToken"]}

    async def _read_dashboards(self) -> list[dict[str, Any]]:
        if self._dashboards is None:
            self._dashboards = await asyncio.to_thread(self._get_dashboards)
        return self._dashboards

    def _get_dashboards(self) -> list[dict[str, Any]]:
        found = []
        for name in self.dashboards:
            try:
                answer = self._client("cloudwatch").get_dashboard(DashboardName=name)
                found.append({"name": name, "body": json.loads(answer["DashboardBody"])})
            except (ClientError, BotoCoreError, ValueError, KeyError):
                continue
        return found


def _ask_health(endpoints: Endpoints) -> dict[str, Any] | None:
    """Ask the route by the path that the emulator leaves to APIs; its own health has the other."""
    api = (urlsplit(endpoints.webhook).hostname or "").partition(".")[0]
    url = f"{endpoints.aws}/_aws/execute-api/{api}/health"
    trusted = ssl.create_default_context(cafile=endpoints.ca_bundle)
    try:
        with urllib.request.urlopen(url, timeout=_HEALTH_SECONDS, context=trusted) as answer:  # noqa: S310  (ours)
            found = json.loads(answer.read())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
