"""Evaluates synthesized alarms over metrics as CloudWatch does, for tests.

Periods are aligned to the epoch. A period without data counts as the alarm says: as breaching, as
fine, or it is passed over ("ignore"), and with nothing else to go by the state stays.
"""

from __future__ import annotations

import math
import operator
import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.infrastructure.templates import flat

Key = tuple[str, str, frozenset[tuple[str, str]]]

_COMPARISONS: Final = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}


@dataclass
class Series:
    """Data points by metric."""

    points: defaultdict[Key, list[tuple[float, float]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def put(self, namespace: str, name: str, at: float, value: float, **dimensions: str) -> None:
        """Add a data point."""
        self.points[namespace, name, frozenset(dimensions.items())].append((at, value))

    def statistic(self, metric: Mapping[str, Any], start: float, end: float) -> float | None:
        """Return a metric's statistic over a period; ``None`` without data."""
        stat, about = metric.get("Stat", metric.get("Statistic", "")), metric.get("Metric", metric)
        names = {d["Name"]: flat(d["Value"]) for d in about.get("Dimensions", [])}
        key = (about["Namespace"], about["MetricName"], frozenset(names.items()))
        values = [value for at, value in self.points.get(key, ()) if start <= at < end]
        if not values:
            return None
        if stat.startswith("p"):
            ordered = sorted(values)
            rank = round(float(stat[1:]) / 100 * (len(ordered) - 1))
            return ordered[rank]
        aggregates: dict[str, Callable[[list[float]], float]] = {
            "Sum": math.fsum,
            "Minimum": min,
            "Maximum": max,
            "Average": statistics.fmean,
        }
        return aggregates[stat](values)


class AlarmState:
    """One alarm and its state."""

    def __init__(self, properties: Mapping[str, Any]) -> None:
        self.properties = properties
        self.is_alarm = False
        stats = [m["MetricStat"] for m in properties.get("Metrics", []) if "MetricStat" in m]
        self.period = float(stats[0]["Period"] if stats else properties["Period"])
        self.periods = int(properties["EvaluationPeriods"])

    @property
    def delay(self) -> float:
        """Seconds from the first bad data until it fires at the latest."""
        return (self.periods + 1) * self.period

    def evaluate(self, series: Series, now: float) -> bool:
        """Return whether it is in alarm at a time, the end of a minute."""
        last = now // self.period * self.period
        values = [
            self._value(series, last - (n + 1) * self.period, last - n * self.period)
            for n in range(self.periods)
        ]
        missing = self.properties["TreatMissingData"]
        if missing == "ignore" and any(value is None for value in values):
            return self.is_alarm
        beyond = _COMPARISONS[self.properties["ComparisonOperator"]]
        threshold = float(self.properties["Threshold"])
        self.is_alarm = all(
            missing == "breaching" if value is None else beyond(value, threshold)
            for value in values
        )
        return self.is_alarm

    def _value(self, series: Series, start: float, end: float) -> float | None:
        metrics = self.properties.get("Metrics")
        if metrics is None:
            return series.statistic(self.properties, start, end)
        names = {
            m["Id"]: series.statistic(m["MetricStat"], start, end)
            for m in metrics
            if "MetricStat" in m
        }
        (expression,) = [m["Expression"] for m in metrics if "Expression" in m]
        return calculate(expression, names)


def calculate(expression: str, values: Mapping[str, float | None]) -> float | None:
    """Return the value of a metric math expression of the kinds that the alarms use.

    Example:
        >>> calculate("IF(FILL(a, 0) > 0 AND FILL(b, 0) == 0, 1, 0)", {"a": 2.0, "b": None})
        1.0
    """
    text = re.sub(r"\bIF\(", "_if(", expression)
    text = re.sub(r"\bFILL\(", "_fill(", text)
    text = re.sub(r"\bAND\b", "and", text)
    scope = {
        "_if": lambda condition, yes, no: yes if condition else no,
        "_fill": lambda value, other: other if value is None else value,
        "__builtins__": {},
    }
    try:
        return float(eval(text, scope, dict(values)))  # noqa: S307 - our own templates' text
    except (TypeError, ZeroDivisionError):
        return None  # data is missing, or there is no such number
