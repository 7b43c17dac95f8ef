"""Gives jobs to runners: sessions, long polls, pick-up, renewal, and what silence leads to.

The service's rules: a job goes to an online, idle runner that has all of the job's labels and
whose group the repository may use; never to two; a job that was given but not picked up is queued
again; a runner that stops renewing loses its job, which fails; an unused JIT runner is dropped.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from runsfleet_cli.local.github.errors import ApiError, not_found
from runsfleet_cli.local.github.lifecycle import Lifecycle
from runsfleet_cli.local.github.world import (
    Conclusion,
    Job,
    JobStatus,
    Runner,
    World,
)

LOST_RUNNER = (
    "The self-hosted runner lost communication with the server. Verify the machine is running "
    "and has a healthy network connection."
)
QUEUE_EXPIRED = "The job was not started within the time that a job may be queued."


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the service waits, in seconds. Defaults are the real ones unless said otherwise.

    Attributes:
        pick_up: A given job must be picked up within this (GitHub's limits: 60 s).
        unused_jit: A JIT runner without a job is dropped after this (not documented; seen: 2 to 6
            minutes, actions/runner#4726).
        lost: A busy runner that has not renewed for this has lost its job (renewal every minute;
            ten minutes at the service, shorter here so that a crash shows soon).
        poll: Longest wait of one poll.
        silent: A session without a poll for this long is offline.
        queued: A job may wait this long (24 h).
        ephemeral_offline: An offline ephemeral runner is removed after this (1 day).
        other_offline: Any other offline runner is removed after this (14 days).
        cancel: A runner has this long to stop a cancelled job (5 minutes).
    """

    pick_up: float = 60.0
    unused_jit: float = 300.0
    lost: float = 60.0
    poll: float = 50.0
    silent: float = 75.0
    queued: float = 86_400.0
    ephemeral_offline: float = 86_400.0
    other_offline: float = 1_209_600.0
    cancel: float = 300.0


@dataclass(slots=True)
class Session:
    """A runner that is connected."""

    id: str
    runner: Runner
    seen_at: float
    polling: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event)


def matches(job: Job, runner: Runner, world: World) -> bool:
    """Say whether a runner may run a job: all labels (ignoring case), scope and group."""
    have = {label.lower() for label in runner.labels}
    if not {label.lower() for label in job.labels} <= have:
        return False
    kind, _, rest = runner.scope.partition("/")
    if kind == "repos":
        return rest == job.repository.full_name.lower()
    if rest != job.repository.owner.login.lower():
        return False
    group = world.group_of(runner)
    if job.planned.group is not None and job.planned.group.lower() != group.name.lower():
        return False
    return group.visible_to(job.repository)


class Broker:
    """Connects runners with jobs.

    Args:
        world: Runners and jobs.
        lifecycle: Moves jobs.
        timing: How long the service waits.
        note: Told of what a person following along wants to see.
    """

    def __init__(
        self,
        world: World,
        lifecycle: Lifecycle,
        timing: Timing,
        note: Callable[[str, dict[str, object]], None],
    ) -> None:
        self._world = world
        self._lifecycle = lifecycle
        self.timing = timing
        self._note = note
        self._sessions: dict[str, Session] = {}
        self._tokens: dict[str, int] = {}

    def sign_in(self, client_id: str) -> str:
        """Answer an access token for a runner whose signature was verified.

        Raises:
            ApiError: 404 when the runner is not registered (any more).
        """
        for runner in self._world.runners.values():
            if runner.client_id == client_id:
                token = secrets.token_urlsafe(32)
                self._tokens[token] = runner.id
                return token
        raise not_found()

    def runner_of(self, token: str) -> Runner:
        """Answer the runner behind an access token.

        Raises:
            ApiError: 401 for an unknown token, 404 when the runner was removed meanwhile.
        """
        number = self._tokens.get(token)
        if number is None:
            raise ApiError(401, "Bad credentials")
        runner = self._world.runners.get(number)
        if runner is None:
            raise not_found()
        return runner

    def connect(self, runner: Runner, *, os: str, version: str) -> Session:
        """Open a session.

        Raises:
            ApiError: 409 while the runner has another one.
        """
        if any(session.runner is runner for session in self._sessions.values()):
            raise ApiError(409, f"A session for this runner already exists: {runner.name}")
        session = Session(secrets.token_hex(16), runner, self._world.clock())
        runner.online, runner.os, runner.version = True, os, version
        runner.offline_since = None
        self._sessions[session.id] = session
        self._note("runner_online", {"runner": runner.name})
        return session

    def sessions(self) -> list[Session]:
        """Answer the open sessions."""
        return list(self._sessions.values())

    def session(self, session_id: str, runner: Runner) -> Session:
        """Answer a runner's session.

        Raises:
            ApiError: 404 when there is none.
        """
        session = self._sessions.get(session_id)
        if session is None or session.runner is not runner:
            raise not_found()
        return session

    def disconnect(self, runner: Runner) -> None:
        """Close a runner's session; what it was given goes back to the queue."""
        for session in [entry for entry in self._sessions.values() if entry.runner is runner]:
            del self._sessions[session.id]
            session.wake.set()
        if runner.online:
            runner.online = False
            runner.offline_since = self._world.clock()
            self._note("runner_offline", {"runner": runner.name})
        for job in list(self._world.live_jobs.values()):
            if job.assigned_to == runner.id and job.status is JobStatus.QUEUED:
                self._take_back(job)

    def remove(self, runner: Runner, reason: str) -> None:
        """Deregister a runner."""
        self.disconnect(runner)
        self._world.remove_runner(runner)
        self._note("runner_removed", {"runner": runner.name, "reason": reason})

    def assign(self) -> None:
        """Give each queued job to a waiting runner that may run it; first come, first served."""
        waiting = [session for session in self._sessions.values() if session.polling]
        if not waiting:
            return
        taken = {job.assigned_to for job in self._world.live_jobs.values()}
        free = [session for session in waiting if session.runner.id not in taken]
        for job in list(self._world.live_jobs.values()):
            if not free:
                return
            if job.status is not JobStatus.QUEUED or job.assigned_to is not None:
                continue
            for session in free:
                if matches(job, session.runner, self._world):
                    job.assigned_to = session.runner.id
                    job.assigned_at = self._world.clock()
                    job.assignments += 1
                    session.wake.set()
                    free.remove(session)
                    break

    def _given_to(self, runner: Runner) -> Job | None:
        for job in list(self._world.live_jobs.values()):
            if job.assigned_to == runner.id and job.status is JobStatus.QUEUED:
                return job
        return None

    async def poll(self, session: Session, seconds: float) -> Job | None:
        """Wait for a job; None when none came in time.

        Args:
            session: The runner's session.
            seconds: How long the runner wants to wait; at most `Timing.poll`.

        Raises:
            ApiError: 404 when the runner was removed meanwhile.
        """
        runner = session.runner
        session.polling = True
        session.seen_at = self._world.clock()
        session.wake.clear()
        try:
            self.assign()
            if self._given_to(runner) is None:
                async with asyncio.timeout(max(0.0, min(seconds, self.timing.poll))):
                    await session.wake.wait()
        except TimeoutError:
            pass
        finally:
            session.polling = False
            session.seen_at = self._world.clock()
        if runner.id not in self._world.runners or session.id not in self._sessions:
            raise not_found()
        return self._given_to(runner)

    def acquire(self, job: Job, runner: Runner) -> None:
        """Let a runner pick up the job that it was given.

        Raises:
            ApiError: 409 when it was not given this job, or it is too late.
        """
        if job.assigned_to != runner.id or job.status is not JobStatus.QUEUED:
            raise ApiError(409, "The job is no longer assigned to this runner")
        self._lifecycle.start(job, runner)

    def renew(self, job: Job, runner: Runner) -> bool:
        """Keep a job; answer whether the runner should stop it.

        Raises:
            ApiError: 409 when the job is not this runner's.
        """
        self.own(job, runner)
        job.renewed_at = self._world.clock()
        return job.cancel_at is not None

    @staticmethod
    def own(job: Job, runner: Runner) -> None:
        """Check that a runner is running a job.

        Raises:
            ApiError: 409 when it is not.
        """
        if job.status is not JobStatus.IN_PROGRESS or job.runner is not runner:
            raise ApiError(409, "The job is not running on this runner")

    def finish(
        self,
        job: Job,
        runner: Runner,
        conclusion: Conclusion,
        outputs: dict[str, str],
        *,
        annotation: str | None = None,
    ) -> None:
        """Conclude a job; an ephemeral runner is deregistered with it.

        Args:
            job: The job.
            runner: Its runner.
            conclusion: How it ended.
            outputs: The job's outputs.
            annotation: What the runner notes at the job.

        Raises:
            ApiError: 409 when the job is not this runner's.
        """
        self.own(job, runner)
        if runner.ephemeral:
            self.remove(runner, "its one job is done")
        self._lifecycle.complete(job, conclusion, outputs=outputs, annotation=annotation)

    def _take_back(self, job: Job) -> None:
        job.assigned_to = job.assigned_at = None
        self._note("job_requeued", {"job_id": job.id, "name": job.planned.name})
        self.assign()

    def sweep(self) -> None:
        """Apply every time limit; the server calls this a few times a second."""
        now = self._world.clock()
        for session in list(self._sessions.values()):
            idle = not session.polling and not session.runner.busy
            if idle and now - session.seen_at > self.timing.silent:
                self.disconnect(session.runner)
        for job in list(self._world.live_jobs.values()):
            self._sweep_job(job, now)
        given = {job.assigned_to for job in self._world.live_jobs.values()}
        for runner in list(self._world.runners.values()):
            if runner.id not in given and not runner.busy:
                self._sweep_runner(runner, now)

    def _sweep_job(self, job: Job, now: float) -> None:
        if job.status is JobStatus.QUEUED:
            if job.assigned_at is not None and now - job.assigned_at > self.timing.pick_up:
                self._take_back(job)
            elif now - job.queued_at > self.timing.queued:
                self._lifecycle.complete(job, Conclusion.FAILURE, annotation=QUEUE_EXPIRED)
        elif job.status is JobStatus.IN_PROGRESS and job.renewed_at is not None:
            if now - job.renewed_at > self.timing.lost:
                self._abandon(job, Conclusion.FAILURE, LOST_RUNNER)
            elif job.cancel_at is not None and now - job.cancel_at > self.timing.cancel:
                self._abandon(job, Conclusion.CANCELLED, None)

    def _abandon(self, job: Job, conclusion: Conclusion, annotation: str | None) -> None:
        """Conclude a job without its runner, which counts as gone."""
        if job.runner is not None:
            self.disconnect(job.runner)
            if job.runner.ephemeral:
                self.remove(job.runner, "lost during its job")
        if job.cancel_at is not None:
            conclusion, annotation = Conclusion.CANCELLED, None
        self._lifecycle.complete(job, conclusion, annotation=annotation)

    def _sweep_runner(self, runner: Runner, now: float) -> None:
        if runner.jit and not runner.used and now - runner.created_at > self.timing.unused_jit:
            self.remove(runner, "unused")
            return
        limit = self.timing.ephemeral_offline if runner.ephemeral else self.timing.other_offline
        if runner.offline_since is not None and now - runner.offline_since > limit:
            self.remove(runner, "offline for too long")
