"""The messages on the fleet's queues and the configuration that an instance reads.

Each is versioned; see :mod:`runsfleet_runtime.contract._codec` for what readers tolerate.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import ClassVar

from runsfleet_runtime.contract._codec import ContractError, Message

__all__ = [
    "ContractError",
    "HousekeepingMessage",
    "HousekeepingTask",
    "JobEndedMessage",
    "JobMessage",
    "JobResult",
    "ReportStatus",
    "RerunMessage",
    "RunnerConfig",
    "RunnerReport",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobMessage(Message):
    """A job that wants a runner (jobs queue; webhook or a requeue -> dispatch).

    Attributes:
        job_id: GitHub's id of the job; grows beyond 32 bits.
        run_id: GitHub's id of the workflow run.
        run_attempt: 1 for the first attempt of the run.
        repository: ``owner/name``.
        labels: The job's ``runs-on`` labels, byte for byte and in order.
        installation_id: The App's installation that sent the event; ``None`` when unknown.
        workflow_name: For people.
        job_name: For people.
        queued_at: When GitHub queued the job, epoch seconds by GitHub's clock.
        dispatch: 0 for the first message of a job, one more with each requeue.
        not_before: Epoch seconds before which dispatch must not launch; 0 means at once.
        requeues: How often a launched instance ended without having served it.
        on_demand: Whether spot must not be used (set after an interruption).
        delivery_id: ``X-GitHub-Delivery`` of the event, to follow a job through the logs.
        traceparent: The span that this goes on from, in W3C's form; empty when nothing traces.
        version: Version of this form.
    """

    VERSION: ClassVar[int] = 1

    job_id: int
    run_id: int
    run_attempt: int
    repository: str
    labels: tuple[str, ...]
    queued_at: float
    installation_id: int | None = None
    workflow_name: str = ""
    job_name: str = ""
    dispatch: int = 0
    not_before: float = 0.0
    requeues: int = 0
    on_demand: bool = False
    delivery_id: str = ""
    traceparent: str = ""
    version: int = 1

    @property
    def group_id(self) -> str:
        """FIFO group: the job, so that one poisoned job holds up no other of its run."""
        return str(self.job_id)

    @property
    def deduplication_id(self) -> str:
        """Same job, dispatch number and requeues: the same message, whatever delivered it.

        The requeues tell a job that its instance hands back from one that dispatch handed back
        within the same five minutes: SQS would swallow the second as a repetition of the first.
        """
        return f"{self.job_id}:{self.dispatch}:{self.requeues}"

    @property
    def owner(self) -> str:
        """The account that owns the repository."""
        return self.repository.partition("/")[0]

    def again(self, *, not_before: float, on_demand: bool | None = None) -> JobMessage:
        """Return the message that dispatches this job once more, not before ``not_before``."""
        return replace(
            self,
            dispatch=self.dispatch + 1,
            not_before=not_before,
            on_demand=self.on_demand if on_demand is None else on_demand,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEndedMessage(Message):
    """GitHub says that a job ended (events queue; webhook -> events).

    Attributes:
        job_id: GitHub's id of the job.
        run_id: GitHub's id of the workflow run.
        run_attempt: 1 for the first attempt of the run.
        repository: ``owner/name``.
        labels: The job's ``runs-on`` labels, byte for byte and in order.
        installation_id: The App's installation that sent the event; ``None`` when unknown.
        conclusion: ``success``, ``failure``, ``cancelled``, ``timed_out``, ``skipped``, …
        runner_name: The runner that had it; empty when it never got one.
        delivery_id: ``X-GitHub-Delivery`` of the event.
        kind: Tells the messages of the events queue apart.
        version: Version of this form.
    """

    VERSION: ClassVar[int] = 1
    KIND: ClassVar[str] = "job_ended"

    job_id: int
    run_id: int
    run_attempt: int
    repository: str
    labels: tuple[str, ...]
    conclusion: str
    installation_id: int | None = None
    runner_name: str = ""
    delivery_id: str = ""
    kind: str = KIND
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RerunMessage(Message):
    """An interrupted job may have to be re-run (events queue; events, termination -> events).

    Attributes:
        job_id: GitHub's id of the interrupted job.
        tries: How often GitHub was asked already, from 0.
        kind: Tells the messages of the events queue apart.
        traceparent: The span that this goes on from, in W3C's form; empty when nothing traces.
        version: Version of this form.
    """

    VERSION: ClassVar[int] = 1
    KIND: ClassVar[str] = "rerun"

    job_id: int
    tries: int = 0
    kind: str = KIND
    traceparent: str = ""
    version: int = 1


class HousekeepingTask(StrEnum):
    """The sweeps, each a message on the housekeeping queue by its own schedule."""

    ORPHANED_INSTANCES = "orphaned_instances"
    STALE_CONFIGURATIONS = "stale_configurations"
    UNCONFIRMED_LAUNCHES = "unconfirmed_launches"
    WAITING_JOBS = "waiting_jobs"
    STALE_JOBS = "stale_jobs"
    KEPT_REPORTS = "kept_reports"
    OFFLINE_RUNNERS = "offline_runners"
    OLD_JOBS = "old_jobs"
    EXPIRED_LEASES = "expired_leases"
    DEAD_LETTERS = "dead_letters"
    LEFTOVER_VOLUMES = "leftover_volumes"
    LEFTOVER_INTERFACES = "leftover_interfaces"
    RUNNER_VERSIONS = "runner_versions"
    LOST_DELIVERIES = "lost_deliveries"
    UNANNOUNCED_JOBS = "unannounced_jobs"
    RERUNS = "reruns"
    SLOTS = "slots"
    COST_REPORT = "cost_report"


@dataclass(frozen=True, slots=True, kw_only=True)
class HousekeepingMessage(Message):
    """A sweep is due (housekeeping queue; EventBridge or an operator -> housekeeping).

    Attributes:
        task: The sweep.
        version: Version of this form.
    """

    VERSION: ClassVar[int] = 1

    task: HousekeepingTask
    version: int = 1


class ReportStatus(StrEnum):
    """What an instance tells of its life; all but ``STARTED`` and ``RENEWAL`` are endings."""

    STARTED = "started"
    RENEWAL = "renewal"  # GitHub refused the registration; another one is asked for
    SUCCESS = "success"
    FAILURE = "failure"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"
    UNUSED = "unused"  # the runner ended without having been given a job
    BOOTSTRAP_FAILED = "bootstrap_failed"  # the runner never listened

    @property
    def is_ending(self) -> bool:
        """Whether the instance ends with this report."""
        return self not in {ReportStatus.STARTED, ReportStatus.RENEWAL}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult(Message):
    """What the runner's hooks saw of the job that it really ran.

    GitHub binds a runner to labels, not to a job, so ``run_id`` may differ from the job that the
    instance was launched for.
    """

    run_id: int
    run_attempt: int
    repository: str
    job: str  # GITHUB_JOB: the key in the workflow file, not the id


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerReport(Message):
    """An instance reports its start or its end (termination queue; agent -> termination).

    Attributes:
        instance_id: The EC2 instance.
        job_id: The job that the instance was launched for; 0 when it never learned of one.
        dispatch: The dispatch number of the configuration that it ran, so that a late report of a
            former owner is told from the present one's.
        status: See :class:`ReportStatus`.
        exit_code: Exit code of the runner process; ``None`` when it did not run.
        duration_seconds: Seconds from the job's start to its end; ``None`` when none ran.
        started_at: ISO 8601 UTC; when the job started.
        completed_at: ISO 8601 UTC; when the job ended.
        run_id: Run of the job that the instance was launched for; 0 when it never learned of one.
        ran_job: Whether the runner was given a job at all, as the job-started hook saw it.
        ran_run_id: Run of the job that it really ran; ``None`` when none ran.
        timings: Milliseconds of each step of the start (``boot``, ``configuration``, ``package``,
            ``registration``), by name=value.
        runner_version: Version of GitHub's runner that was used; empty when it got none.
        baked_version: Version of the runner in the image; empty when there is none.
        offered_version: Version that GitHub offered at the launch; empty when unknown.
        error: What went wrong, for people; empty when nothing did.
        traceparent: The span that this goes on from, in W3C's form; empty when nothing traces.
        version: Version of this form.
    """

    VERSION: ClassVar[int] = 1

    instance_id: str
    job_id: int
    status: ReportStatus
    run_id: int = 0
    dispatch: int = 0
    exit_code: int | None = None
    duration_seconds: float | None = None
    started_at: str | None = None
    completed_at: str | None = None
    ran_job: bool = False
    ran_run_id: int | None = None
    timings: tuple[str, ...] = ()
    runner_version: str = ""
    baked_version: str = ""
    offered_version: str = ""
    error: str = ""
    traceparent: str = ""
    version: int = 1

    @property
    def has_served(self) -> bool:
        """Whether the runner ran a job of the run that it was launched for."""
        return self.ran_job and self.ran_run_id in {None, self.run_id}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerConfig(Message):
    """What an instance needs to run its one job (``runners`` table or Parameter Store).

    Attributes:
        instance_id: The instance that this was written for; it refuses any other.
        job_id: The job that it was launched for.
        dispatch: Dispatch number of that job.
        run_id: The job's workflow run.
        repository: ``owner/name``.
        server_url: ``https://github.com`` or the URL of an Enterprise Server.
        runner_url: What a runner registers with: the organisation's or repository's URL.
        runner_name: Name of the runner at GitHub.
        runner_group_id: Runner group; 1 is the default one.
        labels: The job's labels, byte for byte.
        jit_config: ``encoded_jit_config``; a secret. Empty when ``registration_token`` is used.
        registration_token: The other way to register; a secret. Empty when ``jit_config`` is used.
        package_url: Where GitHub offers the runner package for this platform.
        package_filename: Its file name, which holds the version.
        package_sha256: Its SHA-256, as 64 hexadecimal digits.
        max_runtime_seconds: The job is ended after it.
        idle_timeout_seconds: The runner is ended when no job came within it.
        traceparent: The span that this goes on from, in W3C's form; empty when nothing traces.
        version: Version of this form.
    """

    VERSION: ClassVar[int] = 1

    instance_id: str
    job_id: int
    run_id: int
    repository: str
    server_url: str
    runner_url: str
    runner_name: str
    labels: tuple[str, ...]
    dispatch: int = 0
    runner_group_id: int = 1
    jit_config: str = field(default="", repr=False)
    registration_token: str = field(default="", repr=False)
    package_url: str = ""
    package_filename: str = ""
    package_sha256: str = ""
    max_runtime_seconds: int = 360 * 60
    idle_timeout_seconds: int = 600
    traceparent: str = ""
    version: int = 1
