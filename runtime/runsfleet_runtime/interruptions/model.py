"""The messages of the events queue, as typed events.

EventBridge delivers what EC2 says of every instance of the account, whoever it belongs to: neither
its rules nor the events know tags. So whose instance an event speaks of is asked later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from runsfleet_runtime.contract.messages import ContractError, JobEndedMessage, RerunMessage

SPOT_WARNING: Final = "EC2 Spot Instance Interruption Warning"
REBALANCE: Final = "EC2 Instance Rebalance Recommendation"
STATE_CHANGE: Final = "EC2 Instance State-change Notification"
STOPPED: Final = "stopped"
LEFT: Final = frozenset({"shutting-down", "terminated", STOPPED})
"""States in which an instance works no more. ``stopping`` is none: its agent may be reporting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpotWarning:
    """EC2 takes an instance back in two minutes.

    Attributes:
        instance_id: The instance.
        at: Epoch seconds of the event.
        action: ``terminate``, ``stop`` or ``hibernate``.
    """

    instance_id: str
    at: float
    action: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RebalanceRecommendation:
    """EC2 may take an instance back soon.

    Attributes:
        instance_id: The instance.
        at: Epoch seconds of the event.
    """

    instance_id: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceLeft:
    """An instance works no more, for whatever reason; almost always because its job is done.

    Attributes:
        instance_id: The instance.
        at: Epoch seconds of the event.
        state: One of ``LEFT``.
    """

    instance_id: str
    at: float
    state: str


@dataclass(frozen=True, slots=True)
class Irrelevant:
    """A message that nothing is done about.

    Attributes:
        reason: Why, for the log.
    """

    reason: str


Event = (
    SpotWarning
    | RebalanceRecommendation
    | InstanceLeft
    | JobEndedMessage
    | RerunMessage
    | Irrelevant
)


@dataclass(frozen=True, slots=True)
class Done:
    """An event is done with: its message may go."""


@dataclass(frozen=True, slots=True)
class ComeBack:
    """An event must come again.

    Attributes:
        after: Seconds to wait; ``None`` leaves it to the queue's visibility timeout.
    """

    after: float | None = None


Taken = Done | ComeBack


def read_event(body: str) -> Event:
    """Read a message of the events queue.

    Args:
        body: Its text: an EventBridge event, or a message of ours.

    Raises:
        ContractError: If it is neither, or lacks what every such event has.

    Example:
        >>> read_event('{"detail-type": "EC2 Fleet Instance Change", "detail": {}}')
        Irrelevant(reason="detail-type 'EC2 Fleet Instance Change'")
    """
    try:
        event = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ContractError(f"the event is not JSON: {error}") from None
    if not isinstance(event, dict):
        raise ContractError(f"the event must be an object, got {type(event).__name__}")
    match event.get("kind"):
        case JobEndedMessage.KIND:
            return JobEndedMessage.from_json(body)
        case RerunMessage.KIND:
            return RerunMessage.from_json(body)
        case str(kind):
            return Irrelevant(f"kind {kind[:80]!r}")
    return _of_ec2(event)


def _of_ec2(event: Mapping[str, Any]) -> Event:
    name = event.get("detail-type")
    if not isinstance(name, str):
        raise ContractError("the event has neither kind nor detail-type")
    if name not in {SPOT_WARNING, REBALANCE, STATE_CHANGE}:
        return Irrelevant(f"detail-type {name[:80]!r}")
    detail = event.get("detail")
    instance_id = _text(detail, "instance-id")
    at = _time(event.get("time"))
    if name == SPOT_WARNING:
        return SpotWarning(instance_id=instance_id, at=at, action=_text(detail, "instance-action"))
    if name == REBALANCE:
        return RebalanceRecommendation(instance_id=instance_id, at=at)
    state = _text(detail, "state")
    if state not in LEFT:
        return Irrelevant(f"state {state[:80]!r}")
    return InstanceLeft(instance_id=instance_id, at=at, state=state)


def _text(detail: object, key: str) -> str:
    value = detail.get(key) if isinstance(detail, dict) else None
    if not isinstance(value, str) or not value:
        raise ContractError(f"detail.{key} must be a text, got {str(value)[:80]!r}")
    return value


def _time(value: object) -> float:
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        raise ContractError(f"time must be ISO 8601, got {str(value)[:80]!r}") from None
    if moment.tzinfo is None:
        raise ContractError(f"time must have a zone, got {str(value)[:80]!r}")
    return moment.timestamp()
