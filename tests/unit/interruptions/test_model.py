"""Messages of the events queue: which are events, which are nothing to us, which are poison."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runsfleet_runtime.contract.messages import ContractError, JobEndedMessage, RerunMessage
from runsfleet_runtime.interruptions.model import (
    InstanceLeft,
    Irrelevant,
    RebalanceRecommendation,
    SpotWarning,
    read_event,
)


def of_ec2(name: str, **detail: Any) -> dict[str, Any]:
    """Return an event as EventBridge puts it on the queue."""
    return {
        "version": "0",
        "id": "7f1c",
        "detail-type": name,
        "source": "aws.ec2",
        "account": "123456789012",
        "time": "2027-01-15T08:00:00Z",
        "region": "eu-central-1",
        "resources": ["arn:aws:ec2:eu-central-1a:instance/i-0abc"],
        "detail": {"instance-id": "i-0abc"} | {k.replace("_", "-"): v for k, v in detail.items()},
    }


def test_events_of_ec2_are_read_from_their_detail() -> None:
    """The three events that matter become typed, with the instance and EC2's own time."""
    at = 1_800_000_000.0
    warning = of_ec2("EC2 Spot Instance Interruption Warning", instance_action="terminate")
    assert read_event(json.dumps(warning)) == SpotWarning(
        instance_id="i-0abc", at=at, action="terminate"
    )
    advice = of_ec2("EC2 Instance Rebalance Recommendation")
    assert read_event(json.dumps(advice)) == RebalanceRecommendation(instance_id="i-0abc", at=at)
    for state in ("shutting-down", "terminated", "stopped"):
        change = of_ec2("EC2 Instance State-change Notification", state=state)
        assert read_event(json.dumps(change)) == InstanceLeft(
            instance_id="i-0abc", at=at, state=state
        )


@pytest.mark.parametrize(
    "event",
    [
        of_ec2("EC2 Instance State-change Notification", state="running"),
        of_ec2("EC2 Instance State-change Notification", state="stopping"),
        of_ec2("EC2 Fleet Instance Change"),
        {"kind": "of a newer version"},
    ],
)
def test_what_nothing_is_done_about_is_no_fault(event: dict[str, Any]) -> None:
    """Other events, states and kinds are acked: they are no poison."""
    assert isinstance(read_event(json.dumps(event)), Irrelevant)


def test_own_messages_are_read_as_they_were_written() -> None:
    """What the webhook, the termination and this function send comes out as it went in."""
    ended = JobEndedMessage(
        job_id=1, run_id=7, run_attempt=1, repository="o/r", labels=("l",), conclusion="cancelled"
    )
    rerun = RerunMessage(job_id=1, tries=3)
    assert [read_event(message.to_json()) for message in (ended, rerun)] == [ended, rerun]


@pytest.mark.parametrize(
    "body",
    [
        "not json",
        "[]",
        "{}",
        '{"kind":"job_ended"}',
        '{"kind":"rerun","job_id":"1"}',
        json.dumps(of_ec2("EC2 Instance State-change Notification")),
        json.dumps(of_ec2("EC2 Instance Rebalance Recommendation") | {"time": "now"}),
        json.dumps(of_ec2("EC2 Instance Rebalance Recommendation") | {"time": "2027-01-15"}),
        json.dumps(of_ec2("EC2 Instance Rebalance Recommendation") | {"detail": None}),
        json.dumps(of_ec2("EC2 Spot Instance Interruption Warning", instance_action=7)),
    ],
)
def test_malformed_messages_are_poison(body: str) -> None:
    """What nobody can read goes to the dead-letter queue, with a reason."""
    with pytest.raises(ContractError):
        read_event(body)


@given(st.text() | st.recursive(st.none() | st.text(), st.lists).map(json.dumps))
def test_nothing_crashes_the_reader(body: str) -> None:
    """Whatever is on the queue, the answer is an event or a ContractError."""
    with pytest.raises(ContractError):
        read_event(body)
