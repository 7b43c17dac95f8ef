"""The record of every AWS request: one immutable `Call` each, a ring in memory, a file of lines.

Example:
    >>> log = CallLog(file=Path("/tmp/run/calls.jsonl"))
    >>> log.query(service="ec2", action="CreateFleet", since=42)
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

# the load test of 1,000 jobs makes some 6,000 calls; ten of those fit
RING_SIZE = 65_536

Outcome = Literal["ok", "error", "fault"]


@dataclass(frozen=True, slots=True)
class Call:
    """One request and how it ended.

    Args:
        sequence: Counts from 1, in the order of arrival.
        time: Unix time of arrival, seconds.
        duration: Seconds until the answer was complete.
        caller: For example `function:dev-Dispatch`, `instance:i-0abc`, `role:deploy/cdk`, `root`.
        service: Signing name, `cloudwatch` for CloudWatch's `monitoring`.
        action: For example `SendMessage`; for an HTTP API `POST /webhook`.
        region: From the signature, else the default region.
        parameters: As sent, secrets replaced, long strings cut.
        status: HTTP status; 0 if the connection was closed without an answer.
        outcome: `fault` when a fault rule decided it, else by the status.
        error: The AWS error code, if any.
        fault: Id of the fault rule that took part, if any.
        result: Ids that others look for later, e.g. the instances of a CreateFleet.
    """

    sequence: int
    time: float
    duration: float
    caller: str
    service: str
    action: str
    region: str
    parameters: Mapping[str, Any]
    status: int
    outcome: Outcome
    error: str | None = None
    fault: str | None = None
    result: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `time` also as `at`, ISO 8601 in UTC."""
        fields = asdict(self)
        fields["at"] = datetime.fromtimestamp(self.time, UTC).isoformat(timespec="milliseconds")
        return fields


class CallLog:
    """Keeps calls, tells listeners, answers queries.

    Args:
        file: Also append each call to this file, one JSON object a line.
        size: How many calls memory holds; older ones stay in the file.
    """

    def __init__(self, file: Path | None = None, size: int = RING_SIZE) -> None:
        self._calls: deque[Call] = deque(maxlen=size)
        self._listeners: list[Callable[[Call], None]] = []
        self._sequence = 0
        self._changed = asyncio.Event()
        self._file = None
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            # line-buffered, so that a reader sees whole lines while it runs
            self._file = file.open("a", buffering=1, encoding="utf-8")

    def next_sequence(self) -> int:
        """The number for a request that has just arrived."""
        self._sequence += 1
        return self._sequence

    def add(self, call: Call) -> None:
        """Keep a finished call."""
        self._calls.append(call)
        if self._file is not None:
            self._file.write(json.dumps(call.as_dict(), separators=(",", ":"), default=str) + "\n")
        for listener in tuple(self._listeners):
            listener(call)
        self._changed.set()
        self._changed = asyncio.Event()

    def subscribe(self, listener: Callable[[Call], None]) -> Callable[[], None]:
        """Be told of each finished call; returns the function that ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def query(
        self,
        *,
        since: int = 0,
        service: str = "*",
        action: str = "*",
        caller: str = "*",
        outcome: str = "*",
        limit: int | None = None,
    ) -> list[Call]:
        """Calls in order of completion.

        Args:
            since: Only calls whose sequence is greater.
            service: Pattern (`*`, `?`), as are `action`, `caller` and `outcome`.
            action: Pattern of the action.
            caller: Pattern of the caller.
            outcome: Pattern of the outcome.
            limit: Only the last so many.
        """
        found = [
            call
            for call in self._calls
            if call.sequence > since
            and fnmatchcase(call.service, service)
            and fnmatchcase(call.action, action)
            and fnmatchcase(call.caller, caller)
            and fnmatchcase(call.outcome, outcome)
        ]
        return found if limit is None else found[max(len(found) - limit, 0) :]

    async def wait_for(self, predicate: Callable[[Call], bool], seconds: float) -> Call:
        """The first call, kept already or yet to come, that satisfies the predicate.

        Raises:
            TimeoutError: None came within `seconds`.
        """
        async with asyncio.timeout(seconds):
            while True:
                changed = self._changed
                for call in self._calls:
                    if predicate(call):
                        return call
                await changed.wait()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
