"""Dead letters: given back a few times with time between; poison stays and is seen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import boto3
import pytest
from moto import mock_aws

from runsfleet_runtime.housekeeping.dead_letters import WAITS, DeadLetter, DeadLetters, decide
from runsfleet_runtime.housekeeping.model import TaskReport
from runsfleet_runtime.housekeeping.ports import SweepError
from runsfleet_runtime.housekeeping.sqs import SqsDeadLetters
from tests.unit.housekeeping.frame import Frame

ATTRIBUTES = ["MessageGroupId", "MessageDeduplicationId"]
ROLE = "AROAEXAMPLE"


@dataclass
class Queues:
    """A queue and its dead-letter queue, FIFO or not, behind the real adapter."""

    sqs: Any
    is_fifo: bool
    frame: Frame

    def __post_init__(self) -> None:
        end, options = (".fifo", {"FifoQueue": "true"}) if self.is_fifo else ("", {})
        self.queue, self.dead = (
            self.sqs.create_queue(QueueName=name + end, Attributes=options)["QueueUrl"]
            for name in ("jobs", "jobs-dead")
        )

    def bury(self, body: str, number: int = 1, attributes: Any = None) -> None:
        group = {"MessageGroupId": str(number), "MessageDeduplicationId": f"d{number}"}
        self.sqs.send_message(
            QueueUrl=self.dead,
            MessageBody=body,
            MessageAttributes=attributes or {},
            **(group if self.is_fifo else {}),
        )

    def take(self, url: str) -> list[Any]:
        found: list[Any] = []
        while batch := self.sqs.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=10,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=ATTRIBUTES,
        ).get("Messages", []):
            for message in batch:
                self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            found += batch
        return found

    def sweep(self) -> TaskReport:
        task = DeadLetters(
            queues=SqsDeadLetters(self.sqs, wait_seconds=0),
            pairs=[(self.queue, self.dead)],
            role_id=ROLE,
            clock=self.frame.clock,
        )
        return self.frame.run(task)


@pytest.fixture(params=[True, False], ids=["fifo", "standard"])
def queues(request: pytest.FixtureRequest) -> Iterator[Queues]:
    """Both kinds of queues."""
    with mock_aws():
        yield Queues(boto3.client("sqs"), request.param, Frame())


def test_message_goes_back_to_its_queue(queues: Queues) -> None:
    """Body and group are as they were; FIFO takes it for new; it is gone from where it was."""
    queues.bury('{"job_id": 5}')
    assert queues.sweep().acted == 1
    (message,) = queues.take(queues.queue)
    assert message["Body"] == '{"job_id": 5}'
    if queues.is_fifo:
        assert message["Attributes"]["MessageGroupId"] == "1"
        assert message["Attributes"]["MessageDeduplicationId"].endswith(":redrive-1")
    assert queues.take(queues.dead) == []


def test_poison_is_given_back_a_few_times_and_then_stays(queues: Queues) -> None:
    """However often its function refuses it, it goes round three times, with time between."""
    queues.bury('{"job_id": 5}')
    rounds = 0
    for _ in range(20):
        queues.sweep()
        for message in queues.take(queues.queue):  # its function fails: SQS moves it as it is
            rounds += 1
            queues.bury(message["Body"], rounds + 1, message["MessageAttributes"])
        queues.frame.now += 1000
    assert rounds == len(WAITS)
    report = queues.sweep()
    assert report.verdicts == {"spared: poison: came back each time": 1}
    assert len(queues.take(queues.dead)) == 1


def test_time_lies_between_two_givings_back(queues: Queues) -> None:
    """An outage of an hour does not use all of them up in minutes."""
    queues.bury('{"job_id": 5}')
    queues.sweep()
    (message,) = queues.take(queues.queue)
    queues.bury(message["Body"], 2, message["MessageAttributes"])
    assert queues.sweep().verdicts == {"spared: its time has not come": 1}
    queues.frame.now += 901
    assert queues.sweep().acted == 1


def test_unreadable_message_stays_and_is_visible(queues: Queues) -> None:
    """It is counted in each run and can be looked at at once; others are not held up by it."""
    queues.bury("not JSON", 1)
    queues.bury(json.dumps({"job_id": 5}), 2)
    assert queues.sweep().verdicts == {
        "spared: poison: not readable": 1,
        "redrive: it may work now": 1,
    }
    assert queues.sweep().selected == 1
    assert [m["Body"] for m in queues.take(queues.dead)] == ["not JSON"]


def test_each_message_is_looked_at_once_in_a_run(queues: Queues) -> None:
    """What stays hidden until the run's end is not received again and again."""
    for number in range(25):
        queues.bury("not JSON", number)
    assert queues.sweep().selected == 25


def test_queue_that_does_not_answer_fails_the_run(queues: Queues) -> None:
    """It is not an empty queue."""
    broken = replace(queues)
    broken.dead += "-of-another-region"
    with pytest.raises(SweepError):
        broken.sweep()


@pytest.mark.parametrize(
    ("sender", "body", "reason"),
    [
        (f"{ROLE}:i-1", '{"instance_id": "i-1"}', "redrive: it may work now"),
        (f"{ROLE}:i-1", '{"instance_id": "i-2"}', "spared: poison: of another than its sender"),
        (f"{ROLE}:i-1", '{"job_id": 1}', "spared: poison: of another than its sender"),
        ("AROAOTHER:runsfleet-webhook", '{"job_id": 1}', "redrive: it may work now"),
        ("AROAOTHER:runsfleet-housekeeping", '{"instance_id": "i-2"}', "redrive: it may work now"),
    ],
)
def test_no_instance_speaks_for_another_by_way_of_the_dead_letters(
    sender: str, body: str, reason: str
) -> None:
    """What is given back has housekeeping as its sender, whom the termination function believes."""
    letter = DeadLetter(
        source="s", dead_letters="d", message_id="m", receipt_handle="r", body=body, sender=sender
    )
    assert str(decide(letter, role_id=ROLE, now=1.0)) == reason


def test_sender_is_who_sqs_says(queues: Queues) -> None:
    """Not what a message says of itself."""
    queues.bury(
        '{"sender": "me"}', attributes={"SenderId": {"DataType": "String", "StringValue": "me"}}
    )
    (letter,) = SqsDeadLetters(queues.sqs, wait_seconds=0).receive(queues.queue, queues.dead)
    assert letter.sender == "AIDAIT2UOQQY3AUEKVGXU"  # moto's
