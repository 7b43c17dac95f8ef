"""Simulated time: order, pauses that interleave, and the end of a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simulation.clients import Client, Crash, Fault, Gate, Moment
from tests.simulation.dynamodb import DynamoDB, Table
from tests.simulation.functions import Context, Definition, Lambda
from tests.simulation.loop import Killed, Loop, Task


@pytest.fixture
def loop() -> Iterator[Loop]:
    """A loop that begins at 0; its threads end with the test."""
    loop = Loop(0.0)
    yield loop
    loop.close()


def test_events_come_in_the_order_of_their_times(loop: Loop) -> None:
    """Equal times keep the order in which they were asked for; what is over comes at once."""
    seen: list[tuple[str, float]] = []

    def note(name: str) -> None:
        seen.append((name, loop.now))

    loop.at(2.0, note, "b")
    loop.at(1.0, note, "a")
    loop.at(2.0, note, "c")
    loop.at(1.5, lambda: loop.at(0.0, note, "late"))
    loop.run(until=10.0)
    assert seen == [("a", 1.0), ("late", 1.5), ("b", 2.0), ("c", 2.0)]
    assert loop.now == 10.0


def test_tasks_interleave_at_their_pauses(loop: Loop) -> None:
    """Two pieces of blocking code run in turns, as their pauses have it."""
    seen: list[str] = []

    def work(name: str, seconds: float) -> None:
        for step in range(3):
            seen.append(f"{name}{step}")
            loop.pause(seconds)

    loop.at(0.0, loop.start, Task("a"), lambda: work("a", 2.0))
    loop.at(0.5, loop.start, Task("b"), lambda: work("b", 1.0))
    loop.run(until=10.0)
    assert seen == ["a0", "b0", "b1", "a1", "b2", "a2"]


def test_a_task_is_killed_at_its_deadline(loop: Loop) -> None:
    """Code that takes too long ends there, as a function does at its timeout."""
    ended: list[float] = []

    def work() -> None:
        try:
            loop.pause(5.0)
            loop.pause(5.0)
        except Killed:
            ended.append(loop.now)

    loop.start(Task("slow", deadline=7.0), work)
    loop.run(until=20.0)
    assert ended == [7.0]


def test_a_fault_of_a_task_is_told(loop: Loop) -> None:
    """An exception that a task lets out ends the run with it."""

    def work() -> None:
        loop.pause(1.0)
        raise ValueError("wrong")

    loop.at(0.0, loop.start, Task("bad"), work)
    loop.at(0.5, int)
    with pytest.raises(ValueError, match="wrong"):
        loop.run(until=5.0)


@pytest.mark.parametrize(("moment", "expected"), [(Moment.BEFORE, 0), (Moment.AFTER, 1)])
def test_a_process_dies_on_either_side_of_a_call(loop: Loop, moment: Moment, expected: int) -> None:
    """Before it, nothing is written; after it, everything is, and nobody hears of it."""
    gate, table = Gate(loop), Table("id")
    ends: list[object] = []
    client = Client("dynamodb", DynamoDB({"t": table}, clock=lambda: loop.now), gate)

    def handler(*_: object) -> str:
        client.put_item(TableName="t", Item={"id": {"S": "1"}})
        client.put_item(TableName="t", Item={"id": {"S": "2"}})
        return "done"

    functions = Lambda(loop)
    definition = Definition(name="f", build=object, handler=handler, timeout=60.0)
    gate.crash = Crash(1, moment)
    functions.invoke(definition, {}, ends.append)
    assert (ends, functions.crashes, len(table.items)) == ([None], 1, 1 + expected)
    functions.invoke(definition, {}, ends.append)
    assert ends == [None, "done"]


def test_a_dead_process_does_nothing_more(loop: Loop) -> None:
    """What code does while it is being killed, say in a `finally`, has no effect."""
    gate, table = Gate(loop), Table("id")
    client = Client("dynamodb", DynamoDB({"t": table}, clock=lambda: loop.now), gate)

    def handler(*_: object) -> None:
        try:
            client.put_item(TableName="t", Item={"id": {"S": "1"}})
        finally:
            client.put_item(TableName="t", Item={"id": {"S": "2"}})

    gate.crash = Crash(0, Moment.BEFORE)
    definition = Definition(name="f", build=object, handler=handler, timeout=60.0)
    Lambda(loop).invoke(definition, {}, lambda _answer: None)
    assert not table.items


def test_a_lost_answer_lets_the_client_repeat_the_call(loop: Loop) -> None:
    """The client tries again when no answer came: the effect happens twice."""
    faults = iter([Fault.LOST, None])
    gate = Gate(loop, fault=lambda _service, _operation: next(faults))
    table = Table("id")
    client = Client("dynamodb", DynamoDB({"t": table}, clock=lambda: loop.now), gate)

    def handler(*_: object) -> None:
        client.update_item(
            TableName="t",
            Key={"id": {"S": "1"}},
            UpdateExpression="ADD #n :one",
            ExpressionAttributeNames={"#n": "n"},
            ExpressionAttributeValues={":one": {"N": "1"}},
        )

    definition = Definition(name="f", build=object, handler=handler, timeout=60.0)
    Lambda(loop).invoke(definition, {}, lambda _answer: None)
    assert table.items["1",]["n"] == {"N": "2"}


def test_a_process_is_kept_warm_and_serves_one_at_a_time(loop: Loop) -> None:
    """Two invocations at once take two processes; a later one takes a warm one again."""
    built: list[object] = []

    def build() -> object:
        built.append(object())
        return built[-1]

    def handler(_event: object, context: Context) -> None:
        context.loop.pause(1.0)

    definition = Definition(name="f", build=build, handler=handler, timeout=60.0)
    functions = Lambda(loop)
    for when in (0.0, 0.5, 10.0, 5000.0):
        loop.at(when, functions.invoke, definition, {}, lambda _answer: None)
    loop.run(until=100.0)
    assert len(built) == 2
    loop.run(until=6000.0)
    assert len(built) == 3  # the others were idle for too long
