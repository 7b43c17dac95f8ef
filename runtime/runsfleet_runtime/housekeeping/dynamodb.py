"""DynamoDB as the sweeps see it: many records at once, which the other rooms never read."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.contract.messages import ContractError, RunnerConfig
from runsfleet_runtime.contract.tables import (
    JobAttr,
    JobIndex,
    RunnerAttr,
    SlotAttr,
    instance_key,
)
from runsfleet_runtime.housekeeping.old_jobs import Record
from runsfleet_runtime.housekeeping.orphaned_instances import Configured
from runsfleet_runtime.housekeeping.ports import SweepError
from runsfleet_runtime.housekeeping.stale_configurations import Configuration
from runsfleet_runtime.housekeeping.stale_jobs import OpenJob
from runsfleet_runtime.jobs.items import number, text, to_attribute
from runsfleet_runtime.jobs.model import HOLDS_SLOT, JobStatus
from runsfleet_runtime.jobs.slots import scopes_of

_REFUSED: Final = "ConditionalCheckFailedException"
_BATCH: Final = 100  # keys of one BatchGetItem (DynamoDB quota)
_BATCH_TRIES: Final = 5
_FIRST_PAUSE: Final = 0.1  # seconds; twofold longer each time
_OPEN: Final = frozenset({JobStatus.LAUNCHED, JobStatus.RUNNING})


class DynamoDBOpenJobs:
    """The ``jobs`` table as sweeps over all of it need it.

    What is launched or running is found by the index and read in batches of a hundred: 15,000 jobs
    cost about 160 calls.

    Args:
        client: A DynamoDB client.
        table: Physical name of the table.
        pause: Waits for seconds; what a throttled table left unread is asked for after a moment.
    """

    def __init__(
        self, client: Any, table: str, *, pause: Callable[[float], object] = time.sleep
    ) -> None:
        self._client = client
        self._table = table
        self._pause = pause

    def open_jobs(self) -> Iterator[Sequence[OpenJob]]:
        """Yield launched and running jobs, a hundred at a time; one that starts meanwhile, twice.

        Raises:
            SweepError: If the table did not answer.
        """
        for status in sorted(_OPEN):
            for ids in self.ids(status):
                items = self.read(
                    ids, (JobAttr.ID, JobAttr.STATUS, JobAttr.INSTANCE_ID, JobAttr.UPDATED_AT)
                )
                yield [
                    OpenJob(
                        job_id=int(text(item, JobAttr.ID)),
                        instance_id=text(item, JobAttr.INSTANCE_ID),
                        updated_at=number(item, JobAttr.UPDATED_AT),
                    )
                    for item in items
                    if text(item, JobAttr.STATUS) in _OPEN  # by now
                ]

    def instances_of_open_jobs(self) -> Collection[str]:
        """Return the instances that open records name; raises ``SweepError``."""
        return {job.instance_id for page in self.open_jobs() for job in page}

    def ids(
        self, status: JobStatus, *, updated_before: float | None = None
    ) -> Iterator[Sequence[str]]:
        """Yield the ids of the jobs of a status by the index, oldest first, a hundred at a time.

        Raises:
            SweepError: If the table did not answer.
        """
        condition, values = "#status = :status", {":status": {"S": status.value}}
        names = {"#status": JobAttr.STATUS.value, "#id": JobAttr.ID.value}
        if updated_before is not None:
            condition += " AND #updated_at < :before"
            names["#updated_at"] = JobAttr.UPDATED_AT.value
            values[":before"] = {"N": repr(updated_before)}
        pages = _pages(
            lambda **start: self._client.query(
                TableName=self._table,
                IndexName=JobIndex.BY_STATUS.value,
                KeyConditionExpression=condition,
                ProjectionExpression="#id",
                ExpressionAttributeNames=names,
                ExpressionAttributeValues=values,
                **start,
            )
        )
        for items in pages:
            for start in range(0, len(items), _BATCH):
                yield [text(item, JobAttr.ID) for item in items[start : start + _BATCH]]

    def read(
        self, ids: Sequence[str], attributes: Sequence[JobAttr] = ()
    ) -> Sequence[Mapping[str, Any]]:
        """Read up to a hundred records, consistently; those that do not exist are left out.

        Args:
            ids: Of the jobs.
            attributes: What to read of each; everything by default.

        Raises:
            SweepError: If the table did not answer for each of them.
        """
        request: dict[str, Any] = {
            "Keys": [{JobAttr.ID.value: {"S": i}} for i in ids],
            "ConsistentRead": True,
        }
        if attributes:
            names = {f"#{a.name.lower()}": a.value for a in attributes}
            request |= {
                "ProjectionExpression": ", ".join(names),
                "ExpressionAttributeNames": names,
            }
        found: list[Mapping[str, Any]] = []
        for tries in range(_BATCH_TRIES):
            if tries:
                self._pause(_FIRST_PAUSE * 2 ** (tries - 1))
            answer = _asked(
                lambda: self._client.batch_get_item(RequestItems={self._table: request})  # noqa: B023  called at once
            )
            found += answer.get("Responses", {}).get(self._table, [])
            left = answer.get("UnprocessedKeys", {}).get(self._table)
            if not left:
                return found
            request = left
        raise SweepError(
            f"{len(request['Keys'])} records were not read within {_BATCH_TRIES} tries"
        )


class DynamoDBOldJobs(DynamoDBOpenJobs):
    """The ``jobs`` table as the archiving needs it; adapter of ``KeepsOldJobs``."""

    def records(self, ids: Sequence[str]) -> Sequence[Record]:
        """Read records as plain values; raises ``SweepError``."""
        return [{k: _plain(v) for k, v in item.items()} for item in self.read(ids)]

    def delete(self, records: Sequence[Record]) -> int:
        """Delete those that are as they were read; how many were. Raises ``SweepError``."""
        if not records:
            return 0
        try:
            self._client.transact_write_items(
                TransactItems=[{"Delete": self._deletion(r)} for r in records]
            )
        except ClientError as error:
            if "CancellationReasons" not in error.response:
                raise SweepError(str(error)) from error
            if len(records) == 1:
                return 0
            # one that changed spoils the transaction of all: each by itself then
            return sum(self.delete([record]) for record in records)
        except BotoCoreError as error:
            raise SweepError(str(error)) from error
        return len(records)

    def _deletion(self, record: Record) -> dict[str, Any]:
        seen = {a: record[a] for a in (JobAttr.STATUS, JobAttr.UPDATED_AT) if a in record}
        missing = [a for a in (JobAttr.STATUS, JobAttr.UPDATED_AT) if a not in record]
        conditions = [f"#{a.name.lower()} = :{a.name.lower()}" for a in seen]
        conditions += [f"attribute_not_exists(#{a.name.lower()})" for a in missing]
        return {
            "TableName": self._table,
            "Key": {JobAttr.ID.value: {"S": record[JobAttr.ID]}},
            "ConditionExpression": " AND ".join(conditions),
            "ExpressionAttributeNames": {f"#{a.name.lower()}": a.value for a in (*seen, *missing)},
            "ExpressionAttributeValues": {
                f":{a.name.lower()}": to_attribute(value) for a, value in seen.items()
            },
        }


class DynamoDBSlots(DynamoDBOpenJobs):
    """The counters of slots and the records that they count; adapter of ``CountsSlots``.

    Args:
        client: A DynamoDB client.
        jobs_table: Physical name of the table of jobs.
        slots_table: Physical name of the table of counters.
    """

    def __init__(self, client: Any, *, jobs_table: str, slots_table: str) -> None:
        super().__init__(client, jobs_table)
        self._slots_table = slots_table

    def used(self) -> Mapping[str, int]:
        """Return all counters by their scope; raises ``SweepError``."""
        pages = _pages(
            lambda **start: self._client.scan(
                TableName=self._slots_table, ConsistentRead=True, **start
            )
        )
        return {
            item[SlotAttr.SCOPE.value]["S"]: int(item.get(SlotAttr.USED.value, {}).get("N", 0))
            for items in pages
            for item in items
        }

    def held(self) -> Mapping[str, int]:
        """Count the records that hold a slot, by scope; raises ``SweepError``."""
        attributes = (JobAttr.ID, JobAttr.SLOT, JobAttr.REPOSITORY)
        counted: dict[str, str] = {}  # a job that moves meanwhile is found twice
        for status in sorted(HOLDS_SLOT):
            for ids in self.ids(status):
                for item in self.read(ids, attributes):
                    if number(item, JobAttr.SLOT):
                        counted[text(item, JobAttr.ID)] = text(item, JobAttr.REPOSITORY)
        return Counter(scope for repository in counted.values() for scope in scopes_of(repository))

    def repair(self, scope: str, *, seen: int, right: int) -> bool:
        """Set a counter that is as it was seen; raises ``SweepError``."""
        condition = "#used = :seen"
        if seen == 0:  # what nobody wrote yet counts as nought
            condition += " OR attribute_not_exists(#used)"
        try:
            self._client.update_item(
                TableName=self._slots_table,
                Key={SlotAttr.SCOPE.value: {"S": scope}},
                UpdateExpression="SET #used = :right",
                ConditionExpression=condition,
                ExpressionAttributeNames={"#used": SlotAttr.USED.value},
                ExpressionAttributeValues={":right": {"N": str(right)}, ":seen": {"N": str(seen)}},
            )
        except ClientError as error:
            if error.response["Error"]["Code"] == _REFUSED:
                return False
            raise SweepError(str(error)) from error
        except BotoCoreError as error:
            raise SweepError(str(error)) from error
        return True


def _plain(attribute: Mapping[str, Any]) -> Any:
    """Return the value of an attribute: text, number, truth value, list or map.

    Example:
        >>> _plain({"L": [{"S": "a"}, {"N": "1.5"}]})
        ['a', 1.5]
    """
    ((kind, value),) = attribute.items()
    match kind:
        case "N":
            return float(value) if "." in value or "e" in value.lower() else int(value)
        case "L":
            return [_plain(v) for v in value]
        case "M":
            return {k: _plain(v) for k, v in value.items()}
        case _:
            return value


class DynamoDBConfigurations:
    """The ``runners`` table as sweeps need it.

    Args:
        client: A DynamoDB client.
        table: Physical name of the table.
        role_id: Unique id of the instances' role.
    """

    def __init__(self, client: Any, table: str, *, role_id: str) -> None:
        self._client = client
        self._table = table
        self._role_id = role_id

    def find(self, instance_id: str) -> Configured | None:
        """Return what is kept of an instance's configuration; see ``KnowsConfigurations``."""
        key = {RunnerAttr.KEY.value: {"S": instance_key(self._role_id, instance_id)}}
        item = _asked(
            lambda: self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True)
        ).get("Item")
        if item is None:
            return None
        content = item.get(RunnerAttr.CONFIG.value, {}).get("S", "")
        return Configured(
            repository=_repository(content), has_ended=RunnerAttr.ENDED_AT.value in item
        )

    def pages(self) -> Iterator[Sequence[Configuration]]:
        """Yield the configurations that were not taken away, page by page.

        Raises:
            SweepError: If the table did not answer.
        """
        pages = _pages(
            lambda **start: self._client.scan(
                TableName=self._table,
                FilterExpression="attribute_exists(#config)",
                ProjectionExpression="#instance_id, #created_at",
                ExpressionAttributeNames={
                    "#config": RunnerAttr.CONFIG.value,
                    "#instance_id": RunnerAttr.INSTANCE_ID.value,
                    "#created_at": RunnerAttr.CREATED_AT.value,
                },
                **start,
            )
        )
        for items in pages:
            yield [
                Configuration(
                    instance_id=item[RunnerAttr.INSTANCE_ID.value]["S"],
                    written_at=float(item.get(RunnerAttr.CREATED_AT.value, {}).get("N", 0)),
                )
                for item in items
                if RunnerAttr.INSTANCE_ID.value in item
            ]


def _repository(content: str) -> str:
    try:
        return RunnerConfig.from_json(content).repository
    except ContractError:
        return ""


def _asked(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (ClientError, BotoCoreError) as error:
        raise SweepError(str(error)) from error


def _pages(ask: Callable[..., Any]) -> Iterator[Sequence[Mapping[str, Any]]]:
    """Yield the items of each page of a query or scan; each is asked for when it is its turn."""
    start: dict[str, Any] = {}
    while True:
        answer = _asked(partial(ask, **start))
        yield answer.get("Items", [])
        if not answer.get("LastEvaluatedKey"):
            return
        start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}
