"""The simulation's queues keep SQS's promises, and break those that SQS does not make."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from tests.simulation.sqs import Queue, Sqs


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> _Clock:
    """Time that a test moves by hand."""
    return _Clock()


@pytest.fixture
def fifo(clock: _Clock) -> tuple[Sqs, Queue]:
    """A FIFO queue whose messages are buried after two receives."""
    dead, queue = Queue("dead.fifo", 30.0), Queue("jobs.fifo", 120.0, 2, "dead.fifo")
    return Sqs([dead, queue], clock=clock), queue


def _send(sqs: Sqs, queue: Queue, group: str, token: str) -> None:
    sqs.send_message(
        QueueUrl=queue.url,
        MessageBody=token,
        MessageGroupId=group,
        MessageDeduplicationId=token,
    )


def test_a_group_that_is_being_worked_on_waits(fifo: tuple[Sqs, Queue], clock: _Clock) -> None:
    """A batch may hold several of a group, in order; later ones wait, other groups do not."""
    sqs, queue = fifo
    for group, token in (("a", "1"), ("a", "2")):
        _send(sqs, queue, group, token)
    first = sqs.receive(queue, 10)
    assert [m.body for m in first] == ["1", "2"]
    for group, token in (("a", "3"), ("b", "4")):
        _send(sqs, queue, group, token)
    assert [m.body for m in sqs.receive(queue, 10)] == ["4"]
    for message in first:
        sqs.delete(message.receipt)
    assert [m.body for m in sqs.receive(queue, 10)] == ["3"]


def test_repetitions_are_swallowed_for_five_minutes(fifo: tuple[Sqs, Queue], clock: _Clock) -> None:
    """Also those of a message that is gone by then."""
    sqs, queue = fifo
    _send(sqs, queue, "a", "1")
    (message,) = sqs.receive(queue, 10)
    sqs.delete(message.receipt)
    _send(sqs, queue, "a", "1")
    assert not queue.messages
    clock.now = 300.0
    _send(sqs, queue, "a", "1")
    assert len(queue.messages) == 1


def test_a_message_comes_back_and_is_buried_in_the_end(
    fifo: tuple[Sqs, Queue], clock: _Clock
) -> None:
    """It is visible again after its timeout; after two receives the dead letters have it."""
    sqs, queue = fifo
    _send(sqs, queue, "a", "1")
    for receives in (1, 2):
        (message,) = sqs.receive(queue, 10)
        assert message.receives == receives
        clock.now += 119.0
        assert not sqs.receive(queue, 10)
        clock.now += 1.0
    assert not sqs.receive(queue, 10)
    assert not queue.messages
    assert [m.body for m in sqs.queues["dead.fifo"].messages.values()] == ["1"]


def test_a_deferred_message_waits_as_long_as_it_was_told(
    fifo: tuple[Sqs, Queue], clock: _Clock
) -> None:
    """Its visibility timeout can be changed, by its latest receipt only."""
    sqs, queue = fifo
    _send(sqs, queue, "a", "1")
    (message,) = sqs.receive(queue, 10)
    old = message.receipt
    sqs.change_message_visibility(QueueUrl=queue.url, ReceiptHandle=old, VisibilityTimeout=500)
    clock.now = 499.0
    assert not sqs.receive(queue, 10)
    clock.now = 500.0
    assert len(sqs.receive(queue, 10)) == 1
    with pytest.raises(ClientError, match="MessageNotInflight"):
        sqs.change_message_visibility(QueueUrl=queue.url, ReceiptHandle=old, VisibilityTimeout=1)


def test_a_fifo_queue_knows_no_delay_of_a_message(fifo: tuple[Sqs, Queue]) -> None:
    """It is refused, as at AWS."""
    sqs, queue = fifo
    with pytest.raises(ClientError, match="DelaySeconds"):
        sqs.send_message(
            QueueUrl=queue.url,
            MessageBody="x",
            MessageGroupId="a",
            MessageDeduplicationId="1",
            DelaySeconds=5,
        )


def test_a_standard_queue_may_deliver_twice(clock: _Clock) -> None:
    """Two copies come, each with a receipt of its own."""
    queue = Queue("reports", 120.0)
    sqs = Sqs([queue], clock=clock, is_repeated=lambda: True)
    sqs.send_message(QueueUrl=queue.url, MessageBody="x", DelaySeconds=10)
    assert not sqs.receive(queue, 10)
    clock.now = 10.0
    assert len({m.receipt for m in sqs.receive(queue, 10)}) == 2
