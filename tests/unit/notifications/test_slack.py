"""Posting to an incoming webhook, over real HTTP to a server of this machine."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from moto import mock_aws

from runsfleet_runtime import composition
from runsfleet_runtime.contract.environment import NotifyEnvironment
from runsfleet_runtime.handlers import notify
from runsfleet_runtime.notifications.model import Notice
from runsfleet_runtime.notifications.notifier import Notifier
from runsfleet_runtime.notifications.slack import NotPostedError, RefusedError, SlackWebhook
from runsfleet_runtime.secrets import SecretReader, SecretStore

SECRET_PATH = "/services/T000/B000/verysecret"


class Slack(ThreadingHTTPServer):
    """A stand-in for Slack: answers as it was told, then by ok."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, dict[str, str], str]] = []
        self.posted: list[tuple[str, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_port}{SECRET_PATH}"


class _Handler(BaseHTTPRequestHandler):
    server: Slack

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append((self.path, json.loads(body)))
        answers = self.server.answers
        status, headers, text = answers.pop(0) if answers else (200, {}, "ok")
        self.send_response(status)
        for name, value in {"Content-Length": str(len(text)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def slack() -> Iterator[Slack]:
    """A Slack that listens."""
    with Slack() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Pauses(list[float]):
    """Waits that are taken note of instead."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def test_message_is_posted_as_json(slack: Slack) -> None:
    """One request, to the path of the webhook."""
    pauses = Pauses()
    SlackWebhook(sleep=pauses).post(slack.url, {"text": "hello"})
    assert slack.posted == [(SECRET_PATH, {"text": "hello"})]
    assert pauses == []


def test_busy_slack_is_asked_again_when_it_says(slack: Slack) -> None:
    """A 429 is waited out as told, a 5xx a little longer each time."""
    slack.answers = [(429, {"Retry-After": "3"}, "slow down"), (503, {}, "")]
    pauses = Pauses()
    SlackWebhook(sleep=pauses).post(slack.url, {"text": "hello"})
    assert len(slack.posted) == 3
    assert pauses == [3.0, 2.0]


def test_three_failures_are_enough(slack: Slack) -> None:
    """The rest is Lambda's, which invokes again later; the last answer is told."""
    slack.answers = [(500, {}, "a"), (500, {"Retry-After": "soon"}, "b"), (502, {}, "c")]
    with pytest.raises(NotPostedError, match="Slack answered 502: c"):
        SlackWebhook(sleep=Pauses()).post(slack.url, {})
    assert len(slack.posted) == 3


def test_long_wait_is_left_to_lambda(slack: Slack) -> None:
    """Nobody pays for a function that sleeps for a minute."""
    slack.answers = [(429, {"Retry-After": "60"}, "rate_limited")]
    pauses = Pauses()
    with pytest.raises(NotPostedError, match="429"):
        SlackWebhook(sleep=pauses).post(slack.url, {})
    assert (len(slack.posted), pauses) == (1, [])


@pytest.mark.parametrize("status", [302, 400, 403, 404, 410])
def test_refused_message_is_not_repeated(slack: Slack, status: int) -> None:
    """A wrong address or message stays wrong; a redirect is not followed."""
    slack.answers = [(status, {"Location": slack.url}, "no_service")]
    with pytest.raises(RefusedError, match=f"{status}: no_service; check the webhook's secret"):
        SlackWebhook(sleep=Pauses()).post(slack.url, {})
    assert len(slack.posted) == 1


def test_unreachable_slack_is_tried_three_times(slack: Slack) -> None:
    """A refused connection is a failure like a busy server."""
    slack.shutdown()
    slack.server_close()
    pauses = Pauses()
    with pytest.raises(NotPostedError, match="not reached"):
        SlackWebhook(sleep=pauses).post(slack.url, {})
    assert len(pauses) == 2


@pytest.mark.parametrize(
    "address",
    ["http://hooks.slack.com/services/verysecret", "verysecret", "", "https://a/very secret"],
)
def test_secret_that_is_no_address_is_told_without_it(address: str) -> None:
    """Whatever was stored by mistake is not shown."""
    with pytest.raises(NotPostedError, match="is no https address") as told:
        SlackWebhook(sleep=Pauses()).post(address, {})
    assert "secret" not in str(told.value).replace("the secret of", "")


def test_address_is_in_no_error_and_no_log(slack: Slack, caplog: pytest.LogCaptureFixture) -> None:
    """Neither refusals nor failures to connect show where was posted to, causes included."""
    slack.answers = [(404, {}, "no_service")]
    with pytest.raises(NotPostedError) as refused:
        SlackWebhook(sleep=Pauses()).post(slack.url, {})
    slack.shutdown()
    slack.server_close()
    with caplog.at_level(logging.DEBUG), pytest.raises(NotPostedError) as failed:
        SlackWebhook(sleep=Pauses()).post(slack.url, {})
    for told in (refused, failed):
        assert told.value.__cause__ is None
        assert told.value.__suppress_context__ or told.value.__context__ is None
        assert "verysecret" not in str(told.value)
    assert "verysecret" not in caplog.text


class Store:
    """A store whose secret can be replaced."""

    def __init__(self, value: str) -> None:
        self.value = value

    def fetch(self, name: str) -> str:
        """Answer the value."""
        return self.value


def test_replaced_address_is_read_anew(slack: Slack) -> None:
    """A revoked address is read again at once, and the message goes to the new one."""
    store, now = Store(slack.url), [1000.0]
    secrets = SecretReader({SecretStore.SSM: store}, clock=lambda: now[0])
    notifier = Notifier(chat=SlackWebhook(sleep=Pauses()), secrets=secrets, webhook="ssm:/slack")
    notifier.tell(Notice("", "first"))
    store.value = f"{slack.url}/new"
    now[0] += 60
    slack.answers = [(404, {}, "no_service")]
    notifier.tell(Notice("", "second"))
    assert [path for path, _ in slack.posted] == [SECRET_PATH, SECRET_PATH, f"{SECRET_PATH}/new"]


def test_revoked_address_fails_the_invocation(slack: Slack) -> None:
    """With no other address the error is raised, so that the event is kept."""
    secrets = SecretReader({SecretStore.SSM: Store(slack.url)})
    notifier = Notifier(chat=SlackWebhook(sleep=Pauses()), secrets=secrets, webhook="ssm:/slack")
    slack.answers = [(404, {}, "no_service")]
    with pytest.raises(RefusedError):
        notifier.tell(Notice("", "text"))


@pytest.mark.parametrize("store", ["secretsmanager", "ssm"])
def test_handler_posts_what_sns_brings(
    slack: Slack, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole function, with its secret in either store."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    environment = NotifyEnvironment(slack_webhook=f"{store}:/runsfleet/slack")
    for name, value in environment.to_environ().items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        boto3.client("secretsmanager").create_secret(
            Name="/runsfleet/slack", SecretString=f"{slack.url}\n"
        )
        boto3.client("ssm").put_parameter(
            Name="/runsfleet/slack", Value=slack.url, Type="SecureString"
        )
        for made in (composition.notify, composition.client, composition._secrets):
            made.cache_clear()
        try:
            sns = {"Subject": None, "Message": "12.30 USD"}
            notify.handler({"Records": [{"EventSource": "aws:sns", "Sns": sns}]}, None)
        finally:
            for made in (composition.notify, composition.client, composition._secrets):
                made.cache_clear()
    ((path, body),) = slack.posted
    assert path == SECRET_PATH
    assert body["text"] == "12.30 USD"
