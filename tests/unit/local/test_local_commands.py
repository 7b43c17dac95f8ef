"""Counting, judging and finding: what the commands do beside talking to a cloud."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from runsfleet_cli.local import drive as driving
from runsfleet_cli.local.cloud import Place, free_port_of, place_of
from runsfleet_cli.local.drive import Drive, DriveError, drive
from runsfleet_cli.local.launcher import LaunchError, bring_down, check_requirements
from runsfleet_cli.local.snapshot import PublishedMetrics
from runsfleet_cli.local.state import Endpoints, read_state, remove_state, state_file, write_state
from runsfleet_cli.local.synth import AppSource, SynthRequest, assembly_key, find_app
from runsfleet_cli.local.usage import caller_of, usage_of
from runsfleet_cli.main import app
from runsfleet_runtime.version import __version__

ENDPOINTS = Endpoints(
    pid=os.getpid(),
    aws="http://127.0.0.1:1",
    access_key="test",
    secret_key="test",
    account="123456789012",
    region="us-east-1",
    webhook="http://127.0.0.1:1/webhook",
    webhook_secret="s",
    github="http://127.0.0.1:1",
    github_control="http://127.0.0.1:1/_control",
    page="http://127.0.0.1:1",
    environment="dev",
    fleet="dev",
    strict=False,
    ca_bundle=None,
    tables={},
    queues={},
    outputs={},
    directory="/nowhere",
    started_at=0.0,
)


def job(name: str = "build", **changed: Any) -> dict[str, Any]:
    """A job that was served."""
    story = {
        "at": {"queued": 1.0, "webhook": 1.1, "enqueued": 1.1, "launched": 2.0, "closed": 9.0},
        "instances": ["i-1"],
        "instance_id": "i-1",
        "outcome": "success",
        **changed.pop("story", {}),
    }
    return {
        "job_id": 1,
        "run_id": 7,
        "name": name,
        "repository": "octo-org/hello",
        "labels": ["runs-fleet=7/cpu=2"],
        "status": "completed",
        "conclusion": "success",
        "story": story,
        **changed,
    }


class FakeCloud:
    """A cloud whose state is what a test says."""

    def __init__(self, *jobs: Mapping[str, Any], **changed: Any) -> None:
        self.endpoints = ENDPOINTS
        self.runs = 0
        self._state = {
            "time": 1_000.0,
            "sequence": 3,
            "jobs": list(jobs),
            "instances": [{"instance_id": "i-1", "state": "terminated", "launched_at": 1_000.0}],
            "queues": {"jobs": {"waiting": 0, "in_flight": 0, "delayed": 0}},
            **changed,
        }

    def state(self) -> dict[str, Any]:
        return self._state

    def timeline(self, since: int, wait: float = 0.0) -> list[dict[str, Any]]:
        time.sleep(min(wait, 0.05))
        return []

    def aws_calls(self, **query: Any) -> list[dict[str, Any]]:
        return []

    def github(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        if path == "runs":
            self.runs += 1
            return {"runs": [{"id": 7, "jobs": [1, 2, 3, 4]}]}
        return {"requests": []}


def judged(cloud: FakeCloud, **changed: Any) -> tuple[str, ...]:
    """The problems of a run."""
    what = Drive(workflow=Path("x.yml"), timeout=changed.pop("timeout", 0.2), **changed)
    return drive(cloud, what).problems  # type: ignore[arg-type]  # a fake


def test_a_run_in_which_all_was_served_has_no_problem() -> None:
    """Completed, closed, terminated, empty."""
    assert judged(FakeCloud(job()), timeout=5) == ()


def test_a_red_job_is_no_lost_job() -> None:
    """Its steps are its author's business."""
    assert judged(FakeCloud(job(conclusion="failure")), timeout=5) == ()


def test_a_skipped_job_needs_no_instance() -> None:
    """It was never launched."""
    skipped = job(conclusion="skipped", story={"at": {}, "instances": [], "instance_id": ""})
    assert judged(FakeCloud(skipped), timeout=5) == ()


@pytest.mark.parametrize(
    ("cloud", "problem"),
    [
        (
            FakeCloud(job(status="queued", conclusion=None, story={"at": {"claimed": 3.0}})),
            "job build was lost: queued at GitHub, last seen claimed, after 0.2 s",
        ),
        (
            FakeCloud(job(story={"at": {"launched": 2.0}})),
            "job build ended, but its record was not closed",
        ),
        (
            FakeCloud(
                job(
                    status="queued",
                    conclusion=None,
                    story={"at": {"webhook": 2.0}, "webhook_status": 503, "webhook_answer": "no"},
                )
            ),
            "job build was not taken on: its webhook was answered 503, no",
        ),
        (
            FakeCloud(job(status="queued", conclusion=None, story={"given_up": "waited 25 hours"})),
            "job build was given up: waited 25 hours",
        ),
        (
            FakeCloud(
                job(),
                instances=[{"instance_id": "i-2", "state": "running", "launched_at": 1_001.0}],
            ),
            "instance i-2 is still running",
        ),
        (
            FakeCloud(
                job(), queues={"jobs_dead_letters": {"waiting": 2, "in_flight": 0, "delayed": 0}}
            ),
            "queue jobs_dead_letters still holds 2 messages",
        ),
    ],
    ids=["lost", "open-record", "refused", "given-up", "instance", "dead-letter"],
)
def test_what_is_wrong_is_named(cloud: FakeCloud, problem: str) -> None:
    """One sentence each."""
    assert judged(cloud) == (problem,)


def test_runs_are_repeated_until_enough_jobs_are_queued() -> None:
    """Twenty jobs of a workflow that queues four are five runs."""
    cloud = FakeCloud(job())
    judged(cloud, jobs=20, timeout=5)
    assert cloud.runs == 5


def test_a_drive_needs_something_to_run() -> None:
    """Neither file nor payload is an error of its own."""
    with pytest.raises(DriveError, match="--payload"):
        drive(FakeCloud(), Drive())  # type: ignore[arg-type]  # a fake


def test_calls_are_counted_for_the_fleet_alone() -> None:
    """The operator's and the CLI's are nobody's job; what is asked once is told apart."""

    def call(caller: str, service: str, action: str, outcome: str = "ok") -> dict[str, Any]:
        return {"caller": caller, "service": service, "action": action, "outcome": outcome}

    usage = usage_of(
        [
            call("root", "cloudformation", "CreateStack"),
            call("function:x-FleetIntakeFunction", "sqs", "SendMessage"),
            call("function:x-FleetIntakeFunction", "secretsmanager", "GetSecretValue"),
            call("function:x-FleetDispatchFunction", "ec2", "CreateFleet", "fault"),
            call("instance:i-1", "dynamodb", "GetItem"),
            call("instance:i-2", "dynamodb", "GetItem"),
        ],
        [
            {"method": "POST", "route": "/orgs/{org}/generate", "status": 201},
            {"method": "POST", "route": "/orgs/{org}/generate", "status": 403},
        ],
        jobs=2,
    )
    assert usage.aws_per_job == 2.0
    assert usage.github_per_job == 1.0
    assert {(line.caller, line.action): line.count for line in usage.lines if line.once} == {
        ("webhook", "GetSecretValue"): 1
    }
    failed = {line.action: line.failed for line in usage.lines if line.failed}
    assert failed == {"CreateFleet": 1, "POST /orgs/{org}/generate": 1}
    assert usage_of([], [], jobs=0).aws_per_job is None


def test_callers_are_told_by_what_they_are() -> None:
    """Functions by their construct, instances as one."""
    assert caller_of("function:a-FleetTerminationFunction1") == "termination"
    assert caller_of("function:mine") == "mine"
    assert caller_of("instance:i-1") == "instance"
    assert caller_of("root") is None


def test_state_is_found_while_its_process_lives(tmp_path: Path) -> None:
    """A file of a process that is gone counts as no cloud."""
    file = state_file(tmp_path, {})
    assert file == tmp_path / ".runsfleet" / "local.json"
    assert state_file(tmp_path, {"RUNSFLEET_LOCAL_STATE": "/x"}) == Path("/x/local.json")
    write_state(file, ENDPOINTS)
    assert read_state(file) == ENDPOINTS
    assert file.stat().st_mode & 0o077 == 0
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    gone = Endpoints.from_json(ENDPOINTS.to_json().replace(str(os.getpid()), str(ended.pid)))
    remove_state(file, ended.pid)
    assert file.exists(), "another cloud's state was removed"
    write_state(file, gone)
    assert read_state(file) is None
    assert bring_down(tmp_path) is None
    assert not file.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": "x"}'])
def test_a_broken_state_file_is_no_cloud(tmp_path: Path, text: str) -> None:
    """Nothing is raised for what somebody else wrote there."""
    file = tmp_path / "local.json"
    file.write_text(text)
    assert read_state(file) is None


def test_a_folder_without_our_app_gets_the_built_in_one(tmp_path: Path) -> None:
    """Its own app is taken where there is one."""
    assert not find_app(tmp_path).is_project
    for name in ("cdk.json", "app.py"):
        (tmp_path / name).touch()
    (tmp_path / "environments").mkdir()
    assert find_app(tmp_path).is_project


def test_an_assembly_is_kept_under_all_that_it_is_made_of(tmp_path: Path) -> None:
    """A changed line, context or environment makes another key; a compiled file does not."""
    (tmp_path / "cdk.json").write_text("{}")
    (tmp_path / "app.py").write_text("a")
    (tmp_path / "stacks").mkdir()
    source = AppSource(tmp_path, "python app.py", is_project=True)

    def key(**context: str) -> str:
        return assembly_key(SynthRequest(source, Path("cdk"), context, {}, tmp_path / "cache"))

    first = key(environments="dev")
    assert key(environments="dev") == first
    assert key(environments="prod") != first
    (tmp_path / "stacks" / "__pycache__").mkdir()
    (tmp_path / "stacks" / "__pycache__" / "x.pyc").write_text("x")
    (tmp_path / "README.md").write_text("not part of it")
    assert key(environments="dev") == first
    (tmp_path / "stacks" / "x.py").write_text("x")
    assert key(environments="dev") != first


def test_the_place_is_that_of_the_first_stack(tmp_path: Path) -> None:
    """Nested stages are looked into; an environment that is left open is none."""
    nested = tmp_path / "assembly-dev"
    nested.mkdir()
    stack = {"type": "aws:cloudformation:stack", "environment": "aws://111122223333/eu-west-1"}
    (nested / "manifest.json").write_text(json.dumps({"artifacts": {"s": stack}}))
    stage = {"type": "cdk:cloud-assembly", "properties": {"directoryName": "assembly-dev"}}
    open_one = stack | {"environment": "aws://unknown-account/unknown-region"}
    manifest = {"artifacts": {"open": open_one, "dev": stage}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert place_of(tmp_path) == Place("111122223333", "eu-west-1")


def test_a_taken_port_is_passed_over() -> None:
    """The next of the range is used; any, if all are taken."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port_of(range(port, port + 1)) == 0


def test_embedded_metrics_are_read_as_cloudwatch_does() -> None:
    """Values, lists of values and dimensions; other lines are none."""
    metrics = PublishedMetrics()
    line = {
        "_aws": {
            "Timestamp": 1_000,
            "CloudWatchMetrics": [
                {
                    "Namespace": "RunsFleet",
                    "Dimensions": [["Fleet", "Reason"]],
                    "Metrics": [{"Name": "A", "Unit": "Count"}, {"Name": "B", "Unit": "Seconds"}],
                }
            ],
        },
        "Fleet": "dev",
        "Reason": "event",
        "A": 2,
        "B": [0.5, 1.5],
    }
    metrics.read(json.dumps(line))
    metrics.read("START RequestId")
    metrics.read('{"_aws": 3}')
    found = {series.name: series for series in metrics.series.values()}
    assert [point.value for point in found["A"].points] == [2.0]
    assert [point.value for point in found["B"].points] == [0.5, 1.5]
    assert dict(found["A"].dimensions) == {"Fleet": "dev", "Reason": "event"}


def test_what_is_missing_is_named_with_its_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No Node, and a Node that is too old."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match="install Node 22"):
        check_requirements()
    node = tmp_path / "node"
    node.write_text("#!/bin/sh\necho v16.20.0\n")
    node.chmod(0o755)
    with pytest.raises(LaunchError, match=r"v16\.20\.0 is too old"):
        check_requirements()


def test_the_command_tells_its_version_and_help() -> None:
    """Every command and fault is listed."""
    runner = CliRunner()
    assert runner.invoke(app, ["--version"]).stdout == f"{__version__}\n"
    commands = runner.invoke(app, ["local", "--help"]).stdout
    for name in ("up", "down", "run", "fault", "calls", "page", "status"):
        assert name in commands
    faults = runner.invoke(app, ["local", "fault", "--help"]).stdout
    for name in ("capacity", "throttle", "spot-notice", "crash-agent", "clear"):
        assert name in faults


def test_an_empty_label_is_refused_before_anything_starts() -> None:
    """An empty label would match no runner."""
    arguments = ["local", "run", "examples/workflows/hello.yml", "--label", ""]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "a label must not be empty" in result.output


def test_the_command_starts_without_what_it_does_not_need() -> None:
    """`runsfleet --version` loads neither the CDK nor a web server nor an AWS client."""
    code = (
        "import sys; import runsfleet_cli.main; "
        "print([n for n in ('aws_cdk','aiohttp','botocore','pydantic','jsii') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_longest_wait_is_short_enough_to_see_things_end() -> None:
    """Between two looks at the cloud less than a second passes."""
    assert driving._WAIT_SECONDS < 1
