"""The sweeps that ask GitHub, as Lambda calls them: AWS in memory, GitHub over real HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from runsfleet_cli.local.github.background import BackgroundStandIn
from runsfleet_cli.local.jobs.plan import read_workflow_file
from runsfleet_runtime import composition
from runsfleet_runtime.contract.environment import HousekeepingEnvironment
from runsfleet_runtime.contract.messages import HousekeepingMessage, HousekeepingTask, JobMessage
from runsfleet_runtime.contract.tables import InstanceAttr, JobAttr, JobIndex, LeaseAttr, SlotAttr
from runsfleet_runtime.handlers import housekeeping

pytestmark = pytest.mark.integration

REPOSITORY = "octo-org/hello"
WORKFLOW = """
on: push
jobs:
  build:
    runs-on: "runs-fleet=1/runner=2cpu-linux-arm64"
    steps: [{run: "true"}]
"""
INDEXES = {
    JobIndex.BY_STATUS: [(JobAttr.STATUS, "S"), (JobAttr.UPDATED_AT, "N")],
    JobIndex.BY_INSTANCE: [(JobAttr.INSTANCE_ID, "S")],
    JobIndex.BY_RUN: [(JobAttr.RUN_ID, "N")],
    JobIndex.BY_RERUN: [(JobAttr.RERUN, "S"), (JobAttr.UPDATED_AT, "N")],
}


class Context:
    """What Lambda tells of an invocation."""

    def get_remaining_time_in_millis(self) -> int:
        return 300_000


class Fleet:
    """A deployed fleet and the GitHub that it serves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, github: BackgroundStandIn) -> None:
        self.github = github
        self.dynamodb: Any = boto3.client("dynamodb")
        self.sqs: Any = boto3.client("sqs")
        secret = {"app_id": github.stand_in.app.id, "private_key": github.stand_in.private_key}
        boto3.client("ssm").put_parameter(
            Name="/app", Value=json.dumps(secret), Type="SecureString"
        )
        self._create_jobs_table()
        for name, key in (
            ("leases", LeaseAttr.NAME),
            ("slots", SlotAttr.SCOPE),
            ("instances", InstanceAttr.ID),
        ):
            self.dynamodb.create_table(
                TableName=name,
                KeySchema=[{"AttributeName": key.value, "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": key.value, "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )
        self.jobs = self.sqs.create_queue(QueueName="jobs.fifo", Attributes={"FifoQueue": "true"})[
            "QueueUrl"
        ]
        events = self.sqs.create_queue(QueueName="events")["QueueUrl"]
        environment = HousekeepingEnvironment(
            fleet="dev",
            github_app_secret="ssm:/app",
            github_api_url=github.url,
            github_server_url=github.url,
            slots_table="slots",
            jobs_table="jobs",
            instances_table="instances",
            jobs_queue_url=self.jobs,
            events_queue_url=events,
            instance_role_id="AROAEXAMPLE",
            leases_table="leases",
            cache_bucket="cache",
            termination_queue_url=events,
            dead_letter_queue_urls=(),
            runners_table="runners",
        )
        for name, value in environment.to_environ().items():
            monkeypatch.setenv(name, value)

    def _create_jobs_table(self) -> None:
        attributes = {JobAttr.ID: "S"}
        for keys in INDEXES.values():
            attributes |= dict(keys)
        self.dynamodb.create_table(
            TableName="jobs",
            KeySchema=[{"AttributeName": JobAttr.ID.value, "KeyType": "HASH"}],
            AttributeDefinitions=[
                {"AttributeName": name.value, "AttributeType": kind}
                for name, kind in attributes.items()
            ],
            GlobalSecondaryIndexes=[
                {
                    "IndexName": index.value,
                    "KeySchema": [
                        {"AttributeName": key.value, "KeyType": kind}
                        for (key, _), kind in zip(keys, ("HASH", "RANGE"), strict=False)
                    ],
                    "Projection": {"ProjectionType": "KEYS_ONLY"},
                }
                for index, keys in INDEXES.items()
            ],
            BillingMode="PAY_PER_REQUEST",
        )

    def put(self, job: Any, **changes: Any) -> None:
        """Write the record of a job, last written an hour ago."""
        now = time.time()
        attributes: dict[JobAttr, Any] = {
            JobAttr.ID: str(job.id),
            JobAttr.RUN_ID: job.run_id,
            JobAttr.RUN_ATTEMPT: 1,
            JobAttr.REPOSITORY: REPOSITORY,
            JobAttr.QUEUED_AT: now - 7200,
            JobAttr.UPDATED_AT: now - 3600,
            JobAttr.DEADLINE: now + 3600,
            JobAttr.DISPATCH: 3,
            JobAttr.REQUEUES: 1,
        } | {JobAttr(name): value for name, value in changes.items()}
        item: dict[str, Any] = {
            name.value: {"S": value} if isinstance(value, str) else {"N": repr(value)}
            for name, value in attributes.items()
        }
        item[JobAttr.LABELS.value] = {"L": [{"S": label} for label in job.labels]}
        self.dynamodb.put_item(TableName="jobs", Item=item)

    def record(self, job: Any) -> dict[str, Any]:
        """Return the record of a job."""
        key = {JobAttr.ID.value: {"S": str(job.id)}}
        found: dict[str, Any] = self.dynamodb.get_item(TableName="jobs", Key=key)["Item"]
        return found

    def sweep(self, task: HousekeepingTask) -> str:
        """Run a sweep, and return how it ended."""
        body = HousekeepingMessage(task=task).to_json()
        record = {"messageId": "m", "receiptHandle": "r", "body": body}
        answer = housekeeping.handler({"Records": [record]}, Context())
        key = {LeaseAttr.NAME.value: {"S": f"sweep:{task.value}"}}
        row = self.dynamodb.get_item(TableName="leases", Key=key)["Item"]
        outcome = str(row[LeaseAttr.OUTCOME.value]["S"])
        assert bool(answer["batchItemFailures"]) is (outcome == "failed")
        return outcome

    def sent(self) -> list[JobMessage]:
        """Return what is on the jobs queue."""
        answer = self.sqs.receive_message(QueueUrl=self.jobs, MaxNumberOfMessages=10)
        return [JobMessage.from_json(m["Body"]) for m in answer.get("Messages", [])]


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """Deploy a fleet, with a function that starts cold."""
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    cached = (
        composition.housekeeping,
        composition.client,
        composition._session,
        composition._secrets,
    )
    with mock_aws(), BackgroundStandIn() as github:
        for function in cached:
            function.cache_clear()
        yield Fleet(monkeypatch, github)
    for function in cached:
        function.cache_clear()


@pytest.fixture
def job(fleet: Fleet, tmp_path: Path) -> Any:
    """Queue a job at GitHub, an hour ago."""
    path = tmp_path / "ci.yml"
    path.write_text(WORKFLOW)
    run = fleet.github.call(lambda: fleet.github.stand_in.queue_workflow(read_workflow_file(path)))
    (made,) = fleet.github.call(run.latest)
    made.created_at -= 3600
    return made


def test_job_that_was_never_announced(fleet: Fleet, job: Any) -> None:
    """It is found at GitHub and put on the queue; once it has a record it is left alone."""
    assert fleet.sweep(HousekeepingTask.UNANNOUNCED_JOBS) == "succeeded"
    (message,) = fleet.sent()
    assert (message.job_id, message.labels) == (job.id, job.labels)
    fleet.put(job, status="claimed", claim_expires_at=time.time() + 60)
    fleet.sqs.purge_queue(QueueUrl=fleet.jobs)
    assert fleet.sweep(HousekeepingTask.UNANNOUNCED_JOBS) == "succeeded"
    assert fleet.sent() == []


def test_job_that_github_queues_although_its_record_is_closed(fleet: Fleet, job: Any) -> None:
    """Its runner served another job, and the runner that it was left to came to nothing."""
    fleet.put(job, status="completed", outcome="success", instance_id="i-0123456789abcdef0")
    assert fleet.sweep(HousekeepingTask.UNANNOUNCED_JOBS) == "succeeded"
    (message,) = fleet.sent()
    assert (message.job_id, message.labels, message.requeues) == (job.id, job.labels, 2)
    assert fleet.record(job)[JobAttr.STATUS.value] == {"S": "queued"}


def test_job_whose_message_was_lost(fleet: Fleet, job: Any) -> None:
    """A queued record whose turn was long ago gets another message, without cost to its budget."""
    fleet.put(job, status="queued", not_before=time.time() - 3600)
    assert fleet.sweep(HousekeepingTask.WAITING_JOBS) == "succeeded"
    (message,) = fleet.sent()
    assert (message.job_id, message.labels, message.requeues) == (job.id, job.labels, 1)
    assert fleet.record(job)[JobAttr.STATUS.value] == {"S": "queued"}


def test_job_whose_runner_took_another_one(fleet: Fleet, job: Any) -> None:
    """Running here and queued at GitHub: it is claimable again, and its message is on the queue."""
    fleet.put(
        job,
        status="running",
        instance_id="i-0123456789abcdef0",
        started_at=time.time() - 3600,
    )
    assert fleet.sweep(HousekeepingTask.WAITING_JOBS) == "succeeded"
    (message,) = fleet.sent()
    assert (message.job_id, message.labels, message.requeues) == (job.id, job.labels, 2)
    assert fleet.record(job)[JobAttr.STATUS.value] == {"S": "queued"}


def test_job_that_runs_at_github_as_well(fleet: Fleet, job: Any) -> None:
    """However long it runs, it is left alone."""
    job.status = type(job.status).IN_PROGRESS
    fleet.put(job, status="running", instance_id="i-0123456789abcdef0")
    assert fleet.sweep(HousekeepingTask.WAITING_JOBS) == "succeeded"
    assert fleet.sent() == []
    assert fleet.record(job)[JobAttr.STATUS.value] == {"S": "running"}


def test_interrupted_job_whose_message_was_lost(fleet: Fleet, job: Any) -> None:
    """It failed at GitHub and awaits its re-run: GitHub is asked for it, that job alone."""

    def fail() -> None:
        job.status = type(job.status).COMPLETED
        job.conclusion = "failure"
        job.completed_at = time.time() - 1800

    fleet.github.call(fail)
    fleet.put(
        job,
        status="completed",
        outcome="interrupted",
        rerun="pending",
        interrupted_at=time.time() - 3600,
        completed_at=time.time() - 3600,
        instance_id="i-0123456789abcdef0",
    )
    assert fleet.sweep(HousekeepingTask.RERUNS) == "succeeded"
    assert fleet.record(job)[JobAttr.RERUN.value] == {"S": "done"}
    run = fleet.github.call(lambda: fleet.github.stand_in.world.runs[job.run_id])
    assert run.attempt == 2


def test_deliveries_that_failed(fleet: Fleet, job: Any) -> None:
    """They are delivered again, and the cursor is kept in the lease's row."""

    def lose() -> None:
        stand_in = fleet.github.stand_in
        stand_in.set_webhook("http://127.0.0.1:9/", "secret")
        for _ in range(3):
            stand_in.webhooks.send(stand_in.app, "workflow_job", {"action": "queued"})

    fleet.github.call(lose)
    webhooks = fleet.github.stand_in.webhooks
    fleet.github.run(webhooks.settled())
    for delivery in webhooks.log.values():
        delivery.delivered_at -= 600
    assert fleet.sweep(HousekeepingTask.LOST_DELIVERIES) == "succeeded"
    fleet.github.run(webhooks.settled())
    assert [delivery.redelivery for delivery in webhooks.log.values()] == [False] * 3 + [True] * 3
    assert fleet.sweep(HousekeepingTask.LOST_DELIVERIES) == "succeeded"
    assert len(webhooks.log) == 6


def test_runner_whose_instance_is_gone(fleet: Fleet, job: Any) -> None:
    """It is taken off GitHub's list once it was seen offline for as long as an instance lives."""
    world = fleet.github.stand_in.world

    def register() -> None:
        fleet.github.stand_in.services.registry.add(
            "orgs/octo-org", "runsfleet-i-0123456789abcdef0", ["l"], 1, ephemeral=True, jit=True
        )

    fleet.github.call(register)
    assert fleet.sweep(HousekeepingTask.OFFLINE_RUNNERS) == "succeeded"
    assert world.runners
    key = {LeaseAttr.NAME.value: {"S": "sweep:offline_runners"}}
    row = fleet.dynamodb.get_item(TableName="leases", Key=key)["Item"]
    state = json.loads(row[LeaseAttr.STATE.value]["S"])
    (seen,) = state["seen"]["octo-org"]
    state["seen"]["octo-org"][seen] -= 9 * 3600
    row[LeaseAttr.STATE.value] = {"S": json.dumps(state)}
    fleet.dynamodb.put_item(TableName="leases", Item=row)
    assert fleet.sweep(HousekeepingTask.OFFLINE_RUNNERS) == "succeeded"
    assert not world.runners


def test_version_that_ends(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    """The days that are left are a metric, and a version without end is none."""
    assert fleet.sweep(HousekeepingTask.RUNNER_VERSIONS) == "succeeded"
    assert "RunnerVersionDaysLeft" not in capsys.readouterr().out
    soon = time.time() + 5.5 * 24 * 3600
    releases = fleet.github.stand_in.releases
    releases._runtime_ends[releases.version] = soon
    assert fleet.sweep(HousekeepingTask.RUNNER_VERSIONS) == "succeeded"
    assert '"RunnerVersionDaysLeft":5.' in capsys.readouterr().out


@pytest.mark.parametrize(
    "task",
    [
        HousekeepingTask.LOST_DELIVERIES,
        HousekeepingTask.UNANNOUNCED_JOBS,
        HousekeepingTask.OFFLINE_RUNNERS,
        HousekeepingTask.RUNNER_VERSIONS,
    ],
)
def test_app_that_github_refuses(
    fleet: Fleet, job: Any, task: HousekeepingTask, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sweep that cannot read fails: that is not the same as nothing found."""
    with BackgroundStandIn() as other:
        secret = {"app_id": fleet.github.stand_in.app.id, "private_key": other.stand_in.private_key}
    boto3.client("ssm").put_parameter(
        Name="/app", Value=json.dumps(secret), Type="SecureString", Overwrite=True
    )
    assert fleet.sweep(task) == "failed"
    assert '"SweepRunsFailed":1' in capsys.readouterr().out
    assert fleet.sent() == []
