"""The functions: their real handlers, wired by the real composition, in processes that may die.

A process is what a warm Lambda environment is: it holds caches, serves one invocation at a time,
and is lost with all it knows when it crashes. A queue's event source mapping hands out batches,
deletes what the handler does not return, and leaves everything else to the visibility timeout.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from tests.simulation.loop import Killed, Loop, Task
from tests.simulation.sqs import Message, Queue, Sqs

_IDLE_SECONDS: Final = 600.0  # a process that had nothing to do for so long is gone
_POLL_SECONDS: Final = 0.05  # what arrives within it may come as one batch
_RETRY_SECONDS: Final = 0.2
_IDS = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A function.

    Attributes:
        name: Its name; also of its builder in the composition and of its handler's module.
        build: Makes the use case of a fresh process.
        handler: Its handler.
        timeout: Seconds.
        batch: Most messages of an invocation.
        window: Seconds for which a batch that is not full waits for more.
        concurrency: Most invocations at once.
    """

    name: str
    build: Callable[[], Any]
    handler: Callable[[Mapping[str, Any], Any], Any]
    timeout: float
    batch: int = 10
    window: float = 0.0
    concurrency: int = 5


class Environment:
    """One process of a function."""

    def __init__(self, definition: Definition, skew: float) -> None:
        self.definition = definition
        self.skew = skew
        self.use_case: Any = None
        self.kept: dict[str, Any] = {}
        self.is_dead = False
        self.used_at = 0.0

    @property
    def name(self) -> str:
        """The function's name."""
        return self.definition.name


@dataclass(frozen=True, slots=True)
class Context:
    """What Lambda tells a handler."""

    loop: Loop
    deadline: float

    def get_remaining_time_in_millis(self) -> int:
        """Return what is left of the function's time."""
        return int((self.deadline - self.loop.now) * 1000)


class Lambda:
    """Runs functions.

    Args:
        loop: Simulated time.
        skew: Returns how far the clock of a new process is off, in seconds.
    """

    def __init__(self, loop: Loop, *, skew: Callable[[], float] = lambda: 0.0) -> None:
        self._loop = loop
        self._skew = skew
        self._idle: dict[str, list[Environment]] = {}
        self.running: dict[str, int] = {}
        self.crashes = 0
        self.errors: list[tuple[str, Exception]] = []

    def invoke(
        self,
        definition: Definition,
        event: Mapping[str, Any],
        on_end: Callable[[Any | None], None],
    ) -> None:
        """Invoke a function; ``on_end`` gets its answer, or ``None`` when it failed or died."""
        loop = self._loop
        process = self._process(definition)
        deadline = loop.now + definition.timeout
        self.running[definition.name] = self.running.get(definition.name, 0) + 1

        def work() -> None:
            answer = None
            try:
                if process.use_case is None:
                    process.use_case = definition.build()
                answer = definition.handler(event, Context(loop, deadline))
            except Killed:
                process.is_dead = True
                self.crashes += 1
            except Exception as error:  # noqa: BLE001  Lambda reports it and keeps the process
                self.errors.append((definition.name, error))
            self.running[definition.name] -= 1
            if not process.is_dead:
                process.used_at = loop.now
                self._idle.setdefault(definition.name, []).append(process)
            on_end(answer)

        loop.start(Task(f"{definition.name}-{next(_IDS)}", process, deadline), work)

    def _process(self, definition: Definition) -> Environment:
        idle = self._idle.get(definition.name, [])
        while idle:
            process = idle.pop()
            if self._loop.now - process.used_at < _IDLE_SECONDS:
                return process
        return Environment(definition, self._skew())


class EventSource:
    """Hands a queue's messages to a function.

    Args:
        loop: Simulated time.
        functions: Runs the function.
        sqs: The service.
        queue: The queue.
        definition: The function.
    """

    def __init__(
        self, loop: Loop, functions: Lambda, sqs: Sqs, queue: Queue, definition: Definition
    ) -> None:
        self._loop = loop
        self._functions = functions
        self._sqs = sqs
        self._queue = queue
        self._definition = definition
        self._busy = 0
        self._due: float | None = None
        queue.on_change = self._wake

    def _wake(self, when: float) -> None:
        is_full = len(self._queue.messages) >= self._definition.batch
        wait = _POLL_SECONDS if is_full else max(_POLL_SECONDS, self._definition.window)
        when = max(when, self._loop.now) + wait
        if self._due is None or when < self._due:
            self._due = when
            self._loop.at(when, self._poll, when)

    def _poll(self, when: float) -> None:
        if self._due != when:
            return
        self._due = None
        while self._busy < self._definition.concurrency:
            batch = self._sqs.receive(self._queue, self._definition.batch)
            if not batch:
                break
            self._busy += 1
            on_end = partial(self._end, batch)
            self._functions.invoke(self._definition, self._event(batch), on_end)
        upcoming = self._sqs.next_visible(self._queue)
        if upcoming is not None and self._busy < self._definition.concurrency:
            self._wake(max(upcoming, self._loop.now + _RETRY_SECONDS))

    def _end(self, batch: list[Message], answer: Any | None) -> None:
        self._busy -= 1
        if answer is not None:
            kept = {entry["itemIdentifier"] for entry in answer["batchItemFailures"]}
            for message in batch:
                if message.id not in kept:
                    self._sqs.delete(message.receipt)
        self._wake(self._loop.now)

    def _event(self, batch: list[Message]) -> dict[str, Any]:
        return {
            "Records": [
                {
                    "messageId": m.id,
                    "receiptHandle": m.receipt,
                    "body": m.body,
                    "attributes": self._sqs.attributes(m),
                    "eventSource": "aws:sqs",
                    "eventSourceARN": self._queue.arn,
                }
                for m in batch
            ]
        }


def http_event(body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return a request as the HTTP API hands it to the webhook function."""
    return {
        "version": "2.0",
        "headers": dict(headers),
        "body": body.decode(),
        "isBase64Encoded": False,
    }


def status_of(answer: Any | None) -> int:
    """Return the HTTP status that GitHub sees; a function that failed gives 500."""
    return 500 if answer is None else int(answer["statusCode"])


def dumps(body: Any) -> bytes:
    """Return JSON as GitHub sends it."""
    return json.dumps(body, separators=(",", ":")).encode()
