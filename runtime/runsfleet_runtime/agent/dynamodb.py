"""Runner configurations in DynamoDB. Satisfies ``ReadsConfiguration``."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from runsfleet_runtime.contract.tables import RunnerAttr, instance_key

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

    from runsfleet_runtime.agent.aws import AwsClients


class DynamoDbConfigurations:
    """Reads this instance's item of the ``runners`` table; IAM lets it read no other.

    Args:
        clients: AWS.
        table: Name of the table.
        role_id: Unique id of the instance's role.
    """

    def __init__(self, clients: AwsClients, *, table: str, role_id: str) -> None:
        self._clients = clients
        self._table = table
        self._role_id = role_id

    def read(self, instance_id: str, *, now: float) -> str | None:
        """Return the configuration; an expired item counts as none (TTL deletes late)."""
        client = cast("DynamoDBClient", self._clients.client("dynamodb"))
        answer = client.get_item(
            TableName=self._table,
            Key={RunnerAttr.KEY: {"S": instance_key(self._role_id, instance_id)}},
            ConsistentRead=True,
            ProjectionExpression="#config, #expires_at",
            ExpressionAttributeNames={
                "#config": RunnerAttr.CONFIG,
                "#expires_at": RunnerAttr.EXPIRES_AT,
            },
        )
        item = answer.get("Item", {})
        expires_at = item.get(RunnerAttr.EXPIRES_AT, {}).get("N")
        if expires_at is not None and float(expires_at) <= now:
            return None
        return item.get(RunnerAttr.CONFIG, {}).get("S")
