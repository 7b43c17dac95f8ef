"""Bring the agent's and the runner's lines to the log service, beside the job and never in its way.

Lifecycle: lines are gathered from the agent's first moment on; once it knows its job, one thread
sends them, a batch when 5 s or 1 MB are together; at the end all that is left, within a bound.

Gotchas:
    * Whoever writes a line never waits for the network. Only a full batch costs it a file's write.
    * A failing service is tried again with growing pauses; meanwhile batches wait in the spool.
    * Lines are masked before they are kept, so that no secret reaches the disk either.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from runsfleet_runtime.agent.errors import LogsRefusedError
from runsfleet_runtime.agent.log_batches import Gathering, LogBatch, batches
from runsfleet_runtime.agent.retry import jittered
from runsfleet_runtime.telemetry.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from runsfleet_runtime.agent.log_spool import Spool
    from runsfleet_runtime.agent.masking import Masker
    from runsfleet_runtime.agent.ports import TakesLogs

INTERVAL_SECONDS: Final = 5.0
"""A line waits no longer than this for others of its batch (origin: 5 s or 1 MB)."""

FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 30.0
_LAST_PAUSE_SECONDS = 0.5  # between tries when the end is near

_log = get_logger("agent.shipper")


class LogShipper:
    """Ships lines. Satisfies ``ShipsLogs``.

    Args:
        service: Where to.
        spool: Where batches wait.
        mask: Takes secrets out.
        draw: Random numbers in [0, 1).
        interval: Seconds that a line waits for others.
    """

    def __init__(
        self,
        service: TakesLogs,
        *,
        spool: Spool,
        mask: Masker,
        draw: Callable[[], float],
        interval: float = INTERVAL_SECONDS,
    ) -> None:
        self._service = service
        self._spool = spool
        self._mask = mask
        self._draw = draw
        self._interval = interval
        self._gathering = Gathering()
        self._since = 0.0  # when the oldest gathered line came
        self._stream = ""
        self._closing = False
        # re-entrant: a signal handler may log while this very thread holds it
        self._changed = threading.Condition(threading.RLock())
        self._thread = threading.Thread(target=self._live, daemon=True, name="log-shipper")

    def write(self, at: int, text: str) -> None:
        """Take a line; ``at`` in epoch milliseconds."""
        with self._changed:
            if self._closing:
                return
            if not len(self._gathering):
                self._since = time.monotonic()
                self._changed.notify()
            for events in self._gathering.add(at, self._mask(text)):
                self._spool.append(LogBatch("", events))
                self._changed.notify()

    def begin(self, stream: str) -> None:
        """Start to send to a stream; only the first call counts."""
        with self._changed:
            if not self._stream:
                self._stream = stream
                self._thread.start()

    def attach(self, stream: str, lines: Iterable[tuple[int, str]]) -> None:
        """Send lines of another kind to a stream of their own, behind what has gathered.

        Args:
            stream: Its name.
            lines: Epoch milliseconds and text of each.
        """
        made = [LogBatch(stream, e) for e in batches((at, self._mask(text)) for at, text in lines)]
        with self._changed:
            self._seal()
            for batch in made:
                self._spool.append(batch)
            self._changed.notify()

    def close(self, seconds: float) -> bool:
        """Send what is left and stop; whether all of it was sent.

        Args:
            seconds: How long that may take.
        """
        with self._changed:
            self._seal()
            self._closing = True
            self._changed.notify()
            begun = self._thread.is_alive()
        if begun:
            self._thread.join(seconds)
        with self._changed:
            complete = begun and not self._thread.is_alive() and not self._spool.lost
            self._spool.clear()
        return complete

    def _live(self) -> None:
        failures = 0
        while (batch := self._next(failures)) is not None:
            try:
                self._service.put(batch.stream or self._stream, batch.events)
            except LogsRefusedError as error:
                # it would be refused for ever, and all that is behind it would wait as long
                _log.warning("log batch refused", extra={"error": str(error)})
            except Exception as error:  # noqa: BLE001  whatever it is, the job goes on
                failures += 1
                if failures == 1:  # once: this line is shipped as well
                    _log.warning("log service failed", extra={"error": str(error)})
                continue
            failures = 0
            with self._changed:
                if len(self._spool):
                    self._spool.drop_first()
                lost, self._spool.lost = self._spool.lost, 0
            if lost:
                _log.warning("log lines lost", extra={"lines": lost})

    def _next(self, failures: int) -> LogBatch | None:
        """Wait for the next batch to send; ``None`` at the end."""
        with self._changed:
            if failures:
                self._pause(failures)
            while not len(self._spool):
                if self._closing:
                    return None
                if not len(self._gathering):
                    self._changed.wait()
                elif (left := self._since + self._interval - time.monotonic()) > 0:
                    self._changed.wait(left)
                else:
                    self._seal()
            return self._spool.first()

    def _pause(self, failures: int) -> None:
        pause = jittered(
            failures, base=FIRST_PAUSE_SECONDS, cap=LONGEST_PAUSE_SECONDS, draw=self._draw()
        )
        end = time.monotonic() + pause
        while (left := end - time.monotonic()) > 0:
            if self._closing:
                self._changed.wait(min(left, _LAST_PAUSE_SECONDS))
                return
            self._changed.wait(left)

    def _seal(self) -> None:
        if len(self._gathering):
            self._spool.append(LogBatch("", self._gathering.take()))


class ShippingHandler(logging.Handler):
    """Hands the agent's log to a shipper.

    Args:
        shipper: Ships it.
    """

    def __init__(self, shipper: LogShipper) -> None:
        super().__init__()
        self._shipper = shipper

    def emit(self, record: logging.LogRecord) -> None:
        """Hand one line over."""
        try:
            self._shipper.write(int(record.created * 1000), self.format(record))
        except Exception:  # noqa: BLE001  as the standard handlers do
            self.handleError(record)


class NoLogs:
    """Ships nothing, for a fleet without a log group. Satisfies ``ShipsLogs``."""

    def begin(self, stream: str) -> None:
        """Nothing begins."""

    def attach(self, stream: str, lines: Iterable[tuple[int, str]]) -> None:
        """Nothing is sent."""

    def close(self, seconds: float) -> bool:  # noqa: ARG002  the port's
        """Nothing is left."""
        return True
