"""How a day compares with those before it, and what the month will come to."""

from __future__ import annotations

import json
import math
import statistics
from calendar import monthrange
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Final

from runsfleet_runtime.cost.reckon import DayCost

_ANOMALY_DAYS: Final = 7  # fewer say nothing of what is usual
_ANOMALY_FACTOR: Final = 2.0
_FORECAST_DAYS: Final = 3
_ANOMALY_USD: Final = 5.0  # a jump from one dollar to three is no news


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What is kept of a day.

    Attributes:
        day: The day, ISO 8601.
        usd: All that had a price.
        jobs: Jobs that ran.
        instance_seconds: Seconds of all instances.
        spot_seconds: Of these, those on spot.
        is_partial: Whether the day was not over when it was reckoned.
    """

    day: str
    usd: float
    jobs: int
    instance_seconds: float
    spot_seconds: float
    is_partial: bool = False

    @classmethod
    def of(cls, cost: DayCost) -> Summary:
        """Return what is kept of a bill."""
        return cls(
            day=cost.day.name,
            usd=round(cost.usd, 6),
            jobs=cost.jobs,
            instance_seconds=round(math.fsum(cost.seconds.values()), 3),
            spot_seconds=round(cost.seconds.get("spot", 0.0), 3),
            is_partial=cost.is_partial,
        )

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Summary:
        """Read it back.

        Raises:
            ValueError: If that is not what :meth:`to_json` writes.
        """
        body = json.loads(text)
        try:
            return cls(
                day=date.fromisoformat(body["day"]).isoformat(),
                usd=float(body["usd"]),
                jobs=int(body["jobs"]),
                instance_seconds=float(body["instance_seconds"]),
                spot_seconds=float(body["spot_seconds"]),
                is_partial=bool(body["is_partial"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a summary of a day: {error!r}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Several days together.

    Attributes:
        usd: What they cost.
        jobs: Jobs that ran.
        days: How many of them are known.
        of: How many they are.
    """

    usd: float
    jobs: int
    days: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trends:
    """A day among others.

    Attributes:
        week: The seven days that end with it.
        before: The seven days before these.
        month: The thirty days that end with it.
        month_to_date: Its month until it.
        forecast_usd: What the month will come to; ``None`` when fewer than three of the last 28
            days are known.
        usual_usd: The median of the seven days before it; ``None`` when not all are known.
        is_unusual: Whether it cost more than twice that, and five dollars more.
        history: The known days of the last thirty, oldest first.
    """

    week: Span
    before: Span
    month: Span
    month_to_date: Span
    forecast_usd: float | None
    usual_usd: float | None
    is_unusual: bool
    history: tuple[Summary, ...]


def trends(today: Summary, earlier: Sequence[Summary]) -> Trends:
    """Compare a day with earlier ones.

    Args:
        today: The day.
        earlier: What is known of days before it, in any order; a day that is not there is unknown
            and never counted as zero.

    Example:
        >>> day = Summary(day="2026-11-01", usd=3.0, jobs=1, instance_seconds=60, spot_seconds=0)
        >>> trends(day, []).month_to_date.usd
        3.0
    """
    last = date.fromisoformat(today.day)
    known = {s.day: s for s in earlier if s.day < today.day} | {today.day: today}

    def span(end: date, days: int) -> Span:
        found = [known[day.isoformat()] for day in _back(end, days) if day.isoformat() in known]
        return Span(
            usd=math.fsum(s.usd for s in found),
            jobs=sum(s.jobs for s in found),
            days=len(found),
            of=days,
        )

    before_today = [
        known[name]
        for n in range(1, _ANOMALY_DAYS + 1)
        if (name := (last - timedelta(days=n)).isoformat()) in known
    ]
    usual = None
    if len(before_today) == _ANOMALY_DAYS:
        usual = statistics.median(s.usd for s in before_today)
    to_date = span(last, last.day)
    recent = [day.isoformat() for day in reversed(_back(last, 30))]
    return Trends(
        week=span(last, 7),
        before=span(last - timedelta(days=7), 7),
        month=span(last, 30),
        month_to_date=to_date,
        forecast_usd=_forecast(last, known, to_date),
        usual_usd=usual,
        is_unusual=usual is not None
        and today.usd > _ANOMALY_FACTOR * usual
        and today.usd - usual > _ANOMALY_USD,
        history=tuple(known[day] for day in recent if day in known),
    )


def _forecast(last: date, known: Mapping[str, Summary], to_date: Span) -> float | None:
    """Return the month so far and, for each day to come, the mean of its weekday.

    A weekday that is not known, and days of the month so far that are not known, count as the mean
    of the last seven known days.
    """
    past = [
        (day, known[day.isoformat()].usd) for day in _back(last, 28) if day.isoformat() in known
    ]
    if len(past) < _FORECAST_DAYS:
        return None
    mean = statistics.fmean(usd for _, usd in past[:7])
    by_weekday = {w: [usd for day, usd in past if day.weekday() == w] for w in range(7)}
    coming = (
        date(last.year, last.month, n)
        for n in range(last.day + 1, monthrange(last.year, last.month)[1] + 1)
    )
    rest = math.fsum(statistics.fmean(by_weekday[day.weekday()] or [mean]) for day in coming)
    return to_date.usd + (to_date.of - to_date.days) * mean + rest


def _back(last: date, days: int) -> list[date]:
    return [last - timedelta(days=n) for n in range(days)]
