"""GitHub says that a job ended (``completed`` deliveries that the webhook hands on).

- It ended before a runner of ours had it, most often as somebody cancelled it: its record is closed
  so that nothing is launched for it. An instance that waits for it is ended at once, but only when
  its runner could be taken away from GitHub: a runner is bound to labels and not to a job, and may
  have been given another one. When in doubt it is left to its idle timeout.
- An interrupted job failed: its re-run is looked at now, not at its next turn; in a moment, if the
  report of its instance is on its way still.
- A job failed on an instance that was launched for another job, and that was interrupted: its own
  record knows nothing of that, so it is told here (``reruns``).
- Anything else is told by the instance itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from runsfleet_runtime.contract.messages import JobEndedMessage
from runsfleet_runtime.contract.metrics import Metric
from runsfleet_runtime.contract.tags import RUNNER_NAME_PREFIX
from runsfleet_runtime.github import GitHubError, Removal
from runsfleet_runtime.interruptions.model import Done, Taken
from runsfleet_runtime.interruptions.ports import KnowsInstances, RemovesRunners
from runsfleet_runtime.interruptions.reruns import Reruns
from runsfleet_runtime.jobs.model import TERMINAL, JobRecord, JobStatus
from runsfleet_runtime.jobs.ports import ClosesJobs, ReadsJobs
from runsfleet_runtime.runners import ForgetsRunners, RunnerStoreError
from runsfleet_runtime.telemetry.log import bound, get_logger
from runsfleet_runtime.telemetry.metrics import CountsMetrics

log = get_logger("events.endings")

_QUESTION_SECONDS: Final = 10.0


class Endings:
    """The use case of jobs that ended at GitHub.

    Args:
        records: The jobs table.
        closer: Closes records that nobody needs any more.
        reruns: Runs interrupted jobs again.
        instances: EC2.
        runners: The store of configurations.
        registrar: Takes runners away from GitHub.
        metrics: Where metrics go.
        clock: Returns epoch seconds.
    """

    def __init__(
        self,
        *,
        records: ReadsJobs,
        closer: ClosesJobs,
        reruns: Reruns,
        instances: KnowsInstances,
        runners: ForgetsRunners,
        registrar: RemovesRunners,
        metrics: CountsMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._records = records
        self._closer = closer
        self._reruns = reruns
        self._instances = instances
        self._runners = runners
        self._registrar = registrar
        self._metrics = metrics
        self._clock = clock

    def take(self, ended: JobEndedMessage, *, deadline: float) -> Taken:
        """Act on the end of a job.

        Args:
            ended: What GitHub said.
            deadline: Epoch seconds by which GitHub must have answered.

        Raises:
            RecordUnknownError: If the table did not answer; the message must come back.
        """
        with bound(job_id=ended.job_id, run_id=ended.run_id, repository=ended.repository):
            record = self._records.get(ended.job_id)
            if record is not None and record.rerun and record.status is not JobStatus.QUEUED:
                self._reruns.settle(record, deadline=deadline)  # if it must wait, its turn comes
            elif not ended.runner_name.startswith(RUNNER_NAME_PREFIX):
                self._cancel(ended, deadline)
            elif record is None or ended.runner_name != record.runner_name:
                return self._reruns.adopt(record, ended, deadline=deadline)
            elif record.status not in TERMINAL and record.interrupted_at:
                return self._reruns.look_soon(ended.job_id)
            return Done()

    def _cancel(self, ended: JobEndedMessage, deadline: float) -> None:
        before = self._closer.cancel(ended, now=self._clock())
        is_new = before is None or before.status not in TERMINAL
        if before is not None and before.instance_id:
            self._release(before, deadline)
        if is_new:
            self._metrics.add(Metric.JOBS_CANCELLED)
        log.info(
            "ended before a runner had it",
            extra={
                "conclusion": ended.conclusion,
                "status": before.status.value if before else "no record",
            },
        )

    def _release(self, record: JobRecord, deadline: float) -> None:
        """End the instance of a job that ended, if its runner is idle for certain and for ever."""
        with bound(instance_id=record.instance_id):
            try:
                removal = self._registrar.deregister(
                    record.job.repository,
                    instance_id=record.instance_id,
                    installation_id=record.job.installation_id,
                    deadline=min(deadline, self._clock() + _QUESTION_SECONDS),
                )
            except GitHubError as error:
                log.warning("instance left to its idle timeout", extra={"error": str(error)})
                return
            if removal is not Removal.REMOVED:
                # absent is no proof: a runner that registers by itself may do so in a moment
                log.info("instance left to its idle timeout", extra={"runner": removal.value})
                return
            if not self._instances.terminate(record.instance_id):
                return  # without its registration its runner ends by itself
            self._metrics.add(Metric.INSTANCES_RELEASED)
            try:
                self._runners.delete(record.instance_id)
            except RunnerStoreError as error:
                log.warning("configuration not deleted", extra={"error": str(error)})
