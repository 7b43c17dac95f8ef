"""What SNS brings, as messages for Slack."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runsfleet_runtime.notifications.model import Notice, to_slack

CONSOLE = "https://eu-central-1.console.aws.amazon.com/cloudwatch/home?region=eu-central-1"


def alarm(**values: Any) -> Notice:
    """Return an alarm's change of state, as CloudWatch sends it to SNS."""
    return Notice(
        'ALARM: "JobsWait" in EU (Frankfurt)',
        json.dumps(
            {
                "AlarmName": "dev-JobsWait",
                "AlarmDescription": "Jobs wait & nobody acts. Runbook: docs/runbooks.md#jobswait",
                "AlarmArn": "arn:aws:cloudwatch:eu-central-1:123456789012:alarm:dev-JobsWait",
                "AWSAccountId": "123456789012",
                "NewStateValue": "ALARM",
                "NewStateReason": "Threshold Crossed: 2 datapoints were > 300",
                "OldStateValue": "OK",
                "Region": "EU (Frankfurt)",
                "StateChangeTime": "2026-11-21T10:20:30.123+0000",
                "Trigger": {"MetricName": "ApproximateAgeOfOldestMessage"},
            }
            | values
        ),
    )


def texts(body: dict[str, Any]) -> list[str]:
    """Return all that a message shows, block by block."""
    return [
        part["text"]
        for block in body["blocks"]
        for part in ([block["text"]] if "text" in block else block["elements"])
    ]


def test_alarm_shows_state_meaning_reason_and_runbook() -> None:
    """All that one needs to begin, with a link to the alarm and no account id in the text."""
    body = to_slack(alarm())
    assert body["text"] == "dev-JobsWait fires"
    assert texts(body) == [
        f":red_circle: *<{CONSOLE}#alarmsV2:alarm/dev-JobsWait|dev-JobsWait>* fires",
        "Jobs wait &amp; nobody acts.",
        "Threshold Crossed: 2 datapoints were &gt; 300",
        "runbook: docs/runbooks.md#jobswait",
        "EU (Frankfurt) 2026-11-21 10:20 UTC",
    ]
    assert "123456789012" not in json.dumps(body)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("OK", "dev-JobsWait is over"),
        ("INSUFFICIENT_DATA", "dev-JobsWait has no data"),
        ("NEW", "dev-JobsWait is NEW"),
    ],
)
def test_each_state_is_told_in_words(state: str, told: str) -> None:
    """Also one that CloudWatch does not have yet."""
    assert to_slack(alarm(NewStateValue=state))["text"] == told


def test_runbook_with_an_address_is_a_link() -> None:
    """A runbook on the web can be opened from the channel; it cannot break out of its link."""
    body = to_slack(alarm(AlarmDescription="Bad. Runbook: https://example.com/r#a|<!channel>"))
    assert "<https://example.com/r#a%7C%3C%21channel%3E|runbook>" in texts(body)


@pytest.mark.parametrize(
    ("arn", "host"),
    [
        ("arn:aws-cn:cloudwatch:cn-north-1:1:alarm:x", "cn-north-1.console.amazonaws.cn"),
        ("arn:aws-us-gov:cloudwatch:us-gov-west-1:1:alarm:x", "console.amazonaws-us-gov.com"),
    ],
)
def test_link_leads_to_the_partitions_console(arn: str, host: str) -> None:
    """China and GovCloud have consoles of their own."""
    assert host in texts(to_slack(alarm(AlarmArn=arn)))[0]


def test_composite_alarm_without_details_is_shown() -> None:
    """What is missing is left out."""
    message = json.dumps({"AlarmName": "unhealthy", "NewStateValue": "ALARM"})
    assert texts(to_slack(Notice("", message))) == [
        ":red_circle: *unhealthy* fires",
        "no reason given",
    ]


def test_plain_text_is_shown_with_its_subject() -> None:
    """The summary of costs keeps its lines; nobody is addressed by what stands in it."""
    body = to_slack(Notice("Cost of 2026-11-20", "12.30 USD\n<!channel> & more"))
    assert body["text"] == "Cost of 2026-11-20"
    assert texts(body) == ["*Cost of 2026-11-20*", "12.30 USD\n&lt;!channel&gt; &amp; more"]


@pytest.mark.parametrize("message", ["", '{"other": "json"}', "[1]", "null"])
def test_anything_else_is_shown_as_it_is(message: str) -> None:
    """No message is dropped because nobody foresaw it, and no block is empty."""
    body = to_slack(Notice("", message))
    assert body["text"] == (message or "(no text)")
    assert all(texts(body))


def test_long_texts_keep_to_slacks_limits() -> None:
    """Sections have 3,000 characters and a message few of them, whatever arrives."""
    for message in ("x" * 50_000, "line of a report\n" * 5_000):
        body = to_slack(Notice("s", message))
        assert len(body["blocks"]) <= 11
        assert max(len(text) for text in texts(body)) <= 3000
    long = to_slack(alarm(AlarmDescription="d" * 5000, NewStateReason="r" * 5000))
    assert max(len(text) for text in texts(long)) <= 3000
