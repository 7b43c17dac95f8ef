"""Drives jobs through a local cloud and says whether the fleet did what it should.

Lifecycle: jobs are queued at the GitHub stand-in (from a workflow file or recorded payloads) -> the
timeline is followed until every job is over, every instance of theirs is terminated and every queue
is empty, or the time is over -> `Outcome` names what is wrong.

A red job is not a lost job: the workflow's steps are its author's business. Lost is a job that was
not taken on, or that never ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runsfleet_cli.local.usage import CallUsage, usage_of

if TYPE_CHECKING:
    from runsfleet_cli.local.client import CloudClient

_WAIT_SECONDS = 0.5
# the webhook was answered this long ago and nothing was enqueued: nothing will be
_TAKEN_SECONDS = 5.0
# queues count as empty once they were so for this long; a message may be between two
_CALM_SECONDS = 0.3
_MOST_RUNS = 500
_BY_THE_CLOCK = "housekeeping"
_GONE = {"terminated"}

Entry = Mapping[str, Any]


class DriveError(Exception):
    """Jobs cannot be queued; the message says why."""


@dataclass(frozen=True, slots=True)
class Drive:
    """What to run.

    Args:
        workflow: A workflow file.
        payload: A file of recorded `workflow_job` webhooks instead.
        labels: In place of each job's `runs-on`.
        repository: Where recorded webhooks are moved to; default: their own.
        jobs: Repeat it until so many jobs are queued.
        timeout: Seconds until what is not over counts as lost.
    """

    workflow: Path | None = None
    payload: Path | None = None
    labels: tuple[str, ...] = ()
    repository: str | None = None
    jobs: int = 1
    timeout: float = 300.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went.

    Args:
        jobs: Each job, as in the state of the cloud.
        instances: Each instance of theirs.
        queues: How many messages each queue holds at the end.
        played: The answer to each recorded payload.
        problems: What is wrong, a sentence each; empty if all is well.
        seconds: From the first queued job until all was over.
        usage: AWS and GitHub calls meanwhile.
    """

    jobs: Sequence[Mapping[str, Any]]
    instances: Sequence[Mapping[str, Any]]
    queues: Mapping[str, Mapping[str, int]]
    played: Sequence[Mapping[str, Any]]
    problems: tuple[str, ...]
    seconds: float
    usage: CallUsage

    @property
    def ok(self) -> bool:
        """Whether every job was served and nothing is left over."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "ok": self.ok,
            "problems": list(self.problems),
            "seconds": round(self.seconds, 3),
            "jobs": [_job_line(job) for job in self.jobs],
            "instances": [
                {key: value for key, value in instance.items() if key != "console"}
                for instance in self.instances
            ],
            "queues": {role: dict(depth) for role, depth in self.queues.items()},
            "payloads": [dict(entry) for entry in self.played],
            "calls": self.usage.as_dict(),
        }


@dataclass(slots=True)
class _Progress:
    begun: float
    runs: set[int] = field(default_factory=set)
    played: list[Mapping[str, Any]] = field(default_factory=list)
    sequence: int = 0
    calm_since: float | None = None


def drive(
    client: CloudClient, what: Drive, on_entry: Callable[[Entry], None] = lambda _: None
) -> Outcome:
    """Queue jobs and wait until all is over.

    Args:
        client: The cloud.
        what: What to run.
        on_entry: Told each entry of the timeline as it happens.

    Raises:
        DriveError: The file is no workflow, or there is none.
        CloudUnreachableError: The cloud ended meanwhile.
    """
    begun, started = time.time(), time.monotonic()
    state = client.state()
    progress = _Progress(begun=float(state["time"]), sequence=int(state["sequence"]))
    calls_before = _last_call(client)
    _queue(client, what, progress)
    deadline = started + what.timeout
    while True:
        for entry in client.timeline(progress.sequence, _WAIT_SECONDS):
            progress.sequence = int(entry["sequence"])
            on_entry(entry)
        state = client.state()
        now = time.monotonic()
        if _is_over(state, progress, now) or now >= deadline:
            break
    for entry in client.timeline(progress.sequence):
        on_entry(entry)
    seconds = time.monotonic() - started
    jobs = _jobs_of(state, progress)
    instances = _instances_of(state, progress)
    github = client.github("GET", "requests?surface=api")["requests"]
    usage = usage_of(
        client.aws_calls(since=calls_before),
        [entry for entry in github if float(entry["time"]) >= begun],
        jobs=len([job for job in jobs if _was_launched(job)]),
    )
    problems = tuple(_problems(state, jobs, instances, what))
    return Outcome(jobs, instances, state["queues"], progress.played, problems, seconds, usage)


def _queue(client: CloudClient, what: Drive, progress: _Progress) -> None:
    if what.workflow is None and what.payload is None:
        msg = "give a workflow file, or recorded webhooks by --payload"
        raise DriveError(msg)
    labels = list(what.labels) or None
    queued = 0
    for _ in range(_MOST_RUNS):
        if what.workflow is not None:
            body = {"file": str(what.workflow.absolute()), "labels": labels}
            runs = client.github("POST", "runs", body)["runs"]
            progress.runs |= {int(run["id"]) for run in runs}
            made = sum(len(run["jobs"]) for run in runs)
        else:
            made = _play(client, what, progress, labels)
        queued += made
        if queued >= what.jobs or made == 0:
            return


def _play(client: CloudClient, what: Drive, progress: _Progress, labels: list[str] | None) -> int:
    body = {
        "file": str((what.payload or Path()).absolute()),
        "labels": labels,
        "repository": what.repository,
        "fresh_ids": True,
    }
    played = client.github("POST", "payloads", body)["played"]
    progress.played += played
    made = {int(entry["run_id"]) for entry in played if entry.get("run_id")}
    progress.runs |= made
    return len(made)


def _last_call(client: CloudClient) -> int:
    calls = client.aws_calls(limit=1)
    return int(calls[-1]["sequence"]) if calls else 0


def _is_over(state: Mapping[str, Any], progress: _Progress, now: float) -> bool:
    jobs = _jobs_of(state, progress)
    over = all(_is_done(job, float(state["time"])) for job in jobs)
    gone = all(one["state"] in _GONE for one in _instances_of(state, progress))
    if not (over and gone) or any(_left(state).values()):
        progress.calm_since = None
        return False
    if progress.calm_since is None:
        progress.calm_since = now
    return now - progress.calm_since >= _CALM_SECONDS


def _jobs_of(state: Mapping[str, Any], progress: _Progress) -> list[Mapping[str, Any]]:
    return [job for job in state["jobs"] if int(job["run_id"]) in progress.runs]


def _instances_of(state: Mapping[str, Any], progress: _Progress) -> list[Mapping[str, Any]]:
    """All that were launched meanwhile, whoever they were for."""
    return [one for one in state["instances"] if float(one["launched_at"]) >= progress.begun]


def _story(job: Mapping[str, Any]) -> Mapping[str, Any]:
    return job.get("story") or {}


def _was_launched(job: Mapping[str, Any]) -> bool:
    return "launched" in _story(job).get("at", {})


def _is_refused(job: Mapping[str, Any], now: float) -> bool:
    """Whether the fleet was told of a job and did not take it on."""
    at = _story(job).get("at", {})
    answered = at.get("webhook")
    return "enqueued" not in at and answered is not None and now - answered > _TAKEN_SECONDS


def _refusal(job: Mapping[str, Any]) -> str:
    status = _story(job).get("webhook_status") or "not at all"
    said = _story(job).get("webhook_answer") or "without a reason"
    return f"its webhook was answered {status}, {said}"


def _is_done(job: Mapping[str, Any], now: float) -> bool:
    if job["status"] == "completed":
        # a skipped or cancelled one was never launched, and has no record to close
        return "closed" in _story(job).get("at", {}) or not _was_launched(job)
    return bool(_story(job).get("given_up")) or _is_refused(job, now)


def _problems(
    state: Mapping[str, Any],
    jobs: Sequence[Mapping[str, Any]],
    instances: Sequence[Mapping[str, Any]],
    what: Drive,
) -> list[str]:
    found = []
    now = float(state["time"])
    for job in jobs:
        if job["status"] == "completed":
            if _was_launched(job) and "closed" not in _story(job).get("at", {}):
                found.append(f"job {job['name']} ended, but its record was not closed")
        elif _story(job).get("given_up"):
            found.append(f"job {job['name']} was given up: {_story(job)['given_up']}")
        elif _is_refused(job, now):
            # of a recorded webhook this may well be right: it is somebody else's
            if what.payload is None or what.labels:
                found.append(f"job {job['name']} was not taken on: {_refusal(job)}")
        else:
            stage = max(_story(job).get("at", {"queued": 0}).items(), key=lambda item: item[1])[0]
            found.append(
                f"job {job['name']} was lost: {job['status']} at GitHub, last seen {stage}, after "
                f"{what.timeout:g} s"
            )
    found += [
        f"instance {instance['instance_id']} is still {instance['state']}"
        for instance in instances
        if instance["state"] not in _GONE
    ]
    found += [
        f"queue {role} still holds {count} message{'s' if count > 1 else ''}"
        for role, count in _left(state).items()
        if count
    ]
    return found


def _left(state: Mapping[str, Any]) -> dict[str, int]:
    """How many messages each queue holds, but for sweeps: those fall due whoever runs jobs."""
    return {
        role: sum(depth.values())
        for role, depth in state["queues"].items()
        if role != _BY_THE_CLOCK
    }


def _job_line(job: Mapping[str, Any]) -> dict[str, Any]:
    story = _story(job)
    return {
        "job_id": job["job_id"],
        "run_id": job["run_id"],
        "name": job["name"],
        "repository": job["repository"],
        "labels": job["labels"],
        "status": job["status"],
        "conclusion": job["conclusion"],
        "outcome": story.get("outcome"),
        "instance_id": story.get("instance_id"),
        "instances": story.get("instances", []),
        "instance_type": story.get("instance_type"),
        "zone": story.get("zone"),
        "capacity_type": story.get("capacity_type"),
        "at": story.get("at", {}),
        "seconds": story.get("seconds", {}),
    }
