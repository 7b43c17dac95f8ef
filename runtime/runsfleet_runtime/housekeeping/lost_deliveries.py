"""Deliveries that did not arrive are delivered again.

GitHub never delivers again by itself, and a webhook that is lost is a job that nobody launches for.
So the App's delivery log is read, newest first, down to where the last run had read; what failed is
remembered until an attempt of it succeeds, and redelivered with growing pauses for a day. After
that GitHub has failed its job.

What is remembered (``Run.state``)::

    until   the log is read up to here, by GitHub's clock
    pass    the reading that is under way, while the log is longer than one run may read
    open    what failed and has not succeeded since, by guid

Gotchas:

- The log shows an attempt when it has ended, so it grows behind its newest entry, too: what was
  read last is read once more.
- A redelivery is a new entry of the log with the guid of the old one. A failed one never opens
  anything; else what was given up would begin anew.
- The first run of a fleet looks back an hour. What was lost before is found by asking for queued
  jobs (``unannounced_jobs``), as is everything that this sweep gives up.
- A redelivery of an event that had arrived does no harm: its job has a record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from runsfleet_runtime.contract.messages import HousekeepingTask
from runsfleet_runtime.contract.metrics import Metric
from runsfleet_runtime.github.errors import NotFoundError, RateLimitedError, RefusedError
from runsfleet_runtime.github.model import Delivery, DeliveryPage
from runsfleet_runtime.housekeeping.model import Run, Verdict, spare
from runsfleet_runtime.telemetry.log import get_logger
from runsfleet_runtime.telemetry.metrics import CountsMetrics

log = get_logger("housekeeping.lost_deliveries")

FIRST_LOOK_SECONDS: Final = 3600.0
OVERLAP_SECONDS: Final = 15 * 60.0
"""An attempt shows at most seconds after it began; GitHub throttles some, which takes longer."""
GIVEN_UP_SECONDS: Final = 24 * 3600.0
"""GitHub fails a job that waited this long, and lists deliveries for three days."""
FIRST_PAUSE_SECONDS: Final = 4 * 60.0
"""Below the five minutes between two runs: what failed is redelivered by the next one."""
LONGEST_PAUSE_SECONDS: Final = 3600.0
"""With the pause doubled each time, an event is redelivered 27 times at most."""
MAX_PAGES: Final = 100
"""Pages of a hundred at a stretch; 10,000 deliveries in five minutes are some 2,500 jobs."""
MAX_OPEN: Final = 2_000
"""About 100 bytes each, within DynamoDB's 400 KB for an item. What is beyond stays unread."""
_TOGETHER: Final = 25  # redeliveries between two looks at GitHub's rate limit
_ACTIONS: Final = ("queued", "completed")  # what the webhook acts on


class ReadsDeliveries(Protocol):
    """The App's delivery log; see :class:`~runsfleet_runtime.github.deliveries.DeliveryLog`."""

    def page(self, cursor: str | None = None) -> DeliveryPage:
        """Return a page, newest first; the newest one without a cursor."""

    def redeliver(self, delivery_id: int) -> None:
        """Ask GitHub to deliver an event again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenDelivery:
    """An event that did not arrive.

    Attributes:
        guid: The event.
        delivery_id: The newest attempt of it that is known to have failed.
        action: Of the job.
        failed_at: Epoch seconds of the first attempt that is known to have failed.
        tries: How often this sweep had it redelivered.
        tried_at: Epoch seconds of the last attempt.
    """

    guid: str
    delivery_id: int
    action: str
    failed_at: float
    tries: int
    tried_at: float

    @property
    def due_at(self) -> float:
        """Epoch seconds from which it may be redelivered."""
        pause = FIRST_PAUSE_SECONDS * 2.0 ** min(self.tries, 10)
        return self.tried_at + min(LONGEST_PAUSE_SECONDS, pause)


@dataclass(slots=True, kw_only=True)
class _Memory:
    """What is remembered; the form in which it is kept is known here alone."""

    until: float
    cursor: str | None = None  # where the reading under way goes on; None: at the newest
    top: float = 0.0  # the newest time that it has seen
    healed: set[str] = field(default_factory=set)  # guids of redeliveries that it saw succeed
    open: dict[str, OpenDelivery] = field(default_factory=dict)
    is_full: bool = False  # something was left unread for want of room

    @classmethod
    def of(cls, state: Mapping[str, Any], *, now: float) -> _Memory:
        memory = cls(until=now - FIRST_LOOK_SECONDS)
        try:
            memory.until = float(state["until"])
            if (reading := state.get("pass")) is not None:
                memory.cursor, memory.top = str(reading["cursor"]), float(reading["top"])
                memory.healed = set(reading["healed"])
            for guid, (number, action, failed_at, tries, tried_at) in state["open"].items():
                memory.open[guid] = OpenDelivery(
                    guid=guid,
                    delivery_id=int(number),
                    action=_ACTIONS[_ACTIONS.index(action)],
                    failed_at=float(failed_at),
                    tries=int(tries),
                    tried_at=float(tried_at),
                )
        except (KeyError, TypeError, ValueError, AttributeError):
            if state:
                log.error("what was remembered cannot be read; looking back anew")
            return cls(until=now - FIRST_LOOK_SECONDS)
        return memory

    def keep_in(self, state: dict[str, Any]) -> None:
        state.clear()
        state["until"] = self.until
        if self.cursor is not None:
            # one that is left out is redelivered once more, which does no harm
            healed = sorted(self.healed)[:MAX_OPEN]
            state["pass"] = {"cursor": self.cursor, "top": self.top, "healed": healed}
        state["open"] = {guid: _row(one) for guid, one in self.open.items()}

    @property
    def since(self) -> float:
        """What is older has been read."""
        return self.until - OVERLAP_SECONDS

    def take(self, page: Sequence[Delivery]) -> None:
        """Learn from a page; may be repeated."""
        for entry in page:
            self.top = max(self.top, entry.delivered_at)
            if entry.event != "workflow_job" or entry.action not in _ACTIONS:
                continue
            if entry.is_ok:
                self.open.pop(entry.guid, None)
                if entry.is_redelivery:  # its failures are older, so they come later
                    self.healed.add(entry.guid)
            elif entry.guid not in self.healed and entry.delivered_at >= self.since:
                self._take_failure(entry)

    def _take_failure(self, entry: Delivery) -> None:
        known = self.open.get(entry.guid)
        if known is not None:
            self.open[entry.guid] = replace(
                known,
                delivery_id=max(known.delivery_id, entry.id),
                failed_at=min(known.failed_at, entry.delivered_at),
                tried_at=max(known.tried_at, entry.delivered_at),
            )
        elif entry.is_redelivery:
            return
        elif len(self.open) >= MAX_OPEN:
            self.is_full = True
        else:
            self.open[entry.guid] = OpenDelivery(
                guid=entry.guid,
                delivery_id=entry.id,
                action=entry.action,
                failed_at=entry.delivered_at,
                tries=0,
                tried_at=entry.delivered_at,
            )

    def has_read(self, page: DeliveryPage) -> bool:
        """Whether nothing older than this page is to be read."""
        if page.following is None or not page.deliveries:
            return True
        return page.deliveries[-1].delivered_at < self.since

    def end_pass(self) -> None:
        self.until = max(self.until, self.top)
        self.forget_pass()

    def forget_pass(self) -> None:
        self.cursor, self.top, self.healed = None, 0.0, set()


class LostDeliveries:
    """The sweep.

    Args:
        deliveries: The App's delivery log.
        metrics: Where metrics go.
        clock: Returns epoch seconds.
    """

    name = HousekeepingTask.LOST_DELIVERIES
    limit = 300
    """GitHub allows 180 requests of this kind in a minute."""

    def __init__(
        self,
        *,
        deliveries: ReadsDeliveries,
        metrics: CountsMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._deliveries = deliveries
        self._metrics = metrics
        self._clock = clock
        self._memory = _Memory(until=0.0)
        self._state: dict[str, Any] = {}
        self._is_limited = False

    def select(self, run: Run) -> Iterator[Sequence[OpenDelivery]]:
        """Read the log on, then return what is open, jobs that wait for a runner first."""
        self._memory = _Memory.of(run.state, now=run.now)
        self._state = run.state
        self._is_limited = False
        self._read()
        self._give_up(run.now)
        found = sorted(
            self._memory.open.values(),
            key=lambda one: (_ACTIONS.index(one.action), one.failed_at),
        )
        for start in range(0, len(found), _TOGETHER):
            yield found[start : start + _TOGETHER]
            if self._is_limited:
                log.warning("redeliveries wait for github's rate limit")
                return

    def key(self, found: OpenDelivery) -> str:
        """Return the event's guid."""
        return found.guid

    def decide(self, found: OpenDelivery, *, now: float) -> Verdict:
        """Redeliver what has not been tried lately."""
        if now < found.due_at:
            return spare("its last attempt was just now")
        return Verdict("redeliver", "no attempt has succeeded")

    def reread(self, found: OpenDelivery) -> OpenDelivery | None:
        """Return what is known of it: the log was just read, and cannot be asked for a guid."""
        return self._memory.open.get(found.guid)

    def act(self, found: OpenDelivery, verdict: Verdict) -> bool:
        """Redeliver it; False when GitHub's log does not have it any more."""
        del verdict  # there is but one
        try:
            self._deliveries.redeliver(found.delivery_id)
        except NotFoundError:
            self._memory.open.pop(found.guid, None)
            self._state["open"].pop(found.guid, None)
            return False
        except RateLimitedError:
            self._is_limited = True
            raise
        tried = replace(found, tries=found.tries + 1, tried_at=self._clock())
        self._memory.open[found.guid] = tried
        self._state["open"][found.guid] = _row(tried)
        self._metrics.add(Metric.DELIVERIES_REDELIVERED)
        return True

    def _read(self) -> None:
        """Read the log on: the rest of a pass that is under way, then what came since it began."""
        was_resumed = self._memory.cursor is not None
        if self._read_pass() and was_resumed:
            self._read_pass()

    def _read_pass(self) -> bool:
        """Read down to what was read before; False if it is not reached."""
        memory, cursor, is_done = self._memory, self._memory.cursor, False
        for _ in range(MAX_PAGES):
            try:
                page = self._deliveries.page(cursor)
            except (NotFoundError, RefusedError):
                # a cursor that GitHub does not know any more
                memory.forget_pass()
                memory.keep_in(self._state)
                raise
            memory.take(page.deliveries)
            is_done, cursor = memory.has_read(page), page.following
            if is_done:
                break
            if not memory.is_full:  # never past what is not remembered
                memory.cursor = cursor
                memory.keep_in(self._state)
        if memory.is_full:
            log.error("more has failed than can be remembered", extra={"open": MAX_OPEN})
            # all is read again, from the newest on: there successes show, which make room
            memory.forget_pass()
        elif is_done:
            memory.end_pass()
        else:
            log.warning("the log is longer than a run may read; the next one goes on")
        memory.keep_in(self._state)
        return is_done and not memory.is_full

    def _give_up(self, now: float) -> None:
        late = [one for one in self._memory.open.values() if now > one.failed_at + GIVEN_UP_SECONDS]
        for one in late:
            log.error(
                "delivery given up",
                extra={
                    "guid": one.guid,
                    "delivery_id": one.delivery_id,
                    "action": one.action,
                    "tries": one.tries,
                },
            )
            del self._memory.open[one.guid]
            self._metrics.add(Metric.DELIVERIES_GIVEN_UP)
        self._memory.keep_in(self._state)


def _row(one: OpenDelivery) -> list[Any]:
    return [one.delivery_id, one.action, one.failed_at, one.tries, one.tried_at]
