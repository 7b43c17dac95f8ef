"""The operator's commands against a deployed fleet, on moto."""

from __future__ import annotations

import io
import json
import os
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from typer.testing import CliRunner, Result

from runsfleet_cli.deployed import OperatedEnvironment
from runsfleet_cli.main import app
from runsfleet_runtime.contract.environment import LaunchTarget
from runsfleet_runtime.contract.messages import HousekeepingMessage, HousekeepingTask, JobMessage
from runsfleet_runtime.contract.paths import log_stream, session_document
from runsfleet_runtime.contract.tables import AuditAttr, InstanceAttr, JobAttr, JobIndex, SlotAttr
from runsfleet_runtime.contract.tags import Tag
from runsfleet_runtime.jobs.items import to_attribute

REGION = "eu-central-1"
JOB = 42
FUTURE = 4_000_000_000.0
WRITTEN_AT = float(int(time.time()) - 60)  # CloudWatch takes no lines that are weeks old
GROUP = "dev-instances"
USER_DATA = f"#!/bin/sh\nexport RUNSFLEET_FLEET=dev\nexport RUNSFLEET_LOG_GROUP={GROUP}\n"


class Account:
    """An account with one fleet, ``dev``."""

    def __init__(self) -> None:
        self.dynamodb = boto3.client("dynamodb")
        self.ec2 = boto3.client("ec2")
        self.logs = boto3.client("logs")
        self.sqs = boto3.client("sqs")
        self.ssm = boto3.client("ssm")
        self._lambda = boto3.client("lambda")
        self._role = boto3.client("iam").create_role(
            RoleName="functions", AssumeRolePolicyDocument="{}"
        )["Role"]["Arn"]
        self._tables()
        self.jobs_queue = self._queue("jobs.fifo", FifoQueue="true")
        self.sweeps_queue = self._queue("sweeps")
        template = self.ec2.create_launch_template(
            LaunchTemplateName="dev",
            LaunchTemplateData={"UserData": _base64(USER_DATA), "ImageId": "ami-12345678"},
        )["LaunchTemplate"]["LaunchTemplateId"]
        self.logs.create_log_group(logGroupName=GROUP)
        told = OperatedEnvironment(
            fleet="dev",
            circuit_table="circuits",
            audit_table="audit",
            slots_table="slots",
            jobs_table="jobs",
            instances_table="instances",
            jobs_queue_url=self.jobs_queue,
            launch_targets=(
                LaunchTarget(
                    platform="linux-arm64",
                    launch_template_id=template,
                    launch_template_version="1",
                    root_device="/dev/sda1",
                ),
            ),
            dead_letter_queue_urls=(
                {"queue": self.jobs_queue, "dead_letters": "-"},
                {"queue": self.sweeps_queue, "dead_letters": "-"},
            ),
        ).to_environ()
        # no function knows everything
        of_sweeps = {"RUNSFLEET_DEAD_LETTER_QUEUE_URLS", "RUNSFLEET_JOB_RETENTION_DAYS"}
        self.function("dispatch", {k: v for k, v in told.items() if k not in of_sweeps})
        shared = of_sweeps | {"RUNSFLEET_FLEET", "RUNSFLEET_JOBS_TABLE"}
        self.function("housekeeping", {k: v for k, v in told.items() if k in shared})
        self._lambda.create_event_source_mapping(
            EventSourceArn=self._arn(self.sweeps_queue), FunctionName="housekeeping", Enabled=False
        )

    def function(self, name: str, variables: dict[str, str]) -> None:
        """Deploy a function."""
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as packed:
            packed.writestr("handler.py", "")
        self._lambda.create_function(
            FunctionName=name,
            Runtime="python3.13",
            Role=self._role,
            Handler="handler.handler",
            Code={"ZipFile": code.getvalue()},
            Environment={"Variables": variables},
        )

    def job(self, **values: Any) -> None:
        """Write a record; by default that of a queued job."""
        common: dict[str, Any] = {
            "ID": str(JOB),
            "STATUS": "queued",
            "RUN_ID": 7,
            "RUN_ATTEMPT": 1,
            "REPOSITORY": "acme/web",
            "NAME": "build",
            "WORKFLOW": "ci",
            "LABELS": ["runs-fleet=7/cpu=2"],
            "QUEUED_AT": FUTURE - 86400,
            "DISPATCH": 0,
            "REQUEUES": 0,
            "DEADLINE": FUTURE,
            "UPDATED_AT": 1_700_000_000.0,
        }
        item = {JobAttr[n].value: to_attribute(v) for n, v in (common | values).items()}
        self.dynamodb.put_item(TableName="jobs", Item=item)

    def record(self) -> dict[str, str]:
        """Return the record of the job."""
        key = {JobAttr.ID.value: {"S": str(JOB)}}
        item = self.dynamodb.get_item(TableName="jobs", Key=key)["Item"]
        return {k: str(next(iter(v.values()))) for k, v in item.items()}

    def instance(self, fleet: str = "dev") -> str:
        """Launch an instance of a fleet."""
        (made,) = self.ec2.run_instances(
            ImageId="ami-12345678",
            MinCount=1,
            MaxCount=1,
            TagSpecifications=[
                {
                    "ResourceType": "instance",
                    "Tags": [{"Key": Tag.FLEET.value, "Value": fleet}],
                }
            ],
        )["Instances"]
        return made["InstanceId"]

    def log(self, stream: str, *lines: str) -> None:
        """Write a log."""
        self.logs.create_log_stream(logGroupName=GROUP, logStreamName=stream)
        events = [
            {"timestamp": int(WRITTEN_AT * 1000) + n, "message": m} for n, m in enumerate(lines)
        ]
        self.logs.put_log_events(logGroupName=GROUP, logStreamName=stream, logEvents=events)  # type: ignore[arg-type]

    def audit(self) -> list[dict[str, str]]:
        """Return the audit rows."""
        rows = self.dynamodb.scan(TableName="audit")["Items"]
        return [{k: str(next(iter(v.values()))) for k, v in row.items()} for row in rows]

    def messages(self, url: str) -> list[str]:
        """Take all messages off a queue."""
        answer = self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
        return [message["Body"] for message in answer.get("Messages", [])]

    def _tables(self) -> None:
        tables: dict[str, tuple[list[str], dict[str, list[JobAttr]]]] = {
            "jobs": (
                [JobAttr.ID.value],
                {
                    JobIndex.BY_STATUS.value: [JobAttr.STATUS, JobAttr.UPDATED_AT],
                    JobIndex.BY_INSTANCE.value: [JobAttr.INSTANCE_ID],
                },
            ),
            "audit": ([AuditAttr.SUBJECT.value, AuditAttr.AT.value], {}),
            "slots": ([SlotAttr.SCOPE.value], {}),
            "instances": ([InstanceAttr.ID.value], {}),
        }
        for name, (keys, indexes) in tables.items():
            of_indexes = {a.value for attributes in indexes.values() for a in attributes}
            more: dict[str, Any] = {}
            if indexes:
                more["GlobalSecondaryIndexes"] = [
                    {
                        "IndexName": index,
                        "KeySchema": _schema([a.value for a in attributes]),
                        "Projection": {"ProjectionType": "KEYS_ONLY"},
                    }
                    for index, attributes in indexes.items()
                ]
            self.dynamodb.create_table(
                TableName=name,
                KeySchema=_schema(keys),
                AttributeDefinitions=[
                    {
                        "AttributeName": key,
                        "AttributeType": "N" if key == JobAttr.UPDATED_AT.value else "S",
                    }
                    for key in sorted({*keys, *of_indexes})
                ],
                BillingMode="PAY_PER_REQUEST",
                **more,
            )

    def _queue(self, name: str, **attributes: str) -> str:
        url: str = self.sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]  # type: ignore[arg-type]
        return url

    def _arn(self, url: str) -> str:
        names: Any = ["QueueArn"]
        return self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"][
            "QueueArn"
        ]


def _schema(keys: list[str]) -> Any:
    kinds = ("HASH", "RANGE")
    return [{"AttributeName": key, "KeyType": kind} for key, kind in zip(keys, kinds, strict=False)]


def _base64(text: str) -> str:
    import base64

    return base64.b64encode(text.encode()).decode()


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """An account that the commands reach by the environment alone."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with mock_aws(config={"lambda": {"use_docker": False}}):
        yield Account()


def run(*arguments: str) -> Result:
    """Run a command."""
    return CliRunner().invoke(app, list(arguments))


def done(*arguments: str) -> str:
    """Run a command that must succeed, and return what it prints."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments: str) -> str:
    """Run a command that must fail by a sentence, and return that."""
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("runsfleet: ")
    assert "Traceback" not in result.output
    return result.stderr


def document(*arguments: str) -> dict[str, Any]:
    """Run a command with --json and return what it prints."""
    parsed: dict[str, Any] = json.loads(done(*arguments, "--json"))
    return parsed


# -- jobs ------------------------------------------------------------------------------------------


def test_job_tells_its_story(account: Account) -> None:
    """People get a table, programs the record, its story and what was done to it by hand."""
    account.job(STATUS="launched", INSTANCE_ID="i-0abcdef01", LAUNCHED_AT=FUTURE - 86000)
    shown = done("job", str(JOB))
    assert f"job {JOB}: launched" in shown
    assert "ci / build, acme/web, run 7#1" in shown
    assert "i-0abcdef01" in shown
    told = document("job", str(JOB))
    assert told["record"][JobAttr.INSTANCE_ID.value] == "i-0abcdef01"
    assert [event["what"] for event in told["story"]] == ["queued", "launched", "next"]
    assert told["audit"] == []


@pytest.mark.parametrize("command", ["job", "instance", "logs", "redispatch"])
def test_unknown_job_is_a_sentence(account: Account, command: str) -> None:
    """A job without a record is exit 1, with what that may mean."""
    assert "the fleet dev has no record of job 42: it never got a webhook" in refused(
        command, str(JOB)
    )


def test_jobs_lists_what_waits_and_runs(account: Account) -> None:
    """Ended jobs are listed on demand only; a repository narrows it down."""
    account.job()
    account.job(ID="43", STATUS="running", REPOSITORY="acme/api", INSTANCE_ID="i-0abcdef01")
    account.job(ID="44", STATUS="completed")
    assert [job["job_id"] for job in document("jobs")["jobs"]] == [42, 43]
    assert [j["job_id"] for j in document("jobs", "--status", "completed")["jobs"]] == [44]
    assert [j["job_id"] for j in document("jobs", "--repository", "acme/api")["jobs"]] == [43]
    shown = done("jobs")
    assert "acme/api" in shown
    assert "running" in shown
    assert "no job of acme/none is queued or claimed" in done("jobs", "-r", "acme/none")


def test_jobs_refuses_an_unknown_status(account: Account) -> None:
    """A word that is no status is answered with those that are."""
    assert "--status must be one of queued, claimed" in refused("jobs", "--status", "waiting")


# -- instances -------------------------------------------------------------------------------------


def test_instance_of_a_job_and_job_of_an_instance(account: Account) -> None:
    """Either id finds both."""
    instance_id = account.instance()
    account.job(STATUS="running", INSTANCE_ID=instance_id)
    for of in (str(JOB), instance_id):
        told = document("instance", of)
        assert told["instance"]["instance_id"] == instance_id
        assert told["instance"]["state"] == "running"
        assert told["job"]["job_id"] == JOB
    assert "acme/web" in done("instance", instance_id)


def test_instance_that_ec2_forgot_still_has_its_job(account: Account) -> None:
    """A record outlives its instance at EC2."""
    account.job(STATUS="completed", INSTANCE_ID="i-0123456789abcdef0")
    assert "EC2 does not know it any more" in done("instance", str(JOB))
    assert document("instance", str(JOB))["instance"]["state"] is None


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ("i-0123456789abcdef0", "neither EC2 nor the fleet dev knows the instance"),
        ("build", "is neither a job's id (digits) nor an instance's"),
    ],
)
def test_instance_mistakes(account: Account, of: str, message: str) -> None:
    """What cannot be found is told with the reason."""
    assert message in refused("instance", of)


def test_instance_of_another_fleet_is_refused(account: Account) -> None:
    """Nobody opens a session on somebody else's machine by a slip."""
    assert "is not of the fleet dev" in refused("instance", account.instance("prod"))


# -- sessions --------------------------------------------------------------------------------------


class ReplacedError(Exception):
    """The process was replaced."""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The AWS CLI and its plugin on the path; returns what they are started with."""
    for name in ("aws", "session-manager-plugin"):
        file = tmp_path / name
        file.write_text("#!/bin/sh\n")
        file.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    started: list[list[str]] = []

    def replace(_file: str, arguments: list[str]) -> None:
        started.append(arguments)
        raise ReplacedError

    monkeypatch.setattr(os, "execvp", replace)
    return started


def test_session_is_opened_by_the_fleets_document(account: Account, tools: list[list[str]]) -> None:
    """The session is logged, as it is the fleet's document that opens it, and leaves a row."""
    instance_id = account.instance()
    account.job(STATUS="running", INSTANCE_ID=instance_id)
    account.ssm.create_document(
        Name=session_document("dev"), DocumentType="Session", Content='{"schemaVersion":"1.0"}'
    )
    assert isinstance(run("session", str(JOB)).exception, ReplacedError)
    (started,) = tools
    assert started == [
        *("aws", "ssm", "start-session", "--target", instance_id),
        *("--document-name", session_document("dev"), "--region", REGION),
    ]
    (row,) = account.audit()
    assert row[AuditAttr.SUBJECT.value] == f"instance:{instance_id}"
    assert row[AuditAttr.DETAIL.value] == "of job 42"
    assert row[AuditAttr.ACTOR.value].startswith("arn:aws:")


def test_session_without_a_document_is_refused(account: Account, tools: list[list[str]]) -> None:
    """A session that would not be logged is not opened, and no row says that one was."""
    instance_id = account.instance()
    assert "deploy it again with session_manager" in refused("session", instance_id)
    assert (tools, account.audit()) == ([], [])


def test_session_on_a_stopped_instance_is_refused(account: Account, tools: list[list[str]]) -> None:
    """An instance that ended has a log but no shell."""
    instance_id = account.instance()
    account.ec2.terminate_instances(InstanceIds=[instance_id])
    assert "is terminated; see its job's log" in refused("session", instance_id)


@pytest.mark.parametrize(
    ("there", "missing"),
    [((), "the AWS CLI, which is not"), (("aws",), "Session Manager plugin, which is not")],
)
def test_session_says_how_to_get_what_it_needs(
    account: Account,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: tuple[str, ...],
    missing: str,
) -> None:
    """Both tools are asked for before anything else."""
    for name in there:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    message = refused("session", str(JOB))
    assert missing in message
    assert "https://docs.aws.amazon.com/" in message


def test_session_of_the_local_cloud_is_refused(account: Account) -> None:
    """There is no Session Manager in the local cloud."""
    assert "`runsfleet local page`" in refused("session", "--local", str(JOB))


# -- logs ------------------------------------------------------------------------------------------


def test_logs_of_a_job(account: Account) -> None:
    """The lines of its stream, the diagnostics on demand."""
    account.job(STATUS="running", INSTANCE_ID="i-0b")
    account.log(log_stream("i-0b", JOB), "agent starts", "job starts")
    account.log(f"{log_stream('i-0b', JOB)}/diag", "listener")
    shown = done("logs", str(JOB))
    assert [line.split(" ", 2)[2] for line in shown.splitlines()] == ["agent starts", "job starts"]
    assert "listener" in done("logs", str(JOB), "--diag")
    parsed = [json.loads(line) for line in done("logs", str(JOB), "--json").splitlines()]
    assert parsed[0] == {"stream": "i-0b/42", "at": WRITTEN_AT, "message": "agent starts"}


def test_lines_of_the_agent_are_readable(account: Account) -> None:
    """People see the message and what is its own; programs get the line as it was written."""
    account.job(STATUS="running", INSTANCE_ID="i-0b")
    line = '{"level":"INFO","message":"reported","fleet":"dev","status":"success"}'
    account.log(log_stream("i-0b", JOB), line, '{"no": "message"}', "[1]")
    shown = [text.split(" ", 2)[2] for text in done("logs", str(JOB)).splitlines()]
    assert shown == ["INFO reported status=success", '{"no": "message"}', "[1]"]
    (first, *_) = done("logs", str(JOB), "--json").splitlines()
    assert json.loads(first)["message"] == line


def test_logs_of_former_tries_come_first(account: Account) -> None:
    """A job that was dispatched again has a stream for each instance; others' are left alone."""
    account.job(STATUS="running", INSTANCE_ID="i-0b", REQUEUES=1, QUEUED_AT=1_600_000_000)
    account.log(log_stream("i-0a", JOB), "first")
    account.log(log_stream("i-0b", JOB), "second")
    account.log(log_stream("i-0c", 41), "of another")
    shown = done("logs", str(JOB))
    assert [line.rpartition(" ")[2] for line in shown.splitlines()] == ["first", "second"]


def test_logs_that_are_not_there(account: Account) -> None:
    """No instance yet, and an instance that wrote nothing yet, are told apart."""
    account.job()
    assert "is queued: it has no instance yet" in refused("logs", str(JOB))
    account.job(STATUS="launched", INSTANCE_ID="i-0b")
    assert f"job 42 has no log in {GROUP}" in refused("logs", str(JOB))


# -- what changes something ------------------------------------------------------------------------


def test_sweep_is_asked_for(account: Account) -> None:
    """The message goes to the queue that wakes the housekeeping function, with a row."""
    assert "asked for waiting_jobs" in done("sweep", "waiting_jobs", "--note", "stuck")
    (body,) = account.messages(account.sweeps_queue)
    assert HousekeepingMessage.from_json(body).task is HousekeepingTask.WAITING_JOBS
    (row,) = account.audit()
    assert row[AuditAttr.SUBJECT.value] == "sweep:waiting_jobs"
    assert row[AuditAttr.DETAIL.value] == "stuck"


def test_redispatch_of_a_job_whose_instance_died(account: Account) -> None:
    """Its record becomes claimable, its message is sent and a row tells who wanted it."""
    account.job(STATUS="launched", INSTANCE_ID="i-0b", CAPACITY_TYPE="spot")
    assert "job 42 is dispatched again" in done("redispatch", str(JOB), "--on-demand", "-n", "dead")
    (body,) = account.messages(account.jobs_queue)
    message = JobMessage.from_json(body)
    assert (message.job_id, message.on_demand, message.labels) == (
        JOB,
        True,
        ("runs-fleet=7/cpu=2",),
    )
    record = account.record()
    assert record[JobAttr.STATUS.value] == "queued"
    assert int(record[JobAttr.DISPATCH.value]) == message.dispatch
    (row,) = account.audit()
    assert row[AuditAttr.DETAIL.value] == "it was launched: dead"
    assert document("job", str(JOB))["audit"][0]["action"] == "redispatched"


def test_redispatch_of_a_queued_job_sends_another_message(account: Account) -> None:
    """A job whose message was lost gets one with the next number, so SQS does not swallow it."""
    account.job()
    done("redispatch", str(JOB))
    (body,) = account.messages(account.jobs_queue)
    assert JobMessage.from_json(body).dispatch == 1
    assert [row[AuditAttr.ACTION.value] for row in account.audit()] == ["redispatched"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"STATUS": "running", "INSTANCE_ID": "i-0b"}, "another runner would end idle"),
        ({"STATUS": "completed", "OUTCOME": "success"}, "ended (success); re-run it at GitHub"),
        ({"STATUS": "claimed", "CLAIM_EXPIRES_AT": FUTURE}, "is being dispatched"),
    ],
)
def test_redispatch_in_vain_is_refused(
    account: Account, values: dict[str, Any], message: str
) -> None:
    """Nothing is sent and no row written for a job that others have, or that ended."""
    account.job(**values)
    assert message in refused("redispatch", str(JOB))
    assert account.messages(account.jobs_queue) == []
    assert account.audit() == []


def test_redispatch_by_force(account: Account) -> None:
    """The operator may know better what became of an instance."""
    account.job(STATUS="running", INSTANCE_ID="i-0b")
    done("redispatch", str(JOB), "--force")
    assert len(account.messages(account.jobs_queue)) == 1


def test_redispatch_past_the_deadline_closes_the_job(account: Account) -> None:
    """What GitHub has failed by now is closed, and the operator told so."""
    account.job(STATUS="launched", INSTANCE_ID="i-0b", DEADLINE=1_700_000_000)
    assert "past its deadline" in refused("redispatch", str(JOB))
    assert account.record()[JobAttr.STATUS.value] == "expired"
    assert len(account.audit()) == 1


def test_audit_lists_the_latest_first(account: Account) -> None:
    """Of one subject or of all."""
    assert "has no row" in done("audit")
    done("sweep", "waiting_jobs")
    done("sweep", "old_jobs")
    subjects = [row["subject"] for row in document("audit")["audit"]]
    assert subjects == ["sweep:old_jobs", "sweep:waiting_jobs"]
    assert len(document("audit", "--subject", "sweep:old_jobs")["audit"]) == 1
    assert len(document("audit", "--limit", "1")["audit"]) == 1
    assert "sweep:old_jobs" in done("audit")


def test_fleet_of_another_version_is_told(account: Account) -> None:
    """A fleet whose functions lack what is needed says what to do."""
    account.function(
        "old",
        {
            "RUNSFLEET_FLEET": "old",
            "RUNSFLEET_CIRCUIT_TABLE": "c",
            "RUNSFLEET_AUDIT_TABLE": "a",
        },
    )
    assert "deploy the stack again" in refused("jobs", "--fleet", "old")
