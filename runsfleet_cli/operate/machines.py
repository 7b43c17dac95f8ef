"""Instances of a fleet, their logs and the way onto them, as EC2, Logs and SSM know them."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from botocore.exceptions import ClientError

from runsfleet_cli.deployed import OperatedEnvironment
from runsfleet_cli.options import OperatorError
from runsfleet_runtime.contract.environment import variable_name
from runsfleet_runtime.contract.paths import diagnostics_stream, log_stream, session_document
from runsfleet_runtime.contract.tags import Tag
from runsfleet_runtime.jobs.model import JobRecord

# of bash, or of PowerShell
_LOG_GROUP = re.compile(
    rf"^(?:export | +\$env:){variable_name('log_group')} ?= ?'?([^'\s]+)", re.MULTILINE
)
_GONE = frozenset({"InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"})
_NO_STREAM = "ResourceNotFoundException"
_STREAM_PAGES = 40
"""Pages of 50 streams that are looked through for a job's former instances."""


@dataclass(frozen=True, slots=True)
class Machine:
    """An instance.

    Attributes:
        instance_id: Its id.
        state: EC2's: pending, running, shutting-down, terminated, ...
        instance_type: Such as ``c7g.xlarge``.
        capacity_type: ``spot`` or ``on-demand``.
        availability_zone: Its zone.
        private_address: Its address within the network; empty once it is terminated.
        launched_at: ISO 8601 UTC.
        is_kept: Whether an operator's tag keeps sweeps away from it.
    """

    instance_id: str
    state: str
    instance_type: str
    capacity_type: str
    availability_zone: str
    private_address: str
    launched_at: str
    is_kept: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def find_machine(ec2: Any, instance_id: str, *, fleet: str) -> Machine | None:
    """Return an instance of a fleet; ``None`` when EC2 does not know it, or no more.

    Raises:
        OperatorError: If it is not of this fleet.
    """
    try:
        answer = ec2.describe_instances(InstanceIds=[instance_id])
    except ClientError as error:
        if error.response["Error"]["Code"] in _GONE:
            return None
        raise
    for reservation in answer["Reservations"]:
        for found in reservation["Instances"]:
            tags = {tag["Key"]: tag["Value"] for tag in found.get("Tags", [])}
            if tags.get(Tag.FLEET) != fleet:
                raise OperatorError(
                    f"the instance {instance_id} is not of the fleet {fleet}; its tag "
                    f"{Tag.FLEET.value} is {tags.get(Tag.FLEET)!r}"
                )
            return _machine(found, tags)
    return None


def _machine(found: Mapping[str, Any], tags: Mapping[str, str]) -> Machine:
    return Machine(
        instance_id=found["InstanceId"],
        state=found["State"]["Name"],
        instance_type=found["InstanceType"],
        capacity_type="spot" if found.get("InstanceLifecycle") == "spot" else "on-demand",
        availability_zone=found["Placement"]["AvailabilityZone"],
        private_address=found.get("PrivateIpAddress", ""),
        launched_at=found["LaunchTime"].strftime("%Y-%m-%dT%H:%M:%SZ"),
        is_kept=Tag.KEEP in tags,
    )


def log_group(ec2: Any, found: OperatedEnvironment) -> str:
    """Return the log group of a fleet's instances, as their first script names it.

    Raises:
        OperatorError: If they write no log.
    """
    for target in found.launch_targets:
        answer = ec2.describe_launch_template_versions(
            LaunchTemplateId=target.launch_template_id, Versions=[target.launch_template_version]
        )
        for version in answer["LaunchTemplateVersions"]:
            script = base64.b64decode(version["LaunchTemplateData"].get("UserData", "")).decode()
            named = _LOG_GROUP.search(script)
            if named:
                return named[1]
    raise OperatorError(
        f"instances of the fleet {found.fleet} write no log: their launch templates name no group"
    )


def streams_of(logs: Any, group: str, record: JobRecord, *, diagnostics: bool) -> list[str]:
    """Return the streams that a job may have, those of former instances first.

    Args:
        logs: A CloudWatch Logs client.
        group: The log group.
        record: The job's record.
        diagnostics: Whether those of the runner's own diagnostics are meant.
    """
    job_id = record.job.job_id
    make = diagnostics_stream if diagnostics else log_stream
    found = [make(record.instance_id, job_id)] if record.instance_id else []
    if record.job.requeues:
        former = _former_streams(logs, group, make("", job_id), since=record.job.queued_at)
        found = [*sorted(set(former) - set(found)), *found]
    return found


def _former_streams(logs: Any, group: str, ending: str, *, since: float) -> Iterator[str]:
    """Yield the streams of other instances that were written to since a job was queued."""
    pages = logs.get_paginator("describe_log_streams").paginate(
        logGroupName=group, orderBy="LastEventTime", descending=True
    )
    for number, page in enumerate(pages):
        for stream in page["logStreams"]:
            if stream.get("lastEventTimestamp", since * 1000) < since * 1000:
                return
            if stream["logStreamName"].endswith(ending):
                yield stream["logStreamName"]
        if number + 1 >= _STREAM_PAGES:
            return


def lines_of(logs: Any, group: str, stream: str) -> Iterator[Mapping[str, Any]] | None:
    """Return the lines of a stream, each with its time; ``None`` when there is no such stream."""
    try:
        first = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True)
    except ClientError as error:
        if error.response["Error"]["Code"] == _NO_STREAM:
            return None
        raise
    return _lines(logs, group, stream, first)


def _lines(
    logs: Any, group: str, stream: str, page: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    token = None
    # the end is told by a token that stays the same; a page in between may be empty
    while page["nextForwardToken"] != token:
        yield from page["events"]
        token = page["nextForwardToken"]
        page = logs.get_log_events(
            logGroupName=group, logStreamName=stream, startFromHead=True, nextToken=token
        )


def check_session_document(ssm: Any, fleet: str) -> str:
    """Return the document by which sessions on a fleet's instances are opened and logged.

    Raises:
        OperatorError: If there is none.
    """
    name = session_document(fleet)
    try:
        ssm.describe_document(Name=name)
    except ClientError as error:
        if error.response["Error"]["Code"] != "InvalidDocument":
            raise
        raise OperatorError(
            f"the fleet {fleet} has no session document {name!r}, so it was deployed with "
            "session_manager=False or by an earlier version; deploy it again with session_manager"
        ) from None
    return name
