"""A job's record as a story, for people: what is known to have happened, in order.

Pure: nothing is asked of AWS. A record holds its last instance only; what came before is told by
the number of its tries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from runsfleet_runtime.contract.tables import JobAttr
from runsfleet_runtime.jobs.items import Item, number, record_from_item, text
from runsfleet_runtime.jobs.model import JobRecord, JobStatus, Rerun

_RERUNS = {
    Rerun.PENDING: "its end at GitHub is awaited, to re-run it there",
    Rerun.REQUESTED: "GitHub is asked to re-run it",
    Rerun.DONE: "re-run at GitHub",
    Rerun.GIVEN_UP: "not re-run at GitHub",
}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, or that is waited for.

    Attributes:
        at: Epoch seconds; ``None`` when the record does not say when.
        what: In a word.
        text: For people.
    """

    at: float | None
    what: str
    text: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"at": None if self.at is None else moment(self.at), "what": self.what} | (
            {"text": self.text} if self.text else {}
        )


def moment(seconds: float) -> str:
    """Return epoch seconds as ISO 8601 UTC.

    Example:
        >>> moment(0)
        '1970-01-01T00:00:00Z'
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def span(seconds: float) -> str:
    """Return a length of time for people.

    Example:
        >>> span(0.4), span(75), span(7384), span(90000)
        ('0 s', '1 min 15 s', '2 h 3 min', '25 h 0 min')
    """
    whole = int(seconds)
    if whole < 60:  # noqa: PLR2004  # seconds of a minute
        return f"{whole} s"
    if whole < 3600:  # noqa: PLR2004  # seconds of an hour
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole // 60 % 60} min"


def story(item: Item, *, now: float) -> list[Event]:
    """Return what a record tells, in order of time.

    Args:
        item: The record, as DynamoDB returns it.
        now: Epoch seconds.
    """
    record = record_from_item(item)
    happened = list(_happened(item, record))
    queued = record.job.queued_at
    happened.sort(key=lambda event: queued if event.at is None else event.at)
    return [*happened, *_waiting(record, now)]


def _happened(item: Item, record: JobRecord) -> Iterator[Event]:
    queued = record.job.queued_at
    yield Event(queued, "queued", f"at GitHub, for {', '.join(record.job.labels)}")
    requeues = record.job.requeues
    if requeues:
        times = "once" if requeues == 1 else f"{requeues} times"
        yield Event(None, "tried", f"dispatched again {times}; what follows is the last try")
    claimed = number(item, JobAttr.CLAIMED_AT)
    if claimed:
        yield Event(
            claimed, "claimed", f"by dispatch, {span(claimed - queued)} after it was queued"
        )
    if record.launched_at:
        yield Event(record.launched_at, "launched", _machine(record))
    if record.started_at:
        waited = span(record.started_at - queued)
        yield Event(record.started_at, "started", f"{waited} after it was queued")
    if record.interrupted_at:
        said = text(item, JobAttr.INTERRUPTION) or "EC2 took its instance"
        yield Event(record.interrupted_at, "interrupted", said)
    if record.completed_at:
        yield Event(record.completed_at, *_ending(item, record))
    if record.rerun is not None:
        reason = text(item, JobAttr.RERUN_REASON)
        told = _RERUNS[record.rerun]
        at = max(record.interrupted_at, record.completed_at) or None
        yield Event(at, "re-run", f"{told}: {reason}" if reason else told)


def _machine(record: JobRecord) -> str:
    kind = " ".join(filter(None, (record.capacity_type, record.instance_type)))
    where = f" in {record.availability_zone}" if record.availability_zone else ""
    return f"{record.instance_id} ({kind}{where})" if kind else record.instance_id


def _ending(item: Item, record: JobRecord) -> tuple[str, str]:
    error = text(item, JobAttr.ERROR)
    if record.status is JobStatus.EXPIRED:
        return "given up", error
    parts = [record.outcome or "closed"]
    if JobAttr.EXIT_CODE.value in item:
        parts.append(f"exit code {number(item, JobAttr.EXIT_CODE):.0f} of the runner")
    if error:
        parts.append(error)
    return "ended", ", ".join(parts)


def _waiting(record: JobRecord, now: float) -> Iterator[Event]:
    """Tell what happens next to a job that is not at its end."""
    match record.status:
        case JobStatus.QUEUED if record.not_before > now:
            yield Event(record.not_before, "next", "it is dispatched again, at the earliest")
        case JobStatus.QUEUED:
            yield Event(None, "next", "dispatch takes it from the queue")
        case JobStatus.CLAIMED if record.claim_expires_at <= now:
            yield Event(
                record.claim_expires_at, "next", "its claim ended; whoever gets its message has it"
            )
        case JobStatus.CLAIMED:
            yield Event(record.claim_expires_at, "next", "dispatch launches for it until then")
        case JobStatus.LAUNCHED:
            yield Event(None, "next", "its instance reports that the runner listens")
        case JobStatus.RUNNING:
            yield Event(None, "next", "its instance reports the end")
    if record.status in {JobStatus.QUEUED, JobStatus.CLAIMED} and record.deadline:
        yield Event(record.deadline, "deadline", "GitHub fails it then")
