"""What the use cases of this room need of the outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from runsfleet_runtime.contract.messages import JobEndedMessage, RerunMessage
from runsfleet_runtime.github.model import Removal
from runsfleet_runtime.jobs.model import JobRecord, Rerun


class Noted(StrEnum):
    """What became of a note on a record."""

    NEW = "new"
    KNOWN = "known"  # an earlier event, or try, noted it already
    SETTLED = "settled"  # the record is another instance's, or closed, by now


class NotesInterruptions(Protocol):
    """Notes on records; none of them moves a job.

    Each is one write that names what was observed. All raise
    :class:`~runsfleet_runtime.jobs.ports.RecordUnknownError` if the table did not answer.
    """

    def note_interruption(
        self, observed: JobRecord, *, at: float, reason: str, now: float
    ) -> Noted:
        """Note that EC2 takes the instance of an open record: spot is out of the question now.

        Args:
            observed: The record as it was read.
            at: Epoch seconds of EC2's event.
            reason: For people.
            now: Epoch seconds.
        """

    def note_rerun(self, observed: JobRecord, state: Rerun, *, reason: str, now: float) -> bool:
        """Move the re-run of a job to another state; False when it is not as observed any more.

        Args:
            observed: The record as it was read; its re-run's state is named as well.
            state: The new state.
            reason: For people.
            now: Epoch seconds.
        """


class KnowsLaunches(Protocol):
    """What the fleet launched, and what of it has left its job."""

    def have_left(self, instance_ids: Sequence[str]) -> Mapping[str, bool]:
        """Return for each instance of this fleet whether it has left its job; others are absent.

        Raises:
            RecordUnknownError: If the table did not answer.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """An instance of this fleet, as EC2 knows it.

    Attributes:
        instance_id: Its id.
        instance_type: Its type.
        availability_zone: Its zone.
        capacity_type: ``spot`` or ``on-demand``.
        state: ``pending``, ``running``, ``stopping``, ``stopped``, ``shutting-down`` or
            ``terminated``.
        launched_at: Epoch seconds.
    """

    instance_id: str
    instance_type: str
    availability_zone: str
    capacity_type: str
    state: str
    launched_at: float


class InstanceUnknownError(Exception):
    """EC2 could not be asked: nothing is known of the instance."""


class KnowsInstances(Protocol):
    """EC2, as events need it."""

    def find(self, instance_id: str) -> Instance | None:
        """Return an instance of this fleet; None when it is none of ours, or EC2 forgot it.

        Raises:
            InstanceUnknownError: If EC2 could not be asked.
        """

    def terminate(self, instance_id: str) -> bool:
        """Terminate an instance of this fleet; False when that is not certain."""


class SendsEvents(Protocol):
    """The events queue. No method raises for a failed call."""

    def send(self, message: JobEndedMessage | RerunMessage, *, delay: float = 0) -> bool:
        """Send a message of ours; whether it is certain to be on the queue.

        Args:
            message: The message.
            delay: Seconds after which it appears, at most 900 (an SQS quota).
        """

    def defer(self, receipt_handle: str, seconds: float) -> None:
        """Let a received message come back after ``seconds``; best effort."""


class RemovesRunners(Protocol):
    """GitHub's list of runners; see :class:`~runsfleet_runtime.github.registration`."""

    def deregister(
        self,
        repository: str,
        *,
        instance_id: str,
        installation_id: int | None = None,
        deadline: float | None = None,
    ) -> Removal:
        """Remove the runner of an instance, unless it has a job.

        Raises:
            GitHubError: If GitHub could not be asked; whether the runner is gone is unknown then.
        """
