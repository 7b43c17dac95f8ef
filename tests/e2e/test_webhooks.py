"""What the deployed endpoint makes of GitHub's own webhooks, and of what only looks like them."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import urllib3

from runsfleet_cli.local.drive import Drive, drive

if TYPE_CHECKING:
    from tests.e2e.clouds import Cloud

EXAMPLES = (
    Path(__file__).resolve().parents[2]
    / "node_modules/@octokit/webhooks-examples/api.github.com/index.json"
)
LABEL = "runs-fleet=1/runner=2cpu-linux-arm64"
LARGE = 1_048_577


def post(cloud: Cloud, body: bytes, headers: dict[str, str]) -> int:
    """Send something to the deployed webhook; returns the status."""
    parts = urlsplit(cloud.running.endpoints.webhook)
    url = f"{parts.scheme}://127.0.0.1:{parts.port}{parts.path}"
    answer = urllib3.request(
        "POST", url, body=body, headers={"Host": parts.netloc, **headers}, timeout=30
    )
    return answer.status


def signed(cloud: Cloud, body: bytes, event: str = "workflow_job") -> dict[str, str]:
    """The headers that GitHub would send."""
    secret = cloud.running.endpoints.webhook_secret.encode()
    return {
        "Content-Type": "application/json",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "X-Hub-Signature-256": "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest(),
    }


def queued(**job: Any) -> bytes:
    """A queued job's webhook."""
    return json.dumps(
        {
            "action": "queued",
            "workflow_job": {
                "id": 41,
                "run_id": 42,
                "run_attempt": 1,
                "status": "queued",
                "labels": [LABEL],
                "created_at": "2026-11-20T11:00:00Z",
                **job,
            },
            "repository": {
                "full_name": "octo-org/hello",
                "owner": {"login": "octo-org", "type": "Organization"},
            },
            "organization": {"login": "octo-org"},
            "installation": {"id": 1},
        }
    ).encode()


def enqueued_since(cloud: Cloud, sequence: int) -> list[dict[str, Any]]:
    """Which jobs the functions queued after a call; that a job ended is told to another queue."""
    sent = cloud.calls(since=sequence, service="sqs", action="SendMessage*", caller="function:*")
    return [call for call in sent if call["parameters"]["QueueUrl"].endswith(".fifo")]


def answered(cloud: Cloud, job_id: int) -> dict[str, Any]:
    """The delivery of a job's `queued` webhook, once it was answered."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for one in cloud.client.github("GET", "deliveries?detail=1")["deliveries"]:
            about = one["request"]["payload"].get("workflow_job") or {}
            queued_one = one["action"] == "queued" and about.get("id") == job_id
            if queued_one and one["status"] != "PENDING":
                found: dict[str, Any] = one
                return found
        time.sleep(0.1)
    pytest.fail(f"the webhook of job {job_id} was never answered")


def test_githubs_own_examples_of_every_action_are_answered(cloud: Cloud) -> None:
    """All eight recorded payloads get a 2xx as they are; none is ours, so nothing is queued."""
    before = cloud.last_call()
    played = cloud.client.github("POST", "payloads", {"file": str(EXAMPLES), "verbatim": True})
    answers = [(entry["action"], entry["status_code"]) for entry in played["played"]]
    assert len(answers) == 8
    assert {action for action, _ in answers} == {"queued", "waiting", "in_progress", "completed"}
    assert all(200 <= status < 300 for _, status in answers), answers
    assert not enqueued_since(cloud, before)


def test_githubs_own_queued_examples_run_when_their_label_is_ours(cloud: Cloud) -> None:
    """The same payloads with a label of the fleet become jobs that end."""
    what = Drive(payload=EXAMPLES, labels=(LABEL,), repository="octo-org/hello", timeout=120)
    outcome = drive(cloud.client, what)
    assert outcome.ok, outcome.problems
    assert len(outcome.played) == 8
    assert len(outcome.jobs) == 2
    assert {job["conclusion"] for job in outcome.jobs} == {"success"}


def test_a_users_repository_is_refused_with_a_reason(cloud: Cloud) -> None:
    """Runners of an organization cannot serve it: nothing is launched, and the answer says why."""
    before = cloud.last_call()
    what = Drive(payload=EXAMPLES, labels=(LABEL,), repository="octocat/hello", timeout=60)
    outcome = drive(cloud.client, what)
    assert not outcome.ok
    assert all("octocat/hello belongs to a user" in problem for problem in outcome.problems)
    assert not enqueued_since(cloud, before)


@pytest.mark.parametrize("signature", ["wrong", None, "sha256=", "sha1=abc", "0" * 64])
def test_a_bad_signature_is_refused_without_a_side_effect(
    cloud: Cloud, signature: str | None
) -> None:
    """4xx, and nothing on any queue."""
    before = cloud.last_call()
    body = {"event": "workflow_job", "body": queued().decode(), "signature": signature}
    delivery = cloud.client.github("POST", "deliveries", body)
    assert 400 <= delivery["status_code"] < 500
    assert not enqueued_since(cloud, before)


@pytest.mark.parametrize(
    ("body", "event", "statuses"),
    [
        (b"{not json", "workflow_job", range(400, 500)),
        (b'{"action": "queued", "workflow_job": null}', "workflow_job", range(200, 500)),
        (b"[]", "workflow_job", range(200, 500)),
        (b'{"zen": "Design for failure."}', "ping", range(200, 300)),
        (queued(labels=[]), "workflow_job", range(200, 300)),
        (queued(labels=["ubuntu-latest"]), "workflow_job", range(200, 300)),
        (queued(labels=["runs-fleet=1/speed=9"]), "workflow_job", range(200, 300)),
        (queued(labels=["runs-fleet=1/cpu=999999999999"]), "workflow_job", range(200, 300)),
        (b" " * LARGE, "workflow_job", range(400, 500)),
    ],
    ids=["json", "null", "list", "ping", "no-label", "others", "key", "absurd", "large"],
)
def test_what_asks_for_nothing_gets_nothing(
    cloud: Cloud, body: bytes, event: str, statuses: range
) -> None:
    """Signed rightly and still no job of ours: the right status and no side effect."""
    before = cloud.last_call()
    assert post(cloud, body, signed(cloud, body, event)) in statuses
    assert not enqueued_since(cloud, before)


def test_a_queue_that_refuses_makes_the_delivery_fail(cloud: Cloud) -> None:
    """5xx, so that GitHub shows the delivery as failed; its redelivery then is taken on."""
    with cloud.fault(effect="error", code="InternalError", service="sqs", action="SendMessage*"):
        run = cloud.client.github(
            "POST", "runs", {"file": str(Path("examples/workflows/hello.yml").absolute())}
        )["runs"][0]
        failed = answered(cloud, run["jobs"][0]["id"])
        assert failed["status_code"] == 503
    again = cloud.client.github("POST", f"deliveries/{failed['id']}/redeliver", {})
    assert again["status_code"] // 100 == 2
    done = cloud.client.github("GET", f"wait?run={run['id']}&timeout=60")
    assert done["done"]


def test_the_same_delivery_twice_is_one_launch(cloud: Cloud) -> None:
    """A redelivered webhook of a job that runs already launches nothing more."""
    outcome = cloud.run("hello.yml")
    assert outcome.ok, outcome.problems
    job_id = outcome.jobs[0]["job_id"]
    first = answered(cloud, job_id)
    before = cloud.last_call()
    again = cloud.client.github("POST", f"deliveries/{first['id']}/redeliver", {})
    assert again["status_code"] // 100 == 2
    follow_up = cloud.run("hello.yml")
    assert follow_up.ok, follow_up.problems
    launches = cloud.calls(since=before, service="ec2", action="CreateFleet")
    launched = [one for call in launches for one in call["result"].get("instances", [])]
    assert len(launched) == 1
