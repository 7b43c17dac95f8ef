"""Spot interruption and rebalance notices, asked for every 5 s beside everything else.

A notice of an interruption stops the agent like SIGTERM does, but with a time by which all must be
over. A rebalance recommendation is only a risk, and no reason to break off a job: it is logged, and
told in the report of a job that was then interrupted.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from runsfleet_runtime.telemetry.log import get_logger

if TYPE_CHECKING:
    from runsfleet_runtime.agent.ports import Clock

INTERVAL_SECONDS = 5.0
"""AWS asks to look this often."""

_log = get_logger("agent.notices")


@dataclass(frozen=True, slots=True)
class SpotNotice:
    """EC2 is going to take this instance.

    Attributes:
        action: ``terminate``, ``stop`` or ``hibernate``.
        at: When; ``None`` when the notice does not tell.
    """

    action: str
    at: datetime | None


class TellsNotices(Protocol):
    """Knows what EC2 has announced for this instance; raises ``OSError`` when it does not."""

    def spot_notice(self) -> SpotNotice | None:
        """The interruption that was announced; ``None`` for none."""

    def rebalance_notice(self) -> str | None:
        """When a rebalance was recommended; ``None`` for never."""


class NoticeWatch:
    """Watches for notices on a thread of its own, as a hanging service must hold up nothing.

    Args:
        metadata: Asked for notices.
        clock: Told to stop.
        interval: Seconds between two looks.

    Attributes:
        rebalance: When a rebalance was recommended; ``None`` for never.
    """

    def __init__(
        self, metadata: TellsNotices, clock: Clock, *, interval: float = INTERVAL_SECONDS
    ) -> None:
        self.rebalance: str | None = None
        self._metadata = metadata
        self._clock = clock
        self._interval = interval
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="notices")

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer; returns at once."""
        self._over.set()

    def look(self) -> bool:
        """Look once; whether an interruption was announced. A failure is no notice."""
        try:
            if self.rebalance is None and (noticed := self._metadata.rebalance_notice()):
                self.rebalance = noticed
                _log.warning("rebalance recommended", extra={"notice_time": noticed})
            notice = self._metadata.spot_notice()
        except OSError as error:
            _log.debug("no answer about notices", extra={"error": str(error)})
            return False
        if notice is None:
            return False
        when = f" at {notice.at.isoformat()}" if notice.at else ""
        _log.warning("spot interruption", extra={"action": notice.action, "at": str(notice.at)})
        left = (notice.at - self._clock.now()).total_seconds() if notice.at else None
        self._clock.request_stop(f"a spot interruption ({notice.action}{when})", within=left)
        return True

    def _watch(self) -> None:
        while not self.look() and not self._over.wait(self._interval):
            continue


def parse_time(text: object) -> datetime | None:
    """Read a time of the metadata service, such as ``2026-11-20T11:00:00Z``."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
