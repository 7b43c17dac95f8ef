"""From the webhook to the CreateFleet request: the time that our own handlers take, warm.

Real, signed ``workflow_job`` deliveries go one by one, at a steady pace, to the deployed HTTP API
of a local cloud; instances do not boot, so that the processes of agents do not compete with what is
measured.

* webhook part: the duration of the invocation, as its REPORT line in the function's log has it.
* dispatch part: from the claim's write, the first thing that dispatch does with a batch, until the
  request of CreateFleet that this batch's job is in, by the interceptor's record of requests.

Left out are the emulator's HTTP API and its polling of the queue, which are shown beside. For
scale, one bare SendMessage goes through the same interceptor to the same emulator after each
delivery, and a delivery that is refused at once to the same function.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import re
import sys
import time
import urllib.parse
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.cloud import LocalCloud, local_cloud
from benchmarks.measure import BenchmarkError
from benchmarks.report import Row

DELIVERIES = 1000
BUDGETS_MS = {50.0: 50.0, 95.0: 200.0, 99.0: 300.0, 99.9: 1000.0}
PACE_SECONDS = 0.4
"""Between two deliveries: 150 a minute, below GitHub's limit of 180 JIT configurations."""

_WARM_UP = 20
_NEVER_BOOT_SECONDS = 100_000
_FIRST_JOB = 70_000_000_000
_DELIVERY = "00000000-0000-0000-0000-"
_SETTLE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Path:
    """What one job took, in milliseconds."""

    webhook: float
    dispatch: float
    api: float
    queue: float

    @property
    def handlers(self) -> float:
        """Both handlers."""
        return self.webhook + self.dispatch


@dataclass(frozen=True, slots=True)
class Invocation:
    """One invocation of the webhook function, as its log tells it.

    Attributes:
        milliseconds: Its duration.
        status: What it answered with.
        job: The job that it took on; 0 when none.
    """

    milliseconds: float
    status: int
    job: int


def run(rounds: int | None = None) -> list[Row]:
    """Measure; ``rounds`` is the number of deliveries."""
    count = rounds or DELIVERIES
    with local_cloud("--boot-delay", str(_NEVER_BOOT_SECONDS)) as cloud:
        _deliver(cloud, _WARM_UP + count)
        calls = _settled(cloud, _WARM_UP + count)
        invocations = _invocations(cloud)
    jobs = range(_FIRST_JOB + _WARM_UP, _FIRST_JOB + _WARM_UP + count)
    paths = _paths(calls, invocations, jobs)
    if len(paths) < count:
        raise BenchmarkError(f"only {len(paths)} of {count} jobs reached CreateFleet")
    bare = [1000 * c["duration"] for c in calls if _is_bare(c)][_WARM_UP:]
    rows = [
        _row(f"both handlers, p{percentile:g}", [p.handlers for p in paths], bare, percentile)
        for percentile in BUDGETS_MS
    ]
    refused = [i.milliseconds for i in invocations if i.status == http.HTTPStatus.UNAUTHORIZED]
    parts = {
        "webhook part": [p.webhook for p in paths],
        "dispatch part": [p.dispatch for p in paths],
        "a delivery refused at once": refused[_WARM_UP:],
        "left out, HTTP API": [p.api for p in paths],
        "left out, queue and polling": [p.queue for p in paths],
    }
    for what, values in parts.items():
        shown = ", ".join(f"p{p:g} {_percentile(values, p):.1f}" for p in BUDGETS_MS)
        rows.append(Row(what=f"  {what}", figure=f"{shown} ms"))
    return rows


def _row(what: str, values: Sequence[float], bare: Sequence[float], percentile: float) -> Row:
    mine, base = _percentile(values, percentile), _percentile(bare, percentile)
    return Row(
        what=what,
        figure=f"{mine:.1f} ms",
        against=f"bare SendMessage, {base:.1f} ms",
        ratio=mine / base,
        judged=mine,
        budget=BUDGETS_MS[percentile],
        unit="ms",
    )


def _percentile(values: Sequence[float], percentile: float) -> float:
    """Return the smallest value that so many per cent of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * percentile // 100) - 1)]


# -- sending ---------------------------------------------------------------------------------------


def _deliver(cloud: LocalCloud, count: int) -> None:
    """Send deliveries at the pace.

    After each a bare message is sent and a delivery without a signature, which the function refuses
    before it does anything: all three are measured under the same conditions.
    """
    webhook = urllib.parse.urlsplit(cloud.endpoints["webhook"])
    gateway = urllib.parse.urlsplit(cloud.endpoints["aws"])
    connection = http.client.HTTPConnection(gateway.hostname or "", gateway.port, timeout=60)
    host = {"Host": webhook.netloc}
    sqs = cloud.client("sqs")
    bare_queue = sqs.create_queue(QueueName=_BARE_QUEUE)["QueueUrl"]
    begun = time.monotonic()
    for number in range(count):
        if sys.stderr.isatty() and number % 10 == 0:
            sys.stderr.write(f"\r\033[Klatency: delivery {number} of {count}")
        body = _payload(_FIRST_JOB + number)
        headers = host | _headers(body, cloud.endpoints["webhook_secret"], number)
        status = _post(connection, webhook.path, body, headers)
        if status != http.HTTPStatus.ACCEPTED:
            raise BenchmarkError(f"delivery {number} was answered with {status}")
        sqs.send_message(QueueUrl=bare_queue, MessageBody=body.decode())
        unsigned = host | {"X-GitHub-Event": "workflow_job", "Content-Type": "application/json"}
        _post(connection, webhook.path, body, unsigned)
        time.sleep(max(0.0, begun + (number + 1) * PACE_SECONDS - time.monotonic()))
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    connection.close()


_BARE_QUEUE = "runsfleet-bench"


def _post(
    connection: http.client.HTTPConnection, path: str, body: bytes, headers: Mapping[str, str]
) -> int:
    connection.request("POST", path, body=body, headers=dict(headers))
    answer = connection.getresponse()
    answer.read()
    return answer.status


def _payload(job_id: int) -> bytes:
    return json.dumps(
        {
            "action": "queued",
            "workflow_job": {
                "id": job_id,
                "run_id": job_id,
                "run_attempt": 1,
                "labels": [f"runs-fleet={job_id}/runner=2cpu-linux-arm64"],
                "name": "build",
                "workflow_name": "ci",
                "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "steps": [{"name": f"step {n}", "status": "queued"} for n in range(60)],
            },
            "repository": {"full_name": "octo-org/hello", "owner": {"type": "Organization"}},
            "organization": {"login": "octo-org"},
        }
    ).encode()


def _headers(body: bytes, secret: str, number: int) -> dict[str, str]:
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/json",
        "X-GitHub-Event": "workflow_job",
        "X-GitHub-Delivery": f"{_DELIVERY}{number:012}",
        "X-Hub-Signature-256": f"sha256={digest}",
    }


def _settled(cloud: LocalCloud, count: int) -> list[dict[str, Any]]:
    """Return the record once so many instances were asked for, or nothing more comes."""
    end = time.monotonic() + _SETTLE_SECONDS
    while True:
        calls: list[dict[str, Any]] = cloud.record()["calls"]
        launched = sum(len(_jobs_in(c)) for c in calls if _is_claim(c))
        if launched >= count or time.monotonic() > end:
            time.sleep(2)
            final: list[dict[str, Any]] = cloud.record()["calls"]
            return final
        time.sleep(1)


def _invocations(cloud: LocalCloud) -> list[Invocation]:
    """Read the log of the webhook function, in which each invocation has a stream of its own."""
    lambda_, logs = cloud.client("lambda"), cloud.client("logs")
    (function,) = [
        f for f in lambda_.list_functions()["Functions"] if "Intake" in f["FunctionName"]
    ]
    group = function.get("LoggingConfig", {}).get(
        "LogGroup", f"/aws/lambda/{function['FunctionName']}"
    )
    streams: defaultdict[str, str] = defaultdict(str)
    pages = logs.get_paginator("filter_log_events")
    begun, ended = int(cloud.endpoints["started_at"] * 1000), int(time.time() * 1000)
    # minute by minute: the emulator gives 10,000 events and never tells that there are more
    for start in range(begun, ended, 60_000):
        window = {"startTime": start, "endTime": start + 59_999}
        for page in pages.paginate(logGroupName=group, **window):
            for event in page["events"]:
                streams[event["logStreamName"]] += event["message"] + "\n"
    found = []
    for text in streams.values():
        duration = re.search(r"^REPORT .*?\tDuration: ([0-9.]+) ms", text, re.MULTILINE)
        status = re.search(r'"status":(\d+)', text)
        if duration and status:
            number = re.search(rf'"delivery_id":"{_DELIVERY}(\d+)"', text)
            job = _FIRST_JOB + int(number[1]) if number else 0
            found.append(Invocation(float(duration[1]), int(status[1]), job))
    return found


# -- reading the record ----------------------------------------------------------------------------


def _paths(
    calls: Sequence[Mapping[str, Any]], invocations: Iterable[Invocation], jobs: Iterable[int]
) -> list[Path]:
    """Put together each job's way; a job without a CreateFleet is left out."""
    webhooks = {i.job: i for i in invocations}
    deliveries = [c for c in calls if _is_delivery(c, http.HTTPStatus.ACCEPTED)]
    sent = {_jobs_in(c)[0]: c for c in calls if _is_enqueue(c)}
    claims: dict[int, Mapping[str, Any]] = {}
    for call in calls:
        if _is_claim(call):
            claims |= dict.fromkeys(_jobs_in(call), call)
    fleets = [c for c in calls if c["action"] == "CreateFleet"]
    instances = {i: f for f in fleets for i in f["result"].get("instances", ())}
    launched: dict[int, Mapping[str, Any]] = {}
    for call in calls:
        if _is_launch(call):
            for job, instance in _launches_in(call):
                if instance in instances:
                    launched[job] = instances[instance]
    found = []
    for job in jobs:
        if not all(job in part for part in (sent, webhooks, claims, launched)):
            continue
        message, claim, fleet = sent[job], claims[job], launched[job]
        # deliveries go one by one, so the one that this message was sent during is its own
        delivery = max(
            (d for d in deliveries if d["time"] <= message["time"]), key=lambda d: float(d["time"])
        )
        found.append(
            Path(
                webhook=webhooks[job].milliseconds,
                dispatch=1000 * (fleet["time"] - claim["time"]),
                api=1000 * delivery["duration"] - webhooks[job].milliseconds,
                queue=1000 * (claim["time"] - message["time"] - message["duration"]),
            )
        )
    return found


def _is_delivery(call: Mapping[str, Any], status: int) -> bool:
    return bool(call["service"] == "execute-api" and call["status"] == status)


def _is_bare(call: Mapping[str, Any]) -> bool:
    url = str(call["parameters"].get("QueueUrl", ""))
    return call["action"] == "SendMessage" and url.endswith(_BARE_QUEUE)


def _is_enqueue(call: Mapping[str, Any]) -> bool:
    return (
        call["action"] == "SendMessage"
        and str(call["caller"]).startswith("function:")
        and bool(_jobs_in(call))
    )


def _is_claim(call: Mapping[str, Any]) -> bool:
    return call["action"] == "TransactWriteItems" and "claimed_at" in json.dumps(call["parameters"])


def _is_launch(call: Mapping[str, Any]) -> bool:
    return call["action"] == "TransactWriteItems" and "launched_at" in json.dumps(
        call["parameters"]
    )


def _jobs_in(call: Mapping[str, Any]) -> list[int]:
    """Return the jobs that a message or a transaction is about, each once."""
    text = json.dumps(call["parameters"])
    found = re.findall(rf"\b({_FIRST_JOB // 10**9}\d{{9}})\b", text)
    return [int(job) for job in dict.fromkeys(found)]


def _launches_in(call: Mapping[str, Any]) -> list[tuple[int, str]]:
    launches = []
    for item in call["parameters"].get("TransactItems", ()):
        update = json.dumps(item.get("Update", {}))
        jobs = _jobs_in({"parameters": item.get("Update", {})})
        instance = re.search(r"\bi-[0-9a-f]{8,17}\b", update)
        if jobs and instance:
            launches.append((jobs[0], instance[0]))
    return launches
