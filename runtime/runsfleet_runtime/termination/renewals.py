"""A runner whose registration GitHub did not take gets another one, once, on the same instance.

A JIT configuration that nobody used lives for minutes only, so a slow boot may come too late with
it. A second one for the instance that is there already costs seconds, a second instance a boot.

Once for each dispatch, noted in the job's record before anything is minted: a message that comes
twice must not take away the registration that the runner is just using. Whatever fails after that
note is not tried again here. The instance waits for a while, ends, and its job is dispatched again
within its budget.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from runsfleet_runtime.contract.messages import JobMessage, RunnerConfig, RunnerReport
from runsfleet_runtime.contract.metrics import Metric
from runsfleet_runtime.github import GitHubError, JobState, KnowsJobStates, RegistersRunners
from runsfleet_runtime.jobs.ports import RecordUnknownError
from runsfleet_runtime.runners import RunnerStoreError
from runsfleet_runtime.telemetry.log import get_logger
from runsfleet_runtime.telemetry.metrics import CountsMetrics

log = get_logger("termination.renewals")

ANSWER_SECONDS: Final = 10.0
"""For each of the two things that are asked of GitHub: a question that it does not answer must not
use up the time to register, which is tried once only."""


class NotesRenewals(Protocol):
    """The records of jobs, as renewals need them."""

    def read(self, job_id: int) -> JobMessage | None:
        """Return the message that dispatched a job; raises ``RecordUnknownError``."""

    def renew(self, report: RunnerReport, *, now: float) -> bool | None:
        """Note that a launched job's instance gets another registration, once for each dispatch.

        Returns whether it may: False when it had one, or the job is not this instance's any more;
        None when the table did not answer.
        """


class StoresConfigurations(Protocol):
    """The store of runner configurations, as renewals need it."""

    def put(self, config: RunnerConfig, now: float) -> None:
        """Write a configuration; raises ``RunnerStoreError``."""


class Renewals:
    """Renews registrations.

    Args:
        records: The jobs table.
        registrar: Registers runners.
        store: The configuration store.
        job_states: Asks GitHub for a job's state.
        server_url: ``https://github.com`` or an Enterprise Server.
        metrics: Where metrics go.
        clock: Returns epoch seconds.
    """

    def __init__(
        self,
        *,
        records: NotesRenewals,
        registrar: RegistersRunners,
        store: StoresConfigurations,
        job_states: KnowsJobStates,
        server_url: str,
        metrics: CountsMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._records = records
        self._registrar = registrar
        self._store = store
        self._job_states = job_states
        self._server_url = server_url
        self._metrics = metrics
        self._clock = clock

    def renew(self, report: RunnerReport, *, deadline: float) -> bool:
        """Give the instance that reports another registration, if its job still waits.

        Args:
            report: Asks for it.
            deadline: Epoch seconds by which GitHub must have answered; it has less if the batch is
                young, see ``ANSWER_SECONDS``.

        Returns:
            Whether the message is done with; False to let it come again.
        """
        try:
            job = self._records.read(report.job_id)
        except RecordUnknownError as error:
            log.error("renewal not taken", extra={"error": str(error)})
            return False
        if job is None:
            self._metrics.add(Metric.REPORTS_REFUSED)
            return True
        state = self._job_states.status(
            job.repository, job.job_id, job.installation_id, deadline=self._until(deadline)
        )
        if state not in {JobState.QUEUED, JobState.UNKNOWN}:  # nobody needs this runner any more
            log.info("renewal not needed", extra={"github": state.value})
            return True
        noted = self._records.renew(report, now=self._clock())
        if noted is None:
            return False
        if noted:
            self._give(report, job, deadline)
        else:
            self._metrics.add(Metric.REPORTS_REFUSED)
            log.info("renewal refused: it had one, or the job is another's by now")
        return True

    def _give(self, report: RunnerReport, job: JobMessage, deadline: float) -> None:
        try:
            registration = self._registrar.register(
                job, instance_id=report.instance_id, deadline=self._until(deadline)
            )
            # neither package nor limits: the instance has them from its first configuration
            config = RunnerConfig(
                instance_id=report.instance_id,
                job_id=job.job_id,
                dispatch=report.dispatch,
                run_id=job.run_id,
                repository=job.repository,
                server_url=self._server_url,
                runner_url=registration.runner_url,
                runner_name=registration.runner_name,
                runner_group_id=registration.runner_group_id,
                labels=job.labels,
                jit_config=registration.jit_config,
                registration_token=registration.registration_token,
                traceparent=job.traceparent,
            )
            self._store.put(config, now=self._clock())
        except (GitHubError, RunnerStoreError) as error:
            log.error("runner not renewed", extra={"error": str(error)})
            return
        self._metrics.add(Metric.RUNNERS_RENEWED)
        log.warning("runner renewed", extra={"why": report.error})

    def _until(self, deadline: float) -> float:
        return min(deadline, self._clock() + ANSWER_SECONDS)
