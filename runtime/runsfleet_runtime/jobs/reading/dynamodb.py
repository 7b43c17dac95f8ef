"""The ``jobs`` table, read consistently.

Gotcha: an index lags behind the table and holds the keys alone. What it names is read again, and
left out when the record says otherwise by now; what it does not name yet is found the next time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.contract.tables import JobAttr, JobIndex
from runsfleet_runtime.jobs.items import Item, key, record_from_item, text, to_attribute
from runsfleet_runtime.jobs.model import JobRecord, JobStatus
from runsfleet_runtime.jobs.ports import RecordUnknownError

_PAGE: Final = 100


class DynamoDBJobReader:
    """Adapter of :class:`~runsfleet_runtime.jobs.ports.ReadsJobs`.

    Args:
        client: A DynamoDB client.
        table: Physical name of the table.
    """

    def __init__(self, client: Any, table: str) -> None:
        self._client = client
        self._table = table

    def get(self, job_id: int) -> JobRecord | None:
        """Read a record; see :class:`~runsfleet_runtime.jobs.ports.ReadsJobs`."""
        try:
            answer = self._client.get_item(
                TableName=self._table, Key=key(job_id), ConsistentRead=True
            )
        except (ClientError, BotoCoreError) as error:
            raise RecordUnknownError(f"job {job_id}: its record could not be read") from error
        item: Item = answer.get("Item", {})
        return record_from_item(item) if item else None

    def of_instance(self, instance_id: str) -> JobRecord | None:
        """Read the record that names an instance; see ``ReadsJobs``."""
        found = self._read(
            {
                "IndexName": JobIndex.BY_INSTANCE.value,
                "KeyConditionExpression": "#instance = :instance",
                "ExpressionAttributeNames": {"#instance": JobAttr.INSTANCE_ID.value},
                "ExpressionAttributeValues": {":instance": to_attribute(instance_id)},
            }
        )
        return next((r for r in found if r.instance_id == instance_id), None)

    def of_run(self, run_id: int) -> Sequence[JobRecord]:
        """Read the records of a run; see ``ReadsJobs``."""
        found = self._read(
            {
                "IndexName": JobIndex.BY_RUN.value,
                "KeyConditionExpression": "#run = :run",
                "ExpressionAttributeNames": {"#run": JobAttr.RUN_ID.value},
                "ExpressionAttributeValues": {":run": to_attribute(run_id)},
            }
        )
        return list(found)

    def in_status(
        self, status: JobStatus, *, updated_before: float, limit: int | None = None
    ) -> Iterator[JobRecord]:
        """Read the records of a status; see ``ReadsJobs``."""
        found = self._read(
            {
                "IndexName": JobIndex.BY_STATUS.value,
                "KeyConditionExpression": "#status = :status AND #updated < :before",
                "ExpressionAttributeNames": {
                    "#status": JobAttr.STATUS.value,
                    "#updated": JobAttr.UPDATED_AT.value,
                },
                "ExpressionAttributeValues": {
                    ":status": to_attribute(status.value),
                    ":before": to_attribute(updated_before),
                },
            },
            limit,
        )
        return (r for r in found if r.status is status and r.updated_at < updated_before)

    def _read(self, query: Mapping[str, Any], limit: int | None = None) -> Iterator[JobRecord]:
        """Yield the records that an index names, by its order."""
        for job_id in itertools.islice(self._named(query), limit):
            record = self.get(job_id)
            if record is not None:
                yield record

    def _named(self, query: Mapping[str, Any]) -> Iterator[int]:
        request = {"TableName": self._table, "Limit": _PAGE, **query}
        while True:
            try:
                answer = self._client.query(**request)
            except (ClientError, BotoCoreError) as error:
                raise RecordUnknownError(f"{query['IndexName']} could not be read") from error
            yield from (int(text(item, JobAttr.ID)) for item in answer.get("Items", ()))
            last = answer.get("LastEvaluatedKey")
            if not last:
                return
            request["ExclusiveStartKey"] = last
