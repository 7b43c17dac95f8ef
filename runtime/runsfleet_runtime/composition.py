"""Wiring: a function's environment becomes its use case, once for each warm process.

The only place that knows every adapter. Adapters are imported inside the builders, so that the
webhook function never loads what only dispatch needs.
"""

from __future__ import annotations

import gc
import os
import random
import time
import uuid
from dataclasses import dataclass
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar

from runsfleet_runtime.contract.environment import (
    BreakerEnvironment,
    ConfigStore,
    DispatchEnvironment,
    EventsEnvironment,
    HealthEnvironment,
    HousekeepingEnvironment,
    LabelEnvironment,
    NotifyEnvironment,
    RecordsEnvironment,
    SlotsEnvironment,
    TerminationEnvironment,
    TraceEnvironment,
    WebhookEnvironment,
)
from runsfleet_runtime.contract.metrics import Emitter, Metric, MetricDefinition
from runsfleet_runtime.labels import LabelImage, LabelLimits, LabelSettings, read_aliases
from runsfleet_runtime.secrets import SecretReader, SecretStore
from runsfleet_runtime.telemetry import log
from runsfleet_runtime.telemetry.metrics import Metrics
from runsfleet_runtime.telemetry.traces import Tracer

if TYPE_CHECKING:
    from collections.abc import Callable

    from runsfleet_runtime.circuit_breaker.breaker import Breaker
    from runsfleet_runtime.contract.messages import HousekeepingTask
    from runsfleet_runtime.github.gateway import GitHubGateway
    from runsfleet_runtime.health.check import HealthCheck
    from runsfleet_runtime.housekeeping.ports import Task
    from runsfleet_runtime.housekeeping.runner import TaskRunner
    from runsfleet_runtime.interruptions.events import Events
    from runsfleet_runtime.jobs.dispatch import Dispatcher
    from runsfleet_runtime.jobs.dynamodb import DynamoDBJobs
    from runsfleet_runtime.jobs.intake import Intake
    from runsfleet_runtime.jobs.redispatch import Redispatcher
    from runsfleet_runtime.jobs.slots import Caps
    from runsfleet_runtime.notifications.notifier import Notifier
    from runsfleet_runtime.runners.ports import StoresRunnerConfig
    from runsfleet_runtime.termination import Reports

# Well below every function's timeout, so that there is time left to hand jobs back. CreateFleet
# answers within seconds even when it launches nothing.
_CONNECT_SECONDS: Final = 2
_READ_SECONDS: Final = 10
_ATTEMPTS: Final = 3
_CONNECTIONS: Final = 10  # dispatch configures ten runners at once

# Closed jobs are archived and then deleted by a sweep (old_jobs). DynamoDB's own expiry is for what
# that could not take, so it lies behind; dispatch, which closes few, does not know the retention.
_ARCHIVING_SECONDS: Final = 7 * 24 * 3600
_LONGEST_RETENTION_SECONDS: Final = 90 * 24 * 3600

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class WebhookFunction:
    """What the webhook handler calls."""

    intake: Intake
    metrics: Metrics
    tracer: Tracer


@dataclass(frozen=True, slots=True)
class DispatchFunction:
    """What the dispatch handler calls."""

    dispatcher: Dispatcher
    metrics: Metrics
    tracer: Tracer


@dataclass(frozen=True, slots=True)
class TerminationFunction:
    """What the termination handler calls."""

    reports: Reports
    metrics: Metrics
    tracer: Tracer
    instance_role_id: str


@dataclass(frozen=True, slots=True)
class EventsFunction:
    """What the events handler calls."""

    events: Events
    metrics: Metrics
    tracer: Tracer


@dataclass(frozen=True, slots=True)
class HousekeepingFunction:
    """What the housekeeping handler calls; ``make`` makes the task that is due."""

    runner: TaskRunner
    make: Callable[[HousekeepingTask], Task[Any]]
    metrics: Metrics
    tracer: Tracer


@dataclass(frozen=True, slots=True)
class HealthRoute:
    """What the health handler calls."""

    check: HealthCheck


@dataclass(frozen=True, slots=True)
class NotifyFunction:
    """What the notify handler calls."""

    notifier: Notifier


@cache
def client(service: str) -> Any:
    """Return the process's client of an AWS service; made on first use."""
    session, config = _session()
    return session.create_client(service, config=config)


@cache
def _session() -> tuple[Any, Any]:
    # botocore alone: boto3's resources and sessions cost 40 ms more of a cold start and add nothing
    from botocore.config import Config
    from botocore.session import get_session

    config = Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        max_pool_connections=_CONNECTIONS,
    )
    return get_session(), config


def _without_collecting(build: Callable[[], _T]) -> Callable[[], _T]:
    """Build with the garbage collector at rest.

    What a cold start builds, such as the parsed descriptions of AWS services, is kept as long as
    the process lives. Looking through it for garbage, again and again while it grows and later with
    each full collection, takes an eighth of dispatch's cold start (docs/benchmarks.md).
    """

    @wraps(build)
    def built() -> _T:
        gc.disable()
        try:
            return build()
        finally:
            gc.freeze()
            gc.enable()

    return built


class _LateClient:
    """A client that is made when it is first used; for what only rare paths need.

    Making one costs about a tenth of a cold start.
    """

    def __init__(self, service: str) -> None:
        self._service = service

    def __getattr__(self, operation: str) -> Any:
        return getattr(client(self._service), operation)


@cache
@_without_collecting
def webhook() -> WebhookFunction:
    """Build the webhook function's use case."""
    from runsfleet_runtime.interruptions.sqs import SqsEvents
    from runsfleet_runtime.jobs.intake import Intake
    from runsfleet_runtime.jobs.sqs import SqsJobs

    environment = WebhookEnvironment.from_environ(os.environ)
    metrics = _telemetry(Emitter.WEBHOOK, environment.fleet)
    tracer = _tracer(Emitter.WEBHOOK, environment, environment.fleet)
    intake = Intake(
        labels=label_settings(environment, region=os.environ.get("AWS_REGION", "")),
        runner_level=environment.runner_level,
        secret=environment.webhook_secret,
        secrets=_secrets(),
        queue=SqsJobs(client("sqs"), environment.jobs_queue_url),
        events=SqsEvents(client("sqs"), environment.events_queue_url),
        metrics=metrics,
        clock=time.time,
        traces=tracer,
    )
    return WebhookFunction(intake, metrics, tracer)


@cache
@_without_collecting
def dispatch() -> DispatchFunction:
    """Build the dispatch function's use case."""
    from runsfleet_runtime.fleet.ec2 import Ec2Fleet
    from runsfleet_runtime.jobs.dispatch import Dispatcher, DispatchSettings
    from runsfleet_runtime.jobs.dynamodb import DynamoDBJobs
    from runsfleet_runtime.jobs.ledger import InstanceLedger
    from runsfleet_runtime.jobs.reading.dynamodb import DynamoDBJobReader
    from runsfleet_runtime.jobs.sqs import SqsJobs
    from runsfleet_runtime.runners.configurator import RunnerConfigurator

    environment = DispatchEnvironment.from_environ(os.environ)
    metrics = _telemetry(Emitter.DISPATCH, environment.fleet)
    tracer = _tracer(Emitter.DISPATCH, environment, environment.fleet)
    github = _github(environment, token_fallback=environment.registration_token_fallback)
    dispatcher = Dispatcher(
        DispatchSettings(
            labels=label_settings(environment, region=os.environ.get("AWS_REGION", "")),
            targets={target.platform: target for target in environment.launch_targets},
            subnet_ids=environment.subnet_ids,
            private_subnet_ids=environment.private_subnet_ids,
            subnet_zones={
                subnet.subnet_id: subnet.availability_zone for subnet in environment.subnet_zones
            },
            images={image.name: image for image in environment.images},
            job_deadline_seconds=environment.job_deadline_seconds,
        ),
        records=DynamoDBJobs(
            client("dynamodb"),
            environment.jobs_table,
            lease_seconds=environment.claim_lease_seconds,
            deadline_seconds=environment.job_deadline_seconds,
            retention_seconds=_LONGEST_RETENTION_SECONDS + _ARCHIVING_SECONDS,
            caps=_caps(environment),
            ledger=InstanceLedger(environment.instances_table),
        ),
        history=DynamoDBJobReader(client("dynamodb"), environment.jobs_table),
        queue=SqsJobs(_LateClient("sqs"), environment.jobs_queue_url),
        instances=Ec2Fleet(client("ec2"), fleet=environment.fleet),
        runners=RunnerConfigurator(
            registrar=github.registrar,
            packages=github.packages,
            store=_runner_store(environment),
            server_url=environment.github_server_url,
            max_runtime_seconds=environment.max_runtime_seconds,
            idle_timeout_seconds=environment.idle_timeout_seconds,
        ),
        breaker=_breaker(environment, Emitter.DISPATCH, metrics),
        metrics=metrics,
        clock=time.time,
        jitter=random.random,
        new_id=_new_id,
        traces=tracer,
    )
    return DispatchFunction(dispatcher, metrics, tracer)


@cache
@_without_collecting
def termination() -> TerminationFunction:
    """Build the termination function's use case."""
    from runsfleet_runtime.interruptions.sqs import SqsEvents
    from runsfleet_runtime.jobs.reading.dynamodb import DynamoDBJobReader
    from runsfleet_runtime.termination import Reports
    from runsfleet_runtime.termination.renewals import Renewals

    environment = TerminationEnvironment.from_environ(os.environ)
    metrics = _telemetry(Emitter.TERMINATION, environment.fleet)
    tracer = _tracer(Emitter.TERMINATION, environment, environment.fleet)
    records = _records(environment)
    store, github = _runner_store(environment), _github(environment)
    reports = Reports(
        records=records,
        runners=store,
        renewals=Renewals(
            records=records,
            registrar=github.registrar,
            store=store,
            job_states=github.job_states,
            server_url=environment.github_server_url,
            metrics=metrics,
            clock=time.time,
        ),
        reader=DynamoDBJobReader(client("dynamodb"), environment.jobs_table),
        redispatcher=_redispatcher(
            environment, metrics, Metric.JOBS_GIVEN_UP, Metric.JOBS_REQUEUED
        ),
        events=SqsEvents(_LateClient("sqs"), environment.events_queue_url),
        job_states=github.job_states,
        metrics=metrics,
        clock=time.time,
    )
    return TerminationFunction(reports, metrics, tracer, environment.instance_role_id)


@cache
@_without_collecting
def events() -> EventsFunction:
    """Build the events function's use case."""
    from runsfleet_runtime.github.job_runs import JobRuns
    from runsfleet_runtime.interruptions.departures import Departures
    from runsfleet_runtime.interruptions.dynamodb import DynamoDBLaunches, DynamoDBNotes
    from runsfleet_runtime.interruptions.ec2 import Ec2Instances
    from runsfleet_runtime.interruptions.endings import Endings
    from runsfleet_runtime.interruptions.events import Events
    from runsfleet_runtime.interruptions.notices import Notices
    from runsfleet_runtime.interruptions.reruns import Reruns
    from runsfleet_runtime.interruptions.sqs import SqsEvents
    from runsfleet_runtime.jobs.reading.dynamodb import DynamoDBJobReader

    environment = EventsEnvironment.from_environ(os.environ)
    metrics = _telemetry(Emitter.EVENTS, environment.fleet)
    tracer = _tracer(Emitter.EVENTS, environment, environment.fleet)
    table = environment.jobs_table
    moves = _records(environment)
    records = DynamoDBJobReader(client("dynamodb"), table)
    notes = DynamoDBNotes(client("dynamodb"), table)
    instances = Ec2Instances(_LateClient("ec2"), fleet=environment.fleet)
    queue = SqsEvents(_LateClient("sqs"), environment.events_queue_url)
    store, github = _runner_store(environment), _github(environment)
    runs = JobRuns(github.api)
    redispatcher = _redispatcher(environment, metrics, Metric.JOBS_GIVEN_UP_BY_EVENTS)
    reruns = Reruns(
        records=records,
        notes=notes,
        github=runs,
        redispatcher=redispatcher,
        queue=queue,
        metrics=metrics,
        clock=time.time,
        traces=tracer,
    )
    use_case = Events(
        notices=Notices(
            records=records,
            notes=notes,
            instances=instances,
            runners=store,
            registrar=github.registrar,
            job_states=github.job_states,
            redispatcher=redispatcher,
            breaker=_breaker(environment, Emitter.EVENTS, metrics),
            metrics=metrics,
            clock=time.time,
            traces=tracer,
        ),
        departures=Departures(
            records=records,
            endings=moves,
            notes=notes,
            instances=instances,
            runners=store,
            registrar=github.registrar,
            github=runs,
            redispatcher=redispatcher,
            queue=queue,
            metrics=metrics,
            clock=time.time,
        ),
        endings=Endings(
            records=records,
            closer=moves,
            reruns=reruns,
            instances=instances,
            runners=store,
            registrar=github.registrar,
            metrics=metrics,
            clock=time.time,
        ),
        reruns=reruns,
        launches=DynamoDBLaunches(client("dynamodb"), environment.instances_table),
        queue=queue,
        clock=time.time,
    )
    return EventsFunction(use_case, metrics, tracer)


@cache
@_without_collecting
def housekeeping() -> HousekeepingFunction:
    """Build the housekeeping function's use case."""
    from runsfleet_runtime.housekeeping.leases.dynamodb import DynamoDBLeases
    from runsfleet_runtime.housekeeping.runner import TaskRunner
    from runsfleet_runtime.housekeeping.tasks import Parts, make
    from runsfleet_runtime.jobs.reading.dynamodb import DynamoDBJobReader

    environment = HousekeepingEnvironment.from_environ(os.environ)
    metrics = _telemetry(Emitter.HOUSEKEEPING, environment.fleet)
    tracer = _tracer(Emitter.HOUSEKEEPING, environment, environment.fleet)
    parts = Parts(
        environment=environment,
        client=client,
        price_list=_price_list,
        github=cache(lambda: _github(environment)),
        runners=cache(lambda: _runner_store(environment)),
        records=cache(lambda: DynamoDBJobReader(client("dynamodb"), environment.jobs_table)),
        redispatcher=cache(
            lambda: _redispatcher(environment, metrics, Metric.JOBS_GIVEN_UP_BY_SWEEPS)
        ),
        labels=lambda: label_settings(environment, region=os.environ.get("AWS_REGION", "")),
        metrics=metrics,
        clock=time.time,
        jitter=random.random,
        new_id=_new_id,
        environ=os.environ,
    )
    runner = TaskRunner(
        leases=DynamoDBLeases(client("dynamodb"), environment.leases_table),
        metrics=metrics,
        clock=time.time,
        new_id=_new_id,
    )
    return HousekeepingFunction(runner, lambda name: make(name, parts), metrics, tracer)


def _price_list() -> Any:
    from runsfleet_runtime.cost.aws_prices import pricing_region

    session, config = _session()
    region = pricing_region(os.environ.get("AWS_REGION", ""))
    return session.create_client("pricing", region_name=region, config=config)


@cache
def health() -> HealthRoute:
    """Build the use case of ``GET /health``, a part of the webhook function."""
    from runsfleet_runtime.health.check import HealthCheck
    from runsfleet_runtime.health.dynamodb import DynamoDBHealth
    from runsfleet_runtime.health.sqs import SqsDepth
    from runsfleet_runtime.version import __version__

    environment = HealthEnvironment.from_environ(os.environ)
    log.configure(service=Emitter.WEBHOOK.value, fleet=environment.fleet)
    tables = DynamoDBHealth(
        client("dynamodb"),
        circuit_table=environment.circuit_table,
        leases_table=environment.leases_table,
    )
    check = HealthCheck(
        jobs=SqsDepth(client("sqs"), environment.jobs_queue_url),
        dead_jobs=SqsDepth(client("sqs"), environment.jobs_dead_letter_queue_url),
        circuits=tables,
        sweeps=tables,
        fleet=environment.fleet,
        region=os.environ.get("AWS_REGION", ""),
        version=__version__,
        clock=time.time,
    )
    return HealthRoute(check)


@cache
@_without_collecting
def notify() -> NotifyFunction:
    """Build the notify function's use case."""
    from runsfleet_runtime.notifications.notifier import Notifier
    from runsfleet_runtime.notifications.slack import SlackWebhook

    environment = NotifyEnvironment.from_environ(os.environ)
    log.configure(service="notify")
    notifier = Notifier(
        chat=SlackWebhook(sleep=time.sleep),
        secrets=_secrets(),
        webhook=environment.slack_webhook,
    )
    return NotifyFunction(notifier)


def label_settings(environment: LabelEnvironment, *, region: str) -> LabelSettings:
    """Return what labels are resolved against.

    Args:
        environment: The function's environment.
        region: The function's region.

    Raises:
        LabelSettingsError: If aliases or images are wrong; the constructs refuse them earlier.
    """
    return LabelSettings(
        region=region,
        environment=environment.fleet,
        aliases=read_aliases(environment.label_aliases),
        limits=LabelLimits(max_cpu=environment.max_cpu),
        images={
            image.name: LabelImage(image.reference, image.platform, image.min_disk_gib)
            for image in environment.images
        },
        platforms=environment.platforms,
        spot=environment.spot,
        private=environment.private,
    )


def _telemetry(emitter: Emitter, fleet: str) -> Metrics:
    log.configure(service=emitter.value, fleet=fleet)
    return Metrics(emitter, fleet=fleet, clock=time.time)


def _tracer(emitter: Emitter, environment: TraceEnvironment, fleet: str) -> Tracer:
    region = os.environ.get("AWS_REGION", "")
    about = {"runsfleet.fleet": fleet, "cloud.region": region}
    return Tracer(emitter.value, endpoint=environment.otlp_endpoint, resource=about)


def _new_id() -> str:
    return uuid.uuid4().hex


@cache
def _secrets() -> SecretReader:
    from runsfleet_runtime.secrets.secretsmanager import SecretsManagerStore
    from runsfleet_runtime.secrets.ssm import ParameterStore

    return SecretReader(
        {
            SecretStore.SECRETS_MANAGER: SecretsManagerStore(client),
            SecretStore.SSM: ParameterStore(client),
        },
        clock=time.time,
    )


def _caps(environment: SlotsEnvironment) -> Caps | None:
    from runsfleet_runtime.jobs.slots import Caps

    return Caps.of(
        environment.slots_table,
        fleet=environment.max_runners,
        owner=environment.max_runners_per_owner,
        repository=environment.max_runners_per_repository,
    )


def _records(environment: RecordsEnvironment) -> DynamoDBJobs:
    from runsfleet_runtime.jobs.dynamodb import DynamoDBJobs
    from runsfleet_runtime.jobs.ledger import InstanceLedger

    return DynamoDBJobs(
        client("dynamodb"),
        environment.jobs_table,
        deadline_seconds=environment.job_deadline_seconds,
        retention_seconds=environment.job_retention_days * 24 * 3600 + _ARCHIVING_SECONDS,
        caps=_caps(environment),
        ledger=InstanceLedger(environment.instances_table),
    )


def _redispatcher(
    environment: RecordsEnvironment,
    metrics: Metrics,
    given_up: MetricDefinition,
    requeued: MetricDefinition | None = None,
) -> Redispatcher:
    from runsfleet_runtime.jobs.redispatch import Redispatcher
    from runsfleet_runtime.jobs.sqs import SqsJobs

    return Redispatcher(
        records=_records(environment),
        queue=SqsJobs(_LateClient("sqs"), environment.jobs_queue_url),
        metrics=metrics,
        given_up=given_up,
        requeued=requeued,
        clock=time.time,
        jitter=random.random,
    )


def _breaker(environment: BreakerEnvironment, emitter: Emitter, metrics: Metrics) -> Breaker:
    from runsfleet_runtime.circuit_breaker.breaker import Breaker
    from runsfleet_runtime.circuit_breaker.dynamodb import DynamoDBCircuits
    from runsfleet_runtime.circuit_breaker.model import BreakerPolicy

    policy = BreakerPolicy(
        threshold=environment.breaker_threshold,
        window_seconds=environment.breaker_window_seconds,
        cooldown_seconds=environment.breaker_cooldown_seconds,
    )
    store = DynamoDBCircuits(
        client("dynamodb"),
        table=environment.circuit_table,
        audit_table=environment.audit_table,
        policy=policy,
        new_id=_new_id,
    )
    return Breaker(store, policy=policy, actor=emitter.value, metrics=metrics, clock=time.time)


def _github(
    environment: DispatchEnvironment | RecordsEnvironment, *, token_fallback: bool = False
) -> GitHubGateway:
    from runsfleet_runtime.github.gateway import GitHubGateway

    return GitHubGateway.connect(
        environment,
        level=environment.runner_level,
        secrets=_secrets(),
        ca_bundle=os.environ.get("AWS_CA_BUNDLE"),
        token_fallback=token_fallback,
    )


def _runner_store(
    environment: DispatchEnvironment | RecordsEnvironment,
) -> StoresRunnerConfig:
    from runsfleet_runtime.runners.dynamodb import DynamoDBRunnerStore
    from runsfleet_runtime.runners.ssm import SsmRunnerStore

    if environment.config_store is ConfigStore.SSM:
        return SsmRunnerStore(
            client,
            prefix=environment.config_parameter_prefix or "",
            role_id=environment.instance_role_id,
        )
    return DynamoDBRunnerStore(
        client, table=environment.runners_table or "", role_id=environment.instance_role_id
    )
