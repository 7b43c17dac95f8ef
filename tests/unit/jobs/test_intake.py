"""Intake: which delivery becomes a job, and what every other one is answered with."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runsfleet_runtime.contract.environment import RunnerLevel
from runsfleet_runtime.contract.messages import JobEndedMessage, JobMessage, RerunMessage
from runsfleet_runtime.contract.metrics import Metric, MetricDefinition
from runsfleet_runtime.jobs.intake import MAX_BODY_BYTES, Intake
from runsfleet_runtime.labels import LabelSettings
from runsfleet_runtime.secrets import SecretNotFoundError, SecretUnavailableError

SECRET = "it's a secret"
NOW = 1_800_000_000.0


class Queue:
    """A jobs queue that may be down."""

    def __init__(self) -> None:
        self.sent: list[JobMessage] = []
        self.is_up = True

    def send(self, jobs: Sequence[JobMessage]) -> list[bool]:
        if self.is_up:
            self.sent += jobs
        return [self.is_up] * len(jobs)

    def defer(self, receipt_handle: str, seconds: float) -> None:
        raise AssertionError((receipt_handle, seconds))


class Events:
    """An events queue that may be down."""

    def __init__(self) -> None:
        self.sent: list[JobEndedMessage | RerunMessage] = []
        self.is_up = True

    def send(self, message: JobEndedMessage | RerunMessage, *, delay: float = 0) -> bool:
        assert delay == 0
        if self.is_up:
            self.sent.append(message)
        return self.is_up

    def defer(self, receipt_handle: str, seconds: float) -> None:
        raise AssertionError((receipt_handle, seconds))


class Secrets:
    """Holds one secret; ``rotated`` is what a refresh finds."""

    def __init__(self) -> None:
        self.value = SECRET
        self.rotated: str | None = None
        self.error: Exception | None = None

    def read(self, reference: str) -> str:
        assert reference == "secretsmanager:hook"
        if self.error:
            raise self.error
        return self.value

    def refresh(self, reference: str) -> str:
        self.value = self.rotated or self.value
        return self.read(reference)


class Counts:
    """Remembers the metrics."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str | None]] = []

    def add(self, metric: MetricDefinition, value: float = 1, *, kind: str | None = None) -> None:
        assert value == 1
        self.seen.append((metric.name, kind))


class House:
    """An intake with everything around it."""

    def __init__(self, level: RunnerLevel = RunnerLevel.ORGANIZATION) -> None:
        self.queue, self.secrets, self.counts = Queue(), Secrets(), Counts()
        self.events = Events()
        self.intake = Intake(
            labels=LabelSettings(region="eu-central-1", environment="dev"),
            runner_level=level,
            secret="secretsmanager:hook",
            secrets=self.secrets,
            queue=self.queue,
            events=self.events,
            metrics=self.counts,
            clock=lambda: NOW,
        )

    def post(self, body: bytes, **headers: str) -> int:
        digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        sent = {
            "x-github-event": "workflow_job",
            "x-github-delivery": "d-1",
            "x-hub-signature-256": f"sha256={digest}",
        }
        sent.update({k.replace("_", "-"): v for k, v in headers.items()})
        return self.intake.receive(sent, body).status


def payload(**changes: Any) -> dict[str, Any]:
    """Return a payload as GitHub sends it, with changes to its job or its top level."""
    body: dict[str, Any] = {
        "action": "queued",
        "workflow_job": {
            "id": 30_000_000_001,
            "run_id": 7,
            "run_attempt": 2,
            "name": "build",
            "workflow_name": "ci",
            "labels": ["runs-fleet=7/runner=2cpu-linux-arm64"],
            "created_at": "2027-01-15T08:00:00Z",
        },
        "repository": {
            "full_name": "octo-org/hello",
            "owner": {"login": "octo-org", "type": "Organization"},
        },
        "installation": {"id": 99},
    }
    for key, value in changes.items():
        (body if key in body else body["workflow_job"])[key] = value
    return body


def encode(body: object) -> bytes:
    """Return the raw body."""
    return json.dumps(body).encode()


def test_queued_job_is_enqueued_with_everything_that_dispatch_needs() -> None:
    """A queued job of ours goes on the queue, labels byte for byte, and is answered with 202."""
    house = House()
    assert house.post(encode(payload())) == 202
    assert house.queue.sent == [
        JobMessage(
            job_id=30_000_000_001,
            run_id=7,
            run_attempt=2,
            repository="octo-org/hello",
            labels=("runs-fleet=7/runner=2cpu-linux-arm64",),
            queued_at=NOW,
            installation_id=99,
            workflow_name="ci",
            job_name="build",
            delivery_id="d-1",
        )
    ]
    assert house.counts.seen == [(Metric.JOBS_QUEUED.name, None)]


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "sha256=",
        "sha256=" + "0" * 64,
        "sha1=aa",
        "0" * 64,
        "sha256=\N{SNOWMAN}",
        "sha256=\udce9",
    ],
)
def test_wrong_signature_is_refused_without_side_effect(signature: str) -> None:
    """A missing, malformed or wrong signature gets 401 and nothing is enqueued."""
    house = House()
    assert house.post(encode(payload()), x_hub_signature_256=signature) == 401
    assert house.queue.sent == []
    assert house.counts.seen == [(Metric.DELIVERIES_REFUSED.name, "signature")]


def test_rotated_secret_is_fetched_once_more() -> None:
    """A delivery signed with a new secret is taken although the old one is still cached."""
    house = House()
    house.secrets.value, house.secrets.rotated = "old", SECRET
    assert house.post(encode(payload())) == 202


def test_absent_secret_is_401_and_unreadable_secret_is_503() -> None:
    """Without a secret nothing is believed; when it cannot be read GitHub shall list a failure."""
    house = House()
    house.secrets.error = SecretNotFoundError("no such secret")
    assert house.post(encode(payload())) == 401
    house.secrets.error = SecretUnavailableError("throttled")
    assert house.post(encode(payload())) == 503
    assert house.queue.sent == []


def test_queue_that_is_down_is_503() -> None:
    """When the enqueue fails the delivery fails, so that it can be delivered again."""
    house = House()
    house.queue.is_up = False
    assert house.post(encode(payload())) == 503
    assert house.counts.seen == [(Metric.ENQUEUE_FAILURES.name, None)]
    house.queue.is_up = True
    assert house.post(encode(payload())) == 202


def test_large_body_is_413() -> None:
    """A body over 1 MB is refused before it is hashed or parsed."""
    house = House()
    assert house.post(b" " * (MAX_BODY_BYTES + 1)) == 413
    assert house.counts.seen == [(Metric.DELIVERIES_REFUSED.name, "body_too_large")]


@pytest.mark.parametrize("event", ["ping", "push", "workflow_run", ""])
def test_other_events_are_2xx_and_nothing_else(event: str) -> None:
    """Another event is answered with 200, so that the delivery log shows no failure."""
    house = House()
    assert house.post(b"{}", x_github_event=event) == 200
    assert house.queue.sent == []


@pytest.mark.parametrize("action", ["in_progress", "waiting", None, 7])
def test_other_actions_are_2xx_and_nothing_else(action: object) -> None:
    """Only queued jobs want a runner."""
    house = House()
    assert house.post(encode(payload(action=action))) == 200
    assert (house.queue.sent, house.events.sent) == ([], [])


def completed(conclusion: str, runner_name: str | None, **changes: Any) -> bytes:
    """Return the delivery of a job's end."""
    body = payload(action="completed", **changes)
    body["workflow_job"] |= {"conclusion": conclusion, "runner_name": runner_name}
    return encode(body)


@pytest.mark.parametrize(
    ("conclusion", "runner_name"),
    [
        ("cancelled", None),
        ("skipped", ""),
        ("failure", None),
        ("success", "somebody-elses"),
        ("failure", "runsfleet-i-1"),
        ("cancelled", "runsfleet-i-1"),
    ],
)
def test_end_that_matters_goes_to_the_events_queue(
    conclusion: str, runner_name: str | None
) -> None:
    """A job that no runner of ours had, or that broke off on one, is told to the events function.

    Nothing is launched for it.
    """
    house = House()
    assert house.post(completed(conclusion, runner_name)) == 202
    assert house.events.sent == [
        JobEndedMessage(
            job_id=30_000_000_001,
            run_id=7,
            run_attempt=2,
            repository="octo-org/hello",
            labels=("runs-fleet=7/runner=2cpu-linux-arm64",),
            conclusion=conclusion,
            installation_id=99,
            runner_name=runner_name or "",
            delivery_id="d-1",
        )
    ]
    assert house.queue.sent == []
    assert house.counts.seen == [(Metric.JOB_ENDS_QUEUED.name, None)]


@pytest.mark.parametrize("conclusion", ["success", "neutral", "timed_out"])
def test_end_that_its_instance_tells_is_ignored(conclusion: str) -> None:
    """Every job ends: what ran on a runner of ours to its end costs the webhook no message."""
    house = House()
    assert house.post(completed(conclusion, "runsfleet-i-1")) == 200
    assert house.events.sent == []
    assert house.counts.seen == [(Metric.DELIVERIES_IGNORED.name, "action")]


def test_ends_of_jobs_of_others_are_ignored() -> None:
    """A cancelled job whose labels are not ours is none of our business."""
    house = House()
    assert house.post(completed("cancelled", None, labels=["ubuntu-latest"])) == 200
    assert house.events.sent == []
    assert house.counts.seen == [(Metric.DELIVERIES_IGNORED.name, "not_ours")]


def test_end_that_could_not_be_queued_is_5xx() -> None:
    """The delivery must be listed as failed at GitHub, so that it is delivered again."""
    house = House()
    house.events.is_up = False
    assert house.post(completed("cancelled", None)) == 503
    assert house.counts.seen == [(Metric.ENQUEUE_FAILURES.name, None)]
    house.events.is_up = True
    assert house.post(completed("cancelled", None)) == 202


def test_null_workflow_job_is_2xx() -> None:
    """A valid delivery with a null job is no reason to crash."""
    assert House().post(encode(payload(workflow_job=None))) == 200


@pytest.mark.parametrize("labels", [[], ["ubuntu-latest"], ["self-hosted", "gpu"]])
def test_jobs_of_others_are_2xx_and_not_launched_for(labels: list[str]) -> None:
    """Empty labels and labels of others launch nothing and count as not ours."""
    house = House()
    assert house.post(encode(payload(labels=labels))) == 200
    assert house.queue.sent == []
    assert house.counts.seen == [(Metric.DELIVERIES_IGNORED.name, "not_ours")]


@pytest.mark.parametrize(
    "label",
    [
        "runs-fleet=7/cpu=0",
        "runs-fleet=7/cpu=99999999999999999999",
        "runs-fleet=7/spot=flase",
        "runs-fleet=7/colour=blue",
        "runs-fleet=7/runner=2cpu-windows-arm64",
    ],
)
def test_labels_that_cannot_be_served_are_refused_with_the_reason(label: str) -> None:
    """A label of ours with a fault gets 2xx, a metric and its reason, and launches nothing."""
    house = House()
    assert house.post(encode(payload(labels=[label]))) == 200
    assert house.queue.sent == []
    assert house.counts.seen == [(Metric.JOBS_REFUSED.name, None)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"payload=%7B%7D",
        b"[" * 50_000,
        encode(payload(id="7")),
        encode(payload(id=True)),
        encode(payload(run_id=-1)),
        encode(payload(labels="runs-fleet")),
        encode(payload(labels=[1])),
        encode(payload(labels=["runs-fleet"] * 101)),
        encode(payload(repository=None)),
        encode(payload(repository={"full_name": "no-owner"})),
        encode(payload(repository={"full_name": "a/b/c"})),
        encode(payload(workflow_job=[1])),
    ],
)
def test_malformed_payload_is_400(body: bytes) -> None:
    """A signed body that is no workflow_job payload gets 400 and no side effect."""
    house = House()
    assert house.post(body) == 400
    assert house.queue.sent == []
    assert house.counts.seen == [(Metric.DELIVERIES_REFUSED.name, "malformed")]


def test_every_fault_of_a_payload_is_told_at_once() -> None:
    """The reason names each missing part, not only the first."""
    house = House()
    body = encode(payload(id=None, run_id=0, labels=None))
    digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    answer = house.intake.receive(
        {"x-github-event": "workflow_job", "x-hub-signature-256": f"sha256={digest}"}, body
    )
    assert all(part in answer.reason for part in ("job.id", "job.run_id", "job.labels"))


def test_user_owned_repository_needs_repository_level() -> None:
    """Runners of organisations never serve a user's repository; repository-level ones do."""
    owner = {"full_name": "octocat/hello", "owner": {"login": "octocat", "type": "User"}}
    organization, repository = House(), House(RunnerLevel.REPOSITORY)
    assert organization.post(encode(payload(repository=owner))) == 200
    assert organization.queue.sent == []
    assert repository.post(encode(payload(repository=owner))) == 202


@pytest.mark.parametrize("created_at", ["2027-01-12T08:00:00Z", "2027-02-15T08:00:00Z", "soon"])
def test_job_that_waited_for_an_approval_has_its_whole_day(created_at: str) -> None:
    """A job is created long before its approval; its 24 hours begin when GitHub queues it."""
    house = House()
    assert house.post(encode(payload(created_at=created_at))) == 202
    assert house.queue.sent[0].queued_at == NOW


def test_answer_names_the_job(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line that tells what became of a delivery can be found by the job's id."""
    house = House()
    with caplog.at_level("INFO", logger="runsfleet"):
        monkeypatch.setattr(logging.getLogger("runsfleet"), "propagate", True)
        house.post(encode(payload()))
    told = {vars(r).get("job_id") for r in caplog.records if r.name == "runsfleet.webhook"}
    assert told == {30_000_000_001}


def test_same_delivery_twice_is_the_same_message() -> None:
    """A redelivery makes the same deduplication id, so that the queue keeps one message."""
    house = House()
    house.post(encode(payload()))
    house.post(encode(payload()))
    first, second = house.queue.sent
    assert first.deduplication_id == second.deduplication_id


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_no_job_value_crashes_the_intake(value: object) -> None:
    """Whatever stands in a field of the job, the answer is 2xx or 400."""
    for key in ("id", "run_id", "run_attempt", "labels", "created_at", "name", "workflow_job"):
        assert House().post(encode(payload(**{key: value}))) in {200, 202, 400}
