"""The agent's use case: one instance, one job, and in every case the end of the instance."""

from __future__ import annotations

import shutil
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from runsfleet_runtime.agent.configuration import await_configuration
from runsfleet_runtime.agent.errors import StopRequestedError
from runsfleet_runtime.agent.hooks import take_user_hooks
from runsfleet_runtime.agent.lifecycle import Limits, ending
from runsfleet_runtime.agent.process import Launch, RunnerEnd, RunnerRoom
from runsfleet_runtime.agent.registration import conceal, plan_registration
from runsfleet_runtime.agent.retry import attempts
from runsfleet_runtime.contract.messages import ReportStatus, RunnerReport
from runsfleet_runtime.telemetry.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from runsfleet_runtime.agent.hooks import JobMoment
    from runsfleet_runtime.agent.package import ProvidedRunner, RunnerPackages
    from runsfleet_runtime.agent.ports import (
        Clock,
        EndsInstance,
        KnowsInstance,
        Platform,
        ReadsConfiguration,
        SendsReports,
    )
    from runsfleet_runtime.contract.messages import RunnerConfig

REPORT_TRIES = 4
TERMINATE_TRIES = 5
POWER_OFF_TRIES = 3
SIDE_WORK_SECONDS = 10.0
"""How long the end of the instance waits for work that only serves others (origin: 10 s)."""

_LONGEST_ERROR = 1000

_log = get_logger("agent")


@dataclass(slots=True)
class _Story:
    """What is known so far; the last report is made of it, whenever the end comes."""

    instance_id: str = ""
    config: RunnerConfig | None = None
    workspace: Path | None = None
    end: RunnerEnd | None = None
    started: JobMoment | None = None
    timings: dict[str, float] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    error: str = ""
    side_work: list[threading.Thread] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """Runs one job on this instance and ends it.

    Attributes:
        instance: Tells which instance this is.
        configurations: Where its configuration is.
        packages: Provides the runner.
        reports: Takes reports.
        instances: Ends instances.
        platform: The operating system.
        clock: Time, and the request to stop.
        draw: Random numbers in [0, 1).
        environ: The agent's environment, of which the runner's is made.
        work_directory: Where the agent keeps its files; each instance has a directory in it.
        config_timeout: Seconds to wait for a configuration.
        runner_user: Whom the job runs as if the agent is root.
    """

    instance: KnowsInstance
    configurations: ReadsConfiguration
    packages: RunnerPackages
    reports: SendsReports
    instances: EndsInstance
    platform: Platform
    clock: Clock
    draw: Callable[[], float]
    environ: Mapping[str, str] = field(repr=False)
    work_directory: Path
    config_timeout: float
    runner_user: str

    def run(self) -> ReportStatus:
        """Live this instance's life.

        Returns:
            How it ended. By then the instance is being terminated or shut down.

        Raises:
            Exception: Only when the instance can be ended neither way.
        """
        story = _Story()
        status = ReportStatus.BOOTSTRAP_FAILED
        try:
            status = self._live(story)
        except StopRequestedError as stop:
            status = ReportStatus.INTERRUPTED
            story.error = f"stopped by {stop} before the runner ran"
            _log.info("stopped", extra={"reason": str(stop)})
        except Exception as error:  # noqa: BLE001  any way out ends the instance
            story.error = str(error) or type(error).__name__
            _log.exception("bootstrap failed")
        finally:
            self._leave(story, status)
        return status

    def _live(self, story: _Story) -> ReportStatus:
        begun = self.clock.now()
        story.instance_id = self.instance.instance_id()
        if (launched := self.instance.launched_at()) is not None:
            story.timings["boot"] = (begun - launched).total_seconds()
        _log.info("agent started", extra={"instance_id": story.instance_id})

        since = self.clock.monotonic()
        config = await_configuration(
            self.configurations,
            story.instance_id,
            timeout=self.config_timeout,
            clock=self.clock,
            draw=self.draw,
        )
        since = self._lap(story, "configuration", since)
        story.config = config
        registration = plan_registration(config)
        story.secrets = registration.secrets
        _log.info(
            "configured",
            extra={"job_id": config.job_id, "run_id": config.run_id, "runner": config.runner_name},
        )

        story.workspace = self._make_workspace(story.instance_id)
        provided = self.packages.provide(config, story.workspace)
        since = self._lap(story, "package", since)
        _log.info("runner ready", extra={"source": provided.source, "job_id": config.job_id})

        launch = self._prepare(story.workspace, provided, registration.secrets)
        room = RunnerRoom(self.platform, self.clock)
        self.clock.check()
        if registration.configure_arguments is not None:
            room.configure(
                launch, registration.configure_arguments, registration.configure_environment
            )
        configured_for = self.clock.monotonic() - since
        self._aside(story, "keep-package", lambda: self.packages.keep(provided))
        end = room.run(
            Launch(
                root=launch.root,
                state=launch.state,
                environment={**launch.environment, **registration.run_environment},
                account=launch.account,
                secrets=launch.secrets,
            ),
            Limits(
                max_runtime=config.max_runtime_seconds, idle_timeout=config.idle_timeout_seconds
            ),
            on_started=lambda moment: self._report_start(story, config, moment),
        )
        story.end = end
        if end.listening_after is not None:
            story.timings["registration"] = configured_for + end.listening_after
        status = ending(end.ended)
        story.error = end.error
        if status is ReportStatus.BOOTSTRAP_FAILED:
            story.error = end.error or f"the runner never listened: {' | '.join(end.last_lines)}"
        return status

    def _lap(self, story: _Story, name: str, since: float) -> float:
        now = self.clock.monotonic()
        story.timings[name] = now - since
        return now

    def _make_workspace(self, instance_id: str) -> Path:
        workspace = self.work_directory / instance_id
        shutil.rmtree(workspace, ignore_errors=True)  # of an earlier boot
        workspace.mkdir(parents=True)
        workspace.chmod(0o755)
        return workspace

    def _prepare(
        self, workspace: Path, provided: ProvidedRunner, secrets: tuple[str, ...]
    ) -> Launch:
        account = self.platform.account(self.runner_user)
        user_hooks = take_user_hooks(provided.root, self.environ)
        hooks, state = workspace / "hooks", workspace / "state"
        hooks.mkdir(mode=0o755)
        state.mkdir(mode=0o700)
        scripts = self.platform.write_hooks(hooks, state, user_hooks)
        self.platform.hand_over(state, account)
        self.platform.hand_over(provided.root, account)
        environment = self.platform.environment(self.environ, account)
        environment.update({name: str(script) for name, script in scripts.items()})
        return Launch(
            root=provided.root,
            state=state,
            environment=environment,
            account=account,
            secrets=secrets,
        )

    def _report_start(self, story: _Story, config: RunnerConfig, moment: JobMoment) -> None:
        story.started = moment
        run_id = moment.job.run_id if moment.job else None
        _log.info("job started", extra={"job_id": config.job_id, "ran_run_id": run_id})
        report = self._report(story, ReportStatus.STARTED)
        self._aside(story, "report-start", lambda: self._send(report))

    def _aside(self, story: _Story, name: str, work: Callable[[], None]) -> None:
        """Do something beside the runner; a thread, so that it delays neither job nor limits."""
        thread = threading.Thread(target=work, name=name, daemon=True)
        story.side_work.append(thread)
        thread.start()

    def _report(self, story: _Story, status: ReportStatus) -> RunnerReport:
        config, end = story.config, story.end
        started = end.started if end else story.started
        completed = end.completed if end else None
        job = started.job if started else None
        duration = None
        if started is not None and status.is_ending:
            until = completed.at if completed else self.clock.now().timestamp()
            duration = round(max(until - started.at, 0.0), 3)
        return RunnerReport(
            instance_id=story.instance_id,
            job_id=config.job_id if config else 0,
            run_id=config.run_id if config else 0,
            dispatch=config.dispatch if config else 0,
            status=status,
            exit_code=end.exit_code if end else None,
            duration_seconds=duration,
            started_at=_iso(started.at) if started else None,
            completed_at=_iso(completed.at) if completed else None,
            ran_job=started is not None,
            ran_run_id=job.run_id if job else None,
            timings=tuple(f"{k}={round(v * 1000)}" for k, v in story.timings.items()),
            error=conceal(story.error, story.secrets)[:_LONGEST_ERROR],
        )

    def _leave(self, story: _Story, status: ReportStatus) -> None:
        """Report, clean up, end the instance; no step keeps the next from being taken."""
        for thread in story.side_work:
            thread.join(SIDE_WORK_SECONDS)
        _log.info("ending", extra={"status": status, "instance_id": story.instance_id})
        if story.instance_id:
            self._send(self._report(story, status))
        if story.workspace is not None:
            workspace = story.workspace
            cleaning = threading.Thread(
                target=lambda: shutil.rmtree(workspace, ignore_errors=True), daemon=True
            )
            cleaning.start()
            cleaning.join(SIDE_WORK_SECONDS)  # the volume goes with the instance anyway
        self._end_instance(story.instance_id)

    def _send(self, report: RunnerReport) -> None:
        try:
            self._insist(lambda: self.reports.send(report), "report not sent", REPORT_TRIES)
        except Exception as error:  # noqa: BLE001  the end matters more than its report
            _log.error("report lost", extra={"status": report.status, "error": str(error)})
        else:
            _log.info("reported", extra={"status": report.status, "job_id": report.job_id})

    def _end_instance(self, instance_id: str) -> None:
        if instance_id:
            try:
                self._insist(
                    lambda: self.instances.terminate(instance_id),
                    "instance not terminated",
                    TERMINATE_TRIES,
                )
            except Exception as error:  # noqa: BLE001  there is another way
                _log.error("termination failed, shutting down", extra={"error": str(error)})
            else:
                _log.info("terminating", extra={"instance_id": instance_id})
                return
        self._insist(self.platform.power_off, "shutdown failed", POWER_OFF_TRIES)

    def _insist(self, action: Callable[[], None], complaint: str, tries: int) -> None:
        attempts(
            action,
            tries=tries,
            base=0.5,
            cap=8.0,
            pause=self.clock.rest,
            draw=self.draw,
            on_failure=lambda attempt, error: _log.warning(
                complaint, extra={"attempt": attempt, "error": str(error)}
            ),
        )


def _iso(moment: float) -> str:
    text = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
