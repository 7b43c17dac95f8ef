"""Transactions on the ``jobs`` table and on the counters of slots.

Gotchas:

- A whole batch is one transaction. When it is cancelled, what refused its condition is answered
  with the item that it met, and the rest is written again without it.
- All changes of one counter are one update of it: a transaction takes an item once.
- Transactions that meet on one item cancel each other; those are tried again after a moment.
- botocore repeats a call whose answer was lost under the same token. Who calls again himself finds
  his condition refused, and has to compare the item with what he meant to write.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.contract.tables import SlotAttr
from runsfleet_runtime.jobs.items import Item, to_attribute
from runsfleet_runtime.jobs.slots import Caps, scopes_of

_REFUSED: Final = "ConditionalCheckFailed"
_CONFLICT: Final = "TransactionConflict"
_INVALID: Final = frozenset({"SerializationException", "ValidationException"})
_CLIENT_ERRORS: Final = range(400, 500)
_TRIES: Final = 5  # under conflicts; together they wait for no more than a second
_FIRST_PAUSE: Final = 0.06  # seconds; twofold longer each time


@dataclass(frozen=True, slots=True)
class Group:
    """Actions that are written all or nothing; the first one is the move of a job.

    Attributes:
        actions: The actions.
        slots: 1 when the job takes a slot, -1 when it gives one back.
        repository: Of the job; used when slots change.
    """

    actions: Sequence[Mapping[str, Any]]
    slots: int = 0
    repository: str = ""


@dataclass(frozen=True, slots=True)
class Written:
    """The group was written."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The job's condition did not hold.

    Attributes:
        item: The item that it met; empty when there is none.
    """

    item: Item


@dataclass(frozen=True, slots=True)
class Full:
    """There is no free slot; nothing was written."""

    scope: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A write that no condition refused and that yet was not seen to succeed.

    Attributes:
        reason: Why.
        is_certain: Whether nothing was written for certain.
        is_invalid: Whether the request itself was refused; one bad write spoils all others of it.
    """

    reason: str
    is_certain: bool = False
    is_invalid: bool = False


Outcome = Written | Refused | Full | Failed


@dataclass(slots=True)
class _Cancelled:
    """Why a transaction was cancelled: what each group met, and how full the scopes are."""

    refused: dict[int, Item] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)
    is_conflict: bool = False


class TransactionWriter:
    """Writes groups with as few calls as possible.

    Args:
        client: A DynamoDB client.
        caps: The caps on runners; ``None`` when nothing is counted.
        jitter: Returns a random number in [0, 1).
        sleep: Waits for some seconds.
    """

    def __init__(
        self,
        client: Any,
        caps: Caps | None = None,
        *,
        jitter: Callable[[], float] = random.random,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._caps = caps
        self._jitter = jitter
        self._sleep = sleep

    def write(self, groups: Sequence[Group]) -> list[Outcome]:
        """Write groups; one outcome for each, in order."""
        outcomes: dict[int, Outcome] = {}
        self._write(dict(enumerate(groups)), outcomes, _TRIES)
        return [outcomes[index] for index in range(len(groups))]

    def _write(self, groups: dict[int, Group], outcomes: dict[int, Outcome], tries: int) -> None:
        groups = self._without_full(groups, {}, outcomes)
        if not groups:
            return
        answer = self._transact(list(groups.values()))
        if isinstance(answer, Failed) and answer.is_invalid and len(groups) > 1:
            self._one_by_one(groups, outcomes, tries)  # the bad one must not spoil the others
        elif not isinstance(answer, _Cancelled):
            outcomes.update(dict.fromkeys(groups, answer))
        else:
            self._write_rest(groups, answer, outcomes, tries)

    def _write_rest(
        self,
        groups: dict[int, Group],
        answer: _Cancelled,
        outcomes: dict[int, Outcome],
        tries: int,
    ) -> None:
        """Write what a cancelled transaction may still write."""
        refused = {
            index: answer.refused[at] for at, index in enumerate(groups) if at in answer.refused
        }
        outcomes.update({index: Refused(item) for index, item in refused.items()})
        rest = {index: group for index, group in groups.items() if index not in refused}
        rest = self._without_full(rest, answer.used, outcomes)
        if len(rest) < len(groups):
            self._write(rest, outcomes, tries)
        elif tries > 1 and (answer.is_conflict or answer.used):
            pause = _FIRST_PAUSE * 2.0 ** (_TRIES - tries)
            self._sleep(pause / 2 + pause / 2 * self._jitter())
            self._write(rest, outcomes, tries - 1)
        elif len(rest) > 1:
            self._one_by_one(rest, outcomes, 1)
        elif answer.used:
            outcomes.update(dict.fromkeys(rest, Full(next(iter(answer.used)))))
        else:
            failed = Failed("the transaction was cancelled", is_certain=True)
            outcomes.update(dict.fromkeys(rest, failed))

    def _one_by_one(
        self, groups: dict[int, Group], outcomes: dict[int, Outcome], tries: int
    ) -> None:
        for index, group in groups.items():
            self._write({index: group}, outcomes, tries)

    def _without_full(
        self, groups: dict[int, Group], used: Mapping[str, int], outcomes: dict[int, Outcome]
    ) -> dict[int, Group]:
        """Leave out the groups that find no free slot; the first ones find theirs first."""
        if self._caps is None:
            return groups
        taking = [index for index, group in groups.items() if group.slots > 0]
        full = self._caps.refuse([groups[index].repository for index in taking], used)
        outcomes.update({taking[at]: Full(scope) for at, scope in full.items()})
        return {i: g for i, g in groups.items() if i not in {taking[at] for at in full}}

    def _transact(self, groups: Sequence[Group]) -> Written | Failed | _Cancelled:
        firsts = []
        actions: list[Mapping[str, Any]] = []
        for group in groups:
            firsts.append(len(actions))
            actions += group.actions
        counters = self._counters(groups)
        try:
            self._client.transact_write_items(
                TransactItems=actions + [self._count(s, by) for s, by in counters]
            )
        except ClientError as error:
            if "CancellationReasons" not in error.response:
                return _failed(error)
            reasons: list[Any] = list(error.response["CancellationReasons"])
            cancelled = _Cancelled(
                is_conflict=any(reason.get("Code") == _CONFLICT for reason in reasons)
            )
            for position, at in enumerate(firsts):
                if reasons[at].get("Code") == _REFUSED:
                    cancelled.refused[position] = reasons[at].get("Item", {})
            for (scope, _), reason in zip(counters, reasons[len(actions) :], strict=False):
                if reason.get("Code") == _REFUSED:
                    used = reason.get("Item", {}).get(SlotAttr.USED.value, {}).get("N", 0)
                    cancelled.used[scope] = int(used)
            return cancelled
        except BotoCoreError as error:
            return Failed(str(error))
        return Written()

    def _counters(self, groups: Sequence[Group]) -> list[tuple[str, int]]:
        changes: Counter[str] = Counter()
        for group in groups:
            if group.slots:
                for scope in scopes_of(group.repository):
                    changes[scope] += group.slots
        return [(scope, by) for scope, by in changes.items() if by]

    def _count(self, scope: str, by: int) -> dict[str, Any]:
        """Return the update of one counter; one that would exceed its cap is refused."""
        update: dict[str, Any] = {
            "TableName": self._caps.table if self._caps else "",
            "Key": {SlotAttr.SCOPE.value: {"S": scope}},
            "UpdateExpression": "ADD #used :by",
            "ExpressionAttributeNames": {"#used": SlotAttr.USED.value},
            "ExpressionAttributeValues": {":by": to_attribute(by)},
        }
        most = self._caps.most(scope) if self._caps and by > 0 else None
        if most is not None:
            update["ConditionExpression"] = "attribute_not_exists(#used) OR #used <= :room"
            update["ExpressionAttributeValues"][":room"] = to_attribute(most - by)
            update["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        return {"Update": update}


def _failed(error: ClientError) -> Failed:
    code = error.response["Error"].get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return Failed(
        str(error),
        # an earlier attempt of the same call may still be under way
        is_certain=status in _CLIENT_ERRORS and code != "TransactionInProgressException",
        is_invalid=code in _INVALID,
    )
