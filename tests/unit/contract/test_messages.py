"""Messages and environments: round trips, and errors that name what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runsfleet_runtime.contract.environment import (
    AgentEnvironment,
    ConfigStore,
    DispatchEnvironment,
    Environment,
    EventsEnvironment,
    HousekeepingEnvironment,
    LaunchTarget,
    MalformedEnvironmentError,
    OfferedImage,
    RunnerLevel,
    SubnetZone,
    TerminationEnvironment,
    WebhookEnvironment,
)
from runsfleet_runtime.contract.messages import (
    ContractError,
    JobMessage,
    ReportStatus,
    RunnerConfig,
    RunnerReport,
)

JOB = JobMessage(
    job_id=2**40,
    run_id=7,
    run_attempt=1,
    repository="octo-org/hello",
    labels=("runs-fleet=7/cpu=4", " Straße "),
    queued_at=1.5,
)
TARGET = LaunchTarget(
    platform="linux-arm64",
    launch_template_id="lt-1",
    launch_template_version="1",
    root_device="/dev/sda1",
)
DISPATCH = DispatchEnvironment(
    fleet="dev",
    github_app_secret="secretsmanager:app",
    jobs_table="jobs",
    instances_table="instances",
    jobs_queue_url="https://queue",
    instance_role_id="AROA",
    launch_targets=(TARGET,),
    circuit_table="circuit",
    audit_table="audit",
    slots_table="slots",
    max_runners=20,
    subnet_zones=(SubnetZone(subnet_id="subnet-a", availability_zone="eu-central-1a"),),
    subnet_ids=("subnet-a", "subnet-b"),
    label_aliases=({"match": "big", "spec": "cpu=8", "pattern": False},),
    images=(OfferedImage(name="gpu", reference="ami-1"),),
    config_store=ConfigStore.SSM,
    runner_level=RunnerLevel.REPOSITORY,
    spot=False,
)
RECORDS: dict[str, Any] = {
    "fleet": "dev",
    "github_app_secret": "secretsmanager:app",
    "jobs_table": "jobs",
    "instances_table": "instances",
    "jobs_queue_url": "https://queue",
    "events_queue_url": "https://events",
    "instance_role_id": "AROA",
    "slots_table": "slots",
}
ENVIRONMENTS: list[Environment] = [
    DISPATCH,
    WebhookEnvironment(
        fleet="dev",
        webhook_secret="ssm:/hook",
        jobs_queue_url="https://queue",
        events_queue_url="https://events",
    ),
    TerminationEnvironment(**RECORDS),
    EventsEnvironment(**RECORDS, circuit_table="circuit", audit_table="audit"),
    HousekeepingEnvironment(
        **RECORDS,
        leases_table="leases",
        cache_bucket="cache",
        termination_queue_url="https://reports",
        dead_letter_queue_urls=({"queue": "https://queue", "dead_letters": "https://dead"},),
    ),
    AgentEnvironment(
        fleet="dev",
        platform="linux-x64",
        region="eu-central-1",
        termination_queue_url="https://queue",
        instance_role_id="AROA",
    ),
]


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda e: type(e).__name__)
def test_environment_is_read_as_it_was_written(environment: Environment) -> None:
    """What the constructs write is what the function reads."""
    assert type(environment).from_environ(environment.to_environ()) == environment


def test_every_missing_variable_is_named_at_once() -> None:
    """An empty environment names all variables without a default, and the cure."""
    with pytest.raises(MalformedEnvironmentError) as caught:
        DispatchEnvironment.from_environ({})
    required = ["FLEET", "JOBS_TABLE", "JOBS_QUEUE_URL", "LAUNCH_TARGETS", "GITHUB_APP_SECRET"]
    assert all(f"RUNSFLEET_{name} is not set" in str(caught.value) for name in required)
    assert "deploy the stack again" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SPOT", "flase"),
        ("SPOT", "False"),
        ("MAX_CPU", "many"),
        ("RUNNER_LEVEL", "enterprise"),
        ("LAUNCH_TARGETS", "{"),
        ("LAUNCH_TARGETS", '[{"platform":"x"}]'),
        ("SUBNET_IDS", "subnet-a"),
        ("CONFIG_STORE", "redis"),
    ],
)
def test_malformed_variable_is_refused_by_name(name: str, value: str) -> None:
    """A wrong value is an error that names its variable, never a default."""
    environ = DISPATCH.to_environ() | {f"RUNSFLEET_{name}": value}
    with pytest.raises(MalformedEnvironmentError, match=f"RUNSFLEET_{name} is malformed"):
        DispatchEnvironment.from_environ(environ)


@given(
    st.builds(
        JobMessage,
        job_id=st.integers(1),
        run_id=st.integers(1),
        run_attempt=st.integers(1),
        repository=st.text(),
        labels=st.lists(st.text()).map(tuple),
        queued_at=st.floats(0, 2e9),
    )
)
def test_job_round_trips(job: JobMessage) -> None:
    """A job comes out of the queue as it went in, labels byte for byte."""
    assert JobMessage.from_json(job.to_json()) == job


def test_again_is_another_message_of_the_same_group() -> None:
    """A requeue is not swallowed by the queue's deduplication, and keeps its group."""
    again = JOB.again(not_before=9.0, on_demand=True)
    assert again.deduplication_id != JOB.deduplication_id
    # what dispatch handed back in the same minutes is another message
    assert replace(again, requeues=1).deduplication_id != again.deduplication_id
    assert again.group_id == JOB.group_id
    assert replace(again, dispatch=0, not_before=0.0, on_demand=False) == JOB


@pytest.mark.parametrize("body", ["", "[]", "null", "{", '"x"'])
def test_text_that_is_no_object_is_refused(body: str) -> None:
    """Junk on a queue is a ContractError, not a crash."""
    with pytest.raises(ContractError):
        JobMessage.from_json(body)


def test_missing_and_mistyped_keys_are_named() -> None:
    """The error tells which key is missing or wrong."""
    body = json.loads(JOB.to_json())
    del body["run_id"], body["labels"]
    with pytest.raises(ContractError, match=r"lacks run_id, labels"):
        JobMessage.from_json(json.dumps(body))
    for key, value in [("job_id", "1"), ("job_id", True), ("labels", "x"), ("labels", [1])]:
        with pytest.raises(ContractError, match=key):
            JobMessage.from_json(json.dumps(json.loads(JOB.to_json()) | {key: value}))


def test_newer_fields_are_ignored_and_newer_versions_refused() -> None:
    """A writer may add fields before every reader is deployed; a new version needs new readers."""
    body = json.loads(JOB.to_json())
    assert JobMessage.from_json(json.dumps(body | {"colour": "blue"})) == JOB
    with pytest.raises(ContractError, match="deploy the reader first"):
        JobMessage.from_json(json.dumps(body | {"version": 2}))


def test_report_round_trips_with_its_status() -> None:
    """A report's status is one of the vocabulary or the report is refused."""
    report = RunnerReport(instance_id="i-1", job_id=1, status=ReportStatus.TIMEOUT, exit_code=137)
    assert RunnerReport.from_json(report.to_json()) == report
    with pytest.raises(ContractError, match="status"):
        RunnerReport.from_json(report.to_json().replace("timeout", "exploded"))


def test_secrets_are_not_in_the_text_of_a_configuration() -> None:
    """A configuration in a log line or traceback shows neither of its secrets."""
    config = RunnerConfig(
        instance_id="i-1",
        job_id=1,
        run_id=1,
        repository="o/r",
        server_url="https://github.com",
        runner_url="https://github.com/o",
        runner_name="runsfleet-i-1",
        labels=("l",),
        jit_config="SECRET-JIT",
        registration_token="SECRET-TOKEN",
    )
    assert "SECRET" not in repr(config)
    assert RunnerConfig.from_json(config.to_json()) == config


def test_message_nested_without_end_is_refused_like_any_other() -> None:
    """Whatever an instance sends is one bad message, and no crash of the batch that it came in."""
    with pytest.raises(ContractError, match="is not valid JSON"):
        RunnerReport.from_json("[" * 100_000)
