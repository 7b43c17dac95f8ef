"""No alarm and no widget is dead: each metric that one names is emitted in a run of a local cloud.

What happens to a fleet in its worst weeks happens here within minutes, to one fleet as deployed.
Most of it is brought about as it comes about: by instances, by GitHub and by AWS. What takes hours
begins with a record as hours would leave it, and the deployed functions go on from there.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from typer.testing import CliRunner

from runsfleet_cli.local.state import STATE_VARIABLE
from runsfleet_cli.main import app as command
from runsfleet_runtime.contract.messages import (
    HousekeepingMessage,
    HousekeepingTask,
    JobMessage,
    RerunMessage,
)
from runsfleet_runtime.contract.metrics import NAMESPACE
from stacks.environment_file import load_environments
from stacks.fleet_stack import FleetStage
from tests.e2e.clouds import Cloud, started
from tests.e2e.endings import Trial
from tests.e2e.tuning import client, tuned
from tests.infrastructure.templates import ROOT, Template, recommended_flags, synthesize
from tests.infrastructure.watching import Reference, of_alarms, of_widgets

LABEL = "runs-fleet=1/runner=2cpu-linux-arm64"
HOUR, DAY = 3600.0, 24 * 3600.0
ONCE = "test ${{ github.run_attempt }} -gt 1 || sleep 300"
WORKFLOW = "name: w\non: push\njobs:\n  one:\n    runs-on: x\n    steps:\n      - run: 'true'\n"
SPENT = 99  # more tries than any job has

Series = tuple[str, frozenset[tuple[str, str]]]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The fleet of ``environments/prod.yaml``, with its alarms and its page."""
    state = tmp_path_factory.mktemp("watched")
    with started(state, strict=False, environment="prod") as found:
        yield found


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """Its template: the emulator takes no alarm that reckons."""
    (environment,) = load_environments(ROOT / "environments", ["prod"])

    def build(app: cdk.App) -> None:
        FleetStage(app, environment)

    folder = tmp_path_factory.mktemp("template")
    return synthesize(folder, build, recommended_flags())["runsfleet-prod-us-east-1"]


@dataclass
class Life:
    """A fleet, what befalls it, and which metrics it has emitted so far."""

    cloud: Cloud
    folder: Path
    _numbers: Iterator[int]

    # -- what is seen --------------------------------------------------------------------------

    def emitted(self) -> set[Series]:
        """Return every series of ours so far."""
        told = self.cloud.client.state()["metrics"]
        return {(one["name"], frozenset(one["dimensions"].items())) for one in told}

    def until(self, *names: str, seconds: float = 60.0) -> None:
        """Wait for metrics, each given as ``Name`` or ``Name:value`` of its own dimension."""
        deadline = time.monotonic() + seconds
        while True:
            seen = {
                ":".join([name, *(v for k, v in sorted(pairs) if k != "Fleet")])
                for name, pairs in self.emitted()
            }
            if seen >= set(names):
                return
            assert time.monotonic() < deadline, f"never emitted: {sorted(set(names) - seen)}"
            time.sleep(0.5)

    # -- what befalls it -----------------------------------------------------------------------

    def trial(self, run: str = "true") -> Trial:
        """Queue a job that runs a command."""
        return Trial(self.cloud, self.folder, run)

    def queue(self, label: str = LABEL, **more: Any) -> Mapping[str, Any]:
        """Queue a job at GitHub, by default one for this fleet."""
        body = {"text": WORKFLOW, "labels": [label], **more}
        (run,) = self.cloud.client.github("POST", "runs", body)["runs"]
        job: Mapping[str, Any] = run["jobs"][0]
        return job

    def unheard(self, **more: Any) -> Mapping[str, Any]:
        """Queue a job of which no webhook tells."""
        rule = {"route": "webhook/event", "count": 1}
        self.cloud.client.github("POST", "faults", rule)
        try:
            return self.queue(**more)
        finally:
            time.sleep(0.5)
            self.cloud.client.github("DELETE", "faults")

    def send(self, queue: str, body: str, **more: str) -> None:
        """Put a message on a queue."""
        url = self.cloud.running.endpoints.queues[queue]
        client(self.cloud, "sqs").send_message(QueueUrl=url, MessageBody=body, **more)

    def ec2_says(self, what: str, instance_id: str, **detail: str) -> None:
        """Have EC2 tell of an instance, ten minutes late."""
        at = datetime.fromtimestamp(time.time() - 600, UTC).isoformat()
        told = {"instance-id": instance_id, **detail}
        event = {"source": "aws.ec2", "detail-type": what, "time": at, "detail": told}
        self.send("events", json.dumps(event))

    def left(self, instance_id: str) -> None:
        """Have EC2 tell that an instance is gone."""
        self.ec2_says("EC2 Instance State-change Notification", instance_id, state="terminated")

    def sweep(self, task: HousekeepingTask) -> None:
        """Ask for a sweep."""
        self.send("housekeeping", HousekeepingMessage(task=task).to_json())

    def change(self, one: Trial, **values: float) -> None:
        """Change numbers of a job's record, as its history would have."""
        client(self.cloud, "dynamodb").update_item(
            TableName=self.cloud.running.endpoints.tables["jobs"],
            Key={"job_id": {"S": str(one.job_id)}},
            UpdateExpression="SET " + ", ".join(f"#{name} = :{name}" for name in values),
            ExpressionAttributeNames={f"#{name}": name for name in values},
            ExpressionAttributeValues={f":{n}": {"N": repr(v)} for n, v in values.items()},
        )

    def record(self, status: str, job: Mapping[str, Any] | None = None, **more: Any) -> str:
        """Write the record of a job, last moved an hour ago; gives its instance, which is gone.

        Without a job it is one that GitHub does not know.
        """
        number = next(self._numbers)
        now, instance = time.time(), f"i-0123456789abcde{number:02d}"
        values: dict[str, Any] = {
            "job_id": str(job["id"] if job else 900_000_000_000 + number),
            "run_id": int(job["run_id"]) if job else 800_000_000_000 + number,
            "run_attempt": 1,
            "repository": "octo-org/hello",
            "status": status,
            "queued_at": now - 2 * HOUR,
            "updated_at": now - HOUR,
            "deadline": now + HOUR,
            "dispatch": 1,
            "requeues": 0,
            "instance_id": instance,
            "capacity_type": "spot",
            "instance_type": "t4g.medium",
            "availability_zone": "us-east-1a",
            "runner_name": f"runsfleet-{instance}",
            "launched_at": now - HOUR,
            **more,
        }
        item: dict[str, Any] = {
            name: {"S": value} if isinstance(value, str) else {"N": repr(value)}
            for name, value in values.items()
        }
        item["labels"] = {"L": [{"S": LABEL}]}
        tables = self.cloud.running.endpoints.tables
        dynamodb = client(self.cloud, "dynamodb")
        dynamodb.put_item(TableName=tables["jobs"], Item=item)
        launched = {"instance_id": {"S": instance}, "launched_at": {"N": repr(now - HOUR)}}
        dynamodb.put_item(TableName=tables["instances"], Item=launched)
        return instance

    @contextlib.contextmanager
    def github_fails(self, route: str) -> Iterator[None]:
        """Have GitHub refuse a route."""
        self.cloud.client.github("POST", "faults", {"route": route, "status": 403})
        try:
            yield
        finally:
            self.cloud.client.github("DELETE", "faults")


# -- what may befall a fleet, and what it tells of it --------------------------------------------


def jobs_that_run(life: Life) -> None:
    """Three jobs run; EC2 would take back the instances that they had, which are gone by then."""
    outcome = life.cloud.run("hello.yml", jobs=3)
    assert outcome.ok, outcome.problems
    life.until("JobsQueued", "JobsLaunched:spot", "JobsStarted", "JobsCompleted:success")
    life.until("JobDuration", "LaunchWait", "BreakerOpen:spot", "BreakerOpen:on-demand")
    for instance in outcome.instances:
        life.ec2_says(
            "EC2 Spot Instance Interruption Warning",
            instance["instance_id"],
            **{"instance-action": "terminate"},
        )
    life.until("SpotInterruptions:without_job", "BreakerOpenedByInterruption:spot")


def interruptions(life: Life) -> None:
    """Spot takes an instance in mid-job, and one whose runner has not started."""
    running = life.trial(ONCE)
    instance = running.until_job_runs()
    running.until(lambda: running.job["status"] == "in_progress")
    running.act("interrupt", instance, seconds=60)
    with tuned(life.cloud, setup=["sleep 3"]):
        early = life.trial()
        early.act("interrupt", early.until_instance(), seconds=120)
        life.until("SpotInterruptions:launched", "SpotInterruptions:running")
    life.until("JobsCompleted:interrupted", "JobsLaunched:on-demand")
    life.until("JobsRerun:done", seconds=150)


def endings(life: Life) -> None:
    """A runner dies, a job takes too long, an instance cannot start, a job is gone."""
    killed = life.trial("sleep 300")
    killed.act("kill-runner", killed.until_job_runs())
    with tuned(life.cloud, dispatch={"RUNSFLEET_MAX_RUNTIME_SECONDS": "2"}):
        life.trial("sleep 300").until_job_runs()
        life.until("JobsCompleted:failure", "JobsCompleted:timeout")
    full = {"RUNSFLEET_RUNNER_DISK_BYTES": str(10**18)}
    with tuned(life.cloud, agent=full, setup=["sleep 2"]):
        spent = life.trial()
        spent.until(lambda: spent.record.get("status") == "launched")
        life.change(spent, requeues=SPENT)
        life.trial()
        life.until("JobsCompleted:bootstrap_failed", "JobsGivenUp", "JobsRequeued")
    with tuned(life.cloud, dispatch={"RUNSFLEET_IDLE_TIMEOUT_SECONDS": "2"}, setup=["sleep 2"]):
        gone = life.trial()
        gone.until(lambda: gone.record.get("status") == "launched")
        refusing = {"service": "sqs", "action": "SendMessage*", "caller": "function:*"}
        with life.cloud.fault(effect="refuse", **refusing):
            life.cloud.client.github("POST", f"runs/{gone.job['run_id']}/cancel")
            life.until("EnqueueFailures")
        life.sweep(HousekeepingTask.ORPHANED_INSTANCES)  # counts the instance that idles
        life.until("JobsCompleted:unused", "FleetSize")


def instances_without_a_word(life: Life) -> None:
    """They are gone, by EC2's word; what becomes of their jobs depends on what is known."""
    with life.github_fails("*/actions/jobs/*"):  # unknown is a third answer
        life.left(life.record("launched"))
        life.left(life.record("running", started_at=time.time() - HOUR))
        life.left(life.record("launched", requeues=SPENT))
        life.until("InstancesLost:redispatched", "InstancesLost:rerun", "InstancesLost:closed")
        life.until("JobsGivenUpByEvents")


def jobs_that_nobody_told_of(life: Life) -> None:
    """Sweeps find them, and give up what was tried too often."""
    life.cloud.client.github("PUT", "limits", {"real": True})  # without limits none is left
    life.unheard(age=600)
    life.record("queued", not_before=time.time() - HOUR)
    others = "ubuntu-latest"  # queued at GitHub for as long as this lasts
    life.record("running", life.queue(others), started_at=time.time() - HOUR)
    life.record("running", life.queue(others), started_at=time.time() - HOUR, requeues=SPENT)
    life.sweep(HousekeepingTask.UNANNOUNCED_JOBS)
    life.sweep(HousekeepingTask.WAITING_JOBS)
    life.until("JobsRecovered:unannounced", "JobsRecovered:message_lost")
    life.until("JobsRecovered:still_queued", "JobsGivenUpBySweeps", "SweepActions:waiting_jobs")
    old = JobMessage(
        job_id=900_000_000_001,
        run_id=800_000_000_001,
        run_attempt=1,
        repository="octo-org/hello",
        labels=(LABEL,),
        queued_at=time.time() - 25 * HOUR,
    )
    life.send("jobs", old.to_json(), MessageGroupId="old", MessageDeduplicationId="old")
    life.until("JobsExpired")


def reruns(life: Life) -> None:
    """One is not needed, one waited for a day."""
    pending = {"rerun": "pending", "outcome": "interrupted"}
    done = life.trial()
    done.closed()
    long_ago = {"interrupted_at": time.time() - HOUR, "completed_at": time.time() - HOUR}
    life.record("completed", done.job, **pending, **long_ago)
    ages = {"interrupted_at": time.time() - 2 * DAY, "completed_at": time.time() - 2 * DAY}
    late = life.queue("ubuntu-latest")
    life.record("completed", late, **pending, **ages)
    life.send("events", RerunMessage(job_id=int(done.job["id"])).to_json())
    life.until("JobsRerun:not_needed")
    with life.github_fails("*/actions/jobs/*"):
        life.send("events", RerunMessage(job_id=int(late["id"])).to_json())
        life.until("JobsRerun:given_up")


def outsiders(life: Life) -> None:
    """A wrong secret; GitHub fails, lacks a permission, lets a version end; EC2 fails."""
    forged = {"event": "workflow_job", "body": "{}", "signature": "wrong"}
    life.cloud.client.github("POST", "deliveries", forged)
    with life.github_fails("*/generate-jitconfig"):
        life.trial()
        life.until("APIErrors:github", "LaunchFailures")
    rule = {"service": "ec2", "action": "CreateFleet", "code": "InternalError", "status": 500}
    with life.cloud.fault(effect="error", **rule):
        life.trial()
        life.until("APIErrors:ec2", "DeliveriesRefused:signature")
    life.cloud.client.github("POST", "organizations", {"login": "stingy"})
    install = {"account": "stingy", "permissions": {"metadata": "read"}}
    life.cloud.client.github("POST", "installations", install)
    life.cloud.client.github("PUT", "deprecations/current", {"seconds": 5 * DAY})
    for task in (
        HousekeepingTask.UNANNOUNCED_JOBS,
        HousekeepingTask.RUNNER_VERSIONS,
        HousekeepingTask.COST_REPORT,
    ):
        life.sweep(task)
    life.until("PermissionsMissing", "RunnerVersionDaysLeft", "CostUnusual", "SweepRuns")
    life.until("GitHubRateLimitLeft")
    with life.cloud.fault(effect="refuse", service="dynamodb", action="Query"):
        life.sweep(HousekeepingTask.STALE_JOBS)
        life.until("SweepRunsFailed")


def shortage(life: Life) -> None:
    """EC2 has nothing, neither spot nor on-demand."""
    with life.cloud.fault(effect="capacity", capacity_types=["spot", "on-demand"]):
        for _ in range(3):
            life.trial()
            time.sleep(1)
        life.until("LaunchShortfall", "BreakerOpenedByShortage:spot", seconds=90)
        life.until("BreakerOpenedByShortage:on-demand", seconds=90)


LIVES: tuple[Callable[[Life], None], ...] = (
    jobs_that_run,
    interruptions,
    endings,
    instances_without_a_word,
    jobs_that_nobody_told_of,
    reruns,
    outsiders,
    shortage,
)


@pytest.fixture(scope="module")
def lived(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> set[Series]:
    """Live through all of it; gives every series that was emitted."""
    life = Life(cloud, tmp_path_factory.mktemp("workflows"), itertools.count(10))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STATE_VARIABLE, str(cloud.state))
        for step in LIVES:
            step(life)
            # what one step opened must not be in the way of the next
            done = CliRunner().invoke(command, ["breaker", "reset", "--local"])
            assert done.exit_code == 0, done.output
    return life.emitted()


def test_every_metric_that_is_watched_or_shown_is_emitted(
    template: Template, lived: set[Series]
) -> None:
    """Each reference of each alarm and widget fits a series of this run; none is on paper only."""
    references = [*of_alarms(template), *of_widgets(template)]
    ours = [one for one in references if one.namespace == NAMESPACE]
    # both kinds are looked into, sums and searches included
    assert {"NoLaunches", "UnusualCost", "Success rate, percent", "Sweeps"} <= {r.by for r in ours}
    assert {"JobsLaunched", "APIErrors", "SweepActions"} <= {r.name for r in ours}
    dead = {
        (one.by, one.name, one.dimensions)
        for one in ours
        if not any(one.fits(name, dict(pairs)) for name, pairs in lived)
    }
    assert dead == set()


def test_metrics_of_aws_are_of_queues_and_functions_that_are_deployed(
    template: Template, cloud: Cloud, lived: set[Series]
) -> None:
    """AWS emits them for what there is: each names a queue or function of this very stack."""
    del lived
    references = [*of_alarms(template), *of_widgets(template)]
    theirs = [one for one in references if one.namespace != NAMESPACE]
    kinds = {"QueueName": "AWS::SQS::Queue", "FunctionName": "AWS::Lambda::Function"}
    names = {"AWS/SQS": "QueueName", "AWS/Lambda": "FunctionName"}
    stacks = client(cloud, "cloudformation")
    deployed = {
        entry["LogicalResourceId"]: entry["ResourceType"]
        for page in stacks.get_paginator("list_stack_resources").paginate(
            StackName="runsfleet-prod-us-east-1"
        )
        for entry in page["StackResourceSummaries"]
    }
    assert theirs
    for one in theirs:
        ((name, value),) = one.dimensions
        assert name == names[one.namespace]
        logical = value.strip("<>").partition(".")[0]
        assert deployed.get(logical) == kinds[name], one


def test_a_reference_fits_what_it_names_and_nothing_else() -> None:
    """The measure itself: another value, a missing dimension or one too many do not fit."""
    exact = Reference("a", NAMESPACE, "M", (("Fleet", "prod"), ("Kind", "x")))
    assert exact.fits("M", {"Fleet": "prod", "Kind": "x"})
    assert not exact.fits("M", {"Fleet": "prod", "Kind": "y"})
    assert not exact.fits("M", {"Fleet": "prod"})
    search = Reference("a", NAMESPACE, "M", (("Fleet", "prod"),), frozenset({"Kind"}))
    assert search.fits("M", {"Fleet": "prod", "Kind": "y"})
    assert not search.fits("M", {"Fleet": "prod"})
    assert not search.fits("M", {"Fleet": "dev", "Kind": "y"})
