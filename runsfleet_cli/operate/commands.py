"""`runsfleet job`, `jobs`, `instance`, `session`, `logs`, `sweep`, `redispatch` and `audit`.

What changes something writes an audit row before it does so, or together with it. What is imported
here is imported by every command; the rest is imported by the command itself.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runsfleet_cli.options import (
    Fleet,
    Json,
    Local,
    Note,
    OperatorError,
    Profile,
    Region,
    console,
    open_session,
    told_errors,
)
from runsfleet_runtime.contract.messages import HousekeepingMessage, HousekeepingTask

if TYPE_CHECKING:
    from runsfleet_cli.deployed import AwsSession, OperatedEnvironment
    from runsfleet_cli.operate.audit import AuditRow, AuditTrail
    from runsfleet_cli.operate.machines import Machine
    from runsfleet_runtime.contract.metrics import MetricDefinition
    from runsfleet_runtime.jobs.items import Item
    from runsfleet_runtime.jobs.model import JobRecord
    from runsfleet_runtime.jobs.ports import Redispatched
    from runsfleet_runtime.jobs.reading.dynamodb import DynamoDBJobReader

_INSTANCE = re.compile(r"i-[0-9a-f]{8,17}")
_PRESENT = ("queued", "claimed", "launched", "running")
_STATES = (*_PRESENT, "completed", "expired")
_AUDIT_OF_JOB = 20
_OF_EVERY_LINE = frozenset(
    {"fleet", "instance_id", "job_id", "level", "logger", "message", "service", "time", "version"}
)
_PLUGIN = (
    "https://docs.aws.amazon.com/systems-manager/latest/userguide/"
    "session-manager-working-with-install-plugin.html"
)
_AWS_CLI = "https://docs.aws.amazon.com/cli/latest/userguide/getting-started-install.html"

JobId = Annotated[int, typer.Argument(metavar="JOB_ID", help="GitHub's id of the job.")]
JobOrInstance = Annotated[
    str, typer.Argument(metavar="JOB_ID|INSTANCE_ID", help="GitHub's id of a job, or EC2's id.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the `runsfleet` command."""
    for name, command in (
        ("job", show_job),
        ("jobs", list_jobs),
        ("instance", show_instance),
        ("session", start_session),
        ("logs", show_logs),
        ("sweep", run_sweep),
        ("redispatch", redispatch_job),
        ("audit", list_audit),
    ):
        app.command(name, rich_help_panel="A deployed fleet")(command)


def show_job(
    job_id: JobId,
    *,
    fleet: Fleet = None,
    region: Region = None,
    profile: Profile = None,
    local: Local = False,
    as_json: Json = False,
) -> None:
    """What happened to a job, from queued to its end, and what comes next."""
    with told_errors():
        from runsfleet_cli.operate.story import story

        access = _Access.find(fleet, region, profile, local=local)
        item = access.item(job_id)
        rows = access.audit.of(f"job:{job_id}", limit=_AUDIT_OF_JOB)
        events = story(item, now=time.time())
        if as_json:
            _print_json(
                _record_document(item)
                | {
                    "story": [event.as_dict() for event in events],
                    "audit": [row.as_dict() for row in rows],
                }
            )
            return
        _show_heading(item)
        _print_table(
            ("when (UTC)", "what", ""),
            [(_clock(event.at), event.what, event.text) for event in events],
        )
        if rows:
            typer.echo("\nby hand")
            _print_audit(rows)


def list_jobs(
    *,
    status: Annotated[
        list[str] | None,
        typer.Option("--status", "-s", help=f"One or more of {', '.join(_STATES)}."),
    ] = None,
    repository: Annotated[
        str | None, typer.Option("--repository", "-r", help="Only jobs of OWNER/NAME.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="At most so many of each status.")
    ] = 100,
    fleet: Fleet = None,
    region: Region = None,
    profile: Profile = None,
    local: Local = False,
    as_json: Json = False,
) -> None:
    """Jobs that wait and run now, the oldest of each status first."""
    with told_errors():
        wanted = _statuses(status or [])
        access = _Access.find(fleet, region, profile, local=local)
        now = time.time()
        records = [
            record
            for name in wanted
            for record in _first(access.reader, name, repository, limit=limit, now=now)
        ]
        if as_json:
            _print_json({"fleet": access.found.fleet, "jobs": [_plain(r) for r in records]})
            return
        if not records:
            of = f" of {repository}" if repository else ""
            typer.echo(f"no job{of} is {' or '.join(wanted)} in the fleet {access.found.fleet}")
            return
        from runsfleet_cli.operate.story import span

        _print_table(
            ("job", "status", "since", "repository", "name", "instance", "type", "tries"),
            [
                (
                    str(record.job.job_id),
                    record.status.value,
                    span(max(now - record.updated_at, 0)),
                    record.job.repository,
                    record.job.job_name,
                    record.instance_id,
                    " ".join(filter(None, (record.capacity_type, record.instance_type))),
                    str(record.job.requeues + 1),
                )
                for record in records
            ],
        )


def show_instance(
    of: JobOrInstance,
    *,
    fleet: Fleet = None,
    region: Region = None,
    profile: Profile = None,
    local: Local = False,
    as_json: Json = False,
) -> None:
    """The instance of a job, or the job of an instance."""
    with told_errors():
        from runsfleet_cli.operate.machines import find_machine

        access = _Access.find(fleet, region, profile, local=local)
        instance_id, record = access.pair(of)
        machine = find_machine(access.session.client("ec2"), instance_id, fleet=access.found.fleet)
        if machine is None and record is None:
            raise OperatorError(
                f"neither EC2 nor the fleet {access.found.fleet} knows the instance {instance_id}; "
                "EC2 forgets an instance about an hour after its end"
            )
        if as_json:
            _print_json(
                {
                    "instance": {"instance_id": instance_id, "state": None}
                    if machine is None
                    else machine.as_dict(),
                    "job": None if record is None else _plain(record),
                }
            )
            return
        _print_table(("", ""), [*_of_machine(instance_id, machine), *_of_job(record)])


def start_session(
    of: JobOrInstance,
    *,
    note: Note = "",
    fleet: Fleet = None,
    region: Region = None,
    profile: Profile = None,
    local: Local = False,
) -> None:
    """Open a shell on an instance by Session Manager; what is typed is logged.

    Needs the AWS CLI and its Session Manager plugin. It leaves an audit row.
    """
    with told_errors():
        from runsfleet_cli.operate.machines import check_session_document, find_machine

        if local:
            raise OperatorError(
                "instances of the local cloud are processes of this machine, which Session Manager "
                "does not reach; `runsfleet local page` shows their logs"
            )
        _check_tools()
        access = _Access.find(fleet, region, profile, local=False)
        instance_id, record = access.pair(of)
        machine = find_machine(access.session.client("ec2"), instance_id, fleet=access.found.fleet)
        if machine is None or machine.state != "running":
            state = "not known to EC2 any more" if machine is None else machine.state
            raise OperatorError(f"the instance {instance_id} is {state}; see its job's log instead")
        document = check_session_document(access.session.client("ssm"), access.found.fleet)
        about = f"of job {record.job.job_id}" if record else ""
        access.leave(f"instance:{instance_id}", "session", note or about)
        arguments = ["aws", "ssm", "start-session", "--target", instance_id]
        arguments += ["--document-name", document, "--region", access.session.region]
        if profile is not None:
            arguments += ["--profile", profile]
        os.execvp(arguments[0], arguments)  # noqa: S606  # a list of arguments, no shell


def show_logs(
    job_id: JobId,
    *,
    diagnostics: Annotated[
        bool, typer.Option("--diag", help="The runner's own diagnostics instead.")
    ] = False,
    fleet: Fleet = None,
    region: Region = None,
    profile: Profile = None,
    local: Local = False,
    as_json: Json = False,
) -> None:
    """The log of a job's instances: agent and runner, those of former tries first."""
    with told_errors():
        from runsfleet_cli.operate.machines import lines_of, log_group, streams_of

        access = _Access.find(fleet, region, profile, local=local)
        record = access.record(job_id)
        if not record.instance_id:
            raise OperatorError(f"job {job_id} is {record.status.value}: it has no instance yet")
        logs = access.session.client("logs")
        group = log_group(access.session.client("ec2"), access.found)
        found = False
        for stream in streams_of(logs, group, record, diagnostics=diagnostics):
            lines = lines_of(logs, group, stream)
            if lines is None:
                continue
            found = True
            if not as_json:
                typer.secho(f"{group} {stream}", bold=True, err=True)
            for line in lines:
                _print_line(stream, line, as_json=as_json)
        if not found:
            raise OperatorError(
                f"job {job_id} has no log in {group}: its instance {record.instance_id} wrote none "
                "yet, or it was deleted with age"
            )


def run_sweep(
    task: Annotated[
        HousekeepingTask, typer.Argument(metavar="TASK", help="Such as orphaned_instances.")
    ],
    *,
    note: Note = "",
    fleet: Fleet = None,
    region: Region = None,
    profile: Profile = None,
    local: Local = False,
) -> None:
    """Have a sweep carried out now, beside its schedule. It leaves an audit row."""
    with told_errors():
        access = _Access.find(fleet, region, profile, local=local)
        url = access.session.sweep_queue_url(access.found)
        access.leave(f"sweep:{task.value}", "asked", note)
        access.session.client("sqs").send_message(
            QueueUrl=url, MessageBody=HousekeepingMessage(task=task).to_json()
        )
        typer.echo(
            f"asked for {task.value}; its outcome is in the logs of the housekeeping function"
        )


def redispatch_job(
    job_id: JobId,
    *,
    on_demand: Annotated[
        bool, typer.Option("--on-demand", help="Never on spot from now on.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also a job that seems to run, or to have ended.")
    ] = False,
    note: Note = "",
    fleet: Fleet = None,
    region: Region = None,
    profile: Profile = None,
    local: Local = False,
) -> None:
    """Have a job dispatched again; GitHub gives it to one runner only, so it never runs twice.

    It leaves an audit row.
    """
    with told_errors():
        from runsfleet_runtime.jobs.ports import Redispatched

        access = _Access.find(fleet, region, profile, local=local)
        item = access.item(job_id)
        if not force:
            _check_is_worth_it(item)
        result = _redispatch(access, item, on_demand=on_demand, note=note)
        if result is Redispatched.SENT:
            typer.echo(f"job {job_id} is dispatched again; see `runsfleet job {job_id}`")
            return
        raise OperatorError(
            {
                Redispatched.SETTLED: (
                    f"job {job_id} is being dispatched, or became another meanwhile: nothing was "
                    f"done; see `runsfleet job {job_id}`"
                ),
                Redispatched.EXHAUSTED: (
                    f"job {job_id} is past its deadline, at which GitHub fails it, so it was "
                    "closed; re-run it at GitHub"
                ),
                Redispatched.UNKNOWN: (
                    f"job {job_id} may not be dispatched again: a table or the queue did not "
                    "answer, or you may not write to it; give the same command again"
                ),
            }[result]
        )


def list_audit(
    *,
    subject: Annotated[
        str | None,
        typer.Option("--subject", help="Only of this, such as job:42 or instance:i-0abc."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many rows.")] = 50,
    fleet: Fleet = None,
    region: Region = None,
    profile: Profile = None,
    local: Local = False,
    as_json: Json = False,
) -> None:
    """Who changed what, the latest first: by hand, and circuits by the functions."""
    with told_errors():
        access = _Access.find(fleet, region, profile, local=local)
        trail = access.audit
        rows = trail.latest(limit=limit) if subject is None else trail.of(subject, limit=limit)
        if as_json:
            _print_json({"fleet": access.found.fleet, "audit": [row.as_dict() for row in rows]})
        elif rows:
            _print_audit(rows)
        else:
            of = f" of {subject}" if subject else ""
            typer.echo(f"the audit table of the fleet {access.found.fleet} has no row{of}")


@dataclass(frozen=True)
class _Access:
    """A fleet and the way to it."""

    session: AwsSession
    found: OperatedEnvironment

    @classmethod
    def find(
        cls, fleet: str | None, region: str | None, profile: str | None, *, local: bool
    ) -> _Access:
        session = open_session(region, profile, local=local)
        return cls(session, session.operated(fleet))

    @property
    def reader(self) -> DynamoDBJobReader:
        from runsfleet_runtime.jobs.reading.dynamodb import DynamoDBJobReader

        return DynamoDBJobReader(self.session.client("dynamodb"), self.found.jobs_table)

    @property
    def audit(self) -> AuditTrail:
        from runsfleet_cli.operate.audit import AuditTrail

        return AuditTrail(self.session.client("dynamodb"), self.found.audit_table)

    def leave(self, subject: str, action: str, detail: str) -> None:
        """Write an audit row."""
        self.audit.put(
            subject=subject,
            actor=self.session.caller(),
            action=action,
            detail=detail,
            now=time.time(),
        )

    def item(self, job_id: int) -> Item:
        """Return the record of a job as it is stored."""
        from runsfleet_runtime.jobs.items import key

        item: Item = (
            self.session.client("dynamodb")
            .get_item(TableName=self.found.jobs_table, Key=key(job_id), ConsistentRead=True)
            .get("Item", {})
        )
        if not item:
            raise OperatorError(
                f"the fleet {self.found.fleet} has no record of job {job_id}: it never got a "
                "webhook for it that its labels match, dispatch has not taken it yet, or it ended "
                f"more than {self.found.job_retention_days} days ago"
            )
        return item

    def record(self, job_id: int) -> JobRecord:
        """Return the record of a job."""
        from runsfleet_runtime.jobs.items import record_from_item

        return record_from_item(self.item(job_id))

    def pair(self, of: str) -> tuple[str, JobRecord | None]:
        """Return an instance and its job, where it has one, by the id of either."""
        if _INSTANCE.fullmatch(of):
            return of, self.reader.of_instance(of)
        if not of.isdecimal():
            raise OperatorError(
                f"{of!r} is neither a job's id (digits) nor an instance's (i-0123456789abcdef0)"
            )
        record = self.record(int(of))
        if not record.instance_id:
            raise OperatorError(f"job {of} is {record.status.value}: it has no instance yet")
        return record.instance_id, record


class _Uncounted:
    """Metrics are told by the functions; each series has one writer."""

    def add(self, metric: MetricDefinition, value: float = 1, *, kind: str | None = None) -> None:
        """Count nothing."""


def _redispatch(access: _Access, item: Item, *, on_demand: bool, note: str) -> Redispatched:
    import logging
    import random

    from runsfleet_runtime.contract.metrics import Metric
    from runsfleet_runtime.jobs.dynamodb import DynamoDBJobs
    from runsfleet_runtime.jobs.items import record_from_item
    from runsfleet_runtime.jobs.ledger import InstanceLedger
    from runsfleet_runtime.jobs.model import Cause, JobStatus
    from runsfleet_runtime.jobs.redispatch import Redispatcher
    from runsfleet_runtime.jobs.slots import Caps
    from runsfleet_runtime.jobs.sqs import SqsJobs

    # the outcome is told by this command itself
    logging.getLogger("runsfleet").addHandler(logging.NullHandler())
    found, record = access.found, record_from_item(item)
    redispatcher = Redispatcher(
        records=DynamoDBJobs(
            access.session.client("dynamodb"),
            found.jobs_table,
            deadline_seconds=found.job_deadline_seconds,
            retention_seconds=found.job_retention_days * 24 * 3600,
            caps=Caps.of(
                found.slots_table,
                fleet=found.max_runners,
                owner=found.max_runners_per_owner,
                repository=found.max_runners_per_repository,
            ),
            ledger=InstanceLedger(found.instances_table),
        ),
        queue=SqsJobs(access.session.client("sqs"), found.jobs_queue_url),
        metrics=_Uncounted(),
        given_up=Metric.JOBS_GIVEN_UP,
        clock=time.time,
        jitter=random.random,
    )
    row: dict[str, Any] = {
        "subject": f"job:{record.job.job_id}",
        "actor": access.session.caller(),
        "action": "redispatched",
        "detail": f"it was {record.status.value}" + (f": {note}" if note else ""),
        "now": time.time(),
    }
    if record.status is JobStatus.QUEUED and not on_demand:
        # its record stays as it is but for the number of its message
        access.audit.put(**row)
        return redispatcher.resend(record, reason=note or "asked for by an operator")
    return redispatcher.redispatch(
        record,
        Cause.OPERATOR,
        on_demand=on_demand,
        reason=note,
        further=[{"Put": access.audit.write(**row)}],
    )


def _check_is_worth_it(item: Item) -> None:
    """Refuse what would most likely cost an instance that ends idle."""
    from runsfleet_runtime.contract.tables import JobAttr
    from runsfleet_runtime.jobs.items import number, record_from_item
    from runsfleet_runtime.jobs.model import JobStatus

    record = record_from_item(item)
    job_id = record.job.job_id
    if record.status is JobStatus.RUNNING:
        raise OperatorError(
            f"job {job_id} runs on {record.instance_id}; another runner would end idle, as GitHub "
            "gives a job to one only. If that instance is dead, say --force"
        )
    if record.status is JobStatus.COMPLETED and not number(item, JobAttr.UNSERVED):
        raise OperatorError(
            f"job {job_id} ended ({record.outcome or 'closed'}); re-run it at GitHub. If GitHub "
            "still shows it as queued, say --force"
        )


def _check_tools() -> None:
    if shutil.which("aws") is None:
        raise OperatorError(f"a session needs the AWS CLI, which is not installed; see {_AWS_CLI}")
    if shutil.which("session-manager-plugin") is None:
        raise OperatorError(
            f"a session needs the AWS CLI's Session Manager plugin, which is not installed; see "
            f"{_PLUGIN}"
        )


def _statuses(named: Sequence[str]) -> list[str]:
    for name in named:
        if name not in _STATES:
            raise OperatorError(f"--status must be one of {', '.join(_STATES)}, got {name!r}")
    return list(dict.fromkeys(named)) or list(_PRESENT)


def _first(
    reader: DynamoDBJobReader, status: str, repository: str | None, *, limit: int, now: float
) -> list[JobRecord]:
    from itertools import islice

    from runsfleet_runtime.jobs.model import JobStatus

    # what was written in this very second is there too, whatever this machine's clock says
    records = reader.in_status(JobStatus(status), updated_before=now + 60)
    wanted = (r for r in records if repository is None or r.job.repository == repository)
    return list(islice(wanted, limit))


def _record_document(item: Item) -> dict[str, Any]:
    """Return a record as it is stored, in plain values."""
    from boto3.dynamodb.types import TypeDeserializer

    plain = {name: TypeDeserializer().deserialize(value) for name, value in item.items()}
    return {"record": json.loads(json.dumps(plain, default=_number))}


def _number(value: Any) -> float:
    """Return DynamoDB's decimal as JSON has it."""
    return int(value) if value == int(value) else float(value)


def _plain(record: JobRecord) -> dict[str, Any]:
    """Return a record for programs, without what is empty."""
    from dataclasses import asdict

    document = asdict(record)
    job = document.pop("job")
    kept = ("job_id", "run_id", "run_attempt", "repository", "labels", "queued_at", "requeues")
    named = {name: job[name] for name in (*kept, "workflow_name", "job_name", "dispatch")}
    return named | {
        name: value
        for name, value in document.items()
        if value not in ("", None, 0.0) and name not in {"may_rerun", "has_slot"}
    }


def _show_heading(item: Item) -> None:
    from runsfleet_runtime.jobs.items import record_from_item

    record = record_from_item(item)
    job = record.job
    name = " / ".join(filter(None, (job.workflow_name, job.job_name)))
    typer.secho(f"job {job.job_id}: {record.status.value}", bold=True)
    typer.echo(f"{name or 'no name'}, {job.repository}, run {job.run_id}#{job.run_attempt}")
    typer.echo("")


def _of_machine(instance_id: str, machine: Machine | None) -> Iterable[tuple[str, str]]:
    yield "instance", instance_id
    if machine is None:
        yield "state", "EC2 does not know it any more"
        return
    yield "state", machine.state + (", kept by its tag" if machine.is_kept else "")
    yield "type", f"{machine.capacity_type} {machine.instance_type}"
    yield "zone", machine.availability_zone
    if machine.private_address:
        yield "address", machine.private_address
    yield "launched", machine.launched_at


def _of_job(record: JobRecord | None) -> Iterable[tuple[str, str]]:
    if record is None:
        yield "job", "none: no record names it"
        return
    job = record.job
    yield "job", str(job.job_id)
    yield "status", record.status.value
    yield "repository", job.repository
    yield "name", " / ".join(filter(None, (job.workflow_name, job.job_name)))
    yield "labels", ", ".join(job.labels)
    yield "runner", record.runner_name


def _print_audit(rows: Sequence[AuditRow]) -> None:
    _print_table(
        ("when (UTC)", "who", "what", "of", "detail"),
        [(row.at[:19], row.actor, row.action, row.subject, row.detail) for row in rows],
    )


def _print_line(stream: str, line: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        document = {"stream": stream, "at": line["timestamp"] / 1000, "message": line["message"]}
        typer.echo(json.dumps(document))
        return
    typer.echo(f"{_clock(line['timestamp'] / 1000)} {_readable(line['message'])}")


def _readable(message: str) -> str:
    """Return a line of the agent's JSON as people read it; any other line as it is.

    Example:
        >>> _readable('{"level":"INFO","message":"reported","fleet":"dev","status":"success"}')
        'INFO reported status=success'
    """
    try:
        fields = json.loads(message)
    except ValueError:
        return message.rstrip()
    if not isinstance(fields, dict) or "message" not in fields:
        return message.rstrip()
    more = (f"{name}={value}" for name, value in fields.items() if name not in _OF_EVERY_LINE)
    return " ".join([str(fields.get("level", "")), str(fields["message"]), *more]).strip()


def _print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(titles))
    for number, title in enumerate(titles, 1):
        table.add_column(title, no_wrap=number < len(titles))
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console().print(table)


def _print_json(document: Mapping[str, Any]) -> None:
    typer.echo(json.dumps(document, indent=1))


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
