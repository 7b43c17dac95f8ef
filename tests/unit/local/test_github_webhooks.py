"""Webhooks of the GitHub stand-in: form, signature, delivery log, redelivery, recorded payloads."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from runsfleet_cli.local.github import BackgroundStandIn
from runsfleet_cli.local.github.world import Conclusion
from runsfleet_cli.local.jobs.payload import PayloadError, read_payloads
from runsfleet_cli.local.jobs.plan import read_workflow
from tests.unit.local.github_api import Received, Receiver, app_jwt, control, fetch, receiver, until

OCTOKIT = Path(__file__).parents[3] / "node_modules" / "@octokit"
EXAMPLES = OCTOKIT / "webhooks-examples" / "api.github.com" / "index.json"
SECRET = "it is a secret"
WORKFLOW = """
name: CI
on: push
jobs:
  build:
    runs-on: "runs-fleet=${{ github.run_id }}/runner=2cpu-linux-arm64"
    steps: [{run: "true"}]
"""


@pytest.fixture
def inbox() -> Iterator[Receiver]:
    """Answer a webhook receiver."""
    with receiver() as state:
        yield state


@pytest.fixture
def github(inbox: Receiver) -> Iterator[BackgroundStandIn]:
    """Answer a stand-in whose webhooks go to the receiver."""
    with BackgroundStandIn() as stand_in:
        stand_in.stand_in.set_webhook(inbox.url, SECRET)
        yield stand_in


@pytest.fixture(scope="session")
def validator() -> jsonschema.Draft7Validator:
    """Answer a validator of GitHub's published schema of `workflow_job`."""
    schema = json.loads((OCTOKIT / "webhooks-schemas" / "schema.json").read_text(encoding="utf-8"))
    return jsonschema.Draft7Validator(
        {"$ref": "#/definitions/workflow_job_event", "definitions": schema["definitions"]}
    )


def live_through(github: BackgroundStandIn, *, repository: str = "octo-org/hello") -> None:
    """Queue a job and take it through its whole life."""
    stand_in = github.stand_in

    def act() -> None:
        run = stand_in.queue_workflow(read_workflow(WORKFLOW), repository=repository)
        (job,) = run.latest()
        owner, name = repository.split("/")
        scope = f"repos/{owner}/{name}"
        registry = stand_in.services.registry
        runner = registry.add(scope, "one", job.labels, 1, ephemeral=True, jit=True)
        stand_in.lifecycle.start(job, runner)
        stand_in.lifecycle.complete(job, Conclusion.SUCCESS)

    github.call(act)
    github.run(stand_in.webhooks.settled())


def by_action(inbox: Receiver) -> dict[str, Received]:
    """Answer what arrived by its action."""
    return {entry.json["action"]: entry for entry in inbox.received}


@pytest.mark.parametrize("repository", ["octo-org/hello", "octocat/hello"])
def test_each_change_sends_a_webhook_that_fits_githubs_schema(
    github: BackgroundStandIn,
    inbox: Receiver,
    validator: jsonschema.Draft7Validator,
    repository: str,
) -> None:
    """A job's life sends queued, in_progress and completed, each valid and fully attributed."""
    live_through(github, repository=repository)
    arrived = by_action(inbox)
    assert set(arrived) == {"queued", "in_progress", "completed"}
    for entry in arrived.values():
        validator.validate(entry.json)
        assert entry.json["installation"]["id"] == github.stand_in.installation_of(repository).id
        assert entry.json["repository"]["full_name"] == repository
        assert ("organization" in entry.json) is repository.startswith("octo-org/")
    assert arrived["queued"].json["workflow_job"]["runner_id"] is None
    assert arrived["in_progress"].json["workflow_job"]["runner_name"] == "one"
    assert arrived["completed"].json["workflow_job"]["conclusion"] == "success"
    assert arrived["queued"].json["workflow_job"]["id"] > 2**31


def test_the_body_is_signed_over_its_bytes(github: BackgroundStandIn, inbox: Receiver) -> None:
    """The signature is the HMAC-SHA256 of the raw body, beside GitHub's other headers."""
    live_through(github)
    for entry in inbox.received:
        digest = hmac.new(SECRET.encode(), entry.body, hashlib.sha256).hexdigest()
        assert entry.headers["X-Hub-Signature-256"] == f"sha256={digest}"
        assert entry.headers["X-GitHub-Event"] == "workflow_job"
        assert entry.headers["User-Agent"].startswith("GitHub-Hookshot/")
        assert re.fullmatch(r"[0-9a-f-]{36}", entry.headers["X-GitHub-Delivery"])
        assert entry.headers["Content-Type"] == "application/json"


def deliveries(github: BackgroundStandIn, query: str = "") -> list[dict[str, Any]]:
    """List deliveries over the API."""
    url = f"{github.url}/app/hook/deliveries{query}"
    found: list[dict[str, Any]] = fetch("GET", url, token=app_jwt(github)).json
    return found


def test_deliveries_and_their_answers_are_kept(github: BackgroundStandIn, inbox: Receiver) -> None:
    """The log is newest first, with ids beyond 2^53, and tells request and response."""
    live_through(github)
    found = deliveries(github)
    assert [entry["status"] for entry in found] == ["OK"] * 3
    assert [entry["id"] for entry in found] == sorted((e["id"] for e in found), reverse=True)
    assert all(entry["id"] > 2**53 for entry in found)
    assert found[0]["delivered_at"].endswith("Z")
    url = f"{github.url}/app/hook/deliveries/{found[0]['id']}"
    detail = fetch("GET", url, token=app_jwt(github)).json
    assert detail["response"]["payload"] == "noted"
    assert detail["request"]["payload"]["action"] == found[0]["action"]
    assert detail["status_code"] == inbox.status


def test_a_failed_delivery_is_never_repeated_by_itself(
    github: BackgroundStandIn, inbox: Receiver
) -> None:
    """A 500 is kept as a failure; only a redelivery repeats it, under the same guid."""
    inbox.status = 500
    live_through(github)
    (failed, *_), count = deliveries(github, "?status=failure"), len(inbox.received)
    assert (failed["status"], failed["status_code"]) == ("Invalid HTTP Response: 500", 500)
    assert not until(lambda: len(inbox.received) > count, seconds=0.3)
    inbox.status = 202
    url = f"{github.url}/app/hook/deliveries/{failed['id']}/attempts"
    assert fetch("POST", url, token=app_jwt(github)).status == 202
    github.run(github.stand_in.webhooks.settled())
    newest = deliveries(github)[0]
    assert newest["guid"] == failed["guid"]
    assert newest["id"] != failed["id"]
    assert (newest["redelivery"], newest["status"]) == (True, "OK")
    first, again = (e for e in inbox.received if e.headers["X-GitHub-Delivery"] == failed["guid"])
    assert first.body == again.body
    assert first.headers["X-Hub-Signature-256"] == again.headers["X-Hub-Signature-256"]


def test_deliveries_page_by_cursor(github: BackgroundStandIn) -> None:
    """`Link` leads with an opaque cursor through every delivery, each once."""
    for _ in range(3):
        control(github, "POST", "/deliveries", {"payload": {"action": "queued"}})
    url: str | None = f"{github.url}/app/hook/deliveries?per_page=2"
    seen: list[int] = []
    while url is not None:
        answer = fetch("GET", url, token=app_jwt(github))
        seen += [entry["id"] for entry in answer.json]
        link = answer.headers.get("link", "")
        assert "cursor=v1_" in link or not link
        url = link.split(";")[0].strip("<>") if link else None
    assert len(seen) == len(set(seen)) == 3
    wrong = fetch("GET", f"{github.url}/app/hook/deliveries?cursor=no", token=app_jwt(github))
    assert wrong.status == 422


def test_a_slow_receiver_times_out(inbox: Receiver) -> None:
    """A receiver that takes too long is a failed delivery, although it got the bytes."""
    inbox.delay = 0.5
    with BackgroundStandIn(webhook_timeout=0.1) as github:
        github.stand_in.set_webhook(inbox.url, SECRET)
        body = {"payload": {"action": "queued"}}
        answer = control(github, "POST", "/deliveries", body)
        assert (answer["status"], answer["status_code"]) == ("timed out", 504)
        assert until(lambda: len(inbox.received) == 1)


def test_a_refused_connection_is_kept(github: BackgroundStandIn) -> None:
    """When nobody listens the delivery says so."""
    github.stand_in.set_webhook("http://127.0.0.1:9/webhook", SECRET)
    answer = control(github, "POST", "/deliveries", {"payload": {"action": "queued"}})
    assert answer["status"] == "failed to connect to host"


@pytest.mark.parametrize(
    ("signature", "expected"),
    [("wrong", r"sha256=[0-9a-f]{64}"), (None, None), ("sha1=abc", r"sha1=abc")],
)
def test_anything_can_be_delivered(
    github: BackgroundStandIn, inbox: Receiver, signature: str | None, expected: str | None
) -> None:
    """The control API sends any body, signed, wrongly signed or unsigned."""
    sent = {"event": "ping", "body": "not json", "signature": signature, "guid": "g-1"}
    control(github, "POST", "/deliveries", sent)
    (entry,) = inbox.received
    assert entry.body == b"not json"
    assert entry.headers["X-GitHub-Event"] == "ping"
    assert entry.headers["X-GitHub-Delivery"] == "g-1"
    if expected is None:
        assert "x-hub-signature-256" not in entry.headers
    else:
        value = entry.headers["X-Hub-Signature-256"]
        assert re.fullmatch(expected, value)
        good = hmac.new(SECRET.encode(), entry.body, hashlib.sha256).hexdigest()
        assert value != f"sha256={good}"


def test_a_name_under_localhost_is_this_machine(github: BackgroundStandIn, inbox: Receiver) -> None:
    """A webhook address like that of an emulated HTTP API resolves to the loopback interface."""
    port = inbox.url.rsplit(":", 1)[1]
    github.stand_in.set_webhook(f"http://abc123.execute-api.localhost:{port}", SECRET)
    answer = control(github, "POST", "/deliveries", {"payload": {"action": "queued"}})
    assert answer["status"] == "OK"
    assert inbox.received[0].headers["Host"].startswith("abc123.execute-api.localhost")


def test_every_recorded_payload_is_played(github: BackgroundStandIn, inbox: Receiver) -> None:
    """The eight real payloads, of all actions, arrive with this world's installation."""
    played = control(github, "POST", "/payloads", {"file": str(EXAMPLES)})["played"]
    assert len(played) == 8
    assert {entry["action"] for entry in played} == {
        "queued", "waiting", "in_progress", "completed",
    }  # fmt: skip
    assert {entry["status"] for entry in played} == {"OK"}
    known = {entry.id for entry in github.stand_in.world.installations.values()}
    for entry in inbox.received:
        assert entry.json["installation"]["id"] in known
        if (
            "runner_group_name" in entry.json["workflow_job"]
            and "run_attempt" in (entry.json["workflow_job"])
        ):
            assert entry.json["repository"]["full_name"]


def test_a_recorded_queued_payload_becomes_a_job(
    github: BackgroundStandIn, inbox: Receiver
) -> None:
    """Every queued payload makes a job of its id, or of new ids, with the labels asked for."""
    label = "runs-fleet=1/runner=2cpu-linux-arm64"
    sent: dict[str, Any] = {"file": str(EXAMPLES), "actions": ["queued"], "labels": [label]}
    first = control(github, "POST", "/payloads", sent)["played"]
    jobs = [entry["job_id"] for entry in first if entry["job_id"] is not None]
    assert jobs == [289782451, 12877621891]
    assert github.stand_in.job(289782451).labels == (label,)
    again = control(github, "POST", "/payloads", sent | {"fresh_ids": True})["played"]
    fresh = {entry["job_id"] for entry in again}
    assert not fresh & set(jobs)
    bodies = [entry.json["workflow_job"] for entry in inbox.received]
    assert fresh <= {body["id"] for body in bodies}
    # GitHub fails what was queued for a day: a fresh job was not made years ago
    made = {body["created_at"][:4] for body in bodies if body["id"] in fresh}
    assert made == {str(datetime.now(UTC).year)}
    assert all(body["labels"] == [label] for body in bodies)


def test_a_payload_can_go_verbatim_and_into_another_repository(
    github: BackgroundStandIn, inbox: Receiver, tmp_path: Path
) -> None:
    """Verbatim keeps every byte; a repository of ours can take the recorded one's place."""
    (recorded, *_) = read_payloads(EXAMPLES)
    file = tmp_path / "payload.json"
    file.write_bytes(json.dumps(recorded.data, indent=2).encode())
    control(github, "POST", "/payloads", {"file": str(file), "verbatim": True})
    assert inbox.received[0].body == file.read_bytes()
    sent = {"file": str(file), "repository": "octo-org/hello"}
    control(github, "POST", "/payloads", sent)
    assert inbox.received[1].json["repository"]["full_name"] == "octo-org/hello"


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"action": "queued"}', '{"action": "no", "workflow_job": {}}']
)
def test_a_file_without_a_payload_is_refused(tmp_path: Path, content: str) -> None:
    """What is no workflow_job payload is refused with the file's name."""
    file = tmp_path / "payload.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(PayloadError, match="payload"):
        read_payloads(file)
