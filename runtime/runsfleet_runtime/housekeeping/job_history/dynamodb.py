"""Where jobs came from, and which interrupted ones await a re-run: what no other room reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.contract.tables import JobAttr, JobIndex
from runsfleet_runtime.housekeeping.ports import SweepError
from runsfleet_runtime.jobs.model import Rerun

_AWAITED: Final = (Rerun.PENDING, Rerun.REQUESTED)


class DynamoDBJobHistory:
    """Reads the ``jobs`` table as a whole, or by the index of re-runs.

    Args:
        client: A DynamoDB client.
        table: Physical name of the table.
    """

    def __init__(self, client: Any, table: str) -> None:
        self._client = client
        self._table = table

    def repositories(self, *, since: float) -> set[str]:
        """Return the repositories whose jobs were written since then, as ``owner/name``.

        It reads the whole table, eventually consistent: half a unit for each 4 KB.

        Args:
            since: Epoch seconds.

        Raises:
            SweepError: If the table did not answer.
        """
        found: set[str] = set()
        start: dict[str, Any] = {}
        while True:
            answer = self._ask(
                self._client.scan,
                ProjectionExpression="#repository",
                FilterExpression="#updated_at >= :since",
                ExpressionAttributeNames={
                    "#repository": JobAttr.REPOSITORY.value,
                    "#updated_at": JobAttr.UPDATED_AT.value,
                },
                ExpressionAttributeValues={":since": {"N": repr(since)}},
                **start,
            )
            for item in answer.get("Items", []):
                name = item.get(JobAttr.REPOSITORY.value, {}).get("S", "")
                if name.count("/") == 1:
                    found.add(name)
            if not answer.get("LastEvaluatedKey"):
                return found
            start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def awaiting_reruns(self, *, updated_before: float) -> Iterator[Sequence[int]]:
        """Yield the jobs whose re-run is awaited, by an index that may lag, oldest first.

        Args:
            updated_before: Epoch seconds; those written since are left out.

        Raises:
            SweepError: If the table did not answer.
        """
        for state in _AWAITED:
            start: dict[str, Any] = {}
            while True:
                answer = self._ask(
                    self._client.query,
                    IndexName=JobIndex.BY_RERUN.value,
                    KeyConditionExpression="#rerun = :rerun AND #updated_at < :before",
                    ProjectionExpression="#id",
                    ExpressionAttributeNames={
                        "#id": JobAttr.ID.value,
                        "#rerun": JobAttr.RERUN.value,
                        "#updated_at": JobAttr.UPDATED_AT.value,
                    },
                    ExpressionAttributeValues={
                        ":rerun": {"S": state.value},
                        ":before": {"N": repr(updated_before)},
                    },
                    **start,
                )
                yield [int(item[JobAttr.ID.value]["S"]) for item in answer.get("Items", [])]
                if not answer.get("LastEvaluatedKey"):
                    break
                start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def _ask(self, call: Any, **parameters: Any) -> Any:
        try:
            return call(TableName=self._table, **parameters)
        except (ClientError, BotoCoreError) as error:
            raise SweepError(str(error)) from error
