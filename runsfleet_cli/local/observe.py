"""Tells the timeline what the GitHub stand-in sees: jobs, deliveries and steps."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runsfleet_cli.local.github import GitHubStandIn
    from runsfleet_cli.local.github.world import Job
    from runsfleet_cli.local.timeline import Timeline

_STEP_SECONDS = 0.1
_LONGEST_ANSWER = 500


class Observer:
    """Between one stand-in and one timeline.

    Args:
        timeline: Is told.
        github: Is watched.

    Example:
        >>> observer = Observer(timeline, github)
        >>> observer.start()
        >>> await observer.stop()
    """

    def __init__(self, timeline: Timeline, github: GitHubStandIn) -> None:
        self._timeline = timeline
        self._github = github
        self._watcher: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._github.subscribe(self._on_event)
        self._watcher = asyncio.ensure_future(self._watch_steps())

    async def stop(self) -> None:
        """Watch no more."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)

    def _on_event(self, event: Mapping[str, Any]) -> None:
        if event["kind"] == "workflow_job":
            job = self._github.world.jobs.get(int(event["job_id"]))
            if job is not None:
                self._tell_job(job)
                # its last steps come with its end, and belong before it
                self._tell_steps(job)
        elif event["kind"] == "delivery":
            self._on_delivery(event)
        self._timeline.on_github(event)

    def _on_delivery(self, event: Mapping[str, Any]) -> None:
        if event["event"] != "workflow_job":
            return
        delivery = self._github.webhooks.log[int(event["id"])]
        job_id = _object(_object(_parsed(delivery.body)).get("workflow_job")).get("id")
        known = self._github.world.jobs.get(job_id) if isinstance(job_id, int) else None
        if known is not None:
            self._tell_job(known)
        self._timeline.on_delivery(
            time=event["time"],
            job_id=job_id if isinstance(job_id, int) else None,
            action=str(event["action"]),
            status=int(event["status_code"]),
            seconds=float(event["duration"]),
            answer=answer_text(delivery.response_body),
        )

    def _tell_job(self, job: Job) -> None:
        self._timeline.on_job_known(
            job.id,
            run_id=job.run_id,
            name=job.planned.name,
            repository=job.repository.full_name,
            labels=tuple(job.labels),
        )

    async def _watch_steps(self) -> None:
        """Steps come with the runner's log, which announces nothing."""
        finished: set[int] = set()
        while True:
            await asyncio.sleep(_STEP_SECONDS)
            for job in list(self._github.world.jobs.values()):
                if job.id in finished:
                    continue
                self._tell_steps(job)
                if job.done:
                    finished.add(job.id)

    def _tell_steps(self, job: Job) -> None:
        for step in job.steps:
            moment = step.completed_at or time.time()
            self._timeline.on_step(moment, job.id, step.name, step.status, step.conclusion)


def answer_text(body: str) -> str:
    """What a webhook's answer says, for people.

    Example:
        >>> answer_text('{"outcome": "ignored", "reason": "another event"}')
        'ignored, another event'
    """
    found = _object(_parsed(body))
    parts = [found.get(name) for name in ("outcome", "reason")]
    return ", ".join(part for part in parts if isinstance(part, str) and part)[:_LONGEST_ANSWER]


def _parsed(body: bytes | str) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
