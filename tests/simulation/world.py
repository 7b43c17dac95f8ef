"""The whole of it: the cloud, GitHub, instances, and the real functions between them.

Everything that the functions import is the fleet's own code, wired by its own composition. Replaced
are, from the outside in: the clients of AWS, the transport to GitHub, time, randomness, and threads
(a pool of them works serially here, so that a run repeats itself exactly).
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import importlib
import inspect
import json
import logging
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from types import SimpleNamespace, TracebackType
from typing import Any, Final, Self
from unittest import mock

from runsfleet_runtime import composition
from runsfleet_runtime.agent.dynamodb import DynamoDbConfigurations
from runsfleet_runtime.contract import environment as environments
from runsfleet_runtime.contract.environment import LaunchTarget, SubnetZone
from runsfleet_runtime.contract.messages import (
    HousekeepingMessage,
    HousekeepingTask,
    RunnerReport,
)
from runsfleet_runtime.contract.metrics import MetricDefinition
from runsfleet_runtime.contract.paths import kept_report_key
from runsfleet_runtime.contract.tables import (
    AuditAttr,
    CircuitAttr,
    InstanceAttr,
    InstanceIndex,
    JobAttr,
    JobIndex,
    LeaseAttr,
    RunnerAttr,
    SlotAttr,
    instance_key,
)
from runsfleet_runtime.github.gateway import GitHubGateway
from runsfleet_runtime.telemetry.metrics import Metrics
from tests.simulation.actions import Actions, Delivery, Job, iso
from tests.simulation.agent import Agent, Fate
from tests.simulation.clients import Client, Fault, Gate, Transport
from tests.simulation.dynamodb import DynamoDB, Index, Table
from tests.simulation.ec2 import SUBNETS, Ec2, Instance
from tests.simulation.functions import (
    Definition,
    EventSource,
    Lambda,
    dumps,
    http_event,
    status_of,
)
from tests.simulation.github import ORGANIZATION, GitHubApi
from tests.simulation.loop import Loop
from tests.simulation.s3 import S3, Secrets
from tests.simulation.sqs import Queue, Sqs

START: Final = datetime(2035, 3, 5, tzinfo=UTC).timestamp()
"""A Monday's midnight, far from the present: a time that is not the simulation's would show."""
ROLE: Final = "AROASIMULATION"
SECRET: Final = "webhook-secret"
BUCKET: Final = "cache"
REPOSITORIES: Final = tuple(f"{ORGANIZATION}/{name}" for name in ("web", "api", "infra"))
LABEL: Final = "runs-fleet={run}/runner=4cpu-linux-arm64"
FUNCTIONS: Final = {  # timeout, batch, batching window; as the constructs have them
    "webhook": (10.0, 1, 0.0),
    "dispatch": (60.0, 10, 0.0),
    "termination": (60.0, 10, 5.0),
    "events": (60.0, 10, 5.0),
    "housekeeping": (300.0, 1, 0.0),
}
VISIBILITY: Final = {"jobs": 120.0, "termination": 120.0, "events": 120.0, "housekeeping": 360.0}
_CONSUMERS: Final = {
    "jobs.fifo": "dispatch",
    "termination": "termination",
    "events": "events",
    "housekeeping": "housekeeping",
}
MAX_RECEIVES: Final = 5
_QUIET: Final = 2
SCHEDULES: Final[Mapping[HousekeepingTask, float]] = {  # seconds; as the constructs have them
    HousekeepingTask.UNCONFIRMED_LAUNCHES: 120,
    HousekeepingTask.WAITING_JOBS: 120,
    HousekeepingTask.KEPT_REPORTS: 120,
    HousekeepingTask.STALE_JOBS: 300,
    HousekeepingTask.LOST_DELIVERIES: 300,
    HousekeepingTask.RERUNS: 300,
    HousekeepingTask.UNANNOUNCED_JOBS: 600,
    HousekeepingTask.DEAD_LETTERS: 900,
    HousekeepingTask.ORPHANED_INSTANCES: 300,
    HousekeepingTask.LEFTOVER_VOLUMES: 3600,
    HousekeepingTask.LEFTOVER_INTERFACES: 3600,
    HousekeepingTask.STALE_CONFIGURATIONS: 3600,
    HousekeepingTask.OFFLINE_RUNNERS: 3600,
    HousekeepingTask.EXPIRED_LEASES: 3600,
    HousekeepingTask.SLOTS: 3600,
    HousekeepingTask.OLD_JOBS: 86400,
    HousekeepingTask.RUNNER_VERSIONS: 86400,
}


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a run is like; by default everything goes well.

    Attributes:
        seed: Of all randomness.
        fate: What becomes of the n-th instance, from 0.
        delivery: What becomes of a delivery; see :class:`~tests.simulation.actions.Actions`.
        capacity: Whether an offering has capacity at a time.
        partial: How many of the wanted instances a CreateFleet may launch.
        fault: What goes wrong with an attempt of a call.
        latency: Shortest and longest time of a call.
        lag: Longest time until an index shows a write.
        skew: Most that a function's clock is off.
        repeats: Share of the messages of standard queues that come twice.
        loses_events: Share of EventBridge's events that never arrive; it promises none.
        settings: Changes to the functions' environment.
        sweeps: Whether the sweeps run.
    """

    seed: int = 0
    fate: Callable[[int, random.Random], Fate] = lambda _number, _rng: Fate()
    delivery: Callable[[Job, str], str] = lambda _job, _action: "ok"
    capacity: Callable[[float, str, str, str], bool] = lambda *_: True
    partial: Callable[[int, random.Random], int] = lambda wanted, _rng: wanted
    fault: Callable[[str, str, random.Random], Fault | None] = lambda *_: None
    latency: tuple[float, float] = (0.01, 0.05)
    lag: float = 0.0
    skew: float = 0.0
    repeats: float = 0.0
    loses_events: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    sweeps: bool = True


class _Counting(Metrics):
    """Counts what functions emit, by the real rules of who may emit what."""

    def __init__(self, *arguments: Any, counts: Counter[str], **named: Any) -> None:
        super().__init__(*arguments, write=lambda _line: None, **named)
        self._counts = counts

    def add(self, metric: MetricDefinition, value: float = 1, *, kind: str | None = None) -> None:
        super().add(metric, value, kind=kind)
        self._counts[metric.name] += 1
        if kind is not None:
            self._counts[f"{metric.name}:{kind}"] += 1


class _Serial:
    """Stands in for a pool of threads; one process's work has an order here."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @staticmethod
    def map(work: Callable[..., Any], *over: Iterable[Any]) -> Iterator[Any]:
        return iter([work(*each) for each in zip(*over, strict=True)])


class World:
    """A fleet in a simulated cloud; a context manager.

    Args:
        conditions: What the run is like.

    Attributes:
        loop: Simulated time.
        gate: Every call of a function passes it.
        actions: GitHub.
        ec2, dynamodb, sqs, s3: The cloud.
        metrics: How often each metric was emitted, also by kind (``name:kind``).
        agents: The agent of each instance, in the order of the launches.
    """

    def __init__(self, conditions: Conditions | None = None) -> None:
        self.conditions = conditions = conditions or Conditions()
        rng = random.Random(conditions.seed)  # noqa: S311  a simulation must repeat itself

        def stream() -> random.Random:
            return random.Random(rng.random())  # noqa: S311

        self.loop = loop = Loop(START)
        self._stack = ExitStack()
        self._functions_rng, call_rng, self._fate_rng = stream(), stream(), stream()
        self._event_rng, skew_rng, capacity_rng = stream(), stream(), stream()
        self.metrics: Counter[str] = Counter()
        self.agents: list[Agent] = []
        self.gate = Gate(
            loop,
            latency=lambda: call_rng.uniform(*conditions.latency),
            fault=lambda service, operation: conditions.fault(service, operation, call_rng),
        )
        self.dynamodb = DynamoDB(
            _tables(), clock=self._now, lag=lambda: call_rng.uniform(0, conditions.lag)
        )
        self._sender = ""
        self.sqs = Sqs(
            _queues(),
            clock=self._now,
            is_repeated=lambda: self._event_rng.random() < conditions.repeats,
            sender=lambda: self._sender or "AROAFUNCTION:function",
        )
        self.s3 = S3(self._now)
        self.ec2 = Ec2(
            loop,
            stream(),
            publish=self._publish,
            capacity=lambda *offering: conditions.capacity(loop.now, *offering),
            partial=lambda wanted: conditions.partial(wanted, capacity_rng),
            on_launch=self._launched,
        )
        self.actions = Actions(
            loop,
            stream(),
            post=self._post,
            fate=conditions.delivery,
            latency=lambda: self._event_rng.uniform(0.5, 3.0),
        )
        self.github = GitHubApi(self.actions, loop, REPOSITORIES)
        self.functions = Lambda(
            loop, skew=lambda: skew_rng.uniform(-conditions.skew, conditions.skew)
        )
        self._clients: dict[str, Client] = {}
        self._environments: dict[str, environments.Environment] = {}
        self._backends = {
            "dynamodb": self.dynamodb,
            "ec2": self.ec2,
            "s3": self.s3,
            "secretsmanager": Secrets({"app": _app_secret(), "webhook": SECRET}),
            "sqs": self.sqs,
        }
        self.definitions = {
            name: Definition(
                name=name,
                build=partial(self._build, name),
                handler=importlib.import_module(f"runsfleet_runtime.handlers.{name}").handler,
                timeout=timeout,
                batch=batch,
                window=window,
            )
            for name, (timeout, batch, window) in FUNCTIONS.items()
        }
        for name, queue in self.sqs.queues.items():
            consumer = _CONSUMERS.get(name)
            if consumer is not None:
                EventSource(loop, self.functions, self.sqs, queue, self.definitions[consumer])
        if conditions.sweeps:
            for number, (task, seconds) in enumerate(SCHEDULES.items()):
                loop.after(seconds / 2 + number, self._due, task, seconds)

    # -- as a context --------------------------------------------------------------------------

    def __enter__(self) -> Self:
        stack = self._stack
        log = logging.getLogger("runsfleet")
        stack.callback(log.setLevel, log.level)
        log.setLevel(logging.CRITICAL + 1)  # inherited by those that write
        stack.enter_context(mock.patch.dict(os.environ, {"AWS_REGION": "eu-central-1"}))
        replace = partial(mock.patch.object, composition)
        stack.enter_context(mock.patch.object(time, "time", self._clock_of_caller))
        stack.enter_context(mock.patch.object(time, "sleep", self.loop.pause))
        stack.enter_context(replace("client", self.client))
        stack.enter_context(replace("random", SimpleNamespace(random=self._functions_rng.random)))
        stack.enter_context(replace("_new_id", self._new_id))
        stack.enter_context(replace("Metrics", partial(_Counting, counts=self.metrics)))
        stack.enter_context(replace("log", SimpleNamespace(configure=lambda **_: None)))
        connect = partial(
            GitHubGateway.connect,
            transport=Transport(self.github, self.gate),
            clock=self._clock_of_caller,
            sleep=self.loop.pause,
            uniform=self._functions_rng.random,
        )
        stack.enter_context(mock.patch.object(GitHubGateway, "connect", connect))
        stack.enter_context(mock.patch("jwt.encode", return_value="signed"))
        for name, made in list(vars(composition).items()):
            if name in self.definitions:
                stack.enter_context(replace(name, self._use_case))
            elif hasattr(made, "cache_clear") and name not in {"client", "_session"}:
                stack.enter_context(replace(name, self._once_a_process(name, inspect.unwrap(made))))
        for module in list(sys.modules.values()):
            is_ours = getattr(module, "__name__", "").startswith("runsfleet_runtime.")
            if is_ours and hasattr(module, "ThreadPoolExecutor"):
                stack.enter_context(mock.patch.object(module, "ThreadPoolExecutor", _Serial))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.loop.close()
        self._stack.close()

    def _now(self) -> float:
        return self.loop.now

    def _clock_of_caller(self) -> float:
        task = self.loop.current
        return self.loop.now + (task.owner.skew if task is not None else 0.0)

    def _new_id(self) -> str:
        return f"{self._functions_rng.getrandbits(128):032x}"

    def _use_case(self) -> Any:
        assert self.loop.current is not None
        return self.loop.current.owner.use_case

    def _once_a_process(self, name: str, make: Callable[..., Any]) -> Callable[..., Any]:
        def made(*arguments: Any) -> Any:
            assert self.loop.current is not None
            kept = self.loop.current.owner.kept
            if (name, arguments) not in kept:
                kept[name, arguments] = make(*arguments)
            return kept[name, arguments]

        return made

    def client(self, service: str) -> Client:
        """Return a client as the composition's own function does."""
        if service not in self._clients:
            self._clients[service] = Client(service, self._backends[service], self.gate)
        return self._clients[service]

    def _build(self, name: str) -> Any:
        environment = self._environments.get(name)
        if environment is None:
            environment = self._environments[name] = self.environment(name)
        with mock.patch.object(type(environment), "from_environ", return_value=environment):
            return _BUILDERS[name]()

    def environment(self, name: str) -> environments.Environment:
        """Return a function's environment."""
        kind = getattr(environments, f"{name.capitalize()}Environment")
        url = {name.partition(".")[0]: queue.url for name, queue in self.sqs.queues.items()}
        everything: dict[str, Any] = {
            "fleet": "simulated",
            "webhook_secret": "secretsmanager:webhook",
            "github_app_secret": "secretsmanager:app",
            **{f"{queue}_queue_url": address for queue, address in url.items()},
            **{f"{table}_table": table for table in self.dynamodb.tables},
            "instance_role_id": ROLE,
            "launch_targets": (
                LaunchTarget(
                    platform="linux-arm64",
                    launch_template_id="lt-arm64",
                    launch_template_version="1",
                    root_device="/dev/xvda",
                ),
            ),
            "platforms": ("linux-arm64",),
            "subnet_ids": tuple(SUBNETS),
            "subnet_zones": tuple(
                SubnetZone(subnet_id=subnet, availability_zone=zone)
                for subnet, zone in SUBNETS.items()
            ),
            "cache_bucket": BUCKET,
            "dead_letter_queue_urls": tuple(
                {"queue": queue.url, "dead_letters": self.sqs.queues[queue.dead_letters].url}
                for queue in self.sqs.queues.values()
                if queue.dead_letters
            ),
            **self.conditions.settings,
        }
        wanted = {f.name for f in dataclasses.fields(kind)}
        written = kind(**{k: v for k, v in everything.items() if k in wanted}).to_environ()
        made: environments.Environment = _read(kind, tuple(written.items()))
        return made

    # -- what connects the parts ---------------------------------------------------------------

    def _post(self, delivery: Delivery, answered: Callable[[int], None]) -> None:
        body = dumps(delivery.payload)
        digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        headers = {
            "x-github-event": "workflow_job",
            "x-github-delivery": delivery.guid,
            "x-hub-signature-256": f"sha256={digest}",
        }
        self.functions.invoke(
            self.definitions["webhook"],
            http_event(body, headers),
            lambda answer: answered(status_of(answer)),
        )

    def _publish(self, kind: str, detail: dict[str, Any]) -> None:
        is_wanted = detail.get("state") in {None, "shutting-down", "terminated", "stopped"}
        if not is_wanted:
            return
        if self._event_rng.random() < self.conditions.loses_events:
            return
        event = {
            "version": "0",
            "id": f"event-{self._event_rng.getrandbits(64):016x}",
            "detail-type": kind,
            "source": "aws.ec2",
            "account": "123456789012",
            "time": iso(self.loop.now),
            "region": "eu-central-1",
            "resources": [
                f"arn:aws:ec2:eu-central-1:123456789012:instance/{detail['instance-id']}"
            ],
            "detail": detail,
        }
        delay = self._event_rng.uniform(0.2, 2.0)
        self.loop.after(delay, self.sqs.put, self.sqs.queues["events"], json.dumps(event))

    def _launched(self, instance: Instance) -> None:
        number = len(self.agents)
        self.agents.append(
            Agent(
                instance,
                self.conditions.fate(number, self._fate_rng),
                loop=self.loop,
                ec2=self.ec2,
                actions=self.actions,
                configurations=DynamoDbConfigurations(
                    SimpleNamespace(client=lambda _service: self.client("dynamodb")),  # type: ignore[arg-type]
                    table="runners",
                    role_id=ROLE,
                ),
                report=self._report,
                keep=self._keep,
                rng=self._fate_rng,
            )
        )

    def _report(self, instance: Instance, report: RunnerReport) -> None:
        self._sender = instance_key(ROLE, instance.id)
        queue = self.sqs.queues["termination"]
        self.sqs.send_message(QueueUrl=queue.url, MessageBody=report.to_json())
        self._sender = ""

    def _keep(self, instance: Instance, report: RunnerReport) -> None:
        key = kept_report_key(ROLE, instance.id)
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=report.to_json())

    def _due(self, task: HousekeepingTask, seconds: float) -> None:
        self.sweep(task)
        self.loop.after(seconds, self._due, task, seconds)

    def sweep(self, task: HousekeepingTask) -> None:
        """Ask for a sweep."""
        body = HousekeepingMessage(task=task).to_json()
        self.sqs.put(self.sqs.queues["housekeeping"], body)

    # -- what tests do and ask -----------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.loop.run(self.loop.now + seconds)

    def settle(self, within: float, *, every: float = 20.0) -> list[str]:
        """Let time pass until nothing is left to do; returns what is left when time is up."""
        until = self.loop.now + within
        left, quiet = self.leftovers(), 0
        # twice in a row: at any one moment something may be on its way, such as a delivery
        while quiet < _QUIET and self.loop.now < until:
            self.loop.run(min(until, self.loop.now + every))
            left = self.leftovers()
            quiet = 0 if left else quiet + 1
        return left

    def leftovers(self) -> list[str]:
        """Say what is still under way or left over, in words."""
        found = [
            f"job {job.id} is {job.status} at github"
            for job in self.actions.jobs.values()
            if job.status != "completed"
        ]
        found += [
            f"{queue.name} holds {len(queue.messages)} messages"
            for queue in self.sqs.queues.values()
            if queue.messages and queue.name != "housekeeping"  # sweeps are always due
        ]
        found += [f"{i.id} is {i.state}" for i in self.ec2.instances.values() if i.is_alive]
        # one that is offline stays listed until the sweep that waits longer than any instance lives
        found += [
            f"runner {r.name} is at work"
            for r in self.actions.runners.values()
            if r.is_online or r.job is not None
        ]
        for item in self.items("jobs"):
            if (status := item[JobAttr.STATUS]["S"]) not in {"completed", "expired"}:
                found.append(f"record {item[JobAttr.ID]['S']} is {status}")
            if item.get(JobAttr.RERUN, {}).get("S") in {"pending", "requested"}:
                found.append(f"the re-run of {item[JobAttr.ID]['S']} is {item[JobAttr.RERUN]['S']}")
            if JobAttr.SLOT in item:
                found.append(f"record {item[JobAttr.ID]['S']} has a slot")
        found += [
            f"the configuration of {item[RunnerAttr.KEY]['S']} is there"
            for item in self.items("runners")
            if RunnerAttr.CONFIG in item
        ]
        found += [
            f"{item[SlotAttr.SCOPE]['S']} has {item[SlotAttr.USED]['N']} slots used"
            for item in self.items("slots")
            if item[SlotAttr.USED]["N"] != "0"
        ]
        if not self.functions.running.get("housekeeping"):
            found += [
                f"the lease of {item[LeaseAttr.NAME]['S']} is held"
                for item in self.items("leases")
                if float(item[LeaseAttr.ENDS_AT]["N"]) > self.loop.now
            ]
        found += [
            f"nobody took the {d.action} of {d.guid}"
            for d in {d.guid: d for d in self.actions.deliveries}.values()
            if d.status_code >= 300 and d.action != "in_progress"
        ]
        found += [f"object {key} is kept" for key in self.s3.objects if key.startswith("reports/")]
        return found

    def items(self, table: str) -> list[dict[str, Any]]:
        """Return all items of a table."""
        return list(self.dynamodb.tables[table].items.values())

    def record(self, job: Job) -> dict[str, Any]:
        """Return a job's record in plain values; empty when there is none."""
        item = self.dynamodb.tables["jobs"].items.get((str(job.id),), {})
        return {name: next(iter(value.values())) for name, value in item.items()}


def _tables() -> dict[str, Table]:
    return {
        "jobs": Table(
            JobAttr.ID.value,
            indexes={
                JobIndex.BY_STATUS.value: Index(JobAttr.STATUS.value, JobAttr.UPDATED_AT.value),
                JobIndex.BY_INSTANCE.value: Index(JobAttr.INSTANCE_ID.value),
                JobIndex.BY_RUN.value: Index(JobAttr.RUN_ID.value),
                JobIndex.BY_RERUN.value: Index(JobAttr.RERUN.value, JobAttr.UPDATED_AT.value),
                JobIndex.BY_RERUN.value: Index(JobAttr.RERUN.value, JobAttr.UPDATED_AT.value),
            },
            types={JobAttr.UPDATED_AT.value: "N", JobAttr.RUN_ID.value: "N"},
        ),
        "runners": Table(RunnerAttr.KEY.value),
        "circuit": Table(CircuitAttr.OFFERING.value),
        "instances": Table(
            InstanceAttr.ID.value,
            indexes={
                InstanceIndex.BY_DAY.value: Index(
                    InstanceAttr.LAUNCHED_ON.value, InstanceAttr.LAUNCHED_AT.value, has_all=True
                )
            },
            types={InstanceAttr.LAUNCHED_AT.value: "N"},
        ),
        "leases": Table(LeaseAttr.NAME.value),
        "slots": Table(SlotAttr.SCOPE.value),
        "audit": Table(AuditAttr.SUBJECT.value, AuditAttr.AT.value),
    }


def _queues() -> list[Queue]:
    found: list[Queue] = []
    for name in ("jobs.fifo", "termination", "events", "housekeeping"):
        dead = name.replace(".fifo", "-dead.fifo") if ".fifo" in name else f"{name}-dead"
        found.append(Queue(dead, 30.0))
        found.append(Queue(name, VISIBILITY[name.partition(".")[0]], MAX_RECEIVES, dead))
    return found


@cache
def _read(kind: type[environments.Environment], variables: tuple[tuple[str, str], ...]) -> Any:
    """Read an environment from its variables, as a function does when it starts; once for each."""
    return kind.from_environ(dict(variables))


@cache
def _app_secret() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    return json.dumps({"app_id": "1", "private_key": pem.decode()})


_BUILDERS: Final = {name: inspect.unwrap(getattr(composition, name)) for name in FUNCTIONS}
# composition imports it late; its pool of threads is replaced
importlib.import_module("runsfleet_runtime.jobs.dispatch")
