"""Items of the ``jobs`` table: to and from records, and the expressions that write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from runsfleet_runtime.contract.messages import JobMessage
from runsfleet_runtime.contract.tables import JobAttr
from runsfleet_runtime.jobs.model import JobRecord, JobStatus, Rerun

Item = Mapping[str, Any]


def key(job_id: int) -> dict[str, Any]:
    """Return the primary key of a job's item."""
    return {JobAttr.ID.value: {"S": str(job_id)}}


def text(item: Item, attribute: JobAttr) -> str:
    """Return a text attribute, or "" when the item has none."""
    return str(item.get(attribute.value, {}).get("S", ""))


def number(item: Item, attribute: JobAttr) -> float:
    """Return a number attribute, or 0 when the item has none."""
    return float(item.get(attribute.value, {}).get("N", 0))


def to_attribute(value: Any) -> dict[str, Any]:
    """Return DynamoDB's form of a text, number or list.

    Example:
        >>> to_attribute([1, "a"])
        {'L': [{'N': '1'}, {'S': 'a'}]}
    """
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, int | float):
        return {"N": repr(value)}
    return {"L": [to_attribute(v) for v in value]}


def job_from_item(item: Item) -> JobMessage:
    """Return the message that dispatched a job, from its record."""
    return JobMessage(
        job_id=int(text(item, JobAttr.ID)),
        run_id=int(number(item, JobAttr.RUN_ID)),
        run_attempt=int(number(item, JobAttr.RUN_ATTEMPT)),
        repository=text(item, JobAttr.REPOSITORY),
        labels=tuple(v["S"] for v in item.get(JobAttr.LABELS.value, {}).get("L", ())),
        queued_at=number(item, JobAttr.QUEUED_AT),
        installation_id=int(number(item, JobAttr.INSTALLATION_ID)) or None,
        workflow_name=text(item, JobAttr.WORKFLOW),
        job_name=text(item, JobAttr.NAME),
        dispatch=int(number(item, JobAttr.DISPATCH)),
        requeues=int(number(item, JobAttr.REQUEUES)),
        on_demand=number(item, JobAttr.ON_DEMAND) > 0,
        traceparent=text(item, JobAttr.TRACEPARENT),
    )


def record_from_item(item: Item) -> JobRecord:
    """Return a job's record."""
    rerun = text(item, JobAttr.RERUN)
    return JobRecord(
        job=job_from_item(item),
        status=JobStatus(text(item, JobAttr.STATUS)),
        updated_at=number(item, JobAttr.UPDATED_AT),
        claim_expires_at=number(item, JobAttr.CLAIM_EXPIRES_AT),
        not_before=number(item, JobAttr.NOT_BEFORE),
        deadline=number(item, JobAttr.DEADLINE),
        instance_id=text(item, JobAttr.INSTANCE_ID),
        instance_type=text(item, JobAttr.INSTANCE_TYPE),
        availability_zone=text(item, JobAttr.ZONE),
        capacity_type=text(item, JobAttr.CAPACITY_TYPE),
        runner_name=text(item, JobAttr.RUNNER_NAME),
        launched_at=number(item, JobAttr.LAUNCHED_AT),
        started_at=number(item, JobAttr.STARTED_AT),
        completed_at=number(item, JobAttr.COMPLETED_AT),
        outcome=text(item, JobAttr.OUTCOME),
        interrupted_at=number(item, JobAttr.INTERRUPTED_AT),
        rerun=Rerun(rerun) if rerun else None,
        may_rerun=not number(item, JobAttr.NO_RERUN),
        has_slot=number(item, JobAttr.SLOT) > 0,
    )


class Expression:
    """An update of one item; every name is aliased, as many are reserved.

    Example:
        >>> update = Expression()
        >>> update.set({JobAttr.STATUS: "queued", JobAttr.ERROR: None})
        >>> update.remove([JobAttr.SLOT])
        >>> update.require(f"{update.name(JobAttr.DISPATCH)} = {update.value(3)}")
        >>> update.update
        'SET #status = :v0 REMOVE #slot'
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._values: dict[str, Any] = {}
        self._assignments: list[str] = []
        self._removed: list[str] = []
        self._conditions: list[str] = []

    def name(self, attribute: JobAttr) -> str:
        """Return the alias of an attribute."""
        alias = f"#{attribute.name.lower()}"
        self._names[alias] = attribute.value
        return alias

    def value(self, value: Any) -> str:
        """Return the alias of a value."""
        alias = f":v{len(self._values)}"
        self._values[alias] = to_attribute(value)
        return alias

    def set(self, values: Mapping[JobAttr, Any]) -> None:
        """Set the values that are there; ``None`` and "" are left out."""
        self._assignments += [
            f"{self.name(a)} = {self.value(v)}"
            for a, v in values.items()
            if v is not None and v != ""
        ]

    def set_if_absent(self, values: Mapping[JobAttr, Any]) -> None:
        """Set values that the item does not have yet."""
        for attribute, value in values.items():
            name = self.name(attribute)
            self._assignments.append(f"{name} = if_not_exists({name}, {self.value(value)})")

    def remove(self, attributes: Iterable[JobAttr]) -> None:
        """Remove attributes."""
        self._removed += [self.name(a) for a in attributes]

    def require(self, condition: str) -> None:
        """Add a condition to those that must all hold."""
        self._conditions.append(condition)

    def require_equal(self, values: Mapping[JobAttr, Any]) -> None:
        """Require values; "" and ``None`` require that there is none."""
        for attribute, value in values.items():
            name = self.name(attribute)
            if value is None or value == "":
                self.require(f"attribute_not_exists({name})")
            else:
                self.require(f"{name} = {self.value(value)}")

    @property
    def update(self) -> str:
        """The update expression."""
        removed = f" REMOVE {', '.join(self._removed)}" if self._removed else ""
        return f"SET {', '.join(self._assignments)}{removed}"

    def request(self, table: str, job_id: int) -> dict[str, Any]:
        """Return the request; a refused one answers with the item that it met."""
        return {
            "TableName": table,
            "Key": key(job_id),
            "UpdateExpression": self.update,
            "ConditionExpression": " AND ".join(f"({c})" for c in self._conditions),
            "ExpressionAttributeNames": self._names,
            "ExpressionAttributeValues": self._values,
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
