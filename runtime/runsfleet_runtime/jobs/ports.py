"""What the use cases of jobs need of the outside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol

from runsfleet_runtime.contract.messages import JobEndedMessage, JobMessage, RunnerReport
from runsfleet_runtime.jobs.model import (
    Cause,
    ClaimResult,
    JobRecord,
    JobStatus,
    Launch,
)


class RecordUnknownError(Exception):
    """The table of jobs did not answer: nothing is known, and the message must come back."""


class ClaimsJobs(Protocol):
    """The records of jobs, as dispatch moves them. No method raises for a failed call."""

    def claim(
        self, jobs: Sequence[JobMessage], *, claim_ids: Sequence[str], now: float
    ) -> Sequence[ClaimResult]:
        """Claim each job for this worker; one result for each, in order."""

    def wait(self, jobs: Sequence[JobMessage], *, now: float) -> Sequence[bool]:
        """Record jobs that found no slot as queued until their ``not_before``.

        Afterwards they are as jobs that were claimed and released: the message is a dispatch
        further. Returns for each whether that is recorded; if not, its message must come back.
        """

    def record_launches(
        self, launches: Sequence[tuple[Launch, Sequence[Mapping[str, Any]]]], *, now: float
    ) -> Sequence[bool | None]:
        """Move claimed jobs to launched, each together with further writes, all or nothing.

        Returns for each whether it is recorded; None when the table did not answer.
        """

    def release(self, job: JobMessage, claim_id: str, *, not_before: float, now: float) -> bool:
        """Hand a claimed job back; False when the claim was lost or the table did not answer."""

    def expire(self, job: JobMessage, claim_id: str, *, error: str, now: float) -> bool:
        """Give a claimed job up; False when the claim was lost or the table did not answer."""


class Moved(StrEnum):
    """What became of a report's move."""

    DONE = "done"
    KNOWN = "known"  # an earlier report of the same instance was faster
    OVERTAKEN = "overtaken"  # a start whose instance's end was faster, and has told of it
    REFUSED = "refused"  # the job is another instance's, or there is none
    UNKNOWN = "unknown"  # the table did not answer


class EndsJobs(Protocol):
    """The records of jobs, as the reports of instances move them."""

    def start(self, reports: Sequence[RunnerReport], *, now: float) -> Sequence[Moved]:
        """Move launched jobs to running; each job at most once in a call."""

    def end(
        self,
        reports: Sequence[tuple[RunnerReport, Sequence[Mapping[str, Any]]]],
        *,
        now: float,
    ) -> Sequence[bool | None]:
        """Close jobs, each together with further writes.

        Returns for each whether it was closed: False when it is not this instance's any more (or
        was closed before), None when the table did not answer.
        """

    def end_interrupted(
        self, report: RunnerReport, further: Sequence[Mapping[str, Any]], *, now: float
    ) -> bool | None:
        """Close an interrupted job whose re-run is pending from now on; otherwise as :meth:`end`.

        A re-run that is awaited already stays as it is.
        """


class ReadsJobs(Protocol):
    """The records of jobs, read consistently.

    What an index names is read again, one by one, before it is returned: an index lags behind.
    All methods raise :class:`RecordUnknownError` if the table did not answer.
    """

    def get(self, job_id: int) -> JobRecord | None:
        """Return a job's record; None when there is none."""

    def of_instance(self, instance_id: str) -> JobRecord | None:
        """Return the job whose record names this instance; None when there is none."""

    def of_run(self, run_id: int) -> Sequence[JobRecord]:
        """Return all jobs of a run that have a record."""

    def in_status(
        self, status: JobStatus, *, updated_before: float, limit: int | None = None
    ) -> Iterator[JobRecord]:
        """Return the jobs of a status that were last written before then, oldest first.

        Args:
            status: The status.
            updated_before: Epoch seconds.
            limit: Look at so many only.
        """


class KnowsRuns(Protocol):
    """The records of jobs, as dispatch needs those of an earlier attempt."""

    def of_run(self, run_id: int) -> Sequence[JobRecord]:
        """Return all jobs of a run that have a record; raises ``RecordUnknownError``."""


class HandsJobsBack(Protocol):
    """The records of jobs, as they are dispatched again.

    Each write names what was observed: status, instance and dispatch number. All methods raise
    :class:`RecordUnknownError` if the table did not answer.
    """

    def hand_back(
        self,
        observed: JobRecord,
        message: JobMessage,
        further: Sequence[Mapping[str, Any]],
        *,
        now: float,
    ) -> JobMessage | None:
        """Make a record claimable by a message, together with further writes.

        Returns the message to send: this one, or the one that an earlier try with the same record
        made; None when the record is another by now.
        """

    def give_up(
        self,
        observed: JobRecord,
        further: Sequence[Mapping[str, Any]],
        *,
        error: str,
        now: float,
    ) -> bool:
        """Close a record as expired, for good, together with further writes.

        Returns whether it is closed so, by this try or an earlier one of the same reason.
        """


class Redispatched(StrEnum):
    """What became of a job that was to be dispatched again."""

    SENT = "sent"  # its record is claimable and its message is on the queue
    SETTLED = "settled"  # the record is not what was observed any more: nothing was done
    EXHAUSTED = "exhausted"  # its budget or its time is spent: closed, with the reason
    UNKNOWN = "unknown"  # the table or the queue did not answer: ask again


class RedispatchesJobs(Protocol):
    """The one way by which a job is dispatched again, whatever the cause."""

    def redispatch(
        self,
        observed: JobRecord,
        cause: Cause,
        *,
        on_demand: bool = False,
        reason: str = "",
        further: Sequence[Mapping[str, Any]] = (),
    ) -> Redispatched:
        """Make a job's record claimable, then send its message.

        May be repeated with the same ``observed``, or with the queued record that it made: the same
        message is sent again.

        Args:
            observed: The record as it was read; nothing is done if its status, instance or
                dispatch number is another by now.
            cause: Why.
            on_demand: Whether spot is out of the question from now on.
            reason: For people.
            further: Writes that belong to it, such as the deletion of a configuration.
        """

    def resend(self, observed: JobRecord, *, reason: str = "") -> Redispatched:
        """Send another message for a queued job whose message was lost.

        It has a new dispatch number, so that the queue does not take it for a repetition; should
        the old message turn up again, it finds that it is outdated. Costs no budget. May be
        repeated with the same ``observed``: the same message is sent again.

        Args:
            observed: The record as it was read.
            reason: For people.
        """


class ClosesJobs(Protocol):
    """Closes jobs that nobody needs any more."""

    def cancel(self, ended: JobEndedMessage, *, now: float) -> JobRecord | None:
        """Close a job that ended at GitHub before a runner of ours had it.

        A job without a record gets a closed one, so that a message that is still on the queue
        finds it settled. A job that is running is left to its instance.

        Returns the record as it was before; None when there was none.

        Raises:
            RecordUnknownError: If the table did not answer.
        """


class SendsJobs(Protocol):
    """The jobs queue."""

    def send(self, jobs: Sequence[JobMessage]) -> Sequence[bool]:
        """Send messages; whether each is certain to be on the queue, in order."""

    def defer(self, receipt_handle: str, seconds: float) -> None:
        """Let a received message come back after ``seconds``; best effort."""
