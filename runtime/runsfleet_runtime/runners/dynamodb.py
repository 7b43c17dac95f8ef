"""Runner configurations as items of the ``runners`` table (the default).

The partition key is what IAM knows the instance by, so that a policy lets each instance read its
own item only. The item outlives the longest run: sweeps judge an instance by it. With the
instance's end the configuration goes and the item stays for a while, marked as ended: an instance
that gave its word that it is done, and runs on, may be ended without asking GitHub.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from runsfleet_runtime.contract.messages import RunnerConfig
from runsfleet_runtime.contract.tables import RunnerAttr, instance_key
from runsfleet_runtime.runners.ports import RunnerStoreError, TransactEntry

RETENTION_SECONDS = 24 * 3600
"""Kept this long after the end of its instance; or beyond the longest run of its job, if nobody
takes that end."""


class DynamoDBRunnerStore:
    """Keeps configurations in DynamoDB; see ``StoresRunnerConfig``.

    Args:
        clients: Makes the client of a service by its name; called at the first request only.
        table: Name of the ``runners`` table.
        role_id: Unique id of the instances' role (``AROA…``).
        clock: Returns epoch seconds.
    """

    def __init__(
        self,
        clients: Callable[[str], Any],
        *,
        table: str,
        role_id: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clients = clients
        self._table = table
        self._role_id = role_id
        self._clock = clock

    def transact_put(self, config: RunnerConfig, now: float) -> tuple[TransactEntry, ...]:
        """Return the ``Put`` of a configuration.

        Args:
            config: The configuration.
            now: Epoch seconds.
        """
        return ({"Put": {"TableName": self._table, "Item": self._item(config, now)}},)

    def put(self, config: RunnerConfig, now: float) -> None:
        """Write a configuration by itself; arguments and errors as in the port."""
        try:
            self._clients("dynamodb").put_item(TableName=self._table, Item=self._item(config, now))
        except (BotoCoreError, ClientError) as error:
            raise RunnerStoreError(
                f"writing the configuration of {config.instance_id} failed: {error}"
            ) from error

    def transact_delete(self, instance_id: str) -> tuple[TransactEntry, ...]:
        """Return the ``Update`` that takes a configuration away.

        Args:
            instance_id: The EC2 instance.
        """
        return ({"Update": self._end(instance_id)},)

    def delete(self, instance_id: str) -> None:
        """Delete a configuration by itself; arguments and errors as in the port."""
        try:
            self._clients("dynamodb").update_item(**self._end(instance_id))
        except (BotoCoreError, ClientError) as error:
            raise RunnerStoreError(
                f"deleting the configuration of {instance_id} failed: {error}"
            ) from error

    def _end(self, instance_id: str) -> dict[str, Any]:
        now = self._clock()
        names = {
            "#config": RunnerAttr.CONFIG,
            "#ended_at": RunnerAttr.ENDED_AT,
            "#expires_at": RunnerAttr.EXPIRES_AT,
        }
        return {
            "TableName": self._table,
            "Key": self._key(instance_id),
            "UpdateExpression": (
                "SET #ended_at = if_not_exists(#ended_at, :now), #expires_at = :later "
                "REMOVE #config"
            ),
            "ExpressionAttributeNames": {alias: name.value for alias, name in names.items()},
            "ExpressionAttributeValues": {
                ":now": {"N": repr(now)},
                ":later": {"N": str(int(now) + RETENTION_SECONDS)},
            },
        }

    def _key(self, instance_id: str) -> dict[str, Any]:
        return {RunnerAttr.KEY.value: {"S": instance_key(self._role_id, instance_id)}}

    def _item(self, config: RunnerConfig, now: float) -> dict[str, Any]:
        life = config.max_runtime_seconds + config.idle_timeout_seconds + RETENTION_SECONDS
        return self._key(config.instance_id) | {
            RunnerAttr.INSTANCE_ID.value: {"S": config.instance_id},
            RunnerAttr.JOB_ID.value: {"S": str(config.job_id)},
            RunnerAttr.CONFIG.value: {"S": config.to_json()},
            RunnerAttr.CREATED_AT.value: {"N": str(int(now))},
            RunnerAttr.EXPIRES_AT.value: {"N": str(int(now) + life)},
        }
