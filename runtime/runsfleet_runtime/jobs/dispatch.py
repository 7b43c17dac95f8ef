"""Dispatch: a batch of queued jobs becomes launched, configured instances.

For each batch: claim -> group by equal spec -> ONE CreateFleet a group (spot, and once more
on-demand for what spot did not deliver, each without the offerings that the circuit breaker holds
open) -> register a runner for each instance -> write its configuration and the job's record in one
transaction -> tell the breaker.

What must hold whatever fails:

- Nothing is launched for a job that this worker does not hold a claim of.
- A message is done with (not returned) only once the job is launched, settled or given up in its
  record, or another message for it is on the queue.
- An instance that cannot be configured is terminated before its job is handed back. One that is
  launched unseen (a crash, a lost answer) finds no configuration and ends itself.
- A job goes back first in its record, then as a message: a message whose record cannot be claimed
  yet would be dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from runsfleet_runtime.circuit_breaker.model import Failure, FailureKind
from runsfleet_runtime.circuit_breaker.ports import GuardsOfferings
from runsfleet_runtime.contract.environment import LaunchTarget, OfferedImage
from runsfleet_runtime.contract.messages import JobMessage, RunnerConfig
from runsfleet_runtime.contract.metrics import Metric
from runsfleet_runtime.fleet.catalogue import candidates
from runsfleet_runtime.fleet.plan import (
    CapacityType,
    LaunchedInstance,
    LaunchRequest,
    LaunchResult,
    capacity_for,
    client_token,
    judge,
)
from runsfleet_runtime.fleet.ports import LaunchesInstances
from runsfleet_runtime.jobs.backoff import LONGEST_WAIT, retry_delay
from runsfleet_runtime.jobs.model import Claimed, ClaimUnknown, HeldByOther, Launch, NoSlot
from runsfleet_runtime.jobs.ports import ClaimsJobs, KnowsRuns, RecordUnknownError, SendsJobs
from runsfleet_runtime.labels import Accepted, LabelSettings, RetryPolicy, RunnerSpec, resolve
from runsfleet_runtime.telemetry.log import bound, get_logger
from runsfleet_runtime.telemetry.metrics import CountsMetrics
from runsfleet_runtime.telemetry.traces import OFF, TracesWork, trace_id_of

log = get_logger("dispatch")

_CLEAN_UP_SECONDS: Final = 10.0  # kept free at the end of an invocation to hand jobs back
_PREPARE_SECONDS: Final = 20.0  # for a whole batch: a GitHub that is slow for one holds up no other
_DISCARD_SECONDS: Final = 5.0  # what is not undone by then ends by itself
_FEW_RECEIVES: Final = 2  # the queue keeps a message for no more than three (origin)
_PARALLEL_REGISTRATIONS: Final = 10  # one for each job of the largest FIFO batch


class ConfiguresRunners(Protocol):
    """GitHub registration and the store of runner configurations, as one step."""

    def prepare(self, job: JobMessage, spec: RunnerSpec, *, deadline: float) -> None:
        """Make sure that GitHub would let a runner of this job register; costs nothing if known.

        Called before the launch, so that a GitHub that is away, or an App that lacks a permission,
        costs no instance.

        Raises:
            RunnerNotConfiguredError: If it would not, or does not say before ``deadline``.
        """

    def configure(
        self, job: JobMessage, instance_id: str, spec: RunnerSpec, *, deadline: float
    ) -> RunnerConfig:
        """Register a runner and return its configuration.

        Raises:
            RunnerNotConfiguredError: If GitHub did not register it before ``deadline``.
        """

    def transact_put(self, config: RunnerConfig, *, now: float) -> Sequence[Mapping[str, Any]]:
        """Return the writes that store it, to be made together with the job's record.

        A store that cannot take part in that transaction writes at once and returns nothing.

        Raises:
            RunnerNotConfiguredError: If such a store failed.
        """

    def discard(self, config: RunnerConfig, job: JobMessage, *, deadline: float) -> None:
        """Undo a configuration whose launch was not recorded; best effort, until ``deadline``."""


class RunnerNotConfiguredError(Exception):
    """A runner could not be registered, or its configuration not be stored.

    Attributes:
        service: Who failed, as a kind of the ``APIErrors`` metric.
        retry_at: Epoch seconds before which another try is useless; 0 when unknown.
        is_final: Whether the same registration would be refused for ever; each try costs an
            instance.
    """

    def __init__(
        self, message: str, *, service: str, retry_at: float = 0.0, is_final: bool = False
    ) -> None:
        super().__init__(message)
        self.service = service
        self.retry_at = retry_at
        self.is_final = is_final


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedJob:
    """A message of the jobs queue.

    Attributes:
        message_id: SQS's id of it.
        receipt_handle: SQS's handle of this receipt.
        job: Its content.
        receives: How often it was received, from 1.
    """

    message_id: str
    receipt_handle: str
    job: JobMessage
    receives: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchSettings:
    """What dispatch is configured with.

    Attributes:
        labels: What labels are resolved against.
        targets: Launch target by platform.
        subnet_ids: Subnets of ordinary instances.
        private_subnet_ids: Subnets of instances with ``private=true``.
        subnet_zones: Zone by subnet.
        images: Image by the name that labels call it.
        job_deadline_seconds: A job older than this is given up.
    """

    labels: LabelSettings
    targets: Mapping[str, LaunchTarget]
    subnet_ids: tuple[str, ...]
    private_subnet_ids: tuple[str, ...] = ()
    subnet_zones: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, OfferedImage] = field(default_factory=dict)
    job_deadline_seconds: float = 24 * 3600


@dataclass(frozen=True, slots=True)
class _Held:
    """A job that this worker holds the claim of."""

    received: ReceivedJob
    claim_id: str
    spec: RunnerSpec

    @property
    def job(self) -> JobMessage:
        return self.received.job


_Asked = tuple[LaunchRequest, LaunchResult]


class Dispatcher:
    """The use case of the dispatch function.

    Args:
        settings: See :class:`DispatchSettings`.
        records: The jobs table.
        history: The jobs table, for what became of a run's earlier attempts.
        queue: The jobs queue.
        instances: EC2.
        runners: GitHub and the configuration store.
        breaker: Which offerings are not worth asking for just now.
        metrics: Where metrics go.
        clock: Returns epoch seconds.
        jitter: Returns a random number in [0, 1).
        new_id: Returns an id that never repeats.
        traces: Where the moments of a job's dispatch are noted; by default nowhere.
    """

    def __init__(
        self,
        settings: DispatchSettings,
        *,
        records: ClaimsJobs,
        history: KnowsRuns,
        queue: SendsJobs,
        instances: LaunchesInstances,
        runners: ConfiguresRunners,
        breaker: GuardsOfferings,
        metrics: CountsMetrics,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        new_id: Callable[[], str],
        traces: TracesWork = OFF,
    ) -> None:
        self._settings = settings
        self._records = records
        self._history = history
        self._queue = queue
        self._instances = instances
        self._runners = runners
        self._breaker = breaker
        self._metrics = metrics
        self._clock = clock
        self._jitter = jitter
        self._new_id = new_id
        self._traces = traces

    def dispatch(self, batch: Sequence[ReceivedJob], *, deadline: float) -> set[str]:
        """Dispatch a batch.

        Args:
            batch: The received messages.
            deadline: Epoch seconds at which the invocation is cut off.

        Returns:
            The ids of the messages that must come back.
        """
        returned: set[str] = set()
        due = self._remember(self._due(_oldest_first(_newest_of_each_job(batch)), returned))
        deadline -= _CLEAN_UP_SECONDS
        held = self._prepare(self._claim(due, returned), returned, deadline=deadline)
        launches: list[_Asked] = []
        for group in _groups(held):
            if self._clock() < deadline:
                launches += self._launch_group(group, returned, deadline=deadline)
            else:  # an instance that cannot be configured any more would be launched in vain
                log.error("no time to launch", extra={"jobs": [h.job.job_id for h in group]})
                self._hand_back([(item, 0.0) for item in group], returned)
        if self._clock() < deadline:  # the jobs come first; what is not told now fails once more
            self._tell_breaker(launches)
        return returned

    # -- what to launch for --------------------------------------------------------------------

    def _due(self, batch: Sequence[ReceivedJob], returned: set[str]) -> list[ReceivedJob]:
        due = []
        for received in batch:
            wait = received.job.not_before - self._clock()
            if wait > 0:
                self._defer(received, wait, returned)
            else:
                due.append(received)
        return due

    def _remember(self, due: Sequence[ReceivedJob]) -> list[ReceivedJob]:
        """Launch on-demand what runs again because its instance was interrupted.

        The job of another attempt has an id of its own, so its former record is found by its run.
        While the table does not tell, the job is launched as its label says.
        """
        interrupted: dict[int, list[tuple[str, int]]] = {}
        for run_id in {r.job.run_id for r in due if r.job.run_attempt > 1}:
            try:
                records = self._history.of_run(run_id)
            except RecordUnknownError as error:
                log.warning("earlier attempts unknown", extra={"error": str(error)})
                continue
            interrupted[run_id] = [
                # one that another job's instance broke off was itself never announced an end
                (r.job.job_name, r.job.run_attempt)
                for r in records
                if r.interrupted_at or r.rerun is not None
            ]

        def is_again(job: JobMessage) -> bool:
            found = interrupted.get(job.run_id, ()) if job.run_attempt > 1 else ()
            return any(
                name == job.job_name and attempt < job.run_attempt for name, attempt in found
            )

        return [
            replace(r, job=replace(r.job, on_demand=True)) if is_again(r.job) else r for r in due
        ]

    def _defer(self, received: ReceivedJob, seconds: float, returned: set[str]) -> None:
        self._queue.defer(received.receipt_handle, seconds)
        returned.add(received.message_id)

    def _claim(self, due: Sequence[ReceivedJob], returned: set[str]) -> list[_Held]:
        if not due:
            return []
        now = self._clock()
        results = self._records.claim(
            [r.job for r in due], claim_ids=[self._new_id() for _ in due], now=now
        )
        held: list[_Held] = []
        unclaimed: list[ReceivedJob] = []
        waiting: list[ReceivedJob] = []
        for received, result in zip(due, results, strict=True):
            with _bound(received.job):
                if isinstance(result, Claimed):
                    self._metrics.add(Metric.JOBS_CLAIMED)
                    spec = self._servable(received.job, result.claim_id, returned, received)
                    if spec is not None:
                        held.append(_Held(received, result.claim_id, spec))
                elif isinstance(result, HeldByOther):
                    log.info("claimed by another worker", extra={"until": result.until})
                    self._defer(received, max(1.0, result.until - now) + 1, returned)
                elif isinstance(result, ClaimUnknown):
                    log.error("not claimed", extra={"error": result.error})
                    self._metrics.add(Metric.API_ERRORS, kind="dynamodb")
                    unclaimed.append(received)
                elif isinstance(result, NoSlot):
                    log.info("waits for a slot", extra={"scope": result.scope})
                    self._traces.event(received.job.traceparent, "waits for a slot")
                    self._metrics.add(Metric.JOBS_WAITING, kind=result.scope.partition(":")[0])
                    waiting.append(received)
                else:
                    log.info("already settled", extra={"status": result.status.value})
        self._keep(unclaimed, returned)
        self._wait(waiting, returned)
        return held

    def _wait(self, waiting: Sequence[ReceivedJob], returned: set[str]) -> None:
        """Let jobs come again that found no slot: first their records, then their messages."""
        now = self._clock()
        jobs: list[JobMessage] = []
        for received in waiting:
            tries = received.job.dispatch + 1
            delay = retry_delay(tries, jitter=self._jitter(), longest=LONGEST_WAIT)
            jobs.append(replace(received.job, not_before=now + delay))
        if not jobs:
            return
        recorded = self._records.wait(jobs, now=now)
        again: list[tuple[ReceivedJob, JobMessage]] = []
        for received, job, done in zip(waiting, jobs, recorded, strict=True):
            if done:
                again.append((received, job.again(not_before=job.not_before)))
            else:
                self._metrics.add(Metric.API_ERRORS, kind="dynamodb")
                returned.add(received.message_id)
        sent = self._queue.send([message for _, message in again])
        for (received, _), done in zip(again, sent, strict=True):
            if not done:
                self._metrics.add(Metric.API_ERRORS, kind="sqs")
                returned.add(received.message_id)

    def _keep(self, unclaimed: Sequence[ReceivedJob], returned: set[str]) -> None:
        """Let jobs of which the table said nothing come back, however long it stays silent.

        A message that was received too often would go to the dead-letter queue, so another takes
        its place in time. Whatever the record is, a message with a higher number can claim it.
        """
        now = self._clock()
        worn: list[tuple[ReceivedJob, JobMessage]] = []
        for received in unclaimed:
            is_late = now - received.job.queued_at > self._settings.job_deadline_seconds
            if received.receives < _FEW_RECEIVES or is_late:
                returned.add(received.message_id)
            else:
                delay = retry_delay(received.job.dispatch + 1, jitter=self._jitter())
                worn.append((received, received.job.again(not_before=now + delay)))
        sent = self._queue.send([message for _, message in worn])
        for (received, _), done in zip(worn, sent, strict=True):
            if not done:
                returned.add(received.message_id)

    def _servable(
        self, job: JobMessage, claim_id: str, returned: set[str], received: ReceivedJob
    ) -> RunnerSpec | None:
        """Return the job's spec; a job that cannot be served is given up with the reason."""
        now = self._clock()
        waited = now - job.queued_at
        if waited > self._settings.job_deadline_seconds:
            reason = f"waited {waited:.0f} s, longer than GitHub keeps a job queued"
        else:
            outcome = resolve(job.labels, self._settings.labels)
            if isinstance(outcome, Accepted):
                reason = self._missing(outcome.spec)
                if not reason:
                    return outcome.spec
            else:
                reason = f"labels are not served any more: {outcome}"
        self._give_up(received, claim_id, reason, returned)
        return None

    def _give_up(
        self, received: ReceivedJob, claim_id: str, reason: str, returned: set[str]
    ) -> None:
        """Close a job with its reason; the message is done with only once that is written."""
        log.error("job given up", extra={"reason": reason})
        self._traces.event(received.job.traceparent, "given up", reason=reason)
        if self._records.expire(received.job, claim_id, error=reason, now=self._clock()):
            self._metrics.add(Metric.JOBS_EXPIRED)
        else:
            returned.add(received.message_id)

    def _prepare(
        self, held: Sequence[_Held], returned: set[str], *, deadline: float
    ) -> list[_Held]:
        """Keep the jobs whose runner GitHub would register; the others go back unlaunched."""
        deadline = min(deadline, self._clock() + _PREPARE_SECONDS)
        ready: list[_Held] = []
        unready: list[tuple[_Held, float]] = []
        for item in held:
            try:
                self._runners.prepare(item.job, item.spec, deadline=deadline)
            except RunnerNotConfiguredError as error:
                with _bound(item.job):
                    log.error("not launched", extra={"error": str(error)})
                self._metrics.add(Metric.API_ERRORS, kind=error.service)
                unready.append((item, error.retry_at))
            else:
                ready.append(item)
        self._hand_back(unready, returned)
        return ready

    def _missing(self, spec: RunnerSpec) -> str:
        if spec.platform not in self._settings.targets:
            return f"this fleet has no launch template for {spec.platform}"
        if spec.private and not self._settings.private_subnet_ids:
            return "private=true, but this fleet has no private subnets"
        if not candidates(spec):
            return "no instance type has this cpu, ram, family and generation"
        return ""

    # -- launching -----------------------------------------------------------------------------

    def _launch_group(
        self, group: Sequence[_Held], returned: set[str], *, deadline: float
    ) -> list[_Asked]:
        asked = self._buy(group)
        instances = [i for _, result in asked for i in result.instances]
        short = group[len(instances) :]
        served = list(zip(group, instances, strict=False))
        surplus = [i.instance_id for i in instances[len(group) :]]
        if surplus:
            log.error("more instances than asked for", extra={"instances": surplus})
            self._instances.terminate(surplus)
        self._configure(served, returned, deadline=deadline)
        if short:
            self._metrics.add(Metric.LAUNCH_SHORTFALL, len(short))
            log.warning("launch shortfall", extra={"jobs": [h.job.job_id for h in short]})
            self._hand_back([(held, 0.0) for held in short], returned)
        return asked

    def _buy(self, group: Sequence[_Held]) -> list[_Asked]:
        """Ask EC2 by one way of buying, and on-demand once for what spot did not deliver.

        What the breaker holds open is left out; a way of buying that has nothing else is passed
        over. When on-demand has nothing else either, all that was passed over is asked for as if
        there were no breaker: it may save calls, but must never keep a job from being launched.
        """
        first = capacity_for(group[0].spec, on_demand=group[0].job.on_demand)
        is_spot = first is CapacityType.SPOT
        passed_over: list[CapacityType] = []
        asked: list[_Asked] = []
        for capacity in (first, CapacityType.ON_DEMAND) if is_spot else (first,):
            request = self._request(_short(group, asked), capacity)
            request = request.without(self._breaker.closed_to(request.offerings()))
            if not request.overrides():
                log.info("all offerings are open", extra={"capacity_type": capacity.value})
                passed_over.append(capacity)
            elif self._ask(request, asked):
                return asked
        if CapacityType.ON_DEMAND in passed_over:
            for capacity in passed_over:
                if self._ask(self._request(_short(group, asked), capacity), asked):
                    break
        return asked

    def _ask(self, request: LaunchRequest, asked: list[_Asked]) -> bool:
        """Ask EC2; whether that was all: nothing is short, or the call as a whole failed."""
        result = self._instances.launch(request)
        asked.append((request, result))
        if result.failed:
            self._metrics.add(Metric.API_ERRORS, kind="ec2")
            log.error("launch failed", extra={"error": result.failed, "jobs": request.count})
            return True
        short = request.count - len(result.instances)
        if short > 0:
            log.warning(
                "fell short",
                extra={
                    "capacity_type": request.capacity.value,
                    "asked": request.count,
                    "short": short,
                    "left_out": len(request.left_out),
                },
            )
        return short <= 0

    def _request(self, group: Sequence[_Held], capacity: CapacityType) -> LaunchRequest:
        spec = group[0].spec
        subnets = self._settings.private_subnet_ids if spec.private else self._settings.subnet_ids
        return LaunchRequest(
            spec=spec,
            count=len(group),
            capacity=capacity,
            instance_types=tuple(t.name for t in candidates(spec)),
            subnet_ids=subnets,
            zones=self._settings.subnet_zones,
            target=self._settings.targets[spec.platform],
            image=self._settings.images[spec.image] if spec.image else None,
            client_token=client_token([h.claim_id for h in group], capacity),
        )

    def _tell_breaker(self, asked: Sequence[_Asked]) -> None:
        """Tell what delivered, then what had nothing; a call that is repeated counts once."""
        now = self._clock()
        verdicts = [(request, judge(request, result)) for request, result in asked]
        self._breaker.record_successes([o for _, verdict in verdicts for o in verdict.delivered])
        self._breaker.record_failures(
            [
                Failure(
                    offering=offering,
                    kind=FailureKind.CAPACITY,
                    at=now,
                    id=request.client_token,
                )
                for request, verdict in verdicts
                for offering in verdict.lacking
            ]
        )

    def _configure(
        self,
        served: Sequence[tuple[_Held, LaunchedInstance]],
        returned: set[str],
        *,
        deadline: float,
    ) -> None:
        """Register, store and record; what fails is terminated and handed back."""
        if not served:
            return
        failures: list[tuple[_Held, float]] = []
        ready: list[tuple[_Held, LaunchedInstance, RunnerConfig, Sequence[Mapping[str, Any]]]] = []

        def step(
            pair: tuple[_Held, LaunchedInstance],
        ) -> tuple[RunnerConfig, Sequence[Mapping[str, Any]]] | RunnerNotConfiguredError:
            held, instance = pair
            try:
                config = self._runners.configure(
                    held.job, instance.instance_id, held.spec, deadline=deadline
                )
                return config, self._runners.transact_put(config, now=self._clock())
            except RunnerNotConfiguredError as error:
                return error
            except Exception as error:  # a fault of ours: one job must not end all instances
                with _bound(held.job):
                    log.exception("runner not configured")
                return RunnerNotConfiguredError(repr(error), service="github")

        with ThreadPoolExecutor(min(len(served), _PARALLEL_REGISTRATIONS)) as pool:
            results = list(pool.map(step, served))
        for (held, instance), result in zip(served, results, strict=True):
            if isinstance(result, RunnerNotConfiguredError):
                self._metrics.add(Metric.API_ERRORS, kind=result.service)
                self._undo(instance)
                with _bound(held.job):
                    log.error("runner not configured", extra={"error": str(result)})
                    if result.is_final:
                        self._give_up(held.received, held.claim_id, str(result), returned)
                    else:
                        failures.append((held, result.retry_at))
            else:
                ready.append((held, instance, *result))
        failures += self._record(ready, returned)
        self._hand_back(failures, returned)

    def _record(
        self,
        ready: Sequence[tuple[_Held, LaunchedInstance, RunnerConfig, Sequence[Mapping[str, Any]]]],
        returned: set[str],
    ) -> list[tuple[_Held, float]]:
        if not ready:
            return []
        now = self._clock()
        launches = [
            (_launch(held, instance, config), writes) for held, instance, config, writes in ready
        ]
        recorded = self._records.record_launches(launches, now=now)
        failures: list[tuple[_Held, float]] = []
        for (held, instance, config, _), done in zip(ready, recorded, strict=True):
            with _bound(held.job):
                if done:
                    wait = max(0.0, now - held.job.queued_at)
                    self._metrics.add(Metric.JOBS_LAUNCHED, kind=instance.capacity.value)
                    self._metrics.add(Metric.LAUNCH_WAIT, wait)
                    about = {
                        "instance_id": instance.instance_id,
                        "instance_type": instance.instance_type,
                        "availability_zone": instance.availability_zone,
                        "capacity_type": instance.capacity.value,
                        "waited_seconds": round(wait, 3),
                    }
                    log.info("launched", extra=about)
                    self._traces.event(held.job.traceparent, "launched", **about)
                elif done is None:
                    # Recorded or not, it must not be ended: a job that is recorded as launched has
                    # this instance only. Without a configuration the instance ends itself, and the
                    # message that comes back finds the claim run out.
                    self._metrics.add(Metric.API_ERRORS, kind="dynamodb")
                    returned.add(held.received.message_id)
                else:
                    self._metrics.add(Metric.API_ERRORS, kind="dynamodb")
                    self._undo(instance)
                    until = self._clock() + _DISCARD_SECONDS
                    self._runners.discard(config, held.job, deadline=until)
                    failures.append((held, 0.0))
        return failures

    def _undo(self, instance: LaunchedInstance) -> None:
        self._metrics.add(Metric.LAUNCH_FAILURES)
        self._instances.terminate([instance.instance_id])

    # -- handing back --------------------------------------------------------------------------

    def _hand_back(self, jobs: Sequence[tuple[_Held, float]], returned: set[str]) -> None:
        """Let jobs be tried again: first the record, then the message, then this one is done with.

        Where the record or the queue does not answer, the present message comes back instead; its
        claim has then run out, since the lease is shorter than the visibility timeout.
        """
        now = self._clock()
        again: list[tuple[_Held, JobMessage]] = []
        for held, retry_at in jobs:
            delay = retry_delay(held.job.dispatch + 1, jitter=self._jitter())
            not_before = max(now + delay, retry_at)
            if self._records.release(held.job, held.claim_id, not_before=not_before, now=now):
                again.append((held, held.job.again(not_before=not_before)))
            else:
                returned.add(held.received.message_id)
        sent = self._queue.send([message for _, message in again])
        for (held, message), done in zip(again, sent, strict=True):
            with _bound(held.job):
                if done:
                    log.info("handed back", extra={"not_before": message.not_before})
                    self._traces.event(message.traceparent, "handed back")
                else:
                    self._metrics.add(Metric.API_ERRORS, kind="sqs")
                    returned.add(held.received.message_id)


def _bound(job: JobMessage) -> Any:
    return bound(
        job_id=job.job_id,
        run_id=job.run_id,
        repository=job.repository,
        dispatch=job.dispatch,
        **trace_id_of(job.traceparent),
    )


def _newest_of_each_job(batch: Sequence[ReceivedJob]) -> list[ReceivedJob]:
    """Keep the newest message of each job: a later one of the same batch supersedes the earlier."""
    newest: dict[int, ReceivedJob] = {}
    for received in batch:
        known = newest.get(received.job.job_id)
        if known is None or received.job.dispatch > known.job.dispatch:
            newest[received.job.job_id] = received
    return list(newest.values())


def _oldest_first(batch: Sequence[ReceivedJob]) -> list[ReceivedJob]:
    """Put the job first that GitHub queued first: it gets the last free slot."""
    return sorted(batch, key=lambda received: received.job.queued_at)


def _groups(held: Sequence[_Held]) -> list[list[_Held]]:
    """Group jobs that one CreateFleet can serve, in the order of their arrival."""
    groups: dict[tuple[str, str | None, bool], list[_Held]] = {}
    for item in held:
        key = (item.spec.group_key(), item.spec.pool, item.job.on_demand)
        groups.setdefault(key, []).append(item)
    return list(groups.values())


def _short(group: Sequence[_Held], asked: Sequence[_Asked]) -> Sequence[_Held]:
    """Return the jobs of a group for which no instance was launched yet."""
    return group[sum(len(result.instances) for _, result in asked) :]


def _launch(held: _Held, instance: LaunchedInstance, config: RunnerConfig) -> Launch:
    return Launch(
        job=held.job,
        claim_id=held.claim_id,
        instance_id=instance.instance_id,
        instance_type=instance.instance_type,
        availability_zone=instance.availability_zone,
        capacity_type=instance.capacity.value,
        runner_name=config.runner_name,
        pool=held.spec.pool,
        platform=held.spec.platform,
        disk_gib=held.spec.disk_gib,
        is_private=held.spec.private,
        may_rerun=held.spec.retry is not RetryPolicy.NEVER,
    )
