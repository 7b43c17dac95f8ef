"""Table, attribute and key names of the fleet's DynamoDB tables.

The constructs create the tables from these names and the runtime reads and writes by them, so a
rename happens here or nowhere. Physical table names are CloudFormation's and travel by environment
variable.

Gotcha: DynamoDB's TTL deletes late (typically within two days). Readers filter on ``expires_at``
themselves and no lock may ever rely on it.
"""

from __future__ import annotations

from enum import StrEnum

TTL_ATTRIBUTE = "expires_at"
"""Epoch seconds; the one TTL attribute of every table that has one."""


class JobAttr(StrEnum):
    """Attributes of the ``jobs`` table: one item for each job that GitHub queued for this fleet."""

    ID = "job_id"  # partition key; GitHub's job id as a string
    STATUS = "status"
    RUN_ID = "run_id"
    RUN_ATTEMPT = "run_attempt"
    REPOSITORY = "repository"
    WORKFLOW = "workflow_name"
    NAME = "job_name"
    LABELS = "labels"  # byte for byte as GitHub sent them
    INSTALLATION_ID = "installation_id"
    REQUEUES = "requeues"  # how often an instance of it ended without having served it
    DISPATCH = "dispatch"  # how often this job was handed to dispatch, from 0
    RENEWED = "renewed_dispatch"  # the dispatch whose registration was renewed; once for each
    CLAIM_ID = "claim_id"
    CLAIM_EXPIRES_AT = "claim_expires_at"  # epoch seconds
    NOT_BEFORE = "not_before"  # epoch seconds; a requeued job waits until then
    DEADLINE = "deadline"  # epoch seconds; GitHub fails the job after it
    INSTANCE_ID = "instance_id"
    INSTANCE_TYPE = "instance_type"
    CAPACITY_TYPE = "capacity_type"
    ZONE = "availability_zone"
    RUNNER_NAME = "runner_name"
    POOL = "pool"  # omitted, never empty
    QUEUED_AT = "queued_at"  # epoch seconds, GitHub's clock
    CLAIMED_AT = "claimed_at"
    LAUNCHED_AT = "launched_at"
    STARTED_AT = "started_at"
    COMPLETED_AT = "completed_at"
    UPDATED_AT = "updated_at"
    OUTCOME = "outcome"
    UNSERVED = "unserved"  # 1 when closed by an instance that ran none of its run's jobs
    EXIT_CODE = "exit_code"
    ERROR = "error"
    EXPIRES_AT = TTL_ATTRIBUTE


class RunnerAttr(StrEnum):
    """Attributes of the ``runners`` table: the configuration of each instance.

    The partition key is ``{role id}:{instance id}``. That is what IAM knows the instance by
    (``aws:userid`` of an EC2 role session), so a policy can bind each instance to its own item.
    """

    KEY = "instance_key"
    INSTANCE_ID = "instance_id"
    JOB_ID = "job_id"
    CONFIG = "config"  # RunnerConfig as JSON
    CREATED_AT = "created_at"
    EXPIRES_AT = TTL_ATTRIBUTE


def instance_key(role_id: str, instance_id: str) -> str:
    """Return the partition key of an instance's item in the ``runners`` table.

    Args:
        role_id: Unique id of the instance role (``AROA…``), not its name.
        instance_id: The EC2 instance id.

    Returns:
        The value that IAM's ``${aws:userid}`` takes for that instance.

    Example:
        >>> instance_key("AROAEXAMPLE", "i-0abc")
        'AROAEXAMPLE:i-0abc'
    """
    return f"{role_id}:{instance_id}"
