"""What ran, for whom, and for how long: one item for each instance, beside its job's record.

It is written in the transactions that move the job, so it costs no call of its own, and it tells
two things. The cost report adds up what ran. And EC2's word that an instance ended, which comes for
each of them, needs no look at a job whose instance is known to have left it.

An instance counts as ended with the report of its end, seconds before EC2 ends it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from runsfleet_runtime.contract.tables import InstanceAttr
from runsfleet_runtime.jobs.items import to_attribute
from runsfleet_runtime.jobs.model import Launch

KEPT_SECONDS: Final = 14 * 24 * 3600
"""Long enough for the report of any day that an instance ran on, also when that is late."""


class InstanceLedger:
    """Makes the writes of the ``instances`` table.

    Args:
        table: Physical name of the table.
    """

    def __init__(self, table: str) -> None:
        self._table = table

    def launched(self, launch: Launch, *, now: float) -> dict[str, Any]:
        """Return the write that records a launch.

        Args:
            launch: The launch.
            now: Epoch seconds.
        """
        values = {
            InstanceAttr.ID: launch.instance_id,
            InstanceAttr.JOB_ID: str(launch.job.job_id),
            InstanceAttr.REPOSITORY: launch.job.repository,
            InstanceAttr.WORKFLOW: launch.job.workflow_name,
            InstanceAttr.TYPE: launch.instance_type,
            InstanceAttr.ZONE: launch.availability_zone,
            InstanceAttr.CAPACITY_TYPE: launch.capacity_type,
            InstanceAttr.PLATFORM: launch.platform,
            InstanceAttr.POOL: launch.pool,
            InstanceAttr.DISK_GIB: launch.disk_gib,
            InstanceAttr.PRIVATE: 1 if launch.is_private else None,
            InstanceAttr.LAUNCHED_AT: now,
            InstanceAttr.LAUNCHED_ON: datetime.fromtimestamp(now, UTC).date().isoformat(),
            InstanceAttr.EXPIRES_AT: int(now) + KEPT_SECONDS,
        }
        item = {a.value: to_attribute(v) for a, v in values.items() if v not in {None, ""}}
        return {"Put": {"TableName": self._table, "Item": item}}

    def left(self, instance_id: str, *, now: float) -> dict[str, Any]:
        """Return the write that records that an instance has left its job.

        Args:
            instance_id: The instance; the first end counts.
            now: Epoch seconds.
        """
        ended, expires = InstanceAttr.ENDED_AT, InstanceAttr.EXPIRES_AT
        return {
            "Update": {
                "TableName": self._table,
                "Key": {InstanceAttr.ID.value: {"S": instance_id}},
                "UpdateExpression": (
                    "SET #ended = if_not_exists(#ended, :now), "
                    "#expires = if_not_exists(#expires, :later)"
                ),
                "ExpressionAttributeNames": {"#ended": ended.value, "#expires": expires.value},
                "ExpressionAttributeValues": {
                    ":now": to_attribute(now),
                    ":later": to_attribute(int(now) + KEPT_SECONDS),
                },
            }
        }
