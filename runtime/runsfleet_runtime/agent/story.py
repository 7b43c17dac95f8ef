"""What the agent knows of its instance's life so far, and the report that is made of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from runsfleet_runtime.agent.package import package_version
from runsfleet_runtime.contract.messages import ReportStatus, RunnerReport

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from runsfleet_runtime.agent.hooks import JobMoment
    from runsfleet_runtime.agent.masking import Masker
    from runsfleet_runtime.agent.package import ProvidedRunner
    from runsfleet_runtime.agent.process import RunnerEnd
    from runsfleet_runtime.contract.messages import RunnerConfig

LONGEST_ERROR = 1000


@dataclass(slots=True)
class Story:
    """What is known so far; the last report is made of it, whenever the end comes.

    Attributes:
        instance_id: This instance; empty until it is known.
        config: What it is to run.
        workspace: The directory with all files of its job.
        runner: The runner.
        end: How the runner ended.
        started: The job's start, while the runner still runs.
        timings: Seconds of each step of the start.
        steps: When each of these steps was over, epoch seconds.
        begun: When the instance, or else the agent, was started, epoch seconds.
        traceparent: The span of this life; empty when nothing traces.
        error: What went wrong.
        side_work: What goes on beside the runner.
        stays: Whether the instance is to stay: a standby that is being stopped, not ended.
    """

    instance_id: str = ""
    config: RunnerConfig | None = None
    workspace: Path | None = None
    runner: ProvidedRunner | None = None
    end: RunnerEnd | None = None
    started: JobMoment | None = None
    timings: dict[str, float] = field(default_factory=dict)
    steps: dict[str, float] = field(default_factory=dict)
    begun: float = 0.0
    traceparent: str = ""
    error: str = ""
    side_work: list[threading.Thread] = field(default_factory=list)
    stays: bool = False

    @property
    def job_id(self) -> int:
        """The job that the instance was launched for; 0 when it never learned of one."""
        return self.config.job_id if self.config else 0

    def report(self, status: ReportStatus, *, now: datetime, mask: Masker) -> RunnerReport:
        """Return the report of this story.

        Args:
            status: How it stands.
            now: The time.
            mask: Takes secrets out of the error.
        """
        config, end = self.config, self.end
        started = end.started if end else self.started
        completed = end.completed if end else None
        job = started.job if started else None
        duration = None
        if started is not None and status.is_ending:
            until = completed.at if completed else now.timestamp()
            duration = round(max(until - started.at, 0.0), 3)
        return RunnerReport(
            instance_id=self.instance_id,
            job_id=self.job_id,
            run_id=config.run_id if config else 0,
            dispatch=config.dispatch if config else 0,
            status=status,
            exit_code=end.exit_code if end else None,
            duration_seconds=duration,
            started_at=_iso(started.at) if started else None,
            completed_at=_iso(completed.at) if completed else None,
            ran_job=started is not None,
            ran_run_id=job.run_id if job else None,
            timings=tuple(f"{k}={round(v * 1000)}" for k, v in self.timings.items()),
            runner_version=self.runner.version if self.runner else "",
            baked_version=self.runner.baked_version if self.runner else "",
            offered_version=(package_version(config.package_filename) or "") if config else "",
            error=mask(self.error)[:LONGEST_ERROR],
            traceparent=self.traceparent,
        )


def _iso(moment: float) -> str:
    text = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
