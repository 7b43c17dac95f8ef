"""A fresh process until its first event is answered, against one that only sends a message.

The baseline imports boto3, makes an SQS client and sends one message. The other side imports a
handler and lets it answer one event, with all requests that this takes: the webhook reads its
secret and sends, dispatch claims, launches, registers a runner at GitHub and records, termination
closes a job. Both sides talk to the same server on this machine, run on the same interpreter
without ``site`` (a function has no ``.pth`` files either), and find compiled bytecode.

The agent counts from its start until it asks for its configuration; it runs from its unpacked
package and gets its credentials from the metadata service.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import (
    BYTECODE,
    PYTHONPATH,
    ROOT,
    BenchmarkError,
    Sample,
    environment,
    in_turns,
    median_and_quartiles,
    run_process,
)
from benchmarks.report import Row
from benchmarks.stand_in import INSTANCE_ID, StandIn

ROUNDS = 15
BUDGETS = {"webhook": 1.3, "dispatch": 2.0, "termination": 2.0, "agent": 2.0}
BASELINE = "boto3 SQS client, one message"

_WEBHOOK = "webhook"
_SECRET = "it is not one"  # noqa: S105  signs what this script sends to itself
_QUEUE = "https://sqs.us-east-1.amazonaws.com/111111111111/jobs.fifo"

_SEND_A_MESSAGE = f"""
import os, sys
sys.path[:0] = sys.argv[1].split(os.pathsep)
import boto3
client = boto3.client("sqs")
client.send_message(
    QueueUrl="{_QUEUE}", MessageBody="{{}}", MessageGroupId="1", MessageDeduplicationId="1"
)
os._exit(0)
"""
_ANSWER_AN_EVENT = """
import os, sys
sys.path[:0] = sys.argv[1].split(os.pathsep)
import importlib, json
handler = importlib.import_module(f"runsfleet_runtime.handlers.{sys.argv[2]}").handler
with open(sys.argv[3]) as file:
    event = json.load(file)

class Context:
    def get_remaining_time_in_millis(self):
        return 60_000

answer = handler(event, Context())
if answer not in ({"batchItemFailures": []},) and answer.get("statusCode") != 202:
    sys.exit(f"unexpected answer: {answer}")
sys.stdout.flush()
os._exit(0)
"""


def run(rounds: int | None = None) -> list[Row]:
    """Measure."""
    secrets = {_WEBHOOK: _SECRET, "app": json.dumps({"app_id": 1, "private_key": _private_key()})}
    with (
        tempfile.TemporaryDirectory(prefix="runsfleet-bench-") as name,
        StandIn(secrets).running() as stand_in,
    ):
        folder = Path(name)
        sides: dict[str, Callable[[], Sample]] = {
            BASELINE: _python(_script(folder, "send", _SEND_A_MESSAGE), [], _aws(stand_in)),
        }
        answer = _script(folder, "answer", _ANSWER_AN_EVENT)
        for handler, (event, variables) in _events(stand_in).items():
            file = folder / f"{handler}.json"
            file.write_text(json.dumps(event))
            sides[handler] = _python(answer, [handler, str(file)], _aws(stand_in) | variables)
        sides["agent"] = _agent(folder, stand_in)
        samples = in_turns(sides, rounds or ROUNDS, title="cold_start")
    return [_row(name, samples[name], samples[BASELINE]) for name in BUDGETS]


def _row(name: str, mine: list[Sample], base: list[Sample]) -> Row:
    ratio, spread = median_and_quartiles([a.wall / b.wall for a, b in zip(mine, base, strict=True)])
    cpu, _ = median_and_quartiles([a.cpu / b.cpu for a, b in zip(mine, base, strict=True)])
    milliseconds = 1000 * median(sample.wall for sample in mine)
    baseline = 1000 * median(sample.wall for sample in base)
    until = "until it asks for its configuration" if name == "agent" else "until it answered"
    return Row(
        what=f"{name} {until}",
        figure=f"{milliseconds:.0f} ms (CPU {cpu:.2f}x)",
        against=f"{BASELINE}: {baseline:.0f} ms",
        ratio=ratio,
        spread=spread,
        budget=BUDGETS[name],
    )


def _script(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text(text)
    return path


def _python(
    script: Path, arguments: list[str], variables: Mapping[str, str]
) -> Callable[[], Sample]:
    places = os.pathsep.join([str(ROOT / "runtime"), sysconfig.get_path("purelib")])
    # -I ignores PYTHON* variables, so that the bytecode is used and written whatever they say
    options = ["-I", "-S", "-X", f"pycache_prefix={BYTECODE}"]
    command = [sys.executable, *options, str(script), places, *arguments]
    return lambda: run_process(command, env=environment(**variables))


def _aws(stand_in: StandIn) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": stand_in.url,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }


def _events(stand_in: StandIn) -> dict[str, tuple[dict[str, Any], dict[str, str]]]:
    """Return for each handler its first event and its environment."""
    from runsfleet_runtime.contract.environment import (
        DispatchEnvironment,
        LaunchTarget,
        RunnerLevel,
        TerminationEnvironment,
        WebhookEnvironment,
    )
    from runsfleet_runtime.contract.messages import JobMessage, ReportStatus, RunnerReport

    label = "runs-fleet=1/runner=4cpu-linux-arm64"
    job = JobMessage(
        job_id=1,
        run_id=1,
        run_attempt=1,
        repository="octo/repo",
        labels=(label,),
        queued_at=time.time(),
        installation_id=1,
    )
    report = RunnerReport(
        instance_id=INSTANCE_ID, job_id=1, run_id=1, status=ReportStatus.SUCCESS, ran_job=True
    )
    common: dict[str, Any] = {
        "fleet": "bench",
        "jobs_table": "jobs",
        "instances_table": "instances",
        "runners_table": "runners",
        "jobs_queue_url": _QUEUE,
        "slots_table": "slots",
        "instance_role_id": "AROAEXAMPLE",
        "runner_level": RunnerLevel.ORGANIZATION,
        "github_app_secret": "secretsmanager:app",
        "github_api_url": stand_in.url,
    }
    targets = tuple(
        LaunchTarget(
            platform=platform,
            launch_template_id="lt-1",
            launch_template_version="1",
            root_device="/dev/sda1",
        )
        for platform in ("linux-arm64", "linux-x64")
    )
    webhook = WebhookEnvironment(
        fleet="bench",
        webhook_secret=f"secretsmanager:{_WEBHOOK}",
        jobs_queue_url=_QUEUE,
        events_queue_url=_QUEUE,
    )
    dispatch = DispatchEnvironment(
        **common,
        launch_targets=targets,
        subnet_ids=("subnet-1",),
        circuit_table="circuit",
        audit_table="audit",
    )
    termination = TerminationEnvironment(**common, events_queue_url=_QUEUE)
    return {
        "webhook": (_delivery(label), webhook.to_environ()),
        "dispatch": (_batch(job.to_json()), dispatch.to_environ()),
        "termination": (_batch(report.to_json()), termination.to_environ()),
    }


def _delivery(label: str) -> dict[str, Any]:
    """Return a signed ``workflow_job`` delivery as the HTTP API hands it over."""
    steps = [
        {"name": f"step {number}", "status": "queued", "number": number} for number in range(60)
    ]
    payload = {
        "action": "queued",
        "workflow_job": {
            "id": 1,
            "run_id": 1,
            "run_attempt": 1,
            "labels": [label],
            "name": "build",
            "workflow_name": "ci",
            "created_at": "2026-01-01T00:00:00Z",
            "steps": steps,
        },
        "repository": {"full_name": "octo/repo", "owner": {"type": "Organization"}},
        "organization": {"login": "octo"},
        "installation": {"id": 1},
    }
    body = json.dumps(payload)
    digest = hmac.new(_SECRET.encode(), body.encode(), hashlib.sha256).hexdigest()
    headers = {
        "content-type": "application/json",
        "x-github-event": "workflow_job",
        "x-github-delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "x-hub-signature-256": f"sha256={digest}",
    }
    return {"version": "2.0", "headers": headers, "body": body, "isBase64Encoded": False}


def _batch(body: str) -> dict[str, Any]:
    return {"Records": [{"messageId": "1", "receiptHandle": "1", "body": body}]}


def _private_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    return pem.decode()


def agent_package() -> str:
    """Return the path of the agent's package, built if need be."""
    # elsewhere, since the constructs would bring all of the CDK and its node process in here
    code = (
        "from runsfleet_constructs.bundling.agent import build_agent_package as build;"
        "print(build().path)"
    )
    variables = environment(
        PYTHONPATH=PYTHONPATH, JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION="20"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BenchmarkError(f"the agent's package was not built: {done.stderr.strip()[-1500:]}")
    return done.stdout.strip()


def _agent(folder: Path, stand_in: StandIn) -> Callable[[], Sample]:
    from runsfleet_runtime.contract.environment import AgentEnvironment

    home = folder / "home"
    with zipfile.ZipFile(agent_package()) as archive:
        archive.extractall(home / "agent")
    # an agent that fails ends its machine, which is this one
    tools = folder / "bin"
    tools.mkdir()
    for name in ("shutdown", "poweroff"):
        (tools / name).write_text("#!/bin/sh\n")
        (tools / name).chmod(0o755)
    settings = AgentEnvironment(
        fleet="bench",
        platform="linux-arm64",
        region="us-east-1",
        termination_queue_url=_QUEUE,
        instance_role_id="AROAEXAMPLE",
        runners_table="runners",
        home=str(home),
    )
    variables = environment(
        **settings.to_environ(),
        PATH=str(tools),
        PYTHONPATH=str(home / "agent"),
        AWS_ENDPOINT_URL=stand_in.url,
        AWS_EC2_METADATA_SERVICE_ENDPOINT=stand_in.url,
    )
    command = [sys.executable, "-S", "-m", "runsfleet_runtime.agent"]

    def measure() -> Sample:
        begun = time.perf_counter()
        process = subprocess.Popen(
            command, env=variables, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            asked = stand_in.wait_for("GetItem", since=begun, seconds=60)
        except TimeoutError as error:
            raise BenchmarkError(f"the agent asked for no configuration: {error}") from error
        finally:
            process.send_signal(signal.SIGKILL)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            assert process.stdout is not None
            process.stdout.close()
        return Sample(asked - begun, usage.ru_utime + usage.ru_stime)

    return measure
