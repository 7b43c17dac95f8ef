"""Each message of the events queue goes to its use case; one that fails holds up no other.

EC2 tells of each instance of the account that ends. One question for a whole batch tells whose job
is done long since, and which are none of ours; only what is left is looked into.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from runsfleet_runtime.contract.messages import JobEndedMessage, RerunMessage
from runsfleet_runtime.interruptions.departures import GRACE_SECONDS, Departures
from runsfleet_runtime.interruptions.endings import Endings
from runsfleet_runtime.interruptions.model import (
    ComeBack,
    Done,
    Event,
    InstanceLeft,
    Irrelevant,
    RebalanceRecommendation,
    SpotWarning,
    Taken,
)
from runsfleet_runtime.interruptions.notices import Notices
from runsfleet_runtime.interruptions.ports import KnowsLaunches, SendsEvents
from runsfleet_runtime.interruptions.reruns import Reruns
from runsfleet_runtime.jobs.ports import RecordUnknownError
from runsfleet_runtime.telemetry.log import bound, get_logger

log = get_logger("events")

RESERVED_SECONDS: Final = 5.0
"""For the writes after GitHub's answer; an event that would begin later comes back instead."""


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """A message of the events queue.

    Attributes:
        message_id: SQS's id of the message.
        receipt_handle: Names this receive of it.
        event: What it says.
        receives: How often it was received, from 1.
    """

    message_id: str
    receipt_handle: str
    event: Event
    receives: int = 1


class Events:
    """The use case of the events function.

    Args:
        notices: What EC2 announces.
        departures: Instances that are gone.
        endings: Jobs that ended at GitHub.
        reruns: Interrupted jobs that run again.
        launches: What the fleet launched.
        queue: The events queue.
        clock: Returns epoch seconds.
    """

    def __init__(
        self,
        *,
        notices: Notices,
        departures: Departures,
        endings: Endings,
        reruns: Reruns,
        launches: KnowsLaunches,
        queue: SendsEvents,
        clock: Callable[[], float],
    ) -> None:
        self._notices = notices
        self._departures = departures
        self._endings = endings
        self._reruns = reruns
        self._launches = launches
        self._queue = queue
        self._clock = clock

    def take(self, batch: Sequence[ReceivedEvent], *, deadline: float) -> set[str]:
        """Act on events, one after the other.

        Args:
            batch: The messages.
            deadline: Epoch seconds at which the invocation is cut off.

        Returns:
            The ids of the messages that must come back.
        """
        again: set[str] = set()
        batch = self._without_settled(batch, again)
        # a warning leaves two minutes, everything else can wait
        for received in sorted(batch, key=lambda r: not isinstance(r.event, SpotWarning)):
            with bound(message_id=received.message_id):
                taken = self._take(received.event, deadline - RESERVED_SECONDS)
                if isinstance(taken, ComeBack):
                    again.add(received.message_id)
                    if taken.after is not None:
                        self._queue.defer(received.receipt_handle, taken.after)
        return again

    def _without_settled(
        self, batch: Sequence[ReceivedEvent], again: set[str]
    ) -> list[ReceivedEvent]:
        """Leave out the ends of instances that have left their jobs, and of those of others.

        One that was received before is looked into: what it asked for may have been begun.
        """
        left = {r.event.instance_id for r in batch if isinstance(r.event, InstanceLeft)}
        if not left:
            return list(batch)
        try:
            known = self._launches.have_left(sorted(left))
        except RecordUnknownError as error:
            log.error("ends of instances not taken", extra={"error": str(error)})
            again |= {r.message_id for r in batch if isinstance(r.event, InstanceLeft)}
            return [r for r in batch if not isinstance(r.event, InstanceLeft)]
        return [r for r in batch if not self._is_settled(r, known)]

    def _is_settled(self, received: ReceivedEvent, known: Mapping[str, bool]) -> bool:
        event = received.event
        if not isinstance(event, InstanceLeft) or received.receives > 1:
            return False
        if event.instance_id in known:
            return known[event.instance_id]
        # dispatch records what it launches within a minute
        return self._clock() - event.at > GRACE_SECONDS

    def _take(self, event: Event, deadline: float) -> Taken:
        if self._clock() >= deadline:
            return ComeBack()
        try:
            return self._route(event, deadline)
        except RecordUnknownError as error:
            log.error("event not taken", extra={"error": str(error)})
        except Exception:  # a fault of one event must not keep the others from being taken
            log.exception("event failed")
        return ComeBack()

    def _route(self, event: Event, deadline: float) -> Taken:
        match event:
            case JobEndedMessage():
                return self._endings.take(event, deadline=deadline)
            case RerunMessage():
                return self._reruns.take(event, deadline=deadline)
            case Irrelevant(reason):
                log.info("event ignored", extra={"reason": reason})
                return Done()
        with bound(instance_id=event.instance_id):
            match event:
                case SpotWarning():
                    return self._notices.warn(event, deadline=deadline)
                case RebalanceRecommendation():
                    return self._notices.recommend(event)
                case InstanceLeft():
                    return self._departures.take(event, deadline=deadline)
