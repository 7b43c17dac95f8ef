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
    ON_DEMAND = "on_demand"  # 1 when spot is out of the question, since an interruption
    INTERRUPTED_AT = "interrupted_at"  # epoch seconds; EC2 took, or announced to take, its instance
    INTERRUPTION = "interruption"  # what EC2 or the instance said of it, for people
    RERUN = "rerun"  # state of its re-run at GitHub: pending, requested, done, given_up
    RERUN_REASON = "rerun_reason"  # of that state, for people
    NO_RERUN = "no_rerun"  # 1 when its label says retry=false: a job that had started stays failed
    SLOT = "slot"  # 1 while it counts towards the caps on runners
    TRACEPARENT = "traceparent"  # span of the last dispatch; absent when nothing traces
    EXPIRES_AT = TTL_ATTRIBUTE


class JobIndex(StrEnum):
    """Global secondary indexes of the ``jobs`` table; each holds the keys alone.

    They lag behind the table: what they name is read again, consistently, before it is acted on.
    """

    BY_STATUS = "by-status"  # status, updated_at: what the sweeps ask for
    BY_INSTANCE = "by-instance"  # instance_id: whose job EC2 speaks of
    BY_RUN = "by-run"  # run_id: what became of a run's other jobs
    BY_RERUN = "by-rerun"  # rerun, updated_at: interrupted jobs alone, which are few


class RunnerAttr(StrEnum):
    """Attributes of the ``runners`` table: the configuration of each instance, and that it ended.

    The partition key is ``{role id}:{instance id}``. That is what IAM knows the instance by
    (``aws:userid`` of an EC2 role session), so a policy can bind each instance to its own item.
    """

    KEY = "instance_key"
    INSTANCE_ID = "instance_id"
    JOB_ID = "job_id"
    CONFIG = "config"  # RunnerConfig as JSON; gone with the instance's end
    CREATED_AT = "created_at"
    ENDED_AT = "ended_at"  # epoch seconds; its end was taken: nothing is owed to it any more
    EXPIRES_AT = TTL_ATTRIBUTE


class CircuitAttr(StrEnum):
    """Attributes of the ``circuit-state`` table: one item for each offering that ever failed."""

    OFFERING = "offering"  # partition key; {capacity type}:{instance type}:{zone}
    STATE = "state"  # closed, open, half-open
    FAILURES = "failures"  # epoch seconds of each that still counts, by its id
    TRIPS = "trips"  # how often in a row it opened; the cool-down grows with it
    OPENED_AT = "opened_at"
    OPEN_UNTIL = "open_until"  # epoch seconds; then one probe may pass, or when it was closed
    PROBE_UNTIL = "probe_until"  # epoch seconds; who probes must have answered by then
    REASON = "reason"  # of the last transition, for people
    VERSION = "version"  # one more with each write; a write names the one that it has seen
    UPDATED_AT = "updated_at"
    EXPIRES_AT = TTL_ATTRIBUTE


SWEEP_LEASE_PREFIX = "sweep:"
"""Beginning of the names of leases under which sweeps run; the task's name follows."""


class LeaseAttr(StrEnum):
    """Attributes of the ``leases`` table: who may run a task now, and what the task remembers."""

    NAME = "name"  # partition key, such as "sweep:orphaned_instances"
    OWNER = "owner"
    ENDS_AT = "ends_at"  # epoch seconds; the lease may be taken over afterwards
    STATE = "state"  # JSON of what the task must remember between its runs, such as a cursor
    RAN_AT = "ran_at"  # epoch seconds of the last run that ended
    OUTCOME = "outcome"  # of that run
    EXPIRES_AT = TTL_ATTRIBUTE


class SlotAttr(StrEnum):
    """Attributes of the ``slots`` table: how many runners each capped scope has now."""

    SCOPE = "scope"  # partition key: "fleet", "owner:acme" or "repository:acme/web"
    USED = "used"


class AuditAttr(StrEnum):
    """Attributes of the ``audit`` table: who changed what, and when."""

    SUBJECT = "subject"  # partition key, such as "circuit:spot:c7g.xlarge:eu-central-1a"
    AT = "at"  # sort key: ISO 8601 UTC with microseconds, and a random end
    ACTOR = "actor"
    ACTION = "action"
    DETAIL = "detail"
    EXPIRES_AT = TTL_ATTRIBUTE


class InstanceAttr(StrEnum):
    """Attributes of the ``instances`` table: what ran, for whom, and for how long."""

    ID = "instance_id"  # partition key
    JOB_ID = "job_id"  # for whose job it was launched
    REPOSITORY = "repository"
    WORKFLOW = "workflow_name"
    TYPE = "instance_type"
    ZONE = "availability_zone"
    CAPACITY_TYPE = "capacity_type"
    PLATFORM = "platform"
    POOL = "pool"  # omitted, never empty
    DISK_GIB = "disk_gib"
    PRIVATE = "private"  # 1 when it has no public address
    LAUNCHED_AT = "launched_at"  # epoch seconds
    LAUNCHED_ON = "launched_on"  # the day of that in UTC, ISO 8601
    ENDED_AT = "ended_at"  # epoch seconds; with it nothing is owed to the instance any more
    EXPIRES_AT = TTL_ATTRIBUTE


class InstanceIndex(StrEnum):
    """Global secondary indexes of the ``instances`` table; each holds all attributes."""

    BY_DAY = "by-day"  # launched_on, launched_at: what a day cost


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
