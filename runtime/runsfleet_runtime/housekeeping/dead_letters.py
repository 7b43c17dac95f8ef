"""Messages in the dead-letter queues: given back to their queue, a few times, with time between.

What brings a message there is most often an outage (GitHub, a throttled table) that ends by itself.
How often it was given back stands in an attribute of the message itself, which SQS keeps on its way
back to the dead-letter queue, so no message goes round for ever. One that nobody can read, or that
came back three times, stays and is counted: it is for people. So does one that an instance sent in
the name of another: what is given back has a sender whom the termination function believes.

Gotcha: a message that was received stays hidden until its visibility timeout ends. Each is received
once in a run, and what stays is made visible again at the end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from runsfleet_runtime.contract.messages import HousekeepingTask
from runsfleet_runtime.contract.tables import instance_key
from runsfleet_runtime.housekeeping.model import Run, Verdict, spare

WAITS: Final = (0.0, 900.0, 3600.0)
"""Seconds between one giving back and the next: at once, a quarter of an hour, an hour. There are
as many givings back as entries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message in a dead-letter queue.

    Attributes:
        source: URL of the queue that it belongs to.
        dead_letters: URL of the dead-letter queue.
        message_id: SQS's id.
        receipt_handle: Names this receive of it.
        body: Its text.
        group_id: Its FIFO group; empty in a standard queue.
        sender: Who sent it, as SQS says; housekeeping, once it was given back.
        redrives: How often it was given back.
        redriven_at: Epoch seconds of the last time; 0 when there was none.
    """

    source: str
    dead_letters: str
    message_id: str
    receipt_handle: str
    body: str
    group_id: str = ""
    sender: str = ""
    redrives: int = 0
    redriven_at: float = 0.0


def decide(found: DeadLetter, *, role_id: str, now: float) -> Verdict:
    """Judge a message.

    Args:
        found: The message.
        role_id: Unique id of the instances' role.
        now: Epoch seconds.
    """
    if not _is_readable(found.body):
        return spare("poison: not readable")
    if _is_of_another(found, role_id):
        return spare("poison: of another than its sender")
    if found.redrives >= len(WAITS):
        return spare("poison: came back each time")
    if now - found.redriven_at < WAITS[found.redrives]:
        return spare("its time has not come")
    return Verdict("redrive", "it may work now")


def _is_readable(body: str) -> bool:
    """Whether it can be a message of ours at all; what it says is for its function to judge."""
    try:
        return isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        return False


def _is_of_another(found: DeadLetter, role_id: str) -> bool:
    """Whether an instance sent it in the name of another one; given back, nobody could tell."""
    if not found.sender.startswith(instance_key(role_id, "")):
        return False
    instance_id = json.loads(found.body).get("instance_id", "")
    return found.sender != instance_key(role_id, str(instance_id))


class MovesDeadLetters(Protocol):
    """SQS. All methods but ``show`` raise ``SweepError`` when it does not answer."""

    def receive(self, source: str, dead_letters: str) -> Sequence[DeadLetter]:
        """Receive up to ten messages; empty when there are none to see."""

    def redrive(self, letter: DeadLetter, *, now: float) -> None:
        """Send a message to its queue, counted once more, then delete it here."""

    def show(self, letter: DeadLetter) -> None:
        """Make a received message visible again; best effort, as it becomes so by itself."""


class DeadLetters:
    """The task.

    Args:
        queues: SQS.
        pairs: URLs of each queue and its dead-letter queue.
        role_id: Unique id of the instances' role.
        clock: Returns epoch seconds.
    """

    name: Final = HousekeepingTask.DEAD_LETTERS
    limit: Final = 1000

    def __init__(
        self,
        *,
        queues: MovesDeadLetters,
        pairs: Sequence[tuple[str, str]],
        role_id: str,
        clock: Callable[[], float],
    ) -> None:
        self._queues = queues
        self._pairs = pairs
        self._role_id = role_id
        self._clock = clock
        self._moved: set[str] = set()

    def select(self, run: Run) -> Iterator[Sequence[DeadLetter]]:
        """Yield each message once; whatever is not deleted by the end is shown again."""
        del run
        for source, dead_letters in self._pairs:
            received: list[DeadLetter] = []
            try:
                while page := self._queues.receive(source, dead_letters):
                    received += page
                    yield page
            finally:
                for letter in received:
                    if letter.message_id not in self._moved:
                        self._queues.show(letter)

    def key(self, found: DeadLetter) -> str:
        """Return the queue's name and the message's id."""
        return f"{found.source.rpartition('/')[2]} {found.message_id}"

    def decide(self, found: DeadLetter, *, now: float) -> Verdict:
        """Judge; see :func:`decide`."""
        return decide(found, role_id=self._role_id, now=now)

    def reread(self, found: DeadLetter) -> DeadLetter | None:
        """Return it as it was received: it is hidden from everybody else."""
        return found

    def act(self, found: DeadLetter, verdict: Verdict) -> bool:
        """Send it, then delete it here."""
        del verdict
        self._queues.redrive(found, now=self._clock())
        self._moved.add(found.message_id)
        return True
