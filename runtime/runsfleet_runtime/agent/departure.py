"""The end of an instance: report, logs, clean-up, termination; each bounded, none in another's way.

Beyond its bounds nothing is waited for: an instance that stays costs money for nothing.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runsfleet_runtime.agent.bounded import within
from runsfleet_runtime.agent.diagnostics import read_diagnostics
from runsfleet_runtime.agent.retry import attempts
from runsfleet_runtime.agent.spans import gather_spans
from runsfleet_runtime.contract.messages import ReportStatus
from runsfleet_runtime.contract.paths import diagnostics_stream, log_stream
from runsfleet_runtime.telemetry.log import get_logger
from runsfleet_runtime.telemetry.traces import OFF

if TYPE_CHECKING:
    from collections.abc import Callable

    from runsfleet_runtime.agent.masking import Masker
    from runsfleet_runtime.agent.ports import (
        Clock,
        EndsInstance,
        KeepsReports,
        Platform,
        SendsReports,
        ShipsLogs,
    )
    from runsfleet_runtime.agent.story import Story
    from runsfleet_runtime.contract.messages import RunnerReport
    from runsfleet_runtime.telemetry.traces import Tracer

REPORT_TRIES = 4
TERMINATE_TRIES = 5
POWER_OFF_TRIES = 3

SIDE_WORK_SECONDS = 10.0
"""For what serves others only, such as filling the cache (origin: 10 s)."""

REPORT_SECONDS = 10.0
"""For the last report (origin: 10 s)."""

KEEP_SECONDS = 5.0
"""For keeping a report that was not taken."""

DIAGNOSTICS_SECONDS = 5.0
"""For reading the runner's diagnostics."""

FLUSH_SECONDS = 10.0
"""For the last log lines."""

CLEANING_SECONDS = 10.0
"""For removing files; the volume goes with the instance anyway."""

TERMINATE_SECONDS = 60.0
"""For all tries of TerminateInstances; then the system is shut down."""

_log = get_logger("agent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """Takes the last steps.

    Attributes:
        reports: Takes reports.
        kept: Keeps reports that were not taken.
        logs: Brings the log away.
        instances: Ends instances.
        platform: The operating system.
        clock: Time.
        draw: Random numbers in [0, 1).
        mask: Takes secrets out.
        report_seconds: Bound of the last report.
        flush_seconds: Bound of the last log lines.
        terminate_seconds: Bound of the termination.
        tracer: Sends the spans of this life, within a second.
    """

    reports: SendsReports
    kept: KeepsReports
    logs: ShipsLogs
    instances: EndsInstance
    platform: Platform
    clock: Clock
    draw: Callable[[], float]
    mask: Masker
    report_seconds: float = REPORT_SECONDS
    flush_seconds: float = FLUSH_SECONDS
    terminate_seconds: float = TERMINATE_SECONDS
    tracer: Tracer = OFF

    def leave(self, story: Story, status: ReportStatus) -> None:
        """Report, bring the logs away, clean up, end the instance.

        Raises:
            Exception: Only when the instance can be ended neither way.
        """
        self._await_side_work(story)
        _log.info("ending", extra={"status": status, "instance_id": story.instance_id})
        if story.instance_id and not story.stays:
            report = story.report(status, now=self.clock.now(), mask=self.mask)
            self._send_last(report)
            self._attach_diagnostics(story, status)
            self._trace(story, report)
        if story.instance_id:
            self.logs.begin(log_stream(story.instance_id, story.job_id))
            if not self.logs.close(self.flush_seconds):
                _log.warning("log not complete at the log service")
        self._clean(story)
        if not story.stays:
            self._end_instance(story.instance_id)

    def send(self, report: RunnerReport) -> bool:
        """Send a report, again if need be; whether it was taken."""
        try:
            self._insist(lambda: self.reports.send(report), "report not sent", REPORT_TRIES)
        except Exception as error:  # noqa: BLE001  the job matters more than its report
            _log.error("report lost", extra={"status": report.status, "error": str(error)})
            return False
        _log.info("reported", extra={"status": report.status, "job_id": report.job_id})
        return True

    def send_soon(self, report: RunnerReport) -> bool:
        """Send a report within its bound; whether it was taken."""
        sent: list[bool] = []
        try:
            within(self.report_seconds, lambda: sent.append(self.send(report)), "report")
        except TimeoutError as error:
            _log.error("report lost", extra={"status": report.status, "error": str(error)})
        return sent == [True]

    def _await_side_work(self, story: Story) -> None:
        end = self.clock.monotonic() + SIDE_WORK_SECONDS
        for thread in story.side_work:
            thread.join(max(end - self.clock.monotonic(), 0.0))

    def _send_last(self, report: RunnerReport) -> None:
        if self.send_soon(report):
            return
        # the whole of it in the log too: that goes another way
        _log.error("report not delivered", extra={"report": report.to_json()})
        self._quietly(KEEP_SECONDS, lambda: self.kept.keep(report), "keep-report")

    def _trace(self, story: Story, report: RunnerReport) -> None:
        if not self.tracer.is_on:
            return
        try:
            gather_spans(self.tracer, story, report, now=self.clock.now().timestamp())
        except Exception as error:  # noqa: BLE001  no trace is worth the end of an instance
            _log.warning("spans not gathered", extra={"error": str(error)})
        self.tracer.flush()  # bounded by itself

    def _attach_diagnostics(self, story: Story, status: ReportStatus) -> None:
        if status is ReportStatus.SUCCESS or story.runner is None:
            return
        root = story.runner.root
        stream = diagnostics_stream(story.instance_id, story.job_id)

        def attach() -> None:
            if lines := read_diagnostics(root):
                self.logs.attach(stream, lines)

        self._quietly(DIAGNOSTICS_SECONDS, attach, "diagnostics")

    def _clean(self, story: Story) -> None:
        if (workspace := story.workspace) is not None:
            self._quietly(
                CLEANING_SECONDS, lambda: shutil.rmtree(workspace, ignore_errors=True), "clean-up"
            )

    def _end_instance(self, instance_id: str) -> None:
        if instance_id:
            try:
                within(
                    self.terminate_seconds,
                    lambda: self._insist(
                        lambda: self.instances.terminate(instance_id),
                        "instance not terminated",
                        TERMINATE_TRIES,
                    ),
                    "termination",
                )
            except Exception as error:  # noqa: BLE001  there is another way
                _log.error("termination failed, shutting down", extra={"error": str(error)})
            else:
                _log.info("terminating", extra={"instance_id": instance_id})
                return
        self._insist(self.platform.power_off, "shutdown failed", POWER_OFF_TRIES)

    def _quietly(self, seconds: float, action: Callable[[], object], name: str) -> None:
        try:
            within(seconds, action, name)
        except Exception as error:  # noqa: BLE001  the end is not held up
            _log.warning(f"{name} failed", extra={"error": str(error)})

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
