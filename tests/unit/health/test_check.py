"""``GET /health``: what is read, how often, and what anybody gets to see of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from runsfleet_runtime import composition
from runsfleet_runtime.contract.environment import HealthEnvironment
from runsfleet_runtime.contract.paths import HEALTH_ROUTE
from runsfleet_runtime.contract.tables import SWEEP_LEASE_PREFIX, CircuitAttr, LeaseAttr
from runsfleet_runtime.handlers import webhook
from runsfleet_runtime.health.check import BUDGET_SECONDS, CACHE_SECONDS, HealthCheck
from runsfleet_runtime.health.model import LastRun, QueueDepth
from runsfleet_runtime.health.ports import NotReadError

RUNTIME = Path(__file__).resolve().parents[3] / "runtime"


class Fleet:
    """All that is read, with a clock that reads take time of."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.seconds_a_read = 0.0
        self.reads = 0
        self.is_silent = False

    def _read(self) -> None:
        self.reads += 1
        self.now += self.seconds_a_read
        if self.is_silent:
            raise NotReadError("queue")

    def depth(self) -> QueueDepth:
        self._read()
        return QueueDepth(waiting=0, in_flight=0)

    def open_circuits(self, *, now: float) -> int:
        self._read()
        return 0

    def last_runs(self) -> Sequence[LastRun]:
        self._read()
        return [LastRun(task="old_jobs", ran_at=self.now, outcome="succeeded")]

    def check(self) -> HealthCheck:
        return HealthCheck(
            jobs=self,
            dead_jobs=self,
            circuits=self,
            sweeps=self,
            fleet="dev",
            region="eu-central-1",
            version="1.2.3",
            clock=lambda: self.now,
        )


def test_answer_is_kept_for_ten_seconds() -> None:
    """However often anybody asks, a process reads four times in ten seconds."""
    fleet = Fleet()
    check = fleet.check()
    for _ in range(100):
        assert check.tell()["status"] == "ok"
    assert fleet.reads == 4
    fleet.now += CACHE_SECONDS
    check.tell()
    assert fleet.reads == 8


def test_failed_reads_are_kept_too() -> None:
    """A table that does not answer is not asked the more for it."""
    fleet = Fleet()
    fleet.is_silent = True
    check = fleet.check()
    assert check.tell()["status"] == "degraded"
    fleet.is_silent = False
    assert check.tell()["status"] == "degraded"
    fleet.now += CACHE_SECONDS
    assert check.tell()["status"] == "ok"


def test_slow_reads_are_broken_off() -> None:
    """What is left after the budget is told as not known, within the function's time."""
    fleet = Fleet()
    fleet.seconds_a_read = BUDGET_SECONDS
    told = fleet.check().tell()
    assert fleet.reads == 2
    assert told["reasons"] == ["not known: circuits", "not known: sweeps"]


# -- the whole route, on moto ----------------------------------------------------------------------


class Cloud:
    """What a fleet's health is read from."""

    def __init__(self) -> None:
        self.sqs: Any = boto3.client("sqs")
        self.dynamodb: Any = boto3.client("dynamodb")
        fifo: Any = {"FifoQueue": "true"}
        self.jobs, self.dead = (
            self.sqs.create_queue(QueueName=name, Attributes=fifo)["QueueUrl"]
            for name in ("jobs.fifo", "dead.fifo")
        )
        for table, key in (("circuits", CircuitAttr.OFFERING), ("leases", LeaseAttr.NAME)):
            self.dynamodb.create_table(
                TableName=table,
                KeySchema=[{"AttributeName": key.value, "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": key.value, "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )

    def circuit(self, offering: str, state: str, **until: float) -> None:
        """Write a circuit."""
        times = {CircuitAttr[name].value: {"N": str(value)} for name, value in until.items()}
        item = {CircuitAttr.OFFERING.value: {"S": offering}, CircuitAttr.STATE.value: {"S": state}}
        self.dynamodb.put_item(TableName="circuits", Item=item | times)

    def lease(self, name: str, ran_at: float | None) -> None:
        """Write a lease with a state that nobody outside may see."""
        item = {
            LeaseAttr.NAME.value: {"S": name},
            LeaseAttr.STATE.value: {"S": '{"repository": "acme/secret"}'},
            LeaseAttr.OUTCOME.value: {"S": "succeeded"},
        }
        if ran_at is not None:
            item[LeaseAttr.RAN_AT.value] = {"N": str(ran_at)}
        self.dynamodb.put_item(TableName="leases", Item=item)


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """An AWS in memory, and a function that starts cold."""
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    cached: tuple[Any, ...] = (composition.health, composition.client, composition._session)
    for made in cached:
        made.cache_clear()
    with mock_aws():
        made_cloud = Cloud()
        environment = HealthEnvironment(
            fleet="dev",
            jobs_queue_url=made_cloud.jobs,
            jobs_dead_letter_queue_url=made_cloud.dead,
            circuit_table="circuits",
            leases_table="leases",
        )
        for name, value in environment.to_environ().items():
            monkeypatch.setenv(name, value)
        yield made_cloud
    for made in cached:
        made.cache_clear()


def ask() -> tuple[dict[str, Any], str]:
    """Ask the webhook function as the HTTP API does; returns the answer and its text."""
    answer = webhook.handler({"version": "2.0", "routeKey": HEALTH_ROUTE}, None)
    assert answer["statusCode"] == 200
    assert answer["headers"]["content-type"] == "application/json"
    told: dict[str, Any] = json.loads(answer["body"])
    return told, answer["body"]


def test_route_tells_what_is_there(cloud: Cloud) -> None:
    """Circuits that are left out, messages, and the last run of each sweep."""
    future = 4_000_000_000.0
    cloud.circuit("spot:c7g.xlarge:eu-central-1a", "open", OPEN_UNTIL=future)
    cloud.circuit("spot:c7g.large:eu-central-1a", "half-open", PROBE_UNTIL=future)
    cloud.circuit("spot:m7g.large:eu-central-1a", "open", OPEN_UNTIL=1.0)
    cloud.circuit("spot:m7g.xlarge:eu-central-1a", "closed", OPEN_UNTIL=future)
    cloud.lease(f"{SWEEP_LEASE_PREFIX}waiting_jobs", future)
    cloud.lease(f"{SWEEP_LEASE_PREFIX}old_jobs", None)
    cloud.lease("another:lease", future)
    cloud.sqs.send_message(
        QueueUrl=cloud.jobs, MessageBody="{}", MessageGroupId="1", MessageDeduplicationId="1"
    )
    told, text = ask()
    assert told["status"] == "ok"
    assert told["jobs"] == {"waiting": 1, "in_flight": 0, "dead_letters": 0}
    assert told["open_circuits"] == 2
    assert list(told["sweeps"]) == ["waiting_jobs"]
    assert (told["fleet"], told["region"]) == ("dev", "eu-central-1")
    for leak in ("arn:", "123456789012", "acme", "c7g", "https://", "another"):
        assert leak not in text


def test_route_with_dead_letters_is_degraded(cloud: Cloud) -> None:
    """A job in the dead-letter queue is a job that nobody serves."""
    cloud.sqs.send_message(
        QueueUrl=cloud.dead, MessageBody="{}", MessageGroupId="1", MessageDeduplicationId="1"
    )
    told, _ = ask()
    assert (told["status"], told["jobs"]["dead_letters"]) == ("degraded", 1)


def test_route_with_missing_parts_is_degraded_and_leaks_nothing(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    """What AWS said of a failed read is in the log and not in the answer."""
    cloud.dynamodb.delete_table(TableName="circuits")
    cloud.sqs.delete_queue(QueueUrl=cloud.dead)
    told, text = ask()
    assert told["status"] == "degraded"
    assert told["reasons"] == ["not known: dead letters", "not known: circuits"]
    assert "ResourceNotFound" not in text
    assert "ResourceNotFound" in capsys.readouterr().out


def test_route_needs_no_secret(cloud: Cloud) -> None:
    """A question builds nothing of what deliveries need, and the other way round."""
    ask()
    assert composition.webhook.cache_info().currsize == 0


def test_deliveries_import_nothing_of_it() -> None:
    """The webhook's cold start holds neither this room nor what only it needs."""
    program = (
        "import sys; import runsfleet_runtime.handlers.webhook; "
        "print(*(name for name in sys.modules if name.startswith('runsfleet_runtime')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=True,
        env={"PYTHONPATH": str(RUNTIME)},
        text=True,
    )
    rooms = {name.split(".")[1] for name in done.stdout.split() if "." in name}
    assert "handlers" in rooms
    assert not rooms & {"circuit_breaker", "health", "housekeeping", "notifications"}
