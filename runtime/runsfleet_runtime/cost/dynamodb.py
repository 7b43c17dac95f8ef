"""What ran, from the tables of instances and of jobs.

Gotchas:

- Instances are found by the UTC day of their launch; one that ran on a day may have been launched
  days before it, but no longer ago than an instance lives.
- A closed job's record is read for its times; it is archived after a week, so days before that have
  instances and no jobs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.contract.paths import WINDOWS_PLATFORM
from runsfleet_runtime.contract.tables import InstanceAttr, InstanceIndex, JobAttr, JobIndex
from runsfleet_runtime.cost.model import Day, InstanceUse, JobUse
from runsfleet_runtime.cost.ports import LedgerUnavailableError
from runsfleet_runtime.fleet.catalogue import CATALOGUE
from runsfleet_runtime.jobs.model import JobStatus

_BATCH: Final = 100  # items of one BatchGetItem
_TRIES: Final = 5  # for the keys that DynamoDB left out of an answer
_CLOSED: Final = (JobStatus.COMPLETED, JobStatus.EXPIRED)


class DynamoDBLedger:
    """Adapter of :class:`~runsfleet_runtime.cost.ports.KeepsLedger`.

    Args:
        client: A DynamoDB client.
        instances_table: Physical name of the table of instances.
        jobs_table: Physical name of the table of jobs.
        lifetime_seconds: Longest life of an instance.
    """

    def __init__(
        self, client: Any, *, instances_table: str, jobs_table: str, lifetime_seconds: float
    ) -> None:
        self._client = client
        self._instances = instances_table
        self._jobs = jobs_table
        self._lifetime = lifetime_seconds

    def instances(self, day: Day) -> Iterable[InstanceUse]:
        """Return the instances of a day; see the port."""
        first = datetime.fromtimestamp(day.start - self._lifetime, UTC).date()
        last = datetime.fromtimestamp(day.end, UTC).date()
        for number in range((last - first).days + 1):
            name = (first + timedelta(days=number)).isoformat()
            for item in self._launched_on(name):
                yield _instance(item)

    def jobs(self, day: Day, instances: Sequence[InstanceUse]) -> Iterable[JobUse]:
        """Return the jobs of a day; see the port."""
        by_id = {use.instance_id: use for use in instances}
        for keys in _batches(self._closed_within(day)):
            for item in self._records(keys):
                job = _job(item, by_id, day)
                if job is not None:
                    yield job

    def _launched_on(self, day: str) -> Iterator[Mapping[str, Any]]:
        yield from self._query(
            TableName=self._instances,
            IndexName=InstanceIndex.BY_DAY.value,
            KeyConditionExpression="#day = :day",
            ExpressionAttributeNames={"#day": InstanceAttr.LAUNCHED_ON.value},
            ExpressionAttributeValues={":day": {"S": day}},
        )

    def _closed_within(self, day: Day) -> Iterator[Mapping[str, Any]]:
        for status in _CLOSED:
            for item in self._query(
                TableName=self._jobs,
                IndexName=JobIndex.BY_STATUS.value,
                KeyConditionExpression="#status = :status AND #at >= :start",
                ExpressionAttributeNames={
                    "#status": JobAttr.STATUS.value,
                    "#at": JobAttr.UPDATED_AT.value,
                },
                ExpressionAttributeValues={
                    ":status": {"S": status.value},
                    ":start": {"N": repr(day.start)},
                },
            ):
                yield {JobAttr.ID.value: item[JobAttr.ID.value]}

    def _query(self, **arguments: Any) -> Iterator[Mapping[str, Any]]:
        try:
            for page in self._client.get_paginator("query").paginate(**arguments):
                yield from page["Items"]
        except (ClientError, BotoCoreError) as error:
            raise LedgerUnavailableError(f"{arguments['IndexName']}: {error}") from error

    def _records(self, keys: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        asked: dict[str, Any] = {self._jobs: {"Keys": list(keys)}}
        for _ in range(_TRIES):
            try:
                answer = self._client.batch_get_item(RequestItems=asked)
            except (ClientError, BotoCoreError) as error:
                raise LedgerUnavailableError(f"records of jobs: {error}") from error
            yield from answer["Responses"].get(self._jobs, [])
            asked = answer.get("UnprocessedKeys", {})
            if not asked:
                return
        raise LedgerUnavailableError("records of jobs: DynamoDB left some out again and again")


def _batches(keys: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    left = iter(keys)
    while batch := list(itertools.islice(left, _BATCH)):
        yield batch


def _text(item: Mapping[str, Any], name: str) -> str:
    return str(item.get(name, {}).get("S", ""))


def _number(item: Mapping[str, Any], name: str) -> float:
    return float(item.get(name, {}).get("N", 0))


def _instance(item: Mapping[str, Any]) -> InstanceUse:
    return InstanceUse(
        instance_id=_text(item, InstanceAttr.ID),
        instance_type=_text(item, InstanceAttr.TYPE),
        availability_zone=_text(item, InstanceAttr.ZONE),
        capacity_type=_text(item, InstanceAttr.CAPACITY_TYPE),
        is_windows=_text(item, InstanceAttr.PLATFORM).startswith(WINDOWS_PLATFORM),
        repository=_text(item, InstanceAttr.REPOSITORY),
        workflow=_text(item, InstanceAttr.WORKFLOW),
        pool=_text(item, InstanceAttr.POOL),
        disk_gib=int(_number(item, InstanceAttr.DISK_GIB)),
        has_public_ipv4=not _number(item, InstanceAttr.PRIVATE),
        launched_at=_number(item, InstanceAttr.LAUNCHED_AT),
        ended_at=_number(item, InstanceAttr.ENDED_AT) or None,
    )


def _job(item: Mapping[str, Any], instances: Mapping[str, InstanceUse], day: Day) -> JobUse | None:
    started, ended = _number(item, JobAttr.STARTED_AT), _number(item, JobAttr.COMPLETED_AT)
    use = instances.get(_text(item, JobAttr.INSTANCE_ID))
    kind = CATALOGUE.get(use.instance_type) if use else None
    if not started or not day.start <= ended < day.end or use is None or kind is None:
        return None
    return JobUse(
        job_id=int(_text(item, JobAttr.ID)),
        repository=_text(item, JobAttr.REPOSITORY),
        vcpus=kind.vcpus,
        arch=kind.arch.value,
        is_windows=use.is_windows,
        seconds=max(0.0, ended - started),
    )
