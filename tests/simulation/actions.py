"""A model of GitHub Actions: jobs, and runners that take whatever job fits their labels.

Facts that shape it: a JIT configuration binds a runner to labels and not to a job; an unused one
lives for minutes; a job whose runner falls silent fails ten minutes later; a queued job fails after
24 hours; only a run that has completed can be re-run, and its job then exists anew.
"""

from __future__ import annotations

import itertools
import random
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from tests.simulation.loop import Loop

JIT_SECONDS: Final = 300.0
"""An unused registration is refused after so long; seen between 2 and 60 minutes in the field."""
SILENCE_SECONDS: Final = 600.0
QUEUE_SECONDS: Final = 24 * 3600.0
OFFLINE_SECONDS: Final = 24 * 3600.0
SHUTDOWN_NOTE: Final = (
    "The runner has received a shutdown signal. This can happen when the runner service is "
    "stopped, or a manually started runner is canceled."
)
SILENCE_NOTE: Final = (
    "The self-hosted runner lost communication with the server. Verify the machine is running and "
    "has a healthy network connection."
)
_FAILED_SHARE: Final = 0.7
_ASSIGN_SECONDS: Final = (0.3, 1.5)
_FIRST_DELIVERY: Final = 2**53 + 1  # ids of deliveries exceed what a float can hold


def iso(moment: float | None) -> str | None:
    """Return a time as GitHub writes it, to the second."""
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(slots=True, eq=False)
class Runner:
    """A runner's registration."""

    id: int
    name: str
    labels: tuple[str, ...]
    registered_at: float
    token: str
    is_online: bool = False
    job: Job | None = None
    on_job: Callable[[Job], None] | None = None
    on_removed: Callable[[], None] | None = None


@dataclass(slots=True, eq=False)
class Job:
    """A job of one attempt of a run."""

    id: int
    run: Run
    name: str
    attempt: int
    labels: tuple[str, ...]
    duration: float
    created_at: float
    status: str = "queued"
    conclusion: str | None = None
    started_at: float | None = None
    completed_at: float | None = None
    runner_name: str | None = None
    executions: int = 0
    is_broken_off: bool = False  # its runner was told to stop, or fell silent
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Run:
    """A run of a workflow."""

    id: int
    repository: str
    attempt: int = 1
    jobs: list[Job] = field(default_factory=list)

    @property
    def latest(self) -> list[Job]:
        """The jobs as they are in the latest attempt."""
        newest: dict[str, Job] = {}
        for job in self.jobs:
            if job.name not in newest or job.attempt > newest[job.name].attempt:
                newest[job.name] = job
        return list(newest.values())

    @property
    def status(self) -> str:
        """The run's state."""
        states = {job.status for job in self.latest}
        if states == {"completed"}:
            return "completed"
        return "queued" if states == {"queued"} else "in_progress"


@dataclass(slots=True, eq=False)
class Delivery:
    """One attempt to deliver an event."""

    guid: str
    action: str
    payload: dict[str, Any]
    delivered_at: float
    is_redelivery: bool
    status_code: int = 0
    id: int = 0


class Actions:
    """GitHub's side.

    Args:
        loop: Simulated time.
        rng: Randomness.
        post: Sends a delivery to the webhook; the second argument is called with the HTTP status.
        fate: Says what becomes of each first delivery: ``ok``, ``lost`` (it fails and is listed as
            failed) or ``silent`` (nothing ever lists it).
    """

    def __init__(
        self,
        loop: Loop,
        rng: random.Random,
        *,
        post: Callable[[Delivery, Callable[[int], None]], None],
        fate: Callable[[Job, str], str] = lambda _job, _action: "ok",
        latency: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self._loop = loop
        self._rng = rng
        self._post = post
        self._fate = fate
        self._latency = latency
        self._ids = itertools.count(1001)
        self._delivery_ids = itertools.count(_FIRST_DELIVERY)
        self.runs: dict[int, Run] = {}
        self.jobs: dict[int, Job] = {}
        self.runners: dict[int, Runner] = {}
        self.deliveries: list[Delivery] = []
        self._waiting: defaultdict[tuple[str, ...], deque[Job]] = defaultdict(deque)
        self._listening: defaultdict[tuple[str, ...], deque[Runner]] = defaultdict(deque)
        self.reruns = 0

    # -- developers ----------------------------------------------------------------------------

    def push(self, repository: str, jobs: list[tuple[str, float]], label: str) -> list[Job]:
        """Start a run; ``{run}`` in the label becomes its id."""
        run = Run(next(self._ids), repository)
        self.runs[run.id] = run
        labels = (label.replace("{run}", str(run.id)),)
        return [self._queue(run, name, labels, duration, 1) for name, duration in jobs]

    def cancel(self, job: Job) -> None:
        """Cancel a job, as a person or a newer push does."""
        if job.status == "completed":
            return
        runner = self._runner_of(job)
        self._conclude(job, "cancelled")
        if runner is not None:
            left, runner.job = runner.on_removed, None
            self.remove(runner)
            if left is not None:
                left()

    def rerun(self, job: Job) -> int:
        """Re-run a job; returns the HTTP status."""
        if job.run.status != "completed":
            return 403
        self.reruns += 1
        job.run.attempt += 1
        self._queue(job.run, job.name, job.labels, job.duration, job.run.attempt)
        return 201

    def _queue(
        self, run: Run, name: str, labels: tuple[str, ...], duration: float, attempt: int
    ) -> Job:
        job = Job(next(self._ids), run, name, attempt, labels, duration, self._loop.now)
        run.jobs.append(job)
        self.jobs[job.id] = job
        self._waiting[labels].append(job)
        self._loop.after(QUEUE_SECONDS, self._give_up, job)
        self._announce(job, "queued")
        self._match(labels)
        return job

    def _give_up(self, job: Job) -> None:
        if job.status == "queued":
            self._conclude(job, "cancelled")

    # -- runners -------------------------------------------------------------------------------

    def register(self, name: str, labels: tuple[str, ...]) -> Runner | None:
        """Register a runner; ``None`` when the name is taken."""
        if any(runner.name == name for runner in self.runners.values()):
            return None
        number = next(self._ids)
        token = f"jit-{number}-{self._rng.random():.12f}"
        runner = Runner(number, name, labels, self._loop.now, token)
        self.runners[runner.id] = runner
        self._loop.after(JIT_SECONDS, self._drop_unused, runner, token)
        self._loop.after(OFFLINE_SECONDS, self._drop_offline, runner)
        return runner

    def listen(
        self, token: str, on_job: Callable[[Job], None], on_removed: Callable[[], None]
    ) -> Runner | None:
        """Let a runner listen; ``None`` when GitHub does not take its registration (any more)."""
        for runner in self.runners.values():
            if runner.token == token and not runner.is_online:
                runner.is_online = True
                runner.on_job, runner.on_removed = on_job, on_removed
                self._listening[runner.labels].append(runner)
                self._loop.after(self._rng.uniform(*_ASSIGN_SECONDS), self._match, runner.labels)
                return runner
        return None

    def remove(self, runner: Runner) -> None:
        """Take a runner off the list."""
        self.runners.pop(runner.id, None)
        self._stop_listening(runner)

    def fall_silent(self, runner: Runner) -> None:
        """Note that a runner is gone without a word."""
        self._stop_listening(runner)
        runner.on_job = runner.on_removed = None
        if (job := runner.job) is not None:
            self._loop.after(SILENCE_SECONDS, self._lose, job, runner)

    def break_off(self, runner: Runner) -> None:
        """End a runner's job because the runner is told to stop."""
        job = runner.job
        assert job is not None
        job.is_broken_off = True
        job.notes.append(SHUTDOWN_NOTE)
        # seen both ways in the field; the note tells it from a person's cancellation
        self.finish(runner, "failure" if self._rng.random() < _FAILED_SHARE else "cancelled")

    def finish(self, runner: Runner, conclusion: str) -> None:
        """End a runner's job; an ephemeral runner goes with it."""
        job, runner.job = runner.job, None
        self.remove(runner)
        if job is not None:
            self._conclude(job, conclusion)

    def _stop_listening(self, runner: Runner) -> None:
        runner.is_online = False
        if runner in self._listening[runner.labels]:
            self._listening[runner.labels].remove(runner)

    def _drop_unused(self, runner: Runner, token: str) -> None:
        if runner.on_job is None and runner.token == token and not runner.is_online:
            self.remove(runner)

    def _drop_offline(self, runner: Runner) -> None:
        if not runner.is_online and runner.job is None:
            self.remove(runner)

    def _lose(self, job: Job, runner: Runner) -> None:
        runner.job = None
        self.remove(runner)
        if job.status == "in_progress":
            job.is_broken_off = True
            job.notes.append(SILENCE_NOTE)
            self._conclude(job, "failure")

    def _match(self, labels: tuple[str, ...]) -> None:
        waiting, listening = self._waiting[labels], self._listening[labels]
        while waiting and listening:
            job = waiting.popleft()
            if job.status != "queued":
                continue
            # any runner with the labels may get any job that fits
            runner = listening[self._rng.randrange(len(listening))]
            listening.remove(runner)
            runner.job = job
            job.status, job.started_at, job.runner_name = "in_progress", self._loop.now, runner.name
            job.executions += 1
            self._announce(job, "in_progress")
            assert runner.on_job is not None
            runner.on_job(job)

    def _runner_of(self, job: Job) -> Runner | None:
        return next((r for r in self.runners.values() if r.job is job), None)

    def _conclude(self, job: Job, conclusion: str) -> None:
        if job.status == "completed":
            return
        job.status, job.conclusion, job.completed_at = "completed", conclusion, self._loop.now
        self._announce(job, "completed")

    # -- deliveries ----------------------------------------------------------------------------

    def deliveries_of(self, job: Job) -> list[Delivery]:
        """Return all attempts to deliver the events of a job."""
        return [d for d in self.deliveries if d.payload["workflow_job"]["id"] == job.id]

    def redeliver(self, delivery: Delivery) -> None:
        """Deliver an event once more."""
        again = Delivery(
            delivery.guid,
            delivery.action,
            delivery.payload,
            self._loop.now,
            is_redelivery=True,
        )
        self._loop.after(self._latency(), self._deliver, again)

    def _announce(self, job: Job, action: str) -> None:
        guid = f"{job.id}-{action}"
        delivery = Delivery(guid, action, self._payload(job, action), self._loop.now, False)
        fate = self._fate(job, action)
        if fate == "ok":
            self._loop.after(self._latency(), self._deliver, delivery)
        elif fate == "lost":
            delivery.status_code = 502
            self._list(delivery)

    def _list(self, delivery: Delivery) -> None:
        delivery.id, delivery.delivered_at = next(self._delivery_ids), self._loop.now
        self.deliveries.append(delivery)

    def _deliver(self, delivery: Delivery) -> None:
        self._list(delivery)

        def answered(status: int) -> None:
            delivery.status_code = status

        self._post(delivery, answered)

    def _payload(self, job: Job, action: str) -> dict[str, Any]:
        owner = job.run.repository.partition("/")[0]
        return {
            "action": action,
            "workflow_job": self.shown(job),
            "repository": {
                "full_name": job.run.repository,
                "owner": {"login": owner, "type": "Organization"},
            },
            "organization": {"login": owner},
            "installation": {"id": 7},
        }

    @staticmethod
    def shown(job: Job) -> dict[str, Any]:
        """Return a job as the API and the deliveries show it now."""
        return {
            "id": job.id,
            "run_id": job.run.id,
            "run_attempt": job.attempt,
            "name": job.name,
            "workflow_name": "ci",
            "status": job.status,
            "conclusion": job.conclusion,
            "labels": list(job.labels),
            "runner_name": job.runner_name,
            "created_at": iso(job.created_at),
            "started_at": iso(job.started_at or job.created_at),
            "completed_at": iso(job.completed_at),
        }
