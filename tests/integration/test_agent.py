"""The agent as it is started on an instance: a process, an AWS emulator, GitHub's stand-in.

Each test is one instance: its own id, metadata service, home and `PATH` with a `shutdown` that only
writes down that it was called.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid
import zipfile
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.session import get_session

from runsfleet_cli.local.emulator import Emulator, EmulatorSettings, ensure_emulator_environment
from runsfleet_cli.local.github import BackgroundStandIn
from runsfleet_cli.local.jobs.plan import read_workflow
from runsfleet_constructs.bundling.agent import build_agent_package
from runsfleet_runtime.contract.environment import AgentEnvironment, ConfigStore
from runsfleet_runtime.contract.messages import ReportStatus, RunnerConfig, RunnerReport
from runsfleet_runtime.contract.tables import RunnerAttr, instance_key
from tests.archives import unpack
from tests.unit.agent.servers import ImdsState, imds_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
REGION = "eu-central-1"
ROLE = "AROAEXAMPLE"
AGENT = "runsfleet_runtime.agent"
WORKFLOW = """\
name: hello
on: push
jobs:
  hello:
    runs-on: replaced
    steps:
      - run: {step}
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the agent's package, as an instance does."""
    directory = tmp_path_factory.mktemp("agent")
    with zipfile.ZipFile(build_agent_package().path) as archive:
        archive.extractall(directory)  # noqa: S202  our own package
    return directory


@pytest.fixture(scope="module")
def emulator() -> Iterator[str]:
    """Run the AWS emulator."""
    directory = Path(tempfile.mkdtemp(prefix="runsfleet-emulator-"))
    loop = asyncio.new_event_loop()
    python = loop.run_until_complete(ensure_emulator_environment(ROOT))
    settings = EmulatorSettings(
        python=python, account="123456789012", region=REGION, directory=directory
    )
    running = Emulator(settings)
    loop.run_until_complete(running.start())
    try:
        yield running.url
    finally:
        loop.run_until_complete(running.stop())
        loop.close()
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def github() -> Iterator[BackgroundStandIn]:
    """Run GitHub's stand-in."""
    with BackgroundStandIn() as stand_in:
        yield stand_in


class Aws:
    """What a fleet has in AWS."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        session = get_session()
        clients: list[Any] = [
            session.create_client(
                name,
                region_name=REGION,
                endpoint_url=endpoint,
                aws_access_key_id="test",
                aws_secret_access_key="test",
            )
            for name in ("dynamodb", "sqs", "ec2", "s3", "logs")
        ]
        self.dynamodb, self.sqs, self.ec2, self.s3, self.logs = clients
        suffix = uuid.uuid4().hex[:8]
        self.table, self.bucket = f"runners-{suffix}", f"packages-{suffix}"
        self.log_group = f"agents-{suffix}"
        self.logs.create_log_group(logGroupName=self.log_group)
        self.dynamodb.create_table(
            TableName=self.table,
            KeySchema=[{"AttributeName": RunnerAttr.KEY, "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": RunnerAttr.KEY, "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        self.queue = self.sqs.create_queue(QueueName=f"termination-{suffix}")["QueueUrl"]
        self.s3.create_bucket(
            Bucket=self.bucket, CreateBucketConfiguration={"LocationConstraint": REGION}
        )

    def launch(self) -> str:
        answer = self.ec2.run_instances(ImageId="ami-12345678", MinCount=1, MaxCount=1)
        return str(answer["Instances"][0]["InstanceId"])

    def state(self, instance_id: str) -> str:
        answer = self.ec2.describe_instances(InstanceIds=[instance_id])
        return str(answer["Reservations"][0]["Instances"][0]["State"]["Name"])

    def configure(self, config: RunnerConfig) -> None:
        self.dynamodb.put_item(
            TableName=self.table,
            Item={
                RunnerAttr.KEY: {"S": instance_key(ROLE, config.instance_id)},
                RunnerAttr.CONFIG: {"S": config.to_json()},
            },
        )

    def reports(self) -> list[RunnerReport]:
        found = []
        while messages := self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get(
            "Messages"
        ):
            for message in messages:
                found.append(RunnerReport.from_json(message["Body"]))
                self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
        return found

    def streams(self, instance_id: str) -> dict[str, list[str]]:
        found = self.logs.describe_log_streams(
            logGroupName=self.log_group, logStreamNamePrefix=instance_id
        )["logStreams"]
        return {s["logStreamName"]: self.messages(s["logStreamName"]) for s in found}

    def messages(self, stream: str) -> list[str]:
        answer = self.logs.get_log_events(
            logGroupName=self.log_group, logStreamName=stream, startFromHead=True
        )
        return [e["message"] for e in answer["events"]]

    def packages(self) -> list[str]:
        return [o["Key"] for o in self.s3.list_objects_v2(Bucket=self.bucket).get("Contents", [])]


@pytest.fixture(scope="module")
def aws(emulator: str) -> Aws:
    """Make the fleet's resources."""
    return Aws(emulator)


class Instance:
    """One instance: what its machine would give to the agent."""

    def __init__(self, aws: Aws, imds: ImdsState, home: Path, package: Path) -> None:
        self.aws = aws
        self.id = imds.instance_id
        self.home = home
        tools = home / "tools"
        tools.mkdir(parents=True)
        self.shutdowns = home / "shutdowns"
        (tools / "shutdown").write_text(f'#!/bin/sh\necho "$@" >> {self.shutdowns}\n')
        (tools / "shutdown").chmod(0o755)
        environment = AgentEnvironment(
            fleet="test",
            platform="linux-x64",
            region=REGION,
            termination_queue_url=aws.queue,
            instance_role_id=ROLE,
            config_store=ConfigStore.DYNAMODB,
            runners_table=aws.table,
            runner_bucket=aws.bucket,
            log_group=aws.log_group,
            config_timeout_seconds=5,
            home=str(home),
            runner_user="root",
        )
        self.environ = {
            # act comes from the environment that runs the tests
            "PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(package),
            "AWS_ENDPOINT_URL": aws.endpoint,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": imds.url,
            **environment.to_environ(),
        }
        self.imds = imds
        self.process: subprocess.Popen[str] | None = None
        self.output = ""

    def start(self) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            # an interpreter with nothing installed: the package brings what it needs
            [getattr(sys, "_base_executable", sys.executable), "-S", "-m", AGENT],
            env=self.environ,
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return self.process

    def finish(self, seconds: float = 60) -> int:
        process = self.process or self.start()
        self.output, _ = process.communicate(timeout=seconds)
        return process.returncode

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.splitlines()]


@pytest.fixture
def instance(aws: Aws, package: Path) -> Iterator[Instance]:
    """Launch an instance, whose agent is not started yet."""
    with ExitStack() as stack:
        imds = stack.enter_context(imds_server(aws.launch()))
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="runsfleet-test-")))
        made = Instance(aws, imds, home, package)
        yield made
        if made.process is not None and made.process.poll() is None:
            made.process.kill()
            made.process.communicate()


class Job:
    """A job that waits at GitHub for a runner with a label of its own."""

    def __init__(self, github: BackgroundStandIn, step: str = "echo hello") -> None:
        self.github = github
        self.label = f"runs-fleet={uuid.uuid4().hex}"
        plan = read_workflow(WORKFLOW.format(step=step))
        run = github.call(lambda: github.stand_in.queue_workflow(plan, labels=[self.label]))
        self.run_id = run.id
        (self.record,) = (j for j in github.stand_in.world.jobs.values() if j.run_id == self.run_id)

    def configure(self, instance: Instance, *, jit: bool = True, **changes: Any) -> RunnerConfig:
        """Mint a registration as dispatch does, and write the instance's configuration."""
        stand_in = self.github.stand_in
        name = f"runsfleet-{instance.id}"
        body = {"name": name, "runner_group_id": 1, "labels": [self.label]}
        registry = stand_in.services.registry
        secret = self.github.call(
            lambda: (
                registry.generate_jit("orgs/octo-org", body)[1]
                if jit
                else registry.token("orgs/octo-org", "registration").token
            )
        )
        (package,) = (p for p in stand_in.releases.downloads() if p["architecture"] == "x64")
        fields: dict[str, Any] = {
            "instance_id": instance.id,
            "job_id": self.record.id,
            "run_id": self.run_id,
            "repository": "octo-org/hello",
            "server_url": self.github.url,
            "runner_url": f"{self.github.url}/octo-org",
            "runner_name": name,
            "labels": (self.label,),
            "jit_config" if jit else "registration_token": secret,
            "package_url": package["download_url"],
            "package_filename": package["filename"],
            "package_sha256": package["sha256_checksum"],
            **changes,
        }
        config = RunnerConfig(**fields)
        instance.aws.configure(config)
        return config


def bake(instance: Instance, github: BackgroundStandIn) -> str:
    """Put the runner into the instance's home as an image has it; returns its version."""
    (package,) = (p for p in github.stand_in.releases._packages if "linux-x64" in p.filename)
    with tarfile.open(fileobj=io.BytesIO(package.content), mode="r:gz") as archive:
        unpack(archive, instance.home / "runner")
    version = package.filename.removesuffix(".tar.gz").rpartition("-")[2]
    marker = {"version": version, "platform": "linux-x64"}
    (instance.home / "runner.json").write_text(json.dumps(marker))
    return version


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def command_lines() -> str:
    """Return the command lines of all processes."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(found)


def test_one_job_by_jit_from_boot_to_the_end(
    aws: Aws, github: BackgroundStandIn, instance: Instance
) -> None:
    """A job runs at GitHub, both reports arrive, the runner is cached, the instance is gone."""
    job = Job(github)
    config = job.configure(instance)
    process = instance.start()
    seen = ""
    while process.poll() is None:
        seen += command_lines()
        time.sleep(0.05)
    assert instance.finish() == 0, instance.output

    assert job.record.conclusion == "success"
    started, ended = sorted(aws.reports(), key=lambda r: r.status.is_ending)
    assert started.status is ReportStatus.STARTED
    assert ended.status is ReportStatus.SUCCESS
    assert (ended.job_id, ended.ran_run_id) == (job.record.id, job.run_id)
    assert [t.partition("=")[0] for t in ended.timings] == [
        "boot",
        "configuration",
        "package",
        "registration",
    ]
    assert aws.state(instance.id) == "terminated"
    assert not instance.shutdowns.exists()
    assert list((instance.home / "work").iterdir()) == []
    assert aws.packages() == [f"runners/2.337.0/linux-x64/{config.package_filename}"]
    # the whole log is in the job's stream, and nothing else is
    ((stream, messages),) = aws.streams(instance.id).items()
    assert stream == f"{instance.id}/{job.record.id}"
    said = [json.loads(message)["message"] for message in messages]
    assert said[0] == "agent started"
    assert any("Listening for Jobs" in text for text in said)
    assert {"job started", "ending", "reported"} <= set(said)
    assert config.jit_config not in str(messages)
    assert not (instance.home / "log").exists()
    # the registration was in no log and on no command line
    assert "run.sh" in seen
    assert config.jit_config not in seen
    assert config.jit_config not in instance.output


def test_the_second_instance_takes_the_runner_from_the_cache(
    aws: Aws, github: BackgroundStandIn, instance: Instance
) -> None:
    """With a cached package GitHub is not asked for the download; a red job is still served."""
    job = Job(github, step="exit 1")
    config = job.configure(instance, package_url="http://127.0.0.1:9/nowhere")
    key = f"runners/2.337.0/linux-x64/{config.package_filename}"
    content = next(p.content for p in github.stand_in.releases._packages if p.filename in key)
    aws.s3.put_object(Bucket=aws.bucket, Key=key, Body=content)
    assert instance.finish() == 0, instance.output
    assert job.record.conclusion == "failure"
    assert aws.reports()[-1].status is ReportStatus.SUCCESS
    assert any(line.get("source") == "cache" for line in instance.log)
    assert aws.state(instance.id) == "terminated"


def test_one_job_by_a_registration_token(
    aws: Aws, github: BackgroundStandIn, instance: Instance
) -> None:
    """Without a JIT configuration config.sh registers the runner, and the job runs."""
    job = Job(github)
    config = job.configure(instance, jit=False)
    assert instance.finish() == 0, instance.output
    assert job.record.conclusion == "success"
    assert {r.status for r in aws.reports()} == {ReportStatus.STARTED, ReportStatus.SUCCESS}
    assert config.registration_token not in instance.output
    assert aws.state(instance.id) == "terminated"


def test_a_runner_without_a_job_ends_unused(
    aws: Aws, github: BackgroundStandIn, instance: Instance
) -> None:
    """A runner that is given nothing ends after its idle time and says so."""
    job = Job(github)
    job.label = "nobody-asks-for-this"
    job.configure(instance, idle_timeout_seconds=2)
    assert instance.finish() == 0, instance.output
    (report,) = aws.reports()
    assert report.status is ReportStatus.UNUSED
    assert not report.ran_job
    assert aws.state(instance.id) == "terminated"


def test_sigterm_cancels_the_job_and_ends_the_instance(
    aws: Aws, github: BackgroundStandIn, instance: Instance
) -> None:
    """A stop during the job is passed on to the runner, reported and ends the instance."""
    job = Job(github, step="sleep 120")
    job.configure(instance)
    process = instance.start()
    reports: list[RunnerReport] = []

    def has_started() -> bool:
        reports.extend(aws.reports())
        return bool(reports)

    wait_for(has_started)
    process.send_signal(signal.SIGTERM)
    assert instance.finish(30) == 0, instance.output
    reports.extend(aws.reports())
    assert [r.status for r in reports] == [ReportStatus.STARTED, ReportStatus.INTERRUPTED]
    assert job.record.conclusion == "cancelled"
    assert aws.state(instance.id) == "terminated"


def test_a_spot_notice_cancels_the_job_and_ends_the_instance(
    aws: Aws, github: BackgroundStandIn, instance: Instance
) -> None:
    """A notice of the metadata service during the job: cancelled, reported with its reason."""
    job = Job(github, step="sleep 120")
    job.configure(instance)
    instance.start()
    reports: list[RunnerReport] = []

    def has_started() -> bool:
        reports.extend(aws.reports())
        return bool(reports)

    wait_for(has_started)
    at = datetime.now(UTC) + timedelta(seconds=120)
    instance.imds.spot = json.dumps({"action": "terminate", "time": f"{at:%Y-%m-%dT%H:%M:%SZ}"})
    assert instance.finish(30) == 0, instance.output
    reports.extend(aws.reports())
    assert [r.status for r in reports] == [ReportStatus.STARTED, ReportStatus.INTERRUPTED]
    assert "a spot interruption (terminate at" in reports[-1].error
    assert job.record.conclusion == "cancelled"
    assert aws.state(instance.id) == "terminated"


def test_a_baked_runner_starts_its_job_soon(
    aws: Aws, github: BackgroundStandIn, instance: Instance
) -> None:
    """With the runner in the image nothing is fetched; the step before it takes under a second."""
    bake(instance, github)
    job = Job(github)
    job.configure(instance, package_url="http://127.0.0.1:9/nowhere")
    assert instance.finish() == 0, instance.output
    assert aws.reports()[-1].status is ReportStatus.SUCCESS
    assert any(line.get("source") == "baked" for line in instance.log)


def test_a_report_that_the_queue_refuses_is_kept(
    aws: Aws, github: BackgroundStandIn, instance: Instance
) -> None:
    """With the queue gone the report is in the bucket, the log and on disk; the instance ends."""
    job = Job(github)
    job.configure(instance)
    instance.environ["RUNSFLEET_TERMINATION_QUEUE_URL"] += "-gone"
    assert instance.finish(90) == 0, instance.output
    key = f"reports/{ROLE}:{instance.id}.json"
    kept = aws.s3.get_object(Bucket=aws.bucket, Key=key)["Body"].read().decode()
    report = RunnerReport.from_json(kept)
    assert (report.status, report.job_id) == (ReportStatus.SUCCESS, job.record.id)
    assert (instance.home / "reports" / f"{instance.id}.json").read_text() == kept
    (messages,) = aws.streams(instance.id).values()
    told = [json.loads(m) for m in messages]
    assert kept in [line.get("report") for line in told]
    assert aws.state(instance.id) == "terminated"


def test_a_log_group_that_is_gone_costs_nothing(
    aws: Aws, github: BackgroundStandIn, instance: Instance
) -> None:
    """A log service that refuses everything does not keep the job from its success."""
    job = Job(github)
    job.configure(instance)
    instance.environ["RUNSFLEET_LOG_GROUP"] = "no-such-group"
    assert instance.finish(60) == 0, instance.output
    assert aws.reports()[-1].status is ReportStatus.SUCCESS
    assert any(line["message"] == "log not complete at the log service" for line in instance.log)
    assert aws.state(instance.id) == "terminated"


def test_a_job_over_its_time_is_ended(
    aws: Aws, github: BackgroundStandIn, instance: Instance
) -> None:
    """A job that runs longer than it may is cancelled, reported as timeout, and costs no more."""
    job = Job(github, step="sleep 120")
    job.configure(instance, max_runtime_seconds=1)
    assert instance.finish(40) == 0, instance.output
    assert {r.status for r in aws.reports()} == {ReportStatus.STARTED, ReportStatus.TIMEOUT}
    assert aws.state(instance.id) == "terminated"


def test_an_instance_without_a_configuration_ends(aws: Aws, instance: Instance) -> None:
    """Nothing to run within the time given: reported, terminated."""
    assert instance.finish(40) == 0, instance.output
    (report,) = aws.reports()
    assert report.status is ReportStatus.BOOTSTRAP_FAILED
    assert f"no configuration for {instance.id} within 5 s" in report.error
    assert aws.state(instance.id) == "terminated"


def test_another_instances_configuration_is_refused(
    aws: Aws, github: BackgroundStandIn, instance: Instance
) -> None:
    """A configuration with another instance's id in it is not run."""
    job = Job(github)
    config = job.configure(instance)
    aws.dynamodb.put_item(
        TableName=aws.table,
        Item={
            RunnerAttr.KEY: {"S": instance_key(ROLE, instance.id)},
            RunnerAttr.CONFIG: {"S": config.to_json().replace(instance.id, "i-0fffffffffffffff0")},
        },
    )
    assert instance.finish() == 0, instance.output
    (report,) = aws.reports()
    assert report.status is ReportStatus.BOOTSTRAP_FAILED
    assert job.record.status == "queued"
    assert aws.state(instance.id) == "terminated"


def test_an_instance_that_ec2_does_not_end_shuts_itself_down(
    aws: Aws, package: Path, tmp_path: Path
) -> None:
    """When TerminateInstances is refused the system is shut down by the command on PATH."""
    with imds_server("i-0dead0dead0dead00") as imds:
        instance = Instance(aws, imds, tmp_path / "home", package)
        assert instance.finish() == 0, instance.output
    assert instance.shutdowns.read_text() == "-h now\n"
    assert aws.reports()[-1].status is ReportStatus.BOOTSTRAP_FAILED


def test_an_agent_that_cannot_even_log_shuts_the_system_down(instance: Instance) -> None:
    """Nothing comes before the guard, a wrong log level neither."""
    instance.environ["RUNSFLEET_LOG_LEVEL"] = "LOUD"
    assert instance.finish() == 1
    assert instance.shutdowns.read_text() == "-h now\n"


def test_an_agent_without_its_variables_shuts_the_system_down(instance: Instance) -> None:
    """A malformed environment is told in one line, and the instance ends."""
    instance.environ = {k: v for k, v in instance.environ.items() if not k.startswith("RUNSFLEET_")}
    assert instance.finish() == 1
    assert "RUNSFLEET_TERMINATION_QUEUE_URL is not set" in instance.log[-1]["error"]
    assert instance.shutdowns.read_text() == "-h now\n"


def test_a_broken_package_shuts_the_system_down(instance: Instance, tmp_path: Path) -> None:
    """An agent that cannot even import what it needs ends the instance."""
    package = Path(instance.environ["PYTHONPATH"])
    broken = tmp_path / "broken"
    for file in (package / "runsfleet_runtime").rglob("*.py"):
        target = broken / file.relative_to(package)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    (broken / "runsfleet_runtime" / "agent" / "composition.py").write_text("import no_such_module")
    instance.environ["PYTHONPATH"] = str(broken)
    assert instance.finish() == 1
    assert instance.shutdowns.read_text() == "-h now\n"
