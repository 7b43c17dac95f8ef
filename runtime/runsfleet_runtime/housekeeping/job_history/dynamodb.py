"""Where jobs came from, and which interrupted ones await a re-run: what no other room reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
        pages = _pages(
            lambda start: self._client.scan(
                TableName=self._table,
                ProjectionExpression="#repository",
                FilterExpression="#updated_at >= :since",
                ExpressionAttributeNames={
                    "#repository": JobAttr.REPOSITORY.value,
                    "#updated_at": JobAttr.UPDATED_AT.value,
                },
                ExpressionAttributeValues={":since": {"N": repr(since)}},
                **start,
            )
        )
        names = {
            item.get(JobAttr.REPOSITORY.value, {}).get("S", "") for page in pages for item in page
        }
        return {name for name in names if name.count("/") == 1}

    def awaiting_reruns(self, *, updated_before: float) -> Iterator[Sequence[int]]:
        """Yield the jobs whose re-run is awaited, by an index that may lag, oldest first.

        Args:
            updated_before: Epoch seconds; those written since are left out.

        Raises:
            SweepError: If the table did not answer.
        """
        for state in _AWAITED:
            for page in self._by_rerun(state, updated_before):
                yield [int(item[JobAttr.ID.value]["S"]) for item in page]

    def _by_rerun(self, state: Rerun, before: float) -> Iterator[Sequence[Mapping[str, Any]]]:
        return _pages(
            lambda start: self._client.query(
                TableName=self._table,
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
                    ":before": {"N": repr(before)},
                },
                **start,
            )
        )


def _pages(ask: Callable[[Mapping[str, Any]], Any]) -> Iterator[Sequence[Mapping[str, Any]]]:
    """Yield the items of each page; ``ask`` gets where the page starts."""
    start: dict[str, Any] = {}
    while True:
        try:
            answer = ask(start)
        except (ClientError, BotoCoreError) as error:
            raise SweepError(str(error)) from error
        yield answer.get("Items", [])
        if not answer.get("LastEvaluatedKey"):
            return
        start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}
