"""A day among other days."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from runsfleet_runtime.cost.trends import Summary, trends


def summary(day: date, usd: float, jobs: int = 10) -> Summary:
    """Return a day."""
    return Summary(
        day=day.isoformat(), usd=usd, jobs=jobs, instance_seconds=3600, spot_seconds=1800
    )


def days(last: date, costs: list[float]) -> list[Summary]:
    """Return the days before ``last``, the newest first."""
    return [summary(last - timedelta(days=n + 1), usd) for n, usd in enumerate(costs)]


def test_weeks_and_months() -> None:
    """Seven days, the seven before, thirty, and the month so far."""
    last = date(2026, 11, 20)
    found = trends(summary(last, 1.0), days(last, [1.0] * 6 + [2.0] * 7 + [3.0] * 40))
    assert (found.week.usd, found.week.days, found.week.of) == (7.0, 7, 7)
    assert found.before.usd == 14.0
    assert found.month.usd == 7.0 + 14.0 + 16 * 3.0
    assert found.month_to_date.usd == 7.0 + 14.0 + 6 * 3.0
    assert [s.day for s in found.history][::29] == ["2026-10-22", "2026-11-20"]


def test_a_month_that_begins() -> None:
    """On the first there is one day; the forecast leans on the month before."""
    last = date(2026, 12, 1)
    found = trends(summary(last, 2.0), days(last, [2.0] * 27))
    assert (found.month_to_date.usd, found.month_to_date.of) == (2.0, 1)
    assert found.forecast_usd == pytest.approx(31 * 2.0)


def test_a_month_that_ends() -> None:
    """On its last day the forecast is what it cost."""
    last = date(2026, 2, 28)
    found = trends(summary(last, 1.0), days(last, [1.0] * 27))
    assert found.forecast_usd == pytest.approx(28.0)


def test_the_forecast_knows_weekends() -> None:
    """A fleet that rests at weekends is not forecast as if it did not."""
    last = date(2026, 11, 20)  # a Friday; ten days of the month are left: 4 of them at weekends
    known = [
        summary(day, 0.0 if day.weekday() >= 5 else 10.0)
        for day in (last - timedelta(days=n) for n in range(1, 28))
    ]
    found = trends(summary(last, 10.0), known)
    weekdays = sum(date(2026, 11, n).weekday() < 5 for n in range(1, 31))
    assert found.forecast_usd == pytest.approx(weekdays * 10.0)


def test_unknown_days_are_not_zero() -> None:
    """They are counted as unknown, and the forecast takes the mean for them."""
    last = date(2026, 11, 20)
    found = trends(summary(last, 4.0), [s for s in days(last, [4.0] * 27) if s.day[-1] != "5"])
    assert (found.month_to_date.days, found.month_to_date.of) == (18, 20)
    assert found.month_to_date.usd == 72.0
    assert found.forecast_usd == pytest.approx(120.0)
    assert trends(summary(last, 4.0), days(last, [4.0])).forecast_usd is None


def test_an_unusual_day() -> None:
    """More than twice the median of the week before, and by more than five dollars."""
    last = date(2026, 11, 20)
    assert trends(summary(last, 25.0), days(last, [10.0] * 7)).is_unusual
    assert not trends(summary(last, 19.0), days(last, [10.0] * 7)).is_unusual
    assert not trends(summary(last, 3.0), days(last, [1.0] * 7)).is_unusual
    few = trends(summary(last, 100.0), days(last, [10.0] * 6))
    assert (few.is_unusual, few.usual_usd) == (False, None)


def test_a_summary_comes_back_as_it_was_written() -> None:
    """And what is none is refused."""
    day = summary(date(2026, 11, 20), 1.25)
    assert Summary.from_json(day.to_json()) == day
    with pytest.raises(ValueError, match="not a summary"):
        Summary.from_json('{"day": "2026-11-20"}')
