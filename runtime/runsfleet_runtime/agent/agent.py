"""The agent's use case: one instance, one job, and in every case the end of the instance."""

from __future__ import annotations

import shutil
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from runsfleet_runtime.agent.configuration import await_configuration
from runsfleet_runtime.agent.errors import RegistrationError, StopRequestedError
from runsfleet_runtime.agent.hooks import STATE_DIRECTORY, take_user_hooks
from runsfleet_runtime.agent.lifecycle import Limits, ending, may_renew
from runsfleet_runtime.agent.process import Launch, RunnerRoom
from runsfleet_runtime.agent.registration import plan_registration
from runsfleet_runtime.agent.renewal import RENEWAL_SECONDS, await_renewal, forget_registration
from runsfleet_runtime.agent.story import LONGEST_ERROR, Story
from runsfleet_runtime.agent.vitals import Machine
from runsfleet_runtime.contract.messages import ReportStatus
from runsfleet_runtime.contract.paths import log_stream
from runsfleet_runtime.telemetry.log import bound, get_logger
from runsfleet_runtime.telemetry.traces import OFF, trace_id_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from runsfleet_runtime.agent.departure import Departure
    from runsfleet_runtime.agent.hooks import JobMoment
    from runsfleet_runtime.agent.masking import Masker
    from runsfleet_runtime.agent.package import ProvidedRunner, RunnerPackages
    from runsfleet_runtime.agent.ports import (
        Clock,
        KnowsInstance,
        Platform,
        ReadsConfiguration,
        ShipsLogs,
        TakesVitals,
        WatchesNotices,
    )
    from runsfleet_runtime.agent.process import RunnerEnd
    from runsfleet_runtime.contract.messages import RunnerConfig
    from runsfleet_runtime.telemetry.traces import Tracer

_log = get_logger("agent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """Runs one job on this instance and ends it.

    Attributes:
        instance: Tells which instance this is.
        notices: Watches for spot notices.
        configurations: Where its configuration is.
        packages: Provides the runner.
        departure: Takes the last steps.
        logs: Brings the log away.
        mask: Takes secrets out.
        platform: The operating system.
        clock: Time, and the request to stop.
        draw: Random numbers in [0, 1).
        environ: The agent's environment, of which the runner's is made.
        work_directory: Where the agent keeps its files; each instance has a directory in it.
        config_timeout: Seconds to wait for a configuration.
        runner_user: Whom the job runs as if the agent is root.
        standby: Whether the instance may be stopped while it waits for a configuration.
        machine: Knows disk and memory; this machine by default.
        renewal_timeout: Seconds to wait for another registration.
        tracer: Gathers spans; the same as the departure's, which sends them.
    """

    instance: KnowsInstance
    notices: WatchesNotices
    configurations: ReadsConfiguration
    packages: RunnerPackages
    departure: Departure
    logs: ShipsLogs
    mask: Masker
    platform: Platform
    clock: Clock
    draw: Callable[[], float]
    environ: Mapping[str, str] = field(repr=False)
    work_directory: Path
    config_timeout: float
    runner_user: str
    standby: bool = False
    machine: TakesVitals | None = None
    renewal_timeout: float = RENEWAL_SECONDS
    tracer: Tracer = OFF

    def run(self) -> ReportStatus:
        """Live this instance's life.

        Returns:
            How it ended. By then the instance is being terminated or shut down, unless it is a
            standby that somebody stops.

        Raises:
            Exception: Only when the instance can be ended neither way.
        """
        story = Story()
        status = ReportStatus.BOOTSTRAP_FAILED
        try:
            status = self._live(story)
        except StopRequestedError as stop:
            status = ReportStatus.INTERRUPTED
            story.error = f"stopped by {stop} before the runner ran"
            # without a notice's time it is a system that is stopped, to be started again
            story.stays = self.standby and story.config is None and self.clock.stop_by is None
            _log.info("stopped", extra={"reason": str(stop), "stays": story.stays})
        except Exception as error:  # noqa: BLE001  any way out ends the instance
            story.error = str(error) or type(error).__name__
            _log.exception("bootstrap failed", extra=trace_id_of(story.traceparent))
        finally:
            self.notices.stop()
            if status is ReportStatus.INTERRUPTED and self.notices.rebalance:
                story.error += f"; a rebalance was recommended at {self.notices.rebalance}"
            with bound(**trace_id_of(story.traceparent)):
                self.departure.leave(story, status)
        return status

    def _live(self, story: Story) -> ReportStatus:
        begun = self.clock.now()
        story.instance_id = self.instance.instance_id()
        self.notices.start()
        if (launched := self.instance.launched_at()) is not None:
            self._note(story, "boot", (begun - launched).total_seconds(), begun.timestamp())
        story.begun = (launched or begun).timestamp()
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
        story.traceparent = self.tracer.begin("agent", config.traceparent, start=story.begun)
        plan_registration(config)  # what cannot register needs no runner
        self.mask.learn(config.jit_config, config.registration_token)
        with bound(**trace_id_of(story.traceparent)):
            return self._work(story, config, since)

    def _work(self, story: Story, config: RunnerConfig, since: float) -> ReportStatus:
        self.logs.begin(log_stream(story.instance_id, config.job_id))
        _log.info(
            "configured",
            extra={"job_id": config.job_id, "run_id": config.run_id, "runner": config.runner_name},
        )

        story.workspace = self._make_workspace(story.instance_id)
        provided = self.packages.provide(config, story.workspace)
        since = self._lap(story, "package", since)
        _log.info("runner ready", extra={"source": provided.source, "job_id": config.job_id})
        story.runner = provided
        end = self._serve(story, config, provided)

        story.end = end
        status = ending(end.ended)
        story.error = end.error or end.why
        if status is ReportStatus.BOOTSTRAP_FAILED:
            story.error = "; ".join(text for text in (story.error, _never_listened(end)) if text)
        return status

    def _serve(self, story: Story, config: RunnerConfig, provided: ProvidedRunner) -> RunnerEnd:
        """Run the runner; once more, with another registration, if GitHub did not take this one."""
        launch = self._prepare(provided, story.workspace or self.work_directory)
        self._aside(story, "keep-package", lambda: self.packages.keep(provided))
        try:
            end = self._run(story, config, launch)
        except RegistrationError as error:
            renewed = self._renew(story, config, str(error))
            if renewed is None:
                raise
        else:
            if not may_renew(end.ended, end.exit_code):
                return end
            renewed = self._renew(story, config, _never_listened(end))
            if renewed is None:
                return end
        forget_registration(provided.root)
        return self._run(story, renewed, launch)

    def _renew(self, story: Story, config: RunnerConfig, why: str) -> RunnerConfig | None:
        self.clock.check()
        _log.warning("registration refused, another is asked for", extra={"why": self.mask(why)})
        report = replace(
            story.report(ReportStatus.RENEWAL, now=self.clock.now(), mask=self.mask),
            error=self.mask(why)[:LONGEST_ERROR],
        )
        if not self.departure.send_soon(report):
            return None
        renewed = await_renewal(
            self.configurations,
            config,
            timeout=self.renewal_timeout,
            clock=self.clock,
            draw=self.draw,
        )
        if renewed is None:
            _log.warning("no other registration came")
        return renewed

    def _run(self, story: Story, config: RunnerConfig, launch: Launch) -> RunnerEnd:
        registration = plan_registration(config)
        self.mask.learn(*registration.secrets)
        since = self.clock.monotonic()
        machine = self.machine or Machine(self.platform, launch.root)
        room = RunnerRoom(self.platform, self.clock, machine=machine)
        self.clock.check()
        launch = replace(launch, secrets=registration.secrets)
        if registration.configure_arguments is not None:
            room.configure(
                launch, registration.configure_arguments, registration.configure_environment
            )
        configured_for = self.clock.monotonic() - since

        def on_listening(after: float) -> None:
            seconds = configured_for + after
            self._note(story, "registration", seconds, self.clock.now().timestamp())

        return room.run(
            replace(launch, environment={**launch.environment, **registration.run_environment}),
            Limits(
                max_runtime=config.max_runtime_seconds, idle_timeout=config.idle_timeout_seconds
            ),
            on_started=lambda moment: self._report_start(story, config, moment),
            on_listening=on_listening,
        )

    def _lap(self, story: Story, name: str, since: float) -> float:
        now = self.clock.monotonic()
        self._note(story, name, now - since, self.clock.now().timestamp())
        return now

    @staticmethod
    def _note(story: Story, name: str, seconds: float, end: float) -> None:
        story.timings[name], story.steps[name] = seconds, end

    def _make_workspace(self, instance_id: str) -> Path:
        workspace = self.work_directory / instance_id
        shutil.rmtree(workspace, ignore_errors=True)  # of an earlier boot
        workspace.mkdir(parents=True)
        workspace.chmod(0o755)
        return workspace

    def _prepare(self, provided: ProvidedRunner, workspace: Path) -> Launch:
        account = self.platform.account(self.runner_user)
        user_hooks = take_user_hooks(provided.root, self.environ)
        hooks, state = workspace / "hooks", workspace / STATE_DIRECTORY
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
        )

    def _report_start(self, story: Story, config: RunnerConfig, moment: JobMoment) -> None:
        story.started = moment
        run_id = moment.job.run_id if moment.job else None
        _log.info("job started", extra={"job_id": config.job_id, "ran_run_id": run_id})
        report = story.report(ReportStatus.STARTED, now=self.clock.now(), mask=self.mask)
        self._aside(story, "report-start", lambda: self.departure.send(report))

    def _aside(self, story: Story, name: str, work: Callable[[], object]) -> None:
        """Do something beside the runner; a thread, so that it delays neither job nor limits."""
        thread = threading.Thread(target=work, name=name, daemon=True)
        story.side_work.append(thread)
        thread.start()


def _never_listened(end: RunnerEnd) -> str:
    how = "left without a job" if end.ended.listened else "never listened"
    return f"the runner {how}: {' | '.join(end.last_lines)}"
