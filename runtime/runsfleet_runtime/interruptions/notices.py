"""EC2 announces the end of an instance: a spot warning, or the advice to rebalance.

Order, and nothing may change it: the record first (spot is out of the question for this job from
now on), then the job, then the circuit breaker, then metrics.

The agent on the instance sees the same warning, stops its runner and reports. So a job that had
started is left to that report, or to the instance's end (``departures``). One that no runner had
begun need not wait for either: if its runner can be taken away from GitHub it cannot be given a
job any more, and a job that is still queued then is dispatched again at once.

An event that is none of ours, or comes after the job's end, changes no job: acted on blindly such
events would dispatch jobs that are done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from runsfleet_runtime.circuit_breaker.model import Failure, FailureKind, Offering
from runsfleet_runtime.circuit_breaker.ports import GuardsOfferings
from runsfleet_runtime.contract.metrics import Metric
from runsfleet_runtime.github import GitHubError, JobState, KnowsJobStates, Removal
from runsfleet_runtime.interruptions.model import (
    ComeBack,
    Done,
    RebalanceRecommendation,
    SpotWarning,
    Taken,
)
from runsfleet_runtime.interruptions.ports import (
    Instance,
    InstanceUnknownError,
    KnowsInstances,
    Noted,
    NotesInterruptions,
    RemovesRunners,
)
from runsfleet_runtime.jobs.model import Cause, JobRecord, JobStatus
from runsfleet_runtime.jobs.ports import ReadsJobs, Redispatched, RedispatchesJobs
from runsfleet_runtime.runners import ForgetsRunners
from runsfleet_runtime.telemetry.log import bound, get_logger
from runsfleet_runtime.telemetry.metrics import CountsMetrics
from runsfleet_runtime.telemetry.traces import OFF, SpanKind, TracesWork

log = get_logger("events.notices")

CONFIGURING_SECONDS: Final = 120.0
"""An instance that has no record so long after its launch gets none any more: dispatch would have
recorded or ended it (its timeout is 60 s)."""
_LOOK_AGAIN_SECONDS: Final = 30.0
_QUESTION_SECONDS: Final = 10.0
_OPEN: Final = frozenset({JobStatus.LAUNCHED, JobStatus.RUNNING})
_KINDS: Final = {
    JobStatus.QUEUED: "launched",  # its instance's report was faster, and it was handed back
    JobStatus.CLAIMED: "launched",
    JobStatus.LAUNCHED: "launched",
    JobStatus.RUNNING: "running",
    JobStatus.COMPLETED: "without_job",
    JobStatus.EXPIRED: "without_job",
}


class Notices:
    """The use case of what EC2 announces.

    Args:
        records: The jobs table.
        notes: Notes on its records.
        instances: EC2.
        runners: The store of configurations.
        registrar: Takes runners away from GitHub.
        job_states: Asks GitHub for a job's state.
        redispatcher: Dispatches a job again.
        breaker: Counts interruptions of an offering.
        metrics: Where metrics go.
        clock: Returns epoch seconds.
        traces: Where spans go; by default nowhere.
    """

    def __init__(
        self,
        *,
        records: ReadsJobs,
        notes: NotesInterruptions,
        instances: KnowsInstances,
        runners: ForgetsRunners,
        registrar: RemovesRunners,
        job_states: KnowsJobStates,
        redispatcher: RedispatchesJobs,
        breaker: GuardsOfferings,
        metrics: CountsMetrics,
        clock: Callable[[], float],
        traces: TracesWork = OFF,
    ) -> None:
        self._records = records
        self._notes = notes
        self._instances = instances
        self._runners = runners
        self._registrar = registrar
        self._job_states = job_states
        self._redispatcher = redispatcher
        self._breaker = breaker
        self._metrics = metrics
        self._clock = clock
        self._traces = traces

    def warn(self, warning: SpotWarning, *, deadline: float) -> Taken:
        """Act on a spot warning.

        Args:
            warning: The event.
            deadline: Epoch seconds by which GitHub must have answered.

        Raises:
            RecordUnknownError: If the table did not answer; the message must come back.
        """
        record = self._records.of_instance(warning.instance_id)
        if record is None:
            return self._warn_without_record(warning)
        with (
            bound(job_id=record.job.job_id),
            self._traces.span(
                "interruption",
                record.job.traceparent,
                kind=SpanKind.CONSUMER,
                job_id=record.job.job_id,
                instance_id=warning.instance_id,
                status=record.status.value,
            ),
        ):
            noted = Noted.SETTLED
            if record.status in _OPEN:
                noted = self._notes.note_interruption(
                    record,
                    at=warning.at,
                    reason=f"spot warning: {warning.action}",
                    now=self._clock(),
                )
            taken: Taken = Done()
            if noted is not Noted.SETTLED and record.status is JobStatus.LAUNCHED:
                taken = self._redispatch_unstarted(record, deadline)
            elif record.status is JobStatus.QUEUED:
                # handed back, by its instance's report or an earlier try; whether its message is
                # out is not known, and sent twice it is one
                taken = self._redispatch(record)
            self._fail(
                warning,
                Offering(
                    capacity_type=record.capacity_type,
                    instance_type=record.instance_type,
                    availability_zone=record.availability_zone,
                ),
            )
            # what is not done with, or was counted already, is not counted
            if noted is not Noted.KNOWN and isinstance(taken, Done):
                self._metrics.add(Metric.SPOT_INTERRUPTIONS, kind=_KINDS[record.status])
            log.warning(
                "spot warning",
                extra={"status": record.status.value, "noted": noted.value, "at": warning.at},
            )
            return taken

    def _warn_without_record(self, warning: SpotWarning) -> Taken:
        try:
            instance = self._instances.find(warning.instance_id)
        except InstanceUnknownError as error:
            log.warning("instance unknown", extra={"error": str(error)})
            return ComeBack()
        if instance is None:
            log.info("spot warning for an instance of others")
            return Done()
        if _is_being_configured(instance, self._clock()):
            return ComeBack(_LOOK_AGAIN_SECONDS)
        self._fail(
            warning,
            Offering(
                capacity_type=instance.capacity_type,
                instance_type=instance.instance_type,
                availability_zone=instance.availability_zone,
            ),
        )
        self._metrics.add(Metric.SPOT_INTERRUPTIONS, kind="without_job")
        log.warning("spot warning", extra={"status": "no job"})
        return Done()

    def _redispatch_unstarted(self, record: JobRecord, deadline: float) -> Taken:
        """Dispatch a job again at once if no runner has begun it, for certain."""
        until = min(deadline, self._clock() + _QUESTION_SECONDS)
        job = record.job
        try:
            removal = self._registrar.deregister(
                job.repository,
                instance_id=record.instance_id,
                installation_id=job.installation_id,
                deadline=until,
            )
        except GitHubError as error:
            log.warning("runner not removed", extra={"error": str(error)})
            return Done()  # its instance's report or end will tell
        if removal is not Removal.REMOVED:
            return Done()
        state = self._job_states.status(
            job.repository, job.job_id, job.installation_id, deadline=until
        )
        return self._redispatch(record) if state is JobState.QUEUED else Done()

    def _redispatch(self, record: JobRecord) -> Taken:
        result = self._redispatcher.redispatch(
            record,
            Cause.INTERRUPTED,
            on_demand=True,
            reason="spot warning",
            further=self._runners.transact_delete(record.instance_id),
        )
        return ComeBack() if result is Redispatched.UNKNOWN else Done()

    def _fail(self, warning: SpotWarning, offering: Offering) -> None:
        if all((offering.capacity_type, offering.instance_type, offering.availability_zone)):
            failure = Failure(
                offering=offering,
                kind=FailureKind.INTERRUPTION,
                at=warning.at,
                id=warning.instance_id,
            )
            self._breaker.record_failures([failure])

    def recommend(self, recommendation: RebalanceRecommendation) -> Taken:
        """Count a recommendation: nothing is done about it, as many a job ends before EC2 acts.

        Raises:
            RecordUnknownError: If the table did not answer; the message must come back.
        """
        record = self._records.of_instance(recommendation.instance_id)
        if record is None:
            try:
                if self._instances.find(recommendation.instance_id) is None:
                    return Done()
            except InstanceUnknownError as error:
                log.warning("instance unknown", extra={"error": str(error)})
                return ComeBack()
        self._metrics.add(Metric.REBALANCE_RECOMMENDATIONS)
        log.info("rebalance recommended", extra={"job_id": record and record.job.job_id})
        return Done()


def _is_being_configured(instance: Instance, now: float) -> bool:
    is_alive = instance.state in {"pending", "running"}
    return is_alive and now < instance.launched_at + CONFIGURING_SECONDS
