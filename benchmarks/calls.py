"""AWS and GitHub calls for each cold job, counted from the local cloud's record of requests.

Dispatch is held back until all jobs are on the queue, so that it gets them in batches of ten.
Everything else runs as always: real webhooks, the deployed functions, a real agent for each job.
Counted is what functions and agents ask for; not what the operator, the CDK and the hypervisor do.

Three kinds of calls are told apart. What the budget is about: each job's own calls. What a warm
function asks once, or once an hour, and what no further job repeats: secrets, GitHub's token, the
list of runner packages, the first upload into the package cache. And what moves bytes from the
instance's side instead of controlling anything: its two packages from S3 (none with a baked image)
and its log, whose batches grow with what a job prints.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.cloud import LocalCloud, local_cloud
from benchmarks.measure import ROOT, BenchmarkError
from benchmarks.report import Row

JOBS = 20
"""Two batches of the most that a FIFO queue hands over at once."""
AWS_BUDGET = 6.0
GITHUB_BUDGET = 1.0

_QUEUED_SECONDS = 120
_BYTES = {"s3": "packages from S3", "logs": "log of the job"}


def run(rounds: int | None = None) -> list[Row]:
    """Measure; ``rounds`` is the number of jobs."""
    jobs = rounds or JOBS
    with local_cloud() as cloud:
        _run_in_batches(cloud, jobs)
        record = cloud.record()
    lines = record["summary"]["lines"]
    launched = record["summary"]["jobs"]
    if launched != jobs:
        raise BenchmarkError(f"{launched} jobs were launched instead of {jobs}")
    batches = sum(
        line["count"] for line in lines if line["action"] == "CreateFleet" and not line["once"]
    )
    return [
        Row(
            what=f"AWS calls for each of {jobs} jobs",
            figure=f"{_count(lines, jobs, 'control'):.2f}",
            against=f"batches of {jobs / batches:.1f}",
            judged=_count(lines, jobs, "control"),
            budget=AWS_BUDGET,
            unit="calls",
        ),
        *_by_caller(lines, jobs),
        *(
            Row(what=f"  beside them: {what}", figure=f"{_count(lines, jobs, what):.2f}")
            for what in _BYTES.values()
        ),
        Row(
            what="GitHub calls for each job",
            figure=f"{_count(lines, jobs, 'github'):.2f}",
            judged=_count(lines, jobs, "github"),
            budget=GITHUB_BUDGET,
            unit="calls",
        ),
        Row(
            what="asked once, all jobs together",
            figure=str(sum(line["count"] for line in lines if _kind(line) == "once")),
            against="secrets, GitHub token, lists",
        ),
    ]


def _run_in_batches(cloud: LocalCloud, jobs: int) -> None:
    lambda_, sqs = cloud.client("lambda"), cloud.client("sqs")
    queue = cloud.endpoints["queues"]["jobs"]
    name = queue.rpartition("/")[2]
    mappings = lambda_.list_event_source_mappings()["EventSourceMappings"]
    (mapping,) = [m["UUID"] for m in mappings if m["EventSourceArn"].endswith(f":{name}")]
    lambda_.update_event_source_mapping(UUID=mapping, Enabled=False)
    running = cloud.start_jobs(ROOT / "examples" / "workflows" / "hello.yml", jobs)
    try:
        end = time.monotonic() + _QUEUED_SECONDS
        while _waiting(sqs, queue) < jobs:
            if time.monotonic() > end or running.poll() is not None:
                raise BenchmarkError(f"only {_waiting(sqs, queue)} of {jobs} jobs were queued")
            time.sleep(0.2)
    finally:
        lambda_.update_event_source_mapping(UUID=mapping, Enabled=True)
    cloud.finish_jobs(running)


def _waiting(sqs: Any, queue: str) -> int:
    wanted = ["ApproximateNumberOfMessages"]
    answer = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=wanted)
    return int(answer["Attributes"][wanted[0]])


def _kind(line: Mapping[str, Any]) -> str:
    if line["once"] or line["action"] == "PutObject":
        return "once"
    if line["service"] == "github":
        return "github"
    return _BYTES.get(line["service"], "control")


def _count(lines: Iterable[Mapping[str, Any]], jobs: int, kind: str) -> float:
    return sum(int(line["count"]) for line in lines if _kind(line) == kind) / jobs


def _by_caller(lines: Iterable[Mapping[str, Any]], jobs: int) -> list[Row]:
    callers: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for line in lines:
        if _kind(line) == "control":
            callers[line["caller"]][line["action"]] = line["count"]
    order = ["webhook", "dispatch", "instance", "termination"]
    return [
        Row(
            what=f"  {caller}",
            figure=f"{sum(callers[caller].values()) / jobs:.2f}",
            against=", ".join(f"{action} {n}" for action, n in callers[caller].items()),
        )
        for caller in sorted(callers, key=lambda c: (order.index(c) if c in order else 9, c))
    ]
