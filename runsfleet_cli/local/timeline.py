"""What happened to each job, in order, put together from what was really observed.

Three sources, none of which the fleet knows of: the GitHub stand-in (queued, delivery, runner,
running, completed), the interceptor's record of AWS calls (enqueued, claimed, launched, closed),
and the hypervisor (booting, shutting down, terminated).

Pure bookkeeping: each `on_...` takes one observation and adds entries. `Timeline.jobs` is the
present state of each job, `Timeline.entries` the story.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from runsfleet_runtime.contract.tables import JobAttr

if TYPE_CHECKING:
    from runsfleet_cli.local.interceptor.calls import Call

# a no that was asked for: a cache that does not have it, a write whose condition does not hold
_ANSWERS = {"NoSuchKey", "TransactionCanceledException", "ConditionalCheckFailedException"}
# the webhook's answer for a job that it has put on the queue
_TAKEN = 202
_RUNNER = re.compile(r"(i-[0-9a-f]{8,17})$")
_SET = re.compile(r"\bSET\b(.*?)(?:\bREMOVE\b|\bADD\b|\bDELETE\b|$)", re.DOTALL)
_ASSIGNMENT = re.compile(r"([#\w.]+)\s*=\s*(:\w+)")
_INSTANCE_STAGES = {
    "running": "booting",
    "shutting-down": "ending",
    "terminated": "terminated",
    "stopped": "stopped",
}


class Stage(StrEnum):
    """How far a job has come; the order is that of a job that goes well."""

    QUEUED = "queued"
    WEBHOOK = "webhook"
    ENQUEUED = "enqueued"
    CLAIMED = "claimed"
    LAUNCHED = "launched"
    BOOTING = "booting"
    REGISTERED = "registered"
    RUNNING = "running"
    STEP = "step"
    COMPLETED = "completed"
    CLOSED = "closed"
    ENDING = "ending"
    TERMINATED = "terminated"
    RETRIED = "retried"
    CAPACITY = "capacity"
    FAULT = "fault"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the story.

    Args:
        sequence: Counts from 1.
        time: Unix time, seconds.
        stage: See `Stage`.
        text: For people.
        job_id: GitHub's id of the job, if it concerns one.
        job: Its name.
        instance_id: The instance, if it concerns one.
        detail: What else is known.
    """

    sequence: int
    time: float
    stage: str
    text: str
    job_id: int | None = None
    job: str = ""
    instance_id: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(slots=True)
class JobStory:
    """What is known of one job.

    Args:
        job_id: GitHub's id.
        run_id: Its run.
        name: Its name.
        repository: `owner/name`.
        labels: As GitHub sent them.
        at: When it reached each stage, Unix seconds; the latest time of each.
        webhook_status: How its `queued` webhook was answered; 0 before.
        webhook_answer: What the answer said, as GitHub shows it with the delivery.
        conclusion: GitHub's, once it is completed.
        outcome: The fleet's own, once its record is closed.
        given_up: Why the fleet will not serve it any more, if so.
        instance_id: Its present or last instance.
        instances: All instances that were launched for it.
        instance_type: Of the last one.
        zone: Of the last one.
        capacity_type: `spot` or `on-demand`.
    """

    job_id: int
    run_id: int = 0
    name: str = ""
    repository: str = ""
    labels: tuple[str, ...] = ()
    at: dict[str, float] = field(default_factory=dict)
    webhook_status: int = 0
    webhook_answer: str = ""
    conclusion: str | None = None
    outcome: str | None = None
    given_up: str = ""
    instance_id: str = ""
    instances: list[str] = field(default_factory=list)
    instance_type: str = ""
    zone: str = ""
    capacity_type: str = ""

    def between(self, first: Stage, last: Stage) -> float | None:
        """Seconds from one stage to another, if it reached both."""
        if first not in self.at or last not in self.at:
            return None
        return max(self.at[last] - self.at[first], 0.0)

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with the spans that people ask for."""
        return asdict(self) | {
            "seconds": {
                "to_webhook": self.between(Stage.QUEUED, Stage.WEBHOOK),
                "to_claim": self.between(Stage.QUEUED, Stage.CLAIMED),
                "to_launch": self.between(Stage.QUEUED, Stage.LAUNCHED),
                "boot_to_registered": self.between(Stage.BOOTING, Stage.REGISTERED),
                "waited": self.between(Stage.QUEUED, Stage.RUNNING),
                "ran": self.between(Stage.RUNNING, Stage.COMPLETED),
                "total": self.between(Stage.QUEUED, Stage.TERMINATED),
            }
        }


class Timeline:
    """See the module.

    Example:
        >>> timeline = Timeline()
        >>> github.subscribe(timeline.on_github)
        >>> interceptor.log.subscribe(timeline.on_call)
        >>> hypervisor.subscribe(timeline.on_instance)
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.jobs: dict[int, JobStory] = {}
        self._job_of: dict[str, int] = {}
        self._listeners: list[Callable[[Entry], None]] = []
        self._changed = asyncio.Event()
        self._steps: dict[int, set[str]] = {}

    def subscribe(self, listener: Callable[[Entry], None]) -> None:
        """Be told of each entry."""
        self._listeners.append(listener)

    async def since(self, sequence: int, wait: float = 0.0) -> list[Entry]:
        """Entries after a sequence; waits up to `wait` seconds for the first one."""
        if len(self.entries) <= sequence and wait > 0:
            changed = self._changed
            try:
                async with asyncio.timeout(wait):
                    await changed.wait()
            except TimeoutError:
                return []
        return self.entries[max(sequence, 0) :]

    def story(self, job_id: int) -> JobStory:
        """The story of a job, begun if it is new."""
        return self.jobs.setdefault(job_id, JobStory(job_id))

    # -- observations --------------------------------------------------------------------------

    def on_github(self, event: Mapping[str, Any]) -> None:
        """An event of the GitHub stand-in."""
        kind = event["kind"]
        if kind == "workflow_job":
            self._on_workflow_job(event)
        elif kind == "runner_online":
            instance_id = instance_of(str(event["runner"]))
            self._add(event["time"], Stage.REGISTERED, "runner registered", instance=instance_id)
        elif kind == "job_requeued":
            text = "GitHub gave the job back to the queue: its runner is gone"
            self._add(event["time"], Stage.RETRIED, text, job_id=int(event["job_id"]))

    def on_job_known(
        self, job_id: int, *, run_id: int, name: str, repository: str, labels: tuple[str, ...]
    ) -> None:
        """What GitHub knows of a job."""
        story = self.story(job_id)
        story.run_id, story.name = run_id, name
        story.repository, story.labels = repository, labels

    def on_delivery(
        self,
        *,
        time: float,
        job_id: int | None,
        action: str,
        status: int,
        seconds: float,
        answer: str = "",
    ) -> None:
        """A webhook was answered."""
        if action != "queued" and status < 400:  # noqa: PLR2004  accepted, and nothing comes of it
            return
        if job_id is not None and action == "queued":
            story = self.story(job_id)
            story.webhook_status, story.webhook_answer = status, answer
            # a recorded webhook is delivered without having been announced
            story.at.setdefault(Stage.QUEUED, time - seconds)
        text = f"webhook {action} answered {status or 'nothing'} in {seconds * 1000:.0f} ms"
        if answer and status != _TAKEN:
            text = f"{text}: {answer}"
        self._add(time, Stage.WEBHOOK, text, job_id=job_id, detail={"status": status})

    def on_step(self, time: float, job_id: int, name: str, status: str, end: str | None) -> None:
        """A step of a job moved."""
        if status == "completed":
            mark = f"{name}\0{end}"
            seen = self._steps.setdefault(job_id, set())
            if mark not in seen:
                seen.add(mark)
                self._add(time, Stage.STEP, f"{name}: {end}", job_id=job_id)

    def on_instance(self, event: Mapping[str, Any]) -> None:
        """An event of the hypervisor."""
        stage = _INSTANCE_STAGES.get(str(event["state"]))
        text = str(event.get("text") or "")
        instance_id = str(event["instance_id"])
        if text and stage != "ending":
            self._add(event["time"], Stage.FAULT, text, instance=instance_id)
        elif stage is not None:
            words = {"booting": "instance boots", "ending": "instance shuts down"}.get(stage, "")
            words = words or f"instance {stage}"
            if text:
                words = f"{words} ({text})"
            self._add(event["time"], stage, words, instance=instance_id)

    def on_call(self, call: Call) -> None:
        """A recorded AWS call."""
        ended = call.time + call.duration
        if call.outcome == "fault" and call.action != "CreateFleet":
            text = f"fault {call.fault}: {call.service}:{call.action} {call.error or 'delayed'}"
            self._add(ended, Stage.FAULT, text, detail={"caller": call.caller})
        elif call.error in _ANSWERS:
            return
        elif call.outcome == "error" and call.caller.startswith(("function:", "instance:")):
            text = f"{call.service}:{call.action} refused: {call.error} (by {call.caller})"
            self._add(ended, Stage.ERROR, text, detail={"caller": call.caller})
        elif call.service == "sqs" and call.action in {"SendMessage", "SendMessageBatch"}:
            self._on_message(call, ended)
        elif call.service == "dynamodb":
            for update in _updates(call):
                self._on_update(update, ended)
        elif call.service == "ec2" and call.action == "CreateFleet":
            self._on_fleet(call, ended)

    # -- details -------------------------------------------------------------------------------

    def _on_workflow_job(self, event: Mapping[str, Any]) -> None:
        job_id, action = int(event["job_id"]), str(event["action"])
        story = self.story(job_id)
        story.name, story.run_id = str(event["name"]), int(event["run_id"])
        story.repository = str(event["repository"])
        moment = float(event["time"])
        if action == "queued":
            self._add(moment, Stage.QUEUED, f"queued at GitHub ({story.repository})", job_id=job_id)
        elif action == "in_progress":
            runner = str(event["runner"] or "")
            instance_id = instance_of(runner)
            if instance_id:
                # GitHub binds runners to labels: it may be another one than was launched for it
                story.instance_id = instance_id
                self._job_of[instance_id] = job_id
            self._add(moment, Stage.RUNNING, f"running on {runner}", job_id=job_id)
        elif action == "completed":
            story.conclusion = str(event["conclusion"])
            text = f"completed: {story.conclusion}"
            self._add(moment, Stage.COMPLETED, text, job_id=job_id)

    def _on_message(self, call: Call, moment: float) -> None:
        entries = call.parameters.get("Entries") or [call.parameters]
        for message in entries:
            group = str(message.get("MessageGroupId", ""))
            if not group.isdigit():
                continue
            number = str(message.get("MessageDeduplicationId", "")).rpartition(":")[2]
            if number in {"", "0"}:
                self._add(moment, Stage.ENQUEUED, "put on the jobs queue", job_id=int(group))
            else:
                text = f"back on the jobs queue (dispatch {number})"
                self._add(moment, Stage.RETRIED, text, job_id=int(group))

    def _on_update(self, update: Mapping[str, Any], moment: float) -> None:
        key = update.get("Key", {}).get(JobAttr.ID, {}).get("S", "")
        if not str(key).isdigit():
            return
        job_id = int(key)
        story = self.story(job_id)
        values = _assigned(update)
        if JobAttr.INSTANCE_ID in values:
            story.instance_id = str(values[JobAttr.INSTANCE_ID])
            story.instances.append(story.instance_id)
            story.instance_type = str(values.get(JobAttr.INSTANCE_TYPE, ""))
            story.zone = str(values.get(JobAttr.ZONE, ""))
            story.capacity_type = str(values.get(JobAttr.CAPACITY_TYPE, ""))
            self._job_of[story.instance_id] = job_id
            text = (
                f"launched {story.instance_id}, {story.instance_type} {story.capacity_type} "
                f"in {story.zone}"
            )
            self._add(moment, Stage.LAUNCHED, text, job_id=job_id)
        elif JobAttr.CLAIM_ID in values:
            self._add(moment, Stage.CLAIMED, "claimed by dispatch", job_id=job_id)
        elif JobAttr.OUTCOME in values:
            story.outcome = str(values[JobAttr.OUTCOME])
            text = f"record closed: {story.outcome}"
            self._add(moment, Stage.CLOSED, text, job_id=job_id)
        elif JobAttr.ERROR in values and JobAttr.COMPLETED_AT in values:
            story.given_up = str(values[JobAttr.ERROR])
            self._add(moment, Stage.CLOSED, f"given up: {story.given_up}", job_id=job_id)
        elif JobAttr.NOT_BEFORE in values:
            self._add(moment, Stage.RETRIED, "handed back, to be tried again", job_id=job_id)

    def _on_fleet(self, call: Call, moment: float) -> None:
        errors = call.result.get("errors") or []
        launches = call.result.get("launches") or []
        if call.outcome == "error" or (call.outcome == "fault" and call.error):
            self._add(moment, Stage.CAPACITY, f"CreateFleet refused: {call.error}")
        elif errors:
            got = ", ".join(f"{one['count']} {one['capacity_type']}" for one in launches)
            text = f"CreateFleet: {', '.join(errors)}; got {got or 'nothing'}"
            self._add(moment, Stage.CAPACITY, text, detail={"fault": call.fault})

    def _add(
        self,
        time: float,
        stage: str,
        text: str,
        *,
        job_id: int | None = None,
        instance: str = "",
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        if job_id is None and instance:
            job_id = self._job_of.get(instance)
        story = self.story(job_id) if job_id is not None else None
        if story is not None:
            # an instance that took another's job must not overwrite what its own one did
            if not instance or instance == story.instance_id:
                story.at[str(stage)] = time
            instance = instance or story.instance_id
        entry = Entry(
            sequence=len(self.entries) + 1,
            time=time,
            stage=str(stage),
            text=text,
            job_id=job_id,
            job=story.name if story is not None else "",
            instance_id=instance,
            detail=detail or {},
        )
        self.entries.append(entry)
        for listener in tuple(self._listeners):
            listener(entry)
        self._changed.set()
        self._changed = asyncio.Event()


def instance_of(runner: str) -> str:
    """The instance id in a runner's name; empty if it is none of a fleet's."""
    found = _RUNNER.search(runner)
    return found[1] if found is not None else ""


def _updates(call: Call) -> Iterator[Mapping[str, Any]]:
    if call.action == "UpdateItem":
        yield call.parameters
    elif call.action == "TransactWriteItems":
        for item in call.parameters.get("TransactItems", []):
            if "Update" in item:
                yield item["Update"]


def _assigned(update: Mapping[str, Any]) -> dict[str, Any]:
    """What the SET part of an update expression assigns: attribute -> value."""
    expression = _SET.search(str(update.get("UpdateExpression", "")))
    if expression is None:
        return {}
    names = update.get("ExpressionAttributeNames") or {}
    values = update.get("ExpressionAttributeValues") or {}
    found: dict[str, Any] = {}
    for name, value in _ASSIGNMENT.findall(expression[1]):
        attribute = values.get(value)
        if isinstance(attribute, dict) and attribute:
            found[names.get(name, name)] = next(iter(attribute.values()))
    return found
