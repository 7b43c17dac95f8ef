"""Reports of instances that the termination queue did not take: sent again from the bucket.

IAM lets an instance write one key only, which holds its id. So a report counts when it names the
instance of its key, and no other. It is sent, then deleted: it may arrive twice, never not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from runsfleet_runtime.contract.messages import ContractError, HousekeepingTask, RunnerReport
from runsfleet_runtime.contract.paths import KEPT_REPORTS_PREFIX, kept_report_key
from runsfleet_runtime.housekeeping.model import Run, Verdict, spare

LARGEST_BYTES: Final = 64 * 1024
"""A report has about one kilobyte; what is larger is none, and is not read."""
REFUSED_SECONDS: Final = 7 * 24 * 3600.0
"""What was refused stays so long for people to look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptReport:
    """An object in the folder of reports.

    Attributes:
        key: Its key.
        size: Bytes.
        written_at: Epoch seconds.
        content: Its text; ``None`` as long as it was not read.
    """

    key: str
    size: int
    written_at: float
    content: str | None = None


def decide(found: KeptReport, *, role_id: str, now: float) -> Verdict:
    """Judge a kept report.

    Args:
        found: The object.
        role_id: Unique id of the instances' role.
        now: Epoch seconds.
    """
    fault = _fault(found, role_id)
    if not fault:
        return Verdict("send", "not taken when it was reported")
    if now - found.written_at > REFUSED_SECONDS:
        return Verdict("delete", fault)
    return spare(fault)


def _fault(found: KeptReport, role_id: str) -> str:
    """Say why an object is no report of the instance that its key names; empty if it is."""
    if found.size > LARGEST_BYTES:
        return "refused: too large"
    if found.content is None:
        return ""  # not read yet
    try:
        report = RunnerReport.from_json(found.content)
    except ContractError:
        return "refused: not readable"
    if found.key != kept_report_key(role_id, report.instance_id):
        return "refused: of another instance than its key's"
    return ""


class KeepsObjects(Protocol):
    """The fleet's bucket. All methods raise ``SweepError`` when S3 does not answer."""

    def pages(self, prefix: str) -> Iterator[Sequence[KeptReport]]:
        """Yield the objects under a prefix, unread."""

    def read(self, key: str) -> str | None:
        """Return an object's text; ``None`` when it is gone."""

    def delete(self, key: str) -> None:
        """Delete an object; may be repeated."""


class SendsReports(Protocol):
    """The termination queue."""

    def send(self, report: RunnerReport) -> None:
        """Send a report; raises ``SweepError`` unless the queue has it for certain."""


class KeptReports:
    """The task.

    Args:
        bucket: The fleet's bucket.
        queue: The termination queue.
        role_id: Unique id of the instances' role.
    """

    name: Final = HousekeepingTask.KEPT_REPORTS
    limit: Final = 1000

    def __init__(
        self,
        *,
        bucket: KeepsObjects,
        queue: SendsReports,
        role_id: str,
    ) -> None:
        self._bucket = bucket
        self._queue = queue
        self._role_id = role_id

    def select(self, run: Run) -> Iterator[Sequence[KeptReport]]:
        """Yield what is kept."""
        del run
        return self._bucket.pages(KEPT_REPORTS_PREFIX)

    def key(self, found: KeptReport) -> str:
        """Return the object's key."""
        return found.key

    def decide(self, found: KeptReport, *, now: float) -> Verdict:
        """Judge; see :func:`decide`."""
        return decide(found, role_id=self._role_id, now=now)

    def reread(self, found: KeptReport) -> KeptReport | None:
        """Read the report itself, unless it is too large to be one."""
        if found.size > LARGEST_BYTES:
            return found
        content = self._bucket.read(found.key)
        if content is None:
            return None
        return KeptReport(
            key=found.key, size=found.size, written_at=found.written_at, content=content
        )

    def act(self, found: KeptReport, verdict: Verdict) -> bool:
        """Send it, then delete it."""
        if verdict.action == "send" and found.content is not None:
            self._queue.send(RunnerReport.from_json(found.content))
        self._bucket.delete(found.key)
        return True
